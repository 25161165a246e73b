//! One entry per kernel: picks the instance compiled for the detected instruction set.
//!
//! A `Cpu` can only be made for a level this machine has; that is the whole safety argument of this file.

use crate::level::Level;
use crate::matmul::matmul;
use crate::threads;
use plesio_kernels::arithmetic::{AHEAD_BYTES, Store};
use plesio_kernels::lora::{self, Adapter, Gradients, Lora, grouped, half};
use plesio_kernels::slot::{self, Merged, Quantised, Scale};
use plesio_kernels::{
    AdamW, AdamWState, Arithmetic, Codec, Coding, Device, Encoded, KernelError, Mat, MatMut, Nesterov, Q8,
    Robust, Rope, Soft,
};
use plesio_kernels::{
    aggregate, codec, network, norm, optimiser, outer, product, q8, robust, sparse, vector, vote,
};

/// The CPU as a device, at one instruction set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cpu {
    level: Level, // available on this machine, by the constructors
    threads: usize,
}

impl Cpu {
    /// The fastest level of this machine, on all cores that the process may use.
    pub fn detect() -> Self {
        Self { level: Level::detect(), threads: threads::available() }
    }

    /// A given level, or `None` when this machine lacks it; on all cores that the process may use.
    pub fn with_level(level: Level) -> Option<Self> {
        level.is_available().then_some(Self { level, threads: threads::available() })
    }

    /// The same with so many threads for large calls, at least one and at most 256. Results do not depend on it.
    #[must_use]
    pub fn with_threads(self, count: usize) -> Self {
        Self { threads: count.clamp(1, threads::THREADS_MAX), ..self }
    }

    /// Threads that a large call may use, the caller's among them.
    pub fn threads(self) -> usize {
        self.threads
    }

    /// The instruction set in use.
    pub fn level(self) -> Level {
        self.level
    }
}

/// The machine's own fused multiply-add. Meant for code compiled for an instruction set that has one;
/// elsewhere it is a library call with the same result. The registers hold FLOATS floats together.
struct Hard<const FLOATS: usize>;

impl<const FLOATS: usize> Arithmetic for Hard<FLOATS> {
    const REGISTERS_FLOATS: usize = FLOATS;

    #[inline(always)]
    fn fused(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn sqrt(x: f32) -> f32 {
        x.sqrt()
    }

    #[inline(always)]
    fn ahead<T>(at: &T) {
        let line = std::ptr::from_ref(at).cast::<i8>().wrapping_add(AHEAD_BYTES);
        // SAFETY: a prefetch reads and writes nothing and never faults.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line);
        }
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{line}]", line = in(reg) line, options(nostack, preserves_flags, readonly));
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = line;
    }

    #[inline(always)]
    fn store<const W: usize>(out: &mut [f32; W], values: [f32; W], store: Store) {
        if store == Store::Cached || !stored_past(out, &values) {
            *out = values;
        }
    }

    #[inline(always)]
    fn store_sums<const W: usize>(out: &mut [i64; W], values: [i64; W], store: Store) {
        if store == Store::Cached || !stored_past(out, &values) {
            *out = values;
        }
    }

    #[inline(always)]
    fn settle(store: Store) {
        #[cfg(target_arch = "x86_64")]
        if store == Store::Past {
            // SAFETY: every x86-64 has it.
            unsafe { std::arch::x86_64::_mm_sfence() };
        }
    }
}

/// Whether a block of floats or integers was written past the caches: where that can be done and it begins at a multiple
/// of the 16 bytes that are written at a time, which all of our memory does. [`Arithmetic::settle`] has to follow.
#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "only x86-64 has such a store"))]
fn stored_past<T: Copy, const W: usize>(out: &mut [T; W], values: &[T; W]) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
        let (to, from) = (out.as_mut_ptr().cast::<__m128i>(), values.as_ptr().cast::<__m128i>());
        if to.is_aligned() && size_of_val(out).is_multiple_of(size_of::<__m128i>()) {
            for at in 0..size_of_val(out) / size_of::<__m128i>() {
                // SAFETY: inside `values`, which has no padding.
                let value = unsafe { _mm_loadu_si128(from.wrapping_add(at)) };
                // SAFETY: inside `out`, and aligned; the kernel settles before it ends.
                unsafe { _mm_stream_si128(to.wrapping_add(at), value) };
            }
            return true;
        }
    }
    false
}

/// Defines, for each kernel, one instance per instruction set, the function in `one` that chooses between them, and the
/// device's method, which calls that or, where the line ends in `threads`, the function of that name in `threads.rs`.
/// Kernels `inside` are called from there alone; methods `outside` are there altogether.
macro_rules! kernels {
    (
        $(fn $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)? = $module:ident::$kernel:ident $(: <$generic:ident>)? $(, $many:ident)?;)*
        inside { $(fn $in:ident($($in_arg:ident: $in_type:ty),*) $(-> $in_ret:ty)? = $in_module:ident::$in_kernel:ident $(: <$in_generic:ident>)?;)* }
        outside { $(fn $out:ident($($out_arg:ident: $out_type:ty),*) -> $out_ret:ty;)* }
    ) => {
        kernels!(@instances
            $(fn $name($($arg: $type),*) $(-> $ret)? = $module::$kernel $(: <$generic>)?;)*
            $(fn $in($($in_arg: $in_type),*) $(-> $in_ret)? = $in_module::$in_kernel $(: <$in_generic>)?;)*
        );

        impl Device for Cpu {
            fn name(&self) -> &'static str {
                self.level.name()
            }

            fn matmul(&self, c: MatMut<'_>, a: Mat<'_>, b: Mat<'_>, accumulate: bool) {
                matmul(c, a, b, accumulate);
            }

            $(
                fn $name(&self, $($arg: $type),*) $(-> $ret)? {
                    kernels!(@method self, $name($($arg),*) $($many)?)
                }
            )*
            $(
                fn $out(&self, $($out_arg: $out_type),*) -> $out_ret {
                    threads::$out(*self, $($out_arg),*)
                }
            )*
        }
    };
    (@method $self:ident, $name:ident($($arg:ident),*)) => {
        one::$name(*$self, $($arg),*)
    };
    (@method $self:ident, $name:ident($($arg:ident),*) threads) => {
        threads::$name(*$self, $($arg),*)
    };
    (@instances $(fn $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)? = $module:ident::$kernel:ident $(: <$generic:ident>)?;)*) => {
        #[cfg(target_arch = "x86_64")]
        mod avx2 {
            use super::*;
            $(kernels!(@instance "avx2,fma", 128, $name($($arg: $type),*) $(-> $ret)?, $module::$kernel $(: <$generic>)?);)*
        }

        #[cfg(target_arch = "x86_64")]
        mod avx512 {
            use super::*;
            $(kernels!(@instance "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl", 512, $name($($arg: $type),*) $(-> $ret)?, $module::$kernel $(: <$generic>)?);)*
        }

        #[cfg(target_arch = "aarch64")]
        mod neon {
            use super::*;
            $(kernels!(@instance "neon", 128, $name($($arg: $type),*) $(-> $ret)?, $module::$kernel $(: <$generic>)?);)*
        }

        mod scalar {
            use super::*;
            $(
                pub(super) fn $name($($arg: $type),*) $(-> $ret)? {
                    kernels!(@body (Soft), $module::$kernel($($arg),*) $(: <$generic>)?)
                }
            )*
        }

        /// Each kernel on the calling thread, at the level of a device.
        #[expect(clippy::too_many_arguments, reason = "a device and the arguments of the kernel")]
        pub(crate) mod one {
            use super::*;
            $(
                pub(crate) fn $name(cpu: Cpu, $($arg: $type),*) $(-> $ret)? {
                    match cpu.level {
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
    (@instance $features:literal, $floats:literal, $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)?, $module:ident::$kernel:ident $(: <$generic:ident>)?) => {
        #[target_feature(enable = $features)]
        pub(super) fn $name($($arg: $type),*) $(-> $ret)? {
            kernels!(@body (Hard<$floats>), $module::$kernel($($arg),*) $(: <$generic>)?)
        }
    };
    (@body ($arithmetic:ty), $module:ident::$kernel:ident($($arg:ident),*) : <$generic:ident>) => {
        $module::$kernel::<$arithmetic>($($arg),*)
    };
    (@body ($arithmetic:ty), $module:ident::$kernel:ident($($arg:ident),*)) => {
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
    fn lora_forward(lora: Lora<'_>, x: &[f32], h: &mut [f32], y: &mut [f32]) -> Result<(), KernelError> = lora::forward : <A>, threads;
    fn lora_backward(lora: Lora<'_>, x: &[f32], g: &[f32], h: &mut [f32], gradients: Gradients<'_>) -> Result<(), KernelError> = lora::backward : <A>;
    fn lora_fold(lora: Lora<'_>, weights: &[f32], merged: &mut [f32]) -> Result<(), KernelError> = lora::fold_into : <A>;
    fn adamw(settings: AdamW, state: AdamWState<'_>, gradient_scale: f32, gradient: &[f32], params: &mut [f32]) = optimiser::adamw : <A>, threads;
    fn quantise(update: &[f32], residue: &mut [f32], scale: Scale, slot: &mut [i32]) -> Result<Quantised, KernelError> = slot::quantise;
    fn quantise_residue(residue: &mut [f32], scale: Scale, slot: &mut [i32]) -> Result<Quantised, KernelError> = slot::quantise_residue;
    fn dequantise(slot: &[i32], scale: Scale, out: &mut [f32]) -> Result<(), KernelError> = slot::dequantise, threads;
    fn apply(master: &mut [i64], sum: &[i64]) -> Result<(), KernelError> = slot::apply, threads;
    fn apply_nesterov(factors: Nesterov, master: &mut [i64], momentum: &mut [i64], sum: &[i64]) -> Result<(), KernelError> = outer::apply_nesterov, threads;
    fn commit(weights: &[u32], slots: &[&[i32]], master: &mut [i64]) -> Result<(), KernelError> = slot::commit : <A>, threads;
    fn to_float(master: &[i64], scale: Scale, out: &mut [f32]) -> Result<(), KernelError> = slot::to_float, threads;
    fn merge(into: &mut [i32], from: &[i32], scale: Scale, residue: &mut [f32]) -> Result<Merged, KernelError> = slot::merge, threads;
    fn encode(coding: Coding, input: &[f32], residue: Option<&mut [f32]>, out: &mut [u8]) -> Result<Encoded, KernelError> = codec::encode, threads;
    fn decode(codec: Codec, codes: &[u8], out: &mut [f32]) -> Result<(), KernelError> = codec::decode, threads;
    fn decode_add(codec: Codec, codes: &[u8], sum: &mut [f32]) -> Result<(), KernelError> = codec::decode_add, threads;
    fn encode_slot(coding: Coding, slot: &[i32], out: &mut [u8]) -> Result<(), KernelError> = codec::encode_slot, threads;
    fn decode_slot(codec: Codec, codes: &[u8], slot: &mut [i32]) -> Result<(), KernelError> = codec::decode_slot, threads;
    fn coded_sum(codec: Codec, weights: &[u32], slots: &[&[u8]], sum: &mut [i64]) -> Result<(), KernelError> = codec::coded_sum, threads;

    fn top_k(x: &[f32], count: usize, indices: &mut [u32], values: &mut [f32]) -> Result<(), KernelError> = sparse::top_k;
    fn sign_pack(x: &[f32], words: &mut [u32]) -> Result<(), KernelError> = vote::sign_pack, threads;
    fn sign_vote(votes: &[&[u32]], out: &mut [u32]) -> Result<(), KernelError> = vote::sign_vote, threads;

    fn lora_forward_bf16(adapter: Adapter<'_>, x: &[u16], h: &mut [f32], y: &mut [u16]) -> Result<(), KernelError> = half::lora_forward_bf16 : <A>, threads;
    fn lora_backward_bf16(adapter: Adapter<'_>, x: &[u16], g: &[u16], h: &mut [f32], gradients: Gradients<'_, u16>) -> Result<(), KernelError> = half::lora_backward_bf16 : <A>;
    fn lora_grouped(adapters: &[Adapter<'_>], which: &[u32], x: &[u16], y: &mut [u16]) -> Result<(), KernelError> = grouped::lora_grouped : <A>;
    fn quantise_q8(input: &[f32], residue: &mut [f32], codes: &mut [i8], scales: &mut [u16]) -> Result<Encoded, KernelError> = q8::quantise_q8, threads;
    fn dequantise_q8(coded: Q8<'_>, out: &mut [f32]) -> Result<(), KernelError> = q8::dequantise_q8, threads;
    fn product_q8(weights: Q8<'_>, x: &[u16], adapter: Option<Adapter<'_>>, y: &mut [f32]) -> Result<(), KernelError> = product::product_q8 : <A>;

    inside {
        fn slot_sum(weights: &[u32], slots: &[&[i32]], sum: &mut [i64], store: Store) -> Result<(), KernelError> = slot::slot_sum : <A>;
        fn robust(rule: Robust, inputs: &[&[f32]], out: &mut [f32], store: Store) -> Result<(), KernelError> = robust::robust : <A>;
        fn weighted_sum_partial(weights: &[f32], inputs: &[&[f32]], out: &mut [f32], partials: &mut [f32], store: Store) -> Result<(), KernelError> = aggregate::weighted_sum_partial : <A>;
        fn weighted_sum_bf16_partial(weights: &[f32], inputs: &[&[u16]], out: &mut [f32], partials: &mut [f32], store: Store) -> Result<(), KernelError> = aggregate::weighted_sum_bf16_partial : <A>;
        fn weighted_sum_q8_partial(weights: &[f32], inputs: &[Q8<'_>], out: &mut [f32], partials: &mut [f32]) -> Result<(), KernelError> = q8::weighted_sum_q8_partial : <A>;
        fn square_norm_partial(x: &[f32], partials: &mut [f32]) -> Result<(), KernelError> = norm::square_norm_partial : <A>;
    }
    outside {
        fn slot_sum(weights: &[u32], slots: &[&[i32]], sum: &mut [i64]) -> Result<(), KernelError>;
        fn robust(rule: Robust, inputs: &[&[f32]], out: &mut [f32]) -> Result<(), KernelError>;
        fn weighted_sum(weights: &[f32], inputs: &[&[f32]], out: &mut [f32]) -> Result<f64, KernelError>;
        fn weighted_sum_bf16(weights: &[f32], inputs: &[&[u16]], out: &mut [f32]) -> Result<f64, KernelError>;
        fn weighted_sum_q8(weights: &[f32], inputs: &[Q8<'_>], out: &mut [f32]) -> Result<f64, KernelError>;
        fn square_norms(inputs: &[&[f32]], norms: &mut [f64]) -> Result<(), KernelError>;
    }
}
