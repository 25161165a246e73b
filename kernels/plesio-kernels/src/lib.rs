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

pub mod aggregate;
pub mod arithmetic;
pub mod bf16;
pub mod codec;
pub mod device;
pub mod element;
pub mod error;
pub mod f16;
pub mod lora;
pub mod matrix;
pub mod network;
pub mod norm;
pub mod optimiser;
pub mod outer;
pub mod product;
pub mod q8;
pub mod reference;
pub mod robust;
pub mod slot;
pub mod sparse;
pub mod stream;
pub mod vector;
pub mod vote;

pub use arithmetic::{Arithmetic, Soft};
pub use codec::{Codec, Coding, Encoded};
pub use device::Device;
pub use element::Element;
pub use error::KernelError;
pub use lora::grouped::NO_ADAPTER;
pub use lora::{Adapter, Lora};
pub use matrix::{Mat, MatMut};
pub use network::Rope;
pub use optimiser::{AdamW, AdamWState};
pub use outer::{Nesterov, Outer};
pub use q8::Q8;
pub use reference::Reference;
pub use robust::Robust;
pub use slot::{Merged, Quantised, Scale, WEIGHT_ONE};
