//! The schedule of one node: which spans go to whom, which windows are open for whom, what to sum when.
//!
//! Knows: the view in force, this node's own announced slots, which ranges of others' slots it holds, the open
//! version. Does not know: bytes, sockets, ballots. Invariant: a result shard counts only in the context that is
//! open, and a range is summed only when every listed contribution to it is held.
//!
//! ```text
//!  handle_cut ----> Send(range j of slot b, to owner j)          owner: Post(window) -> received -> Held
//!  handle_open ---> all listed held? -> Sum -> handle_summed ---> Send(sum, to all)
//!  received(sum j) -> Shard{j}  ...  all shards -> the agreement is told by Shard, one by one
//! ```

mod results;

use crate::partition::Parts;
use crate::regions::Regions;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use plesio_wire::data::MessageId;
use plesio_wire::value::{Entry, Manifest};
use plesio_wire::{LogIndex, MemberIndex, MemberSet, NodeKey, SlotSeq, Span};

/// Handle of owner j's summed range: this plus j.
pub const HANDLE_RESULT: u16 = 0x100;
/// Handle of a snapshot's state.
pub const HANDLE_SNAPSHOT: u16 = 0x200;
/// Handle of the cut that belongs to it; it goes first.
pub const HANDLE_CUT: u16 = 0x201;
/// A sum to be computed: `out[e] = sum of weight * input[e]`, inputs in member order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sum {
    /// Context the result belongs to.
    pub context: LogIndex,
    /// Contributions, as encoded.
    pub inputs: Vec<Span>,
    /// Q0.24 weight of each.
    pub weights: Vec<u32>,
    /// Where the i64 result goes.
    pub out: Span,
}

/// What the exchange wants done, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Send `span` to a peer as one message.
    Send {
        /// Receiver.
        to: NodeKey,
        /// Message.
        message: MessageId,
        /// Payload; stays as it is until aborted or delivered.
        span: Span,
    },
    /// Stop sending: the span is about to change.
    Abort {
        /// Receiver.
        to: NodeKey,
        /// Message.
        message: MessageId,
    },
    /// Accept a message from a peer into `span`.
    Post {
        /// Sender.
        from: NodeKey,
        /// Handle.
        handle: u16,
        /// Only this sequence; `None` accepts whatever is newer than the last.
        sequence: Option<u16>,
        /// Where it goes.
        span: Span,
    },
    /// Accept nothing more on a handle.
    Withdraw {
        /// Sender.
        from: NodeKey,
        /// Handle.
        handle: u16,
    },
    /// This node holds its range of that slot.
    Held {
        /// Contributor.
        contributor: NodeKey,
        /// Slot.
        seq: SlotSeq,
        /// Where it lies.
        span: Span,
        /// Elements of the range.
        elements: u32,
    },
    /// What came for that slot has another length than this node's range: it is not held.
    Unfit {
        /// Contributor.
        contributor: NodeKey,
        /// Slot.
        seq: SlotSeq,
    },
    /// Compute, then call [`Exchange::handle_summed`].
    Sum(Sum),
    /// A summed range of the open context is here.
    Shard {
        /// Context.
        context: LogIndex,
        /// Owner, index in the view in force.
        owner: MemberIndex,
    },
}

#[derive(Clone, Copy, Debug)]
struct OwnSlot {
    index: u8,
    seq: SlotSeq,
}

#[derive(Clone, Debug)]
struct Open {
    context: LogIndex,
    manifest: Manifest,
    shards: MemberSet,
    turn: bool,
    summing: bool,
    /// Whose window for a result was opened after the owner's own, in order.
    writers: Vec<(MemberIndex, NodeKey)>,
}

/// The schedule machine; see the module.
#[derive(Debug)]
pub struct Exchange {
    regions: Regions,
    me: NodeKey,
    /// This life has a seat among the members; an earlier life's seat is not its own.
    seated: bool,
    members: Vec<NodeKey>,
    /// What each of them owns.
    parts: Parts,
    observers: Vec<NodeKey>,
    own: Vec<OwnSlot>,
    /// Newest complete contribution per (contributor, ring slot), and the side of the window it lies on.
    held: BTreeMap<(NodeKey, u8), (SlotSeq, bool)>,
    /// Sides on which windows are open, where not the first.
    sides: BTreeMap<(NodeKey, u8), bool>,
    /// Highest slot number seen of a contributor: extends the 16 bits that a message carries.
    newest: BTreeMap<NodeKey, SlotSeq>,
    /// Contributions that came before any READY said which 65,536 slots they are of.
    unresolved: BTreeMap<(NodeKey, u8), (u16, bool)>,
    open: Option<Open>,
    /// Nothing is open: the next entry's index, and whose results of it have come before word of it.
    expected: Option<(LogIndex, MemberSet)>,
    turn: bool,
    /// Summed ranges sent in the newest context; the connections know which have arrived.
    sent: Vec<(NodeKey, MessageId)>,
    actions: VecDeque<Action>,
}

impl Exchange {
    /// A node outside every view.
    #[must_use]
    pub fn new(me: NodeKey, regions: Regions) -> Self {
        Self {
            regions,
            me,
            seated: false,
            members: Vec::new(),
            parts: Parts::default(),
            observers: Vec::new(),
            own: Vec::new(),
            held: BTreeMap::new(),
            sides: BTreeMap::new(),
            newest: BTreeMap::new(),
            unresolved: BTreeMap::new(),
            open: None,
            expected: None,
            turn: false,
            sent: Vec::new(),
            actions: VecDeque::new(),
        }
    }

    /// A view is in force, with its shares: ranges change, so what was held is void and own slots go to their new owners. Sessions
    /// between members must be new ones: a chunk of the old ranges must not land in a window of the new.
    pub fn handle_view(&mut self, members: &[NodeKey], shares: &[u16], seated: bool) {
        for slot in self.own.clone() {
            self.abort_slot(slot);
        }
        for &member in &self.members {
            for slot in 0..self.regions.depth {
                self.actions.push_back(Action::Withdraw { from: member, handle: u16::from(slot) });
            }
        }
        self.close();
        self.expected = None;
        self.members = members.to_vec();
        self.parts = self.regions.parts(members.len(), shares);
        self.seated = seated;
        self.observers.retain(|observer| !members.contains(observer));
        self.held.clear();
        self.unresolved.clear();
        self.newest.retain(|key, _| members.contains(key));
        if let Some(me) = self.my_index() {
            for (contributor, &from) in members.iter().enumerate() {
                if from == self.me {
                    continue;
                }
                self.post_windows(from, me, contributor);
            }
        }
        for slot in self.own.clone() {
            self.send_slot(slot);
        }
    }

    /// Nodes that follow without a seat: they get the summed ranges too.
    pub fn handle_observers(&mut self, observers: &[NodeKey]) {
        let added: Vec<NodeKey> =
            observers.iter().copied().filter(|key| !self.observers.contains(key)).collect();
        self.observers = observers.to_vec();
        if let (Some(open), Some(me)) = (self.open.clone(), self.my_index())
            && open.shards.contains(me as MemberIndex)
        {
            for to in added {
                self.send_result(to, &open, me as MemberIndex);
            }
        }
    }

    /// A connection to `peer` is new: everything it may need from this node is sent again, its windows opened.
    pub fn handle_peer(&mut self, peer: NodeKey) {
        let Some(contributor) = self.members.iter().position(|key| *key == peer) else { return };
        if let Some(me) = self.my_index() {
            self.post_windows(peer, me, contributor);
        }
        for slot in self.own.clone() {
            self.send_part(slot, contributor);
        }
        if let Some(open) = self.open.clone() {
            if !open.shards.contains(contributor as MemberIndex) {
                self.post_result(open.context, contributor, peer);
            }
            if let Some(me) = self.my_index()
                && open.shards.contains(me as MemberIndex)
            {
                self.send_result(peer, &open, me as MemberIndex);
            }
        }
    }

    /// An own slot is announced: its content is frozen.
    pub fn handle_cut(&mut self, index: u8, seq: SlotSeq) {
        let slot = OwnSlot { index, seq };
        self.own.push(slot);
        if self.my_index().is_some() {
            self.send_slot(slot);
        }
    }

    /// An own slot is released or folded: nothing of it may be sent or read any more.
    pub fn handle_done(&mut self, seq: SlotSeq) {
        if let Some(at) = self.own.iter().position(|slot| slot.seq == seq) {
            let slot = self.own.remove(at);
            let me = self.me;
            self.actions.retain(
                |action| !matches!(action, Action::Held { contributor, seq: of, .. } if (*contributor, *of) == (me, seq)),
            );
            self.abort_slot(slot);
        }
    }

    /// A message of `from` is complete in its window; `len_bytes` is its true length.
    pub fn handle_received(&mut self, from: NodeKey, message: MessageId, len_bytes: u32) {
        if message.handle >= HANDLE_RESULT {
            self.handle_result(from, message, len_bytes);
        } else if let Ok(slot) = u8::try_from(message.handle)
            && slot < self.regions.depth
        {
            self.handle_contribution(from, slot, message.sequence, len_bytes);
        }
    }

    /// What these windows of `from` stood for is not there any more: it was not held, and comes again. A sum that needed
    /// it has failed.
    pub fn handle_torn(&mut self, from: NodeKey, windows: &[Span]) {
        let (Some(me), Some(contributor)) =
            (self.my_index(), self.members.iter().position(|key| *key == from))
        else {
            return;
        };
        let (regions, parts) = (self.regions, self.parts.clone());
        let stands =
            |slot: u8, side: bool| !windows.contains(&regions.window(slot, side, &parts, me, contributor));
        self.unresolved.retain(|(of, slot), (_, side)| *of != from || stands(*slot, *side));
        let mut lost = Vec::new();
        self.held.retain(|(of, slot), (seq, side)| {
            let stays = *of != from || stands(*slot, *side);
            if !stays {
                lost.push(seq.0);
            }
            stays
        });
        if let Some(open) = &mut self.open {
            let listed =
                |entry: &Entry| usize::from(entry.member) == contributor && lost.contains(&entry.slot_seq);
            open.summing &= !open.manifest.entries.iter().any(listed);
        }
    }

    /// READY of a member: its slot numbers are at least this high.
    pub fn handle_ready(&mut self, from: NodeKey, seq: SlotSeq) {
        if !self.members.contains(&from) {
            return;
        }
        let newest = self.newest.entry(from).or_insert(seq);
        *newest = (*newest).max(seq);
        for slot in 0..self.regions.depth {
            if let Some((sequence, side)) = self.unresolved.remove(&(from, slot)) {
                self.hold(from, slot, sequence, side);
            }
        }
        // Of nothing everything is here: who owns no element is waited for by nobody.
        if let Some(me) = self.my_index().filter(|me| self.parts.elements(*me) == 0 && from != self.me) {
            let span = self.regions.window(0, false, &self.parts, me, 0);
            self.actions.push_back(Action::Held { contributor: from, seq, span, elements: 0 });
        }
    }

    /// Nothing is open and the next entry will stand at `index`. If it is a manifest, its results may be here before
    /// word of it is: their windows are opened now, so that nothing is sent twice.
    pub fn handle_expect(&mut self, index: LogIndex) {
        if self.open.is_none() && self.expected.is_none_or(|(expected, _)| expected != index) {
            self.expected = Some((index, MemberSet::EMPTY));
            for owner in 0..self.members.len() {
                self.post_result(index, owner, self.members[owner]);
            }
        }
    }

    /// A manifest is decided, or what is left of one in a new context: sum what this node owns.
    pub fn handle_open(&mut self, context: LogIndex, manifest: &Manifest) {
        self.close();
        self.turn = !self.turn;
        // What an earlier version still owes to a laggard would stand before this one's results in the same window:
        // whoever lacks it fetches the state.
        for (to, message) in core::mem::take(&mut self.sent) {
            self.actions.push_back(Action::Abort { to, message });
        }
        let open = Open {
            context,
            manifest: *manifest,
            shards: MemberSet::EMPTY,
            turn: self.turn,
            summing: false,
            writers: Vec::new(),
        };
        let early = self.expected.take().filter(|(expected, _)| *expected == context);
        for owner in 0..self.members.len() {
            self.post_result(context, owner, self.members[owner]);
        }
        self.open = Some(open);
        for owner in early.map_or(MemberSet::EMPTY, |(_, owners)| owners).iter() {
            self.shard(owner);
        }
        // The manifest tells slot numbers as READY does, to one who was cut off when they were announced.
        for entry in manifest.entries.iter() {
            if let Some(&contributor) = self.members.get(usize::from(entry.member)) {
                self.handle_ready(contributor, SlotSeq(entry.slot_seq));
            }
        }
        // Of a member that owns no element there is nothing to wait for.
        for owner in 0..self.members.len() {
            if self.parts.elements(owner) == 0 {
                self.shard(owner as MemberIndex);
            }
        }
        self.sum_if_ready();
    }

    /// The [`Sum`] of `context` is computed: everybody gets it.
    pub fn handle_summed(&mut self, context: LogIndex) {
        let Some(me) = self.my_index() else { return };
        let me = me as MemberIndex;
        if !self.open.as_ref().is_some_and(|open| open.context == context && open.summing) {
            return;
        }
        self.shard(me);
        let open = self.open.clone().expect("checked above");
        let mine = usize::from(me);
        let order: Vec<NodeKey> =
            (1..self.members.len()).map(|step| self.members[(mine + step) % self.members.len()]).collect();
        for to in order.into_iter().chain(self.observers.clone()) {
            self.send_result(to, &open, me);
        }
    }

    /// The open version is final or abandoned: its results are no longer accepted.
    pub fn handle_sealed(&mut self) {
        self.close();
    }

    /// Where the summed ranges of the open version lie, by owner, once all are here.
    #[must_use]
    pub fn results(&self) -> Option<Vec<Span>> {
        let open = self.open.as_ref()?;
        let n = self.members.len();
        (open.shards == MemberSet::first(n))
            .then(|| (0..n).map(|owner| self.result_span(open, owner)).collect())
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn my_index(&self) -> Option<usize> {
        self.members.iter().position(|key| *key == self.me && self.seated)
    }

    fn close(&mut self) {
        for owner in 0..self.members.len() as MemberIndex {
            self.withdraw_result(owner);
        }
        if let Some(open) = self.open.take() {
            self.turn = open.turn;
        }
    }

    fn handle_contribution(&mut self, from: NodeKey, slot: u8, sequence: u16, len_bytes: u32) {
        let (Some(me), Some(contributor)) =
            (self.my_index(), self.members.iter().position(|key| *key == from))
        else {
            return;
        };
        let side = self.side(from, slot);
        let span = self.regions.window(slot, side, &self.parts, me, contributor);
        // What is placed is checked only afterwards, so nothing may be placed where something is held: the other side
        // is free, because this slot came only after the one there was final or folded on proof.
        self.sides.insert((from, slot), !side);
        self.post_window(from, slot, me, contributor);
        if len_bytes != span.len_bytes {
            let newest = self.newest.get(&from).copied().unwrap_or_default();
            self.actions.push_back(Action::Unfit { contributor: from, seq: extend(newest, sequence) });
            return;
        }
        if self.newest.contains_key(&from) {
            self.hold(from, slot, sequence, side);
        } else {
            self.unresolved.insert((from, slot), (sequence, side));
        }
    }

    /// This node's range of `from`'s slot in ring place `slot` is complete.
    fn hold(&mut self, from: NodeKey, slot: u8, sequence: u16, side: bool) {
        let (Some(me), Some(contributor), Some(newest)) =
            (self.my_index(), self.members.iter().position(|key| *key == from), self.newest.get_mut(&from))
        else {
            return;
        };
        let seq = extend(*newest, sequence);
        *newest = (*newest).max(seq);
        self.held.insert((from, slot), (seq, side));
        let span = self.regions.window(slot, side, &self.parts, me, contributor);
        let elements = self.owned_elements(me);
        self.actions.push_back(Action::Held { contributor: from, seq, span, elements });
        self.sum_if_ready();
    }

    fn owned_elements(&self, me: usize) -> u32 {
        u32::try_from(self.parts.elements(me)).expect("a summed range is smaller than 4 GiB")
    }

    /// Side on which the window of a ring place is open.
    fn side(&self, from: NodeKey, slot: u8) -> bool {
        self.sides.get(&(from, slot)).copied().unwrap_or_default()
    }

    fn post_windows(&mut self, from: NodeKey, me: usize, contributor: usize) {
        for slot in 0..self.regions.depth {
            self.post_window(from, slot, me, contributor);
        }
    }

    fn post_window(&mut self, from: NodeKey, slot: u8, me: usize, contributor: usize) {
        let side = self.side(from, slot);
        let span = self.regions.window(slot, side, &self.parts, me, contributor);
        if span.len_bytes > 0 {
            self.actions.push_back(Action::Post { from, handle: u16::from(slot), sequence: None, span });
        }
    }

    fn sum_if_ready(&mut self) {
        let Some(me) = self.my_index() else { return };
        let Some(open) = &self.open else { return };
        if open.summing || open.shards.contains(me as MemberIndex) {
            return;
        }
        let mut inputs = Vec::with_capacity(open.manifest.entries.len());
        for entry in open.manifest.entries.iter() {
            let Some(&contributor) = self.members.get(usize::from(entry.member)) else { return };
            let seq = SlotSeq(entry.slot_seq);
            let span = if contributor == self.me {
                let own = self.own.iter().find(|slot| slot.seq == seq);
                own.map(|slot| self.regions.slot_part(slot.index, &self.parts, me))
            } else {
                let mut places = (0..self.regions.depth).filter_map(|slot| {
                    let (held, side) = *self.held.get(&(contributor, slot))?;
                    (held == seq).then_some((slot, side))
                });
                places.next().map(|(slot, side)| {
                    self.regions.window(slot, side, &self.parts, me, usize::from(entry.member))
                })
            };
            let Some(span) = span else { return };
            inputs.push(span);
        }
        let weights = open.manifest.entries.iter().map(|entry| entry.weight).collect();
        let sum =
            Sum { context: open.context, inputs, weights, out: self.regions.sum(&self.parts, me, open.turn) };
        self.actions.push_back(Action::Sum(sum));
        self.open.as_mut().expect("is open").summing = true;
    }

    fn send_slot(&mut self, slot: OwnSlot) {
        let n = self.members.len();
        if let Some(me) = self.my_index() {
            // Node i starts with shard i+1, so that no owner is everybody's first.
            for step in 1..n {
                self.send_part(slot, (me + step) % n);
            }
            self.actions.push_back(Action::Held {
                contributor: self.me,
                seq: slot.seq,
                span: self.regions.slot_part(slot.index, &self.parts, me),
                elements: self.owned_elements(me),
            });
        }
    }

    fn send_part(&mut self, slot: OwnSlot, owner: usize) {
        let span = self.regions.slot_part(slot.index, &self.parts, owner);
        if span.len_bytes == 0 || self.my_index().is_none() {
            return;
        }
        let message = MessageId { handle: u16::from(slot.index), sequence: slot.seq.0 as u16 };
        self.actions.push_back(Action::Send { to: self.members[owner], message, span });
    }

    fn abort_slot(&mut self, slot: OwnSlot) {
        let message = MessageId { handle: u16::from(slot.index), sequence: slot.seq.0 as u16 };
        for &to in self.members.iter().filter(|key| **key != self.me) {
            self.actions.push_back(Action::Abort { to, message });
        }
    }
}

/// The slot number nearest to `near` whose low 16 bits are `low`.
fn extend(near: SlotSeq, low: u16) -> SlotSeq {
    let distance = low.wrapping_sub(near.0 as u16) as i16;
    SlotSeq(near.0.wrapping_add_signed(i32::from(distance)))
}

#[cfg(test)]
mod tests;
