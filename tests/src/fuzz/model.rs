//! The model's files: `config.json` and `model.safetensors` as they come from elsewhere.

use super::{Script, Target};
use plesio_model::{Base, Config};

/// A base model's two files in one input: the length of the first, then both.
pub const TARGET: Target =
    Target { name: "model", begin: || Box::new(take), life: 1, seeds, bytes_max: 12 << 10, allocates: true };

fn take(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let len_bytes = usize::from(script.short());
    let (config, weights) = (script.take(len_bytes), script.take(bytes.len()));
    if let Ok(config) = Config::from_json(config) {
        assert_eq!(Config::from_json(config.to_json().as_bytes()), Ok(config));
    }
    if let Ok(base) = Base::load(config, weights) {
        assert!(base.parameter_count() <= weights.len() / 2, "a small file asked for a large model");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let shape = Config { dim: 4, layers: 1, heads: 2, kv_heads: 1, ff: 4, context: 8, ..Config::default() };
    let base = Base::random(shape.clone(), 1).expect("the shape is one");
    let (config, weights) = (shape.to_json(), base.to_safetensors().expect("it can be written"));
    let head = |config: &str| (config.len() as u16).to_le_bytes();
    vec![
        [&head(&config)[..], config.as_bytes(), &weights].concat(),
        [&head(&config)[..], config.as_bytes()].concat(),
    ]
}
