//! Shell. What every device has to pass: the scalar reference's bits, whatever goes in.
//!
//! Knows: every operation of [`Device`], and the inputs that find mistakes. Does not know: which device it is.
//! A mismatch panics and says operation, device, shape and element.
#![forbid(unsafe_code)]

pub mod codec;
pub mod slot;
pub mod values;

use plesio_kernels::Device;

/// How much is tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effort {
    /// Sizes around every boundary, once each: for devices that are slow.
    Short,
    /// More sizes and more contributions.
    Whole,
}

/// Everything.
pub fn conform<D: Device>(device: D, effort: Effort) {
    slot::conform(device, effort);
    codec::conform(device, effort);
}
