//! The words of the corrector: states, transitions, settings and their ranges.

use plesio_wire::sideband::state;

/// State of a member, as its beats carry it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum State {
    /// No clock lock or no state yet.
    Acquire = state::ACQUIRE,
    /// Margins inside the band.
    Locked = state::LOCKED,
    /// The corrector is acting.
    Strained = state::STRAINED,
    /// Slots fold or are refused; work goes on.
    Slipping = state::SLIPPING,
    /// The clock runs on its last rate.
    Holdover = state::HOLDOVER,
    /// Fetching the state.
    Resync = state::RESYNC,
    /// Not in the quorum.
    Detached = state::DETACHED,
}

impl State {
    /// The byte in BEAT.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// As the text writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acquire => "ACQUIRE",
            Self::Locked => "LOCKED",
            Self::Strained => "STRAINED",
            Self::Slipping => "SLIPPING",
            Self::Holdover => "HOLDOVER",
            Self::Resync => "RESYNC",
            Self::Detached => "DETACHED",
        }
    }
}

impl core::fmt::Display for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// A change of state; every one belongs into the trace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transition {
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
}

/// Settings of the corrector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CorrectorConfig {
    /// Frame period P; 0.05 to 60 s.
    pub period_ns: u64,
    /// Smallest margin that is left alone, frames; 0 to 1.
    pub lo: f64,
    /// Largest margin that is left alone, frames; at least 0.1 above `lo`.
    pub hi: f64,
    /// Slots in a row before it acts; 1 to 64. The early side waits four times as long.
    pub dwell: u32,
    /// tau: versions a slot may lag; 2 to 64.
    pub staleness_max: u64,
    /// B: slots of the ring; 2 to 16.
    pub ring_depth: u8,
    /// `T_dead`: how long without a quorum before the member is detached.
    pub dead_ns: u64,
}

impl Default for CorrectorConfig {
    fn default() -> Self {
        Self {
            period_ns: 500_000_000,
            lo: 0.05,
            hi: 0.30,
            dwell: 2,
            staleness_max: 4,
            ring_depth: 4,
            dead_ns: 1_000_000_000,
        }
    }
}

impl CorrectorConfig {
    /// Whether every setting is in its range.
    ///
    /// # Errors
    /// The first one that is not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Self { period_ns, lo, hi, dwell, staleness_max, ring_depth, dead_ns: _ } = *self;
        if !(50_000_000..=60_000_000_000).contains(&period_ns) {
            return Err(ConfigError::Period { period_ns });
        }
        // 0.1 has no exact float: allow for its rounding. NaN fails every comparison.
        if !(lo >= 0.0 && hi <= 1.0 && hi - lo >= 0.1 - 1e-9) {
            return Err(ConfigError::Band { lo, hi });
        }
        if !(1..=64).contains(&dwell) {
            return Err(ConfigError::Dwell { dwell });
        }
        if !(2..=64).contains(&staleness_max) {
            return Err(ConfigError::Staleness { staleness_max });
        }
        if !(2..=16).contains(&ring_depth) {
            return Err(ConfigError::Depth { ring_depth });
        }
        Ok(())
    }
}

/// A setting out of its range.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// Frame period outside 0.05..60 s.
    Period {
        /// The value.
        period_ns: u64,
    },
    /// Not 0 <= lo < hi <= 1 with hi - lo >= 0.1.
    Band {
        /// The lower value.
        lo: f64,
        /// The upper value.
        hi: f64,
    },
    /// Dwell outside 1..64 slots.
    Dwell {
        /// The value.
        dwell: u32,
    },
    /// tau outside 2..64 versions.
    Staleness {
        /// The value.
        staleness_max: u64,
    },
    /// Ring depth outside 2..16.
    Depth {
        /// The value.
        ring_depth: u8,
    },
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Period { period_ns } => {
                write!(f, "frame period {period_ns} ns is outside 0.05..60 s; choose one inside")
            }
            Self::Band { lo, hi } => {
                write!(f, "margin band {lo}..{hi}: 0 <= lo < hi <= 1 and hi - lo >= 0.1 must hold; widen it")
            }
            Self::Dwell { dwell } => write!(f, "dwell {dwell} is outside 1..64 slots; choose one inside"),
            Self::Staleness { staleness_max } => {
                write!(f, "tau {staleness_max} is outside 2..64 versions; choose one inside")
            }
            Self::Depth { ring_depth } => {
                write!(f, "ring depth {ring_depth} is outside 2..16; choose one inside")
            }
        }
    }
}

impl core::error::Error for ConfigError {}
