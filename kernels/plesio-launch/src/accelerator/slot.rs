//! Sums of slots and the master state on a device.

use plesio_kernels::{Device, KernelError, Nesterov, outer, slot};

use crate::Runtime;
use crate::accelerator::Accelerator;
use crate::call::aligned;
use crate::kernel::{CONTRIBUTIONS_MAX, Kernel, listed, tiles};
use crate::params::{Apply, ApplyNesterov, Commit, SlotSum};

const SLOT_SUM: Kernel = Kernel::new(c"plesio_slot_sum");
const COMMIT: Kernel = Kernel::new(c"plesio_commit");
const APPLY: Kernel = Kernel::new(c"plesio_apply");
const APPLY_NESTEROV: Kernel = Kernel::new(c"plesio_apply_nesterov");

pub(super) fn slot_sum<R: Runtime>(
    on: Accelerator<R>,
    weights: &[u32],
    slots: &[&[i32]],
    sum: &mut [i64],
) -> Result<(), KernelError> {
    slot::check_sum(weights, slots, sum.len())?;
    if slots.len() > CONTRIBUTIONS_MAX {
        return on.cpu().slot_sum(weights, slots, sum);
    }
    let out = &mut *sum;
    let done = on.engine().attempt(move |call| {
        let len = out.len();
        let places = slots.iter().map(|slot| call.read(slot)).collect::<Result<Vec<_>, _>>()?;
        let sum = call.output(out)?;
        let params = SlotSum {
            slots: listed(&places),
            weights: listed(weights),
            sum,
            len: len as u64,
            count: places.len() as u32,
            aligned: aligned(&[&places[..], &[sum]].concat()),
        };
        call.launch(SLOT_SUM, tiles(len), &params)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().slot_sum(weights, slots, sum), Ok)
}

pub(super) fn commit<R: Runtime>(
    on: Accelerator<R>,
    weights: &[u32],
    slots: &[&[i32]],
    master: &mut [i64],
) -> Result<(), KernelError> {
    slot::check_sum(weights, slots, master.len())?;
    if slots.len() > CONTRIBUTIONS_MAX {
        return on.cpu().commit(weights, slots, master);
    }
    let state = &mut *master;
    let done = on.engine().attempt(move |call| {
        let len = state.len();
        let places = slots.iter().map(|slot| call.read(slot)).collect::<Result<Vec<_>, _>>()?;
        let (master, overflow) = (call.update(state)?, call.report()?);
        let params = Commit {
            slots: listed(&places),
            weights: listed(weights),
            master,
            overflow: overflow.address,
            len: len as u64,
            count: places.len() as u32,
            aligned: aligned(&[&places[..], &[master]].concat()),
        };
        call.launch(COMMIT, tiles(len), &params)?;
        call.wait()?;
        call.deliver();
        Ok(call.reported(overflow))
    });
    done.map_or_else(|| on.cpu().commit(weights, slots, master), overflowed)
}

pub(super) fn apply<R: Runtime>(
    on: Accelerator<R>,
    master: &mut [i64],
    sum: &[i64],
) -> Result<(), KernelError> {
    slot::check_apply(master, sum)?;
    let state = &mut *master;
    let done = on.engine().attempt(move |call| {
        let len = state.len();
        let (sum, master, overflow) = (call.read(sum)?, call.update(state)?, call.report()?);
        let params = Apply {
            master,
            sum,
            overflow: overflow.address,
            len: len as u64,
            aligned: aligned(&[master, sum]),
            pad: 0,
        };
        call.launch(APPLY, tiles(len), &params)?;
        call.wait()?;
        call.deliver();
        Ok(call.reported(overflow))
    });
    done.map_or_else(|| on.cpu().apply(master, sum), overflowed)
}

pub(super) fn apply_nesterov<R: Runtime>(
    on: Accelerator<R>,
    factors: Nesterov,
    master: &mut [i64],
    momentum: &mut [i64],
    sum: &[i64],
) -> Result<(), KernelError> {
    outer::check_apply_nesterov(master, momentum, sum)?;
    let (state, velocity) = (&mut *master, &mut *momentum);
    let done = on.engine().attempt(move |call| {
        let len = state.len();
        let sum = call.read(sum)?;
        let (master, momentum, overflow) = (call.update(state)?, call.update(velocity)?, call.report()?);
        let params = ApplyNesterov {
            master,
            momentum,
            sum,
            overflow: overflow.address,
            len: len as u64,
            momentum_factor: factors.mu16(),
            step_factor: factors.eta16(),
            aligned: aligned(&[master, momentum, sum]),
            pad: 0,
        };
        call.launch(APPLY_NESTEROV, tiles(len), &params)?;
        call.wait()?;
        call.deliver();
        Ok(call.reported(overflow))
    });
    done.map_or_else(|| on.cpu().apply_nesterov(factors, master, momentum, sum), overflowed)
}

/// The state was changed whole all the same.
fn overflowed(element: Option<usize>) -> Result<(), KernelError> {
    element.map_or(Ok(()), |element| Err(KernelError::Overflow { element }))
}
