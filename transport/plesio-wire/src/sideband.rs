//! The sideband: one 32-byte header, then one message.
//!
//! ```text
//!  0 magic 0x4350 | 2 version | 3 type | 4 flags | 6 length | 8 mesh id u64 | 16 view u32 | 20 src | 22 dst
//! 24 sequence u32 | 28 crc32 of the whole datagram, this field zero
//! ```
//!
//! [`encode`] and [`decode`] are the only way in and out. Datagrams never exceed [`DATAGRAM_BYTES_MAX`].

mod body;
mod message;
mod order;
mod relay;
mod sealed;

pub use body::{
    Accept, Address, Beat, Commit, Epoch, Have, HaveEntry, Join, Last, Leave, Nack, Probe, ProbeReply,
    Propose, Query, Ready, Revive, Roster, RosterEntry, Shard, ShortBeat, Snapshot, Speeds, nack, revive,
    state,
};

pub use message::Message;
pub use order::{Order, OrderAck, OrderKind, OrderSignature, SIGNED_BYTES, SIGNERS_MAX};
pub use relay::{CARRIED_BYTES_MAX, Leg, Relay};
pub use sealed::{restore_plain, sealed_header, sealed_sequence};

use crate::codec::{DecodeError, Reader, Writer};

/// Largest sideband datagram: IPv6's minimum MTU less its headers.
pub const DATAGRAM_BYTES_MAX: usize = 1_232;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 32;
/// Source index of a node that is not a member yet; destination index that means all.
pub const INDEX_NONE: u16 = 0xFFFF;

const MAGIC: u16 = 0x4350;
const VERSION: u8 = 1;
/// None that a plaintext datagram carries; AUTH (bit 0) belongs to the sealed form.
const FLAGS_KNOWN: u16 = 0;
const CRC_AT: usize = 28;

/// The fields of the header that mean something to a machine.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Header {
    /// Which mesh; others' datagrams are dropped.
    pub mesh: u64,
    /// Number of the sender's view.
    pub view: u32,
    /// Sender's index in that view, or [`INDEX_NONE`].
    pub src: u16,
    /// Receiver's index, or [`INDEX_NONE`] for all.
    pub dst: u16,
    /// Rises per (source, destination); serial-number arithmetic (RFC 1982).
    pub sequence: u32,
}

/// Writes a datagram into `buffer` and returns its bytes.
pub fn encode<'a>(header: &Header, message: &Message, buffer: &'a mut [u8; DATAGRAM_BYTES_MAX]) -> &'a [u8] {
    let mut writer = Writer::new(buffer);
    writer.write(&MAGIC);
    writer.write(&VERSION);
    writer.write(&message.code());
    writer.write(&0u16);
    writer.write(&0u16);
    writer.write(&header.mesh);
    writer.write(&header.view);
    writer.write(&header.src);
    writer.write(&header.dst);
    writer.write(&header.sequence);
    writer.write(&0u32);
    message.encode_body(&mut writer);
    let len_bytes = writer.len_bytes();
    buffer[6..8].copy_from_slice(&(len_bytes as u16).to_le_bytes());
    let crc = crc32fast::hash(&buffer[..len_bytes]);
    buffer[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    &buffer[..len_bytes]
}

/// Reads a datagram: magic, version, length, checksum, type, body, in this order.
///
/// # Errors
/// The first check that fails; the datagram is to be counted and dropped.
pub fn decode(datagram: &[u8]) -> Result<(Header, Message), DecodeError> {
    let Envelope { kind, header, crc, mut reader, .. } = open(datagram, FLAGS_KNOWN)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&datagram[..CRC_AT]);
    hasher.update(&[0; HEADER_BYTES - CRC_AT]);
    hasher.update(&datagram[HEADER_BYTES..]);
    if hasher.finalize() != crc {
        return Err(DecodeError::Checksum);
    }
    let message = Message::decode_body(kind, &mut reader)?;
    reader.finish()?;
    Ok((header, message))
}

/// What stands before the body, in order but for the checksum.
struct Envelope<'a> {
    kind: u8,
    flags: u16,
    header: Header,
    crc: u32,
    /// At the body.
    reader: Reader<'a>,
}

/// Checks magic, version, flags and length.
fn open(datagram: &[u8], flags_known: u16) -> Result<Envelope<'_>, DecodeError> {
    if datagram.len() > DATAGRAM_BYTES_MAX {
        return Err(DecodeError::Trailing);
    }
    let mut reader = Reader::new(datagram);
    if reader.read::<u16>()? != MAGIC {
        return Err(DecodeError::Magic);
    }
    let version = reader.read::<u8>()?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let kind = reader.read()?;
    let flags: u16 = reader.read()?;
    if flags & !flags_known != 0 {
        return Err(DecodeError::Field("flags"));
    }
    if usize::from(reader.read::<u16>()?) != datagram.len() {
        return Err(DecodeError::Field("length"));
    }
    let header = Header {
        mesh: reader.read()?,
        view: reader.read()?,
        src: reader.read()?,
        dst: reader.read()?,
        sequence: reader.read()?,
    };
    let crc = reader.read()?;
    Ok(Envelope { kind, flags, header, crc, reader })
}

#[cfg(test)]
mod tests;
