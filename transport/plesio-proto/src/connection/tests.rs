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
