//! The rival quinn, in a build without it.

use super::figures::Stretches;
use super::link::{Half, Run};
use super::memory::Memory;
use super::worker::Steps;
use crate::failure::{Exit, Failure};

/// Whether this build has it.
pub(crate) fn missing() -> Option<Failure> {
    let cause = "this build has no quinn";
    Some(
        Failure { exit: Exit::Missing, ..Failure::run("rival", "cannot compare with quinn", cause) }
            .fix("build it with `cargo build --release --features rivals`"),
    )
}

pub(crate) fn run(
    _run: &Run,
    _memory: [Option<&Memory>; 2],
    _steps: &Steps,
) -> Result<(Half, Stretches), Failure> {
    Err(missing().unwrap_or_else(|| Failure::run("rival", "cannot compare with quinn", "unknown")))
}
