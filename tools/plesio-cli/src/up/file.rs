//! `plesio.toml`: the same names as the flags that say what a node does, with `_` for `-`. A name that is none is an error that says which was
//! probably meant.

use crate::args::{
    BackendArg, CodecArg, DataPathArg, DeviceArg, OuterArg, RulesArgs, SharesArg, TrustArg, WeightsArg,
};
use crate::bench::Wait;
use serde::Deserialize;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Longest file that is looked at.
pub(super) const BYTES_MAX: usize = 64 << 10;

/// What the file may say; what it does not say is absent.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Settings {
    pub(super) found: bool,
    /// As [`crate::args::parse_seed`] reads them.
    pub(super) join: Vec<String>,
    pub(super) key: Option<PathBuf>,
    pub(super) ticket: Option<PathBuf>,
    pub(crate) pool: Option<PathBuf>,
    pub(crate) operator: Vec<PathBuf>,
    pub(crate) threshold: Option<u8>,
    pub(super) halt_record: Option<PathBuf>,
    pub(super) state: Option<PathBuf>,
    pub(super) checkpoint_s: Option<u32>,
    pub(crate) listen: Option<SocketAddr>,
    pub(super) listen_data: Option<SocketAddr>,
    pub(super) backend: Option<BackendArg>,
    pub(super) device: Option<DeviceArg>,
    pub(super) kernels_dir: Option<PathBuf>,
    pub(super) wait: Option<Wait>,
    pub(super) path: Option<DataPathArg>,
    pub(super) codec: Option<CodecArg>,
    pub(super) shares: Option<SharesArg>,
    pub(super) weights: Option<WeightsArg>,
    pub(super) lambda: Option<f64>,
    pub(super) outer: Option<OuterArg>,
    pub(super) outer_mu: Option<f64>,
    pub(super) outer_eta: Option<f64>,
    pub(super) tau: Option<u64>,
    pub(super) kappa: Option<u32>,
    pub(super) t_dead_ms: Option<u64>,
    pub(super) ring_depth: Option<u8>,
    pub(super) lo: Option<f64>,
    pub(super) hi: Option<f64>,
    pub(super) dwell: Option<u32>,
    pub(crate) plaintext: bool,
    pub(super) trust: Option<TrustArg>,
    pub(super) data: Option<PathBuf>,
    pub(super) duty: Option<f64>,
    pub(super) period_ms: Option<u32>,
    pub(super) period_min_ms: Option<u32>,
    pub(super) period_max_ms: Option<u32>,
    pub(super) seconds: Option<u32>,
    pub(super) seed: Option<u64>,
    pub(super) out: Option<PathBuf>,
    pub(super) socket: Option<PathBuf>,
    pub(super) trace: Option<PathBuf>,
}

impl Settings {
    /// What versions are decided by, as far as the file says.
    pub(super) fn rules(&self) -> RulesArgs {
        RulesArgs {
            weights: self.weights,
            lambda: self.lambda,
            outer: self.outer,
            outer_mu: self.outer_mu,
            outer_eta: self.outer_eta,
            tau: self.tau,
            kappa: self.kappa,
            t_dead_ms: self.t_dead_ms,
        }
    }
}

/// Every name, in the order of the help.
const NAMES: [&str; 43] = [
    "found",
    "join",
    "key",
    "ticket",
    "pool",
    "operator",
    "threshold",
    "halt_record",
    "state",
    "checkpoint_s",
    "listen",
    "listen_data",
    "backend",
    "device",
    "kernels_dir",
    "wait",
    "path",
    "codec",
    "shares",
    "weights",
    "lambda",
    "outer",
    "outer_mu",
    "outer_eta",
    "tau",
    "kappa",
    "t_dead_ms",
    "ring_depth",
    "lo",
    "hi",
    "dwell",
    "plaintext",
    "trust",
    "data",
    "duty",
    "period_ms",
    "period_min_ms",
    "period_max_ms",
    "seconds",
    "seed",
    "out",
    "socket",
    "trace",
];

/// Why a text is not a file of settings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum FileError {
    Long,
    /// Not TOML, or a value of the wrong kind; the parser says where.
    Toml(String),
    Unknown {
        name: String,
        meant: Option<&'static str>,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Long => write!(f, "it is longer than {BYTES_MAX} bytes"),
            Self::Toml(error) => f.write_str(error),
            Self::Unknown { name, meant: Some(meant) } => {
                write!(f, "there is no setting {name:?}; did you mean {meant:?}?")
            }
            Self::Unknown { name, meant: None } => {
                write!(f, "there is no setting {name:?}; there are {}", NAMES.join(", "))
            }
        }
    }
}

/// Reads a file of settings.
pub(super) fn read(bytes: &[u8]) -> Result<Settings, FileError> {
    if bytes.len() > BYTES_MAX {
        return Err(FileError::Long);
    }
    let text = str::from_utf8(bytes).map_err(|error| FileError::Toml(error.to_string()))?;
    let toml = |error: toml::de::Error| FileError::Toml(error.to_string().trim_end().to_owned());
    let table: toml::Table = text.parse().map_err(toml)?;
    if let Some(name) = table.keys().find(|name| !NAMES.contains(&name.as_str())) {
        return Err(FileError::Unknown { name: name.clone(), meant: meant(name, &NAMES) });
    }
    // From the text again: only then does an error say in which line.
    toml::from_str(text).map_err(toml)
}

/// The one of some names that was probably meant, if any is near.
pub(crate) fn meant(name: &str, names: &[&'static str]) -> Option<&'static str> {
    let plain = name.replace('-', "_").to_ascii_lowercase();
    let near = |known: &&str| distance(&plain, known) <= known.len() / 3 + 1;
    names.iter().copied().filter(near).min_by_key(|known| distance(&plain, known))
}

/// Letters to change, add or take away to make one word of the other; `usize::MAX` for a word that is none.
fn distance(one: &str, other: &str) -> usize {
    const WORD_MAX: usize = 32;
    if one.len() > WORD_MAX {
        return usize::MAX;
    }
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], index + 1);
        for (at, wanted) in other.iter().enumerate() {
            let swapped = corner + usize::from(letter != *wanted);
            corner = row[at + 1];
            row[at + 1] = swapped.min(corner + 1).min(row[at] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    const WHOLE: &str = r#"
        join = ["0f0f@10.0.0.1:7000"]
        key = "a.key"
        ticket = "a.ticket"
        operator = ["operator.pub"]
        threshold = 1
        halt_record = "a.halt"
        state = "a.state"
        checkpoint_s = 5
        listen = "[::1]:7000"
        listen_data = "127.0.0.1:0"
        backend = "mio"
        wait = "adaptive"
        path = "udp"
        codec = "int8"
        shares = "equal"
        weights = "work"
        lambda = 0.5
        outer = "nesterov"
        outer_mu = 0.8
        outer_eta = 0.25
        tau = 8
        kappa = 16
        t_dead_ms = 2000
        ring_depth = 8
        lo = 0.1
        hi = 0.5
        dwell = 4
        plaintext = true
        trust = "captive"
        data = "text.txt"
        duty = 0.5
        period_ms = 250
        period_min_ms = 125
        period_max_ms = 4000
        seed = 7
        out = "here"
    "#;

    #[test]
    fn every_name_is_read() {
        let settings = read(WHOLE.as_bytes()).expect("whole");
        assert_eq!(settings.listen, Some("[::1]:7000".parse().expect("an address")));
        assert_eq!((settings.backend, settings.duty), (Some(BackendArg::Mio), Some(0.5)));
        assert_eq!((settings.wait, settings.plaintext), (Some(Wait::Adaptive), true));
        assert_eq!((settings.codec, settings.path), (Some(CodecArg::Int8), Some(DataPathArg::Udp)));
        assert_eq!((settings.codec, settings.shares), (Some(CodecArg::Int8), Some(SharesArg::Equal)));
        assert_eq!(
            settings.rules().to_string(),
            " --weights work --outer nesterov --lambda 0.5 --outer-mu 0.8 --outer-eta 0.25 --tau 8 --kappa 16 --t-dead-ms 2000"
        );
        assert_eq!(
            (settings.ring_depth, settings.lo, settings.hi, settings.dwell),
            (Some(8), Some(0.1), Some(0.5), Some(4))
        );
        for name in NAMES {
            // Each name is a field: a value of the wrong kind is refused by it, and not passed over.
            let wrong = format!("{name} = {{ a = 1 }}");
            assert!(matches!(read(wrong.as_bytes()), Err(FileError::Toml(_))), "{name}");
        }
        assert_eq!(read(b""), Ok(Settings::default()));
    }

    /// `plaintext` was called `protection` here, which nothing said.
    #[test]
    fn the_names_are_those_of_the_flags() {
        let command = crate::args::Cli::command();
        let up = command.find_subcommand("up").expect("there is one");
        let flags = up.get_arguments().filter_map(|flag| flag.get_long());
        // Where the file is, and how the command speaks, are no settings of a node.
        let others = ["config", "json", "json-stream", "quiet", "color", "help", "version"];
        let names: Vec<String> =
            flags.filter(|flag| !others.contains(flag)).map(|flag| flag.replace('-', "_")).collect();
        assert_eq!(names, NAMES);
    }

    #[test]
    fn a_name_that_is_none_is_told_from_the_one_that_was_meant() {
        for (wrong, right) in
            [("lisen", "listen"), ("listen-data", "listen_data"), ("Backend", "backend"), ("sockt", "socket")]
        {
            let error = read(format!("\"{wrong}\" = 1").as_bytes()).expect_err("no such name");
            assert_eq!(error, FileError::Unknown { name: wrong.into(), meant: Some(right) });
        }
        let error = read(b"colour_of_the_sky = 1").expect_err("no such name");
        assert!(error.to_string().contains("listen_data"), "{error}");
        let error = read(b"\n\nlisten = \"here\"").expect_err("no address");
        assert!(error.to_string().contains("line 3"), "{error}");
    }

    /// Whatever stands in the file, it is read or refused.
    #[test]
    fn a_damaged_file_is_read_or_refused() {
        let mut random = 1_u64;
        let mut draw = |bound: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % bound
        };
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let mut bytes = WHOLE.as_bytes().to_vec();
            for _ in 0..=draw(4) {
                let at = draw(bytes.len());
                match draw(4) {
                    0 => bytes[at] = draw(256) as u8,
                    1 => bytes.truncate(at.max(1)),
                    2 => drop(bytes.drain(at..(at + draw(9)).min(bytes.len()).max(at))),
                    _ => bytes[at] = b"\"[]{}=.\n'#"[draw(10)],
                }
                if bytes.is_empty() {
                    bytes.push(b'\n');
                }
            }
            if read(&bytes).is_ok() { taken += 1 } else { refused += 1 }
        }
        assert!(taken > 100 && refused > 100, "{taken} {refused}");
        assert_eq!(read(&vec![b'['; BYTES_MAX + 1]), Err(FileError::Long));
        assert!(read(&vec![b'['; BYTES_MAX]).is_err());
    }
}
