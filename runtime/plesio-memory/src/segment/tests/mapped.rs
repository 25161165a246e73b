//! Real files, each with one thing wrong.

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, fchown, fcntl_add_seals, ftruncate, memfd_create};
use rustix::process::{Uid, geteuid};

use super::super::*;
use super::{LEN_BYTES, plan};
use crate::Lock;

fn handed_over(segment: &Segment) -> OwnedFd {
    segment.file().expect("a mapped segment has a file").try_clone_to_owned().unwrap()
}

fn own() -> u32 {
    geteuid().as_raw()
}

fn attach(file: OwnedFd) -> Result<Segment, AttachError> {
    Segment::attach(file, LEN_BYTES, Access::Shared, own())
}

/// A file as `create` makes it, but for one step.
fn file(allocate: bool, punch: bool, seals: SealFlags) -> OwnedFd {
    let file = memfd_create("plesio-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, LEN_BYTES as u64).unwrap();
    if allocate {
        // Allocated alone is not enough: until a page is touched the kernel calls it a hole.
        assert_eq!(rustix::io::pwrite(&file, &[0; LEN_BYTES], 0).unwrap(), LEN_BYTES);
    }
    if punch {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, how, 4_096, 4_096).unwrap();
    }
    fcntl_add_seals(&file, seals).unwrap();
    file
}

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

#[test]
fn what_one_map_writes_the_other_reads() {
    let (ours, report) = Segment::create(&plan(Access::Shared)).unwrap();
    assert_eq!(report.mapped_bytes, LEN_BYTES as u64);
    assert!(report.lock == Lock::All || report.lines.len() > 1, "{report:?}");
    let theirs = attach(handed_over(&ours)).unwrap();
    assert!(ours.writable() && theirs.writable());
    ours.copy_in(5, b"seventeen letters").unwrap();
    let mut into = [0; 17];
    theirs.copy_out(5, &mut into).unwrap();
    assert_eq!(&into, b"seventeen letters");
    theirs.word(4_096).unwrap().store(7, Ordering::Release);
    assert_eq!(ours.peek(4_096, Ordering::Acquire), Ok(7));
    ours.word64(8_192).unwrap().store(u64::MAX - 1, Ordering::Release);
    assert_eq!(theirs.peek64(8_192, Ordering::Acquire), Ok(u64::MAX - 1));
    assert_eq!(theirs.words(4_092, 2).unwrap()[1].load(Ordering::Relaxed), 7);
    drop(ours);
    assert_eq!(theirs.peek(4_096, Ordering::Relaxed), Ok(7), "a map outlives who made it");
}

#[test]
fn a_reader_cannot_write() {
    let (ours, _) = Segment::create(&plan(Access::ReadOnly)).unwrap();
    let theirs = Segment::attach(handed_over(&ours), LEN_BYTES, Access::ReadOnly, own()).unwrap();
    ours.word(0).unwrap().store(9, Ordering::Release);
    assert_eq!(theirs.peek(0, Ordering::Acquire), Ok(9));
    assert!(!theirs.writable());
    assert_eq!(theirs.word(0).unwrap_err(), AccessError::ReadOnly);
    assert_eq!(theirs.word64(0).unwrap_err(), AccessError::ReadOnly);
    assert_eq!(theirs.words(0, 2).unwrap_err(), AccessError::ReadOnly);
    assert_eq!(theirs.copy_in(0, &[1]), Err(AccessError::ReadOnly));
    // Nor by mapping it anew, nor by way of the file.
    assert!(matches!(attach(handed_over(&ours)), Err(AttachError::NotShared)));
    let file = handed_over(&ours);
    assert!(crate::mapping::Mapping::new(file.as_fd(), LEN_BYTES, 4_096, true).is_err());
    assert!(rustix::io::write(&file, b"x").is_err());
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert!(fallocate(&file, how, 0, 4_096).is_err());
}

#[test]
fn nothing_but_a_sealed_file_is_mapped() {
    assert!(attach(file(true, false, SEALS)).is_ok(), "the steps are those of `create`");
    for missing in [SealFlags::SEAL, SealFlags::SHRINK, SealFlags::GROW] {
        let found = attach(file(true, false, SEALS - missing)).unwrap_err();
        let AttachError::Seals { missing: named } = &found else { panic!("{found}") };
        assert_eq!(named.as_str(), missing.iter_names().next().unwrap().0);
    }
    let read_only = Segment::attach(file(true, false, SEALS), LEN_BYTES, Access::ReadOnly, own());
    assert!(
        matches!(&read_only, Err(AttachError::Seals { missing }) if missing == "FUTURE_WRITE"),
        "{read_only:?}"
    );
    // A file with a name, a pipe, a device.
    let named = std::fs::File::open("/proc/self/exe").unwrap();
    let (pipe, _) = std::io::pipe().unwrap();
    let device = std::fs::File::open("/dev/null").unwrap();
    for other in [named.into(), OwnedFd::from(pipe), device.into()] {
        assert!(matches!(attach(other), Err(AttachError::Kind)));
    }
}

#[test]
fn nothing_of_another_length_is_mapped() {
    for len in [0, 1, LEN_BYTES - 1, LEN_BYTES + 1, usize::MAX] {
        let found = Segment::attach(file(true, false, SEALS), len, Access::Shared, own()).unwrap_err();
        assert!(
            matches!(found, AttachError::Length { found, .. } if found == LEN_BYTES as u64),
            "{len}: {found}"
        );
    }
    let cut = file(true, false, SealFlags::empty());
    ftruncate(&cut, 4_096).unwrap();
    fcntl_add_seals(&cut, SEALS).unwrap();
    assert!(matches!(attach(cut), Err(AttachError::Length { found: 4_096, .. })));
}

#[test]
fn nothing_with_a_hole_is_mapped() {
    assert!(matches!(attach(file(false, false, SEALS)), Err(AttachError::Hole { offset_bytes: 0 })));
    assert!(matches!(attach(file(true, true, SEALS)), Err(AttachError::Hole { offset_bytes: 4_096 })));
}

#[test]
fn nothing_of_another_user_is_mapped() {
    let other = own() + 1;
    let found = Segment::attach(file(true, false, SEALS), LEN_BYTES, Access::Shared, other).unwrap_err();
    assert!(matches!(found, AttachError::Owner { expected, found } if (expected, found) == (other, own())));
    let given = file(true, false, SEALS);
    if fchown(&given, Some(Uid::from_raw(65_534)), None).is_err() {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    assert!(matches!(attach(given), Err(AttachError::Owner { found: 65_534, .. })));
}

/// A holder that may write may also punch a hole into memory that others have mapped: their next read is zeros.
#[test]
fn a_hole_punched_later_is_zeros_and_no_signal() {
    let (ours, _) = Segment::create(&plan(Access::Shared)).unwrap();
    let theirs = attach(handed_over(&ours)).unwrap();
    theirs.copy_in(4_096, &[7; 4_096]).unwrap();
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(ours.file().unwrap(), how, 0, 8_192).unwrap();
    let mut into = [1; 4_096];
    theirs.copy_out(4_096, &mut into).unwrap();
    assert_eq!(into, [0; 4_096]);
}

#[test]
fn more_than_the_machine_has_is_an_error() {
    let plan = SegmentPlan { len_bytes: 160 << 40, budget_bytes: usize::MAX, ..plan(Access::Shared) };
    assert!(matches!(Segment::create(&plan), Err(ArenaError::Memory { .. })));
}
