//! Founding: who starts the mesh clock when nobody holds one, when, and from which M.
//!
//! Normally that is index 0 at genesis. But a reference that dies before anybody else has locked leaves a mesh
//! without a clock: no reference, hence no frame that closes, for ever. Then the lowest member still there founds
//! the clock anew, on the side with the quorum only, from the best M that it knows of.

use super::peer::local;
use super::{Clock, UPDATE_NS};
use crate::MeshClock;
use plesio_wire::sideband::state;
use plesio_wire::{Instant, MemberSet, MeshTime, NodeKey};

/// What the rule remembers.
#[derive(Debug)]
pub(super) struct Founding {
    quorum: bool,
    /// The newest M that anybody told us, and when.
    heard: Option<(Instant, MeshTime)>,
    floor: MeshTime,
    /// Since when nobody we hear holds a clock, as far as we looked.
    vacant_since: Option<Instant>,
    looked_at: Instant,
}

impl Founding {
    pub(super) const fn new(now: Instant) -> Self {
        Self { quorum: true, heard: None, floor: MeshTime(0), vacant_since: None, looked_at: now }
    }

    /// Somebody holds a clock, or somebody is new and may: the wait begins again.
    pub(super) const fn restart(&mut self) {
        self.vacant_since = None;
    }
}

impl Clock {
    /// Members who say that they have no mesh clock, or have not said anything yet; bits are indices of the view.
    #[must_use]
    pub fn untimed(&self) -> MemberSet {
        self.who_say(|state| !holds_clock(state))
    }

    /// Members who say that they hear no quorum; bits are indices of the view.
    #[must_use]
    pub fn detached(&self) -> MemberSet {
        self.who_say(|state| state == state::DETACHED)
    }

    fn who_say(&self, is_so: impl Fn(u8) -> bool) -> MemberSet {
        let mut who = MemberSet::EMPTY;
        for at in (0..self.peers.len()).filter(|at| is_so(self.peers[*at].state)) {
            who.insert(self.index_of(at));
        }
        who
    }

    /// Whether we and those we hear weigh a quorum: of two halves only one may found the mesh clock.
    pub fn handle_quorum(&mut self, _now: Instant, quorum: bool) {
        self.founding.quorum = quorum;
    }

    /// A full beat of `from` says that M is `mesh`, give or take `eps_ns`; `u32::MAX`: it has no clock.
    pub fn handle_mesh_time(&mut self, now: Instant, from: NodeKey, mesh: MeshTime, eps_ns: u32) {
        let holds = eps_ns != u32::MAX && (0..=FOUNDED_NS_MAX).contains(&mesh.0);
        if holds {
            self.founding.heard = Some((now, mesh));
        }
        self.note_told(now, from, holds.then(|| mesh.0.saturating_sub(local(now))));
    }

    /// What is decided proves that M was here: no clock is founded before it.
    pub fn handle_floor(&mut self, floor: MeshTime) {
        self.founding.floor = self.founding.floor.max(floor);
    }

    /// Whether it is on us: nobody holds a clock, we have the quorum, and nobody below us is there to do it.
    pub(super) fn must_found(&mut self, now: Instant) -> bool {
        // While we were stopped we heard nobody, which proves nothing.
        if now.since(self.founding.looked_at) > LOOK_NS_MAX {
            self.founding.restart();
        }
        self.founding.looked_at = now;
        let Some(me) = self.me.filter(|_| !self.line.usable && self.founding.quorum) else {
            self.founding.restart();
            return false;
        };
        let held = self.peers.iter().any(|peer| !peer.suspected && holds_clock(peer.state));
        if held || holds_clock(self.own_state) {
            self.founding.restart();
            return false;
        }
        let since = *self.founding.vacant_since.get_or_insert(now);
        // Who says that it has no quorum may be heard, and founds nothing all the same.
        let absent = |at: usize| self.peers[at].suspected || self.peers[at].state == state::DETACHED;
        let lowest = (0..self.peers.len()).filter(|at| self.index_of(*at) < me).all(absent);
        // At genesis the lower ones may still be on their way to start it.
        let unknown = !self.has_line && self.founding.heard.is_none();
        let early = self.genesis && unknown && now.since(self.started) <= START_WAIT_NS;
        lowest && !early && now.since(since) >= VACANT_NS
    }

    /// M goes on from the best we know of it, and from 0 if that is nothing. It is usable at once.
    pub(super) fn found(&mut self, now: Instant) {
        let base_mesh = self.best_known(now);
        self.line = MeshClock { base_local: now, base_mesh, ..MeshClock::default() };
        self.rate_ppb = 0;
        self.has_line = true;
        self.entry = false;
        self.founding.restart();
        self.lead(now);
        self.elect(now);
    }

    fn best_known(&self, now: Instant) -> MeshTime {
        let Founding { heard, floor, .. } = self.founding;
        let heard = heard.map(|(at, mesh)| mesh.0.saturating_add(local(Instant(now.since(at)))));
        let known = heard.unwrap_or(0).max(floor.0).clamp(0, FOUNDED_NS_MAX);
        // What we said ourselves is never taken back.
        let own = if self.has_line { self.line.at(now).0 } else { 0 };
        MeshTime(known.max(own))
    }
}

/// Whether a member in this state can be the reference.
pub(super) fn holds_clock(held: u8) -> bool {
    (state::LOCKED..=state::HOLDOVER).contains(&held)
}

/// How long nobody must hold a clock.
const VACANT_NS: u64 = 1_000_000_000;
/// How long index 0 is waited for at genesis.
const START_WAIT_NS: u64 = 2_000_000_000;
/// Looks further apart than this were not on time.
const LOOK_NS_MAX: u64 = 2 * UPDATE_NS;
/// 73 years: leaves the line room to run, whatever a beat said.
const FOUNDED_NS_MAX: i64 = 1 << 61;
