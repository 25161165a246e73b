//! The flags of `plesio bench allreduce` and `plesio bench shm`. A list is a matrix.

use super::bench::{ProtectionArg, parse_bytes};
use super::{BackendArg, BenchOutputArgs, SharesArg};
use crate::bench::{Requirement, Wait};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct CollectiveArgs {
    /// Sizes of a rank's tensor, with commas between them: bytes, or 64k, 1M
    #[arg(
        long,
        env = "PLESIO_SIZE",
        default_value = "1k,64k,1M,16M,64M",
        value_delimiter = ',',
        value_name = "LIST"
    )]
    #[arg(value_parser = parse_bytes)]
    pub(crate) size: Vec<u32>,

    /// How many ranks, each a process, with commas between them; 1 to 32
    #[arg(long, env = "PLESIO_RANKS", default_value = "2,4", value_delimiter = ',', value_name = "LIST")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) ranks: Vec<u8>,

    /// How the ranks reach each other, with commas between them
    #[arg(
        long,
        env = "PLESIO_BENCH_PATH",
        default_value = "shm",
        value_delimiter = ',',
        value_enum,
        value_name = "LIST"
    )]
    pub(crate) path: Vec<PathArg>,

    /// What the ranks do together, with commas between them
    #[arg(long, env = "PLESIO_OPERATION", value_delimiter = ',', value_enum, value_name = "LIST")]
    #[arg(
        help = "What the ranks do together, with commas between them [default: all-reduce; shm: all four]"
    )]
    pub(crate) operation: Vec<OperationArg>,

    /// Type of the elements
    #[arg(long, env = "PLESIO_ELEMENT", default_value = "f32", value_enum, value_name = "TYPE")]
    pub(crate) element: ElementArg,

    /// How binary32 tensors are narrowed on their way, with commas between them; with --path udp, for all-reduce.
    ///
    /// What a codec leaves out of a tensor is kept and goes with the next one. #wrong then counts elements that are
    /// farther from the sum than the codec explains, and ranks that do not hold the same bits.
    #[arg(
        long,
        env = "PLESIO_BENCH_CODEC",
        default_value = "none",
        value_delimiter = ',',
        value_enum,
        value_name = "LIST"
    )]
    pub(crate) codec: Vec<NarrowArg>,

    /// How datagrams are protected; with --path udp
    #[arg(long, env = "PLESIO_PROTECTION", default_value = "sealed", value_enum)]
    pub(crate) protection: ProtectionArg,

    /// Network namespaces of the ranks, with commas between them, one for each, on links that nobody else reaches, so that
    /// they may carry plaintext; with --path udp, needs CAP_SYS_ADMIN
    #[arg(long, env = "PLESIO_NAMESPACES", value_delimiter = ',', value_name = "LIST")]
    pub(crate) namespaces: Vec<String>,

    /// What each rank's link carries in each direction, bits per second (100M, 1G), with commas between them: who has less
    /// sums less, and every row says what the slowest link would need; with --path udp
    #[arg(long, env = "PLESIO_LINKS", value_delimiter = ',', value_name = "LIST", value_parser = parse_bits)]
    pub(crate) links: Vec<u64>,

    /// Who sums how much, with --links; equal: as if the ranks did not know of them
    #[arg(long, env = "PLESIO_BENCH_SHARES", default_value = "rate", value_enum, value_name = "HOW")]
    pub(crate) shares: SharesArg,

    /// After each row, kill a rank so many times at a random instant inside an operation, 0 to 1000; a kill that comes
    /// after the rank's part is over does not count and is tried again, ten times as often at most
    #[arg(long, env = "PLESIO_KILLS", default_value_t = 0, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub(crate) kills: u16,

    /// Operations of one run, 1 to 100000
    #[arg(long, env = "PLESIO_ITERATIONS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    #[arg(
        help = "Operations of one run, 1 to 100000 [default: by size, 101 up to 64k, then 31, 9 above 1M, 5 above 16M]"
    )]
    pub(crate) iterations: Option<u32>,

    /// Rounds, 1 to 1000; in each, ours runs first and last and the bare pass between
    #[arg(long, env = "PLESIO_REPEATS", default_value_t = 5, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) repeats: u16,

    /// A bound on the document, NAME>=X or NAME<=X; a miss exits 3
    #[arg(long, value_name = "BOUND")]
    pub(crate) require: Vec<Requirement>,

    /// How ranks wait that reach each other by datagrams, with commas between them
    #[arg(
        long,
        env = "PLESIO_WAIT",
        default_value = "adaptive",
        value_delimiter = ',',
        value_enum,
        value_name = "LIST"
    )]
    pub(crate) wait: Vec<Wait>,

    /// Socket backend of ranks that reach each other by datagrams
    #[arg(long, env = "PLESIO_BACKEND", default_value = "auto", value_enum, value_name = "NAME")]
    pub(crate) backend: BackendArg,

    /// Draws the tensors
    #[arg(long, env = "PLESIO_SEED", default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,

    /// Cores of the ranks, with commas between them, taken in turn
    #[arg(long, env = "PLESIO_PIN", value_delimiter = ',', value_name = "LIST")]
    pub(crate) pin: Vec<u16>,

    #[command(flatten)]
    pub(crate) output: BenchOutputArgs,
}

/// How ranks reach each other.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PathArg {
    /// Each maps the others' memory
    Shm,
    /// Datagrams, on the loopback interface or between namespaces; out of place
    Udp,
}

/// How tensors are narrowed on their way.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NarrowArg {
    /// Not at all
    None,
    /// The upper half of a binary32
    Bf16,
    /// 8 bits and a step for 256
    Int8,
    /// 4 bits, a step and a seed for 64
    Int4,
}

/// `1G`, `100M`, `250k` or a number: bits per second, of powers of ten.
fn parse_bits(text: &str) -> Result<u64, String> {
    let unit = |suffix: char| text.strip_suffix(suffix);
    let (digits, scale) = match (unit('G'), unit('M'), unit('k')) {
        (Some(digits), _, _) => (digits, 1_000_000_000),
        (_, Some(digits), _) => (digits, 1_000_000),
        (_, _, Some(digits)) => (digits, 1_000),
        _ => (text, 1),
    };
    let bits = digits.parse::<u64>().ok().and_then(|bits| bits.checked_mul(scale));
    bits.filter(|bits| (8_000..=1_000_000_000_000).contains(bits))
        .ok_or_else(|| "write it as 100M or 1G; 8k to 1000G".to_owned())
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OperationArg {
    /// The sum of all tensors, to everybody
    AllReduce,
    /// To each rank its range of the sum
    ReduceScatter,
    /// To everybody each rank's range
    AllGather,
    /// To everybody the tensor of rank 0
    Broadcast,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ElementArg {
    /// IEEE 754 binary32
    F32,
    /// Upper half of a binary32
    Bf16,
    /// Two's complement, 32 bits
    I32,
}
