//! Orders of the operators, HALT and RESUME, and what answers them.
//!
//! An order stands for itself: whoever knows the operators' keys can judge it, whoever brought it. What is signed says
//! which mesh, which way and which sequence, so that no order can be used for another; [`Order::signed_bytes`] is the one
//! place that knows it.
//!
//! ```text
//!  0 sequence u64 | 8 scope | 9 action | 10 n | 11 n x (signer u8, ed25519 signature 64)
//! ```

use crate::Bounded;
use crate::NodeId;
use crate::codec::{DecodeError, Pad, Reader, Wire, Writer, layout};

/// Most signatures of an order, and most operators of a mesh.
pub const SIGNERS_MAX: usize = 16;
/// Bytes that an operator signs.
pub const SIGNED_BYTES: usize = 16 + 8 + 8 + 1 + 1 + 1;

const CONTEXT: &[u8; 16] = b"plesio order  v1";

/// Which way an order goes.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum OrderKind {
    /// Stop.
    #[default]
    Halt = 16,
    /// Go on.
    Resume = 17,
}

impl OrderKind {
    /// The type of its message.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl Wire for OrderKind {
    fn encode(&self, writer: &mut Writer<'_>) {
        self.code().encode(writer);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.read::<u8>()? {
            16 => Ok(Self::Halt),
            17 => Ok(Self::Resume),
            _ => Err(DecodeError::Field("kind")),
        }
    }
}

/// One operator's signature, and which of the sorted list it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OrderSignature {
    /// Index in the operators' list, which all nodes of a mesh have in common.
    pub signer: u8,
    /// Of [`Order::signed_bytes`].
    pub signature: [u8; 64],
}

impl Default for OrderSignature {
    fn default() -> Self {
        Self { signer: 0, signature: [0; 64] }
    }
}

impl Wire for OrderSignature {
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.write(&self.signer);
        writer.write(&self.signature);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { signer: reader.read()?, signature: reader.read()? })
    }
}

/// HALT or RESUME, as its message's type says: 11 + 65 n bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Order {
    /// Rises with every order of a mesh.
    pub sequence: u64,
    /// What it is about; 0 is the whole mesh.
    pub scope: u8,
    /// What is done there; 0 is dispatch: slots, results, announcements, proposals.
    pub action: u8,
    /// Signatures, by rising signer.
    pub signatures: Bounded<OrderSignature, SIGNERS_MAX>,
}

impl Order {
    /// What its operators sign.
    #[must_use]
    pub fn signed_bytes(&self, mesh: u64, kind: OrderKind) -> [u8; SIGNED_BYTES] {
        let mut bytes = [0; SIGNED_BYTES];
        let mut writer = Writer::new(&mut bytes);
        writer.put(CONTEXT);
        writer.write(&mesh);
        writer.write(&self.sequence);
        writer.write(&self.scope);
        writer.write(&self.action);
        writer.write(&kind);
        bytes
    }
}

impl Wire for Order {
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.write(&self.sequence);
        writer.write(&self.scope);
        writer.write(&self.action);
        writer.write(&(self.signatures.len() as u8));
        for signature in self.signatures.iter() {
            writer.write(signature);
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (sequence, scope, action) = (reader.read()?, reader.read()?, reader.read()?);
        let count: u8 = reader.read()?;
        let signatures = Bounded::decode_counted(reader, usize::from(count))?;
        Ok(Self { sequence, scope, action, signatures })
    }
}

layout! {
    /// An order is on this node's disk and in force: 48 bytes, so that it is shorter than any order.
    OrderAck {
        /// The node.
        id: NodeId,
        /// Sequence of the order.
        sequence: u64,
        /// Sequence of the header of the datagram that is answered: who did not see it cannot answer it.
        token: u32,
        /// Which way it goes.
        kind: OrderKind,
        /// Zero.
        pad: Pad<3>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_tells_every_field_from_every_other() {
        let order = Order { sequence: 7, ..Order::default() };
        let signed = order.signed_bytes(3, OrderKind::Halt);
        for other in [
            order.signed_bytes(4, OrderKind::Halt),
            order.signed_bytes(3, OrderKind::Resume),
            Order { sequence: 8, ..order }.signed_bytes(3, OrderKind::Halt),
            Order { scope: 1, ..order }.signed_bytes(3, OrderKind::Halt),
            Order { action: 1, ..order }.signed_bytes(3, OrderKind::Halt),
        ] {
            assert_ne!(signed, other);
        }
        assert_eq!(signed[..16], *CONTEXT);
    }

    #[test]
    fn a_count_beyond_the_bound_is_refused() {
        let mut bytes = [0; 11 + 65 * 17];
        bytes[10] = 17;
        let read = |bytes: &[u8]| Reader::new(bytes).read::<Order>();
        assert_eq!(read(&bytes), Err(DecodeError::Field("count")));
        bytes[10] = 16;
        assert_eq!(read(&bytes).map(|order| order.signatures.len()), Ok(16));
        assert_eq!(read(&bytes[..11 + 65 * 16 - 1]), Err(DecodeError::Short));
    }
}
