//! How ranks of one host meet: each opens a door, knocks at everybody else's, and maps what it is handed.
//!
//! ```text
//! segment of a rank:  board | bell | mail, 2 sides | scratch | tensors
//! ```

use super::GroupError;
use plesio_collective::{BOARD_WORDS, Board, MAIL_BYTES, Ranks, SCRATCH_BYTES};
use plesio_memory::{
    Access, ArenaReport, Door, KnockError, Offer, PAGE_BYTES, Segment, SegmentPlan, Tether, knock,
};
use rustix::thread::{CpuSet, sched_getaffinity};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// What every rank of a group knows before they meet.
#[derive(Clone, Debug)]
pub struct SharedPlan {
    /// A folder of this user's that nobody else can enter (mode 0700); it is made when it is missing.
    pub folder: PathBuf,
    /// Names the group in that folder: letters, digits, `-` and `_`.
    pub name: String,
    /// The same number on every rank, another one for every group that ever used that name.
    pub generation: u64,
    /// This rank.
    pub rank: u8,
    /// How many ranks there are, 1 to 32.
    pub ranks: u8,
    /// Bytes of every rank's tensors.
    pub tensor_bytes: usize,
    /// How long a call waits for a rank that lives.
    pub deadline: Duration,
}

/// What one rank has of another, or of itself.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) segment: Segment,
    /// To the process; none to this one.
    pub(super) tether: Option<Tether>,
    /// What this rank handed over; it ends when this process does.
    _visitor: Option<Tether>,
}

/// Where things lie in a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) scratch: usize,
    pub(super) tensors: usize,
    pub(super) tensor_bytes: u64,
    len_bytes: usize,
}

/// The futex word of a rank, and whether it sleeps on it.
pub(super) const BELL: usize = BOARD_WORDS * size_of::<u64>();
pub(super) const SLEEPS: usize = BELL + 64;
/// The cores that a rank may run on, a bit each; of more than 64 some share one.
pub(super) const CORES: usize = BELL + 128;
const MAIL: usize = BELL + PAGE_BYTES;
/// What lies in the segment of a rank.
const KIND: u16 = 2;

impl Layout {
    fn new(tensor_bytes: usize) -> Option<Self> {
        let scratch = MAIL + 2 * MAIL_BYTES as usize;
        let tensors = (scratch + SCRATCH_BYTES as usize).next_multiple_of(PAGE_BYTES);
        let len_bytes = tensors.checked_add(tensor_bytes)?.checked_next_multiple_of(PAGE_BYTES)?;
        Some(Self { scratch, tensors, tensor_bytes: tensor_bytes as u64, len_bytes })
    }

    pub(super) fn mail(&self, number: u64) -> usize {
        MAIL + (number % 2) as usize * MAIL_BYTES as usize
    }

    /// Where `len` bytes of the tensors lie in the segment.
    pub(super) fn tensor(&self, offset_bytes: usize, len: usize) -> Option<usize> {
        let end = offset_bytes.checked_add(len)?;
        (end as u64 <= self.tensor_bytes).then_some(self.tensors + offset_bytes)
    }
}

/// A member's words.
pub(super) fn board(member: &Member) -> Option<Board<'_>> {
    Board::new(member.segment.words64(0, BOARD_WORDS).ok()?)
}

/// Meets the others; see [`super::SharedGroup::form`].
pub(super) fn form(
    plan: &SharedPlan,
    until: Instant,
) -> Result<(Layout, Vec<Member>, ArenaReport), GroupError> {
    let refuse = |rule| Err(GroupError::Plan { rule });
    let ranks = usize::from(plan.ranks);
    if ranks == 0 || ranks > Ranks::MAX || plan.rank >= plan.ranks {
        return refuse("a group has 1 to 32 ranks, numbered from 0");
    }
    let named = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if plan.name.is_empty() || plan.name.len() > 40 || !plan.name.chars().all(named) {
        return refuse("its name is 1 to 40 letters, digits, - and _");
    }
    let Some(layout) = Layout::new(plan.tensor_bytes) else {
        return refuse("its tensors are larger than the address space");
    };
    let memory = SegmentPlan {
        name: format!("plesio-{}-{}", plan.name, plan.rank),
        len_bytes: layout.len_bytes,
        access: Access::Shared,
        budget_bytes: layout.len_bytes,
    };
    let (segment, report) = Segment::create(&memory).map_err(GroupError::Arena)?;
    if let Ok([cores, ..]) = segment.words64(CORES, 1) {
        cores.store(own_cores(), Ordering::Relaxed);
    }
    if ranks == 1 {
        return Ok((layout, vec![Member { segment, tether: None, _visitor: None }], report));
    }
    let door_of = |rank: usize| format!("{}-{rank}", plan.name);
    let door = Door::open(&plan.folder, &door_of(plan.rank.into())).map_err(GroupError::Door)?;
    let offer = Offer {
        kind: KIND,
        len_bytes: layout.len_bytes as u64,
        generation: plan.generation,
        tag: u64::from(plan.rank),
    };
    // Everybody knocks while everybody answers.
    let (visitors, handed) = thread::scope(|scope| {
        let answering = thread::Builder::new()
            .name("answer".into())
            .spawn_scoped(scope, || answer(&door, &offer, &segment, ranks - 1, until))?;
        let mut handed = Vec::new();
        for rank in (0..ranks).filter(|rank| *rank != usize::from(plan.rank)) {
            handed.push(visit(plan, rank, &door_of(rank), layout.len_bytes, until));
        }
        let visitors = answering.join().expect("answering does not panic");
        Ok((visitors, handed))
    })
    .map_err(GroupError::Thread)?;
    let visitors = visitors?;
    let mut others = handed.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter();
    let mut visitors = visitors.into_iter();
    let mut own = Some(segment);
    let members = (0..ranks).map(|rank| {
        if rank == usize::from(plan.rank) {
            let segment = own.take().expect("there is one own rank");
            return Member { segment, tether: None, _visitor: None };
        }
        let (segment, tether) = others.next().expect("one for every other rank");
        Member { segment, tether: Some(tether), _visitor: visitors.next() }
    });
    let members: Vec<Member> = members.collect();
    Ok((layout, members, report))
}

/// The cores that this thread may run on; one, where the kernel does not say.
fn own_cores() -> u64 {
    let Ok(set) = sched_getaffinity(None) else { return 1 };
    let mine = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core));
    mine.fold(0, |cores, core| cores | 1 << (core % 64))
}

/// Hands the own segment to as many visitors as there are other ranks.
fn answer(
    door: &Door,
    offer: &Offer,
    segment: &Segment,
    expected: usize,
    until: Instant,
) -> Result<Vec<Tether>, GroupError> {
    let file = segment.file().expect("a segment that was created has a file");
    let mut visitors = Vec::with_capacity(expected);
    while visitors.len() < expected {
        match door.answer(offer, file) {
            Ok(Some(tether)) => visitors.push(tether),
            Ok(None) if Instant::now() >= until => {
                return Err(GroupError::Alone { came: visitors.len(), expected });
            }
            Ok(None) => thread::sleep(RETRY),
            // A visitor who left or was not let in; the door stays open.
            Err(_) if Instant::now() < until => {}
            Err(cause) => return Err(GroupError::Door(cause)),
        }
    }
    Ok(visitors)
}

/// Maps the segment of one other rank.
fn visit(
    plan: &SharedPlan,
    rank: usize,
    door: &str,
    len_bytes: usize,
    until: Instant,
) -> Result<(Segment, Tether), GroupError> {
    let path = plan.folder.join(door);
    let handed = loop {
        match knock(&path, until) {
            Ok(handed) => break handed,
            // It has not opened yet, or an earlier group's name lies there still.
            Err(KnockError::Nobody { .. } | KnockError::Closed) if Instant::now() < until => {
                thread::sleep(RETRY);
            }
            Err(cause) => return Err(GroupError::Knock { rank: rank as u8, cause }),
        }
    };
    handed
        .attach(KIND, plan.generation, len_bytes, Access::Shared)
        .map_err(|cause| GroupError::Attach { rank: rank as u8, cause })
}

const RETRY: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_pinned_says_so() {
        let all = own_cores();
        let first = all.trailing_zeros() as usize;
        let pinned = thread::spawn(move || {
            let mut one = CpuSet::new();
            one.set(first);
            rustix::thread::sched_setaffinity(None, &one).expect("one of its own cores");
            own_cores()
        });
        assert_eq!(pinned.join().expect("it does not panic"), 1 << first);
        assert_eq!(own_cores(), all);
    }
}
