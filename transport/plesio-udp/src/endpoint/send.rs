//! Sending: trains from where payload lies, or sealed from there into packets; small datagrams; what a refusal means.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use plesio_session::DataSealer;
use plesio_wire::Span;
use plesio_wire::data::{DATAGRAM_BYTES_MAX, HEADER_BYTES, Header, TAG_BYTES};

use super::Endpoint;
use crate::engine::{Engine, Lane, Outgoing};
use crate::{Peer, SendError, Sent, train};

/// Times a send is tried again because an earlier one's refusal was reported instead.
const RETRIES_MAX: u32 = 3;

impl<E: Engine> Endpoint<E> {
    pub(super) fn lane(&mut self, peer: Peer) -> Result<&mut Lane, SendError> {
        let lane = self.lanes.get_mut(usize::from(peer.0) + 1).and_then(Option::as_mut);
        lane.ok_or(SendError::UnknownPeer)
    }

    /// Sends as many trains as the socket takes, straight from the arena.
    pub(super) fn send_plain(&mut self, peer: Peer, chunks: &[(Header, Span)]) -> Result<Sent, SendError> {
        let mut sent = Sent::default();
        let mut retries = 0;
        while sent.chunks < chunks.len() {
            let (some, outcome) = self.send_some(peer, &chunks[sent.chunks..]);
            sent.chunks += some.chunks;
            sent.payload_bytes += some.payload_bytes;
            retries = if some.chunks > 0 { 0 } else { retries + 1 };
            match outcome {
                Ok(()) if retries <= RETRIES_MAX => {}
                Ok(()) => break,
                // The refusal was of an earlier datagram; taking it has cleared it.
                Err(SendError::Unreachable) if retries <= RETRIES_MAX => {}
                Err(SendError::TooLarge { .. }) if sent.chunks == 0 => {
                    let len_bytes = HEADER_BYTES + chunks[0].1.len_bytes as usize;
                    return Err(SendError::TooLarge { len_bytes });
                }
                Err(error) if sent.chunks == 0 => return Err(error),
                Err(_) => break,
            }
        }
        if sent.chunks == 0 && !chunks.is_empty() {
            return Err(SendError::WouldBlock);
        }
        Ok(sent)
    }

    /// Fills and sends as many trains as one call takes; says how far it got.
    fn send_some(&mut self, peer: Peer, chunks: &[(Header, Span)]) -> (Sent, Result<(), SendError>) {
        let lane = match self.lane(peer) {
            Ok(lane) => lane,
            Err(error) => return (Sent::default(), Err(error)),
        };
        let (descriptor, segmentation) = (lane.socket.as_raw_fd(), lane.segmentation);
        let (mut used, mut at, mut outcome) = (0, 0, Ok(()));
        while used < self.trains.len() && at < chunks.len() {
            let len = train::len_of_first(&chunks[at..], segmentation, HEADER_BYTES);
            if let Err(error) = load(&mut self.trains[used], &chunks[at..at + len]) {
                self.trains[used].message.clear();
                outcome = Err(error);
                break;
            }
            used += 1;
            at += len;
        }
        if used > 0 {
            self.engine.send(descriptor, &mut self.trains[..used]);
            self.counters.send_calls += 1;
        }
        let mut sent = Sent::default();
        let mut refused = None;
        for train in &mut self.trains[..used] {
            train.message.clear();
            match train.result {
                Ok(_) if refused.is_none() => {
                    sent.chunks += train.chunks;
                    sent.payload_bytes += train.payload_bytes;
                }
                Ok(_) => {}
                Err(cause) => refused = refused.or(Some((cause, train.chunks))),
            }
        }
        if let Some((cause, chunks)) = refused {
            outcome = self.explain(peer, cause, chunks);
        }
        self.counters.datagrams_sent += sent.chunks as u64;
        self.counters.payload_bytes_sent += sent.payload_bytes;
        (sent, outcome)
    }

    /// Seals trains into packets and sends these. What the kernel then refuses is lost, so nothing is sealed for a socket
    /// that is known to be full.
    pub(super) fn send_sealed(&mut self, peer: Peer, chunks: &[(Header, Span)]) -> Result<Sent, SendError> {
        let mut sent = Sent::default();
        while sent.chunks < chunks.len() {
            if self.lane(peer)?.write_wanted {
                break;
            }
            let (some, outcome) = self.send_some_sealed(peer, &chunks[sent.chunks..]);
            sent.chunks += some.chunks;
            sent.payload_bytes += some.payload_bytes;
            match outcome {
                Ok(()) if some.chunks > 0 => {}
                Ok(()) => break,
                Err(error) if sent.chunks == 0 => return Err(error),
                Err(_) => break,
            }
        }
        if sent.chunks == 0 && !chunks.is_empty() {
            return Err(SendError::WouldBlock);
        }
        Ok(sent)
    }

    fn send_some_sealed(&mut self, peer: Peer, chunks: &[(Header, Span)]) -> (Sent, Result<(), SendError>) {
        let lane = self.lanes.get_mut(usize::from(peer.0) + 1).and_then(Option::as_mut);
        let Some(lane) = lane else { return (Sent::default(), Err(SendError::UnknownPeer)) };
        let (descriptor, segmentation) = (lane.socket.as_raw_fd(), lane.segmentation);
        let mut sent = Sent::default();
        let (mut used, mut outcome) = (0, Ok(()));
        while used < self.trains.len() && sent.chunks < chunks.len() && outcome.is_ok() {
            let rest = &chunks[sent.chunks..];
            let len = train::len_of_first(rest, segmentation, HEADER_BYTES + TAG_BYTES);
            let sealer = match lane.keys.sealer() {
                Ok(sealer) => sealer,
                Err(error) => return (sent, Err(error.into())),
            };
            let train = &mut self.trains[used];
            // What was sealed before one that was refused goes out.
            outcome = seal(train, &rest[..len], sealer);
            sent.chunks += train.chunks;
            sent.payload_bytes += train.payload_bytes;
            used += usize::from(train.chunks > 0);
        }
        if used > 0 {
            self.engine.send(descriptor, &mut self.trains[..used]);
            self.counters.send_calls += 1;
        }
        let mut refused = None;
        for train in &mut self.trains[..used] {
            train.message.clear();
            match train.result {
                Ok(_) => {
                    self.counters.datagrams_sent += train.chunks as u64;
                    self.counters.payload_bytes_sent += train.payload_bytes;
                    self.counters.copied_bytes_sent += train.passed_bytes;
                }
                Err(cause) => {
                    self.counters.dropped_unsent += train.chunks as u64;
                    let payload_bytes = train.payload_bytes as usize / train.chunks;
                    refused = refused.or(Some((cause, train.chunks, payload_bytes)));
                }
            }
        }
        if let Some((cause, chunks, payload_bytes)) = refused {
            let told = self.explain(peer, cause, chunks);
            // A datagram too long for the path is not lost on the way: the caller has to know.
            if matches!(told, Err(SendError::TooLarge { .. })) {
                let len_bytes = HEADER_BYTES + TAG_BYTES + payload_bytes;
                return (Sent::default(), Err(SendError::TooLarge { len_bytes }));
            }
        }
        (sent, outcome)
    }

    /// Sends one datagram that is not of a train.
    pub(super) fn send_small(
        &mut self,
        peer: Peer,
        header: &Header,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let sealed = !self.config.protection.is_plaintext();
        let around_bytes = HEADER_BYTES + if sealed { TAG_BYTES } else { 0 };
        let len_bytes = around_bytes + payload.len();
        let lane = self.lanes.get_mut(usize::from(peer.0) + 1).and_then(Option::as_mut);
        let lane = lane.ok_or(SendError::UnknownPeer)?;
        let descriptor = lane.socket.as_raw_fd();
        if len_bytes > DATAGRAM_BYTES_MAX {
            return Err(SendError::TooLarge { len_bytes });
        }
        let message = &mut self.trains[0].message;
        message.clear();
        let mut header = Header { payload_bytes: payload.len() as u16, ..*header };
        let aside = &mut message.aside_mut()[..len_bytes];
        if sealed {
            lane.keys.sealer()?.seal_data(&mut header, payload, aside)?;
        } else {
            header.protect(payload);
            aside[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
            aside[HEADER_BYTES..].copy_from_slice(payload);
        }
        message.push_aside(0..len_bytes);
        let mut outcome = Err(SendError::WouldBlock);
        for _ in 0..RETRIES_MAX {
            let Err(cause) = self.send_first(descriptor) else { return Ok(()) };
            outcome = match self.explain(peer, cause, 1) {
                Ok(()) => Err(SendError::WouldBlock),
                Err(SendError::TooLarge { .. }) => return Err(SendError::TooLarge { len_bytes }),
                // The refusal was of an earlier datagram; taking it has cleared it.
                Err(SendError::Unreachable) => Err(SendError::Unreachable),
                Err(error) => return Err(error),
            };
        }
        outcome
    }

    /// Sends a datagram as it is from the base socket.
    pub(super) fn send_raw(&mut self, to: SocketAddr, datagram: &[u8]) -> Result<(), SendError> {
        let len_bytes = datagram.len();
        let base = self.lanes[0].as_ref().ok_or(SendError::UnknownPeer)?;
        let descriptor = base.socket.as_raw_fd();
        if len_bytes > DATAGRAM_BYTES_MAX {
            return Err(SendError::TooLarge { len_bytes });
        }
        let message = &mut self.trains[0].message;
        message.clear();
        message.set_to(to);
        message.aside_mut()[..len_bytes].copy_from_slice(datagram);
        message.push_aside(0..len_bytes);
        let sent = self.send_first(descriptor);
        self.trains[0].message.clear();
        sent.map_err(|cause| match cause {
            // Lost, as on the way: whoever makes a session tries again.
            Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR | Errno::ECANCELED => SendError::WouldBlock,
            Errno::ECONNREFUSED => SendError::Unreachable,
            Errno::EMSGSIZE => SendError::TooLarge { len_bytes },
            cause => SendError::System { cause },
        })
    }

    fn send_first(&mut self, descriptor: i32) -> Result<(), Errno> {
        self.engine.send(descriptor, &mut self.trains[..1]);
        self.counters.send_calls += 1;
        self.trains[0].result?;
        self.counters.datagrams_sent += 1;
        Ok(())
    }

    /// Turns a refusal into what the caller can do; `Ok` means: try again now.
    fn explain(&mut self, peer: Peer, cause: Errno, chunks: usize) -> Result<(), SendError> {
        match cause {
            // Not tried, or interrupted.
            Errno::ECANCELED | Errno::EINTR => Ok(()),
            Errno::EAGAIN | Errno::ENOBUFS => {
                self.lane(peer)?.write_wanted = true;
                Err(SendError::WouldBlock)
            }
            Errno::ECONNREFUSED => {
                self.counters.refused += 1;
                Err(SendError::Unreachable)
            }
            Errno::EMSGSIZE => Err(SendError::TooLarge { len_bytes: 0 }),
            Errno::EIO | Errno::EINVAL if chunks > 1 => {
                let lane = self.lane(peer)?;
                lane.segmentation = false;
                let address = lane.peer_address;
                self.counters.offload_refused += 1;
                if let Some(address) = address {
                    let cause = cause.desc();
                    self.notes.push(format!(
                        "send offload refused on the path to {address} ({cause}): one datagram per message from now on"
                    ));
                }
                Ok(())
            }
            cause => Err(SendError::System { cause }),
        }
    }
}

/// Describes a train: headers from its own memory, payload from where it lies.
fn load(train: &mut Outgoing, chunks: &[(Header, Span)]) -> Result<(), SendError> {
    let message = &mut train.message;
    message.clear();
    train.chunks = chunks.len();
    train.payload_bytes = 0;
    for (index, (header, span)) in chunks.iter().enumerate() {
        let len_bytes = HEADER_BYTES + span.len_bytes as usize;
        let too_large = SendError::TooLarge { len_bytes };
        let payload_bytes = u16::try_from(span.len_bytes).map_err(|_| too_large)?;
        let mut header = Header { payload_bytes, ..*header };
        message.push_header(index);
        if let Some((_, next)) = chunks.get(index + 1) {
            message.expect_payload(*next);
        }
        header.protect(message.push_payload(*span)?);
        message.set_header(index, header.to_bytes());
        train.payload_bytes += u64::from(payload_bytes);
    }
    if let [(_, first), _, ..] = chunks {
        // A train is at most 65,507 bytes, and each of its segments is less.
        message.set_segment((HEADER_BYTES + first.len_bytes as usize) as u16);
    }
    Ok(())
}

/// Seals a train into the side buffer; after an error it holds what was sealed before.
fn seal(train: &mut Outgoing, chunks: &[(Header, Span)], sealer: &mut DataSealer) -> Result<(), SendError> {
    let message = &mut train.message;
    message.clear();
    (train.chunks, train.payload_bytes, train.passed_bytes) = (0, 0, 0);
    let (mut end, mut outcome) = (0, Ok(()));
    for (index, (header, span)) in chunks.iter().enumerate() {
        if let Some((_, next)) = chunks.get(index + 1) {
            message.expect_payload(*next);
        }
        let mut header = *header;
        let sealed = message.fill_aside(*span, end, |payload, room| {
            sealer.seal_data(&mut header, payload, room).map_err(|error| match error {
                plesio_session::SealError::Size { needed_bytes } => {
                    SendError::TooLarge { len_bytes: needed_bytes }
                }
                error => SendError::Seal(error),
            })
        });
        match sealed {
            Ok(len_bytes) => end += len_bytes,
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
        train.chunks += 1;
        train.payload_bytes += u64::from(span.len_bytes);
        // The pass of the cipher, and before it the move into the packet.
        let passes = if sealer.seals_apart(span.len_bytes as usize) { 1 } else { 2 };
        train.passed_bytes += passes * u64::from(span.len_bytes);
    }
    if train.chunks > 0 {
        message.push_aside(0..end);
    }
    if let ([(_, first), _, ..], true) = (chunks, train.chunks > 1) {
        message.set_segment((HEADER_BYTES + first.len_bytes as usize + TAG_BYTES) as u16);
    }
    outcome
}
