//! Everything a caller waits for ends by name: delivered, late, departed, aborted or refused.

mod link;

use link::{CLEAN, Faults, World, id, pattern};
use plesio_proto::{Config, Event, Failure, PostError, SendError};

const MILLISECOND: u64 = 1_000_000;

fn world(faults: Faults) -> World {
    World::new(Config { deadline_ns: Some(200 * MILLISECOND), ..Config::default() }, faults, 3)
}

#[test]
fn a_message_is_given_up_at_its_deadline_and_the_next_one_passes() {
    let mut world = world(CLEAN);
    let span = world.region(0, pattern(1, 300_000));
    let past = world.now;
    let machine = &mut world.ends[0].machine;
    assert_eq!(machine.handle_send_by(past, id(1, 1), span, past), Err(SendError::DeadlineExceeded));
    machine.handle_send_by(past, id(1, 1), span, past.after(50 * MILLISECOND)).unwrap();
    machine.handle_send(past, id(2, 1), span).unwrap();
    world.run_for(49 * MILLISECOND);
    assert!(world.ends[0].events.is_empty());
    world.run_for(2 * MILLISECOND);
    let late = |message| Event::Aborted { message, failure: Failure::DeadlineExceeded };
    assert_eq!(world.ends[0].events, [late(id(1, 1))]);
    world.run_for(151 * MILLISECOND);
    assert_eq!(
        world.ends[0].events,
        [late(id(1, 1)), late(id(2, 1))],
        "without one of its own, the connection's"
    );
    assert_eq!(world.stats(0).messages, 0);

    world.post(1, 1, None, 300_000);
    world.ends[0].machine.handle_send(world.now, id(1, 2), span).unwrap();
    world.run_until(100 * MILLISECOND, |world| world.delivered(0, id(1, 2)));
    world.run_for(300 * MILLISECOND);
    assert_eq!(world.ends[0].events.len(), 3, "a delivered message has no deadline");
}

#[test]
fn a_window_is_withdrawn_at_its_deadline_and_nothing_of_the_message_is_shown() {
    let mut world = world(CLEAN);
    let span = world.region(1, vec![0; 3_000_000]);
    let now = world.now;
    let machine = &mut world.ends[1].machine;
    assert_eq!(machine.handle_post_by(now, 1, None, span, now), Err(PostError::DeadlineExceeded));
    machine.handle_post_by(now, 1, None, span, now.after(MILLISECOND)).unwrap();
    machine.handle_post_by(now, 2, None, span, now.after(5 * MILLISECOND)).unwrap();
    world.send(0, id(1, 1), pattern(1, 3_000_000));
    world.run_for(20 * MILLISECOND);
    let late = |handle| Event::Withdrawn { handle, failure: Failure::DeadlineExceeded };
    assert_eq!(world.ends[1].events, [late(1), late(2)]);
    assert!(world.stats(1).received_bytes > 0, "it was on its way");
    world.run_for(200 * MILLISECOND);
    let failure = Failure::DeadlineExceeded;
    assert_eq!(world.ends[0].events, [Event::Aborted { message: id(1, 1), failure }]);
}

#[test]
fn a_silent_peer_is_reported_once_after_three_probe_timeouts_and_when_it_is_back() {
    for posted in [true, false] {
        let mut world = World::new(Config::default(), CLEAN, 3);
        for sequence in 0..10 {
            world.post(1, 1, None, 4_000);
            world.send(0, id(1, sequence), pattern(1, 4_000));
            world.run_until(100 * MILLISECOND, |world| world.delivered(0, id(1, sequence)));
        }
        world.ends[0].events.clear();
        world.faults.loss = 100;
        let cut = world.now;
        if posted {
            world.post(1, 1, None, 4_000);
        }
        world.send(0, id(1, 10), pattern(1, 4_000));
        world.run_until(100 * MILLISECOND, |world| !world.ends[0].events.is_empty());
        let [Event::Silent { heard }] = world.ends[0].events[..] else {
            panic!("{:?}", world.ends[0].events)
        };
        assert!(heard <= cut);
        // Probe timeout 2 ms, the second as patient as the first, then doubled.
        let after_ms = world.now.since(cut) / MILLISECOND;
        assert!((6..20).contains(&after_ms), "after {after_ms} ms");
        let strikes = world.stats(0).strikes;
        world.run_for(20_000 * MILLISECOND);
        assert_eq!(world.ends[0].events.len(), 1, "said once");
        assert!(world.stats(0).strikes - strikes < 60, "asks ever more rarely");
        assert!(world.ends[0].machine.is_open(), "the verdict is not the transport's");
        world.faults.loss = 0;
        world.run_for(1_000 * MILLISECOND);
        assert_eq!(world.ends[0].events[1], Event::Heard);
        assert_eq!(world.delivered(0, id(1, 10)), posted);
        assert_eq!(world.received(1, id(1, 10)).is_some(), posted);
    }
}

#[test]
fn a_peer_that_answers_is_never_called_silent() {
    let mut world = World::new(Config::default(), CLEAN, 3);
    world.send(0, id(1, 1), pattern(1, 4_000));
    world.run_for(3_000 * MILLISECOND);
    assert!(world.stats(0).strikes > 40 && world.ends[0].events.is_empty(), "{:?}", world.ends[0].events);
}

#[test]
fn what_was_under_way_ends_with_the_reason_of_the_goodbye() {
    for (reason, failure) in
        [(0, Failure::Departed), (1, Failure::Departed), (2, Failure::Refused { reason: 2 })]
    {
        let mut world = World::new(Config::default(), CLEAN, 3);
        world.send(0, id(1, 1), pattern(1, 4_000));
        world.run_for(MILLISECOND);
        world.ends[1].machine.handle_close(reason);
        world.run_for(MILLISECOND);
        let ended = [Event::Aborted { message: id(1, 1), failure }, Event::Gone { reason }];
        assert_eq!(world.ends[0].events, ended);
    }
    assert!(Failure::Refused { reason: 2 }.to_string().contains("reason 2"));
}
