//! Opening sockets: the base socket that owns the data port, and one connected socket per peer on the same port.
//!
//! The base socket is bound alone first, so that a taken port is an error; only then is the port opened to further
//! sockets of the same user. The kernel hands a datagram to the socket that is connected to its sender and everything
//! else to the base socket.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockname, getsockopt, setsockopt,
    socket, sockopt,
};

use crate::option::set_dont_fragment;
use crate::{OpenError, Protection, SocketConfig};

/// Plaintext datagrams stay on this host.
///
/// # Errors
/// The address is not a loopback address.
pub fn refuse_off_host(address: SocketAddr) -> Result<(), OpenError> {
    if address.ip().to_canonical().is_loopback() { Ok(()) } else { Err(OpenError::OffHost { address }) }
}

fn check_reach(config: &SocketConfig, address: SocketAddr) -> Result<(), OpenError> {
    if config.protection == Protection::Plaintext { refuse_off_host(address) } else { Ok(()) }
}

pub(crate) struct Base {
    pub(crate) socket: OwnedFd,
    pub(crate) address: SocketAddr,
    pub(crate) segmentation: bool,
    /// What the kernel granted each socket.
    pub(crate) receive_buffer_bytes: usize,
    pub(crate) notes: Vec<String>,
}

/// The socket that owns the port.
pub(crate) fn open_base(config: &SocketConfig) -> Result<Base, OpenError> {
    check_reach(config, config.bind)?;
    let socket = open_plain(config.bind)?;
    let mut notes = Vec::new();
    let receive_buffer_bytes = size_buffers(&socket, config, &mut notes)?;
    bind_to(&socket, config.bind)?;
    let address = local_address(&socket, config.bind)?;
    setsockopt(&socket, sockopt::ReusePort, &true).map_err(system("sharing the port", address))?;
    let mut segmentation = config.offload;
    if config.offload {
        // Set and taken back: whether the kernel knows the option is all that is asked.
        let known = setsockopt(&socket, sockopt::UdpGsoSegment, &1408)
            .and_then(|()| setsockopt(&socket, sockopt::UdpGsoSegment, &0));
        if let Err(cause) = known {
            segmentation = false;
            notes.push(format!("send offload refused ({}): one call per datagram", cause.desc()));
        }
        if let Err(cause) = setsockopt(&socket, sockopt::UdpGroSegment, &true) {
            notes.push(format!("receive offload refused ({}): one call per datagram", cause.desc()));
        }
    }
    Ok(Base { socket, address, segmentation, receive_buffer_bytes, notes })
}

/// A socket on the same port that only hears `peer`. Datagrams of others may slip in before it is connected; the
/// receiver checks every sender.
pub(crate) fn open_peer(
    config: &SocketConfig,
    local: SocketAddr,
    peer: SocketAddr,
) -> Result<OwnedFd, OpenError> {
    check_reach(config, peer)?;
    if local.is_ipv4() != peer.is_ipv4() {
        return Err(OpenError::Family { address: peer });
    }
    let socket = open_plain(peer)?;
    size_buffers(&socket, config, &mut Vec::new())?;
    setsockopt(&socket, sockopt::ReusePort, &true).map_err(system("sharing the port", local))?;
    if config.offload {
        // Refusal was noted at the base socket; without it every datagram simply comes alone.
        let _noted = setsockopt(&socket, sockopt::UdpGroSegment, &true);
    }
    bind_to(&socket, local)?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(peer)).map_err(system("connect", peer))?;
    Ok(socket)
}

/// Two connected sockets of this host, to try something on; `None` where trains are unknown.
pub(crate) fn pair() -> Result<Option<(OwnedFd, OwnedFd)>, OpenError> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (from, to) = (open_plain(any)?, open_plain(any)?);
    if setsockopt(&from, sockopt::UdpGsoSegment, &0).is_err()
        || setsockopt(&to, sockopt::UdpGroSegment, &true).is_err()
    {
        return Ok(None);
    }
    bind_to(&to, any)?;
    let address = local_address(&to, any)?;
    connect(from.as_raw_fd(), &SockaddrStorage::from(address)).map_err(system("connect", address))?;
    Ok(Some((from, to)))
}

/// A non-blocking socket that does not fragment.
pub(crate) fn open_plain(address: SocketAddr) -> Result<OwnedFd, OpenError> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
        .map_err(system("socket", address))?;
    set_dont_fragment(socket.as_fd(), address).map_err(system("IP_MTU_DISCOVER", address))?;
    Ok(socket)
}

pub(crate) fn bind_to(socket: &OwnedFd, address: SocketAddr) -> Result<(), OpenError> {
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address)).map_err(|cause| match cause {
        Errno::EADDRINUSE => OpenError::InUse { address },
        cause => OpenError::System { step: "bind", address, cause },
    })
}

pub(crate) fn local_address(socket: &OwnedFd, asked: SocketAddr) -> Result<SocketAddr, OpenError> {
    let name: SockaddrStorage = getsockname(socket.as_raw_fd()).map_err(system("getsockname", asked))?;
    let address = name
        .as_sockaddr_in()
        .map(|name| SocketAddr::from(*name))
        .or_else(|| name.as_sockaddr_in6().map(|name| SocketAddr::from(*name)));
    address.ok_or(OpenError::System { step: "getsockname", address: asked, cause: Errno::EAFNOSUPPORT })
}

pub(crate) fn system(step: &'static str, address: SocketAddr) -> impl Fn(Errno) -> OpenError {
    move |cause| OpenError::System { step, address, cause }
}

/// Asks for buffers and reads back what was granted: the kernel caps silently. Bytes of the receive buffer.
fn size_buffers(
    socket: &OwnedFd,
    config: &SocketConfig,
    notes: &mut Vec<String>,
) -> Result<usize, OpenError> {
    let address = config.bind;
    setsockopt(socket, sockopt::RcvBuf, &config.receive_buffer_bytes)
        .map_err(system("SO_RCVBUF", address))?;
    setsockopt(socket, sockopt::SndBuf, &config.send_buffer_bytes).map_err(system("SO_SNDBUF", address))?;
    setsockopt(socket, sockopt::RxqOvfl, &1).map_err(system("SO_RXQ_OVFL", address))?;
    // The kernel doubles what it is asked for, to have room for its own records.
    let received = getsockopt(socket, sockopt::RcvBuf).map_err(system("SO_RCVBUF", address))? / 2;
    let sent = getsockopt(socket, sockopt::SndBuf).map_err(system("SO_SNDBUF", address))? / 2;
    for (what, asked_bytes, granted_bytes, sysctl) in [
        ("receive", config.receive_buffer_bytes, received, "net.core.rmem_max"),
        ("send", config.send_buffer_bytes, sent, "net.core.wmem_max"),
    ] {
        if granted_bytes < asked_bytes {
            notes.push(format!(
                "{what} buffer: {granted_bytes} of {asked_bytes} bytes granted; raise it with `sysctl -w \
                 {sysctl}={asked_bytes}`"
            ));
        }
    }
    Ok(received)
}
