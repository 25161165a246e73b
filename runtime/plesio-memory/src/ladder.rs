//! What was obtained for an arena or a segment, rung by rung, and said once: the size of its pages and how much of it is
//! locked. Registering it with io_uring is the rung above; the transport stands on it and says so itself.

use core::fmt::Write as _;
use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::backing::Backing;
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
    /// Bytes mapped, pages rounded up; never more than the budget.
    pub mapped_bytes: u64,
    /// Bytes that were allowed.
    pub budget_bytes: u64,
    /// Bytes in huge pages, as the kernel says after the fact.
    pub huge_bytes: u64,
    /// Bytes locked.
    pub locked_bytes: u64,
    /// RLIMIT_MEMLOCK; `None` means no limit.
    pub limit_bytes: Option<u64>,
    /// The rung of the ladder that held.
    pub lock: Lock,
    /// One sentence per rung that was tried, with the bytes it needs.
    pub lines: Vec<String>,
}

/// Climbs down the ladder: all locked, the first regions locked, nothing locked. Never fails.
pub(crate) fn climb(
    backing: &Backing,
    extents: &[Extent],
    budget_bytes: usize,
    refusals: &[String],
) -> ArenaReport {
    let len_bytes = backing.len_bytes();
    let limit_bytes = getrlimit(Resource::Memlock).current;
    let limit_text = limit_bytes.map_or("no limit".into(), |bytes| format!("limit {bytes} bytes"));
    let mut report = ArenaReport {
        mapped_bytes: len_bytes as u64,
        budget_bytes: budget_bytes as u64,
        huge_bytes: 0,
        locked_bytes: 0,
        limit_bytes,
        lock: Lock::Nothing,
        lines: Vec::new(),
    };
    match backing.lock(0, len_bytes) {
        Ok(()) => {
            report.locked_bytes = len_bytes as u64;
            report.lock = Lock::All;
            report.lines.push(format!("arena: {len_bytes} bytes mapped and locked ({limit_text})"));
        }
        Err(cause) => {
            report.lines.push(format!(
                "arena: locking all {len_bytes} bytes failed: {cause} ({limit_text}); raise it with `ulimit -l {}`",
                len_bytes.div_ceil(1024)
            ));
            lock_some(backing, extents, &mut report);
        }
    }
    report.huge_bytes = huge_bytes(backing);
    report.lines.extend(pages_line(&report, refusals));
    report
}

fn lock_some(backing: &Backing, extents: &[Extent], report: &mut ArenaReport) {
    let mut regions: u16 = 0;
    for extent in extents {
        let region_bytes = extent.len_bytes.next_multiple_of(PAGE_BYTES);
        if backing.lock(extent.offset_bytes, region_bytes).is_err() {
            break;
        }
        regions += 1;
        report.locked_bytes += region_bytes as u64;
    }
    if regions > 0 {
        report.lock = Lock::Some { regions };
    }
    report.lines.push(format!(
        "arena: {} of {} bytes locked ({regions} of {} regions); the rest is ordinary memory and may be paged out",
        report.locked_bytes,
        report.mapped_bytes,
        extents.len()
    ));
}

/// Says which pages it lies in, where any but the smallest would do.
fn pages_line(report: &ArenaReport, refusals: &[String]) -> Option<String> {
    if report.huge_bytes == 0 && refusals.is_empty() {
        return None;
    }
    let mut line = format!("arena: {} of {} bytes in huge pages", report.huge_bytes, report.mapped_bytes);
    // Where all of it is, nobody minds what was tried before.
    if report.huge_bytes < report.mapped_bytes && !refusals.is_empty() {
        write!(line, " ({})", refusals.join("; ")).expect("text takes text");
    }
    Some(line)
}

/// Asks the kernel what pages the memory lies in now: granting them is one thing, having them another.
fn huge_bytes(backing: &Backing) -> u64 {
    if backing.file().is_none() || backing.len_bytes() < crate::mapping::HUGE_BYTES {
        return 0;
    }
    let base = backing.base().as_ptr() as usize;
    fs::read_to_string("/proc/self/smaps").map_or(0, |smaps| huge_in(&smaps, base, backing.len_bytes()))
}

/// The bytes in huge pages of the maps that lie in a range; a lock may have cut one map in two.
fn huge_in(smaps: &str, base: usize, len_bytes: usize) -> u64 {
    let (mut total, mut inside, mut map_bytes) = (0, false, 0);
    for line in smaps.lines() {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Some((from, to)) = name.split_once('-')
            && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
        {
            inside = from >= base && from < base + len_bytes;
            map_bytes = to.saturating_sub(from) as u64;
            continue;
        }
        if !inside {
            continue;
        }
        let bytes =
            rest.trim().strip_suffix("kB").and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) << 10;
        match name {
            "KernelPageSize:" if bytes >= crate::mapping::HUGE_BYTES as u64 => total += map_bytes,
            "ShmemPmdMapped:" | "FilePmdMapped:" => total += bytes,
            _ => {}
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_counted_in_the_range_alone() {
        let map = |range: &str, page_kib: u32, shmem_kib: u32| {
            format!(
                "{range} rw-s 00000000 00:01 1029 /memfd:plesio (deleted)\nSize: 8192 kB\nKernelPageSize:     {page_kib} kB\n\
                 Rss: 8192 kB\nShmemPmdMapped:     {shmem_kib} kB\nFilePmdMapped:        0 kB\nVmFlags: rd wr sh\n"
            )
        };
        let smaps = [
            map("7f0000000000-7f0000400000", 4, 4096),
            map("7f0000400000-7f0000800000", 4, 2048),
            map("7f0000800000-7f0000c00000", 2048, 0),
            map("7f0000c00000-7f0001000000", 4, 1024),
        ];
        let smaps = smaps.concat();
        assert_eq!(huge_in(&smaps, 0x7f00_0040_0000, 4 << 20), 2 << 20);
        assert_eq!(huge_in(&smaps, 0x7f00_0040_0000, 8 << 20), 6 << 20);
        assert_eq!(huge_in(&smaps, 0x7e00_0000_0000, 4 << 20), 0);
        assert_eq!(huge_in("nothing of this kind", 0, usize::MAX), 0);
    }
}
