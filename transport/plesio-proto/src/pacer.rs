//! When the next train may leave: trains of about 100 microseconds of link time, one after the other.
//!
//! A train costs a system call and a wake-up, and a node that shares its link among many peers has many slow ones. So
//! on slower links trains are longer, up to 200 microseconds, but no longer than a small queue takes; and who polls late
//! sends what is due as one. A millisecond, as Linux's TCP has (`tcp_tso_autosize`), is too long where round trips are
//! shorter: two trains in flight make the path look up to twice as fast, and a quarter of what was sent is lost.

use plesio_wire::Instant;

/// The pacer of one connection.
#[derive(Debug)]
pub(crate) struct Pacer {
    next: Instant,
}

impl Pacer {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { next: now }
    }

    /// When the next train may leave.
    pub(crate) const fn next(&self) -> Instant {
        self.next
    }

    /// Payload of a train that leaves now at this rate; `idle`: nothing flies.
    pub(crate) fn train_bytes(&self, now: Instant, rate: u64, idle: bool) -> u64 {
        let carried_bytes = |time_ns| (u128::from(rate) * u128::from(time_ns) / 1_000_000_000) as u64;
        let due_ns = if idle { 0 } else { now.since(self.next).min(CATCH_UP_NS) };
        carried_bytes(TRAIN_NS + due_ns).max(carried_bytes(TRAIN_NS_MAX).min(TRAIN_BYTES))
    }

    /// A train left. Who polls late catches up with what a millisecond carries, and after a pause with nothing.
    pub(crate) fn handle_sent(&mut self, now: Instant, bytes: u64, rate: u64, idle: bool) {
        let behind_ns = if idle { 0 } else { CATCH_UP_NS };
        let from = self.next.max(Instant(now.0.saturating_sub(behind_ns)));
        let link_ns = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        self.next = from.after(u64::try_from(link_ns).unwrap_or(u64::MAX));
    }
}

const TRAIN_NS: u64 = 100_000;
const TRAIN_NS_MAX: u64 = 200_000;
const TRAIN_BYTES: u64 = 12 << 10;
const CATCH_UP_NS: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_caller_catches_up_with_a_millisecond_at_most() {
        const GIGABIT: u64 = 125_000_000;
        let mut pacer = Pacer::new(Instant(0));
        let train_bytes = |at_ns, rate, idle| pacer.train_bytes(Instant(at_ns), rate, idle);
        assert_eq!(train_bytes(0, 10 * GIGABIT, false), 125_000);
        assert_eq!(train_bytes(0, GIGABIT, false), 12_500);
        assert_eq!(train_bytes(0, GIGABIT / 2, false), 12_288);
        assert_eq!(train_bytes(0, GIGABIT / 5, false), 5_000);
        assert_eq!(train_bytes(400_000, GIGABIT, false), 62_500, "what is due goes as one");
        assert_eq!(train_bytes(5_000_000, GIGABIT, false), 137_500);
        assert_eq!(train_bytes(5_000_000, GIGABIT, true), 12_500);
        pacer.handle_sent(Instant(0), 12_500, GIGABIT, true);
        assert_eq!(pacer.next(), Instant(100_000));
        pacer.handle_sent(Instant(500_000), 12_500, GIGABIT, false);
        assert_eq!(pacer.next(), Instant(200_000), "four more trains may go at once");
        let mut at_once = 0;
        while pacer.next() <= Instant(50_000_000) {
            pacer.handle_sent(Instant(50_000_000), 12_500, GIGABIT, false);
            at_once += 1;
        }
        assert_eq!(at_once, 11);
        pacer.handle_sent(Instant(90_000_000), 12_500, GIGABIT, true);
        assert_eq!(pacer.next(), Instant(90_100_000), "after a pause one train");
    }
}
