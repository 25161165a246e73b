//! The kernels' source: one file and the headers that it includes, as every compiler sees them.
//!
//! Follows `#include "name"` from the one translation unit; a name with a slash is the emulator's and no compiler of
//! artefacts gets there. Invariant: the digest is over exactly the files that make an artefact, so two artefacts with
//! the same digest of source take the same parameters.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use plesio_wire::digest::{Digest, Hasher};

/// The one translation unit.
pub const UNIT: &str = "plesio.cu";
/// Nothing written by hand or generated is longer.
const FILE_BYTES_MAX: u64 = 8 << 20;
const FILES_MAX: usize = 64;

/// The text of every file, the included before the including.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    /// Name and text; the translation unit is the last one.
    files: Vec<(String, String)>,
}

/// Why the source cannot be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourceError {
    /// The file that is the trouble.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; restore the kernels' source", self.path.display(), self.what)
    }
}

impl std::error::Error for SourceError {}

impl Source {
    /// Reads the translation unit in `folder` and what it includes.
    pub fn read(folder: &Path) -> Result<Self, SourceError> {
        let mut source = Self { files: Vec::new() };
        source.follow(folder, UNIT, &mut BTreeSet::new())?;
        Ok(source)
    }

    fn follow(&mut self, folder: &Path, name: &str, seen: &mut BTreeSet<String>) -> Result<(), SourceError> {
        if !seen.insert(name.into()) {
            return Ok(());
        }
        let path = folder.join(name);
        let refuse = |what: String| SourceError { path: path.clone(), what };
        if seen.len() > FILES_MAX {
            return Err(refuse(format!("more than {FILES_MAX} files")));
        }
        let len_bytes = std::fs::metadata(&path).map_err(|cause| refuse(cause.to_string()))?.len();
        if len_bytes > FILE_BYTES_MAX {
            return Err(refuse(format!("{len_bytes} bytes, at most {FILE_BYTES_MAX} are expected")));
        }
        let text = std::fs::read_to_string(&path).map_err(|cause| refuse(cause.to_string()))?;
        if text.contains('\0') {
            return Err(refuse("a zero byte in a text".into()));
        }
        for included in text.lines().filter_map(included) {
            self.follow(folder, included, seen)?;
        }
        self.files.push((name.into(), text));
        Ok(())
    }

    /// Digest of all names and texts.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::default();
        for (name, text) in &self.files {
            for bytes in [name.as_bytes(), text.as_bytes()] {
                hasher.update(&(bytes.len() as u64).to_le_bytes());
                hasher.update(bytes);
            }
        }
        hasher.finish()
    }

    /// Names of all files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(name, _)| name.as_str())
    }

    /// One text for compilers that open no files: each header once, where it is needed first, with the lines that say
    /// whence each line comes.
    #[must_use]
    pub fn flatten(&self) -> String {
        let mut flat = String::new();
        for (name, text) in &self.files {
            flat += &format!("#line 1 \"{name}\"\n");
            for line in text.lines() {
                let gone = included(line).is_some() || line.trim() == "#pragma once";
                flat += if gone { "" } else { line };
                flat += "\n";
            }
        }
        flat
    }
}

/// The kernels' header that a line includes.
fn included(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?;
    let (name, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
    (!name.contains('/')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::tests::Scratch;

    fn tree(scratch: &Scratch) -> Source {
        scratch.write("a.h", "#pragma once\n#include \"b.h\"\nint a;\n");
        scratch.write("b.h", "#pragma once\n#ifndef GPU\n#include \"emulator/machine.h\"\n#endif\nint b;\n");
        scratch.write("plesio.cu", "// unit\n#include \"b.h\"\n  # include \"a.h\"\nint unit;\n");
        Source::read(scratch.path()).unwrap()
    }

    #[test]
    fn every_header_comes_once_and_before_what_needs_it() {
        let source = tree(&Scratch::new("source"));
        assert_eq!(source.names().collect::<Vec<_>>(), ["b.h", "a.h", "plesio.cu"]);
        assert_eq!(
            source.flatten(),
            "#line 1 \"b.h\"\n\n#ifndef GPU\n#include \"emulator/machine.h\"\n#endif\nint b;\n\
             #line 1 \"a.h\"\n\n\nint a;\n\
             #line 1 \"plesio.cu\"\n// unit\n\n\nint unit;\n"
        );
    }

    #[test]
    fn the_digest_follows_what_is_included_and_nothing_else() {
        let scratch = Scratch::new("digest");
        let before = tree(&scratch).digest();
        scratch.write("unused.h", "int unused;\n");
        assert_eq!(Source::read(scratch.path()).unwrap().digest(), before);
        scratch.write("b.h", "int b;\n");
        assert_ne!(Source::read(scratch.path()).unwrap().digest(), before);
    }

    #[test]
    fn headers_that_include_each_other_end() {
        let scratch = Scratch::new("circle");
        scratch.write("plesio.cu", "#include \"a.h\"\n");
        scratch.write("a.h", "#include \"b.h\"\n");
        scratch.write("b.h", "#include \"a.h\"\n#include \"plesio.cu\"\n");
        assert_eq!(Source::read(scratch.path()).unwrap().names().count(), 3);
    }

    #[test]
    fn a_missing_header_and_a_flood_of_headers_are_named() {
        let scratch = Scratch::new("missing");
        assert!(Source::read(scratch.path()).unwrap_err().to_string().contains("plesio.cu"));
        scratch.write("plesio.cu", "#include \"gone.h\"\n");
        assert!(Source::read(scratch.path()).unwrap_err().to_string().contains("gone.h"));
        for number in 0..=FILES_MAX {
            scratch.write(&format!("{number}.h"), &format!("#include \"{}.h\"\n", number + 1));
        }
        scratch.write("plesio.cu", "#include \"0.h\"\n");
        assert!(Source::read(scratch.path()).unwrap_err().what.contains("more than 64"));
    }
}
