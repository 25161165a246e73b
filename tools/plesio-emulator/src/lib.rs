//! Unsafe core. The kernels of `kernels/source` on a machine without a GPU, for tests.
//!
//! Knows: how to compile the emulator with the C++ compiler that is there, and how to drive it as a
//! [`Runtime`](plesio_launch::Runtime), and how to have that compiler compare structs. Does not know: what a kernel
//! computes. Invariant: a compiler that is missing is an answer ([`Toolchain::find`]), not a failure.
//!
//! Unsafe lives in `emulated.rs`: the trait takes addresses.

mod build;
mod emulated;
pub mod layouts;
mod process;

pub use build::{Engine, Toolchain, kernels};
pub use emulated::{Emulated, Order, Setup};
