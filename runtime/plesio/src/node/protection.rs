//! Who a node is to others, and what protects its links.

use plesio_session::{NodeSecret, PoolKey, Secret, Ticket, TicketError};
use plesio_wire::NodeId;
use std::net::SocketAddr;

/// What a node shows and knows to make sessions with others.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its keys; the public one of its handshakes is its id.
    pub node: NodeSecret,
    /// Its admission, signed by an operator.
    pub ticket: Ticket,
    /// The mesh's id and key.
    pub pool: PoolKey,
    /// Operators whose tickets admit others.
    pub operators: Vec<[u8; 32]>,
    /// 32 bytes of the system's randomness, drawn by this process and never used before.
    pub seed: Secret<32>,
}

impl Identity {
    /// Whether others that know the same operators will take it.
    pub(crate) fn check(&self) -> Result<(), TicketError> {
        let shown = Ticket { mesh: self.pool.mesh, node: self.node.public(), ..self.ticket };
        shown.verify(&self.operators, 0)
    }
}

/// What keeps datagrams from being read or altered on their way, on both planes.
#[derive(Clone, Debug)]
pub enum Protection {
    /// Everything is sealed, and only who was admitted is heard.
    Sealed(Box<Identity>),
    /// Checksums against accidents and nothing against anybody: refused off this host unless [`Trust::Captive`].
    Plaintext,
}

impl Protection {
    /// In the words of the data socket.
    pub(crate) const fn of_socket(&self, trust: Trust) -> plesio_udp::Protection {
        match (self, trust) {
            (Self::Sealed(_), _) => plesio_udp::Protection::Sealed,
            (Self::Plaintext, Trust::Open) => plesio_udp::Protection::Plaintext,
            (Self::Plaintext, Trust::Captive) => plesio_udp::Protection::Captive,
        }
    }
}

/// Who can reach the network that the addresses belong to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Trust {
    /// Anybody.
    #[default]
    Open,
    /// Nobody but the mesh: plaintext may leave the host.
    Captive,
}

/// A member through which a node comes into a running mesh.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seed {
    /// Its id: the key that its handshakes prove.
    pub id: NodeId,
    /// Where its sideband listens.
    pub sideband: SocketAddr,
    /// Where its data plane listens, handshakes included.
    pub data: SocketAddr,
}
