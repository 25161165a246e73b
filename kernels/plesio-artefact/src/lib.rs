//! Shell. What the kernels are compiled to, by which compilers, and the manifest that vouches for it.
//!
//! Serves three who must agree: the task that builds all artefacts, the build script that embeds some, and the
//! program that reads a folder of them. Knows: targets, compilers and how they are called, digests. Does not know: a
//! runtime, a device, what a kernel does. Invariant: bytes that come out of a folder are those that its manifest
//! names.
//!
//! ```text
//!   kernels/source --- Source --- Job --- Artefact --- embedded, or a folder with its Manifest
//!                      digest     compiler  target, bytes, digest
//! ```

#![forbid(unsafe_code)]

pub mod compile;
pub mod driver;
pub mod embed;
pub mod folder;
pub mod manifest;
pub mod source;
pub mod target;
pub mod toolchain;

use std::borrow::Cow;

pub use compile::{CompileError, Job};
pub use embed::{Delivery, Embedding};
pub use folder::FolderError;
pub use manifest::{Manifest, ManifestError};
pub use plesio_wire::digest::Digest;
pub use source::{Source, SourceError};
pub use target::{Kind, Target};
pub use toolchain::{Compiler, Lack, Places, Toolchain};

/// Kernels that were compiled for one target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Artefact {
    /// What runs them.
    pub target: Target,
    /// What a runtime loads: text for PTX, which ends without a zero, else an ELF file.
    pub bytes: Cow<'static, [u8]>,
    /// What `bytes` had as their digest when they were compiled.
    pub digest: Digest,
}

impl Artefact {
    /// Bytes as a compiler has just made them.
    #[must_use]
    pub fn new(target: Target, bytes: Vec<u8>) -> Self {
        Self { target, digest: Digest::of(&bytes), bytes: bytes.into() }
    }

    /// What a runtime has to do with the bytes.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.target.kind()
    }

    /// Whether the bytes are still those that were compiled.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        Digest::of(&self.bytes) == self.digest
    }
}
