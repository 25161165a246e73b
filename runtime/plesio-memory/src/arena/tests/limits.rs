//! The arena under what a machine may refuse: locked memory, memory, huge pages.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, ftruncate};
use rustix::process::{Resource, getrlimit};

use super::super::*;
use super::plan;
use crate::{Lock, Segment};

/// Set for a test that another one runs in a process of its own.
const ASKED: &str = "PLESIO_MEMORY_ASKED";

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

/// Runs one test of this program again, after a line of shell; what it printed, or why it cannot be run.
fn again(test: &str, prelude: &str, as_nobody: bool) -> Result<String, String> {
    let mut shell = Command::new("sh");
    let script = format!("{prelude}; exec \"$0\" --exact arena::tests::limits::{test} --nocapture");
    shell.arg("-c").arg(script).arg(std::env::current_exe().unwrap()).env(ASKED, "yes");
    if as_nobody && is_root() {
        shell.uid(65_534).gid(65_534).current_dir("/");
    }
    let output = shell.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() && text.is_empty() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

#[test]
fn the_file_cannot_shrink_grow_or_be_unsealed() {
    let (arena, report) = Arena::map(&plan()).unwrap();
    let file = arena.file().expect("mapped arenas have a file");
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
    assert!(fcntl_get_seals(file).unwrap().contains(seals));
    assert!(ftruncate(file, 0).is_err());
    assert!(fallocate(file, FallocateFlags::empty(), 0, 1 << 20).is_err());
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert!(fallocate(file, punch, 0, 4_096).is_err());
    assert!(fcntl_add_seals(file, SealFlags::WRITE).is_err());
    assert_eq!(report.mapped_bytes, 20_480);
    assert_eq!(plan().needed_bytes(), 20_480);
    assert!(!report.lines.is_empty());
}

#[test]
fn too_much_is_an_error_and_not_a_signal() {
    let mut plan = ArenaPlan::new("plesio-test", usize::MAX);
    for _ in 0..40_000 {
        plan.push(u32::MAX as usize);
    }
    // 160 TiB: more than any machine this runs on has.
    let Err(ArenaError::Memory { needed_bytes, available_bytes }) = Arena::map(&plan) else {
        panic!("160 TiB were granted");
    };
    assert!(needed_bytes > available_bytes && available_bytes > 0);
}

fn three_sizes() -> ArenaPlan {
    let mut plan = ArenaPlan::new("plesio-test", 16 << 20);
    plan.push(4_096);
    plan.push(1 << 19);
    plan.push(12 << 20);
    plan
}

/// The lock ladder as an unprivileged user sees it; root ignores the limit.
#[test]
fn a_small_memlock_limit_only_costs_the_lock() {
    for (limit_kib, expected) in [
        (0, "lock Nothing, 0 "),
        (16, "lock Some { regions: 1 }, 4096 "),
        (64, "lock Some { regions: 1 }, 4096 "),
        (8_192, "lock Some { regions: 2 }, 528384 "),
    ] {
        match again("the_ladder_under_the_limit_at_hand", &format!("ulimit -l {limit_kib}"), true) {
            Ok(text) => {
                assert!(text.contains(expected), "limit {limit_kib}: {text}");
                assert!(
                    text.contains("bytes failed") && text.contains("ulimit -l 12808"),
                    "{limit_kib}: {text}"
                );
            }
            Err(why) => {
                return skip(&format!("the test cannot be run by nobody under {limit_kib} KiB: {why}"));
            }
        }
    }
}

/// What the ladder promises under whatever limit holds; the test above runs it under small ones.
#[test]
fn the_ladder_under_the_limit_at_hand() {
    let (arena, report) = Arena::map(&three_sizes()).unwrap();
    arena.write(arena.whole(2).unwrap(), &vec![7; 12 << 20]).unwrap();
    println!("lock {:?}, {} of {} bytes", report.lock, report.locked_bytes, report.mapped_bytes);
    report.lines.iter().for_each(|line| println!("{line}"));
    assert!(report.mapped_bytes <= report.budget_bytes);
    let soft = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
    match report.lock {
        Lock::All => assert_eq!(report.locked_bytes, report.mapped_bytes),
        Lock::Some { regions } => assert!(regions > 0 && report.locked_bytes <= soft),
        Lock::Nothing => assert_eq!(report.locked_bytes, 0),
    }
}

/// A folder of the kernel's, removed at the end; the processes in it have ended by then.
struct Group(PathBuf);

impl Group {
    /// A control group that may take so much; `None` where groups cannot be made.
    fn new(max_bytes: u64) -> Option<Self> {
        let name = format!("plesio-memory-{}", std::process::id());
        for (mount, max) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let group = Self(Path::new(mount).join(&name));
            if fs::create_dir(&group.0).is_ok() && fs::write(group.0.join(max), max_bytes.to_string()).is_ok()
            {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_full_group_is_an_error_and_no_kill() {
    let Some(group) = Group::new(64 << 20) else {
        return skip("control groups of memory cannot be made here");
    };
    let prelude = format!("echo $$ > {}/cgroup.procs", group.0.display());
    let text = again("more_than_the_group_has", &prelude, false).unwrap();
    assert!(text.contains("refused: arena: 100667392 bytes needed"), "{text}");
    assert!(text.contains("small one works"), "{text}");
}

/// What the test above runs in a small group.
#[test]
fn more_than_the_group_has() {
    if std::env::var_os(ASKED).is_none() {
        return skip("this is for the test that makes the group");
    }
    let mut plan = ArenaPlan::new("plesio-test", usize::MAX);
    plan.push(96 << 20);
    let error = Arena::map(&plan).unwrap_err();
    assert!(
        matches!(error, ArenaError::Memory { available_bytes, .. } if available_bytes <= 64 << 20),
        "{error}"
    );
    println!("refused: {error}");
    let (arena, _) = Arena::map(&three_sizes()).unwrap();
    arena.write(arena.whole(2).unwrap(), &vec![7; 12 << 20]).unwrap();
    println!("small one works");
}

#[test]
fn huge_pages_are_had_or_missed_aloud() {
    let (arena, report) = Arena::map(&three_sizes()).unwrap();
    assert!(report.huge_bytes <= report.mapped_bytes);
    let missed = report.huge_bytes == 0 && report.lines.iter().all(|line| !line.contains("huge pages ("));
    assert!(!missed, "{report:?}");
    let start = arena.memory().0.as_ptr() as usize;
    assert_eq!(start % (2 << 20), 0, "or no huge page could map it");
    println!("{:?}", report.lines);
}

/// Pages set aside by the administrator, given back at the end.
struct Reserve {
    before: String,
}

const RESERVE: &str = "/proc/sys/vm/nr_hugepages";

impl Reserve {
    fn new(pages: u64) -> Option<Self> {
        let before = fs::read_to_string(RESERVE).ok()?.trim().to_string();
        let wanted = before.parse::<u64>().ok()? + pages;
        fs::write(RESERVE, wanted.to_string()).ok()?;
        let reserve = Self { before };
        let got: u64 = fs::read_to_string(RESERVE).ok()?.trim().parse().ok()?;
        (got == wanted).then_some(reserve)
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        let _ = fs::write(RESERVE, &self.before);
    }
}

/// An arena of its own process: the pages are set aside for whoever comes first, which other tests may.
#[test]
fn reserved_huge_pages_are_used_within_the_budget() {
    let Some(_reserve) = Reserve::new(8) else {
        return skip("only root can set huge pages aside, where the memory has not been cut up");
    };
    let mut plan = ArenaPlan::new("plesio-test", 6 << 20);
    plan.push((4 << 20) + 4_096);
    let (arena, report) = Arena::map(&plan).unwrap();
    if report.mapped_bytes != 6 << 20 {
        return skip(&format!("the pages that were set aside went elsewhere: {:?}", report.lines));
    }
    assert_eq!(report.huge_bytes, 6 << 20, "{report:?}");
    arena.write(arena.whole(0).unwrap(), &vec![9; (4 << 20) + 4_096]).unwrap();
    // It is handed over like any other.
    let file = arena.file().unwrap().try_clone_to_owned().unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let reader = Segment::attach(file, 6 << 20, Access::ReadOnly, uid).unwrap();
    let mut into = [0; 8];
    reader.copy_out((4 << 20) + 4_096, &mut into).unwrap();
    assert_eq!(into, [9; 8]);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert!(fallocate(arena.file().unwrap().as_fd(), punch, 0, 2 << 20).is_err());
    // A budget without room for the last page is kept.
    plan.budget_bytes = plan.needed_bytes();
    let (_, report) = Arena::map(&plan).unwrap();
    assert_eq!(report.mapped_bytes, (4 << 20) + 8_192);
}
