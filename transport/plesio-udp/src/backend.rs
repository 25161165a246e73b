//! Choosing a backend by trying it, and saying why.

use core::fmt;
use core::str::FromStr;

use plesio_memory::Arena;

use crate::endpoint::Endpoint;
use crate::mio_engine::MioEngine;
use crate::uring::UringEngine;
use crate::{DatagramIo, OpenError, SocketConfig, Waker, socket};

/// What the user asks for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Requested {
    /// The best that works.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// mio.
    Mio,
}

impl FromStr for Requested {
    type Err = OpenError;

    fn from_str(text: &str) -> Result<Self, OpenError> {
        match text {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "mio" => Ok(Self::Mio),
            _ => Err(OpenError::Backend {
                reason: format!("`{}` is none of auto, uring, mio", text.escape_debug()),
            }),
        }
    }
}

impl fmt::Display for Requested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Mio => "mio",
        })
    }
}

/// What is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Tier {
    /// io_uring with deferred task work and a single issuer (Linux 6.1 and later).
    Uring,
    /// epoll.
    Mio,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "uring",
            Self::Mio => "mio",
        })
    }
}

/// The choice and its reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Probe {
    /// What is used.
    pub tier: Tier,
    /// Why, in a sentence.
    pub reason: String,
}

/// An open data port.
pub struct Opened {
    /// The port.
    pub io: Box<dyn DatagramIo>,
    /// Which backend, and why.
    pub probe: Probe,
    /// What to say once: capped buffers, refused offloads, a fallback.
    pub notes: Vec<String>,
}

/// Says which backend a request leads to here, by trying it.
///
/// # Errors
/// io_uring was asked for and does not work.
pub fn probe(requested: Requested) -> Result<Probe, OpenError> {
    choose(requested, 1).map(|(_, probe)| probe)
}

/// Opens the data port. To be called on the thread that will drive it.
///
/// # Errors
/// An address off this host, a taken port, or a backend that was asked for and does not work.
pub fn open(requested: Requested, config: &SocketConfig, arena: Arena) -> Result<Opened, OpenError> {
    let waker = Waker::new().map_err(socket::system("eventfd", config.bind))?;
    let lanes_max = usize::from(config.peers_max) + 1;
    let (ring, probe) = choose(requested, lanes_max)?;
    let (io, notes): (Box<dyn DatagramIo>, Vec<String>) = match ring {
        Some(ring) => {
            let (endpoint, notes) = Endpoint::open(ring, waker, config, arena)?;
            (Box::new(endpoint), notes)
        }
        None => {
            let engine = MioEngine::new(&waker, lanes_max).map_err(socket::system("epoll", config.bind))?;
            let (endpoint, notes) = Endpoint::open(engine, waker, config, arena)?;
            (Box::new(endpoint), notes)
        }
    };
    Ok(Opened { io, probe, notes })
}

fn choose(requested: Requested, lanes_max: usize) -> Result<(Option<UringEngine>, Probe), OpenError> {
    if requested == Requested::Mio {
        return Ok((None, Probe { tier: Tier::Mio, reason: "asked for".into() }));
    }
    match (UringEngine::new(lanes_max), requested) {
        (Ok(ring), _) => {
            let reason = "io_uring with deferred task work, RECVMSG, SENDMSG and polls works".into();
            Ok((Some(ring), Probe { tier: Tier::Uring, reason }))
        }
        (Err(reason), Requested::Uring) => Err(OpenError::Backend { reason }),
        (Err(reason), _) => Ok((None, Probe { tier: Tier::Mio, reason })),
    }
}
