//! Gradients of every tensor against central differences.

use crate::{AdamW, Base, BaseTrainer, Config, GradientWorker, TrainConfig, Trainer};
use plesio_kernels::Reference;
use std::sync::Arc;

fn small() -> Config {
    Config { dim: 24, layers: 2, heads: 4, kv_heads: 2, ff: 40, context: 12, ..Config::default() }
}

fn tokens(rows: usize, context: usize) -> Vec<u8> {
    (0..rows * (context + 1)).map(|i| (i * 37 % 101 + i / 7) as u8).collect()
}

/// Checks a tensor's gradient along a few directions in which it is large.
///
/// A fourth-order difference with a step of a few percent: the truncation is below 1e-4, and a single's
/// rounding of the loss (1e-7) divided by the step stays below it too.
fn check(name: &str, gradient: &[f32], mut loss_at: impl FnMut(&[f32]) -> f64) {
    let norm: f64 = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
    assert!(norm > 0.0, "{name}: no gradient");
    for mask in 0..3usize {
        // Along the gradient itself, and along it restricted to every other element.
        let keep = |e: usize| mask == 0 || e % 2 == mask - 1;
        let kept: f64 =
            (0..gradient.len()).filter(|&e| keep(e)).map(|e| f64::from(gradient[e]).powi(2)).sum();
        let length = kept.sqrt();
        if length < norm * 1e-2 {
            continue;
        }
        let direction: Vec<f32> = gradient
            .iter()
            .enumerate()
            .map(|(e, &g)| if keep(e) { (f64::from(g) / length) as f32 } else { 0.0 })
            .collect();
        let step = 0.05;
        let mut at = |t: f64| {
            let shift: Vec<f32> = direction.iter().map(|&d| (f64::from(d) * t * step) as f32).collect();
            loss_at(&shift)
        };
        let numeric = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * step);
        let error = (numeric - length).abs() / length;
        assert!(error < 1e-3, "{name}, mask {mask}: {numeric} against {length}, relative {error:e}");
    }
}

#[test]
fn every_base_tensor_agrees_with_central_differences() {
    let base = Base::random(small(), 3).unwrap();
    let batch = tokens(3, 12);
    let scale = 1.0 / (3.0 * 12.0);
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
            f64::from(trainer.gradient(&batch).unwrap().0)
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
