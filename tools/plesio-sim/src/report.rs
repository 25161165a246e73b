//! What came of a simulation.

use crate::fault::{Fault, FaultSet};
use crate::mass::Mass;
use crate::phase::Coverage;
use crate::study::Study;
use crate::trace::Happening;
use plesio_wire::Digest;
use std::collections::BTreeMap;
use std::fmt;

/// A promise that was broken; its line says all that a replay needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// Seed of the mesh.
    pub seed: u64,
    /// Nodes of its first view.
    pub nodes: u8,
    /// Kinds of faults it was allowed to draw from: with them the seed makes the same run.
    pub faults: FaultSet,
    /// Virtual time, nanoseconds.
    pub at_ns: u64,
    /// Which invariant, where, and the figures.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}, nodes {}, faults {}, at {:.6} s: {}",
            self.seed,
            self.nodes,
            self.faults,
            self.at_ns as f64 / 1e9,
            self.what
        )
    }
}

/// How well the nodes kept in time: those whose processes lived at the end, from their start on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Timing {
    /// How many.
    pub nodes: u64,
    /// Their ages together, nanoseconds.
    pub node_ns: u64,
    /// Contributions whose margin is known.
    pub slots: u64,
    /// Of these, complete at the last owner after the close that they were aimed at.
    pub late: u64,
    /// Folded, merged, or put off by a full ring.
    pub folds: u64,
    /// How often a corrector moved.
    pub corrections: u64,
    /// Steps that workers did not take because their nodes were not with the mesh.
    pub rests: u64,
    /// Nodes that were never LOCKED.
    pub never_locked: u64,
    /// The longest time from the start of a process until it was, nanoseconds, and in frames.
    pub lock_ns_max: u64,
    /// The same in frames, rounded up.
    pub lock_frames_max: u64,
}

impl Timing {
    /// Puts others to these.
    pub fn add(&mut self, other: &Self) {
        self.nodes += other.nodes;
        self.node_ns = self.node_ns.saturating_add(other.node_ns);
        self.slots += other.slots;
        self.late += other.late;
        self.folds += other.folds;
        self.corrections += other.corrections;
        self.rests += other.rests;
        self.never_locked += other.never_locked;
        self.lock_ns_max = self.lock_ns_max.max(other.lock_ns_max);
        self.lock_frames_max = self.lock_frames_max.max(other.lock_frames_max);
    }

    /// Late contributions, of all.
    #[must_use]
    pub fn late_ratio(&self) -> f64 {
        self.late as f64 / self.slots.max(1) as f64
    }

    /// Corrections per node and minute.
    #[must_use]
    pub fn corrections_per_node_min(&self) -> f64 {
        self.corrections as f64 * 60e9 / self.node_ns.max(1) as f64
    }
}

/// One mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct SeedReport {
    /// Its seed.
    pub seed: u64,
    /// Events of the queue.
    pub events: u64,
    /// Final versions.
    pub frames: u64,
    /// Views after the first.
    pub views: u64,
    /// What the members of the newest view own, in 32,768ths; none: equal parts.
    pub shares: Vec<u16>,
    /// The frame periods of its mesh, nanoseconds, in the order in which they were in force.
    pub periods_ns: Vec<u64>,
    /// Views whose members own unlike parts.
    pub unlike_views: u64,
    /// Mean time from the cut of a contribution to the moment at which it is final; 0 without one.
    pub commit_ns: u64,
    /// Datagrams sent, both planes.
    pub datagrams: u64,
    /// Faults that took place, by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// The same, by what the mesh was doing.
    pub coverage: Coverage,
    /// The longest time without a new final version.
    pub gap_ns: u64,
    /// The longest time from an order to HALT to the moment at which the last node that it could reach followed it; 0 without.
    pub halt_ns: u64,
    /// Where all mass is in the end; nothing of a mesh that broke a promise, or in which somebody lied.
    pub mass: Mass,
    /// For each member that was killed: nanoseconds until the last of the others suspected it or had a view without it.
    pub seen_ns: Vec<u64>,
    /// Lies told that some promise does not survive.
    pub lies: u64,
    /// What the sideband of any process has sent most, from 10 s on to the end, headers and tags included, as if sealed.
    pub sideband_bytes_per_s: u64,
    /// The longest time between the beats of any process at the end.
    pub beat_ns: u64,
    /// How well its nodes kept in time.
    pub timing: Timing,
    /// What was learnt, and what it took, when `SimConfig::learning` is set.
    pub study: Option<Box<Study>>,
    /// Hash over all that happened.
    pub trace_hash: Digest,
    /// The first broken promise; the run ends with it.
    pub violation: Option<Violation>,
    /// When `SimConfig::story` is set.
    pub story: Vec<String>,
    /// When `SimConfig::trace` is set.
    pub happened: Vec<Happening>,
}

/// All meshes together: the figures of the document `plesio.sim/1`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SimReport {
    /// How many seeds ran.
    pub seeds: u64,
    /// Virtual seconds per seed.
    pub simulated_s: u32,
    /// Events of all queues.
    pub events: u64,
    /// Final versions of all seeds.
    pub frames: u64,
    /// Faults that took place.
    pub faults_injected: u64,
    /// The same by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// The same by kind and by what the mesh was doing.
    pub coverage: Coverage,
    /// Mean time from the cut of a contribution to the moment at which it is final, of the seeds that have one; 0 without.
    pub commit_ns: u64,
    /// Mass of all seeds together.
    pub mass: Mass,
    /// For each member that was killed, in the order of the seeds: nanoseconds until all the others had seen it.
    pub seen_ns: Vec<u64>,
    /// Lies told that some promise does not survive.
    pub lies: u64,
    /// How well all nodes kept in time.
    pub timing: Timing,
    /// Hash over the hashes of the seeds, in their order.
    pub trace_hash: Digest,
    /// At most one per seed.
    pub violations: Vec<Violation>,
}

impl SimReport {
    /// What some meshes come to, in this order.
    #[must_use]
    pub fn of(simulated_s: u32, seeds: &[SeedReport]) -> Self {
        let mut hasher = plesio_wire::digest::Hasher::default();
        let (mut faults, mut coverage) = (BTreeMap::new(), Coverage::default());
        let mut timing = Timing::default();
        let mut mass = Mass::default();
        for report in seeds {
            hasher.update(&report.seed.to_le_bytes());
            hasher.update(&report.trace_hash.0);
            coverage.add(&report.coverage);
            timing.add(&report.timing);
            mass += report.mass;
            for (kind, count) in &report.faults {
                *faults.entry(*kind).or_default() += count;
            }
        }
        Self {
            seeds: seeds.len() as u64,
            simulated_s,
            events: seeds.iter().map(|report| report.events).sum(),
            frames: seeds.iter().map(|report| report.frames).sum(),
            faults_injected: faults.values().sum(),
            faults,
            coverage,
            commit_ns: mean_ns(seeds.iter().map(|report| report.commit_ns)),
            mass,
            seen_ns: seeds.iter().flat_map(|report| report.seen_ns.iter().copied()).collect(),
            lies: seeds.iter().map(|report| report.lies).sum(),
            timing,
            trace_hash: hasher.finish(),
            violations: seeds.iter().filter_map(|report| report.violation.clone()).collect(),
        }
    }
}

/// Of those that are not 0.
fn mean_ns(values: impl Iterator<Item = u64>) -> u64 {
    let (sum, count) = values
        .filter(|value| *value > 0)
        .fold((0_u128, 0_u128), |(sum, count), value| (sum + u128::from(value), count + 1));
    u64::try_from(sum / count.max(1)).unwrap_or(u64::MAX)
}
