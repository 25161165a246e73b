//! Which transmission a kernel stamp belongs to: the last few, by number.

use plesio_phase::StampKey;

#[derive(Debug)]
pub(crate) struct Stamps {
    next: u32,
    waiting: [Option<(u32, StampKey)>; WAITING_MAX],
}

impl Stamps {
    pub(crate) const fn new() -> Self {
        Self { next: 0, waiting: [None; WAITING_MAX] }
    }

    /// A number for the transmission `key`; the oldest one is forgotten for it.
    pub(crate) fn insert(&mut self, key: StampKey) -> u32 {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.waiting[id as usize % WAITING_MAX] = Some((id, key));
        id
    }

    pub(crate) fn take(&mut self, id: u32) -> Option<StampKey> {
        let slot = &mut self.waiting[id as usize % WAITING_MAX];
        if slot.is_some_and(|(waiting, _)| waiting == id) { slot.take().map(|(_, key)| key) } else { None }
    }
}

const WAITING_MAX: usize = 128;
