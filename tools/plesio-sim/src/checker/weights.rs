//! What contributions weigh, reckoned here once more (I3, A8), and what of a final one its node gets back (I2).

use super::{Checker, SlotId};
use plesio::engine::SlotFate;
use plesio_consensus::Part;
use plesio_wire::SlotSeq;
use plesio_wire::value::{Entry, Manifest, WEIGHT_ONE};

impl Checker {
    /// What a process was told that a version took of an own slot.
    pub(crate) fn handle_part(&mut self, id: SlotId, part: Part) {
        if self.has_diverged() {
            return;
        }
        let Some(slot) = self.slots.get(&id) else { return };
        let (weight, whole) = slot.weights;
        // Whoever learnt that it is final from a cut alone cannot tell, and takes it for whole.
        if part != Part::WHOLE && (slot.fate != Some(SlotFate::Commit) || part != Part::new(weight, whole)) {
            let what = format!(
                "I2: n{} gets {part:?} of slot {}, which weighs {weight} of {whole}",
                slot.host, id.seq.0
            );
            self.broken(what);
        }
    }

    /// I3 and A8: what every entry must weigh, reckoned here once more.
    pub(super) fn weigh(&mut self, at: &str, manifest: &Manifest, members: usize, mode: u8) {
        let one = u64::from(WEIGHT_ONE);
        let part = |entry: &Entry| if mode == 1 { u64::from(entry.n_steps) } else { 1 };
        let total = if mode == 0 { members as u64 } else { manifest.entries.iter().map(part).sum() };
        // The largest remainders are rounded up, of equal ones those of the lowest members.
        let whole: u64 = if mode == 0 {
            one / total * total
        } else {
            manifest.entries.iter().map(|entry| part(entry) * one / total).sum()
        };
        let mut order: Vec<(u64, u16)> = if mode == 0 {
            (0..members as u16).map(|member| (0, member)).collect()
        } else {
            manifest.entries.iter().map(|entry| (total - part(entry) * one % total, entry.member)).collect()
        };
        order.sort_unstable();
        order.truncate((one - whole) as usize);
        for entry in manifest.entries.iter() {
            let up = order.iter().any(|(_, member)| *member == entry.member);
            let whole = part(entry) * one / total + u64::from(up);
            let mut power = one;
            for _ in 0..entry.staleness {
                power = power * u64::from(self.rules.lambda.q24()) / one;
            }
            let share = whole * power / one;
            let seat = self.newest_view().members.get(usize::from(entry.member)).copied().unwrap_or_default();
            let id = SlotId { key: seat.key, life: seat.incarnation, seq: SlotSeq(entry.slot_seq) };
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.weights = (entry.weight, whole as u32);
            }
            if u64::from(entry.weight) != share {
                self.broken(format!(
                    "I3: {at}: member {} of {members} weighs {}, its share is {share}",
                    entry.member, entry.weight
                ));
            }
        }
    }
}
