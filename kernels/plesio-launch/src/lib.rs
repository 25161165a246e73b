//! Unsafe core. What both accelerators share: the seam to a vendor's runtime, and `Device` over it.
//!
//! Knows: how a call of [`plesio_kernels::Device`] becomes launches of the kernels in `kernels/source`, where their buffers
//! lie, and that the CPU does what a device cannot. Does not know: CUDA or HIP, the model, the node. Invariant: every result has the bits
//! of the scalar reference, whoever computed it (base products excepted).
//!
//! Unsafe lives in `runtime.rs` (the seam's contracts), `handle.rs` (objects of a runtime go between threads and are given
//! back), `library.rs` (the table of a library's functions), `memory.rs` (buffers are addresses to a runtime), `call.rs` (the
//! launch), `accelerator.rs` (pinning), `recorder.rs` (the seam without a device) and `nvrtc.rs` (opening a library).

pub mod accelerator;
pub mod artefact;
mod call;
pub mod chip;
mod engine;
pub mod handle;
pub mod image;
pub mod kernel;
pub mod library;
mod memory;
#[cfg(feature = "nvrtc")]
pub mod nvrtc;
pub mod params;
pub mod recorder;
pub mod runtime;
pub mod system;

pub use accelerator::Accelerator;
pub use artefact::{Artefact, ArtefactError, Artefacts};
pub use chip::{Chip, Discovery, Vendor};
pub use engine::{EngineSettings, Trouble};
pub use handle::{Current, Handle, Owned};
pub use image::Image;
pub use kernel::Kernel;
pub use library::Absence;
pub use runtime::{Code, DeviceAddress, Fault, Runtime, RuntimeError};
