//! A peer's arena beside one's own: the same sums from either, and none from what is not what was told of.

use super::*;
use crate::store::StorePlan;
use plesio_cpu::Cpu;
use plesio_kernels::{Coding, Scale};
use plesio_memory::Arena;
use plesio_wire::{LogIndex, NodeKey};
use std::os::unix::fs::MetadataExt;

const ELEMENTS: u64 = 10_001;

struct Two {
    store: Store<Cpu>,
    peer: Arena,
    foreign: Foreign,
}

fn two(codec: Codec) -> Two {
    let plan = StorePlan::new(ELEMENTS, 4, codec, 1);
    let peer = Arena::map(&plan.arena).expect("a few megabytes").0;
    let file = peer.file().expect("it is mapped").try_clone_to_owned().expect("a descriptor");
    let user = std::fs::metadata("/proc/self").expect("proc is mounted").uid();
    let foreign = Foreign::attach(file, peer.memory().1, user).expect("our own");
    let own = Arena::map(&plan.arena).expect("a few megabytes").0;
    assert!(foreign.resembles(&own));
    let store = Store::new(own, &plan, Cpu::detect(), Scale::DEFAULT, NodeKey(1)).expect("its own plan");
    Two { store, peer, foreign }
}

/// A slot as it is sent.
fn slot(codec: Codec, seed: u64) -> Vec<u8> {
    let wide = |index: u64| (index.wrapping_mul(seed | 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as i32;
    let plain: Vec<i32> = (0..ELEMENTS).map(|index| wide(index) - (1 << 23)).collect();
    let mut codes = vec![0; codec.encoded_bytes(ELEMENTS as usize)];
    match codec {
        Codec::Full => codes = plain.iter().flat_map(|value| value.to_le_bytes()).collect(),
        _ => Cpu::detect().encode_slot(Coding::new(codec, seed), &plain, &mut codes).expect("room for it"),
    }
    codes
}

fn bytes_of(store: &Store<Cpu>, span: Span) -> Vec<u8> {
    let mut bytes = vec![0; span.len_bytes as usize];
    store.arena().read(span, &mut bytes).expect("nobody writes");
    bytes
}

impl Two {
    fn tell(&self, span: Span) -> Alias {
        let generation = self.peer.generation(span.region).expect("nobody writes").word();
        Alias { arena: (NodeKey(2), 9), span, generation }
    }

    fn near(&self, alias: Alias) -> Near<'_> {
        Near { foreign: &self.foreign, alias }
    }
}

#[test]
fn a_sum_has_the_same_bits_wherever_its_inputs_lie() {
    for codec in Codec::ALL {
        let two = two(codec);
        let (regions, arena) = (two.store.regions, two.store.arena());
        arena.write(regions.slot(1), &slot(codec, 3)).expect("idle");
        two.peer.write(regions.slot(2), &slot(codec, 5)).expect("idle");
        for (members, me) in [(1, 0), (3, 0), (3, 2)] {
            let parts = regions.parts(members, &[]);
            let theirs = regions.slot_part(2, &parts, me);
            let window = regions.window(2, false, &parts, me, 0);
            let mut part = vec![0; theirs.len_bytes as usize];
            two.peer.read(theirs, &mut part).expect("nobody writes");
            arena.write(window, &part).expect("idle");
            let inputs = vec![regions.slot_part(1, &parts, me), window];
            let out = regions.sum(&parts, me, false);
            let sum = Sum { context: LogIndex(1), inputs, weights: vec![9_000_000, 7_777_216], out };
            two.store.sum(&sum).expect("both lie here");
            let here = bytes_of(&two.store, out);
            let elements = parts.elements(me) as u32;
            let square = two.store.square(window, elements).expect("it lies here");
            // The window is only a name from now on.
            arena.write(window, &vec![0x55; part.len()]).expect("idle");
            arena.write(out, &vec![0; here.len()]).expect("idle");
            let alias = two.tell(theirs);
            let near = two.near(alias);
            assert_eq!(two.store.sum_near(&sum, &[None, Some(near)]), Ok(vec![]));
            assert_eq!(bytes_of(&two.store, out), here, "{codec:?}, member {me} of {members}");
            assert_eq!(two.store.square_near(near, elements), Ok(square));
            let into = regions.result(&parts, me);
            let taken = Span { len_bytes: theirs.len_bytes.min(into.len_bytes), ..theirs };
            let into = Span { len_bytes: taken.len_bytes, ..into };
            two.store.take(two.near(two.tell(taken)), into).expect("it lies there");
            assert_eq!(bytes_of(&two.store, into), &part[..taken.len_bytes as usize]);
        }
    }
}

#[test]
fn what_was_written_since_or_never_was_there_counts_nowhere() {
    let two = two(Codec::Full);
    let regions = two.store.regions;
    let parts = regions.parts(2, &[]);
    let theirs = regions.slot_part(2, &parts, 0);
    let window = regions.window(2, false, &parts, 0, 1);
    let elements = theirs.len_bytes / 4;
    let sum = |weights: Vec<u32>| Sum {
        context: LogIndex(1),
        inputs: vec![window; weights.len()],
        weights,
        out: regions.sum(&parts, 0, false),
    };
    let good = two.tell(theirs);
    let refused = |alias: Alias| {
        let near = two.near(alias);
        assert_eq!(two.store.square_near(near, elements), Err(StoreError::Torn), "{alias:?}");
        let summed = two.store.sum_near(&sum(vec![1, 1]), &[Some(two.near(two.tell(theirs))), Some(near)]);
        assert_eq!(summed, Ok(vec![alias]));
        let into = Span { len_bytes: alias.span.len_bytes.min(64), ..regions.result(&parts, 1) };
        assert_eq!(two.store.take(near, into), Err(StoreError::Torn));
    };
    let part =
        |region, offset_bytes, len_bytes| Alias { span: Span { region, offset_bytes, len_bytes }, ..good };
    refused(part(theirs.region, theirs.len_bytes * 2, theirs.len_bytes));
    refused(part(theirs.region, u32::MAX - 3, theirs.len_bytes));
    refused(part(u16::MAX, 0, theirs.len_bytes));
    refused(Alias { generation: good.generation + 1, ..good });
    refused(Alias { generation: good.generation + 2, ..good });
    // Somebody who may write holds it.
    let lease = two.peer.lease(theirs.region).expect("idle");
    let torn = two.store.sum_near(&sum(vec![1]), &[Some(two.near(good))]);
    assert_eq!(torn, Ok(vec![good]));
    drop(lease);
    refused(good);
    // A shorter place than its window is none, though it is there.
    let short = two.tell(Span { len_bytes: theirs.len_bytes - 4, ..theirs });
    assert_eq!(two.store.sum_near(&sum(vec![1]), &[Some(two.near(short))]), Ok(vec![short]));
    // A place here that is in use is this node's own fault, and nothing torn.
    let held = two.store.arena().lease(regions.results).expect("idle");
    let taken =
        two.store.take(two.near(two.tell(theirs)), Span { len_bytes: theirs.len_bytes, ..held.span() });
    assert_eq!(taken, Err(StoreError::Access(AccessError::Busy)));
}

/// A peer that writes all the time while it is read: a sum is of one state of its slot, or it is none.
#[test]
fn a_scribbler_spoils_no_sum() {
    let two = two(Codec::Full);
    let regions = two.store.regions;
    let theirs = regions.slot(2);
    let parts = regions.parts(1, &[]);
    let sum = Sum {
        context: LogIndex(1),
        inputs: vec![regions.window(2, false, &parts, 0, 0)],
        weights: vec![1],
        out: regions.sum(&parts, 0, false),
    };
    let (peer, done) = (two.peer.clone(), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0_u32.. {
                let value = round.to_le_bytes();
                peer.write(theirs, &value.repeat(theirs.len_bytes as usize / 4)).expect("alone");
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                if round % 4 == 0 {
                    std::thread::sleep(std::time::Duration::from_micros(200));
                }
            }
        });
        let (mut whole, mut torn) = (0, 0);
        while whole < 100 || torn < 10 {
            let Ok(generation) = two.foreign.generation(theirs.region) else {
                torn += 1;
                continue;
            };
            let alias = Alias { arena: (NodeKey(2), 9), span: theirs, generation: generation.word() };
            if !two.store.sum_near(&sum, &[Some(two.near(alias))]).expect("our own place").is_empty() {
                torn += 1;
                continue;
            }
            whole += 1;
            let summed = bytes_of(&two.store, sum.out);
            assert!(summed.chunks_exact(8).all(|element| element == &summed[..8]), "torn and not seen");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
