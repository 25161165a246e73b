//! The three products over rows of stored elements: shrink, expand, outer. What they compute stands in the parent.
//!
//! Each goes over the columns in blocks so that the factors stay in the first-level cache while all rows visit them,
//! and keeps in registers what it can; neither shows in the bits, because every sum still takes its terms in the one
//! order.

use crate::arithmetic::Arithmetic;
use crate::element::{Element, ROOM, Sum};
use crate::matrix::{Mat, MatMut};
use crate::vector::{LANES, QUARTER, add_elements, fold, no_sums, widen};

/// Rows of stored elements to read.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, E> {
    data: &'a [E],
    rows: usize,
    width: usize,
    stride: usize,
}

impl<'a, E> Rows<'a, E> {
    /// A whole slice of contiguous rows.
    #[inline(always)]
    pub(crate) fn dense(data: &'a [E], rows: usize, width: usize) -> Self {
        assert_eq!(data.len(), rows * width, "rows outside their slice");
        Self { data, rows, width, stride: width }
    }

    #[inline(always)]
    fn row(self, row: usize) -> &'a [E] {
        &self.data[row * self.stride..row * self.stride + self.width]
    }
}

impl<'a> Rows<'a, f32> {
    /// The rows of a matrix.
    #[inline(always)]
    pub(crate) fn of(mat: Mat<'a>) -> Self {
        assert!(mat.col_stride() == 1, "rows are contiguous");
        Self { data: mat.data(), rows: mat.rows(), width: mat.cols(), stride: mat.row_stride() }
    }
}

/// Whether the registers hold all lanes of four reductions.
pub(crate) const fn roomy<F: Arithmetic>() -> bool {
    F::REGISTERS_FLOATS >= 512
}

/// Whether there are vectors at all. Without them blocks of several rows and ranks would only be more code.
const fn vectors<F: Arithmetic>() -> bool {
    F::REGISTERS_FLOATS >= 128
}

/// Rows that all ranks of [`shrink`] visit one after the other.
const SHRINK_ROWS: usize = 32;

/// `out[t][k] = scale * dot(x[t], factors[k])`.
#[inline(always)]
pub(crate) fn shrink<F: Arithmetic, X: Element, A: Element>(
    scale: f32,
    x: Rows<'_, X>,
    factors: &[A],
    mut out: MatMut<'_>,
) {
    let (rank, rows, width) = (out.cols(), x.rows, x.width);
    assert!(out.rows() == rows && factors.len() == rank * width, "shrink shapes");
    let stride = out.row_stride();
    let out = out.data_mut();
    for row in (0..rows).step_by(SHRINK_ROWS) {
        let end = rows.min(row + SHRINK_ROWS);
        let mut k = 0;
        if const { vectors::<F>() } {
            while k + 2 <= rank {
                let pair = [&factors[k * width..(k + 1) * width], &factors[(k + 1) * width..(k + 2) * width]];
                let mut t = row;
                while t + 2 <= end {
                    let dots = dots::<F, X, A, 2, 2>([x.row(t), x.row(t + 1)], pair);
                    let (first, second) = (t * stride + k, (t + 1) * stride + k);
                    (out[first], out[first + 1]) = (scale * dots[0][0], scale * dots[0][1]);
                    (out[second], out[second + 1]) = (scale * dots[1][0], scale * dots[1][1]);
                    t += 2;
                }
                if t < end {
                    let dots = dots::<F, X, A, 1, 2>([x.row(t)], pair);
                    (out[t * stride + k], out[t * stride + k + 1]) = (scale * dots[0][0], scale * dots[0][1]);
                }
                k += 2;
            }
        }
        while k < rank {
            let factor = &factors[k * width..(k + 1) * width];
            for t in row..end {
                let dots = dots::<F, X, A, 1, 1>([x.row(t)], [factor]);
                out[t * stride + k] = scale * dots[0][0];
            }
            k += 1;
        }
    }
}

/// All dot products between T rows and K factors, with as many quarters of the lanes at a time as the registers hold.
#[inline(always)]
fn dots<F: Arithmetic, X: Element, A: Element, const T: usize, const K: usize>(
    x: [&[X]; T],
    a: [&[A]; K],
) -> [[f32; K]; T] {
    let step = |x, a, sum| F::fused(x, a, sum);
    fold(&if const { T * K == 1 || roomy::<F>() } {
        add_elements::<4, T, K, X, A>(no_sums(), x, a, step)
    } else if const { T * K == 2 } {
        add_elements::<2, T, K, X, A>(no_sums(), x, a, step)
    } else {
        add_elements::<1, T, K, X, A>(no_sums(), x, a, step)
    })
}

/// Columns at most, and factors' elements, that [`expand`] takes together.
const EXPAND_COLUMNS: usize = 1024;
const EXPAND_ELEMENTS: usize = 4096;

/// `y[t] += sum over k of (scale * coefficients[t][k]) * factors[k]`, k rising, rounded to what y holds at the end; y
/// has rows of `width` elements.
#[inline(always)]
pub(crate) fn expand<F: Arithmetic, B: Element, Y: Sum>(
    scale: f32,
    coefficients: Mat<'_>,
    factors: &[B],
    y: &mut [Y],
    width: usize,
    room: &mut [f32; ROOM],
) {
    let (rows, rank) = (coefficients.rows(), coefficients.cols());
    assert!(y.len() == rows * width && factors.len() == rank * width, "expand shapes");
    let columns = (EXPAND_ELEMENTS / rank.max(1)).clamp(LANES, EXPAND_COLUMNS);
    for start in (0..width).step_by(columns) {
        let columns = (start, width.min(start + columns));
        for row in (0..rows).step_by(Y::ROWS) {
            let rows = (row, rows.min(row + Y::ROWS));
            let y = &mut y[rows.0 * width..rows.1 * width];
            let (values, stride) = Y::lift(y, width, columns, room);
            let mut expand = Expand { scale, coefficients, factors, width, rows, columns, values, stride };
            let mut k = 0;
            if const { vectors::<F>() } {
                while k + 4 <= rank {
                    expand.add::<F, 4>(k);
                    k += 4;
                }
                if k + 2 <= rank {
                    expand.add::<F, 2>(k);
                    k += 2;
                }
            }
            while k < rank {
                expand.add::<F, 1>(k);
                k += 1;
            }
            Y::lower(room, y, width, columns);
        }
    }
}

/// Some rows and columns of [`expand`].
struct Expand<'a, B> {
    scale: f32,
    coefficients: Mat<'a>,
    factors: &'a [B],
    width: usize,
    rows: (usize, usize),
    columns: (usize, usize),
    values: &'a mut [f32],
    stride: usize,
}

impl<B: Element> Expand<'_, B> {
    /// Adds K ranks from `k` on to all rows.
    #[inline(always)]
    fn add<F: Arithmetic, const K: usize>(&mut self, k: usize) {
        let (start, end) = self.columns;
        let mut factors: [&[B]; K] = [&[]; K];
        for (j, factor) in factors.iter_mut().enumerate() {
            *factor = &self.factors[(k + j) * self.width + start..(k + j) * self.width + end];
        }
        let (scale, coefficients, stride) = (self.scale, self.coefficients, self.stride);
        let (mut t, end_row) = self.rows;
        for rows in self.values.chunks_mut(4 * stride) {
            if t + 4 <= end_row {
                let (first, rest) = rows.split_at_mut(stride);
                let (second, rest) = rest.split_at_mut(stride);
                let (third, fourth) = rest.split_at_mut(stride);
                let scaled = scaled::<4, K>(scale, coefficients, (t, k));
                add_factors::<F, B, 4, K>([first, second, third, fourth], scaled, factors);
                t += 4;
                continue;
            }
            for row in rows.chunks_mut(stride) {
                if t < end_row {
                    add_factors::<F, B, 1, K>([row], scaled(scale, coefficients, (t, k)), factors);
                    t += 1;
                }
            }
        }
    }
}

/// The scaled coefficients of T rows and K ranks.
#[inline(always)]
fn scaled<const T: usize, const K: usize>(
    scale: f32,
    coefficients: Mat<'_>,
    (t, k): (usize, usize),
) -> [[f32; K]; T] {
    let mut scaled = [[0.0; K]; T];
    for (i, scaled) in scaled.iter_mut().enumerate() {
        for (j, scaled) in scaled.iter_mut().enumerate() {
            *scaled = scale * coefficients.at(t + i, k + j);
        }
    }
    scaled
}

/// `rows[i] += scaled[i][0] * factors[0] + scaled[i][1] * factors[1] + ...`, in this order.
#[inline(always)]
fn add_factors<F: Arithmetic, B: Element, const T: usize, const K: usize>(
    rows: [&mut [f32]; T],
    scaled: [[f32; K]; T],
    factors: [&[B]; K],
) {
    let len = factors[0].len();
    let (mut blocks, mut tails): ([&mut [[f32; LANES]]; T], [&mut [f32]; T]) =
        (core::array::from_fn(|_| Default::default()), core::array::from_fn(|_| Default::default()));
    for ((row, block), tail) in rows.into_iter().zip(&mut blocks).zip(&mut tails) {
        (*block, *tail) = row[..len].as_chunks_mut();
    }
    let (mut factor_blocks, mut factor_tails): ([&[[B; LANES]]; K], [&[B]; K]) = ([&[]; K], [&[]; K]);
    for j in 0..K {
        (factor_blocks[j], factor_tails[j]) = factors[j][..len].as_chunks();
    }
    // Four quarters together: the end of a loop of sixteen turns is mispredicted, and costs as much as ten.
    for block in 0..len / LANES {
        for quarter in 0..LANES / QUARTER {
            let at = quarter * QUARTER;
            let mut values = [[0.0; QUARTER]; K];
            for j in 0..K {
                values[j] = widen(factor_blocks[j][block][at..].first_chunk().expect("four quarters"));
            }
            for i in 0..T {
                let row = blocks[i][block][at..].first_chunk_mut().expect("four quarters");
                add_quarter::<F, K>(row, &scaled[i], &values);
            }
        }
    }
    let whole = len % LANES / QUARTER * QUARTER;
    for at in (0..whole).step_by(QUARTER) {
        let mut values = [[0.0; QUARTER]; K];
        for j in 0..K {
            values[j] = widen(factor_tails[j][at..].first_chunk().expect("inside the row"));
        }
        for i in 0..T {
            let row = tails[i][at..].first_chunk_mut().expect("inside the row");
            add_quarter::<F, K>(row, &scaled[i], &values);
        }
    }
    for at in whole..len % LANES {
        for i in 0..T {
            for j in 0..K {
                tails[i][at] = F::fused(scaled[i][j], factor_tails[j][at].widen(), tails[i][at]);
            }
        }
    }
}

#[inline(always)]
fn add_quarter<F: Arithmetic, const K: usize>(
    row: &mut [f32; QUARTER],
    scaled: &[f32; K],
    values: &[[f32; QUARTER]; K],
) {
    let mut sums = *row;
    for j in 0..K {
        for lane in 0..QUARTER {
            sums[lane] = F::fused(scaled[j], values[j][lane], sums[lane]);
        }
    }
    *row = sums;
}

/// Rows of a batch whose columns stay in the first-level cache while every rank visits them.
const OUTER_ROWS: usize = 64;

/// `out[k] += sum over t of (scale * coefficients[t][k]) * x[t]`, t rising; out is rank x width.
#[inline(always)]
pub(crate) fn outer<F: Arithmetic, X: Element>(
    scale: f32,
    coefficients: Mat<'_>,
    x: Rows<'_, X>,
    out: &mut [f32],
) {
    let (width, rank, rows) = (x.width, coefficients.cols(), x.rows);
    assert!(coefficients.col_stride() == 1, "outer strides");
    assert!(coefficients.rows() == rows && out.len() == rank * width, "outer shapes");
    for first in (0..rows).step_by(OUTER_ROWS) {
        let mut outer = Outer { scale, coefficients, x, batch: (first, rows.min(first + OUTER_ROWS)), out };
        let mut start = 0;
        if const { vectors::<F>() } {
            while start + LANES <= width {
                outer.add_ranks::<F>(start);
                start += LANES;
            }
            while start + QUARTER <= width {
                outer.add_ranks_of::<F, QUARTER>(start);
                start += QUARTER;
            }
        }
        while start < width {
            outer.add_ranks_of::<F, 1>(start);
            start += 1;
        }
    }
}

/// Some rows of [`outer`].
struct Outer<'a, 'o, X> {
    scale: f32,
    coefficients: Mat<'a>,
    x: Rows<'a, X>,
    batch: (usize, usize),
    out: &'o mut [f32],
}

impl<X: Element> Outer<'_, '_, X> {
    /// 64 columns, all ranks: as many at a time as the registers hold sums.
    #[inline(always)]
    fn add_ranks<F: Arithmetic>(&mut self, start: usize) {
        if const { roomy::<F>() } {
            return self.add_ranks_of::<F, LANES>(start);
        }
        let rank = self.coefficients.cols();
        let mut k = 0;
        while k + 4 <= rank {
            for at in (start..start + LANES).step_by(QUARTER) {
                self.add::<F, QUARTER, 4>(at, k);
            }
            k += 4;
        }
        if k + 2 <= rank {
            for at in (start..start + LANES).step_by(2 * QUARTER) {
                self.add::<F, { 2 * QUARTER }, 2>(at, k);
            }
            k += 2;
        }
        if k < rank {
            self.add::<F, LANES, 1>(start, k);
        }
    }

    /// W columns, all ranks.
    #[inline(always)]
    fn add_ranks_of<F: Arithmetic, const W: usize>(&mut self, start: usize) {
        let rank = self.coefficients.cols();
        let mut k = 0;
        while k + 4 <= rank {
            self.add::<F, W, 4>(start, k);
            k += 4;
        }
        if k + 2 <= rank {
            self.add::<F, W, 2>(start, k);
            k += 2;
        }
        if k < rank {
            self.add::<F, W, 1>(start, k);
        }
    }

    /// W columns and K ranks: the sums stay in registers over all rows.
    #[inline(always)]
    fn add<F: Arithmetic, const W: usize, const K: usize>(&mut self, start: usize, rank: usize) {
        let Self { scale, coefficients, x, batch: (first, end), .. } = *self;
        let mut sums = [[0.0f32; W]; K];
        for (k, sums) in sums.iter_mut().enumerate() {
            *sums = *self.out[(rank + k) * x.width + start..].first_chunk().expect("inside the row");
        }
        for t in first..end {
            let row: &[X; W] = x.data[t * x.stride + start..].first_chunk().expect("inside the row");
            let c = coefficients.data()[t * coefficients.row_stride() + rank..].first_chunk::<K>();
            let c = c.expect("inside the row");
            for k in 0..K {
                let c = scale * c[k];
                for lane in 0..W {
                    sums[k][lane] = F::fused(c, row[lane].widen(), sums[k][lane]);
                }
            }
        }
        for (k, sums) in sums.into_iter().enumerate() {
            let row = self.out[(rank + k) * x.width + start..].first_chunk_mut();
            *row.expect("inside the row") = sums;
        }
    }
}
