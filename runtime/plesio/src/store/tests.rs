//! The state alone: applied whole, with a momentum where there is one, and handed on as it is.

use super::*;
use plesio_consensus::{Config, Consensus, Start};
use plesio_kernels::{Nesterov, Reference};
use plesio_wire::value::{Seat, View};
use plesio_wire::{Bounded, Incarnation, Instant, Version};

const ELEMENTS: u64 = 7;

fn store(outer: Outer) -> Store<Reference> {
    let plan = StorePlan::with(ELEMENTS, 4, Codec::Full, 1, outer);
    let arena = Arena::heap(&plan.arena).expect("a few kilobytes");
    Store::new(arena, &plan, Reference, Scale::DEFAULT, NodeKey(1)).expect("its own plan")
}

/// Results of two owners, the first of three elements.
fn results(store: &Store<Reference>, sum: [i64; ELEMENTS as usize]) -> [Span; 2] {
    let region = store.regions.results;
    let bytes: Vec<u8> = sum.iter().flat_map(|value| value.to_le_bytes()).collect();
    let whole = Span { region, offset_bytes: 0, len_bytes: bytes.len() as u32 };
    store.arena().write(whole, &bytes).expect("nobody reads");
    [Span { len_bytes: 24, ..whole }, Span { offset_bytes: 24, len_bytes: 32, ..whole }]
}

fn apply(store: &mut Store<Reference>, sum: [i64; ELEMENTS as usize]) -> Result<Digest, StoreError> {
    let results = results(store, sum);
    store.apply(&results)
}

#[test]
fn a_version_that_overflows_is_applied_whole() {
    let mut store = store(Outer::Sum);
    apply(&mut store, [i64::MAX, 0, 0, 0, i64::MIN, 0, 0]).expect("in range");
    let error = apply(&mut store, [1, 1, 1, 1, -1, 1, 1]).unwrap_err();
    assert_eq!(error, StoreError::Kernel(KernelError::Overflow { element: 0 }));
    assert_eq!(store.master(), [i64::MAX, 1, 1, 1, i64::MIN, 1, 1], "the other owner's range too");
}

#[test]
fn t18_a_state_is_handed_on_with_its_momentum_and_refused_where_a_bit_differs() {
    let outer = Outer::Nesterov(Nesterov::TUNED);
    let mut first = store(outer);
    assert_eq!(first.momentum(), [0; ELEMENTS as usize]);
    let before = first.digest();
    apply(&mut first, [1 << 30, -(1 << 30), 5, 0, 7, 1, -1]).expect("in range");
    let digest = apply(&mut first, [0; ELEMENTS as usize]).expect("in range");
    assert!(digest != before && first.momentum()[0] > 0);
    // The cut of a member that holds this state.
    let seat = Seat { key: NodeKey(1), incarnation: Incarnation(1), ..Seat::default() };
    let members = Bounded::from_slice(&[seat]);
    let view = View { period_us: 250_000, elements: ELEMENTS, share_factor: 1, members, ..View::default() };
    let config = Config::new(NodeKey(1), Incarnation(1));
    let mut member = Consensus::new(config, Start::Genesis(view), Instant(0)).expect("sound");
    member.handle_applied(Instant(0), Version(0), digest);
    let cut = member.snapshot().expect("it holds a state");
    let len_bytes = first.capture(&cut.encode()).expect("nobody reads");
    let mut bytes = vec![0; len_bytes as usize];
    let from = Span { region: first.regions.snapshot_out, offset_bytes: 0, len_bytes };
    first.arena().read(from, &mut bytes).expect("nobody writes");

    let mut second = store(outer);
    let into = Span { region: second.regions.snapshot_in, ..from };
    second.arena().write(into, &bytes).expect("nobody reads");
    assert_eq!(second.inspect(into).expect("whole"), cut);
    second.install().expect("nobody writes");
    assert_eq!((second.master(), second.momentum()), (first.master(), first.momentum()));
    let sum = [9, 8, 7, 6, 5, 4, 3];
    assert_eq!(apply(&mut second, sum), apply(&mut first, sum), "they go on alike");
    // Neither is a cut of which a part belongs to another one, before the state is there and with it.
    let mut torn = bytes.clone();
    torn[super::CUT_HEAD_BYTES + cut.encode().len() - 1] ^= 1;
    second.arena().write(into, &torn).expect("nobody reads");
    let head = Span { len_bytes: super::SNAPSHOT_HEAD_BYTES as u32, ..into };
    assert_eq!(second.inspect_cut(head).unwrap_err(), StoreError::Snapshot);
    assert_eq!(second.inspect(into).unwrap_err(), StoreError::Snapshot);
    // A momentum that was changed on the way is not taken for the state.
    *bytes.last_mut().expect("a state") ^= 1;
    second.arena().write(into, &bytes).expect("nobody reads");
    assert_eq!(second.inspect(into).unwrap_err(), StoreError::Snapshot);
    assert!(store(Outer::Sum).momentum().is_empty());
}

#[test]
fn what_is_gathered_goes_through_the_step_in_its_order() {
    for (outer, room) in [(Outer::Sum, 9), (Outer::Nesterov(Nesterov::TUNED), GATHERED_MAX)] {
        let (mut straight, mut late) = (store(outer), store(outer));
        let sums = |version: usize| [version as i64 + 1, -3, 1 << 40, 0, -(1 << 41), 77, version as i64 * 5];
        for version in 0..9 {
            let results = results(&late, sums(version));
            let gathered = late.gather(&results, version == 0);
            assert_eq!(gathered, if version < room { Ok(()) } else { Err(StoreError::Full) }, "{outer:?}");
            if version < room {
                apply(&mut straight, sums(version)).expect("in range");
            }
        }
        assert_eq!(late.merge(), Ok(straight.digest()), "{outer:?}");
        // What was gathered before does not come back.
        let results = results(&late, sums(3));
        late.gather(&results, true).expect("room again");
        assert_eq!(late.merge(), apply(&mut straight, sums(3)), "{outer:?}");
    }
}
