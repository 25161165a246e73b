//! The flags of `plesio bench`.

use super::{BackendArg, parse_switch};
use crate::bench::{Requirement, Rival, Wait};
use clap::{Args, Subcommand};
use serde::Serialize;

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// One-way goodput between two processes on this machine
    Udp(BenchUdpArgs),
}

/// A list is a matrix: every size with every chunk.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct BenchUdpArgs {
    /// Message sizes, with commas between them
    #[arg(long, env = "PLESIO_SIZE", default_value = "1M", value_delimiter = ',', value_name = "LIST")]
    #[arg(value_parser = parse_bytes)]
    pub(crate) size: Vec<u32>,

    /// Payload per datagram, multiples of 64 from 64 to 65408
    #[arg(
        long,
        env = "PLESIO_CHUNK",
        default_value = "65408,1408",
        value_delimiter = ',',
        value_name = "LIST"
    )]
    #[arg(value_parser = parse_chunk)]
    pub(crate) chunk: Vec<u32>,

    /// Memory that each end walks through: bytes, hot (2M, stays in cache) or cold (256M)
    #[arg(long, env = "PLESIO_WORKING_SET", default_value = "cold", value_name = "BYTES", value_parser = parse_working_set)]
    pub(crate) working_set: u32,

    /// How both ends wait
    #[arg(long, env = "PLESIO_WAIT", default_value = "block", value_enum)]
    pub(crate) wait: Wait,

    /// Socket backend of our own ends
    #[arg(long, env = "PLESIO_BACKEND", default_value = "auto", value_enum)]
    pub(crate) backend: BackendArg,

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

    /// Draws the bytes that are sent
    #[arg(long, env = "PLESIO_SEED", default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,

    /// One JSON document on stdout at the end, instead of the table
    #[arg(long, env = "PLESIO_JSON", value_parser = parse_switch)]
    pub(crate) json: bool,

    /// No progress on stderr
    #[arg(long, short, env = "PLESIO_QUIET", value_parser = parse_switch)]
    pub(crate) quiet: bool,
}

/// `64`, `4k`, `1M`, `2MiB`: powers of 1024, at most 1 GiB.
fn parse_bytes(text: &str) -> Result<u32, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix.to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err("write bytes as 64, 4k, 1M or 1G".into()),
    };
    let number: u64 = number.parse().map_err(|error| format!("{error}"))?;
    match number.checked_mul(1 << shift) {
        Some(bytes @ 1..=BYTES_MAX) => Ok(bytes as u32),
        _ => Err("between 1 byte and 1 GiB".into()),
    }
}

fn parse_working_set(text: &str) -> Result<u32, String> {
    match text {
        "hot" => Ok(2 << 20),
        "cold" => Ok(256 << 20),
        _ => parse_bytes(text),
    }
}

fn parse_chunk(text: &str) -> Result<u32, String> {
    let bytes = parse_bytes(text)?;
    if bytes > 65_408 || bytes % 64 != 0 {
        return Err("a multiple of 64 from 64 to 65408".into());
    }
    Ok(bytes)
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.05..=600.0).contains(&seconds) { Ok(seconds) } else { Err("between 0.05 and 600".into()) }
}

const BYTES_MAX: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_suffix_and_kept_in_bounds() {
        for (text, bytes) in [("64", 64), ("4k", 4096), ("1M", 1 << 20), ("2MiB", 2 << 20), ("1G", 1 << 30)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "0", "2G", "1T", "-1", "k", "99999999999999999999"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
        assert!(parse_chunk("1400").is_err() && parse_chunk("65472").is_err());
        assert_eq!(parse_working_set("hot"), Ok(2 << 20));
        assert!(parse_seconds("NaN").is_err() && parse_seconds("0").is_err());
    }
}
