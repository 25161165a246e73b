//! The memory of a node under three checkers: a model checker of thread orders (loom), an interpreter of the language's
//! own rules (Miri), and a watch on addresses (AddressSanitizer).
//!
//! Loom is an ordinary crate. The other two need Rust's nightly toolchain; where it, or its part, is missing, the task says
//! how to get it and fails, so that a check that did not run is never taken for one that passed.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// What is checked: the only crate whose threads and processes share memory without a lock.
const PACKAGE: &str = "plesio-memory";

/// `loom`: every order of threads in the models of the access word, the slot word and the ring's hand-over.
pub(crate) fn loom(root: &Path, arguments: &[String]) -> Result<(), String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--locked", "--release", "--package", PACKAGE, "--lib", "models"]);
    cargo.env("RUSTFLAGS", "--cfg loom");
    run(cargo, root, "loom", arguments)
}

/// `miri`: the crate's tests over heap memory.
pub(crate) fn miri(root: &Path, arguments: &[String]) -> Result<(), String> {
    need(&["+nightly", "miri", "--version"], "rustup toolchain install nightly --component miri,rust-src")?;
    let mut cargo = Command::new("cargo");
    cargo.args(["+nightly", "miri", "test", "--locked", "--package", PACKAGE, "--lib"]);
    run(cargo, root, "miri", arguments)
}

/// `asan`: the crate's tests, maps, doors and other processes included.
pub(crate) fn asan(root: &Path, arguments: &[String]) -> Result<(), String> {
    need(&["+nightly", "--version"], "rustup toolchain install nightly")?;
    let mut cargo = Command::new("cargo");
    cargo.args(["+nightly", "test", "--locked", "--package", PACKAGE, "--lib"]);
    // Without a target the build scripts would be watched too, and cannot be.
    cargo.args(["--target", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)]);
    cargo.env("RUSTFLAGS", "-Zsanitizer=address");
    run(cargo, root, "asan", arguments)
}

/// Runs the tests with a target folder of the checker's own: its flags would have everything built anew.
fn run(mut cargo: Command, root: &Path, checker: &str, arguments: &[String]) -> Result<(), String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| root.join("target").into());
    let target: OsString = Path::new(&target).join(checker).into();
    let status = cargo
        .args(arguments)
        .env("CARGO_TARGET_DIR", target)
        // What cargo sets for the task itself would name another toolchain.
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .env_remove("RUSTUP_TOOLCHAIN")
        .current_dir(root)
        .status()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("the checker ended with {status}")) }
}

fn need(probe: &[&str], fix: &str) -> Result<(), String> {
    let found = Command::new("cargo")
        .args(probe)
        .env_remove("RUSTUP_TOOLCHAIN")
        .output()
        .is_ok_and(|output| output.status.success());
    if found { Ok(()) } else { Err(format!("the tool is missing: {fix}")) }
}
