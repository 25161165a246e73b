//! Low-rank adaptation of a linear layer: `y += s B (A x)`, its gradients, and folding it into the weights.
//!
//! A is rank x d_in with contiguous rows; B is kept transposed, rank x d_out with contiguous rows, so that
//! everything is one of three products over rows: shrink (dot products with each factor row), expand (sums of
//! factor rows) and outer (sums of outer products over the batch). Each works on small blocks of rows and
//! ranks that fit the registers, and each gives the bits of its plain loop.

use crate::arithmetic::Arithmetic;
use crate::error::{KernelError, check_len};
use crate::matrix::{Mat, MatMut};
use crate::vector::{LANES, QUARTER, first_non_finite, reductions};

/// Largest rank of an adapter.
pub const RANK_MAX: usize = 64;

/// One adapter of one layer, checked.
#[derive(Clone, Copy, Debug)]
pub struct Lora<'a> {
    a: &'a [f32],
    b: &'a [f32],
    rank: usize,
    d_in: usize,
    d_out: usize,
    scale: f32,
}

impl<'a> Lora<'a> {
    /// Accepts factors of the stated shape (B transposed) with finite elements and 1 <= rank <= min(d_in, d_out, 64).
    pub fn new(
        a: &'a [f32],
        b: &'a [f32],
        rank: usize,
        d_in: usize,
        d_out: usize,
        scale: f32,
    ) -> Result<Self, KernelError> {
        let rank_max = d_in.min(d_out).min(RANK_MAX);
        if rank == 0 || rank > rank_max {
            return Err(KernelError::Rank { rank, rank_max });
        }
        check_len("A", rank.saturating_mul(d_in), a.len())?;
        check_len("B", rank.saturating_mul(d_out), b.len())?;
        for (what, values) in [("A", a), ("B", b), ("scale", &[scale][..])] {
            if let Some(element) = first_non_finite(values) {
                return Err(KernelError::NonFinite { what, element });
            }
        }
        Ok(Self { a, b, rank, d_in, d_out, scale })
    }

    /// The rank.
    pub fn rank(&self) -> usize {
        self.rank
    }
    /// Width of x.
    pub fn d_in(&self) -> usize {
        self.d_in
    }
    /// Width of y.
    pub fn d_out(&self) -> usize {
        self.d_out
    }

    /// Rows in `x`, after checking that all buffers of the call agree on it.
    fn rows(&self, x: &[f32], y: &[f32], h: &[f32]) -> Result<usize, KernelError> {
        let rows = y.len() / self.d_out;
        check_len("y", rows * self.d_out, y.len())?;
        check_len("x", rows * self.d_in, x.len())?;
        check_len("h", rows * self.rank, h.len())?;
        Ok(rows)
    }
}

/// Rows that a block of [`shrink`] or [`expand`] takes together.
const ROWS: usize = 2;

/// `out[t][k] = scale * dot(x[t], factors[k])` in the 64-lane order; factors are rank x width.
///
/// # Panics
/// When the shapes disagree.
#[inline(always)]
pub fn shrink<F: Arithmetic>(scale: f32, x: Mat<'_>, factors: &[f32], mut out: MatMut<'_>) {
    let (width, rank) = (x.cols(), out.cols());
    assert!(x.col_stride() == 1 && out.rows() == x.rows(), "shrink shapes");
    assert_eq!(factors.len(), rank * width, "shrink shapes");
    let (stride, out) = (out.row_stride(), out.data_mut());
    let mut t = 0;
    while t + ROWS <= x.rows() {
        let rows = [row(x, t), row(x, t + 1)];
        let mut k = 0;
        while k + 2 <= rank {
            let pair = [&factors[k * width..(k + 1) * width], &factors[(k + 1) * width..(k + 2) * width]];
            let dots = dots::<F, 2, 2>(rows, pair);
            out[t * stride + k] = scale * dots[0][0];
            out[t * stride + k + 1] = scale * dots[0][1];
            out[(t + 1) * stride + k] = scale * dots[1][0];
            out[(t + 1) * stride + k + 1] = scale * dots[1][1];
            k += 2;
        }
        if k < rank {
            let dots = dots::<F, 2, 1>(rows, [&factors[k * width..(k + 1) * width]]);
            out[t * stride + k] = scale * dots[0][0];
            out[(t + 1) * stride + k] = scale * dots[1][0];
        }
        t += ROWS;
    }
    if t < x.rows() {
        for k in 0..rank {
            let dots = dots::<F, 1, 1>([row(x, t)], [&factors[k * width..(k + 1) * width]]);
            out[t * stride + k] = scale * dots[0][0];
        }
    }
}

/// One row of a matrix with contiguous rows.
#[inline(always)]
fn row(x: Mat<'_>, t: usize) -> &[f32] {
    &x.data()[t * x.row_stride()..t * x.row_stride() + x.cols()]
}

/// All dot products between T rows and K factors.
#[inline(always)]
fn dots<F: Arithmetic, const T: usize, const K: usize>(x: [&[f32]; T], a: [&[f32]; K]) -> [[f32; K]; T] {
    reductions(x, a, |x, a, sum| F::fused(x, a, sum))
}

/// `y[t] += sum over k of (scale * coefficients[t][k]) * factors[k]`, k rising; factors are rank x width.
///
/// # Panics
/// When the shapes disagree.
#[inline(always)]
pub fn expand<F: Arithmetic>(scale: f32, coefficients: Mat<'_>, factors: &[f32], mut y: MatMut<'_>) {
    let (width, rank, rows) = (y.cols(), coefficients.cols(), y.rows());
    assert_eq!(coefficients.rows(), rows, "expand shapes");
    assert_eq!(factors.len(), rank * width, "expand shapes");
    let stride = y.row_stride();
    let y = y.data_mut();
    let mut t = 0;
    while t < rows {
        if t + ROWS <= rows {
            let (first, second) = y[t * stride..].split_at_mut(stride);
            let coefficient = |k| [scale * coefficients.at(t, k), scale * coefficients.at(t + 1, k)];
            add_factors::<F, 2>([&mut first[..width], &mut second[..width]], rank, coefficient, factors);
            t += ROWS;
        } else {
            let coefficient = |k| [scale * coefficients.at(t, k)];
            add_factors::<F, 1>([&mut y[t * stride..t * stride + width]], rank, coefficient, factors);
            t += 1;
        }
    }
}

#[inline(always)]
fn add_factors<F: Arithmetic, const T: usize>(
    mut y: [&mut [f32]; T],
    rank: usize,
    coefficient: impl Fn(usize) -> [f32; T],
    factors: &[f32],
) {
    let width = y[0].len();
    let mut start = 0;
    while start + LANES <= width {
        add_factors_block::<F, T, LANES>(&mut y, rank, &coefficient, factors, start);
        start += LANES;
    }
    while start + QUARTER <= width {
        add_factors_block::<F, T, QUARTER>(&mut y, rank, &coefficient, factors, start);
        start += QUARTER;
    }
    while start < width {
        add_factors_block::<F, T, 1>(&mut y, rank, &coefficient, factors, start);
        start += 1;
    }
}

/// T rows and W columns: read once, all ranks added, written once.
#[inline(always)]
fn add_factors_block<F: Arithmetic, const T: usize, const W: usize>(
    y: &mut [&mut [f32]; T],
    rank: usize,
    coefficient: &impl Fn(usize) -> [f32; T],
    factors: &[f32],
    start: usize,
) {
    let width = y[0].len();
    let mut sums = [[0.0f32; W]; T];
    for t in 0..T {
        sums[t] = *y[t][start..].first_chunk().expect("inside the row");
    }
    for k in 0..rank {
        let c = coefficient(k);
        let factor: &[f32; W] = factors[k * width + start..].first_chunk().expect("inside the row");
        for t in 0..T {
            for lane in 0..W {
                sums[t][lane] = F::fused(c[t], factor[lane], sums[t][lane]);
            }
        }
    }
    for t in 0..T {
        *y[t][start..].first_chunk_mut().expect("inside the row") = sums[t];
    }
}

/// Rows of a batch whose columns stay in the first-level cache while every rank visits them.
const OUTER_ROWS: usize = 64;

/// `out[k] += sum over t of (scale * coefficients[t][k]) * x[t]`, t rising; out is rank x width.
///
/// # Panics
/// When the shapes disagree.
#[inline(always)]
pub fn outer<F: Arithmetic>(scale: f32, coefficients: Mat<'_>, x: Mat<'_>, out: &mut [f32]) {
    let (width, rank, rows) = (x.cols(), coefficients.cols(), x.rows());
    assert!(x.col_stride() == 1 && coefficients.col_stride() == 1, "outer strides");
    assert!(coefficients.rows() == rows && out.len() == rank * width, "outer shapes");
    for first in (0..rows).step_by(OUTER_ROWS) {
        let batch = (first, rows.min(first + OUTER_ROWS));
        let mut start = 0;
        while start + LANES <= width {
            add_outer_ranks::<F, LANES>(scale, coefficients, x, batch, start, out);
            start += LANES;
        }
        while start + QUARTER <= width {
            add_outer_ranks::<F, QUARTER>(scale, coefficients, x, batch, start, out);
            start += QUARTER;
        }
        while start < width {
            add_outer_ranks::<F, 1>(scale, coefficients, x, batch, start, out);
            start += 1;
        }
    }
}

/// [`outer`] on some rows and W columns, all ranks.
#[inline(always)]
fn add_outer_ranks<F: Arithmetic, const W: usize>(
    scale: f32,
    coefficients: Mat<'_>,
    x: Mat<'_>,
    batch: (usize, usize),
    start: usize,
    out: &mut [f32],
) {
    let rank = coefficients.cols();
    let mut k = 0;
    while k + 4 <= rank {
        add_outer::<F, W, 4>(scale, coefficients, x, batch, (start, k), out);
        k += 4;
    }
    while k < rank {
        add_outer::<F, W, 1>(scale, coefficients, x, batch, (start, k), out);
        k += 1;
    }
}

/// [`outer`] on some rows, W columns and K ranks: the sums stay in registers over all rows.
#[inline(always)]
fn add_outer<F: Arithmetic, const W: usize, const K: usize>(
    scale: f32,
    coefficients: Mat<'_>,
    x: Mat<'_>,
    (first, end): (usize, usize),
    (start, rank): (usize, usize),
    out: &mut [f32],
) {
    let width = x.cols();
    let mut sums = [[0.0f32; W]; K];
    for k in 0..K {
        sums[k] = *out[(rank + k) * width + start..].first_chunk().expect("inside the row");
    }
    for t in first..end {
        let row: &[f32; W] = x.data()[t * x.row_stride() + start..].first_chunk().expect("inside the row");
        let c = coefficients.data()[t * coefficients.row_stride() + rank..].first_chunk::<K>();
        let c = c.expect("inside the row");
        for k in 0..K {
            let c = scale * c[k];
            for lane in 0..W {
                sums[k][lane] = F::fused(c, row[lane], sums[k][lane]);
            }
        }
    }
    for k in 0..K {
        let row = out[(rank + k) * width + start..].first_chunk_mut().expect("inside the row");
        *row = sums[k];
    }
}

/// `h = A x`, `y += s B h`, for every row of x and y.
#[inline(always)]
pub fn forward<F: Arithmetic>(
    lora: Lora<'_>,
    x: &[f32],
    h: &mut [f32],
    y: &mut [f32],
) -> Result<(), KernelError> {
    let rows = lora.rows(x, y, h)?;
    let Lora { a, b, rank, d_in, d_out, scale } = lora;
    shrink::<F>(1.0, Mat::dense(x, rows, d_in), a, MatMut::dense(h, rows, rank));
    expand::<F>(scale, Mat::dense(h, rows, rank), b, MatMut::dense(y, rows, d_out));
    Ok(())
}

/// Where the backward pass leaves its results; all are added to.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// dL/dA, rank x d_in.
    pub a: &'a mut [f32],
    /// dL/dB, transposed as B is: rank x d_out.
    pub b: &'a mut [f32],
    /// dL/dx, when the layer below needs it.
    pub x: Option<&'a mut [f32]>,
}

/// With g = dL/dy: `dB += s g h^T`, `dA += (s B^T g) x^T`, `dx += A^T (s B^T g)`.
///
/// `h` comes from the forward pass and is overwritten by s B^T g.
#[inline(always)]
pub fn backward<F: Arithmetic>(
    lora: Lora<'_>,
    x: &[f32],
    g: &[f32],
    h: &mut [f32],
    gradients: Gradients<'_>,
) -> Result<(), KernelError> {
    let rows = lora.rows(x, g, h)?;
    let Lora { a, b, rank, d_in, d_out, scale } = lora;
    let Gradients { a: da, b: db, x: dx } = gradients;
    check_len("dA", a.len(), da.len())?;
    check_len("dB", b.len(), db.len())?;
    if let Some(dx) = dx.as_deref() {
        check_len("dx", x.len(), dx.len())?;
    }
    let g = Mat::dense(g, rows, d_out);
    outer::<F>(scale, Mat::dense(h, rows, rank), g, db);
    shrink::<F>(scale, g, b, MatMut::dense(h, rows, rank));
    let back = Mat::dense(h, rows, rank);
    outer::<F>(1.0, back, Mat::dense(x, rows, d_in), da);
    if let Some(dx) = dx {
        expand::<F>(1.0, back, a, MatMut::dense(dx, rows, d_in));
    }
    Ok(())
}

/// `merged = weights + s B A`, row by row; weights are d_out x d_in.
#[inline(always)]
pub fn fold_into<F: Arithmetic>(
    lora: Lora<'_>,
    weights: &[f32],
    merged: &mut [f32],
) -> Result<(), KernelError> {
    let Lora { a, b, rank, d_in, d_out, scale } = lora;
    check_len("weights", d_in * d_out, weights.len())?;
    check_len("merged", d_in * d_out, merged.len())?;
    merged.copy_from_slice(weights);
    expand::<F>(scale, Mat::dense(b, rank, d_out).transposed(), a, MatMut::dense(merged, d_out, d_in));
    Ok(())
}

#[cfg(test)]
mod tests;
