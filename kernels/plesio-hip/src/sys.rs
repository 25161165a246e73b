//! The HIP runtime's functions that are used here, with their types and numbers: the same in versions 5, 6 and 7.
//!
//! Written by hand from AMD's headers. With the feature `hip-sys-link` a test compares each signature and number with
//! those of `hip-sys` and fails to compile where they differ.

use std::ffi::{c_char, c_int, c_uint, c_void};

/// What every function answers; zero is success.
pub(crate) type Status = c_uint;

/// The oldest runtime that has every function below, as it tells its version: HIP 5.0.
pub(crate) const VERSION_MIN: c_int = 50_000_000;

/// Objects of the runtime, known by address alone.
macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $($(#[$doc])* #[derive(Debug)] #[repr(C)] pub(crate) struct $name { inside: [u8; 0] })*
    };
}

objects! {
    /// Code on a device.
    ModuleObject;
    /// A kernel of it.
    FunctionObject;
    /// A stream.
    StreamObject;
    /// An event.
    EventObject;
    /// What a stream recorded.
    GraphObject;
    /// The same, ready to run.
    ExecutableObject;
}

/// What a device is asked; the numbers stayed when names fell out of use between versions 5 and 7.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Attribute {
    Integrated = 16,
    MultiprocessorCount = 63,
    WarpSize = 87,
}

/// Which way a copy goes.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Direction {
    HostToDevice = 1,
    DeviceToHost = 2,
}

pub(crate) const STREAM_NON_BLOCKING: c_uint = 1;
pub(crate) const EVENT_DEFAULT: c_uint = 0;
pub(crate) const CAPTURE_RELAXED: c_uint = 2;
pub(crate) const HOST_MALLOC_PORTABLE: c_uint = 1;
pub(crate) const HOST_MALLOC_MAPPED: c_uint = 2;
pub(crate) const HOST_REGISTER_PORTABLE: c_uint = 1;
pub(crate) const HOST_REGISTER_MAPPED: c_uint = 2;

/// What the parameters of a launch are given as: a list of keys and values.
pub(crate) const LAUNCH_PARAM_BUFFER_POINTER: *mut c_void = std::ptr::without_provenance_mut(1);
pub(crate) const LAUNCH_PARAM_BUFFER_SIZE: *mut c_void = std::ptr::without_provenance_mut(2);
pub(crate) const LAUNCH_PARAM_END: *mut c_void = std::ptr::without_provenance_mut(3);

/// Hands the declarations to a macro.
macro_rules! functions {
    ($($use:tt)*) => {
        $($use)*! {
            fn hipInit(flags: c_uint);
            fn hipRuntimeGetVersion(version: *mut c_int);
            fn hipGetDeviceCount(count: *mut c_int);
            fn hipDeviceGetName(name: *mut c_char, bytes: c_int, device: c_int);
            fn hipDeviceTotalMem(bytes: *mut usize, device: c_int);
            fn hipDeviceGetAttribute(value: *mut c_int, attribute: Attribute, device: c_int);
            fn hipDeviceGetPCIBusId(location: *mut c_char, bytes: c_int, device: c_int);
            fn hipSetDevice(device: c_int);
            fn hipModuleLoadData(module: *mut *mut ModuleObject, image: *const c_void);
            fn hipModuleUnload(module: *mut ModuleObject);
            fn hipModuleGetFunction(
                function: *mut *mut FunctionObject,
                module: *mut ModuleObject,
                name: *const c_char,
            );
            fn hipModuleLaunchKernel(
                function: *mut FunctionObject,
                blocks_x: c_uint,
                blocks_y: c_uint,
                blocks_z: c_uint,
                threads_x: c_uint,
                threads_y: c_uint,
                threads_z: c_uint,
                shared_bytes: c_uint,
                stream: *mut StreamObject,
                params: *mut *mut c_void,
                extra: *mut *mut c_void,
            );
            fn hipStreamCreateWithFlags(stream: *mut *mut StreamObject, flags: c_uint);
            fn hipStreamDestroy(stream: *mut StreamObject);
            fn hipStreamBeginCapture(stream: *mut StreamObject, mode: c_uint);
            fn hipStreamEndCapture(stream: *mut StreamObject, graph: *mut *mut GraphObject);
            fn hipGraphInstantiate(
                executable: *mut *mut ExecutableObject,
                graph: *mut GraphObject,
                wrong: *mut *mut c_void,
                log: *mut c_char,
                log_bytes: usize,
            );
            fn hipGraphDestroy(graph: *mut GraphObject);
            fn hipGraphExecDestroy(executable: *mut ExecutableObject);
            fn hipGraphLaunch(executable: *mut ExecutableObject, stream: *mut StreamObject);
            fn hipEventCreateWithFlags(event: *mut *mut EventObject, flags: c_uint);
            fn hipEventDestroy(event: *mut EventObject);
            fn hipEventRecord(event: *mut EventObject, stream: *mut StreamObject);
            fn hipEventQuery(event: *mut EventObject);
            fn hipEventElapsedTime(milliseconds: *mut f32, begin: *mut EventObject, end: *mut EventObject);
            fn hipMalloc(address: *mut *mut c_void, bytes: usize);
            fn hipFree(address: *mut c_void);
            fn hipHostMalloc(base: *mut *mut c_void, bytes: usize, flags: c_uint);
            fn hipHostFree(base: *mut c_void);
            fn hipHostRegister(base: *mut c_void, bytes: usize, flags: c_uint);
            fn hipHostUnregister(base: *mut c_void);
            fn hipHostGetDevicePointer(address: *mut *mut c_void, base: *mut c_void, flags: c_uint);
            fn hipMemcpyAsync(
                to: *mut c_void,
                from: *const c_void,
                bytes: usize,
                direction: Direction,
                stream: *mut StreamObject,
            );
            fn hipMemsetAsync(at: *mut c_void, value: c_int, bytes: usize, stream: *mut StreamObject);
        }
    };
}

functions!(plesio_launch::table);

#[cfg(all(test, feature = "hip-sys-link"))]
mod tests;
