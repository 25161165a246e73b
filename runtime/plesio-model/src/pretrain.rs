//! Training of the base itself: every weight, AdamW, gradients from any number of workers.
//!
//! A worker owns its buffers, so that callers may run several on threads of their own; gradients are then
//! added in the order given, which keeps runs repeatable.

use crate::backward::{Sink, backward};
use crate::base::Base;
use crate::error::ModelError;
use crate::forward::{Model, Purpose, forward};
use crate::workspace::Workspace;
use alloc::vec;
use alloc::vec::Vec;
use plesio_kernels::{AdamW, AdamWState, Device};

/// Computes losses and gradients of a base over its share of a batch.
#[derive(Debug)]
pub struct GradientWorker<D: Device> {
    device: D,
    workspace: Workspace,
    gradient: Vec<f32>,
}

impl<D: Device> GradientWorker<D> {
    /// Buffers for `sequences` sequences at a time of the base's context.
    pub fn new(device: D, base: &Base, sequences: usize) -> Result<Self, ModelError> {
        if sequences == 0 {
            return Err(ModelError::Config { what: "sequences", found: 0 });
        }
        let workspace = Workspace::new(base.config(), sequences, base.config().context, 0);
        Ok(Self { device, workspace, gradient: vec![0.0; base.parameter_count()] })
    }

    /// Adds the gradient of `scale` times the summed loss of rows of `context + 1` bytes; returns that sum.
    pub fn accumulate(&mut self, base: &Base, tokens: &[u8], scale: f32) -> Result<f64, ModelError> {
        self.check(tokens)?;
        let model = Model { config: base.config(), layout: base.layout(), weights: base.weights() };
        let width = self.workspace.context + 1;
        let mut loss = 0.0;
        for tokens in tokens.chunks(self.workspace.sequences * width) {
            loss += forward(self.device, model, tokens, Purpose::Gradient(scale), &mut self.workspace);
            let sink = Sink::Base(&mut self.gradient);
            backward(self.device, model, tokens.len() / width, &mut self.workspace, sink);
        }
        Ok(loss)
    }

    /// The summed loss of rows of `context + 1` bytes, without a gradient.
    pub fn loss(&mut self, base: &Base, tokens: &[u8]) -> Result<f64, ModelError> {
        self.check(tokens)?;
        let model = Model { config: base.config(), layout: base.layout(), weights: base.weights() };
        let rows = self.workspace.sequences * (self.workspace.context + 1);
        let workspace = &mut self.workspace;
        let losses = tokens.chunks(rows).map(|t| forward(self.device, model, t, Purpose::Loss, workspace));
        Ok(losses.sum())
    }

    /// The gradient added up since the last step, in the base's layout.
    pub fn gradient(&self) -> &[f32] {
        &self.gradient
    }

    fn check(&self, tokens: &[u8]) -> Result<(), ModelError> {
        let width = self.workspace.context + 1;
        if tokens.is_empty() || !tokens.len().is_multiple_of(width) {
            let expected = tokens.len().max(1).next_multiple_of(width);
            return Err(ModelError::Length { what: "batch", expected, found: tokens.len() });
        }
        Ok(())
    }
}

/// A base in training and its optimiser.
#[derive(Debug)]
pub struct BaseTrainer<D: Device> {
    device: D,
    base: Base,
    mean: Vec<f32>,
    variance: Vec<f32>,
    step: u32,
}

impl<D: Device> BaseTrainer<D> {
    /// Starts from a base, usually a random one.
    pub fn new(device: D, base: Base) -> Self {
        let len = base.parameter_count();
        Self { device, base, mean: vec![0.0; len], variance: vec![0.0; len], step: 0 }
    }

    /// The base as trained so far.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// One optimiser step on the workers' gradients, added in order and clipped to `norm_max`; clears them.
    /// Returns the norm before clipping. A non-finite gradient is refused and the base unchanged.
    pub fn apply(
        &mut self,
        workers: &mut [GradientWorker<D>],
        settings: AdamW,
        norm_max: f32,
    ) -> Result<f32, ModelError> {
        let Some((first, others)) = workers.split_first_mut() else {
            return Err(ModelError::Config { what: "workers", found: 0 });
        };
        for other in others {
            self.device.axpy(1.0, &other.gradient, &mut first.gradient);
            other.gradient.fill(0.0);
        }
        let norm = libm::sqrtf(self.device.dot(&first.gradient, &first.gradient));
        if !norm.is_finite() {
            first.gradient.fill(0.0);
            return Err(ModelError::NonFinite { what: "gradient" });
        }
        self.step += 1;
        let state = AdamWState { mean: &mut self.mean, variance: &mut self.variance, step: self.step };
        let scale = if norm > norm_max { norm_max / norm } else { 1.0 };
        self.device.adamw(settings, state, scale, &first.gradient, self.base.weights_mut());
        first.gradient.fill(0.0);
        Ok(norm)
    }

    /// Ends training.
    pub fn into_base(self) -> Base {
        self.base
    }
}
