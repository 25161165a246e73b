//! Choosing a backend by trying it, and saying why.

use core::fmt;
use core::str::FromStr;
use std::os::fd::AsRawFd;

use plesio_memory::Arena;

use crate::endpoint::Endpoint;
use crate::message::Message;
use crate::mio_engine::MioEngine;
use crate::uring::{Reading, UringEngine};
use crate::{DatagramIo, OpenError, Placement, SocketConfig, Waker, control, socket};

/// What the user asks for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Requested {
    /// The best that works.
    #[default]
    Auto,
    /// io_uring of Linux 6.1 and later, or nothing.
    Uring,
    /// io_uring as of Linux 5.10, or nothing.
    UringLegacy,
    /// mio.
    Mio,
}

impl FromStr for Requested {
    type Err = OpenError;

    fn from_str(text: &str) -> Result<Self, OpenError> {
        match text {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "uring-legacy" => Ok(Self::UringLegacy),
            "mio" => Ok(Self::Mio),
            _ => Err(OpenError::Backend {
                reason: format!("`{}` is none of auto, uring, uring-legacy, mio", text.escape_debug()),
            }),
        }
    }
}

impl fmt::Display for Requested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::UringLegacy => "uring-legacy",
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
    /// io_uring with single calls and no flags of newer kernels.
    UringLegacy,
    /// epoll.
    Mio,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "uring",
            Self::UringLegacy => "uring-legacy",
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
    choose(requested, true, 1).map(|(_, probe)| probe)
}

/// Opens the data port. To be called on the thread that will drive it.
///
/// # Errors
/// An address off this host, a taken port, or a backend that was asked for and does not work.
pub fn open(requested: Requested, config: &SocketConfig, arena: Arena) -> Result<Opened, OpenError> {
    let waker = Waker::new().map_err(socket::system("eventfd", config.bind))?;
    let lanes_max = usize::from(config.peers_max) + 1;
    let scatter = config.placement == Placement::Scatter;
    let (ring, probe) = choose(requested, scatter, lanes_max)?;
    let (io, notes): (Box<dyn DatagramIo>, Vec<String>) = match ring {
        Some(ring) => {
            let registered = ring.register(&arena);
            let (endpoint, mut notes) = Endpoint::open(ring, waker, config, arena, scatter)?;
            notes.push(registered);
            (Box::new(endpoint), notes)
        }
        None => {
            let engine = MioEngine::new(&waker, lanes_max).map_err(socket::system("epoll", config.bind))?;
            let (endpoint, notes) = Endpoint::open(engine, waker, config, arena, scatter)?;
            (Box::new(endpoint), notes)
        }
    };
    Ok(Opened { io, probe, notes })
}

fn choose(
    requested: Requested,
    scatter: bool,
    lanes_max: usize,
) -> Result<(Option<UringEngine>, Probe), OpenError> {
    let mut reasons = Vec::new();
    for (tier, wanted, what) in [
        (
            Tier::Uring,
            requested == Requested::Uring,
            "io_uring with deferred task work, buffer rings and lasting receives works",
        ),
        (Tier::UringLegacy, requested == Requested::UringLegacy, "io_uring with RECVMSG and polls works"),
    ] {
        if !wanted && requested != Requested::Auto {
            continue;
        }
        match try_ring(tier, scatter, lanes_max) {
            Ok(ring) => {
                reasons.push(what.to_owned());
                return Ok((Some(ring), Probe { tier, reason: reasons.join("; ") }));
            }
            Err(reason) if wanted => return Err(OpenError::Backend { reason }),
            Err(reason) => reasons.push(reason),
        }
    }
    if requested == Requested::Mio {
        reasons.push("asked for".into());
    }
    // A ring that is refused is refused for one reason: it need not be told for each tier.
    reasons.dedup();
    Ok((None, Probe { tier: Tier::Mio, reason: reasons.join("; ") }))
}

fn try_ring(tier: Tier, scatter: bool, lanes_max: usize) -> Result<UringEngine, String> {
    let reading = match tier {
        _ if scatter => Reading::Scatter,
        Tier::Uring => Reading::Lasting,
        Tier::UringLegacy | Tier::Mio => Reading::Single,
    };
    // What lasting receives need is part of the tier, whether or not this port uses them.
    if tier == Tier::Uring && reading != Reading::Lasting {
        drop(UringEngine::new(1, tier, Reading::Lasting)?);
    }
    let mut ring = UringEngine::new(lanes_max, tier, reading)?;
    carries_trains(&mut ring)?;
    Ok(ring)
}

/// Receives a train through the ring and sees whether the kernel tells how it is cut: older ones drop the control message
/// that says so.
fn carries_trains(ring: &mut UringEngine) -> Result<(), String> {
    let (from, to) = match socket::pair() {
        Ok(Some(pair)) => pair,
        // Without offload or loopback there is nothing to be lost.
        Ok(None) | Err(_) => return Ok(()),
    };
    let mut train = Message::new(None, 0, 2 * TRIAL_BYTES);
    train.push_aside(0..2 * TRIAL_BYTES);
    train.set_segment(TRIAL_BYTES as u16);
    if train.send(from.as_raw_fd()).is_err() {
        return Ok(());
    }
    let mut came = [Message::new(None, 0, 2 * TRIAL_BYTES)];
    came[0].push_aside(0..2 * TRIAL_BYTES);
    let mut lens = [0];
    ring.read(to.as_raw_fd(), &mut came, &mut lens)
        .map_err(|error| format!("io_uring refuses trains: {}", error.desc()))?;
    match (lens, control::segment_bytes(came[0].control())) {
        ([len_bytes], Some(TRIAL_BYTES)) if len_bytes == 2 * TRIAL_BYTES => Ok(()),
        other => Err(format!("io_uring does not tell how a train is cut: {other:?}")),
    }
}

const TRIAL_BYTES: usize = 64;
