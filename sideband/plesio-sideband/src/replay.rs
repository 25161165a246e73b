//! Which sequence numbers of a source were seen: a sliding window, serial-number arithmetic (RFC 1982).

/// The newest [`WINDOW`] numbers of one source.
#[derive(Clone, Debug)]
pub(crate) struct ReplayWindow {
    newest: Option<u32>,
    seen: [u64; WORDS],
}

impl ReplayWindow {
    pub(crate) const fn new() -> Self {
        Self { newest: None, seen: [0; WORDS] }
    }

    /// Whether `sequence` is new; remembers it if so.
    pub(crate) fn accept(&mut self, sequence: u32) -> bool {
        let Some(newest) = self.newest else {
            self.newest = Some(sequence);
            self.mark(sequence);
            return true;
        };
        let ahead = sequence.wrapping_sub(newest);
        if ahead == 0 || (ahead > u32::MAX / 2 && newest.wrapping_sub(sequence) >= WINDOW) {
            return false;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn it_equals_a_set_of_the_newest_numbers(
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
}
