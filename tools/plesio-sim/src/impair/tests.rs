//! What a link promises whatever is wrong with it, and that each thing wrong with it shows.

use super::*;
use plesio_wire::Instant;
use proptest::prelude::*;

/// Sends `sizes` a microsecond apart through a link and takes out what is due as time goes; moments and bytes.
fn carry(link: &mut Link, sizes: impl IntoIterator<Item = usize>) -> Vec<(u64, Vec<u8>)> {
    let mut seen = Vec::new();
    let mut take = |link: &mut Link, now_ns: u64| {
        while let Some(bytes) = link.poll_transmit(Instant(now_ns)) {
            let bytes = bytes.to_vec();
            seen.push((now_ns, bytes));
        }
    };
    let mut now_ns = 1_000_000_000;
    for (number, size) in sizes.into_iter().enumerate() {
        now_ns += 1_000;
        let mut datagram = vec![0; size];
        let number = (number as u32).to_le_bytes();
        datagram.iter_mut().zip(number).for_each(|(byte, number)| *byte = number);
        link.handle_datagram(Instant(now_ns), &datagram);
        take(link, now_ns);
    }
    while let Some(due) = link.poll_timeout() {
        now_ns = now_ns.max(due.0);
        take(link, now_ns);
    }
    seen
}

fn link(impairment: Impairment) -> Link {
    impairment.check().unwrap();
    Link::new(impairment, 5, "a", 64 << 20)
}

fn numbers(seen: &[(u64, Vec<u8>)]) -> Vec<u32> {
    seen.iter().map(|(_, bytes)| u32::from_le_bytes(bytes[..4].try_into().unwrap())).collect()
}

fn chance() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 0..=300_000_u32, Just(1_000_000)]
}

prop_compose! {
    fn impairment()(
        (loss_ppm, reorder_ppm, duplicate_ppm, corrupt_ppm) in (chance(), chance(), chance(), chance()),
        (silence_ppm, silence_ns) in (0..10_000_u32, 0..1_000_000_u64),
        burst in prop::option::of((chance(), chance(), chance())),
        (delay_ns, jitter_ns, jitter_hold_ns) in (0..30_000_000_u64, 0..5_000_000_u64, 0..3_000_000_u64),
        reorder_ns in 0..30_000_000_u64,
        rate in prop::option::of((1..10_000_000_000_u64, 0..100_000_u64, 0..1_000_000_u64)),
        tail in prop::option::of((0..50_000_000_u64, 0..2_000_000_000_u64, 0..50_000_000_u64)),
        cut in prop::bool::weighted(0.05),
    ) -> Impairment {
        let tail = tail.map(|(median_ns, most_ns, hold_ns)| Tail { median_ns, most_ns, hold_ns });
        let burst = burst.map(|(enter_ppm, leave_ppm, loss_ppm)| Burst { enter_ppm, leave_ppm, loss_ppm });
        let rate = rate.map(|(bytes_per_s, bucket_bytes, queue_bytes)| Rate { bytes_per_s, bucket_bytes, queue_bytes });
        Impairment {
            loss_ppm, burst, silence_ppm, silence_ns, delay_ns, jitter_ns, jitter_hold_ns, reorder_ppm, reorder_ns,
            duplicate_ppm, corrupt_ppm, rate, mtu_bytes: None, cut, tail,
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_made_or_forgotten_and_memory_stays_bounded(
        impairment in impairment(), sizes in prop::collection::vec(0..3_000_usize, 0..300), seed: u64,
        held_bytes_max in 0..200_000_u64,
    ) {
        let mut link = Link::new(impairment, seed, "a", held_bytes_max);
        for (number, size) in sizes.iter().enumerate() {
            link.handle_datagram(Instant(number as u64 * 1_000), &vec![9; *size]);
            prop_assert!(link.held_bytes() <= held_bytes_max);
        }
        let mut sent = 0;
        while link.poll_transmit(Instant(u64::MAX)).is_some() {
            sent += 1;
        }
        let tally = link.tally();
        prop_assert_eq!((tally.sent, tally.taken), (sent, sizes.len() as u64));
        prop_assert_eq!(sent, tally.taken + tally.copied - tally.lost - tally.overrun - tally.refused);
        prop_assert_eq!((link.held_bytes(), link.poll_timeout()), (0, None));
    }

    #[test]
    fn a_seed_has_one_story(
        impairment in impairment(), sizes in prop::collection::vec(0..2_000_usize, 0..100), seed: u64,
    ) {
        let story = || carry(&mut Link::new(impairment, seed, "a", 1 << 20), sizes.iter().copied());
        prop_assert_eq!(story(), story());
    }

    #[test]
    fn what_is_not_drawn_for_it_stays_whole_and_in_order(
        impairment in impairment(), sizes in prop::collection::vec(4..2_000_usize, 0..200), seed: u64,
    ) {
        let impairment = Impairment { reorder_ppm: 0, duplicate_ppm: 0, corrupt_ppm: 0, ..impairment };
        let seen = carry(&mut Link::new(impairment, seed, "a", 1 << 20), sizes.iter().copied());
        let numbers = numbers(&seen);
        prop_assert!(numbers.is_sorted_by(|one, next| one < next));
        for ((at_ns, bytes), number) in seen.iter().zip(numbers) {
            prop_assert_eq!(bytes.len(), sizes[number as usize]);
            prop_assert!(bytes[4..].iter().all(|byte| *byte == 0));
            let sent_ns = 1_000_000_000 + (u64::from(number) + 1) * 1_000;
            prop_assert!(*at_ns >= sent_ns + impairment.delay_ns);
        }
    }

    #[test]
    fn a_rate_is_kept_over_every_stretch(
        bytes_per_s in 1_000..1_000_000_000_u64, bucket_bytes in 0..50_000_u64,
        sizes in prop::collection::vec(1..2_000_usize, 1..200),
    ) {
        let rate = Rate { bytes_per_s, bucket_bytes, queue_bytes: u64::MAX };
        let seen = carry(&mut link(Impairment { rate: Some(rate), ..Impairment::default() }), sizes.iter().copied());
        prop_assert_eq!(seen.len(), sizes.len());
        let mut all_bytes = 0;
        let begun_ns = 1_000_001_000;
        for (at_ns, bytes) in &seen {
            all_bytes += bytes.len() as u64;
            let allowed = u128::from(bucket_bytes) + u128::from(bytes_per_s) * u128::from(at_ns - begun_ns) / 1_000_000_000;
            // The divisions round down, a byte for each datagram at most.
            prop_assert!(u128::from(all_bytes) <= allowed + sizes.len() as u128 + u128::from(bytes_per_s / 1_000_000_000 + 1));
        }
    }
}

#[test]
fn every_impairment_shows() {
    let none = Impairment::default();
    let ten_thousand = || std::iter::repeat_n(64, 10_000);
    let run = |impairment| {
        let mut link = link(impairment);
        let seen = carry(&mut link, ten_thousand());
        (seen, link.tally())
    };
    let (seen, tally) = run(none);
    assert_eq!(numbers(&seen), (0..10_000).collect::<Vec<u32>>());
    assert_eq!(tally, Tally { taken: 10_000, sent: 10_000, ..Tally::default() });

    let (_, tally) = run(Impairment { loss_ppm: 10_000, ..none });
    assert!((70..130).contains(&tally.lost), "{tally}");
    let (seen, tally) = run(Impairment { reorder_ppm: 100_000, reorder_ns: 1_000_000, ..none });
    assert!((850..1_150).contains(&tally.late) && !numbers(&seen).is_sorted(), "{tally}");
    let (seen, tally) = run(Impairment { duplicate_ppm: 10_000, ..none });
    assert!((70..130).contains(&tally.copied) && seen.len() as u64 == 10_000 + tally.copied, "{tally}");
    let (seen, tally) = run(Impairment { corrupt_ppm: 500_000, ..none });
    let whole = (0..10_000_u32).map(|number| {
        let mut bytes = vec![0; 64];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        bytes
    });
    let damaged = seen.iter().zip(whole).filter(|((_, bytes), whole)| bytes != whole).count();
    assert_eq!(damaged as u64, tally.damaged);
    assert!((4_700..5_300).contains(&damaged), "{tally}");
    let (seen, _) = run(Impairment { cut: true, ..none });
    assert!(seen.is_empty());
}

#[test]
fn delay_and_jitter_spread_a_dense_path() {
    let mut link = link(Impairment {
        delay_ns: 15_000_000,
        jitter_ns: 10_000_000,
        jitter_hold_ns: 20_000_000,
        ..Impairment::default()
    });
    let seen = carry(&mut link, std::iter::repeat_n(64, 600_000));
    let ways =
        seen.iter().zip(0..).map(|((at_ns, _), number)| at_ns - (1_000_000_000 + (number + 1) * 1_000));
    let (low, high) = (ways.clone().min().unwrap(), ways.clone().max().unwrap());
    assert!(
        (15_000_000..17_000_000).contains(&low) && (23_000_000..25_000_001).contains(&high),
        "{low} {high}"
    );
    let mean = ways.sum::<u64>() / seen.len() as u64;
    assert!((18_000_000..25_000_000).contains(&mean), "{mean}");
}

#[test]
fn bursts_lose_as_much_in_longer_rows() {
    for (len_mean, loss_ppm) in [(1, 10_000), (8, 10_000), (50, 100_000), (1, 900_000), (4, 1_000_000)] {
        let burst = Burst::with_loss(loss_ppm, len_mean);
        let mut link = link(Impairment { burst: Some(burst), ..Impairment::default() });
        let seen = carry(&mut link, std::iter::repeat_n(8, 400_000));
        let lost = link.tally().lost as f64 / 400_000.0;
        let wanted = f64::from(loss_ppm) / 1e6;
        assert!((0.85..1.15).contains(&(lost / wanted)), "{len_mean}: {lost} instead of {wanted}");
        let gaps = numbers(&seen).windows(2).filter(|pair| pair[1] > pair[0] + 1).count();
        let row = link.tally().lost as f64 / gaps.max(1) as f64;
        if loss_ppm < 500_000 {
            assert!((0.8..1.25).contains(&(row / f64::from(len_mean))), "{len_mean}: rows of {row}");
        }
    }
}

#[test]
fn a_full_queue_loses_and_says_so() {
    let rate = Rate { bytes_per_s: 1_000_000, bucket_bytes: 1_000, queue_bytes: 5_000 };
    let mut link = link(Impairment { rate: Some(rate), ..Impairment::default() });
    let seen = carry(&mut link, std::iter::repeat_n(1_000, 20));
    // One out of the bucket, five in the queue; the rest came at once and found it full.
    assert_eq!((seen.len(), link.tally().overrun), (6, 14));
    assert!(seen.last().unwrap().0 >= 1_005_000_000);
}

#[test]
fn figures_that_no_path_has_are_refused() {
    let none = Impairment::default();
    assert_eq!(none.check(), Ok(()));
    assert!(Impairment { loss_ppm: 1_000_001, ..none }.check().is_err());
    assert!(Impairment { delay_ns: u64::MAX, ..none }.check().is_err());
    let rate = Some(Rate { bytes_per_s: 0, bucket_bytes: 0, queue_bytes: 0 });
    assert_eq!(Impairment { rate, ..none }.check(), Err(ImpairError::Rate));
    let burst = Some(Burst { enter_ppm: 0, leave_ppm: u32::MAX, loss_ppm: 0 });
    let error = Impairment { burst, ..none }.check().unwrap_err();
    assert!(error.to_string().contains("burst happens 4294967295"), "{error}");
    // Even so, nothing breaks.
    let wild =
        Impairment { delay_ns: u64::MAX, jitter_ns: u64::MAX, reorder_ppm: u32::MAX, rate, burst, ..none };
    let mut link = Link::new(wild, 1, "a", 1 << 20);
    link.handle_datagram(Instant(u64::MAX), &[1; 100]);
    link.handle_datagram(Instant(0), &[1; 100]);
}

#[test]
fn buffers_are_used_again() {
    let mut link = link(Impairment::default());
    carry(&mut link, [60_000; 500]);
    let before = link.held_bytes();
    carry(&mut link, [10; 500]);
    assert_eq!((before, link.held_bytes()), (0, 0));
    // A small datagram does not hold a large buffer.
    link.handle_datagram(Instant(0), &[0; 10]);
    assert!(link.held_bytes() < 4_000, "{}", link.held_bytes());
}
