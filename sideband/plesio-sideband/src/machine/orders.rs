//! Orders of the operators: who brought them, how many of them may be looked at, and where the answers go.

use super::{Machine, Outgoing, To};
use plesio_membership::{Bearer, Given, Halt, OrderCounters, Target};
use plesio_session::{Secret, SourceLimit, TotalLimit};
use plesio_wire::sideband::{Header, Message, OrderKind};
use plesio_wire::{Instant, NodeKey};
use std::net::SocketAddr;

/// What the operators ordered, as it stands at this node.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HaltState {
    /// HALT is in force.
    pub halted: bool,
    /// Sequence of the order in force; 0 before the first.
    pub sequence: u64,
    /// It outlives this process.
    pub stored: bool,
    /// What came of orders.
    pub counters: OrderCounters,
}

/// The orders, and how many may be looked at: those of members and those of strangers have nothing from each other.
#[derive(Debug)]
pub(super) struct Orders {
    pub(super) halt: Halt,
    members: TotalLimit,
    strangers: TotalLimit,
    sources: SourceLimit,
}

impl Machine {
    /// There are operators, whose orders count from here on. `seed` keeps strangers from aiming at each other.
    pub fn handle_operators(&mut self, now: Instant, halt: Halt, seed: Secret<32>) {
        self.orders = Some(Orders {
            halt,
            members: TotalLimit::new(now, LOOKS_PER_SECOND),
            strangers: TotalLimit::new(now, LOOKS_PER_SECOND),
            sources: SourceLimit::new(now, LOOKS_PER_SOURCE_AND_SECOND, seed),
        });
    }

    /// A datagram that is not sealed where everything has to be: an order stands for itself, nothing else does.
    pub fn handle_unsealed(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        const ORDERS: [u8; 2] = [OrderKind::Halt.code(), OrderKind::Resume.code()];
        if self.orders.is_some() && bytes.get(TYPE_AT).is_some_and(|kind| ORDERS.contains(kind)) {
            self.take(now, from, None, bytes, None);
        } else {
            self.handle_kept(crate::guard::Kept::Plaintext);
        }
    }

    /// An order that is to be stored; then [`handle_stored`](Self::handle_stored).
    pub fn poll_store(&mut self) -> Option<Given> {
        self.orders.as_mut()?.halt.poll_store()
    }

    /// The disk has the order of that sequence, or did not take it.
    pub fn handle_stored(&mut self, now: Instant, sequence: u64, is_stored: bool) {
        if let Some(orders) = &mut self.orders {
            orders.halt.handle_stored(now, sequence, is_stored);
        }
    }

    /// What the operators ordered.
    #[must_use]
    pub fn halt_state(&self) -> HaltState {
        let state = |orders: &Orders| HaltState {
            halted: orders.halt.is_halted(),
            sequence: orders.halt.sequence(),
            stored: orders.halt.is_stored(),
            counters: orders.halt.counters(),
        };
        self.orders.as_ref().map(state).unwrap_or_default()
    }

    /// What beats say of it.
    pub(super) fn halt_sequence(&self) -> u32 {
        let sequence = self.orders.as_ref().map_or(0, |orders| orders.halt.sequence());
        u32::try_from(sequence).unwrap_or(u32::MAX)
    }

    /// An order; `sealed`: by whose address or keys it is a node's.
    pub(super) fn take_order(
        &mut self,
        now: Instant,
        from: SocketAddr,
        sealed: bool,
        header: &Header,
        message: &Message,
    ) {
        let Some(given) = given(message) else { return };
        let len_bytes = given.len_bytes();
        let is_node = sealed || self.directory.position_of(from).is_some();
        let Some(Orders { halt, members, strangers, sources }) = &mut self.orders else {
            self.drops.stranger += 1;
            return;
        };
        let bearer = match is_node {
            true => Bearer::Node,
            false => Bearer::Address { from, token: header.sequence, len_bytes },
        };
        halt.handle_order(now, bearer, given, || match sealed {
            true => members.take(now),
            false => sources.take(now, from) && strangers.take(now),
        });
    }

    /// A beat says which order its sender knows.
    pub(super) fn note_sequence(&mut self, now: Instant, from: NodeKey, sequence: u32) {
        if let Some(orders) = &mut self.orders {
            orders.halt.handle_sequence(now, from, sequence);
        }
    }

    /// A JOIN does not say it.
    pub(super) fn note_joiner(&mut self, now: Instant, from: NodeKey, address: SocketAddr) {
        if let Some(orders) = &mut self.orders {
            orders.halt.handle_join(now, from, address);
        }
    }

    /// The next order or answer; they have a queue of their own, which nothing else fills.
    pub(super) fn next_order(&mut self) -> Option<Outgoing> {
        let (target, message) = self.orders.as_mut()?.halt.poll_transmit()?;
        let to = match target {
            Target::All => To::Everyone,
            Target::Node(key) => To::Node(key),
            Target::Address(address) => To::Address(address),
        };
        Some(Outgoing { to, message, cursor: 0 })
    }
}

/// The order that a message is, if it is one.
pub(super) const fn given(message: &Message) -> Option<Given> {
    match message {
        Message::Halt(order) => Some(Given { kind: OrderKind::Halt, order: *order }),
        Message::Resume(order) => Some(Given { kind: OrderKind::Resume, order: *order }),
        _ => None,
    }
}

/// A forgery ends with its first signature, which takes 50 us (one core of a Cascade Lake): a flood costs 1 % of a core,
/// and as much again from members.
const LOOKS_PER_SECOND: u32 = 200;
const LOOKS_PER_SOURCE_AND_SECOND: u32 = 50;
const TYPE_AT: usize = 3;
