//! `plesio bench`: what this build moves between two processes, beside what others move in the same minute.
//!
//! ```text
//!  this process: sends                       plesio bench-end: receives, checks
//!    pair.rs  ── orders, answers (pipes) ──▶ end.rs
//!    ours.rs / rival.rs ── the link ───────▶ ours.rs / rival.rs
//! ```
//!
//! Every round runs ours first and last and the rivals between: ours against itself says how far to trust the rest.

mod end;
mod figures;
mod link;
mod memory;
mod ours;
mod pair;
mod report;
mod require;
mod rival;

pub(crate) use end::run_end;
pub(crate) use link::{Rival, Wait};
pub(crate) use require::Requirement;

use crate::args::{BenchCommand, BenchUdpArgs};
use crate::failure::{Exit, Failure};
use crate::host::Host;
use crate::{demo, signals, stdout};
use link::{Link, Run};
use pair::{Outcome, Pair};
use report::Cell;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) fn run(command: &BenchCommand) -> Result<Exit, Failure> {
    match command {
        BenchCommand::Udp(args) => udp(args),
    }
}

fn udp(args: &BenchUdpArgs) -> Result<Exit, Failure> {
    if let Some(size) = args.size.iter().find(|size| **size > args.working_set) {
        let cause = format!("a message of {size} bytes does not fit into {} bytes", args.working_set);
        return Err(Failure::usage("bench", "cannot run this", cause).fix("give a larger --working-set"));
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    signals::watch(move || flag.store(true, Ordering::Release))?;
    let probe = plesio_udp::probe(demo::requested(args.backend)).map_err(|cause| Failure {
        exit: Exit::Missing,
        ..Failure::run("backend", "the backend does not work here", cause).fix("say --backend auto")
    })?;
    let host = Host::look(probe.tier.to_string(), probe.reason);
    let mut pair = Pair::start(Arc::clone(&interrupted))?;
    let mut cells = Vec::new();
    for &bytes in &args.size {
        for &chunk_bytes in &args.chunk {
            cells.push(measure(args, &mut pair, [bytes, chunk_bytes], &interrupted)?);
        }
    }
    drop(pair);
    let interrupted = interrupted.load(Ordering::Acquire);
    let document = report::document(args, &host, &cells, interrupted);
    if args.json {
        stdout::document(&document);
    } else {
        stdout::text(&report::table(&document));
    }
    let wrong: u64 = cells.iter().map(Cell::wrong_bytes).sum();
    if wrong > 0 {
        let cause = format!("{wrong} bytes differ from those that were sent");
        return Err(Failure::run("wrong-data", "the receiver holds wrong bytes", cause)
            .fix("run it again with the same --seed, and report it"));
    }
    if interrupted {
        return Ok(Exit::Interrupted);
    }
    let mut exit = Exit::Ok;
    for requirement in &args.require {
        if let Some(miss) = requirement.miss(&document) {
            let _gone = writeln!(std::io::stderr(), "plesio: {miss}");
            exit = Exit::Regression;
        }
    }
    Ok(exit)
}

/// All rounds of one row.
fn measure(
    args: &BenchUdpArgs,
    pair: &mut Pair,
    [bytes, chunk_bytes]: [u32; 2],
    interrupted: &AtomicBool,
) -> Result<Cell, Failure> {
    let mut cell = Cell::new(bytes, chunk_bytes, &args.vs);
    let mut run = |link| -> Result<Option<Outcome>, Failure> {
        if interrupted.load(Ordering::Acquire) {
            return Ok(None);
        }
        let (backend, wait, seed, seconds) = (args.backend, args.wait, args.seed, args.seconds);
        let working_set_bytes = args.working_set;
        pair.run(&Run { link, backend, wait, bytes, chunk_bytes, working_set_bytes, seed, seconds }).map(Some)
    };
    for round in 1..=args.repeats {
        if !args.quiet && std::io::stderr().is_terminal() {
            let _gone = writeln!(std::io::stderr(), "{bytes} bytes, chunk {chunk_bytes}: round {round}");
        }
        cell.first.extend(run(Link::Plesio)?);
        for (rival, outcomes) in &mut cell.rivals {
            outcomes.extend(run(rival.link())?);
        }
        cell.last.extend(run(Link::Plesio)?);
    }
    Ok(cell)
}
