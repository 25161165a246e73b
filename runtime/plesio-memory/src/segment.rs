//! Memory that several processes of one user share: a sealed memfd of a fixed length, mapped by each of them.
//!
//! Whoever holds the file may write any byte at any time and die at any instruction. So no Rust reference to plain bytes
//! exists here: control words are atomics, payload is copied word by word as atomics, and kernels get a pointer to a
//! range that was checked once. What is read is whatever somebody wrote; it is never memory unsafety.
//!
//! Invariant: the file is as long as the map, cannot change its length, and was allocated before it was mapped.
#![expect(unsafe_code, reason = "atomics are laid over memory that other processes write")]

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::slice;

use rustix::fs::{SealFlags, SeekFrom, fcntl_get_seals, fstat, seek};
use rustix::io::Errno;

use crate::backing::{Backing, Wanted};
use crate::ladder;
use crate::plan::Extent;
use crate::{AccessError, ArenaError, ArenaReport, AttachError};

/// Bytes in one of the words that payload is copied by.
const LANE_BYTES: usize = size_of::<u64>();

/// Who may write a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Everybody who has the file.
    Shared,
    /// Who made it. The kernel refuses any other writable map (F_SEAL_FUTURE_WRITE).
    ReadOnly,
}

/// What a segment is to be.
#[derive(Clone, Debug)]
pub struct SegmentPlan {
    /// Shown in `/proc/<pid>/maps`; names no file.
    pub name: String,
    /// Its length; fixed for ever.
    pub len_bytes: usize,
    /// Who may write it.
    pub access: Access,
    /// Most bytes it may take; checked before anything is allocated.
    pub budget_bytes: usize,
}

/// A sealed memfd, mapped here.
pub struct Segment {
    backing: Backing,
    len_bytes: usize,
    writable: bool,
}

impl Segment {
    /// Makes one: allocated, sealed, mapped to be written, faulted in, and locked as far as the limit lets it.
    ///
    /// # Errors
    /// A length of nothing or above the budget, or a kernel that refuses memory. Not a refused lock: that is reported.
    pub fn create(plan: &SegmentPlan) -> Result<(Self, ArenaReport), ArenaError> {
        let len_bytes = checked_length(plan)?;
        let SegmentPlan { name, access, budget_bytes, .. } = plan;
        let wanted = Wanted { name, len_bytes, budget_bytes: *budget_bytes, access: *access };
        let (backing, refusals) = Backing::create(&wanted)?;
        let extents = [Extent { offset_bytes: 0, len_bytes }];
        let report = ladder::climb(&backing, &extents, *budget_bytes, &refusals);
        // Reserved huge pages may have made it longer, within the budget; so it is for those who attach it.
        let len_bytes = backing.len_bytes();
        Ok((Self { backing, len_bytes, writable: true }, report))
    }

    /// The same over heap memory of this process.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn heap(plan: &SegmentPlan) -> Result<Self, ArenaError> {
        let len_bytes = checked_length(plan)?;
        Ok(Self { backing: Backing::heap(len_bytes)?, len_bytes, writable: true })
    }

    /// Maps a file that somebody handed over, once everything about it is what it has to be: a memfd, all seals, the
    /// exact length, all of it allocated, owned by `uid`. A [`Access::ReadOnly`] segment is mapped for reading.
    ///
    /// # Errors
    /// Which of these it is not; the file is closed and nothing was mapped.
    pub fn attach(
        file: OwnedFd,
        expect_len_bytes: usize,
        want: Access,
        uid: u32,
    ) -> Result<Self, AttachError> {
        verify(file.as_fd(), expect_len_bytes as u64, want, uid)?;
        let writable = want == Access::Shared;
        let backing = Backing::attach(file, expect_len_bytes, writable)
            .map_err(|cause| AttachError::System { step: "mmap", cause })?;
        Ok(Self { backing, len_bytes: expect_len_bytes, writable })
    }

    /// Its length.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Whether it can be written from here.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// The memfd, to be handed over; the heap has none.
    #[must_use]
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.backing.file().map(AsFd::as_fd)
    }

    /// A control word.
    ///
    /// # Errors
    /// An offset outside or not a multiple of 4, or a map that is read-only ([`Self::peek`] reads there).
    pub fn word(&self, offset_bytes: usize) -> Result<&AtomicU32, AccessError> {
        Ok(&self.words(offset_bytes, 1)?[0])
    }

    /// A control word of 64 bits.
    ///
    /// # Errors
    /// As [`Self::word`], with multiples of 8.
    pub fn word64(&self, offset_bytes: usize) -> Result<&AtomicU64, AccessError> {
        Ok(&self.words64(offset_bytes, 1)?[0])
    }

    /// Control words that stand beside each other.
    ///
    /// # Errors
    /// As [`Self::word`].
    pub fn words(&self, offset_bytes: usize, count: usize) -> Result<&[AtomicU32], AccessError> {
        self.check_writable()?;
        self.atomics(offset_bytes, count)
    }

    /// Control words of 64 bits that stand beside each other.
    ///
    /// # Errors
    /// As [`Self::word64`].
    pub fn words64(&self, offset_bytes: usize, count: usize) -> Result<&[AtomicU64], AccessError> {
        self.check_writable()?;
        self.atomics64(offset_bytes, count)
    }

    /// Reads a control word, also where the map is read-only.
    ///
    /// # Errors
    /// An offset outside or not a multiple of 4.
    ///
    /// # Panics
    /// On an ordering that loads do not have.
    pub fn peek(&self, offset_bytes: usize, ordering: Ordering) -> Result<u32, AccessError> {
        Ok(self.atomics(offset_bytes, 1)?[0].load(ordering))
    }

    /// Reads a control word of 64 bits, also where the map is read-only.
    ///
    /// # Errors
    /// An offset outside or not a multiple of 8.
    ///
    /// # Panics
    /// On an ordering that loads do not have.
    pub fn peek64(&self, offset_bytes: usize, ordering: Ordering) -> Result<u64, AccessError> {
        Ok(self.atomics64(offset_bytes, 1)?[0].load(ordering))
    }

    /// Copies bytes out; others may be writing them meanwhile, each 8 aligned bytes come out whole.
    ///
    /// # Errors
    /// A range that leaves the segment.
    pub fn copy_out(&self, offset_bytes: usize, into: &mut [u8]) -> Result<(), AccessError> {
        let start = self.pointer(offset_bytes, into.len())?;
        let (head, lanes, tail) = self.split(start, into.len());
        let (into_head, rest) = into.split_at_mut(head.len());
        let (into_lanes, into_tail) = rest.split_at_mut(lanes.len() * LANE_BYTES);
        for (to, from) in into_head.iter_mut().zip(head).chain(into_tail.iter_mut().zip(tail)) {
            *to = from.load(Ordering::Relaxed);
        }
        for (to, from) in into_lanes.chunks_exact_mut(LANE_BYTES).zip(lanes) {
            to.copy_from_slice(&from.load(Ordering::Relaxed).to_ne_bytes());
        }
        Ok(())
    }

    /// Copies bytes in; whoever reads meanwhile sees each 8 aligned bytes whole.
    ///
    /// # Errors
    /// A range that leaves the segment, or a map that is read-only.
    pub fn copy_in(&self, offset_bytes: usize, from: &[u8]) -> Result<(), AccessError> {
        self.check_writable()?;
        let start = self.pointer(offset_bytes, from.len())?;
        let (head, lanes, tail) = self.split(start, from.len());
        let (from_head, rest) = from.split_at(head.len());
        let (from_lanes, from_tail) = rest.split_at(lanes.len() * LANE_BYTES);
        for (to, from) in head.iter().zip(from_head).chain(tail.iter().zip(from_tail)) {
            to.store(*from, Ordering::Relaxed);
        }
        for (to, from) in lanes.iter().zip(from_lanes.chunks_exact(LANE_BYTES)) {
            let from = from.try_into().expect("a lane's bytes");
            to.store(u64::from_ne_bytes(from), Ordering::Relaxed);
        }
        Ok(())
    }

    /// The address of a range's first byte, for a kernel. It must not make a reference of it while others may write, and
    /// not write where [`Self::writable`] is false.
    ///
    /// # Errors
    /// A range that leaves the segment.
    pub fn pointer(&self, offset_bytes: usize, len_bytes: usize) -> Result<NonNull<u8>, AccessError> {
        let end = offset_bytes.checked_add(len_bytes).ok_or(AccessError::Range)?;
        if end > self.len_bytes {
            return Err(AccessError::Range);
        }
        // SAFETY: the range was just found to lie inside the map, which is `len_bytes` long.
        Ok(unsafe { self.backing.base().add(offset_bytes) })
    }

    fn check_writable(&self) -> Result<(), AccessError> {
        // An atomic's methods write through a shared reference, and a write to a read-only map is a signal.
        if self.writable { Ok(()) } else { Err(AccessError::ReadOnly) }
    }

    fn atomics(&self, offset_bytes: usize, count: usize) -> Result<&[AtomicU32], AccessError> {
        let len_bytes = count.checked_mul(size_of::<u32>()).ok_or(AccessError::Range)?;
        let start = self.pointer(offset_bytes, len_bytes)?.cast::<AtomicU32>();
        if !start.is_aligned() {
            return Err(AccessError::Alignment);
        }
        // SAFETY: inside the map and aligned, both just checked; mapped and initialised as long as `self` lives, which
        // the result borrows; atomics may be shared with whoever writes. Callers write only where it is writable.
        Ok(unsafe { slice::from_raw_parts(start.as_ptr(), count) })
    }

    fn atomics64(&self, offset_bytes: usize, count: usize) -> Result<&[AtomicU64], AccessError> {
        let len_bytes = count.checked_mul(size_of::<u64>()).ok_or(AccessError::Range)?;
        let start = self.pointer(offset_bytes, len_bytes)?.cast::<AtomicU64>();
        if !start.is_aligned() {
            return Err(AccessError::Alignment);
        }
        // SAFETY: as in `atomics`.
        Ok(unsafe { slice::from_raw_parts(start.as_ptr(), count) })
    }

    /// A checked range as single bytes up to a lane's boundary, whole lanes, and the bytes behind them.
    fn split(&self, start: NonNull<u8>, len_bytes: usize) -> (&[AtomicU8], &[AtomicU64], &[AtomicU8]) {
        let head_len = start.align_offset(LANE_BYTES).min(len_bytes);
        let lanes_len = (len_bytes - head_len) / LANE_BYTES;
        let tail_at = head_len + lanes_len * LANE_BYTES;
        // SAFETY: the callers have checked that `len_bytes` from `start` lie in the map, and `head_len <= len_bytes`.
        let lanes = unsafe { start.add(head_len) }.cast::<AtomicU64>();
        // SAFETY: as above: `tail_at <= len_bytes`.
        let tail = unsafe { start.add(tail_at) }.cast::<AtomicU8>();
        // SAFETY: inside the map; bytes are always aligned; the map lives as long as `self`, which the results borrow.
        let head = unsafe { slice::from_raw_parts(start.cast::<AtomicU8>().as_ptr(), head_len) };
        // SAFETY: as above; when there is a lane, `head_len` bytes have brought it to its boundary.
        let lanes = unsafe { slice::from_raw_parts(aligned(lanes, lanes_len), lanes_len) };
        // SAFETY: as for `head`.
        let tail = unsafe { slice::from_raw_parts(tail.as_ptr(), len_bytes - tail_at) };
        (head, lanes, tail)
    }
}

/// A slice of no lanes needs an aligned address too, and the end of a short range may not be one.
fn aligned(lanes: NonNull<AtomicU64>, count: usize) -> *const AtomicU64 {
    if count == 0 { NonNull::dangling().as_ptr() } else { lanes.as_ptr() }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment({} bytes, writable: {})", self.len_bytes, self.writable)
    }
}

fn checked_length(plan: &SegmentPlan) -> Result<usize, ArenaError> {
    let len_bytes = plan.len_bytes;
    // The kernel counts file lengths in i64.
    if len_bytes == 0 || i64::try_from(len_bytes).is_err() {
        return Err(ArenaError::Plan { rule: "a segment must have 1 byte to 2^63 - 1" });
    }
    if len_bytes > plan.budget_bytes {
        let (needed_bytes, budget_bytes) = (len_bytes as u64, plan.budget_bytes as u64);
        return Err(ArenaError::Budget { needed_bytes, budget_bytes });
    }
    Ok(len_bytes)
}

/// Everything about the file that could make its map dangerous later.
fn verify(file: BorrowedFd<'_>, len_bytes: u64, want: Access, uid: u32) -> Result<(), AttachError> {
    let system = |step| move |errno: Errno| AttachError::System { step, cause: errno.into() };
    // Only memfds and files of a tmpfs know seals, and the latter cannot have those that are asked for.
    let found = fcntl_get_seals(file).map_err(|_| AttachError::Kind)?;
    let size = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW;
    let needed = if want == Access::ReadOnly { size | SealFlags::FUTURE_WRITE } else { size };
    if !found.contains(needed) {
        return Err(AttachError::Seals { missing: seal_names(needed - found) });
    }
    if want == Access::Shared && found.intersects(SealFlags::FUTURE_WRITE | SealFlags::WRITE) {
        return Err(AttachError::NotShared);
    }
    let stat = fstat(file).map_err(system("fstat"))?;
    if stat.st_uid != uid {
        return Err(AttachError::Owner { expected: uid, found: stat.st_uid });
    }
    if stat.st_nlink != 0 {
        return Err(AttachError::Kind);
    }
    let found_bytes = u64::try_from(stat.st_size).unwrap_or(0);
    if found_bytes != len_bytes || len_bytes == 0 {
        return Err(AttachError::Length { expected: len_bytes, found: found_bytes });
    }
    // Blocks count also what is swapped out, and what was allocated behind the end. Files of huge pages answer only
    // this question. To the other one a page that nobody has touched is a hole too.
    let allocated_bytes = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    let hole_at = match seek(file, SeekFrom::Hole(0)) {
        Ok(at) => at,
        Err(Errno::INVAL) => len_bytes,
        Err(errno) => return Err(system("lseek")(errno)),
    };
    if allocated_bytes < len_bytes || hole_at < len_bytes {
        return Err(AttachError::Hole { offset_bytes: hole_at.min(allocated_bytes) });
    }
    Ok(())
}

fn seal_names(missing: SealFlags) -> String {
    missing.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests;
