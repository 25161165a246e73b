//! binary16 (IEEE 754): 5 bits of exponent, 10 of fraction; finite up to 65504, subnormal below 2^-14.
//!
//! Widening is exact, narrowing to nearest (ties to even) or upwards; subnormals stay what they are. A NaN stays one: its
//! quiet bit is set, so that no payload is cut down to infinity.

/// Infinity; magnitudes above are NaN.
pub const INFINITY: u16 = 0x7C00;

/// The NaN that encoders write.
pub const NAN: u16 = 0x7E00;

/// The smallest normal number, 2^-14.
pub const MIN_POSITIVE: u16 = 0x0400;

/// The binary32 of the same value.
#[inline(always)]
#[must_use]
pub fn widen(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7FFF);
    // The fields in their places, and the exponents' difference of 112 as a factor, which moves subnormals, too.
    let finite = (f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23)).to_bits();
    let special = 0x7F80_0000 | magnitude << 13 | u32::from(magnitude > u32::from(INFINITY)) << 22;
    f32::from_bits(sign | if magnitude >= u32::from(INFINITY) { special } else { finite })
}

/// The nearest binary16.
#[inline(always)]
#[must_use]
pub fn narrow(value: f32) -> u16 {
    let sign = (value.to_bits() >> 16) as u16 & 0x8000;
    let magnitude = value.to_bits() & 0x7FFF_FFFF;
    // One half has the last place of binary16's subnormals: adding it rounds, and leaves them in the low bits.
    let small = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let odd = magnitude >> 13 & 1;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xFFF + odd) >> 13;
    let rounded = if magnitude < 113 << 23 { small } else { normal };
    let finite = if rounded > u32::from(INFINITY) { INFINITY } else { rounded as u16 };
    let quiet = NAN | (magnitude >> 13) as u16 & 0x3FF;
    sign | if magnitude > 0x7F80_0000 { quiet } else { finite }
}

/// The smallest binary16 that is not less.
#[inline(always)]
#[must_use]
pub fn narrow_up(value: f32) -> u16 {
    let near = narrow(value);
    let less = u16::from(widen(near) < value);
    // Towards larger values magnitudes rise above zero and fall below it.
    if near & 0x8000 == 0 { near.wrapping_add(less) } else { near.wrapping_sub(less) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value as the standard defines it.
    fn defined(bits: u16) -> f64 {
        let (sign, exponent, fraction) = (bits >> 15, i32::from(bits >> 10 & 31), f64::from(bits & 0x3FF));
        let magnitude = match exponent {
            31 => {
                return if fraction == 0.0 {
                    f64::INFINITY * if sign == 1 { -1.0 } else { 1.0 }
                } else {
                    f64::NAN
                };
            }
            0 => fraction * 2f64.powi(-24),
            _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
        };
        if sign == 1 { -magnitude } else { magnitude }
    }

    /// Every finite binary16, rising; one zero.
    fn rising() -> Vec<u16> {
        (1..INFINITY).rev().map(|bits| bits | 0x8000).chain(0..INFINITY).collect()
    }

    #[test]
    fn every_binary16_widens_exactly_and_comes_back() {
        for bits in 0..=u16::MAX {
            let value = widen(bits);
            if value.is_nan() {
                assert!(defined(bits).is_nan(), "{bits:#x}");
                assert!(widen(narrow(value)).is_nan() && widen(narrow_up(value)).is_nan(), "{bits:#x}");
                assert_eq!(narrow(value) & 0x8000, bits & 0x8000, "{bits:#x} keeps its sign");
            } else {
                assert_eq!(f64::from(value), defined(bits), "{bits:#x}");
                assert_eq!(value.is_sign_negative(), bits >> 15 == 1, "{bits:#x}");
                assert_eq!((narrow(value), narrow_up(value)), (bits, bits));
            }
        }
        assert!(widen(narrow(f32::from_bits(0x7F80_0001))).is_nan(), "a NaN of low bits only");
    }

    #[test]
    fn between_two_neighbours_the_nearest_or_the_upper_is_taken() {
        for pair in rising().windows(2) {
            let [lower, upper] = [pair[0], pair[1]].map(|bits| f64::from(widen(bits)));
            let middle = (lower + upper) / 2.0;
            // All are binary32: it has 13 bits more.
            let quarter = (lower + middle) / 2.0;
            let (even, beyond) = (if pair[0] & 1 == 0 { pair[0] } else { pair[1] }, (middle + upper) / 2.0);
            for (value, wanted) in [(quarter, pair[0]), (middle, even), (beyond, pair[1])] {
                assert_eq!(f64::from(value as f32), value);
                // The sign of a rounded zero is its operand's.
                let found = widen(narrow(value as f32));
                assert_eq!(found, widen(wanted), "{value:e}");
                assert_eq!(found.is_sign_negative(), value < 0.0, "{value:e}");
                assert_eq!(widen(narrow_up(value as f32)), widen(pair[1]), "{value:e}");
            }
        }
    }

    #[test]
    fn what_is_too_large_becomes_infinite_and_upwards_the_lowest_stays_finite() {
        for (value, near, up) in [
            (65_504.0, 0x7BFF, 0x7BFF),
            (65_504.01, 0x7BFF, INFINITY),
            (65_519.9, 0x7BFF, INFINITY),
            (65_520.0, INFINITY, INFINITY),
            (f32::MAX, INFINITY, INFINITY),
            (f32::INFINITY, INFINITY, INFINITY),
            (-65_519.9, 0xFBFF, 0xFBFF),
            (-65_520.0, 0xFC00, 0xFBFF),
            (f32::MIN, 0xFC00, 0xFBFF),
            (f32::NEG_INFINITY, 0xFC00, 0xFC00),
            (f32::from_bits(1), 0, 1),
            (-f32::from_bits(1), 0x8000, 0x8000),
        ] {
            assert_eq!((narrow(value), narrow_up(value)), (near, up), "{value:e}");
        }
    }
}
