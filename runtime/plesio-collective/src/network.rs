//! One rank of a group that works over the network: what to send to whom, where what comes goes, what to sum when.
//!
//! ```text
//!  begin ─ hello to all ─ all here, or dead? ─ the same call? ── mail ──▶ sum what came with the hellos ──▶ over
//!                                                             └─ else ──▶ piece by piece (work.rs) ─ all have all ──▶ over
//! ```
//!
//! An `all_reduce` of at most [`Network::mail_bytes_max`] travels in the hello itself, one message from each to each, and everybody
//! sums. All else is cut into pieces: direct reduce-scatter, then all-gather, side by side for different pieces. A
//! broadcast is the root's tensor scattered to owners, who pass it on. Sums run in rank order, so every rank that lives
//! holds the same bits.
//!
//! Knows: which ranks are dead, what is open and on its way, what every piece is made of. Does not know: bytes of tensors,
//! clocks, connections. Messages must arrive once, unchanged, after their window was opened, in any order between windows.
//! Invariant: a piece has one result, whoever sums it.
//!
//! # Deaths
//!
//! A rank is dead when the view says so; it never comes back into the group. Its contribution is in a piece if the owner
//! had it, and the owner's verdict says which are; what it owned moves to heirs, who redo only what nobody holds. A rank
//! stays in a call until all who live have everything: then nobody needs its input or its results.
//!
//! # The deadline
//!
//! Who is silent without being dead cannot be left out: others may hear it. A call that is not over at its deadline ends
//! with [`CallError::Late`] on this rank, which then makes no more calls in this group; the others go on once the view is
//! without it. So give a call more time than the view needs to exclude who is gone.

mod control;
mod layout;
mod links;
mod narrowed;
mod presence;
mod rates;
mod record;
mod work;

pub use work::TensorSpans;

use crate::call::{Call, CallError, Element, Operation, Ranks};
use alloc::vec::Vec;
use control::{MESSAGE_BYTES, RING};
use core::ops::Range;
use layout::{Layout, SETUP_MAIL, setup};
use links::{HANDLE_CONTROL, HANDLE_FORWARD, HANDLE_PART, HANDLE_RESULT, Links, hello_handle};
use plesio_kernels::{Codec, Coding};
use plesio_wire::Span;
use plesio_wire::data::MessageId;
use presence::{Known, Letter, Presence};
use record::{HELLO_BYTES, Hello, Record};
use work::Work;

/// [`Action::Reduce`] of what came with the hellos.
pub const TOKEN_MAIL: u32 = u32::MAX;
/// Handles from here on are not the network's.
pub const NETWORK_HANDLES_MAX: u16 = 80;

/// Pieces that one rank sums at a time, at most.
const DEPTH_MAX: usize = 4;

/// What the caller does next, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NetworkAction {
    /// Open a window for exactly that message of a rank.
    Post {
        /// The sender.
        from: u8,
        /// The window's handle.
        handle: u16,
        /// The message's sequence.
        sequence: u16,
        /// Where it goes.
        span: Span,
    },
    /// Close a window; what is in it does not matter.
    Withdraw {
        /// The sender.
        from: u8,
        /// The window's handle.
        handle: u16,
    },
    /// Send `span` as one message. It stays as it is until the message is acknowledged, aborted, or its rank is dead.
    Send {
        /// The receiver.
        to: u8,
        /// The message.
        message: MessageId,
        /// What it is.
        span: Span,
    },
    /// Stop sending a message, if it is still on its way.
    Abort {
        /// The receiver.
        to: u8,
        /// The message.
        message: MessageId,
    },
    /// Write these bytes.
    Write {
        /// Where.
        span: Span,
        /// What.
        bytes: Vec<u8>,
    },
    /// Copy tensor bytes between places that do not overlap.
    Copy {
        /// From there,
        from: Span,
        /// to there.
        to: Span,
    },
    /// Encode elements of the input, and send what their codec leaves out with a later call, where that is wanted.
    Encode {
        /// Elements,
        from: Span,
        /// their codes.
        to: Span,
        /// How.
        coding: Coding,
    },
    /// Decode elements of the output.
    Decode {
        /// Codes,
        from: Span,
        /// their elements.
        to: Span,
        /// How they are encoded.
        codec: Codec,
    },
    /// Sum in the order given, as the call's element type asks, then [`Network::handle_reduced`]. The output may be one of
    /// the inputs.
    Reduce {
        /// For [`Network::handle_reduced`].
        token: u32,
        /// Ranks' contributions, in rank order, and how they are encoded.
        inputs: Vec<(Span, Codec)>,
        /// The sum.
        output: Span,
        /// How many elements.
        elements: u64,
        /// Where the sum is to be encoded, and how: then the output is what these codes say.
        codes: Option<(Span, Coding)>,
    },
    /// The call has ended: the result is in its place and made of what these ranks brought, all of it; [`Network::made_of`]
    /// says more. The tensors are the caller's again.
    Over(Result<Ranks, CallError>),
}

use NetworkAction as Action;

/// One rank; see the module. It lives as long as its group: others may need what it knows between calls, so it is told of
/// messages and deaths then, too.
#[derive(Debug)]
pub struct Network {
    links: Links,
    presence: Presence,
    current: Option<Current>,
    /// The work of the last call, for those who ask what it is made of.
    last: Option<Work>,
    late: Option<Ranks>,
    /// What is larger is no mail.
    mail_bytes_max: u64,
}

#[derive(Debug)]
struct Current {
    call: Call,
    spans: TensorSpans,
    present: Option<Ranks>,
    /// `None`: mail.
    work: Option<Work>,
    reducing: bool,
}

impl Network {
    /// Rank `me` of `ranks`; [`Self::region_bytes`] of region `region` are for messages.
    ///
    /// # Panics
    /// When `me` is no rank of a group of at most 32.
    #[must_use]
    pub fn new(me: usize, ranks: usize, region: u16) -> Self {
        Self {
            links: Links::new(me, ranks, region),
            presence: Presence::new(ranks),
            current: None,
            last: None,
            late: None,
            mail_bytes_max: Self::mail_bytes_max(ranks),
        }
    }

    /// Bytes that a rank needs beside its tensors, at most 8 MiB.
    #[must_use]
    pub fn region_bytes(ranks: usize) -> u32 {
        Layout::new(0, ranks, 0).region_bytes()
    }

    /// A tensor of at most so many bytes travels with the hello, unless less is asked for: 128 KiB for two ranks, 8 KiB for 32.
    #[must_use]
    pub fn mail_bytes_max(ranks: usize) -> u64 {
        Layout::new(0, ranks, 0).mail_bytes_max().into()
    }

    /// The largest [`Self::head_bytes`].
    pub const HEAD_BYTES_MAX: usize = MESSAGE_BYTES as usize;

    /// How many first bytes of a message on `handle` are to be given to [`Self::handle_received`].
    #[must_use]
    pub fn head_bytes(handle: u16) -> usize {
        let control = HANDLE_CONTROL..HANDLE_CONTROL + RING as u16;
        match handle {
            _ if control.contains(&handle) => MESSAGE_BYTES as usize,
            0..HANDLE_PART => HELLO_BYTES as usize,
            _ => 0,
        }
    }

    /// From the next call on a piece has at most so many bytes, the same on all ranks: on slow links small ones, because
    /// sums begin to return only when the first pieces are whole. It never is larger than a window.
    ///
    /// # Panics
    /// When a call is under way.
    pub fn set_piece_bytes_max(&mut self, bytes: u32) {
        assert!(self.current.is_none(), "windows lie where the call under way has put them");
        self.links.layout = self.links.layout.with_slots(bytes);
    }

    /// From the next call on no tensor of more bytes travels with the hello, the same on all ranks: whole it saves messages
    /// after one another, and is (n - 1) (n - 2) / n times its bytes more for every link.
    pub fn set_mail_bytes_max(&mut self, bytes: u64) {
        self.mail_bytes_max = bytes.min(Self::mail_bytes_max(self.links.ranks));
    }

    /// Begins a call. `shares[r]` are the elements that rank r sums: in order, covering the tensor, the same on all ranks;
    /// they count for `all_reduce` and `broadcast`, the others are bound to equal ones. `codec` is the same on all ranks too;
    /// it counts for an `all_reduce` of binary32 that is no mail. Nothing may be under way.
    ///
    /// # Errors
    /// A call before was late.
    ///
    /// # Panics
    /// When a call is under way, or `shares` do not cover the tensor one after the other.
    pub fn begin(
        &mut self,
        call: Call,
        spans: TensorSpans,
        shares: &[Range<u64>],
        codec: Codec,
    ) -> Result<(), CallError> {
        if let Some(ranks) = self.late {
            return Err(CallError::Late { ranks });
        }
        assert!(self.current.is_none(), "one call after the other");
        let (me, ranks) = (self.links.me, self.links.ranks);
        assert!(tile(shares, call.count) && shares.len() == ranks, "shares cover the tensor in rank order");
        self.links.begin();
        let number = self.links.number;
        self.presence.begin(number);
        let unfit = !fit(&call, spans);
        // Of the same length, so that the same place is told from another.
        let whole = |span: Span| Span { len_bytes: call.bytes().unwrap_or(0) as u32, ..span };
        let spans = TensorSpans { input: whole(spans.input), output: whole(spans.output) };
        let mail = call.operation == Operation::AllReduce
            && call.bytes().is_some_and(|bytes| bytes <= self.mail_bytes_max);
        // What cannot be touched is not: the others are told, and everybody ends with the same error.
        let work = (!mail && !unfit).then(|| {
            let equal: Vec<_> = (0..ranks).map(|rank| crate::range(call.count, ranks, rank)).collect();
            let shares = match call.operation {
                Operation::ReduceScatter | Operation::AllGather => &equal,
                _ => shares,
            };
            let narrows = call.operation == Operation::AllReduce && call.element == Element::F32;
            let codec = if narrows { codec } else { Codec::Full };
            Work::new(call, spans, shares, codec, &mut self.links)
        });
        let slot_bytes = self.links.layout.slot_bytes();
        let setup = if mail { SETUP_MAIL } else { setup(ranks, shares, codec, slot_bytes) };
        let hello = Hello { number, call: Some(call), unfit, setup, sequences: self.links.part_sequences };
        let tensor_bytes = if mail && !unfit { call.bytes().unwrap_or(0) as u32 } else { 0 };
        let letter = self.links.layout.letter_out(number, HELLO_BYTES + tensor_bytes);
        self.links.act(Action::Write {
            span: Span { len_bytes: HELLO_BYTES, ..letter },
            bytes: hello.to_bytes().to_vec(),
        });
        if let Some(to) = letter.part(HELLO_BYTES, tensor_bytes).filter(|_| tensor_bytes > 0) {
            self.links.act(Action::Copy { from: spans.input, to });
        }
        let message = MessageId { handle: hello_handle(number), sequence: number as u16 };
        for to in self.links.in_turn() {
            self.links.act(Action::Send { to: to as u8, message, span: letter });
        }
        self.presence.insert(number, me, Letter { hello: Some(hello), len_bytes: letter.len_bytes });
        self.last = None;
        self.current = Some(Current { call, spans, present: None, work, reducing: false });
        for from in self.links.others().iter() {
            self.meet(from);
        }
        self.advance();
        Ok(())
    }

    /// A message has arrived whole in its window, which is closed now; `head` are its first [`Self::head_bytes`], or all
    /// where it has fewer.
    pub fn handle_received(&mut self, from: u8, message: MessageId, len_bytes: u32, head: &[u8]) {
        let from = usize::from(from);
        if !self.links.others().contains(from) {
            return;
        }
        let MessageId { handle, sequence } = message;
        match handle {
            0..HANDLE_CONTROL => self.handle_letter(from, handle, sequence, len_bytes, head),
            HANDLE_CONTROL..HANDLE_FORWARD => {
                let slot = usize::from(handle - HANDLE_CONTROL);
                if slot < RING {
                    let head = head.get(..len_bytes as usize).unwrap_or(head);
                    self.links.handle_control(from, slot, sequence, head);
                }
                while let Some(records) = self.links.poll_records(from) {
                    for record in records {
                        self.handle_record(from, record);
                    }
                }
            }
            HANDLE_FORWARD..HANDLE_PART => {
                let rank = usize::from(handle - HANDLE_FORWARD);
                let number = self.links.number;
                if self.links.close(from, handle) && sequence == number as u16 {
                    let letter = Letter {
                        hello: Hello::parse(head, number).filter(sent(len_bytes, self.links.ranks)),
                        len_bytes,
                    };
                    self.presence.insert(number, rank, letter);
                }
            }
            HANDLE_PART..NETWORK_HANDLES_MAX => {
                if let Some(work) = self.current.as_mut().and_then(|current| current.work.as_mut()) {
                    match handle.checked_sub(HANDLE_RESULT) {
                        Some(slot) => {
                            work.handle_result(&mut self.links, from, slot.into(), sequence, len_bytes);
                        }
                        None => {
                            let slot = usize::from(handle - HANDLE_PART);
                            work.handle_part(&mut self.links, from, slot, sequence, len_bytes);
                        }
                    }
                }
            }
            _ => {}
        }
        self.advance();
    }

    /// A message has been acknowledged whole.
    pub fn handle_sent(&mut self, to: u8, message: MessageId) {
        if self.links.others().contains(to.into()) {
            self.links.handle_sent(to.into(), message);
            if let Some(work) = self.current.as_mut().and_then(|current| current.work.as_mut()) {
                work.handle_sent(to.into(), message);
            }
            self.advance();
        }
    }

    /// The view is without `rank`. Its connection must be closed before: nothing of it may be placed or reported afterwards.
    pub fn handle_dead(&mut self, rank: u8) {
        let rank = usize::from(rank);
        if !self.links.others().contains(rank) {
            return;
        }
        self.links.handle_dead(rank);
        self.presence.handle_dead(rank);
        let (number, dead) = (self.links.number, self.links.dead);
        let held = self.presence.held(number);
        for to in self.links.in_turn() {
            self.links.tell(to, Record::Flush { number: number as u32, dead, held });
        }
        if let Some(work) = self.current.as_mut().and_then(|current| current.work.as_mut()) {
            work.handle_dead(&mut self.links, rank);
        }
        self.advance();
    }

    /// [`NetworkAction::Reduce`] is done.
    pub fn handle_reduced(&mut self, token: u32) {
        match &mut self.current {
            Some(Current { work: Some(work), .. }) => work.handle_reduced(token),
            Some(current) if token == TOKEN_MAIL && current.reducing => {
                let present = current.present.unwrap_or_default();
                self.end(Ok(present));
            }
            _ => {}
        }
        self.advance();
    }

    /// The call's time is up.
    pub fn handle_deadline(&mut self) {
        if self.current.is_some() {
            let ranks = self.awaited();
            self.late = Some(ranks);
            self.end(Err(CallError::Late { ranks }));
        }
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<NetworkAction> {
        self.links.poll_action()
    }

    /// The ranks that hold the call up.
    #[must_use]
    pub fn awaited(&self) -> Ranks {
        match &self.current {
            Some(Current { present: Some(_), work: Some(work), .. }) => work.awaited(&self.links),
            Some(Current { present: None, .. }) => {
                let absent = self.links.others().without(self.links.met);
                if absent.is_empty() { self.links.others() } else { absent }
            }
            _ => Ranks::default(),
        }
    }

    /// Which elements of the last call's result are made of whose contributions; nothing of mail, where all are of those
    /// that the call ended with. A range of none is lost: what stands there is of no meaning.
    pub fn made_of(&self) -> impl Iterator<Item = (Range<u64>, Ranks)> {
        self.last.iter().flat_map(Work::made_of)
    }

    /// Elements of the last call that this rank summed in place of one that died.
    #[must_use]
    pub fn redone_elements(&self) -> u64 {
        self.last.as_ref().map_or(0, Work::redone_elements)
    }

    fn handle_letter(&mut self, from: usize, handle: u16, sequence: u16, len_bytes: u32, head: &[u8]) {
        let newest = self.links.number;
        for number in newest..=newest + 1 {
            if number > 0 && hello_handle(number) == handle && number as u16 == sequence {
                let hello = Hello::parse(head, number).filter(sent(len_bytes, self.links.ranks));
                self.presence.insert(number, from, Letter { hello, len_bytes });
                if number == newest {
                    self.meet(from);
                }
            }
        }
    }

    /// What the hello of `from` to the newest call allows, if it is here.
    fn meet(&mut self, from: usize) {
        let number = self.links.number;
        if self.presence.letter(number, from).is_none() || self.links.met.contains(from) {
            return;
        }
        self.links.meet(from);
        if let Some(current) = &mut self.current
            && let (Some(work), Some(hello)) = (&mut current.work, self.presence.hello(number, from))
            && hello.call == Some(current.call)
            && self.presence.hello(number, self.links.me).is_some_and(|own| own.setup == hello.setup)
        {
            work.handle_hello(self.links.layout.depth(), from, hello.sequences);
        }
    }

    fn handle_record(&mut self, from: usize, record: Record) {
        let newest = self.links.number as u32;
        match record {
            Record::Flush { number, dead, held } => self.presence.handle_flush(from, number, dead, held),
            Record::Fetch { number, rank } => {
                let distance = newest.wrapping_sub(number).wrapping_add(1);
                let Some(number) = (self.links.number + 1).checked_sub(distance.into()) else { return };
                let known = distance <= 2 && usize::from(rank) < self.links.ranks;
                if let Some(letter) = known.then(|| self.presence.letter(number, rank.into())).flatten() {
                    let span = self.links.layout.letter_in(rank.into(), number, letter.len_bytes);
                    self.links.forward(from, rank, number, span);
                }
            }
            Record::Want { number, .. }
            | Record::Ask { number, .. }
            | Record::State { number, .. }
            | Record::Verdict { number, .. }
            | Record::Complete { number } => {
                if let Some(work) = self.current.as_mut().and_then(|current| current.work.as_mut())
                    && number == newest
                {
                    work.handle_record(&mut self.links, from, record);
                }
            }
        }
    }

    fn advance(&mut self) {
        self.look_who_is_here();
        if let Some(current) = &mut self.current {
            if let Some(work) = &mut current.work {
                work.advance(&mut self.links, current.present.is_some());
                if let Some(present) = current.present.filter(|_| work.is_over(&self.links)) {
                    let outcome = work.outcome(present);
                    let lost = || match current.call.operation {
                        Operation::Broadcast { root } => CallError::RootGone { root },
                        _ => CallError::RootGone { root: 0 },
                    };
                    let outcome = outcome.ok_or_else(lost);
                    self.end(outcome);
                }
            } else if let Some(present) = current.present.filter(|_| !current.reducing) {
                current.reducing = true;
                self.sum_mail(present);
            }
        }
        self.links.flush();
    }

    /// Whether everybody has called, and for the same.
    fn look_who_is_here(&mut self) {
        let Some(current) = self.current.as_mut().filter(|current| current.present.is_none()) else {
            return;
        };
        let (number, links) = (self.links.number, &mut self.links);
        match self.presence.resolve(number, links.ranks, links.others(), links.dead) {
            Known::Wait(fetches) => {
                for (rank, holder) in fetches {
                    let span = links.layout.letter_in(rank, number, links.layout.letter_bytes());
                    links.post(holder, HANDLE_FORWARD + rank as u16, number as u16, span);
                    links.tell(holder, Record::Fetch { number: number as u32, rank: rank as u8 });
                }
            }
            Known::Present(present) => match self.presence.verdict(number, present) {
                Ok(()) => current.present = Some(present),
                Err(error) => self.end(Err(error)),
            },
        }
    }

    fn sum_mail(&mut self, present: Ranks) {
        let Some(current) = &self.current else { return };
        let (number, me) = (self.links.number, self.links.me);
        let len_bytes = current.call.bytes().unwrap_or(0) as u32;
        if len_bytes == 0 {
            return self.end(Ok(present));
        }
        let letter = |rank: usize| match rank == me {
            true => self.links.layout.letter_out(number, HELLO_BYTES + len_bytes),
            false => self.links.layout.letter_in(rank, number, HELLO_BYTES + len_bytes),
        };
        let mail = |rank| letter(rank).part(HELLO_BYTES, len_bytes).expect("a letter has room for mail");
        let inputs = present.iter().map(|rank| (mail(rank), Codec::Full)).collect();
        let (output, elements) = (current.spans.output, current.call.count);
        self.links.act(Action::Reduce { token: TOKEN_MAIL, inputs, output, elements, codes: None });
    }

    fn end(&mut self, outcome: Result<Ranks, CallError>) {
        self.last = self.current.take().and_then(|current| current.work).filter(|_| outcome.is_ok());
        self.links.end();
        self.links.act(Action::Over(outcome));
    }
}

/// Whether the mail that a hello promises came with it, and fits.
fn sent(len_bytes: u32, ranks: usize) -> impl Fn(&Hello) -> bool {
    move |hello| {
        let mail = hello.call.filter(|_| hello.setup == SETUP_MAIL && !hello.unfit).map(|call| call.bytes());
        let mail_bytes =
            mail.map_or(Some(0), |bytes| bytes.filter(|bytes| *bytes <= Network::mail_bytes_max(ranks)));
        mail_bytes.is_some_and(|bytes| u64::from(len_bytes) == u64::from(HELLO_BYTES) + bytes)
    }
}

/// Whether tensors of a call can lie there.
fn fit(call: &Call, spans: TensorSpans) -> bool {
    let TensorSpans { input, output } = spans;
    let inside = |span: Span| {
        call.bytes().is_some_and(|bytes| bytes <= span.len_bytes.into())
            && u64::from(span.offset_bytes).is_multiple_of(call.element.bytes())
            && span.offset_bytes.checked_add(span.len_bytes).is_some()
    };
    let bytes = call.bytes().unwrap_or(u64::MAX);
    let apart = input.region != output.region
        || u64::from(input.offset_bytes.abs_diff(output.offset_bytes)) >= bytes
        || input.offset_bytes == output.offset_bytes;
    inside(input) && inside(output) && apart
}

fn tile(shares: &[Range<u64>], count: u64) -> bool {
    let mut next = 0;
    for share in shares {
        if share.start != next || share.end < share.start {
            return false;
        }
        next = share.end;
    }
    next == count
}

#[cfg(test)]
mod tests;
