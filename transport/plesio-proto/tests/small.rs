//! Small messages: what is acknowledged when, so that answers do not queue behind acknowledgements and nobody waits for one.

mod link;

use link::{CLEAN, World, id, pattern};
use plesio_proto::{Config, Congestion};

const MILLISECOND: u64 = 1_000_000;

/// One message there and back, `trips` times over eight handles.
fn ping_pong(config: Config, trips: u16) -> World {
    let mut world = World::new(config, CLEAN, 5);
    for trip in 0..trips {
        let message = id(trip % 8, 1 + trip / 8);
        for end in [1, 0] {
            world.post(end, message.handle, None, 64);
            world.send(1 - end, message, pattern(trip.into(), 64));
            world.run_until(10 * MILLISECOND, |world| world.received(end, message).is_some());
        }
    }
    world
}

#[test]
fn an_acknowledgement_tells_of_several_small_messages() {
    let mut world = ping_pong(Config::default(), 400);
    for end in [0, 1] {
        let acks = world.stats(end).acks_sent;
        assert!((20..=150).contains(&acks), "{acks} acknowledgements of 400 messages");
        assert_eq!(world.stats(end).retransmitted_bytes, 0);
        assert_eq!(world.stats(end).strikes, 0, "nobody had to ask what became of one");
    }
    world.run_for(2 * MILLISECOND);
    assert_eq!((world.stats(0).messages, world.stats(1).messages), (0, 0), "the timer told of the last");
}

#[test]
fn a_controller_that_learns_from_round_trips_gets_every_acknowledgement() {
    let world = ping_pong(Config { congestion: Congestion::RateDelay, ..Config::default() }, 100);
    assert!(world.stats(1).acks_sent >= 100);
}

#[test]
fn a_message_behind_another_of_its_handle_does_not_wait_for_the_peer_s_timer() {
    let mut world = World::new(Config::default(), CLEAN, 5);
    world.post(1, 1, None, 64);
    world.send(0, id(1, 1), pattern(1, 64));
    world.run_until(10 * MILLISECOND, |world| world.received(1, id(1, 1)).is_some());
    assert!(!world.delivered(0, id(1, 1)), "the peer has not been asked");
    world.post(1, 1, None, 64);
    let begin = world.now;
    world.send(0, id(1, 2), pattern(2, 64));
    world.run_until(10 * MILLISECOND, |world| world.received(1, id(1, 2)).is_some());
    let waited_ns = world.now.since(begin);
    assert!(waited_ns < MILLISECOND, "asked for, an acknowledgement takes a round trip, not {waited_ns} ns");
}
