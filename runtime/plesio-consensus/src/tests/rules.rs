//! One member, fed by hand: each rule of the agreement by its name. R0 to R14 here, views and slots beside.

mod joiners;
mod period;
pub(in crate::tests) mod solo;
mod transfers;
mod views;

use super::cluster::{MS, genesis};
use crate::config::Terms;
use crate::log::{LogState, Rule};
use crate::{Config, Consensus, Event, Start, To};
use plesio_wire::sideband::{Commit, Have, HaveEntry, Last, Message, Propose, Query, Ready};
use plesio_wire::value::{Entry, Manifest, Value, View};
use plesio_wire::{
    Bounded, Digest, Frame, Incarnation, Instant, LogIndex, MemberSet, NodeKey, SlotSeq, Version,
};
use solo::{Solo, ballot, entry};
use std::vec::Vec;

/// What members go by who were told nothing.
const TERMS: Terms = Terms { tau: 4, lambda: crate::Lambda::ONE };

#[test]
fn r0_the_owner_proposes_at_the_close_what_all_owners_have() {
    let mut solo = Solo::new(11);
    solo.offer(0, 0);
    solo.until(249);
    assert!(solo.proposals().is_empty(), "not before the close");
    solo.until(250);
    let proposals = solo.proposals();
    let [(at, Value::Manifest(manifest))] = &proposals[..] else { panic!("{proposals:?}") };
    assert_eq!(*at, ballot(1, 0));
    assert_eq!((manifest.origin, manifest.close), (Frame(1), 250 * MS as i64));
    assert_eq!(manifest.entries[0].margin, 16_384, "a whole frame early");
    // A slot that one live owner lacks is not listed; a suspect's word is not waited for.
    let mut solo = Solo::new(11);
    solo.hear(10, Message::Ready(Ready { n_steps: 1, ..Ready::default() }));
    solo.machine.handle_held(solo.now, NodeKey(10), SlotSeq(0), 1);
    solo.until(250);
    assert!(solo.proposals().is_empty());
    // Nor is that of one who says that it hears nobody: it has no slot but its own, ever.
    for (suspects, detached) in [(&[NodeKey(12)][..], &[][..]), (&[], &[NodeKey(12)])] {
        let mut solo = Solo::new(11);
        let have = HaveEntry { slot_seq: 0, ..HaveEntry::default() };
        solo.hear(10, Message::Ready(Ready { n_steps: 1, ..Ready::default() }));
        solo.hear(10, Message::Have(Have { frame: Frame(1), entries: Bounded::from_slice(&[have]) }));
        solo.machine.handle_held(solo.now, NodeKey(10), SlotSeq(0), 1);
        solo.machine.handle_suspects(solo.now, suspects, &[]);
        solo.machine.handle_states(solo.now, detached, detached);
        solo.until(250);
        assert_eq!(solo.proposals().len(), 1);
    }
}

#[test]
fn r0_an_owner_that_is_not_heard_here_is_told_what_is_held_all_the_same() {
    let mut solo = Solo::new(12);
    solo.machine.handle_suspects(solo.now, &[NodeKey(11)], &[]);
    solo.offer(0, 0);
    solo.until(249);
    assert!(solo.has_told(11), "others may hear it, and it proposes");
    assert!(solo.has_told(10), "and it may be dead");
}

#[test]
fn r0_who_has_no_mesh_clock_is_not_waited_for_at_a_close() {
    for (untimed, at_ms) in [(&[][..], 250 + 80), (&[NodeKey(11)][..], 250), (&[NodeKey(10)][..], 250 + 80)] {
        let mut solo = Solo::new(12);
        solo.machine.handle_states(solo.now, untimed, &[]);
        solo.offer(0, 0);
        solo.until(249);
        assert_eq!(solo.has_told(11), untimed != [NodeKey(11)], "the owner of (1, 0)");
        assert_eq!(solo.has_told(10), untimed == [NodeKey(11)], "that of (1, 2), where it is the second");
        solo.until(at_ms - 1);
        assert!(solo.queries().is_empty(), "{untimed:?}");
        solo.until(at_ms + 1);
        assert_eq!(solo.queries(), [ballot(1, 1)], "{untimed:?}");
    }
}

#[test]
fn r0_the_next_owner_takes_over_after_silence_and_asks_first() {
    let mut solo = Solo::new(12);
    solo.offer(0, 0);
    solo.until(250 + 79);
    assert!(solo.queries().is_empty(), "T_prop is 80 ms here");
    solo.until(250 + 81);
    assert_eq!(solo.queries(), [ballot(1, 1)]);
    let index = LogIndex(1);
    let version = Version(0);
    solo.hear(10, Message::Last(Last { index, ballot: ballot(1, 1), version, ..Last::default() }));
    solo.until(250 + 140);
    assert_eq!(solo.proposals()[0].0, ballot(1, 1));
}

#[test]
fn r0_an_owner_tells_what_it_has_at_once_and_twice_before_the_close() {
    let mut solo = Solo::new(10);
    solo.hear(11, Message::Ready(Ready { n_steps: 1, ..Ready::default() }));
    solo.until(5);
    solo.machine.handle_held(solo.now, NodeKey(11), SlotSeq(0), 1);
    solo.forget();
    let mut told = Vec::new();
    for ms in 5..250 {
        solo.until(ms);
        let to = solo.took(|to, message| matches!(message, Message::Have(_)).then_some(*to));
        assert!(to.is_empty() || to == [To::One(NodeKey(11)), To::One(NodeKey(12))], "{to:?}");
        told.extend(to.first().map(|_| ms));
    }
    // The word itself, an eighth of a frame before the close, 10 ms before it: one that is lost costs no frame, wherever a
    // datagram takes less than an eighth of one.
    assert_eq!(told, [6, 219, 240]);
}

#[test]
fn r0_an_owner_without_a_clock_tells_everybody_what_it_has_once_a_frame() {
    let mut solo = Solo::timed(10, Start::Genesis(genesis(3)), false);
    solo.offer(1, 0);
    solo.forget();
    for frame in 0..3 {
        solo.until(frame * 250 + 10);
        let told = solo.took(|to, message| match (to, message) {
            (To::One(key), Message::Have(have)) if have.entries.iter().any(|entry| entry.member == 1) => {
                Some(*key)
            }
            _ => None,
        });
        assert_eq!(told, [NodeKey(11), NodeKey(12)], "frame {frame}");
    }
}

#[test]
fn r1_a_member_takes_part_in_its_index_only() {
    let mut solo = Solo::new(10);
    let manifest = solo.manifest(1, &[entry(1, 0)]);
    let ahead = Propose { index: LogIndex(2), ballot: ballot(2, 0), manifest };
    solo.hear(12, Message::Propose(ahead));
    assert!(solo.accepts().is_empty());
    solo.propose(11, ballot(1, 0), manifest);
    assert_eq!(solo.accepts().len(), 1);
    solo.decide(Value::Manifest(manifest));
    solo.forget();
    // A lower index is answered with what was decided, and promises nothing.
    solo.hear(12, Message::Query(Query { index: LogIndex(1), frame: Frame(9), ..Query::default() }));
    assert!(matches!(
        solo.sent[..],
        [(To::One(NodeKey(12)), Message::Decided { index: LogIndex(1), value: Value::Manifest(_) })]
    ));
    // A stranger has no vote, and gets no promise.
    solo.forget();
    solo.hear(77, Message::Query(Query { index: LogIndex(2), frame: Frame(3), ..Query::default() }));
    assert!(solo.sent.is_empty());
}

#[test]
fn r1_r19_a_new_life_of_a_member_does_not_vote() {
    let view = genesis(3);
    let mut config = Config::new(NodeKey(10), Incarnation(555));
    config.seed = 1;
    let mut machine = Consensus::new(config, Start::Genesis(view), Instant(0)).unwrap();
    assert!(!machine.is_member());
    let manifest = Manifest {
        origin: Frame(1),
        period_next_us: 250_000,
        view: view.digest(),
        entries: Bounded::from_slice(&[entry(1, 0)]),
        ..Manifest::default()
    };
    let propose = Propose { index: LogIndex(1), ballot: ballot(1, 0), manifest };
    machine.handle_message(Instant(1), NodeKey(11), 0, &Message::Propose(propose));
    let query = Query { index: LogIndex(1), frame: Frame(1), term: 1, ..Query::default() };
    machine.handle_message(Instant(1), NodeKey(12), 0, &Message::Query(query));
    while let Some((_, message)) = machine.poll_transmit() {
        assert!(!matches!(message, Message::Accept(_) | Message::Last(_)), "{message:?}");
    }
}

#[test]
fn r2_r5_one_value_per_ballot_and_the_highest_accepted_goes_on() {
    let mut solo = Solo::new(12);
    solo.offer(0, 0);
    solo.until(250 + 81);
    assert_eq!(solo.queries(), [ballot(1, 1)]);
    let index = LogIndex(1);
    let older = solo.manifest(1, &[entry(1, 7)]);
    let last = Last {
        index,
        ballot: ballot(1, 1),
        accepted: ballot(1, 0),
        value: Some(Value::Manifest(older)),
        ..Last::default()
    };
    // One LAST and its own are a quorum of three; what was accepted must be carried, whatever it would rather list.
    solo.hear(10, Message::Last(last));
    let proposals = solo.proposals();
    assert_eq!(proposals[0], (ballot(1, 1), Value::Manifest(older)), "origin frame and entries are kept");
    let fresh = solo.manifest(1, &[entry(0, 0)]);
    solo.hear(11, Message::Last(Last { value: Some(Value::Manifest(fresh)), ..last }));
    for (at, value) in solo.proposals() {
        assert_eq!((at, value), (ballot(1, 1), Value::Manifest(older)), "never a second value");
    }
}

#[test]
fn r3_the_first_ballot_follows_the_value_not_the_deciding_ballot() {
    let mut solo = Solo::new(10);
    let manifest = solo.manifest(1, &[entry(1, 0)]);
    // Decided in a ballot of frame 3, first proposed in frame 1: SEAL's first ballot is (1, 0).
    let index = solo.machine.index();
    solo.propose(12, ballot(1, 1), manifest);
    solo.hear(
        12,
        Message::Commit(Commit { index, digest: Value::Manifest(manifest).digest(), ..Commit::default() }),
    );
    assert_eq!(solo.machine.log.ballot_first(), ballot(1, 0));
    solo.shards(&[0, 1, 2]);
    assert_eq!(solo.seals(), [ballot(1, 0)], "no PROPOSE was needed");
    solo.seal_vote(11, ballot(1, 0));
    assert_eq!(solo.machine.log.ballot_first(), ballot(2, 0));
    // Above the first ballot nobody proposes without QUERY: (4, 0) belongs to member 1.
    let mut solo = Solo::new(11);
    solo.until(999);
    solo.offer(0, 0);
    solo.forget();
    solo.until(1_000);
    assert_eq!(solo.queries(), [ballot(4, 0)]);
}

#[test]
fn r4_a_promise_is_kept() {
    let mut solo = Solo::new(10);
    let index = LogIndex(1);
    solo.hear(12, Message::Query(Query { index, frame: Frame(1), term: 1, ..Query::default() }));
    let lasts = solo.took(|to, message| match message {
        Message::Last(last) => Some((*to, last.ballot, last.value)),
        _ => None,
    });
    assert_eq!(lasts, [(To::One(NodeKey(12)), ballot(1, 1), None)]);
    let manifest = solo.manifest(1, &[entry(1, 0)]);
    solo.propose(11, ballot(1, 0), manifest);
    assert!(solo.accepts().is_empty(), "below its promise it accepts nothing");
    solo.propose(12, ballot(1, 1), manifest);
    assert_eq!(solo.accepts().len(), 1);
    // A ballot of somebody else's, or out of reach, raises nothing.
    solo.hear(11, Message::Query(Query { index, frame: Frame(2), term: 0, ..Query::default() }));
    solo.hear(12, Message::Query(Query { index, frame: Frame(3_000_002), term: 0, ..Query::default() }));
    assert_eq!(solo.machine.round.promised, ballot(1, 1));
}

#[test]
fn r6_no_other_value_in_the_same_ballot() {
    let mut solo = Solo::new(10);
    let one = solo.manifest(1, &[entry(1, 0)]);
    let other = solo.manifest(1, &[entry(2, 0)]);
    solo.propose(11, ballot(1, 0), one);
    solo.propose(11, ballot(1, 0), other);
    solo.propose(11, ballot(1, 0), one);
    let digest = Value::Manifest(one).digest();
    assert_eq!(solo.accepts(), [(ballot(1, 0), digest), (ballot(1, 0), digest)], "said again, not changed");
    // Only the ballot's owner may fill it.
    solo.propose(11, ballot(1, 1), one);
    assert!(solo.accepts().is_empty());
}

#[test]
fn r7_commit_needs_the_value_of_its_digest() {
    let mut solo = Solo::new(10);
    let manifest = solo.manifest(1, &[entry(1, 0)]);
    let digest = Value::Manifest(manifest).digest();
    let commit = Message::Commit(Commit { index: LogIndex(1), digest, ..Commit::default() });
    solo.hear(11, commit);
    assert_eq!(solo.machine.index(), LogIndex(1));
    let polls = solo.took(|to, message| match message {
        Message::Query(query) => Some((*to, query.index, query.frame)),
        _ => None,
    });
    assert_eq!(polls.last(), Some(&(To::One(NodeKey(11)), LogIndex(1), Frame(0))));
    solo.propose(11, ballot(1, 0), manifest);
    solo.hear(11, commit);
    assert_eq!(solo.machine.index(), LogIndex(2));
    assert!(solo.machine.round.accepted.is_none(), "learning clears promise and accepted value");
}

#[test]
fn r9_c9_12_manifests_that_break_a_rule_are_refused() {
    let solo = Solo::new(10);
    let log = &solo.machine.log;
    let good = solo.manifest(1, &[entry(0, 3), entry(2, 9)]);
    let check = |manifest: Manifest| log.check(&Value::Manifest(manifest), TERMS);
    assert_eq!(check(good), Ok(()));
    let broken = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = good;
        change(&mut manifest);
        check(manifest).is_err()
    };
    assert!(broken(&|m| m.origin = Frame(0)));
    assert!(broken(&|m| m.origin = Frame(u64::MAX)));
    assert!(broken(&|m| m.view = Digest([1; 16])));
    assert!(broken(&|m| m.period_next_us = 1));
    assert!(broken(&|m| m.entries = Bounded::default()));
    assert!(broken(&|m| m.entries.reverse()));
    assert!(broken(&|m| m.entries[1] = m.entries[0]));
    assert!(broken(&|m| m.entries[1].member = 3));
    assert!(broken(&|m| m.entries[1].member = u16::MAX));
    assert!(broken(&|m| m.entries[0].weight -= 1));
    assert!(broken(&|m| m.entries[0].n_steps = 0));
    assert!(broken(&|m| m.entries[0].n_steps = (1 << 20) + 1));
    assert!(broken(&|m| m.entries[0].eflags = 1));
    assert!(broken(&|m| m.entries[0].staleness = 1), "staler than there are versions");
    let mut log: LogState = log.clone();
    log.learn(&Value::Manifest(good));
    assert_eq!(log.check(&Value::Manifest(good), TERMS), Err(Rule(14)), "a version is open");
    log.learn(&Value::Seal(Frame(1)));
    let again = Manifest { origin: Frame(2), ..good };
    assert_eq!(log.check(&Value::Manifest(again), TERMS), Err(Rule(9)), "listed already");
}

#[test]
fn r9_an_entry_must_match_its_ready() {
    let mut solo = Solo::new(10);
    solo.hear(11, Message::Ready(Ready { slot_seq: 0, n_steps: 2, ..Ready::default() }));
    let manifest = solo.manifest(1, &[entry(1, 0)]);
    solo.propose(11, ballot(1, 0), manifest);
    assert!(solo.accepts().is_empty());
    let manifest = solo.manifest(1, &[Entry { n_steps: 2, ..entry(1, 0) }]);
    solo.propose(11, ballot(1, 0), manifest);
    assert_eq!(solo.accepts().len(), 1);
}

#[test]
fn r10_r11_r12_seal_is_accepted_only_while_complete_and_in_any_ballot() {
    let mut solo = Solo::new(10);
    let manifest = solo.manifest(1, &[entry(1, 0)]);
    solo.decide(Value::Manifest(manifest));
    solo.machine.handle_shard(solo.now, LogIndex(0), 0);
    solo.machine.handle_shard(solo.now, LogIndex(2), 2);
    solo.shards(&[0, 1, 40]);
    assert_eq!(solo.machine.open().unwrap().shards, MemberSet(0b011), "only shards of this context");
    assert!(solo.seals().is_empty());
    // Proposed in a higher ballot meanwhile: (2, 0) is member 2's.
    solo.hear(12, Message::Query(Query { index: LogIndex(2), frame: Frame(2), ..Query::default() }));
    solo.seal_vote(12, ballot(2, 0));
    assert!(solo.seals().is_empty(), "not complete, no SEAL");
    assert_eq!(solo.machine.index(), LogIndex(2));
    solo.shards(&[2]);
    assert_eq!(solo.seals(), [ballot(2, 0)], "the first ballot is below its promise");
    assert_eq!(solo.machine.version_final(), Version(1));
    assert!(solo.events.contains(&Event::Sealed { index: LogIndex(2), version: Version(1), complete: true }));
}

#[test]
fn r13_an_incomplete_member_waits_for_late_shards_then_fetches() {
    for late in [true, false] {
        let mut solo = Solo::new(10);
        let manifest = solo.manifest(1, &[entry(1, 0)]);
        solo.decide(Value::Manifest(manifest));
        solo.shards(&[0, 1]);
        solo.forget();
        solo.seal_vote(11, ballot(1, 0));
        solo.seal_vote(12, ballot(1, 0));
        let sealed = |complete| Event::Sealed { index: LogIndex(2), version: Version(1), complete };
        assert!(solo.events.contains(&sealed(false)));
        assert_eq!(solo.machine.version_held(), Version(0));
        if late {
            solo.machine.handle_shard(solo.now, LogIndex(1), 2);
            solo.drain();
            assert!(solo.events.contains(&sealed(true)));
            solo.apply(1);
            assert_eq!(solo.machine.version_held(), Version(1));
        }
        solo.until(1_000);
        let fetches =
            solo.events.iter().any(|event| matches!(event, Event::Fetch { version: Version(1), .. }));
        assert_eq!(fetches, !late);
    }
}

#[test]
fn r13_a_version_that_cannot_be_applied_after_all_is_fetched() {
    let mut solo = Solo::new(10);
    let manifest = solo.manifest(1, &[entry(1, 0)]);
    solo.decide(Value::Manifest(manifest));
    solo.shards(&[0, 1, 2]);
    solo.seal_vote(11, ballot(1, 0));
    assert!(solo.events.contains(&Event::Sealed { index: LogIndex(2), version: Version(1), complete: true }));
    solo.machine.handle_unapplied(solo.now, Version(7));
    solo.until(1_000);
    let fetch = |event: &Event| matches!(event, Event::Fetch { version: Version(1), .. });
    assert!(!solo.events.iter().any(fetch), "it is being applied");
    solo.machine.handle_unapplied(solo.now, Version(1));
    solo.until(1_100);
    assert!(solo.events.iter().any(fetch), "nobody waits for what is not there");
}

#[test]
fn r14_frames_that_pass_while_a_version_is_open_are_void() {
    let mut solo = Solo::new(11);
    let manifest = solo.manifest(1, &[entry(1, 0)]);
    solo.decide(Value::Manifest(manifest));
    solo.until(999);
    solo.offer(0, 0);
    solo.until(1_010);
    assert!(solo.proposals().is_empty(), "(4, 0) is ours, but a version is open");
    let other = Manifest { origin: Frame(2), ..solo.manifest(2, &[entry(2, 0)]) };
    solo.propose(12, ballot(2, 0), other);
    assert!(solo.accepts().is_empty());
    assert!(solo.events.contains(&Event::Void { frame: Frame(2) }));
}

#[test]
fn a_member_of_another_first_view_is_named_once() {
    let mut solo = Solo::new(10);
    let mut other = *solo.machine.view();
    other.period_us *= 2;
    for frame in [1, 2] {
        let manifest = Manifest { view: other.digest(), ..solo.manifest(frame, &[entry(1, 0)]) };
        solo.propose(10 + frame, ballot(frame, 0), manifest);
    }
    let told = |event: &&Event| matches!(event, Event::Differs { .. });
    assert_eq!(solo.events.iter().filter(told).count(), 1);
    assert!(solo.accepts().is_empty());
}

#[test]
fn a8_a_stale_entry_weighs_what_lambda_leaves_and_nothing_else() {
    let mut log = LogState::genesis(genesis(3));
    log.version_final = Version(2);
    let half = Terms { lambda: crate::Lambda::new(1 << 23).unwrap(), ..TERMS };
    let stale = |weight| Entry { staleness: 2, weight, ..entry(1, 0) };
    for (terms, weight) in [(TERMS, 5_592_405), (half, 1_398_101)] {
        for told in [5_592_405, 1_398_101, 1_398_102, 0] {
            let entries = Bounded::from_slice(&[entry(0, 0), stale(told)]);
            let manifest = Manifest {
                origin: Frame(1),
                period_next_us: 250_000,
                view: log.view_digest,
                entries,
                ..Manifest::default()
            };
            let verdict = log.check(&Value::Manifest(manifest), terms);
            assert_eq!(verdict, if told == weight { Ok(()) } else { Err(Rule(9)) }, "{told}");
        }
    }
}

#[test]
fn a_wrong_configuration_is_refused_with_name_value_and_range() {
    let config = Config { tau: 1, ..Config::new(NodeKey(1), Incarnation(1)) };
    let error = Consensus::new(config, Start::Observer, Instant(0)).unwrap_err();
    assert!(std::format!("{error}").contains("tau = 1 is outside 2..=64"));
    let config = Config { kappa: 1, ..Config::new(NodeKey(1), Incarnation(1)) };
    let error = Consensus::new(config, Start::Observer, Instant(0)).unwrap_err();
    assert!(std::format!("{error}").contains("kappa = 1 is outside 2..="));
    let config = Config::new(NodeKey(1), Incarnation(1));
    assert!(Consensus::new(config.clone(), Start::Genesis(View::default()), Instant(0)).is_err());
    let mut view = genesis(3);
    view.members.reverse();
    assert!(Consensus::new(config, Start::Genesis(view), Instant(0)).is_err());
}
