//! When this member proposes: at its close, for a stuck index, for a view that is due. Liveness only; whatever
//! these times are, R2 to R6 keep the log safe.
//!
//! Owners stand in ballot order. The first that is not suspected goes at once, each later one waits one more
//! T_prop of silence, and any sign of a higher ballot starts the wait anew; so duels end.

use super::Consensus;
use super::open::STALLED_AFTER;
use plesio_wire::{Ballot, Frame, Instant, MemberIndex, MemberSet};

#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Pace {
    /// Newest frame that has closed, and when it did.
    pub(super) closed: Option<Frame>,
    pub(super) close_at: Instant,
    /// Nothing more is to be proposed for that close.
    pub(super) close_done: bool,
    /// When this index became ours.
    pub(super) index_since: Instant,
    /// When a ballot of this index was last at work.
    pub(super) activity: Option<Instant>,
    gone_since: Option<Instant>,
    /// Origin of the newest MANIFEST learnt, and when that was.
    pub(super) opened: Frame,
    pub(super) opened_at: Instant,
}

impl Pace {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            closed: None,
            close_at: now,
            close_done: true,
            index_since: now,
            activity: None,
            gone_since: None,
            opened: Frame(0),
            opened_at: Instant(0),
        }
    }

    /// A close has come. With a version open the frame is void (R14).
    pub(super) fn close(&mut self, frame: Frame, at: Instant, is_open: bool) {
        (self.closed, self.close_at, self.close_done) = (Some(frame), at, is_open);
    }

    /// After a halt: nobody was silent, everybody stood still.
    pub(super) fn resume(&mut self, now: Instant) {
        (self.index_since, self.activity, self.gone_since) = (now, None, None);
    }

    pub(super) fn enter_index(&mut self, now: Instant) {
        self.index_since = now;
        self.activity = None;
    }
}

impl Consensus {
    pub(super) fn tick_pace(&mut self, now: Instant) {
        let Some(me) = self.my_index() else { return };
        if self.is_unsettled {
            self.alarm(now, now);
            return;
        }
        if self.round.attempt.is_some() || !self.has_quorum() {
            return;
        }
        let urgent = self.urgent_since(now);
        let stuck = self.stuck_since();
        let from = match (urgent, stuck) {
            (Some(urgent), Some(stuck)) => Some(urgent.min(stuck)),
            (urgent, stuck) => urgent.or(stuck),
        };
        if let Some(from) = from {
            let frame = self.pace.closed.unwrap_or_default();
            self.fire(now, me, from, frame, now >= from);
        }
        if self.is_unsettled {
            self.alarm(now, now);
        } else if self.round.attempt.is_none() && self.log.open.is_none() && !self.pace.close_done {
            self.pace_close(now, me);
        }
    }

    /// Starts an attempt when this member's turn has come, else sets the alarm.
    fn fire(&mut self, now: Instant, me: MemberIndex, from: Instant, frame: Frame, is_due: bool) {
        let Some((ballot, rank)) = self.my_next_ballot(me, frame, self.heard()) else { return };
        let from = self.quiet_from(from);
        let at = from.after(rank.saturating_mul(self.t_prop_ns()));
        if is_due && now >= at {
            self.begin_attempt(now, ballot);
        } else {
            self.alarm(now, at);
        }
    }

    /// `from`, but never sooner than T_prop after the last sign of a ballot at work.
    fn quiet_from(&self, from: Instant) -> Instant {
        self.pace.activity.map_or(from, |activity| from.max(activity.after(self.t_prop_ns())))
    }

    /// This member's next ballot, and how many of `waited_for` own one before it.
    fn my_next_ballot(&self, me: MemberIndex, frame: Frame, waited_for: MemberSet) -> Option<(Ballot, u64)> {
        let open = self.log.open.is_some();
        self.round.next_ballot(frame, me, self.log.members(), open, |owner| waited_for.contains(owner))
    }

    /// Members that are to be excluded now: those known to be gone, while the rest can go on (R15).
    pub(super) fn removable(&self, now: Instant) -> MemberSet {
        let gone = self.members.gone(now, &self.log.view, self.config.me);
        if gone.is_empty() || gone.len() >= self.log.members() {
            return MemberSet::EMPTY;
        }
        let view = self.members.next_view(&self.log, self.log.frame_first(), gone, &[]);
        let holds = self.members.holds_quorum(&self.log, &view, self.config.me, self.held);
        if holds { gone } else { MemberSet::EMPTY }
    }

    fn urgent_since(&mut self, now: Instant) -> Option<Instant> {
        if self.removable(now).is_empty() {
            self.pace.gone_since = None;
            return None;
        }
        let since = *self.pace.gone_since.get_or_insert(now);
        Some(since.max(self.pace.index_since))
    }

    /// Since when this index waits for somebody to go on with it.
    fn stuck_since(&self) -> Option<Instant> {
        if self.log.open.is_none() {
            // A value is accepted and its proposer has fallen silent.
            return self.round.accepted.is_some().then(|| self.quiet_from(self.pace.index_since));
        }
        if self.is_complete() && self.round.promised > self.round.first {
            return Some(self.quiet_from(self.pace.index_since));
        }
        // Something is missing for too long: ask who holds what.
        let asked = self.track.since.max(self.track.diagnosed);
        let stalled = self.track.since.after(STALLED_AFTER * self.t_open_ns());
        Some(asked.after(self.t_open_ns()).min(stalled))
    }

    /// The log ran ahead of this clock by frames: the closes go on, and every fourth is left out so that the lead shrinks,
    /// but no two in a row.
    fn is_due_ahead(&self, closed: Frame, first: Frame) -> bool {
        let was_left_out = self.pace.close_at >= self.pace.index_since.after(self.period_ns() * 3 / 2);
        (first.0 > closed.0 + 1 && !closed.0.is_multiple_of(4)) || was_left_out
    }

    /// R0: the owner of (k, 0) at T_k; the owner of (k, 1) after T_prop of silence, if it sees something to list. Who has no
    /// mesh clock knows of no T_k, and its turn goes to the next: where a mesh comes together again, that is most of it.
    fn pace_close(&mut self, now: Instant, me: MemberIndex) {
        let Some(closed) = self.pace.closed.filter(|_| self.clock.is_usable()) else { return };
        let first = self.log.frame_first();
        let frame = if closed >= first {
            closed
        } else if self.pace.opened < closed {
            // A VIEW took this frame's ballots before its close; the slots need not wait for one more frame. The
            // log is a frame ahead then, and a close that is left out makes up for it.
            first
        } else if self.is_due_ahead(closed, first) {
            first
        } else {
            return;
        };
        let next = self.my_next_ballot(me, frame, self.punctual());
        let Some((ballot, rank)) = next.filter(|(ballot, _)| ballot.frame == frame) else { return };
        if rank > 1 {
            return;
        }
        // Ahead of the clock the owner of the frame after a version has its turn at the same close: one version a frame.
        let spaced = self.pace.opened_at.after(self.period_ns() / 8 * 7);
        let from = if frame > closed { self.pace.close_at.max(spaced) } else { self.pace.close_at };
        let at = self.quiet_from(from).after(rank * self.t_prop_ns());
        if now < at {
            self.alarm(now, at);
            return;
        }
        self.pace.close_done = true;
        let untouched = self.round.is_fresh() || self.round.promised.frame < frame;
        let wanted = if rank == 0 { self.has_something(now) } else { untouched && self.has_something(now) };
        if wanted {
            self.begin_attempt(now, ballot);
        }
    }
}
