//! The kernels of aggregation under `ThreadSanitizer`: an OS thread for each device thread, two blocks at a time.
//!
//! Small shapes, two blocks or three where a kernel has several: what is looked for is what barriers and the last block to
//! end do not order, not every boundary.

use std::path::Path;

use plesio_conformance::values::{floats, same, same_double, same_floats, views, wild};
use plesio_emulator::{Emulated, Engine, Setup, Toolchain};
use plesio_kernels::{Device, Q8, Reference, Robust, bf16};
use plesio_launch::{Accelerator, EngineSettings};

/// A device; none, said aloud, where no C++ compiler is.
fn device(warp_threads: u32) -> Option<Accelerator<Emulated>> {
    let toolchain = Toolchain::find().inspect_err(|why| eprintln!("skipped: {why}")).ok()?;
    let program =
        toolchain.emulator(Engine::Threads, Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("it compiles");
    let settings = EngineSettings { keep: false, ..EngineSettings::default() };
    let emulated = Emulated::start(&program, Setup { warp_threads, ..Setup::default() });
    Some(
        Accelerator::open(emulated.expect("the emulator starts"), b"", settings).expect("it has its kernels"),
    )
}

/// A finding ends the device, and the CPU does its work: so it must have been the device.
fn found_nothing(device: Accelerator<Emulated>) {
    assert_eq!(device.take_news(), Vec::<String>::new());
}

#[test]
fn sums_and_norms_have_no_races() {
    for warp_threads in [32, 64] {
        let Some(device) = device(warp_threads) else { return };
        let inputs: Vec<Vec<f32>> = (0..3).map(|k| floats(1500, k + 1)).collect();
        let weights = [0.5, -2.0, 0.1];
        let (mut found, mut expected) = (vec![7.0; 1500], vec![8.0; 1500]);
        let norm = device.weighted_sum(&weights, &views(&inputs), &mut found).expect("it fits");
        let wanted = Reference.weighted_sum(&weights, &views(&inputs), &mut expected).expect("it fits");
        same_floats("weighted_sum", device, &found, &expected);
        same_double("weighted_sum", device, norm, wanted);
        let halves: Vec<Vec<u16>> =
            inputs.iter().map(|input| input.iter().map(|&x| bf16::narrow(x)).collect()).collect();
        let norm = device.weighted_sum_bf16(&weights, &views(&halves), &mut found).expect("it fits");
        let wanted = Reference.weighted_sum_bf16(&weights, &views(&halves), &mut expected).expect("it fits");
        same_floats("weighted_sum_bf16", device, &found, &expected);
        same_double("weighted_sum_bf16", device, norm, wanted);
        let (mut codes, mut scales, mut rest) = (vec![7; 1500], vec![7; 47], inputs[1].clone());
        let encoded = device.quantise_q8(&inputs[0], &mut rest, &mut codes, &mut scales).expect("it fits");
        assert!(encoded.finite);
        let coded = Q8::new(&codes, &scales).expect("a scale for each block");
        device.dequantise_q8(coded, &mut found).expect("it fits");
        for e in 0..1500 {
            assert_eq!(found[e] + rest[e], inputs[0][e] + inputs[1][e], "nothing is lost of element {e}");
        }
        let norm = device.weighted_sum_q8(&weights[..2], &[coded; 2], &mut found).expect("it fits");
        let wanted = Reference.weighted_sum_q8(&weights[..2], &[coded; 2], &mut expected).expect("it fits");
        same_floats("weighted_sum_q8", device, &found, &expected);
        same_double("weighted_sum_q8", device, norm, wanted);
        let x = floats(9 * 1024 + 5, 4);
        let (mut found, mut expected) = ([7.0], [8.0]);
        device.square_norms(&[&x], &mut found).expect("it fits");
        Reference.square_norms(&[&x], &mut expected).expect("it fits");
        same_double("square_norms", device, found[0], expected[0]);
        found_nothing(device);
    }
}

#[test]
fn rules_and_votes_have_no_races() {
    let Some(device) = device(64) else { return };
    for (count, len) in [(3, 600), (9, 200)] {
        let inputs: Vec<Vec<f32>> = (0..count).map(|k| floats(len, k + 1)).collect();
        for rule in [Robust::Median, Robust::TrimmedMean { trim: 1 }] {
            let (mut found, mut expected) = (vec![7.0; len], vec![8.0; len]);
            device.robust(rule, &views(&inputs), &mut found).expect("it fits");
            Reference.robust(rule, &views(&inputs), &mut expected).expect("it fits");
            same_floats(&format!("{rule:?} of {count}"), device, &found, &expected);
        }
    }
    let x = wild(8192 + 70, 3);
    let (mut found, mut expected) = (vec![7; 259], vec![8; 259]);
    device.sign_pack(&x, &mut found).expect("it fits");
    Reference.sign_pack(&x, &mut expected).expect("it fits");
    same("sign_pack", device, &found, &expected);
    let mut majority = vec![7; 259];
    device.sign_vote(&[&found, &found, &[0; 259]], &mut majority).expect("it fits");
    same("sign_vote", device, &majority, &expected);
    found_nothing(device);
}

#[test]
fn selections_have_no_races() {
    let Some(device) = device(32) else { return };
    let len = 2 * 8192;
    // All that is sampled is large, so the floor is too high, and all elements are counted again.
    let striped = (0..len).map(|e| if e / 4 % 2 == 0 { 1e6 } else { 1.0 + e as f32 }).collect();
    for (x, count) in [(floats(len, 2), 150), (striped, 9000)] {
        let (mut found_at, mut found) = (vec![7; count], vec![7.0; count]);
        let (mut expected_at, mut expected) = (vec![8; count], vec![8.0; count]);
        device.top_k(&x, count, &mut found_at, &mut found).expect("it fits");
        Reference.top_k(&x, count, &mut expected_at, &mut expected).expect("it fits");
        same("top_k", device, &found_at, &expected_at);
        same_floats("top_k", device, &found, &expected);
    }
    found_nothing(device);
}
