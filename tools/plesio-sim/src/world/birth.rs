//! How a process of a host begins.

use super::World;
use crate::host::Host;
use crate::learning::Learner;
use crate::process::{Birth, Process};
use crate::queue::Due;
use crate::random::Random;
use crate::trace::Happened;
use plesio::engine::{EngineConfig, Entrance};
use plesio_wire::Incarnation;
use std::sync::Arc;

impl World {
    pub(super) fn spawn(&mut self, number: u8, entrance: Entrance) {
        let host = &mut self.hosts[usize::from(number)];
        let incarnation = life(self.seed, host, host.life);
        let chunks = if self.mesh.common.elements > SMALL_ELEMENTS { 1_024 } else { 128 };
        let birth = Birth {
            engine: EngineConfig {
                entry: host.entry,
                incarnation,
                mesh: self.seed,
                model: self.mesh.common.model,
                scale_exponent: self.mesh.common.scale_exponent,
                period_ns: self.mesh.period_ns,
                regions: self.mesh.store.regions,
                chunk_bytes: self.mesh.common.chunk_bytes,
                rules: self.mesh.common.rules,
                steering: plesio::Steering::default(),
                operators: self.mesh.common.operators,
                sealed: false,
                // Packets are remembered for a while, and small chunks are many; small states need no such memory.
                receive_buffer_bytes: (chunks * u64::from(self.mesh.common.chunk_bytes)).min(2 << 20),
                arena: None,
                seed: incarnation.0,
            },
            entrance,
            process: self.processes,
            scale_exponent: self.mesh.common.scale_exponent,
            stamps: host.stamps,
            nap_ns: host.nap_ns,
            claims: self.claims,
            operators: (self.desk.operators(), host.order),
            disk: self.disks.then(|| host.disk.clone().unwrap_or_default()),
            clock_error_ns: clock_error_ns(number, self.mesh.period_ns, self.clock_error_millis),
            hysteresis: self.hysteresis,
            learns: self.learning.as_ref().map(|learning| {
                (Arc::clone(learning), Learner::new(learning, self.seed, number, self.processes))
            }),
        };
        self.processes += 1;
        match Process::new(birth, &self.mesh.store, host.clock.at(self.now_ns)) {
            Ok(process) => {
                let node = host.key();
                self.trace.happen(self.now_ns, number, || Some(Happened::Started { node }));
                (host.process, host.born) = (Some(process), Some(incarnation));
            }
            Err(what) => return self.checker.fail(format!("n{number}: {what}")),
        }
        self.count_dead();
        let host = &mut self.hosts[usize::from(number)];
        host.step_began = host.clock.at(self.now_ns);
        let first_ns = self.now_ns + self.random.below(host.step_ns);
        self.queue.push(first_ns, Due::Step { host: number, life: host.life });
        self.with(number, Process::handle_timeout);
    }
}

/// Sixty-four bits that no other process has.
pub(super) fn life(seed: u64, host: &Host, number: u32) -> Incarnation {
    let mut random = Random::new(seed ^ host.key().0, "life");
    Incarnation((0..=number).map(|_| random.next()).last().unwrap_or_default())
}

/// Of every four hosts one is ahead, one behind, and two are right.
fn clock_error_ns(host: u8, period_ns: u64, millis: u32) -> i64 {
    let error_ns = (period_ns / 1_000 * u64::from(millis)) as i64;
    match host % 4 {
        1 => error_ns,
        3 => -error_ns,
        _ => 0,
    }
}

/// A state of a few datagrams.
const SMALL_ELEMENTS: u64 = 4_096;
