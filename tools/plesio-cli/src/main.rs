//! Shell. The `plesio` command: reads the command line, runs one command, and ends with its exit code.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod characterize;
mod chart;
mod demo;
mod device;
mod doctor;
mod failure;
mod halt;
mod hex;
mod host;
mod key;
mod keyfile;
mod paint;
mod random;
mod shares;
mod signals;
mod sim;
mod status;
mod stdout;
mod trace;
mod up;
mod work;

use args::{Cli, Command};
use failure::{Exit, Failure};
use plesio_wire::sideband::OrderKind;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let outcome = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Characterize(args) => characterize::run(&args),
        Command::Bench(command) => bench::run(&command),
        Command::BenchEnd { between: true, seed, impair, .. } => bench::run_between(seed, &impair),
        Command::BenchEnd { pin, .. } => bench::run_end(pin),
        Command::BenchClock => bench::run_clock(),
        Command::BenchKernels => bench::run_kernels(),
        Command::BenchRank { pin } => bench::run_rank(pin),
        Command::Key(args) => key::run(&args),
        Command::Up(args) => up::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Halt(args) => halt::run(OrderKind::Halt, &args),
        Command::Resume(args) => halt::run(OrderKind::Resume, &args),
        Command::DemoNode => demo::run_node(),
    };
    let outcome = match (outcome, stdout::lost()) {
        (Ok(Exit::Ok), Some(cause)) => {
            Err(Failure::run("stdout", "cannot write the result to stdout", cause)
                .fix("see whether the disk is full (df)"))
        }
        (outcome, _) => outcome,
    };
    let exit = outcome.unwrap_or_else(|failure| {
        let _gone = writeln!(std::io::stderr(), "plesio: {failure}");
        failure.exit
    });
    ExitCode::from(exit as u8)
}
