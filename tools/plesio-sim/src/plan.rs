//! What goes wrong in one seed, and when: drawn before the run, so that the story is known from its seed.
//!
//! Every seed draws a part of the kinds it may use (a swarm: Groce, Zhang, Eide, Chen, Regehr, "Swarm testing",
//! 2012), because a run in which everything breaks at once never gets far enough to break anything else.

use crate::fault::{Fault, FaultSet};
use crate::impair::Impairment;
use crate::random::Random;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    pub(crate) kind: Fault,
    pub(crate) begin_ns: u64,
    pub(crate) end_ns: u64,
    /// Whom it concerns; for a partition one of the sides.
    pub(crate) host: u8,
    pub(crate) scope: Scope,
    /// How bad, 1 to 100.
    pub(crate) level: u64,
}

/// Which links a fault concerns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope {
    All,
    Into(u8),
    From(u8),
    Way(u8, u8),
    Between(u32),
}

impl Scope {
    fn concerns(self, from: u8, to: u8) -> bool {
        match self {
            Self::All => true,
            Self::Into(host) => to == host,
            Self::From(host) => from == host,
            Self::Way(a, b) => (from, to) == (a, b),
            Self::Between(side) => (side >> from ^ side >> to) & 1 == 1,
        }
    }
}

/// The faults of one seed and the kind of mesh they meet.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) faults: Vec<Planned>,
    /// From here on nothing is broken.
    pub(crate) quiet_ns: u64,
    pub(crate) end_ns: u64,
    /// Hosts, joiners included.
    pub(crate) hosts: u8,
    /// A quorum may die.
    pub(crate) brutal: bool,
}

impl Plan {
    pub(crate) fn draw(seed: u64, nodes: u8, allowed: FaultSet, simulated_ns: u64) -> Self {
        let mut random = Random::new(seed, "plan");
        let quiet_ns = simulated_ns - QUIET_NS;
        let kinds = draw_kinds(&mut random, allowed);
        let mut plan = Self {
            faults: Vec::new(),
            quiet_ns,
            end_ns: simulated_ns,
            hosts: nodes,
            brutal: random.chance(150_000),
        };
        if kinds.is_empty() {
            return plan;
        }
        let list: Vec<Fault> = kinds.iter().collect();
        // Longer runs get more of everything.
        let wanted = random.between(20, 32) * quiet_ns / 14_000_000_000;
        let mut joins = 0;
        for _ in 0..wanted.max(1) {
            let kind = random.pick(&list);
            if kind == Fault::Join {
                if joins == JOINS_MAX {
                    continue;
                }
                joins += 1;
            }
            plan.add(&mut random, nodes, kind);
        }
        plan.faults.sort_by_key(|fault| fault.begin_ns);
        plan
    }

    fn add(&mut self, random: &mut Random, nodes: u8, kind: Fault) {
        let begin_ns = random.between(300_000_000, self.quiet_ns - 1_500_000_000);
        let short = [200_000_000, 700_000_000, 3_000_000_000];
        let lasts_ns = match kind {
            Fault::Pause => random.pick(&short),
            Fault::Crash => random.between(50_000_000, 3_000_000_000),
            Fault::Partition | Fault::OneWay => random.between(100_000_000, 4_000_000_000),
            Fault::Join | Fault::Leave => 0,
            _ => random.between(300_000_000, 5_000_000_000),
        };
        let host = random.below(u64::from(nodes)) as u8;
        let other = random.below(u64::from(nodes)) as u8;
        let scope = match (kind, random.below(6)) {
            (Fault::Partition, _) => Scope::Between(random.next() as u32),
            (Fault::OneWay, 0 | 1) => Scope::Into(host),
            (Fault::OneWay, 2 | 3) => Scope::From(host),
            (Fault::OneWay, _) => Scope::Way(host, other),
            (Fault::Slow, _) => Scope::Into(host),
            (_, 0..=2) => Scope::All,
            (_, 3) => Scope::Into(host),
            (_, 4) => Scope::From(host),
            _ => Scope::Way(host, other),
        };
        let host = if kind == Fault::Join {
            self.hosts += 1;
            self.hosts - 1
        } else {
            host
        };
        let end_ns = (begin_ns + lasts_ns).min(self.quiet_ns);
        self.faults.push(Planned { kind, begin_ns, end_ns, host, scope, level: random.between(1, 100) });
    }
}

impl Planned {
    /// What this fault adds to what is wrong with a link.
    pub(crate) fn impair(&self, from: u8, to: u8, link: &mut Impairment) {
        if !self.scope.concerns(from, to) {
            return;
        }
        let part = |most: u64| (most * self.level / 100).max(1);
        match self.kind {
            Fault::Loss => link.loss_ppm = link.loss_ppm.max(part(300_000) as u32),
            Fault::Burst => (link.silence_ppm, link.silence_ns) = (part(8_000) as u32, 250_000_000),
            Fault::Delay => link.delay_ns += part(60_000_000),
            Fault::Jitter => link.jitter_ns += part(30_000_000),
            Fault::Reorder => {
                link.reorder_ppm = link.reorder_ppm.max(part(300_000) as u32);
                link.reorder_ns = link.reorder_ns.max(30_000_000);
            }
            Fault::Duplicate => link.duplicate_ppm = link.duplicate_ppm.max(part(500_000) as u32),
            Fault::Corrupt => link.corrupt_ppm = link.corrupt_ppm.max(part(150_000) as u32),
            Fault::OneWay | Fault::Partition => link.cut = true,
            Fault::Slow => link.delay_ns += part(25_000_000),
            Fault::Crash | Fault::Pause | Fault::Clock | Fault::Join | Fault::Leave => {}
        }
    }
}

/// About six in ten of the allowed kinds, never none of them.
fn draw_kinds(random: &mut Random, allowed: FaultSet) -> FaultSet {
    if allowed.len() <= 1 {
        return allowed;
    }
    loop {
        let mut kinds = FaultSet::NONE;
        for fault in allowed.iter() {
            if random.chance(600_000) {
                kinds.insert(fault);
            }
        }
        if !kinds.is_empty() {
            return kinds;
        }
    }
}

/// How long before the end of a run the last fault is over.
pub(crate) const QUIET_NS: u64 = 6_000_000_000;
/// Joiners of one run.
const JOINS_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_differ_stay_in_time_and_use_every_kind() {
        let mut seen = FaultSet::NONE;
        let (mut smallest, mut faults) = (usize::MAX, 0);
        for seed in 0..200 {
            let plan = Plan::draw(seed, 8, FaultSet::ALL, 20_000_000_000);
            assert_eq!(plan.quiet_ns, 14_000_000_000);
            let mut kinds = FaultSet::NONE;
            plan.faults.iter().for_each(|fault| kinds.insert(fault.kind));
            smallest = smallest.min(kinds.len());
            faults += plan.faults.len();
            for fault in &plan.faults {
                assert!(fault.begin_ns <= fault.end_ns && fault.end_ns <= plan.quiet_ns);
                assert!(fault.host < plan.hosts && plan.hosts <= 8 + JOINS_MAX as u8);
                seen.insert(fault.kind);
            }
        }
        assert_eq!(seen, FaultSet::ALL);
        assert!(smallest < 8 && faults > 200 * 20, "{smallest} kinds, {faults} faults");
        assert!(Plan::draw(1, 4, FaultSet::NONE, 20_000_000_000).faults.is_empty());
        let mut one = FaultSet::NONE;
        one.insert(Fault::Pause);
        assert!(Plan::draw(1, 4, one, 20_000_000_000).faults.iter().all(|fault| fault.kind == Fault::Pause));
    }

    #[test]
    fn a_partition_cuts_between_the_sides_and_nowhere_else() {
        let scope = Scope::Between(0b0011);
        assert!(scope.concerns(0, 2) && scope.concerns(3, 1));
        assert!(!scope.concerns(0, 1) && !scope.concerns(2, 3));
    }
}
