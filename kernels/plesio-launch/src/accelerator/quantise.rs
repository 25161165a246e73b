//! Slots and the master state from and to real values on a device.

use plesio_kernels::{Device, KernelError, Merged, Quantised, Scale, slot};

use crate::accelerator::Accelerator;
use crate::call::{Call, aligned};
use crate::engine::Trouble;
use crate::kernel::{Kernel, NOTHING, tiles};
use crate::params::{Dequantise, Merge, Quantise, ToFloat};
use crate::{DeviceAddress, Runtime};

const QUANTISE: Kernel = Kernel::new(c"plesio_quantise");
const QUANTISE_RESIDUE: Kernel = Kernel::new(c"plesio_quantise_residue");
const DEQUANTISE: Kernel = Kernel::new(c"plesio_dequantise");
const TO_FLOAT: Kernel = Kernel::new(c"plesio_to_float");
const MERGE: Kernel = Kernel::new(c"plesio_merge");

pub(super) fn quantise<R: Runtime>(
    on: Accelerator<R>,
    update: &[f32],
    residue: &mut [f32],
    scale: Scale,
    slot: &mut [i32],
) -> Result<Quantised, KernelError> {
    slot::check_quantise(update, residue, slot)?;
    let (rest, out) = (&mut *residue, &mut *slot);
    let done = on.engine().attempt(move |call| {
        let update = call.read(update)?;
        run_quantise(call, QUANTISE, Some(update), rest, scale, out)
    });
    done.unwrap_or_else(|| on.cpu().quantise(update, residue, scale, slot))
}

pub(super) fn quantise_residue<R: Runtime>(
    on: Accelerator<R>,
    residue: &mut [f32],
    scale: Scale,
    slot: &mut [i32],
) -> Result<Quantised, KernelError> {
    slot::check_quantise_residue(residue, slot)?;
    let (rest, out) = (&mut *residue, &mut *slot);
    let done = on.engine().attempt(move |call| run_quantise(call, QUANTISE_RESIDUE, None, rest, scale, out));
    done.unwrap_or_else(|| on.cpu().quantise_residue(residue, scale, slot))
}

fn run_quantise<'c, R: Runtime>(
    call: &mut Call<'_, 'c, R>,
    kernel: Kernel,
    update: Option<DeviceAddress>,
    residue: &'c mut [f32],
    scale: Scale,
    slot: &'c mut [i32],
) -> Result<Result<Quantised, KernelError>, Trouble> {
    let len = residue.len();
    let (residue, slot) = (call.update(residue)?, call.output(slot)?);
    let found = call.watch(&[NOTHING, 0])?;
    let update = update.unwrap_or_default();
    let params = Quantise {
        update,
        residue,
        slot,
        not_finite: found.address,
        clamped: found.address.add(size_of::<u64>()),
        len: len as u64,
        exponent: scale.exponent().into(),
        aligned: aligned(&[update, residue, slot]),
    };
    call.launch(kernel, tiles(len), &params)?;
    call.wait()?;
    if let Some(element) = call.reported(found) {
        return Ok(Err(KernelError::NonFinite { what: "update", element }));
    }
    call.deliver();
    let [_, clamped_elements] = call.words(found);
    Ok(Ok(Quantised { clamped_elements }))
}

pub(super) fn dequantise<R: Runtime>(
    on: Accelerator<R>,
    slot: &[i32],
    scale: Scale,
    out: &mut [f32],
) -> Result<(), KernelError> {
    slot::check_dequantise(slot, out)?;
    let values = &mut *out;
    let done = on.engine().attempt(move |call| {
        let len = slot.len();
        let (slot, out) = (call.read(slot)?, call.output(values)?);
        let (exponent, aligned) = (scale.exponent().into(), aligned(&[slot, out]));
        call.launch(DEQUANTISE, tiles(len), &Dequantise { slot, out, len: len as u64, exponent, aligned })?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().dequantise(slot, scale, out), Ok)
}

pub(super) fn to_float<R: Runtime>(
    on: Accelerator<R>,
    master: &[i64],
    scale: Scale,
    out: &mut [f32],
) -> Result<(), KernelError> {
    slot::check_to_float(master, out)?;
    let values = &mut *out;
    let done = on.engine().attempt(move |call| {
        let len = master.len();
        let (master, out) = (call.read(master)?, call.output(values)?);
        let (exponent, aligned) = (scale.master_bits(), aligned(&[master, out]));
        call.launch(TO_FLOAT, tiles(len), &ToFloat { master, out, len: len as u64, exponent, aligned })?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().to_float(master, scale, out), Ok)
}

pub(super) fn merge<R: Runtime>(
    on: Accelerator<R>,
    into: &mut [i32],
    from: &[i32],
    scale: Scale,
    residue: &mut [f32],
) -> Result<Merged, KernelError> {
    slot::check_merge(into, from, residue)?;
    let (to, rest) = (&mut *into, &mut *residue);
    let done = on.engine().attempt(move |call| {
        let len = to.len();
        let (into, from, residue) = (call.update(to)?, call.read(from)?, call.update(rest)?);
        let excess = call.watch(&[0])?;
        let params = Merge {
            into,
            from,
            residue,
            excess: excess.address,
            len: len as u64,
            exponent: scale.exponent().into(),
            aligned: aligned(&[into, from, residue]),
        };
        call.launch(MERGE, tiles(len), &params)?;
        call.wait()?;
        call.deliver();
        let [excess_elements] = call.words(excess);
        Ok(Merged { excess_elements })
    });
    done.map_or_else(|| on.cpu().merge(into, from, scale, residue), Ok)
}
