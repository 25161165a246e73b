//! Low-rank adaptation of a linear layer: `y += s B (A x)`, its gradients, and folding it into the weights.
//!
//! A is rank x d_in, B is d_out x rank, both with contiguous rows. h = A x is kept for the backward pass.

use crate::arithmetic::Arithmetic;
use crate::error::{KernelError, check_len};
use crate::vector::{LANES, axpy, dot, first_non_finite};

/// Largest rank: the kernels keep one transposed block of B on the stack.
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
    /// Accepts factors of the stated shape with finite elements and 1 <= rank <= min(d_in, d_out, 64).
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

/// `h = A x`, `y += s B h`, for every row of x and y.
#[inline(always)]
pub fn forward<F: Arithmetic>(
    lora: Lora<'_>,
    x: &[f32],
    h: &mut [f32],
    y: &mut [f32],
) -> Result<(), KernelError> {
    lora.rows(x, y, h)?;
    let Lora { a, b, rank, d_in, d_out, scale } = lora;
    for (x, h) in x.chunks_exact(d_in).zip(h.chunks_exact_mut(rank)) {
        for (h, a) in h.iter_mut().zip(a.chunks_exact(d_in)) {
            *h = dot::<F>(a, x);
        }
    }
    let mut columns = [[0.0f32; LANES]; RANK_MAX];
    for start in (0..d_out).step_by(LANES) {
        let len = LANES.min(d_out - start);
        let columns = &*transpose_block(b, rank, start, len, scale, &mut columns);
        for (h, y) in h.chunks_exact(rank).zip(y.chunks_exact_mut(d_out)) {
            let y = &mut y[start..start + len];
            for (&h, column) in h.iter().zip(columns) {
                axpy::<F>(h, &column[..len], y);
            }
        }
    }
    Ok(())
}

/// Rows `start..start + len` of s B as columns: element k, i is `s * B[start + i][k]`.
#[inline(always)]
fn transpose_block<'c>(
    b: &[f32],
    rank: usize,
    start: usize,
    len: usize,
    scale: f32,
    columns: &'c mut [[f32; LANES]; RANK_MAX],
) -> &'c mut [[f32; LANES]] {
    let columns = &mut columns[..rank];
    for (i, row) in b[start * rank..(start + len) * rank].chunks_exact(rank).enumerate() {
        for (column, &b) in columns.iter_mut().zip(row) {
            column[i] = scale * b;
        }
    }
    columns
}

/// Where the backward pass leaves its results; all are added to.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// dL/dA, rank x d_in.
    pub a: &'a mut [f32],
    /// dL/dB, d_out x rank.
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
    lora.rows(x, g, h)?;
    let Lora { a, b, rank, d_in, d_out, scale } = lora;
    let Gradients { a: da, b: db, x: mut dx } = gradients;
    check_len("dA", a.len(), da.len())?;
    check_len("dB", b.len(), db.len())?;
    if let Some(dx) = dx.as_deref() {
        check_len("dx", x.len(), dx.len())?;
    }
    for (index, ((x, g), h)) in
        x.chunks_exact(d_in).zip(g.chunks_exact(d_out)).zip(h.chunks_exact_mut(rank)).enumerate()
    {
        let mut back = [0.0f32; RANK_MAX];
        let back = &mut back[..rank];
        for ((&g, b), db) in g.iter().zip(b.chunks_exact(rank)).zip(db.chunks_exact_mut(rank)) {
            let g = g * scale;
            for (((back, &b), db), &h) in back.iter_mut().zip(b).zip(db).zip(&*h) {
                *back = F::fused(g, b, *back);
                *db = F::fused(g, h, *db);
            }
        }
        for (&back, da) in back.iter().zip(da.chunks_exact_mut(d_in)) {
            axpy::<F>(back, x, da);
        }
        if let Some(dx) = dx.as_deref_mut() {
            let dx = &mut dx[index * d_in..(index + 1) * d_in];
            for (&back, a) in back.iter().zip(a.chunks_exact(d_in)) {
                axpy::<F>(back, a, dx);
            }
        }
        h.copy_from_slice(back);
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
    for (row, b) in merged.chunks_exact_mut(d_in).zip(b.chunks_exact(rank)) {
        for (&b, a) in b.iter().zip(a.chunks_exact(d_in)) {
            axpy::<F>(scale * b, a, row);
        }
    }
    Ok(())
}
