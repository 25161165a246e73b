//! Codecs on a device.

use std::ffi::CStr;

use plesio_kernels::{Codec, Coding, Device, Encoded, KernelError, codec};

use crate::accelerator::Accelerator;
use crate::call::aligned;
use crate::kernel::{CONTRIBUTIONS_MAX, Kernel, THREADS, TILE, listed};
use crate::params::{CodedSum, Decode, DecodeSlot, Encode, EncodeSlot};
use crate::{DeviceAddress, Runtime};

/// The kernels of a codec.
struct Kernels {
    encode: Kernel,
    encode_kept: Kernel,
    decode: Kernel,
    decode_add: Kernel,
    encode_slot: Kernel,
    decode_slot: Kernel,
    coded_sum: Kernel,
}

/// One kernel; `symbol` ends with its zero.
const fn kernel(symbol: &'static str) -> Kernel {
    match CStr::from_bytes_with_nul(symbol.as_bytes()) {
        Ok(name) => Kernel::new(name),
        Err(_) => panic!("a symbol ends with its only zero"),
    }
}

macro_rules! kernels {
    ($codec:literal) => {
        Kernels {
            encode: kernel(concat!("plesio_encode_", $codec, "\0")),
            encode_kept: kernel(concat!("plesio_encode_kept_", $codec, "\0")),
            decode: kernel(concat!("plesio_decode_", $codec, "\0")),
            decode_add: kernel(concat!("plesio_decode_add_", $codec, "\0")),
            encode_slot: kernel(concat!("plesio_encode_slot_", $codec, "\0")),
            decode_slot: kernel(concat!("plesio_decode_slot_", $codec, "\0")),
            coded_sum: kernel(concat!("plesio_coded_sum_", $codec, "\0")),
        }
    };
}

static FULL: Kernels = kernels!("full");
static BF16: Kernels = kernels!("bf16");
static INT8: Kernels = kernels!("int8");
static INT4_64: Kernels = kernels!("int4_64");
static INT4_128: Kernels = kernels!("int4_128");

/// The kernels of a codec; none of one that was added later.
fn kernels(codec: Codec) -> Option<&'static Kernels> {
    Some(match codec {
        Codec::Full => &FULL,
        Codec::Bf16 => &BF16,
        Codec::Int8 => &INT8,
        Codec::Int4By64 => &INT4_64,
        Codec::Int4By128 => &INT4_128,
        _ => return None,
    })
}

fn has_blocks(codec: Codec) -> bool {
    codec.block_elements() > 1
}

/// Blocks of a launch: a thread takes four elements, or eight of a codec's block.
fn blocks(codec: Codec, len: usize) -> u64 {
    let tile = if has_blocks(codec) { 8 * THREADS as usize } else { TILE };
    len.div_ceil(tile) as u64
}

/// Codes with a step are read by words wherever they lie; only those without are moved like values.
fn coded_aligned(codec: Codec, codes: &[DeviceAddress], values: &[DeviceAddress]) -> u32 {
    aligned(values) & if has_blocks(codec) { 1 } else { aligned(codes) }
}

fn first_block(coding: Coding) -> u64 {
    coding.first_element / coding.codec.block_elements() as u64
}

pub(super) fn encode<R: Runtime>(
    on: Accelerator<R>,
    coding: Coding,
    input: &[f32],
    mut residue: Option<&mut [f32]>,
    out: &mut [u8],
) -> Result<Encoded, KernelError> {
    codec::check_encode(coding.codec, input, residue.as_deref(), out)?;
    let Some(kernels) = kernels(coding.codec) else { return on.cpu().encode(coding, input, residue, out) };
    let (rest, bytes) = (residue.as_deref_mut(), &mut *out);
    let done = on.engine().attempt(move |call| {
        let len = input.len();
        let kernel = if rest.is_some() { kernels.encode_kept } else { kernels.encode };
        let (input, codes, not_finite) = (call.read(input)?, call.output(bytes)?, call.report()?);
        let residue = rest.map_or(Ok(DeviceAddress::default()), |rest| call.update(rest))?;
        let params = Encode {
            input,
            residue,
            codes,
            not_finite: not_finite.address,
            len: len as u64,
            seed: coding.seed,
            first_block: first_block(coding),
            aligned: coded_aligned(coding.codec, &[codes], &[input, residue]),
            pad: 0,
        };
        call.launch(kernel, blocks(coding.codec, len), &params)?;
        call.wait()?;
        call.deliver();
        Ok(Encoded { finite: call.reported(not_finite).is_none() })
    });
    done.map_or_else(|| on.cpu().encode(coding, input, residue, out), Ok)
}

pub(super) fn decode<R: Runtime>(
    on: Accelerator<R>,
    codec: Codec,
    codes: &[u8],
    out: &mut [f32],
) -> Result<(), KernelError> {
    codec::check_codes(codec, out.len(), codes)?;
    let Some(kernels) = kernels(codec) else { return on.cpu().decode(codec, codes, out) };
    let values = &mut *out;
    let done = on.engine().attempt(move |call| {
        let len = values.len();
        let (codes, out) = (call.read_words(codes)?, call.output(values)?);
        let aligned = coded_aligned(codec, &[codes], &[out]);
        let params = Decode { codes, out, len: len as u64, aligned, pad: 0 };
        call.launch(kernels.decode, blocks(codec, len), &params)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().decode(codec, codes, out), Ok)
}

pub(super) fn decode_add<R: Runtime>(
    on: Accelerator<R>,
    codec: Codec,
    codes: &[u8],
    sum: &mut [f32],
) -> Result<(), KernelError> {
    codec::check_codes(codec, sum.len(), codes)?;
    let Some(kernels) = kernels(codec) else { return on.cpu().decode_add(codec, codes, sum) };
    let values = &mut *sum;
    let done = on.engine().attempt(move |call| {
        let len = values.len();
        let (codes, out) = (call.read_words(codes)?, call.update(values)?);
        let aligned = coded_aligned(codec, &[codes], &[out]);
        let params = Decode { codes, out, len: len as u64, aligned, pad: 0 };
        call.launch(kernels.decode_add, blocks(codec, len), &params)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().decode_add(codec, codes, sum), Ok)
}

pub(super) fn encode_slot<R: Runtime>(
    on: Accelerator<R>,
    coding: Coding,
    slot: &[i32],
    out: &mut [u8],
) -> Result<(), KernelError> {
    codec::check_codes(coding.codec, slot.len(), out)?;
    let Some(kernels) = kernels(coding.codec) else { return on.cpu().encode_slot(coding, slot, out) };
    let bytes = &mut *out;
    let done = on.engine().attempt(move |call| {
        let len = slot.len();
        let (slot, codes) = (call.read(slot)?, call.output(bytes)?);
        let params = EncodeSlot {
            slot,
            codes,
            len: len as u64,
            seed: coding.seed,
            first_block: first_block(coding),
            aligned: coded_aligned(coding.codec, &[codes], &[slot]),
            pad: 0,
        };
        call.launch(kernels.encode_slot, blocks(coding.codec, len), &params)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().encode_slot(coding, slot, out), Ok)
}

pub(super) fn decode_slot<R: Runtime>(
    on: Accelerator<R>,
    codec: Codec,
    codes: &[u8],
    slot: &mut [i32],
) -> Result<(), KernelError> {
    codec::check_codes(codec, slot.len(), codes)?;
    let Some(kernels) = kernels(codec) else { return on.cpu().decode_slot(codec, codes, slot) };
    let values = &mut *slot;
    let done = on.engine().attempt(move |call| {
        let len = values.len();
        let (codes, slot) = (call.read_words(codes)?, call.output(values)?);
        let aligned = coded_aligned(codec, &[codes], &[slot]);
        let params = DecodeSlot { codes, slot, len: len as u64, aligned, pad: 0 };
        call.launch(kernels.decode_slot, blocks(codec, len), &params)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().decode_slot(codec, codes, slot), Ok)
}

pub(super) fn coded_sum<R: Runtime>(
    on: Accelerator<R>,
    codec: Codec,
    weights: &[u32],
    slots: &[&[u8]],
    sum: &mut [i64],
) -> Result<(), KernelError> {
    codec::check_coded_sum(codec, weights, slots, sum.len())?;
    let kernels = kernels(codec).filter(|_| slots.len() <= CONTRIBUTIONS_MAX);
    let Some(kernels) = kernels else { return on.cpu().coded_sum(codec, weights, slots, sum) };
    let out = &mut *sum;
    let done = on.engine().attempt(move |call| {
        let len = out.len();
        let places = slots.iter().map(|slot| call.read_words(slot)).collect::<Result<Vec<_>, _>>()?;
        let sum = call.output(out)?;
        let params = CodedSum {
            slots: listed(&places),
            weights: listed(weights),
            sum,
            len: len as u64,
            count: places.len() as u32,
            aligned: coded_aligned(codec, &places, &[sum]),
        };
        call.launch(kernels.coded_sum, blocks(codec, len), &params)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().coded_sum(codec, weights, slots, sum), Ok)
}
