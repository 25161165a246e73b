//! How full a ring is, in slots and in bytes, and which watermark that reaches.

use super::SlotState;

/// How many slots are in which state, at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Occupancy {
    /// Slots in the ring.
    pub depth: u8,
    /// FREE.
    pub free: u8,
    /// CUT, or being merged into.
    pub cut: u8,
    /// SENDING.
    pub sending: u8,
    /// OFFERED.
    pub offered: u8,
    /// COMMITTED or FOLDED: waiting for the worker.
    pub returned: u8,
    /// Bytes of one slot's elements.
    pub slot_bytes: u64,
}

/// The highest watermark that a ring has reached.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// Below all of them.
    Idle,
    /// A quarter of the slots is in use: the source may go faster.
    Low,
    /// Half: as it should be.
    Medium,
    /// Three quarters: the source should go slower.
    High,
}

impl Occupancy {
    pub(super) fn of(states: impl Iterator<Item = SlotState>, slot_bytes: u64) -> Self {
        let mut count = Self { slot_bytes, ..Self::default() };
        for state in states {
            count.depth += 1;
            match state {
                SlotState::Free => count.free += 1,
                SlotState::Filling => {}
                SlotState::Cut | SlotState::Merging => count.cut += 1,
                SlotState::Sending => count.sending += 1,
                SlotState::Offered => count.offered += 1,
                SlotState::Committed | SlotState::Folded => count.returned += 1,
            }
        }
        count
    }

    /// The figure that travels in BEAT.
    #[must_use]
    pub fn fill(&self) -> u8 {
        self.cut + self.sending
    }

    /// Slots that carry a contribution and have not come back.
    #[must_use]
    pub fn held(&self) -> u8 {
        self.cut + self.sending + self.offered
    }

    /// The same in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        u64::from(self.held()) * self.slot_bytes
    }

    /// Where that stands among the watermarks at 25, 50 and 75 % of the slots.
    #[must_use]
    pub fn level(&self) -> Level {
        let (held, depth) = (u32::from(self.held()) * 4, u32::from(self.depth));
        match held {
            0 => Level::Idle,
            held if held >= 3 * depth => Level::High,
            held if held >= 2 * depth => Level::Medium,
            held if held >= depth => Level::Low,
            _ => Level::Idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_stand_at_quarters() {
        let level = |depth, held: u8| {
            let states =
                (0..depth).map(|index| if index < held { SlotState::Offered } else { SlotState::Free });
            let count = Occupancy::of(states, 100);
            assert_eq!((count.depth, count.held_bytes()), (depth, u64::from(held) * 100));
            count.level()
        };
        assert_eq!(
            [0, 1, 2, 3, 4].map(|held| level(4, held)),
            [Level::Idle, Level::Low, Level::Medium, Level::High, Level::High]
        );
        assert_eq!([0, 1, 2].map(|held| level(2, held)), [Level::Idle, Level::Medium, Level::High]);
        assert_eq!(
            [3, 4, 7, 8, 11, 12].map(|held| level(16, held)),
            [Level::Idle, Level::Low, Level::Low, Level::Medium, Level::Medium, Level::High]
        );
    }
}
