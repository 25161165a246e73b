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
        let paces = view.schedule() != old.schedule();
        if same && ((view.shares == old.shares && !paces) || self.open.is_some()) {
            self.broken(format!("R25: {at} changes nothing, or no member while a version is open"));
        }
        if paces {
            self.check_period(&at, &old, &view);
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

    /// R26, counted from the first view on: nothing here is what the members reckon with.
    fn check_period(&mut self, at: &str, old: &View, view: &View) {
        // A mesh that began again counts frames from there.
        let begun = self.views.iter().rposition(|view| view.origin.0 == 0).unwrap_or_default();
        let (first, run) = (self.views[begun], &self.views[begun..]);
        let (low, high) = (first.period_us >> first.halvings, u64::from(first.period_us) << first.doublings);
        let (was_us, is_us) = (old.period_us, view.period_us);
        let since = run.iter().rev().take_while(|before| before.period_us == was_us).last();
        let since = since.map_or(0, |since| since.origin.0);
        let by_two = u64::from(is_us) == 2 * u64::from(was_us) || u64::from(was_us) == 2 * u64::from(is_us);
        let close = |view: &View| view.schedule().close_of(view.anchor);
        let what = if !by_two {
            "changes the frame period by another factor than 2"
        } else if is_us < low || u64::from(is_us) > high {
            "states a frame period that the first view does not allow"
        } else if view.origin.0 < since + 32 {
            "changes the frame period within 32 frames"
        } else if view.members != old.members || view.shares != old.shares {
            "changes more than the frame period"
        } else if view.anchor != view.origin || close(view) != old.schedule().close_of(view.origin) {
            "moves the close of its own frame"
        } else {
            return;
        };
        self.broken(format!("R26: {at} {what}: {was_us} to {is_us} us, at frame {}", view.origin.0));
    }

    /// The frame periods of the mesh, in the order in which they were in force.
    pub(crate) fn periods_ns(&self) -> Vec<u64> {
        let mut periods: Vec<u64> = self.views.iter().map(|view| view.schedule().period_ns).collect();
        periods.dedup();
        periods
    }

    /// The longest frame period of the views in force since then.
    pub(crate) fn longest_period_ns(&self, since_ns: u64) -> u64 {
        // The first view came at no time.
        let first = self.views_ns.partition_point(|at_ns| *at_ns <= since_ns).min(self.views.len() - 1);
        let periods = self.views[first..].iter().map(|view| view.schedule().period_ns);
        periods.max().unwrap_or_default()
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
