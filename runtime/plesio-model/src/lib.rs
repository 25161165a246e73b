//! Pure. A byte-level llama-shaped transformer: forward, exact backward, low-rank adapters, AdamW.
//!
//! Knows: the model's mathematics and the layouts of its files. Does not know: files, threads, clocks, the
//! mesh; bytes come in and go out, and all arithmetic runs through a `Device`. Invariant: the same seed, the
//! same bytes and the same device give the same bits, and a refused call changes nothing.
//!
//! ```text
//!  tokens -> embedding -> [ norm -> q k v -> rope -> attention -> o -> + ] x layers -> norm -> head -> loss
//!                         [ norm -> gate up -> swiglu -> down        -> + ]
//! ```
//!
//! The adapter is one flat vector (see [`AdapterLayout`]), so that gradients, slots and shards are plain
//! element ranges of it.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod adapter;
mod attention;
mod backward;
mod base;
mod config;
mod error;
mod forward;
mod layout;
mod peft;
mod pretrain;
mod random;
mod sampler;
mod trainer;
mod workspace;

pub use adapter::{AdapterLayout, TensorSpan};
pub use base::Base;
pub use config::Config;
pub use error::ModelError;
pub use peft::PeftFiles;
pub use plesio_kernels::AdamW;
pub use pretrain::{BaseTrainer, GradientWorker};
pub use sampler::{Sampler, split_held_out};
pub use trainer::{StepReport, TrainConfig, Trainer};

#[cfg(test)]
mod tests;
