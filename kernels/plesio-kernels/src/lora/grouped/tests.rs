//! Rows of many adapters against each row alone.

use super::*;
use crate::arithmetic::Soft;
use crate::bf16;
use crate::lora::half::lora_forward_bf16;
use crate::vector::dot;

fn halves(len: usize, seed: u32) -> Vec<u16> {
    let value = |e: u32| (e + 1).wrapping_mul(2 * seed + 1).wrapping_mul(2_654_435_761) >> 8;
    (0..len as u32).map(|e| bf16::narrow(value(e) as f32 / 8_388_608.0 - 1.0)).collect()
}

/// Factors of adapters of these ranks.
fn factors(ranks: &[usize], d_in: usize, d_out: usize) -> Vec<(usize, Vec<u16>, Vec<u16>)> {
    let seeds = 10u32..;
    ranks
        .iter()
        .zip(seeds)
        .map(|(&rank, seed)| (rank, halves(rank * d_in, seed), halves(rank * d_out, seed + 50)))
        .collect()
}

#[test]
fn every_row_gets_what_its_adapter_alone_would_give_it() {
    for (d_in, d_out) in [(64, 64), (130, 67), (65, 1100)] {
        let factors = factors(&[1, 64, 2, 16, 7], d_in, d_out);
        let adapters: Vec<Adapter<'_>> =
            factors.iter().map(|(rank, a, b)| Adapter::new(a, b, *rank, d_in, d_out, 0.3).unwrap()).collect();
        // Runs longer than what is taken together, pairs, single rows, and rows without.
        let mut which = vec![2; 37];
        which.extend([0, 1, 1, NO_ADAPTER, 3, 3, 3, 4, NO_ADAPTER, NO_ADAPTER, 0, 4]);
        let (x, start) = (halves(which.len() * d_in, 3), halves(which.len() * d_out, 4));
        let mut y = start.clone();
        lora_grouped::<Soft>(&adapters, &which, &x, &mut y).unwrap();
        for (t, &index) in which.iter().enumerate() {
            let (x, found) = (&x[t * d_in..][..d_in], &y[t * d_out..][..d_out]);
            let mut row = start[t * d_out..][..d_out].to_vec();
            if index == NO_ADAPTER {
                assert_eq!(found, row, "row {t} has no adapter");
                continue;
            }
            let adapter = adapters[index as usize];
            // The definition, element by element.
            let wide: Vec<f32> = x.iter().map(|&x| bf16::widen(x)).collect();
            let mut naive = row.clone();
            for (j, y) in naive.iter_mut().enumerate() {
                let mut sum = bf16::widen(*y);
                for k in 0..adapter.rank() {
                    let a: Vec<f32> =
                        adapter.a()[k * d_in..][..d_in].iter().map(|&a| bf16::widen(a)).collect();
                    let factor = adapter.scale() * dot::<Soft>(&wide, &a);
                    sum = Soft::fused(factor, bf16::widen(adapter.b()[k * d_out + j]), sum);
                }
                *y = bf16::narrow(sum);
            }
            assert_eq!(found, naive, "row {t} of {d_in}x{d_out}");
            let mut h = vec![0.0; adapter.rank()];
            lora_forward_bf16::<Soft>(adapter, x, &mut h, &mut row).unwrap();
            assert_eq!(found, row, "row {t} of {d_in}x{d_out}");
        }
    }
}

#[test]
fn a_row_with_a_nan_spoils_no_other() {
    let factors = factors(&[3], 66, 70);
    let adapter = Adapter::new(&factors[0].1, &factors[0].2, 3, 66, 70, 1.0).unwrap();
    let (clean, start) = (halves(5 * 66, 3), halves(5 * 70, 4));
    let run = |x: &[u16]| {
        let mut y = start.clone();
        lora_grouped::<Soft>(&[adapter], &[0; 5], x, &mut y).unwrap();
        y
    };
    let expected = run(&clean);
    for bad in [0x7FC0, 0xFFC0, 0x7F80, 0xFF80] {
        let mut x = clean.clone();
        x[2 * 66 + 65] = bad;
        let found = run(&x);
        for t in [0, 1, 3, 4] {
            assert_eq!(found[t * 70..][..70], expected[t * 70..][..70], "row {t} beside {bad:#x}");
        }
        assert!(found[2 * 70..][..70].iter().all(|&y| !bf16::widen(y).is_finite()));
    }
}

#[test]
fn what_does_not_fit_is_refused_and_untouched() {
    let (small, wide) = (factors(&[2, 1], 6, 5), factors(&[1], 6, 7));
    let adapters: Vec<Adapter<'_>> =
        small.iter().map(|(rank, a, b)| Adapter::new(a, b, *rank, 6, 5, 1.0).unwrap()).collect();
    let other = Adapter::new(&wide[0].1, &wide[0].2, 1, 6, 7, 1.0).unwrap();
    let (x, mut y) = (halves(18, 3), vec![7; 15]);
    let mut refused = |adapters: &[Adapter<'_>], which: &[u32], x: &[u16], y_len: usize| {
        let found = lora_grouped::<Soft>(adapters, which, x, &mut y[..y_len]).unwrap_err();
        assert!(y.iter().all(|&y| y == 7));
        found
    };
    for index in [2, 3, u32::MAX - 1] {
        let found = refused(&adapters, &[0, 1, index], &x, 15);
        assert_eq!(found, KernelError::Adapter { row: 2, index, count: 2 });
    }
    assert_eq!(refused(&[], &[0], &[], 0), KernelError::Adapter { row: 0, index: 0, count: 0 });
    refused(&adapters, &[0, 1, 1], &x[1..], 15);
    refused(&adapters, &[0, 1, 1], &x, 14);
    refused(&adapters, &[0, 1], &x, 15);
    refused(&[adapters[0], other], &[0, 0, 0], &x, 15);
    assert_eq!(lora_grouped::<Soft>(&[], &[NO_ADAPTER; 3], &x, &mut y), Ok(()));
    assert_eq!(lora_grouped::<Soft>(&adapters, &[], &[], &mut []), Ok(()));
}
