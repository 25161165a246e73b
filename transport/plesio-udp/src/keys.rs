//! What seals and opens on one lane.

use plesio_session::{DataOpener, DataSealer, Refusal, SealError};
use plesio_wire::data::{HEADER_BYTES, Header, OWN_PACKET_FIRST};

use crate::io::OPENERS_MAX;
use crate::{DatagramSink, Peer};

#[derive(Debug, Default)]
pub(crate) struct Keys {
    pub(crate) sealer: Option<DataSealer>,
    /// Oldest first.
    openers: Vec<Opener>,
}

#[derive(Debug)]
struct Opener {
    keys: DataOpener,
    /// Whose what it opens is.
    receiver: u32,
    /// It has opened something.
    seen: bool,
}

/// A datagram that was opened.
#[derive(Clone, Copy)]
pub(crate) struct Opened {
    /// Its receiver is the one that its keys were given for.
    pub(crate) header: Header,
    /// The opener's index.
    pub(crate) local: u32,
    /// Its first.
    pub(crate) first: bool,
    /// Of the session itself.
    pub(crate) own: bool,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self { sealer: None, openers: Vec::with_capacity(OPENERS_MAX) }
    }

    pub(crate) fn sealer(&mut self) -> Result<&mut DataSealer, SealError> {
        self.sealer.as_mut().ok_or(SealError::NoSession)
    }

    pub(crate) fn add(&mut self, keys: DataOpener, receiver: u32) {
        self.remove(keys.local());
        if self.openers.len() == OPENERS_MAX {
            self.openers.remove(0);
        }
        self.openers.push(Opener { keys, receiver, seen: false });
    }

    pub(crate) fn remove(&mut self, local: u32) {
        self.openers.retain(|opener| opener.keys.local() != local);
    }

    /// Opens a datagram where it lies.
    pub(crate) fn open(&mut self, datagram: &mut [u8]) -> Result<Opened, Refusal> {
        let header = Header::parse_sealed(datagram).map_err(|_| Refusal::Malformed)?;
        let (head, rest) = datagram.split_at_mut(HEADER_BYTES);
        let (body, tag) = rest.split_at_mut(usize::from(header.payload_bytes));
        self.open_apart(head, body, tag)
    }

    /// The same with its parts lying apart.
    pub(crate) fn open_apart(&mut self, head: &[u8], body: &mut [u8], tag: &[u8]) -> Result<Opened, Refusal> {
        let sealed = Header::parse_sealed_head(head).map_err(|_| Refusal::Malformed)?;
        self.open_with(sealed.receiver, |opener| opener.open_data_apart(head, body, tag))
    }

    /// Whether the opener of this header opens its payload into another place in one pass.
    pub(crate) fn opens_apart(&self, sealed: &Header) -> bool {
        let found = self.openers.iter().find(|opener| opener.keys.local() == sealed.receiver);
        found.is_some_and(|opener| opener.keys.opens_apart(usize::from(sealed.payload_bytes)))
    }

    /// Opens a datagram of this header into `payload`, which has its length. After a refusal it is zero where it was
    /// written.
    pub(crate) fn open_into(
        &mut self,
        sealed: &Header,
        datagram: &[u8],
        payload: &mut [u8],
    ) -> Result<Opened, Refusal> {
        self.open_with(sealed.receiver, |opener| opener.open_data(datagram, payload))
    }

    fn open_with(
        &mut self,
        local: u32,
        open: impl FnOnce(&mut DataOpener) -> Result<Header, Refusal>,
    ) -> Result<Opened, Refusal> {
        let found = self.openers.iter_mut().find(|opener| opener.keys.local() == local);
        let opener = found.ok_or(Refusal::UnknownReceiver)?;
        let header = open(&mut opener.keys)?;
        Ok(Opened {
            header: Header { receiver: opener.receiver, ..header },
            local,
            first: !core::mem::replace(&mut opener.seen, true),
            own: header.packet >= OWN_PACKET_FIRST,
        })
    }
}

impl Opened {
    /// Tells the sink what is news to the session; true when that is all the datagram was for.
    pub(crate) fn tell(&self, peer: Peer, sink: &mut dyn DatagramSink) -> bool {
        if self.first {
            sink.handle_confirmed(peer, self.local);
        }
        if self.own {
            sink.handle_own(peer, self.local);
        }
        self.own
    }
}
