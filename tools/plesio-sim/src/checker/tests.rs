//! Every promise that the checker watches, broken once.

use super::*;
use plesio_wire::Frame;
use plesio_wire::value::WEIGHT_ONE;
use plesio_wire::value::{Entry, Seat};

const HALF: u32 = WEIGHT_ONE / 2;

fn view() -> View {
    let mut view = View { period_us: 250_000, elements: 2, ..View::default() };
    for key in [10, 20] {
        let seat = Seat { key: NodeKey(key), incarnation: Incarnation(key), admitted: LogIndex(0) };
        view.members.push(seat).unwrap();
    }
    view
}

fn checker() -> Checker {
    Checker::new(view(), 2, Rules::default())
}

fn id(member: u64, seq: u32) -> SlotId {
    let key = 10 * (member + 1);
    SlotId { key: NodeKey(key), life: Incarnation(key), seq: SlotSeq(seq) }
}

fn announce(checker: &mut Checker, member: u64, seq: u32, content: [i64; 2], units: &[u32]) {
    let slot = Announcement {
        host: member as u8,
        process: member as u32,
        base: Version(0),
        n_steps: 3,
        content: &content,
        units,
    };
    checker.handle_announced(id(member, seq), &slot);
}

fn entry(member: u16, slot_seq: u32) -> Entry {
    Entry { member, slot_seq, n_steps: 3, weight: HALF, ..Entry::default() }
}

fn manifest(origin: u64, entries: &[Entry]) -> Manifest {
    let mut manifest = Manifest { origin: Frame(origin), view: view().digest(), ..Manifest::default() };
    entries.iter().for_each(|entry| manifest.entries.push(*entry).unwrap());
    manifest
}

fn open(checker: &mut Checker, host: u8, index: u64, version: u64, manifest: Manifest) {
    let event = Event::Open { context: LogIndex(index), version: Version(version), manifest };
    checker.handle_event(host, u32::from(host), &event);
}

fn seal(checker: &mut Checker, host: u8, index: u64, version: u64) {
    let event = Event::Sealed { index: LogIndex(index), version: Version(version), complete: true };
    checker.handle_event(host, u32::from(host), &event);
}

/// Two slots in one final version.
fn with_one_version() -> Checker {
    let mut checker = checker();
    announce(&mut checker, 0, 1, [5, 7], &[0]);
    announce(&mut checker, 1, 1, [1, 1], &[0]);
    let manifest = manifest(1, &[entry(0, 1), entry(1, 1)]);
    for host in 0..2 {
        open(&mut checker, host, 1, 1, manifest);
        seal(&mut checker, host, 2, 1);
        checker.handle_settled(id(u64::from(host), 1), SlotFate::Commit);
        checker.handle_turned(u32::from(host));
        checker.handle_applied(
            host,
            u32::from(host),
            Version(1),
            &[i64::from(HALF) * 6, i64::from(HALF) * 8],
        );
    }
    checker
}

fn broken(checker: &Checker) -> &str {
    checker.violation().map_or("", |(_, what)| what)
}

#[test]
fn an_honest_run_breaks_nothing() {
    let checker = with_one_version();
    assert_eq!(checker.violation(), None);
    assert_eq!((checker.newest_final(), checker.log_len()), (Version(1), 3));
}

#[test]
fn i4_a_state_that_is_not_the_sum() {
    let mut checker = with_one_version();
    checker.handle_applied(1, 1, Version(1), &[i64::from(HALF) * 6, i64::from(HALF) * 8 + 1]);
    assert!(broken(&checker).starts_with("I4: n1 holds"), "{}", broken(&checker));
}

#[test]
fn r13_a_version_that_nobody_sealed_and_a_way_back() {
    let mut checker = with_one_version();
    checker.handle_applied(0, 0, Version(0), &[0, 0]);
    assert!(broken(&checker).starts_with("R13: n0 goes back"));
    let mut checker = with_one_version();
    checker.handle_applied(0, 0, Version(2), &[0, 0]);
    assert!(broken(&checker).starts_with("R13: n0 applies version 2"));
}

#[test]
fn i5_two_values_at_one_index_and_a_gap() {
    let mut checker = with_one_version();
    announce(&mut checker, 0, 2, [5, 7], &[1]);
    open(&mut checker, 0, 3, 2, manifest(2, &[Entry { staleness: 1, ..entry(0, 2) }]));
    open(&mut checker, 1, 3, 2, manifest(2, &[]));
    assert!(broken(&checker).starts_with("I5: n1 learns another value at index 3"), "{}", broken(&checker));
    let mut checker = with_one_version();
    open(&mut checker, 1, 4, 2, manifest(2, &[]));
    assert!(broken(&checker).starts_with("I5: n1 learns index 4"));
}

#[test]
fn i3_weights_that_are_not_the_shares() {
    let mut checker = checker();
    announce(&mut checker, 0, 1, [5, 7], &[0]);
    open(&mut checker, 0, 1, 1, manifest(1, &[Entry { weight: HALF + 1, ..entry(0, 1) }]));
    assert!(broken(&checker).starts_with("I3:"), "{}", broken(&checker));
}

#[test]
fn i6_a_slot_twice_and_one_too_stale() {
    let mut checker = with_one_version();
    open(&mut checker, 0, 3, 2, manifest(2, &[Entry { staleness: 1, ..entry(0, 1) }]));
    assert!(
        broken(&checker).starts_with("I6:") && broken(&checker).contains("Final"),
        "{}",
        broken(&checker)
    );
    let mut checker = with_one_version();
    for version in 2..=5 {
        open(&mut checker, 0, 2 * version - 1, version, manifest(version, &[]));
        seal(&mut checker, 0, 2 * version, version);
    }
    announce(&mut checker, 0, 2, [1, 1], &[9]);
    open(&mut checker, 0, 11, 6, manifest(6, &[Entry { staleness: 5, ..entry(0, 2) }]));
    assert!(broken(&checker).contains("5 versions stale"), "{}", broken(&checker));
}

#[test]
fn a2_a_unit_twice_and_a_slot_that_was_folded() {
    let mut checker = with_one_version();
    announce(&mut checker, 0, 2, [1, 1], &[0, 1]);
    open(&mut checker, 0, 3, 2, manifest(2, &[Entry { staleness: 1, ..entry(0, 2) }]));
    assert!(broken(&checker).contains("its unit 0 is in version 1 too"), "{}", broken(&checker));
    let mut checker = with_one_version();
    announce(&mut checker, 0, 2, [1, 1], &[1]);
    checker.handle_settled(id(0, 2), SlotFate::Fold);
    open(&mut checker, 0, 3, 2, manifest(2, &[Entry { staleness: 1, ..entry(0, 2) }]));
    assert!(broken(&checker).starts_with("A2:"), "{}", broken(&checker));
}

#[test]
fn p2_a_slot_that_was_never_announced_and_one_told_wrong() {
    let mut checker = checker();
    open(&mut checker, 0, 1, 1, manifest(1, &[entry(0, 1)]));
    assert!(broken(&checker).starts_with("P2:"));
    let mut checker = self::checker();
    announce(&mut checker, 0, 1, [5, 7], &[0]);
    open(&mut checker, 0, 1, 1, manifest(1, &[Entry { n_steps: 4, ..entry(0, 1) }]));
    assert!(broken(&checker).starts_with("R9:"));
}

#[test]
fn slots_end_only_on_proof() {
    let story = |listed: bool, sealed: bool, fate: SlotFate| {
        let mut checker = checker();
        announce(&mut checker, 0, 1, [5, 7], &[0]);
        if listed {
            open(&mut checker, 0, 1, 1, manifest(1, &[entry(0, 1)]));
        }
        if sealed {
            seal(&mut checker, 0, 2, 1);
        }
        checker.handle_settled(id(0, 1), fate);
        broken(&checker).to_string()
    };
    assert_eq!(story(false, false, SlotFate::Fold), "");
    assert_eq!(story(true, true, SlotFate::Commit), "");
    assert!(story(true, false, SlotFate::Fold).contains("R23"));
    assert!(story(true, true, SlotFate::Fold).contains("R23"));
    assert!(story(true, false, SlotFate::Commit).contains("R22"));
    assert!(story(false, false, SlotFate::Lose).contains("I2"));
    let mut twice = with_one_version();
    twice.handle_settled(id(0, 1), SlotFate::Commit);
    assert!(broken(&twice).contains("settled twice"));
}

#[test]
fn i2_a_final_slot_that_is_kept() {
    let mut checker = checker();
    announce(&mut checker, 0, 1, [5, 7], &[0]);
    open(&mut checker, 0, 1, 1, manifest(1, &[entry(0, 1)]));
    seal(&mut checker, 0, 2, 1);
    checker.handle_turned(0);
    assert!(broken(&checker).starts_with("I2: n0 learnt"));
}

#[test]
fn views_follow_each_other_and_drop_what_they_must() {
    let next = |mutate: &dyn Fn(&mut View)| {
        let mut checker = checker();
        announce(&mut checker, 0, 1, [5, 7], &[0]);
        announce(&mut checker, 1, 1, [1, 1], &[0]);
        open(&mut checker, 0, 1, 1, manifest(1, &[entry(0, 1), entry(1, 1)]));
        let mut after = View { number: 1, previous: view().digest(), ..view() };
        after.members = plesio_wire::Bounded::from_slice(&view().members[..1]);
        mutate(&mut after);
        let event = Event::View { index: LogIndex(2), view: after, added: Vec::new(), removed: Vec::new() };
        checker.handle_event(0, 0, &event);
        checker
    };
    let mut checker = next(&|_| ());
    assert_eq!(checker.violation(), None);
    assert_eq!(checker.take_removed(), [(NodeKey(20), Incarnation(20))]);
    assert_eq!(checker.take_removed(), []);
    // The dropped slot may be folded, and its mass is in no version.
    checker.handle_settled(id(1, 1), SlotFate::Fold);
    seal(&mut checker, 0, 3, 1);
    checker.handle_applied(0, 0, Version(1), &[i64::from(HALF) * 5, i64::from(HALF) * 7]);
    assert_eq!(checker.violation(), None);
    let stranger = Seat { key: NodeKey(30), incarnation: Incarnation(1), admitted: LogIndex(2) };
    assert!(broken(&next(&|view| view.members.push(stranger).unwrap())).starts_with("R16:"));
    assert!(broken(&next(&|view| view.members[0].incarnation.0 += 1)).starts_with("R19:"));
    assert!(broken(&next(&|view| view.number = 2)).starts_with("R15:"));
}
