//! The hysteretic phase corrector: margins in, a lead and a stride out, and the seven states of a member.
//!
//! ```text
//!            clock and G            late slots              fold, stale
//!   ACQUIRE ------------> LOCKED <-------------> STRAINED <-------------> SLIPPING
//!      ^  no clock for 2 s |  ^ clock back          ^                        | hopeless
//!      |                   v  |    jumped far       |                        v
//!      |                HOLDOVER -------------------+                      RESYNC --> ACQUIRE
//!      +-- DETACHED <-- no quorum for T_dead, from any state that works; three failed resyncs
//! ```
//!
//! Two thresholds and a dwell keep it still: margins between `lo` and `hi` never move anything, and nothing moves
//! twice within `dwell` slots (I9).

use crate::{ClockState, MeshClock};
use plesio_wire::Instant;
use plesio_wire::sideband::state;

/// State of a member, as its beats carry it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum State {
    /// No clock lock or no state yet.
    Acquire = state::ACQUIRE,
    /// Margins inside the band.
    Locked = state::LOCKED,
    /// The corrector is acting.
    Strained = state::STRAINED,
    /// Slots fold or are refused; work goes on.
    Slipping = state::SLIPPING,
    /// The clock runs on its last rate.
    Holdover = state::HOLDOVER,
    /// Fetching the state.
    Resync = state::RESYNC,
    /// Not in the quorum.
    Detached = state::DETACHED,
}

impl State {
    /// The byte in BEAT.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl core::fmt::Display for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Acquire => "ACQUIRE",
            Self::Locked => "LOCKED",
            Self::Strained => "STRAINED",
            Self::Slipping => "SLIPPING",
            Self::Holdover => "HOLDOVER",
            Self::Resync => "RESYNC",
            Self::Detached => "DETACHED",
        })
    }
}

/// A change of state; every one belongs into the trace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transition {
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
}

/// Settings of the corrector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CorrectorConfig {
    /// Frame period P; 0.05 to 60 s.
    pub period_ns: u64,
    /// Smallest margin that is left alone, frames; 0 to 1.
    pub lo: f64,
    /// Largest margin that is left alone, frames; at least 0.1 above `lo`.
    pub hi: f64,
    /// Slots in a row before it acts; 1 to 64. The early side waits four times as long.
    pub dwell: u32,
    /// tau: versions a slot may lag; 2 to 64.
    pub staleness_max: u64,
    /// B: slots of the ring; 2 to 16.
    pub ring_depth: u8,
    /// `T_dead`: how long without a quorum before the member is detached.
    pub dead_ns: u64,
}

impl Default for CorrectorConfig {
    fn default() -> Self {
        Self {
            period_ns: 500_000_000,
            lo: 0.05,
            hi: 0.30,
            dwell: 2,
            staleness_max: 4,
            ring_depth: 4,
            dead_ns: 1_000_000_000,
        }
    }
}

/// A setting out of its range.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// Frame period outside 0.05..60 s.
    Period {
        /// The value.
        period_ns: u64,
    },
    /// Not 0 <= lo < hi <= 1 with hi - lo >= 0.1.
    Band {
        /// The lower value.
        lo: f64,
        /// The upper value.
        hi: f64,
    },
    /// Dwell outside 1..64 slots.
    Dwell {
        /// The value.
        dwell: u32,
    },
    /// tau outside 2..64 versions.
    Staleness {
        /// The value.
        staleness_max: u64,
    },
    /// Ring depth outside 2..16.
    Depth {
        /// The value.
        ring_depth: u8,
    },
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Period { period_ns } => {
                write!(f, "frame period {period_ns} ns is outside 0.05..60 s; choose one inside")
            }
            Self::Band { lo, hi } => {
                write!(f, "margin band {lo}..{hi}: 0 <= lo < hi <= 1 and hi - lo >= 0.1 must hold; widen it")
            }
            Self::Dwell { dwell } => write!(f, "dwell {dwell} is outside 1..64 slots; choose one inside"),
            Self::Staleness { staleness_max } => {
                write!(f, "tau {staleness_max} is outside 2..64 versions; choose one inside")
            }
            Self::Depth { ring_depth } => {
                write!(f, "ring depth {ring_depth} is outside 2..16; choose one inside")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

/// Steers how far ahead of its frame a member cuts, and every how many frames.
#[derive(Clone, Debug)]
pub struct Corrector {
    config: CorrectorConfig,
    state: State,
    transitions: [Option<Transition>; TRANSITIONS_MAX],
    // Actuators.
    lead_ns: u64,
    stride: u8,
    passes: u32,
    actuations: u64,
    slots_since_act: u32,
    // Phase detector.
    low_in_row: u32,
    high_in_row: u32,
    slow_in_row: u32,
    fast_in_row: u32,
    transfer_ns: Option<u64>,
    late: u8,  // of the last 8 slots, newest in bit 0
    slots: u8, // how many of the 8 are there
    clean_in_row: u32,
    full_frames: u32,
    // Conditions.
    clock: MeshClock,
    clock_valid_at: Instant,
    applied: bool,
    member: bool,
    quorum: bool,
    quorum_at: Instant,
    resync_failures: u32,
}

impl Corrector {
    /// A corrector in ACQUIRE with no lead.
    ///
    /// # Errors
    /// The setting that is out of range.
    pub fn new(now: Instant, config: CorrectorConfig) -> Result<Self, ConfigError> {
        let CorrectorConfig { period_ns, lo, hi, dwell, staleness_max, ring_depth, .. } = config;
        if !(50_000_000..=60_000_000_000).contains(&period_ns) {
            return Err(ConfigError::Period { period_ns });
        }
        // 0.1 has no exact float: allow for its rounding. NaN fails every comparison.
        if !(lo >= 0.0 && hi <= 1.0 && hi - lo >= 0.1 - 1e-9) {
            return Err(ConfigError::Band { lo, hi });
        }
        if !(1..=64).contains(&dwell) {
            return Err(ConfigError::Dwell { dwell });
        }
        if !(2..=64).contains(&staleness_max) {
            return Err(ConfigError::Staleness { staleness_max });
        }
        if !(2..=16).contains(&ring_depth) {
            return Err(ConfigError::Depth { ring_depth });
        }
        Ok(Self {
            config,
            state: State::Acquire,
            transitions: [None; TRANSITIONS_MAX],
            lead_ns: 0,
            stride: 1,
            passes: 0,
            actuations: 0,
            slots_since_act: dwell,
            low_in_row: 0,
            high_in_row: 0,
            slow_in_row: 0,
            fast_in_row: 0,
            transfer_ns: None,
            late: 0,
            slots: 0,
            clean_in_row: 0,
            full_frames: 0,
            clock: MeshClock::default(),
            clock_valid_at: now,
            applied: false,
            member: true,
            quorum: true,
            quorum_at: now,
            resync_failures: 0,
        })
    }

    /// The clock's newest line.
    pub fn handle_clock(&mut self, now: Instant, clock: &MeshClock) {
        self.clock = *clock;
        if clock.state == ClockState::Locked {
            self.clock_valid_at = now;
            if self.state == State::Holdover {
                // What the free run was off is slewed away, and is inside the bound until then.
                self.enter(if self.clock_is_close() { State::Locked } else { State::Strained });
            }
        }
        self.settle(now);
    }

    /// Whether the master state of the current version is held.
    pub fn handle_master(&mut self, now: Instant, applied: bool) {
        self.applied = applied;
        self.settle(now);
    }

    /// One of our slots was committed, or is late: its margin in frames (negative: late), and its staleness.
    pub fn handle_slot(&mut self, now: Instant, margin_frames: f64, staleness: u64) {
        if !margin_frames.is_finite() {
            return;
        }
        let is_late = margin_frames < 0.0;
        let is_stale = staleness > self.config.staleness_max;
        self.late = self.late << 1 | u8::from(is_late);
        self.slots = (self.slots + 1).min(8);
        self.clean_in_row = if is_late || is_stale { 0 } else { self.clean_in_row.saturating_add(1) };
        self.act(margin_frames);
        match self.state {
            State::Locked if self.late.count_ones() >= LATE_MAX => self.enter(State::Strained),
            State::Strained if is_stale => self.enter(State::Slipping),
            State::Strained if self.slots == 8 && self.late == 0 => self.enter(State::Locked),
            State::Slipping if staleness > 4 * self.config.staleness_max => self.enter(State::Resync),
            State::Slipping if self.clean_in_row >= CLEAN_SLOTS => self.enter(State::Strained),
            _ => {}
        }
        self.settle(now);
    }

    /// One of our slots was folded, merged or refused.
    pub fn handle_fold(&mut self, _now: Instant) {
        self.clean_in_row = 0;
        match self.state {
            // The buffer no longer absorbs: that ends LOCKED as late slots do.
            State::Locked => self.enter(State::Strained),
            State::Strained => self.enter(State::Slipping),
            _ => {}
        }
    }

    /// A frame has closed with `fill` slots of the ring waiting.
    pub fn handle_frame(&mut self, now: Instant, fill: u8) {
        self.full_frames =
            if fill >= self.config.ring_depth { self.full_frames.saturating_add(1) } else { 0 };
        if self.state == State::Slipping && self.full_frames >= FULL_FRAMES_MAX {
            self.enter(State::Resync);
        }
        self.settle(now);
    }

    /// How long a slot takes on the wire (`T_xfer`).
    pub fn handle_transfer(&mut self, transfer_ns: u64) {
        self.transfer_ns = Some(transfer_ns);
    }

    /// Whether those we hear, and we, weigh a quorum.
    pub fn handle_quorum(&mut self, now: Instant, contact: bool) {
        self.quorum = contact;
        if contact {
            self.quorum_at = now;
        }
        self.settle(now);
    }

    /// A fetch of the state has ended.
    pub fn handle_resync(&mut self, now: Instant, done: bool) {
        if self.state != State::Resync {
            return;
        }
        self.resync_failures = if done { 0 } else { self.resync_failures + 1 };
        if done {
            self.enter(State::Acquire);
        } else if self.resync_failures >= RESYNC_TRIES {
            self.resync_failures = 0;
            self.enter(State::Detached);
        }
        self.settle(now);
    }

    /// Another view is in force. A lead beyond three frames of the new period is cut.
    pub fn handle_view(&mut self, now: Instant, member: bool, period_ns: u64) {
        self.config.period_ns = period_ns.clamp(50_000_000, 60_000_000_000);
        self.lead_ns = self.lead_ns.min(3 * self.config.period_ns);
        self.member = member;
        if member && self.state == State::Detached {
            self.quorum_at = now;
            self.enter(State::Acquire);
        }
        if !member && self.state != State::Detached {
            self.enter(State::Detached);
        }
        self.settle(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.settle(now);
    }

    /// When time alone may change the state.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let detach = (!self.quorum && self.works()).then(|| self.quorum_at.after(self.config.dead_ns));
        let clock_lost = self.state == State::Locked && self.clock.state != ClockState::Locked;
        let hold = clock_lost.then(|| self.clock_valid_at.after(CLOCK_LOST_NS));
        match (detach, hold) {
            (Some(detach), Some(hold)) => Some(detach.min(hold)),
            (detach, hold) => detach.or(hold),
        }
    }

    /// What changed, oldest first.
    pub fn poll_event(&mut self) -> Option<Transition> {
        let first = self.transitions[0].take()?;
        self.transitions.rotate_left(1);
        Some(first)
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// How long before the close a slot is cut.
    #[must_use]
    pub const fn lead_ns(&self) -> u64 {
        self.lead_ns
    }

    /// Frames from one slot to the next.
    #[must_use]
    pub const fn stride(&self) -> u8 {
        self.stride
    }

    /// How many frames were to be let pass so far: slots that wait for their turn one behind the other are early by
    /// whole frames, and no lead explains that.
    #[must_use]
    pub const fn passes(&self) -> u32 {
        self.passes
    }

    /// How often an actuator moved.
    #[must_use]
    pub const fn actuations(&self) -> u64 {
        self.actuations
    }

    fn clock_is_close(&self) -> bool {
        u64::from(self.clock.eps_ns) < self.config.period_ns / 10
    }

    const fn works(&self) -> bool {
        !matches!(self.state, State::Resync | State::Detached)
    }

    /// Transitions that need no slot: clock, quorum and master state.
    fn settle(&mut self, now: Instant) {
        if self.works() && !self.quorum && now.since(self.quorum_at) >= self.config.dead_ns {
            self.enter(State::Detached);
        }
        if self.state == State::Detached && self.member && self.quorum {
            // The partition healed before anybody was removed.
            self.enter(State::Acquire);
        }
        let locked = self.clock.state == ClockState::Locked;
        if self.state == State::Acquire && locked && self.clock_is_close() && self.applied {
            self.clock_valid_at = now;
            self.enter(State::Locked);
        }
        if self.state == State::Locked && !locked && now.since(self.clock_valid_at) >= CLOCK_LOST_NS {
            self.enter(State::Holdover);
        }
    }

    /// At most one actuator, at most once per `dwell` slots, only where the margins mean something.
    fn act(&mut self, margin: f64) {
        self.slots_since_act = self.slots_since_act.saturating_add(1);
        let CorrectorConfig { lo, hi, dwell, .. } = self.config;
        let period = self.config.period_ns as f64;
        let stride = f64::from(self.stride);
        let transfer = self.transfer_ns.map(|transfer_ns| transfer_ns as f64 / period);
        count(&mut self.low_in_row, margin < lo);
        count(&mut self.high_in_row, margin > hi);
        count(&mut self.slow_in_row, transfer.is_some_and(|frames| frames > 0.8 * stride));
        count(&mut self.fast_in_row, transfer.is_some_and(|frames| frames < 0.5 * (stride - 1.0)));
        let steers = matches!(self.state, State::Locked | State::Strained | State::Slipping);
        if !steers {
            // Frozen, and nothing seen meanwhile counts later.
            (self.low_in_row, self.high_in_row) = (0, 0);
        }
        if !steers || self.slots_since_act < dwell {
            return;
        }
        let lead_max_ns = 3 * self.config.period_ns;
        let (lead_ns, strode, passed) = (self.lead_ns, self.stride, self.passes);
        if self.slow_in_row >= dwell && self.stride < STRIDE_MAX {
            self.stride += 1;
        } else if self.low_in_row >= dwell {
            let later = (lo - margin + 0.05).clamp(0.02, 0.5) * period;
            self.lead_ns = self.lead_ns.saturating_add(later as u64).min(lead_max_ns);
        } else if self.fast_in_row >= 4 * dwell && self.stride > 1 {
            self.stride -= 1;
        } else if self.high_in_row >= 4 * dwell {
            let sooner = 0.5 * (margin - hi).clamp(0.02, 0.5) * period;
            // One slot of a member is committed per frame, so a queue once there stays: each slot waits as many frames
            // as there are before it, however late it is cut.
            if margin > self.lead_ns as f64 / period + 1.0 {
                self.passes = self.passes.wrapping_add(1);
            } else {
                self.lead_ns = self.lead_ns.saturating_sub(sooner as u64);
            }
        } else {
            return;
        }
        if self.stride == strode {
            (self.low_in_row, self.high_in_row) = (0, 0);
        } else {
            (self.slow_in_row, self.fast_in_row) = (0, 0);
        }
        // A lead at its end stop has not moved.
        if (self.lead_ns, self.stride, self.passes) != (lead_ns, strode, passed) {
            self.actuations += 1;
            self.slots_since_act = 0;
        }
    }

    fn enter(&mut self, to: State) {
        let transition = Transition { from: self.state, to };
        self.state = to;
        self.full_frames = 0;
        if matches!(to, State::Acquire | State::Strained) {
            (self.late, self.slots, self.clean_in_row) = (0, 0, 0);
        }
        if let Some(free) = self.transitions.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(transition);
        } else {
            self.transitions.rotate_left(1);
            self.transitions[TRANSITIONS_MAX - 1] = Some(transition);
        }
    }
}

/// Extends the run while `holds`, else ends it.
fn count(run: &mut u32, holds: bool) {
    *run = if holds { run.saturating_add(1) } else { 0 };
}

const TRANSITIONS_MAX: usize = 16;
const LATE_MAX: u32 = 2;
const CLEAN_SLOTS: u32 = 8;
const FULL_FRAMES_MAX: u32 = 16;
const RESYNC_TRIES: u32 = 3;
const STRIDE_MAX: u8 = 16;
const CLOCK_LOST_NS: u64 = 2_000_000_000;

#[cfg(test)]
mod tests;
