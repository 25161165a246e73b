//! The flags of `plesio characterize`.

use super::{LinksArg, OutputArgs, WeightsArg, parse_seeds, parse_switch};
use clap::Args;
use serde::{Serialize, Serializer};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

pub(super) const ABOUT: &str = "What unlike machines, clocks, links, deaths and data do to learning: CSV and plots of a sweep, on virtual time.

The engine, the agreement, the clocks, the ring and the datagrams are those of `plesio up`; time and the network are simulated, as in \
`plesio sim`, and every promise is checked. The workers really learn: which letter follows which, by stochastic gradient descent, in \
eight texts of different kinds. Every list makes its values cells of a matrix with those of the others. Without any list it is a star: \
the first values of all, and each other value alone.

A row for every cell and seed: t_target_s is when the mesh had the loss that one machine of mean speed, with all the data, has at the \
end; loss_gap_vs_serial is above what such a machine reaches with a batch as large as that of all workers together, where nothing is \
stale, lost or unlike. useful, lost: steps that got into a version, or never will, of all that were computed. idle: steps not taken \
while a node was not with the mesh. Of those that live at the end, since their last start: late, contributions complete after the close \
they were aimed at; fold, cuts that were merged in a full ring or put off, of all; adj, moves of the phase corrector; lock, the longest \
time until it was locked. reject: cuts listed in no version and given back. stale: versions between a contribution's base and its close. \
commit_lat: from a cut to the final version. clock_err: from the middle of all mesh clocks, and eps the nodes' own bound against the \
clock they follow. reconfig_stall: between the versions before and after a view. Empty: there was none. Exits 1 when a promise was \
broken, or a mesh stood still for good.";

#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct CharacterizeArgs {
    /// Nodes, 1 to 32 each [default: 8, also 4 and 16]
    #[arg(long, env = "PLESIO_NODES", value_name = "LIST", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) nodes: Vec<u8>,

    /// Mixes of accelerators: how long a step takes, milliseconds, on one node after the other and again from the first, 1 to
    /// 10000 each [default: 15:30:60:120, also 40 and 20:20:20:320]
    #[arg(long, env = "PLESIO_MIX", value_name = "LIST", value_delimiter = ',')]
    pub(crate) mix: Vec<MixArg>,

    /// How far clocks run from true time, ppm, 0 to 1000 each: +P, -P, +P/2, -P/2 in turn [default: 50, also 0 and 200]
    #[arg(long, env = "PLESIO_CLOCK", value_name = "LIST", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=1_000))]
    pub(crate) clock: Vec<u16>,

    /// Kinds of networks; drawn ones need --period-ms [default: lan, also wifi]
    #[arg(long, env = "PLESIO_LINKS", value_name = "LIST", value_delimiter = ',', value_enum)]
    pub(crate) links: Vec<LinksArg>,

    /// Deaths for each node and hour, 0 to 3600 each; the dead are back after two seconds, and a majority
    /// is always there [default: 0, also 60]
    #[arg(long, env = "PLESIO_CHURN", value_name = "LIST", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=3_600))]
    pub(crate) churn: Vec<u16>,

    /// Concentrations of the Dirichlet distribution by which each node's share of the texts is drawn, 0.01 to 1000 each; inf:
    /// all texts alike [default: 1, also inf and 0.1]
    #[arg(long, env = "PLESIO_ALPHA", value_name = "LIST", value_delimiter = ',')]
    pub(crate) alpha: Vec<AlphaArg>,

    /// Frame periods, milliseconds, 50 to 60000 each; they stay as they are [default: what suits the network, 500 for lan and
    /// 1000 for wifi; also 250 and 2000]
    #[arg(long, env = "PLESIO_PERIOD_MS", value_name = "LIST", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u32).range(50..=60_000))]
    pub(crate) period_ms: Vec<u32>,

    /// How much a contribution weighs in a version [default: mass, also work and equal]
    #[arg(long, env = "PLESIO_WEIGHTS", value_name = "LIST", value_delimiter = ',', value_enum)]
    pub(crate) weights: Vec<WeightsArg>,

    /// Seeds of every cell; B is not among them
    #[arg(long, env = "PLESIO_SEEDS", default_value = "0..2", value_name = "A..B", value_parser = parse_seeds)]
    pub(crate) seeds: Range<u64>,

    /// Virtual time of every row, 10 to 600; nobody dies in the last six seconds
    #[arg(long, env = "PLESIO_SECONDS", default_value_t = 60, value_name = "S")]
    #[arg(value_parser = clap::value_parser!(u32).range(10..=600))]
    pub(crate) seconds: u32,

    /// Folder for characterize.csv, characterize.json with the whole configuration of every row, plots.html, and traces
    #[arg(long, env = "PLESIO_OUT", default_value = "plesio-characterize", value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// Do not write down what happened in every row: some hundred kilobytes for every simulated minute and node
    #[arg(long, env = "PLESIO_NO_TRACES", value_parser = parse_switch)]
    pub(crate) no_traces: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// How long steps take on the machines of a mesh, milliseconds, in turn.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct MixArg(pub(crate) Vec<u32>);

impl FromStr for MixArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let steps = text.split(':').map(|step| {
            let ms: u32 = step.parse().map_err(|error| format!("{step:?}: {error}"))?;
            if (1..=10_000).contains(&ms) { Ok(ms) } else { Err(format!("{ms} is not in 1..=10000")) }
        });
        let steps: Vec<u32> = steps.collect::<Result<_, _>>()?;
        if steps.len() <= 32 { Ok(Self(steps)) } else { Err("more than 32 machines".into()) }
    }
}

impl fmt::Display for MixArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&steps.join(":"))
    }
}

impl Serialize for MixArg {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A concentration, in thousandths; none: infinite.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct AlphaArg(pub(crate) Option<u32>);

impl FromStr for AlphaArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "inf" {
            return Ok(Self(None));
        }
        let alpha: f64 = text.parse().map_err(|error| format!("{error}"))?;
        if (0.01..=1_000.0).contains(&alpha) {
            Ok(Self(Some((alpha * 1e3).round() as u32)))
        } else {
            Err("from 0.01 to 1000, or inf".into())
        }
    }
}

impl fmt::Display for AlphaArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(millis) => write!(f, "{}", f64::from(millis) / 1e3),
            None => f.write_str("inf"),
        }
    }
}

impl Serialize for AlphaArg {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// What a line of flags says, for tests.
#[cfg(test)]
pub(crate) fn characterize_args(line: &str) -> CharacterizeArgs {
    let cli =
        super::Cli::read(format!("plesio characterize {line}").split_whitespace()).expect("a good line");
    match cli.command {
        super::Command::Characterize(args) => *args,
        other => panic!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_and_concentrations_are_read_as_they_are_written() {
        for good in ["40", "15:30:60:120"] {
            assert_eq!(good.parse::<MixArg>().expect(good).to_string(), good);
        }
        for good in ["inf", "0.1", "1", "1000"] {
            assert_eq!(good.parse::<AlphaArg>().expect(good).to_string(), good);
        }
        for bad in ["", "0", "10001", "5:", "a"] {
            assert!(bad.parse::<MixArg>().is_err(), "{bad}");
        }
        for bad in ["", "0", "0.001", "1001", "nan", "-1", "infinity"] {
            assert!(bad.parse::<AlphaArg>().is_err(), "{bad}");
        }
    }
}
