//! What the agreement came to, handed on: states and slots to the worker, news to the program.

use super::{NodeError, Runner};
use crate::engine::SlotFate;
use crate::event::{StepCounters, What};
use plesio_consensus::{Cause, Event};
use plesio_sideband::Event as Sensed;

impl Runner {
    /// Says what the device does not do any more.
    pub(super) fn note_device(&mut self) {
        let news = self.store.device().take_news();
        for note in news {
            self.say(What::Note(format!("{note}; the CPU does what the device does not")));
        }
    }

    /// Says once of every cause that somebody was refused for it.
    pub(super) fn note_refusals(&mut self) {
        let Some(sealing) = &mut self.sealing else { return };
        let news: Vec<String> =
            sealing.poll_refusals().map(|refusal| format!("a handshake was refused: {refusal}")).collect();
        news.into_iter().for_each(|note| self.say(What::Note(note)));
    }

    /// What the sideband noticed. The seat of a former life of this node is nobody's, and nobody is silent there.
    pub(super) fn tell_sensed(&mut self, event: &Sensed) {
        let nobody = self.engine.stand_in();
        match What::sensed(event) {
            Some(What::Suspect(key) | What::Dead(key) | What::Recover(key)) if key == nobody => {}
            what => what.into_iter().for_each(|what| self.say(what)),
        }
    }

    /// Leaves the newest state for the worker, and lets go of the own slots it contains.
    pub(super) fn publish(&mut self) -> Result<(), NodeError> {
        let current = self.engine.consensus().version_final() == self.engine.consensus().version_held();
        if current {
            self.commits += self.unpublished.len() as u64;
        }
        // What overflowed is served, so that it can be looked at, and trained on by nobody.
        let is_usable = self.engine.consensus().stopped() != Some(Cause::Overflow);
        let news = self.changed || (current && !self.unpublished.is_empty());
        if news && self.started && is_usable {
            self.store.state(&mut self.scratch)?;
            self.serial += 1;
            let mut letter = self.mailbox.lock();
            std::mem::swap(&mut letter.state, &mut self.scratch);
            letter.version = self.held;
            letter.commits = self.commits;
            letter.serial = self.serial;
            self.changed = false;
        }
        if current {
            for (index, fate, part) in self.unpublished.drain(..) {
                if fate == SlotFate::Commit
                    && let Some((info, _)) = self.consumer.slot(index)
                {
                    self.steps_committed += u64::from(info.n_steps - part.steps_back(info.n_steps));
                    if !part.is_whole() {
                        self.mailbox.leave_part(info.seq, part);
                    }
                }
                // A lost slot leaves the uncommitted mass too: it may be in the state already.
                self.consumer.commit(index)?;
            }
        }
        self.mailbox.lock().aim = Some(self.engine.aim());
        self.mailbox.pause(self.engine.is_paused());
        Ok(())
    }

    /// This node was itself not running: what was not heard meanwhile is nobody's fault. Its round is settled by what the
    /// others decided, like anybody's who hears late (R23).
    pub(super) fn note_late(&mut self, late_ns: u64) {
        self.lateness.wakes += 1;
        self.lateness.total_ns = self.lateness.total_ns.saturating_add(late_ns);
        self.say(What::Late(late_ns));
    }

    pub(super) fn step_counters(&self) -> StepCounters {
        let (bad_local, trimmed) = self.mailbox.thrown_away();
        StepCounters { bad_local, trimmed, folds: self.status.folds.into(), ..self.steps }
    }

    pub(super) fn tell(&mut self, event: Event) {
        if let Event::View { index, view, added, removed } = event {
            if let Some(sealing) = &mut self.sealing {
                sealing.handle_view(view.number);
            }
            self.say_view(&view, index.0, added, removed);
            return;
        }
        if let Some(what) = What::agreed(&event, self.engine.consensus().view()) {
            self.say(what);
        }
        match event {
            Event::Open { manifest, .. } => self.listed = manifest,
            Event::Reopen { manifest, dropped, .. } => {
                let gone = self.listed.entries.iter().filter(|entry| dropped.contains(entry.member));
                self.steps.dropped += gone.map(|entry| u64::from(entry.n_steps)).sum::<u64>();
                self.listed = manifest;
            }
            // What was gathered without the others is more than one contribution may be.
            Event::Quorum | Event::Excluded { .. } => self.mailbox.come_back(),
            Event::Differs { peer, what } => {
                let who = peer.map_or_else(|| "a member".into(), |key| format!("node {:016x}", key.0));
                self.say(What::Note(format!(
                    "{who} was started with other parameters and the two cannot work together: {what}; start all nodes alike"
                )));
            }
            Event::Diverged { version, peer, ours, theirs } => self.say(What::Note(format!(
                "version {} has digest {ours} here and at a quorum, {theirs} at node {:016x}; this mesh goes on",
                version.0, peer.0
            ))),
            Event::Conflict { peer, evidence } => self.say(What::Note(format!(
                "node {:016x} proposed two values in one ballot, {} and {} at index {}: it is put out, and barred for a \
                 while; look at its machine and at its build",
                peer.0, evidence.digests[0], evidence.digests[1], evidence.index.0
            ))),
            _ => {}
        }
    }

    /// How often the worker found its ring full, when that has changed.
    pub(super) fn note_crowding(&mut self) {
        let counters = self.consumer.counters();
        let crowded = (counters.merged, counters.open);
        if std::mem::replace(&mut self.crowded, crowded) != crowded {
            self.say(What::Crowded { merged: crowded.0, put_off: crowded.1 });
        }
    }
}
