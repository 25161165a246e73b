//! Sums over memory that several processes map: inputs are read where their ranks left them, results written where they
//! want them.
//!
//! A block is small enough that its sum stays in the fastest cache. Lines that will be written are asked for with the
//! right to write when they are first read: on two cores that exchange one MiB this halves the traffic between them.
//!
//! Another process may write what is read here. Then the sum is of whatever bits were there, each of which is an element,
//! and no reference to them ever exists: this file works on addresses that [`Segment`] has checked.
#![expect(unsafe_code, reason = "memory that other processes may write has no references")]

use crate::level::Level;
use core::ops::Range;
use core::ptr::NonNull;
use plesio_kernels::bf16;
use plesio_memory::{AccessError, Segment};

/// Type of the elements that are summed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lane {
    /// IEEE 754 binary32.
    F32,
    /// Two's complement; sums wrap.
    I32,
    /// Upper half of a binary32: staged as binary32, rounded to nearest even when spread.
    Bf16,
}

impl Lane {
    /// Bytes of one element in a tensor.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// Where a tensor begins.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// Whose memory.
    pub segment: &'a Segment,
    /// Of its first element.
    pub offset_bytes: usize,
}

impl Tensor<'_> {
    /// The address of some elements of `bytes` each, which lie in the segment.
    fn at(&self, elements: &Range<usize>, bytes: usize) -> Result<NonNull<u8>, AccessError> {
        let start = elements.start.checked_mul(bytes).and_then(|start| start.checked_add(self.offset_bytes));
        let len = elements.end.checked_sub(elements.start).and_then(|len| len.checked_mul(bytes));
        let pointer =
            self.segment.pointer(start.ok_or(AccessError::Range)?, len.ok_or(AccessError::Range)?)?;
        if pointer.addr().get().is_multiple_of(bytes) { Ok(pointer) } else { Err(AccessError::Alignment) }
    }

    fn at_writable(&self, elements: &Range<usize>, bytes: usize) -> Result<NonNull<u8>, AccessError> {
        if self.segment.writable() { self.at(elements, bytes) } else { Err(AccessError::ReadOnly) }
    }
}

/// The kernels at one instruction set.
#[derive(Clone, Copy, Debug)]
pub struct SharedSums {
    level: Level, // available on this machine, by the constructors
}

impl SharedSums {
    /// At the fastest level of this machine.
    #[must_use]
    pub fn detect() -> Self {
        Self { level: Level::detect() }
    }

    /// At a given level, or `None` when this machine lacks it.
    #[must_use]
    pub fn with_level(level: Level) -> Option<Self> {
        level.is_available().then_some(Self { level })
    }

    /// By blocks of so many elements: the sum of `inputs` in their order into the scratch, then from there to `outputs`. `mark` is told
    /// when a block is staged (true) and when it is spread (false).
    ///
    /// # Errors
    /// Elements outside their segment or not aligned, an output or a scratch that cannot be written, or more than
    /// [`TENSORS_MAX`] tensors. Nothing was written.
    #[expect(clippy::too_many_arguments, reason = "each is another thing, and there is one caller")]
    pub fn reduce<'a>(
        &self,
        lane: Lane,
        inputs: impl Iterator<Item = Tensor<'a>>,
        outputs: impl Iterator<Item = Tensor<'a>>,
        elements: &Range<usize>,
        block: usize,
        scratch: Tensor<'_>,
        mark: &mut dyn FnMut(bool),
    ) -> Result<(), AccessError> {
        let block = block.max(1);
        let scratch = scratch.at_writable(&(0..block.min(elements.len())), size_of::<f32>())?;
        let mut from = Places::default();
        for input in inputs {
            from.push(input.at(elements, lane.bytes())?)?;
        }
        let mut to = Places::default();
        for output in outputs {
            to.push(output.at_writable(elements, lane.bytes())?)?;
        }
        let rewritten = from.as_slice() == to.as_slice();
        let mut done = 0;
        while done < elements.len() {
            let len = block.min(elements.len() - done);
            let at = |place: &NonNull<u8>| place.as_ptr().wrapping_add(done * lane.bytes());
            let mut rest = from.as_slice();
            let mut first = true;
            while let Some((one, others)) = rest.split_first() {
                // Two at once: half the passes over the scratch where there are two ranks.
                let two = others.first().filter(|_| first);
                let job = Job { lane, first, rewritten };
                // SAFETY: `at` of each tensor has shown that `elements` lie there, of which these are some; the scratch
                // holds a block of aligned elements and is writable.
                unsafe { self.add(job, at(one), two.map(at), scratch.as_ptr(), len) };
                rest = &others[usize::from(two.is_some())..];
                first = false;
            }
            mark(true);
            for place in to.as_slice() {
                // SAFETY: as above, and `at_writable` has shown that this place may be written.
                unsafe { self.round(lane, scratch.as_ptr(), at(place), len) };
            }
            mark(false);
            done += len;
        }
        Ok(())
    }

    /// `outputs[elements] = scratch[0..]`, of a block at most.
    ///
    /// # Errors
    /// Elements outside their segment, not aligned, or not to be written.
    pub fn spread<'a>(
        &self,
        lane: Lane,
        scratch: Tensor<'_>,
        outputs: impl Iterator<Item = Tensor<'a>>,
        elements: &Range<usize>,
    ) -> Result<(), AccessError> {
        let len = elements.len();
        let sum = scratch.at(&(0..len), size_of::<f32>())?;
        for output in outputs {
            let to = output.at_writable(elements, lane.bytes())?;
            // SAFETY: `at` has shown that `len` aligned elements lie at `sum` and at `to`; the latter is writable.
            unsafe { self.round(lane, sum.as_ptr(), to.as_ptr(), len) };
        }
        Ok(())
    }

    /// `outputs[elements] = input[elements]`; an output that is the input is left alone.
    ///
    /// # Errors
    /// As [`Self::spread`].
    pub fn copy<'a>(
        &self,
        lane: Lane,
        input: Tensor<'_>,
        outputs: impl Iterator<Item = Tensor<'a>>,
        elements: &Range<usize>,
    ) -> Result<(), AccessError> {
        let from = input.at(elements, lane.bytes())?;
        for output in outputs {
            let to = output.at_writable(elements, lane.bytes())?;
            if to != from {
                // SAFETY: as many bytes lie at both by `at`; the places may overlap, which this copy allows.
                unsafe { to.copy_from(from, elements.len() * lane.bytes()) };
            }
        }
        Ok(())
    }

    /// # Safety
    /// `len` aligned elements lie at `one` and at `two`, and as many writable ones of 4 bytes at `sum`.
    unsafe fn add(self, job: Job, one: *const u8, two: Option<*mut u8>, sum: *mut u8, len: usize) {
        let two = two.map(<*mut u8>::cast_const);
        match self.level {
            // SAFETY: the caller's promise; a value of this level exists only where the features were detected.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512::add(job, one, two, sum, len) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2::add(job, one, two, sum, len) },
            // SAFETY: the caller's promise.
            _ => unsafe { plain::add(job, one, two, sum, len) },
        }
    }

    /// # Safety
    /// `len` aligned elements of 4 bytes lie at `sum`, and as many writable ones of the lane at `to`.
    unsafe fn round(self, lane: Lane, sum: *const u8, to: *mut u8, len: usize) {
        match self.level {
            // SAFETY: the caller's promise; a value of this level exists only where the features were detected.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512::round(lane, sum, to, len) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2::round(lane, sum, to, len) },
            // SAFETY: the caller's promise.
            _ => unsafe { plain::round(lane, sum, to, len) },
        }
    }
}

/// Most tensors that are summed.
pub const TENSORS_MAX: usize = 32;

/// Where tensors lie, each checked.
struct Places {
    places: [NonNull<u8>; TENSORS_MAX],
    count: usize,
}

impl Default for Places {
    fn default() -> Self {
        Self { places: [NonNull::dangling(); TENSORS_MAX], count: 0 }
    }
}

impl Places {
    fn push(&mut self, place: NonNull<u8>) -> Result<(), AccessError> {
        *self.places.get_mut(self.count).ok_or(AccessError::Length)? = place;
        self.count += 1;
        Ok(())
    }

    fn as_slice(&self) -> &[NonNull<u8>] {
        &self.places[..self.count]
    }
}

/// What is added.
#[derive(Clone, Copy)]
struct Job {
    lane: Lane,
    /// Nothing is in the sum yet.
    first: bool,
    rewritten: bool,
}

/// Elements that are taken together: a cache line of the sum.
const LINE: usize = 16;
/// How far ahead lines are asked for.
const AHEAD_BYTES: usize = 1024;

/// Defines the two loops once per instruction set.
macro_rules! level {
    ($name:ident $(, $features:literal)?) => {
        mod $name {
            use super::*;

            $(#[target_feature(enable = $features)])?
            /// # Safety
            /// As [`SharedSums::add`].
            pub(super) unsafe fn add(job: Job, one: *const u8, two: Option<*const u8>, sum: *mut u8, len: usize) {
                match job.lane {
                    // SAFETY: the caller's promise.
                    Lane::F32 => unsafe { add_loop::<f32, f32>(job, one, two, sum, len, |x| x, |a, b| a + b) },
                    // SAFETY: the caller's promise.
                    Lane::I32 => unsafe { add_loop::<i32, i32>(job, one, two, sum, len, |x| x, i32::wrapping_add) },
                    // SAFETY: the caller's promise.
                    Lane::Bf16 => unsafe { add_loop::<u16, f32>(job, one, two, sum, len, bf16::widen, |a, b| a + b) },
                }
            }

            $(#[target_feature(enable = $features)])?
            /// # Safety
            /// As [`SharedSums::round`].
            pub(super) unsafe fn round(lane: Lane, sum: *const u8, to: *mut u8, len: usize) {
                match lane {
                    // SAFETY: the caller's promise.
                    Lane::F32 | Lane::I32 => unsafe { round_loop::<u32, u32>(sum.cast(), to.cast(), len, |x| x) },
                    // SAFETY: the caller's promise.
                    Lane::Bf16 => unsafe { round_loop::<f32, u16>(sum.cast(), to.cast(), len, bf16::narrow) },
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
level!(avx512, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl");
#[cfg(target_arch = "x86_64")]
level!(avx2, "avx2,fma");
level!(plain);

/// # Safety
/// As [`SharedSums::add`].
#[inline(always)]
unsafe fn add_loop<T: Copy, S: Copy>(
    job: Job,
    one: *const u8,
    two: Option<*const u8>,
    sum: *mut u8,
    len: usize,
    widen: impl Fn(T) -> S + Copy,
    plus: impl Fn(S, S) -> S + Copy,
) {
    let (one, sum) = (one.cast::<T>(), sum.cast::<S>());
    match (two.map(<*const u8>::cast::<T>), job.first) {
        // SAFETY: the caller's promise.
        (Some(two), _) => unsafe { lines(job, len, [one, two], sum, |[a, b], _| plus(widen(a), widen(b))) },
        // SAFETY: the caller's promise.
        (None, true) => unsafe { lines(job, len, [one], sum, |[a], _| widen(a)) },
        // SAFETY: the caller's promise.
        (None, false) => unsafe { lines(job, len, [one], sum, |[a], before: S| plus(before, widen(a))) },
    }
}

/// # Safety
/// `len` aligned elements lie at each of `from`, and as many writable ones at `sum`.
#[inline(always)]
unsafe fn lines<T: Copy, S: Copy, const K: usize>(
    job: Job,
    len: usize,
    from: [*const T; K],
    sum: *mut S,
    each: impl Fn([T; K], S) -> S + Copy,
) {
    let whole = len / LINE;
    for line in 0..whole {
        let from = from.map(|from| from.wrapping_add(line * LINE));
        if job.rewritten {
            from.iter().for_each(|from| ask_to_write(from.cast()));
        }
        // SAFETY: LINE aligned elements lie at all of them.
        unsafe {
            some::<T, S, K, LINE>(from.map(<*const T>::cast), sum.wrapping_add(line * LINE).cast(), each)
        };
    }
    for at in whole * LINE..len {
        let from = from.map(|from| from.wrapping_add(at).cast());
        // SAFETY: one aligned element lies at all of them.
        unsafe { some::<T, S, K, 1>(from, sum.wrapping_add(at).cast(), each) };
    }
}

/// # Safety
/// `N` aligned elements lie at each of `from`, and as many writable ones at `sum`.
#[inline(always)]
unsafe fn some<T: Copy, S: Copy, const K: usize, const N: usize>(
    from: [*const [T; N]; K],
    sum: *mut [S; N],
    each: impl Fn([T; K], S) -> S,
) {
    // SAFETY: the caller's promise.
    let from = from.map(|from| unsafe { from.read() });
    // SAFETY: the caller's promise.
    let mut line = unsafe { sum.read() };
    for (at, value) in line.iter_mut().enumerate() {
        *value = each(from.map(|from| from[at]), *value);
    }
    // SAFETY: the caller's promise.
    unsafe { sum.write(line) };
}

/// # Safety
/// `len` aligned elements lie at `sum`, and as many writable ones at `to`.
#[inline(always)]
unsafe fn round_loop<S: Copy, T: Copy>(
    sum: *const S,
    to: *mut T,
    len: usize,
    narrow: impl Fn(S) -> T + Copy,
) {
    let whole = len / LINE;
    for line in 0..whole {
        let (sum, to) = (sum.wrapping_add(line * LINE), to.wrapping_add(line * LINE));
        // SAFETY: LINE aligned elements lie at both.
        unsafe { round_some::<S, T, LINE>(sum.cast(), to.cast(), narrow) };
    }
    for at in whole * LINE..len {
        // SAFETY: one aligned element lies at both.
        unsafe { round_some::<S, T, 1>(sum.wrapping_add(at).cast(), to.wrapping_add(at).cast(), narrow) };
    }
}

/// # Safety
/// `N` aligned elements lie at `sum`, and as many writable ones at `to`.
#[inline(always)]
unsafe fn round_some<S: Copy, T: Copy, const N: usize>(
    sum: *const [S; N],
    to: *mut [T; N],
    narrow: impl Fn(S) -> T,
) {
    // SAFETY: the caller's promise.
    let sum = unsafe { sum.read() };
    // SAFETY: the caller's promise.
    unsafe { to.write(sum.map(narrow)) };
}

/// Asks for a line some way behind `from`, to be written. A hint: any address will do.
#[inline(always)]
fn ask_to_write(from: *const u8) {
    let line = from.wrapping_add(AHEAD_BYTES);
    // SAFETY: a prefetch reads and writes nothing and never faults.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!("prefetchw [{line}]", line = in(reg) line, options(nostack, preserves_flags, readonly));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!("prfm pstl1keep, [{line}]", line = in(reg) line, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = line;
}

#[cfg(test)]
mod tests;
