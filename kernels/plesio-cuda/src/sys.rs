//! The driver's functions that are used here, with the types and numbers that `cudarc` has for CUDA 11.4.
//!
//! They are called through a table of our own: a status is a number here, because `cudarc` takes it for one of an
//! enum's values, which a newer driver's need not be; and what a driver lacks is found when the table is made, where
//! `cudarc` panics at the call. A constant below proves at compile time that each signature is `cudarc`'s.

pub(crate) use cudarc::driver::sys::{
    CU_MEMHOSTALLOC_DEVICEMAP, CU_MEMHOSTALLOC_PORTABLE, CU_MEMHOSTREGISTER_DEVICEMAP,
    CU_MEMHOSTREGISTER_PORTABLE, CUcontext, CUctx_st, CUdevice, CUdevice_attribute, CUdeviceptr, CUevent,
    CUevent_flags, CUevent_st, CUfunc_st, CUfunction, CUgraph, CUgraphExec, CUgraphExec_st, CUjit_option,
    CUmod_st, CUmodule, CUresult, CUstream, CUstream_flags, CUstream_st, CUstreamCaptureMode,
};
use std::ffi::{c_char, c_int, c_uchar, c_uint, c_ulonglong, c_void};

/// What every function answers; zero is success.
pub(crate) type Status = c_uint;

/// The oldest driver that has every function below, as a version of CUDA: that of JetPack 5.
pub(crate) const VERSION_MIN: c_int = 11_040;

/// What the parameters of a launch are given as: a list of keys and values.
pub(crate) const LAUNCH_PARAM_END: *mut c_void = std::ptr::null_mut();
pub(crate) const LAUNCH_PARAM_BUFFER_POINTER: *mut c_void = std::ptr::without_provenance_mut(1);
pub(crate) const LAUNCH_PARAM_BUFFER_SIZE: *mut c_void = std::ptr::without_provenance_mut(2);

/// Hands the declarations to a macro.
macro_rules! functions {
    ($($use:tt)*) => {
        $($use)*! {
            fn cuInit(flags: c_uint);
            fn cuDriverGetVersion(version: *mut c_int);
            fn cuDeviceGetCount(count: *mut c_int);
            fn cuDeviceGet(device: *mut CUdevice, ordinal: c_int);
            fn cuDeviceGetName(name: *mut c_char, bytes: c_int, device: CUdevice);
            fn cuDeviceTotalMem_v2(bytes: *mut usize, device: CUdevice);
            fn cuDeviceGetAttribute(value: *mut c_int, attribute: CUdevice_attribute, device: CUdevice);
            fn cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice);
            fn cuDevicePrimaryCtxRelease_v2(device: CUdevice);
            fn cuCtxSetCurrent(context: CUcontext);
            fn cuModuleLoadDataEx(
                module: *mut CUmodule,
                image: *const c_void,
                options: c_uint,
                option: *mut CUjit_option,
                value: *mut *mut c_void,
            );
            fn cuModuleUnload(module: CUmodule);
            fn cuModuleGetFunction(function: *mut CUfunction, module: CUmodule, name: *const c_char);
            fn cuLaunchKernel(
                function: CUfunction,
                blocks_x: c_uint,
                blocks_y: c_uint,
                blocks_z: c_uint,
                threads_x: c_uint,
                threads_y: c_uint,
                threads_z: c_uint,
                shared_bytes: c_uint,
                stream: CUstream,
                params: *mut *mut c_void,
                extra: *mut *mut c_void,
            );
            fn cuStreamCreate(stream: *mut CUstream, flags: c_uint);
            fn cuStreamDestroy_v2(stream: CUstream);
            fn cuStreamBeginCapture_v2(stream: CUstream, mode: CUstreamCaptureMode);
            fn cuStreamEndCapture(stream: CUstream, graph: *mut CUgraph);
            fn cuGraphInstantiateWithFlags(executable: *mut CUgraphExec, graph: CUgraph, flags: c_ulonglong);
            fn cuGraphDestroy(graph: CUgraph);
            fn cuGraphExecDestroy(executable: CUgraphExec);
            fn cuGraphLaunch(executable: CUgraphExec, stream: CUstream);
            fn cuEventCreate(event: *mut CUevent, flags: c_uint);
            fn cuEventDestroy_v2(event: CUevent);
            fn cuEventRecord(event: CUevent, stream: CUstream);
            fn cuEventQuery(event: CUevent);
            fn cuEventElapsedTime(milliseconds: *mut f32, begin: CUevent, end: CUevent);
            fn cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize);
            fn cuMemFree_v2(address: CUdeviceptr);
            fn cuMemHostAlloc(base: *mut *mut c_void, bytes: usize, flags: c_uint);
            fn cuMemFreeHost(base: *mut c_void);
            fn cuMemHostRegister_v2(base: *mut c_void, bytes: usize, flags: c_uint);
            fn cuMemHostUnregister(base: *mut c_void);
            fn cuMemHostGetDevicePointer_v2(address: *mut CUdeviceptr, base: *mut c_void, flags: c_uint);
            fn cuMemcpyHtoDAsync_v2(to: CUdeviceptr, from: *const c_void, bytes: usize, stream: CUstream);
            fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: CUdeviceptr, bytes: usize, stream: CUstream);
            fn cuMemsetD8Async(at: CUdeviceptr, value: c_uchar, bytes: usize, stream: CUstream);
        }
    };
}

/// Compiles only if `cudarc` has each function with the same arguments.
macro_rules! as_in_cudarc {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?);)*) => {
        const _: () = {
            $(let _: unsafe fn($($type),*) -> CUresult = cudarc::driver::sys::$name;)*
        };
    };
}

functions!(plesio_launch::table);
functions!(as_in_cudarc);
