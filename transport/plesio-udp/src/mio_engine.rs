//! Backend C: epoll through mio, one system call per message, `sendmmsg` and `recvmmsg` for many.

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::errno::Errno;

use crate::drain::Drain;
use crate::engine::{self, Engine, Lane, Outgoing, Slot, Taken};
use crate::message::{Batch, PEEK_FLAGS};
use crate::{IoError, Tier, Waker};

const WAKER: Token = Token(usize::MAX - 1);

pub(crate) struct MioEngine {
    poll: Poll,
    events: Events,
    batch: Batch,
    drain: Drain,
    /// Per lane: whether it is watched for room as well.
    write_armed: Vec<bool>,
}

impl MioEngine {
    pub(crate) fn new(waker: &Waker, lanes_max: usize) -> Result<Self, Errno> {
        let poll = Poll::new().map_err(errno)?;
        let descriptor = waker.as_fd().as_raw_fd();
        poll.registry().register(&mut SourceFd(&descriptor), WAKER, Interest::READABLE).map_err(errno)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(128),
            batch: Batch::default(),
            drain: Drain::new(),
            write_armed: vec![false; lanes_max],
        })
    }
}

impl Engine for MioEngine {
    fn tier(&self) -> Tier {
        Tier::Mio
    }

    fn add(&mut self, lane: usize, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        let descriptor = socket.as_raw_fd();
        self.write_armed[lane] = false;
        let mut source = SourceFd(&descriptor);
        self.poll.registry().register(&mut source, Token(lane), Interest::READABLE).map_err(errno)
    }

    fn remove(&mut self, _lane: usize, _generation: u32, socket: BorrowedFd<'_>) {
        let descriptor = socket.as_raw_fd();
        // Closing the descriptor, which follows, removes it as well.
        let _closed_next = self.poll.registry().deregister(&mut SourceFd(&descriptor));
    }

    fn receive(&mut self, slots: &mut [Slot]) {
        for slot in slots {
            if slot.scattering {
                slot.scattered = slot.scatter.receive(slot.socket, 0);
            }
            slot.peeked = slot.peek.receive(slot.socket, PEEK_FLAGS);
        }
    }

    fn collect(
        &mut self,
        lanes: &mut [Option<Lane>],
        trains_max: usize,
        take: &mut dyn FnMut(usize, &mut Lane, Taken<'_>),
    ) -> bool {
        let Self { drain, batch, .. } = self;
        drain.collect(lanes, trains_max, |socket, messages, lens| batch.receive(socket, messages, lens), take)
    }

    fn send(&mut self, socket: RawFd, trains: &mut [Outgoing]) {
        engine::send(&mut self.batch, socket, trains);
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        waker: &Waker,
        lanes: &mut [Option<Lane>],
    ) -> Result<bool, IoError> {
        for (index, lane) in lanes.iter_mut().enumerate() {
            let Some(lane) = lane else { continue };
            // Only while somebody asks: every datagram that leaves would end the wait otherwise.
            if lane.write_wanted != self.write_armed[index] {
                let both = Interest::READABLE | Interest::WRITABLE;
                let interest = if lane.write_wanted { both } else { Interest::READABLE };
                let descriptor = lane.socket.as_raw_fd();
                let changed =
                    self.poll.registry().reregister(&mut SourceFd(&descriptor), Token(index), interest);
                changed.map_err(|error| IoError { step: "epoll_ctl", cause: errno(error) })?;
                self.write_armed[index] = lane.write_wanted;
            }
        }
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(false),
            Err(error) => return Err(IoError { step: "epoll_wait", cause: errno(error) }),
        }
        let mut woken = false;
        for event in &self.events {
            if event.token() == WAKER {
                woken = true;
                waker.clear();
                continue;
            }
            let Some(Some(lane)) = lanes.get_mut(event.token().0) else { continue };
            // An error is taken from the socket by receiving.
            lane.readable |= event.is_readable() || event.is_error();
            lane.writable |= event.is_writable() && lane.write_wanted;
        }
        Ok(woken)
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}
