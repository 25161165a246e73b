//! What the engine wants done with bytes and lanes, done at once and answered.

use super::{NodeError, Runner};
use crate::engine::{SlotFate, Work};
use crate::event::What;

impl Runner {
    pub(super) fn work(&mut self, work: Work) -> Result<(), NodeError> {
        match work {
            Work::Connect { peer, entry } => {
                // The address is another's word. One that cannot be sent to costs that peer its link, not this node
                // its life.
                let (now, io) = (self.clock.now(), self.io.as_mut());
                let lane = match &mut self.sealing {
                    Some(sealing) => sealing.connect(now, io, entry.id, entry.data.0),
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
                self.digest = self.store.apply(&results)?;
                (self.held, self.changed) = (version, true);
                self.engine.handle_applied(self.clock.now(), version, self.digest);
                self.say(What::Version { version, digest: self.digest });
            }
            Work::Settle { index, fate: SlotFate::Fold, .. } => self.consumer.fold(index)?,
            Work::Settle { index, fate, .. } => self.unpublished.push((index, fate)),
            Work::Capture { cut } => {
                if let Ok(len_bytes) = self.store.capture(&cut) {
                    self.engine.handle_captured(self.clock.now(), len_bytes);
                }
            }
            Work::Gather { results, first } => self.store.gather(&results, first)?,
            Work::Merge { version } => {
                self.digest = self.store.merge()?;
                (self.held, self.changed) = (version, true);
                self.engine.handle_applied(self.clock.now(), version, self.digest);
                self.say(What::Version { version, digest: self.digest });
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
                self.held = version;
                (self.changed, self.started) = (true, true);
                self.say(What::Installed(version));
                self.say(What::Version { version, digest: self.digest });
            }
            near => self.work_near(near)?,
        }
        Ok(())
    }
}
