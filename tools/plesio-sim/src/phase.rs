//! What a mesh was doing when a fault struck, and how often each kind struck in each such phase.
//!
//! ```text
//!   filling -> proposing -> open -> sealing -> filling        the agreement, in this order; a VIEW in place of a MANIFEST
//!                 |  \---- view-change ----------^            is a view change, and whoever goes on with another's
//!                 +------- querying                           ballot asks first
//! ```
//!
//! Two more phases may coincide with any of these: somebody is fetching a state, and a member of the newest view is
//! dead and not yet left out.

use crate::fault::{Fault, FaultSet};
use plesio_consensus::{Event, Kind};
use std::collections::BTreeMap;

/// Something that the protocol does.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Phase {
    /// No version is open and nobody proposes: the workers fill their slots.
    Filling,
    /// A MANIFEST is proposed and nobody has learnt it.
    Proposing,
    /// Somebody asks what the others have accepted.
    Querying,
    /// A version is open: contributions and sums are on their way.
    Open,
    /// Somebody is complete and has accepted SEAL, and nobody has learnt it.
    Sealing,
    /// A VIEW is proposed and nobody has learnt it.
    Changing,
    /// A state is on its way to somebody.
    Joining,
    /// A member's process is dead and the newest view still names it.
    Bereaved,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Filling,
        Self::Proposing,
        Self::Querying,
        Self::Open,
        Self::Sealing,
        Self::Changing,
        Self::Joining,
        Self::Bereaved,
    ];

    /// As in tables and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filling => "filling",
            Self::Proposing => "proposing",
            Self::Querying => "querying",
            Self::Open => "open",
            Self::Sealing => "sealing",
            Self::Changing => "view-change",
            Self::Joining => "joining",
            Self::Bereaved => "bereaved",
        }
    }
}

/// Some phases.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct PhaseSet(u8);

impl PhaseSet {
    pub(crate) fn with(self, phase: Phase) -> Self {
        Self(self.0 | 1 << phase as u8)
    }

    pub(crate) fn contains(self, phase: Phase) -> bool {
        self.0 & 1 << phase as u8 != 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Phase> {
        Phase::ALL.into_iter().filter(move |phase| self.contains(*phase))
    }
}

/// How often each kind of fault struck in each phase.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Coverage {
    hits: BTreeMap<(Fault, Phase), u64>,
}

impl Coverage {
    pub(crate) fn hit(&mut self, fault: Fault, phases: PhaseSet) {
        phases.iter().for_each(|phase| *self.hits.entry((fault, phase)).or_default() += 1);
    }

    /// Adds those of another mesh.
    pub fn add(&mut self, other: &Self) {
        other.hits.iter().for_each(|(cell, hits)| *self.hits.entry(*cell).or_default() += hits);
    }

    /// One cell of the table.
    #[must_use]
    pub fn of(&self, fault: Fault, phase: Phase) -> u64 {
        self.hits.get(&(fault, phase)).copied().unwrap_or(0)
    }

    /// A line for each of these kinds, a column for each phase.
    #[must_use]
    pub fn table(&self, kinds: FaultSet) -> String {
        let mut text = format!("{:12}", "");
        Phase::ALL.iter().for_each(|phase| text += &format!("{:>12}", phase.name()));
        for fault in kinds.iter() {
            text += &format!("\n{:12}", fault.name());
            Phase::ALL.iter().for_each(|phase| text += &format!("{:>12}", self.of(fault, *phase)));
        }
        text + "\n"
    }

    /// The smallest cell of these kinds, the first of several; none without a kind.
    #[must_use]
    pub fn least(&self, kinds: FaultSet) -> Option<(Fault, Phase, u64)> {
        let cells = kinds.iter().flat_map(|fault| Phase::ALL.map(|phase| (fault, phase)));
        cells.map(|(fault, phase)| (fault, phase, self.of(fault, phase))).min_by_key(|(.., hits)| *hits)
    }
}

/// The proposal that somebody works on.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    phase: Phase,
    index: u64,
    host: u8,
    at_ns: u64,
}

/// Follows the mesh by what its machines say; see the module.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    attempt: Option<Attempt>,
    /// Who proposed last.
    proposer: Option<u8>,
    /// The newest index at which somebody accepted SEAL.
    sealing: Option<u64>,
    /// Hosts that wait for a state, a bit each.
    fetching: u64,
    /// A member of the newest view is dead.
    pub(crate) bereaved: bool,
}

impl Phases {
    /// A machine of `host` says something.
    pub(crate) fn handle_event(&mut self, now_ns: u64, host: u8, event: &Event) {
        let (phase, index) = match event {
            Event::Queried { index, .. } => (Phase::Querying, *index),
            Event::Proposed { index, kind: Kind::Manifest, .. } => (Phase::Proposing, *index),
            Event::Proposed { index, kind: Kind::View, .. } => (Phase::Changing, *index),
            Event::Proposed { index, .. } => return self.handle_seal(index.0),
            Event::Fetch { .. } => return self.fetching |= 1 << host,
            _ => return,
        };
        self.proposer = Some(host);
        self.attempt = Some(Attempt { phase, index: index.0, host, at_ns: now_ns });
    }

    /// Somebody accepts SEAL at that index.
    pub(crate) fn handle_seal(&mut self, index: u64) {
        self.sealing = self.sealing.max(Some(index));
    }

    /// A host has a state and needs no other.
    pub(crate) fn handle_state(&mut self, host: u8) {
        self.fetching &= !(1 << host);
    }

    /// What the mesh is doing, where `index` is the first that nobody has learnt.
    pub(crate) fn now(&self, now_ns: u64, index: u64, open: bool) -> PhaseSet {
        let phase = match self.attempt(now_ns, index) {
            Some(attempt) => attempt.phase,
            None if open && self.sealing == Some(index) => Phase::Sealing,
            None if open => Phase::Open,
            None => Phase::Filling,
        };
        let mut phases = PhaseSet::default().with(phase);
        if self.fetching != 0 {
            phases = phases.with(Phase::Joining);
        }
        if self.bereaved {
            phases = phases.with(Phase::Bereaved);
        }
        phases
    }

    /// Who proposes or asks just now, and who did so last.
    pub(crate) fn proposers(&self, now_ns: u64, index: u64) -> (Option<u8>, Option<u8>) {
        (self.attempt(now_ns, index).map(|attempt| attempt.host), self.proposer)
    }

    fn attempt(&self, now_ns: u64, index: u64) -> Option<Attempt> {
        // Who gives up says nothing.
        self.attempt.filter(|attempt| attempt.index == index && now_ns - attempt.at_ns < ATTEMPT_NS)
    }
}

const ATTEMPT_NS: u64 = 500_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use plesio_wire::{Ballot, LogIndex, NodeKey, Version};

    #[test]
    fn a_version_goes_through_its_phases() {
        let mut phases = Phases::default();
        let ballot = Ballot::default();
        let only = |phase| PhaseSet::default().with(phase);
        assert_eq!(phases.now(5, 7, false), only(Phase::Filling));
        phases.handle_event(5, 3, &Event::Queried { index: LogIndex(7), ballot });
        assert_eq!(phases.now(6, 7, false), only(Phase::Querying));
        phases.handle_event(7, 3, &Event::Proposed { index: LogIndex(7), ballot, kind: Kind::Manifest });
        assert_eq!(phases.now(8, 7, false), only(Phase::Proposing));
        assert_eq!(phases.proposers(8, 7), (Some(3), Some(3)));
        assert_eq!(phases.now(9, 8, true), only(Phase::Open));
        assert_eq!(phases.proposers(9, 8), (None, Some(3)));
        phases.handle_seal(8);
        assert_eq!(phases.now(9, 8, true), only(Phase::Sealing));
        assert_eq!(phases.now(9, 9, false), only(Phase::Filling));
        phases.handle_event(9, 1, &Event::Proposed { index: LogIndex(9), ballot, kind: Kind::View });
        phases.handle_event(9, 2, &Event::Fetch { from: NodeKey(1), version: Version(1) });
        phases.bereaved = true;
        let all = only(Phase::Changing).with(Phase::Joining).with(Phase::Bereaved);
        assert_eq!(phases.now(9, 9, false), all);
        phases.handle_state(2);
        phases.bereaved = false;
        assert_eq!(phases.now(9 + ATTEMPT_NS, 9, false), only(Phase::Filling));
    }

    #[test]
    fn the_smallest_cell_is_found() {
        let mut coverage = Coverage::default();
        let kinds: FaultSet = "loss,crash".parse().unwrap();
        for fault in kinds.iter() {
            for phase in Phase::ALL {
                coverage.hit(fault, PhaseSet::default().with(phase));
            }
        }
        let mut twice = coverage.clone();
        twice.add(&coverage);
        twice.hit(Fault::Loss, PhaseSet::default().with(Phase::Filling));
        assert_eq!(twice.least(kinds), Some((Fault::Loss, Phase::Proposing, 2)));
        assert_eq!(twice.of(Fault::Loss, Phase::Filling), 3);
        assert_eq!(twice.least(FaultSet::ALL).map(|(.., hits)| hits), Some(0));
        assert_eq!(twice.least(FaultSet::NONE), None);
    }
}
