//! Every buffer of a training step, allocated once.
//!
//! A workspace serves up to `sequences` sequences at a time; a larger batch runs through it in turns, which
//! keeps the activations inside the caches.

use crate::config::Config;
use alloc::vec;
use alloc::vec::Vec;
use plesio_kernels::Rope;
use plesio_kernels::network::VOCABULARY;

/// What one block keeps for its backward pass; all by token rows.
#[derive(Debug)]
pub(crate) struct Saved {
    /// The stream before the block.
    pub(crate) x: Vec<f32>,
    pub(crate) attention_inv_rms: Vec<f32>,
    pub(crate) attention_in: Vec<f32>,
    /// Rotated queries and keys, then values.
    pub(crate) qkv: Vec<f32>,
    /// Attention weights: context x context for each sequence and head.
    pub(crate) probabilities: Vec<f32>,
    pub(crate) attention_out: Vec<f32>,
    /// The stream between attention and the gated layer.
    pub(crate) middle: Vec<f32>,
    pub(crate) ff_inv_rms: Vec<f32>,
    pub(crate) ff_in: Vec<f32>,
    pub(crate) gate_up: Vec<f32>,
    pub(crate) activated: Vec<f32>,
}

/// Cosines and sines of every position.
#[derive(Debug)]
pub(crate) struct RopeTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl RopeTable {
    pub(crate) fn view(&self) -> Rope<'_> {
        Rope { cos: &self.cos, sin: &self.sin, half: self.half }
    }
}

/// The buffers of a pass over at most `sequences` sequences of `context` bytes.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) sequences: usize,
    pub(crate) context: usize,
    pub(crate) saved: Vec<Saved>,
    /// The stream after the last block.
    pub(crate) x: Vec<f32>,
    pub(crate) inv_rms: Vec<f32>,
    pub(crate) head_in: Vec<f32>,
    /// Logits, then their gradient.
    pub(crate) logits: Vec<f32>,
    pub(crate) inputs: Vec<u8>,
    pub(crate) targets: Vec<u8>,
    // Gradients that flow down.
    pub(crate) dx: Vec<f32>,
    pub(crate) dnarrow: Vec<f32>,
    pub(crate) dqkv: Vec<f32>,
    pub(crate) dgate_up: Vec<f32>,
    pub(crate) dactivated: Vec<f32>,
    /// Attention-weight gradients of one sequence and head.
    pub(crate) dscores: Vec<f32>,
    pub(crate) row: Vec<f32>,
    /// A x and s B^T g of one group of adapters.
    pub(crate) shrunk: Vec<f32>,
    pub(crate) shrunk_back: Vec<f32>,
    pub(crate) rope: RopeTable,
}

/// Most adapters that read one input: q, k and v.
const GROUP_PARTS_MAX: usize = 3;

impl Workspace {
    /// Allocates for a checked shape; `rank` 0 when no adapter is trained.
    pub(crate) fn new(config: &Config, sequences: usize, context: usize, rank: usize) -> Self {
        let tokens = sequences * context;
        let zeros = |width: usize| vec![0.0f32; tokens * width];
        let (dim, ff, qkv) = (config.dim, config.ff, config.qkv_dim());
        let saved = (0..config.layers)
            .map(|_| Saved {
                x: zeros(dim),
                attention_inv_rms: zeros(1),
                attention_in: zeros(dim),
                qkv: zeros(qkv),
                probabilities: zeros(config.heads * context),
                attention_out: zeros(dim),
                middle: zeros(dim),
                ff_inv_rms: zeros(1),
                ff_in: zeros(dim),
                gate_up: zeros(2 * ff),
                activated: zeros(ff),
            })
            .collect();
        let half = config.head_dim() / 2;
        let angle = |position: usize, i: usize| {
            let exponent = -(i as f64) / half as f64;
            position as f64 * libm::pow(f64::from(config.rope_theta), exponent)
        };
        let table = |f: fn(f64) -> f64| {
            let rows = (0..context).flat_map(|t| (0..half).map(move |i| (t, i)));
            rows.map(|(t, i)| f(angle(t, i)) as f32).collect()
        };
        Self {
            sequences,
            context,
            saved,
            x: zeros(dim),
            inv_rms: zeros(1),
            head_in: zeros(dim),
            logits: zeros(VOCABULARY),
            inputs: vec![0; tokens],
            targets: vec![0; tokens],
            dx: zeros(dim),
            dnarrow: zeros(dim),
            dqkv: zeros(qkv),
            dgate_up: zeros(2 * ff),
            dactivated: zeros(ff),
            dscores: vec![0.0; context * context],
            row: vec![0.0; dim],
            shrunk: zeros(GROUP_PARTS_MAX * rank),
            shrunk_back: zeros(GROUP_PARTS_MAX * rank),
            rope: RopeTable { cos: table(libm::cos), sin: table(libm::sin), half },
        }
    }

    /// Splits rows of `context + 1` bytes into inputs and targets; returns how many sequences there are.
    pub(crate) fn take_tokens(&mut self, tokens: &[u8]) -> usize {
        let width = self.context + 1;
        let sequences = tokens.len() / width;
        assert!(
            sequences <= self.sequences && sequences * width == tokens.len(),
            "rows beyond the workspace"
        );
        let inputs = self.inputs.chunks_exact_mut(self.context);
        for ((row, inputs), targets) in
            tokens.chunks_exact(width).zip(inputs).zip(self.targets.chunks_exact_mut(self.context))
        {
            inputs.copy_from_slice(&row[..width - 1]);
            targets.copy_from_slice(&row[1..]);
        }
        sequences
    }
}
