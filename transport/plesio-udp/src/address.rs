//! Socket addresses as the kernel writes them into a message's name.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::libc;

/// Bytes of the longest name read here, as words: names are aligned.
pub(crate) const NAME_WORDS: usize = 16;

/// The address in a name; `None` for another family or a short name.
pub(crate) fn parse(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(name.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(name.get(2..4)?.try_into().ok()?);
    match i32::from(family) {
        libc::AF_INET => {
            let octets: [u8; 4] = name.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::from((Ipv4Addr::from(octets), port)))
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = name.get(8..24)?.try_into().ok()?;
            Some(SocketAddr::from((Ipv6Addr::from(octets), port)))
        }
        _ => None,
    }
}

/// Writes a name and says its length; as `parse` reads it, with no flow label and no scope.
pub(crate) fn write(address: SocketAddr, name: &mut [u8]) -> usize {
    name.fill(0);
    name[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(address) => {
            name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            name[4..8].copy_from_slice(&address.ip().octets());
            16
        }
        SocketAddr::V6(address) => {
            name[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            name[8..24].copy_from_slice(&address.ip().octets());
            28
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_name() {
        for text in ["127.0.0.1:47700", "[::1]:9", "10.1.2.3:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut name = [7; 128];
            let len_bytes = write(address, &mut name);
            assert_eq!(parse(&name[..len_bytes]), Some(address));
            for short in 0..len_bytes.min(8) {
                assert_eq!(parse(&name[..short]), None);
            }
        }
        assert_eq!(parse(&[1, 0, 0, 0, 0, 0, 0, 0]), None, "a local socket's name");
    }
}
