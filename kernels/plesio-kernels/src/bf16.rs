//! bfloat16: the upper half of a binary32.
//!
//! Rounding is to nearest, ties to even (Intel, "BFLOAT16 - Hardware Numerics Definition", 2018), but subnormals stay what
//! they are; a NaN stays one: its quiet bit is set, so that no payload is cut down to infinity.

/// The binary32 of the same value.
#[inline(always)]
#[must_use]
pub fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest bfloat16.
#[inline(always)]
#[must_use]
pub fn narrow(value: f32) -> u16 {
    let bits = value.to_bits();
    let odd = bits >> 16 & 1;
    let rounded = (bits.wrapping_add(0x7FFF + odd) >> 16) as u16;
    let quiet = (bits >> 16) as u16 | 0x40;
    if value.is_nan() { quiet } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bfloat16_comes_back_and_a_nan_stays_one() {
        for bits in 0..=u16::MAX {
            let value = widen(bits);
            if value.is_nan() {
                assert!(widen(narrow(value)).is_nan(), "{bits:#x}");
            } else {
                assert_eq!(narrow(value), bits);
            }
        }
        assert!(widen(narrow(f32::from_bits(0x7F80_0001))).is_nan(), "a NaN of low bits only");
    }

    #[test]
    fn the_nearest_is_taken_and_of_two_the_even_one() {
        for (bits, wanted) in [
            (0x3F80_0000, 0x3F80),
            (0x3F80_7FFF, 0x3F80),
            (0x3F80_8000, 0x3F80),
            (0x3F80_8001, 0x3F81),
            (0x3F81_8000, 0x3F82),
            (0x0000_8000, 0x0000),
            (0x0000_8001, 0x0001),
            (0x7F7F_8000, 0x7F80),
            (0xFF80_0000, 0xFF80),
        ] {
            assert_eq!(narrow(f32::from_bits(bits)), wanted, "{bits:#x}");
        }
    }
}
