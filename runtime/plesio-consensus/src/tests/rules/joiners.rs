//! Strangers' JOINs: what they may change, and who keeps a place.

use super::solo::Solo;
use super::views::joiner;
use plesio_wire::sideband::{Address, Join, Message, RosterEntry};
use plesio_wire::{Frame, MemberSet, NodeId, NodeKey};
use std::net::SocketAddr;

fn address(host: u8, port: u16) -> Address {
    Address(SocketAddr::from(([10, 0, 0, host], port)))
}

fn ghost(key: u64, host: u8, port: u16) -> Join {
    Join { sideband: address(host, port), ..joiner(key, key, 0) }
}

fn hear(solo: &mut Solo, at_ms: u64, join: &Join) {
    solo.until(at_ms);
    solo.machine.handle_joiner(solo.now, join);
    solo.drain();
}

fn observes(solo: &Solo, key: u64) -> bool {
    solo.machine.observers().any(|observer| observer == NodeKey(key))
}

#[test]
fn names_without_end_from_one_socket_take_one_place() {
    let mut solo = Solo::new(11);
    for number in 0..600 {
        hear(&mut solo, number * 10, &ghost(1_000 + number, 66, 9));
        if number % 10 == 5 {
            hear(&mut solo, number * 10, &joiner(40 + number / 200, 1, 0));
            assert!(observes(&solo, 40 + number / 200), "a real joiner has a place at {} ms", number * 10);
        }
        assert!(solo.machine.observers().count() <= 4);
    }
}

#[test]
fn names_without_end_from_many_sockets_keep_nobody_out_who_goes_on_asking() {
    let mut solo = Solo::new(11);
    let (mut held, mut since) = (0, None);
    for at_ms in 0..6_000 {
        // Twenty ghosts for every JOIN of the one that is there.
        if at_ms % 5 == 0 {
            hear(&mut solo, at_ms, &ghost(1_000 + at_ms, 66, 1_000 + at_ms as u16));
        }
        if at_ms % 100 == 50 {
            hear(&mut solo, at_ms, &joiner(40, 1, 0));
        }
        if observes(&solo, 40) {
            (held, since) = (held + 1, since.or(Some(at_ms)));
        }
    }
    assert!(observes(&solo, 40) && held > 4_000, "a place since {since:?} ms, for {held} ms");
}

#[test]
fn a_host_with_many_joiners_makes_room_for_one_of_another() {
    let mut solo = Solo::new(11);
    for at in 0..10 {
        for key in 50..54 {
            hear(&mut solo, at * 100, &ghost(key, 66, key as u16));
        }
    }
    assert_eq!(solo.machine.observers().count(), 4);
    hear(&mut solo, 1_000, &ghost(54, 66, 54));
    assert!(!observes(&solo, 54), "from one host the first have the places");
    hear(&mut solo, 1_000, &joiner(40, 1, 0));
    assert!(observes(&solo, 40));
}

#[test]
fn a_stranger_under_a_members_name_neither_moves_nor_removes_it() {
    let home = |key: u64| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&key.to_le_bytes());
        RosterEntry { id: NodeId(id), sideband: address(key as u8, 47_701), ..RosterEntry::default() }
    };
    let mut solo = Solo::new(11);
    let before = [home(10), home(11), home(12)];
    solo.machine.handle_roster(&before);
    for at_ms in (0..1_000).step_by(100) {
        let stranger = Join { sideband: address(66, 9), ..joiner(10, 4_711, 0) };
        hear(&mut solo, at_ms, &stranger);
    }
    let asked =
        solo.sent.iter().any(|(_, message)| matches!(message, Message::Query(query) if query.frame.0 > 0));
    assert!(!asked, "member 10 is heard, so nobody puts it out");
    // The next view says that 10 is where it was.
    let next = solo.machine.members.next_view(&solo.machine.log, Frame(9), MemberSet(0b100), &[]);
    assert_eq!(next.roster, crate::roster_digest(&before[..2]));
    // From its own address it is the process there that speaks: the old life is over.
    for at_ms in (1_000..2_000).step_by(100) {
        let returned = Join { sideband: address(10, 47_701), ..joiner(10, 4_712, 0) };
        hear(&mut solo, at_ms + 1_100, &returned);
    }
    let gone = solo.machine.members.gone(solo.now, solo.machine.view(), NodeKey(11));
    assert_eq!(gone, MemberSet(0b001));
}
