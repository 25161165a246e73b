//! What outlives a process, as far as the agreement is concerned: which views there may be, and the way back for all.
//!
//! ```text
//!   a VIEW is accepted or learnt --> Work::Persist --> handle_persisted
//!        ACCEPT, COMMIT and DECIDED wait meanwhile, a quarter of a second at most: then a disk that hangs costs nobody
//!        the mesh, and the shell says that this node cannot be counted on after a restart
//!   comes back from a disk --> JOIN, as anybody; and REVIVE to those who came back too --> Work::Load --> member
//! ```
//!
//! Who decides what and why that is safe is `plesio_consensus`'s [`Restart`]. A shell without a disk never calls
//! [`Engine::handle_disk`], and nothing here happens.

use super::{Engine, Out, Work};
use plesio_consensus::{Founding, Record, Restart, Restarted, Returner};
use plesio_sideband::To;
use plesio_wire::sideband::{Message, Revive, RosterEntry};
use plesio_wire::value::View;
use plesio_wire::{Digest, Instant, LogIndex, NodeKey, Version};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// What a shell with a disk found there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Disk {
    /// The record; none: it is a new folder.
    pub record: Option<Record>,
    /// Where the members were that the record names.
    pub entries: Vec<RosterEntry>,
    /// Version and digest of the newest whole checkpoint.
    pub checkpoint: Option<(Version, Digest)>,
}

/// The first view of a generation that this node began.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Revival {
    /// The version that it goes on from.
    pub version: Version,
    /// Versions that somebody held and that are in no checkpoint: lost.
    pub lost_versions: u64,
    /// Members that came back for it.
    pub members: usize,
}

#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// What is, or is to be, on the disk. None until the first view, and while `restart` has it.
    record: Option<Record>,
    restart: Option<Restart>,
    /// Numbers of the newest record given to the shell, and of the newest that is on the disk.
    asked: u64,
    stored: u64,
    /// Since when words wait.
    since: Option<Instant>,
    waiting: VecDeque<Out>,
    /// The VIEW proposed to this node last.
    proposed: Option<(LogIndex, View)>,
    founding: Option<Founding>,
    revival: Option<Revival>,
}

impl Engine {
    /// This node has a disk, with that on it. Once, before anything else.
    pub fn handle_disk(&mut self, now: Instant, disk: Disk) {
        let mut keeping = Keeping::default();
        if self.consensus.is_member() {
            keeping.record = Some(Record::new(self.consensus.view_index(), *self.consensus.view()));
        } else if let Some(record) = disk.record {
            let me = Returner {
                entry: self.config.entry,
                incarnation: self.config.incarnation,
                model: self.config.common().digest(),
            };
            let others = disk.entries.iter().filter(|entry| entry.id.key() != self.key);
            let mut known: Vec<SocketAddr> = others.map(|entry| entry.sideband.0).collect();
            if let Some(joining) = &mut self.joining {
                known.retain(|address| !joining.seeds.contains(address));
                joining.seeds.extend(known);
                known = joining.seeds.clone();
            }
            keeping.restart = Some(Restart::new(me, record, disk.checkpoint, known, now));
        }
        self.keeping = Some(keeping);
        if self.consensus.is_member() {
            self.persist(now);
        }
        self.turn(now);
    }

    /// The record of that number is on the disk, or cannot be written. What must not be said before it is stays unsaid
    /// only as long as that helps.
    pub fn handle_persisted(&mut self, now: Instant, number: u64, is_stored: bool) {
        let Some(keeping) = &mut self.keeping else { return };
        if is_stored {
            keeping.stored = keeping.stored.max(number);
        }
        if number == keeping.asked {
            keeping.since = None;
            self.out.extend(keeping.waiting.drain(..));
            if let Some(restart) = keeping.restart.as_mut().filter(|_| is_stored) {
                restart.handle_persisted(now);
            }
        }
        self.turn_restart(now);
        self.turn(now);
    }

    /// Answer to [`Work::Load`]: the digest of the state, now that it is the master state; none: it cannot be read.
    pub fn handle_loaded(&mut self, now: Instant, digest: Option<Digest>) {
        let founding = self.keeping.as_mut().and_then(|keeping| keeping.founding.take());
        if let (Some(founding), Some(digest)) = (founding, digest)
            && self.consensus.handle_snapshot(now, &founding.cut(digest)).is_ok()
        {
            let version = founding.checkpoint.unwrap_or_default().0;
            let lost_versions = founding.reached.0.saturating_sub(version.0);
            let members = founding.view.members.len();
            if let Some(keeping) = &mut self.keeping {
                keeping.revival = Some(Revival { version, lost_versions, members });
            }
            self.exchange.handle_sealed();
            self.corrector.handle_master(now, true);
            self.find_way(now);
        } else if let Some(restart) = self.keeping.as_mut().and_then(|keeping| keeping.restart.as_mut()) {
            restart.handle_unfounded();
        }
        self.turn(now);
    }

    /// Told once: this node began a generation.
    pub fn poll_revival(&mut self) -> Option<Revival> {
        self.keeping.as_mut()?.revival.take()
    }

    /// A version is held: the disk may say so with the next record, and before that when the shell thinks it worth it.
    pub fn handle_reached(&mut self, version: Version) -> Option<(Record, Vec<RosterEntry>)> {
        let keeping = self.keeping.as_mut()?;
        let record = keeping.record.as_mut().filter(|_| keeping.asked == keeping.stored)?;
        let news = record.reach(version).then(|| record.clone())?;
        Some((news, self.whereabouts()))
    }

    /// Whether this node came back from its disk and is in no mesh yet; and how many others are.
    #[must_use]
    pub fn returning(&self) -> Option<usize> {
        self.keeping.as_ref()?.restart.as_ref().map(Restart::heard)
    }

    /// Where the members are that the record names, this node among them.
    fn whereabouts(&self) -> Vec<RosterEntry> {
        let view = self.consensus.view();
        view.members.iter().filter_map(|seat| self.address_of(seat.key)).copied().collect()
    }

    fn persist(&mut self, now: Instant) {
        let entries = self.whereabouts();
        let Some(keeping) = &mut self.keeping else { return };
        let restart = keeping.restart.as_ref();
        let Some(record) = restart.map(Restart::record).or(keeping.record.as_ref()) else { return };
        keeping.asked += 1;
        keeping.since.get_or_insert(now);
        let (record, number) = (Box::new(record.clone()), keeping.asked);
        self.work.push_back(Work::Persist { number, record, entries });
    }

    /// A VIEW is in force.
    pub(super) fn keep_view(&mut self, now: Instant, index: LogIndex, view: &View) {
        let seated = self.seat(view).is_some();
        let Some(keeping) = &mut self.keeping else { return };
        let news = match (&mut keeping.restart, &mut keeping.record) {
            (Some(restart), _) => restart.handle_learnt(index, view),
            (None, Some(record)) => record.learn(index, view),
            (None, record) => {
                *record = Some(Record::new(index, *view));
                true
            }
        };
        if seated && let Some(restart) = keeping.restart.take() {
            keeping.record = Some(restart.into_record());
        }
        if news {
            self.persist(now);
        }
    }

    /// A VIEW is proposed to this node, which may accept it.
    pub(super) fn keep_proposed(&mut self, index: LogIndex, view: &View) {
        if let Some(keeping) = &mut self.keeping {
            keeping.proposed = Some((index, *view));
        }
    }

    /// Sends a word of the agreement, or keeps it until the record says what it says.
    pub(super) fn say(&mut self, now: Instant, to: To, message: Message) {
        let accepts = match (&message, self.keeping.as_ref().and_then(|keeping| keeping.proposed)) {
            (Message::Accept(accept), Some((index, view))) => {
                ((index, view.digest()) == (accept.index, accept.digest)).then_some((index, view))
            }
            // Who proposes has accepted.
            (Message::Epoch(epoch), _) => Some((epoch.index, epoch.view)),
            _ => None,
        };
        if let Some((index, view)) = accepts
            && let Some(record) = self.keeping.as_mut().and_then(|keeping| keeping.record.as_mut())
            && record.accept(index, &view)
        {
            self.persist(now);
        }
        let binds = matches!(message, Message::Accept(_) | Message::Commit(_) | Message::Decided { .. });
        let out = Out::Send(to, message);
        match &mut self.keeping {
            // Full, it is lost, as the network might have lost it.
            Some(keeping) if binds && keeping.since.is_some() => {
                if keeping.waiting.len() < WAITING_MAX {
                    keeping.waiting.push_back(out);
                }
            }
            _ => self.out.push_back(out),
        }
    }

    /// Another one that came back speaks.
    pub(super) fn handle_revive(&mut self, now: Instant, address: SocketAddr, body: &Revive) {
        if let Some(restart) = self.keeping.as_mut().and_then(|keeping| keeping.restart.as_mut()) {
            restart.handle_message(now, address, body);
            self.turn_restart(now);
        }
    }

    pub(super) fn handle_keeping_timeout(&mut self, now: Instant) {
        let Some(keeping) = &mut self.keeping else { return };
        if keeping.since.is_some_and(|since| now >= since.after(DISK_NS)) {
            keeping.since = None;
            self.out.extend(keeping.waiting.drain(..));
        }
        if let Some(restart) = keeping.restart.as_mut().filter(|restart| now >= restart.poll_timeout()) {
            restart.handle_timeout(now);
            self.turn_restart(now);
        }
    }

    pub(super) fn keeping_timeout(&self) -> Option<Instant> {
        let keeping = self.keeping.as_ref()?;
        let disk = keeping.since.map(|since| since.after(DISK_NS));
        disk.into_iter().chain(keeping.restart.as_ref().map(Restart::poll_timeout)).min()
    }

    /// What is no mesh of this node's any more: everything below what it knew to be decided, or is pledged to.
    pub(super) fn floor(&self) -> LogIndex {
        let restart = self.keeping.as_ref().and_then(|keeping| keeping.restart.as_ref());
        restart.map_or(LogIndex(0), |restart| restart.record().floor().max(restart.record().decided().0))
    }

    /// Who has the state that everybody begins with again.
    pub(super) fn founder(&self) -> Option<NodeKey> {
        self.keeping.as_ref()?.restart.as_ref()?.founder()
    }

    fn turn_restart(&mut self, now: Instant) {
        loop {
            let Some(restart) = self.keeping.as_mut().and_then(|keeping| keeping.restart.as_mut()) else {
                return;
            };
            if let Some((to, word)) = restart.poll_transmit() {
                self.out.push_back(Out::Send(To::Address(to), Message::Revive(word)));
                continue;
            }
            match restart.poll_event() {
                Some(Restarted::Persist) => self.persist(now),
                Some(Restarted::Found(founding)) => self.begin_generation(founding),
                Some(_) | None => return,
            }
        }
    }

    fn begin_generation(&mut self, founding: Founding) {
        for (entry, seat) in founding.entries.iter().zip(founding.view.members.iter()) {
            self.asking.insert(seat.key, (seat.incarnation, *entry));
        }
        self.learn_roster(&founding.entries);
        self.work.push_back(Work::Load { checkpoint: founding.checkpoint });
        if let Some(keeping) = &mut self.keeping {
            keeping.founding = Some(founding);
        }
    }
}

/// How long a word of the agreement waits for a disk.
const DISK_NS: u64 = 250_000_000;
const WAITING_MAX: usize = 256;
