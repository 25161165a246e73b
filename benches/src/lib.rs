//! Shell. Measurements; each group stands under `benches/`, this library holds what several of them need.

#![forbid(unsafe_code)]

use std::ops::{Deref, DerefMut};

/// Numbers that begin at a cache line, as they do in an arena.
#[derive(Debug)]
pub struct Aligned<T> {
    values: Vec<T>,
    first: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// The value of each element, by its number.
    pub fn new(len: usize, value: impl FnMut(usize) -> T) -> Self {
        let mut values = vec![T::default(); len + 64 / size_of::<T>()];
        let first = values.as_ptr().align_offset(64);
        values[first..first + len].iter_mut().zip((0..len).map(value)).for_each(|(at, value)| *at = value);
        Self { values, first, len }
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[self.first..self.first + self.len]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[self.first..self.first + self.len]
    }
}

/// First quartile, median and third quartile.
pub fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[quarter * (values.len() - 1) / 4])
}
