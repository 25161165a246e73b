//! The device as a [`Runtime`]: each call goes on to the file that it is about.
#![expect(unsafe_code, reason = "the seam's contracts are handed on")]

use std::ffi::CStr;
use std::ptr::NonNull;

use plesio_launch::{Chip, DeviceAddress, Runtime, RuntimeError};

use crate::context::Hip;
use crate::graph::{self, Graph};
use crate::module::{Function, Module};
use crate::stream::{Event, Stream};

// SAFETY: the runtime keeps memory where it gave it, copies parameters at the launch, runs a stream in order, and has
// an event done after what was submitted to its stream before.
unsafe impl Runtime for Hip {
    const NAME: &'static str = "hip";
    type Module = Module;
    type Function = Function;
    type Stream = Stream;
    type Event = Event;
    type Graph = Graph;

    fn chip(&self) -> &Chip {
        &self.chip
    }

    fn load(&self, image: &[u8]) -> Result<Module, RuntimeError> {
        Module::load(&self.context, image)
    }

    fn function(&self, module: &Module, name: &CStr) -> Result<Function, RuntimeError> {
        module.function(name)
    }

    fn stream(&self) -> Result<Stream, RuntimeError> {
        Stream::new(&self.context)
    }

    fn event(&self) -> Result<Event, RuntimeError> {
        Event::new(&self.context)
    }

    fn record(&self, event: &Event, stream: &Stream) -> Result<(), RuntimeError> {
        event.record(stream)
    }

    fn is_done(&self, event: &Event) -> Result<bool, RuntimeError> {
        event.is_done()
    }

    fn elapsed_ns(&self, begin: &Event, end: &Event) -> Result<u64, RuntimeError> {
        begin.elapsed_ns(end)
    }

    fn allocate(&self, bytes: usize) -> Result<DeviceAddress, RuntimeError> {
        self.context.allocate(bytes)
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn free(&self, address: DeviceAddress) {
        // SAFETY: the same contract.
        unsafe { self.context.free(address) }
    }

    fn allocate_host(&self, bytes: usize) -> Result<(NonNull<u8>, DeviceAddress), RuntimeError> {
        self.context.allocate_host(bytes)
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn free_host(&self, base: NonNull<u8>) {
        // SAFETY: the same contract.
        unsafe { self.context.free_host(base) }
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn register_host(&self, base: NonNull<u8>, bytes: usize) -> Result<DeviceAddress, RuntimeError> {
        // SAFETY: the same contract.
        unsafe { self.context.register_host(base, bytes) }
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn unregister_host(&self, base: NonNull<u8>) {
        // SAFETY: the same contract.
        unsafe { self.context.unregister_host(base) }
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn copy_in(
        &self,
        to: DeviceAddress,
        from: *const u8,
        bytes: usize,
        stream: &Stream,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { self.context.copy_in(to, from, bytes, stream) }
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn copy_out(
        &self,
        to: *mut u8,
        from: DeviceAddress,
        bytes: usize,
        stream: &Stream,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { self.context.copy_out(to, from, bytes, stream) }
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn fill(
        &self,
        at: DeviceAddress,
        value: u8,
        bytes: usize,
        stream: &Stream,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { self.context.fill(at, value, bytes, stream) }
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn launch(
        &self,
        function: Function,
        blocks: u32,
        threads: u32,
        params: &[u8],
        stream: &Stream,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { function.launch(blocks, threads, params, stream) }
    }

    fn begin_capture(&self, stream: &Stream) -> Result<(), RuntimeError> {
        graph::begin_capture(stream)
    }

    fn end_capture(&self, stream: &Stream) -> Result<Graph, RuntimeError> {
        graph::end_capture(stream)
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn launch_graph(&self, graph: &Graph, stream: &Stream) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { graph.launch(stream) }
    }
}
