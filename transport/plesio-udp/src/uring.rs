//! Backends A and B: io_uring, for receiving and waiting; receives of many sockets go into one submission.
//!
//! Backend A puts one lasting receive on every socket and gets what comes in buffers the kernel has picked, in the same
//! system call that waits. Backend B, and A when payload is to be scattered, watches sockets with one-shot polls that
//! are armed only when a socket has been drained.
//!
//! Invariant: a poll holds no memory of ours, a lasting receive only that of `Buffers`, and every other request is
//! non-blocking and awaited before the function that made it returns. Lasting receives are ended before the buffers go.
#![expect(unsafe_code, reason = "a submission names memory that must outlive its completion")]

mod buffers;
mod registered;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode};
use nix::errno::Errno;
use nix::libc;
use plesio_memory::Arena;

use crate::drain::Drain;
use crate::engine::{self, BATCH_MAX, Engine, Lane, Outgoing, SLOTS_MAX, Slot, Taken};
use crate::message::{Batch, Message, PEEK_FLAGS};
use crate::{IoError, Tier, Waker};
use buffers::{BUFFERS, Buffers, GROUP};

/// Submissions that fit at once: the largest batch, and polls in several turns.
const ENTRIES: u32 = 128;
const _: () = assert!(2 * SLOTS_MAX <= ENTRIES as usize);
const _: () = assert!(BATCH_MAX <= ENTRIES as usize);
/// Times the end of a cancelled receive is waited for, a millisecond each.
const ENDS_MAX: u32 = 100;

/// What a completion belongs to, in the top byte of its user data.
const CALL: u64 = 1 << 56;
const READABLE: u64 = 2 << 56;
const WRITABLE: u64 = 3 << 56;
const WOKEN: u64 = 4 << 56;
const FORGOTTEN: u64 = 5 << 56;
const RECEIVING: u64 = 6 << 56;
const TIMED: u64 = 7 << 56;
const KIND_MASK: u64 = 0xff << 56;

/// How sockets are read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reading {
    /// A look and a scatter for each train, when a poll says so.
    Scatter,
    /// Lasting receives into buffers that the kernel picks.
    Lasting,
    /// Several receives at once into buffers of our own, when a poll says so.
    Single,
}

/// What a lasting receive has brought.
struct Arrived {
    user_data: u64,
    result: i32,
    flags: u32,
}

pub(crate) struct UringEngine {
    ring: IoUring,
    tier: Tier,
    /// Per lane: generation of the lane that is watched, for reading (poll or lasting receive) and for writing.
    armed: Vec<[Option<u32>; 2]>,
    waker_armed: bool,
    /// Poll completions that arrived while calls were awaited.
    events: Vec<u64>,
    buffers: Option<Buffers>,
    arrived: VecDeque<Arrived>,
    drain: Option<Drain>,
    batch: Batch,
}

impl UringEngine {
    /// Tries everything the engine uses; the error is the reason in words.
    pub(crate) fn new(lanes_max: usize, tier: Tier, reading: Reading) -> Result<Self, String> {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_clamp().setup_cqsize(4 * ENTRIES);
        if tier == Tier::Uring {
            // The flag tells without a system call whether the kernel has work that waits for this thread.
            builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        }
        let ring = builder.build(ENTRIES).map_err(|error| refusal(&error, tier))?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(|error| refusal(&error, tier))?;
        for (name, code) in [
            ("RECVMSG", opcode::RecvMsg::CODE),
            ("POLL_ADD", opcode::PollAdd::CODE),
            ("POLL_REMOVE", opcode::PollRemove::CODE),
            ("TIMEOUT", opcode::Timeout::CODE),
            ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
        ] {
            if !probe.is_supported(code) {
                return Err(format!("io_uring lacks {name}"));
            }
        }
        if !ring.params().is_feature_nodrop() {
            return Err("io_uring may drop completions".into());
        }
        if tier == Tier::Uring && !ring.params().is_feature_ext_arg() {
            return Err("io_uring lacks timed waits".into());
        }
        let buffers = match reading {
            Reading::Lasting => Some(Buffers::new(&ring)?),
            Reading::Scatter | Reading::Single => None,
        };
        Ok(Self {
            ring,
            tier,
            armed: vec![[None; 2]; lanes_max],
            waker_armed: false,
            events: Vec::with_capacity(2 * lanes_max + 1),
            arrived: VecDeque::with_capacity(usize::from(BUFFERS) + 2 * lanes_max),
            buffers,
            drain: (reading == Reading::Single).then(Drain::new),
            batch: Batch::default(),
        })
    }

    /// Hands the arena's pages to the kernel for as long as the ring lives, and says what came of it.
    pub(crate) fn register(&self, arena: &Arena) -> String {
        registered::register(&self.ring, arena)
    }

    /// # Safety
    /// Whatever the entry names stays valid until its completion has been reaped.
    unsafe fn push(&mut self, entry: &Entry) {
        loop {
            // SAFETY: the caller's promise.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            // Full: hand over what is there. Polls only, so nobody waits for these.
            self.enter(0);
        }
    }

    /// Submits and waits for `want` completions.
    fn enter(&mut self, want: usize) {
        match self.ring.submit_and_wait(want) {
            Ok(_) => {}
            Err(error) if is_passing(&error) => {}
            Err(error) => {
                // Requests that name our memory may be with the kernel and cannot be awaited any more: returning would
                // free memory that it may still write.
                eprintln!("plesio-udp: io_uring_enter failed with calls in flight: {error}; stopping");
                std::process::abort();
            }
        }
    }

    /// Submits what was pushed and awaits `count` calls; `done` gets each one's number and result.
    fn complete(&mut self, count: usize, mut done: impl FnMut(usize, Result<usize, Errno>)) {
        let mut open = count;
        while open > 0 {
            self.enter(open);
            for completion in self.ring.completion() {
                let user_data = completion.user_data();
                if user_data & KIND_MASK == CALL {
                    open -= 1;
                    let result = completion.result();
                    let result = usize::try_from(result).map_err(|_| Errno::from_raw(-result));
                    done((user_data & !KIND_MASK) as usize, result);
                } else {
                    note(&completion, &mut self.events, &mut self.arrived);
                }
            }
        }
    }

    /// Takes over what has been completed beside calls.
    fn reap(&mut self) {
        for completion in self.ring.completion() {
            note(&completion, &mut self.events, &mut self.arrived);
        }
    }

    fn arm(&mut self, socket: RawFd, interest: i16, user_data: u64) {
        let poll = opcode::PollAdd::new(Fd(socket), interest as u32).build().user_data(user_data);
        // SAFETY: a poll names no memory.
        unsafe { self.push(&poll) };
    }

    /// Takes the watches of a lane back: an armed one keeps the socket, and with it the port, alive. False: a lasting
    /// receive did not end.
    fn forget(&mut self, lane: usize, generation: u32) -> bool {
        let mut ended = true;
        if self.armed[lane][0].take().is_some() {
            if self.buffers.is_some() {
                ended = self.end_receive(RECEIVING | key(lane, generation));
            } else {
                self.withdraw(READABLE | key(lane, generation));
            }
        }
        if self.armed[lane][1].take().is_some() {
            self.withdraw(WRITABLE | key(lane, generation));
        }
        ended
    }

    /// Cancels a lasting receive and waits for its end; its last words stay in `arrived`.
    fn end_receive(&mut self, user_data: u64) -> bool {
        let cancel = opcode::AsyncCancel::new(user_data).build().user_data(FORGOTTEN);
        // SAFETY: a cancellation names no memory.
        unsafe { self.push(&cancel) };
        for _ in 0..ENDS_MAX {
            let over = |arrived: &Arrived| arrived.user_data == user_data && !cqueue::more(arrived.flags);
            if self.arrived.iter().any(over) {
                return true;
            }
            let timespec = Timespec::new().nsec(1_000_000);
            // A failure is a wait that ended early, or for ever; the count ends it either way.
            let _tried = self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timespec));
            self.reap();
        }
        false
    }

    /// A removal is answered at once; running the answer lets go of the socket.
    fn withdraw(&mut self, user_data: u64) {
        let remove = opcode::PollRemove::new(user_data).build().user_data(FORGOTTEN);
        // SAFETY: a removal names no memory.
        unsafe { self.push(&remove) };
        self.enter(1);
        self.reap();
    }

    fn arm_all(&mut self, waker: &Waker, lanes: &[Option<Lane>]) {
        if !self.waker_armed {
            self.waker_armed = true;
            self.arm(waker.as_fd().as_raw_fd(), libc::POLLIN, WOKEN);
        }
        // What has come lies in buffers that a new receive would want.
        let receives = self.buffers.as_ref().filter(|_| self.arrived.is_empty()).map(Buffers::shape);
        for (index, lane) in lanes.iter().enumerate() {
            let Some(lane) = lane else { continue };
            let socket = lane.socket.as_raw_fd();
            let watched = self.armed[index][0].is_some();
            if let Some(shape) = receives.filter(|_| !watched) {
                self.armed[index][0] = Some(lane.generation);
                let receive = opcode::RecvMsgMulti::new(Fd(socket), shape, GROUP).build();
                // SAFETY: the shape and the group's buffers live until every lasting receive has ended; see `drop`.
                unsafe { self.push(&receive.user_data(RECEIVING | key(index, lane.generation))) };
            } else if self.buffers.is_none() && !lane.readable && !watched {
                self.armed[index][0] = Some(lane.generation);
                self.arm(socket, libc::POLLIN, READABLE | key(index, lane.generation));
            }
            if lane.write_wanted && !lane.writable && self.armed[index][1].is_none() {
                self.armed[index][1] = Some(lane.generation);
                self.arm(socket, libc::POLLOUT, WRITABLE | key(index, lane.generation));
            }
        }
    }

    /// Applies what the polls have said.
    fn apply(&mut self, waker: &Waker, lanes: &mut [Option<Lane>]) -> bool {
        let mut woken = false;
        let is_over = |index: usize, generation| {
            lanes.get(index).and_then(Option::as_ref).is_none_or(|lane| lane.generation != generation)
        };
        self.discard(is_over);
        self.mark(lanes);
        for user_data in self.events.drain(..) {
            let kind = user_data & KIND_MASK;
            if kind == WOKEN {
                woken = true;
                self.waker_armed = false;
                waker.clear();
                continue;
            }
            let (index, generation) = lane_of(user_data);
            let side = match kind {
                READABLE => 0,
                WRITABLE => 1,
                // The answer to a removal.
                _ => continue,
            };
            let Some(armed) = self.armed.get_mut(index) else { continue };
            if armed[side] != Some(generation) {
                continue;
            }
            armed[side] = None;
            if let Some(lane) = lanes.get_mut(index).and_then(Option::as_mut)
                && lane.generation == generation
            {
                lane.readable |= side == 0;
                lane.writable |= side == 1;
            }
        }
        woken
    }

    /// Lets go of what has come for lanes that nobody will ask for any more: the buffers are wanted.
    fn discard(&mut self, is_over: impl Fn(usize, u32) -> bool) {
        let Self { arrived, buffers: Some(buffers), .. } = self else { return };
        arrived.retain(|last| {
            let (index, generation) = lane_of(last.user_data);
            let over = is_over(index, generation);
            if let Some(buffer) = cqueue::buffer_select(last.flags).filter(|_| over) {
                buffers.take(buffer);
                buffers.give(buffer);
            }
            !over
        });
    }

    /// Marks the lanes for which a lasting receive has brought something.
    fn mark(&self, lanes: &mut [Option<Lane>]) {
        if self.buffers.is_none() {
            return;
        }
        lanes.iter_mut().flatten().for_each(|lane| lane.readable = false);
        for arrived in &self.arrived {
            let (index, generation) = lane_of(arrived.user_data);
            if let Some(Some(lane)) = lanes.get_mut(index) {
                lane.readable |= lane.generation == generation;
            }
        }
    }

    /// Hands on what the lasting receives have brought.
    fn deliver(
        &mut self,
        lanes: &mut [Option<Lane>],
        trains_max: usize,
        take: &mut dyn FnMut(usize, &mut Lane, Taken<'_>),
    ) -> bool {
        let Self { buffers: Some(buffers), arrived, armed, .. } = self else { return false };
        let mut trains_left = trains_max.max(1);
        while trains_left > 0
            && let Some(Arrived { user_data, result, flags }) = arrived.pop_front()
        {
            let (index, generation) = lane_of(user_data);
            if !cqueue::more(flags) && armed[index][0] == Some(generation) {
                armed[index][0] = None;
            }
            let lane =
                lanes.get_mut(index).and_then(Option::as_mut).filter(|lane| lane.generation == generation);
            let len_bytes = usize::try_from(result).map_err(|_| Errno::from_raw(-result));
            if let Some(buffer) = cqueue::buffer_select(flags) {
                trains_left -= 1;
                buffers.take(buffer);
                if let (Some(lane), Ok(len_bytes)) = (lane, len_bytes) {
                    take(index, lane, buffers.arrival(buffer, len_bytes).ok_or(Errno::EMSGSIZE));
                }
                buffers.give(buffer);
            } else if let (Some(lane), Err(error)) = (lane, len_bytes) {
                // Without buffers, or taken back: it is begun anew where it is still wanted.
                if !matches!(error, Errno::ENOBUFS | Errno::ECANCELED) {
                    take(index, lane, Err(error));
                }
            }
        }
        self.mark(lanes);
        !self.arrived.is_empty()
    }

    /// Reads what a socket has with several calls of one submission.
    pub(crate) fn read(
        &mut self,
        socket: RawFd,
        messages: &mut [Message],
        lens: &mut [usize],
    ) -> Result<usize, Errno> {
        let last = messages.len().saturating_sub(1);
        for (index, message) in messages.iter_mut().enumerate() {
            let mut entry = opcode::RecvMsg::new(Fd(socket), message.prepare_receive())
                .flags(libc::MSG_DONTWAIT as u32)
                .build()
                .user_data(CALL | index as u64);
            if index < last {
                // After one that finds nothing the rest is not tried.
                entry = entry.flags(Flags::IO_LINK);
            }
            // SAFETY: the message owns all it names and is borrowed until `complete` has reaped this call.
            unsafe { self.push(&entry) };
        }
        let (mut filled, mut refused) = (0, Err(Errno::EAGAIN));
        self.complete(messages.len(), |index, result| match result {
            Ok(len_bytes) => {
                messages[index].finish_receive();
                lens[index] = len_bytes;
                filled += 1;
            }
            Err(error) if index == 0 => refused = Err(error),
            Err(_) => {}
        });
        if filled > 0 { Ok(filled) } else { refused }
    }

    /// Submits what was pushed and has the kernel finish what is ready, without waiting. Costs no system call when there
    /// is neither.
    fn look(&mut self) -> io::Result<usize> {
        if self.tier == Tier::Uring {
            let submission = self.ring.submission();
            if submission.is_empty() && !submission.taskrun() && !submission.cq_overflow() {
                return Ok(0);
            }
        }
        self.ring.submit()
    }

    /// Waits for `want` completions, at most so long.
    fn enter_timed(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<usize> {
        let Some(timespec) = timeout.map(Timespec::from) else { return self.ring.submit_and_wait(want) };
        if self.tier == Tier::Uring {
            return self.ring.submitter().submit_with_args(want, &SubmitArgs::new().timespec(&timespec));
        }
        // Older kernels: a timer that also ends with the first completion, so that none is left behind.
        let timer = opcode::Timeout::new(&raw const timespec).count(1).build().user_data(TIMED);
        // SAFETY: the kernel copies the time when the entry is submitted, which is below.
        unsafe { self.push(&timer) };
        self.ring.submit_and_wait(want)
    }
}

impl Engine for UringEngine {
    fn tier(&self) -> Tier {
        self.tier
    }

    fn add(&mut self, lane: usize, _socket: BorrowedFd<'_>) -> Result<(), Errno> {
        self.armed[lane] = [None; 2];
        Ok(())
    }

    fn remove(&mut self, lane: usize, generation: u32, _socket: BorrowedFd<'_>) {
        // One that did not end holds no memory that goes away now.
        let _ended = self.forget(lane, generation);
        self.discard(|index, of| (index, of) == (lane, generation));
    }

    fn receive(&mut self, slots: &mut [Slot]) {
        let mut count = 0;
        for (index, slot) in slots.iter_mut().enumerate() {
            let socket = Fd(slot.socket);
            if slot.scattering {
                let scatter = opcode::RecvMsg::new(socket, slot.scatter.prepare_receive())
                    .flags(libc::MSG_DONTWAIT as u32)
                    .build()
                    // The look at what follows must not overtake.
                    .flags(Flags::IO_LINK)
                    .user_data(CALL | (2 * index) as u64);
                // SAFETY: the message owns all it names and is borrowed until `complete` has reaped this call.
                unsafe { self.push(&scatter) };
                slot.scattered = Err(Errno::ECANCELED);
                count += 1;
            }
            let peek = opcode::RecvMsg::new(socket, slot.peek.prepare_receive())
                .flags((PEEK_FLAGS | libc::MSG_DONTWAIT) as u32)
                .build()
                .user_data(CALL | (2 * index + 1) as u64);
            // SAFETY: as above.
            unsafe { self.push(&peek) };
            slot.peeked = Err(Errno::ECANCELED);
            count += 1;
        }
        self.complete(count, |number, result| {
            let slot = &mut slots[number / 2];
            let (message, outcome) = if number % 2 == 0 {
                (&mut slot.scatter, &mut slot.scattered)
            } else {
                (&mut slot.peek, &mut slot.peeked)
            };
            *outcome = result;
            if result.is_ok() {
                message.finish_receive();
            }
        });
    }

    fn collect(
        &mut self,
        lanes: &mut [Option<Lane>],
        trains_max: usize,
        take: &mut dyn FnMut(usize, &mut Lane, Taken<'_>),
    ) -> bool {
        let Some(mut drain) = self.drain.take() else { return self.deliver(lanes, trains_max, take) };
        let read = |socket, messages: &mut [Message], lens: &mut [usize]| self.read(socket, messages, lens);
        let more = drain.collect(lanes, trains_max, read, take);
        self.drain = Some(drain);
        more
    }

    fn send(&mut self, socket: RawFd, trains: &mut [Outgoing]) {
        engine::send(&mut self.batch, socket, trains);
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        waker: &Waker,
        lanes: &mut [Option<Lane>],
    ) -> Result<bool, IoError> {
        self.arm_all(waker, lanes);
        // What came in while calls were awaited needs no waiting.
        let want = usize::from(self.events.is_empty() && self.arrived.is_empty());
        let ask = want == 0 || timeout == Some(Duration::ZERO);
        let result = if ask { self.look() } else { self.enter_timed(want, timeout) };
        match result {
            Ok(_) => {}
            Err(error) if is_passing(&error) || error.raw_os_error() == Some(libc::ETIME) => {}
            Err(error) => {
                let cause = Errno::from_raw(error.raw_os_error().unwrap_or(0));
                return Err(IoError { step: "io_uring_enter", cause });
            }
        }
        self.reap();
        Ok(self.apply(waker, lanes))
    }
}

impl Drop for UringEngine {
    /// Closing a ring tears its requests down later, on a kernel thread; until then their sockets hold the port, and
    /// lasting receives the buffers.
    fn drop(&mut self) {
        // Else the pages go back to the user's limit only when that thread comes round to it. Nothing may be registered.
        let _none = self.ring.submitter().unregister_buffers();
        let mut ended = true;
        for lane in 0..self.armed.len() {
            let [read, write] = self.armed[lane];
            if let Some(generation) = read.or(write) {
                ended &= self.forget(lane, generation);
            }
        }
        if !ended {
            // Nothing may be freed that the kernel may still write.
            core::mem::forget(self.buffers.take());
        }
    }
}

/// Sorts what has been completed beside calls.
fn note(completion: &cqueue::Entry, events: &mut Vec<u64>, arrived: &mut VecDeque<Arrived>) {
    let user_data = completion.user_data();
    match user_data & KIND_MASK {
        RECEIVING => {
            arrived.push_back(Arrived { user_data, result: completion.result(), flags: completion.flags() });
        }
        TIMED => {}
        _ => events.push(user_data),
    }
}

/// Lane index in 16 bits, generation in 32.
fn key(lane: usize, generation: u32) -> u64 {
    lane as u64 | u64::from(generation) << 16
}

fn lane_of(user_data: u64) -> (usize, u32) {
    ((user_data & 0xffff) as usize, (user_data >> 16) as u32)
}

/// Errors after which the same call is simply made again.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

/// Why a ring cannot be had, in words that help.
fn refusal(error: &io::Error, tier: Tier) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => "denied by seccomp, a security module or kernel.io_uring_disabled",
        Some(libc::ENOSYS) => "this kernel or sandbox has none",
        Some(libc::ENOMEM) => "RLIMIT_MEMLOCK is too small for its rings",
        Some(libc::EINVAL) if tier == Tier::Uring => "this kernel is older than 6.1",
        _ => "unexpected",
    };
    format!("io_uring cannot be set up: {error} ({hint})")
}
