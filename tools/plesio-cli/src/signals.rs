//! Ctrl-C and its kin as a message, and a stream that nobody reads any more as the same.

use crate::failure::{Exit, Failure, MORE_THREADS};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use std::os::fd::AsFd;

/// Calls `told` once: at the first of SIGINT, SIGTERM and SIGHUP, or where the command `streams` its result and the
/// reader of stdout has gone away. A second signal ends the process at once. Call this before any thread is started:
/// they inherit the mask. Child processes begin with a clean one.
pub(crate) fn watch(streams: bool, told: impl Fn() + Send + 'static) -> Result<(), Failure> {
    let failure = |cause| Failure::run("signals", "cannot watch for Ctrl-C", cause);
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        mask.add(signal);
    }
    mask.thread_block().map_err(|errno| failure(errno.into()))?;
    let signals = SignalFd::new(&mask).map_err(|errno| failure(errno.into()))?;
    let watch = move || {
        let (mut first, mut reader, mut told) = (true, streams, Some(told));
        let out = std::io::stdout();
        loop {
            // Of stdout nothing is asked: that its reader is gone is said unasked.
            let mut looks = [
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(out.as_fd(), PollFlags::empty()),
            ];
            match poll(&mut looks[..1 + usize::from(reader)], PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                Err(_) => return,
                Ok(_) => {}
            }
            let [signal, gone] = looks.map(|look| look.any().unwrap_or(true));
            if signal {
                let Ok(Some(_)) = signals.read_signal() else { return };
                if !std::mem::take(&mut first) {
                    std::process::exit(Exit::Interrupted as i32);
                }
            }
            reader &= !gone;
            if let Some(told) = told.take_if(|_| signal || gone) {
                told();
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".into());
    thread.spawn(watch).map(drop).map_err(|cause| failure(cause).fix(MORE_THREADS))
}
