//! Memory: the device's own, the driver's on the host, ours lent to the device; and copies between them.
//!
//! Nothing here uses memory pools or allocation in streams, which Jetsons do not have.
#![expect(unsafe_code, reason = "the driver's functions are foreign")]

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use plesio_launch::{Current, DeviceAddress, RuntimeError};

use crate::context::Context;
use crate::error::check;
use crate::stream::Stream;
use crate::sys::{
    CU_MEMHOSTALLOC_DEVICEMAP, CU_MEMHOSTALLOC_PORTABLE, CU_MEMHOSTREGISTER_DEVICEMAP,
    CU_MEMHOSTREGISTER_PORTABLE,
};

impl Context {
    pub(crate) fn allocate(&self, bytes: usize) -> Result<DeviceAddress, RuntimeError> {
        self.enter()?;
        let mut address = 0;
        // SAFETY: writes one number.
        check("cuMemAlloc", unsafe { (self.driver.cuMemAlloc_v2)(&mut address, bytes) })?;
        Ok(DeviceAddress(address))
    }

    /// # Safety
    /// It is from `allocate`, freed once, and nothing submitted uses it.
    pub(crate) unsafe fn free(&self, address: DeviceAddress) {
        if self.enter().is_ok() {
            // SAFETY: the caller vouches.
            let _status = unsafe { (self.driver.cuMemFree_v2)(address.0) };
        }
    }

    pub(crate) fn allocate_host(&self, bytes: usize) -> Result<(NonNull<u8>, DeviceAddress), RuntimeError> {
        self.enter()?;
        let (mut base, flags) =
            (ptr::null_mut::<c_void>(), CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_PORTABLE);
        // SAFETY: writes one pointer.
        check("cuMemHostAlloc", unsafe { (self.driver.cuMemHostAlloc)(&mut base, bytes, flags) })?;
        let base = NonNull::new(base.cast::<u8>()).expect("the driver gives memory where it says success");
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
            let _status = unsafe { (self.driver.cuMemFreeHost)(base.as_ptr().cast()) };
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
        let flags = CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_PORTABLE;
        // SAFETY: the caller vouches for the range; the driver refuses what is not mapped.
        check("cuMemHostRegister", unsafe {
            (self.driver.cuMemHostRegister_v2)(base.as_ptr().cast(), bytes, flags)
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
            let _status = unsafe { (self.driver.cuMemHostUnregister)(base.as_ptr().cast()) };
        }
    }

    /// Where memory of the host lies for the device, which the driver was told of.
    fn address_of(&self, base: NonNull<u8>) -> Result<DeviceAddress, RuntimeError> {
        let mut address = 0;
        // SAFETY: writes one number.
        check("cuMemHostGetDevicePointer", unsafe {
            (self.driver.cuMemHostGetDevicePointer_v2)(&mut address, base.as_ptr().cast(), 0)
        })?;
        Ok(DeviceAddress(address))
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
        self.enter()?;
        // SAFETY: the caller vouches for both ranges; the stream lives.
        check("cuMemcpyHtoDAsync", unsafe {
            (self.driver.cuMemcpyHtoDAsync_v2)(to.0, from.cast(), bytes, stream.0.raw())
        })
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
        self.enter()?;
        // SAFETY: the caller vouches for both ranges; the stream lives.
        check("cuMemcpyDtoHAsync", unsafe {
            (self.driver.cuMemcpyDtoHAsync_v2)(to.cast(), from.0, bytes, stream.0.raw())
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
        check("cuMemsetD8Async", unsafe { (self.driver.cuMemsetD8Async)(at.0, value, bytes, stream.0.raw()) })
    }
}
