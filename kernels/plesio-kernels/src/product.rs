//! One token through a layer whose base weights are q8 and whose adapter is bfloat16: both products in one call.
//!
//! The decoding step of a quantised model: every weight is read once, so memory's speed is all that counts.

use crate::arithmetic::Arithmetic;
use crate::element::ROOM;
use crate::error::{KernelError, check_len};
use crate::f16;
use crate::lora::products::{self, Rows, roomy};
use crate::lora::{Adapter, RANK_MAX};
use crate::matrix::{Mat, MatMut};
use crate::q8::{BLOCK, Q8};
use crate::vector::{LANES, QUARTER, Sums, fold, no_sums, widen};

/// Columns whose scales are widened together.
const COLUMNS: usize = 1024;

/// Checks that all of a [`product_q8`] agrees on its widths.
///
/// # Errors
/// [`KernelError::Blocks`] for rows of other than whole blocks, [`KernelError::Length`] of the first width that
/// disagrees.
pub fn check_product(
    weights: Q8<'_>,
    x: &[u16],
    adapter: Option<Adapter<'_>>,
    y: &[f32],
) -> Result<(), KernelError> {
    let (d_in, d_out) = (x.len(), y.len());
    if !d_in.is_multiple_of(BLOCK) {
        return Err(KernelError::Blocks { what: "weights", elements: d_in, block: BLOCK });
    }
    check_len("weights", d_in.saturating_mul(d_out), weights.len())?;
    if let Some(adapter) = adapter {
        check_len("d_in", d_in, adapter.d_in())?;
        check_len("d_out", d_out, adapter.d_out())?;
    }
    Ok(())
}

/// `y[i] = dot(row i of weights, x)` in the 64-lane order, and the adapter's part added as in [`crate::lora::forward`].
/// The weights are y.len() x x.len(), each row of whole blocks.
#[inline(always)]
pub fn product_q8<F: Arithmetic>(
    weights: Q8<'_>,
    x: &[u16],
    adapter: Option<Adapter<'_>>,
    y: &mut [f32],
) -> Result<(), KernelError> {
    check_product(weights, x, adapter, y)?;
    let (d_in, d_out) = (x.len(), y.len());
    let mut row = 0;
    if const { roomy::<F>() } {
        while row + 4 <= d_out {
            *y[row..].first_chunk_mut().expect("inside y") = dots::<F, 4>(weights, row, x);
            row += 4;
        }
    }
    while row < d_out {
        [y[row]] = dots::<F, 1>(weights, row, x);
        row += 1;
    }
    if let Some(adapter) = adapter {
        let (rank, mut h, mut room) = (adapter.rank(), [0.0; RANK_MAX], [0.0; ROOM]);
        let h = &mut h[..rank];
        products::shrink::<F, u16, u16>(1.0, Rows::dense(x, 1, d_in), adapter.a(), MatMut::dense(h, 1, rank));
        products::expand::<F, u16, f32>(
            adapter.scale(),
            Mat::dense(h, 1, rank),
            adapter.b(),
            y,
            d_out,
            &mut room,
        );
    }
    Ok(())
}

/// The dot products of R rows from `row` on.
#[inline(always)]
fn dots<F: Arithmetic, const R: usize>(weights: Q8<'_>, row: usize, x: &[u16]) -> [f32; R] {
    let mut sums = no_sums::<R, 1>();
    let mut steps = [[0.0; COLUMNS / BLOCK]; R];
    for (index, columns) in x.chunks(COLUMNS).enumerate() {
        let mut codes: [&[i8]; R] = [&[]; R];
        for r in 0..R {
            let start = (row + r) * x.len() + index * COLUMNS;
            codes[r] = &weights.codes()[start..start + columns.len()];
            let scales = &weights.scales()[start / BLOCK..(start + columns.len()) / BLOCK];
            for (step, &scale) in steps[r].iter_mut().zip(scales) {
                *step = f16::widen(scale);
            }
        }
        sums = add_columns::<F, R>(sums, codes, &steps, columns);
    }
    let mut dots = [0.0; R];
    for (dot, folded) in dots.iter_mut().zip(fold(&sums)) {
        [*dot] = folded;
    }
    dots
}

/// The sums after some columns; they begin at a multiple of 64 and are whole blocks.
#[inline(always)]
fn add_columns<F: Arithmetic, const R: usize>(
    mut sums: Sums<R, 1>,
    codes: [&[i8]; R],
    steps: &[[f32; COLUMNS / BLOCK]; R],
    x: &[u16],
) -> Sums<R, 1> {
    let whole = x.len() / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        add_quarters::<F, R, 4>(&mut sums, codes, steps, x, at);
    }
    if whole < x.len() {
        add_quarters::<F, R, 2>(&mut sums, codes, steps, x, whole);
    }
    sums
}

/// Q quarters of the lanes.
#[expect(
    clippy::needless_range_loop,
    reason = "adaptors are not inlined into code for a wider instruction set"
)]
#[inline(always)]
fn add_quarters<F: Arithmetic, const R: usize, const Q: usize>(
    sums: &mut Sums<R, 1>,
    codes: [&[i8]; R],
    steps: &[[f32; COLUMNS / BLOCK]; R],
    x: &[u16],
    start: usize,
) {
    for quarter in 0..Q {
        let at = start + quarter * QUARTER;
        let x = widen(x[at..].first_chunk().expect("inside the row"));
        for r in 0..R {
            let (codes, step) = (codes[r][at..].first_chunk::<QUARTER>(), steps[r][at / BLOCK]);
            let codes = codes.expect("inside the row");
            for lane in 0..QUARTER {
                let sum = &mut sums[r][0][quarter][lane];
                *sum = F::fused(f32::from(codes[lane]) * step, x[lane], *sum);
            }
        }
    }
}

#[cfg(test)]
mod tests;
