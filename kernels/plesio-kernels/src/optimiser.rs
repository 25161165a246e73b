//! AdamW, one fused pass over parameters, gradients and both moments.

use crate::arithmetic::Arithmetic;

/// The optimiser's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Step size; default 1e-3.
    pub learning_rate: f32,
    /// Decay of the first moment; default 0.9.
    pub beta1: f32,
    /// Decay of the second moment; default 0.99.
    pub beta2: f32,
    /// Floor under the root of the second moment; default 1e-8.
    pub epsilon: f32,
    /// Decoupled weight decay; default 0.
    pub weight_decay: f32,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { learning_rate: 1e-3, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// What a step takes of the settings, the same for every parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepFactors {
    /// The learning rate, corrected for the first moment's beginning at zero.
    pub rate: f32,
    /// The second moment's correction, as a factor.
    pub inv_correction2: f32,
    /// What is added of a parameter to itself: negative or zero.
    pub decay: f32,
    /// 1 - beta1.
    pub gain1: f32,
    /// 1 - beta2.
    pub gain2: f32,
}

impl AdamW {
    /// The factors of a step, which are counted from 1.
    #[must_use]
    pub fn factors(&self, step: u32) -> StepFactors {
        // In double precision: 1 - beta^t loses half its digits in single for small t.
        let correction1 = 1.0 - libm::pow(f64::from(self.beta1), f64::from(step));
        let correction2 = 1.0 - libm::pow(f64::from(self.beta2), f64::from(step));
        StepFactors {
            rate: (f64::from(self.learning_rate) / correction1) as f32,
            inv_correction2: (1.0 / correction2) as f32,
            decay: -self.learning_rate * self.weight_decay,
            gain1: 1.0 - self.beta1,
            gain2: 1.0 - self.beta2,
        }
    }
}

/// What the optimiser carries from step to step.
#[derive(Debug)]
pub struct AdamWState<'a> {
    /// First moment, one per parameter.
    pub mean: &'a mut [f32],
    /// Second moment, one per parameter.
    pub variance: &'a mut [f32],
    /// Number of this step, from 1.
    pub step: u32,
}

impl AdamWState<'_> {
    /// # Panics
    /// When a buffer of the step has another length than the parameters.
    pub fn check(&self, gradient: &[f32], params: &[f32]) {
        let len = params.len();
        let equal = gradient.len() == len && self.mean.len() == len && self.variance.len() == len;
        assert!(equal, "adamw shapes");
    }
}

/// One step in place. The gradient is multiplied by `gradient_scale` first (clipping, averaging).
///
/// # Panics
/// When the buffers differ in length.
#[inline(always)]
pub fn adamw<F: Arithmetic>(
    settings: AdamW,
    state: AdamWState<'_>,
    gradient_scale: f32,
    gradient: &[f32],
    params: &mut [f32],
) {
    state.check(gradient, params);
    let AdamWState { mean, variance, step } = state;
    let AdamW { beta1, beta2, epsilon, .. } = settings;
    let StepFactors { rate, inv_correction2, decay, gain1, gain2 } = settings.factors(step);
    for (((param, &gradient), mean), variance) in params.iter_mut().zip(gradient).zip(mean).zip(variance) {
        let gradient = gradient * gradient_scale;
        *mean = F::fused(beta1, *mean, gain1 * gradient);
        *variance = F::fused(beta2, *variance, gain2 * gradient * gradient);
        let root = F::sqrt(*variance * inv_correction2) + epsilon;
        let decayed = F::fused(decay, *param, *param);
        *param = F::fused(-rate, *mean / root, decayed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::Soft;

    #[test]
    fn the_first_step_moves_every_parameter_by_the_learning_rate() {
        let mut params = [1.0, -2.0, 0.0];
        let (mut mean, mut variance) = ([0.0; 3], [0.0; 3]);
        let state = AdamWState { mean: &mut mean, variance: &mut variance, step: 1 };
        adamw::<Soft>(AdamW::default(), state, 1.0, &[0.5, -3.0, 1e-3], &mut params);
        for (param, expected) in params.iter().zip([1.0 - 1e-3, -2.0 + 1e-3, -1e-3]) {
            assert!((param - expected).abs() < 1e-6, "{param} against {expected}");
        }
    }

    #[test]
    fn a_quadratic_is_minimised_and_decay_pulls_to_zero() {
        let mut params = [3.0f32];
        let (mut mean, mut variance) = ([0.0], [0.0]);
        for step in 1..=2000 {
            let gradient = [2.0 * (params[0] - 1.0)];
            let state = AdamWState { mean: &mut mean, variance: &mut variance, step };
            let settings = AdamW { learning_rate: 1e-2, ..AdamW::default() };
            adamw::<Soft>(settings, state, 1.0, &gradient, &mut params);
        }
        assert!((params[0] - 1.0).abs() < 1e-3);
        let settings = AdamW { weight_decay: 0.5, ..AdamW::default() };
        let before = params[0];
        let (mut mean, mut variance) = ([0.0], [0.0]);
        let state = AdamWState { mean: &mut mean, variance: &mut variance, step: 1 };
        adamw::<Soft>(settings, state, 1.0, &[0.0], &mut params);
        assert!((params[0] - before * (1.0 - 0.5e-3)).abs() < 1e-6);
    }
}
