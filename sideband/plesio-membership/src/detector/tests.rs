//! Stories told in time: whole meshes of detectors joined by a lossy wire.

use super::*;
use std::vec;
use std::vec::Vec;

const MS: u64 = 1_000_000;

fn members(count: u64) -> Vec<(NodeKey, Incarnation)> {
    (0..count).map(|key| (NodeKey(key), Incarnation(1))).collect()
}

/// Detectors on one clock; `heard(now_ms, from, to)` says whether a beat arrives.
struct Mesh {
    nodes: Vec<Membership>,
    stopped: Vec<bool>,
    liars: Vec<MemberSet>,
    now_ms: u64,
    events: Vec<(u64, usize, Event)>,
    /// Whose hosts say that nobody listens there, once nobody does; or forge it.
    refusing: MemberSet,
    forged: bool,
    view: u32,
}

impl Mesh {
    fn new(count: u64) -> Self {
        let view = members(count);
        let nodes = (0..count).map(|key| {
            let mut node = Membership::new(Instant(0), NodeKey(key));
            node.handle_view(Instant(0), 0, &view);
            node
        });
        let nodes: Vec<Membership> = nodes.collect();
        let none = vec![MemberSet::EMPTY; nodes.len()];
        let stopped = vec![false; nodes.len()];
        let (events, refusing) = (Vec::new(), MemberSet::EMPTY);
        Self { stopped, liars: none, nodes, now_ms: 0, events, refusing, forged: false, view: 0 }
    }

    fn run(&mut self, until_ms: u64, mut heard: impl FnMut(u64, usize, usize) -> bool) {
        while self.now_ms < until_ms {
            self.now_ms += 1;
            let now = Instant(self.now_ms * MS);
            for from in 0..self.nodes.len() {
                if self.stopped[from] {
                    continue;
                }
                if now >= self.nodes[from].poll_timeout() {
                    self.nodes[from].handle_timeout(now);
                }
                if self.nodes[from].poll_transmit(now).is_some() {
                    let accuses = self.nodes[from].accused().or(self.liars[from]);
                    for to in (0..self.nodes.len()).filter(|to| *to != from) {
                        if !self.stopped[to] && heard(self.now_ms, from, to) {
                            self.nodes[to].handle_beat(now, NodeKey(from as u64), self.view, accuses);
                        }
                        if self.refusing.contains(to as MemberIndex) && (self.stopped[to] || self.forged) {
                            self.nodes[from].handle_refusal(now, NodeKey(to as u64));
                        }
                    }
                }
            }
            for (at, node) in self.nodes.iter_mut().enumerate() {
                while let Some(event) = node.poll_event() {
                    self.events.push((self.now_ms, at, event));
                }
            }
        }
    }

    fn dead(&self) -> Vec<(u64, usize, NodeKey)> {
        let dead = self.events.iter().filter_map(|(ms, at, event)| match event {
            Event::Dead(key) => Some((*ms, *at, *key)),
            _ => None,
        });
        dead.collect()
    }
}

fn dice(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 11
    }
}

#[test]
fn f1_a_crash_is_suspected_in_600_ms_and_excluded_in_1200_by_everybody() {
    for count in [2, 3, 4, 8, 32] {
        let mut mesh = Mesh::new(count);
        mesh.run(3_000, |_, _, _| true);
        assert_eq!(mesh.events, [], "silence among the living");
        mesh.stopped[count as usize - 1] = true;
        mesh.run(6_000, |_, _, _| true);
        let gone = NodeKey(count - 1);
        for at in 0..count as usize - 1 {
            let when = |wanted| {
                let found = mesh.events.iter().find(|(_, node, event)| (*node, *event) == (at, wanted));
                found.unwrap_or_else(|| panic!("{wanted:?} missing at {at} of {count}")).0
            };
            assert!(when(Event::Suspect(gone)) <= 3_600);
            assert!((3_900..=4_200).contains(&when(Event::Dead(gone))));
        }
    }
}

#[test]
fn f1_a_process_whose_host_says_that_it_ended_is_excluded_in_half_a_second() {
    for count in [2, 3, 4, 8, 32] {
        let mut mesh = Mesh::new(count);
        mesh.refusing = MemberSet::first(count as usize);
        mesh.run(3_000, |_, _, _| true);
        mesh.stopped[count as usize - 1] = true;
        mesh.run(6_000, |_, _, _| true);
        let dead = mesh.dead();
        assert_eq!(dead.len(), count as usize - 1);
        assert!(dead.iter().all(|(ms, _, key)| *ms <= 3_600 && *key == NodeKey(count - 1)), "{dead:?}");
    }
}

#[test]
fn refusals_are_nothing_against_who_is_heard_and_start_grace_stays() {
    let mut mesh = Mesh::new(4);
    (mesh.refusing, mesh.forged) = (MemberSet::first(4), true);
    mesh.run(60_000, |_, _, _| true);
    assert_eq!(mesh.events, []);
    let mut starting = Mesh::new(3);
    (starting.refusing, starting.stopped[2]) = (MemberSet::first(3), true);
    starting.run(1_900, |_, _, _| true);
    assert_eq!(starting.events, [], "it may still be opening its port");
    let mut joined = Mesh::new(3);
    joined.run(1_000, |_, _, _| true);
    (joined.refusing, joined.stopped[2]) = (MemberSet::first(3), true);
    for node in &mut joined.nodes[..2] {
        let view = [(NodeKey(0), Incarnation(1)), (NodeKey(1), Incarnation(1)), (NodeKey(2), Incarnation(2))];
        node.handle_view(Instant(1_000 * MS), 1, &view);
    }
    joined.view = 1;
    joined.run(1_600, |_, _, _| true);
    assert_eq!(joined.dead().len(), 2, "who asked to be let in had opened it");
}

#[test]
fn f1_one_that_was_let_in_and_never_heard_is_dead_after_1200_ms() {
    let mut joined = Mesh::new(3);
    joined.run(1_000, |_, _, _| true);
    joined.stopped[2] = true;
    for node in &mut joined.nodes[..2] {
        let view = [(NodeKey(0), Incarnation(1)), (NodeKey(1), Incarnation(1)), (NodeKey(2), Incarnation(2))];
        node.handle_view(Instant(1_000 * MS), 1, &view);
    }
    joined.view = 1;
    joined.run(1_690, |_, _, _| true);
    assert_eq!(joined.events, [], "it has to learn that it is in");
    joined.run(2_200, |_, _, _| true);
    assert_eq!(joined.dead().len(), 2, "{:?}", joined.events);
}

#[test]
fn forged_refusals_and_heavy_loss_together_exclude_nobody() {
    let mut mesh = Mesh::new(5);
    (mesh.refusing, mesh.forged) = (MemberSet::first(5), true);
    let mut dice = dice(7);
    mesh.run(600_000, |_, _, _| dice() % 10 >= 2);
    assert_eq!(mesh.dead(), [], "of loss of one in five, three would have to miss the same four beats");
}

#[test]
fn of_two_the_lower_goes_on_alone_and_the_higher_waits() {
    let mut mesh = Mesh::new(2);
    mesh.run(1_000, |_, _, _| true);
    mesh.stopped[0] = true;
    mesh.run(10_000, |_, _, _| true);
    assert_eq!(mesh.dead(), []);
    assert!(!mesh.nodes[1].has_quorum() && mesh.nodes[1].suspects().contains(0));
}

#[test]
fn in_an_even_split_only_the_side_of_the_lowest_excludes() {
    let mut mesh = Mesh::new(4);
    mesh.run(1_000, |_, _, _| true);
    mesh.run(6_000, |_, from, to| (from < 2) == (to < 2));
    let mut by: Vec<(usize, NodeKey)> = mesh.dead().iter().map(|(_, at, key)| (*at, *key)).collect();
    by.sort_unstable();
    assert_eq!(by, [(0, NodeKey(2)), (0, NodeKey(3)), (1, NodeKey(2)), (1, NodeKey(3))]);
    mesh.run(12_000, |_, _, _| true);
    assert!(mesh.nodes.iter().all(|node| node.suspects().is_empty() && node.dead().is_empty()));
}

#[test]
fn t14_a_minority_knows_that_it_is_the_sick_one() {
    let mut mesh = Mesh::new(5);
    mesh.run(1_000, |_, _, _| true);
    mesh.run(6_000, |_, from, to| (from < 2) == (to < 2));
    assert!(mesh.nodes[0].is_sick() && mesh.nodes[0].accused().is_empty());
    assert!(mesh.dead().iter().all(|(_, at, key)| *at >= 2 && key.0 < 2));
    assert_eq!(mesh.dead().len(), 6, "the majority excludes both, each for itself");
}

#[test]
fn f3_a_paused_node_wakes_accuses_nobody_and_says_how_late_it_was() {
    for pause_ms in [200, 700, 3_000, 60_000] {
        let mut mesh = Mesh::new(4);
        mesh.run(1_000, |_, _, _| true);
        mesh.stopped[2] = true;
        mesh.run(1_000 + pause_ms, |_, _, _| true);
        mesh.stopped[2] = false;
        mesh.run(3_000 + pause_ms, |_, _, _| true);
        let own: Vec<Event> =
            mesh.events.iter().filter(|(_, at, _)| *at == 2).map(|(_, _, event)| *event).collect();
        match own[..] {
            [] => assert!(pause_ms < 500),
            [Event::Late { late_ns }] => assert!(late_ns.abs_diff(pause_ms * MS) <= 100 * MS, "{late_ns}"),
            _ => panic!("paused {pause_ms} ms: {own:?}"),
        }
        assert_eq!(mesh.dead().is_empty(), pause_ms < 1_000);
        assert!(mesh.nodes[0].suspects().is_empty(), "awake again: heard again");
    }
}

#[test]
fn f3_whatever_a_node_was_about_to_do_when_it_was_stopped_it_accuses_nobody() {
    let about_to: [fn(&mut Membership, Instant); 4] = [
        |node, now| node.handle_timeout(now),
        |node, now| node.handle_beat(now, NodeKey(0), 0, MemberSet::EMPTY),
        |node, now| assert!(node.poll_transmit(now).is_some()),
        |node, now| node.handle_view(now, 1, &members(5)),
    ];
    for (pause_ms, wake) in [250, 700, 3_000].into_iter().flat_map(|ms| about_to.map(|wake| (ms, wake))) {
        let mut mesh = Mesh::new(4);
        mesh.run(1_090, |_, _, _| true);
        let (node, now) = (&mut mesh.nodes[2], Instant((1_090 + pause_ms) * MS));
        wake(node, now);
        for (from, after_ms) in [(0, 1), (1, 300)] {
            node.handle_beat(now.after(after_ms * MS), NodeKey(from), 1, MemberSet::EMPTY);
            let events: Vec<Event> = core::iter::from_fn(|| node.poll_event()).collect();
            let late = |event: &Event| matches!(event, Event::Late { .. });
            assert!(events.iter().all(late), "stopped for {pause_ms} ms: {events:?}");
        }
    }
}

#[test]
fn f6_one_dead_direction_is_no_majority() {
    let mut mesh = Mesh::new(4);
    mesh.run(1_000, |_, _, _| true);
    mesh.run(10_000, |_, from, to| (from, to) != (3, 0));
    assert_eq!(mesh.dead(), []);
    assert!(mesh.nodes[0].suspects().contains(3));
}

#[test]
fn t14_liars_exclude_nobody_who_is_heard() {
    let mut mesh = Mesh::new(7);
    for liar in [4, 5, 6] {
        mesh.liars[liar] = MemberSet(0b0000_1111);
    }
    mesh.run(10_000, |_, _, _| true);
    assert_eq!(mesh.events, []);
}

#[test]
fn f7_heavy_loss_excludes_nobody() {
    // 20 % loss, 8 nodes, ten minutes in steps of a millisecond.
    let mut roll = dice(7);
    let mut mesh = Mesh::new(8);
    mesh.run(600_000, |_, _, _| roll() % 100 >= 20);
    assert_eq!(mesh.dead(), []);
    let suspicions = mesh.events.iter().filter(|(_, _, event)| matches!(event, Event::Suspect(_))).count();
    assert!(suspicions > 0, "five lost beats in a row do happen: the wire was lossy indeed");
}

#[test]
fn f6_a_flapping_member_waits_longer_each_time_up_to_half_a_minute() {
    let mut mesh = Mesh::new(3);
    let mut waits = Vec::new();
    for round in 0..9u64 {
        let start = round * 40_000;
        mesh.run(start + 1_000, |_, _, _| true);
        mesh.run(start + 1_700, |_, from, to| (from, to) != (2, 0));
        mesh.run(start + 40_000, |_, _, _| true);
        let recover =
            mesh.events.iter().rfind(|(_, at, event)| (*at, *event) == (0, Event::Recover(NodeKey(2))));
        waits.push(recover.unwrap().0 - start - 1_700);
    }
    let seconds: Vec<u64> = waits.iter().map(|wait| (wait + 100) / 1_000).collect();
    assert_eq!(seconds[..6], [0, 1, 2, 4, 8, 16]);
    assert_eq!(*seconds.last().unwrap(), 30);
}

#[test]
fn f6_a_flapping_member_is_back_at_once_where_the_quorum_hangs_on_it() {
    let mut mesh = Mesh::new(3);
    for round in 0..4u64 {
        let start = round * 40_000;
        mesh.run(start + 1_000, |_, _, _| true);
        mesh.run(start + 1_700, |_, from, to| (from, to) != (2, 1));
        mesh.run(start + 40_000, |_, _, _| true);
    }
    // The lowest dies: of the other two neither decides alone.
    mesh.stopped[0] = true;
    mesh.run(161_000, |_, _, _| true);
    mesh.run(161_700, |_, from, to| (from, to) != (2, 1));
    assert!(mesh.nodes[1].suspects().contains(2) && !mesh.nodes[1].has_quorum());
    mesh.run(161_900, |_, _, _| true);
    assert!(!mesh.nodes[1].suspects().contains(2), "eight seconds were due to it");
    assert!(mesh.nodes[1].has_quorum());
}

#[test]
fn f6_whom_somebody_else_brings_is_accused_and_not_suspected() {
    let mut node = Membership::new(Instant(0), NodeKey(0));
    node.handle_view(Instant(0), 0, &members(4));
    let mut events = Vec::new();
    for ms in (0..20_000).step_by(50) {
        let now = Instant(ms * MS);
        node.handle_timeout(now);
        [1, 2].into_iter().for_each(|key| node.handle_beat(now, NodeKey(key), 0, MemberSet::EMPTY));
        match ms {
            // Itself, then nobody for a while, then through others, then nobody again.
            ..2_000 => node.handle_beat(now, NodeKey(3), 0, MemberSet::EMPTY),
            3_000..6_000 => node.handle_relayed_beat(now, NodeKey(3), 0, MemberSet::EMPTY),
            _ => {}
        }
        while let Some(event) = node.poll_event() {
            events.push((ms, event));
        }
        if (3_000..6_000).contains(&ms) {
            assert_eq!(
                (node.accused(), node.suspects(), node.dead()),
                (MemberSet(8), MemberSet(0), MemberSet(0))
            );
            assert!(node.has_quorum() && node.lacks(3) && !node.lacks(2));
        }
        let _beats = node.poll_transmit(now);
        assert!(node.poll_timeout() > now, "it asks for nothing at once");
    }
    let suspect = Event::Suspect(NodeKey(3));
    assert_eq!(events, [(2_450, suspect), (3_000, Event::Recover(NodeKey(3))), (6_450, suspect)]);
}

#[test]
fn a_beat_of_another_view_is_a_sign_of_life_and_no_accusation() {
    let mut node = Membership::new(Instant(0), NodeKey(0));
    node.handle_view(Instant(0), 5, &members(3));
    for ms in (0..3_000).step_by(50) {
        node.handle_timeout(Instant(ms * MS));
        node.handle_beat(Instant(ms * MS), NodeKey(1), 4, MemberSet(0b100));
        while node.poll_transmit(Instant(ms * MS)).is_some() {}
    }
    assert_eq!(node.poll_event(), Some(Event::Suspect(NodeKey(2))));
    assert_eq!(node.poll_event(), None, "member 1 meant index 2 of another view");
    assert_eq!((node.suspects(), node.dead()), (MemberSet(0b100), MemberSet::EMPTY));
    node.handle_beat(Instant(3_000 * MS), NodeKey(1), 5, MemberSet(0b100));
    assert_eq!(node.poll_event(), Some(Event::Dead(NodeKey(2))));
}

#[test]
fn f7_words_keep_alive_whose_beats_are_lost_and_delay_nothing_when_it_dies() {
    // Beats until then, words until then, and when it is suspected.
    for (beats_ms, words_ms, suspect_ms) in
        [(1_000, 3_000, 3_400), (3_000, 3_050, 3_500), (3_000, 3_000, 3_500)]
    {
        let mut node = Membership::new(Instant(0), NodeKey(0));
        node.handle_view(Instant(0), 1, &members(3));
        let mut events = Vec::new();
        for ms in (0..4_000).step_by(50) {
            let now = Instant(ms * MS);
            node.handle_timeout(now);
            while node.poll_transmit(now).is_some() {}
            node.handle_beat(now, NodeKey(1), 1, MemberSet::EMPTY);
            if ms <= beats_ms && ms % 100 == 0 {
                node.handle_beat(now, NodeKey(2), 1, MemberSet::EMPTY);
            }
            if ms <= words_ms {
                node.handle_word(now, NodeKey(2));
            }
            events.extend(core::iter::from_fn(|| node.poll_event()).map(|event| (ms, event)));
        }
        assert_eq!(events, [(suspect_ms, Event::Suspect(NodeKey(2)))]);
    }
}

#[test]
fn every_fifth_beat_is_a_full_one() {
    let mut node = Membership::new(Instant(0), NodeKey(0));
    assert_eq!(node.poll_transmit(Instant(0)), None, "no member, no beat");
    node.handle_view(Instant(0), 0, &members(2));
    let kinds: Vec<BeatKind> =
        (0..10).filter_map(|beat| node.poll_transmit(Instant(beat * 100 * MS))).collect();
    let full: Vec<usize> = (0..10).filter(|at| kinds[*at] == BeatKind::Full).collect();
    assert_eq!((kinds.len(), full), (10, vec![0, 5]));
}
