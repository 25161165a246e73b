//! A GPU as a [`Device`].
//!
//! The kernels of commit, codecs, adapters and optimiser run there; the small rows of the network and what a device refuses run on
//! the CPU that it carries, with the same bits. Base products are the vendor's library's business, and the CPU's until there is one.
#![expect(unsafe_code, reason = "pinning says that memory stays mapped")]

use plesio_cpu::Cpu;
use plesio_kernels::lora::{Adapter, Gradients, Lora};
use plesio_kernels::{
    AdamW, AdamWState, Codec, Coding, Device, Encoded, KernelError, Mat, MatMut, Merged, Nesterov, Q8,
    Quantised, Robust, Rope, Scale,
};

use plesio_memory::{Arena, ArenaError, ArenaPlan, ArenaReport, PAGE_BYTES};

use crate::engine::{Engine, EngineSettings, Trouble};
use crate::memory::Pinned;
use crate::{Chip, Runtime, RuntimeError};

mod aggregate;
mod codec;
mod lora;
mod optimiser;
mod product;
mod q8;
mod quantise;
mod robust;
mod slot;
mod sparse;
mod vote;

/// A device behind a vendor's runtime, opened once and kept until the process ends.
#[derive(Debug)]
pub struct Accelerator<R: Runtime> {
    engine: &'static Engine<R>,
}

impl<R: Runtime> Clone for Accelerator<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: Runtime> Copy for Accelerator<R> {}

impl<R: Runtime> Accelerator<R> {
    /// Loads the kernels. The device is kept for good: a process opens each of its devices once.
    ///
    /// # Errors
    /// The runtime refuses the image.
    pub fn open(runtime: R, image: &[u8], settings: EngineSettings) -> Result<Self, RuntimeError> {
        Ok(Self { engine: Box::leak(Box::new(Engine::new(runtime, image, settings)?)) })
    }

    /// Memory for tensors that kernels read in place, of one of three kinds: what the driver gives, where the device shares the
    /// host's memory; a mapping of ours that the driver registers; else a mapping that it does not, and that is copied from. The report
    /// says which. It is kept for good: a device that hangs may still read it.
    ///
    /// # Errors
    /// As [`Arena::map`].
    pub fn arena(&self, plan: &ArenaPlan) -> Result<(Arena, ArenaReport), ArenaError> {
        let bytes = plan.needed_bytes().next_multiple_of(PAGE_BYTES);
        if self.chip().integrated
            && let Ok((base, device)) = self.engine.runtime.allocate_host(bytes)
        {
            // SAFETY: so many zeroed bytes, at a page's beginning, of this call alone; they are never given back.
            let (arena, mut report) = unsafe { Arena::over(plan, base, Box::new(())) }?;
            report
                .lines
                .push(format!("arena: {bytes} bytes of the driver's, which {} shares", self.chip().name));
            self.engine.add_pinned(Pinned::given(base, bytes, device));
            return Ok((arena, report));
        }
        let (arena, mut report) = Arena::map(plan)?;
        let (base, bytes) = arena.memory();
        // SAFETY: the clone keeps these bytes mapped.
        let pinned = unsafe { Pinned::register(&self.engine.runtime, base, bytes, arena.clone()) };
        report.lines.push(match pinned {
            Ok(pinned) => {
                self.engine.add_pinned(pinned);
                format!("arena: registered with {}, which reads it in place", R::NAME)
            }
            Err(error) => format!("arena: {} copies what it reads: {error}", R::NAME),
        });
        Ok((arena, report))
    }

    /// The device.
    #[must_use]
    pub fn chip(&self) -> &'static Chip {
        self.engine.runtime.chip()
    }

    /// Why the device is not used any more, if so: from then on the CPU does its work.
    #[must_use]
    pub fn lost(&self) -> Option<&'static Trouble> {
        self.engine.lost()
    }

    /// What went wrong since this was last asked, in words for a person; each kind of trouble is told once.
    #[must_use]
    pub fn take_news(&self) -> Vec<String> {
        self.engine.take_news()
    }

    /// The runtime.
    #[must_use]
    pub fn runtime(&self) -> &'static R {
        &self.engine.runtime
    }

    pub(crate) fn engine(self) -> &'static Engine<R> {
        self.engine
    }

    pub(crate) fn cpu(self) -> Cpu {
        self.engine.cpu
    }
}

/// Methods that the CPU does.
macro_rules! on_the_cpu {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)?;)*) => {
        $(fn $name(&self, $($arg: $type),*) $(-> $ret)? { self.engine.cpu.$name($($arg),*) })*
    };
}

/// Methods that the device does, by the function of that name in a module of this one.
macro_rules! on_the_device {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)? = $module:ident;)*) => {
        $(fn $name(&self, $($arg: $type),*) $(-> $ret)? { $module::$name(*self, $($arg),*) })*
    };
}

impl<R: Runtime> Device for Accelerator<R> {
    fn name(&self) -> &'static str {
        R::NAME
    }

    on_the_device! {
        fn lora_shrink(scale: f32, x: Mat<'_>, factors: &[f32], out: MatMut<'_>) = lora;
        fn lora_outer(scale: f32, coefficients: Mat<'_>, x: Mat<'_>, out: &mut [f32]) = lora;
        fn lora_forward(lora: Lora<'_>, x: &[f32], h: &mut [f32], y: &mut [f32]) -> Result<(), KernelError> = lora;
        fn lora_backward(lora: Lora<'_>, x: &[f32], g: &[f32], h: &mut [f32], gradients: Gradients<'_>) -> Result<(), KernelError> = lora;
        fn lora_fold(lora: Lora<'_>, weights: &[f32], merged: &mut [f32]) -> Result<(), KernelError> = lora;
        fn lora_forward_bf16(adapter: Adapter<'_>, x: &[u16], h: &mut [f32], y: &mut [u16]) -> Result<(), KernelError> = lora;
        fn lora_backward_bf16(adapter: Adapter<'_>, x: &[u16], g: &[u16], h: &mut [f32], gradients: Gradients<'_, u16>) -> Result<(), KernelError> = lora;
        fn lora_grouped(adapters: &[Adapter<'_>], which: &[u32], x: &[u16], y: &mut [u16]) -> Result<(), KernelError> = lora;
        fn product_q8(weights: Q8<'_>, x: &[u16], adapter: Option<Adapter<'_>>, y: &mut [f32]) -> Result<(), KernelError> = product;
        fn adamw(settings: AdamW, state: AdamWState<'_>, gradient_scale: f32, gradient: &[f32], params: &mut [f32]) = optimiser;

        fn slot_sum(weights: &[u32], slots: &[&[i32]], sum: &mut [i64]) -> Result<(), KernelError> = slot;
        fn commit(weights: &[u32], slots: &[&[i32]], master: &mut [i64]) -> Result<(), KernelError> = slot;
        fn apply(master: &mut [i64], sum: &[i64]) -> Result<(), KernelError> = slot;
        fn apply_nesterov(factors: Nesterov, master: &mut [i64], momentum: &mut [i64], sum: &[i64]) -> Result<(), KernelError> = slot;

        fn quantise(update: &[f32], residue: &mut [f32], scale: Scale, slot: &mut [i32]) -> Result<Quantised, KernelError> = quantise;
        fn quantise_residue(residue: &mut [f32], scale: Scale, slot: &mut [i32]) -> Result<Quantised, KernelError> = quantise;
        fn dequantise(slot: &[i32], scale: Scale, out: &mut [f32]) -> Result<(), KernelError> = quantise;
        fn to_float(master: &[i64], scale: Scale, out: &mut [f32]) -> Result<(), KernelError> = quantise;
        fn merge(into: &mut [i32], from: &[i32], scale: Scale, residue: &mut [f32]) -> Result<Merged, KernelError> = quantise;

        fn encode(coding: Coding, input: &[f32], residue: Option<&mut [f32]>, out: &mut [u8]) -> Result<Encoded, KernelError> = codec;
        fn decode(codec: Codec, codes: &[u8], out: &mut [f32]) -> Result<(), KernelError> = codec;
        fn decode_add(codec: Codec, codes: &[u8], sum: &mut [f32]) -> Result<(), KernelError> = codec;
        fn encode_slot(coding: Coding, slot: &[i32], out: &mut [u8]) -> Result<(), KernelError> = codec;
        fn decode_slot(codec: Codec, codes: &[u8], slot: &mut [i32]) -> Result<(), KernelError> = codec;
        fn coded_sum(codec: Codec, weights: &[u32], slots: &[&[u8]], sum: &mut [i64]) -> Result<(), KernelError> = codec;

        fn weighted_sum(weights: &[f32], inputs: &[&[f32]], out: &mut [f32]) -> Result<f64, KernelError> = aggregate;
        fn weighted_sum_bf16(weights: &[f32], inputs: &[&[u16]], out: &mut [f32]) -> Result<f64, KernelError> = aggregate;
        fn weighted_sum_q8(weights: &[f32], inputs: &[Q8<'_>], out: &mut [f32]) -> Result<f64, KernelError> = aggregate;
        fn square_norms(inputs: &[&[f32]], norms: &mut [f64]) -> Result<(), KernelError> = aggregate;
        fn robust(rule: Robust, inputs: &[&[f32]], out: &mut [f32]) -> Result<(), KernelError> = robust;
        fn top_k(x: &[f32], count: usize, indices: &mut [u32], values: &mut [f32]) -> Result<(), KernelError> = sparse;
        fn quantise_q8(input: &[f32], residue: &mut [f32], codes: &mut [i8], scales: &mut [u16]) -> Result<Encoded, KernelError> = q8;
        fn dequantise_q8(coded: Q8<'_>, out: &mut [f32]) -> Result<(), KernelError> = q8;
        fn sign_pack(x: &[f32], words: &mut [u32]) -> Result<(), KernelError> = vote;
        fn sign_vote(votes: &[&[u32]], out: &mut [u32]) -> Result<(), KernelError> = vote;
    }

    on_the_cpu! {
        fn matmul(c: MatMut<'_>, a: Mat<'_>, b: Mat<'_>, accumulate: bool);
        fn dot(x: &[f32], y: &[f32]) -> f32;
        fn axpy(alpha: f32, x: &[f32], y: &mut [f32]);
        fn scale(alpha: f32, x: &mut [f32]);
        fn rms_norm(x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32], inv_rms: &mut [f32]);
        fn rms_norm_backward(x: &[f32], gain: &[f32], inv_rms: &[f32], dy: &[f32], dx: &mut [f32], dgain: Option<&mut [f32]>, scratch: &mut [f32]);
        fn rotate(x: &mut [f32], width: usize, heads: usize, rope: Rope<'_>, inverse: bool);
        fn softmax_causal(scores: &mut [f32], len: usize, scale: f32);
        fn softmax_causal_backward(weights: &[f32], gradient: &mut [f32], len: usize, scale: f32);
        fn swiglu(gate_up: &[f32], width: usize, out: &mut [f32]);
        fn swiglu_backward(gate_up: &[f32], dout: &[f32], width: usize, dgate_up: &mut [f32]);
        fn cross_entropy(logits: &mut [f32], targets: &[u8], scale: f32) -> f64;
        fn cross_entropy_loss(logits: &mut [f32], targets: &[u8]) -> f64;
    }
}
