//! What a person sees while the mesh trains: one bar per node, one line per event.
//!
//! Bars go to a terminal only and are redrawn in place; lines go to stderr whatever it is. With `--quiet`
//! there is neither. A stderr that has gone away is no reason to stop.

use super::data;
use super::measure;
use super::plan::Plan;
use super::record::{Fate, Kind, Record, Seen};
use crate::args::OutputArgs;
use crate::paint::Paint;
use crate::stdout;
use serde_json::json;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

/// How often the bars are redrawn, and how often the stream has an interval.
const DRAW_S: f64 = 0.2;
const INTERVAL_S: f64 = 1.0;
const BAR_CELLS: usize = 16;
const WIDTH_DEFAULT: usize = 100;

pub(crate) struct Screen {
    paint: Paint,
    bars: bool,
    lines: bool,
    stream: bool,
    /// Bars now standing under the cursor's line.
    drawn: usize,
    events_shown: usize,
    notes_shown: usize,
    drawn_s: f64,
    interval_s: f64,
}

impl Screen {
    pub(crate) fn new(output: &OutputArgs) -> Self {
        let terminal = io::stderr().is_terminal();
        Self {
            paint: Paint::new(output.color, terminal),
            bars: terminal && !output.quiet,
            lines: !output.quiet,
            stream: output.json_stream,
            drawn: 0,
            events_shown: 0,
            notes_shown: 0,
            drawn_s: f64::NEG_INFINITY,
            interval_s: 0.0,
        }
    }

    /// The mesh has its roster.
    pub(crate) fn begin(&mut self, plan: &Plan, record: &Record) {
        // What is the same for all is said once.
        let mut devices: Vec<(String, Vec<&str>)> = Vec::new();
        for node in &record.nodes[..plan.founders()] {
            let device = format!("{}: {}", node.found.device, node.found.device_reason);
            match devices.iter_mut().find(|(known, _)| *known == device) {
                Some((_, names)) => names.push(&node.name),
                None => devices.push((device, vec![&node.name])),
            }
        }
        for (device, names) in &devices {
            let who = if devices.len() == 1 { "all".into() } else { names.join(", ") };
            self.say(&format!("{who} compute on {device}"));
        }
        let text = format!(
            "{} nodes train for {} s, each on a text of its own; one is killed at {:.0} s, one joins at {:.0} s",
            plan.founders(),
            plan.seconds,
            plan.kill_s,
            plan.join_s
        );
        self.say(&text);
    }

    /// One line, above the bars.
    pub(crate) fn say(&mut self, text: &str) {
        if self.lines {
            let mut out = self.erased();
            let _ = writeln!(out, "{text}");
            put(&out);
        }
    }

    /// Draws what is new.
    pub(crate) fn show(&mut self, now_s: f64, plan: &Plan, record: &Record) {
        let mut out = String::new();
        for event in &record.events[self.events_shown..] {
            let kind = match event.kind {
                Kind::Crash | Kind::Exclude => self.paint.red(kind_name(event.kind)),
                Kind::Join | Kind::Leave => self.paint.green(kind_name(event.kind)),
            };
            let _ = writeln!(out, "{:>6.1} s  {kind}  {}: {}", event.t_s, event.node, event.cause);
        }
        for (t_s, note) in &record.notes[self.notes_shown..] {
            let _ = writeln!(out, "{t_s:>6.1} s  {}  {note}", self.paint.dim("note   "));
        }
        (self.events_shown, self.notes_shown) = (record.events.len(), record.notes.len());
        let due = self.bars && (now_s - self.drawn_s >= DRAW_S || now_s < self.drawn_s);
        if self.lines && (!out.is_empty() || due) {
            let mut all = self.erased();
            all.push_str(&out);
            if self.bars {
                self.drawn_s = now_s;
                self.draw(&mut all, now_s, plan, record);
            }
            put(&all);
        }
        if self.stream && now_s - self.interval_s >= INTERVAL_S {
            self.interval_s = now_s;
            stdout::emit("interval", &interval(now_s, record));
        }
    }

    /// One bar for all that is left to do.
    pub(crate) fn progress(&mut self, what: &str, done: u64, all: u64) {
        if self.bars {
            let mut out = self.erased();
            let _ = writeln!(
                out,
                "{}",
                self.paint.dim(&format!("     {} {done} of {all} {what}", cells(done, all)))
            );
            self.drawn = 1;
            put(&out);
        }
    }

    /// Takes the bars away; what follows is the command's result.
    pub(crate) fn end(&mut self) {
        let out = self.erased();
        put(&out);
    }

    fn erased(&mut self) -> String {
        let drawn = std::mem::take(&mut self.drawn);
        if drawn > 0 { format!("\x1b[{drawn}A\r\x1b[J") } else { String::new() }
    }

    fn draw(&mut self, out: &mut String, now_s: f64, plan: &Plan, record: &Record) {
        let width = rustix::termios::tcgetwinsize(io::stderr())
            .ok()
            .map_or(WIDTH_DEFAULT, |size| usize::from(size.ws_col))
            .max(20);
        let most = record.nodes.iter().map(|node| node.steps).max().unwrap_or(1).max(1);
        for (index, node) in record.nodes.iter().enumerate() {
            let shard = data::shard_name(plan.members[index].work.shard);
            let line: String = bar(node, shard, most).chars().take(width - 1).collect();
            let line = match node.fate {
                Fate::Alive => self.paint.cyan(&line),
                Fate::Killed | Fate::Crashed => self.paint.red(&line),
                Fate::Absent | Fate::Stopped => self.paint.dim(&line),
            };
            let _ = writeln!(out, "{line}");
        }
        let left_s = (plan.seconds - now_s).max(0.0);
        let version = record.versions_committed();
        let _ = writeln!(out, "{}", self.paint.bold(&format!("   version {version}, {left_s:.0} s to go")));
        self.drawn = record.nodes.len() + 1;
    }
}

/// One node in one line: how much it has trained, how well, and how its clock and phase stand.
fn bar(node: &Seen, shard: &str, most: u64) -> String {
    let bar = cells(node.steps, most);
    let mut line = format!("{:>4} {shard:<10} {bar} {:>5} steps", node.name, node.steps);
    match node.fate {
        Fate::Killed | Fate::Crashed => line.push_str("  gone"),
        Fate::Absent => line.push_str("  not yet here"),
        Fate::Stopped => line.push_str("  stopped"),
        Fate::Alive => {
            if let Some((_, loss)) = node.losses.last() {
                let _ = write!(line, "  loss {loss:.2}");
            }
            if let Some((_, progress)) = node.progress.last() {
                let state = STATES.get(usize::from(progress.state)).copied().unwrap_or("?");
                let _ = write!(
                    line,
                    "  v{}  {state}  phase {:+.0} ms  clock ±{:.0} µs",
                    progress.version,
                    node.phases.last().map_or(0.0, |(_, error_ns)| *error_ns as f64 / 1e6),
                    progress.eps_ns as f64 / 1e3
                );
            }
        }
    }
    line
}

fn cells(done: u64, all: u64) -> String {
    let full = (done as f64 / all.max(1) as f64 * BAR_CELLS as f64).round() as usize;
    (0..BAR_CELLS).map(|cell| if cell < full { '█' } else { '·' }).collect()
}

/// Names of the phase corrector's states.
const STATES: [&str; 7] = ["ACQUIRE", "LOCKED", "STRAINED", "SLIPPING", "HOLDOVER", "RESYNC", "DETACHED"];

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Join => "join   ",
        Kind::Leave => "leave  ",
        Kind::Crash => "crash  ",
        Kind::Exclude => "exclude",
    }
}

fn interval(now_s: f64, record: &Record) -> serde_json::Value {
    let nodes: Vec<_> = record
        .nodes
        .iter()
        .map(|node| {
            let bytes = measure::bytes(node);
            json!({
                "node": node.name,
                "fate": node.fate,
                "steps": node.steps,
                "loss": node.losses.last().map(|(_, loss)| loss),
                "version": node.versions.keys().next_back(),
                "bytes_data_sent": bytes.data_sent,
                "bytes_data_received": bytes.data_received,
            })
        })
        .collect();
    json!({
        "t_s": now_s,
        "versions_committed": record.versions_committed(),
        "events": record.events,
        "nodes": nodes,
    })
}

fn put(text: &str) {
    let _gone = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::protocol::{Progress, Said};

    #[test]
    fn a_bar_says_what_its_node_is_doing() {
        let mut record = Record::new([("n0".into(), 1)]);
        assert!(bar(&record.nodes[0], "greek", 10).contains("not yet here"));
        record.nodes[0].fate = Fate::Alive;
        record.handle_said(
            1.0,
            0,
            Said::Step { steps: 5, loss: 2.345, version: 3, phase_error_ns: Some(-7_000_000) },
        );
        let progress = Progress { state: 1, version: 3, eps_ns: 12_000, ..Progress::default() };
        record.handle_said(1.0, 0, Said::Progress(progress));
        let line = bar(&record.nodes[0], "greek", 10);
        assert!(line.contains("████████········"), "{line}");
        assert!(
            line.contains("LOCKED")
                && line.contains("loss 2.3")
                && line.contains("phase -7 ms")
                && line.contains("±12 µs"),
            "{line}"
        );
        record.nodes[0].fate = Fate::Killed;
        assert!(bar(&record.nodes[0], "greek", 10).ends_with("gone"));
    }
}
