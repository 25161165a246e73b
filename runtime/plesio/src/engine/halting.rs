//! Standing still: what an engine does from HALT to RESUME, which is nothing that another node could see.
//!
//! ```text
//!   halted   nothing is announced, proposed, accepted, learnt; no train and no control datagram is sent
//!            work already handed out is answered, and what that leads to waits
//!            a node outside the mesh goes on asking to be let in: that is how it hears of RESUME
//!   resumed  everything is where it was: announced slots stay announced, and their margins say nothing of this node's pace
//! ```

use super::Engine;
use plesio_wire::Instant;

impl Engine {
    /// HALT is in force, or no longer.
    pub fn handle_halt(&mut self, now: Instant, is_halted: bool) {
        if self.is_halted == is_halted {
            return;
        }
        self.is_halted = is_halted;
        if !is_halted {
            self.transfers.handle_halt();
        }
        self.consensus.handle_halt(now, is_halted);
        self.turn(now);
    }

    /// Whether HALT is in force.
    #[must_use]
    pub const fn is_halted(&self) -> bool {
        self.is_halted
    }

    pub(super) fn halted_timeout(&self) -> Option<Instant> {
        self.joining.as_ref().map(|joining| joining.next)
    }

    pub(super) fn handle_halted_timeout(&mut self, now: Instant) {
        if self.joining.is_some() {
            self.handle_join_timeout(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::roster::tests::engine;
    use super::super::{Out, Work};
    use plesio_consensus::OwnSlot;
    use plesio_phase::MeshClock;
    use plesio_proto::Train;
    use plesio_wire::sideband::{Message, Ready};
    use plesio_wire::{Digest, Frame, Instant, MeshTime, SlotSeq, Version};

    const MS: u64 = 1_000_000;

    #[test]
    fn a_halted_engine_says_and_sends_nothing_and_a_resumed_one_goes_on_where_it_was() {
        let mut engine = engine();
        let at = |ms: u64| Instant(ms * MS);
        let slot = |seq| OwnSlot {
            seq: SlotSeq(seq),
            base: Version(0),
            target: Frame(4),
            n_steps: 3,
            digest: Digest::default(),
        };
        let clock = MeshClock { usable: true, base_mesh: MeshTime(0), ..MeshClock::default() };
        engine.handle_clock(at(1), clock);
        engine.handle_cut(at(600), 0, slot(1));
        engine.handle_halt(at(700), true);
        let mut train = Train::default();
        // What was decided before it.
        while engine.poll_out().is_some() {}
        for ms in 700..5_000 {
            assert!(engine.poll_timeout().is_none(), "it wakes for nothing");
            engine.handle_timeout(at(ms));
            let word = Message::Ready(Ready { slot_seq: 1, n_steps: 1, ..Ready::default() });
            let peer = engine.consensus().view().members[1].key;
            engine.handle_message(at(ms), Some(peer), "127.0.0.1:200".parse().unwrap(), 0, &word);
            assert!(engine.poll_transmit_into(at(ms), &mut train).is_none());
            assert_eq!(engine.poll_out(), None);
        }
        assert_eq!(engine.consensus().own_slots().count(), 1, "what is announced stays announced");
        // A cut that comes all the same goes back to the worker.
        while engine.poll_work().is_some() {}
        engine.handle_cut(at(5_000), 1, slot(2));
        assert!(matches!(engine.poll_work(), Some(Work::Settle { seq: SlotSeq(2), .. })));
        engine.handle_halt(at(5_000), false);
        engine.handle_timeout(at(5_100));
        let ready =
            |out: Out| matches!(out, Out::Send(_, Message::Ready(ready)) if ready.seq() == Some(SlotSeq(1)));
        assert!(std::iter::from_fn(|| engine.poll_out()).any(ready), "it is said again");
        assert!(engine.poll_timeout().is_some());
        assert!(std::iter::from_fn(|| engine.poll_transmit_into(at(5_100), &mut train)).next().is_some());
    }
}
