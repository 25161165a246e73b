//! What to simulate, checked, and the names of the faults.

use crate::impair::{ImpairError, Impairment};
use plesio::{Codec, Sharing};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// What goes wrong. The first nine concern links, the rest hosts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Fault {
    /// Datagrams vanish, each for itself, up to three in ten.
    Loss,
    /// A link is silent for tens to hundreds of milliseconds, again and again.
    Burst,
    /// A path becomes longer.
    Delay,
    /// Every datagram takes a time of its own; the order stays.
    Jitter,
    /// Datagrams overtake each other.
    Reorder,
    /// Datagrams come twice, the copy up to 300 ms later.
    Duplicate,
    /// Bits flip, ends are cut off or added: every such datagram must be dropped.
    Corrupt,
    /// One direction between two hosts, or all directions into or out of one, is dead.
    OneWay,
    /// The hosts fall into two groups that do not hear each other.
    Partition,
    /// A process dies without a word; mostly another one is started in its place.
    Crash,
    /// A process stands still for 0.2 to 3 s and does not know.
    Pause,
    /// A host's clock changes its rate by up to 500 ppm.
    Clock,
    /// A host works several times slower.
    Slow,
    /// A new node comes.
    Join,
    /// A node goes in good order.
    Leave,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Loss,
        Self::Burst,
        Self::Delay,
        Self::Jitter,
        Self::Reorder,
        Self::Duplicate,
        Self::Corrupt,
        Self::OneWay,
        Self::Partition,
        Self::Crash,
        Self::Pause,
        Self::Clock,
        Self::Slow,
        Self::Join,
        Self::Leave,
    ];

    /// As on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Burst => "burst",
            Self::Delay => "delay",
            Self::Jitter => "jitter",
            Self::Reorder => "reorder",
            Self::Duplicate => "duplicate",
            Self::Corrupt => "corrupt",
            Self::OneWay => "one-way",
            Self::Partition => "partition",
            Self::Crash => "crash",
            Self::Pause => "pause",
            Self::Clock => "clock",
            Self::Slow => "slow",
            Self::Join => "join",
            Self::Leave => "leave",
        }
    }
}

/// Kinds of faults that a run may draw from: `all`, `none`, or names with commas between them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FaultSet(u16);

impl FaultSet {
    /// Nothing goes wrong.
    pub const NONE: Self = Self(0);
    /// Everything may.
    pub const ALL: Self = Self((1 << Fault::ALL.len()) - 1);

    /// Adds a kind.
    pub const fn insert(&mut self, fault: Fault) {
        self.0 |= 1 << fault as u8;
    }

    /// Whether a kind is in it.
    #[must_use]
    pub const fn contains(self, fault: Fault) -> bool {
        self.0 & 1 << fault as u8 != 0
    }

    /// How many kinds.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether nothing may go wrong.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kinds, in the order of [`Fault::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |fault| self.contains(*fault))
    }
}

impl FromStr for FaultSet {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text {
            "all" => return Ok(Self::ALL),
            "none" => return Ok(Self::NONE),
            _ => {}
        }
        let mut set = Self::NONE;
        for name in text.split(',') {
            let fault = Fault::ALL.into_iter().find(|fault| fault.name() == name.trim());
            set.insert(fault.ok_or_else(|| ConfigError::Fault(name.trim().to_string()))?);
        }
        Ok(set)
    }
}

impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (at, fault) in self.iter().enumerate() {
            write!(f, "{}{}", if at > 0 { "," } else { "" }, fault.name())?;
        }
        Ok(())
    }
}

/// What to simulate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SimConfig {
    /// Nodes of the first view, 1 to 24; joiners come on top. Default 8.
    pub nodes: u8,
    /// One mesh per seed. Default 0..200.
    pub seeds: Range<u64>,
    /// What may go wrong; every seed draws some kinds of it. Default all.
    pub faults: FaultSet,
    /// What is wrong with every link until nothing breaks any more; faults come on top. Default nothing.
    pub links: Impairment,
    /// Virtual time per seed, seconds, 10 to 3,600; nothing breaks in the last six. Default 20.
    pub simulated_s: u32,
    /// Seeds that run side by side; the report does not depend on it. Default 2.
    pub threads: usize,
    /// How slots travel. Default as they are.
    pub codec: Codec,
    /// Who sums how much. Default by rate, as nodes do.
    pub sharing: Sharing,
    /// What the hosts' own lines carry, in turn; none: whatever comes. Default none.
    pub lines: Vec<Line>,
    /// Elements of the state; none: a few, drawn. Default none.
    pub elements: Option<u64>,
    /// Nodes claim of their speeds whatever comes to their minds, and something else every few seconds: shares change all
    /// the time. Default false.
    pub claims: bool,
    /// Keep a line for whatever happens, in [`crate::SeedReport::story`]. Default false.
    pub story: bool,
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
            simulated_s: 20,
            threads: 2,
            codec: Codec::Full,
            sharing: Sharing::Rate,
            lines: Vec::new(),
            elements: None,
            claims: false,
            story: false,
        }
    }
}

impl SimConfig {
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
        range("nodes", u64::from(self.nodes), 1, 24)?;
        range("simulated seconds", u64::from(self.simulated_s), 10, 3_600)?;
        range("elements", self.elements.unwrap_or(1), 1, 1 << 20)?;
        for line in &self.lines {
            range("bytes per second of a line", line.up_bytes_per_s.min(line.down_bytes_per_s), 1, u64::MAX)?;
        }
        range("threads", self.threads as u64, 1, 256)?;
        range("number of seeds", self.seeds.end.saturating_sub(self.seeds.start), 1, 1_000_000)?;
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
    /// No fault of that name.
    Fault(String),
    /// No link can be like that.
    Links(ImpairError),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { name, value, low, high } => {
                write!(f, "{name} {value} is out of range; choose {low} to {high}")
            }
            Self::Links(error) => write!(f, "{error}"),
            Self::Fault(name) => write!(f, "no fault is called {name:?}; the names are {}", FaultSet::ALL),
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_sets_are_read_and_written() {
        assert_eq!("all".parse(), Ok(FaultSet::ALL));
        assert_eq!("none".parse(), Ok(FaultSet::NONE));
        let set: FaultSet = "crash, loss".parse().unwrap();
        assert_eq!((set.to_string().as_str(), set.len()), ("loss,crash", 2));
        assert_eq!(FaultSet::ALL.to_string().parse(), Ok(FaultSet::ALL));
        let error = "loss,fire".parse::<FaultSet>().unwrap_err();
        assert!(error.to_string().contains("\"fire\"") && error.to_string().contains("one-way"));
        assert!("".parse::<FaultSet>().is_err());
    }

    #[test]
    fn ranges_are_kept() {
        assert_eq!(SimConfig::default().check(), Ok(()));
        for bad in [
            SimConfig { nodes: 0, ..SimConfig::default() },
            SimConfig { nodes: 25, ..SimConfig::default() },
            SimConfig { seeds: 5..5, ..SimConfig::default() },
            SimConfig { simulated_s: 9, ..SimConfig::default() },
            SimConfig { threads: 0, ..SimConfig::default() },
        ] {
            assert!(bad.check().is_err());
        }
    }
}
