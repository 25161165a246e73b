//! What becomes due with time: closes, HAVE and READY, the goodbye; and the next timeout.

use super::Consensus;
use crate::event::{Event, OwnSlot, To};
use alloc::vec::Vec;
use plesio_wire::sideband::{Have, HaveEntry, Leave, Message, Ready};
use plesio_wire::{Ballot, Bounded, Frame, Instant, MemberIndex, MemberSet, SlotSeq};

/// HAVEs of one burst of arrivals travel together.
const HAVE_BATCH_NS: u64 = 1_000_000;
/// What is held is told again so many parts of a frame before the close.
const HAVE_EARLY: u64 = 8;
const LEAVE_EVERY_NS: u64 = 100_000_000;
/// A mesh clock goes back only where it enters anew: one that fell back further than this many frames has.
const FRAMES_BACK_MAX: u64 = 1;
/// Frames in a row that may well be void; a clock that is further ahead of the log may be wrong.
const FRAMES_AWAY_MAX: u64 = 2;
/// Nobody asks to be woken sooner: a bound on the work of a wrong deadline.
const WAKE_NS_MIN: u64 = 100_000;

#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Timers {
    have_due: Option<Instant>,
    /// How many times the whole HAVE list was repeated before the close of that frame.
    have_repeated: (Frame, usize),
    /// What the next proposers, or all members, were told of it, and in which view and frame.
    have_told: Vec<(MemberIndex, SlotSeq)>,
    have_told_in: (u32, Frame),
    /// When everybody was told all of it, for want of knowing who is next.
    have_told_all: Instant,
    leave_due: Instant,
}

impl Timers {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            have_due: None,
            have_repeated: (Frame(0), 0),
            have_told: Vec::new(),
            have_told_in: (0, Frame(0)),
            have_told_all: Instant(0),
            leave_due: now,
        }
    }

    pub(super) fn have_changed(&mut self, now: Instant) {
        let due = now.after(HAVE_BATCH_NS);
        self.have_due = Some(self.have_due.map_or(due, |known| known.min(due)));
    }
}

impl Consensus {
    /// Does what is due. Learning an entry may make more due, hence the few rounds.
    pub(super) fn advance(&mut self, now: Instant) {
        if !self.is_started || self.is_halted {
            return;
        }
        for _ in 0..4 {
            let index = self.log.index;
            self.wake = None;
            self.tick_frame(now);
            self.tick_quorum(now);
            if self.stopped.is_some() {
                break;
            }
            self.tick_votes(now);
            self.tick_have(now);
            self.tick_ready(now);
            self.tick_leave(now);
            self.tick_seal(now);
            self.tick_attempt(now);
            self.tick_pace(now);
            self.tick_departure(now);
            self.tick_poll(now);
            self.tick_fetch(now);
            if self.log.index == index {
                break;
            }
        }
    }

    /// Asks to be woken at `at`.
    pub(super) fn alarm(&mut self, now: Instant, at: Instant) {
        let at = at.max(now.after(WAKE_NS_MIN));
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn tick_frame(&mut self, now: Instant) {
        let Some(closed) = self.clock.closed(now, self.log.view.schedule()) else { return };
        let before = self.pace.closed;
        let fell_back = before.is_some_and(|before| closed.0.saturating_add(FRAMES_BACK_MAX) < before.0);
        if before.is_none_or(|before| closed > before) || fell_back {
            if let Some(frame) = before
                && !fell_back
                && frame.0 > 0
                && self.pace.opened < frame
                && self.is_member()
            {
                self.events.push_back(Event::Void { frame });
            }
            let at = self.close_local(closed).unwrap_or(now);
            self.pace.close(closed, at, self.log.open.is_some());
            self.timers.have_changed(now);
            self.control.handle_frame(&self.log.view, self.heard());
            let before = Instant(now.0.saturating_sub(2 * self.period_ns()));
            self.counters.unknown_total += self.offers.forget_unknown(before);
        }
        if let Some(at) = self.close_local(closed.next()) {
            self.alarm(now, at);
        }
    }

    fn tick_quorum(&mut self, now: Instant) {
        if !self.is_member() {
            return;
        }
        let has_quorum = self.has_quorum();
        if has_quorum != self.quorum_told {
            self.quorum_told = has_quorum;
            if has_quorum {
                // Who was not heard did not hear either.
                self.own.announce_anew(now);
            }
            let (live, members) = (self.heard().len(), self.log.members());
            self.events.push_back(if has_quorum { Event::Quorum } else { Event::NoQuorum { live, members } });
        }
    }

    /// Frame whose ballot owners want to know what is here.
    pub(super) fn frame_now(&self) -> Frame {
        self.pace.closed.map_or(self.log.frame_first(), Frame::next)
    }

    /// Whether what is held has waited for two frames and nobody listed anything: the frames may be others' by now.
    fn is_passed_over(&self, now: Instant) -> bool {
        self.log.open.is_none()
            && now.since(self.pace.index_since) >= 2 * self.period_ns()
            && self.offers.held().next().is_some()
    }

    /// Whether it is known whose ballot is next. A clock that is frames ahead of the log does not say: others may go by
    /// one that is behind, and what a member has would never reach those who propose by another clock. Where the log is
    /// ahead, the next ballot is of the log's frame.
    fn knows_frame(&self) -> bool {
        self.pace.closed.is_some_and(|closed| closed.0 <= self.log.frame_first().0 + FRAMES_AWAY_MAX)
    }

    fn tick_have(&mut self, now: Instant) {
        if !self.is_member() {
            return;
        }
        let frame = self.frame_now();
        self.repeat_have(now, frame);
        let next = frame.max(self.log.frame_first());
        match self.timers.have_due {
            Some(due) if now >= due && (!self.knows_frame() || self.is_passed_over(now)) => {
                // Without a clock this owner cannot tell whose close is next, and no close makes it repeat itself:
                // everybody hears what is new, and all of it once a frame, as before the closes that the clock knows.
                self.timers.have_due = Some(now.after(self.period_ns()));
                if now.since(self.timers.have_told_all) >= self.period_ns() {
                    self.timers.have_told_all = now;
                    self.timers.have_told.clear();
                }
                self.tell_news(next, MemberSet::first(self.log.members()));
            }
            Some(due) if now >= due => {
                self.timers.have_due = None;
                self.tell_news(next, self.next_proposers(next));
            }
            _ => {}
        }
        if let Some(due) = self.timers.have_due {
            self.alarm(now, due);
        }
    }

    /// The first two members, in ballot order, who will propose at the close of `frame`: of those with a clock, and of those
    /// of them whom this member hears. Mostly these are the same; whom it alone does not hear proposes all the same.
    fn next_proposers(&self, frame: Frame) -> MemberSet {
        let members = self.log.members();
        let all = MemberSet::first(members);
        let timed = all.without(self.members.untimed(&self.log.view, self.config.me));
        let mut next = MemberSet::EMPTY;
        for able in [if timed.is_empty() { all } else { timed }, self.punctual()] {
            let owners = (0..members as u32).map(|term| Ballot { frame, term }.owner(members));
            owners.filter(|owner| able.contains(*owner)).take(2).for_each(|owner| next.insert(owner));
        }
        next
    }

    /// Before the close of `frame` all of it is told again, twice: an eighth of a frame ahead, so that a word that was lost
    /// still comes in time over a path that is slow at that moment, and shortly before it for what came since.
    fn repeat_have(&mut self, now: Instant, frame: Frame) {
        let Some(close) = self.close_local(frame) else { return };
        let last_ns = self.config.have_lead_ns;
        let leads_ns = [last_ns.max(self.period_ns() / HAVE_EARLY), last_ns];
        let at = |lead_ns: u64| Instant(close.0.saturating_sub(lead_ns));
        let due = leads_ns.iter().filter(|lead_ns| now >= at(**lead_ns)).count();
        let (of, done) = self.timers.have_repeated;
        if due > if of == frame { done } else { 0 } {
            self.timers.have_repeated = (frame, due);
            self.timers.have_due = Some(now);
            self.timers.have_told.clear();
        }
        if let Some(next_ns) = leads_ns.get(due) {
            self.alarm(now, at(*next_ns));
        }
    }

    fn tell_news(&mut self, frame: Frame, to: MemberSet) {
        let news = self.have_news(frame);
        for member in to.iter() {
            self.send_have_of(member, &news);
        }
    }

    /// What this owner has and did not tell the proposers of `frame` yet.
    fn have_news(&mut self, frame: Frame) -> Vec<HaveEntry> {
        let held: Vec<HaveEntry> = self.have_entries();
        let told = &mut self.timers.have_told;
        if core::mem::replace(&mut self.timers.have_told_in, (self.log.view.number, frame))
            != (self.log.view.number, frame)
        {
            told.clear();
        }
        let slot = |entry: &HaveEntry| (entry.member, SlotSeq(entry.slot_seq));
        let news = held.iter().filter(|entry| !told.contains(&slot(entry))).copied().collect();
        *told = held.iter().map(slot).collect();
        news
    }

    fn have_entries(&self) -> Vec<HaveEntry> {
        let entry = |(member, seq, sumsq): (MemberIndex, SlotSeq, u64)| HaveEntry {
            member,
            slot_seq: seq.0,
            sumsq,
            ..HaveEntry::default()
        };
        self.offers.held().map(entry).collect()
    }

    /// Tells `member` everything that this owner has.
    pub(super) fn send_have(&mut self, member: MemberIndex) {
        self.send_have_of(member, &self.have_entries());
    }

    fn send_have_of(&mut self, member: MemberIndex, entries: &[HaveEntry]) {
        let frame = self.frame_now();
        let mut have = Have { frame, entries: Bounded::default() };
        for entry in entries {
            if have.entries.push(*entry).is_err() {
                self.send_member(member, Message::Have(have));
                have = Have { frame, entries: Bounded::from_slice(&[*entry]) };
            }
        }
        if !have.entries.is_empty() {
            self.send_member(member, Message::Have(have));
        }
    }

    pub(super) fn send_ready(&mut self, slot: &OwnSlot) {
        let ready = Ready {
            slot_seq: u64::from(slot.seq.0),
            target: slot.target,
            base_version: slot.base,
            n_steps: slot.n_steps,
            digest: slot.digest,
            ..Ready::default()
        };
        self.send(To::All, Message::Ready(ready));
    }

    /// READY is said again until the slot is listed, for whoever did not hear it: after a frame, since none lists it
    /// sooner, and then every fourth, since what takes frames to bring mostly is on its way.
    fn tick_ready(&mut self, now: Instant) {
        let every_ns = self.ready_ns();
        while let Some(slot) = self.own.next_due(now, every_ns).filter(|_| self.is_member()) {
            self.send_ready(&slot);
            self.counters.resent_total += 1;
        }
        if let Some(due) = self.own.poll_timeout() {
            self.alarm(now, due);
        }
    }

    /// How long a READY may take to be answered by being listed.
    pub(super) fn ready_ns(&self) -> u64 {
        self.period_ns().max(self.resend_ns())
    }

    fn tick_leave(&mut self, now: Instant) {
        if !self.is_leaving || !self.is_member() {
            return;
        }
        if now >= self.timers.leave_due {
            self.timers.leave_due = now.after(LEAVE_EVERY_NS);
            self.send(To::All, Message::Leave(Leave { incarnation: self.config.incarnation }));
        }
        self.alarm(now, self.timers.leave_due);
    }
}
