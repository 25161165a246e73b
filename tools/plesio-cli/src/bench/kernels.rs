//! `plesio bench kernels`: what a device's kernels take, beside what its memory takes, and what others take.
//!
//! ```text
//!  this process: rows, rounds, ── orders ──▶ plesio bench-kernels: the  ── orders ──▶ python3 (numpy.rs)
//!  the document              ◀── times ──  kernels, and their floors  ◀── times ──
//! ```
//!
//! What is measured is in `list.rs`, one entry for each kernel and shape.

mod list;
mod measure;
mod memory;
mod numpy;
mod plan;
mod python;
mod report;
mod worker;

pub(crate) use worker::run as run_worker;

use super::{ends, progress, require, table};
use crate::args::{BENCH_BYTES_MAX, COLD_BYTES, HOT_BYTES, KernelRivalArg, KernelsArgs};
use crate::failure::{Exit, Failure};
use crate::host::{self, Host};
use crate::{signals, stdout};
use list::{Kernel, kernels};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use plan::Scale;
use plesio::DeviceChoice;
use report::{Key, Report, Row};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use worker::{Ask, Order, Said, Wanted};

/// Every kernel's name, once.
pub(crate) fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = kernels().map(|kernel| kernel.name).collect();
    names.dedup();
    names
}

pub(super) fn run(args: &KernelsArgs) -> Result<Exit, Failure> {
    let (rows, left_out) = rows(args)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let worker = Arc::new(AtomicI32::new(0));
    let (told, pid) = (Arc::clone(&interrupted), Arc::clone(&worker));
    signals::watch(args.output.common.json_stream, move || {
        told.store(true, Ordering::SeqCst);
        let pid = pid.load(Ordering::SeqCst);
        if pid > 0 {
            end(Pid::from_raw(pid)); // Its pipe then ends what waits for it.
        }
    })?;
    let host = Host::probed();
    let numpy = args.vs.contains(&KernelRivalArg::Numpy).then(|| numpy::version(&interrupted));
    let mut report = Report::new(args, &host, numpy.clone().and_then(Result::ok));
    left_out.into_iter().for_each(|why| report.note(format!("left out: {why}")));
    if args.working_set.is_none_or(|bytes| bytes == COLD_BYTES) && host::cache_bytes() >= COLD_BYTES.into() {
        report.note(
            "a cold working set fits into the caches of this machine: give a --working-set of 1G".into(),
        );
    }
    let mut sample = report.like();
    rows.iter().for_each(|key| sample.push(Row::sample(*key, sample.has_numpy())));
    require::check(&args.require, &sample.document(false))?;
    if let Some(Err(why)) = numpy {
        let _gone = writeln!(std::io::stderr(), "plesio: note: {why}");
        report.note(why);
    }
    if args.output.common.json_stream {
        stdout::emit("start", &report.document(false));
    }
    let measured = measure(args, rows, &mut report, &worker, &interrupted);
    let interrupted = interrupted.load(Ordering::SeqCst);
    if let Err(failure) = measured
        && !interrupted
    {
        if report.has_rows() {
            table::show(&args.output, &report.document(true))?;
        }
        return Err(failure);
    }
    let document = report.document(interrupted);
    table::show(&args.output, &document)?;
    if let Some((who, wrong)) = report.wrong() {
        let cause = format!("{wrong} elements of {who}");
        return Err(Failure::run("wrong-data", "a result is wrong", cause)
            .fix("run it again with the same --seed, and report it"));
    }
    if interrupted {
        return Ok(Exit::Interrupted);
    }
    Ok(require::judge(&args.require, &document))
}

/// Every kernel that was asked for, in every size that it takes, on as many threads; and what is left out of all of
/// them, as remarks.
fn rows(args: &KernelsArgs) -> Result<(Vec<Key>, Vec<String>), Failure> {
    let working_set = args.working_set.unwrap_or(COLD_BYTES);
    let on_a_device = matches!(args.device.0, DeviceChoice::Cuda(_) | DeviceChoice::Hip(_));
    let of_cpu = [("--threads", args.threads != [1]), ("--level", args.level.is_some())];
    if let Some((flag, _)) = of_cpu.into_iter().find(|(_, given)| on_a_device && *given) {
        let cause = format!("{flag} is of the CPU, and --device is {}", args.device.0);
        return Err(Failure::usage("bench", "cannot run this", cause).fix(format!("leave {flag} out")));
    }
    let given = sizes(args);
    if let Some(size) = given.iter().find(|size| **size < SIZE_MIN) {
        let cause = format!("{size} bytes are no size to measure");
        return Err(Failure::usage("bench", "cannot run this", cause).fix("give a --size of 1k or more"));
    }
    let (mut rows, mut left_out) = (Vec::new(), Vec::new());
    for (index, kernel) in kernels().enumerate() {
        let named = args.kernels.iter().any(|name| name == kernel.name);
        if !named && !args.kernels.is_empty() {
            continue;
        }
        let mut shapes = Vec::new();
        for &size in if kernel.sized { &given[..] } else { &given[..1] } {
            let plan = (kernel.plan)(Scale::Full(size));
            // Of unlike bytes that are as many elements, one row is enough.
            if shapes.contains(&plan.shape) {
                continue;
            }
            shapes.push(plan.shape.clone());
            let sets = match plan.set_bytes() {
                _ if kernel.hot && args.working_set.is_none() => 1,
                bytes => u64::from(working_set) / bytes,
            };
            if sets == 0 {
                let (name, shape, bytes) = (kernel.name, &plan.shape, plan.set_bytes());
                left_out.push(format!(
                    "a call of {name} {shape} takes {bytes} bytes, and the working set has {working_set}"
                ));
                if named || kernel.sized && !args.size.is_empty() || left_out.len() == kernels().count() {
                    let cause = left_out.swap_remove(left_out.len() - 1);
                    let fix = room(args, bytes, working_set);
                    return Err(Failure::usage("bench", "cannot run this", cause).fix(fix));
                }
                continue;
            }
            rows.extend(args.threads.iter().map(|&threads| Key {
                kernel,
                index,
                size,
                sets: sets as usize,
                threads,
            }));
        }
    }
    Ok((rows, left_out))
}

/// What makes room for a call of so many bytes and for all that were asked for besides: a working set if there may be
/// one as large, else smaller inputs.
fn room(args: &KernelsArgs, bytes: u64, working_set: u32) -> String {
    let named = |kernel: &&Kernel| args.kernels.iter().any(|name| name == kernel.name);
    let asked = |kernel: &&Kernel| kernel.sized && (args.kernels.is_empty() || named(kernel));
    let largest_set = |size: u32| {
        let sets = kernels().filter(asked).map(|kernel| (kernel.plan)(Scale::Full(size)).set_bytes());
        sets.max().unwrap_or(0)
    };
    let wanted = args.size.iter().map(|size| largest_set(*size)).fold(bytes, u64::max);
    if wanted <= BENCH_BYTES_MAX {
        return format!("give a --working-set of {} or more", spelled(wanted));
    }
    let sizes = || (0..u32::BITS).rev().map(|bit| 1 << bit).filter(|size| *size >= SIZE_MIN);
    let largest = |room| sizes().find(|size| largest_set(*size) <= room);
    match (largest(working_set.into()), largest(BENCH_BYTES_MAX)) {
        (Some(size), _) => format!("give a --size of {} or less", spelled(size.into())),
        (None, size) => format!(
            "give a --working-set of {} and a --size of {} or less",
            spelled(BENCH_BYTES_MAX),
            spelled(size.unwrap_or(SIZE_MIN).into())
        ),
    }
}

/// As a command line takes them, rounded up.
fn spelled(bytes: u64) -> String {
    if bytes < 1 << 20 {
        format!("{}k", bytes.div_ceil(1 << 10))
    } else {
        format!("{}M", bytes.div_ceil(1 << 20))
    }
}

/// Bytes of one input: what was asked for, or what suits the working set.
fn sizes(args: &KernelsArgs) -> Vec<u32> {
    let hot = args.working_set.is_some_and(|bytes| bytes <= HOT_BYTES);
    if args.size.is_empty() { vec![if hot { SIZE_HOT } else { SIZE_COLD }] } else { args.size.clone() }
}

fn measure(
    args: &KernelsArgs,
    mut rows: Vec<Key>,
    report: &mut Report<'_>,
    pid: &AtomicI32,
    interrupted: &AtomicBool,
) -> Result<(), Failure> {
    let mut worker = Worker::start(pid)?;
    if interrupted.load(Ordering::SeqCst) {
        // Who interrupts after this finds the process.
        return Err(worker.lost());
    }
    let order = Order::Device(Wanted {
        device: args.device,
        kernels_dir: args.kernels_dir.clone(),
        level: args.level,
    });
    let Said::Device(found) = worker.ask(&order)? else { return Err(worker.lost()) };
    if found.level.is_none() {
        // Threads are the CPU's.
        rows.retain(|key| args.threads.first() == Some(&key.threads));
    }
    report.found(found);
    for key in rows {
        let kernel = key.kernel;
        let numpy = report.has_numpy() && kernel.numpy;
        let ask = Ask {
            kernel: key.index,
            size: key.size,
            sets: key.sets,
            threads: key.threads,
            seed: args.seed,
            numpy,
        };
        let Said::Opened(opened) = worker.ask(&Order::Row(ask))? else { return Err(worker.lost()) };
        let mut row = Row::new(key, opened);
        for round in 1..=args.repeats {
            let (name, shape, repeats) = (kernel.name, row.shape(), args.repeats);
            progress(&args.output.common, &format!("{name} {shape}: round {round} of {repeats}"));
            let said = worker.ask(&Order::Round { seconds: args.seconds });
            match said {
                Ok(Said::Done(round)) => row.rounds.push(round),
                Ok(_) => return Err(worker.lost()),
                Err(failure) => {
                    report.push(row);
                    return Err(failure);
                }
            }
        }
        report.push(row);
        if args.output.common.json_stream {
            stdout::emit("interval", &report.last_row());
        }
    }
    Ok(())
}

/// Ends a process with all that it has started: it leads a group from its first order on, and starts nobody before.
fn end(leader: Pid) {
    // Both fail only where nobody is left.
    let _ended = (killpg(leader, Signal::SIGKILL), kill(leader, Signal::SIGKILL));
}

/// The process that runs the kernels; dropping it ends it.
struct Worker<'a> {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    pid: &'a AtomicI32,
}

impl<'a> Worker<'a> {
    fn start(pid: &'a AtomicI32) -> Result<Self, Failure> {
        let (child, orders, answers) = ends::spawn_told("bench-kernels")?;
        pid.store(child.id().cast_signed(), Ordering::SeqCst);
        Ok(Self { child, orders, answers: BufReader::new(answers), pid })
    }

    fn ask(&mut self, order: &Order) -> Result<Said, Failure> {
        let line = serde_json::to_string(order).map_err(|_| self.lost())?;
        writeln!(self.orders, "{line}").map_err(|_| self.lost())?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|_| self.lost())?;
        match serde_json::from_str(&line) {
            Ok(Said::Failed(trouble)) => Err(trouble.failure("bench")),
            Ok(said) => Ok(said),
            Err(_) => Err(self.lost()),
        }
    }

    fn lost(&self) -> Failure {
        let failure = Failure::run(
            "bench",
            "the process that runs the kernels is gone",
            "it ended before the run was over",
        );
        let failure = Failure { exit: Exit::Unreachable, ..failure };
        failure.fix("see what ended it: `dmesg` names a process killed for memory; then run again")
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        self.pid.store(0, Ordering::SeqCst);
        end(Pid::from_raw(self.child.id().cast_signed()));
        let _reaped = self.child.wait();
    }
}

/// Inputs of a working set that is larger than caches, and of one that stays in them.
const SIZE_COLD: u32 = 4 << 20;
const SIZE_HOT: u32 = 32 << 10;
const SIZE_MIN: u32 = 1 << 10;
