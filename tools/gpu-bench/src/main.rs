//! Shell. `gpu-bench`: everything that only a GPU can show, in one call of one copied program.
//!
//! ```text
//!   check      artefacts load; results against the scalar reference and binary64
//!   sanitizer  the same, small, under compute-sanitizer, where it is
//!   plan       what the accelerator would launch for each row, recorded without a device
//!   python     ceilings and rows: the plan's launches and the rivals, on the same buffers, in graphs, by turns
//!   report     floors, musts, ratios; the table and the JSON
//! ```
//!
//! Knows: what the specification of the kernels asks for. Does not know: geometry and parameters, which
//! `plesio-launch` has. Invariant: what is missing costs its own part and is named, what is wrong makes the program
//! fail.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fmt, fs, process, thread};

use clap::Parser;
use nix::sys::signal::{self, Signal};
use plesio_conformance::Effort;
use plesio_cuda::Cuda;
use plesio_hip::Hip;
use plesio_launch::{
    Accelerator, ArtefactError, Artefacts, Chip, Discovery, EngineSettings, Fault, Runtime, RuntimeError,
    artefact,
};
use serde_json::json;

mod args;
mod check;
mod child;
mod deadline;
mod float64;
mod folder;
mod plan;
mod python;
mod report;
mod sanitizer;
mod signals;
mod threads;

use args::{Args, Place};
use deadline::Deadline;
use folder::Folder;
use plan::{Row, Sizes};
use report::{Ended, Journal, Report};

/// The specification's sizes. What a row moves is many times what any L2 holds.
const SIZES: Sizes = Sizes { moved_bytes: 768 << 20, width: 4096, tokens: 4096 };
/// A rehearsal's.
const SMALL: Sizes = Sizes { moved_bytes: 96 << 10, width: 128, tokens: 33 };
/// What the table has and this program does not.
const LATER: &str =
    "4-bit base products and the merge of sparse distributions have no kernels yet: their rows come later";

/// Of the time, what is kept for the end: a tenth, but no more than this.
const LAST: Duration = Duration::from_secs(2);
/// How long the end may take when somebody asks for it, or when all is said.
const PATIENCE: Duration = Duration::from_secs(2);

/// How the process ends.
const WRONG: i32 = 1;
const INTERRUPTED: i32 = 130;

/// What the main thread hears of.
enum News {
    /// The work is done, or cannot be.
    Done(Result<(), String>),
    /// Somebody wants an end.
    Signal,
}

fn main() {
    let args = Arc::new(Args::parse());
    let code = run(&args).unwrap_or_else(|why| {
        eprintln!("gpu-bench: {why}");
        WRONG
    });
    // Not by returning: threads may still be in calls of a driver.
    process::exit(code)
}

/// Has a thread do the work and waits for it as long as there is time: calls of a driver cannot be called off.
fn run(args: &Arc<Args>) -> Result<i32, String> {
    let begin = Instant::now();
    let limit = Duration::from_secs(args.seconds);
    let deadline = Deadline::new(limit);
    let (tell, told) = mpsc::channel();
    let signal = tell.clone();
    // Where nobody listens any more, all is ending already.
    signals::watch(move || drop(signal.send(News::Signal)))?;
    let (arm, armed) = mpsc::channel();
    // Whoever reads what is said may never read on, and a driver has something to do when the process ends.
    threads::start("last", move || {
        if let Ok(rest) = armed.recv() {
            thread::sleep(rest);
            let _ends = signal::raise(Signal::SIGKILL);
        }
    })?;
    // Of this thread, which is the last: it goes at every end.
    let folder = Folder::new();
    let path = folder.as_ref().map(|folder| folder.path().to_path_buf()).map_err(String::clone);
    let journal = Journal::default();
    let (args_of_work, report) = (args.clone(), journal.clone());
    // Python ends with the thread that starts it, so that one lives until Python has ended.
    threads::start("work", move || {
        let deadline = deadline.without(LAST.min(limit / 10));
        let work = || work(&args_of_work, &path, deadline, &report);
        let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|cause| Err(check::told(&*cause)));
        drop(tell.send(News::Done(done)));
    })?;
    let done = wait(&told, deadline);
    let rest = if deadline.is_stopped() { PATIENCE } else { deadline.left() + PATIENCE };
    // It waits for that as long as this function runs.
    let _armed = arm.send(rest);
    let mut report = journal.lock();
    if done.is_none() {
        let what = format!("{} and all after it", report.doing);
        report.cut(what, deadline.ended());
    }
    report.took_s = begin.elapsed().as_secs_f64();
    done.unwrap_or(Ok(()))?;
    if !args.small {
        finish(args, &report)?;
    }
    if let Some(error) = UNSAID.get() {
        return Err(format!("stdout: {error}; send it to where there is room"));
    }
    Ok(match (report.ended, report.faults.is_empty()) {
        (Ended::Interrupted, _) => INTERRUPTED,
        (_, true) => 0,
        (_, false) => WRONG,
    })
}

/// Until the work is done; none where it is not when all has to be over.
fn wait(told: &Receiver<News>, mut deadline: Deadline) -> Option<Result<(), String>> {
    loop {
        match told.recv_timeout(deadline.left()) {
            Ok(News::Done(done)) => return Some(done),
            Ok(News::Signal) if deadline.is_stopped() => return None,
            Ok(News::Signal) => {
                deadline.stop();
                deadline = deadline.within(PATIENCE);
            }
            Err(_) => return None,
        }
    }
}

fn work(
    args: &Args,
    folder: &Result<PathBuf, String>,
    deadline: Deadline,
    report: &Journal,
) -> Result<(), String> {
    let is_none = |text: &&String| !plan::names().any(|name| name.contains(text.as_str()));
    if let Some(text) = args.rows.iter().find(is_none) {
        let names = plan::names().collect::<Vec<_>>().join(", ");
        return Err(format!("--row {text}: there is no such row; there are {names}"));
    }
    if let Some(path) = &args.out {
        // Now, and not when the time is spent.
        writable(path).map_err(|error| {
            format!("--out {}: {error}; name a file in a folder that is there", path.display())
        })?;
    }
    report.begin(format!("opening {}", args.device));
    match args.device {
        Place::Cuda(ordinal) => {
            bench(args, folder, deadline, report, &|| Cuda::open(ordinal), plesio_cuda::discover)
        }
        Place::Hip(ordinal) => {
            bench(args, folder, deadline, report, &|| Hip::open(ordinal), plesio_hip::discover)
        }
    }
}

/// Whether a file can be written; one that is not there is not there afterwards either.
fn writable(path: &Path) -> io::Result<()> {
    match fs::OpenOptions::new().create_new(true).write(true).open(path) {
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::OpenOptions::new().create(true).append(true).open(path).map(drop)
        }
        Err(error) => Err(error),
    }
}

/// Everything on one device.
fn bench<R: Runtime>(
    args: &Args,
    folder: &Result<PathBuf, String>,
    deadline: Deadline,
    report: &Journal,
    open: &dyn Fn() -> Result<R, RuntimeError>,
    discover: fn() -> Discovery,
) -> Result<(), String> {
    let runtime = open().map_err(|error| refused(args.device, &error, discover()))?;
    let chip = runtime.chip().clone();
    let read;
    let all = match &args.kernels {
        Some(folder) => {
            read = Artefacts::read(folder).map_err(|error| lacking(&error))?;
            &read
        }
        None => artefact::available().map_err(|error| lacking(&error))?,
    };
    if args.small {
        return small(runtime, all, deadline, report);
    }
    drop(runtime);
    describe(args, &chip, &mut report.lock());
    report.lock().note(LATER);
    let fitting = check::artefacts(all, &chip, report);
    let Some(nearest) = fitting.first() else {
        return all.choose(&chip).map(drop).map_err(|error| lacking(&error));
    };
    if !args.rehearse {
        check::checks(open, &fitting, Effort::Whole, deadline, report);
    }
    if let Place::Hip(_) = args.device {
        report
            .lock()
            .note("ceilings, compute-sanitizer and times were left out: they are for NVIDIA's devices alone");
        return Ok(());
    }
    if !args.rehearse {
        sanitizer::sanitize(args, deadline, report);
    }
    let rows = rows(args, &chip, deadline, report);
    python::time(args, folder, (&chip.name, *nearest), &rows, deadline, report);
    Ok(())
}

/// The wanted rows, planned one by one: each takes the host a moment.
fn rows(args: &Args, chip: &Chip, deadline: Deadline, report: &Journal) -> Vec<Row> {
    let (mut rows, mut left) = (Vec::new(), Vec::new());
    let sizes = if args.rehearse { SMALL } else { SIZES };
    for name in plan::names().filter(|name| args.wants(name)) {
        if deadline.is_over() {
            left.push(name);
            continue;
        }
        report.begin(format!("the plan of row {name}"));
        match plan::plan(chip, sizes, name) {
            Ok(row) => rows.push(row),
            Err(why) => report.lock().fault(why),
        }
    }
    if !left.is_empty() {
        report.lock().cut(format_args!("rows {}", left.join(", ")), deadline.ended());
    }
    rows
}

/// Why there is no device, in one sentence.
fn refused(place: Place, error: &RuntimeError, found: Discovery) -> String {
    match found.remarks.into_iter().next() {
        // The runtimes' crates say so where there is no library for a device, or one that is too old.
        Some(remark) if error.call == "dlopen" && !found.absent => {
            format!("{remark}; install the vendor's newest driver")
        }
        Some(remark) if found.chips.is_empty() => format!("{remark}; run this where there is a GPU"),
        _ if error.fault == Fault::Other && !found.chips.is_empty() => {
            let last = found.chips.len() - 1;
            format!("device {place}: {error}; name one of 0 to {last} with --device")
        }
        _ => format!("device {place}: {error}; {}", check::fix(error.fault)),
    }
}

/// Why there are no kernels.
fn lacking(error: &ArtefactError) -> String {
    format!("{error}; {}", error.fix("--kernels DIR"))
}

/// What runs under compute-sanitizer: nothing is kept from call to call, so that every buffer ends where it ends.
fn small<R: Runtime>(
    runtime: R,
    all: &Artefacts,
    deadline: Deadline,
    report: &Journal,
) -> Result<(), String> {
    let artefact = all.choose(runtime.chip()).map_err(|error| lacking(&error))?;
    let settings = EngineSettings { keep: false, limit: Duration::from_secs(60) };
    let device = Accelerator::open(runtime, &artefact.bytes, settings);
    let device = device.map_err(|error| format!("{error}; {}", check::fix(error.fault)))?;
    check::check(device, artefact.target.name(), Effort::Short, deadline, report);
    Ok(())
}

/// Machine and driver.
fn describe(args: &Args, chip: &Chip, report: &mut Report) {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or(line, |(_, value)| value).trim().to_string()
    };
    let machine = json!({
        "device": args.device.to_string(),
        "name": chip.name,
        "architecture": chip.architecture,
        "units": chip.units,
        "memory_bytes": chip.memory_bytes,
        "integrated": chip.integrated,
        "driver_api": chip.driver,
        "kernel_driver": first("/proc/driver/nvidia/version", "NVRM"),
        "cpu": first("/proc/cpuinfo", "model name"),
        "cpus": thread::available_parallelism().map_or(1, usize::from),
        "kernel": first("/proc/sys/kernel/osrelease", ""),
    });
    report.tool = format!("gpu-bench {}", env!("CARGO_PKG_VERSION"));
    report.commit = env!("GPU_BENCH_COMMIT").into();
    report.machine = machine.as_object().cloned().unwrap_or_default();
    say(format_args!("{} {chip}, driver API {}, commit {}", args.device, chip.driver, report.commit));
}

/// Why something could not be said, the first time.
static UNSAID: OnceLock<io::Error> = OnceLock::new();

/// A line on stdout. Whoever closed it still has the file of results.
fn say(line: fmt::Arguments<'_>) {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => drop(UNSAID.set(error)),
        Err(_) | Ok(()) => {}
    }
}

/// Says and writes what was found.
fn finish(args: &Args, report: &Report) -> Result<(), String> {
    if !report.rows.is_empty() {
        say(format_args!("{}", report.table()));
    }
    say(format_args!("{} notes, {} faults, {:.0} s", report.notes.len(), report.faults.len(), report.took_s));
    if let Some(path) = &args.out {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut document = serde_json::to_value(report).map_err(|error| error.to_string())?;
        document["finished_unix_s"] = json!(now);
        let text = format!("{document:#}\n");
        fs::write(path, text)
            .map_err(|error| format!("--out {}: {error}; name a file where there is room", path.display()))?;
        say(format_args!("written to {}", path.display()));
    }
    Ok(())
}
