//! Causal attention of every sequence and head, forward and backward, over rows of queries, keys and values.
//!
//! A row holds all query heads, then all key heads, then all value heads; a group of query heads shares one
//! key and one value head. Queries and keys arrive rotated.

use crate::config::Config;
use plesio_kernels::{Device, Mat, MatMut};

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

    /// Columns of one head in the rows of one sequence.
    fn head<'a>(self, rows: &'a [f32], first: usize, column: usize, width: usize) -> Mat<'a> {
        Mat::new(&rows[first + column..], self.context, self.head_dim, width)
    }

    fn head_mut<'a>(self, rows: &'a mut [f32], first: usize, column: usize, width: usize) -> MatMut<'a> {
        MatMut::new(&mut rows[first + column..], self.context, self.head_dim, width)
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
    for place in shape.places(sequences) {
        let scores = &mut probabilities[place.probabilities..place.probabilities + context * context];
        let query = shape.head(qkv, place.qkv, place.query, width);
        let key = shape.head(qkv, place.qkv, place.key, width);
        let value = shape.head(qkv, place.qkv, place.value, width);
        device.matmul(MatMut::dense(scores, context, context), query, key.transposed(), false);
        device.softmax_causal(scores, context, shape.scale);
        let out = shape.head_mut(out, place.out, place.query, heads * head_dim);
        device.matmul(out, Mat::dense(scores, context, context), value, false);
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
    let dscores = &mut dscores[..context * context];
    for (index, place) in shape.places(sequences).enumerate() {
        // The first head of a group writes the shared gradients, the others add.
        let add = !index.is_multiple_of(group);
        let weights = &probabilities[place.probabilities..place.probabilities + context * context];
        let query = shape.head(qkv, place.qkv, place.query, width);
        let key = shape.head(qkv, place.qkv, place.key, width);
        let value = shape.head(qkv, place.qkv, place.value, width);
        let dout = shape.head(dout, place.out, place.query, heads * head_dim);
        device.matmul(MatMut::dense(dscores, context, context), dout, value.transposed(), false);
        device.softmax_causal_backward(weights, dscores, context, shape.scale);
        let weights = Mat::dense(weights, context, context);
        let dscores = Mat::dense(dscores, context, context);
        let dvalue = shape.head_mut(dqkv, place.qkv, place.value, width);
        device.matmul(dvalue, weights.transposed(), dout, add);
        let dquery = shape.head_mut(dqkv, place.qkv, place.query, width);
        device.matmul(dquery, dscores, key, false);
        let dkey = shape.head_mut(dqkv, place.qkv, place.key, width);
        device.matmul(dkey, dscores.transposed(), query, add);
    }
}
