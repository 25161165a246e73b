//! The replay window: which packet numbers of one lane were accepted already.
//!
//! Knows numbers only. Keeps: a number is accepted at most once, a number inside the window that was never
//! accepted is not refused, and one that is older than the window always is. Check, open, mark: [`check`] alone
//! changes nothing, so that a forged packet moves no window.
//!
//! [`check`]: ReplayWindow::check

/// Numbers that the data plane's window spans.
pub const WINDOW_DATA: usize = 8_192;
/// Numbers that the sideband's window spans.
pub const WINDOW_SIDEBAND: usize = 1_024;

/// A window of `WORDS` x 64 numbers behind the largest accepted one.
#[derive(Clone, Debug)]
pub struct ReplayWindow<const WORDS: usize> {
    /// One more than the largest accepted number; zero before the first.
    end: u64,
    /// Bit `n % (WORDS x 64)`: number n was accepted.
    bits: [u64; WORDS],
}

/// The data plane's window.
pub type DataWindow = ReplayWindow<{ WINDOW_DATA / 64 }>;
/// The sideband's window.
pub type SidebandWindow = ReplayWindow<{ WINDOW_SIDEBAND / 64 }>;

impl<const WORDS: usize> Default for ReplayWindow<WORDS> {
    fn default() -> Self {
        Self { end: 0, bits: [0; WORDS] }
    }
}

impl<const WORDS: usize> ReplayWindow<WORDS> {
    const SPAN: u64 = WORDS as u64 * 64;

    /// Whether `number` may be accepted; the largest u64 never is.
    #[must_use]
    pub const fn check(&self, number: u64) -> bool {
        if number >= self.end {
            return number != u64::MAX;
        }
        self.end - number <= Self::SPAN && !self.holds(number)
    }

    /// Notes that `number` was accepted, after [`check`](Self::check) and after its packet was opened.
    pub fn mark(&mut self, number: u64) {
        debug_assert!(self.check(number), "a number is marked once");
        if number >= self.end {
            let skipped = number - self.end;
            if skipped >= Self::SPAN {
                self.bits = [0; WORDS];
            } else {
                for passed in self.end..number {
                    self.clear(passed);
                }
            }
            self.end = number + 1;
        }
        let (word, bit) = Self::place(number);
        self.bits[word] |= bit;
    }

    /// One more than the largest accepted number.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Extends the low 32 bits of a number to the number nearest to the largest accepted one.
    #[must_use]
    pub const fn extend(&self, low: u32) -> u64 {
        let near = (self.end & !0xFFFF_FFFF) | low as u64;
        let (half, whole) = (1 << 31, 1 << 32);
        if near.saturating_add(half) < self.end {
            // No number is larger than the largest.
            match near.checked_add(whole) {
                Some(next) => next,
                None => near,
            }
        } else if near >= self.end.saturating_add(half) && near >= whole {
            near - whole
        } else {
            near
        }
    }

    const fn place(number: u64) -> (usize, u64) {
        ((number % Self::SPAN / 64) as usize, 1 << (number % 64))
    }

    const fn holds(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.bits[word] & bit != 0
    }

    fn clear(&mut self, number: u64) {
        let (word, bit) = Self::place(number);
        self.bits[word] &= !bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// A million numbers, half of them repeated and out of order, against a plain set.
    fn compare<const WORDS: usize>(spread: u64, mut random: u64) {
        let span = WORDS as u64 * 64;
        let mut window = ReplayWindow::<WORDS>::default();
        let (mut set, mut end, mut base) = (HashSet::new(), 0_u64, 0_u64);
        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..1_000_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let draw = random >> 33;
            base += u64::from(draw.is_multiple_of(2));
            if draw.is_multiple_of(50_000) {
                base += span + draw % 3; // a burst of losses
            }
            let number = base.saturating_sub((draw >> 3) % spread);
            let expected = (number >= end || end - number <= span) && !set.contains(&number);
            assert_eq!(window.check(number), expected, "number {number}, end {end}");
            if expected {
                window.mark(number);
                set.insert(number);
                end = end.max(number + 1);
                accepted += 1;
            } else {
                refused += 1;
            }
            assert_eq!(window.end(), end);
        }
        assert!(accepted > 100_000 && refused > 100_000, "{accepted} accepted, {refused} refused");
    }

    #[test]
    fn t4_a_million_numbers_agree_with_a_set() {
        compare::<{ WINDOW_DATA / 64 }>(10_000, 1);
        compare::<{ WINDOW_SIDEBAND / 64 }>(1_300, 2);
        compare::<1>(80, 3);
    }

    #[test]
    fn the_edges_of_the_window_are_where_they_are_said_to_be() {
        let mut window = DataWindow::default();
        window.mark(8_191);
        assert!(window.check(0) && !window.check(8_191) && window.check(8_192));
        window.mark(8_192);
        assert!(!window.check(0) && window.check(1), "8,192 numbers, the largest among them");
        assert!(!window.check(u64::MAX));
        window.mark(u64::MAX - 1);
        assert!(window.check(u64::MAX - 2) && !window.check(8_193));
    }

    #[test]
    fn a_short_sequence_finds_its_long_number() {
        let mut window = SidebandWindow::default();
        assert_eq!(window.extend(5), 5);
        assert_eq!(window.extend(u32::MAX), u64::from(u32::MAX), "nothing lies before zero");
        window.mark(u64::from(u32::MAX) - 1);
        assert_eq!(window.extend(3), (1 << 32) + 3);
        window.mark((1 << 32) + 3);
        assert_eq!(window.extend(u32::MAX), u64::from(u32::MAX));
        let mut model = 1_u64 << 40;
        let mut walk = SidebandWindow::default();
        walk.mark(model);
        for step in 0..5_000_u64 {
            model += step * 100_003 % (1 << 31);
            assert_eq!(walk.extend(model as u32), model);
            if walk.check(model) {
                walk.mark(model);
            }
        }
    }
}
