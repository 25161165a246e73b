//! Work that is recorded from a stream once and submitted as a whole, again and again.
#![expect(unsafe_code, reason = "the runtime's functions are foreign")]

use std::ptr;

use plesio_launch::{Current, Owned, RuntimeError};

use crate::context::Context;
use crate::error::check;
use crate::stream::Stream;
use crate::sys::{CAPTURE_RELAXED, ExecutableObject};

/// What was recorded, made ready to run.
#[derive(Debug)]
pub struct Graph(Owned<Context, ExecutableObject>);

/// Records from here on what any thread submits to the stream, and lets all threads go on with everything else.
pub(crate) fn begin_capture(stream: &Stream) -> Result<(), RuntimeError> {
    let context = stream.0.device();
    context.enter()?;
    // SAFETY: the stream lives.
    check("hipStreamBeginCapture", unsafe {
        (context.driver.hipStreamBeginCapture)(stream.0.raw(), CAPTURE_RELAXED)
    })
}

pub(crate) fn end_capture(stream: &Stream) -> Result<Graph, RuntimeError> {
    let context = stream.0.device();
    context.enter()?;
    let (driver, mut recorded) = (context.driver, ptr::null_mut());
    // SAFETY: writes one pointer; the stream lives.
    check("hipStreamEndCapture", unsafe { (driver.hipStreamEndCapture)(stream.0.raw(), &mut recorded) })?;
    // SAFETY: just made in this context, and this is the function that ends it.
    let recorded = unsafe { Owned::new(context, recorded, driver.hipGraphDestroy) };
    let mut executable = ptr::null_mut();
    // SAFETY: writes one pointer; what was recorded lives, and is copied.
    check("hipGraphInstantiate", unsafe {
        (driver.hipGraphInstantiate)(&mut executable, recorded.raw(), ptr::null_mut(), ptr::null_mut(), 0)
    })?;
    // SAFETY: as for what was recorded.
    Ok(Graph(unsafe { Owned::new(context, executable, driver.hipGraphExecDestroy) }))
}

impl Graph {
    /// # Safety
    /// What each recorded call asks for holds again until the stream is past it.
    pub(crate) unsafe fn launch(&self, stream: &Stream) -> Result<(), RuntimeError> {
        let context = self.0.device();
        context.enter()?;
        // SAFETY: both live, and the caller vouches for what was recorded.
        check("hipGraphLaunch", unsafe { (context.driver.hipGraphLaunch)(self.0.raw(), stream.0.raw()) })
    }
}
