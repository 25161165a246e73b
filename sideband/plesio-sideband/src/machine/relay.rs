//! Relay of control through a third member where one direction between two is dead (F6).
//!
//! ```text
//!   A: a datagram for B, who says that it does not hear A        B --beat: "A is silent"--> A, C
//!      --> itself, as ever: it may be heard again
//!      --> RELAY first leg  [whose: B | A's datagram for B, sealed for B] --> C
//!   C: B says so to C too, and C hears A: RELAY second leg [whose: A | the same bytes] --> B
//!   B: opens them with A's keys: a beat shows that A lives, the rest is heard as if A had said it here
//! ```
//!
//! Probes are not carried: a detour says nothing of the way. Bounds: a carrier passes on so many datagrams a second and
//! queues so many; each is one in and one out; what was carried is never carried again. Strangers have no part in it: both
//! legs come from members, sealed where everything is.

use super::{Machine, Outgoing, To, Transmit};
use crate::directory::Role;
use plesio_session::TotalLimit;
use plesio_wire::sideband::{CARRIED_BYTES_MAX, Header, INDEX_NONE, Leg, Message, Relay, decode, encode};
use plesio_wire::{Bounded, Instant, MemberIndex, NodeKey};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// How a datagram goes that is not sent as it is: see [`Machine::enclose`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Through {
    /// Whom it is for; it is sealed for who is there.
    pub receiver: SocketAddr,
    carrier: MemberIndex,
    whose: MemberIndex,
}

/// A datagram that a third member brought: what is in it is its sender's, once it is opened with its sender's keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Carried {
    /// Who should have sealed it.
    pub by: NodeKey,
    /// Its bytes, as they left their sender.
    pub datagram: Bounded<u8, CARRIED_BYTES_MAX>,
}

/// Once more, through somebody else.
#[derive(Clone, Copy, Debug)]
struct Detour {
    receiver: SocketAddr,
    header: Header,
    message: Message,
}

/// What a node has to do with datagrams of others.
#[derive(Debug)]
pub(super) struct Relays {
    detour: Option<Detour>,
    /// Passed on next.
    queue: VecDeque<Outgoing>,
    /// To be opened.
    carried: VecDeque<Carried>,
    limit: TotalLimit,
    /// Carriers take turns: one that loses everything loses a part.
    turn: u32,
    pub(super) counters: crate::RelayCounters,
}

impl Relays {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            detour: None,
            queue: VecDeque::with_capacity(QUEUE_MAX),
            carried: VecDeque::with_capacity(QUEUE_MAX),
            limit: TotalLimit::new(now, CARRIED_PER_SECOND),
            turn: 0,
            counters: crate::RelayCounters::default(),
        }
    }

    /// Indices have moved.
    pub(super) fn clear(&mut self) {
        self.detour = None;
        self.queue.clear();
    }

    pub(super) fn next(&mut self) -> Option<Outgoing> {
        self.queue.pop_front()
    }
}

impl Machine {
    /// A datagram went to a member; the same goes through somebody else if it may not be heard there.
    pub(super) fn note_sent(&mut self, receiver: SocketAddr, header: Header, message: &Message) {
        let is_ours = !matches!(message, Message::Relay(_) | Message::Probe(_) | Message::ProbeReply(_));
        if is_ours && header.dst != INDEX_NONE && self.membership.lacks_us(header.dst) {
            self.relays.detour = Some(Detour { receiver, header, message: *message });
        }
    }

    /// The detour of what was sent last, if somebody can carry it: by whom, how, and how long it is in the buffer.
    pub(super) fn next_detour(&mut self) -> Option<(SocketAddr, Through, usize)> {
        let Detour { receiver, header, message } = self.relays.detour.take()?;
        self.relays.turn = self.relays.turn.wrapping_add(1);
        let carrier = self.membership.carrier(header.dst, self.relays.turn)?;
        let nodes = &self.directory.nodes;
        let to = nodes.iter().find(|node| node.role == Role::Member(carrier))?.address?;
        let len_bytes = encode(&header, &message, &mut self.buffer).len();
        // A view of many or a roster is too long: whoever lacks it can ask anybody for it.
        let fits = len_bytes + plesio_wire::data::TAG_BYTES <= CARRIED_BYTES_MAX;
        fits.then_some((to, Through { receiver, carrier, whose: header.dst }, len_bytes))
    }

    /// What goes to the carrier in place of a datagram that [`Transmit::through`] says is carried; `datagram` is that one,
    /// sealed for its receiver where everything is.
    pub fn enclose(&mut self, to: SocketAddr, through: Through, datagram: &[u8]) -> Transmit<'_> {
        let datagram = Bounded::from_slice(datagram);
        self.relays.counters.handed += 1;
        let relay = Message::Relay(Relay { leg: Leg::First, whose: through.whose, datagram });
        self.write(to, through.carrier, &relay, None)
    }

    /// A member hands us what is for another, or brings what another has for us.
    pub(super) fn handle_relay(&mut self, now: Instant, at: usize, view: u32, relay: &Relay) {
        let Role::Member(from) = self.directory.nodes[at].role else { return };
        let is_current = view == self.view && self.me != INDEX_NONE;
        let done = is_current
            && match relay.leg {
                Leg::First => self.pass_on(now, from, relay),
                Leg::Second => self.take_carried(from, relay),
            };
        self.drops.relay += u64::from(!done);
    }

    fn pass_on(&mut self, now: Instant, from: MemberIndex, relay: &Relay) -> bool {
        let relays = &mut self.relays;
        let wanted = self.membership.carries(from, relay.whose) && relays.queue.len() < QUEUE_MAX;
        let carries = wanted && relays.limit.take(now);
        if carries {
            let message = Message::Relay(Relay { leg: Leg::Second, whose: from, ..*relay });
            relays.queue.push_back(Outgoing { to: To::Member(relay.whose), message, cursor: 0 });
            relays.counters.carried += 1;
        }
        carries
    }

    fn take_carried(&mut self, from: MemberIndex, relay: &Relay) -> bool {
        let sender = self.directory.nodes.iter().find(|node| node.role == Role::Member(relay.whose));
        let lacked = relay.whose != from && self.membership.lacks(relay.whose);
        let Some(by) = sender.map(|node| node.key).filter(|_| lacked) else { return false };
        let takes = self.relays.carried.len() < QUEUE_MAX;
        if takes {
            self.relays.carried.push_back(Carried { by, datagram: relay.datagram });
        }
        takes
    }

    /// What was brought to us; opened, it is for [`handle_carried`](Self::handle_carried).
    pub fn poll_carried(&mut self) -> Option<Carried> {
        self.relays.carried.pop_front()
    }

    /// The plaintext form of a datagram that a third member brought; `opened`: `by` has sealed it.
    pub fn handle_carried(&mut self, now: Instant, by: NodeKey, bytes: &[u8], opened: bool) {
        let (header, message) = match decode(bytes) {
            Ok(parts) => parts,
            Err(error) => return self.count(error),
        };
        let at = self.directory.nodes.iter().position(|node| {
            let index = self.directory.index_in(header.view, node);
            node.key == by && matches!(node.role, Role::Member(_)) && index == Some(header.src)
        });
        let ours = header.mesh == self.config.mesh && header.view == self.view && header.dst == self.me;
        let Some(at) = at.filter(|_| ours) else {
            self.drops.spoof += 1;
            return;
        };
        let node = &mut self.directory.nodes[at];
        let Some(from_addr) = node.address else { return };
        if !opened && !node.replay.accept(header.sequence) {
            self.drops.replay += 1;
            return;
        }
        self.relays.counters.received += 1;
        self.take_from(now, at, from_addr, (opened, true), &header, message, None);
        self.drain(now);
    }

    /// What went through others.
    #[must_use]
    pub const fn relay_counters(&self) -> crate::RelayCounters {
        self.relays.counters
    }
}

/// Ten beats and as many other messages a second, for five pairs.
const CARRIED_PER_SECOND: u32 = 100;
const QUEUE_MAX: usize = 64;
