//! Kernels as who launches them sees them: a symbol, a size of block, and how many blocks some work takes.

use std::ffi::CStr;

/// Threads of a block, where a kernel has no reason for another size.
pub const THREADS: u32 = 256;
/// Elements of a block, where kernels go by packs of four.
pub const TILE: usize = 4 * THREADS as usize;
/// Elements of a block whose threads have a word of 32 bits each.
pub const WORD_TILE: usize = 32 * THREADS as usize;
/// Most contributions that one kernel takes together.
pub const CONTRIBUTIONS_MAX: usize = 32;
/// What a report holds while nothing is wrong; else the first element concerned.
pub const NOTHING: u64 = u64::MAX;

/// One kernel of the artefacts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kernel {
    /// Its symbol.
    pub name: &'static CStr,
    /// Threads of each of its blocks.
    pub threads: u32,
}

impl Kernel {
    /// A kernel with blocks of [`THREADS`].
    #[must_use]
    pub const fn new(name: &'static CStr) -> Self {
        Self { name, threads: THREADS }
    }
}

/// Blocks of [`TILE`] elements.
#[must_use]
pub const fn tiles(len: usize) -> u64 {
    len.div_ceil(TILE) as u64
}

/// Blocks of [`WORD_TILE`] elements.
#[must_use]
pub const fn word_tiles(len: usize) -> u64 {
    len.div_ceil(WORD_TILE) as u64
}

/// The numbers of a list, at most [`CONTRIBUTIONS_MAX`] of them, as kernels take them.
pub(crate) fn listed<T: Copy + Default>(values: &[T]) -> [T; CONTRIBUTIONS_MAX] {
    let mut list = [T::default(); CONTRIBUTIONS_MAX];
    list[..values.len()].copy_from_slice(values);
    list
}
