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

    /// `scratch[0..] = sum of inputs[elements]`, in the order of `inputs`; 4 bytes an element in the scratch. With
    /// `rewritten`, the inputs' own places will be written with the result.
    ///
    /// # Errors
    /// Elements outside their segment or not aligned, or a scratch that cannot be written. Nothing was written.
    pub fn stage<'a>(
        &self,
        lane: Lane,
        inputs: impl Iterator<Item = Tensor<'a>> + Clone,
        elements: &Range<usize>,
        scratch: Tensor<'_>,
        rewritten: bool,
    ) -> Result<(), AccessError> {
        for input in inputs.clone() {
            input.at(elements, lane.bytes())?;
        }
        let len = elements.len();
        let sum = scratch.at_writable(&(0..len), size_of::<f32>())?;
        for (index, input) in inputs.enumerate() {
            let from = input.at(elements, lane.bytes())?;
            let job = Job { lane, first: index == 0, rewritten };
            // SAFETY: `at` has shown that `len` aligned elements lie at `from` and at `sum`; the latter is writable.
            unsafe { self.add(job, from, sum, len) };
        }
        Ok(())
    }

    /// `outputs[elements] = scratch[0..]`.
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
            unsafe { self.round(lane, sum, to, len) };
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
    /// `len` aligned elements lie at `from`, and as many writable ones of 4 bytes at `sum`.
    unsafe fn add(self, job: Job, from: NonNull<u8>, sum: NonNull<u8>, len: usize) {
        match self.level {
            // SAFETY: the caller's promise; a value of this level exists only where the features were detected.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512::add(job, from, sum, len) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2::add(job, from, sum, len) },
            // SAFETY: the caller's promise.
            _ => unsafe { plain::add(job, from, sum, len) },
        }
    }

    /// # Safety
    /// `len` aligned elements of 4 bytes lie at `sum`, and as many writable ones of the lane at `to`.
    unsafe fn round(self, lane: Lane, sum: NonNull<u8>, to: NonNull<u8>, len: usize) {
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

            /// # Safety
            /// As [`SharedSums::add`].
            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn add(job: Job, from: NonNull<u8>, sum: NonNull<u8>, len: usize) {
                match job.lane {
                    // SAFETY: the caller's promise.
                    Lane::F32 => unsafe { add_loop::<f32, f32>(job, from.cast(), sum.cast(), len, |x| x, |a, b| a + b) },
                    // SAFETY: the caller's promise.
                    Lane::I32 => unsafe { add_loop::<i32, i32>(job, from.cast(), sum.cast(), len, |x| x, i32::wrapping_add) },
                    // SAFETY: the caller's promise.
                    Lane::Bf16 => unsafe { add_loop::<u16, f32>(job, from.cast(), sum.cast(), len, bf16::widen, |a, b| a + b) },
                }
            }

            /// # Safety
            /// As [`SharedSums::round`].
            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn round(lane: Lane, sum: NonNull<u8>, to: NonNull<u8>, len: usize) {
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
/// `len` aligned elements lie at `from`, and as many writable ones at `sum`.
#[inline(always)]
unsafe fn add_loop<T: Copy + Default, S: Copy + Default>(
    job: Job,
    from: NonNull<T>,
    sum: NonNull<S>,
    len: usize,
    widen: impl Fn(T) -> S + Copy,
    plus: impl Fn(S, S) -> S + Copy,
) {
    let mut done = 0;
    while done < len {
        let step = LINE.min(len - done);
        let (from, sum) = (from.as_ptr().wrapping_add(done), sum.as_ptr().wrapping_add(done));
        if job.rewritten {
            ask_to_write(from.cast());
        }
        let mut line = [S::default(); LINE];
        // A whole line has a length that the compiler knows.
        if step == LINE {
            // SAFETY: LINE elements lie at both.
            unsafe { add_line::<T, S, LINE>(job.first, from, sum, &mut line, LINE, widen, plus) };
        } else {
            // SAFETY: `step` elements lie at both.
            unsafe { add_line::<T, S, LINE>(job.first, from, sum, &mut line, step, widen, plus) };
        }
        done += step;
    }
}

/// # Safety
/// `step <= N` elements lie at `from` and at `sum`.
#[inline(always)]
unsafe fn add_line<T: Copy, S: Copy, const N: usize>(
    first: bool,
    from: *const T,
    sum: *mut S,
    line: &mut [S; N],
    step: usize,
    widen: impl Fn(T) -> S,
    plus: impl Fn(S, S) -> S,
) {
    for (at, value) in line.iter_mut().enumerate().take(step) {
        // SAFETY: `at < step`.
        *value = widen(unsafe { from.wrapping_add(at).read() });
    }
    if !first {
        for (at, value) in line.iter_mut().enumerate().take(step) {
            // SAFETY: `at < step`.
            *value = plus(unsafe { sum.wrapping_add(at).read() }, *value);
        }
    }
    for (at, value) in line.iter().enumerate().take(step) {
        // SAFETY: `at < step`, and the caller may write there.
        unsafe { sum.wrapping_add(at).write(*value) };
    }
}

/// # Safety
/// `len` aligned elements lie at `sum`, and as many writable ones at `to`.
#[inline(always)]
unsafe fn round_loop<S: Copy + Default, T: Copy>(
    sum: NonNull<S>,
    to: NonNull<T>,
    len: usize,
    narrow: impl Fn(S) -> T,
) {
    let mut done = 0;
    while done < len {
        let step = LINE.min(len - done);
        let mut line = [S::default(); LINE];
        for (at, value) in line.iter_mut().enumerate().take(step) {
            // SAFETY: `done + at < len`.
            *value = unsafe { sum.as_ptr().wrapping_add(done + at).read() };
        }
        for (at, value) in line.iter().enumerate().take(step) {
            // SAFETY: `done + at < len`, and the caller may write there.
            unsafe { to.as_ptr().wrapping_add(done + at).write(narrow(*value)) };
        }
        done += step;
    }
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
