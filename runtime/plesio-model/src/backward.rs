//! The backward pass: exact gradients of the base, or of the adapters on a frozen base.
//!
//! Follows the forward pass of the same tokens in the same workspace. Gradients are added to the sink.

use crate::adapter::{AdapterLayout, Group};
use crate::attention;
use crate::forward::Model;
use crate::workspace::Workspace;
use core::ops::Range;
use plesio_kernels::network::VOCABULARY;
use plesio_kernels::{Device, Mat, MatMut};

/// Whose gradients are wanted.
#[derive(Debug)]
pub(crate) enum Sink<'a> {
    /// Every weight of the base, in its layout.
    Base(&'a mut [f32]),
    /// Every factor of the adapters, in theirs, divided by the adapters' scale s.
    Adapter { layout: &'a AdapterLayout, params: &'a [f32], gradient: &'a mut [f32] },
}

/// A linear layer of the base and its adapters, for the sink.
struct Linear<'a> {
    weights: Range<usize>,
    group: Option<&'a Group>,
}

impl Sink<'_> {
    fn gain(&mut self, span: &Range<usize>) -> Option<&mut [f32]> {
        match self {
            Self::Base(gradient) => Some(&mut gradient[span.clone()]),
            Self::Adapter { .. } => None,
        }
    }

    /// Adds the gradient of a linear layer with input x and output gradient g.
    fn linear<D: Device>(
        &mut self,
        device: D,
        linear: Linear<'_>,
        x: &[f32],
        g: &[f32],
        d_in: usize,
        scratch: (&mut [f32], &mut [f32]),
    ) {
        let rows = x.len() / d_in;
        let d_out = g.len() / rows;
        let x = Mat::dense(x, rows, d_in);
        match self {
            Self::Base(gradient) => {
                let dw = MatMut::dense(&mut gradient[linear.weights], d_out, d_in);
                device.matmul(dw, Mat::dense(g, rows, d_out).transposed(), x, true);
            }
            Self::Adapter { layout, params, gradient } => {
                let Some(group) = linear.group else { return };
                let rank = layout.rank();
                let width = group.parts.len() * rank;
                let h = &mut scratch.0[..rows * width];
                let back = &mut scratch.1[..rows * width];
                device.lora_shrink(1.0, x, &params[group.a.clone()], MatMut::dense(h, rows, width));
                let mut column = 0;
                for (index, part) in group.parts.iter().enumerate() {
                    let g = Mat::new(&g[column..], rows, part.d_out, d_out);
                    let h = Mat::new(&h[index * rank..], rows, rank, width);
                    device.lora_outer(1.0, h, g, &mut gradient[part.b.clone()]);
                    let back = MatMut::new(&mut back[index * rank..], rows, rank, width);
                    device.lora_shrink(1.0, g, &params[part.b.clone()], back);
                    column += part.d_out;
                }
                device.lora_outer(1.0, Mat::dense(back, rows, width), x, &mut gradient[group.a.clone()]);
            }
        }
    }
}

/// `dx = g w`: what a linear layer hands down.
fn hand_down<D: Device>(device: D, g: &[f32], w: &[f32], d_in: usize, dx: &mut [f32]) {
    let d_out = w.len() / d_in;
    let rows = g.len() / d_out;
    let dx = MatMut::dense(dx, rows, d_in);
    device.matmul(dx, Mat::dense(g, rows, d_out), Mat::dense(w, d_out, d_in), false);
}

/// Adds to the sink the gradient of the loss of the last `forward` over `sequences` sequences.
pub(crate) fn backward<D: Device>(
    device: D,
    model: Model<'_>,
    sequences: usize,
    ws: &mut Workspace,
    mut sink: Sink<'_>,
) {
    let Model { config, layout, weights } = model;
    let (dim, ff, qkv_dim) = (config.dim, config.ff, config.qkv_dim());
    let n = sequences * ws.context;
    let shape = attention::Shape::new(config, ws.context);
    let trains_base = matches!(sink, Sink::Base(_));
    let dx = &mut ws.dx[..n * dim];
    let dnarrow = &mut ws.dnarrow[..n * dim];
    let row = &mut ws.row;

    let dlogits = &ws.logits[..n * VOCABULARY];
    let head = Linear { weights: layout.head.clone(), group: None };
    let scratch = (&mut ws.shrunk[..], &mut ws.shrunk_back[..]);
    sink.linear(device, head, &ws.head_in[..n * dim], dlogits, dim, scratch);
    hand_down(device, dlogits, &weights[layout.head.clone()], dim, dnarrow);
    dx.fill(0.0);
    let gain = &weights[layout.norm.clone()];
    let dgain = sink.gain(&layout.norm);
    device.rms_norm_backward(&ws.x[..n * dim], gain, &ws.inv_rms[..n], dnarrow, dx, dgain, row);

    for (index, (layer, saved)) in layout.layers.iter().zip(&ws.saved).enumerate().rev() {
        let groups = match &sink {
            Sink::Adapter { layout, .. } => Some(&layout.layers()[index]),
            Sink::Base(_) => None,
        };
        let mut grade = |linear: Range<usize>, group, x: &[f32], g: &[f32], d_in, sink: &mut Sink<'_>| {
            let scratch = (&mut ws.shrunk[..], &mut ws.shrunk_back[..]);
            sink.linear(device, Linear { weights: linear, group }, x, g, d_in, scratch);
        };

        let activated = &saved.activated[..n * ff];
        grade(layer.down.clone(), groups.map(|g| &g.down), activated, dx, ff, &mut sink);
        let dactivated = &mut ws.dactivated[..n * ff];
        hand_down(device, dx, &weights[layer.down.clone()], ff, dactivated);
        let dgate_up = &mut ws.dgate_up[..2 * n * ff];
        device.swiglu_backward(&saved.gate_up[..2 * n * ff], dactivated, ff, dgate_up);
        let input = &saved.ff_in[..n * dim];
        grade(layer.gate_up.clone(), groups.map(|g| &g.gate_up), input, dgate_up, dim, &mut sink);
        hand_down(device, dgate_up, &weights[layer.gate_up.clone()], dim, dnarrow);
        let gain = &weights[layer.ff_norm.clone()];
        let dgain = sink.gain(&layer.ff_norm);
        let inv_rms = &saved.ff_inv_rms[..n];
        device.rms_norm_backward(&saved.middle[..n * dim], gain, inv_rms, dnarrow, dx, dgain, row);

        let attended = &saved.attention_out[..n * dim];
        grade(layer.o.clone(), groups.map(|g| &g.o), attended, dx, dim, &mut sink);
        hand_down(device, dx, &weights[layer.o.clone()], dim, dnarrow);
        let (qkv, dqkv) = (&saved.qkv[..n * qkv_dim], &mut ws.dqkv[..n * qkv_dim]);
        let probabilities = &saved.probabilities;
        attention::backward(device, shape, sequences, qkv, probabilities, dnarrow, &mut ws.dscores, dqkv);
        device.rotate(dqkv, qkv_dim, config.heads + config.kv_heads, ws.rope.view(), true);
        let input = &saved.attention_in[..n * dim];
        grade(layer.qkv.clone(), groups.map(|g| &g.qkv), input, dqkv, dim, &mut sink);
        if index > 0 || trains_base {
            hand_down(device, dqkv, &weights[layer.qkv.clone()], dim, dnarrow);
            let gain = &weights[layer.attention_norm.clone()];
            let dgain = sink.gain(&layer.attention_norm);
            let inv_rms = &saved.attention_inv_rms[..n];
            device.rms_norm_backward(&saved.x[..n * dim], gain, inv_rms, dnarrow, dx, dgain, row);
        }
    }
    if let Sink::Base(gradient) = sink {
        let gradient = &mut gradient[layout.embedding.clone()];
        for (&byte, dx) in ws.inputs[..n].iter().zip(dx.chunks_exact(dim)) {
            let start = usize::from(byte) * dim;
            device.axpy(1.0, dx, &mut gradient[start..start + dim]);
        }
    }
}
