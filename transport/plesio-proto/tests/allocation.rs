//! In steady state no datagram allocates: sent or received, lost or repeated, acknowledged or dropped.

use counting::COUNT;
use plesio_proto::{Config, Congestion, Connection, Event, Granter, Grants, Transmit, Turn};
use plesio_wire::data::{Kind, MessageId};
use plesio_wire::{Instant, Span};

#[path = "../../../tests/counting.rs"]
mod counting;

const WINDOW: Span = Span { region: 0, offset_bytes: 0, len_bytes: 1 << 20 };

/// Moves one message of 1 MiB from `a` to `b` without any memory for the wire; every seventh datagram is
/// lost. Returns the datagrams carried.
fn transfer(
    a: &mut Connection,
    b: &mut Connection,
    granter: &mut Granter,
    now: &mut Instant,
    sequence: u16,
) -> u64 {
    let message = MessageId { handle: 1, sequence };
    b.handle_post(1, None, WINDOW).unwrap();
    a.handle_send(*now, message, WINDOW).unwrap();
    let mut carried = 0;
    let (mut received, mut delivered) = (false, false);
    while !(received && delivered) {
        *now = now.after(100_000);
        for forth in [true, false] {
            let (from, to) = if forth { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
            while let Some(transmit) = from.poll_transmit(*now) {
                match transmit {
                    Transmit::Train(train) => {
                        for (header, _) in train.iter() {
                            carried += 1;
                            if carried % 7 == 0 {
                                continue;
                            }
                            if to.place(header).is_some() {
                                to.handle_datagram(*now, header, &[]).unwrap();
                            } else {
                                to.handle_unplaced(*now, header);
                            }
                        }
                    }
                    Transmit::Control(control) => {
                        carried += 1;
                        assert_ne!(control.header.kind, Kind::Data);
                        if carried % 7 != 0 {
                            to.handle_datagram(*now, &control.header, control.body()).unwrap();
                        }
                    }
                }
            }
            from.handle_timeout(*now);
        }
        granter.handle_demand(0, b.demand());
        while let Some((_, bytes)) = granter.poll_grant() {
            b.handle_grant(bytes);
        }
        received |= b.poll_event().is_some_and(|event| matches!(event, Event::Received { .. }));
        delivered |= a.poll_event() == Some(Event::Delivered { message });
    }
    carried
}

#[test]
fn no_datagram_allocates_once_warm() {
    let plain = Config { window_bytes: 256 << 10, ..Config::default() };
    let paced = Config { congestion: Congestion::RateDelay, ..plain };
    let searching = Config { chunk_bytes: 8_832, search: true, ..paced };
    for config in [plain, paced, searching, Config { grants: Grants::Shared, ..plain }] {
        run(&config);
    }
}

fn run(config: &Config) {
    let config = |local, remote| Config { local, remote, deadline_ns: Some(u64::MAX / 2), ..*config };
    let mut now = Instant(0);
    let mut granter = Granter::new(256 << 10, 16 << 10, Turn::RoundRobin, 1);
    let mut a = Connection::new(&config(1, 2), now).unwrap();
    let mut b = Connection::new(&config(2, 1), now).unwrap();
    transfer(&mut a, &mut b, &mut granter, &mut now, 0);
    let before = COUNT.get();
    let mut carried = 0;
    for sequence in 1..200 {
        carried += transfer(&mut a, &mut b, &mut granter, &mut now, sequence);
    }
    let allocations = COUNT.get() - before;
    assert_eq!(allocations, 0, "in {carried} datagrams");
    assert!(carried > 25_000 && a.stats().retransmitted_bytes > 0, "{carried}");
}
