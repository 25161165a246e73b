//! One device, opened: its number, which each call makes the thread's.
//!
//! The runtime keeps a device's state for as long as the process lives, so there is nothing to release.
#![expect(unsafe_code, reason = "the runtime's functions are foreign")]

use std::ffi::c_int;
use std::sync::Arc;

use plesio_launch::{Chip, Current, RuntimeError};

use crate::discovery;
use crate::error::check;
use crate::library;
use crate::sys::Table;

/// A device of AMD's, opened.
#[derive(Debug)]
pub struct Hip {
    pub(crate) chip: Chip,
    pub(crate) context: Arc<Context>,
}

impl Hip {
    /// Opens a device by its number among those that the runtime shows.
    ///
    /// # Errors
    /// There is no runtime (its call is `dlopen`), no such device, or the device refuses.
    pub fn open(ordinal: u32) -> Result<Self, RuntimeError> {
        let driver = library::driver().map_err(RuntimeError::from)?;
        let ordinal = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
        let chip = discovery::chip(driver, ordinal)?;
        let context = Context { driver: &driver.table, device: ordinal };
        context.enter()?;
        Ok(Self { chip, context: Arc::new(context) })
    }
}

/// A device that was opened once.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) driver: &'static Table,
    device: c_int,
}

impl Current for Context {
    fn enter(&self) -> Result<(), RuntimeError> {
        // SAFETY: takes a number.
        check("hipSetDevice", unsafe { (self.driver.hipSetDevice)(self.device) })
    }
}
