//! One entry per kernel: picks the instance compiled for the detected instruction set.
//!
//! A `Cpu` can only be made for a level this machine has; that is the whole safety argument of this file.

use crate::level::Level;
use crate::matmul::matmul;
use plesio_kernels::lora::{self, Gradients, Lora};
use plesio_kernels::slot::{self, Merged, Quantised, Scale};
use plesio_kernels::{
    AdamW, AdamWState, Arithmetic, Codec, Coding, Device, Encoded, KernelError, Mat, MatMut, Nesterov, Rope,
    Soft,
};
use plesio_kernels::{codec, network, optimiser, outer, vector};

/// The CPU as a device, at one instruction set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cpu {
    level: Level, // available on this machine, by the constructors
}

impl Cpu {
    /// The fastest level of this machine.
    pub fn detect() -> Self {
        Self { level: Level::detect() }
    }

    /// A given level, or `None` when this machine lacks it.
    pub fn with_level(level: Level) -> Option<Self> {
        level.is_available().then_some(Self { level })
    }

    /// The instruction set in use.
    pub fn level(self) -> Level {
        self.level
    }
}

/// The machine's own fused multiply-add. Meant for code compiled for an instruction set that has one;
/// elsewhere it is a library call with the same result.
struct Hard;

impl Arithmetic for Hard {
    #[inline(always)]
    fn fused(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn sqrt(x: f32) -> f32 {
        x.sqrt()
    }
}

/// Defines, for each kernel, one instance per instruction set and the method that chooses between them.
macro_rules! kernels {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)? = $module:ident::$kernel:ident $(: <$generic:ident>)?;)*) => {
        #[cfg(target_arch = "x86_64")]
        mod avx2 {
            use super::*;
            $(kernels!(@instance "avx2,fma", $name($($arg: $type),*) $(-> $ret)?, $module::$kernel $(: <$generic>)?);)*
        }

        #[cfg(target_arch = "x86_64")]
        mod avx512 {
            use super::*;
            $(kernels!(@instance "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl", $name($($arg: $type),*) $(-> $ret)?, $module::$kernel $(: <$generic>)?);)*
        }

        #[cfg(target_arch = "aarch64")]
        mod neon {
            use super::*;
            $(kernels!(@instance "neon", $name($($arg: $type),*) $(-> $ret)?, $module::$kernel $(: <$generic>)?);)*
        }

        mod scalar {
            use super::*;
            $(
                pub(super) fn $name($($arg: $type),*) $(-> $ret)? {
                    kernels!(@body Soft, $module::$kernel($($arg),*) $(: <$generic>)?)
                }
            )*
        }

        impl Device for Cpu {
            fn name(&self) -> &'static str {
                self.level.name()
            }

            fn matmul(&self, c: MatMut<'_>, a: Mat<'_>, b: Mat<'_>, accumulate: bool) {
                matmul(c, a, b, accumulate);
            }

            $(
                fn $name(&self, $($arg: $type),*) $(-> $ret)? {
                    match self.level {
                        // SAFETY: a `Cpu` of this level exists only where the features were detected.
                        #[cfg(target_arch = "x86_64")]
                        Level::Avx512 => unsafe { avx512::$name($($arg),*) },
                        // SAFETY: as above.
                        #[cfg(target_arch = "x86_64")]
                        Level::Avx2 => unsafe { avx2::$name($($arg),*) },
                        // SAFETY: as above.
                        #[cfg(target_arch = "aarch64")]
                        Level::Neon => unsafe { neon::$name($($arg),*) },
                        _ => scalar::$name($($arg),*),
                    }
                }
            )*
        }
    };
    (@instance $features:literal, $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)?, $module:ident::$kernel:ident $(: <$generic:ident>)?) => {
        #[target_feature(enable = $features)]
        pub(super) fn $name($($arg: $type),*) $(-> $ret)? {
            kernels!(@body Hard, $module::$kernel($($arg),*) $(: <$generic>)?)
        }
    };
    (@body $arithmetic:ident, $module:ident::$kernel:ident($($arg:ident),*) : <$generic:ident>) => {
        $module::$kernel::<$arithmetic>($($arg),*)
    };
    (@body $arithmetic:ident, $module:ident::$kernel:ident($($arg:ident),*)) => {
        $module::$kernel($($arg),*)
    };
}

kernels! {
    fn dot(x: &[f32], y: &[f32]) -> f32 = vector::dot : <A>;
    fn axpy(alpha: f32, x: &[f32], y: &mut [f32]) = vector::axpy : <A>;
    fn scale(alpha: f32, x: &mut [f32]) = vector::scale;
    fn rms_norm(x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32], inv_rms: &mut [f32]) = network::rms_norm : <A>;
    fn rms_norm_backward(x: &[f32], gain: &[f32], inv_rms: &[f32], dy: &[f32], dx: &mut [f32], dgain: Option<&mut [f32]>, scratch: &mut [f32]) = network::rms_norm_backward : <A>;
    fn rotate(x: &mut [f32], width: usize, heads: usize, rope: Rope<'_>, inverse: bool) = network::rotate : <A>;
    fn softmax_causal(scores: &mut [f32], len: usize, scale: f32) = network::softmax_causal : <A>;
    fn softmax_causal_backward(weights: &[f32], gradient: &mut [f32], len: usize, scale: f32) = network::softmax_causal_backward : <A>;
    fn swiglu(gate_up: &[f32], width: usize, out: &mut [f32]) = network::swiglu : <A>;
    fn swiglu_backward(gate_up: &[f32], dout: &[f32], width: usize, dgate_up: &mut [f32]) = network::swiglu_backward : <A>;
    fn cross_entropy(logits: &mut [f32], targets: &[u8], scale: f32) -> f64 = network::cross_entropy : <A>;
    fn cross_entropy_loss(logits: &mut [f32], targets: &[u8]) -> f64 = network::cross_entropy_loss : <A>;
    fn lora_shrink(scale: f32, x: Mat<'_>, factors: &[f32], out: MatMut<'_>) = lora::shrink : <A>;
    fn lora_outer(scale: f32, coefficients: Mat<'_>, x: Mat<'_>, out: &mut [f32]) = lora::outer : <A>;
    fn lora_forward(lora: Lora<'_>, x: &[f32], h: &mut [f32], y: &mut [f32]) -> Result<(), KernelError> = lora::forward : <A>;
    fn lora_backward(lora: Lora<'_>, x: &[f32], g: &[f32], h: &mut [f32], gradients: Gradients<'_>) -> Result<(), KernelError> = lora::backward : <A>;
    fn lora_fold(lora: Lora<'_>, weights: &[f32], merged: &mut [f32]) -> Result<(), KernelError> = lora::fold_into : <A>;
    fn adamw(settings: AdamW, state: AdamWState<'_>, gradient_scale: f32, gradient: &[f32], params: &mut [f32]) = optimiser::adamw : <A>;
    fn quantise(update: &[f32], residue: &mut [f32], scale: Scale, slot: &mut [i32]) -> Result<Quantised, KernelError> = slot::quantise;
    fn quantise_residue(residue: &mut [f32], scale: Scale, slot: &mut [i32]) -> Result<Quantised, KernelError> = slot::quantise_residue;
    fn dequantise(slot: &[i32], scale: Scale, out: &mut [f32]) -> Result<(), KernelError> = slot::dequantise;
    fn slot_sum(weights: &[u32], slots: &[&[i32]], sum: &mut [i64]) -> Result<(), KernelError> = slot::slot_sum;
    fn apply(master: &mut [i64], sum: &[i64]) -> Result<(), KernelError> = slot::apply;
    fn apply_nesterov(factors: Nesterov, master: &mut [i64], momentum: &mut [i64], sum: &[i64]) -> Result<(), KernelError> = outer::apply_nesterov;
    fn commit(weights: &[u32], slots: &[&[i32]], master: &mut [i64]) -> Result<(), KernelError> = slot::commit;
    fn to_float(master: &[i64], scale: Scale, out: &mut [f32]) -> Result<(), KernelError> = slot::to_float;
    fn merge(into: &mut [i32], from: &[i32], scale: Scale, residue: &mut [f32]) -> Result<Merged, KernelError> = slot::merge;
    fn encode(coding: Coding, input: &[f32], residue: Option<&mut [f32]>, out: &mut [u8]) -> Result<Encoded, KernelError> = codec::encode;
    fn decode(codec: Codec, codes: &[u8], out: &mut [f32]) -> Result<(), KernelError> = codec::decode;
    fn decode_add(codec: Codec, codes: &[u8], sum: &mut [f32]) -> Result<(), KernelError> = codec::decode_add;
    fn encode_slot(coding: Coding, slot: &[i32], out: &mut [u8]) -> Result<(), KernelError> = codec::encode_slot;
    fn decode_slot(codec: Codec, codes: &[u8], slot: &mut [i32]) -> Result<(), KernelError> = codec::decode_slot;
    fn coded_sum(codec: Codec, weights: &[u32], slots: &[&[u8]], sum: &mut [i64]) -> Result<(), KernelError> = codec::coded_sum;
}
