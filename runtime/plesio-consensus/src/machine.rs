//! The whole machine: its state, the inputs that are no messages, the outputs and the questions.
//!
//! Every input ends in `advance`, which does what has become due and computes the next timeout; so no input needs
//! to know what it might have unblocked. What an input means apart from that has a name of its own where the
//! explorer of the agreement calls it (`by_hand`).

#[cfg(test)]
pub(crate) mod by_hand;
mod catchup;
pub(crate) mod conduct;
mod drive;
mod learn;
mod open;
mod pace;
mod propose;
mod receive;
mod votes;

use crate::config::{Config, ConfigError, Start, check_genesis};
use crate::event::{Cause, Counters, Event, FoldReason, OwnSlot, To};
use crate::ledger::Admission;
use crate::log::LogState;
use crate::members::Members;
use crate::offers::{Offers, Ready};
use crate::own::OwnSlots;
use crate::period::{PeriodControl, Report};
use crate::quorum::is_quorum;
use crate::round::Round;
use crate::snapshot::SnapshotCut;
use crate::timing::MeshClock;
use alloc::collections::VecDeque;
use catchup::{Basis, Departure, Fetching, Lag};
use conduct::Conduct;
use drive::Timers;
use open::{Late, OpenTrack};
use pace::Pace;
use plesio_wire::sideband::{Join, Message, RosterEntry, Speeds};
use plesio_wire::value::{Manifest, Value, View};
use plesio_wire::{
    Digest, Frame, Instant, LogIndex, MemberIndex, MemberSet, MeshTime, NodeKey, SlotSeq, Version,
};
use votes::Votes;

/// Decided entries kept to answer those who ask about a lower index.
const TAIL_MAX: usize = 64;
/// Messages waiting to be sent; more are dropped, as the network might have done.
const OUTBOX_MAX: usize = 4_096;

/// The version that is decided but not final.
#[derive(Clone, Copy, Debug)]
pub struct Open<'a> {
    /// Stamp of its result shards.
    pub context: LogIndex,
    /// Its number.
    pub version: Version,
    /// The entries that are summed, members numbered as in the view in force.
    pub manifest: &'a Manifest,
    /// Result shards that are here.
    pub shards: MemberSet,
}

/// The consensus machine of one node.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct Consensus {
    config: Config,
    clock: MeshClock,
    is_started: bool,
    pub(crate) log: LogState,
    pub(crate) round: Round,
    pub(crate) members: Members,
    pub(crate) offers: Offers,
    own: OwnSlots,
    /// The newest decided entries, ascending.
    pub(crate) tail: VecDeque<(LogIndex, Value)>,
    /// The newest prefix without an open version.
    cut: LogState,
    /// Final version whose G this node holds (c).
    held: Version,
    held_digest: Digest,
    /// There is a G at all: not while the first one is still on its way.
    has_state: bool,
    /// The state that is on its way, and what was gathered on top of it.
    basis: Option<Basis>,
    /// Sealed and complete here, but not reported as applied yet.
    applying: Option<Version>,
    seal_index: LogIndex,
    votes: Votes,
    conduct: Conduct,
    /// It commits nothing any more, and only answers.
    stopped: Option<Cause>,
    track: OpenTrack,
    late: Option<Late>,
    pace: Pace,
    control: PeriodControl,
    timers: Timers,
    lag: Lag,
    fetching: Option<Fetching>,
    is_leaving: bool,
    is_halted: bool,
    departure: Option<Departure>,
    quorum_told: bool,
    differs_told: bool,
    outbox: VecDeque<(To, Message)>,
    events: VecDeque<Event>,
    /// An entry was learnt and its events still wait: no attempt goes on before they are acted on, so `view` never
    /// runs ahead of them.
    is_unsettled: bool,
    wake: Option<Instant>,
    counters: Counters,
}

impl Consensus {
    /// A node at its start.
    ///
    /// # Errors
    /// [`ConfigError`] when a parameter is out of range or the genesis view breaks a rule.
    pub fn new(config: Config, start: Start, now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        let (log, is_started) = match start {
            Start::Genesis(view) => {
                check_genesis(&view)?;
                (LogState::genesis(view), true)
            }
            Start::Observer => (LogState::genesis(View::default()), false),
        };
        let mut offers = Offers::default();
        offers.reset(log.members());
        let members = Members::new(config.sharing);
        let mut machine = Self {
            lag: Lag::new(config.seed),
            config,
            clock: MeshClock::default(),
            is_started,
            round: Round::new(log.ballot_first()),
            members,
            offers,
            own: OwnSlots::default(),
            tail: VecDeque::new(),
            cut: log.clone(),
            held: Version(0),
            held_digest: Digest::default(),
            has_state: is_started,
            basis: None,
            applying: None,
            seal_index: LogIndex(0),
            votes: Votes::default(),
            conduct: Conduct::default(),
            stopped: None,
            track: OpenTrack::new(now),
            late: None,
            pace: Pace::new(now),
            control: PeriodControl::default(),
            timers: Timers::new(now),
            fetching: None,
            is_leaving: false,
            is_halted: false,
            departure: None,
            quorum_told: true,
            differs_told: false,
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            is_unsettled: false,
            wake: None,
            counters: Counters::default(),
            log,
        };
        machine.control.enter(&machine.log.view);
        if is_started {
            machine.tail.push_back((LogIndex(0), Value::View(machine.log.view)));
        }
        machine.advance(now);
        Ok(machine)
    }

    // ---- inputs

    /// The mesh clock as it stands, run on linearly until the next call.
    pub fn handle_clock(&mut self, now: Instant, mesh: MeshTime, rate_ppb: i32, usable: bool) {
        self.clock.set(now, mesh, rate_ppb, usable);
        self.advance(now);
    }

    /// The sideband's measured round trip, 99th percentile; take-overs wait for four of them.
    pub fn handle_rtt(&mut self, rtt_p99_ns: u64) {
        self.config.rtt_p99_ns = rtt_p99_ns.clamp(1, 10_000_000_000);
    }

    /// What was asked for by [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// A slot is frozen and announced from here on (R21).
    pub fn handle_cut(&mut self, now: Instant, slot: OwnSlot) {
        self.announce(now, slot);
        self.advance(now);
    }

    fn announce(&mut self, now: Instant, slot: OwnSlot) {
        let again = now.after(self.ready_ns());
        let admission = self.my_admission();
        // R23 (b) holds for what was begun so long ago, and no later version may come to say so: in a mesh that has
        // nothing else to commit it would be announced for ever.
        let stale = self.log.version().0.saturating_sub(slot.base.0) > self.config.tau;
        let announced = !stale
            && self.stopped.is_none()
            && !self.is_halted
            && admission
                .is_some_and(|admission| self.own.announce(again, slot, admission, self.config.ring_depth));
        if announced {
            if let Some(me) = self.my_index() {
                let ready = Ready { seq: slot.seq, base: slot.base, n_steps: slot.n_steps };
                self.offers.insert_ready(me, ready);
            }
            self.send_ready(&slot);
        } else {
            let reason =
                if stale && admission.is_some() { FoldReason::Stale } else { FoldReason::NotAnnounced };
            self.events.push_back(Event::Fold { seq: slot.seq, reason });
        }
    }

    /// This node, an owner in the view in force, has its shard of that slot complete.
    pub fn handle_held(&mut self, now: Instant, contributor: NodeKey, seq: SlotSeq, sumsq: u64) {
        if let (Some(me), Some(member)) = (self.my_index(), self.log.view.index_of(contributor)) {
            if self.is_barred(now, member) {
                return;
            }
            if self.offers.hold(now, me, member, seq, sumsq) {
                self.timers.have_changed(now);
            }
            self.advance(now);
        }
    }

    /// The result shard of `owner` in that context is here, the own one included. The context of the version
    /// sealed last counts too, until the next entry is learnt.
    pub fn handle_shard(&mut self, now: Instant, context: LogIndex, owner: MemberIndex) {
        if self.insert_shard(now, context, owner) {
            self.advance(now);
        }
    }

    fn insert_shard(&mut self, now: Instant, context: LogIndex, owner: MemberIndex) -> bool {
        let known = usize::from(owner) < self.log.members();
        if self.log.open.is_some() && context == self.log.context() && known {
            self.track.insert(now, owner);
            return true;
        }
        known && self.insert_late(context, owner)
    }

    /// G of `version` is computed. Version 0 may be reported once to tell its digest.
    pub fn handle_applied(&mut self, now: Instant, version: Version, digest: Digest) {
        self.note_applied(version, digest);
        self.advance(now);
    }

    fn note_applied(&mut self, version: Version, digest: Digest) {
        if version == self.held && self.votes.is_empty() {
            self.held_digest = digest;
        }
        if self.applying == Some(version) {
            self.applying = None;
            self.hold_state(version, digest);
            self.tell_digest(version, digest);
            self.complete_late();
        }
    }

    /// The result shards of a version to be applied or gathered are not there after all: its G is fetched, as by any
    /// node that learnt SEAL without them (R13).
    pub fn handle_unapplied(&mut self, now: Instant, version: Version) {
        if self.applying == Some(version) {
            self.applying = None;
            self.fetch_after_seal(now, false);
        } else if self.basis.is_some_and(|basis| basis.gathered >= version) {
            self.abandon_basis(now);
        }
        self.advance(now);
    }

    /// The state that was asked for is still arriving: nobody else needs to be asked yet.
    pub fn handle_transfer(&mut self, now: Instant) {
        self.extend_fetch(now);
    }

    /// The present verdict of the failure detector, whole each time: for suspects nobody waits, the dead are
    /// excluded at once.
    pub fn handle_suspects(&mut self, now: Instant, suspects: &[NodeKey], dead: &[NodeKey]) {
        self.members.set_verdict(suspects, dead);
        self.advance(now);
    }

    /// What members say of themselves, whole each time. Whoever has no mesh clock is passed over at a close, and slots
    /// are shown to who follows. Whoever hears no quorum has no slot but its own: what it lacks is listed all the same.
    pub fn handle_states(&mut self, now: Instant, untimed: &[NodeKey], detached: &[NodeKey]) {
        self.members.set_states(untimed, detached);
        self.advance(now);
    }

    /// A JOIN was heard; every repetition updates its HOLD.
    pub fn handle_joiner(&mut self, now: Instant, join: &Join) {
        if self.is_started && join.id.key() != self.config.me {
            let max = self.config.observers_max;
            self.members.insert_joiner(now, &self.log.view, join, max);
            self.advance(now);
        }
    }

    /// Addresses of members: proposed views carry their digest.
    pub fn handle_roster(&mut self, entries: &[RosterEntry]) {
        for entry in entries {
            self.members.insert_roster(&self.log.view, entry);
        }
    }

    /// HOLD of a beat: final version held, and the first index not learnt where the beat carries it.
    pub fn handle_hold(&mut self, now: Instant, from: NodeKey, version: Version, index: Option<LogIndex>) {
        if self.is_started && from != self.config.me {
            self.note_hold(now, from, version, index);
            self.advance(now);
        }
    }

    fn note_hold(&mut self, now: Instant, from: NodeKey, version: Version, index: Option<LogIndex>) {
        let index = index.unwrap_or_default();
        self.members.insert_hold(&self.log.view, from, version);
        self.count_departure(from, index);
        if version > self.log.version_final {
            self.note_ahead(now, from, LogIndex(self.log.index.0 + 1));
        }
        if index > self.log.index {
            self.note_ahead(now, from, index);
        }
    }

    /// What a member says it can do, this one included: views share out by it.
    pub fn handle_speeds(&mut self, from: NodeKey, speeds: Speeds) {
        if self.log.view.index_of(from).is_some() {
            self.members.sharing.insert(from, speeds);
        }
    }

    /// How long a member's slots and steps take, this one's included: the period follows the medians.
    pub fn handle_report(&mut self, from: NodeKey, report: Report) {
        if self.log.view.index_of(from).is_some() {
            self.control.insert(from, report);
        }
    }

    /// This node wants to leave; [`Event::Left`] tells when it may go (R18).
    pub fn handle_leave(&mut self, now: Instant) {
        self.is_leaving = true;
        if self.log.members() <= 1 || !self.is_member() || self.stopped.is_some() {
            self.events.push_back(Event::Left);
        } else {
            let frame = self.pace.closed.unwrap_or_default();
            self.members.insert_leaver(&self.log.view, self.config.me, self.config.incarnation, frame);
        }
        self.advance(now);
    }

    /// From here on this member stands still, or goes on: it says, hears, proposes, accepts and learns nothing, as if it
    /// were paused. What it promised, announced and holds stays; to go on is no sign of anybody's having been late.
    pub fn handle_halt(&mut self, now: Instant, is_halted: bool) {
        if self.is_halted && !is_halted {
            self.pace.resume(now);
            self.own.announce_anew(now);
            self.track.resume(now);
            if let Some(attempt) = &mut self.round.attempt {
                (attempt.since, attempt.sent) = (now, now);
            }
        }
        self.is_halted = is_halted;
        self.wake = None;
        self.advance(now);
    }

    // ---- outputs

    /// The next message to send; its header carries the view number of the moment.
    pub fn poll_transmit(&mut self) -> Option<(To, Message)> {
        self.outbox.pop_front()
    }

    /// The next thing to act on.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        self.is_unsettled &= event.is_some();
        event
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wake
    }

    // ---- questions

    /// The view in force; without members before an observer has its snapshot.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.log.view
    }

    /// Index of the view in force.
    #[must_use]
    pub fn view_index(&self) -> LogIndex {
        self.log.view_index
    }

    /// Whether somebody claims to have learnt more than this node has.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.lag.is_behind(self.log.index)
    }

    /// First index not learnt (d).
    #[must_use]
    pub fn index(&self) -> LogIndex {
        self.log.index
    }

    /// Newest sealed version in the learnt prefix.
    #[must_use]
    pub fn version_final(&self) -> Version {
        self.log.version_final
    }

    /// Newest final version whose G this node holds (c): HOLD.
    #[must_use]
    pub fn version_held(&self) -> Version {
        self.held
    }

    /// The version that is decided but not final.
    #[must_use]
    pub fn open(&self) -> Option<Open<'_>> {
        self.log.open.as_ref().map(|open| Open {
            context: self.log.context(),
            version: open.version,
            manifest: &open.manifest,
            shards: self.track.shards,
        })
    }

    /// This process's place in the view in force; a seat of an earlier life of it is not its own (R1, R19).
    #[must_use]
    pub fn my_index(&self) -> Option<MemberIndex> {
        let at = self.log.view.index_of(self.config.me)?;
        let seat = self.log.view.members.get(usize::from(at))?;
        (seat.incarnation == self.config.incarnation).then_some(at)
    }

    /// Whether this process is a member of the view in force.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.my_index().is_some()
    }

    /// Whether it has a state: from genesis on, or from its first snapshot.
    #[must_use]
    pub const fn is_started(&self) -> bool {
        self.is_started
    }

    /// Whether the members that are not suspected are a quorum of the view, this one being among them.
    #[must_use]
    pub fn has_quorum(&self) -> bool {
        self.is_member() && is_quorum(self.log.members(), self.heard())
    }

    /// Whether there is a G here: none before the first transfer is complete.
    #[must_use]
    pub const fn has_state(&self) -> bool {
        self.has_state
    }

    /// The frame in progress.
    #[must_use]
    pub fn frame_at(&self, now: Instant) -> Option<Frame> {
        self.clock.closed(now, self.log.view.schedule()).map(Frame::next)
    }

    /// The moment at which `frame` closes, on the local clock.
    #[must_use]
    pub fn close_local(&self, frame: Frame) -> Option<Instant> {
        self.clock.close_local(frame, self.log.view.schedule())
    }

    /// Own slots that are announced and neither released nor folded, and whether the open version lists them.
    pub fn own_slots(&self) -> impl Iterator<Item = (OwnSlot, bool)> + '_ {
        self.own.iter()
    }

    /// Registered joiners.
    pub fn observers(&self) -> impl Iterator<Item = NodeKey> + '_ {
        self.members.observers()
    }

    /// The newest cut without an open version, if its G is the one held; also while a later version is open, as
    /// G changes only at its SEAL.
    #[must_use]
    pub fn snapshot(&self) -> Option<SnapshotCut> {
        let fits = self.has_state && self.held == self.cut.version_final && self.applying.is_none();
        fits.then(|| SnapshotCut::of(&self.cut, self.held_digest))
    }

    /// What was refused or repeated.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    // ---- shared by the parts

    fn my_admission(&self) -> Option<Admission> {
        let at = self.my_index()?;
        self.log.view.members.get(usize::from(at)).map(Admission::of)
    }

    /// Members that are not suspected, as far as this node knows.
    fn heard(&self) -> MemberSet {
        MemberSet::first(self.log.members()).without(self.members.unheard(&self.log.view, self.config.me))
    }

    /// Members who may be waited for at a close: heard, and with a clock that tells them when it is.
    fn punctual(&self) -> MemberSet {
        self.heard().without(self.members.untimed(&self.log.view, self.config.me))
    }

    /// Members that must have a slot before it is listed.
    fn reached(&self) -> MemberSet {
        self.heard().without(self.members.detached(&self.log.view, self.config.me))
    }

    fn key_of(&self, member: MemberIndex) -> Option<NodeKey> {
        self.log.view.members.get(usize::from(member)).map(|seat| seat.key)
    }

    fn send(&mut self, to: To, message: Message) {
        if to == To::All && self.log.members() <= 1 {
            return;
        }
        if self.outbox.len() < OUTBOX_MAX {
            self.outbox.push_back((to, message));
        } else {
            self.counters.outbox_full_total += 1;
        }
    }

    fn send_member(&mut self, member: MemberIndex, message: Message) {
        if let Some(key) = self.key_of(member).filter(|key| *key != self.config.me) {
            self.send(To::One(key), message);
        }
    }

    fn period_ns(&self) -> u64 {
        self.log.view.schedule().period_ns
    }

    /// T_prop, wider with every ballot that went above another at this index, so that duels end.
    fn t_prop_ns(&self) -> u64 {
        let quiet_ns = (self.period_ns() / 4).max(4 * self.config.rtt_p99_ns);
        quiet_ns * u64::from(1 + self.round.churn / 4).min(16)
    }

    /// T_open: how long a version may stay open before its data is suspect (R14).
    fn t_open_ns(&self) -> u64 {
        (2 * self.period_ns()).max(self.config.t_dead_ns)
    }

    /// How long to wait before saying something again.
    fn resend_ns(&self) -> u64 {
        (self.period_ns() / 8).max(2 * self.config.rtt_p99_ns).max(20_000_000)
    }
}
