//! What was found, for people and for `benches/results`.
//!
//! Invariant: what was left out is said among the notes, what is wrong among the faults; without faults all that ran
//! was right.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::plan::{Must, Row};
use crate::say;

/// Repeats that differ by more are marked.
const NOISE: f64 = 0.05;

/// Rates that floors are drawn at, by what a chip's name has in it, bytes per second: measured streaming rates of the
/// specification's machines.
const FLOORS: [(&str, f64); 2] = [("H200", 4.3e12), ("Orin", 204.8e9)];

/// What Python says, a line each.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    /// Versions of what it has.
    Software(Map<String, Value>),
    /// What the machine can do at best.
    Ceilings(Ceilings),
    /// Something was left out.
    Note(String),
    /// These rows were left out, because there was no time.
    Late(Vec<String>),
    /// A row was timed, or rehearsed.
    Row(Timed),
}

/// What the machine can do at best.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Ceilings {
    /// Bytes read and written by a copy, per second.
    pub(crate) copy_bytes_per_s: f64,
    /// Of a product of bfloat16 matrices.
    pub(crate) bf16_flops_per_s: f64,
    pub(crate) l2_bytes: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Timed {
    pub(crate) name: String,
    /// Input sets that were gone through.
    pub(crate) sets: u32,
    /// Microseconds of one call, for each replay; `ours` and the twins.
    pub(crate) times_us: Map<String, Value>,
    /// How far results of twins are from ours, and how far they may be.
    pub(crate) apart: Map<String, Value>,
    /// Elements that are as poisoned as they were.
    pub(crate) unwritten: u64,
}

/// Repeats of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Repeats {
    pub(crate) median_us: f64,
    pub(crate) least_us: f64,
    /// Between the tenth and the ninetieth of a hundred, as a part of the median.
    pub(crate) spread: f64,
    pub(crate) noisy: bool,
    pub(crate) count: usize,
}

impl Repeats {
    /// None of no times, and of such that are none.
    pub(crate) fn of(times_us: &[f64]) -> Option<Self> {
        let mut times = times_us.to_vec();
        times.sort_by(f64::total_cmp);
        let legal = times.first().is_some_and(|least| *least > 0.0) && times.last()?.is_finite();
        let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
        legal.then(|| {
            let count = times.len();
            let median_us = (times[(count - 1) / 2] + times[count / 2]) / 2.0;
            let spread = (at(0.9) - at(0.1)) / median_us;
            Self { median_us, least_us: times[0], spread, noisy: spread > NOISE, count }
        })
    }
}

/// One row, judged.
#[derive(Debug, Serialize)]
pub(crate) struct Judged {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) moved_bytes: u64,
    pub(crate) sets: u32,
    pub(crate) ours: Repeats,
    pub(crate) bytes_per_s: f64,
    pub(crate) floor_us: f64,
    pub(crate) share_of_floor: f64,
    pub(crate) must: Must,
    pub(crate) met: bool,
    pub(crate) rivals: Vec<Against>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Against {
    pub(crate) twin: String,
    pub(crate) repeats: Repeats,
    /// Its time over ours.
    pub(crate) ratio: f64,
    pub(crate) at_least: f64,
    pub(crate) met: bool,
}

/// Whether everything had its turn.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ended {
    #[default]
    Whole,
    /// The time was over.
    Late,
    /// Somebody ended it.
    Interrupted,
}

/// What stands in a report.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) tool: String,
    pub(crate) commit: String,
    pub(crate) finished_unix_s: u64,
    pub(crate) took_s: f64,
    pub(crate) ended: Ended,
    pub(crate) machine: Map<String, Value>,
    pub(crate) software: Map<String, Value>,
    pub(crate) ceilings: Option<Ceilings>,
    /// Bytes per second that floors are drawn at, and why.
    pub(crate) floor_rate: Option<(f64, String)>,
    pub(crate) artefacts: Vec<Map<String, Value>>,
    pub(crate) checks: Vec<Map<String, Value>>,
    pub(crate) rows: Vec<Judged>,
    pub(crate) notes: Vec<String>,
    pub(crate) faults: Vec<String>,
    /// What is being done.
    #[serde(skip)]
    pub(crate) doing: String,
    /// Rows that Python was done with.
    #[serde(skip)]
    pub(crate) heard: Vec<String>,
}

/// A report that is being written, for whoever has to end before that is done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Arc<Mutex<Report>>);

impl Journal {
    /// The report; nothing that is kept in it can be half done.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Report> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is done from here on.
    pub(crate) fn begin(&self, what: impl Into<String>) {
        self.lock().doing = what.into();
    }
}

impl Report {
    /// Something was left out.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        say(format_args!("note: {text}"));
        self.notes.push(text);
    }

    /// Something was left out, because all had to be over.
    pub(crate) fn cut(&mut self, what: impl fmt::Display, ended: Ended) {
        self.ended = ended;
        let why = if ended == Ended::Interrupted { "interrupted" } else { "the time was over" };
        self.note(format!("{why}: {what} left out"));
    }

    /// Something is wrong.
    pub(crate) fn fault(&mut self, text: impl Into<String>) {
        let text = text.into();
        say(format_args!("WRONG: {text}"));
        self.faults.push(text);
    }

    /// Takes in what Python says; `chip` is the device's name.
    pub(crate) fn hear(&mut self, line: &str, rows: &[Row], chip: &str) {
        match serde_json::from_str(line) {
            Ok(Said::Software(versions)) => self.software = versions,
            Ok(Said::Ceilings(ceilings)) => {
                say(format_args!(
                    "ceilings: copies {:.0} GB/s, bf16 products {:.0} Tflop/s, L2 {} MiB",
                    ceilings.copy_bytes_per_s / 1e9,
                    ceilings.bf16_flops_per_s / 1e12,
                    ceilings.l2_bytes >> 20
                ));
                self.ceilings = Some(ceilings);
                self.floor_rate = Some(floor_rate(chip, ceilings));
            }
            Ok(Said::Note(text)) => self.note(text),
            Ok(Said::Late(names)) => {
                self.cut(format_args!("times of {}", names.join(", ")), Ended::Late);
                self.heard.extend(names);
            }
            Ok(Said::Row(timed)) => self.row(&timed, rows),
            Err(error) => self.note(format!("Python said what was not understood ({error}): {line}")),
        }
    }

    fn row(&mut self, timed: &Timed, rows: &[Row]) {
        self.heard.push(timed.name.clone());
        match timed.unwritten {
            0 => say(format_args!("row {}: every element was written", timed.name)),
            count => self.fault(format!("row {}: {count} elements are NaN, as they were", timed.name)),
        }
        for (twin, distance) in &timed.apart {
            match serde_json::from_value(distance.clone()) {
                Ok((found, allowed)) if !near(found, allowed) => self.fault(format!(
                    "row {}: {twin} is {found:e} from ours, where {allowed:e} is allowed",
                    timed.name
                )),
                Ok(_) => say(format_args!("row {}: {twin} agrees", timed.name)),
                Err(error) => self.fault(format!("row {}: how far {twin} is: {error}", timed.name)),
            }
        }
        let Some(row) = rows.iter().find(|row| row.name == timed.name) else {
            return self.note(format!("Python timed a row that is not known: {}", timed.name));
        };
        let Some((rate, _)) = &self.floor_rate else { return };
        if let Some(judged) = judge(row, timed, *rate) {
            say(format_args!("{}", judged.line()));
            self.rows.push(judged);
        } else if !timed.times_us.is_empty() {
            self.fault(format!("row {}: its times are none", timed.name));
        }
    }

    /// The table, with its heading.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "\n{:<18}{:>11}{:>11}{:>8}{:>10}  {:<12}rivals\n",
            "row", "us", "GB/s", "floor", "must", ""
        );
        for row in &self.rows {
            text += &row.line();
            text.push('\n');
        }
        if let Some((rate, why)) = &self.floor_rate {
            text += &format!("floors at {:.1} GB/s: {why}\n", rate / 1e9);
        }
        text
    }
}

/// A NaN is not near.
fn near(found: f64, allowed: f64) -> bool {
    found <= allowed
}

impl Judged {
    fn line(&self) -> String {
        let must = match self.must {
            Must::Share(share) => format!("{:.0} %", 100.0 * share),
            Must::Us(us) => format!("{us} us"),
        };
        let verdict = if self.met { "met" } else { "MISSED" };
        let noisy = if self.ours.noisy { " noisy" } else { "" };
        let rivals = self.rivals.iter().map(|rival| {
            let missed = if rival.met { "" } else { " MISSED" };
            let noisy = if rival.repeats.noisy { " noisy" } else { "" };
            format!("{} {:.2}x (must {}x){missed}{noisy}", rival.twin, rival.ratio, rival.at_least)
        });
        format!(
            "{:<18}{:>11.2}{:>11.1}{:>6.0} %{:>10}  {:<12}{}",
            self.name,
            self.ours.median_us,
            self.bytes_per_s / 1e9,
            100.0 * self.share_of_floor,
            must,
            format!("{verdict}{noisy}"),
            rivals.collect::<Vec<_>>().join(", ")
        )
    }
}

fn floor_rate(chip: &str, ceilings: Ceilings) -> (f64, String) {
    match FLOORS.iter().find(|(name, _)| chip.contains(name)) {
        Some((name, rate)) => (*rate, format!("the specification's for {name}")),
        None => (ceilings.copy_bytes_per_s, "what a copy moves here".into()),
    }
}

/// What the times of a row come to; none without ours.
fn judge(row: &Row, timed: &Timed, rate: f64) -> Option<Judged> {
    let repeats = |name: &str| {
        let times =
            timed.times_us.get(name)?.as_array()?.iter().map(Value::as_f64).collect::<Option<Vec<_>>>()?;
        Repeats::of(&times)
    };
    let ours = repeats("ours")?;
    let floor_us = row.moved_bytes as f64 / rate * 1e6;
    let share_of_floor = floor_us / ours.median_us;
    let rivals = row.rivals.iter().filter_map(|rival| {
        let repeats = repeats(rival.twin)?;
        let ratio = repeats.median_us / ours.median_us;
        let (twin, at_least) = (rival.twin.to_string(), rival.at_least);
        Some(Against { twin, repeats, ratio, at_least, met: ratio >= at_least })
    });
    Some(Judged {
        name: row.name.into(),
        what: row.what.clone(),
        moved_bytes: row.moved_bytes,
        sets: timed.sets,
        ours,
        bytes_per_s: row.moved_bytes as f64 / ours.median_us * 1e6,
        floor_us,
        share_of_floor,
        must: row.must,
        met: match row.must {
            Must::Share(share) => share_of_floor >= share,
            Must::Us(us) => ours.median_us <= us,
        },
        rivals: rivals.collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::Rival;

    #[test]
    fn repeats_have_a_median_and_are_noisy_where_they_differ() {
        let quiet: Vec<f64> = (0..50).map(|i| 100.0 + f64::from(i) * 0.1).collect();
        let repeats = Repeats::of(&quiet).expect("there are times");
        assert_eq!((repeats.count, repeats.least_us, repeats.noisy), (50, 100.0, false));
        assert!((repeats.median_us - 102.45).abs() < 1e-9 && repeats.spread < 0.05, "{repeats:?}");
        let mut wild = quiet;
        wild[..10].fill(150.0);
        assert!(Repeats::of(&wild).expect("there are times").noisy);
        for none in [&[][..], &[0.0], &[-1.0, 2.0], &[f64::NAN], &[1.0, f64::INFINITY]] {
            assert_eq!(Repeats::of(none), None, "{none:?}");
        }
    }

    fn row() -> Row {
        Row {
            name: "sum",
            what: "a sum".into(),
            moved_bytes: 1_000_000,
            must: Must::Share(0.9),
            rivals: vec![Rival { twin: "loop", at_least: 2.0 }, Rival { twin: "absent", at_least: 2.0 }],
            numbers: json!({}),
            tensors: Vec::new(),
            buffers: Vec::new(),
            launches: Vec::new(),
        }
    }

    fn hear(lines: &[Value], chip: &str) -> Report {
        let mut report = Report::default();
        lines.iter().for_each(|line| report.hear(&line.to_string(), &[row()], chip));
        report
    }

    fn ceilings() -> Value {
        json!({ "ceilings": { "copy_bytes_per_s": 1e12, "bf16_flops_per_s": 1e14, "l2_bytes": 1 << 20 } })
    }

    fn timed(times_us: Value, apart: Value, unwritten: u64) -> Value {
        json!({ "row": { "name": "sum", "sets": 3, "times_us": times_us, "apart": apart, "unwritten": unwritten } })
    }

    #[test]
    fn a_row_is_judged_by_its_floor_and_its_rivals() {
        let times = json!({ "ours": [1.1, 1.0, 1.2], "loop": [2.3, 2.0, 2.2] });
        let report = hear(&[ceilings(), timed(times, json!({ "loop": [0.5, 1.0] }), 0)], "A100");
        assert_eq!((&report.faults, &report.notes), (&Vec::new(), &Vec::new()));
        let [judged] = &report.rows[..] else { panic!("one row") };
        assert!((judged.floor_us - 1.0).abs() < 1e-12 && (judged.share_of_floor - 1.0 / 1.1).abs() < 1e-12);
        assert!(judged.met && judged.ours.noisy);
        let [rival] = &judged.rivals[..] else { panic!("the absent one was not timed") };
        assert!(rival.met && (rival.ratio - 2.0).abs() < 1e-12, "{rival:?}");
        assert!(
            report.table().contains("floors at 1000.0 GB/s: what a copy moves here"),
            "{}",
            report.table()
        );
        // The same times on the specification's machine are of a higher floor.
        let again = timed(json!({ "ours": [1.1] }), json!({}), 0);
        assert!(!hear(&[ceilings(), again], "NVIDIA H200").rows[0].met);
    }

    #[test]
    fn results_that_differ_and_times_that_are_none_are_faults() {
        for (line, why) in [
            (timed(json!({}), json!({ "loop": [2.0, 1.0] }), 0), "row sum: loop is 2e0 from ours"),
            (timed(json!({}), json!({ "loop": [null, 1.0] }), 0), "row sum: how far loop is"),
            (timed(json!({ "ours": [0.0] }), json!({}), 0), "row sum: its times are none"),
            (timed(json!({}), json!({}), 7), "row sum: 7 elements are NaN, as they were"),
        ] {
            let report = hear(&[ceilings(), line], "A100");
            let [fault] = &report.faults[..] else { panic!("{why}: {:?}", report.faults) };
            assert!(fault.starts_with(why), "{fault}");
        }
    }

    #[test]
    fn what_was_cut_is_noted_and_ends_the_report_so() {
        assert_eq!(hear(&[ceilings()], "A100").ended, Ended::Whole);
        let mut report = hear(&[json!({ "late": ["sum", "top_k"] })], "A100");
        assert_eq!(
            (&*report.notes, report.ended),
            (&["the time was over: times of sum, top_k left out".into()][..], Ended::Late)
        );
        report.cut("the plan of row sum", Ended::Interrupted);
        assert_eq!(report.notes[1], "interrupted: the plan of row sum left out");
        let document = serde_json::to_value(&report).expect("it has no keys but text");
        assert_eq!((&document["ended"], document.get("doing")), (&json!("interrupted"), None));
    }

    #[test]
    fn lines_that_are_no_answer_are_noted() {
        let mut report = Report::default();
        for line in ["", "Traceback", "{\"row\": 3}", "{\"other\": {}}"] {
            report.hear(line, &[], "A100");
        }
        assert_eq!((report.notes.len(), report.faults.len()), (4, 0));
    }
}
