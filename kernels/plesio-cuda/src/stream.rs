//! Streams, and events in them.
#![expect(unsafe_code, reason = "the driver's functions are foreign")]

use std::ptr;
use std::sync::Arc;

use plesio_launch::{Current, Owned, RuntimeError};

use crate::context::Context;
use crate::error::{NOT_READY, check};
use crate::sys::{CUevent_flags, CUevent_st, CUstream_flags, CUstream_st};

/// Work that the device does in order.
#[derive(Debug)]
pub struct Stream(pub(crate) Owned<Context, CUstream_st>);

impl Stream {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, RuntimeError> {
        context.enter()?;
        let (driver, mut stream) = (context.driver, ptr::null_mut());
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: writes one pointer.
        check("cuStreamCreate", unsafe { (driver.cuStreamCreate)(&mut stream, flags) })?;
        // SAFETY: just made in this context, and this is the function that ends it.
        Ok(Self(unsafe { Owned::new(context, stream, driver.cuStreamDestroy_v2) }))
    }
}

/// A point in a stream, with the time at which the device came to it.
#[derive(Debug)]
pub struct Event(Owned<Context, CUevent_st>);

impl Event {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, RuntimeError> {
        context.enter()?;
        let (driver, mut event) = (context.driver, ptr::null_mut());
        let flags = CUevent_flags::CU_EVENT_DEFAULT as u32;
        // SAFETY: writes one pointer.
        check("cuEventCreate", unsafe { (driver.cuEventCreate)(&mut event, flags) })?;
        // SAFETY: just made in this context, and this is the function that ends it.
        Ok(Self(unsafe { Owned::new(context, event, driver.cuEventDestroy_v2) }))
    }

    pub(crate) fn record(&self, stream: &Stream) -> Result<(), RuntimeError> {
        let context = self.0.device();
        context.enter()?;
        // SAFETY: both live.
        check("cuEventRecord", unsafe { (context.driver.cuEventRecord)(self.0.raw(), stream.0.raw()) })
    }

    pub(crate) fn is_done(&self) -> Result<bool, RuntimeError> {
        let context = self.0.device();
        context.enter()?;
        // SAFETY: it lives.
        match unsafe { (context.driver.cuEventQuery)(self.0.raw()) } {
            NOT_READY => Ok(false),
            status => check("cuEventQuery", status).map(|()| true),
        }
    }

    /// Nanoseconds from this event to a later one.
    pub(crate) fn elapsed_ns(&self, end: &Self) -> Result<u64, RuntimeError> {
        let context = self.0.device();
        context.enter()?;
        let mut milliseconds = 0.0;
        // SAFETY: writes one number; both live.
        check("cuEventElapsedTime", unsafe {
            (context.driver.cuEventElapsedTime)(&mut milliseconds, self.0.raw(), end.0.raw())
        })?;
        Ok((f64::from(milliseconds) * 1e6).round() as u64)
    }
}
