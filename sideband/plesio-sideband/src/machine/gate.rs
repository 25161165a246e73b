//! The gate: what comes in, who may say it, and what is counted instead (section 9 of the consensus text).

use super::orders::given;
use super::{Event, Machine};
use crate::directory::Role;
use crate::guard::Kept;
use plesio_session::Refusal;
use plesio_wire::sideband::{Beat, Header, INDEX_NONE, Message, ShortBeat, decode};
use plesio_wire::{DecodeError, Instant, LogIndex, MemberSet, MeshTime, NodeKey, Version};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Bit of SHORT_BEAT's flags.
pub(super) const FLAG_LEAVING: u8 = 1;

impl Machine {
    /// A plaintext datagram from `from`; `rx_stamp` is when the kernel took it, on the local clock.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
        rx_stamp: Option<Instant>,
    ) {
        self.take(now, from, None, bytes, rx_stamp);
    }

    /// The plaintext form of a datagram from `from` that `by` has sealed.
    pub fn handle_opened(
        &mut self,
        now: Instant,
        from: SocketAddr,
        by: NodeKey,
        bytes: &[u8],
        rx_stamp: Option<Instant>,
    ) {
        self.take(now, from, Some(by), bytes, rx_stamp);
    }

    /// A datagram that did not open.
    pub(crate) fn handle_kept(&mut self, kept: Kept) {
        self.datagrams_received += 1;
        match kept {
            Kept::Decode(error) => self.count(error),
            Kept::Plaintext => self.drops.plaintext += 1,
            Kept::Refused(Refusal::Replay) => self.drops.replay += 1,
            Kept::Refused(Refusal::RateLimit) => self.drops.rate_limited += 1,
            Kept::Refused(_) => self.drops.authentication += 1,
        }
    }

    pub(super) fn take(
        &mut self,
        now: Instant,
        from: SocketAddr,
        by: Option<NodeKey>,
        bytes: &[u8],
        rx_stamp: Option<Instant>,
    ) {
        self.datagrams_received += 1;
        let (header, message) = match decode(bytes) {
            Ok(parts) => parts,
            Err(error) => {
                self.count(error);
                if let DecodeError::Version(_) = error {
                    self.refuse_version(now, from, bytes.len());
                }
                return;
            }
        };
        if header.mesh != self.config.mesh {
            self.drops.mesh += 1;
            return;
        }
        if given(&message).is_some() {
            return self.take_order(now, from, by.is_some(), &header, &message);
        }
        // A process that starts anew may come from the address of its own former life. Once it has a seat, who does not
        // know yet where it is has that address as the former one's alone, and would never hear where it is.
        let is_anew = matches!(message, Message::Join(_) | Message::Revive(_));
        let known = self.directory.position_of(from).filter(|at| {
            let node = &self.directory.nodes[*at];
            let fits = self.directory.index_in(header.view, node).is_none_or(|index| index == header.src);
            !is_anew && (fits || !matches!(node.role, Role::Former { .. }))
        });
        let named = match (&message, known) {
            (Message::Join(join), _) => Some(join.id.key()),
            (Message::Revive(body), _) => Some(body.id.key()),
            (_, known) => known.map(|at| self.directory.nodes[at].key),
        };
        // Who is admitted may still lie about who it is.
        if by.is_some_and(|by| named.is_some_and(|named| named != by)) {
            self.drops.spoof += 1;
            return;
        }
        match known {
            Some(at) => self.handle_known(now, at, from, by.is_some(), &header, message, rx_stamp),
            None => self.handle_stranger(now, from, &header, message),
        }
        self.drain(now);
    }

    #[expect(clippy::too_many_arguments, reason = "what came with one datagram")]
    fn handle_known(
        &mut self,
        now: Instant,
        at: usize,
        from_addr: SocketAddr,
        opened: bool,
        header: &Header,
        message: Message,
        rx_stamp: Option<Instant>,
    ) {
        let node = &self.directory.nodes[at];
        if self.directory.index_in(header.view, node).is_some_and(|index| index != header.src) {
            self.drops.spoof += 1;
            return;
        }
        let node = &mut self.directory.nodes[at];
        // The sequence of what was sealed belongs to the session, which has a window of its own.
        if !opened && !node.replay.accept(header.sequence) {
            self.drops.replay += 1;
            return;
        }
        self.take_from(now, at, from_addr, (opened, false), header, message, rx_stamp);
    }

    /// A message of a node that is known; `carried`: a third one brought it.
    #[expect(clippy::too_many_arguments, reason = "what came with one datagram")]
    pub(super) fn take_from(
        &mut self,
        now: Instant,
        at: usize,
        from_addr: SocketAddr,
        (opened, carried): (bool, bool),
        header: &Header,
        message: Message,
        rx_stamp: Option<Instant>,
    ) {
        let node = &self.directory.nodes[at];
        let key = node.key;
        let is_member = matches!(node.role, Role::Member(_));
        let is_former = matches!(node.role, Role::Former { .. });
        // Where datagrams are lost or the budget makes beats rare, the rest says that it lives. A new life at its address
        // says nothing of that: it has no seat.
        let is_beat = matches!(message, Message::ShortBeat(_) | Message::Beat(_));
        let seat = self.directory.index_in(header.view, node).filter(|index| *index != INDEX_NONE);
        if !carried && !is_beat && seat == Some(header.src) {
            self.membership.handle_word(now, key);
        }
        match message {
            // Nothing is carried twice, and no clock is read through others.
            Message::Relay(_) | Message::Probe(_) | Message::ProbeReply(_) if carried => {
                self.drops.relay += 1;
            }
            Message::Relay(relay) => self.handle_relay(now, at, header.view, &relay),
            Message::Probe(probe) if !is_former => self.clock.handle_probe(now, key, &probe, rx_stamp),
            Message::ProbeReply(reply) if is_member => {
                if self.clock.handle_reply(now, key, &reply, rx_stamp).is_err() {
                    self.drops.clock_exchange += 1;
                }
            }
            Message::Probe(_) | Message::ProbeReply(_) => self.drops.clock_exchange += 1,
            Message::ShortBeat(beat) => self.handle_short_beat(now, (at, carried), header.view, &beat),
            Message::Beat(beat) => self.handle_beat(now, (at, carried), header.view, &beat),
            Message::Halt(_) | Message::Resume(_) => {
                self.take_order(now, from_addr, opened, header, &message)
            }
            // It is for an operator, and no node is one.
            Message::OrderAck(_) => self.drops.stranger += 1,
            message => self.event(Event::Message {
                from: Some(key),
                from_addr,
                view: header.view,
                src: header.src,
                sequence: header.sequence,
                message,
            }),
        }
    }

    /// Whoever brings a beat shows that its sender lives, not that it is heard.
    fn hear(&mut self, now: Instant, (key, carried): (NodeKey, bool), view: u32, accuses: MemberSet) {
        match carried {
            false => self.membership.handle_beat(now, key, view, accuses),
            true => self.membership.handle_relayed_beat(now, key, view, accuses),
        }
    }

    fn handle_short_beat(&mut self, now: Instant, (at, carried): (usize, bool), view: u32, beat: &ShortBeat) {
        let node = &self.directory.nodes[at];
        let (key, is_member) = (node.key, matches!(node.role, Role::Member(_)));
        if is_member {
            self.hear(now, (key, carried), view, beat.suspect);
            self.clock.handle_state(now, key, beat.state, None);
        }
        self.note_sequence(now, key, beat.halt_sequence);
        if beat.flags & FLAG_LEAVING != 0 {
            self.event(Event::Leaving { key });
        }
        self.event(Event::Hold { from: key, view, version: Version(beat.version), index: None });
    }

    fn handle_beat(&mut self, now: Instant, (at, carried): (usize, bool), view: u32, beat: &Beat) {
        let sound = self.beat_is_sound(now, at, beat);
        let node = &self.directory.nodes[at];
        let (key, is_member) = (node.key, matches!(node.role, Role::Member(_)));
        let is_observer = matches!(node.role, Role::Observer);
        if is_member {
            self.hear(now, (key, carried), view, beat.suspect);
        }
        self.note_sequence(now, key, beat.halt_sequence);
        if !sound {
            self.drops.beat_fields += 1;
            return;
        }
        if is_member {
            self.clock.handle_state(now, key, beat.state, Some(beat.eps_ns));
        }
        let clock = self.clock.estimate();
        if is_member && !carried && clock.usable {
            self.delays.insert(clock.at(now).0.saturating_sub(beat.mesh_time));
        }
        if !is_observer && !carried {
            // One who was removed lately still knows what time it is.
            self.clock.handle_mesh_time(now, key, MeshTime(beat.mesh_time), beat.eps_ns);
        }
        let index = Some(LogIndex(beat.index));
        self.event(Event::Hold { from: key, view, version: Version(beat.version), index });
        self.event(Event::Beat { from: key, beat: *beat });
    }

    /// Bound never 0, fill within depth, a stride, and a phase that moved by less than 8 frames more than time did. One
    /// that stands is no jump: whoever does not cut is not further.
    fn beat_is_sound(&mut self, now: Instant, at: usize, beat: &Beat) -> bool {
        if beat.eps_ns == 0 || beat.fill > beat.depth || beat.stride == 0 {
            return false;
        }
        let period_ns = self.clock.period_ns().max(1);
        let node = &mut self.directory.nodes[at];
        if let Some((then, phase)) = node.phase {
            let passed = (i128::from(now.since(then)) << 32) / i128::from(period_ns);
            let moved = i128::from(beat.phase) - i128::from(phase);
            let jumped = moved < -PHASE_JUMP_MAX || moved > passed + PHASE_JUMP_MAX;
            node.phase_jumps = if jumped { node.phase_jumps + 1 } else { 0 };
            if jumped && node.phase_jumps < PHASE_JUMPS_MAX {
                return false;
            }
        }
        node.phase_jumps = 0;
        node.phase = Some((now, beat.phase));
        true
    }

    /// JOIN, and what answers it: while we are no member ourselves, or from where we have just asked, for a member that
    /// all others left behind asks as strangers do. All at a bounded rate.
    fn handle_stranger(&mut self, now: Instant, from_addr: SocketAddr, header: &Header, message: Message) {
        let is_member = self.me != plesio_wire::sideband::INDEX_NONE;
        let heard = match message {
            Message::Join(_) => true,
            Message::Revive(_) => !is_member,
            Message::Roster(_) | Message::Decided { .. } | Message::Snapshot(_) | Message::Nack(_) => {
                !is_member || self.asked.contains(now, from_addr)
            }
            _ => false,
        };
        if !heard {
            self.drops.stranger += 1;
            return;
        }
        if !self.strangers.allow(now) {
            self.drops.rate_limited += 1;
            return;
        }
        if let Message::Join(join) = &message {
            self.note_joiner(now, join.id.key(), from_addr);
        }
        let from = self.known_joiner(from_addr, &message);
        let (view, src, sequence) = (header.view, header.src, header.sequence);
        self.event(Event::Message { from, from_addr, view, src, sequence, message });
    }

    /// A JOIN of a registered life of the node at this address is not a stranger's.
    fn known_joiner(&self, from_addr: SocketAddr, message: &Message) -> Option<NodeKey> {
        let Message::Join(join) = message else { return None };
        let node = &self.directory.nodes[self.directory.position_of(from_addr)?];
        ((node.key, node.incarnation) == (join.id.key(), join.incarnation)).then_some(node.key)
    }

    pub(super) fn count(&mut self, error: DecodeError) {
        let counter = match error {
            DecodeError::Magic => &mut self.drops.magic,
            DecodeError::Version(_) => &mut self.drops.version,
            DecodeError::Kind(_) => &mut self.drops.kind,
            DecodeError::Checksum => &mut self.drops.checksum,
            DecodeError::Field(name) if name != "length" => &mut self.drops.field,
            _ => &mut self.drops.length,
        };
        *counter += 1;
    }
}

/// Where this node has just asked.
#[derive(Debug, Default)]
pub(super) struct Asked {
    places: VecDeque<(SocketAddr, Instant)>,
}

impl Asked {
    pub(super) fn note(&mut self, now: Instant, place: SocketAddr) {
        self.places.retain(|(known, _)| *known != place);
        if self.places.len() == ASKED_MAX {
            self.places.pop_front();
        }
        self.places.push_back((place, now));
    }

    fn contains(&self, now: Instant, place: SocketAddr) -> bool {
        self.places.iter().any(|(known, at)| *known == place && now.since(*at) <= ANSWER_NS_MAX)
    }
}

/// Places remembered that were asked at, and how long an answer may take.
const ASKED_MAX: usize = 64;
const ANSWER_NS_MAX: u64 = 2_000_000_000;

/// How many datagrams of strangers are heard: a bucket that fills with time.
#[derive(Debug)]
pub(super) struct Strangers {
    tokens: u64,
    filled_at: Instant,
}

impl Strangers {
    pub(super) const fn new(now: Instant) -> Self {
        Self { tokens: STRANGERS_BURST, filled_at: now }
    }

    fn allow(&mut self, now: Instant) -> bool {
        let earned = now.since(self.filled_at) / STRANGER_NS;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(STRANGERS_BURST);
            self.filled_at = self.filled_at.after(earned.saturating_mul(STRANGER_NS));
        }
        let allowed = self.tokens > 0;
        self.tokens -= u64::from(allowed);
        allowed
    }
}

/// To whom we said lately that we do not speak their version.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    last: [Option<(SocketAddr, Instant)>; REFUSALS_MAX],
}

impl Refusals {
    /// At most one a second per address, and none to more addresses than are remembered.
    pub(super) fn allow(&mut self, now: Instant, to: SocketAddr) -> bool {
        let recent =
            |slot: &Option<(SocketAddr, Instant)>| slot.is_some_and(|(_, at)| now.since(at) < REFUSAL_NS);
        if self.last.iter().any(|slot| recent(slot) && slot.is_some_and(|(known, _)| known == to)) {
            return false;
        }
        let free = self.last.iter_mut().find(|slot| !recent(slot));
        free.map(|slot| *slot = Some((to, now))).is_some()
    }
}

/// 250 datagrams a second, 250 at once: four joiners with a handful of answers each.
const STRANGER_NS: u64 = 4_000_000;
const STRANGERS_BURST: u64 = 250;
const REFUSALS_MAX: usize = 16;
const REFUSAL_NS: u64 = 1_000_000_000;
/// 8 frames in Q32.32.
const PHASE_JUMP_MAX: i128 = 8 << 32;
/// A phase that stays where it jumped to is the phase.
const PHASE_JUMPS_MAX: u8 = 3;
