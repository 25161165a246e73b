//! Round trips as an HDR histogram: three digits at every scale, no sample lost.

use crate::failure::Failure;
use crate::hex::hex;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer, V2Serializer};
use std::fmt::Display;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

fn failed(cause: impl Display) -> Failure {
    Failure::run("histogram", "cannot keep the round trips", cause)
}

/// In nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct RoundTrips(Histogram<u64>);

impl RoundTrips {
    pub(crate) fn new() -> Result<Self, Failure> {
        Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).map(Self).map_err(failed)
    }

    pub(crate) fn add(&mut self, time: Duration) {
        self.0.saturating_record(time.as_nanos().clamp(1, u128::from(LONGEST_NS)) as u64);
    }

    pub(crate) fn merge(&mut self, other: &Self) -> Result<(), Failure> {
        self.0.add(&other.0).map_err(failed)
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that this share of all round trips does not exceed.
    pub(crate) fn quantile_ns(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64
    }

    pub(crate) fn mean_ns(&self) -> f64 {
        self.0.mean()
    }

    pub(crate) fn deviation_ns(&self) -> f64 {
        self.0.stdev()
    }

    pub(crate) fn min_ns(&self) -> f64 {
        self.0.min() as f64
    }

    pub(crate) fn max_ns(&self) -> f64 {
        self.0.max() as f64
    }

    /// For a line between processes.
    pub(crate) fn to_hex(&self) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&self.0, &mut bytes).map_err(failed)?;
        Ok(hex(&bytes))
    }

    pub(crate) fn from_hex(text: &str) -> Result<Self, Failure> {
        let digits = text.as_bytes();
        let byte = |pair: &[u8]| {
            let pair = str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16).ok()
        };
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
        let bytes = bytes
            .filter(|_| digits.len().is_multiple_of(2))
            .ok_or_else(|| failed("not hexadecimal digits"))?;
        let found: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(failed)?;
        let mut trips = Self::new()?;
        trips.0.add(found).map_err(failed)?;
        Ok(trips)
    }
}

fn cannot_write(path: &Path, cause: &dyn Display) -> Failure {
    let what = format!("cannot write the histogram {}", path.display());
    Failure::usage("histogram", what, cause).fix("give --hist a path in a folder that exists and is yours")
}

/// Where it is written until it is whole.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Whether a log can be written there, before there is anything to write.
pub(crate) fn check_log(path: &Path) -> Result<(), Failure> {
    if path.is_dir() {
        return Err(cannot_write(path, &"it is a folder"));
    }
    let part = part_of(path);
    let made = std::fs::File::create(&part).and_then(|_| std::fs::remove_file(&part));
    made.map_err(|cause| cannot_write(path, &cause))
}

/// One interval per row, tagged with it: the log that HdrHistogram's tools read. Written beside and renamed.
pub(crate) fn write_log(path: &Path, rows: &[(String, RoundTrips)]) -> Result<(), Failure> {
    let cannot = |cause: &dyn Display| cannot_write(path, cause);
    let part = &part_of(path);
    let file = std::fs::File::create(part).map_err(|cause| cannot(&cause))?;
    let mut out = BufWriter::new(file);
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("plesio bench pingpong: round trips in nanoseconds, one interval per row")
        .with_start_time(SystemTime::now())
        .with_max_value_divisor(1.0)
        .begin_log_with(&mut out, &mut serializer)
        .map_err(|cause| cannot(&cause))?;
    for (index, (name, trips)) in rows.iter().enumerate() {
        let start = Duration::from_secs(index as u64);
        log.write_histogram(&trips.0, start, Duration::from_secs(1), Tag::new(name))
            .map_err(|cause| cannot(&format!("{cause:?}")))?;
    }
    out.flush().map_err(|cause| cannot(&cause))?;
    std::fs::rename(part, path).map_err(|cause| cannot(&cause))
}

/// A round trip of a minute is none.
const LONGEST_NS: u64 = 60_000_000_000;
const DIGITS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_survive_the_way_between_processes() {
        let mut trips = RoundTrips::new().expect("bounds");
        for us in 1..=1_000 {
            trips.add(Duration::from_micros(us));
        }
        trips.add(Duration::from_secs(3_600));
        let again = RoundTrips::from_hex(&trips.to_hex().expect("bytes")).expect("the same");
        assert_eq!(again.count(), 1_001);
        for share in [0.5, 0.99, 1.0] {
            assert_eq!(again.quantile_ns(share), trips.quantile_ns(share));
        }
        assert!((again.quantile_ns(0.5) - 501_000.0).abs() < 1_000.0, "{}", again.quantile_ns(0.5));
        for wrong in ["", "0", "zz", "ffffffffffff", "1c849303"] {
            assert!(RoundTrips::from_hex(wrong).is_err(), "{wrong}");
        }
    }
}
