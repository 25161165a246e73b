//! What a connection makes of real paths: shaped, long, jittery, lossy, crowded.
//!
//! The link is simulated and the clock virtual, so every figure repeats bit for bit.

mod congestion;
mod incast;
mod shaped;
