//! What to simulate, checked.

use crate::fault::{Fault, FaultSet};
use crate::impair::{ImpairError, Impairment};
use crate::learning::{ELEMENTS, Learning};
use crate::profile::Profile;
use crate::script::{self, Strike};

use plesio::{Codec, Period, Rules, Sharing};
use plesio_wire::MEMBERS_MAX;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// What to simulate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SimConfig {
    /// Nodes of the first view, 1 to 32; joiners come on top as far as there is room. Default 8.
    pub nodes: u8,
    /// One mesh per seed. Default 0..200.
    pub seeds: Range<u64>,
    /// What may go wrong; every seed draws some kinds of it. Default all.
    pub faults: FaultSet,
    /// What is wrong with every link until nothing breaks any more; faults come on top. Default nothing.
    pub links: Impairment,
    /// The kind of network, and the frame period that suits it, for the whole run; none: drawn. Default none.
    pub profile: Option<Profile>,
    /// Correctors have their two thresholds and their dwell; without, whatever is not in the middle moves something.
    /// Default true.
    pub hysteresis: bool,
    /// Virtual time per seed, seconds, 10 to 3,600; nothing breaks in the last six. Default 20.
    pub simulated_s: u32,
    /// Seeds that run side by side; the report does not depend on it. Default 2.
    pub threads: usize,
    /// How slots travel. Default as they are.
    pub codec: Codec,
    /// Who sums how much. Default by rate, as nodes do.
    pub sharing: Sharing,
    /// What versions are decided by. Default as nodes do.
    pub rules: Rules,
    /// What the hosts' own lines carry, in turn; none: whatever comes. Default none.
    pub lines: Vec<Line>,
    /// Elements of the state; none: a few, drawn. Default none.
    pub elements: Option<u64>,
    /// Nodes claim of their speeds whatever comes to their minds, and something else every few seconds: shares change all
    /// the time. Default false.
    pub claims: bool,
    /// Every node keeps a disk: what it knew of views and a state of every few versions outlive its process. Default false.
    pub disks: bool,
    /// What strikes whom, and when; none: drawn from `faults`. With a script every seed meets the same faults, and `faults` says
    /// nothing. Default none.
    pub script: Option<Vec<Strike>>,
    /// Frame period at the start, nanoseconds, 50 ms to 60 s; none: drawn, as the ways between the hosts are. Default none.
    pub period_ns: Option<u64>,
    /// No frame is shorter than this, nanoseconds; none: than at the start. Default none.
    pub period_min_ns: Option<u64>,
    /// Nor longer than this, nanoseconds; none: 60 s. Where the period is drawn, a range that it is not in begins with it.
    /// Default none.
    pub period_max_ns: Option<u64>,
    /// Workers really learn that, and what comes of it is in [`crate::SeedReport::study`]; none: their steps are numbers that
    /// mean nothing. Default none.
    pub learning: Option<Arc<Learning>>,
    /// How long the steps of the hosts take, nanoseconds, 1 ms to 10 s, in turn; none: drawn. Default none.
    pub steps_ns: Vec<u64>,
    /// How much faster than true time the hosts' clocks run, parts per billion, within 1,000,000, in turn; none: drawn.
    /// Default none.
    pub rates_ppb: Vec<i64>,
    /// Slots of every ring: 2, 4, 8 or 16; none: drawn. Default none.
    pub ring_depth: Option<u8>,
    /// What the mesh clock of every fourth node is ahead, and of another fourth behind, unknown to them, in thousandths of a
    /// frame, 0 to 8,000: how far convergence bears it. Default 0.
    pub clock_error_millis: u32,
    /// Keep a line for whatever happens, in [`crate::SeedReport::story`]. Default false.
    pub story: bool,
    /// Keep what the nodes say, in [`crate::SeedReport::happened`]. Default false.
    pub trace: bool,
}

/// What the way between a host and everybody else carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Line {
    /// Bytes of datagrams per second that it sends, 1 at least.
    pub up_bytes_per_s: u64,
    /// Bytes of datagrams per second that it receives, 1 at least.
    pub down_bytes_per_s: u64,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            nodes: 8,
            seeds: 0..200,
            faults: FaultSet::ALL,
            links: Impairment::default(),
            profile: None,
            hysteresis: true,
            simulated_s: 20,
            threads: 2,
            codec: Codec::Full,
            sharing: Sharing::Rate,
            rules: Rules::default(),
            lines: Vec::new(),
            elements: None,
            claims: false,
            disks: false,
            script: None,
            period_ns: None,
            period_min_ns: None,
            period_max_ns: None,
            learning: None,
            steps_ns: Vec::new(),
            rates_ppb: Vec::new(),
            ring_depth: None,
            clock_error_millis: 0,
            story: false,
            trace: false,
        }
    }
}

impl SimConfig {
    /// What becomes of a period that is this at first.
    pub(crate) fn period(&self, first_ns: u64) -> Period {
        let whole = Period::of(first_ns);
        let min_ns = self.period_min_ns.map_or(whole.min_ns, |min_ns| min_ns.min(first_ns));
        let max_ns = self.period_max_ns.map_or(whole.max_ns, |max_ns| max_ns.max(first_ns));
        Period { min_ns, max_ns, ..whole }
    }

    /// Whether every field is in its range.
    ///
    /// # Errors
    /// The first one that is not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let range = |name, value: u64, low, high| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::Range { name, value, low, high })
            }
        };
        range("nodes", u64::from(self.nodes), 1, MEMBERS_MAX as u64)?;
        range("simulated seconds", u64::from(self.simulated_s), 10, 3_600)?;
        range("elements", self.elements.unwrap_or(1), 1, 1 << 20)?;
        if self.learning.is_some() {
            range(
                "elements of what is learnt",
                self.elements.unwrap_or(ELEMENTS as u64),
                ELEMENTS as u64,
                ELEMENTS as u64,
            )?;
        }
        for step_ns in &self.steps_ns {
            range("step in nanoseconds", *step_ns, 1_000_000, 10_000_000_000)?;
        }
        for rate_ppb in &self.rates_ppb {
            range("clock error in parts per billion", rate_ppb.unsigned_abs(), 0, 1_000_000)?;
        }
        for line in &self.lines {
            range("bytes per second of a line", line.up_bytes_per_s.min(line.down_bytes_per_s), 1, u64::MAX)?;
        }
        range("thousandths of a frame of clock error", u64::from(self.clock_error_millis), 0, 8_000)?;
        range("threads", self.threads as u64, 1, 256)?;
        range("number of seeds", self.seeds.end.saturating_sub(self.seeds.start), 1, 1_000_000)?;
        let bounds = [
            ("frame period in nanoseconds", self.period_ns, Period::SHORTEST_NS, Period::LONGEST_NS),
            (
                "shortest frame period in nanoseconds",
                self.period_min_ns,
                Period::SHORTEST_NS,
                self.period_ns.or(self.period_max_ns).unwrap_or(Period::LONGEST_NS),
            ),
            (
                "longest frame period in nanoseconds",
                self.period_max_ns,
                self.period_ns.or(self.period_min_ns).unwrap_or(Period::SHORTEST_NS),
                Period::LONGEST_NS,
            ),
        ];
        for (name, value, low, high) in bounds {
            range(name, value.unwrap_or(low), low, high)?;
        }
        let depth = u64::from(self.ring_depth.unwrap_or(2));
        range("ring depth", depth, 2, 16)?;
        if !depth.is_power_of_two() {
            return Err(ConfigError::Script(format!("ring depth {depth} is not 2, 4, 8 or 16")));
        }
        if let Some(script) = &self.script {
            script::check(script, self.nodes, self.simulated_s).map_err(ConfigError::Script)?;
        }
        self.rules.check().map_err(ConfigError::Rules)?;
        self.links.check().map_err(ConfigError::Links)
    }
}

/// Why a simulation cannot be run as asked.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number outside its range.
    Range {
        /// Which.
        name: &'static str,
        /// What it is.
        value: u64,
        /// Smallest allowed.
        low: u64,
        /// Largest allowed.
        high: u64,
    },
    /// A rule of the mesh outside its range; the words say which.
    Rules(String),
    /// No fault of that name.
    Fault(String),
    /// Nothing can strike like that, or no mesh can be like that; the words say what.
    Script(String),
    /// No link can be like that.
    Links(ImpairError),
    /// The system gives no thread to run it; the words say why.
    Threads(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { name, value, low, high } if name.ends_with(IN_NANOSECONDS) => {
                let name = name.trim_end_matches(IN_NANOSECONDS);
                let [value, low, high] = [value, low, high].map(|ns| *ns as f64 / 1e6);
                write!(f, "{name} {value} ms is out of range; choose {low} to {high} ms")
            }
            Self::Range { name, value, low, high } => {
                write!(f, "{name} {value} is out of range; choose {low} to {high}")
            }
            Self::Rules(error) | Self::Script(error) => f.write_str(error),
            Self::Links(error) => write!(f, "{error}"),
            Self::Threads(cause) => write!(f, "no thread: {cause}"),
            Self::Fault(name) => {
                let names: Vec<&str> = Fault::every().map(Fault::name).collect();
                write!(f, "no fault is called {name:?}; the names are all, none, {}", names.join(", "))
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// Names of times end so, and they are told in milliseconds.
const IN_NANOSECONDS: &str = " in nanoseconds";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_kept() {
        assert_eq!(SimConfig::default().check(), Ok(()));
        for bad in [
            SimConfig { nodes: 0, ..SimConfig::default() },
            SimConfig { nodes: 33, ..SimConfig::default() },
            SimConfig { seeds: 5..5, ..SimConfig::default() },
            SimConfig { simulated_s: 9, ..SimConfig::default() },
            SimConfig { threads: 0, ..SimConfig::default() },
            SimConfig { period_ns: Some(49_999_999), ..SimConfig::default() },
            SimConfig {
                period_ns: Some(250_000_000),
                period_min_ns: Some(250_000_001),
                ..SimConfig::default()
            },
            SimConfig {
                period_ns: Some(250_000_000),
                period_max_ns: Some(249_999_999),
                ..SimConfig::default()
            },
            SimConfig { period_min_ns: Some(1), ..SimConfig::default() },
            SimConfig {
                period_min_ns: Some(250_000_000),
                period_max_ns: Some(249_999_999),
                ..SimConfig::default()
            },
            SimConfig { ring_depth: Some(6), ..SimConfig::default() },
            SimConfig { ring_depth: Some(32), ..SimConfig::default() },
        ] {
            assert!(bad.check().is_err());
        }
    }
}
