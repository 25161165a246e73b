//! Stories of groups that call together: deaths, disagreements, deadlines, nonsense.

mod world;

use super::*;
use crate::call::Element;
use std::vec::Vec;
use world::{Draw, INPUT, Story, World, brought, get};

fn call(operation: Operation, element: Element, count: u64) -> Call {
    Call { operation, element, count }
}

const SUM: Operation = Operation::AllReduce;

fn check(story: &Story<'_>, seed: u64) -> World {
    let world = story.run(seed);
    for (number, call) in story.calls.iter().enumerate() {
        world.check(seed, number, call);
    }
    world
}

#[test]
fn everybody_has_the_sum_in_any_order_of_events() {
    for seed in 0..16 {
        let calls = [
            call(SUM, Element::F32, 20_003),
            call(SUM, Element::I32, 0),
            call(SUM, Element::Bf16, 1),
            call(SUM, Element::Bf16, 30_001),
            call(SUM, Element::F32, 1024),
            call(SUM, Element::I32, 1025),
            call(SUM, Element::F32, 999),
        ];
        let story = Story { in_place: seed % 2 == 0, ..Story::new(1 + seed as usize % 8, &calls) };
        check(&story, seed);
    }
}

#[test]
fn the_other_operations_put_every_range_in_its_place() {
    for seed in 0..24 {
        let ranks = 1 + seed as usize % 6;
        let calls = [
            call(Operation::ReduceScatter, Element::F32, 10_007),
            call(Operation::AllGather, Element::Bf16, 20_007),
            call(Operation::Broadcast { root: (ranks - 1) as u8 }, Element::I32, 15_001),
            call(Operation::ReduceScatter, Element::I32, 3),
            call(Operation::AllGather, Element::F32, 1),
            call(Operation::AllGather, Element::F32, 0),
            call(Operation::Broadcast { root: 0 }, Element::F32, 1),
        ];
        let story = Story { in_place: seed % 2 == 1, ..Story::new(ranks, &calls) };
        check(&story, seed);
    }
}

#[test]
fn thirty_two_ranks_and_pieces_of_real_size() {
    let calls = [call(SUM, Element::F32, 40_001), call(SUM, Element::I32, 7)];
    check(&Story::new(32, &calls), 1);
    let calls = [call(SUM, Element::I32, 700_001)];
    for in_place in [false, true] {
        check(&Story { in_place, slots: 1 << 20, ..Story::new(3, &calls) }, 2);
    }
}

#[test]
fn shares_may_be_of_any_size() {
    fn shares(count: u64, ranks: usize) -> Vec<Range<u64>> {
        // The first and the last own nothing, the second nearly all.
        let cut = count - count / 10;
        let cuts = |rank: usize| match rank {
            0 | 1 => 0,
            2 => cut,
            _ => count,
        };
        (0..ranks).map(|rank| cuts(rank)..if rank + 1 == ranks { count } else { cuts(rank + 1) }).collect()
    }
    let calls =
        [call(SUM, Element::F32, 30_000), call(Operation::Broadcast { root: 0 }, Element::F32, 9_000)];
    for seed in 0..6 {
        check(&Story { shares: Some(shares), ..Story::new(5, &calls) }, seed);
    }
}

#[test]
fn a_rank_killed_anywhere_leaves_the_same_sum_to_all_that_live() {
    for seed in 0..160 {
        let ranks = 2 + seed as usize % 5;
        let calls = [
            call(SUM, Element::F32, 24_001),
            call(SUM, Element::I32, 100),
            call(SUM, Element::Bf16, 30_000),
            call(SUM, Element::F32, 600),
            call(SUM, Element::I32, 5_000),
        ];
        let events = 400 * ranks as u64;
        let mut draw = Draw(seed + 77);
        let kills: Vec<u64> = (0..1 + seed % (ranks as u64 - 1).min(3)).map(|_| draw.below(events)).collect();
        let story = Story { kills: &kills, in_place: seed % 2 == 0, ..Story::new(ranks, &calls) };
        check(&story, seed);
    }
}

#[test]
fn encoded_pieces_survive_deaths_too() {
    for seed in 0..120 {
        let ranks = 1 + seed as usize % 6;
        let calls = [
            call(SUM, Element::F32, 24_001),
            call(SUM, Element::Bf16, 20_000),
            call(Operation::AllGather, Element::F32, 14_001),
            call(SUM, Element::F32, 600),
            call(SUM, Element::F32, 40_003),
        ];
        let mut draw = Draw(seed + 55);
        let deaths = seed % ranks as u64;
        let kills: Vec<u64> = (0..deaths).map(|_| draw.below(400 * ranks as u64)).collect();
        let story = Story { in_place: seed % 2 == 0, ..Story::new(ranks, &calls) };
        check(&Story { kills: &kills, codec: Codec::Bf16, ..story }, seed);
    }
}

#[test]
fn the_other_operations_survive_deaths_too() {
    for seed in 0..80 {
        let ranks = 2 + seed as usize % 4;
        let calls = [
            call(Operation::AllGather, Element::F32, 14_001),
            call(Operation::Broadcast { root: 1 }, Element::I32, 14_000),
            call(Operation::ReduceScatter, Element::F32, 12_000),
            call(SUM, Element::F32, 20),
        ];
        let mut draw = Draw(seed + 99);
        let kills: Vec<u64> =
            (0..1 + seed % (ranks as u64 - 1)).map(|_| draw.below(300 * ranks as u64)).collect();
        let story = Story { kills: &kills, in_place: seed % 2 == 0, ..Story::new(ranks, &calls) };
        check(&story, seed);
    }
}

#[test]
fn at_most_the_share_of_the_dead_is_redone() {
    let mut some = 0;
    for seed in 0..40 {
        let calls = [call(SUM, Element::F32, 60_000)];
        let kills = [Draw(seed + 5).below(1200)];
        let story = Story { kills: &kills, in_place: seed % 2 == 0, ..Story::new(4, &calls) };
        let world = story.run(seed);
        let redone = world.check(seed, 0, &calls[0]);
        assert!(redone <= 15_000, "seed {seed}: {redone}");
        some += u64::from(redone > 0 && redone < 15_000);
    }
    assert!(some > 10, "deaths came in the middle: {some}");
}

/// Everybody gets the same error of the first call, nothing is touched, and the second works.
fn disagree(change: impl Fn(&mut Call), wanted: impl Fn(Call, Call) -> CallError) {
    for seed in 0..12 {
        let ranks = 3 + seed as usize % 2;
        for count in [100, 40_000] {
            let good = call(SUM, Element::F32, count);
            let mut bad = good;
            change(&mut bad);
            let calls = [good, good];
            let story = Story { in_place: true, ..Story::new(ranks, &calls) };
            let mut world = story.world(seed);
            world.ranks[2].calls[1] = bad;
            while world.step() {}
            let error = wanted(good, bad);
            for (rank, it) in world.ranks.iter().enumerate() {
                assert_eq!(it.outcomes.len(), 2, "seed {seed}: rank {rank} hangs");
                assert_eq!(it.outcomes[0].verdict, Err(error), "seed {seed}");
                let called = if rank == 2 { bad } else { good };
                for at in 0..called.count.min(good.count) {
                    let width = called.element.bytes() as usize;
                    let found = get(&it.outcomes[0].bytes[at as usize * width..][..width]);
                    assert_eq!(found, brought(called.element, rank, 0, at));
                }
            }
            world.check(seed, 1, &good);
        }
    }
}

#[test]
fn a_disagreement_is_told_to_everybody_and_the_next_call_works() {
    let mismatch = |good, bad| CallError::Mismatch { first: (0, good), other: (2, bad) };
    disagree(|call| call.count -= 1, mismatch);
    disagree(|call| call.element = Element::I32, mismatch);
    disagree(|call| call.operation = Operation::ReduceScatter, mismatch);
    disagree(|call| call.count = 5, mismatch);
}

#[test]
fn other_shares_and_bad_places_are_told_to_everybody() {
    let good = call(SUM, Element::F32, 40_000);
    let calls = [good];
    for (odd, error) in
        [(true, CallError::Shares { first: 0, other: 1 }), (false, CallError::Place { rank: 1 })]
    {
        let mut world = Story::new(2, &calls).world(9);
        world.begin(0);
        let span = Span { region: INPUT, offset_bytes: 0, len_bytes: 160_000 };
        let (spans, shares) = if odd {
            (TensorSpans { input: span, output: span }, [0..1, 1..40_000])
        } else {
            let apart = Span { offset_bytes: 4, ..span };
            (TensorSpans { input: span, output: apart }, [0..20_000, 20_000..40_000])
        };
        world.ranks[1].calls.clear();
        world.ranks[1].network.begin(good, spans, &shares, Codec::Full).expect("was not late");
        world.act(1);
        while world.step() {}
        for it in &world.ranks {
            assert_eq!(it.outcomes[0].verdict, Err(error));
        }
    }
}

#[test]
fn what_is_not_to_travel_whole_is_cut_also_when_a_rank_dies() {
    for seed in 0..60 {
        let calls =
            [call(SUM, Element::F32, 1_000), call(SUM, Element::I32, 3_000), call(SUM, Element::F32, 0)];
        let kills: &[u64] = if seed % 2 == 0 { &[seed * 2] } else { &[] };
        check(&Story { kills, mail_bytes_max: 4_000, ..Story::new(4, &calls) }, seed);
    }
}

#[test]
fn who_sends_whole_what_others_cut_is_told_to_everybody() {
    let calls = [call(SUM, Element::F32, 1_000), call(SUM, Element::F32, 900)];
    for other in 0..3 {
        let mut world = Story::new(3, &calls).world(other);
        world.ranks[other as usize].network.set_mail_bytes_max(3_600);
        while world.step() {}
        for it in &world.ranks {
            let first = CallError::Shares { first: 0, other: if other == 0 { 1 } else { other as u8 } };
            assert_eq!(it.outcomes[0].verdict, Err(first));
            assert_eq!(it.outcomes[1].verdict, Ok(Ranks::first(3)), "both sizes travel whole");
        }
    }
}

#[test]
fn a_broadcast_from_one_that_is_gone_or_never_was_is_an_error() {
    for root in [1, 7] {
        let calls = [call(Operation::Broadcast { root }, Element::F32, 9_000)];
        let mut world = Story::new(3, &calls).world(4);
        world.kill(1);
        while world.step() {}
        for rank in [0, 2] {
            assert_eq!(world.ranks[rank].outcomes[0].verdict, Err(CallError::RootGone { root }));
        }
    }
}

#[test]
fn a_rank_that_is_late_says_for_whom_it_waited_and_calls_no_more() {
    for count in [10, 50_000] {
        let calls = [call(SUM, Element::F32, count)];
        let mut world = Story::new(3, &calls).world(5);
        world.late.push(1);
        while world.step() {}
        let late = CallError::Late { ranks: Ranks::default().with(1) };
        assert!(world.ranks[0].outcomes.is_empty());
        world.ranks[0].network.handle_deadline();
        world.act(0);
        assert_eq!(world.ranks[0].outcomes[0].verdict, Err(late));
        assert!(world.ranks[0].windows.keys().all(|(_, handle)| *handle < HANDLE_PART), "nothing stays open");
        let span = Span { region: INPUT, offset_bytes: 0, len_bytes: 40 };
        let spans = TensorSpans { input: span, output: span };
        let again = world.ranks[0].network.begin(
            call(SUM, Element::F32, 10),
            spans,
            &[0..10, 10..10, 10..10],
            Codec::Full,
        );
        assert_eq!(again, Err(late));
        assert!(late.to_string().contains("rank 1;"), "{late}");
        // The view leaves both out: the third goes on alone.
        world.kill(0);
        world.kill(1);
        while world.step() {}
        // What the late one has brought may be in it, as of any that leaves.
        let verdict = world.ranks[2].outcomes[0].verdict;
        assert!(verdict.is_ok_and(|of| of.contains(2) && !of.contains(1)), "{verdict:?}");
    }
}

#[test]
fn whatever_a_rank_says_nothing_breaks() {
    for seed in 0..40 {
        let calls = [call(SUM, Element::F32, 12_000), call(SUM, Element::F32, 12_000)];
        let mut world = Story::new(3, &calls).world(seed);
        for _ in 0..600 {
            world.step();
            let mut bytes = vec![0; 64];
            for word in bytes.chunks_exact_mut(4) {
                let value = match world.draw.below(4) {
                    0 => world.draw.below(8),
                    1 => world.draw.below(1 << 16) << 16 | world.draw.below(8) << 8 | world.draw.below(8),
                    2 => 1,
                    _ => world.draw.below(1 << 32),
                };
                word.copy_from_slice(&(value as u32).to_le_bytes());
            }
            let message =
                MessageId { handle: world.draw.below(90) as u16, sequence: world.draw.below(4) as u16 };
            let len_bytes = world.draw.below(5_000) as u32;
            world.ranks[0].network.handle_received(2, message, len_bytes, &bytes);
            world.act(0);
            if world.draw.below(100) == 0 {
                world.ranks[0].network.handle_reduced(world.draw.below(40) as u32);
            }
        }
    }
}
