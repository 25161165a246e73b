//! The hysteretic phase corrector: margins in, a lead and a stride out, and the seven states of a member.
//!
//! ```text
//!            clock and G            late slots              fold, stale
//!   ACQUIRE ------------> LOCKED <-------------> STRAINED <-------------> SLIPPING
//!      ^  no clock for 2 s |  ^ clock back          ^                        | hopeless; other bits
//!      |                   v  |    jumped far       |                        v than a quorum, from anywhere
//!      |                HOLDOVER -------------------+                      RESYNC --> ACQUIRE
//!      +-- DETACHED <-- no quorum for T_dead, from any state that works; three failed resyncs
//! ```
//!
//! Two thresholds and a dwell keep it still: margins between `lo` and `hi` never move anything, and nothing moves
//! twice within `dwell` slots (I9). Where delays have a long tail that alone is not still enough: rows of early slots are
//! common there, and late ones seldom come in rows. So a lead that five of the last 64 slots would have been late at, which
//! is 8 %, is raised to what all but two of them needed, and no row of early ones lowers it below that, nor for less than a
//! fifth of a frame. Before there are 64, the largest of a few draws is the best word there is on a tail: two late ones are
//! enough then, and the lead goes to what all of them needed. A row of late slots alone raises it by what the least late of
//! them needed, not by what one of them happened to.
//!
//! The clock itself waits two seconds for a valid line before it says that it holds over, so nothing waits here. In
//! RESYNC and DETACHED the worker may go on for tau + 1 frames and stands then ([`Corrector::is_paused`]).

mod words;

pub use words::{ConfigError, CorrectorConfig, State, Transition};

use crate::{ClockState, MeshClock};
use plesio_wire::Instant;

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
    queued_in_row: u32,
    slow_in_row: u32,
    fast_in_row: u32,
    /// How long the newest transfers took, and the leads that the newest slots needed to be in time.
    transfers: [u64; TRANSFERS],
    needs: [u64; NEEDS],
    /// The early side waits so many times `dwell`: 4, and 1 without hysteresis.
    patience: u32,
    seen: u64,
    /// How many of these are, or were, in `needs`.
    learnt: u64,
    late: u8,  // of the last 8 slots, newest in bit 0
    slots: u8, // how many of the 8 are there
    clean_in_row: u32,
    full_frames: u32,
    // Conditions.
    clock: MeshClock,
    applied: bool,
    member: bool,
    quorum: bool,
    quorum_at: Instant,
    resync_failures: u32,
    resyncs: u32,
    /// The state could not be had: to be heard again is not enough to work on.
    stranded: bool,
    /// Since when this member is in RESYNC or DETACHED, and whether its time to go on is over.
    away_since: Option<Instant>,
    paused: bool,
}

impl Corrector {
    /// A corrector in ACQUIRE with no lead.
    ///
    /// # Errors
    /// The setting that is out of range.
    pub fn new(now: Instant, config: CorrectorConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            config,
            state: State::Acquire,
            transitions: [None; TRANSITIONS_MAX],
            lead_ns: 0,
            stride: 1,
            passes: 0,
            actuations: 0,
            slots_since_act: config.dwell,
            low_in_row: 0,
            high_in_row: 0,
            queued_in_row: 0,
            slow_in_row: 0,
            fast_in_row: 0,
            transfers: [u64::MAX; TRANSFERS],
            needs: [0; NEEDS],
            patience: PATIENCE,
            seen: 0,
            learnt: 0,
            late: 0,
            slots: 0,
            clean_in_row: 0,
            full_frames: 0,
            clock: MeshClock::default(),
            applied: false,
            member: true,
            quorum: true,
            quorum_at: now,
            resync_failures: 0,
            resyncs: 0,
            stranded: false,
            away_since: None,
            paused: false,
        })
    }

    /// The same without its two thresholds and its dwell: whatever is not in the middle of the band moves something, at
    /// once. For comparison in the simulator; no node does that.
    ///
    /// # Errors
    /// As [`Self::new`], of the settings as given.
    pub fn without_hysteresis(now: Instant, config: CorrectorConfig) -> Result<Self, ConfigError> {
        config.check()?;
        let middle = f64::midpoint(config.lo, config.hi);
        let mut corrector = Self::new(now, config)?;
        corrector.config = CorrectorConfig { lo: middle, hi: middle, dwell: 1, ..config };
        (corrector.patience, corrector.slots_since_act) = (1, 1);
        Ok(corrector)
    }

    /// The clock's newest line.
    pub fn handle_clock(&mut self, now: Instant, clock: &MeshClock) {
        self.clock = *clock;
        if clock.state == ClockState::Locked && self.state == State::Holdover {
            // What the free run was off is slewed away, and is inside the bound until then.
            self.enter(if self.clock_is_close() { State::Locked } else { State::Strained });
        }
        self.settle(now);
    }

    /// Whether the master state of the current version is held.
    pub fn handle_master(&mut self, now: Instant, applied: bool) {
        self.applied = applied;
        self.settle(now);
    }

    /// One of our slots was committed, or is late and not committed yet: once each.
    ///
    /// `margin_frames`: how long before the close of the frame it was aimed at the last owner had it; negative is late.
    /// `waited`: closes that it was complete for and passed unlisted. `staleness`: versions that its base lies behind.
    pub fn handle_slot(&mut self, now: Instant, margin_frames: f64, waited: u64, staleness: u64) {
        if margin_frames.is_finite() {
            let need_ns = self.lead_ns as f64 - margin_frames * self.config.period_ns as f64;
            self.needs.rotate_left(1);
            self.needs[NEEDS - 1] = need_ns.max(0.0) as u64;
            self.learnt = self.learnt.saturating_add(1);
            self.take(now, margin_frames, waited, staleness, false);
        }
    }

    /// The same of a slot that was cut while the one before it was still on its way. That it is late counts; of the lead
    /// it says nothing, because it waited for the other one and would have done so had it been cut sooner. It moves no lead
    /// and is not remembered as one that needed any.
    pub fn handle_slot_behind(&mut self, now: Instant, margin_frames: f64, waited: u64, staleness: u64) {
        if margin_frames.is_finite() {
            self.take(now, margin_frames, waited, staleness, true);
        }
    }

    fn take(&mut self, now: Instant, margin: f64, waited: u64, staleness: u64, behind: bool) {
        self.seen += 1;
        let is_late = margin < 0.0;
        let is_stale = staleness > self.config.staleness_max;
        self.late = self.late << 1 | u8::from(is_late);
        self.slots = (self.slots + 1).min(8);
        self.clean_in_row = if is_late || is_stale { 0 } else { self.clean_in_row.saturating_add(1) };
        self.act(margin, waited, behind);
        match self.state {
            State::Locked if self.late.count_ones() >= LATE_MAX => self.enter(State::Strained),
            State::Strained if is_stale => self.enter(State::Slipping),
            State::Strained if self.slots == 8 && self.late == 0 => self.enter(State::Locked),
            State::Slipping if staleness > 4 * self.config.staleness_max => self.resync(),
            State::Slipping if self.clean_in_row >= CLEAN_SLOTS => self.enter(State::Strained),
            _ => {}
        }
        self.settle(now);
    }

    /// One of our slots was folded or refused, or a full ring had no place for it.
    pub fn handle_fold(&mut self, now: Instant) {
        self.clean_in_row = 0;
        match self.state {
            // The buffer no longer absorbs: that ends LOCKED as late slots do.
            State::Locked => self.enter(State::Strained),
            State::Strained => self.enter(State::Slipping),
            _ => {}
        }
        self.settle(now);
    }

    /// A frame has closed with `fill` slots of the ring waiting; as many as it has: the worker found no place to cut.
    pub fn handle_frame(&mut self, now: Instant, fill: u8) {
        self.full_frames =
            if fill >= self.config.ring_depth { self.full_frames.saturating_add(1) } else { 0 };
        if self.state == State::Slipping && self.full_frames >= FULL_FRAMES_MAX {
            self.resync();
        }
        self.settle(now);
    }

    /// A quorum holds other bits of a version than this member: they are fetched.
    pub fn handle_diverged(&mut self, now: Instant) {
        if self.works() {
            self.resync();
        }
        self.settle(now);
    }

    /// How long a slot took on the wire. The shortest of the newest four is its `T_xfer`: a slow link is slow for all of
    /// them, a bad moment of it is not.
    pub fn handle_transfer(&mut self, transfer_ns: u64) {
        self.transfers.rotate_left(1);
        self.transfers[TRANSFERS - 1] = transfer_ns;
    }

    /// Whether those we hear, and we, weigh a quorum.
    pub fn handle_quorum(&mut self, now: Instant, contact: bool) {
        self.quorum = contact;
        if contact {
            self.quorum_at = now;
        }
        self.settle(now);
    }

    /// A fetch of the state has ended: it came, or nothing of use did.
    pub fn handle_resync(&mut self, now: Instant, done: bool) {
        self.stranded &= !done;
        if self.state == State::Resync {
            self.resync_failures = if done { 0 } else { self.resync_failures + 1 };
            if done {
                self.enter(State::Acquire);
            } else if self.resync_failures >= RESYNC_TRIES {
                self.resync_failures = 0;
                self.stranded = true;
                self.enter(State::Detached);
            }
        }
        self.settle(now);
    }

    /// Another view is in force. With another period, rows of margins begin anew, as they were counted in frames; the
    /// stride is the smallest that bears what transfers take, and a lead beyond three frames is cut. The lead itself is a
    /// time, and stays.
    pub fn handle_view(&mut self, now: Instant, member: bool, period_ns: u64) {
        let before_ns =
            core::mem::replace(&mut self.config.period_ns, period_ns.clamp(50_000_000, 60_000_000_000));
        self.lead_ns = self.lead_ns.min(3 * self.config.period_ns);
        if self.config.period_ns != before_ns {
            self.handle_period();
        }
        self.member = member;
        if member && self.state == State::Detached {
            self.quorum_at = now;
            self.stranded = false;
            self.enter(State::Acquire);
        }
        if !member && self.state != State::Detached {
            self.enter(State::Detached);
        }
        self.settle(now);
    }

    /// This node is the whole view: what it cuts goes nowhere, and what that took before says nothing any more.
    pub fn handle_alone(&mut self) {
        self.transfers = [u64::MAX; TRANSFERS];
        self.handle_period();
        self.stride = 1;
    }

    fn handle_period(&mut self) {
        (self.low_in_row, self.high_in_row, self.queued_in_row) = (0, 0, 0);
        (self.slow_in_row, self.fast_in_row, self.slots_since_act) = (0, 0, 0);
        if let Some(transfer_ns) = self.transfer_ns() {
            // T_xfer <= 0.8 q P.
            let frames = transfer_ns.saturating_mul(5).div_ceil(self.config.period_ns.saturating_mul(4));
            self.stride = u8::try_from(frames).unwrap_or(u8::MAX).clamp(1, STRIDE_MAX);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.settle(now);
    }

    /// When time alone may change the state.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let detach = (!self.quorum && self.works()).then(|| self.quorum_at.after(self.config.dead_ns));
        let pause = self.away_since.filter(|_| !self.paused).map(|since| since.after(self.away_ns()));
        detach.into_iter().chain(pause).min()
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

    /// Whether the worker has to stand still: this member is in RESYNC or DETACHED for longer than tau + 1 frames.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    /// How often RESYNC was entered: each time what is uncommitted and was never announced begins anew, on the version
    /// held then.
    #[must_use]
    pub const fn resyncs(&self) -> u32 {
        self.resyncs
    }

    /// Slots seen: nothing moves more often than once per `dwell` of them.
    #[must_use]
    pub const fn seen(&self) -> u64 {
        self.seen
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

    /// `T_xfer`; `None` before the first transfer.
    #[must_use]
    pub fn transfer_ns(&self) -> Option<u64> {
        self.transfers.into_iter().min().filter(|shortest| *shortest < u64::MAX)
    }

    /// The lead that all but two of the last 64 slots could do with; all, while there are fewer.
    fn needed_ns(&self) -> u64 {
        let mut needs = self.needs;
        needs.sort_unstable();
        needs[NEEDS - 1 - if self.knows_tail() { SPARED } else { 0 }]
    }

    const fn knows_tail(&self) -> bool {
        self.learnt >= NEEDS as u64
    }

    /// The lead that some slot of the last `dwell` could do with.
    fn row_needs_ns(&self, dwell: u32) -> u64 {
        let row = self.needs.iter().rev().take(dwell as usize);
        row.copied().min().unwrap_or(0)
    }

    /// Whether this slot is late, and so many of the last 64 would have been at this lead that it is no accident.
    fn is_late_often(&self, margin: f64) -> bool {
        let enough = if self.knows_tail() { LATE_OF_NEEDS } else { LATE_AT_FIRST };
        margin < 0.0 && self.needs.iter().filter(|need| **need > self.lead_ns).count() >= enough
    }

    const fn away_ns(&self) -> u64 {
        self.config.period_ns.saturating_mul(self.config.staleness_max.saturating_add(1))
    }

    fn resync(&mut self) {
        self.resyncs = self.resyncs.wrapping_add(1);
        self.resync_failures = 0;
        self.enter(State::Resync);
    }

    /// Transitions that need no slot: clock, quorum and master state.
    fn settle(&mut self, now: Instant) {
        if self.works() && !self.quorum && now.since(self.quorum_at) >= self.config.dead_ns {
            self.enter(State::Detached);
        }
        if self.state == State::Detached && self.member && self.quorum && !self.stranded {
            // The partition healed before anybody was removed.
            self.enter(State::Acquire);
        }
        let locked = self.clock.state == ClockState::Locked;
        if self.state == State::Acquire && locked && self.clock_is_close() && self.applied {
            self.enter(State::Locked);
        }
        if self.works() && self.state != State::Acquire && self.clock.state == ClockState::Acquire {
            // It slept, and has no clock until it has found the others' again.
            self.enter(State::Acquire);
        }
        if self.state == State::Locked && !locked {
            self.enter(State::Holdover);
        }
        self.away_since = (!self.works()).then(|| self.away_since.unwrap_or(now));
        self.paused = self.away_since.is_some_and(|since| now.since(since) >= self.away_ns());
    }

    /// At most one actuator, at most once per `dwell` slots, only where the margins mean something.
    /// A slot behind another moves stride and queue alone.
    fn act(&mut self, margin: f64, waited: u64, behind: bool) {
        self.slots_since_act = self.slots_since_act.saturating_add(1);
        let CorrectorConfig { lo, hi, dwell, .. } = self.config;
        let period = self.config.period_ns as f64;
        let stride = f64::from(self.stride);
        let transfer = self.transfer_ns().map(|transfer_ns| transfer_ns as f64 / period);
        if !behind {
            count(&mut self.low_in_row, margin < lo);
            count(&mut self.high_in_row, margin > hi);
        }
        // Every late slot leaves a queue of one, which costs a version of staleness and nothing else.
        count(&mut self.queued_in_row, margin >= lo && waited > 1);
        count(&mut self.slow_in_row, transfer.is_some_and(|frames| frames > 0.8 * stride));
        count(&mut self.fast_in_row, transfer.is_some_and(|frames| frames < 0.5 * (stride - 1.0)));
        let steers = matches!(self.state, State::Locked | State::Strained | State::Slipping);
        if !steers {
            // Frozen, and nothing seen meanwhile counts later.
            (self.low_in_row, self.high_in_row, self.queued_in_row) = (0, 0, 0);
        }
        if !steers || self.slots_since_act < dwell {
            return;
        }
        let lead_max_ns = 3 * self.config.period_ns;
        let is_late_often = self.is_late_often(margin);
        let (lead_ns, strode, passed) = (self.lead_ns, self.stride, self.passes);
        let patience = self.patience.saturating_mul(dwell);
        if self.slow_in_row >= dwell && self.stride < STRIDE_MAX {
            self.stride += 1;
        } else if !behind && (is_late_often || self.low_in_row >= dwell) {
            let row_ns = if self.low_in_row >= dwell { self.row_needs_ns(dwell) } else { 0 };
            let needed_ns = if is_late_often { row_ns.max(self.needed_ns()) } else { row_ns };
            let late = (needed_ns as f64 - self.lead_ns as f64) / period;
            // No more at once: whoever cuts a frame sooner from one slot to the next leaves a frame out.
            let later = (lo + late + 0.05).clamp(0.02, 0.5) * period;
            self.lead_ns = self.lead_ns.saturating_add(later as u64).min(lead_max_ns);
        } else if self.fast_in_row >= patience && self.stride > 1 {
            self.stride -= 1;
        } else if self.queued_in_row >= patience {
            // One slot of a member is committed per frame, so a queue once there stays: each slot waits as many frames
            // as there are before it, however late it is cut.
            self.passes = self.passes.wrapping_add(1);
        } else if !behind && self.high_in_row >= patience {
            let sooner = 0.5 * (margin - hi).clamp(0.02, 0.5) * period;
            let floor_ns = match self.needed_ns() {
                0 => 0,
                _ if self.patience == 1 => 0, // without hysteresis
                needed_ns => needed_ns.saturating_add((lo * period) as u64),
            };
            if self.lead_ns >= floor_ns.saturating_add(self.config.period_ns / LOWERED_BY) || floor_ns == 0 {
                self.lead_ns = self.lead_ns.saturating_sub(sooner as u64).max(floor_ns);
            }
        } else {
            return;
        }
        if self.stride == strode {
            (self.low_in_row, self.high_in_row, self.queued_in_row) = (0, 0, 0);
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
const PATIENCE: u32 = 4;
const TRANSFERS: usize = 4;
const NEEDS: usize = 64;
const LATE_OF_NEEDS: usize = 5;
const LATE_AT_FIRST: usize = 2;
/// So many of the newest needs may be beyond the lead.
const SPARED: usize = 2;
/// A lead is left alone until it is so many parts of a frame longer than needed.
const LOWERED_BY: u64 = 5;

#[cfg(test)]
mod tests;
