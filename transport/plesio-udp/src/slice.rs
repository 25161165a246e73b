//! How soon a thread that wakes up gets its core: the one scheduling attribute that no crate at hand sets safely.
//!
//! Linux (6.12 and later, EEVDF) lets an ordinary thread say how long it wants to run at a time. One that asks for little is
//! due sooner, and takes the core from one that asked for more as soon as it wakes, instead of at the end of that one's slice
//! or at a tick of 4 ms. It gets no more of the core for it, and needs no right to ask. Earlier kernels take the number and
//! do nothing with it.
#![expect(unsafe_code, reason = "sched_getattr and sched_setattr have no wrappers")]

use nix::errno::Errno;
use nix::libc;

/// Asks that the calling thread run for a tenth of a millisecond at a time, the shortest there is, and so soon after it
/// wakes. A thread that has another policy than the ordinary ones is left as it is.
///
/// # Errors
/// What the kernel says; nothing has changed then.
pub fn shorten_slice() -> Result<(), Errno> {
    let mut attributes = attributes()?;
    let policy = attributes.sched_policy.cast_signed();
    if policy != libc::SCHED_OTHER && policy != libc::SCHED_BATCH {
        return Ok(());
    }
    attributes.sched_runtime = SLICE_NS;
    // SAFETY: the kernel reads one structure, as long as it says it is, from a live local.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    Errno::result(result).map(drop)
}

/// Those of the calling thread.
fn attributes() -> Result<libc::sched_attr, Errno> {
    let mut attributes = libc::sched_attr {
        size: 0,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let len_bytes = size_of::<libc::sched_attr>();
    // SAFETY: the kernel writes at most `len_bytes` into a live local of that length.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, len_bytes, 0) };
    Errno::result(result).map(|_| attributes)
}

const SLICE_NS: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_policy_and_its_niceness_and_tells_its_slice_where_the_kernel_has_any() {
        let thread = std::thread::spawn(|| {
            let before = attributes().expect("a thread may look at itself");
            shorten_slice().expect("it may ask for less at a time");
            (before, attributes().expect("a thread may look at itself"))
        });
        let (before, after) = thread.join().expect("it only asks");
        assert_eq!((before.sched_policy, before.sched_nice), (after.sched_policy, after.sched_nice));
        // 0 before Linux 6.12.
        assert!([0, SLICE_NS].contains(&after.sched_runtime), "{}", after.sched_runtime);
    }
}
