//! What the learnt prefix of the log means, and which value may follow it.
//!
//! Nothing here depends on time, messages or this node: two members with the same prefix have equal `LogState`s.

use crate::config::Terms;
use crate::ledger::{Admission, Ledger};
use crate::period;
use crate::weights::weights;
use alloc::vec::Vec;
use plesio_wire::value::{Entry, Manifest, Seat, Value, View};
use plesio_wire::{Ballot, Bounded, Digest, Frame, LogIndex, MemberSet, NodeKey, SlotSeq, Version};

/// Frames beyond this are nonsense and would overflow sums.
pub(crate) const FRAME_MAX: u64 = 1 << 56;
/// Most steps of one slot.
pub(crate) const STEPS_MAX: u32 = 1 << 20;

/// The version that is decided but not sealed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OpenVersion {
    pub(crate) version: Version,
    /// Entries not dropped, members numbered as in the view in force.
    pub(crate) manifest: Manifest,
}

/// Everything that follows from the prefix of `index`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LogState {
    /// First index not learnt (d).
    pub(crate) index: LogIndex,
    /// Origin frame of the entry before (f).
    pub(crate) origin: Frame,
    pub(crate) view: View,
    pub(crate) view_index: LogIndex,
    pub(crate) view_digest: Digest,
    /// Sealed versions.
    pub(crate) version_final: Version,
    pub(crate) open: Option<OpenVersion>,
    pub(crate) ledger: Ledger,
}

/// The rule of the agreement that a value breaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Rule(pub(crate) u16);

/// What learning an entry did.
pub(crate) enum Learnt {
    /// A version is open.
    Manifest,
    /// A version became final.
    Seal(Version),
    /// A view came into force.
    View(ViewChange),
}

/// How a view differs from the one before.
pub(crate) struct ViewChange {
    pub(crate) added: Vec<NodeKey>,
    pub(crate) removed: Vec<Seat>,
    /// Entries dropped from the open version, by old index; none when no version is open.
    pub(crate) dropped: Option<MemberSet>,
}

impl LogState {
    pub(crate) fn genesis(view: View) -> Self {
        let mut ledger = Ledger::default();
        for seat in view.members.iter() {
            ledger.admit(Admission::of(seat));
        }
        Self {
            index: LogIndex(1),
            origin: view.origin,
            view,
            view_index: LogIndex(0),
            view_digest: view.digest(),
            version_final: Version(0),
            open: None,
            ledger,
        }
    }

    pub(crate) fn members(&self) -> usize {
        self.view.members.len()
    }

    /// Count of MANIFESTs in the prefix.
    pub(crate) fn version(&self) -> Version {
        if self.open.is_some() { self.version_final.next() } else { self.version_final }
    }

    /// First frame of this index's ballots: f while a version is open, f + 1 otherwise (R3).
    pub(crate) fn frame_first(&self) -> Frame {
        if self.open.is_some() { self.origin } else { self.origin.next() }
    }

    /// R3: the lowest ballot of this index.
    pub(crate) fn ballot_first(&self) -> Ballot {
        Ballot { frame: self.frame_first(), term: 0 }
    }

    /// SEAL at this index.
    pub(crate) fn seal(&self) -> Value {
        Value::Seal(self.origin)
    }

    /// Index of the last learnt entry: the stamp of result shards while a version is open (R10).
    pub(crate) fn context(&self) -> LogIndex {
        LogIndex(self.index.0.saturating_sub(1))
    }

    /// Whether `value` may stand at this index (R9, R14 to R16, R25, R26). Possession (R12) is the acceptor's own matter.
    pub(crate) fn check(&self, value: &Value, terms: Terms) -> Result<(), Rule> {
        match value {
            Value::Manifest(manifest) => self.check_manifest(manifest, terms),
            Value::Seal(origin) if self.open.is_some() && *origin == self.origin => Ok(()),
            Value::Seal(_) => Err(Rule(14)),
            Value::View(view) => self.check_view(view),
        }
    }

    fn check_origin(&self, origin: Frame) -> Result<(), Rule> {
        let fresh = origin >= self.frame_first() && origin.0 < FRAME_MAX;
        if fresh { Ok(()) } else { Err(Rule(3)) }
    }

    fn check_manifest(&self, manifest: &Manifest, terms: Terms) -> Result<(), Rule> {
        self.check_origin(manifest.origin)?;
        if self.open.is_some() {
            return Err(Rule(14));
        }
        let entries = &manifest.entries;
        let sorted = entries.windows(2).all(|pair| pair[0].member < pair[1].member);
        let fields = |entry: &Entry| {
            let Some(seat) = self.view.members.get(usize::from(entry.member)) else { return false };
            let staleness = u64::from(entry.staleness);
            self.ledger.may_list(Admission::of(seat), SlotSeq(entry.slot_seq))
                && staleness <= terms.tau
                && staleness <= self.version_final.0
                && (1..=STEPS_MAX).contains(&entry.n_steps)
                && entry.eflags == 0
        };
        let parameters = manifest.view == self.view_digest && manifest.period_next_us == self.view.period_us;
        let listed: Vec<_> = entries.iter().map(|entry| (entry.member, entry.n_steps)).collect();
        if entries.is_empty()
            || !sorted
            || !parameters
            || !entries.iter().all(fields)
            || !weights(self.view.weight_mode, self.members(), &listed)
                .into_iter()
                .zip(entries.iter())
                .all(|(whole, entry)| entry.weight == terms.lambda.discount(whole, entry.staleness))
        {
            return Err(Rule(9));
        }
        Ok(())
    }

    fn check_view(&self, view: &View) -> Result<(), Rule> {
        self.check_origin(view.origin)?;
        let now = &self.view;
        let parameters = (view.scale_exponent, view.weight_mode, view.elements)
            == (now.scale_exponent, now.weight_mode, now.elements)
            && view.share_factor == now.share_factor;
        let chained = Some(view.number) == now.number.checked_add(1) && view.previous == self.view_digest;
        let sorted = view.members.windows(2).all(|pair| pair[0].key < pair[1].key);
        let effective = view.effective >= view.origin && view.effective.0 < FRAME_MAX;
        if !(parameters && chained && sorted && effective) {
            return Err(Rule(15));
        }
        view.check_shares().map_err(|_| Rule(25))?;
        let is_turned = period::check(now, view)?;
        let mut kept = 0;
        for seat in view.members.iter() {
            match now.index_of(seat.key) {
                // R19: whoever is in the view stays as it is; a new life of it needs a removal first.
                Some(at) if now.members[usize::from(at)] == *seat => kept += 1,
                Some(_) => return Err(Rule(19)),
                None if self.open.is_some() => return Err(Rule(16)),
                None if seat.admitted != self.index => return Err(Rule(19)),
                None => {}
            }
        }
        let changed = kept < now.members.len() || view.members.len() > kept;
        let is_shared_anew = view.shares != now.shares;
        if kept == 0 || !(changed || is_shared_anew || is_turned) {
            return Err(Rule(15));
        }
        // Another period is a view of its own: nobody needs to ask what else it came with.
        if is_turned && (changed || is_shared_anew) {
            return Err(Rule(26));
        }
        // For other shares or another period alone no version begins anew.
        if !changed && self.open.is_some() { Err(Rule(16)) } else { Ok(()) }
    }

    /// Learns the entry at this index; the caller has checked it.
    pub(crate) fn learn(&mut self, value: &Value) -> Learnt {
        let index = self.index;
        let learnt = match value {
            Value::Manifest(manifest) => {
                for entry in manifest.entries.iter() {
                    if let Some(seat) = self.view.members.get(usize::from(entry.member)) {
                        self.ledger.list(Admission::of(seat), SlotSeq(entry.slot_seq));
                    }
                }
                self.open = Some(OpenVersion { version: self.version_final.next(), manifest: *manifest });
                Learnt::Manifest
            }
            Value::Seal(_) => {
                if self.open.take().is_some() {
                    self.version_final = self.version_final.next();
                }
                self.ledger.seal();
                Learnt::Seal(self.version_final)
            }
            Value::View(view) => Learnt::View(self.learn_view(view)),
        };
        self.origin = value.origin();
        self.index = index.next();
        learnt
    }

    fn learn_view(&mut self, view: &View) -> ViewChange {
        let old = core::mem::replace(&mut self.view, *view);
        let removed: Vec<Seat> =
            old.members.iter().filter(|seat| view.index_of(seat.key).is_none()).copied().collect();
        let added: Vec<&Seat> = view.members.iter().filter(|seat| old.index_of(seat.key).is_none()).collect();
        for seat in &removed {
            self.ledger.end(Admission::of(seat), self.index);
        }
        for seat in &added {
            self.ledger.admit(Admission::of(seat));
        }
        self.view_index = self.index;
        self.view_digest = view.digest();
        let dropped = self.open.as_mut().map(|open| {
            let mut dropped = MemberSet::EMPTY;
            let mut kept = Bounded::default();
            for entry in open.manifest.entries.iter() {
                let seat = &old.members[usize::from(entry.member)];
                match view.index_of(seat.key) {
                    Some(member) => {
                        // As many as before or fewer, so there is room.
                        let _ = kept.push(Entry { member, ..*entry });
                    }
                    None => dropped.insert(entry.member),
                }
            }
            open.manifest.entries = kept;
            dropped
        });
        ViewChange { added: added.iter().map(|seat| seat.key).collect(), removed, dropped }
    }
}
