//! Ranks that work on tensors together, as library calls: `all_reduce` and its kin.
//!
//! A [`SharedGroup`] is of processes on one host: each brings a sealed segment with its tensors and maps the others', so
//! nothing is copied to be sent. The schedule is `plesio_collective`'s [`Meeting`]; here are memory, waiting and the
//! kernels. Calls are made by the thread that owns the group, and no other thread exists afterwards.

mod compute;
mod error;
mod form;
mod network;
mod port;
mod wait;

pub use error::GroupError;
pub use form::SharedPlan;
pub use network::{Excluder, Narrowing, NetworkGroup, NetworkPlan};

use form::{Layout, Member};
use plesio_collective::{
    Board, CALLS_MAX, Call, Element, Meeting, Operation, Part, Places, Ranks, Step, is_mail,
};
use plesio_cpu::{Lane, SharedSums, Tensor};
use plesio_memory::ArenaReport;
use std::ops::Range;
use std::time::{Duration, Instant};
use wait::Waiting;

/// The ranks of one group on this host.
#[derive(Debug)]
pub struct SharedGroup {
    layout: Layout,
    me: usize,
    members: Vec<Member>,
    report: ArenaReport,
    sums: SharedSums,
    dead: Ranks,
    /// Number of the last call.
    number: u64,
    broken: bool,
    deadline: Duration,
    waiting: Waiting,
}

impl SharedGroup {
    /// Meets the other ranks, each of which forms its part of the same plan, and maps their memory.
    ///
    /// # Errors
    /// A plan that cannot be, memory that cannot be had, a folder that others can reach, or a rank that did not come until
    /// `until`.
    pub fn form(plan: &SharedPlan, until: Instant) -> Result<Self, GroupError> {
        let (layout, members, report) = form::form(plan, until)?;
        Ok(Self {
            layout,
            me: usize::from(plan.rank),
            waiting: Waiting::new(&members),
            members,
            report,
            sums: SharedSums::detect(),
            dead: Ranks::default(),
            number: 0,
            broken: false,
            deadline: plan.deadline,
        })
    }

    /// This rank's number.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.me
    }

    /// How many ranks the group began with.
    #[must_use]
    pub fn ranks(&self) -> usize {
        self.members.len()
    }

    /// Ranks whose processes have ended.
    #[must_use]
    pub fn dead(&self) -> Ranks {
        self.dead
    }

    /// What memory was obtained.
    #[must_use]
    pub fn report(&self) -> &ArenaReport {
        &self.report
    }

    /// Writes into this rank's tensors, `offset_bytes` from where they begin.
    ///
    /// # Errors
    /// Bytes that do not lie there.
    pub fn write(&self, offset_bytes: usize, from: &[u8]) -> Result<(), GroupError> {
        let at = self.layout.tensor(offset_bytes, from.len()).ok_or(GroupError::Range)?;
        self.members[self.me].segment.copy_in(at, from).map_err(GroupError::Access)
    }

    /// Reads this rank's tensors.
    ///
    /// # Errors
    /// Bytes that do not lie there.
    pub fn read(&self, offset_bytes: usize, into: &mut [u8]) -> Result<(), GroupError> {
        let at = self.layout.tensor(offset_bytes, into.len()).ok_or(GroupError::Range)?;
        self.members[self.me].segment.copy_out(at, into).map_err(GroupError::Access)
    }

    /// The sum of everybody's tensors, to everybody, in rank order; the ranks that it is made of.
    ///
    /// # Errors
    /// See [`Self::call`].
    pub fn all_reduce(&mut self, element: Element, count: u64, places: Places) -> Result<Ranks, GroupError> {
        self.call(Call { operation: Operation::AllReduce, element, count }, places)
    }

    /// To rank r the range r of the sum, written where it lies in the whole.
    ///
    /// # Errors
    /// See [`Self::call`].
    pub fn reduce_scatter(
        &mut self,
        element: Element,
        count: u64,
        places: Places,
    ) -> Result<Ranks, GroupError> {
        self.call(Call { operation: Operation::ReduceScatter, element, count }, places)
    }

    /// To everybody the range r of rank r's tensor, for all r.
    ///
    /// # Errors
    /// See [`Self::call`].
    pub fn all_gather(&mut self, element: Element, count: u64, places: Places) -> Result<Ranks, GroupError> {
        self.call(Call { operation: Operation::AllGather, element, count }, places)
    }

    /// To everybody the tensor of rank `root`.
    ///
    /// # Errors
    /// See [`Self::call`].
    pub fn broadcast(
        &mut self,
        root: u8,
        element: Element,
        count: u64,
        places: Places,
    ) -> Result<Ranks, GroupError> {
        self.call(Call { operation: Operation::Broadcast { root }, element, count }, places)
    }

    /// Makes one call together with all ranks; every rank that lives must make it. A rank that dies before it made the
    /// call is left out, one that dies later is finished for: the result is the same on all that live.
    ///
    /// # Errors
    /// The ranks called for different things (told to all, nothing was touched, the group goes on), or a rank that lives
    /// did not act within the group's deadline: then the group is broken, for it may still write.
    pub fn call(&mut self, call: Call, places: Places) -> Result<Ranks, GroupError> {
        if self.broken || self.number == CALLS_MAX - 1 {
            return Err(GroupError::Broken);
        }
        self.number += 1;
        let (number, me) = (self.number, self.me);
        // A tensor that cannot lie there is posted all the same: the others wait for this call, and the error is theirs too.
        if is_mail(&call) && places.fit(&call, self.layout.tensor_bytes) {
            let (mail, tensor) = (self.mail(me, number), self.tensor(me, places.input));
            self.sums
                .copy(lane(call.element), tensor, [mail].into_iter(), &(0..call.count as usize))
                .map_err(GroupError::Access)?;
        }
        let began = Instant::now();
        let boards = self.boards();
        let mut meeting = Meeting::new(number, me, call, places, self.layout.tensor_bytes, &boards);
        self.waiting.posted(&self.members, me, |rank| boards[rank].has_posted(number));
        let mut dead = self.dead;
        let outcome = loop {
            match meeting.poll(&boards, dead) {
                Ok(Step::Wait) => {
                    let acts = |dead| meeting.is_ready(&boards, dead);
                    dead = self.waiting.wait(&self.members, me, dead, acts);
                    if began.elapsed() > self.deadline {
                        break Err(GroupError::Late {
                            ranks: meeting.awaited(&boards).without(dead),
                            after: self.deadline,
                        });
                    }
                }
                Ok(Step::Over(present)) => break Ok(present),
                Ok(step) => {
                    if let Err(error) = self.work(&mut meeting, &boards, &call, step) {
                        break Err(error);
                    }
                }
                Err(error) => break Err(GroupError::Call(error)),
            }
        };
        self.waiting.done(&self.members, me);
        self.dead = dead;
        self.broken = !matches!(outcome, Ok(_) | Err(GroupError::Call(_)));
        outcome
    }

    /// What no schedule can beat, for a bench: this rank's range of everybody's tensors at `offset_bytes` is summed in place,
    /// by the same kernel, without agreement, without looking at the others. All ranks do it at the same time, and nothing
    /// that matters lies there.
    ///
    /// # Errors
    /// Tensors that do not lie there.
    pub fn one_pass(&self, element: Element, count: u64, offset_bytes: u64) -> Result<(), GroupError> {
        let call = Call { operation: Operation::AllReduce, element, count };
        if !Places::in_place(offset_bytes).fit(&call, self.layout.tensor_bytes) {
            return Err(GroupError::Range);
        }
        let own = plesio_collective::range(count, self.members.len(), self.me);
        let tensors = (0..self.members.len()).map(|rank| self.tensor(rank, offset_bytes));
        let own_scratch =
            Tensor { segment: &self.members[self.me].segment, offset_bytes: self.layout.scratch };
        let own = own.start as usize..own.end as usize;
        let block = plesio_collective::block_elements(element, self.members.len()) as usize;
        self.sums
            .reduce(lane(element), tensors.clone(), tensors, &own, block, own_scratch, &mut |_| {})
            .map_err(GroupError::Access)
    }

    fn work(
        &self,
        meeting: &mut Meeting,
        boards: &[Board<'_>],
        call: &Call,
        step: Step,
    ) -> Result<(), GroupError> {
        let lane = lane(call.element);
        let present = meeting.present();
        let scratch =
            |rank: usize| Tensor { segment: &self.members[rank].segment, offset_bytes: self.layout.scratch };
        let place_of = |rank: usize, output: bool| {
            let places = meeting.places(boards, rank);
            let at = if output { places.output } else { places.input };
            // Checked when all had posted; one who writes something else there afterwards gets its own tensors wrong.
            if places.fit(call, self.layout.tensor_bytes) { at } else { 0 }
        };
        // Looked up once: while a part is at work its meeting is told how far it is.
        let mut places = [(0, 0); Ranks::MAX];
        for rank in present.iter() {
            places[rank] = (place_of(rank, false), place_of(rank, true));
        }
        let place = |rank: usize, output: bool| {
            self.tensor(rank, if output { places[rank].1 } else { places[rank].0 })
        };
        let outputs = |owner: usize| {
            let only = call.operation == Operation::ReduceScatter;
            present.iter().filter(move |rank| !only || *rank == owner).map(|rank| place(rank, true))
        };
        let own = scratch(self.me);
        let block = meeting.block_elements() as usize;
        let result = match step {
            Step::Reduce(part) => {
                let inputs = present.iter().map(|rank| place(rank, false));
                let outputs = outputs(part.owner);
                let mut mark = |staged: bool| {
                    if staged { meeting.handle_staged(boards) } else { meeting.handle_spread(boards) }
                };
                self.sums.reduce(lane, inputs, outputs, &elements(&part), block, own, &mut mark)
            }
            Step::Spread(part, from) => {
                let done = self.sums.spread(lane, scratch(from), outputs(part.owner), &elements(&part));
                meeting.handle_spread(boards);
                done
            }
            Step::Copy(part, from) => {
                let done = self.sums.copy(lane, place(from, false), outputs(part.owner), &elements(&part));
                meeting.handle_copied(boards);
                done
            }
            Step::Mail(present) => {
                let inputs = present.iter().map(|rank| self.mail(rank, meeting.number()));
                let output = [place(self.me, true)].into_iter();
                self.sums.reduce(lane, inputs, output, &(0..call.count as usize), block, own, &mut |_| {})
            }
            Step::Wait | Step::Over(_) => Ok(()),
        };
        result.map_err(GroupError::Access)
    }

    fn boards(&self) -> Vec<Board<'_>> {
        let board = |member| form::board(member).expect("every segment was found to hold a board");
        self.members.iter().map(board).collect()
    }

    fn tensor(&self, rank: usize, offset_bytes: u64) -> Tensor<'_> {
        let offset_bytes = self.layout.tensors.saturating_add(offset_bytes as usize);
        Tensor { segment: &self.members[rank].segment, offset_bytes }
    }

    fn mail(&self, rank: usize, number: u64) -> Tensor<'_> {
        Tensor { segment: &self.members[rank].segment, offset_bytes: self.layout.mail(number) }
    }
}

fn elements(part: &Part) -> Range<usize> {
    part.elements.start as usize..part.elements.end as usize
}

fn lane(element: Element) -> Lane {
    match element {
        Element::F32 => Lane::F32,
        Element::Bf16 => Lane::Bf16,
        Element::I32 => Lane::I32,
        _ => unreachable!("the kernels know every element"),
    }
}
