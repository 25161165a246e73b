//! What the engine wants done with bytes and lanes, done at once and answered.

use super::{NodeError, Runner};
use crate::engine::{SlotFate, Work};
use crate::event::What;
use crate::store::StoreError;
use plesio_kernels::KernelError;
use plesio_wire::{Digest, Version};

impl Runner {
    pub(super) fn work(&mut self, work: Work) -> Result<(), NodeError> {
        match work {
            Work::Connect { peer, life, entry } => {
                // The address is another's word. One that cannot be sent to costs that peer its link, not this node
                // its life.
                let (now, io) = (self.clock.now(), self.io.as_mut());
                let lane = match &mut self.sealing {
                    Some(sealing) => {
                        sealing.handle_life(self.engine.incarnation());
                        sealing.connect(now, io, entry.id, entry.data.0, life)
                    }
                    None => io.add_peer(entry.data.0),
                };
                match lane {
                    Ok(index) => {
                        if self.sealing.is_some() {
                            self.sideband.address(peer, entry.sideband.0);
                        }
                        self.peers.by_key.insert(peer, index);
                        self.peers.by_peer.insert(index, peer);
                    }
                    Err(error) => self.note_unreachable(peer, &error.to_string()),
                }
            }
            Work::Seek { entry } => {
                if let Some(sealing) = &mut self.sealing {
                    sealing.seek(self.clock.now(), entry.id, entry.data.0);
                    self.sideband.address(entry.id.key(), entry.sideband.0);
                }
            }
            Work::Disconnect { peer } => {
                if let Some(index) = self.peers.by_key.remove(&peer) {
                    self.peers.by_peer.remove(&index);
                    match &mut self.sealing {
                        Some(sealing) => sealing.disconnect(self.io.as_mut(), peer),
                        None => self.io.remove_peer(index),
                    }
                }
            }
            Work::Square { contributor, seq, span, elements } => {
                let sumsq = self.store.square(span, elements)?;
                self.engine.handle_squared(self.clock.now(), contributor, seq, sumsq);
            }
            Work::Sum(sum) => {
                let began = self.clock.now();
                self.store.sum(&sum)?;
                let now = self.clock.now();
                self.engine.handle_summed(now, sum.context, now.since(began));
            }
            Work::Apply { version, results } => {
                let applied = self.store.apply(&results);
                self.take_version(version, applied)?;
            }
            Work::Settle { index, fate: SlotFate::Fold, .. } => self.consumer.fold(index)?,
            Work::Settle { index, fate, part, .. } => {
                if fate == SlotFate::Lose
                    && let Some((info, _)) = self.consumer.slot(index)
                {
                    self.steps.lost += u64::from(info.n_steps);
                }
                self.unpublished.push((index, fate, part));
            }
            Work::Capture { cut } => {
                let len_bytes = self.store.capture(&cut).ok();
                self.engine.handle_captured(self.clock.now(), len_bytes);
            }
            Work::Gather { version, results, first } => match self.store.gather(&results, first) {
                Err(StoreError::Kernel(KernelError::Overflow { .. })) => {
                    self.engine.handle_overflow(self.clock.now(), version);
                }
                Err(StoreError::Full) => self.engine.handle_unapplied(self.clock.now(), version),
                gathered => gathered?,
            },
            Work::Merge { version } => {
                let merged = self.store.merge();
                self.take_version(version, merged)?;
            }
            Work::InspectCut { span } => {
                let cut = self.store.inspect_cut(span).ok();
                self.engine.handle_cut_inspected(self.clock.now(), cut.as_ref());
            }
            Work::Inspect { span } => {
                let cut = self.store.inspect(span).ok();
                self.engine.handle_inspected(self.clock.now(), cut.as_ref());
            }
            Work::Install { version } => {
                self.store.install()?;
                self.digest = self.store.digest();
                let before = std::mem::replace(&mut self.held, version);
                (self.changed, self.started) = (true, true);
                if version < before {
                    self.say(What::Note(format!(
                        "the mesh goes on from version {}: what this node held up to {} is in no version any more",
                        version.0, before.0
                    )));
                }
                self.say(What::Installed(version));
                self.say(What::Version { version, digest: self.digest });
            }
            Work::Persist { number, record, entries } => self.persist(number, record, entries),
            Work::Load { checkpoint } => self.load(checkpoint),
            near => self.work_near(near)?,
        }
        Ok(())
    }

    /// The state is that of `version` now. Where it overflowed, it is so at every member: this node holds it and stops.
    fn take_version(
        &mut self,
        version: Version,
        digest: Result<Digest, StoreError>,
    ) -> Result<(), NodeError> {
        let overflowed = matches!(digest, Err(StoreError::Kernel(KernelError::Overflow { .. })));
        self.digest = if overflowed { self.store.digest() } else { digest? };
        (self.held, self.changed) = (version, true);
        let now = self.clock.now();
        self.engine.handle_applied(now, version, self.digest);
        if overflowed {
            self.engine.handle_overflow(now, version);
        }
        self.say(What::Version { version, digest: self.digest });
        Ok(())
    }
}
