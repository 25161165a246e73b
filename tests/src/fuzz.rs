//! Fuzzing: whatever reads bytes of a stranger, a peer or a file, fed with real inputs that were damaged.
//!
//! A [`Target`] takes inputs and panics when something that must hold does not; what it knows of its machine
//! stands in a file of its own. Inputs come from a seed alone ([`run`]), so that every finding repeats; those
//! that taught something are kept in `fuzz/corpus` and replayed by the ordinary tests.

use std::path::{Path, PathBuf};

pub mod model;
pub mod mutate;
pub mod proto;
pub mod replay;
pub mod run;
pub mod session;
pub mod texts;
pub mod wire;

/// Something that reads bytes, and what its inputs are made from.
pub struct Target {
    /// Its name, and that of its corpus' folder.
    pub name: &'static str,
    /// Makes a world for one input, or for [`life`](Self::life) of them, one after the other.
    pub begin: fn() -> World,
    /// Inputs that one world takes: more than one where making a world costs more than using it.
    pub life: u64,
    /// Real inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Longest input.
    pub bytes_max: usize,
    /// Whether taking an input may allocate; a parser may not.
    pub allocates: bool,
}

/// Takes inputs, and panics when one shows a fault.
pub type World = Box<dyn FnMut(&[u8])>;

/// Every target.
pub const TARGETS: &[Target] = &[
    wire::DATA,
    wire::NEAR,
    wire::HANDSHAKE,
    wire::SIDEBAND,
    wire::VALUES,
    texts::TARGET,
    replay::TARGET,
    proto::TARGET,
    session::TARGET,
    model::TARGET,
];

/// Where a target's corpus lies.
#[must_use]
pub fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name)
}

/// The files of a target's corpus, in the order of their names.
///
/// # Errors
/// Its folder or one of its files cannot be read.
pub fn files(target: &Target) -> std::io::Result<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder(target))? {
        paths.push(entry?.path());
    }
    paths.sort();
    paths.iter().map(std::fs::read).collect()
}

/// Takes fields off the front of an input; behind its end there are zeros.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all of it was taken.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// At most `count` bytes.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let taken = self.take(N);
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// The next two bytes as a number.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }
}
