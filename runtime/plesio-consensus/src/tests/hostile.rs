//! Whatever a peer says: no panic, no wedge, no growth. Datagrams are only guarded by a checksum, so every field of
//! every message may hold anything.

use super::Rng;
use super::cluster::{Cluster, Links, MS, genesis};
use crate::{Config, Consensus, Start};
use plesio_wire::sideband::{
    Accept, Commit, Epoch, Have, HaveEntry, Last, Leave, Message, Propose, Query, Ready, Shard, Snapshot,
};
use plesio_wire::value::{Entry, Manifest, Seat, Value, View};
use plesio_wire::{
    Ballot, Bounded, Digest, Frame, Incarnation, Instant, LogIndex, MemberSet, NodeKey, Version,
};
use std::vec::Vec;

/// Mostly near something real, sometimes absurd.
fn number(rng: &mut Rng, near: u64) -> u64 {
    match rng.below(8) {
        0 => rng.next(),
        1 => u64::MAX - rng.below(3),
        2 => 0,
        3 => 1 << rng.below(64),
        _ => near.wrapping_add(rng.below(5)).wrapping_sub(2),
    }
}

fn ballot(rng: &mut Rng, frame: u64) -> Ballot {
    Ballot { frame: Frame(number(rng, frame)), term: number(rng, 1) as u32 }
}

fn manifest(rng: &mut Rng, machine: &Consensus, frame: u64) -> Manifest {
    let mut entries = Bounded::default();
    for member in 0..rng.below(6) {
        let entry = Entry {
            member: number(rng, member) as u16,
            staleness: number(rng, 0) as u16,
            slot_seq: number(rng, 1) as u32,
            n_steps: number(rng, 1) as u32,
            weight: if rng.chance(60) { 1 << 22 } else { rng.next() as u32 },
            margin: rng.next() as i16,
            eflags: number(rng, 0) as u16,
        };
        entries.push(entry).unwrap();
    }
    let period_next_us = if rng.chance(70) { 250_000 } else { rng.next() as u32 };
    let view = if rng.chance(70) { machine.view().digest() } else { Digest([7; 16]) };
    Manifest { origin: Frame(number(rng, frame)), close: rng.next() as i64, period_next_us, view, entries }
}

fn view(rng: &mut Rng, machine: &Consensus, frame: u64) -> View {
    let mut view = *machine.view();
    view.previous = if rng.chance(70) { view.digest() } else { Digest([9; 16]) };
    view.number = number(rng, u64::from(view.number) + 1) as u32;
    view.origin = Frame(number(rng, frame));
    view.effective = Frame(number(rng, view.origin.0));
    if rng.chance(20) {
        view.period_us = rng.next() as u32;
    }
    let mut seats: Vec<Seat> = view.members.to_vec();
    if rng.chance(50) {
        seats.remove(rng.below(seats.len() as u64) as usize);
    }
    if rng.chance(50) {
        let admitted = LogIndex(number(rng, machine.index().0));
        seats.push(Seat { key: NodeKey(number(rng, 14)), incarnation: Incarnation(rng.next()), admitted });
    }
    view.members = Bounded::from_slice(&seats);
    view
}

fn value(rng: &mut Rng, machine: &Consensus, frame: u64) -> Value {
    match rng.below(3) {
        0 => Value::Manifest(manifest(rng, machine, frame)),
        1 => Value::Seal(Frame(number(rng, frame))),
        _ => Value::View(view(rng, machine, frame)),
    }
}

/// Anything but a value that is legal as it stands, under an index at which it would be believed.
fn message(rng: &mut Rng, machine: &Consensus, frame: u64) -> Message {
    let index = LogIndex(number(rng, machine.index().0));
    let at = ballot(rng, frame);
    let digest = Digest([rng.next() as u8; 16]);
    let accept = Accept { frame: at.frame, index, term: at.term, digest, ..Accept::default() };
    match rng.below(12) {
        0 => Message::Query(Query { index, frame: at.frame, term: at.term, ..Query::default() }),
        1 => Message::Last(Last {
            index,
            ballot: at,
            accepted: ballot(rng, frame),
            version: Version(number(rng, 0)),
            context: LogIndex(number(rng, machine.index().0)),
            shards: MemberSet(rng.next() as u32),
            value: rng.chance(50).then(|| value(rng, machine, frame)),
        }),
        2 => Message::Propose(Propose { index, ballot: at, manifest: manifest(rng, machine, frame) }),
        3 => Message::Epoch(Epoch { index, ballot: at, view: view(rng, machine, frame) }),
        4 => Message::Accept(accept),
        5 => Message::Seal(accept),
        6 => Message::Commit(Commit { frame: at.frame, index, term: at.term, digest, ..Commit::default() }),
        7 => Message::Ready(Ready {
            slot_seq: number(rng, 1),
            target: Frame(number(rng, frame)),
            base_version: Version(number(rng, 0)),
            n_steps: number(rng, 1) as u32,
            ..Ready::default()
        }),
        8 => {
            let entry = HaveEntry {
                member: number(rng, 1) as u16,
                slot_seq: number(rng, 1) as u32,
                sumsq: rng.next(),
                ..HaveEntry::default()
            };
            Message::Have(Have { frame: at.frame, entries: Bounded::from_slice(&[entry; 64]) })
        }
        9 => Message::Leave(Leave { incarnation: Incarnation(rng.next()) }),
        10 => Message::Shard(Shard { index, version: Version(number(rng, 0)), digest }),
        _ => Message::Snapshot(Snapshot { op: rng.below(4) as u8, index, ..Snapshot::default() }),
    }
}

#[test]
fn no_message_panics_or_swells_a_member() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let config = Config::new(NodeKey(11), Incarnation(101));
        let mut machine = Consensus::new(config, Start::Genesis(genesis(4)), Instant(0)).unwrap();
        let mut now = Instant(0);
        for _ in 0..5_000 {
            now = now.after(rng.below(20 * MS));
            let frame = now.0 / (250 * MS) + 1;
            if rng.chance(10) {
                machine.handle_clock(
                    now,
                    plesio_wire::MeshTime(now.0 as i64),
                    rng.next() as i32,
                    rng.chance(95),
                );
            }
            let from = NodeKey(8 + rng.below(8));
            let number = number(&mut rng, u64::from(machine.view().number)) as u32;
            let mut message = message(&mut rng, &machine, frame);
            if rng.chance(5) {
                let index = LogIndex(super::hostile::number(&mut rng, machine.index().0));
                message = Message::Decided { index, value: value(&mut rng, &machine, frame) };
            }
            machine.handle_message(now, from, number, &message);
            match rng.below(4) {
                0 => machine.handle_timeout(now),
                1 => machine.handle_hold(now, from, Version(super::hostile::number(&mut rng, 0)), None),
                2 => machine.handle_shard(now, LogIndex(machine.index().0 - 1), rng.below(40) as u16),
                _ => machine.handle_suspects(now, &[], if rng.chance(50) { &[] } else { &[NodeKey(12)] }),
            }
            while machine.poll_event().is_some() {}
            machine.handle_timeout(now);
            while machine.poll_event().is_some() {}
            let mut sent = 0;
            while machine.poll_transmit().is_some() {
                sent += 1;
            }
            assert!(sent < 300, "seed {seed}: one message set off {sent}");
            assert!(
                machine.poll_timeout().is_none_or(|at| at > now),
                "seed {seed}: asks to be woken in the past"
            );
        }
    }
}

#[test]
fn a_liar_outside_the_log_cannot_wedge_the_mesh() {
    // One node key speaks nonsense to all, in ballots and indices near the real ones, beside its honest self. It can
    // slow things down; it must not stop them for good. Values that would be legal are left out: nobody lies there.
    for seed in 0..6 {
        let mut cluster = Cluster::new(4, seed, Links { loss: 0, duplicate: 0, delay_ms: 2, data_ms: 20 });
        let mut rng = Rng::new(seed + 77);
        while cluster.now < 5_000 * MS {
            cluster.run_until(cluster.now + 3 * MS);
            let now = Instant(cluster.now);
            let frame = cluster.now / (250 * MS) + 1;
            for (key, process) in &mut cluster.live {
                let machine = &mut process.engine.machine;
                let nonsense = message(&mut rng, machine, frame);
                let harmless = matches!(
                    nonsense,
                    Message::Query(_)
                        | Message::Accept(_)
                        | Message::Seal(_)
                        | Message::Have(_)
                        | Message::Commit(_)
                );
                if *key != NodeKey(13) && harmless {
                    let number = machine.view().number;
                    machine.handle_message(now, NodeKey(13), number, &nonsense);
                }
            }
        }
        cluster.await_health(seed, 4_000 * MS);
        cluster.check_mass();
    }
}
