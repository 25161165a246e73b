//! What came of a simulation.

use crate::fault::{Fault, FaultSet};
use crate::phase::Coverage;
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

/// How contributions kept up with their frames.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pace {
    /// Contributions of all members that came into a manifest.
    pub listed: u64,
    /// Those of them that were whole only after the frame they were cut for had closed.
    pub late: u64,
}

impl Pace {
    pub(crate) fn handle_listed(&mut self, late: bool) {
        self.listed += 1;
        self.late += u64::from(late);
    }

    /// Those of another mesh too.
    pub fn add(&mut self, other: Self) {
        self.listed += other.listed;
        self.late += other.late;
    }

    /// Which part was late; none of none.
    #[must_use]
    pub fn late_ratio(self) -> Option<f64> {
        (self.listed > 0).then(|| self.late as f64 / self.listed as f64)
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
    /// Contributions, and the late ones.
    pub pace: Pace,
    /// The longest time without a new final version.
    pub gap_ns: u64,
    /// The longest time from an order to HALT to the moment at which the last node that it could reach followed it; 0 without.
    pub halt_ns: u64,
    /// Lies told that some promise does not survive.
    pub lies: u64,
    /// What the sideband of any process has sent most, from 10 s on to the end, headers and tags included, as if sealed.
    pub sideband_bytes_per_s: u64,
    /// The longest time between the beats of any process at the end.
    pub beat_ns: u64,
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
    /// Contributions of all seeds, and the late ones.
    pub pace: Pace,
    /// Mean time from the cut of a contribution to the moment at which it is final, of the seeds that have one; 0 without.
    pub commit_ns: u64,
    /// Lies told that some promise does not survive.
    pub lies: u64,
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
        let (mut faults, mut coverage, mut pace) = (BTreeMap::new(), Coverage::default(), Pace::default());
        for report in seeds {
            hasher.update(&report.seed.to_le_bytes());
            hasher.update(&report.trace_hash.0);
            coverage.add(&report.coverage);
            pace.add(report.pace);
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
            pace,
            commit_ns: mean_ns(seeds.iter().map(|report| report.commit_ns)),
            lies: seeds.iter().map(|report| report.lies).sum(),
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
