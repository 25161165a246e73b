//! The adapter as PEFT stores it: `adapter_config.json` and `adapter_model.safetensors`.

use crate::adapter::AdapterLayout;
use crate::base::serialise;
use crate::error::ModelError;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use safetensors::tensor::Dtype;
use serde_json::json;

/// The linear layers that carry an adapter, by PEFT's names.
const TARGETS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// The two files of an exported adapter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeftFiles {
    /// Text of `adapter_config.json`.
    pub config_json: String,
    /// Bytes of `adapter_model.safetensors`.
    pub safetensors: Vec<u8>,
}

/// Names and writes the factors of one adapter.
pub(crate) fn export(
    layout: &AdapterLayout,
    params: &[f32],
    alpha: f32,
    base_name: &str,
) -> Result<PeftFiles, ModelError> {
    // Only what every PEFT since 0.4 knows: a key that a version has not heard of stops it, and later ones are false
    // where they are absent.
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": layout.rank(),
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": TARGETS,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "inference_mode": true,
        "modules_to_save": null,
    });
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = layout
        .tensors()
        .iter()
        .map(|tensor| {
            let values = &params[tensor.range()];
            let name = format!("base_model.model.{}", tensor.name);
            let (rows, cols) = (tensor.rows, tensor.cols);
            if tensor.transposed {
                let turned = (0..cols).flat_map(|col| (0..rows).map(move |row| values[row * cols + col]));
                (name, Vec::from([cols, rows]), turned.flat_map(f32::to_le_bytes).collect())
            } else {
                (name, Vec::from([rows, cols]), values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
        })
        .collect();
    let safetensors = serialise(
        tensors.iter().map(|(name, shape, bytes)| (name.as_str(), Dtype::F32, shape.clone(), &bytes[..])),
    )?;
    Ok(PeftFiles { config_json: format!("{config:#}\n"), safetensors })
}
