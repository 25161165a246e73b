//! The data plane: one 32-byte header before every payload, and the bodies of its control datagrams.
//!
//! ```text
//!  0 version:4 kind:4 | 1 flags | 2 payload length u16 | 4 receiver index u32 | 8 packet number u64
//! 16 message: handle u16, sequence u16 | 20 chunk u32 | 24 sender's clock, us u32 | 28 crc32 u32
//! packet number: lane:2 | channel:22 | count:40
//! lane 0 DATA, 2 the other kinds, 3 the session's own, 1 never used; bodies speak of counts alone
//! ```
//!
//! Connections that share one session's keys have a channel each, so no packet number is ever used twice.
//! In plaintext the CRC32 (IEEE 802.3) covers the header, its own field zero, and the payload.

use crate::codec::{DecodeError, Reader, Writer, layout};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 32;
/// Bytes of the tag behind a sealed payload.
pub const TAG_BYTES: usize = 16;
/// Largest UDP payload over IPv4, and so the largest train and the largest datagram.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Chunk for a path of loopback's MTU 65,536: a multiple of 64 that leaves room for the header.
pub const CHUNK_BYTES_LOOPBACK: u32 = 65_408;
/// Chunk for a path of MTU 1,500 in plaintext.
pub const CHUNK_BYTES_ETHERNET: u32 = 1_408;
/// Chunk for a path of MTU 9,000, sealed or not.
pub const CHUNK_BYTES_JUMBO: u32 = CHUNK_STEPS[0];
/// Smallest chunk any window may use.
pub const CHUNK_BYTES_MIN: u32 = 64;
/// First packet number of the datagrams that are not DATA.
pub const CONTROL_PACKET_FIRST: u64 = 1 << 63;
/// First packet number of the datagrams that belong to the cryptographic session itself.
pub const OWN_PACKET_FIRST: u64 = 3 << 62;
/// Largest channel.
pub const CHANNEL_MAX: u32 = (1 << 22) - 1;
/// Largest count of a lane and channel; a connection that gets there has to end.
pub const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

const COUNT_BITS: u32 = 40;

/// Packets that one block of an ACK's bitmap speaks of.
pub const ACK_BLOCK_PACKETS: usize = 256;
/// Most blocks behind the one in [`Ack`]: with it 8,192 packets.
pub const ACK_BLOCKS_MAX: usize = 31;
/// Packets from the cumulative count on that acknowledgements can speak of, 8,192 in each.
pub const ACK_PACKETS_MAX: u64 = 32_768;

/// Chunk sizes that a message may fall back to when the path takes none of the connection's own; the step in a
/// header's flags is 0 for that one and counts these from 1.
pub const CHUNK_STEPS: [u32; 7] = [8_832, 4_032, 1_408, 1_344, 1_152, 960, 512];

/// The chunk size that a step means on a connection with chunks of `chunk_bytes`.
#[must_use]
pub fn chunk_of_step(step: u8, chunk_bytes: u32) -> Option<u32> {
    match usize::from(step).checked_sub(1) {
        None => Some(chunk_bytes),
        Some(at) => CHUNK_STEPS.get(at).copied().filter(|size| *size < chunk_bytes),
    }
}

/// The step that means `size`: zero for every size that has none.
#[must_use]
pub fn step_of_chunk(size: u32) -> u8 {
    CHUNK_STEPS.iter().position(|step| *step == size).map_or(0, |at| at as u8 + 1)
}

/// Layout version: the high four bits of every datagram of the data plane, handshakes included.
pub const VERSION: u8 = 1;

/// First packet number of a channel's DATA; with [`CONTROL_PACKET_FIRST`] that of its other kinds.
#[must_use]
pub const fn packet_first(channel: u32) -> u64 {
    (channel as u64 & CHANNEL_MAX as u64) << COUNT_BITS
}

/// The channel a packet number belongs to.
#[must_use]
pub const fn channel_of(packet: u64) -> u32 {
    (packet >> COUNT_BITS) as u32 & CHANNEL_MAX
}

/// What a packet number counts within its lane and channel: what the bodies of [`Ack`] and [`Ping`] speak of.
#[must_use]
pub const fn count_of(packet: u64) -> u64 {
    packet & COUNT_MAX
}

/// What a datagram is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// A chunk of a message.
    Data,
    /// Selective acknowledgement: [`Ack`].
    Ack,
    /// Credit limit: [`Credit`].
    Credit,
    /// Padded path-MTU probe: zeros; the ACK that answers it names the number in its `chunk`, as for a PING.
    Probe,
    /// Asks for an ACK: [`Ping`].
    Ping,
    /// The peer is going: [`Bye`].
    Bye,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Data => 4,
            Self::Ack => 5,
            Self::Credit => 6,
            Self::Probe => 7,
            Self::Ping => 8,
            Self::Bye => 9,
        }
    }

    const fn from_code(code: u8) -> Result<Self, DecodeError> {
        Ok(match code {
            4 => Self::Data,
            5 => Self::Ack,
            6 => Self::Credit,
            7 => Self::Probe,
            8 => Self::Ping,
            9 => Self::Bye,
            _ => return Err(DecodeError::Kind(code)),
        })
    }
}

/// Header flags.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Flags(u8);

impl Flags {
    /// Nothing special.
    pub const NONE: Self = Self(0);
    /// The receiver should acknowledge at once; of an ACK: the end of a message is here and other parts are not, so what
    /// is not acknowledged after its time should come again.
    pub const ACK_REQ: Self = Self(1);
    /// This chunk was sent before.
    pub const RETX: Self = Self(2);
    /// The message ends with this chunk.
    pub const LAST_OF_MSG: Self = Self(4);
    /// The CRC field is meaningful.
    pub const CRC: Self = Self(8);
    /// The payload is sealed and a tag follows it; [`Header::parse_sealed`] alone accepts it.
    pub const SEALED: Self = Self(16);

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set of a sealed datagram: with SEALED, without CRC.
    #[must_use]
    pub const fn sealed(self) -> Self {
        Self((self.0 | Self::SEALED.0) & !Self::CRC.0)
    }

    /// The set with this chunk step, 0 to 7, in its three highest bits: of a DATA datagram or of a PING about a message,
    /// which chunk size the message is cut by.
    #[must_use]
    pub const fn with_step(self, step: u8) -> Self {
        Self(self.0 & 31 | (step & 7) << 5)
    }

    /// The chunk step.
    #[must_use]
    pub const fn step(self) -> u8 {
        self.0 >> 5
    }

    /// Whether all of `other` is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Which message: the window's handle and the sequence within it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MessageId {
    /// Registered window.
    pub handle: u16,
    /// Distinguishes the messages that use the window one after the other.
    pub sequence: u16,
}

/// The 32 bytes before every payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// How to treat it.
    pub flags: Flags,
    /// Bytes behind the header.
    pub payload_bytes: u16,
    /// Chosen by the receiver for this session, random.
    pub receiver: u32,
    /// Never reused; a retransmission takes a new one. DATA counts from [`packet_first`] without gaps; every
    /// other kind from there and [`CONTROL_PACKET_FIRST`], so that acknowledgements speak of DATA alone.
    pub packet: u64,
    /// Which message; zero for control datagrams but PING, which may ask about one, and ACK, where the handle says
    /// how many blocks of the bitmap are left out behind the first.
    pub message: MessageId,
    /// Byte offset in the window = chunk x chunk size of the flags' step.
    pub chunk: u32,
    /// Sender's clock, microseconds, wrapping; echoed in ACK.
    pub clock_us: u32,
    /// CRC32 of header (this field zero) and payload.
    pub crc32: u32,
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut writer = Writer::new(&mut bytes);
        writer.write(&(VERSION << 4 | self.kind.code()));
        writer.write(&self.flags.0);
        writer.write(&self.payload_bytes);
        writer.write(&self.receiver);
        writer.write(&self.packet);
        writer.write(&self.message.handle);
        writer.write(&self.message.sequence);
        writer.write(&self.chunk);
        writer.write(&self.clock_us);
        writer.write(&self.crc32);
        bytes
    }

    /// Reads a plaintext header off the front of a datagram; the payload is not looked at.
    ///
    /// # Errors
    /// Short, another version, an unknown kind or flag, or a sealed datagram.
    pub fn parse(datagram: &[u8]) -> Result<Self, DecodeError> {
        let header = Self::parse_any(datagram)?;
        if header.flags.has(Flags::SEALED) { Err(DecodeError::Field("flags")) } else { Ok(header) }
    }

    /// Reads the header of a sealed datagram: header, payload and a tag of [`TAG_BYTES`], nothing else.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); a plaintext datagram, a checksum, another length.
    pub fn parse_sealed(datagram: &[u8]) -> Result<Self, DecodeError> {
        let header = Self::parse_sealed_head(datagram)?;
        let len_bytes = HEADER_BYTES + usize::from(header.payload_bytes) + TAG_BYTES;
        if datagram.len() == len_bytes { Ok(header) } else { Err(DecodeError::Field("payload length")) }
    }

    /// Reads the header of a sealed datagram whose payload and tag lie elsewhere; their length is the caller's to check.
    ///
    /// # Errors
    /// As [`parse_sealed`](Self::parse_sealed) but for the length.
    pub fn parse_sealed_head(head: &[u8]) -> Result<Self, DecodeError> {
        let header = Self::parse_any(head)?;
        if !header.flags.has(Flags::SEALED) || header.flags.has(Flags::CRC) {
            return Err(DecodeError::Field("flags"));
        }
        if header.crc32 == 0 { Ok(header) } else { Err(DecodeError::Checksum) }
    }

    fn parse_any(datagram: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(datagram);
        let first: u8 = reader.read()?;
        if first >> 4 != VERSION {
            return Err(DecodeError::Version(first >> 4));
        }
        let kind = Kind::from_code(first & 15)?;
        let flags = reader.read::<u8>()?;
        Ok(Self {
            kind,
            flags: Flags(flags),
            payload_bytes: reader.read()?,
            receiver: reader.read()?,
            packet: reader.read()?,
            message: MessageId { handle: reader.read()?, sequence: reader.read()? },
            chunk: reader.read()?,
            clock_us: reader.read()?,
            crc32: reader.read()?,
        })
    }

    /// The CRC that this header and `payload` must carry.
    #[must_use]
    pub fn crc_with(&self, payload: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&Self { crc32: 0, ..*self }.to_bytes());
        hasher.update(payload);
        hasher.finalize()
    }

    /// Sets the CRC flag and field for `payload`.
    pub fn protect(&mut self, payload: &[u8]) {
        self.flags = self.flags.with(Flags::CRC);
        self.crc32 = self.crc_with(payload);
    }

    /// Checks length and CRC of `payload` against the header.
    ///
    /// # Errors
    /// [`DecodeError::Field`] for a wrong length or an unprotected datagram, [`DecodeError::Checksum`].
    pub fn verify(&self, payload: &[u8]) -> Result<(), DecodeError> {
        if payload.len() != usize::from(self.payload_bytes) {
            return Err(DecodeError::Field("payload length"));
        }
        if !self.flags.has(Flags::CRC) {
            return Err(DecodeError::Field("crc flag"));
        }
        if self.crc_with(payload) == self.crc32 { Ok(()) } else { Err(DecodeError::Checksum) }
    }
}

layout! {
    /// Body of an ACK, 64 bytes: what arrived, when, and how much more may be sent. Up to
    /// [`ACK_BLOCKS_MAX`] more blocks of the bitmap, 32 bytes each, may follow it, after as many as the header's
    /// `message.handle` says are left out.
    Ack {
        /// Every packet count below this one arrived or was given up by its sender ([`Ping`]).
        cumulative: u64,
        /// Largest packet count that arrived; zero before the first.
        largest: u64,
        /// `clock_us` of the packet that is `largest`.
        echo_us: u32,
        /// How long the receiver held that packet back.
        delay_us: u32,
        /// Total payload bytes the sender may have sent since the session began, every DATA datagram
        /// counted as a whole chunk: packet p of scheduled data may go when (p + 1) x chunk <= limit.
        credit_limit_bytes: u64,
        /// Bit i: packet `cumulative + i` arrived; 256 bits, least significant byte and bit first.
        selective: [u8; 32],
    }
}

layout! {
    /// Body of a CREDIT.
    Credit {
        /// As in [`Ack`].
        credit_limit_bytes: u64,
    }
}

layout! {
    /// Body of a PING.
    Ping {
        /// Packets of DATA below this count arrived or will never be asked for again.
        floor: u64,
    }
}

layout! {
    /// Body of a BYE.
    Bye {
        /// Why: 0 leaving, 1 restarting, 2 refused, 3 the sender's packet numbers are used up.
        reason: u16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            kind: Kind::Data,
            flags: Flags::LAST_OF_MSG,
            payload_bytes: 5,
            receiver: 7,
            packet: 1 << 40,
            message: MessageId { handle: 3, sequence: 9 },
            chunk: 11,
            clock_us: 13,
            crc32: 0,
        }
    }

    #[test]
    fn a_header_survives_the_wire() {
        let mut sent = header();
        sent.protect(b"hello");
        let received = Header::parse(&sent.to_bytes()).unwrap();
        assert_eq!(received, sent);
        assert_eq!(received.verify(b"hello"), Ok(()));
    }

    #[test]
    fn a_packet_number_falls_into_lane_channel_and_count() {
        for channel in [0, 1, 2, 70_000, CHANNEL_MAX] {
            for lane in [0, CONTROL_PACKET_FIRST, 3 << 62] {
                for count in [0, 1, COUNT_MAX] {
                    let packet = lane | packet_first(channel) | count;
                    assert_eq!((channel_of(packet), count_of(packet)), (channel, count));
                    assert_eq!(packet >> 62, lane >> 62);
                }
            }
        }
    }

    #[test]
    fn sealed_and_plaintext_headers_are_never_taken_for_each_other() {
        let sealed = Header { flags: Flags::SEALED, ..header() };
        let mut datagram = [0; HEADER_BYTES + 5 + TAG_BYTES];
        datagram[..HEADER_BYTES].copy_from_slice(&sealed.to_bytes());
        assert_eq!(Header::parse_sealed(&datagram), Ok(sealed));
        assert_eq!(Header::parse(&datagram), Err(DecodeError::Field("flags")));
        assert!(Header::parse_sealed(&header().to_bytes()).is_err());
        assert_eq!(
            Header::parse_sealed(&datagram[..datagram.len() - 1]),
            Err(DecodeError::Field("payload length"))
        );
        datagram[HEADER_BYTES - 1] = 1;
        assert_eq!(Header::parse_sealed(&datagram), Err(DecodeError::Checksum));
        let both = Header { flags: Flags::SEALED.with(Flags::CRC), ..sealed };
        datagram[..HEADER_BYTES].copy_from_slice(&both.to_bytes());
        assert_eq!(Header::parse_sealed(&datagram), Err(DecodeError::Field("flags")));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut sent = header();
        sent.protect(b"hello");
        let mut datagram = [0; HEADER_BYTES + 5];
        datagram[..HEADER_BYTES].copy_from_slice(&sent.to_bytes());
        datagram[HEADER_BYTES..].copy_from_slice(b"hello");
        for bit in 0..datagram.len() * 8 {
            let mut bad = datagram;
            bad[bit / 8] ^= 1 << (bit % 8);
            let accepted = Header::parse(&bad).and_then(|h| h.verify(&bad[HEADER_BYTES..]));
            assert!(accepted.is_err(), "bit {bit}");
        }
        for len_bytes in 0..HEADER_BYTES {
            assert!(Header::parse(&datagram[..len_bytes]).is_err());
        }
    }
}
