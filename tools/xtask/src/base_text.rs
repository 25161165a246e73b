//! The text that the demo's base model is trained on: Jane Austen's six novels, about 4 MB.
//!
//! The text is not kept in the tree; this file is its recipe. The novels are in the public domain; Debian
//! carries them in `r-cran-janeaustenr`, where each novel is a vector of lines in R's serialised form.
//! Invariant: what is written is byte for byte what the checksums below name, or the task fails. No
//! shard of the demo contains any of it (`tools/plesio-cli/data/shards/PROVENANCE.md`).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::bufread::ZlibDecoder;

const PACKAGE: &str = "r-cran-janeaustenr";
const VERSION: &str = "1.0.0-1";
const PACKAGE_SHA256: &str = "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95";
/// Where the novels lie inside the package.
const DATA: &str = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb";
/// Nothing in the package is larger; a longer vector or chunk means that the file is another one.
const CHUNK_BYTES_MAX: u64 = 8 << 20;
/// Northanger Abbey ends with a modern editor's note: everything from here on is left out.
const EDITORS_NOTE: &[u8] = b"\nA NOTE ON THE TEXT\n";

/// The novels in the package's order, and what the extracted text must be.
const NOVELS: [(&str, &str); 6] = [
    ("emma.txt", "f12316bf0c8b84c2e42ceed5ce68115468680fe1d075dbb3132c34596d99628a"),
    ("mansfield-park.txt", "d678a6879c3147a0c350137057a9d47e87341206a2dbc25fcf0348d12150b00f"),
    ("northanger-abbey.txt", "d72d779c7808055baeead44d3bbdf29d0cf9d2ae41cab99c72b58b267cc9a910"),
    ("persuasion.txt", "c34e4231331da15a9506e9c0b85d4d7ab7ea124fa373de92b7c3f5c07c7ae711"),
    ("pride-and-prejudice.txt", "c70e1eaebc27cf3d5e7cdbf10ba55d2fe826ff6bf3ace65f151b93c6cc301c0f"),
    ("sense-and-sensibility.txt", "d8ba5666775da4c3b4080f967dfe21c95ad09be660796b28c6c24bffdf578598"),
];

/// `base-text --out DIR [--deb FILE]`: writes DIR/NOVEL.txt.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let (out, deb) = parse(arguments)?;
    for (program, package) in [("dpkg-deb", "dpkg"), ("sha256sum", "coreutils")] {
        need(program, package)?;
    }
    let work = out.join("work");
    std::fs::create_dir_all(&work).map_err(|error| {
        format!("cannot make {}: {error}; choose another folder with --out", work.display())
    })?;
    let deb = match deb {
        Some(deb) => deb,
        None => download(&work)?,
    };
    let found = sha256(&deb)?;
    if found != PACKAGE_SHA256 {
        eprintln!("base-text: {} is {found}, not the {PACKAGE} {VERSION} expected; trying it", deb.display());
    }
    call(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&work))?;
    let data = work.join(DATA);
    let bytes = std::fs::read(&data).map_err(|error| {
        format!("cannot read {}: {error}; is {} {PACKAGE}?", data.display(), deb.display())
    })?;
    let mut rest = bytes.as_slice();
    for (name, expected) in NOVELS {
        let lines =
            next_novel(&mut rest).map_err(|error| format!("{name} in {}: {error}", data.display()))?;
        let path = out.join(name);
        std::fs::write(&path, clean(&lines))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let found = sha256(&path)?;
        if found != expected {
            return Err(format!(
                "{} has sha256 {found}, expected {expected}: the package is another version; get {PACKAGE} \
                 {VERSION} and give it with --deb",
                path.display()
            ));
        }
        println!("{found}  {}", path.display());
    }
    std::fs::remove_dir_all(&work).map_err(|error| format!("cannot remove {}: {error}", work.display()))
}

fn parse(arguments: &[String]) -> Result<(PathBuf, Option<PathBuf>), String> {
    let (mut out, mut deb) = (None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let place = match argument.as_str() {
            "--out" => &mut out,
            "--deb" => &mut deb,
            other => return Err(format!("unknown argument {other:?}; use --out DIR [--deb FILE]")),
        };
        let value = rest.next().ok_or_else(|| format!("{argument} needs a path"))?;
        *place = Some(PathBuf::from(value));
    }
    Ok((out.ok_or("--out DIR is missing: where shall the texts go?")?, deb))
}

/// Says which Debian package brings a program that is not here.
fn need(program: &str, package: &str) -> Result<(), String> {
    match Command::new(program).arg("--version").output() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("cannot run {program}: {error}; it comes with Debian's package {package}")),
    }
}

fn call(command: &mut Command) -> Result<Vec<u8>, String> {
    let name = format!("{command:?}");
    let output = command.output().map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// Fetches the package with `apt-get download`, which needs no root, only a package list.
fn download(work: &Path) -> Result<PathBuf, String> {
    need("apt-get", "apt")?;
    let wanted = format!("{PACKAGE}={VERSION}");
    call(Command::new("apt-get").args(["download", &wanted]).current_dir(work)).map_err(|error| {
        format!(
            "{error}\nrun `apt-get update` first; if your Debian has another version, fetch {PACKAGE} {VERSION} \
             and give it with --deb FILE"
        )
    })?;
    let entries =
        std::fs::read_dir(work).map_err(|error| format!("cannot list {}: {error}", work.display()))?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| format!("apt-get left no .deb in {}", work.display()))
}

fn sha256(path: &Path) -> Result<String, String> {
    let stdout = call(Command::new("sha256sum").arg("--").arg(path))?;
    Ok(String::from_utf8_lossy(&stdout).chars().take(64).collect())
}

/// Takes the next chunk off an R lazy-load database: a big-endian length, then a zlib stream of that length
/// unpacked, which holds one character vector.
fn next_novel(rest: &mut &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let unpacked_bytes = u64::from(take_u32(rest)?);
    if unpacked_bytes > CHUNK_BYTES_MAX {
        return Err(format!("a chunk of {unpacked_bytes} bytes; at most {CHUNK_BYTES_MAX} expected"));
    }
    let mut unpacked = Vec::new();
    let mut decoder = ZlibDecoder::new(*rest);
    decoder
        .by_ref()
        .take(unpacked_bytes + 1)
        .read_to_end(&mut unpacked)
        .map_err(|error| format!("zlib: {error}"))?;
    if unpacked.len() as u64 != unpacked_bytes {
        return Err(format!("{} bytes unpacked, {unpacked_bytes} announced", unpacked.len()));
    }
    *rest = decoder.into_inner();
    character_vector(&unpacked)
}

/// Reads R's serialisation, XDR form, version 3, of one character vector (R Internals, 1.8).
fn character_vector(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    const STRING_VECTOR: u32 = 16;
    const STRING: u32 = 9;
    const MISSING: u32 = u32::MAX;
    let mut rest = bytes.strip_prefix(b"X\n").ok_or("not R's XDR form")?;
    let version = take_u32(&mut rest)?;
    let _written_by = take_u32(&mut rest)?;
    let _readable_by = take_u32(&mut rest)?;
    if version != 3 {
        return Err(format!("R serialisation version {version}, only 3 is known here"));
    }
    let encoding_len = take_u32(&mut rest)?;
    take(&mut rest, encoding_len)?;
    if take_u32(&mut rest)? & 0xff != STRING_VECTOR {
        return Err("not a character vector".into());
    }
    let count = take_u32(&mut rest)?;
    let mut lines = Vec::new();
    for _ in 0..count {
        if take_u32(&mut rest)? & 0xff != STRING {
            return Err(format!("element {} is not a string", lines.len()));
        }
        let len = take_u32(&mut rest)?;
        lines.push(if len == MISSING { Vec::new() } else { take(&mut rest, len)?.to_vec() });
    }
    Ok(lines)
}

fn take<'a>(rest: &mut &'a [u8], len: u32) -> Result<&'a [u8], String> {
    let (head, tail) = rest.split_at_checked(len as usize).ok_or("the data end too early")?;
    *rest = tail;
    Ok(head)
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, String> {
    let (head, tail) = rest.split_first_chunk().ok_or("the data end too early")?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head))
}

/// One text: no trailing blanks, at most one empty line in a row, no editor's note, a newline at the end.
fn clean(lines: &[Vec<u8>]) -> Vec<u8> {
    let mut text: Vec<u8> = Vec::new();
    for line in lines.iter().map(|line| line.trim_ascii_end()) {
        let doubled = text.is_empty() || text.ends_with(b"\n\n");
        if !(line.is_empty() && doubled) {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
    }
    let end = text.windows(EDITORS_NOTE.len()).position(|window| window == EDITORS_NOTE);
    text.truncate(end.unwrap_or(text.len()));
    text.truncate(text.trim_ascii_end().len());
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(lines: &[&[u8]]) -> Vec<u8> {
        let mut bytes = b"X\n".to_vec();
        for word in [3, 0x0004_0201, 0x0003_0500, 0, 16, lines.len() as u32] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        for line in lines {
            bytes.extend_from_slice(&0x0004_0009_u32.to_be_bytes());
            bytes.extend_from_slice(&(line.len() as u32).to_be_bytes());
            bytes.extend_from_slice(line);
        }
        bytes
    }

    #[test]
    fn a_character_vector_comes_back() {
        let lines = character_vector(&vector(&[b"EMMA", b"", b"By Jane Austen"])).unwrap();
        assert_eq!(lines, [b"EMMA".to_vec(), Vec::new(), b"By Jane Austen".to_vec()]);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = vector(&[b"EMMA", b"By Jane Austen"]);
        for len in 0..whole.len() {
            assert!(character_vector(&whole[..len]).is_err(), "{len} of {} bytes", whole.len());
        }
    }

    #[test]
    fn cleaning_folds_blanks_and_drops_the_note() {
        let lines =
            ["", "A  ", "", "", "b", "", "A NOTE ON THE TEXT", "modern"].map(|l| l.as_bytes().to_vec());
        assert_eq!(clean(&lines), b"A\n\nb\n");
    }
}
