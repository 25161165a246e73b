//! The course of a run: form the mesh, look at what it holds, churn, bring everybody back, look again, end.
//!
//! One loop on one queue, as the demo's launcher has it, on the same processes. Whom it hits and when is the schedule's, what
//! it amounts to the record's. Every phase has a deadline; who misses it is a trouble of the run and no reason to wait.

use super::held::Held;
use super::record::{Life, Record};
use super::schedule::{Due, Schedule};
use crate::args::ChurnArgs;
use crate::demo::keys::Keys;
use crate::demo::plan::Plan;
use crate::demo::process::{self, Fleet, Heard};
use crate::demo::protocol::{Hello, Said, Setup, Told};
use crate::failure::Failure;
use crate::stdout;
use nix::sys::signal::Signal;
use plesio_udp::clock::monotonic_raw_ns;
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// How often the schedule is looked at.
const TICK: Duration = Duration::from_millis(20);
/// From the start of all processes to a mesh that commits.
const FORM_LIMIT_S: f64 = 60.0;
/// Versions that the mesh commits before anything is done to it.
const VERSIONS_FIRST: u64 = 6;
/// From the last act to a mesh in which all are members and hold the same version.
const REUNITE_LIMIT_S: f64 = 30.0;
/// What is looked at may need a moment to come to rest.
const REST_LIMIT_S: f64 = 10.0;
const REST_S: f64 = 2.0;
const SETTLE_LIMIT_S: f64 = 15.0;
const LEVEL_LIMIT_S: f64 = 6.0;
const LEVEL_S: f64 = 0.5;
const STOP_LIMIT_S: f64 = 10.0;
/// A process that is no member so long after it asked is in trouble.
const ENTER_LIMIT_NS: i64 = 20_000_000_000;
const INTERVAL_S: f64 = 1.0;
/// A mesh that makes no version for so long stands still: more kills would only be counted.
const STILL_NS: i64 = 30_000_000_000;

/// Before and after, of a node that is there in the end.
#[derive(Clone, Debug)]
pub(super) struct Survivor {
    pub(super) name: String,
    pub(super) lives: usize,
    pub(super) spared: bool,
    /// Only of a process that was there from the beginning.
    pub(super) before: Option<Held>,
    pub(super) after: Held,
    pub(super) slots_out: Option<u8>,
}

/// What a run leaves besides what was heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended {
    pub(super) survivors: Vec<Survivor>,
    /// The most that any process held before the first kill.
    pub(super) before: Held,
    /// What went wrong with the run itself, in words.
    pub(super) troubles: Vec<String>,
    pub(super) interrupted: bool,
    pub(super) churned_s: f64,
}

pub(super) struct Driver<'a> {
    args: &'a ChurnArgs,
    plan: Plan,
    keys: Option<Keys>,
    fleet: Fleet,
    heard: &'a Receiver<Heard>,
    pub(super) record: Record,
    /// The newest life of every node.
    newest: Vec<usize>,
    lives: Vec<usize>,
    /// Nodes without a process, the longest dead first.
    dead: VecDeque<usize>,
    /// When those who are stopped go on.
    wakes: BTreeMap<usize, i64>,
    /// Never killed.
    spared: usize,
    begin: Instant,
    said_s: f64,
    ended: Ended,
    /// Lives whose trouble was told.
    late: Vec<usize>,
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        args: &'a ChurnArgs,
        plan: Plan,
        keys: Option<Keys>,
        fleet: Fleet,
        heard: &'a Receiver<Heard>,
    ) -> Self {
        let nodes = usize::from(args.nodes);
        // Neither the lowest id, whose deaths are the ones that matter most, nor always the same.
        let lowest = (0..nodes).min_by_key(|node| plan.members[*node].key()).unwrap_or(0);
        let spared = (lowest + 1 + (args.seed % (nodes as u64 - 1)) as usize) % nodes;
        Self {
            args,
            plan,
            keys,
            fleet,
            heard,
            record: Record::default(),
            newest: vec![0; nodes],
            lives: vec![0; nodes],
            dead: VecDeque::new(),
            wakes: BTreeMap::new(),
            spared,
            begin: Instant::now(),
            said_s: 0.0,
            ended: Ended::default(),
            late: Vec::new(),
        }
    }

    /// Runs from the first process to the last.
    pub(super) fn run(mut self) -> Result<(Record, Ended), Failure> {
        self.form()?;
        let before = self.look(|_| true);
        self.ended.before = most(before.values());
        self.churn();
        self.reunite();
        self.compare(&before);
        self.end();
        Ok((self.record, self.ended))
    }

    fn nodes(&self) -> usize {
        self.newest.len()
    }

    fn now_s(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    fn going(&self) -> bool {
        !self.ended.interrupted
    }

    fn say(&self, text: &str) {
        if !self.args.output.quiet {
            let _gone = writeln!(std::io::stderr(), "{:7.1} s  {text}", self.now_s());
        }
    }

    fn trouble(&mut self, text: String) {
        self.say(&text);
        self.ended.troubles.push(text);
    }

    fn spawn(&mut self, node: usize) -> Result<(), Failure> {
        let life = self.fleet.add();
        self.lives[node] += 1;
        let member = &self.plan.members[node];
        let name = format!("{}.{}", member.name, self.lives[node]);
        let setup = Setup {
            name: name.clone(),
            backend: self.args.backend,
            path: self.args.path,
            members_max: self.args.nodes,
            ..self.plan.setup(node, self.keys.as_ref())
        };
        let founder = self.lives[node] == 1;
        let (key, spawned_ns) = (member.key().0, monotonic_raw_ns());
        self.record.begin(Life { node, key, name, founder, spawned_ns, ..Life::default() });
        self.newest[node] = life;
        self.fleet.start(life, setup)
    }

    /// Starts everybody and waits until the mesh commits.
    fn form(&mut self) -> Result<(), Failure> {
        for node in 0..self.nodes() {
            self.spawn(node)?;
        }
        self.wait(FORM_LIMIT_S, |driver| {
            driver.record.lives.iter().all(|life| life.hello.is_some() || life.gone)
        });
        let roster: Vec<Hello> = self.record.lives.iter().filter_map(|life| life.hello.clone()).collect();
        if self.going() && roster.len() < self.nodes() {
            let silent = self.record.lives.iter().find(|life| life.hello.is_none());
            let name = silent.map(|life| life.name.clone()).unwrap_or_default();
            let log = self.fleet.log_tail(&name);
            let cause = if log.is_empty() { format!("no word within {FORM_LIMIT_S} s") } else { log };
            return Err(Failure::run("node-start", format!("node {name} did not open"), cause));
        }
        for life in 0..self.record.lives.len() {
            self.fleet.tell(life, &Told::Start { roster: roster.clone() });
            self.record.lives[life].asked_ns = Some(monotonic_raw_ns());
        }
        self.begin = Instant::now();
        self.say(&format!("{} nodes; {} is spared", self.nodes(), self.plan.members[self.spared].name));
        let formed = self.wait(FORM_LIMIT_S, |driver| driver.is_level(VERSIONS_FIRST));
        if self.going() && !formed {
            let cause = format!("no {VERSIONS_FIRST} versions within {FORM_LIMIT_S} s");
            return Err(Failure::run("churn", "the mesh did not begin", cause));
        }
        Ok(())
    }

    /// Whether all nodes have a process with a seat, at most two versions behind the newest, and that is late enough.
    fn is_level(&self, version_min: u64) -> bool {
        let mut lives = self.newest.iter().map(|life| &self.record.lives[*life]);
        let newest = lives.clone().map(|life| life.version).max().unwrap_or(0);
        newest >= version_min
            && lives.all(|life| life.is_active() && life.version + 2 >= newest)
            && self.record.view.1.len() == self.nodes()
    }

    /// What every process holds, by life, once that has come to rest and `is_fine`; the last look if it never does.
    fn look(&mut self, is_fine: impl Fn(&BTreeMap<usize, Held>) -> bool) -> BTreeMap<usize, Held> {
        let begin = Instant::now();
        let mut last = self.held();
        let mut since = Instant::now();
        while self.going() && begin.elapsed().as_secs_f64() < REST_LIMIT_S {
            self.hear(TICK);
            let now = self.held();
            let counts = |held: &BTreeMap<usize, Held>| -> Vec<(usize, usize)> {
                held.values().map(|held| (held.descriptors, held.mappings)).collect()
            };
            if counts(&now) != counts(&last) {
                since = Instant::now();
            }
            last = now;
            if since.elapsed().as_secs_f64() >= REST_S && is_fine(&last) {
                break;
            }
            self.wait(0.2, |_| false);
        }
        last
    }

    fn held(&self) -> BTreeMap<usize, Held> {
        let held = |life: &usize| {
            let pid = self.record.lives[*life].pid.filter(|_| self.record.lives[*life].is_running())?;
            Some((*life, Held::of(pid)?))
        };
        self.newest.iter().filter_map(held).collect()
    }

    fn churn(&mut self) {
        let begin = Instant::now();
        let mut schedule =
            Schedule::new(self.args.seed, monotonic_raw_ns(), !self.args.no_kill, self.args.pause);
        let limit = Duration::from_secs(self.args.seconds.into());
        while self.going() && begin.elapsed() < limit {
            self.hear(TICK);
            self.wake();
            for due in schedule.due(monotonic_raw_ns()) {
                if self.act(due, &mut schedule) {
                    schedule.done(due, monotonic_raw_ns());
                }
            }
            self.note_late();
            self.interval();
            if self.record.newest_ns.is_some_and(|newest_ns| monotonic_raw_ns() - newest_ns > STILL_NS) {
                self.trouble(format!("no version for {} s: the mesh stands still", STILL_NS / 1_000_000_000));
                break;
            }
        }
        self.ended.churned_s = begin.elapsed().as_secs_f64();
    }

    /// Whether it is done with.
    fn act(&mut self, due: Due, schedule: &mut Schedule) -> bool {
        match due {
            Due::Kill => {
                let may_die = |node: &usize| {
                    let life = self.newest[*node];
                    *node != self.spared
                        && self.record.lives[life].is_running()
                        && self.record.lives[life].hello.is_some()
                        && self.record.is_quorum_without(life, monotonic_raw_ns())
                };
                let victims: Vec<usize> = (0..self.nodes()).filter(may_die).collect();
                let Some(victim) = schedule.pick(victims.len()).map(|at| victims[at]) else { return false };
                self.kill(victim);
            }
            Due::Start => {
                let Some(node) = self.dead.pop_front() else { return true };
                if let Err(failure) = self.spawn(node) {
                    let name = self.plan.members[node].name.clone();
                    self.trouble(format!("{name} did not start: {}", failure.cause));
                    self.dead.push_back(node);
                }
            }
            Due::Pause => {
                let may_stop = |node: &usize| {
                    let life = self.newest[*node];
                    self.record.lives[life].is_active()
                        && self.record.is_quorum_without(life, monotonic_raw_ns())
                };
                let nodes: Vec<usize> = (0..self.nodes()).filter(may_stop).collect();
                let Some(node) = schedule.pick(nodes.len()).map(|at| nodes[at]) else { return false };
                let (life, length_ns) = (self.newest[node], schedule.next_pause_ns());
                let now_ns = monotonic_raw_ns();
                if self.fleet.signal(life, Signal::SIGSTOP) {
                    self.record.handle_pause(life, now_ns, length_ns);
                    self.wakes.insert(life, now_ns + length_ns);
                    self.say(&format!(
                        "stop {} for {:.1} s",
                        self.record.lives[life].name,
                        length_ns as f64 / 1e9
                    ));
                }
            }
        }
        true
    }

    fn kill(&mut self, node: usize) {
        let life = self.newest[node];
        let now_ns = monotonic_raw_ns();
        self.fleet.kill(life);
        self.wakes.remove(&life);
        self.record.handle_kill(life, now_ns);
        self.dead.push_back(node);
        let alive = self.newest.iter().filter(|life| self.record.lives[**life].is_running()).count();
        self.say(&format!("kill {}: {alive} of {} live", self.record.lives[life].name, self.nodes()));
    }

    /// Those whose pause is over go on.
    fn wake(&mut self) {
        let now_ns = monotonic_raw_ns();
        let due: Vec<usize> =
            self.wakes.iter().filter(|(_, at)| **at <= now_ns).map(|(life, _)| *life).collect();
        for life in due {
            self.wakes.remove(&life);
            self.record.handle_wake(life, monotonic_raw_ns());
            self.fleet.signal(life, Signal::SIGCONT);
        }
    }

    /// A process that does not get in is said once.
    fn note_late(&mut self) {
        let now_ns = monotonic_raw_ns();
        let late = |life: &&usize| {
            let own = &self.record.lives[**life];
            let waits = own.asked_ns.is_some_and(|asked| now_ns - asked > ENTER_LIMIT_NS);
            waits && own.first_seated_ns.is_none() && own.is_running() && !self.late.contains(life)
        };
        let found: Vec<usize> = self.newest.iter().filter(late).copied().collect();
        for life in found {
            self.late.push(life);
            let name = self.record.lives[life].name.clone();
            self.trouble(format!("{name} is no member {} s after it asked", ENTER_LIMIT_NS / 1_000_000_000));
        }
    }

    /// Everybody lives and is a member again.
    fn reunite(&mut self) {
        if !self.going() {
            return;
        }
        self.say("no more kills: everybody comes back");
        while let Some(node) = self.dead.pop_front() {
            if let Err(failure) = self.spawn(node) {
                self.trouble(format!("{} did not start: {}", self.plan.members[node].name, failure.cause));
            }
        }
        let whole = self.wait(REUNITE_LIMIT_S, |driver| {
            driver.wake();
            driver.is_level(0)
        });
        if !whole && self.going() {
            let out = |life: &&usize| !self.record.lives[**life].is_active();
            let outside: Vec<&str> =
                self.newest.iter().filter(out).map(|life| self.record.lives[*life].name.as_str()).collect();
            let who = if outside.is_empty() { "all are members".into() } else { outside.join(", ") };
            self.trouble(format!("{REUNITE_LIMIT_S} s after the last kill the mesh is not whole: {who}"));
        }
    }

    /// Looks at what is held, and sets it against what was.
    fn compare(&mut self, before: &BTreeMap<usize, Held>) {
        let limit = self.ended.before;
        let after = self.look(|held| held.values().all(|held| excess(*held, limit) == (0, 0)));
        self.record.end_gaps(monotonic_raw_ns());
        for (life, after) in after {
            let own = &self.record.lives[life];
            self.ended.survivors.push(Survivor {
                name: self.plan.members[own.node].name.clone(),
                lives: self.lives[own.node],
                spared: own.node == self.spared,
                before: before.get(&life).copied(),
                after,
                slots_out: None,
            });
        }
    }

    /// Everybody brings in what is trained, says a last word, and ends.
    fn end(&mut self) {
        if !self.going() {
            return;
        }
        self.tell_all(&Told::Settle);
        self.wait(SETTLE_LIMIT_S, |driver| {
            driver.newest.iter().all(|life| {
                let own = &driver.record.lives[*life];
                own.settled.is_some() || !own.is_active()
            })
        });
        let mut level: Option<(Instant, u64)> = None;
        self.wait(LEVEL_LIMIT_S, |driver| {
            let mut versions = driver.newest.iter().map(|life| &driver.record.lives[*life]);
            let first = versions.clone().map(|life| life.version).max().unwrap_or(0);
            let same = versions.all(|life| life.version == first || !life.is_active());
            level = level
                .filter(|(_, version)| same && *version == first)
                .or(same.then(|| (Instant::now(), first)));
            level.is_some_and(|(since, _)| since.elapsed().as_secs_f64() >= LEVEL_S)
        });
        self.tell_all(&Told::Stop);
        self.wait(STOP_LIMIT_S, |driver| driver.newest.iter().all(|life| driver.record.lives[*life].gone));
        for survivor in &mut self.ended.survivors {
            let own = self.newest.iter().map(|life| &self.record.lives[*life]);
            let own = own.into_iter().find(|life| self.plan.members[life.node].name == survivor.name);
            survivor.slots_out = own.and_then(|life| life.settled).map(|settled| settled.slots_out);
        }
        let silent: Vec<String> = self
            .newest
            .iter()
            .map(|life| &self.record.lives[*life])
            .filter(|life| life.last.is_none())
            .map(|life| life.name.clone())
            .collect();
        if !silent.is_empty() && self.going() {
            self.trouble(format!("no last word from {}", silent.join(", ")));
        }
    }

    fn tell_all(&mut self, told: &Told) {
        for life in self.newest.clone() {
            self.fleet.tell(life, told);
        }
    }

    /// Hears until `done`, an interruption, or the limit; whether it was done.
    fn wait(&mut self, limit_s: f64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline = Instant::now() + Duration::from_secs_f64(limit_s);
        loop {
            if done(self) {
                return true;
            }
            if !self.going() || Instant::now() >= deadline {
                return false;
            }
            self.hear(TICK);
        }
    }

    /// Takes in all that has arrived, waiting at most `limit` for the first.
    fn hear(&mut self, limit: Duration) {
        let mut next = process::next_heard(self.heard, limit);
        while let Some(heard) = next {
            self.handle_heard(heard);
            next = self.heard.try_recv().ok();
        }
    }

    fn handle_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Signal => self.ended.interrupted = true,
            Heard::State(..) => {}
            Heard::Gone(life) => self.handle_gone(life),
            Heard::Said(life, said) => {
                let enters = matches!(*said, Said::Hello { .. }) && !self.record.lives[life].founder;
                let line = self.record.handle_said(monotonic_raw_ns(), life, *said);
                if let Some(line) = line {
                    self.say(&line);
                }
                if enters {
                    self.enter(life);
                }
            }
        }
    }

    /// A new life asks those who are members.
    fn enter(&mut self, life: usize) {
        let members = self.newest.iter().map(|other| &self.record.lives[*other]);
        let seeds: Vec<Hello> =
            members.filter(|other| other.is_active()).filter_map(|other| other.hello.clone()).collect();
        self.fleet.tell(life, &Told::Join { seeds });
        self.record.lives[life].asked_ns = Some(monotonic_raw_ns());
        self.record.joins += 1;
        self.say(&format!("join {}", self.record.lives[life].name));
    }

    fn handle_gone(&mut self, life: usize) {
        let status = self.fleet.reap(life);
        let own = &mut self.record.lives[life];
        own.gone = true;
        let name = own.name.clone();
        if own.killed_ns.is_none() && own.last.is_none() && self.going() {
            self.record.crashes += 1;
            let (ending, log) = (process::ending(status), self.fleet.log_tail(&name));
            let last = log.lines().last().unwrap_or("its log is empty").to_owned();
            let node = self.record.lives[life].node;
            self.trouble(format!("{name} ended by itself: {ending}: {last}"));
            self.dead.push_back(node);
            return;
        }
        self.fleet.forget(life, &name);
    }

    /// The stream's news, once a second.
    fn interval(&mut self) {
        let now_s = self.now_s();
        if !self.args.output.json_stream || now_s - self.said_s < INTERVAL_S {
            return;
        }
        self.said_s = now_s;
        let alive = self.newest.iter().filter(|life| self.record.lives[**life].is_active()).count();
        let version = self.newest.iter().map(|life| self.record.lives[*life].version).max();
        let gap_max_s = self.record.gaps_s.iter().copied().reduce(f64::max);
        let rss_bytes = self.held().values().map(|held| held.rss_bytes).max();
        stdout::emit(
            "interval",
            &json!({
                "t_s": now_s,
                "kills": self.record.kills.len(),
                "joins": self.record.joins,
                "members": alive,
                "version": version,
                "gap_max_s": gap_max_s,
                "rss_max_bytes": rss_bytes,
            }),
        );
    }
}

/// Files and mappings above a limit.
pub(super) fn excess(held: Held, limit: Held) -> (usize, usize) {
    (held.descriptors.saturating_sub(limit.descriptors), held.mappings.saturating_sub(limit.mappings))
}

fn most<'a>(held: impl Iterator<Item = &'a Held>) -> Held {
    held.fold(Held::default(), |most, held| Held {
        descriptors: most.descriptors.max(held.descriptors),
        mappings: most.mappings.max(held.mappings),
        rss_bytes: most.rss_bytes.max(held.rss_bytes),
    })
}
