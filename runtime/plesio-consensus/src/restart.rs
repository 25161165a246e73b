//! Beginning again from disks: who may, from what, and that it happens once (agreement, section 7).
//!
//! A process that comes back remembers nothing but its [`Record`]. While a quorum of the newest view keeps its memory the
//! mesh goes on, and who comes back asks to be let in. When none does, the log has ended, and those who came back begin a
//! new *generation*: the next stretch of the log, 2^40 indices further on, whose first entry is a view of themselves, from
//! the newest state that one of them has on its disk. So whatever an earlier generation still says lies below every index
//! of the new one, and who went on in the earlier one finds itself far behind (R1, R24).
//!
//! ```text
//!  all        RECORD: my newest decided view, and every view that may have followed it
//!  founder    the newest state among a quorum of each of those views: PROPOSE a view of those who were heard
//!  others     write it down, then PLEDGE: no part in anything before it
//!  founder    PLEDGE of a quorum of each of those views: the view stands, and its state is the founder's
//! ```
//!
//! Why there is never a second mesh. Nobody accepts a VIEW, or says that one is decided, before it stands in its record; so
//! whatever followed the newest view that a quorum tells of is told of by one of them. To every such view, pledges of
//! earlier foundings among them, a founder needs a quorum of processes without memory, and none of these votes in it ever
//! again. Safety uses no clock.

mod record;

pub use record::{RECORD_BYTES_MAX, Record, generation};

use crate::log::{FRAME_MAX, LogState};
use crate::quorum::is_quorum;
use crate::roster_digest;
use crate::snapshot::SnapshotCut;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::SocketAddr;
use plesio_wire::sideband::{Revive, RosterEntry, revive};
use plesio_wire::value::{Seat, View};
use plesio_wire::{Digest, Frame, Incarnation, Instant, LogIndex, MEMBERS_MAX, MemberSet, NodeKey, Version};
use record::{GENERATION_BITS, MAYBE_MAX, is_sound};

/// Who comes back.
#[derive(Clone, Copy, Debug)]
pub struct Returner {
    /// Where others find it, and its full id.
    pub entry: RosterEntry,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Digest of what all nodes of its mesh have in common.
    pub model: Digest,
}

/// What a restart leads to.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "one or two in the life of a process")]
pub enum Restarted {
    /// The record has changed: write it down, then [`Restart::handle_persisted`].
    Persist,
    /// This node begins a generation, from the state that it has on its disk.
    Found(Founding),
}

/// The first view of a generation, which stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Founding {
    /// Its index.
    pub index: LogIndex,
    /// The view.
    pub view: View,
    /// Where its members are.
    pub entries: Vec<RosterEntry>,
    /// Version and digest of the founder's checkpoint; none: the state that all begin with.
    pub checkpoint: Option<(Version, Digest)>,
    /// Newest version that one of them knows to have been held: what lies between is lost.
    pub reached: Version,
}

impl Founding {
    /// The cut that the generation begins from: nothing of any admission before it is known any more. `digest`: of the
    /// founder's state.
    #[must_use]
    pub fn cut(&self, digest: Digest) -> SnapshotCut {
        let (version, _) = self.checkpoint.unwrap_or_default();
        let begun = LogState { version_final: version, ..LogState::genesis(self.view) };
        let begun = LogState { index: self.index.next(), view_index: self.index, ..begun };
        SnapshotCut::of(&begun, digest)
    }
}

/// What another one that comes back said of itself.
#[derive(Clone, Debug)]
struct Heard {
    entry: RosterEntry,
    incarnation: Incarnation,
    at: Instant,
    record: Digest,
    views: Vec<Option<(LogIndex, View)>>,
    checkpoint: Option<(Version, Digest)>,
    reached: Version,
}

#[derive(Clone, Debug)]
struct Proposal {
    founding: Founding,
    digest: Digest,
    /// Views of which a quorum has to pledge itself.
    over: Vec<View>,
    /// What each was asked with: its record as it told it.
    records: BTreeMap<NodeKey, Digest>,
    pledged: Vec<NodeKey>,
    until: Instant,
}

#[derive(Clone, Copy, Debug)]
enum Waiting {
    /// For this node's own record, to ask the others.
    Own,
    /// To answer whoever proposed that view.
    Pledge(SocketAddr, Digest),
}

/// One process that came back from its disk and is not in a mesh yet; see the module.
#[derive(Debug)]
pub struct Restart {
    me: Returner,
    record: Record,
    checkpoint: Option<(Version, Digest)>,
    /// Where others may be.
    known: Vec<SocketAddr>,
    heard: BTreeMap<NodeKey, Heard>,
    quorate: Option<Instant>,
    proposal: Option<Proposal>,
    waiting: Option<Waiting>,
    /// The first view of the newest generation that this node is pledged to, and who began it.
    founder: Option<NodeKey>,
    /// This node begins one, and takes part in nothing else.
    is_founder: bool,
    out: VecDeque<(SocketAddr, Revive)>,
    events: VecDeque<Restarted>,
    due: Instant,
}

impl Restart {
    /// `me` came back with that record, a checkpoint of that version and digest, and addresses of others.
    #[must_use]
    pub fn new(
        me: Returner,
        record: Record,
        checkpoint: Option<(Version, Digest)>,
        known: impl IntoIterator<Item = SocketAddr>,
        now: Instant,
    ) -> Self {
        let mut restart = Self {
            me,
            record,
            checkpoint,
            known: Vec::new(),
            heard: BTreeMap::new(),
            quorate: None,
            proposal: None,
            waiting: None,
            founder: None,
            is_founder: false,
            out: VecDeque::new(),
            events: VecDeque::new(),
            due: now,
        };
        known.into_iter().for_each(|address| restart.know(address));
        restart
    }

    /// What is on the disk, or has to be.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// Whom this node is pledged to, who has the state that it will need.
    #[must_use]
    pub const fn founder(&self) -> Option<NodeKey> {
        self.founder
    }

    /// The state for the generation cannot be had: this node founds nothing, and looks around anew.
    pub const fn handle_unfounded(&mut self) {
        self.is_founder = false;
    }

    /// How many others that came back were heard lately.
    #[must_use]
    pub fn heard(&self) -> usize {
        self.heard.len()
    }

    /// A view is decided, as this node was told: a mesh lives. Whether that is news.
    pub fn handle_learnt(&mut self, index: LogIndex, view: &View) -> bool {
        self.record.learn(index, view)
    }

    /// The node is in a mesh again.
    #[must_use]
    pub fn into_record(self) -> Record {
        self.record
    }

    /// What another one that came back says.
    pub fn handle_message(&mut self, now: Instant, from: SocketAddr, body: &Revive) {
        let key = body.id.key();
        let is_ours = body.model == self.me.model && key != self.me.entry.id.key() && body.sideband.0 == from;
        if !is_ours {
            return;
        }
        match body.op {
            revive::RECORD => self.hear(now, key, body),
            revive::PROPOSE => self.answer(from, key, body),
            revive::PLEDGE => self.count(key, body.incarnation, body.digest),
            _ => {}
        }
        self.advance(now);
    }

    /// The record as it was at the last [`Restarted::Persist`] is on the disk.
    pub fn handle_persisted(&mut self, now: Instant) {
        match self.waiting.take() {
            Some(Waiting::Pledge(to, digest)) => {
                let word = Revive { digest, ..self.word(revive::PLEDGE) };
                self.out.push_back((to, word));
            }
            Some(Waiting::Own) => {
                let me = self.me.entry.id.key();
                if let Some(proposal) = &mut self.proposal {
                    proposal.pledged.push(me);
                }
                self.propose_again();
                self.settle();
            }
            None => {}
        }
        self.advance(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// The next word, and to whom.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Revive)> {
        self.out.pop_front()
    }

    /// The next thing to act on.
    pub fn poll_event(&mut self) -> Option<Restarted> {
        self.events.pop_front()
    }

    /// When to call [`Self::handle_timeout`].
    #[must_use]
    pub const fn poll_timeout(&self) -> Instant {
        self.due
    }

    fn know(&mut self, address: SocketAddr) {
        let is_own = address == self.me.entry.sideband.0;
        if !is_own && self.known.len() < KNOWN_MAX && !self.known.contains(&address) {
            self.known.push(address);
        }
    }

    fn word(&self, op: u8) -> Revive {
        let (version, digest) = self.checkpoint.unwrap_or_default();
        Revive {
            id: self.me.entry.id,
            incarnation: self.me.incarnation,
            model: self.me.model,
            sideband: self.me.entry.sideband,
            data: self.me.entry.data,
            op,
            reached: self.record.reached.max(version),
            checkpoint: self.checkpoint.map_or(0, |(version, _)| version.0.saturating_add(1)),
            digest,
            ..Revive::default()
        }
    }

    fn hear(&mut self, now: Instant, key: NodeKey, body: &Revive) {
        let parts = usize::from(body.parts);
        let is_whole = (1..=1 + MAYBE_MAX).contains(&parts) && body.part < body.parts;
        if !is_whole || !is_sound(body.index, &body.view) {
            return;
        }
        if self.heard.len() >= KNOWN_MAX && !self.heard.contains_key(&key) {
            return;
        }
        self.know(body.sideband.0);
        let entry =
            RosterEntry { id: body.id, sideband: body.sideband, data: body.data, weight: WEIGHT_THOUSANDTHS };
        let checkpoint = body.checkpoint.checked_sub(1).map(|version| (Version(version), body.digest));
        let fresh = Heard {
            entry,
            incarnation: body.incarnation,
            at: now,
            record: body.record,
            views: alloc::vec![None; parts],
            checkpoint,
            reached: body.reached,
        };
        let heard = self.heard.entry(key).or_insert_with(|| fresh.clone());
        let same = (heard.incarnation, heard.record, heard.views.len(), heard.checkpoint, heard.entry)
            == (fresh.incarnation, fresh.record, parts, checkpoint, entry);
        if !same {
            *heard = fresh;
        }
        (heard.at, heard.reached) = (now, body.reached);
        if let Some(view) = heard.views.get_mut(usize::from(body.part)) {
            *view = Some((body.index, body.view));
        }
        // Its record says as much as a PLEDGE that was lost.
        self.count(key, body.incarnation, body.view.digest());
    }

    /// Somebody wants to begin a generation: this node pledges itself if it knows of nothing that the other one does not.
    fn answer(&mut self, from: SocketAddr, founder: NodeKey, body: &Revive) {
        let (index, view, digest) = (body.index, &body.view, body.view.digest());
        if self.record.maybe.contains(&(index, *view)) {
            // Asked again; what is being written is answered when it is.
            if self.waiting.is_none() {
                self.out.push_back((from, Revive { digest, ..self.word(revive::PLEDGE) }));
            }
            return;
        }
        let me = self.me.entry.id.key();
        let seated = view.index_of(me).and_then(|at| view.members.get(usize::from(at)));
        let is_mine = seated.is_some_and(|seat| seat.incarnation == self.me.incarnation);
        let is_next = index.0 % (1 << GENERATION_BITS) == 0
            && self
                .record
                .views()
                .all(|(at, old)| generation(*at) < generation(index) && old.number < view.number);
        let is_covered = body.record == self.record.digest();
        let is_free = !self.is_founder && self.waiting.is_none() && is_sound(index, view);
        if is_free && is_mine && is_next && is_covered && self.record.pledge(index, view) {
            self.proposal = None;
            self.founder = Some(founder);
            self.waiting = Some(Waiting::Pledge(from, digest));
            self.events.push_back(Restarted::Persist);
        }
    }

    /// That life has written down that view.
    fn count(&mut self, key: NodeKey, life: Incarnation, digest: Digest) {
        let Some(proposal) = &mut self.proposal else { return };
        let view = &proposal.founding.view;
        let seat = view.index_of(key).and_then(|at| view.members.get(usize::from(at)));
        let counts = digest == proposal.digest
            && seat.is_some_and(|seat| seat.incarnation == life)
            && !proposal.pledged.contains(&key);
        if counts {
            proposal.pledged.push(key);
            self.settle();
        }
    }

    /// Whether quorums of all views that may be in force are pledged, this node among them.
    fn settle(&mut self) {
        let me = self.me.entry.id.key();
        let stands = |proposal: &Proposal| {
            proposal.pledged.contains(&me)
                && proposal.over.iter().all(|view| has_quorum(view, |key| proposal.pledged.contains(&key)))
        };
        if let Some(proposal) = self.proposal.take_if(|proposal| stands(proposal)) {
            // A pledge to anything later would forbid it what it begins.
            self.is_founder = true;
            self.events.push_back(Restarted::Found(proposal.founding));
        }
    }

    fn advance(&mut self, now: Instant) {
        self.heard.retain(|_, heard| now.since(heard.at) < SILENCE_NS);
        if now >= self.due {
            self.due = now.after(REPEAT_NS);
            self.look_after_proposal(now);
            // Nobody is told what is not on the disk yet.
            if self.waiting.is_none() {
                self.tell_record();
            }
            self.propose_again();
        }
        if self.proposal.is_none() && self.waiting.is_none() && !self.is_founder {
            self.consider(now);
        }
    }

    fn tell_record(&mut self) {
        let word = self.word(revive::RECORD);
        let (record, parts) = (self.record.digest(), self.record.views().len() as u8);
        for (part, (index, view)) in self.record.views().enumerate() {
            let word = Revive { part: part as u8, parts, record, index: *index, view: *view, ..word };
            self.out.extend(self.known.iter().map(|to| (*to, word)));
        }
    }

    /// A proposal waits as long as those who are asked are there as they were.
    fn look_after_proposal(&mut self, now: Instant) {
        let heard = &self.heard;
        let stays = |proposal: &Proposal, key: NodeKey, incarnation: Incarnation| {
            let same = |heard: &Heard| {
                heard.incarnation == incarnation && proposal.records.get(&key) == Some(&heard.record)
            };
            proposal.pledged.contains(&key) || heard.get(&key).is_some_and(same)
        };
        self.proposal.take_if(|proposal| {
            let seats = proposal.founding.view.members;
            let all = seats.iter().all(|seat| stays(proposal, seat.key, seat.incarnation));
            now >= proposal.until && !all
        });
    }

    fn propose_again(&mut self) {
        let me = self.me.entry.id.key();
        let word = self.word(revive::PROPOSE);
        let Some(proposal) = self.proposal.as_ref().filter(|proposal| proposal.pledged.contains(&me)) else {
            return;
        };
        let Founding { index, view, entries, .. } = &proposal.founding;
        for entry in entries.iter().filter(|entry| !proposal.pledged.contains(&entry.id.key())) {
            if let Some(record) = proposal.records.get(&entry.id.key()) {
                self.out.push_back((
                    entry.sideband.0,
                    Revive { index: *index, view: *view, record: *record, ..word },
                ));
            }
        }
    }

    /// Proposes a generation when everything that may be in force has lost its memory, and nobody has a newer state.
    fn consider(&mut self, now: Instant) {
        let me = self.me.entry.id.key();
        let whole: BTreeMap<NodeKey, &Heard> = self
            .heard
            .iter()
            .filter(|(_, heard)| heard.views.iter().all(Option::is_some))
            .map(|(key, heard)| (*key, heard))
            .collect();
        let mut decided = self.record.decided;
        let mut maybe: Vec<(LogIndex, View)> = self.record.maybe.clone();
        for heard in whole.values() {
            for (at, (index, view)) in heard.views.iter().flatten().enumerate() {
                if at > 0 {
                    maybe.push((*index, *view));
                } else if *index > decided.0 {
                    decided = (*index, *view);
                }
            }
        }
        maybe.retain(|(index, _)| *index > decided.0);
        maybe.sort_by_key(|(index, view)| (*index, view.digest()));
        maybe.dedup();
        let is_back = |key: NodeKey| key == me || whole.contains_key(&key);
        let over: Vec<View> =
            core::iter::once(decided.1).chain(maybe.iter().map(|(_, view)| *view)).collect();
        if !over.iter().all(|view| has_quorum(view, is_back)) {
            self.quorate = None;
            return;
        }
        let since = *self.quorate.get_or_insert(now);
        let all = over.iter().flat_map(|view| view.members.iter()).all(|seat| is_back(seat.key));
        let gathered = since.after(GATHER_NS);
        if !all && now < gathered {
            self.due = self.due.min(gathered);
            return;
        }
        let version = |key: NodeKey| {
            let checkpoint =
                if key == me { self.checkpoint } else { whole.get(&key).and_then(|heard| heard.checkpoint) };
            checkpoint.map(|(version, _)| version)
        };
        let seats = decided.1.members.iter().map(|seat| seat.key).filter(|key| is_back(*key));
        if seats.max_by_key(|key| (version(*key), Reverse(*key))) != Some(me) {
            return;
        }
        let newest = maybe.iter().map(|(index, _)| *index).fold(decided.0, LogIndex::max);
        let index = (generation(newest) + 1) << GENERATION_BITS;
        let number = over.iter().map(|view| view.number).max().and_then(|number| number.checked_add(1));
        let (Some(number), true) = (number, index < FRAME_MAX) else { return };
        let mut entries = Vec::new();
        let mut view = View {
            origin: Frame(0),
            effective: Frame(0),
            // Frames are counted from the beginning of mesh time again.
            anchor: Frame(0),
            anchor_close: 0,
            number,
            previous: decided.1.digest(),
            members: plesio_wire::Bounded::default(),
            shares: plesio_wire::shares::Shares::default(),
            ..decided.1
        };
        for key in keys_of(&over, is_back) {
            let (entry, incarnation) = match whole.get(&key) {
                Some(heard) => (heard.entry, heard.incarnation),
                None => (self.me.entry, self.me.incarnation),
            };
            entries.push(entry);
            // No more of them than a view holds.
            let _ = view.members.push(Seat { key, incarnation, admitted: LogIndex(index) });
        }
        view.roster = roster_digest(&entries);
        let reached =
            whole.values().map(|heard| heard.reached).fold(self.word(revive::RECORD).reached, Version::max);
        let records = whole.iter().map(|(key, heard)| (*key, heard.record)).collect();
        let index = LogIndex(index);
        if !self.record.pledge(index, &view) {
            return;
        }
        self.founder = None;
        self.proposal = Some(Proposal {
            digest: view.digest(),
            founding: Founding { index, view, entries, checkpoint: self.checkpoint, reached },
            over,
            records,
            pledged: Vec::new(),
            until: now.after(PROPOSAL_NS),
        });
        self.waiting = Some(Waiting::Own);
        self.events.push_back(Restarted::Persist);
    }
}

/// All whose pledges may be needed, in order: also those who may have been let in after the newest decided view, the first.
fn keys_of(over: &[View], is_there: impl Fn(NodeKey) -> bool) -> Vec<NodeKey> {
    let mut keys: Vec<NodeKey> = Vec::new();
    for seat in over.iter().flat_map(|view| view.members.iter()).filter(|seat| is_there(seat.key)) {
        if keys.len() < MEMBERS_MAX && !keys.contains(&seat.key) {
            keys.push(seat.key);
        }
    }
    keys.sort_unstable();
    keys
}

/// Whether those of a view of whom `is_there` says so are a quorum of it.
fn has_quorum(view: &View, is_there: impl Fn(NodeKey) -> bool) -> bool {
    let mut there = MemberSet::EMPTY;
    for (at, seat) in view.members.iter().enumerate() {
        if is_there(seat.key) {
            there.insert(at as u16);
        }
    }
    is_quorum(view.members.len(), there)
}

/// Others that are heard, and addresses that are spoken to.
const KNOWN_MAX: usize = 64;
/// Weight that a roster says of everybody.
const WEIGHT_THOUSANDTHS: u32 = 1_000;
const REPEAT_NS: u64 = 200_000_000;
/// Who is silent for so long is not there.
const SILENCE_NS: u64 = 1_500_000_000;
/// How long a quorum waits for the others, of whom one may have a newer state.
const GATHER_NS: u64 = 2_000_000_000;
/// How long a founder asks for pledges before it looks around anew.
const PROPOSAL_NS: u64 = 3_000_000_000;

#[cfg(test)]
mod tests;
