//! Unsafe core. NVIDIA's devices: the driver, opened at run time, as a [`plesio_launch::Runtime`].
//!
//! Knows: the driver's functions, its error codes, what a Tegra board tells of itself. Does not know: which kernels
//! there are, what they compute. The list of files is that of `plesio-hip`: know one, know both.
//!
//! ```text
//!   library    opens the driver once, or says why not          board      what the kernel tells without the driver
//!   sys        the table of its functions, types and numbers   discovery  which devices there are
//!   error      its codes, and what they mean here              context    one device, opened: `Cuda`
//!   module, memory, stream, graph                              runtime    these as `Runtime`
//! ```
//!
//! Invariant: without the driver nothing is called and nothing fails but [`Cuda::open`]; no call panics.
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

pub use context::Cuda;
pub use discovery::discover;
pub use graph::Graph;
pub use module::{Function, Module};
pub use stream::{Event, Stream};
