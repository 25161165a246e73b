//! Which chunks travel as one train: one call, cut into datagrams by the kernel or the network card.

use plesio_wire::Span;
use plesio_wire::data::{DATAGRAM_BYTES_MAX, Header};

/// Most datagrams of one train: the limit of all kernels that have the offload.
pub const SEGMENTS_MAX: usize = 64;

/// How many of the first chunks may travel together.
///
/// The kernel cuts at equal lengths, so only the last may be shorter. The receiver predicts each chunk's place from the
/// first header, so the chunks must follow each other in one message: everything else would be moved on arrival.
///
/// `around_bytes` is what each datagram carries beside its payload.
pub(crate) fn len_of_first(chunks: &[(Header, Span)], segmentation: bool, around_bytes: usize) -> usize {
    let Some((first, first_span)) = chunks.first() else { return 0 };
    if !segmentation || first_span.len_bytes == 0 {
        return 1;
    }
    let mut train_bytes = around_bytes + first_span.len_bytes as usize;
    let mut len = 1;
    for (header, span) in chunks.iter().take(SEGMENTS_MAX).skip(1) {
        let (before, before_span) = &chunks[len - 1];
        train_bytes += around_bytes + span.len_bytes as usize;
        let follows = header.kind == first.kind
            && header.message == first.message
            && header.receiver == first.receiver
            && Some(header.chunk) == before.chunk.checked_add(1);
        let fits = before_span.len_bytes == first_span.len_bytes
            && (1..=first_span.len_bytes).contains(&span.len_bytes)
            && train_bytes <= DATAGRAM_BYTES_MAX;
        if !follows || !fits {
            break;
        }
        len += 1;
    }
    len
}

#[cfg(test)]
mod tests {
    use plesio_wire::data::{Flags, HEADER_BYTES, Kind, MessageId, TAG_BYTES};

    use super::*;

    fn chunks(list: &[(u32, u32)]) -> Vec<(Header, Span)> {
        let header = |chunk| Header {
            kind: Kind::Data,
            flags: Flags::default(),
            payload_bytes: 0,
            receiver: 1,
            packet: 0,
            message: MessageId::default(),
            chunk,
            clock_us: 0,
            crc32: 0,
        };
        list.iter()
            .map(|(chunk, len_bytes)| (header(*chunk), Span { len_bytes: *len_bytes, ..Span::default() }))
            .collect()
    }

    #[test]
    fn only_consecutive_chunks_of_equal_length_travel_together() {
        assert_eq!(len_of_first(&[], true, HEADER_BYTES), 0);
        assert_eq!(len_of_first(&chunks(&[(0, 100), (1, 100), (2, 40), (3, 40)]), true, HEADER_BYTES), 3);
        assert_eq!(len_of_first(&chunks(&[(0, 100), (1, 101)]), true, HEADER_BYTES), 1);
        assert_eq!(len_of_first(&chunks(&[(0, 100), (2, 100)]), true, HEADER_BYTES), 1);
        assert_eq!(len_of_first(&chunks(&[(u32::MAX, 100), (0, 100)]), true, HEADER_BYTES), 1);
        assert_eq!(len_of_first(&chunks(&[(0, 100), (1, 100)]), false, HEADER_BYTES), 1);
        assert_eq!(len_of_first(&chunks(&[(0, 100), (1, 0)]), true, HEADER_BYTES), 1);
        let many: Vec<_> = (0..100).map(|chunk| (chunk, 100)).collect();
        assert_eq!(len_of_first(&chunks(&many), true, HEADER_BYTES), SEGMENTS_MAX);
        let long: Vec<_> = (0..100).map(|chunk| (chunk, 8_896)).collect();
        assert_eq!(len_of_first(&chunks(&long), true, HEADER_BYTES), 7, "7 x 8,928 bytes fit 65,507");
        assert_eq!(len_of_first(&chunks(&many), true, HEADER_BYTES + TAG_BYTES), SEGMENTS_MAX);
        let tagged: Vec<_> = (0..100).map(|chunk| (chunk, 1_344)).collect();
        let sealed = len_of_first(&chunks(&tagged), true, HEADER_BYTES + TAG_BYTES);
        assert_eq!(sealed, 47, "47 x 1,392 bytes fit 65,507");
        assert_eq!(len_of_first(&chunks(&[(0, 65_408), (1, 65_408)]), true, HEADER_BYTES), 1);
    }
}
