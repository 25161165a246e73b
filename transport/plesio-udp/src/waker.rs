//! Ends a wait from another thread: an event descriptor that every backend can wait for.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes one socket's loop. Clones wake the same one.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<EventFd>,
}

impl Waker {
    pub(crate) fn new() -> Result<Self, Errno> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { event: Arc::new(event) })
    }

    /// Ends the current wait, or the next one. Never blocks; many calls before a wait count as one.
    pub fn wake(&self) {
        // The only failure of an event descriptor that exists is a full counter, and then the wait ends anyway.
        let _full = self.event.write(1);
    }

    /// Takes the wakes back.
    pub(crate) fn clear(&self) {
        let _empty = self.event.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
