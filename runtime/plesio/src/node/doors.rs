//! Memory between nodes of one host: this node's door, and visits at its peers'. A thread of its own, since to answer, to
//! knock and to map all take time, and the node's thread has none to spare.
//!
//! A door is named after its node and the number of its arena, which the node tells its peers through their session: so
//! what is mapped is the memory of that peer and of no other process. A name that a killed process left is taken away by
//! whoever had its memory mapped, or by the next node that opens a door.
//!
//! Knows who asked for what. Does not know what is read where, nor when.

use plesio_collective::ArenaId;
use plesio_memory::{Access, Arena, Door, Foreign, KnockError, Offer, Tether, Visit, sweep, wait};
use plesio_udp::Waker;
use plesio_wire::NodeKey;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What became of a wish.
pub(super) enum News {
    /// It is mapped.
    Mapped(ArenaId, Foreign),
    /// It is there and cannot be, for a reason worth saying.
    Refused(ArenaId, String),
    /// This node's own door was taken away, and there is no other.
    Shut(String),
}

enum Wish {
    Map(ArenaId),
    /// Unmapping takes time as well.
    Unmap(Foreign),
}

/// The node's side.
pub(super) struct Doors {
    /// Which of all arenas this node's is.
    pub(super) arena: u64,
    wishes: Sender<Wish>,
    news: Receiver<News>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Doors {
    /// Opens the door to `arena` in `folder`; who waits for news is woken.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) fn open(folder: &Path, arena: &Arena, key: NodeKey, waker: Waker) -> Result<Self, String> {
        let say = |error: &dyn std::fmt::Display| error.to_string();
        let file = arena.file().ok_or("tensor memory has no file")?;
        let file = file.try_clone_to_owned().map_err(|error| say(&error))?;
        let number = draw();
        let door = Door::open(folder, &name(key, number)).map_err(|error| say(&error))?;
        // Names that killed nodes left; what cannot be taken away does no harm.
        let _ = sweep(folder);
        let (wake, woken) = UnixStream::pair().map_err(|error| say(&error))?;
        for end in [&wake, &woken] {
            end.set_nonblocking(true).map_err(|error| say(&error))?;
        }
        let (wishes, inbox) = channel();
        let (sender, news) = channel();
        let len_bytes = arena.memory().1 as u64;
        let keeper = Keeper {
            offer: Offer { kind: KIND, len_bytes, generation: number, tag: key.0 },
            door,
            file,
            own: arena.clone(),
            folder: folder.to_path_buf(),
            inbox,
            news: sender,
            waker,
            woken,
            visitors: VecDeque::new(),
            visits: Vec::new(),
            hosts: Vec::new(),
            look_at: Instant::now() + LOOK,
            shut: false,
        };
        let thread = std::thread::Builder::new().name("plesio-doors".into()).spawn(move || keeper.run());
        let thread = Some(thread.map_err(|error| say(&error))?);
        Ok(Self { arena: number, wishes, news, wake, thread })
    }

    /// Finds a peer's arena and maps it, if it is on this host.
    pub(super) fn map(&mut self, arena: ArenaId) {
        self.wish(Wish::Map(arena));
    }

    /// Gives one back.
    pub(super) fn unmap(&mut self, foreign: Foreign) {
        self.wish(Wish::Unmap(foreign));
    }

    pub(super) fn poll_news(&mut self) -> Option<News> {
        self.news.try_recv().ok()
    }

    fn wish(&mut self, wish: Wish) {
        // The thread only ends with this value; a full stream is one that it has yet to read.
        let _ = self.wishes.send(wish);
        let _ = self.wake.write(&[0]);
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        let _ = self.wake.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // A panic of it was reported by its own hook.
            let _ = thread.join();
        }
    }
}

/// A visit that is not over.
struct Calling {
    arena: ArenaId,
    visit: Option<Visit>,
    /// When to knock again, or to give up waiting for an answer.
    due: Instant,
    attempts: u32,
    /// Nobody was there once.
    absent: bool,
}

struct Keeper {
    door: Door,
    offer: Offer,
    file: OwnedFd,
    own: Arena,
    folder: PathBuf,
    inbox: Receiver<Wish>,
    news: Sender<News>,
    waker: Waker,
    woken: UnixStream,
    /// Who was handed this node's arena, the newest last.
    visitors: VecDeque<Tether>,
    visits: Vec<Calling>,
    /// Whose arenas came here, one tether for each: when one dies, its name is taken away.
    hosts: Vec<(ArenaId, Tether)>,
    /// When to see whether the door is still there.
    look_at: Instant,
    /// It was not, and that was told.
    shut: bool,
}

impl Keeper {
    fn run(mut self) {
        while self.turn() {
            let due = self.visits.iter().map(|calling| calling.due).fold(self.look_at, Instant::min);
            let limit = due.saturating_duration_since(Instant::now());
            let mut files = vec![self.woken.as_fd(), self.door.as_fd()];
            files.extend(self.visits.iter().filter_map(|calling| Some(calling.visit.as_ref()?.as_fd())));
            files.extend(self.hosts.iter().map(|(_, host)| host.as_fd()));
            if wait(&files, limit).is_err() {
                std::thread::sleep(RETRY);
            }
        }
    }

    /// False when the node has ended.
    fn turn(&mut self) -> bool {
        let mut bytes = [0; 64];
        match self.woken.read(&mut bytes) {
            Ok(0) => return false,
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return false;
            }
            _ => {}
        }
        while let Ok(wish) = self.inbox.try_recv() {
            match wish {
                Wish::Map(arena) => {
                    let calling =
                        Calling { arena, visit: None, due: Instant::now(), attempts: 0, absent: false };
                    self.visits.push(calling);
                }
                Wish::Unmap(foreign) => drop(foreign),
            }
        }
        self.answer();
        self.call();
        let before = self.hosts.len();
        self.hosts.retain(|(_, host)| !host.parted());
        if self.hosts.len() < before {
            let _ = sweep(&self.folder);
        }
        if self.look_at <= Instant::now() {
            self.look();
            self.look_at = Instant::now() + LOOK;
        }
        true
    }

    /// Opens the door again where its name was taken away: who comes later would find nobody, and go by UDP.
    fn look(&mut self) {
        if self.door.stands() {
            return;
        }
        match Door::open(&self.folder, &name(NodeKey(self.offer.tag), self.offer.generation)) {
            Ok(door) => (self.door, self.shut) = (door, false),
            Err(_) if self.shut => {}
            Err(cause) => {
                self.shut = true;
                self.tell(News::Shut(cause.to_string()));
            }
        }
    }

    fn answer(&mut self) {
        for _ in 0..VISITORS_MAX {
            match self.door.answer(&self.offer, self.file.as_fd()) {
                Ok(Some(tether)) => self.visitors.push_back(tether),
                Ok(None) => break,
                Err(_) => {
                    // One who was turned away or left; or there is no descriptor left, which time may change.
                    std::thread::sleep(RETRY);
                    break;
                }
            }
        }
        self.visitors.retain(|visitor| !visitor.parted());
        while self.visitors.len() > VISITORS_MAX {
            self.visitors.pop_front();
        }
    }

    /// Knocks where it is time to, and takes what was answered.
    fn call(&mut self) {
        for mut calling in std::mem::take(&mut self.visits) {
            match self.call_one(&mut calling) {
                Ok(None) => self.visits.push(calling),
                Ok(Some((foreign, tether))) => {
                    // One that was put out and came back is the same process: its first visit is over.
                    self.hosts.retain(|(arena, _)| *arena != calling.arena);
                    self.hosts.push((calling.arena, tether));
                    self.tell(News::Mapped(calling.arena, foreign));
                }
                Err(None) => {}
                Err(Some(cause)) => self.tell(News::Refused(calling.arena, cause)),
            }
        }
    }

    /// What came of it so far; an error ends it, without a reason where the peer is on another host.
    fn call_one(&self, calling: &mut Calling) -> Result<Option<(Foreign, Tether)>, Option<String>> {
        let outcome = match calling.visit.take() {
            Some(visit) => visit.poll(),
            None if Instant::now() < calling.due => return Ok(None),
            None => {
                let (peer, number) = calling.arena;
                calling.due = Instant::now() + ANSWER;
                calling.attempts += 1;
                Visit::begin(&self.folder.join(name(peer, number))).and_then(Visit::poll)
            }
        };
        match outcome {
            Ok(Ok(handed)) => self.attach(calling.arena, handed).map(Some).map_err(Some),
            Ok(Err(visit)) if Instant::now() < calling.due => {
                calling.visit = Some(visit);
                Ok(None)
            }
            // Or its door's name was taken away, and it has yet to see that.
            Err(KnockError::Nobody { .. }) if !calling.absent => {
                calling.absent = true;
                calling.due = Instant::now() + LOOK + AGAIN;
                Ok(None)
            }
            Err(KnockError::Nobody { .. }) => Err(None),
            Ok(Err(_)) | Err(KnockError::Late | KnockError::Closed) if calling.attempts < ATTEMPTS_MAX => {
                calling.due = Instant::now() + AGAIN;
                Ok(None)
            }
            Ok(Err(_)) => Err(Some(KnockError::Late.to_string())),
            Err(error) => Err(Some(error.to_string())),
        }
    }

    fn attach(
        &self,
        (peer, number): ArenaId,
        handed: plesio_memory::Handed,
    ) -> Result<(Foreign, Tether), String> {
        if handed.offer.tag != peer.0 {
            return Err("another node answers at its door".into());
        }
        let len_bytes = usize::try_from(handed.offer.len_bytes).map_err(|error| error.to_string())?;
        let attached = handed.attach(KIND, number, len_bytes, Access::ReadOnly);
        let (segment, tether) = attached.map_err(|error| error.to_string())?;
        let foreign = Foreign::open(segment).map_err(|error| error.to_string())?;
        if !foreign.resembles(&self.own) {
            return Err("its memory is laid out another way; run the same version on both sides".into());
        }
        Ok((foreign, tether))
    }

    fn tell(&self, news: News) {
        // A node that does not listen any more is ending.
        let _ = self.news.send(news);
        self.waker.wake();
    }
}

fn name(key: NodeKey, number: u64) -> String {
    format!("{:016x}-{number:016x}", key.0)
}

/// A number that no other arena on this host has: drawn anew for each of them.
pub(crate) fn draw() -> u64 {
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.write_u64(plesio_udp::clock::monotonic_raw_ns() as u64);
    hasher.finish()
}

/// What lies behind a node's door, among all that processes hand to each other.
const KIND: u16 = 4;
/// Visitors kept at most; who is let go thinks that this node has died, and looks.
const VISITORS_MAX: usize = 64;
const ATTEMPTS_MAX: u32 = 4;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(250);
const RETRY: Duration = Duration::from_millis(5);
/// How often the door's name is looked at.
const LOOK: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
