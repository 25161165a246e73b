//! Rate and delay: a filter of delivery rates sets the pace, a delay target over the base round trip sets the window,
//! and losses count only where they are more than a path's own.
//!
//! ```text
//!  Start ── rate stands, or a queue ──▶ Drain ── queue is gone ──▶ Cruise ──── 6 rounds ────▶ Up
//!  2.5 x rate ◀── the rate had grown ── rate / 2.5                 1 x rate ◀─ Down (3/4) ◀─ 5/4, while rate grows
//! ```
//!
//! The pace is the largest delivery rate of ten rounds, probed upwards every eight, as BBR does (Cardwell, Cheng, Gunn,
//! Yeganeh, Jacobson, "BBR: congestion-based congestion control", 2016; draft-ietf-ccwg-bbr), and the samples are those
//! of draft-cheng-iccrg-delivery-rate-estimation. What may queue is bounded as in LEDBAT (RFC 6817): window = rate x
//! (base + noise + target), or more where round trips swing by more than a queue of ours could. The fast start ends at a
//! queue, like HyStart++ (RFC 9406), and on a long path goes on after it like there, as well as at a rate that stands
//! still. Nobody reduces for a single loss (RFC 9002 does): radio links lose about 1 %.

use super::base::Base;
use super::loss::{LossMeter, Verdict};
use super::{CongestionController, Report};
use plesio_wire::Instant;

/// The controller for real paths.
#[derive(Debug)]
pub struct RateDelay {
    phase: Phase,
    base: Base,
    losses: LossMeter,
    /// Largest delivery rate of each of the last rounds, payload bytes per second.
    rates: [u64; ROUNDS],
    round: usize,
    round_since: Instant,
    /// Delivered payload at which the round ends.
    round_end_bytes: u64,
    /// The round saw the path's rate, not the sender's.
    unlimited: bool,
    /// Rate that the start, or the probe, has to exceed.
    mark: u64,
    /// Rounds of the start in which it did not.
    stalled: u32,
    /// Rate at which a queue ended the start last.
    doubt: u64,
    /// How often in a row one did at no higher rate.
    doubts: u32,
    /// One did in this round, whose mean says it again.
    doubted: bool,
    /// The start goes on once that queue is gone.
    resumes: bool,
    /// How much of the rate is used after losses, in 1/256.
    scale: u64,
    /// By how much a probe exceeds the rate, in 1/256.
    excess: u64,
    rate: u64,
    window_bytes: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Start,
    Drain,
    Cruise { rounds: u32 },
    Up { rounds: u32 },
    Down { rounds: u32 },
}

impl RateDelay {
    /// A path about which only a first guess of the round trip is known.
    #[must_use]
    pub fn new(rtt_initial_ns: u64) -> Self {
        let mut controller = Self {
            phase: Phase::Start,
            base: Base::new(),
            losses: LossMeter::new(),
            rates: [0; ROUNDS],
            round: 0,
            round_since: Instant(0),
            round_end_bytes: 1,
            unlimited: false,
            mark: 0,
            stalled: 0,
            doubt: 0,
            doubts: 0,
            doubted: false,
            resumes: false,
            scale: UNIT,
            excess: EXCESS_MAX,
            rate: 0,
            window_bytes: WINDOW_BYTES_FIRST,
        };
        controller.rate = per_second(WINDOW_BYTES_FIRST, rtt_initial_ns.max(1));
        controller
    }

    fn bandwidth(&self) -> u64 {
        self.rates.iter().copied().max().unwrap_or(0)
    }

    /// Queue that is aimed at: a quarter of the base, within bounds.
    fn target_ns(&self) -> u64 {
        (self.base.sample().unwrap_or(0) / 4).clamp(TARGET_NS_MIN, TARGET_NS_MAX)
    }

    fn is_queueing(&self) -> bool {
        self.base.queue_ns() > self.target_ns() + self.base.noise_ns()
    }

    /// A queue ends the start; jitter that holds for a round trip looks like one. So where the rate still grew, the start
    /// goes on after the queue is gone, as in RFC 9406, 4.2.
    fn doubt(&mut self) {
        let rate = self.bandwidth();
        self.doubts = if rate >= self.doubt + self.doubt / 4 { 0 } else { self.doubts + 1 };
        self.resumes = self.doubts < DOUBTS_MAX && !self.base.is_short();
        (self.phase, self.doubt, self.doubted) = (Phase::Drain, rate.max(self.doubt), true);
    }

    fn end_round(&mut self, report: &Report) {
        let before_ns = self.base.sample().unwrap_or(u64::MAX);
        self.base.end_round(report.now);
        if self.base.sample().is_some_and(|base_ns| base_ns > before_ns.saturating_add(before_ns / 4)) {
            // A longer route: what it carries has to be found anew.
            (self.phase, self.mark, self.stalled) = (Phase::Start, 0, 0);
            (self.doubt, self.doubts) = (0, 0);
        }
        let rate = self.bandwidth();
        match self.phase {
            Phase::Start => {
                if rate >= self.mark + self.mark / 4 {
                    (self.mark, self.stalled) = (rate, 0);
                } else if self.unlimited {
                    self.stalled += 1;
                }
                if self.stalled >= STALLED_MAX {
                    (self.phase, self.resumes) = (Phase::Drain, false);
                } else if self.is_queueing() && !self.doubted {
                    self.doubt();
                }
            }
            Phase::Drain => {}
            // The next probe comes when it would have come: what looks like a queue may never end.
            Phase::Cruise { rounds } if rounds > 0 && self.is_queueing() => {
                self.phase = Phase::Down { rounds: rounds - 1 };
            }
            Phase::Cruise { rounds: 0 } => (self.phase, self.mark) = (Phase::Up { rounds: 0 }, rate),
            Phase::Cruise { rounds } => self.phase = Phase::Cruise { rounds: rounds - 1 },
            // What it brings is told of a round trip later.
            Phase::Up { rounds: 0 } if !self.is_queueing() => self.phase = Phase::Up { rounds: 1 },
            Phase::Up { .. } if rate < self.mark + self.mark / 10 => {
                self.phase = Phase::Down { rounds: CRUISE_ROUNDS };
                self.excess = (self.excess + self.excess / 2).min(EXCESS_MAX);
            }
            Phase::Up { .. } => self.mark = rate,
            Phase::Down { rounds } => self.phase = Phase::Cruise { rounds },
        }
        if self.unlimited {
            self.round = (self.round + 1) % ROUNDS;
            self.rates[self.round] = 0;
        }
        (self.unlimited, self.doubted) = (false, false);
        self.round_since = report.now;
        self.round_end_bytes = report.delivered_bytes + report.in_flight_bytes;
    }

    fn handle_excess(&mut self) {
        self.scale = (self.scale * 7 / 8).max(SCALE_MIN);
        self.excess = (self.excess / 2).max(EXCESS_MIN);
        match self.phase {
            Phase::Start => (self.phase, self.resumes) = (Phase::Drain, false),
            Phase::Up { .. } => self.phase = Phase::Down { rounds: CRUISE_ROUNDS },
            _ => {}
        }
    }

    fn set(&mut self, in_flight_bytes: u64, chunk_bytes: u32) {
        let Some(base_ns) = self.base.sample() else { return };
        let rate = self.bandwidth();
        if rate == 0 {
            return;
        }
        let carried_ns = base_ns + self.base.noise_ns() + HELD_NS;
        if self.phase == Phase::Drain && in_flight_bytes <= in_time(rate, carried_ns) {
            self.phase = if self.resumes { Phase::Start } else { Phase::Cruise { rounds: CRUISE_ROUNDS } };
        }
        let own = self.losses.own() * UNIT / 1_024;
        let gain = match self.phase {
            Phase::Start if self.doubts > 0 => START_DOUBTED,
            Phase::Start => START,
            Phase::Drain => UNIT * UNIT / START,
            Phase::Cruise { .. } => UNIT,
            // Where the path loses on its own, only more than that is a probe.
            Phase::Up { .. } => UNIT + self.excess.max(EXCESS_MIN + own),
            Phase::Down { .. } => UNIT - UNIT / 4,
        };
        let scaled = |value: u64, by: u64| (u128::from(value) * u128::from(by) / u128::from(UNIT)) as u64;
        // A probe asks what the path carries, whatever was lost before: otherwise a rate once cut would only know itself.
        let scale = if matches!(self.phase, Phase::Up { .. }) { UNIT } else { self.scale };
        let (rate_before, window_bytes_before) = (self.rate, self.window_bytes);
        self.rate = scaled(scaled(rate, gain + own), scale).max(RATE_MIN);
        // What swings longer than a round trip is no queue that holding back would empty: were the window that of the
        // base, the rate would follow the window down, and the window the rate.
        let window_bytes = in_time(rate, carried_ns.max(self.base.swing_ns() + HELD_NS) + self.target_ns());
        let window_gain = match self.phase {
            Phase::Start => 2 * UNIT,
            // Held back by its window a probe would find nothing.
            Phase::Up { .. } => UNIT + UNIT / 2,
            _ => scale,
        };
        self.window_bytes = scaled(window_bytes, window_gain).max(CHUNKS_MIN * u64::from(chunk_bytes));
        if self.phase == Phase::Start {
            // The first samples span more time than payload.
            self.rate = self.rate.max(rate_before);
            self.window_bytes = self.window_bytes.max(window_bytes_before);
        }
    }
}

impl CongestionController for RateDelay {
    fn handle_report(&mut self, report: &Report) {
        self.base.handle_samples(report.rtt_sum_ns, report.packets);
        if self.phase == Phase::Start
            && !self.doubted
            && self.base.queue_so_far() > self.target_ns() + self.base.noise_ns()
        {
            self.doubt();
        }
        let rtt_ns = self.base.sample().unwrap_or(0) + self.base.queue_ns();
        let lost = (report.acked_bytes, report.lost_bytes, report.late_bytes);
        match self.losses.handle_losses(report.now, lost.0, lost.1, lost.2, rtt_ns) {
            Verdict::Open => {}
            Verdict::Fine => self.scale = (self.scale + UNIT / 16).min(UNIT),
            Verdict::Excess => self.handle_excess(),
        }
        if let Some(sample) = report.rate {
            let slot = &mut self.rates[self.round];
            if !sample.limited {
                *slot = (*slot).max(sample.rate);
                self.unlimited = true;
            } else if sample.rate > self.bandwidth() {
                self.rates[self.round] = sample.rate;
            }
        }
        // Over when what flew at its start has arrived: one packet that overtook the others ends no round.
        let round_ns = report.now.since(self.round_since);
        if report.delivered_bytes >= self.round_end_bytes && round_ns >= ROUND_NS_MIN {
            self.end_round(report);
        }
        self.set(report.in_flight_bytes, report.chunk_bytes);
    }

    fn window_bytes(&self) -> u64 {
        self.window_bytes
    }

    fn rate(&self) -> Option<u64> {
        Some(self.rate)
    }
}

/// Payload that `rate` carries in a time.
fn in_time(rate: u64, time_ns: u64) -> u64 {
    (u128::from(rate) * u128::from(time_ns) / 1_000_000_000).min(u128::from(u64::MAX / 4)) as u64
}

/// The rate of so much payload in a time.
pub(crate) fn per_second(bytes: u64, time_ns: u64) -> u64 {
    (u128::from(bytes) * 1_000_000_000 / u128::from(time_ns.max(1))).min(u128::from(u64::MAX / 4)) as u64
}

/// One, in the fixed point of gains.
const UNIT: u64 = 256;
/// Gain of the start: doubles the rate every round trip, with something to spare.
const START: u64 = 640;
/// After a queue that did not come with a higher rate: slower, as the conservative start of RFC 9406.
const START_DOUBTED: u64 = 384;
const STALLED_MAX: u32 = 3;
const DOUBTS_MAX: u32 = 3;
/// Rounds that the largest rate is remembered.
const ROUNDS: usize = 10;
/// On a short path a round of one round trip would see little but how acknowledgements bunch up.
const ROUND_NS_MIN: u64 = 2_000_000;
const CRUISE_ROUNDS: u32 = 6;
const EXCESS_MAX: u64 = UNIT / 4;
const EXCESS_MIN: u64 = UNIT / 16;
const SCALE_MIN: u64 = UNIT / 2;
const TARGET_NS_MIN: u64 = 1_000_000;
const TARGET_NS_MAX: u64 = 20_000_000;
/// How long a peer may hold an acknowledgement back, and a sleeper be late.
const HELD_NS: u64 = 1_500_000;
/// Nothing known: a message's unscheduled part may fly.
const WINDOW_BYTES_FIRST: u64 = 64 << 10;
/// Fewer in flight could not show a loss by newer ones.
const CHUNKS_MIN: u64 = 6;
/// 1 Mbit/s.
const RATE_MIN: u64 = 125_000;
