//! Ctrl-C and its kin as a message.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

use crate::threads;

/// Calls `told` at every SIGINT, SIGTERM and SIGHUP from now on. Call this before any thread is started: they inherit
/// the mask. Child processes begin with a clean one.
///
/// # Errors
/// The system refuses.
pub(crate) fn watch(told: impl Fn() + Send + 'static) -> Result<(), String> {
    let failure = |errno| format!("signals cannot be watched for: {errno}");
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        mask.add(signal);
    }
    mask.thread_block().map_err(failure)?;
    let signals = SignalFd::new(&mask).map_err(failure)?;
    threads::start("signals", move || {
        while let Ok(Some(_)) = signals.read_signal() {
            told();
        }
    })
}
