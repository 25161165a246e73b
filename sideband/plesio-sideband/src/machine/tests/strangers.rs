//! Who is heard without being known.

use super::*;

#[test]
fn strangers_are_heard_at_a_bounded_rate() {
    let mut net = Net::new(2, 0);
    net.run(SECOND);
    let machine = &mut net.machines[0];
    let join = Message::Join(Join { id: id_of(50), ..Join::default() });
    let mut heard = 0;
    for step in 0..10_000u64 {
        let now = Instant(net.offsets[0] + SECOND + step * MS / 10);
        machine.handle_datagram(now, address(99), &datagram(INDEX_NONE, 0, step as u32, &join), None);
        while let Some(event) = machine.poll_event() {
            heard += u64::from(matches!(event, Event::Message { .. }));
        }
    }
    assert!((490..=510).contains(&heard), "250 at once and 250 in the second: {heard}");
    assert_eq!(machine.drops().rate_limited, 10_000 - heard);
}

/// A member that all others left behind asks as a stranger does, and has to hear the answer.
#[test]
fn a_member_hears_a_stranger_where_it_has_just_asked() {
    let mut net = Net::new(2, 0);
    net.run(SECOND);
    let machine = &mut net.machines[0];
    let at = |ms: u64| Instant(net.offsets[0] + SECOND + ms * MS);
    let answer = |machine: &mut Machine, ms: u64, from: u64| {
        let bytes = datagram(INDEX_NONE, 0, ms as u32, &Message::Roster(Roster::default()));
        machine.handle_datagram(at(ms), address(from), &bytes, None);
        std::iter::from_fn(|| machine.poll_event()).any(|event| matches!(event, Event::Message { .. }))
    };
    assert!(!answer(machine, 1, 99), "nobody was asked");
    machine
        .handle_send(at(2), To::Address(address(99)), Message::Join(Join::default()))
        .expect("there is room");
    while machine.poll_transmit(at(2)).is_some() {}
    assert!(answer(machine, 3, 99));
    assert!(!answer(machine, 4, 98), "another place");
    assert!(!answer(machine, 2_003, 99), "long ago");
}

/// Everybody came back in new lives and put out those of before. Who fell behind has the addresses as those of the
/// former lives alone: it asks there, and has to hear the answer.
#[test]
fn a_new_life_answers_from_the_address_of_its_former_one() {
    let mut net = Net::new(3, 0);
    net.run(SECOND);
    let mut news = view(1, 0..2);
    for seat in news.members.iter_mut() {
        seat.incarnation.0 += 1_000;
    }
    let now = net.at(2);
    let machine = &mut net.machines[2];
    machine.handle_view(now, &news, &[]);
    while machine.poll_event().is_some() {}
    let heard = |machine: &mut Machine, src: u16, message: &Message| {
        machine.handle_datagram(now, address(0), &datagram(src, 1, 9_000, message), None);
        std::iter::from_fn(|| machine.poll_event()).find_map(|event| match event {
            Event::Message { from, .. } => Some(from),
            _ => None,
        })
    };
    let roster = Message::Roster(Roster::default());
    assert_eq!(heard(machine, 0, &roster), Some(None), "a stranger's word, though its address is known");
    assert_eq!(heard(machine, 0, &accept(4)), None, "a stranger has no vote");
    assert_eq!(heard(machine, INDEX_NONE, &roster), Some(Some(NodeKey(0))), "the former life");
}
