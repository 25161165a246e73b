//! `plesio bench allreduce` and `plesio bench shm`: processes that sum together, and how fast.
//!
//! ```text
//!  this process: the driver ── orders ──▶ plesio bench-rank, one per rank (rank.rs); they meet by themselves
//!                           ◀── times, wrong elements, memory ──
//! ```

mod rank;
mod ranks;
mod report;

pub(crate) use rank::run_rank;

use super::table;
use crate::args::{CollectiveArgs, FormArg, OperationArg, PathArg};
use crate::failure::{Exit, Failure};
use crate::host::Host;
use crate::{demo, signals, stdout};
use rank::Run;
use ranks::Fleet;
use report::{Key, Report, Row};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) fn run(name: &'static str, args: &CollectiveArgs) -> Result<Exit, Failure> {
    Bench { name, args }.run()
}

struct Bench<'a> {
    name: &'static str,
    args: &'a CollectiveArgs,
}

impl Bench<'_> {
    fn run(&self) -> Result<Exit, Failure> {
        self.check()?;
        let interrupted = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&interrupted);
        signals::watch(move || told.store(true, Ordering::Release))?;
        let probe = plesio_udp::probe(demo::requested(crate::args::BackendArg::Auto))
            .map_err(|cause| Failure::run("backend", "no data plane works here", cause))?;
        let host = Host::look(probe.tier.to_string(), probe.reason);
        let mut config = json!(self.args);
        config["operation"] = json!(self.operations());
        let mut report = Report::new(self.name, config, &host);
        self.check_requirements(&report)?;
        if self.args.output.common.json_stream {
            stdout::emit("start", &report.document(false));
        }
        for &path in &self.args.path {
            for &ranks in &self.args.ranks {
                if let Err(failure) = self.measure(path, ranks, &mut report, &interrupted) {
                    if report.has_rows() {
                        self.show(&report.document(true))?;
                    }
                    return Err(failure);
                }
            }
        }
        self.finish(&report, interrupted.load(Ordering::Acquire))
    }

    fn operations(&self) -> Vec<OperationArg> {
        match (&self.args.operation[..], self.name) {
            ([], "shm") => vec![
                OperationArg::AllReduce,
                OperationArg::ReduceScatter,
                OperationArg::AllGather,
                OperationArg::Broadcast,
            ],
            ([], _) => vec![OperationArg::AllReduce],
            (given, _) => given.to_vec(),
        }
    }

    fn keys(&self, path: PathArg, ranks: u8) -> Vec<Key> {
        let key = |operation, bytes| Key { path, ranks, operation, element: self.args.element, bytes };
        let sizes = |operation| self.args.size.iter().map(move |bytes| key(operation, *bytes));
        self.operations().into_iter().flat_map(sizes).collect()
    }

    fn check(&self) -> Result<(), Failure> {
        let element_bytes = self.args.element.element().bytes() as u32;
        if let Some(size) = self.args.size.iter().find(|size| !size.is_multiple_of(element_bytes)) {
            let cause = format!("{size} bytes are no whole number of elements of {element_bytes} bytes");
            return Err(Failure::usage("bench", "cannot run this", cause).fix("give another --size"));
        }
        super::group::check_cores(&self.args.pin)
    }

    fn check_requirements(&self, report: &Report<'_>) -> Result<(), Failure> {
        let mut sample = report.like();
        for &path in &self.args.path {
            for &ranks in &self.args.ranks {
                self.keys(path, ranks).into_iter().for_each(|key| sample.push(Row::sample(key)));
            }
        }
        let document = sample.document(false);
        let unknown = self.args.require.iter().find_map(|bound| Some((bound, bound.unknown(&document)?)));
        unknown.map_or(Ok(()), |(bound, known)| {
            let cause = "the document of this command line has no such number";
            Err(Failure::usage("require", format!("cannot require {bound}"), cause)
                .fix(format!("name one that is there: {known}")))
        })
    }

    /// All rows of one group.
    fn measure(
        &self,
        path: PathArg,
        ranks: u8,
        report: &mut Report<'_>,
        interrupted: &AtomicBool,
    ) -> Result<(), Failure> {
        let mut fleet = Fleet::start(self.args, path, ranks)?;
        fleet.notes().into_iter().for_each(|note| report.note(note));
        for key in self.keys(path, ranks) {
            let mut row = Row::new(key);
            for round in 1..=self.args.repeats {
                if interrupted.load(Ordering::Acquire) {
                    break;
                }
                self.progress(&key, round);
                let iterations = self.args.iterations.unwrap_or(default_iterations(key.bytes));
                let run = |bare| Run {
                    operation: key.operation,
                    element: key.element,
                    count: u64::from(key.bytes) / key.element.element().bytes(),
                    iterations,
                    seed: self.args.seed.wrapping_add(u64::from(round)),
                    bare,
                };
                row.first.push(fleet.run(&run(false))?);
                if key.has_floor() {
                    row.floor.push(fleet.run(&run(true))?);
                }
                row.last.push(fleet.run(&run(false))?);
            }
            if !row.first.is_empty() {
                report.push(row);
                if self.args.output.common.json_stream {
                    stdout::emit("interval", &report.last_row());
                }
            }
        }
        Ok(())
    }

    fn progress(&self, key: &Key, round: u16) {
        use std::io::IsTerminal;
        if !self.args.output.common.quiet && std::io::stderr().is_terminal() {
            let (operation, repeats) = (key.operation.operation().name(), self.args.repeats);
            let _gone = writeln!(
                std::io::stderr(),
                "{operation}, {} ranks, {} bytes: round {round} of {repeats}",
                key.ranks,
                key.bytes
            );
        }
    }

    fn show(&self, document: &Value) -> Result<(), Failure> {
        let output = &self.args.output;
        if output.common.json_stream {
            stdout::emit("end", document);
        } else if output.form() == FormArg::Json {
            stdout::document(document);
        } else {
            stdout::text(&table::render(document, output.form())?);
        }
        Ok(())
    }

    fn finish(&self, report: &Report<'_>, interrupted: bool) -> Result<Exit, Failure> {
        let document = report.document(interrupted);
        self.show(&document)?;
        let wrong = report.wrong();
        if wrong > 0 {
            let cause = format!("{wrong} elements are not the sum of what the ranks wrote");
            return Err(Failure::run("wrong-data", "a result is wrong", cause)
                .fix("run it again with the same --seed, and report it"));
        }
        if interrupted {
            return Ok(Exit::Interrupted);
        }
        let mut exit = Exit::Ok;
        for miss in self.args.require.iter().filter_map(|bound| bound.miss(&document)) {
            let _gone = writeln!(std::io::stderr(), "plesio: {miss}");
            exit = Exit::Regression;
        }
        Ok(exit)
    }
}

/// As the rivals' programs have it.
const fn default_iterations(bytes: u32) -> u32 {
    match bytes {
        0..=65_536 => 101,
        65_537..=1_048_576 => 31,
        1_048_577..=16_777_216 => 9,
        _ => 5,
    }
}
