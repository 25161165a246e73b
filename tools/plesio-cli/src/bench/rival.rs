//! The rivals: plain TCP, and UDP with nothing but segmentation offload. The same memory, waits and counting as ours.

use super::figures::Worst;
use super::link::{Link, Received, Run, Wait, cpu_ns};
use super::memory::Memory;
use crate::failure::Failure;
use nix::sys::socket::{setsockopt, sockopt};
use plesio_memory::{Filling, Lease};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// A call that waits comes back so often to look for orders.
const WAIT_MAX: Duration = Duration::from_millis(20);
/// The other process has that long to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of one TCP call.
const CALL_BYTES_MAX: usize = 1 << 20;
/// Bytes of one UDP call: the largest datagram before it is cut into segments.
const TRAIN_BYTES_MAX: usize = 65_507;
/// Segments of one call at most.
const SEGMENTS_MAX: usize = 64;
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// A port that waits for the sender.
pub(crate) enum Port {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

pub(crate) enum Wire {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

fn broken(cause: impl std::fmt::Display) -> Failure {
    Failure::run("bench", "a rival's socket broke", cause)
}

impl Port {
    pub(crate) fn open(run: &Run) -> Result<Self, Failure> {
        let any = (Ipv4Addr::LOCALHOST, 0);
        Ok(match run.link {
            Link::UdpRaw => Self::Udp(udp(run)?),
            Link::Tcp | Link::Plesio => Self::Tcp(TcpListener::bind(any).map_err(broken)?),
        })
    }

    pub(crate) fn number(&self) -> Result<u16, Failure> {
        let address = match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        };
        address.map(|address| address.port()).map_err(broken)
    }

    /// Takes the other end: TCP the one that connects, UDP the one whose port was told.
    pub(crate) fn meet(self, run: &Run, port: u16) -> Result<Wire, Failure> {
        match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true).map_err(broken)?;
                let limit = Instant::now() + CONNECT_LIMIT;
                loop {
                    match listener.accept() {
                        Ok((stream, _)) => return tcp(run, stream).map(Wire::Tcp),
                        Err(cause) if cause.kind() == io::ErrorKind::WouldBlock && Instant::now() < limit => {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        Err(cause) => return Err(broken(cause)),
                    }
                }
            }
            Self::Udp(socket) => {
                socket.connect((Ipv4Addr::LOCALHOST, port)).map_err(broken)?;
                Ok(Wire::Udp(socket))
            }
        }
    }
}

fn udp(run: &Run) -> Result<UdpSocket, Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(broken)?;
    setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER_BYTES).map_err(broken)?;
    setsockopt(&socket, sockopt::SndBuf, &SOCKET_BUFFER_BYTES).map_err(broken)?;
    setsockopt(&socket, sockopt::UdpGroSegment, &true).map_err(broken)?;
    socket.set_nonblocking(run.wait == Wait::Spin).map_err(broken)?;
    socket.set_read_timeout(Some(WAIT_MAX)).map_err(broken)?;
    Ok(socket)
}

fn tcp(run: &Run, stream: TcpStream) -> Result<TcpStream, Failure> {
    setsockopt(&stream, sockopt::TcpCongestion, &OsString::from("cubic")).map_err(broken)?;
    stream.set_nodelay(true).map_err(broken)?;
    stream.set_nonblocking(run.wait == Wait::Spin).map_err(broken)?;
    stream.set_read_timeout(Some(WAIT_MAX)).map_err(broken)?;
    stream.set_write_timeout(Some(WAIT_MAX)).map_err(broken)?;
    Ok(stream)
}

/// Neither done nor broken: ask again.
fn again(cause: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(cause.kind(), Interrupted | TimedOut | WouldBlock)
}

impl Wire {
    /// The sender's end; `connect` says its own port, which a UDP receiver wants to know.
    pub(crate) fn connect(run: &Run, port: u16) -> Result<(Self, u16), Failure> {
        let to: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
        if run.link == Link::UdpRaw {
            let socket = udp(run)?;
            socket.connect(to).map_err(broken)?;
            let segment = i32::try_from(run.chunk_bytes.min(TRAIN_BYTES_MAX as u32)).unwrap_or(i32::MAX);
            setsockopt(&socket, sockopt::UdpGsoSegment, &segment).map_err(broken)?;
            let own = socket.local_addr().map_err(broken)?.port();
            return Ok((Self::Udp(socket), own));
        }
        let stream = TcpStream::connect(to).map_err(broken)?;
        let own = stream.local_addr().map_err(broken)?.port();
        Ok((Self::Tcp(tcp(run, stream)?), own))
    }

    /// Sends the working set round and round until told to stop.
    pub(crate) fn stream(
        &mut self,
        run: &Run,
        memory: &Memory,
        stop: impl Fn() -> bool,
    ) -> Result<u64, Failure> {
        let lease = memory.lease()?;
        let bytes = lease.as_bytes();
        let chunk = (run.chunk_bytes as usize).min(TRAIN_BYTES_MAX);
        let call = match self {
            Self::Tcp(_) => CALL_BYTES_MAX,
            Self::Udp(_) => (TRAIN_BYTES_MAX / chunk).clamp(1, SEGMENTS_MAX) * chunk,
        };
        let (mut at, mut sent) = (0, 0);
        while !stop() {
            let part = &bytes[at..bytes.len().min(at + call)];
            let taken = match self {
                Self::Tcp(stream) => stream.write(part),
                Self::Udp(socket) => socket.send(part),
            };
            match taken {
                Ok(taken) => {
                    sent += taken as u64;
                    at = (at + taken) % bytes.len();
                }
                Err(cause) if again(&cause) => {}
                Err(cause) => return Err(broken(cause)),
            }
        }
        if let Self::Tcp(stream) = self {
            // The receiver reads to the end; one that is gone has said so already.
            let _gone = stream.shutdown(std::net::Shutdown::Write);
        }
        Ok(sent)
    }

    /// Receives until the stream ends, or for UDP until told to stop and nothing more comes.
    pub(crate) fn take(
        &mut self,
        memory: &Memory,
        stop: impl Fn() -> bool,
    ) -> Result<(Received, Worst, u64), Failure> {
        let mut lease = memory.lease()?;
        let mut received = Received::default();
        let mut worst: Option<Worst> = None;
        let mut at = 0;
        loop {
            let taken = self.receive(&mut lease, at);
            match taken {
                Ok(0) => break,
                Ok(taken) => {
                    received.bytes += taken as u64;
                    received.messages += 1;
                    worst.get_or_insert_with(Worst::new).add(taken as u64);
                    at = (at + taken) % memory.region_bytes;
                }
                Err(cause) if again(&cause) => {
                    if stop() && matches!(self, Self::Udp(_)) {
                        break;
                    }
                }
                Err(cause) => return Err(broken(cause)),
            }
        }
        drop(lease);
        // The check of the bytes is not the link's work.
        let cpu = cpu_ns()?;
        if matches!(self, Self::Tcp(_)) {
            let len_bytes = received.bytes.min(memory.region_bytes as u64) as u32;
            received.wrong_bytes = memory.wrong(plesio_wire::Span { len_bytes, ..memory.whole() })?;
        }
        Ok((received, worst.unwrap_or_else(Worst::new), cpu))
    }

    fn receive(&mut self, lease: &mut Lease<Filling>, at: usize) -> io::Result<usize> {
        let bytes = lease.as_bytes_mut();
        match self {
            Self::Tcp(stream) => {
                let end = bytes.len().min(at + CALL_BYTES_MAX);
                stream.read(&mut bytes[at..end])
            }
            Self::Udp(socket) => {
                // A train that reaches past the end of the region begins at its start.
                let at = if at + TRAIN_BYTES_MAX > bytes.len() { 0 } else { at };
                let end = bytes.len().min(at + TRAIN_BYTES_MAX);
                socket.recv(&mut bytes[at..end])
            }
        }
    }
}
