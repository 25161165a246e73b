//! Writes down which commit this is, for results that are kept, and whether anything of it was changed: then `-dirty`
//! stands behind it, as with git. Where there is no git, nobody knows.

use std::process::Command;

fn main() {
    // What is changed or committed after this build makes another one.
    for name in ["HEAD", "logs/HEAD", "index"] {
        for path in git(&["rev-parse", "--path-format=absolute", "--git-path", name]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let top = git(&["rev-parse", "--show-toplevel"]).pop().unwrap_or_default();
    for file in git(&["-c", "core.quotePath=off", "ls-files", "--full-name", ":/"]) {
        println!("cargo::rerun-if-changed={top}/{file}");
    }
    let commit = git(&["describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]);
    println!("cargo::rustc-env=GPU_BENCH_COMMIT={}", commit.concat());
}

/// The lines of its answer; none where it has none.
fn git(arguments: &[&str]) -> Vec<String> {
    let output = Command::new("git").args(arguments).output();
    let said = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    String::from_utf8_lossy(&said.unwrap_or_default()).lines().map(String::from).collect()
}
