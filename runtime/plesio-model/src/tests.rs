//! Laws of the whole model, on the reference device.

mod files;
mod gradients;
mod training;

use crate::Config;

/// A model small enough for the scalar reference.
fn small() -> Config {
    Config { dim: 24, layers: 2, heads: 4, kv_heads: 2, ff: 40, context: 12, ..Config::default() }
}

/// Rows of `context + 1` bytes that no two positions share.
fn tokens(rows: usize, context: usize) -> Vec<u8> {
    (0..rows * (context + 1)).map(|i| (i * 37 % 101 + i / 7) as u8).collect()
}
