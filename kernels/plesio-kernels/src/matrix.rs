//! Strided views of matrices over slices, checked once when they are made.
//!
//! Invariant: every element of a view lies inside its slice, and the elements of a `MatMut` are distinct.

/// A matrix to read: `element(i, j) = data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// A matrix to write, rows contiguous: `element(i, j) = data[i * row_stride + j]`.
#[derive(Debug)]
pub struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

/// Elements a view spans, or `None` when that leaves the address space.
fn span_len(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Option<usize> {
    if rows == 0 || cols == 0 {
        return Some(0);
    }
    let last_row = (rows - 1).checked_mul(row_stride)?;
    let last_col = (cols - 1).checked_mul(col_stride)?;
    last_row.checked_add(last_col)?.checked_add(1)
}

impl<'a> Mat<'a> {
    /// A view with contiguous rows, `row_stride` elements apart.
    ///
    /// # Panics
    /// When the view does not fit in `data`: the caller's shapes are wrong.
    pub fn new(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        let len = span_len(rows, cols, row_stride, 1);
        assert!(len.is_some_and(|len| len <= data.len()), "matrix view {rows}x{cols} outside its slice");
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// A view of a whole slice of contiguous rows.
    pub fn dense(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::new(data, rows, cols, cols)
    }

    /// The same elements with rows and columns exchanged; nothing moves.
    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// The slice under the view.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }
    /// The part of the slice from the view's first element to its last; empty for a view of none.
    pub fn span(&self) -> &'a [f32] {
        let len = span_len(self.rows, self.cols, self.row_stride, self.col_stride);
        &self.data[..len.expect("checked when the view was made")]
    }
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// Elements from one row to the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }
    /// Elements from one column to the next.
    pub fn col_stride(&self) -> usize {
        self.col_stride
    }
    /// One element.
    #[inline]
    pub fn at(&self, row: usize, col: usize) -> f32 {
        self.data[row * self.row_stride + col * self.col_stride]
    }
}

impl<'a> MatMut<'a> {
    /// A view with contiguous rows, `row_stride` elements apart.
    ///
    /// # Panics
    /// When the view does not fit in `data` or its rows overlap: the caller's shapes are wrong.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        let len = span_len(rows, cols, row_stride, 1);
        assert!(len.is_some_and(|len| len <= data.len()), "matrix view {rows}x{cols} outside its slice");
        assert!(rows <= 1 || row_stride >= cols, "rows of a written matrix overlap");
        Self { data, rows, cols, row_stride }
    }

    /// A view of a whole slice of contiguous rows.
    pub fn dense(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::new(data, rows, cols, cols)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// Elements from one row to the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }
    /// The slice under the view.
    pub fn data_mut(&mut self) -> &mut [f32] {
        self.data
    }
    /// The part of the slice from the view's first element to its last; empty for a view of none.
    pub fn span_mut(&mut self) -> &mut [f32] {
        let len = span_len(self.rows, self.cols, self.row_stride, 1);
        &mut self.data[..len.expect("checked when the view was made")]
    }
    /// One row.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of a matrix with {}", self.rows);
        let start = row * self.row_stride;
        &mut self.data[start..start + self.cols]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposed_view_exchanges_rows_and_columns() {
        let data = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mat = Mat::dense(&data, 2, 3);
        assert_eq!(mat.at(1, 0), 4.0);
        assert_eq!(mat.transposed().at(0, 1), 4.0);
        assert_eq!((mat.transposed().rows(), mat.transposed().cols()), (3, 2));
    }

    #[test]
    fn a_span_ends_with_the_last_element() {
        let mut data = [0.0; 20];
        assert_eq!(Mat::new(&data, 3, 4, 7).span().len(), 18);
        assert_eq!(Mat::new(&data, 3, 4, 7).transposed().span().len(), 18);
        assert_eq!(MatMut::new(&mut data, 2, 4, 7).span_mut().len(), 11);
        assert_eq!(MatMut::new(&mut data, 0, 4, 7).span_mut().len(), 0);
    }

    #[test]
    #[should_panic(expected = "outside its slice")]
    fn a_view_beyond_its_slice_is_refused() {
        let _ = Mat::new(&[0.0; 7], 2, 4, 4);
    }

    #[test]
    #[should_panic(expected = "outside its slice")]
    fn a_view_beyond_the_address_space_is_refused() {
        let _ = Mat::new(&[0.0; 7], usize::MAX, 4, 4);
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn overlapping_rows_cannot_be_written() {
        let _ = MatMut::new(&mut [0.0; 8], 2, 4, 3);
    }
}
