//! A training thread's life in a mesh: takes the first state, steps and contributes until told otherwise, brings in
//! what is still its own, and goes on taking states until the node ends.
//!
//! Knows no launcher and no command; whoever runs it hears what happens.

use crate::demo::train::Student;
use crate::failure::Failure;
use nix::time::{ClockId, clock_gettime};
use plesio::{AnyDevice, Worker};
use plesio_model::ModelError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The training thread yields to the node's own threads, whatever they were started with: their work is short
/// and others wait for it.
const TRAINING_NICE: i32 = 10;
/// After so many steps in a row that are not finite a node is of no use to the others.
const DISCARDS_MAX: u32 = 8;
/// How long the last contributions may take to be committed.
const SETTLE_LIMIT: Duration = Duration::from_secs(6);
/// A halted node that is told to end does so as soon.
const HALT_POLL: Duration = Duration::from_millis(100);
const SETTLE_POLL: Duration = Duration::from_millis(5);
/// A node that has fallen this far behind its pace starts anew instead of hurrying.
const PACE_LAG_MAX: Duration = Duration::from_secs(1);

/// What the training thread tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Told {
    /// The first state is there: training begins.
    Attached { version: u64 },
    /// One local step is done; `steps` counts from one. A step that ends in a cut has a phase error.
    Step { steps: u64, loss: f32, version: u64, phase_error_ns: Option<i64> },
    /// Everything is brought in, or the time for it is over.
    Settled { whole: bool, discarded: u32, version: u64, slots_out: u8 },
}

/// Trains on a share `duty` of one core until `settle` is set. Ends when the node has stopped, for whatever reason.
pub(crate) fn work(
    student: &mut Student,
    worker: &mut Worker<AnyDevice>,
    duty: f64,
    settle: &AtomicBool,
    tell: impl Fn(Told),
) -> Result<(), Failure> {
    // Only this thread: the node's own were started before and keep their priority.
    let _refused = rustix::process::nice(TRAINING_NICE);
    if worker.attach(student.params_mut()).is_err() {
        return Ok(()); // Stopped before the first state came; the node has said why.
    }
    tell(Told::Attached { version: worker.version().0 });
    let mut pace = Pace::new(duty);
    let (mut steps, mut discarded) = (0, 0);
    while !settle.load(Ordering::Relaxed) {
        match worker.await_resume(HALT_POLL) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(plesio::Stopped) => return Ok(()),
        }
        let (loss, outcome) = match student.step() {
            Ok(loss) => (loss, worker.handle_step(student.params_mut())),
            // Thrown away, and on from the last good point.
            Err(ModelError::NonFinite { .. }) => {
                student.reset_optimiser();
                (f32::NAN, worker.discard(student.params_mut()))
            }
            Err(error) => return Err(Failure::run("node", "a training step failed", error)),
        };
        steps += 1;
        let Ok(outcome) = outcome else { return Ok(()) };
        discarded += outcome.discarded_steps;
        if outcome.discards_in_row >= DISCARDS_MAX {
            let cause = format!("{DISCARDS_MAX} steps in a row came to nothing that is finite");
            return Err(Failure::run("training", "this node leaves the mesh", cause)
                .fix("look at its text and at this machine's memory, then start it anew"));
        }
        let phase_error_ns = outcome.cut.then_some(outcome.phase_error_ns);
        tell(Told::Step { steps, loss, version: worker.version().0, phase_error_ns });
        pace.rest(settle);
    }
    let deadline = Instant::now() + SETTLE_LIMIT;
    let mut whole = false;
    while !whole && !worker.is_halted() && Instant::now() < deadline {
        std::thread::sleep(SETTLE_POLL);
        match worker.handle_idle(student.params_mut()) {
            Ok(done) => whole = done,
            Err(plesio::Stopped) => return Ok(()),
        }
    }
    tell(Told::Settled { whole, discarded, version: worker.version().0, slots_out: worker.slots_out() });
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
    fn rest(&mut self, settle: &AtomicBool) {
        let used = thread_time();
        self.due += used.saturating_sub(self.used).div_f64(self.duty);
        self.used = used;
        let now = Instant::now();
        if self.due + PACE_LAG_MAX < now {
            self.due = now;
        }
        while !settle.load(Ordering::Relaxed) {
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
