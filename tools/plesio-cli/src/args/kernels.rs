//! The flags of `plesio bench kernels`. A list is a matrix.

use super::bench::{conflict, is_on_line, once, parse_bytes, parse_working_set};
use super::{BenchOutputArgs, DeviceArg};
use crate::bench::{Requirement, kernel_names};
use clap::builder::PossibleValuesParser;
use clap::{ArgMatches, Args, ValueEnum};
use plesio::DeviceChoice;
use plesio_cpu::Level;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

pub(super) const ABOUT: &str = "The kernels of a device, beside the rate of its memory and beside numpy.

Before a row is timed, the kernel runs on small inputs of odd lengths and every bit is compared with the scalar \
reference's; a wrong element exits 1. Buffers lie in an arena, as a node's tensors do, in as many sets as fill the \
working set, taken in turn: cold is more than caches hold, hot stays in them. `bytes` is the least that any version \
of the kernel must move in a call.

floor: the same machine walking the same streams of the same buffers with the same vectors and threads, one stream \
after the other, with nothing computed; stores go through the cache. Only the CPU has one. `floor_ratio` is its \
time divided by the kernel's: 1 is a kernel that waits for memory alone. The column `floor` says whether that was \
memory or a cache. `at_least` and `at_most` are what one core has to reach, where something is asked of it, and \
`met` whether it does. On a device that is no CPU every call begins and ends in the host's memory, and a run ends \
where the CPU would have to stand in. Adapters (lora_*) find their batch in a cache, unless --working-set says \
otherwise, and compute more than they move: there the floor is out of reach, and ns/vector, the time of one row of \
the batch, says more.

Every round runs ours, the floor, the rivals, and ours again, each for --seconds; ratios are medians over rounds. A \
rival's ratio is its time divided by ours: above 1 ours is faster. `numpy` is a script in a process of its own that \
reads the same inputs, on one thread, and whose first result must be ours but for rounding. The verdict is \
`trustworthy` when what ran first and last in each round agrees within 5 % over at least 3 rounds. ruvector-sona is \
linked into no program of ours: `cargo bench -p plesio-benches --bench lora` has it beside our adapters.";

#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct KernelsArgs {
    /// Which kernels, with commas between them
    #[arg(long, env = "PLESIO_KERNELS", value_delimiter = ',', value_name = "LIST")]
    #[arg(value_parser = PossibleValuesParser::new(kernel_names()), hide_possible_values = false)]
    #[arg(help = "Which kernels, with commas between them [default: all]")]
    pub(crate) kernels: Vec<String>,

    /// Bytes of one input, with commas between them: 64k, 4M; adapters have shapes of their own
    #[arg(long, env = "PLESIO_SIZE", value_delimiter = ',', value_name = "LIST", value_parser = parse_bytes)]
    #[arg(
        help = "Bytes of one input, with commas between them: 64k, 4M; adapters have shapes of their own \
                  [default: 4M; with a hot working set 32k]"
    )]
    pub(crate) size: Vec<u32>,

    /// What computes: `auto` takes the device that sums a version fastest, by trial; `cpu`, `cuda:N` and `hip:N` take
    /// that one
    #[arg(long, env = "PLESIO_DEVICE", default_value = "auto", value_name = "DEVICE")]
    pub(crate) device: DeviceArg,

    /// Folder of prebuilt kernels (cargo xtask kernels --out DIR), in the place of those in this program
    #[arg(long, env = "PLESIO_KERNELS_DIR", value_name = "DIR")]
    pub(crate) kernels_dir: Option<PathBuf>,

    /// Threads of a call on the CPU, with commas between them, 1 to 256; small calls stay on one
    #[arg(long, env = "PLESIO_THREADS", default_value = "1", value_delimiter = ',', value_name = "LIST")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Vec<u16>,

    /// Instruction set of the CPU, which then computes; the best there is unless said
    #[arg(long, env = "PLESIO_LEVEL", value_enum, value_name = "LEVEL")]
    pub(crate) level: Option<LevelArg>,

    /// Memory that the calls of a row walk through in turn: bytes, hot (2M) or cold (256M)
    #[arg(long, env = "PLESIO_WORKING_SET", value_name = "BYTES", value_parser = parse_working_set)]
    #[arg(help = "Memory that the calls of a row walk through in turn: bytes, hot (2M) or cold (256M) \
                [default: cold; lora_forward and lora_backward: one batch, again and again]")]
    pub(crate) working_set: Option<u32>,

    /// Rounds, 1 to 1000; in each, ours runs first and last, and the floor and the rivals between
    #[arg(long, env = "PLESIO_REPEATS", default_value_t = 5, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) repeats: u16,

    /// Length of each part of a round, 0.001 to 60
    #[arg(long, env = "PLESIO_SECONDS", default_value = "0.1", value_name = "S", value_parser = parse_seconds)]
    pub(crate) seconds: f64,

    /// Rivals of the same run, with commas between them
    #[arg(long, env = "PLESIO_VS", value_delimiter = ',', value_enum, value_name = "LIST")]
    pub(crate) vs: Vec<KernelRivalArg>,

    /// A bound on the document, NAME>=X or NAME<=X; a miss exits 3. Each kernel has its ratios:
    /// ratio.commit.floor>=0.9
    #[arg(long, value_name = "BOUND")]
    pub(crate) require: Vec<Requirement>,

    /// Draws the inputs
    #[arg(long, env = "PLESIO_SEED", default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,

    #[command(flatten)]
    pub(crate) output: BenchOutputArgs,
}

impl KernelsArgs {
    /// Refuses a folder that would not be looked into, and leaves each value of a list once. What the environment says
    /// is for other commands too.
    pub(super) fn settle(&mut self, found: &ArgMatches) -> Result<(), clap::Error> {
        once(&mut self.kernels);
        once(&mut self.size);
        once(&mut self.threads);
        once(&mut self.vs);
        let by = match (self.device.0, self.level) {
            (DeviceChoice::Cpu, _) => "device cpu",
            (_, Some(_)) => "level",
            _ => return Ok(()),
        };
        if is_on_line(found, "kernels_dir") {
            let why = "its kernels are for GPUs, and the CPU would compute; leave --kernels-dir out";
            return Err(conflict("kernels-dir", by, why));
        }
        Ok(())
    }
}

/// An instruction set by its name.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LevelArg {
    /// The reference, one element at a time
    Scalar,
    /// 128-bit vectors of aarch64
    Neon,
    /// 256-bit vectors
    Avx2,
    /// 512-bit vectors
    Avx512,
}

impl LevelArg {
    pub(crate) fn level(self) -> Level {
        match self {
            Self::Scalar => Level::Scalar,
            Self::Neon => Level::Neon,
            Self::Avx2 => Level::Avx2,
            Self::Avx512 => Level::Avx512,
        }
    }
}

/// Another program that computes the same.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KernelRivalArg {
    /// numpy of the python3 on the PATH, one thread
    Numpy,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.001..=60.0).contains(&seconds) { Ok(seconds) } else { Err("between 0.001 and 60".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_with_care() {
        assert_eq!(parse_seconds("0.001"), Ok(0.001));
        for wrong in ["0", "NaN", "61", "x"] {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
    }
}
