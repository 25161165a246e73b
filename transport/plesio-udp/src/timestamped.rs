//! The sideband's socket: small datagrams ahead of all else, with the kernel's stamps of when they left and came.
//!
//! Stamps are software stamps on CLOCK_REALTIME. A card's own stamps are on the card's clock, which nothing here relates
//! to ours, so they are not asked for: that takes a reading of both clocks from the driver (PTP_SYS_OFFSET) and the right to
//! switch the card (SIOCSHWTSTAMP), and would take the interrupt's delay out of a clock that needs none of that precision: with the
//! kernel's stamps the error is below a microsecond where the path is symmetric (`plesio bench phase`), and a hundredth of a
//! frame costs nothing (`plesio sim --clock-error`).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{TimestampingFlag, setsockopt, sockopt};
use nix::sys::time::TimeSpec;

use crate::message::Message;
use crate::{IoError, OpenError, Ready, SendError, Waker, control, socket};

/// Longest datagram sent or received here; longer ones are dropped.
const DATAGRAM_BYTES_MAX: usize = 2048;
/// DSCP EF: expedited forwarding.
const TOS_EXPEDITED: i32 = 0xb8;
/// Ahead of bulk in the queues of this host.
const PRIORITY: i32 = 6;

/// Reports that are kept until they are asked for; what comes more waits in the kernel.
const REPORTS_MAX: usize = 64;

/// Whose clock reading a stamp is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StampKind {
    /// The program's, around the call.
    User,
    /// The kernel's, at the interface.
    Kernel,
}

/// A datagram that has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Received {
    /// Its length.
    pub len: usize,
    /// Its sender.
    pub from: SocketAddr,
    /// When the kernel took it in, CLOCK_REALTIME nanoseconds.
    pub stamp_realtime_ns: Option<i64>,
}

/// What the kernel says of datagrams after it took them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Report {
    /// One left.
    Left {
        /// Its number, as [`TimestampedSocket::send_to`] gave it.
        id: u32,
        /// When, CLOCK_REALTIME nanoseconds.
        stamp_realtime_ns: i64,
    },
    /// The host there says that nobody listens at that port (port unreachable). Nothing shows that it is true.
    Refused {
        /// Where it was sent.
        to: SocketAddr,
    },
}

/// A non-blocking socket with stamps.
pub struct TimestampedSocket {
    socket: OwnedFd,
    address: SocketAddr,
    stamps: StampKind,
    waker: Waker,
    incoming: Message,
    outgoing: Message,
    error: Message,
    /// Taken from the kernel, and not yet asked for.
    reports: VecDeque<Report>,
    /// Number of the next datagram that is sent.
    id_next: u32,
    /// Number of the datagram that the kernel counts as its first.
    id_base: u32,
    write_wanted: bool,
}

impl TimestampedSocket {
    /// Opens the port; whoever sends plaintext over it keeps to this host by itself. The sentences are to be said once.
    ///
    /// # Errors
    /// A taken port, or a kernel that refuses.
    pub fn bind(address: SocketAddr) -> Result<(Self, Vec<String>), OpenError> {
        let mut notes = Vec::new();
        let socket = socket::open_plain(address)?;
        let marked = if address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4Tos, &TOS_EXPEDITED)
        } else {
            setsockopt(&socket, sockopt::Ipv6TClass, &TOS_EXPEDITED)
        };
        if let Err(cause) = marked {
            notes.push(format!(
                "sideband: no expedited forwarding ({}); it queues with other traffic",
                cause.desc()
            ));
        }
        if let Err(cause) = setsockopt(&socket, sockopt::Priority, &PRIORITY) {
            notes.push(format!("sideband: no priority ({}); it queues with other traffic", cause.desc()));
        }
        let stamps = match setsockopt(&socket, sockopt::Timestamping, &stamp_flags()) {
            Ok(()) => StampKind::Kernel,
            Err(cause) => {
                notes.push(format!(
                    "sideband: no kernel time stamps ({}); the program's own cost 50 us of clock bound",
                    cause.desc()
                ));
                StampKind::User
            }
        };
        let told = if address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)
        };
        if let Err(cause) = told {
            notes.push(format!(
                "sideband: refusals are not told ({}); a process that ends is missed by its silence alone",
                cause.desc()
            ));
        }
        socket::bind_to(&socket, address)?;
        let bound = socket::local_address(&socket, address)?;
        let waker = Waker::new().map_err(socket::system("eventfd", address))?;
        let mut incoming = Message::new(None, 0, DATAGRAM_BYTES_MAX + 1);
        incoming.push_aside(0..DATAGRAM_BYTES_MAX + 1);
        let new = Self {
            socket,
            address: bound,
            stamps,
            waker,
            incoming,
            outgoing: Message::new(None, 0, DATAGRAM_BYTES_MAX),
            error: Message::new(None, 0, 0),
            reports: VecDeque::with_capacity(REPORTS_MAX),
            id_next: 0,
            id_base: 0,
            write_wanted: false,
        };
        Ok((new, notes))
    }

    /// Our address, with the port the kernel chose.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Whose stamps there are.
    #[must_use]
    pub fn stamps(&self) -> StampKind {
        self.stamps
    }

    /// Does without the kernel's stamps from here on: to measure what they are worth.
    pub fn forgo_stamps(&mut self) {
        // Stamps that come all the same are taken and thrown away.
        let _kept = setsockopt(&self.socket, sockopt::Timestamping, &TimestampingFlag::empty());
        self.stamps = StampKind::User;
    }

    /// Ends a [`Self::wait`] from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Sends one datagram. Its number comes back with its stamp.
    ///
    /// # Errors
    /// It was not sent.
    pub fn send_to(&mut self, bytes: &[u8], to: SocketAddr) -> Result<u32, SendError> {
        let len_bytes = bytes.len();
        if len_bytes > DATAGRAM_BYTES_MAX {
            return Err(SendError::TooLarge { len_bytes });
        }
        self.outgoing.clear();
        self.outgoing.aside_mut()[..len_bytes].copy_from_slice(bytes);
        self.outgoing.push_aside(0..len_bytes);
        self.outgoing.set_to(to);
        let mut sent = self.outgoing.send(self.socket.as_raw_fd());
        if let Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) = sent {
            // That may be told of an earlier datagram, to somebody else, and this one was not even tried.
            self.renumber();
            sent = self.outgoing.send(self.socket.as_raw_fd());
        }
        match sent {
            Ok(_) => {
                let id = self.id_next;
                self.id_next = self.id_next.wrapping_add(1);
                Ok(id)
            }
            Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                self.renumber();
                self.write_wanted = true;
                Err(SendError::WouldBlock)
            }
            Err(cause) => {
                self.renumber();
                Err(match cause {
                    Errno::EMSGSIZE => SendError::TooLarge { len_bytes },
                    Errno::ECONNREFUSED => SendError::Unreachable,
                    cause => SendError::System { cause },
                })
            }
        }
    }

    /// Takes one datagram; `None`: nothing waits.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn recv_from(&mut self, into: &mut [u8]) -> Result<Option<Received>, IoError> {
        // Bounded: each turn takes something from the socket, and the caller has other work.
        for _ in 0..64 {
            let len = match self.incoming.receive(self.socket.as_raw_fd(), 0) {
                Ok(len) => len,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR | Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => {
                    continue;
                }
                Err(cause) => return Err(IoError { step: "recvmsg", cause }),
            };
            let Some(from) = self.incoming.from() else { continue };
            if len > into.len() || len > DATAGRAM_BYTES_MAX {
                continue;
            }
            into[..len].copy_from_slice(&self.incoming.aside()[..len]);
            let stamp_realtime_ns = (self.stamps == StampKind::Kernel)
                .then(|| control::stamp_ns(self.incoming.control()))
                .flatten();
            return Ok(Some(Received { len, from, stamp_realtime_ns }));
        }
        Ok(None)
    }

    /// What became of datagrams that were sent, oldest first. `None`: nothing more is known.
    pub fn poll_report(&mut self) -> Option<Report> {
        if self.reports.is_empty() {
            self.gather();
        }
        self.reports.pop_front()
    }

    /// Waits for a datagram, a report, room after a full buffer, or the waker. `None` waits for ever. Reports
    /// end the wait until [`Self::poll_report`] has taken all.
    ///
    /// # Errors
    /// The system refuses to wait.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Ready, IoError> {
        let mut interest = PollFlags::POLLIN;
        interest.set(PollFlags::POLLOUT, self.write_wanted);
        let mut polled =
            [PollFd::new(self.socket.as_fd(), interest), PollFd::new(self.waker.as_fd(), PollFlags::POLLIN)];
        let timeout = if self.reports.is_empty() { timeout } else { Some(Duration::ZERO) };
        match ppoll(&mut polled, timeout.map(TimeSpec::from_duration), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(cause) => return Err(IoError { step: "ppoll", cause }),
        }
        let found = polled[0].revents().unwrap_or(PollFlags::empty());
        let woken = polled[1].any().unwrap_or(false);
        if woken {
            self.waker.clear();
        }
        let writable = found.contains(PollFlags::POLLOUT);
        self.write_wanted &= !writable;
        let mut ready = Ready {
            readable: found.contains(PollFlags::POLLIN),
            writable,
            woken,
            reports: found.contains(PollFlags::POLLERR) || !self.reports.is_empty(),
            timed_out: false,
        };
        ready.timed_out = ready == Ready::default();
        Ok(ready)
    }

    /// Takes the kernel's reports, as many as are kept.
    fn gather(&mut self) {
        while self.reports.len() < REPORTS_MAX {
            self.error.clear();
            if self.error.receive(self.socket.as_raw_fd(), libc::MSG_ERRQUEUE).is_err() {
                return;
            }
            let control = self.error.control();
            if let (Some(id), Some(stamp_realtime_ns)) =
                (control::stamp_id(control), control::stamp_ns(control))
            {
                let id = self.id_base.wrapping_add(id);
                self.reports.push_back(Report::Left { id, stamp_realtime_ns });
            } else if let Some(to) = self.error.from().filter(|_| control::is_refusal(control)) {
                self.reports.push_back(Report::Refused { to });
            }
        }
    }

    /// A send that failed may or may not have used a number: numbering starts again, and stamps of datagrams before this
    /// one are given up.
    fn renumber(&mut self) {
        self.gather();
        if self.stamps == StampKind::User {
            return;
        }
        let reset = setsockopt(&self.socket, sockopt::Timestamping, &TimestampingFlag::empty())
            .and_then(|()| setsockopt(&self.socket, sockopt::Timestamping, &stamp_flags()));
        self.id_base = self.id_next;
        if reset.is_err() {
            self.stamps = StampKind::User;
        }
    }
}

fn stamp_flags() -> TimestampingFlag {
    TimestampingFlag::from_bits_retain(
        libc::SOF_TIMESTAMPING_SOFTWARE
            | libc::SOF_TIMESTAMPING_RX_SOFTWARE
            | libc::SOF_TIMESTAMPING_TX_SOFTWARE
            | libc::SOF_TIMESTAMPING_OPT_ID
            | libc::SOF_TIMESTAMPING_OPT_TSONLY,
    )
}
