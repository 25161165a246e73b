//! From what was heard to the figures of the document. Pure.

use super::record::{Kill, Life, Pause, Record};
use crate::bench::figures::Spread;
use serde::Serialize;
use std::collections::BTreeMap;

/// All figures that are times and counts of events.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Figures {
    pub(super) kills: usize,
    pub(super) joins: u32,
    pub(super) versions: u64,
    pub(super) gap_max_s: Option<f64>,
    pub(super) gap_p99_s: Option<f64>,
    pub(super) gap_median_s: Option<f64>,
    pub(super) recovery_median_s: Option<f64>,
    pub(super) recovery_p99_s: Option<f64>,
    pub(super) recovery_max_s: Option<f64>,
    /// The same of kills during whose recovery nobody else was killed.
    pub(super) recovery_alone_p99_s: Option<f64>,
    /// Kills after which no version was decided that all survivors came to hold.
    pub(super) unrecovered: usize,
    pub(super) detection_median_s: Option<f64>,
    pub(super) detection_max_s: Option<f64>,
    /// Dead members that no view put out.
    pub(super) undetected: usize,
    /// From the start of a process to the moment it asks to be let in.
    pub(super) open_s: Option<f64>,
    pub(super) join_to_first_s: Option<f64>,
    pub(super) join_to_first_max_s: Option<f64>,
    /// Living nodes that were put out of a view though nothing was done to them.
    pub(super) put_out: u32,
    pub(super) crashes: u32,
    pub(super) digests_equal: bool,
    /// One entry for every length of pause, in ascending order.
    pub(super) pauses: Vec<Pauses>,
}

/// All pauses of one length, but those in which the sleeper was killed before it was back.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Pauses {
    pub(super) pause_s: f64,
    pub(super) count: usize,
    pub(super) excluded: usize,
    /// Suspicions of living members that the woken uttered.
    pub(super) accused: u32,
    /// From the waking to the first version decided after it that the woken holds as a member.
    pub(super) back_median_s: Option<f64>,
    pub(super) back_max_s: Option<f64>,
}

impl Figures {
    pub(super) fn of(record: &Record) -> Self {
        let mut gaps = record.gaps_s.clone();
        gaps.sort_by(f64::total_cmp);
        let recovered: Vec<(&Kill, f64)> =
            record.kills.iter().filter_map(|kill| Some((kill, recovery_s(record, kill)?))).collect();
        let is_alone = |(kill, recovery_s): &&(&Kill, f64)| {
            !record.kills.iter().any(|other| {
                let later_ns = other.ns - kill.ns;
                other.life != kill.life && later_ns.abs() < ALONE_NS.max((recovery_s * 1e9) as i64)
            })
        };
        let sorted = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values
        };
        let alone = sorted(recovered.iter().filter(is_alone).map(|(_, recovery_s)| *recovery_s).collect());
        let recoveries = sorted(recovered.iter().map(|(_, recovery_s)| *recovery_s).collect());
        let mut detections: Vec<f64> =
            record.kills.iter().filter_map(|kill| detection_s(record, kill)).collect();
        detections.sort_by(f64::total_cmp);
        let members = record.kills.iter().filter(|kill| kill.member).count();
        let joins: Vec<f64> = record.lives.iter().filter_map(|life| join_to_first_s(record, life)).collect();
        let joined = Spread::of(joins);
        let opened = record
            .lives
            .iter()
            .filter(|life| !life.founder)
            .filter_map(|life| life.asked_ns.map(|asked| seconds(asked - life.spawned_ns)));
        Self {
            kills: record.kills.len(),
            joins: record.joins,
            versions: record.lives.iter().map(|life| life.version).max().unwrap_or(0),
            gap_max_s: gaps.last().copied(),
            gap_p99_s: quantile(&gaps, 0.99),
            gap_median_s: quantile(&gaps, 0.5),
            recovery_median_s: quantile(&recoveries, 0.5),
            recovery_p99_s: quantile(&recoveries, 0.99),
            recovery_max_s: recoveries.last().copied(),
            recovery_alone_p99_s: quantile(&alone, 0.99),
            unrecovered: record.kills.len() - recoveries.len(),
            detection_median_s: quantile(&detections, 0.5),
            detection_max_s: detections.last().copied(),
            undetected: members - detections.len(),
            open_s: Spread::of(opened).map(|spread| spread.median),
            join_to_first_s: joined.map(|spread| spread.median),
            join_to_first_max_s: joined.map(|spread| spread.max),
            put_out: record.put_out,
            crashes: record.crashes,
            digests_equal: digests_equal(record),
            pauses: pauses(record),
        }
    }
}

fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}

/// The smallest value that so large a part does not exceed.
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// From the kill to the first version decided after it that all survivors hold. Who is killed or stopped itself before
/// the others hold it is no survivor.
fn recovery_s(record: &Record, kill: &Kill) -> Option<f64> {
    let decided_after =
        |version: &&super::record::Version| version.decided.is_some_and(|(_, ns)| ns > kill.ns);
    // Versions are decided in order; some at the end may have lost their manifest with who knew it.
    let versions = record
        .versions
        .values()
        .rev()
        .take_while(|version| version.decided.is_none_or(|(_, ns)| ns > kill.ns));
    let mut versions: Vec<_> = versions.filter(decided_after).collect();
    versions.reverse();
    versions.into_iter().find_map(|version| {
        let held = |life: &usize| version.held.iter().find(|(holder, _)| holder == life).map(|(_, ns)| *ns);
        let latest = kill.survivors.iter().filter_map(held).max()?;
        let excused = |life: &usize| record.lives[*life].until_ns(kill.ns) <= latest;
        let all = kill.survivors.iter().all(|life| held(life).is_some() || excused(life));
        all.then(|| seconds(latest - kill.ns))
    })
}

/// From the kill to the last survivor that learns the view without the dead.
fn detection_s(record: &Record, kill: &Kill) -> Option<f64> {
    let latest = kill.learnt.values().max()?;
    let excused = |life: &usize| record.lives[*life].until_ns(kill.ns) <= *latest;
    let all = kill.survivors.iter().all(|life| kill.learnt.contains_key(life) || excused(life));
    (kill.member && all).then(|| seconds(latest - kill.ns))
}

/// From asking to be let in to the first version with a contribution of this life.
fn join_to_first_s(record: &Record, life: &Life) -> Option<f64> {
    let (asked, seated) = (life.asked_ns.filter(|_| !life.founder)?, life.first_seated_ns?);
    let until = life.killed_ns.unwrap_or(i64::MAX);
    let mut firsts = record.versions.values().filter_map(|version| {
        let (_, ns) = version.decided?;
        (ns > seated && ns < until && version.contributors.contains(&life.key)).then_some(ns)
    });
    firsts.next().map(|first| seconds(first - asked))
}

/// Whether nobody ever held other bits than others, and all who spoke a last word hold the same.
fn digests_equal(record: &Record) -> bool {
    let mut ends = record.lives.iter().filter_map(|life| life.last.as_ref());
    let first = ends.next();
    record.diverged.is_empty() && !record.versions.is_empty() && ends.all(|end| Some(end) == first)
}

fn pauses(record: &Record) -> Vec<Pauses> {
    let mut by_length: BTreeMap<i64, (Pauses, Vec<f64>)> = BTreeMap::new();
    let seen_through = |life: &&Life, pause: &&Pause| {
        pause.to_ns.is_some() && (pause.back_ns.is_some() || life.killed_ns.is_none())
    };
    let pauses = record
        .lives
        .iter()
        .flat_map(|life| life.pauses.iter().filter(move |pause| seen_through(&life, pause)));
    for pause in pauses {
        let (of_length, backs) = by_length.entry(pause.length_ns).or_default();
        of_length.pause_s = seconds(pause.length_ns);
        of_length.count += 1;
        of_length.excluded += usize::from(pause.excluded);
        of_length.accused += pause.accused;
        backs.extend(pause.back_ns.zip(pause.to_ns).map(|(back, to)| seconds(back - to)));
    }
    let finish = |(mut pauses, backs): (Pauses, Vec<f64>)| {
        let spread = Spread::of(backs);
        (pauses.back_median_s, pauses.back_max_s) =
            (spread.map(|spread| spread.median), spread.map(|spread| spread.max));
        pauses
    };
    by_length.into_values().map(finish).collect()
}

/// Who was killed so shortly before may still be a member.
const ALONE_NS: i64 = 1_250_000_000;

#[cfg(test)]
mod tests;
