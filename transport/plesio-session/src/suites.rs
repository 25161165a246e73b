//! Which suites a node has, and which one two nodes come to.

use plesio_wire::handshake::{CAPABILITY_AEGIS, CAPABILITY_AES, Suite};

use crate::cipher;

/// A set of suites. [`Suite::ChaCha20Poly1305`] is in every one, so that any two nodes have one in common.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Suites(u64);

/// The best first.
const BY_RANK: [(u64, Suite); 2] = [(CAPABILITY_AEGIS, Suite::Aegis128L), (CAPABILITY_AES, Suite::Aes128Gcm)];

impl Suites {
    /// Without any that needs instructions of its own.
    pub const PORTABLE: Self = Self(0);

    /// All that this build holds and this CPU has instructions for.
    #[must_use]
    pub fn available() -> Self {
        let bits = BY_RANK.iter().filter(|(_, suite)| cipher::is_available(*suite)).map(|(bit, _)| bit);
        Self(bits.sum())
    }

    /// This one, and what every set has; `None` where it is not [available](Self::available).
    #[must_use]
    pub fn only(suite: Suite) -> Option<Self> {
        let bit = BY_RANK.iter().find(|(_, ranked)| *ranked == suite).map_or(0, |(bit, _)| *bit);
        cipher::is_available(suite).then_some(Self(bit))
    }

    /// The suite of two ends that both have these.
    #[must_use]
    pub fn best(self) -> Suite {
        self.common(self.0)
    }

    /// Whether the best of these opens large payloads from one place to another in one pass.
    #[must_use]
    pub fn opens_apart(self) -> bool {
        self.best() == Suite::Aegis128L
    }

    pub(crate) const fn capabilities(self) -> u64 {
        self.0
    }

    /// What both ends' capabilities come to.
    pub(crate) fn common(self, theirs: u64) -> Suite {
        let ranked = BY_RANK.iter().find(|(bit, _)| self.0 & theirs & bit != 0);
        ranked.map_or(Suite::ChaCha20Poly1305, |(_, suite)| *suite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ends_come_to_the_best_that_both_have() {
        let all = Suites(CAPABILITY_AEGIS | CAPABILITY_AES);
        let cases = [
            (all, u64::MAX, Suite::Aegis128L),
            (all, CAPABILITY_AES, Suite::Aes128Gcm),
            (all, CAPABILITY_AEGIS, Suite::Aegis128L),
            (Suites(CAPABILITY_AES), CAPABILITY_AEGIS, Suite::ChaCha20Poly1305),
            (Suites::PORTABLE, u64::MAX, Suite::ChaCha20Poly1305),
        ];
        for (ours, theirs, expected) in cases {
            assert_eq!(ours.common(theirs), expected, "{ours:?} {theirs:x}");
            assert_eq!(Suites(theirs).common(ours.capabilities()), expected, "the other way round");
        }
        assert_eq!(Suites::only(Suite::ChaCha20Poly1305), Some(Suites::PORTABLE));
    }
}
