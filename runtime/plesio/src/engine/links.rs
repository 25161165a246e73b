//! One connection per peer, served in turn.
//!
//! A session between two members lasts one view: afterwards ranges differ, and a slot that is sent again under its own
//! number must not be taken for the one received before. With an observer it lasts as long as both lives do.

use plesio_proto::{Config, Connection, Event, Transmit};
use plesio_wire::digest::Hasher;
use plesio_wire::{Incarnation, Instant, NodeKey};
use std::collections::BTreeMap;

/// A node's life: receiver indices are drawn from both ends' lives, so a stale session never matches.
type Life = (NodeKey, Incarnation);

#[derive(Debug)]
struct Link {
    incarnation: Incarnation,
    era: u32,
    connection: Connection,
}

/// What opening a connection came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Opened {
    /// It is there already.
    Same,
    /// Another session with the same life of the peer.
    Renewed,
    /// The first one with this life of the peer.
    First,
}

#[derive(Debug)]
pub(super) struct Links {
    mesh: u64,
    me: Life,
    chunk_bytes: u32,
    window_bytes: u64,
    links: BTreeMap<NodeKey, Link>,
    /// The peer served last: the next train comes from the one after it.
    last: NodeKey,
    retransmitted_bytes: u64,
}

impl Links {
    pub(super) fn new(mesh: u64, me: Life, chunk_bytes: u32, window_bytes: u64) -> Self {
        Self {
            mesh,
            me,
            chunk_bytes,
            window_bytes,
            links: BTreeMap::new(),
            last: NodeKey(0),
            retransmitted_bytes: 0,
        }
    }

    /// From here on this node is another incarnation; all connections were closed.
    pub(super) fn begin_life(&mut self, incarnation: Incarnation) {
        self.me.1 = incarnation;
    }

    /// Makes sure there is a connection to this life of `peer` in this era: the number of the view in which both have
    /// a seat plus one, or zero.
    pub(super) fn open(&mut self, now: Instant, peer: NodeKey, incarnation: Incarnation, era: u32) -> Opened {
        let known = self.links.get(&peer).filter(|link| link.incarnation == incarnation);
        if peer == self.me.0 || known.is_some_and(|link| link.era == era) {
            return Opened::Same;
        }
        let opened = if known.is_some() { Opened::Renewed } else { Opened::First };
        let config = Config {
            local: self.receiver(self.me, (peer, incarnation), era),
            remote: self.receiver((peer, incarnation), self.me, era),
            chunk_bytes: self.chunk_bytes,
            window_bytes: self.window_bytes,
            receive_budget_bytes: self.window_bytes,
            ..Config::default()
        };
        let connection = Connection::new(&config, now).expect("the chunk size is one of the named constants");
        self.close(peer);
        self.links.insert(peer, Link { incarnation, era, connection });
        opened
    }

    /// Drops the connection; true when there was one.
    pub(super) fn close(&mut self, peer: NodeKey) -> bool {
        let Some(link) = self.links.remove(&peer) else { return false };
        self.retransmitted_bytes += link.connection.stats().retransmitted_bytes;
        true
    }

    pub(super) fn peers(&self) -> Vec<NodeKey> {
        self.links.keys().copied().collect()
    }

    pub(super) fn connection(&self, peer: NodeKey) -> Option<&Connection> {
        self.links.get(&peer).map(|link| &link.connection)
    }

    pub(super) fn connection_mut(&mut self, peer: NodeKey) -> Option<&mut Connection> {
        self.links.get_mut(&peer).map(|link| &mut link.connection)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for link in self.links.values_mut() {
            link.connection.handle_timeout(now);
        }
    }

    /// The next train, round robin.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<(NodeKey, Transmit)> {
        let last = self.last;
        let after = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
        for (peer, link) in self.links.range_mut(after) {
            if let Some(transmit) = link.connection.poll_transmit(now) {
                self.last = *peer;
                return Some((*peer, transmit));
            }
        }
        for (peer, link) in self.links.range_mut(..=last) {
            if let Some(transmit) = link.connection.poll_transmit(now) {
                self.last = *peer;
                return Some((*peer, transmit));
            }
        }
        None
    }

    pub(super) fn poll_event(&mut self) -> Option<(NodeKey, Event)> {
        self.links
            .iter_mut()
            .find_map(|(peer, link)| link.connection.poll_event().map(|event| (*peer, event)))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.links.values().filter_map(|link| link.connection.poll_timeout()).min()
    }

    pub(super) fn retransmitted_bytes(&self) -> u64 {
        let live: u64 = self.links.values().map(|link| link.connection.stats().retransmitted_bytes).sum();
        live + self.retransmitted_bytes
    }

    fn receiver(&self, receiver: Life, sender: Life, era: u32) -> u32 {
        let mut hasher = Hasher::default();
        hasher.update(&self.mesh.to_le_bytes());
        for (key, incarnation) in [receiver, sender] {
            hasher.update(&key.0.to_le_bytes());
            hasher.update(&incarnation.0.to_le_bytes());
        }
        hasher.update(&era.to_le_bytes());
        let digest = hasher.finish().0;
        u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])
    }
}
