//! What can go wrong with sockets: when one is opened, when something is sent, and when one is waited for.

use core::fmt;
use std::net::SocketAddr;

use nix::errno::Errno;
use plesio_memory::AccessError;
use plesio_session::SealError;

/// A socket or backend cannot be had.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OpenError {
    /// Plaintext datagrams stay on this host.
    OffHost {
        /// The address that is not a loopback address.
        address: SocketAddr,
    },
    /// Another socket has the port.
    InUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The peer's address is not of the family of our own.
    Family {
        /// The peer's.
        address: SocketAddr,
    },
    /// No more peers fit.
    TooManyPeers {
        /// As many as there are.
        peers_max: u16,
    },
    /// The backend that was asked for does not work here.
    Backend {
        /// Which, and what the kernel said.
        reason: String,
    },
    /// The kernel refused a step.
    System {
        /// The step.
        step: &'static str,
        /// For which address.
        address: SocketAddr,
        /// Its answer.
        cause: Errno,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OffHost { address } => write!(
                f,
                "socket {address}: plaintext datagrams stay on this host; protect them, use an address of 127.0.0.0/8 or ::1, or say that the network is captive"
            ),
            Self::InUse { address } => {
                write!(
                    f,
                    "socket {address}: the port is taken; choose another or stop the program that holds it"
                )
            }
            Self::Family { address } => {
                write!(f, "peer {address}: not of our socket's address family; use IPv4 or IPv6 for all")
            }
            Self::TooManyPeers { peers_max } => {
                write!(
                    f,
                    "socket: no room for more than {peers_max} peers; raise the limit in the configuration"
                )
            }
            Self::Backend { reason } => write!(f, "backend: {reason}; use `--backend auto`"),
            Self::System { step, address, cause } => {
                write!(
                    f,
                    "socket {address}: {step} failed: {}; check the address and the limits",
                    cause.desc()
                )
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// Something was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SendError {
    /// The socket's buffer is full; try again when [`wait`](crate::DatagramIo::wait) says writable.
    WouldBlock,
    /// One datagram is longer than the path or the buffer allows; use smaller chunks.
    TooLarge {
        /// Bytes with the header.
        len_bytes: usize,
    },
    /// There is no such peer; it was removed.
    UnknownPeer,
    /// The payload's memory is being written, or the span is wrong.
    Access(AccessError),
    /// It cannot be sealed: there is no session with the peer yet, or its keys are used up.
    Seal(SealError),
    /// Nobody listens at the peer's address; it may have ended.
    Unreachable,
    /// The kernel refused.
    System {
        /// Its answer.
        cause: Errno,
    },
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("send: the socket's buffer is full; retry when it is writable"),
            Self::TooLarge { len_bytes } => {
                write!(f, "send: a datagram of {len_bytes} bytes does not fit the path; use smaller chunks")
            }
            Self::UnknownPeer => f.write_str("send: no such peer; it was removed"),
            Self::Access(cause) => write!(f, "send: the payload cannot be read: {cause}"),
            Self::Seal(cause) => write!(f, "send: the datagram cannot be sealed: {cause}"),
            Self::Unreachable => f.write_str("send: nobody listens at the peer's address; it may have ended"),
            Self::System { cause } => {
                write!(f, "send: the kernel refused: {}; check address and route", cause.desc())
            }
        }
    }
}

impl std::error::Error for SendError {}

impl From<SealError> for SendError {
    fn from(cause: SealError) -> Self {
        Self::Seal(cause)
    }
}

impl From<AccessError> for SendError {
    fn from(cause: AccessError) -> Self {
        Self::Access(cause)
    }
}

/// Waiting or receiving failed in a way that does not pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IoError {
    /// The call.
    pub step: &'static str,
    /// The kernel's answer.
    pub cause: Errno,
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "socket: {} failed: {}; restart the node", self.step, self.cause.desc())
    }
}

impl std::error::Error for IoError {}
