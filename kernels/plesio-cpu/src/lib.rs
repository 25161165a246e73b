//! Unsafe core. The kernels on the CPU: AVX-512, AVX2 or NEON by what the machine has, else the reference.
//!
//! Knows: which instruction sets there are and how to enter code compiled for them. Does not know: what a
//! kernel computes; the bodies are those of `plesio-kernels`, compiled once per instruction set with the
//! hardware's fused multiply-add. Invariant: every level gives the reference's bits (base products excepted).
//!
//! Unsafe lives in `dispatch.rs` (entering code for a detected instruction set), `matmul.rs` (the base
//! product's library takes pointers) and `shared.rs` (memory that other processes write has no references).

mod dispatch;
mod level;
mod matmul;
mod shared;

pub use dispatch::Cpu;
pub use level::Level;
pub use shared::{Lane, SharedSums, TENSORS_MAX, Tensor};
