//! The configurations that are explored: those of the agreement's text, section 9.

use super::fact::Fact;
use super::local::{Local, Step};
use crate::machine::by_hand::Belief;
use crate::tests::cluster::genesis;
use plesio_wire::{Incarnation, NodeKey};
use std::vec::Vec;

/// One configuration.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Seconds at most: searched by every test run.
    pub(super) is_short: bool,
    /// Nodes there are, and how many of them found the mesh.
    pub(super) ids: usize,
    pub(super) founders: usize,
    /// Ballots of an index: frames after its first one, and the term.
    pub(super) ballots: Ballots,
    /// The same while a version is open, beside the first one, which carries SEAL.
    pub(super) ballots_open: Ballots,
    /// Newest index in which anybody begins anything.
    pub(super) log_max: u64,
    pub(super) crashes: usize,
    /// Sets of members that somebody may take for dead, a bit each; the first is nobody.
    pub(super) beliefs: &'static [u8],
    /// Founders with a slot.
    pub(super) contributors: &'static [usize],
    /// Whose first slot each founder has heard of before it begins; its own always.
    pub(super) known: &'static [&'static [usize]],
    /// Slots are still on their way to who does not know them; else they never get there.
    pub(super) travels: bool,
    /// What was folded is cut anew.
    pub(super) cuts: bool,
    /// Result shards come all at once or not at all.
    pub(super) gathers: bool,
    /// Beats are heard: what others hold, and how far they are.
    pub(super) beats: bool,
    /// Who is no member asks to be let in.
    pub(super) joins: bool,
    pub(super) snapshots: bool,
    pub(super) restarts: Option<NodeKey>,
    pub(super) leaves: Option<NodeKey>,
    /// It does nothing while the search goes on, and wakes for the recoveries in which it does not crash.
    pub(super) silent: Option<NodeKey>,
}

const A: NodeKey = NodeKey(10);
const C: NodeKey = NodeKey(12);
const NOBODY: u8 = 0;
const A_GONE: u8 = 0b001;
const C_GONE: u8 = 0b100;

type Ballots = &'static [(u64, u32)];
const FIRST: Ballots = &[(0, 0)];
const TWO: Ballots = &[(0, 0), (1, 0)];
const THREE: Ballots = &[(0, 0), (0, 1), (0, 2)];
const FOUR: Ballots = &[(0, 0), (0, 1), (0, 2), (1, 0)];
const LATER: Ballots = &[(1, 0)];

/// Three members who list what they know, each something else.
const PLAIN: Row = Row {
    name: "",
    is_short: false,
    ids: 3,
    founders: 3,
    ballots: TWO,
    ballots_open: &[],
    log_max: 1,
    crashes: 2,
    beliefs: &[NOBODY],
    contributors: &[0, 1],
    known: &[&[], &[], &[0, 1], &[0, 1]],
    travels: false,
    cuts: false,
    gathers: true,
    beats: false,
    joins: false,
    snapshots: false,
    restarts: None,
    leaves: None,
    silent: None,
};
const SHORT: Row = Row { is_short: true, ..PLAIN };
/// One slot, and everybody has it.
const ONE: Row = Row { contributors: &[0], known: &[&[], &[0], &[0], &[0]], ..PLAIN };
/// A version of two slots opens, and the contributor of one may be put out.
const OPEN: Row = Row {
    contributors: &[0, 2],
    known: &[&[2], &[0, 2], &[0], &[0, 2]],
    beliefs: &[NOBODY, C_GONE],
    ballots: FIRST,
    ballots_open: LATER,
    log_max: 2,
    ..PLAIN
};
const JOIN: Row = Row { joins: true, snapshots: true, beats: true, is_short: true, ..ONE };

/// All of them.
pub(super) const ROWS: &[Row] = &[
    // The longest first: two threads take them in this order.
    Row { name: "seal or view with drop, shard by shard, L2 b1", gathers: false, crashes: 1, ..OPEN },
    Row { name: "seal or view with drop, L2 b2", ballots: TWO, ..OPEN },
    Row {
        name: "4 to 3, who goes is silent, L3 b1",
        ids: 4,
        founders: 4,
        log_max: 3,
        crashes: 1,
        silent: Some(C),
        ..OPEN
    },
    Row {
        name: "a restart around seal, L3 b1",
        ballots: FIRST,
        ballots_open: LATER,
        log_max: 3,
        crashes: 1,
        restarts: Some(C),
        snapshots: true,
        ..ONE
    },
    Row { name: "two indices, b2", ballots_open: LATER, log_max: 2, ..ONE },
    Row { name: "a view around an open version, L4 b1", log_max: 4, crashes: 1, ..OPEN },
    Row {
        name: "leave, 4 to 3, b2",
        ids: 4,
        founders: 4,
        leaves: Some(C),
        contributors: &[],
        known: &[],
        beats: true,
        crashes: 1,
        ..PLAIN
    },
    Row { name: "manifest, view with drop, seal, L3 b1", log_max: 3, is_short: true, ..OPEN },
    Row { name: "seal or view with drop, L2 b1", is_short: true, ..OPEN },
    Row { name: "one index, manifests, 3 members b3", ballots: THREE, ..SHORT },
    Row { name: "one index, manifests, 4 members b2", ids: 4, founders: 4, ..SHORT },
    Row {
        name: "one index, manifest or view, 3 members b4",
        ballots: FOUR,
        beliefs: &[NOBODY, C_GONE],
        is_short: true,
        ..ONE
    },
    Row {
        name: "one index, manifest or view, 4 members b2",
        ids: 4,
        founders: 4,
        beliefs: &[NOBODY, C_GONE],
        is_short: true,
        ..ONE
    },
    Row {
        name: "one index, a restart, b3",
        ballots: THREE,
        crashes: 1,
        restarts: Some(C),
        snapshots: true,
        ..SHORT
    },
    Row {
        name: "one index, the lowest restarts, b2",
        crashes: 1,
        restarts: Some(A),
        snapshots: true,
        ..SHORT
    },
    Row { name: "two indices, b2 of the first", log_max: 2, is_short: true, ..ONE },
    Row {
        name: "a version, then a view, L3 b1",
        ballots: FIRST,
        log_max: 3,
        contributors: &[1],
        known: &[&[1], &[], &[1]],
        beliefs: &[NOBODY, A_GONE],
        ..SHORT
    },
    Row {
        name: "a version, then a view, L4 b2",
        log_max: 4,
        contributors: &[1],
        known: &[&[1], &[], &[1]],
        beliefs: &[NOBODY, A_GONE],
        ..SHORT
    },
    Row {
        name: "fold of a stale slot, two contributors, L7 b2",
        ballots: TWO,
        log_max: 7,
        contributors: &[0, 2],
        known: &[&[], &[0], &[0]],
        travels: true,
        cuts: true,
        ..SHORT
    },
    Row {
        name: "exclusion and re-admission, L4 b1",
        is_short: true,
        ballots_open: &[],
        log_max: 4,
        crashes: 1,
        cuts: true,
        joins: true,
        travels: true,
        snapshots: true,
        ..OPEN
    },
    Row { name: "leave, 3 to 2, b3", ballots: THREE, leaves: Some(C), beats: true, is_short: true, ..ONE },
    Row { name: "join, 2 to 3, b3", ballots: THREE, founders: 2, known: &[&[], &[0]], ..JOIN },
    Row { name: "join, 1 to 3, b2", founders: 1, known: &[], log_max: 2, ballots_open: LATER, ..JOIN },
];

impl Row {
    /// The members as they are when the search begins, and what has been said.
    pub(super) fn begin(&self) -> (Vec<Local>, Vec<Fact>) {
        let view = genesis(self.founders as u64);
        let mut locals: Vec<Local> = view.members.iter().map(|seat| Local::founder(&view, seat)).collect();
        let mut offers = Vec::new();
        for at in self.contributors.iter().copied() {
            locals[at].work(1 << at);
            let (local, facts) =
                locals[at].step(&Step::Cut, Belief::default()).expect("a slot is cut at the beginning");
            locals[at] = local;
            let offer = facts.into_iter().find(|fact| matches!(fact, Fact::Offer { .. }));
            offers.extend(offer.map(|offer| (at, offer)));
        }
        for (at, known) in self.known.iter().enumerate().take(self.founders) {
            for (_, offer) in offers.iter().filter(|(of, _)| known.contains(of) && *of != at) {
                let step = Step::Receive(offer.clone());
                locals[at] = locals[at].step(&step, Belief::default()).expect("an offer is heard").0;
            }
        }
        for at in self.founders..self.ids {
            locals.push(Local::observer(NodeKey(10 + at as u64), Incarnation(100 + at as u64)));
        }
        let mut facts: Vec<Fact> =
            if self.travels { offers.into_iter().map(|(_, offer)| offer).collect() } else { Vec::new() };
        if self.snapshots {
            facts.extend(locals[0].snapshot());
        }
        (locals, facts)
    }
}
