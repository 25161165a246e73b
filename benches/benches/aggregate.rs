//! Aggregation of 8 and 32 contributions on one core, beside the fastest that the machine moves memory at all. All sets
//! are larger than the caches: 256 MiB of inputs.
//!
//! Not a criterion group: what counts is the share of the streaming rate, and that changes from second to second, so each
//! kernel runs between two runs of its ceiling. Each line has the median round and the quartiles.
//!
//! The ceiling is the fastest of several loops that do next to nothing: one stream read, a copy, and as many streams as
//! the kernel has, of the same widths, read in turn into one that is written, in the caches and past them. All count
//! what any version must move: every input read once, every result written once.
//!
//! All of the CPU's bounds, beside `ruvector-sona` in its default build and, in a target folder of its own, in one for this
//! CPU, and beside numpy:
//!
//! ```text
//! taskset -c 1 sh -c 'cargo bench -p plesio-benches --bench aggregate --bench lora &&
//!     RUSTFLAGS=-Ctarget-cpu=native CARGO_TARGET_DIR=target/native cargo bench -p plesio-benches --bench lora'
//! taskset -c 1 plesio bench kernels --device cpu --threads 1 --vs numpy
//! ```

use plesio_benches::{Aligned, quartiles};
use plesio_cpu::Cpu;
use plesio_kernels::{Device, Robust, bf16};
use std::hint::black_box;
use std::time::Instant;

#[path = "aggregate/streams.rs"]
mod streams;

use streams::{Stream, stream};

/// Bytes of all inputs of a call.
const INPUT_BYTES: usize = 256 << 20;
/// Rounds of each kernel, and of those among which its ceiling is chosen.
const ROUNDS: usize = 21;
const TRIALS: usize = 5;

/// What is measured.
#[derive(Clone, Copy)]
enum Kernel {
    SlotSum,
    WeightedSum,
    WeightedSumBf16,
    TrimmedMean,
    Median,
}

impl Kernel {
    const ALL: [Self; 5] =
        [Self::SlotSum, Self::WeightedSum, Self::WeightedSumBf16, Self::TrimmedMean, Self::Median];

    fn name(self) -> &'static str {
        match self {
            Self::SlotSum => "slot sum",
            Self::WeightedSum => "weighted sum",
            Self::WeightedSumBf16 => "weighted sum bf16",
            Self::TrimmedMean => "trimmed mean",
            Self::Median => "median",
        }
    }

    /// Bytes of an element of an input and of a result.
    fn element_bytes(self) -> (usize, usize) {
        match self {
            Self::SlotSum => (4, 8),
            Self::WeightedSumBf16 => (2, 4),
            _ => (4, 4),
        }
    }
}

/// Inputs of one number of contributions, and room for the results.
struct Set {
    slots: Vec<Aligned<i32>>,
    floats: Vec<Aligned<f32>>,
    halves: Vec<Aligned<u16>>,
    out: Aligned<f32>,
    sum: Aligned<i64>,
    // The ceilings': of all inputs at once, and of results of either width.
    words: Aligned<u32>,
    copy: Aligned<u32>,
    results: Aligned<u64>,
}

fn views<T>(inputs: &[Aligned<T>]) -> Vec<&[T]> {
    inputs.iter().map(|input| &input[..]).collect()
}

impl Set {
    fn new(count: usize) -> Self {
        let len = INPUT_BYTES / 4 / count;
        let value = |k: usize, e: usize| ((e * 31 + k * 7) % 1009) as i32 - 500;
        let floats = |k| Aligned::new(len, |e| value(k, e) as f32);
        let halves = |k| Aligned::new(len, |e| bf16::narrow(value(k, e) as f32));
        Self {
            slots: (0..count).map(|k| Aligned::new(len, |e| value(k, e))).collect(),
            floats: (0..count).map(floats).collect(),
            halves: (0..count).map(halves).collect(),
            out: Aligned::new(len, |_| 0.0),
            sum: Aligned::new(len, |_| 0),
            words: Aligned::new(count * len, |e| e as u32),
            copy: Aligned::new(count * len, |_| 0),
            results: Aligned::new(len, |_| 0),
        }
    }

    fn count(&self) -> usize {
        self.slots.len()
    }

    /// Gigabytes a second of a kernel.
    fn kernel(&mut self, cpu: Cpu, kernel: Kernel) -> f64 {
        let (input, result) = kernel.element_bytes();
        let moved = (self.count() * input + result) * self.out.len();
        let count = self.count();
        let weights = vec![1.0 / count as f32; count];
        let trimmed = Robust::TrimmedMean { trim: count / 4 };
        let why = "equal lengths";
        rate(moved, || match black_box(kernel) {
            Kernel::SlotSum => {
                cpu.slot_sum(&vec![1 << 20; count], &views(&self.slots), &mut self.sum).expect(why)
            }
            Kernel::WeightedSum => {
                let norm = cpu.weighted_sum(&weights, &views(&self.floats), &mut self.out);
                black_box(norm.expect(why));
            }
            Kernel::WeightedSumBf16 => {
                let norm = cpu.weighted_sum_bf16(&weights, &views(&self.halves), &mut self.out);
                black_box(norm.expect(why));
            }
            Kernel::TrimmedMean => cpu.robust(trimmed, &views(&self.floats), &mut self.out).expect(why),
            Kernel::Median => cpu.robust(Robust::Median, &views(&self.floats), &mut self.out).expect(why),
        })
    }

    /// That of a ceiling, with the kernel's streams.
    fn ceiling(&mut self, cpu: Cpu, kernel: Kernel, how: Stream) -> f64 {
        let (input, result) = kernel.element_bytes();
        let bytes = self.words.len() * input; // 4 of each word, or 2
        match how {
            Stream::Read => rate(bytes, || streams::read(cpu, &self.words[..bytes / 4])),
            Stream::Copy => rate(bytes, || self.copy[..bytes / 8].copy_from_slice(&self.words[..bytes / 8])),
            Stream::Turns { past } => {
                let words = bytes / 4 / self.count();
                let inputs: Vec<&[u32]> = self.words[..bytes / 4].chunks(words).collect();
                // A result has twice the bytes of an input's element, or as many.
                if result == 2 * input {
                    let moved = bytes + 8 * words;
                    rate(moved, || stream(cpu, &inputs, &mut self.results[..words], past))
                } else {
                    let moved = bytes + 4 * words;
                    rate(moved, || stream(cpu, &inputs, &mut self.copy[..words], past))
                }
            }
        }
    }

    /// The fastest ceiling.
    fn fastest(&mut self, cpu: Cpu, kernel: Kernel) -> Stream {
        let median = |how: Stream| {
            let mut rates: Vec<f64> = (0..TRIALS).map(|_| self.ceiling(cpu, kernel, how)).collect();
            quartiles(&mut rates)[1]
        };
        let rates = Stream::ALL.map(median);
        let best = (0..rates.len()).max_by(|&a, &b| rates[a].total_cmp(&rates[b]));
        Stream::ALL[best.expect("there are some")]
    }
}

/// Gigabytes a second of a call that moves so many bytes.
fn rate(moved_bytes: usize, call: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    call();
    moved_bytes as f64 / begin.elapsed().as_secs_f64() / 1e9
}

/// Median and quartiles, as text.
fn spread(values: &mut [f64], digits: usize) -> String {
    let [first, median, third] = quartiles(values);
    format!("{median:.digits$} ({first:.digits$} {third:.digits$})")
}

fn main() {
    let cpu = Cpu::detect().with_threads(1);
    println!(
        "{} on one core: GB/s and share of the streaming rate, median (quartiles) of {ROUNDS}",
        cpu.name()
    );
    for count in [8, 32] {
        let mut set = Set::new(count);
        for kernel in Kernel::ALL {
            let how = set.fastest(cpu, kernel);
            let (mut rates, mut ceilings, mut shares) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let before = set.ceiling(cpu, kernel, how);
                let own = set.kernel(cpu, kernel);
                // Whatever runs right behind a rule that sorts is slower by a fifth for some milliseconds.
                set.ceiling(cpu, kernel, how);
                let after = set.ceiling(cpu, kernel, how);
                rates.push(own);
                ceilings.push((before + after) / 2.0);
                shares.push(2.0 * own / (before + after));
            }
            let [rates, ceilings] = [&mut rates, &mut ceilings].map(|rates| spread(rates, 1));
            let (name, shares, how) = (kernel.name(), spread(&mut shares, 2), how.name());
            println!("  {name:18} k{count:<3} {rates:18} of {ceilings:18} {shares:18} ceiling: {how}");
        }
    }
}
