//! The model's shape, and its `config.json` in the field names of llama checkpoints.

use crate::error::ModelError;
use alloc::format;
use alloc::string::{String, ToString};
use plesio_kernels::network::VOCABULARY;
use serde_json::{Value, json};

/// Bounds on what a file may ask for; together they keep every size product far from overflow.
const DIM_MAX: usize = 8192;
const LAYERS_MAX: usize = 256;
const FF_MAX: usize = 65_536;
const CONTEXT_MAX: usize = 65_536;

/// The shape of a model over the 256 byte values.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Width of the residual stream; default 128.
    pub dim: usize,
    /// Transformer blocks; default 4.
    pub layers: usize,
    /// Query heads; default 4.
    pub heads: usize,
    /// Key and value heads, shared by groups of query heads; default 2.
    pub kv_heads: usize,
    /// Width of the gated layer; default 352.
    pub ff: usize,
    /// Longest sequence in bytes; default 128.
    pub context: usize,
    /// Base of the rotary angles; default 10,000.
    pub rope_theta: f32,
    /// Floor under the mean square of the norms; default 1e-5.
    pub norm_epsilon: f32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dim: 128,
            layers: 4,
            heads: 4,
            kv_heads: 2,
            ff: 352,
            context: 128,
            rope_theta: 10_000.0,
            norm_epsilon: 1e-5,
        }
    }
}

impl Config {
    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.dim / self.heads
    }

    /// Width of all keys, or all values.
    pub fn kv_dim(&self) -> usize {
        self.head_dim() * self.kv_heads
    }

    /// Width of queries, keys and values side by side.
    pub fn qkv_dim(&self) -> usize {
        self.dim + 2 * self.kv_dim()
    }

    /// Refuses shapes that cannot be.
    pub fn check(&self) -> Result<(), ModelError> {
        let refuse = |what, found| Err(ModelError::Config { what, found });
        if self.dim == 0 || self.dim > DIM_MAX {
            return refuse("hidden_size", self.dim);
        }
        if self.layers == 0 || self.layers > LAYERS_MAX {
            return refuse("num_hidden_layers", self.layers);
        }
        if self.heads == 0
            || !self.dim.is_multiple_of(self.heads)
            || !(self.dim / self.heads).is_multiple_of(2)
        {
            return refuse("num_attention_heads", self.heads);
        }
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return refuse("num_key_value_heads", self.kv_heads);
        }
        if self.ff == 0 || self.ff > FF_MAX {
            return refuse("intermediate_size", self.ff);
        }
        if self.context == 0 || self.context > CONTEXT_MAX {
            return refuse("max_position_embeddings", self.context);
        }
        if !(self.rope_theta.is_finite() && self.rope_theta >= 1.0) {
            return refuse("rope_theta", self.rope_theta as usize);
        }
        if !(self.norm_epsilon > 0.0 && self.norm_epsilon < 1.0) {
            return refuse("rms_norm_eps", self.norm_epsilon as usize);
        }
        Ok(())
    }

    /// Reads a llama `config.json`; fields this model has no choice about are checked.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ModelError> {
        let unreadable = |cause: String| ModelError::File { what: "config.json", cause };
        let json: Value = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        let size = |name: &'static str| {
            let value = json.get(name).and_then(Value::as_u64).and_then(|value| usize::try_from(value).ok());
            value.ok_or_else(|| unreadable(format!("{name} is missing or no size")))
        };
        let real = |name: &'static str| {
            let value = json.get(name).and_then(Value::as_f64);
            value
                .map(|value| value as f32)
                .ok_or_else(|| unreadable(format!("{name} is missing or no number")))
        };
        let vocabulary = size("vocab_size")?;
        if vocabulary != VOCABULARY {
            return Err(ModelError::Config { what: "vocab_size", found: vocabulary });
        }
        if json.get("tie_word_embeddings").and_then(Value::as_bool) == Some(true) {
            return Err(ModelError::Config { what: "tie_word_embeddings", found: 1 });
        }
        let config = Self {
            dim: size("hidden_size")?,
            layers: size("num_hidden_layers")?,
            heads: size("num_attention_heads")?,
            kv_heads: size("num_key_value_heads")?,
            ff: size("intermediate_size")?,
            context: size("max_position_embeddings")?,
            rope_theta: real("rope_theta")?,
            norm_epsilon: real("rms_norm_eps")?,
        };
        config.check()?;
        Ok(config)
    }

    /// The same shape as `config.json` text that llama loaders understand.
    pub fn to_json(&self) -> String {
        let json = json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": self.dim,
            "intermediate_size": self.ff,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim(),
            "max_position_embeddings": self.context,
            // Through the shortest decimal, so that 1e-5 stays 1e-5 and not its nearest double.
            "rms_norm_eps": shortest(self.norm_epsilon),
            "rope_theta": shortest(self.rope_theta),
            "hidden_act": "silu",
            "attention_bias": false,
            "mlp_bias": false,
            "tie_word_embeddings": false,
            "bos_token_id": null,
            "eos_token_id": null,
            "torch_dtype": "bfloat16",
        });
        format!("{json:#}\n")
    }
}

/// The double with the shortest decimal form of a single.
fn shortest(value: f32) -> f64 {
    format!("{value}").parse().unwrap_or_else(|_| f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_survives_its_file() {
        let config = Config::default();
        assert_eq!(Config::from_json(config.to_json().as_bytes()), Ok(config));
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let text = Config::default().to_json();
        for (from, to, what) in [
            ("\"hidden_size\": 128", "\"hidden_size\": 0", "hidden_size"),
            ("\"hidden_size\": 128", "\"hidden_size\": 9007199254740993", "hidden_size"),
            ("\"num_attention_heads\": 4", "\"num_attention_heads\": 3", "num_attention_heads"),
            ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "num_key_value_heads"),
            ("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 1000000", "num_hidden_layers"),
            ("\"vocab_size\": 256", "\"vocab_size\": 32000", "vocab_size"),
            ("\"rope_theta\": 10000.0", "\"rope_theta\": -1.0", "rope_theta"),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from}");
            match Config::from_json(changed.as_bytes()) {
                Err(ModelError::Config { what: found, .. }) => assert_eq!(found, what),
                other => panic!("{to}: {other:?}"),
            }
        }
        assert!(matches!(Config::from_json(b"{"), Err(ModelError::File { .. })));
        assert!(matches!(Config::from_json(b"{\"vocab_size\": -1}"), Err(ModelError::File { .. })));
    }
}
