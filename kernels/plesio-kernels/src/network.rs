//! The transformer's row-wise kernels: norm, rotary positions, causal softmax, SwiGLU, cross-entropy.
//!
//! Each forward kernel stands beside its exact derivative. Rows are contiguous; a row's sums run in the
//! 64-lane order.

use crate::arithmetic::Arithmetic;
use crate::vector::{dot, exp, max, sum};

/// Symbols of the byte-level vocabulary.
pub const VOCABULARY: usize = 256;

/// `y = x * inv_rms * gain` by rows of `gain.len()`; keeps each row's `1 / sqrt(mean(x^2) + epsilon)`.
#[inline(always)]
pub fn rms_norm<F: Arithmetic>(x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32], inv_rms: &mut [f32]) {
    let width = gain.len();
    assert!(x.len() == y.len() && x.len() == inv_rms.len() * width, "rms_norm shapes");
    for ((x, y), inv_rms) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(inv_rms) {
        let mean = dot::<F>(x, x) / width as f32;
        *inv_rms = 1.0 / F::sqrt(mean + epsilon);
        for ((y, &x), &gain) in y.iter_mut().zip(x).zip(gain) {
            *y = x * *inv_rms * gain;
        }
    }
}

/// Adds the input's gradient to `dx` and, when asked, the gain's to `dgain`.
#[inline(always)]
pub fn rms_norm_backward<F: Arithmetic>(
    x: &[f32],
    gain: &[f32],
    inv_rms: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    mut dgain: Option<&mut [f32]>,
    scratch: &mut [f32],
) {
    let width = gain.len();
    assert!(
        x.len() == dy.len() && x.len() == dx.len() && x.len() == inv_rms.len() * width,
        "rms_norm shapes"
    );
    let scratch = &mut scratch[..width];
    for (((x, dy), dx), &inv_rms) in
        x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)).zip(inv_rms)
    {
        if let Some(dgain) = dgain.as_deref_mut() {
            for ((dgain, &dy), &x) in dgain.iter_mut().zip(dy).zip(x) {
                *dgain = F::fused(dy, x * inv_rms, *dgain);
            }
        }
        for ((scratch, &dy), &gain) in scratch.iter_mut().zip(dy).zip(gain) {
            *scratch = dy * gain;
        }
        let share = dot::<F>(scratch, x) * inv_rms * inv_rms * inv_rms / width as f32;
        for ((dx, &scratch), &x) in dx.iter_mut().zip(&*scratch).zip(x) {
            *dx = F::fused(-share, x, F::fused(inv_rms, scratch, *dx));
        }
    }
}

/// Cosines and sines of the rotary positions: `half` angles for each position.
#[derive(Clone, Copy, Debug)]
pub struct Rope<'a> {
    /// `positions x half` cosines.
    pub cos: &'a [f32],
    /// `positions x half` sines.
    pub sin: &'a [f32],
    /// Half of a head's width: element i of a head turns with element i + half.
    pub half: usize,
}

/// Rotates the first `heads` heads of each row of `width` elements in place; row t stands at position
/// t mod positions. `inverse` turns back, which is also the derivative.
#[inline(always)]
pub fn rotate<F: Arithmetic>(x: &mut [f32], width: usize, heads: usize, rope: Rope<'_>, inverse: bool) {
    let half = rope.half;
    assert!(rope.cos.len() == rope.sin.len() && x.len().is_multiple_of(width), "rope shapes");
    assert!(heads * 2 * half <= width, "rope heads exceed the row");
    let mut angles = rope.cos.chunks_exact(half).zip(rope.sin.chunks_exact(half)).cycle();
    for row in x.chunks_exact_mut(width) {
        let (cos, sin) = angles.next().expect("a rope has at least one position");
        for head in row[..heads * 2 * half].chunks_exact_mut(2 * half) {
            let (low, high) = head.split_at_mut(half);
            for (((low, high), &cos), &sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                let sin = if inverse { -sin } else { sin };
                let (a, b) = (*low, *high);
                *low = F::fused(a, cos, -(b * sin));
                *high = F::fused(b, cos, a * sin);
            }
        }
    }
}

/// Elements handled as one vector where a row's length varies; what lies beyond the row is zeroed after.
const STRIDE: usize = 16;

/// Turns raw scores into attention weights in place: row t of each `len x len` block sees columns 0..=t.
#[inline(always)]
pub fn softmax_causal<F: Arithmetic>(scores: &mut [f32], len: usize, scale: f32) {
    assert!(scores.len().is_multiple_of(len * len), "softmax shapes");
    for (row_index, row) in scores.chunks_exact_mut(len).enumerate() {
        let seen = row_index % len + 1;
        // Whole vectors: a scalar remainder would cost more than the rest. What is hidden adds exact zeros.
        let padded = seen.next_multiple_of(STRIDE).min(len);
        let (row, hidden) = row.split_at_mut(padded);
        hidden.fill(0.0);
        row[seen..].fill(f32::NEG_INFINITY);
        let shift = -max(row) * scale;
        let (blocks, tail) = row.as_chunks_mut::<STRIDE>();
        for block in blocks {
            for score in block {
                *score = exp::<F>(F::fused(*score, scale, shift));
            }
        }
        for score in tail {
            *score = exp::<F>(F::fused(*score, scale, shift));
        }
        row[seen..].fill(0.0);
        let inverse = 1.0 / sum(row);
        for score in row {
            *score *= inverse;
        }
    }
}

/// Turns the gradient of the attention weights into that of the raw scores, in place.
#[inline(always)]
pub fn softmax_causal_backward<F: Arithmetic>(weights: &[f32], gradient: &mut [f32], len: usize, scale: f32) {
    assert!(weights.len() == gradient.len() && weights.len().is_multiple_of(len * len), "softmax shapes");
    for (row_index, (weights, gradient)) in
        weights.chunks_exact(len).zip(gradient.chunks_exact_mut(len)).enumerate()
    {
        let seen = row_index % len + 1;
        gradient[seen..].fill(0.0);
        let padded = seen.next_multiple_of(STRIDE).min(len);
        let (weights, gradient) = (&weights[..padded], &mut gradient[..padded]);
        let mean = dot::<F>(weights, gradient);
        for (gradient, &weight) in gradient.iter_mut().zip(weights) {
            // A weight of zero keeps what is hidden at zero.
            *gradient = (*gradient - mean) * (weight * scale);
        }
    }
}

/// `out = silu(gate) * up` by rows; a row of `gate_up` is `width` gates, then `width` ups.
#[inline(always)]
pub fn swiglu<F: Arithmetic>(gate_up: &[f32], width: usize, out: &mut [f32]) {
    assert!(gate_up.len() == 2 * out.len() && out.len().is_multiple_of(width), "swiglu shapes");
    for (gate_up, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
        let (gate, up) = gate_up.split_at(width);
        for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate / (1.0 + exp::<F>(-gate)) * up;
        }
    }
}

/// The gradient of gates and ups from that of the output.
#[inline(always)]
pub fn swiglu_backward<F: Arithmetic>(gate_up: &[f32], dout: &[f32], width: usize, dgate_up: &mut [f32]) {
    assert!(gate_up.len() == 2 * dout.len() && gate_up.len() == dgate_up.len(), "swiglu shapes");
    for ((gate_up, dout), dgate_up) in gate_up
        .chunks_exact(2 * width)
        .zip(dout.chunks_exact(width))
        .zip(dgate_up.chunks_exact_mut(2 * width))
    {
        let (gate, up) = gate_up.split_at(width);
        let (dgate, dup) = dgate_up.split_at_mut(width);
        for ((((&gate, &up), &dout), dgate), dup) in gate.iter().zip(up).zip(dout).zip(dgate).zip(dup) {
            let sigmoid = 1.0 / (1.0 + exp::<F>(-gate));
            let silu = gate * sigmoid;
            *dup = dout * silu;
            // silu' = sigmoid + silu (1 - sigmoid)
            *dgate = dout * up * F::fused(silu, 1.0 - sigmoid, sigmoid);
        }
    }
}

/// Cross-entropy of byte targets in nats: returns the sum over rows, leaves `scale` times its gradient in
/// `logits`.
#[inline(always)]
pub fn cross_entropy<F: Arithmetic>(logits: &mut [f32], targets: &[u8], scale: f32) -> f64 {
    assert_eq!(logits.len(), targets.len() * VOCABULARY, "cross_entropy shapes");
    let mut loss = 0.0f64;
    let (rows, _) = logits.as_chunks_mut::<VOCABULARY>();
    for (row, &target) in rows.iter_mut().zip(targets) {
        let (nats, total) = exponentials::<F>(row, target);
        loss += nats;
        let share = scale / total;
        for logit in &mut *row {
            *logit *= share;
        }
        row[usize::from(target)] -= scale;
    }
    loss
}

/// The same sum without a gradient; what is left in `logits` has no meaning.
#[inline(always)]
pub fn cross_entropy_loss<F: Arithmetic>(logits: &mut [f32], targets: &[u8]) -> f64 {
    assert_eq!(logits.len(), targets.len() * VOCABULARY, "cross_entropy shapes");
    let (rows, _) = logits.as_chunks_mut::<VOCABULARY>();
    rows.iter_mut().zip(targets).map(|(row, &target)| exponentials::<F>(row, target).0).sum()
}

/// Turns a row of logits into exponentials; the row's loss, and what the exponentials add up to.
#[inline(always)]
fn exponentials<F: Arithmetic>(row: &mut [f32; VOCABULARY], target: u8) -> (f64, f32) {
    let max = max(row);
    let aim = row[usize::from(target)];
    for logit in &mut *row {
        *logit = exp::<F>(*logit - max);
    }
    let total = sum(row);
    (f64::from(libm::logf(total)) + f64::from(max) - f64::from(aim), total)
}
