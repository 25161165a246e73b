//! The house rules that a program can check: `cargo xtask tidy`.
//!
//! Reads the tree's own files and judges lines; it never builds anything. Each finding says where, what,
//! and what to do, and the task fails when there is one. What needs the crate graph is not here: the
//! layering test reads that from `cargo metadata`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

mod rows;
mod source;
#[cfg(test)]
mod tests;

use source::Line;

/// A longer file has to find its second idea, or stand in [`LONG_FILES`] with its reason.
const FILE_LINES_MAX: usize = 600;
const LONG_FILES: &[(&str, &str)] = &[];

/// How far above an unsafe operation its SAFETY comment may begin.
const SAFETY_LINES_MAX: usize = 6;

/// The only files that may say `unsafe`: the named parts of the unsafe cores, tests that play the kernel, the allocator or
/// whoever launches, and a bench whose ceiling is compiled for the machine's vectors.
const UNSAFE_FILES: &[&str] = &[
    "benches/benches/aggregate/streams.rs",
    "kernels/plesio-cpu/src/dispatch.rs",
    "kernels/plesio-cpu/src/matmul.rs",
    "kernels/plesio-cpu/src/shared.rs",
    "kernels/plesio-cpu/src/stream.rs",
    "kernels/plesio-launch/src/nvrtc.rs",
    "kernels/plesio-cuda/src/context.rs",
    "kernels/plesio-cuda/src/discovery.rs",
    "kernels/plesio-cuda/src/graph.rs",
    "kernels/plesio-cuda/src/library.rs",
    "kernels/plesio-cuda/src/memory.rs",
    "kernels/plesio-cuda/src/module.rs",
    "kernels/plesio-cuda/src/runtime.rs",
    "kernels/plesio-cuda/src/stream.rs",
    "kernels/plesio-cuda/src/sys.rs",
    "kernels/plesio-hip/src/context.rs",
    "kernels/plesio-hip/src/discovery.rs",
    "kernels/plesio-hip/src/graph.rs",
    "kernels/plesio-hip/src/library.rs",
    "kernels/plesio-hip/src/memory.rs",
    "kernels/plesio-hip/src/module.rs",
    "kernels/plesio-hip/src/runtime.rs",
    "kernels/plesio-hip/src/stream.rs",
    "kernels/plesio-hip/src/sys/tests.rs",
    "kernels/plesio-launch/src/accelerator.rs",
    "kernels/plesio-launch/src/call.rs",
    "kernels/plesio-launch/src/handle.rs",
    "kernels/plesio-launch/src/library.rs",
    "kernels/plesio-launch/src/memory.rs",
    "kernels/plesio-launch/src/recorder.rs",
    "kernels/plesio-launch/src/runtime.rs",
    "tools/plesio-emulator/src/emulated.rs",
    "tools/plesio-emulator/tests/planted.rs",
    "runtime/plesio-memory/src/arena.rs",
    "runtime/plesio-memory/src/backing.rs",
    "runtime/plesio-memory/src/arena/models.rs",
    "runtime/plesio-memory/src/mapping.rs",
    "runtime/plesio-memory/src/ring/hand_over.rs",
    "runtime/plesio-memory/src/ring/header.rs",
    "runtime/plesio-memory/src/segment.rs",
    "tests/accelerators/bench.rs",
    "tests/counting.rs",
    "tests/limits.rs",
    "transport/plesio-udp/src/message.rs",
    "transport/plesio-udp/src/option.rs",
    "transport/plesio-udp/src/slice.rs",
    "transport/plesio-udp/src/uring.rs",
    "transport/plesio-udp/src/uring/buffers.rs",
    "transport/plesio-udp/src/uring/registered.rs",
];

/// Files whose lines are data, not ours to judge.
const DATA: &[&str] = &["tools/plesio-cli/data/shards/", "tests/fuzz/corpus/", "LICENSE-", "Cargo.lock"];

/// First folders of absolute paths that every Linux machine has; another one is somebody's own machine.
const SYSTEM_FOLDERS: &[&str] = &[
    "bin", "boot", "dev", "etc", "lib", "lib64", "mnt", "opt", "proc", "run", "sbin", "sys", "tmp", "usr",
    "var",
];

/// One broken rule: path, line and what to do.
#[derive(Debug, Eq, PartialEq)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// `tidy`: prints every finding and fails when there is one.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    if let Some(argument) = arguments.first() {
        return Err(format!("unknown argument {argument:?}; it takes none"));
    }
    let (mut findings, mut count, mut tests, mut table) =
        (Vec::new(), 0, rows::Tests::default(), String::new());
    for path in files(root)? {
        let name = path.to_string_lossy().replace('\\', "/");
        // A file that git still lists and that is gone, or that is not text, has no lines to judge.
        let Ok(text) = std::fs::read_to_string(root.join(&path)) else { continue };
        count += 1;
        findings.extend(judge(&name, &text));
        tests.read(&name, &text);
        if name == rows::TABLE {
            table = text;
        }
    }
    findings.extend(tests.judge(&table));
    for (path, what) in crate::mutations::stale(root) {
        findings.push(Finding { path, line: 1, what });
    }
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: {count} files, nothing to mend");
        Ok(())
    } else {
        Err(format!("{} to mend in {count} files", findings.len()))
    }
}

/// The files that belong to the tree: what git tracks or would track; without git, everything but targets.
pub(crate) fn files(root: &Path) -> Result<Vec<PathBuf>, String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output();
    let mut files: Vec<PathBuf> = match listed {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(PathBuf::from)
            .collect(),
        _ => walk(root)?,
    };
    files.sort();
    files.dedup();
    Ok(files)
}

fn walk(root: &Path) -> Result<Vec<PathBuf>, String> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .map_err(|error| format!("cannot list {}: {error}", folder.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let skipped = path.file_name().is_some_and(|name| name == "target" || name == ".git");
            if path.is_dir() && !path.is_symlink() && !skipped {
                folders.push(path);
            } else if path.is_file()
                && let Ok(inside) = path.strip_prefix(root)
            {
                files.push(inside.to_path_buf());
            }
        }
    }
    Ok(files)
}

/// Every rule over one file.
fn judge(name: &str, text: &str) -> Vec<Finding> {
    if DATA.iter().any(|data| name.starts_with(data)) && !name.ends_with(".md") && !name.ends_with(".sh") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut find = |line: usize, what: String| findings.push(Finding { path: name.to_string(), line, what });
    whitespace(text, &mut find);
    machine_paths(text, &mut find);
    if name.ends_with(".rs") {
        let lines = source::lines(text);
        length(name, text, &mut find);
        leftovers(&lines, &mut find);
        unsafe_code(name, &lines, &mut find);
        kind_of_crate(name, text, &mut find);
    }
    findings
}

fn whitespace(text: &str, find: &mut impl FnMut(usize, String)) {
    for (index, line) in text.split('\n').enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            find(index + 1, "blanks at the end of the line; take them off".into());
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        find(text.lines().count(), "no newline at the end of the file; add one".into());
    }
}

/// An absolute path below a folder that no other machine has.
fn machine_paths(text: &str, find: &mut impl FnMut(usize, String)) {
    for (index, line) in text.lines().enumerate() {
        let mut before = ' ';
        for (at, letter) in line.char_indices() {
            let begins = letter == '/' && (before.is_whitespace() || "\"'`(=<[".contains(before));
            before = letter;
            if !begins {
                continue;
            }
            let path = &line[at + 1..];
            let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let first = path.split(|c| !is_name(c)).next().unwrap_or_default();
            let below = path[first.len()..].strip_prefix('/').is_some_and(|rest| rest.starts_with(is_name));
            let named = first.starts_with(|c: char| c.is_ascii_alphabetic());
            if named && below && !SYSTEM_FOLDERS.contains(&first) {
                find(index + 1, format!("/{first}/ is a path of one machine; say it relative to the tree"));
            }
        }
    }
}

fn length(name: &str, text: &str, find: &mut impl FnMut(usize, String)) {
    let count = text.lines().count();
    let reason = LONG_FILES.iter().any(|(long, reason)| *long == name && !reason.is_empty());
    if count > FILE_LINES_MAX && !reason {
        find(
            FILE_LINES_MAX + 1,
            format!(
                "{count} lines; look for the second idea (at most {FILE_LINES_MAX}), or give a reason in tidy.rs"
            ),
        );
    }
}

/// What marks work as unfinished or a warning as silenced.
fn leftovers(lines: &[Line<'_>], find: &mut impl FnMut(usize, String)) {
    for (index, line) in lines.iter().enumerate() {
        let code = line.code.as_str();
        if code.contains("allow(") && (code.contains("#[") || code.contains("#![")) {
            find(index + 1, "a silenced lint; mend it, or #[expect(lint, reason = \"...\")]".into());
        }
        for unfinished in ["todo!", "unimplemented!"] {
            if code.contains(unfinished) {
                find(index + 1, format!("{unfinished}: finish it or leave it out"));
            }
        }
        if code.contains("#[ignore") {
            find(index + 1, "a test that never runs; mend it or skip aloud at run time".into());
        }
        if ["FIXME", "XXX"].iter().any(|mark| line.comment.contains(mark)) {
            find(index + 1, "a note of something unfinished; finish it or say why it may stay".into());
        }
    }
}

/// Unsafe stands in the files named for it, and each says above it why it is sound.
fn unsafe_code(name: &str, lines: &[Line<'_>], find: &mut impl FnMut(usize, String)) {
    let named = UNSAFE_FILES.contains(&name);
    let mut told = false;
    for (index, line) in lines.iter().enumerate() {
        if !source::has_word(&line.code, "unsafe") {
            continue;
        }
        if !named && !told {
            find(index + 1, "unsafe outside the files named for it (UNSAFE_FILES in tidy.rs)".into());
            told = true; // Once per file: the file is the finding.
        }
        let near = lines[index.saturating_sub(SAFETY_LINES_MAX)..=index].iter();
        let explained = near.clone().any(|line| line.comment.contains("SAFETY"));
        let contract = source::declares(&line.code, "fn") && contract_above(lines, index);
        // A function pointer's type promises nothing by itself: its caller and its maker explain.
        let only_a_type = source::declares(&line.code, "fn") && !line.code.contains("fn ")
            || line.code.contains("unsafe extern") && line.code.contains("fn(");
        if !explained && !contract && !only_a_type {
            find(
                index + 1,
                format!(
                    "unsafe without `// SAFETY:` within {SAFETY_LINES_MAX} lines above it (or `# Safety` for an unsafe fn)"
                ),
            );
        }
    }
}

/// Whether the doc comment and attributes right above a function hold a `# Safety` section.
fn contract_above(lines: &[Line<'_>], index: usize) -> bool {
    lines[..index]
        .iter()
        .rev()
        .take_while(|line| line.text.starts_with("///") || line.text.starts_with("#["))
        .any(|line| line.comment.contains("# Safety"))
}

/// The first line of a crate says its kind, and the kind's attributes follow.
fn kind_of_crate(name: &str, text: &str, find: &mut impl FnMut(usize, String)) {
    let root = ["src/lib.rs", "src/main.rs"].iter().any(|root| Path::new(name).ends_with(root));
    if !root {
        return;
    }
    let first = text.lines().next().unwrap_or_default();
    let kinds = ["Pure.", "Unsafe core.", "Shell."];
    let Some(kind) =
        kinds.iter().find(|kind| first.strip_prefix("//! ").is_some_and(|f| f.starts_with(**kind)))
    else {
        find(1, format!("the first line says the crate's kind: `//! ` and one of {kinds:?}"));
        return;
    };
    let has = |attribute: &str| text.lines().any(|line| line.trim_start().starts_with(attribute));
    let no_std = has("#![no_std]") || has("#![cfg_attr(not(test), no_std)]");
    if *kind == "Pure." && !no_std {
        find(1, "a pure crate says #![no_std] (or not(test))".into());
    }
    if *kind != "Unsafe core." && !has("#![forbid(unsafe_code)]") {
        find(1, format!("a crate of the kind {kind:?} says #![forbid(unsafe_code)]"));
    }
}
