//! What a connection wants on the wire: a train of chunks, or one control datagram. Owned values without
//! heap memory, so that they cross the engine by move.

use core::fmt;
use core::ops::Deref;
use plesio_wire::Span;
use plesio_wire::codec::{Wire, Writer};
use plesio_wire::data::{
    ACK_BLOCKS_MAX, CHUNK_BYTES_LOOPBACK, DATAGRAM_BYTES_MAX, Flags, HEADER_BYTES, Header, Kind, MessageId,
};

/// Most datagrams in one train: the kernel's limit for segmentation offload.
pub const SEGMENTS_MAX: usize = 64;

/// One thing to put on the wire.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "moved once per train; a box would allocate per train")]
pub enum Transmit {
    /// Chunks of one message.
    Train(Train),
    /// An acknowledgement, a grant, a question or a goodbye.
    Control(Control),
}

/// What lies in a caller's train, or one control datagram.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "moved once per datagram; a box would allocate for each")]
pub enum Next {
    /// The train was filled.
    Train,
    /// As in [`Transmit`].
    Control(Control),
}

/// Up to 64 datagrams of equal size; the last may be shorter. The headers lack their CRC.
///
/// What the socket does not take may be dropped: it counts as lost and comes again.
#[derive(Clone)]
pub struct Train {
    parts: [(Header, Span); SEGMENTS_MAX],
    len: usize,
}

impl Default for Train {
    fn default() -> Self {
        Self { parts: [(BLANK, Span { region: 0, offset_bytes: 0, len_bytes: 0 }); SEGMENTS_MAX], len: 0 }
    }
}

impl Train {
    pub(crate) const fn clear(&mut self) {
        self.len = 0;
    }

    /// How many chunks of this size one train carries.
    pub(crate) fn segments_max(chunk_bytes: u32) -> usize {
        (DATAGRAM_BYTES_MAX / (HEADER_BYTES + chunk_bytes as usize)).clamp(1, SEGMENTS_MAX)
    }

    pub(crate) const fn push(&mut self, header: Header, span: Span) {
        self.parts[self.len] = (header, span);
        self.len += 1;
    }

    /// Asks for an acknowledgement with the last datagram.
    pub(crate) fn ask(&mut self) {
        if let Some((header, _)) = self.parts[..self.len].last_mut() {
            header.flags = header.flags.with(Flags::ACK_REQ);
        }
    }
}

impl Deref for Train {
    type Target = [(Header, Span)];
    fn deref(&self) -> &[(Header, Span)] {
        &self.parts[..self.len]
    }
}

impl fmt::Debug for Train {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A control datagram with its body; the header lacks its CRC.
#[derive(Clone)]
pub struct Control {
    /// The header; its payload length is the body's.
    pub header: Header,
    body: [u8; BODY_BYTES_MAX],
}

impl Control {
    /// A datagram whose body is `value`, followed by the `extra` bytes that `fill` writes.
    pub(crate) fn new<T: Wire>(
        header: Header,
        value: &T,
        extra: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Self {
        let mut body = [0; BODY_BYTES_MAX];
        let mut writer = Writer::new(&mut body);
        writer.write(value);
        let len_bytes = writer.len_bytes();
        fill(&mut body[len_bytes..len_bytes + extra]);
        Self { header: Header { payload_bytes: (len_bytes + extra) as u16, ..header }, body }
    }

    /// A datagram of so much padding.
    pub(crate) const fn padded(header: Header, payload_bytes: u16) -> Self {
        Self { header: Header { payload_bytes, ..header }, body: [0; BODY_BYTES_MAX] }
    }

    /// The same, as a question about a message or the answer to one.
    pub(crate) const fn about(mut self, message: MessageId, number: u32) -> Self {
        self.header.message = message;
        self.header.chunk = number;
        self
    }

    /// The bytes behind the header; of a PROBE as many as a chunk has.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        if self.header.kind == Kind::Probe {
            return &PADDING[..usize::from(self.header.payload_bytes).min(PADDING.len())];
        }
        &self.body[..usize::from(self.header.payload_bytes).min(BODY_BYTES_MAX)]
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("header", &self.header).field("body", &self.body()).finish()
    }
}

static PADDING: [u8; CHUNK_BYTES_LOOPBACK as usize] = [0; CHUNK_BYTES_LOOPBACK as usize];
const BODY_BYTES_MAX: usize = 64 + 32 * ACK_BLOCKS_MAX;
const BLANK: Header = Header {
    kind: Kind::Data,
    flags: Flags::NONE,
    payload_bytes: 0,
    receiver: 0,
    packet: 0,
    message: MessageId { handle: 0, sequence: 0 },
    chunk: 0,
    clock_us: 0,
    crc32: 0,
};
