//! AdamW.

use plesio_kernels::{AdamW, AdamWState, Device, Reference};

use crate::Effort;
use crate::values::{floats, lengths, same_floats, wild};

/// Every operation of `plesio_kernels::optimiser`.
pub fn conform<D: Device>(device: D, effort: Effort) {
    let decaying = AdamW { weight_decay: 0.1, ..AdamW::default() };
    let sudden = AdamW { learning_rate: 3.0, beta1: 0.0, beta2: 0.999, epsilon: 0.0, weight_decay: 0.5 };
    for &len in lengths(effort) {
        for (settings, step, gradient_scale) in [
            (AdamW::default(), 1, 1.0),
            (decaying, 2, 0.125),
            (decaying, 1_000_000, -3.0),
            (sudden, 7, 0.0),
            (sudden, 3, 1e-38),
        ] {
            steps(device, settings, step, gradient_scale, len);
        }
    }
}

/// Two small steps: for a device that watches its threads, which is very slow.
pub fn glance<D: Device>(device: D) {
    steps(device, AdamW::default(), 3, 0.5, 1030);
}

/// Two steps, the second from where the first has led.
fn steps<D: Device>(device: D, settings: AdamW, step: u32, gradient_scale: f32, len: usize) {
    for values in [floats, wild] {
        // Variances of both signs: the root of a negative one is NaN everywhere.
        let start = [values(len, 1), values(len, 2), values(len, 3)];
        let (mut found, mut expected) = (start.clone(), start);
        for step in [step, step + 1] {
            let gradient = values(len, u64::from(step));
            one_step(device, (settings, step, gradient_scale), &gradient, &mut found);
            one_step(Reference, (settings, step, gradient_scale), &gradient, &mut expected);
            for (part, (found, expected)) in
                ["mean", "variance", "params"].iter().zip(found.iter().zip(&expected))
            {
                let what = format!("{part} of adamw of {len}, step {step}, gradient by {gradient_scale}");
                same_floats(&what, device, found, expected);
            }
        }
    }
}

fn one_step<D: Device>(
    device: D,
    (settings, step, gradient_scale): (AdamW, u32, f32),
    gradient: &[f32],
    [mean, variance, params]: &mut [Vec<f32>; 3],
) {
    device.adamw(settings, AdamWState { mean, variance, step }, gradient_scale, gradient, params);
}
