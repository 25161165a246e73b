//! The float operations against plain sums in binary64: an opinion that shares no order, no rounding and no code with
//! the kernels.
//!
//! Inputs are random and of odd sizes, and what is to be written is NaN before, so that an element that nobody wrote
//! is seen. A mismatch panics and says operation, shape and element.

use plesio_conformance::Effort;
use plesio_conformance::values::{floats, halves, views};
use plesio_kernels::lora::Gradients;
use plesio_kernels::{AdamW, AdamWState, Adapter, Device, NO_ADAPTER, Q8, Robust, bf16, f16};

/// Errors of a chain of binary32 operations, as a part of the sum of the magnitudes that went in.
const CHAIN: f64 = 1.0 / (1 << 19) as f64;
/// Error of one rounding to bfloat16, as a part of the result.
const HALF: f64 = 1.0 / (1 << 8) as f64;

/// Everything here.
pub(crate) fn check<D: Device>(device: D, effort: Effort) {
    let (lengths, tokens): (&[usize], &[usize]) = match effort {
        Effort::Short => (&[1, 31, 1025, 5003], &[1, 5]),
        Effort::Whole => (&[1, 31, 1023, 1025, 5003, 100_003, 1_000_003], &[1, 5, 33, 130]),
    };
    for &len in lengths {
        aggregation(device, len);
        codes(device, len);
        step(device, len);
    }
    for &rows in tokens {
        for (rank, d_in, d_out) in [(1, 33, 65), (7, 130, 96), (16, 257, 300)] {
            layer(device, Shape { rows, rank, d_in, d_out });
        }
        base(device, 64 * rows, 77);
    }
}

/// A sum in binary64, and the sum of its terms' magnitudes.
#[derive(Clone, Copy, Default)]
struct Exact {
    value: f64,
    size: f64,
}

impl Exact {
    fn of(value: f64) -> Self {
        Self { value, size: value.abs() }
    }

    fn plus(self, term: f64) -> Self {
        Self { value: self.value + term, size: self.size + term.abs() }
    }

    fn times(self, factor: f64) -> Self {
        Self { value: self.value * factor, size: self.size * factor.abs() }
    }

    fn and(self, other: Self) -> Self {
        Self { value: self.value + other.value, size: self.size + other.size }
    }
}

fn dot(x: impl Iterator<Item = f64>, y: impl Iterator<Item = f64>) -> Exact {
    x.zip(y).fold(Exact::default(), |sum, (x, y)| sum.plus(x * y))
}

/// A NaN is not near anything.
#[track_caller]
fn near(what: &str, found: impl Iterator<Item = f64>, expected: &[Exact], rounding: f64) {
    let mut count = 0;
    for (element, (found, exact)) in found.zip(expected).enumerate() {
        let allowed = CHAIN * exact.size + rounding * exact.value.abs() + f64::from(f32::MIN_POSITIVE);
        let near = (found - exact.value).abs() <= allowed;
        assert!(near, "{what}: element {element} is {found:e}, in binary64 {:e}", exact.value);
        count += 1;
    }
    assert_eq!(count, expected.len(), "{what}: as many as there should be");
}

fn wide(values: &[f32]) -> impl Iterator<Item = f64> + Clone {
    values.iter().map(|&value| f64::from(value))
}

fn wide_halves(values: &[u16]) -> impl Iterator<Item = f64> + Clone {
    values.iter().map(|&value| f64::from(bf16::widen(value)))
}

fn wide_codes<'a>(codes: &'a [i8], scales: &'a [u16]) -> impl Iterator<Item = f64> + Clone + 'a {
    let scale = |element: usize| f64::from(f16::widen(scales[element / 32]));
    codes.iter().enumerate().map(move |(element, &code)| f64::from(code) * scale(element))
}

/// Codes of floats, which `device` makes.
fn coded<D: Device>(device: D, input: &[f32]) -> (Vec<i8>, Vec<u16>, Vec<f32>) {
    let (mut residue, mut codes, mut scales) =
        (vec![0.0; input.len()], vec![i8::MIN; input.len()], vec![f16::NAN; input.len().div_ceil(32)]);
    let encoded = device.quantise_q8(input, &mut residue, &mut codes, &mut scales);
    assert!(encoded.expect("lengths agree").finite, "q8 of {} finite floats", input.len());
    (codes, scales, residue)
}

fn aggregation<D: Device>(device: D, len: usize) {
    const COUNT: usize = 9;
    let weights = floats(COUNT, len as u64);
    let inputs: Vec<_> = (0..COUNT).map(|k| floats(len, 100 + k as u64)).collect();
    let sum = |inputs: &[Vec<f64>]| -> Vec<Exact> {
        let weighted = |element: usize| inputs.iter().zip(wide(&weights)).map(move |(x, w)| w * x[element]);
        (0..len).map(|element| weighted(element).fold(Exact::default(), Exact::plus)).collect()
    };
    let judge = |what: &str, out: &[f32], norm: f64, inputs: &[Vec<f64>]| {
        let what = format!("{what} of {COUNT} by {len}");
        near(&what, wide(out), &sum(inputs), 0.0);
        near(&format!("norm of {what}"), [norm].into_iter(), &[dot(wide(out), wide(out))], 0.0);
    };
    let mut out = vec![f32::NAN; len];
    let norm = device.weighted_sum(&weights, &views(&inputs), &mut out).expect("lengths agree");
    let exact: Vec<Vec<f64>> = inputs.iter().map(|input| wide(input).collect()).collect();
    judge("weighted_sum", &out, norm, &exact);

    let stored: Vec<_> = (0..COUNT).map(|k| halves(len, 200 + k as u64)).collect();
    let mut out = vec![f32::NAN; len];
    let norm = device.weighted_sum_bf16(&weights, &views(&stored), &mut out).expect("lengths agree");
    let halves: Vec<Vec<f64>> = stored.iter().map(|input| wide_halves(input).collect()).collect();
    judge("weighted_sum_bf16", &out, norm, &halves);

    let stored: Vec<_> = inputs.iter().map(|input| coded(device, input)).collect();
    let codes: Vec<_> =
        stored.iter().map(|(codes, scales, _)| Q8::new(codes, scales).expect("one for 32")).collect();
    let mut out = vec![f32::NAN; len];
    let norm = device.weighted_sum_q8(&weights, &codes, &mut out).expect("lengths agree");
    let decoded: Vec<Vec<f64>> =
        codes.iter().map(|input| wide_codes(input.codes(), input.scales()).collect()).collect();
    judge("weighted_sum_q8", &out, norm, &decoded);

    let mut norms = vec![f64::NAN; inputs.len()];
    device.square_norms(&views(&inputs), &mut norms).expect("lengths agree");
    let exact_norms: Vec<_> = inputs.iter().map(|input| dot(wide(input), wide(input))).collect();
    near(&format!("square_norms of {len}"), norms.into_iter(), &exact_norms, 0.0);

    for (rule, trim) in [(Robust::Median, 4), (Robust::TrimmedMean { trim: 2 }, 2)] {
        let mut out = vec![f32::NAN; len];
        device.robust(rule, &views(&inputs), &mut out).expect("lengths agree");
        let kept = |element: usize| {
            let mut values: Vec<f64> = exact.iter().map(|x| x[element]).collect();
            values.sort_by(f64::total_cmp);
            let kept = &values[trim..COUNT - trim];
            kept.iter().copied().fold(Exact::default(), Exact::plus).times(1.0 / kept.len() as f64)
        };
        near(
            &format!("{rule:?} of {COUNT} by {len}"),
            wide(&out),
            &(0..len).map(kept).collect::<Vec<_>>(),
            0.0,
        );
    }
}

/// What goes into codes is what they say and what is left, and no more than half a step is.
fn codes<D: Device>(device: D, len: usize) {
    let input = floats(len, 7);
    let (codes, scales, residue) = coded(device, &input);
    let what = format!("quantise_q8 of {len}");
    let sums: Vec<Exact> = wide_codes(&codes, &scales)
        .zip(wide(&residue))
        .map(|(said, left)| Exact::of(said).plus(left))
        .collect();
    near(&what, wide(&input), &sums, 0.0);
    for (element, left) in wide(&residue).enumerate() {
        let step = f64::from(f16::widen(scales[element / 32]));
        assert!(
            left.abs() <= step * 0.5001,
            "{what}: element {element} leaves {left:e} of a step of {step:e}"
        );
    }
    let mut out = vec![f32::NAN; len];
    let coded = Q8::new(&codes, &scales).expect("one for 32");
    device.dequantise_q8(coded, &mut out).expect("lengths agree");
    let said: Vec<Exact> = wide_codes(&codes, &scales).map(Exact::of).collect();
    near(&format!("dequantise_q8 of {len}"), wide(&out), &said, 0.0);

    let count = len.div_ceil(100);
    let (mut indices, mut values) = (vec![u32::MAX; count], vec![f32::NAN; count]);
    device.top_k(&input, count, &mut indices, &mut values).expect("lengths agree");
    let mut order: Vec<u32> = (0..len as u32).collect();
    order.sort_by(|a, b| input[*b as usize].abs().total_cmp(&input[*a as usize].abs()).then(a.cmp(b)));
    order.truncate(count);
    order.sort_unstable();
    assert_eq!(indices, order, "top_k of {len}");
    assert!(indices.iter().zip(&values).all(|(at, value)| input[*at as usize] == *value), "top_k of {len}");
}

fn step<D: Device>(device: D, len: usize) {
    let settings = AdamW { weight_decay: 0.01, ..AdamW::default() };
    let (gradient, params) = (floats(len, 31), floats(len, 32));
    let (mean, variance) = (floats(len, 33), floats(len, 34).iter().map(|x| x * x).collect::<Vec<_>>());
    let (mut new_mean, mut new_variance, mut new_params) = (mean.clone(), variance.clone(), params.clone());
    let state = AdamWState { mean: &mut new_mean, variance: &mut new_variance, step: 3 };
    device.adamw(settings, state, 0.5, &gradient, &mut new_params);
    let [rate, beta1, beta2, epsilon, decay] =
        [settings.learning_rate, settings.beta1, settings.beta2, settings.epsilon, settings.weight_decay]
            .map(f64::from);
    let expected = |element: usize| {
        let gradient = 0.5 * f64::from(gradient[element]);
        let mean = Exact::of(beta1 * f64::from(mean[element])).plus((1.0 - beta1) * gradient);
        let variance =
            Exact::of(beta2 * f64::from(variance[element])).plus((1.0 - beta2) * gradient * gradient);
        let root = (variance.value / (1.0 - beta2.powi(3))).sqrt() + epsilon;
        let moved = mean.times(-rate / (1.0 - beta1.powi(3)) / root);
        let param = f64::from(params[element]);
        [mean, variance, Exact::of(param).plus(-rate * decay * param).and(moved)]
    };
    let expected: Vec<[Exact; 3]> = (0..len).map(expected).collect();
    for (index, (what, found)) in
        [("mean", &new_mean), ("variance", &new_variance), ("params", &new_params)].into_iter().enumerate()
    {
        let wanted: Vec<Exact> = expected.iter().map(|all| all[index]).collect();
        near(&format!("adamw's {what} of {len}"), wide(found), &wanted, 0.0);
    }
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    rows: usize,
    rank: usize,
    d_in: usize,
    d_out: usize,
}

/// `h = x a^T` and `y + scale h b`, each row.
fn forward(x: &[u16], a: &[u16], b: &[u16], y: &[u16], scale: f64, rank: usize) -> (Vec<Exact>, Vec<Exact>) {
    let (d_in, d_out) = (a.len() / rank, b.len() / rank);
    let (mut hs, mut ys) = (Vec::new(), Vec::new());
    for (x, y) in x.chunks(d_in).zip(y.chunks(d_out)) {
        let h: Vec<Exact> = a.chunks(d_in).map(|a| dot(wide_halves(x), wide_halves(a))).collect();
        let b: Vec<Vec<f64>> = b.chunks(d_out).map(|b| wide_halves(b).collect()).collect();
        ys.extend(wide_halves(y).enumerate().map(|(column, y)| {
            let terms = h.iter().zip(&b).map(|(h, b)| h.times(scale * b[column]));
            terms.fold(Exact::of(y), Exact::and)
        }));
        hs.extend(h);
    }
    (hs, ys)
}

/// `out + coefficients^T rows`.
fn outer(out: &[f32], coefficients: &[Exact], rank: usize, rows: &[u16], scale: f64) -> Vec<Exact> {
    let width = out.len() / rank;
    let rows: Vec<Vec<f64>> = rows.chunks(width).map(|row| wide_halves(row).collect()).collect();
    let sum = |(index, start): (usize, f64)| {
        let (k, column) = (index / width, index % width);
        let terms =
            rows.iter().enumerate().map(|(t, row)| coefficients[t * rank + k].times(scale * row[column]));
        terms.fold(Exact::of(start), Exact::and)
    };
    wide(out).enumerate().map(sum).collect()
}

fn layer<D: Device>(device: D, shape: Shape) {
    let Shape { rows, rank, d_in, d_out } = shape;
    let (a, b) = (halves(rank * d_in, 1), halves(rank * d_out, 2));
    let (x, y, g) = (halves(rows * d_in, 3), halves(rows * d_out, 4), halves(rows * d_out, 5));
    let adapter = Adapter::new(&a, &b, rank, d_in, d_out, 0.5).expect("a legal shape");

    let (mut h, mut found) = (vec![f32::NAN; rows * rank], y.clone());
    device.lora_forward_bf16(adapter, &x, &mut h, &mut found).expect("lengths agree");
    let (exact_h, exact_y) = forward(&x, &a, &b, &y, 0.5, rank);
    near(&format!("h of lora_forward_bf16, {shape:?}"), wide(&h), &exact_h, 0.0);
    near(&format!("y of lora_forward_bf16, {shape:?}"), wide_halves(&found), &exact_y, HALF);

    // One row has no adapter and stays as it is.
    let which: Vec<u32> = (0..rows).map(|row| if row == 1 { NO_ADAPTER } else { 0 }).collect();
    let mut grouped = y.clone();
    device.lora_grouped(&[adapter], &which, &x, &mut grouped).expect("lengths agree");
    let mut expected = exact_y;
    if let Some(row) = expected.chunks_mut(d_out).nth(1) {
        row.iter_mut().zip(wide_halves(&y[d_out..])).for_each(|(element, y)| *element = Exact::of(y));
    }
    near(&format!("lora_grouped, {shape:?}"), wide_halves(&grouped), &expected, HALF);

    let (start_a, start_b, start_x) = (floats(a.len(), 6), floats(b.len(), 7), halves(x.len(), 8));
    let (mut da, mut db, mut dx, mut back) = (start_a.clone(), start_b.clone(), start_x.clone(), h.clone());
    let gradients = Gradients { a: &mut da, b: &mut db, x: Some(&mut dx) };
    device.lora_backward_bf16(adapter, &x, &g, &mut back, gradients).expect("lengths agree");
    let coefficients: Vec<Exact> = wide(&h).map(Exact::of).collect();
    near(&format!("dB, {shape:?}"), wide(&db), &outer(&start_b, &coefficients, rank, &g, 0.5), 0.0);
    let (exact_back, exact_x) = forward(&g, &b, &a, &start_x, 0.5, rank);
    let exact_back: Vec<Exact> = exact_back.into_iter().map(|h| h.times(0.5)).collect();
    near(&format!("h of lora_backward_bf16, {shape:?}"), wide(&back), &exact_back, 0.0);
    near(&format!("dA, {shape:?}"), wide(&da), &outer(&start_a, &exact_back, rank, &x, 1.0), 0.0);
    near(&format!("dx, {shape:?}"), wide_halves(&dx), &exact_x, HALF);
}

fn base<D: Device>(device: D, d_in: usize, d_out: usize) {
    const RANK: usize = 5;
    let (codes, scales, _) = coded(device, &floats(d_in * d_out, 41));
    let (x, a, b) = (halves(d_in, 42), halves(RANK * d_in, 43), halves(RANK * d_out, 44));
    let adapter = Adapter::new(&a, &b, RANK, d_in, d_out, 0.5).expect("a legal shape");
    let mut y = vec![f32::NAN; d_out];
    let weights = Q8::new(&codes, &scales).expect("one for 32");
    device.product_q8(weights, &x, Some(adapter), &mut y).expect("lengths agree");
    let decoded: Vec<f64> = wide_codes(&codes, &scales).collect();
    let (_, low) = forward(&x, &a, &b, &vec![0; d_out], 0.5, RANK);
    let expected: Vec<Exact> = decoded
        .chunks(d_in)
        .zip(low)
        .map(|(row, low)| dot(row.iter().copied(), wide_halves(&x)).and(low))
        .collect();
    near(&format!("product_q8 of {d_out} by {d_in}"), wide(&y), &expected, 0.0);
}

#[cfg(test)]
mod tests {
    use plesio_kernels::Reference;

    use super::*;

    #[test]
    fn the_scalar_reference_agrees_with_binary64() {
        check(Reference, Effort::Short);
    }

    #[test]
    #[should_panic(expected = "element 1 is NaN")]
    fn what_nobody_wrote_is_near_nothing() {
        near("a sum", [1.0, f64::NAN].into_iter(), &[Exact::of(1.0), Exact::of(2.0)], HALF);
    }

    #[test]
    #[should_panic(expected = "as many as there should be")]
    fn results_that_are_missing_are_missed() {
        near("a sum", [1.0].into_iter(), &[Exact::of(1.0), Exact::of(2.0)], HALF);
    }
}
