//! Whether the path loses more than a path may: loss counts only above 2 % in each of two round trips, and not where
//! holding back does not help.
//!
//! A radio link loses what it loses. So when two reductions in a row left the share of losses where it was, it is the
//! path's own, and only what goes well beyond it counts from then on; the memory of it fades once it loses less. A burst that hits one
//! round trip and not the next is nobody's fault.

use plesio_wire::Instant;

/// Watches losses, interval by interval.
#[derive(Debug)]
pub(super) struct LossMeter {
    since: Instant,
    acked_bytes: u64,
    lost_bytes: u64,
    /// The path's own share, in 1/1024.
    own: u64,
    /// The interval before this one lost too much.
    over: bool,
    /// Share before the first of the reductions in a row, in 1/1024.
    before: u64,
    reductions: u32,
}

/// What an interval came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// Not over yet, or too little was sent to tell.
    Open,
    /// The path is not overloaded.
    Fine,
    /// It loses too much.
    Excess,
}

impl LossMeter {
    pub(super) const fn new() -> Self {
        Self {
            since: Instant(0),
            acked_bytes: 0,
            lost_bytes: 0,
            own: 0,
            over: false,
            before: 0,
            reductions: 0,
        }
    }

    pub(super) fn handle_losses(
        &mut self,
        now: Instant,
        acked_bytes: u64,
        lost_bytes: u64,
        late_bytes: u64,
        rtt_ns: u64,
    ) -> Verdict {
        if self.acked_bytes + self.lost_bytes == 0 {
            self.since = now;
        }
        self.acked_bytes = self.acked_bytes.saturating_add(acked_bytes);
        self.lost_bytes = self.lost_bytes.saturating_add(lost_bytes).saturating_sub(late_bytes);
        let total_bytes = self.acked_bytes.saturating_add(self.lost_bytes);
        let elapsed_ns = now.since(self.since);
        let tells = total_bytes >= INTERVAL_BYTES
            || (total_bytes >= INTERVAL_BYTES_MIN && elapsed_ns >= INTERVAL_NS_MAX);
        if elapsed_ns < rtt_ns || !tells {
            return Verdict::Open;
        }
        let counted_bytes = self.lost_bytes.saturating_sub(LOST_BYTES_MIN);
        let share = (u128::from(counted_bytes) * 1_024 / u128::from(total_bytes)) as u64;
        (self.acked_bytes, self.lost_bytes) = (0, 0);
        self.judge(share)
    }

    /// The path's own share of losses, in 1/1024.
    pub(super) const fn own(&self) -> u64 {
        self.own
    }

    fn judge(&mut self, share: u64) -> Verdict {
        if share <= SHARE_MAX.max(self.own + self.own / 2) {
            if share < self.own / 2 {
                self.own -= self.own.div_ceil(16);
            }
            self.reductions = 0;
            self.over = false;
            return Verdict::Fine;
        }
        if !self.over {
            self.over = true;
            return Verdict::Open;
        }
        self.over = false;
        if self.reductions == 0 {
            self.before = share;
        }
        if self.reductions >= REDUCTIONS_MAX && share > self.before - self.before / 3 {
            self.own = share;
            self.reductions = 0;
            return Verdict::Fine;
        }
        self.reductions += 1;
        Verdict::Excess
    }
}

/// 2 %, in 1/1024.
const SHARE_MAX: u64 = 20;
/// Reductions in a row that must have helped.
const REDUCTIONS_MAX: u32 = 2;
/// In fewer bytes a share of losses is chance; a slow path is judged by less, but not by nothing.
const INTERVAL_BYTES: u64 = 512 << 10;
const INTERVAL_BYTES_MIN: u64 = 64 << 10;
const INTERVAL_NS_MAX: u64 = 100_000_000;
/// A handful of lost packets is chance.
const LOST_BYTES_MIN: u64 = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: u64 = 16 << 20;

    fn interval(meter: &mut LossMeter, at: &mut u64, per_mille: u64) -> Verdict {
        let lost_bytes = TOTAL * per_mille / 1_000;
        assert_eq!(meter.handle_losses(Instant(*at), 0, lost_bytes, 0, 1_000_000), Verdict::Open);
        *at += 1_000_000;
        let verdict = meter.handle_losses(Instant(*at), TOTAL - lost_bytes, 0, 0, 1_000_000);
        *at += 1;
        verdict
    }

    fn verdicts<const N: usize>(shares: [u64; N]) -> [Verdict; N] {
        let (mut meter, mut at) = (LossMeter::new(), 0);
        shares.map(|share| interval(&mut meter, &mut at, share))
    }

    #[test]
    fn only_much_loss_for_two_round_trips_counts_and_not_what_is_the_path_s_own() {
        use Verdict::{Excess, Fine, Open};
        assert_eq!(verdicts([18, 18, 18]), [Fine; 3]);
        assert_eq!(verdicts([300, 10, 300, 10]), [Open, Fine, Open, Fine], "bursts");
        assert_eq!(verdicts([200, 200, 120, 120, 60, 60]), [Open, Excess, Open, Excess, Open, Excess]);
        let own = verdicts([50, 50, 50, 50, 50, 50, 50, 60, 90, 90, 40]);
        assert_eq!(own, [Open, Excess, Open, Excess, Open, Fine, Fine, Fine, Open, Excess, Fine]);
    }

    #[test]
    fn late_packets_are_not_losses_and_few_bytes_tell_nothing() {
        let mut meter = LossMeter::new();
        assert_eq!(meter.handle_losses(Instant(0), TOTAL, TOTAL, 0, 1_000), Verdict::Open);
        assert_eq!(meter.handle_losses(Instant(9_000_000), 0, 0, TOTAL, 1_000), Verdict::Fine);
        assert_eq!(meter.handle_losses(Instant(20_000_000), 1_000, 1_000, 0, 1_000), Verdict::Open);
        assert_eq!(meter.handle_losses(Instant(900_000_000), 1_000, 1_000, 0, 1_000), Verdict::Open);
    }
}
