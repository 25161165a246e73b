//! Shares against the bound of the linear program, found another way.

use super::*;
use proptest::prelude::*;

const MBYTE: u64 = 1 << 20;

fn work(elements: u64, contribution: u64, result: u64) -> Work {
    Work {
        elements,
        contribution_bytes: elements * contribution,
        result_bytes: elements * result,
        grain_elements: 256,
    }
}

fn rates(up: u64, down: u64, sum: u64) -> Rates {
    Rates { up_bytes_per_s: up * MBYTE, down_bytes_per_s: down * MBYTE, sum_elements_per_s: sum * MBYTE }
}

fn equal(work: &Work, n: usize) -> Vec<Range<u64>> {
    (0..n).map(|index| crate::range(work.elements, n, index)).collect()
}

/// The linear program (least T such that shares in [0, 1] sum to 1 and no resource is busy for longer) by halving:
/// written from the resources' busy times, not from their slopes.
fn bound_s(work: &Work, rates: &[Rates]) -> f64 {
    let (a, b, e) = (work.contribution_bytes as f64, work.result_bytes as f64, work.elements as f64);
    let others = rates.len() as f64 - 1.0;
    let fits = |rates: &Rates, share: f64, time_s: f64| {
        let slack = time_s * (1.0 + 1e-12);
        let rate = |rate: u64| rate.max(1) as f64;
        [
            (a * (1.0 - share) + b * others * share) / rate(rates.up_bytes_per_s) <= slack,
            (a * others * share + b * (1.0 - share)) / rate(rates.down_bytes_per_s) <= slack,
            (others + 1.0) * share * e / rate(rates.sum_elements_per_s) <= slack,
        ]
    };
    // Shares that fit a node are an interval; its ends are found by halving between one that fits and one that
    // does not. A resource is a line, so the share in the middle of what two resources allow is found on the way.
    let interval = |rates: &Rates, time_s: f64| -> Option<(f64, f64)> {
        let (mut low, mut high) = (0.0, 1.0);
        for resource in 0..3 {
            let fits = |share: f64| fits(rates, share, time_s)[resource];
            match (fits(low), fits(high)) {
                (true, true) => {}
                (false, false) => return None,
                (at_low, _) => {
                    let (mut inside, mut outside) = if at_low { (low, high) } else { (high, low) };
                    for _ in 0..100 {
                        let middle = (inside + outside) / 2.0;
                        *(if fits(middle) { &mut inside } else { &mut outside }) = middle;
                    }
                    *(if at_low { &mut high } else { &mut low }) = inside;
                }
            }
        }
        Some((low, high))
    };
    let enough = |time_s: f64| {
        let boxes: Option<Vec<_>> = rates.iter().map(|rates| interval(rates, time_s)).collect();
        boxes.is_some_and(|boxes| {
            let (least, most) =
                boxes.iter().fold((0.0, 0.0), |(least, most), (low, high)| (least + low, most + high));
            least <= 1.0 + 1e-9 && most >= 1.0 - 1e-9
        })
    };
    let (mut low, mut high) = (0.0, 1.0);
    while !enough(high) {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        *(if enough(middle) { &mut high } else { &mut low }) = middle;
    }
    high
}

#[test]
fn ten_to_one_mixes_end_near_the_bound_and_equal_shares_do_not() {
    let elements = 16 * MBYTE;
    let mut table = Vec::new();
    for n in [4usize, 8, 16, 32] {
        let fast = rates(1000, 1000, 1000);
        for (what, fast, slow) in [
            ("links", fast, rates(100, 100, 1000)),
            ("uplinks", fast, rates(100, 1000, 1000)),
            ("CPUs", rates(20_000, 20_000, 1000), rates(20_000, 20_000, 100)),
            ("all", fast, rates(100, 100, 100)),
        ] {
            for (widths, contribution, result) in
                [("f32, f32", 4, 4), ("i32, i64", 4, 8), ("int8, f32", 1, 4)]
            {
                for slows in [1, n / 2] {
                    let work = work(elements, contribution, result);
                    let mix: Vec<Rates> = (0..n).map(|i| if i < slows { slow } else { fast }).collect();
                    let bound_s = bound_s(&work, &mix);
                    let ours = work.time_s(&mix, &shares(&work, &mix)) / bound_s;
                    let equal = work.time_s(&mix, &equal(&work, n)) / bound_s;
                    println!(
                        "{what:8} n = {n:2}, {slows:2} slow, {widths}: ours {ours:.4}, equal {equal:.2}"
                    );
                    assert!((1.0 - 1e-6..1.02).contains(&ours), "{what} {n} {slows} {widths}: {ours}");
                    table.push((what, widths, n, slows, equal));
                }
            }
        }
    }
    let of = |what: &str, widths: &str| -> Vec<f64> {
        let rows = table.iter().filter(|row| (row.0, row.1) == (what, widths));
        rows.map(|row| row.4).collect()
    };
    // Owning costs a node little beside its own contribution and everybody's result ...
    assert!(of("links", "f32, f32").iter().all(|&equal| (1.3..2.0).contains(&equal)));
    // ... unless contributions are narrow and results are not, or the CPU is what is slow.
    assert!(of("uplinks", "int8, f32").iter().all(|&equal| (3.0..5.0).contains(&equal)));
    assert!(of("CPUs", "f32, f32").iter().all(|&equal| (5.0..10.0).contains(&equal)));
}

#[test]
fn no_grid_of_shares_does_better() {
    let mixes = [
        [rates(10, 300, 50), rates(200, 40, 80), rates(100, 100, 7)],
        [rates(1, 1, 1), rates(10, 10, 10), rates(100, 100, 100)],
        [rates(5, 50, 500), rates(500, 50, 5), rates(50, 5, 500)],
    ];
    for mix in mixes {
        for (contribution, result) in [(4, 4), (1, 8), (8, 1), (4, 8)] {
            let work = work(16 * MBYTE, contribution, result);
            let steps = 256;
            let mut best_s = f64::INFINITY;
            for first in 0..=steps {
                for second in first..=steps {
                    let cut = |at: u64| work.elements / steps * at;
                    let ranges = [0..cut(first), cut(first)..cut(second), cut(second)..work.elements];
                    best_s = best_s.min(work.time_s(&mix, &ranges));
                }
            }
            let (ours_s, bound_s) = (work.time_s(&mix, &shares(&work, &mix)), bound_s(&work, &mix));
            assert!(ours_s <= best_s * 1.0001, "{mix:?}: {ours_s} against {best_s}");
            assert!(bound_s <= best_s * 1.000_001 && best_s < bound_s * 1.1, "{mix:?}: {bound_s} {best_s}");
        }
    }
}

#[test]
fn a_slow_node_may_own_nothing() {
    let work = work(MBYTE, 4, 4);
    let fast = rates(1000, 1000, 1000);
    let ranges = shares(&work, &[fast, rates(100, 100, 1000), fast, fast]);
    assert!(ranges[1].is_empty());
    assert!([0, 2, 3].iter().all(|&owner| ranges[owner].end - ranges[owner].start > MBYTE / 4));
}

#[test]
fn alike_nodes_share_alike() {
    for n in 1..=32 {
        for (contribution, result) in [(4, 4), (1, 8), (8, 1)] {
            let work = work(1000 * 256, contribution, result);
            for (ours, equal) in shares(&work, &vec![rates(100, 50, 30); n]).iter().zip(equal(&work, n)) {
                assert!(ours.start.abs_diff(equal.start) <= 256, "{n}: {ours:?} and {equal:?}");
            }
        }
    }
}

#[test]
fn the_ranges_stay_what_they_are() {
    // Nodes of one view must agree on them, so a change here is a change of the protocol.
    let mix = [rates(117, 93, 611), rates(1250, 940, 2100), rates(12, 85, 333), rates(117, 118, 90)];
    let cuts = |contribution, result| {
        let work = work(74_752, contribution, result);
        shares(&work, &mix).into_iter().map(|range| range.end).collect::<Vec<_>>()
    };
    assert_eq!(cuts(4, 8), [24_832, 49_920, 49_920, 74_752]);
    assert_eq!(cuts(1, 8), [17_152, 57_088, 57_600, 74_752]);
}

proptest! {
    #[test]
    fn ranges_tile_the_elements_at_whole_grains(
        elements in 0u64..1 << 40,
        contribution in 0u64..16,
        result in 0u64..16,
        grain in 0u64..5000,
        rates in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 1..=32),
        small in any::<bool>(),
    ) {
        let keep = |rate: u64| if small { rate % 3 } else { rate };
        let rates: Vec<Rates> = rates
            .into_iter()
            .map(|(up, down, sum)| Rates {
                up_bytes_per_s: keep(up),
                down_bytes_per_s: keep(down),
                sum_elements_per_s: keep(sum),
            })
            .collect();
        let work = Work { grain_elements: grain, ..work(elements, contribution, result) };
        let ranges = shares(&work, &rates);
        prop_assert_eq!(ranges.len(), rates.len());
        let mut start = 0;
        for range in &ranges {
            prop_assert_eq!(range.start, start);
            prop_assert!(range.end >= start);
            prop_assert!(range.start.is_multiple_of(grain.max(1)) || range.start == elements);
            start = range.end;
        }
        prop_assert_eq!(start, elements);
        for factor in 1..=4 {
            let weights = share_weights(&work, &rates, factor);
            let most = share_most(rates.len(), factor);
            prop_assert!(weights.iter().all(|weight| *weight <= most));
            prop_assert_eq!(weights.iter().map(|weight| u32::from(*weight)).sum::<u32>(), u32::from(SHARE_ONE));
        }
    }

    #[test]
    fn the_bound_is_reached_whatever_the_mix(
        contribution in 1u64..9,
        result in 1u64..9,
        rates in prop::collection::vec((1u64..10_000, 1u64..10_000, 1u64..10_000), 2..=32),
    ) {
        let work = work(1 << 30, contribution, result);
        let mix: Vec<Rates> = rates.into_iter().map(|(up, down, sum)| self::rates(up, down, sum)).collect();
        let (ours_s, bound_s) = (work.time_s(&mix, &shares(&work, &mix)), bound_s(&work, &mix));
        prop_assert!(ours_s <= bound_s * 1.01 && ours_s >= bound_s * 0.999, "{} against {}", ours_s, bound_s);
    }
}
