//! Every random choice of a run comes from here: a counter and a mixing function (Steele, Lea, Flood, "Fast
//! splittable pseudorandom number generators", 2014). Kept in the tree because a seed that once failed must
//! draw the same numbers for ever.

/// A stream of numbers; streams of one seed with different names do not disturb each other.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, stream: &str) -> Self {
        let name = stream.bytes().fold(STEP, |word, byte| mix(word ^ u64::from(byte)));
        Self(mix(seed ^ name))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number below `limit`; zero for an empty range.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// A number from `low` up to and including `high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True so many times in a million.
    pub(crate) fn chance(&mut self, millionths: u32) -> bool {
        millionths > 0 && self.below(1_000_000) < u64::from(millionths)
    }

    /// One of `items`, which must not be empty.
    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}

/// Spreads a word over 64 bits; a bijection.
pub(crate) const fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_fixed_for_ever_and_fair_enough() {
        let mut random = Random::new(1, "net");
        let first: Vec<u64> = (0..3).map(|_| random.below(1000)).collect();
        assert_eq!(first, {
            let mut again = Random::new(1, "net");
            (0..3).map(|_| again.below(1000)).collect::<Vec<u64>>()
        });
        assert_ne!(Random::new(1, "net").next(), Random::new(1, "plan").next());
        assert_ne!(Random::new(1, "net").next(), Random::new(2, "net").next());
        let hits = (0..100_000).filter(|_| random.chance(200_000)).count();
        assert!((19_000..21_000).contains(&hits), "{hits}");
        assert!((0..1000).all(|_| (5..=7).contains(&random.between(5, 7))));
        assert_eq!(random.below(0), 0);
    }
}
