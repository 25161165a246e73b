//! Code: loading it, finding its kernels, submitting them.
#![expect(unsafe_code, reason = "the driver's functions are foreign")]

use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::sync::Arc;

use plesio_launch::image::{Image, MACHINE_CUDA};
use plesio_launch::{Current, Handle, Owned, RuntimeError};

use crate::context::Context;
use crate::error::{INVALID_IMAGE, check, error};
use crate::stream::Stream;
use crate::sys::{
    CUfunc_st, CUjit_option, CUmod_st, LAUNCH_PARAM_BUFFER_POINTER, LAUNCH_PARAM_BUFFER_SIZE,
    LAUNCH_PARAM_END,
};

/// What is kept of the words of the driver's compiler, bytes.
const LOG_BYTES: usize = 8192;

/// Code on the device.
#[derive(Debug)]
pub struct Module(Owned<Context, CUmod_st>);

/// A kernel of a module.
#[derive(Clone, Copy, Debug)]
pub struct Function(Handle<CUfunc_st>);

impl Module {
    pub(crate) fn load(context: &Arc<Context>, image: &[u8]) -> Result<Self, RuntimeError> {
        match Image::of(image) {
            Ok(Image::Elf { machine: MACHINE_CUDA, bytes }) => Self::from_bytes(context, bytes),
            Ok(Image::Ptx(text)) => {
                let text = CString::new(text).expect("an image that is text has no zero in it");
                Self::from_bytes(context, text.to_bytes_with_nul())
            }
            Ok(Image::Elf { .. }) => Err(refused("the image is for another machine")),
            Err(why) => Err(refused(why)),
        }
    }

    /// `image` is whole: as long as its headers say, or text that ends with a zero.
    fn from_bytes(context: &Arc<Context>, image: &[u8]) -> Result<Self, RuntimeError> {
        context.enter()?;
        let (driver, mut module, mut log) = (context.driver, ptr::null_mut(), [0u8; LOG_BYTES]);
        let mut options =
            [CUjit_option::CU_JIT_ERROR_LOG_BUFFER, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        // Sizes are given where pointers stand.
        let mut values = [log.as_mut_ptr().cast::<c_void>(), ptr::without_provenance_mut(LOG_BYTES)];
        // SAFETY: the image is whole, and the driver copies what it keeps; two options with two values, of which the
        // first is room for as many bytes as the second says.
        let status = unsafe {
            (driver.cuModuleLoadDataEx)(
                &mut module,
                image.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        check("cuModuleLoadDataEx", status).map_err(|error| RuntimeError { log: told(&log), ..error })?;
        // SAFETY: just made in this context, and this is the function that ends it.
        Ok(Self(unsafe { Owned::new(context, module, driver.cuModuleUnload) }))
    }

    pub(crate) fn function(&self, name: &CStr) -> Result<Function, RuntimeError> {
        let context = self.0.device();
        context.enter()?;
        let mut function = ptr::null_mut();
        // SAFETY: writes one pointer; the module lives, and the name ends with a zero.
        check("cuModuleGetFunction", unsafe {
            (context.driver.cuModuleGetFunction)(&mut function, self.0.raw(), name.as_ptr())
        })?;
        Ok(Function(Handle::new(function)))
    }
}

impl Function {
    /// # Safety
    /// As for [`plesio_launch::Runtime::launch`].
    pub(crate) unsafe fn launch(
        self,
        blocks: u32,
        threads: u32,
        params: &[u8],
        stream: &Stream,
    ) -> Result<(), RuntimeError> {
        let context = stream.0.device();
        context.enter()?;
        // With its length beside it, the driver never reads beyond the struct.
        let mut bytes = params.len();
        let mut extra = [
            LAUNCH_PARAM_BUFFER_POINTER,
            params.as_ptr().cast_mut().cast::<c_void>(),
            LAUNCH_PARAM_BUFFER_SIZE,
            ptr::from_mut(&mut bytes).cast(),
            LAUNCH_PARAM_END,
        ];
        // SAFETY: the stream lives, the caller vouches for the kernel's module and for what the parameters name; they
        // are copied before this returns.
        let status = unsafe {
            (context.driver.cuLaunchKernel)(
                self.0.raw(),
                blocks,
                1,
                1,
                threads,
                1,
                1,
                0,
                stream.0.raw(),
                ptr::null_mut(),
                extra.as_mut_ptr(),
            )
        };
        check("cuLaunchKernel", status)
    }
}

/// An image that is not shown to the driver.
fn refused(why: &str) -> RuntimeError {
    RuntimeError { log: why.into(), ..error("cuModuleLoadDataEx", INVALID_IMAGE) }
}

fn told(log: &[u8]) -> String {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end]).trim().to_string()
}
