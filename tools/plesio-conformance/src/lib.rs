//! Shell. What every device has to pass: the scalar reference's bits, whatever goes in.
//!
//! Knows: every operation of [`Device`], and the inputs that find mistakes. Does not know: which device it is.
//! A mismatch panics and says operation, device, shape and element.
#![forbid(unsafe_code)]

pub mod aggregate;
pub mod codec;
pub mod lora;
pub mod optimiser;
pub mod product;
pub mod q8;
pub mod robust;
pub mod slot;
pub mod sparse;
pub mod values;
pub mod vote;

use plesio_kernels::Device;

/// How much is tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effort {
    /// Sizes around every boundary, once each: for devices that are slow.
    Short,
    /// More sizes and more contributions.
    Whole,
}

/// A family of operations: its name, and all that is asked of it.
pub type Family<D> = (&'static str, fn(D, Effort));

/// Every family.
#[must_use]
pub fn families<D: Device>() -> [Family<D>; 10] {
    [
        ("slot", slot::conform),
        ("codec", codec::conform),
        ("aggregate", aggregate::conform),
        ("q8", q8::conform),
        ("robust", robust::conform),
        ("sparse", sparse::conform),
        ("vote", vote::conform),
        ("lora", lora::conform),
        ("optimiser", optimiser::conform),
        ("product", product::conform),
    ]
}

/// Everything.
pub fn conform<D: Device>(device: D, effort: Effort) {
    for (_, check) in families() {
        check(device, effort);
    }
}
