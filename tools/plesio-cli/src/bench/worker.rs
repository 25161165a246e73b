//! One end of every link, in a process of its own: `plesio bench-end`. Orders come on stdin, answers go to stdout.
//!
//! ```text
//!  orders ──▶ main: one run at a time ──▶ a thread per flow: opens, meets, moves, ends; checks after the clock
//! ```
//!
//! It dies with the bench: the kernel kills it when the thread that started it ends, and a closed stdin ends it.

use super::figures::Stretches;
use super::link::{Address, FlowHalf, Half, Link, Order, Role, Run, Said, What, cpu_ns};
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

/// Serves runs until stdin closes, on one core if that is said.
pub(crate) fn run_end(pin: Option<u16>) -> Result<Exit, Failure> {
    let heard = hear_orders()?;
    let notes = group::enter(pin);
    while let Ok(order) = heard.recv() {
        if let Order::Open(run, role, pool) = order {
            match serve(&run, role, &pool, &heard) {
                Ok(mut half) => {
                    half.notes.extend(notes.iter().cloned());
                    say(&Said::Done(Box::new(half)));
                }
                Err(failure) => say(&Said::Failed(failure.into())),
            }
        }
    }
    Ok(Exit::Ok)
}

/// What comes on stdin, from here on. The process dies with who started it.
pub(crate) fn hear_orders() -> Result<Receiver<Order>, Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|cause| Failure::run("bench", "cannot tie this process to the bench", cause))?;
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
    thread.spawn(read).map_err(|cause| Failure::thread("bench", cause))?;
    Ok(heard)
}

pub(crate) fn say(said: &Said) {
    if let Ok(line) = serde_json::to_string(said) {
        let mut out = std::io::stdout().lock();
        let _gone = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// Memory of this process, with its share of what it maps with others; 0 where the kernel does not say.
pub(crate) fn proportional_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(0, |kib| kib.saturating_mul(1024))
}

/// What a flow's thread tells the main thread.
enum Step {
    Opened(usize, Vec<(u16, String)>),
    Ready,
    Sent,
    /// The clock of this flow has stopped; its memory is not checked yet.
    Ended,
    Failed(Failure),
}

/// What a thread that serves one flow or several sees of the run it is part of.
pub(crate) struct Steps {
    role: Role,
    /// Its first flow.
    index: usize,
    tell: Sender<Step>,
    address: Receiver<(Address, Instant)>,
    begin: std::cell::Cell<Instant>,
}

impl Steps {
    /// Says where this flow is, and waits for where the other end is.
    pub(crate) fn meet(&self, port: u16, word: String) -> Result<(SocketAddr, String), Failure> {
        self.meet_all(vec![(port, word)])?.pop().ok_or_else(ended)
    }

    /// The same for all flows of this thread.
    pub(crate) fn meet_all(&self, own: Vec<(u16, String)>) -> Result<Vec<(SocketAddr, String)>, Failure> {
        let flows = self.index..self.index + own.len();
        let _gone = self.tell.send(Step::Opened(self.index, own));
        let (address, begin) = self.address.recv().map_err(|_| ended())?;
        self.begin.set(begin);
        let other = |flow: usize| {
            let port = address.ports.get(flow).copied().unwrap_or(0);
            (SocketAddr::new(address.ip, port), address.words.get(flow).cloned().unwrap_or_default())
        };
        Ok(flows.map(other).collect())
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

    pub(crate) const fn role(&self) -> Role {
        self.role
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
    run.check()?;
    let per_thread = run.flows_per_thread(role);
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let (mut addresses, mut checks, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for index in (0..usize::from(run.flows)).step_by(per_thread) {
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
                Failure::thread("bench", cause)
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
                        total.flows.extend(half.flows);
                        total.wrong_bytes += half.wrong_bytes;
                        total.chunk_bytes = total.chunk_bytes.max(half.chunk_bytes);
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
    let (threads, flows) = (addresses.len(), usize::from(run.flows));
    let mut own = Address { ip: run.bind, ports: vec![0; flows], words: vec![String::new(); flows] };
    let (mut opened, mut ready, mut sent, mut done) = (0, 0, 0, 0);
    let mut cpu = 0;
    while done < threads {
        match told.recv().map_err(|_| ended())? {
            Step::Opened(first, flows) => {
                for (index, (port, word)) in (first..).zip(flows) {
                    own.ports[index] = port;
                    own.words[index] = word;
                }
                opened += 1;
                if opened == threads {
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
                if ready == threads {
                    say(&Said::Ready);
                }
            }
            Step::Sent => {
                sent += 1;
                if sent == threads && run.sends(role) {
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
    /// One for each flow.
    memory: Vec<(Memory, Check)>,
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
        for (memory, what) in &self.memory {
            match *what {
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

/// The flows of one thread in one run, up to the stop of its clock.
fn flow(run: &Run, role: Role, pool: &str, steps: &Steps) -> Result<Taken, Failure> {
    let (sends, takes) = (run.sends(role), run.takes(role));
    let directions = usize::from(sends) + usize::from(takes);
    let count = run.flows_per_thread(role);
    // Together the flows and directions of one end walk one working set.
    let share = run.working_set_bytes / u32::from(run.flows) / directions.max(1) as u32;
    let mut sets = Memory::sets(count * directions, run.bytes, share, run.seed)?.into_iter();
    let mut memory = Vec::new();
    for _ in 0..count {
        let out = if sends { sets.next() } else { None };
        let into = if takes { sets.next() } else { None };
        out.as_ref().map_or(Ok(()), |out| out.fill(true))?;
        into.as_ref().map_or(Ok(()), |into| into.fill(false))?;
        memory.push([out, into]);
    }
    let pairs: Vec<_> = memory.iter().map(|[out, into]| [out.as_ref(), into.as_ref()]).collect();
    let pair = *pairs.first().ok_or_else(ended)?;
    let (mut half, stretches) = match run.link {
        Link::Plesio => {
            let any = pair.into_iter().flatten().next().ok_or_else(ended)?;
            let mut end = ours::End::open(run, pool, any, count)?;
            let others = steps.meet_all(end.addresses())?;
            ours::run(&mut end, run, &pairs, &others, steps)?
        }
        Link::Tcp | Link::UdpRaw => rival::run(run, pair, steps)?,
        Link::Quinn => quinn::run(run, pair, steps)?,
    };
    if run.link != Link::Plesio {
        let (received_bytes, messages) = (half.received_bytes, half.messages);
        half.flows = vec![FlowHalf { received_bytes, messages, ..FlowHalf::default() }];
    }
    let check = |flow: &FlowHalf| match (run.what, run.link) {
        (What::Pingpong, _) | (_, Link::UdpRaw) => Check::Nothing,
        (_, Link::Plesio) => Check::Slots(flow.messages),
        (_, Link::Tcp | Link::Quinn) => Check::Bytes(flow.received_bytes),
    };
    let checks = half.flows.iter().map(check);
    let memory = memory.into_iter().zip(checks).filter_map(|([_, into], check)| Some((into?, check)));
    let memory = memory.collect();
    Ok(Taken { half, stretches, memory })
}
