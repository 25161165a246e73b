//! The command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;

/// Longest run: machines with GPUs are often had for minutes.
const SECONDS_MAX: u64 = 480;
/// With the commit, so that a copied program tells what it is.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("GPU_BENCH_COMMIT"));

/// Everything that only a GPU can show, in one call: ceilings, do the kernels load, are they right, how fast are
/// they.
///
/// Needs the vendor's driver; for ceilings and times also Python with torch, and Triton for some rivals. What is
/// missing, or has no time left, is named and left out. Exits with 1 where something is wrong: a result, an artefact
/// that does not load, no device. SIGINT, SIGTERM and SIGHUP end it with what there is by then, and it exits with 130.
#[derive(Debug, Parser)]
#[command(name = "gpu-bench", version = VERSION, about, long_about)]
pub(crate) struct Args {
    /// Which device: cuda:N, or hip:N for all but ceilings, compute-sanitizer and times.
    #[arg(long, default_value = "cuda:0", value_name = "DEVICE")]
    pub(crate) device: Place,
    /// A folder of artefacts that take the place of those in this program.
    #[arg(long, value_name = "DIR")]
    pub(crate) kernels: Option<PathBuf>,
    /// Where the results go, as JSON; they are kept in benches/results.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// The Python that has torch.
    #[arg(long, env = "PYTHON", default_value = "python3", value_name = "PROGRAM")]
    pub(crate) python: PathBuf,
    /// compute-sanitizer, where it is not found by itself.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) sanitizer: Option<PathBuf>,
    /// How long all of it may take. It ends then, whatever it does; what was left out is said, and is no failure.
    #[arg(long, default_value_t = SECONDS_MAX - 20, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    pub(crate) seconds: u64,
    /// Times only rows whose names have this in them; any number of times.
    #[arg(long = "row", value_name = "TEXT")]
    pub(crate) rows: Vec<String>,
    /// Correctness with small shapes and nothing else: what runs under compute-sanitizer.
    #[arg(long, hide = true)]
    pub(crate) small: bool,
    /// Each row once and small, in the host's memory and untimed: for a driver that is an emulator.
    #[arg(long, hide = true, conflicts_with = "small")]
    pub(crate) rehearse: bool,
}

impl Args {
    /// Whether a row is to be timed.
    pub(crate) fn wants(&self, row: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|text| row.contains(text.as_str()))
    }
}

/// A device by its vendor and number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    Cuda(u32),
    Hip(u32),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Self::Hip(ordinal) => write!(f, "hip:{ordinal}"),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = text.split_once(':').and_then(|(vendor, ordinal)| {
            let ordinal = ordinal.parse().ok()?;
            match vendor {
                "cuda" => Some(Self::Cuda(ordinal)),
                "hip" => Some(Self::Hip(ordinal)),
                _ => None,
            }
        });
        place.ok_or_else(|| format!("'{text}' is no GPU: say cuda:N or hip:N"))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_refuses_what_it_does_not_know() {
        Args::command().debug_assert();
        let parse = |arguments: &[&str]| {
            let all = ["gpu-bench"].iter().chain(arguments);
            Args::try_parse_from(all).map_err(|error| error.to_string())
        };
        assert_eq!(parse(&["--device", "hip:3"]).map(|args| args.device), Ok(Place::Hip(3)));
        for (wrong, said) in [
            (&["--device", "cpu"][..], "say cuda:N or hip:N"),
            (&["--seconds", "0"], "0 is not in 1..=480"),
            (&["--seconds", "481"], "481 is not in 1..=480"),
            (&["--tune"], "unexpected argument '--tune'"),
            (&["file"], "unexpected argument 'file'"),
        ] {
            let told = parse(wrong).map(|args| args.device).expect_err("it is wrong");
            assert!(told.contains(said), "{told}");
        }
    }
}
