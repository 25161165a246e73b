//! The initiator: asks, asks again, and takes the answer.

use core::net::SocketAddr;

use plesio_wire::handshake::{
    Cookie, INIT_NOISE_BYTES, INIT_PAYLOAD_BYTES, Init, InitPayload, MAC_BYTES, Response, ResponsePayload,
};
use plesio_wire::{Instant, Reader, Writer};

use super::{ConnectError, Lives, Owner, PeerId, Sessions, Transmit, local};
use crate::identity::NodePublic;
use crate::noise::{CLEAR_BYTES, Initiator};
use crate::peer::{Attempt, Facts, Pending};
use crate::refusal::Refusal;
use crate::seal::KeySet;

impl Sessions {
    /// Asks `node`, whom the view or the user names, for a session. Where there is one, or a handshake is
    /// under way there, only the address is noted; one that was under way to another address begins anew at once.
    ///
    /// # Errors
    /// As [`ConnectError`].
    pub fn handle_connect(
        &mut self,
        now: Instant,
        node: NodePublic,
        address: SocketAddr,
    ) -> Result<PeerId, ConnectError> {
        if node.x25519 == self.public.x25519 {
            return Err(ConnectError::OwnKey);
        }
        let id = self.place(node, address).ok_or(ConnectError::Full)?;
        let peer = self.peer(id).ok_or(ConnectError::Full)?;
        peer.address = address;
        peer.wanted = true;
        let astray = peer.attempt.take_if(|attempt| attempt.to != address).is_some();
        let rests = peer.current.is_none() && peer.next.is_none() && peer.attempt.is_none();
        // Keys that the peer asked for meanwhile are as good.
        let again = astray && peer.next.is_none();
        self.reindex(id);
        if (rests || again) && !self.start(now, id) {
            self.drop_peer(id);
            return Err(ConnectError::Key);
        }
        Ok(id)
    }

    /// Begins a handshake; false: the peer's key is none.
    pub(super) fn start(&mut self, now: Instant, id: PeerId) -> bool {
        let limits = self.config.limits;
        self.send_init(now, id, limits.retry_ns, now.after(limits.deadline_ns), false)
    }

    /// Sends an INIT with keys and index of its own: an answer to an earlier one is not waited for any more.
    pub(super) fn send_init(
        &mut self,
        now: Instant,
        id: PeerId,
        retry_ns: u64,
        deadline: Instant,
        hurried: bool,
    ) -> bool {
        let index = self.draw_index();
        self.attempts += 1;
        let asked = InitPayload {
            incarnation: self.config.incarnation,
            capabilities: self.capabilities(),
            mtu: self.config.mtu,
            role: self.config.ticket.role,
            not_after_view: self.config.ticket.not_after_view,
            ed25519: self.public.ed25519,
            ticket: self.config.ticket.signature,
            attempt: self.attempts,
        };
        let mut payload = [0; INIT_PAYLOAD_BYTES];
        Writer::new(&mut payload).write(&asked);
        let mut init = Init {
            pool_tag: self.pool_tag,
            sender: index,
            noise: [0; INIT_NOISE_BYTES],
            mac1: [0; MAC_BYTES],
            mac2: [0; MAC_BYTES],
        };
        let mut clear = [0; CLEAR_BYTES];
        clear.copy_from_slice(&init.to_bytes()[..CLEAR_BYTES]);
        let seed = self.entropy.draw();
        let Some(peer) = self.peers.get_mut(usize::from(id.0)).and_then(Option::as_mut) else { return false };
        let started = Initiator::start(&local(&self.config), &peer.node.x25519, &clear, &payload, seed);
        let Some((noise, message)) = started else { return false };
        init.noise = message;
        let mut datagram = init.to_bytes();
        let mac1 = peer.macs.sign(&mut datagram, peer.cookie(now).as_ref());
        let retry_at = now.after(retry_ns);
        let (to, life) = (peer.address, asked.incarnation);
        peer.attempt =
            Some(Attempt { noise, to, life, local: index, mac1, retry_at, retry_ns, deadline, hurried });
        self.by_index.insert(index, Owner { peer: id, open: false });
        self.reindex(id);
        self.push_transmit(Transmit::new(to, &datagram));
        true
    }

    pub(super) fn handle_response(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Refusal> {
        let response = Response::parse(datagram).map_err(|_| Refusal::Malformed)?;
        if response.pool_tag != self.pool_tag {
            return Err(Refusal::Pool);
        }
        if !self.macs.mac1_is_valid(datagram, &response.mac1) {
            return Err(Refusal::Mac1);
        }
        if response.mac2 != [0; MAC_BYTES] {
            return Err(Refusal::Mac2); // nobody is asked for a cookie before it answers
        }
        let id = self.by_index.get(&response.receiver).ok_or(Refusal::UnknownReceiver)?.peer;
        let attempt = self.peer(id).and_then(|peer| peer.attempt.as_mut());
        let attempt =
            attempt.filter(|attempt| attempt.local == response.receiver).ok_or(Refusal::UnknownReceiver)?;
        let (own, (payload, secrets)) =
            (attempt.life, attempt.noise.finish(&response.noise).ok_or(Refusal::Handshake)?);
        let answer: ResponsePayload = Reader::new(&payload).read().map_err(|_| Refusal::Payload)?;
        // Joining makes the next view, which would put this node out again, and a mesh of two with it.
        if !self.seated && self.config.ticket.not_after_view <= answer.view {
            return Err(Refusal::TicketExpire);
        }
        let suite = self.suite(answer.capabilities);
        if answer.suite != suite {
            return Err(Refusal::Suite);
        }
        let local = response.receiver;
        let keys = secrets.keys(true, (local, response.sender), suite);
        let limits = self.config.limits;
        let keys = KeySet::new(&keys, suite, local, response.sender, limits.packets_max);
        let facts = Facts { incarnation: answer.incarnation, mtu: answer.mtu, admission: None, attempt: 0 };
        let peer = self.peer(id).ok_or(Refusal::UnknownReceiver)?;
        (peer.attempt, peer.next) = (None, None);
        let whom = (peer.node, peer.address, Lives { own, peer: answer.incarnation });
        self.reindex(id);
        let epoch = self.open_epoch(now, id, whom, true, local, keys);
        let peer = self.peer(id).ok_or(Refusal::UnknownReceiver)?;
        if peer.knows(answer.incarnation) {
            // The old keys go on sending until the peer has shown that it has the new ones.
            peer.next = Some(Pending { epoch, facts, until: now.after(limits.unconfirmed_ns) });
        } else {
            self.establish(id, epoch, facts, now.after(limits.overlap_ns));
        }
        self.say_own(id, local);
        Ok(())
    }

    pub(super) fn handle_cookie(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Refusal> {
        let cookie = Cookie::parse(datagram).map_err(|_| Refusal::Malformed)?;
        if cookie.pool_tag != self.pool_tag {
            return Err(Refusal::Pool);
        }
        let id = self.by_index.get(&cookie.receiver).ok_or(Refusal::UnknownReceiver)?.peer;
        let peer = self.peer(id).ok_or(Refusal::UnknownReceiver)?;
        let attempt = peer.attempt.as_mut().filter(|attempt| attempt.local == cookie.receiver);
        let attempt = attempt.ok_or(Refusal::UnknownReceiver)?;
        let opened = peer.macs.open_cookie(&cookie.sealed, &cookie.nonce, &attempt.mac1);
        let value = opened.ok_or(Refusal::Cookie)?;
        // With the cookie the same question is worth asking at once, but only once: cookies must not make us
        // ask faster than a clock would.
        if !attempt.hurried {
            attempt.hurried = true;
            attempt.retry_at = now;
        }
        peer.learn_cookie(now, value);
        Ok(())
    }
}
