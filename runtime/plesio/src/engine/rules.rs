//! What a mesh decides by: numbers that a node may be told and that all nodes must be told alike.

use plesio_consensus::{Config, WeightMode};
use plesio_wire::digest::Hasher;

/// The rules of a mesh; [`Rules::default`] are those of a mesh that was told nothing. They are part of what nodes compare
/// before they work together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Rules {
    /// How much a contribution weighs.
    pub weights: WeightMode,
}

impl Rules {
    /// The agreement's part of them, put into its configuration.
    pub(super) fn apply(&self, config: Config) -> Config {
        config
    }

    /// What the agreement's own digest of parameters does not cover.
    pub(super) fn hash(&self, hasher: &mut Hasher) {
        hasher.update(&[self.weights.id()]);
    }
}
