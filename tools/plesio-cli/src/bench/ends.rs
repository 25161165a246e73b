//! The two ends of a bench as its driver sees them: starts them, leads them through a run, notices when one dies.
//!
//! ```text
//!  driver ── Open ──▶ both      ◀── Open: where I am ── both
//!         ── Meet ──▶ answer    ◀── Ready
//!         ── Meet ──▶ begin     ◀── Sent: from whoever sends
//!         ── Stop ──▶ both      ◀── Done: what I saw
//! ```

use super::control::Writer;
use super::link::{Half, Order, Role, Run, Said, What};
use super::ours::silence_fix;
use super::relay::RelayFigures;
use super::round::RoundTrips;
use crate::args::ImpairArgs;
use crate::failure::{Exit, Failure};
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// One run, seen from both ends.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) begin: Half,
    pub(crate) answer: Half,
    pub(crate) trips: Option<RoundTrips>,
    /// What a bad path did.
    pub(crate) path: Option<RelayFigures>,
}

/// How orders reach an end.
enum Talk {
    Pipe(ChildStdin),
    Net(Writer),
}

struct End {
    talk: Talk,
    child: Option<Child>,
    /// On another machine: where, as seen from here.
    ip: Option<IpAddr>,
}

impl End {
    fn tell(&mut self, order: &Order) -> Result<(), Failure> {
        match &mut self.talk {
            Talk::Pipe(pipe) => {
                let line = serde_json::to_string(order).map_err(|_| lost())?;
                writeln!(pipe, "{line}").map_err(|_| lost())
            }
            Talk::Net(writer) => writer.write(order).map_err(|_| lost()),
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Fails only for a process that has already ended.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// Starts an end on this machine, on a core of its own or on any.
pub(crate) fn spawn(pin: Option<u16>) -> Result<(Child, ChildStdin, ChildStdout), Failure> {
    spawn_with(pin.map(|core| format!("--pin={core}")).into_iter())
}

fn spawn_with(flags: impl Iterator<Item = String>) -> Result<(Child, ChildStdin, ChildStdout), Failure> {
    spawn_as("bench-end", flags)
}

/// Starts this program again, as one of the processes that it leads through a bench.
pub(crate) fn spawn_as(
    what: &str,
    flags: impl Iterator<Item = String>,
) -> Result<(Child, ChildStdin, ChildStdout), Failure> {
    let mut command = ours(what);
    // What the environment says has been read, and flags may have had their say over it.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PLESIO_")) {
        command.env_remove(name);
    }
    start(command.args(flags), what)
}

/// The same of one that has no flags: its pipe tells it everything.
pub(crate) fn spawn_told(what: &str) -> Result<(Child, ChildStdin, ChildStdout), Failure> {
    start(&mut ours(what), what)
}

fn ours(what: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("plesio").arg(what);
    command
}

fn start(command: &mut Command, what: &str) -> Result<(Child, ChildStdin, ChildStdout), Failure> {
    let failure = |cause: std::io::Error| Failure::run("bench", format!("cannot start a {what}"), cause);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failure)?;
    match (child.stdin.take(), child.stdout.take()) {
        (Some(orders), Some(out)) => Ok((child, orders, out)),
        _ => Err(failure(std::io::ErrorKind::BrokenPipe.into())),
    }
}

/// What an end said; `None`: it is gone.
type Heard = (Role, Option<Said>);

pub(crate) struct Ends {
    begin: End,
    answer: End,
    heard: Receiver<Heard>,
    interrupted: Arc<AtomicBool>,
    over: bool,
    tell: Sender<Heard>,
    path: Option<End>,
}

fn lost() -> Failure {
    let cause = "its process ended, or its machine is gone, before the run was over";
    Failure { exit: Exit::Unreachable, ..Failure::run("bench-peer", "the other end is gone", cause) }
        .fix("see what ended it: `dmesg` names a process killed for memory; then run again")
}

/// The other end is there, and there is nothing to measure.
fn nothing(run: &Run) -> Failure {
    let whole = match run.what {
        What::Stream => "not a byte arrived",
        What::Pingpong => "no round trip was done",
    };
    let waited = run.drain_limit().as_secs_f64();
    let cause = format!("{whole} in {} s and the {waited:.1} s after", run.seconds);
    let what = format!("nothing came through by {}", run.link.name());
    Failure { exit: Exit::Unreachable, ..Failure::run("bench-peer", what, cause) }.fix(silence_fix(run))
}

fn silent(what: &str) -> Failure {
    Failure { exit: Exit::Unreachable, ..Failure::run("bench-peer", "the other end does not answer", what) }
        .fix("see whether its process is stopped or starved, then run again")
}

impl Ends {
    /// Both ends on this machine, in sessions of their own, so that the scheduler treats both alike.
    pub(crate) fn here(interrupted: Arc<AtomicBool>, pin: &[u16]) -> Result<Self, Failure> {
        let (tell, heard) = mpsc::channel();
        let begin = local(Role::Begin, &tell, pin.first().copied())?;
        let answer = local(Role::Answer, &tell, pin.get(1).copied())?;
        Ok(Self { begin, answer, heard, interrupted, over: false, tell, path: None })
    }

    /// One end here and the other behind a control connection; `hear` is to call its argument with every answer.
    pub(crate) fn across(
        interrupted: Arc<AtomicBool>,
        pin: &[u16],
        writer: Writer,
        ip: IpAddr,
        mut read: impl FnMut() -> Option<Said> + Send + 'static,
    ) -> Result<Self, Failure> {
        let (tell, heard) = mpsc::channel();
        let begin = local(Role::Begin, &tell, pin.first().copied())?;
        let answer = End { talk: Talk::Net(writer), child: None, ip: Some(ip) };
        let to = tell.clone();
        let hear = move || loop {
            let said = read();
            let gone = said.is_none();
            if to.send((Role::Answer, said)).is_err() || gone {
                break;
            }
        };
        thread(hear)?;
        Ok(Self { begin, answer, heard, interrupted, over: false, tell, path: None })
    }

    /// Puts a bad path between the ends, from the next run on; none where the flags say nothing.
    pub(crate) fn through(&mut self, flags: &ImpairArgs, seed: u64) -> Result<(), Failure> {
        if !flags.is_none() {
            let own = [String::from("--between"), format!("--seed={seed}")];
            let flags = flags.to_string();
            let flags = flags.split_whitespace().map(String::from);
            self.path = Some(listen(Role::Between, &self.tell, spawn_with(own.into_iter().chain(flags))?)?);
        }
        Ok(())
    }

    /// Something to the bad path, if there is one, and its answer.
    fn ask_path(&mut self, order: &Order) -> Result<Option<Said>, Failure> {
        let Some(path) = &mut self.path else { return Ok(None) };
        path.tell(order)?;
        let limit = Instant::now() + ANSWER_LIMIT;
        loop {
            if let (Role::Between, said) = self.hear(limit, "the bad path was asked")? {
                return Ok(Some(said));
            }
        }
    }

    /// The next thing an end says.
    fn hear(&mut self, limit: Instant, awaited: &str) -> Result<(Role, Said), Failure> {
        loop {
            if !self.over && self.interrupted.load(Ordering::Acquire) {
                self.over = true;
                for end in [&mut self.begin, &mut self.answer] {
                    end.tell(&Order::Over)?;
                }
            }
            match self.heard.recv_timeout(LOOK_PERIOD) {
                Ok((_, None)) => return Err(lost()),
                Ok((role, Some(Said::Failed(trouble)))) => {
                    // A link that broke because the other end died is told as that.
                    let news = Instant::now() + DEATH_NEWS;
                    while let Ok((other, said)) =
                        self.heard.recv_timeout(news.saturating_duration_since(Instant::now()))
                    {
                        if said.is_none() && other != role {
                            return Err(lost());
                        }
                    }
                    return Err(trouble.failure("bench"));
                }
                Ok((role, Some(said))) => return Ok((role, said)),
                Err(RecvTimeoutError::Timeout) if Instant::now() < limit => {}
                Err(_) => return Err(silent(awaited)),
            }
        }
    }

    /// One run.
    pub(crate) fn run(&mut self, run: &Run, pool: &str) -> Result<Outcome, Failure> {
        for (role, end) in [(Role::Answer, &mut self.answer), (Role::Begin, &mut self.begin)] {
            // Another machine has its own copy of the key.
            let pool = if end.ip.is_some() { "" } else { pool };
            end.tell(&Order::Open(*run, role, pool.into()))?;
        }
        let limit = Instant::now() + ANSWER_LIMIT;
        let (mut begin, mut answer) = (None, None);
        while begin.is_none() || answer.is_none() {
            match self.hear(limit, "it was asked to get ready")? {
                (Role::Begin, Said::Open(address)) => begin = Some(address),
                (Role::Answer, Said::Open(address)) => answer = Some(address),
                _ => {}
            }
        }
        let (Some(mut begin), Some(mut answer)) = (begin, answer) else { return Err(lost()) };
        // Where a machine is, is where we reach it, whatever it says.
        answer.ip = self.answer.ip.unwrap_or(answer.ip);
        let order = Order::Between(run.bind, begin.clone(), answer.clone());
        if let Some(Said::Between(relayed_begin, relayed_answer)) = self.ask_path(&order)? {
            (begin, answer) = (relayed_begin, relayed_answer);
        }
        self.answer.tell(&Order::Meet(begin))?;
        while !matches!(self.hear(limit, "it was told to begin")?, (Role::Answer, Said::Ready)) {}
        self.begin.tell(&Order::Meet(answer))?;
        // An end gives up by itself what is slow; only one that does not run at all is silent for longer.
        let limit = Instant::now() + run.longest() + ANSWER_LIMIT;
        let mut owed = if run.both && run.what == What::Stream { 2_u32 } else { 1 };
        let mut done: [Option<Half>; 2] = [None, None];
        let mut stopped = false;
        while done.iter().any(Option::is_none) {
            if owed == 0 && !stopped {
                stopped = true;
                for end in [&mut self.begin, &mut self.answer] {
                    end.tell(&Order::Stop)?;
                }
            }
            match self.hear(limit, "the run should be over")? {
                (_, Said::Sent) => owed = owed.saturating_sub(1),
                (role, Said::Done(half)) => done[usize::from(role == Role::Answer)] = Some(*half),
                _ => {}
            }
        }
        let [Some(mut begin), Some(mut answer)] = done else { return Err(lost()) };
        answer.settle(&begin, run.bytes);
        begin.settle(&answer, run.bytes);
        let trips =
            if run.what == What::Pingpong { Some(RoundTrips::from_hex(&begin.round_trips)?) } else { None };
        let arrived = match &trips {
            Some(trips) => trips.count() > 0,
            None => begin.received_bytes + answer.received_bytes > 0,
        };
        if !arrived && !self.over {
            return Err(nothing(run));
        }
        let path = match self.ask_path(&Order::Apart)? {
            Some(Said::Apart(figures)) => Some(figures),
            _ => None,
        };
        Ok(Outcome { begin, answer, trips, path })
    }
}

fn local(role: Role, tell: &Sender<Heard>, pin: Option<u16>) -> Result<End, Failure> {
    listen(role, tell, spawn(pin)?)
}

/// Hears what a process on this machine says.
fn listen(
    role: Role,
    tell: &Sender<Heard>,
    (child, orders, out): (Child, ChildStdin, ChildStdout),
) -> Result<End, Failure> {
    let to = tell.clone();
    let hear = move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let Ok(said) = serde_json::from_str(&line) else { break };
            if to.send((role, Some(said))).is_err() {
                return;
            }
        }
        let _ended = to.send((role, None));
    };
    let end = End { talk: Talk::Pipe(orders), child: Some(child), ip: None };
    thread(hear)?;
    Ok(end)
}

fn thread(hear: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = std::thread::Builder::new().name("hear".into());
    let spawned = thread.spawn(hear).map(drop);
    spawned.map_err(|cause| Failure::thread("bench", cause))
}

/// How long an answer may take: an end fills its memory before the first one and checks it before the last.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// So often the driver looks whether it was interrupted.
const LOOK_PERIOD: Duration = Duration::from_millis(50);
/// News of a death may come a little after the link breaks.
const DEATH_NEWS: Duration = Duration::from_millis(300);
