//! What goes wrong in one seed, and when: drawn before the run, so that the story is known from its seed.
//!
//! Every seed draws a part of the kinds it may use (a swarm: Groce, Zhang, Eide, Chen, Regehr, "Swarm testing",
//! 2012), because a run in which everything breaks at once never gets far enough to break anything else. What the mesh
//! does for milliseconds only would hardly ever be struck by chance: part of the faults wait for it.

use crate::config::SimConfig;
use crate::fault::{Fault, FaultSet};
use crate::impair::Impairment;
use crate::phase::Phase;
use crate::random::Random;
use plesio_wire::MEMBERS_MAX;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    pub(crate) kind: Fault,
    pub(crate) begin_ns: u64,
    pub(crate) lasts_ns: u64,
    /// From its beginning on it waits for this phase, so long at most; without a phase it waits so long.
    pub(crate) aim: Option<Phase>,
    pub(crate) patience_ns: u64,
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
    /// Kinds that it draws from.
    pub(crate) kinds: FaultSet,
}

impl Plan {
    /// The script's faults if there is one, else drawn.
    pub(crate) fn of(config: &SimConfig, seed: u64, simulated_ns: u64) -> Self {
        match &config.script {
            Some(script) => Self::scripted(script, config.nodes, simulated_ns),
            None => Self::draw(seed, config.nodes, config.faults, simulated_ns),
        }
    }

    pub(crate) fn draw(seed: u64, nodes: u8, allowed: FaultSet, simulated_ns: u64) -> Self {
        let mut random = Random::new(seed, "plan");
        let quiet_ns = simulated_ns - QUIET_NS;
        let kinds = draw_kinds(seed, &mut random, allowed);
        let mut plan = Self {
            faults: Vec::new(),
            quiet_ns,
            end_ns: simulated_ns,
            hosts: nodes,
            brutal: random.chance(150_000),
            kinds,
        };
        if kinds.is_empty() {
            return plan;
        }
        let mut others = kinds;
        others.remove(Fault::Exit);
        let list: Vec<Fault> = others.iter().collect();
        // Longer runs get more of everything.
        let wanted = random.between(20, 32) * quiet_ns.max(FULL_NS) / FULL_NS;
        let joins_max = JOINS_MAX.min(MEMBERS_MAX as u32 - u32::from(nodes));
        let mut joins = 0;
        for _ in 0..if list.is_empty() { 0 } else { wanted } {
            let kind = random.pick(&list);
            if kind == Fault::Join {
                if joins == joins_max {
                    continue;
                }
                joins += 1;
            }
            plan.add(&mut random, nodes, kind);
        }
        if kinds.contains(Fault::Exit) {
            let mut random = Random::new(seed, "exits");
            let wanted = random.between(1, 4) * quiet_ns.max(FULL_NS) / FULL_NS;
            (0..wanted).for_each(|_| plan.add(&mut random, nodes, Fault::Exit));
        }
        plan.aim(seed);
        plan.faults.sort_by_key(|fault| fault.begin_ns);
        plan
    }

    fn add(&mut self, random: &mut Random, nodes: u8, kind: Fault) {
        let begin_ns = random.between(300_000_000, self.quiet_ns - 1_500_000_000);
        let short = [200_000_000, 700_000_000, 3_000_000_000];
        let lasts_ns = match kind {
            Fault::Pause | Fault::Suspend => random.pick(&short),
            Fault::Crash | Fault::Proposer | Fault::Exit => random.between(50_000_000, 3_000_000_000),
            Fault::Restart => random.between(1_000_000, 40_000_000),
            Fault::Partition | Fault::Split | Fault::OneWay => random.between(100_000_000, 4_000_000_000),
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
        let level = random.between(1, 100);
        let (aim, patience_ns) = (None, 0);
        self.faults.push(Planned { kind, begin_ns, lasts_ns, aim, patience_ns, host, scope, level });
    }

    /// Makes part of the faults of a mixed plan wait for a phase. Drawn apart, so that a plan of one kind stays as it is.
    fn aim(&mut self, seed: u64) {
        let mut random = Random::new(seed, "aims");
        let mixed = self.kinds.len() > 1;
        for fault in &mut self.faults {
            if mixed && random.chance(AIMED_PPM) {
                fault.aim = Some(random.pick(&AIMS));
                fault.patience_ns = random.between(1_000_000_000, 4_000_000_000);
            } else if fault.kind == Fault::Restart {
                // What is sent meanwhile is under way for long.
                fault.patience_ns = random.between(50_000_000, 300_000_000);
            }
            if mixed && matches!(fault.kind, Fault::Pause | Fault::Suspend) && random.chance(150_000) {
                fault.lasts_ns = 5_000_000_000;
            }
        }
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
            Fault::Split => link.cut = true,
            Fault::Slow => link.delay_ns += part(25_000_000),
            Fault::Mtu => {
                let most = MTUS[(self.level % MTUS.len() as u64) as usize];
                link.mtu_bytes = Some(link.mtu_bytes.map_or(most, |bytes| bytes.min(most)));
            }
            Fault::Crash
            | Fault::Pause
            | Fault::Clock
            | Fault::Join
            | Fault::Leave
            | Fault::Buffers
            | Fault::Starve
            | Fault::Suspend
            | Fault::Restart
            | Fault::Proposer
            | Fault::Accuse
            | Fault::Stall
            | Fault::Exit
            | Fault::Forge
            | Fault::Equivocate
            | Fault::Halt
            | Fault::Suppress
            | Fault::Narrow => {}
        }
    }

    /// What it leaves of the uplink of a host, bytes per second.
    pub(crate) fn uplink(&self, host: u8) -> Option<u64> {
        let concerns = match self.scope {
            Scope::All => true,
            Scope::Into(narrow) | Scope::From(narrow) | Scope::Way(narrow, _) => narrow == host,
            Scope::Between(side) => side >> host & 1 == 1,
        };
        (self.kind == Fault::Narrow && concerns).then(|| UPLINK / self.level.max(1))
    }

    /// Before a process is started anew, what it sends takes its time: it arrives in the next life.
    pub(crate) fn hold_back(&self, from: u8, link: &mut Impairment) {
        if self.kind == Fault::Restart && self.host == from {
            (link.reorder_ppm, link.reorder_ns) = (700_000, 400_000_000);
        }
    }
}

/// About six in ten of the allowed kinds, never none of them. Whether hosts refuse is drawn apart: with it or without, the
/// rest of a seed's plan is the same.
fn draw_kinds(seed: u64, random: &mut Random, allowed: FaultSet) -> FaultSet {
    let (mut others, exits) = (allowed, Random::new(seed, "exit").chance(DRAWN_PPM));
    others.remove(Fault::Exit);
    if allowed.len() <= 1 {
        return allowed;
    }
    loop {
        let mut kinds = FaultSet::NONE;
        for fault in others.iter() {
            if random.chance(DRAWN_PPM) {
                kinds.insert(fault);
            }
        }
        if exits && allowed.contains(Fault::Exit) {
            kinds.insert(Fault::Exit);
        }
        if !kinds.is_empty() {
            return kinds;
        }
    }
}

/// How long before the end of a run the last fault is over.
pub(crate) const QUIET_NS: u64 = 6_000_000_000;
/// How often a kind is in a seed's plan, millionths.
const DRAWN_PPM: u32 = 600_000;
/// Joiners of one run.
const JOINS_MAX: u32 = 3;
/// In a run of so much time for faults there are as many as are wanted, in a longer one more.
const FULL_NS: u64 = 14_000_000_000;
/// Faults that wait for a phase, millionths.
const AIMED_PPM: u32 = 650_000;
/// What they wait for; what is rare more often.
const AIMS: [Phase; 12] = [
    Phase::Proposing,
    Phase::Proposing,
    Phase::Querying,
    Phase::Querying,
    Phase::Querying,
    Phase::Open,
    Phase::Sealing,
    Phase::Changing,
    Phase::Changing,
    Phase::Changing,
    Phase::Joining,
    Phase::Bereaved,
];
/// What a narrowed uplink carries at level 1, bytes per second.
const UPLINK: u64 = 1_000_000;
/// What paths carry that are narrower than others, UDP payload: 1,232 is what IPv6 promises, less its headers.
const MTUS: [u32; 5] = [1_232, 1_252, 1_392, 1_472, 4_052];

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
                assert!(fault.begin_ns <= plan.quiet_ns && fault.lasts_ns <= 5_000_000_000);
                assert!(fault.aim.is_none() || fault.patience_ns >= 1_000_000_000);
                assert!(fault.host < plan.hosts && plan.hosts <= 8 + JOINS_MAX as u8);
                seen.insert(fault.kind);
            }
        }
        assert_eq!(seen, FaultSet::ALL);
        assert!(smallest < 12 && faults > 200 * 20, "{smallest} kinds, {faults} faults");
        assert!(Plan::draw(1, 4, FaultSet::NONE, 20_000_000_000).faults.is_empty());
        let mut one = FaultSet::NONE;
        one.insert(Fault::Pause);
        assert!(
            Plan::draw(1, 4, one, 20_000_000_000)
                .faults
                .iter()
                .all(|fault| fault.kind == Fault::Pause && fault.aim.is_none())
        );
        let full = Plan::draw(1, 32, FaultSet::ALL, 20_000_000_000);
        assert!(full.hosts == 32 && full.faults.iter().all(|fault| fault.kind != Fault::Join));
    }

    #[test]
    fn a_partition_cuts_between_the_sides_and_nowhere_else() {
        let scope = Scope::Between(0b0011);
        assert!(scope.concerns(0, 2) && scope.concerns(3, 1));
        assert!(!scope.concerns(0, 1) && !scope.concerns(2, 3));
    }
}
