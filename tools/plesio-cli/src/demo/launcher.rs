//! The course of a demo: start, kill, join, settle, stop.
//!
//! One loop on one queue. It decides nothing about the mesh; it starts and ends processes, hands out the
//! roster, and writes down what it hears. Every phase has a deadline, and a node that misses it is a line in
//! the record and never a reason to wait.

use super::keys::Keys;
use super::path::BadPath;
use super::plan::Plan;
use super::process::{self, Fleet, Heard};
use super::protocol::{Hello, Said, Setup, Told};
use super::record::{Fate, Kind, Record};
use super::screen::Screen;
use crate::args::{BackendArg, CodecArg, DataPathArg, DevicesArgs, RulesArgs, SharesArg};
use crate::failure::Failure;
use crate::trace::{Line, Trace};
use plesio_udp::clock::monotonic_raw_ns;
use plesio_wire::NodeKey;
use serde_json::{Value, json};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// From the start of a process to its hello: it loads the model and maps its memory.
const HELLO_LIMIT_S: f64 = 30.0;
/// From the roster to the first step.
const ATTACH_LIMIT_S: f64 = 15.0;
/// From the end of training to the commit of what was trained last.
const SETTLE_LIMIT_S: f64 = 8.0;
/// From there until all hold the same version.
const LEVEL_LIMIT_S: f64 = 4.0;
/// From the order to stop to the last word, and to the end of the process.
const STOP_LIMIT_S: f64 = 8.0;
/// How long the mesh trains on when every node says that there is no quorum.
const QUORUM_GRACE_S: f64 = 5.0;
/// Steps per member that show what the mesh is worth: after fewer, chance decides between it and the best of those alone.
const STEPS_EACH_MIN: u64 = 24;
/// How many times the time asked for a slow machine may take.
const EXTENSION: f64 = 2.0;
/// How often the screen is drawn.
const TICK: Duration = Duration::from_millis(100);
/// How long all must have held the same version.
const LEVEL_S: f64 = 0.4;

/// How a demo's mesh ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    Whole,
    /// The mesh could not go on; the cause in words.
    Broken(String),
    Interrupted,
}

pub(crate) struct Launcher<'a> {
    plan: &'a Plan,
    keys: Option<&'a Keys>,
    backend: BackendArg,
    devices: &'a DevicesArgs,
    data_path: DataPathArg,
    codec: CodecArg,
    shares: SharesArg,
    rules: RulesArgs,
    path: Option<BadPath>,
    trace: Option<Trace>,
    fleet: Fleet,
    heard: &'a Receiver<Heard>,
    record: &'a mut Record,
    screen: &'a mut Screen,
    begin: Instant,
    interrupted: bool,
    kill_tried: bool,
    joiner_started: bool,
    quorum_lost_s: Option<f64>,
    extended: bool,
}

/// What nodes are reached by.
pub(crate) struct Means<'a> {
    pub(crate) keys: Option<&'a Keys>,
    pub(crate) backend: BackendArg,
    pub(crate) devices: &'a DevicesArgs,
    pub(crate) data_path: DataPathArg,
    pub(crate) codec: CodecArg,
    pub(crate) shares: SharesArg,
    pub(crate) rules: RulesArgs,
    pub(crate) path: Option<BadPath>,
    pub(crate) trace: Option<Trace>,
}

impl<'a> Launcher<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        means: Means<'a>,
        fleet: Fleet,
        heard: &'a Receiver<Heard>,
        record: &'a mut Record,
        screen: &'a mut Screen,
    ) -> Self {
        let Means { keys, backend, devices, data_path, codec, shares, rules, path, trace } = means;
        Self {
            plan,
            keys,
            backend,
            devices,
            data_path,
            codec,
            shares,
            rules,
            path,
            trace,
            fleet,
            heard,
            record,
            screen,
            begin: Instant::now(),
            interrupted: false,
            kill_tried: false,
            joiner_started: false,
            quorum_lost_s: None,
            extended: false,
        }
    }

    /// Runs the mesh from the first process to the last.
    pub(crate) fn run(mut self) -> Result<Ended, Failure> {
        let ended = self.course();
        self.record.path = self.path.as_ref().and_then(BadPath::report);
        ended
    }

    fn course(&mut self) -> Result<Ended, Failure> {
        self.start_founders()?;
        let broken = if self.interrupted { None } else { self.train() };
        self.record.trained_s = self.now_s();
        if self.interrupted {
            return Ok(Ended::Interrupted);
        }
        if broken.is_none() {
            self.settle();
        }
        if !self.interrupted {
            self.stop();
        }
        Ok(match broken {
            _ if self.interrupted => Ended::Interrupted,
            Some(cause) => Ended::Broken(cause),
            None => Ended::Whole,
        })
    }

    fn now_s(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    fn start_founders(&mut self) -> Result<(), Failure> {
        let founders = self.plan.founders();
        for index in 0..founders {
            self.start(index)?;
        }
        self.wait(HELLO_LIMIT_S, |launcher| {
            launcher.record.nodes[..founders].iter().all(|n| n.hello.is_some())
        });
        if self.interrupted {
            return Ok(());
        }
        for index in 0..founders {
            if self.record.nodes[index].hello.is_none() || self.record.nodes[index].fate != Fate::Alive {
                return Err(self.no_start(index));
            }
        }
        let hellos = self.record.nodes[..founders].iter().filter_map(|node| node.hello.clone());
        let roster: Vec<Hello> = hellos.collect();
        for index in 0..founders {
            self.fleet.tell(index, &Told::Start { roster: roster.clone() });
        }
        self.begin = Instant::now();
        self.screen.begin(self.plan, self.record);
        Ok(())
    }

    fn start(&mut self, index: usize) -> Result<(), Failure> {
        let advertise = self.path.as_mut().map(|path| path.advertise(index)).transpose()?;
        let setup = Setup {
            backend: self.backend,
            device: self.devices.of(index),
            kernels_dir: self.devices.kernels_dir.clone(),
            path: if self.path.is_some() { DataPathArg::Udp } else { self.data_path },
            codec: self.codec,
            shares: self.shares,
            rules: self.rules,
            trace: self.trace.is_some(),
            advertise,
            ..self.plan.setup(index, self.keys)
        };
        self.trace(index, "started", json!({ "name": setup.name }));
        self.fleet.start(index, setup)?;
        self.record.nodes[index].fate = Fate::Alive;
        Ok(())
    }

    /// A line of what the launcher itself knows of a node.
    fn trace(&self, index: usize, kind: &'static str, fields: Value) {
        if let Some(trace) = &self.trace {
            let node = crate::hex::name(NodeKey(self.record.nodes[index].key));
            trace.say(&Line::new(kind, fields).of(Some(&node), monotonic_raw_ns(), None));
        }
    }

    fn no_start(&mut self, index: usize) -> Failure {
        let name = self.record.nodes[index].name.clone();
        let said = self.record.notes.iter().rev().find(|(_, note)| note.starts_with(&name));
        let cause = said.map(|(_, note)| note.clone()).unwrap_or_else(|| self.fleet.log_tail(&name));
        let cause =
            if cause.is_empty() { format!("{name} did not answer in {HELLO_LIMIT_S} s") } else { cause };
        Failure::run("node-start", format!("node {name} did not open"), cause)
    }

    /// Until the time is over; answers the cause when the mesh cannot go on.
    fn train(&mut self) -> Option<String> {
        while !self.interrupted && !self.is_trained() {
            self.hear(TICK);
            let now_s = self.now_s();
            if now_s >= self.plan.kill_s && !self.kill_tried {
                self.kill_victim(now_s);
            }
            if now_s >= self.plan.join_s && !self.joiner_started {
                self.start_joiner(now_s);
            }
            if now_s >= ATTACH_LIMIT_S && self.record.nodes.iter().all(|node| node.attached.is_none()) {
                return Some(format!("no node has begun to train within {ATTACH_LIMIT_S} s"));
            }
            if let Some(cause) = self.no_way_on(now_s) {
                return Some(cause);
            }
        }
        None
    }

    /// Whether the time is over. A machine too slow to show anything in it is given as much again, and says so.
    fn is_trained(&mut self) -> bool {
        let (now_s, steps_each) = (self.now_s(), self.record.steps_each());
        if now_s < self.plan.seconds {
            return false;
        }
        if steps_each >= STEPS_EACH_MIN || now_s >= EXTENSION * self.plan.seconds {
            return true;
        }
        if !self.extended {
            self.extended = true;
            let limit_s = EXTENSION * self.plan.seconds;
            self.record.note(
                now_s,
                format!(
                    "{steps_each} steps per member tell little: this machine is slow or busy, so they train on, to \
                     {STEPS_EACH_MIN} steps or {limit_s:.0} s"
                ),
            );
        }
        false
    }

    fn kill_victim(&mut self, now_s: f64) {
        self.kill_tried = true;
        let victim = self.plan.victim;
        let name = self.plan.members[victim].name.clone();
        // Somebody may have killed others by hand: what remains must still be a quorum.
        let node = &self.record.nodes[victim];
        if node.fate != Fate::Alive || !self.record.is_quorum_without(node.key) {
            let why =
                if node.fate == Fate::Alive { "the others would be no quorum" } else { "it is already gone" };
            self.record.note(now_s, format!("{name} is spared: {why}"));
            return;
        }
        self.trace(victim, "killed", json!({ "by": "demo" }));
        self.fleet.kill(victim);
        self.record.killed_s = Some(now_s);
        self.record.nodes[victim].fate = Fate::Killed;
        self.record.event(now_s, victim, Kind::Crash, "killed with SIGKILL by the demo, as planned");
    }

    fn start_joiner(&mut self, now_s: f64) {
        self.joiner_started = true;
        if let Err(failure) = self.start(self.plan.joiner()) {
            self.record.note(now_s, format!("the joiner did not start: {}", failure.cause));
        }
    }

    /// Why the mesh cannot go on, once it has had its grace.
    fn no_way_on(&mut self, now_s: f64) -> Option<String> {
        let mut alive = self.record.nodes.iter().filter(|node| node.fate == Fate::Alive).peekable();
        if alive.peek().is_none() {
            return Some("no node is left".into());
        }
        // A joiner that is not in has no say.
        let mut members = alive.filter(|node| node.attached.is_some()).peekable();
        if members.peek().is_none() || !members.all(|node| node.quorum_lost) {
            self.quorum_lost_s = None;
            return None;
        }
        let since_s = *self.quorum_lost_s.get_or_insert(now_s);
        (now_s - since_s >= QUORUM_GRACE_S).then(|| {
            let left: Vec<&str> = self.record.survivors().map(|node| node.name.as_str()).collect();
            format!(
                "no quorum: only {} are left, and they weigh no more than half of the view",
                left.join(", ")
            )
        })
    }

    /// Lets everybody bring in what is trained, and waits until all hold the same version.
    fn settle(&mut self) {
        self.tell_alive(&Told::Settle);
        self.wait(SETTLE_LIMIT_S, |launcher| {
            launcher
                .record
                .nodes
                .iter()
                .all(|node| node.fate != Fate::Alive || node.attached.is_none() || node.settled.is_some())
        });
        let mut level_since = None;
        self.wait(LEVEL_LIMIT_S, |launcher| {
            let mut versions = launcher
                .record
                .survivors()
                .filter(|node| node.attached.is_some())
                .map(|node| node.versions.keys().next_back().copied().max(node.settled));
            let first = versions.next().flatten();
            if first.is_none() || !versions.all(|version| version == first) {
                level_since = None;
                return false;
            }
            let (since_s, version) = *level_since.get_or_insert((launcher.now_s(), first));
            if version != first {
                level_since = None;
                return false;
            }
            launcher.now_s() - since_s >= LEVEL_S
        });
    }

    /// Hears everybody's last word and collects the processes.
    fn stop(&mut self) {
        self.tell_alive(&Told::Stop);
        self.wait(STOP_LIMIT_S, |launcher| launcher.record.nodes.iter().all(|node| node.fate != Fate::Alive));
        if self.interrupted {
            return; // Nobody was given the time.
        }
        for index in 0..self.record.nodes.len() {
            if self.record.nodes[index].fate == Fate::Alive {
                let text = format!("{} did not stop when told to", self.record.nodes[index].name);
                self.record.note(self.now_s(), text);
                self.fleet.kill(index);
                self.fleet.reap(index);
                self.record.nodes[index].fate = Fate::Crashed;
            }
        }
        self.show();
    }

    fn tell_alive(&mut self, told: &Told) {
        for index in 0..self.record.nodes.len() {
            if self.record.nodes[index].fate == Fate::Alive {
                self.fleet.tell(index, told);
            }
        }
    }

    /// Hears until `done`, an interruption, or the limit.
    fn wait(&mut self, limit_s: f64, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs_f64(limit_s);
        while !self.interrupted && !done(self) && Instant::now() < deadline {
            self.hear(TICK);
        }
    }

    /// Takes in all that has arrived, waiting at most `limit` for the first; then draws.
    fn hear(&mut self, limit: Duration) {
        let mut next = process::next_heard(self.heard, limit);
        while let Some(heard) = next {
            self.handle_heard(heard);
            next = self.heard.try_recv().ok();
        }
        self.show();
    }

    fn show(&mut self) {
        let now_s = self.now_s();
        self.screen.show(now_s, self.plan, self.record);
    }

    fn handle_heard(&mut self, heard: Heard) {
        let now_s = self.now_s();
        match heard {
            Heard::Signal => self.interrupted = true,
            Heard::State(index, state) => self.record.nodes[index].state = Some(state),
            Heard::Said(_, said) if matches!(*said, Said::Trace { .. }) => {
                if let (Some(trace), Said::Trace { line }) = (&self.trace, &*said) {
                    trace.say(line);
                    if let Some(news) = trace.news() {
                        self.record.note(now_s, news);
                    }
                }
            }
            Heard::Said(index, said) => {
                let joins = index == self.plan.joiner() && matches!(*said, Said::Hello { .. });
                if let (Some(path), Said::Hello { listens, .. }) = (&self.path, &*said) {
                    path.stands_for(index, *listens);
                }
                self.record.handle_said(now_s, index, *said);
                if joins {
                    let alive = self.record.survivors().filter(|node| node.attached.is_some());
                    let seeds = alive.filter_map(|node| node.hello.clone()).collect();
                    self.fleet.tell(index, &Told::Join { seeds });
                }
            }
            Heard::Gone(index) => self.handle_gone(now_s, index),
        }
    }

    fn handle_gone(&mut self, now_s: f64, index: usize) {
        let status = self.fleet.reap(index);
        let node = &mut self.record.nodes[index];
        if node.fate != Fate::Alive {
            return;
        }
        if node.last.is_some() {
            node.fate = Fate::Stopped;
            self.record.event(now_s, index, Kind::Leave, "the run is over");
            return;
        }
        let by = if process::was_killed(status) { "others" } else { "itself" };
        self.trace(index, "killed", json!({ "by": by }));
        let node = &mut self.record.nodes[index];
        if process::was_killed(status) {
            node.fate = Fate::Killed;
            let cause = "killed with SIGKILL, not by the demo: by hand, or by the kernel for want of memory";
            self.record.event(now_s, index, Kind::Crash, cause);
            return;
        }
        node.fate = Fate::Crashed;
        let (name, ending) = (node.name.clone(), process::ending(status));
        let log = self.fleet.log_tail(&name);
        let cause = match log.lines().last() {
            Some(last) => format!("{ending}, not by the demo; its log ends: {last}"),
            None => format!("{ending}, not by the demo"),
        };
        self.record.event(now_s, index, Kind::Crash, cause);
    }
}
