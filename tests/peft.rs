//! The exported adapter is one that PEFT loads, and computes with as we do.
//!
//! Runs `peft_load.py` where Python has PEFT, and says so where it has not.

use plesio_cpu::Cpu;
use plesio_model::{AdamW, Base, Config, TrainConfig, Trainer};
use plesio_tests::say_skipped;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const STEPS: usize = 30;
const PREFIXES: [&[u8]; 4] = [b"I", b"In the", b"\x00\xFF\x80", b"In the beginning"];
const TEXT: &[u8] =
    b"In the beginning was the frame, and the frame was with the mesh, and the mesh agreed on it.";

/// A folder that is gone again at the end, whatever the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("plesio-peft-{}", std::process::id()));
        fs::create_dir(&path).expect("a folder can be made where temporary ones belong");
        Self(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("our own folder");
        fs::write(path, bytes).expect("our own folder can be written to");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing better can be done with what cannot be removed.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn trainer(base: &Arc<Base>, context: usize, batch: usize) -> Trainer<Cpu> {
    let optimiser = AdamW { learning_rate: 1e-2, ..TrainConfig::default().optimiser };
    let config = TrainConfig { rank: 4, batch, context, optimiser, ..TrainConfig::default() };
    Trainer::new(Cpu::detect(), Arc::clone(base), config).expect("a small shape")
}

/// The logarithm of each byte's probability behind `prefix`. The loss of a sequence is a sum over its positions, and
/// only the last depends on the last byte; what they have in common is what makes the probabilities add up to one.
fn log_probabilities(base: &Arc<Base>, params: &[f32], prefix: &[u8]) -> Vec<f64> {
    let mut trainer = trainer(base, prefix.len(), 1);
    trainer.params_mut().copy_from_slice(params);
    let scores: Vec<f64> = (0..=255)
        .map(|next| {
            let row = [prefix, &[next]].concat();
            -trainer.loss(&row).expect("the row has the length asked for") * prefix.len() as f64
        })
        .collect();
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let all = most + scores.iter().map(|score| (score - most).exp()).sum::<f64>().ln();
    scores.iter().map(|score| score - all).collect()
}

/// Base, adapter and what we compute, where the script looks for them.
fn export(folder: &Folder) {
    let config =
        Config { dim: 32, layers: 2, heads: 4, kv_heads: 2, ff: 48, context: 32, ..Config::default() };
    let mut base = Base::random(config, 7).expect("a legal shape");
    base.round_to_file();
    let base = Arc::new(base);
    let mut trainer = trainer(&base, 16, 4);
    for step in 0..STEPS {
        let rows = (0..4).flat_map(|row| TEXT[(step + 13 * row) % (TEXT.len() - 17)..][..17].iter().copied());
        trainer.step(&rows.collect::<Vec<u8>>()).expect("a step on bytes of text");
    }
    let files = trainer.export("base").expect("a trained adapter");
    folder.write("base/config.json", base.config().to_json());
    folder.write("base/model.safetensors", base.to_safetensors().expect("a legal model"));
    folder.write("adapter/adapter_config.json", files.config_json);
    folder.write("adapter/adapter_model.safetensors", files.safetensors);
    let expected: Vec<_> = PREFIXES
        .iter()
        .map(|prefix| {
            json!({ "prefix": prefix, "log_probabilities": log_probabilities(&base, trainer.params(), prefix) })
        })
        .collect();
    folder.write("expected.json", serde_json::to_vec(&expected).expect("numbers"));
}

#[test]
fn peft_computes_with_the_exported_adapter_what_we_compute() {
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    // Every time, so that what is exported is not only looked at where PEFT is.
    let folder = Folder::new();
    export(&folder);
    let probe = Command::new(&python).args(["-c", "import peft, torch, transformers"]).output();
    let missing = match &probe {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            Some(complaint.lines().last().unwrap_or("it says nothing").to_owned())
        }
        Err(error) => Some(error.to_string()),
    };
    if let Some(cause) = missing {
        let python = python.display();
        say_skipped(&format!("PEFT's half: {python} cannot import peft, torch and transformers: {cause}"));
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peft_load.py");
    let output = Command::new(&python)
        .args(["-B".as_ref(), script.as_os_str(), folder.0.as_os_str()])
        .envs([("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_OFFLINE", "1")])
        .output()
        .expect("Python ran a moment ago");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    print!("{text}");
}
