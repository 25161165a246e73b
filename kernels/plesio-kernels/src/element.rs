//! What storage holds: binary32, or bfloat16 in a `u16`. Kernels compute in binary32 whatever they read and write.

use crate::bf16;

/// A stored number.
pub trait Element: Copy + Default {
    /// Its value, exactly.
    fn widen(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

/// bfloat16.
impl Element for u16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        bf16::widen(self)
    }
}

/// Floats that [`Sum::lift`] needs room for.
pub(crate) const ROOM: usize = 4 * 1024;

/// Elements that a kernel adds to: several times in binary32, then rounded once.
pub(crate) trait Sum: Element {
    /// Rows of up to 1024 columns whose values are worked on together.
    const ROWS: usize;
    /// The values of some columns of rows of `width` elements, and how far apart these rows of values are: in their own
    /// place if that can be, else in `room`.
    fn lift<'a>(
        stored: &'a mut [Self],
        width: usize,
        columns: (usize, usize),
        room: &'a mut [f32; ROOM],
    ) -> (&'a mut [f32], usize);
    /// Puts back what was lifted into `room`.
    fn lower(room: &[f32; ROOM], stored: &mut [Self], width: usize, columns: (usize, usize));
}

impl Sum for f32 {
    const ROWS: usize = 16;

    #[inline(always)]
    fn lift<'a>(
        stored: &'a mut [Self],
        width: usize,
        (start, _): (usize, usize),
        _room: &'a mut [f32; ROOM],
    ) -> (&'a mut [f32], usize) {
        (&mut stored[start..], width)
    }

    #[inline(always)]
    fn lower(_room: &[f32; ROOM], _stored: &mut [Self], _width: usize, _columns: (usize, usize)) {}
}

impl Sum for u16 {
    const ROWS: usize = 4;

    #[inline(always)]
    fn lift<'a>(
        stored: &'a mut [Self],
        width: usize,
        (start, end): (usize, usize),
        room: &'a mut [f32; ROOM],
    ) -> (&'a mut [f32], usize) {
        for (row, values) in stored.chunks_exact(width).zip(room.chunks_exact_mut(end - start)) {
            for (value, &stored) in values.iter_mut().zip(&row[start..end]) {
                *value = bf16::widen(stored);
            }
        }
        (room, end - start)
    }

    #[inline(always)]
    fn lower(room: &[f32; ROOM], stored: &mut [Self], width: usize, (start, end): (usize, usize)) {
        for (row, values) in stored.chunks_exact_mut(width).zip(room.chunks_exact(end - start)) {
            for (stored, &value) in row[start..end].iter_mut().zip(values) {
                *stored = bf16::narrow(value);
            }
        }
    }
}
