//! The one-token product against its definition and against double precision.

use super::*;
use crate::arithmetic::Soft;
use crate::bf16;
use crate::q8::dequantise_q8;
use crate::vector::dot;

fn halves(len: usize, seed: u32) -> Vec<u16> {
    let value = |e: u32| (e + 1).wrapping_mul(2 * seed + 1).wrapping_mul(2_654_435_761) >> 8;
    (0..len as u32).map(|e| bf16::narrow(value(e) as f32 / 8_388_608.0 - 1.0)).collect()
}

/// Codes and scales of a layer, scales around 2^-7.
fn weights(d_in: usize, d_out: usize) -> (Vec<i8>, Vec<u16>) {
    let codes = (0..d_in * d_out).map(|e| (e * 37 % 255) as i8).collect();
    let scales = (0..d_in / 32 * d_out).map(|block| 0x2000 + (block * 77 % 1024) as u16).collect();
    (codes, scales)
}

#[test]
fn the_product_is_the_dot_of_decoded_weights_and_then_the_adapter() {
    for (d_in, d_out, rank) in [(0, 3, 0), (32, 1, 1), (64, 5, 2), (96, 7, 0), (1056, 9, 5), (2080, 70, 64)] {
        let (codes, scales) = weights(d_in, d_out);
        let (x, a, b) = (halves(d_in, 1), halves(rank * d_in, 2), halves(rank * d_out, 3));
        let adapter = (rank > 0).then(|| Adapter::new(&a, &b, rank, d_in, d_out, 0.6).unwrap());
        let coded = Q8::new(&codes, &scales).unwrap();
        let mut y = vec![7.0; d_out];
        product_q8::<Soft>(coded, &x, adapter, &mut y).unwrap();
        let mut decoded = vec![0.0; d_in * d_out];
        dequantise_q8(coded, &mut decoded).unwrap();
        let wide = |halves: &[u16]| -> Vec<f32> { halves.iter().map(|&h| bf16::widen(h)).collect() };
        let (x, a, b) = (wide(&x), wide(&a), wide(&b));
        for (i, &found) in y.iter().enumerate() {
            let row = &decoded[i * d_in..][..d_in];
            let mut sum = dot::<Soft>(row, &x);
            for k in 0..rank {
                let h = dot::<Soft>(&x, &a[k * d_in..][..d_in]);
                sum = Soft::fused(0.6 * h, b[k * d_out + i], sum);
            }
            assert_eq!(found.to_bits(), sum.to_bits(), "{d_in}x{d_out} r{rank} row {i}");

            let products = |y: &[f32]| -> Vec<f64> {
                x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).collect()
            };
            let size = |products: &[f64]| products.iter().map(|p| p.abs()).sum::<f64>();
            let base = products(row);
            let (mut exact, mut bound) = (base.iter().sum::<f64>(), size(&base));
            for k in 0..rank {
                let h = products(&a[k * d_in..][..d_in]);
                let factor = f64::from(0.6f32) * f64::from(b[k * d_out + i]);
                exact += factor * h.iter().sum::<f64>();
                bound += factor.abs() * size(&h);
            }
            // A lane's terms, six folds, the scale and the ranks.
            let bound = (d_in.div_ceil(64) + 7 + rank) as f64 * f64::from(f32::EPSILON) / 2.0 * bound;
            let error = (f64::from(found) - exact).abs();
            assert!(error <= bound, "{d_in}x{d_out} r{rank} row {i}: {error:e} above {bound:e}");
        }
    }
}

#[test]
fn any_scale_is_a_value_and_spoils_its_row_alone() {
    let (codes, clean) = weights(64, 6);
    let x = halves(64, 1);
    let mut expected = [0.0; 6];
    product_q8::<Soft>(Q8::new(&codes, &clean).unwrap(), &x, None, &mut expected).unwrap();
    for bad in [0x7C00, 0xFC00, 0x7E00, 0xFE00] {
        let (mut scales, mut y) = (clean.clone(), [0.0; 6]);
        scales[2 * 4 + 1] = bad;
        product_q8::<Soft>(Q8::new(&codes, &scales).unwrap(), &x, None, &mut y).unwrap();
        assert!(!y[4].is_finite(), "{bad:#x}");
        for i in [0, 1, 2, 3, 5] {
            assert_eq!(y[i].to_bits(), expected[i].to_bits());
        }
    }
}

#[test]
fn layers_that_do_not_fit_are_refused_and_untouched() {
    let (codes, scales) = weights(64, 3);
    let coded = Q8::new(&codes, &scales).unwrap();
    let (x, a, b) = (halves(96, 1), halves(96, 2), halves(4, 3));
    let mut y = [7.0; 4];
    let found = product_q8::<Soft>(coded, &x[..63], None, &mut y[..3]).unwrap_err();
    assert_eq!(found, KernelError::Blocks { what: "weights", elements: 63, block: 32 });
    for (d_in, d_out) in [(96, 3), (32, 3), (64, 4), (64, 2), (64, 0)] {
        assert!(product_q8::<Soft>(coded, &x[..d_in], None, &mut y[..d_out]).is_err(), "{d_in}x{d_out}");
    }
    for (d_in, d_out) in [(64, 4), (96, 3)] {
        let adapter = Adapter::new(&a[..d_in], &b[..d_out], 1, d_in, d_out, 1.0).unwrap();
        assert!(product_q8::<Soft>(coded, &x[..64], Some(adapter), &mut y[..3]).is_err());
    }
    assert_eq!(y, [7.0; 4]);
    assert_eq!(product_q8::<Soft>(Q8::new(&[], &[]).unwrap(), &[], None, &mut y), Ok(()));
    assert_eq!(y, [0.0; 4], "sums of nothing");
}
