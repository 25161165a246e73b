//! `plesio bench phase`: what nodes on two hosts think the mesh's time is, beside what it is.
//!
//! ```text
//!   host left (true clock)             host right (wrong clocks)
//!   plesio bench-clock ---- cable ---- plesio bench-clock ...     end.rs, mesh.rs
//!   chronyd -x, ptp4l ----- cable ---- chronyd -x, ptp4l          rivals.rs
//!              \_ moments -> figures -> report _/
//! ```

mod end;
mod figures;
mod mesh;
mod report;
mod rivals;

pub(crate) use end::run as run_clock;

use super::scratch::Scratch;
use super::{progress, require};
use crate::args::{PhaseArgs, StampsArg, TimeArg};
use crate::failure::{Exit, Failure};
use crate::host::Host;
use crate::{signals, stdout};
use figures::{Errors, Figures, points};
use mesh::{Run, Wrong};
use plesio_netns::Pair;
use report::{Outcome, Report};
use rivals::RivalRun;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What is counted begins so long after a run: probes come fast until then, and chrony has its first samples.
const SETTLED: Duration = Duration::from_secs(10);
const MTU: u32 = 1_500;
/// With the reference, as many as a view seats.
const CLOCKS_MAX: usize = 31;

pub(super) fn run(args: &PhaseArgs) -> Result<Exit, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    // Before the first thread: they inherit the mask.
    signals::watch(args.output.json_stream, move || flag.store(true, Ordering::Release))?;
    if args.rate.len() > CLOCKS_MAX {
        let cause =
            format!("a mesh has 32 members, and {} rates want {}", args.rate.len(), args.rate.len() + 1);
        return Err(Failure::usage("bench", "cannot run this", cause).fix("give --rate at most 31 rates"));
    }
    let host = Host::probed();
    let mut report = Report::new(args, &host);
    let mut rivals = args.vs.clone();
    rivals.retain(|rival| *rival != TimeArg::None);
    for why in rivals.iter().filter_map(|rival| rivals::missing(*rival)) {
        note(&mut report, why);
    }
    rivals.retain(|rival| rivals::missing(*rival).is_none());
    require::check(&args.require, &report.sample(&rivals))?;
    let pair = Pair::open(MTU).map_err(|cause| Failure {
        exit: Exit::Missing,
        ..Failure::run("no-hosts", "this machine grants no two hosts (network namespaces)", cause)
            .fix("run it as root, with the ip command of iproute2 installed")
    })?;
    if args.output.json_stream {
        stdout::emit("start", &report.start());
    }
    let bench = Bench { args, pair: &pair, rivals: &rivals, interrupted: &interrupted };
    let measured = bench.measure(&mut report);
    if let Err(failure) = measured {
        if report.has_rows() {
            show(args, &report, interrupted.load(Ordering::Acquire));
        }
        return Err(failure);
    }
    let interrupted = interrupted.load(Ordering::Acquire);
    let document = show(args, &report, interrupted);
    if interrupted {
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

fn show(args: &PhaseArgs, report: &Report<'_>, interrupted: bool) -> serde_json::Value {
    let document = report.document(interrupted);
    if args.output.json_stream {
        stdout::emit("end", &document);
    } else if args.output.json {
        stdout::document(&document);
    } else {
        stdout::text(&report.table());
    }
    document
}

/// Into the document, and aloud.
fn note(report: &mut Report<'_>, text: String) {
    let _gone = writeln!(std::io::stderr(), "plesio: note: {text}");
    report.note(text);
}

struct Bench<'a> {
    args: &'a PhaseArgs,
    pair: &'a Pair,
    rivals: &'a [TimeArg],
    interrupted: &'a AtomicBool,
}

impl Bench<'_> {
    fn measure(&self, report: &mut Report<'_>) -> Result<(), Failure> {
        let clocks = self.clocks();
        for round in 1..=self.args.repeats {
            for (at, stamps) in self.args.stamps.iter().enumerate() {
                self.ours(report, &clocks, (*stamps, round), at == 0)?;
            }
            for rival in self.rivals {
                self.rival(report, *rival, round)?;
            }
            if let (Some(stamps), false) = (self.args.stamps.first(), self.rivals.is_empty()) {
                self.ours(report, &clocks, (*stamps, round), false)?;
            }
        }
        Ok(())
    }

    fn clocks(&self) -> Vec<Wrong> {
        let offsets = self.args.offset.iter().cycle();
        let wrong =
            |(rate, offset): (&f64, &f64)| Wrong { rate_ppm: *rate, offset_ns: (offset * 1e9) as i64 };
        self.args.rate.iter().zip(offsets).map(wrong).collect()
    }

    fn ours(
        &self,
        report: &mut Report<'_>,
        clocks: &[Wrong],
        (stamps, round): (StampsArg, u8),
        first: bool,
    ) -> Result<(), Failure> {
        if self.interrupted.load(Ordering::Acquire) {
            return Ok(());
        }
        progress(&self.args.output, &format!("round {round}: ours, {} stamps", report::stamps_name(stamps)));
        let run = Run {
            pair: self.pair,
            clocks,
            stamps,
            seed: self.args.seed.wrapping_mul(1_000).wrapping_add(u64::from(round)),
            time: Duration::from_secs(self.args.seconds.into()),
            interrupted: self.interrupted,
        };
        let told = run.run()?;
        if !told.stamped {
            note(report, "a process had no kernel stamps: its row says kernel and has the program's".into());
        }
        let settled_ns = SETTLED.as_nanos() as i64;
        for ((wrong, track), index) in clocks.iter().zip(&told.tracks[1..]).zip(1..) {
            let points = points(&told.tracks[0].samples, &track.samples, told.begin_ns);
            let figures = Figures::of(track, &points, wrong.rate_ppm, told.begin_ns, settled_ns);
            report.push(Outcome { stamps, clock: index, wrong: *wrong, first, figures, points });
        }
        if self.args.output.json_stream {
            stdout::emit("interval", &report.last());
        }
        Ok(())
    }

    fn rival(&self, report: &mut Report<'_>, rival: TimeArg, round: u8) -> Result<(), Failure> {
        if self.interrupted.load(Ordering::Acquire) {
            return Ok(());
        }
        progress(&self.args.output, &format!("round {round}: {}", rival.name()));
        let folder = Scratch::make("phase")?;
        let run = RivalRun {
            pair: self.pair,
            folder: folder.path(),
            time: Duration::from_secs(self.args.seconds.into()),
            settled: SETTLED,
            interrupted: self.interrupted,
        };
        match run.run(rival).map(Errors::of) {
            Ok(Some(errors)) => report.push_rival(rival, errors),
            Ok(None) => {}
            Err(_) if self.interrupted.load(Ordering::Acquire) => {}
            Err(why) => note(report, format!("{} told nothing in round {round}: {why}", rival.name())),
        }
        Ok(())
    }
}
