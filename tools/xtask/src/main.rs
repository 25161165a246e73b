//! Shell. Tasks of the workspace: `cargo xtask ci | tidy | kernels | fuzz | explore | halts | mutations | networks | loom | miri | asan |
//! rivals | links | base-text | base-model`.
//!
//! Knows the tree and the tools around it; knows nothing of plesio's protocols. Every task reads its
//! own arguments and answers with nothing or with one message that says what to do.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::{Command, ExitCode};

mod base_model;
mod base_text;
mod checkers;
mod explore;
mod halts;
mod kernels;
mod links;
mod mutations;
mod networks;
mod rivals;
mod tidy;

const USAGE: &str = "\
Usage: cargo xtask TASK

Tasks:
  ci                    run every check of .ci/run
  tidy                  check the tree against the house rules: length, unsafe, kinds of crate, leftovers
  kernels [--out DIR] [--cuda DIR]   build every artefact of the kernels and judge it; --help says more
  fuzz [--target NAME] [--runs N] [--seed S]   feed every decoder and machine with damaged inputs; --help says more
  explore [--row TEXT] [--seconds N]   every order of events in the shipped agreement, within the bounds of each row
  halts [--trials N]    HALT of eight processes of which two keep it to themselves, seen by a packet socket
  mutations [--only NAME] [--short]   break one rule after the other in a copy of the tree: a check must notice each
  networks [--check]    write the sorting networks of the robust rules, or compare them with the generator's
  loom                  try every order of threads in the models of shared memory; less than a minute
  miri                  interpret the tests of shared memory, over heap memory; needs nightly's miri
  asan                  run the tests of shared memory under AddressSanitizer; needs nightly
  rivals [--ranks LIST]  sums by Open MPI, MPICH and Gloo beside ours; --help says more
  links [--links LIST]  sums between namespaces with shaped links; --help says more
  base-text --out DIR   extract the text that the demo's base model is trained on (needs apt-get, dpkg-deb)
  base-model --out DIR --text FILE...   train the demo's base model from a seed, and write it with its recipe";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((task, rest)) = arguments.split_first() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let outcome = match task.as_str() {
        "ci" => ci(rest),
        "tidy" => root().and_then(|root| tidy::run(&root, rest)),
        "kernels" => root().and_then(|root| kernels::run(&root, rest)),
        "fuzz" => fuzz(rest),
        "explore" => root().and_then(|root| explore::run(&root, rest)),
        "halts" => root().and_then(|root| halts::run(&root, rest)),
        "mutations" => root().and_then(|root| mutations::run(&root, rest)),
        "networks" => root().and_then(|root| networks::run(&root, rest)),
        "loom" => root().and_then(|root| checkers::loom(&root, rest)),
        "miri" => root().and_then(|root| checkers::miri(&root, rest)),
        "asan" => root().and_then(|root| checkers::asan(&root, rest)),
        "base-model" => base_model::run(rest),
        "base-text" => base_text::run(rest),
        "rivals" => root().and_then(|root| rivals::run(&root, rest)),
        "links" => root().and_then(|root| links::run(&root, rest)),
        "help" | "-h" | "--help" => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("xtask: there is no task {other:?}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask {task}: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `.ci/run`, so that the checks of a change and of the house are the same ones.
fn ci(arguments: &[String]) -> Result<(), String> {
    let script = root()?.join(".ci/run");
    let status = Command::new("bash")
        .arg(&script)
        .args(arguments)
        .status()
        .map_err(|error| format!("cannot start bash for {}: {error}", script.display()))?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", script.display())) }
}

/// Builds and runs the fuzzer, which belongs to the checks: it knows the crates, and this task only its name.
fn fuzz(arguments: &[String]) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--locked", "--profile", "fuzz", "--package", "plesio-tests"])
        .args(["--bin", "plesio-fuzz", "--"])
        .args(arguments)
        .current_dir(root()?)
        .status()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("the fuzzer ended with {status}")) }
}

/// The workspace's root: the nearest folder, from here upwards, whose Cargo.toml holds `[workspace]`.
fn root() -> Result<PathBuf, String> {
    let here = std::env::current_dir().map_err(|error| format!("no current directory: {error}"))?;
    here.ancestors()
        .find(|folder| {
            std::fs::read_to_string(folder.join("Cargo.toml"))
                .is_ok_and(|manifest| manifest.lines().any(|line| line.trim() == "[workspace]"))
        })
        .map(PathBuf::from)
        .ok_or_else(|| format!("no workspace at {} or above; run it inside the tree", here.display()))
}
