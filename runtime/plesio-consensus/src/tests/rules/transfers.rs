//! A state that takes longer than a frame to come: what is sealed meanwhile is gathered on top of it.

use super::solo::{Solo, ballot, entry};
use crate::{Event, Installed, SnapshotCut, Start, To};
use plesio_wire::sideband::{Message, Query};
use plesio_wire::value::Value;
use plesio_wire::{Digest, LogIndex, Version};
use std::vec::Vec;

/// Seals the next version at `solo`, which holds the result shards of `owners` by then.
fn seal(solo: &mut Solo, owners: &[u16]) {
    let version = solo.machine.version_final().0 + 1;
    let manifest = solo.manifest(version, &[entry(1, version as u32)]);
    solo.decide(Value::Manifest(manifest));
    solo.shards(owners);
    for voter in [11, 12] {
        solo.seal_vote(voter, ballot(version, 0));
    }
    assert_eq!(solo.machine.version_final(), Version(version));
}

/// A member's cut at version 1.
fn cut() -> SnapshotCut {
    let mut member = Solo::new(10);
    seal(&mut member, &[0, 1, 2]);
    member.apply(1);
    member.machine.snapshot().unwrap()
}

fn observer() -> Solo {
    let mut solo = Solo::with(40, Start::Observer);
    assert_eq!(solo.machine.handle_cut_ahead(solo.now, &cut()), Ok(Installed::Cut));
    solo.drain();
    assert!(solo.machine.is_started() && !solo.machine.has_state() && solo.machine.snapshot().is_none());
    solo
}

fn gathered(solo: &mut Solo) -> Vec<(u64, bool)> {
    let gathered = solo.events.iter().filter_map(|event| match event {
        Event::Gather { version, first } => Some((version.0, *first)),
        _ => None,
    });
    let gathered = gathered.collect();
    solo.forget();
    gathered
}

fn fetches(solo: &Solo) -> bool {
    solo.events.iter().any(|event| matches!(event, Event::Fetch { .. }))
}

#[test]
fn r13_versions_sealed_while_a_state_comes_are_gathered_on_top_of_it() {
    let mut solo = observer();
    for version in 2..9 {
        seal(&mut solo, &[0, 1, 2]);
        solo.machine.handle_transfer(solo.now);
        solo.until(solo.now.0 / 1_000_000 + 250);
        assert!(!fetches(&solo), "the transfer goes on");
        assert_eq!(gathered(&mut solo), [(version, version == 2)]);
    }
    // One shard comes after its SEAL.
    seal(&mut solo, &[0, 2]);
    assert_eq!(gathered(&mut solo), []);
    let context = plesio_wire::LogIndex(solo.machine.index().0 - 2);
    solo.machine.handle_shard(solo.now, context, 1);
    solo.drain();
    assert_eq!(gathered(&mut solo), [(9, false)]);
    assert_eq!(solo.machine.handle_snapshot(solo.now, &cut()), Ok(Installed::Gathered(Version(9))));
    assert_eq!(solo.machine.version_held(), Version(1), "until the sum is made");
    solo.machine.handle_applied(solo.now, Version(9), Digest::of(b"9"));
    solo.drain();
    assert_eq!(solo.machine.version_held(), Version(9));
    // From here on it is like anybody.
    seal(&mut solo, &[0, 1, 2]);
    assert!(solo.events.iter().any(|event| matches!(event, Event::Sealed { complete: true, .. })));
}

#[test]
fn r13_after_a_gap_the_state_on_its_way_is_taken_and_another_one_asked_for() {
    let mut solo = observer();
    seal(&mut solo, &[0, 1, 2]);
    seal(&mut solo, &[0, 2]);
    assert!(!fetches(&solo), "the last shard may still come");
    seal(&mut solo, &[0, 1, 2]);
    solo.until(100);
    assert!(!fetches(&solo), "each would be given up for the next where versions are quicker than transfers");
    assert_eq!(gathered(&mut solo), [(2, true)], "nothing lies on top of what is missing");
    assert_eq!(solo.machine.handle_snapshot(solo.now, &cut()), Ok(Installed::Gathered(Version(2))));
    solo.machine.handle_applied(solo.now, Version(2), Digest::of(b"2"));
    solo.drain();
    assert_eq!(solo.machine.version_held(), Version(2));
    solo.until(600);
    assert!(fetches(&solo), "version 4 is final");
}

#[test]
fn r13_a_transfer_without_progress_is_asked_for_elsewhere() {
    let mut solo = observer();
    solo.until(1_900);
    assert!(!fetches(&solo));
    solo.until(2_100);
    assert!(fetches(&solo));
}

/// It asked nobody at the time, and looked again after two seconds.
#[test]
fn r13_who_hears_nobody_asks_the_first_that_is_heard() {
    let mut solo = Solo::new(10);
    seal(&mut solo, &[0, 1]);
    let others = [11, 12].map(plesio_wire::NodeKey);
    solo.machine.handle_suspects(solo.now, &others, &[]);
    solo.until(3_000);
    assert!(!fetches(&solo), "there is nobody to ask");
    solo.machine.handle_suspects(solo.now, &others[1..], &[]);
    solo.until(3_250);
    assert!(fetches(&solo), "a quarter of a second, not two");
}

/// Views came after the version that both hold, and their entries are forgotten. The cut was refused as too old, so the
/// member learnt no view, and without its vote nobody learnt another version.
#[test]
fn r24_who_holds_the_state_of_a_later_log_takes_the_log_alone() {
    let mut solo = Solo::new(10);
    let mut other = Solo::new(11);
    for member in [&mut solo, &mut other] {
        seal(member, &[0, 1, 2]);
        member.apply(1);
    }
    let view = other.without(12, 2);
    other.decide(Value::View(view));
    let cut = other.machine.snapshot().unwrap();
    let wrong = SnapshotCut { digest: Digest::of(b"another"), ..cut.clone() };
    let old = Err(crate::SnapshotError::Old { version: Version(1), needed: Version(1) });
    assert_eq!(solo.machine.handle_cut_ahead(solo.now, &wrong), old, "that is another state");
    assert_eq!(solo.machine.handle_cut_ahead(solo.now, &cut), Ok(Installed::Log));
    solo.drain();
    assert_eq!((solo.machine.view().number, solo.machine.index()), (1, other.machine.index()));
    assert_eq!((solo.machine.version_held(), solo.machine.has_state()), (Version(1), true));
    solo.until(3_000);
    assert!(!fetches(&solo), "it lacks nothing");
    assert_eq!(solo.machine.handle_cut_ahead(solo.now, &cut), old, "and takes it once");
}

#[test]
fn r13_a_member_that_lags_gathers_too() {
    let mut solo = Solo::new(10);
    seal(&mut solo, &[0, 1]);
    seal(&mut solo, &[0, 1, 2]);
    assert_eq!(solo.machine.version_held(), Version(0));
    let mut other = Solo::new(10);
    for version in 1..3 {
        seal(&mut other, &[0, 1, 2]);
        other.apply(version);
    }
    let cut = other.machine.snapshot().unwrap();
    assert_eq!(solo.machine.handle_cut_ahead(solo.now, &cut), Ok(Installed::State));
    solo.forget();
    seal(&mut solo, &[0, 1, 2]);
    assert_eq!(gathered(&mut solo), [(3, true)]);
    assert!(solo.seals().is_empty(), "who does not hold the version before accepts no SEAL (A7)");
    assert_eq!(solo.machine.handle_snapshot(solo.now, &cut), Ok(Installed::Gathered(Version(3))));
    // Results that turn out not to be there end a transfer as well.
    let mut solo = observer();
    seal(&mut solo, &[0, 1, 2]);
    solo.machine.handle_unapplied(solo.now, Version(2));
    solo.until(100);
    assert!(fetches(&solo));
}

#[test]
fn r1_who_came_by_a_snapshot_and_has_no_entry_answers_with_its_state() {
    // Found by the search: the one member that had decided a view was dead, the observer that had its snapshot said
    // nothing, and the rest of the old view, which no quorum voted in any more, waited for ever.
    let mut solo = Solo::with(40, Start::Observer);
    let cut = cut();
    solo.machine.handle_snapshot(solo.now, &cut).expect("a sound cut");
    solo.drain();
    solo.forget();
    let asked = cut.view.members[0].key;
    let index = LogIndex(cut.index.0 - 1);
    solo.hear(asked.0, Message::Query(Query { index, ..Query::default() }));
    let answers = solo.took(|to, message| match (to, message) {
        (To::One(key), Message::Snapshot(offer)) if *key == asked => Some((offer.index, offer.version)),
        _ => None,
    });
    assert_eq!(answers, [(cut.index, cut.version)]);
}
