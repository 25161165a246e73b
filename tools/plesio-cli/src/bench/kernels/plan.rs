//! What one call of a kernel works on: its buffers, what they are filled with, and how often each byte of them moves.

use bytemuck::{AnyBitPattern, NoUninit};
use plesio_cpu::Cpu;
use plesio_kernels::{Codec, Coding, Device, bf16};
use serde_json::{Value, json};

/// How large.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    /// Inputs of so many bytes, or what the kernel's shape says.
    Full(u32),
    /// Odd, and small enough for the reference.
    Small,
}

impl Scale {
    /// Elements of an input whose elements have so many bytes.
    pub(super) const fn elements(self, bytes: usize) -> usize {
        match self {
            Self::Full(size) => size as usize / bytes,
            Self::Small => 1_283,
        }
    }

    /// The same in whole blocks, where the odd length of a small input may be cut.
    pub(super) const fn blocks(self, bytes: usize, block: usize) -> usize {
        match self {
            Self::Full(size) => size as usize / bytes / block * block,
            Self::Small => 1_283,
        }
    }

    /// A dimension of a shape.
    pub(super) const fn or(self, full: usize, small: usize) -> usize {
        match self {
            Self::Full(_) => full,
            Self::Small => small,
        }
    }
}

/// What a buffer holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Element {
    F32,
    F64,
    Bf16,
    F16,
    I8,
    U8,
    I32,
    U32,
    I64,
}

impl Element {
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::Bf16 | Self::F16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// As numpy calls it, or what is as wide.
    pub(super) const fn numpy(self) -> &'static str {
        match self {
            Self::F32 => "f4",
            Self::F64 => "f8",
            Self::Bf16 => "u2",
            Self::F16 => "f2",
            Self::I8 => "i1",
            Self::U8 => "u1",
            Self::I32 => "i4",
            Self::U32 => "u4",
            Self::I64 => "i8",
        }
    }

    /// Elements in which the results of two programs differ; floats by more than another order of the same sum
    /// explains. What we have in 64 bits is a norm, of which others sum millions of terms in 32.
    pub(super) fn differing(self, ours: &[u8], theirs: &[u8]) -> u64 {
        let differ = |a: f64, b: f64, within: f64| {
            let near = (a - b).abs() <= within * (1.0 + b.abs()) || (a.is_nan() && b.is_nan());
            u64::from(!near)
        };
        match self {
            Self::F32 => {
                let pairs = ours.as_chunks().0.iter().zip(theirs.as_chunks().0);
                let pairs = pairs.map(|(a, b)| (f32::from_ne_bytes(*a), f32::from_ne_bytes(*b)));
                pairs.map(|(a, b)| differ(a.into(), b.into(), 1e-3)).sum()
            }
            Self::F64 => {
                let pairs = ours.as_chunks().0.iter().zip(theirs.as_chunks().0);
                pairs.map(|(a, b)| differ(f64::from_ne_bytes(*a), f64::from_ne_bytes(*b), 1e-2)).sum()
            }
            _ => self.differing_bits(ours, theirs),
        }
    }

    /// Elements that are not the same to the bit.
    pub(super) fn differing_bits(self, ours: &[u8], theirs: &[u8]) -> u64 {
        let pairs = ours.chunks_exact(self.bytes()).zip(theirs.chunks_exact(self.bytes()));
        pairs.filter(|(ours, theirs)| ours != theirs).count() as u64
    }
}

/// What a call does with a buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    Read,
    /// Has to read it all before it reads it again.
    ReadTwice,
    /// Reads and writes it back.
    Update,
    /// Writes all of it, whatever was there.
    Write,
}

/// What a buffer begins with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fill {
    Zero,
    /// Floats between -1 and 1, integers between -512 and 511 as far as they go, bits of all kinds.
    Plain,
    /// Small and above zero.
    Positive,
    /// Its place.
    Index,
    /// A slot of so many elements, encoded.
    Coded(Codec, usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Buffer {
    pub(super) role: Role,
    pub(super) element: Element,
    pub(super) count: usize,
    fill: Fill,
}

impl Buffer {
    pub(super) const fn bytes(&self) -> usize {
        self.count * self.element.bytes()
    }

    /// Fills so many bytes in an order that the seed draws.
    pub(super) fn fill(&self, bytes: &mut [u8], seed: u64) {
        let mut draw = Draw(seed);
        match (self.fill, self.element) {
            (Fill::Zero, _) => bytes.fill(0),
            (Fill::Coded(codec, elements), _) => {
                let mut slot = vec![0; elements];
                slot.fill_with(|| draw.slot());
                let coded = Cpu::detect().encode_slot(Coding::new(codec, seed), &slot, bytes);
                coded.expect("as many elements as these bytes have");
            }
            (Fill::Positive, Element::F32) => each(bytes, || (draw.float() + 1.5) * 1e-3),
            (Fill::Index, Element::U32) => {
                (0..).zip(bytemuck::cast_slice_mut(bytes)).for_each(|(at, to)| *to = at)
            }
            // Of the exponent -10.
            (_, Element::F16) => each(bytes, || 0x1400 | (draw.next() & 0x3FF) as u16),
            (_, Element::F32) => each(bytes, || draw.float()),
            (_, Element::F64) => each(bytes, || f64::from(draw.float())),
            (_, Element::Bf16) => each(bytes, || bf16::narrow(draw.float())),
            (_, Element::I32) => each(bytes, || draw.slot()),
            (_, Element::I64) => each(bytes, || i64::from(draw.slot())),
            (_, Element::U32) => each(bytes, || draw.next() as u32),
            (_, Element::I8) => each(bytes, || (draw.slot() / 5) as i8),
            (_, Element::U8) => each(bytes, || draw.next() as u8),
        }
    }
}

fn each<T: AnyBitPattern + NoUninit>(bytes: &mut [u8], next: impl FnMut() -> T) {
    bytemuck::cast_slice_mut(bytes).fill_with(next);
}

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 8_388_608.0 - 1.0
    }

    fn slot(&mut self) -> i32 {
        (self.next() >> 54) as i32 - 512
    }
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// In words.
    pub(super) shape: String,
    pub(super) buffers: Vec<Buffer>,
    /// Of adapters: rows of a batch.
    pub(super) vectors: Option<u32>,
    /// What a rival has to be told besides.
    pub(super) parameters: Value,
    pub(super) must: Option<Must>,
}

/// What one core has to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Must {
    /// So large a share of the rate of memory, at least.
    OfFloor(f64),
    /// So many nanoseconds a vector at the most, with 512-bit vectors.
    VectorNs(f64),
}

impl Plan {
    pub(super) fn new(shape: String) -> Self {
        Self { shape, buffers: Vec::new(), vectors: None, parameters: json!({}), must: None }
    }

    pub(super) fn with(mut self, role: Role, element: Element, count: usize, fill: Fill) -> Self {
        self.buffers.push(Buffer { role, element, count, fill });
        self
    }

    pub(super) fn read(self, element: Element, count: usize) -> Self {
        self.with(Role::Read, element, count, Fill::Plain)
    }

    pub(super) fn read_twice(self, element: Element, count: usize) -> Self {
        self.with(Role::ReadTwice, element, count, Fill::Plain)
    }

    /// So many alike.
    pub(super) fn reads(self, inputs: usize, element: Element, count: usize, fill: Fill) -> Self {
        (0..inputs).fold(self, |plan, _| plan.with(Role::Read, element, count, fill))
    }

    pub(super) fn update(self, element: Element, count: usize, fill: Fill) -> Self {
        self.with(Role::Update, element, count, fill)
    }

    pub(super) fn write(self, element: Element, count: usize) -> Self {
        self.with(Role::Write, element, count, Fill::Zero)
    }

    pub(super) fn rows(self, vectors: usize) -> Self {
        Self { vectors: Some(vectors as u32), ..self }
    }

    pub(super) fn told(self, parameters: Value) -> Self {
        Self { parameters, ..self }
    }

    pub(super) fn must(self, must: Must) -> Self {
        Self { must: Some(must), ..self }
    }

    /// What a call moves at least.
    pub(super) fn moved_bytes(&self) -> u64 {
        let of = |buffer: &Buffer| match buffer.role {
            Role::Read | Role::Write => buffer.bytes() as u64,
            Role::ReadTwice | Role::Update => 2 * buffer.bytes() as u64,
        };
        self.buffers.iter().map(of).sum()
    }

    /// Memory of one set of buffers, each from the beginning of a line on.
    pub(super) fn set_bytes(&self) -> u64 {
        self.buffers.iter().map(|buffer| buffer.bytes().next_multiple_of(LINE_BYTES) as u64).sum()
    }
}

/// Of a cache.
pub(super) const LINE_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_and_written_moves_twice() {
        let plan = Plan::new("x".into()).read(Element::F32, 10).update(Element::I64, 10, Fill::Zero);
        let plan = plan.write(Element::U8, 10);
        assert_eq!((plan.moved_bytes(), plan.set_bytes()), (40 + 160 + 10, 64 + 128 + 64));
    }

    #[test]
    fn a_sum_in_another_order_is_the_same_and_a_wrong_one_is_not() {
        let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<_>>();
        let (ours, theirs) = (floats(&[1.0, f32::NAN, 2.0, 0.0]), floats(&[1.0001, f32::NAN, 2.1, 1e-2]));
        assert_eq!(Element::F32.differing(&ours, &theirs), 2);
        assert_eq!(Element::F32.differing_bits(&ours, &theirs), 3);
        assert_eq!(Element::I32.differing(&ours, &theirs), 3);
        let norms = |values: &[f64]| values.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<_>>();
        assert_eq!(Element::F64.differing(&norms(&[617_448.0, 10.0]), &norms(&[617_122.6, 11.0])), 1);
    }

    #[test]
    fn every_fill_is_what_its_seed_draws() {
        for (element, fill) in [
            (Element::F32, Fill::Plain),
            (Element::F32, Fill::Positive),
            (Element::F64, Fill::Plain),
            (Element::Bf16, Fill::Plain),
            (Element::F16, Fill::Positive),
            (Element::I8, Fill::Plain),
            (Element::I32, Fill::Plain),
            (Element::U32, Fill::Plain),
            (Element::I64, Fill::Plain),
            (Element::U8, Fill::Coded(Codec::Int8, 300)),
        ] {
            let count = Codec::Int8.encoded_bytes(300);
            let buffer = Buffer { role: Role::Read, element, count, fill };
            let filled = |seed: u64| {
                let mut words = vec![0_u64; buffer.bytes().div_ceil(8)];
                buffer.fill(&mut bytemuck::cast_slice_mut(&mut words)[..buffer.bytes()], seed);
                words
            };
            assert_eq!(filled(1), filled(1), "{element:?} {fill:?}");
            assert_ne!(filled(1), filled(2), "{element:?} {fill:?}");
        }
    }
}
