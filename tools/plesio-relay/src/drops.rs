//! What the kernel dropped at our sockets because nobody read in time, as `/proc/self/net/udp` tells it.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Over all of them; zero where the kernel does not tell.
pub(crate) fn count<'a>(sockets: impl Iterator<Item = BorrowedFd<'a>>) -> u64 {
    let inodes: BTreeSet<u64> = sockets.filter_map(inode).collect();
    let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"].map(std::fs::read_to_string);
    tables.iter().flatten().flat_map(|table| drops(table, &inodes)).sum()
}

fn inode(socket: BorrowedFd<'_>) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The last word of every line whose tenth is one of `inodes`.
fn drops<'a>(table: &'a str, inodes: &'a BTreeSet<u64>) -> impl Iterator<Item = u64> + 'a {
    table.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ours = words.get(9)?.parse().is_ok_and(|inode| inodes.contains(&inode));
        if ours { words.last()?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn a_socket_that_nobody_reads_drops() {
        let (socket, sender) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = socket.local_addr().unwrap();
        for _ in 0..20_000 {
            sender.send_to(&[0; 1_000], to).unwrap();
        }
        let dropped = count([socket.as_fd()].into_iter());
        assert!((1..20_000).contains(&dropped), "{dropped}");
        assert_eq!(count([sender.as_fd()].into_iter()), 0);
    }
}
