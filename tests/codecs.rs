//! What a codec costs the task: the adapter of four members that each train on a text of its own, with the same steps in the
//! same order, whatever their contributions travel as. Nothing here depends on time, so the differences are the codec's.
//!
//! Bars (collectives specification, section 2): int8 within 0.5 % and int4 within 1 % of the reference, and inside the spread
//! of seeds, of which there are three.

use plesio_cpu::Cpu;
use plesio_kernels::{AdamW, Codec, Coding, Device, Scale, WEIGHT_ONE};
use plesio_model::{Base, Sampler, TrainConfig, Trainer, split_held_out};
use std::path::Path;
use std::sync::Arc;

const SHARDS: [&str; 4] = ["scripture", "spanish", "header", "hackers"];
const FRAMES: u64 = 12;
const STEPS_PER_FRAME: u32 = 2;
/// Of each member's held-out text.
const JUDGED_BYTES: usize = 16 << 10;

struct Member {
    trainer: Trainer<Cpu>,
    sampler: Sampler,
    text: Vec<u8>,
    tokens: Vec<u8>,
    /// What was trained and is not in any sum: rounding, and what the codec left out.
    uncounted: Vec<f32>,
}

fn data(path: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/plesio-cli/data");
    std::fs::read(root.join(path)).expect("the demo's data are in the tree")
}

/// The loss on everybody's held-out text, in nats a byte, after all frames.
fn final_loss(base: &Arc<Base>, seed: u64, codec: Codec) -> f64 {
    let (device, scale) = (Cpu::detect(), Scale::default());
    let optimiser = AdamW { learning_rate: 3e-3, ..AdamW::default() };
    let config = TrainConfig { seed, optimiser, ..TrainConfig::default() };
    let mut judged = Vec::new();
    let mut members: Vec<Member> = (0..)
        .zip(SHARDS)
        .map(|(index, shard)| {
            let (text, mut held_out) = split_held_out(&data(&format!("shards/{shard}.txt")), 2048, 12);
            held_out.truncate(JUDGED_BYTES);
            judged.push(held_out);
            let trainer = Trainer::new(Cpu::detect(), Arc::clone(base), config.clone())
                .expect("the demo's configuration");
            let tokens = vec![0; trainer.batch_bytes()];
            let uncounted = vec![0.0; trainer.params().len()];
            Member { trainer, sampler: Sampler::new(97 * seed + index), text, tokens, uncounted }
        })
        .collect();
    let start = members[0].trainer.params().to_vec();
    let elements = start.len();
    let mut common = start.clone();
    let mut master = vec![0; elements];
    let (mut codes, mut moved) = (vec![0; codec.encoded_bytes(elements)], vec![0.0; elements]);
    for frame in 0..FRAMES {
        let mut slots = Vec::new();
        for (index, member) in (0..).zip(&mut members) {
            for _ in 0..STEPS_PER_FRAME {
                member.sampler.fill(&member.text, config.context, &mut member.tokens).expect("text enough");
                member.trainer.step(&member.tokens).expect("a step");
            }
            let mut slot = vec![0; elements];
            for ((rest, x), common) in member.uncounted.iter_mut().zip(member.trainer.params()).zip(&common) {
                *rest = x - common;
            }
            let mut whole = member.uncounted.clone();
            device.quantise_residue(&mut whole, scale, &mut slot).expect("finite");
            if codec != Codec::Full {
                let coding = Coding::new(codec, frame << 8 | index);
                device.encode_slot(coding, &slot, &mut codes).expect("room");
                device.decode_slot(codec, &codes, &mut slot).expect("room");
            }
            device.dequantise(&slot, scale, &mut moved).expect("as many elements");
            member.uncounted.iter_mut().zip(&moved).for_each(|(rest, counted)| *rest -= counted);
            slots.push(slot);
        }
        let slots: Vec<&[i32]> = slots.iter().map(Vec::as_slice).collect();
        device.commit(&[WEIGHT_ONE; SHARDS.len()], &slots, &mut master).expect("as many elements");
        device.to_float(&master, scale, &mut moved).expect("as many elements");
        for ((common, start), moved) in common.iter_mut().zip(&start).zip(&moved) {
            *common = start + moved;
        }
        for member in &mut members {
            let params = member.trainer.params_mut().iter_mut();
            params.zip(&common).zip(&member.uncounted).for_each(|((x, common), rest)| *x = common + rest);
        }
    }
    let trainer = &mut members[0].trainer;
    trainer.params_mut().copy_from_slice(&common);
    let losses = judged.iter().map(|text| trainer.evaluate(text).expect("text enough"));
    losses.sum::<f64>() / judged.len() as f64
}

#[test]
fn narrow_contributions_train_as_well_as_whole_ones() {
    let base =
        Base::load(&data("base/config.json"), &data("base/model.safetensors")).expect("the base loads");
    let base = Arc::new(base);
    let losses: Vec<[f64; 3]> = std::thread::scope(|scope| {
        let runs = [1, 2, 3].map(|seed| {
            let base = &base;
            let codecs = [Codec::Full, Codec::Int8, Codec::Int4By64];
            scope.spawn(move || codecs.map(|codec| final_loss(base, seed, codec)))
        });
        runs.map(|run| run.join().expect("a run ends")).to_vec()
    });
    let whole = losses.iter().map(|of| of[0]);
    let spread = whole.clone().fold(0.0, f64::max) - whole.clone().fold(f64::MAX, f64::min);
    let mut mean = [0.0; 3];
    for (seed, of) in (1..).zip(&losses) {
        println!("seed {seed}: i32 {:.4}, int8 {:.4}, int4 {:.4}", of[0], of[1], of[2]);
        mean.iter_mut().zip(of).for_each(|(mean, loss)| *mean += loss / losses.len() as f64);
    }
    println!("spread of seeds {spread:.4}; of the reference: {:?}", mean.map(|loss| loss / mean[0]));
    for (name, at, most) in [("int8", 1, 0.005), ("int4", 2, 0.01)] {
        for of in &losses {
            let off = (of[at] / of[0] - 1.0).abs();
            assert!(off <= most && (of[at] - of[0]).abs() <= spread, "{name}: {off:.4} off: {losses:?}");
        }
    }
}
