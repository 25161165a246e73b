//! The relay's thread: sockets, links between them, one wait.
//!
//! Decides nothing about datagrams; the links do. What a socket does not take is dropped and counted, as a router
//! with a full queue does it.

use crate::{ENDS_MAX, EndId, RelayConfig, RelayError, Report, Socket, any, drops};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use plesio_sim::impair::{Impairment, Link, Tally};
use plesio_wire::Instant;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::Duration;

/// What the relay's thread is told.
pub(crate) enum Order {
    Open { socket: Socket, answer: Sender<Result<EndId, RelayError>> },
    Real { end: EndId, real: SocketAddr },
    Admit { end: EndId },
    Impair { way: Option<(EndId, EndId)>, impairment: Impairment },
    Report { answer: Sender<Report> },
    Settle { answer: Sender<()> },
    Stop,
}

/// A socket at `at` with as much room as the system grants.
pub(crate) fn bind(at: SocketAddr) -> Result<(Socket, SocketAddr), RelayError> {
    let refused = |cause| RelayError::Bind { at, cause };
    let socket = UdpSocket::bind(at).map_err(refused)?;
    socket.set_nonblocking(true).map_err(refused)?;
    // The forced kind needs a privilege, the other is cut to the system's bound; either is better than the default.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
        let _default = setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES);
    }
    let _default = setsockopt(&socket, sockopt::SndBuf, &BUFFER_BYTES);
    let bound = socket.local_addr().map_err(refused)?;
    Ok((socket, bound))
}

/// One end of the path.
struct End {
    socket: Socket,
    real: Option<SocketAddr>,
    /// Whoever is unknown and sends here becomes an end.
    admits: bool,
    /// It came unasked; when it was last heard.
    guest: Option<Instant>,
}

/// One direction.
struct Way {
    from: usize,
    to: usize,
    link: Link,
    /// What was said about this direction alone.
    own: Option<Impairment>,
    /// When it is looked at next.
    due: Option<Instant>,
}

pub(crate) struct Carrier {
    config: RelayConfig,
    inbox: Receiver<Order>,
    woken: UnixDatagram,
    begun: std::time::Instant,
    ends: Vec<End>,
    by_real: BTreeMap<SocketAddr, usize>,
    ways: Vec<Way>,
    by_ends: BTreeMap<(usize, usize), usize>,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    held_bytes: u64,
    report: Report,
    /// Of directions whose ends are gone, and what no direction had memory for.
    past: Tally,
    datagram: Vec<u8>,
}

impl Carrier {
    pub(crate) fn new(config: RelayConfig, inbox: Receiver<Order>, woken: UnixDatagram) -> Self {
        Self {
            config,
            inbox,
            woken,
            begun: std::time::Instant::now(),
            ends: Vec::new(),
            by_real: BTreeMap::new(),
            ways: Vec::new(),
            by_ends: BTreeMap::new(),
            due: BinaryHeap::new(),
            held_bytes: 0,
            report: Report::default(),
            past: Tally::default(),
            datagram: vec![0; DATAGRAM_BYTES_MAX],
        }
    }

    /// The thread's body.
    pub(crate) fn run(mut self) {
        // Without this the kernel may wake us 50 us late, to save power; where it is refused, delays are that much longer.
        let _coarse = prctl::set_timerslack(1);
        let mut ready = Vec::new();
        while !self.take_orders() {
            self.send_due();
            if self.wait(&mut ready).is_err() {
                // Out of memory in the kernel, at worst: what is under way keeps its time.
                std::thread::sleep(Duration::from_millis(1));
            }
            for &end in &ready {
                self.receive(end);
            }
        }
    }

    fn now(&self) -> Instant {
        Instant(self.begun.elapsed().as_nanos() as u64)
    }

    /// True when the relay is to end.
    fn take_orders(&mut self) -> bool {
        while self.woken.recv(&mut [0; 8]).is_ok() {}
        loop {
            match self.inbox.try_recv() {
                Ok(Order::Open { socket, answer }) => {
                    let opened = self.add(End { socket, real: None, admits: false, guest: None });
                    let _gone = answer.send(opened.map(EndId));
                }
                Ok(Order::Real { end, real }) => self.set_real(end.0, plain(real)),
                Ok(Order::Admit { end }) => {
                    self.ends.get_mut(end.0).into_iter().for_each(|end| end.admits = true);
                }
                Ok(Order::Impair { way: None, impairment }) => {
                    self.config.impairment = impairment;
                    for index in 0..self.ways.len() {
                        self.ways[index].own = None;
                        self.set_impairment(index);
                    }
                }
                Ok(Order::Impair { way: Some((from, to)), impairment }) => {
                    if from.0.max(to.0) < self.ends.len() {
                        let index = self.way(from.0, to.0);
                        self.ways[index].own = Some(impairment);
                        self.set_impairment(index);
                    }
                }
                Ok(Order::Report { answer }) => {
                    let _gone = answer.send(self.report());
                }
                Ok(Order::Settle { answer }) => {
                    let _gone = answer.send(());
                }
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return true,
                Err(TryRecvError::Empty) => return false,
            }
        }
    }

    fn report(&self) -> Report {
        let tally = self.ways.iter().fold(self.past, |sum, way| sum.and(way.link.tally()));
        let overflowed = drops::count(self.ends.iter().map(|end| end.socket.as_fd()));
        Report { tally, overflowed, ..self.report }
    }

    fn add(&mut self, end: End) -> Result<usize, RelayError> {
        if self.ends.len() >= ENDS_MAX {
            return Err(RelayError::Full);
        }
        self.ends.push(end);
        Ok(self.ends.len() - 1)
    }

    fn set_real(&mut self, end: usize, real: SocketAddr) {
        let Some(known) = self.ends.get_mut(end) else { return };
        if let Some(old) = known.real.replace(real)
            && self.by_real.get(&old) == Some(&end)
        {
            self.by_real.remove(&old);
        }
        self.by_real.insert(real, end);
    }

    /// The direction between two ends, made when it is first needed.
    fn way(&mut self, from: usize, to: usize) -> usize {
        if let Some(index) = self.by_ends.get(&(from, to)) {
            return *index;
        }
        let impairment = self.impairment(to);
        let link = self.new_link(from, to, impairment);
        self.ways.push(Way { from, to, link, own: None, due: None });
        self.by_ends.insert((from, to), self.ways.len() - 1);
        self.ways.len() - 1
    }

    fn new_link(&self, from: usize, to: usize, impairment: Impairment) -> Link {
        Link::new(impairment, self.config.seed, &format!("{from} to {to}"), self.config.held_bytes_max)
    }

    fn impairment(&self, to: usize) -> Impairment {
        let sound = !self.config.back && self.ends[to].guest.is_some();
        if sound { Impairment::default() } else { self.config.impairment }
    }

    fn set_impairment(&mut self, index: usize) {
        let impairment = self.ways[index].own.unwrap_or_else(|| self.impairment(self.ways[index].to));
        self.ways[index].link.handle_impairment(impairment);
    }

    /// Which ends have something to read, after a sleep until then or until a datagram is due.
    fn wait(&self, ready: &mut Vec<usize>) -> nix::Result<()> {
        ready.clear();
        let until = self.due.peek().map(|Reverse((due, _))| Duration::from_nanos(due.since(self.now())));
        let mut asked = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        asked.extend(self.ends.iter().map(|end| PollFd::new(end.socket.as_fd(), PollFlags::POLLIN)));
        match ppoll(&mut asked, until.map(TimeSpec::from_duration), None::<SigSet>) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error),
        }
        let readable = asked[1..].iter().enumerate().filter(|(_, asked)| asked.any().unwrap_or(false));
        ready.extend(readable.map(|(end, _)| end));
        Ok(())
    }

    /// Takes what has come for one end, not all of it: the others and what is due have their turn.
    fn receive(&mut self, to: usize) {
        let mut datagram = std::mem::take(&mut self.datagram);
        for _ in 0..RECEIVE_MAX {
            let (len, from) = match self.ends[to].socket.recv_from(&mut datagram) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // An error of an earlier datagram, told late, is none of this socket's.
                Err(_) => break,
            };
            let now = self.now();
            let Some(from) = self.sender(now, plain(from), to) else {
                self.report.strangers += 1;
                continue;
            };
            let index = self.way(from, to);
            let way = &mut self.ways[index];
            let before = way.link.held_bytes();
            if self.held_bytes + len as u64 > self.config.held_bytes_max {
                (self.past.taken, self.past.refused) = (self.past.taken + 1, self.past.refused + 1);
                continue;
            }
            way.link.handle_datagram(now, &datagram[..len]);
            self.held_bytes = self.held_bytes + way.link.held_bytes() - before;
            self.send(index, now);
        }
        self.datagram = datagram;
    }

    /// Which end has this address; one that nobody knows may become an end of its own.
    fn sender(&mut self, now: Instant, from: SocketAddr, to: usize) -> Option<usize> {
        let known = self.by_real.get(&from).copied();
        if let Some(guest) = known.and_then(|end| self.ends[end].guest.as_mut()) {
            *guest = now;
        }
        if known.is_some() || !self.ends[to].admits {
            return known.filter(|end| *end != to);
        }
        let (socket, _) = bind(any(self.ends[to].real.unwrap_or(from))).ok()?;
        let end = End { socket, real: None, admits: false, guest: Some(now) };
        let index = match self.oldest_guest(now) {
            Some(index) if self.ends.len() >= ENDS_MAX => {
                self.forget(index);
                self.ends[index] = end;
                index
            }
            _ => self.add(end).ok()?,
        };
        self.set_real(index, from);
        Some(index)
    }

    /// The guest that has been silent the longest, and long enough to be gone.
    fn oldest_guest(&self, now: Instant) -> Option<usize> {
        let guests = self.ends.iter().enumerate().filter_map(|(index, end)| Some((end.guest?, index)));
        let (heard, index) = guests.min()?;
        (now.since(heard) > GUEST_SILENCE_NS).then_some(index)
    }

    /// The end is another's from now on.
    fn forget(&mut self, end: usize) {
        if let Some(real) = self.ends[end].real.take()
            && self.by_real.get(&real) == Some(&end)
        {
            self.by_real.remove(&real);
        }
        for index in 0..self.ways.len() {
            let (from, to) = (self.ways[index].from, self.ways[index].to);
            if from == end || to == end {
                let link = self.new_link(from, to, self.impairment(to));
                let way = &mut self.ways[index];
                self.past = self.past.and(way.link.tally());
                self.held_bytes -= way.link.held_bytes();
                (way.link, way.own) = (link, None);
            }
        }
    }

    fn send_due(&mut self) {
        let now = self.now();
        while let Some(Reverse((due, index))) = self.due.peek().copied() {
            if due > now {
                break;
            }
            self.due.pop();
            if self.ways[index].due == Some(due) {
                self.ways[index].due = None;
                self.send(index, now);
            }
        }
    }

    /// Sends what is due on one direction, and arranges when it is looked at again.
    fn send(&mut self, index: usize, now: Instant) {
        let way = &mut self.ways[index];
        let (from, to) = (&self.ends[way.from], &self.ends[way.to]);
        let before = way.link.held_bytes();
        while let Some(datagram) = way.link.poll_transmit(now) {
            let sent = to.real.is_some_and(|real| from.socket.send_to(datagram, real).is_ok());
            self.report.unsent += u64::from(!sent);
        }
        self.held_bytes = self.held_bytes + way.link.held_bytes() - before;
        let next = way.link.poll_timeout();
        if let Some(next) = next
            && way.due.is_none_or(|due| next < due)
        {
            way.due = Some(next);
            self.due.push(Reverse((next, index)));
        }
    }
}

/// An address as its bytes say, so that equal ones compare equal.
fn plain(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(address) => {
            let plain = (*address.ip(), address.port());
            // Link-local addresses mean nothing without their interface.
            if address.ip().is_unicast_link_local() { SocketAddr::V6(address) } else { plain.into() }
        }
        SocketAddr::V4(_) => address,
    }
}

const DATAGRAM_BYTES_MAX: usize = 65_536;
const BUFFER_BYTES: usize = 16 << 20;
const RECEIVE_MAX: usize = 64;
const GUEST_SILENCE_NS: u64 = 30_000_000_000;
