//! `plesio bench`: what this build moves between two processes, beside what others move in the same minute.
//!
//! ```text
//!                 this process: the driver (ends.rs), the document (report.rs)
//!                   │ orders, answers                       │
//!      plesio bench-end: begins                  plesio bench-end: answers, here or behind --connect
//!      worker.rs, ours.rs / rival.rs ── link ──▶ worker.rs, ours.rs / rival.rs
//! ```
//!
//! Every round runs ours first and last and the rivals between: ours against itself says how far to trust the rest.

mod churn;
mod collective;
mod compare;
mod connect;
mod control;
mod ends;
mod figures;
mod group;
mod kernels;
mod link;
mod listen;
mod memory;
mod ours;
mod path;
mod phase;
mod quinn;
mod relay;
mod report;
mod require;
mod rival;
mod round;
mod scratch;
mod table;
mod worker;

pub(crate) use collective::run_rank;
pub(crate) use kernels::{names as kernel_names, run_worker as run_kernels};
pub(crate) use link::{Mode, Rival, Wait};
pub(crate) use path::run_between;
pub(crate) use phase::run_clock;
pub(crate) use relay::relay_figures;
pub(crate) use require::Requirement;
pub(crate) use worker::run_end;

use crate::args::{BenchArgs, BenchCommand, COLD_BYTES, ChunkArg, HOT_BYTES, OutputArgs};
use crate::failure::{Exit, Failure};
use crate::host::Host;
use crate::{demo, signals, stdout};
use connect::{Reach, Way};
use ends::{Ends, Outcome};
use link::{Link, Run, What};
use report::{Cell, Key, Report};
use serde_json::{Value, json};
use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) fn run(command: &BenchCommand) -> Result<Exit, Failure> {
    match command {
        BenchCommand::Udp(args) => Bench {
            what: What::Stream,
            config: config(args, &args.common, chunks(&args.chunk, &args.common, What::Stream), What::Stream),
            size: &args.size,
            chunk: chunks(&args.chunk, &args.common, What::Stream),
            flows: args.flows,
            both: args.both,
            incast: args.incast,
            hist: None,
            common: &args.common,
        }
        .run(),
        BenchCommand::Pingpong(args) => Bench {
            what: What::Pingpong,
            config: config(
                args,
                &args.common,
                chunks(&args.chunk, &args.common, What::Pingpong),
                What::Pingpong,
            ),
            size: &args.size,
            chunk: chunks(&args.chunk, &args.common, What::Pingpong),
            flows: 1,
            both: false,
            incast: false,
            hist: args.hist.as_deref(),
            common: &args.common,
        }
        .run(),
        BenchCommand::Allreduce(args) => collective::run("allreduce", args),
        BenchCommand::Shm(args) => collective::run("shm", args),
        BenchCommand::Compare(args) => compare::run(args),
        BenchCommand::Relay(args) => relay::run(args),
        BenchCommand::Churn(args) => churn::run(args),
        BenchCommand::Kernels(args) => kernels::run(args),
        BenchCommand::Phase(args) => phase::run(args),
    }
}

/// Progress, for a terminal.
fn progress(output: &OutputArgs, what: &str) {
    use std::io::IsTerminal;
    if !output.quiet && std::io::stderr().is_terminal() {
        let _gone = writeln!(std::io::stderr(), "{what}");
    }
}

/// Every option, with what it is when it was not given.
fn config(args: &impl serde::Serialize, common: &BenchArgs, chunk: &[ChunkArg], what: What) -> Value {
    let mut config = json!(args);
    config["working_set"] = json!(common.working_set.unwrap_or(default_bytes(what)));
    config["chunk"] = json!(chunk);
    config
}

/// What was given, or what fits the way between the ends.
fn chunks<'a>(given: &'a [ChunkArg], common: &BenchArgs, what: What) -> &'a [ChunkArg] {
    match what {
        _ if !given.is_empty() => given,
        _ if common.connect.is_some() => &[ChunkArg::Path],
        What::Stream if common.impair.is_none() => &[ChunkArg::Bytes(65_408), ChunkArg::Bytes(1_408)],
        _ => &[ChunkArg::Bytes(1_408)],
    }
}

const fn default_bytes(what: What) -> u32 {
    match what {
        What::Stream => COLD_BYTES,
        What::Pingpong => HOT_BYTES,
    }
}

/// One command line.
struct Bench<'a> {
    what: What,
    config: Value,
    size: &'a [u32],
    chunk: &'a [ChunkArg],
    flows: u16,
    both: bool,
    incast: bool,
    hist: Option<&'a Path>,
    common: &'a BenchArgs,
}

impl Bench<'_> {
    const fn name(&self) -> &'static str {
        match self.what {
            What::Stream => "udp",
            What::Pingpong => "pingpong",
        }
    }

    const fn direction(&self) -> &'static str {
        match self.what {
            What::Pingpong => "there-and-back",
            What::Stream if self.incast => "incast",
            What::Stream if self.both => "two-way",
            What::Stream => "one-way",
        }
    }

    fn working_set_bytes(&self) -> u32 {
        self.common.working_set.unwrap_or(default_bytes(self.what))
    }

    fn run(&self) -> Result<Exit, Failure> {
        let args = self.common;
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        signals::watch(args.output.common.json_stream, move || flag.store(true, Ordering::Release))?;
        let ends_here = if args.listen.is_some() || args.connect.is_some() { 1 } else { 2 };
        group::check(&args.pin, ends_here)?;
        if let Some(at) = args.listen {
            return listen::serve(args, self.name(), at, &interrupted);
        }
        self.check()?;
        let probe = self.probe()?;
        let host = Host::look(probe.tier.to_string(), probe.reason);
        self.check_requirements(&host)?;
        let Way { mut ends, own, pool, reach } = match &args.connect {
            Some(to) => connect::connect(args, to, Arc::clone(&interrupted))?,
            None => {
                let ends = Ends::here(Arc::clone(&interrupted), &args.pin)?;
                Way { ends, own: args.bind, pool: ours::pool()?, reach: Reach::Open }
            }
        };
        self.check_reach(reach)?;
        ends.through(&args.impair, args.seed)?;
        let mut report = Report::new(self.name(), &self.config, &host, self.what, self.working_set_bytes());
        report.shape(self.flows, self.direction(), &args.vs);
        self.crowding(&mut report, host.cores);
        if args.impair.jitter.0 > args.impair.delay.0 {
            let (delay, jitter) = (args.impair.delay, args.impair.jitter);
            report.note(format!(
                "--jitter {jitter} is more than --delay {delay}: the way takes from 0 to the sum of both"
            ));
        }
        if args.output.common.json_stream {
            stdout::emit("start", &json!({ "config": self.config, "host": host }));
        }
        for key in self.keys() {
            let mut cell = Cell::new(key, &args.vs);
            let measured = self.measure(&mut cell, &mut ends, (own, reach, &pool), &interrupted);
            report.push(cell);
            if let Err(failure) = measured {
                if report.has_rows() {
                    table::show(&args.output, &report.document(true))?;
                }
                return Err(failure);
            }
            if args.output.common.json_stream {
                stdout::emit("interval", &report.last_row());
            }
        }
        drop(ends);
        let interrupted = interrupted.load(Ordering::Acquire);
        self.finish(&report, interrupted)
    }

    /// What can be known to fail before anything runs.
    fn check(&self) -> Result<(), Failure> {
        let working_set = self.working_set_bytes();
        if let Some(size) = self.size.iter().find(|size| **size > working_set) {
            let cause = format!("a message of {size} bytes does not fit into {working_set} bytes");
            return Err(Failure::usage("bench", "cannot run this", cause).fix("give a larger --working-set"));
        }
        let args = self.common;
        for key in self.keys() {
            self.order(key, Link::Plesio, args.bind, Reach::Open).check()?;
        }
        if !args.impair.is_none() && args.vs.contains(&Rival::Tcp) {
            let cause = "tcp carries no datagrams, so it cannot go through the relay of a bad path";
            return Err(Failure::usage("bench", "cannot run this", cause)
                .fix("leave tcp out, or make two hosts whose network is bad: README, \"Across hosts\""));
        }
        let smallest = self.chunk.iter().map(|chunk| chunk.bytes_max()).min().unwrap_or(0);
        let whole = self.size.iter().all(|size| *size <= smallest);
        if self.what == What::Pingpong && args.vs.contains(&Rival::UdpRaw) && !whole {
            let cause = "udp-raw answers one datagram with one: it cannot take a --size above --chunk";
            return Err(Failure::usage("bench", "cannot run this", cause).fix("give a larger --chunk"));
        }
        if args.vs.contains(&Rival::Quinn)
            && let Some(missing) = quinn::missing()
        {
            return Err(missing);
        }
        if let Some(path) = self.hist {
            round::check_log(path)?;
        }
        if args.connect.is_none() {
            let bound = UdpSocket::bind((args.bind, 0));
            bound.map_err(|cause| {
                Failure::usage("bench", format!("cannot have both ends at {}", args.bind), cause)
                    .fix("give --bind an address of this machine; see `ip address`")
            })?;
        }
        if args.key_file.is_some() && args.connect.is_none() {
            let cause = "--key-file is for --listen and --connect";
            return Err(Failure::usage("bench", "cannot use this key", cause).fix("leave it out"));
        }
        Ok(())
    }

    /// A bound on a number that no such document has is missed before anything runs.
    fn check_requirements(&self, host: &Host) -> Result<(), Failure> {
        let args = self.common;
        if args.require.is_empty() {
            return Ok(());
        }
        let mut sample = Report::new(self.name(), &self.config, host, self.what, self.working_set_bytes());
        sample.shape(self.flows, self.direction(), &args.vs);
        for key in self.keys() {
            sample.push(Cell::sample(key, &args.vs, self.flows, !args.impair.is_none())?);
        }
        let document = sample.document(false);
        require::check(&args.require, &document)
    }

    /// What cannot be carried to the other machine in one piece, behind a relay that would cut it.
    fn check_reach(&self, reach: Reach) -> Result<(), Failure> {
        let Reach::Known(most) = reach else { return Ok(()) };
        let large = |chunk: &&ChunkArg| matches!(chunk, ChunkArg::Bytes(bytes) if *bytes > most);
        let Some(chunk) = self.chunk.iter().find(large) else { return Ok(()) };
        let cause = format!("the path to the other machine takes chunks of up to {most} bytes");
        Err(Failure::usage("bench", format!("cannot send chunks of {chunk} bytes"), cause)
            .fix("give a smaller --chunk, or --chunk path"))
    }

    /// The first backend that was asked for; all of them have to work.
    fn probe(&self) -> Result<plesio_udp::Probe, Failure> {
        let mut first = None;
        for backend in &self.common.backend {
            let probe = plesio_udp::probe(demo::requested(*backend)).map_err(|cause| Failure {
                exit: Exit::Missing,
                ..Failure::run("backend", "the backend does not work here", cause).fix("say --backend auto")
            })?;
            first = first.or(Some(probe));
        }
        first.ok_or_else(|| Failure::usage("backend", "no backend was given", "an empty list"))
    }

    /// Spinning ends that share cores measure the scheduler.
    fn crowding(&self, report: &mut Report<'_>, cores: usize) {
        let per_end = if self.common.connect.is_some() { 1 } else { 2 };
        let wanted = usize::from(self.flows) * per_end;
        if self.common.wait.contains(&Wait::Spin) && wanted > cores {
            report.note(format!(
                "--wait spin wants {wanted} cores and there are {cores}: each end waits for the other to be scheduled; say \
                 --wait adaptive"
            ));
        }
    }

    fn keys(&self) -> Vec<Key> {
        let args = self.common;
        let mut keys = Vec::new();
        for &bytes in self.size {
            for &chunk in self.chunk {
                for &backend in &args.backend {
                    for &wait in &args.wait {
                        for &protection in args.protection.modes() {
                            keys.push(Key { bytes, chunk, backend, wait, protection });
                        }
                    }
                }
            }
        }
        keys
    }

    /// One run of a row.
    fn order(&self, key: Key, link: Link, bind: IpAddr, reach: Reach) -> Run {
        let Key { bytes, chunk, backend, wait, protection } = key;
        Run {
            what: self.what,
            link,
            backend,
            wait,
            protection,
            bytes,
            chunk_bytes: match chunk {
                ChunkArg::Path => chunk.bytes_max().min(reach.chunk_bytes_max()),
                ChunkArg::Bytes(bytes) => bytes,
            },
            search: chunk == ChunkArg::Path,
            placement: self.common.placement,
            suite: self.common.suite,
            working_set_bytes: self.working_set_bytes(),
            seed: self.common.seed,
            seconds: self.common.seconds,
            flows: self.flows,
            both: self.both,
            incast: self.incast,
            relayed: !self.common.impair.is_none(),
            round_trip_ns: self.common.impair.round_trip_ns(),
            bind,
        }
    }

    /// All rounds of one row.
    fn measure(
        &self,
        cell: &mut Cell,
        ends: &mut Ends,
        (bind, reach, pool): (IpAddr, Reach, &str),
        interrupted: &AtomicBool,
    ) -> Result<(), Failure> {
        let args = self.common;
        let key = cell.key;
        let mut run = |link| -> Result<Option<Outcome>, Failure> {
            if interrupted.load(Ordering::Acquire) {
                return Ok(None);
            }
            ends.run(&self.order(key, link, bind, reach), pool).map(Some)
        };
        for round in 1..=args.repeats {
            let Key { bytes, chunk, wait, .. } = key;
            let (wait, repeats) = (wait.name(), args.repeats);
            progress(
                &args.output.common,
                &format!("{bytes} bytes, chunk {chunk}, {wait}: round {round} of {repeats}"),
            );
            cell.first.extend(run(Link::Plesio)?);
            for (rival, outcomes) in &mut cell.rivals {
                outcomes.extend(run(rival.link())?);
            }
            cell.last.extend(run(Link::Plesio)?);
        }
        Ok(())
    }

    fn finish(&self, report: &Report<'_>, interrupted: bool) -> Result<Exit, Failure> {
        let document = report.document(interrupted);
        table::show(&self.common.output, &document)?;
        if let Some(path) = self.hist {
            round::write_log(path, &report.histograms()?)?;
        }
        let wrong = report.wrong_bytes();
        if wrong > 0 {
            let cause = format!("{wrong} bytes differ from those that were sent");
            return Err(Failure::run("wrong-data", "the receiver holds wrong bytes", cause)
                .fix("run it again with the same --seed, and report it"));
        }
        if interrupted {
            return Ok(Exit::Interrupted);
        }
        Ok(require::judge(&self.common.require, &document))
    }
}
