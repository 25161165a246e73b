//! The two float operations that `core` lacks, as a seam between the definition and the fast instances.
//!
//! Both operations are correctly rounded in every implementation, so the choice never shows in the bits
//! (NaN payloads excepted).

/// How a fused multiply-add and a square root are done.
pub trait Arithmetic {
    /// `a * b + c`, rounded once.
    fn fused(a: f32, b: f32, c: f32) -> f32;
    /// The square root, correctly rounded.
    fn sqrt(x: f32) -> f32;
}

/// The definition: both operations in software, on any target.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Soft;

impl Arithmetic for Soft {
    #[inline]
    fn fused(a: f32, b: f32, c: f32) -> f32 {
        libm::fmaf(a, b, c)
    }

    #[inline]
    fn sqrt(x: f32) -> f32 {
        libm::sqrtf(x)
    }
}
