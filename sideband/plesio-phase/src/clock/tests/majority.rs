//! Machines that sleep: their clocks stand still, and nobody takes the time from them when they wake.

use super::*;

/// Four hosts with clocks, one of which sleeps from 8 s to 13 s and does not know it.
fn sleeper(at: usize, seed: u64) -> World {
    let mut world = World::new(&[(0, 0), (3_000_000_000, 20), (0, -30), (-9, 5)], |_, _| QUIET, seed);
    world.run(8 * SECOND);
    assert!((0..4).all(|host| usable(&world, host)), "all have locked");
    world.blind = Some(at);
    world.hosts[at].stopped = true;
    world.run(13 * SECOND);
    world.hosts[at].stopped = false;
    world.hosts[at].offset_ns -= 5 * SECOND as i64;
    world
}

fn usable(world: &World, at: usize) -> bool {
    world.hosts[at].clock.estimate().usable
}

#[test]
fn a_sleeper_goes_on_from_what_most_members_say_even_if_all_followed_it() {
    for (at, seed) in [(0, 3), (0, 4), (2, 5), (3, 6)] {
        let mut world = sleeper(at, seed);
        let other = (at + 1) % 4;
        let before = world.mesh(other);
        world.run(14_500 * MS);
        let passed = world.mesh(other) - before;
        assert!((passed - 1_500 * MS as i64).abs() < 2 * MS as i64, "the others went on: {passed} ns");
        let apart = world.mesh(at) - world.mesh(other);
        assert!(apart.abs() < 100 * MS as i64, "seed {seed}: {apart} ns after a second and a half");
        world.run(22 * SECOND);
        let apart = world.mesh(at) - world.mesh(other);
        assert!(apart.abs() < MS as i64, "seed {seed}: {apart} ns in the end");
        assert_eq!(world.hosts[at].clock.estimate().state, ClockState::Locked);
    }
}

#[test]
fn who_comes_does_not_believe_a_sleeper_though_it_answers_first() {
    let mut clock = Clock::new(Instant(0), NodeKey(9), 1);
    let members: Vec<(NodeKey, Incarnation)> = (0..4).map(|key| (NodeKey(key), Incarnation(1))).collect();
    clock.handle_view(Instant(0), 3, &members, 250 * MS);
    let now = Instant(SECOND);
    let told = |clock: &mut Clock, key: u64, mesh_ns: u64| {
        clock.handle_state(now, NodeKey(key), state::LOCKED, Some(1_000));
        clock.handle_mesh_time(now, NodeKey(key), MeshTime(mesh_ns as i64), 1_000);
    };
    told(&mut clock, 0, 55 * SECOND);
    told(&mut clock, 1, 60 * SECOND);
    assert_eq!(clock.majority_ns(now), None, "two say two things");
    told(&mut clock, 2, 60 * SECOND + 40 * MS);
    assert_eq!(clock.majority_ns(now), Some((59 * SECOND) as i64));
    told(&mut clock, 3, 54 * SECOND);
    assert_eq!(clock.majority_ns(now), None, "of four, two is no majority");
    // One that has no clock has no say.
    clock.handle_state(now, NodeKey(3), state::ACQUIRE, Some(1_000));
    assert_eq!(clock.majority_ns(now), Some((59 * SECOND) as i64));
    clock.handle_mesh_time(now, NodeKey(2), MeshTime(0), u32::MAX);
    assert_eq!(clock.majority_ns(now), None);
    told(&mut clock, 2, 60 * SECOND);
    assert_eq!(clock.majority_ns(Instant(5 * SECOND)), None, "that is long ago");
}
