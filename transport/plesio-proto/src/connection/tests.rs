//! What cannot be reached from outside within a test's time.

use super::*;
use crate::transmit::Transmit;

const SPAN: Span = Span { region: 0, offset_bytes: 0, len_bytes: 64_000 };

fn machine() -> Connection {
    let config = Config { local: 1, remote: 2, channel: 5, chunk_bytes: 64, ..Config::default() };
    Connection::new(&config, Instant(0)).unwrap()
}

fn message(sequence: u16) -> MessageId {
    MessageId { handle: 1, sequence }
}

/// What leaves a connection whose numbers are used up.
fn last_words(machine: &mut Connection) {
    let Some(Transmit::Control(control)) = machine.poll_transmit(Instant(1)) else { panic!("a goodbye") };
    assert_eq!(control.header.kind, Kind::Bye);
    assert_eq!(control.header.packet >> 40, 2 << 22 | 5, "the count never leaves its bits");
    assert!(machine.poll_transmit(Instant(1)).is_none() && !machine.is_open());
    let events: Vec<Event> = core::iter::from_fn(|| machine.poll_event()).collect();
    assert_eq!(
        events,
        [Event::Aborted { message: message(1), failure: Failure::Exhausted }, Event::Exhausted]
    );
}

#[test]
fn used_up_packet_numbers_end_the_connection_by_name() {
    let mut data = machine();
    data.flight = Flight::starting(256, COUNT_MAX - 10);
    data.handle_send(Instant(0), message(1), SPAN).unwrap();
    let Some(Transmit::Train(train)) = data.poll_transmit(Instant(0)) else { panic!("a train") };
    assert_eq!(train.len(), 10);
    assert!(train.iter().all(|(header, _)| header.packet >> 40 == 5));
    last_words(&mut data);

    let mut control = machine();
    control.control_next = COUNT_MAX;
    control.handle_send(Instant(0), message(1), SPAN).unwrap();
    last_words(&mut control);
}

/// Half of all numbers later than the last message that came here, others came another way.
#[test]
fn what_came_another_way_does_not_make_the_next_one_old() {
    let header = |sequence| Header {
        kind: Kind::Data,
        flags: Flags::LAST_OF_MSG,
        payload_bytes: 64,
        receiver: 1,
        packet: packet_first(5) | u64::from(sequence > 3),
        message: message(sequence),
        chunk: 0,
        clock_us: 0,
        crc32: 0,
    };
    let window = Span { len_bytes: 64, ..SPAN };
    let mut machine = machine();
    machine.handle_passed(1, 7); // Nothing ever came: nothing is old.
    machine.handle_post(1, None, window).unwrap();
    machine.handle_datagram(Instant(0), &header(3), &[]).unwrap();
    machine.handle_post(1, None, window).unwrap();
    assert_eq!(machine.place(&header(40_000)), None, "taken for an old one");
    for passed in [20_000, 39_999] {
        machine.handle_passed(1, passed);
        assert_eq!(machine.place(&header(passed - 1)), None, "that one is over");
    }
    machine.handle_passed(1, 30_000); // Behind what is over already.
    assert_eq!(machine.place(&header(40_000)), Some(window));
    assert_eq!(machine.place(&header(39_999)), Some(window), "it may still come this way");
}
