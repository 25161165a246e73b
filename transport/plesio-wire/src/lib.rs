//! Pure. Every byte that crosses a link: the words of the mesh, the data-plane and sideband layouts, checksums
//! and digests.
//!
//! Bytes become a value that can only be legal, once, here: every decoder checks length and range before it
//! builds anything, allocates nothing, and `encode(decode(bytes)) == bytes` for every legal input (I11).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod bounded;
pub mod codec;
pub mod data;
pub mod digest;
pub mod draw;
pub mod handshake;
pub mod near;
mod schedule;
pub mod shares;
pub mod sideband;
mod speed;
pub mod value;
mod words;

pub use bounded::Bounded;
pub use codec::{DecodeError, Reader, Wire, Writer};
pub use digest::Digest;
pub use schedule::Schedule;
pub use speed::{Speed, Took};
pub use words::{
    Ballot, Frame, Incarnation, Instant, LogIndex, MEMBERS_MAX, MemberIndex, MemberSet, MeshTime, NodeId,
    NodeKey, SlotSeq, Span, Version,
};
