//! A mesh that has ended and begins again from a disk (F27): what was after its checkpoint is void.

use super::Checker;
use plesio_wire::{LogIndex, Version};

impl Checker {
    /// A node whose mesh has ended begins it again from that version (F27).
    pub(crate) fn handle_generation(&mut self, version: Version) {
        if self.begun.replace(version).is_some() || version.0 >= self.finals.len() as u64 {
            self.broken(format!(
                "F27: a mesh begins again from version {}, twice or from nowhere",
                version.0
            ));
        }
    }

    /// Everything after that version is void, and nobody owes anything of before.
    pub(super) fn begin_generation(&mut self, index: LogIndex, version: Version) {
        (self.first, self.open) = (index.0, None);
        self.log.clear();
        self.finals.truncate(version.0 as usize + 1);
        self.units.retain(|_, counted| *counted <= version);
        self.applied.clear();
        self.due.clear();
        for slot in self.slots.values_mut() {
            slot.void = true;
        }
    }
}
