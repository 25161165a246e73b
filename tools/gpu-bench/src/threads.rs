//! Threads, which a system may refuse: a limit of processes counts them too.

use std::thread;

/// What mends it where the system has no room for one more.
pub(crate) const FIX: &str = "raise the limit of processes with ulimit -u";

/// Starts a thread that nobody waits for.
///
/// # Errors
/// The system refuses.
pub(crate) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let started = thread::Builder::new().name(name.into()).spawn(work);
    started.map(drop).map_err(|error| format!("the thread '{name}' cannot be started: {error}; {FIX}"))
}
