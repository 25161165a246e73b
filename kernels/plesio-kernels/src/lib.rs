//! Pure. The `Device` trait, the fixed-point slot arithmetic and the scalar reference of every kernel.
//!
//! Knows: what each kernel computes, bit for bit. Does not know: threads, files, the model, or which machine
//! it runs on. Invariant: every float reduction runs in the fixed 64-lane order of [`vector`] and every
//! multiply-add is fused, so each instruction set that follows the same text gives the same bits.
//!
//! Kernel bodies are generic over [`Arithmetic`]: [`Soft`] fuses by `libm` and is the definition; an unsafe
//! core compiles the same bodies again with the machine's own fused multiply-add and wider vectors.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod arithmetic;
pub mod bf16;
pub mod codec;
pub mod device;
pub mod error;
pub mod lora;
pub mod matrix;
pub mod network;
pub mod optimiser;
pub mod outer;
pub mod reference;
pub mod slot;
pub mod vector;

pub use arithmetic::{Arithmetic, Soft};
pub use codec::{Codec, Coding, Encoded};
pub use device::Device;
pub use error::KernelError;
pub use lora::Lora;
pub use matrix::{Mat, MatMut};
pub use network::Rope;
pub use optimiser::{AdamW, AdamWState};
pub use outer::{Nesterov, Outer};
pub use reference::Reference;
pub use slot::{Merged, Quantised, Scale, WEIGHT_ONE};
