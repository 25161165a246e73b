//! How a segment gets from one process to another: a socket that only its user reaches, one message, one file.
//!
//! ```text
//! offer, 40 bytes, little endian:
//!  0 magic "PLSG" | 4 version u16 | 6 kind u16 | 8 len_bytes u64 | 16 generation u64 | 24 tag u64 | 32 pid u32 | 36 zero u32
//! ```
//!
//! The visitor says nothing: who may knock is settled by the folder (0700, ours), the socket (0600) and the user that
//! the kernel names. The connection stays open as a [`Tether`]; when a process dies, the kernel lets go of its end, after
//! its memory is gone. So a tether that has parted means that nobody over there writes any more, whatever numbers are
//! reused.
//!
//! Invariant: nothing here blocks but [`knock`] and [`wait`], which have a limit; every descriptor that came along is closed unless
//! it is the one that was wanted.

use core::fmt;
use std::fs::{self, DirBuilder};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recvmsg, sendmsg, socket_with,
};
use rustix::process::geteuid;

use crate::{Access, AttachError, DoorError, KnockError, Segment};

const MAGIC: u32 = u32::from_le_bytes(*b"PLSG");
const VERSION: u16 = 1;
const OFFER_BYTES: usize = 40;
/// Most who wait to be answered; further ones try again until their deadline.
const WAITING_MAX: i32 = 64;
/// How long opening waits for another process that opens a door in the same folder.
const OPEN_MAX: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(1);
/// Most names of a folder that are looked at.
const NAMES_MAX: usize = 1_024;
/// Room for one descriptor more than is wanted, so that too many are seen as such.
const DESCRIPTORS_MAX: usize = 2;

/// What a door says about the segment behind it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Offer {
    /// What lies in it; the users of segments agree on the numbers.
    pub kind: u16,
    /// Its length.
    pub len_bytes: u64,
    /// Which life of the offering process or group it belongs to.
    pub generation: u64,
    /// For the users of the segment.
    pub tag: u64,
}

impl Offer {
    fn encode(&self, pid: u32) -> [u8; OFFER_BYTES] {
        let mut bytes = [0; OFFER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.len_bytes.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.tag.to_le_bytes());
        bytes[32..36].copy_from_slice(&pid.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, KnockError> {
        let garbage = |what| Err(KnockError::Garbage { what });
        let Ok(bytes) = <&[u8; OFFER_BYTES]>::try_from(bytes) else {
            return garbage("its length");
        };
        let word =
            |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes are asked for"));
        let first = word(0);
        if first as u32 != MAGIC {
            return garbage("its first four bytes");
        }
        if (first >> 32) as u16 != VERSION {
            return garbage("its version");
        }
        if bytes[36..] != [0; 4] {
            return garbage("bytes that must be zero");
        }
        Ok(Self { kind: (first >> 48) as u16, len_bytes: word(8), generation: word(16), tag: word(24) })
    }
}

/// The connection that a segment came through; it parts when the process at its other end dies or lets go.
#[derive(Debug)]
pub struct Tether {
    socket: OwnedFd,
    pid: u32,
}

impl Tether {
    /// Whether the other end is gone.
    #[must_use]
    pub fn parted(&self) -> bool {
        let mut ask = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        // A poll that fails says nothing about the peer; the next one will.
        poll(&mut ask, Some(&now)).is_ok_and(|ready| ready > 0) && ask[0].revents().intersects(gone)
    }

    /// The process at the other end, as the kernel named it; for messages, since numbers are reused.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

impl AsFd for Tether {
    /// Becomes readable when it parts, and only then.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket under which a segment can be asked for.
#[derive(Debug)]
pub struct Door {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode of the name, so that only our own is removed.
    place: (u64, u64),
}

impl Door {
    /// Opens `name` in `folder`, which is made when it does not exist. The name of a process that has died is taken
    /// over.
    ///
    /// # Errors
    /// A folder that is not ours alone, a name that a living process has, a path too long for a socket.
    pub fn open(folder: &Path, name: &str) -> Result<Self, DoorError> {
        let path = folder.join(name);
        let failed =
            |step| move |cause: io::Error| DoorError::System { path: folder.join(name), step, cause };
        if name.is_empty() || name.contains('/') {
            return Err(failed("its name")(io::ErrorKind::InvalidInput.into()));
        }
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed("mkdir")(error)),
            _ => {}
        }
        let within = enter(folder)?;
        let address = SocketAddrUnix::new(&path).map_err(|errno| failed("its path")(errno.into()))?;
        // Two that take over one dead name at once would each remove the other's.
        lock(&within).map_err(failed("flock"))?;
        if fs::symlink_metadata(&path).is_ok() {
            if answers(&address).map_err(failed("connect"))? {
                return Err(DoorError::Taken { path });
            }
            fs::remove_file(&path).map_err(failed("unlink"))?;
        }
        let step = |step| move |errno: Errno| failed(step)(errno.into());
        let socket = seqpacket().map_err(step("socket"))?;
        // On Linux the name gets the socket's own mode, less the umask: it never exists with another.
        fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(step("fchmod"))?;
        bind(&socket, &address).map_err(step("bind"))?;
        let found = fs::symlink_metadata(&path).map_err(failed("lstat"))?;
        let door = Self { socket, path, place: (found.dev(), found.ino()) };
        listen(&door.socket, WAITING_MAX).map_err(step("listen"))?;
        if found.mode() & 0o077 != 0 {
            return Err(DoorError::Mode { path: door.path.clone(), mode: found.mode() & 0o7777 });
        }
        Ok(door)
    }

    /// Whether its name still leads to it: folders are swept by others too, and a socket does not notice.
    #[must_use]
    pub fn stands(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.place)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hands `file` to one visitor, if there is one, and does not wait for any. The caller keeps the tether for as
    /// long as the visitor may use the segment.
    ///
    /// # Errors
    /// A visitor of another user, who gets nothing, or one who left; the door stays open.
    pub fn answer(&self, offer: &Offer, file: BorrowedFd<'_>) -> Result<Option<Tether>, DoorError> {
        let failed = |step| {
            move |errno: Errno| DoorError::System { path: self.path.clone(), step, cause: errno.into() }
        };
        let visitor = match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(visitor) => visitor,
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => return Ok(None),
            Err(errno) => return Err(failed("accept")(errno)),
        };
        let who = socket_peercred(&visitor).map_err(failed("SO_PEERCRED"))?;
        if who.uid != geteuid() {
            return Err(DoorError::Stranger { uid: who.uid.as_raw() });
        }
        let bytes = offer.encode(std::process::id());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [file];
        let fits = control.push(SendAncillaryMessage::ScmRights(&files));
        assert!(fits, "the space is for one descriptor");
        // A new connection has room for a message of 40 bytes.
        sendmsg(&visitor, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
            .map_err(failed("sendmsg"))?;
        Ok(Some(Tether { socket: visitor, pid: who.pid.as_raw_pid() as u32 }))
    }
}

impl AsFd for Door {
    /// Readable when somebody has knocked.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Somebody may have removed our name and put another in its place.
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.place);
        if ours {
            // Nothing can be done about a name that stays; the next one who wants it takes it over.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What came through a door, not yet looked at.
pub struct Handed {
    /// What the other side says about it.
    pub offer: Offer,
    /// The file; to be attached.
    pub file: OwnedFd,
    /// To the process that handed it over.
    pub tether: Tether,
}

impl Handed {
    /// Maps it when it is of this kind, life and length, and everything else about it is right too.
    ///
    /// # Errors
    /// What it is not; the file and the tether are closed.
    pub fn attach(
        self,
        kind: u16,
        generation: u64,
        len_bytes: usize,
        want: Access,
    ) -> Result<(Segment, Tether), AttachError> {
        let Offer { kind: found_kind, generation: found, len_bytes: said, .. } = self.offer;
        if found_kind != kind {
            return Err(AttachError::Other { expected: kind, found: found_kind });
        }
        if found != generation {
            return Err(AttachError::Stale { expected: generation, found });
        }
        if said != len_bytes as u64 {
            return Err(AttachError::Length { expected: len_bytes as u64, found: said });
        }
        let segment = Segment::attach(self.file, len_bytes, want, geteuid().as_raw())?;
        Ok((segment, self.tether))
    }
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handed({:?} by process {})", self.offer, self.tether.pid)
    }
}

/// A knock that has not been answered yet.
#[derive(Debug)]
pub struct Visit {
    socket: OwnedFd,
    pid: u32,
}

impl Visit {
    /// Knocks at the door `path` and does not wait.
    ///
    /// # Errors
    /// Nobody there, another user's door, or [`KnockError::Late`]: as many wait there as may.
    pub fn begin(path: &Path) -> Result<Self, KnockError> {
        let failed = |step| {
            move |errno: Errno| KnockError::System { path: path.to_path_buf(), step, cause: errno.into() }
        };
        let address = SocketAddrUnix::new(path).map_err(failed("its path"))?;
        let socket = seqpacket().map_err(failed("socket"))?;
        match connect(&socket, &address) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Err(KnockError::Late),
            Err(Errno::NOENT | Errno::CONNREFUSED) => {
                return Err(KnockError::Nobody { path: path.to_path_buf() });
            }
            Err(errno) => return Err(failed("connect")(errno)),
        }
        let host = socket_peercred(&socket).map_err(failed("SO_PEERCRED"))?;
        if host.uid != geteuid() {
            return Err(KnockError::Stranger { uid: host.uid.as_raw() });
        }
        Ok(Self { socket, pid: host.pid.as_raw_pid() as u32 })
    }

    /// What came through, or the visit itself while nothing has.
    ///
    /// # Errors
    /// The other side hung up, or an answer that is not one message with one descriptor.
    pub fn poll(self) -> Result<Result<Handed, Self>, KnockError> {
        match receive(&self.socket)? {
            Some((offer, file)) => {
                Ok(Ok(Handed { offer, file, tether: Tether { socket: self.socket, pid: self.pid } }))
            }
            None => Ok(Err(self)),
        }
    }
}

impl AsFd for Visit {
    /// Becomes readable when it is answered.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks at the door `path` for what is behind it, and waits for the answer until `deadline` at most.
///
/// # Errors
/// As [`Visit::begin`] and [`Visit::poll`]; no answer in time.
pub fn knock(path: &Path, deadline: Instant) -> Result<Handed, KnockError> {
    let mut visit = loop {
        match Visit::begin(path) {
            Err(KnockError::Late) if Instant::now() < deadline => thread::sleep(RETRY),
            begun => break begun?,
        }
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        wait(&[visit.as_fd()], left).map_err(|cause| KnockError::System {
            path: path.to_path_buf(),
            step: "poll",
            cause,
        })?;
        visit = match visit.poll()? {
            Ok(handed) => return Ok(handed),
            Err(_) if Instant::now() >= deadline => return Err(KnockError::Late),
            Err(waits) => waits,
        };
    }
}

/// Waits until something can be read from one of `files`, one of them has parted, or `limit` is over.
///
/// # Errors
/// What the kernel says; not an interruption.
pub fn wait(files: &[BorrowedFd<'_>], limit: Duration) -> io::Result<()> {
    let mut ask: Vec<PollFd<'_>> =
        files.iter().map(|file| PollFd::from_borrowed_fd(*file, PollFlags::IN | PollFlags::RDHUP)).collect();
    let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    let limit = Timespec { tv_sec: seconds, tv_nsec: i64::from(limit.subsec_nanos()) };
    match poll(&mut ask, Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes away the doors in `folder` that processes left which were killed; how many.
///
/// # Errors
/// A folder that cannot be read, or is not ours alone.
pub fn sweep(folder: &Path) -> Result<usize, DoorError> {
    let failed = |step| move |cause: io::Error| DoorError::System { path: folder.to_path_buf(), step, cause };
    let within = enter(folder)?;
    // Whoever opens a door holds the lock until it listens.
    lock(&within).map_err(failed("flock"))?;
    let names = fs::read_dir(folder).map_err(failed("readdir"))?.filter_map(|entry| Some(entry.ok()?.path()));
    let dead = names.take(NAMES_MAX).filter(|path| {
        // What is no door, or cannot be asked, stays.
        let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
        is_socket
            && SocketAddrUnix::new(path.as_path()).is_ok_and(|address| matches!(answers(&address), Ok(false)))
    });
    Ok(dead.filter(|path| fs::remove_file(path).is_ok()).count())
}

/// The folder for doors of this user's processes: beside their other files that last as long as they are logged in, or
/// in the folder for temporary ones.
#[must_use]
pub fn doors_of_user() -> PathBuf {
    let user = geteuid().as_raw();
    let run = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let run = run.or_else(|| Some(PathBuf::from(format!("/run/user/{user}"))).filter(|path| path.is_dir()));
    match run {
        Some(run) => run.join("plesio-doors"),
        None => std::env::temp_dir().join(format!("plesio-doors-{user}")),
    }
}

/// The one message of a door, if it is here. Dropping the control buffer closes whatever else came along.
fn receive(socket: &OwnedFd) -> Result<Option<(Offer, OwnedFd)>, KnockError> {
    let mut bytes = [0; OFFER_BYTES + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
        Ok(got) => got,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
        Err(Errno::CONNRESET) => return Err(KnockError::Closed),
        Err(errno) => {
            return Err(KnockError::System { path: PathBuf::new(), step: "recvmsg", cause: errno.into() });
        }
    };
    let mut files: Vec<OwnedFd> = Vec::with_capacity(DESCRIPTORS_MAX);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            files.extend(sent);
        }
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(KnockError::Descriptors { found: None });
    }
    if got.bytes == 0 && files.is_empty() {
        return Err(KnockError::Closed);
    }
    if got.flags.contains(ReturnFlags::TRUNC) {
        return Err(KnockError::Garbage { what: "its length" });
    }
    let offer = Offer::decode(&bytes[..got.bytes])?;
    let found = files.len();
    match files.pop() {
        Some(file) if found == 1 => Ok(Some((offer, file))),
        _ => Err(KnockError::Descriptors { found: Some(found) }),
    }
}

fn seqpacket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Whether a living process listens there.
fn answers(address: &SocketAddrUnix) -> io::Result<bool> {
    match connect(seqpacket()?, address) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn lock(folder: &fs::File) -> io::Result<()> {
    let deadline = Instant::now() + OPEN_MAX;
    loop {
        match flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => thread::sleep(RETRY),
            outcome => return Ok(outcome?),
        }
    }
}

/// The folder itself, if it is ours alone. Whatever else has its name is neither waited for, as a FIFO would be, nor followed.
fn enter(folder: &Path) -> Result<fs::File, DoorError> {
    let failed = |step| move |cause| DoorError::System { path: folder.to_path_buf(), step, cause };
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let within = fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(folder);
    let within = within.map_err(|cause| match Errno::from_io_error(&cause) {
        Some(Errno::NOTDIR | Errno::LOOP) => DoorError::NoFolder { path: folder.to_path_buf() },
        _ => failed("open")(cause),
    })?;
    check_folder(folder, &within.metadata().map_err(failed("fstat"))?)?;
    Ok(within)
}

fn check_folder(folder: &Path, found: &fs::Metadata) -> Result<(), DoorError> {
    let (uid, mode) = (found.uid(), found.mode() & 0o7777);
    if uid != geteuid().as_raw() {
        return Err(DoorError::Owner { path: folder.to_path_buf(), uid });
    }
    if mode != 0o700 {
        return Err(DoorError::Mode { path: folder.to_path_buf(), mode });
    }
    Ok(())
}

#[cfg(all(test, not(miri)))]
mod tests;
