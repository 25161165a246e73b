//! Backend A: io_uring. Calls of many sockets go into one submission; sockets are watched by one-shot polls that are
//! armed only when a socket has been drained, in the same system call that waits.
//!
//! Invariant: a poll holds no memory of ours, and every other request is non-blocking and awaited before the function
//! that made it returns. So nothing is in the kernel's hands between calls, and dropping the ring is safe.
#![expect(unsafe_code, reason = "a submission names memory that must outlive its completion")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode};
use nix::errno::Errno;
use nix::libc;

use crate::engine::{Engine, Lane, Outgoing, SLOTS_MAX, Slot, TRAINS_MAX};
use crate::message::{PEEK_FLAGS, SEND_FLAGS};
use crate::{IoError, Tier, Waker};

/// Submissions that fit at once: the largest batch, and polls in several turns.
const ENTRIES: u32 = 128;
const _: () = assert!(TRAINS_MAX <= ENTRIES as usize);
const _: () = assert!(2 * SLOTS_MAX <= ENTRIES as usize);

/// What a completion belongs to, in the top byte of its user data.
const CALL: u64 = 1 << 56;
const READABLE: u64 = 2 << 56;
const WRITABLE: u64 = 3 << 56;
const WOKEN: u64 = 4 << 56;
const FORGOTTEN: u64 = 5 << 56;
const KIND_MASK: u64 = 0xff << 56;

pub(crate) struct UringEngine {
    ring: IoUring,
    /// Per lane: generation of the lane whose poll is armed, for reading and for writing.
    armed: Vec<[Option<u32>; 2]>,
    waker_armed: bool,
    /// Poll completions that arrived while calls were awaited.
    events: Vec<u64>,
}

impl UringEngine {
    /// Tries everything the engine uses; the error is the reason in words.
    pub(crate) fn new(lanes_max: usize) -> Result<Self, String> {
        let ring = IoUring::builder()
            .dontfork()
            .setup_clamp()
            .setup_cqsize(4 * ENTRIES)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(ENTRIES)
            .map_err(|error| refusal(&error))?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(|error| refusal(&error))?;
        for (name, code) in [
            ("RECVMSG", opcode::RecvMsg::CODE),
            ("SENDMSG", opcode::SendMsg::CODE),
            ("POLL_ADD", opcode::PollAdd::CODE),
            ("POLL_REMOVE", opcode::PollRemove::CODE),
        ] {
            if !probe.is_supported(code) {
                return Err(format!("io_uring lacks {name}"));
            }
        }
        if !ring.params().is_feature_nodrop() || !ring.params().is_feature_ext_arg() {
            return Err("io_uring may drop completions or lacks timed waits".into());
        }
        Ok(Self {
            ring,
            armed: vec![[None; 2]; lanes_max],
            waker_armed: false,
            events: Vec::with_capacity(2 * lanes_max + 1),
        })
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
                    self.events.push(user_data);
                }
            }
        }
    }

    fn arm(&mut self, socket: RawFd, interest: i16, user_data: u64) {
        let poll = opcode::PollAdd::new(Fd(socket), interest as u32).build().user_data(user_data);
        // SAFETY: a poll names no memory.
        unsafe { self.push(&poll) };
    }

    /// Takes the polls of a lane back: an armed poll keeps the socket, and with it the port, alive.
    fn forget(&mut self, lane: usize, generation: u32) {
        for (side, kind) in [(0, READABLE), (1, WRITABLE)] {
            if self.armed[lane][side].take().is_some() {
                self.withdraw(kind | key(lane, generation));
            }
        }
    }

    /// A removal is answered at once; running the answer lets go of the socket.
    fn withdraw(&mut self, user_data: u64) {
        let remove = opcode::PollRemove::new(user_data).build().user_data(FORGOTTEN);
        // SAFETY: a removal names no memory.
        unsafe { self.push(&remove) };
        self.enter(1);
        for completion in self.ring.completion() {
            self.events.push(completion.user_data());
        }
    }

    fn arm_all(&mut self, waker: &Waker, lanes: &[Option<Lane>]) {
        if !self.waker_armed {
            self.waker_armed = true;
            self.arm(waker.as_fd().as_raw_fd(), libc::POLLIN, WOKEN);
        }
        for (index, lane) in lanes.iter().enumerate() {
            let Some(lane) = lane else { continue };
            let socket = lane.socket.as_raw_fd();
            if !lane.readable && self.armed[index][0].is_none() {
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
        for user_data in self.events.drain(..) {
            let kind = user_data & KIND_MASK;
            if kind == WOKEN {
                woken = true;
                self.waker_armed = false;
                waker.clear();
                continue;
            }
            let (index, generation) = ((user_data & 0xffff) as usize, (user_data >> 16) as u32);
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
}

impl Engine for UringEngine {
    const TIER: Tier = Tier::Uring;

    fn add(&mut self, lane: usize, _socket: BorrowedFd<'_>) -> Result<(), Errno> {
        self.armed[lane] = [None; 2];
        Ok(())
    }

    fn remove(&mut self, lane: usize, generation: u32, _socket: BorrowedFd<'_>) {
        self.forget(lane, generation);
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

    fn send(&mut self, socket: RawFd, trains: &mut [Outgoing]) {
        let last = trains.len().saturating_sub(1);
        for (index, train) in trains.iter_mut().enumerate() {
            let mut entry = opcode::SendMsg::new(Fd(socket), train.message.prepare_send())
                .flags(SEND_FLAGS as u32)
                .build()
                .user_data(CALL | index as u64);
            if index < last {
                // After one that is refused the rest must not be sent: what was taken is always a first part.
                entry = entry.flags(Flags::IO_LINK);
            }
            // SAFETY: the message owns all it names and is borrowed until `complete` has reaped this call.
            unsafe { self.push(&entry) };
        }
        self.complete(trains.len(), |index, result| trains[index].result = result);
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        waker: &Waker,
        lanes: &mut [Option<Lane>],
    ) -> Result<bool, IoError> {
        self.arm_all(waker, lanes);
        let timespec = timeout.map(Timespec::from);
        // What came in while calls were awaited needs no waiting.
        let want = usize::from(self.events.is_empty());
        let result = match &timespec {
            Some(timespec) => {
                self.ring.submitter().submit_with_args(want, &SubmitArgs::new().timespec(timespec))
            }
            None => self.ring.submit_and_wait(want),
        };
        match result {
            Ok(_) => {}
            Err(error) if is_passing(&error) || error.raw_os_error() == Some(libc::ETIME) => {}
            Err(error) => {
                let cause = Errno::from_raw(error.raw_os_error().unwrap_or(0));
                return Err(IoError { step: "io_uring_enter", cause });
            }
        }
        for completion in self.ring.completion() {
            self.events.push(completion.user_data());
        }
        Ok(self.apply(waker, lanes))
    }
}

impl Drop for UringEngine {
    /// Closing a ring tears its polls down later, on a kernel thread; until then their sockets hold the port.
    fn drop(&mut self) {
        for lane in 0..self.armed.len() {
            let [read, write] = self.armed[lane];
            if let Some(generation) = read.or(write) {
                self.forget(lane, generation);
            }
        }
    }
}

/// Lane index in 16 bits, generation in 32.
fn key(lane: usize, generation: u32) -> u64 {
    lane as u64 | u64::from(generation) << 16
}

/// Errors after which the same call is simply made again.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

/// Why a ring cannot be had, in words that help.
fn refusal(error: &io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => "denied by seccomp, a security module or kernel.io_uring_disabled",
        Some(libc::ENOSYS) => "this kernel or sandbox has none",
        Some(libc::ENOMEM) => "RLIMIT_MEMLOCK is too small for its rings",
        Some(libc::EINVAL) => "this kernel is older than 6.1",
        _ => "unexpected",
    };
    format!("io_uring cannot be set up: {error} ({hint})")
}
