//! Receiving in place: a look at the first header of what is next, a question where its payload belongs, one call that
//! scatters headers and payload to their places, and only then the checks.
//!
//! ```text
//!  look      [header 0]                                            and the segment size
//!  scatter   [header 0][window + o][header 1][window + o + c] ...  predicted from header 0
//!  check     length and CRC of every segment, where it lies; what is sealed is opened there
//!  deliver   in place; or moved, if a header was not as predicted; or dropped and counted
//! ```
//!
//! Invariant: a chunk is delivered only after its own header and checksum have been verified over the bytes at the
//! place it is delivered from. A byte is written to a window only at a place that the sink has named as a hole.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use plesio_memory::{AccessError, Arena};
use plesio_wire::data::{HEADER_BYTES, Header, Kind, TAG_BYTES};
use plesio_wire::{DecodeError, Span, handshake};

use crate::bounce::{Room, put};
use crate::engine::{Engine, Lane, Slot, TRAIN_BYTES_MAX};
use crate::keys::{Keys, Opened};
use crate::message::Message;
use crate::train::SEGMENTS_MAX;
use crate::{Counters, DatagramSink, Peer, STRANGER_BYTES_MAX, control};

/// Errors taken from one socket before its turn ends.
const ERRORS_MAX: u32 = 8;

pub(crate) struct Receiver {
    slots: Vec<Slot>,
    plans: Vec<Plan>,
    /// Where the search for a lane with work goes on: every lane gets its turn.
    lane_next: usize,
}

/// What the scatter in the slot of the same index expects.
struct Plan {
    /// Sender; `None` when its address is no peer's.
    peer: Option<Peer>,
    from: Option<SocketAddr>,
    total_bytes: usize,
    segment_bytes: usize,
    /// Whether headers and payload are apart; otherwise all lies in the side buffer as it came.
    scattered: bool,
    /// Per segment of a scattered train: where its payload was sent, and for which chunk.
    targets: Vec<Option<(Span, Header)>>,
    /// Per segment, after the checks.
    verdicts: Vec<Verdict>,
    /// Per segment that was opened.
    opened: Vec<Opened>,
    errors: u32,
    /// Whether the port is protected.
    sealed: bool,
}

#[derive(Clone, Copy)]
enum Verdict {
    InPlace(Header, Span),
    /// Its payload is in the side buffer.
    Aside(Header),
    /// It makes a session.
    Handshake,
    Dropped,
}

impl Receiver {
    pub(crate) fn new(arena: &Arena, slots: usize, sealed: bool) -> Self {
        let slot = |_| Slot {
            lane: 0,
            socket: -1,
            scattering: false,
            scatter: Message::new(Some(arena.clone()), SEGMENTS_MAX, TRAIN_BYTES_MAX),
            scattered: Err(Errno::ECANCELED),
            peek: Message::new(None, 1, 0),
            peeked: Err(Errno::ECANCELED),
        };
        let plan = |_| Plan {
            peer: None,
            from: None,
            total_bytes: 0,
            segment_bytes: 1,
            scattered: false,
            targets: Vec::with_capacity(SEGMENTS_MAX),
            verdicts: Vec::with_capacity(SEGMENTS_MAX),
            opened: Vec::with_capacity(SEGMENTS_MAX),
            sealed,
            errors: 0,
        };
        Self { slots: (0..slots).map(slot).collect(), plans: (0..slots).map(plan).collect(), lane_next: 0 }
    }

    /// True: there may be more.
    pub(crate) fn receive<E: Engine>(
        &mut self,
        engine: &mut E,
        lanes: &mut [Option<Lane>],
        arena: &Arena,
        sink: &mut dyn DatagramSink,
        trains_max: usize,
        counters: &mut Counters,
    ) -> bool {
        let mut trains_left = trains_max;
        let mut active = 0;
        loop {
            while active < self.slots.len()
                && let Some(lane) = self.take_turn(lanes, active)
            {
                self.begin(active, lane, lanes);
                active += 1;
            }
            if active == 0 {
                return false;
            }
            if trains_left == 0 {
                self.slots[..active].iter_mut().for_each(|slot| slot.scatter.clear());
                return true;
            }
            engine.receive(&mut self.slots[..active]);
            for (slot, plan) in self.slots[..active].iter_mut().zip(&mut self.plans) {
                let Some(lane) = lanes[slot.lane].as_mut() else { continue };
                if slot.scattering {
                    slot.scattering = false;
                    trains_left = trains_left.saturating_sub(1);
                    finish(slot, plan, lane, arena, sink, counters);
                }
            }
            // Only now is no window held by a scatter of ours: a lane that finds one held waits for the next round,
            // where the train still is, instead of being read aside and moved.
            let mut scattering = false;
            for index in (0..active).rev() {
                let (slot, plan) = (&mut self.slots[index], &mut self.plans[index]);
                let Some(lane) = lanes[slot.lane].as_mut() else { continue };
                if next(slot, plan, lane, sink, trains_left > 0, scattering, counters) {
                    scattering |= slot.scattering;
                } else {
                    lane.readable = false;
                    active -= 1;
                    self.slots.swap(index, active);
                    self.plans.swap(index, active);
                }
            }
        }
    }

    /// The next lane with work that no slot is at.
    fn take_turn(&mut self, lanes: &[Option<Lane>], active: usize) -> Option<usize> {
        for step in 0..lanes.len() {
            let index = (self.lane_next + step) % lanes.len();
            let waiting = lanes[index].as_ref().is_some_and(|lane| lane.readable);
            if waiting && !self.slots[..active].iter().any(|slot| slot.lane == index) {
                self.lane_next = index + 1;
                return Some(index);
            }
        }
        None
    }

    fn begin(&mut self, index: usize, lane: usize, lanes: &[Option<Lane>]) {
        let slot = &mut self.slots[index];
        slot.lane = lane;
        slot.socket = lanes[lane].as_ref().map_or(-1, |lane| lane.socket.as_raw_fd());
        slot.scattering = false;
        slot.peek.clear();
        slot.peek.push_header(0);
        self.plans[index].errors = 0;
    }
}

/// Prepares the scatter for what the look has shown. False: the lane is drained. `others`: other lanes are about to
/// scatter, and may hold a window that this one needs.
fn next(
    slot: &mut Slot,
    plan: &mut Plan,
    lane: &mut Lane,
    sink: &mut dyn DatagramSink,
    wanted: bool,
    others: bool,
    counters: &mut Counters,
) -> bool {
    let total_bytes = match slot.peeked {
        Ok(total_bytes) => total_bytes,
        Err(Errno::EAGAIN) => return false,
        // The scatter before it failed and took the look with it, or a signal came.
        Err(Errno::ECANCELED | Errno::EINTR) => return true,
        Err(error) => {
            // Reported once by the socket and taken by this call; the datagrams behind it are still there.
            if error == Errno::ECONNREFUSED {
                counters.refused += 1;
            } else {
                counters.receive_errors += 1;
            }
            plan.errors += 1;
            return plan.errors < ERRORS_MAX;
        }
    };
    if !wanted {
        return true;
    }
    note_overflow(&slot.peek, lane, counters);
    plan.from = slot.peek.from();
    plan.peer =
        lane.peer_address.filter(|address| plan.from == Some(*address)).map(|_| Peer((slot.lane - 1) as u16));
    plan.total_bytes = total_bytes;
    plan.segment_bytes =
        control::segment_bytes(slot.peek.control()).unwrap_or(total_bytes).clamp(1, total_bytes.max(1));
    let free = plan.aim(slot, sink);
    slot.scattering = free || !others;
    if !slot.scattering {
        slot.scatter.clear();
    }
    true
}

impl Plan {
    fn segments(&self) -> usize {
        self.total_bytes.div_ceil(self.segment_bytes)
    }

    /// Where segment `index` lies in the train, and how long it is.
    fn segment(&self, index: usize) -> (usize, usize) {
        let start = index * self.segment_bytes;
        (start, self.segment_bytes.min(self.total_bytes - start))
    }

    /// Predicts every header from the first and sends payload to its place. False: somebody holds a window of it.
    fn aim(&mut self, slot: &mut Slot, sink: &mut dyn DatagramSink) -> bool {
        slot.scatter.clear();
        self.targets.clear();
        self.scattered = false;
        let last_bytes = self.segment(self.segments().saturating_sub(1)).1;
        let shaped = self.total_bytes >= HEADER_BYTES
            && self.total_bytes <= TRAIN_BYTES_MAX
            && self.segments() <= SEGMENTS_MAX
            && last_bytes >= self.around_bytes();
        let first = if self.sealed { Header::parse_sealed_head } else { Header::parse }(slot.peek.header(0));
        let first = first.ok().filter(|header| {
            shaped
                && header.kind == Kind::Data
                && usize::from(header.payload_bytes) + self.around_bytes() == self.segment(0).1
        });
        let (Some(peer), Some(first)) = (self.peer, first) else {
            slot.scatter.push_aside(0..TRAIN_BYTES_MAX);
            return true;
        };
        let mut free = true;
        self.scattered = true;
        for index in 0..self.segments() {
            let (start, len_bytes) = self.segment(index);
            let payload_bytes = len_bytes - self.around_bytes();
            let header = Header {
                chunk: first.chunk.wrapping_add(index as u32),
                packet: first.packet.wrapping_add(index as u64),
                payload_bytes: payload_bytes as u16,
                ..first
            };
            slot.scatter.push_header(index);
            // A region that somebody holds, like no place at all, only means: read it aside and ask again after the checks.
            let target = sink
                .place(peer, &header)
                .filter(|span| span.len_bytes as usize == payload_bytes)
                .filter(|span| match slot.scatter.push_window(*span) {
                    Ok(()) => true,
                    Err(error) => {
                        free &= error != AccessError::Busy;
                        false
                    }
                });
            if target.is_none() && payload_bytes > 0 {
                slot.scatter.push_aside(start..start + payload_bytes);
            }
            if self.sealed {
                slot.scatter.push_aside(start + payload_bytes..start + payload_bytes + TAG_BYTES);
            }
            self.targets.push(target.map(|span| (span, header)));
        }
        free
    }

    /// What a datagram carries beside its payload.
    const fn around_bytes(&self) -> usize {
        HEADER_BYTES + if self.sealed { TAG_BYTES } else { 0 }
    }

    /// Checks every segment where it lies and fills in the verdicts.
    fn judge(&mut self, message: &mut Message, keys: &mut Keys, counters: &mut Counters) {
        self.verdicts.clear();
        self.opened.clear();
        for index in 0..self.segments() {
            let verdict = if self.sealed {
                self.open(index, message, keys, counters)
            } else {
                match self.check(index, message, counters) {
                    Ok(verdict) => verdict,
                    Err(DecodeError::Checksum) => {
                        counters.dropped_checksum += 1;
                        Verdict::Dropped
                    }
                    Err(_) => {
                        counters.dropped_malformed += 1;
                        Verdict::Dropped
                    }
                }
            };
            self.verdicts.push(verdict);
        }
    }

    /// Opens a sealed segment where it lies.
    fn open(
        &mut self,
        index: usize,
        message: &mut Message,
        keys: &mut Keys,
        counters: &mut Counters,
    ) -> Verdict {
        let (start, len_bytes) = self.segment(index);
        if !self.scattered {
            let segment = &mut message.aside_mut()[start..start + len_bytes];
            if handshake::kind_of(segment).is_some() {
                return Verdict::Handshake;
            }
            return match keys.open(segment) {
                Ok(opened) => {
                    self.opened.push(opened);
                    if opened.own { Verdict::Dropped } else { Verdict::Aside(opened.header) }
                }
                Err(refusal) => {
                    counters.note_refusal(refusal, segment);
                    Verdict::Dropped
                }
            };
        }
        let end = start + len_bytes - self.around_bytes();
        let head = *message.header(index);
        let target = self.targets[index];
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&message.aside()[end..end + TAG_BYTES]);
        let body = match target {
            Some((span, _)) => message.window_mut(span),
            None => &mut message.aside_mut()[start..end],
        };
        let opened = match keys.open_apart(&head, body, &tag) {
            Ok(opened) => opened,
            Err(refusal) => {
                counters.note_refusal(refusal, &head);
                return Verdict::Dropped;
            }
        };
        self.opened.push(opened);
        if opened.own {
            return Verdict::Dropped;
        }
        // The pass of the cipher.
        if target.is_some() && opened.header.kind == Kind::Data {
            counters.copied_bytes_received += (end - start) as u64;
        }
        self.placed(target, opened.header, start, message, counters)
    }

    /// Where a checked segment lies: in its place, if it was as predicted.
    fn placed(
        &self,
        target: Option<(Span, Header)>,
        header: Header,
        start: usize,
        message: &mut Message,
        counters: &mut Counters,
    ) -> Verdict {
        let Some((span, predicted)) = target else { return Verdict::Aside(header) };
        let as_predicted = header.kind == predicted.kind
            && (self.sealed || header.receiver == predicted.receiver)
            && (header.message, header.chunk) == (predicted.message, predicted.chunk);
        if as_predicted {
            return Verdict::InPlace(header, span);
        }
        // It belongs elsewhere, perhaps where another segment of this train lies: everything that is moved goes aside
        // before anything is put down.
        message.set_aside(span, start);
        if header.kind == Kind::Data {
            counters.copied_bytes_received += u64::from(span.len_bytes);
        }
        Verdict::Aside(header)
    }

    fn check(
        &self,
        index: usize,
        message: &mut Message,
        counters: &mut Counters,
    ) -> Result<Verdict, DecodeError> {
        let (start, len_bytes) = self.segment(index);
        if !self.scattered {
            let segment = &message.aside()[start..start + len_bytes];
            let header = Header::parse(segment)?;
            header.verify(&segment[HEADER_BYTES..])?;
            return Ok(Verdict::Aside(header));
        }
        let header = Header::parse(message.header(index))?;
        let target = self.targets[index];
        match target {
            Some((span, _)) => header.verify(message.window(span))?,
            None => header.verify(&message.aside()[start..start + len_bytes - HEADER_BYTES])?,
        }
        Ok(self.placed(target, header, start, message, counters))
    }
}

/// Checks and delivers what a scatter has brought.
fn finish(
    slot: &mut Slot,
    plan: &mut Plan,
    lane: &mut Lane,
    arena: &Arena,
    sink: &mut dyn DatagramSink,
    counters: &mut Counters,
) {
    let received = match slot.scattered {
        Ok(received_bytes) => received_bytes,
        Err(_) => {
            // What was seen is gone, for example because its UDP checksum was wrong; the next look tells.
            counters.receive_errors += 1;
            slot.scatter.clear();
            return;
        }
    };
    note_overflow(&slot.scatter, lane, counters);
    let segments = plan.segments().max(1) as u64;
    counters.trains_received += 1;
    counters.datagrams_received += segments;
    let segment_bytes =
        control::segment_bytes(slot.scatter.control()).unwrap_or(received).clamp(1, received.max(1));
    let as_seen = received == plan.total_bytes
        && segment_bytes == plan.segment_bytes
        && slot.scatter.from() == plan.from;
    if !as_seen || (received == 0 && plan.peer.is_some()) {
        slot.scatter.clear();
        counters.dropped_malformed += segments;
        return;
    }
    let Some(peer) = plan.peer else {
        counters.dropped_stranger += segments;
        for index in 0..segments as usize {
            let (start, len_bytes) = plan.segment(index);
            if let Some(from) = plan.from {
                sink.handle_stranger(
                    from,
                    &slot.scatter.aside()[start..start + len_bytes.min(STRANGER_BYTES_MAX)],
                );
            }
        }
        slot.scatter.clear();
        return;
    };
    plan.judge(&mut slot.scatter, &mut lane.keys, counters);
    // From here on the sink may read its windows.
    slot.scatter.release_windows();
    plan.opened.iter().for_each(|opened| {
        // What was only for the session has its verdict already.
        let _own = opened.tell(peer, sink);
    });
    for verdict in &plan.verdicts {
        if let Verdict::InPlace(header, span) = verdict {
            counters.payload_bytes_received += u64::from(header.payload_bytes);
            sink.handle_chunk(peer, header, *span);
        }
    }
    for (index, verdict) in plan.verdicts.iter().enumerate() {
        if let (Verdict::Handshake, Some(from)) = (verdict, plan.from) {
            let (start, len_bytes) = plan.segment(index);
            sink.handle_stranger(from, &slot.scatter.aside()[start..start + len_bytes]);
        }
        let Verdict::Aside(header) = verdict else { continue };
        let start = index * plan.segment_bytes + if plan.scattered { 0 } else { HEADER_BYTES };
        let payload = &slot.scatter.aside()[start..start + usize::from(header.payload_bytes)];
        if header.kind == Kind::Data {
            put(peer, header, payload, &mut Room::new(arena), sink, counters);
        } else {
            sink.handle_control(peer, header, payload);
        }
    }
    slot.scatter.clear();
}

fn note_overflow(message: &Message, lane: &mut Lane, counters: &mut Counters) {
    if let Some(count) = control::overflow_count(message.control()) {
        counters.note_overflow(lane, count);
    }
}
