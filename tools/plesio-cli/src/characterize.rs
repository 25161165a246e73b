//! `plesio characterize`: the shipped machines over a sweep of unlike meshes, and a row of figures for each.
//!
//! ```text
//!   lists --> cells --> (cell, seed) --threads--> plesio-sim, whose workers learn --> row --> CSV, JSON, plots, traces
//! ```

mod cell;
mod plots;
mod row;

use crate::args::CharacterizeArgs;
use crate::demo::output::write_whole;
use crate::failure::{Exit, Failure};
use crate::host::{self, Host};
use crate::{signals, stdout, trace};
use cell::Cell;
use plesio_sim::{SeedReport, SimConfig};
use row::{Alone, COLUMNS, Row};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// One row that is to be made.
#[derive(Clone, Debug)]
struct Task {
    cell_id: usize,
    seed: u64,
    config: SimConfig,
}

/// What the main thread waits for.
enum News {
    Row(Box<Row>),
    Failed(Failure),
    Done,
    Signal,
}

/// What all threads share.
struct Sweep {
    cells: Vec<Cell>,
    tasks: Vec<Task>,
    seconds: u32,
    next: AtomicUsize,
    /// What a machine alone comes to, for each cell, once somebody has looked.
    alone: Vec<Mutex<Option<Alone>>>,
    /// Where traces go.
    traces: Option<PathBuf>,
}

/// Sweeps; fails when a promise was broken.
pub(crate) fn run(args: &CharacterizeArgs) -> Result<Exit, Failure> {
    let begin = Instant::now();
    let (news, heard) = mpsc::channel();
    let signal = news.clone();
    signals::watch(args.output.json_stream, move || {
        let _ended = signal.send(News::Signal);
    })?;
    let sweep = Arc::new(plan(args)?);
    make_folder(args)?;
    if args.output.json_stream {
        stdout::emit("start", &json!({ "schema": SCHEMA, "config": args, "rows": sweep.tasks.len() }));
    }
    for _ in 0..host::cores().min(sweep.tasks.len()) {
        let (sweep, news) = (Arc::clone(&sweep), news.clone());
        let thread = std::thread::Builder::new().name("sweep".into());
        thread.spawn(move || sweep.work(&news)).map_err(|cause| Failure::thread("characterize", cause))?;
    }
    drop(news);
    let (mut rows, mut ended, mut interrupted, mut failed) = (Vec::<Row>::new(), 0, false, None);
    let shows = std::io::stderr().is_terminal() && !args.output.quiet;
    while let Ok(news) = heard.recv() {
        match news {
            News::Row(row) => rows.push(*row),
            News::Failed(failure) => {
                failed = Some(failure);
                break;
            }
            News::Signal => {
                interrupted = true;
                break;
            }
            News::Done => {
                ended += 1;
                if ended == host::cores().min(sweep.tasks.len()) {
                    break;
                }
                continue;
            }
        }
        if args.output.json_stream {
            let row = rows.last().map(|row| &row.values);
            stdout::emit("interval", &json!({ "rows": rows.len(), "row": row }));
        }
        if shows {
            let _gone = write!(std::io::stderr(), "\r{} of {} rows", rows.len(), sweep.tasks.len());
        }
    }
    if shows {
        let _gone = write!(std::io::stderr(), "\r\x1b[K");
    }
    rows.sort_by_key(|row| (row.cell_id, row.seed));
    let document =
        document(args, &sweep, &rows, interrupted || failed.is_some(), begin.elapsed().as_secs_f64());
    write_all(&args.out, &sweep, &rows, &document)?;
    if args.output.json_stream {
        stdout::emit("end", &document);
    } else if args.output.json {
        stdout::document(&document);
    } else {
        stdout::text(&table(&sweep, &rows, &args.out));
    }
    if let Some(failure) = failed {
        return Err(failure);
    }
    Ok(match (interrupted, rows.iter().all(|row| row.is_good)) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Ok,
        (false, false) => Exit::Failed,
    })
}

/// Every row that is to be made, checked.
fn plan(args: &CharacterizeArgs) -> Result<Sweep, Failure> {
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::usage("characterize", "cannot sweep this", error)
            .fix("see `plesio characterize --help` for the ranges")
    };
    let cells = cell::cells(args);
    let count = args.seeds.end.saturating_sub(args.seeds.start).saturating_mul(cells.len() as u64);
    if count > ROWS_MAX {
        return Err(wrong(&format!("it has {count} rows, and at most {ROWS_MAX} are made at once")));
    }
    let mut tasks = Vec::new();
    for (cell_id, cell) in cells.iter().enumerate() {
        if cell.links.profile().is_none() && cell.period_ms.is_none() {
            return Err(wrong(
                &"drawn links have no frame period of their own; give --period-ms, or lan or wifi",
            ));
        }
        let learning = cell.learning().map_err(|error| wrong(&error))?;
        for seed in args.seeds.clone() {
            let config = cell.config(seed, args.seconds, &learning).map_err(|error| wrong(&error))?;
            tasks.push(Task { cell_id, seed, config });
        }
    }
    let alone = cells.iter().map(|_| Mutex::new(None)).collect();
    let traces = (!args.no_traces).then(|| args.out.join(TRACES));
    Ok(Sweep { cells, tasks, seconds: args.seconds, next: AtomicUsize::new(0), alone, traces })
}

impl Sweep {
    /// Makes rows as long as there are any to make.
    fn work(&self, news: &Sender<News>) {
        while let Some(task) = self.tasks.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let told = match self.row(task) {
                Ok(row) => News::Row(Box::new(row)),
                Err(failure) => News::Failed(failure),
            };
            if news.send(told).is_err() {
                return;
            }
        }
        let _ended = news.send(News::Done);
    }

    fn row(&self, task: &Task) -> Result<Row, Failure> {
        let cell = &self.cells[task.cell_id];
        let slot = Mutex::new(None);
        let keep = |report: &SeedReport| {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(report.clone());
        };
        plesio_sim::run_with(&task.config, keep)
            .map_err(|error| crate::sim::refused("characterize", error))?;
        let report = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
        let report =
            report.ok_or_else(|| Failure::run("characterize", "a seed told nothing", "no report"))?;
        if let Some(folder) = &self.traces {
            let path = folder.join(format!("cell-{}-seed-{}.jsonl", task.cell_id, task.seed));
            let mut file = trace::create(&path, &self.configuration(task)).map_err(|failure| {
                failure.fix("name another --out, see whether the disk is full (df), or say --no-traces")
            })?;
            trace::append(&mut file, &report).map_err(|cause| {
                Failure::run("trace", format!("cannot write {}", path.display()), cause)
                    .fix("see whether the disk is full (df), or say --no-traces")
            })?;
        }
        Ok(Row::of(task.cell_id, cell, self.alone(task), self.seconds, &report))
    }

    /// What a machine alone comes to in the same time: made once for every cell.
    fn alone(&self, task: &Task) -> Alone {
        let mut known = self.alone[task.cell_id].lock().unwrap_or_else(PoisonError::into_inner);
        *known.get_or_insert_with(|| {
            let (cell, span_ns) = (&self.cells[task.cell_id], u64::from(self.seconds) * 1_000_000_000);
            let last = |workers| {
                let learning = task.config.learning.as_ref()?;
                learning.alone(ALONE_SEED, workers, cell.mean_step_ns(), span_ns).pop()
            };
            let [one, serial] =
                [1, cell.nodes].map(|workers| last(workers).map_or(f64::NAN, |(_, loss)| loss));
            Alone { one, serial }
        })
    }

    /// All that a row was made with.
    fn configuration(&self, task: &Task) -> Value {
        let config = &task.config;
        let strikes = config.script.iter().flatten();
        json!({
            "cell_id": task.cell_id, "seed": task.seed, "cell": self.cells[task.cell_id], "seconds": self.seconds,
            "rates_ppb": config.rates_ppb, "steps_ns": config.steps_ns,
            "deaths": strikes.map(|strike| json!({ "node": strike.host, "at_s": strike.begin_ns as f64 / 1e9 }))
                .collect::<Vec<_>>(),
            "program": env!("CARGO_PKG_VERSION"),
        })
    }
}

/// Makes the folder, without what an earlier run left of ours.
fn make_folder(args: &CharacterizeArgs) -> Result<(), Failure> {
    let failure = |cause: std::io::Error| {
        Failure::usage("out", format!("cannot write to --out {}", args.out.display()), cause)
            .fix("name a folder that you may write to, as in --out ~/plesio-characterize")
    };
    let folder = if args.no_traces { args.out.clone() } else { args.out.join(TRACES) };
    fs::create_dir_all(folder).map_err(failure)?;
    let mut ours: Vec<PathBuf> = [CSV, JSON, PLOTS].iter().map(|name| args.out.join(name)).collect();
    for entry in fs::read_dir(args.out.join(TRACES)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with("cell-") && name.ends_with(".jsonl"));
        ours.extend(is_ours.then(|| entry.path()));
    }
    for path in ours {
        match fs::remove_file(path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(failure(cause)),
            _ => {}
        }
    }
    Ok(())
}

fn document(args: &CharacterizeArgs, sweep: &Sweep, rows: &[Row], interrupted: bool, wall_s: f64) -> Value {
    json!({
        "schema": SCHEMA,
        "config": args,
        "host": Host::look("none".into(), "virtual links".into()),
        "ended": if interrupted { "interrupted" } else { "whole" },
        "cells": sweep.cells,
        "configurations": sweep.tasks.iter().map(|task| sweep.configuration(task)).collect::<Vec<_>>(),
        "rows": rows.iter().map(|row| &row.values).collect::<Vec<_>>(),
        "wall_s": wall_s,
    })
}

fn write_all(out: &Path, sweep: &Sweep, rows: &[Row], document: &Value) -> Result<(), Failure> {
    let mut csv = COLUMNS.join(",") + "\r\n";
    rows.iter().for_each(|row| csv = std::mem::take(&mut csv) + &row.csv() + "\r\n");
    write_whole(&out.join(CSV), csv.as_bytes())?;
    write_whole(&out.join(JSON), format!("{document:#}\n").as_bytes())?;
    let words = format!(
        "{} meshes of {} kinds learnt for {} s each, on virtual time.",
        rows.len(),
        sweep.cells.len(),
        sweep.seconds
    );
    write_whole(&out.join(PLOTS), plots::page(&sweep.cells, rows, &words).as_bytes())
}

/// What a person wants to see at once.
fn table(sweep: &Sweep, rows: &[Row], out: &Path) -> String {
    let mut text = String::from(
        "cell  seed nodes mix_ms         clock links   deaths alpha  period weights   loss  gap    target  useful late\n",
    );
    for row in rows {
        let value = |column: &str| match row.values.get(column) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => "-".into(),
            Some(other) => other.to_string(),
        };
        let number = |column: &str, digits: usize| {
            row.number(column).map_or("-".into(), |number| format!("{number:.digits$}"))
        };
        let _ = writeln!(
            text,
            "{:<5} {:<4} {:<5} {:<14} {:<5} {:<7} {:<6} {:<6} {:<6} {:<9} {:<5} {:<6} {:<7} {:<6} {}",
            row.cell_id,
            row.seed,
            value("n"),
            value("mix"),
            value("clock"),
            value("link"),
            value("churn_per_node_h"),
            value("alpha"),
            number("P_ms", 0),
            value("mode"),
            number("loss_final", 3),
            number("loss_gap_vs_serial", 3),
            number("t_target_s", 1),
            number("useful_frac", 3),
            number("late_frac", 3),
        );
        if !row.is_good {
            let _ = writeln!(text, "      {}", value("violation"));
        }
    }
    let _ = writeln!(text, "{} of {} rows; {}", rows.len(), sweep.tasks.len(), out.join(PLOTS).display());
    text
}

const SCHEMA: &str = "plesio.characterize/1";
const CSV: &str = "characterize.csv";
const JSON: &str = "characterize.json";
const PLOTS: &str = "plots.html";
const TRACES: &str = "traces";
const ROWS_MAX: u64 = 10_000;
/// The same reference for all seeds of a cell.
const ALONE_SEED: u64 = 1;
