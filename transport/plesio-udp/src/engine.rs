//! What a backend does for an endpoint: run these calls now, and wait for these sockets. Two exist: io_uring and mio.
//!
//! Invariant: when `receive` or `send` returns, the kernel has let go of every message it was given.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use plesio_memory::Arena;

use crate::keys::Keys;
use crate::message::{Batch, Message};
use crate::train::SEGMENTS_MAX;
use crate::{IoError, Tier, Waker};

/// Longest train the kernel can hand over.
pub(crate) const TRAIN_BYTES_MAX: usize = 65_536;
/// Sockets worked on at a time.
pub(crate) const SLOTS_MAX: usize = 8;
/// Trains taken from one socket before the next one's turn.
pub(crate) const BATCH_MAX: usize = 8;
/// Trains sent by one call of an engine.
pub(crate) const TRAINS_MAX: usize = 32;

/// One socket of an endpoint.
pub(crate) struct Lane {
    pub(crate) socket: OwnedFd,
    /// Tells a lane from an earlier one of the same index.
    pub(crate) generation: u32,
    /// The peer; the base socket has none.
    pub(crate) peer_address: Option<SocketAddr>,
    /// Something may be waiting.
    pub(crate) readable: bool,
    /// It was full, and has room again.
    pub(crate) writable: bool,
    /// Somebody waits for room.
    pub(crate) write_wanted: bool,
    /// Whether trains are used on this path.
    pub(crate) segmentation: bool,
    /// The kernel's count of losses when it was last looked at.
    pub(crate) overflow_seen: u32,
    /// What seals and opens, on a protected port.
    pub(crate) keys: Keys,
}

/// A socket being drained: first a look at what is next, then its scatter.
pub(crate) struct Slot {
    pub(crate) lane: usize,
    pub(crate) socket: RawFd,
    /// Whether `scatter` is prepared and to be run before the next look.
    pub(crate) scattering: bool,
    pub(crate) scatter: Message,
    pub(crate) scattered: Result<usize, Errno>,
    pub(crate) peek: Message,
    pub(crate) peeked: Result<usize, Errno>,
}

/// What the kernel has put aside: one or more datagrams of one sender, all but the last of one length.
pub(crate) struct Arrival<'a> {
    pub(crate) from: Option<SocketAddr>,
    /// Length of each datagram, if there are several.
    pub(crate) segment_bytes: Option<usize>,
    /// The socket's count of losses.
    pub(crate) overflow: Option<u32>,
    pub(crate) bytes: &'a mut [u8],
}

/// What came of reading a lane.
pub(crate) type Taken<'a> = Result<Arrival<'a>, Errno>;

/// A train on its way out.
pub(crate) struct Outgoing {
    pub(crate) message: Message,
    pub(crate) chunks: usize,
    pub(crate) payload_bytes: u64,
    /// What sealing wrote.
    pub(crate) passed_bytes: u64,
    /// ECANCELED when it was not tried because an earlier one failed.
    pub(crate) result: Result<usize, Errno>,
}

impl Outgoing {
    /// One with room for so many bytes beside the arena.
    pub(crate) fn new(arena: Option<Arena>, aside_bytes: usize) -> Self {
        let message = Message::new(arena, SEGMENTS_MAX, aside_bytes);
        Self { message, chunks: 0, payload_bytes: 0, passed_bytes: 0, result: Err(Errno::ECANCELED) }
    }
}

pub(crate) trait Engine {
    fn tier(&self) -> Tier;

    fn add(&mut self, lane: usize, socket: BorrowedFd<'_>) -> Result<(), Errno>;

    fn remove(&mut self, lane: usize, generation: u32, socket: BorrowedFd<'_>);

    /// For each slot the scatter, if it is prepared, then the look; none of them waits.
    fn receive(&mut self, slots: &mut [Slot]);

    /// Hands on what has arrived on lanes that are marked readable, aside in memory of the engine's, at most about
    /// `trains_max` times; unmarks the lanes that are drained. True: there may be more.
    fn collect(
        &mut self,
        lanes: &mut [Option<Lane>],
        trains_max: usize,
        take: &mut dyn FnMut(usize, &mut Lane, Taken<'_>),
    ) -> bool;

    /// In order; after one that failed the rest is not tried.
    fn send(&mut self, socket: RawFd, trains: &mut [Outgoing]);

    /// Waits until a lane is readable, one with `write_wanted` writable, or the waker was called; marks the lanes and
    /// says whether it was the waker.
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        waker: &Waker,
        lanes: &mut [Option<Lane>],
    ) -> Result<bool, IoError>;
}

/// Sends by system calls of its own. Every engine does: what is sent has left when the call returns, so there is nothing
/// to wait for, and a ring only adds to it.
pub(crate) fn send(batch: &mut Batch, socket: RawFd, trains: &mut [Outgoing]) {
    if let [train] = trains {
        train.result = train.message.send(socket);
        return;
    }
    let taken = batch.send(socket, trains.iter_mut().map(|train| &mut train.message));
    let (taken, first_error) = match taken {
        Ok(taken) => (taken, Errno::ECANCELED),
        Err(error) => (0, error),
    };
    for (index, train) in trains.iter_mut().enumerate() {
        train.result = match index {
            index if index < taken => Ok(0),
            // `sendmmsg` tells the error only of a first message; the caller tries again from here.
            0 => Err(first_error),
            _ => Err(Errno::ECANCELED),
        };
    }
}
