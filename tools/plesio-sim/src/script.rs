//! Faults that are said beforehand instead of drawn: those of a scenario, or those that a real mesh was seen to suffer.

use crate::fault::{Fault, FaultSet};
use crate::plan::{Plan, Planned, QUIET_NS, Scope};
use crate::random::Random;
use plesio_wire::MEMBERS_MAX;

/// Something goes wrong at a moment that is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Strike {
    /// What.
    pub fault: Fault,
    /// Whom it concerns. Joiners have the numbers after the nodes of the first view, in the order in which they come.
    pub host: u8,
    /// Virtual time at which it begins, nanoseconds.
    pub begin_ns: u64,
    /// How long it lasts, nanoseconds; none: a process that dies stays dead, anything else lasts until nothing breaks any more.
    pub lasts_ns: Option<u64>,
    /// Which links, of faults of links.
    pub reach: Reach,
    /// How bad, 1 to 100, of what the kind of fault does at its worst.
    pub level: u8,
}

impl Strike {
    /// Deaths as they come, so many for each node and hour, 0 to 3,600: every tenth of a second one is drawn for every node. Who
    /// dies is back after two seconds; six more are for coming in again, and nobody dies who would leave half of the nodes, or less.
    #[must_use]
    pub fn churn(seed: u64, nodes: u8, per_node_h: u16, simulated_s: u32) -> Vec<Self> {
        let mut random = Random::new(seed, "churn");
        let quiet_ns = (u64::from(simulated_s) * 1_000_000_000).saturating_sub(QUIET_NS);
        let chance_ppm = u32::from(per_node_h) * 1_000_000 / 36_000;
        let mut back_ns = vec![FIRST_DEATH_NS; nodes.into()];
        let mut deaths = Vec::new();
        for begin_ns in (0..quiet_ns).step_by(100_000_000) {
            for host in 0..nodes {
                let drawn = random.chance(chance_ppm) && deaths.len() < STRIKES_MAX;
                let there = back_ns.iter().filter(|back_ns| **back_ns <= begin_ns).count();
                let back_ns = &mut back_ns[usize::from(host)];
                if drawn && *back_ns <= begin_ns && 2 * (there - 1) > usize::from(nodes) {
                    let (lasts_ns, reach, level) = (Some(DOWN_NS), Reach::All, 100);
                    deaths.push(Self { fault: Fault::Crash, host, begin_ns, lasts_ns, reach, level });
                    *back_ns = begin_ns + DOWN_NS + ENTER_NS;
                }
            }
        }
        deaths
    }
}

/// The links that a fault concerns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    /// All of them.
    All,
    /// Everything on its way to that host.
    Into(u8),
    /// Everything on its way from it.
    From(u8),
    /// From the first to the second.
    Way(u8, u8),
    /// All between the hosts whose bits are set and the others.
    Between(u32),
}

impl From<Reach> for Scope {
    fn from(reach: Reach) -> Self {
        match reach {
            Reach::All => Self::All,
            Reach::Into(host) => Self::Into(host),
            Reach::From(host) => Self::From(host),
            Reach::Way(from, to) => Self::Way(from, to),
            Reach::Between(side) => Self::Between(side),
        }
    }
}

/// Whether that can happen to a mesh of so many nodes in so many seconds; else the first thing that cannot.
pub(crate) fn check(script: &[Strike], nodes: u8, simulated_s: u32) -> Result<(), String> {
    if script.len() > STRIKES_MAX {
        return Err(format!("{} faults are too many; at most {STRIKES_MAX}", script.len()));
    }
    let joins = script.iter().filter(|strike| strike.fault == Fault::Join).count();
    let room = MEMBERS_MAX - usize::from(nodes);
    if joins > room {
        return Err(format!("{joins} joiners and {nodes} nodes are more than {MEMBERS_MAX}"));
    }
    let hosts = usize::from(nodes) + joins;
    let quiet_ns = u64::from(simulated_s) * 1_000_000_000 - QUIET_NS;
    let mut joiners: Vec<(u64, u8)> = Vec::new();
    for (at, strike) in script.iter().enumerate() {
        let say = |what: String| Err(format!("fault {} ({}): {what}", at + 1, strike.fault.name()));
        let reached = match strike.reach {
            Reach::All | Reach::Between(_) => 0,
            Reach::Into(host) | Reach::From(host) => host,
            Reach::Way(from, to) => from.max(to),
        };
        if let Reach::Between(side) = strike.reach {
            let all = u32::MAX >> (32 - hosts.min(32));
            if side & !all != 0 || side & all == all {
                return say(format!("a side is some of the nodes 0 to {}, and not all of them", hosts - 1));
            }
        }
        let host = strike.host.max(reached);
        if usize::from(host) >= hosts {
            return say(format!("there is no node {host}; they are 0 to {}", hosts - 1));
        }
        if strike.begin_ns >= quiet_ns {
            let (s, quiet_s) = (strike.begin_ns as f64 / 1e9, quiet_ns as f64 / 1e9);
            return say(format!(
                "it begins at {s:.3} s, and nothing breaks after {quiet_s:.3} s; give it more seconds"
            ));
        }
        if !(1..=100).contains(&strike.level) {
            return say(format!("level {} is out of range; choose 1 to 100", strike.level));
        }
        if strike.fault == Fault::Join {
            joiners.push((strike.begin_ns, strike.host));
        }
    }
    joiners.sort_unstable();
    for (expected, (_, host)) in (nodes..).zip(joiners) {
        if host != expected {
            return Err(format!(
                "the joiners are numbered in the order in which they come: {expected}, not {host}"
            ));
        }
    }
    Ok(())
}

impl Plan {
    /// What a script says, checked.
    pub(crate) fn scripted(script: &[Strike], nodes: u8, simulated_ns: u64) -> Self {
        let quiet_ns = simulated_ns - QUIET_NS;
        let mut kinds = FaultSet::NONE;
        let mut faults = Vec::with_capacity(script.len());
        for strike in script {
            kinds.insert(strike.fault);
            let dies = matches!(strike.fault, Fault::Crash | Fault::Exit | Fault::Proposer);
            // Of those that die, the mild ones stay down.
            let level = match (dies, strike.lasts_ns) {
                (true, None) => 1,
                (true, Some(_)) => 100,
                (false, _) => u64::from(strike.level),
            };
            faults.push(Planned {
                kind: strike.fault,
                begin_ns: strike.begin_ns,
                lasts_ns: strike.lasts_ns.unwrap_or(simulated_ns).min(simulated_ns),
                aim: None,
                patience_ns: 0,
                host: strike.host,
                scope: strike.reach.into(),
                level,
            });
        }
        faults.sort_by_key(|fault| fault.begin_ns);
        let joins = script.iter().filter(|strike| strike.fault == Fault::Join).count() as u8;
        // Who writes a script may let a quorum die.
        Self { faults, quiet_ns, end_ns: simulated_ns, hosts: nodes + joins, brutal: true, kinds }
    }
}

/// How long the dead stay down, and when the first of them dies at the earliest: a mesh is there by then.
const DOWN_NS: u64 = 2_000_000_000;
/// What coming in again may take.
const ENTER_NS: u64 = 6_000_000_000;
const FIRST_DEATH_NS: u64 = 3_000_000_000;
/// Faults of one script.
const STRIKES_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn strike(fault: Fault, host: u8, at_s: u64) -> Strike {
        let begin_ns = at_s * SECOND;
        Strike { fault, host, begin_ns, lasts_ns: None, reach: Reach::All, level: 50 }
    }

    #[test]
    fn what_cannot_happen_is_refused_with_its_place() {
        let fine = [strike(Fault::Crash, 3, 2), strike(Fault::Join, 4, 3), strike(Fault::Pause, 4, 5)];
        assert_eq!(check(&fine, 4, 20), Ok(()));
        for (wrong, word) in [
            (strike(Fault::Crash, 4, 2), "no node 4"),
            (strike(Fault::Crash, 3, 14), "nothing breaks after"),
            (Strike { level: 0, ..strike(Fault::Loss, 0, 2) }, "level 0"),
            (Strike { reach: Reach::Between(0b10_0001), ..strike(Fault::Partition, 0, 2) }, "a side is"),
            (Strike { reach: Reach::Between(0b1_1111), ..strike(Fault::Partition, 0, 2) }, "a side is"),
            (Strike { reach: Reach::Way(0, 9), ..strike(Fault::OneWay, 0, 2) }, "no node 9"),
        ] {
            let error = check(&[wrong], 4, 20).expect_err(word);
            assert!(error.contains("fault 1") && error.contains(word), "{error}");
        }
        let swapped = [strike(Fault::Join, 5, 2), strike(Fault::Join, 4, 3)];
        assert!(check(&swapped, 4, 20).expect_err("out of order").contains("numbered"));
        assert!(check(&[strike(Fault::Join, 32, 2)], 32, 20).is_err());
        assert!(check(&vec![fine[0]; STRIKES_MAX + 1], 4, 20).is_err());
    }

    #[test]
    fn deaths_come_as_often_as_they_should() {
        let deaths = Strike::churn(1, 8, 60, 3_600);
        // 8 nodes, 60 an hour: 480, less the eighth of the time in which each is down or coming in; the deviation is 20.
        assert!((360..520).contains(&deaths.len()), "{}", deaths.len());
        assert_eq!(check(&deaths, 8, 3_600), Ok(()));
        assert!(Strike::churn(1, 8, 0, 3_600).is_empty() && Strike::churn(1, 8, 60, 5).is_empty());
        assert!(Strike::churn(1, 2, 3_600, 600).is_empty() && !Strike::churn(1, 3, 3_600, 600).is_empty());
        assert!(Strike::churn(1, 32, 3_600, 3_600).len() <= STRIKES_MAX);
        assert_eq!(deaths, Strike::churn(1, 8, 60, 3_600));
    }

    #[test]
    fn who_dies_for_good_stays_down_and_others_return() {
        let back = Strike { lasts_ns: Some(SECOND), ..strike(Fault::Crash, 1, 3) };
        let plan = Plan::scripted(&[back, strike(Fault::Crash, 2, 2)], 4, 20 * SECOND);
        assert_eq!(
            plan.faults.iter().map(|fault| (fault.host, fault.level > 15)).collect::<Vec<_>>(),
            [(2, false), (1, true)]
        );
        assert_eq!((plan.hosts, plan.quiet_ns), (4, 14 * SECOND));
    }
}
