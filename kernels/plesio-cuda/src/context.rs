//! One device, opened: its primary context, held for as long as anything of it lives.
#![expect(unsafe_code, reason = "the driver's functions are foreign")]

use std::ffi::c_int;
use std::ptr;
use std::sync::Arc;

use plesio_launch::{Chip, Current, Handle, RuntimeError};

use crate::discovery;
use crate::error::check;
use crate::library;
use crate::sys::{CUctx_st, CUdevice, Table};

/// A device of NVIDIA's, opened.
#[derive(Debug)]
pub struct Cuda {
    pub(crate) chip: Chip,
    pub(crate) context: Arc<Context>,
}

impl Cuda {
    /// Opens a device by its number among those that the driver shows.
    ///
    /// # Errors
    /// There is no driver (its call is `dlopen`), no such device, or the device refuses.
    pub fn open(ordinal: u32) -> Result<Self, RuntimeError> {
        let driver = library::driver().map_err(RuntimeError::from)?;
        let ordinal = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
        let chip = discovery::chip(driver, ordinal)?;
        let context = Context::retain(&driver.table, discovery::device(driver, ordinal)?)?;
        Ok(Self { chip, context })
    }
}

/// The primary context of a device: the one that all of this process share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) driver: &'static Table,
    device: CUdevice,
    primary: Handle<CUctx_st>,
}

impl Context {
    fn retain(driver: &'static Table, device: CUdevice) -> Result<Arc<Self>, RuntimeError> {
        let mut primary = ptr::null_mut();
        // SAFETY: writes one pointer; `drop` is the counterpart.
        check("cuDevicePrimaryCtxRetain", unsafe {
            (driver.cuDevicePrimaryCtxRetain)(&mut primary, device)
        })?;
        Ok(Arc::new(Self { driver, device, primary: Handle::new(primary) }))
    }
}

impl Current for Context {
    fn enter(&self) -> Result<(), RuntimeError> {
        // SAFETY: the context is retained.
        check("cuCtxSetCurrent", unsafe { (self.driver.cuCtxSetCurrent)(self.primary.raw()) })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once by this value, and nothing of the context is left: all of it holds this value.
        let _status = unsafe { (self.driver.cuDevicePrimaryCtxRelease_v2)(self.device) };
    }
}
