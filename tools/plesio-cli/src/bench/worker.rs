//! One end of every link, in a process of its own: `plesio bench-end`. Orders come on stdin, answers go to stdout.
//!
//! ```text
//!  orders ──▶ main: one run at a time ──▶ a thread per flow: opens, meets, moves, ends; checks after the clock
//! ```
//!
//! It dies with the bench: the kernel kills it when the thread that started it ends, and a closed stdin ends it.

use super::figures::Stretches;
use super::link::{Address, Half, Link, Order, Role, Run, Said, What, cpu_ns};
use super::memory::Memory;
use super::{group, ours, quinn, rival};
use crate::failure::{Exit, Failure};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use plesio_wire::Span;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

static OVER: AtomicBool = AtomicBool::new(false);
static STOP: AtomicBool = AtomicBool::new(false);

/// Serves runs until stdin closes.
pub(crate) fn run_end() -> Result<Exit, Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|cause| Failure::run("bench", "cannot tie this process to the bench", cause))?;
    let note = group::enter();
    let (orders, heard) = mpsc::channel();
    let read = move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(Order::Over) => OVER.store(true, Ordering::Release),
                Ok(Order::Stop) => STOP.store(true, Ordering::Release),
                Ok(order) => {
                    if orders.send(order).is_err() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        std::process::exit(Exit::Ok as i32);
    };
    let thread = std::thread::Builder::new().name("orders".into());
    thread.spawn(read).map_err(|cause| Failure::run("bench", "cannot start a thread", cause))?;
    while let Ok(order) = heard.recv() {
        if let Order::Open(run, role, pool) = order {
            match serve(&run, role, &pool, &heard) {
                Ok(mut half) => {
                    half.notes.extend(note.clone());
                    say(&Said::Done(Box::new(half)));
                }
                Err(failure) => say(&Said::Failed(failure.into())),
            }
        }
    }
    Ok(Exit::Ok)
}

fn say(said: &Said) {
    if let Ok(line) = serde_json::to_string(said) {
        let mut out = std::io::stdout().lock();
        let _gone = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// What a flow's thread tells the main thread.
enum Step {
    Opened(usize, u16, String),
    Ready,
    Sent,
    /// The clock of this flow has stopped; its memory is not checked yet.
    Ended,
    Failed(Failure),
}

/// A flow's view of the run it is part of.
pub(crate) struct Steps {
    role: Role,
    index: usize,
    tell: Sender<Step>,
    address: Receiver<(Address, Instant)>,
    begin: std::cell::Cell<Instant>,
}

impl Steps {
    /// Says where this flow is, and waits for where the other end is.
    pub(crate) fn meet(&self, port: u16, word: String) -> Result<(SocketAddr, String), Failure> {
        let _gone = self.tell.send(Step::Opened(self.index, port, word));
        let (address, begin) = self.address.recv().map_err(|_| ended())?;
        self.begin.set(begin);
        let port = address.ports.get(self.index).copied().unwrap_or(0);
        let word = address.words.get(self.index).cloned().unwrap_or_default();
        Ok((SocketAddr::new(address.ip, port), word))
    }

    pub(crate) fn ready(&self) {
        let _gone = self.tell.send(Step::Ready);
    }

    /// All is sent that will be.
    pub(crate) fn sent(&self) {
        let _gone = self.tell.send(Step::Sent);
    }

    /// When both ends knew each other.
    pub(crate) fn begin(&self) -> Instant {
        self.begin.get()
    }

    pub(crate) const fn begins(&self) -> bool {
        matches!(self.role, Role::Begin)
    }

    pub(crate) fn over(&self) -> bool {
        OVER.load(Ordering::Acquire)
    }

    pub(crate) fn stop(&self) -> bool {
        STOP.load(Ordering::Acquire)
    }
}

fn ended() -> Failure {
    Failure::run("bench", "cannot begin", "the other end was not told")
}

/// One run: all flows of this end.
fn serve(run: &Run, role: Role, pool: &str, heard: &Receiver<Order>) -> Result<Half, Failure> {
    OVER.store(false, Ordering::Release);
    STOP.store(false, Ordering::Release);
    run.check().map_err(|cause| Failure::usage("bench", "cannot run this", cause))?;
    let flows = usize::from(run.flows);
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let (mut addresses, mut checks, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..flows {
            let (address, hear_address) = mpsc::channel();
            let (check, hear_check) = mpsc::channel::<()>();
            addresses.push(address);
            checks.push(check);
            let begin = std::cell::Cell::new(Instant::now());
            let steps = Steps { role, index, tell: tell.clone(), address: hear_address, begin };
            let flow = move || {
                let taken = flow(run, role, pool, &steps);
                match taken {
                    Ok(taken) => {
                        let _gone = steps.tell.send(Step::Ended);
                        // The check of the bytes is not the link's work: the clock is read before it.
                        let _now = hear_check.recv();
                        taken.check()
                    }
                    Err(failure) => {
                        STOP.store(true, Ordering::Release);
                        let _gone = steps.tell.send(Step::Failed(failure.clone()));
                        Err(failure)
                    }
                }
            };
            let thread = std::thread::Builder::new().name(format!("flow-{index}"));
            let spawned = thread.spawn_scoped(scope, flow);
            threads.push(spawned.map_err(|cause| {
                STOP.store(true, Ordering::Release);
                Failure::run("bench", "cannot start a thread", cause)
            })?);
        }
        drop(tell);
        let cpu = drive(run, role, heard, &told, &addresses);
        // Whoever still waits for an address or the check goes on, and ends.
        drop((addresses, checks));
        let mut sum: Option<(Half, Stretches)> = None;
        let mut failed = None;
        for thread in threads {
            match thread.join() {
                Ok(Ok((half, stretches))) => match &mut sum {
                    Some((total, all)) => {
                        total.sent_bytes += half.sent_bytes;
                        total.retransmitted_bytes += half.retransmitted_bytes;
                        total.received_bytes += half.received_bytes;
                        total.messages += half.messages;
                        total.wrong_bytes += half.wrong_bytes;
                        all.merge(&stretches);
                    }
                    None => sum = Some((half, stretches)),
                },
                Ok(Err(failure)) => failed = failed.or(Some(failure)),
                Err(_) => {
                    failed = failed.or(Some(Failure::run("bench", "a flow broke", "its thread panicked")));
                }
            }
        }
        let cpu_ns = cpu?;
        if let Some(failure) = failed {
            return Err(failure);
        }
        let (mut half, stretches) = sum.ok_or_else(ended)?;
        half.cpu_ns = cpu_ns;
        half.close(stretches);
        Ok(half)
    })
}

/// Leads the flows through a run; the CPU time that moving the bytes took.
fn drive(
    run: &Run,
    role: Role,
    heard: &Receiver<Order>,
    told: &Receiver<Step>,
    addresses: &[Sender<(Address, Instant)>],
) -> Result<u64, Failure> {
    let flows = addresses.len();
    let mut own = Address { ip: run.bind, ports: vec![0; flows], words: vec![String::new(); flows] };
    let (mut opened, mut ready, mut sent, mut done) = (0, 0, 0, 0);
    let mut cpu = 0;
    while done < flows {
        match told.recv().map_err(|_| ended())? {
            Step::Opened(index, port, word) => {
                own.ports[index] = port;
                own.words[index] = word;
                opened += 1;
                if opened == flows {
                    say(&Said::Open(own.clone()));
                    let Ok(Order::Meet(address)) = heard.recv() else { return Err(ended()) };
                    cpu = cpu_ns()?;
                    let begin = Instant::now();
                    for flow in addresses {
                        let _gone = flow.send((address.clone(), begin));
                    }
                }
            }
            Step::Ready => {
                ready += 1;
                if ready == flows {
                    say(&Said::Ready);
                }
            }
            Step::Sent => {
                sent += 1;
                if sent == flows && run.sends(role) {
                    say(&Said::Sent);
                }
            }
            Step::Ended => done += 1,
            Step::Failed(failure) => return Err(failure),
        }
    }
    Ok(cpu_ns()?.saturating_sub(cpu))
}

/// A flow's figures, and what of its memory is still to be compared.
pub(crate) struct Taken {
    pub(crate) half: Half,
    pub(crate) stretches: Stretches,
    memory: Option<Memory>,
    what: Check,
}

/// How the working set was filled.
pub(crate) enum Check {
    /// Slot by slot, so many of them.
    Slots(u64),
    /// From its start on.
    Bytes(u64),
    /// By nothing that could be compared, or it was compared already.
    Nothing,
}

impl Taken {
    fn check(mut self) -> Result<(Half, Stretches), Failure> {
        if let Some(memory) = &self.memory {
            match self.what {
                Check::Slots(slots) => {
                    for slot in 0..slots.min(memory.slots) {
                        self.half.wrong_bytes += memory.wrong(memory.span(slot))?;
                    }
                }
                Check::Bytes(bytes) => {
                    let len_bytes = bytes.min(memory.region_bytes as u64) as u32;
                    self.half.wrong_bytes += memory.wrong(Span { len_bytes, ..memory.whole() })?;
                }
                Check::Nothing => {}
            }
        }
        Ok((self.half, self.stretches))
    }
}

/// One flow of one run, up to the stop of its clock.
fn flow(run: &Run, role: Role, pool: &str, steps: &Steps) -> Result<Taken, Failure> {
    let (sends, takes) = (run.sends(role), run.takes(role));
    let sets = usize::from(sends) + usize::from(takes);
    // Together the flows and directions of one end walk one working set.
    let share = run.working_set_bytes / u32::from(run.flows) / sets.max(1) as u32;
    let mut sets = Memory::sets(sets, run.bytes, share, run.seed)?;
    let into = if takes { sets.pop() } else { None };
    let out = sets.pop();
    out.as_ref().map_or(Ok(()), |out| out.fill(true))?;
    into.as_ref().map_or(Ok(()), |into| into.fill(false))?;
    let pair = [out.as_ref(), into.as_ref()];
    let (half, stretches) = match run.link {
        Link::Plesio => {
            let any = pair.into_iter().flatten().next().ok_or_else(ended)?;
            let mut end = ours::End::open(run, pool, any)?;
            let (address, word) = steps.meet(end.port(), end.word())?;
            ours::run(&mut end, run, pair, (address, &word), steps)?
        }
        Link::Tcp | Link::UdpRaw => rival::run(run, pair, steps)?,
        Link::Quinn => quinn::run(run, pair, steps)?,
    };
    let what = match (run.what, run.link) {
        (What::Pingpong, _) | (_, Link::UdpRaw) => Check::Nothing,
        (_, Link::Plesio) => Check::Slots(half.messages),
        (_, Link::Tcp | Link::Quinn) => Check::Bytes(half.received_bytes),
    };
    Ok(Taken { half, stretches, memory: into, what })
}
