//! A row: what one mesh came to, by what its nodes said and by what was measured beside it.

use super::cell::Cell;
use plesio::What;
use plesio_sim::{Happened, SeedReport, Study};
use plesio_wire::{NodeKey, Version};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The columns, in their order.
pub(super) const COLUMNS: [&str; 36] = [
    "cell_id",
    "n",
    "mix",
    "clock",
    "link",
    "churn_per_node_h",
    "alpha",
    "P_ms",
    "mode",
    "seed",
    "t_target_s",
    "loss_final",
    "loss_gap_vs_serial",
    "useful_frac",
    "idle_frac",
    "lost_frac",
    "bytes_data",
    "bytes_sideband",
    "frames",
    "void_frames",
    "late_frac",
    "fold_frac",
    "reject_frac",
    "stale_p50",
    "stale_p99",
    "adj_per_node_min",
    "lock_time_s",
    "clock_err_p50_ns",
    "clock_err_p99_ns",
    "eps_p50_ns",
    "commit_lat_p50_ms",
    "commit_lat_p99_ms",
    "epoch_changes",
    "reconfig_stall_ms_p99",
    "digest_ok",
    "violation",
];

/// One mesh.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) cell_id: usize,
    pub(super) seed: u64,
    /// By column.
    pub(super) values: Map<String, Value>,
    /// Seconds, and nats per letter.
    pub(super) losses: Vec<(f64, f64)>,
    /// No promise was broken, and the mesh was there to the end.
    pub(super) is_good: bool,
}

/// What one machine alone reaches in the same time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alone {
    /// One of mean speed, with all the data.
    pub(super) one: f64,
    /// The same with a batch of all workers' pairs.
    pub(super) serial: f64,
}

impl Row {
    pub(super) fn of(cell_id: usize, cell: &Cell, alone: Alone, seconds: u32, report: &SeedReport) -> Self {
        let study = report.study.as_deref().cloned().unwrap_or_default();
        let told = Told::of(report);
        let Study { steps, waiting_steps, rests, sent_bytes, .. } = study;
        let share = |part: u64, of: u64| if of == 0 { Value::Null } else { json!(part as f64 / of as f64) };
        let losses: Vec<(f64, f64)> =
            study.losses.iter().map(|(at_ns, loss)| (*at_ns as f64 / 1e9, *loss)).collect();
        let last = losses.last().map(|(_, loss)| *loss);
        let target = losses.iter().find(|(_, loss)| *loss <= alone.one).map(|(at_s, _)| *at_s);
        let timing = &report.timing;
        let ns = |values: &[u64], of: u64| quantile(values, of).map(|ns| json!(ns));
        let ms = |values: &[u64], of: u64| quantile(values, of).map(|ns| json!(ns as f64 / 1e6));
        let lost = steps.saturating_sub(told.useful_steps).saturating_sub(waiting_steps);
        let digest_ok = report.violation.is_none();
        let still =
            told.stands_still(seconds).map(|at_s| format!("no version after {at_s:.1} s: no quorum is left"));
        let violation = report.violation.as_ref().map(|violation| violation.what.clone()).or(still);
        let row = json!({
            "cell_id": cell_id,
            "n": cell.nodes,
            "mix": cell.mix_ms,
            "clock": cell.clock_ppm,
            "link": cell.links,
            "churn_per_node_h": cell.churn_per_node_h,
            "alpha": cell.alpha,
            "P_ms": report.periods_ns.first().map(|period_ns| *period_ns as f64 / 1e6),
            "mode": cell.weights,
            "seed": report.seed,
            "t_target_s": target,
            "loss_final": last,
            "loss_gap_vs_serial": last.map(|last| last - alone.serial),
            "useful_frac": share(told.useful_steps, steps),
            "idle_frac": share(rests, steps + rests),
            "lost_frac": share(lost, steps),
            "bytes_data": sent_bytes[0],
            "bytes_sideband": sent_bytes[1],
            "frames": told.frames,
            "void_frames": told.frames.saturating_sub(told.opened),
            "late_frac": if timing.slots == 0 { Value::Null } else { json!(timing.late_ratio()) },
            "fold_frac": share(timing.folds, timing.slots + timing.folds),
            "reject_frac": share(told.rejected, told.cut),
            "stale_p50": quantile(&told.staleness, 500),
            "stale_p99": quantile(&told.staleness, 990),
            "adj_per_node_min": timing.corrections_per_node_min(),
            "lock_time_s": (timing.never_locked == 0).then(|| timing.lock_ns_max as f64 / 1e9),
            "clock_err_p50_ns": ns(&study.clock_errors_ns, 500),
            "clock_err_p99_ns": ns(&study.clock_errors_ns, 990),
            "eps_p50_ns": ns(&study.eps_ns, 500),
            "commit_lat_p50_ms": ms(&told.latencies_ns, 500),
            "commit_lat_p99_ms": ms(&told.latencies_ns, 990),
            "epoch_changes": report.views,
            "reconfig_stall_ms_p99": ms(&told.stalls_ns, 990),
            "digest_ok": digest_ok,
            "violation": violation,
        });
        let values = row.as_object().cloned().unwrap_or_default();
        Self { cell_id, seed: report.seed, values, losses, is_good: violation.is_none() }
    }

    pub(super) fn number(&self, column: &str) -> Option<f64> {
        self.values.get(column).and_then(Value::as_f64)
    }

    /// A line of the table, as RFC 4180 has it.
    pub(super) fn csv(&self) -> String {
        let field = |column: &&str| match self.values.get(*column) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => quoted(text),
            Some(other) => other.to_string(),
        };
        COLUMNS.iter().map(field).collect::<Vec<_>>().join(",")
    }
}

fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.into()
    }
}

/// Of a thousand; none of nothing.
fn quantile(values: &[u64], of: u64) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    // The nearest rank: the least value that so many of a thousand do not exceed.
    let rank = (sorted.len() as u64 * of).div_ceil(1_000);
    sorted.get(rank.saturating_sub(1) as usize).copied()
}

/// What the nodes said, put together.
#[derive(Debug, Default)]
struct Told {
    /// Steps in final versions.
    useful_steps: u64,
    /// From the first frame of which anything was said to the last, and those of them that opened a version.
    frames: u64,
    opened: u64,
    cut: u64,
    rejected: u64,
    staleness: Vec<u64>,
    /// From a cut to the moment at which anybody knew its version to be final.
    latencies_ns: Vec<u64>,
    /// Between the versions before and after each view.
    stalls_ns: Vec<u64>,
    /// When the newest version was final, and the longest time between two.
    newest_ns: u64,
    longest_ns: u64,
}

impl Told {
    /// Since when there was no version until the end, if that is longer than any work takes: seconds.
    fn stands_still(&self, seconds: u32) -> Option<f64> {
        let silent_ns = (u64::from(seconds) * 1_000_000_000).saturating_sub(self.newest_ns);
        let most_ns = STILL_NS.max(3 * self.longest_ns);
        (silent_ns > most_ns && self.newest_ns > 0).then_some(self.newest_ns as f64 / 1e9)
    }

    fn of(report: &SeedReport) -> Self {
        let mut told = Self::default();
        let mut cuts: BTreeMap<(NodeKey, u32), u64> = BTreeMap::new();
        let mut open: BTreeMap<Version, &[plesio::Contribution]> = BTreeMap::new();
        let mut done: BTreeSet<Version> = BTreeSet::new();
        let (mut frames, mut opened) = (BTreeSet::new(), BTreeSet::new());
        let mut views = BTreeSet::new();
        // When the newest version was final, and whether a view came since then.
        let (mut final_ns, mut view_since) = (None, false);
        for happening in &report.happened {
            let Happened::Said { node, what, .. } = &happening.what else { continue };
            match &**what {
                What::Cut { slot, .. } => {
                    told.cut += 1;
                    cuts.insert((*node, slot.0), happening.at_ns);
                }
                What::Folded { .. } => told.rejected += 1,
                What::Void(frame) => drop(frames.insert(frame.0)),
                What::Manifest { version, frame, entries, .. } => {
                    frames.insert(*frame);
                    opened.insert(*frame);
                    open.entry(*version).or_insert(entries);
                }
                What::Reopened { version, entries, .. } => drop(open.insert(*version, entries)),
                // The first one is nobody's change.
                What::View { number, index, .. } => view_since |= views.insert(*index) && *number > 0,
                What::Sealed { version, .. } if done.insert(*version) => {
                    for entry in open.get(version).copied().unwrap_or_default() {
                        told.useful_steps += u64::from(entry.steps);
                        told.staleness.push(entry.staleness.into());
                        let cut_ns = cuts.remove(&(entry.node, entry.slot));
                        told.latencies_ns.extend(cut_ns.map(|cut_ns| happening.at_ns - cut_ns));
                    }
                    let gap_ns =
                        final_ns.replace(happening.at_ns).map(|before_ns| happening.at_ns - before_ns);
                    told.newest_ns = happening.at_ns;
                    told.longest_ns = told.longest_ns.max(gap_ns.unwrap_or(0));
                    if std::mem::take(&mut view_since) {
                        told.stalls_ns.extend(gap_ns);
                    }
                }
                _ => {}
            }
        }
        if let (Some(first), Some(last)) = (frames.first(), frames.last()) {
            told.frames = last - first + 1;
        }
        told.opened = opened.len() as u64;
        told
    }
}

/// A mesh that lives makes a version sooner.
const STILL_NS: u64 = 8_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_stands_in_its_row() {
        use crate::args::characterize_args as args;
        let cell = super::super::cell::cells(&args("--nodes 3")).remove(0);
        let learning = cell.learning().expect("eight texts");
        let config = cell.config(1, 10, &learning).expect("in range");
        let slot = std::sync::Mutex::new(None);
        let keep = |report: &SeedReport| *slot.lock().expect("nobody panicked") = Some(report.clone());
        plesio_sim::run_with(&config, keep).expect("good");
        let mut report = slot.into_inner().expect("nobody panicked").expect("one seed");
        let alone = Alone { one: 3.0, serial: 2.5 };
        let row = Row::of(7, &cell, alone, 10, &report);
        assert!(
            row.is_good && row.csv().starts_with("7,3,15:30:60:120,50,lan,0,1,500.0,mass,1,"),
            "{}",
            row.csv()
        );
        let columns: Vec<&String> = row.values.keys().collect();
        assert!(columns.len() == COLUMNS.len() && COLUMNS.iter().all(|name| row.values.contains_key(*name)));
        // The same versions, and nothing for a minute after them.
        let row = Row::of(7, &cell, alone, 70, &report);
        assert!(!row.is_good && row.csv().contains(",true,no version after "), "{}", row.csv());
        report.violation = Some(plesio_sim::Violation {
            seed: 1,
            nodes: 3,
            faults: plesio_sim::FaultSet::NONE,
            at_ns: 5,
            what: "I4: n1, planted".into(),
        });
        let row = Row::of(7, &cell, alone, 10, &report);
        assert!(!row.is_good && row.csv().ends_with(",false,\"I4: n1, planted\""), "{}", row.csv());
    }

    #[test]
    fn quantiles_and_fields_are_plain() {
        assert_eq!((quantile(&[], 500), quantile(&[5], 990)), (None, Some(5)));
        assert_eq!((quantile(&[1, 9], 500), quantile(&[1, 9], 990)), (Some(1), Some(9)));
        let many: Vec<u64> = (0..101).rev().collect();
        assert_eq!((quantile(&many, 500), quantile(&many, 990)), (Some(50), Some(99)));
        assert_eq!(quoted("a, \"b\""), "\"a, \"\"b\"\"\"");
        assert_eq!(quoted("15:30"), "15:30");
    }
}
