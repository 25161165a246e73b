//! Many adapters in one call, each row its own, as a batch of decoding tokens has them (Chen and others, "Punica:
//! Multi-Tenant LoRA Serving", 2023). Ranks may differ.
//!
//! What a row gets depends on nothing but the row and its adapter: [`super::half`] gives it the same bits.

use super::{Adapter, RANK_MAX, products};
use crate::arithmetic::Arithmetic;
use crate::element::ROOM;
use crate::error::{KernelError, check_len};
use crate::matrix::{Mat, MatMut};
use products::Rows;

/// The adapter of a row that has none.
pub const NO_ADAPTER: u32 = u32::MAX;

/// Rows that one adapter takes together.
const ROWS: usize = 16;

/// The widths of x and y, after checking that all of the call agrees on them; nothing where there is no adapter.
///
/// # Errors
/// [`KernelError::Adapter`] of the first row whose adapter is not there, [`KernelError::Length`] of the first width
/// or buffer that disagrees.
pub fn check_grouped(
    adapters: &[Adapter<'_>],
    which: &[u32],
    x: &[u16],
    y: &[u16],
) -> Result<Option<(usize, usize)>, KernelError> {
    let count = adapters.len();
    for (row, &index) in which.iter().enumerate() {
        if index != NO_ADAPTER && index as usize >= count {
            return Err(KernelError::Adapter { row, index, count });
        }
    }
    // Without an adapter no row has one.
    let Some(first) = adapters.first() else { return Ok(None) };
    let (d_in, d_out) = (first.d_in(), first.d_out());
    for adapter in adapters {
        check_len("d_in", d_in, adapter.d_in())?;
        check_len("d_out", d_out, adapter.d_out())?;
    }
    check_len("x", which.len().saturating_mul(d_in), x.len())?;
    check_len("y", which.len().saturating_mul(d_out), y.len())?;
    Ok(Some((d_in, d_out)))
}

/// `y[t] += s B (A x[t])` with the adapter `which[t]`, for every row; rows of [`NO_ADAPTER`] stay as they are. Neighbours
/// with the same adapter share its factors' way through the cache.
#[inline(always)]
pub fn lora_grouped<F: Arithmetic>(
    adapters: &[Adapter<'_>],
    which: &[u32],
    x: &[u16],
    y: &mut [u16],
) -> Result<(), KernelError> {
    let Some((d_in, d_out)) = check_grouped(adapters, which, x, y)? else { return Ok(()) };
    let (mut h, mut room) = ([0.0; ROWS * RANK_MAX], [0.0; ROOM]);
    let mut row = 0;
    while row < which.len() {
        let index = which[row];
        let mut end = row + 1;
        while end < which.len() && which[end] == index && end - row < ROWS {
            end += 1;
        }
        if index != NO_ADAPTER {
            let Adapter { a, b, rank, scale, .. } = adapters[index as usize];
            let (rows, h) = (end - row, &mut h[..(end - row) * rank]);
            let x = Rows::dense(&x[row * d_in..end * d_in], rows, d_in);
            products::shrink::<F, u16, u16>(1.0, x, a, MatMut::dense(h, rows, rank));
            let (h, y) = (Mat::dense(h, rows, rank), &mut y[row * d_out..end * d_out]);
            products::expand::<F, u16, u16>(scale, h, b, y, d_out, &mut room);
        }
        row = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
