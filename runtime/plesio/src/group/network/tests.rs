//! What takes minutes: keys that grow old while a sealed group works, and while nobody calls it.

use super::*;
use crate::node::Identity;
use plesio_session::{Entropy, NodeSecret, OperatorSecret, PoolKey, Secret, Ticket};
use plesio_wire::handshake::Role;
use std::sync::mpsc::channel;
use std::sync::{Barrier, Mutex};

fn identities(count: usize) -> Vec<Identity> {
    let mut entropy = Entropy::new(&Secret::new([7; 32]));
    let (pool, operator) = (PoolKey::generate(3, &mut entropy), OperatorSecret::generate(&mut entropy));
    let mut identity = || {
        let node = NodeSecret::generate(&mut entropy);
        let ticket = Ticket::sign(&operator, pool.mesh, node.public(), Role::Member, 0);
        let (pool, operators) = (pool.clone(), vec![operator.public()]);
        Identity { node, ticket, pool, operators, seed: entropy.draw() }
    };
    (0..count).map(|_| identity()).collect()
}

fn plan(rank: u8, identities: &[Identity]) -> NetworkPlan {
    NetworkPlan {
        session: 5,
        rank,
        ranks: identities.len() as u8,
        tensor_bytes: 4 << 20,
        bind: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
        chunk_bytes: 65_408,
        backend: Requested::Auto,
        wait: WaitMode::Block,
        protection: Protection::Sealed(Box::new(identities[usize::from(rank)].clone())),
        trust: Trust::Open,
        ids: identities.iter().map(|identity| identity.node.public().id()).collect(),
        deadline: Duration::from_secs(30),
    }
}

#[test]
fn keys_are_changed_in_time_and_made_anew_where_they_ended_unused() {
    let identities = identities(2);
    let addresses = Mutex::new([SocketAddr::from(([0; 4], 0)); 2]);
    let (tell, told) = channel();
    let together = Barrier::new(2);
    std::thread::scope(|scope| {
        for rank in [0, 1] {
            let (tell, together, addresses, identities) = (tell.clone(), &together, &addresses, &identities);
            scope.spawn(move || {
                let mut group = NetworkGroup::open(&plan(rank, identities)).expect("loopback");
                addresses.lock().expect("nobody panics")[usize::from(rank)] = group.local_address();
                together.wait();
                let both = *addresses.lock().expect("nobody panics");
                group.meet(&both).expect("two addresses");
                // Made; due for a change, and changed; at their end.
                for pause in [0, 130, 200] {
                    together.wait();
                    group.port.advance(Duration::from_secs(pause));
                    for count in [10, 500_000] {
                        let outcome = group.all_reduce(Element::F32, count, Places::in_place(0));
                        tell.send(outcome.map(Ranks::len).map_err(|error| error.to_string())).expect("heard");
                    }
                    // Nobody's last word is lost before time moves.
                    let settled = Instant::now() + Duration::from_millis(100);
                    while Instant::now() < settled {
                        group.turn(Duration::from_millis(5)).expect("the port works");
                    }
                }
                let changes = group.port.key_changes();
                together.wait();
                assert!(changes >= 3, "{changes}");
            });
        }
        drop(tell);
        let said: Vec<_> = told.iter().collect();
        assert_eq!(said.len(), 12);
        assert!(said.iter().all(|outcome| *outcome == Ok(2)), "{said:?}");
    });
}

#[test]
fn one_identity_shown_twice_makes_other_keys() {
    let identities = identities(2);
    let plan = plan(0, &identities);
    let first = || {
        let mut group = NetworkGroup::open(&plan).expect("loopback");
        let listener = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
        listener.set_read_timeout(Some(Duration::from_secs(20))).expect("it can be");
        let addresses = [group.local_address(), listener.local_addr().expect("it is bound")];
        group.meet(&addresses).expect("two addresses");
        let mut init = vec![0; 512];
        let (len_bytes, _) = listener.recv_from(&mut init).expect("an INIT");
        init.truncate(len_bytes);
        init
    };
    let (one, two) = (first(), first());
    // Behind the clear head is the ephemeral key.
    assert_eq!((one.len(), two.len()), (264, 264));
    assert_ne!(one[8..40], two[8..40]);
}
