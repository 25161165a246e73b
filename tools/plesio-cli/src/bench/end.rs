//! The receiving end, in a process of its own: `plesio bench-end`. Orders come on stdin, answers go to stdout.
//!
//! It dies with the bench: the kernel kills it when the bench's thread ends, and a closed stdin ends it.

use super::figures::Worst;
use super::link::{Link, Order, Received, Run, Said, cpu_ns};
use super::memory::Memory;
use super::ours::{End, handles};
use super::rival::Port;
use crate::failure::{Exit, Failure};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use plesio_proto::Event;
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};

static STOP: AtomicBool = AtomicBool::new(false);

/// Serves runs until stdin closes.
pub(crate) fn run_end() -> Result<Exit, Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|cause| Failure::run("bench", "cannot tie this process to the bench", cause))?;
    let (orders, heard) = mpsc::channel();
    let read = move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(Order::Stop) => STOP.store(true, Ordering::Release),
                Ok(order) if orders.send(order).is_ok() => {}
                _ => break,
            }
        }
        std::process::exit(Exit::Ok as i32);
    };
    let thread = std::thread::Builder::new().name("orders".into());
    thread.spawn(read).map_err(|cause| Failure::run("bench", "cannot start a thread", cause))?;
    while let Ok(order) = heard.recv() {
        if let Order::Open(run) = order {
            match serve(&run, &heard) {
                Ok(received) => say(&Said::Done(received)),
                Err(failure) => say(&Said::Failed(format!("{}: {}", failure.what, failure.cause))),
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

fn begin(heard: &Receiver<Order>) -> Result<u16, Failure> {
    match heard.recv() {
        Ok(Order::Begin(port)) => Ok(port),
        _ => Err(Failure::run("bench", "cannot begin", "the other end's port was not told")),
    }
}

fn serve(run: &Run, heard: &Receiver<Order>) -> Result<Received, Failure> {
    STOP.store(false, Ordering::Release);
    let stop = || STOP.load(Ordering::Acquire);
    let memory = Memory::new(run.bytes, run.working_set_bytes, run.seed)?;
    memory.fill(false)?;
    if run.link != Link::Plesio {
        let port = Port::open(run)?;
        say(&Said::Port(port.number()?));
        let mut wire = port.meet(run, begin(heard)?)?;
        let cpu = cpu_ns()?;
        let (received, worst, cpu_end) = wire.take(&memory, stop)?;
        return Ok(received.close(&worst, cpu_end.saturating_sub(cpu)));
    }
    let mut end = End::open(run.backend, run.chunk_bytes, run.wait, &memory)?;
    say(&Said::Port(end.port()));
    end.meet(begin(heard)?)?;
    let handles = handles(&memory);
    // The next message of each handle, counted over all.
    let mut next: Vec<u64> = (0..handles).collect();
    for handle in 0..handles {
        end.post(handle as u16, memory.span(handle))?;
    }
    let mut received = Received::default();
    let mut worst: Option<Worst> = None;
    let cpu = cpu_ns()?;
    while !stop() {
        end.turn()?;
        while let Some(event) = end.poll_event() {
            let Event::Received { message, span } = event else { continue };
            received.wrong_bytes += memory.wrong_at_ends(span)?;
            received.messages += 1;
            received.bytes += u64::from(span.len_bytes);
            worst.get_or_insert_with(Worst::new).add(u64::from(span.len_bytes));
            let index = &mut next[usize::from(message.handle) % handles as usize];
            *index += handles;
            end.post(message.handle, memory.span(*index))?;
        }
    }
    let cpu = cpu_ns()?.saturating_sub(cpu);
    for slot in 0..received.messages.min(memory.slots) {
        received.wrong_bytes += memory.wrong(memory.span(slot))?;
    }
    Ok(received.close(&worst.unwrap_or_else(Worst::new), cpu))
}
