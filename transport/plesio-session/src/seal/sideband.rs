//! The sideband's sealer and opener, and all keys of one peer together.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use plesio_wire::data::TAG_BYTES;
use plesio_wire::handshake::Suite;
use plesio_wire::sideband;

use super::{SealError, Usage};
use crate::Secret;
use crate::cipher::Key;
use crate::refusal::Refusal;
use crate::replay::SidebandWindow;

/// Seals what one end of a session sends on the sideband. Not `Clone`: a number must not be sealed twice.
#[derive(Debug)]
pub struct SidebandSealer {
    key: Key,
    next: u64,
    packets_max: u64,
    usage: Arc<Usage>,
}

impl SidebandSealer {
    pub(super) fn new(suite: Suite, secret: &Secret<32>, packets_max: u64, usage: Arc<Usage>) -> Self {
        Self { key: Key::new(suite, secret), next: 0, packets_max, usage }
    }

    /// Seals an encoded sideband datagram into `datagram`; its sequence number becomes the session's. Returns
    /// the length.
    ///
    /// # Errors
    /// As [`SealError`]; nothing was used up then.
    pub fn seal(&mut self, plain: &[u8], datagram: &mut [u8]) -> Result<usize, SealError> {
        if self.next >= self.packets_max {
            return Err(SealError::Exhausted);
        }
        let needed_bytes = plain.len().saturating_add(TAG_BYTES);
        if needed_bytes > datagram.len() || needed_bytes > sideband::DATAGRAM_BYTES_MAX {
            return Err(SealError::Size { needed_bytes });
        }
        let number = self.next;
        let header = sideband::sealed_header(plain, number as u32).map_err(|_| SealError::Sideband)?;
        self.next += 1;
        self.usage.sideband_sealed.store(self.next, Ordering::Relaxed);
        datagram[..plain.len()].copy_from_slice(plain);
        datagram[..sideband::HEADER_BYTES].copy_from_slice(&header);
        let body = &mut datagram[sideband::HEADER_BYTES..plain.len()];
        let tag = self.key.seal(number, &header, body);
        datagram[plain.len()..needed_bytes].copy_from_slice(&tag);
        Ok(needed_bytes)
    }
}

/// Opens what arrives on the sideband under one set of keys.
#[derive(Debug)]
pub struct SidebandOpener {
    key: Key,
    local: u32,
    window: SidebandWindow,
}

impl SidebandOpener {
    pub(super) fn new(suite: Suite, secret: &Secret<32>, local: u32) -> Self {
        Self { key: Key::new(suite, secret), local, window: SidebandWindow::default() }
    }

    /// The receiver index that these keys have on the data plane.
    #[must_use]
    pub const fn local(&self) -> u32 {
        self.local
    }

    /// Opens a sealed sideband datagram into its plaintext form at the start of `plain`, which
    /// [`sideband::decode`] reads. Returns its length.
    ///
    /// # Errors
    /// Malformed, seen before, or altered; `plain` is zero where it was written.
    pub fn open(&mut self, datagram: &[u8], plain: &mut [u8]) -> Result<usize, Refusal> {
        let sequence = sideband::sealed_sequence(datagram).map_err(|_| Refusal::Malformed)?;
        let number = self.window.extend(sequence);
        if !self.window.check(number) {
            return Err(Refusal::Replay);
        }
        let end = datagram.len() - TAG_BYTES;
        let plain = plain.get_mut(..end).ok_or(Refusal::Malformed)?;
        plain.copy_from_slice(&datagram[..end]);
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&datagram[end..]);
        let (head, body) = plain.split_at_mut(sideband::HEADER_BYTES);
        if !self.key.open(number, head, body, &tag) {
            plain.fill(0);
            return Err(Refusal::Authentication);
        }
        self.window.mark(number);
        sideband::restore_plain(plain).map_err(|_| Refusal::Malformed)?;
        Ok(end)
    }
}

/// Sets of keys that receive at once: current, previous, next.
const OPENERS_MAX: usize = 3;

/// The sideband's keys with one peer. The sideband's header names no session, so the newest keys that fit are meant.
#[derive(Debug, Default)]
pub struct SidebandKeys {
    sealer: Option<SidebandSealer>,
    /// The newest first; the flag says that something was opened with them.
    openers: [Option<(SidebandOpener, bool)>; OPENERS_MAX],
}

/// A sideband datagram that opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SidebandOpened {
    /// Length of its plaintext form.
    pub len_bytes: usize,
    /// Set at the first datagram of a set of keys: their index, which `Sessions::handle_confirmed` wants to know.
    pub confirms: Option<u32>,
}

impl SidebandKeys {
    /// What goes out is sealed with `sealer` from now on.
    pub fn set_sealer(&mut self, sealer: SidebandSealer) {
        self.sealer = Some(sealer);
    }

    /// Nothing goes out any more.
    pub fn remove_sealer(&mut self) {
        self.sealer = None;
    }

    /// What comes in may also be sealed for `opener`; the oldest of too many goes.
    pub fn add_opener(&mut self, opener: SidebandOpener) {
        self.openers.rotate_right(1);
        self.openers[0] = Some((opener, false));
    }

    /// The keys of this index open nothing any more.
    pub fn remove_opener(&mut self, local: u32) {
        for place in &mut self.openers {
            place.take_if(|(opener, _)| opener.local == local);
        }
    }

    /// Indices of the keys that receive.
    pub fn locals(&self) -> impl Iterator<Item = u32> {
        self.openers.iter().flatten().map(|(opener, _)| opener.local())
    }

    /// Whether there is nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sealer.is_none() && self.openers.iter().all(Option::is_none)
    }

    /// As [`SidebandSealer::seal`].
    ///
    /// # Errors
    /// As there, and without a sealer [`SealError::NoSession`].
    pub fn seal(&mut self, plain: &[u8], datagram: &mut [u8]) -> Result<usize, SealError> {
        self.sealer.as_mut().ok_or(SealError::NoSession)?.seal(plain, datagram)
    }

    /// As [`SidebandOpener::open`], with whichever keys fit.
    ///
    /// # Errors
    /// Of the oldest keys that were tried; without keys [`Refusal::UnknownReceiver`].
    pub fn open(&mut self, datagram: &[u8], plain: &mut [u8]) -> Result<SidebandOpened, Refusal> {
        let mut refusal = Refusal::UnknownReceiver;
        for (opener, used) in self.openers.iter_mut().flatten() {
            match opener.open(datagram, plain) {
                Ok(len_bytes) => {
                    let confirms = (!core::mem::replace(used, true)).then_some(opener.local);
                    return Ok(SidebandOpened { len_bytes, confirms });
                }
                Err(cause) => refusal = cause,
            }
        }
        Err(refusal)
    }
}
