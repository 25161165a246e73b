//! What a mesh decides by: numbers that a node may be told and that all nodes must be told alike.

use plesio_consensus::{Config, Lambda, WeightMode};
use plesio_kernels::Outer;
use plesio_phase::{Corrector, CorrectorConfig};
use plesio_wire::Instant;
use plesio_wire::digest::Hasher;

/// The rules of a mesh; [`Rules::default`] are those of a mesh that was told nothing. They are part of what nodes compare
/// before they work together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// How much a contribution weighs.
    pub weights: WeightMode,
    /// What each version of staleness leaves of that; all.
    pub lambda: Lambda,
    /// What a version's sum does to the state.
    pub outer: Outer,
    /// Most versions that a contribution may lag; 4, of 2 to 64.
    pub tau: u64,
    /// Contributions above so many times the median norm per step wait; 8, of 2 and more.
    pub kappa: u32,
    /// Silence after which a member is excluded, nanoseconds; a second, of 0.6 to 60.
    pub t_dead_ns: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            weights: WeightMode::Mass,
            lambda: Lambda::ONE,
            outer: Outer::Sum,
            tau: 4,
            kappa: 8,
            t_dead_ns: 1_000_000_000,
        }
    }
}

impl Rules {
    /// Whether every number is in its range.
    ///
    /// # Errors
    /// Name, value and range of the first that is not.
    pub fn check(&self) -> Result<(), String> {
        let ranges = [
            ("tau", self.tau, 2, 64),
            ("kappa", u64::from(self.kappa), 2, u64::from(u32::MAX)),
            ("t_dead_ns", self.t_dead_ns, 600_000_000, 60_000_000_000),
        ];
        match ranges.into_iter().find(|(_, value, low, high)| !(low..=high).contains(&value)) {
            Some((name, value, low, high)) => Err(format!("{name} is {value}; it must be {low} to {high}")),
            None => Ok(()),
        }
    }

    /// The agreement's part of them, put into its configuration.
    pub(super) fn apply(&self, config: Config) -> Config {
        let (lambda, tau, kappa, t_dead_ns) = (self.lambda, self.tau, self.kappa, self.t_dead_ns);
        Config { lambda, tau, kappa, t_dead_ns, ..config }
    }

    /// What the agreement's own digest of parameters does not cover.
    pub(super) fn hash(&self, hasher: &mut Hasher) {
        hasher.update(&[self.weights.id()]);
        hasher.update(&self.outer_word().to_le_bytes());
    }

    /// The outer step as one number; 0 for the sum.
    pub(super) fn outer_word(&self) -> u64 {
        match self.outer {
            Outer::Sum => 0,
            Outer::Nesterov(factors) => u64::from(factors.mu16()) << 32 | u64::from(factors.eta16()),
        }
    }
}

/// How a node keeps its contributions in time: its own affair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steering {
    /// Smallest margin that is left alone, frames; 0.05.
    pub lo: f64,
    /// Largest margin that is left alone, frames; 0.30, at least 0.1 above `lo`, at most 1.
    pub hi: f64,
    /// Contributions in a row before it acts; 2, of 1 to 64.
    pub dwell: u32,
}

impl Default for Steering {
    fn default() -> Self {
        let CorrectorConfig { lo, hi, dwell, .. } = CorrectorConfig::default();
        Self { lo, hi, dwell }
    }
}

impl Steering {
    /// Whether every number is in its range.
    ///
    /// # Errors
    /// Name, value and range of the first that is not.
    pub fn check(&self) -> Result<(), String> {
        let config = self.corrector(CorrectorConfig::default());
        Corrector::new(Instant(0), config).map(drop).map_err(|error| error.to_string())
    }

    pub(super) fn corrector(&self, config: CorrectorConfig) -> CorrectorConfig {
        CorrectorConfig { lo: self.lo, hi: self.hi, dwell: self.dwell, ..config }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_refused_with_name_value_and_range() {
        let (whole, steering) = (Rules::default(), Steering::default());
        assert_eq!((whole.check(), steering.check()), (Ok(()), Ok(())));
        for (rules, words) in [
            (Rules { tau: 1, ..whole }, "tau is 1; it must be 2 to 64"),
            (Rules { tau: 65, ..whole }, "tau is 65"),
            (Rules { kappa: 1, ..whole }, "kappa is 1; it must be 2 to 4294967295"),
            (Rules { t_dead_ns: 1, ..whole }, "t_dead_ns is 1; it must be 600000000 to 60000000000"),
        ] {
            let error = rules.check().unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        for steering in [
            Steering { lo: -0.1, ..steering },
            Steering { hi: 1.1, ..steering },
            Steering { lo: 0.25, ..steering },
            Steering { lo: f64::NAN, ..steering },
            Steering { dwell: 0, ..steering },
            Steering { dwell: 65, ..steering },
        ] {
            assert!(steering.check().is_err(), "{steering:?}");
        }
    }
}
