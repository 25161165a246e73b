//! The data plane's sealer and opener, and the session's own words on the same keys.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use plesio_wire::data::{
    COUNT_MAX, DATAGRAM_BYTES_MAX, Flags, HEADER_BYTES, Header, Kind, OWN_PACKET_FIRST, TAG_BYTES,
    channel_of, count_of,
};
use plesio_wire::handshake::Suite;

use super::channels::{Channels, Place};
use super::{SealError, Usage};
use crate::Secret;
use crate::cipher::Key;
use crate::refusal::Refusal;
use crate::replay::DataWindow;

const LANE_SHIFT: u32 = 62;

/// Who numbers a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lane {
    Data,
    Control,
    Own,
}

impl Lane {
    const fn of(packet: u64) -> Option<Self> {
        match packet >> LANE_SHIFT {
            0 => Some(Self::Data),
            2 => Some(Self::Control),
            3 => Some(Self::Own),
            _ => None,
        }
    }
}

/// Of a channel: the smallest count that each lane still has.
#[derive(Debug, Default)]
struct Counts {
    data: u64,
    control: u64,
}

impl Counts {
    const fn of(&mut self, lane: Lane) -> &mut u64 {
        match lane {
            Lane::Data => &mut self.data,
            Lane::Control | Lane::Own => &mut self.control,
        }
    }
}

/// Of a channel: which counts of each lane were opened.
#[derive(Debug, Default)]
struct Windows {
    data: DataWindow,
    control: DataWindow,
}

/// Seals what one end of a session sends on the data plane. Not `Clone`: a number must not be sealed twice.
#[derive(Debug)]
pub struct DataSealer {
    suite: Suite,
    key: Key,
    receiver: u32,
    counts: Channels<Counts>,
    sealed_packets: u64,
    packets_max: u64,
    usage: Arc<Usage>,
}

impl DataSealer {
    pub(super) fn new(
        suite: Suite,
        secret: &Secret<32>,
        receiver: u32,
        packets_max: u64,
        usage: Arc<Usage>,
    ) -> Self {
        let key = Key::new(suite, secret);
        Self { suite, key, receiver, counts: Channels::new(), sealed_packets: 0, packets_max, usage }
    }

    /// What both ends came to.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Index by which the peer finds its keys: what every header will carry.
    #[must_use]
    pub const fn receiver(&self) -> u32 {
        self.receiver
    }

    /// Whether a payload of so many bytes is sealed into its datagram in one pass, rather than moved there first.
    #[must_use]
    pub const fn seals_apart(&self, payload_bytes: usize) -> bool {
        self.key.goes_apart(payload_bytes)
    }

    /// Packets sealed so far.
    #[must_use]
    pub const fn sealed_packets(&self) -> u64 {
        self.sealed_packets
    }

    /// Seals `payload` into `datagram`: header, sealed payload, tag. Length, receiver, flags and checksum of
    /// `header` are set here; its packet number is the caller's, and rises within its lane and channel. Returns the
    /// datagram's length.
    ///
    /// # Errors
    /// As [`SealError`]; nothing was used up then.
    pub fn seal_data(
        &mut self,
        header: &mut Header,
        payload: &[u8],
        datagram: &mut [u8],
    ) -> Result<usize, SealError> {
        self.admit(header.packet, payload.len(), datagram.len())?;
        Ok(self.finish(header, Some(payload), payload.len(), datagram))
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
        Ok(self.finish(header, None, payload_bytes, datagram))
    }

    /// Uses the number up, or changes nothing.
    fn admit(&mut self, packet: u64, payload_bytes: usize, room_bytes: usize) -> Result<(), SealError> {
        let needed_bytes = HEADER_BYTES.saturating_add(payload_bytes).saturating_add(TAG_BYTES);
        if needed_bytes > room_bytes || needed_bytes > DATAGRAM_BYTES_MAX {
            return Err(SealError::Size { needed_bytes });
        }
        let lane = match Lane::of(packet) {
            Some(lane @ (Lane::Data | Lane::Control)) => lane,
            Some(Lane::Own) | None => return Err(SealError::NumberUsed { next: 0 }),
        };
        if self.sealed_packets >= self.packets_max {
            return Err(SealError::Exhausted);
        }
        let (channel, count) = (channel_of(packet), count_of(packet));
        // A channel that is older than all that are kept may have used any number.
        let place = self.counts.find(channel);
        let used = |next: u64| SealError::NumberUsed { next: packet & !COUNT_MAX | next };
        let counts = self.counts.enter(channel, place).ok_or(used(COUNT_MAX))?;
        let next = counts.of(lane);
        if count < *next {
            return Err(used(*next));
        }
        *next = count + 1;
        self.sealed_packets += 1;
        self.usage.sealed.store(self.sealed_packets, Ordering::Relaxed);
        Ok(())
    }

    fn finish(
        &self,
        header: &mut Header,
        payload: Option<&[u8]>,
        payload_bytes: usize,
        datagram: &mut [u8],
    ) -> usize {
        header.receiver = self.receiver;
        seal(&self.key, header, payload, payload_bytes, datagram)
    }
}

/// Seals what a session says for itself, in a lane of its own: so it can hold the same key as the
/// [`DataSealer`] and never meets its numbers.
#[derive(Debug)]
pub(crate) struct OwnSealer {
    key: Key,
    receiver: u32,
    next: u64,
}

/// Bytes of a session's own datagram.
pub(crate) const OWN_BYTES: usize = HEADER_BYTES + TAG_BYTES;

impl OwnSealer {
    pub(super) fn new(suite: Suite, secret: &Secret<32>, receiver: u32) -> Self {
        Self { key: Key::new(suite, secret), receiver, next: 0 }
    }

    /// An empty datagram: it shows that the sender has these keys.
    pub(crate) fn seal(&mut self) -> [u8; OWN_BYTES] {
        let mut header = Header {
            kind: Kind::Probe,
            flags: Flags::NONE,
            payload_bytes: 0,
            receiver: self.receiver,
            packet: OWN_PACKET_FIRST | self.next,
            message: Default::default(),
            chunk: 0,
            clock_us: 0,
            crc32: 0,
        };
        self.next += 1; // said a few times in a session's life
        let mut datagram = [0; OWN_BYTES];
        seal(&self.key, &mut header, None, 0, &mut datagram);
        datagram
    }
}

/// Seals `payload`, or what lies in its place in the datagram already.
fn seal(
    key: &Key,
    header: &mut Header,
    payload: Option<&[u8]>,
    payload_bytes: usize,
    datagram: &mut [u8],
) -> usize {
    header.flags = header.flags.sealed();
    header.payload_bytes = payload_bytes as u16; // admit: below DATAGRAM_BYTES_MAX
    header.crc32 = 0;
    let end = HEADER_BYTES + payload_bytes;
    let head = header.to_bytes();
    datagram[..HEADER_BYTES].copy_from_slice(&head);
    let body = &mut datagram[HEADER_BYTES..end];
    let tag = match payload {
        Some(payload) => key.seal_apart(header.packet, &head, payload, body),
        None => key.seal(header.packet, &head, body),
    };
    datagram[end..end + TAG_BYTES].copy_from_slice(&tag);
    end + TAG_BYTES
}

/// Opens what arrives on the data plane under one receiver index.
#[derive(Debug)]
pub struct DataOpener {
    key: Key,
    local: u32,
    windows: Channels<Windows>,
    own: Box<DataWindow>,
    opened_packets: u64,
    packets_max: u64,
    usage: Arc<Usage>,
}

impl DataOpener {
    pub(super) fn new(
        suite: Suite,
        secret: &Secret<32>,
        local: u32,
        packets_max: u64,
        usage: Arc<Usage>,
    ) -> Self {
        let (key, windows) = (Key::new(suite, secret), Channels::new());
        Self { key, local, windows, own: Box::default(), opened_packets: 0, packets_max, usage }
    }

    /// The receiver index that datagrams for it carry.
    #[must_use]
    pub const fn local(&self) -> u32 {
        self.local
    }

    /// Whether [`open_data`](Self::open_data) opens a payload of so many bytes in one pass, rather than moves it first.
    #[must_use]
    pub const fn opens_apart(&self, payload_bytes: usize) -> bool {
        self.key.goes_apart(payload_bytes)
    }

    /// Packets opened so far.
    #[must_use]
    pub const fn opened_packets(&self) -> u64 {
        self.opened_packets
    }

    /// Opens the payload of a whole sealed datagram straight into `payload`, whose first bytes it fills.
    /// Only room that nobody reads yet may be given: after a refusal it is zero where it was written. Returns the
    /// header. A packet number from [`OWN_PACKET_FIRST`] on is the session's own.
    ///
    /// # Errors
    /// Malformed (also: `payload` is too small), of another session, seen before, altered, or the keys are used up.
    pub fn open_data(&mut self, datagram: &[u8], payload: &mut [u8]) -> Result<Header, Refusal> {
        let header = Header::parse_sealed(datagram).map_err(|_| Refusal::Malformed)?;
        let payload_bytes = usize::from(header.payload_bytes);
        let room = payload.get_mut(..payload_bytes).ok_or(Refusal::Malformed)?;
        let place = self.check(&header)?;
        let end = HEADER_BYTES + payload_bytes;
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&datagram[end..]);
        let (head, sealed) = (&datagram[..HEADER_BYTES], &datagram[HEADER_BYTES..end]);
        let fits = self.key.open_apart(header.packet, head, sealed, room, &tag);
        self.finish(&header, place, fits, room)?;
        Ok(header)
    }

    /// As [`open_data`](Self::open_data), the payload opened where it lies in the datagram.
    ///
    /// # Errors
    /// As [`open_data`](Self::open_data).
    pub fn open_data_in_place(&mut self, datagram: &mut [u8]) -> Result<Header, Refusal> {
        let header = Header::parse_sealed(datagram).map_err(|_| Refusal::Malformed)?;
        let (head, rest) = datagram.split_at_mut(HEADER_BYTES);
        let (body, tag) = rest.split_at_mut(usize::from(header.payload_bytes));
        self.open_data_apart(head, body, tag)
    }

    /// As [`open_data_in_place`](Self::open_data_in_place), the three parts of the datagram lying apart: so a payload is
    /// opened where the kernel has put it, and nothing is moved.
    ///
    /// # Errors
    /// As [`open_data`](Self::open_data).
    pub fn open_data_apart(&mut self, head: &[u8], body: &mut [u8], tag: &[u8]) -> Result<Header, Refusal> {
        let header = Header::parse_sealed_head(head).map_err(|_| Refusal::Malformed)?;
        let tag = tag.try_into().map_err(|_| Refusal::Malformed)?;
        if usize::from(header.payload_bytes) != body.len() || head.len() != HEADER_BYTES {
            return Err(Refusal::Malformed);
        }
        let place = self.check(&header)?;
        let fits = self.key.open(header.packet, head, body, tag);
        self.finish(&header, place, fits, body)?;
        Ok(header)
    }

    /// Where the packet's channel stands, when its number may be opened; changes nothing.
    fn check(&self, header: &Header) -> Result<(Lane, Place), Refusal> {
        if header.receiver != self.local {
            return Err(Refusal::UnknownReceiver);
        }
        let lane = Lane::of(header.packet).ok_or(Refusal::Malformed)?;
        if self.opened_packets >= self.packets_max {
            return Err(Refusal::Exhausted);
        }
        let (channel, count) = (channel_of(header.packet), count_of(header.packet));
        let (place, fits) = match lane {
            Lane::Own if channel != 0 => return Err(Refusal::Malformed),
            Lane::Own => (Place::Old, self.own.check(count)),
            Lane::Data | Lane::Control => {
                let place = self.windows.find(channel);
                let seen = self.windows.at(place).map(|windows| match lane {
                    Lane::Data => &windows.data,
                    Lane::Control | Lane::Own => &windows.control,
                });
                (place, place != Place::Old && seen.is_none_or(|window| window.check(count)))
            }
        };
        if fits { Ok((lane, place)) } else { Err(Refusal::Replay) }
    }

    fn finish(
        &mut self,
        header: &Header,
        (lane, place): (Lane, Place),
        fits: bool,
        body: &mut [u8],
    ) -> Result<(), Refusal> {
        if !fits {
            body.fill(0);
            return Err(Refusal::Authentication);
        }
        let count = count_of(header.packet);
        match (lane, self.windows.enter(channel_of(header.packet), place)) {
            (Lane::Data, Some(windows)) => windows.data.mark(count),
            (Lane::Control, Some(windows)) => windows.control.mark(count),
            (_, _) => self.own.mark(count),
        }
        self.opened_packets += 1;
        self.usage.opened.store(self.opened_packets, Ordering::Relaxed);
        Ok(())
    }
}
