//! The seam between the mathematics and the machine that does it.
//!
//! Every implementation except of [`Device::matmul`] gives the bits of the scalar reference; the base product
//! is left to a library and promises only float accuracy.

use crate::codec::{Codec, Coding, Encoded};
use crate::error::KernelError;
use crate::lora::{Adapter, Gradients, Lora};
use crate::matrix::{Mat, MatMut};
use crate::network::Rope;
use crate::optimiser::{AdamW, AdamWState};
use crate::outer::Nesterov;
use crate::q8::Q8;
use crate::robust::Robust;
use crate::slot::{Merged, Quantised, Scale};

/// A machine that runs the kernels: the scalar reference, the CPU's vectors, an accelerator.
pub trait Device: Copy + Send + Sync + 'static {
    /// Short name for reports.
    fn name(&self) -> &'static str;

    /// `c = a b`, or `c += a b` when `accumulate`.
    fn matmul(&self, c: MatMut<'_>, a: Mat<'_>, b: Mat<'_>, accumulate: bool);

    /// See [`crate::vector::dot`].
    fn dot(&self, x: &[f32], y: &[f32]) -> f32;
    /// See [`crate::vector::axpy`].
    fn axpy(&self, alpha: f32, x: &[f32], y: &mut [f32]);
    /// See [`crate::vector::scale`].
    fn scale(&self, alpha: f32, x: &mut [f32]);

    /// See [`crate::network::rms_norm`].
    fn rms_norm(&self, x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32], inv_rms: &mut [f32]);
    /// See [`crate::network::rms_norm_backward`].
    #[expect(clippy::too_many_arguments, reason = "one buffer for each term of the derivative")]
    fn rms_norm_backward(
        &self,
        x: &[f32],
        gain: &[f32],
        inv_rms: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        dgain: Option<&mut [f32]>,
        scratch: &mut [f32],
    );
    /// See [`crate::network::rotate`].
    fn rotate(&self, x: &mut [f32], width: usize, heads: usize, rope: Rope<'_>, inverse: bool);
    /// See [`crate::network::softmax_causal`].
    fn softmax_causal(&self, scores: &mut [f32], len: usize, scale: f32);
    /// See [`crate::network::softmax_causal_backward`].
    fn softmax_causal_backward(&self, weights: &[f32], gradient: &mut [f32], len: usize, scale: f32);
    /// See [`crate::network::swiglu`].
    fn swiglu(&self, gate_up: &[f32], width: usize, out: &mut [f32]);
    /// See [`crate::network::swiglu_backward`].
    fn swiglu_backward(&self, gate_up: &[f32], dout: &[f32], width: usize, dgate_up: &mut [f32]);
    /// See [`crate::network::cross_entropy`].
    fn cross_entropy(&self, logits: &mut [f32], targets: &[u8], scale: f32) -> f64;
    /// See [`crate::network::cross_entropy_loss`].
    fn cross_entropy_loss(&self, logits: &mut [f32], targets: &[u8]) -> f64;

    /// See [`crate::lora::shrink`].
    fn lora_shrink(&self, scale: f32, x: Mat<'_>, factors: &[f32], out: MatMut<'_>);
    /// See [`crate::lora::outer`].
    fn lora_outer(&self, scale: f32, coefficients: Mat<'_>, x: Mat<'_>, out: &mut [f32]);
    /// See [`crate::lora::forward`].
    fn lora_forward(
        &self,
        lora: Lora<'_>,
        x: &[f32],
        h: &mut [f32],
        y: &mut [f32],
    ) -> Result<(), KernelError>;
    /// See [`crate::lora::backward`].
    fn lora_backward(
        &self,
        lora: Lora<'_>,
        x: &[f32],
        g: &[f32],
        h: &mut [f32],
        gradients: Gradients<'_>,
    ) -> Result<(), KernelError>;
    /// See [`crate::lora::fold_into`].
    fn lora_fold(&self, lora: Lora<'_>, weights: &[f32], merged: &mut [f32]) -> Result<(), KernelError>;

    /// See [`crate::optimiser::adamw`].
    fn adamw(
        &self,
        settings: AdamW,
        state: AdamWState<'_>,
        gradient_scale: f32,
        gradient: &[f32],
        params: &mut [f32],
    );

    /// See [`crate::slot::quantise`].
    fn quantise(
        &self,
        update: &[f32],
        residue: &mut [f32],
        scale: Scale,
        slot: &mut [i32],
    ) -> Result<Quantised, KernelError>;
    /// See [`crate::slot::quantise_residue`].
    fn quantise_residue(
        &self,
        residue: &mut [f32],
        scale: Scale,
        slot: &mut [i32],
    ) -> Result<Quantised, KernelError>;
    /// See [`crate::slot::dequantise`].
    fn dequantise(&self, slot: &[i32], scale: Scale, out: &mut [f32]) -> Result<(), KernelError>;
    /// See [`crate::slot::slot_sum`].
    fn slot_sum(&self, weights: &[u32], slots: &[&[i32]], sum: &mut [i64]) -> Result<(), KernelError>;
    /// See [`crate::slot::apply`].
    fn apply(&self, master: &mut [i64], sum: &[i64]) -> Result<(), KernelError>;
    /// See [`crate::outer::apply_nesterov`].
    fn apply_nesterov(
        &self,
        factors: Nesterov,
        master: &mut [i64],
        momentum: &mut [i64],
        sum: &[i64],
    ) -> Result<(), KernelError>;
    /// See [`crate::slot::commit`].
    fn commit(&self, weights: &[u32], slots: &[&[i32]], master: &mut [i64]) -> Result<(), KernelError>;
    /// See [`crate::slot::to_float`].
    fn to_float(&self, master: &[i64], scale: Scale, out: &mut [f32]) -> Result<(), KernelError>;
    /// See [`crate::slot::merge`].
    fn merge(
        &self,
        into: &mut [i32],
        from: &[i32],
        scale: Scale,
        residue: &mut [f32],
    ) -> Result<Merged, KernelError>;

    /// See [`crate::codec::encode`].
    fn encode(
        &self,
        coding: Coding,
        input: &[f32],
        residue: Option<&mut [f32]>,
        out: &mut [u8],
    ) -> Result<Encoded, KernelError>;
    /// See [`crate::codec::decode`].
    fn decode(&self, codec: Codec, codes: &[u8], out: &mut [f32]) -> Result<(), KernelError>;
    /// See [`crate::codec::decode_add`].
    fn decode_add(&self, codec: Codec, codes: &[u8], sum: &mut [f32]) -> Result<(), KernelError>;
    /// See [`crate::codec::encode_slot`].
    fn encode_slot(&self, coding: Coding, slot: &[i32], out: &mut [u8]) -> Result<(), KernelError>;
    /// See [`crate::codec::decode_slot`].
    fn decode_slot(&self, codec: Codec, codes: &[u8], slot: &mut [i32]) -> Result<(), KernelError>;
    /// See [`crate::codec::coded_sum`].
    fn coded_sum(
        &self,
        codec: Codec,
        weights: &[u32],
        slots: &[&[u8]],
        sum: &mut [i64],
    ) -> Result<(), KernelError>;

    /// See [`crate::aggregate::weighted_sum`].
    fn weighted_sum(&self, weights: &[f32], inputs: &[&[f32]], out: &mut [f32]) -> Result<f64, KernelError>;
    /// See [`crate::aggregate::weighted_sum_bf16`].
    fn weighted_sum_bf16(
        &self,
        weights: &[f32],
        inputs: &[&[u16]],
        out: &mut [f32],
    ) -> Result<f64, KernelError>;
    /// See [`crate::norm::square_norms`].
    fn square_norms(&self, inputs: &[&[f32]], norms: &mut [f64]) -> Result<(), KernelError>;
    /// See [`crate::robust::robust`].
    fn robust(&self, rule: Robust, inputs: &[&[f32]], out: &mut [f32]) -> Result<(), KernelError>;
    /// See [`crate::sparse::top_k`].
    fn top_k(
        &self,
        x: &[f32],
        count: usize,
        indices: &mut [u32],
        values: &mut [f32],
    ) -> Result<(), KernelError>;
    /// See [`crate::vote::sign_pack`].
    fn sign_pack(&self, x: &[f32], words: &mut [u32]) -> Result<(), KernelError>;
    /// See [`crate::vote::sign_vote`].
    fn sign_vote(&self, votes: &[&[u32]], out: &mut [u32]) -> Result<(), KernelError>;
    /// See [`crate::lora::half::lora_forward_bf16`].
    fn lora_forward_bf16(
        &self,
        adapter: Adapter<'_>,
        x: &[u16],
        h: &mut [f32],
        y: &mut [u16],
    ) -> Result<(), KernelError>;
    /// See [`crate::lora::half::lora_backward_bf16`].
    fn lora_backward_bf16(
        &self,
        adapter: Adapter<'_>,
        x: &[u16],
        g: &[u16],
        h: &mut [f32],
        gradients: Gradients<'_, u16>,
    ) -> Result<(), KernelError>;
    /// See [`crate::lora::grouped::lora_grouped`].
    fn lora_grouped(
        &self,
        adapters: &[Adapter<'_>],
        which: &[u32],
        x: &[u16],
        y: &mut [u16],
    ) -> Result<(), KernelError>;
    /// See [`crate::q8::quantise_q8`].
    fn quantise_q8(
        &self,
        input: &[f32],
        residue: &mut [f32],
        codes: &mut [i8],
        scales: &mut [u16],
    ) -> Result<Encoded, KernelError>;
    /// See [`crate::q8::dequantise_q8`].
    fn dequantise_q8(&self, coded: Q8<'_>, out: &mut [f32]) -> Result<(), KernelError>;
    /// See [`crate::q8::weighted_sum_q8`].
    fn weighted_sum_q8(
        &self,
        weights: &[f32],
        inputs: &[Q8<'_>],
        out: &mut [f32],
    ) -> Result<f64, KernelError>;
    /// See [`crate::product::product_q8`].
    fn product_q8(
        &self,
        weights: Q8<'_>,
        x: &[u16],
        adapter: Option<Adapter<'_>>,
        y: &mut [f32],
    ) -> Result<(), KernelError>;
}

/// Gives a macro the signature of every method of [`Device`] but `name`, for devices that hand each call on to another.
#[macro_export]
macro_rules! for_each_device_method {
    ($apply:ident) => {
        $apply! {
            fn matmul(c: $crate::MatMut<'_>, a: $crate::Mat<'_>, b: $crate::Mat<'_>, accumulate: bool);
            fn dot(x: &[f32], y: &[f32]) -> f32;
            fn axpy(alpha: f32, x: &[f32], y: &mut [f32]);
            fn scale(alpha: f32, x: &mut [f32]);
            fn rms_norm(x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32], inv_rms: &mut [f32]);
            fn rms_norm_backward(
                x: &[f32],
                gain: &[f32],
                inv_rms: &[f32],
                dy: &[f32],
                dx: &mut [f32],
                dgain: Option<&mut [f32]>,
                scratch: &mut [f32]
            );
            fn rotate(x: &mut [f32], width: usize, heads: usize, rope: $crate::Rope<'_>, inverse: bool);
            fn softmax_causal(scores: &mut [f32], len: usize, scale: f32);
            fn softmax_causal_backward(weights: &[f32], gradient: &mut [f32], len: usize, scale: f32);
            fn swiglu(gate_up: &[f32], width: usize, out: &mut [f32]);
            fn swiglu_backward(gate_up: &[f32], dout: &[f32], width: usize, dgate_up: &mut [f32]);
            fn cross_entropy(logits: &mut [f32], targets: &[u8], scale: f32) -> f64;
            fn cross_entropy_loss(logits: &mut [f32], targets: &[u8]) -> f64;

            fn lora_shrink(scale: f32, x: $crate::Mat<'_>, factors: &[f32], out: $crate::MatMut<'_>);
            fn lora_outer(scale: f32, coefficients: $crate::Mat<'_>, x: $crate::Mat<'_>, out: &mut [f32]);
            fn lora_forward(
                lora: $crate::Lora<'_>,
                x: &[f32],
                h: &mut [f32],
                y: &mut [f32]
            ) -> Result<(), $crate::KernelError>;
            fn lora_backward(
                lora: $crate::Lora<'_>,
                x: &[f32],
                g: &[f32],
                h: &mut [f32],
                gradients: $crate::lora::Gradients<'_>
            ) -> Result<(), $crate::KernelError>;
            fn lora_fold(
                lora: $crate::Lora<'_>,
                weights: &[f32],
                merged: &mut [f32]
            ) -> Result<(), $crate::KernelError>;
            fn adamw(
                settings: $crate::AdamW,
                state: $crate::AdamWState<'_>,
                gradient_scale: f32,
                gradient: &[f32],
                params: &mut [f32]
            );

            fn quantise(
                update: &[f32],
                residue: &mut [f32],
                scale: $crate::Scale,
                slot: &mut [i32]
            ) -> Result<$crate::Quantised, $crate::KernelError>;
            fn quantise_residue(
                residue: &mut [f32],
                scale: $crate::Scale,
                slot: &mut [i32]
            ) -> Result<$crate::Quantised, $crate::KernelError>;
            fn dequantise(
                slot: &[i32],
                scale: $crate::Scale,
                out: &mut [f32]
            ) -> Result<(), $crate::KernelError>;
            fn slot_sum(weights: &[u32], slots: &[&[i32]], sum: &mut [i64]) -> Result<(), $crate::KernelError>;
            fn apply(master: &mut [i64], sum: &[i64]) -> Result<(), $crate::KernelError>;
            fn apply_nesterov(
                factors: $crate::Nesterov,
                master: &mut [i64],
                momentum: &mut [i64],
                sum: &[i64]
            ) -> Result<(), $crate::KernelError>;
            fn commit(weights: &[u32], slots: &[&[i32]], master: &mut [i64]) -> Result<(), $crate::KernelError>;
            fn to_float(master: &[i64], scale: $crate::Scale, out: &mut [f32]) -> Result<(), $crate::KernelError>;
            fn merge(
                into: &mut [i32],
                from: &[i32],
                scale: $crate::Scale,
                residue: &mut [f32]
            ) -> Result<$crate::Merged, $crate::KernelError>;

            fn encode(
                coding: $crate::Coding,
                input: &[f32],
                residue: Option<&mut [f32]>,
                out: &mut [u8]
            ) -> Result<$crate::Encoded, $crate::KernelError>;
            fn decode(codec: $crate::Codec, codes: &[u8], out: &mut [f32]) -> Result<(), $crate::KernelError>;
            fn decode_add(codec: $crate::Codec, codes: &[u8], sum: &mut [f32]) -> Result<(), $crate::KernelError>;
            fn encode_slot(
                coding: $crate::Coding,
                slot: &[i32],
                out: &mut [u8]
            ) -> Result<(), $crate::KernelError>;
            fn decode_slot(codec: $crate::Codec, codes: &[u8], slot: &mut [i32]) -> Result<(), $crate::KernelError>;
            fn coded_sum(
                codec: $crate::Codec,
                weights: &[u32],
                slots: &[&[u8]],
                sum: &mut [i64]
            ) -> Result<(), $crate::KernelError>;

            fn lora_forward_bf16(
                adapter: $crate::lora::Adapter<'_>,
                x: &[u16],
                h: &mut [f32],
                y: &mut [u16]
            ) -> Result<(), $crate::KernelError>;
            fn lora_backward_bf16(
                adapter: $crate::lora::Adapter<'_>,
                x: &[u16],
                g: &[u16],
                h: &mut [f32],
                gradients: $crate::lora::Gradients<'_, u16>
            ) -> Result<(), $crate::KernelError>;
            fn lora_grouped(
                adapters: &[$crate::lora::Adapter<'_>],
                which: &[u32],
                x: &[u16],
                y: &mut [u16]
            ) -> Result<(), $crate::KernelError>;
            fn product_q8(
                weights: $crate::Q8<'_>,
                x: &[u16],
                adapter: Option<$crate::lora::Adapter<'_>>,
                y: &mut [f32]
            ) -> Result<(), $crate::KernelError>;

            fn weighted_sum(
                weights: &[f32],
                inputs: &[&[f32]],
                out: &mut [f32]
            ) -> Result<f64, $crate::KernelError>;
            fn weighted_sum_bf16(
                weights: &[f32],
                inputs: &[&[u16]],
                out: &mut [f32]
            ) -> Result<f64, $crate::KernelError>;
            fn weighted_sum_q8(
                weights: &[f32],
                inputs: &[$crate::Q8<'_>],
                out: &mut [f32]
            ) -> Result<f64, $crate::KernelError>;
            fn square_norms(inputs: &[&[f32]], norms: &mut [f64]) -> Result<(), $crate::KernelError>;
            fn robust(
                rule: $crate::Robust,
                inputs: &[&[f32]],
                out: &mut [f32]
            ) -> Result<(), $crate::KernelError>;
            fn top_k(
                x: &[f32],
                count: usize,
                indices: &mut [u32],
                values: &mut [f32]
            ) -> Result<(), $crate::KernelError>;
            fn sign_pack(x: &[f32], words: &mut [u32]) -> Result<(), $crate::KernelError>;
            fn sign_vote(votes: &[&[u32]], out: &mut [u32]) -> Result<(), $crate::KernelError>;
            fn quantise_q8(
                input: &[f32],
                residue: &mut [f32],
                codes: &mut [i8],
                scales: &mut [u16]
            ) -> Result<$crate::Encoded, $crate::KernelError>;
            fn dequantise_q8(coded: $crate::Q8<'_>, out: &mut [f32]) -> Result<(), $crate::KernelError>;
        }
    };
}
