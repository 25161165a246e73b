//! Memory that a device uses: what a call stages, and what was pinned for it.
//!
//! Invariant: a device writes only into buffers that are owned here. What a call is to give back is moved into the caller's
//! slice by the CPU, after the work was seen to be done; so a kernel that hangs and wakes later can hurt nobody.
#![expect(unsafe_code, reason = "memory of a runtime is known by address alone")]

use std::alloc::{Layout, alloc_zeroed};
use std::ptr::NonNull;
use std::slice;

use plesio_memory::Arena;

use crate::{DeviceAddress, Fault, Runtime, RuntimeError};

/// Alignment of every buffer, bytes.
const ALIGN_BYTES: usize = 256;

/// A buffer of the device with its bytes on the host: the same memory where both can use it, else a copy.
#[derive(Debug)]
pub(crate) struct Buffer {
    device: DeviceAddress,
    host: NonNull<u8>,
    bytes: usize,
    kind: Kind,
}

/// Where both sides of a buffer are from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// One memory, given by the driver: devices that share the host's.
    Shared,
    /// The device's, and pinned by the driver on the host.
    Staged,
    /// The device's, and plain heap: a runtime that pins nothing.
    Plain,
}

// SAFETY: addresses of memory that the value owns alone; nothing in it belongs to a thread.
unsafe impl Send for Buffer {}

impl Buffer {
    /// At least one byte.
    pub(crate) fn new<R: Runtime>(runtime: &R, bytes: usize) -> Result<Self, RuntimeError> {
        if runtime.chip().integrated
            && let Ok((host, device)) = runtime.allocate_host(bytes)
        {
            return Ok(Self { device, host, bytes, kind: Kind::Shared });
        }
        let device = runtime.allocate(bytes)?;
        let staged = runtime.allocate_host(bytes).map(|(host, _)| (host, Kind::Staged));
        match staged.or_else(|_| plain(bytes).map(|host| (host, Kind::Plain))) {
            Ok((host, kind)) => Ok(Self { device, host, bytes, kind }),
            Err(error) => {
                // SAFETY: just allocated, and nothing uses it.
                unsafe { runtime.free(device) };
                Err(error)
            }
        }
    }

    /// Gives both sides back. A buffer that is dropped instead stays allocated: a device that hangs may still use it.
    pub(crate) fn free<R: Runtime>(self, runtime: &R) {
        if self.kind != Kind::Shared {
            // SAFETY: from `allocate`, and by value: freed once. The caller has seen the stream past its last use.
            unsafe { runtime.free(self.device) };
        }
        match self.kind {
            // SAFETY: from `allocate_host`, freed once, used by nobody any more.
            Kind::Shared | Kind::Staged => unsafe { runtime.free_host(self.host) },
            // SAFETY: from `plain` with this very layout, freed once.
            Kind::Plain => unsafe {
                std::alloc::dealloc(
                    self.host.as_ptr(),
                    layout(self.bytes).expect("as when it was allocated"),
                );
            },
        }
    }

    /// Where the device finds it.
    pub(crate) fn device(&self) -> DeviceAddress {
        self.device
    }

    /// Its length.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The host's side. Nothing that uses the buffer may be under way.
    pub(crate) fn host(&mut self) -> &mut [u8] {
        // SAFETY: `bytes` initialised bytes (zeroed when allocated) that this value owns; borrowed as it is.
        unsafe { slice::from_raw_parts_mut(self.host.as_ptr(), self.bytes) }
    }

    /// Submits the first bytes of the host's side to the device's.
    pub(crate) fn submit_in<R: Runtime>(
        &self,
        runtime: &R,
        bytes: usize,
        stream: &R::Stream,
    ) -> Result<(), RuntimeError> {
        assert!(bytes <= self.bytes, "more than the buffer has");
        if self.kind == Kind::Shared || bytes == 0 {
            return Ok(());
        }
        // SAFETY: both sides are `self.bytes` long and stay until `free`, which waits for the stream; `host` borrows mutably,
        // and a call writes there before it submits.
        unsafe { runtime.copy_in(self.device, self.host.as_ptr(), bytes, stream) }
    }

    /// Submits the first bytes of the device's side to the host's.
    pub(crate) fn submit_out<R: Runtime>(
        &self,
        runtime: &R,
        bytes: usize,
        stream: &R::Stream,
    ) -> Result<(), RuntimeError> {
        assert!(bytes <= self.bytes, "more than the buffer has");
        if self.kind == Kind::Shared || bytes == 0 {
            return Ok(());
        }
        // SAFETY: as in `submit_in`; the host's side is read after the stream is past this.
        unsafe { runtime.copy_out(self.host.as_ptr(), self.device, bytes, stream) }
    }
}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.max(1), ALIGN_BYTES).ok()
}

fn plain(bytes: usize) -> Result<NonNull<u8>, RuntimeError> {
    let refused = || RuntimeError {
        call: "allocation",
        code: 0,
        name: format!("the host has no {bytes} bytes"),
        log: String::new(),
        fault: Fault::Memory,
    };
    let layout = layout(bytes).ok_or_else(refused)?;
    // SAFETY: the layout has at least one byte.
    NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(refused)
}

/// Memory of ours that the device reads in place, for good.
#[derive(Debug)]
pub(crate) struct Pinned {
    base: usize,
    bytes: usize,
    device: DeviceAddress,
    /// Keeps it mapped; the driver's own needs nobody.
    _arena: Option<Arena>,
}

impl Pinned {
    /// Registers a mapping.
    ///
    /// # Safety
    /// `bytes` from `base` on stay mapped as long as `arena` lives.
    pub(crate) unsafe fn register<R: Runtime>(
        runtime: &R,
        base: NonNull<u8>,
        bytes: usize,
        arena: Arena,
    ) -> Result<Self, RuntimeError> {
        // SAFETY: the caller's promise; the arena is kept for as long as the runtime, which is for good.
        let device = unsafe { runtime.register_host(base, bytes) }?;
        Ok(Self { base: base.addr().get(), bytes, device, _arena: Some(arena) })
    }

    /// What the driver gave.
    pub(crate) fn given(base: NonNull<u8>, bytes: usize, device: DeviceAddress) -> Self {
        Self { base: base.addr().get(), bytes, device, _arena: None }
    }

    /// Where the device finds these bytes, if they lie here whole.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<DeviceAddress> {
        let offset = bytes.as_ptr().addr().checked_sub(self.base)?;
        (offset <= self.bytes && bytes.len() <= self.bytes - offset).then(|| self.device.add(offset))
    }
}
