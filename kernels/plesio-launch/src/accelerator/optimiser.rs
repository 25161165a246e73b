//! AdamW on a device.

use plesio_kernels::optimiser::StepFactors;
use plesio_kernels::{AdamW, AdamWState, Device};

use crate::Runtime;
use crate::accelerator::Accelerator;
use crate::call::aligned;
use crate::kernel::{Kernel, tiles};
use crate::params;

const ADAMW: Kernel = Kernel::new(c"plesio_adamw");

pub(super) fn adamw<R: Runtime>(
    on: Accelerator<R>,
    settings: AdamW,
    state: AdamWState<'_>,
    gradient_scale: f32,
    gradient: &[f32],
    params: &mut [f32],
) {
    state.check(gradient, params);
    let AdamWState { mean, variance, step } = state;
    let (means, variances, out) = (&mut *mean, &mut *variance, &mut *params);
    let done = on.engine().attempt(move |call| {
        let len = out.len();
        let gradient = call.read(gradient)?;
        let (mean, variance, params) = (call.update(means)?, call.update(variances)?, call.update(out)?);
        let AdamW { beta1, beta2, epsilon, .. } = settings;
        let StepFactors { rate, inv_correction2, decay, gain1, gain2 } = settings.factors(step);
        let aligned = aligned(&[gradient, mean, variance, params]);
        let step = params::AdamW {
            gradient,
            mean,
            variance,
            params,
            len: len as u64,
            gradient_scale,
            beta1,
            gain1,
            beta2,
            gain2,
            inv_correction2,
            epsilon,
            rate,
            decay,
            aligned,
        };
        call.launch(ADAMW, tiles(len), &step)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    if done.is_none() {
        on.cpu().adamw(settings, AdamWState { mean, variance, step }, gradient_scale, gradient, params);
    }
}
