//! Real sockets in folders of their own: what goes through, what is turned away, and that nothing stays behind.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::{Shutdown, accept, shutdown};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use super::*;
use crate::SegmentPlan;

const LEN_BYTES: usize = 8_192;

/// A folder that goes with its value.
struct Folder(PathBuf);

impl Folder {
    fn new(mode: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("plesio-door-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let folder = Self(path);
        folder.chmod(mode);
        folder
    }

    fn chmod(&self, mode: u32) {
        fs::set_permissions(&self.0, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn segment() -> Segment {
    let plan = SegmentPlan {
        name: "door".into(),
        len_bytes: LEN_BYTES,
        access: Access::Shared,
        budget_bytes: 1 << 20,
    };
    Segment::create(&plan).unwrap().0
}

fn offer() -> Offer {
    Offer { kind: 3, len_bytes: LEN_BYTES as u64, generation: u64::MAX - 1, tag: 77 }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Answers one visitor, however long it takes to come.
fn answer(door: &Door, offer: &Offer, segment: &Segment) -> Result<Tether, DoorError> {
    loop {
        if let Some(tether) = door.answer(offer, segment.file().unwrap())? {
            return Ok(tether);
        }
        poll(&mut [PollFd::new(door, PollFlags::IN)], None).unwrap();
    }
}

/// What a visitor makes of a door that does `host` with its visitor.
fn visit(host: impl FnOnce(OwnedFd) + Send) -> Result<Handed, KnockError> {
    let folder = Folder::new(0o700);
    let path = folder.0.join("odd");
    let socket = seqpacket().unwrap();
    bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&socket, 1).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            poll(&mut [PollFd::new(&socket, PollFlags::IN)], None).unwrap();
            host(accept(&socket).unwrap());
        });
        knock(&path, soon())
    })
}

fn send(to: &OwnedFd, bytes: &[u8], files: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(files)));
    }
    sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
}

#[test]
fn a_segment_goes_through_and_the_tether_says_who_is_left() {
    let folder = Folder::new(0o700);
    let door = Door::open(&folder.0, "one").unwrap();
    assert_eq!(fs::symlink_metadata(door.path()).unwrap().mode() & 0o7777, 0o600);
    let ours = segment();
    assert!(door.answer(&offer(), ours.file().unwrap()).unwrap().is_none(), "nobody has knocked");
    let (kept, (theirs, tether)) = thread::scope(|scope| {
        let host = scope.spawn(|| answer(&door, &offer(), &ours).unwrap());
        let handed = knock(door.path(), soon()).unwrap();
        assert_eq!(handed.offer, offer());
        let attached = handed.attach(3, u64::MAX - 1, LEN_BYTES, Access::Shared).unwrap();
        (host.join().unwrap(), attached)
    });
    assert_eq!((kept.pid(), tether.pid()), (std::process::id(), std::process::id()));
    theirs.word(0).unwrap().store(5, Ordering::Relaxed);
    assert_eq!(ours.peek(0, Ordering::Relaxed), Ok(5));
    assert!(!kept.parted() && !tether.parted());
    drop(tether);
    assert!(kept.parted());
    drop(door);
    assert!(folder.is_empty(), "a door takes its name with it");
}

#[test]
fn another_kind_life_or_length_is_not_mapped() {
    let folder = Folder::new(0o700);
    let door = Door::open(&folder.0, "one").unwrap();
    let ours = segment();
    let attach = |kind, generation, len_bytes| {
        let handed = thread::scope(|scope| {
            scope.spawn(|| answer(&door, &offer(), &ours).unwrap());
            knock(door.path(), soon()).unwrap()
        });
        handed.attach(kind, generation, len_bytes, Access::Shared).unwrap_err()
    };
    let error = attach(4, u64::MAX - 1, LEN_BYTES);
    assert!(matches!(error, AttachError::Other { expected: 4, found: 3 }), "{error}");
    let error = attach(3, 8, LEN_BYTES);
    assert!(matches!(error, AttachError::Stale { expected: 8, .. }), "{error}");
    let error = attach(3, u64::MAX - 1, LEN_BYTES + 1);
    assert!(matches!(error, AttachError::Length { found: 8_192, .. }), "{error}");
}

#[test]
fn a_folder_that_others_reach_has_no_door() {
    for mode in [0o755, 0o770, 0o701, 0o1700] {
        let folder = Folder::new(mode);
        let error = Door::open(&folder.0, "one").unwrap_err();
        assert!(matches!(error, DoorError::Mode { mode: found, .. } if found == mode), "{error}");
        assert!(folder.is_empty());
    }
    let folder = Folder::new(0o700);
    if std::os::unix::fs::chown(&folder.0, Some(65_534), None).is_err() {
        eprintln!("skipped: only root can give a folder away");
        return;
    }
    let error = Door::open(&folder.0, "one").unwrap_err();
    assert!(matches!(error, DoorError::Owner { uid: 65_534, .. }), "{error}");
}

#[test]
fn what_is_no_folder_is_neither_waited_for_nor_followed() {
    let folder = Folder::new(0o700);
    let [pipe, file, link] = ["pipe", "file", "link"].map(|name| folder.0.join(name));
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    fs::write(&file, b"").unwrap();
    let elsewhere = Folder::new(0o700);
    std::os::unix::fs::symlink(&elsewhere.0, &link).unwrap();
    for path in [pipe, file, link] {
        for error in [Door::open(&path, "one").unwrap_err(), sweep(&path).unwrap_err()] {
            assert!(matches!(&error, DoorError::NoFolder { path: named } if *named == path), "{error}");
        }
        fs::remove_file(path).unwrap();
    }
    assert!(elsewhere.is_empty());
}

#[test]
fn a_name_belongs_to_one_living_process() {
    let folder = Folder::new(0o700);
    let below = folder.0.join("made");
    let first = Door::open(&below, "one").unwrap();
    assert_eq!(fs::metadata(&below).unwrap().mode() & 0o7777, 0o700, "the folder was made for us alone");
    assert!(matches!(Door::open(&below, "one"), Err(DoorError::Taken { .. })));
    // As a kill leaves it: the socket is gone and its name is not.
    let path = first.path().to_path_buf();
    drop(first);
    let dead = seqpacket().unwrap();
    bind(&dead, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    drop(dead);
    assert!(matches!(knock(&path, soon()), Err(KnockError::Nobody { .. })));
    let second = Door::open(&below, "one").unwrap();
    // Whoever put another in our place keeps it.
    fs::remove_file(&path).unwrap();
    let usurper = Door::open(&below, "one").unwrap();
    drop(second);
    assert!(path.exists());
    drop(usurper);
    assert!(!path.exists());
}

#[test]
fn a_name_that_no_socket_can_have_is_an_error() {
    let folder = Folder::new(0o700);
    for name in ["", "a/b", &"x".repeat(120)] {
        assert!(matches!(Door::open(&folder.0, name), Err(DoorError::System { .. })), "{name:?}");
    }
    assert!(matches!(knock(&folder.0.join("nobody"), soon()), Err(KnockError::Nobody { .. })));
    assert!(folder.is_empty());
}

#[test]
fn a_door_that_says_nothing_costs_the_deadline() {
    let folder = Folder::new(0o700);
    let door = Door::open(&folder.0, "silent").unwrap();
    let late = knock(door.path(), Instant::now() + Duration::from_millis(20));
    assert!(matches!(late, Err(KnockError::Late)), "{late:?}");
    // The visitor has left; the door finds it and goes on. One that can still be written to a closed socket is a tether
    // that has parted.
    match door.answer(&offer(), segment().file().unwrap()) {
        Ok(Some(tether)) => assert!(tether.parted()),
        Ok(None) | Err(DoorError::System { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn whatever_is_not_one_offer_with_one_file_is_refused() {
    let file = segment();
    let file = file.file().unwrap();
    let good = offer().encode(1);
    let with = |bytes: &[u8], files: &[BorrowedFd<'_>]| {
        visit(|visitor| send(&visitor, bytes, files)).expect_err("something is wrong with each")
    };
    for (count, files) in [(0, vec![]), (2, vec![file; 2])] {
        let error = with(&good, &files);
        assert!(matches!(error, KnockError::Descriptors { found: Some(found) } if found == count), "{error}");
    }
    let error = with(&good, &[file; 8]);
    assert!(matches!(error, KnockError::Descriptors { .. }), "{error}");
    for len in [1, 39] {
        let error = with(&good[..len], &[file]);
        assert!(matches!(error, KnockError::Garbage { .. }), "{error}");
    }
    let long = [&good[..], &[0; 30]].concat();
    assert!(matches!(with(&long, &[file]), KnockError::Garbage { .. }));
    for at in [0, 3, 4, 5, 36, 39] {
        let mut bytes = good;
        bytes[at] ^= 0x40;
        let error = with(&bytes, &[file]);
        assert!(matches!(error, KnockError::Garbage { .. }), "byte {at}: {error}");
    }
    let closed = visit(drop).unwrap_err();
    assert!(matches!(closed, KnockError::Closed), "{closed}");
    let half = visit(|visitor| shutdown(&visitor, Shutdown::Write).unwrap()).unwrap_err();
    assert!(matches!(half, KnockError::Closed), "{half}");
    assert!(
        visit(|visitor| send(&visitor, &good, &[file])).is_ok(),
        "and this is what all of them were made from"
    );
}

#[test]
fn every_offer_comes_back_as_it_was_said() {
    for offer in [
        offer(),
        Offer { kind: 0, len_bytes: 0, generation: 0, tag: 0 },
        Offer { kind: u16::MAX, len_bytes: u64::MAX, generation: u64::MAX, tag: u64::MAX },
    ] {
        assert_eq!(Offer::decode(&offer.encode(9)).unwrap(), offer);
    }
}

/// Open files of this process that are memfds of this name; other tests have others.
fn files_named(name: &str) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
    links
        .filter(|link| fs::read_link(link.path()).is_ok_and(|to| to.to_string_lossy().contains(name)))
        .count()
}

#[test]
fn no_descriptor_stays_open_that_was_refused() {
    let plan = SegmentPlan {
        name: "leaks-counted".into(),
        len_bytes: 4_096,
        access: Access::Shared,
        budget_bytes: 1 << 20,
    };
    let segment = Segment::create(&plan).unwrap().0;
    let file = segment.file().unwrap();
    let before = files_named("leaks-counted");
    assert_eq!(before, 1);
    let good = offer().encode(1);
    for _ in 0..8 {
        visit(|visitor| send(&visitor, &good, &[file; 2])).unwrap_err();
        visit(|visitor| send(&visitor, &good, &[file; 8])).unwrap_err();
        visit(|visitor| send(&visitor, &good[..7], &[file])).unwrap_err();
        let handed = visit(|visitor| send(&visitor, &good, &[file])).unwrap();
        handed.attach(3, 0, 4_096, Access::Shared).unwrap_err();
    }
    assert_eq!(files_named("leaks-counted"), before);
}

#[test]
fn another_user_gets_nothing() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let folder = Folder::new(0o700);
    let door = Door::open(&folder.0, "one").unwrap();
    let path = door.path().to_path_buf();
    let ours = segment();
    let as_nobody = |path: PathBuf| {
        // On Linux these change the calling thread alone, and it ends here.
        thread::spawn(move || {
            let (uid, gid) = (Uid::from_raw(65_534), Gid::from_raw(65_534));
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            knock(&path, Instant::now() + Duration::from_secs(20))
        })
    };
    // The folder keeps strangers out.
    let error = as_nobody(path.clone()).join().unwrap().unwrap_err();
    assert!(matches!(error, KnockError::System { step: "connect", .. }), "{error}");
    // Where it no longer does, both ends look whom they speak with.
    folder.chmod(0o777);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let visitor = as_nobody(path.clone());
    let refused = answer(&door, &offer(), &ours).unwrap_err();
    assert!(matches!(refused, DoorError::Stranger { uid: 65_534 }), "{refused}");
    let error = visitor.join().unwrap().unwrap_err();
    assert!(matches!(error, KnockError::Stranger { uid: 0 }), "{error}");
}

#[test]
fn who_knocks_need_not_wait() {
    let folder = Folder::new(0o700);
    let door = Door::open(&folder.0, "one").unwrap();
    let ours = segment();
    let visit = Visit::begin(door.path()).unwrap();
    let visit = visit.poll().unwrap().expect_err("nobody has answered");
    wait(&[door.as_fd()], Duration::from_secs(20)).unwrap();
    let tether = door.answer(&offer(), ours.file().unwrap()).unwrap().expect("somebody has knocked");
    wait(&[visit.as_fd()], Duration::from_secs(20)).unwrap();
    let handed = visit.poll().unwrap().expect("it is answered");
    assert_eq!(handed.offer, offer());
    drop(tether);
    wait(&[handed.tether.as_fd()], Duration::from_secs(20)).unwrap();
    assert!(handed.tether.parted());
    assert!(matches!(Visit::begin(&folder.0.join("other")), Err(KnockError::Nobody { .. })));
    // One that hangs up.
    let visit = Visit::begin(door.path()).unwrap();
    drop(accept(&door.socket).unwrap());
    assert!(matches!(visit.poll(), Err(KnockError::Closed)));
}

#[test]
fn a_killed_process_leaves_a_name_that_is_swept() {
    let folder = Folder::new(0o700);
    let living = Door::open(&folder.0, "living").unwrap();
    // As a kill leaves it: the socket is gone and its name is not.
    let path = folder.0.join("dead");
    let dead = seqpacket().unwrap();
    bind(&dead, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    drop(dead);
    fs::write(folder.0.join("no socket"), "left alone").unwrap();
    assert_eq!(sweep(&folder.0).unwrap(), 1);
    assert!(!path.exists() && living.path().exists() && folder.0.join("no socket").exists());
    assert_eq!(sweep(&folder.0).unwrap(), 0);
    folder.chmod(0o755);
    assert!(matches!(sweep(&folder.0), Err(DoorError::Mode { .. })));
}
