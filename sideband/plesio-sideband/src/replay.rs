//! Which sequence numbers of a source were seen: a sliding window, serial-number arithmetic (RFC 1982).
//!
//! Plaintext has no session that tells one life of a source from the next. A datagram of the former life that comes
//! late moves the window far ahead of what the new one says; numbers that keep rising where none can be any more show
//! that it is the new one that speaks.

/// The newest [`WINDOW`] numbers of one source.
#[derive(Clone, Debug)]
pub(crate) struct ReplayWindow {
    newest: Option<u32>,
    seen: [u64; WORDS],
    /// The newest number that came too late, and how many before it rose in a row.
    stale: (u32, u32),
}

impl ReplayWindow {
    pub(crate) const fn new() -> Self {
        Self { newest: None, seen: [0; WORDS], stale: (0, 0) }
    }

    /// Whether `sequence` is new; remembers it if so.
    pub(crate) fn accept(&mut self, sequence: u32) -> bool {
        let Some(newest) = self.newest else {
            self.newest = Some(sequence);
            self.mark(sequence);
            return true;
        };
        let ahead = sequence.wrapping_sub(newest);
        if ahead == 0 {
            return false;
        }
        if ahead > u32::MAX / 2 && newest.wrapping_sub(sequence) >= WINDOW {
            return self.begin_anew(sequence);
        }
        self.stale.1 = 0;
        if ahead <= u32::MAX / 2 {
            // The places of the numbers skipped are free again.
            for skipped in 1..=ahead.min(WINDOW) {
                let at = newest.wrapping_add(skipped);
                self.seen[word(at)] &= !bit(at);
            }
            self.newest = Some(sequence);
        } else if self.seen[word(sequence)] & bit(sequence) != 0 {
            return false;
        }
        self.mark(sequence);
        true
    }

    /// A number that is too old to be told from those seen: the source began anew if such numbers rise and rise, with
    /// none in the window between them.
    fn begin_anew(&mut self, sequence: u32) -> bool {
        let (last, run) = self.stale;
        let rises = (1..WINDOW).contains(&sequence.wrapping_sub(last));
        self.stale = (sequence, if rises { run + 1 } else { 0 });
        if self.stale.1 < RISES {
            return false;
        }
        *self = Self::new();
        self.accept(sequence)
    }

    fn mark(&mut self, sequence: u32) {
        self.seen[word(sequence)] |= bit(sequence);
    }
}

const fn word(sequence: u32) -> usize {
    (sequence % WINDOW / 64) as usize
}

const fn bit(sequence: u32) -> u64 {
    1 << (sequence % 64)
}

/// Replay window of the sideband.
const WINDOW: u32 = 1_024;
const WORDS: usize = WINDOW as usize / 64;
/// Numbers in a row that must rise far below the window before they are believed.
const RISES: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn t4_c9_07_it_equals_a_set_of_the_newest_numbers(
            start: u32, moves in prop::collection::vec(prop_oneof![-40i64..60, -1_500i64..1_600], 1..600),
        ) {
            let mut window = ReplayWindow::new();
            let mut model = HashSet::new();
            let mut newest = i64::from(start);
            for (step, offset) in moves.into_iter().enumerate() {
                let number = if step == 0 { newest } else { newest + offset };
                let fresh = number > newest || newest - number < i64::from(WINDOW);
                let expected = fresh && model.insert(number);
                prop_assert_eq!(window.accept(number as u32), expected, "{} after {}", number, newest);
                newest = newest.max(number);
            }
        }
    }
    #[test]
    fn a_source_that_began_anew_is_heard_though_its_former_life_spoke_last() {
        // Seed 130 of 8 nodes: a process began anew, what it had sent before came afterwards, and nobody heard it again.
        let mut window = ReplayWindow::new();
        assert!(window.accept(3) && window.accept(50_000), "the new life, then a late word of the old one");
        let heard = (4..40).filter(|number| window.accept(*number)).count();
        assert!(heard > 15, "{heard}");
        assert!(!window.accept(39) && window.accept(40));
        // Late copies in any other order do not pass for a new life.
        let mut window = ReplayWindow::new();
        assert!(window.accept(90_000));
        for late in (10_000..20_000).rev() {
            assert!(!window.accept(late));
        }
    }
}
