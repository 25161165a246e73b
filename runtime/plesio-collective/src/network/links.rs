//! The other ranks as a rank sees them: what is open for whom, what is on its way to whom, and the actions that come of it.

use super::control::{Control, MESSAGE_BYTES, RING};
use super::layout::Layout;
use super::record::Record;
use super::{Action, DEPTH_MAX};
use crate::call::Ranks;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use plesio_wire::Span;
use plesio_wire::data::MessageId;

/// First of [`HELLO_HANDLES`]: hellos, by number of the call.
pub(crate) const HANDLE_HELLO: u16 = 0;
/// A message waits until the one before it on its handle is acknowledged, and small ones are not at once: with so many
/// handles the acknowledgement is here before its handle is used again.
const HELLO_HANDLES: u64 = 16;
/// First of [`RING`].
pub(crate) const HANDLE_CONTROL: u16 = HANDLE_HELLO + HELLO_HANDLES as u16;
/// First of 32: the hello of a dead rank, from one who has it.
pub(crate) const HANDLE_FORWARD: u16 = 32;
/// First of four: contributions, by slot.
pub(crate) const HANDLE_PART: u16 = 64;
/// First of four: results, by slot.
pub(crate) const HANDLE_RESULT: u16 = 72;

/// Messages of a call to one rank: twice its windows, since word of an arrival may be slower than the next one.
const FLYING_MAX: usize = 4 * DEPTH_MAX;

#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) me: usize,
    pub(crate) ranks: usize,
    pub(crate) dead: Ranks,
    pub(crate) layout: Layout,
    /// The newest call.
    pub(crate) number: u64,
    /// Ranks whose hello of the newest call is here: only they can make sense of what is said about it.
    pub(crate) met: Ranks,
    control: Vec<Control>,
    /// Records for those who are not met yet.
    held_back: Vec<VecDeque<Record>>,
    /// Newest sequence of every window for contributions, the same for all ranks.
    pub(crate) part_sequences: [u16; DEPTH_MAX],
    result_sequences: Vec<[u16; DEPTH_MAX]>,
    /// Windows of the call that are open, and its messages that are on their way.
    open: BTreeSet<(u8, u16)>,
    flying: BTreeSet<(u8, MessageId)>,
    /// Hellos of dead ranks on their way: they outlast the call.
    forwarded: BTreeSet<(u8, MessageId)>,
    actions: VecDeque<Action>,
}

impl Links {
    pub(crate) fn new(me: usize, ranks: usize, region: u16) -> Self {
        let mut links = Self {
            me,
            ranks,
            dead: Ranks::default(),
            layout: Layout::new(me, ranks, region),
            number: 0,
            met: Ranks::default(),
            control: (0..ranks).map(|_| Control::default()).collect(),
            held_back: alloc::vec![VecDeque::new(); ranks],
            part_sequences: [0; DEPTH_MAX],
            result_sequences: alloc::vec![[0; DEPTH_MAX]; ranks],
            open: BTreeSet::new(),
            flying: BTreeSet::new(),
            forwarded: BTreeSet::new(),
            actions: VecDeque::new(),
        };
        for from in links.others().iter() {
            for slot in 0..RING {
                links.post_control(from, slot);
            }
        }
        links.post_hellos(1);
        links
    }

    /// The other ranks that live.
    pub(crate) fn others(&self) -> Ranks {
        Ranks::first(self.ranks).without(self.dead).without(Ranks::default().with(self.me))
    }

    /// They, from the next rank on, so that no rank is everybody's first.
    pub(crate) fn in_turn(&self) -> impl Iterator<Item = usize> + use<> {
        let (me, ranks, others) = (self.me, self.ranks, self.others());
        (1..ranks).map(move |step| (me + step) % ranks).filter(move |rank| others.contains(*rank))
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// The next action that concerns nobody dead.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        loop {
            let action = self.actions.pop_front()?;
            let peer = match &action {
                Action::Post { from, .. } | Action::Withdraw { from, .. } => Some(*from),
                Action::Send { to, .. } | Action::Abort { to, .. } => Some(*to),
                _ => None,
            };
            if peer.is_none_or(|rank| !self.dead.contains(rank.into())) {
                return Some(action);
            }
        }
    }

    pub(crate) fn handle_dead(&mut self, rank: usize) {
        self.dead = self.dead.with(rank);
        self.control[rank] = Control::default();
        self.held_back[rank].clear();
        let other = |of: &u8| usize::from(*of) != rank;
        self.open.retain(|(of, _)| other(of));
        self.flying.retain(|(of, _)| other(of));
        self.forwarded.retain(|(of, _)| other(of));
    }

    pub(crate) fn begin(&mut self) {
        self.number += 1;
        self.met = Ranks::default();
        self.held_back.iter_mut().for_each(VecDeque::clear);
        self.post_hellos(self.number + 1);
    }

    /// The hello of `rank` is here: what was to be told it can be.
    pub(crate) fn meet(&mut self, rank: usize) {
        self.met = self.met.with(rank);
        for record in core::mem::take(&mut self.held_back[rank]) {
            self.control[rank].push(record);
        }
    }

    pub(crate) fn tell(&mut self, to: usize, record: Record) {
        if self.dead.contains(to) || to == self.me {
            return;
        }
        if record.is_of_call() && !self.met.contains(to) {
            self.held_back[to].push_back(record);
        } else {
            self.control[to].push(record);
        }
    }

    /// Sends what was told.
    pub(crate) fn flush(&mut self) {
        for to in self.in_turn() {
            while let Some((slot, sequence, bytes)) = self.control[to].poll_message() {
                let span = self.layout.control_out(to, slot, bytes.len() as u32);
                self.act(Action::Write { span, bytes });
                let message = MessageId { handle: HANDLE_CONTROL + slot as u16, sequence };
                self.act(Action::Send { to: to as u8, message, span });
            }
        }
    }

    /// Records of the next message of `from`, in order.
    pub(crate) fn poll_records(&mut self, from: usize) -> Option<Vec<Record>> {
        self.control[from].poll_records()
    }

    pub(crate) fn handle_control(&mut self, from: usize, slot: usize, sequence: u16, bytes: &[u8]) {
        if self.control[from].handle_received(slot, sequence, bytes) {
            self.post_control(from, slot);
        }
    }

    pub(crate) fn handle_sent(&mut self, to: usize, message: MessageId) {
        match message.handle.checked_sub(HANDLE_CONTROL) {
            Some(slot) if usize::from(slot) < RING => self.control[to].handle_sent(slot.into()),
            _ => {
                self.flying.remove(&(to as u8, message));
                self.forwarded.remove(&(to as u8, message));
            }
        }
    }

    /// Whether another message of the call may go to `to`: a connection has room for so many, and a rank that wants more at
    /// a time than it has windows is broken.
    pub(crate) fn has_room(&self, to: usize) -> bool {
        let (low, high) =
            (MessageId { handle: 0, sequence: 0 }, MessageId { handle: u16::MAX, sequence: u16::MAX });
        self.flying.range((to as u8, low)..=(to as u8, high)).count() < FLYING_MAX
    }

    /// Sends a hello to one who lacks it.
    pub(crate) fn forward(&mut self, to: usize, rank: u8, number: u64, span: Span) {
        let message = MessageId { handle: HANDLE_FORWARD + u16::from(rank), sequence: number as u16 };
        if self.forwarded.insert((to as u8, message)) {
            self.act(Action::Send { to: to as u8, message, span });
        }
    }

    /// Sends a message that belongs to the call.
    pub(crate) fn send(&mut self, to: usize, handle: u16, sequence: u16, span: Span) {
        let message = MessageId { handle, sequence };
        self.flying.insert((to as u8, message));
        self.act(Action::Send { to: to as u8, message, span });
    }

    /// Opens a window that belongs to the call.
    pub(crate) fn post(&mut self, from: usize, handle: u16, sequence: u16, span: Span) {
        self.open.insert((from as u8, handle));
        self.act(Action::Post { from: from as u8, handle, sequence, span });
    }

    /// Whether a message came for a window that was open.
    pub(crate) fn close(&mut self, from: usize, handle: u16) -> bool {
        self.open.remove(&(from as u8, handle))
    }

    pub(crate) fn withdraw(&mut self, from: usize, handle: u16) {
        if self.close(from, handle) {
            self.act(Action::Withdraw { from: from as u8, handle });
        }
    }

    /// The next sequence of the window for results of `from`.
    pub(crate) fn next_result(&mut self, from: usize, slot: usize) -> u16 {
        let sequence = &mut self.result_sequences[from][slot];
        *sequence = sequence.wrapping_add(1);
        *sequence
    }

    pub(crate) fn result_sequence(&self, from: usize, slot: usize) -> u16 {
        self.result_sequences[from][slot]
    }

    /// The call is over: nothing of it is taken or sent any more.
    pub(crate) fn end(&mut self) {
        for (from, handle) in core::mem::take(&mut self.open) {
            self.act(Action::Withdraw { from, handle });
        }
        for (to, message) in core::mem::take(&mut self.flying) {
            self.act(Action::Abort { to, message });
        }
    }

    fn post_control(&mut self, from: usize, slot: usize) {
        let (handle, sequence) = (HANDLE_CONTROL + slot as u16, self.control[from].expected(slot));
        let span = self.layout.control_in(from, slot);
        debug_assert_eq!(span.len_bytes, MESSAGE_BYTES);
        self.act(Action::Post { from: from as u8, handle, sequence, span });
    }

    fn post_hellos(&mut self, number: u64) {
        for from in self.others().iter() {
            let span = self.layout.letter_in(from, number, self.layout.letter_bytes());
            let (handle, sequence) = (hello_handle(number), number as u16);
            self.act(Action::Post { from: from as u8, handle, sequence, span });
        }
    }
}

pub(crate) const fn hello_handle(number: u64) -> u16 {
    HANDLE_HELLO + (number % HELLO_HANDLES) as u16
}
