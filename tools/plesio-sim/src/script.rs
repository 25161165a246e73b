//! Faults that are said beforehand instead of drawn: those of a scenario, or those that a real mesh was seen to suffer.

use crate::fault::{Fault, FaultSet};
use crate::plan::{Plan, Planned, QUIET_NS, Scope};
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
