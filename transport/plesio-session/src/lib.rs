//! Pure. Sessions between nodes: handshake, admission tickets, packet protection, replay windows.
//!
//! Time, randomness and datagrams come in, datagrams and events go out; there is no clock and no socket here.
//! [`Sessions`] is the machine; what seals and opens packets comes out of it as objects that move to where the bytes
//! are. Pure in manner: its cipher library looks at the CPU, and so needs `std`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;
extern crate std;

mod cipher;
mod config;
mod identity;
mod limit;
mod mac;
mod noise;
mod order;
mod peer;
mod refusal;
mod replay;
mod seal;
mod secret;
mod sessions;
mod suites;
mod text;
mod ticket;

pub use config::{Config, Limits, OPERATORS_MAX};
pub use identity::{NodePublic, NodeSecret, OperatorPublic, OperatorSecret, PoolKey};
pub use limit::{SourceLimit, TotalLimit};
pub use order::{SignedOrder, verify_signature};
pub use refusal::{Counters, Refusal};
pub use replay::{DataWindow, ReplayWindow, SidebandWindow, WINDOW_DATA, WINDOW_SIDEBAND};
pub use seal::{
    DataOpener, DataSealer, SealError, SidebandKeys, SidebandOpened, SidebandOpener, SidebandSealer,
};
pub use secret::{Entropy, Secret, SecretText};
pub use sessions::{ConnectError, Event, Lives, PeerId, Sessions, Transmit};
pub use suites::Suites;
pub use text::TextError;
pub use ticket::{Ticket, TicketError};
