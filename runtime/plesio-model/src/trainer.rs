//! Adapter training on a frozen base: one flat parameter vector, one optimiser step per call.
//!
//! The adapters are folded into a private copy of the weights whenever they change, so that the large
//! products of a step carry them at no cost; gradients reach A and B through the low-rank products.

use crate::adapter::{AdapterLayout, Group};
use crate::backward::{Sink, backward};
use crate::base::Base;
use crate::error::ModelError;
use crate::forward::{Model, Purpose, forward};
use crate::peft::{self, PeftFiles};
use crate::workspace::Workspace;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use plesio_kernels::{AdamW, AdamWState, Device, Lora};

/// How an adapter is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainConfig {
    /// Rank of every factor pair; default 8.
    pub rank: usize,
    /// The adapters' scale is `alpha / rank`; default 16.
    pub alpha: f32,
    /// Seed of the A factors, equal on all members; default 1.
    pub seed: u64,
    /// Sequences per step; default 8.
    pub batch: usize,
    /// Bytes per sequence, at most the base's context; default 128.
    pub context: usize,
    /// The optimiser's settings.
    pub optimiser: AdamW,
    /// Longest gradient; longer ones are shortened to it. Default 1.
    pub gradient_norm_max: f32,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            seed: 1,
            batch: 8,
            context: 128,
            optimiser: AdamW::default(),
            gradient_norm_max: 1.0,
        }
    }
}

/// What a step saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Mean loss in nats per byte, before the update.
    pub loss: f32,
    /// Length of the gradient, before shortening.
    pub gradient_norm: f32,
}

/// Sequences that go through the model together: the activations of two stay within the caches.
const SEQUENCES_TOGETHER: usize = 2;
/// Largest batch accepted.
const BATCH_MAX: usize = 65_536;

/// Trains and evaluates one adapter on one frozen base. All memory is allocated by `new`.
#[derive(Debug)]
pub struct Trainer<D: Device> {
    device: D,
    base: Arc<Base>,
    config: TrainConfig,
    layout: AdapterLayout,
    params: Vec<f32>,
    gradient: Vec<f32>,
    mean: Vec<f32>,
    variance: Vec<f32>,
    step: u32,
    /// The base with the adapters folded in, valid when `folded`.
    weights: Vec<f32>,
    folded: bool,
    workspace: Workspace,
}

impl<D: Device> Trainer<D> {
    /// Allocates everything; parameters start at [`AdapterLayout::initial`].
    pub fn new(device: D, base: Arc<Base>, config: TrainConfig) -> Result<Self, ModelError> {
        let layout = AdapterLayout::new(base.config(), config.rank)?;
        if config.batch == 0 || config.batch > BATCH_MAX {
            return Err(ModelError::Config { what: "batch", found: config.batch });
        }
        if config.context == 0 || config.context > base.config().context {
            return Err(ModelError::Config { what: "context", found: config.context });
        }
        if !config.alpha.is_finite() {
            return Err(ModelError::NonFinite { what: "alpha" });
        }
        let sequences = config.batch.min(SEQUENCES_TOGETHER);
        let workspace = Workspace::new(base.config(), sequences, config.context, config.rank);
        let zeros = || vec![0.0f32; layout.len()];
        Ok(Self {
            device,
            params: layout.initial(config.seed),
            gradient: zeros(),
            mean: zeros(),
            variance: zeros(),
            step: 0,
            weights: base.weights().to_vec(),
            folded: false,
            base,
            config,
            layout,
            workspace,
        })
    }

    /// Elements of the adapter vector.
    pub fn parameter_count(&self) -> usize {
        self.layout.len()
    }

    /// The adapter vector, in the order of [`AdapterLayout`].
    pub fn params(&self) -> &[f32] {
        &self.params
    }

    /// The adapter vector to overwrite, after a commit for instance.
    pub fn params_mut(&mut self) -> &mut [f32] {
        self.folded = false;
        &mut self.params
    }

    /// Where each factor lies.
    pub fn layout(&self) -> &AdapterLayout {
        &self.layout
    }

    /// The settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Bytes that [`Trainer::step`] takes: `batch` rows of `context + 1`.
    pub fn batch_bytes(&self) -> usize {
        self.config.batch * (self.config.context + 1)
    }

    /// Changes the step size from the next step on.
    pub fn set_learning_rate(&mut self, learning_rate: f32) {
        self.config.optimiser.learning_rate = learning_rate;
    }

    /// Forgets the optimiser's moments.
    pub fn reset_optimiser(&mut self) {
        self.mean.fill(0.0);
        self.variance.fill(0.0);
        self.step = 0;
    }

    /// One local step on `batch` rows of `context + 1` bytes: forward, backward, optimiser, in place.
    pub fn step(&mut self, tokens: &[u8]) -> Result<StepReport, ModelError> {
        let (loss, norm) = self.accumulate(tokens)?;
        let longest = self.config.gradient_norm_max;
        let shorten = if norm > longest { longest / norm } else { 1.0 };
        self.step = self.step.saturating_add(1);
        let scale = shorten * self.scale();
        let state = AdamWState { mean: &mut self.mean, variance: &mut self.variance, step: self.step };
        self.device.adamw(self.config.optimiser, state, scale, &self.gradient, &mut self.params);
        self.folded = false;
        Ok(StepReport { loss, gradient_norm: norm })
    }

    /// The gradient of the mean loss at the present parameters, in the adapter's layout, and that loss.
    pub fn gradient(&mut self, tokens: &[u8]) -> Result<(f32, &[f32]), ModelError> {
        let (loss, _) = self.accumulate(tokens)?;
        let scale = self.scale();
        self.device.scale(scale, &mut self.gradient);
        Ok((loss, &self.gradient))
    }

    /// The mean loss of a batch at the present parameters, without a gradient.
    pub fn loss(&mut self, tokens: &[u8]) -> Result<f64, ModelError> {
        self.check_batch(tokens)?;
        self.fold()?;
        let rows = self.workspace.sequences * (self.config.context + 1);
        let mut loss = 0.0;
        for tokens in tokens.chunks(rows) {
            let model =
                Model { config: self.base.config(), layout: self.base.layout(), weights: &self.weights };
            loss += forward(self.device, model, tokens, Purpose::Loss, &mut self.workspace);
        }
        Ok(loss / (self.config.batch * self.config.context) as f64)
    }

    /// Mean nats per byte over consecutive windows of `context` bytes; a tail short of a window is left out.
    pub fn evaluate(&mut self, text: &[u8]) -> Result<f64, ModelError> {
        let context = self.config.context;
        if text.len() <= context {
            return Err(ModelError::Length { what: "text", expected: context + 1, found: text.len() });
        }
        self.fold()?;
        let windows = (text.len() - 1) / context;
        let together = self.workspace.sequences;
        let mut tokens = Vec::with_capacity(together * (context + 1));
        let mut loss = 0.0;
        for first in (0..windows).step_by(together) {
            tokens.clear();
            for window in first..windows.min(first + together) {
                tokens.extend_from_slice(&text[window * context..(window + 1) * context + 1]);
            }
            let model =
                Model { config: self.base.config(), layout: self.base.layout(), weights: &self.weights };
            loss += forward(self.device, model, &tokens, Purpose::Loss, &mut self.workspace);
        }
        Ok(loss / (windows * context) as f64)
    }

    /// The adapter in PEFT's layout; `base_name` is what its configuration calls the base.
    pub fn export(&self, base_name: &str) -> Result<PeftFiles, ModelError> {
        peft::export(&self.layout, &self.params, self.config.alpha, base_name)
    }

    fn scale(&self) -> f32 {
        self.config.alpha / self.config.rank as f32
    }

    fn check_batch(&self, tokens: &[u8]) -> Result<(), ModelError> {
        let expected = self.batch_bytes();
        if tokens.len() == expected {
            Ok(())
        } else {
            Err(ModelError::Length { what: "batch", expected, found: tokens.len() })
        }
    }

    /// Forward and backward; leaves the gradient divided by the scale. Returns loss and true norm.
    fn accumulate(&mut self, tokens: &[u8]) -> Result<(f32, f32), ModelError> {
        self.check_batch(tokens)?;
        self.fold()?;
        self.gradient.fill(0.0);
        let count = self.config.batch * self.config.context;
        let width = self.config.context + 1;
        let mut loss = 0.0;
        for tokens in tokens.chunks(self.workspace.sequences * width) {
            let model =
                Model { config: self.base.config(), layout: self.base.layout(), weights: &self.weights };
            let purpose = Purpose::Gradient(1.0 / count as f32);
            loss += forward(self.device, model, tokens, purpose, &mut self.workspace);
            let sink =
                Sink::Adapter { layout: &self.layout, params: &self.params, gradient: &mut self.gradient };
            backward(self.device, model, tokens.len() / width, &mut self.workspace, sink);
        }
        let loss = (loss / count as f64) as f32;
        let norm = libm::sqrtf(self.device.dot(&self.gradient, &self.gradient)) * self.scale().abs();
        if !loss.is_finite() {
            return Err(ModelError::NonFinite { what: "loss" });
        }
        if !norm.is_finite() {
            return Err(ModelError::NonFinite { what: "gradient" });
        }
        Ok((loss, norm))
    }

    /// Brings the private weights up to date with the parameters.
    fn fold(&mut self) -> Result<(), ModelError> {
        if self.folded {
            return Ok(());
        }
        for (spans, groups) in self.base.layout().layers.iter().zip(self.layout.layers()) {
            let pairs = [
                (&spans.qkv, &groups.qkv),
                (&spans.o, &groups.o),
                (&spans.gate_up, &groups.gate_up),
                (&spans.down, &groups.down),
            ];
            for (span, group) in pairs {
                fold_group(
                    self.device,
                    (span, group),
                    &self.params,
                    self.config.rank,
                    self.config.alpha / self.config.rank as f32,
                    self.base.weights(),
                    &mut self.weights,
                )?;
            }
        }
        self.folded = true;
        Ok(())
    }
}

/// Folds the adapters that share one input into the rows of their fused weights.
fn fold_group<D: Device>(
    device: D,
    (span, group): (&Range<usize>, &Group),
    params: &[f32],
    rank: usize,
    scale: f32,
    base: &[f32],
    weights: &mut [f32],
) -> Result<(), ModelError> {
    let d_in = group.d_in;
    let a_len = rank * d_in;
    let mut start = span.start;
    for (index, part) in group.parts.iter().enumerate() {
        let a_start = group.a.start + index * a_len;
        let a = &params[a_start..a_start + a_len];
        let lora = Lora::new(a, &params[part.b.clone()], rank, d_in, part.d_out, scale)?;
        let rows = start..start + part.d_out * d_in;
        device.lora_fold(lora, &base[rows.clone()], &mut weights[rows.clone()])?;
        start = rows.end;
    }
    Ok(())
}
