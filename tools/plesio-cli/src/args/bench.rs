//! The flags of `plesio bench`. A list is a matrix: every size with every chunk, backend, wait and protection.

use super::{
    BackendArg, ChurnArgs, Cli, CollectiveArgs, ImpairArgs, KernelsArgs, OutputArgs, PhaseArgs, TrustArg,
    parse_switch,
};
use crate::bench::{Mode, Requirement, Rival, Wait};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Goodput between two processes, on this machine or across hosts
    #[command(long_about = UDP_ABOUT)]
    Udp(BenchUdpArgs),
    /// Round trips between two processes, on this machine or across hosts
    #[command(long_about = PINGPONG_ABOUT)]
    Pingpong(BenchPingpongArgs),
    /// Sums among processes, in shared memory or by datagrams, in nccl-tests' columns
    #[command(long_about = ALLREDUCE_ABOUT)]
    Allreduce(CollectiveArgs),
    /// What processes do together in memory that all of them map
    #[command(long_about = SHM_ABOUT)]
    Shm(CollectiveArgs),
    /// What a device's kernels take, beside the rate of its memory and beside numpy
    #[command(long_about = super::kernels::ABOUT)]
    Kernels(KernelsArgs),
    /// A mesh whose processes are killed and started anew without a pause
    #[command(long_about = super::churn::ABOUT)]
    Churn(ChurnArgs),
    /// How well nodes on two hosts agree on the time, beside chrony and ptp4l
    #[command(long_about = super::phase::ABOUT)]
    Phase(PhaseArgs),
    /// Two documents of the same bench, row by row
    #[command(long_about = COMPARE_ABOUT)]
    Compare(BenchCompareArgs),
    /// A bad path between two ends: what comes is sent on, lost, late, doubled or damaged
    Relay(BenchRelayArgs),
}

const UDP_ABOUT: &str = "Goodput between two processes, on this machine or across hosts.

Messages of --size go from a working set that was written before the clock starts into the posted windows of a working set of the \
same size; both are walked from end to end. What counts is what the receiver holds whole, from the first arrival to the last; where the last messages are not whole 2 s and \
two round trips after --seconds, what came until then. \
The receiver compares every byte with what was sent: both ends of each message as it comes, all of them after the clock stopped. \
Rivals walk the same working sets with the same wait: tcp with cubic pinned, 1 MiB per call; udp-raw with segmentation offload \
both ways and no promise at all. With a bad path (--loss, --delay and so on) a relay in a process of its own stands between the ends, for \
ours and for the rivals that are datagrams; what it lost, doubled or held up is in the document, and what came faster than it reads (about 1 Gbit/s of small chunks). Every round runs ours first and last and the rivals between; the verdict is `trustworthy` when \
first and last agree within 5 % over at least 3 rounds. CPU time is user and kernel of both ends.";

const PINGPONG_ABOUT: &str = "Round trips between two processes, on this machine or across hosts.

One message of --size goes there, the same bytes come back from where they were placed, and the time between is counted; then \
the next one, from the next place of the working set. Every reply is compared with what was sent, after its time was taken. Times are \
whole round trips. Rivals do the same with the same wait: tcp with cubic pinned and NODELAY, udp-raw with no promise at all. With a \
bad path (--loss, --delay and so on) a relay in a process of its own stands between the ends, for ours and for the rivals that are datagrams.";

const ALLREDUCE_ABOUT: &str = "Sums among processes, in shared memory or by datagrams, in nccl-tests' columns.

Every rank is a process. Before each operation every rank writes its tensor anew, and all meet; the operation's time is the longest of \
any rank's, the row's the median of all operations of all rounds. The result lies in every rank's own memory afterwards, with --path shm in place of its tensor, and every element of \
the first and the last result of a run is compared with the sum it has to be: #wrong counts those that differ, over all ranks. Datagrams are sealed with keys of a handshake, or with --protection plaintext have a checksum. algbw is size by \
time; busbw is that times 2(n-1)/n for all-reduce, (n-1)/n for the others but broadcast, whose is 1. `floor` is one pass over the same memory by the same kernel, each rank its range, \
without any agreement, from the first rank's begin to the last one's end: ours takes `ratio.floor` times as long. With --links every row has \
the time that the slowest link needs with the best shares, and with those in use; with --kills it has what a death inside an operation costs the others. The verdict is `trustworthy` when what ran first and last in each round agrees within 5 % over at \
least 3 rounds.";

const SHM_ABOUT: &str = "What processes do together in memory that all of them map: `plesio bench allreduce --path shm` for every operation.";

const COMPARE_ABOUT: &str = "Two documents of the same bench, row by row.

The ratio is B's figure to A's: above 1 is more goodput, or for pingpong a longer round trip. The interval holds 95 of 100 \
resamplings of the repeats. A row is worse when it lost more than --tolerance and its interval does not reach 1; one such row exits 3.";

/// What udp and pingpong share.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct BenchArgs {
    /// Memory that each end walks through: bytes, hot (2M, stays in cache) or cold (256M)
    #[arg(long, env = "PLESIO_WORKING_SET", value_name = "BYTES", value_parser = parse_working_set)]
    #[arg(
        help = "Memory that each end walks through: bytes, hot (2M, stays in cache) or cold (256M) [default: cold; pingpong: hot]"
    )]
    pub(crate) working_set: Option<u32>,

    /// How both ends wait, with commas between them
    #[arg(
        long,
        env = "PLESIO_WAIT",
        default_value = "block",
        value_delimiter = ',',
        value_enum,
        value_name = "LIST"
    )]
    pub(crate) wait: Vec<Wait>,

    /// Socket backends of our own ends, with commas between them
    #[arg(
        long,
        env = "PLESIO_BACKEND",
        default_value = "auto",
        value_delimiter = ',',
        value_enum,
        value_name = "LIST"
    )]
    pub(crate) backend: Vec<BackendArg>,

    /// How our datagrams are protected
    #[arg(long, env = "PLESIO_PROTECTION", default_value = "sealed", value_enum)]
    pub(crate) protection: ProtectionArg,

    /// What sealed datagrams are sealed with
    #[arg(long, env = "PLESIO_SUITE", default_value = "auto", value_enum, value_name = "SUITE")]
    pub(crate) suite: SuiteArg,

    /// Rounds, 1 to 1000; in each, ours runs first and last and the rivals between
    #[arg(long, env = "PLESIO_REPEATS", default_value_t = 5, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) repeats: u16,

    /// Length of one run, 0.05 to 600
    #[arg(long, env = "PLESIO_SECONDS", default_value = "1", value_name = "S", value_parser = parse_seconds)]
    pub(crate) seconds: f64,

    /// Rivals of the same run, with commas between them
    #[arg(long, env = "PLESIO_VS", value_delimiter = ',', value_enum, value_name = "LIST")]
    pub(crate) vs: Vec<Rival>,

    /// A bound on the document, NAME>=X or NAME<=X; a miss exits 3
    #[arg(long, value_name = "BOUND")]
    pub(crate) require: Vec<Requirement>,

    /// Draws the bytes that are sent, and what a bad path does by chance
    #[arg(long, env = "PLESIO_SEED", default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,

    /// Address of both ends when both are on this machine; IPv6 as well
    #[arg(long, env = "PLESIO_BIND", default_value = "127.0.0.1", value_name = "ADDR")]
    pub(crate) bind: IpAddr,

    /// Serve one bench after another for another machine, instead of measuring; port 0 lets the kernel choose
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "connect")]
    pub(crate) listen: Option<SocketAddr>,

    /// Measure to a machine that listens
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) connect: Option<String>,

    /// The pool key that both machines hold: proves each to the other
    #[arg(long, env = "PLESIO_KEY_FILE", value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,

    /// The network between the machines belongs to whoever runs both: allows to do without a key
    #[arg(long, env = "PLESIO_TRUST", value_enum, value_name = "WHOM")]
    pub(crate) trust: Option<TrustArg>,

    /// Where our ends have received payload put: at once where it belongs, or aside and moved once it is checked
    #[arg(long, env = "PLESIO_PLACEMENT", default_value = "auto", value_enum, value_name = "WHERE")]
    pub(crate) placement: PlacementArg,

    /// Core of the end that begins and of the one that answers, with a comma between; who listens gives one
    #[arg(long, env = "PLESIO_PIN", value_delimiter = ',', value_name = "LIST")]
    pub(crate) pin: Vec<u16>,

    #[command(flatten)]
    pub(crate) output: BenchOutputArgs,

    /// What is wrong with the path, for ours and for the rivals that are datagrams.
    #[command(flatten)]
    pub(crate) impair: ImpairArgs,
}

#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct BenchUdpArgs {
    /// Message sizes, with commas between them
    #[arg(long, env = "PLESIO_SIZE", default_value = "1M", value_delimiter = ',', value_name = "LIST")]
    #[arg(value_parser = parse_bytes)]
    pub(crate) size: Vec<u32>,

    /// Payload per datagram: multiples of 64 from 64 to 65408, or path for what the path is found to carry, up to 8896
    #[arg(long, env = "PLESIO_CHUNK", value_delimiter = ',', value_name = "LIST", value_parser = parse_chunk)]
    #[arg(
        help = "Payload per datagram: multiples of 64 from 64 to 65408, or path for what the path is found to carry, up to 8896 \
                [default: 65408,1408; on a bad path: 1408; to another machine: path]"
    )]
    pub(crate) chunk: Vec<ChunkArg>,

    /// Connections side by side, each with a thread at both ends and its share of the working set, 1 to 32
    #[arg(long, env = "PLESIO_FLOWS", default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=32))]
    pub(crate) flows: u16,

    /// Of ours, all flows end at one port and one thread of the receiver, which gives credit out of one budget
    #[arg(long, env = "PLESIO_INCAST", value_parser = parse_switch)]
    pub(crate) incast: bool,

    /// Both ends send at the same time; goodput is the sum
    #[arg(long, env = "PLESIO_BOTH", value_parser = parse_switch)]
    pub(crate) both: bool,

    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: BenchArgs,
}

#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct BenchPingpongArgs {
    /// Message sizes, with commas between them
    #[arg(long, env = "PLESIO_SIZE", default_value = "64", value_delimiter = ',', value_name = "LIST")]
    #[arg(value_parser = parse_bytes)]
    pub(crate) size: Vec<u32>,

    /// Payload per datagram: multiples of 64 from 64 to 65408, or path for what the path is found to carry, up to 8896
    #[arg(long, env = "PLESIO_CHUNK", value_delimiter = ',', value_name = "LIST", value_parser = parse_chunk)]
    #[arg(
        help = "Payload per datagram: multiples of 64 from 64 to 65408, or path for what the path is found to carry, up to 8896 \
                [default: 1408; to another machine: path]"
    )]
    pub(crate) chunk: Vec<ChunkArg>,

    /// Where to write every round trip as an HDR histogram log, one interval per row
    #[arg(long, env = "PLESIO_HIST", value_name = "FILE")]
    pub(crate) hist: Option<PathBuf>,

    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: BenchArgs,
}

#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct BenchCompareArgs {
    /// The document to compare with
    #[arg(value_name = "A.json")]
    pub(crate) before: PathBuf,

    /// The document to judge
    #[arg(value_name = "B.json")]
    pub(crate) after: PathBuf,

    /// What may be lost: 0.05 is 5 %
    #[arg(long, env = "PLESIO_TOLERANCE", default_value = "0.05", value_name = "SHARE", value_parser = parse_tolerance)]
    pub(crate) tolerance: f64,

    #[command(flatten)]
    pub(crate) output: BenchOutputArgs,
}

/// How a bench speaks.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct BenchOutputArgs {
    /// Form of the result; --json is the same as -o json
    #[arg(
        long = "output",
        short,
        env = "PLESIO_OUTPUT",
        default_value = "table",
        value_enum,
        value_name = "FORM"
    )]
    pub(crate) output_form: FormArg,

    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: OutputArgs,
}

impl BenchOutputArgs {
    /// What stdout gets.
    pub(crate) fn form(&self) -> FormArg {
        if self.common.json { FormArg::Json } else { self.output_form }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FormArg {
    /// Columns for a terminal
    Table,
    /// One JSON document
    Json,
    /// One line per row, commas between the fields
    Csv,
    /// A Markdown table
    Md,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProtectionArg {
    /// Encrypted and authenticated, with keys of a handshake
    Sealed,
    /// A checksum, and no more
    Plaintext,
    /// One after the other
    Both,
}

impl ProtectionArg {
    pub(crate) fn modes(self) -> &'static [Mode] {
        match self {
            Self::Sealed => &[Mode::Sealed],
            Self::Plaintext => &[Mode::Plaintext],
            Self::Both => &[Mode::Sealed, Mode::Plaintext],
        }
    }
}

/// Payload per datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ChunkArg {
    Bytes(u32),
    /// What the path is found to carry.
    Path,
}

impl ChunkArg {
    /// The largest payload of a datagram.
    pub(crate) const fn bytes_max(self) -> u32 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Path => PATH_CHUNK_BYTES_MAX,
        }
    }
}

impl fmt::Display for ChunkArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Path => f.write_str("path"),
        }
    }
}

impl Serialize for ChunkArg {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => to.serialize_u32(*bytes),
            Self::Path => to.serialize_str("path"),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
pub(crate) enum SuiteArg {
    /// The best that both ends have
    #[serde(rename = "auto")]
    Auto,
    /// Where both ends have AES instructions, and were built with a C compiler
    #[serde(rename = "aegis-128l")]
    #[value(name = "aegis-128l")]
    Aegis,
    /// Where both ends have AES instructions
    #[serde(rename = "aes-128-gcm")]
    #[value(name = "aes-128-gcm")]
    Aes,
    /// Anywhere
    #[serde(rename = "chacha20-poly1305")]
    #[value(name = "chacha20-poly1305")]
    ChaCha,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PlacementArg {
    /// What measured better for the size of the chunks
    Auto,
    /// Where it belongs, by the kernel, after a look at the first header of each train
    Scatter,
    /// Into a buffer that stays in the cache, from there moved or opened where it belongs
    Bounce,
}

/// Give one end the relay's address instead of the other's.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct BenchRelayArgs {
    /// Where it listens; port 0 takes a free one and says which
    #[arg(long, env = "PLESIO_LISTEN", default_value = "127.0.0.1:0", value_name = "ADDR")]
    pub(crate) listen: SocketAddr,

    /// Where it sends on what comes; answers go back to whoever sent first
    #[arg(long, env = "PLESIO_TO", value_name = "ADDR")]
    pub(crate) to: SocketAddr,

    /// The way back is as bad as the way there
    #[arg(long, env = "PLESIO_BACK", value_parser = parse_switch)]
    pub(crate) back: bool,

    /// Draws what happens by chance
    #[arg(long, env = "PLESIO_SEED", default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,

    /// Ends after so long, 1 to 86400; else with Ctrl-C
    #[arg(long, env = "PLESIO_SECONDS", value_name = "S", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: Option<u32>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    #[command(flatten)]
    pub(crate) impair: ImpairArgs,
}

impl BenchCommand {
    /// Refuses flags that would do nothing, and leaves each value of a list once: a row for each is enough.
    pub(super) fn settle(&mut self, found: &ArgMatches) -> Result<(), clap::Error> {
        match self {
            Self::Udp(BenchUdpArgs { size, chunk, common, .. })
            | Self::Pingpong(BenchPingpongArgs { size, chunk, common, .. }) => {
                idle(found)?;
                once(size);
                once(chunk);
                once(&mut common.wait);
                once(&mut common.backend);
                once(&mut common.vs);
            }
            Self::Allreduce(args) | Self::Shm(args) => {
                once(&mut args.size);
                once(&mut args.ranks);
                once(&mut args.path);
                once(&mut args.operation);
                once(&mut args.codec);
                once(&mut args.wait);
            }
            Self::Kernels(args) => args.settle(found)?,
            Self::Phase(args) => {
                once(&mut args.stamps);
                once(&mut args.vs);
            }
            Self::Churn(_) | Self::Compare(_) | Self::Relay(_) => {}
        }
        Ok(())
    }
}

/// Said twice is said.
pub(super) fn once<T: PartialEq>(list: &mut Vec<T>) {
    let whole = std::mem::take(list);
    for value in whole {
        if !list.contains(&value) {
            list.push(value);
        }
    }
}

/// Flags of udp and pingpong that would do nothing: who listens measures what the other machine says, and the way there names our address.
/// What the environment says is for other commands too.
fn idle(found: &ArgMatches) -> Result<(), clap::Error> {
    let said = |id: &str| is_on_line(found, id);
    let refuse = |one: &str, two: &str, why: &str| Err(conflict(one, &two.replace('_', "-"), why));
    if said("connect") && said("bind") {
        return refuse("connect", "bind", "the address is the one of the way there");
    }
    // Names with a capital are those of groups.
    let flags =
        found.ids().map(clap::Id::as_str).filter(|id| !id.starts_with(|letter: char| letter.is_uppercase()));
    match flags.into_iter().find(|id| said(id) && !LISTENS_WITH.contains(id)) {
        Some(id) if said("listen") => refuse("listen", id, "who connects says what is measured"),
        _ => Ok(()),
    }
}

/// Whether the command line has it, not the environment alone.
pub(super) fn is_on_line(found: &ArgMatches, id: &str) -> bool {
    found.value_source(id) == Some(ValueSource::CommandLine)
}

/// Two flags that exclude each other.
pub(super) fn conflict(one: &str, two: &str, why: &str) -> clap::Error {
    let text = format!("the argument '--{one}' cannot be used with '--{two}': {why}");
    Cli::command().error(ErrorKind::ArgumentConflict, text)
}

const LISTENS_WITH: &[&str] = &["listen", "key_file", "trust", "pin", "protection", "quiet", "color"];

/// `64`, `4k`, `1M`, `2MiB`: powers of 1024, at most 1 GiB.
pub(super) fn parse_bytes(text: &str) -> Result<u32, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix.to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err("write bytes as 64, 4k, 1M or 1G".into()),
    };
    if number.is_empty() {
        return Err("write bytes as 64, 4k, 1M or 1G, and nothing between two commas".into());
    }
    let number: u64 = number.parse().map_err(|error| format!("{error}"))?;
    match number.checked_mul(1 << shift) {
        Some(bytes @ 1..=BYTES_MAX) => Ok(bytes as u32),
        _ => Err("between 1 byte and 1 GiB".into()),
    }
}

pub(super) fn parse_working_set(text: &str) -> Result<u32, String> {
    match text {
        "hot" => Ok(HOT_BYTES),
        "cold" => Ok(COLD_BYTES),
        _ => parse_bytes(text),
    }
}

fn parse_chunk(text: &str) -> Result<ChunkArg, String> {
    if text == "path" {
        return Ok(ChunkArg::Path);
    }
    let how = "a multiple of 64 from 64 to 65408, or path";
    match parse_bytes(text).map_err(|_| how)? {
        bytes if bytes > 65_408 || !bytes.is_multiple_of(64) => Err(how.into()),
        bytes => Ok(ChunkArg::Bytes(bytes)),
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.05..=600.0).contains(&seconds) { Ok(seconds) } else { Err("between 0.05 and 600".into()) }
}

fn parse_tolerance(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..1.0).contains(&share) { Ok(share) } else { Err("from 0 to below 1".into()) }
}

/// Largest message and working set.
pub(crate) const BYTES_MAX: u64 = 1 << 30;
/// Stays in cache.
pub(crate) const HOT_BYTES: u32 = 2 << 20;
/// Larger than caches.
pub(crate) const COLD_BYTES: u32 = 256 << 20;
/// Fits into an MTU of 9,000 with every header, sealed and over IPv6 too.
const PATH_CHUNK_BYTES_MAX: u32 = 8_896;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Command;

    #[test]
    fn said_twice_is_said() {
        let line = "plesio bench udp --size 64,4k,64 --chunk 64,64 --wait spin,block,spin --backend mio,mio --vs tcp,tcp";
        let cli = Cli::read(line.split(' ')).expect("lists");
        let Command::Bench(command) = cli.command else { panic!("a bench") };
        let BenchCommand::Udp(args) = *command else { panic!("of goodput") };
        let BenchUdpArgs { size, chunk, common: BenchArgs { wait, backend, vs, .. }, .. } = args;
        assert_eq!((size, wait), (vec![64, 4096], vec![Wait::Spin, Wait::Block]), "in the order of the line");
        assert_eq!((chunk.len(), backend.len(), vs.len()), (1, 1, 1));
        let line = "plesio bench allreduce --size 1k,1k --ranks 2,3,2 --path shm,udp,shm --codec none,none";
        let cli = Cli::read(line.split(' ')).expect("lists");
        let Command::Bench(command) = cli.command else { panic!("a bench") };
        let BenchCommand::Allreduce(args) = *command else { panic!("of sums") };
        assert_eq!((args.size.len(), args.ranks, args.path.len(), args.codec.len()), (1, vec![2, 3], 2, 1));
    }

    #[test]
    fn sizes_are_read_with_their_suffix_and_kept_in_bounds() {
        for (text, bytes) in [("64", 64), ("4k", 4096), ("1M", 1 << 20), ("2MiB", 2 << 20), ("1G", 1 << 30)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "0", "2G", "1T", "-1", "k", "99999999999999999999"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
        assert!(
            parse_chunk("1400").is_err() && parse_chunk("65472").is_err() && parse_chunk("paths").is_err()
        );
        assert_eq!((parse_chunk("64"), parse_chunk("path")), (Ok(ChunkArg::Bytes(64)), Ok(ChunkArg::Path)));
        assert_eq!(parse_working_set("hot"), Ok(2 << 20));
        assert!(parse_seconds("NaN").is_err() && parse_seconds("0").is_err());
        assert!(parse_tolerance("1").is_err() && parse_tolerance("NaN").is_err());
    }
}
