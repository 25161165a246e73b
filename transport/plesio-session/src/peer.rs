//! What a node knows of one peer: its sessions, and the handshake that is under way.
//!
//! ```text
//!             INIT sent          RESPONSE     first valid packet        limit             overlap over
//!  initiator  ---------> attempt ---------> next ---------------> current -----> previous -----------> gone
//!  responder  INIT -----------------------> next ---------------> current
//! ```
//!
//! New keys receive at once and send when the other end has shown them; only an initiator without a session sends
//! with them at once. Packets that were under way open with the old keys until the overlap ends.

use alloc::sync::Arc;
use core::net::SocketAddr;

use plesio_wire::handshake::{MAC_BYTES, Role};
use plesio_wire::{Incarnation, Instant};

use crate::identity::NodePublic;
use crate::mac::{COOKIE_NS, MacKeys};
use crate::noise::Initiator;
use crate::seal::{DataSealer, OwnSealer, SidebandSealer, Usage};
use crate::sessions::Lives;

/// One set of keys.
#[derive(Debug)]
pub(crate) struct Epoch {
    /// Receiver index that we chose: what comes in names it.
    pub(crate) local: u32,
    pub(crate) initiator: bool,
    /// Where the peer was when they were made.
    pub(crate) address: SocketAddr,
    pub(crate) lives: Lives,
    pub(crate) born: Instant,
    /// What the session says for itself.
    pub(crate) own: OwnSealer,
    /// What seals everything else, until it is handed out.
    pub(crate) sealers: Option<(DataSealer, SidebandSealer)>,
    pub(crate) usage: Arc<Usage>,
    /// Something opened with these keys: the peer has them.
    pub(crate) confirmed: bool,
    /// When the initiator says something again, while nothing confirmed the keys.
    pub(crate) confirm_at: Instant,
}

/// What a handshake said of the peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Facts {
    pub(crate) incarnation: Incarnation,
    pub(crate) mtu: u16,
    /// From the INIT's ticket; who answers shows none.
    pub(crate) admission: Option<(Role, u32)>,
    /// Number of the INIT within the incarnation; zero for who answered.
    pub(crate) attempt: u64,
}

/// Keys that the other end has not yet shown to have.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) epoch: Epoch,
    pub(crate) facts: Facts,
    pub(crate) until: Instant,
}

/// Our own INIT, waiting for its RESPONSE.
pub(crate) struct Attempt {
    pub(crate) noise: Initiator,
    pub(crate) to: SocketAddr,
    /// This node's life then.
    pub(crate) life: Incarnation,
    pub(crate) local: u32,
    pub(crate) mac1: [u8; MAC_BYTES],
    pub(crate) retry_at: Instant,
    pub(crate) retry_ns: u64,
    pub(crate) deadline: Instant,
    /// A cookie made it go again at once; the next one waits.
    pub(crate) hurried: bool,
}

pub(crate) struct Peer {
    pub(crate) node: NodePublic,
    pub(crate) address: SocketAddr,
    pub(crate) macs: MacKeys,
    cookie: Option<([u8; MAC_BYTES], Instant)>,
    /// Asked for by this node, not only by the peer.
    pub(crate) wanted: bool,
    /// Of the life that was last confirmed.
    pub(crate) facts: Option<Facts>,
    pub(crate) attempt: Option<Attempt>,
    pub(crate) current: Option<Epoch>,
    pub(crate) previous: Option<(Epoch, Instant)>,
    pub(crate) next: Option<Pending>,
}

impl Peer {
    pub(crate) fn new(node: NodePublic, address: SocketAddr) -> Self {
        Self {
            node,
            address,
            macs: MacKeys::new(&node.x25519),
            cookie: None,
            wanted: false,
            facts: None,
            attempt: None,
            current: None,
            previous: None,
            next: None,
        }
    }

    pub(crate) fn learn_cookie(&mut self, now: Instant, cookie: [u8; MAC_BYTES]) {
        self.cookie = Some((cookie, now));
    }

    pub(crate) fn cookie(&self, now: Instant) -> Option<[u8; MAC_BYTES]> {
        self.cookie.filter(|(_, learnt)| now.since(*learnt) < COOKIE_NS).map(|(cookie, _)| cookie)
    }

    /// Whether an INIT of this life was accepted before, or a later one.
    pub(crate) fn saw(&self, incarnation: Incarnation, attempt: u64) -> bool {
        let pending = self.next.as_ref().map(|pending| &pending.facts);
        [self.facts.as_ref(), pending]
            .into_iter()
            .flatten()
            .any(|facts| facts.incarnation == incarnation && attempt <= facts.attempt)
    }

    /// Whether there is a session with this life of the peer.
    pub(crate) fn knows(&self, incarnation: Incarnation) -> bool {
        self.current.is_some() && self.facts.is_some_and(|known| known.incarnation == incarnation)
    }

    /// The epoch of a receiver index.
    pub(crate) fn epoch(&mut self, local: u32) -> Option<&mut Epoch> {
        let previous = self.previous.as_mut().map(|(epoch, _)| epoch);
        let next = self.next.as_mut().map(|pending| &mut pending.epoch);
        [self.current.as_mut(), previous, next].into_iter().flatten().find(|epoch| epoch.local == local)
    }

    /// Receiver indices in use.
    pub(crate) fn indices(&self) -> impl Iterator<Item = u32> {
        let previous = self.previous.as_ref().map(|(epoch, _)| epoch.local);
        let next = self.next.as_ref().map(|pending| pending.epoch.local);
        let attempt = self.attempt.as_ref().map(|attempt| attempt.local);
        [self.current.as_ref().map(|epoch| epoch.local), previous, next, attempt].into_iter().flatten()
    }

    /// Makes `epoch` the current one; what was current goes on receiving until `until`.
    pub(crate) fn promote(&mut self, epoch: Epoch, facts: Facts, until: Instant) {
        let same_life = self.facts.is_some_and(|known| known.incarnation == facts.incarnation);
        // A life stays where its user says it is; another one is where it came from.
        if !same_life {
            self.address = epoch.address;
        }
        let seen = if same_life { self.facts.map_or(0, |known| known.attempt) } else { 0 };
        let admission =
            facts.admission.or_else(|| self.facts.filter(|_| same_life).and_then(|known| known.admission));
        let old = self.current.replace(epoch);
        self.previous = old.filter(|_| same_life).map(|old| (old, until));
        self.facts = Some(Facts { attempt: facts.attempt.max(seen), admission, ..facts });
    }

    /// Nothing is alive or under way, and nobody here asked for it.
    pub(crate) fn is_idle(&self) -> bool {
        !self.wanted && self.indices().next().is_none()
    }
}
