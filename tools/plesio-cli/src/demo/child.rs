//! One node of a demo, in a process of its own: `plesio demo-node`, started by the launcher alone.
//!
//! ```text
//!  stdin thread    orders of the launcher; the end of stdin is the end of the process
//!  event thread    what the node reports, as lines on stdout
//!  this thread     trains, below the node's own threads in priority
//! ```
//!
//! The process dies with the launcher: the kernel kills it when the launcher's thread ends, and a closed
//! stdin ends it where that was too early to be asked for.

use super::data;
use super::protocol::{self, Said, Setup, Told};
use super::train::{self, Student};
use crate::failure::{Exit, Failure};
use crate::work;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use plesio::{Control, Node, NodeConfig, Running};
use std::io::{self, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};

mod events;

pub(crate) use events::requested;

/// What the stdin thread leaves for the others.
#[derive(Default)]
struct Orders {
    settle: AtomicBool,
    control: Mutex<Option<Control>>,
}

/// Runs a node until it is told to stop.
pub(crate) fn run_node() -> Result<Exit, Failure> {
    // Before anything is opened: from here on this process cannot outlive the launcher.
    let watch = |cause: nix::Error| Failure::run("node", "cannot tie this process to the launcher", cause);
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(watch)?;
    let mut told = BufReader::new(io::stdin());
    let first = protocol::read_message(&mut told);
    let Ok(Some(Told::Setup(setup))) = first else {
        return Err(Failure::usage(
            "node",
            "cannot run a node by hand",
            "its setup comes on stdin from the demo",
        )
        .fix("run `plesio demo`"));
    };
    if nix::unistd::getppid().as_raw() as u32 != setup.launcher_pid {
        return Ok(Exit::Failed); // The launcher died before the first line.
    }
    let outcome = Child::open(&setup, told).and_then(Child::run);
    if let Err(failure) = &outcome {
        say(&Said::Failed { error: format!("{}: {}", failure.what, failure.cause) });
    }
    outcome
}

/// One line on stdout. A launcher that is gone needs none.
fn say(said: &Said) {
    let _gone = protocol::write_message(&mut io::stdout().lock(), said, b"");
}

struct Child {
    setup: Setup,
    student: Student,
    running: Running,
    orders: Arc<Orders>,
}

impl Child {
    /// Loads the model, opens the node, says hello, and starts as it is told.
    fn open(setup: &Setup, told: impl io::BufRead + Send + 'static) -> Result<Self, Failure> {
        let model = |error| Failure::run("node", "cannot load the model", error);
        let node_failure = |error| Failure::run("node", format!("node {} cannot open", setup.name), error);
        let base = data::base().map_err(model)?;
        let elements = train::elements(&base, setup.adapter_seed).map_err(model)?;
        let text = data::split(setup.work).train;
        let device = crate::device::open(setup.device.0, setup.kernels_dir.as_deref())?;
        let mut student =
            Student::new(device.device, &base, setup.adapter_seed, text, setup.work.sampler_seed)
                .map_err(model)?;
        student.warm_up().map_err(model)?;
        let node =
            Node::bind(NodeConfig { device, ..events::config(setup, elements)? }).map_err(node_failure)?;
        let hello = node.hello();
        let found = events::found(node.found());
        let plesio::Listens { data, sideband } = node.listens();
        let listens = protocol::Addresses { data, sideband };
        say(&Said::Hello { hello: events::hello_out(&hello), listens, pid: std::process::id(), found });
        let orders = Arc::new(Orders::default());
        let begin = listen(told, Arc::clone(&orders))?;
        let running = match begin.recv() {
            Ok(Told::Start { roster }) => {
                let roster = roster.iter().map(events::hello_in).collect::<Result<Vec<_>, _>>()?;
                node.start(&roster)
            }
            Ok(Told::Join { seeds }) => {
                let seeds = seeds.iter().map(|seed| events::hello_in(seed).map(|hello| hello.seed()));
                node.join(&seeds.collect::<Result<Vec<_>, _>>()?)
            }
            _ => return Err(Failure::run("node", "never started", "the launcher gave no roster")),
        };
        let running = running.map_err(node_failure)?;
        *lock(&orders.control) = Some(running.control.clone());
        Ok(Self { setup: setup.clone(), student, running, orders })
    }

    /// Trains until told otherwise; the node's last word goes out before this returns.
    fn run(self) -> Result<Exit, Failure> {
        let Self { setup, mut student, running, orders } = self;
        let node_name = events::name(&setup)?;
        let Running { mut worker, events, control, thread: node } = running;
        let thread = std::thread::Builder::new().name("events".into());
        let steps = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counted = Arc::clone(&steps);
        let traced = setup.trace.then_some(node_name);
        let teller = thread
            .spawn(move || events::tell(&events, &counted, traced.as_deref()))
            .map_err(|cause| Failure::thread("node", cause))?;
        let tell = |told| match told {
            work::Told::Attached { version } => say(&Said::Attached { version }),
            work::Told::Step { steps: done, loss, version, phase_error_ns } => {
                steps.store(done, Ordering::Relaxed);
                say(&Said::Step { steps: done, loss, version, phase_error_ns });
            }
            work::Told::Settled { whole, discarded, version, slots_out } => {
                say(&Said::Settled { whole, discarded, version, slots_out });
            }
        };
        let trained = work::work(&mut student, &mut worker, setup.duty, &orders.settle, tell);
        if trained.is_err() {
            control.stop();
        }
        let healthy = teller.join().unwrap_or(false);
        node.join();
        trained?;
        Ok(if healthy { Exit::Ok } else { Exit::Failed })
    }
}

/// Hears the launcher. The first order to begin comes through the channel; the end of stdin is the end.
fn listen(
    mut told: impl io::BufRead + Send + 'static,
    orders: Arc<Orders>,
) -> Result<Receiver<Told>, Failure> {
    let (begin, begun) = mpsc::channel();
    let hear = move || {
        while let Ok(Some(order)) = protocol::read_message::<Told>(&mut told) {
            match order {
                Told::Settle => orders.settle.store(true, Ordering::Relaxed),
                Told::Stop => {
                    orders.settle.store(true, Ordering::Relaxed);
                    match lock(&orders.control).as_ref() {
                        Some(control) => control.finish(),
                        None => break,
                    }
                }
                order => {
                    let _begun = begin.send(order);
                }
            }
        }
        std::process::exit(Exit::Ok as i32);
    };
    let thread = std::thread::Builder::new().name("orders".into());
    thread.spawn(hear).map_err(|cause| Failure::thread("node", cause))?;
    Ok(begun)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
