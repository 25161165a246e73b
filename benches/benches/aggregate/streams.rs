//! Loops that move memory and do next to nothing with it, each compiled for what the machine has.

use plesio_cpu::{Cpu, Level};
use std::hint::black_box;

/// A way to move memory.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    /// One stream is read.
    Read,
    /// One is read, another written.
    Copy,
    /// Inputs are read in turn, a few lines of each, and one result is written.
    Turns {
        /// Past the caches.
        past: bool,
    },
}

impl Stream {
    pub(crate) const ALL: [Self; 4] =
        [Self::Read, Self::Copy, Self::Turns { past: false }, Self::Turns { past: true }];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "one stream read",
            Self::Copy => "a copy",
            Self::Turns { past: false } => "the same streams",
            Self::Turns { past: true } => "the same streams, results past the caches",
        }
    }
}

/// Words of a line of memory, and of a few lines.
const LINE: usize = 16;
const BLOCK: usize = 4 * LINE;
/// How far ahead lines are asked for, and how many inputs are read in turn, for runs of so many blocks: what was best
/// among 0 to 4096, 1 to 32 and 4 to 64.
const AHEAD_BYTES: usize = 256;
const TURNS: usize = 8;
const RUN_BLOCKS: usize = 64;

/// What a stream is written in: one word, or two.
pub(crate) trait Result: Copy + Default {
    fn of(word: u32) -> Self;
    fn word(self) -> u32;
}

impl Result for u32 {
    #[inline(always)]
    fn of(word: u32) -> Self {
        word
    }
    #[inline(always)]
    fn word(self) -> u32 {
        self
    }
}

impl Result for u64 {
    #[inline(always)]
    fn of(word: u32) -> Self {
        Self::from(word)
    }
    #[inline(always)]
    fn word(self) -> u32 {
        self as u32
    }
}

/// The exclusive or of the inputs, as far as they have whole blocks.
#[inline(always)]
fn turns<T: Result>(
    inputs: &[&[u32]],
    out: &mut [T],
    ask: impl Fn(*const u32),
    store: impl Fn(&mut [T], &[T]),
) {
    for (run, out) in out.chunks_mut(RUN_BLOCKS * BLOCK).enumerate() {
        let groups = inputs.len().div_ceil(TURNS);
        for (group, inputs) in inputs.chunks(TURNS).enumerate() {
            for (block, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
                let at = (run * RUN_BLOCKS + block) * BLOCK;
                let mut all = [0u32; BLOCK];
                if group > 0 {
                    all = out.map(T::word);
                }
                for input in inputs {
                    let words: &[u32; BLOCK] = input[at..].first_chunk().expect("equal lengths");
                    for line in words.chunks(LINE) {
                        ask(line.as_ptr().wrapping_byte_add(AHEAD_BYTES));
                    }
                    for (all, &word) in all.iter_mut().zip(words) {
                        *all ^= word;
                    }
                }
                let all = all.map(T::of);
                if group + 1 == groups { store(out, &all) } else { *out = all }
            }
        }
    }
}

/// The exclusive or of four lines at a time.
#[inline(always)]
fn read_words(words: &[u32]) -> [u32; BLOCK] {
    let mut all = [0; BLOCK];
    for words in words.as_chunks::<BLOCK>().0 {
        for (all, &word) in all.iter_mut().zip(words) {
            *all ^= word;
        }
    }
    all
}

/// Reads a stream.
pub(crate) fn read(cpu: Cpu, words: &[u32]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512(words: &[u32]) -> [u32; BLOCK] {
            read_words(words)
        }
        #[target_feature(enable = "avx2")]
        fn avx2(words: &[u32]) -> [u32; BLOCK] {
            read_words(words)
        }
        match cpu.level() {
            Level::Avx512 => {
                // SAFETY: a `Cpu` of this level exists only where the features were detected.
                black_box(unsafe { avx512(words) });
                return;
            }
            Level::Avx2 => {
                // SAFETY: as above.
                black_box(unsafe { avx2(words) });
                return;
            }
            _ => {}
        }
    }
    black_box(read_words(words));
}

/// Reads streams into one, whose results go past the caches if that is wanted and can be.
pub(crate) fn stream<T: Result>(cpu: Cpu, inputs: &[&[u32]], out: &mut [T], past: bool) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            __m128i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm_sfence, _mm_stream_si128,
        };

        fn ask(line: *const u32) {
            // SAFETY: a prefetch reads and writes nothing and never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
        }
        #[inline(always)]
        fn store_past<T>(out: &mut [T], values: &[T]) {
            let (to, from) = (out.as_mut_ptr().cast::<__m128i>(), values.as_ptr().cast::<__m128i>());
            assert!(to.is_aligned() && values.len() == out.len(), "results begin at a line");
            for at in 0..size_of_val(values) / size_of::<__m128i>() {
                // SAFETY: inside `values`, which are words.
                let value = unsafe { _mm_loadu_si128(from.wrapping_add(at)) };
                // SAFETY: inside `out`, and aligned; a fence follows.
                unsafe { _mm_stream_si128(to.wrapping_add(at), value) };
            }
        }
        #[inline(always)]
        fn either<T: Result>(inputs: &[&[u32]], out: &mut [T], past: bool) {
            if past {
                turns(inputs, out, ask, store_past);
                // SAFETY: every x86-64 has it.
                unsafe { _mm_sfence() };
            } else {
                turns(inputs, out, ask, |out, values| out.copy_from_slice(values));
            }
        }
        #[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512<T: Result>(inputs: &[&[u32]], out: &mut [T], past: bool) {
            either(inputs, out, past);
        }
        #[target_feature(enable = "avx2")]
        fn avx2<T: Result>(inputs: &[&[u32]], out: &mut [T], past: bool) {
            either(inputs, out, past);
        }
        match cpu.level() {
            // SAFETY: a `Cpu` of this level exists only where the features were detected.
            Level::Avx512 => return unsafe { avx512(inputs, out, past) },
            // SAFETY: as above.
            Level::Avx2 => return unsafe { avx2(inputs, out, past) },
            _ => {}
        }
    }
    turns(inputs, out, |_| (), |out, values| out.copy_from_slice(values));
}
