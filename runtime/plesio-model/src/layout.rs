//! Where each tensor of the base lies in its flat vector.
//!
//! Tensors that read the same input are neighbours, so that one product serves them: q, k, v; gate, up.

use crate::config::Config;
use core::ops::Range;
use plesio_kernels::network::VOCABULARY;

/// One block's tensors.
#[derive(Clone, Debug)]
pub(crate) struct LayerSpans {
    pub(crate) attention_norm: Range<usize>,
    /// q, k and v rows, one after the other: qkv_dim x dim.
    pub(crate) qkv: Range<usize>,
    /// dim x dim.
    pub(crate) o: Range<usize>,
    pub(crate) ff_norm: Range<usize>,
    /// gate rows, then up rows: 2 ff x dim.
    pub(crate) gate_up: Range<usize>,
    /// dim x ff.
    pub(crate) down: Range<usize>,
}

/// All tensors of the base, in file order.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) embedding: Range<usize>,
    pub(crate) layers: alloc::vec::Vec<LayerSpans>,
    pub(crate) norm: Range<usize>,
    pub(crate) head: Range<usize>,
}

impl Layout {
    /// The layout of a checked shape.
    pub(crate) fn new(config: &Config) -> Self {
        let mut end = 0;
        let mut take = |len: usize| {
            let start = end;
            end += len;
            start..end
        };
        let (dim, ff) = (config.dim, config.ff);
        let embedding = take(VOCABULARY * dim);
        let layers = (0..config.layers)
            .map(|_| LayerSpans {
                attention_norm: take(dim),
                qkv: take(config.qkv_dim() * dim),
                o: take(dim * dim),
                ff_norm: take(dim),
                gate_up: take(2 * ff * dim),
                down: take(dim * ff),
            })
            .collect();
        let norm = take(dim);
        let head = take(VOCABULARY * dim);
        Self { embedding, layers, norm, head }
    }

    /// Elements in all.
    pub(crate) fn len(&self) -> usize {
        self.head.end
    }
}
