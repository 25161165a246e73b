//! Whether this node knows where the mesh is. One that has lost its way asks wherever nodes were, as a stranger does,
//! and stays what it is until somebody's state says otherwise.

use super::join::Joining;
use super::{Engine, Work};
use plesio_wire::{Instant, LogIndex, NodeKey, Version};
use std::net::SocketAddr;

/// What tells a node that it may have lost its way.
#[derive(Debug)]
pub(super) struct Bearings {
    /// When a member of the view in force was heard last; kept while this node has no seat.
    heard: Instant,
    /// Snapshots asked for since the last one came.
    fetches: u32,
    /// Since when there is no quorum, until that is given up.
    pub(super) alone: Option<Instant>,
    /// A member of the view in force here spoke of a later one.
    passed: Option<Passed>,
}

impl Bearings {
    pub(super) const fn new(now: Instant) -> Self {
        Self { heard: now, fetches: 0, alone: None, passed: None }
    }
}

/// What a node without a seat has come to: the log, the state, and the view that was shown to it.
type Mark = (LogIndex, Version, u32);

/// Whether a node without a seat gets anywhere.
#[derive(Debug)]
pub(super) struct Headway {
    mark: Mark,
    /// Payload of states that came, when that was last looked at.
    bytes: u64,
    /// Since when nothing of that has changed.
    since: Instant,
    /// Somebody claimed to be ahead since then.
    is_behind: bool,
}

impl Headway {
    pub(super) fn new(now: Instant) -> Self {
        Self { mark: Mark::default(), bytes: 0, since: now, is_behind: false }
    }
}

/// Others have gone on to a later view. Who has no seat there may never hear so: entries as old as that are forgotten,
/// and states go to those that there are sessions with.
#[derive(Clone, Copy, Debug)]
struct Passed {
    /// The view that this node knows.
    number: u32,
    /// What it has come to: the log, the state, and payload of states.
    mark: (LogIndex, Version, u64),
    /// Since when nothing of that has changed.
    since: Instant,
}

impl Engine {
    /// The state was asked for again and again and did not come.
    pub(super) fn note_fetch(&mut self, now: Instant) {
        self.bearings.fetches += 1;
        if self.bearings.fetches >= FETCHES_LOST {
            self.lose_way(now);
        }
    }

    /// There is a quorum again, as far as this node knows: members whose view is a later one are none of it.
    pub(super) fn note_quorum(&mut self, now: Instant) {
        let number = self.consensus.view().number;
        if self.bearings.passed.is_none_or(|passed| passed.number != number) {
            self.find_way(now);
        }
    }

    /// There is no quorum any more.
    pub(super) const fn note_no_quorum(&mut self, now: Instant) {
        self.bearings.alone = Some(now);
    }

    /// The state came, or the others are there again: this node knows where it is.
    pub(super) fn find_way(&mut self, now: Instant) {
        self.bearings.fetches = 0;
        self.bearings.alone = (self.consensus.is_member() && !self.consensus.has_quorum()).then_some(now);
        let seated = self.seat(self.consensus.view()).is_some();
        self.joining.take_if(|joining| {
            let over = std::mem::take(&mut joining.lost);
            over && seated
        });
    }

    fn lose_way(&mut self, now: Instant) {
        self.bearings.alone = None;
        if self.consensus.is_started() {
            self.joining.get_or_insert_with(|| Joining::new(Vec::new(), now)).lost = true;
        }
    }

    /// Places to ask at, the next ones in turn; sealed, whoever is there is asked for a session first.
    pub(super) fn next_places(&mut self, count: usize) -> Vec<SocketAddr> {
        let places = self.places.next(self.key, count);
        let known = places.iter().filter_map(|(_, entry)| *entry);
        self.work.extend(known.map(|entry| Work::Seek { entry }));
        places.into_iter().map(|(address, _)| address).collect()
    }

    /// A member of the view that is in force here speaks, in view `number` if its words tell.
    pub(super) fn note_heard(&mut self, now: Instant, from: Option<NodeKey>, number: Option<u32>) {
        let view = self.consensus.view();
        if from.is_none_or(|from| view.index_of(from).is_none()) {
            return;
        }
        if self.joining.is_some() {
            self.bearings.heard = now;
        }
        let is_later = number.is_some_and(|number| number > view.number);
        if is_later && self.bearings.passed.is_none_or(|passed| passed.number != view.number) {
            self.bearings.passed = Some(self.passed(now));
        }
    }

    fn passed(&self, now: Instant) -> Passed {
        let (index, held) = (self.consensus.index(), self.consensus.version_held());
        let mark = (index, held, self.links.bulk_received_bytes());
        Passed { number: self.consensus.view().number, mark, since: now }
    }

    pub(super) fn handle_bearings_timeout(&mut self, now: Instant) {
        let mut is_over = self.bearings.alone.is_some_and(|since| now >= since.after(ALONE_NS));
        if let Some(passed) = self.bearings.passed {
            let today = self.passed(now);
            if today.number != passed.number {
                self.bearings.passed = None;
            } else if today.mark != passed.mark {
                self.bearings.passed = Some(today);
            } else {
                is_over |= now >= passed.since.after(LOST_NS);
            }
        }
        if is_over {
            self.lose_way(now);
        }
    }

    pub(super) fn bearings_timeout(&self) -> Option<Instant> {
        let is_lost = self.joining.as_ref().is_some_and(|joining| joining.lost);
        let alone = self.bearings.alone.map(|since| since.after(ALONE_NS));
        let passed = self
            .bearings
            .passed
            .filter(|_| !is_lost && self.consensus.is_started())
            .map(|passed| passed.since.after(LOST_NS));
        alone.into_iter().chain(passed).min()
    }

    /// A node without a seat for which nothing changes has lost its way if others go on, or if nobody that it knows
    /// speaks: they are in other lives, or others are in their places. Where the mesh stands still it waits, as all do.
    pub(super) fn note_headway(&mut self, now: Instant) {
        if self.seat(self.consensus.view()).is_some() {
            return;
        }
        let (index, held) = (self.consensus.index(), self.consensus.version_held());
        let (bytes, is_behind) = (self.links.bulk_received_bytes(), self.consensus.is_behind());
        let is_alone = now.since(self.bearings.heard) >= LOST_NS;
        let Some(joining) = &mut self.joining else { return };
        let mark = (index, held, joining.sponsor.map_or(0, |view| view.number + 1));
        let headway = &mut joining.headway;
        let moves = headway.mark != mark || bytes > headway.bytes;
        headway.bytes = bytes;
        if moves {
            *headway = Headway { mark, bytes, since: now, is_behind };
            joining.lost = false;
            return;
        }
        headway.is_behind |= is_behind;
        joining.lost |= now.since(headway.since) >= LOST_NS && (headway.is_behind || is_alone);
    }
}

/// Without a quorum for so long a node takes itself for lost: the others may have gone on without it.
const ALONE_NS: u64 = 1_000_000_000;
/// A node without a seat, or whose view others have gone on from, takes itself for lost when it gets nowhere for so long.
const LOST_NS: u64 = 1_000_000_000;
/// So many snapshots asked for in vain, and the node takes itself for lost.
const FETCHES_LOST: u32 = 3;
