//! Whole nodes that only see each other through a bad path: what they commit is the same bits all the same.

use plesio::What;
use plesio_relay::{Impairment, Relay, RelayConfig};
use plesio_tests::mesh::{begin_through, settle_and_end, wait};
use plesio_udp::Requested;
use std::net::SocketAddr;

fn relay(impairment: Impairment) -> Relay {
    Relay::start(RelayConfig { impairment, seed: 7, ..RelayConfig::default() }).expect("a thread")
}

#[test]
fn a_bad_path_changes_no_bit() {
    let bad = Impairment {
        loss_ppm: 20_000,
        delay_ns: 3_000_000,
        jitter_ns: 4_000_000,
        jitter_hold_ns: 8_000_000,
        reorder_ppm: 10_000,
        reorder_ns: 5_000_000,
        duplicate_ppm: 20_000,
        corrupt_ppm: 5_000,
        ..Impairment::default()
    };
    for backend in [Requested::Auto, Requested::Mio] {
        let relay = relay(bad);
        let members = begin_through(&relay, 3, backend);
        wait("versions", || members.iter().all(|member| member.version() >= 12));
        settle_and_end(members);
        let report = relay.report().expect("it is at work");
        let tally = report.tally;
        assert!(
            tally.lost > 0 && tally.copied > 0 && tally.damaged > 0 && tally.late > 0,
            "nothing was wrong with the path: {report}"
        );
        assert_eq!(report.strangers, 0, "somebody did not go through the relay: {report}");
    }
}

#[test]
fn a_node_that_nobody_hears_is_left_out() {
    let relay = relay(Impairment::default());
    let members = begin_through(&relay, 3, Requested::Auto);
    wait("versions", || members.iter().all(|member| member.version() >= 4));
    let cut = Impairment { cut: true, ..Impairment::default() };
    // From here on the last one hears everybody, and nobody hears it.
    let deaf_to = members[2].hello;
    for member in &members[..2] {
        for (from, to) in [(deaf_to.data, member.hello.data), (deaf_to.sideband, member.hello.sideband)] {
            relay.impair_way(end(&relay, from), end(&relay, to), cut).expect("a path may be cut");
        }
    }
    let removed =
        |what: &What| matches!(what, What::View { removed, .. } if removed.contains(&deaf_to.id.key()));
    wait("the view without it", || members[..2].iter().all(|member| member.has(removed)));
    relay.impair(Impairment::default()).expect("a path may be sound");
    let mut members = members;
    let out = members.pop().expect("there are three");
    out.control.stop();
    let before = members[0].version();
    wait("versions without it", || members.iter().all(|member| member.version() >= before + 4));
    settle_and_end(members);
}

fn end(relay: &Relay, advertised: SocketAddr) -> plesio_relay::EndId {
    relay.end_at(advertised).expect("the relay opened it")
}
