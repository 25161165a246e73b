//! Whole nodes in one process: one alone, three on each backend, and a mesh in which one dies and one joins.

use plesio::{Codec, Lambda, Nesterov, Node, NodeConfig, Outer, Rules, Trust, WeightMode, What};
use plesio_tests::mesh::{
    Member, begin, begin_as, config, join_as, plaintext, settle_and_end, settle_and_end_within, wait,
};
use plesio_tests::say_skipped;
use plesio_udp::Requested;
use std::net::{SocketAddr, UdpSocket};

#[test]
fn plaintext_stays_on_this_host_unless_the_network_is_captive() {
    let everywhere = "0.0.0.0:0".parse().expect("an address");
    let on = |plane: fn(&mut NodeConfig) -> &mut SocketAddr, trust| {
        let mut config = NodeConfig { trust, ..plaintext(0, Requested::Auto) };
        *plane(&mut config) = everywhere;
        Node::bind(config).err().map(|error| error.to_string())
    };
    let planes: [fn(&mut NodeConfig) -> &mut SocketAddr; 2] =
        [|config| &mut config.data, |config| &mut config.sideband];
    for plane in planes {
        let refusal = on(plane, Trust::Open).expect("plaintext for everybody to hear");
        assert!(refusal.contains("0.0.0.0") && refusal.contains("stay on this host"), "{refusal}");
        assert_eq!(on(plane, Trust::Captive), None);
    }
}

/// Both planes, sealed, with one that comes later.
#[test]
fn nodes_meet_over_ipv6() {
    if let Err(error) = UdpSocket::bind("[::1]:0") {
        return say_skipped(&format!("no IPv6 on this host: {error}"));
    }
    let local = "[::1]:0".parse().expect("an address");
    for backend in [Requested::Auto, Requested::Mio] {
        let told = |index| NodeConfig { data: local, sideband: local, ..config(index, backend) };
        let mut members = begin_as(2, told);
        wait("versions", || members.iter().all(|member| member.version() >= 4));
        members.push(join_as(told(2), members[1].hello.seed()));
        wait("the view with it", || members.iter().all(|member| member.view().len() == 3));
        assert!(members.iter().all(|member| member.hello.data.is_ipv6() && member.hello.sideband.is_ipv6()));
        settle_and_end(members);
    }
}

#[test]
fn one_node_commits_alone() {
    let members = begin(1, Requested::Auto);
    wait("versions", || members[0].version() >= 5);
    settle_and_end(members);
}

#[test]
fn three_nodes_commit_the_same_bits() {
    for backend in [Requested::Auto, Requested::Mio] {
        let members = begin(3, backend);
        wait("versions", || members.iter().all(|member| member.version() >= 8));
        let ends = settle_and_end(members);
        for end in &ends {
            let counters = &end.progress.counters;
            // Moved into the packet and sealed there; opened, and where it was received aside moved before.
            assert_eq!(counters.copied_sent_bytes, 2 * counters.data_sent_bytes);
            let passes = counters.data_received_bytes..=2 * counters.data_received_bytes;
            assert!(passes.contains(&counters.copied_received_bytes), "{counters:?}");
        }
    }
}

#[test]
fn three_nodes_without_protection_commit_the_same_bits() {
    let members = begin_as(3, |index| plaintext(index, Requested::Auto));
    wait("versions", || members.iter().all(|member| member.version() >= 8));
    let ends = settle_and_end(members);
    assert!(ends.iter().all(|end| end.progress.counters.copied_sent_bytes == 0));
}

#[test]
fn three_nodes_commit_the_same_bits_by_every_codec() {
    for (codec, residue) in [(Codec::Bf16, 2e-3), (Codec::Int8, 1e-3), (Codec::Int4By64, 5e-3)] {
        let members = begin_as(3, |index| coded(index, codec));
        all_take_part(&members);
        let ends = settle_and_end_within(members, residue);
        // Far more than the residue: what a slot leaves out goes with later ones.
        let moved = ends[0].state.iter().fold(0f32, |most, value| most.max(value.abs()));
        assert!(moved > 20.0 * residue, "{codec:?}: {moved}");
    }
}

fn ruled(index: u64, rules: Rules) -> NodeConfig {
    NodeConfig { rules, ..config(index, Requested::Auto) }
}

#[test]
fn what_staleness_takes_stays_with_its_node() {
    let lambda = Lambda::new(1 << 23).expect("a half");
    let rules = Rules { weights: WeightMode::Work, lambda, ..Rules::default() };
    let members = begin_as(3, |index| ruled(index, rules));
    wait("versions", || members.iter().all(|member| member.version() >= 12));
    // What comes back of a slot's last step is not cut again: a step or two of the largest stride.
    let ends = settle_and_end_within(members, 3e-3);
    let moved = ends[0].state.iter().fold(0f32, |most, value| most.max(value.abs()));
    assert!(moved > 0.06, "{moved}");
}

#[test]
fn a_joiner_takes_the_momentum_over_with_the_state() {
    let rules = Rules { outer: Outer::Nesterov(Nesterov::TUNED), ..Rules::default() };
    let mut members = begin_as(3, |index| ruled(index, rules));
    wait("versions", || members.iter().all(|member| member.version() >= 4));
    members.push(join_as(ruled(9, rules), members[1].hello.seed()));
    let key = members[3].hello.id.key();
    wait("its contribution", || {
        members[0].has(|what| {
            matches!(what, What::Manifest { entries, .. } if entries.iter().any(|entry| entry.node == key))
        })
    });
    settle_and_end(members);
}

#[test]
fn nodes_of_another_codec_are_told() {
    let members = begin(1, Requested::Auto);
    let stranger = join_as(coded(9, Codec::Int8), members[0].hello.seed());
    let told =
        |what: &What| matches!(what, What::Entering(entering) if entering.differs == Some("the codec"));
    wait("the refusal", || stranger.has(told));
    stranger.control.stop();
    settle_and_end(members);
}

#[test]
fn a_node_dies_and_another_joins() {
    dies_and_joins(Codec::Full);
}

#[test]
fn a_node_dies_and_another_joins_with_encoded_slots() {
    dies_and_joins(Codec::Int8);
}

/// Waits until everybody's first contribution, which holds all that was trained before its clock was locked, and what a codec
/// left of it are versions ago.
fn all_take_part(members: &[Member]) {
    let listed = |member: &Member| {
        let key = member.hello.id.key();
        members[0].has(|what| matches!(what, What::Manifest { entries, .. } if entries.iter().any(|entry| entry.node == key)))
    };
    wait("everybody's first contribution", || members.iter().all(listed));
    let then = members.iter().map(Member::version).max().unwrap_or_default();
    wait("versions", || members.iter().all(|member| member.version() >= then + 8));
}

fn coded(index: u64, codec: Codec) -> NodeConfig {
    NodeConfig { codec, ..config(index, Requested::Auto) }
}

fn dies_and_joins(codec: Codec) {
    let mut members = begin_as(3, |index| coded(index, codec));
    all_take_part(&members);
    let dead = members.pop().expect("there are three");
    dead.control.stop();
    let before = members[0].version();
    wait("versions without it", || members.iter().all(|member| member.version() >= before + 4));
    let removed = |what: &What| matches!(what, What::View { removed, .. } if removed.len() == 1);
    assert!(members[0].has(removed));

    let joiner = join_as(coded(9, codec), members[1].hello.seed());
    let key = joiner.hello.id.key();
    members.push(joiner);
    wait("the view with it", || {
        members[0].has(|what| matches!(what, What::View { added, .. } if added.contains(&key)))
    });
    all_take_part(&members);
    settle_and_end(members);
}
