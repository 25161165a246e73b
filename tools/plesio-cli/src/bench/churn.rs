//! `plesio bench churn`: a mesh of processes that are killed and started anew without a pause.
//!
//! ```text
//!  schedule -> driver -> record -> figures -> document (report)
//!                |
//!        node processes: those of `plesio demo`, over the same pipes
//! ```

mod driver;
mod figures;
mod held;
mod record;
mod report;
mod schedule;

use super::require;
use super::scratch::Scratch;
use crate::args::ChurnArgs;
use crate::demo::keys::Keys;
use crate::demo::plan::Plan;
use crate::demo::process::{Fleet, Heard};
use crate::demo::{self, data, train};
use crate::failure::{Exit, Failure};
use crate::host::{self, Host};
use crate::{signals, stdout};
use driver::Driver;
use report::Report;
use serde_json::json;
use std::io::Write;
use std::sync::mpsc;

/// Part of the demo's training that each node does here: the rest of the machine is for the mesh and for processes that start.
const DUTY: f64 = 0.25;

pub(super) fn run(args: &ChurnArgs) -> Result<Exit, Failure> {
    let (heard_sender, heard) = mpsc::channel();
    let signal = heard_sender.clone();
    // Before the first thread: they inherit the mask.
    signals::watch(args.output.json_stream, move || drop(signal.send(Heard::Signal)))?;
    let probe = plesio_udp::probe(demo::requested(args.backend)).map_err(|cause| Failure {
        exit: Exit::Missing,
        ..Failure::run("backend", "the backend does not work here", cause).fix("say --backend auto")
    })?;
    let host = Host::look(probe.tier.to_string(), probe.reason);
    let mut report = Report::new(args, &host);
    require::check(&args.require, &report.sample())?;
    let mut plan = Plan::draw(args.seed, args.nodes, 1, host::cores());
    for member in &mut plan.members {
        member.duty *= DUTY;
    }
    let keys = if args.plaintext { None } else { Some(Keys::make(&mut plan)?) };
    let broken = |error| Failure::run("base-model", "cannot load the base model of this build", error);
    let base = data::base().map_err(broken)?;
    let elements = train::elements(&base, plan.adapter_seed).map_err(broken)?;
    if args.output.json_stream {
        stdout::emit("start", &report.start());
    }
    let logs = Scratch::make("churn")?;
    let fleet = Fleet::new(0, logs.path().to_path_buf(), elements, heard_sender);
    let (record, ended) = Driver::new(args, plan, keys, fleet, &heard).run()?;
    report.end(&record, &ended);
    let document = report.document();
    if args.output.json_stream {
        stdout::emit("end", &document);
    } else if args.output.json {
        stdout::document(&document);
    } else {
        stdout::text(&report.table());
    }
    if ended.interrupted {
        return Ok(Exit::Interrupted);
    }
    let failures = report.failures();
    for failure in &failures {
        let _gone = writeln!(std::io::stderr(), "plesio: {failure}");
    }
    if !failures.is_empty() {
        return Ok(Exit::Failed);
    }
    Ok(require::judge(&args.require, &document))
}

/// What every document of this kind says it is.
const SCHEMA: &str = "plesio.bench.churn/1";

fn start(args: &ChurnArgs, host: &Host) -> serde_json::Value {
    json!({ "schema": SCHEMA, "config": args, "host": host })
}
