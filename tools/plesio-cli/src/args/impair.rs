//! The flags that make a path bad; the same for every command that has a path.
//!
//! Chances are read as `1%` or `0.01`, times as `20ms`, rates as `100Mbit`. What is read is a figure that a path can
//! have: no command checks it again.

use clap::Args;
use plesio_sim::impair::{Burst, Impairment, Rate, TIME_NS_MAX};
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

#[derive(Args, Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[command(next_help_heading = "Bad path (chances as 1% or 0.01, times as 20ms, rates as 100Mbit)")]
pub(crate) struct ImpairArgs {
    /// Datagrams that vanish
    #[arg(long, env = "PLESIO_LOSS", default_value = "0", value_name = "P")]
    #[serde(rename = "loss_ratio")]
    pub(crate) loss: Chance,

    /// Mean length of a row of losses, in datagrams; 1: each for itself
    #[arg(long, env = "PLESIO_BURST", default_value_t = 1, value_name = "N", requires = "loss")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) burst: u32,

    /// How much longer the way is, one direction
    #[arg(long, env = "PLESIO_DELAY", default_value = "0", value_name = "T")]
    #[serde(rename = "delay_ns")]
    pub(crate) delay: Time,

    /// The delay wanders by so much up and down, and never below 0; the order stays
    #[arg(long, env = "PLESIO_JITTER", default_value = "0", value_name = "T")]
    #[serde(rename = "jitter_ns")]
    pub(crate) jitter: Time,

    /// Datagrams that are overtaken: up to the delay later, 1 ms at least
    #[arg(long, env = "PLESIO_REORDER", default_value = "0", value_name = "P")]
    #[serde(rename = "reorder_ratio")]
    pub(crate) reorder: Chance,

    /// Datagrams that come twice, the copy up to 300 ms later
    #[arg(long, env = "PLESIO_DUP", default_value = "0", value_name = "P")]
    #[serde(rename = "dup_ratio")]
    pub(crate) dup: Chance,

    /// Datagrams whose bits flip, or whose end is cut off or grows
    #[arg(long, env = "PLESIO_CORRUPT", default_value = "0", value_name = "P")]
    #[serde(rename = "corrupt_ratio")]
    pub(crate) corrupt: Chance,

    /// What one direction carries; 50 ms of it, and 256 KiB at least, may queue
    #[arg(long, env = "PLESIO_RATE", value_name = "BPS")]
    #[serde(rename = "rate_bps")]
    pub(crate) rate: Option<BitRate>,
}

impl ImpairArgs {
    /// Whether nothing is wrong with the path.
    pub(crate) fn is_none(&self) -> bool {
        let Self { loss, burst: _, delay, jitter, reorder, dup, corrupt, rate } = *self;
        [loss, reorder, dup, corrupt].iter().all(|chance| chance.0 == 0)
            && [delay, jitter].iter().all(|time| time.0 == 0)
            && rate.is_none()
    }

    /// There and back at most, queues aside.
    pub(crate) fn round_trip_ns(&self) -> u64 {
        let Impairment { delay_ns, jitter_ns, reorder_ns, .. } = self.impairment();
        2 * (delay_ns + jitter_ns + reorder_ns)
    }

    /// The same for the machine that does it.
    pub(crate) fn impairment(&self) -> Impairment {
        let burst = (self.burst > 1).then(|| Burst::with_loss(self.loss.0, self.burst));
        let delay_ns = self.delay.0.saturating_sub(self.jitter.0);
        let jitter_ns = self.delay.0 + self.jitter.0 - delay_ns;
        Impairment {
            loss_ppm: if burst.is_some() { 0 } else { self.loss.0 },
            burst,
            delay_ns,
            jitter_ns,
            // A delay that falls lets datagrams catch up with each other; it has to hold for longer than that takes.
            jitter_hold_ns: (2 * jitter_ns).min(TIME_NS_MAX),
            reorder_ppm: self.reorder.0,
            reorder_ns: if self.reorder.0 > 0 { self.delay.0.max(1_000_000) } else { 0 },
            duplicate_ppm: self.dup.0,
            corrupt_ppm: self.corrupt.0,
            rate: self.rate.map(|rate| {
                let bytes_per_s = rate.0 / 8;
                let queue_bytes = (bytes_per_s / 20).max(256 << 10);
                Rate { bytes_per_s, bucket_bytes: 64 << 10, queue_bytes }
            }),
            ..Impairment::default()
        }
    }
}

/// As on a command line, without those that say nothing.
impl fmt::Display for ImpairArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut flags = Vec::new();
        let chances =
            [("loss", self.loss), ("reorder", self.reorder), ("dup", self.dup), ("corrupt", self.corrupt)];
        let times = [("delay", self.delay), ("jitter", self.jitter)];
        flags.extend(chances.iter().filter(|(_, p)| p.0 > 0).map(|(name, p)| format!("--{name} {p}")));
        if self.burst > 1 {
            flags.push(format!("--burst {}", self.burst));
        }
        flags.extend(times.iter().filter(|(_, t)| t.0 > 0).map(|(name, t)| format!("--{name} {t}")));
        flags.extend(self.rate.map(|rate| format!("--rate {rate}")));
        f.write_str(&flags.join(" "))
    }
}

/// The same, read back: as it is written, whatever the environment says.
impl FromStr for ImpairArgs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut args = Self { burst: 1, ..Self::default() };
        let mut words = text.split_whitespace();
        while let Some(flag) = words.next() {
            let value = words.next().ok_or_else(|| format!("{flag} has no value"))?;
            let read = match flag {
                "--loss" => value.parse().map(|loss| args.loss = loss),
                "--delay" => value.parse().map(|delay| args.delay = delay),
                "--jitter" => value.parse().map(|jitter| args.jitter = jitter),
                "--reorder" => value.parse().map(|reorder| args.reorder = reorder),
                "--dup" => value.parse().map(|dup| args.dup = dup),
                "--corrupt" => value.parse().map(|corrupt| args.corrupt = corrupt),
                "--rate" => value.parse().map(|rate| args.rate = Some(rate)),
                "--burst" => match value.parse() {
                    Ok(burst) if (1..=10_000).contains(&burst) => {
                        args.burst = burst;
                        Ok(())
                    }
                    _ => Err("it is 1 to 10000".into()),
                },
                _ => Err("a link has no such flag".into()),
            };
            read.map_err(|cause| format!("{flag} {value}: {cause}"))?;
        }
        if args.burst > 1 && args.loss.0 == 0 {
            return Err("--burst needs --loss: rows of what?".into());
        }
        Ok(args)
    }
}

/// Parts of a million.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Chance(pub(crate) u32);

impl FromStr for Chance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, scale) = text.strip_suffix('%').map_or((text, 1e6), |number| (number, 1e4));
        let ppm = figure(number, "write it as 1% or 0.01")? * scale;
        if scale == 1e6 && ppm >= 1e6 {
            return Err(format!("{text} of 1 is all or more; write {text}% for {text} in a hundred"));
        }
        if ppm > 1e6 {
            return Err("more than all; at most 100%".into());
        }
        if ppm > 0.0 && ppm < 0.5 {
            return Err("less than one in a million; 0.0001% is the least".into());
        }
        Ok(Self(ppm.round() as u32))
    }
}

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 1e4)
    }
}

impl Serialize for Chance {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(f64::from(self.0) / 1e6)
    }
}

/// Nanoseconds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Time(pub(crate) u64);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];
        let found = units.iter().find_map(|(unit, ns)| Some((text.strip_suffix(unit)?, *ns)));
        let how = "write it with its unit: 500us, 20ms or 1s";
        let ns = match found {
            Some((number, unit_ns)) => figure(number, how)? * unit_ns,
            None if text == "0" => 0.0,
            None => return Err(how.into()),
        };
        if ns > FLAG_NS_MAX as f64 {
            return Err(format!("no path is so long; at most {}s", FLAG_NS_MAX / 1_000_000_000));
        }
        Ok(Self(ns.round() as u64))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ns if ns.is_multiple_of(1_000_000) => write!(f, "{}ms", ns / 1_000_000),
            ns if ns.is_multiple_of(1_000) => write!(f, "{}us", ns / 1_000),
            ns => write!(f, "{ns}ns"),
        }
    }
}

/// Bits per second.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct BitRate(pub(crate) u64);

impl FromStr for BitRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let how = "write bits per second: 500kbit, 100Mbit or 1Gbit";
        let lower = text.to_ascii_lowercase();
        let units = [("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3), ("bit", 1.0)];
        let found = units.iter().find_map(|(unit, bits)| Some((lower.strip_suffix(unit)?, *bits)));
        let (number, unit) = found.ok_or(how)?;
        let bps = figure(number, how)? * unit;
        if (RATE_BPS_MIN..=RATE_BPS_MAX).contains(&bps) {
            Ok(Self(bps.round() as u64))
        } else {
            Err("no path carries that; between 8kbit and 1000Gbit, or leave it out".into())
        }
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bps if bps.is_multiple_of(1_000_000_000) => write!(f, "{}Gbit", bps / 1_000_000_000),
            bps if bps.is_multiple_of(1_000_000) => write!(f, "{}Mbit", bps / 1_000_000),
            bps if bps.is_multiple_of(1_000) => write!(f, "{}kbit", bps / 1_000),
            bps => write!(f, "{bps}bit"),
        }
    }
}

/// A plain number that is not negative: digits and one point, no sign, no exponent, no word.
fn figure(text: &str, how: &str) -> Result<f64, String> {
    let plain = text.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
    if plain { text.parse().map_err(|_| how.to_owned()) } else { Err(how.into()) }
}

/// Delay and jitter together are a time that a path may have.
const FLAG_NS_MAX: u64 = TIME_NS_MAX / 2;
const RATE_BPS_MIN: f64 = 8e3;
const RATE_BPS_MAX: f64 = 1e12;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        impair: ImpairArgs,
    }

    fn read(flags: &str) -> Result<ImpairArgs, clap::Error> {
        let line = std::iter::once("line").chain(flags.split_whitespace());
        Line::try_parse_from(line).map(|line| line.impair)
    }

    #[test]
    fn figures_are_read_as_people_write_them() {
        for (text, ppm) in [("0", 0), ("1%", 10_000), ("0.01", 10_000), ("0.5%", 5_000), ("100%", 1_000_000)]
        {
            assert_eq!(text.parse(), Ok(Chance(ppm)), "{text}");
        }
        for (text, ns) in
            [("0", 0), ("20ms", 20_000_000), ("1.5ms", 1_500_000), ("7us", 7_000), ("5s", FLAG_NS_MAX)]
        {
            assert_eq!(text.parse(), Ok(Time(ns)), "{text}");
        }
        for (text, bps) in
            [("1Gbit", 1_000_000_000), ("2.5mbit", 2_500_000), ("8kbit", 8_000), ("9000bit", 9_000)]
        {
            assert_eq!(text.parse(), Ok(BitRate(bps)), "{text}");
        }
    }

    #[test]
    fn hostile_figures_are_refused_with_what_mends_them() {
        for text in
            ["", "%", "1", "2", "-1%", "101%", "1e9%", "nan", "inf", "1 %", "0.00001%", "१%", "1%%", "..%"]
        {
            let error = text.parse::<Chance>().unwrap_err();
            assert!(error.contains('%'), "{text}: {error}");
        }
        for text in ["", "20", "-1ms", "6s", "99999999999999999999999s", "ms", "1m", "nanms", "1e3ms", "..s"]
        {
            let error = text.parse::<Time>().unwrap_err();
            assert!(error.contains('s'), "{text}: {error}");
        }
        for text in ["", "1", "0Gbit", "1GB", "1G", "-1Gbit", "7999bit", "2000Gbit", "infbit", "bit"] {
            let error = text.parse::<BitRate>().unwrap_err();
            assert!(error.contains("bit"), "{text}: {error}");
        }
        assert!(read("--loss 1").unwrap_err().to_string().contains("write 1% for"));
        assert!(read("--burst 0 --loss 1%").is_err());
        assert!(read("--burst 5").is_err(), "rows of what?");
    }

    #[test]
    fn a_line_says_what_the_machine_does_and_is_said_again() {
        assert!(read("").unwrap().is_none());
        assert_eq!(read("").unwrap().impairment(), Impairment::default());
        assert_eq!(read("").unwrap().to_string(), "");
        let flags = "--loss 1% --reorder 0.5% --dup 1% --corrupt 0.01% --burst 4 --delay 20ms --jitter 5ms --rate 1Gbit";
        let args = read(flags).unwrap();
        assert_eq!(args.to_string(), flags);
        assert_eq!(read(&args.to_string()).unwrap(), args);
        assert_eq!(flags.parse(), Ok(args));
        for wrong in ["--loss", "--loss 2", "--burst 4", "--burst 0 --loss 1%", "--lose 1%", "1%"] {
            assert!(wrong.parse::<ImpairArgs>().is_err(), "{wrong}");
        }
        let impairment = args.impairment();
        assert_eq!(impairment.check(), Ok(()));
        assert_eq!((impairment.delay_ns, impairment.jitter_ns), (15_000_000, 10_000_000));
        assert_eq!((impairment.loss_ppm, impairment.reorder_ns), (0, 20_000_000));
        assert_eq!(impairment.rate.unwrap().bytes_per_s, 125_000_000);
        assert_eq!(args.round_trip_ns(), 2 * (25_000_000 + 20_000_000), "whoever is overtaken comes last");
        let document = serde_json::to_value(args).unwrap();
        assert_eq!(
            (document["loss_ratio"].as_f64(), document["rate_bps"].as_u64()),
            (Some(0.01), Some(1_000_000_000))
        );
        // More jitter than delay: nothing arrives before it is sent.
        let jitter = read("--jitter 2ms --delay 1ms").unwrap().impairment();
        assert_eq!((jitter.delay_ns, jitter.jitter_ns), (0, 3_000_000));
        let most = read("--jitter 5s --delay 5s --loss 100% --burst 10000 --rate 1000Gbit").unwrap();
        assert_eq!(most.impairment().check(), Ok(()));
    }
}
