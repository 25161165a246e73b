//! What arrives on the data socket, told to the engine under its sender's name, and to the sessions.

use crate::engine::Engine;
use crate::sealing::Sealing;
use plesio_udp::{DatagramSink, Peer};
use plesio_wire::data::Header;
use plesio_wire::{Instant, NodeKey, Span};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Data-path indices of nodes, both ways.
#[derive(Default)]
pub(super) struct Peers {
    pub(super) by_key: BTreeMap<NodeKey, Peer>,
    pub(super) by_peer: BTreeMap<Peer, NodeKey>,
}

pub(super) struct Sink<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) peers: &'a Peers,
    pub(super) sealing: Option<&'a mut Sealing>,
    pub(super) refused: &'a mut u64,
    pub(super) now: Instant,
}

impl DatagramSink for Sink<'_> {
    fn place(&mut self, peer: Peer, header: &Header) -> Option<Span> {
        self.engine.place(*self.peers.by_peer.get(&peer)?, header)
    }

    fn handle_chunk(&mut self, peer: Peer, header: &Header, _span: Span) {
        if let Some(key) = self.peers.by_peer.get(&peer) {
            // A refusal is counted by the connection.
            let _ = self.engine.handle_datagram(self.now, *key, header, &[]);
        }
    }

    fn handle_unplaced(&mut self, peer: Peer, header: &Header) {
        if let Some(key) = self.peers.by_peer.get(&peer) {
            self.engine.handle_unplaced(self.now, *key, header);
        }
    }

    fn handle_control(&mut self, peer: Peer, header: &Header, payload: &[u8]) {
        if let Some(key) = self.peers.by_peer.get(&peer) {
            let taken = self.engine.handle_datagram(self.now, *key, header, payload);
            *self.refused += u64::from(taken.is_err());
        }
    }

    fn handle_confirmed(&mut self, _peer: Peer, local: u32) {
        if let Some(sealing) = &mut self.sealing {
            sealing.handle_confirmed(self.now, local);
        }
    }

    fn handle_own(&mut self, _peer: Peer, local: u32) {
        if let Some(sealing) = &mut self.sealing {
            sealing.handle_own(self.now, local);
        }
    }

    fn handle_stranger(&mut self, from: SocketAddr, datagram: &[u8]) {
        if let Some(sealing) = &mut self.sealing {
            sealing.handle_stranger(self.now, from, datagram);
        }
    }
}
