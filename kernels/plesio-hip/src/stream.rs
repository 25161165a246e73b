//! Streams, and events in them.
#![expect(unsafe_code, reason = "the runtime's functions are foreign")]

use std::ptr;
use std::sync::Arc;

use plesio_launch::{Current, Owned, RuntimeError};

use crate::context::Context;
use crate::error::{NOT_READY, check};
use crate::sys::{EVENT_DEFAULT, EventObject, STREAM_NON_BLOCKING, StreamObject};

/// Work that the device does in order.
#[derive(Debug)]
pub struct Stream(pub(crate) Owned<Context, StreamObject>);

impl Stream {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, RuntimeError> {
        context.enter()?;
        let (driver, mut stream) = (context.driver, ptr::null_mut());
        let flags = STREAM_NON_BLOCKING;
        // SAFETY: writes one pointer.
        check("hipStreamCreateWithFlags", unsafe { (driver.hipStreamCreateWithFlags)(&mut stream, flags) })?;
        // SAFETY: just made in this context, and this is the function that ends it.
        Ok(Self(unsafe { Owned::new(context, stream, driver.hipStreamDestroy) }))
    }
}

/// A point in a stream, with the time at which the device came to it.
#[derive(Debug)]
pub struct Event(Owned<Context, EventObject>);

impl Event {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, RuntimeError> {
        context.enter()?;
        let (driver, mut event) = (context.driver, ptr::null_mut());
        let flags = EVENT_DEFAULT;
        // SAFETY: writes one pointer.
        check("hipEventCreateWithFlags", unsafe { (driver.hipEventCreateWithFlags)(&mut event, flags) })?;
        // SAFETY: just made in this context, and this is the function that ends it.
        Ok(Self(unsafe { Owned::new(context, event, driver.hipEventDestroy) }))
    }

    pub(crate) fn record(&self, stream: &Stream) -> Result<(), RuntimeError> {
        let context = self.0.device();
        context.enter()?;
        // SAFETY: both live.
        check("hipEventRecord", unsafe { (context.driver.hipEventRecord)(self.0.raw(), stream.0.raw()) })
    }

    pub(crate) fn is_done(&self) -> Result<bool, RuntimeError> {
        let context = self.0.device();
        context.enter()?;
        // SAFETY: it lives.
        match unsafe { (context.driver.hipEventQuery)(self.0.raw()) } {
            NOT_READY => Ok(false),
            status => check("hipEventQuery", status).map(|()| true),
        }
    }

    /// Nanoseconds from this event to a later one.
    pub(crate) fn elapsed_ns(&self, end: &Self) -> Result<u64, RuntimeError> {
        let context = self.0.device();
        context.enter()?;
        let mut milliseconds = 0.0;
        // SAFETY: writes one number; both live.
        check("hipEventElapsedTime", unsafe {
            (context.driver.hipEventElapsedTime)(&mut milliseconds, self.0.raw(), end.0.raw())
        })?;
        Ok((f64::from(milliseconds) * 1e6).round() as u64)
    }
}
