//! Many inputs through one target, on all cores, every one of them a function of the seed.
//!
//! A panic is a finding, and so is an input that takes far longer than any may. Inputs are numbered by the world
//! that takes them, so that a finding is made again from (seed, world) and nothing needs to be kept meanwhile.

use super::Target;
use super::mutate::{Seeded, fill};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// An input that takes longer hangs; thousands of times what the slowest takes, so that load is not taken for it.
const HANG: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Inputs in all.
    pub runs: u64,
    /// Where they come from.
    pub seed: u64,
    /// First world.
    pub first: u64,
    /// Threads.
    pub threads: u64,
}

/// Inputs of one world, the last of which showed a fault.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Which world.
    pub world: u64,
    /// What happened.
    pub what: String,
    /// Everything it took, in order.
    pub inputs: Vec<Vec<u8>>,
}

/// The inputs of the world `world`.
#[must_use]
pub fn inputs(target: &Target, corpus: &[Vec<u8>], seed: u64, world: u64) -> Vec<Vec<u8>> {
    let mut random = random(seed, world);
    let next = |_| {
        let mut input = Vec::new();
        fill(&mut input, corpus, target.bytes_max, &mut random);
        input
    };
    (0..target.life).map(next).collect()
}

fn random(seed: u64, world: u64) -> Seeded {
    Seeded(Seeded(seed ^ Seeded(world).draw()).draw())
}

/// Runs `plan`; how many inputs were taken.
///
/// # Errors
/// The first finding.
pub fn run(target: &Target, corpus: &[Vec<u8>], plan: Plan) -> Result<u64, Finding> {
    assert!(!corpus.is_empty(), "{}: nothing to make inputs from", target.name);
    let worlds = plan.runs.div_ceil(target.life);
    let next = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let lanes: Vec<Lane> = (0..plan.threads.max(1)).map(|_| Lane::default()).collect();
    let mut found = std::thread::scope(|scope| {
        let work = |lane| {
            let (next, over) = (&next, &over);
            move || {
                let found = work(target, corpus, plan, lane, || {
                    let world = next.fetch_add(1, Ordering::Relaxed);
                    (world < worlds && !over.load(Ordering::Relaxed)).then_some(plan.first + world)
                });
                over.fetch_or(found.is_some(), Ordering::Relaxed);
                found
            }
        };
        let threads: Vec<_> = lanes.iter().map(|lane| scope.spawn(work(lane))).collect();
        watch(target, corpus, plan, &lanes, || {
            threads.iter().all(std::thread::ScopedJoinHandle::is_finished)
        });
        let join = |thread: std::thread::ScopedJoinHandle<'_, Option<Finding>>| {
            thread.join().expect("panics of a target are caught")
        };
        threads.into_iter().filter_map(join).collect::<Vec<Finding>>()
    });
    found.sort_by_key(|finding| finding.world);
    match found.into_iter().next() {
        Some(finding) => Err(finding),
        None => Ok(worlds * target.life),
    }
}

/// What the watch sees of a thread.
#[derive(Debug, Default)]
struct Lane {
    /// Inputs begun.
    begun: AtomicU64,
    /// World of the newest.
    world: AtomicU64,
}

fn work(
    target: &Target,
    corpus: &[Vec<u8>],
    plan: Plan,
    lane: &Lane,
    mut next: impl FnMut() -> Option<u64>,
) -> Option<Finding> {
    let mut input = Vec::with_capacity(target.bytes_max);
    while let Some(world) = next() {
        lane.world.store(world, Ordering::Relaxed);
        let mut taken = 0;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut take = (target.begin)();
            let mut random = random(plan.seed, world);
            for _ in 0..target.life {
                lane.begun.fetch_add(1, Ordering::Relaxed);
                fill(&mut input, corpus, target.bytes_max, &mut random);
                taken += 1;
                take(&input);
            }
        }));
        if let Err(panic) = outcome {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let what = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned();
            let mut inputs = inputs(target, corpus, plan.seed, world);
            inputs.truncate(taken);
            return Some(Finding { world, what, inputs });
        }
    }
    None
}

/// Waits for the threads, and ends the process when one hangs: it cannot be ended in any other way.
fn watch(target: &Target, corpus: &[Vec<u8>], plan: Plan, lanes: &[Lane], over: impl Fn() -> bool) {
    let mut seen: Vec<(u64, Instant)> = lanes.iter().map(|_| (0, Instant::now())).collect();
    while !over() {
        std::thread::sleep(LOOK);
        for (lane, (begun, since)) in lanes.iter().zip(&mut seen) {
            let now = lane.begun.load(Ordering::Relaxed);
            if now != *begun {
                (*begun, *since) = (now, Instant::now());
            } else if since.elapsed() > HANG && !over() {
                let world = lane.world.load(Ordering::Relaxed);
                let inputs = inputs(target, corpus, plan.seed, world);
                let what = format!("one of its inputs takes more than {HANG:?}");
                eprintln!("{}", tell(target, plan.seed, &Finding { world, what, inputs }));
                std::process::exit(1);
            }
        }
    }
}

/// What a person needs to see a finding again.
#[must_use]
pub fn tell(target: &Target, seed: u64, finding: &Finding) -> String {
    let last: Option<String> =
        finding.inputs.last().map(|input| input.iter().map(|byte| format!("{byte:02x}")).collect());
    format!(
        "fuzz {name}: {what}\n  again: cargo xtask fuzz --target {name} --seed {seed} --first {world} --runs {runs}\n  \
         last input: {last}",
        name = target.name,
        what = finding.what,
        world = finding.world,
        runs = target.life,
        last = last.unwrap_or_default(),
    )
}

/// A file of the corpus: the input itself, or each input with its length before it where a world takes many.
#[must_use]
pub fn to_file(target: &Target, inputs: &[Vec<u8>]) -> Vec<u8> {
    if target.life == 1 {
        return inputs.concat();
    }
    let with_length = |input: &Vec<u8>| [&(input.len() as u16).to_le_bytes()[..], input].concat();
    inputs.iter().flat_map(with_length).collect()
}

/// The inputs of a file of the corpus.
#[must_use]
pub fn from_file(target: &Target, bytes: &[u8]) -> Vec<Vec<u8>> {
    if target.life == 1 {
        return vec![bytes.to_vec()];
    }
    let mut script = super::Script::new(bytes);
    let mut inputs = Vec::new();
    while !script.is_over() {
        let len_bytes = usize::from(script.short());
        inputs.push(script.take(len_bytes).to_vec());
    }
    inputs
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: u64 = 4;
    /// Finds fault with an input that begins with 7, the third or later in its world.
    const PICKY: Target = Target {
        name: "picky",
        begin: || {
            let mut count = 0;
            Box::new(move |input: &[u8]| {
                count += 1;
                assert!(count < 3 || input.first() != Some(&7), "seven");
            })
        },
        life: LIFE,
        seeds: || vec![vec![6, 1, 2], vec![5]],
        bytes_max: 16,
        allocates: false,
    };

    #[test]
    fn a_fault_is_found_and_found_again_from_its_seed() {
        let corpus = (PICKY.seeds)();
        let plan = Plan { runs: 20_000, seed: 1, first: 0, threads: 2 };
        let found = run(&PICKY, &corpus, plan).expect_err("an input will begin with 7");
        assert!(found.inputs.len() >= 3 && found.inputs.last().is_some_and(|input| input[0] == 7));
        let alone = Plan { runs: 1, first: found.world, threads: 1, ..plan };
        assert_eq!(run(&PICKY, &corpus, alone), Err(found.clone()));
        let file = to_file(&PICKY, &found.inputs);
        assert_eq!(from_file(&PICKY, &file), found.inputs);
        assert!(tell(&PICKY, 1, &found).contains(&format!("--first {}", found.world)));
    }

    #[test]
    fn a_sound_target_takes_all_that_was_asked_for() {
        let sound = Target { begin: || Box::new(|_: &[u8]| {}), ..PICKY };
        let plan = Plan { runs: 1_001, seed: 1, first: 0, threads: 3 };
        assert_eq!(run(&sound, &(PICKY.seeds)(), plan), Ok(1_004));
    }
}
