//! The sending end and its partner process: starts it, runs against it, notices when it dies.

use super::link::{Link, Order, Received, Run, Said, cpu_ns};
use super::memory::Memory;
use super::ours::{End, handles};
use super::rival::Wire;
use crate::failure::{Exit, Failure};
use plesio_proto::Event;
use plesio_wire::data::MessageId;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// One run, seen from both ends.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) received: Received,
    pub(crate) cpu_ns: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) retransmitted_bytes: u64,
    pub(crate) tier: String,
}

pub(crate) struct Pair {
    child: Child,
    orders: Option<ChildStdin>,
    said: Receiver<Said>,
    gone: Arc<AtomicBool>,
    interrupted: Arc<AtomicBool>,
}

impl Pair {
    /// Starts the partner in this session, so that the scheduler treats both alike.
    pub(crate) fn start(interrupted: Arc<AtomicBool>) -> Result<Self, Failure> {
        let failure = |cause: std::io::Error| Failure::run("bench", "cannot start the other end", cause);
        let mut child = Command::new("/proc/self/exe")
            .arg0("plesio")
            .arg("bench-end")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for this process, which ends the other.
            .process_group(0)
            .spawn()
            .map_err(failure)?;
        let (orders, out) = (child.stdin.take(), child.stdout.take());
        let out = out.ok_or_else(|| failure(std::io::ErrorKind::BrokenPipe.into()))?;
        let (sender, said) = mpsc::channel();
        let gone = Arc::new(AtomicBool::new(false));
        let gone_too = Arc::clone(&gone);
        let hear = move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let Ok(said) = serde_json::from_str(&line) else { break };
                if sender.send(said).is_err() {
                    break;
                }
            }
            gone_too.store(true, Ordering::Release);
        };
        std::thread::Builder::new().name("hear".into()).spawn(hear).map_err(failure)?;
        Ok(Self { child, orders, said, gone, interrupted })
    }

    fn lost() -> Failure {
        let cause = "its process ended before the run did";
        Failure { exit: Exit::Unreachable, ..Failure::run("bench-peer", "the other end is gone", cause) }
            .fix("see what ended it: `dmesg` names a process killed for memory; then run again")
    }

    fn tell(&mut self, order: &Order) -> Result<(), Failure> {
        let line = serde_json::to_string(order).map_err(|_| Self::lost())?;
        let pipe = self.orders.as_mut().ok_or_else(Self::lost)?;
        writeln!(pipe, "{line}").map_err(|_| Self::lost())
    }

    fn hear(&self) -> Result<Said, Failure> {
        match self.said.recv_timeout(ANSWER_LIMIT) {
            Ok(Said::Failed(error)) => Err(Failure::run("bench", "the other end failed", error)),
            Ok(said) => Ok(said),
            Err(_) => Err(Self::lost()),
        }
    }

    /// One run.
    pub(crate) fn run(&mut self, run: &Run) -> Result<Outcome, Failure> {
        let memory = Memory::new(run.bytes, run.working_set_bytes, run.seed)?;
        memory.fill(true)?;
        self.tell(&Order::Open(*run))?;
        let Said::Port(port) = self.hear()? else { return Err(Self::lost()) };
        let sent = match run.link {
            Link::Plesio => self.send_ours(run, &memory, port),
            Link::Tcp | Link::UdpRaw => self.send_rival(run, &memory, port),
        };
        // A link that broke because the other end died is told as that.
        let (sent, mut outcome) = match sent {
            Err(failure) => {
                std::thread::sleep(DEATH_NEWS);
                return Err(if self.gone.load(Ordering::Acquire) { Self::lost() } else { failure });
            }
            Ok(sent) => sent,
        };
        self.tell(&Order::Stop)?;
        let Said::Done(received) = self.hear()? else { return Err(Self::lost()) };
        outcome.received = received;
        outcome.sent_bytes = sent;
        Ok(outcome)
    }

    fn send_ours(&mut self, run: &Run, memory: &Memory, port: u16) -> Result<(u64, Outcome), Failure> {
        let mut end = End::open(run.backend, run.chunk_bytes, run.wait, memory)?;
        self.tell(&Order::Begin(end.port()))?;
        end.meet(port)?;
        let handles = handles(memory);
        let cpu = cpu_ns()?;
        let begin = Instant::now();
        let (mut next, mut open) = (0_u64, 0_u64);
        let length = Duration::from_secs_f64(run.seconds);
        loop {
            let over = begin.elapsed() >= length || self.interrupted.load(Ordering::Acquire);
            if over && open == 0 {
                break;
            }
            while !over && open < 2 * handles {
                let message = MessageId {
                    handle: (next % handles) as u16,
                    sequence: (next / handles + 1) as u16, // wraps, as the protocol has it
                };
                end.send(message, memory.span(next))?;
                next += 1;
                open += 1;
            }
            end.turn()?;
            while let Some(event) = end.poll_event() {
                match event {
                    Event::Delivered { .. } => open -= 1,
                    Event::Gone { .. } | Event::Aborted { .. } => return Err(Self::lost()),
                    _ => {}
                }
            }
            if self.gone.load(Ordering::Acquire) || begin.elapsed() > length + ANSWER_LIMIT {
                return Err(Self::lost());
            }
        }
        let (cpu_ns, stats) = (cpu_ns()?.saturating_sub(cpu), end.stats());
        let retransmitted_bytes = stats.retransmitted_bytes;
        let received = Received::default();
        Ok((
            stats.sent_bytes,
            Outcome { received, cpu_ns, sent_bytes: 0, retransmitted_bytes, tier: end.tier },
        ))
    }

    fn send_rival(&mut self, run: &Run, memory: &Memory, port: u16) -> Result<(u64, Outcome), Failure> {
        let (mut wire, own) = Wire::connect(run, port)?;
        self.tell(&Order::Begin(own))?;
        let cpu = cpu_ns()?;
        let begin = Instant::now();
        let length = Duration::from_secs_f64(run.seconds);
        let stop = || {
            begin.elapsed() >= length
                || self.interrupted.load(Ordering::Acquire)
                || self.gone.load(Ordering::Acquire)
        };
        let sent = wire.stream(run, memory, stop)?;
        let cpu_ns = cpu_ns()?.saturating_sub(cpu);
        let (received, tier) = (Received::default(), "socket".into());
        Ok((sent, Outcome { received, cpu_ns, sent_bytes: 0, retransmitted_bytes: 0, tier }))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.orders = None;
        // Fails only for a process that has already ended.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// How long an answer may take: the receiver checks its whole memory before the last one.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// News of a death may come a little after the link breaks.
const DEATH_NEWS: Duration = Duration::from_millis(100);
