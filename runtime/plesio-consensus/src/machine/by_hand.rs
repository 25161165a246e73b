//! The machine without its pacing: every input is given by hand and nothing happens because of time, so that an
//! explorer may try each order of things that any timing could produce.
//!
//! Whatever depends on how long something has lasted is an argument here ([`Belief`]); what remains is what the
//! rules speak of, and [`Consensus::essence`] is all of that.

use super::Consensus;
use crate::event::OwnSlot;
use crate::snapshot::SnapshotCut;
use plesio_wire::sideband::{Join, Message};
use plesio_wire::{Ballot, Digest, Frame, Instant, LogIndex, MemberIndex, NodeKey, Version};
use std::format;
use std::string::String;
use std::vec::Vec;

/// What a member takes for true at the moment of an input.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Belief<'a> {
    /// Members that are dead, as far as it knows.
    pub(crate) gone: &'a [NodeKey],
    /// It has waited for more LASTs long enough.
    pub(crate) is_impatient: bool,
    /// T_open has passed since all shards were shown (R17).
    pub(crate) is_unserved: bool,
}

/// One thing that happens to a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input<'a> {
    Message(NodeKey, u32, &'a Message),
    Shard(LogIndex, MemberIndex),
    Applied(Version, Digest),
    Snapshot(&'a SnapshotCut),
    Cut(OwnSlot),
    Held(NodeKey, plesio_wire::SlotSeq),
    Hold(NodeKey, Version, LogIndex),
    Join(&'a Join),
    Leave,
    Begin(Ballot),
    /// Its own attempt goes on under what it believes now.
    Continue,
}

const NOW: Instant = Instant(1 << 50);

impl Consensus {
    pub(crate) fn handle_by_hand(&mut self, input: Input<'_>, belief: Belief<'_>) {
        self.members.set_verdict(&[], belief.gone);
        self.set_times(belief);
        match input {
            Input::Message(from, view, message) => {
                if matches!(message, Message::Leave(_)) {
                    self.pace.closed = Some(Frame(0));
                }
                self.receive(NOW, from, view, message);
            }
            Input::Shard(context, owner) => {
                self.insert_shard(NOW, context, owner);
            }
            Input::Applied(version, digest) => self.note_applied(version, digest),
            Input::Snapshot(cut) => {
                let _useless = self.install(NOW, cut);
            }
            Input::Cut(slot) => self.announce(NOW, slot),
            Input::Held(contributor, seq) => {
                if let (Some(me), Some(member)) = (self.my_index(), self.log.view.index_of(contributor)) {
                    self.offers.hold(NOW, me, member, seq, 0);
                }
            }
            Input::Hold(from, version, index) => self.note_hold(NOW, from, version, Some(index)),
            Input::Join(join) => {
                let max = self.config.observers_max;
                self.members.insert_joiner(NOW, &self.log.view, join, max);
            }
            Input::Leave => {
                self.is_leaving = true;
                let (me, life) = (self.config.me, self.config.incarnation);
                self.members.insert_leaver(&self.log.view, me, life, Frame(0));
            }
            Input::Begin(ballot) => self.begin_attempt(NOW, ballot),
            Input::Continue => self.continue_attempt(NOW),
        }
    }

    /// R12: what a member does as soon as it is complete.
    pub(crate) fn accept_by_hand(&mut self) {
        self.set_times(Belief::default());
        self.tick_seal(NOW);
        self.members.set_verdict(&[], &[]);
    }

    /// Whether [`Input::Continue`] may do anything.
    pub(crate) fn awaits_choice(&self) -> bool {
        self.round.attempt.as_ref().is_some_and(|attempt| attempt.is_ready && attempt.proposal.is_none())
    }

    pub(crate) const fn is_leaving_by_hand(&self) -> bool {
        self.is_leaving
    }

    /// Lets everything have begun just now, except what the belief says has lasted.
    fn set_times(&mut self, belief: Belief<'_>) {
        let before = |ns: u64| Instant(NOW.0 - ns);
        let (t_prop_ns, t_open_ns) = (self.t_prop_ns(), self.t_open_ns());
        if let Some(attempt) = &mut self.round.attempt {
            attempt.since = if belief.is_impatient { before(t_prop_ns) } else { NOW };
            attempt.sent = attempt.since;
        }
        self.track.shown_since =
            self.track.shown_since.map(|_| if belief.is_unserved { before(t_open_ns) } else { NOW });
        (self.track.since, self.track.diagnosed) = (NOW, NOW);
        // Whoever said goodbye did so long ago.
        self.pace.closed = Some(Frame(1 << 20));
        self.members.end_grace();
    }

    /// Everything that a rule may ask about: two machines with equal essences do the same from here on. Left out is
    /// what only says when something is done or counts it.
    pub(crate) fn essence(&self) -> String {
        let Self {
            config,
            is_started,
            log,
            round,
            members,
            offers,
            own,
            tail,
            cut,
            held,
            held_digest,
            has_state,
            basis,
            applying,
            track,
            late,
            is_leaving,
            departure,
            stopped,
            is_halted,
            outbox,
            events,
            clock: _,
            seal_index: _,
            votes: _,
            conduct: _,
            pace: _,
            control: _,
            timers: _,
            lag: _,
            fetching: _,
            quorum_told: _,
            differs_told: _,
            is_unsettled: _,
            wake: _,
            counters: _,
        } = self;
        assert!(outbox.is_empty() && events.is_empty() && basis.is_none(), "it is settled");
        let tail: Vec<_> = tail.iter().map(|(index, value)| (index, value.digest())).collect();
        let members = members.essence(log.version_final);
        format!(
            "{:?} {is_started} {log:?} {} {members} {offers:?} {:?} {tail:?} {:?} {held:?} {held_digest:?} \
             {has_state} {applying:?} {:?} {:?} {:?} {is_leaving} {:?} {stopped:?} {is_halted}",
            config.incarnation,
            round.essence(),
            own.essence().collect::<Vec<_>>(),
            (cut.index, cut.version_final),
            // Whom to serve by what others told follows from time; a shard that was sent stays a fact.
            track.shards,
            track.shown_since.is_some(),
            late.as_ref().map(|late| (late.context, late.index, late.version, late.shards)),
            departure.as_ref().map(|departure| (departure.index, departure.shown)),
        )
    }
}
