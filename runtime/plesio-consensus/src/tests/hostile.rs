//! Whatever a peer says: no panic, no wedge, no growth. Datagrams are only guarded by a checksum, so every field of
//! every message may hold anything.

use super::Rng;
use super::cluster::{Cluster, Links, MS, genesis};
use crate::{Config, Consensus, Start};
use plesio_wire::draw::{Draw, Near};
use plesio_wire::sideband::Message;
use plesio_wire::{Frame, Incarnation, Instant, LogIndex, NodeKey, Version};

/// What is near for `machine` while `frame` closes next.
fn near(machine: &Consensus, frame: u64) -> Near {
    Near {
        view: *machine.view(),
        index: machine.index(),
        frame: Frame(frame),
        version: machine.version_final(),
    }
}

#[test]
fn c9_18_no_message_panics_or_swells_a_member() {
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
            let near = near(&machine, frame);
            let mut source = || rng.next();
            let mut draw = Draw::new(&mut source);
            let number = draw.number(u64::from(near.view.number)) as u32;
            let mut message = draw.message(&near);
            if draw.chance(5) {
                let index = LogIndex(draw.number(near.index.0));
                message = Message::Decided { index, value: draw.value(&near) };
            }
            let hold = Version(draw.number(0));
            machine.handle_message(now, from, number, &message);
            match rng.below(4) {
                0 => machine.handle_timeout(now),
                1 => machine.handle_hold(now, from, hold, None),
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
                let nonsense = Draw::new(&mut || rng.next()).message(&near(machine, frame));
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
