//! The tensor's way in one call, piece by piece: contributions to the owner, the sum, the result to everybody.
//!
//! ```text
//!  owner                                   others
//!  opens a window, Want ─────────────────▶ send their part of the piece
//!  sums what all brought who live   ◀───── part
//!  Verdict and result ◀── Ask ──────────── opened a window; hold the piece from then on
//! ```
//!
//! Windows are few, so whoever sends is asked first, by whoever has just opened one; the first contributions are implied
//! by the hello. Whoever holds a piece may be asked for it.
//!
//! # What is kept
//!
//! A contribution stays in its place until the result of its piece is here. Where the tensor is summed in place, results
//! therefore arrive beside it and are copied once they are whole, which costs one more pass; with an output apart they go
//! to their place at once.
//!
//! # With a codec
//!
//! A contribution is encoded beside the tensor when it is asked for, the sum once when it is made; what everybody takes,
//! its owner included, is what those codes say. They are kept until all have them. Who asks later, because an owner died,
//! gets the result as it is.

mod heirs;

use super::Action;
use super::DEPTH_MAX;
use super::layout::{Pieces, mix, part_of};
use super::links::{HANDLE_PART, HANDLE_RESULT, Links};
use super::narrowed::Narrowed;
use super::record::{Opening, Record};
use crate::call::{Call, Operation, Ranks};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::Range;
use plesio_kernels::{Codec, Coding};
use plesio_wire::Span;
use plesio_wire::data::MessageId;

/// Where a call's tensors lie: the whole tensor both, also where only a range of one is read or written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TensorSpans {
    /// What the rank brings.
    pub input: Span,
    /// What it gets; the same place, or one apart.
    pub output: Span,
}

/// Contributions that one rank waits for at a time: it has no more windows.
const WANTS_MAX: usize = 2 * DEPTH_MAX;

#[derive(Debug)]
pub(crate) struct Work {
    call: Call,
    spans: TensorSpans,
    codec: Codec,
    pieces: Pieces,
    states: Vec<State>,
    /// Pieces that must still come here.
    missing: u32,
    /// Results arrive beside the tensor first.
    staged: bool,
    begun: bool,
    /// Of each rank: pieces to be asked there, and what its windows are open for.
    to_ask: Vec<VecDeque<u32>>,
    asked: Vec<[Option<u32>; DEPTH_MAX]>,
    /// Pieces to be summed here, and what the windows are open for.
    to_want: VecDeque<u32>,
    wanted: [Option<u32>; DEPTH_MAX],
    duties: BTreeMap<u32, Duty>,
    /// What was told of pieces inherited here, or to be: by whom, and who holds the result.
    told: BTreeMap<u32, (Ranks, Ranks)>,
    /// Contributions that others want.
    wants: Vec<VecDeque<Opening>>,
    /// Results that others ask for.
    asks: BTreeMap<(u32, u8), Opening>,
    /// Encoded sums that others have not got yet.
    narrowed: Narrowed,
    complete: Ranks,
    redone: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The result is here, made of these.
    held: Option<Ranks>,
    /// What it is made of, and whether it comes encoded.
    verdict: Option<(Ranks, bool)>,
    /// Bytes of the message that brought it.
    arrived: Option<u32>,
}

/// A piece that is summed here.
#[derive(Clone, Copy, Debug, Default)]
struct Duty {
    inherited: bool,
    /// It waits for a window.
    queued: bool,
    slot: Option<usize>,
    parts: Ranks,
    reducing: bool,
    fetching: Option<usize>,
}

impl Work {
    pub(crate) fn new(
        call: Call,
        spans: TensorSpans,
        shares: &[Range<u64>],
        codec: Codec,
        links: &mut Links,
    ) -> Self {
        let (me, ranks) = (links.me, links.ranks);
        let coded = codec != Codec::Full;
        let slot_bytes = if coded { links.layout.coded_slot_bytes() } else { links.layout.slot_bytes() };
        let pieces = Pieces::new(&call, shares, slot_bytes);
        let mut work = Self {
            call,
            spans,
            codec,
            states: alloc::vec![State::default(); pieces.count() as usize],
            missing: 0,
            staged: coded || (call.operation == Operation::AllReduce && spans.input == spans.output),
            begun: false,
            to_ask: alloc::vec![VecDeque::new(); ranks],
            asked: alloc::vec![[None; DEPTH_MAX]; ranks],
            to_want: VecDeque::new(),
            wanted: [None; DEPTH_MAX],
            duties: BTreeMap::new(),
            told: BTreeMap::new(),
            wants: alloc::vec![VecDeque::new(); ranks],
            asks: BTreeMap::new(),
            narrowed: Narrowed::default(),
            complete: Ranks::default(),
            redone: 0,
            pieces,
        };
        let everybody = Ranks::first(ranks);
        work.missing = match call.operation {
            Operation::ReduceScatter => work.pieces.of_owner(me).len() as u32,
            _ => work.pieces.count(),
        };
        // Without a dead rank: whose share it is, sums it; a death before the call is one like any other.
        for owner in everybody.iter() {
            for piece in work.pieces.of_owner(owner) {
                match call.operation {
                    Operation::AllReduce if owner == me => work.want(piece, false),
                    Operation::AllReduce => work.to_ask[owner].push_back(piece),
                    Operation::ReduceScatter if owner == me => work.want(piece, false),
                    Operation::ReduceScatter => {}
                    Operation::AllGather if owner == me => work.hold(piece, everybody),
                    Operation::AllGather => work.to_ask[owner].push_back(piece),
                    Operation::Broadcast { root } if usize::from(root) == me => work.hold(piece, everybody),
                    Operation::Broadcast { root } if owner == me => {
                        if let Some(queue) = work.to_ask.get_mut(usize::from(root)) {
                            queue.push_back(piece);
                        }
                    }
                    Operation::Broadcast { .. } => work.to_ask[owner].push_back(piece),
                }
            }
        }
        // The first windows are open before the hello says so.
        for slot in 0..links.layout.depth() {
            links.part_sequences[slot] = links.part_sequences[slot].wrapping_add(1);
            if let Some(piece) = work.to_want.pop_front() {
                work.open(links, piece, slot);
            }
        }
        let dead = links.dead;
        links.dead = Ranks::default();
        for rank in dead.iter() {
            links.dead = links.dead.with(rank);
            work.handle_dead(links, rank);
        }
        work
    }

    /// The hello of `from` is here, of the same call: its first windows are open.
    pub(crate) fn handle_hello(&mut self, depth: usize, from: usize, sequences: [u16; DEPTH_MAX]) {
        if self.sums() {
            let first = self.pieces.of_owner(from).zip(0..depth);
            self.wants[from].extend(first.map(|(piece, slot)| Opening {
                piece,
                slot: slot as u8,
                sequence: sequences[slot],
            }));
        }
    }

    pub(crate) fn handle_record(&mut self, links: &mut Links, from: usize, record: Record) {
        match record {
            Record::Want { opening, .. }
                if self.sums() && self.is_piece(links, opening) && self.wants[from].len() < WANTS_MAX =>
            {
                self.wants[from].push_back(opening);
            }
            Record::Ask { opening, .. } if self.is_piece(links, opening) => {
                self.asks.insert((opening.piece, from as u8), opening);
            }
            Record::State { piece, has, .. } if piece < self.pieces.count() => {
                let (known, holders) = self.told.entry(piece).or_default();
                *known = known.with(from);
                if has {
                    *holders = holders.with(from);
                }
            }
            Record::Verdict { piece, of, coded, .. } => {
                let slot = self.asked[from].iter().position(|asked| *asked == Some(piece));
                if let Some(slot) = slot {
                    self.states[piece as usize].verdict = Some((of, coded));
                    if of.is_empty() {
                        links.withdraw(from, HANDLE_RESULT + slot as u16);
                        self.asked[from][slot] = None;
                        self.hold(piece, of);
                    } else {
                        self.finish(links, from, slot, piece);
                    }
                }
            }
            Record::Complete { .. } => self.complete = self.complete.with(from),
            _ => {}
        }
    }

    /// A message came into a window of the call.
    pub(crate) fn handle_part(
        &mut self,
        links: &mut Links,
        from: usize,
        slot: usize,
        sequence: u16,
        len_bytes: u32,
    ) {
        let Some(piece) = self.wanted.get(slot).copied().flatten() else { return };
        let fits = sequence == links.part_sequences[slot] && len_bytes == self.part_bytes(piece);
        if fits
            && links.close(from, HANDLE_PART + slot as u16)
            && let Some(duty) = self.duties.get_mut(&piece)
        {
            duty.parts = duty.parts.with(from);
        }
    }

    pub(crate) fn handle_result(
        &mut self,
        links: &mut Links,
        from: usize,
        slot: usize,
        sequence: u16,
        len_bytes: u32,
    ) {
        let Some(piece) = self.asked[from].get(slot).copied().flatten() else { return };
        if sequence == links.result_sequence(from, slot) && links.close(from, HANDLE_RESULT + slot as u16) {
            self.states[piece as usize].arrived = Some(len_bytes);
            self.finish(links, from, slot, piece);
        }
    }

    /// The sum of a piece is in its place.
    pub(crate) fn handle_reduced(&mut self, piece: u32) {
        if let Some(duty) = self.duties.remove(&piece) {
            if let Some(slot) = duty.slot {
                self.wanted[slot] = None;
            }
            self.hold(piece, duty.parts);
        }
    }

    /// A message of the call has arrived.
    pub(crate) fn handle_sent(&mut self, to: usize, message: MessageId) {
        self.narrowed.handle_sent(to as u8, message);
    }

    /// Everything that can be done now; `agreed` once all who are present have called for the same.
    pub(crate) fn advance(&mut self, links: &mut Links, agreed: bool) {
        // What a codec leaves out is kept with the encoding: only a call that is made may change it.
        if agreed || self.codec == Codec::Full {
            self.send_parts(links);
        }
        if !agreed {
            return;
        }
        self.begin(links);
        self.attend_duties(links);
        self.ask(links);
        self.answer(links);
        if self.missing == 0 && !self.complete.contains(links.me) {
            self.complete = self.complete.with(links.me);
            for to in links.in_turn() {
                links.tell(to, Record::Complete { number: links.number as u32 });
            }
        }
    }

    /// Whether everybody who lives has everything.
    pub(crate) fn is_over(&self, links: &Links) -> bool {
        self.complete.contains(links.me) && links.others().without(self.complete).is_empty()
    }

    /// The ranks that are waited for.
    pub(crate) fn awaited(&self, links: &Links) -> Ranks {
        links.others().without(self.complete)
    }

    /// Elements summed here that were another rank's to sum.
    pub(crate) fn redone_elements(&self) -> u64 {
        self.redone
    }

    /// Which elements are made of whose contributions.
    pub(crate) fn made_of(&self) -> impl Iterator<Item = (Range<u64>, Ranks)> {
        let held = self.states.iter().zip(0..);
        held.filter_map(|(state, piece)| Some((self.pieces.elements(piece), state.held?)))
    }

    /// Of those `present`, whose contribution is in everything that is here; `None` when the root's is lost.
    pub(crate) fn outcome(&self, present: Ranks) -> Option<Ranks> {
        let mut outcome = present;
        for (state, piece) in self.states.iter().zip(0..) {
            let Some(of) = state.held else { continue };
            match self.call.operation {
                Operation::AllReduce | Operation::ReduceScatter => outcome.0 &= of.0,
                Operation::AllGather if of.is_empty() => {
                    outcome = outcome.without(Ranks::default().with(self.pieces.home(piece)));
                }
                Operation::Broadcast { .. } if of.is_empty() => return None,
                _ => {}
            }
        }
        Some(outcome)
    }

    fn sums(&self) -> bool {
        matches!(self.call.operation, Operation::AllReduce | Operation::ReduceScatter)
    }

    fn is_piece(&self, links: &Links, opening: Opening) -> bool {
        opening.piece < self.pieces.count() && usize::from(opening.slot) < links.layout.depth()
    }

    /// Bytes of a contribution to a piece as it travels.
    fn part_bytes(&self, piece: u32) -> u32 {
        match self.codec {
            Codec::Full => self.input(piece).len_bytes,
            codec => {
                let elements = self.pieces.elements(piece);
                codec.encoded_bytes((elements.end - elements.start) as usize) as u32
            }
        }
    }

    /// How a piece is encoded here in this call: with a seed that nobody else has, here or in another one.
    fn coding(&self, links: &Links, piece: u32, sum: bool) -> Coding {
        let seed = mix(links.number << 6 | (links.me as u64) << 1 | u64::from(sum));
        Coding::new(self.codec, seed).at(u64::from(piece) * self.pieces.each())
    }

    fn input(&self, piece: u32) -> Span {
        part_of(self.spans.input, self.call.element, &self.pieces.elements(piece))
    }

    fn output(&self, piece: u32) -> Span {
        part_of(self.spans.output, self.call.element, &self.pieces.elements(piece))
    }

    fn hold(&mut self, piece: u32, of: Ranks) {
        let held = &mut self.states[piece as usize].held;
        if held.is_none() {
            *held = Some(of);
            self.missing -= 1;
        }
    }

    fn want(&mut self, piece: u32, inherited: bool) {
        self.to_want.push_back(piece);
        let duty = self.duties.entry(piece).or_default();
        (duty.inherited, duty.queued) = (inherited, true);
    }

    /// Opens the windows of a slot for contributions to a piece.
    fn open(&mut self, links: &mut Links, piece: u32, slot: usize) {
        self.wanted[slot] = Some(piece);
        let duty = self.duties.entry(piece).or_default();
        duty.slot = Some(slot);
        let len_bytes = self.part_bytes(piece);
        for from in links.others().iter() {
            let span = links.layout.part(from, slot, len_bytes);
            links.post(from, HANDLE_PART + slot as u16, links.part_sequences[slot], span);
        }
    }

    /// All have called for the same: the outputs may be touched.
    fn begin(&mut self, links: &mut Links) {
        if core::mem::replace(&mut self.begun, true) || self.spans.input == self.spans.output {
            return;
        }
        let own = match self.call.operation {
            Operation::AllGather => self.pieces.of_owner(links.me),
            Operation::Broadcast { root } if usize::from(root) == links.me => 0..self.pieces.count(),
            _ => return,
        };
        for piece in own {
            links.act(Action::Copy { from: self.input(piece), to: self.output(piece) });
        }
    }

    /// To each in turn a piece, so that none is everybody's first and all windows fill alike.
    fn send_parts(&mut self, links: &mut Links) {
        loop {
            let mut sent = false;
            for to in links.in_turn() {
                if links.has_room(to)
                    && let Some(Opening { piece, slot, sequence }) = self.wants[to].pop_front()
                {
                    let input = self.input(piece);
                    let part = match self.codec {
                        Codec::Full => input,
                        // What was here before has arrived, or the window would not be open again.
                        _ => links.layout.part_out(to, slot.into(), self.part_bytes(piece)),
                    };
                    if part != input {
                        let coding = self.coding(links, piece, false);
                        links.act(Action::Encode { from: input, to: part, coding });
                    }
                    links.send(to, HANDLE_PART + u16::from(slot), sequence, part);
                    sent = true;
                }
            }
            if !sent {
                return;
            }
        }
    }

    fn attend_duties(&mut self, links: &mut Links) {
        let undecided = |duty: &Duty| duty.inherited && !duty.queued;
        let pieces: Vec<u32> =
            self.duties.iter().filter(|(_, duty)| undecided(duty)).map(|(piece, _)| *piece).collect();
        for piece in pieces {
            if self.states[piece as usize].held.is_some() {
                self.duties.remove(&piece);
            } else {
                self.inherit(links, piece);
            }
        }
        for slot in 0..links.layout.depth() {
            if self.wanted[slot].is_some() {
                continue;
            }
            let Some(piece) = self.to_want.pop_front() else { break };
            links.part_sequences[slot] = links.part_sequences[slot].wrapping_add(1);
            self.open(links, piece, slot);
            let opening = Opening { piece, slot: slot as u8, sequence: links.part_sequences[slot] };
            for from in links.in_turn() {
                links.tell(from, Record::Want { number: links.number as u32, opening });
            }
        }
        for slot in 0..links.layout.depth() {
            self.sum_if_ready(links, slot);
        }
    }

    /// Has a piece summed when all who live have brought their part; of the dead, those whose part is here.
    fn sum_if_ready(&mut self, links: &mut Links, slot: usize) {
        let Some(piece) = self.wanted[slot] else { return };
        let Some(duty) = self.duties.get_mut(&piece) else { return };
        let coded = self.codec != Codec::Full && !duty.inherited && !links.others().is_empty();
        let waits = coded && !self.narrowed.is_free(slot);
        if duty.reducing || waits || !links.others().without(duty.parts).is_empty() {
            return;
        }
        duty.reducing = true;
        duty.parts = duty.parts.with(links.me);
        let Duty { parts, inherited, .. } = *duty;
        let (input, output) = (self.input(piece), self.output(piece));
        let part_bytes = self.part_bytes(piece);
        let place = |rank: usize| match rank == links.me {
            true => (input, Codec::Full),
            false => (links.layout.part(rank, slot, part_bytes), self.codec),
        };
        let inputs = parts.iter().map(place).collect();
        let codes = coded.then(|| {
            self.narrowed.keep(slot, piece, links.others());
            (links.layout.result_out(slot, part_bytes), self.coding(links, piece, true))
        });
        let Range { start, end } = self.pieces.elements(piece);
        if inherited {
            self.redone += end - start;
        }
        links.act(Action::Reduce { token: piece, inputs, output, elements: end - start, codes });
    }

    /// Asks for results as long as there are windows.
    fn ask(&mut self, links: &mut Links) {
        for from in links.in_turn() {
            for slot in 0..links.layout.depth() {
                if self.asked[from][slot].is_some() {
                    continue;
                }
                let Some(piece) = self.to_ask[from].pop_front() else { break };
                let output = self.output(piece);
                let span = match self.staged {
                    // Encoded or as it is: the verdict says which.
                    true => links.layout.staging(from, slot, output.len_bytes.max(self.part_bytes(piece))),
                    false => output,
                };
                self.asked[from][slot] = Some(piece);
                let sequence = links.next_result(from, slot);
                links.post(from, HANDLE_RESULT + slot as u16, sequence, span);
                let opening = Opening { piece, slot: slot as u8, sequence };
                links.tell(from, Record::Ask { number: links.number as u32, opening });
            }
        }
    }

    /// Sends results that are here to those who ask.
    fn answer(&mut self, links: &mut Links) {
        let here = |(piece, _): &(u32, u8)| self.states[*piece as usize].held.is_some();
        let asks: Vec<_> = self.asks.keys().copied().filter(here).collect();
        for (piece, to) in asks {
            if !links.has_room(to.into()) {
                continue;
            }
            let (Some(Opening { slot, sequence, .. }), Some(of)) =
                (self.asks.remove(&(piece, to)), self.states[piece as usize].held)
            else {
                continue;
            };
            let encoded = self.narrowed.slot_of(piece);
            let handle = HANDLE_RESULT + u16::from(slot);
            let span = match encoded {
                Some(place) => {
                    self.narrowed.handle_sending(to, MessageId { handle, sequence }, place);
                    links.layout.result_out(place, self.part_bytes(piece))
                }
                None => self.output(piece),
            };
            let (to, coded) = (usize::from(to), encoded.is_some());
            links.tell(to, Record::Verdict { number: links.number as u32, piece, of, coded });
            if !of.is_empty() {
                links.send(to, handle, sequence, span);
            }
        }
    }

    /// A result counts when it is here and its verdict.
    fn finish(&mut self, links: &mut Links, from: usize, slot: usize, piece: u32) {
        let state = self.states[piece as usize];
        let (Some((of, coded)), Some(arrived)) = (state.verdict, state.arrived) else { return };
        let to = self.output(piece);
        let len_bytes = if coded { self.part_bytes(piece) } else { to.len_bytes };
        if arrived != len_bytes {
            // Its sender is broken, and is waited for until the deadline.
            return;
        }
        self.asked[from][slot] = None;
        if self.staged {
            let from = links.layout.staging(from, slot, len_bytes);
            links.act(match coded {
                true => Action::Decode { from, to, codec: self.codec },
                false => Action::Copy { from, to },
            });
        }
        self.hold(piece, of);
    }
}
