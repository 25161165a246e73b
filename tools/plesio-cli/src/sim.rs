//! `plesio sim`: the machines that the nodes run, on virtual time, with whatever can go wrong going wrong.

mod audit;
mod document;
mod observed;
mod replay;
mod scenario;

use crate::args::{SimArgs, said};
use crate::failure::{Exit, Failure, MORE_THREADS};
use crate::paint::Paint;
use crate::trace;
use crate::up::input;
use crate::{signals, stdout};
use plesio_sim::{
    ConfigError, Coverage, Fault, Mass, Phase, SeedReport, SimConfig, SimReport, Timing, Violation,
};
use replay::Replay;
use scenario::Scenario;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the stream has an interval.
const INTERVAL: Duration = Duration::from_secs(1);
/// Files that one run leaves of broken promises.
const FILES_MAX: usize = 100;
const SCENARIO_BYTES_MAX: usize = 1 << 20;

/// What is to be done.
struct Job<'a> {
    args: &'a SimArgs,
    scenario: Scenario,
    interrupted: bool,
}

impl Job<'_> {
    /// What makes the same run again without a file; none where flags cannot say it.
    fn again(&self, violation: &Violation) -> Option<String> {
        let scenario = &self.scenario;
        let (seed, nodes, faults) = (violation.seed, violation.nodes, violation.faults);
        let links = scenario.links.0;
        let links = if links.is_none() { String::new() } else { format!(" {links}") };
        let mut others =
            said("codec", scenario.codec) + &said("shares", scenario.shares) + &scenario.rules.to_string();
        others += &said("links", scenario.network);
        if scenario.no_hysteresis {
            others += " --no-hysteresis";
        }
        if scenario.clock_error > 0.0 {
            let _ = write!(others, " --clock-error {}", scenario.clock_error);
        }
        scenario.is_flags().then(|| {
            format!(
                "plesio sim --nodes {nodes} --seed {seed} --faults {faults} --seconds {}{others} --story{links}",
                scenario.seconds
            )
        })
    }
}

/// What the main thread waits for.
enum News {
    Seed(Box<SeedReport>),
    Done(Result<Box<SimReport>, ConfigError>),
    Signal,
    /// The trace could not be written.
    Trace(std::io::Error),
}

/// The figures so far: enough for a partial result.
#[derive(Clone, Debug, Default)]
struct Tally {
    seeds: u64,
    events: u64,
    frames: u64,
    faults: BTreeMap<&'static str, u64>,
    coverage: Coverage,
    /// Of every seed that has one.
    commits_ns: Vec<u64>,
    mass: Mass,
    /// Nanoseconds until all had seen a kill.
    seen_ns: Vec<u64>,
    lies: u64,
    timing: Timing,
    violations: Vec<Violation>,
    /// Of the first of them, what it takes to see them again.
    broken: Vec<Broken>,
    /// Only of a run that came to its end: it covers the seeds in their order.
    trace_hash: Option<String>,
}

/// A seed with a broken promise.
#[derive(Clone, Debug)]
struct Broken {
    seed: u64,
    /// Of this seed alone.
    report: SimReport,
    /// Where that is written down.
    file: Option<PathBuf>,
}

impl Tally {
    fn add(&mut self, seed: &SeedReport) {
        self.seeds += 1;
        self.events = self.events.saturating_add(seed.events);
        self.frames = self.frames.saturating_add(seed.frames);
        for (fault, count) in &seed.faults {
            *self.faults.entry(fault.name()).or_default() += count;
        }
        self.coverage.add(&seed.coverage);
        self.commits_ns.extend(Some(seed.commit_ns).filter(|commit_ns| *commit_ns > 0));
        self.mass += seed.mass;
        self.seen_ns.extend(&seed.seen_ns);
        self.lies = self.lies.saturating_add(seed.lies);
        self.timing.add(&seed.timing);
        self.violations.extend(seed.violation.clone());
    }

    /// Mean time from a contribution's cut to the moment at which it is final.
    fn commit_s(&self) -> Option<f64> {
        let sum_ns: f64 = self.commits_ns.iter().map(|commit_ns| *commit_ns as f64).sum();
        (sum_ns > 0.0).then(|| sum_ns / self.commits_ns.len() as f64 / 1e9)
    }

    /// So many in a minute of one mesh.
    fn per_min(&self, scenario: &Scenario, count: u64) -> Option<f64> {
        let simulated_min = self.seeds as f64 * f64::from(scenario.seconds) / 60.0;
        (simulated_min > 0.0).then(|| count as f64 / simulated_min)
    }

    /// Kills, and how long it took until all had seen one: median and longest, seconds.
    fn seen(&self) -> Option<(usize, f64, f64)> {
        let mut seen_ns = self.seen_ns.clone();
        seen_ns.sort_unstable();
        let seconds = |ns: &u64| *ns as f64 / 1e9;
        Some((seen_ns.len(), seconds(seen_ns.get(seen_ns.len() / 2)?), seconds(seen_ns.last()?)))
    }

    fn whole(report: &SimReport, broken: Vec<Broken>) -> Self {
        Self {
            seeds: report.seeds,
            events: report.events,
            frames: report.frames,
            faults: report.faults.iter().map(|(fault, count)| (fault.name(), *count)).collect(),
            coverage: report.coverage.clone(),
            commits_ns: vec![report.commit_ns],
            mass: report.mass,
            seen_ns: report.seen_ns.clone(),
            lies: report.lies,
            timing: report.timing,
            violations: report.violations.clone(),
            broken,
            trace_hash: Some(report.trace_hash.to_string()),
        }
    }

    /// The file that replays a seed.
    fn file(&self, seed: u64) -> Option<&Path> {
        self.broken.iter().find(|broken| broken.seed == seed)?.file.as_deref()
    }
}

/// Runs the seeds; fails when a promise was broken.
pub(crate) fn run(args: &SimArgs) -> Result<Exit, Failure> {
    let begin = Instant::now();
    let (news, heard) = mpsc::channel();
    let signal = news.clone();
    signals::watch(args.output.json_stream, move || {
        let _ended = signal.send(News::Signal);
    })?;
    let replay = if args.replay.is_empty() { None } else { Some(Replay::read(args)?) };
    let scenario = match (&replay, &args.scenario) {
        (Some(replay), _) => replay.scenario.clone(),
        (None, Some(path)) => read(path, args)?,
        (None, None) => Scenario::of(args),
    };
    let config = scenario.config(args)?;
    let mut job = Job { args, scenario, interrupted: false };
    if args.output.json_stream {
        let config = document::config(args, &job.scenario);
        stdout::emit(
            "start",
            &json!({ "schema": "plesio.sim/1", "config": config, "scenario": job.scenario }),
        );
    }
    let file = args.trace.as_deref().map(|path| trace::create(path, &job.scenario)).transpose()?;
    simulate(config.clone(), file, news)?;
    let mut tally = Tally::default();
    let mut interval = Instant::now();
    let mut line = Line::new(args);
    while let Ok(news) = heard.recv() {
        match news {
            News::Seed(seed) => {
                tally.add(&seed);
                note_broken(&job, &mut tally, &seed);
                line.seed(&job, &seed, &tally, &config);
                if args.fail_fast && !tally.violations.is_empty() {
                    break;
                }
            }
            News::Signal => {
                job.interrupted = true;
                break;
            }
            News::Trace(cause) => {
                line.clear();
                return Err(Failure::run("trace", "cannot write the trace", cause)
                    .fix("see whether the disk is full (df)"));
            }
            News::Done(report) => {
                let report = report.map_err(|error| refused("sim", error))?;
                tally = Tally::whole(&report, std::mem::take(&mut tally.broken));
                break;
            }
        }
        if args.output.json_stream && interval.elapsed() >= INTERVAL {
            interval = Instant::now();
            stdout::emit("interval", &json!({ "seeds": tally.seeds, "violations": tally.violations.len() }));
        }
    }
    line.clear();
    if args.output.json_stream || args.output.json {
        let document = document::document(&job, &tally, replay.as_ref(), begin.elapsed().as_secs_f64());
        if args.output.json_stream {
            stdout::emit("end", &document);
        } else {
            stdout::document(&document);
        }
    } else {
        let paint = Paint::new(args.output.color, std::io::stdout().is_terminal());
        let mut text = table(&job, &tally, begin.elapsed(), paint);
        text += &replay.as_ref().map(|replay| replay.words(&tally)).unwrap_or_default();
        stdout::text(&text);
    }
    let kept = replay.is_none_or(|replay| replay.holds(&tally));
    let holds = tally.violations.is_empty() && lacking(&job, &tally).is_none() && kept;
    Ok(match (job.interrupted, holds) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Ok,
        (false, false) => Exit::Failed,
    })
}

fn read(path: &Path, args: &SimArgs) -> Result<Scenario, Failure> {
    let cannot = |cause: String| {
        Failure::usage("scenario", format!("cannot use {}", path.display()), cause)
            .fix("mend that line; `plesio sim --help` names what a scenario says")
    };
    let bytes = input::read(path, SCENARIO_BYTES_MAX).map_err(|cause| {
        cannot(cause.to_string()).fix("give the path of a scenario, a short text file that you may read")
    })?;
    let text = str::from_utf8(&bytes)
        .map_err(|cause| cannot(cause.to_string()).fix("write it as UTF-8 text (see iconv)"))?;
    Scenario::read(text, args).map_err(cannot)
}

/// Simulates on threads of its own, so that Ctrl-C is heard at once.
fn simulate(config: SimConfig, file: Option<BufWriter<File>>, news: Sender<News>) -> Result<(), Failure> {
    let run = move || {
        let shared = Mutex::new((news.clone(), file));
        let report = plesio_sim::run_with(&config, |seed| {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let (sender, file) = &mut *shared;
            if let Some(file) = file
                && let Err(cause) = trace::append(file, seed)
            {
                let _ended = sender.send(News::Trace(cause));
            }
            let _ended =
                sender.send(News::Seed(Box::new(SeedReport { happened: Vec::new(), ..seed.clone() })));
        });
        let _ended = news.send(News::Done(report.map(Box::new)));
    };
    let thread = std::thread::Builder::new().name("simulate".into());
    let failure = |cause| Failure::thread("sim", cause);
    thread.spawn(run).map(drop).map_err(failure)
}

/// Why nothing is simulated.
pub(crate) fn refused(code: &'static str, error: ConfigError) -> Failure {
    let what = "cannot simulate this";
    match error {
        ConfigError::Threads(_) => Failure::run(code, what, error).fix(MORE_THREADS),
        _ => Failure::usage(code, what, error),
    }
}

/// Leaves a file of a seed that broke a promise.
fn note_broken(job: &Job<'_>, tally: &mut Tally, seed: &SeedReport) {
    if seed.violation.is_none() || tally.broken.len() >= FILES_MAX {
        return;
    }
    let report = SimReport::of(job.scenario.seconds, std::slice::from_ref(seed));
    let mut broken = Broken { seed: seed.seed, report, file: None };
    match document::save(job, &broken) {
        Ok(path) => broken.file = Some(path),
        Err(cause) => {
            let out = job.args.out.display();
            let _gone = writeln!(
                std::io::stderr(),
                "plesio: cannot write what replays seed {} to --out {out}: {cause}",
                seed.seed
            );
        }
    }
    tally.broken.push(broken);
}

/// The line on a terminal, and what is said of a broken promise at once.
struct Line {
    terminal: bool,
    shown: bool,
}

impl Line {
    fn new(args: &SimArgs) -> Self {
        Self { terminal: std::io::stderr().is_terminal() && !args.output.quiet, shown: false }
    }

    fn seed(&mut self, job: &Job<'_>, seed: &SeedReport, tally: &Tally, config: &SimConfig) {
        let mut out = String::new();
        if let Some(violation) = seed.violation.as_ref().filter(|_| !job.args.output.quiet) {
            self.clear();
            for line in &seed.story {
                let _ = writeln!(out, "{line}");
            }
            let _ = writeln!(out, "{violation}");
            for command in commands(job, tally, violation) {
                let _ = writeln!(out, "  {command}");
            }
        }
        if self.terminal {
            let all = config.seeds.end - config.seeds.start;
            let _ = write!(out, "\r{} of {all} seeds, {} violations", tally.seeds, tally.violations.len());
            self.shown = true;
        }
        let _gone = std::io::stderr().lock().write_all(out.as_bytes());
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _gone = std::io::stderr().lock().write_all(b"\r\x1b[K");
        }
    }
}

/// What makes a broken promise happen again: by its file, and by flags.
fn commands(job: &Job<'_>, tally: &Tally, violation: &Violation) -> Vec<String> {
    let by_file =
        tally.file(violation.seed).map(|path| format!("plesio sim --replay {} --story", path.display()));
    by_file.into_iter().chain(job.again(violation)).collect()
}

/// The smallest cell of the coverage, where it is below what is required.
fn lacking(job: &Job<'_>, tally: &Tally) -> Option<(Fault, Phase, u64)> {
    let required = job.args.require_coverage?;
    tally.coverage.least(job.scenario.faults.0).filter(|(.., hits)| *hits < required)
}

fn table(job: &Job<'_>, tally: &Tally, wall: Duration, paint: Paint) -> String {
    let (args, scenario) = (job.args, &job.scenario);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} meshes of {} nodes, {} virtual seconds each, in {:.1} s: {} events, {} frames, {} faults",
        tally.seeds,
        scenario.nodes,
        scenario.seconds,
        wall.as_secs_f64(),
        tally.events,
        tally.frames,
        tally.faults.values().sum::<u64>()
    );
    let count = |count| tally.per_min(scenario, count);
    if let (Some(versions), Some(contributions), Some(commit_s)) =
        (count(tally.frames), count(tally.timing.slots), tally.commit_s())
    {
        let _ = writeln!(
            text,
            "pace        {versions:.1} versions and {contributions:.0} contributions a minute, {:.2} % late, final {commit_s:.3} s \
             after their cut",
            100.0 * tally.timing.late_ratio()
        );
    }
    if !scenario.links.0.is_none() {
        let _ = writeln!(text, "links       {}", scenario.links.0);
    }
    if scenario.fault.is_empty()
        && let Some((fault, phase, hits)) = tally.coverage.least(scenario.faults.0)
    {
        let _ = writeln!(text, "faults, by what the mesh was doing when they struck");
        text += &tally.coverage.table(scenario.faults.0);
        let _ = writeln!(text, "least       {hits}: {} while {}", fault.name(), phase.name());
    }
    if let Some(required) = args.require_coverage.filter(|_| lacking(job, tally).is_some()) {
        let _ = writeln!(text, "coverage    {}", paint.red(&format!("below {required}: run more seeds")));
    }
    if tally.lies > 0 {
        let _ = writeln!(text, "lies        {}, after which some promises are not held", tally.lies);
    }
    let timing = &tally.timing;
    if timing.slots > 0 {
        let _ = writeln!(
            text,
            "timing      {:.1} % of {} slots late, {} folds, {:.2} corrections per node and minute; locked within {:.1} s, \
             {} frames{}",
            100.0 * timing.late_ratio(),
            timing.slots,
            timing.folds,
            timing.corrections_per_node_min(),
            timing.lock_ns_max as f64 / 1e9,
            timing.lock_frames_max,
            if timing.never_locked > 0 { format!(", {} never", timing.never_locked) } else { String::new() },
        );
    }
    let mass = tally.mass;
    if mass.produced > 0 {
        let (produced, parts) = (mass.produced as f64, 100.0 / mass.produced as f64);
        let _ = writeln!(
            text,
            "mass        {produced:.3e} quanta: {:.2} % final, {:.2} % waiting, {:.2} % lost with {} processes that were \
             killed ({:.2} % in slots, at most {} of a ring), {:.2} % left behind, {:.2} % thrown away after a return; {}",
            mass.committed as f64 * parts,
            mass.waiting as f64 * parts,
            (mass.lost_in_slots + mass.lost_uncut) as f64 * parts,
            mass.killed,
            mass.lost_in_slots as f64 * parts,
            mass.slots_lost_most,
            mass.left_behind as f64 * parts,
            mass.trimmed as f64 * parts,
            if mass.is_exact() { "exact" } else { "NOT EXACT" }
        );
    }
    if let Some((kills, median_s, max_s)) = tally.seen() {
        let _ = writeln!(
            text,
            "kills       {kills}, seen by all after {median_s:.3} s (median), {max_s:.3} s at most"
        );
    }
    let _ =
        writeln!(text, "trace hash  {}", tally.trace_hash.as_deref().unwrap_or("none: not all seeds ran"));
    if tally.violations.is_empty() {
        let _ = writeln!(text, "violations  {}", paint.green("none"));
    }
    for violation in &tally.violations {
        let _ = writeln!(text, "{}  {violation}", paint.red("violation "));
        for command in commands(job, tally, violation) {
            let _ = writeln!(text, "{:12}{}", "", paint.dim(&command));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;
    use plesio_sim::FaultSet;

    fn args(line: &[&str]) -> SimArgs {
        let line = ["plesio", "sim"].iter().chain(line);
        match Cli::try_parse_from(line).expect("a good line").command {
            Command::Sim(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    fn job(args: &SimArgs) -> Job<'_> {
        Job { args, scenario: Scenario::of(args), interrupted: false }
    }

    fn config(args: &SimArgs) -> Result<SimConfig, Failure> {
        Scenario::of(args).config(args)
    }

    /// Whatever was wrong with a file, a line in it was to be mended.
    #[test]
    fn a_file_that_cannot_be_read_is_not_to_be_mended() {
        let path = std::env::temp_dir().join(format!("plesio-scenario-{}", std::process::id()));
        let refused = || read(&path, &args(&[])).expect_err("no scenario");
        assert!(refused().fix.starts_with("give the path of a scenario"), "{}", refused());
        std::fs::write(&path, b"nodes = 4 # \xff").expect("a folder for temporary files");
        assert!(refused().fix.contains("UTF-8"), "{}", refused());
        std::fs::write(&path, "nodes = ").expect("our own file");
        assert!(refused().fix.starts_with("mend that line"), "{}", refused());
        std::fs::remove_file(&path).expect("our own file");
    }

    fn broken() -> Tally {
        let faults = "crash,loss".parse().expect("two names");
        let what = "I4: two digests of version 9".into();
        let violation = Violation { seed: 5, nodes: 8, faults, at_ns: 1_500_000_000, what };
        Tally { seeds: 6, events: 10, violations: vec![violation], ..Tally::default() }
    }

    #[test]
    fn one_seed_or_a_range_of_them() {
        assert_eq!(config(&args(&["--seeds", "3..9"])).expect("good").seeds, 3..9);
        assert_eq!(config(&args(&["--seed", "7"])).expect("good").seeds, 7..8);
        assert_eq!(config(&args(&[])).expect("good").faults, FaultSet::ALL);
        assert!(config(&args(&["--nodes", "0"])).is_err_and(|failure| failure.exit == Exit::Usage));
        for wrong in [&["--seeds", "3"][..], &["--seeds", "a..b"], &["--faults", "fire"], &["--nodes", "300"]]
        {
            assert!(Cli::try_parse_from(["plesio", "sim"].iter().chain(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn coverage_that_is_required_and_missing_is_said() {
        let some = args(&["--faults", "crash", "--require-coverage", "1"]);
        assert_eq!(lacking(&job(&some), &broken()), Some((Fault::Crash, Phase::Filling, 0)));
        let text = table(&job(&some), &broken(), Duration::from_secs(1), Paint(false));
        assert!(text.contains("least       0: crash while filling") && text.contains("below 1"), "{text}");
        assert_eq!(lacking(&job(&args(&["--faults", "none", "--require-coverage", "1"])), &broken()), None);
        assert_eq!(lacking(&job(&args(&["--faults", "crash"])), &broken()), None);
    }

    #[test]
    fn a_broken_promise_says_how_to_see_it_again() {
        let args = args(&["--nodes", "8"]);
        let document = document::document(&job(&args), &broken(), None, 1.0);
        for field in ["seeds", "simulated_s", "events", "violations", "faults_injected", "frames", "config"] {
            assert!(!document[field].is_null(), "{field}");
        }
        assert_eq!(document["coverage"]["crash"]["open"], 0);
        let replay = document["violations"][0]["replay"].as_str().expect("a command");
        assert_eq!(replay, "plesio sim --nodes 8 --seed 5 --faults loss,crash --seconds 20 --story");
        let text = table(&job(&args), &broken(), Duration::from_secs(1), Paint(false));
        assert!(text.contains("I4: two digests") && text.contains(replay), "{text}");
        let lossy = self::args(&["--loss", "1%", "--delay", "2ms"]);
        let links = config(&lossy).expect("good").links;
        assert_eq!((links.loss_ppm, links.delay_ns), (10_000, 2_000_000));
        assert!(
            table(&job(&lossy), &broken(), Duration::from_secs(1), Paint(false))
                .contains("--loss 1% --delay 2ms")
        );
    }

    #[test]
    fn a_broken_promise_leaves_a_file_that_replays_it() {
        let out = std::env::temp_dir().join(format!("plesio-sim-out-{}", std::process::id()));
        let mut args = args(&["--nodes", "3", "--seeds", "0..2", "--seconds", "10", "--faults", "none"]);
        args.out.clone_from(&out);
        let job = job(&args);
        let config = SimConfig { seeds: 1..2, ..config(&args).expect("good") };
        let reports = Mutex::new(Vec::new());
        let keep = |seed: &SeedReport| {
            let violation = Violation {
                seed: seed.seed,
                nodes: 3,
                faults: FaultSet::NONE,
                at_ns: 1,
                what: "planted".into(),
            };
            let broken = SeedReport { violation: Some(violation), ..seed.clone() };
            reports.lock().expect("nobody panicked").push(broken);
        };
        let hash = plesio_sim::run_with(&config, keep).expect("good").trace_hash.to_string();
        let mut tally = Tally::default();
        for seed in reports.into_inner().expect("nobody panicked") {
            tally.add(&seed);
            note_broken(&job, &mut tally, &seed);
        }
        let file = tally.file(1).expect("written").to_owned();
        assert_eq!(file, out.join("seed-1.json"));
        let text = table(&job, &tally, Duration::from_secs(1), Paint(false));
        assert!(text.contains(&format!("plesio sim --replay {} --story", file.display())), "{text}");
        let again = self::args(&["--replay", &file.display().to_string()]);
        let replay = Replay::read(&again).expect("our own");
        let config = replay.scenario.config(&again).expect("good");
        assert_eq!(config.seeds, 1..2);
        let report = plesio_sim::run(&config).expect("good");
        assert!(replay.holds(&Tally::whole(&report, Vec::new())));
        assert_eq!(report.trace_hash.to_string(), hash);
        std::fs::remove_dir_all(&out).expect("our own folder");
    }
}
