//! The rival quinn: QUIC, encrypted, with a certificate made for the run. In a build with the feature `rivals` only; any
//! other says so.

#[cfg(feature = "rivals")]
mod present;

#[cfg(feature = "rivals")]
pub(crate) use present::run;

use crate::failure::{Exit, Failure};

/// Why there is no quinn in this build, if there is none.
pub(crate) fn missing() -> Option<Failure> {
    let cause = "this build has no quinn";
    let failure =
        Failure { exit: Exit::Missing, ..Failure::run("rival", "cannot compare with quinn", cause) }
            .fix("build it with `cargo build --release -p plesio-cli --features rivals`");
    if cfg!(feature = "rivals") { None } else { Some(failure) }
}

/// What an end without it answers when another machine asks for it.
#[cfg(not(feature = "rivals"))]
pub(crate) fn run(
    _run: &super::link::Run,
    _memory: [Option<&super::memory::Memory>; 2],
    _steps: &super::worker::Steps,
) -> Result<(super::link::Half, super::figures::Stretches), Failure> {
    Err(missing().unwrap_or_else(|| Failure::run("rival", "cannot compare with quinn", "it is not built")))
}
