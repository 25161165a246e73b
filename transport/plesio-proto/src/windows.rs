//! Windows posted for receiving: which message each takes, which of its chunks are here, and where a chunk
//! belongs.
//!
//! ```text
//!          post(Some q)                 all chunks
//!   idle ───────────────▶ bound(q) ────────────────▶ idle, last = q completed
//!     └──── post(None) ──▶ open ── first newer ──▶ bound
//!          withdraw of a begun message ────────────▶ idle, last = q refused
//!          post(Some q), the same place, once more ─▶ bound(q) again, with what was received
//! ```
//!
//! Invariant: `place` only ever names holes of the bound message, so a chunk received is never overwritten.

use crate::bits::Bits;
use crate::error::{PostError, Refused};
use crate::outbox::UNSCHEDULED_BYTES;
use alloc::vec::Vec;
use plesio_wire::data::{CHUNK_STEPS, Flags, Header, MessageId, chunk_of_step};
use plesio_wire::{Instant, Span};

/// What a chunk is to its window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fit {
    /// A hole: its payload belongs here.
    Hole(Span),
    /// It was received before and is acknowledged again.
    Repeat,
    /// It belongs to a newer message than the one begun, or to the same cut smaller: the sender gave that one up.
    Newer,
    /// It is dropped.
    Drop(Refused),
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Last {
    #[default]
    None,
    Completed(u16),
    Refused(u16),
}

#[derive(Debug, Default)]
struct Window {
    handle: u16,
    last: Last,
    posted: bool,
    /// The sequence asked for at posting.
    wanted: Option<u16>,
    span: Span,
    /// When it is withdrawn.
    deadline: Option<Instant>,
    /// The message being received.
    bound: Option<u16>,
    /// What it is cut by.
    chunk_bytes: u32,
    received: Bits,
    count: u32,
    /// One past the highest chunk received.
    reach: u32,
    /// Exact length, once the last chunk told it.
    len_bytes: Option<u32>,
}

/// All windows of one connection, sorted by handle.
#[derive(Debug)]
pub(crate) struct Windows {
    chunk_bytes: u32,
    windows_max: usize,
    windows: Vec<Window>,
    posted: usize,
    /// Where the last chunk went: most likely the next one does too.
    recent: usize,
    /// No deadline is earlier.
    deadline: Option<Instant>,
}

impl Windows {
    pub(crate) fn new(chunk_bytes: u32, windows_max: usize) -> Self {
        Self {
            chunk_bytes,
            windows_max,
            windows: Vec::with_capacity(windows_max),
            posted: 0,
            recent: 0,
            deadline: None,
        }
    }

    /// Windows that wait for a message.
    pub(crate) const fn posted(&self) -> usize {
        self.posted
    }

    pub(crate) fn post(&mut self, handle: u16, wanted: Option<u16>, span: Span) -> Result<(), PostError> {
        if span.len_bytes == 0 {
            return Err(PostError::Empty);
        }
        if span.offset_bytes.checked_add(span.len_bytes).is_none() {
            return Err(PostError::Range);
        }
        let at = match self.find(handle) {
            Ok(at) => at,
            Err(_) if self.windows.len() == self.windows_max => {
                return Err(PostError::TooMany { windows_max: self.windows_max });
            }
            Err(at) => {
                self.windows.insert(at, Window { handle, ..Window::default() });
                at
            }
        };
        let window = &self.windows[at];
        if window.posted && window.wanted == wanted && window.span == span {
            return Ok(());
        }
        if !window.posted && window.is_refused(wanted, span) {
            self.windows[at].resume();
            self.posted += 1;
            return Ok(());
        }
        if wanted.is_some_and(|wanted| window.last.is(wanted)) {
            return Err(PostError::Done);
        }
        self.withdraw(handle);
        let window = &mut self.windows[at];
        if wanted.is_some_and(|wanted| window.last.is(wanted)) {
            return Err(PostError::Done);
        }
        window.posted = true;
        window.deadline = None;
        window.wanted = wanted;
        window.span = span;
        window.received.reserve(span.len_bytes.div_ceil(CHUNK_BYTES_LEAST.min(self.chunk_bytes)));
        window.begin(None, self.chunk_bytes);
        self.posted += 1;
        Ok(())
    }

    /// Whether the end of a message is here, and not all of it.
    pub(crate) fn has_holes(&self) -> bool {
        self.windows
            .iter()
            .any(|window| window.posted && window.bound.is_some() && window.len_bytes.is_some())
    }

    /// Payload that begun messages still lack, without what comes unscheduled.
    pub(crate) fn lacks_bytes(&self) -> u64 {
        let begun = self.windows.iter().filter(|window| window.posted && window.bound.is_some());
        begun.map(Window::lacks_bytes).sum()
    }

    pub(crate) fn withdraw(&mut self, handle: u16) {
        let Ok(at) = self.find(handle) else { return };
        let window = &mut self.windows[at];
        if !window.posted {
            return;
        }
        if let Some(bound) = window.bound {
            window.last = Last::Refused(bound);
        }
        window.posted = false;
        self.posted -= 1;
    }

    /// Whatever was before `sequence` on a handle is over, if anything ever came there.
    pub(crate) fn pass(&mut self, handle: u16, sequence: u16) {
        let Ok(at) = self.find(handle) else { return };
        let window = &mut self.windows[at];
        let over = sequence.wrapping_sub(1);
        if window.bound.is_none() && window.last != Last::None && window.last.precedes(over) {
            window.last = Last::Refused(over);
        }
    }

    /// Gives a posted window a deadline.
    pub(crate) fn limit(&mut self, handle: u16, deadline: Instant) {
        if let Ok(at) = self.find(handle) {
            self.windows[at].deadline = Some(deadline);
            self.deadline = self.deadline.into_iter().chain([deadline]).min();
        }
    }

    /// When to look for late windows at the earliest.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// A posted window whose deadline has passed.
    pub(crate) fn first_late(&mut self, now: Instant) -> Option<u16> {
        self.deadline.filter(|at| *at <= now)?;
        let posted = || self.windows.iter().filter(|window| window.posted);
        let late = posted().find(|window| window.deadline.is_some_and(|at| at <= now));
        let handle = late.map(|window| window.handle);
        if handle.is_none() {
            self.deadline = posted().filter_map(|window| window.deadline).min();
        }
        handle
    }

    pub(crate) fn withdraw_all(&mut self) {
        for window in &mut self.windows {
            window.posted = false;
        }
        self.posted = 0;
    }

    /// What the chunk of `header` is.
    pub(crate) fn fit(&self, header: &Header) -> Fit {
        let payload_bytes = u32::from(header.payload_bytes);
        let last = header.flags.has(Flags::LAST_OF_MSG);
        let Some(chunk_bytes) = self.chunk_of(header) else { return Fit::Drop(Refused::Range) };
        if payload_bytes == 0 || payload_bytes > chunk_bytes || (!last && payload_bytes != chunk_bytes) {
            return Fit::Drop(Refused::Range);
        }
        match self.find(header.message.handle) {
            Ok(at) => self.windows[at].fit(header, last, payload_bytes, chunk_bytes),
            Err(_) => Fit::Drop(Refused::Unposted),
        }
    }

    /// Whether a chunk of `message` would be taken now, or acknowledged as received before.
    pub(crate) fn takes(&self, message: MessageId) -> bool {
        self.find(message.handle).is_ok_and(|at| self.windows[at].takes(message.sequence))
    }

    /// Takes a chunk that `fit` called a hole. The message and its exact span once it is complete.
    pub(crate) fn accept(&mut self, header: &Header) -> Option<(MessageId, Span)> {
        let at = self.find(header.message.handle).ok()?;
        let chunk_bytes = self.chunk_of(header)?;
        self.recent = at;
        let window = &mut self.windows[at];
        if window.bound.is_none() {
            window.begin(Some(header.message.sequence), chunk_bytes);
        }
        if window.received.insert(header.chunk) {
            window.count += 1;
        }
        window.reach = window.reach.max(header.chunk + 1);
        if header.flags.has(Flags::LAST_OF_MSG) {
            window.len_bytes = Some(header.chunk * chunk_bytes + u32::from(header.payload_bytes));
        }
        let len_bytes = window.len_bytes?;
        if window.count < len_bytes.div_ceil(chunk_bytes) {
            return None;
        }
        window.posted = false;
        window.last = Last::Completed(header.message.sequence);
        self.posted -= 1;
        Some((header.message, window.span.part(0, len_bytes)?))
    }

    /// A newer message than the one begun has shown itself, or the same cut smaller: the sender gave that one up.
    pub(crate) fn rebind(&mut self, header: &Header) {
        if let (Ok(at), Some(chunk_bytes)) = (self.find(header.message.handle), self.chunk_of(header)) {
            self.windows[at].begin(Some(header.message.sequence), chunk_bytes);
        }
    }

    /// The sender says what it cuts a message by: one begun with larger chunks begins anew.
    pub(crate) fn recut(&mut self, header: &Header) {
        let (Ok(at), Some(chunk_bytes)) = (self.find(header.message.handle), self.chunk_of(header)) else {
            return;
        };
        let window = &self.windows[at];
        if window.posted && window.bound == Some(header.message.sequence) && chunk_bytes < window.chunk_bytes
        {
            self.rebind(header);
        }
    }

    /// What the message of `header` is cut by.
    fn chunk_of(&self, header: &Header) -> Option<u32> {
        chunk_of_step(header.flags.step(), self.chunk_bytes)
    }

    fn find(&self, handle: u16) -> Result<usize, usize> {
        if self.windows.get(self.recent).is_some_and(|window| window.handle == handle) {
            return Ok(self.recent);
        }
        self.windows.binary_search_by_key(&handle, |window| window.handle)
    }
}

impl Window {
    fn fit(&self, header: &Header, is_last: bool, payload_bytes: u32, chunk_bytes: u32) -> Fit {
        let sequence = header.message.sequence;
        if self.last == Last::Completed(sequence) {
            return Fit::Repeat;
        }
        if self.last.is(sequence) {
            return Fit::Drop(Refused::Stale);
        }
        match (self.posted, self.wanted, self.bound) {
            (true, Some(wanted), _) if wanted == sequence => {}
            (true, Some(wanted), _) if is_newer(sequence, wanted) => return Fit::Drop(Refused::Unposted),
            (true, Some(_), _) => return Fit::Drop(Refused::Stale),
            (true, None, Some(bound)) if bound == sequence => {}
            (true, None, Some(bound)) if is_newer(sequence, bound) => return Fit::Newer,
            (true, None, Some(_)) => return Fit::Drop(Refused::Stale),
            (true, None, None) if self.last.precedes(sequence) => {}
            (false, ..) if self.last.precedes(sequence) => return Fit::Drop(Refused::Unposted),
            _ => return Fit::Drop(Refused::Stale),
        }
        if self.bound == Some(sequence) && chunk_bytes != self.chunk_bytes {
            // Chunks of a message only ever get smaller; with the first such one it begins anew.
            return if chunk_bytes < self.chunk_bytes { Fit::Newer } else { Fit::Drop(Refused::Stale) };
        }
        let Some(hole) =
            header.chunk.checked_mul(chunk_bytes).and_then(|offset| self.span.part(offset, payload_bytes))
        else {
            return Fit::Drop(Refused::Range);
        };
        let contradicts = match self.len_bytes {
            // The end is known: nothing behind it, and only one chunk says so.
            Some(len_bytes) => {
                let end = header.chunk * chunk_bytes + payload_bytes;
                end > len_bytes || is_last != (end == len_bytes)
            }
            None => is_last && header.chunk + 1 < self.reach,
        };
        if contradicts {
            Fit::Drop(Refused::Range)
        } else if self.bound.is_some() && self.received.has(header.chunk) {
            Fit::Repeat
        } else {
            Fit::Hole(hole)
        }
    }

    /// Whether that very message was begun here and withdrawn, and nothing else was posted since.
    fn is_refused(&self, wanted: Option<u16>, span: Span) -> bool {
        let is_it = |wanted| self.last == Last::Refused(wanted) && self.bound == Some(wanted);
        wanted.is_some_and(is_it) && self.wanted == wanted && self.span == span
    }

    /// Takes what it still lacks of a message that was withdrawn: its sender does not send again what was acknowledged.
    const fn resume(&mut self) {
        if let Some(bound) = self.bound {
            self.last = Last::Refused(bound.wrapping_sub(1));
        }
        self.posted = true;
        self.deadline = None;
    }

    fn lacks_bytes(&self) -> u64 {
        let len_bytes = u64::from(self.len_bytes.unwrap_or(self.span.len_bytes));
        let chunk_bytes = u64::from(self.chunk_bytes.max(1));
        let received_bytes = u64::from(self.count) * chunk_bytes;
        // Whole chunks come unscheduled: one that reaches beyond the part that does waits for credit.
        let unscheduled_bytes = UNSCHEDULED_BYTES / chunk_bytes * chunk_bytes;
        len_bytes.saturating_sub(received_bytes.max(unscheduled_bytes).max(chunk_bytes))
    }

    fn takes(&self, sequence: u16) -> bool {
        if self.last == Last::Completed(sequence) {
            return true;
        }
        let fits = match (self.wanted, self.bound) {
            (Some(wanted), _) => wanted == sequence,
            (None, Some(bound)) => bound == sequence || is_newer(sequence, bound),
            (None, None) => self.last.precedes(sequence),
        };
        self.posted && !self.last.is(sequence) && fits
    }

    fn begin(&mut self, sequence: Option<u16>, chunk_bytes: u32) {
        self.bound = sequence;
        self.chunk_bytes = chunk_bytes;
        self.received.reset(self.span.len_bytes.div_ceil(chunk_bytes));
        self.count = 0;
        self.reach = 0;
        self.len_bytes = None;
    }
}

impl Last {
    const fn is(self, sequence: u16) -> bool {
        matches!(self, Self::Completed(last) | Self::Refused(last) if last == sequence)
    }

    /// Whether a message of `sequence` would come after it.
    const fn precedes(self, sequence: u16) -> bool {
        match self {
            Self::None => true,
            Self::Completed(last) | Self::Refused(last) => is_newer(sequence, last),
        }
    }
}

/// The smallest chunk that a path may force on a message.
const CHUNK_BYTES_LEAST: u32 = CHUNK_STEPS[CHUNK_STEPS.len() - 1];

/// Serial-number arithmetic (RFC 1982) on 16 bits.
const fn is_newer(sequence: u16, than: u16) -> bool {
    let ahead = sequence.wrapping_sub(than);
    ahead != 0 && ahead < 1 << 15
}
