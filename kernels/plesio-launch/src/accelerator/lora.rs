//! Low-rank layers on a device: each call is some of the three products over rows, submitted one after the other.

mod grouped;

use bytemuck::Pod;
use plesio_kernels::lora::{self, Adapter, Gradients, Lora};
use plesio_kernels::{Device, Element, KernelError, Mat, MatMut};

use crate::accelerator::Accelerator;
use crate::call::{Call, aligned};
use crate::engine::Trouble;
use crate::kernel::{Kernel, THREADS};
use crate::params::{Expand, Outer, Shrink};
use crate::{DeviceAddress, Runtime};

pub(super) use grouped::lora_grouped;

/// Ranks of a warp of `lora_shrink.h`, and rows of a block of at most these and of one of more.
const SHRINK_RANKS: usize = 8;
const SHRINK_ROWS: [usize; 2] = [32, 16];
/// Rows of a block of `lora_expand.h`, and threads that share a row: each has 16 bytes.
const EXPAND_ROWS: usize = 32;
const EXPAND_SHARING: usize = THREADS as usize / 4;
/// Columns and ranks of a block of `lora_outer.h`.
const OUTER_COLUMNS: usize = 32;
const OUTER_RANKS: usize = 16;

/// What rows and factors hold, and the kernels that are compiled for it.
pub(super) trait Stored: Pod + Element {
    const SHRINK: Kernel;
    const EXPAND: Kernel;
    const OUTER: Kernel;
    /// Elements of 16 bytes.
    const PIECE: usize = 16 / size_of::<Self>();
}

impl Stored for f32 {
    const SHRINK: Kernel = Kernel::new(c"plesio_lora_shrink");
    const EXPAND: Kernel = Kernel::new(c"plesio_lora_expand");
    const OUTER: Kernel = Kernel { name: c"plesio_lora_outer", threads: 128 };
}

impl Stored for u16 {
    const SHRINK: Kernel = Kernel::new(c"plesio_lora_shrink_bf16");
    const EXPAND: Kernel = Kernel::new(c"plesio_lora_expand_bf16");
    const OUTER: Kernel = Kernel { name: c"plesio_lora_outer_bf16", threads: 128 };
}

/// Whether every row begins at a multiple of 16 bytes: the first by its place, the others by widths and strides.
pub(super) fn pieces<E: Stored>(places: &[DeviceAddress], lengths: &[u64]) -> u32 {
    aligned(places) & u32::from(lengths.iter().all(|len| len.is_multiple_of(E::PIECE as u64)))
}

/// A count of which kernels keep 32 bits, with room for a block's rows beyond the last.
pub(super) fn short(count: usize) -> Result<u32, Trouble> {
    let fitting = u32::try_from(count).ok().filter(|count| *count <= i32::MAX as u32);
    fitting.ok_or(Trouble::TooLarge { blocks: count as u64 })
}

/// Rows that a kernel reads.
#[derive(Clone, Copy)]
struct Rows {
    place: DeviceAddress,
    rows: usize,
    width: usize,
    stride: usize,
}

impl Rows {
    fn dense(place: DeviceAddress, rows: usize, width: usize) -> Self {
        Self { place, rows, width, stride: width }
    }
}

/// `out = scale * x factors`, where out is as many rows of `rank`, `out_stride` apart.
fn shrink<E: Stored, R: Runtime>(
    call: &mut Call<'_, '_, R>,
    scale: f32,
    x: Rows,
    factors: DeviceAddress,
    (out, rank, out_stride): (DeviceAddress, usize, usize),
) -> Result<(), Trouble> {
    let (width, x_stride) = (x.width as u64, x.stride as u64);
    let params = Shrink {
        x: x.place,
        factors,
        out,
        width,
        x_stride,
        out_stride: out_stride as u64,
        rows: short(x.rows)?,
        rank: short(rank)?,
        scale,
        aligned: pieces::<E>(&[x.place, factors], &[width, x_stride]),
    };
    let wide = usize::from(rank > SHRINK_RANKS);
    let blocks = x.rows.div_ceil(SHRINK_ROWS[wide]) as u64 * rank.div_ceil(SHRINK_RANKS * (wide + 1)) as u64;
    call.launch(E::SHRINK, blocks, &params)
}

/// Coefficients of rows and ranks.
#[derive(Clone, Copy)]
struct Coefficients {
    place: DeviceAddress,
    rank: usize,
    row_stride: usize,
    rank_stride: usize,
}

impl Coefficients {
    fn dense(place: DeviceAddress, rank: usize) -> Self {
        Self { place, rank, row_stride: rank, rank_stride: 1 }
    }
}

/// `to = from + scale * coefficients factors`.
fn expand<E: Stored, R: Runtime>(
    call: &mut Call<'_, '_, R>,
    scale: f32,
    coefficients: Coefficients,
    factors: DeviceAddress,
    from: Rows,
    to: DeviceAddress,
) -> Result<(), Trouble> {
    let width = from.width as u64;
    let params = Expand {
        coefficients: coefficients.place,
        factors,
        from: from.place,
        to,
        width,
        row_stride: coefficients.row_stride as u64,
        rank_stride: coefficients.rank_stride as u64,
        rows: short(from.rows)?,
        rank: short(coefficients.rank)?,
        scale,
        aligned: pieces::<E>(&[factors, from.place, to], &[width]),
    };
    let slabs = from.width.div_ceil(EXPAND_SHARING * E::PIECE);
    call.launch(E::EXPAND, from.rows.div_ceil(EXPAND_ROWS) as u64 * slabs as u64, &params)
}

/// `out += (scale * coefficients)^T x`, where out is rank x width.
fn outer<E: Stored, R: Runtime>(
    call: &mut Call<'_, '_, R>,
    scale: f32,
    coefficients: Coefficients,
    x: Rows,
    out: DeviceAddress,
) -> Result<(), Trouble> {
    let (width, x_stride) = (x.width as u64, x.stride as u64);
    let params = Outer {
        coefficients: coefficients.place,
        x: x.place,
        out,
        rows: x.rows as u64,
        width,
        coefficients_stride: coefficients.row_stride as u64,
        x_stride,
        rank: short(coefficients.rank)?,
        scale,
        aligned: pieces::<E>(&[x.place], &[width, x_stride]),
        pad: 0,
    };
    let blocks = x.width.div_ceil(OUTER_COLUMNS) as u64 * coefficients.rank.div_ceil(OUTER_RANKS) as u64;
    call.launch(E::OUTER, blocks, &params)
}

pub(super) fn lora_shrink<R: Runtime>(
    on: Accelerator<R>,
    scale: f32,
    x: Mat<'_>,
    factors: &[f32],
    mut out: MatMut<'_>,
) {
    lora::check_shrink(x, factors, &out);
    let (rows, rank, stride) = (out.rows(), out.cols(), out.row_stride());
    let results = out.span_mut();
    if results.is_empty() {
        return;
    }
    let done = on.engine().attempt(|call| {
        let rows = Rows { place: call.read(x.span())?, rows, width: x.cols(), stride: x.row_stride() };
        let factors = call.read(factors)?;
        // What lies between the rows stays.
        let place = if stride == rank { call.output(results)? } else { call.update(results)? };
        shrink::<f32, R>(call, scale, rows, factors, (place, rank, stride))?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    if done.is_none() {
        on.cpu().lora_shrink(scale, x, factors, out);
    }
}

pub(super) fn lora_outer<R: Runtime>(
    on: Accelerator<R>,
    scale: f32,
    coefficients: Mat<'_>,
    x: Mat<'_>,
    out: &mut [f32],
) {
    lora::check_outer(coefficients, x, out);
    if x.rows() == 0 {
        return;
    }
    let sums = &mut *out;
    let done = on.engine().attempt(move |call| {
        let rows =
            Rows { place: call.read(x.span())?, rows: x.rows(), width: x.cols(), stride: x.row_stride() };
        let coefficients = Coefficients {
            row_stride: coefficients.row_stride(),
            ..Coefficients::dense(call.read(coefficients.span())?, coefficients.cols())
        };
        let sums = call.update(sums)?;
        outer::<f32, R>(call, scale, coefficients, rows, sums)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    if done.is_none() {
        on.cpu().lora_outer(scale, coefficients, x, out);
    }
}

pub(super) fn lora_forward<R: Runtime>(
    on: Accelerator<R>,
    lora: Lora<'_>,
    x: &[f32],
    h: &mut [f32],
    y: &mut [f32],
) -> Result<(), KernelError> {
    let done = forward(on, lora, x, h, y)?;
    done.map_or_else(|| on.cpu().lora_forward(lora, x, h, y), Ok)
}

pub(super) fn lora_forward_bf16<R: Runtime>(
    on: Accelerator<R>,
    adapter: Adapter<'_>,
    x: &[u16],
    h: &mut [f32],
    y: &mut [u16],
) -> Result<(), KernelError> {
    let done = forward(on, adapter, x, h, y)?;
    done.map_or_else(|| on.cpu().lora_forward_bf16(adapter, x, h, y), Ok)
}

/// Nothing where the device cannot.
fn forward<E: Stored, R: Runtime>(
    on: Accelerator<R>,
    lora: Lora<'_, E>,
    x: &[E],
    h: &mut [f32],
    y: &mut [E],
) -> Result<Option<()>, KernelError> {
    let rows = lora.rows(x, y, h)?;
    Ok(on.engine().attempt(move |call| {
        let (x, a, b) = (call.read(x)?, call.read(lora.a())?, call.read(lora.b())?);
        let (h, y) = (call.output(h)?, call.update(y)?);
        let rank = lora.rank();
        shrink::<E, R>(call, 1.0, Rows::dense(x, rows, lora.d_in()), a, (h, rank, rank))?;
        let y = Rows::dense(y, rows, lora.d_out());
        expand::<E, R>(call, lora.scale(), Coefficients::dense(h, rank), b, y, y.place)?;
        call.wait()?;
        call.deliver();
        Ok(())
    }))
}

pub(super) fn lora_backward<R: Runtime>(
    on: Accelerator<R>,
    lora: Lora<'_>,
    x: &[f32],
    g: &[f32],
    h: &mut [f32],
    mut gradients: Gradients<'_>,
) -> Result<(), KernelError> {
    let done = backward(on, lora, x, g, h, &mut gradients)?;
    done.map_or_else(|| on.cpu().lora_backward(lora, x, g, h, gradients), Ok)
}

pub(super) fn lora_backward_bf16<R: Runtime>(
    on: Accelerator<R>,
    adapter: Adapter<'_>,
    x: &[u16],
    g: &[u16],
    h: &mut [f32],
    mut gradients: Gradients<'_, u16>,
) -> Result<(), KernelError> {
    let done = backward(on, adapter, x, g, h, &mut gradients)?;
    done.map_or_else(|| on.cpu().lora_backward_bf16(adapter, x, g, h, gradients), Ok)
}

/// Nothing where the device cannot.
fn backward<E: Stored, R: Runtime>(
    on: Accelerator<R>,
    lora: Lora<'_, E>,
    x: &[E],
    g: &[E],
    h: &mut [f32],
    gradients: &mut Gradients<'_, E>,
) -> Result<Option<()>, KernelError> {
    let rows = lora.rows_back(x, g, h, gradients)?;
    if rows == 0 {
        return Ok(Some(()));
    }
    let Gradients { a: da, b: db, x: dx } = gradients;
    Ok(on.engine().attempt(move |call| {
        let (rank, scale) = (lora.rank(), lora.scale());
        let x = Rows::dense(call.read(x)?, rows, lora.d_in());
        let g = Rows::dense(call.read(g)?, rows, lora.d_out());
        let (h, a, b) = (call.update(h)?, call.read(lora.a())?, call.read(lora.b())?);
        let (da, db) = (call.update(da)?, call.update(db)?);
        let coefficients = Coefficients::dense(h, rank);
        outer::<E, R>(call, scale, coefficients, g, db)?;
        shrink::<E, R>(call, scale, g, b, (h, rank, rank))?;
        outer::<E, R>(call, 1.0, coefficients, x, da)?;
        if let Some(dx) = dx {
            let dx = Rows::dense(call.update(dx)?, rows, lora.d_in());
            expand::<E, R>(call, 1.0, coefficients, a, dx, dx.place)?;
        }
        call.wait()?;
        call.deliver();
        Ok(())
    }))
}

pub(super) fn lora_fold<R: Runtime>(
    on: Accelerator<R>,
    lora: Lora<'_>,
    weights: &[f32],
    merged: &mut [f32],
) -> Result<(), KernelError> {
    lora.check_fold(weights, merged)?;
    let sums = &mut *merged;
    let done = on.engine().attempt(move |call| {
        let (a, b, sums) = (call.read(lora.a())?, call.read(lora.b())?, call.output(sums)?);
        let from = Rows::dense(call.read(weights)?, lora.d_out(), lora.d_in());
        // B is kept transposed: its columns are the coefficients of a row.
        let columns = Coefficients { place: b, rank: lora.rank(), row_stride: 1, rank_stride: lora.d_out() };
        expand::<f32, R>(call, lora.scale(), columns, a, from, sums)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().lora_fold(lora, weights, merged), Ok)
}
