//! How long a call takes: many of them, set after set, in batches that are long beside a look at the clock.

use super::memory::Buffers;
use super::plan::{Plan, Role};
use crate::bench::figures::Spread;
use plesio_cpu::Cpu;
use std::hint::black_box;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// The median over batches of what a call of theirs took, in nanoseconds. The calls are made in turn for `length`,
/// and untimed for some of that before.
pub(super) fn time_ns<E>(
    calls: &mut [Box<dyn FnMut() -> Result<(), E> + '_>],
    length: Duration,
) -> Result<f64, E> {
    let mut next = 0;
    let mut batch = |count: usize| -> Result<Duration, E> {
        let begin = Instant::now();
        for _ in 0..count {
            calls[next]()?;
            next = (next + 1) % calls.len();
        }
        Ok(begin.elapsed())
    };
    let begin = Instant::now();
    let mut count = 1;
    while begin.elapsed() < length / WARM_SHARE {
        if batch(count)? < BATCH {
            count *= 2;
        }
    }
    let mut times_ns = Vec::new();
    let begin = Instant::now();
    while times_ns.is_empty() || begin.elapsed() < length {
        let time = batch(count)?;
        times_ns.push(time.as_nanos() as f64 / count as f64);
        if time < BATCH / 2 {
            // It was interrupted while it was tried.
            count *= 2;
        }
    }
    Ok(Spread::of(times_ns).map_or(f64::NAN, |spread| spread.median))
}

/// A walk; it fails where the system gives it no threads.
type Floor<'a> = Box<dyn FnMut() -> io::Result<()> + 'a>;

/// What walks the same streams and computes nothing, for every set.
pub(super) fn floors<'a>(cpu: Cpu, plan: &Plan, sets: Vec<Buffers<'a>>) -> Vec<Floor<'a>> {
    let floor = |mut set: Buffers<'a>| -> Floor<'a> {
        let mut streams = Streams::default();
        for buffer in &plan.buffers {
            match buffer.role {
                Role::Read => streams.reads.push(words(set.read())),
                Role::ReadTwice => {
                    let read = words(set.read());
                    streams.reads.extend([read, read]);
                }
                Role::Update => streams.updates.push(words_mut(set.write())),
                Role::Write => streams.writes.push(words_mut(set.write())),
            }
        }
        let mut parts = streams.split(if plan.moved_bytes() < THREADS_BYTES_MIN { 1 } else { cpu.threads() });
        Box::new(move || {
            let Some((own, others)) = parts.split_first_mut() else { return Ok(()) };
            thread::scope(|scope| {
                for part in others {
                    thread::Builder::new()
                        .name("floor".into())
                        .spawn_scoped(scope, move || part.walk(cpu))?;
                }
                own.walk(cpu);
                Ok(())
            })
        })
    };
    sets.into_iter().map(floor).collect()
}

/// What one thread walks.
#[derive(Default)]
struct Streams<'a> {
    reads: Vec<&'a [u32]>,
    updates: Vec<&'a mut [u32]>,
    writes: Vec<&'a mut [u32]>,
}

impl<'a> Streams<'a> {
    /// An equal share of every stream for each thread.
    fn split(mut self, threads: usize) -> Vec<Self> {
        let mut parts: Vec<Self> = Vec::new();
        for left in (1..=threads).rev() {
            let share = |len: usize| len.div_ceil(left);
            let read = |read: &mut &'a [u32]| read.split_off(..share(read.len())).unwrap_or_default();
            let write = |write: &mut &'a mut [u32]| {
                let share = share(write.len());
                write.split_off_mut(..share).unwrap_or_default()
            };
            parts.push(Self {
                reads: self.reads.iter_mut().map(read).collect(),
                updates: self.updates.iter_mut().map(write).collect(),
                writes: self.writes.iter_mut().map(write).collect(),
            });
        }
        parts
    }

    fn walk(&mut self, cpu: Cpu) {
        black_box(cpu.stream(black_box(0), &self.reads, &mut self.updates, &mut self.writes));
    }
}

/// Whole words; what is left over of a stream's last one is not missed.
fn words(bytes: &[u8]) -> &[u32] {
    bytemuck::cast_slice(&bytes[..bytes.len() / 4 * 4])
}

fn words_mut(bytes: &mut [u8]) -> &mut [u32] {
    let whole = bytes.len() / 4 * 4;
    bytemuck::cast_slice_mut(&mut bytes[..whole])
}

/// Long beside a look at the clock.
const BATCH: Duration = Duration::from_micros(50);
const WARM_SHARE: u32 = 4;
/// Bytes of a call from which on the kernels use several threads: the floor does as they do.
const THREADS_BYTES_MIN: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::kernels::list::Call;
    use plesio_kernels::KernelError;

    #[test]
    fn calls_are_made_in_turn_and_an_error_ends_it() {
        let (mut one, mut two) = (0_u64, 0_u64);
        let mut calls: Vec<Call<'_>> = vec![
            Box::new(|| {
                one += 1;
                Ok(())
            }),
            Box::new(|| {
                two += 1;
                Ok(())
            }),
        ];
        let time = time_ns(&mut calls, Duration::from_millis(2)).expect("they work");
        drop(calls);
        assert!(time > 0.0 && one > 100 && one.abs_diff(two) <= 1, "{time} {one} {two}");
        let error = KernelError::Scale { exponent: 99 };
        assert_eq!(time_ns(&mut [Box::new(|| Err(error))], Duration::ZERO), Err(error));
    }

    #[test]
    fn threads_share_every_stream() {
        for threads in 1..6 {
            let (read, mut update, mut write) = ([1; 10], [2; 7], [3; 1]);
            let streams =
                Streams { reads: vec![&read], updates: vec![&mut update], writes: vec![&mut write] };
            let parts = streams.split(threads);
            assert_eq!(parts.len(), threads);
            let sum = |of: &dyn Fn(&Streams<'_>) -> usize| parts.iter().map(of).sum::<usize>();
            assert_eq!(sum(&|part| part.reads[0].len()), 10);
            assert_eq!(sum(&|part| part.updates[0].len()), 7);
            assert_eq!(sum(&|part| part.writes[0].len()), 1);
        }
    }
}
