//! What the node said so far, for whoever asks; and what happened, as lines and as a stream.

use crate::args::OutputArgs;
use crate::hex::name;
use crate::status::{Disk, Mass, Orders, Relays, Status, Tempo, Way};
use crate::stdout;
use crate::trace::{Trace, why_stopped};
use plesio::{Cause, Entering, NodeEvent, Progress, Revival, What};
use plesio_wire::NodeKey;
use serde_json::{Value, json};
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two reports of how training goes.
const INTERVAL: Duration = Duration::from_secs(1);
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Share of the newest loss in the smoothed one.
const SMOOTH: f64 = 0.05;

/// The newest of everything; written by the node's events and the training thread, read by the socket.
#[derive(Debug)]
pub(super) struct Seen {
    state: Mutex<State>,
    begin: Instant,
    trace: Option<Trace>,
}

#[derive(Debug, Default)]
struct State {
    status: Status,
    /// A view ever named this node.
    was_member: bool,
    left: bool,
    entering: Entering,
}

impl Seen {
    /// From what is known at the start; what happens is written to `trace` too.
    pub(super) fn new(status: Status, trace: Option<Trace>) -> Self {
        Self { state: Mutex::new(State { status, ..State::default() }), begin: Instant::now(), trace }
    }

    /// A line of the trace, where there is one.
    pub(super) fn trace(&self, line: impl FnOnce() -> Value) {
        if let Some(trace) = &self.trace {
            trace.say(&line());
        }
    }

    /// What there is to be said of the trace itself.
    pub(super) fn trace_news(&self) -> Option<String> {
        self.trace.as_ref()?.news()
    }

    pub(super) fn status(&self) -> Status {
        let mut status = self.lock().status.clone();
        status.uptime_s = self.uptime_s();
        status.trace = self.trace.as_ref().map(Trace::state);
        // The links to those who have gone are kept for a while.
        let Status { ways, members, .. } = &mut status;
        ways.retain(|way| members.contains(&way.node));
        status
    }

    /// Whether the newest view names this node.
    pub(super) fn is_member(&self) -> bool {
        self.lock().status.member
    }

    /// Whether a view ever named this node.
    pub(super) fn was_member(&self) -> bool {
        self.lock().was_member
    }

    /// Whether the mesh went on without this node, though it did not leave.
    pub(super) fn is_lost(&self) -> bool {
        let state = self.lock();
        state.was_member && !state.left && !state.status.member
    }

    /// Whether the state that it holds is no state to train on.
    pub(super) fn is_overflowed(&self) -> bool {
        self.lock().status.stopped.as_deref() == Some(why_stopped(Cause::Overflow))
    }

    /// Whether a mesh has said something of itself to this node.
    pub(super) fn is_answered(&self) -> bool {
        let state = self.lock();
        state.was_member || state.entering.view.is_some() || state.status.view.is_some()
    }

    /// Whether the operators halted the mesh.
    pub(super) fn is_halted(&self) -> bool {
        self.lock().status.halted
    }

    /// How far it came on its way in.
    pub(super) fn entering(&self) -> Entering {
        self.lock().entering
    }

    pub(super) fn uptime_s(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    /// One step was taken.
    pub(super) fn handle_step(&self, steps: u64, loss: f32) {
        let status = &mut self.lock().status;
        status.steps = steps;
        let loss = f64::from(loss);
        if loss.is_finite() {
            let before = status.loss.unwrap_or(loss);
            status.loss = Some(before + SMOOTH * (loss - before));
        }
    }

    /// Something happened.
    pub(super) fn handle_event(&self, what: &What) {
        let mut state = self.lock();
        let State { status, was_member, left, entering } = &mut *state;
        match what {
            What::View { number, members, seated, shares, .. } => {
                *was_member |= *seated;
                status.member = *seated;
                status.view = Some(*number);
                status.members = members.iter().map(|key| name(*key)).collect();
                status.shares.clone_from(shares);
                let Status { members, suspects, .. } = status;
                suspects.retain(|suspect| members.contains(suspect));
            }
            What::Entering(news) => *entering = *news,
            What::Excluded => {
                (status.member, status.view) = (false, None);
                status.members.clear();
                status.shares.clear();
                status.suspects.clear();
            }
            What::Left => (status.member, *left) = (false, true),
            What::Halted { sequence, stored } => {
                (status.halted, status.halt_sequence, status.halt_stored) = (true, *sequence, *stored);
            }
            What::Resumed { sequence } => (status.halted, status.halt_sequence) = (false, *sequence),
            What::Version { version, digest } => {
                status.version = version.0;
                status.digest = Some(digest.to_string());
            }
            What::Installed(version) => status.version = version.0,
            What::Revived(revival) => status.state_lost_versions = Some(revival.lost_versions),
            What::Stopped { cause, .. } => status.stopped = Some(why_stopped(*cause).into()),
            What::Suspect(key) | What::Dead(key) => {
                let name = name(*key);
                if !status.suspects.contains(&name) {
                    status.suspects.push(name);
                }
            }
            What::Recover(key) => {
                let name = name(*key);
                status.suspects.retain(|suspect| *suspect != name);
            }
            What::Ways(ways) => {
                let way = |way: &plesio::Way| Way {
                    node: name(way.peer),
                    chunk_bytes: way.chunk_bytes,
                    congestion: way.congestion.into(),
                    path: way.path.into(),
                };
                status.ways = ways.iter().map(way).collect();
            }
            What::Progress(progress) => take(status, progress),
            What::Final(word) => take(status, &word.progress),
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The corrector's states, as a beat numbers them.
const fn state_name(state: u8) -> &'static str {
    match state {
        0 => "acquire",
        1 => "locked",
        2 => "strained",
        3 => "slipping",
        4 => "holdover",
        5 => "resync",
        6 => "detached",
        _ => "unknown",
    }
}

/// Says what happens: lines on stderr for a person, or a stream on stdout for a program.
pub(super) struct Voice {
    stream: bool,
    quiet: bool,
    begin: Instant,
    told: Mutex<[Option<Instant>; 2]>,
}

impl Voice {
    pub(super) fn new(output: &OutputArgs) -> Self {
        Self {
            stream: output.json_stream,
            quiet: output.quiet,
            begin: Instant::now(),
            told: Mutex::new([None; 2]),
        }
    }

    /// A line as it stands.
    pub(super) fn line(&self, line: &str) {
        if !self.quiet {
            let _gone = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// A line with its time.
    pub(super) fn say(&self, text: &str) {
        self.line(&format!("{:8.1} s  {text}", self.begin.elapsed().as_secs_f64()));
    }

    pub(super) fn emit(&self, event: &str, data: &Value) {
        if self.stream {
            stdout::emit(event, data);
        }
    }

    /// What a person and a program should know of an event; a program gets every version, a person does not.
    pub(super) fn handle_event(&self, event: &NodeEvent, seen: &Seen) {
        let t_s = seen.uptime_s();
        let names = |keys: &[NodeKey]| keys.iter().map(|key| name(*key)).collect::<Vec<_>>();
        match &event.what {
            What::View { number, members, added, removed, shares, seated, .. } => {
                let data = json!({ "t_s": t_s, "number": number, "members": names(members),
                    "added": names(added), "removed": names(removed), "shares": shares, "seated": seated });
                self.emit("view", &data);
                let mut text = format!("view {number} of {}", members.len());
                for (what, keys) in [("came", added), ("went", removed)] {
                    if !keys.is_empty() {
                        text.push_str(&format!("; {what}: {}", names(keys).join(" ")));
                    }
                }
                text.push_str(&format!("; shares: {}", crate::shares::text(shares)));
                self.say(&text);
            }
            What::Version { version, digest } => {
                let data = json!({ "t_s": t_s, "version": version.0, "digest": digest.to_string() });
                self.emit("version", &data);
            }
            What::Period { frame, before_ns, period_ns } => {
                let data =
                    json!({ "t_s": t_s, "frame": frame.0, "before_ns": before_ns, "period_ns": period_ns });
                self.emit("period", &data);
                let [before_ms, period_ms] = [before_ns, period_ns].map(|ns| *ns as f64 / 1e6);
                let why = if period_ns > before_ns { "take longer than that" } else { "could do with less" };
                self.say(&format!("frames of {period_ms} ms instead of {before_ms}: uplinks or steps {why}"));
            }
            What::Progress(_) => self.handle_progress(seen),
            What::Phase { from, to } => {
                self.emit("phase", &json!({ "t_s": t_s, "from": from, "to": to }));
            }
            What::Halted { sequence, stored } => {
                self.emit("halt", &json!({ "t_s": t_s, "sequence": sequence, "stored": stored }));
                let kept = if *stored { "" } else { "; the disk did not take it yet" };
                self.say(&format!(
                    "HALT {sequence} of the operators is in force{kept}: nothing is sent or committed until RESUME"
                ));
            }
            What::Revived(Revival { version, lost_versions, members }) => {
                let data = json!({ "t_s": t_s, "version": version.0, "lost_versions": lost_versions, "members": members });
                self.emit("revived", &data);
                self.say(&format!(
                    "the mesh begins again with {members} members from version {}: {lost_versions} versions after it are lost",
                    version.0
                ));
            }
            What::Degraded(why) => {
                self.emit("degraded", &json!({ "t_s": t_s, "cause": why }));
                self.say(&format!(
                    "{why}; training goes on, and a restart of all would lose more than it should"
                ));
            }
            What::Late(late_ns) => {
                self.emit("late", &json!({ "t_s": t_s, "late_ns": late_ns }));
                let late_s = *late_ns as f64 / 1e9;
                self.say(&format!(
                    "this node was itself not running for {late_s:.1} s: it accuses nobody of it"
                ));
            }
            What::Resumed { sequence } => {
                self.emit("resume", &json!({ "t_s": t_s, "sequence": sequence }));
                self.say(&format!("RESUME {sequence} of the operators is in force: the work goes on"));
            }
            what => {
                if let Some(text) = sentence(what) {
                    self.emit("note", &json!({ "t_s": t_s, "text": text }));
                    self.say(&text);
                }
            }
        }
    }

    fn handle_progress(&self, seen: &Seen) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = |at: usize, every| {
            let due = told[at].is_none_or(|last| last.elapsed() >= every);
            if due {
                told[at] = Some(Instant::now());
            }
            due
        };
        if self.stream && due(0, INTERVAL) {
            stdout::emit("interval", &json!(seen.status()));
        }
        if due(1, LINE_INTERVAL) {
            let status = seen.status();
            let loss = status.loss.map_or("-".into(), |loss| format!("{loss:.3}"));
            let Status { version, members, state, steps, .. } = status;
            self.say(&format!(
                "version {version}, {} members, {state}, {steps} steps, loss {loss}",
                members.len()
            ));
        }
    }
}

/// An event that is worth a sentence of its own.
fn sentence(what: &What) -> Option<String> {
    Some(match what {
        What::Suspect(node) => format!("{} is silent", name(*node)),
        What::Recover(node) => format!("{} is heard again", name(*node)),
        What::Dead(node) => format!("{} is gone: a quorum says so", name(*node)),
        What::Leaving(node) => format!("{} is leaving", name(*node)),
        // Members that took up with another life of this node answer the old one no more.
        What::NoQuorum { live: 1, members } if *members > 2 => format!(
            "no quorum: nobody but this node is heard, of {members} members; nothing is committed, and training stops after some frames. \
            See whether its network is cut, or another process runs with its key (plesio status at a member)"
        ),
        What::NoQuorum { live, members } => {
            format!(
                "no quorum: {live} of {members} members are heard; nothing is committed, and training stops after some \
                 frames"
            )
        }
        What::Quorum => "there is a quorum again".into(),
        What::Excluded => "the mesh goes on without this node; it asks to be let in again".into(),
        What::Namesake { key, seated, asks } => format!(
            "{} is a member at {seated}, and asks from {asks} to be let in: it was started anew there, or two processes \
            have its key and throw each other out; then end one of them",
            name(*key)
        ),
        What::Entering(Entering { namesake: Some(address), .. }) => format!(
            "the mesh knows this node's key at {address}: an earlier life of this node, or another process with the same \
            key; if that one runs, end it, or give this node a key and a ticket of its own (plesio key gen)"
        ),
        What::Left => "left the mesh in good order".into(),
        What::Diverged { version, peer } => format!(
            "{} says other bits of version {} than a quorum, this node among it; the mesh goes on without its word",
            name(*peer),
            version.0
        ),
        What::Resync(version) => format!(
            "a quorum holds other bits of version {} than this node, which takes its state from them; if that happens \
            again, look at this machine's memory and at the build",
            version.0
        ),
        What::Stopped { version, cause } => {
            let why = match cause {
                Cause::Overflow => {
                    "an element of the state left 64 bits: begin a new mesh with a smaller scale"
                }
                _ => {
                    "members hold other bits and no quorum agrees, or this machine's go wrong again and again"
                }
            };
            format!(
                "this node commits nothing after version {}, and answers those who want what it holds: {why}",
                version.0
            )
        }
        What::Mended => "what is to outlive this node is written again".into(),
        What::Sick(true) => "this node hears less than half of its view and accuses nobody".into(),
        What::Sick(false) => "this node hears the others again".into(),
        What::Installed(version) => format!("took over the state of version {}", version.0),
        What::Note(text) => text.clone(),
        What::Failed(error) => format!("stopped: {error}"),
        _ => return None,
    })
}

/// What the node counted so far.
fn take(status: &mut Status, progress: &Progress) {
    status.state = state_name(progress.state).into();
    status.clock_error_ns = (progress.eps_ns != u32::MAX).then_some(progress.eps_ns.into());
    status.period_ns = progress.period_ns;
    status.lead_ns = progress.lead_ns;
    status.tempo = Tempo::of(&progress.tempo);
    status.version = status.version.max(progress.version);
    status.steps_committed = progress.steps_committed;
    let counters = &progress.counters;
    status.data_sent_bytes = counters.data_sent_bytes;
    status.data_received_bytes = counters.data_received_bytes;
    status.data_resent_bytes = counters.retransmitted_bytes;
    status.sideband_sent_bytes = counters.sideband_sent_bytes;
    (status.sideband_budget, status.sideband_rate) =
        (counters.sideband_pace.budget, counters.sideband_pace.rate);
    status.beat_ns = counters.sideband_pace.beat_ns;
    status.beats_lengthened = counters.sideband_pace.lengthened;
    status.relays = Relays::of(&counters.relays);
    status.memory_read_bytes = counters.memory_read_bytes;
    status.memory_taken_bytes = counters.memory_taken_bytes;
    status.notices_refused = counters.notices_refused;
    status.data_dropped = counters.data_dropped;
    status.sideband_dropped = counters.sideband_dropped;
    status.falseticker_total = counters.falsetickers;
    status.clock_steps = counters.clock_steps;
    let halt = &progress.halt;
    (status.halted, status.halt_sequence, status.halt_stored) = (halt.halted, halt.sequence, halt.stored);
    status.orders = Orders::of(&halt.counters);
    status.disk = progress.disk.map(|disk| Disk::of(&disk));
    (status.late_total, status.late_ns) = (progress.lateness.wakes, progress.lateness.total_ns);
    status.mass = Mass::of(&progress.steps);
}

#[cfg(test)]
mod tests {
    use super::*;
    use plesio::Final;
    use plesio_wire::{Digest, Version};

    #[test]
    fn the_newest_of_everything_is_kept() {
        let seen = Seen::new(Status::default(), None);
        let view = |number, members: &[u64]| What::View {
            number,
            index: 1,
            members: members.iter().map(|key| NodeKey(*key)).collect(),
            added: Vec::new(),
            removed: Vec::new(),
            shares: if number == 3 { vec![0.75, 0.25] } else { Vec::new() },
            seated: members.contains(&1),
        };
        seen.handle_event(&view(3, &[1, 2]));
        seen.handle_event(&What::Suspect(NodeKey(2)));
        seen.handle_event(&What::Version { version: Version(9), digest: Digest::of(b"state") });
        seen.handle_event(&What::Progress(Progress { eps_ns: u32::MAX, state: 1, ..Progress::default() }));
        (1..=2).for_each(|step| seen.handle_step(step, 2.0));
        seen.handle_step(3, f32::NAN);
        let status = seen.status();
        assert_eq!((status.view, status.version, status.steps), (Some(3), 9, 3));
        assert_eq!((status.loss, status.clock_error_ns, status.state.as_str()), (Some(2.0), None, "locked"));
        assert_eq!(status.suspects, ["0200000000000000"]);
        assert_eq!(status.shares, [0.75, 0.25]);
        seen.handle_event(&view(4, &[1]));
        assert!(seen.status().suspects.is_empty(), "who is no member is no suspect");
        let progress = Progress { steps_committed: 3, ..Progress::default() };
        let digest = Digest::of(b"state");
        let word = Final { version: Version(9), digest, state: Vec::new(), progress };
        seen.handle_event(&What::Final(Box::new(word)));
        assert_eq!(seen.status().steps_committed, 3, "the last word counts");
        assert!(seen.is_member());
        assert!(!seen.is_overflowed());
        seen.handle_event(&What::Stopped { version: Version(9), cause: Cause::Overflow });
        assert!(seen.is_overflowed());
        seen.handle_event(&What::Excluded);
        let status = seen.status();
        assert!(!status.member && status.view.is_none() && status.members.is_empty(), "{status:?}");
        assert_eq!((seen.was_member(), status.version), (true, 9), "it holds what it held");
        assert!(seen.is_lost());
        seen.handle_event(&view(5, &[1, 2]));
        seen.handle_event(&What::Left);
        assert!(!seen.is_lost() && !seen.is_member());
        seen.handle_event(&What::Halted { sequence: 7, stored: true });
        let status = seen.status();
        assert!(seen.is_halted() && status.halt_stored && status.halt_sequence == 7, "{status:?}");
        seen.handle_event(&What::Resumed { sequence: 8 });
        assert!(!seen.is_halted() && seen.status().halt_sequence == 8);
    }
}
