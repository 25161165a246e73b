//! The base weights: f32 in memory, bf16 in a safetensors file with llama's tensor names.

use crate::config::Config;
use crate::error::ModelError;
use crate::layout::Layout;
use crate::random::Random;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use plesio_kernels::network::VOCABULARY;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// A model without adapters. Share it by reference count: it is never changed by adapter training.
#[derive(Clone, Debug)]
pub struct Base {
    config: Config,
    layout: Layout,
    weights: Vec<f32>,
}

/// A tensor as the file names it.
struct FileTensor {
    name: String,
    shape: Vec<usize>,
    span: Range<usize>,
}

impl Base {
    /// Random weights for a shape: the start of training, and of tests.
    pub fn random(config: Config, seed: u64) -> Result<Self, ModelError> {
        config.check()?;
        let layout = Layout::new(&config);
        let mut weights = vec![0.0; layout.len()];
        let mut random = Random::new(seed);
        let mut fill = |span: &Range<usize>, deviation: f32| {
            for weight in &mut weights[span.clone()] {
                *weight = deviation * random.normal();
            }
        };
        let narrow = 1.0 / libm::sqrtf(config.dim as f32);
        // What a block adds is scaled down by depth, so that the stream starts at unit size.
        let depth = 1.0 / libm::sqrtf(2.0 * config.layers as f32);
        fill(&layout.embedding, 0.1);
        for layer in &layout.layers {
            fill(&layer.qkv, narrow);
            fill(&layer.o, narrow * depth);
            fill(&layer.gate_up, narrow);
            fill(&layer.down, depth / libm::sqrtf(config.ff as f32));
        }
        fill(&layout.head, 0.02);
        for layer in &layout.layers {
            weights[layer.attention_norm.clone()].fill(1.0);
            weights[layer.ff_norm.clone()].fill(1.0);
        }
        weights[layout.norm.clone()].fill(1.0);
        Ok(Self { config, layout, weights })
    }

    /// Reads a model from the bytes of its `config.json` and `model.safetensors`.
    pub fn load(config_json: &[u8], safetensors: &[u8]) -> Result<Self, ModelError> {
        let config = Config::from_json(config_json)?;
        let unreadable = |cause: String| ModelError::File { what: "model.safetensors", cause };
        let file = SafeTensors::deserialize(safetensors).map_err(|error| unreadable(error.to_string()))?;
        let layout = Layout::new(&config);
        // Before the allocation: a small file cannot ask for a large model.
        if layout.len() > safetensors.len() / 2 {
            return Err(unreadable(format!("{} bytes are too few for this shape", safetensors.len())));
        }
        let mut weights = vec![0.0; layout.len()];
        for FileTensor { name, shape, span } in file_tensors(&config, &layout) {
            let refuse = |cause| ModelError::Tensor { name: name.clone(), cause };
            let view = file.tensor(&name).map_err(|_| refuse("missing"))?;
            if view.shape() != shape {
                return Err(refuse("another shape"));
            }
            read_floats(view.dtype(), view.data(), &mut weights[span]).map_err(refuse)?;
        }
        Ok(Self { config, layout, weights })
    }

    /// The model as `model.safetensors`, rounded to bf16.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, ModelError> {
        let tensors = file_tensors(&self.config, &self.layout);
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|tensor| {
                self.weights[tensor.span.clone()].iter().flat_map(|&w| to_bf16(w).to_le_bytes()).collect()
            })
            .collect();
        serialise(tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
            (tensor.name.as_str(), Dtype::BF16, tensor.shape.clone(), bytes.as_slice())
        }))
    }

    /// The weights rounded as the file rounds them: what a reader of the file will compute with.
    pub fn round_to_file(&mut self) {
        for weight in &mut self.weights {
            *weight = from_bf16(to_bf16(*weight));
        }
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Number of weights.
    pub fn parameter_count(&self) -> usize {
        self.weights.len()
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn weights(&self) -> &[f32] {
        &self.weights
    }

    pub(crate) fn weights_mut(&mut self) -> &mut [f32] {
        &mut self.weights
    }
}

/// Every tensor of the file with its place in the flat vector.
fn file_tensors(config: &Config, layout: &Layout) -> Vec<FileTensor> {
    let (dim, ff, kv) = (config.dim, config.ff, config.kv_dim());
    let mut tensors = Vec::new();
    let mut add = |name: String, rows: usize, cols: Option<usize>, start: usize| {
        let len = rows * cols.unwrap_or(1);
        let shape = cols.map_or_else(|| vec![rows], |cols| vec![rows, cols]);
        tensors.push(FileTensor { name, shape, span: start..start + len });
    };
    add("model.embed_tokens.weight".into(), VOCABULARY, Some(dim), layout.embedding.start);
    for (index, layer) in layout.layers.iter().enumerate() {
        let name = |rest: &str| format!("model.layers.{index}.{rest}.weight");
        let q = layer.qkv.start;
        add(name("input_layernorm"), dim, None, layer.attention_norm.start);
        add(name("self_attn.q_proj"), dim, Some(dim), q);
        add(name("self_attn.k_proj"), kv, Some(dim), q + dim * dim);
        add(name("self_attn.v_proj"), kv, Some(dim), q + dim * dim + kv * dim);
        add(name("self_attn.o_proj"), dim, Some(dim), layer.o.start);
        add(name("post_attention_layernorm"), dim, None, layer.ff_norm.start);
        add(name("mlp.gate_proj"), ff, Some(dim), layer.gate_up.start);
        add(name("mlp.up_proj"), ff, Some(dim), layer.gate_up.start + ff * dim);
        add(name("mlp.down_proj"), dim, Some(ff), layer.down.start);
    }
    add("model.norm.weight".into(), dim, None, layout.norm.start);
    add("lm_head.weight".into(), VOCABULARY, Some(dim), layout.head.start);
    tensors
}

/// Writes tensors in the given order; llama and PEFT loaders ask for the `format` entry.
pub(crate) fn serialise<'t>(
    tensors: impl Iterator<Item = (&'t str, Dtype, Vec<usize>, &'t [u8])>,
) -> Result<Vec<u8>, ModelError> {
    let unwritable = |error: safetensors::SafeTensorError| ModelError::File {
        what: "safetensors output",
        cause: error.to_string(),
    };
    let views = tensors
        .map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(dtype, shape, bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(unwritable)?;
    let metadata = [("format".to_string(), "pt".to_string())].into_iter().collect();
    safetensors::serialize(views, Some(metadata)).map_err(unwritable)
}

/// Reads a tensor's elements as f32; refuses other types and non-finite values.
pub(crate) fn read_floats(dtype: Dtype, bytes: &[u8], out: &mut [f32]) -> Result<(), &'static str> {
    match dtype {
        Dtype::BF16 if bytes.len() == 2 * out.len() => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = from_bf16(u16::from_le_bytes(*bytes));
            }
        }
        Dtype::F32 if bytes.len() == 4 * out.len() => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        Dtype::BF16 | Dtype::F32 => return Err("another length"),
        _ => return Err("neither BF16 nor F32"),
    }
    if out.iter().all(|value| value.is_finite()) { Ok(()) } else { Err("a NaN or infinite element") }
}

/// Rounds half to even. Finite values stay finite below 3.3895e38; larger ones become infinite.
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}
