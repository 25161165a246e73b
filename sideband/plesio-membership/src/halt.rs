//! HALT and RESUME: which order of the operators is in force, who has to be told, and what was refused.
//!
//! ```text
//!   order -> sequence, form, m signatures -> to be stored -> stored -> in force: forwarded, acknowledged, obeyed
//!                                                |                        ^
//!                                                +---- HALT, 250 ms ------+   (a disk that hangs stops no HALT)
//! ```
//!
//! Knows keys and sequences, no disk and no cipher: what checks a signature is handed in. Keeps: the sequence in force
//! never falls; an order is acknowledged only when it is stored; RESUME is in force only when it is stored. What costs
//! a signature's check is asked for first, so a flood of forgeries costs counters.

use crate::operators::{Operators, Verify};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;
use plesio_wire::sideband::{HEADER_BYTES, Message, Order, OrderAck, OrderKind};
use plesio_wire::{Bounded, Instant, NodeId, NodeKey};

/// An order and which way it goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Given {
    /// Stop, or go on.
    pub kind: OrderKind,
    /// The order, with as many signatures as it takes.
    pub order: Order,
}

impl Given {
    /// As it travels.
    #[must_use]
    pub const fn message(&self) -> Message {
        match self.kind {
            OrderKind::Halt => Message::Halt(self.order),
            OrderKind::Resume => Message::Resume(self.order),
        }
    }

    /// The same order, whoever of its operators signed it.
    fn is_same(&self, other: &Self) -> bool {
        let content =
            |given: &Self| (given.kind, given.order.sequence, given.order.scope, given.order.action);
        content(self) == content(other)
    }

    /// Length of its datagram, plaintext.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        HEADER_BYTES + 11 + 65 * self.order.signatures.len()
    }
}

/// Who brought an order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bearer {
    /// A node of the mesh; it asks for no answer.
    Node,
    /// Somebody at an address, who is answered when the operators sent it: with no more than was sent.
    Address {
        /// Where.
        from: SocketAddr,
        /// Sequence of the datagram's header.
        token: u32,
        /// Length of the datagram.
        len_bytes: usize,
    },
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target {
    /// Every node that is known.
    All,
    /// One of them.
    Node(NodeKey),
    /// Whoever is there; not sealed.
    Address(SocketAddr),
}

/// What came of orders.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct OrderCounters {
    /// Came into force.
    pub taken: u64,
    /// The one that is in force, or being stored, once more.
    pub repeated: u64,
    /// Of a sequence that is over.
    pub replayed: u64,
    /// Too few signers, one twice, or one that is not listed.
    pub signers: u64,
    /// A signature does not fit: altered, of another mesh, or nobody's.
    pub forged: u64,
    /// A scope, an action or a sequence that is not known here.
    pub unsupported: u64,
    /// More than may be looked at or answered.
    pub unverified: u64,
    /// The disk did not take it.
    pub unstored: u64,
}

impl OrderCounters {
    /// All that were not followed, the one in force said once more left out.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.replayed + self.signers + self.forged + self.unsupported + self.unverified + self.unstored
    }
}

/// An order on its way to the disk.
#[derive(Debug)]
struct Storing {
    given: Given,
    since: Instant,
    /// The disk was told.
    is_told: bool,
    /// Who is to be told when it is there.
    waiting: Vec<(SocketAddr, u32)>,
}

/// The orders of one node; see the module.
#[derive(Debug)]
pub struct Halt {
    id: NodeId,
    mesh: u64,
    operators: Operators,
    verify: Verify,
    present: Option<Given>,
    /// The disk has it.
    is_stored: bool,
    storing: Option<Storing>,
    /// When the disk is asked again.
    retry_at: Option<Instant>,
    /// Who was sent the order in force lately, and when.
    told: Vec<(NodeKey, Instant)>,
    outbox: VecDeque<(Target, Message)>,
    counters: OrderCounters,
}

impl Halt {
    /// A node of `mesh` that starts with what its disk holds.
    #[must_use]
    pub fn new(id: NodeId, mesh: u64, operators: Operators, verify: Verify, stored: Option<Given>) -> Self {
        Self {
            id,
            mesh,
            operators,
            verify,
            present: stored,
            is_stored: stored.is_some(),
            storing: None,
            retry_at: None,
            told: Vec::with_capacity(TOLD_MAX),
            outbox: VecDeque::with_capacity(OUTBOX_MAX),
            counters: OrderCounters::default(),
        }
    }

    /// An order that somebody brought. `may_look` is asked before signatures are checked or a stranger is answered, and
    /// only then.
    pub fn handle_order(
        &mut self,
        now: Instant,
        bearer: Bearer,
        given: Given,
        may_look: impl FnOnce() -> bool,
    ) {
        if let Some(storing) = self.storing.as_mut().filter(|storing| storing.given == given) {
            self.counters.repeated += 1;
            if let Bearer::Address { from, token, .. } = bearer {
                storing.insert(from, token);
            }
            return;
        }
        if self.present == Some(given) {
            // Anybody may have recorded it: what it takes to answer is as scarce as what it takes to look.
            if bearer == Bearer::Node || may_look() {
                self.counters.repeated += 1;
                self.answer(now, bearer, &given);
            } else {
                self.counters.unverified += 1;
            }
            return;
        }
        let is_news = given.order.sequence > self.highest();
        // Nobody but whoever waits for an answer needs to have an old order looked at.
        if !is_news && bearer == Bearer::Node {
            self.counters.replayed += 1;
            return;
        }
        let Some(given) = self.check(given, may_look) else { return };
        if is_news {
            self.begin_store(now, bearer, given);
        } else if self.present.is_some_and(|present| present.is_same(&given)) {
            self.counters.repeated += 1;
            self.answer(now, bearer, &given);
        } else {
            // Nothing is below the first order: with 0 the operators ask which one is in force.
            self.counters.replayed += u64::from(given.order.sequence > 0);
            self.tell_newer(bearer);
        }
    }

    /// A node says in a beat which order it knows.
    pub fn handle_sequence(&mut self, now: Instant, from: NodeKey, sequence: u32) {
        if u64::from(sequence) < self.sequence() {
            self.tell(now, from, Target::Node(from), TELL_EVERY_NS);
        }
    }

    /// A node asks to be let in; it may know no order, or only an older one.
    pub fn handle_join(&mut self, now: Instant, from: NodeKey, address: SocketAddr) {
        self.tell(now, from, Target::Address(address), TELL_JOINER_EVERY_NS);
    }

    /// The disk has the order of that sequence, or did not take it.
    pub fn handle_stored(&mut self, now: Instant, sequence: u64, is_stored: bool) {
        let fits = |storing: &mut Storing| storing.is_told && storing.given.order.sequence == sequence;
        let Some(storing) = self.storing.take_if(fits) else { return };
        let given = storing.given;
        if !is_stored {
            self.counters.unstored += 1;
            if given.kind == OrderKind::Halt {
                self.enforce(given);
                self.retry_at = Some(now.after(RETRY_NS));
            }
            return;
        }
        self.enforce(given);
        (self.is_stored, self.retry_at) = (true, None);
        for (from, token) in storing.waiting {
            self.acknowledge(from, token, &given);
        }
    }

    /// Time has passed: HALT does not wait for a disk that hangs.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(given) = self.overdue(now) {
            self.enforce(given);
        }
        if let Some(given) = self.present.filter(|_| self.retry_at.is_some_and(|at| now >= at)) {
            self.retry_at = None;
            if self.storing.is_none() {
                self.begin_store(now, Bearer::Node, given);
            }
        }
    }

    /// An order that is to be stored; then [`handle_stored`](Self::handle_stored).
    pub fn poll_store(&mut self) -> Option<Given> {
        let storing = self.storing.as_mut().filter(|storing| !storing.is_told)?;
        storing.is_told = true;
        Some(storing.given)
    }

    /// The next message, and whom it is for.
    pub fn poll_transmit(&mut self) -> Option<(Target, Message)> {
        self.outbox.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let storing = self.storing.as_ref().filter(|storing| self.waits_for(storing));
        let overdue = storing.map(|storing| storing.since.after(STORE_WAIT_NS));
        overdue.into_iter().chain(self.retry_at).min()
    }

    /// Whether HALT is in force.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.present.is_some_and(|present| present.kind == OrderKind::Halt)
    }

    /// Sequence of the order in force; 0 before the first.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.present.map_or(0, |present| present.order.sequence)
    }

    /// Whether the order in force outlives this process.
    #[must_use]
    pub const fn is_stored(&self) -> bool {
        self.is_stored
    }

    /// What came of orders.
    #[must_use]
    pub const fn counters(&self) -> OrderCounters {
        self.counters
    }

    /// Highest sequence that counts.
    fn highest(&self) -> u64 {
        let storing = self.storing.as_ref().map_or(0, |storing| storing.given.order.sequence);
        self.sequence().max(storing)
    }

    /// The order with the signatures that it takes and no more, if it has them.
    fn check(&mut self, given: Given, may_look: impl FnOnce() -> bool) -> Option<Given> {
        let Given { kind, order } = given;
        // Above the last of all there is no other: it is for a HALT.
        let last = SEQUENCE_MAX - u64::from(kind == OrderKind::Resume);
        if (order.scope, order.action) != (0, 0) || order.sequence > last {
            self.counters.unsupported += 1;
            return None;
        }
        let Some(enough) = self.operators.enough(&order) else {
            self.counters.signers += 1;
            return None;
        };
        if !may_look() {
            self.counters.unverified += 1;
            return None;
        }
        if !self.operators.have_signed(self.verify, self.mesh, kind, &order) {
            self.counters.forged += 1;
            return None;
        }
        Some(Given { kind, order: Order { signatures: Bounded::from_slice(enough), ..order } })
    }

    fn begin_store(&mut self, now: Instant, bearer: Bearer, given: Given) {
        let mut storing = Storing { given, since: now, is_told: false, waiting: Vec::new() };
        if let Bearer::Address { from, token, .. } = bearer {
            storing.insert(from, token);
        }
        self.storing = Some(storing);
    }

    fn waits_for(&self, storing: &Storing) -> bool {
        storing.given.kind == OrderKind::Halt && self.present != Some(storing.given)
    }

    fn overdue(&self, now: Instant) -> Option<Given> {
        let storing = self.storing.as_ref().filter(|storing| self.waits_for(storing))?;
        (now >= storing.since.after(STORE_WAIT_NS)).then_some(storing.given)
    }

    /// From here on it is obeyed, and everybody hears it.
    fn enforce(&mut self, given: Given) {
        if self.present != Some(given) {
            self.present = Some(given);
            self.is_stored = false;
            self.retry_at = None;
            self.counters.taken += 1;
            self.told.clear();
            self.send(Target::All, given.message());
        }
    }

    /// The order in force came again from somebody who waits for an answer; one that the disk refused has another try.
    fn answer(&mut self, now: Instant, bearer: Bearer, given: &Given) {
        match bearer {
            Bearer::Address { from, token, .. } if self.is_stored => self.acknowledge(from, token, given),
            _ if !self.is_stored && self.storing.is_none() => self.begin_store(now, bearer, *given),
            _ => {}
        }
    }

    fn acknowledge(&mut self, from: SocketAddr, token: u32, given: &Given) {
        let (kind, sequence) = (given.kind, given.order.sequence);
        let ack = OrderAck { id: self.id, sequence, token, kind, ..OrderAck::default() };
        self.send(Target::Address(from), Message::OrderAck(ack));
    }

    /// The operators sent an order that is over: they are shown the one in force, which proves itself.
    fn tell_newer(&mut self, bearer: Bearer) {
        let Bearer::Address { from, token, len_bytes } = bearer else { return };
        match self.present {
            Some(present) if present.len_bytes() <= len_bytes => {
                self.send(Target::Address(from), present.message());
            }
            Some(_) => {}
            None => {
                let ack = OrderAck { id: self.id, token, kind: OrderKind::Resume, ..OrderAck::default() };
                self.send(Target::Address(from), Message::OrderAck(ack));
            }
        }
    }

    fn tell(&mut self, now: Instant, peer: NodeKey, target: Target, every_ns: u64) {
        let Some(present) = self.present else { return };
        self.told.retain(|(_, at)| now.since(*at) < TELL_JOINER_EVERY_NS);
        if self.told.iter().any(|(known, at)| *known == peer && now.since(*at) < every_ns) {
            return;
        }
        self.told.retain(|(known, _)| *known != peer);
        if self.told.len() < TOLD_MAX {
            self.told.push((peer, now));
            self.send(target, present.message());
        }
    }

    fn send(&mut self, target: Target, message: Message) {
        if self.outbox.len() < OUTBOX_MAX {
            self.outbox.push_back((target, message));
        }
    }
}

impl Storing {
    fn insert(&mut self, from: SocketAddr, token: u32) {
        if self.waiting.len() < WAITING_MAX && !self.waiting.contains(&(from, token)) {
            self.waiting.push((from, token));
        }
    }
}

/// What a beat can carry.
pub const SEQUENCE_MAX: u64 = u32::MAX as u64;
/// How long HALT waits for the disk: what is left of its second is for the way.
const STORE_WAIT_NS: u64 = 250_000_000;
/// A node that lags is told at every beat.
const TELL_EVERY_NS: u64 = 90_000_000;
/// A disk that was full or gone may be back.
const RETRY_NS: u64 = 1_000_000_000;
const TELL_JOINER_EVERY_NS: u64 = 500_000_000;
/// Members, observers, and joiners.
const TOLD_MAX: usize = 64;
const WAITING_MAX: usize = 16;
const OUTBOX_MAX: usize = 128;

#[cfg(test)]
mod tests;
