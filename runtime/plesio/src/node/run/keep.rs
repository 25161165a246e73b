//! What outlives the node: handed to the thread that writes, and told of.

use super::{NodeError, Runner};
use crate::event::What;
use crate::node::state::{DiskState, Done, Folder, Job, Mark, Source, Writer};
use plesio_consensus::Record;
use plesio_udp::Waker;
use plesio_wire::sideband::RosterEntry;
use plesio_wire::{Digest, Instant, LogIndex, Version};
use std::time::Duration;

/// The node's end of it.
pub(super) struct Kept {
    writer: Writer,
    /// The newest checkpoint as it was at the start.
    source: Option<Source>,
    period_ns: u64,
    due: Instant,
    /// When the record says again how far the state has come.
    note_due: Instant,
    /// None while a checkpoint is being written.
    buffer: Option<Vec<u8>>,
    /// Of the newest checkpoint; the next one is of another.
    written: Option<LogIndex>,
    /// Of each kind, that the newest write failed: a disk may have room for a record and none for a checkpoint.
    failing: [bool; 2],
    state: DiskState,
}

/// What is written, and answered for.
#[derive(Clone, Copy)]
enum Kind {
    Record,
    Checkpoint,
}

impl Kept {
    pub(super) fn new(folder: Folder, waker: Waker, period_ns: u64, now: Instant) -> Result<Self, NodeError> {
        let newest = folder.newest();
        let source = folder.source();
        let failed = |error| NodeError::Io(format!("the thread that writes state cannot start: {error}"));
        let writer = Writer::start(folder, move || waker.wake()).map_err(failed)?;
        let state = DiskState { checkpoint: newest.map(|mark| mark.version.0), ..DiskState::default() };
        let (due, written) = (now.after(period_ns), newest.map(|mark| mark.index));
        Ok(Self {
            writer,
            source,
            period_ns,
            due,
            note_due: now,
            buffer: Some(Vec::new()),
            written,
            failing: [false; 2],
            state,
        })
    }

    pub(super) const fn state(&self) -> DiskState {
        self.state
    }
}

impl Runner {
    pub(super) fn persist(&mut self, number: u64, record: Box<Record>, entries: Vec<RosterEntry>) {
        if let Some(kept) = &self.kept {
            kept.writer.give(Job::Persist { number, record, entries });
        }
    }

    /// The checkpoint that a new generation of the log begins from becomes the state.
    pub(super) fn load(&mut self, checkpoint: Option<(Version, Digest)>) {
        let digest = match (checkpoint, self.kept.as_ref().and_then(|kept| kept.source.as_ref())) {
            (None, _) => Ok(self.store.digest()),
            (Some((_, wanted)), Some(source)) => source.load(&mut self.store).and_then(|digest| {
                let changed = || std::io::Error::other("it is not any more what it was at the start");
                (digest == wanted).then_some(digest).ok_or_else(changed)
            }),
            (Some(_), None) => Err(std::io::Error::other("there is none")),
        };
        match &digest {
            Ok(digest) => {
                (self.digest, self.held) = (*digest, checkpoint.unwrap_or_default().0);
                (self.changed, self.started) = (true, true);
                self.say(What::Installed(self.held));
                self.say(What::Version { version: self.held, digest: self.digest });
            }
            Err(error) => self.say(What::Note(format!(
                "the checkpoint cannot be read: {error}; start this node anew, and it begins from the one before"
            ))),
        }
        self.engine.handle_loaded(self.clock.now(), digest.ok());
        if let Some(revival) = self.engine.poll_revival() {
            self.say(What::Revived(revival));
        }
    }

    /// Hears what was written, and gives the next state to be.
    pub(super) fn keep(&mut self, now: Instant) {
        self.hear_written();
        if let Some(kept) = self.kept.as_mut().filter(|kept| now >= kept.note_due) {
            kept.note_due = now.after(NOTE_NS);
            self.note_reached();
        }
        if let Some(kept) = self.kept.as_mut().filter(|kept| now >= kept.due) {
            kept.due = now.after(kept.period_ns);
            self.checkpoint();
        }
    }

    /// The node ends in good order: what it holds is on the disk, or it was said why not.
    pub(super) fn keep_last(&mut self) {
        // One may be on its way, of a state before.
        self.await_checkpoint();
        self.note_reached();
        self.checkpoint();
        self.await_checkpoint();
    }

    fn await_checkpoint(&mut self) {
        for _ in 0..LAST_LOOKS {
            if self.kept.as_ref().is_none_or(|kept| kept.buffer.is_some()) {
                return;
            }
            std::thread::sleep(LAST_LOOK);
            self.hear_written();
        }
    }

    fn hear_written(&mut self) {
        while let Some(done) = self.kept.as_ref().and_then(|kept| kept.writer.poll()) {
            match done {
                Done::Persisted(number, stored) => {
                    self.engine.handle_persisted(self.clock.now(), number, stored.is_ok());
                    self.note_written(Kind::Record, stored);
                }
                Done::Checkpoint(version, written, buffer) => {
                    if let Some(kept) = &mut self.kept {
                        kept.buffer = Some(buffer);
                        if written.is_ok() {
                            kept.state.checkpoint = Some(version.0);
                        } else {
                            // What was to be the newest is not there: this version again, next time.
                            kept.written = None;
                        }
                    }
                    self.note_written(Kind::Checkpoint, written);
                }
            }
        }
    }

    fn note_reached(&mut self) {
        if let Some(kept) = &self.kept
            && let Some((record, entries)) = self.engine.handle_reached(self.held)
        {
            kept.writer.give(Job::Note(Box::new(record), entries));
        }
    }

    fn checkpoint(&mut self) {
        let Some(kept) = &mut self.kept else { return };
        // A state that may have to be read again is not written over.
        let cut = self.engine.consensus().snapshot().filter(|cut| {
            cut.version == self.held && self.engine.returning().is_none() && kept.written < Some(cut.index)
        });
        if let Some(cut) = cut
            && let Some(mut buffer) = kept.buffer.take()
        {
            self.store.copy_state(&mut buffer);
            let len_bytes = buffer.len() as u64;
            let mark = Mark { index: cut.index, version: cut.version, len_bytes, digest: cut.digest };
            kept.written = Some(cut.index);
            kept.writer.give(Job::Checkpoint(mark, buffer));
        }
    }

    fn note_written(&mut self, kind: Kind, written: std::io::Result<()>) {
        let Some(kept) = &mut self.kept else { return };
        kept.state.failures += u64::from(written.is_err());
        let failed_before = std::mem::replace(&mut kept.failing[kind as usize], written.is_err());
        let degraded = kept.failing.contains(&true);
        let degraded_before = std::mem::replace(&mut kept.state.degraded, degraded);
        let what = match kind {
            Kind::Record => "the record of views",
            Kind::Checkpoint => "a checkpoint",
        };
        match written {
            Err(error) if !failed_before => {
                self.say(What::Degraded(format!("{what} cannot be written: {error}")));
            }
            Ok(()) if degraded_before && !degraded => self.say(What::Mended),
            _ => {}
        }
    }
}

/// A checkpoint is older than the state: how many versions are lost with what came after it, is known to this.
const NOTE_NS: u64 = 1_000_000_000;
/// How often a node that ends looks whether its last state is written.
const LAST_LOOK: Duration = Duration::from_millis(1);
/// A disk that hangs holds nobody for longer.
const LAST_LOOKS: u32 = 10_000;
