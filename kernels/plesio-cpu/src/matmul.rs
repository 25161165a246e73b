//! The base product, handed to the single-precision part of the `gemm` library, on one thread.
//!
//! The library takes pointers and strides; the views of `plesio-kernels` have checked both against their
//! slices, and a written view cannot alias a read one.

use gemm_common::Parallelism;
use gemm_f32::gemm::f32::get_gemm_fn;
use plesio_kernels::{Mat, MatMut};

/// `c = a b`, or `c += a b`.
pub(crate) fn matmul(mut c: MatMut<'_>, a: Mat<'_>, b: Mat<'_>, accumulate: bool) {
    let (rows, cols, depth) = (c.rows(), c.cols(), a.cols());
    assert!(a.rows() == rows && b.cols() == cols && b.rows() == depth, "matmul shapes");
    if rows == 0 || cols == 0 {
        return;
    }
    if depth == 0 {
        if !accumulate {
            (0..rows).for_each(|row| c.row_mut(row).fill(0.0));
        }
        return;
    }
    let c_row_stride = stride(c.row_stride());
    let c_data = c.data_mut().as_mut_ptr();
    let product = get_gemm_fn();
    // The library wants columns contiguous, so it gets the transposed problem: c^T = b^T a^T.
    // JUSTIFICATION: the library has no interface over slices.
    // SAFETY: `Mat` and `MatMut` hold every element they address inside their slices, `c` is borrowed
    // mutably and its rows do not overlap, and the shapes agree by the assertion above. A slice is at most
    // isize::MAX bytes long, so the strides that lie inside one fit isize.
    unsafe {
        product(
            cols,
            rows,
            depth,
            c_data,
            c_row_stride,
            1,
            accumulate,
            b.data().as_ptr(),
            stride(b.row_stride()),
            stride(b.col_stride()),
            a.data().as_ptr(),
            stride(a.row_stride()),
            stride(a.col_stride()),
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// A stride as the library wants it. Strides of views with one row or column may be anything; they are
/// never multiplied by more than zero.
fn stride(elements: usize) -> isize {
    isize::try_from(elements).unwrap_or(isize::MAX)
}
