//! One collective operation of ranks that map each other's memory: who may do what next, so that every element is
//! summed once, in rank order, and a rank that dies anywhere leaves nothing half done.
//!
//! ```text
//!  post own call ── all posted? ── same call? ── claim a chunk ──┐
//!                                                   │  per block: stage the sum in own scratch, mark it, spread it
//!                                                   └── none left ── all chunks done? ── over
//! ```
//!
//! Ranges are owned by ranks; who has finished its own takes from the others, so a rank that sleeps holds nobody up. The
//! sum of a block is staged before the tensors are written: the inputs of a block that is not marked staged are whole,
//! the sum of one that is can be spread again from the stager's scratch. That is why sums may be made in place and a
//! dead rank's chunk still finished, with its contribution, by the lowest rank that lives.
//!
//! Knows: the words that ranks share, and who is dead. Does not know: tensors, waiting, clocks. A rank must be reported
//! dead only when it is: its process has ended. Invariant: no block is staged after one byte of its sum was spread.

use crate::call::{Call, CallError, Operation, Ranks, agree};
use crate::partition::range;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(loom))]
use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a block: its sum is made in the fastest cache.
pub const BLOCK_BYTES: u64 = 4096;
/// Bytes of the place where a rank stages a block; bf16 is staged as binary32.
pub const SCRATCH_BYTES: u64 = 2 * BLOCK_BYTES;
/// A tensor of at most so many bytes is posted whole beside the call and summed by everybody.
pub const MAIL_BYTES: u64 = 8192;
/// Words of a rank's board.
pub const BOARD_WORDS: usize = (CHUNKS + CHUNKS_MAX) * LINE_WORDS;
/// A group has made this many calls: form a new one.
pub const CALLS_MAX: u64 = 1 << 40;

/// Words of a cache line: what two ranks write stands in different ones.
const LINE_WORDS: usize = 8;
/// Lines of the two newest calls.
const CALLS: usize = 2;
const CHUNKS: usize = CALLS;
const CHUNKS_MAX: usize = 1024;
const CHUNK_BYTES_MIN: u64 = 4 * BLOCK_BYTES;
const CHUNK_BYTES_MAX: u64 = 1 << 20;

/// The words that one rank writes for all to read; the chunks of a group stand on the board of rank 0.
///
/// ```text
/// line 0, 1   the call of even and of odd number: number, two words of the call, input and output offsets
/// line 2..    one chunk each: number of the call (40 bits), rank (5), staged (1), block (18)
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Board<'a> {
    words: &'a [AtomicU64],
}

impl<'a> Board<'a> {
    /// `None` when there are not [`BOARD_WORDS`].
    #[must_use]
    pub fn new(words: &'a [AtomicU64]) -> Option<Self> {
        (words.len() >= BOARD_WORDS).then_some(Self { words })
    }

    fn post(&self, number: u64, call: &Call, places: Places) {
        let line = &self.words[(number % CALLS as u64) as usize * LINE_WORDS..];
        let [word, count] = call.to_words();
        for (at, value) in [word, count, places.input, places.output].into_iter().enumerate() {
            line[1 + at].store(value, Ordering::Relaxed);
        }
        line[0].store(number, Ordering::Release);
    }

    fn has_posted(&self, number: u64) -> bool {
        self.words[(number % CALLS as u64) as usize * LINE_WORDS].load(Ordering::Acquire) == number
    }

    fn posted(&self, number: u64) -> (Option<Call>, Places) {
        let line = &self.words[(number % CALLS as u64) as usize * LINE_WORDS..];
        let word = |at: usize| line[at].load(Ordering::Relaxed);
        (Call::from_words([word(1), word(2)]), Places { input: word(3), output: word(4) })
    }

    fn chunk(&self, chunk: usize) -> &AtomicU64 {
        &self.words[(CHUNKS + chunk) * LINE_WORDS]
    }
}

/// Where a rank's tensor lies: bytes from the start of its segment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Places {
    /// What it brings.
    pub input: u64,
    /// What it gets; the same place, or one that does not overlap.
    pub output: u64,
}

/// Some consecutive elements that are summed or copied at once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Block {
    /// Which elements of the whole tensor.
    pub elements: Range<u64>,
    /// In whose range they lie.
    pub owner: usize,
}

/// What the caller does next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Somebody else acts first: poll again.
    Wait,
    /// Sum what `ranks` have posted beside their calls, in rank order, into the own output.
    Mail(Ranks),
    /// Sum the block's inputs in rank order into the own scratch, then [`Meeting::handle_staged`].
    Stage(Block),
    /// Write what rank `from` has staged to the block's outputs, then [`Meeting::handle_spread`].
    Spread(Block, usize),
    /// Copy the block from the input of rank `from` to the block's outputs, then [`Meeting::handle_spread`].
    Copy(Block, usize),
    /// The result is in its place; it is made of what these ranks brought.
    Over(Ranks),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Word {
    number: u64,
    rank: usize,
    staged: bool,
    block: u64,
}

impl Word {
    const fn pack(self) -> u64 {
        self.number << 24 | (self.rank as u64) << 19 | (self.staged as u64) << 18 | self.block
    }

    const fn unpack(word: u64) -> Self {
        Self {
            number: word >> 24,
            rank: (word >> 19 & 31) as usize,
            staged: word >> 18 & 1 == 1,
            block: word & BLOCK_MASK,
        }
    }
}

const BLOCK_MASK: u64 = (1 << 18) - 1;
/// Block number of a chunk of which all blocks are spread.
const DONE: u64 = BLOCK_MASK;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Until everybody has posted or is dead.
    Arrive {
        next: usize,
    },
    /// Own chunks first, then the others': this many were looked at.
    Claim {
        looked: usize,
    },
    /// At work on a chunk.
    Work {
        chunk: usize,
        block: u64,
        staged: bool,
    },
    /// Spreading what the dead owner of a chunk has staged.
    Inherit {
        chunk: usize,
        word: u64,
    },
    /// Until all chunks are done; those before `next` are.
    Settle {
        next: usize,
    },
    Over,
}

/// One call, on one rank; see the module.
#[derive(Clone, Debug)]
pub struct Meeting {
    number: u64,
    me: usize,
    ranks: usize,
    call: Call,
    phase: Phase,
    present: Ranks,
    /// Chunks of one rank's range, and elements of one chunk.
    chunks_each: usize,
    chunk_elements: u64,
    claiming: bool,
}

impl Meeting {
    /// Posts the call. Numbers begin at 1 and rise by one from call to call. A tensor that [`is_mail`] must be beside the
    /// call, on the side of `number % 2`, before.
    ///
    /// # Panics
    /// When `me` is no rank of the group or there is not one board per rank.
    #[must_use]
    pub fn new(number: u64, me: usize, call: Call, places: Places, boards: &[Board<'_>]) -> Self {
        let ranks = boards.len();
        assert!(me < ranks && ranks <= Ranks::MAX, "one board per rank, at most 32");
        boards[me].post(number, &call, places);
        let each = call.count.div_ceil(ranks as u64);
        let bytes = each * call.element.bytes();
        let chunk_bytes = (bytes / 8)
            .next_multiple_of(BLOCK_BYTES)
            .clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX)
            .max((bytes / (CHUNKS_MAX / ranks) as u64 + 1).next_multiple_of(BLOCK_BYTES));
        let chunk_elements = chunk_bytes / call.element.bytes();
        Self {
            number,
            me,
            ranks,
            call,
            phase: Phase::Arrive { next: 0 },
            present: Ranks::default(),
            chunks_each: each.div_ceil(chunk_elements) as usize,
            chunk_elements,
            claiming: true,
        }
    }

    /// Whose contributions the result is made of; empty before all have posted.
    #[must_use]
    pub fn present(&self) -> Ranks {
        self.present
    }

    /// Where `rank` has said that its tensor lies. Meaningful once [`Self::present`] has it; hostile until checked.
    #[must_use]
    pub fn places(&self, boards: &[Board<'_>], rank: usize) -> Places {
        boards[rank].posted(self.number).1
    }

    /// The next step; `dead` are the ranks whose processes have ended.
    ///
    /// # Errors
    /// The ranks do not agree, or the root of a broadcast is gone.
    pub fn poll(&mut self, boards: &[Board<'_>], dead: Ranks) -> Result<Step, CallError> {
        loop {
            match self.phase {
                Phase::Arrive { next } => match self.arrive(boards, dead, next)? {
                    Some(step) => return Ok(step),
                    None => continue,
                },
                Phase::Claim { looked } => self.claim(boards, looked),
                Phase::Work { chunk, block, staged } => match self.work(boards, chunk, block, staged) {
                    Some(step) => return Ok(step),
                    None => continue,
                },
                Phase::Inherit { chunk, word } => {
                    let from = Word::unpack(word);
                    return Ok(Step::Spread(self.block(chunk, from.block).expect("was staged"), from.rank));
                }
                Phase::Settle { next } => match self.settle(boards, dead, next) {
                    Some(step) => return Ok(step),
                    None => continue,
                },
                Phase::Over => return Ok(Step::Over(self.present)),
            }
        }
    }

    /// The block's sum is in the own scratch.
    pub fn handle_staged(&mut self, boards: &[Board<'_>]) {
        let Phase::Work { chunk, block, staged: false } = self.phase else { return };
        self.mark(boards, chunk, block, true);
        self.phase = Phase::Work { chunk, block, staged: true };
    }

    /// The block's outputs are written.
    pub fn handle_spread(&mut self, boards: &[Board<'_>]) {
        match self.phase {
            Phase::Work { chunk, block, .. } => {
                let block = block + 1;
                let rest = self.block(chunk, block);
                self.mark(boards, chunk, if rest.is_some() { block } else { DONE }, false);
                self.phase = Phase::Work { chunk, block, staged: false };
            }
            Phase::Inherit { chunk, word } => {
                let block = Word::unpack(word).block + 1;
                let rest = self.block(chunk, block);
                // Nobody else can have taken it: only the lowest that lives inherits, and there is one.
                self.mark(boards, chunk, if rest.is_some() { block } else { DONE }, false);
                self.phase = Phase::Work { chunk, block, staged: false };
            }
            _ => {}
        }
    }

    fn arrive(
        &mut self,
        boards: &[Board<'_>],
        dead: Ranks,
        mut next: usize,
    ) -> Result<Option<Step>, CallError> {
        while next < self.ranks {
            // Dead before looking: what a dead rank has posted is final.
            let gone = dead.contains(next);
            if boards[next].has_posted(self.number) {
                self.present = self.present.with(next);
            } else if !gone {
                self.phase = Phase::Arrive { next };
                return Ok(Some(Step::Wait));
            }
            next += 1;
        }
        self.phase = Phase::Over;
        agree(self.present, |rank| boards[rank].posted(self.number).0)?;
        if let Operation::Broadcast { root } = self.call.operation
            && !self.present.contains(root.into())
        {
            return Err(CallError::RootGone { root });
        }
        if is_mail(&self.call) {
            return Ok(Some(Step::Mail(self.present)));
        }
        if self.call.count > 0 {
            self.phase = Phase::Claim { looked: 0 };
        }
        Ok(None)
    }

    fn claim(&mut self, boards: &[Board<'_>], mut looked: usize) {
        let all = self.chunks_each * self.ranks;
        while looked < all {
            let chunk = (self.me * self.chunks_each + looked) % all;
            looked += 1;
            let word = boards[0].chunk(chunk);
            let seen = word.load(Ordering::Relaxed);
            if Word::unpack(seen).number == self.number {
                continue;
            }
            let mine = self.word(0, false);
            if word.compare_exchange(seen, mine, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                self.claiming = true;
                self.phase = Phase::Work { chunk, block: 0, staged: false };
                return;
            }
        }
        self.claiming = false;
        self.phase = Phase::Settle { next: 0 };
    }

    /// The next step at a chunk; `None` when it is done.
    fn work(&mut self, boards: &[Board<'_>], chunk: usize, block: u64, staged: bool) -> Option<Step> {
        let Some(part) = self.block(chunk, block) else {
            if block == 0 {
                // A range with fewer chunks than others have.
                self.mark(boards, chunk, DONE, false);
            }
            self.phase = if self.claiming {
                let all = self.chunks_each * self.ranks;
                Phase::Claim { looked: (chunk + 1 + all - self.me * self.chunks_each) % all }
            } else {
                Phase::Settle { next: 0 }
            };
            return None;
        };
        let source = match self.call.operation {
            Operation::AllReduce | Operation::ReduceScatter if staged => {
                return Some(Step::Spread(part, self.me));
            }
            Operation::AllReduce | Operation::ReduceScatter => return Some(Step::Stage(part)),
            Operation::AllGather => part.owner,
            Operation::Broadcast { root } => root.into(),
        };
        if self.present.contains(source) {
            return Some(Step::Copy(part, source));
        }
        // What a dead rank did not bring stays out.
        self.mark(boards, chunk, DONE, false);
        self.phase = Phase::Work { chunk, block: DONE, staged: false };
        None
    }

    fn settle(&mut self, boards: &[Board<'_>], dead: Ranks, mut next: usize) -> Option<Step> {
        while next < self.chunks_each * self.ranks {
            let word = boards[0].chunk(next).load(Ordering::Acquire);
            let seen = Word::unpack(word);
            if seen.number == self.number && seen.block == DONE {
                next += 1;
                continue;
            }
            self.phase = Phase::Settle { next };
            let heir = (0..self.ranks).find(|rank| !dead.contains(*rank)) == Some(self.me);
            if !(heir && seen.number == self.number && dead.contains(seen.rank)) {
                return Some(Step::Wait);
            }
            if seen.staged {
                self.phase = Phase::Inherit { chunk: next, word };
            } else {
                self.mark(boards, next, seen.block, false);
                self.phase = Phase::Work { chunk: next, block: seen.block, staged: false };
            }
            return None;
        }
        self.phase = Phase::Over;
        None
    }

    /// Block `block` of a chunk, if the chunk has so many.
    fn block(&self, chunk: usize, block: u64) -> Option<Block> {
        let owner = chunk / self.chunks_each;
        let share = range(self.call.count, self.ranks, owner);
        let start = share.start + (chunk % self.chunks_each) as u64 * self.chunk_elements;
        let end = share.end.min(start + self.chunk_elements);
        let block_elements = BLOCK_BYTES / self.call.element.bytes();
        let from = start.saturating_add(block.saturating_mul(block_elements));
        (from < end).then(|| Block { elements: from..end.min(from + block_elements), owner })
    }

    fn mark(&self, boards: &[Board<'_>], chunk: usize, block: u64, staged: bool) {
        boards[0].chunk(chunk).store(self.word(block, staged), Ordering::Release);
    }

    fn word(&self, block: u64, staged: bool) -> u64 {
        Word { number: self.number, rank: self.me, staged, block }.pack()
    }
}

/// Whether a call's tensors are posted whole beside it.
#[must_use]
pub fn is_mail(call: &Call) -> bool {
    call.operation == Operation::AllReduce && call.count <= MAIL_BYTES / call.element.bytes()
}

#[cfg(test)]
mod tests;
