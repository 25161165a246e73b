//! Codes of eight bits with a scale for each block of 32, on a device.

use plesio_kernels::q8::{check_dequantise, check_quantise};
use plesio_kernels::{Device, Encoded, KernelError, Q8};

use crate::Runtime;
use crate::accelerator::Accelerator;
use crate::call::aligned;
use crate::kernel::{Kernel, TILE, tiles};
use crate::params::{DequantiseQ8, QuantiseQ8};

const QUANTISE: Kernel = Kernel::new(c"plesio_quantise_q8");
const DEQUANTISE: Kernel = Kernel::new(c"plesio_dequantise_q8");

/// Elements of a block of [`DEQUANTISE`].
const DEQUANTISE_TILE: usize = 4 * TILE;

pub(super) fn quantise_q8<R: Runtime>(
    on: Accelerator<R>,
    input: &[f32],
    residue: &mut [f32],
    codes: &mut [i8],
    scales: &mut [u16],
) -> Result<Encoded, KernelError> {
    check_quantise(input, residue, codes, scales)?;
    let (rest, codes_out, scales_out) = (&mut *residue, &mut *codes, &mut *scales);
    let done = on.engine().attempt(move |call| {
        let len = input.len();
        let (place, residue) = (call.read(input)?, call.update(rest)?);
        let (codes, scales, wrong) = (call.output(codes_out)?, call.output(scales_out)?, call.report()?);
        let params = QuantiseQ8 {
            input: place,
            residue,
            codes,
            scales,
            wrong: wrong.address,
            len: len as u64,
            aligned: aligned(&[place, residue, codes]),
            pad: 0,
        };
        call.launch(QUANTISE, tiles(len), &params)?;
        call.wait()?;
        call.deliver();
        Ok(Encoded { finite: call.reported(wrong).is_none() })
    });
    done.map_or_else(|| on.cpu().quantise_q8(input, residue, codes, scales), Ok)
}

pub(super) fn dequantise_q8<R: Runtime>(
    on: Accelerator<R>,
    coded: Q8<'_>,
    out: &mut [f32],
) -> Result<(), KernelError> {
    check_dequantise(coded, out)?;
    let values = &mut *out;
    let done = on.engine().attempt(move |call| {
        let len = values.len();
        let (codes, scales) = (call.read(coded.codes())?, call.read(coded.scales())?);
        let out = call.output(values)?;
        let params =
            DequantiseQ8 { codes, scales, out, len: len as u64, aligned: aligned(&[codes, out]), pad: 0 };
        call.launch(DEQUANTISE, len.div_ceil(DEQUANTISE_TILE) as u64, &params)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().dequantise_q8(coded, out), Ok)
}
