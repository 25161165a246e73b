//! Causal attention of every sequence and head, forward and backward, over rows of queries, keys and values.
//!
//! A row holds all query heads, then all key heads, then all value heads; a group of query heads shares one
//! key and one value head. Queries and keys arrive rotated.
//!
//! A position sees only those before it, so the products go by blocks of positions and leave out what no
//! position of a block can see.

use crate::config::Config;
use plesio_kernels::{Device, Mat, MatMut};

/// Positions whose products are done together. Smaller blocks leave out more and cost more calls.
const BLOCK: usize = 64;

/// The shape of one attention pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    context: usize,
    heads: usize,
    group: usize,
    head_dim: usize,
    width: usize,
    keys: usize,
    values: usize,
    scale: f32,
}

/// A head's place: first rows of its sequence and the columns of its parts.
struct Place {
    qkv: usize,
    out: usize,
    probabilities: usize,
    query: usize,
    key: usize,
    value: usize,
}

impl Shape {
    pub(crate) fn new(config: &Config, context: usize) -> Self {
        let head_dim = config.head_dim();
        Self {
            context,
            heads: config.heads,
            group: config.heads / config.kv_heads,
            head_dim,
            width: config.qkv_dim(),
            keys: config.dim,
            values: config.dim + config.kv_dim(),
            scale: 1.0 / libm::sqrtf(head_dim as f32),
        }
    }

    /// Every head of every sequence, heads of one group together.
    fn places(self, sequences: usize) -> impl Iterator<Item = Place> {
        let Self { context, heads, group, head_dim, width, keys, values, .. } = self;
        (0..sequences).flat_map(move |sequence| {
            (0..heads).map(move |head| Place {
                qkv: sequence * context * width,
                out: sequence * context * heads * head_dim,
                probabilities: (sequence * heads + head) * context * context,
                query: head * head_dim,
                key: keys + head / group * head_dim,
                value: values + head / group * head_dim,
            })
        })
    }

    /// Some rows and the columns of one head in one sequence.
    fn head<'a>(self, all: &'a [f32], first: usize, (start, end): (usize, usize), width: usize) -> Mat<'a> {
        Mat::new(&all[first + start * width..], end - start, self.head_dim, width)
    }

    fn head_mut<'a>(
        self,
        all: &'a mut [f32],
        first: usize,
        (start, end): (usize, usize),
        width: usize,
    ) -> MatMut<'a> {
        MatMut::new(&mut all[first + start * width..], end - start, self.head_dim, width)
    }

    /// Blocks of positions: the first of each and the one beyond its last.
    fn blocks(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.context).step_by(BLOCK).map(move |first| (first, self.context.min(first + BLOCK)))
    }
}

/// `out = softmax(q k^T / sqrt(head_dim)) v`, causal; keeps the weights in `probabilities`.
pub(crate) fn forward<D: Device>(
    device: D,
    shape: Shape,
    sequences: usize,
    qkv: &[f32],
    probabilities: &mut [f32],
    out: &mut [f32],
) {
    let Shape { context, heads, head_dim, width, .. } = shape;
    let square = context * context;
    for place in shape.places(sequences) {
        let scores = &mut probabilities[place.probabilities..place.probabilities + square];
        for (first, end) in shape.blocks() {
            let query = shape.head(qkv, place.qkv + place.query, (first, end), width);
            let key = shape.head(qkv, place.qkv + place.key, (0, end), width);
            let scores = MatMut::new(&mut scores[first * context..], end - first, end, context);
            device.matmul(scores, query, key.transposed(), false);
        }
        device.softmax_causal(scores, context, shape.scale);
        for (first, end) in shape.blocks() {
            let weights = Mat::new(&scores[first * context..], end - first, end, context);
            let value = shape.head(qkv, place.qkv + place.value, (0, end), width);
            let out = shape.head_mut(out, place.out + place.query, (first, end), heads * head_dim);
            device.matmul(out, weights, value, false);
        }
    }
}

/// The gradient of queries, keys and values from that of the output.
#[expect(clippy::too_many_arguments, reason = "one buffer for each term of the derivative")]
pub(crate) fn backward<D: Device>(
    device: D,
    shape: Shape,
    sequences: usize,
    qkv: &[f32],
    probabilities: &[f32],
    dout: &[f32],
    dscores: &mut [f32],
    dqkv: &mut [f32],
) {
    let Shape { context, heads, group, head_dim, width, .. } = shape;
    let square = context * context;
    let dscores = &mut dscores[..square];
    for (index, place) in shape.places(sequences).enumerate() {
        // The first head of a group writes the shared gradients, the others add.
        let add = !index.is_multiple_of(group);
        let weights = &probabilities[place.probabilities..place.probabilities + square];
        let (query, key, value) = (place.qkv + place.query, place.qkv + place.key, place.qkv + place.value);
        let dout = |rows| shape.head(dout, place.out + place.query, rows, heads * head_dim);
        for (first, end) in shape.blocks() {
            let seen = shape.head(qkv, value, (0, end), width).transposed();
            let dscores = MatMut::new(&mut dscores[first * context..], end - first, end, context);
            device.matmul(dscores, dout((first, end)), seen, false);
        }
        device.softmax_causal_backward(weights, dscores, context, shape.scale);
        for (first, end) in shape.blocks() {
            let rows = Mat::new(&dscores[first * context..], end - first, end, context);
            let dquery = shape.head_mut(dqkv, query, (first, end), width);
            device.matmul(dquery, rows, shape.head(qkv, key, (0, end), width), false);
            // A key is seen by its own block and by those after it.
            let seers = (first, context);
            let below = first * context + first;
            let seen = |scores| Mat::new(scores, context - first, end - first, context).transposed();
            let dkey = shape.head_mut(dqkv, key, (first, end), width);
            device.matmul(dkey, seen(&dscores[below..]), shape.head(qkv, query, seers, width), add);
            let dvalue = shape.head_mut(dqkv, value, (first, end), width);
            device.matmul(dvalue, seen(&weights[below..]), dout(seers), add);
        }
    }
}
