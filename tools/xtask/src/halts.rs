//! HALT of eight real processes, as often as asked for: the test of `plesio-cli` that sees silence on the wire, at length.

use std::path::Path;
use std::process::Command;

const USAGE: &str = "\
Usage: cargo xtask halts [--trials N]

  --trials N     so many times HALT and RESUME, 1 to 10,000; 20 by default

Needs the right to make a network namespace, `ip` and `nft`; where they are missing the test says that it was skipped.";

/// Runs the trials; fails when one is not silent within a second.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let mut trials = 20u32;
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        match flag.as_str() {
            "--trials" => {
                let given = rest.next().ok_or_else(|| format!("{flag} needs a value\n\n{USAGE}"))?;
                let number = given.parse().ok().filter(|number| (1..=10_000).contains(number));
                trials =
                    number.ok_or_else(|| format!("--trials {given}: 1 to 10,000 are possible\n\n{USAGE}"))?;
            }
            "-h" | "--help" => {
                println!("{USAGE}");
                return Ok(());
            }
            other => return Err(format!("there is no flag {other:?}\n\n{USAGE}")),
        }
    }
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["test", "--locked", "--quiet", "--package", "plesio-cli", "--test", "up_process"])
        .args(["eight_of_which_two", "--", "--nocapture"])
        .env("PLESIO_TEST_HALT_TRIALS", trials.to_string())
        .current_dir(root)
        .status()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("the trials ended with {status}")) }
}
