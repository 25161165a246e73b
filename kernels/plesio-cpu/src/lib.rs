//! Unsafe core. The kernels on the CPU: AVX-512, AVX2 or NEON by what the machine has, else the reference.
//!
//! Knows: which instruction sets there are, how to enter code compiled for them, and from which size on a call is
//! worth several threads. Does not know: what a kernel computes; the bodies are those of `plesio-kernels`, compiled
//! once per instruction set with the hardware's fused multiply-add. Invariant: every level, on any number of threads,
//! gives the reference's bits (base products excepted).
//!
//! Unsafe lives in `dispatch.rs` and `stream.rs` (entering code for a detected instruction set), `matmul.rs` (the base
//! product's library takes pointers) and `shared.rs` (memory that other processes write has no references).

mod dispatch;
mod level;
mod matmul;
mod shared;
mod stream;
mod threads;

pub use dispatch::Cpu;
pub use level::Level;
pub use shared::{Lane, SharedSums, TENSORS_MAX, Tensor};
