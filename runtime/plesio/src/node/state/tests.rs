//! What a disk may do to a node: be full, be somebody else's, lie.

use super::*;
use crate::store::StorePlan;
use plesio_kernels::{Codec, Outer, Scale};
use plesio_memory::Arena;
use plesio_wire::value::{Seat, View};
use plesio_wire::{Bounded, Incarnation, NodeKey};
use std::os::unix::fs::PermissionsExt;

const OWNER: Owner = Owner { mesh: 5, parameters: Digest([3; 16]), node: NodeId([7; 32]) };
const ELEMENTS: u64 = 100;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("plesio-state-{name}-{}", std::process::id()));
        let _absent = fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self) -> Result<Folder, StateError> {
        Folder::of(&self.0, OWNER, 8 * ELEMENTS)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn record(number: u32) -> Record {
    let seat = Seat { key: NodeKey(9), incarnation: Incarnation(1), admitted: LogIndex(0) };
    let view = View { number, members: Bounded::from_slice(&[seat]), ..View::default() };
    Record::new(LogIndex(u64::from(number)), view)
}

fn state(fill: u8) -> Vec<u8> {
    vec![fill; 8 * ELEMENTS as usize]
}

fn mark(index: u64, fill: u8) -> Mark {
    let state = state(fill);
    Mark {
        index: LogIndex(index),
        version: Version(index / 2),
        len_bytes: state.len() as u64,
        digest: Digest::of(&state),
    }
}

fn store() -> Store<AnyDevice> {
    let plan = StorePlan::with(ELEMENTS, 2, Codec::Full, 1, Outer::Sum);
    let arena = Arena::heap(&plan.arena).expect("a few pages");
    Store::new(arena, &plan, AnyDevice::default(), Scale::DEFAULT, NodeKey(1)).expect("its own plan")
}

#[test]
fn what_was_kept_is_there_and_at_most_two_states_are() {
    let place = Place::new("kept");
    let mut folder = place.open().expect("a folder of our own");
    assert!(
        folder.disk() == Disk::default()
            && folder.notes().is_empty()
            && folder.known(NodeId([0; 32])).is_none()
    );
    assert!(matches!(place.open(), Err(StateError::Busy(_))));
    let entry = RosterEntry { id: NodeId([7; 32]), weight: 1_000, ..RosterEntry::default() };
    folder.store(&record(1), &[entry], true).expect("there is room");
    let mut reached = record(1);
    reached.reach(Version(77));
    folder.store(&reached, &[entry], false).expect("there is room");
    for (index, fill) in [(10, 1), (20, 2), (30, 3)] {
        folder.checkpoint(&mark(index, fill), &state(fill)).expect("there is room");
    }
    drop(folder);
    let folder = place.open().expect("whole");
    assert_eq!(folder.disk().record, Some(reached));
    assert_eq!(folder.disk().entries, [entry]);
    assert_eq!(folder.disk().checkpoint, Some((Version(15), Digest::of(&state(3)))));
    assert_eq!(folder.known(NodeId([0; 32])).map(|known| known.len()), Some(1));
    let mut store = store();
    assert_eq!(folder.source().expect("one is there").load(&mut store).ok(), Some(Digest::of(&state(3))));
    assert_eq!(store.master()[0].to_le_bytes(), [3; 8]);
    let names = fs::read_dir(&place.0).expect("ours").map(|file| file.expect("readable").file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().expect("ours")).collect();
    names.sort();
    assert_eq!(names, ["checkpoint-0", "checkpoint-1", "views"]);
    let mode = fs::metadata(place.0.join("checkpoint-0")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// F27, hostile disks: truncated, altered, foreign, old.
#[test]
fn what_is_not_whole_is_passed_over_and_what_is_foreign_refuses_the_node() {
    let place = Place::new("hostile");
    let mut folder = place.open().expect("a folder of our own");
    folder.store(&record(1), &[], true).expect("there is room");
    folder.checkpoint(&mark(10, 1), &state(1)).expect("there is room");
    folder.checkpoint(&mark(20, 2), &state(2)).expect("there is room");
    drop(folder);
    let newest = place.0.join("checkpoint-0");
    let newest = if fs::read(&newest).expect("there")[HEAD_BYTES] == 2 {
        newest
    } else {
        place.0.join("checkpoint-1")
    };
    let whole = fs::read(&newest).expect("there");
    let older = Some((Version(5), Digest::of(&state(1))));
    let mut damaged: Vec<Vec<u8>> = [0, 5, 40, HEAD_BYTES - 1, HEAD_BYTES, whole.len() - 1]
        .iter()
        .map(|end| whole[..*end].to_vec())
        .collect();
    for at in [0, 17, 41, 50, 57, 70, 90, HEAD_BYTES, whole.len() - 1] {
        let mut altered = whole.clone();
        altered[at] ^= 0x40;
        damaged.push(altered);
    }
    for bytes in damaged {
        fs::write(&newest, &bytes).expect("ours");
        let folder = place.open().expect("the other one is whole");
        assert_eq!((folder.disk().checkpoint, folder.notes().len()), (older, 1));
    }
    // Whole, and of another mesh.
    let foreign = Owner { mesh: 6, ..OWNER };
    fs::write(&newest, [&head(foreign, &mark(20, 2))[..], &state(2)].concat()).expect("ours");
    assert!(matches!(place.open(), Err(StateError::Foreign { what: "the pool key", .. })));
    fs::remove_file(&newest).expect("ours");
    let other = Owner { parameters: Digest([4; 16]), ..OWNER };
    assert!(matches!(Folder::of(&place.0, other, 8 * ELEMENTS), Err(StateError::Foreign { .. })));
    let another = Owner { node: NodeId([8; 32]), ..OWNER };
    let refused = Folder::of(&place.0, another, 8 * ELEMENTS).err().expect("another node's");
    assert!(matches!(refused, StateError::Node { found, .. } if found == OWNER.node), "{refused}");
    // Of the record either slot will do, and none is no fresh start.
    let views = fs::read(place.0.join("views")).expect("there");
    for at in (0..views.len()).step_by(97) {
        let mut altered = views.clone();
        altered[at] ^= 1;
        fs::write(place.0.join("views"), &altered).expect("ours");
        let folder = place.open().expect("the other slot is whole");
        assert!(folder.disk().record.is_none_or(|read| read == record(1)));
    }
    fs::write(place.0.join("views"), &views[..100]).expect("ours");
    assert!(matches!(place.open(), Err(StateError::Damaged(_))));
}

#[test]
fn a_folder_that_cannot_be_written_refuses_the_node() {
    let place = Place::new("file");
    fs::write(&place.0, b"no folder").expect("ours");
    assert!(matches!(place.open(), Err(StateError::Io { .. })));
    fs::remove_file(&place.0).expect("ours");
}

/// F13: a full disk costs a checkpoint and nothing else; room that comes back is used.
#[test]
fn f13_a_full_disk_keeps_views_and_the_checkpoints_there_are() {
    let place = Place::new("full");
    fs::create_dir(&place.0).expect("ours");
    let mount = |args: &[&str]| {
        let run = std::process::Command::new("mount").args(args).arg(&place.0).output();
        run.is_ok_and(|run| run.status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=64k,mode=0700", "plesio-test"]) {
        eprintln!("skipped: no tmpfs can be mounted here; run as root");
        return;
    }
    struct Mounted<'a>(&'a Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _gone = std::process::Command::new("umount").arg(self.0).status();
        }
    }
    let _mounted = Mounted(&place.0);
    let mut folder = place.open().expect("views fit");
    folder.checkpoint(&mark(10, 1), &state(1)).expect("there is room");
    let hog = place.0.join("hog");
    let mut size = 64 << 10;
    while size > 0 {
        let mut filled = fs::read(&hog).unwrap_or_default();
        filled.resize(filled.len() + size, 1);
        if fs::write(&hog, &filled).is_err() {
            size /= 2;
        }
    }
    let full = folder.checkpoint(&mark(20, 2), &state(2)).expect_err("there is no room");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    folder.store(&record(3), &[], true).expect("its room was taken at the start");
    assert_eq!(folder.newest().map(|mark| mark.index), Some(LogIndex(10)));
    fs::remove_file(&hog).expect("ours");
    folder.checkpoint(&mark(30, 3), &state(3)).expect("there is room again");
    drop(folder);
    let folder = place.open().expect("whole");
    assert_eq!(folder.disk().record, Some(record(3)));
    assert_eq!(folder.newest().map(|mark| mark.index), Some(LogIndex(30)));
}

/// F13: a folder that is taken away under a node is not written to, and that is said.
#[test]
fn f13_a_folder_that_was_removed_is_not_taken_for_written() {
    let place = Place::new("removed");
    let mut folder = place.open().expect("a folder of our own");
    folder.store(&record(1), &[], true).expect("there is room");
    fs::remove_dir_all(&place.0).expect("ours");
    let lost = folder.store(&record(2), &[], true).expect_err("nothing would outlive the process");
    assert_eq!(lost.kind(), io::ErrorKind::NotFound);
    let lost = folder.checkpoint(&mark(10, 1), &state(1)).expect_err("nor here");
    assert_eq!(lost.kind(), io::ErrorKind::NotFound);
    fs::create_dir(&place.0).expect("ours");
    assert!(folder.checkpoint(&mark(10, 1), &state(1)).is_err(), "a state without views is no record");
    assert!(fs::read_dir(&place.0).expect("ours").next().is_none());
}
