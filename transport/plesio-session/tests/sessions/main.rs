//! Sessions as their nodes see them: handshakes, protection, changes of keys.

mod handshake;
mod mesh;
mod protection;
