//! The command line: names, ranges and defaults. Flag before environment (`PLESIO_*`) before default.
//!
//! Nothing is done here. A value that passed this file is one the commands can use as it is.

use clap::{Args, Parser, Subcommand, ValueEnum};
use plesio_sim::FaultSet;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::PathBuf;

/// Fewest and most nodes a demo starts with.
pub(crate) const NODES: std::ops::RangeInclusive<u8> = 2..=16;

#[derive(Debug, Parser)]
#[command(name = "plesio", version, propagate_version = true)]
#[command(about = "Unlike machines adapt one model together, each on its own clock, with no coordinator.")]
#[command(
    after_help = "Exit: 0 ok, 1 a check failed, 2 usage, 130 interrupted. Data goes to stdout, the rest \
                        to stderr.\nStart with `plesio demo`."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A whole mesh on this machine: join, crash, clock drift, one model; ends with a report
    Demo(DemoArgs),
    /// What this machine offers and what limits it
    Doctor(DoctorArgs),
    /// Meshes on virtual time, with faults, checked after every event
    Sim(SimArgs),
    /// One node of a demo; started by the demo itself
    #[command(hide = true)]
    DemoNode,
}

#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct DemoArgs {
    /// Nodes to start with, 2 to 16; one more joins later
    #[arg(long, env = "PLESIO_NODES", default_value_t = 4, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u8).range(2..=16))]
    pub(crate) nodes: u8,

    /// How long the mesh trains, 5 to 3600; training each node alone for comparison takes about as long again
    #[arg(long, env = "PLESIO_SECONDS", default_value_t = 32, value_name = "S")]
    #[arg(value_parser = clap::value_parser!(u16).range(5..=3600))]
    pub(crate) seconds: u16,

    /// Draws node ids, the node to kill, and the order of the data
    #[arg(long, env = "PLESIO_SEED", default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,

    /// Folder for report.html, run.json, adapter/ and the nodes' logs
    #[arg(long, env = "PLESIO_OUT", default_value = "plesio-demo", value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// Socket backend of the data plane
    #[arg(long, env = "PLESIO_BACKEND", default_value = "auto", value_enum)]
    pub(crate) backend: BackendArg,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct DoctorArgs {
    /// One JSON document on stdout instead of the table
    #[arg(long, env = "PLESIO_JSON")]
    pub(crate) json: bool,
}

#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct SimArgs {
    /// Nodes each mesh starts with, 1 to 24
    #[arg(long, env = "PLESIO_NODES", default_value_t = 8, value_name = "N")]
    pub(crate) nodes: u8,

    /// Seeds to run, one mesh each; B is not among them
    #[arg(long, env = "PLESIO_SEEDS", default_value = "0..200", value_name = "A..B", value_parser = parse_seeds)]
    pub(crate) seeds: Range<u64>,

    /// One seed alone
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,

    /// What may go wrong: all, none, or names with commas between them
    #[arg(long, env = "PLESIO_FAULTS", default_value = "all", value_name = "LIST")]
    #[serde(serialize_with = "as_text")]
    pub(crate) faults: FaultSet,

    /// Virtual time per seed, 10 to 3600
    #[arg(long, env = "PLESIO_SECONDS", default_value_t = 20, value_name = "S")]
    pub(crate) seconds: u32,

    /// Tell all that happened before a broken promise
    #[arg(long)]
    pub(crate) story: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `A..B`.
fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("write it as A..B, for example 0..200")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    Ok(number(from)?..number(to)?)
}

fn as_text<S: serde::Serializer>(value: &impl std::fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// How a command speaks; the same for every command that runs for a while.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct OutputArgs {
    /// One JSON document on stdout at the end, instead of the table
    #[arg(long, env = "PLESIO_JSON", conflicts_with = "json_stream")]
    pub(crate) json: bool,

    /// One {"event","data"} per line on stdout: start, interval, end
    #[arg(long, env = "PLESIO_JSON_STREAM")]
    pub(crate) json_stream: bool,

    /// No progress and no event lines
    #[arg(long, short, env = "PLESIO_QUIET")]
    pub(crate) quiet: bool,

    /// Colour in what a person reads
    #[arg(long, env = "PLESIO_COLOR", default_value = "auto", value_enum, value_name = "WHEN")]
    pub(crate) color: ColorArg,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BackendArg {
    /// io_uring where the kernel grants it, else mio
    Auto,
    /// io_uring, or an error that says why not
    Uring,
    /// epoll with plain sockets
    Mio,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ColorArg {
    Auto,
    Always,
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_demo_has_between_two_and_sixteen_nodes() {
        for nodes in 0..=u8::MAX {
            let parsed = Cli::try_parse_from(["plesio", "demo", "--nodes", &nodes.to_string()]);
            assert_eq!(parsed.is_ok(), NODES.contains(&nodes), "--nodes {nodes}");
        }
    }

    #[test]
    fn a_misspelt_flag_is_answered_with_the_right_one() {
        let error = Cli::try_parse_from(["plesio", "demo", "--node", "4"]).expect_err("no such flag");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--nodes"), "{error}");
        let error = Cli::try_parse_from(["plesio", "dmo"]).expect_err("no such command");
        assert!(error.to_string().contains("demo"), "{error}");
    }
}
