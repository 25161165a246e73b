//! Gradients of every tensor against central differences.

use super::{small, tokens};
use crate::{AdamW, Base, BaseTrainer, Config, GradientWorker, TrainConfig, Trainer};
use plesio_kernels::Reference;
use std::sync::Arc;

/// Checks a tensor's gradient along itself, and along its even and its odd elements alone.
///
/// Fourth-order differences: a long step truncates, a short one drowns in the rounding of a single's loss
/// (1e-7), and which is which depends on the tensor. So the best of a few steps must agree.
fn check(name: &str, gradient: &[f32], mut loss_at: impl FnMut(&[f32]) -> f64) {
    let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
    assert!(norm > 0.0, "{name}: no gradient");
    let halves: [fn(usize) -> bool; 3] = [|_| true, |e| e % 2 == 0, |e| e % 2 == 1];
    for (half, keep) in halves.into_iter().enumerate() {
        let kept = gradient.iter().enumerate().map(|(e, &g)| if keep(e) { f64::from(g) } else { 0.0 });
        let kept: Vec<f64> = kept.collect();
        let slope = kept.iter().map(|g| g * g).sum::<f64>().sqrt();
        assert!(slope > norm * 1e-2, "{name}: half {half} has no gradient");
        let mut best = f64::INFINITY;
        for step in [0.02, 0.05, 0.01, 0.1, 0.005] {
            if best < 1e-3 {
                break;
            }
            let mut at = |t: f64| {
                let shift: Vec<f32> = kept.iter().map(|g| (g / slope * t * step) as f32).collect();
                loss_at(&shift)
            };
            let numeric = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * step);
            best = best.min((numeric - slope).abs() / slope);
        }
        assert!(best < 1e-3, "{name}, half {half}: central differences differ by {best:e} of {slope}");
    }
}

#[test]
fn every_base_tensor_agrees_with_central_differences() {
    check_base(small(), 3);
}

/// Attention leaves out whole blocks of positions: two full ones and a rest.
#[test]
fn sequences_of_several_blocks_agree_with_central_differences() {
    check_base(Config { dim: 8, layers: 1, heads: 2, kv_heads: 1, ff: 8, context: 150, ..small() }, 1);
}

fn check_base(config: Config, rows: usize) {
    let context = config.context;
    let base = Base::random(config, 3).unwrap();
    let batch = tokens(rows, context);
    let scale = 1.0 / (rows * context) as f32;
    let mut worker = GradientWorker::new(Reference, &base, 2).unwrap();
    worker.accumulate(&base, &batch, scale).unwrap();
    let gradient = worker.gradient().to_vec();
    let layout = base.layout().clone();
    let mut spans = vec![("embedding", layout.embedding), ("norm", layout.norm), ("head", layout.head)];
    for layer in layout.layers {
        spans.push(("attention_norm", layer.attention_norm));
        spans.push(("qkv", layer.qkv));
        spans.push(("o", layer.o));
        spans.push(("ff_norm", layer.ff_norm));
        spans.push(("gate_up", layer.gate_up));
        spans.push(("down", layer.down));
    }
    for (name, span) in spans {
        let mut moved = base.clone();
        check(name, &gradient[span.clone()], |shift| {
            for ((w, &b), s) in
                moved.weights_mut()[span.clone()].iter_mut().zip(&base.weights()[span.clone()]).zip(shift)
            {
                *w = b + s;
            }
            worker.loss(&moved, &batch).unwrap() * f64::from(scale)
        });
    }
}

#[test]
fn every_adapter_factor_agrees_with_central_differences() {
    let base = Arc::new(Base::random(small(), 5).unwrap());
    let config = TrainConfig { rank: 3, alpha: 6.0, batch: 3, context: 12, ..TrainConfig::default() };
    let mut trainer = Trainer::new(Reference, base, config).unwrap();
    // B must not be zero, or A has no gradient.
    let start: Vec<f32> =
        trainer.layout().initial(9).iter().enumerate().map(|(e, a)| a + 0.05 * (e as f32).sin()).collect();
    trainer.params_mut().copy_from_slice(&start);
    let batch = tokens(3, 12);
    let gradient = trainer.gradient(&batch).unwrap().1.to_vec();
    for tensor in trainer.layout().tensors().to_vec() {
        check(&tensor.name, &gradient[tensor.range()], |shift| {
            trainer.params_mut().copy_from_slice(&start);
            for (param, shift) in trainer.params_mut()[tensor.range()].iter_mut().zip(shift) {
                *param += shift;
            }
            trainer.loss(&batch).unwrap()
        });
    }
}

#[test]
fn the_base_learns_a_repeated_text() {
    let base = Base::random(small(), 1).unwrap();
    let mut trainer = BaseTrainer::new(Reference, base);
    let mut workers = [GradientWorker::new(Reference, trainer.base(), 4).unwrap()];
    let batch = tokens(4, 12);
    let scale = 1.0 / 48.0;
    let first = workers[0].loss(trainer.base(), &batch).unwrap() * f64::from(scale);
    assert!((first - 256f64.ln()).abs() < 0.3, "an untrained model is not near uniform: {first}");
    for _ in 0..200 {
        workers[0].accumulate(trainer.base(), &batch, scale).unwrap();
        trainer.apply(&mut workers, AdamW { learning_rate: 1e-2, ..AdamW::default() }, 1.0).unwrap();
    }
    let last = workers[0].loss(trainer.base(), &batch).unwrap() * f64::from(scale);
    assert!(last < 0.1, "{last}");
}
