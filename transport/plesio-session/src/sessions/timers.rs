//! Time: asks again, changes keys before they break, and ends what has reached its limit.

use plesio_wire::Instant;

use super::{EVENTS_FULL, Event, PeerId, Sessions};
use crate::peer::Epoch;

impl Sessions {
    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for id in self.ids() {
            if self.events.len() >= EVENTS_FULL {
                return;
            }
            self.time_attempt(now, id);
            self.time_sessions(now, id);
            if self.rekey_at(now, id).is_some_and(|due| now >= due) {
                self.start(now, id);
            }
            self.reap(id);
        }
    }

    fn time_attempt(&mut self, now: Instant, id: PeerId) {
        let retry_ns_max = self.config.limits.retry_ns_max;
        let Some(peer) = self.peer(id) else { return };
        let Some(attempt) = &peer.attempt else { return };
        let (deadline, hurried, due) = (attempt.deadline, attempt.hurried, now >= attempt.retry_at);
        let retry_ns = attempt.retry_ns.saturating_mul(2).min(retry_ns_max);
        if now >= deadline {
            peer.attempt = None;
            // With a session alive its change of keys is due again at once; without, the user decides.
            peer.wanted &= peer.current.is_some();
            self.reindex(id);
            self.events.push_back(Event::Fail { peer: id });
        } else if due {
            self.send_init(now, id, retry_ns, deadline, hurried);
        }
    }

    fn time_sessions(&mut self, now: Instant, id: PeerId) {
        let limits = self.config.limits;
        let Some(peer) = self.peer(id) else { return };
        peer.previous.take_if(|(_, until)| now >= *until);
        peer.next.take_if(|pending| now >= pending.until);
        // New keys that the other end never showed, or keys at the end of their time.
        let over = peer.current.take_if(|epoch| {
            let age_ns = now.since(epoch.born);
            let shown = !epoch.initiator || epoch.confirmed;
            age_ns >= limits.session_ns_max || !shown && age_ns >= limits.unconfirmed_ns
        });
        let event = over.map(|_| Event::Expire { peer: id });
        let next = peer.next.as_mut().map(|pending| &mut pending.epoch);
        let unshown = |epoch: &&mut Epoch| epoch.initiator && !epoch.confirmed && now >= epoch.confirm_at;
        let say = peer.current.as_mut().into_iter().chain(next).find(unshown).map(|epoch| {
            epoch.confirm_at = now.after(limits.retry_ns);
            epoch.local
        });
        let starts = peer.wanted && peer.current.is_none() && peer.next.is_none() && peer.attempt.is_none();
        self.reindex(id);
        if let Some(event) = event {
            self.events.push_back(event);
        }
        if let Some(local) = say {
            self.say_own(id, local);
        }
        if starts {
            self.start(now, id);
        }
    }

    /// When the keys are due for a change, unless one is under way. The initiator of the old session asks;
    /// the responder waits an eighth longer, and asks when nobody did.
    fn rekey_at(&self, now: Instant, id: PeerId) -> Option<Instant> {
        let limits = &self.config.limits;
        let peer = self.peers.get(usize::from(id.0))?.as_ref()?;
        let epoch = peer.current.as_ref()?;
        if peer.attempt.is_some() || peer.next.is_some() {
            return None;
        }
        let grace = |limit: u64| if epoch.initiator { limit } else { limit.saturating_add(limit / 8) };
        let by_age = epoch.born.after(grace(limits.rekey_ns));
        Some(if epoch.usage.packets() >= grace(limits.rekey_packets) { now } else { by_age })
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let limits = &self.config.limits;
        let of_peer = |id: PeerId| {
            let peer = self.peers.get(usize::from(id.0))?.as_ref()?;
            let attempt = peer.attempt.as_ref().map(|attempt| attempt.retry_at.min(attempt.deadline));
            let previous = peer.previous.as_ref().map(|(_, until)| *until);
            let say = |epoch: &Epoch| {
                if epoch.initiator && !epoch.confirmed { epoch.confirm_at } else { Instant(u64::MAX) }
            };
            let next = peer.next.as_ref().map(|pending| pending.until.min(say(&pending.epoch)));
            let end = |epoch: &Epoch| epoch.born.after(limits.session_ns_max).min(say(epoch));
            let current = peer.current.as_ref().map(end);
            [attempt, previous, next, current, self.rekey_at(now, id)].into_iter().flatten().min()
        };
        self.ids().filter_map(of_peer).min()
    }
}
