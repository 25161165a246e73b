//! Who founds the mesh clock when its holder is gone, told in time.

use super::*;

/// Three hosts; the reference stops at 300 ms, and the others suspect it from 800 ms on.
fn orphans(clocks: &[(i64, i64); 3]) -> World {
    let mut world = World::new(clocks, |_, _| QUIET, 12);
    world.run(300 * MS);
    assert!((1..3).all(|at| !world.hosts[at].clock.estimate().usable), "nobody else has locked yet");
    world.hosts[0].stopped = true;
    world.run(800 * MS);
    for at in [1, 2] {
        let now = world.hosts[at].local(world.now);
        world.hosts[at].clock.handle_suspects(now, MemberSet(1));
    }
    world
}

fn usable(world: &World, at: usize) -> bool {
    world.hosts[at].clock.estimate().usable
}

#[test]
fn the_next_one_founds_the_clock_within_2_s_and_the_third_locks_onto_it() {
    for clocks in [[(0, 0), (5_000_000_000, 200), (-7_000_000_000, -100)], [(0, 0), (0, 10), (0, 20)]] {
        let mut world = orphans(&clocks);
        world.run(1_700 * MS);
        assert!(!usable(&world, 1), "a second has not passed");
        world.run(2_350 * MS);
        assert!(usable(&world, 1) && !usable(&world, 2));
        assert_eq!(world.hosts[1].clock.estimate().state, ClockState::Locked);
        assert_eq!(world.hosts[1].clock.reference(), Some(NodeKey(1)));
        world.run(6 * SECOND);
        assert_eq!(world.hosts[2].clock.estimate().state, ClockState::Locked);
        assert_eq!(world.hosts[2].clock.reference(), Some(NodeKey(1)));
        let apart_ns = world.mesh(2) - world.mesh(1);
        assert!(apart_ns.abs() < 200_000, "{apart_ns} ns");
    }
}

#[test]
fn nobody_founds_while_a_member_that_is_heard_holds_a_clock() {
    let mut world = orphans(&[(0, 0), (0, 10), (0, 20)]);
    world.hosts[2].state = state::HOLDOVER;
    world.run(8 * SECOND);
    assert!(!usable(&world, 1) && !usable(&world, 2));
    world.hosts[2].state = state::RESYNC;
    world.run(8_950 * MS);
    assert!(!usable(&world, 1));
    world.run(9_700 * MS);
    assert!(usable(&world, 1));
}

#[test]
fn nobody_founds_without_a_quorum() {
    let mut world = orphans(&[(0, 0), (0, 10), (0, 20)]);
    let tell = |world: &mut World, quorum| {
        for at in [1, 2] {
            let now = world.hosts[at].local(world.now);
            world.hosts[at].clock.handle_quorum(now, quorum);
        }
    };
    tell(&mut world, false);
    world.run(12 * SECOND);
    assert!(!usable(&world, 1) && !usable(&world, 2));
    tell(&mut world, true);
    world.run(12_900 * MS);
    assert!(!usable(&world, 1), "the second begins with the quorum");
    world.run(13_600 * MS);
    assert!(usable(&world, 1) && !usable(&world, 2));
}

#[test]
fn one_who_says_it_has_no_quorum_is_not_waited_for() {
    let mut world = orphans(&[(0, 0), (0, 10), (0, 20)]);
    let quorum_lost = world.hosts[1].local(world.now);
    world.hosts[1].clock.handle_quorum(quorum_lost, false);
    world.run(6 * SECOND);
    assert!(!usable(&world, 1) && !usable(&world, 2), "host 1 is heard, and lower");
    world.hosts[1].state = state::DETACHED;
    world.run(6_400 * MS);
    assert!(!usable(&world, 1) && usable(&world, 2), "the second passed long ago");
}

#[test]
fn one_who_was_stopped_listens_for_a_second_before_it_founds() {
    let mut world = orphans(&[(0, 0), (0, 10), (0, 20)]);
    world.run(1_500 * MS);
    world.hosts[1].stopped = true;
    world.run(6 * SECOND);
    world.hosts[1].stopped = false;
    world.run(6_900 * MS);
    assert!(!usable(&world, 1));
    world.run(7_600 * MS);
    assert!(usable(&world, 1));
}

/// A member alone in its quorum that has nothing to ask: drives only the rule.
fn lonely(now: Instant) -> Clock {
    let mut clock = Clock::new(now, NodeKey(1), 1);
    let members: Vec<(NodeKey, Incarnation)> = (0..3).map(|key| (NodeKey(key), Incarnation(key))).collect();
    clock.handle_view(now, 4, &members, 250 * MS);
    clock.handle_suspects(now, MemberSet(1));
    clock
}

/// Looks every 50 ms until it is usable; when, and what M is then.
fn founded(clock: &mut Clock, mut now: Instant) -> (Instant, i64) {
    for _ in 0..200 {
        now = now.after(50 * MS);
        clock.handle_timeout(now);
        if clock.estimate().usable {
            return (now, clock.estimate().at(now).0);
        }
    }
    panic!("never founded");
}

#[test]
fn m_goes_on_from_the_best_that_is_known() {
    let start = Instant(900 * SECOND);
    let second = SECOND as i64;
    let mut clock = lonely(start);
    clock.handle_mesh_time(start, NodeKey(1), MeshTime(70 * second), 1_000);
    let (at, mesh) = founded(&mut clock, start);
    assert_eq!(mesh, 70 * second + at.since(start) as i64, "what was heard, and the time since");
    assert!(at.since(start) >= SECOND && at.since(start) <= 1_300 * MS);

    let mut clock = lonely(start);
    clock.handle_mesh_time(start, NodeKey(1), MeshTime(70 * second), 1_000);
    clock.handle_floor(MeshTime(100 * second));
    clock.handle_floor(MeshTime(90 * second));
    assert_eq!(founded(&mut clock, start).1, 100 * second, "an entry of the log proves that M was there");

    let mut clock = lonely(start);
    clock.handle_mesh_time(start, NodeKey(1), MeshTime(900 * second), u32::MAX);
    clock.handle_mesh_time(start, NodeKey(1), MeshTime(i64::MAX), 1_000);
    clock.handle_mesh_time(start, NodeKey(1), MeshTime(i64::MIN), 1_000);
    assert_eq!(founded(&mut clock, start).1, 0, "no clock, or none that can be");

    let mut clock = lonely(start);
    clock.handle_floor(MeshTime(i64::MAX));
    let (at, mesh) = founded(&mut clock, start);
    assert_eq!(clock.estimate().at(at.after(SECOND)).0, mesh + second, "it still runs");
}

#[test]
fn m_never_runs_back_at_one_who_has_published_it() {
    for (heard_s, floor_s) in [(0, 0), (69, 3), (3, 71), (200, 0), (0, 300)] {
        let start = Instant(900 * SECOND);
        let mut clock = lonely(start);
        // An estimate that was published and never locked.
        clock.line = MeshClock { base_local: start, base_mesh: MeshTime(70 * SECOND as i64), ..clock.line };
        clock.has_line = true;
        clock.handle_mesh_time(start, NodeKey(1), MeshTime(heard_s * SECOND as i64), 1_000);
        clock.handle_floor(MeshTime(floor_s * SECOND as i64));
        let mut shown = clock.estimate().at(start);
        for step in 1..400 {
            let now = start.after(step * 10 * MS);
            clock.handle_timeout(now);
            let mesh = clock.estimate().at(now);
            assert!(mesh > shown, "heard {heard_s} s, floor {floor_s} s: {mesh:?} after {shown:?}");
            shown = mesh;
        }
        assert!(clock.estimate().usable && shown.0 >= (73 * SECOND) as i64);
        assert!(shown.0 >= (heard_s + 3).max(floor_s) * SECOND as i64);
    }
}
