//! The layer with everything in bfloat16 but A x and the factors' gradients: half the bytes, the same order of every sum.
//!
//! Elements are widened when they are read and each result is rounded once, to nearest even, when it is written.

use super::{Adapter, Gradients, backward_stored, forward_stored};
use crate::arithmetic::Arithmetic;
use crate::error::KernelError;

/// [`super::forward`] in bfloat16; h stays binary32.
#[inline(always)]
pub fn lora_forward_bf16<F: Arithmetic>(
    adapter: Adapter<'_>,
    x: &[u16],
    h: &mut [f32],
    y: &mut [u16],
) -> Result<(), KernelError> {
    forward_stored::<F, u16>(adapter, x, h, y)
}

/// [`super::backward`] in bfloat16; h, dA and dB stay binary32.
#[inline(always)]
pub fn lora_backward_bf16<F: Arithmetic>(
    adapter: Adapter<'_>,
    x: &[u16],
    g: &[u16],
    h: &mut [f32],
    gradients: Gradients<'_, u16>,
) -> Result<(), KernelError> {
    backward_stored::<F, u16>(adapter, x, g, h, gradients)
}

#[cfg(test)]
mod tests;
