//! A measured rate in one byte: eight steps to an octave, from 1 KiB a second to some terabytes; and a duration likewise.
//!
//! Coarse on purpose: what a node says of itself stays the same while it measures about the same, and no claim can be
//! out of all bounds.

use crate::codec::newtype;

newtype! {
    /// Something per second; 0: not measured. The default.
    Speed(u8)
}

newtype! {
    /// How long something took, in the same steps: from a microsecond to an hour; 0: not measured. The default.
    Took(u8)
}

impl Took {
    /// The largest that is not more than `ns`; at least the smallest, and unknown for nothing.
    #[must_use]
    pub fn of(ns: u64) -> Self {
        Self(Speed::of(ns).0)
    }

    /// How many nanoseconds, if that is known.
    #[must_use]
    pub const fn ns(self) -> Option<u64> {
        Speed(self.0).per_s()
    }
}

impl Speed {
    /// The largest speed that is not more than `per_s`; at least the smallest, and unknown for nothing.
    #[must_use]
    pub fn of(per_s: u64) -> Self {
        if per_s == 0 {
            return Self(0);
        }
        let code = (1..=u8::MAX).rev().find(|code| value(*code) <= per_s);
        Self(code.unwrap_or(1))
    }

    /// How much it is, if it is known.
    #[must_use]
    pub const fn per_s(self) -> Option<u64> {
        if self.0 == 0 { None } else { Some(value(self.0)) }
    }
}

const fn value(code: u8) -> u64 {
    let (octave, step) = ((code - 1) / 8, (code - 1) % 8);
    (LEAST << octave) / 65_536 * STEPS[step as usize]
        + (LEAST << octave) % 65_536 * STEPS[step as usize] / 65_536
}

const LEAST: u64 = 1 << 10;
/// 2^(i/8) in 65,536ths.
const STEPS: [u64; 8] = [65_536, 71_468, 77_936, 84_990, 92_682, 101_070, 110_218, 120_194];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_an_eighth_of_an_octave_off_at_most() {
        assert_eq!((Speed::of(0), Speed(0).per_s()), (Speed(0), None));
        assert_eq!(Speed::of(1).per_s(), Some(1_024));
        assert_eq!(Speed::of(u64::MAX), Speed(255));
        let mut per_s = 1_024;
        while per_s < 1 << 41 {
            let said = Speed::of(per_s).per_s().unwrap();
            assert!(said <= per_s && per_s - said <= per_s / 11, "{per_s}: {said}");
            assert_eq!(Speed::of(said).per_s(), Some(said));
            per_s += per_s / 7;
        }
    }

    #[test]
    fn a_duration_keeps_its_octave_too() {
        assert_eq!((Took::of(0), Took(0).ns(), Took::of(1).ns()), (Took(0), None, Some(1_024)));
        let said = Took::of(250_000_000).ns().unwrap();
        assert!(said <= 250_000_000 && said > 225_000_000, "{said}");
        assert!(Took::of(u64::MAX).ns().unwrap() > 3_600_000_000_000);
    }

    #[test]
    fn speeds_rise_with_their_codes() {
        assert!((1..255).all(|code| value(code) < value(code + 1)));
        assert_eq!((value(1), value(9), value(5)), (1_024, 2_048, 1_448));
    }
}
