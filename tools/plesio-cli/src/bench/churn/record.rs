//! What was heard of a mesh in churn.
//!
//! Knows no process and no clock: it is told who was started, killed and stopped, and what the nodes said. A *life* is one
//! process; a node has many, one after the other. Times are `CLOCK_MONOTONIC_RAW` in nanoseconds, as the nodes gave them.

use crate::demo::protocol::{Hello, Said};
use std::collections::BTreeMap;

/// One process of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    pub(super) node: usize,
    pub(super) key: u64,
    pub(super) name: String,
    pub(super) founder: bool,
    pub(super) spawned_ns: i64,
    pub(super) pid: Option<u32>,
    pub(super) hello: Option<Hello>,
    /// When it was told to enter the mesh.
    pub(super) asked_ns: Option<i64>,
    /// Since when it has a seat in the view; none while it has none.
    pub(super) seated_ns: Option<i64>,
    /// The same of its first seat, for good.
    pub(super) first_seated_ns: Option<i64>,
    /// Members of the newest view that it knows.
    pub(super) view: Vec<u64>,
    pub(super) version: u64,
    /// When the newest version came, if nothing was done to this life since.
    pub(super) gap_from_ns: Option<i64>,
    pub(super) killed_ns: Option<i64>,
    /// Its process has ended.
    pub(super) gone: bool,
    pub(super) pauses: Vec<Pause>,
    pub(super) settled: Option<Settled>,
    /// Version and digest of its last word.
    pub(super) last: Option<(u64, String)>,
    /// It was put out of the view though nothing was done to it.
    pub(super) put_out: u32,
}

/// A process was stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pause {
    pub(super) from_ns: i64,
    pub(super) length_ns: i64,
    /// When it went on.
    pub(super) to_ns: Option<i64>,
    /// It found itself put out of the view.
    pub(super) excluded: bool,
    /// When it was in the view again, or still, and held a version decided after its waking.
    pub(super) back_ns: Option<i64>,
    /// Living members that it suspected right after its waking.
    pub(super) accused: u32,
}

/// What a node said of its last contributions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Settled {
    pub(super) whole: bool,
    pub(super) slots_out: u8,
}

impl Life {
    /// A process that can do something.
    pub(super) fn is_running(&self) -> bool {
        !self.gone && self.killed_ns.is_none()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.pauses.last().is_some_and(|pause| pause.to_ns.is_none())
    }

    /// Whether it counts for a quorum.
    pub(super) fn is_active(&self) -> bool {
        self.is_running() && self.seated_ns.is_some() && !self.is_paused()
    }

    /// When something was done to it next, after `ns`.
    pub(super) fn until_ns(&self, ns: i64) -> i64 {
        let paused = self.pauses.iter().filter(|pause| pause.to_ns.is_none_or(|to| to > ns));
        let paused = paused.map(|pause| pause.from_ns).filter(|from| *from > ns);
        paused.chain(self.killed_ns.filter(|killed| *killed > ns)).min().unwrap_or(i64::MAX)
    }
}

/// A version, as all who held it saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct Version {
    /// Frame and moment of the manifest that stood.
    pub(super) decided: Option<(u64, i64)>,
    /// Whose contributions are in it.
    pub(super) contributors: Vec<u64>,
    pub(super) digest: Option<String>,
    /// Which lives held it, and since when.
    pub(super) held: Vec<(usize, i64)>,
}

/// A SIGKILL.
#[derive(Clone, Debug)]
pub(super) struct Kill {
    pub(super) life: usize,
    pub(super) ns: i64,
    /// It had a seat.
    pub(super) member: bool,
    /// Lives that were members and able.
    pub(super) survivors: Vec<usize>,
    /// When they learnt the view without it.
    pub(super) learnt: BTreeMap<usize, i64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) lives: Vec<Life>,
    pub(super) versions: BTreeMap<u64, Version>,
    pub(super) kills: Vec<Kill>,
    /// Gaps between versions, in seconds.
    pub(super) gaps_s: Vec<f64>,
    /// When anybody first held the newest version.
    pub(super) newest_ns: Option<i64>,
    /// Number and members of the newest view.
    pub(super) view: (u32, Vec<u64>),
    /// Versions of which two nodes held different bits.
    pub(super) diverged: Vec<u64>,
    /// Processes that ended by themselves, and failed.
    pub(super) crashes: u32,
    /// Lives that were put out of the view though nothing was done to them.
    pub(super) put_out: u32,
    pub(super) joins: u32,
}

impl Record {
    pub(super) fn begin(&mut self, life: Life) {
        self.lives.push(life);
    }

    /// `life` is killed at `ns`.
    pub(super) fn handle_kill(&mut self, life: usize, ns: i64) {
        let able = |(index, other): (usize, &Life)| (index != life && other.is_active()).then_some(index);
        let survivors = self.lives.iter().enumerate().filter_map(able).collect();
        let member = self.lives[life].seated_ns.is_some();
        self.lives[life].killed_ns = Some(ns);
        self.kills.push(Kill { life, ns, member, survivors, learnt: BTreeMap::new() });
    }

    pub(super) fn handle_pause(&mut self, life: usize, from_ns: i64, length_ns: i64) {
        let pause = Pause { from_ns, length_ns, to_ns: None, excluded: false, back_ns: None, accused: 0 };
        self.lives[life].pauses.push(pause);
        self.lives[life].gap_from_ns = None;
    }

    pub(super) fn handle_wake(&mut self, life: usize, ns: i64) {
        if let Some(pause) = self.lives[life].pauses.last_mut() {
            pause.to_ns = Some(ns);
        }
    }

    /// Takes in what a life said, heard at `now_ns`; a line for people where it is worth one.
    pub(super) fn handle_said(&mut self, now_ns: i64, life: usize, said: Said) -> Option<String> {
        let name = self.lives[life].name.clone();
        match said {
            Said::Version { raw_ns, version, digest } => self.handle_version(life, raw_ns, version, digest),
            Said::Manifest { raw_ns, version, frame, entries } => {
                let version = self.versions.entry(version).or_default();
                // A manifest that was given up is followed by one of a later frame.
                let newer = version.decided.is_none_or(|(known, _)| frame > known);
                if newer {
                    version.decided = Some((frame, raw_ns));
                    version.contributors = entries.iter().map(|entry| entry.node).collect();
                } else if let Some((known, ns)) = &mut version.decided
                    && *known == frame
                {
                    *ns = raw_ns.min(*ns);
                }
            }
            Said::View { raw_ns, number, members, removed, seated, .. } => {
                self.handle_view(life, raw_ns, number, members, &removed, seated);
            }
            Said::Hello { hello, pid, .. } => {
                (self.lives[life].hello, self.lives[life].pid) = (Some(hello), Some(pid));
            }
            Said::Suspect { node } => return self.handle_suspect(life, now_ns, node),
            Said::Excluded => return self.handle_excluded(life, now_ns),
            Said::Settled { whole, slots_out, .. } => {
                self.lives[life].settled = Some(Settled { whole, slots_out });
            }
            Said::Final(last) => self.lives[life].last = Some((last.version, last.digest)),
            Said::Diverged { version, .. } => {
                self.diverge(version);
                return Some(format!("{name} holds another state of version {version} than others"));
            }
            Said::NoQuorum { live, members } => {
                return Some(format!("{name} sees no quorum, {live} of {members}"));
            }
            Said::Quorum => return Some(format!("{name} is part of a quorum again")),
            Said::Failed { error } => return Some(format!("{name} cannot go on: {error}")),
            _ => {}
        }
        None
    }

    fn handle_version(&mut self, life: usize, raw_ns: i64, number: u64, digest: String) {
        if self
            .versions
            .last_key_value()
            .is_none_or(|(newest, known)| number > *newest || (number == *newest && known.held.is_empty()))
        {
            self.newest_ns = Some(raw_ns);
        }
        let version = self.versions.entry(number).or_default();
        match &version.digest {
            Some(known) if *known != digest => self.diverged.push(number),
            Some(_) => {}
            None => version.digest = Some(digest),
        }
        let version = self.versions.entry(number).or_default();
        version.held.push((life, raw_ns));
        let decided_ns = version.decided.map(|(_, ns)| ns);
        let own = &mut self.lives[life];
        own.version = own.version.max(number);
        if own.seated_ns.is_none() || own.is_paused() {
            return;
        }
        if let Some(from_ns) = own.gap_from_ns.replace(raw_ns) {
            self.gaps_s.push((raw_ns - from_ns) as f64 / 1e9);
        }
        if let Some(pause) = own.pauses.last_mut()
            && let Some(to_ns) = pause.to_ns
            && pause.back_ns.is_none()
            && decided_ns.is_some_and(|decided| decided > to_ns)
        {
            pause.back_ns = Some(raw_ns);
        }
    }

    fn handle_view(
        &mut self,
        life: usize,
        raw_ns: i64,
        number: u32,
        members: Vec<u64>,
        removed: &[u64],
        seated: bool,
    ) {
        let own = &mut self.lives[life];
        own.view.clone_from(&members);
        if seated {
            own.seated_ns.get_or_insert(raw_ns);
            own.first_seated_ns.get_or_insert(raw_ns);
        } else {
            own.seated_ns = None;
        }
        for key in removed {
            let lives = &self.lives;
            // The newest: who took a state over whole never hears of removals before it.
            let kill = self.kills.iter_mut().rev().take(RECENT_KILLS).find(|kill| {
                kill.member
                    && lives[kill.life].key == *key
                    && kill.ns < raw_ns
                    && kill.survivors.contains(&life)
                    && !kill.learnt.contains_key(&life)
            });
            if let Some(kill) = kill {
                kill.learnt.insert(life, raw_ns);
            }
        }
        if number > self.view.0 || self.view.1.is_empty() {
            self.view = (number, members);
        }
    }

    fn handle_suspect(&mut self, life: usize, now_ns: i64, node: u64) -> Option<String> {
        let from_ns = self.lives[life].pauses.last()?.from_ns;
        // Not one that came while this one slept: what it knows by that name has died.
        let innocent = self.lives.iter().find(|other| {
            other.key == node
                && other.is_active()
                && other.first_seated_ns.is_some_and(|seated| seated < from_ns)
        });
        let accused = innocent?.name.clone();
        let own = &mut self.lives[life];
        let pause = own.pauses.last_mut()?;
        let awake_ns = now_ns - pause.to_ns?;
        (awake_ns < WAKING_NS).then(|| {
            pause.accused += 1;
            let (name, awake_s) = (&own.name, awake_ns as f64 / 1e9);
            format!("{name} suspects {accused}, {awake_s:.3} s after it went on")
        })
    }

    fn handle_excluded(&mut self, life: usize, now_ns: i64) -> Option<String> {
        let own = &mut self.lives[life];
        own.seated_ns = None;
        match own.pauses.last_mut() {
            Some(pause) if pause.back_ns.is_none() => {
                pause.excluded = true;
                None
            }
            _ if own.killed_ns.is_some() => None,
            _ => {
                own.put_out += 1;
                self.put_out += 1;
                let silent_s = own.gap_from_ns.map_or(0.0, |from| (now_ns - from) as f64 / 1e9);
                Some(format!("{} was put out of the view, {silent_s:.1} s after its last version", own.name))
            }
        }
    }

    fn diverge(&mut self, version: u64) {
        if !self.diverged.contains(&version) {
            self.diverged.push(version);
        }
    }

    /// Gaps that are open at `now_ns` count too.
    pub(super) fn end_gaps(&mut self, now_ns: i64) {
        for life in self.lives.iter_mut().filter(|life| life.is_running()) {
            if let Some(from_ns) = life.gap_from_ns.take() {
                self.gaps_s.push((now_ns - from_ns) as f64 / 1e9);
            }
        }
    }

    /// Whether those who can act would be a quorum without `victim`: of the newest view that anybody knows, and of that of
    /// each of them, since the newest may be known to the victim alone. And of one that seats those too who died while they
    /// were asking to be let in, it among them: who has not noticed yet may still decide it.
    pub(super) fn is_quorum_without(&self, victim: usize, now_ns: i64) -> bool {
        let able = self.lives.iter().enumerate().filter(|(index, life)| *index != victim && life.is_active());
        let mut views = able.map(|(_, life)| &life.view).chain([&self.view.1]);
        views.all(|view| self.is_quorum_of(view, victim, now_ns))
    }

    fn is_quorum_of(&self, view: &[u64], victim: usize, now_ns: i64) -> bool {
        let may_come = |(index, life): &(usize, &Life)| {
            let died = life.killed_ns.is_some_and(|killed_ns| now_ns - killed_ns < NOTICED_NS);
            (died || *index == victim) && life.asked_ns.is_some() && life.first_seated_ns.is_none()
        };
        let mut members = view.to_vec();
        for (_, life) in self.lives.iter().enumerate().filter(may_come) {
            if !members.contains(&life.key) {
                members.push(life.key);
            }
        }
        let stays = |key: &&u64| {
            self.lives
                .iter()
                .enumerate()
                .any(|(index, life)| index != victim && life.key == **key && life.is_active())
        };
        let (left, lowest) = (members.iter().filter(stays).count(), members.iter().min());
        2 * left > members.len() || (2 * left == members.len() && lowest.as_ref().is_some_and(stays))
    }
}

/// Nobody is let in whose last word is older, a frame and the ways included.
const NOTICED_NS: i64 = 2_500_000_000;
/// So long after its waking a node must accuse nobody: the time after which silence is suspect.
const WAKING_NS: i64 = 500_000_000;
/// Kills whose removal may still be news.
const RECENT_KILLS: usize = 32;
