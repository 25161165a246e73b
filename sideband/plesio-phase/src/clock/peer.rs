//! Two-way exchanges with one peer: probes out, replies in, kernel stamps joined to them when they arrive.
//!
//! A kernel stamp of a transmission is known only after it has left. A reply's travels with the next reply: `prev_pair` names
//! the pair, and the position is always the other one (0 after 1, 1 after 0). A probe's stays here: it is on our own clock, of
//! which nobody else knows anything, so `prev_t1` says 0, none. It may come after the reply, and mends that exchange then.

use crate::window::{Sample, Window};
use plesio_wire::sideband::{Probe, ProbeReply};
use plesio_wire::{Incarnation, Instant, MeshTime, NodeKey};

/// Why a reply taught nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum BadExchange {
    /// The sender is nobody we probe, or is excluded for now.
    Unasked,
    /// No probe of ours is waiting for it, or it echoes another stamp.
    Outstanding,
    /// Two-way delay below zero or above 10 s.
    Delay,
    /// Stamps out of range, more than a day from our mesh time, or the reply left before the probe arrived.
    Stamp,
    /// The mesh clock of the peer is more than a second from where it was expected.
    Jump,
}

impl core::fmt::Display for BadExchange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Unasked => "probe reply from a node that is not probed",
            Self::Outstanding => "probe reply that answers no waiting probe",
            Self::Delay => "two-way delay out of 0..10 s",
            Self::Stamp => "clock stamps contradict each other",
            Self::Jump => "peer's mesh clock jumped",
        })
    }
}

impl core::error::Error for BadExchange {}

#[derive(Clone, Copy, Debug)]
struct Outstanding {
    pair: u32,
    pos: u8,
    t1: i64,
    /// The better one once the kernel's stamp is there.
    t1_kernel: Option<i64>,
}

/// A transmission to this peer whose kernel stamp the next one may carry.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    pair: u32,
    pos: u8,
    stamp: i64, // 0 = none yet
}

impl Sent {
    /// What the transmission (pair, pos) may say about this earlier one.
    fn told_by(&self, pos: u8) -> (i64, u32) {
        if self.stamp != 0 && self.pos != pos { (self.stamp, self.pair) } else { (0, 0) }
    }
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) key: NodeKey,
    pub(super) incarnation: Incarnation,
    /// Published bound to the reference; `u32::MAX`: none.
    pub(super) eps_ns: u32,
    pub(super) state: u8,
    pub(super) suspected: bool,
    /// M - C as its last full beat said, and when that came.
    pub(super) told: Option<(Instant, i64)>,
    /// Between probes; `None`: not probed.
    pub(super) interval_ns: Option<u64>,
    pub(super) next_pair_at: Instant,
    excluded_until: Instant,
    pub(super) window: Window,
    pair: u32,
    second_due: bool,
    outstanding: [Option<Outstanding>; OUTSTANDING_MAX],
    bad_in_row: u8,
    last_reply: Sent,
}

impl Peer {
    pub(super) fn new(now: Instant, key: NodeKey, incarnation: Incarnation) -> Self {
        Self {
            key,
            incarnation,
            eps_ns: u32::MAX,
            state: plesio_wire::sideband::state::ACQUIRE,
            suspected: false,
            told: None,
            interval_ns: None,
            next_pair_at: now,
            excluded_until: Instant(0),
            window: Window::new(),
            pair: 0,
            second_due: false,
            outstanding: [None; OUTSTANDING_MAX],
            bad_in_row: 0,
            last_reply: Sent::default(),
        }
    }

    /// The next probe if one is due; `jitter_ns` is added to the interval up to the next pair.
    pub(super) fn poll_probe(&mut self, now: Instant, jitter_ns: impl FnOnce(u64) -> u64) -> Option<Probe> {
        let interval_ns = self.interval_ns?;
        let pos = if self.second_due {
            self.second_due = false;
            1
        } else if now >= self.next_pair_at {
            self.next_pair_at = now.after(jitter_ns(interval_ns));
            self.pair = self.pair.wrapping_add(1);
            self.second_due = true;
            0
        } else {
            return None;
        };
        let t1 = local(now);
        self.outstanding.rotate_right(1);
        self.outstanding[0] = Some(Outstanding { pair: self.pair, pos, t1, t1_kernel: None });
        Some(Probe { pair: self.pair, pos, t1, ..Probe::default() })
    }

    /// A full beat: its mesh time was off by no more than that since the last one.
    pub(super) fn handle_eps(&mut self, eps_ns: u32) {
        let before = core::mem::replace(&mut self.eps_ns, eps_ns);
        if eps_ns != u32::MAX {
            // A beat that said it had no clock says nothing of the moments after it.
            self.window.handle_eps(if before == u32::MAX { eps_ns } else { eps_ns.max(before) });
        }
    }

    /// Neither asked nor believed for 60 s.
    pub(super) fn exclude(&mut self, now: Instant) {
        self.excluded_until = now.after(EXCLUSION_NS);
        self.next_pair_at = self.excluded_until;
        self.second_due = false;
        self.window.clear();
    }

    pub(super) fn is_excluded(&self, now: Instant) -> bool {
        now < self.excluded_until
    }

    pub(super) fn probe_is_due(&self) -> Option<Instant> {
        self.interval_ns?;
        Some(if self.second_due { Instant(0) } else { self.next_pair_at })
    }

    /// The stamp of the reply before this one, and remembers that (pair, pos) leaves now.
    pub(super) fn sign_reply(&mut self, pair: u32, pos: u8) -> (i64, u32) {
        let told = self.last_reply.told_by(pos);
        self.last_reply = Sent { pair, pos, stamp: 0 };
        told
    }

    /// Kernel stamp (mesh time) of our reply (pair, pos).
    pub(super) fn handle_reply_stamp(&mut self, pair: u32, pos: u8, mesh: i64) {
        if (self.last_reply.pair, self.last_reply.pos) == (pair, pos) {
            self.last_reply.stamp = mesh;
        }
    }

    /// Kernel stamp (local time) of our probe (pair, pos).
    pub(super) fn handle_probe_stamp(&mut self, pair: u32, pos: u8, stamp: i64) {
        if let Some(sample) = self.window.recent_mut(pair, pos)
            && let Some(t1) = sample.t1_user
        {
            // The reply was faster: its way there was shorter than our own stamp said.
            let gain = stamp.saturating_sub(t1);
            let fwd = sample.fwd.saturating_sub(gain);
            let least = -run_apart_ns(sample.held);
            if (0..STAMP_GAIN_NS_MAX).contains(&gain) && fwd.saturating_add(sample.rev) >= least {
                sample.fwd = fwd;
                sample.fwd_kernel = sample.t2_kernel;
                sample.t1_user = None;
            }
            return;
        }
        for waiting in self.outstanding.iter_mut().flatten() {
            // Later than the user's stamp and not by long, or it is somebody else's.
            if (waiting.pair, waiting.pos) == (pair, pos) && (0..DELAY_NS_MAX).contains(&(stamp - waiting.t1))
            {
                waiting.t1_kernel = Some(stamp);
            }
        }
    }

    /// Stamps from before and after now cannot be compared: forgets what waits.
    pub(super) fn discard_outstanding(&mut self) -> u64 {
        let waiting = self.outstanding.iter().flatten().count() as u64;
        self.outstanding = [None; OUTSTANDING_MAX];
        self.last_reply = Sent::default();
        self.window.settle_stamps();
        waiting
    }

    pub(super) fn handle_reply(
        &mut self,
        now: Instant,
        reply: &ProbeReply,
        rx: Option<Instant>,
        expected: Option<MeshTime>,
    ) -> Result<(), BadExchange> {
        if self.interval_ns.is_none() || now < self.excluded_until {
            return Err(BadExchange::Unasked);
        }
        self.improve_previous(reply);
        let verdict = self.judge(now, reply, rx, expected);
        match verdict {
            Ok(sample) => {
                self.bad_in_row = 0;
                self.window.push(sample);
                Ok(())
            }
            Err(reason) => {
                self.bad_in_row += 1;
                if self.bad_in_row >= BAD_IN_ROW_MAX {
                    self.bad_in_row = 0;
                    self.window.clear();
                    // A clock that jumped is watched anew: fusion decides whether it is believed.
                    if reason != BadExchange::Jump {
                        self.exclude(now);
                    }
                }
                Err(reason)
            }
        }
    }

    fn judge(
        &mut self,
        now: Instant,
        reply: &ProbeReply,
        rx: Option<Instant>,
        expected: Option<MeshTime>,
    ) -> Result<Sample, BadExchange> {
        let asked = |waiting: &Option<Outstanding>| {
            waiting.is_some_and(|waiting| {
                (waiting.pair, waiting.pos, waiting.t1) == (reply.pair, reply.pos, reply.t1_echo)
            })
        };
        let slot = self.outstanding.iter_mut().find(|waiting| asked(waiting));
        let waiting = slot.and_then(Option::take).ok_or(BadExchange::Outstanding)?;
        let in_range = |stamp: i64| (-STAMP_NS_MAX..STAMP_NS_MAX).contains(&stamp);
        let t1 = waiting.t1_kernel.unwrap_or(waiting.t1);
        let t4 = local(rx.unwrap_or(now));
        if !(in_range(reply.t2) && in_range(reply.t3) && in_range(t1) && in_range(t4)) {
            return Err(BadExchange::Stamp);
        }
        let near = |stamp: i64| {
            expected.is_none_or(|expected| stamp.saturating_sub(expected.0).saturating_abs() <= DAY_NS)
        };
        if !(near(reply.t2) && near(reply.t3)) {
            return Err(BadExchange::Stamp);
        }
        let held = reply.t3 - reply.t2;
        if !(-STAMP_SLACK_NS..DELAY_NS_MAX).contains(&held) {
            return Err(BadExchange::Stamp);
        }
        if !(-run_apart_ns(held)..DELAY_NS_MAX).contains(&((t4 - t1) - held)) {
            return Err(BadExchange::Delay);
        }
        let sample = Sample {
            at: t4,
            fwd: reply.t2 - t1,
            rev: t4 - reply.t3,
            held: held.max(0),
            fwd_kernel: waiting.t1_kernel.is_some() && reply.stamp_kind > 0,
            rev_kernel: false, // t3 is the user's until the next reply brings the kernel's
            t1_user: waiting.t1_kernel.is_none().then_some(waiting.t1),
            t2_kernel: reply.stamp_kind > 0,
            eps: None, // the next beat tells
            pair: reply.pair,
            pos: reply.pos,
        };
        if self.window.surprise(&sample) > JUMP_NS { Err(BadExchange::Jump) } else { Ok(sample) }
    }

    /// The kernel's stamp of the reply before: its return delay was shorter than the user's stamp said.
    fn improve_previous(&mut self, reply: &ProbeReply) {
        if reply.prev_t3 == 0 || reply.pos > 1 {
            return;
        }
        let Some(sample) = self.window.recent_mut(reply.prev_pair, 1 - reply.pos) else { return };
        let rev = sample.at.saturating_sub(reply.prev_t3);
        let gain = sample.rev.saturating_sub(rev);
        // The kernel's stamp is later than the user's: it held the probe for longer.
        let held = sample.held.saturating_add(gain);
        let possible = rev.saturating_add(sample.fwd) >= -run_apart_ns(held);
        if !sample.rev_kernel && (0..STAMP_GAIN_NS_MAX).contains(&gain) && possible {
            sample.held = held;
            sample.rev = rev;
            sample.rev_kernel = true;
        }
    }
}

/// What two clocks may run apart while a probe is held: for a slow one its two-way delay looks shorter by that.
const fn run_apart_ns(held_ns: i64) -> i64 {
    held_ns / 400
}

/// Local time as the wire carries it.
pub(super) fn local(at: Instant) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

const OUTSTANDING_MAX: usize = 8;
const BAD_IN_ROW_MAX: u8 = 3;
const EXCLUSION_NS: u64 = 60_000_000_000;
const DELAY_NS_MAX: i64 = 10_000_000_000;
/// 73 years either way; keeps every difference of two stamps inside i64.
const STAMP_NS_MAX: i64 = 1 << 61;
/// Nobody's mesh time is further from ours.
const DAY_NS: i64 = 86_400_000_000_000;
/// A reply's two stamps come from two mappings of the kernel's clock.
const STAMP_SLACK_NS: i64 = 20_000;
/// The user's stamp of a transmission precedes the kernel's by a system call, not by more than this.
const STAMP_GAIN_NS_MAX: i64 = 100_000_000;
const JUMP_NS: i64 = 1_000_000_000;
