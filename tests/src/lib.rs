//! Shell. Scenarios that cross crates; each stands as a test of its own beside this folder.

#![forbid(unsafe_code)]
