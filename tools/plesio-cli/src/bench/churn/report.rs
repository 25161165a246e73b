//! The document of a run, and the same for people.

use super::driver::{Ended, Survivor, excess};
use super::figures::Figures;
use super::held::Held;
use super::record::Record;
use crate::args::ChurnArgs;
use crate::host::{self, Host};
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write as _;

pub(super) struct Report<'a> {
    args: &'a ChurnArgs,
    host: &'a Host,
    figures: Figures,
    leaked: Leaked,
    ended: Ended,
    load_end: Option<[f64; 3]>,
}

/// What was left above what is needed, over all nodes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
struct Leaked {
    descriptors: usize,
    mappings: usize,
    slots: usize,
}

impl Leaked {
    fn of(survivors: &[Survivor], limit: Held) -> Self {
        survivors.iter().fold(Self::default(), |mut all, survivor| {
            let (descriptors, mappings) = excess(survivor.after, limit);
            all.descriptors += descriptors;
            all.mappings += mappings;
            all.slots += usize::from(survivor.slots_out.unwrap_or(0));
            all
        })
    }

    const fn total(self) -> usize {
        self.descriptors + self.mappings + self.slots
    }
}

impl<'a> Report<'a> {
    pub(super) fn new(args: &'a ChurnArgs, host: &'a Host) -> Self {
        Self {
            args,
            host,
            figures: Figures::default(),
            leaked: Leaked::default(),
            ended: Ended::default(),
            load_end: None,
        }
    }

    pub(super) fn end(&mut self, record: &Record, ended: &Ended) {
        self.figures = Figures::of(record);
        self.leaked = Leaked::of(&ended.survivors, ended.before);
        self.ended = ended.clone();
        self.load_end = host::load();
    }

    pub(super) fn start(&self) -> Value {
        super::start(self.args, self.host)
    }

    /// A document in which every number is there.
    pub(super) fn sample(&self) -> Value {
        let mut sample = self.document();
        for (name, value) in sample.as_object_mut().into_iter().flatten() {
            if value.is_null() && (name.ends_with("_s") || name == "leaks") {
                *value = json!(0.0);
            }
        }
        sample["rss_growth_bytes"] = json!(0);
        sample
    }

    pub(super) fn document(&self) -> Value {
        let mut document = self.start();
        let all = document.as_object_mut();
        if let (Some(all), Value::Object(figures)) = (all, json!(self.figures)) {
            all.extend(figures);
        }
        document["nodes"] = json!(self.args.nodes);
        document["protection"] = json!(if self.args.plaintext { "plaintext" } else { "sealed" });
        document["churned_s"] = json!(self.ended.churned_s);
        document["leaks"] = json!(self.looked_at().map(Leaked::total));
        document["leaked"] = json!(self.looked_at());
        document["rss_growth_bytes"] = json!(self.rss_growth_bytes());
        document["survivors"] = self.ended.survivors.iter().map(row).collect();
        document["troubles"] = json!(self.ended.troubles);
        document["interrupted"] = json!(self.ended.interrupted);
        document["load_end"] = json!(self.load_end);
        document
    }

    /// What was left behind; none when a signal came before all were whole and at rest.
    fn looked_at(&self) -> Option<Leaked> {
        (!self.ended.interrupted && !self.ended.survivors.is_empty()).then_some(self.leaked)
    }

    /// Of the processes that were there from the beginning to the end, the most.
    fn rss_growth_bytes(&self) -> Option<i64> {
        let grown =
            |survivor: &Survivor| Some(survivor.after.rss_bytes as i64 - survivor.before?.rss_bytes as i64);
        self.ended.survivors.iter().filter_map(grown).max()
    }

    /// Why this run is none that may pass.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut note = |is_so: bool, text: String| {
            if is_so {
                failures.push(text);
            }
        };
        let Leaked { descriptors, mappings, slots } = self.leaked;
        note(!self.figures.digests_equal, "two nodes held different bits for the same version".into());
        let leaks =
            format!("{descriptors} open files, {mappings} mappings and {slots} slots were left behind");
        note(self.leaked.total() > 0, leaks);
        let lost = self.figures.unrecovered;
        note(lost > 0, format!("after {lost} kills the survivors never came to hold a new version together"));
        self.ended.troubles.iter().for_each(|trouble| note(true, trouble.clone()));
        failures
    }

    pub(super) fn table(&self) -> String {
        let figures = &self.figures;
        let mut table = String::new();
        let mut line = |name: &str, value: String| {
            let _infallible = writeln!(table, "{name:<22} {value}");
        };
        let s = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2} s"));
        line(
            "nodes",
            format!("{}, {}", self.args.nodes, if self.args.plaintext { "plaintext" } else { "sealed" }),
        );
        let churned = format!("in {:.0} s, seed {}", self.ended.churned_s, self.args.seed);
        line("kills, joins", format!("{}, {} {churned}", figures.kills, figures.joins));
        line("versions", figures.versions.to_string());
        line(
            "gap",
            format!(
                "median {}, p99 {}, max {}",
                s(figures.gap_median_s),
                s(figures.gap_p99_s),
                s(figures.gap_max_s)
            ),
        );
        line(
            "recovery",
            format!(
                "median {}, p99 {}, max {}; p99 {} where no two kills overlap",
                s(figures.recovery_median_s),
                s(figures.recovery_p99_s),
                s(figures.recovery_max_s),
                s(figures.recovery_alone_p99_s)
            ),
        );
        line(
            "detection",
            format!("median {}, max {}", s(figures.detection_median_s), s(figures.detection_max_s)),
        );
        line(
            "join to first",
            format!(
                "median {}, max {}; a process opens in {}",
                s(figures.join_to_first_s),
                s(figures.join_to_first_max_s),
                s(figures.open_s)
            ),
        );
        for pauses in &figures.pauses {
            let text = format!(
                "{} of {:.1} s: {} excluded, {} accusations, back after median {}, max {}",
                pauses.count,
                pauses.pause_s,
                pauses.excluded,
                pauses.accused,
                s(pauses.back_median_s),
                s(pauses.back_max_s)
            );
            line("pauses", text);
        }
        line("put out for no reason", figures.put_out.to_string());
        let digests = if figures.digests_equal { "equal" } else { "DIFFERENT" };
        let digests = if self.ended.interrupted {
            format!("{digests} until it was interrupted")
        } else {
            digests.into()
        };
        line("digests", digests);
        let leaks = |Leaked { descriptors, mappings, slots }: Leaked| {
            format!("{descriptors} files, {mappings} mappings, {slots} slots")
        };
        line("leaks", self.looked_at().map_or("not looked at".into(), leaks));
        if let Some(grown) = self.rss_growth_bytes() {
            line("memory", format!("{:+.1} MiB in the process that was spared", grown as f64 / 1_048_576.0));
        }
        table
    }
}

fn row(survivor: &Survivor) -> Value {
    let held = |held: Held| json!({ "descriptors": held.descriptors, "mappings": held.mappings, "rss_bytes": held.rss_bytes });
    json!({
        "node": survivor.name,
        "lives": survivor.lives,
        "spared": survivor.spared,
        "before": survivor.before.map(held),
        "after": held(survivor.after),
        "slots_out": survivor.slots_out,
    })
}
