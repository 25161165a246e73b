//! The seam to a vendor's runtime: what CUDA and HIP both offer, on one device.
//!
//! A call names a stream where the runtime's does; nothing here waits except what says so. Addresses of a device are
//! numbers to the host: they are handed on and never dereferenced.

use std::ffi::CStr;
use std::fmt;
use std::ptr::NonNull;

use crate::Chip;

/// Where something lies for the device.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct DeviceAddress(pub u64);

impl DeviceAddress {
    /// So many bytes further on.
    #[must_use]
    pub const fn add(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// What kind of trouble a runtime's error code means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// No memory left, on the device or for pinning.
    Memory,
    /// The image is no image, altered, newer than the driver, or for other chips.
    Image,
    /// The module has no kernel of this name.
    Missing,
    /// The device is gone or its context is poisoned: nothing on it will work again.
    Lost,
    /// Anything else.
    Other,
}

/// A runtime refused a call. It says what, where and why; what mends it depends on who asked, and is theirs to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuntimeError {
    /// The vendor's name of the call.
    pub call: &'static str,
    /// The vendor's number of the error; 0 where it is none of theirs.
    pub code: i32,
    /// The vendor's name of it, `CUDA_ERROR_OUT_OF_MEMORY` for instance.
    pub name: String,
    /// What the vendor's compiler said, where the call has one; else empty.
    pub log: String,
    /// What that means here.
    pub fault: Fault,
}

/// One of a vendor's error codes.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    /// Its number.
    pub number: i32,
    /// Its name.
    pub name: &'static str,
    /// What it means here.
    pub fault: Fault,
}

impl RuntimeError {
    /// What a call's status means by the vendor's table of codes.
    pub fn of(call: &'static str, number: i32, codes: &[Code]) -> Self {
        let known = codes.iter().find(|code| code.number == number);
        let name = known.map_or("a newer runtime's error", |code| code.name).to_string();
        Self {
            call,
            code: number,
            name,
            log: String::new(),
            fault: known.map_or(Fault::Other, |code| code.fault),
        }
    }
}

impl fmt::Display for RuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.name)?;
        if self.code != 0 {
            write!(f, " ({})", self.code)?;
        }
        if !self.log.is_empty() {
            write!(f, ": {}", self.log)?;
        }
        Ok(())
    }
}

impl std::error::Error for RuntimeError {}

/// A vendor's runtime, opened on one device.
///
/// # Safety
/// An implementor promises that memory that `allocate`, `allocate_host` and `register_host` give addresses of stays
/// where it is until it is freed or unregistered by this very value, that a launch runs the named kernel with a copy
/// of the parameters, after everything that was submitted to the same stream before, and that an event that is done
/// means that nothing submitted to its stream before it was recorded still runs.
///
/// Any thread may call anything. What a runtime made is given back when it is dropped, and on a device that is lost
/// nothing happens then. Giving back memory, a registration, a module or a stream may wait for the device: after a
/// launch that does not end, forget them instead ([`std::mem::forget`]). Events and graphs do not wait.
// SAFETY: the promise above is the implementor's.
pub unsafe trait Runtime: fmt::Debug + Send + Sync + 'static {
    /// Short name for reports: `cuda`, `hip`.
    const NAME: &'static str;

    /// Code that was loaded.
    type Module: fmt::Debug + Send + Sync;
    /// A kernel of a module.
    type Function: Copy + fmt::Debug + Send + Sync;
    /// Work that is done in order.
    type Stream: fmt::Debug + Send + Sync;
    /// A point in a stream.
    type Event: fmt::Debug + Send + Sync;
    /// Work that was recorded once, to be submitted again and again.
    type Graph: fmt::Debug + Send + Sync;

    /// The device.
    fn chip(&self) -> &Chip;

    /// Loads an artefact: a whole ELF file, or PTX as text without a zero at its end.
    fn load(&self, image: &[u8]) -> Result<Self::Module, RuntimeError>;
    /// Finds a kernel.
    fn function(&self, module: &Self::Module, name: &CStr) -> Result<Self::Function, RuntimeError>;

    /// A new stream, which does not wait for others.
    fn stream(&self) -> Result<Self::Stream, RuntimeError>;
    /// A new event, with a time.
    fn event(&self) -> Result<Self::Event, RuntimeError>;
    /// The event is done when everything submitted before is.
    fn record(&self, event: &Self::Event, stream: &Self::Stream) -> Result<(), RuntimeError>;
    /// Whether it is. An event that was never recorded is done.
    fn is_done(&self, event: &Self::Event) -> Result<bool, RuntimeError>;
    /// Nanoseconds between two events that are done.
    fn elapsed_ns(&self, begin: &Self::Event, end: &Self::Event) -> Result<u64, RuntimeError>;

    /// Memory of the device, with anything in it; at least one byte.
    fn allocate(&self, bytes: usize) -> Result<DeviceAddress, RuntimeError>;
    /// Gives it back.
    ///
    /// # Safety
    /// It is from `allocate`, freed once, and nothing submitted uses it.
    unsafe fn free(&self, address: DeviceAddress);
    /// Memory of the host that the device uses in place, zeroed; for devices that share it. At least one byte.
    fn allocate_host(&self, bytes: usize) -> Result<(NonNull<u8>, DeviceAddress), RuntimeError>;
    /// Gives it back.
    ///
    /// # Safety
    /// It is from `allocate_host`, freed once, and neither side uses it.
    unsafe fn free_host(&self, base: NonNull<u8>);
    /// Lets the device use memory of ours in place; where it lies for the device.
    ///
    /// # Safety
    /// The bytes stay mapped until `unregister_host`.
    unsafe fn register_host(&self, base: NonNull<u8>, bytes: usize) -> Result<DeviceAddress, RuntimeError>;
    /// Ends that.
    ///
    /// # Safety
    /// It was registered, and nothing submitted uses it.
    unsafe fn unregister_host(&self, base: NonNull<u8>);

    /// Submits a copy to the device.
    ///
    /// # Safety
    /// Both ranges are valid for `bytes` until the stream is past it; nobody writes `from` meanwhile.
    unsafe fn copy_in(
        &self,
        to: DeviceAddress,
        from: *const u8,
        bytes: usize,
        stream: &Self::Stream,
    ) -> Result<(), RuntimeError>;
    /// Submits a copy to the host.
    ///
    /// # Safety
    /// Both ranges are valid for `bytes` until the stream is past it; nobody else uses `to` meanwhile.
    unsafe fn copy_out(
        &self,
        to: *mut u8,
        from: DeviceAddress,
        bytes: usize,
        stream: &Self::Stream,
    ) -> Result<(), RuntimeError>;
    /// Submits so many bytes of one value.
    ///
    /// # Safety
    /// The range is the device's for `bytes` until the stream is past it.
    unsafe fn fill(
        &self,
        at: DeviceAddress,
        value: u8,
        bytes: usize,
        stream: &Self::Stream,
    ) -> Result<(), RuntimeError>;
    /// Submits a kernel: `blocks` times `threads` threads, one struct of parameters.
    ///
    /// # Safety
    /// The function's module is loaded until the stream is past it. `params` are the bytes of the struct that this
    /// kernel takes; the addresses in it are valid for what the kernel does with them until then.
    unsafe fn launch(
        &self,
        function: Self::Function,
        blocks: u32,
        threads: u32,
        params: &[u8],
        stream: &Self::Stream,
    ) -> Result<(), RuntimeError>;

    /// What is submitted to the stream from here on is recorded and not done. An event that is recorded meanwhile is
    /// of no use until it is recorded again.
    fn begin_capture(&self, stream: &Self::Stream) -> Result<(), RuntimeError>;
    /// What was recorded. Whoever began must end, also when a call between failed.
    fn end_capture(&self, stream: &Self::Stream) -> Result<Self::Graph, RuntimeError>;
    /// Submits what was recorded.
    ///
    /// # Safety
    /// What each recorded call asks for holds again.
    unsafe fn launch_graph(&self, graph: &Self::Graph, stream: &Self::Stream) -> Result<(), RuntimeError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_call_name_number_and_what_a_compiler_said() {
        let codes = [Code { number: 218, name: "CUDA_ERROR_INVALID_PTX", fault: Fault::Image }];
        let mut error = RuntimeError::of("cuModuleLoadDataEx", 218, &codes);
        assert_eq!(error.to_string(), "cuModuleLoadDataEx: CUDA_ERROR_INVALID_PTX (218)");
        error.log = "line 3: syntax error".into();
        assert_eq!(
            error.to_string(),
            "cuModuleLoadDataEx: CUDA_ERROR_INVALID_PTX (218): line 3: syntax error"
        );
        assert_eq!(RuntimeError::of("cuInit", 5, &codes).fault, Fault::Other);
    }

    #[test]
    fn an_error_without_a_number_tells_none() {
        for fault in [Fault::Memory, Fault::Image, Fault::Missing, Fault::Lost, Fault::Other] {
            let (name, log) = ("not found".to_string(), String::new());
            let error = RuntimeError { call: "dlopen", code: 0, name, log, fault };
            assert_eq!(error.to_string(), "dlopen: not found", "and no fix: who asked knows that");
        }
    }

    #[test]
    fn an_address_goes_on_by_bytes() {
        assert_eq!(DeviceAddress(0x1000).add(24), DeviceAddress(0x1018));
    }
}
