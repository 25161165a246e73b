//! The thread that writes to the folder, so that neither training nor the agreement waits for a disk.

use super::{FRESH, Folder, Mark, NAMES, head, views};
use plesio_consensus::Record;
use plesio_sideband::publish;
use plesio_wire::Version;
use plesio_wire::sideband::RosterEntry;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// What is to be written.
pub(in crate::node) enum Job {
    /// The record of that number, so that it outlives a loss of power.
    Persist {
        /// Which.
        number: u64,
        /// What.
        record: Box<Record>,
        /// Where its members are.
        entries: Vec<RosterEntry>,
    },
    /// How far the state has come: of use after a kill, and not worth a wait.
    Note(Box<Record>, Vec<RosterEntry>),
    /// A state.
    Checkpoint(Mark, Vec<u8>),
}

/// What became of it.
pub(in crate::node) enum Done {
    /// Of a record, its number.
    Persisted(u64, io::Result<()>),
    /// Of a checkpoint, its version, and the buffer that it came in.
    Checkpoint(Version, io::Result<()>, Vec<u8>),
}

/// The thread. Dropping it waits for what is being written.
pub(in crate::node) struct Writer {
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// `wake` is called when something is done.
    pub(in crate::node) fn start(mut folder: Folder, wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (jobs, given) = channel();
        let (tell, done) = channel();
        let run = move || {
            while let Ok(job) = given.recv() {
                let word = match job {
                    Job::Persist { number, record, entries } => {
                        let stored = folder.store(&record, &entries, true);
                        Some(Done::Persisted(number, stored))
                    }
                    Job::Note(record, entries) => {
                        // The next one comes soon.
                        let _unsaid = folder.store(&record, &entries, false);
                        None
                    }
                    Job::Checkpoint(mark, state) => {
                        let written = folder.checkpoint(&mark, &state);
                        Some(Done::Checkpoint(mark.version, written, state))
                    }
                };
                if word.is_some_and(|word| tell.send(word).is_ok()) {
                    wake();
                }
            }
        };
        let thread = std::thread::Builder::new().name("state".into()).spawn(run)?;
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread) })
    }

    /// In turn. The engine asks for a record when a view changes, and one checkpoint is under way at most.
    pub(in crate::node) fn give(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // A thread that has ended was reported by its own hook.
            let _ended = jobs.send(job);
        }
    }

    pub(in crate::node) fn poll(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported there.
            let _ended = thread.join();
        }
    }
}

impl Folder {
    pub(super) fn store(&mut self, record: &Record, entries: &[RosterEntry], lasts: bool) -> io::Result<()> {
        self.sequence += 1;
        let content = views(self.owner, self.sequence, Some(record), entries);
        if lasts { self.views.store(&content) } else { self.views.note(&content) }
    }

    /// In the place of the older one, once it is whole.
    pub(super) fn checkpoint(&mut self, mark: &Mark, state: &[u8]) -> io::Result<()> {
        // Where the views are gone, whatever has their folder's name now is no place for a state.
        self.views.check_place()?;
        let index = |at: usize| self.checkpoints[at].map(|mark| mark.index);
        let older = usize::from(index(1) < index(0));
        let fresh = self.path.join(FRESH);
        let written = (|| {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(&head(self.owner, mark))?;
            file.write_all(state)?;
            publish(&file, &fresh, &self.path.join(NAMES[older]))
        })();
        if written.is_err() {
            // Room for others, if it is room that lacks.
            let _kept = fs::remove_file(&fresh);
        } else {
            self.checkpoints[older] = Some(*mark);
        }
        written
    }
}
