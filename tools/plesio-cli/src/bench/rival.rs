//! The rivals: plain TCP, and UDP with nothing but segmentation offload. The same memory, waits and counting as ours.
//!
//! One way and asleep they use calls that block, which is what serves them best; else they never block, and wait as
//! ours do.

mod echo;

use super::figures::Stretches;
use super::link::{Half, Link, Run, STALL_LIMIT, Wait, What};
use super::memory::Memory;
use super::ours::{WAIT_MAX, stalled};
use super::worker::Steps;
use crate::failure::Failure;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use plesio_memory::{Filling, Lease};
use plesio_udp::Waiter;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// The other process has that long to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of one TCP call.
const CALL_BYTES_MAX: usize = 1 << 20;
/// Bytes of one UDP call: the largest datagram before it is cut into segments.
const TRAIN_BYTES_MAX: usize = 65_507;
/// Segments of one call at most.
const SEGMENTS_MAX: usize = 64;
/// What every path of IPv6 carries, where the kernel does not say more.
pub(crate) const SEGMENT_BYTES_SURE: usize = 1_232;
/// Of IPv4 and UDP.
const HEADERS_BYTES: usize = 28;
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Where a rival waits for its other end.
enum Port {
    Listen(TcpListener),
    /// It connects, from a port that the kernel chooses.
    Connect,
    Udp(UdpSocket),
}

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

struct Wire {
    socket: Socket,
    /// What one datagram of raw UDP carries.
    segment_bytes: usize,
    /// Calls sleep in the kernel themselves.
    blocks: bool,
    /// Nothing sleeps: the next call is the wait.
    spins: bool,
    waiter: Waiter,
    /// Takes trains where the working set is smaller than one.
    aside: Vec<u8>,
}

fn broken(cause: impl std::fmt::Display) -> Failure {
    Failure::run("bench", "a rival's socket broke", cause)
}

/// Neither done nor broken: ask again.
fn again(cause: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, TimedOut, WouldBlock};
    // Refused: an earlier datagram found nobody; UDP goes on, and TCP cannot get it here.
    matches!(cause.kind(), ConnectionRefused | Interrupted | TimedOut | WouldBlock)
}

/// Both ends of both patterns, from the first socket to the end.
pub(crate) fn run(
    run: &Run,
    [out, into]: [Option<&Memory>; 2],
    steps: &Steps,
) -> Result<(Half, Stretches), Failure> {
    let port = Port::open(run, steps.begins())?;
    let (address, _) = steps.meet(port.number()?, String::new())?;
    steps.ready();
    let mut wire = port.meet(run, address)?;
    let mut half = Half { tier: "socket".into(), ..Half::default() };
    let mut stretches = Stretches::new(steps.begin());
    if run.link == Link::Tcp {
        stretches.open();
    }
    match (run.what, out, into) {
        (What::Pingpong, Some(out), Some(into)) if steps.begins() => {
            wire.ask(run, [out, into], steps, &mut half)?;
        }
        (What::Pingpong, _, Some(into)) => wire.answer(run, into, steps, &mut half)?,
        _ => wire.stream(run, [out, into], steps, &mut half, &mut stretches)?,
    }
    Ok((half, stretches))
}

impl Port {
    fn open(run: &Run, begins: bool) -> Result<Self, Failure> {
        let any = SocketAddr::new(run.bind, 0);
        Ok(match run.link {
            Link::UdpRaw => {
                let socket = UdpSocket::bind(any).map_err(broken)?;
                setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER_BYTES).map_err(broken)?;
                setsockopt(&socket, sockopt::SndBuf, &SOCKET_BUFFER_BYTES).map_err(broken)?;
                if run.what == What::Stream {
                    setsockopt(&socket, sockopt::UdpGroSegment, &true).map_err(broken)?;
                }
                Self::Udp(socket)
            }
            _ if begins => Self::Connect,
            _ => Self::Listen(TcpListener::bind(any).map_err(broken)?),
        })
    }

    fn number(&self) -> Result<u16, Failure> {
        let address = match self {
            Self::Listen(listener) => listener.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
            Self::Connect => return Ok(0),
        };
        address.map(|address| address.port()).map_err(broken)
    }

    /// Takes the other end: TCP the one that connects from its address, UDP the one whose port was told.
    fn meet(self, run: &Run, other: SocketAddr) -> Result<Wire, Failure> {
        let mut segment_bytes = 0;
        let socket = match self {
            Self::Connect => Socket::Tcp(TcpStream::connect_timeout(&other, CONNECT_LIMIT).map_err(broken)?),
            Self::Listen(listener) => Socket::Tcp(accept(&listener, other)?),
            Self::Udp(socket) => {
                socket.connect(other).map_err(broken)?;
                // Before a bad path on this machine the kernel knows no more than the way there.
                segment_bytes = (run.bytes as usize).min(if run.search && !run.relayed {
                    path_bytes(&socket)
                } else {
                    run.chunk_bytes as usize
                });
                segment_bytes = segment_bytes.min(TRAIN_BYTES_MAX);
                if run.what == What::Stream {
                    let segment = segment_bytes as i32; // below 65,536
                    setsockopt(&socket, sockopt::UdpGsoSegment, &segment).map_err(broken)?;
                }
                Socket::Udp(socket)
            }
        };
        let blocks = run.wait == Wait::Block && (run.what == What::Pingpong || !run.both);
        match &socket {
            Socket::Tcp(stream) => {
                setsockopt(stream, sockopt::TcpCongestion, &OsString::from("cubic")).map_err(broken)?;
                stream.set_nodelay(run.what == What::Pingpong).map_err(broken)?;
                stream.set_nonblocking(!blocks).map_err(broken)?;
                stream.set_read_timeout(Some(WAIT_MAX)).map_err(broken)?;
                stream.set_write_timeout(Some(WAIT_MAX)).map_err(broken)?;
            }
            Socket::Udp(socket) => {
                socket.set_nonblocking(!blocks).map_err(broken)?;
                socket.set_read_timeout(Some(WAIT_MAX)).map_err(broken)?;
            }
        }
        let spins = run.wait == Wait::Spin;
        Ok(Wire {
            socket,
            segment_bytes,
            blocks,
            spins,
            waiter: Waiter::new(run.wait.mode()),
            aside: Vec::new(),
        })
    }
}

/// Only from the host that was told: another that connects is let go.
fn accept(listener: &TcpListener, other: SocketAddr) -> Result<TcpStream, Failure> {
    listener.set_nonblocking(true).map_err(broken)?;
    let limit = Instant::now() + CONNECT_LIMIT;
    loop {
        match listener.accept() {
            Ok((stream, from)) if from.ip() == other.ip() => return Ok(stream),
            Ok(_) => {}
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
            Err(cause) => return Err(broken(cause)),
        }
        if Instant::now() > limit {
            return Err(broken("nobody connected to it in time"));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// What the path of a connected socket carries in one datagram, as far as the kernel knows; none where it does not say.
pub(crate) fn known_path_bytes(socket: &UdpSocket) -> Option<usize> {
    let mtu = getsockopt(socket, sockopt::IpMtu).ok().and_then(|mtu| usize::try_from(mtu).ok())?;
    Some(mtu.saturating_sub(HEADERS_BYTES).clamp(64, TRAIN_BYTES_MAX))
}

fn path_bytes(socket: &UdpSocket) -> usize {
    known_path_bytes(socket).unwrap_or(SEGMENT_BYTES_SURE)
}

impl Wire {
    fn fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Udp(socket) => socket.as_fd(),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Udp(socket) => socket.send(bytes),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.read(into),
            Socket::Udp(socket) => socket.recv(into),
        }
    }

    const fn is_tcp(&self) -> bool {
        matches!(self.socket, Socket::Tcp(_))
    }

    /// Until the socket takes or gives again, as the mode says.
    fn wait(&mut self, flags: PollFlags) -> Result<(), Failure> {
        if self.spins {
            return Ok(());
        }
        let mut waiter = std::mem::replace(&mut self.waiter, Waiter::new(plesio_udp::WaitMode::Block));
        let fd = self.fd();
        let look = |limit: Duration| {
            let millis = PollTimeout::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(fd, flags)], millis) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => Ok(None),
                Ok(_) => Ok(Some(())),
                Err(cause) => Err(broken(cause)),
            }
        };
        let found = waiter.wait(WAIT_MAX, look);
        self.waiter = waiter;
        found.map(drop)
    }

    /// Walks the working sets round and round until the time is over: out, in, or both.
    fn stream(
        &mut self,
        run: &Run,
        [out, into]: [Option<&Memory>; 2],
        steps: &Steps,
        half: &mut Half,
        stretches: &mut Stretches,
    ) -> Result<(), Failure> {
        let (start, length) = (Instant::now(), Duration::from_secs_f64(run.seconds));
        let mut stopped: Option<Instant> = None;
        let mut out = out.map(Memory::lease).transpose()?;
        let mut into = into.map(Memory::lease).transpose()?;
        let segment = self.segment_bytes;
        half.chunk_bytes = segment as u32;
        let call_bytes = match self.socket {
            Socket::Tcp(_) => CALL_BYTES_MAX.min(run.bytes as usize),
            Socket::Udp(_) => (TRAIN_BYTES_MAX / segment).clamp(1, SEGMENTS_MAX) * segment,
        };
        let (mut at_out, mut at_into) = (0, 0);
        let mut wrote = Instant::now();
        while out.is_some() || into.is_some() {
            let mut moved = false;
            if let Some(lease) = &out {
                let bytes = lease.as_bytes();
                if start.elapsed() >= length || steps.over() || steps.stop() {
                    out = None;
                    self.finish();
                    steps.sent();
                    continue;
                }
                let end = bytes.len().min(at_out + call_bytes);
                match self.write(&bytes[at_out..end]) {
                    Ok(taken) => {
                        half.sent_bytes += taken as u64;
                        at_out = (at_out + taken) % bytes.len();
                        wrote = Instant::now();
                        moved = true;
                    }
                    Err(cause) if again(&cause) && wrote.elapsed() < STALL_LIMIT => {}
                    Err(cause) if again(&cause) => return Err(stalled(run)),
                    Err(cause) => return Err(broken(cause)),
                }
            }
            if steps.stop() && into.is_some() {
                let since = *stopped.get_or_insert_with(Instant::now);
                // A stream ends with its end, on a slow path later than that is waited for.
                if since.elapsed() > run.drain_limit() {
                    into = None;
                    continue;
                }
            }
            if let Some(lease) = &mut into {
                match self.receive(lease, at_into) {
                    Ok(0) if self.is_tcp() => {
                        into = None;
                        continue;
                    }
                    Ok(taken) => {
                        half.received_bytes += taken as u64;
                        stretches.add(taken as u64);
                        at_into = (at_into + taken) % lease.as_bytes().len();
                        moved = true;
                    }
                    // What is still on its way to a stream ends with its end, other datagrams with the path's time.
                    Err(cause) if again(&cause) => {
                        let quiet = stopped.is_some_and(|since| since.elapsed() >= run.round_trip());
                        if quiet && (!self.is_tcp() || out.is_some()) {
                            into = None;
                            continue;
                        }
                    }
                    Err(cause) => return Err(broken(cause)),
                }
            }
            if !moved && !self.blocks {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::POLLOUT, out.is_some());
                flags.set(PollFlags::POLLIN, into.is_some());
                self.wait(flags)?;
            }
        }
        half.messages = half.received_bytes / u64::from(run.bytes);
        Ok(())
    }

    /// Tells the other end that no more comes.
    fn finish(&mut self) {
        if let Socket::Tcp(stream) = &self.socket {
            // The receiver reads to the end; one that is gone has said so already.
            let _gone = stream.shutdown(std::net::Shutdown::Write);
        }
    }

    fn receive(&mut self, lease: &mut Lease<Filling>, at: usize) -> io::Result<usize> {
        let bytes = lease.as_bytes_mut();
        if self.is_tcp() {
            let end = bytes.len().min(at + CALL_BYTES_MAX);
            return self.read(&mut bytes[at..end]);
        }
        if bytes.len() < TRAIN_BYTES_MAX {
            let mut aside = std::mem::take(&mut self.aside);
            aside.resize(TRAIN_BYTES_MAX, 0);
            let taken = self.read(&mut aside);
            self.aside = aside;
            return taken;
        }
        // A train that reaches past the end of the region begins at its start.
        let at = if at + TRAIN_BYTES_MAX > bytes.len() { 0 } else { at };
        self.read(&mut bytes[at..at + TRAIN_BYTES_MAX])
    }
}
