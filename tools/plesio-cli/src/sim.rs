//! `plesio sim`: the machines that the nodes run, on virtual time, with whatever can go wrong going wrong.

use crate::args::{SimArgs, said};
use crate::failure::{Exit, Failure};
use crate::host::{self, Host};
use crate::paint::Paint;
use crate::{signals, stdout};
use plesio_sim::{Coverage, Fault, Phase, SeedReport, SimConfig, SimReport, Violation};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

/// How often the stream has an interval.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the main thread waits for.
enum News {
    Seed(Box<SeedReport>),
    Done(Result<SimReport, plesio_sim::ConfigError>),
    Signal,
}

/// The figures so far: enough for a partial result.
#[derive(Clone, Debug, Default)]
struct Tally {
    seeds: u64,
    events: u64,
    frames: u64,
    faults: BTreeMap<&'static str, u64>,
    coverage: Coverage,
    lies: u64,
    violations: Vec<Violation>,
    /// Only of a run that came to its end: it covers the seeds in their order.
    trace_hash: Option<String>,
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
        self.lies = self.lies.saturating_add(seed.lies);
        self.violations.extend(seed.violation.clone());
    }

    fn whole(report: &SimReport) -> Self {
        Self {
            seeds: report.seeds,
            events: report.events,
            frames: report.frames,
            faults: report.faults.iter().map(|(fault, count)| (fault.name(), *count)).collect(),
            coverage: report.coverage.clone(),
            lies: report.lies,
            violations: report.violations.clone(),
            trace_hash: Some(report.trace_hash.to_string()),
        }
    }
}

/// Runs the seeds; fails when a promise was broken.
pub(crate) fn run(args: &SimArgs) -> Result<Exit, Failure> {
    let begin = Instant::now();
    let (news, heard) = mpsc::channel();
    let signal = news.clone();
    signals::watch(move || {
        let _ended = signal.send(News::Signal);
    })?;
    let config = config(args)?;
    if args.output.json_stream {
        stdout::emit("start", &json!({ "schema": "plesio.sim/1", "config": args }));
    }
    simulate(config.clone(), news)?;
    let mut tally = Tally::default();
    let mut interrupted = false;
    let mut interval = Instant::now();
    let mut line = Line::new(args);
    while let Ok(news) = heard.recv() {
        match news {
            News::Seed(seed) => {
                tally.add(&seed);
                line.seed(args, &seed, &tally, &config);
                if args.fail_fast && !tally.violations.is_empty() {
                    break;
                }
            }
            News::Signal => {
                interrupted = true;
                break;
            }
            News::Done(report) => {
                tally = Tally::whole(&report.map_err(refused)?);
                break;
            }
        }
        if args.output.json_stream && interval.elapsed() >= INTERVAL {
            interval = Instant::now();
            stdout::emit("interval", &json!({ "seeds": tally.seeds, "violations": tally.violations.len() }));
        }
    }
    line.clear();
    let document = document(args, &tally, interrupted, begin.elapsed().as_secs_f64());
    if args.output.json_stream {
        stdout::emit("end", &document);
    } else if args.output.json {
        stdout::document(&document);
    } else {
        let paint = Paint::new(args.output.color, std::io::stdout().is_terminal());
        stdout::text(&table(args, &tally, begin.elapsed(), paint));
    }
    let holds = tally.violations.is_empty() && lacking(args, &tally).is_none();
    Ok(match (interrupted, holds) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Ok,
        (false, false) => Exit::Failed,
    })
}

fn config(args: &SimArgs) -> Result<SimConfig, Failure> {
    let seeds = args.seed.map_or(args.seeds.clone(), |seed| seed..seed.saturating_add(1));
    let config = SimConfig {
        nodes: args.nodes,
        seeds,
        faults: args.faults,
        links: args.impair.impairment(),
        simulated_s: args.seconds,
        threads: host::cores(),
        codec: args.codec.codec(),
        sharing: args.shares.sharing(),
        rules: args.rules.rules()?,
        story: args.story,
        ..SimConfig::default()
    };
    config.check().map_err(refused)?;
    Ok(config)
}

fn refused(error: plesio_sim::ConfigError) -> Failure {
    Failure::usage("sim", "cannot simulate this", error).fix("see `plesio sim --help` for names and ranges")
}

/// Simulates on threads of its own, so that Ctrl-C is heard at once.
fn simulate(config: SimConfig, news: Sender<News>) -> Result<(), Failure> {
    let run = move || {
        let seeds = std::sync::Mutex::new(news.clone());
        let report = plesio_sim::run_with(&config, |seed| {
            let sender = seeds.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let _ended = sender.send(News::Seed(Box::new(seed.clone())));
        });
        let _ended = news.send(News::Done(report));
    };
    let thread = std::thread::Builder::new().name("simulate".into());
    thread.spawn(run).map(drop).map_err(|cause| Failure::run("sim", "cannot start a thread", cause))
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

    fn seed(&mut self, args: &SimArgs, seed: &SeedReport, tally: &Tally, config: &SimConfig) {
        let mut out = String::new();
        if let Some(violation) = seed.violation.as_ref().filter(|_| !args.output.quiet) {
            self.clear();
            for line in &seed.story {
                let _ = writeln!(out, "{line}");
            }
            let _ = writeln!(out, "{violation}");
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

/// The smallest cell of the coverage, where it is below what is required.
fn lacking(args: &SimArgs, tally: &Tally) -> Option<(Fault, Phase, u64)> {
    let required = args.require_coverage?;
    tally.coverage.least(args.faults).filter(|(.., hits)| *hits < required)
}

/// What makes the same run again.
fn replay(args: &SimArgs, violation: &Violation) -> String {
    let (seed, nodes, faults) = (violation.seed, violation.nodes, violation.faults);
    let links = if args.impair.is_none() { String::new() } else { format!(" {}", args.impair) };
    let others = said("codec", args.codec) + &said("shares", args.shares) + &args.rules.to_string();
    format!(
        "plesio sim --nodes {nodes} --seed {seed} --faults {faults} --seconds {}{others} --story{links}",
        args.seconds
    )
}

fn document(args: &SimArgs, tally: &Tally, interrupted: bool, wall_s: f64) -> Value {
    let violations: Vec<Value> = tally
        .violations
        .iter()
        .map(|violation| {
            json!({
                "seed": violation.seed,
                "nodes": violation.nodes,
                "faults": violation.faults.to_string(),
                "at_s": violation.at_ns as f64 / 1e9,
                "what": violation.what,
                "replay": replay(args, violation),
            })
        })
        .collect();
    let faults: Map<String, Value> =
        tally.faults.iter().map(|(fault, count)| ((*fault).to_owned(), json!(count))).collect();
    let row = |fault: Fault| -> Map<String, Value> {
        let cell = |phase: &Phase| (phase.name().to_owned(), json!(tally.coverage.of(fault, *phase)));
        Phase::ALL.iter().map(cell).collect()
    };
    let coverage: Map<String, Value> =
        args.faults.iter().map(|fault| (fault.name().to_owned(), Value::Object(row(fault)))).collect();
    let least = tally
        .coverage
        .least(args.faults)
        .map(|(fault, phase, hits)| json!({ "fault": fault.name(), "phase": phase.name(), "hits": hits }));
    json!({
        "schema": "plesio.sim/1",
        "config": args,
        "host": Host::look("none".into(), "virtual links".into()),
        "ended": match (interrupted, &tally.trace_hash) {
            (true, _) => "interrupted",
            (false, None) => "failed",
            (false, Some(_)) => "whole",
        },
        "seeds": tally.seeds,
        "simulated_s": args.seconds,
        "events": tally.events,
        "violations": violations,
        "trace_hash": tally.trace_hash,
        "faults_injected": tally.faults.values().sum::<u64>(),
        "faults": faults,
        "coverage": coverage,
        "coverage_least": least,
        "lies": tally.lies,
        "frames": tally.frames,
        "wall_s": wall_s,
    })
}

fn table(args: &SimArgs, tally: &Tally, wall: Duration, paint: Paint) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} meshes of {} nodes, {} virtual seconds each, in {:.1} s: {} events, {} frames, {} faults",
        tally.seeds,
        args.nodes,
        args.seconds,
        wall.as_secs_f64(),
        tally.events,
        tally.frames,
        tally.faults.values().sum::<u64>()
    );
    if !args.impair.is_none() {
        let _ = writeln!(text, "links       {}", args.impair);
    }
    if let Some((fault, phase, hits)) = tally.coverage.least(args.faults) {
        let _ = writeln!(text, "faults, by what the mesh was doing when they struck");
        text += &tally.coverage.table(args.faults);
        let _ = writeln!(text, "least       {hits}: {} while {}", fault.name(), phase.name());
    }
    if let Some(required) = args.require_coverage.filter(|_| lacking(args, tally).is_some()) {
        let _ = writeln!(text, "coverage    {}", paint.red(&format!("below {required}: run more seeds")));
    }
    if tally.lies > 0 {
        let _ = writeln!(text, "lies        {}, after which some promises are not held", tally.lies);
    }
    let _ =
        writeln!(text, "trace hash  {}", tally.trace_hash.as_deref().unwrap_or("none: not all seeds ran"));
    if tally.violations.is_empty() {
        let _ = writeln!(text, "violations  {}", paint.green("none"));
    }
    for violation in &tally.violations {
        let _ = writeln!(text, "{}  {violation}", paint.red("violation "));
        let _ = writeln!(text, "{:12}{}", "", paint.dim(&replay(args, violation)));
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
            Command::Sim(args) => args,
            other => panic!("{other:?}"),
        }
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
        assert_eq!(lacking(&some, &broken()), Some((Fault::Crash, Phase::Filling, 0)));
        let text = table(&some, &broken(), Duration::from_secs(1), Paint(false));
        assert!(text.contains("least       0: crash while filling") && text.contains("below 1"), "{text}");
        assert_eq!(lacking(&args(&["--faults", "none", "--require-coverage", "1"]), &broken()), None);
        assert_eq!(lacking(&args(&["--faults", "crash"]), &broken()), None);
    }

    #[test]
    fn a_broken_promise_says_how_to_see_it_again() {
        let args = args(&["--nodes", "8"]);
        let document = document(&args, &broken(), false, 1.0);
        for field in ["seeds", "simulated_s", "events", "violations", "faults_injected", "frames", "config"] {
            assert!(!document[field].is_null(), "{field}");
        }
        assert_eq!(document["coverage"]["crash"]["open"], 0);
        let replay = document["violations"][0]["replay"].as_str().expect("a command");
        assert_eq!(replay, "plesio sim --nodes 8 --seed 5 --faults loss,crash --seconds 20 --story");
        let text = table(&args, &broken(), Duration::from_secs(1), Paint(false));
        assert!(text.contains("I4: two digests") && text.contains(replay), "{text}");
        let lossy = self::args(&["--loss", "1%", "--delay", "2ms"]);
        let links = config(&lossy).expect("good").links;
        assert_eq!((links.loss_ppm, links.delay_ns), (10_000, 2_000_000));
        assert!(
            table(&lossy, &broken(), Duration::from_secs(1), Paint(false)).contains("--loss 1% --delay 2ms")
        );
    }
}
