//! Views as they come: who is seated, and what that leaves of the open version.

use super::{Checker, SlotId, Standing};
use plesio_wire::value::{Manifest, View};
use plesio_wire::{LogIndex, SlotSeq, Version};

impl Checker {
    pub(super) fn enter(&mut self, index: LogIndex, view: View) {
        if index.0 == self.first {
            self.seat(view);
            return;
        }
        let old = *self.newest_view();
        let at = format!("VIEW {} at index {}", view.number, index.0);
        if view.number != old.number + 1 || view.previous != old.digest() {
            self.broken(format!("R15: {at} does not follow view {}", old.number));
        }
        if let Err(error) = view.check_shares() {
            self.broken(format!("R25: {at}: {error}"));
        }
        let same = view.members == old.members;
        if same && (view.shares == old.shares || self.open.is_some()) {
            self.broken(format!("R25: {at} changes nothing, or shares alone while a version is open"));
        }
        if !view.members.windows(2).all(|pair| pair[0].key < pair[1].key) {
            self.broken(format!("R15: {at}: members are not sorted or not unique"));
        }
        for seat in view.members.iter() {
            let before = old.index_of(seat.key).map(|index| old.members[usize::from(index)]);
            match before {
                Some(before) if before == *seat => {}
                Some(_) => {
                    self.broken(format!("R19: {at} changes the life of {:016x} in one step", seat.key.0))
                }
                None if seat.admitted != index => {
                    self.broken(format!("R19: {at} admits {:016x} at index {}", seat.key.0, seat.admitted.0));
                }
                None if self.open.is_some() => {
                    self.broken(format!("R16: {at} admits {:016x} while a version is open", seat.key.0));
                }
                None => {}
            }
        }
        if let Some(open) = &mut self.open {
            let stays = |id: &SlotId| view.index_of(id.key).is_some();
            for (id, _) in open.entries.iter().filter(|(id, _)| !stays(id)) {
                if let Some(slot) = self.slots.get_mut(id) {
                    slot.standing = Standing::Dropped;
                    for unit in &slot.units {
                        self.units.remove(&(slot.process, *unit));
                    }
                }
            }
            open.entries.retain(|(id, _)| stays(id));
        }
        let gone = old.members.iter().filter(|seat| view.index_of(seat.key).is_none());
        self.removed.extend(gone.map(|seat| (seat.key, seat.incarnation)));
        self.seat(view);
    }

    pub(super) fn seat(&mut self, view: View) {
        self.views.push(view);
        self.view_ns = self.now_ns;
        self.views_ns.push(self.now_ns);
    }

    /// R16: what a node goes on with must be what the log leaves of the manifest.
    pub(super) fn reopened(&mut self, host: u8, context: LogIndex, version: Version, manifest: &Manifest) {
        let Some(open) = &self.open else { return };
        if context.0 + 1 != self.log_len() || open.version != version {
            return; // the others are further already
        }
        let view = self.newest_view();
        let told = manifest.entries.iter().map(|entry| {
            let seat = view.members.get(usize::from(entry.member)).copied().unwrap_or_default();
            (SlotId { key: seat.key, life: seat.incarnation, seq: SlotSeq(entry.slot_seq) }, entry.weight)
        });
        if !told.eq(open.entries.iter().copied()) {
            self.broken(format!(
                "R16: n{host} goes on with other entries of version {} than the log leaves",
                version.0
            ));
        }
    }
}
