//! Which slots are ready, and which owners have their shard of them: what a proposer may choose from (R0, R9).
//!
//! All of it counts for the view in force alone and guides the proposer only; acceptors never look here, except
//! that a listed slot must agree with its READY.

use crate::ledger::Admission;
use crate::log::{LogState, STEPS_MAX};
use alloc::vec::Vec;
use plesio_wire::value::Entry;
use plesio_wire::{Instant, MemberIndex, MemberSet, SlotSeq, Version};

/// Most slots kept per contributor: the deepest ring there is.
const SLOTS_MAX: usize = 16;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) seq: SlotSeq,
    pub(crate) base: Version,
    pub(crate) n_steps: u32,
}

#[derive(Clone, Copy, Debug)]
struct Have {
    seq: SlotSeq,
    owners: MemberSet,
    last: Instant,
    sumsq: u64,
}

#[derive(Clone, Debug, Default)]
struct Contributor {
    ready: Vec<Ready>,
    have: Vec<Have>,
    /// What this node holds itself, with the sum of squares of its shard.
    held: Vec<(SlotSeq, u64)>,
}

/// A slot that may be listed at this close.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) member: MemberIndex,
    pub(crate) seq: SlotSeq,
    pub(crate) n_steps: u32,
    pub(crate) staleness: u16,
    pub(crate) arrival: Instant,
    pub(crate) sumsq: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Offers {
    contributors: Vec<Contributor>,
}

/// Keeps `list` sorted by number and short; of one number the first report stays.
fn insert<T: Copy>(list: &mut Vec<T>, item: T, seq: impl Fn(&T) -> SlotSeq) {
    if let Err(at) = list.binary_search_by_key(&seq(&item), &seq) {
        if list.len() == SLOTS_MAX {
            if at == 0 {
                return;
            }
            list.remove(0);
            list.insert(at - 1, item);
        } else {
            list.insert(at, item);
        }
    }
}

impl Offers {
    /// A view is in force: HAVEs of the one before are void (R19).
    pub(crate) fn reset(&mut self, members: usize) {
        self.contributors.clear();
        self.contributors.resize_with(members, Contributor::default);
    }

    pub(crate) fn insert_ready(&mut self, member: MemberIndex, ready: Ready) {
        if let Some(from) = self.contributors.get_mut(usize::from(member)) {
            insert(&mut from.ready, ready, |ready| ready.seq);
        }
    }

    pub(crate) fn insert_have(
        &mut self,
        now: Instant,
        owner: MemberIndex,
        member: MemberIndex,
        seq: SlotSeq,
        sumsq: u64,
    ) {
        let Some(from) = self.contributors.get_mut(usize::from(member)) else { return };
        if from.have.len() == SLOTS_MAX && from.have.iter().all(|have| have.seq != seq) {
            // What nobody announced makes room, and never takes it from what somebody did.
            let known = |seq: SlotSeq| from.ready.iter().any(|ready| ready.seq == seq);
            match from.have.iter().position(|have| !known(have.seq)) {
                Some(at) => drop(from.have.remove(at)),
                None if !known(seq) => return,
                None => {}
            }
        }
        insert(&mut from.have, Have { seq, owners: MemberSet::EMPTY, last: now, sumsq: 0 }, |have| have.seq);
        if let Ok(at) = from.have.binary_search_by_key(&seq, |have| have.seq)
            && !from.have[at].owners.contains(owner)
        {
            let have = &mut from.have[at];
            have.owners.insert(owner);
            have.last = now;
            have.sumsq = have.sumsq.saturating_add(sumsq);
        }
    }

    /// This node, owner `me`, holds its shard of the slot; true when that is news.
    pub(crate) fn hold(
        &mut self,
        now: Instant,
        me: MemberIndex,
        member: MemberIndex,
        seq: SlotSeq,
        sumsq: u64,
    ) -> bool {
        let Some(from) = self.contributors.get_mut(usize::from(member)) else { return false };
        let news = !from.held.iter().any(|(held, _)| *held == seq);
        insert(&mut from.held, (seq, sumsq), |held| held.0);
        self.insert_have(now, me, member, seq, sumsq);
        news
    }

    /// Everything this node holds: the body of its HAVE.
    pub(crate) fn held(&self) -> impl Iterator<Item = (MemberIndex, SlotSeq, u64)> + '_ {
        self.contributors.iter().enumerate().flat_map(|(member, from)| {
            from.held.iter().map(move |(seq, sumsq)| (member as MemberIndex, *seq, *sumsq))
        })
    }

    /// Owners known to have the slot.
    pub(crate) fn owners_of(&self, member: MemberIndex, seq: SlotSeq) -> MemberSet {
        self.contributors
            .get(usize::from(member))
            .and_then(|from| from.have.iter().find(|have| have.seq == seq))
            .map_or(MemberSet::EMPTY, |have| have.owners)
    }

    /// R9's last clause: staleness and steps of an entry match READY where it is known.
    pub(crate) fn matches(&self, entry: &Entry, version: Version) -> bool {
        let ready = self
            .contributors
            .get(usize::from(entry.member))
            .and_then(|from| from.ready.iter().find(|ready| ready.seq.0 == entry.slot_seq));
        ready.is_none_or(|ready| {
            ready.n_steps == entry.n_steps
                && version.0.checked_sub(ready.base.0) == Some(u64::from(entry.staleness))
        })
    }

    /// Forgets what can never be listed any more.
    pub(crate) fn purge(&mut self, log: &LogState, tau: u64) {
        for (member, from) in self.contributors.iter_mut().enumerate() {
            let Some(seat) = log.view.members.get(member) else { continue };
            let admission = Admission::of(seat);
            let alive = |seq: SlotSeq| log.ledger.may_list(admission, seq);
            from.ready
                .retain(|ready| alive(ready.seq) && log.version().0.saturating_sub(ready.base.0) <= tau);
            from.have.retain(|have| alive(have.seq));
            from.held.retain(|held| alive(held.0));
        }
    }

    /// Slots that others have and nobody announced are forgotten when that has lasted since `before`; how many there
    /// were.
    pub(crate) fn forget_unknown(&mut self, before: Instant) -> u64 {
        let mut count = 0;
        for from in &mut self.contributors {
            let all = from.have.len();
            let Contributor { ready, have, held } = from;
            have.retain(|have| {
                have.last >= before
                    || ready.iter().any(|ready| ready.seq == have.seq)
                    || held.iter().any(|(seq, _)| *seq == have.seq)
            });
            count += (all - have.len()) as u64;
        }
        count
    }

    /// What was announced of `member` and what is held of it counts for nothing any more.
    pub(crate) fn forget(&mut self, member: MemberIndex) {
        if let Some(from) = self.contributors.get_mut(usize::from(member)) {
            *from = Contributor::default();
        }
    }

    /// Slots that were begun on a later version than `last_final`.
    pub(crate) fn ahead(&self, last_final: Version) -> Vec<(MemberIndex, SlotSeq)> {
        let of = |(member, from): (usize, &Contributor)| {
            let ahead: Vec<_> = from.ready.iter().filter(|ready| ready.base > last_final).collect();
            ahead.into_iter().map(move |ready| (member as MemberIndex, ready.seq)).collect::<Vec<_>>()
        };
        self.contributors.iter().enumerate().flat_map(of).collect()
    }

    /// Whether a slot of `member` waits to be listed.
    pub(crate) fn has_pending(&self, log: &LogState, member: MemberIndex, tau: u64) -> bool {
        let Some(seat) = log.view.members.get(usize::from(member)) else { return false };
        self.contributors.get(usize::from(member)).is_some_and(|from| {
            from.ready.iter().any(|ready| {
                log.ledger.may_list(Admission::of(seat), ready.seq)
                    && log.version().0.saturating_sub(ready.base.0) <= tau
            })
        })
    }

    /// The lowest eligible slot of every member that all of `owners` have, and the stale ones met on the way.
    pub(crate) fn candidates(
        &self,
        log: &LogState,
        owners: MemberSet,
        tau: u64,
    ) -> (Vec<Candidate>, Vec<(MemberIndex, SlotSeq)>) {
        let (mut candidates, mut stale) = (Vec::new(), Vec::new());
        for (at, from) in self.contributors.iter().enumerate() {
            let member = at as MemberIndex;
            let Some(seat) = log.view.members.get(at) else { continue };
            for ready in &from.ready {
                if !log.ledger.may_list(Admission::of(seat), ready.seq) {
                    continue;
                }
                // A base ahead of this log is a member ahead of this one; its slot waits.
                let Some(staleness) = log.version_final.0.checked_sub(ready.base.0) else { continue };
                if staleness > tau {
                    stale.push((member, ready.seq));
                    continue;
                }
                let Some(have) = from.have.iter().find(|have| have.seq == ready.seq) else { continue };
                if !owners.without(have.owners).is_empty() || !(1..=STEPS_MAX).contains(&ready.n_steps) {
                    continue;
                }
                candidates.push(Candidate {
                    member,
                    seq: ready.seq,
                    n_steps: ready.n_steps,
                    staleness: staleness as u16,
                    arrival: have.last,
                    sumsq: have.sumsq,
                });
                break;
            }
        }
        (candidates, stale)
    }
}

/// NORM guard: takes out candidates whose squared norm per squared step is above kappa^2 times the median, and returns
/// them. With fewer than three there is no crowd to compare with.
pub(crate) fn guard_norms(candidates: &mut Vec<Candidate>, kappa: u32) -> Vec<Candidate> {
    if candidates.len() < 3 {
        return Vec::new();
    }
    let norm = |candidate: &Candidate| {
        let steps = u128::from(candidate.n_steps);
        (u128::from(candidate.sumsq) << 40) / (steps * steps)
    };
    let mut norms: Vec<u128> = candidates.iter().map(norm).collect();
    norms.sort_unstable();
    let median = norms[(norms.len() - 1) / 2];
    let limit = median.saturating_mul(u128::from(kappa) * u128::from(kappa));
    let (quiet, loud) = candidates.iter().partition(|candidate| median == 0 || norm(candidate) <= limit);
    *candidates = quiet;
    loud
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(member: u16, n_steps: u32, sumsq: u64) -> Candidate {
        let (seq, arrival) = (SlotSeq(0), Instant(0));
        Candidate { member, seq, n_steps, staleness: 0, arrival, sumsq }
    }

    #[test]
    fn the_norm_guard_holds_back_the_loud_one() {
        let mut crowd =
            [candidate(0, 1, 100), candidate(1, 10, 11_000), candidate(2, 2, 390), candidate(3, 1, u64::MAX)]
                .to_vec();
        assert_eq!(guard_norms(&mut crowd, 8).iter().map(|one| one.member).collect::<Vec<_>>(), [3]);
        assert_eq!(crowd.iter().map(|one| one.member).collect::<Vec<_>>(), [0, 1, 2]);
        let mut pair = [candidate(0, 1, 1), candidate(1, 1, u64::MAX)].to_vec();
        assert!(guard_norms(&mut pair, 8).is_empty());
        let mut silent = [candidate(0, 1, 0), candidate(1, 1, 0), candidate(2, 1, 9)].to_vec();
        assert!(guard_norms(&mut silent, 8).is_empty(), "a silent crowd accuses nobody");
    }

    #[test]
    fn a_flood_of_numbers_stays_bounded() {
        let mut offers = Offers::default();
        offers.reset(2);
        for seq in 0..1_000 {
            offers.insert_ready(1, Ready { seq: SlotSeq(seq), base: Version(0), n_steps: 1 });
            offers.insert_have(Instant(0), 0, 1, SlotSeq(seq), 1);
            offers.hold(Instant(0), 0, 1, SlotSeq(seq), 1);
        }
        let from = &offers.contributors[1];
        assert_eq!((from.ready.len(), from.have.len(), from.held.len()), (SLOTS_MAX, SLOTS_MAX, SLOTS_MAX));
        assert_eq!(from.ready[0].seq, SlotSeq(984), "the newest stay");
        offers.insert_have(Instant(0), 0, 7, SlotSeq(1), 1);
    }
}
