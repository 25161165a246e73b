//! Ranks that reach each other by datagrams: the same calls as [`super::SharedGroup`], bit for bit, over sockets.
//!
//! The schedule is `plesio_collective`'s [`Network`], the links are `plesio-proto`'s; here are the port, the memory and the
//! time. Everything happens inside the caller's calls. Between them [`NetworkGroup::turn`] keeps the links alive: other
//! ranks may still wait for the last of this one's words.

use super::GroupError;
use super::compute::{Compute, Residue, Sum, copy};
use super::port::Port;
use crate::node::{Protection, Trust};
use plesio_collective::{
    Call, CallError, Element, Network, NetworkAction as Action, Operation, Places, Ranks, Rates, TensorSpans,
    Work, range, shares,
};
use plesio_kernels::Codec;
use plesio_memory::{Arena, ArenaPlan, ArenaReport};
use plesio_proto::Event;
use plesio_udp::{Counters, Requested, WaitMode, Waker};
use plesio_wire::handshake::Suite;
use plesio_wire::{NodeId, Span};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What every rank of a group knows before they meet.
#[derive(Clone, Debug)]
pub struct NetworkPlan {
    /// The same number on every rank, another one for every group: ranks of another one are not heard.
    pub session: u64,
    /// This rank.
    pub rank: u8,
    /// How many ranks there are, 1 to 32.
    pub ranks: u8,
    /// Bytes of this rank's tensors, less than 4 GiB.
    pub tensor_bytes: u32,
    /// This rank's address; port 0 lets the kernel choose.
    pub bind: SocketAddr,
    /// Largest payload of a datagram; a multiple of 64, the same on every rank.
    pub chunk_bytes: u32,
    /// How datagrams reach the kernel.
    pub backend: Requested,
    /// How a call waits.
    pub wait: WaitMode,
    /// What protects its datagrams, the same on every rank.
    pub protection: Protection,
    /// Who can reach the network it is on.
    pub trust: Trust,
    /// Sealed, who the ranks are, in their order; nobody else is heard. In plaintext nobody looks at it.
    pub ids: Vec<NodeId>,
    /// How long a call may take.
    pub deadline: Duration,
}

/// How a sum of binary32 elements travels narrowed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Narrowing {
    /// Encodes every contribution once, and the sum once. The same on every rank.
    pub codec: Codec,
    /// Where in this rank's tensors what its codecs leave out is kept, to go with the next call: as many elements as
    /// the tensor, zero at first. `None`: it is lost. Of elements that moved by a death it may be off by one encoding's.
    pub residue: Option<u64>,
}

/// The ranks of one group, by datagrams. Dropped, it says goodbye, when the others have all it owes them: in one datagram
/// to each, and who misses it waits for this rank until its own deadline, unless it is excluded.
pub struct NetworkGroup {
    port: Port,
    arena: Arena,
    report: ArenaReport,
    network: Network,
    compute: Compute,
    plan: NetworkPlan,
    rates: Option<Vec<Rates>>,
    /// The call that is under way, or was last.
    now: Now,
    excluded: Arc<AtomicU32>,
    met: bool,
    broken: bool,
}

/// Tells a group from another thread which ranks are dead, also while it is in a call.
#[derive(Clone, Debug)]
pub struct Excluder {
    excluded: Arc<AtomicU32>,
    waker: Waker,
}

impl Excluder {
    /// As [`NetworkGroup::exclude`].
    pub fn exclude(&self, rank: u8) {
        self.excluded.fetch_or(1u32.checked_shl(rank.into()).unwrap_or(0), Ordering::Release);
        self.waker.wake();
    }
}

/// What actions of a call need to know of it.
#[derive(Clone, Copy)]
struct Now {
    element: Element,
    residue: Residue,
    outcome: Option<Result<Ranks, CallError>>,
}

pub(super) const TENSORS: u16 = 0;
pub(super) const WORK: u16 = 1;

impl NetworkGroup {
    /// Takes memory and a port; [`Self::local_address`] says which.
    ///
    /// # Errors
    /// A plan that cannot be, a ticket that no operator signed, memory that cannot be had, a port or a backend that is
    /// refused.
    pub fn open(plan: &NetworkPlan) -> Result<Self, GroupError> {
        let ranks = usize::from(plan.ranks);
        if ranks == 0 || ranks > Ranks::MAX || plan.rank >= plan.ranks {
            return Err(GroupError::Plan { rule: "a group has 1 to 32 ranks, numbered from 0" });
        }
        let mut layout = ArenaPlan::new("plesio-group", 0);
        layout.push(plan.tensor_bytes.max(1) as usize);
        layout.push(Network::region_bytes(ranks) as usize);
        // All that this group will ever take.
        layout.budget_bytes = layout.needed_bytes();
        let (arena, report) = Arena::map(&layout).map_err(GroupError::Arena)?;
        Ok(Self {
            port: Port::open(plan, &arena)?,
            arena,
            report,
            network: Network::new(plan.rank.into(), ranks, WORK),
            compute: Compute::new(),
            plan: plan.clone(),
            rates: None,
            now: Now { element: Element::F32, residue: Residue::default(), outcome: None },
            excluded: Arc::default(),
            met: false,
            broken: false,
        })
    }

    /// This rank's number.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.plan.rank.into()
    }

    /// How many ranks the group began with.
    #[must_use]
    pub fn ranks(&self) -> usize {
        self.port.ranks()
    }

    /// Where this rank is.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.port.local_address()
    }

    /// What memory was obtained.
    #[must_use]
    pub fn report(&self) -> &ArenaReport {
        &self.report
    }

    /// Remarks about this machine's sockets.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        self.port.notes()
    }

    /// What has happened at this rank's socket.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.port.counters()
    }

    /// What payload is sealed with; none in plaintext, or before another rank was met.
    #[must_use]
    pub fn suite(&self) -> Option<Suite> {
        self.port.suite()
    }

    /// Where all ranks are, this one included.
    ///
    /// # Errors
    /// Not one address a rank, or one that the port refuses.
    pub fn meet(&mut self, addresses: &[SocketAddr]) -> Result<(), GroupError> {
        if addresses.len() != self.ranks() {
            return Err(GroupError::Plan { rule: "there has to be one address for each rank" });
        }
        if std::mem::replace(&mut self.met, true) {
            return Err(GroupError::Plan { rule: "its ranks meet once" });
        }
        self.port.meet(&self.plan, addresses)
    }

    /// What the ranks can do, in their order and the same on all of them: from now on who is slow sums less in
    /// `all_reduce` and `broadcast`, tensors are cut so finely that sums return from the slowest soon, and small ones are
    /// sent whole only where that costs its link less than it spares. Before that all are taken to be alike, and fast.
    ///
    /// # Errors
    /// Not one a rank; a group that is broken.
    pub fn set_rates(&mut self, rates: &[Rates]) -> Result<(), GroupError> {
        if self.broken {
            return Err(GroupError::Broken);
        }
        if rates.len() != self.ranks() {
            return Err(GroupError::Plan { rule: "there have to be rates for each rank" });
        }
        self.network.set_rates(rates);
        self.rates = Some(rates.to_vec());
        Ok(())
    }

    /// Writes into this rank's tensors.
    ///
    /// # Errors
    /// Bytes that do not lie there.
    pub fn write(&self, offset_bytes: u32, from: &[u8]) -> Result<(), GroupError> {
        let len_bytes = u32::try_from(from.len()).map_err(|_| GroupError::Range)?;
        self.arena.write(Span { region: TENSORS, offset_bytes, len_bytes }, from).map_err(GroupError::Access)
    }

    /// Reads this rank's tensors.
    ///
    /// # Errors
    /// Bytes that do not lie there.
    pub fn read(&self, offset_bytes: u32, into: &mut [u8]) -> Result<(), GroupError> {
        let len_bytes = u32::try_from(into.len()).map_err(|_| GroupError::Range)?;
        self.arena.read(Span { region: TENSORS, offset_bytes, len_bytes }, into).map_err(GroupError::Access)
    }

    /// As [`super::SharedGroup::all_reduce`].
    ///
    /// # Errors
    /// See [`Self::call`].
    pub fn all_reduce(&mut self, element: Element, count: u64, places: Places) -> Result<Ranks, GroupError> {
        self.call(Call { operation: Operation::AllReduce, element, count }, places)
    }

    /// The sum of binary32 tensors that travel narrowed. One of at most
    /// [`Network::mail_bytes_max`], or less where [`Self::set_rates`] says that links are slow, travels as it is.
    ///
    /// # Errors
    /// See [`Self::call`]; a codec that is not everybody's is a disagreement. A residue that does not lie in this rank's
    /// tensors, or not apart from them.
    pub fn all_reduce_narrowed(
        &mut self,
        count: u64,
        places: Places,
        narrowing: Narrowing,
    ) -> Result<Ranks, GroupError> {
        let call = Call { operation: Operation::AllReduce, element: Element::F32, count };
        let bytes = call.bytes().unwrap_or(u64::MAX);
        if let Some(residue) = narrowing.residue {
            let apart = |place: u64| place.abs_diff(residue) >= bytes;
            let inside = residue.checked_add(bytes).is_some_and(|end| end <= self.plan.tensor_bytes.into());
            if !(inside && residue.is_multiple_of(4) && apart(places.input) && apart(places.output)) {
                return Err(GroupError::Range);
            }
        }
        self.make(call, places, narrowing)
    }

    /// Makes one call together with all ranks that live.
    ///
    /// # Errors
    /// The ranks called for different things (told to all, and the group goes on); or it was not over at its deadline,
    /// or the sockets broke: then the group is broken. Where a session is missing at the deadline, that is the error. A
    /// tensor that does not lie in this rank's memory is this rank's error alone: nothing was sent, and the others wait for
    /// a call that can be made, until their deadline.
    pub fn call(&mut self, call: Call, places: Places) -> Result<Ranks, GroupError> {
        self.make(call, places, Narrowing::default())
    }

    fn make(&mut self, call: Call, places: Places, narrowing: Narrowing) -> Result<Ranks, GroupError> {
        if self.broken {
            return Err(GroupError::Broken);
        }
        if !self.met {
            return Err(GroupError::Plan { rule: "its ranks have to meet before the first call" });
        }
        if !places.fit(&call, self.plan.tensor_bytes.into()) {
            return Err(GroupError::Range);
        }
        let len_bytes = call.bytes().unwrap_or(0) as u32;
        let span = |offset: u64| Span { region: TENSORS, offset_bytes: offset as u32, len_bytes };
        let spans = TensorSpans { input: span(places.input), output: span(places.output) };
        // Both lie in the tensors, which are smaller than 4 GiB.
        let distance = |place: u64| narrowing.residue.map(|residue| residue as i64 - place as i64);
        let residue = Residue { from_input: distance(places.input), from_output: distance(places.output) };
        self.now = Now { element: call.element, residue, outcome: None };
        let shares = self.shares(&call, narrowing.codec);
        let began = Instant::now();
        let mut outcome = match self.network.begin(call, spans, &shares, narrowing.codec) {
            Ok(()) => self.finish(began),
            Err(error) => Err(GroupError::Call(error)),
        };
        if let Err(GroupError::Call(CallError::Late { .. })) = outcome
            && let Some((ranks, refusal)) = self.port.unmet()
        {
            outcome = Err(GroupError::Unmet { ranks, after: self.plan.deadline, refusal });
        }
        let goes_on = !matches!(outcome, Err(GroupError::Call(CallError::Late { .. })));
        self.broken = !(goes_on && matches!(outcome, Ok(_) | Err(GroupError::Call(_))));
        outcome
    }

    /// What each rank sums.
    fn shares(&self, call: &Call, codec: Codec) -> Vec<Range<u64>> {
        let ranks = self.ranks();
        let Some(rates) = &self.rates else {
            return (0..ranks).map(|rank| range(call.count, ranks, rank)).collect();
        };
        let bytes = match codec {
            Codec::Full => call.bytes().unwrap_or(0),
            codec => codec.encoded_bytes(call.count as usize) as u64,
        };
        let work = Work {
            elements: call.count,
            contribution_bytes: bytes,
            result_bytes: bytes,
            grain_elements: Codec::GRAIN_ELEMENTS as u64,
        };
        shares(&work, rates)
    }

    fn finish(&mut self, began: Instant) -> Result<Ranks, GroupError> {
        loop {
            self.act()?;
            if let Some(outcome) = self.now.outcome.take() {
                self.port.transmit()?;
                return outcome.map_err(GroupError::Call);
            }
            self.turn(WAIT_MAX)?;
            if began.elapsed() > self.plan.deadline {
                self.network.handle_deadline();
            }
        }
    }

    /// Sends what is due, waits at most so long for something to come, and takes it.
    ///
    /// # Errors
    /// The sockets broke.
    pub fn turn(&mut self, limit: Duration) -> Result<(), GroupError> {
        self.port.transmit()?;
        self.port.receive(limit)?;
        self.hear()?;
        if !self.met {
            // What there is to do, and who is to be excluded, is of links that do not exist yet.
            return Ok(());
        }
        for rank in Ranks(self.excluded.swap(0, Ordering::Acquire)).iter() {
            self.exclude(rank as u8);
        }
        self.act()
    }

    /// A rank's process is gone for certain: nothing of it is taken any more.
    pub fn exclude(&mut self, rank: u8) {
        if !self.met {
            self.excluded.fetch_or(1u32.checked_shl(rank.into()).unwrap_or(0), Ordering::Release);
        } else if self.port.exclude(rank.into()) {
            self.network.handle_dead(rank);
        }
    }

    /// For another thread, which may know sooner than this one who is dead.
    #[must_use]
    pub fn excluder(&self) -> Excluder {
        Excluder { excluded: Arc::clone(&self.excluded), waker: self.port.waker() }
    }

    /// Which elements of the last result are made of whose contributions; see [`Network::made_of`].
    pub fn made_of(&self) -> impl Iterator<Item = (Range<u64>, Ranks)> {
        self.network.made_of()
    }

    /// Elements of the last call that this rank summed in place of one that died.
    #[must_use]
    pub fn redone_elements(&self) -> u64 {
        self.network.redone_elements()
    }

    /// What the links have to say, to the machine.
    fn hear(&mut self) -> Result<(), GroupError> {
        while let Some((rank, event)) = self.port.poll_event() {
            match event {
                Event::Received { message, span } => {
                    let mut head = [0; Network::HEAD_BYTES_MAX];
                    let len = Network::head_bytes(message.handle).min(span.len_bytes as usize);
                    let head = &mut head[..len];
                    self.arena
                        .read(Span { len_bytes: len as u32, ..span }, head)
                        .map_err(GroupError::Access)?;
                    self.network.handle_received(rank as u8, message, span.len_bytes, head);
                }
                Event::Delivered { message } => self.network.handle_sent(rank as u8, message),
                // It said so itself: its group is dropped, and it sends nothing more.
                Event::Gone { .. } => self.exclude(rank as u8),
                _ => {}
            }
        }
        Ok(())
    }

    /// Does what the machine wants done, also between calls: others may still need something of the last one.
    fn act(&mut self) -> Result<(), GroupError> {
        let Self { port, arena, network, compute, now, .. } = self;
        while let Some(action) = network.poll_action() {
            let done = match action {
                Action::Post { from, handle, sequence, span } => {
                    port.post(from, handle, sequence, span);
                    Ok(())
                }
                Action::Withdraw { from, handle } => {
                    port.withdraw(from, handle);
                    Ok(())
                }
                Action::Send { to, message, span } => {
                    port.send(to, message, span);
                    Ok(())
                }
                Action::Abort { to, message } => {
                    port.abort(to, message);
                    Ok(())
                }
                Action::Write { span, bytes } => arena.write(span, &bytes),
                Action::Copy { from, to } => copy(arena, from, to),
                Action::Encode { from, to, coding } => compute.encode(arena, from, to, coding, now.residue),
                Action::Decode { from, to, codec } => compute.decode(arena, from, to, codec),
                Action::Reduce { token, inputs, output, elements, codes } => {
                    let count = elements as usize;
                    let sum = Sum { element: now.element, count, inputs: &inputs, output, codes };
                    let done = compute.sum(arena, &sum, now.residue);
                    network.handle_reduced(token);
                    done
                }
                Action::Over(outcome) => {
                    now.outcome = Some(outcome);
                    Ok(())
                }
                _ => Ok(()),
            };
            done.map_err(GroupError::Access)?;
        }
        Ok(())
    }
}

impl Drop for NetworkGroup {
    fn drop(&mut self) {
        let began = Instant::now();
        while self.met && !self.broken && !self.port.is_settled() && began.elapsed() < LEAVE_MAX {
            if self.turn(WAIT_MAX).is_err() {
                break;
            }
        }
        self.port.say_goodbye();
    }
}

const WAIT_MAX: Duration = Duration::from_millis(20);
/// How long a rank stays for others to hear its last words.
const LEAVE_MAX: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
