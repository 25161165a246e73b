//! The adapter's forward pass against that of `ruvector-sona`: nanoseconds for one vector of a batch of 32, rank 2,
//! `y += s B (A x)` from and into the same buffers, on one thread.
//!
//! Not a criterion group: what counts is the ratio, so all contenders take turns within one run, and a machine that
//! slows down slows them all. Each line has the median turn and the quartiles.
//!
//! Vectors and our factors begin at a cache line, as they do in an arena; the rival keeps its factors itself.
//!
//! The rival is as fast as its build allows, ours chooses its instructions when it runs. Both of its builds are to be
//! measured, each in a target folder of its own:
//!
//! ```text
//! cargo bench -p plesio-benches --bench lora
//! RUSTFLAGS=-Ctarget-cpu=native CARGO_TARGET_DIR=target/native cargo bench -p plesio-benches --bench lora
//! ```

use plesio_benches::{Aligned, quartiles};
use plesio_cpu::{Cpu, Level};
use plesio_kernels::{Device, Lora};
use ruvector_sona::lora::MicroLoRA;
use std::hint::black_box;
use std::time::Instant;

/// Vectors of a batch: the rival's "optimal" one.
const ROWS: usize = 32;
/// The rival's largest rank.
const RANK: usize = 2;
const WIDTHS: [usize; 2] = [256, 4096];
/// Turns of each contender, and how long one lasts.
const TURNS: usize = 301;
const TURN_NS: f64 = 1e6;

/// Adds the adapter's part of every x to its y.
type Forward<'a> = Box<dyn FnMut(&[f32], &mut [f32]) + 'a>;

/// What takes turns.
struct Contender<'a> {
    name: String,
    forward: Forward<'a>,
    turn_ns: Vec<f64>, // of one vector
}

fn main() {
    // Cargo's own arguments (`--bench`) change nothing here.
    for d in WIDTHS {
        measure(d);
    }
}

fn measure(d: usize) {
    let (a, b) = (values(RANK * d, 1), values(RANK * d, 2));
    let (x, start) = (values(ROWS * d, 3), values(ROWS * d, 4));
    let scale = 0.7;
    let lora = Lora::new(&a, &b, RANK, d, d, scale).expect("the shapes fit");
    let mut theirs = MicroLoRA::new(d, RANK);
    theirs.set_weights(a.to_vec(), b.to_vec()).expect("the shapes fit");
    theirs.set_scale(scale);

    let mut contenders = Vec::new();
    for level in Level::ALL.into_iter().rev() {
        let Some(cpu) = Cpu::with_level(level) else { continue };
        let mut h = vec![0.0; ROWS * RANK];
        let forward = move |x: &[f32], y: &mut [f32]| {
            cpu.lora_forward(lora, x, &mut h, y).expect("the lengths fit");
        };
        contenders.push(Contender::new(cpu.name().to_string(), forward));
    }
    contenders.push(Contender::new("ruvector-sona".to_string(), move |x, y| {
        for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
            theirs.forward(x, y);
        }
    }));
    same(&mut contenders, &x, &start);

    let mut y = values(ROWS * d, 4);
    let batches: Vec<usize> =
        contenders.iter_mut().map(|contender| contender.calibrate(&x, &mut y)).collect();
    for _ in 0..TURNS {
        for (contender, &batches) in contenders.iter_mut().zip(&batches) {
            y.copy_from_slice(&start);
            contender.turn(&x, &mut y, batches);
        }
    }
    println!(
        "d = {d}, rank {RANK}, {ROWS} vectors, one thread: ns per vector, median (quartiles) of {TURNS} turns"
    );
    let ours = quartiles(&mut contenders[0].turn_ns)[1];
    for contender in &mut contenders {
        let [first, median, third] = quartiles(&mut contender.turn_ns);
        let ratio = median / ours;
        println!("  {:<14} {median:9.1} ({first:.1} {third:.1})  {ratio:6.1} x", contender.name);
    }
}

impl<'a> Contender<'a> {
    fn new(name: String, forward: impl FnMut(&[f32], &mut [f32]) + 'a) -> Self {
        Self { name, forward: Box::new(forward), turn_ns: Vec::new() }
    }

    /// Batches that fill a turn.
    fn calibrate(&mut self, x: &[f32], y: &mut [f32]) -> usize {
        let mut batches = 1;
        loop {
            self.turn(x, y, batches);
            let taken_ns = self.turn_ns.pop().expect("a turn was taken") * (batches * ROWS) as f64;
            if taken_ns >= TURN_NS / 2.0 {
                return ((batches as f64 * TURN_NS / taken_ns) as usize).max(1);
            }
            batches *= 2;
        }
    }

    fn turn(&mut self, x: &[f32], y: &mut [f32], batches: usize) {
        let begin = Instant::now();
        for _ in 0..batches {
            (self.forward)(black_box(x), black_box(&mut *y));
        }
        self.turn_ns.push(begin.elapsed().as_nanos() as f64 / (batches * ROWS) as f64);
    }
}

/// Asserts that all contenders compute the same: levels of ours bit for bit, the rival but for the rounding.
fn same(contenders: &mut [Contender<'_>], x: &[f32], start: &[f32]) {
    let mut results = contenders.iter_mut().map(|contender| {
        let mut y = start.to_vec();
        (contender.forward)(x, &mut y);
        (contender.name.clone(), y)
    });
    let (_, ours) = results.next().expect("some level is there");
    for (name, theirs) in results {
        let exact = name != "ruvector-sona";
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let equal =
                if exact { ours == theirs } else { (ours - theirs).abs() <= 1e-4 * (1.0 + ours.abs()) };
            assert!(equal, "{name}: {theirs} where ours is {ours}");
        }
    }
}

/// Reproducible values between -1 and 1.
fn values(len: usize, seed: u32) -> Aligned<f32> {
    Aligned::new(len, |e| {
        let bits = (2 * seed + 1).wrapping_mul(e as u32 + 1).wrapping_mul(2_654_435_761) >> 8;
        bits as f32 / 8_388_608.0 - 1.0
    })
}
