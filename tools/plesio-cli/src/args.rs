//! The command line: names, ranges and defaults. Flag before environment (`PLESIO_*`) before default.
//!
//! Nothing is done here. A value that passed this file is one the commands can use as it is.

pub(crate) use bench::{
    BYTES_MAX as BENCH_BYTES_MAX, BenchArgs, BenchCommand, BenchCompareArgs, BenchOutputArgs, BenchRelayArgs,
    COLD_BYTES, ChunkArg, FormArg, HOT_BYTES, PlacementArg, SuiteArg,
};
#[cfg(test)]
pub(crate) use characterize::characterize_args;
pub(crate) use characterize::{AlphaArg, CharacterizeArgs, MixArg};
pub(crate) use churn::ChurnArgs;
pub(crate) use collective::{CollectiveArgs, ElementArg, NarrowArg, OperationArg, PathArg};
pub(crate) use device::{DeviceArg, DevicesArgs};
pub(crate) use halt::HaltArgs;
pub(crate) use impair::ImpairArgs;
pub(crate) use kernels::{KernelRivalArg, KernelsArgs, LevelArg};
pub(crate) use key::{GenArgs, KeyArgs, KeyCommand, KeyKind, PubArgs, TicketArgs};
pub(crate) use phase::{PhaseArgs, StampsArg, TimeArg};
pub(crate) use rules::{OuterArg, RulesArgs, WeightsArg, refused};
use sim::SCENARIO;
#[cfg(test)]
pub(crate) use sim::sim_args;
pub(crate) use sim::{LinksArg, Said, parse_seeds};
pub(crate) use up::{Seed, StatusArgs, TrustArg, UpArgs, data_beside, parse_seed};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use plesio_sim::FaultSet;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::ops::Range;
use std::path::PathBuf;

mod bench;
mod characterize;
mod churn;
mod collective;
mod device;
mod halt;
mod impair;
mod kernels;
mod key;
mod phase;
mod rules;
mod sim;
mod up;

/// Fewest and most nodes a demo starts with.
pub(crate) const NODES: std::ops::RangeInclusive<u8> = 2..=16;

#[derive(Debug, Parser)]
#[command(name = "plesio", version, propagate_version = true)]
#[command(about = "Unlike machines adapt one model together, each on its own clock, with no coordinator.")]
#[command(
    after_help = "Exit: 0 ok, 1 a check failed, 2 usage, 3 a ratio missed, 4 a peer is gone, 5 this machine lacks what was asked for, 130 interrupted.\n\
                        Data goes to stdout, the rest to stderr. Every flag has its variable, PLESIO_NAME; the flag wins.\n\
                        Start with `plesio demo`."
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
    Sim(Box<SimArgs>),
    /// What unlike machines, clocks, links, deaths and data do to learning: CSV and plots of a sweep, on virtual time
    #[command(long_about = characterize::ABOUT)]
    Characterize(Box<CharacterizeArgs>),
    /// Measure this build against its rivals, in the same run
    #[command(subcommand)]
    Bench(Box<BenchCommand>),
    /// Run a node: found a mesh or join one, and train until Ctrl-C
    Up(Box<UpArgs>),
    /// The mesh as a running node of this machine sees it
    Status(StatusArgs),
    /// Keys of nodes, pools and operators, and tickets that admit nodes
    Key(KeyArgs),
    /// Stop a whole mesh, signed by its operators
    Halt(Box<HaltArgs>),
    /// Let a halted mesh go on, signed by its operators
    Resume(Box<HaltArgs>),
    /// One node of a demo; started by the demo itself
    #[command(hide = true)]
    DemoNode,
    /// One clock of a bench; started by the bench itself
    #[command(hide = true)]
    BenchClock,
    /// What runs the kernels of a bench; started by the bench itself
    #[command(hide = true)]
    BenchKernels,
    /// One rank of a bench; started by the bench itself
    #[command(hide = true)]
    BenchRank {
        /// The core it keeps to
        #[arg(long)]
        pin: Option<u16>,
    },

    /// One end of a bench; started by the bench itself
    #[command(hide = true)]
    BenchEnd {
        /// The core it keeps to
        #[arg(long)]
        pin: Option<u16>,

        /// Stands between the ends instead, with a path as the flags say
        #[arg(long)]
        between: bool,

        #[arg(long, default_value_t = 1)]
        seed: u64,

        #[command(flatten)]
        impair: ImpairArgs,
    },
}

impl Cli {
    /// Reads a command line. Where two exclude each other, what stands on the line beats the environment.
    ///
    /// # Errors
    /// What clap says to the user: a mistake, help or the version.
    pub(crate) fn read(
        line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let found = Self::command().try_get_matches_from(line)?;
        let mut cli = Self::from_arg_matches(&found)?;
        let Some((_, mut found)) = found.subcommand() else { return Ok(cli) };
        let output = match &mut cli.command {
            Command::Demo(args) => &mut args.output,
            Command::Doctor(args) => &mut args.output,
            Command::Up(args) => &mut args.output,
            Command::Characterize(args) => &mut args.output,
            Command::Sim(args) => {
                if yielding(found, ["seed", "seeds"])? == Some("seed") {
                    args.seed = None;
                }
                args.said = Said::of(found)?;
                &mut args.output
            }
            Command::Bench(command) => {
                found = found.subcommand().map_or(found, |(_, found)| found);
                command.settle(found)?;
                match &mut **command {
                    BenchCommand::Udp(args) => formed(&mut args.common.output, found)?,
                    BenchCommand::Pingpong(args) => formed(&mut args.common.output, found)?,
                    BenchCommand::Shm(args) | BenchCommand::Allreduce(args) => {
                        formed(&mut args.output, found)?
                    }
                    BenchCommand::Kernels(args) => formed(&mut args.output, found)?,
                    BenchCommand::Compare(args) => formed(&mut args.output, found)?,
                    BenchCommand::Relay(args) => &mut args.output,
                    BenchCommand::Churn(args) => &mut args.output,
                    BenchCommand::Phase(args) => &mut args.output,
                }
            }
            Command::DemoNode
            | Command::BenchClock
            | Command::BenchEnd { .. }
            | Command::BenchKernels
            | Command::BenchRank { .. }
            | Command::Key(_)
            | Command::Halt(_)
            | Command::Resume(_)
            | Command::Status(_) => {
                return Ok(cli);
            }
        };
        match yielding(found, ["json", "json_stream"])? {
            Some("json") => output.json = false,
            Some(_) => output.json_stream = false,
            None => {}
        }
        Ok(cli)
    }
}

/// The part that all commands share, once the form of a bench's result is settled.
fn formed<'a>(
    output: &'a mut BenchOutputArgs,
    found: &ArgMatches,
) -> Result<&'a mut OutputArgs, clap::Error> {
    if yielding(found, ["output_form", "json"])? == Some("json") {
        output.common.json = false;
    }
    Ok(&mut output.common)
}

/// Which of two that exclude each other gives way, if both are there: the one that only the environment names,
/// or the second where it names both.
fn yielding(found: &ArgMatches, [one, two]: [&'static str; 2]) -> Result<Option<&'static str>, clap::Error> {
    let source = |id| {
        // A switch that is off is as good as absent.
        let off = found.try_get_one::<bool>(id).is_ok_and(|switch| switch != Some(&true));
        found.value_source(id).filter(|source| !off && *source != ValueSource::DefaultValue)
    };
    let (Some(first), Some(second)) = (source(one), source(two)) else { return Ok(None) };
    if (first, second) == (ValueSource::CommandLine, ValueSource::CommandLine) {
        let flags =
            [one, two].map(|id| if id == "output_form" { "output".into() } else { id.replace('_', "-") });
        let text = format!("the argument '--{}' cannot be used with '--{}'", flags[0], flags[1]);
        return Err(Cli::command().error(ErrorKind::ArgumentConflict, text));
    }
    Ok(Some(if second == ValueSource::CommandLine { one } else { two }))
}

#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct DemoArgs {
    /// Nodes to start with, 2 to 16; one more joins later
    #[arg(long, env = "PLESIO_NODES", default_value_t = 4, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u8).range(2..=16))]
    pub(crate) nodes: u8,

    /// How long the mesh trains, 5 to 3600, a slow machine up to twice that; training each node alone for comparison takes about
    /// one and a half times as long again
    #[arg(long, env = "PLESIO_SECONDS", default_value_t = 26, value_name = "S")]
    #[arg(value_parser = clap::value_parser!(u16).range(5..=3600))]
    pub(crate) seconds: u16,

    /// Draws the node to kill, the odd clock and the order of the data; keys are new in every run
    #[arg(long, env = "PLESIO_SEED", default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,

    /// Folder for report.html, run.json, adapter/ and the nodes' logs
    #[arg(long, env = "PLESIO_OUT", default_value = "plesio-demo", value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// File for what happens to the nodes, all of them, one JSON object a line; what stood in it goes
    #[arg(long, env = "PLESIO_TRACE", value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,

    /// Socket backend of the data plane
    #[arg(long, env = "PLESIO_BACKEND", default_value = "auto", value_enum)]
    pub(crate) backend: BackendArg,

    #[command(flatten)]
    pub(crate) devices: DevicesArgs,

    /// How the nodes move contributions and sums; with a bad path it is udp, which alone goes through that
    #[arg(long, env = "PLESIO_PATH", default_value = "auto", value_enum)]
    pub(crate) path: DataPathArg,

    /// How contributions travel; what is left out stays with its node and goes with a later one
    #[arg(long, env = "PLESIO_CODEC", default_value = "i32", value_enum)]
    pub(crate) codec: CodecArg,

    /// Who sums how much of every version: `rate` takes four times the memory for what comes in
    #[arg(long, env = "PLESIO_SHARES", default_value = "rate", value_enum)]
    pub(crate) shares: SharesArg,

    #[command(flatten)]
    pub(crate) rules: RulesArgs,

    /// Do not seal what the nodes send each other: checksums alone, on this machine
    #[arg(long, env = "PLESIO_PLAINTEXT", value_parser = parse_switch)]
    pub(crate) plaintext: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    /// What is wrong with every way between two nodes, data and sideband.
    #[command(flatten)]
    pub(crate) impair: ImpairArgs,
}

#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Clone, Debug, Serialize)]
#[command(after_help = SCENARIO)]
pub(crate) struct SimArgs {
    /// Nodes each mesh starts with, 1 to 32
    #[arg(long, env = "PLESIO_NODES", default_value_t = 8, value_name = "N")]
    pub(crate) nodes: u8,

    /// Seeds to run, one mesh each; B is not among them
    #[arg(long, env = "PLESIO_SEEDS", default_value = "0..200", value_name = "A..B", value_parser = parse_seeds)]
    pub(crate) seeds: Range<u64>,

    /// One seed alone, instead of --seeds
    #[arg(long, env = "PLESIO_SEED", value_name = "N", value_parser = clap::value_parser!(u64).range(..u64::MAX))]
    pub(crate) seed: Option<u64>,

    /// What may go wrong: all, none, or names with commas between them, a minus before what is not to (all,-exit); every seed
    /// draws some of it
    ///
    /// Links: loss, burst, delay, jitter, reorder, duplicate, corrupt, one-way, partition, split (in halves), mtu (long
    /// datagrams vanish). Hosts: crash, exit (its host tells that nobody listens there), restart (its old datagrams still
    /// under way), proposer (whoever proposes dies), pause,
    /// suspend (the clock stops too), starve (slices of its time), slow, clock (500 to 10,000 ppm), buffers (tiny ones), join,
    /// leave. Members that lie: accuse (in their beats), stall (no data). Not in `all`, because some promises end with them:
    /// forge (other contributions than announced), equivocate (other proposals and sums for some); nor, because a mesh that is
    /// ordered to stand still makes no version: halt (HALT and RESUME of the operators, forged and replayed too), suppress (a
    /// member keeps orders to itself); nor narrow (uplinks of a megabyte per second to a hundredth of that)
    #[arg(long, env = "PLESIO_FAULTS", default_value = "all", value_name = "LIST")]
    #[serde(serialize_with = "as_text")]
    pub(crate) faults: FaultSet,

    /// Virtual time per seed, 10 to 3600
    #[arg(long, env = "PLESIO_SECONDS", default_value_t = 20, value_name = "S")]
    pub(crate) seconds: u32,

    /// How contributions travel
    #[arg(long, env = "PLESIO_CODEC", default_value = "i32", value_enum)]
    pub(crate) codec: CodecArg,

    /// Who sums how much of every version
    #[arg(long, env = "PLESIO_SHARES", default_value = "rate", value_enum)]
    pub(crate) shares: SharesArg,

    /// What the mesh clocks of a fourth of the nodes are ahead and of another fourth behind, without their knowing, in
    /// frames, 0 to 8: how far off a clock may be before it matters
    #[arg(long, env = "PLESIO_CLOCK_ERROR", default_value_t = 0.0, value_name = "FRAMES", value_parser = parse_frames)]
    pub(crate) clock_error: f64,
    /// The kind of network, with the frame period that suits it
    #[arg(long, env = "PLESIO_LINKS", default_value = "drawn", value_enum)]
    pub(crate) links: LinksArg,

    /// For comparison: correctors without their two thresholds and their dwell
    #[arg(long, env = "PLESIO_NO_HYSTERESIS", value_parser = parse_switch)]
    pub(crate) no_hysteresis: bool,

    /// Exit 1 unless every kind of fault struck so often in every phase of the protocol
    #[arg(long, env = "PLESIO_REQUIRE_COVERAGE", value_name = "N")]
    pub(crate) require_coverage: Option<u64>,

    /// End with the first broken promise
    #[arg(long, env = "PLESIO_FAIL_FAST", value_parser = parse_switch)]
    pub(crate) fail_fast: bool,

    #[command(flatten)]
    pub(crate) rules: RulesArgs,

    /// A file that says what is simulated; flags and variables beat it
    #[arg(value_name = "SCENARIO.toml", conflicts_with = "replay")]
    pub(crate) scenario: Option<PathBuf>,

    /// Run again what a file tells of: a document of `plesio sim`, which must lead to the same story; run.json of `plesio demo`,
    /// or traces of real nodes, whose faults are repeated. May be given again, for traces
    #[arg(long, value_name = "FILE")]
    pub(crate) replay: Vec<PathBuf>,

    /// Replay what another build of this program wrote
    #[arg(long, env = "PLESIO_ANY_BUILD", value_parser = parse_switch)]
    pub(crate) any_build: bool,

    /// Where every broken promise leaves a file that replays it
    #[arg(long, env = "PLESIO_OUT", default_value = "plesio-sim", value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// File for what happens to the nodes, one JSON object a line; what stood in it goes
    #[arg(long, env = "PLESIO_TRACE", value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,

    /// What was not left to its default
    #[arg(skip)]
    #[serde(skip)]
    pub(crate) said: Said,

    /// Tell all that happened before a broken promise
    #[arg(long, env = "PLESIO_STORY", value_parser = parse_switch)]
    pub(crate) story: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    /// What is wrong with every link until the last six seconds; faults come on top.
    #[command(flatten)]
    pub(crate) impair: ImpairArgs,
}

fn parse_frames(text: &str) -> Result<f64, String> {
    let frames: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=8.0).contains(&frames) { Ok(frames) } else { Err("from 0 to 8".into()) }
}

/// A switch as an environment says it; an empty variable is one that is not set.
fn parse_switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "" | "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("say 1 or 0".into()),
    }
}

fn as_text<S: serde::Serializer>(value: &impl std::fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// How a command speaks; the same for every command that runs for a while.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub(crate) struct OutputArgs {
    /// One JSON document on stdout at the end, instead of the table
    #[arg(long, env = "PLESIO_JSON", value_parser = parse_switch)]
    pub(crate) json: bool,

    /// One {"event","data"} per line on stdout: start, interval, end; instead of --json
    #[arg(long, env = "PLESIO_JSON_STREAM", value_parser = parse_switch)]
    pub(crate) json_stream: bool,

    /// No progress and no event lines
    #[arg(long, short, env = "PLESIO_QUIET", value_parser = parse_switch)]
    pub(crate) quiet: bool,

    /// Colour in what a person reads
    #[arg(long, env = "PLESIO_COLOR", default_value = "auto", value_enum, value_name = "WHEN")]
    pub(crate) color: ColorArg,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BackendArg {
    /// io_uring where the kernel grants it, else mio
    Auto,
    /// io_uring of Linux 6.1 and later, or an error that says why not
    Uring,
    /// io_uring as older kernels have it (5.10, 5.15), or an error that says why not
    UringLegacy,
    /// epoll with plain sockets
    Mio,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DataPathArg {
    /// In each other's memory where two nodes of one user share a host and find each other, else by UDP
    #[default]
    #[value(alias = "shm")]
    Auto,
    /// By UDP alone
    Udp,
}

impl DataPathArg {
    pub(crate) fn path(self) -> plesio::DataPath {
        match self {
            Self::Auto => plesio::DataPath::Auto,
            Self::Udp => plesio::DataPath::Udp,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CodecArg {
    /// 4 bytes an element, nothing lost
    #[default]
    I32,
    /// 2 bytes, rounded to 8 bits
    Bf16,
    /// A byte, and a step for 256
    Int8,
    /// Half a byte, a step for 64, rounded stochastically
    Int4,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SharesArg {
    /// Every member an equal part
    Equal,
    /// What suits the rates that each was measured at, up to four equal parts; equal until they are
    #[default]
    Rate,
}

/// A choice as a command line says it; nothing where it is the default.
pub(crate) fn said<T: ValueEnum + Default + PartialEq>(flag: &str, choice: T) -> String {
    let name = choice.to_possible_value().filter(|_| choice != T::default());
    name.map_or_else(String::new, |name| format!(" --{flag} {}", name.get_name()))
}

impl SharesArg {
    pub(crate) fn sharing(self) -> plesio::Sharing {
        match self {
            Self::Equal => plesio::Sharing::Equal,
            Self::Rate => plesio::Sharing::Rate,
        }
    }
}

impl CodecArg {
    pub(crate) fn codec(self) -> plesio::Codec {
        match self {
            Self::I32 => plesio::Codec::Full,
            Self::Bf16 => plesio::Codec::Bf16,
            Self::Int8 => plesio::Codec::Int8,
            Self::Int4 => plesio::Codec::Int4By64,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ColorArg {
    #[default]
    Auto,
    Always,
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_switch_of_the_environment_is_said_in_any_way() {
        for (text, on) in
            [("1", true), ("TRUE", true), ("yes", true), ("", false), ("0", false), ("off", false)]
        {
            assert_eq!(parse_switch(text), Ok(on), "{text:?}");
        }
        assert!(parse_switch("banana").is_err());
    }

    #[test]
    fn two_flags_that_exclude_each_other_are_refused() {
        for line in [
            &["demo", "--json", "--json-stream"][..],
            &["sim", "--seed", "1", "--seeds", "0..2"],
            &["bench", "udp", "--json", "-o", "csv"],
            &["bench", "pingpong", "--json", "--json-stream"],
            &["bench", "udp", "--listen", "127.0.0.1:0", "--loss", "1%"],
            &["bench", "udp", "--listen", "127.0.0.1:0", "--size", "64"],
            &["bench", "pingpong", "--listen", "127.0.0.1:0", "--hist", "x"],
            &["bench", "udp", "--connect", "h:1", "--bind", "127.0.0.1"],
            &["bench", "kernels", "--device", "cpu", "--kernels-dir", "x"],
        ] {
            let error = Cli::read(["plesio"].iter().chain(line)).expect_err("one of them only");
            assert_eq!(error.kind(), ErrorKind::ArgumentConflict, "{error}");
        }
    }

    #[test]
    fn who_listens_takes_what_is_its_own() {
        let line = "plesio bench udp --listen [::1]:0 --key-file k --trust captive --pin 1 --protection plaintext -q --color never";
        assert!(Cli::read(line.split(' ')).is_ok());
        assert!(
            Cli::read("plesio bench relay --listen 127.0.0.1:0 --to 127.0.0.1:9 --loss 1%".split(' '))
                .is_ok()
        );
    }

    #[test]
    fn rivals_come_in_the_order_of_the_line() {
        let cli = Cli::read("plesio bench udp --vs tcp,udp-raw,quinn".split(' ')).expect("three rivals");
        let Command::Bench(command) = cli.command else { panic!("a bench") };
        let BenchCommand::Udp(args) = *command else { panic!("of goodput") };
        assert_eq!(
            args.common.vs.iter().map(|rival| rival.name()).collect::<Vec<_>>(),
            ["tcp", "udp-raw", "quinn"]
        );
    }

    #[test]
    fn seeds_that_are_none_say_so() {
        for seeds in ["9..3", "9..9"] {
            let error = Cli::read(["plesio", "sim", "--seeds", seeds]).expect_err("none");
            assert!(error.to_string().contains("no seed lies in it"), "{error}");
        }
        assert!(Cli::read(["plesio", "sim", "--seed", &u64::MAX.to_string()]).is_err());
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
