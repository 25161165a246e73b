//! What a node is told at its start, and the ranges that are refused.

use crate::period;
use crate::weights::{Lambda, WeightMode};
use core::fmt;
use plesio_collective::Work;
use plesio_wire::shares::SharesError;
use plesio_wire::value::View;
use plesio_wire::{Frame, Incarnation, NodeKey};

/// Parameters of one node. Those in [`Config::common`] must be the same on all members: `tau` decides which slots may
/// be listed and when a stale one may be folded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// This node.
    pub me: NodeKey,
    /// 64 random bits drawn at process start.
    pub incarnation: Incarnation,
    /// Most versions a slot's base may lie behind; 4.
    pub tau: u64,
    /// What each version of staleness leaves of a weight; all.
    pub lambda: Lambda,
    /// Slots of the elastic ring; 4.
    pub ring_depth: u8,
    /// Spreads polls of different nodes over time.
    pub seed: u64,
    /// Silence after which a member is excluded, nanoseconds; one second.
    pub t_dead_ns: u64,
    /// 99th percentile of the sideband's round trip, nanoseconds; 20 ms.
    pub rtt_p99_ns: u64,
    /// NORM guard: slots above this times the frame's median norm per step wait; 8.
    pub kappa: u32,
    /// How long before a close the whole HAVE list is repeated, nanoseconds; 10 ms.
    pub have_lead_ns: u64,
    /// Most joiners registered at once; 4.
    pub observers_max: u8,
    /// What a version shares out among its owners, for the views that this node proposes; none: equal parts.
    pub sharing: Option<Work>,
    /// After this long without the wanted G another source is asked, nanoseconds; 2 s.
    pub fetch_retry_ns: u64,
}

impl Config {
    /// The defaults for node `me`.
    #[must_use]
    pub const fn new(me: NodeKey, incarnation: Incarnation) -> Self {
        Self {
            me,
            incarnation,
            tau: 4,
            lambda: Lambda::ONE,
            ring_depth: 4,
            seed: 0,
            t_dead_ns: 1_000_000_000,
            rtt_p99_ns: 20_000_000,
            kappa: 8,
            have_lead_ns: 10_000_000,
            observers_max: 4,
            sharing: None,
            fetch_retry_ns: 2_000_000_000,
        }
    }

    /// What the digest of a mesh's parameters covers: every member must decide by the same.
    #[must_use]
    pub const fn common(&self) -> [u64; 5] {
        let lambda = self.lambda.q24() as u64;
        [self.tau, self.ring_depth as u64, self.t_dead_ns, self.kappa as u64, lambda]
    }

    /// What values are judged by beside the log.
    pub(crate) const fn terms(&self) -> Terms {
        Terms { tau: self.tau, lambda: self.lambda }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let ranges: [(&'static str, u64, u64, u64); 7] = [
            ("kappa", u64::from(self.kappa), 2, u64::from(u32::MAX)),
            ("tau", self.tau, 2, 64),
            ("ring_depth", u64::from(self.ring_depth), 2, 16),
            ("t_dead_ns", self.t_dead_ns, 10_000_000, 600_000_000_000),
            ("rtt_p99_ns", self.rtt_p99_ns, 1, 10_000_000_000),
            ("have_lead_ns", self.have_lead_ns, 0, 10_000_000_000),
            ("fetch_retry_ns", self.fetch_retry_ns, 10_000_000, 600_000_000_000),
        ];
        for (name, value, min, max) in ranges {
            if value < min || value > max {
                return Err(ConfigError::Range { name, value, min, max });
            }
        }
        Ok(())
    }
}

/// What decides, beside the log, whether a value is valid: the same at all members.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) tau: u64,
    pub(crate) lambda: Lambda,
}

/// What a node knows when it starts.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "built once per process")]
pub enum Start {
    /// The VIEW at log index 0, the same on all its members: number 0, origin frame 0.
    Genesis(View),
    /// Nothing, until a snapshot is handed in.
    Observer,
}

/// Why a configuration is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number outside its range.
    Range {
        /// The field.
        name: &'static str,
        /// What it was.
        value: u64,
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// The genesis view breaks a rule; the words say which.
    Genesis(&'static str),
    /// The genesis view breaks a rule of shares.
    Shares(SharesError),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { name, value, min, max } => {
                write!(
                    f,
                    "consensus configuration: {name} = {value} is outside {min}..={max}; choose a value inside"
                )
            }
            Self::Shares(error) => {
                write!(f, "genesis view: {error}; hand every node the same corrected roster")
            }
            Self::Genesis(rule) => {
                write!(f, "genesis view: {rule}; hand every node the same corrected roster")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

/// Shortest frame period, microseconds.
pub(crate) const PERIOD_US_MIN: u32 = 50_000;
/// Longest frame period, microseconds.
pub(crate) const PERIOD_US_MAX: u32 = 60_000_000;

pub(crate) fn check_genesis(view: &View) -> Result<(), ConfigError> {
    let broken = ConfigError::Genesis;
    if view.members.is_empty() {
        return Err(broken("it has no member"));
    }
    if !view.members.windows(2).all(|pair| pair[0].key < pair[1].key) {
        return Err(broken("members are not sorted by key or not unique"));
    }
    if view.number != 0 || view.origin.0 != 0 {
        return Err(broken("number and origin must be 0"));
    }
    if !period::is_sound(view) || (view.anchor, view.anchor_close) != (Frame(0), 0) {
        return Err(broken("the frame period, or what it may become, is outside 0.05 s to 60 s"));
    }
    WeightMode::from_id(view.weight_mode)?;
    if view.elements == 0 {
        return Err(broken("it has no elements to train"));
    }
    view.check_shares().map_err(ConfigError::Shares)?;
    Ok(())
}
