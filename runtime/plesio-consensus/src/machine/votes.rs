//! Which bits members hold, by their own word: digests of applied versions, compared as soon as there are two.
//!
//! ```text
//!   all alike ------------------------------------------------> go on
//!   a quorum says what this node says, somebody does not -----> count, report, go on
//!   a quorum says something else -----------------------------> RESYNC: give G up, fetch it from one of the quorum
//!   no digest can get a quorum any more ----------------------> stop
//! ```
//!
//! A word costs its sender nothing, so one alone moves nobody but itself. What a member says late may still decide; whoever
//! is in doubt says its own digest once more, and a digest said twice is answered with the own one.

use super::Consensus;
use super::catchup::Fetching;
use crate::event::{Cause, Event, To};
use crate::quorum::is_quorum;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use plesio_wire::sideband::{Message, Shard};
use plesio_wire::{Digest, Instant, LogIndex, MemberSet, NodeKey, Version};

/// Own digests kept to compare with those of others, and those of each of them.
const DIGESTS_MAX: usize = 8;
/// States given up in a row before this node takes itself for one that cannot reckon.
const RESYNCS_MAX: u32 = 3;
/// Versions without contradiction after which states given up before are forgotten.
const CALM_VERSIONS: u64 = 16;

#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub(super) struct Votes {
    /// Version, index of its SEAL, and digest.
    own: VecDeque<(Version, LogIndex, Digest)>,
    told: BTreeMap<NodeKey, VecDeque<(Version, Digest)>>,
    /// The newest version of which somebody says other bits, until that is settled.
    doubt: Option<Version>,
    /// When to ask those who have not said anything of it.
    ask_due: Option<Instant>,
    /// Newest version whose digest was said again, and to whom it was said by name.
    said_again: Option<Version>,
    answered: BTreeMap<NodeKey, Version>,
    /// Who says other bits than a quorum, until it does not any more.
    deviants: Vec<NodeKey>,
    /// States given up, and the version of the newest.
    resyncs: u32,
    resynced: Version,
    /// Who is known to hold what a quorum holds, while this node does not.
    sources: Vec<NodeKey>,
}

impl Votes {
    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty()
    }

    /// A state is held here.
    pub(super) fn hold(&mut self, version: Version, index: LogIndex, digest: Digest) {
        self.sources.clear();
        self.own.retain(|(own, ..)| *own != version);
        if self.own.len() == DIGESTS_MAX {
            self.own.pop_front();
        }
        self.own.push_back((version, index, digest));
        if self.resyncs > 0 && version.0 >= self.resynced.0.saturating_add(CALM_VERSIONS) {
            self.resyncs = 0;
        }
    }

    /// Whoever is no member has no say.
    pub(super) fn enter(&mut self, is_member: impl Fn(NodeKey) -> bool) {
        self.told.retain(|key, _| is_member(*key));
        self.answered.retain(|key, _| is_member(*key));
        self.deviants.retain(|key| is_member(*key));
    }

    /// A member's word; true when it has said that before.
    fn tell(&mut self, peer: NodeKey, version: Version, digest: Digest) -> bool {
        let told = self.told.entry(peer).or_default();
        if told.contains(&(version, digest)) {
            return true;
        }
        told.retain(|(before, _)| *before != version);
        if told.len() == DIGESTS_MAX {
            told.pop_front();
        }
        told.push_back((version, digest));
        false
    }

    fn ours(&self, version: Version) -> Option<(LogIndex, Digest)> {
        self.own.iter().find(|(own, ..)| *own == version).map(|(_, index, digest)| (*index, *digest))
    }

    fn said(&self, peer: NodeKey, version: Version) -> Option<Digest> {
        let told = self.told.get(&peer)?;
        told.iter().find(|(own, _)| *own == version).map(|(_, digest)| *digest)
    }

    pub(super) fn sources(&self) -> &[NodeKey] {
        &self.sources
    }
}

impl Consensus {
    /// Sends the digest of a version just applied or taken over, and compares it with what others said.
    pub(super) fn tell_digest(&mut self, version: Version, digest: Digest) {
        if self.is_member() {
            let shard = Shard { index: self.seal_index, version, digest };
            self.send(To::AllAndObservers, Message::Shard(shard));
        }
        let members = self.log.view.members;
        if members.iter().any(|seat| self.votes.said(seat.key, version).is_some_and(|said| said != digest)) {
            self.votes.doubt = Some(version);
        }
    }

    /// A member's digest: compared now if this node holds that version, else when it does.
    pub(super) fn compare_digest(&mut self, peer: NodeKey, version: Version, theirs: Digest) {
        let again = self.votes.tell(peer, version, theirs);
        let Some((index, ours)) = self.votes.ours(version) else { return };
        if theirs != ours {
            self.votes.doubt = self.votes.doubt.max(Some(version));
        } else {
            self.votes.deviants.retain(|deviant| *deviant != peer);
        }
        let answered = self.votes.answered.get(&peer).is_some_and(|answered| *answered >= version);
        if again && !answered && self.is_member() {
            self.votes.answered.insert(peer, version);
            self.send(To::One(peer), Message::Shard(Shard { index, version, digest: ours }));
        }
    }

    /// Settles a doubt as soon as it can be.
    pub(super) fn tick_votes(&mut self, now: Instant) {
        let Some(version) = self.votes.doubt else {
            self.votes.ask_due = None;
            return;
        };
        let Some((index, ours)) = self.votes.ours(version) else {
            self.votes.doubt = None;
            return;
        };
        let members = self.log.members();
        let mut camps: Vec<(Digest, MemberSet)> = Vec::new();
        let mut silent = MemberSet::EMPTY;
        for member in MemberSet::first(members).iter() {
            let Some(key) = self.key_of(member) else { continue };
            let is_me = self.my_index() == Some(member);
            let Some(digest) = (if is_me { Some(ours) } else { self.votes.said(key, version) }) else {
                silent.insert(member);
                continue;
            };
            match camps.iter_mut().find(|(camp, _)| *camp == digest) {
                Some((_, camp)) => camp.insert(member),
                None => {
                    let mut camp = MemberSet::EMPTY;
                    camp.insert(member);
                    camps.push((digest, camp));
                }
            }
        }
        let right = camps.iter().find(|(_, camp)| is_quorum(members, *camp)).copied();
        match right {
            Some((digest, camp)) if digest == ours => self.report_deviants(version, ours, camp.or(silent)),
            Some((_, camp)) => self.resync(now, version, camp),
            None if camps.iter().any(|(_, camp)| is_quorum(members, camp.or(silent))) => {
                // Somebody's word is still missing, perhaps on its way; else whoever hears this one again says its own.
                let due = *self.votes.ask_due.get_or_insert(now.after(self.resend_ns()));
                if now < due {
                    self.alarm(now, due);
                } else if self.votes.said_again < Some(version) && self.is_member() {
                    self.votes.said_again = Some(version);
                    let shard = Message::Shard(Shard { index, version, digest: ours });
                    self.send(To::All, shard);
                    self.send(To::All, shard);
                }
            }
            None => self.stop(version, Cause::Divergence),
        }
    }

    /// This node says what a quorum says: the others are to be known, and nothing else.
    fn report_deviants(&mut self, version: Version, ours: Digest, aside: MemberSet) {
        self.votes.doubt = None;
        for member in MemberSet::first(self.log.members()).without(aside).iter() {
            let Some(peer) = self.key_of(member) else { continue };
            let Some(theirs) = self.votes.said(peer, version) else { continue };
            self.counters.deviant_total += 1;
            if !self.votes.deviants.contains(&peer) {
                self.votes.deviants.push(peer);
                self.events.push_back(Event::Diverged { version, peer, ours, theirs });
            }
        }
    }

    /// A quorum says otherwise: this node's G is wrong, so nothing is built on it, and nobody is given it.
    fn resync(&mut self, now: Instant, version: Version, right: MemberSet) {
        self.votes.doubt = None;
        self.votes.own.clear();
        self.votes.resyncs += 1;
        self.votes.resynced = version;
        self.votes.sources = right.iter().filter_map(|member| self.key_of(member)).collect();
        self.counters.resync_total += 1;
        self.has_state = false;
        self.applying = None;
        self.basis = None;
        if self.votes.resyncs > RESYNCS_MAX {
            // Every state that it took over went wrong again: it is this machine. The others go on without it.
            if !self.is_leaving {
                self.events.push_back(Event::Stopped { version, cause: Cause::Divergence });
                self.handle_leave(now);
            }
            return;
        }
        self.fetching = Some(Fetching::new(now));
        self.events.push_back(Event::Resync { version });
    }

    /// This node can go on no more: it commits nothing, and answers those who ask for what it holds.
    pub(super) fn stop(&mut self, version: Version, cause: Cause) {
        self.votes.doubt = None;
        if self.stopped.is_none() {
            self.stopped = Some(cause);
            self.round.attempt = None;
            self.events.push_back(Event::Stopped { version, cause });
        }
    }

    /// An element of G left the range of 64 bits in that version, which was applied or is still being gathered: all
    /// members of the mesh find that at once. This node stops.
    pub fn handle_overflow(&mut self, now: Instant, version: Version) {
        self.stop(version, Cause::Overflow);
        self.advance(now);
    }

    /// Digest of the state of that version, as this node held it lately.
    #[must_use]
    pub fn digest_of(&self, version: Version) -> Option<Digest> {
        let held =
            (self.has_state && self.held == version && version > Version(0)).then_some(self.held_digest);
        self.votes.ours(version).map(|(_, digest)| digest).or(held)
    }

    /// Why this node commits nothing any more, if that is so.
    #[must_use]
    pub const fn stopped(&self) -> Option<Cause> {
        self.stopped
    }
}
