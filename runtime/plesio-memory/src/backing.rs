//! Where the bytes of an arena or a segment come from: a sealed memfd mapped shared, memory that a device's driver gave, or
//! plain heap for tests, Miri and the simulator.
//!
//! Invariant: the memory is zeroed at start, stays at one address, and lives as long as the value. Nothing here hands
//! out a reference. A memfd is allocated before it is mapped and sealed against shrinking, so touching it can never
//! raise SIGBUS; one of reserved huge pages also against holes, since such a page may not be had again.
#![expect(unsafe_code, reason = "the heap allocation has no safe interface")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::any::Any;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{
    FallocateFlags, MemfdFlags, Mode, SealFlags, fallocate, fchmod, fcntl_add_seals, fstat, memfd_create,
};
use rustix::io::Errno;

use crate::available::available_bytes;
use crate::mapping::{HUGE_BYTES, Mapping};
use crate::plan::PAGE_BYTES;
use crate::{Access, ArenaError};

pub(crate) enum Backing {
    Mapped {
        map: Mapping,
        file: OwnedFd,
    },
    Heap {
        bytes: NonNull<u8>,
        layout: Layout,
    },
    /// Another's, who keeps it as long as the owner lives.
    Given {
        bytes: NonNull<u8>,
        len_bytes: usize,
        _owner: Box<dyn Any + Send + Sync>,
    },
}

// SAFETY: the value is an address range that it owns alone; it has no thread affinity. What threads do with the bytes
// is ruled by the arena's access words.
unsafe impl Send for Backing {}
// SAFETY: as above: `&Backing` only yields the base address.
unsafe impl Sync for Backing {}

/// What is wanted of a new memfd.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) len_bytes: usize,
    /// Never exceeded, not even to fill a last huge page.
    pub(crate) budget_bytes: usize,
    /// Whether whoever gets the file may map it writable too.
    pub(crate) access: Access,
}

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

    /// A memfd that is allocated, sealed against every change of its size and mapped, to be written, in the largest pages
    /// that are granted; and why they are not larger.
    pub(crate) fn create(wanted: &Wanted<'_>) -> Result<(Self, Vec<String>), ArenaError> {
        let mut refusals = Vec::new();
        if wanted.len_bytes >= HUGE_BYTES && wanted.access == Access::ReadOnly {
            match Self::reserved(wanted) {
                Ok(backing) => return Ok((backing, refusals)),
                Err(refusal) => refusals.push(refusal),
            }
        }
        let bytes = wanted.len_bytes as u64;
        // The kernel keeps no account for a memfd: asking for more than there is ends in the out-of-memory killer, not in
        // an error. So the question comes first.
        let available_bytes = available_bytes().unwrap_or(u64::MAX);
        if bytes > available_bytes {
            return Err(ArenaError::Memory { needed_bytes: bytes, available_bytes });
        }
        let system = |step| move |cause: io::Error| ArenaError::System { step, bytes, cause };
        let file = new_file(wanted.name, MemfdFlags::empty()).map_err(system("memfd_create"))?;
        let (len_bytes, align_bytes) = (wanted.len_bytes, alignment(wanted.len_bytes));
        // Allocating before mapping turns a full tmpfs or memory limit into ENOSPC here instead of SIGBUS later.
        allocate(&file, len_bytes).map_err(system("fallocate"))?;
        let map = Mapping::new(file.as_fd(), len_bytes, align_bytes, true).map_err(system("mmap"))?;
        if let Err(cause) = map.collapse() {
            refusals.push(format!("putting pages together: {cause}"));
        }
        map.populate(true);
        close(&file, wanted.access).map_err(system("sealing"))?;
        Ok((Self::Mapped { map, file }, refusals))
    }

    /// The same in huge pages that the administrator has set aside.
    fn reserved(wanted: &Wanted<'_>) -> Result<Self, String> {
        let refusal =
            |bytes: usize| move |cause: io::Error| format!("{bytes} bytes of reserved huge pages: {cause}");
        let file = new_file(wanted.name, MemfdFlags::HUGETLB).map_err(refusal(wanted.len_bytes))?;
        let page_bytes = fstat(&file).map(|stat| stat.st_blksize as usize);
        let page_bytes = page_bytes.map_err(|errno| refusal(wanted.len_bytes)(errno.into()))?;
        let whole =
            page_bytes.is_power_of_two().then(|| wanted.len_bytes.checked_next_multiple_of(page_bytes));
        let Some(len_bytes) = whole.flatten().filter(|len_bytes| *len_bytes <= wanted.budget_bytes) else {
            return Err(format!("whole huge pages of {page_bytes} bytes would exceed the budget"));
        };
        allocate(&file, len_bytes).map_err(refusal(len_bytes))?;
        let map = Mapping::new(file.as_fd(), len_bytes, page_bytes, true).map_err(refusal(len_bytes))?;
        map.populate(true);
        close(&file, Access::ReadOnly).map_err(refusal(len_bytes))?;
        Ok(Self::Mapped { map, file })
    }

    /// Maps a file that was found to be sealed, allocated and `len_bytes` long.
    pub(crate) fn attach(file: OwnedFd, len_bytes: usize, writable: bool) -> io::Result<Self> {
        // Reserved huge pages can only be mapped at their own boundaries.
        let page_bytes = fstat(&file)?.st_blksize as usize;
        let align_bytes = if page_bytes.is_power_of_two() { page_bytes } else { 1 };
        let map = Mapping::new(file.as_fd(), len_bytes, align_bytes.max(alignment(len_bytes)), writable)?;
        map.populate(writable);
        Ok(Self::Mapped { map, file })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        match self {
            Self::Mapped { map, .. } => map.base(),
            Self::Heap { bytes, .. } | Self::Given { bytes, .. } => *bytes,
        }
    }

    /// Bytes that it takes: at least what was asked for.
    pub(crate) fn len_bytes(&self) -> usize {
        match self {
            Self::Mapped { map, .. } => map.len_bytes(),
            Self::Heap { layout, .. } => layout.size(),
            Self::Given { len_bytes, .. } => *len_bytes,
        }
    }

    /// The memfd, where there is one.
    pub(crate) fn file(&self) -> Option<&OwnedFd> {
        match self {
            Self::Mapped { file, .. } => Some(file),
            Self::Heap { .. } | Self::Given { .. } => None,
        }
    }

    /// Keeps a range from being paged out; heap is never locked, and a driver's memory always is.
    pub(crate) fn lock(&self, offset_bytes: usize, len_bytes: usize) -> io::Result<()> {
        match self {
            Self::Mapped { map, .. } => map.lock(offset_bytes, len_bytes),
            Self::Heap { .. } => Err(io::ErrorKind::Unsupported.into()),
            Self::Given { .. } => Ok(()),
        }
    }
}

/// Where a map of this length starts: where huge pages could, if one fits.
fn alignment(len_bytes: usize) -> usize {
    if len_bytes < HUGE_BYTES { rustix::param::page_size() } else { HUGE_BYTES }
}

fn new_file(name: &str, kind: MemfdFlags) -> io::Result<OwnedFd> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | kind)?;
    // Who reaches it through /proc has to be us.
    fchmod(&file, Mode::RUSR | Mode::WUSR)?;
    Ok(file)
}

fn allocate(file: &OwnedFd, len_bytes: usize) -> io::Result<()> {
    let len_bytes = u64::try_from(len_bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    loop {
        // A signal ends a long one.
        match fallocate(file, FallocateFlags::empty(), 0, len_bytes) {
            Err(Errno::INTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}

/// From here on the file stays as it is. FUTURE_WRITE leaves the map that exists: ours is then the only one that writes,
/// and nobody can punch a hole.
fn close(file: &OwnedFd, access: Access) -> io::Result<()> {
    let size = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let seals = if access == Access::ReadOnly { size | SealFlags::FUTURE_WRITE } else { size };
    Ok(fcntl_add_seals(file, seals)?)
}

impl Drop for Backing {
    fn drop(&mut self) {
        if let Self::Heap { bytes, layout } = self {
            // SAFETY: allocated in `heap` with this very layout, and dropped once.
            unsafe { dealloc(bytes.as_ptr(), *layout) };
        }
    }
}
