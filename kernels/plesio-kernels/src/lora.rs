//! Low-rank adaptation of a linear layer: `y += s B (A x)`, its gradients, and folding it into the weights (Hu and
//! others, "LoRA: Low-Rank Adaptation of Large Language Models", 2021).
//!
//! A is rank x d_in with contiguous rows; B is kept transposed, rank x d_out with contiguous rows, so that
//! everything is one of three products over rows: shrink (dot products with each factor row), expand (sums of
//! factor rows) and outer (sums of outer products over the batch). Each works on small blocks of rows and
//! ranks that fit the registers, and each gives the bits of its plain loop.
//!
//! Factors and vectors are stored in binary32 here, in bfloat16 in [`half`] and [`grouped`]; A x and the gradients of
//! the factors are binary32 everywhere.

pub mod grouped;
pub mod half;
pub(crate) mod products;

use crate::arithmetic::Arithmetic;
use crate::element::{Element, ROOM, Sum};
use crate::error::{KernelError, check_len};
use crate::matrix::{Mat, MatMut};
use crate::vector::first_non_finite;
use products::Rows;

/// Largest rank of an adapter.
pub const RANK_MAX: usize = 64;

/// One adapter of one layer, checked.
#[derive(Clone, Copy, Debug)]
pub struct Lora<'a, E = f32> {
    a: &'a [E],
    b: &'a [E],
    rank: usize,
    d_in: usize,
    d_out: usize,
    scale: f32,
}

/// An adapter whose factors are stored in bfloat16.
pub type Adapter<'a> = Lora<'a, u16>;

impl<'a, E: Element> Lora<'a, E> {
    /// Accepts factors of the stated shape (B transposed) with finite elements and 1 <= rank <= min(d_in, d_out, 64).
    pub fn new(
        a: &'a [E],
        b: &'a [E],
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
        for (what, found) in
            [("A", first_non_finite(a)), ("B", first_non_finite(b)), ("scale", first_non_finite(&[scale]))]
        {
            if let Some(element) = found {
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

    /// A, rank x d_in.
    pub fn a(&self) -> &'a [E] {
        self.a
    }
    /// B, transposed: rank x d_out.
    pub fn b(&self) -> &'a [E] {
        self.b
    }
    /// s.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Rows in `x`, after checking that all buffers of the call agree on it.
    ///
    /// # Errors
    /// [`KernelError::Length`] of the first that does not.
    pub fn rows(&self, x: &[E], y: &[E], h: &[f32]) -> Result<usize, KernelError> {
        let rows = y.len() / self.d_out;
        check_len("y", rows * self.d_out, y.len())?;
        check_len("x", rows * self.d_in, x.len())?;
        check_len("h", rows * self.rank, h.len())?;
        Ok(rows)
    }

    /// [`Self::rows`] of a backward pass, whose results it checks as well.
    ///
    /// # Errors
    /// [`KernelError::Length`] of the first that does not agree.
    pub fn rows_back(
        &self,
        x: &[E],
        g: &[E],
        h: &[f32],
        gradients: &Gradients<'_, E>,
    ) -> Result<usize, KernelError> {
        let rows = self.rows(x, g, h)?;
        check_len("dA", self.a.len(), gradients.a.len())?;
        check_len("dB", self.b.len(), gradients.b.len())?;
        if let Some(dx) = gradients.x.as_deref() {
            check_len("dx", x.len(), dx.len())?;
        }
        Ok(rows)
    }

    /// Checks the weights of [`fold_into`].
    ///
    /// # Errors
    /// [`KernelError::Length`] of the first that is not d_out x d_in.
    pub fn check_fold(&self, weights: &[f32], merged: &[f32]) -> Result<(), KernelError> {
        check_len("weights", self.d_in * self.d_out, weights.len())?;
        check_len("merged", self.d_in * self.d_out, merged.len())
    }
}

/// # Panics
/// When the shapes of a [`shrink`] disagree.
pub fn check_shrink(x: Mat<'_>, factors: &[f32], out: &MatMut<'_>) {
    assert!(x.col_stride() == 1 && out.rows() == x.rows(), "shrink shapes");
    assert_eq!(factors.len(), out.cols() * x.cols(), "shrink shapes");
}

/// # Panics
/// When the shapes of an [`outer`] disagree.
pub fn check_outer(coefficients: Mat<'_>, x: Mat<'_>, out: &[f32]) {
    assert!(x.col_stride() == 1 && coefficients.col_stride() == 1, "outer strides");
    let whole = coefficients.rows() == x.rows() && out.len() == coefficients.cols() * x.cols();
    assert!(whole, "outer shapes");
}

/// `out[t][k] = scale * dot(x[t], factors[k])` in the 64-lane order; factors are rank x width.
///
/// # Panics
/// When the shapes disagree.
#[inline(always)]
pub fn shrink<F: Arithmetic>(scale: f32, x: Mat<'_>, factors: &[f32], out: MatMut<'_>) {
    check_shrink(x, factors, &out);
    products::shrink::<F, f32, f32>(scale, Rows::of(x), factors, out);
}

/// `out[k] += sum over t of (scale * coefficients[t][k]) * x[t]`, t rising; out is rank x width.
///
/// # Panics
/// When the shapes disagree.
#[inline(always)]
pub fn outer<F: Arithmetic>(scale: f32, coefficients: Mat<'_>, x: Mat<'_>, out: &mut [f32]) {
    check_outer(coefficients, x, out);
    products::outer::<F, f32>(scale, coefficients, Rows::of(x), out);
}

/// `h = A x`, `y += s B h`, for every row of x and y.
#[inline(always)]
pub fn forward<F: Arithmetic>(
    lora: Lora<'_>,
    x: &[f32],
    h: &mut [f32],
    y: &mut [f32],
) -> Result<(), KernelError> {
    forward_stored::<F, f32>(lora, x, h, y)
}

/// [`forward`] whatever the storage: each element of y is rounded to it once.
#[inline(always)]
fn forward_stored<F: Arithmetic, E: Sum>(
    lora: Lora<'_, E>,
    x: &[E],
    h: &mut [f32],
    y: &mut [E],
) -> Result<(), KernelError> {
    let rows = lora.rows(x, y, h)?;
    let Lora { a, b, rank, d_in, d_out, scale } = lora;
    products::shrink::<F, E, E>(1.0, Rows::dense(x, rows, d_in), a, MatMut::dense(h, rows, rank));
    products::expand::<F, E, E>(scale, Mat::dense(h, rows, rank), b, y, d_out, &mut [0.0; ROOM]);
    Ok(())
}

/// Where the backward pass leaves its results; all are added to.
#[derive(Debug)]
pub struct Gradients<'a, E = f32> {
    /// dL/dA, rank x d_in.
    pub a: &'a mut [f32],
    /// dL/dB, transposed as B is: rank x d_out.
    pub b: &'a mut [f32],
    /// dL/dx, when the layer below needs it.
    pub x: Option<&'a mut [E]>,
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
    backward_stored::<F, f32>(lora, x, g, h, gradients)
}

/// [`backward`] whatever the storage: each element of dx is rounded to it once.
#[inline(always)]
fn backward_stored<F: Arithmetic, E: Sum>(
    lora: Lora<'_, E>,
    x: &[E],
    g: &[E],
    h: &mut [f32],
    gradients: Gradients<'_, E>,
) -> Result<(), KernelError> {
    let rows = lora.rows_back(x, g, h, &gradients)?;
    let Lora { a, b, rank, d_in, d_out, scale } = lora;
    let Gradients { a: da, b: db, x: dx } = gradients;
    let (x, g) = (Rows::dense(x, rows, d_in), Rows::dense(g, rows, d_out));
    products::outer::<F, E>(scale, Mat::dense(h, rows, rank), g, db);
    products::shrink::<F, E, E>(scale, g, b, MatMut::dense(h, rows, rank));
    let back = Mat::dense(h, rows, rank);
    products::outer::<F, E>(1.0, back, x, da);
    if let Some(dx) = dx {
        products::expand::<F, E, E>(1.0, back, a, dx, d_in, &mut [0.0; ROOM]);
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
    lora.check_fold(weights, merged)?;
    merged.copy_from_slice(weights);
    let coefficients = Mat::dense(b, rank, d_out).transposed();
    products::expand::<F, f32, f32>(scale, coefficients, a, merged, d_in, &mut [0.0; ROOM]);
    Ok(())
}

#[cfg(test)]
mod tests;
