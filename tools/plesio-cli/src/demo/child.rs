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
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use plesio::{Control, Node, Running, Worker};
use plesio_cpu::Cpu;
use std::io::{self, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

mod events;

pub(crate) use events::requested;

/// The training thread yields to the node's own threads, whatever they were started with: their work is short
/// and others wait for it.
const TRAINING_NICE: i32 = 10;
/// How long the last contributions may take to be committed.
const SETTLE_LIMIT: Duration = Duration::from_secs(6);
const SETTLE_POLL: Duration = Duration::from_millis(5);
/// A node that has fallen this far behind its pace starts anew instead of hurrying.
const PACE_LAG_MAX: Duration = Duration::from_secs(1);

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
        let mut student = Student::new(&base, setup.adapter_seed, setup.work).map_err(model)?;
        student.warm_up().map_err(model)?;
        let node = Node::bind(events::config(setup, elements)?).map_err(node_failure)?;
        let hello = node.hello();
        let found = events::found(node.found());
        say(&Said::Hello { hello: events::hello_out(&hello), pid: std::process::id(), found });
        let orders = Arc::new(Orders::default());
        let begin = listen(told, Arc::clone(&orders))?;
        let running = match begin.recv() {
            Ok(Told::Start { roster }) => {
                let roster = roster.iter().map(events::hello_in).collect::<Result<Vec<_>, _>>()?;
                node.start(&roster)
            }
            Ok(Told::Join { seeds }) => node.join(&seeds),
            _ => return Err(Failure::run("node", "never started", "the launcher gave no roster")),
        };
        let running = running.map_err(node_failure)?;
        *lock(&orders.control) = Some(running.control.clone());
        Ok(Self { setup: setup.clone(), student, running, orders })
    }

    /// Trains until told otherwise; the node's last word goes out before this returns.
    fn run(self) -> Result<Exit, Failure> {
        let Self { setup, mut student, running, orders } = self;
        let Running { mut worker, events, control, thread: node } = running;
        let thread = std::thread::Builder::new().name("events".into());
        let steps = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counted = Arc::clone(&steps);
        let teller = thread
            .spawn(move || events::tell(&events, &counted))
            .map_err(|cause| Failure::run("node", "cannot start a thread", cause))?;
        // Only this thread: the node's own were started before and keep their priority.
        let _refused = rustix::process::nice(TRAINING_NICE);
        let trained = work(&setup, &mut student, &mut worker, &orders, &steps);
        if trained.is_err() {
            control.stop();
        }
        let healthy = teller.join().unwrap_or(false);
        node.join();
        trained?;
        Ok(if healthy { Exit::Ok } else { Exit::Failed })
    }
}

/// The training thread's life. Ends when the node has stopped, for whatever reason.
fn work(
    setup: &Setup,
    student: &mut Student,
    worker: &mut Worker<Cpu>,
    orders: &Orders,
    steps: &std::sync::atomic::AtomicU64,
) -> Result<(), Failure> {
    if worker.attach(student.params_mut()).is_err() {
        return Ok(()); // Stopped before the first state came; the node has said why.
    }
    say(&Said::Attached { version: worker.version().0 });
    let mut pace = Pace::new(setup.duty);
    let mut discarded = 0;
    while !orders.settle.load(Ordering::Relaxed) {
        let loss = student.step().map_err(|error| Failure::run("node", "a training step failed", error))?;
        let count = steps.fetch_add(1, Ordering::Relaxed) + 1;
        let Ok(outcome) = worker.handle_step(student.params_mut()) else { return Ok(()) };
        discarded += outcome.discarded_steps;
        let phase_error_ns = outcome.cut.then_some(outcome.phase_error_ns);
        say(&Said::Step { steps: count, loss, version: worker.version().0, phase_error_ns });
        pace.rest(orders);
    }
    let deadline = Instant::now() + SETTLE_LIMIT;
    let mut settled = false;
    while !settled && Instant::now() < deadline {
        std::thread::sleep(SETTLE_POLL);
        match worker.handle_idle(student.params_mut()) {
            Ok(done) => settled = done,
            Err(plesio::Stopped) => return Ok(()),
        }
    }
    say(&Said::Settled { whole: settled, discarded, version: worker.version().0 });
    // Slots go on coming back while others settle.
    while worker.handle_idle(student.params_mut()).is_ok() {
        std::thread::sleep(SETTLE_POLL);
    }
    Ok(())
}

/// Makes this machine as slow as it is meant to be: a share of one core, by processor time and not by the
/// clock, so that other processes' load is not counted twice.
struct Pace {
    duty: f64,
    due: Instant,
    used: Duration,
}

impl Pace {
    fn new(duty: f64) -> Self {
        Self { duty: duty.clamp(0.01, 1.0), due: Instant::now(), used: thread_time() }
    }

    /// After a step: sleeps until its share of the core is used up.
    fn rest(&mut self, orders: &Orders) {
        let used = thread_time();
        self.due += used.saturating_sub(self.used).div_f64(self.duty);
        self.used = used;
        let now = Instant::now();
        if self.due + PACE_LAG_MAX < now {
            self.due = now;
        }
        while !orders.settle.load(Ordering::Relaxed) {
            let left = self.due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// Processor time of this thread; zero where the kernel does not tell, which makes a pace of no rest.
fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
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
    thread.spawn(hear).map_err(|cause| Failure::run("node", "cannot start a thread", cause))?;
    Ok(begun)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
