//! Inputs: reproducible, of every size, with the floats that catch mistakes; and how results are compared.

use plesio_kernels::{Device, bf16};

use crate::Effort;

/// xorshift64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Any 64 bits but zero.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `end`, which is not zero.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }
}

/// Lengths around every block that the kernels work in.
#[must_use]
pub fn lengths(effort: Effort) -> &'static [usize] {
    match effort {
        Effort::Short => &[0, 1, 3, 4, 63, 64, 65, 255, 1023, 1024, 1025, 2051],
        Effort::Whole => &[
            0, 1, 2, 3, 4, 5, 15, 16, 17, 31, 63, 64, 65, 127, 130, 255, 256, 257, 1023, 1024, 1025, 2047,
            2051, 5000,
        ],
    }
}

/// Floats of many magnitudes.
#[must_use]
pub fn floats(len: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let mut next = || {
        let unit = (random.bits() >> 40) as f32 / 8_388_608.0 - 1.0;
        unit * 2f32.powi((random.bits() % 12) as i32 - 6)
    };
    (0..len).map(|_| next()).collect()
}

/// The same with NaN of both signs, infinities, zeros of both signs, subnormals and extremes among them.
#[must_use]
pub fn wild(len: usize, seed: u64) -> Vec<f32> {
    const EXTREMES: [f32; 11] = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        f32::MIN_POSITIVE / 8.0,
        -1e-44,
        f32::MAX,
        f32::MIN,
        f32::EPSILON,
        -f32::NAN,
    ];
    let mut values = floats(len, seed);
    for (index, value) in values.iter_mut().enumerate() {
        if (index as u64 * 7 + seed).is_multiple_of(11) {
            *value = EXTREMES[(index + seed as usize) % EXTREMES.len()];
        }
    }
    values
}

/// Floats of which every stretch of `stretch` elements is of a kind: ordinary, zero, too small for a step, subnormal,
/// huge, all of one magnitude, with a NaN or an infinity in it.
#[must_use]
pub fn stretches(len: usize, stretch: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let mut values = floats(len, seed + 1);
    for values in values.chunks_mut(stretch) {
        let at = random.below(values.len() as u64) as usize;
        match random.below(10) {
            0 => values.fill(0.0),
            1 => values.iter_mut().for_each(|value| *value *= 1e-32),
            2 => values.iter_mut().for_each(|value| *value *= 1e-40),
            3 => values.iter_mut().for_each(|value| *value *= f32::MAX / 64.0),
            4 => values.iter_mut().for_each(|value| *value = value.signum() * 0.375),
            5 => values[at] = f32::NAN,
            6 => values[at] = f32::NEG_INFINITY,
            7 => values[at] = -0.0,
            _ => {}
        }
    }
    values
}

/// Reproducible bfloat16, by length and seed.
pub type Halves = fn(usize, u64) -> Vec<u16>;

/// [`floats`] in bfloat16.
#[must_use]
pub fn halves(len: usize, seed: u64) -> Vec<u16> {
    floats(len, seed).into_iter().map(bf16::narrow).collect()
}

/// [`wild`] in bfloat16.
#[must_use]
pub fn wild_halves(len: usize, seed: u64) -> Vec<u16> {
    wild(len, seed).into_iter().map(bf16::narrow).collect()
}

/// Elements of a slot, now and then at its limits.
#[must_use]
pub fn integers(len: usize, seed: u64) -> Vec<i32> {
    let mut random = Random::new(seed);
    let mut next = || match random.below(16) {
        0 => (1 << 30) - 1,
        1 => -(1 << 30),
        2 => i32::MIN,
        3 => 0,
        shift => (random.bits() as i32) >> shift,
    };
    (0..len).map(|_| next()).collect()
}

/// Elements of a slot of which every stretch of `stretch` elements is of one size, from none to all bits.
#[must_use]
pub fn sized_integers(len: usize, stretch: usize, seed: u64) -> Vec<i32> {
    let mut random = Random::new(seed);
    let mut values = integers(len, seed + 1);
    for values in values.chunks_mut(stretch) {
        let shift = random.below(40).min(31) as u32;
        values.iter_mut().for_each(|value| *value >>= shift);
        if shift == 31 {
            values.fill(0);
        }
    }
    values
}

/// Elements of a master state, now and then near its limits.
#[must_use]
pub fn states(len: usize, seed: u64) -> Vec<i64> {
    let mut random = Random::new(seed);
    let mut next = || match random.below(16) {
        0 => i64::MAX - 3,
        1 => i64::MIN + 3,
        shift => (random.bits() as i64) >> (2 * shift),
    };
    (0..len).map(|_| next()).collect()
}

/// Lists as calls take them.
#[must_use]
pub fn views<T>(lists: &[Vec<T>]) -> Vec<&[T]> {
    lists.iter().map(Vec::as_slice).collect()
}

/// Panics unless two lists are equal.
#[track_caller]
pub fn same<T: Copy + PartialEq + std::fmt::Debug>(
    what: &str,
    device: impl Device,
    found: &[T],
    expected: &[T],
) {
    assert_eq!(found.len(), expected.len(), "{what} on {}", device.name());
    for (element, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            found == expected,
            "{what} on {}: element {element} is {found:?}, not {expected:?}",
            device.name()
        );
    }
}

/// Panics unless two lists have the same bits; a NaN equals a NaN, because machines keep different payloads.
#[track_caller]
pub fn same_floats(what: &str, device: impl Device, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what} on {}", device.name());
    for (element, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let equal = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
        assert!(equal, "{what} on {}: element {element} is {found:e}, not {expected:e}", device.name());
    }
}

/// The same of one binary64.
#[track_caller]
pub fn same_double(what: &str, device: impl Device, found: f64, expected: f64) {
    let equal = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
    assert!(equal, "{what} on {}: {found:e}, not {expected:e}", device.name());
}

/// [`same_floats`] of bfloat16.
#[track_caller]
pub fn same_halves(what: &str, device: impl Device, found: &[u16], expected: &[u16]) {
    let [found, expected] =
        [found, expected].map(|halves| halves.iter().map(|&bits| bf16::widen(bits)).collect::<Vec<_>>());
    same_floats(what, device, &found, &expected);
}
