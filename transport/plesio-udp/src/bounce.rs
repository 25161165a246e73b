//! Receiving aside: whole trains lie in memory of the engine's, are checked there, and payload is moved to its place.
//!
//! Costs one move of every byte and saves the look ahead of each train; what is sealed is opened on the way. The other
//! way to receive is in `receive.rs`.
//!
//! Invariant: a byte is written to a window only after its datagram has been checked, at a place the sink has named.

use nix::errno::Errno;
use plesio_memory::{AccessError, Arena};
use plesio_session::Refusal;
use plesio_wire::data::{HEADER_BYTES, Header, Kind};
use plesio_wire::{DecodeError, handshake};

use crate::engine::{Arrival, Lane, Taken};
use crate::keys::Keys;
use crate::{Counters, DatagramSink, Peer, STRANGER_BYTES_MAX};

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
            deliver_sealed(peer, &mut lane.keys, datagram, arena, sink, counters);
        } else {
            match deliver(peer, datagram, arena, sink, counters) {
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
    arena: &Arena,
    sink: &mut dyn DatagramSink,
    counters: &mut Counters,
) {
    let opened = match keys.open(datagram) {
        Ok(opened) => opened,
        Err(refusal) => {
            let count = match refusal {
                Refusal::Authentication => &mut counters.dropped_forged,
                Refusal::Replay => &mut counters.dropped_replayed,
                Refusal::UnknownReceiver | Refusal::Exhausted => &mut counters.dropped_session,
                _ if Header::parse(datagram).is_ok() => &mut counters.dropped_plaintext,
                _ => &mut counters.dropped_malformed,
            };
            *count += 1;
            return;
        }
    };
    if opened.first {
        sink.handle_confirmed(peer, opened.local);
    }
    let header = opened.header;
    let payload = &datagram[HEADER_BYTES..HEADER_BYTES + usize::from(header.payload_bytes)];
    if opened.own {
        sink.handle_own(peer, opened.local);
    } else if header.kind == Kind::Data {
        put(peer, &header, payload, arena, sink, counters);
    } else {
        sink.handle_control(peer, &header, payload);
    }
}

fn deliver(
    peer: Peer,
    datagram: &[u8],
    arena: &Arena,
    sink: &mut dyn DatagramSink,
    counters: &mut Counters,
) -> Result<(), DecodeError> {
    let header = Header::parse(datagram)?;
    let payload = &datagram[HEADER_BYTES..];
    header.verify(payload)?;
    if header.kind == Kind::Data {
        put(peer, &header, payload, arena, sink, counters);
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
    arena: &Arena,
    sink: &mut dyn DatagramSink,
    counters: &mut Counters,
) {
    let Some(span) = sink.place(peer, header) else {
        counters.dropped_unplaced += 1;
        sink.handle_unplaced(peer, header);
        return;
    };
    match arena.write(span, payload) {
        Ok(()) => {
            counters.copied_bytes_received += payload.len() as u64;
            counters.payload_bytes_received += payload.len() as u64;
            sink.handle_chunk(peer, header, span);
        }
        Err(AccessError::Busy) => counters.dropped_busy += 1,
        // The sink's span is not of this arena or not of this length: as good as no place.
        Err(_) => counters.dropped_unplaced += 1,
    }
}
