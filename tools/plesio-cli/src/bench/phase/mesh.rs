//! The processes of one run on the two hosts: started, told of each other, heard, ended.
//!
//! A process ends with its stdin, so none outlives the driver, however that ends.

use super::end::{Batch, Open, Order, Sample, Setup, Start};
use super::figures::Track;
use crate::args::StampsArg;
use crate::failure::Failure;
use plesio_netns::{Pair, Side};
use plesio_udp::clock::monotonic_raw_ns;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// A wrong clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wrong {
    pub(super) rate_ppm: f64,
    pub(super) offset_ns: i64,
}

/// How a run goes.
pub(super) struct Run<'a> {
    pub(super) pair: &'a Pair,
    /// The followers' clocks; the reference, which is true, comes first and is none of them.
    pub(super) clocks: &'a [Wrong],
    pub(super) stamps: StampsArg,
    pub(super) seed: u64,
    pub(super) time: Duration,
    pub(super) interrupted: &'a AtomicBool,
}

/// What the processes said.
pub(super) struct Told {
    pub(super) begin_ns: i64,
    /// The reference's first.
    pub(super) tracks: Vec<Track>,
    /// Whether all of them had the stamps that were asked for.
    pub(super) stamped: bool,
}

enum Heard {
    Open(Open),
    Batch(Batch),
    Gone,
}

struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < END_LIMIT {
            std::thread::sleep(Duration::from_millis(5));
        }
        // One that has ended takes no harm.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Run<'_> {
    /// Runs it; an interruption only makes it shorter.
    pub(super) fn run(&self) -> Result<Told, Failure> {
        let (send, heard) = channel();
        let mut processes = Vec::new();
        for index in 0..=self.clocks.len() {
            processes.push(self.start(index, send.clone())?);
        }
        drop(send);
        let (members, stamped) = self.meet(&heard, processes.len())?;
        let begin_ns = monotonic_raw_ns();
        for process in &mut processes {
            order(process, &Order::Start(Start { members: members.clone(), period_us: PERIOD_US }))?;
        }
        let mut tracks = vec![Track::default(); processes.len()];
        let end = Instant::now() + self.time;
        while !self.interrupted.load(Ordering::Acquire) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match heard.recv_timeout(left.min(LOOK)) {
                Ok((index, Heard::Batch(batch))) => add(&mut tracks[index], batch),
                Ok((index, Heard::Gone)) => return Err(self.died(index, &mut processes[index])),
                Ok((_, Heard::Open(_))) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(Told { begin_ns, tracks, stamped })
    }

    fn start(&self, index: usize, heard: Sender<(usize, Heard)>) -> Result<Process, Failure> {
        let failed = |cause: &dyn std::fmt::Display| {
            Failure::run("bench", format!("cannot start process {index} of the bench"), cause)
        };
        let program = std::env::current_exe().map_err(|cause| failed(&cause))?;
        let side = if index.is_multiple_of(2) { Side::Left } else { Side::Right };
        let mut command = self.pair.command(side, &program);
        command.arg("bench-clock").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|cause| failed(&cause))?;
        let stdout = child.stdout.take();
        let mut process = Process { stdin: child.stdin.take(), child };
        let hear = move || {
            let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines());
            for said in lines.map_while(Result::ok).filter_map(|line| read(&line)) {
                if heard.send((index, said)).is_err() {
                    return;
                }
            }
            // Nobody listens any more when the run is over.
            let _over = heard.send((index, Heard::Gone));
        };
        std::thread::Builder::new().name("hear".into()).spawn(hear).map_err(|cause| failed(&cause))?;
        let wrong = index.checked_sub(1).and_then(|at| self.clocks.get(at));
        let setup = Setup {
            // Members are sorted by key: the reference is the lowest.
            key: 1 + index as u64,
            at: side.address(),
            rate_ppm: wrong.map_or(0.0, |wrong| wrong.rate_ppm),
            offset_ns: wrong.map_or(0, |wrong| wrong.offset_ns),
            stamps: self.stamps,
            seed: self.seed.wrapping_add(index as u64),
        };
        order(&mut process, &Order::Setup(setup))?;
        Ok(process)
    }

    /// Waits until every process has its socket.
    fn meet(
        &self,
        heard: &Receiver<(usize, Heard)>,
        count: usize,
    ) -> Result<(Vec<(u64, std::net::SocketAddr)>, bool), Failure> {
        let mut addresses = vec![None; count];
        let mut stamped = true;
        let deadline = Instant::now() + OPEN_LIMIT;
        while addresses.iter().any(Option::is_none) {
            let left = deadline.saturating_duration_since(Instant::now());
            match heard.recv_timeout(left) {
                Ok((index, Heard::Open(open))) => {
                    addresses[index] = Some(open.address);
                    stamped &= open.kernel == (self.stamps == StampsArg::Kernel);
                }
                Ok((_, Heard::Batch(_))) => {}
                Ok((_, Heard::Gone)) | Err(_) => {
                    let cause = "a process of it ended, or has not opened its socket within 10 s";
                    return Err(Failure::run("bench", "the bench's processes do not start", cause)
                        .fix("see whether the machine is overloaded, and run it again"));
                }
            }
        }
        let members = (1..).zip(addresses.into_iter().flatten()).collect();
        Ok((members, stamped))
    }

    fn died(&self, index: usize, process: &mut Process) -> Failure {
        let mut said = String::new();
        if let Some(stderr) = &mut process.child.stderr {
            let _unread = stderr.take(QUOTED_BYTES_MAX).read_to_string(&mut said);
        }
        let cause = if said.is_empty() { "it said nothing".into() } else { said };
        Failure::run("bench", format!("process {index} of the bench ended by itself"), cause)
    }
}

fn order(process: &mut Process, order: &Order) -> Result<(), Failure> {
    let failed =
        |cause: &dyn std::fmt::Display| Failure::run("bench", "cannot tell a process its orders", cause);
    let line = serde_json::to_string(order).map_err(|cause| failed(&cause))?;
    let Some(stdin) = &mut process.stdin else { return Ok(()) };
    writeln!(stdin, "{line}").and_then(|()| stdin.flush()).map_err(|cause| failed(&cause))
}

fn read(line: &str) -> Option<Heard> {
    let mut said: Value = serde_json::from_str(line).ok()?;
    let data = said["data"].take();
    match said["event"].as_str()? {
        "open" => serde_json::from_value(data).ok().map(Heard::Open),
        "batch" => serde_json::from_value(data).ok().map(Heard::Batch),
        _ => None,
    }
}

fn add(track: &mut Track, batch: Batch) {
    let last = batch.samples.last().map(|sample: &Sample| sample.raw_ns);
    if let Some(at_ns) = last {
        track.rates.push((at_ns, batch.rate_ppb));
        track.bytes.push((at_ns, batch.bytes_sent));
    }
    track.samples.extend(batch.samples);
    track.exchanges = batch.exchanges;
    track.clock_steps = batch.clock_steps;
    track.false_tickers = batch.false_tickers;
}

/// As `plesio demo` has it: the bounds for lock follow from it.
const PERIOD_US: u32 = 250_000;
const OPEN_LIMIT: Duration = Duration::from_secs(10);
const END_LIMIT: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(100);
const QUOTED_BYTES_MAX: u64 = 600;
