//! One operator's signature under an order, and the one place that checks signatures.
//!
//! Operators who do not share a machine sign the same order each for itself; the files come together where it is sent.
//! How many have to sign, and who counts, is not known here.

use alloc::string::String;

use ed25519_dalek::{Signature, VerifyingKey};
use plesio_wire::sideband::{Order, OrderKind};

use crate::identity::OperatorSecret;
use crate::text::{self, Lines, TextError};

const KIND: &str = "plesio-order 1";

/// Whether `signature` is the one of `key` under `message`.
#[must_use]
pub fn verify_signature(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let signature = Signature::from_bytes(signature);
    VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

/// An order with the signature of one operator.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SignedOrder {
    /// Which mesh.
    pub mesh: u64,
    /// Which way.
    pub kind: OrderKind,
    /// The order; it carries no signatures here.
    pub order: Order,
    /// The operator's public key.
    pub operator: [u8; 32],
    /// Its signature.
    pub signature: [u8; 64],
}

impl SignedOrder {
    /// Signs HALT or RESUME of dispatch in the whole mesh.
    #[must_use]
    pub fn sign(operator: &OperatorSecret, mesh: u64, kind: OrderKind, sequence: u64) -> Self {
        let order = Order { sequence, ..Order::default() };
        let signature = operator.sign(&order.signed_bytes(mesh, kind));
        Self { mesh, kind, order, operator: operator.public(), signature }
    }

    /// Whether the operator signed it.
    #[must_use]
    pub fn verify(&self) -> bool {
        verify_signature(&self.operator, &self.order.signed_bytes(self.mesh, self.kind), &self.signature)
    }

    /// The text of a file with it.
    #[must_use]
    pub fn to_text(&self) -> String {
        text::write(
            KIND,
            &[
                ("mesh", &self.mesh.to_be_bytes()),
                ("kind", &[self.kind.code()]),
                ("sequence", &self.order.sequence.to_be_bytes()),
                ("scope", &[self.order.scope]),
                ("action", &[self.order.action]),
                ("ed25519", &self.operator),
                ("signature", &self.signature),
            ],
        )
    }

    /// Reads such a file; whether it counts says [`verify`](Self::verify).
    ///
    /// # Errors
    /// The first line that is not as it should be.
    pub fn from_text(text: &str) -> Result<Self, TextError> {
        let mut lines = Lines::new(text, KIND)?;
        let mesh = u64::from_be_bytes(lines.read("mesh")?);
        let kind = plesio_wire::Reader::new(&lines.read::<1>("kind")?)
            .read()
            .map_err(|_| TextError::Line { name: "kind" })?;
        let sequence = u64::from_be_bytes(lines.read("sequence")?);
        let ([scope], [action]) = (lines.read("scope")?, lines.read("action")?);
        let order = Order { sequence, scope, action, ..Order::default() };
        let (operator, signature) = (lines.read("ed25519")?, lines.read("signature")?);
        lines.finish()?;
        Ok(Self { mesh, kind, order, operator, signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entropy, Secret};

    #[test]
    fn a_signed_order_reads_back_and_counts_for_what_it_says() {
        let mut entropy = Entropy::new(&Secret::new([4; 32]));
        let (operator, other) =
            (OperatorSecret::generate(&mut entropy), OperatorSecret::generate(&mut entropy));
        let signed = SignedOrder::sign(&operator, 5, OrderKind::Halt, 9);
        assert!(signed.verify());
        assert_eq!(SignedOrder::from_text(&signed.to_text()), Ok(signed));
        let order = Order { sequence: 10, ..signed.order };
        for forged in [
            SignedOrder { mesh: 6, ..signed },
            SignedOrder { kind: OrderKind::Resume, ..signed },
            SignedOrder { order, ..signed },
            SignedOrder { operator: other.public(), ..signed },
            SignedOrder { operator: [0xFF; 32], ..signed },
        ] {
            assert!(!forged.verify());
        }
        let bad = signed.to_text().replace("kind 10", "kind 12");
        assert_eq!(SignedOrder::from_text(&bad), Err(TextError::Line { name: "kind" }));
    }
}
