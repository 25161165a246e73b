//! The observer that sees all nodes: what they learn goes into one log, and from that log alone follows what every
//! node's master state must be. The first broken promise is kept.
//!
//! | invariant | judged where, and when |
//! |---|---|
//! | I1 | not here: these workers have no floats; the node's worker has tests of its own |
//! | I2, A4 | `books`, at every cut and every slot that comes back; here, whenever a slot is settled |
//! | I3, A8 | here, at every MANIFEST |
//! | I4, P1, P3, A3 | here, whenever a state was applied or installed, in integers |
//! | I5, A1 | here, at every entry that anybody learns |
//! | I6, P2, A2 | here, at every MANIFEST: by slot and by unit of mass |
//! | I7, A6 | `world::judge`, when faults are over: a version within 3 s or 5 frames, then within 3 frames; no slot stuck, nobody left aside |
//! | I8 | `worker`: a step returns at once, whatever the ring and the mesh do |
//! | I9 | `process`, after every turn: the corrector acts once in `dwell` slots at most |
//! | I10 | `process`, at every line of a mesh clock |
//! | I11 | not here: the fuzzer; here only that nothing damaged is taken (P4) |
//! | I12 | tests: the same seed twice, on one thread and on two |
//! | R8, R9, R13 to R16, R19, R21 to R23, R25 | here, at every entry and every settled slot |
//! | P9 | all of it, with clocks that run wrong and stand still |
//! | A5, A7 | A6 fails without them: a final version that nobody holds is never followed by another |
//!
//! Whoever lies is known. A forged contribution leaves I4 as it is, but for the sum that was announced: all honest
//! members must hold the same (T11). After two proposals in one ballot, or two sums of one shard, honest members may
//! differ, and must notice.

mod generation;
mod lies;
mod questions;
mod views;
mod weights;

use plesio::engine::SlotFate;
use plesio::{Outer, Rules};
use plesio_consensus::{Event, generation};
use plesio_wire::value::{Manifest, Value, View};
use plesio_wire::{Digest, Incarnation, LogIndex, NodeKey, SlotSeq, Version};
use std::collections::BTreeMap;

/// A contribution, for ever.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct SlotId {
    pub(crate) key: NodeKey,
    pub(crate) life: Incarnation,
    pub(crate) seq: SlotSeq,
}

/// Where a contribution stands in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    Announced,
    Listed(Version),
    Dropped,
    Final(Version),
}

#[derive(Debug)]
struct Slot {
    host: u8,
    process: u32,
    base: Version,
    n_steps: u32,
    content: Vec<i64>,
    units: Vec<u32>,
    standing: Standing,
    /// What its entry weighs, and what its mode alone would have made it weigh.
    weights: (u32, u32),
    fate: Option<SlotFate>,
    /// Announced in a generation that has ended.
    void: bool,
    announced_ns: u64,
}

/// A slot as its process announced it.
#[derive(Debug)]
pub(crate) struct Announcement<'a> {
    pub(crate) host: u8,
    pub(crate) process: u32,
    pub(crate) base: Version,
    pub(crate) n_steps: u32,
    pub(crate) content: &'a [i64],
    pub(crate) units: &'a [u32],
}

#[derive(Debug)]
struct Opened {
    version: Version,
    entries: Vec<(SlotId, u32)>,
}

/// A final version.
#[derive(Debug)]
struct Final {
    state: Vec<i64>,
    slots: Vec<SlotId>,
    /// Of the outer step, where it has one.
    momentum: Vec<i128>,
    at_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Checker {
    elements: usize,
    rules: Rules,
    now_ns: u64,
    /// Digest of every entry of this generation, and the host that learnt it first.
    log: Vec<(Digest, u8)>,
    /// Index of the generation's first entry; the version that the next one begins from, once somebody begins it.
    first: u64,
    begun: Option<Version>,
    views: Vec<View>,
    open: Option<Opened>,
    finals: Vec<Final>,
    slots: BTreeMap<SlotId, Slot>,
    /// Version that has the unit, by process and unit.
    units: BTreeMap<(u32, u32), Version>,
    applied: BTreeMap<u32, Version>,
    /// Processes that were made to reckon wrong, and whether they have been right again since.
    bent: BTreeMap<u32, bool>,
    /// When the newest view was first learnt, and the lives that it left out, until somebody asks.
    view_ns: u64,
    views_ns: Vec<u64>,
    removed: Vec<(NodeKey, Incarnation)>,
    /// Own slots that a process just learnt to be final, and must have released before it is quiet.
    due: Vec<(u32, SlotId)>,
    /// A member sent another contribution than it announced.
    forged: bool,
    /// A member told some this and others that.
    equivocated: bool,
    lies: u64,
    /// Hosts that lied, a bit each.
    liars: u64,
    /// Since when honest members differ, because of that; nothing that follows from the log is judged any more.
    diverged_ns: Option<u64>,
    noticed: bool,
    violation: Option<(u64, String)>,
}

impl Checker {
    /// The log begins with the first view, the versions with a state of zeros.
    pub(crate) fn new(genesis: View, elements: usize, rules: Rules) -> Self {
        Self {
            elements,
            rules,
            now_ns: 0,
            log: vec![(Value::View(genesis).digest(), 0)],
            first: 0,
            begun: None,
            views: vec![genesis],
            open: None,
            finals: vec![Final {
                state: vec![0; elements],
                momentum: vec![0; elements],
                slots: Vec::new(),
                at_ns: 0,
            }],
            slots: BTreeMap::new(),
            units: BTreeMap::new(),
            applied: BTreeMap::new(),
            bent: BTreeMap::new(),
            view_ns: 0,
            views_ns: Vec::new(),
            removed: Vec::new(),
            due: Vec::new(),
            forged: false,
            equivocated: false,
            lies: 0,
            liars: 0,
            diverged_ns: None,
            noticed: false,
            violation: None,
        }
    }

    pub(crate) fn handle_time(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// A promise that holds whoever lies; keeps the first one.
    pub(crate) fn fail(&mut self, what: String) {
        self.violation.get_or_insert((self.now_ns, what));
    }

    /// A promise that holds as long as nobody tells one member this and another that.
    fn broken(&mut self, what: String) {
        if self.equivocated {
            self.diverged_ns.get_or_insert(self.now_ns);
        } else {
            self.fail(what);
        }
    }

    /// Whether a version is decided that nobody has learnt to be final.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(crate) fn violation(&self) -> Option<&(u64, String)> {
        self.violation.as_ref()
    }

    pub(crate) fn newest_view(&self) -> &View {
        self.views.last().expect("the first view is always there")
    }

    /// The view before the newest one.
    pub(crate) fn previous_view(&self) -> &View {
        &self.views[self.views.len().saturating_sub(2)]
    }

    pub(crate) fn views(&self) -> u64 {
        self.views.len() as u64 - 1
    }

    pub(crate) fn newest_final(&self) -> Version {
        Version(self.finals.len() as u64 - 1)
    }

    pub(crate) fn log_len(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// Lives that views have left out since the last call.
    pub(crate) fn take_removed(&mut self) -> Vec<(NodeKey, Incarnation)> {
        std::mem::take(&mut self.removed)
    }

    /// A process froze a slot.
    pub(crate) fn handle_announced(&mut self, id: SlotId, slot: &Announcement<'_>) {
        let known = self.slots.insert(
            id,
            Slot {
                host: slot.host,
                process: slot.process,
                base: slot.base,
                n_steps: slot.n_steps,
                content: slot.content.to_vec(),
                units: slot.units.to_vec(),
                standing: Standing::Announced,
                weights: (1, 1),
                fate: None,
                void: false,
                announced_ns: self.now_ns,
            },
        );
        if known.is_some() {
            self.broken(format!("R21: n{} uses slot number {} of one life twice", slot.host, id.seq.0));
        }
    }

    /// A machine of `host` says something.
    pub(crate) fn handle_event(&mut self, host: u8, process: u32, event: &Event) {
        if self.equivocated
            && matches!(event, Event::Diverged { .. } | Event::Differs { .. } | Event::Conflict { .. })
        {
            self.noticed |= self.liars >> host & 1 == 0;
            self.diverged_ns.get_or_insert(self.now_ns);
        }
        if self.has_diverged() {
            return;
        }
        match event {
            Event::Open { context, version, manifest }
                if self.learn(host, *context, Value::Manifest(*manifest).digest()) =>
            {
                self.open(*context, *version, manifest);
            }
            Event::View { index, view, .. } if self.learn(host, *index, Value::View(*view).digest()) => {
                self.enter(*index, *view);
            }
            Event::Sealed { index, version, .. } => {
                if self.learn(host, *index, Digest::of(&version.0.to_le_bytes())) {
                    self.seal(*version);
                }
                let listed = self.finals.get(version.0 as usize).map_or(&[][..], |version| &version.slots);
                let own = listed.iter().filter(|id| {
                    self.slots.get(id).is_some_and(|slot| slot.process == process && slot.fate.is_none())
                });
                self.due.extend(own.map(|id| (process, *id)));
            }
            Event::Reopen { context, version, manifest, .. } => {
                self.reopened(host, *context, *version, manifest)
            }
            Event::Diverged { version, peer, ours, theirs } if self.bent.is_empty() => self.broken(format!(
                "I4: n{host} holds {ours} for version {}, {:016x} says {theirs}",
                version.0, peer.0
            )),
            Event::Conflict { peer, evidence } if !self.equivocated => self.broken(format!(
                "R2: n{host} finds two proposals of {:016x} in one ballot of index {}",
                peer.0, evidence.index.0
            )),
            Event::Resync { version } if !self.bent.contains_key(&process) => {
                self.broken(format!("I4: n{host} gives the right state of version {} up", version.0));
            }
            Event::Stopped { version, cause } => {
                self.broken(format!("n{host} stops after version {}: {cause:?}", version.0));
            }
            _ => {}
        }
    }

    /// A process settles an own slot.
    pub(crate) fn handle_settled(&mut self, id: SlotId, fate: SlotFate) {
        if self.has_diverged() {
            return;
        }
        let Some(slot) = self.slots.get_mut(&id) else {
            return self.broken(format!("R22: slot {} is settled and was never announced", id.seq.0));
        };
        let (host, standing, before) = (slot.host, slot.standing, slot.fate);
        slot.fate = Some(fate);
        if slot.void {
            return;
        }
        let what = match (fate, standing) {
            _ if before.is_some() => "settled twice",
            (SlotFate::Commit, Standing::Final(_))
            | (SlotFate::Fold, Standing::Announced | Standing::Dropped) => return,
            (SlotFate::Commit, _) => "released before its version is final (R22)",
            (SlotFate::Fold, _) => "folded though it is listed (R23)",
            (SlotFate::Lose, _) => "lost by a process that kept its memory (I2, A4)",
        };
        self.broken(format!(
            "n{host}: slot {} is {what}; it stands {standing:?}, fate before {before:?}",
            id.seq.0
        ));
    }

    /// A process has nothing more to say for now: what it learnt to be final must be released.
    pub(crate) fn handle_turned(&mut self, process: u32) {
        if self.due.is_empty() || self.has_diverged() {
            return;
        }
        let due = std::mem::take(&mut self.due);
        for (_, id) in due.iter().filter(|(of, _)| *of == process) {
            let slot = &self.slots[id];
            if slot.fate != Some(SlotFate::Commit) {
                let what = format!("I2: n{} learnt that slot {} is final and keeps it", slot.host, id.seq.0);
                self.broken(what);
            }
        }
    }

    /// The master state of a process after it applied or installed `version`.
    pub(crate) fn handle_applied(&mut self, host: u8, process: u32, version: Version, state: &[i64]) {
        if self.has_diverged() {
            return;
        }
        if let Some(exact) = self.finals.get_mut(version.0 as usize).filter(|exact| exact.state.is_empty()) {
            exact.state.extend_from_slice(state);
        }
        let Some(exact) = self.finals.get(version.0 as usize) else {
            return self
                .broken(format!("R13: n{host} applies version {} and nobody learnt its SEAL", version.0));
        };
        if let Some(right) = self.bent.get_mut(&process).filter(|right| !**right) {
            *right = exact.state == state;
            // It may go back to what it takes over.
            self.applied.insert(process, version);
            return;
        }
        let pairs = exact.state.iter().zip(state).enumerate();
        let differs =
            pairs.filter(|(_, (exact, real))| exact != real).map(|(at, (exact, real))| (at, *exact, *real));
        if let Some((element, exact, real)) = differs.clone().next() {
            let count = differs.count();
            return self.broken(format!(
                "I4: n{host} holds {real} in element {element} of version {}, the log says {exact}; {count} of {} \
                 elements differ",
                version.0, self.elements
            ));
        }
        let last = self.applied.insert(process, version);
        if last.is_some_and(|last| last > version) {
            self.broken(format!(
                "R13: n{host} goes back from version {} to {}",
                last.map_or(0, |last| last.0),
                version.0
            ));
        }
    }

    /// A process reckons wrong from here on; until it holds the right state again, what it holds breaks no promise.
    #[cfg(test)]
    pub(crate) fn handle_bent(&mut self, process: u32) {
        self.bent.insert(process, false);
    }

    /// Every process that was bent must hold what the others hold in the end.
    pub(crate) fn check_bent(&mut self) {
        if let Some(process) = self.bent.iter().find(|(_, right)| !**right).map(|(process, _)| *process) {
            self.fail(format!("I4: process {process} was bent and never took the right state over"));
        }
    }

    /// Whether the entry is new to everybody.
    fn learn(&mut self, host: u8, index: LogIndex, digest: Digest) -> bool {
        if generation(index) > generation(LogIndex(self.first))
            && let Some(version) = self.begun.take()
        {
            self.begin_generation(index, version);
        }
        let Some(at) = index.0.checked_sub(self.first) else {
            self.broken(format!("F27: n{host} goes on at index {} of a mesh that has ended", index.0));
            return false;
        };
        match self.log.get(at as usize) {
            Some((known, _)) if *known == digest => false,
            Some((_, first)) => {
                let what = format!("I5: n{host} learns another value at index {} than n{first} did", index.0);
                self.broken(what);
                false
            }
            None if at == self.log.len() as u64 => {
                self.log.push((digest, host));
                true
            }
            None => {
                self.broken(format!(
                    "I5: n{host} learns index {} and nobody has learnt index {}",
                    index.0,
                    self.log_len()
                ));
                false
            }
        }
    }

    fn open(&mut self, index: LogIndex, version: Version, manifest: &Manifest) {
        let view = *self.newest_view();
        let at = format!("MANIFEST of version {} at index {}", version.0, index.0);
        if let Some(open) = &self.open {
            let what = format!("R14: {at} while version {} is open", open.version.0);
            return self.broken(what);
        }
        if version.0 != self.finals.len() as u64 {
            return self.broken(format!("I5: {at}, but {} versions are final", self.finals.len() - 1));
        }
        if manifest.view != view.digest() {
            self.broken(format!("R8: {at} names another view than the one in force"));
        }
        if !manifest.entries.windows(2).all(|pair| pair[0].member < pair[1].member) {
            self.broken(format!("R9: {at}: entries are not sorted or not unique"));
        }
        self.weigh(&at, manifest, view.members.len(), view.weight_mode);
        let mut entries = Vec::with_capacity(manifest.entries.len());
        for entry in manifest.entries.iter() {
            let Some(seat) = view.members.get(usize::from(entry.member)) else {
                return self.broken(format!("R9: {at}: nobody is member {}", entry.member));
            };
            let id = SlotId { key: seat.key, life: seat.incarnation, seq: SlotSeq(entry.slot_seq) };
            self.list(&at, id, version, (entry.staleness, entry.n_steps));
            entries.push((id, entry.weight));
        }
        self.open = Some(Opened { version, entries });
    }

    /// I6 and A2 for one entry.
    fn list(&mut self, at: &str, id: SlotId, version: Version, told: (u16, u32)) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return self
                .broken(format!("P2: {at} lists slot {} of {:016x}, never announced", id.seq.0, id.key.0));
        };
        let host = slot.host;
        let name = format!("{at} lists slot {} of n{host}", id.seq.0);
        let (staleness, n_steps) = ((version.0 - 1).saturating_sub(slot.base.0), slot.n_steps);
        let (standing, fate) = (slot.standing, slot.fate);
        slot.standing = Standing::Listed(version);
        let process = slot.process;
        let twice = slot.units.iter().find_map(|unit| Some((*unit, *self.units.get(&(process, *unit))?)));
        self.units.extend(slot.units.iter().map(|unit| ((process, *unit), version)));
        if standing != Standing::Announced {
            self.broken(format!("I6: {name}, which stands {standing:?}"));
        } else if let Some(fate) = fate {
            self.broken(format!("A2: {name}, which its node has settled: {fate:?}"));
        } else if let Some((unit, before)) = twice {
            self.broken(format!("A2: {name}: its unit {unit} is in version {} too", before.0));
        } else if staleness > self.rules.tau {
            self.broken(format!("I6: {name}, {staleness} versions stale"));
        } else if told != (staleness as u16, n_steps) {
            self.broken(format!(
                "R9: {name} with staleness {} and {} steps; it has {staleness} and {n_steps}",
                told.0, told.1
            ));
        }
    }

    fn seal(&mut self, version: Version) {
        let Some(open) = self.open.take() else {
            return self.broken(format!("R14: SEAL of version {} and none is open", version.0));
        };
        if open.version != version {
            self.broken(format!("R14: SEAL of version {}, open is {}", version.0, open.version.0));
        }
        let mut sums = vec![0; self.elements];
        for (id, weight) in &open.entries {
            let Some(slot) = self.slots.get_mut(id) else { continue };
            slot.standing = Standing::Final(version);
            for (sum, q) in sums.iter_mut().zip(&slot.content) {
                *sum += i64::from(*weight) * q;
            }
        }
        // What is summed is not what was announced: the first one who applies it says what it is, and of a state that is
        // not known there is nothing to add to.
        let known = !self.forged;
        let last = self.finals.last().expect("version 0 is always there");
        let (mut state, mut momentum) =
            if known { (last.state.clone(), last.momentum.clone()) } else { (Vec::new(), Vec::new()) };
        for ((state, momentum), sum) in state.iter_mut().zip(&mut momentum).zip(&sums) {
            *state += match self.rules.outer {
                Outer::Sum => *sum,
                Outer::Nesterov(factors) => {
                    let (mu, eta) = (i128::from(factors.mu16()), i128::from(factors.eta16()));
                    let sum = i128::from(*sum);
                    *momentum = (*momentum * mu).div_euclid(65_536) + sum;
                    let inner = (sum * 65_536 + *momentum * mu).div_euclid(65_536);
                    (inner * eta).div_euclid(65_536) as i64
                }
            };
        }
        let slots = open.entries.iter().map(|(id, _)| *id).collect();
        self.finals.push(Final { state, momentum, slots, at_ns: self.now_ns });
    }
}

#[cfg(test)]
mod tests;
