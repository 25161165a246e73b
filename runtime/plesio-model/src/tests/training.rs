//! Adapter training: it learns, it repeats bit for bit, and what it refuses leaves no trace.

use super::{small, tokens};
use crate::{AdamW, Base, ModelError, TrainConfig, Trainer};
use plesio_kernels::Reference;
use std::sync::Arc;

fn trainer(batch: usize) -> Trainer<Reference> {
    let base = Arc::new(Base::random(small(), 5).unwrap());
    let optimiser = AdamW { learning_rate: 1e-2, ..AdamW::default() };
    let config = TrainConfig { rank: 2, batch, context: 12, optimiser, ..TrainConfig::default() };
    Trainer::new(Reference, base, config).unwrap()
}

#[test]
fn a_repeated_batch_is_learned_and_runs_repeat_bit_for_bit() {
    let batch = tokens(3, 12);
    let (mut first, mut second) = (trainer(3), trainer(3));
    let before = first.step(&batch).unwrap().loss;
    second.step(&batch).unwrap();
    for _ in 0..30 {
        let (a, b) = (first.step(&batch).unwrap(), second.step(&batch).unwrap());
        assert_eq!(a.loss.to_bits(), b.loss.to_bits());
    }
    let after = first.step(&batch).unwrap().loss;
    assert!(after < before - 0.3, "{before} to {after}");
    second.step(&batch).unwrap();
    assert_eq!(first.params(), second.params());
}

#[test]
fn a_fresh_adapter_is_the_base() {
    let mut trainer = trainer(2);
    let text = tokens(7, 12);
    let fresh = trainer.evaluate(&text).unwrap();
    trainer.params_mut().fill(0.0);
    assert_eq!(trainer.evaluate(&text).unwrap(), fresh);
}

#[test]
fn evaluation_is_the_mean_of_the_steps_losses() {
    let mut trainer = trainer(1);
    let text: Vec<u8> = tokens(3, 12);
    let windows = (text.len() - 1) / 12;
    let mut sum = 0.0;
    for window in 0..windows {
        let row = &text[window * 12..window * 12 + 13];
        sum += f64::from(trainer.gradient(row).unwrap().0);
    }
    assert!((trainer.evaluate(&text).unwrap() - sum / windows as f64).abs() < 1e-6);
    // A batch that the workspace takes in turns has the same gradient as its rows together.
    let rows = tokens(5, 12);
    let mut whole = self::trainer(5);
    let gradient = whole.gradient(&rows).unwrap().1.to_vec();
    let mut mean = vec![0.0f32; gradient.len()];
    for row in rows.chunks(13) {
        for (mean, g) in mean.iter_mut().zip(trainer.gradient(row).unwrap().1) {
            *mean += g / 5.0;
        }
    }
    for (a, b) in gradient.iter().zip(&mean) {
        assert!((a - b).abs() < 1e-5 * (1.0 + b.abs()), "{a} against {b}");
    }
}

#[test]
fn what_is_refused_leaves_the_state_unchanged() {
    let mut trainer = trainer(2);
    let batch = tokens(2, 12);
    trainer.step(&batch).unwrap();
    let params = trainer.params().to_vec();

    for bytes in [0, 1, 25, 27] {
        assert!(matches!(trainer.step(&vec![0; bytes]), Err(ModelError::Length { .. })));
    }
    assert!(matches!(trainer.evaluate(&batch[..12]), Err(ModelError::Length { .. })));
    assert_eq!(trainer.params(), params);

    // A poisoned vector is refused, and once repaired training goes on as if nothing had been.
    let last = params.len() - 1;
    for bad in [f32::NAN, f32::INFINITY] {
        trainer.params_mut()[last] = bad;
        assert!(trainer.step(&batch).is_err());
        assert!(trainer.evaluate(&batch).is_err());
        assert_eq!(trainer.params()[..last], params[..last]);
    }
    // Finite, but the loss is not.
    trainer.params_mut().fill(1e30);
    assert!(matches!(trainer.step(&batch), Err(ModelError::NonFinite { .. })));
    trainer.params_mut().copy_from_slice(&params);
    let mut untouched = self::trainer(2);
    untouched.step(&batch).unwrap();
    assert_eq!(trainer.step(&batch).unwrap(), untouched.step(&batch).unwrap());
    assert_eq!(trainer.params(), untouched.params());
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let base = Arc::new(Base::random(small(), 5).unwrap());
    let good = TrainConfig { rank: 2, batch: 2, context: 12, ..TrainConfig::default() };
    let bad = [
        TrainConfig { rank: 0, ..good.clone() },
        TrainConfig { rank: 25, ..good.clone() },
        TrainConfig { batch: 0, ..good.clone() },
        TrainConfig { batch: usize::MAX, ..good.clone() },
        TrainConfig { context: 0, ..good.clone() },
        TrainConfig { context: 13, ..good.clone() },
        TrainConfig { alpha: f32::NAN, ..good.clone() },
    ];
    for config in bad {
        assert!(Trainer::new(Reference, Arc::clone(&base), config.clone()).is_err(), "{config:?}");
    }
    assert!(Trainer::new(Reference, base, good).is_ok());
}
