//! The fuzzer on stable Rust: `cargo xtask fuzz` runs it. Prints a finding with the seed that repeats it, keeps its
//! input under `target/fuzz`, and ends with 1.

use plesio_tests::fuzz::run::{self, Plan};
use plesio_tests::fuzz::{TARGETS, Target};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
Usage: cargo xtask fuzz [--target NAME] [--runs N] [--seed S] [--first WORLD] [--threads N] [--corpus] [--list]

  --target NAME   only this one; else all, one after the other
  --runs N        inputs a target, 1000000
  --seed S        where they come from, 1
  --first WORLD   where to begin, as a finding says
  --threads N     as many as there are cores
  --corpus        writes the real inputs that others are made from into the corpus, and runs nothing
  --list          names the targets";

struct Asked {
    target: Option<String>,
    plan: Plan,
    corpus: bool,
    list: bool,
}

fn main() -> ExitCode {
    let asked = match read(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(cause) => {
            eprintln!("fuzz: {cause}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let wanted = |target: &&Target| asked.target.as_ref().is_none_or(|name| name == target.name);
    let targets: Vec<&Target> = TARGETS.iter().filter(wanted).collect();
    if targets.is_empty() || asked.list {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        return if asked.list { ExitCode::SUCCESS } else { ExitCode::from(2) };
    }
    let mut sound = true;
    for target in targets {
        let outcome = if asked.corpus { write_corpus(target) } else { fuzz(target, asked.plan) };
        if let Err(cause) = outcome {
            eprintln!("{cause}");
            sound = false;
        }
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(mut arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let plan = Plan { runs: 1_000_000, seed: 1, first: 0, threads };
    let mut asked = Asked { target: None, plan, corpus: false, list: false };
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{flag} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|error| format!("{flag} {text:?}: {error}"));
        match flag.as_str() {
            "--target" => asked.target = Some(value()?),
            "--runs" => asked.plan.runs = number(value()?)?,
            "--seed" => asked.plan.seed = number(value()?)?,
            "--first" => asked.plan.first = number(value()?)?,
            "--threads" => asked.plan.threads = number(value()?)?,
            "--corpus" => asked.corpus = true,
            "--list" => asked.list = true,
            _ => return Err(format!("there is no flag {flag}")),
        }
    }
    Ok(asked)
}

fn fuzz(target: &Target, plan: Plan) -> Result<(), String> {
    let begin = Instant::now();
    let corpus = corpus(target)?;
    match run::run(target, &corpus, plan) {
        Ok(runs) => {
            let each_us = begin.elapsed().as_secs_f64() * 1e6 / runs.max(1) as f64;
            println!("fuzz {:<10} {runs} inputs, {each_us:.2} us each", target.name);
            Ok(())
        }
        Err(finding) => {
            let told = run::tell(target, plan.seed, &finding);
            let folder = Path::new("target/fuzz");
            let path = folder.join(format!("{}-{}-{}", target.name, plan.seed, finding.world));
            let kept = std::fs::create_dir_all(folder)
                .and_then(|()| std::fs::write(&path, run::to_file(target, &finding.inputs)));
            Err(match kept {
                Ok(()) => {
                    format!("{told}\n  kept: {}; mend it, then move it into the corpus", path.display())
                }
                Err(cause) => format!("{told}\n  not kept: {}: {cause}", path.display()),
            })
        }
    }
}

/// Real inputs: the target's own and those of its corpus.
fn corpus(target: &Target) -> Result<Vec<Vec<u8>>, String> {
    let mut corpus = (target.seeds)();
    for bytes in plesio_tests::fuzz::files(target).map_err(|error| format!("{}: {error}", target.name))? {
        corpus.extend(run::from_file(target, &bytes));
    }
    corpus.sort();
    corpus.dedup();
    Ok(corpus)
}

fn write_corpus(target: &Target) -> Result<(), String> {
    let folder: PathBuf = plesio_tests::fuzz::folder(target);
    let failed = |cause| format!("{}: {cause}", folder.display());
    std::fs::create_dir_all(&folder).map_err(failed)?;
    for (index, seed) in (target.seeds)().iter().enumerate() {
        let file = run::to_file(target, std::slice::from_ref(seed));
        std::fs::write(folder.join(format!("seed-{index:02}")), file).map_err(failed)?;
    }
    Ok(())
}
