//! The seal on every datagram: which keys an address has, and whose keys open what comes in.
//!
//! Knows nodes by key, their addresses as they are told or shown, and the keys that sessions made. Keeps: nothing goes
//! out that is not sealed, and nothing comes in but under the name of whoever sealed it. A sealed datagram names no
//! session: the keys of who was last heard from its address are tried first, then all, so often and no more.

use plesio_session::{Refusal, SealError, SidebandKeys, SidebandOpener, SidebandSealer};
use plesio_wire::sideband::sealed_sequence;
use plesio_wire::{DecodeError, Instant, NodeKey};
use std::net::SocketAddr;

/// Keys of a session with a node, or their end.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeyChange {
    /// What comes in may be sealed for these.
    Open(SidebandOpener),
    /// What goes out is sealed with these from now on.
    Seal(SidebandSealer),
    /// The keys of this index open nothing any more.
    Close(u32),
    /// Nothing goes out any more.
    Expire,
}

#[derive(Debug)]
struct Known {
    key: NodeKey,
    address: Option<SocketAddr>,
    keys: SidebandKeys,
}

/// A datagram that opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Opened {
    /// Who sealed it.
    pub(crate) by: NodeKey,
    pub(crate) len_bytes: usize,
    /// These keys were never used before.
    pub(crate) confirms: Option<u32>,
}

/// Why a datagram did not come in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kept {
    /// Its header is none of ours.
    Decode(DecodeError),
    /// It is not sealed.
    Plaintext,
    /// Nobody's keys open it, or they did before.
    Refused(Refusal),
}

#[derive(Debug)]
pub(crate) struct Guard {
    known: Vec<Known>,
    /// Datagrams of unknown addresses that may be tried with all keys.
    tokens: u64,
    filled_at: Instant,
}

impl Guard {
    pub(crate) fn new(now: Instant) -> Self {
        Self { known: Vec::with_capacity(KNOWN_MAX), tokens: TRIALS_BURST, filled_at: now }
    }

    /// Where a node is: as a roster, a view or its own words have it.
    pub(crate) fn handle_address(&mut self, key: NodeKey, address: SocketAddr) {
        if let Some(known) = self.entry(key) {
            known.address = Some(address);
            self.release(key, address);
        }
    }

    pub(crate) fn handle_keys(&mut self, key: NodeKey, change: KeyChange) {
        let Some(known) = self.entry(key) else { return };
        match change {
            KeyChange::Open(opener) => known.keys.add_opener(opener),
            KeyChange::Seal(sealer) => known.keys.set_sealer(sealer),
            KeyChange::Close(local) => known.keys.remove_opener(local),
            KeyChange::Expire => known.keys.remove_sealer(),
        }
    }

    /// Seals `plain` for who is at `to`.
    pub(crate) fn seal(
        &mut self,
        to: SocketAddr,
        plain: &[u8],
        datagram: &mut [u8],
    ) -> Result<usize, SealError> {
        let known = self.known.iter_mut().find(|known| known.address == Some(to));
        known.ok_or(SealError::NoSession)?.keys.seal(plain, datagram)
    }

    /// Opens a datagram, and notes where its sender is.
    pub(crate) fn open(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        plain: &mut [u8],
    ) -> Result<Opened, Kept> {
        sealed_sequence(datagram).map_err(|error| match error {
            DecodeError::Field("flags") => Kept::Plaintext,
            error => Kept::Decode(error),
        })?;
        let expected = self.known.iter().position(|known| known.address == Some(from));
        let mut refusal = Refusal::Authentication;
        if let Some(at) = expected {
            match self.try_open(at, datagram, plain) {
                Ok(opened) => return Ok(opened),
                Err(cause) => refusal = cause,
            }
        }
        if !self.may_try(now) {
            return Err(Kept::Refused(Refusal::RateLimit));
        }
        for at in (0..self.known.len()).filter(|at| Some(*at) != expected) {
            if let Ok(opened) = self.try_open(at, datagram, plain) {
                self.known[at].address = Some(from);
                self.release(opened.by, from);
                return Ok(opened);
            }
        }
        Err(Kept::Refused(refusal))
    }

    /// Opens a datagram that a third node brought, with the keys of `by` alone; says nothing of where that is.
    pub(crate) fn open_of(&mut self, by: NodeKey, datagram: &[u8], plain: &mut [u8]) -> Result<Opened, Kept> {
        sealed_sequence(datagram).map_err(|error| match error {
            DecodeError::Field("flags") => Kept::Plaintext,
            error => Kept::Decode(error),
        })?;
        let at = self.known.iter().position(|known| known.key == by);
        let at = at.ok_or(Kept::Refused(Refusal::Authentication))?;
        self.try_open(at, datagram, plain).map_err(Kept::Refused)
    }

    fn try_open(&mut self, at: usize, datagram: &[u8], plain: &mut [u8]) -> Result<Opened, Refusal> {
        let known = &mut self.known[at];
        let opened = known.keys.open(datagram, plain)?;
        Ok(Opened { by: known.key, len_bytes: opened.len_bytes, confirms: opened.confirms })
    }

    fn may_try(&mut self, now: Instant) -> bool {
        let earned = now.since(self.filled_at) / TRIAL_NS;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(TRIALS_BURST);
            self.filled_at = self.filled_at.after(earned.saturating_mul(TRIAL_NS));
        }
        let allowed = self.tokens > 0;
        self.tokens -= u64::from(allowed);
        allowed
    }

    /// An address is one node's: whoever else was there is somewhere else.
    fn release(&mut self, key: NodeKey, address: SocketAddr) {
        let others = self.known.iter_mut().filter(|known| known.key != key);
        others.filter(|known| known.address == Some(address)).for_each(|known| known.address = None);
    }

    /// What is known of a node; room is made by forgetting one without keys. `None`: all of them have keys.
    fn entry(&mut self, key: NodeKey) -> Option<&mut Known> {
        let at = self.known.iter().position(|known| known.key == key);
        let at = match at {
            Some(at) => at,
            None => {
                if self.known.len() == KNOWN_MAX {
                    let idle = self.known.iter().position(|known| known.keys.is_empty())?;
                    self.known.remove(idle);
                }
                self.known.push(Known { key, address: None, keys: SidebandKeys::default() });
                self.known.len() - 1
            }
        };
        self.known.get_mut(at)
    }
}

/// Members, observers, those who left lately, and some whose address is all that is known.
const KNOWN_MAX: usize = 96;
/// 250 datagrams a second, 250 at once: what joiners and those who moved need.
const TRIAL_NS: u64 = 4_000_000;
const TRIALS_BURST: u64 = 250;

#[cfg(test)]
mod tests;
