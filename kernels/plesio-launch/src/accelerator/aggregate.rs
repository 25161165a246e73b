//! Weighted sums and square norms on a device.

use bytemuck::Pod;
use plesio_kernels::aggregate::check_sum;
use plesio_kernels::norm::{CHUNK, check_norms};
use plesio_kernels::{Device, KernelError, Q8, q8};

use crate::accelerator::Accelerator;
use crate::call::{Call, Watched, aligned};
use crate::engine::Trouble;
use crate::kernel::{Kernel, TILE, listed, tiles};
use crate::params::{FoldNorms, SquareNorms, WeightedSum, WeightedSumQ8};
use crate::{DeviceAddress, Runtime};

const WEIGHTED_SUM: Kernel = Kernel::new(c"plesio_weighted_sum");
const WEIGHTED_SUM_BF16: Kernel = Kernel::new(c"plesio_weighted_sum_bf16");
const WEIGHTED_SUM_Q8: Kernel = Kernel::new(c"plesio_weighted_sum_q8");
const SQUARE_NORMS: Kernel = Kernel { name: c"plesio_square_norms", threads: 128 };
const FOLD_NORMS: Kernel = Kernel::new(c"plesio_fold_norms");

/// Chunks of a block of [`SQUARE_NORMS`].
const NORM_CHUNKS: usize = 8;

const _: () = assert!(CHUNK == TILE, "a block of a weighted sum has one chunk");

/// Partial sums of squares of a vector, and what they come to.
struct Norm {
    partials: DeviceAddress,
    norm: Watched,
    chunks: u64,
}

impl Norm {
    fn new<R: Runtime>(call: &mut Call<'_, '_, R>, len: usize) -> Result<Self, Trouble> {
        let chunks = len.div_ceil(CHUNK);
        let partials = call.scratch(chunks * size_of::<f32>())?;
        Ok(Self { partials, norm: call.watch(&[0f64.to_bits()])?, chunks: chunks as u64 })
    }

    /// Folds them; nothing is the norm of nothing.
    fn fold<R: Runtime>(&self, call: &mut Call<'_, '_, R>) -> Result<(), Trouble> {
        let params = FoldNorms { partials: self.partials, norms: self.norm.address, chunks: self.chunks };
        call.launch(FOLD_NORMS, u64::from(self.chunks > 0), &params)
    }

    /// The norm, after the wait.
    fn read<R: Runtime>(&self, call: &mut Call<'_, '_, R>) -> f64 {
        let [bits] = call.words(self.norm);
        f64::from_bits(bits)
    }
}

pub(super) fn weighted_sum<R: Runtime>(
    on: Accelerator<R>,
    weights: &[f32],
    inputs: &[&[f32]],
    out: &mut [f32],
) -> Result<f64, KernelError> {
    check_sum(weights, inputs, out.len())?;
    let done = run_sum(on, WEIGHTED_SUM, weights, inputs, out);
    done.map_or_else(|| on.cpu().weighted_sum(weights, inputs, out), Ok)
}

pub(super) fn weighted_sum_bf16<R: Runtime>(
    on: Accelerator<R>,
    weights: &[f32],
    inputs: &[&[u16]],
    out: &mut [f32],
) -> Result<f64, KernelError> {
    check_sum(weights, inputs, out.len())?;
    let done = run_sum(on, WEIGHTED_SUM_BF16, weights, inputs, out);
    done.map_or_else(|| on.cpu().weighted_sum_bf16(weights, inputs, out), Ok)
}

fn run_sum<R: Runtime, T: Pod>(
    on: Accelerator<R>,
    kernel: Kernel,
    weights: &[f32],
    inputs: &[&[T]],
    out: &mut [f32],
) -> Option<f64> {
    on.engine().attempt(move |call| {
        let len = out.len();
        let places = inputs.iter().map(|input| call.read(input)).collect::<Result<Vec<_>, _>>()?;
        let sum = call.output(out)?;
        let norm = Norm::new(call, len)?;
        let params = WeightedSum {
            inputs: listed(&places),
            weights: listed(weights),
            sum,
            partials: norm.partials,
            len: len as u64,
            count: places.len() as u32,
            aligned: aligned(&[&places[..], &[sum]].concat()),
        };
        call.launch(kernel, tiles(len), &params)?;
        norm.fold(call)?;
        call.wait()?;
        call.deliver();
        Ok(norm.read(call))
    })
}

pub(super) fn weighted_sum_q8<R: Runtime>(
    on: Accelerator<R>,
    weights: &[f32],
    inputs: &[Q8<'_>],
    out: &mut [f32],
) -> Result<f64, KernelError> {
    q8::check_sum(weights, inputs, out.len())?;
    let result = &mut *out;
    let done = on.engine().attempt(move |call| {
        let len = result.len();
        let codes = inputs.iter().map(|input| call.read(input.codes())).collect::<Result<Vec<_>, _>>()?;
        let scales = inputs.iter().map(|input| call.read(input.scales())).collect::<Result<Vec<_>, _>>()?;
        let sum = call.output(result)?;
        let norm = Norm::new(call, len)?;
        let params = WeightedSumQ8 {
            codes: listed(&codes),
            scales: listed(&scales),
            weights: listed(weights),
            sum,
            partials: norm.partials,
            len: len as u64,
            count: codes.len() as u32,
            aligned: aligned(&[&codes[..], &[sum]].concat()),
        };
        call.launch(WEIGHTED_SUM_Q8, tiles(len), &params)?;
        norm.fold(call)?;
        call.wait()?;
        call.deliver();
        Ok(norm.read(call))
    });
    done.map_or_else(|| on.cpu().weighted_sum_q8(weights, inputs, out), Ok)
}

pub(super) fn square_norms<R: Runtime>(
    on: Accelerator<R>,
    inputs: &[&[f32]],
    norms: &mut [f64],
) -> Result<(), KernelError> {
    check_norms(inputs, norms)?;
    let len = inputs[0].len();
    if len == 0 {
        norms.fill(0.0);
        return Ok(());
    }
    let results = &mut *norms;
    let done = on.engine().attempt(move |call| {
        let places = inputs.iter().map(|input| call.read(input)).collect::<Result<Vec<_>, _>>()?;
        let chunks = len.div_ceil(CHUNK);
        let partials = call.scratch(inputs.len() * chunks * size_of::<f32>())?;
        let blocks = chunks.div_ceil(NORM_CHUNKS) as u64;
        let params = SquareNorms {
            inputs: listed(&places),
            partials,
            len: len as u64,
            chunks: u32::try_from(chunks).map_err(|_| Trouble::TooLarge { blocks })?,
            blocks: blocks as u32,
            aligned: aligned(&places),
            pad: 0,
        };
        call.launch(SQUARE_NORMS, blocks * inputs.len() as u64, &params)?;
        let params = FoldNorms { partials, norms: call.output(results)?, chunks: chunks as u64 };
        call.launch(FOLD_NORMS, inputs.len() as u64, &params)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().square_norms(inputs, norms), Ok)
}
