//! Shell. Whole meshes on virtual time: the machines that the nodes run, a seeded network that loses, delays,
//! reorders, copies and damages, hosts that die, stop and drift, and an observer that checks after every event.
//!
//! No clock, no socket, no file: one seed is one story, on one thread, the same on every machine. What the shells
//! of a node do is done by `process`; no protocol decision is made here.
//!
//! ```text
//!   plan (what breaks when) --+
//!                             v
//!   queue --due--> world --> process: Engine + Machine + Store + ring + worker --datagrams--> net --> queue
//!                               |  learnt, applied, settled
//!                               v
//!                            checker: I2 to I6, P1 to P3, liveness
//! ```
#![forbid(unsafe_code)]

mod books;
mod checker;
mod clock;
mod config;
mod fault;
mod host;
pub mod impair;
mod learning;
mod mass;
mod net;
mod phase;
mod plan;
mod process;
mod profile;
mod queue;
mod random;
mod report;
mod script;
mod study;
mod trace;
mod watch;
mod words;
mod worker;
mod world;

pub use config::{ConfigError, Line, SimConfig};
pub use fault::{Fault, FaultSet};
pub use learning::Learning;
pub use mass::Mass;
pub use phase::{Coverage, Phase};
pub use profile::Profile;
pub use report::{SeedReport, SimReport, Timing, Violation};
pub use script::{Reach, Strike};
pub use study::Study;
pub use trace::{Happened, Happening};

use plesio_wire::Digest;
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use world::World;

/// Runs every seed and says what came of them.
///
/// # Errors
/// A configuration outside its ranges.
pub fn run(config: &SimConfig) -> Result<SimReport, ConfigError> {
    run_with(config, |_| ())
}

/// As [`run`]; `on_seed` hears of every seed as it ends, in any order and from any thread.
///
/// # Errors
/// A configuration outside its ranges, or no thread for it.
pub fn run_with(config: &SimConfig, on_seed: impl Fn(&SeedReport) + Sync) -> Result<SimReport, ConfigError> {
    config.check()?;
    let next = AtomicU64::new(config.seeds.start);
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for threads in 0..config.threads {
            let seeds = || {
                let one_more = |seed| (seed < config.seeds.end).then(|| seed + 1);
                while let Ok(seed) = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
                    let report = run_seed(config, seed);
                    on_seed(&report);
                    reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(report);
                }
            };
            let thread = std::thread::Builder::new().name("seeds".into()).stack_size(STACK_BYTES);
            match thread.spawn_scoped(scope, seeds) {
                Ok(_) => {}
                Err(cause) if threads == 0 => return Err(ConfigError::Threads(cause.to_string())),
                // Those there are do all of it.
                Err(_) => break,
            }
        }
        Ok(())
    })?;
    let mut reports = reports.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    reports.sort_by_key(|report: &SeedReport| report.seed);
    Ok(SimReport::of(config.simulated_s, &reports))
}

fn run_seed(config: &SimConfig, seed: u64) -> SeedReport {
    run_caught(config, seed, |world, clock| world.run(config, clock))
}

/// One seed; a machine that panics breaks a promise and not the simulator.
fn run_caught(
    config: &SimConfig,
    seed: u64,
    body: impl FnOnce(World, &AtomicU64) -> SeedReport,
) -> SeedReport {
    let clock = AtomicU64::new(0);
    // Nothing of a world outlives it, so whatever a panic left half done is gone with it.
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| body(World::new(config, seed), &clock)));
    outcome.unwrap_or_else(|panic| SeedReport {
        seed,
        events: 0,
        frames: 0,
        views: 0,
        datagrams: 0,
        faults: BTreeMap::new(),
        coverage: Coverage::default(),
        gap_ns: 0,
        halt_ns: 0,
        mass: Mass::default(),
        seen_ns: Vec::new(),
        lies: 0,
        sideband_bytes_per_s: 0,
        beat_ns: 0,
        timing: Timing::default(),
        shares: Vec::new(),
        periods_ns: Vec::new(),
        unlike_views: 0,
        commit_ns: 0,
        study: None,
        trace_hash: Digest::default(),
        violation: Some(Violation {
            seed,
            nodes: config.nodes,
            faults: config.faults,
            at_ns: clock.load(Ordering::Relaxed),
            what: format!("panic: {}", message(&*panic)),
        }),
        story: Vec::new(),
        happened: Vec::new(),
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

const STACK_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests;
