//! Work that is recorded from a stream once and submitted as a whole, again and again.
#![expect(unsafe_code, reason = "the driver's functions are foreign")]

use std::ptr;

use plesio_launch::{Current, Owned, RuntimeError};

use crate::context::Context;
use crate::error::check;
use crate::stream::Stream;
use crate::sys::{CUgraphExec_st, CUstreamCaptureMode};

/// What was recorded, made ready to run.
#[derive(Debug)]
pub struct Graph(Owned<Context, CUgraphExec_st>);

/// Records from here on what any thread submits to the stream, and lets all threads go on with everything else.
pub(crate) fn begin_capture(stream: &Stream) -> Result<(), RuntimeError> {
    let context = stream.0.device();
    context.enter()?;
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
    // SAFETY: the stream lives.
    check("cuStreamBeginCapture", unsafe { (context.driver.cuStreamBeginCapture_v2)(stream.0.raw(), mode) })
}

pub(crate) fn end_capture(stream: &Stream) -> Result<Graph, RuntimeError> {
    let context = stream.0.device();
    context.enter()?;
    let (driver, mut recorded) = (context.driver, ptr::null_mut());
    // SAFETY: writes one pointer; the stream lives.
    check("cuStreamEndCapture", unsafe { (driver.cuStreamEndCapture)(stream.0.raw(), &mut recorded) })?;
    // SAFETY: just made in this context, and this is the function that ends it.
    let recorded = unsafe { Owned::new(context, recorded, driver.cuGraphDestroy) };
    let mut executable = ptr::null_mut();
    // SAFETY: writes one pointer; what was recorded lives, and is copied.
    check("cuGraphInstantiateWithFlags", unsafe {
        (driver.cuGraphInstantiateWithFlags)(&mut executable, recorded.raw(), 0)
    })?;
    // SAFETY: as for what was recorded.
    Ok(Graph(unsafe { Owned::new(context, executable, driver.cuGraphExecDestroy) }))
}

impl Graph {
    /// # Safety
    /// What each recorded call asks for holds again until the stream is past it.
    pub(crate) unsafe fn launch(&self, stream: &Stream) -> Result<(), RuntimeError> {
        let context = self.0.device();
        context.enter()?;
        // SAFETY: both live, and the caller vouches for what was recorded.
        check("cuGraphLaunch", unsafe { (context.driver.cuGraphLaunch)(self.0.raw(), stream.0.raw()) })
    }
}
