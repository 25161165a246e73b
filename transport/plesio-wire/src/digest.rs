//! Content digests: BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020), first 16 bytes, everywhere.

use crate::codec::{DecodeError, Reader, Wire, Writer};
use core::fmt;

/// First 16 bytes of a BLAKE3 hash.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// Digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Digest of a value's wire layout, which must fit in 1,232 bytes.
    #[must_use]
    pub fn of_value<T: Wire>(value: &T) -> Self {
        let mut bytes = [0; crate::sideband::DATAGRAM_BYTES_MAX];
        let mut writer = Writer::new(&mut bytes);
        writer.write(value);
        let len_bytes = writer.len_bytes();
        Self::of(&bytes[..len_bytes])
    }
}

impl Wire for Digest {
    fn encode(&self, writer: &mut Writer<'_>) {
        self.0.encode(writer);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.read().map(Self)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Digest of bytes that come in pieces.
#[derive(Clone, Debug, Default)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Appends `bytes` to what is hashed.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was appended.
    #[must_use]
    pub fn finish(&self) -> Digest {
        let mut first = [0; 16];
        first.copy_from_slice(&self.0.finalize().as_bytes()[..16]);
        Digest(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_blake3_cut_to_16_bytes() {
        // Published test vector of the empty input: af1349b9f5f9a1a6a0404dea36dcc949...
        assert_eq!(std::format!("{}", Digest::of(b"")), "af1349b9f5f9a1a6a0404dea36dcc949");
        let mut pieces = Hasher::default();
        pieces.update(b"ab");
        pieces.update(b"c");
        assert_eq!(pieces.finish(), Digest::of(b"abc"));
    }
}
