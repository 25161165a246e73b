//! The flags of `plesio bench allreduce` and `plesio bench shm`. A list is a matrix.

use super::bench::parse_bytes;
use super::{BackendArg, BenchOutputArgs};
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
        env = "PLESIO_PATH",
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

    /// How ranks wait that reach each other by datagrams
    #[arg(long, env = "PLESIO_WAIT", default_value = "block", value_enum, value_name = "HOW")]
    pub(crate) wait: Wait,

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
    /// Datagrams in plaintext on the loopback interface; out of place
    Udp,
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
