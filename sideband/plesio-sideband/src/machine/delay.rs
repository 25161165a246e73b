//! How long full beats are on their way, by the mesh clock: whether the sideband is alive while everything else is busy.
//!
//! A beat says what mesh time its sender read as it was sent; the receiver reads its own when it has it. The difference is
//! the way, both ends' kernels and threads included, and what their clocks differ by, which each knows a bound of.

/// The newest delays, without more memory for more of them.
#[derive(Clone, Debug)]
pub(super) struct Delays {
    newest_ns: [u64; KEPT],
    count: usize,
}

impl Delays {
    pub(super) const fn new() -> Self {
        Self { newest_ns: [0; KEPT], count: 0 }
    }

    /// A beat took so long; less than nothing is what the clocks differ by.
    pub(super) fn insert(&mut self, delay_ns: i64) {
        self.newest_ns[self.count % KEPT] = u64::try_from(delay_ns).unwrap_or(0);
        self.count = if self.count + 1 == 2 * KEPT { KEPT } else { self.count + 1 };
    }

    /// Of the newest: how many there are, and the longest but for one in a hundred.
    pub(super) fn p99(&self) -> (usize, u64) {
        let kept = self.count.min(KEPT);
        let mut sorted = self.newest_ns;
        sorted[..kept].sort_unstable();
        (kept, kept.checked_sub(1 + kept / 100).map_or(0, |at| sorted[at]))
    }
}

/// Two minutes of two beats a second from two peers.
const KEPT: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_hundred_may_be_longer_and_the_oldest_are_forgotten() {
        let mut delays = Delays::new();
        assert_eq!(delays.p99(), (0, 0));
        delays.insert(-5);
        assert_eq!(delays.p99(), (1, 0));
        (1..=100).for_each(|ns| delays.insert(ns));
        assert_eq!(delays.p99(), (101, 99));
        (0..10_000).for_each(|_| delays.insert(7));
        delays.insert(i64::MAX);
        assert_eq!(delays.p99(), (512, 7));
    }
}
