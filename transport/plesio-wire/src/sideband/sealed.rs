//! The sealed form of a sideband datagram: the same header with AUTH set, a sealed body, a tag.
//!
//! Knows which header fields differ between the two forms, and nothing of keys. The sequence number is the
//! session's, so the sealer chooses it.

use super::{CRC_AT, DATAGRAM_BYTES_MAX, FLAGS_KNOWN, HEADER_BYTES};
use crate::codec::{DecodeError, Reader};
use crate::data::TAG_BYTES;

const FLAG_AUTH: u16 = 1;
const FLAGS_AT: usize = 4;
const LENGTH_AT: usize = 6;
const SEQUENCE_AT: usize = 24;

/// The header that the sealed form of the datagram `plain` carries.
///
/// # Errors
/// When `plain` is not a whole plaintext datagram, or has no room for a tag.
pub fn sealed_header(plain: &[u8], sequence: u32) -> Result<[u8; HEADER_BYTES], DecodeError> {
    let (flags, _) = envelope(plain)?;
    if flags & FLAG_AUTH != 0 {
        return Err(DecodeError::Field("flags"));
    }
    if plain.len() > DATAGRAM_BYTES_MAX - TAG_BYTES {
        return Err(DecodeError::Field("length"));
    }
    let mut header = [0; HEADER_BYTES];
    header.copy_from_slice(&plain[..HEADER_BYTES]);
    header[FLAGS_AT..LENGTH_AT].copy_from_slice(&(flags | FLAG_AUTH).to_le_bytes());
    header[LENGTH_AT..LENGTH_AT + 2].copy_from_slice(&((plain.len() + TAG_BYTES) as u16).to_le_bytes());
    header[SEQUENCE_AT..CRC_AT].copy_from_slice(&sequence.to_le_bytes());
    header[CRC_AT..].fill(0);
    Ok(header)
}

/// The sequence number of a sealed datagram.
///
/// # Errors
/// When it is not a whole sealed datagram, or carries a checksum.
pub fn sealed_sequence(datagram: &[u8]) -> Result<u32, DecodeError> {
    let (flags, sequence) = envelope(datagram)?;
    if flags & FLAG_AUTH == 0 {
        return Err(DecodeError::Field("flags"));
    }
    if datagram.len() < HEADER_BYTES + TAG_BYTES {
        return Err(DecodeError::Short);
    }
    if datagram[CRC_AT..HEADER_BYTES] != [0; 4] {
        return Err(DecodeError::Checksum);
    }
    Ok(sequence)
}

/// Turns header and opened body back into the plaintext form that [`super::decode`] reads.
///
/// # Errors
/// When the header is not a sealed one of this body.
pub fn restore_plain(datagram: &mut [u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(datagram);
    reader.take(FLAGS_AT)?;
    let (flags, length): (u16, u16) = (reader.read()?, reader.read()?);
    if flags & FLAG_AUTH == 0 || datagram.len() < HEADER_BYTES {
        return Err(DecodeError::Field("flags"));
    }
    if usize::from(length) != datagram.len() + TAG_BYTES {
        return Err(DecodeError::Field("length"));
    }
    datagram[FLAGS_AT..LENGTH_AT].copy_from_slice(&(flags & !FLAG_AUTH).to_le_bytes());
    let len_bytes = datagram.len() as u16;
    datagram[LENGTH_AT..LENGTH_AT + 2].copy_from_slice(&len_bytes.to_le_bytes());
    datagram[CRC_AT..HEADER_BYTES].fill(0);
    let crc = crc32fast::hash(datagram);
    datagram[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// Flags and sequence, when magic, version, flags and length are in order.
fn envelope(datagram: &[u8]) -> Result<(u16, u32), DecodeError> {
    let envelope = super::open(datagram, FLAGS_KNOWN | FLAG_AUTH)?;
    Ok((envelope.flags, envelope.header.sequence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sideband::{self, Header, Leave, Message};

    #[test]
    fn a_datagram_goes_to_its_sealed_form_and_back() {
        let header = Header { mesh: 3, view: 4, src: 1, dst: 2, sequence: 77 };
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let plain = sideband::encode(&header, &Message::Leave(Leave::default()), &mut buffer);
        let sealed = sealed_header(plain, 78).unwrap();
        let mut datagram = [0; DATAGRAM_BYTES_MAX];
        datagram[..HEADER_BYTES].copy_from_slice(&sealed);
        let len_bytes = plain.len() + TAG_BYTES;
        datagram[HEADER_BYTES..plain.len()].copy_from_slice(&plain[HEADER_BYTES..]);
        assert_eq!(sealed_sequence(&datagram[..len_bytes]), Ok(78));
        assert!(sideband::decode(&datagram[..len_bytes]).is_err(), "the plaintext reader refuses it");
        assert_eq!(sealed_sequence(plain), Err(DecodeError::Field("flags")));
        assert!(sealed_header(&datagram[..len_bytes], 1).is_err(), "sealed twice");
        restore_plain(&mut datagram[..plain.len()]).unwrap();
        let (back, message) = sideband::decode(&datagram[..plain.len()]).unwrap();
        assert_eq!((back, message), (Header { sequence: 78, ..header }, Message::Leave(Leave::default())));
        for len_bytes in 0..HEADER_BYTES {
            assert!(restore_plain(&mut datagram[..len_bytes]).is_err());
            assert!(sealed_sequence(&datagram[..len_bytes]).is_err());
        }
    }
}
