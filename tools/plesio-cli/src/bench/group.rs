//! What an end asks of the scheduler: a group of its own, ahead of whatever else runs here, and a core if one was named.
//!
//! Where the kernel groups threads by session, a busy neighbour takes half of a core from a bench however many threads it
//! has, and `nice` changes nothing across sessions. So each end begins a session and asks for its group to go first.

use crate::failure::Failure;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::fs;

/// Makes this process a session of its own with weight, on one core if that is said. What was refused, as notes.
pub(crate) fn enter(pin: Option<u16>) -> Vec<String> {
    let pinned = pin.and_then(|core| {
        let mut cores = CpuSet::new();
        let pinned = cores.set(core.into()).and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores));
        Some(format!("an end is not kept to core {core}: {}", pinned.err()?.desc()))
    });
    pinned.into_iter().chain(group()).collect()
}

/// Whether there are such cores for this process, one for each end at most.
pub(crate) fn check(pin: &[u16], ends_here: usize) -> Result<(), Failure> {
    let failure = |cause: String, fix: String| Err(Failure::usage("pin", CANNOT, cause).fix(fix));
    match (pin.len(), ends_here) {
        (count, 1) if count > 1 => {
            let fix = "name one core here, and the other end's on its machine".into();
            return failure(format!("{count} cores, and one end is on this machine"), fix);
        }
        (count, _) if count > 2 => {
            let fix = "name two cores at most: of the end that begins and of the one that answers".into();
            return failure(format!("{count} cores for two ends"), fix);
        }
        _ => {}
    }
    check_cores(pin)
}

/// Whether this process may run on all of them.
pub(crate) fn check_cores(pin: &[u16]) -> Result<(), Failure> {
    let Ok(cores) = sched_getaffinity(Pid::from_raw(0)) else { return Ok(()) };
    match pin.iter().find(|core| !cores.is_set(usize::from(**core)).unwrap_or(false)) {
        Some(core) => {
            let may = (0..CpuSet::count()).filter(|core| cores.is_set(*core).unwrap_or(false));
            let may: Vec<String> = may.map(|core| core.to_string()).collect();
            let cause = format!("this process may not run on core {core}");
            Err(Failure::usage("pin", CANNOT, cause).fix(format!("it may run on {}", may.join(", "))))
        }
        None => Ok(()),
    }
}

fn group() -> Option<String> {
    // Refused only to the leader of a group, which has its own session's weight to ask for all the same.
    let _leader = nix::unistd::setsid();
    let grouped = fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled").ok()?;
    if grouped.trim() != "1" {
        return None;
    }
    let refused = fs::write("/proc/self/autogroup", NICE).err()?;
    Some(format!(
        "the scheduler's group of this bench has no weight of its own ({refused}): other work on this machine takes its share; \
         run as root, or on a quiet machine"
    ))
}

const NICE: &str = "-19";
const CANNOT: &str = "cannot keep the processes to these cores";
