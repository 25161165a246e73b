//! Admission tickets: an operator's word that a node may join a mesh, as what, and up to which view.
//!
//! A ticket expires by view number, not by time. Anybody can read it; it admits nobody but the holder of the
//! X25519 key that it names, because the handshake proves that key.

use alloc::string::String;
use core::fmt;

use plesio_wire::Writer;
use plesio_wire::handshake::Role;

use crate::identity::{NodePublic, OperatorSecret};
use crate::order::verify_signature;
use crate::text::{self, Lines, TextError};

const KIND: &str = "plesio-ticket 1";
const CONTEXT: &[u8; 16] = b"plesio ticket v1";
const SIGNED_BYTES: usize = 16 + 8 + 32 + 32 + 1 + 4;

/// Why a ticket admits nobody.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TicketError {
    /// No operator of this mesh signed it: it is forged, of another mesh or for another key.
    Signature,
    /// Its last view is over; the operator has to sign a new one.
    Expire {
        /// Its last view.
        not_after_view: u32,
        /// The view in force.
        view: u32,
    },
}

impl fmt::Display for TicketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature => f.write_str(
                "the ticket is not signed by an operator of this mesh for this key; ask the operator for one",
            ),
            Self::Expire { not_after_view, view } => write!(
                f,
                "the ticket ended with view {not_after_view} and view {view} is in force; ask the operator for a new one"
            ),
        }
    }
}

impl core::error::Error for TicketError {}

/// A signed admission.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ticket {
    /// Which mesh.
    pub mesh: u64,
    /// Whom it admits.
    pub node: NodePublic,
    /// As what.
    pub role: Role,
    /// Last view in which it counts.
    pub not_after_view: u32,
    /// The operator's signature of all that.
    pub signature: [u8; 64],
}

impl Ticket {
    /// Admits `node`.
    #[must_use]
    pub fn sign(
        operator: &OperatorSecret,
        mesh: u64,
        node: NodePublic,
        role: Role,
        not_after_view: u32,
    ) -> Self {
        let mut ticket = Self { mesh, node, role, not_after_view, signature: [0; 64] };
        ticket.signature = operator.sign(&ticket.signed_bytes());
        ticket
    }

    /// Whether one of `operators` signed it and it still counts in `view`.
    ///
    /// # Errors
    /// Which of the two is not so.
    pub fn verify(&self, operators: &[[u8; 32]], view: u32) -> Result<(), TicketError> {
        let message = self.signed_bytes();
        if !operators.iter().any(|operator| verify_signature(operator, &message, &self.signature)) {
            return Err(TicketError::Signature);
        }
        if view > self.not_after_view {
            return Err(TicketError::Expire { not_after_view: self.not_after_view, view });
        }
        Ok(())
    }

    fn signed_bytes(&self) -> [u8; SIGNED_BYTES] {
        let mut bytes = [0; SIGNED_BYTES];
        let mut writer = Writer::new(&mut bytes);
        writer.put(CONTEXT);
        writer.write(&self.mesh);
        writer.write(&self.node.ed25519);
        writer.write(&self.node.x25519);
        writer.write(&self.role);
        writer.write(&self.not_after_view);
        bytes
    }

    /// The text of a ticket file.
    #[must_use]
    pub fn to_text(&self) -> String {
        text::write(
            KIND,
            &[
                ("mesh", &self.mesh.to_be_bytes()),
                ("x25519", &self.node.x25519),
                ("ed25519", &self.node.ed25519),
                ("role", &[self.role as u8]),
                ("not_after_view", &self.not_after_view.to_be_bytes()),
                ("signature", &self.signature),
            ],
        )
    }

    /// Reads a ticket file; whether it counts says [`verify`](Self::verify).
    ///
    /// # Errors
    /// The first line that is not as it should be.
    pub fn from_text(text: &str) -> Result<Self, TextError> {
        let mut lines = Lines::new(text, KIND)?;
        let mesh = u64::from_be_bytes(lines.read("mesh")?);
        let node = NodePublic { x25519: lines.read("x25519")?, ed25519: lines.read("ed25519")? };
        let role = plesio_wire::Reader::new(&lines.read::<1>("role")?)
            .read()
            .map_err(|_| TextError::Line { name: "role" })?;
        let not_after_view = u32::from_be_bytes(lines.read("not_after_view")?);
        let ticket = Self { mesh, node, role, not_after_view, signature: lines.read("signature")? };
        lines.finish()?;
        Ok(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entropy, NodeSecret, Secret};

    #[test]
    fn t9_a_ticket_counts_for_what_it_says_and_nothing_else() {
        let mut entropy = Entropy::new(&Secret::new([1; 32]));
        let (operator, other) =
            (OperatorSecret::generate(&mut entropy), OperatorSecret::generate(&mut entropy));
        let node = NodeSecret::generate(&mut entropy).public();
        let stranger = NodeSecret::generate(&mut entropy).public();
        let ticket = Ticket::sign(&operator, 5, node, Role::Member, 10);
        let listed = [other.public(), operator.public()];
        assert_eq!(ticket.verify(&listed, 10), Ok(()));
        assert_eq!(ticket.verify(&listed, 11), Err(TicketError::Expire { not_after_view: 10, view: 11 }));
        assert_eq!(ticket.verify(&[other.public()], 0), Err(TicketError::Signature));
        assert_eq!(ticket.verify(&[], 0), Err(TicketError::Signature));
        let mut signature = ticket.signature;
        signature[40] ^= 1;
        let swapped = NodePublic { x25519: node.ed25519, ed25519: node.x25519 };
        for forged in [
            Ticket { mesh: 6, ..ticket },
            Ticket { role: Role::Observer, ..ticket },
            Ticket { not_after_view: 11, ..ticket },
            Ticket { node: NodePublic { x25519: stranger.x25519, ..node }, ..ticket },
            Ticket { node: NodePublic { ed25519: stranger.ed25519, ..node }, ..ticket },
            Ticket { node: swapped, ..ticket },
            Ticket { signature, ..ticket },
        ] {
            assert_eq!(forged.verify(&listed, 0), Err(TicketError::Signature));
        }
    }

    #[test]
    fn a_ticket_file_reads_back_and_a_damaged_one_is_named() {
        let mut entropy = Entropy::new(&Secret::new([2; 32]));
        let operator = OperatorSecret::generate(&mut entropy);
        let node = NodeSecret::generate(&mut entropy).public();
        let ticket = Ticket::sign(&operator, u64::MAX, node, Role::Observer, u32::MAX);
        assert_eq!(Ticket::from_text(&ticket.to_text()), Ok(ticket));
        let bad = ticket.to_text().replace("role 02", "role 03");
        assert_eq!(Ticket::from_text(&bad), Err(TextError::Line { name: "role" }));
    }
}
