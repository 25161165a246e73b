//! The files of the base and of the adapter, whole and damaged.

use super::small;
use crate::{AdapterLayout, Base, Config, ModelError, TrainConfig, Trainer};
use plesio_kernels::{KernelError, Reference};
use proptest::prelude::*;
use safetensors::SafeTensors;
use std::sync::Arc;

fn base_files() -> (Base, String, Vec<u8>) {
    let mut base = Base::random(small(), 7).unwrap();
    base.round_to_file();
    let (config, weights) = (base.config().to_json(), base.to_safetensors().unwrap());
    (base, config, weights)
}

#[test]
fn a_base_survives_its_files() {
    let (base, config, weights) = base_files();
    let loaded = Base::load(config.as_bytes(), &weights).unwrap();
    assert_eq!(loaded.config(), base.config());
    assert_eq!(loaded.weights(), base.weights());
    assert_eq!(loaded.to_safetensors().unwrap(), weights);
}

#[test]
fn rounding_to_the_file_moves_a_weight_by_at_most_its_last_bit() {
    let exact = Base::random(small(), 7).unwrap();
    let mut rounded = exact.clone();
    rounded.round_to_file();
    for (&a, &b) in exact.weights().iter().zip(rounded.weights()) {
        assert!((a - b).abs() <= a.abs() / 256.0, "{a} became {b}");
    }
}

#[test]
fn the_demo_shape_has_its_size() {
    let base = Base::random(Config::default(), 1).unwrap();
    assert_eq!(base.parameter_count(), 803_968);
    assert!(base.to_safetensors().unwrap().len() < 2_000_000);
    assert_eq!(AdapterLayout::new(base.config(), 8).unwrap().len(), 74_752);
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let (_, config, weights) = base_files();
    let wider = config.replace("\"intermediate_size\": 40", "\"intermediate_size\": 41");
    let deeper = config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    let huge = config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 200");
    let shallower = config.replace("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 1");
    for (other, cause) in
        [(wider, "another shape"), (deeper, "too few"), (huge, "too few"), (shallower, "another shape")]
    {
        assert_ne!(other, config);
        let error = Base::load(other.as_bytes(), &weights).unwrap_err();
        assert!(error.to_string().contains(cause), "{error}");
    }
    assert!(matches!(Base::load(config.as_bytes(), &[]), Err(ModelError::File { .. })));
    assert!(matches!(
        Base::load(config.as_bytes(), &weights[..weights.len() - 1]),
        Err(ModelError::File { .. })
    ));
}

#[test]
fn a_non_finite_weight_is_refused() {
    let (_, config, mut weights) = base_files();
    let len = weights.len();
    weights[len - 2..].copy_from_slice(&0x7fc0u16.to_le_bytes());
    let error = Base::load(config.as_bytes(), &weights).unwrap_err();
    assert!(matches!(error, ModelError::Tensor { cause: "a NaN or infinite element", .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn damaged_files_are_errors_and_never_panics(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (_, config, weights) = base_files();
        let mut damaged = weights.clone();
        // The header is where damage can mislead; the first kilobytes hold it.
        let at = at.index(3000);
        damaged[at] = byte;
        let _ = Base::load(config.as_bytes(), &damaged);
        prop_assert!(Base::load(config.as_bytes(), &weights[..cut.index(weights.len())]).is_err());
        let mut damaged = config.clone().into_bytes();
        let at = at % damaged.len();
        damaged[at] = byte;
        let _ = Base::load(&damaged, &weights);
    }
}

#[test]
fn the_adapter_is_exported_under_pefts_names() {
    let base = Arc::new(Base::random(small(), 5).unwrap());
    let config = TrainConfig { rank: 2, batch: 1, context: 12, ..TrainConfig::default() };
    let mut trainer = Trainer::new(Reference, base, config).unwrap();
    for (element, param) in trainer.params_mut().iter_mut().enumerate() {
        *param += element as f32;
    }
    let files = trainer.export("plesio-base").unwrap();
    let json: serde_json::Value = serde_json::from_str(&files.config_json).unwrap();
    assert_eq!((json["r"].as_u64(), json["lora_alpha"].as_f64()), (Some(2), Some(16.0)));
    assert_eq!(json["target_modules"].as_array().map(Vec::len), Some(7));
    let file = SafeTensors::deserialize(&files.safetensors).unwrap();
    assert_eq!(file.len(), 2 * 7 * 2);
    let find = |part: &str| {
        let tensors = trainer.layout().tensors();
        let tensor = tensors.iter().find(|t| t.name.contains(&format!("layers.1.self_attn.k_proj.{part}")));
        trainer.params()[tensor.unwrap().range()].to_vec()
    };
    let floats = |tensor: &safetensors::tensor::TensorView<'_>| -> Vec<f32> {
        tensor.data().chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    };
    let a = file.tensor("base_model.model.model.layers.1.self_attn.k_proj.lora_A.weight").unwrap();
    assert_eq!(a.shape(), [2, 24]);
    assert_eq!(floats(&a), find("lora_A"));
    let b = file.tensor("base_model.model.model.layers.1.self_attn.k_proj.lora_B.weight").unwrap();
    assert_eq!(b.shape(), [12, 2]);
    let (b, held) = (floats(&b), find("lora_B"));
    for (row, pair) in b.chunks(2).enumerate() {
        assert_eq!(pair, [held[row], held[12 + row]]);
    }
}

#[test]
fn the_layout_covers_its_vector_once() {
    let layout = AdapterLayout::new(&small(), 3).unwrap();
    let mut end = 0;
    for tensor in layout.tensors() {
        assert_eq!(tensor.offset, end);
        end = tensor.range().end;
    }
    assert_eq!(end, layout.len());
    assert_eq!(layout.initial(4), layout.initial(4));
    assert_ne!(layout.initial(4), layout.initial(5));
}

#[test]
fn ranks_that_do_not_fit_are_refused() {
    for rank in [0, 13, usize::MAX] {
        let error = AdapterLayout::new(&small(), rank).unwrap_err();
        assert_eq!(error, ModelError::Kernel(KernelError::Rank { rank, rank_max: 12 }));
    }
}
