//! The scalar reference device: the definition of every kernel's bits.
//!
//! Slow on purpose: its fused multiply-add is software. Tests compare every other device with it.

use crate::arithmetic::{Soft, Store};
use crate::codec::{Codec, Coding, Encoded};
use crate::device::Device;
use crate::error::KernelError;
use crate::lora::{Adapter, Gradients, Lora, grouped, half};
use crate::matrix::{Mat, MatMut};
use crate::network::Rope;
use crate::optimiser::{AdamW, AdamWState};
use crate::outer::Nesterov;
use crate::q8::{self, Q8};
use crate::robust::{self, Robust};
use crate::slot::{Merged, Quantised, Scale};
use crate::{aggregate, codec, lora, network, norm, optimiser, outer, product, slot, sparse, vector, vote};

/// The definition, on any target.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reference;

impl Device for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn matmul(&self, mut c: MatMut<'_>, a: Mat<'_>, b: Mat<'_>, accumulate: bool) {
        assert!(a.rows() == c.rows() && b.cols() == c.cols() && a.cols() == b.rows(), "matmul shapes");
        for i in 0..c.rows() {
            for (j, c) in c.row_mut(i).iter_mut().enumerate() {
                let mut sum = if accumulate { *c } else { 0.0 };
                for k in 0..a.cols() {
                    sum += a.at(i, k) * b.at(k, j);
                }
                *c = sum;
            }
        }
    }

    fn dot(&self, x: &[f32], y: &[f32]) -> f32 {
        vector::dot::<Soft>(x, y)
    }
    fn axpy(&self, alpha: f32, x: &[f32], y: &mut [f32]) {
        vector::axpy::<Soft>(alpha, x, y)
    }
    fn scale(&self, alpha: f32, x: &mut [f32]) {
        vector::scale(alpha, x)
    }
    fn rms_norm(&self, x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32], inv_rms: &mut [f32]) {
        network::rms_norm::<Soft>(x, gain, epsilon, y, inv_rms)
    }
    fn rms_norm_backward(
        &self,
        x: &[f32],
        gain: &[f32],
        inv_rms: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        dgain: Option<&mut [f32]>,
        scratch: &mut [f32],
    ) {
        network::rms_norm_backward::<Soft>(x, gain, inv_rms, dy, dx, dgain, scratch)
    }
    fn rotate(&self, x: &mut [f32], width: usize, heads: usize, rope: Rope<'_>, inverse: bool) {
        network::rotate::<Soft>(x, width, heads, rope, inverse)
    }
    fn softmax_causal(&self, scores: &mut [f32], len: usize, scale: f32) {
        network::softmax_causal::<Soft>(scores, len, scale)
    }
    fn softmax_causal_backward(&self, weights: &[f32], gradient: &mut [f32], len: usize, scale: f32) {
        network::softmax_causal_backward::<Soft>(weights, gradient, len, scale)
    }
    fn swiglu(&self, gate_up: &[f32], width: usize, out: &mut [f32]) {
        network::swiglu::<Soft>(gate_up, width, out)
    }
    fn swiglu_backward(&self, gate_up: &[f32], dout: &[f32], width: usize, dgate_up: &mut [f32]) {
        network::swiglu_backward::<Soft>(gate_up, dout, width, dgate_up)
    }
    fn cross_entropy(&self, logits: &mut [f32], targets: &[u8], scale: f32) -> f64 {
        network::cross_entropy::<Soft>(logits, targets, scale)
    }
    fn cross_entropy_loss(&self, logits: &mut [f32], targets: &[u8]) -> f64 {
        network::cross_entropy_loss::<Soft>(logits, targets)
    }
    fn lora_shrink(&self, scale: f32, x: Mat<'_>, factors: &[f32], out: MatMut<'_>) {
        lora::shrink::<Soft>(scale, x, factors, out)
    }
    fn lora_outer(&self, scale: f32, coefficients: Mat<'_>, x: Mat<'_>, out: &mut [f32]) {
        lora::outer::<Soft>(scale, coefficients, x, out)
    }
    fn lora_forward(
        &self,
        lora: Lora<'_>,
        x: &[f32],
        h: &mut [f32],
        y: &mut [f32],
    ) -> Result<(), KernelError> {
        lora::forward::<Soft>(lora, x, h, y)
    }
    fn lora_backward(
        &self,
        lora: Lora<'_>,
        x: &[f32],
        g: &[f32],
        h: &mut [f32],
        gradients: Gradients<'_>,
    ) -> Result<(), KernelError> {
        lora::backward::<Soft>(lora, x, g, h, gradients)
    }
    fn lora_fold(&self, lora: Lora<'_>, weights: &[f32], merged: &mut [f32]) -> Result<(), KernelError> {
        lora::fold_into::<Soft>(lora, weights, merged)
    }
    fn adamw(
        &self,
        settings: AdamW,
        state: AdamWState<'_>,
        gradient_scale: f32,
        gradient: &[f32],
        params: &mut [f32],
    ) {
        optimiser::adamw::<Soft>(settings, state, gradient_scale, gradient, params)
    }
    fn quantise(
        &self,
        update: &[f32],
        residue: &mut [f32],
        scale: Scale,
        slot: &mut [i32],
    ) -> Result<Quantised, KernelError> {
        slot::quantise(update, residue, scale, slot)
    }
    fn quantise_residue(
        &self,
        residue: &mut [f32],
        scale: Scale,
        slot: &mut [i32],
    ) -> Result<Quantised, KernelError> {
        slot::quantise_residue(residue, scale, slot)
    }
    fn dequantise(&self, slot: &[i32], scale: Scale, out: &mut [f32]) -> Result<(), KernelError> {
        slot::dequantise(slot, scale, out)
    }
    fn slot_sum(&self, weights: &[u32], slots: &[&[i32]], sum: &mut [i64]) -> Result<(), KernelError> {
        slot::slot_sum::<Soft>(weights, slots, sum, Store::Cached)
    }
    fn apply(&self, master: &mut [i64], sum: &[i64]) -> Result<(), KernelError> {
        slot::apply(master, sum)
    }
    fn apply_nesterov(
        &self,
        factors: Nesterov,
        master: &mut [i64],
        momentum: &mut [i64],
        sum: &[i64],
    ) -> Result<(), KernelError> {
        outer::apply_nesterov(factors, master, momentum, sum)
    }
    fn commit(&self, weights: &[u32], slots: &[&[i32]], master: &mut [i64]) -> Result<(), KernelError> {
        slot::commit::<Soft>(weights, slots, master)
    }
    fn to_float(&self, master: &[i64], scale: Scale, out: &mut [f32]) -> Result<(), KernelError> {
        slot::to_float(master, scale, out)
    }
    fn merge(
        &self,
        into: &mut [i32],
        from: &[i32],
        scale: Scale,
        residue: &mut [f32],
    ) -> Result<Merged, KernelError> {
        slot::merge(into, from, scale, residue)
    }
    fn encode(
        &self,
        coding: Coding,
        input: &[f32],
        residue: Option<&mut [f32]>,
        out: &mut [u8],
    ) -> Result<Encoded, KernelError> {
        codec::encode(coding, input, residue, out)
    }
    fn decode(&self, codec: Codec, codes: &[u8], out: &mut [f32]) -> Result<(), KernelError> {
        codec::decode(codec, codes, out)
    }
    fn decode_add(&self, codec: Codec, codes: &[u8], sum: &mut [f32]) -> Result<(), KernelError> {
        codec::decode_add(codec, codes, sum)
    }
    fn encode_slot(&self, coding: Coding, slot: &[i32], out: &mut [u8]) -> Result<(), KernelError> {
        codec::encode_slot(coding, slot, out)
    }
    fn decode_slot(&self, codec: Codec, codes: &[u8], slot: &mut [i32]) -> Result<(), KernelError> {
        codec::decode_slot(codec, codes, slot)
    }
    fn coded_sum(
        &self,
        codec: Codec,
        weights: &[u32],
        slots: &[&[u8]],
        sum: &mut [i64],
    ) -> Result<(), KernelError> {
        codec::coded_sum(codec, weights, slots, sum)
    }
    fn weighted_sum(&self, weights: &[f32], inputs: &[&[f32]], out: &mut [f32]) -> Result<f64, KernelError> {
        aggregate::weighted_sum::<Soft>(weights, inputs, out)
    }
    fn weighted_sum_bf16(
        &self,
        weights: &[f32],
        inputs: &[&[u16]],
        out: &mut [f32],
    ) -> Result<f64, KernelError> {
        aggregate::weighted_sum_bf16::<Soft>(weights, inputs, out)
    }
    fn square_norms(&self, inputs: &[&[f32]], norms: &mut [f64]) -> Result<(), KernelError> {
        norm::square_norms::<Soft>(inputs, norms)
    }
    fn robust(&self, rule: Robust, inputs: &[&[f32]], out: &mut [f32]) -> Result<(), KernelError> {
        robust::robust::<Soft>(rule, inputs, out, Store::Cached)
    }
    fn top_k(
        &self,
        x: &[f32],
        count: usize,
        indices: &mut [u32],
        values: &mut [f32],
    ) -> Result<(), KernelError> {
        sparse::top_k(x, count, indices, values)
    }
    fn sign_pack(&self, x: &[f32], words: &mut [u32]) -> Result<(), KernelError> {
        vote::sign_pack(x, words)
    }
    fn sign_vote(&self, votes: &[&[u32]], out: &mut [u32]) -> Result<(), KernelError> {
        vote::sign_vote(votes, out)
    }
    fn lora_forward_bf16(
        &self,
        adapter: Adapter<'_>,
        x: &[u16],
        h: &mut [f32],
        y: &mut [u16],
    ) -> Result<(), KernelError> {
        half::lora_forward_bf16::<Soft>(adapter, x, h, y)
    }
    fn lora_backward_bf16(
        &self,
        adapter: Adapter<'_>,
        x: &[u16],
        g: &[u16],
        h: &mut [f32],
        gradients: Gradients<'_, u16>,
    ) -> Result<(), KernelError> {
        half::lora_backward_bf16::<Soft>(adapter, x, g, h, gradients)
    }
    fn lora_grouped(
        &self,
        adapters: &[Adapter<'_>],
        which: &[u32],
        x: &[u16],
        y: &mut [u16],
    ) -> Result<(), KernelError> {
        grouped::lora_grouped::<Soft>(adapters, which, x, y)
    }
    fn quantise_q8(
        &self,
        input: &[f32],
        residue: &mut [f32],
        codes: &mut [i8],
        scales: &mut [u16],
    ) -> Result<Encoded, KernelError> {
        q8::quantise_q8(input, residue, codes, scales)
    }
    fn dequantise_q8(&self, coded: Q8<'_>, out: &mut [f32]) -> Result<(), KernelError> {
        q8::dequantise_q8(coded, out)
    }
    fn weighted_sum_q8(
        &self,
        weights: &[f32],
        inputs: &[Q8<'_>],
        out: &mut [f32],
    ) -> Result<f64, KernelError> {
        q8::weighted_sum_q8::<Soft>(weights, inputs, out)
    }
    fn product_q8(
        &self,
        weights: Q8<'_>,
        x: &[u16],
        adapter: Option<Adapter<'_>>,
        y: &mut [f32],
    ) -> Result<(), KernelError> {
        product::product_q8::<Soft>(weights, x, adapter, y)
    }
}
