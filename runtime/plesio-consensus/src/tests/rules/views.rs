//! R15 to R24: views, leaving and coming, slots, snapshots.

use super::solo::{Solo, ballot, entry};
use crate::ledger::{Admission, Fate, Ledger};
use crate::log::Rule;
use crate::tests::rules::TERMS;
use crate::{Event, FoldReason, SnapshotCut, To};
use plesio_wire::sideband::{
    Address, Commit, Epoch, Have, HaveEntry, Join, Last, Leave, Message, Query, Ready,
};
use plesio_wire::value::{Seat, Value};
use plesio_wire::{Bounded, Frame, Incarnation, LogIndex, MemberSet, NodeId, NodeKey, SlotSeq, Version};
use std::net::SocketAddr;
use std::vec::Vec;

pub(super) fn joiner(key: u64, incarnation: u64, hold: u64) -> Join {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&key.to_le_bytes());
    let sideband = Address(SocketAddr::from(([10, 0, 0, key as u8], 47_701)));
    Join { id: NodeId(id), incarnation: Incarnation(incarnation), sideband, hold, ..Join::default() }
}

#[test]
fn r15_no_view_before_a_quorum_of_it_holds_the_last_version() {
    let mut solo = Solo::new(11);
    let manifest = solo.manifest(1, &[entry(1, 0)]);
    solo.decide(Value::Manifest(manifest));
    solo.shards(&[0, 1, 2]);
    solo.seal_vote(10, ballot(1, 0));
    solo.apply(1);
    solo.forget();
    // Member 10 dies. The view {11, 12} needs 11 alone, which holds version 1: due at once.
    solo.machine.handle_suspects(solo.now, &[], &[NodeKey(10)]);
    solo.until(100);
    assert_eq!(solo.queries(), [ballot(2, 2)], "after 12, which comes first in ballot order, kept silent");
    let last = Last { index: LogIndex(3), ballot: ballot(2, 2), version: Version(1), ..Last::default() };
    solo.hear(12, Message::Last(last));
    let proposals = solo.proposals();
    let [(_, Value::View(view))] = &proposals[..] else { panic!("{proposals:?}") };
    assert_eq!((view.members.len(), view.index_of(NodeKey(10))), (2, None));
    // Seen from 12, nothing is due until 11 shows that it holds it too.
    let mut solo = Solo::new(12);
    let manifest = solo.manifest(1, &[entry(1, 0)]);
    solo.decide(Value::Manifest(manifest));
    solo.shards(&[0, 1, 2]);
    solo.seal_vote(10, ballot(1, 0));
    solo.apply(1);
    solo.machine.handle_suspects(solo.now, &[], &[NodeKey(10)]);
    solo.forget();
    solo.until(2_000);
    assert!(solo.proposals().is_empty() && solo.queries().is_empty());
    solo.machine.handle_hold(solo.now, NodeKey(11), Version(1), None);
    solo.drain();
    solo.until(2_400);
    assert!(!solo.queries().is_empty() || !solo.proposals().is_empty());
}

#[test]
fn r15_a_joiner_is_proposed_at_a_close_once_it_holds_the_last_version() {
    let mut solo = Solo::new(11);
    let mut hold = 0;
    for ms in (0..=250).step_by(50) {
        solo.until(ms);
        solo.machine.handle_joiner(solo.now, &joiner(5, 9, hold));
        solo.drain();
    }
    assert!(solo.proposals().is_empty(), "it holds nothing yet");
    solo.until(900);
    for ms in (900..=1_000).step_by(50) {
        solo.until(ms - 1);
        hold = 1;
        solo.machine.handle_joiner(solo.now, &joiner(5, 9, hold));
        solo.drain();
    }
    solo.until(1_000);
    assert_eq!(solo.queries(), [ballot(4, 0)]);
    solo.hear(10, Message::Last(Last { index: LogIndex(1), ballot: ballot(4, 0), ..Last::default() }));
    solo.hear(12, Message::Last(Last { index: LogIndex(1), ballot: ballot(4, 0), ..Last::default() }));
    let proposals = solo.proposals();
    let [(_, Value::View(view)), ..] = &proposals[..] else { panic!("{proposals:?}") };
    let seat = Seat { key: NodeKey(5), incarnation: Incarnation(9), admitted: LogIndex(1) };
    assert_eq!((view.number, view.members[0]), (1, seat));
}

#[test]
fn r14_who_held_a_version_up_waits_ten_seconds_and_its_next_life_one() {
    for (life, waits_ms) in [(100, 10_000), (4_711, 1_000)] {
        let mut solo = Solo::new(11);
        let manifest = solo.manifest(1, &[entry(1, 0)]);
        solo.decide(Value::Manifest(manifest));
        solo.until(4_000);
        let view = solo.without(10, 1);
        solo.decide(Value::View(view));
        solo.shards(&[0, 1]);
        solo.seal_vote(12, ballot(16, 0));
        solo.apply(1);
        let index = solo.machine.index();
        let seated = (4_000..20_000).step_by(50).find(|ms| {
            solo.until(*ms);
            solo.machine.handle_joiner(solo.now, &joiner(10, life, 2));
            solo.drain();
            if let Some(asked) = solo.queries().last() {
                let last = Last { index, ballot: *asked, version: Version(1), ..Last::default() };
                solo.hear(12, Message::Last(last));
            }
            solo.proposals()
                .iter()
                .any(|(_, value)| matches!(value, Value::View(view) if view.members.len() == 3))
        });
        let waited = seated.map(|ms| ms - 4_000);
        assert!(waited.is_some_and(|ms| (waits_ms..=waits_ms + 1_500).contains(&ms)), "{life}: {waited:?}");
    }
}

#[test]
fn r15_a_joiner_that_fell_silent_is_not_seated() {
    for (silent_ms, seated) in [(50, true), (480, false)] {
        let mut solo = Solo::new(11);
        for ms in [300, 1_000 - silent_ms] {
            solo.until(ms);
            solo.machine.handle_joiner(solo.now, &joiner(5, 9, u64::from(ms > 300)));
        }
        solo.until(1_001);
        assert_eq!(!solo.queries().is_empty(), seated, "silent for {silent_ms} ms");
    }
}

#[test]
fn r16_a_view_over_an_open_version_removes_members_and_their_entries_only() {
    let mut solo = Solo::new(11);
    let manifest = solo.manifest(1, &[entry(0, 4), entry(1, 0), entry(2, 0)]);
    solo.decide(Value::Manifest(manifest));
    let mut joined = solo.without(10, 1);
    let seat = Seat { key: NodeKey(5), incarnation: Incarnation(1), admitted: LogIndex(2) };
    joined.members = Bounded::from_slice(&[&[seat], &joined.members[..]].concat());
    assert_eq!(solo.machine.log.check(&Value::View(joined), TERMS), Err(Rule(16)), "joins wait for SEAL");
    solo.shards(&[0, 1]);
    solo.forget();
    let view = solo.without(10, 1);
    solo.decide(Value::View(view));
    let reopened = solo.events.iter().find_map(|event| match event {
        Event::Reopen { context, version, manifest, dropped } => {
            Some((*context, *version, *manifest, *dropped))
        }
        _ => None,
    });
    let (context, version, manifest, dropped) = reopened.unwrap();
    assert_eq!((context, version, dropped), (LogIndex(2), Version(1), MemberSet(0b001)));
    let left: Vec<(u16, u32, u32)> =
        manifest.entries.iter().map(|e| (e.member, e.slot_seq, e.weight)).collect();
    assert_eq!(left, [(0, 0, 5_592_405), (1, 0, 5_592_405)], "renumbered, weights as they were");
    assert_eq!(solo.machine.open().unwrap().shards, MemberSet::EMPTY, "older shards are void");
    assert_eq!(solo.machine.log.ballot_first(), ballot(1, 0));
    // The dropped slot stays listed for ever.
    let gone = Admission { key: NodeKey(10), incarnation: Incarnation(100), admitted: LogIndex(0) };
    assert_eq!(solo.machine.log.ledger.fate(gone, SlotSeq(4)), Some(Fate::Dropped));
}

#[test]
fn r17_shards_that_somebody_holds_are_served_and_sealed_not_dropped() {
    let mut solo = Solo::new(11);
    let manifest = solo.manifest(1, &[entry(0, 0), entry(1, 0)]);
    solo.decide(Value::Manifest(manifest));
    solo.shards(&[0, 1]);
    solo.forget();
    solo.machine.handle_suspects(solo.now, &[NodeKey(10)], &[NodeKey(10)]);
    solo.until(300);
    let asked = *solo.queries().last().unwrap();
    // 12 lacks the dead owner's shard and holds its own: together all are there.
    let last = Last {
        index: LogIndex(2),
        ballot: asked,
        context: LogIndex(1),
        shards: MemberSet(0b110),
        ..Last::default()
    };
    solo.hear(12, Message::Last(last));
    let serve = Event::Serve { to: NodeKey(12), context: LogIndex(1), shards: MemberSet(0b001) };
    assert!(solo.events.contains(&serve), "{:?}", solo.events);
    assert!(solo.proposals().is_empty(), "no VIEW while the version can be saved");
    solo.shards(&[2]);
    assert_eq!(solo.seals().first(), Some(&asked));
    // Held by none: the view goes on without the owner and its entry.
    let mut solo = Solo::new(11);
    solo.decide(Value::Manifest(manifest));
    solo.shards(&[1, 2]);
    solo.machine.handle_suspects(solo.now, &[NodeKey(10)], &[NodeKey(10)]);
    solo.until(300);
    let asked = *solo.queries().last().unwrap();
    solo.hear(12, Message::Last(Last { ballot: asked, ..last }));
    let proposals = solo.proposals();
    assert!(
        matches!(proposals[..], [(_, Value::View(view)), ..] if view.members.len() == 2),
        "{proposals:?}"
    );
}

#[test]
fn r18_a_leaver_goes_when_a_quorum_of_the_new_view_has_learnt_it() {
    let mut solo = Solo::new(12);
    solo.machine.handle_leave(solo.now);
    solo.drain();
    assert!(solo.sent.contains(&(To::All, Message::Leave(Leave { incarnation: Incarnation(102) }))));
    let view = solo.without(12, 1);
    solo.decide(Value::View(view));
    assert!(!solo.events.contains(&Event::Left));
    solo.forget();
    // It still tells the past.
    solo.hear(10, Message::Query(Query { index: LogIndex(1), ..Query::default() }));
    assert!(matches!(solo.sent[0], (To::One(NodeKey(10)), Message::Decided { index: LogIndex(1), .. })));
    solo.machine.handle_hold(solo.now, NodeKey(11), Version(0), Some(LogIndex(2)));
    solo.drain();
    assert!(!solo.events.contains(&Event::Left), "one of two without the lowest is no quorum");
    solo.hear(10, Message::Decided { index: LogIndex(1), value: Value::View(view) });
    assert!(solo.events.contains(&Event::Left));
}

/// Two told to end at once: the one that stays decides the view and ends, and answers no question any more.
#[test]
fn r18_the_word_that_a_leave_is_decided_is_of_one_who_has_learnt_it() {
    let mut solo = Solo::new(12);
    solo.machine.handle_leave(solo.now);
    let (index, view) = (solo.machine.index(), solo.without(12, 3));
    solo.hear(10, Message::Epoch(Epoch { index, ballot: ballot(3, 0), view }));
    let digest = Value::View(view).digest();
    solo.hear(10, Message::Commit(Commit { index, digest, ..Commit::default() }));
    assert_eq!(solo.machine.index(), index.next());
    assert!(solo.events.contains(&Event::Left), "the lowest of two is a quorum");
}

/// It waited for a quorum of two, one of them dead: the rest had gone on, and told no entries that old any more.
#[test]
fn r18_a_leaver_goes_when_the_view_that_it_left_is_past() {
    let mut solo = Solo::new(12);
    solo.machine.handle_leave(solo.now);
    let view = solo.without(12, 1);
    solo.decide(Value::View(view));
    let offer = |index| {
        Message::Snapshot(plesio_wire::sideband::Snapshot {
            op: 1,
            index: LogIndex(index),
            ..plesio_wire::sideband::Snapshot::default()
        })
    };
    solo.hear(11, offer(2));
    assert!(!solo.events.contains(&Event::Left), "that may be the view itself");
    solo.hear(99, offer(3));
    assert!(!solo.events.contains(&Event::Left), "a stranger's word");
    solo.hear(11, offer(3));
    assert!(solo.events.contains(&Event::Left));
}

#[test]
fn r19_a_new_life_removes_the_old_seat_first_and_a_late_datagram_does_not() {
    let mut solo = Solo::new(11);
    solo.machine.handle_joiner(solo.now, &joiner(10, 4_711, 0));
    solo.until(100);
    assert!(solo.queries().is_empty() && solo.proposals().is_empty(), "one datagram is no proof");
    for ms in [110, 210, 320] {
        solo.until(ms);
        solo.machine.handle_joiner(solo.now, &joiner(10, 4_711, 1));
        solo.drain();
    }
    solo.until(400);
    let sent = solo.sent.clone();
    let view = sent.iter().find_map(|(_, message)| match message {
        Message::Epoch(epoch) => Some(epoch.view),
        _ => None,
    });
    let asked = sent.iter().any(|(_, message)| matches!(message, Message::Query(query) if query.frame.0 > 0));
    assert!(asked || view.is_some_and(|view| view.index_of(NodeKey(10)).is_none()));
    // HAVE and READY of another view count nothing.
    let mut solo = Solo::new(11);
    solo.machine.handle_message(
        solo.now,
        NodeKey(10),
        7,
        &Message::Ready(Ready { n_steps: 1, ..Ready::default() }),
    );
    assert_eq!(solo.machine.counters().other_view_total, 1);
    let held = HaveEntry { member: 0, slot_seq: 0, sumsq: 1, ..HaveEntry::default() };
    let have = Message::Have(Have { frame: Frame(1), entries: Bounded::from_slice(&[held]) });
    solo.machine.handle_message(solo.now, NodeKey(10), 7, &have);
    assert_eq!(solo.machine.counters().other_view_total, 2);
    assert_eq!(solo.machine.offers.owners_of(0, SlotSeq(0)), MemberSet::EMPTY);
    solo.hear(10, have);
    assert_eq!(solo.machine.offers.owners_of(0, SlotSeq(0)), MemberSet(0b001));
    // In the same view a seat's life cannot be exchanged.
    let mut view = solo.without(99, 1);
    view.members[0].incarnation = Incarnation(4);
    assert_eq!(solo.machine.log.check(&Value::View(view), TERMS), Err(Rule(19)));
}

#[test]
fn r21_r22_an_announced_slot_is_released_by_its_seal_alone() {
    let mut solo = Solo::new(10);
    solo.cut(0, 0);
    solo.cut(0, 0);
    assert_eq!(
        solo.events.last(),
        Some(&Event::Fold { seq: SlotSeq(0), reason: FoldReason::NotAnnounced }),
        "a number is never reused"
    );
    solo.forget();
    let manifest = solo.manifest(1, &[entry(0, 0)]);
    solo.decide(Value::Manifest(manifest));
    assert!(solo.events.iter().any(|event| matches!(event, Event::Listed { seq: SlotSeq(0), .. })));
    solo.until(5_000);
    assert!(!solo.events.iter().any(|event| matches!(event, Event::Release { .. } | Event::Fold { .. })));
    let seal = solo.seal();
    solo.decide(seal);
    assert!(
        solo.events
            .contains(&Event::Release { seq: SlotSeq(0), part: crate::Part::new(5_592_406, 5_592_406) })
    );
}

#[test]
fn r23_a_slot_is_folded_only_on_proof() {
    let mut solo = Solo::new(10);
    solo.cut(0, 0);
    for version in 1..=5u32 {
        solo.forget();
        let frame = u64::from(version);
        let manifest = solo.manifest(frame, &[entry(1, version)]);
        solo.decide(Value::Manifest(manifest));
        let folded = solo.events.contains(&Event::Fold { seq: SlotSeq(0), reason: FoldReason::Stale });
        // Base 0, tau 4: in the prefix with five versions nothing can list it any more.
        assert_eq!(folded, version == 5, "version {version}");
        let seal = solo.seal();
        solo.decide(seal);
    }
    // Dropped with its contributor, and the other one that was never listed.
    let mut solo = Solo::new(12);
    solo.cut(0, 0);
    solo.cut(1, 0);
    let manifest = solo.manifest(1, &[entry(2, 0)]);
    solo.decide(Value::Manifest(manifest));
    let view = solo.without(12, 1);
    solo.decide(Value::View(view));
    assert!(solo.events.contains(&Event::Fold { seq: SlotSeq(0), reason: FoldReason::Dropped }));
    assert!(solo.events.contains(&Event::Fold { seq: SlotSeq(1), reason: FoldReason::AdmissionEnded }));
    assert!(solo.events.contains(&Event::Excluded { index: LogIndex(2) }));
}

/// A joiner's first steps began at the version it was let in with, and were cut five versions later, when nobody had
/// anything more to commit: no version came to fold them, and the mesh waited for them for ever.
#[test]
fn r23_a_slot_cut_too_late_is_folded_though_no_further_version_comes() {
    let mut solo = Solo::new(10);
    for version in 1..=5u32 {
        let manifest = solo.manifest(u64::from(version), &[entry(1, version)]);
        solo.decide(Value::Manifest(manifest));
        let seal = solo.seal();
        solo.decide(seal);
    }
    solo.forget();
    solo.cut(0, 0);
    assert_eq!(solo.events, [Event::Fold { seq: SlotSeq(0), reason: FoldReason::Stale }]);
    assert!(solo.sent.is_empty(), "and nobody hears of it");
    solo.forget();
    solo.cut(1, 1);
    assert!(solo.events.is_empty(), "four versions are not too many");
    assert_eq!(solo.machine.own_slots().map(|(slot, _)| slot.seq).collect::<Vec<_>>(), [SlotSeq(1)]);
}

#[test]
fn r24_a_snapshot_settles_own_slots_by_its_ledger() {
    // 10 misses: slot 0 final, slot 1 not listed, then its exclusion and its return.
    let mut solo = Solo::new(10);
    solo.cut(0, 0);
    solo.cut(1, 0);
    let mut other = Solo::new(11);
    let manifest = other.manifest(1, &[entry(0, 0)]);
    other.decide(Value::Manifest(manifest));
    other.shards(&[0, 1, 2]);
    other.seal_vote(12, ballot(1, 0));
    assert!(other.machine.snapshot().is_none(), "sealed but not applied: there is no G to go with it");
    other.apply(1);
    let early = other.machine.snapshot().unwrap();
    let view = other.without(10, 2);
    other.decide(Value::View(view));
    let late = other.machine.snapshot().unwrap();
    let late = SnapshotCut::decode(&late.encode()).unwrap();
    solo.forget();
    solo.machine.handle_snapshot(solo.now, &early).unwrap();
    solo.drain();
    assert_eq!(solo.events, [Event::Release { seq: SlotSeq(0), part: crate::Part::WHOLE }]);
    assert!(solo.machine.handle_snapshot(solo.now, &early).is_err(), "nothing is missing now");
    solo.machine.handle_snapshot(solo.now, &late).unwrap();
    solo.drain();
    assert!(solo.events.contains(&Event::Fold { seq: SlotSeq(1), reason: FoldReason::AdmissionEnded }));
    assert!(matches!(solo.events.last(), Some(Event::Excluded { .. })));
    // Dropped with its contributor: the mass goes back, it is not final.
    let mut solo = Solo::new(10);
    solo.cut(0, 0);
    let mut other = Solo::new(11);
    let manifest = other.manifest(1, &[entry(0, 0), entry(1, 0)]);
    other.decide(Value::Manifest(manifest));
    let view = other.without(10, 1);
    other.decide(Value::View(view));
    other.shards(&[0, 1]);
    other.apply(1);
    solo.forget();
    solo.machine.handle_snapshot(solo.now, &other.machine.snapshot().unwrap()).unwrap();
    solo.drain();
    assert!(solo.events.contains(&Event::Fold { seq: SlotSeq(0), reason: FoldReason::Dropped }));
    // An admission that the ledger has forgotten: lost, never folded.
    let mut solo = Solo::new(10);
    solo.cut(0, 0);
    let mut forgotten = late.clone();
    let mut ledger = Ledger::default();
    for seat in forgotten.view.members.iter() {
        ledger.admit(Admission::of(seat));
    }
    forgotten.ledger = ledger.encode();
    solo.forget();
    solo.machine.handle_snapshot(solo.now, &forgotten).unwrap();
    solo.drain();
    assert!(solo.events.contains(&Event::Lost { seq: SlotSeq(0) }));
    // Cuts that contradict themselves are refused.
    let mut bad = late.clone();
    bad.version = Version(99);
    assert!(SnapshotCut::decode(&bad.encode()).is_err());
    bad = late.clone();
    bad.ledger = Ledger::default().encode();
    assert!(SnapshotCut::decode(&bad.encode()).is_err());
}
