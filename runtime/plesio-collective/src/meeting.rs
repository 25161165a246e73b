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

use crate::call::{Call, CallError, Element, Operation, Ranks, agree};
use crate::partition::range;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering, fence};

/// Most bytes of a block: with it and its sum, the blocks of all ranks fit the fastest cache.
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

    /// Whether its rank has made the call of that number.
    #[must_use]
    pub fn has_posted(&self, number: u64) -> bool {
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

/// Where a rank's tensor lies: bytes from where tensors begin in its segment. Both places are as long as the whole tensor,
/// also where only the rank's own range of one is read or written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Places {
    /// What it brings.
    pub input: u64,
    /// What it gets; the same place, or one that does not overlap.
    pub output: u64,
}

impl Places {
    /// A result that takes the place of what was brought.
    #[must_use]
    pub const fn in_place(offset_bytes: u64) -> Self {
        Self { input: offset_bytes, output: offset_bytes }
    }

    /// Whether tensors of a call can lie there: inside `tensor_bytes`, aligned, not in each other's way.
    #[must_use]
    pub fn fit(&self, call: &Call, tensor_bytes: u64) -> bool {
        let Some(bytes) = call.bytes() else { return false };
        let inside = |at: u64| {
            at.is_multiple_of(call.element.bytes())
                && at.checked_add(bytes).is_some_and(|end| end <= tensor_bytes)
        };
        let apart = self.input.abs_diff(self.output) >= bytes;
        inside(self.input) && inside(self.output) && (self.input == self.output || apart)
    }
}

/// Some consecutive elements.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Part {
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
    /// Block by block of [`Meeting::block_elements`]: sum the inputs in rank order into the own scratch, [`Meeting::handle_staged`],
    /// write the sum to the outputs, [`Meeting::handle_spread`].
    Reduce(Part),
    /// Write the block that a dead rank has staged to the outputs, then [`Meeting::handle_spread`].
    Spread(Part, usize),
    /// Copy from the input of a rank to the outputs, then [`Meeting::handle_copied`].
    Copy(Part, usize),
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
    /// At work on a chunk: block `block` of `blocks` is next.
    Work {
        chunk: usize,
        block: u64,
        blocks: u64,
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
    /// Bytes of everybody's tensors.
    tensor_bytes: u64,
}

impl Meeting {
    /// Posts the call. Numbers begin at 1 and rise by one from call to call. A tensor that [`is_mail`] must be beside the
    /// call, on the side of `number % 2`, before.
    ///
    /// # Panics
    /// When `me` is no rank of the group or there is not one board per rank.
    #[must_use]
    pub fn new(
        number: u64,
        me: usize,
        call: Call,
        places: Places,
        tensor_bytes: u64,
        boards: &[Board<'_>],
    ) -> Self {
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
            tensor_bytes,
        }
    }

    /// Whose contributions the result is made of; empty before all have posted.
    #[must_use]
    pub fn present(&self) -> Ranks {
        self.present
    }

    /// Which call this is.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The ranks that hold everybody up: those that have not posted, then those with a chunk that is not done.
    #[must_use]
    pub fn awaited(&self, boards: &[Board<'_>]) -> Ranks {
        let absent = (0..self.ranks).filter(|rank| !boards[*rank].has_posted(self.number));
        let absent = absent.fold(Ranks::default(), Ranks::with);
        if !absent.is_empty() {
            return absent;
        }
        let chunks =
            (0..self.chunks_each * self.ranks).map(|chunk| boards[0].chunk(chunk).load(Ordering::Relaxed));
        let open = chunks.map(Word::unpack).filter(|word| word.number == self.number && word.block != DONE);
        open.fold(Ranks::default(), |ranks, word| ranks.with(word.rank))
    }

    /// Where `rank` has said that its tensor lies, once [`Self::present`] has it. It is checked when everybody has posted; a
    /// rank that writes another place there afterwards is hostile, so whoever uses it checks it again.
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
                Phase::Work { chunk, block, blocks } => match self.work(boards, chunk, block, blocks) {
                    Some(step) => return Ok(step),
                    None => continue,
                },
                Phase::Inherit { chunk, word } => {
                    let Word { rank, block, .. } = Word::unpack(word);
                    let mut part = self.rest(chunk, block);
                    part.elements.end = part.elements.end.min(part.elements.start + self.block_elements());
                    return Ok(Step::Spread(part, rank));
                }
                Phase::Settle { next } => match self.settle(boards, dead, next) {
                    Some(step) => return Ok(step),
                    None => continue,
                },
                Phase::Over => return Ok(Step::Over(self.present)),
            }
        }
    }

    /// Whether there is something to do where [`Self::poll`] has just answered [`Step::Wait`]; changes nothing.
    #[must_use]
    pub fn is_ready(&self, boards: &[Board<'_>], dead: Ranks) -> bool {
        match self.phase {
            Phase::Arrive { next } => dead.contains(next) || boards[next].has_posted(self.number),
            Phase::Settle { next } => {
                let seen = Word::unpack(boards[0].chunk(next).load(Ordering::Acquire));
                seen.block == DONE || self.inherits(seen, dead)
            }
            _ => true,
        }
    }

    /// The next block's sum is in the own scratch.
    pub fn handle_staged(&self, boards: &[Board<'_>]) {
        if let Phase::Work { chunk, block, .. } = self.phase {
            self.mark(boards, chunk, block, true);
            // No byte of the sum may be spread before that is said.
            fence(Ordering::Release);
        }
    }

    /// The next block's outputs are written.
    pub fn handle_spread(&mut self, boards: &[Board<'_>]) {
        let (chunk, block, blocks) = match self.phase {
            Phase::Work { chunk, block, blocks } => (chunk, block + 1, blocks),
            // Nobody else can have taken it: only the lowest that lives inherits, and there is one.
            Phase::Inherit { chunk, word } => (chunk, Word::unpack(word).block + 1, self.blocks(chunk)),
            _ => return,
        };
        self.mark(boards, chunk, if block < blocks { block } else { DONE }, false);
        self.phase = Phase::Work { chunk, block, blocks };
    }

    /// The whole part's outputs are written.
    pub fn handle_copied(&mut self, boards: &[Board<'_>]) {
        if let Phase::Work { chunk, blocks, .. } = self.phase {
            self.mark(boards, chunk, DONE, false);
            self.phase = Phase::Work { chunk, block: blocks, blocks };
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
        for rank in self.present.iter() {
            if !self.places(boards, rank).fit(&self.call, self.tensor_bytes) {
                return Err(CallError::Place { rank: rank as u8 });
            }
        }
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
                self.phase = Phase::Work { chunk, block: 0, blocks: self.blocks(chunk) };
                return;
            }
        }
        self.claiming = false;
        self.phase = Phase::Settle { next: 0 };
    }

    /// The next step at a chunk; `None` when it is done.
    fn work(&mut self, boards: &[Board<'_>], chunk: usize, block: u64, blocks: u64) -> Option<Step> {
        if block >= blocks {
            if blocks == 0 {
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
        }
        let part = self.rest(chunk, block);
        let source = match self.call.operation {
            Operation::AllReduce | Operation::ReduceScatter => return Some(Step::Reduce(part)),
            Operation::AllGather => part.owner,
            Operation::Broadcast { root } => root.into(),
        };
        if self.present.contains(source) {
            return Some(Step::Copy(part, source));
        }
        // What a dead rank did not bring stays out.
        self.mark(boards, chunk, DONE, false);
        self.phase = Phase::Work { chunk, block: blocks, blocks };
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
            if !self.inherits(seen, dead) {
                return Some(Step::Wait);
            }
            if seen.staged {
                self.phase = Phase::Inherit { chunk: next, word };
            } else {
                self.mark(boards, next, seen.block, false);
                self.phase = Phase::Work { chunk: next, block: seen.block, blocks: self.blocks(next) };
            }
            return None;
        }
        self.phase = Phase::Over;
        None
    }

    /// Whether a chunk is this rank's to finish: its rank is dead, and of those that live this is the lowest.
    fn inherits(&self, seen: Word, dead: Ranks) -> bool {
        let heir = (0..self.ranks).find(|rank| !dead.contains(*rank));
        heir == Some(self.me) && seen.number == self.number && dead.contains(seen.rank)
    }

    /// What of a chunk is left from block `block` on.
    fn rest(&self, chunk: usize, block: u64) -> Part {
        let owner = chunk / self.chunks_each;
        let share = range(self.call.count, self.ranks, owner);
        let start = share.start + (chunk % self.chunks_each) as u64 * self.chunk_elements;
        let end = share.end.min(start.saturating_add(self.chunk_elements)).max(start);
        let from = start.saturating_add(block.saturating_mul(self.block_elements())).min(end);
        Part { elements: from..end, owner }
    }

    fn blocks(&self, chunk: usize) -> u64 {
        let Range { start, end } = self.rest(chunk, 0).elements;
        (end - start).div_ceil(self.block_elements())
    }

    /// Elements of a block.
    #[must_use]
    pub fn block_elements(&self) -> u64 {
        block_elements(self.call.element, self.ranks)
    }

    fn mark(&self, boards: &[Board<'_>], chunk: usize, block: u64, staged: bool) {
        boards[0].chunk(chunk).store(self.word(block, staged), Ordering::Release);
    }

    fn word(&self, block: u64, staged: bool) -> u64 {
        Word { number: self.number, rank: self.me, staged, block }.pack()
    }
}

/// Elements of a block among so many ranks: fewer the more there are.
#[must_use]
pub fn block_elements(element: Element, ranks: usize) -> u64 {
    (2 * BLOCK_BYTES / ranks.next_power_of_two() as u64).min(BLOCK_BYTES) / element.bytes()
}

/// Whether a call's tensors are posted whole beside it.
#[must_use]
pub fn is_mail(call: &Call) -> bool {
    call.operation == Operation::AllReduce && call.count <= MAIL_BYTES / call.element.bytes()
}

#[cfg(test)]
mod tests;
