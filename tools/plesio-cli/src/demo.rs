//! `plesio demo`: a whole mesh on this machine, from the first process to the report.
//!
//! ```text
//!  plan -> launcher -> record -> evaluate -> checks -> document, table, report
//!             |
//!        node processes (child), JSON lines over their pipes (protocol)
//! ```

mod checks;
pub(crate) mod child;
pub(crate) mod data;
mod document;
mod evaluate;
#[cfg(test)]
mod example;
pub(crate) mod keys;
mod launcher;
mod measure;
pub(crate) mod output;
mod path;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod protocol;
mod record;
mod report;
mod screen;
mod table;
pub(crate) mod train;

use crate::args::{DemoArgs, DeviceArg};
use crate::failure::{Exit, Failure};
use crate::host::{self, Host};
use crate::paint::Paint;
use crate::trace::{Before, Line, Trace, Writer};
use crate::{signals, stdout};
use document::Parts;
use evaluate::Losses;
use keys::Keys;
use launcher::{Ended, Launcher, Means};
use output::Folder;
use path::BadPath;
use plan::Plan;
use plesio::DeviceChoice;
use plesio_udp::clock::monotonic_raw_ns;
use process::{Fleet, Heard};
use record::Record;
use screen::Screen;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Instant;

pub(crate) use child::{requested, run_node};

/// Runs the demo; the exit code says whether it kept its promises.
pub(crate) fn run(args: &DemoArgs) -> Result<Exit, Failure> {
    let begin = Instant::now();
    let folder = Folder::create(&args.out)?;
    let (heard_sender, heard) = mpsc::channel();
    let interrupted = Arc::new(AtomicBool::new(false));
    let (flag, signal) = (Arc::clone(&interrupted), heard_sender.clone());
    signals::watch(args.output.json_stream, move || {
        flag.store(true, Ordering::Relaxed);
        let _ended = signal.send(Heard::Signal);
    })?;
    args.rules.rules()?;
    probe(args)?;
    let mut plan = Plan::draw(args.seed, args.nodes, args.seconds, host::cores());
    let keys = if args.plaintext { None } else { Some(Keys::make(&mut plan)?) };
    let broken = |error| Failure::run("base-model", "cannot load the base model of this build", error);
    let base = data::base().map_err(broken)?;
    let elements = train::elements(&base, plan.adapter_seed).map_err(broken)?;
    let mut record = Record::new(plan.members.iter().map(|member| (member.name.clone(), member.key().0)));
    let mut screen = Screen::new(&args.output);
    if args.output.json_stream {
        stdout::emit("start", &json!({ "schema": "plesio.demo/1", "config": args }));
    }
    let fleet = Fleet::new(plan.members.len(), folder.logs(), elements, heard_sender);
    let path = BadPath::start(&args.impair, args.seed)?;
    let traced = args.trace.as_deref().map(|path| Trace::open(path, Before::Goes)).transpose()?;
    let (trace, writer) = traced.unzip();
    if let Some(trace) = &trace {
        trace.say(&traced_start(args));
    }
    let means = Means {
        keys: keys.as_ref(),
        backend: args.backend,
        devices: &args.devices,
        data_path: args.path,
        codec: args.codec,
        shares: args.shares,
        rules: args.rules,
        path,
        trace,
    };
    let launcher = Launcher::new(&plan, means, fleet, &heard, &mut record, &mut screen);
    let ended = launcher.run();
    writer.into_iter().for_each(Writer::close);
    screen.end();
    let mut ended = ended?;
    let mut losses = Losses::default();
    if ended == Ended::Whole {
        screen.say("the mesh is done; now every member trains alone, for comparison");
        let progress = |done, all| screen.progress("steps alone", done, all);
        losses = evaluate::losses(&base, &plan, &record, host::cores(), &interrupted, progress)?;
        screen.end();
        if interrupted.load(Ordering::Relaxed) {
            ended = Ended::Interrupted;
        }
    }
    let checks =
        if ended == Ended::Interrupted { Vec::new() } else { checks::judge(&plan, &record, &losses) };
    let host = host_of(&record);
    let report = folder.report();
    let parts = Parts {
        args,
        host: &host,
        plan: &plan,
        record: &record,
        losses: &losses,
        checks: &checks,
        ended: &ended,
        wall_s: begin.elapsed().as_secs_f64(),
        report: Some(&report),
    };
    let document = document::document(&parts);
    if let Some(files) = evaluate::export(&base, &plan, &record)? {
        folder.write_adapter(&files)?;
    }
    folder.write(output::REPORT, report::page(&parts).as_bytes())?;
    folder.write(output::DOCUMENT, format!("{document:#}\n").as_bytes())?;
    show_result(&parts, &document);
    Ok(match ended {
        Ended::Interrupted => Exit::Interrupted,
        Ended::Whole if checks.iter().all(|check| check.pass) => Exit::Ok,
        Ended::Whole | Ended::Broken(_) => Exit::Failed,
    })
}

/// The first line of a trace: what all nodes are told, and how bad their links are.
fn traced_start(args: &DemoArgs) -> Value {
    let fields = json!({
        "program": env!("CARGO_PKG_VERSION"),
        "setup": {
            "period_ns": plan::PERIOD_NS,
            "codec": args.codec,
            "shares": args.shares,
            "rules": args.rules,
            "links": args.impair.to_string(),
        },
    });
    Line::new("start", fields).of(None, monotonic_raw_ns(), None)
}

fn show_result(parts: &Parts<'_>, document: &serde_json::Value) {
    let output = &parts.args.output;
    if output.json_stream {
        return stdout::emit("end", document);
    }
    if output.json {
        return stdout::document(document);
    }
    let paint = Paint::new(output.color, std::io::stdout().is_terminal());
    stdout::text(&table::table(parts, &program(), paint));
}

/// What this command was called by, so that the next ones can be called the same way: `cargo run` puts nothing on
/// the path.
fn program() -> String {
    let called = std::env::args_os().next().and_then(|name| name.into_string().ok());
    let plain = |name: &String| name.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c));
    called.filter(plain).unwrap_or_else(|| "plesio".into())
}

/// A backend or a device that was asked for and is not there is an answer of its own, before anything starts.
fn probe(args: &DemoArgs) -> Result<(), Failure> {
    let requested = child::requested(args.backend);
    let kernels = args.devices.kernels_dir.as_deref();
    // The automatic choice fails with a folder alone.
    let may_fail = |device: &&DeviceArg| device.0 != DeviceChoice::Auto || kernels.is_some();
    for device in args.devices.device.iter().filter(may_fail) {
        crate::device::open(device.0, kernels)?;
    }
    plesio_udp::probe(requested).map(drop).map_err(|cause| {
        let what = format!("--backend {requested} does not work here");
        let failure = Failure::run("backend", what, cause).fix("take --backend auto, which falls back");
        Failure { exit: Exit::Missing, ..failure }
    })
}

/// The machine, with the data plane that the nodes found.
fn host_of(record: &Record) -> Host {
    let node = record.nodes.iter().find(|node| node.pid.is_some());
    let (tier, reason) = node.map_or_else(Default::default, |node| {
        (node.found.backend.clone(), node.found.backend_reason.clone())
    });
    Host::look(tier, reason)
}
