//! `plesio bench allreduce` and `plesio bench shm`: processes that sum together, and how fast.
//!
//! ```text
//!  this process: the driver ── orders ──▶ plesio bench-rank, one per rank (rank.rs); they meet by themselves
//!                           ◀── times, wrong elements, memory ──
//! ```

mod rank;
mod ranks;
mod report;
mod values;

pub(crate) use rank::run_rank;

use super::{Wait, progress, require, table};
use crate::args::{CollectiveArgs, NarrowArg, OperationArg, PathArg, SharesArg};
use crate::failure::{Exit, Failure};
use crate::host::Host;
use crate::{demo, signals, stdout};
use plesio_collective::Element;
use rank::Run;
use ranks::Fleet;
use report::{Bounds, Key, Report, Row, Way};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) fn run(name: &'static str, args: &CollectiveArgs) -> Result<Exit, Failure> {
    Bench { name, args }.run()
}

/// Where named network namespaces are (ip-netns(8)).
const NAMESPACES: &str = "/run/netns";

struct Bench<'a> {
    name: &'static str,
    args: &'a CollectiveArgs,
}

impl Bench<'_> {
    fn run(&self) -> Result<Exit, Failure> {
        self.check()?;
        let interrupted = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&interrupted);
        signals::watch(self.args.output.common.json_stream, move || told.store(true, Ordering::Release))?;
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
        for way in self.ways() {
            if let Err(failure) = self.measure(way, &mut report, &interrupted) {
                if interrupted.load(Ordering::Acquire) {
                    break;
                }
                if report.has_rows() {
                    table::show(&self.args.output, &report.document(true))?;
                }
                return Err(failure);
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

    fn ways(&self) -> Vec<Way> {
        let some = |waits: &[Wait]| waits.iter().copied().map(Some).collect();
        let mut ways = Vec::new();
        for &path in &self.args.path {
            let (modes, waits): (Vec<_>, Vec<_>) = match path {
                PathArg::Shm => (vec![None], vec![None]),
                PathArg::Udp => {
                    (self.args.protection.modes().iter().copied().map(Some).collect(), some(&self.args.wait))
                }
            };
            for protection in modes {
                for &wait in &waits {
                    ways.extend(self.args.ranks.iter().map(|&ranks| Way { path, protection, wait, ranks }));
                }
            }
        }
        ways
    }

    fn keys(&self, way: Way) -> Vec<Key> {
        let element = self.args.element;
        let mut keys = Vec::new();
        for operation in self.operations() {
            for &codec in &self.args.codec {
                keys.extend(self.args.size.iter().map(|bytes| Key {
                    way,
                    operation,
                    element,
                    codec,
                    bytes: *bytes,
                }));
            }
        }
        keys
    }

    fn check(&self) -> Result<(), Failure> {
        let element_bytes = self.args.element.element().bytes() as u32;
        if let Some(size) = self.args.size.iter().find(|size| !size.is_multiple_of(element_bytes)) {
            let cause = format!("{size} bytes are no whole number of elements of {element_bytes} bytes");
            return Err(Failure::usage("bench", "cannot run this", cause).fix("give another --size"));
        }
        let args = self.args;
        let by_udp = args.path.iter().all(|path| *path == PathArg::Udp);
        let most = args.ranks.iter().copied().max().map_or(0, usize::from);
        let narrows = args.codec.iter().any(|codec| *codec != NarrowArg::None);
        let sums = self.operations().iter().all(|operation| *operation == OperationArg::AllReduce);
        let refuse = |what: &str, fix: &str| Err(Failure::usage("bench", "cannot run this", what).fix(fix));
        if self.name == "shm" && args.path.contains(&PathArg::Udp) {
            return refuse(
                "this bench is of ranks that share memory",
                "run `plesio bench allreduce --path udp`",
            );
        }
        if narrows && !(by_udp && sums && args.element.element() == Element::F32) {
            return refuse(
                "codecs narrow all-reduce of f32 by datagrams",
                "add --path udp, without --operation and --element",
            );
        }
        if !(by_udp || args.links.is_empty() && args.namespaces.is_empty()) {
            return refuse("links and namespaces are for ranks that use datagrams", "add --path udp");
        }
        for (list, len) in [("--links", args.links.len()), ("--namespaces", args.namespaces.len())] {
            if len > 0 && len < most {
                let cause = format!("{list} names {len}, and there are {most} ranks");
                return Err(Failure::usage("bench", "cannot run this", cause).fix("name one for each rank"));
            }
        }
        let unknown = |name: &&String| name.contains('/') || !Path::new(NAMESPACES).join(name).is_file();
        if let Some(name) = args.namespaces.iter().find(unknown) {
            let cause = format!("there is no network namespace {name:?}");
            let failure = Failure::usage("bench", "cannot run this", cause);
            return Err(failure.fix("name some of those that `ip netns list` shows"));
        }
        if args.kills > 0 && !sums {
            return refuse("kills are for all-reduce", "leave --operation out");
        }
        if args.kills > 0 && args.ranks.iter().any(|ranks| *ranks < 2) {
            return refuse("who is alone has no survivors", "give --ranks 2 or more");
        }
        if args.links.is_empty() && args.shares == SharesArg::Equal {
            return refuse("shares are equal where no links are named", "add --links, or leave --shares out");
        }
        super::group::check_cores(&self.args.pin)
    }

    fn check_requirements(&self, report: &Report<'_>) -> Result<(), Failure> {
        let mut sample = report.like();
        for way in self.ways() {
            self.keys(way).into_iter().for_each(|key| sample.push(Row::sample(key)));
        }
        let document = sample.document(false);
        require::check(&self.args.require, &document)
    }

    /// All rows of one group.
    fn measure(
        &self,
        way: Way,
        report: &mut Report<'_>,
        interrupted: &Arc<AtomicBool>,
    ) -> Result<(), Failure> {
        let mut standing = None;
        for key in self.keys(way) {
            let fleet = match &mut standing {
                Some(fleet) => fleet,
                None => {
                    let fleet = Fleet::start(self.args, way, interrupted)?;
                    fleet.notes().into_iter().for_each(|note| report.note(note));
                    standing.insert(fleet)
                }
            };
            let mut row =
                Row { bounds: Bounds::of(&key, &self.args.links, self.args.shares), ..Row::new(key) };
            for round in 1..=self.args.repeats {
                if interrupted.load(Ordering::Acquire) {
                    break;
                }
                let (name, ranks, bytes) = (key.operation.operation().name(), way.ranks, key.bytes);
                let text =
                    format!("{name}, {ranks} ranks, {bytes} bytes: round {round} of {}", self.args.repeats);
                progress(&self.args.output.common, &text);
                let told = self.round(fleet, &mut row, round);
                // What was measured before an interrupt is shown.
                if !interrupted.load(Ordering::Acquire) {
                    told?;
                }
            }
            if self.args.kills > 0 {
                // Ranks that wait take cores from those that are killed.
                standing = None;
            }
            if !row.first.is_empty() {
                let told = self.kill(&mut row, interrupted);
                if !interrupted.load(Ordering::Acquire) {
                    told?;
                }
                row.killed_note().into_iter().for_each(|note| report.note(note));
                report.push(row);
                if self.args.output.common.json_stream {
                    stdout::emit("interval", &report.last_row());
                }
            }
        }
        Ok(())
    }

    /// One round of a row: ours, the bare pass, ours again.
    fn round(&self, fleet: &mut Fleet, row: &mut Row, round: u16) -> Result<(), Failure> {
        let key = row.key;
        let run = |bare| Run { bare, ..self.one_run(&key, round) };
        let first = fleet.run(&run(false))?;
        let floor = if key.has_floor() { Some(fleet.run(&run(true))?) } else { None };
        row.last.push(fleet.run(&run(false))?);
        row.first.push(first);
        row.floor.extend(floor);
        Ok(())
    }

    fn one_run(&self, key: &Key, round: u16) -> Run {
        Run {
            operation: key.operation,
            element: key.element,
            codec: key.codec,
            count: u64::from(key.bytes) / key.element.element().bytes(),
            iterations: self.args.iterations.unwrap_or(default_iterations(key.bytes)),
            seed: self.args.seed.wrapping_add(u64::from(round)),
            bare: false,
            dies_after_ns: None,
        }
    }

    /// Kills a rank inside one operation after another, each of a group of its own.
    fn kill(&self, row: &mut Row, interrupted: &Arc<AtomicBool>) -> Result<(), Failure> {
        let key = row.key;
        let mut times: Vec<u64> =
            row.first.iter().chain(&row.last).flat_map(|ours| ours.times_ns.clone()).collect();
        times.sort_unstable();
        let median_ns = times.get(times.len() / 2).copied().unwrap_or(0);
        let mut draw = [0; 16];
        for kill in 1..=self.args.kills.saturating_mul(KILL_TRIES) {
            if interrupted.load(Ordering::Acquire) || row.killed.len() == usize::from(self.args.kills) {
                break;
            }
            crate::random::fill(&mut draw)?;
            let draw = u128::from_le_bytes(draw);
            let victim = (draw % u128::from(key.way.ranks)) as usize;
            let after_ns = (draw >> 64) as u64 % median_ns.max(1);
            let mut fleet = Fleet::start(self.args, key.way, interrupted)?;
            let run = Run { iterations: 1, ..self.one_run(&key, kill) };
            match fleet.run_killing(&run, victim, after_ns)? {
                Some(outcome) => row.killed.push(outcome),
                None => row.killed_late += 1,
            }
        }
        Ok(())
    }

    fn finish(&self, report: &Report<'_>, interrupted: bool) -> Result<Exit, Failure> {
        let document = report.document(interrupted);
        table::show(&self.args.output, &document)?;
        let wrong = report.wrong();
        if wrong > 0 {
            let cause = format!("{wrong} elements are not the sum of what the ranks wrote");
            return Err(Failure::run("wrong-data", "a result is wrong", cause)
                .fix("run it again with the same --seed, and report it"));
        }
        if interrupted {
            return Ok(Exit::Interrupted);
        }
        Ok(require::judge(&self.args.require, &document))
    }
}

/// Groups that are formed for one kill at most: one that comes after the victim's end of the operation does not count.
const KILL_TRIES: u16 = 10;

/// As the rivals' programs have it.
const fn default_iterations(bytes: u32) -> u32 {
    match bytes {
        0..=65_536 => 101,
        65_537..=1_048_576 => 31,
        1_048_577..=16_777_216 => 9,
        _ => 5,
    }
}
