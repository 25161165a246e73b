//! Shell. Scenarios that cross crates; each stands as a test of its own beside this folder. Here is what they share.

#![forbid(unsafe_code)]

pub mod mesh;
