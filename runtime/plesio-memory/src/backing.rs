//! Where the bytes of an arena or a segment come from: a sealed memfd mapped shared, or plain heap for tests, Miri and the simulator.
//!
//! Invariant: the memory is zeroed at start, stays at one address, and lives as long as the value. Nothing here hands
//! out a reference. The memfd is allocated before it is mapped and sealed against shrinking, so touching it can
//! never raise SIGBUS.
#![expect(unsafe_code, reason = "mlock and the heap allocation have no safe interface")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::{fs, io};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{
    FallocateFlags, MemfdFlags, Mode, SealFlags, fallocate, fchmod, fcntl_add_seals, memfd_create,
};
use rustix::io::Errno;
use rustix::mm::mlock;
use rustix::process::{Resource, getrlimit};

use crate::ArenaError;
use crate::plan::{Extent, PAGE_BYTES};

/// How much of the arena cannot be paged out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lock {
    /// All of it.
    All,
    /// The first regions, as far as the limit went.
    Some {
        /// How many of them.
        regions: u16,
    },
    /// None: ordinary memory.
    Nothing,
}

/// What was obtained, to be said once at start.
#[derive(Clone, Debug)]
pub struct ArenaReport {
    /// Bytes mapped, pages rounded up.
    pub mapped_bytes: u64,
    /// Bytes locked.
    pub locked_bytes: u64,
    /// RLIMIT_MEMLOCK; `None` means no limit.
    pub limit_bytes: Option<u64>,
    /// The rung of the ladder that held.
    pub lock: Lock,
    /// One sentence per rung that was tried.
    pub lines: Vec<String>,
}

pub(crate) enum Backing {
    Mapped { map: MmapRaw, file: OwnedFd },
    Heap { bytes: NonNull<u8>, layout: Layout },
}

// SAFETY: the value is an address range that it owns alone; it has no thread affinity. What threads do with the bytes
// is ruled by the arena's access words.
unsafe impl Send for Backing {}
// SAFETY: as above: `&Backing` only yields the base address.
unsafe impl Sync for Backing {}

impl Backing {
    pub(crate) fn heap(len_bytes: usize) -> Result<Self, ArenaError> {
        let system = |cause| ArenaError::System { step: "allocation", bytes: len_bytes as u64, cause };
        let layout = Layout::from_size_align(len_bytes, PAGE_BYTES)
            .map_err(|_| system(io::ErrorKind::InvalidInput.into()))?;
        assert!(layout.size() > 0, "a plan has at least one byte");
        // SAFETY: the layout's size is not zero, asserted above.
        let bytes = unsafe { alloc_zeroed(layout) };
        let bytes = NonNull::new(bytes).ok_or_else(|| system(io::ErrorKind::OutOfMemory.into()))?;
        Ok(Self::Heap { bytes, layout })
    }

    /// A memfd that is allocated, sealed against every change of its size and mapped, to be written. `others_write` says
    /// whether whoever gets the file may map it writable too.
    pub(crate) fn map(name: &str, len_bytes: usize, others_write: bool) -> Result<Self, ArenaError> {
        let bytes = len_bytes as u64;
        let system = |step| move |errno: Errno| ArenaError::System { step, bytes, cause: errno.into() };
        // The kernel keeps no account for a memfd: asking for more than there is ends in the out-of-memory killer, not in
        // an error. So the question comes first.
        let available_bytes = available_bytes().unwrap_or(u64::MAX);
        if bytes > available_bytes {
            return Err(ArenaError::Memory { needed_bytes: bytes, available_bytes });
        }
        let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(system("memfd_create"))?;
        // Who reaches it through /proc has to be us.
        fchmod(&file, Mode::RUSR | Mode::WUSR).map_err(system("fchmod"))?;
        // Allocating before mapping turns a full tmpfs or memory limit into ENOSPC here instead of SIGBUS later.
        fallocate(&file, FallocateFlags::empty(), 0, bytes).map_err(system("fallocate"))?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).map_err(system("sealing"))?;
        let map = MmapOptions::new()
            .len(len_bytes)
            .populate()
            .map_raw(&file)
            .map_err(|cause| ArenaError::System { step: "mmap", bytes, cause })?;
        // FUTURE_WRITE leaves the map that exists: ours is the only one that writes, and nobody can punch a hole.
        let last = if others_write { SealFlags::SEAL } else { SealFlags::FUTURE_WRITE | SealFlags::SEAL };
        fcntl_add_seals(&file, last).map_err(system("sealing"))?;
        Ok(Self::Mapped { map, file })
    }

    /// Maps a file that was found to be sealed, allocated and `len_bytes` long.
    pub(crate) fn attach(file: OwnedFd, len_bytes: usize, writable: bool) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.len(len_bytes).populate();
        let map = if writable { options.map_raw(&file)? } else { options.map_raw_read_only(&file)? };
        Ok(Self::Mapped { map, file })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        match self {
            Self::Mapped { map, .. } => {
                NonNull::new(map.as_mut_ptr()).expect("a mapping is never at address zero")
            }
            Self::Heap { bytes, .. } => *bytes,
        }
    }

    /// The memfd, where there is one.
    pub(crate) fn file(&self) -> Option<&OwnedFd> {
        match self {
            Self::Mapped { file, .. } => Some(file),
            Self::Heap { .. } => None,
        }
    }

    /// Climbs down the ladder: all locked, the first regions locked, nothing locked. Never fails.
    pub(crate) fn lock(&self, extents: &[Extent], len_bytes: usize) -> ArenaReport {
        let limit_bytes = getrlimit(Resource::Memlock).current;
        let limit_text = limit_bytes.map_or("no limit".into(), |bytes| format!("limit {bytes} bytes"));
        let mut report = ArenaReport {
            mapped_bytes: len_bytes as u64,
            locked_bytes: 0,
            limit_bytes,
            lock: Lock::Nothing,
            lines: Vec::new(),
        };
        match self.lock_range(0, len_bytes) {
            Ok(()) => {
                report.locked_bytes = len_bytes as u64;
                report.lock = Lock::All;
                report.lines.push(format!("arena: {len_bytes} bytes mapped and locked ({limit_text})"));
                return report;
            }
            Err(cause) => report.lines.push(format!(
                "arena: locking all {len_bytes} bytes failed: {cause} ({limit_text}); raise it with `ulimit -l {}`",
                len_bytes.div_ceil(1024)
            )),
        }
        let mut regions: u16 = 0;
        for extent in extents {
            let region_bytes = extent.len_bytes.next_multiple_of(PAGE_BYTES);
            if self.lock_range(extent.offset_bytes, region_bytes).is_err() {
                break;
            }
            regions += 1;
            report.locked_bytes += region_bytes as u64;
        }
        if regions > 0 {
            report.lock = Lock::Some { regions };
        }
        report.lines.push(format!(
            "arena: {} of {len_bytes} bytes locked ({regions} of {} regions); the rest is ordinary memory and may be \
             paged out",
            report.locked_bytes,
            extents.len()
        ));
        report
    }

    fn lock_range(&self, offset_bytes: usize, len_bytes: usize) -> rustix::io::Result<()> {
        // SAFETY: the callers pass page-rounded extents of the plan, which lie inside this allocation.
        let start = unsafe { self.base().add(offset_bytes) };
        // SAFETY: the range is mapped by us; locking changes no byte of it.
        unsafe { mlock(start.as_ptr().cast(), len_bytes) }
    }
}

/// What this process can still get: the machine's free memory, and what its own control group leaves it. `None` where
/// neither can be read.
fn available_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    // In a container the group's own files stand at the mount's root.
    let figure = |name| -> Option<u64> {
        fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse().ok()
    };
    let group = figure("memory.max").map(|max| max.saturating_sub(figure("memory.current").unwrap_or(0)));
    [machine, group].into_iter().flatten().min()
}

impl Drop for Backing {
    fn drop(&mut self) {
        if let Self::Heap { bytes, layout } = self {
            // SAFETY: allocated in `heap` with this very layout, and dropped once.
            unsafe { dealloc(bytes.as_ptr(), *layout) };
        }
    }
}
