//! The chunk size follows the path: found by probes, given back when large packets vanish, byte for byte.

mod link;

use link::{CLEAN, Faults, World, id, pattern};
use plesio_proto::{Config, Event};

const MILLISECOND: u64 = 1_000_000;
const LEN: usize = 700_001;

fn world(chunk_bytes: u32, mtu_bytes: usize, faults: Faults, seed: u64) -> World {
    let config = Config { chunk_bytes, search: true, window_bytes: 1 << 20, ..Config::default() };
    let mut world = World::new(config, faults, seed);
    world.mtu_bytes = mtu_bytes;
    world
}

fn start(world: &mut World, from: usize, sequence: u16) {
    world.post(1 - from, 1, None, LEN);
    world.send(from, id(1, sequence), pattern(u64::from(sequence), LEN));
}

fn finish(world: &mut World, from: usize, sequence: u16) {
    world.run_until(20_000 * MILLISECOND, |world| world.delivered(from, id(1, sequence)));
    let span = world.received(1 - from, id(1, sequence)).unwrap();
    assert_eq!(span.len_bytes as usize, LEN);
    assert!(world.bytes(1 - from, span) == pattern(u64::from(sequence), LEN), "message {sequence}");
}

#[test]
fn probes_find_what_the_path_takes_and_no_payload_is_risked() {
    for (chunk_bytes, mtu_bytes, found) in [
        (65_408, 65_507, 65_408),
        (65_408, 9_000 - 28, 8_832),
        (8_832, 9_000 - 28, 8_832),
        (65_408, 1_500 - 28, 1_408),
        (1_408, 1_500 - 28, 1_408),
    ] {
        let mut world = world(chunk_bytes, mtu_bytes, CLEAN, 1);
        assert_eq!(world.stats(0).chunk_bytes, 1_408);
        for sequence in 0..20 {
            start(&mut world, 0, sequence);
            finish(&mut world, 0, sequence);
        }
        let stats = world.stats(0);
        assert_eq!(stats.chunk_bytes, found, "{chunk_bytes} over {mtu_bytes}");
        assert_eq!((stats.retransmitted_bytes, stats.restarts), (0, 0), "{chunk_bytes} over {mtu_bytes}");
    }
}

#[test]
fn a_path_that_shrinks_in_mid_message_goes_on_within_a_second_byte_for_byte() {
    for (seed, loss) in [(1, 0), (2, 0), (3, 1), (4, 2), (5, 2)] {
        for delay_ns in [50_000, 20 * MILLISECOND] {
            let mut world = world(8_832, 9_000, Faults { loss, delay_ns, ..CLEAN }, seed);
            for sequence in 0..6 {
                for from in 0..2 {
                    start(&mut world, from, sequence);
                }
                for from in 0..2 {
                    finish(&mut world, from, sequence);
                }
            }
            assert_eq!(world.stats(0).chunk_bytes, 8_832);
            for from in 0..2 {
                start(&mut world, from, 6);
            }
            world.run_for(2 * delay_ns + 500_000);
            assert!(world.stats(0).in_flight_bytes > 0);
            world.mtu_bytes = 1_472;
            let shrunk = world.now;
            for from in 0..2 {
                finish(&mut world, from, 6);
            }
            let took_ms = world.now.since(shrunk) / MILLISECOND;
            assert!(took_ms < 1_000, "seed {seed}: {took_ms} ms");
            for sequence in 7..10 {
                start(&mut world, 0, sequence);
                finish(&mut world, 0, sequence);
            }
            let stats = world.stats(0);
            assert_eq!((stats.chunk_bytes, stats.restarts), (1_408, 1), "seed {seed}");
        }
    }
}

#[test]
fn a_path_that_takes_less_than_the_first_size_is_found_too() {
    let mut world = world(8_832, 9_000, CLEAN, 1);
    for (sequence, mtu_bytes) in [(0, 1_472), (1, 1_400), (2, 1_200), (3, 600)] {
        world.mtu_bytes = mtu_bytes;
        start(&mut world, 0, sequence);
        finish(&mut world, 0, sequence);
        let chunk_bytes = world.stats(0).chunk_bytes as usize;
        assert!(chunk_bytes + 32 <= mtu_bytes, "{chunk_bytes} over {mtu_bytes}");
    }
}

#[test]
fn a_size_that_the_kernel_refuses_is_left_at_once() {
    let mut world = world(8_832, 9_000, CLEAN, 1);
    for sequence in 0..4 {
        start(&mut world, 0, sequence);
        finish(&mut world, 0, sequence);
    }
    start(&mut world, 0, 4);
    world.run_for(300_000);
    world.mtu_bytes = 1_472;
    world.ends[0].machine.handle_path_limit(world.now, 1_472);
    let told = world.now;
    finish(&mut world, 0, 4);
    assert!(world.now.since(told) < 5 * MILLISECOND, "{} us", world.now.since(told) / 1_000);
    assert_eq!(world.stats(0).chunk_bytes, 1_408);
}

#[test]
fn a_path_that_is_cut_or_lossy_keeps_its_chunk_size() {
    for faults in [Faults { loss: 100, ..CLEAN }, Faults { loss: 20, ..CLEAN }] {
        let mut world = world(8_832, 9_000, CLEAN, 1);
        for sequence in 0..4 {
            start(&mut world, 0, sequence);
            finish(&mut world, 0, sequence);
        }
        start(&mut world, 0, 4);
        world.run_for(300_000);
        world.faults = faults;
        world.run_for(100 * MILLISECOND);
        world.faults = CLEAN;
        finish(&mut world, 0, 4);
        let stats = world.stats(0);
        assert_eq!((stats.chunk_bytes, stats.restarts), (8_832, 0), "{faults:?}");
    }
}

#[test]
fn larger_chunks_come_back_when_the_path_does() {
    let mut world = world(8_832, 1_472, CLEAN, 1);
    for sequence in 0..80 {
        world.mtu_bytes = if sequence < 60 { 1_472 } else { 9_000 };
        start(&mut world, 0, sequence);
        finish(&mut world, 0, sequence);
        assert_eq!(world.stats(0).chunk_bytes, 1_408, "the search is over");
    }
    world.run_for(61_000 * MILLISECOND);
    for sequence in 80..85 {
        start(&mut world, 0, sequence);
        finish(&mut world, 0, sequence);
    }
    assert_eq!(world.stats(0).chunk_bytes, 8_832);
    assert!(world.ends[0].events.iter().all(|event| matches!(event, Event::Delivered { .. })));
}
