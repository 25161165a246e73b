//! Digests that differ: who goes on, who fetches, who stops.

use super::cluster::{Cluster, Links, MS};
use super::rules::solo::{Solo, entry};
use crate::{Cause, Event};
use plesio_wire::sideband::{Message, Query, Shard};
use plesio_wire::value::Value;
use plesio_wire::{Digest, LogIndex, NodeKey, Version};
use std::vec::Vec;

const CALM: Links = Links { loss: 0, duplicate: 0, delay_ms: 2, data_ms: 20 };

fn ours(version: u64) -> Digest {
    Digest::of(&version.to_le_bytes())
}

fn shard(version: u64, digest: Digest) -> Message {
    Message::Shard(Shard { version: Version(version), digest, ..Shard::default() })
}

/// Member 10 or 11 of three, with version 1 applied.
fn with_one_version(key: u64) -> Solo {
    let mut solo = Solo::new(key);
    let manifest = solo.manifest(1, &[entry(0, 0)]);
    solo.decide(Value::Manifest(manifest));
    solo.shards(&[0, 1, 2]);
    let seal = solo.seal();
    solo.decide(seal);
    solo.apply(1);
    assert!(solo.sent.contains(&(crate::To::AllAndObservers, shard_of(&solo, 1))));
    solo.forget();
    solo
}

fn shard_of(solo: &Solo, version: u64) -> Message {
    let index = LogIndex(solo.machine.index().0 - 1);
    Message::Shard(Shard { index, version: Version(version), digest: ours(version) })
}

fn asks(solo: &Solo) -> Vec<NodeKey> {
    let asked = |event: &Event| match event {
        Event::Fetch { from, .. } => Some(*from),
        _ => None,
    };
    solo.events.iter().filter_map(asked).collect()
}

#[test]
fn one_liar_is_reported_once_and_stops_nobody() {
    let mut solo = with_one_version(11);
    solo.hear(12, shard(1, Digest::of(b"a lie")));
    assert!(solo.events.is_empty(), "one against one: the third is waited for");
    solo.hear(10, shard(1, ours(1)));
    let found = [Event::Diverged {
        version: Version(1),
        peer: NodeKey(12),
        ours: ours(1),
        theirs: Digest::of(b"a lie"),
    }];
    assert_eq!(solo.events, found);
    solo.hear(12, shard(1, Digest::of(b"another lie")));
    assert_eq!(solo.events, found, "said once");
    assert_eq!((solo.machine.counters().deviant_total, solo.machine.stopped()), (2, None));
    assert!(solo.machine.snapshot().is_some(), "others may have what a quorum holds");
    // The truth once more, and the next lie is news.
    solo.hear(12, shard(1, ours(1)));
    solo.hear(12, shard(1, Digest::of(b"a lie")));
    assert_eq!(solo.events.len(), 2);
}

#[test]
fn c9_15_a_member_that_a_quorum_contradicts_gives_its_state_up_and_fetches_theirs() {
    let mut solo = with_one_version(11);
    let right = Digest::of(b"right");
    solo.hear(12, shard(1, right));
    assert!(solo.machine.snapshot().is_some());
    solo.hear(10, shard(1, right));
    assert!(solo.events.contains(&Event::Resync { version: Version(1) }));
    assert!(!solo.machine.has_state() && solo.machine.snapshot().is_none(), "nobody is given what is wrong");
    solo.until(10_000);
    let asked = asks(&solo);
    assert!(
        asked.len() >= 2 && asked.iter().all(|from| [NodeKey(10), NodeKey(12)].contains(from)),
        "{asked:?}"
    );
    // What it gets is its state, and it votes again.
    let mut log = solo.machine.log.clone();
    log.open = None;
    let cut = crate::SnapshotCut::of(&log, right);
    assert_eq!(solo.machine.handle_snapshot(solo.now, &cut), Ok(crate::Installed::State));
    solo.forget();
    solo.drain();
    assert!(solo.machine.has_state() && solo.machine.snapshot().is_some());
    assert!(
        solo.sent.iter().any(|(_, message)| matches!(message, Message::Shard(told) if told.digest == right))
    );
}

#[test]
fn of_two_the_lower_one_is_right() {
    for (key, is_right) in [(10, true), (11, false)] {
        let mut solo = with_one_version(key);
        let view = solo.without(12, 2);
        solo.decide(Value::View(view));
        solo.forget();
        solo.hear(21 - key, shard(1, Digest::of(b"other")));
        assert_eq!(solo.machine.has_state(), is_right);
        assert_eq!(solo.machine.stopped(), None);
    }
}

#[test]
fn c9_15_without_a_quorum_for_any_digest_it_stops_and_goes_on_answering() {
    let mut solo = with_one_version(11);
    solo.hear(12, shard(1, Digest::of(b"one")));
    solo.until(2_000);
    let again = solo.took(|_, message| matches!(message, Message::Shard(_)).then_some(()));
    assert_eq!(again.len(), 2, "whoever hears it twice says its own");
    assert_eq!(solo.machine.stopped(), None, "the third may still decide");
    solo.hear(10, shard(1, Digest::of(b"two")));
    assert!(solo.events.contains(&Event::Stopped { version: Version(1), cause: Cause::Divergence }));
    assert_eq!(solo.machine.stopped(), Some(Cause::Divergence));
    solo.forget();
    solo.offer(0, 1);
    solo.cut(1, 1);
    assert!(matches!(solo.events[..], [Event::Fold { .. }]), "nothing is contributed: {:?}", solo.events);
    solo.until(5_000);
    assert!(solo.sent.is_empty(), "it proposes and accepts nothing: {:?}", solo.sent);
    solo.hear(10, Message::Query(Query { index: LogIndex(1), ..Query::default() }));
    assert!(matches!(solo.sent[..], [(_, Message::Decided { .. }), ..]));
    assert!(solo.machine.snapshot().is_some(), "its state is there for who wants it");
    solo.machine.handle_leave(solo.now);
    solo.drain();
    assert!(solo.events.contains(&Event::Left), "nobody could decide on that");
}

#[test]
fn c9_16_an_overflow_stops_it() {
    let mut solo = with_one_version(10);
    solo.machine.handle_overflow(solo.now, Version(1));
    solo.machine.handle_overflow(solo.now, Version(1));
    solo.drain();
    assert_eq!(solo.events, [Event::Stopped { version: Version(1), cause: Cause::Overflow }]);
    assert!(solo.machine.snapshot().is_some());
}

#[test]
fn a_digest_said_twice_is_answered_once() {
    let mut solo = with_one_version(11);
    solo.hear(12, shard(1, ours(1)));
    assert!(solo.sent.is_empty());
    for _ in 0..3 {
        solo.hear(12, shard(1, ours(1)));
    }
    assert_eq!(solo.sent, [(crate::To::One(NodeKey(12)), shard_of(&solo, 1))]);
    assert!(solo.events.is_empty());
}

#[test]
fn a_mesh_goes_on_with_a_liar_in_it() {
    for seed in 0..8 {
        let members = 3 + seed % 4;
        let mut cluster = Cluster::new(members, seed, Links { loss: 5, ..CALM });
        cluster.has_deviants = true;
        cluster.run_until(2_000 * MS);
        let liar = NodeKey(10 + seed % members);
        cluster.live.get_mut(&liar).unwrap().engine.lies = true;
        let before = cluster.checker.sealed;
        cluster.run_until(8_000 * MS);
        cluster.check_mass();
        assert!(
            cluster.checker.sealed > before + 15,
            "seed {seed}: {} versions",
            cluster.checker.sealed - before
        );
        for (key, process) in &cluster.live {
            let engine = &process.engine;
            assert_eq!((engine.resyncs, engine.stopped), (0, false), "seed {seed}: {key:?}");
            let named = if *key == liar { Vec::new() } else { [liar].to_vec() };
            // The liar holds what all hold, so it sees nothing wrong.
            assert_eq!(engine.deviants, named, "seed {seed}: {key:?}");
        }
    }
}

#[test]
fn a_member_that_reckoned_wrong_once_is_back_soon() {
    for seed in 0..8 {
        let members = 3 + seed % 4;
        let mut cluster = Cluster::new(members, seed, Links { loss: 5, ..CALM });
        cluster.has_deviants = true;
        cluster.run_until(2_000 * MS);
        let bent = NodeKey(10 + seed % members);
        cluster.live.get_mut(&bent).unwrap().engine.bends = 1;
        cluster.run_until(4_000 * MS);
        cluster.await_health(seed, 4_000 * MS);
        cluster.check_mass();
        for (key, process) in &cluster.live {
            let resyncs = u32::from(*key == bent);
            assert_eq!(
                (process.engine.resyncs, process.engine.stopped),
                (resyncs, false),
                "seed {seed}: {key:?}"
            );
            let machine = &process.engine.machine;
            assert_eq!(process.engine.state, cluster.checker.state(machine.version_held()));
        }
    }
}

#[test]
fn a_member_that_always_reckons_wrong_leaves_and_the_others_go_on() {
    let mut cluster = Cluster::new(4, 5, CALM);
    cluster.has_deviants = true;
    cluster.run_until(2_000 * MS);
    let bent = NodeKey(12);
    cluster.live.get_mut(&bent).unwrap().engine.bends = u32::MAX;
    cluster.run_until(20_000 * MS);
    let engine = &cluster.live[&bent].engine;
    assert!(engine.stopped && engine.left, "{} states given up", engine.resyncs);
    cluster.crash(bent);
    cluster.await_health(5, 4_000 * MS);
    cluster.check_mass();
}
