//! The document of `plesio bench phase`, and the same for people.

use super::figures::{Errors, Figures, Point};
use super::mesh::Wrong;
use crate::args::{PhaseArgs, StampsArg, TimeArg};
use crate::bench::figures::{Spread, trustworthy};
use crate::host::{self, Host};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One clock of one run.
pub(super) struct Outcome {
    pub(super) stamps: StampsArg,
    /// Its place in the mesh; the reference has 0.
    pub(super) clock: usize,
    pub(super) wrong: Wrong,
    /// Whether the run opened its round.
    pub(super) first: bool,
    pub(super) figures: Figures,
    pub(super) points: Vec<Point>,
}

pub(super) struct Report<'a> {
    args: &'a PhaseArgs,
    host: &'a Host,
    outcomes: Vec<Outcome>,
    rivals: BTreeMap<TimeArg, Vec<Errors>>,
    notes: Vec<String>,
}

const SCHEMA: &str = "plesio.bench.phase/1";

pub(super) const fn stamps_name(stamps: StampsArg) -> &'static str {
    match stamps {
        StampsArg::Kernel => "kernel",
        StampsArg::User => "user",
    }
}

impl<'a> Report<'a> {
    pub(super) fn new(args: &'a PhaseArgs, host: &'a Host) -> Self {
        Self { args, host, outcomes: Vec::new(), rivals: BTreeMap::new(), notes: Vec::new() }
    }

    pub(super) fn push(&mut self, outcome: Outcome) {
        self.outcomes.push(outcome);
    }

    pub(super) fn push_rival(&mut self, rival: TimeArg, errors: Errors) {
        self.rivals.entry(rival).or_default().push(errors);
    }

    pub(super) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    pub(super) fn has_rows(&self) -> bool {
        !self.outcomes.is_empty()
    }

    pub(super) fn start(&self) -> Value {
        json!({ "schema": SCHEMA, "config": self.args, "host": self.host })
    }

    /// The newest outcome.
    pub(super) fn last(&self) -> Value {
        self.outcomes.last().map_or(Value::Null, |outcome| json!({
            "stamps": stamps_name(outcome.stamps), "rate_ppm": outcome.wrong.rate_ppm, "figures": outcome.figures,
        }))
    }

    /// A document in which every number is there.
    pub(super) fn sample(&self, rivals: &[TimeArg]) -> Value {
        let mut sample = Self::new(self.args, self.host);
        for stamps in &self.args.stamps {
            for (clock, rate_ppm) in (1..).zip(&self.args.rate) {
                let figures = Figures {
                    bound_p50_ns: Some(1.0),
                    bound_max_ns: Some(1.0),
                    lock_time_s: Some(1.0),
                    rate_error_ppm: Some(1.0),
                    rate_error_max_ppm: Some(1.0),
                    sideband_bytes_per_s: Some(1.0),
                    ..Figures::default()
                };
                let wrong = Wrong { rate_ppm: *rate_ppm, offset_ns: 0 };
                sample.push(Outcome {
                    stamps: *stamps,
                    clock,
                    wrong,
                    first: true,
                    figures,
                    points: Vec::new(),
                });
            }
        }
        rivals.iter().for_each(|rival| {
            sample.push_rival(*rival, Errors { offset_error_p99_ns: 1.0, ..Errors::default() })
        });
        sample.document(false)
    }

    /// Outcomes with the first of the stamps: what the figures of the whole document are of.
    fn main(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| Some(&outcome.stamps) == self.args.stamps.first())
    }

    pub(super) fn document(&self, interrupted: bool) -> Value {
        let worst = |value: fn(&Figures) -> Option<f64>| worst(self.main(), value);
        let mut document = self.start();
        document["clocks"] = json!(self.args.rate.len());
        document["protection"] = json!("plaintext");
        document["offset_error_p50_ns"] = json!(worst(|figures| Some(figures.errors.offset_error_p50_ns)));
        document["offset_error_p99_ns"] = json!(worst(|figures| Some(figures.errors.offset_error_p99_ns)));
        document["offset_error_max_ns"] = json!(worst(|figures| Some(figures.errors.offset_error_max_ns)));
        document["bound_p50_ns"] = json!(worst(|figures| figures.bound_p50_ns));
        document["violations"] = json!(self.violations());
        document["rate_error_ppm"] = json!(worst(|figures| figures.rate_error_ppm));
        document["lock_time_s"] = json!(worst(|figures| figures.lock_time_s));
        document["sideband_bytes_per_s"] = json!(worst(|figures| figures.sideband_bytes_per_s));
        document["results"] = self.rows().iter().map(|row| self.row(row)).collect();
        document["baseline"] = self.baseline();
        document["ratio"] = self.ratio();
        document["verdict"] = json!(self.verdict());
        document["notes"] = json!(self.notes);
        document["interrupted"] = json!(interrupted);
        document["load_end"] = json!(host::load());
        document
    }

    fn violations(&self) -> usize {
        self.outcomes.iter().map(|outcome| outcome.figures.violations).sum()
    }

    /// Each stamps and clock once, with its outcomes in the order of the runs.
    fn rows(&self) -> Vec<Vec<&Outcome>> {
        let mut rows: BTreeMap<(StampsArg, usize), Vec<&Outcome>> = BTreeMap::new();
        for outcome in &self.outcomes {
            rows.entry((outcome.stamps, outcome.clock)).or_default().push(outcome);
        }
        rows.into_values().collect()
    }

    fn row(&self, outcomes: &[&Outcome]) -> Value {
        let Some(one) = outcomes.first() else { return Value::Null };
        let spread = |value: fn(&Figures) -> Option<f64>| {
            Spread::of(outcomes.iter().filter_map(|outcome| value(&outcome.figures)))
        };
        let sum =
            |value: fn(&Figures) -> u64| outcomes.iter().map(|outcome| value(&outcome.figures)).sum::<u64>();
        let mut row = json!({
            "stamps": stamps_name(one.stamps),
            "clock": one.clock,
            "rate_ppm": one.wrong.rate_ppm,
            "offset_ns": one.wrong.offset_ns,
            "offset_error_p50_ns": spread(|figures| Some(figures.errors.offset_error_p50_ns)),
            "offset_error_p99_ns": spread(|figures| Some(figures.errors.offset_error_p99_ns)),
            "offset_error_max_ns": spread(|figures| Some(figures.errors.offset_error_max_ns)),
            "bound_p50_ns": spread(|figures| figures.bound_p50_ns),
            "bound_max_ns": spread(|figures| figures.bound_max_ns),
            "rate_error_ppm": spread(|figures| figures.rate_error_ppm),
            "rate_error_max_ppm": spread(|figures| figures.rate_error_max_ppm),
            "lock_time_s": spread(|figures| figures.lock_time_s),
            "sideband_bytes_per_s": spread(|figures| figures.sideband_bytes_per_s),
            "samples": sum(|figures| figures.errors.samples as u64),
            "violations": sum(|figures| figures.violations as u64),
            "exchanges": sum(|figures| figures.exchanges),
            "clock_steps": sum(|figures| figures.clock_steps),
            "false_tickers": sum(|figures| figures.false_tickers),
        });
        if self.args.points {
            row["points"] = outcomes.iter().map(|outcome| json!(outcome.points)).collect();
        }
        row
    }

    fn baseline(&self) -> Value {
        let mut all = json!({});
        for (rival, errors) in &self.rivals {
            let spread = |value: fn(&Errors) -> f64| Spread::of(errors.iter().map(value));
            all[rival.name()] = json!({
                "offset_error_p50_ns": spread(|errors| errors.offset_error_p50_ns),
                "offset_error_p99_ns": spread(|errors| errors.offset_error_p99_ns),
                "offset_error_max_ns": spread(|errors| errors.offset_error_max_ns),
                "samples": errors.iter().map(|errors| errors.samples).sum::<usize>(),
            });
        }
        all
    }

    /// Our p99, of the worst clock of each run, to theirs.
    fn ratio(&self) -> Value {
        let mut all = json!({});
        let ours = worst(self.main(), |figures| Some(figures.errors.offset_error_p99_ns));
        for (rival, errors) in &self.rivals {
            let theirs = Spread::of(errors.iter().map(|errors| errors.offset_error_p99_ns));
            let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs.median);
            all[rival.name()] = json!(ratio.filter(|ratio| ratio.is_finite()));
        }
        all
    }

    fn verdict(&self) -> &'static str {
        let of = |first: bool| -> Vec<f64> {
            let chosen = self.main().filter(|outcome| outcome.first == first && outcome.clock == 1);
            chosen.map(|outcome| outcome.figures.errors.offset_error_p99_ns).collect()
        };
        if trustworthy(&of(true), &of(false)) { "trustworthy" } else { "noisy" }
    }

    /// Why this run is none that may pass.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let violations = self.violations();
        if violations > 0 {
            failures.push(format!("the published bound did not cover the truth at {violations} moments"));
        }
        for outcome in self.outcomes.iter().filter(|outcome| outcome.figures.lock_time_s.is_none()) {
            let (rate, stamps) = (outcome.wrong.rate_ppm, stamps_name(outcome.stamps));
            failures.push(format!("the clock that is {rate} ppm off never locked, with {stamps} stamps"));
        }
        failures
    }

    pub(super) fn table(&self) -> String {
        let mut table = String::new();
        let mut line = |text: String| {
            let _infallible = writeln!(table, "{text}");
        };
        line(format!(
            "{:<8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10} {:>8} {:>8}",
            "stamps",
            "rate/ppm",
            "p50/ns",
            "p99/ns",
            "max/ns",
            "bound/ns",
            "violations",
            "rate off",
            "lock/s",
            "bytes/s"
        ));
        let show =
            |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
        for outcomes in self.rows() {
            let Some(one) = outcomes.first() else { continue };
            let median = |value: fn(&Figures) -> Option<f64>| {
                Spread::of(outcomes.iter().filter_map(|outcome| value(&outcome.figures)))
                    .map(|spread| spread.median)
            };
            line(format!(
                "{:<8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10} {:>8} {:>8}",
                stamps_name(one.stamps),
                one.wrong.rate_ppm,
                show(median(|figures| Some(figures.errors.offset_error_p50_ns)), 0),
                show(median(|figures| Some(figures.errors.offset_error_p99_ns)), 0),
                show(median(|figures| Some(figures.errors.offset_error_max_ns)), 0),
                show(median(|figures| figures.bound_p50_ns), 0),
                outcomes.iter().map(|outcome| outcome.figures.violations).sum::<usize>(),
                show(median(|figures| figures.rate_error_ppm), 3),
                show(median(|figures| figures.lock_time_s), 2),
                show(median(|figures| figures.sideband_bytes_per_s), 0)
            ));
        }
        for (rival, errors) in &self.rivals {
            let median =
                |value: fn(&Errors) -> f64| Spread::of(errors.iter().map(value)).map(|spread| spread.median);
            line(format!(
                "{:<8} {:>9} {:>9} {:>9} {:>9}",
                rival.name(),
                0,
                show(median(|errors| errors.offset_error_p50_ns), 0),
                show(median(|errors| errors.offset_error_p99_ns), 0),
                show(median(|errors| errors.offset_error_max_ns), 0)
            ));
        }
        for (rival, ratio) in self.ratio().as_object().into_iter().flatten() {
            line(format!("p99 to {rival}'s: {}", show(ratio.as_f64(), 2)));
        }
        line(format!("{} rounds of {} s, {}", self.args.repeats, self.args.seconds, self.verdict()));
        table
    }
}

/// The median over runs of the worst clock of each; runs are as many as the first clock has outcomes.
fn worst<'a>(outcomes: impl Iterator<Item = &'a Outcome>, value: fn(&Figures) -> Option<f64>) -> Option<f64> {
    let mut runs: Vec<f64> = Vec::new();
    for outcome in outcomes {
        let found = value(&outcome.figures).unwrap_or(f64::NAN);
        match runs.last_mut() {
            Some(run) if outcome.clock > 1 => *run = run.max(found),
            _ => runs.push(found),
        }
    }
    Spread::of(runs).map(|spread| spread.median)
}
