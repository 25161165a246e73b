//! Falling behind and coming back: polls, answers to them, fetching G, and the way out (R1, R13, R18, R24).
//!
//! A poll is a QUERY of the ballot (0, 0): nobody promises anything for it, and whoever learnt that index answers
//! DECIDED.

use super::Consensus;
use crate::event::{Event, To};
use crate::quorum::is_quorum;
use alloc::vec::Vec;
use plesio_wire::sideband::{Message, Query, Snapshot};
use plesio_wire::value::View;
use plesio_wire::{Instant, LogIndex, MEMBERS_MAX, MemberIndex, MemberSet, NodeKey, Version};

/// Entries told at once to one who asks.
const DECIDED_MAX: usize = 4;
/// Polls of nodes that are no members, and of leavers.
const OUTSIDE_POLL_NS: u64 = 100_000_000;
/// A member that learnt SEAL needs a moment to apply it.
const SOURCE_APPLIES_NS: u64 = 5_000_000;
/// Unanswered polls after which a claim to be ahead is forgotten.
const POLLS_MAX: u32 = 16;

/// What this node knows of others being ahead.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Lag {
    /// Highest index somebody claims to have reached.
    index: LogIndex,
    peer: Option<NodeKey>,
    polls: u32,
    due: Instant,
    cursor: u64,
    /// Who answered that it cannot tell what comes next: lives that came by a snapshot themselves.
    unable: Vec<NodeKey>,
    /// Members that accepted SEAL of that version.
    sources: (Version, MemberSet),
}

impl Lag {
    pub(super) const fn new(seed: u64) -> Self {
        let sources = (Version(0), MemberSet::EMPTY);
        let unable = Vec::new();
        Self { index: LogIndex(0), peer: None, polls: 0, due: Instant(0), cursor: seed, unable, sources }
    }

    /// Whether somebody claims to have learnt what this node has not.
    pub(super) fn is_behind(&self, index: LogIndex) -> bool {
        self.index > index
    }

    pub(super) fn note_sources(&mut self, version: Version, members: MemberSet) {
        self.sources = (version, members);
    }
}

/// A G that is wanted.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Fetching {
    due: Instant,
    tried: u64,
    /// What came was too old; the next SEAL is the time to ask again.
    is_refused: bool,
}

impl Fetching {
    /// One that nobody was asked for yet.
    pub(super) const fn new(now: Instant) -> Self {
        Self { due: now, tried: 0, is_refused: false }
    }
}

/// A state on its way, however long that takes. Versions sealed meanwhile are gathered: the sum of their results is
/// what the state lacks when it is here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Basis {
    /// What is on its way.
    pub(super) version: Version,
    /// Up to where results were gathered.
    pub(super) gathered: Version,
}

/// This node has left: it serves until a quorum of the new view has learnt that (R18).
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) index: LogIndex,
    view: View,
    pub(super) shown: MemberSet,
    due: Instant,
}

impl Consensus {
    /// This node may lag more than it knows (RESYNC): it asks at once.
    pub fn handle_resync(&mut self, now: Instant) {
        self.lag.polls = 0;
        self.lag.due = now;
        self.advance(now);
    }

    /// Whether this node holds the newest version that a quorum says it holds, and nothing is on its way.
    #[must_use]
    pub fn is_up_to_date(&self) -> bool {
        self.has_state
            && self.applying.is_none()
            && self.basis.is_none()
            && self.held == self.log.version_final
            && self.held >= self.version_reached()
    }

    /// The newest final version that members who are a quorum, this one included, say they hold: no single claim moves it.
    #[must_use]
    pub fn version_reached(&self) -> Version {
        let mut holds: Vec<(Version, MemberIndex)> = MemberSet::first(self.log.members())
            .iter()
            .filter_map(|member| Some((self.key_of(member)?, member)))
            .map(|(key, member)| {
                (if key == self.config.me { self.held } else { self.members.hold(key) }, member)
            })
            .collect();
        holds.sort_unstable_by(|a, b| b.cmp(a));
        let mut holders = MemberSet::EMPTY;
        for (version, member) in holds {
            holders.insert(member);
            if is_quorum(self.log.members(), holders) {
                return version;
            }
        }
        self.held
    }

    /// Somebody speaks of an index above d.
    pub(super) fn note_ahead(&mut self, now: Instant, from: NodeKey, index: LogIndex) {
        if index > self.log.index && index.0 < crate::log::FRAME_MAX {
            if self.lag.index <= self.log.index {
                self.lag.polls = 0;
                self.lag.due = now;
            }
            self.lag.index = self.lag.index.max(index);
            self.lag.peer = Some(from);
        }
    }

    /// An entry or a cut was learnt: with more to come, ask for it at once.
    pub(super) fn note_learnt(&mut self) {
        self.lag.polls = 0;
        self.lag.unable.clear();
        if self.lag.index > self.log.index {
            self.lag.due = Instant(0);
        }
    }

    pub(super) fn tick_poll(&mut self, now: Instant) {
        if self.is_departed() {
            return;
        }
        if self.lag.polls > POLLS_MAX {
            self.lag.index = self.log.index;
            self.lag.polls = 0;
        }
        let is_behind = self.lag.is_behind(self.log.index);
        let every_ns = if is_behind {
            self.resend_ns() << (self.lag.polls / 4).min(4)
        } else if !self.is_member() {
            OUTSIDE_POLL_NS
        } else if self.round.accepted.is_some() && self.round.attempt.is_none() {
            2 * self.resend_ns()
        } else {
            (2 * self.period_ns()).max(1_000_000_000)
        };
        // Never later than a whole interval from now, whatever interval was in force before.
        let due = self.lag.due.min(now.after(every_ns));
        if now >= due {
            self.lag.due = now.after(every_ns);
            self.lag.polls = self.lag.polls.saturating_add(u32::from(is_behind));
            let peer = self.lag.peer.filter(|peer| is_behind && !self.lag.unable.contains(peer));
            let peer = peer.filter(|_| !self.lag.polls.is_multiple_of(4));
            let next = peer.or_else(|| self.next_peer());
            if let Some(key) = next.filter(|key| *key != self.config.me) {
                let poll = Query { index: self.log.index, ..Query::default() };
                self.send(To::One(key), Message::Query(poll));
            }
        } else {
            self.lag.due = due;
        }
        self.alarm(now, self.lag.due);
    }

    /// The members in turn, those first who may be able to tell what comes next.
    fn next_peer(&mut self) -> Option<NodeKey> {
        let members = self.log.members() as u64;
        let mut unable = None;
        for _ in 0..members {
            self.lag.cursor = self.lag.cursor.wrapping_add(1);
            let member = (self.lag.cursor % members) as MemberIndex;
            match self.key_of(member).filter(|key| *key != self.config.me) {
                Some(key) if self.lag.unable.contains(&key) => unable = unable.or(Some(key)),
                Some(key) => return Some(key),
                None => {}
            }
        }
        unable
    }

    /// R1: asked about a lower index, a member answers DECIDED, or SNAPSHOT when that is too long ago.
    pub(super) fn answer_lower(&mut self, from: NodeKey, index: LogIndex) {
        // Who came by a snapshot has no entry to tell yet; its state says as much.
        let oldest = self.tail.front().map_or(self.log.index, |(oldest, _)| *oldest);
        if index >= oldest {
            let skip = (index.0 - oldest.0) as usize;
            let told: Vec<_> = self.tail.iter().skip(skip).take(DECIDED_MAX).copied().collect();
            for (index, value) in told {
                self.send(To::One(from), Message::Decided { index, value });
            }
        } else if self.has_state && self.held == self.cut.version_final && self.cut.index > index {
            let offer = Snapshot {
                op: 1,
                view: self.cut.view.number,
                index: self.cut.index,
                version: self.cut.version_final,
                digest: self.held_digest,
                ..Snapshot::default()
            };
            self.send(To::One(from), Message::Snapshot(offer));
        }
    }

    /// A member cannot tell the entries any more: its snapshot is to be fetched.
    pub(super) fn note_offer(&mut self, now: Instant, from: NodeKey, offer: &Snapshot) {
        let is_news = offer.op == 1 && offer.len_bytes == 0 && offer.index > self.log.index;
        let is_past = |departure: &mut Departure| {
            departure.view.index_of(from).is_some() && offer.index.0 > departure.index.0 + 1
        };
        // The view that this node left has gone on so far that its entries are forgotten: nobody waits for this node.
        if is_news && self.departure.take_if(is_past).is_some() {
            self.events.push_back(Event::Left);
            return;
        }
        if is_news && self.lag.unable.len() < MEMBERS_MAX && !self.lag.unable.contains(&from) {
            self.lag.unable.push(from);
        }
        let is_free = self.fetching.as_ref().is_none_or(|fetching| now >= fetching.due);
        if is_news && is_free && offer.version >= self.held {
            let due = now.after(self.config.fetch_retry_ns);
            self.fetching = Some(Fetching { due, tried: 1, is_refused: false });
            self.events.push_back(Event::Fetch { from, version: offer.version });
        }
    }

    /// A SEAL is learnt without being complete. Its shards may still come, so a node that lacks nothing else waits
    /// for a frame; any other asks now, when the G it gets stays good for longest.
    pub(super) fn fetch_after_seal(&mut self, now: Instant, may_complete: bool) {
        let due = now.after(if may_complete {
            self.period_ns().max(4 * self.t_prop_ns())
        } else {
            SOURCE_APPLIES_NS
        });
        match &mut self.fetching {
            // A transfer is under way: give it its time.
            Some(fetching) if fetching.tried > 0 && !fetching.is_refused => {}
            Some(fetching) => (fetching.due, fetching.is_refused) = (due, false),
            None => self.fetching = Some(Fetching { due, tried: 0, is_refused: false }),
        }
    }

    /// Late shards have no place any more.
    pub(super) fn fetch_by(&mut self, due: Instant) {
        let fetching = self.fetching.get_or_insert(Fetching { due, tried: 0, is_refused: false });
        if fetching.tried == 0 {
            fetching.due = fetching.due.min(due);
        }
    }

    /// What came was too old: ask again at once, or after the SEAL that made it so.
    pub(super) fn fetch_again(&mut self, now: Instant) {
        let is_open = self.log.open.is_some();
        if let Some(fetching) = &mut self.fetching {
            fetching.is_refused = is_open;
            if !is_open {
                fetching.due = now.after(SOURCE_APPLIES_NS);
            }
        }
    }

    /// A transfer goes on: it has its time again.
    pub(super) fn extend_fetch(&mut self, now: Instant) {
        let due = now.after(self.config.fetch_retry_ns);
        let fetching = self.fetching.get_or_insert(Fetching { due, tried: 1, is_refused: false });
        (fetching.due, fetching.is_refused) = (due, false);
        fetching.tried = fetching.tried.max(1);
    }

    /// What was fetched is of no use, or does not come: another one is asked soon.
    pub fn handle_unfetched(&mut self, now: Instant) {
        self.basis = None;
        let due = now.after(self.resend_ns());
        if let Some(fetching) = &mut self.fetching {
            fetching.due = fetching.due.min(due);
        }
        self.advance(now);
    }

    /// What is on its way is of no use any more: results of a version after it did not come.
    pub(super) fn abandon_basis(&mut self, now: Instant) {
        if self.basis.take().is_some() {
            self.fetching = Some(Fetching { due: now, tried: 0, is_refused: false });
        }
    }

    /// R13: a node that learnt SEAL without being complete fetches G from one that is.
    pub(super) fn tick_fetch(&mut self, now: Instant) {
        let version = self.log.version_final;
        if (self.has_state && self.held >= version) || self.applying.is_some() {
            if self.lag.index <= self.log.index {
                self.fetching = None;
            }
            return;
        }
        let fetching = self.fetching.get_or_insert(Fetching { due: now, tried: 0, is_refused: false });
        if now < fetching.due {
            let due = fetching.due;
            self.alarm(now, due);
            return;
        }
        self.basis = None;
        fetching.is_refused = false;
        let tried = fetching.tried + 1;
        let from = self.source(version, tried);
        // While nobody who holds it is heard there is nothing to give time to: who is heard again is asked at once.
        let wait_ns = if from.is_some() { self.config.fetch_retry_ns } else { self.resend_ns() };
        let due = now.after(wait_ns);
        self.fetching = Some(Fetching { due, tried, is_refused: false });
        self.alarm(now, due);
        if let Some(from) = from {
            self.events.push_back(Event::Fetch { from, version });
        }
    }

    /// Whom to fetch from: one known to hold it, others from the third try on.
    fn source(&self, version: Version, tried: u64) -> Option<NodeKey> {
        // Nobody beats towards a node that is no member, so its suspicions mean nothing.
        let all = MemberSet::first(self.log.members());
        let heard = if self.is_member() { self.heard() } else { all };
        let mut holders = MemberSet::EMPTY;
        for member in heard.iter() {
            let sealed = self.lag.sources.0 == version && self.lag.sources.1.contains(member);
            let holds = self.key_of(member).is_some_and(|key| self.members.hold(key) >= version);
            if sealed || holds {
                holders.insert(member);
            }
        }
        if let Some(me) = self.my_index() {
            holders.remove(me);
        }
        // What a quorum holds, where this node held something else.
        let mut right = MemberSet::EMPTY;
        for source in self.votes.sources() {
            self.log.view.index_of(*source).into_iter().for_each(|member| right.insert(member));
        }
        let right = right.and(heard);
        let mut choice = if !right.is_empty() {
            right
        } else if holders.is_empty() || tried.is_multiple_of(3) {
            heard
        } else {
            holders
        };
        if let Some(me) = self.my_index() {
            choice.remove(me);
        }
        let count = choice.len() as u64;
        let nth = self.config.seed.wrapping_add(tried).checked_rem(count)?;
        choice.iter().nth(nth as usize).and_then(|member| self.key_of(member))
    }

    /// This node's leave is decided: it goes on serving.
    pub(super) fn begin_departure(&mut self, now: Instant, index: LogIndex) {
        let view = self.log.view;
        self.departure = Some(Departure { index, view, shown: MemberSet::EMPTY, due: now });
    }

    fn is_departed(&self) -> bool {
        self.is_leaving && self.departure.is_none() && !self.is_member()
    }

    /// `from` has learnt everything below `index`.
    pub(super) fn count_departure(&mut self, from: NodeKey, index: LogIndex) {
        let Some(departure) = &mut self.departure else { return };
        if index > departure.index
            && let Some(member) = departure.view.index_of(from)
        {
            departure.shown.insert(member);
            if is_quorum(departure.view.members.len(), departure.shown) {
                self.departure = None;
                self.events.push_back(Event::Left);
            }
        }
    }

    /// Asks the new view's members whether they have learnt it; a DECIDED in answer is their HOLD beyond it.
    pub(super) fn tick_departure(&mut self, now: Instant) {
        // Who decides an entry has learnt all before it, and a quorum has decided every one: the new view goes on.
        if self.departure.take_if(|departure| self.log.index.0 > departure.index.0 + 1).is_some() {
            self.events.push_back(Event::Left);
        }
        let Some(departure) = &mut self.departure else { return };
        if now >= departure.due {
            departure.due = now.after(OUTSIDE_POLL_NS);
            let poll = Query { index: departure.index, ..Query::default() };
            let (view, shown) = (departure.view, departure.shown);
            for (at, seat) in view.members.iter().enumerate() {
                if !shown.contains(at as MemberIndex) {
                    self.send(To::One(seat.key), Message::Query(poll));
                }
            }
        }
        if let Some(departure) = &self.departure {
            let due = departure.due;
            self.alarm(now, due);
        }
    }
}
