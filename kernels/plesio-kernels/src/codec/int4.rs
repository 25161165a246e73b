//! Four bits an element with a dither that the receiver takes off again.
//!
//! With D = (2 b + 3585) / 512 for the element's dither byte b, the nibble is u = round(x / step + D), and it
//! stands for (u - D) * step: D is 7.5 more or less half a step, so u uses all sixteen values. u - D is a whole
//! number of 512ths below 2^12, so its product with a step of 8 bits is exact in a float and in 32 bits.

use super::blocks::{Block, INFINITE, ROUNDER, TOP_MIN, largest};

/// A nibble an element; a step and a seed for a block.
pub(super) struct Int4;

/// The seed of a block on the wire: a hash of the call's seed and the block's number (the finaliser of
/// SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[inline(always)]
pub(super) fn block_seed(seed: u64, block: u64) -> u16 {
    let mut z = seed.wrapping_add(block.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ z >> 31) >> 48) as u16
}

/// A hash of a block's seed and a byte's place in it (the finaliser of MurmurHash3). Its top byte is the dither
/// of the byte's low nibble, the next one that of the high nibble.
#[inline(always)]
fn dither(seed: u16, place: usize) -> u32 {
    let mut x = u32::from(seed) << 16 | place as u32;
    x = (x ^ x >> 16).wrapping_mul(0x85EB_CA6B);
    x = (x ^ x >> 13).wrapping_mul(0xC2B2_AE35);
    x ^ x >> 16
}

/// 512 D of the low and of the high nibble.
#[inline(always)]
fn offsets(seed: u16, place: usize) -> (i32, i32) {
    let word = dither(seed, place);
    (2 * (word >> 24) as i32 + 3585, 2 * (word >> 16 & 0xff) as i32 + 3585)
}

/// The nibble of a value.
#[inline(always)]
fn nibble(value: f32, inverse: f32, offset: i32) -> i32 {
    let wanted = value * inverse + offset as f32 * (1.0 / 512.0);
    let low = if wanted < 0.0 { 0.0 } else { wanted };
    let held = if low > 15.0 { 15.0 } else { low };
    ((held + ROUNDER).to_bits() & 0xf) as i32
}

/// A step of the integer domain: `mantissa * 2^(exponent - 11)`.
#[derive(Clone, Copy)]
struct Step {
    mantissa: u8,
    exponent: u8,
}

impl Step {
    /// The smallest that is at least `top / 7.5`; `top` is at most 2^30.
    #[inline(always)]
    fn above(top: u32) -> Self {
        // In units of 2^-11.
        let wanted = (u64::from(top.min(1 << 30)) << 12).div_ceil(15);
        let exponent = (u64::BITS - wanted.leading_zeros()).saturating_sub(8);
        let mantissa = wanted.div_ceil(1 << exponent);
        let (mantissa, exponent) = if mantissa > 255 { (128, exponent + 1) } else { (mantissa, exponent) };
        Self { mantissa: mantissa as u8, exponent: exponent as u8 }
    }

    /// Any two bytes: an exponent beyond the largest is read as the largest.
    #[inline(always)]
    fn from_bytes(bytes: [u8; 2]) -> Self {
        Self { mantissa: bytes[0], exponent: if bytes[1] > 31 { 31 } else { bytes[1] } }
    }

    /// As a float: exact, for it has 8 bits.
    #[inline(always)]
    fn to_float(self) -> f32 {
        f32::from(self.mantissa) * f32::from_bits((u32::from(self.exponent) + 127 - 11) << 23)
    }

    /// What a loop over a block needs of it.
    #[inline(always)]
    fn unpack(self) -> Factor {
        let exponent = u32::from(self.exponent);
        let (left, right) = (exponent.saturating_sub(20), 20u32.saturating_sub(exponent));
        Factor { mantissa: i32::from(self.mantissa), left, half: (1 << right) >> 1, right }
    }
}

/// A step, ready to multiply.
#[derive(Clone, Copy)]
struct Factor {
    mantissa: i32,
    left: u32,
    half: i32,
    right: u32,
}

impl Factor {
    /// `steps / 512` of these, rounded half up. The product is below 2^20, the shift to the left at most 11.
    #[inline(always)]
    fn times_512ths(self, steps: i32) -> i32 {
        (((steps * self.mantissa) << self.left) + self.half) >> self.right
    }
}

impl Int4 {
    /// A step that no magnitude overflows with: 2^124.
    const STEP_MAX: u32 = (127 + 124) << 23;

    #[inline(always)]
    fn encode_real<const B: usize>(
        values: &[f32; B],
        top: u32,
        rest: &mut [f32; B],
        seed: u16,
        codes: &mut [u8],
    ) -> bool {
        let (header, codes) = codes.split_at_mut(4);
        header[2..].copy_from_slice(&seed.to_le_bytes());
        if top >= INFINITE {
            header[..2].copy_from_slice(&((f32::NAN.to_bits() >> 16) as u16).to_le_bytes());
            codes.fill(0);
            return false;
        }
        if top < TOP_MIN {
            header[..2].fill(0);
            codes.fill(0);
            *rest = *values;
            return true;
        }
        // 8 significant bits, rounded up.
        let wanted = (f32::from_bits(top) / 7.5).to_bits();
        let bits = ((wanted + 0xffff) & 0xffff_0000).min(Self::STEP_MAX);
        header[..2].copy_from_slice(&((bits >> 16) as u16).to_le_bytes());
        let step = f32::from_bits(bits);
        let (inverse, fraction) = (1.0 / step, step * (1.0 / 512.0));
        let codes = &mut codes[..B / 2];
        for place in 0..B / 2 {
            let (low, high) = offsets(seed, place);
            let (first, second) = (values[place], values[place + B / 2]);
            let (u, v) = (nibble(first, inverse, low), nibble(second, inverse, high));
            codes[place] = (u | v << 4) as u8;
            rest[place] = first - (512 * u - low) as f32 * fraction;
            rest[place + B / 2] = second - (512 * v - high) as f32 * fraction;
        }
        true
    }

    #[inline(always)]
    fn decode_real<const B: usize>(codes: &[u8], out: &mut [f32; B]) {
        let (header, codes) = codes.split_at(4);
        let bits = u32::from(u16::from_le_bytes([header[0], header[1]])) << 16;
        let seed = u16::from_le_bytes([header[2], header[3]]);
        if bits >= INFINITE {
            *out = [f32::NAN; B];
            return;
        }
        if bits == 0 {
            *out = [0.0; B]; // no negative zeros
            return;
        }
        let fraction = f32::from_bits(bits) * (1.0 / 512.0);
        let codes = &codes[..B / 2];
        for place in 0..B / 2 {
            let (low, high) = offsets(seed, place);
            let (u, v) = (i32::from(codes[place] & 0xf), i32::from(codes[place] >> 4));
            out[place] = (512 * u - low) as f32 * fraction;
            out[place + B / 2] = (512 * v - high) as f32 * fraction;
        }
    }

    #[inline(always)]
    fn encode_whole<const B: usize>(values: &[i32; B], seed: u16, codes: &mut [u8]) {
        let top = largest(values);
        let step = Step::above(top);
        let inverse = if top == 0 { 0.0 } else { 1.0 / step.to_float() };
        let (header, codes) = codes.split_at_mut(4);
        let seed_bytes = seed.to_le_bytes();
        header.copy_from_slice(&[step.mantissa, step.exponent, seed_bytes[0], seed_bytes[1]]);
        let codes = &mut codes[..B / 2];
        for place in 0..B / 2 {
            let (low, high) = offsets(seed, place);
            let u = nibble(values[place] as f32, inverse, low);
            let v = nibble(values[place + B / 2] as f32, inverse, high);
            codes[place] = (u | v << 4) as u8;
        }
    }

    #[inline(always)]
    fn decode_whole<const B: usize>(codes: &[u8], out: &mut [i32; B]) {
        let (header, codes) = codes.split_at(4);
        let step = Step::from_bytes([header[0], header[1]]);
        let seed = u16::from_le_bytes([header[2], header[3]]);
        let (codes, factor) = (&codes[..B / 2], step.unpack());
        for place in 0..B / 2 {
            let (low, high) = offsets(seed, place);
            let (u, v) = (i32::from(codes[place] & 0xf), i32::from(codes[place] >> 4));
            out[place] = factor.times_512ths(512 * u - low);
            out[place + B / 2] = factor.times_512ths(512 * v - high);
        }
    }

    /// Clears the upper halves of the last bytes.
    #[inline(always)]
    fn cut<const B: usize>(codes: &mut [u8], elements: usize) {
        let half = B / 2;
        for code in &mut codes[4 + elements.saturating_sub(half)..] {
            *code &= 0xf;
        }
    }
}

macro_rules! block {
    ($elements:literal, $bytes:literal) => {
        impl Block<$elements, $bytes> for Int4 {
            #[inline(always)]
            fn encode(
                values: &[f32; $elements],
                top: u32,
                rest: &mut [f32; $elements],
                seed: u16,
                codes: &mut [u8; $bytes],
            ) -> bool {
                Self::encode_real(values, top, rest, seed, codes)
            }

            #[inline(always)]
            fn decode(codes: &[u8; $bytes], out: &mut [f32; $elements]) {
                Self::decode_real(codes, out);
            }

            #[inline(always)]
            fn encode_integers(values: &[i32; $elements], seed: u16, codes: &mut [u8; $bytes]) {
                Self::encode_whole(values, seed, codes);
            }

            #[inline(always)]
            fn decode_integers(codes: &[u8; $bytes], out: &mut [i32; $elements]) {
                Self::decode_whole(codes, out);
            }

            #[inline(always)]
            fn cut_tail(codes: &mut [u8; $bytes], elements: usize) {
                Self::cut::<$elements>(codes, elements);
            }
        }
    };
}

block!(64, 36);
block!(128, 68);
