//! Sealed groups by datagrams: the bits of plaintext ones, and nothing for who has other keys or is on the way.

use plesio::{GroupError, Identity, NetworkGroup, NetworkPlan};
use plesio_collective::{Element, Places};
use plesio_relay::{Impairment, Relay, RelayConfig};
use plesio_session::{Entropy, OperatorSecret, PoolKey, Refusal, Secret, Ticket};
use plesio_tests::mesh::identity;
use plesio_tests::ranks::{by_datagrams, by_plan, by_sealed, bytes, network, real, sealed, value};
use plesio_wire::handshake::Role;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Three of four go on as two, and later sums are made of these.
fn leave_or_exclude(rank: u8, group: &mut NetworkGroup) {
    let count = 200_000;
    group.all_reduce(Element::F32, count, Places::in_place(0)).expect("all call");
    match rank {
        // It says goodbye.
        3 => {}
        // It is silent, and known to be dead.
        2 => std::thread::sleep(Duration::from_millis(300)),
        _ => {
            group.exclude(2);
            group.write(0, &bytes((0..count).map(|at| value(rank.into(), at)))).expect("it fits");
            let present = group.all_reduce(Element::F32, count, Places::in_place(0)).expect("two call");
            assert_eq!(present.0, 0b11);
            let mut sum = vec![0; count as usize * 4];
            group.read(0, &mut sum).expect("it fits");
            assert_eq!(sum, bytes((0..count).map(|at| value(0, at) + value(1, at))));
        }
    }
}

#[test]
fn who_leaves_or_is_excluded_is_no_part_of_later_sums() {
    by_datagrams(4, 2 << 20, leave_or_exclude);
    by_sealed(4, 2 << 20, leave_or_exclude);
}

#[test]
fn a_sealed_group_has_the_bits_of_a_plaintext_one() {
    let (count, out) = (600_001u64, 2_400_064u32);
    let sums = |rank: u8, group: &mut NetworkGroup| {
        let places = Places { input: 0, output: out.into() };
        let mut sums = Vec::new();
        for count in [1, 1000, 70_001, count] {
            group.write(0, &bytes((0..count).map(|at| real(rank, at)))).expect("it fits");
            assert_eq!(group.all_reduce(Element::F32, count, places).expect("all call").len(), 3);
            let mut sum = vec![0; count as usize * 4];
            group.read(out, &mut sum).expect("it fits");
            sums.push(sum);
        }
        (sums, group.suite(), group.counters())
    };
    let plaintext = by_datagrams(3, 2 * out, sums);
    for (rank, (found, suite, counters)) in by_sealed(3, 2 * out, sums).into_iter().enumerate() {
        assert!(found == plaintext[0].0, "rank {rank}");
        assert!(suite.is_some() && plaintext[rank].1.is_none());
        assert_eq!(counters.dropped_forged + counters.dropped_plaintext, 0, "{counters:?}");
    }
}

/// Somebody on the way alters, repeats and loses datagrams, handshakes as well.
#[test]
fn what_is_altered_or_repeated_on_the_way_is_dropped_and_the_sum_is_right() {
    let impairment =
        Impairment { loss_ppm: 2_000, duplicate_ppm: 50_000, corrupt_ppm: 20_000, ..Impairment::default() };
    let config = RelayConfig { impairment, seed: 11, ..RelayConfig::default() };
    let relay = Relay::start(config).expect("a thread");
    let through = |listens: SocketAddr| {
        let (end, address) = relay.open((Ipv4Addr::LOCALHOST, 0).into()).expect("a loopback port");
        relay.stands_for(end, listens);
        address
    };
    let count = 400_003u64;
    let plan = |rank: u8| NetworkPlan {
        chunk_bytes: 1_344,
        ..network(rank, 3, 2 << 20, sealed(identity(rank.into())))
    };
    let wanted = bytes((0..count).map(|at| (0..3).map(|rank| value(rank, at)).sum()));
    let counters = by_plan(3, plan, through, |rank, group| {
        for _ in 0..3 {
            group.write(0, &bytes((0..count).map(|at| value(rank.into(), at)))).expect("it fits");
            group.all_reduce(Element::F32, count, Places::in_place(0)).expect("all call");
            let mut sum = vec![0; count as usize * 4];
            group.read(0, &mut sum).expect("it fits");
            assert!(sum == wanted, "rank {rank}");
        }
        group.counters()
    });
    let tally = relay.report().expect("it is at work").tally;
    assert!(tally.damaged > 0 && tally.copied > 0, "nothing was wrong with the path: {tally:?}");
    for counters in counters {
        assert!(counters.dropped_forged > 0 && counters.dropped_replayed > 0, "{counters:?}");
    }
}

#[test]
fn a_rank_with_other_keys_is_named_at_the_deadline_and_told_why() {
    let stranger = || Entropy::new(&Secret::new([9; 32]));
    let own = || identity(2);
    let pool = Identity { pool: PoolKey::generate(own().pool.mesh, &mut stranger()), ..own() };
    let operator = OperatorSecret::generate(&mut stranger());
    let ticket = Ticket::sign(&operator, own().pool.mesh, own().node.public(), Role::Member, u32::MAX);
    let signed = Identity { ticket, operators: vec![operator.public()], ..own() };
    // As the last rank is told: its keys, its group, and what the others refuse it for, as it does them.
    let cases =
        [(pool, 77, Refusal::Pool), (own(), 78, Refusal::Pool), (signed, 77, Refusal::TicketSignature)];
    for (odd, session, refusal) in cases {
        let plan = |rank: u8| {
            let told = if rank == 2 { odd.clone() } else { identity(rank.into()) };
            let session = if rank == 2 { session } else { 77 };
            NetworkPlan { session, deadline: Duration::from_secs(4), ..network(rank, 3, 4_096, sealed(told)) }
        };
        let outcomes = by_plan(
            3,
            plan,
            |address| address,
            |_, group| {
                let outcome = group.all_reduce(Element::F32, 100, Places::in_place(0));
                let again = group.all_reduce(Element::F32, 100, Places::in_place(0));
                assert!(matches!(again, Err(GroupError::Broken)), "{again:?}");
                outcome
            },
        );
        for (rank, outcome) in outcomes.into_iter().enumerate() {
            let Err(error @ GroupError::Unmet { ranks, refusal: cause, .. }) = &outcome else {
                panic!("{refusal}, rank {rank}: {outcome:?}");
            };
            assert_eq!(ranks.0, if rank == 2 { 0b11 } else { 0b100 }, "{refusal}, rank {rank}");
            assert_eq!(*cause, Some(refusal), "rank {rank}");
            assert!(error.to_string().contains("no session within 4000 ms with rank"), "{error}");
        }
    }
}

#[test]
fn a_sealed_plan_that_cannot_be_is_refused_before_anything_is_sent() {
    let whole = || network(1, 3, 4_096, sealed(identity(1)));
    let ids = whole().ids;
    let other = identity(2);
    let unsigned = sealed(Identity { ticket: other.ticket, ..identity(1) });
    for (plan, words) in [
        (NetworkPlan { ids: ids[..2].to_vec(), ..whole() }, "one id for each rank"),
        (NetworkPlan { ids: vec![ids[0], ids[1], ids[1]], ..whole() }, "no two alike"),
        (NetworkPlan { rank: 0, ..whole() }, "the one that its key makes"),
        (NetworkPlan { protection: unsigned, ..whole() }, "not signed by an operator"),
    ] {
        let error = NetworkGroup::open(&plan).map(drop).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    }
}
