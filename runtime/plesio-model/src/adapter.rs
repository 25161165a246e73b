//! The adapter's flat vector: which element belongs to which factor of which layer.
//!
//! Order, block by block: A of q, k, v; B of q, k, v; A and B of o; A of gate, up; B of gate, up; A and B of
//! down. A is rank x d_in; B is kept transposed, rank x d_out; rows are contiguous. Neighbouring A's read the
//! same input, so one product serves them. The order is part of the slot format: members add vectors of this
//! layout.

use crate::config::Config;
use crate::error::ModelError;
use crate::random::Random;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use plesio_kernels::KernelError;
use plesio_kernels::lora::RANK_MAX;

/// One factor in the flat vector.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TensorSpan {
    /// PEFT's name without prefix: `model.layers.0.self_attn.q_proj.lora_A.weight`.
    pub name: String,
    /// Rows in the vector: the rank.
    pub rows: usize,
    /// Columns in the vector: the input width for an A, the output width for a B.
    pub cols: usize,
    /// Whether PEFT's tensor is the transpose: true for a B.
    pub transposed: bool,
    /// First element.
    pub offset: usize,
}

impl TensorSpan {
    /// Its elements.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.rows * self.cols
    }
}

/// The adapted linear layers that read one input together.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Width of the shared input.
    pub(crate) d_in: usize,
    /// All A's, one after the other: (parts * rank) x d_in.
    pub(crate) a: Range<usize>,
    /// One entry per linear layer: its output width and its B.
    pub(crate) parts: Vec<Part>,
}

#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) d_out: usize,
    pub(crate) b: Range<usize>,
}

/// The groups of one block.
#[derive(Clone, Debug)]
pub(crate) struct LayerGroups {
    pub(crate) qkv: Group,
    pub(crate) o: Group,
    pub(crate) gate_up: Group,
    pub(crate) down: Group,
}

/// Where each factor of the adapter lies.
#[derive(Clone, Debug)]
pub struct AdapterLayout {
    rank: usize,
    len: usize,
    tensors: Vec<TensorSpan>,
    layers: Vec<LayerGroups>,
}

impl AdapterLayout {
    /// The layout for a rank between 1 and the narrowest adapted layer (and 64).
    pub fn new(config: &Config, rank: usize) -> Result<Self, ModelError> {
        config.check()?;
        let (dim, ff, kv) = (config.dim, config.ff, config.kv_dim());
        let rank_max = dim.min(ff).min(kv).min(RANK_MAX);
        if rank == 0 || rank > rank_max {
            return Err(KernelError::Rank { rank, rank_max }.into());
        }
        let mut builder = Builder { rank, end: 0, tensors: Vec::new() };
        let layers = (0..config.layers)
            .map(|layer| LayerGroups {
                qkv: builder.group(
                    layer,
                    dim,
                    &[("self_attn.q_proj", dim), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)],
                ),
                o: builder.group(layer, dim, &[("self_attn.o_proj", dim)]),
                gate_up: builder.group(layer, dim, &[("mlp.gate_proj", ff), ("mlp.up_proj", ff)]),
                down: builder.group(layer, ff, &[("mlp.down_proj", dim)]),
            })
            .collect();
        Ok(Self { rank, len: builder.end, tensors: builder.tensors, layers })
    }

    /// The rank of every factor pair.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Elements in all.
    #[expect(clippy::len_without_is_empty, reason = "a layout always has elements")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Every factor, in the order of the vector.
    pub fn tensors(&self) -> &[TensorSpan] {
        &self.tensors
    }

    pub(crate) fn layers(&self) -> &[LayerGroups] {
        &self.layers
    }

    /// The common start of every member: A uniform within 1/sqrt(d_in) from the seed, B zero. The bits are
    /// the same on every machine.
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        let mut params = vec![0.0; self.len];
        let mut random = Random::new(seed);
        for group in self.layers.iter().flat_map(|layer| [&layer.qkv, &layer.o, &layer.gate_up, &layer.down])
        {
            let bound = 1.0 / libm::sqrtf(group.d_in as f32);
            for param in &mut params[group.a.clone()] {
                *param = bound * (2.0 * random.unit() - 1.0);
            }
        }
        params
    }
}

/// Lays factors one after the other.
struct Builder {
    rank: usize,
    end: usize,
    tensors: Vec<TensorSpan>,
}

impl Builder {
    fn group(&mut self, layer: usize, d_in: usize, parts: &[(&str, usize)]) -> Group {
        let start = self.end;
        for (name, _) in parts {
            self.add(format!("model.layers.{layer}.{name}.lora_A.weight"), d_in, false);
        }
        let a = start..self.end;
        let parts = parts
            .iter()
            .map(|&(name, d_out)| Part {
                d_out,
                b: self.add(format!("model.layers.{layer}.{name}.lora_B.weight"), d_out, true),
            })
            .collect();
        Group { d_in, a, parts }
    }

    fn add(&mut self, name: String, cols: usize, transposed: bool) -> Range<usize> {
        let (offset, rows) = (self.end, self.rank);
        self.end += rows * cols;
        self.tensors.push(TensorSpan { name, rows, cols, transposed, offset });
        offset..self.end
    }
}
