//! One rank of a collective bench, in a process of its own: `plesio bench-rank`. Orders come on stdin, one JSON line each;
//! answers go to stdout.

use crate::args::{ElementArg, OperationArg};
use crate::bench::{group, worker};
use crate::failure::{Exit, Failure};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use plesio::{SharedGroup, SharedPlan};
use plesio_collective::{Call, Element, Operation, Places};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a rank is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    Form(Forming),
    Run(Run),
}

/// The group to be part of.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Forming {
    pub(super) folder: PathBuf,
    pub(super) generation: u64,
    pub(super) rank: u8,
    pub(super) ranks: u8,
    pub(super) tensor_bytes: usize,
}

/// So many times the same operation.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Run {
    pub(super) operation: OperationArg,
    pub(super) element: ElementArg,
    pub(super) count: u64,
    pub(super) iterations: u32,
    pub(super) seed: u64,
    /// One pass over the memory, without agreement.
    pub(super) bare: bool,
}

/// What a rank says.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Said {
    /// It has met the others; remarks about this machine.
    Formed(Vec<String>),
    Done(Part),
    Failed(String),
}

/// What one rank saw of a run.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Part {
    /// When each operation began and ended, on the clock that all processes of this machine share.
    pub(super) spans_ns: Vec<(u64, u64)>,
    pub(super) wrong: u64,
    /// Memory of this process, its share of what it maps with others, without its tensors.
    pub(super) above_bytes: u64,
}

impl OperationArg {
    pub(super) fn operation(self) -> Operation {
        match self {
            Self::AllReduce => Operation::AllReduce,
            Self::ReduceScatter => Operation::ReduceScatter,
            Self::AllGather => Operation::AllGather,
            Self::Broadcast => Operation::Broadcast { root: 0 },
        }
    }
}

impl ElementArg {
    pub(super) fn element(self) -> Element {
        match self {
            Self::F32 => Element::F32,
            Self::Bf16 => Element::Bf16,
            Self::I32 => Element::I32,
        }
    }
}

/// Serves runs until stdin closes, on one core if that is said. It dies with who started it.
pub(crate) fn run_rank(pin: Option<u16>) -> Result<Exit, Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|cause| Failure::run("bench", "cannot tie this process to the bench", cause))?;
    let notes = group::enter(pin);
    let mut rank: Option<Rank> = None;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let said = match (serde_json::from_str(&line), &mut rank) {
            (Ok(Order::Form(forming)), _) => match Rank::form(&forming) {
                Ok(formed) => {
                    rank = Some(formed);
                    Said::Formed(notes.clone())
                }
                Err(cause) => Said::Failed(cause.to_string()),
            },
            (Ok(Order::Run(run)), Some(rank)) => match rank.run(&run) {
                Ok(part) => Said::Done(part),
                Err(cause) => Said::Failed(cause.to_string()),
            },
            _ => break,
        };
        let line = serde_json::to_string(&said).unwrap_or_default();
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(Exit::Ok)
}

struct Rank {
    group: SharedGroup,
    tensor_bytes: usize,
}

impl Rank {
    fn form(forming: &Forming) -> Result<Self, plesio::GroupError> {
        let tensor_bytes = forming.tensor_bytes;
        let plan = SharedPlan {
            folder: forming.folder.clone(),
            name: "bench".into(),
            generation: forming.generation,
            rank: forming.rank,
            ranks: forming.ranks,
            // One element behind the tensor, to meet by.
            tensor_bytes: tensor_bytes.next_multiple_of(MEET_BYTES) + MEET_BYTES,
            deadline: CALL_LIMIT,
        };
        Ok(Self { group: SharedGroup::form(&plan, Instant::now() + FORM_LIMIT)?, tensor_bytes })
    }

    fn run(&mut self, run: &Run) -> Result<Part, plesio::GroupError> {
        let element = run.element.element();
        let call = Call { operation: run.operation.operation(), element, count: run.count };
        let meet = Places::in_place(self.tensor_bytes.next_multiple_of(MEET_BYTES) as u64);
        let mut part = Part::default();
        // Two that are not counted warm caches and predictors.
        let iterations = run.iterations + WARM;
        for iteration in 0..iterations {
            let turn = run.seed.wrapping_add(iteration.into());
            self.fill(element, run.count, turn)?;
            self.group.all_reduce(Element::I32, 1, meet)?;
            let began = clock_ns();
            if run.bare {
                self.group.one_pass(element, run.count, 0)?;
            } else {
                self.group.call(call, Places::in_place(0))?;
            }
            let ended = clock_ns();
            if iteration >= WARM {
                part.spans_ns.push((began, ended));
            }
            // Who is ahead must not take the core from one who is not done, nor write what another still reads.
            self.group.all_reduce(Element::I32, 1, meet)?;
            let checked = iteration == WARM || iteration + 1 == iterations;
            if checked && !run.bare {
                part.wrong += self.wrong(&call, turn)?;
            }
        }
        part.above_bytes = worker::proportional_bytes().saturating_sub(self.tensor_bytes as u64);
        Ok(part)
    }

    /// Writes this rank's tensor.
    fn fill(&self, element: Element, count: u64, turn: u64) -> Result<(), plesio::GroupError> {
        let bytes = element.bytes() as usize;
        let total = count as usize * bytes;
        let mut pattern = vec![0; (PATTERN * bytes).min(total)];
        for (at, place) in (0..).zip(pattern.chunks_exact_mut(bytes)) {
            place.copy_from_slice(&encode(element, value(self.group.rank() as u64, at, turn))[..bytes]);
        }
        let mut done = 0;
        while done < total {
            let len = pattern.len().min(total - done);
            self.group.write(done, &pattern[..len])?;
            done += len;
        }
        Ok(())
    }

    /// Elements that are not what they have to be after the call.
    fn wrong(&self, call: &Call, turn: u64) -> Result<u64, plesio::GroupError> {
        let bytes = call.element.bytes() as usize;
        let (me, ranks) = (self.group.rank(), self.group.ranks());
        let own = plesio_collective::range(call.count, ranks, me);
        let value = |rank: usize, at| value(rank as u64, at, turn);
        let mut wrong = 0;
        let mut found = vec![0; PATTERN * bytes];
        let mut at = 0u64;
        while at < call.count {
            let len = (PATTERN as u64).min(call.count - at);
            let found = &mut found[..len as usize * bytes];
            self.group.read(at as usize * bytes, found)?;
            for (place, found) in (at..at + len).zip(found.chunks_exact(bytes)) {
                let wanted = match call.operation {
                    Operation::AllReduce => (0..ranks).map(|rank| value(rank, place)).sum(),
                    Operation::ReduceScatter if own.contains(&place) => {
                        (0..ranks).map(|rank| value(rank, place)).sum()
                    }
                    Operation::ReduceScatter => value(me, place),
                    Operation::AllGather => value(owner(call.count, ranks, place), place),
                    Operation::Broadcast { root } => value(root.into(), place),
                    _ => value(me, place),
                };
                wrong += u64::from(encode(call.element, wanted)[..bytes] != *found);
            }
            at += len;
        }
        Ok(wrong)
    }
}

fn clock_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| now.num_nanoseconds());
    u64::try_from(now).unwrap_or(0)
}

/// Small whole numbers: every sum of 32 of them is exact in every type.
fn value(rank: u64, at: u64, turn: u64) -> u32 {
    (1 + (at % PATTERN as u64 * 5 + rank * 3 + turn % 7) % 7) as u32
}

/// An element's bytes, from the first on.
fn encode(element: Element, value: u32) -> [u8; 4] {
    match element {
        Element::Bf16 => ((value as f32).to_bits() >> 16).to_le_bytes(),
        Element::I32 => value.to_le_bytes(),
        _ => (value as f32).to_le_bytes(),
    }
}

/// Whose range an element lies in.
fn owner(count: u64, ranks: usize, place: u64) -> usize {
    let guess = (u128::from(place) * ranks as u128 / u128::from(count.max(1))) as usize;
    let near = guess.saturating_sub(1)..ranks;
    near.into_iter().find(|rank| plesio_collective::range(count, ranks, *rank).contains(&place)).unwrap_or(0)
}

/// Elements written and compared at once; what they hold repeats after so many.
const PATTERN: usize = 16_384;
/// What the ranks meet by before each operation.
const MEET_BYTES: usize = 64;
const WARM: u32 = 2;
const CALL_LIMIT: Duration = Duration::from_secs(60);
const FORM_LIMIT: Duration = Duration::from_secs(20);
