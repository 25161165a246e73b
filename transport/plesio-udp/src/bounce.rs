//! Receiving aside: whole trains lie in memory of the engine's, are checked there, and payload is moved to its place.
//!
//! Costs one move of every byte and saves the look ahead of each train; what is sealed is opened on the way. The other
//! way to receive is in `receive.rs`.
//!
//! Invariant: a byte is written to a window only at a place that the sink has named as a hole; only what is
//! opened on the way there is written before it is checked.

use nix::errno::Errno;
use plesio_memory::{AccessError, Arena, Filling, Lease};
use plesio_wire::data::{HEADER_BYTES, Header, Kind};
use plesio_wire::{DecodeError, Span, handshake};

use crate::engine::{Arrival, Lane, Taken};
use crate::keys::Keys;
use crate::{Counters, DatagramSink, Peer, STRANGER_BYTES_MAX};

/// The arena, and the region of it that was written last: chunks of a train mostly go into one.
pub(crate) struct Room<'a> {
    arena: &'a Arena,
    lease: Option<Lease<Filling>>,
}

impl<'a> Room<'a> {
    pub(crate) const fn new(arena: &'a Arena) -> Self {
        Self { arena, lease: None }
    }

    /// Where the span lies, which has so many bytes.
    fn slot(&mut self, span: Span, len_bytes: usize) -> Result<&mut [u8], AccessError> {
        self.arena.pointer(span)?;
        if len_bytes != span.len_bytes as usize {
            return Err(AccessError::Length);
        }
        let held = self.lease.take().filter(|lease| lease.span().region == span.region);
        let lease = self.lease.insert(match held {
            Some(lease) => lease,
            None => self.arena.lease(span.region)?,
        });
        let start = span.offset_bytes as usize;
        Ok(&mut lease.as_bytes_mut()[start..start + len_bytes])
    }
}

/// Takes what was read from the lane of this index.
pub(crate) fn take(
    index: usize,
    lane: &mut Lane,
    taken: Taken<'_>,
    sealed: bool,
    arena: &Arena,
    sink: &mut dyn DatagramSink,
    counters: &mut Counters,
) {
    let arrival = match taken {
        Ok(arrival) => arrival,
        Err(Errno::ECONNREFUSED) => {
            counters.refused += 1;
            return;
        }
        Err(_) => {
            counters.receive_errors += 1;
            return;
        }
    };
    if let Some(count) = arrival.overflow {
        counters.note_overflow(lane, count);
    }
    counters.trains_received += 1;
    let Arrival { from, segment_bytes, bytes, .. } = arrival;
    let known = lane.peer_address.filter(|address| from == Some(*address));
    let known = known.map(|address| (Peer((index - 1) as u16), address));
    let segment_bytes = segment_bytes.unwrap_or(bytes.len()).clamp(1, bytes.len().max(1));
    let mut room = Room::new(arena);
    // An empty datagram is one as well.
    let segments = bytes.len().div_ceil(segment_bytes).max(1);
    for start in (0..segments).map(|index| index * segment_bytes) {
        let end = bytes.len().min(start + segment_bytes);
        let datagram = &mut bytes[start..end];
        counters.datagrams_received += 1;
        let Some((peer, peer_address)) = known else {
            counters.dropped_stranger += 1;
            if let Some(from) = from {
                sink.handle_stranger(from, &datagram[..datagram.len().min(STRANGER_BYTES_MAX)]);
            }
            continue;
        };
        if sealed && handshake::kind_of(datagram).is_some() {
            sink.handle_stranger(peer_address, datagram);
        } else if sealed {
            deliver_sealed(peer, &mut lane.keys, datagram, &mut room, sink, counters);
        } else {
            match deliver(peer, datagram, &mut room, sink, counters) {
                Ok(()) => {}
                Err(DecodeError::Checksum) => counters.dropped_checksum += 1,
                Err(_) => counters.dropped_malformed += 1,
            }
        }
    }
}

fn deliver_sealed(
    peer: Peer,
    keys: &mut Keys,
    datagram: &mut [u8],
    room: &mut Room<'_>,
    sink: &mut dyn DatagramSink,
    counters: &mut Counters,
) {
    if let Ok(sealed) = Header::parse_sealed(datagram)
        && sealed.kind == Kind::Data
        && keys.opens_apart(&sealed)
        && deliver_apart(peer, &sealed, keys, datagram, room, sink, counters)
    {
        return;
    }
    let opened = match keys.open(datagram) {
        Ok(opened) => opened,
        Err(refusal) => return counters.note_refusal(refusal, datagram),
    };
    if opened.tell(peer, sink) {
        return;
    }
    let header = opened.header;
    let payload = &datagram[HEADER_BYTES..HEADER_BYTES + usize::from(header.payload_bytes)];
    if header.kind == Kind::Data {
        // The pass of the cipher; the move follows.
        counters.copied_bytes_received += payload.len() as u64;
        put(peer, &header, payload, room, sink, counters);
    } else {
        sink.handle_control(peer, &header, payload);
    }
}

/// Opens a chunk into its place in one pass. Its header is believed before it is checked, as where the kernel scatters: the
/// sink names holes only, and after a refusal they are zero. False: it has no place, and nothing was done.
fn deliver_apart(
    peer: Peer,
    sealed: &Header,
    keys: &mut Keys,
    datagram: &[u8],
    room: &mut Room<'_>,
    sink: &mut dyn DatagramSink,
    counters: &mut Counters,
) -> bool {
    let payload_bytes = usize::from(sealed.payload_bytes);
    let Some(span) = sink.place(peer, &Header { receiver: 0, ..*sealed }) else { return false };
    let Ok(payload) = room.slot(span, payload_bytes) else { return false };
    let opened = match keys.open_into(sealed, datagram, payload) {
        Ok(opened) => opened,
        Err(refusal) => {
            counters.note_refusal(refusal, datagram);
            return true;
        }
    };
    counters.copied_bytes_received += payload_bytes as u64;
    if !opened.tell(peer, sink) {
        counters.payload_bytes_received += payload_bytes as u64;
        sink.handle_chunk(peer, &opened.header, span);
    }
    true
}

fn deliver(
    peer: Peer,
    datagram: &[u8],
    room: &mut Room<'_>,
    sink: &mut dyn DatagramSink,
    counters: &mut Counters,
) -> Result<(), DecodeError> {
    let header = Header::parse(datagram)?;
    let payload = &datagram[HEADER_BYTES..];
    header.verify(payload)?;
    if header.kind == Kind::Data {
        put(peer, &header, payload, room, sink, counters);
    } else {
        sink.handle_control(peer, &header, payload);
    }
    Ok(())
}

/// Moves a checked chunk to its place.
pub(crate) fn put(
    peer: Peer,
    header: &Header,
    payload: &[u8],
    room: &mut Room<'_>,
    sink: &mut dyn DatagramSink,
    counters: &mut Counters,
) {
    let Some(span) = sink.place(peer, header) else {
        counters.dropped_unplaced += 1;
        sink.handle_unplaced(peer, header);
        return;
    };
    match room.slot(span, payload.len()) {
        Ok(slot) => {
            slot.copy_from_slice(payload);
            counters.copied_bytes_received += payload.len() as u64;
            counters.payload_bytes_received += payload.len() as u64;
            sink.handle_chunk(peer, header, span);
        }
        Err(AccessError::Busy) => counters.dropped_busy += 1,
        // The sink's span is not of this arena or not of this length: as good as no place.
        Err(_) => counters.dropped_unplaced += 1,
    }
}
