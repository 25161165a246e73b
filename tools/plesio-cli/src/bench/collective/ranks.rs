//! The processes of one group, as the driver sees them: starts them, leads them through runs, notices when one dies.

use super::rank::{CALL_LIMIT, Forming, Order, Part, Run, Said};
use super::report::Way;
use crate::args::{CollectiveArgs, NarrowArg, OperationArg, PathArg, SharesArg};
use crate::bench::{Mode, Wait, ends};
use crate::demo::keys::Keys;
use crate::failure::{Exit, Failure};
use crate::random;
use std::fs::DirBuilder;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// All ranks of a group; dropping it ends them.
pub(super) struct Fleet {
    ranks: Vec<(Child, ChildStdin)>,
    heard: Receiver<(usize, Option<Said>)>,
    interrupted: Arc<AtomicBool>,
    folder: PathBuf,
    notes: Vec<String>,
}

/// One run, as all ranks saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Per operation, the longest of any rank; of a bare pass, from the first begin to the last end.
    pub(super) times_ns: Vec<u64>,
    pub(super) wrong: u64,
    /// The most of any rank.
    pub(super) above_bytes: u64,
    /// Elements of the last operation summed in place of a dead rank.
    pub(super) redone: u64,
    /// What datagrams were sealed with; empty where nothing was.
    pub(super) suite: String,
}

impl Fleet {
    /// A group whose datagrams, if it has any, are protected in this mode.
    pub(super) fn start(
        args: &CollectiveArgs,
        Way { path, protection, wait, ranks }: Way,
        interrupted: &Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        let pin = &args.pin;
        let tensor_bytes = args.size.iter().copied().max().unwrap_or(0);
        let mut draw = [0; 8];
        random::fill(&mut draw)?;
        let generation = u64::from_le_bytes(draw);
        let folder = std::env::temp_dir().join(format!("plesio-bench-{generation:016x}"));
        let (tell, heard) = mpsc::channel();
        let interrupted = Arc::clone(interrupted);
        let mut fleet =
            Self { ranks: Vec::new(), heard, interrupted, folder: folder.clone(), notes: Vec::new() };
        if path == PathArg::Shm {
            DirBuilder::new().mode(0o700).create(&fleet.folder).map_err(|cause| {
                let what = format!("cannot make the folder {}", fleet.folder.display());
                Failure::run("bench", what, cause).fix("set TMPDIR to a folder that this user may write to")
            })?;
        }
        for rank in 0..usize::from(ranks) {
            let core = (!pin.is_empty()).then(|| format!("--pin={}", pin[rank % pin.len()]));
            let (child, orders, out) = ends::spawn_as("bench-rank", core.into_iter())?;
            fleet.ranks.push((child, orders));
            let tell = tell.clone();
            let hear = move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let said = serde_json::from_str(&line).ok();
                    let gone = said.is_none();
                    if tell.send((rank, said)).is_err() || gone {
                        return;
                    }
                }
                let _gone = tell.send((rank, None));
            };
            let thread = std::thread::Builder::new().name("rank".into()).spawn(hear);
            thread.map_err(|cause| Failure::thread("bench", cause))?;
        }
        let sealed = protection == Some(Mode::Sealed);
        let keys = if sealed { Some(Keys::draw(generation, ranks.into())?) } else { None };
        let form = |rank: usize| {
            Order::Form(Forming {
                folder: folder.clone(),
                generation,
                rank: rank as u8,
                ranks,
                tensor_bytes: tensor_bytes as usize,
                path,
                wait: wait.unwrap_or(Wait::Block),
                backend: args.backend,
                narrows: path == PathArg::Udp && args.codec.iter().any(|codec| *codec != NarrowArg::None),
                keys: keys.as_ref().map(|keys| keys.of(rank)),
                ids: keys.iter().flat_map(Keys::ids).map(|id| id.0).collect(),
                namespace: args.namespaces.get(rank).cloned(),
                links: match args.shares {
                    SharesArg::Rate => args.links.iter().take(ranks.into()).map(|bits| bits / 8).collect(),
                    SharesArg::Equal => Vec::new(),
                },
            })
        };
        let mut answers = fleet.ask(ANSWER_LIMIT, form)?;
        let addresses: Vec<_> = answers
            .iter()
            .filter_map(|said| if let Said::Opened(address) = said { Some(*address) } else { None })
            .collect();
        if !addresses.is_empty() {
            answers = fleet.ask(ANSWER_LIMIT, |_| Order::Meet(addresses.clone()))?;
        }
        for said in answers {
            if let Said::Formed(notes) = said {
                notes.into_iter().for_each(|note| {
                    if !fleet.notes.contains(&note) {
                        fleet.notes.push(note);
                    }
                });
            }
        }
        Ok(fleet)
    }

    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    pub(super) fn run(&mut self, run: &Run) -> Result<Outcome, Failure> {
        let said = self.ask(limit(run), |_| Order::Run(*run))?;
        Ok(gather(run, said))
    }

    /// The same once, while one rank dies so long after it has begun; `None`: it was through before that. The others are
    /// told at once, as a view would tell them.
    pub(super) fn run_killing(
        &mut self,
        run: &Run,
        victim: usize,
        after_ns: u64,
    ) -> Result<Option<Outcome>, Failure> {
        self.tell(|rank| Order::Run(Run { dies_after_ns: (rank == victim).then_some(after_ns), ..*run }))?;
        let until = Instant::now() + limit(run);
        let (mut late, mut lives, mut done) = (false, true, Vec::new());
        while lives || done.len() + 1 < self.ranks.len() {
            match self.next(until)? {
                (rank, said @ Some(Said::Failed(_))) => drop(self.answer(rank, said)?),
                // What it had said is heard before its end.
                (rank, Some(said)) if rank == victim => late |= matches!(said, Said::Ends),
                (rank, None) if rank == victim => {
                    lives = false;
                    for rank in (0..self.ranks.len()).filter(|rank| *rank != victim) {
                        self.order(rank, &Order::Dead(victim as u8))?;
                    }
                }
                (rank, said) => done.push(self.answer(rank, said)?),
            }
        }
        Ok((!late).then(|| gather(run, done)))
    }

    /// An order to everybody, and everybody's answer, in rank order.
    fn ask(&mut self, limit: Duration, order: impl Fn(usize) -> Order) -> Result<Vec<Said>, Failure> {
        self.tell(order)?;
        let until = Instant::now() + limit;
        let mut answers = Vec::new();
        while answers.len() < self.ranks.len() {
            answers.push(self.hear(until)?);
        }
        answers.sort_by_key(|(rank, _)| *rank);
        Ok(answers.into_iter().map(|(_, said)| said).collect())
    }

    fn tell(&mut self, order: impl Fn(usize) -> Order) -> Result<(), Failure> {
        (0..self.ranks.len()).try_for_each(|rank| self.order(rank, &order(rank)))
    }

    fn order(&mut self, rank: usize, order: &Order) -> Result<(), Failure> {
        let line = serde_json::to_string(order)
            .map_err(|cause| Failure::run("bench", "an order has no text", cause))?;
        writeln!(self.ranks[rank].1, "{line}").map_err(|_| self.lost(rank))
    }

    /// What a rank says next.
    fn hear(&mut self, until: Instant) -> Result<(usize, Said), Failure> {
        let (rank, said) = self.next(until)?;
        Ok((rank, self.answer(rank, said)?))
    }

    /// What a rank has said, if it goes on.
    fn answer(&mut self, rank: usize, said: Option<Said>) -> Result<Said, Failure> {
        match said {
            Some(Said::Failed(cause)) => Err(Failure::run("bench", "a rank cannot go on", cause)),
            Some(said) => Ok(said),
            None => Err(self.lost(rank)),
        }
    }

    /// What became of a rank that says nothing any more.
    fn lost(&mut self, rank: usize) -> Failure {
        let child = &mut self.ranks[rank].0;
        let until = Instant::now() + ENDING_LIMIT;
        // Its output ends a moment before the process does.
        let cause = loop {
            match child.try_wait() {
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
                Ok(Some(status)) => break format!("its process ended before the run was over: {status}"),
                _ => {
                    break "its process is there and closed its end of the pipe, or wrote what is no answer"
                        .into();
                }
            }
        };
        let failure = Failure::run("bench-rank", format!("rank {rank} is gone"), cause);
        Failure { exit: Exit::Unreachable, ..failure }.fix(
            "see what ended it: `dmesg` names a process killed for memory, `ulimit -a` what it may use; then run again",
        )
    }

    /// The same; `None`: its process has ended.
    fn next(&self, until: Instant) -> Result<(usize, Option<Said>), Failure> {
        loop {
            if self.interrupted.load(Ordering::Acquire) {
                return Err(Failure::run("bench", "this run was not finished", "it was interrupted"));
            }
            match self.heard.recv_timeout(LOOK_PERIOD) {
                Ok(heard) => return Ok(heard),
                Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(Failure::run(
                        "bench",
                        "the ranks do not answer",
                        "they had more time than they need",
                    )
                    .fix("see whether a process is stopped or starved, then run again"));
                }
            }
        }
    }
}

/// How long a run may take: a rank that waits for another gives up in every call by itself.
fn limit(run: &Run) -> Duration {
    ANSWER_LIMIT + CALL_LIMIT * run.iterations
}

/// What all ranks saw, as one.
fn gather(run: &Run, said: Vec<Said>) -> Outcome {
    let mut all = Outcome::default();
    let (mut longest, mut first, mut last) = (Vec::new(), Vec::new(), Vec::new());
    let mut digests = Vec::new();
    for said in said {
        let Said::Done(Part { spans_ns, wrong, digest, redone, above_bytes, suite }) = said else { continue };
        all.suite = suite;
        digests.push(digest);
        longest.resize(spans_ns.len(), 0);
        first.resize(spans_ns.len(), u64::MAX);
        last.resize(spans_ns.len(), 0);
        for (at, (began, ended)) in spans_ns.into_iter().enumerate() {
            longest[at] = ended.saturating_sub(began).max(longest[at]);
            (first[at], last[at]) = (began.min(first[at]), ended.max(last[at]));
        }
        all.wrong += wrong;
        all.redone += redone;
        all.above_bytes = all.above_bytes.max(above_bytes);
    }
    let whole = first.iter().zip(&last).map(|(first, last)| last.saturating_sub(*first)).collect();
    // Nobody waits for another in a bare pass: it is over when all have done theirs.
    all.times_ns = if run.bare { whole } else { longest };
    // Everybody's result of these two is the same, to the bit.
    if matches!(run.operation, OperationArg::AllReduce | OperationArg::Broadcast) {
        all.wrong += digests.iter().filter(|digest| **digest != digests[0]).count() as u64;
    }
    all
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for (child, _) in &mut self.ranks {
            // Fails only for a process that has already ended.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
        // What a killed rank could not take away itself.
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

const ANSWER_LIMIT: Duration = Duration::from_secs(300);
/// How long a process may take to end that has closed its output.
const ENDING_LIMIT: Duration = Duration::from_secs(1);
/// How often an interrupt is looked for.
const LOOK_PERIOD: Duration = Duration::from_millis(50);
