//! A real mesh as a scenario: who died, stood still, was cut off, came and went, and when, as its nodes saw it.
//!
//! | seen | becomes |
//! |---|---|
//! | `killed`, or a view without a node whose lines have ended | crash, and its return if a later view has it again |
//! | a view without a node that goes on | nobody hears it until it is back |
//! | `leaving`, `left`, or a view without a node that nobody suspects just then | leave |
//! | a node that a view has for the first time | join |
//! | `late` | pause |
//! | `suspect` ... `recover` | the way from it to who suspects it is cut, or all ways from it |
//!
//! Not in any record, so not repeated: how fast each node trains, how wrong its clock is, what the kernel did with single
//! threads and datagrams. Those are drawn from the seed.

use super::scenario::{Direction, Scenario, Struck, Text};
use crate::args::{ImpairArgs, RulesArgs, SimArgs};
use crate::trace::read::Record;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What was seen of a mesh, and what it becomes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Observed {
    pub(super) scenario: Scenario,
    /// Nodes by their number in the simulation.
    names: Vec<String>,
    /// What was seen and cannot be repeated.
    left_out: Vec<String>,
}

impl Observed {
    pub(super) fn words(&self) -> String {
        let names: Vec<String> =
            self.names.iter().enumerate().map(|(host, name)| format!("n{host} = {name}")).collect();
        let mut text = format!("            {}\n", names.join(", "));
        for fault in &self.scenario.fault {
            let lasts = fault.for_s.map_or(String::new(), |for_s| format!(" for {for_s:.3} s"));
            let node = fault.node.map_or(String::new(), |node| format!(" of n{node}"));
            let to = fault.to.map_or(String::new(), |to| format!(" to n{to}"));
            let _ = writeln!(text, "            at {:8.3} s  {}{node}{to}{lasts}", fault.at_s, fault.kind);
        }
        for what in &self.left_out {
            let _ = writeln!(text, "            not repeated: {what}");
        }
        text
    }

    pub(super) fn document(&self) -> Value {
        json!({ "nodes": self.names, "faults": self.scenario.fault, "not_repeated": self.left_out })
    }
}

/// run.json of a demo.
pub(super) fn of_demo(document: &Value, args: &SimArgs) -> Result<Observed, String> {
    let nodes = document["nodes"]
        .as_u64()
        .filter(|nodes| (1..=32).contains(nodes))
        .ok_or("it says no number of nodes")?;
    let trained_s = document["trained_s"].as_f64().ok_or("it does not say how long the mesh trained")?;
    let config = &document["config"];
    let mut builder = Builder::new(args, (0..nodes).map(|number| format!("n{number}")).collect());
    builder.setup(&json!({
        "period_ns": document["period_ns"], "codec": config["codec"], "shares": config["shares"],
        "rules": config["rules"], "links": document["path"]["flags"],
    }))?;
    let mut joins: Vec<(f64, &str)> = Vec::new();
    for event in document["events"].as_array().into_iter().flatten() {
        let (Some(at_s), Some(node), Some(kind)) =
            (event["t_s"].as_f64(), event["node"].as_str(), event["kind"].as_str())
        else {
            return Err("an event lacks t_s, node or kind".into());
        };
        match kind {
            "join" => joins.push((at_s - ENTRY_S, node)),
            "crash" => builder.deeds.push(Deed { at_s, node: node.into(), what: What::Crash(None) }),
            "leave" if at_s < trained_s => {
                builder.deeds.push(Deed { at_s, node: node.into(), what: What::Leave });
            }
            "exclude" | "leave" => {}
            other => builder.left_out.push(format!("{other} of {node} at {at_s:.1} s")),
        }
    }
    for (at_s, node) in joins {
        builder.join(at_s, node);
    }
    builder.build(trained_s)
}

/// The kinds that matter here, and to the audit.
pub(super) fn is_wanted(kind: &str) -> bool {
    const WANTED: [&str; 20] = [
        "start",
        "started",
        "installed",
        "view",
        "manifest",
        "sealed",
        "version",
        "suspect",
        "recover",
        "dead",
        "leaving",
        "left",
        "late",
        "killed",
        "halted",
        "resumed",
        "end",
        "final",
        "excluded",
        "phase",
    ];
    WANTED.contains(&kind)
}

/// Traces of the nodes of one mesh.
pub(super) fn of_traces(mut records: Vec<Record>, args: &SimArgs) -> Result<Observed, String> {
    if records.iter().any(|record| record.kind == "start" && record.line["scenario"].is_object()) {
        return Err("it is the trace of a simulation: replay the document of that run (--json), which repeats it whole".into());
    }
    let offset_ns = offsets(&records);
    let other_ns = *offset_ns.values().next().unwrap_or(&0);
    // What a launcher says of a node has that node's time.
    let time_ns = |record: &Record| {
        let own = record.node.as_ref().and_then(|node| offset_ns.get(node)).unwrap_or(&other_ns);
        record.mono_ns.saturating_add(*own)
    };
    records.sort_by_key(time_ns);
    let first_view =
        records.iter().find(|record| record.kind == "view" && record.number("number") == Some(0));
    let begin = first_view
        .or_else(|| {
            records.iter().filter(|record| record.kind == "view").min_by_key(|record| record.number("number"))
        })
        .ok_or("no node ever was in a view")?;
    let founders: Vec<String> = begin.nodes("members").map(Into::into).collect();
    if founders.is_empty() || founders.len() > 32 {
        return Err(format!("the first view has {} members", founders.len()));
    }
    let begin_ns = time_ns(begin);
    let seconds = |record: &Record| (time_ns(record).saturating_sub(begin_ns)) as f64 / 1e9;
    let mut builder = Builder::new(args, founders.clone());
    for start in records.iter().filter(|record| record.kind == "start" && record.line["setup"].is_object()) {
        builder.setup(&start.line["setup"])?;
    }
    let end_s = records.last().map_or(0.0, seconds);
    // Nodes that were let go by an orderly end of everybody are no story.
    let last_s = records.iter().filter(|record| record.kind == "manifest").map(seconds).fold(0.0, f64::max);
    let dead_s = builder.scenario.rules.t_dead_ms.map_or(DEAD_S, |ms| ms as f64 / 1e3);
    let lives = Lives { records: &records, seconds: &seconds, dead_s };
    let mut gone: BTreeMap<String, usize> = BTreeMap::new();
    let mut known: Vec<String> = founders;
    let mut number = begin.number("number").unwrap_or_default();
    for view in records.iter().filter(|record| record.kind == "view") {
        // The first who hears of a view tells of it.
        if is_of_newcomer(view) || view.number("number").is_none_or(|newer| newer <= number) {
            continue;
        }
        number = view.number("number").unwrap_or_default();
        let at_s = seconds(view);
        for node in view.nodes("removed").filter(|node| !view.nodes("added").any(|added| added == *node)) {
            if at_s > last_s + 0.5 {
                continue;
            }
            gone.insert(node.into(), builder.deeds.len());
            builder.deeds.push(lives.end(node, at_s));
        }
        for node in view.nodes("added") {
            if !known.iter().any(|other| other == node) {
                known.push(node.into());
                builder.join(lives.start(node, at_s).unwrap_or(at_s - ENTRY_S), node);
            } else if let Some(at) = gone.remove(node) {
                let back_s = lives.start(node, at_s).unwrap_or(at_s - ENTRY_S).max(0.0);
                if builder.deeds[at].what == What::Leave {
                    builder.left_out.push(format!(
                        "return of {node} at {back_s:.1} s: who leaves a simulation in good order stays away"
                    ));
                }
                builder.deeds[at].until(back_s);
            } else {
                // It died and came back within one view.
                let back_s = lives.start(node, at_s).unwrap_or(at_s - ENTRY_S);
                let died_s = lives.killed(node, at_s).unwrap_or(back_s - 0.1);
                let lasts_s = (back_s - died_s).max(0.05);
                builder.deeds.push(Deed {
                    at_s: died_s,
                    node: node.into(),
                    what: What::Crash(Some(lasts_s)),
                });
            }
        }
    }
    lives.pauses(&mut builder, last_s);
    lives.silences(&mut builder, last_s);
    let halts = records.iter().filter(|record| record.kind == "halted").count();
    if halts > 0 {
        builder.left_out.push(format!("HALT, which {halts} lines tell of: the simulator has no operators"));
    }
    builder.build(end_s.min(last_s + 1.0))
}

/// Mesh time less the machine's own, of every node that ever had both.
fn offsets(records: &[Record]) -> BTreeMap<String, i64> {
    let mut all: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for record in records {
        if let (Some(node), Some(mesh_ns)) = (&record.node, record.mesh_ns) {
            all.entry(node.clone()).or_default().push(mesh_ns.saturating_sub(record.mono_ns));
        }
    }
    let middle = |mut offsets: Vec<i64>| {
        offsets.sort_unstable();
        offsets[offsets.len() / 2]
    };
    all.into_iter().map(|(node, offsets)| (node, middle(offsets))).collect()
}

/// Whether who tells of a view has just come in: everybody in it is new to it.
fn is_of_newcomer(view: &Record) -> bool {
    view.nodes("added").any(|added| view.node.as_deref() == Some(added))
}

/// When nodes lived.
struct Lives<'a, F: Fn(&Record) -> f64> {
    /// In the order of their times.
    records: &'a [Record],
    seconds: &'a F,
    /// Silence after which a member is put out.
    dead_s: f64,
}

impl<F: Fn(&Record) -> f64> Lives<'_, F> {
    fn of<'a>(
        &'a self,
        node: &'a str,
        kinds: &'a [&str],
    ) -> impl DoubleEndedIterator<Item = (f64, &'a Record)> {
        let of_node = move |record: &&Record| record.node.as_deref() == Some(node);
        let kind = move |record: &&Record| kinds.is_empty() || kinds.contains(&record.kind.as_str());
        self.records.iter().filter(of_node).filter(kind).map(|record| ((self.seconds)(record), record))
    }

    /// The last beginning of a process before `at_s`.
    fn start(&self, node: &str, at_s: f64) -> Option<f64> {
        let begun = self.of(node, &["start", "started"]).rfind(|(t_s, _)| *t_s <= at_s);
        begun.map(|(t_s, _)| t_s).filter(|t_s| at_s - t_s < LONG_S)
    }

    fn killed(&self, node: &str, at_s: f64) -> Option<f64> {
        let killed = self.of(node, &["killed"]).rfind(|(t_s, _)| *t_s <= at_s);
        killed.map(|(t_s, _)| t_s).filter(|t_s| at_s - t_s < LONG_S)
    }

    /// When the newest view before `at_s` that let a node in was first told of.
    fn entered(&self, node: &str, at_s: f64) -> Option<f64> {
        let lets_in = |view: &&Record| {
            let is_told_of = view.node.as_deref() == Some(node) || !is_of_newcomer(view);
            view.kind == "view" && is_told_of && view.nodes("added").any(|added| added == node)
        };
        let views = self.records.iter().filter(lets_in).filter(|view| (self.seconds)(view) < at_s);
        // Of equal ones this is the last, so the first to tell.
        views.rev().max_by_key(|view| view.number("number")).map(self.seconds)
    }

    /// When a node that a view of `at_s` is without was told that the others can do without it: soon after that
    /// view, and nothing else befell it before.
    fn left(&self, node: &str, from_s: f64, at_s: f64) -> Option<f64> {
        const ENDS: [&str; 5] = ["left", "excluded", "killed", "start", "started"];
        // Before that view, a start ends nothing: founders begin in their first one.
        let is_end = |(t_s, record): &(f64, &Record)| {
            *t_s > from_s && (*t_s >= at_s || matches!(record.kind.as_str(), "left" | "killed"))
        };
        let first = self.of(node, &ENDS).find(is_end)?;
        Some(first).filter(|(t_s, end)| end.kind == "left" && *t_s < at_s + LEFT_S).map(|(t_s, _)| t_s)
    }

    /// Since when who suspects a node at `at_s` has not heard it; none where nobody does.
    fn silent_since(&self, node: &str, from_s: f64, at_s: f64) -> Option<f64> {
        let mut suspecting: BTreeMap<&str, f64> = BTreeMap::new();
        for record in self.records {
            let t_s = (self.seconds)(record);
            let Some(by) = record.node.as_deref().filter(|_| (from_s..at_s).contains(&t_s)) else { continue };
            let is_of_node = record.text("peer") == Some(node);
            match record.kind.as_str() {
                "suspect" if is_of_node => _ = suspecting.insert(by, t_s - SUSPECT_S),
                "dead" if is_of_node => _ = suspecting.entry(by).or_insert(t_s - self.dead_s),
                "recover" if is_of_node => _ = suspecting.remove(by),
                // A new process suspects nobody.
                "start" | "started" => _ = suspecting.remove(by),
                "view" => {
                    // Who is put out has no say any more. Nor has who alone suspects a member, which else were
                    // dead by now.
                    for gone in record.nodes("removed") {
                        suspecting.remove(gone);
                    }
                    let is_kept = record.nodes("members").any(|member| member == node);
                    let is_old = |since_s: &f64| t_s - since_s > self.dead_s + SUSPECT_S;
                    if is_kept && suspecting.get(by).is_some_and(is_old) {
                        suspecting.remove(by);
                    }
                }
                _ => {}
            }
        }
        suspecting.into_values().reduce(f64::min)
    }

    /// Why a view of `at_s` is without a node.
    fn end(&self, node: &str, at_s: f64) -> Deed {
        let deed = |at_s: f64, what| Deed { at_s: at_s.max(0.0), node: node.into(), what };
        // What was said of an earlier stay says nothing of how this one ends.
        let from_s = self.entered(node, at_s).unwrap_or_default().max(at_s - LONG_S);
        if let Some(left_s) = self.left(node, from_s, at_s) {
            return deed(left_s.min(at_s) - SUSPECT_S, What::Leave);
        }
        if let Some(killed_s) = self.killed(node, at_s).filter(|killed_s| *killed_s > from_s) {
            return deed(killed_s, What::Crash(None));
        }
        let tells_of_leave = |record: &&Record| {
            record.kind == "leaving"
                && record.text("peer") == Some(node)
                && (from_s..=at_s).contains(&(self.seconds)(record))
        };
        if let Some(leaving) = self.records.iter().find(tells_of_leave) {
            return deed((self.seconds)(leaving), What::Leave);
        }
        // Who dies or is cut off is suspected first.
        let suspected = self.silent_since(node, from_s, at_s);
        let silent_s = suspected.unwrap_or(at_s - self.dead_s);
        let writes = self.of(node, &[]).next().is_some();
        let goes_on = self
            .of(node, &[])
            .find(|(t_s, _)| *t_s > at_s + 0.1)
            .is_some_and(|(_, record)| !matches!(record.kind.as_str(), "start" | "started"));
        match (writes, goes_on) {
            (true, true) => deed(silent_s, What::Silence(None)),
            _ if suspected.is_none() => deed(at_s - SUSPECT_S, What::Leave),
            (true, false) => {
                let last = self.of(node, &[]).rfind(|(t_s, _)| *t_s <= at_s + 0.1).map(|(t_s, _)| t_s);
                deed(last.unwrap_or(silent_s), What::Crash(None))
            }
            // It wrote nothing: who dies is as silent as who is cut off.
            (false, _) => deed(silent_s, What::Crash(None)),
        }
    }

    fn pauses(&self, builder: &mut Builder, last_s: f64) {
        for record in self.records.iter().filter(|record| record.kind == "late") {
            let (Some(node), Some(late_ns)) = (&record.node, record.number("late_ns")) else { continue };
            let lasts_s = late_ns as f64 / 1e9;
            let at_s = (self.seconds)(record) - lasts_s;
            if lasts_s >= SHORT_S && at_s < last_s {
                builder.deeds.push(Deed {
                    at_s: at_s.max(0.0),
                    node: node.clone(),
                    what: What::Pause(lasts_s),
                });
            }
        }
    }

    /// Members that somebody did not hear for a while, though nothing else explains it.
    fn silences(&self, builder: &mut Builder, last_s: f64) {
        let observers = {
            let mut nodes: Vec<&String> =
                self.records.iter().filter_map(|record| record.node.as_ref()).collect();
            nodes.sort_unstable();
            nodes.dedup();
            nodes.len()
        };
        let mut open: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        let mut seen: Vec<(f64, f64, &str, &str)> = Vec::new();
        for record in self.records {
            let (Some(node), Some(peer)) = (record.node.as_deref(), record.text("peer")) else { continue };
            match record.kind.as_str() {
                "suspect" => drop(open.insert((peer, node), (self.seconds)(record))),
                "recover" => {
                    if let Some(since_s) = open.remove(&(peer, node)) {
                        seen.push((since_s - SUSPECT_S, (self.seconds)(record), peer, node));
                    }
                }
                _ => {}
            }
        }
        seen.sort_by(|one, other| one.0.total_cmp(&other.0));
        let explained = |from_s: f64, peer: &str, deeds: &[Deed]| {
            deeds.iter().any(|deed| deed.node == peer && (deed.at_s - from_s).abs() < DEAD_S + deed.lasts_s())
        };
        while let Some((from_s, to_s, peer, node)) = seen.first().copied() {
            let alike = |other: &(f64, f64, &str, &str)| other.2 == peer && other.0 < to_s;
            let who = seen.iter().filter(|other| alike(other)).count();
            let until_s = seen.iter().filter(|other| alike(other)).map(|other| other.1).fold(to_s, f64::max);
            seen.retain(|other| !alike(other));
            if from_s >= last_s || explained(from_s, peer, &builder.deeds) {
                continue;
            }
            let to = (who == 1 && observers > 2).then(|| node.to_owned());
            let what = match to {
                Some(to) => What::Way(to, until_s - from_s),
                None => What::Silence(Some(until_s - from_s)),
            };
            builder.deeds.push(Deed { at_s: from_s.max(0.0), node: peer.into(), what });
        }
    }
}

/// Something that befell a node.
#[derive(Clone, Debug, PartialEq)]
struct Deed {
    at_s: f64,
    node: String,
    what: What,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    /// And how long until it was back, if it was.
    Crash(Option<f64>),
    Leave,
    Join,
    Pause(f64),
    /// Nobody hears it.
    Silence(Option<f64>),
    /// One does not.
    Way(String, f64),
}

impl Deed {
    /// It ended then.
    fn until(&mut self, end_s: f64) {
        if let What::Crash(lasts) | What::Silence(lasts) = &mut self.what {
            *lasts = Some((end_s - self.at_s).max(0.05));
        }
    }

    fn lasts_s(&self) -> f64 {
        match self.what {
            What::Crash(lasts) | What::Silence(lasts) => lasts.unwrap_or(LONG_S),
            What::Pause(lasts) | What::Way(_, lasts) => lasts,
            What::Leave | What::Join => 0.0,
        }
    }
}

/// A scenario in the making.
struct Builder {
    scenario: Scenario,
    /// Founders, then joiners in the order in which they come.
    names: Vec<String>,
    joins: Vec<(f64, String)>,
    deeds: Vec<Deed>,
    left_out: Vec<String>,
}

impl Builder {
    fn new(args: &SimArgs, founders: Vec<String>) -> Self {
        let mut scenario = Scenario { nodes: founders.len() as u8, ..Scenario::default() };
        scenario.faults = Text(plesio_sim::FaultSet::NONE);
        if args.said.0.iter().any(|name| name == "seed" || name == "seeds") {
            let of_args = Scenario::of(args);
            scenario.seeds = of_args.seeds;
        }
        Self { scenario, names: founders, joins: Vec::new(), deeds: Vec::new(), left_out: Vec::new() }
    }

    /// What all nodes were told; whoever says it last is believed.
    fn setup(&mut self, setup: &Value) -> Result<(), String> {
        let said = |field: &str| Some(setup[field].clone()).filter(|value| !value.is_null());
        let wrong = |field: &'static str| move |cause: serde_json::Error| format!("{field}: {cause}");
        let ms = |field: &str| setup[field].as_u64().map(|ns| ns as f64 / 1e6);
        self.scenario.period_ms = ms("period_ns").or(self.scenario.period_ms);
        self.scenario.period_min_ms = ms("period_min_ns").or(self.scenario.period_min_ms);
        self.scenario.period_max_ms = ms("period_max_ns").or(self.scenario.period_max_ms);
        if let Some(codec) = said("codec") {
            self.scenario.codec = serde_json::from_value(codec).map_err(wrong("codec"))?;
        }
        if let Some(shares) = said("shares") {
            self.scenario.shares = serde_json::from_value(shares).map_err(wrong("shares"))?;
        }
        if let Some(rules) = said("rules") {
            let rules: RulesArgs = serde_json::from_value(rules).map_err(wrong("rules"))?;
            self.scenario.rules = rules.or(self.scenario.rules);
        }
        if let Some(depth) = said("ring_depth") {
            self.scenario.ring_depth = Some(serde_json::from_value(depth).map_err(wrong("ring_depth"))?);
        }
        if let Some(links) = setup["links"].as_str() {
            let links: ImpairArgs = links.parse().map_err(|cause| format!("links: {cause}"))?;
            self.scenario.links = Text(links);
        }
        Ok(())
    }

    fn join(&mut self, at_s: f64, node: &str) {
        self.joins.push((at_s.max(0.0), node.into()));
    }

    fn build(mut self, seconds: f64) -> Result<Observed, String> {
        self.joins.sort_by(|one, other| one.0.total_cmp(&other.0));
        for (at_s, node) in std::mem::take(&mut self.joins) {
            if self.names.len() == plesio_wire::MEMBERS_MAX {
                self.left_out.push(format!("join of {node}: the simulator has 32 hosts"));
                continue;
            }
            self.names.push(node.clone());
            self.deeds.push(Deed { at_s, node, what: What::Join });
        }
        self.deeds.sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
        let long_s = seconds.max(self.deeds.iter().map(|deed| deed.at_s).fold(0.0, f64::max));
        let whole = (long_s + 1.0).ceil() + QUIET_S;
        if whole > 3_600.0 {
            return Err(format!(
                "it tells of {seconds:.0} s, and an hour is the longest simulation: give a part of it"
            ));
        }
        self.scenario.seconds = (whole as u32).max(10);
        for deed in &self.deeds {
            let number = |node: &str| self.names.iter().position(|name| name == node).map(|at| at as u8);
            let Some(node) = number(&deed.node) else {
                self.left_out
                    .push(format!("{:?} of {} at {:.1} s: no view has it", deed.what, deed.node, deed.at_s));
                continue;
            };
            let at_s = deed.at_s;
            let struck = |kind: &str, for_s| Struck {
                kind: kind.into(),
                at_s,
                for_s,
                node: Some(node),
                ..Struck::default()
            };
            let cut = |for_s| Struck { reach: Some(Direction::From), ..struck("one-way", Some(for_s)) };
            self.scenario.fault.push(match &deed.what {
                What::Crash(lasts_s) => struck("crash", *lasts_s),
                What::Leave => struck("leave", None),
                What::Join => struck("join", None),
                What::Pause(lasts_s) => struck("pause", Some(*lasts_s)),
                What::Silence(lasts_s) => cut(lasts_s.unwrap_or(DEAD_S)),
                What::Way(to, lasts_s) => match number(to) {
                    Some(to) => Struck { to: Some(to), ..struck("one-way", Some(*lasts_s)) },
                    None => cut(*lasts_s),
                },
            });
        }
        Ok(Observed { scenario: self.scenario, names: self.names, left_out: self.left_out })
    }
}

/// From the start of a process until a view has it.
const ENTRY_S: f64 = 1.0;
/// Silence after which a member is suspected, and after which it is put out.
const SUSPECT_S: f64 = 0.5;
const DEAD_S: f64 = 1.0;
/// From the view without a leaver until it is told that the others can do without it.
const LEFT_S: f64 = 5.0;
/// What lies further back has nothing to do with it.
const LONG_S: f64 = 60.0;
/// Shorter pauses are every machine's.
const SHORT_S: f64 = 0.1;
/// Nothing breaks in the last seconds of a simulation.
const QUIET_S: f64 = 6.0;

#[cfg(test)]
mod tests;
