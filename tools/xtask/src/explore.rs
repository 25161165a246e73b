//! The exhaustive search over the shipped agreement: `plesio-consensus` holds the rows, this task names those that run
//! and how long each may take.

use std::path::Path;
use std::process::Command;

const USAGE: &str = "\
Usage: cargo xtask explore [--row TEXT] [--seconds N]

  --row TEXT     only rows whose name has this in it; all by default
  --seconds N    a row that has lasted so long is cut short, which fails; 600 by default";

/// Runs the rows; fails when one breaks a promise or is cut short.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let (mut row, mut seconds) = (String::new(), 600u32);
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{flag} needs a value\n\n{USAGE}"));
        match flag.as_str() {
            "--row" => row.clone_from(value()?),
            "--seconds" => {
                let given = value()?;
                seconds = given.parse().ok().filter(|seconds| *seconds > 0).ok_or_else(|| {
                    format!("--seconds {given}: a whole number from 1 is needed\n\n{USAGE}")
                })?;
            }
            "-h" | "--help" => {
                println!("{USAGE}");
                return Ok(());
            }
            other => return Err(format!("there is no flag {other:?}\n\n{USAGE}")),
        }
    }
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["test", "--locked", "--quiet", "--release", "--package", "plesio-consensus", "--lib"])
        .args(["every_order_of_events", "--", "--nocapture"])
        .env("PLESIO_EXPLORE", row)
        .env("PLESIO_EXPLORE_SECONDS", seconds.to_string())
        .current_dir(root)
        .status()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("the search ended with {status}")) }
}
