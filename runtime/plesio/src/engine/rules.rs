//! What a mesh decides by: numbers that a node may be told and that all nodes must be told alike.

use plesio_consensus::{Config, Lambda, WeightMode};
use plesio_wire::digest::Hasher;

/// The rules of a mesh; [`Rules::default`] are those of a mesh that was told nothing. They are part of what nodes compare
/// before they work together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// How much a contribution weighs.
    pub weights: WeightMode,
    /// What each version of staleness leaves of that; all.
    pub lambda: Lambda,
}

impl Default for Rules {
    fn default() -> Self {
        Self { weights: WeightMode::Mass, lambda: Lambda::ONE }
    }
}

impl Rules {
    /// The agreement's part of them, put into its configuration.
    pub(super) fn apply(&self, config: Config) -> Config {
        Config { lambda: self.lambda, ..config }
    }

    /// What the agreement's own digest of parameters does not cover.
    pub(super) fn hash(&self, hasher: &mut Hasher) {
        hasher.update(&[self.weights.id()]);
    }
}
