//! The sideband as one pure machine: gate, clock and membership behind datagrams and time.
//!
//! ```text
//!   datagram --> gate --> PROBE, REPLY --> Clock  --+
//!                   +---> beats -------> Membership +--> events to the node
//!                   +---> orders ------> Halt ------+
//!                   +---> all the rest -------------+
//!                   +---> RELAY -------> what is carried for others, and brought to us
//!   replies, probes, orders, beats, what is carried, messages of the node, in this order --> datagrams
//! ```
//!
//! It reads no clock and no socket. After every `handle_*` drain `poll_transmit` and `poll_event`, and call
//! `handle_timeout` at `poll_timeout`.

mod budget;
mod delay;
mod gate;
mod orders;
mod relay;
mod words;

pub use budget::Pace;
pub use orders::HaltState;
pub use relay::{Carried, Through};
pub use words::{Event, SendError, Status, To, Transmit};

use crate::Drops;
use crate::directory::{Directory, Node, Role};
use crate::stamps::Stamps;
use plesio_membership::{BeatKind, Membership};
use plesio_phase::{Clock, ClockCounters, ClockEvent, ClockTransmit, MeshClock};
use plesio_wire::sideband::{
    Beat, DATAGRAM_BYTES_MAX, Header, INDEX_NONE, Message, Nack, ShortBeat, encode, nack,
};
use plesio_wire::value::View;
use plesio_wire::{Incarnation, Instant, MemberSet, NodeKey};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// What a machine is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MachineConfig {
    /// Which mesh.
    pub mesh: u64,
    /// Which node.
    pub key: NodeKey,
    /// Jitters the probes.
    pub seed: u64,
    /// Silence after which a member is dead, if a quorum agrees, nanoseconds; a second unless there is a reason.
    pub dead_ns: u64,
    /// What sealing adds to every datagram: 16 bytes, or none in plaintext. For the budget alone.
    pub tag_bytes: u64,
}

impl MachineConfig {
    /// Node `key` of `mesh`, with the defaults.
    #[must_use]
    pub const fn new(mesh: u64, key: NodeKey, seed: u64) -> Self {
        Self { mesh, key, seed, dead_ns: 1_000_000_000, tag_bytes: 0 }
    }
}

/// A message on its way out; for many receivers, how many have it.
#[derive(Debug)]
struct Outgoing {
    to: To,
    message: Message,
    cursor: usize,
}

/// The sideband of one node.
#[derive(Debug)]
pub struct Machine {
    config: MachineConfig,
    clock: Clock,
    membership: Membership,
    directory: Directory,
    status: Status,
    view: u32,
    me: u16,
    /// The last [`Event::States`].
    states: (u32, MemberSet, MemberSet),
    sequence: u32,
    orders: Option<orders::Orders>,
    order: Option<Outgoing>,
    beat: Option<Outgoing>,
    relays: relay::Relays,
    budget: budget::Budget,
    delays: delay::Delays,
    outbox: VecDeque<Outgoing>,
    events: VecDeque<Event>,
    stamps: Stamps,
    strangers: gate::Strangers,
    asked: gate::Asked,
    refusals: gate::Refusals,
    drops: Drops,
    bytes_sent: u64,
    datagrams_sent: u64,
    datagrams_received: u64,
    buffer: Box<[u8; DATAGRAM_BYTES_MAX]>,
}

impl Machine {
    /// A machine that belongs to no view yet.
    #[must_use]
    pub fn new(now: Instant, config: MachineConfig) -> Self {
        let mut membership = Membership::new(now, config.key);
        membership.handle_dead_ns(config.dead_ns);
        Self {
            config,
            clock: Clock::new(now, config.key, config.seed),
            membership,
            directory: Directory::new(config.key),
            status: Status::default(),
            view: 0,
            me: INDEX_NONE,
            states: (0, MemberSet::EMPTY, MemberSet::EMPTY),
            sequence: 0,
            orders: None,
            order: None,
            beat: None,
            relays: relay::Relays::new(now),
            budget: budget::Budget::new(now),
            delays: delay::Delays::new(),
            outbox: VecDeque::with_capacity(OUTBOX_MAX),
            events: VecDeque::with_capacity(EVENTS_MAX),
            stamps: Stamps::new(),
            strangers: gate::Strangers::new(now),
            asked: gate::Asked::default(),
            refusals: gate::Refusals::default(),
            drops: Drops::default(),
            bytes_sent: 0,
            datagrams_sent: 0,
            datagrams_received: 0,
            buffer: Box::new([0; DATAGRAM_BYTES_MAX]),
        }
    }

    /// `view` is in force; `addresses` are the sideband addresses of its members, as far as they are new.
    pub fn handle_view(&mut self, now: Instant, view: &View, addresses: &[(NodeKey, SocketAddr)]) {
        self.directory.handle_view(now, view, addresses);
        let seats = self.directory.seats();
        self.view = view.number;
        let me = seats.seats.iter().position(|seat| seat.0 == self.config.key);
        self.me = me.map_or(INDEX_NONE, |me| me as u16);
        // Indices have moved: what was addressed by index is void.
        self.beat = None;
        self.relays.clear();
        if let Some(order) = &mut self.order {
            order.cursor = 0;
        }
        self.outbox.retain(|outgoing| !matches!(outgoing.to, To::Member(_)));
        self.membership.handle_view(now, view.number, &seats.seats);
        let (schedule, period_ns) = (view.schedule(), view.schedule().period_ns);
        self.budget.handle_view(seats.seats.len(), period_ns);
        // The view was decided in its origin frame or later: the mesh clock has been there.
        self.clock.handle_floor(schedule.close_of(view.origin));
        self.clock.handle_view(now, view.number, &seats.seats, period_ns);
        self.tell_liveness(now);
        self.drain(now);
    }

    /// Registers this life of an observer and where it is, or forgets it. A new incarnation starts a new sequence. There
    /// is room for as many as the agreement lets ask at a time: whoever asks no more is to be forgotten.
    pub fn handle_observer(&mut self, now: Instant, key: NodeKey, life: Option<(Incarnation, SocketAddr)>) {
        if !self.directory.handle_observer(now, key, life) {
            self.drops.rate_limited += 1;
        }
    }

    /// What the next beats say.
    pub fn handle_status(&mut self, now: Instant, status: Status) {
        self.status = status;
        self.clock.handle_own_state(now, status.state);
        self.drain(now);
    }

    /// A message of the node.
    ///
    /// # Errors
    /// When it cannot be queued.
    pub fn handle_send(&mut self, _now: Instant, to: To, message: Message) -> Result<(), SendError> {
        if self.outbox.len() == OUTBOX_MAX {
            self.drops.queue_full += 1;
            return Err(SendError::QueueFull);
        }
        let known = match to {
            To::All | To::Everyone | To::Address(_) => true,
            To::Member(index) => self.directory.nodes.iter().any(|node| node.role == Role::Member(index)),
            To::Node(key) => self.directory.find(key).is_some_and(|node| node.address.is_some()),
        };
        if !known {
            return Err(SendError::UnknownNode);
        }
        self.outbox.push_back(Outgoing { to, message, cursor: 0 });
        Ok(())
    }

    /// The kernel's transmit stamp of [`Transmit::id`].
    pub fn handle_tx_stamp(&mut self, _now: Instant, id: u32, stamp: Instant) {
        if let Some(key) = self.stamps.take(id) {
            self.clock.handle_tx_stamp(key, stamp);
        }
    }

    /// The host at `address` says that nobody listens there; only what members send each other is asked about.
    pub fn handle_refusal(&mut self, now: Instant, address: SocketAddr) {
        let at = self.directory.position_of(address);
        if let Some(node) = at.map(|at| &self.directory.nodes[at]).filter(|node| is_member(node)) {
            self.membership.handle_refusal(now, node.key);
            self.drain(now);
        }
    }

    /// Kernel stamps before and after now cannot be compared.
    pub fn handle_clock_step(&mut self, _now: Instant) {
        self.clock.handle_clock_step();
    }

    /// The node enters again, after a resync, a partition or a long pause: one step of the mesh clock is allowed.
    pub fn handle_reentry(&mut self, now: Instant) {
        self.clock.handle_reentry(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.keep_budget(now);
        self.membership.handle_timeout(now);
        if let Some(orders) = &mut self.orders {
            orders.halt.handle_timeout(now);
        }
        // What silence means for the clock must reach it first: it may found a new one now.
        self.drain(now);
        self.clock.handle_quorum(now, self.membership.has_quorum());
        self.clock.handle_timeout(now);
        self.drain(now);
    }

    /// The next datagram; its stamps are `now`, so send it at once.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit<'_>> {
        // Of what was sent a moment ago.
        if let Some((to, through, len_bytes)) = self.next_detour() {
            let (bytes, through) = (&self.buffer[..len_bytes], Some(through));
            return Some(Transmit { to, bytes, id: None, alone: false, through });
        }
        loop {
            // Replies and probes first: their delay is what is being measured.
            if let Some(ClockTransmit { to, message, stamp }) = self.clock.poll_transmit(now) {
                let target =
                    self.directory.find(to).and_then(|node| Some((node.address?, index_of(node.role))));
                let Some((address, dst)) = target else { continue };
                let id = self.stamps.insert(stamp);
                return Some(self.write(address, dst, &message, Some(id)));
            }
            // Whoever beats before it has told what it knows would be told it again.
            // A message is large: without operators not even an empty place for one is moved.
            if self.orders.is_some()
                && let Some(mut order) = self.order.take().or_else(|| self.next_order())
            {
                let Some((address, dst)) = next_target(&self.directory, &mut order) else { continue };
                let message = order.message;
                self.order = (order.to == To::Everyone).then_some(order);
                return Some(self.write(address, dst, &message, None));
            }
            if self.beat.is_none()
                && let Some(kind) = self.membership.poll_transmit(now)
            {
                let message = self.beat_of(now, kind);
                self.beat = Some(Outgoing { to: To::Everyone, message, cursor: 0 });
            }
            if let Some(beat) = &mut self.beat {
                let Some((address, dst)) = next_target(&self.directory, beat) else {
                    self.beat = None;
                    continue;
                };
                let message = beat.message;
                return Some(self.write(address, dst, &message, None));
            }
            if let Some(mut carried) = self.relays.next() {
                let Some((address, dst)) = next_target(&self.directory, &mut carried) else { continue };
                return Some(self.write(address, dst, &carried.message, None));
            }
            let outgoing = self.outbox.front_mut()?;
            let target = next_target(&self.directory, outgoing);
            let (message, many) = (outgoing.message, matches!(outgoing.to, To::All | To::Everyone));
            if target.is_none() || !many {
                self.outbox.pop_front();
                if self.outbox.is_empty() {
                    self.outbox.clear(); // begins at the front again, as for events
                }
            }
            if let Some((address, dst)) = target {
                if matches!(message, Message::Join(_) | Message::Nack(_)) {
                    self.asked.note(now, address);
                }
                return Some(self.write(address, dst, &message, None));
            }
        }
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if self.events.is_empty() {
            self.events.clear(); // begins at the front again: a queue that walks on through its memory is never in the cache
        }
        event
    }

    /// When to call back.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let orders = self.orders.as_ref().and_then(|orders| orders.halt.poll_timeout());
        let due = self.membership.poll_timeout().min(self.clock.poll_timeout());
        orders.map_or(due, |orders| orders.min(due))
    }

    /// The mesh clock.
    #[must_use]
    pub const fn mesh_clock(&self) -> MeshClock {
        self.clock.estimate()
    }

    /// Estimated rate of mesh time against ours, without the slew.
    #[must_use]
    pub const fn rate_ppb(&self) -> i64 {
        self.clock.rate_ppb()
    }

    /// What the clock counted.
    #[must_use]
    pub const fn clock_counters(&self) -> ClockCounters {
        self.clock.counters()
    }

    /// Members not to wait for.
    #[must_use]
    pub fn suspects(&self) -> MemberSet {
        self.membership.suspects()
    }

    /// Members to be removed.
    #[must_use]
    pub fn dead(&self) -> MemberSet {
        self.membership.dead()
    }

    /// Whether we and those we hear weigh a quorum.
    #[must_use]
    pub fn has_quorum(&self) -> bool {
        self.membership.has_quorum()
    }

    /// Dropped datagrams by reason.
    #[must_use]
    pub const fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Bytes sent, IP and UDP headers included.
    #[must_use]
    pub const fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Datagrams sent.
    #[must_use]
    pub const fn datagrams_sent(&self) -> u64 {
        self.datagrams_sent
    }

    /// Datagrams received, good or bad.
    #[must_use]
    pub const fn datagrams_received(&self) -> u64 {
        self.datagrams_received
    }

    fn write(&mut self, to: SocketAddr, dst: u16, message: &Message, id: Option<u32>) -> Transmit<'_> {
        // One counter for all receivers rises for each of them too.
        let header =
            Header { mesh: self.config.mesh, view: self.view, src: self.me, dst, sequence: self.sequence };
        self.sequence = self.sequence.wrapping_add(1);
        let alone = matches!(message, Message::Halt(_) | Message::Resume(_) | Message::OrderAck(_));
        self.note_sent(to, header, message);
        let bytes = encode(&header, message, &mut self.buffer);
        let transmit = Transmit { to, bytes, id, alone, through: None };
        self.bytes_sent += datagram_bytes(&transmit);
        self.datagrams_sent += 1;
        transmit
    }

    fn beat_of(&self, now: Instant, kind: BeatKind) -> Message {
        let status = &self.status;
        let suspect = self.membership.accused();
        let clock = self.clock.estimate();
        match kind {
            BeatKind::Short => Message::ShortBeat(ShortBeat {
                version: status.version,
                suspect,
                halt_sequence: self.halt_sequence(),
                state: status.state,
                flags: u8::from(status.leaving) * gate::FLAG_LEAVING,
                ..ShortBeat::default()
            }),
            BeatKind::Full => Message::Beat(Beat {
                mesh_time: clock.at(now).0,
                phase: status.phase,
                y_ppb: status.y_ppb,
                margin: status.margin,
                version: status.version,
                eps_ns: self.clock.bound_ns(now).max(1),
                lead_us: status.lead_us,
                step_us: status.step_us,
                steps_per_slot: status.steps_per_slot,
                slips: status.slips,
                folds: status.folds,
                state: status.state,
                stride: status.stride.max(1),
                fill: status.fill.min(status.depth),
                depth: status.depth,
                speeds: status.speeds,
                transfer: status.transfer,
                suspect,
                halt_sequence: self.halt_sequence(),
                index: status.index,
            }),
        }
    }

    /// Turns what clock and membership say into events.
    fn drain(&mut self, now: Instant) {
        let mut verdicts = false;
        while let Some(event) = self.membership.poll_event() {
            use plesio_membership::Event as Verdict;
            let event = match event {
                Verdict::Suspect(key) => Event::Suspect { key },
                Verdict::Recover(key) => Event::Recover { key },
                Verdict::Dead(key) => Event::Dead { key },
                Verdict::Sick(sick) => Event::Sick { sick },
                Verdict::Late { late_ns } => Event::Late { late_ns },
                _ => continue,
            };
            verdicts |= !matches!(event, Event::Late { .. });
            self.event(event);
        }
        if verdicts {
            self.tell_liveness(now);
        }
        let states = (self.view, self.clock.untimed(), self.clock.detached());
        if core::mem::replace(&mut self.states, states) != states {
            let (view, untimed, detached) = states;
            self.event(Event::States { view, untimed, detached });
        }
        while let Some(event) = self.clock.poll_event() {
            match event {
                ClockEvent::Clock(line) => self.event(Event::Clock(line)),
                ClockEvent::Reference(key) => self.event(Event::Reference { key }),
                ClockEvent::FalseTicker(key) => self.event(Event::FalseTicker { key }),
                _ => {}
            }
        }
    }

    fn tell_liveness(&mut self, now: Instant) {
        let (suspects, dead) = (self.membership.suspects(), self.membership.dead());
        self.clock.handle_suspects(now, suspects);
        let quorum = self.membership.has_quorum();
        self.clock.handle_quorum(now, quorum);
        self.event(Event::Liveness { view: self.view, suspects, dead, quorum });
    }

    /// Queues an event; when nobody fetches them the newest message is lost, never a verdict.
    fn event(&mut self, event: Event) {
        let limit =
            if matches!(event, Event::Message { .. }) { EVENTS_MAX - EVENTS_RESERVED } else { EVENTS_MAX };
        if self.events.len() < limit {
            self.events.push_back(event);
        } else {
            self.drops.queue_full += 1;
        }
    }

    fn refuse_version(&mut self, now: Instant, from: SocketAddr, len_bytes: usize) {
        // Never answer with more than was asked with.
        if len_bytes >= NACK_BYTES && self.outbox.len() < OUTBOX_MAX && self.refusals.allow(now, from) {
            let body = Nack { code: nack::VERSION, arg: 1, ..Nack::default() };
            self.outbox.push_back(Outgoing {
                to: To::Address(from),
                message: Message::Nack(body),
                cursor: 0,
            });
        }
    }
}

/// What a datagram takes on the link, its headers included.
pub(crate) const fn datagram_bytes(transmit: &Transmit<'_>) -> u64 {
    let ip_bytes = if transmit.to.is_ipv4() { 20 } else { 40 };
    transmit.bytes.len() as u64 + ip_bytes + UDP_HEADER_BYTES
}

/// The next receiver, and its index; `None` when all have it.
fn next_target(directory: &Directory, outgoing: &mut Outgoing) -> Option<(SocketAddr, u16)> {
    let nodes = &directory.nodes;
    let one = |node: &Node| Some((node.address?, index_of(node.role)));
    match outgoing.to {
        To::Address(address) => {
            let known = directory.position_of(address);
            Some((address, known.map_or(INDEX_NONE, |at| index_of(nodes[at].role))))
        }
        To::Node(key) => directory.find(key).and_then(one),
        To::Member(index) => nodes.iter().find(|node| node.role == Role::Member(index)).and_then(one),
        To::All | To::Everyone => loop {
            let node = nodes.get(outgoing.cursor)?;
            outgoing.cursor += 1;
            let wanted = match node.role {
                Role::Member(_) => true,
                Role::Observer => outgoing.to == To::Everyone,
                Role::Former { .. } => false,
            };
            if let Some(target) = one(node).filter(|_| wanted) {
                return Some(target);
            }
        },
    }
}

const fn is_member(node: &Node) -> bool {
    matches!(node.role, Role::Member(_))
}

/// How a datagram to a node of this role names its receiver.
fn index_of(role: Role) -> u16 {
    match role {
        Role::Member(index) => index,
        Role::Observer | Role::Former { .. } => INDEX_NONE,
    }
}

const OUTBOX_MAX: usize = 512;
const EVENTS_MAX: usize = 1_024;
/// Of these, kept for what is not a message.
const EVENTS_RESERVED: usize = 256;
const UDP_HEADER_BYTES: u64 = 8;
const NACK_BYTES: usize = 48;

#[cfg(test)]
mod tests;
