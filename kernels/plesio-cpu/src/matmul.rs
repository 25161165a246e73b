//! The base product, handed to the `gemm` library on one thread.
//!
//! The library takes pointers and strides; the views of `plesio-kernels` have checked both against their
//! slices, and a written view cannot alias a read one.

use gemm::Parallelism;
use plesio_kernels::{Mat, MatMut};

/// `c = a b`, or `c += a b`.
pub(crate) fn matmul(mut c: MatMut<'_>, a: Mat<'_>, b: Mat<'_>, accumulate: bool) {
    let (m, n, k) = (c.rows(), c.cols(), a.cols());
    assert!(a.rows() == m && b.cols() == n && b.rows() == k, "matmul shapes");
    if m == 0 || n == 0 {
        return;
    }
    let c_row_stride = stride(c.row_stride());
    let c_data = c.data_mut().as_mut_ptr();
    // JUSTIFICATION: the library has no interface over slices.
    // SAFETY: `Mat` and `MatMut` hold every element they address inside their slices, `c` is borrowed
    // mutably and its rows do not overlap, and the shapes agree by the assertion above. A slice is at most
    // isize::MAX bytes long, so the strides that lie inside one fit isize.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c_data,
            1,
            c_row_stride,
            accumulate,
            a.data().as_ptr(),
            stride(a.col_stride()),
            stride(a.row_stride()),
            b.data().as_ptr(),
            stride(b.col_stride()),
            stride(b.row_stride()),
            1.0f32,
            1.0f32,
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
