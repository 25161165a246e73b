//! One member as the explorer sees it: the shipped machine, the data around it, and books of its own that say what
//! the machine ought to have done.

mod words;

pub(super) use words::has_quorum;

use super::fact::{Books, Fact, Listed};
use crate::ledger::Admission;
use crate::machine::by_hand::{Belief, Input};
use crate::{Config, Consensus, Event, OwnSlot, Start, To};
use plesio_wire::sideband::Message;
use plesio_wire::value::{Manifest, Seat, Value, View};
use plesio_wire::{
    Ballot, Digest, Frame, Incarnation, Instant, LogIndex, MemberIndex, NodeKey, SlotSeq, Version,
};
use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::string::String;
use std::vec::Vec;

/// What happens to a member.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Receive(Fact),
    Gather(Vec<Fact>),
    Begin(Ballot),
    Continue,
    /// It has all slots of the open version and sums its own shard.
    Compute,
    /// What it has to contribute becomes a slot.
    Cut,
    /// The process is killed and started anew: it remembers nothing (section 7).
    Restart(Incarnation),
    Leave,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) machine: Consensus,
    pub(super) key: NodeKey,
    pub(super) life: Incarnation,
    books: Books,
    /// The same at the newest index without an open version.
    books_cut: Books,
    /// G by version, as this member's own sums made it.
    applied: BTreeMap<Version, Digest>,
    /// Result shards of the open context, or of the version sealed last, with what they are sums of.
    shards: BTreeMap<(LogIndex, MemberIndex), Digest>,
    /// Slots complete here, in the view in force.
    windows: BTreeSet<(Admission, SlotSeq)>,
    /// Announced slots: base, and the units in them.
    pub(super) slots: BTreeMap<SlotSeq, (Admission, u32)>,
    /// Units of work, a bit each: in no slot; in final slots; all.
    pub(super) filling: u32,
    finals: u32,
    made: u32,
    seq_next: u32,
    /// It has left and is there no more.
    pub(super) has_left: bool,
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// What a shard of a version is a sum of.
fn content(entries: &[Listed]) -> Digest {
    digest(&format!("{entries:?}"))
}

fn chain(before: Digest, content: Digest) -> Digest {
    digest(&format!("{before}{content}"))
}

impl Local {
    /// A member of the first view, with nothing to contribute yet.
    pub(super) fn founder(view: &View, seat: &Seat) -> Self {
        Self::new(seat.key, seat.incarnation, Start::Genesis(*view))
    }

    pub(super) fn observer(key: NodeKey, life: Incarnation) -> Self {
        Self::new(key, life, Start::Observer)
    }

    fn new(key: NodeKey, life: Incarnation, start: Start) -> Self {
        let is_founder = matches!(start, Start::Genesis(_));
        let mut config = Config::new(key, life);
        config.tau = 2;
        let machine = Consensus::new(config, start, Instant(0)).expect("a good configuration");
        let mut local = Self {
            machine,
            key,
            life,
            books: Books::default(),
            books_cut: Books::default(),
            applied: BTreeMap::new(),
            shards: BTreeMap::new(),
            windows: BTreeSet::new(),
            slots: BTreeMap::new(),
            filling: 0,
            finals: 0,
            made: 0,
            seq_next: 0,
            has_left: false,
        };
        if is_founder {
            local.applied.insert(Version(0), Digest::default());
            local.machine.handle_by_hand(Input::Applied(Version(0), Digest::default()), Belief::default());
        }
        local.drain();
        local
    }

    /// New work, to be put into a slot by [`Step::Cut`].
    pub(super) fn work(&mut self, units: u32) {
        self.filling |= units;
        self.made |= units;
    }

    /// All that its future depends on.
    pub(super) fn essence(&self) -> Digest {
        let Self { machine, key, life, books, applied, shards, windows, slots, .. } = self;
        let units = (self.filling, self.finals, self.made, self.seq_next, self.has_left);
        let essence = machine.essence();
        digest(&format!(
            "{key:?} {life:?} {books:?} {applied:?} {shards:?} {windows:?} {slots:?} {units:?} {essence}"
        ))
    }

    pub(super) fn index(&self) -> LogIndex {
        self.machine.index()
    }

    /// Whether it has learnt the entry at that index.
    pub(super) fn knows(&self, index: LogIndex) -> bool {
        self.books.entries.contains_key(&index)
    }

    /// Digests of the entries that it has learnt.
    pub(super) const fn entries(&self) -> &BTreeMap<LogIndex, Digest> {
        &self.books.entries
    }

    pub(super) fn applied(&self) -> &BTreeMap<Version, Digest> {
        &self.applied
    }

    /// Whether every unit it made is final.
    pub(super) fn is_content(&self) -> bool {
        self.finals == self.made && self.slots.is_empty()
    }

    /// Stamp of the result shards that it waits for.
    pub(super) fn context(&self) -> Option<LogIndex> {
        let machine = &self.machine;
        let is_behind = machine.is_started() && machine.version_held() < machine.version_final();
        let late = LogIndex(self.index().0.saturating_sub(2));
        machine.open().map(|open| open.context).or(is_behind.then_some(late))
    }

    /// Whether it has said goodbye.
    pub(super) fn leaves(&self) -> bool {
        self.machine.is_leaving_by_hand()
    }

    fn admission(&self) -> Option<Admission> {
        let at = self.machine.my_index()?;
        self.machine.view().members.get(usize::from(at)).map(Admission::of)
    }

    /// Whether the step may come to anything here.
    pub(super) fn concerns(&self, step: &Step) -> bool {
        let started = self.machine.is_started();
        if self.has_left {
            return false;
        }
        match step {
            Step::Receive(fact) => match fact {
                Fact::Message { to, .. } => *to == self.key && started,
                Fact::Decided { index, .. } => started && *index == self.index(),
                Fact::Shard { context, owner, .. } => {
                    started && !self.shards.contains_key(&(*context, *owner))
                }
                Fact::Offer { view, admission, slot } => {
                    started
                        && *view == self.machine.view_index()
                        && self.machine.is_member()
                        && admission.key != self.key
                        && !self.windows.contains(&(*admission, slot.seq))
                }
                Fact::Hold { of, .. } => started && *of != self.key,
                Fact::Join { join } => started && self.machine.is_member() && join.id.key() != self.key,
                Fact::Snapshot { cut, .. } => {
                    let is_ahead = cut.index > self.index();
                    let has = self.machine.has_state() && self.machine.version_held() >= cut.version;
                    !started || (!has && (is_ahead || cut.version == self.machine.version_final()))
                }
            },
            Step::Gather(shards) => shards.iter().any(|shard| self.concerns(&Step::Receive(shard.clone()))),
            Step::Begin(_) => self.machine.is_member(),
            Step::Continue => self.machine.awaits_choice(),
            Step::Compute => self.computes(|_, _| false).is_some(),
            Step::Cut => self.filling != 0 && self.machine.is_member() && self.slots.len() < 2,
            Step::Restart(_) => true,
            Step::Leave => self.machine.is_member(),
        }
    }

    /// What its shard of the open version is a sum of, if it can sum it: it has each slot, or is `sent` it.
    pub(super) fn computes(
        &self,
        sent: impl Fn(Admission, SlotSeq) -> bool,
    ) -> Option<(LogIndex, MemberIndex, Digest)> {
        let open = self.machine.open()?;
        let me = self.machine.my_index()?;
        let has = |listed: &Listed| {
            self.slots.contains_key(&listed.seq) && listed.admission.key == self.key
                || self.windows.contains(&(listed.admission, listed.seq))
                || sent(listed.admission, listed.seq)
        };
        let fresh = !self.shards.contains_key(&(open.context, me));
        (fresh && self.books.open.iter().all(has)).then(|| (open.context, me, content(&self.books.open)))
    }

    /// What becomes of it and what it tells, or the promise that breaks.
    pub(super) fn step(&self, step: &Step, belief: Belief<'_>) -> Result<(Self, Vec<Fact>), String> {
        let mut next = self.clone();
        let mut told = Vec::new();
        match step {
            Step::Receive(fact) => next.receive(fact, belief)?,
            Step::Gather(shards) => {
                for shard in shards {
                    next.receive(shard, belief)?;
                }
            }
            Step::Begin(ballot) => next.machine.handle_by_hand(Input::Begin(*ballot), belief),
            Step::Continue => next.machine.handle_by_hand(Input::Continue, belief),
            Step::Compute => {
                if let Some((context, owner, content)) = self.computes(|_, _| false) {
                    told.push(next.compute(context, owner, content, belief));
                }
            }
            Step::Cut => next.cut(&mut told),
            Step::Restart(life) => next = Self::observer(self.key, *life),
            Step::Leave => {
                next.machine.handle_by_hand(Input::Leave, belief);
                told.extend(next.goodbyes());
            }
        }
        next.settle(&mut told)?;
        next.check()?;
        if next.machine.version_held() != self.machine.version_held() || next.index() != self.index() {
            next.tell_progress(self, &mut told);
        }
        Ok((next, told))
    }

    pub(super) fn compute(
        &mut self,
        context: LogIndex,
        owner: MemberIndex,
        content: Digest,
        belief: Belief<'_>,
    ) -> Fact {
        self.shards.insert((context, owner), content);
        self.machine.handle_by_hand(Input::Shard(context, owner), belief);
        Fact::Shard { context, owner, content }
    }

    fn receive(&mut self, fact: &Fact, belief: Belief<'_>) -> Result<(), String> {
        match fact {
            Fact::Message { from, view, message, .. } => {
                self.machine.handle_by_hand(Input::Message(*from, *view, message), belief);
            }
            Fact::Decided { index, value } => {
                let from =
                    self.machine.view().members.iter().map(|seat| seat.key).find(|key| *key != self.key);
                let message = Message::Decided { index: *index, value: **value };
                let from = from.unwrap_or(NodeKey(0));
                self.machine.handle_by_hand(Input::Message(from, 0, &message), belief);
            }
            Fact::Shard { context, owner, content } => {
                let late = LogIndex(self.index().0.saturating_sub(2));
                if [self.books.context(self.index()), late].contains(context) {
                    self.shards.insert((*context, *owner), *content);
                    self.machine.handle_by_hand(Input::Shard(*context, *owner), belief);
                }
            }
            Fact::Offer { admission, slot, .. } => self.take_offer(*admission, slot, belief),
            Fact::Hold { of, version, index } => {
                self.machine.handle_by_hand(Input::Hold(*of, *version, *index), belief);
            }
            Fact::Join { join } => {
                for _ in 0..3 {
                    self.machine.handle_by_hand(Input::Join(join), belief);
                }
            }
            Fact::Snapshot { cut, books, state } => {
                let ahead = !self.machine.is_started() || cut.index > self.index();
                self.machine.handle_by_hand(Input::Snapshot(cut), belief);
                if self.machine.version_held() == cut.version && self.machine.has_state() {
                    self.applied.insert(cut.version, *state);
                    if ahead {
                        self.books = (**books).clone();
                        self.books_cut = (**books).clone();
                        self.windows.clear();
                    }
                }
            }
        }
        Ok(())
    }

    fn take_offer(&mut self, admission: Admission, slot: &OwnSlot, belief: Belief<'_>) {
        self.windows.insert((admission, slot.seq));
        let view = self.machine.view().number;
        self.machine.handle_by_hand(Input::Message(admission.key, view, &ready(slot)), belief);
        self.machine.handle_by_hand(Input::Held(admission.key, slot.seq), belief);
        // The other owners have it too, as far as this one hears.
        for seat in self.machine.view().members.iter().copied().collect::<Vec<_>>() {
            let have = self.have(admission, slot);
            self.machine.handle_by_hand(Input::Message(seat.key, view, &have), belief);
        }
    }

    fn have(&self, admission: Admission, slot: &OwnSlot) -> Message {
        use plesio_wire::sideband::{Have, HaveEntry};
        let member = self.machine.view().index_of(admission.key).unwrap_or_default();
        let entry = HaveEntry { member, slot_seq: slot.seq.0, ..HaveEntry::default() };
        Message::Have(Have { frame: Frame(1), entries: plesio_wire::Bounded::from_slice(&[entry]) })
    }

    fn cut(&mut self, told: &mut Vec<Fact>) {
        let Some(admission) = self.admission() else { return };
        let units = core::mem::take(&mut self.filling);
        let seq = SlotSeq(self.seq_next);
        self.seq_next += 1;
        // The steps of a slot are its units, so that every manifest says what it lists.
        let base = self.machine.version_held();
        let slot = OwnSlot { seq, base, target: Frame(1), n_steps: units, digest: Digest::default() };
        self.slots.insert(seq, (admission, units));
        self.machine.handle_by_hand(Input::Cut(slot), Belief::default());
        self.offer(admission, slot, told);
    }

    /// Its slot is here for all owners of the view in force.
    fn offer(&mut self, admission: Admission, slot: OwnSlot, told: &mut Vec<Fact>) {
        self.machine.handle_by_hand(Input::Held(self.key, slot.seq), Belief::default());
        let view = self.machine.view().number;
        for seat in self.machine.view().members.iter().copied().collect::<Vec<_>>() {
            let have = self.have(admission, &slot);
            self.machine.handle_by_hand(Input::Message(seat.key, view, &have), Belief::default());
        }
        told.push(Fact::Offer { view: self.machine.view_index(), admission, slot });
    }

    /// Acts on what the machine says until it says no more, and takes what it sends.
    fn settle(&mut self, told: &mut Vec<Fact>) -> Result<(), String> {
        loop {
            let known = self.books.next();
            self.read_log(told)?;
            let mut quiet = self.books.next() == known;
            while let Some(event) = self.machine.poll_event() {
                quiet = false;
                self.act(&event, told)?;
            }
            self.machine.accept_by_hand();
            if quiet && self.machine.tail.back().is_none_or(|(index, _)| *index < self.books.next()) {
                break;
            }
        }
        self.transmit(told)
    }

    fn drain(&mut self) {
        while self.machine.poll_event().is_some() {}
        while self.machine.poll_transmit().is_some() {}
        let mut told = Vec::new();
        let _first = self.read_log(&mut told);
    }

    /// Enters what the machine has learnt into the books.
    fn read_log(&mut self, told: &mut Vec<Fact>) -> Result<(), String> {
        let tail: Vec<(LogIndex, Value)> = self.machine.tail.iter().copied().collect();
        for (index, value) in tail {
            if index == self.books.next() {
                self.books.learn(index, &value)?;
                if !self.books.is_open() {
                    self.books_cut = self.books.clone();
                }
                told.push(Fact::Decided { index, value: value.into() });
            }
        }
        Ok(())
    }

    fn act(&mut self, event: &Event, told: &mut Vec<Fact>) -> Result<(), String> {
        match event {
            Event::Open { .. } | Event::Reopen { .. } => self.shards.clear(),
            Event::Sealed { version, complete: true, index } => self.apply(*index, *version)?,
            Event::View { .. } => {
                self.windows.clear();
                if let Some(admission) = self.admission() {
                    let slots: Vec<OwnSlot> = self.machine.own_slots().map(|(slot, _)| slot).collect();
                    for slot in slots {
                        self.offer(admission, slot, told);
                    }
                }
            }
            Event::Release { seq, .. } => {
                let (admission, units) = self.slots.remove(seq).ok_or("R22: an unknown slot is released")?;
                if !self.books.is_final(admission, *seq) {
                    return Err(format!("R22: {:?} releases slot {} and no SEAL lists it", self.key, seq.0));
                }
                self.finals |= units;
            }
            Event::Fold { seq, .. } => {
                let (_, units) = self.slots.remove(seq).ok_or("R23: an unknown slot is folded")?;
                self.filling |= units;
            }
            Event::Lost { seq } => {
                return Err(format!("A4: {:?} loses slot {} and kept its memory", self.key, seq.0));
            }
            Event::Left => self.has_left = true,
            Event::Conflict { peer, .. } => {
                return Err(format!("R2: {peer:?} seems to have proposed two values in one ballot"));
            }
            Event::Diverged { version, .. } => {
                return Err(format!("A3: two digests of version {}", version.0));
            }
            _ => {}
        }
        Ok(())
    }

    /// R13: from the shards that are here; the log says what they have to be.
    fn apply(&mut self, seal: LogIndex, version: Version) -> Result<(), String> {
        let context = LogIndex(seal.0 - 1);
        let before = Version(version.0.wrapping_sub(1));
        let Some(before) = self.applied.get(&before).copied() else {
            return Err(format!("R13: {:?} applies version {} without the one before", self.key, version.0));
        };
        let Some(exact) = self.books.chain.get(&version).copied() else {
            return Err(format!("R13: {:?} applies version {} and no SEAL is learnt", self.key, version.0));
        };
        let contents: BTreeSet<Digest> =
            self.shards.iter().filter(|((of, _), _)| *of == context).map(|(_, content)| *content).collect();
        let members = self.shards.keys().filter(|(of, _)| *of == context).count();
        let state = contents.first().map(|content| chain(before, *content));
        if contents.len() != 1 || state != Some(exact) {
            return Err(format!(
                "A3: {:?} applies version {} from {members} shards that are not what the log lists",
                self.key, version.0
            ));
        }
        self.applied.insert(version, exact);
        self.machine.handle_by_hand(Input::Applied(version, exact), Belief::default());
        Ok(())
    }

    fn transmit(&mut self, told: &mut Vec<Fact>) -> Result<(), String> {
        let view = self.machine.view().number;
        while let Some((to, message)) = self.machine.poll_transmit() {
            match &message {
                Message::Seal(accept) => self.check_possession(accept.index)?,
                // A leaver asks who has learnt that it goes; everybody else asks because time has passed.
                Message::Query(query) if query.frame.0 == 0 => continue,
                Message::Query(_)
                | Message::Last(_)
                | Message::Propose(_)
                | Message::Epoch(_)
                | Message::Accept(_)
                | Message::Commit(_) => {}
                // Entries are told as such; the rest only paces, or is counted.
                _ => continue,
            }
            let keys: Vec<NodeKey> = match to {
                To::One(key) => [key].into(),
                _ => self.machine.view().members.iter().map(|seat| seat.key).collect(),
            };
            for to in keys.into_iter().filter(|key| *key != self.key) {
                told.push(Fact::Message { from: self.key, to, view, message: message.into() });
            }
        }
        Ok(())
    }

    /// A7: whoever accepts SEAL at `index` can serve that version.
    fn check_possession(&self, index: LogIndex) -> Result<(), String> {
        let context = LogIndex(index.0 - 1);
        // The shards stay until the next version opens, so this holds after the SEAL is learnt as well.
        let shards = self.shards.keys().filter(|(of, _)| *of == context).count();
        let members = self.machine.view().members.len();
        if shards < members {
            return Err(format!("A7: {:?} accepts SEAL with {shards} of {members} shards", self.key));
        }
        Ok(())
    }

    /// A4 for one member.
    fn check(&self) -> Result<(), String> {
        let in_slots: Vec<u32> = self.slots.values().map(|(_, units)| *units).collect();
        let mut seen = 0u32;
        for units in in_slots.into_iter().chain([self.filling, self.finals]) {
            if seen & units != 0 {
                return Err(format!("A4: {:?} has a unit twice", self.key));
            }
            seen |= units;
        }
        if seen != self.made {
            return Err(format!("A4: {:?} has units {seen:b} of {:b}", self.key, self.made));
        }
        for (seq, (admission, _)) in &self.slots {
            if self.books.is_final(*admission, *seq) {
                return Err(format!("R22: {:?} learnt that slot {} is final and keeps it", self.key, seq.0));
            }
        }
        let listed = self.books.units_of(self.key, self.life);
        if listed & self.filling != 0 {
            return Err(format!("A4: {:?} holds a unit that the log lists", self.key));
        }
        Ok(())
    }
}

fn ready(slot: &OwnSlot) -> Message {
    Message::Ready(plesio_wire::sideband::Ready {
        slot_seq: u64::from(slot.seq.0),
        target: slot.target,
        base_version: slot.base,
        n_steps: slot.n_steps,
        digest: slot.digest,
        ..plesio_wire::sideband::Ready::default()
    })
}

/// The entries of a manifest by their slots.
pub(super) fn listed(view: &View, manifest: &Manifest) -> Vec<Listed> {
    let entry_of = |entry: &plesio_wire::value::Entry| Listed {
        admission: Admission::of(&view.members[usize::from(entry.member)]),
        seq: SlotSeq(entry.slot_seq),
        units: entry.n_steps,
    };
    manifest.entries.iter().map(entry_of).collect()
}
