//! Two hosts with a cable between them: what goes through arrives, as fast and as sound as the cable lets it.
//!
//! Each test skips aloud where the kernel grants no namespaces, no rate or no packet filter.

use plesio_tests::netns::{Pair, Side};
use plesio_tests::say_skipped;
use std::net::UdpSocket;
use std::time::Duration;

/// Ends the test where this machine cannot run it.
macro_rules! or_skip {
    ($asked:expr) => {
        match $asked {
            Ok(got) => got,
            Err(why) => return say_skipped(&why),
        }
    };
}

fn socket(pair: &Pair, side: Side) -> Result<UdpSocket, String> {
    let socket = pair.run(side, || UdpSocket::bind((side.address(), 0)))?;
    let socket = socket.map_err(|error| format!("{}: {error}", side.address()))?;
    socket.set_read_timeout(Some(Duration::from_secs(3))).map_err(|error| error.to_string())?;
    Ok(socket)
}

#[test]
fn hosts_see_each_other_lose_what_they_are_told_and_leave_nothing() {
    let pair = or_skip!(Pair::open(1_500));
    let names = [Side::Left, Side::Right].map(|side| pair.name(side).to_owned());
    let (left, right) = (or_skip!(socket(&pair, Side::Left)), or_skip!(socket(&pair, Side::Right)));
    let to = right.local_addr().expect("it is bound");
    let mut bytes = [0; 2_000];
    left.send_to(b"hello", to).expect("a cable");
    let (len, from) = right.recv_from(&mut bytes).expect("the other host's datagram");
    assert_eq!((&bytes[..len], from), (&b"hello"[..], left.local_addr().expect("it is bound")));
    or_skip!(pair.lose(Side::Right, 500));
    for _ in 0..400 {
        left.send_to(&[7; 100], to).expect("a cable");
    }
    let mut heard = 0;
    while right.recv_from(&mut bytes).is_ok() {
        heard += 1;
    }
    let lost = pair.lost(Side::Right).expect("a counter");
    assert_eq!((heard + lost, (100..300).contains(&lost)), (400, true), "{heard} heard, {lost} lost");
    or_skip!(pair.narrow(Side::Right, 1_000));
    left.send_to(&[7; 1_200], to).expect("a cable");
    left.send_to(&[7; 800], to).expect("a cable");
    assert_eq!(right.recv_from(&mut bytes).expect("the small one").0, 800);
    drop(pair);
    for name in names {
        assert!(!std::path::Path::new("/run/netns").join(&name).exists(), "{name} is left behind");
    }
}
