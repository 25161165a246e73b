//! Don't-fragment: the one socket option in use that has no safe interface in the crates at hand.
#![expect(unsafe_code, reason = "setsockopt of an integer")]

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// Datagrams longer than the path are refused instead of fragmented.
pub(crate) fn set_dont_fragment(socket: BorrowedFd<'_>, address: SocketAddr) -> Result<(), Errno> {
    let (level, option, value) = match address {
        SocketAddr::V4(_) => (libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        SocketAddr::V6(_) => (libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
    };
    let value: libc::c_int = value;
    let value_bytes = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open while borrowed, and the kernel reads one integer from a live local.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), value_bytes)
    };
    Errno::result(result).map(drop)
}
