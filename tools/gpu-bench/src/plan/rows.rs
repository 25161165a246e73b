//! The rows of the specification's table: for each its sizes, its call, the bytes that any version moves, and its
//! rivals.
//!
//! What comes later is not here: 4-bit base products, and the merge of sparse distributions.

use plesio_kernels::lora::Gradients;
use plesio_kernels::{AdamW, AdamWState, Adapter, Device, Q8, Robust, WEIGHT_ONE};
use serde_json::{Value, json};

use super::{Draft, Fill, Line, Must, Rival, Sizes};

/// Contributions of an aggregation, where the table says no other number.
const K: usize = 8;
/// Of the largest one.
const K_MAX: usize = 32;
const RANK: usize = 16;
/// Rows of a decoding step, each with an adapter of its own.
const DECODING: usize = 32;
const SCALE: f32 = 2.0;

/// What a row is called, and what writes it down.
type Row = (&'static str, fn(&mut Draft, Sizes) -> Line);

/// By the names under which results are kept.
pub(super) const ROWS: &[Row] = &[
    ("commit", commit),
    ("weighted_sum", weighted_sum),
    ("weighted_sum_bf16", weighted_sum_bf16),
    ("weighted_sum_q8", weighted_sum_q8),
    ("quantise_q8", quantise_q8),
    ("median_8", |draft, sizes| robust(draft, sizes, Robust::Median, K)),
    ("median_32", |draft, sizes| robust(draft, sizes, Robust::Median, K_MAX)),
    ("trimmed_mean_8", |draft, sizes| robust(draft, sizes, Robust::TrimmedMean { trim: 2 }, K)),
    ("trimmed_mean_32", |draft, sizes| robust(draft, sizes, Robust::TrimmedMean { trim: 8 }, K_MAX)),
    ("square_norms", square_norms),
    ("top_k", top_k),
    ("sign_vote", sign_vote),
    ("lora_decode", lora_decode),
    ("lora_forward", lora_forward),
    ("lora_backward", lora_backward),
    ("product_q8", product_q8),
    ("adamw", adamw),
];

fn rival(twin: &'static str, at_least: f64) -> Rival {
    Rival { twin, at_least }
}

fn line(what: String, moved_bytes: usize, must: Must, rivals: &[Rival], numbers: Value) -> Line {
    Line { what, moved_bytes: moved_bytes as u64, must, rivals: rivals.to_vec(), numbers }
}

fn views<T>(lists: &[Vec<T>]) -> Vec<&[T]> {
    lists.iter().map(Vec::as_slice).collect()
}

/// Weights of a mean that is not quite one.
fn weights(count: usize) -> Vec<f32> {
    (0..count).map(|k| (1.0 + k as f32 / 64.0) / count as f32).collect()
}

const ACCEPTED: &str = "the row's shapes agree";

fn commit(draft: &mut Draft, sizes: Sizes) -> Line {
    let len = sizes.elements((4 * K + 16) as f64);
    let weights = vec![WEIGHT_ONE / K as u32; K];
    let slots = draft.inputs::<i32>("slot", K, len, Fill::Slot);
    let mut master = draft.update::<i64>("master", len, Fill::Master);
    draft.device.commit(&weights, &views(&slots), &mut master).expect(ACCEPTED);
    let what = format!("integer slot sum, k = {K}, i32 into the i64 master");
    let rivals = [rival("commit_loop", 2.4)];
    line(what, len * (4 * K + 16), Must::Share(0.88), &rivals, json!({ "weights": weights }))
}

fn weighted_sum(draft: &mut Draft, sizes: Sizes) -> Line {
    let (len, weights) = (sizes.elements((4 * K + 4) as f64), weights(K));
    let inputs = draft.inputs::<f32>("x", K, len, Fill::Normal);
    let mut out = draft.output::<f32>("out", len);
    draft.device.weighted_sum(&weights, &views(&inputs), &mut out).expect(ACCEPTED);
    draft.written("out", &out);
    let what = format!("weighted sum and its square norm, k = {K}, f32");
    let rivals = [rival("weighted_sum_eager", 2.4), rival("weighted_sum_compiled", 1.0)];
    line(what, len * (4 * K + 4), Must::Share(0.92), &rivals, json!({ "weights": weights }))
}

fn weighted_sum_bf16(draft: &mut Draft, sizes: Sizes) -> Line {
    let (len, weights) = (sizes.elements((2 * K + 4) as f64), weights(K));
    let inputs = draft.inputs::<u16>("x", K, len, Fill::Normal);
    let mut out = draft.output::<f32>("out", len);
    draft.device.weighted_sum_bf16(&weights, &views(&inputs), &mut out).expect(ACCEPTED);
    draft.written("out", &out);
    let what = format!("weighted sum and its square norm, k = {K}, bf16");
    let rivals = [rival("weighted_sum_eager", 3.0)];
    line(what, len * (2 * K + 4), Must::Share(0.90), &rivals, json!({ "weights": weights }))
}

fn weighted_sum_q8(draft: &mut Draft, sizes: Sizes) -> Line {
    let (len, weights) = (sizes.elements(12.5), weights(K));
    let codes = draft.inputs::<i8>("codes", K, len, Fill::Codes);
    let scales = draft.inputs::<u16>("scales", K, len / 32, Fill::Scales);
    let mut out = draft.output::<f32>("out", len);
    let inputs = codes.iter().zip(&scales).map(|(codes, scales)| Q8::new(codes, scales).expect(ACCEPTED));
    draft.device.weighted_sum_q8(&weights, &inputs.collect::<Vec<_>>(), &mut out).expect(ACCEPTED);
    draft.written("out", &out);
    let what = format!("weighted sum and its square norm, k = {K}, int8 in blocks of 32");
    let rivals = [rival("weighted_sum_q8_eager", 8.0)];
    line(what, len * 25 / 2, Must::Share(0.88), &rivals, json!({ "weights": weights }))
}

fn quantise_q8(draft: &mut Draft, sizes: Sizes) -> Line {
    let len = sizes.elements(13.1);
    let input = draft.input::<f32>("input", len, Fill::Normal);
    let mut residue = draft.update::<f32>("residue", len, Fill::Little);
    let mut codes = draft.output::<i8>("codes", len);
    let mut scales = draft.scales_output("scales", len / 32);
    draft.device.quantise_q8(&input, &mut residue, &mut codes, &mut scales).expect(ACCEPTED);
    draft.written("codes", &codes);
    draft.written("scales", &scales);
    let rivals = [rival("quantise_q8_eager", 4.0), rival("quantise_q8_triton", 1.0)];
    let what = "quantise to int8 with error feedback".into();
    line(what, len * 13 + len / 16, Must::Share(0.88), &rivals, json!({}))
}

fn robust(draft: &mut Draft, sizes: Sizes, rule: Robust, count: usize) -> Line {
    let len = sizes.elements((4 * count + 4) as f64);
    let inputs = draft.inputs::<f32>("x", count, len, Fill::Normal);
    let mut out = draft.output::<f32>("out", len);
    draft.device.robust(rule, &views(&inputs), &mut out).expect(ACCEPTED);
    draft.written("out", &out);
    let must = Must::Share(if count <= K { 0.90 } else { 0.80 });
    let (what, rivals, trim) = match rule {
        Robust::TrimmedMean { trim } => ("trimmed mean", vec![rival("trimmed_mean_sort", 50.0)], trim),
        _ => ("median", vec![rival("median_sort", 50.0), rival("median_torch", 50.0)], 0),
    };
    let what = format!("coordinate {what}, k = {count}");
    line(what, len * 4 * (count + 1), must, &rivals, json!({ "trim": trim }))
}

fn square_norms(draft: &mut Draft, sizes: Sizes) -> Line {
    let len = sizes.elements((4 * K) as f64);
    let inputs = draft.inputs::<f32>("x", K, len, Fill::Normal);
    draft.device.square_norms(&views(&inputs), &mut [0.0; K]).expect(ACCEPTED);
    let what = format!("{K} square norms, for weights that clip");
    line(what, len * 4 * K, Must::Share(0.92), &[], json!({}))
}

fn top_k(draft: &mut Draft, sizes: Sizes) -> Line {
    let len = sizes.elements(8.1);
    let count = len / 100;
    let x = draft.input::<f32>("x", len, Fill::Normal);
    let mut indices = draft.output::<u32>("indices", count);
    let mut values = draft.output::<f32>("values", count);
    draft.device.top_k(&x, count, &mut indices, &mut values).expect(ACCEPTED);
    draft.written("indices", &indices);
    draft.written("values", &values);
    let what = "top 1 % by magnitude".into();
    let numbers = json!({ "count": count });
    line(what, len * 8 + count * 8, Must::Share(0.70), &[rival("top_k_torch", 10.0)], numbers)
}

fn sign_vote(draft: &mut Draft, sizes: Sizes) -> Line {
    let words = sizes.elements((4 * K_MAX + 4) as f64);
    let votes = draft.inputs::<u32>("vote", K_MAX, words, Fill::Bits);
    let mut out = draft.output::<u32>("out", words);
    draft.device.sign_vote(&views(&votes), &mut out).expect(ACCEPTED);
    draft.written("out", &out);
    let what = format!("sign vote, packed, k = {K_MAX}");
    line(what, words * 4 * (K_MAX + 1), Must::Share(0.80), &[], json!({}))
}

/// Adapters of one shape, by their factors.
fn adapters<'a>(a: &'a [Vec<u16>], b: &'a [Vec<u16>], width: usize) -> Vec<Adapter<'a>> {
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| Adapter::new(a, b, RANK, width, width, SCALE).expect(ACCEPTED)).collect()
}

fn lora_numbers(width: usize) -> Value {
    json!({ "rank": RANK, "width": width, "scale": SCALE })
}

fn lora_decode(draft: &mut Draft, sizes: Sizes) -> Line {
    let width = sizes.width;
    let a = draft.inputs::<u16>("a", DECODING, RANK * width, Fill::Little);
    let b = draft.inputs::<u16>("b", DECODING, RANK * width, Fill::Little);
    let x = draft.input::<u16>("x", DECODING * width, Fill::Normal);
    let mut y = draft.update::<u16>("y", DECODING * width, Fill::Normal);
    let which: Vec<u32> = (0..DECODING as u32).collect();
    draft.device.lora_grouped(&adapters(&a, &b, width), &which, &x, &mut y).expect(ACCEPTED);
    let moved_bytes = 2 * (2 * DECODING * RANK * width + 3 * DECODING * width);
    let what =
        format!("low-rank forward, {DECODING} tokens of {DECODING} adapters, rank {RANK}, width {width}");
    line(what, moved_bytes, Must::Us(6.0), &[rival("lora_decode_triton", 2.0)], lora_numbers(width))
}

fn lora_forward(draft: &mut Draft, sizes: Sizes) -> Line {
    let Sizes { width, tokens, .. } = sizes;
    let a = draft.input::<u16>("a", RANK * width, Fill::Little);
    let b = draft.input::<u16>("b", RANK * width, Fill::Little);
    let x = draft.input::<u16>("x", tokens * width, Fill::Normal);
    let mut y = draft.update::<u16>("y", tokens * width, Fill::Normal);
    let mut h = draft.output::<f32>("h", tokens * RANK);
    let adapter = Adapter::new(&a, &b, RANK, width, width, SCALE).expect(ACCEPTED);
    draft.device.lora_forward_bf16(adapter, &x, &mut h, &mut y).expect(ACCEPTED);
    draft.written("h", &h);
    let moved_bytes = 2 * (3 * tokens * width + 2 * RANK * width);
    let what = format!("low-rank forward, {tokens} tokens, rank {RANK}, width {width}");
    line(what, moved_bytes, Must::Share(0.80), &[rival("lora_forward_cublas", 1.5)], lora_numbers(width))
}

fn lora_backward(draft: &mut Draft, sizes: Sizes) -> Line {
    let Sizes { width, tokens, .. } = sizes;
    let a = draft.input::<u16>("a", RANK * width, Fill::Little);
    let b = draft.input::<u16>("b", RANK * width, Fill::Little);
    let x = draft.input::<u16>("x", tokens * width, Fill::Normal);
    let g = draft.input::<u16>("g", tokens * width, Fill::Normal);
    let mut h = draft.update::<f32>("h", tokens * RANK, Fill::Normal);
    let mut da = draft.update::<f32>("da", RANK * width, Fill::Normal);
    let mut db = draft.update::<f32>("db", RANK * width, Fill::Normal);
    let mut dx = draft.update::<u16>("dx", tokens * width, Fill::Normal);
    let adapter = Adapter::new(&a, &b, RANK, width, width, SCALE).expect(ACCEPTED);
    let gradients = Gradients { a: &mut da, b: &mut db, x: Some(&mut dx) };
    draft.device.lora_backward_bf16(adapter, &x, &g, &mut h, gradients).expect(ACCEPTED);
    let moved_bytes = 2 * 4 * tokens * width;
    let what = format!("low-rank backward, {tokens} tokens, rank {RANK}, width {width}");
    line(what, moved_bytes, Must::Share(0.70), &[rival("lora_backward_cublas", 1.5)], lora_numbers(width))
}

fn product_q8(draft: &mut Draft, sizes: Sizes) -> Line {
    let width = sizes.width;
    let codes = draft.input::<i8>("codes", width * width, Fill::Codes);
    let scales = draft.input::<u16>("scales", width * width / 32, Fill::Scales);
    let a = draft.input::<u16>("a", RANK * width, Fill::Little);
    let b = draft.input::<u16>("b", RANK * width, Fill::Little);
    let x = draft.input::<u16>("x", width, Fill::Normal);
    let mut y = draft.output::<f32>("y", width);
    let adapter = Adapter::new(&a, &b, RANK, width, width, SCALE).expect(ACCEPTED);
    let weights = Q8::new(&codes, &scales).expect(ACCEPTED);
    draft.device.product_q8(weights, &x, Some(adapter), &mut y).expect(ACCEPTED);
    draft.written("y", &y);
    let moved_bytes = width * width * 17 / 16 + 4 * RANK * width + 6 * width;
    let what = format!("int8 base product and adapter of rank {RANK}, {width} squared, one token");
    line(what, moved_bytes, Must::Share(0.6), &[], lora_numbers(width))
}

fn adamw(draft: &mut Draft, sizes: Sizes) -> Line {
    const STEP: u32 = 100;
    let len = sizes.elements(28.0);
    let gradient = draft.input::<f32>("gradient", len, Fill::Little);
    let mut mean = draft.update::<f32>("mean", len, Fill::Little);
    let mut variance = draft.update::<f32>("variance", len, Fill::Squares);
    let mut params = draft.update::<f32>("params", len, Fill::Normal);
    let settings = AdamW { weight_decay: 0.01, ..AdamW::default() };
    let state = AdamWState { mean: &mut mean, variance: &mut variance, step: STEP };
    draft.device.adamw(settings, state, 1.0, &gradient, &mut params);
    let AdamW { learning_rate, beta1, beta2, epsilon, weight_decay } = settings;
    let numbers = json!({ "learning_rate": learning_rate, "beta1": beta1, "beta2": beta2, "epsilon": epsilon,
        "weight_decay": weight_decay, "step": STEP });
    let rivals = [rival("adamw_fused", 1.0)];
    line("AdamW on adapters".into(), len * 28, Must::Share(0.90), &rivals, numbers)
}
