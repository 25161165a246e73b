//! Ctrl-C and its kin as a message.

use crate::failure::{Exit, Failure};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

/// Calls `told` at the first of SIGINT, SIGTERM and SIGHUP; a second one ends the process at once. Call this
/// before any thread is started: they inherit the mask. Child processes begin with a clean one.
pub(crate) fn watch(told: impl Fn() + Send + 'static) -> Result<(), Failure> {
    let failure = |cause| Failure::run("signals", "cannot watch for Ctrl-C", cause);
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        mask.add(signal);
    }
    mask.thread_block().map_err(|errno| failure(errno.into()))?;
    let signals = SignalFd::new(&mask).map_err(|errno| failure(errno.into()))?;
    let watch = move || {
        let mut first = true;
        while let Ok(Some(_)) = signals.read_signal() {
            if !std::mem::take(&mut first) {
                std::process::exit(Exit::Interrupted as i32);
            }
            told();
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map(drop).map_err(failure)
}
