//! The flags of `plesio bench phase`.

use super::{OutputArgs, parse_switch};
use crate::bench::Requirement;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

pub(super) const ABOUT: &str = "How well nodes on two hosts agree on the time of their mesh.

Two network namespaces with a virtual cable between them are two hosts; needs root. Each process runs the sideband that a node runs: \
its socket, its thread, its estimator. The first, on one host, has a true clock and is the reference; there is one more for each \
--rate, in turns on the other host and on the first one's, and its clock is wrong by exactly that rate and by an --offset. All of \
them are affine functions of one hardware clock, so the truth is known to the nanosecond: every 10 ms each says what mesh time is at \
the same moment, and the error is the difference to what the reference says.

offset error: percentiles of its magnitude after the first 10 s, the worst clock of the run. bound: what the nodes publish about \
their own error; `violations` counts the moments at which it did not cover the truth, from the moment each locked, and one exits 1. \
rate error: of the estimated rate at the end of a run. lock: from being told the view to a usable mesh clock.

Rivals stand on the same two hosts and do not steer the clock (chronyd -x with interleaved exchanges, ptp4l with free_running and \
software stamps, both at as many exchanges a second as ours); both hosts share one clock, so all that they find is error. One that is not installed is \
named and left out. Every round runs ours first and last and the rivals between.";

#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct PhaseArgs {
    /// Rates by which the clocks are wrong, parts per million, a process for each: 1 to 31 of them, -10000 to 10000
    #[arg(long, env = "PLESIO_RATE", default_value = "200", value_delimiter = ',', value_name = "LIST")]
    #[arg(value_parser = parse_rate, allow_hyphen_values = true)]
    pub(crate) rate: Vec<f64>,

    /// Offsets by which they are wrong, seconds, in turn: -100000000 to 100000000
    #[arg(
        long,
        env = "PLESIO_OFFSET",
        default_value = "3600,-3600",
        value_delimiter = ',',
        value_name = "LIST"
    )]
    #[arg(value_parser = parse_offset, allow_hyphen_values = true)]
    pub(crate) offset: Vec<f64>,

    /// Whose time stamps of datagrams, with commas between them
    #[arg(
        long,
        env = "PLESIO_STAMPS",
        default_value = "kernel,user",
        value_delimiter = ',',
        value_enum,
        value_name = "LIST"
    )]
    pub(crate) stamps: Vec<StampsArg>,

    /// Others to run beside, with commas between them
    #[arg(
        long,
        env = "PLESIO_VS",
        default_value = "chrony,ptp4l",
        value_delimiter = ',',
        value_enum,
        value_name = "LIST"
    )]
    pub(crate) vs: Vec<TimeArg>,

    /// Length of each run, 15 to 600
    #[arg(long, env = "PLESIO_SECONDS", default_value_t = 30, value_name = "S")]
    #[arg(value_parser = clap::value_parser!(u16).range(15..=600))]
    pub(crate) seconds: u16,

    /// Rounds, 1 to 100
    #[arg(long, env = "PLESIO_REPEATS", default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) repeats: u8,

    /// Seeds the jitter of the probes
    #[arg(long, env = "PLESIO_SEED", default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,

    /// Keep the raw errors in the document: one point a moment and clock
    #[arg(long, env = "PLESIO_POINTS", value_parser = parse_switch)]
    pub(crate) points: bool,

    /// A bound on the document, NAME>=X or NAME<=X; a miss exits 3
    #[arg(long, value_name = "BOUND")]
    pub(crate) require: Vec<Requirement>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Whose stamps.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StampsArg {
    /// The kernel's, at the interface
    Kernel,
    /// The program's, around its calls
    User,
}

/// Another program that tells the time.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TimeArg {
    /// Chrony, by NTP
    Chrony,
    /// Linuxptp, by PTP
    Ptp4l,
    /// Nobody
    None,
}

impl TimeArg {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Chrony => "chrony",
            Self::Ptp4l => "ptp4l",
            Self::None => "none",
        }
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    parse_within(text, 10_000.0)
}

fn parse_offset(text: &str) -> Result<f64, String> {
    parse_within(text, 1e8)
}

fn parse_within(text: &str, limit: f64) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (-limit..=limit).contains(&value) { Ok(value) } else { Err(format!("from -{limit} to {limit}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_offsets_keep_their_ranges() {
        assert_eq!((parse_rate("-1000"), parse_offset("-3600")), (Ok(-1000.0), Ok(-3600.0)));
        for wrong in ["", "x", "NaN", "inf", "10001", "-10001"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
        assert!(parse_offset("2e8").is_err());
    }
}
