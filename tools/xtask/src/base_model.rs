//! Trains the demo's base model from a seed on given texts, and writes it with its recipe.
//!
//! Knows the schedule, the texts and the files; the mathematics is `plesio-model`'s. The run is repeatable:
//! one seed, the same texts and one kind of machine give the same bytes, because each half of every batch has
//! a worker of its own and the halves are added in order, however many threads there are.

use plesio_cpu::Cpu;
use plesio_model::{AdamW, Base, BaseTrainer, Config, GradientWorker, Sampler, split_held_out};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

const USAGE: &str = "usage: cargo xtask base-model --out DIR --text FILE... [--seed N] [--steps N]";

/// Sequences per step, half of them for each worker.
const BATCH: usize = 16;
const WORKERS: usize = 2;
/// Sequences a worker takes through the model together.
const SEQUENCES_TOGETHER: usize = 4;
const STEPS_DEFAULT: u64 = 2500;
const SEED_DEFAULT: u64 = 1;
/// One in 64 blocks of each text is held out.
const HELD_OUT_BLOCK_BYTES: usize = 4096;
const HELD_OUT_EVERY: usize = 64;
/// The held-out loss is taken this many times, evenly; a multiple of ten, so that nine tenths is one of them.
const EVALUATIONS: u64 = 20;
/// The run has settled when its last tenth gains less than this.
const SETTLED_GAIN_NATS: f64 = 0.01;
const GRADIENT_NORM_MAX: f32 = 1.0;
const LEARNING_RATE_MAX: f32 = 3e-3;
const LEARNING_RATE_FLOOR_RATIO: f32 = 0.01;
const WARM_UP_RATIO: f32 = 0.03;

/// What the command line asks for.
#[derive(Debug)]
struct Plan {
    texts: Vec<PathBuf>,
    out: PathBuf,
    seed: u64,
    steps: u64,
}

/// Runs the task.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let plan = parse(args)?;
    let mut train = Vec::new();
    let mut held_out = Vec::new();
    let mut provenance = Vec::new();
    for path in &plan.texts {
        let text = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let (rest, held) = split_held_out(&text, HELD_OUT_BLOCK_BYTES, HELD_OUT_EVERY);
        provenance.push(json!({
            "file": path.file_name().map(|name| name.to_string_lossy().into_owned()),
            "bytes": text.len(),
            "blake3_16": &blake3::hash(&text).to_hex()[..32],
            "bytes_held_out": held.len(),
        }));
        train.extend_from_slice(&rest);
        held_out.extend_from_slice(&held);
    }
    let config = Config::default();
    let held_out = windows(&held_out, config.context);
    if held_out.is_empty() {
        return Err("the texts are too short to hold anything out; give longer ones".into());
    }
    // Unwritable folders must fail before the training, not after it.
    std::fs::create_dir_all(&plan.out)
        .map_err(|error| format!("cannot make {}: {error}", plan.out.display()))?;
    let outcome = train_base(&plan, &config, &train, &held_out)?;
    write_files(&plan, &outcome, train.len(), held_out.len(), provenance)?;
    println!(
        "base-model: {} weights, held out {:.4} nat per byte, last tenth gained {:.4}, {:.0} tokens/s",
        outcome.base.parameter_count(),
        outcome.loss_final,
        outcome.last_tenth_gain,
        outcome.tokens_per_second,
    );
    if outcome.last_tenth_gain < SETTLED_GAIN_NATS {
        Ok(())
    } else {
        Err(format!("the last tenth still gained {:.4} nat; raise --steps", outcome.last_tenth_gain))
    }
}

fn parse(args: &[String]) -> Result<Plan, String> {
    let mut plan = Plan { texts: Vec::new(), out: PathBuf::new(), seed: SEED_DEFAULT, steps: STEPS_DEFAULT };
    let mut args = args.iter().peekable();
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{flag} needs a value\n{USAGE}"));
        let number = |text: &String| text.parse::<u64>().map_err(|_| format!("{flag} {text}: not a number"));
        match flag.as_str() {
            "--text" => {
                plan.texts.push(PathBuf::from(value()?));
                while let Some(path) = args.next_if(|arg| !arg.starts_with("--")) {
                    plan.texts.push(PathBuf::from(path));
                }
            }
            "--out" => plan.out = PathBuf::from(value()?),
            "--seed" => plan.seed = number(value()?)?,
            "--steps" => plan.steps = number(value()?)?,
            other => return Err(format!("unknown argument {other}\n{USAGE}")),
        }
    }
    if plan.texts.is_empty() || plan.out.as_os_str().is_empty() || plan.steps < EVALUATIONS {
        return Err(format!("texts, a folder and at least {EVALUATIONS} steps are needed\n{USAGE}"));
    }
    // The order of the command line must not decide the model.
    plan.texts.sort();
    Ok(plan)
}

/// Consecutive rows of `context + 1` bytes that predict every byte once.
fn windows(text: &[u8], context: usize) -> Vec<u8> {
    let starts = (0..text.len().saturating_sub(context)).step_by(context);
    starts.flat_map(|start| text[start..start + context + 1].iter().copied()).collect()
}

struct Outcome {
    base: Base,
    curve: Vec<Value>,
    loss_final: f64,
    last_tenth_gain: f64,
    tokens_per_second: f64,
}

fn train_base(plan: &Plan, config: &Config, text: &[u8], held_out: &[u8]) -> Result<Outcome, String> {
    let device = Cpu::detect();
    let say = |error: plesio_model::ModelError| error.to_string();
    let base = Base::random(config.clone(), plan.seed).map_err(say)?;
    let mut trainer = BaseTrainer::new(device, base);
    let mut workers = (0..WORKERS)
        .map(|_| GradientWorker::new(device, trainer.base(), SEQUENCES_TOGETHER))
        .collect::<Result<Vec<_>, _>>()
        .map_err(say)?;
    let mut sampler = Sampler::new(plan.seed ^ 0x5eed);
    let mut batch = vec![0; BATCH * (config.context + 1)];
    let scale = 1.0 / (BATCH * config.context) as f32;
    let count = held_out.len() / (config.context + 1) * config.context;
    let mut curve = Vec::new();
    let (mut loss_nine_tenths, mut loss_last) = (0.0, 0.0);
    let (mut train_sum, mut train_steps) = (0.0, 0u32);
    let mut seconds_training = 0.0;
    for step in 0..plan.steps {
        sampler.fill(text, config.context, &mut batch).map_err(say)?;
        let started = Instant::now();
        let sums =
            in_halves(&mut workers, &batch, |worker, half| worker.accumulate(trainer.base(), half, scale))?;
        let settings =
            AdamW { learning_rate: learning_rate(step, plan.steps), weight_decay: 0.02, ..AdamW::default() };
        trainer.apply(&mut workers, settings, GRADIENT_NORM_MAX).map_err(say)?;
        seconds_training += started.elapsed().as_secs_f64();
        train_sum += sums * f64::from(scale);
        train_steps += 1;

        let done = step + 1;
        // Evenly spaced whatever the number of steps is.
        if done * EVALUATIONS / plan.steps > step * EVALUATIONS / plan.steps {
            let sum = in_halves(&mut workers, held_out, |worker, half| worker.loss(trainer.base(), half))?;
            loss_last = sum / count as f64;
            if done * 10 < plan.steps * 9 + 10 && done * 10 >= plan.steps * 9 {
                loss_nine_tenths = loss_last;
            }
            let loss_train = train_sum / f64::from(train_steps);
            (train_sum, train_steps) = (0.0, 0);
            let tokens_per_second = (done as usize * BATCH * config.context) as f64 / seconds_training;
            eprintln!(
                "step {done:6}  train {loss_train:.4}  held out {loss_last:.4}  {tokens_per_second:.0} tokens/s"
            );
            curve.push(json!({ "step": done, "loss_train": loss_train, "loss_held_out": loss_last }));
        }
    }
    let mut base = trainer.into_base();
    base.round_to_file();
    let loss_final =
        in_halves(&mut workers, held_out, |worker, half| worker.loss(&base, half))? / count as f64;
    let tokens = plan.steps as usize * BATCH * config.context;
    Ok(Outcome {
        base,
        curve,
        loss_final,
        last_tenth_gain: loss_nine_tenths - loss_last,
        tokens_per_second: tokens as f64 / seconds_training,
    })
}

/// Gives each worker its half of the rows on a thread of its own; adds the results in order.
fn in_halves<F>(workers: &mut [GradientWorker<Cpu>], rows: &[u8], work: F) -> Result<f64, String>
where
    F: Fn(&mut GradientWorker<Cpu>, &[u8]) -> Result<f64, plesio_model::ModelError> + Sync,
{
    let width = Config::default().context + 1;
    let share = (rows.len() / width).div_ceil(workers.len()).max(1) * width;
    let results: Vec<_> = std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = workers
            .iter_mut()
            .zip(rows.chunks(share))
            .map(|(worker, half)| scope.spawn(move || work(worker, half)))
            .collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let mut sum = 0.0;
    for result in results {
        sum += result.map_err(|_| "a worker thread panicked")?.map_err(|error| error.to_string())?;
    }
    Ok(sum)
}

/// Linear warm-up, then a cosine down to a hundredth.
fn learning_rate(step: u64, steps: u64) -> f32 {
    let progress = (step + 1) as f32 / steps as f32;
    if progress < WARM_UP_RATIO {
        return LEARNING_RATE_MAX * progress / WARM_UP_RATIO;
    }
    let along = (progress - WARM_UP_RATIO) / (1.0 - WARM_UP_RATIO);
    let cosine = 0.5 * (1.0 + (std::f32::consts::PI * along).cos());
    LEARNING_RATE_MAX * (LEARNING_RATE_FLOOR_RATIO + (1.0 - LEARNING_RATE_FLOOR_RATIO) * cosine)
}

fn write_files(
    plan: &Plan,
    outcome: &Outcome,
    bytes_train: usize,
    bytes_held_out: usize,
    provenance: Vec<Value>,
) -> Result<(), String> {
    let config = outcome.base.config();
    let weights = outcome.base.to_safetensors().map_err(|error| error.to_string())?;
    let recipe = json!({
        "schema": "plesio.base-recipe/1",
        "command": "cargo xtask base-model",
        "seed": plan.seed,
        "steps": plan.steps,
        "batch": BATCH,
        "context": config.context,
        "parameters": outcome.base.parameter_count(),
        "optimiser": {
            "kind": "adamw",
            "learning_rate_max": f64::from(LEARNING_RATE_MAX),
            "schedule": "linear warm-up over 3 % of the steps, cosine to 1 %",
            "weight_decay": 0.02,
            "gradient_norm_max": f64::from(GRADIENT_NORM_MAX),
        },
        "texts": provenance,
        "held_out": { "block_bytes": HELD_OUT_BLOCK_BYTES, "every": HELD_OUT_EVERY, "bytes": bytes_held_out },
        "bytes_train": bytes_train,
        "unit": "nats per byte",
        "loss_held_out_final": outcome.loss_final,
        "last_tenth_gain": outcome.last_tenth_gain,
        "last_tenth_gain_max": SETTLED_GAIN_NATS,
        "settled": outcome.last_tenth_gain < SETTLED_GAIN_NATS,
        "weights_blake3_16": &blake3::hash(&weights).to_hex()[..32],
        "device": Cpu::detect().level().name(),
        "curve": outcome.curve,
    });
    let write = |name: &str, bytes: &[u8]| {
        let path: &Path = &plan.out.join(name);
        std::fs::write(path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    write("model.safetensors", &weights)?;
    write("config.json", config.to_json().as_bytes())?;
    write("recipe.json", format!("{recipe:#}\n").as_bytes())
}
