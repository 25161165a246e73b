//! `--connect`: the way to a machine that listens.

use super::control::{ANSWER_BYTES_MAX, Broken, Secret, Side, greet};
use super::ends::Ends;
use super::link::Mode;
use super::rival;
use crate::args::{BenchArgs, TrustArg};
use crate::failure::Failure;
use plesio_wire::data::{HEADER_BYTES, TAG_BYTES};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub(crate) fn is_here(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// What goes between machines is sealed with a key that both hold, or their owner says that nobody else is there.
pub(crate) fn allow(args: &BenchArgs, ip: IpAddr, listens: bool) -> Result<(), Failure> {
    let captive = args.trust == Some(TrustArg::Captive);
    let modes = args.protection.modes();
    if modes.contains(&Mode::Plaintext) && !captive && !is_here(ip) {
        let cause = format!("{ip} is not this machine, and plaintext can be read and altered on the way");
        return Err(Failure::usage("plaintext", "cannot measure plaintext off this machine", cause)
            .fix("say --trust captive if nobody else is on that network"));
    }
    // Who listens serves what comes; a sealed run without a key is refused there.
    let wants_key = if listens { !captive && !is_here(ip) } else { modes.contains(&Mode::Sealed) };
    if wants_key && args.key_file.is_none() {
        let cause = "both machines have to hold one key";
        return Err(Failure::usage("key-file", "cannot seal what goes to another machine", cause)
            .fix("make one with `plesio key gen pool` and give both --key-file"));
    }
    Ok(())
}

/// A bench with another machine.
pub(crate) struct Way {
    pub(crate) ends: Ends,
    /// Our own address of the way there.
    pub(crate) own: IpAddr,
    /// The text of the key that both hold; empty without one.
    pub(crate) pool: String,
    pub(crate) reach: Reach,
}

/// How large datagrams may be behind a bad path on this machine, where an end cannot find it out: the hop to the relay
/// takes any.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reach {
    /// Nothing stands between that would hide the path.
    Open,
    /// The kernel knows no more than that every path of IPv6 carries this.
    Sure(u32),
    Known(u32),
}

impl Reach {
    fn behind(own: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::new(own, 0))?;
        socket.connect(to)?;
        let chunk_bytes = |datagram_bytes: usize| {
            let payload = datagram_bytes.saturating_sub(HEADER_BYTES + TAG_BYTES);
            (payload / 64 * 64).max(64) as u32
        };
        let known = rival::known_path_bytes(&socket);
        Ok(known.map_or(Self::Sure(chunk_bytes(rival::SEGMENT_BYTES_SURE)), |bytes| {
            Self::Known(chunk_bytes(bytes))
        }))
    }

    /// The largest payload that is looked for.
    pub(crate) fn chunk_bytes_max(self) -> u32 {
        match self {
            Self::Open => u32::MAX,
            Self::Sure(bytes) | Self::Known(bytes) => bytes,
        }
    }
}

/// The ends of a bench with another machine.
pub(crate) fn connect(args: &BenchArgs, to: &str, interrupted: Arc<AtomicBool>) -> Result<Way, Failure> {
    let what = format!("cannot reach {to}");
    let mut found = to.to_socket_addrs().map_err(|cause| {
        Failure::usage("bench-peer", &what, cause)
            .fix("write it as HOST:PORT, as the listening side shows it")
    })?;
    let secret = Secret::read(args.key_file.as_deref())?;
    let address =
        found.next().ok_or_else(|| Failure::usage("bench-peer", &what, "the name has no address"))?;
    allow(args, address.ip(), false)?;
    let unreachable = |cause: io::Error| Broken::Io(cause).failure(&what);
    let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT).map_err(unreachable)?;
    let own = stream.local_addr().map_err(unreachable)?.ip();
    let (writer, mut reader) =
        greet(stream, Side::Connect, &secret, ANSWER_BYTES_MAX).map_err(|broken| broken.failure(&what))?;
    // The driver has its own deadlines; this one ends the thread.
    let read = move || reader.read(SESSION_LIMIT).ok();
    let ends = Ends::across(interrupted, &args.pin, writer, address.ip(), read)?;
    let reach =
        if args.impair.is_none() { Reach::Open } else { Reach::behind(own, address).map_err(unreachable)? };
    Ok(Way { ends, own, pool: secret.pool(), reach })
}

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const SESSION_LIMIT: Duration = Duration::from_secs(1_000);
