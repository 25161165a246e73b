//! The list that vouches for a folder of artefacts. It is found next to them, as `manifest`:
//!
//! ```text
//! plesio-kernels 1 5d0c1f6e...              format, and the digest of the source
//! compiler clang Debian clang version 19.1.7 (3~deb12u1)
//! compiler nvcc Cuda compilation tools, release 13.0, V13.0.88
//! 8a1f93c2...  26112  sm_87  sm_87.cubin    digest, bytes, target, file
//! end 77e0b1d4...                           digest of all lines above
//! ```
//!
//! Invariant: what parses is complete and unaltered, names each target once, and names no file outside the folder. It
//! guards against damage and mixed-up files; who can write the folder can also write the manifest.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use plesio_wire::digest::Digest;

use crate::Target;

/// What the manifest is called in its folder.
pub const FILE: &str = "manifest";
/// Longer ones are not read.
pub const MANIFEST_BYTES_MAX: u64 = 32 << 10;
/// More artefacts than all chips that the two vendors still make.
pub const ARTEFACTS_MAX: usize = 64;
/// Larger artefacts are not read; ours are below one megabyte.
pub const ARTEFACT_BYTES_MAX: u64 = 16 << 20;

const HEAD: &str = "plesio-kernels";
const FORMAT: &str = "1";

/// What one line says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Digest of the file.
    pub digest: Digest,
    /// Its length.
    pub len_bytes: u64,
    /// What it was compiled for.
    pub target: Target,
    /// Its name within the folder.
    pub file: String,
}

/// All of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    /// Digest of the source that all artefacts were compiled from.
    pub source: Digest,
    /// Compilers and their versions, for people to read.
    pub compilers: Vec<String>,
    /// One for each artefact.
    pub entries: Vec<Entry>,
}

/// Why a text is no manifest.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ManifestError {
    /// The first line is another one: not ours, or of another format.
    Head {
        /// How the first line begins.
        found: String,
    },
    /// It ends too early, or something stands behind its end.
    Cut,
    /// It is not what was written.
    Altered,
    /// A line that says nothing that is known, or what may not be.
    Line {
        /// Its number, from one.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// More artefacts than there are chips.
    Crowded,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head { found } => write!(f, "it begins with {found:?} and not with \"{HEAD} {FORMAT}\""),
            Self::Cut => f.write_str("its end is missing, or something stands behind it"),
            Self::Altered => f.write_str("its lines are not those that were written"),
            Self::Line { line, what } => write!(f, "line {line}: {what}"),
            Self::Crowded => write!(f, "more than {ARTEFACTS_MAX} artefacts"),
        }
    }
}

impl std::error::Error for ManifestError {}

impl Manifest {
    /// Reads a manifest's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let source = head(first).ok_or_else(|| ManifestError::Head {
            found: String::from_utf8_lossy(&first[..first.len().min(40)]).into(),
        })?;
        let lines = ended(bytes)?;
        let mut manifest = Self { source, compilers: Vec::new(), entries: Vec::new() };
        let mut seen = BTreeSet::new();
        for (index, line) in lines.lines().enumerate().skip(1) {
            let refuse = |what| ManifestError::Line { line: index + 1, what };
            if let Some(compiler) = line.strip_prefix("compiler ") {
                manifest.compilers.push(compiler.into());
                continue;
            }
            if manifest.entries.len() == ARTEFACTS_MAX {
                return Err(ManifestError::Crowded);
            }
            let entry = entry(line).map_err(refuse)?;
            if !seen.insert(entry.target.clone()) {
                return Err(refuse("the target is there twice"));
            }
            manifest.entries.push(entry);
        }
        Ok(manifest)
    }

    /// The text that [`Manifest::parse`] reads.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEAD} {FORMAT} {}\n", self.source);
        for compiler in &self.compilers {
            text += &format!("compiler {compiler}\n");
        }
        for Entry { digest, len_bytes, target, file } in &self.entries {
            text += &format!("{digest}  {len_bytes}  {target}  {file}\n");
        }
        let end = Digest::of(text.as_bytes());
        writeln!(text, "end {end}").expect("a string takes all");
        text
    }
}

/// The digest of the source in the first line.
fn head(line: &[u8]) -> Option<Digest> {
    let mut words = str::from_utf8(line).ok()?.split(' ');
    let known = words.next() == Some(HEAD) && words.next() == Some(FORMAT);
    let source = digest(words.next()?)?;
    (known && words.next().is_none()).then_some(source)
}

/// The lines above the last one, when the last one vouches for them.
fn ended(bytes: &[u8]) -> Result<&str, ManifestError> {
    let text = str::from_utf8(bytes).map_err(|_| ManifestError::Altered)?;
    let whole = text.strip_suffix('\n').ok_or(ManifestError::Cut)?;
    let begin = whole.rfind('\n').ok_or(ManifestError::Cut)? + 1;
    let end = whole[begin..].strip_prefix("end ").ok_or(ManifestError::Cut)?;
    let found = digest(end).ok_or(ManifestError::Altered)?;
    let lines = &text[..begin];
    if found == Digest::of(lines.as_bytes()) { Ok(lines) } else { Err(ManifestError::Altered) }
}

fn entry(line: &str) -> Result<Entry, &'static str> {
    let mut words = line.split("  ");
    let mut word = |what| words.next().ok_or(what);
    let digest = digest(word("it is empty")?).ok_or("it does not begin with a digest")?;
    let len_bytes = word("the length is missing")?.parse().map_err(|_| "the length is no number")?;
    let target = word("the target is missing")?.parse().map_err(|_| "the target is no architecture")?;
    let file: String = word("the file is missing")?.into();
    if words.next().is_some() {
        return Err("there is more than digest, length, target and file");
    }
    if !is_plain(&file) {
        return Err("the file must be a plain name, of letters, digits, '.', '_' and '-', inside the folder");
    }
    if len_bytes == 0 || len_bytes > ARTEFACT_BYTES_MAX {
        return Err("no artefact is empty or larger than 16 MiB");
    }
    Ok(Entry { digest, len_bytes, target, file })
}

/// A name that stays inside the folder, on every system.
fn is_plain(file: &str) -> bool {
    let letters = file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    letters && (1..=64).contains(&file.len()) && !file.starts_with(['.', '-']) && file != FILE
}

fn digest(hex: &str) -> Option<Digest> {
    let mut bytes = [0; 16];
    if hex.len() != 2 * bytes.len() || !hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(Digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let entry = |target: &str, bytes: &[u8]| {
            let target: Target = target.parse().unwrap();
            Entry {
                digest: Digest::of(bytes),
                len_bytes: bytes.len() as u64,
                file: target.file_name(),
                target,
            }
        };
        Manifest {
            source: Digest::of(b"source"),
            compilers: vec![
                "clang Debian clang version 19.1.7 (3~deb12u1)".into(),
                "nvcc  two  blanks".into(),
            ],
            entries: vec![
                entry("compute_75", b".version 6.3"),
                entry("sm_87", b"ELF"),
                entry("gfx942", b"object"),
            ],
        }
    }

    /// A manifest whose last line vouches for whatever lines it has.
    fn sealed(lines: &str) -> Vec<u8> {
        format!("{lines}end {}\n", Digest::of(lines.as_bytes())).into_bytes()
    }

    fn refused(line: &str) -> String {
        let lines = format!("plesio-kernels 1 {}\n{line}\n", Digest::of(b""));
        Manifest::parse(&sealed(&lines)).unwrap_err().to_string()
    }

    #[test]
    fn a_manifest_comes_back() {
        assert_eq!(Manifest::parse(manifest().to_text().as_bytes()), Ok(manifest()));
    }

    #[test]
    fn every_truncation_is_refused() {
        let text = manifest().to_text().into_bytes();
        for len in 0..text.len() {
            assert!(Manifest::parse(&text[..len]).is_err(), "{len} of {} bytes", text.len());
        }
    }

    #[test]
    fn every_altered_byte_is_refused() {
        let text = manifest().to_text().into_bytes();
        for at in 0..text.len() {
            for flip in [1, 0x20, 0x80] {
                let mut altered = text.clone();
                altered[at] ^= flip;
                assert!(Manifest::parse(&altered).is_err(), "byte {at} with {flip:#x} flipped");
            }
        }
    }

    #[test]
    fn what_stands_behind_the_end_is_refused() {
        let text = manifest().to_text() + "sm_90\n";
        assert_eq!(Manifest::parse(text.as_bytes()), Err(ManifestError::Cut));
    }

    #[test]
    fn another_format_is_told_by_its_first_line() {
        for first in ["plesio-kernels 2 00", "#!/bin/sh", "", "\u{1}\u{2}"] {
            let told = Manifest::parse(&sealed(&format!("{first}\n"))).unwrap_err();
            assert!(matches!(told, ManifestError::Head { .. }), "{first:?}: {told:?}");
        }
    }

    #[test]
    fn files_outside_the_folder_are_refused() {
        let hex = "00112233445566778899aabbccddeeff";
        for file in [
            "../sm_90.cubin",
            "/etc/passwd",
            "a/b",
            "..",
            ".",
            ".hidden",
            "",
            "a\\b",
            "c:x",
            "-x",
            "manifest",
            "a\tb",
            "caf\u{e9}",
            &"x".repeat(65),
        ] {
            let told = refused(&format!("{hex}  8  sm_90  {file}"));
            assert!(told.contains("plain name"), "{file:?}: {told}");
        }
        let lines = format!("plesio-kernels 1 {hex}\n{hex}  8  sm_90  sm_90.cubin\n");
        assert!(Manifest::parse(&sealed(&lines)).is_ok(), "the line itself is right");
    }

    #[test]
    fn lines_that_lie_about_themselves_are_refused() {
        let hex = "00112233445566778899aabbccddeeff";
        for (line, what) in [
            (String::new(), "digest"),
            (format!("{}  8  sm_90  x", &hex[1..]), "digest"),
            (format!("{}  8  sm_90  x", hex.to_uppercase()), "digest"),
            (format!("+{}  8  sm_90  x", &hex[1..]), "digest"),
            (hex.to_string(), "length is missing"),
            (format!("{hex}  -1  sm_90  x"), "no number"),
            (format!("{hex}  99999999999999999999999  sm_90  x"), "no number"),
            (format!("{hex}  0  sm_90  x"), "empty or larger"),
            (format!("{hex}  {}  sm_90  x", ARTEFACT_BYTES_MAX + 1), "empty or larger"),
            (format!("{hex}  {}  sm_90  x", u64::MAX), "empty or larger"),
            (format!("{hex}  8  sm_9x  x"), "no architecture"),
            (format!("{hex}  8  sm_90"), "file is missing"),
            (format!("{hex}  8  sm_90  x  y"), "more than"),
            (format!("{hex}  8  sm_90  x\n{hex}  8  sm_90  y"), "twice"),
        ] {
            let told = refused(&line);
            assert!(told.contains(what), "{line:?}: {told}");
        }
    }

    #[test]
    fn more_artefacts_than_chips_are_refused() {
        let hex = "00112233445566778899aabbccddeeff";
        let many: String =
            (100..=100 + ARTEFACTS_MAX).map(|sm| format!("{hex}  8  sm_{sm}  x{sm}\n")).collect();
        assert_eq!(refused(many.trim_end()), ManifestError::Crowded.to_string());
    }
}
