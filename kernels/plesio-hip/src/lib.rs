//! Unsafe core. AMD's devices: the HIP runtime, opened at run time, as a [`plesio_launch::Runtime`].
//!
//! Knows: the runtime's functions, its error codes, what the kernel tells of AMD's chips. Does not know: which
//! kernels there are, what they compute. The list of files is that of `plesio-cuda`: know one, know both.
//!
//! ```text
//!   library    opens the runtime once, or says why not         board      what the kernel tells without the runtime
//!   sys        the table of its functions, types and numbers   discovery  which devices there are
//!   error      its codes, and what they mean here              context    one device, opened: `Hip`
//!   module, memory, stream, graph                              runtime    these as `Runtime`
//! ```
//!
//! Invariant: without the runtime nothing is called and nothing fails but [`Hip::open`]; no call panics. What is
//! asked of a device is asked by attributes: the struct of properties changed between versions 5 and 6 of the
//! runtime.
//!
//! A kernel that reaches beyond its memory may end the whole process: up to ROCm 6 the runtime answers the fault by
//! aborting.
//!
//! Unsafe lives in `library.rs` (opening a library), `discovery.rs`, `context.rs`, `module.rs`, `memory.rs`,
//! `stream.rs`, `graph.rs` (calls of foreign functions) and `runtime.rs` (the seam's contracts handed on).
#![deny(unsafe_code)]

mod board;
mod context;
mod discovery;
mod error;
mod graph;
mod library;
mod memory;
mod module;
mod runtime;
mod stream;
mod sys;

pub use context::Hip;
pub use discovery::discover;
pub use graph::Graph;
pub use module::{Function, Module};
pub use stream::{Event, Stream};
