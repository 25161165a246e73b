//! The scheduler's group of a bench's ends: their own, ahead of whatever else runs here.
//!
//! Where the kernel groups threads by session, a busy neighbour takes half of a core from a bench however many threads it
//! has, and `nice` changes nothing across sessions. So each end begins a session and asks for its group to go first.

use std::fs;

/// Makes this process a session of its own with weight. What was refused, as a note.
pub(crate) fn enter() -> Option<String> {
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
