//! The responder: what an INIT must show before it costs private-key work, and before it leaves anything.
//!
//! ```text
//! length, kind, pool -> mac1 -> rate (else COOKIE) -> Noise -> ticket -> replay -> who goes first -> RESPONSE
//! ```

use core::net::SocketAddr;

use plesio_wire::handshake::{
    Cookie, INIT_BYTES, Init, InitPayload, MAC_BYTES, RESPONSE_PAYLOAD_BYTES, Response, ResponsePayload,
};
use plesio_wire::{Instant, Reader, Writer};

use super::{Lives, PeerId, Sessions, Transmit, local};
use crate::config::OPERATORS_MAX;
use crate::identity::NodePublic;
use crate::mac::MacKeys;
use crate::noise::{CLEAR_BYTES, Responder};
use crate::peer::{Facts, Pending};
use crate::refusal::Refusal;
use crate::seal::KeySet;
use crate::ticket::{Ticket, TicketError};

impl Sessions {
    pub(super) fn handle_init(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Refusal> {
        let init = Init::parse(datagram).map_err(|_| Refusal::Malformed)?;
        if init.pool_tag != self.pool_tag {
            return Err(Refusal::Pool);
        }
        if !self.macs.mac1_is_valid(datagram, &init.mac1) {
            return Err(Refusal::Mac1);
        }
        self.admit(now, from, datagram, &init)?;
        let mut clear = [0; CLEAR_BYTES];
        clear.copy_from_slice(&datagram[..CLEAR_BYTES]);
        let responder = Responder::read(&local(&self.config), &clear, &init.noise, self.entropy.draw())
            .ok_or(Refusal::Handshake)?;
        let asked: InitPayload = Reader::new(&responder.payload).read().map_err(|_| Refusal::Payload)?;
        let node = NodePublic { x25519: responder.remote, ed25519: asked.ed25519 };
        if node.x25519 == self.public.x25519 {
            return Err(Refusal::OwnKey);
        }
        self.verify(&asked, node)?;
        self.give_way(from, &node, &asked)?;
        self.answer(now, from, init.sender, node, &asked, responder)
    }

    /// Whether this INIT may cost private-key work; where a cookie must come first, sends one.
    fn admit(&mut self, now: Instant, from: SocketAddr, datagram: &[u8], init: &Init) -> Result<(), Refusal> {
        if init.mac2 == [0; MAC_BYTES] {
            if self.unproven.take(now, from) && self.total.take(now) {
                return Ok(());
            }
            self.push_cookie(from, init);
            return Err(Refusal::CookieDue);
        }
        if !self.jar.mac2_is_valid(from, datagram, &init.mac2) {
            // Who kept a cookie over a new life of this node, or over a change of its own address, would show the
            // same one again for two minutes: it is told the one that counts now.
            self.push_cookie(from, init);
            return Err(Refusal::Mac2);
        }
        // The source is real, so its share is its own: nobody else can have spent it.
        if self.proven.take(now, from) { Ok(()) } else { Err(Refusal::RateLimit) }
    }

    fn push_cookie(&mut self, from: SocketAddr, init: &Init) {
        let mut nonce = [0; 24];
        self.entropy.fill(&mut nonce);
        let sealed = self.macs.seal_cookie(self.jar.cookie(from), &nonce, &init.mac1);
        let cookie = Cookie { pool_tag: self.pool_tag, receiver: init.sender, nonce, sealed };
        self.push_transmit(Transmit::new(from, &cookie.to_bytes()));
    }

    fn verify(&self, asked: &InitPayload, node: NodePublic) -> Result<(), Refusal> {
        let ticket = Ticket {
            mesh: self.config.pool.mesh,
            node,
            role: asked.role,
            not_after_view: asked.not_after_view,
            signature: asked.ticket,
        };
        let operators = &self.config.operators;
        let operators = &operators[..operators.len().min(OPERATORS_MAX)];
        ticket.verify(operators, self.view).map_err(|error| match error {
            TicketError::Signature => Refusal::TicketSignature,
            TicketError::Expire { .. } => Refusal::TicketExpire,
        })
    }

    /// Refuses what was seen before, and an INIT that meets our own on its way when ours goes first: the
    /// lower key's handshake goes on, and the higher one answers. Ours is on its way until the peer has shown its
    /// keys, for it may have asked before our INIT reached it. One that went elsewhere meets nobody: a peer that was
    /// started anew at another address would wait for us as long as we ask its former life.
    fn give_way(&mut self, from: SocketAddr, node: &NodePublic, asked: &InitPayload) -> Result<(), Refusal> {
        let ours_first = self.public.x25519 < node.x25519;
        let Some(peer) = self.peer_of(&node.x25519).and_then(|id| self.peer(id)) else { return Ok(()) };
        if peer.saw(asked.incarnation, asked.attempt) {
            return Err(Refusal::Replay);
        }
        let unshown = |next: &Pending| next.epoch.initiator && next.facts.incarnation == asked.incarnation;
        let meets = peer.attempt.as_ref().is_some_and(|attempt| attempt.to == from);
        let under_way = meets || peer.next.as_ref().is_some_and(unshown);
        if ours_first && under_way { Err(Refusal::Simultaneous) } else { Ok(()) }
    }

    fn answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        remote: u32,
        node: NodePublic,
        asked: &InitPayload,
        responder: Responder,
    ) -> Result<(), Refusal> {
        let suite = self.suite(asked.capabilities);
        let answer = ResponsePayload {
            incarnation: self.config.incarnation,
            capabilities: self.capabilities(),
            mtu: self.config.mtu,
            suite,
            view: self.view,
        };
        let mut payload = [0; RESPONSE_PAYLOAD_BYTES];
        Writer::new(&mut payload).write(&answer);
        let index = self.draw_index();
        let (noise, secrets) = responder.answer(&payload).ok_or(Refusal::Handshake)?;
        let response = Response {
            pool_tag: self.pool_tag,
            sender: index,
            receiver: remote,
            noise,
            mac1: [0; MAC_BYTES],
            mac2: [0; MAC_BYTES],
        };
        let mut datagram = response.to_bytes();
        const { assert!(plesio_wire::handshake::RESPONSE_BYTES <= INIT_BYTES) };
        MacKeys::new(&node.x25519).sign(&mut datagram, None);
        let keys = secrets.keys(false, (remote, index), suite);
        let limits = self.config.limits;
        let facts = Facts {
            incarnation: asked.incarnation,
            mtu: asked.mtu,
            admission: Some((asked.role, asked.not_after_view)),
            attempt: asked.attempt,
        };
        let lives = Lives { own: self.config.incarnation, peer: asked.incarnation };
        let id = self.place(node, from).ok_or(Refusal::Full)?;
        let peer = self.peer(id).ok_or(Refusal::Full)?;
        peer.next = None;
        // Ours, if one is under way there, is the higher key's: the peer does not answer it. One to another address goes
        // on until the peer has shown these keys: whoever repeats an old INIT from there must not end it.
        let astray = peer.attempt.as_ref().is_some_and(|attempt| attempt.to != from);
        peer.attempt.take_if(|_| !astray);
        if peer.current.is_none() && !peer.wanted {
            peer.address = from;
        }
        // Whom the user has placed stays there; another life of a peer is where it speaks from.
        let stays = peer.knows(asked.incarnation) || peer.current.is_none() && !astray;
        let whom = (peer.node, if stays { peer.address } else { from }, lives);
        self.reindex(id);
        let keys = KeySet::new(&keys, suite, index, remote, limits.packets_max);
        let epoch = self.open_epoch(now, id, whom, false, index, keys);
        if let Some(peer) = self.peer(id) {
            peer.next = Some(Pending { epoch, facts, until: now.after(limits.unconfirmed_ns) });
        }
        self.push_transmit(Transmit::new(from, &datagram));
        Ok(())
    }

    /// Frees the place of a peer of whom nothing is left.
    pub(super) fn reap(&mut self, id: PeerId) {
        if self.peer(id).is_some_and(|peer| peer.is_idle()) {
            self.drop_peer(id);
        }
    }
}
