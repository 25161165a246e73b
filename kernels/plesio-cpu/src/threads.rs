//! Large calls on several threads: ranges of elements, each done by the kernel as one thread would.
//!
//! Knows: how the arguments of a call are cut into ranges and its outcome is put together. Does not know: what a
//! kernel computes. Invariant: results and errors are those of one thread, whatever the number of threads; ranges
//! begin where every block does that a kernel works in, so no block is ever cut.
//!
//! Ranges are more than threads, and whoever is free takes the next one: a core that is busy with other work does
//! less of them. Where the system gives no more threads, those that are there do all of it.
//!
//! A quantisation of slots is not here: it must have looked at every element before it writes the first.

use crate::dispatch::{Cpu, one};
use plesio_kernels::arithmetic::Store;
use plesio_kernels::norm::{CHUNK, check_norms, fold_partial};
use plesio_kernels::q8::{self, Q8};
use plesio_kernels::{
    AdamW, AdamWState, Adapter, Codec, Coding, Element, Encoded, KernelError, Lora, Merged, Nesterov, Robust,
    Scale, vote,
};
use std::borrow::Cow;
use std::num::NonZero;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

/// Most threads of a call.
pub(crate) const THREADS_MAX: usize = 256;

/// Where ranges begin: a multiple of a chunk of partial sums, a codec's block, a word of signs, a slot's block and one of q8.
const GRAIN: usize = 1024;
const _: () = assert!(
    GRAIN.is_multiple_of(CHUNK)
        && GRAIN.is_multiple_of(Codec::GRAIN_ELEMENTS)
        && GRAIN.is_multiple_of(vote::WORD)
        && GRAIN.is_multiple_of(q8::BLOCK)
);

/// Bytes of arguments from which on a call is cut.
const BYTES_MIN: usize = 16 << 20;
/// Bytes of a range at least.
const RANGE_BYTES_MIN: usize = 1 << 20;
/// Bytes of results from which on they go past the caches, where little of them would be found again.
const PAST_BYTES_MIN: usize = 8 << 20;
/// Ranges for each thread.
const RANGES: usize = 4;

/// Cores that the process may use, asked for once.
pub(crate) fn available() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX))
}

/// An argument of which a kernel can be given the elements of a range.
trait Part: Sized + Send {
    /// Whether it is that of `len` elements.
    fn fits(&self, len: usize) -> bool;
    /// What is read or written, in bytes.
    fn bytes(&self) -> usize;
    /// Takes the first `count` elements off, a multiple of what ranges begin at.
    fn take(&mut self, count: usize) -> Self;
}

impl<T: Sync> Part for &[T] {
    fn fits(&self, len: usize) -> bool {
        self.len() == len
    }
    fn bytes(&self) -> usize {
        size_of_val(*self)
    }
    fn take(&mut self, count: usize) -> Self {
        self.split_off(..count).expect("it fits")
    }
}

impl<T: Send> Part for &mut [T] {
    fn fits(&self, len: usize) -> bool {
        self.len() == len
    }
    fn bytes(&self) -> usize {
        size_of_val(*self)
    }
    fn take(&mut self, count: usize) -> Self {
        self.split_off_mut(..count).expect("it fits")
    }
}

impl<P: Part> Part for Option<P> {
    fn fits(&self, len: usize) -> bool {
        self.as_ref().is_none_or(|part| part.fits(len))
    }
    fn bytes(&self) -> usize {
        self.as_ref().map_or(0, P::bytes)
    }
    fn take(&mut self, count: usize) -> Self {
        self.as_mut().map(|part| part.take(count))
    }
}

impl Part for AdamWState<'_> {
    fn fits(&self, len: usize) -> bool {
        self.mean.len() == len && self.variance.len() == len
    }
    fn bytes(&self) -> usize {
        size_of_val(self.mean) + size_of_val(self.variance)
    }
    fn take(&mut self, count: usize) -> Self {
        Self { mean: self.mean.take(count), variance: self.variance.take(count), step: self.step }
    }
}

/// Where in the tensor a range begins: part of what stochastic rounding is derived from. One that begins past the last
/// number there is cannot be said: then the call is not cut.
impl Part for Coding {
    fn fits(&self, len: usize) -> bool {
        self.first_element.checked_add(len as u64).is_some()
    }
    fn bytes(&self) -> usize {
        0
    }
    fn take(&mut self, count: usize) -> Self {
        let head = *self;
        *self = self.at(self.first_element + count as u64);
        head
    }
}

/// How many items of a slice the first elements take.
#[derive(Clone, Copy)]
enum Unit {
    Element,
    /// So many elements share one.
    Shared(usize),
    /// So many to each element, which is a row.
    Row(usize),
    Coded(Codec),
}

impl Unit {
    fn items(self, elements: usize) -> usize {
        match self {
            Self::Element => elements,
            Self::Shared(by) => elements.div_ceil(by),
            Self::Row(width) => elements * width,
            Self::Coded(codec) => codec.encoded_bytes(elements),
        }
    }
}

/// A slice whose items are not elements.
struct By<S>(Unit, S);

impl<S: Part> Part for By<S> {
    fn fits(&self, len: usize) -> bool {
        self.1.fits(self.0.items(len))
    }
    fn bytes(&self) -> usize {
        self.1.bytes()
    }
    fn take(&mut self, count: usize) -> Self {
        Self(self.0, self.1.take(self.0.items(count)))
    }
}

/// Slices of equal length, of which ranges are taken only where they are used.
struct List<'a, T> {
    slices: &'a [&'a [T]],
    unit: Unit,
    range: Option<Range<usize>>, // of items; none as long as nothing was taken
}

impl<'a, T: Sync> List<'a, T> {
    fn of(slices: &'a [&'a [T]]) -> Self {
        Self::by(Unit::Element, slices)
    }

    fn by(unit: Unit, slices: &'a [&'a [T]]) -> Self {
        Self { slices, unit, range: None }
    }

    fn views(&self) -> Cow<'a, [&'a [T]]> {
        match &self.range {
            None => Cow::Borrowed(self.slices),
            Some(range) => self.slices.iter().map(|slice| &slice[range.clone()]).collect(),
        }
    }
}

impl<T: Sync> Part for List<'_, T> {
    fn fits(&self, len: usize) -> bool {
        self.slices.iter().all(|slice| slice.len() == self.unit.items(len))
    }
    fn bytes(&self) -> usize {
        self.slices.iter().map(|slice| size_of_val(*slice)).sum()
    }
    fn take(&mut self, count: usize) -> Self {
        let whole = self.range.clone().unwrap_or(0..self.slices.first().map_or(0, |slice| slice.len()));
        let middle = whole.start + self.unit.items(count);
        self.range = Some(middle..whole.end);
        Self { slices: self.slices, unit: self.unit, range: Some(whole.start..middle) }
    }
}

/// Coded slices of equal length.
struct Q8s<'a>(Cow<'a, [Q8<'a>]>);

impl Part for Q8<'_> {
    fn fits(&self, len: usize) -> bool {
        self.len() == len
    }
    fn bytes(&self) -> usize {
        size_of_val(self.codes()) + size_of_val(self.scales())
    }
    fn take(&mut self, count: usize) -> Self {
        let (head, tail) = self.split_at(count);
        *self = tail;
        head
    }
}

impl Part for Q8s<'_> {
    fn fits(&self, len: usize) -> bool {
        self.0.iter().all(|coded| coded.fits(len))
    }
    fn bytes(&self) -> usize {
        self.0.iter().map(Part::bytes).sum()
    }
    fn take(&mut self, count: usize) -> Self {
        let cut = self.0.iter().map(|coded| coded.split_at(count));
        let (heads, tails): (Vec<_>, Vec<_>) = cut.unzip();
        self.0 = Cow::Owned(tails);
        Self(Cow::Owned(heads))
    }
}

/// Several arguments, cut at the same places.
macro_rules! parts {
    ($($name:ident $index:tt),+) => {
        impl<$($name: Part),+> Part for ($($name,)+) {
            fn fits(&self, len: usize) -> bool {
                $(self.$index.fits(len))&&+
            }
            fn bytes(&self) -> usize {
                0 $(+ self.$index.bytes())+
            }
            fn take(&mut self, count: usize) -> Self {
                ($(self.$index.take(count),)+)
            }
        }
    };
}
parts!(A 0, B 1);
parts!(A 0, B 1, C 2);
parts!(A 0, B 1, C 2, D 3);

/// What a call came to, as far as it has come.
trait Outcome: Send {
    /// With that of the next range, which begins at element `first`.
    fn and(self, first: usize, next: Self) -> Self;
}

impl Outcome for () {
    fn and(self, _: usize, (): ()) {}
}

impl Outcome for Encoded {
    fn and(self, _: usize, next: Self) -> Self {
        Self { finite: self.finite && next.finite }
    }
}

impl Outcome for Merged {
    fn and(self, _: usize, next: Self) -> Self {
        Self { excess_elements: self.excess_elements + next.excess_elements }
    }
}

/// The first error stands, with the element's place in the whole.
impl<T: Outcome> Outcome for Result<T, KernelError> {
    fn and(self, first: usize, next: Self) -> Self {
        let done = self?;
        match next {
            Ok(next) => Ok(done.and(first, next)),
            Err(KernelError::Overflow { element }) => Err(KernelError::Overflow { element: first + element }),
            Err(other) => Err(other),
        }
    }
}

/// Where the results of a whole call go.
fn store<T>(results: &[T]) -> Store {
    if size_of_val(results) < PAST_BYTES_MIN { Store::Cached } else { Store::Past }
}

/// Runs a kernel over `len` elements: on the calling thread where the call is small or the arguments do not fit each
/// other, so that the kernel says what is wrong with them; else in ranges.
fn split<P: Part, R: Outcome>(cpu: Cpu, len: usize, parts: P, kernel: impl Fn(P) -> R + Sync) -> R {
    split_by(cpu, len, GRAIN, parts, kernel)
}

/// The same with ranges that begin at multiples of `grain`.
fn split_by<P: Part, R: Outcome>(
    cpu: Cpu,
    len: usize,
    grain: usize,
    mut parts: P,
    kernel: impl Fn(P) -> R + Sync,
) -> R {
    let bytes = parts.bytes();
    if cpu.threads() == 1 || bytes < BYTES_MIN || !parts.fits(len) {
        return kernel(parts);
    }
    let wanted = (bytes / RANGE_BYTES_MIN).min(cpu.threads() * RANGES);
    let range = len.div_ceil(wanted).next_multiple_of(grain);
    let mut ranges = Vec::with_capacity(wanted);
    let mut first = 0;
    while len - first > range {
        ranges.push((first, parts.take(range)));
        first += range;
    }
    ranges.push((first, parts));
    let helpers = cpu.threads().min(ranges.len()) - 1;
    let queue = Mutex::new(ranges.into_iter());
    let work = || {
        let mut done = Vec::new();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((first, part)) = next else { return done };
            done.push((first, kernel(part)));
        }
    };
    let mut done = thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().name("plesio-cpu".into()).spawn_scoped(scope, work).ok();
        let threads: Vec<_> = (0..helpers).map_while(spawn).collect();
        let mut done = work();
        for thread in threads {
            done.extend(thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(first, _)| *first);
    let outcomes = done.into_iter().reduce(|(_, so_far), (first, next)| (first, so_far.and(first, next)));
    outcomes.expect("there is a range").1
}

pub(crate) fn adamw(
    cpu: Cpu,
    settings: AdamW,
    state: AdamWState<'_>,
    gradient_scale: f32,
    gradient: &[f32],
    params: &mut [f32],
) {
    split(cpu, params.len(), (state, gradient, params), |(state, gradient, params)| {
        one::adamw(cpu, settings, state, gradient_scale, gradient, params);
    });
}

pub(crate) fn dequantise(cpu: Cpu, slot: &[i32], scale: Scale, out: &mut [f32]) -> Result<(), KernelError> {
    split(cpu, out.len(), (slot, out), |(slot, out)| one::dequantise(cpu, slot, scale, out))
}

pub(crate) fn slot_sum(
    cpu: Cpu,
    weights: &[u32],
    slots: &[&[i32]],
    sum: &mut [i64],
) -> Result<(), KernelError> {
    let store = store(sum);
    split(cpu, sum.len(), (List::of(slots), sum), |(slots, sum)| {
        one::slot_sum(cpu, weights, &slots.views(), sum, store)
    })
}

pub(crate) fn apply(cpu: Cpu, master: &mut [i64], sum: &[i64]) -> Result<(), KernelError> {
    split(cpu, master.len(), (master, sum), |(master, sum)| one::apply(cpu, master, sum))
}

pub(crate) fn apply_nesterov(
    cpu: Cpu,
    factors: Nesterov,
    master: &mut [i64],
    momentum: &mut [i64],
    sum: &[i64],
) -> Result<(), KernelError> {
    split(cpu, master.len(), (master, momentum, sum), |(master, momentum, sum)| {
        one::apply_nesterov(cpu, factors, master, momentum, sum)
    })
}

pub(crate) fn commit(
    cpu: Cpu,
    weights: &[u32],
    slots: &[&[i32]],
    master: &mut [i64],
) -> Result<(), KernelError> {
    split(cpu, master.len(), (List::of(slots), master), |(slots, master)| {
        one::commit(cpu, weights, &slots.views(), master)
    })
}

pub(crate) fn to_float(cpu: Cpu, master: &[i64], scale: Scale, out: &mut [f32]) -> Result<(), KernelError> {
    split(cpu, out.len(), (master, out), |(master, out)| one::to_float(cpu, master, scale, out))
}

pub(crate) fn merge(
    cpu: Cpu,
    into: &mut [i32],
    from: &[i32],
    scale: Scale,
    residue: &mut [f32],
) -> Result<Merged, KernelError> {
    split(cpu, into.len(), (into, from, residue), |(into, from, residue)| {
        one::merge(cpu, into, from, scale, residue)
    })
}

pub(crate) fn encode(
    cpu: Cpu,
    coding: Coding,
    input: &[f32],
    residue: Option<&mut [f32]>,
    out: &mut [u8],
) -> Result<Encoded, KernelError> {
    let out = By(Unit::Coded(coding.codec), out);
    split(cpu, input.len(), (coding, input, residue, out), |(coding, input, residue, out)| {
        one::encode(cpu, coding, input, residue, out.1)
    })
}

pub(crate) fn decode(cpu: Cpu, codec: Codec, codes: &[u8], out: &mut [f32]) -> Result<(), KernelError> {
    let codes = By(Unit::Coded(codec), codes);
    split(cpu, out.len(), (codes, out), |(codes, out)| one::decode(cpu, codec, codes.1, out))
}

pub(crate) fn decode_add(cpu: Cpu, codec: Codec, codes: &[u8], sum: &mut [f32]) -> Result<(), KernelError> {
    let codes = By(Unit::Coded(codec), codes);
    split(cpu, sum.len(), (codes, sum), |(codes, sum)| one::decode_add(cpu, codec, codes.1, sum))
}

pub(crate) fn encode_slot(cpu: Cpu, coding: Coding, slot: &[i32], out: &mut [u8]) -> Result<(), KernelError> {
    let out = By(Unit::Coded(coding.codec), out);
    split(cpu, slot.len(), (coding, slot, out), |(coding, slot, out)| {
        one::encode_slot(cpu, coding, slot, out.1)
    })
}

pub(crate) fn decode_slot(cpu: Cpu, codec: Codec, codes: &[u8], slot: &mut [i32]) -> Result<(), KernelError> {
    let codes = By(Unit::Coded(codec), codes);
    split(cpu, slot.len(), (codes, slot), |(codes, slot)| one::decode_slot(cpu, codec, codes.1, slot))
}

pub(crate) fn coded_sum(
    cpu: Cpu,
    codec: Codec,
    weights: &[u32],
    slots: &[&[u8]],
    sum: &mut [i64],
) -> Result<(), KernelError> {
    split(cpu, sum.len(), (List::by(Unit::Coded(codec), slots), sum), |(slots, sum)| {
        one::coded_sum(cpu, codec, weights, &slots.views(), sum)
    })
}

pub(crate) fn robust(cpu: Cpu, rule: Robust, inputs: &[&[f32]], out: &mut [f32]) -> Result<(), KernelError> {
    let store = store(out);
    split(cpu, out.len(), (List::of(inputs), out), |(inputs, out)| {
        one::robust(cpu, rule, &inputs.views(), out, store)
    })
}

pub(crate) fn sign_pack(cpu: Cpu, x: &[f32], words: &mut [u32]) -> Result<(), KernelError> {
    let words = By(Unit::Shared(vote::WORD), words);
    split(cpu, x.len(), (x, words), |(x, words)| one::sign_pack(cpu, x, words.1))
}

pub(crate) fn sign_vote(cpu: Cpu, votes: &[&[u32]], out: &mut [u32]) -> Result<(), KernelError> {
    split(cpu, out.len(), (List::of(votes), out), |(votes, out)| one::sign_vote(cpu, &votes.views(), out))
}

/// Rows of a batch, which have nothing to do with each other: what their kernels take at once, and more.
const GRAIN_ROWS: usize = 32;

/// The rows of x, h and y of a low-rank layer.
fn split_rows<E: Element + Send + Sync>(
    cpu: Cpu,
    lora: Lora<'_, E>,
    (x, h, y): (&[E], &mut [f32], &mut [E]),
    kernel: impl Fn(&[E], &mut [f32], &mut [E]) -> Result<(), KernelError> + Sync,
) -> Result<(), KernelError> {
    let rows = y.len() / lora.d_out();
    let parts =
        (By(Unit::Row(lora.d_in()), x), By(Unit::Row(lora.rank()), h), By(Unit::Row(lora.d_out()), y));
    split_by(cpu, rows, GRAIN_ROWS, parts, |(x, h, y)| kernel(x.1, h.1, y.1))
}

pub(crate) fn lora_forward(
    cpu: Cpu,
    lora: Lora<'_>,
    x: &[f32],
    h: &mut [f32],
    y: &mut [f32],
) -> Result<(), KernelError> {
    split_rows(cpu, lora, (x, h, y), |x, h, y| one::lora_forward(cpu, lora, x, h, y))
}

pub(crate) fn lora_forward_bf16(
    cpu: Cpu,
    adapter: Adapter<'_>,
    x: &[u16],
    h: &mut [f32],
    y: &mut [u16],
) -> Result<(), KernelError> {
    split_rows(cpu, adapter, (x, h, y), |x, h, y| one::lora_forward_bf16(cpu, adapter, x, h, y))
}

/// Sums that also have a square norm: each range leaves its partial sums, and they are folded in the order of one
/// thread.
fn with_norm<P: Part>(
    cpu: Cpu,
    len: usize,
    parts: P,
    kernel: impl Fn(P, &mut [f32]) -> Result<(), KernelError> + Sync,
) -> Result<f64, KernelError> {
    let mut partials = vec![0.0; len.div_ceil(CHUNK)];
    let by_chunk = By(Unit::Shared(CHUNK), &mut partials[..]);
    split(cpu, len, (parts, by_chunk), |(parts, partials)| kernel(parts, partials.1))?;
    Ok(fold_partial(&partials))
}

pub(crate) fn weighted_sum(
    cpu: Cpu,
    weights: &[f32],
    inputs: &[&[f32]],
    out: &mut [f32],
) -> Result<f64, KernelError> {
    let store = store(out);
    with_norm(cpu, out.len(), (List::of(inputs), out), |(inputs, out), partials| {
        one::weighted_sum_partial(cpu, weights, &inputs.views(), out, partials, store)
    })
}

pub(crate) fn weighted_sum_bf16(
    cpu: Cpu,
    weights: &[f32],
    inputs: &[&[u16]],
    out: &mut [f32],
) -> Result<f64, KernelError> {
    let store = store(out);
    with_norm(cpu, out.len(), (List::of(inputs), out), |(inputs, out), partials| {
        one::weighted_sum_bf16_partial(cpu, weights, &inputs.views(), out, partials, store)
    })
}

pub(crate) fn weighted_sum_q8(
    cpu: Cpu,
    weights: &[f32],
    inputs: &[Q8<'_>],
    out: &mut [f32],
) -> Result<f64, KernelError> {
    with_norm(cpu, out.len(), (Q8s(Cow::Borrowed(inputs)), out), |(inputs, out), partials| {
        one::weighted_sum_q8_partial(cpu, weights, &inputs.0, out, partials)
    })
}

pub(crate) fn quantise_q8(
    cpu: Cpu,
    input: &[f32],
    residue: &mut [f32],
    codes: &mut [i8],
    scales: &mut [u16],
) -> Result<Encoded, KernelError> {
    let scales = By(Unit::Shared(q8::BLOCK), scales);
    split(cpu, input.len(), (input, residue, codes, scales), |(input, residue, codes, scales)| {
        one::quantise_q8(cpu, input, residue, codes, scales.1)
    })
}

pub(crate) fn dequantise_q8(cpu: Cpu, coded: Q8<'_>, out: &mut [f32]) -> Result<(), KernelError> {
    split(cpu, out.len(), (coded, out), |(coded, out)| one::dequantise_q8(cpu, coded, out))
}

pub(crate) fn square_norms(cpu: Cpu, inputs: &[&[f32]], norms: &mut [f64]) -> Result<(), KernelError> {
    check_norms(inputs, norms)?;
    for (&input, norm) in inputs.iter().zip(norms) {
        *norm = with_norm(cpu, input.len(), input, |x, partials| one::square_norm_partial(cpu, x, partials))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
