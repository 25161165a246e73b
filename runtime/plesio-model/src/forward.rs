//! The forward pass: bytes to loss, keeping what the backward pass needs when one follows.

use crate::attention;
use crate::config::Config;
use crate::layout::Layout;
use crate::workspace::Workspace;
use plesio_kernels::network::VOCABULARY;
use plesio_kernels::{Device, Mat, MatMut};

/// A model to run: its shape and its weights, adapters already folded in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model<'a> {
    pub(crate) config: &'a Config,
    pub(crate) layout: &'a Layout,
    pub(crate) weights: &'a [f32],
}

/// `out = x w^T`, or `out += x w^T`; weights are d_out x d_in.
fn linear<D: Device>(device: D, x: &[f32], w: &[f32], d_in: usize, out: &mut [f32], accumulate: bool) {
    let (rows, d_out) = (x.len() / d_in, w.len() / d_in);
    let w = Mat::dense(w, d_out, d_in).transposed();
    device.matmul(MatMut::dense(out, rows, d_out), Mat::dense(x, rows, d_in), w, accumulate);
}

/// What a forward pass is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// The loss alone: every block uses the buffers of the first, which then stay within the caches.
    Loss,
    /// The backward pass that follows: all is kept, and the logits become this times their gradient.
    Gradient(f32),
}

/// Runs rows of `context + 1` bytes. Returns the summed loss in nats.
pub(crate) fn forward<D: Device>(
    device: D,
    model: Model<'_>,
    tokens: &[u8],
    purpose: Purpose,
    ws: &mut Workspace,
) -> f64 {
    let Model { config, layout, weights } = model;
    let (dim, ff, epsilon) = (config.dim, config.ff, config.norm_epsilon);
    let qkv_dim = config.qkv_dim();
    let sequences = ws.take_tokens(tokens);
    let n = sequences * ws.context;
    let shape = attention::Shape::new(config, ws.context);

    let embedding = &weights[layout.embedding.clone()];
    for (&byte, row) in ws.inputs[..n].iter().zip(ws.saved[0].x.chunks_exact_mut(dim)) {
        let start = usize::from(byte) * dim;
        row.copy_from_slice(&embedding[start..start + dim]);
    }
    for (index, layer) in layout.layers.iter().enumerate() {
        let place = if matches!(purpose, Purpose::Loss) { 0 } else { index };
        let (saved, above) = ws.saved[place..].split_first_mut().expect("one saved block per layer");
        let next = match (purpose, above.first_mut()) {
            (Purpose::Gradient(_), Some(above)) => &mut above.x,
            _ => &mut ws.x,
        };
        let x = &saved.x[..n * dim];

        let input = &mut saved.attention_in[..n * dim];
        let gain = &weights[layer.attention_norm.clone()];
        device.rms_norm(x, gain, epsilon, input, &mut saved.attention_inv_rms[..n]);
        let qkv = &mut saved.qkv[..n * qkv_dim];
        linear(device, input, &weights[layer.qkv.clone()], dim, qkv, false);
        device.rotate(qkv, qkv_dim, config.heads + config.kv_heads, ws.rope.view(), false);
        let attended = &mut saved.attention_out[..n * dim];
        let probabilities = &mut saved.probabilities;
        attention::forward(device, shape, sequences, qkv, probabilities, attended);
        let middle = &mut saved.middle[..n * dim];
        middle.copy_from_slice(x);
        linear(device, attended, &weights[layer.o.clone()], dim, middle, true);

        let input = &mut saved.ff_in[..n * dim];
        device.rms_norm(middle, &weights[layer.ff_norm.clone()], epsilon, input, &mut saved.ff_inv_rms[..n]);
        let gate_up = &mut saved.gate_up[..2 * n * ff];
        linear(device, input, &weights[layer.gate_up.clone()], dim, gate_up, false);
        let activated = &mut saved.activated[..n * ff];
        device.swiglu(gate_up, ff, activated);
        let stream = &mut next[..n * dim];
        stream.copy_from_slice(middle);
        linear(device, activated, &weights[layer.down.clone()], ff, stream, true);
        if matches!(purpose, Purpose::Loss) && index + 1 < config.layers {
            core::mem::swap(&mut saved.x, next);
        }
    }
    let input = &mut ws.head_in[..n * dim];
    let gain = &weights[layout.norm.clone()];
    device.rms_norm(&ws.x[..n * dim], gain, epsilon, input, &mut ws.inv_rms[..n]);
    let logits = &mut ws.logits[..n * VOCABULARY];
    linear(device, input, &weights[layout.head.clone()], dim, logits, false);
    match purpose {
        Purpose::Loss => device.cross_entropy_loss(logits, &ws.targets[..n]),
        Purpose::Gradient(scale) => device.cross_entropy(logits, &ws.targets[..n], scale),
    }
}
