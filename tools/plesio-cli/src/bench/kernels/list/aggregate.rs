//! Aggregation of contributions: weighted sums with their norms, robust rules, sparse and signed ones, and q8.

use super::{Kernel, Made, table};
use crate::bench::kernels::memory::Buffers;
use crate::bench::kernels::plan::{Element, Fill, Must, Plan, Scale};
use plesio_kernels::{Device, KernelError, Q8, Robust};
use serde_json::json;

pub(super) static KERNELS: &[Kernel] = table! {
    "weighted_sum" sized numpy: |scale| weighted(scale, Element::F32).must(Must::OfFloor(0.9)) => weighted_sum;
    "weighted_sum_bf16" sized numpy: |scale| weighted(scale, Element::Bf16) => weighted_sum_bf16;
    "weighted_sum_q8" sized numpy: weighted_q8 => weighted_sum_q8;
    "square_norms" sized numpy: square_norms_plan => square_norms;
    "median" sized numpy: |scale| robust(scale, 8) => median;
    "median" sized numpy: |scale| robust(scale, 32) => median;
    "trimmed_mean" sized numpy: |scale| robust(scale, 8).must(Must::OfFloor(0.85)) => trimmed_mean;
    "trimmed_mean" sized numpy: |scale| robust(scale, 32) => trimmed_mean;
    "top_k" sized numpy: top_k_plan => top_k;
    "sign_pack" sized numpy: sign_pack_plan => sign_pack;
    "sign_vote" sized numpy: sign_vote_plan => sign_vote;
    "quantise_q8" sized numpy: quantise_q8_plan => quantise_q8;
};

/// Contributions of a sum.
const K: usize = 8;
const WEIGHTS: [f32; K] = [0.5, 0.25, 0.125, 0.3, 0.1, 0.7, 0.9, 0.2];
/// Elements that share a scale.
const Q8_BLOCK: usize = 32;

fn weighted(scale: Scale, element: Element) -> Plan {
    let (n, name) = (scale.elements(element.bytes()), if element == Element::F32 { "f32" } else { "bf16" });
    let plan = Plan::new(format!("k={K} n={n} {name}")).told(json!({ "weights": WEIGHTS }));
    plan.reads(K, element, n, Fill::Plain).write(Element::F32, n).write(Element::F64, 1)
}

fn weighted_sum<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (inputs, out, norm) = (buffers.reads::<f32>(K), buffers.write::<f32>(), buffers.write::<f64>());
    Ok(Box::new(move || keep(norm, device.weighted_sum(&WEIGHTS, &inputs, out))))
}

fn weighted_sum_bf16<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (inputs, out, norm) = (buffers.reads::<u16>(K), buffers.write::<f32>(), buffers.write::<f64>());
    Ok(Box::new(move || keep(norm, device.weighted_sum_bf16(&WEIGHTS, &inputs, out))))
}

fn keep(norm: &mut [f64], found: Result<f64, KernelError>) -> Result<(), KernelError> {
    norm[0] = found?;
    Ok(())
}

fn weighted_q8(scale: Scale) -> Plan {
    let n = scale.blocks(1, Q8_BLOCK);
    let plan = Plan::new(format!("k={K} n={n} q8")).told(json!({ "weights": WEIGHTS }));
    let plan = plan.reads(K, Element::I8, n, Fill::Plain);
    let plan = plan.reads(K, Element::F16, n.div_ceil(Q8_BLOCK), Fill::Positive);
    plan.write(Element::F32, n).write(Element::F64, 1)
}

fn weighted_sum_q8<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (codes, scales) = (buffers.reads::<i8>(K), buffers.reads::<u16>(K));
    let inputs = codes.into_iter().zip(scales).map(|(codes, scales)| Q8::new(codes, scales));
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    let (out, norm) = (buffers.write::<f32>(), buffers.write::<f64>());
    Ok(Box::new(move || keep(norm, device.weighted_sum_q8(&WEIGHTS, &inputs, out))))
}

fn square_norms_plan(scale: Scale) -> Plan {
    let n = scale.elements(4);
    Plan::new(format!("k={K} n={n} f32")).reads(K, Element::F32, n, Fill::Plain).write(Element::F64, K)
}

fn square_norms<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (inputs, norms) = (buffers.reads::<f32>(K), buffers.write::<f64>());
    Ok(Box::new(move || device.square_norms(&inputs, norms)))
}

fn robust(scale: Scale, k: usize) -> Plan {
    let n = scale.elements(4);
    let plan = Plan::new(format!("k={k} n={n} f32")).told(json!({ "trim": trim(k) }));
    plan.reads(k, Element::F32, n, Fill::Plain).write(Element::F32, n)
}

/// A quarter on each side.
const fn trim(k: usize) -> usize {
    k / 4
}

fn median<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (inputs, out) = (buffers.reads::<f32>(buffers.len() - 1), buffers.write::<f32>());
    Ok(Box::new(move || device.robust(Robust::Median, &inputs, out)))
}

fn trimmed_mean<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (inputs, out) = (buffers.reads::<f32>(buffers.len() - 1), buffers.write::<f32>());
    let rule = Robust::TrimmedMean { trim: trim(inputs.len()) };
    Ok(Box::new(move || device.robust(rule, &inputs, out)))
}

/// A hundredth is kept. What is kept is known when all was read: it is read twice.
fn top_k_plan(scale: Scale) -> Plan {
    let n = scale.elements(4);
    let count = (n / 100).max(1);
    let plan = Plan::new(format!("n={n} keep={count} f32")).read_twice(Element::F32, n);
    plan.write(Element::U32, count).write(Element::F32, count)
}

fn top_k<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (x, indices, values) = (buffers.read::<f32>(), buffers.write::<u32>(), buffers.write::<f32>());
    Ok(Box::new(move || device.top_k(x, values.len(), indices, values)))
}

/// Signs in a word.
const SIGNS: usize = 32;

fn sign_pack_plan(scale: Scale) -> Plan {
    let n = scale.elements(4);
    Plan::new(format!("n={n} f32")).read(Element::F32, n).write(Element::U32, n.div_ceil(SIGNS))
}

fn sign_pack<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (x, words) = (buffers.read::<f32>(), buffers.write::<u32>());
    Ok(Box::new(move || device.sign_pack(x, words)))
}

fn sign_vote_plan(scale: Scale) -> Plan {
    let words = scale.elements(4);
    let plan = Plan::new(format!("k={K} n={} signs", words * SIGNS));
    plan.reads(K, Element::U32, words, Fill::Plain).write(Element::U32, words)
}

fn sign_vote<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (votes, out) = (buffers.reads::<u32>(K), buffers.write::<u32>());
    Ok(Box::new(move || device.sign_vote(&votes, out)))
}

fn quantise_q8_plan(scale: Scale) -> Plan {
    let n = scale.blocks(4, Q8_BLOCK);
    let plan = Plan::new(format!("n={n} f32")).read(Element::F32, n).update(Element::F32, n, Fill::Zero);
    plan.write(Element::I8, n).write(Element::F16, n.div_ceil(Q8_BLOCK))
}

fn quantise_q8<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (input, residue) = (buffers.read::<f32>(), buffers.write::<f32>());
    let (codes, scales) = (buffers.write::<i8>(), buffers.write::<u16>());
    Ok(Box::new(move || device.quantise_q8(input, residue, codes, scales).map(drop)))
}
