//! Code: loading it, finding its kernels, submitting them.
#![expect(unsafe_code, reason = "the runtime's functions are foreign")]

use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::Arc;

use plesio_launch::image::{Image, MACHINE_AMDGPU};
use plesio_launch::{Current, Handle, Owned, RuntimeError};

use crate::context::Context;
use crate::error::{INVALID_IMAGE, check, error};
use crate::stream::Stream;
use crate::sys::{
    FunctionObject, LAUNCH_PARAM_BUFFER_POINTER, LAUNCH_PARAM_BUFFER_SIZE, LAUNCH_PARAM_END, ModuleObject,
};

/// The runtime looks for a bundle's headers in so many bytes of any image, whatever its length, bytes.
const LOOK_BYTES: usize = 4096;

/// Code on the device.
#[derive(Debug)]
pub struct Module {
    loaded: Owned<Context, ModuleObject>,
    /// The runtime goes on reading here for as long as the module is loaded; so it is dropped after that.
    _image: Box<[u8]>,
}

/// A kernel of a module.
#[derive(Clone, Copy, Debug)]
pub struct Function(Handle<FunctionObject>);

impl Module {
    pub(crate) fn load(context: &Arc<Context>, image: &[u8]) -> Result<Self, RuntimeError> {
        match Image::of(image) {
            Ok(Image::Elf { machine: MACHINE_AMDGPU, bytes }) => Self::from_bytes(context, bytes),
            Ok(Image::Elf { .. }) => Err(refused("the image is for another machine")),
            Ok(Image::Ptx(_)) => Err(refused("the image is no code object")),
            Err(why) => Err(refused(why)),
        }
    }

    /// `image` is whole: as long as its headers say.
    fn from_bytes(context: &Arc<Context>, image: &[u8]) -> Result<Self, RuntimeError> {
        context.enter()?;
        let mut image = image.to_vec();
        image.resize(image.len().max(LOOK_BYTES), 0);
        let image = image.into_boxed_slice();
        let (driver, mut module) = (context.driver, ptr::null_mut());
        // SAFETY: the image is whole, and stays where it is as long as the module.
        let status = unsafe { (driver.hipModuleLoadData)(&mut module, image.as_ptr().cast()) };
        check("hipModuleLoadData", status)?;
        // SAFETY: just made on this device, and this is the function that ends it.
        let loaded = unsafe { Owned::new(context, module, driver.hipModuleUnload) };
        Ok(Self { loaded, _image: image })
    }

    pub(crate) fn function(&self, name: &CStr) -> Result<Function, RuntimeError> {
        let context = self.loaded.device();
        context.enter()?;
        let mut function = ptr::null_mut();
        // SAFETY: writes one pointer; the module lives, and the name ends with a zero.
        check("hipModuleGetFunction", unsafe {
            (context.driver.hipModuleGetFunction)(&mut function, self.loaded.raw(), name.as_ptr())
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
            (context.driver.hipModuleLaunchKernel)(
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
        check("hipModuleLaunchKernel", status)
    }
}

/// An image that is not shown to the runtime.
fn refused(why: &str) -> RuntimeError {
    RuntimeError { log: why.into(), ..error("hipModuleLoadData", INVALID_IMAGE) }
}
