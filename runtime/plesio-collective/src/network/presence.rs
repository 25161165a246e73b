//! Who has made a call, and what each called for: the same answer on every rank that lives.
//!
//! Everybody tells everybody. When a rank dies, some may have its hello and some not: then every rank closes what was open
//! for it and tells the others which hellos it has (a *flush*). Who lacks one that somebody has fetches it there; what
//! nobody has who lives, nobody will ever get. A holder that dies meanwhile makes another flush.

use super::layout::SIDES;
use super::record::Hello;
use crate::call::{CallError, Operation, Ranks, agree};
use alloc::vec::Vec;

/// A hello as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter {
    /// `None`: not one of this call.
    pub(crate) hello: Option<Hello>,
    pub(crate) len_bytes: u32,
}

/// The newest flush of a rank.
#[derive(Clone, Copy, Debug)]
struct Flush {
    number: u32,
    dead: Ranks,
    held: [Ranks; 3],
}

#[derive(Debug)]
pub(crate) struct Presence {
    /// By number of the call and rank.
    letters: [Vec<Option<Letter>>; SIDES as usize],
    flushes: Vec<Option<Flush>>,
    /// From whom the hello of a dead rank is fetched.
    fetching: Vec<Option<usize>>,
}

/// What is known of who has made a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Known {
    /// More hellos or flushes must come first; those of these ranks are to be fetched there.
    Wait(Vec<(usize, usize)>),
    /// These have made it.
    Present(Ranks),
}

impl Presence {
    pub(crate) fn new(ranks: usize) -> Self {
        Self {
            letters: core::array::from_fn(|_| alloc::vec![None; ranks]),
            flushes: alloc::vec![None; ranks],
            fetching: alloc::vec![None; ranks],
        }
    }

    /// Call `number` begins: the hellos of the next one take the place of those before the last.
    pub(crate) fn begin(&mut self, number: u64) {
        self.letters[side(number + 1)].fill(None);
        self.fetching.fill(None);
    }

    pub(crate) fn insert(&mut self, number: u64, rank: usize, letter: Letter) {
        self.letters[side(number)][rank].get_or_insert(letter);
    }

    pub(crate) fn letter(&self, number: u64, rank: usize) -> Option<Letter> {
        self.letters[side(number)][rank]
    }

    pub(crate) fn hello(&self, number: u64, rank: usize) -> Option<Hello> {
        self.letter(number, rank)?.hello
    }

    /// Whose hellos of the calls before, at and after `number` are here.
    pub(crate) fn held(&self, number: u64) -> [Ranks; 3] {
        core::array::from_fn(|at| {
            let Some(number) = (number + at as u64).checked_sub(1) else { return Ranks::default() };
            let letters = self.letters[side(number)].iter().enumerate();
            letters
                .filter(|(_, letter)| letter.is_some())
                .fold(Ranks::default(), |held, (rank, _)| held.with(rank))
        })
    }

    pub(crate) fn handle_flush(&mut self, from: usize, number: u32, dead: Ranks, held: [Ranks; 3]) {
        self.flushes[from] = Some(Flush { number, dead, held });
    }

    pub(crate) fn handle_dead(&mut self, rank: usize) {
        for from in &mut self.fetching {
            from.take_if(|from| *from == rank);
        }
    }

    /// Who has made call `number`; `others` live.
    pub(crate) fn resolve(&mut self, number: u64, ranks: usize, others: Ranks, dead: Ranks) -> Known {
        let (mut present, mut waits, mut fetches) = (Ranks::default(), false, Vec::new());
        for rank in 0..ranks {
            if self.letter(number, rank).is_some() {
                present = present.with(rank);
                continue;
            }
            if !dead.contains(rank) {
                waits = true;
                continue;
            }
            let told = |other: usize| self.flushes[other].filter(|flush| dead.without(flush.dead).is_empty());
            if others.iter().any(|other| told(other).is_none()) {
                waits = true;
            } else if let Some(holder) =
                others.iter().find(|other| told(*other).is_some_and(|flush| flush.holds(number, rank)))
            {
                waits = true;
                if self.fetching[rank].is_none() {
                    self.fetching[rank] = Some(holder);
                    fetches.push((rank, holder));
                }
            }
        }
        if waits { Known::Wait(fetches) } else { Known::Present(present) }
    }

    /// What those who are present called for.
    pub(crate) fn verdict(&self, number: u64, present: Ranks) -> Result<(), CallError> {
        let hello = |rank: usize| self.hello(number, rank);
        let call = agree(present, |rank| hello(rank)?.call)?;
        if let Some(rank) = present.iter().find(|rank| hello(*rank).is_some_and(|hello| hello.unfit)) {
            return Err(CallError::Place { rank: rank as u8 });
        }
        let setup = |rank: usize| hello(rank).map(|hello| hello.setup);
        let first = present.iter().next().unwrap_or(0);
        if let Some(other) = present.iter().find(|rank| setup(*rank) != setup(first)) {
            return Err(CallError::Shares { first: first as u8, other: other as u8 });
        }
        match call.operation {
            Operation::Broadcast { root } if !present.contains(root.into()) => {
                Err(CallError::RootGone { root })
            }
            _ => Ok(()),
        }
    }
}

impl Flush {
    fn holds(&self, number: u64, rank: usize) -> bool {
        let at = (number as u32).wrapping_sub(self.number).wrapping_add(1);
        self.held.get(at as usize).is_some_and(|held| held.contains(rank))
    }
}

fn side(number: u64) -> usize {
    (number % SIDES) as usize
}
