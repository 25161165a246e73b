//! Shell. Hosts on one machine: network namespaces, and virtual cables between them.
//!
//! For tests and benches; a node needs none of it. It wants the right to make namespaces and the `ip` command. Everything goes
//! when a value is dropped, on a panic too, and what a killed process left behind is taken away by the next one.

#![forbid(unsafe_code)]

mod hosts;
mod pair;

pub use hosts::Hosts;
pub use pair::{CABLE, Pair, Side};
