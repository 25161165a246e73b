//! The texts and the base model that come inside the program, so that a demo needs no file.

use super::plan::SHARDS;
use super::protocol::Work;
use plesio_model::{Base, ModelError, split_held_out};
use std::sync::Arc;

/// Every twelfth block of a text is held out: 8 % that nobody trains on, from all over the text.
const HELD_OUT_BLOCK_BYTES: usize = 2048;
const HELD_OUT_EVERY: usize = 12;

/// Name of the base model in the exported adapter.
pub(crate) const BASE_NAME: &str = "plesio/first-light-byte-0.8m";

const BASE_CONFIG: &[u8] = include_bytes!("../../data/base/config.json");
const BASE_WEIGHTS: &[u8] = include_bytes!("../../data/base/model.safetensors");

/// Names and texts, in an order that gives small meshes the most unlike ones.
const TEXTS: [(&str, &[u8]); SHARDS] = [
    ("scripture", include_bytes!("../../data/shards/scripture.txt")),
    ("spanish", include_bytes!("../../data/shards/spanish.txt")),
    ("header", include_bytes!("../../data/shards/header.txt")),
    ("hackers", include_bytes!("../../data/shards/hackers.txt")),
    ("zones", include_bytes!("../../data/shards/zones.txt")),
    ("greek", include_bytes!("../../data/shards/greek.txt")),
    ("satire", include_bytes!("../../data/shards/satire.txt")),
    ("topics", include_bytes!("../../data/shards/topics.txt")),
];

/// What one member trains on, and what it never sees.
pub(crate) struct Split {
    pub(crate) train: Vec<u8>,
    pub(crate) held_out: Vec<u8>,
}

/// Loads the frozen base.
pub(crate) fn base() -> Result<Arc<Base>, ModelError> {
    Base::load(BASE_CONFIG, BASE_WEIGHTS).map(Arc::new)
}

/// Names the base and how it is trained: members must agree on it.
pub(crate) fn base_digest() -> plesio_wire::Digest {
    plesio_wire::Digest::of(BASE_WEIGHTS)
}

/// The name of a member's text.
pub(crate) fn shard_name(shard: u8) -> &'static str {
    TEXTS[usize::from(shard) % SHARDS].0
}

/// A whole text.
pub(crate) fn whole(shard: u8) -> &'static [u8] {
    TEXTS[usize::from(shard) % SHARDS].1
}

/// A member's part of its text, split.
pub(crate) fn split(work: Work) -> Split {
    let (_, text) = TEXTS[usize::from(work.shard) % SHARDS];
    let parts = usize::from(work.parts.max(1));
    let part = usize::from(work.part).min(parts - 1);
    let start = text.len() * part / parts;
    let end = text.len() * (part + 1) / parts;
    let (train, held_out) = split_held_out(&text[start..end], HELD_OUT_BLOCK_BYTES, HELD_OUT_EVERY);
    Split { train, held_out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_text_to_train_and_text_to_hold_out() {
        for shard in 0..SHARDS as u8 {
            for part in 0..3 {
                let split = split(Work { shard, part, parts: 3, sampler_seed: 0 });
                assert!(split.train.len() > 30_000, "{} {}", shard_name(shard), split.train.len());
                let share = split.held_out.len() as f64 / (split.train.len() + split.held_out.len()) as f64;
                assert!((0.05..=0.1).contains(&share), "{} holds out {share}", shard_name(shard));
            }
        }
    }

    #[test]
    fn the_base_is_the_one_the_recipe_describes() {
        let base = base().expect("the base in the tree loads");
        assert!((700_000..1_000_000).contains(&base.parameter_count()), "{}", base.parameter_count());
        assert!(BASE_WEIGHTS.len() <= 2 << 20);
    }
}
