//! What a process holds, as the kernel counts it.

use std::fs;

/// Open files, mapped files, memory in use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Held {
    pub(super) descriptors: usize,
    /// Mappings that stand for a file or a segment; the allocator's own come and go, and show in the memory.
    pub(super) mappings: usize,
    pub(super) rss_bytes: u64,
}

impl Held {
    /// Of a process that is there.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = rss.split_whitespace().next()?.parse().ok()?;
        Some(Self { descriptors, mappings: files(&maps), rss_bytes: kib * 1024 })
    }
}

/// Lines of a table of mappings that name a file.
fn files(maps: &str) -> usize {
    let name = |line: &str| line.split_whitespace().nth(5).is_some_and(|name| !name.starts_with('['));
    maps.lines().filter(|line| name(line)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mappings_of_files_count() {
        let maps = "7f00-7f01 r--p 00000000 fd:00 123    /usr/lib/libc.so.6\n\
                    7f01-7f02 rw-p 00000000 00:00 0\n\
                    7f02-7f03 rw-s 00000000 00:01 77     /memfd:plesio (deleted)\n\
                    7f03-7f04 rw-p 00000000 00:00 0      [stack]\n";
        assert_eq!(files(maps), 2);
    }

    #[test]
    fn this_process_holds_something() {
        let held = Held::of(std::process::id()).expect("/proc is mounted");
        assert!(held.descriptors > 0 && held.mappings > 0 && held.rss_bytes > 1 << 20, "{held:?}");
        assert_eq!(Held::of(u32::MAX), None);
    }
}
