//! What outlives a process: the record of views, and the state of every few versions.

use super::{Process, Scene};
use plesio::engine::Disk;
use plesio_consensus::Record;
use plesio_wire::sideband::RosterEntry;
use plesio_wire::{Digest, Version};

/// A host's disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk {
    record: Option<Record>,
    entries: Vec<RosterEntry>,
    checkpoint: Option<(Version, Digest, Vec<u8>)>,
}

impl SimDisk {
    pub(super) fn told(&self) -> Disk {
        let checkpoint = self.checkpoint.as_ref().map(|(version, digest, _)| (*version, *digest));
        Disk { record: self.record.clone(), entries: self.entries.clone(), checkpoint }
    }
}

impl Process {
    pub(super) fn persist(
        &mut self,
        scene: &Scene<'_>,
        number: u64,
        record: &Record,
        entries: &[RosterEntry],
    ) {
        if let Some(disk) = &mut self.disk {
            (disk.record, disk.entries) = (Some(record.clone()), entries.to_vec());
        }
        self.engine.handle_persisted(scene.local, number, true);
    }

    /// The state is that of another version: a state now and then is written down, on each host another one.
    pub(super) fn checkpoint(&mut self) {
        let reached = self.engine.handle_reached(self.applied);
        let due = (self.applied.0 + self.key.0 % CHECKPOINT_VERSIONS).is_multiple_of(CHECKPOINT_VERSIONS);
        let Some(disk) = &mut self.disk else { return };
        if let Some((record, entries)) = reached {
            (disk.record, disk.entries) = (Some(record), entries);
        }
        if due && self.engine.returning().is_none() {
            let mut state = Vec::new();
            self.store.copy_state(&mut state);
            disk.checkpoint = Some((self.applied, self.store.digest(), state));
        }
    }

    /// This node begins a generation of the log from what its disk holds.
    pub(super) fn load(
        &mut self,
        scene: &mut Scene<'_>,
        checkpoint: Option<(Version, Digest)>,
    ) -> Result<(), String> {
        let state = self.disk.as_ref().and_then(|disk| disk.checkpoint.as_ref());
        let digest = match (checkpoint, state) {
            (None, _) => self.store.digest(),
            (Some(_), None) => return Err("F27: a checkpoint is asked for that is not on the disk".into()),
            (Some((version, wanted)), Some((kept, _, state))) => {
                let mut rest = state.as_slice();
                let digest = self.store.restore(|part| {
                    let (head, tail) =
                        rest.split_at_checked(part.len()).ok_or("F27: a state is too short")?;
                    part.copy_from_slice(head);
                    rest = tail;
                    Ok::<(), String>(())
                })?;
                if (version, wanted) != (*kept, digest) {
                    return Err("F27: another checkpoint is on the disk than was told of".into());
                }
                digest
            }
        };
        let version = checkpoint.unwrap_or_default().0;
        scene.checker.handle_generation(version);
        scene.trace.tell(scene.now_ns, scene.host, || format!("BEGINS AGAIN from version {}", version.0));
        self.started = true;
        self.engine.handle_loaded(scene.local, Some(digest));
        self.take_events(scene);
        self.hold(scene, version);
        Ok(())
    }
}

const CHECKPOINT_VERSIONS: u64 = 4;
