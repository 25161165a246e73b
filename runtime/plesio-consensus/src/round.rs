//! The agreement on one index: what this member promised and accepted, and the attempt it drives itself.
//!
//! ```text
//!   first ballot: nothing lower exists        any other ballot
//!   ------------------------------           ------------------------------------------------
//!   PROPOSE -> ACCEPT x quorum -> learnt      QUERY -> LAST x quorum -> PROPOSE -> ACCEPT x quorum
//! ```
//!
//! It knows neither time nor what a value means. Learning an index throws its `Round` away (R7).

use crate::quorum::is_quorum;
use alloc::vec::Vec;
use plesio_wire::value::Value;
use plesio_wire::{Ballot, Digest, Frame, Instant, MemberIndex, MemberSet};

/// Ballots whose ACCEPT(SEAL) are counted at once; lower ones make room.
const SEAL_BALLOTS_MAX: usize = 8;

/// What the LASTs of one ballot say together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lasts {
    pub(crate) from: MemberSet,
    /// What each had accepted, if anything; one per member.
    accepted: Vec<(MemberIndex, Ballot, Value)>,
    /// Result shards that somebody holds in this context.
    pub(crate) shown: MemberSet,
    /// Members that hold all shards.
    pub(crate) full: MemberSet,
}

impl Lasts {
    /// R5: the value of the highest accepted ballot among the LASTs of `from`.
    pub(crate) fn best(&self, from: MemberSet) -> Option<Value> {
        let heard = self.accepted.iter().filter(|(member, ..)| from.contains(*member));
        heard.max_by_key(|(_, ballot, _)| *ballot).map(|(_, _, value)| *value)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    pub(crate) value: Value,
    pub(crate) digest: Digest,
    pub(crate) accepts: MemberSet,
}

/// This member's own try in a ballot that it owns.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) ballot: Ballot,
    pub(crate) since: Instant,
    pub(crate) sent: Instant,
    pub(crate) lasts: Lasts,
    /// A quorum of LAST is here (R5).
    pub(crate) is_ready: bool,
    pub(crate) proposal: Option<Proposal>,
}

/// State of one member for its index d.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) first: Ballot,
    pub(crate) promised: Ballot,
    pub(crate) accepted: Option<(Ballot, Value)>,
    /// Highest ballot in which this member queried or proposed; at most one value per ballot (R2).
    used: Option<Ballot>,
    /// The newest proposed value seen: COMMIT names only a digest.
    pub(crate) seen: Option<(Digest, Value)>,
    /// Who accepted SEAL in which ballot.
    seals: Vec<(Ballot, MemberSet)>,
    pub(crate) attempt: Option<Attempt>,
    /// How often somebody went above the ballot before: spreads duellists out.
    pub(crate) churn: u32,
}

impl Round {
    pub(crate) fn new(first: Ballot) -> Self {
        Self {
            first,
            promised: first,
            accepted: None,
            used: None,
            seen: None,
            seals: Vec::new(),
            attempt: None,
            churn: 0,
        }
    }

    /// Whether nothing has happened at this index yet, so that the first ballot is free.
    pub(crate) fn is_fresh(&self) -> bool {
        self.promised == self.first && self.accepted.is_none() && self.used.is_none()
    }

    /// R4: promises `ballot` if it is higher; an own attempt below it is over.
    pub(crate) fn promise(&mut self, ballot: Ballot) -> bool {
        if ballot <= self.promised {
            return false;
        }
        self.promised = ballot;
        self.churn = self.churn.saturating_add(1);
        if self.attempt.as_ref().is_some_and(|attempt| attempt.ballot < ballot) {
            self.attempt = None;
        }
        true
    }

    /// R6: accepts unless promised away or another value was accepted in that ballot. The caller has checked the
    /// value. True also when it was accepted before.
    pub(crate) fn accept(&mut self, ballot: Ballot, value: &Value) -> bool {
        if ballot < self.promised {
            return false;
        }
        if let Some((at, accepted)) = &self.accepted
            && *at == ballot
        {
            return accepted == value;
        }
        self.promise(ballot);
        self.accepted = Some((ballot, *value));
        true
    }

    /// Opens an attempt in `ballot`, which must be above every ballot used before.
    pub(crate) fn begin(&mut self, now: Instant, ballot: Ballot) -> bool {
        if ballot < self.promised || self.used.is_some_and(|used| ballot <= used) {
            return false;
        }
        self.promise(ballot);
        self.used = Some(ballot);
        let lasts = Lasts::default();
        self.attempt = Some(Attempt {
            ballot,
            since: now,
            sent: now,
            lasts,
            is_ready: ballot == self.first,
            proposal: None,
        });
        true
    }

    /// R5: counts a LAST for the own attempt; true when it is the one that makes the quorum or comes after it.
    pub(crate) fn count_last(
        &mut self,
        from: MemberIndex,
        members: usize,
        ballot: Ballot,
        accepted: Option<(Ballot, Value)>,
        shards: MemberSet,
    ) -> bool {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.ballot == ballot) else {
            return false;
        };
        let lasts = &mut attempt.lasts;
        lasts.from.insert(from);
        lasts.shown = lasts.shown.or(shards);
        if shards == MemberSet::first(members) {
            lasts.full.insert(from);
        }
        if let Some((at, value)) = accepted {
            // Asked again, a member may have accepted more by now.
            lasts.accepted.retain(|(member, ..)| *member != from);
            lasts.accepted.push((from, at, value));
        }
        attempt.is_ready |= is_quorum(members, lasts.from);
        attempt.is_ready
    }

    /// Puts the value into the own attempt.
    pub(crate) fn propose(&mut self, value: Value, digest: Digest) {
        if let Some(attempt) = &mut self.attempt {
            attempt.proposal = Some(Proposal { value, digest, accepts: MemberSet::EMPTY });
        }
        self.seen = Some((digest, value));
    }

    /// Counts an ACCEPT for the own proposal; the value once a quorum has accepted (R7).
    pub(crate) fn count_accept(
        &mut self,
        from: MemberIndex,
        members: usize,
        ballot: Ballot,
        digest: Digest,
    ) -> Option<Value> {
        let attempt = self.attempt.as_mut().filter(|attempt| attempt.ballot == ballot)?;
        let proposal = attempt.proposal.as_mut().filter(|proposal| proposal.digest == digest)?;
        proposal.accepts.insert(from);
        is_quorum(members, proposal.accepts).then_some(proposal.value)
    }

    /// Counts an ACCEPT(SEAL); true once a quorum has accepted in that one ballot.
    pub(crate) fn count_seal(&mut self, from: MemberIndex, members: usize, ballot: Ballot) -> bool {
        let at = match self.seals.binary_search_by_key(&ballot, |(at, _)| *at) {
            Ok(at) => at,
            Err(at) => {
                self.seals.insert(at, (ballot, MemberSet::EMPTY));
                at
            }
        };
        self.seals[at].1.insert(from);
        let decided = is_quorum(members, self.seals[at].1);
        if self.seals.len() > SEAL_BALLOTS_MAX {
            self.seals.remove(0);
        }
        decided
    }

    /// Who is known to have accepted SEAL: each of them can serve the version (A7).
    pub(crate) fn sealers(&self) -> MemberSet {
        self.seals.iter().fold(MemberSet::EMPTY, |set, (_, from)| set.or(*from))
    }

    /// The highest ballot at or above the promise in which SEAL is known to be proposed.
    pub(crate) fn seal_ballot(&self) -> Option<Ballot> {
        let newest = self.seals.last().map(|(ballot, _)| *ballot);
        let first = (self.promised == self.first).then_some(self.first);
        newest.max(first).filter(|ballot| *ballot >= self.promised)
    }

    /// The value that COMMIT means, if this member has seen it.
    pub(crate) fn value_of(&self, digest: Digest) -> Option<Value> {
        if let Some((_, value)) = self.seen.as_ref().filter(|(seen, _)| *seen == digest) {
            return Some(*value);
        }
        self.accepted.as_ref().map(|(_, value)| *value).filter(|value| value.digest() == digest)
    }

    /// All that the rules ask about, for the explorer: neither times nor the order of answers.
    #[cfg(test)]
    pub(crate) fn essence(&self) -> std::string::String {
        let Self { first, promised, accepted, used, seen, seals, attempt, churn: _ } = self;
        let attempt = attempt.as_ref().map(|attempt| {
            let mut lasts = attempt.lasts.clone();
            lasts.accepted.sort_by_key(|(member, ..)| *member);
            // After the proposal nobody asks what was answered before, but for the shards that were shown.
            let shown = lasts.shown;
            let lasts = attempt.proposal.is_none().then_some(lasts);
            (attempt.ballot, attempt.is_ready, lasts, shown, attempt.proposal.clone())
        });
        let (seen, accepted) =
            (seen.as_ref().map(|seen| seen.0), accepted.map(|(at, value)| (at, value.digest())));
        std::format!("{first:?} {promised:?} {accepted:?} {used:?} {seen:?} {seals:?} {attempt:?}")
    }

    /// The lowest ballot of frame `frame` or later that `me` owns and may still use, and how many owners for whom
    /// `counts` holds come before it.
    pub(crate) fn next_ballot(
        &self,
        frame: Frame,
        me: MemberIndex,
        members: usize,
        skip_first: bool,
        counts: impl Fn(MemberIndex) -> bool,
    ) -> Option<(Ballot, u64)> {
        let frame = frame.max(self.promised.frame).max(self.first.frame);
        let mut term = 0;
        if self.promised.frame == frame {
            let free = self.is_fresh() && !skip_first;
            term = if free { self.promised.term } else { self.promised.term.checked_add(1)? };
        }
        let mut rank = 0;
        for _ in 0..members {
            let ballot = Ballot { frame, term };
            let owner = ballot.owner(members);
            if owner == me {
                return Some((ballot, rank));
            }
            rank += u64::from(counts(owner));
            term = term.checked_add(1)?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plesio_wire::value::View;

    fn at(frame: u64, term: u32) -> Ballot {
        Ballot { frame: Frame(frame), term }
    }

    fn value(number: u32) -> Value {
        Value::View(View { number, ..View::default() })
    }

    #[test]
    fn r5_the_highest_accepted_ballot_wins_whatever_the_order_of_the_answers() {
        for order in [[1u32, 2, 0], [2, 1, 0], [0, 2, 1], [1, 0, 2]] {
            let mut round = Round::new(at(1, 0));
            assert!(round.begin(Instant(0), at(3, 0)));
            assert!(!round.count_last(4, 5, at(2, 9), Some((at(2, 0), value(9))), MemberSet::EMPTY));
            for (from, term) in order.into_iter().enumerate() {
                let accepted = (term > 0).then(|| (at(1, term), value(term)));
                let ready = round.count_last(from as u16, 5, at(3, 0), accepted, MemberSet::EMPTY);
                assert_eq!(ready, from == 2, "three of five, or two and the lowest");
            }
            let attempt = round.attempt.as_ref().unwrap();
            assert_eq!(attempt.lasts.best(MemberSet::first(5)), Some(value(2)));
            assert_eq!(attempt.lasts.best(MemberSet::EMPTY), None);
        }
    }

    #[test]
    fn r7_votes_for_seal_count_in_one_ballot_only() {
        let mut round = Round::new(at(1, 0));
        assert!(!round.count_seal(1, 4, at(1, 0)));
        assert!(!round.count_seal(2, 4, at(1, 1)) && !round.count_seal(3, 4, at(2, 0)));
        assert!(!round.count_seal(2, 4, at(1, 0)) && round.count_seal(3, 4, at(1, 0)));
        // A flood of ballots costs the lowest ones, not memory.
        for frame in 5..500 {
            assert!(!round.count_seal(3, 4, at(frame, 0)));
        }
        assert!(round.seals.len() <= SEAL_BALLOTS_MAX);
    }

    #[test]
    fn r2_a_ballot_is_used_once() {
        let mut round = Round::new(at(1, 0));
        assert!(round.begin(Instant(0), at(1, 0)) && !round.begin(Instant(0), at(1, 0)));
        round.promise(at(2, 0));
        assert!(round.attempt.is_none(), "an attempt below the promise is over");
        assert!(!round.begin(Instant(0), at(1, 3)) && round.begin(Instant(0), at(2, 3)));
        assert!(!round.accept(at(2, 0), &value(1)) && round.accept(at(2, 3), &value(1)));
        assert!(!round.accept(at(2, 3), &value(2)) && round.accept(at(4, 0), &value(2)));
        assert_eq!(round.promised, at(4, 0));
        // (4, 1) would be the next; its owner of three is member (4 + 1) mod 3.
        assert_eq!(round.next_ballot(Frame(0), 2, 3, false, |_| true), Some((at(4, 1), 0)));
        assert_eq!(round.next_ballot(Frame(5), 1, 3, false, |_| true), Some((at(5, 2), 2)));
        assert_eq!(round.next_ballot(Frame(5), 1, 3, false, |owner| owner == 2), Some((at(5, 2), 1)));
    }
}
