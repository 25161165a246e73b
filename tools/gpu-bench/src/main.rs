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

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fs, thread};

use clap::Parser;
use plesio_conformance::Effort;
use plesio_cuda::Cuda;
use plesio_hip::Hip;
use plesio_launch::{
    Accelerator, ArtefactError, Artefacts, Chip, Discovery, EngineSettings, Runtime, RuntimeError, artefact,
};
use serde_json::json;

mod args;
mod check;
mod child;
mod float64;
mod plan;
mod python;
mod report;
mod sanitizer;

use args::{Args, Place};
use child::Deadline;
use plan::Sizes;
use report::Report;

/// The specification's sizes. What a row moves is many times what any L2 holds.
const SIZES: Sizes = Sizes { moved_bytes: 768 << 20, width: 4096, tokens: 4096 };
/// A rehearsal's.
const SMALL: Sizes = Sizes { moved_bytes: 96 << 10, width: 128, tokens: 33 };
/// What the table has and this program does not.
const LATER: &str =
    "4-bit base products and the merge of sparse distributions have no kernels yet: their rows come later";

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.device {
        Place::Cuda(ordinal) => bench(&args, &|| Cuda::open(ordinal), plesio_cuda::discover),
        Place::Hip(ordinal) => bench(&args, &|| Hip::open(ordinal), plesio_hip::discover),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("gpu-bench: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Everything on one device; whether all that ran was right.
fn bench<R: Runtime>(
    args: &Args,
    open: &dyn Fn() -> Result<R, RuntimeError>,
    discover: fn() -> Discovery,
) -> Result<bool, String> {
    if !plan::names().any(|name| args.wants(name)) {
        let names = plan::names().collect::<Vec<_>>().join(", ");
        return Err(format!("--row {}: there is no such row; there are {names}", args.rows.join(" --row ")));
    }
    if let Some(path) = &args.out {
        // Now, and not when the time is spent.
        let opened = fs::OpenOptions::new().create(true).append(true).open(path);
        opened.map_err(|error| {
            format!("--out {}: {error}; name a file in a folder that is there", path.display())
        })?;
    }
    let begin = Instant::now();
    let deadline = Deadline::after(Duration::from_secs(args.seconds));
    let runtime = open().map_err(|error| refused(args.device, &error, discover()))?;
    let chip = runtime.chip().clone();
    let read;
    let all = match &args.kernels {
        Some(folder) => {
            read = Artefacts::read(folder).map_err(|error| error.to_string())?;
            &read
        }
        None => artefact::available().map_err(|error| error.to_string())?,
    };
    if args.small {
        return small(runtime, all, deadline);
    }
    drop(runtime);
    let mut report = Report {
        tool: format!("gpu-bench {}", env!("CARGO_PKG_VERSION")),
        commit: env!("GPU_BENCH_COMMIT").into(),
        ..Report::default()
    };
    describe(args, &chip, &mut report);
    report.note(LATER);
    let fitting = check::artefacts(all, &chip, &mut report);
    let Some(nearest) = fitting.first() else {
        return Err(all.choose(&chip).err().as_ref().map_or_else(String::new, ArtefactError::to_string));
    };
    if !args.rehearse {
        check::checks(open, &fitting, Effort::Whole, deadline, &mut report);
    }
    if let Place::Hip(_) = args.device {
        report
            .note("ceilings, compute-sanitizer and times were left out: they are for NVIDIA's devices alone");
    } else {
        if !args.rehearse {
            sanitizer::sanitize(args, deadline, &mut report);
        }
        let rows = plan::plan(&chip, if args.rehearse { SMALL } else { SIZES }, |name| args.wants(name))?;
        python::time(args, (&chip.name, *nearest), &rows, deadline, &mut report);
    }
    report.took_s = begin.elapsed().as_secs_f64();
    finish(args, &report)
}

/// Why there is no device, in one sentence.
fn refused(place: Place, error: &RuntimeError, found: Discovery) -> String {
    match found.remarks.into_iter().next() {
        Some(remark) if found.chips.is_empty() => {
            format!("{remark}; install the vendor's driver, or run this where there is a GPU")
        }
        _ => format!("device {place}: {error}"),
    }
}

/// What runs under compute-sanitizer: nothing is kept from call to call, so that every buffer ends where it ends.
fn small<R: Runtime>(runtime: R, all: &Artefacts, deadline: Deadline) -> Result<bool, String> {
    let artefact = all.choose(runtime.chip()).map_err(|error| error.to_string())?;
    let settings = EngineSettings { keep: false, limit: Duration::from_secs(60) };
    let device = Accelerator::open(runtime, &artefact.bytes, settings).map_err(|error| error.to_string())?;
    let mut report = Report::default();
    check::check(device, artefact.target.name(), Effort::Short, deadline, &mut report);
    Ok(report.faults.is_empty())
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
    report.machine = machine.as_object().cloned().unwrap_or_default();
    say(format_args!("{} {chip}, driver API {}, commit {}", args.device, chip.driver, report.commit));
}

/// A line on stdout. Whoever closed it still has the file of results.
fn say(line: fmt::Arguments<'_>) {
    let _closed = writeln!(io::stdout(), "{line}");
}

/// Says and writes what was found.
fn finish(args: &Args, report: &Report) -> Result<bool, String> {
    if !report.rows.is_empty() {
        say(format_args!("{}", report.table()));
    }
    say(format_args!("{} notes, {} faults, {:.0} s", report.notes.len(), report.faults.len(), report.took_s));
    if let Some(path) = &args.out {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut document = serde_json::to_value(report).map_err(|error| error.to_string())?;
        document["finished_unix_s"] = json!(now);
        let text = format!("{document:#}\n");
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        say(format_args!("written to {}", path.display()));
    }
    Ok(report.faults.is_empty())
}
