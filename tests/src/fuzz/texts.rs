//! Key files, tickets and signed orders: what is read is written back as the same text, and what is signed is believed
//! only as it was signed.

use super::Target;
use plesio_session::{
    Entropy, NodePublic, NodeSecret, OperatorPublic, OperatorSecret, PoolKey, Secret, SignedOrder, Ticket,
};
use plesio_wire::handshake::Role;
use plesio_wire::sideband::OrderKind;

/// Key files, tickets and signed orders.
pub const TARGET: Target = Target {
    name: "texts",
    begin: || Box::new(take),
    life: 1,
    seeds,
    bytes_max: 1_100,
    // Reading does not, and the tests count; writing back does.
    allocates: true,
};

fn keys() -> (OperatorSecret, NodeSecret, PoolKey) {
    let mut entropy = Entropy::new(&Secret::new([5; 32]));
    (
        OperatorSecret::generate(&mut entropy),
        NodeSecret::generate(&mut entropy),
        PoolKey::generate(0x2F, &mut entropy),
    )
}

/// Reads `text` as everything that it could be; whether it was anything.
#[must_use]
pub fn read(text: &str) -> bool {
    // Every one of them is tried, or a failure would hide those behind it.
    let read = [
        NodeSecret::from_text(text).is_ok(),
        NodePublic::from_text(text).is_ok(),
        PoolKey::from_text(text).is_ok(),
        OperatorSecret::from_text(text).is_ok(),
        OperatorPublic::from_text(text).is_ok(),
        Ticket::from_text(text).is_ok(),
        SignedOrder::from_text(text).is_ok(),
    ];
    read.contains(&true)
}

fn take(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if !read(text) {
        return;
    }
    let written = [
        NodeSecret::from_text(text).map(|key| key.to_text().expose().to_owned()),
        PoolKey::from_text(text).map(|key| key.to_text().expose().to_owned()),
        OperatorSecret::from_text(text).map(|key| key.to_text().expose().to_owned()),
        NodePublic::from_text(text).map(|key| key.to_text()),
        OperatorPublic::from_text(text).map(|key| key.to_text()),
        Ticket::from_text(text).map(|ticket| ticket.to_text()),
        SignedOrder::from_text(text).map(|order| order.to_text()),
    ];
    let mut kinds = 0;
    for again in written.into_iter().flatten() {
        // Line ends are the only thing that may differ.
        assert!(again.lines().eq(text.lines()), "{text:?} came back as {again:?}");
        kinds += 1;
    }
    assert_eq!(kinds, 1, "{text:?} is of two kinds");
    if let Ok(ticket) = Ticket::from_text(text) {
        let signed = ticket == own_ticket();
        let (operator, ..) = keys();
        assert_eq!(ticket.verify(&[operator.public()], 0).is_ok(), signed, "{text:?}");
    }
    if let Ok(order) = SignedOrder::from_text(text) {
        assert_eq!(order.verify(), order == own_order(), "{text:?}");
    }
}

fn own_order() -> SignedOrder {
    let (operator, _, pool) = keys();
    SignedOrder::sign(&operator, pool.mesh, OrderKind::Resume, 9)
}

fn own_ticket() -> Ticket {
    let (operator, node, pool) = keys();
    Ticket::sign(&operator, pool.mesh, node.public(), Role::Member, 9)
}

fn seeds() -> Vec<Vec<u8>> {
    let (operator, node, pool) = keys();
    let secrets = [node.to_text(), pool.to_text(), operator.to_text()];
    let public = [
        node.public().to_text(),
        OperatorPublic(operator.public()).to_text(),
        own_ticket().to_text(),
        own_order().to_text(),
    ];
    let secret = secrets.iter().map(|text| text.expose().as_bytes().to_vec());
    secret.chain(public.into_iter().map(String::into_bytes)).collect()
}
