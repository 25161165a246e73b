//! Memory: the device's own, the runtime's on the host, ours lent to the device; and copies between them.
//!
//! Nothing here uses memory pools or allocation in streams: the driver of NVIDIA's boards has none, and both are used
//! alike.
#![expect(unsafe_code, reason = "the runtime's functions are foreign")]

use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};

use plesio_launch::{Current, DeviceAddress, RuntimeError};

use crate::context::Context;
use crate::error::{INVALID_VALUE, check, error};
use crate::stream::Stream;
use crate::sys::{
    Direction, HOST_MALLOC_MAPPED, HOST_MALLOC_PORTABLE, HOST_REGISTER_MAPPED, HOST_REGISTER_PORTABLE,
};

/// An address as the runtime takes it.
fn pointer(address: DeviceAddress) -> *mut c_void {
    ptr::without_provenance_mut(address.0 as usize)
}

/// An address as the runtime gives it.
fn address(pointer: *mut c_void) -> DeviceAddress {
    DeviceAddress(pointer.addr() as u64)
}

impl Context {
    pub(crate) fn allocate(&self, bytes: usize) -> Result<DeviceAddress, RuntimeError> {
        const CALL: &str = "hipMalloc";
        if bytes == 0 {
            return Err(error(CALL, INVALID_VALUE));
        }
        self.enter()?;
        let mut base = ptr::null_mut();
        // SAFETY: writes one pointer.
        check(CALL, unsafe { (self.driver.hipMalloc)(&mut base, bytes) })?;
        Ok(address(base))
    }

    /// # Safety
    /// It is from `allocate`, freed once, and nothing submitted uses it.
    pub(crate) unsafe fn free(&self, address: DeviceAddress) {
        if self.enter().is_ok() {
            // SAFETY: the caller vouches.
            let _status = unsafe { (self.driver.hipFree)(pointer(address)) };
        }
    }

    pub(crate) fn allocate_host(&self, bytes: usize) -> Result<(NonNull<u8>, DeviceAddress), RuntimeError> {
        const CALL: &str = "hipHostMalloc";
        if bytes == 0 {
            return Err(error(CALL, INVALID_VALUE));
        }
        self.enter()?;
        let (mut base, flags) = (ptr::null_mut::<c_void>(), HOST_MALLOC_MAPPED | HOST_MALLOC_PORTABLE);
        // SAFETY: writes one pointer.
        check(CALL, unsafe { (self.driver.hipHostMalloc)(&mut base, bytes, flags) })?;
        let base = NonNull::new(base.cast::<u8>()).expect("the runtime gives memory where it says success");
        // SAFETY: just allocated with so many bytes, and nobody else knows of them.
        unsafe { ptr::write_bytes(base.as_ptr(), 0, bytes) };
        let address = self.address_of(base);
        if address.is_err() {
            // SAFETY: just allocated, and nothing uses it.
            unsafe { self.free_host(base) };
        }
        Ok((base, address?))
    }

    /// # Safety
    /// It is from `allocate_host`, freed once, and neither side uses it.
    pub(crate) unsafe fn free_host(&self, base: NonNull<u8>) {
        if self.enter().is_ok() {
            // SAFETY: the caller vouches.
            let _status = unsafe { (self.driver.hipHostFree)(base.as_ptr().cast()) };
        }
    }

    /// # Safety
    /// The bytes stay mapped until `unregister_host`.
    pub(crate) unsafe fn register_host(
        &self,
        base: NonNull<u8>,
        bytes: usize,
    ) -> Result<DeviceAddress, RuntimeError> {
        self.enter()?;
        let flags = HOST_REGISTER_MAPPED | HOST_REGISTER_PORTABLE;
        // SAFETY: the caller vouches for the range; the runtime refuses what is not mapped.
        check("hipHostRegister", unsafe {
            (self.driver.hipHostRegister)(base.as_ptr().cast(), bytes, flags)
        })?;
        let address = self.address_of(base);
        if address.is_err() {
            // SAFETY: just registered, and nothing uses it.
            unsafe { self.unregister_host(base) };
        }
        address
    }

    /// # Safety
    /// It was registered, and nothing submitted uses it.
    pub(crate) unsafe fn unregister_host(&self, base: NonNull<u8>) {
        if self.enter().is_ok() {
            // SAFETY: the caller vouches.
            let _status = unsafe { (self.driver.hipHostUnregister)(base.as_ptr().cast()) };
        }
    }

    /// Where memory of the host lies for the device, which the runtime was told of.
    fn address_of(&self, base: NonNull<u8>) -> Result<DeviceAddress, RuntimeError> {
        let mut mapped = ptr::null_mut();
        // SAFETY: writes one pointer.
        check("hipHostGetDevicePointer", unsafe {
            (self.driver.hipHostGetDevicePointer)(&mut mapped, base.as_ptr().cast(), 0)
        })?;
        Ok(address(mapped))
    }

    /// # Safety
    /// As for [`plesio_launch::Runtime::copy_in`].
    pub(crate) unsafe fn copy_in(
        &self,
        to: DeviceAddress,
        from: *const u8,
        bytes: usize,
        stream: &Stream,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { self.copy(pointer(to), from.cast(), bytes, Direction::HostToDevice, stream) }
    }

    /// # Safety
    /// As for [`plesio_launch::Runtime::copy_out`].
    pub(crate) unsafe fn copy_out(
        &self,
        to: *mut u8,
        from: DeviceAddress,
        bytes: usize,
        stream: &Stream,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { self.copy(to.cast(), pointer(from), bytes, Direction::DeviceToHost, stream) }
    }

    /// # Safety
    /// Both ranges are valid for `bytes` on the sides that `direction` says until the stream is past it.
    unsafe fn copy(
        &self,
        to: *mut c_void,
        from: *const c_void,
        bytes: usize,
        direction: Direction,
        stream: &Stream,
    ) -> Result<(), RuntimeError> {
        self.enter()?;
        // SAFETY: the caller vouches for both ranges; the stream lives.
        check("hipMemcpyAsync", unsafe {
            (self.driver.hipMemcpyAsync)(to, from, bytes, direction, stream.0.raw())
        })
    }

    /// # Safety
    /// As for [`plesio_launch::Runtime::fill`].
    pub(crate) unsafe fn fill(
        &self,
        at: DeviceAddress,
        value: u8,
        bytes: usize,
        stream: &Stream,
    ) -> Result<(), RuntimeError> {
        self.enter()?;
        // SAFETY: the caller vouches for the range; the stream lives.
        check("hipMemsetAsync", unsafe {
            (self.driver.hipMemsetAsync)(pointer(at), c_int::from(value), bytes, stream.0.raw())
        })
    }
}
