//! Control messages beside a datagram: read and written as bytes, in the kernel's layout.
//!
//! ```text
//! length usize (header included) | level i32 | kind i32 | data, padded to a multiple of usize
//! ```

use nix::libc;

/// Words of a control buffer: room for the segment size, the overflow count, three time stamps and an error.
pub(crate) const CONTROL_WORDS: usize = 32;

const HEADER_BYTES: usize = size_of::<usize>() + 8;

/// The control messages in a buffer the kernel has filled.
pub(crate) struct Controls<'a> {
    rest: &'a [u8],
}

pub(crate) fn parse(bytes: &[u8]) -> Controls<'_> {
    Controls { rest: bytes }
}

impl<'a> Iterator for Controls<'a> {
    type Item = (i32, i32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const WORD: usize = size_of::<usize>();
        let header = self.rest.get(..HEADER_BYTES)?;
        let len_bytes = usize::from_ne_bytes(header[..WORD].try_into().ok()?);
        let level = i32::from_ne_bytes(header[WORD..WORD + 4].try_into().ok()?);
        let kind = i32::from_ne_bytes(header[WORD + 4..].try_into().ok()?);
        let data = self.rest.get(HEADER_BYTES..len_bytes)?;
        let next = len_bytes.checked_next_multiple_of(WORD)?.min(self.rest.len());
        self.rest = &self.rest[next..];
        Some((level, kind, data))
    }
}

/// The size of the segments a train was split into, as the receive offload tells.
pub(crate) fn segment_bytes(bytes: &[u8]) -> Option<usize> {
    let data = find(bytes, libc::SOL_UDP, libc::UDP_GRO)?;
    let size = i32::from_ne_bytes(data.get(..4)?.try_into().ok()?);
    usize::try_from(size).ok().filter(|size| *size > 0)
}

/// How many datagrams the socket has lost to a full buffer so far.
pub(crate) fn overflow_count(bytes: &[u8]) -> Option<u32> {
    let data = find(bytes, libc::SOL_SOCKET, libc::SO_RXQ_OVFL)?;
    Some(u32::from_ne_bytes(data.get(..4)?.try_into().ok()?))
}

/// The software time stamp, CLOCK_REALTIME nanoseconds.
pub(crate) fn stamp_ns(bytes: &[u8]) -> Option<i64> {
    let data = find(bytes, libc::SOL_SOCKET, libc::SCM_TIMESTAMPING)?;
    let seconds = i64::from_ne_bytes(data.get(..8)?.try_into().ok()?);
    let nanoseconds = i64::from_ne_bytes(data.get(8..16)?.try_into().ok()?);
    let stamp_ns = seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)?;
    (stamp_ns > 0).then_some(stamp_ns)
}

/// The number of the datagram a transmit stamp belongs to.
pub(crate) fn stamp_id(bytes: &[u8]) -> Option<u32> {
    let data = extended_error(bytes)?;
    let id = u32::from_ne_bytes(data[12..16].try_into().ok()?);
    (data[4] == libc::SO_EE_ORIGIN_TIMESTAMPING).then_some(id)
}

/// Whether a host on the way back says that nobody listens at the port (port unreachable).
pub(crate) fn is_refusal(bytes: &[u8]) -> bool {
    let by = [libc::SO_EE_ORIGIN_ICMP, libc::SO_EE_ORIGIN_ICMP6];
    extended_error(bytes).is_some_and(|data| {
        by.contains(&data[4]) && data[..4] == libc::ECONNREFUSED.unsigned_abs().to_ne_bytes()
    })
}

/// `struct sock_extended_err`: errno u32, origin u8, type u8, code u8, pad u8, info u32, data u32.
fn extended_error(bytes: &[u8]) -> Option<&[u8; 16]> {
    let data = find(bytes, libc::SOL_IP, libc::IP_RECVERR)
        .or_else(|| find(bytes, libc::SOL_IPV6, libc::IPV6_RECVERR))?;
    data.first_chunk()
}

/// Asks the kernel to cut what is sent into segments; says the length of the control data.
pub(crate) fn write_segment(segment_bytes: u16, into: &mut [u8]) -> usize {
    const WORD: usize = size_of::<usize>();
    let len_bytes = HEADER_BYTES + 2;
    into[..WORD].copy_from_slice(&len_bytes.to_ne_bytes());
    into[WORD..WORD + 4].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
    into[WORD + 4..HEADER_BYTES].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
    into[HEADER_BYTES..len_bytes].copy_from_slice(&segment_bytes.to_ne_bytes());
    len_bytes.next_multiple_of(WORD)
}

fn find(bytes: &[u8], level: i32, kind: i32) -> Option<&[u8]> {
    parse(bytes)
        .find(|(found_level, found_kind, _)| (*found_level, *found_kind) == (level, kind))
        .map(|found| found.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_message_is_read_back() {
        let mut bytes = [0; 64];
        let len_bytes = write_segment(1440, &mut bytes);
        assert_eq!(len_bytes % size_of::<usize>(), 0);
        let all: Vec<_> = parse(&bytes[..len_bytes]).collect();
        assert_eq!(all, [(libc::SOL_UDP, libc::UDP_SEGMENT, &1440_u16.to_ne_bytes()[..])]);
    }

    #[test]
    fn garbage_ends_the_reading() {
        let mut state = 1_u32;
        for _ in 0..10_000 {
            let mut bytes = [0; 48];
            for byte in &mut bytes {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (state >> 29) as u8;
            }
            assert!(parse(&bytes).count() <= 3);
            let _ = (segment_bytes(&bytes), overflow_count(&bytes), stamp_ns(&bytes), stamp_id(&bytes));
            let _ = is_refusal(&bytes);
        }
    }
}
