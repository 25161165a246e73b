//! What the engine asks the shell to do with slots and states, done with the real store and ring.

use super::{Process, Scene, host_of};
use crate::checker::{Announcement, SlotId};
use plesio::What;
use plesio::engine::{SlotFate, Work};
use plesio::store::StoreError;
use plesio_consensus::OwnSlot;
use plesio_kernels::{Codec, Device};
use plesio_memory::RingError;
use plesio_wire::Version;

impl Process {
    pub(super) fn announce(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        while let Some(info) = self.consumer.poll_cut() {
            let announced = match self.consumer.announce(info.index) {
                Ok(announced) => announced,
                Err(RingError::Merging) => break,
                Err(error) => return Err(format!("ring: a cut slot cannot be announced: {error}")),
            };
            let info = announced.info;
            let parcel =
                self.worker.books.parcel(info.index).ok_or("ring: a slot was cut that nobody filled")?;
            let real = self.store.arena().share(announced.span).map_err(|error| error.to_string())?;
            if !real.as_i32().iter().map(|q| i64::from(*q)).eq(parcel.content.iter().copied()) {
                return Err(format!("I2: slot {} does not hold what was put into it", info.seq.0));
            }
            drop(real);
            let parcel_units = parcel.units.clone();
            let full = parcel.content.clone();
            let digest =
                self.store.encode(info.index, announced.span, info.seq).map_err(|error| error.to_string())?;
            let content = self.decode(info.index)?.unwrap_or(full);
            self.worker.books.handle_encoded(info.index, content.clone());
            let life = self.engine.incarnation();
            let id = SlotId { key: self.key, life, seq: info.seq };
            let announcement = Announcement {
                host: scene.host,
                process: self.number,
                base: info.base_version,
                n_steps: info.n_steps,
                content: &content,
                units: &parcel_units,
            };
            scene.checker.handle_announced(id, &announcement);
            self.announced.insert(info.seq, life);
            scene.trace.tell(scene.now_ns, scene.host, || {
                format!(
                    "cuts slot {} of {} steps on version {} for frame {}",
                    info.seq.0, info.n_steps, info.base_version.0, info.target_frame.0
                )
            });
            let slot = OwnSlot {
                seq: info.seq,
                base: info.base_version,
                target: info.target_frame,
                n_steps: info.n_steps,
                digest,
            };
            let OwnSlot { seq, base, target, n_steps: steps, .. } = slot;
            self.say(scene, |_| Some(What::Cut { slot: seq, base, target, steps, digest }));
            self.cut += 1;
            self.engine.handle_cut(scene.local, info.index, slot);
        }
        self.engine.handle_ring(scene.local, self.consumer.counters().fold_total());
        Ok(())
    }

    /// What the others will read of an encoded slot; none where it travels as it is.
    fn decode(&self, index: u8) -> Result<Option<Vec<i64>>, String> {
        let codec = self.regions.codec;
        if codec == Codec::Full {
            return Ok(None);
        }
        let codes = self.store.arena().share(self.regions.slot(index)).map_err(|error| error.to_string())?;
        let mut slot = vec![0; self.regions.elements as usize];
        let decoded = self.store.device().decode_slot(codec, codes.as_bytes(), &mut slot);
        decoded.map_err(|error| error.to_string())?;
        Ok(Some(slot.into_iter().map(i64::from).collect()))
    }

    pub(super) fn work(&mut self, scene: &mut Scene<'_>, work: Work) -> Result<(), String> {
        let now = scene.local;
        let say = |error: &dyn std::fmt::Display| error.to_string();
        match work {
            Work::Connect { peer, entry, .. } => {
                if let Some(host) = host_of(entry.data.0) {
                    self.peers.insert(host, peer);
                }
            }
            Work::Seek { .. } => {} // nothing is sealed here
            Work::Disconnect { peer } => self.peers.retain(|_, known| *known != peer),
            Work::Square { contributor, seq, span, elements } => {
                let sumsq = self.store.square(span, elements).map_err(|error| say(&error))?;
                self.engine.handle_squared(now, contributor, seq, sumsq);
            }
            Work::Sum(sum) => {
                self.store.sum(&sum).map_err(|error| say(&error))?;
                // A nanosecond for each element of each contribution.
                let elements = u64::from(sum.out.len_bytes / 8) * sum.inputs.len() as u64;
                self.engine.handle_summed(now, sum.context, elements);
            }
            Work::Apply { version, results } => {
                #[cfg(test)]
                let errs = self.errs > 0;
                #[cfg(test)]
                if errs {
                    self.errs -= 1;
                    scene.checker.handle_bent(self.number);
                }
                #[cfg(test)]
                if self.bends || errs {
                    let first =
                        results.iter().find(|span| span.len_bytes > 0).expect("somebody owns something");
                    let first = first.part(0, 8).expect("an owner has an element");
                    self.store.arena().write(first, &[1; 8]).map_err(|error| say(&error))?;
                }
                let digest = self.store.apply(&results).map_err(|error| say(&error))?;
                self.hold(scene, version);
                self.engine.handle_applied(now, version, digest);
            }
            Work::Settle { index, seq, fate, part } => {
                let life = self.announced.remove(&seq).unwrap_or_default();
                scene.checker.handle_settled(SlotId { key: self.key, life, seq }, fate);
                scene.checker.handle_part(SlotId { key: self.key, life, seq }, part);
                self.worker.books.handle_part(index, part);
                match fate {
                    SlotFate::Fold => self.consumer.fold(index).map_err(|error| say(&error))?,
                    SlotFate::Commit => self.unpublished.push((index, fate)),
                    SlotFate::Lose => {
                        self.worker.books.lose(index);
                        self.consumer.release(index).map_err(|error| say(&error))?;
                    }
                }
            }
            Work::Capture { cut } => {
                #[cfg(test)]
                let cut = self.fake(cut).map_err(|error| say(&error))?;
                let len_bytes = self.store.capture(&cut).ok();
                #[cfg(test)]
                if len_bytes.is_some() {
                    self.bend_snapshot().map_err(|error| say(&error))?;
                }
                self.engine.handle_captured(now, len_bytes);
            }
            Work::Gather { version, results, first } => match self.store.gather(&results, first) {
                Err(StoreError::Full) => self.engine.handle_unapplied(now, version),
                gathered => gathered.map_err(|error| say(&error))?,
            },
            Work::Merge { version } => {
                let digest = self.store.merge().map_err(|error| say(&error))?;
                self.say(scene, |_| Some(What::Installed(version)));
                self.hold(scene, version);
                scene.trace.tell(scene.now_ns, scene.host, || format!("goes on to version {}", version.0));
                self.engine.handle_applied(now, version, digest);
            }
            Work::InspectCut { span } => {
                let cut = self.store.inspect_cut(span).ok();
                self.engine.handle_cut_inspected(now, cut.as_ref());
            }
            Work::Inspect { span } => {
                let cut = self.store.inspect(span).ok();
                self.engine.handle_inspected(now, cut.as_ref());
            }
            Work::Install { version } => {
                self.store.install().map_err(|error| say(&error))?;
                self.started = true;
                self.say(scene, |_| Some(What::Installed(version)));
                self.hold(scene, version);
                scene.trace.tell(scene.now_ns, scene.host, || format!("installs version {}", version.0));
            }
            Work::Persist { number, record, entries } => self.persist(scene, number, &record, &entries),
            Work::Load { checkpoint } => self.load(scene, checkpoint)?,
            other => return Err(format!("the engine asks for {other:?}, which nobody can do")),
        }
        Ok(())
    }

    /// The master state is that of `version` from here on.
    pub(super) fn hold(&mut self, scene: &mut Scene<'_>, version: Version) {
        self.applied = version;
        self.checkpoint();
        scene.checker.handle_applied(scene.host, self.number, version, self.store.master());
        scene.phases.handle_state(scene.host);
        if let Some(survey) = &mut scene.survey {
            survey.handle_version(scene.now_ns, version, self.store.master());
        }
        self.say(scene, |own| Some(What::Version { version, digest: own.store.digest() }));
    }

    /// Hands final slots back to the worker once the state that holds them is there.
    pub(super) fn publish(&mut self, scene: &mut Scene<'_>) {
        if self.unpublished.is_empty() {
            return;
        }
        let consensus = self.engine.consensus();
        if consensus.version_final() == consensus.version_held() {
            for (index, _) in std::mem::take(&mut self.unpublished) {
                if let Err(error) = self.consumer.commit(index) {
                    scene.checker.fail(format!("n{}: a final slot cannot be released: {error}", scene.host));
                }
            }
        }
    }
}
