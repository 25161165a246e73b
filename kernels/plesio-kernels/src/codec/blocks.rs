//! What a block of each codec is: `Full`, `Half` and `Int8` here, `Int4` beside. The layouts stand in the parent.
//!
//! Loops over fixed arrays and no adaptors: those are not inlined into code for a wider instruction set.

use crate::bf16;

/// B elements in N bytes.
pub(super) trait Block<const B: usize, const N: usize> {
    /// Encodes real values; `top` are the bits of their largest magnitude. `rest` becomes what the decoder will not
    /// see; where something is not finite it stays as it is. Returns whether all will decode to finite values.
    fn encode(values: &[f32; B], top: u32, rest: &mut [f32; B], seed: u16, codes: &mut [u8; N]) -> bool;
    /// The real values.
    fn decode(codes: &[u8; N], out: &mut [f32; B]);
    /// Encodes integers.
    fn encode_integers(values: &[i32; B], seed: u16, codes: &mut [u8; N]);
    /// The integers.
    fn decode_integers(codes: &[u8; N], out: &mut [i32; B]);
    /// Clears what a block of `elements` elements does not use and yet sends.
    #[inline(always)]
    fn cut_tail(_codes: &mut [u8; N], _elements: usize) {}
}

/// Bits of infinity: magnitudes from here on are not finite.
pub(super) const INFINITE: u32 = 0x7f80_0000;

/// Blocks whose largest element is smaller are sent as zero and stay in the residue: the reciprocal of a step for
/// less would overflow. 2^-100.
pub(super) const TOP_MIN: u32 = (127 - 100) << 23;

/// Adding this to a float of magnitude below 2^22 rounds it half to even; the integer is in the low bits.
pub(super) const ROUNDER: f32 = 12_582_912.0; // 1.5 * 2^23

/// The same for doubles, below 2^51.
const ROUNDER_64: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52

/// The largest magnitude.
#[inline(always)]
pub(super) fn largest<const B: usize>(values: &[i32; B]) -> u32 {
    let mut top = 0u32;
    for value in values {
        let magnitude = value.unsigned_abs();
        top = if magnitude > top { magnitude } else { top };
    }
    top
}

/// Four bytes an element.
pub(super) struct Full;

impl Block<64, 256> for Full {
    #[inline(always)]
    fn encode(values: &[f32; 64], top: u32, rest: &mut [f32; 64], _seed: u16, codes: &mut [u8; 256]) -> bool {
        let (codes, _) = codes.as_chunks_mut::<4>();
        for e in 0..64 {
            codes[e] = values[e].to_le_bytes();
            let finite = values[e].to_bits() & 0x7fff_ffff < INFINITE;
            rest[e] = if finite { 0.0 } else { rest[e] };
        }
        top < INFINITE
    }

    #[inline(always)]
    fn decode(codes: &[u8; 256], out: &mut [f32; 64]) {
        let (codes, _) = codes.as_chunks::<4>();
        for e in 0..64 {
            out[e] = f32::from_le_bytes(codes[e]);
        }
    }

    #[inline(always)]
    fn encode_integers(values: &[i32; 64], _seed: u16, codes: &mut [u8; 256]) {
        let (codes, _) = codes.as_chunks_mut::<4>();
        for e in 0..64 {
            codes[e] = values[e].to_le_bytes();
        }
    }

    #[inline(always)]
    fn decode_integers(codes: &[u8; 256], out: &mut [i32; 64]) {
        let (codes, _) = codes.as_chunks::<4>();
        for e in 0..64 {
            out[e] = i32::from_le_bytes(codes[e]);
        }
    }
}

/// Two bytes an element.
pub(super) struct Half;

impl Half {
    /// From here on magnitudes round to infinity.
    const INFINITE: u32 = 0x7f7f_8000;
    /// The largest integer that an encoder writes.
    const WHOLE_MAX: f32 = 1_073_741_824.0; // 2^30
}

impl Block<64, 128> for Half {
    #[inline(always)]
    fn encode(values: &[f32; 64], top: u32, rest: &mut [f32; 64], _seed: u16, codes: &mut [u8; 128]) -> bool {
        let (codes, _) = codes.as_chunks_mut::<2>();
        for e in 0..64 {
            let code = bf16::narrow(values[e]);
            codes[e] = code.to_le_bytes();
            let seen = bf16::widen(code);
            let finite = values[e].to_bits() & 0x7fff_ffff < Self::INFINITE;
            rest[e] = if finite { values[e] - seen } else { rest[e] };
        }
        top < Self::INFINITE
    }

    #[inline(always)]
    fn decode(codes: &[u8; 128], out: &mut [f32; 64]) {
        let (codes, _) = codes.as_chunks::<2>();
        for e in 0..64 {
            out[e] = bf16::widen(u16::from_le_bytes(codes[e]));
        }
    }

    #[inline(always)]
    fn encode_integers(values: &[i32; 64], _seed: u16, codes: &mut [u8; 128]) {
        let (codes, _) = codes.as_chunks_mut::<2>();
        for e in 0..64 {
            codes[e] = bf16::narrow(values[e] as f32).to_le_bytes();
        }
    }

    #[inline(always)]
    fn decode_integers(codes: &[u8; 128], out: &mut [i32; 64]) {
        let (codes, _) = codes.as_chunks::<2>();
        for e in 0..64 {
            // Whole numbers, by the encoder. Others are rounded half to even, what is too large is the limit, and a
            // NaN is zero: the lower half of its bits is, and stays so in a sum.
            let value = bf16::widen(u16::from_le_bytes(codes[e]));
            let low = if value < -Self::WHOLE_MAX { -Self::WHOLE_MAX } else { value };
            let held = if low > Self::WHOLE_MAX { Self::WHOLE_MAX } else { low };
            out[e] = (f64::from(held) + ROUNDER_64).to_bits() as u32 as i32;
        }
    }
}

/// A byte an element, and a step for 256.
pub(super) struct Int8;

impl Int8 {
    /// Elements of a block.
    pub(super) const ELEMENTS: usize = 256;
    /// The step that a slot of the largest magnitude has: `ceil(2^30 / 127)`.
    const STEP_MAX: u32 = 8_454_661;
}

/// Codes of a byte reach from -127 to 127.
pub(crate) const LEVELS: f32 = 127.0;

/// The code of a value, half to even, and that as a float.
#[inline(always)]
pub(crate) fn byte_code(value: f32, inverse: f32) -> (u8, f32) {
    let wanted = value * inverse;
    let low = if wanted < -LEVELS { -LEVELS } else { wanted };
    let held = if low > LEVELS { LEVELS } else { low };
    let shifted = held + ROUNDER;
    (shifted.to_bits() as u8, shifted - ROUNDER)
}

impl Block<256, 260> for Int8 {
    #[inline(always)]
    fn encode(
        values: &[f32; 256],
        top: u32,
        rest: &mut [f32; 256],
        _seed: u16,
        codes: &mut [u8; 260],
    ) -> bool {
        let (header, codes) = codes.split_first_chunk_mut::<4>().expect("260 bytes have 4");
        let codes: &mut [u8; 256] = codes.first_chunk_mut().expect("and 256 more");
        if top >= INFINITE {
            *header = f32::NAN.to_bits().to_le_bytes();
            *codes = [0; 256];
            return false;
        }
        if top < TOP_MIN {
            *header = [0; 4];
            *codes = [0; 256];
            *rest = *values;
            return true;
        }
        // 17 significant bits, cut: 7 more for the code fill a float.
        let step = f32::from_bits((f32::from_bits(top) / LEVELS).to_bits() & !0x7f);
        let inverse = 1.0 / step;
        *header = step.to_bits().to_le_bytes();
        for e in 0..256 {
            let (code, whole) = byte_code(values[e], inverse);
            codes[e] = code;
            rest[e] = values[e] - whole * step;
        }
        true
    }

    #[inline(always)]
    fn decode(codes: &[u8; 260], out: &mut [f32; 256]) {
        let (header, codes) = codes.split_first_chunk::<4>().expect("260 bytes have 4");
        let codes: &[u8; 256] = codes.first_chunk().expect("and 256 more");
        let bits = u32::from_le_bytes(*header);
        if bits >= INFINITE {
            *out = [f32::NAN; 256];
            return;
        }
        let step = f32::from_bits(bits);
        for e in 0..256 {
            out[e] = f32::from(codes[e] as i8) * step;
        }
    }

    #[inline(always)]
    fn encode_integers(values: &[i32; 256], _seed: u16, codes: &mut [u8; 260]) {
        let top = largest(values);
        let step = top.div_ceil(127).min(Self::STEP_MAX);
        let inverse = if step == 0 { 0.0 } else { 1.0 / step as f32 };
        let (header, codes) = codes.split_first_chunk_mut::<4>().expect("260 bytes have 4");
        let codes: &mut [u8; 256] = codes.first_chunk_mut().expect("and 256 more");
        *header = step.to_le_bytes();
        for e in 0..256 {
            let (code, _) = byte_code(values[e] as f32, inverse);
            codes[e] = code;
        }
    }

    #[inline(always)]
    fn decode_integers(codes: &[u8; 260], out: &mut [i32; 256]) {
        let (header, codes) = codes.split_first_chunk::<4>().expect("260 bytes have 4");
        let codes: &[u8; 256] = codes.first_chunk().expect("and 256 more");
        let step = u32::from_le_bytes(*header).min(Self::STEP_MAX) as i32;
        for e in 0..256 {
            out[e] = i32::from(codes[e] as i8) * step;
        }
    }
}
