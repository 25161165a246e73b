//! Ranks of one group in one thread, in an order drawn by a seed, some of them killed between any two steps or in the
//! middle of one.

use super::*;
use crate::call::Element;
use std::vec::Vec;

/// xorshift64*: which rank acts next and where it dies.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }
}

struct World {
    words: Vec<Vec<AtomicU64>>,
    tensors: Vec<Vec<i64>>,
    mail: Vec<[Vec<i64>; 2]>,
    scratch: Vec<Vec<i64>>,
    dead: Ranks,
}

impl World {
    fn new(ranks: usize, count: usize) -> Self {
        let words = (0..ranks).map(|_| (0..BOARD_WORDS).map(|_| AtomicU64::new(0)).collect()).collect();
        Self {
            words,
            tensors: (0..ranks).map(|rank| (0..count).map(|at| first(rank, at)).collect()).collect(),
            mail: vec![[Vec::new(), Vec::new()]; ranks],
            scratch: vec![Vec::new(); ranks],
            dead: Ranks::default(),
        }
    }

    fn boards(&self) -> Vec<Board<'_>> {
        self.words.iter().map(|words| Board::new(words).expect("all the words")).collect()
    }

    fn begin(&mut self, number: u64, me: usize, call: Call) -> Meeting {
        if is_mail(&call) {
            self.mail[me][(number % 2) as usize] = self.tensors[me].clone();
        }
        Meeting::new(number, me, call, Places::default(), u64::MAX, &self.boards())
    }

    /// Does one step; with `dies_at` only so much of it.
    fn step(&mut self, meeting: &mut Meeting, me: usize, dies: Option<&mut Draw>) -> Result<Step, CallError> {
        let step = meeting.poll(&self.boards(), self.dead)?;
        let call = meeting.call;
        let present = meeting.present();
        let block_elements = meeting.block_elements();
        let outputs = |owner: usize| {
            let only = call.operation == Operation::ReduceScatter;
            present.iter().filter(move |rank| !only || *rank == owner).collect::<Vec<_>>()
        };
        match &step {
            Step::Wait | Step::Over(_) => {}
            Step::Mail(ranks) => {
                let side = (meeting.number % 2) as usize;
                for at in 0..call.count as usize {
                    self.tensors[me][at] = ranks.iter().map(|rank| self.mail[rank][side][at]).sum();
                }
            }
            Step::Reduce(part) => {
                let blocks = (part.elements.end - part.elements.start).div_ceil(block_elements);
                let last = dies.as_ref().map_or(blocks, |_| 0);
                let mut draw = dies;
                let last = draw.as_mut().map_or(last, |draw| draw.below(blocks));
                for block in 0..blocks {
                    let start = part.elements.start + block * block_elements;
                    let elements = start..part.elements.end.min(start + block_elements);
                    let sum = |at| present.iter().map(|rank| self.tensors[rank][at as usize]).sum();
                    self.scratch[me] = elements.clone().map(sum).collect();
                    if block == last && draw.as_mut().is_some_and(|draw| draw.below(2) == 0) {
                        // Dead with a sum that nobody heard of: the scratch may hold anything.
                        self.scratch[me].fill(-1);
                        return Ok(step);
                    }
                    meeting.handle_staged(&self.boards());
                    let left = draw.as_mut().map(|draw| draw.below(4 * block_elements));
                    let left = if block == last { left } else { None };
                    let outputs = outputs(part.owner);
                    if !self.spread(&outputs, elements, me, left) {
                        return Ok(step);
                    }
                    meeting.handle_spread(&self.boards());
                }
            }
            Step::Spread(part, from) => {
                let left = dies.map(|draw| draw.below(2 * (part.elements.end - part.elements.start)));
                let outputs = outputs(part.owner);
                if self.spread(&outputs, part.elements.clone(), *from, left) {
                    meeting.handle_spread(&self.boards());
                }
            }
            Step::Copy(part, from) => {
                for rank in outputs(part.owner) {
                    for at in part.elements.clone() {
                        self.tensors[rank][at as usize] = self.tensors[*from][at as usize];
                    }
                }
                if dies.is_none() {
                    meeting.handle_copied(&self.boards());
                }
            }
        }
        Ok(step)
    }

    /// Writes a staged block to the outputs, or so many of its elements; true when it lived to the end.
    fn spread(
        &mut self,
        outputs: &[usize],
        elements: Range<u64>,
        from: usize,
        mut left: Option<u64>,
    ) -> bool {
        for &rank in outputs {
            for at in elements.clone() {
                match &mut left {
                    Some(0) => return false,
                    Some(left) => *left -= 1,
                    None => {}
                }
                self.tensors[rank][at as usize] = self.scratch[from][(at - elements.start) as usize];
            }
        }
        left.is_none()
    }
}

fn first(rank: usize, at: usize) -> i64 {
    (at as i64 % 1009 + 1) << (rank * 4)
}

/// Runs `calls` on `ranks` ranks in an order drawn by `seed`, and kills `kills` of them.
fn story(seed: u64, ranks: usize, calls: &[Call], kills: usize) {
    let mut draw = Draw(seed * 0x9E37_79B9 + 1);
    let count = calls.iter().map(|call| call.count as usize).max().unwrap_or(0);
    let mut world = World::new(ranks, count);
    let mut at = vec![0usize; ranks];
    let mut meetings: Vec<Option<Meeting>> = (0..ranks).map(|_| None).collect();
    let mut results: Vec<Vec<(Ranks, Vec<i64>)>> = vec![Vec::new(); ranks];
    let mut to_kill = kills;
    let mut idle = 0;
    while (0..ranks).any(|rank| !world.dead.contains(rank) && at[rank] < calls.len()) {
        let rank = draw.below(ranks as u64) as usize;
        if world.dead.contains(rank) || at[rank] == calls.len() {
            continue;
        }
        let call = calls[at[rank]];
        if meetings[rank].is_none() {
            for (place, value) in world.tensors[rank].iter_mut().enumerate() {
                *value = first(rank, place);
            }
            meetings[rank] = Some(world.begin(at[rank] as u64 + 1, rank, call));
        }
        let mut meeting = meetings[rank].take().expect("was begun");
        let dies = to_kill > 0 && draw.below(60) == 0;
        let step = world.step(&mut meeting, rank, dies.then_some(&mut draw)).expect("they agree");
        if dies {
            to_kill -= 1;
            world.dead = world.dead.with(rank);
            continue;
        }
        idle = if step == Step::Wait { idle + 1 } else { 0 };
        assert!(idle < 100_000, "seed {seed}: everybody waits");
        if let Step::Over(present) = step {
            results[rank].push((present, world.tensors[rank].clone()));
            at[rank] += 1;
        } else {
            meetings[rank] = Some(meeting);
        }
    }
    for (number, call) in calls.iter().enumerate() {
        let mut told: Option<Ranks> = None;
        for rank in (0..ranks).filter(|rank| !world.dead.contains(*rank)) {
            let (present, tensor) = &results[rank][number];
            assert_eq!(
                *told.get_or_insert(*present),
                *present,
                "seed {seed}: who took part in call {number}"
            );
            for (element, found) in tensor.iter().enumerate().take(call.count as usize) {
                let sum: i64 = present.iter().map(|rank| first(rank, element)).sum();
                let owner =
                    (0..ranks).find(|owner| range(call.count, ranks, *owner).contains(&(element as u64)));
                let owner = owner.expect("every element is owned");
                let wanted = match call.operation {
                    Operation::AllReduce => sum,
                    Operation::ReduceScatter if owner == rank => sum,
                    Operation::ReduceScatter => first(rank, element),
                    Operation::AllGather if present.contains(owner) => first(owner, element),
                    Operation::AllGather => first(rank, element),
                    Operation::Broadcast { root } => first(root.into(), element),
                };
                assert_eq!(*found, wanted, "seed {seed}, {call}, rank {rank}, element {element}");
            }
        }
    }
}

fn call(operation: Operation, count: u64) -> Call {
    Call { operation, element: Element::F32, count }
}

#[test]
fn everybody_has_the_sum_in_any_order_of_steps() {
    for seed in 0..40 {
        let ranks = 1 + seed as usize % 8;
        let calls: Vec<Call> =
            [20_000, 0, 1, 9_001, 2048, 2049].map(|count| call(Operation::AllReduce, count)).into();
        story(seed, ranks, &calls, 0);
    }
}

#[test]
fn the_other_operations_put_every_range_in_its_place() {
    for seed in 0..30 {
        let ranks = 1 + seed as usize % 5;
        let calls = [
            call(Operation::ReduceScatter, 10_007),
            call(Operation::AllGather, 10_007),
            call(Operation::Broadcast { root: (ranks - 1) as u8 }, 5_000),
            call(Operation::ReduceScatter, 3),
            call(Operation::AllGather, 1),
        ];
        story(seed, ranks, &calls, 0);
    }
}

#[test]
fn a_rank_killed_anywhere_leaves_the_same_sum_to_all_that_live() {
    for seed in 0..150 {
        let ranks = 2 + seed as usize % 5;
        let calls = [
            call(Operation::AllReduce, 60_000),
            call(Operation::AllReduce, 100),
            call(Operation::AllReduce, 30_000),
        ];
        story(seed, ranks, &calls, 1 + seed as usize % (ranks - 1));
    }
}

#[test]
fn a_disagreement_is_told_to_everybody_and_the_next_call_works() {
    let mut world = World::new(3, 4096);
    let good = call(Operation::AllReduce, 4096);
    let bad = Call { element: Element::I32, ..good };
    let mut meetings: Vec<Meeting> =
        (0..3).map(|rank| world.begin(1, rank, if rank == 1 { bad } else { good })).collect();
    for (rank, meeting) in meetings.iter_mut().enumerate() {
        let verdict = world.step(meeting, rank, None);
        assert_eq!(verdict, Err(CallError::Mismatch { first: (0, good), other: (1, bad) }), "rank {rank}");
    }
    assert_eq!(world.tensors[2][5], first(2, 5), "nothing was touched");
    let mut meetings: Vec<Meeting> = (0..3).map(|rank| world.begin(2, rank, good)).collect();
    let mut over = 0;
    while over < 3 {
        over = 0;
        for (rank, meeting) in meetings.iter_mut().enumerate() {
            over += usize::from(matches!(world.step(meeting, rank, None), Ok(Step::Over(_))));
        }
    }
    assert_eq!(world.tensors[2][5], (0..3).map(|rank| first(rank, 5)).sum::<i64>());
}

#[test]
fn a_broadcast_from_one_that_is_gone_or_never_was_is_an_error() {
    let mut world = World::new(2, 10_000);
    world.dead = Ranks::default().with(1);
    for (number, root) in [(1, 1), (2, 7)] {
        let mut meeting = world.begin(number, 0, call(Operation::Broadcast { root }, 10_000));
        assert_eq!(world.step(&mut meeting, 0, None), Err(CallError::RootGone { root }));
    }
}

#[test]
fn words_that_no_call_has_name_their_writer() {
    let world = World::new(2, 10);
    let mut meeting =
        Meeting::new(1, 0, call(Operation::AllReduce, 10), Places::default(), u64::MAX, &world.boards());
    world.words[1][LINE_WORDS + 1].store(0xFFFF_FFFF, Ordering::Relaxed);
    world.words[1][LINE_WORDS].store(1, Ordering::Release);
    assert_eq!(meeting.poll(&world.boards(), Ranks::default()), Err(CallError::Unreadable { rank: 1 }));
}

#[test]
fn chunks_of_any_tensor_fit_the_board() {
    for ranks in [1, 2, 3, 8, 31, 32] {
        let world = World::new(ranks, 0);
        for count in [1, 1 << 10, (1 << 20) + 1, 1 << 28, 1 << 30] {
            for element in [Element::F32, Element::Bf16] {
                let call = Call { operation: Operation::AllReduce, element, count };
                let meeting = Meeting::new(1, 0, call, Places::default(), u64::MAX, &world.boards());
                assert!(meeting.chunks_each * ranks <= CHUNKS_MAX, "{ranks} {count}");
                let blocks = meeting.chunk_elements.div_ceil(meeting.block_elements());
                assert!(blocks < DONE, "{ranks} {count}");
                let all = 0..meeting.chunks_each * ranks;
                let last = all.clone().map(|chunk| meeting.rest(chunk, 0).elements.end).max();
                let sum: u64 =
                    all.map(|chunk| meeting.rest(chunk, 0).elements).map(|part| part.end - part.start).sum();
                assert_eq!(sum, count);
                assert!(last.is_some_and(|end| end <= count));
            }
        }
    }
}

#[test]
fn places_outside_or_in_each_others_way_are_told_to_everybody() {
    let world = World::new(2, 0);
    let call = call(Operation::AllReduce, 100);
    let good = Places { input: 0, output: 400 };
    for (bad, bytes) in [
        (Places { input: 0, output: 399 }, 1000),
        (Places { input: 0, output: 4 }, 1000),
        (Places { input: 2, output: 402 }, 1000),
        (Places { input: 0, output: 404 }, 800),
        (Places { input: u64::MAX - 3, output: 0 }, 1000),
    ] {
        let boards = world.boards();
        let mut meetings =
            [Meeting::new(1, 0, call, good, bytes, &boards), Meeting::new(1, 1, call, bad, bytes, &boards)];
        for meeting in &mut meetings {
            assert_eq!(meeting.poll(&boards, Ranks::default()), Err(CallError::Place { rank: 1 }), "{bad:?}");
        }
    }
    assert!(Places::in_place(8).fit(&call, 408));
}
