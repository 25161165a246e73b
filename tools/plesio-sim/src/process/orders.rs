//! Orders of the operators at one process: what the sideband's thread, the disk's and the node's do with them.

use super::{Process, Scene};
use crate::queue::Due;
use plesio::engine::Engine;
use plesio_membership::{Given, Halt, Operators, OrderCounters};
use plesio_session::{Secret, verify_signature};
use plesio_sideband::Machine;
use plesio_wire::{Instant, NodeId};
use std::net::{Ipv6Addr, SocketAddr};

/// A process begins to follow `operators`, with what its host's disk holds.
pub(super) fn follow(
    now: Instant,
    (machine, engine): (&mut Machine, &mut Engine),
    (mesh, id): (u64, NodeId),
    (operators, stored): (Operators, Option<Given>),
) {
    let halt = Halt::new(id, mesh, operators, verify_signature, stored);
    machine.handle_operators(now, halt, Secret::new(id.0.repeat(2).try_into().unwrap_or([0; 32])));
    engine.handle_halt(now, machine.halt_state().halted);
}

impl Process {
    /// A datagram of somebody who is no node: the operators, or who would like to be one.
    pub(crate) fn handle_operator(&mut self, scene: &mut Scene<'_>, bytes: &[u8]) {
        // Hosts have addresses of the other family: no answer finds its way to one of them.
        let from = SocketAddr::from((Ipv6Addr::LOCALHOST, 9));
        self.machine.handle_datagram(scene.local, from, bytes, None);
        self.transmit_sideband(scene);
        self.wake(scene);
    }

    /// Whether HALT is in force, and which order is; what came of all of them.
    pub(crate) fn order(&self) -> (bool, u64, OrderCounters) {
        let state = self.machine.halt_state();
        (state.halted, state.sequence, state.counters)
    }

    /// What is to be kept goes to the disk.
    pub(super) fn keep_orders(&mut self, scene: &mut Scene<'_>) {
        while let Some(given) = self.machine.poll_store() {
            self.storing = Some(given);
            // Now and then a disk hangs for longer than HALT waits for it.
            let word = crate::random::mix(scene.now_ns ^ u64::from(self.number));
            let most_ns = if word.is_multiple_of(8) { HANG_NS } else { DISK_NS };
            let at_ns = scene.now_ns + 1 + (word >> 8) % most_ns;
            scene.queue.push(at_ns, Due::Stored { host: scene.host, process: self.number });
        }
    }

    /// The disk has what it was given.
    pub(crate) fn handle_stored(&mut self, scene: &mut Scene<'_>) {
        if let Some(given) = self.storing.take() {
            *scene.order = Some(given);
            self.machine.handle_stored(scene.local, given.order.sequence, true);
            self.transmit_sideband(scene);
            self.wake(scene);
        }
    }

    /// The node's thread looks at what the operators ordered before everything else.
    pub(super) fn take_halt(&mut self, scene: &mut Scene<'_>) {
        let halted = self.machine.halt_state().halted;
        #[cfg(test)]
        let halted = halted && !self.ignores;
        if halted != self.engine.is_halted() {
            scene.trace.tell(scene.now_ns, scene.host, || format!("halted: {halted}"));
            self.halted_ns = halted.then_some(scene.now_ns);
            self.engine.handle_halt(scene.local, halted);
        }
    }
}

const DISK_NS: u64 = 40_000_000;
const HANG_NS: u64 = 700_000_000;
