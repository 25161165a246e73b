//! Packet protection of one session: seals what is sent, opens what arrives.
//!
//! Knows numbers, keys and windows; no peers and no time. Keeps: no number is sealed twice under one key
//! (numbers of a lane only rise, and a sealer cannot be cloned), no number is opened twice, and a key carries
//! no more than its limit.
//!
//! ```text
//! packet number: lane in the two highest bits
//!   0  DATA of the data plane      2  its other kinds      3  the session's own      1  never used
//! ```

use core::fmt;

use plesio_wire::data::{Flags, HEADER_BYTES, Header, TAG_BYTES};
use plesio_wire::handshake::Suite;
use plesio_wire::sideband;

use crate::cipher::Key;
use crate::noise::Keys;
use crate::refusal::Refusal;
use crate::replay::{DataWindow, SidebandWindow};

/// First packet number of the session's own datagrams.
pub(crate) const OWN_PACKET_FIRST: u64 = 3 << 62;
const LANE_SHIFT: u32 = 62;
const LANES: usize = 4;
const LANE_UNUSED: usize = 1;

const fn lane(packet: u64) -> (usize, u64) {
    ((packet >> LANE_SHIFT) as usize, packet & !(3 << LANE_SHIFT))
}

/// Why something was not sealed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SealError {
    /// There is no session with this peer; connect, or wait for its event.
    NoSession,
    /// The packet number was used before; a retransmission takes a new one.
    NumberUsed {
        /// The smallest number that this lane still has.
        next: u64,
    },
    /// The keys have carried what they may; wait for the new ones.
    Exhausted,
    /// The buffer is too small, or the payload too large for a datagram.
    Size {
        /// Bytes that the datagram takes.
        needed_bytes: usize,
    },
    /// Not a sideband datagram in plaintext form.
    Sideband,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSession => f.write_str("no session with this peer; connect first"),
            Self::NumberUsed { next } => {
                write!(f, "packet number used before; number it {next} or higher")
            }
            Self::Exhausted => f.write_str("the session's keys are used up; wait for the new ones"),
            Self::Size { needed_bytes } => {
                write!(f, "the datagram takes {needed_bytes} bytes; give a larger buffer or less payload")
            }
            Self::Sideband => f.write_str("not a plaintext sideband datagram; encode it first"),
        }
    }
}

impl core::error::Error for SealError {}

/// What a session sends with. Not `Clone`: a number must not be sealed twice.
#[derive(Debug)]
pub struct Sealer {
    data: Key,
    sideband: Key,
    receiver: u32,
    next: [u64; LANES],
    sideband_next: u64,
    sealed_packets: u64,
    packets_max: u64,
}

/// What a session receives with.
#[derive(Debug)]
pub struct Opener {
    data: Key,
    sideband: Key,
    windows: [DataWindow; LANES],
    sideband_window: SidebandWindow,
    opened_packets: u64,
    packets_max: u64,
}

pub(crate) fn pair(keys: &Keys, suite: Suite, receiver: u32, packets_max: u64) -> (Sealer, Opener) {
    let sealer = Sealer {
        data: Key::new(suite, &keys.data_send),
        sideband: Key::new(suite, &keys.sideband_send),
        receiver,
        next: [0; LANES],
        sideband_next: 0,
        sealed_packets: 0,
        packets_max,
    };
    let opener = Opener {
        data: Key::new(suite, &keys.data_receive),
        sideband: Key::new(suite, &keys.sideband_receive),
        windows: Default::default(),
        sideband_window: SidebandWindow::default(),
        opened_packets: 0,
        packets_max,
    };
    (sealer, opener)
}

impl Sealer {
    /// Seals `payload` into `datagram`: header, sealed payload, tag. Length, receiver, flags and checksum of
    /// `header` are set here. Returns the datagram's length.
    ///
    /// # Errors
    /// As [`SealError`]; nothing was used up then.
    pub fn seal_data(
        &mut self,
        header: &mut Header,
        payload: &[u8],
        datagram: &mut [u8],
    ) -> Result<usize, SealError> {
        let end = self.admit(header.packet, payload.len(), datagram.len())?;
        datagram[HEADER_BYTES..end].copy_from_slice(payload);
        Ok(self.finish(header, payload.len(), datagram))
    }

    /// As [`seal_data`](Self::seal_data), with the payload already lying behind the header's place.
    ///
    /// # Errors
    /// As [`SealError`]; nothing was used up then.
    pub fn seal_data_in_place(
        &mut self,
        header: &mut Header,
        payload_bytes: usize,
        datagram: &mut [u8],
    ) -> Result<usize, SealError> {
        self.admit(header.packet, payload_bytes, datagram.len())?;
        Ok(self.finish(header, payload_bytes, datagram))
    }

    fn admit(&self, packet: u64, payload_bytes: usize, room_bytes: usize) -> Result<usize, SealError> {
        let needed_bytes = HEADER_BYTES.saturating_add(payload_bytes).saturating_add(TAG_BYTES);
        if needed_bytes > room_bytes || needed_bytes > plesio_wire::data::DATAGRAM_BYTES_MAX {
            return Err(SealError::Size { needed_bytes });
        }
        let (lane, number) = lane(packet);
        if lane == LANE_UNUSED || number < self.next[lane] {
            return Err(SealError::NumberUsed { next: self.next[lane] | (lane as u64) << LANE_SHIFT });
        }
        if self.sealed_packets >= self.packets_max {
            return Err(SealError::Exhausted);
        }
        Ok(HEADER_BYTES + payload_bytes)
    }

    fn finish(&mut self, header: &mut Header, payload_bytes: usize, datagram: &mut [u8]) -> usize {
        let (lane, number) = lane(header.packet);
        self.next[lane] = number + 1;
        self.sealed_packets += 1;
        header.flags = header.flags.sealed();
        header.receiver = self.receiver;
        header.payload_bytes = payload_bytes as u16; // admit: below DATAGRAM_BYTES_MAX
        header.crc32 = 0;
        let end = HEADER_BYTES + payload_bytes;
        let head = header.to_bytes();
        datagram[..HEADER_BYTES].copy_from_slice(&head);
        let tag = self.data.seal(header.packet, &head, &mut datagram[HEADER_BYTES..end]);
        datagram[end..end + TAG_BYTES].copy_from_slice(&tag);
        end + TAG_BYTES
    }

    /// Seals an empty datagram of the session's own.
    pub(crate) fn seal_own(&mut self, datagram: &mut [u8]) -> Result<usize, SealError> {
        let mut header = Header {
            kind: plesio_wire::data::Kind::Probe,
            flags: Flags::NONE,
            payload_bytes: 0,
            receiver: self.receiver,
            packet: OWN_PACKET_FIRST | self.next[3],
            message: Default::default(),
            chunk: 0,
            clock_us: 0,
            crc32: 0,
        };
        self.seal_data(&mut header, &[], datagram)
    }

    /// Seals an encoded sideband datagram into `datagram`; its sequence number becomes the session's. Returns
    /// the length.
    ///
    /// # Errors
    /// As [`SealError`]; nothing was used up then.
    pub fn seal_sideband(&mut self, plain: &[u8], datagram: &mut [u8]) -> Result<usize, SealError> {
        if self.sideband_next >= self.packets_max {
            return Err(SealError::Exhausted);
        }
        let needed_bytes = plain.len().saturating_add(TAG_BYTES);
        if needed_bytes > datagram.len() || needed_bytes > sideband::DATAGRAM_BYTES_MAX {
            return Err(SealError::Size { needed_bytes });
        }
        let number = self.sideband_next;
        let header = sideband::sealed_header(plain, number as u32).map_err(|_| SealError::Sideband)?;
        self.sideband_next += 1;
        datagram[..plain.len()].copy_from_slice(plain);
        datagram[..sideband::HEADER_BYTES].copy_from_slice(&header);
        let body = &mut datagram[sideband::HEADER_BYTES..plain.len()];
        let tag = self.sideband.seal(number, &header, body);
        datagram[plain.len()..needed_bytes].copy_from_slice(&tag);
        Ok(needed_bytes)
    }

    /// Packets sealed so far on the busier of the two planes.
    #[must_use]
    pub fn sealed_packets(&self) -> u64 {
        self.sealed_packets.max(self.sideband_next)
    }
}

impl Opener {
    /// Opens the payload of a whole sealed datagram straight into `payload`, whose first bytes it fills.
    /// Only room that nobody reads yet may be given: after a refusal it is zero. Returns the header.
    ///
    /// # Errors
    /// Malformed (also: `payload` is too small), seen before, altered, or the keys are used up.
    pub fn open_data(&mut self, datagram: &[u8], payload: &mut [u8]) -> Result<Header, Refusal> {
        let header = Header::parse_sealed(datagram).map_err(|_| Refusal::Malformed)?;
        let payload_bytes = usize::from(header.payload_bytes);
        let room = payload.get_mut(..payload_bytes).ok_or(Refusal::Malformed)?;
        self.check(header.packet)?;
        let end = HEADER_BYTES + payload_bytes;
        room.copy_from_slice(&datagram[HEADER_BYTES..end]);
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&datagram[end..]);
        self.finish(&header, &datagram[..HEADER_BYTES], room, &tag)?;
        Ok(header)
    }

    /// As [`open_data`](Self::open_data), the payload opened where it lies in the datagram.
    ///
    /// # Errors
    /// As [`open_data`](Self::open_data).
    pub fn open_data_in_place(&mut self, datagram: &mut [u8]) -> Result<Header, Refusal> {
        let header = Header::parse_sealed(datagram).map_err(|_| Refusal::Malformed)?;
        self.check(header.packet)?;
        let (head, rest) = datagram.split_at_mut(HEADER_BYTES);
        let (body, tag_at) = rest.split_at_mut(usize::from(header.payload_bytes));
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(tag_at);
        self.finish(&header, head, body, &tag)?;
        Ok(header)
    }

    fn check(&self, packet: u64) -> Result<(), Refusal> {
        let (lane, number) = lane(packet);
        if lane == LANE_UNUSED {
            return Err(Refusal::Malformed);
        }
        if self.opened_packets >= self.packets_max {
            return Err(Refusal::Exhausted);
        }
        if self.windows[lane].check(number) { Ok(()) } else { Err(Refusal::Replay) }
    }

    fn finish(
        &mut self,
        header: &Header,
        head: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Refusal> {
        if !self.data.open(header.packet, head, body, tag) {
            body.fill(0);
            return Err(Refusal::Authentication);
        }
        let (lane, number) = lane(header.packet);
        self.windows[lane].mark(number);
        self.opened_packets += 1;
        Ok(())
    }

    /// Opens a sealed sideband datagram into its plaintext form at the start of `plain`, which
    /// [`sideband::decode`] reads. Returns its length.
    ///
    /// # Errors
    /// As [`open_data`](Self::open_data).
    pub fn open_sideband(&mut self, datagram: &[u8], plain: &mut [u8]) -> Result<usize, Refusal> {
        let sequence = sideband::sealed_sequence(datagram).map_err(|_| Refusal::Malformed)?;
        let number = self.sideband_window.extend(sequence);
        if !self.sideband_window.check(number) {
            return Err(Refusal::Replay);
        }
        let end = datagram.len() - TAG_BYTES;
        let plain = plain.get_mut(..end).ok_or(Refusal::Malformed)?;
        plain.copy_from_slice(&datagram[..end]);
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&datagram[end..]);
        let (head, body) = plain.split_at_mut(sideband::HEADER_BYTES);
        if !self.sideband.open(number, head, body, &tag) {
            plain.fill(0);
            return Err(Refusal::Authentication);
        }
        self.sideband_window.mark(number);
        sideband::restore_plain(plain).map_err(|_| Refusal::Malformed)?;
        Ok(end)
    }

    /// Packets opened so far on the data plane.
    #[must_use]
    pub const fn opened_packets(&self) -> u64 {
        self.opened_packets
    }
}
