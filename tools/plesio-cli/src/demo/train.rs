//! One member's training: the same code, data order and hyperparameters in the mesh and alone.

use plesio::AnyDevice;
use plesio_model::{AdamW, AdapterLayout, Base, ModelError, Sampler, TrainConfig, Trainer};
use std::sync::Arc;

/// The one setting that is the demo's own.
const LEARNING_RATE: f32 = 3e-3;

/// Hyperparameters of the demo, the same for every member.
pub(crate) fn config(adapter_seed: u64) -> TrainConfig {
    let optimiser = AdamW { learning_rate: LEARNING_RATE, ..AdamW::default() };
    TrainConfig { seed: adapter_seed, optimiser, ..TrainConfig::default() }
}

/// A trainer on the demo's base, at the common start.
pub(crate) fn trainer(
    device: AnyDevice,
    base: &Arc<Base>,
    adapter_seed: u64,
) -> Result<Trainer<AnyDevice>, ModelError> {
    Trainer::new(device, Arc::clone(base), config(adapter_seed))
}

/// Elements of the adapter: the length of every state that travels.
pub(crate) fn elements(base: &Base, adapter_seed: u64) -> Result<usize, ModelError> {
    Ok(AdapterLayout::new(base.config(), config(adapter_seed).rank)?.len())
}

/// A trainer on the CPU at the common start plus `state`, the sum of what a mesh agreed on.
pub(crate) fn moved(
    base: &Arc<Base>,
    adapter_seed: u64,
    state: &[f32],
) -> Result<Trainer<AnyDevice>, ModelError> {
    let mut trainer = trainer(AnyDevice::default(), base, adapter_seed)?;
    for (param, step) in trainer.params_mut().iter_mut().zip(state) {
        *param += step;
    }
    Ok(trainer)
}

/// A trainer with its text.
pub(crate) struct Student {
    trainer: Trainer<AnyDevice>,
    sampler: Sampler,
    text: Vec<u8>,
    tokens: Vec<u8>,
    context: usize,
}

impl Student {
    /// Of `text`, in an order drawn from `sampler_seed`.
    pub(crate) fn new(
        device: AnyDevice,
        base: &Arc<Base>,
        adapter_seed: u64,
        text: Vec<u8>,
        sampler_seed: u64,
    ) -> Result<Self, ModelError> {
        let trainer = trainer(device, base, adapter_seed)?;
        let tokens = vec![0; trainer.batch_bytes()];
        let context = config(adapter_seed).context;
        let sampler = Sampler::new(sampler_seed);
        Ok(Self { trainer, sampler, text, tokens, context })
    }

    /// One local step; answers the loss before it.
    pub(crate) fn step(&mut self) -> Result<f32, ModelError> {
        self.sampler.fill(&self.text, self.context, &mut self.tokens)?;
        self.trainer.step(&self.tokens).map(|report| report.loss)
    }

    /// One step that leaves no trace: memory and threads are warm when the mesh begins.
    pub(crate) fn warm_up(&mut self) -> Result<(), ModelError> {
        let params = self.trainer.params().to_vec();
        let mut sampler = Sampler::new(0);
        sampler.fill(&self.text, self.context, &mut self.tokens)?;
        self.trainer.step(&self.tokens)?;
        self.trainer.params_mut().copy_from_slice(&params);
        self.trainer.reset_optimiser();
        Ok(())
    }

    /// The moments of steps that are thrown away are no good either.
    pub(crate) fn reset_optimiser(&mut self) {
        self.trainer.reset_optimiser();
    }

    pub(crate) fn params_mut(&mut self) -> &mut [f32] {
        self.trainer.params_mut()
    }

    pub(crate) fn into_trainer(self) -> Trainer<AnyDevice> {
        self.trainer
    }
}
