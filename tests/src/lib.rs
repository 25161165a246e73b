//! Shell. Scenarios that cross crates; each stands as a test of its own beside this folder. Here is what they share.

#![forbid(unsafe_code)]

pub mod fuzz;
pub mod mesh;
pub mod ranks;

/// Says that a test did not run here, and why: to stderr itself, since what a passing test prints is kept from the
/// reader.
pub fn say_skipped(why: &str) {
    use std::io::Write;
    // A closed stderr hears nothing.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
