//! The leases of a ring's slots, handed from one end to the other by the state word alone: no lock, no wait.
//!
//! ```text
//! FREE FILLING MERGING COMMITTED FOLDED   the worker's end      CUT   nobody's: who moves it by exchange has it
//! SENDING OFFERED                         the node's end
//! ```
//!
//! Invariant: only the end that owns a slot's state leaves that state, and each end is one value that is borrowed mutably
//! while it touches a lease. So between the look at the word and the end of the call nobody else has the lease.
#![expect(unsafe_code, reason = "two threads share the cells; the state word says whose each one is")]

use core::mem;

use super::SlotState;
use super::header::Headers;
use super::word::{self, Word};
use crate::sync::UnsafeCell;
use crate::{Filling, InFlight, Lease};

/// The right to be a ring's worker. There is one for each ring.
pub(super) struct WorkerEnd(());

/// The right to be its node.
pub(super) struct NodeEnd(());

enum Content {
    Filling(Lease<Filling>),
    InFlight(Lease<InFlight>),
    /// With the worker while FILLING, or inside a change from one to the other.
    Taken,
}

/// The header words and leases of a ring.
pub(super) struct HandOver {
    headers: Headers,
    cells: Vec<UnsafeCell<Content>>,
    /// No node's end was made: the other side are processes that share the words and have no leases. They may write any
    /// word at any time, so no word tells whose a lease is; all are the worker's.
    alone: bool,
}

// SAFETY: a cell is only touched by the end that owns its slot's state, as said above; leases may go from thread to
// thread.
unsafe impl Sync for HandOver {}
// SAFETY: as above.
unsafe impl Send for HandOver {}

impl HandOver {
    /// All slots are FREE but the first, which is FILLING; its lease goes to the worker.
    pub(super) fn new(headers: Headers, leases: Vec<Lease<Filling>>) -> (Self, WorkerEnd, NodeEnd) {
        let (hand, worker) = Self::with(headers, leases, false);
        (hand, worker, NodeEnd(()))
    }

    /// The same without a node in this process.
    pub(super) fn alone(headers: Headers, leases: Vec<Lease<Filling>>) -> (Self, WorkerEnd) {
        Self::with(headers, leases, true)
    }

    fn with(headers: Headers, leases: Vec<Lease<Filling>>, alone: bool) -> (Self, WorkerEnd) {
        assert!(leases.len() == headers.depth(), "one lease for each slot");
        let cells = leases.into_iter().map(|lease| UnsafeCell::new(Content::Filling(lease))).collect();
        (Self { headers, cells, alone }, WorkerEnd(()))
    }

    /// Where a slot stands. A word that no ring writes is somebody else's doing, and so is the slot until it is recovered.
    pub(super) fn state(&self, index: usize) -> SlotState {
        let word = Word::read(&self.headers.slot(index).state);
        assert!(self.alone || word.state().is_some(), "{word:?} was never written by this ring");
        word.state().unwrap_or(SlotState::Sending)
    }

    /// Whether the other side are processes that may die.
    pub(super) fn is_alone(&self) -> bool {
        self.alone
    }

    pub(super) fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The worker takes the lease of a slot of its own, or puts one there.
    pub(super) fn swap(
        &self,
        end: &mut WorkerEnd,
        index: usize,
        lease: Option<Lease<Filling>>,
    ) -> Option<Lease<Filling>> {
        let put = lease.map_or(Content::Taken, Content::Filling);
        match self.worker(end, index, |content| mem::replace(content, put)) {
            Content::Filling(lease) => Some(lease),
            Content::InFlight(_) => panic!("what is in flight is the node's"),
            Content::Taken => None,
        }
    }

    /// The worker looks at the elements of a slot of its own.
    pub(super) fn elements<R>(
        &self,
        end: &mut WorkerEnd,
        index: usize,
        call: impl FnOnce(&mut [i32]) -> R,
    ) -> R {
        self.worker(end, index, |content| match content {
            Content::Filling(lease) => call(lease.as_i32_mut()),
            Content::InFlight(_) | Content::Taken => panic!("the worker's slots are not in flight"),
        })
    }

    /// The worker moves a slot of its own.
    pub(super) fn enter(&self, _end: &mut WorkerEnd, index: usize, state: SlotState) {
        assert!(self.alone || is_workers(self.state(index)), "the worker moves only what is its own");
        word::enter(&self.headers.slot(index).state, state);
    }

    /// The worker takes back a slot of its own that stands where no holder that lives has put it. False: it moved
    /// meanwhile.
    pub(super) fn revoke(&self, _end: &mut WorkerEnd, index: usize, seen: Word) -> bool {
        assert!(self.alone, "the node's end of this process does not die alone");
        word::revoke(&self.headers.slot(index).state, seen, SlotState::Folded)
    }

    /// The worker takes a slot back that nobody has heard of.
    pub(super) fn merge(&self, _end: &mut WorkerEnd, index: usize) -> bool {
        self.leave_cut(index, SlotState::Merging)
    }

    /// The node takes a slot that is CUT, and freezes it.
    pub(super) fn announce(&self, end: &mut NodeEnd, index: usize) -> bool {
        if !self.leave_cut(index, SlotState::Sending) {
            return false;
        }
        self.node(end, index, |content| match mem::replace(content, Content::Taken) {
            Content::Filling(lease) => *content = Content::InFlight(lease.launch()),
            Content::InFlight(_) | Content::Taken => panic!("a cut slot has its lease"),
        });
        true
    }

    /// The node folds a slot that is CUT.
    pub(super) fn fold_cut(&self, _end: &mut NodeEnd, index: usize) -> bool {
        self.leave_cut(index, SlotState::Folded)
    }

    /// The node moves an announced slot that stays announced.
    pub(super) fn offer(&self, _end: &mut NodeEnd, index: usize) {
        assert!(self.state(index) == SlotState::Sending, "only what is being sent is offered");
        word::enter(&self.headers.slot(index).state, SlotState::Offered);
    }

    /// The node gives an announced slot back. False: somebody still reads it.
    pub(super) fn give_back(&self, end: &mut NodeEnd, index: usize, state: SlotState) -> bool {
        let thawed = self.node(end, index, |content| match mem::replace(content, Content::Taken) {
            Content::InFlight(lease) => match lease.complete() {
                Ok(lease) => {
                    *content = Content::Filling(lease);
                    true
                }
                Err(lease) => {
                    *content = Content::InFlight(lease);
                    false
                }
            },
            Content::Filling(_) | Content::Taken => panic!("an announced slot is in flight"),
        });
        if thawed {
            word::enter(&self.headers.slot(index).state, state);
        }
        thawed
    }

    fn leave_cut(&self, index: usize, to: SlotState) -> bool {
        let word = &self.headers.slot(index).state;
        let seen = Word::read(word);
        seen.state() == Some(SlotState::Cut) && word::leave(word, seen, to, 0).is_some()
    }

    fn worker<R>(&self, _end: &mut WorkerEnd, index: usize, call: impl FnOnce(&mut Content) -> R) -> R {
        assert!(self.alone || is_workers(self.state(index)), "the worker touches only its own");
        self.cells[index].with_mut(|content| {
            // SAFETY: there is no node's end, or the state is the worker's, read with acquire: the node's last change is
            // seen, and it makes no other until the worker moves the slot, which `_end` being borrowed keeps it from.
            call(unsafe { &mut *content })
        })
    }

    fn node<R>(&self, _end: &mut NodeEnd, index: usize, call: impl FnOnce(&mut Content) -> R) -> R {
        let state = self.state(index);
        assert!(
            !self.alone && matches!(state, SlotState::Sending | SlotState::Offered),
            "the node touches only its own"
        );
        self.cells[index].with_mut(|content| {
            // SAFETY: as in `worker`, with the ends exchanged.
            call(unsafe { &mut *content })
        })
    }
}

fn is_workers(state: SlotState) -> bool {
    use SlotState::{Committed, Filling, Folded, Free, Merging};
    matches!(state, Free | Filling | Merging | Committed | Folded)
}
