//! A paced connection with little to send, now and then: what it learns from that must not slow down what comes later.

mod link;

use link::{CLEAN, Faults, World, id, pattern};
use plesio_proto::{Config, Congestion};
use plesio_wire::Instant;

const MILLISECOND: u64 = 1_000_000;

fn deliver(world: &mut World, sequence: u16, len: usize) -> u64 {
    let begin = world.now;
    world.post(1, 1, None, len);
    world.send(0, id(1, sequence), pattern(u64::from(sequence), len));
    world.run_until(60_000 * MILLISECOND, |world| world.delivered(0, id(1, sequence)));
    let span = world.received(1, id(1, sequence)).expect("it was delivered");
    assert!(world.bytes(1, span) == pattern(u64::from(sequence), len));
    world.now.since(begin)
}

#[test]
fn small_messages_now_and_then_do_not_slow_down_a_large_one() {
    for (delay_ns, limit_ns) in [(50_000, 30 * MILLISECOND), (20 * MILLISECOND, 400 * MILLISECOND)] {
        let config = Config { congestion: Congestion::RateDelay, ..Config::default() };
        let mut world = World::new(config, Faults { delay_ns, ..CLEAN }, 1);
        for sequence in 0..60 {
            deliver(&mut world, sequence, 500);
            world.run_for(50 * MILLISECOND);
        }
        let took_ns = deliver(&mut world, 60, 1_000_000);
        assert!(took_ns < limit_ns, "{} ms over {delay_ns} ns", took_ns / MILLISECOND);
    }
}

/// Whoever has nothing more to send wants no timer for it.
#[test]
fn a_message_that_has_left_needs_no_turn() {
    let config = Config { congestion: Congestion::RateDelay, ..Config::default() };
    let mut world = World::new(config, Faults { delay_ns: 20 * MILLISECOND, ..CLEAN }, 1);
    deliver(&mut world, 0, 500);
    world.post(1, 1, None, 500);
    world.send(0, id(1, 1), pattern(1, 500));
    world.run_for(10_000);
    let due = world.ends[0].machine.poll_timeout();
    assert!(
        due.is_none_or(|due| due >= Instant(world.now.0 + 10 * MILLISECOND)),
        "{due:?} at {:?}",
        world.now
    );
}
