//! The two float operations that `core` lacks and a hint to the memory, as a seam between the definition and the fast
//! instances.
//!
//! Both operations are correctly rounded in every implementation, and a hint changes nothing, so the choice never
//! shows in the bits (NaN payloads excepted).

/// How a fused multiply-add and a square root are done.
pub trait Arithmetic {
    /// Floats that all vector registers hold together: how much a body may keep in them. Changes no result.
    const REGISTERS_FLOATS: usize;
    /// `a * b + c`, rounded once.
    fn fused(a: f32, b: f32, c: f32) -> f32;
    /// The square root, correctly rounded.
    fn sqrt(x: f32) -> f32;
    /// Asks for the memory [`AHEAD_BYTES`] behind `at`, there or not, which the kernel will soon read.
    #[inline(always)]
    fn ahead<T>(_at: &T) {}
    /// Writes a block of results.
    #[inline(always)]
    fn store<const W: usize>(out: &mut [f32; W], values: [f32; W], _store: Store) {
        *out = values;
    }
    /// The same of sums.
    #[inline(always)]
    fn store_sums<const W: usize>(out: &mut [i64; W], values: [i64; W], _store: Store) {
        *out = values;
    }
    /// Ends a kernel that stored: whoever is told of its end sees all of it.
    #[inline(always)]
    fn settle(_store: Store) {}
}

/// Where results go. Changes no result.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Store {
    /// Into the caches, where the next kernel finds them.
    Cached,
    /// Past the caches where the machine can, so that lines are not read only to be overwritten: for results that are
    /// larger than the caches. Eight streams read into one go from 37 GB/s to 42 by it on one core of a Zen 5.
    Past,
}

/// The same number. In a loop over blocks it keeps the compiler from taking many blocks at once, an element of each, which
/// it would have to gather.
#[inline(always)]
pub(crate) fn one_by_one<T>(number: T) -> T {
    core::hint::black_box(number)
}

/// How far ahead a kernel asks that reads many streams in turn, a few lines of each. Hardware follows eight streams
/// well by itself: there the hint gains little, and one of twice this distance costs a quarter. With 32 streams from
/// memory, on one core of a Zen 5, it takes medians from 0.27 to 0.8 of the streaming rate. In the caches it costs 5 % at
/// most.
pub const AHEAD_BYTES: usize = 256;

/// Inputs that are read in turn by several lines of each. Of more at a time it is one or two lines, asked for ahead: 32
/// slots are summed at 30 GB/s by lines, at 28 by two, and at 26 by eight slots after the other, on one core of a Zen 5.
pub(crate) const STREAMS: usize = 8;

/// Bytes that memory is asked for at once.
pub(crate) const LINE_BYTES: usize = 64;

/// Asks for what lies behind each line of a block.
#[inline(always)]
pub(crate) fn ahead_of<F: Arithmetic, T>(block: &[T]) {
    for line in block.chunks(LINE_BYTES / size_of::<T>()) {
        F::ahead(&line[0]);
    }
}

/// The definition: both operations in software, on any target.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Soft;

impl Arithmetic for Soft {
    const REGISTERS_FLOATS: usize = 1;

    #[inline]
    fn fused(a: f32, b: f32, c: f32) -> f32 {
        libm::fmaf(a, b, c)
    }

    #[inline]
    fn sqrt(x: f32) -> f32 {
        libm::sqrtf(x)
    }
}
