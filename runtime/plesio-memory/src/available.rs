//! How much memory this process can still get, asked before a file is allocated: the kernel keeps no account for memfds, and
//! too large a one ends in the out-of-memory killer.

use std::fs;

/// Where a control group's limit, use and reclaimable cache stand.
struct Hierarchy {
    /// What begins its line in `/proc/self/cgroup`, up to the path.
    mark: fn(&str) -> Option<&str>,
    mount: &'static str,
    max: &'static str,
    current: &'static str,
    /// Lines of `memory.stat` for files' pages that have not been used lately.
    cache: &'static str,
}

const HIERARCHIES: [Hierarchy; 2] = [
    Hierarchy {
        mark: |line| line.strip_prefix("0::"),
        mount: "/sys/fs/cgroup",
        max: "memory.max",
        current: "memory.current",
        cache: "inactive_file ",
    },
    // Version 1.
    Hierarchy {
        mark: |line| line.split_once(":memory:").map(|(_, path)| path),
        mount: "/sys/fs/cgroup/memory",
        max: "memory.limit_in_bytes",
        current: "memory.usage_in_bytes",
        cache: "total_inactive_file ",
    },
];

/// The least of what the machine has free and what each control group above this process leaves; `None` where nothing of
/// it can be read.
pub(crate) fn available_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| free_bytes(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let left = HIERARCHIES.iter().flat_map(|hierarchy| {
        // In a container the path may be the host's, and the mount the container's own group.
        let own = groups.lines().find_map(hierarchy.mark).unwrap_or("").trim_end_matches('/');
        folders(own).filter_map(|folder| hierarchy.left_bytes(folder))
    });
    machine.into_iter().chain(left).min()
}

impl Hierarchy {
    fn left_bytes(&self, folder: &str) -> Option<u64> {
        let read = |name| fs::read_to_string(format!("{}{folder}/{name}", self.mount)).ok();
        // Without a limit the file says `max`, or a number beyond any machine.
        let max: u64 = read(self.max)?.trim().parse().ok()?;
        let used: u64 = read(self.current)?.trim().parse().ok()?;
        let stat = read("memory.stat").unwrap_or_default();
        let cache = stat.lines().find_map(|line| line.strip_prefix(self.cache)?.trim().parse().ok());
        Some(max.saturating_sub(used.saturating_sub(cache.unwrap_or(0))))
    }
}

fn free_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// A path and all above it, the mount itself last.
fn folders(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('/').map(|(at, _)| at);
    let ends: Vec<usize> = ends.chain([path.len()]).collect();
    ends.into_iter().rev().map(|end| &path[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_the_kernel_writes_them() {
        let meminfo = "MemTotal:       24566636 kB\nMemAvailable:   23456789 kB\nBuffers: 1 kB\n";
        assert_eq!(free_bytes(meminfo), Some(23_456_789 * 1024));
        assert_eq!(free_bytes("MemTotal: 5 kB\n"), None);
        let paths = |line| HIERARCHIES.each_ref().map(|hierarchy| (hierarchy.mark)(line));
        assert_eq!(paths("0::/sys/a.scope"), [Some("/sys/a.scope"), None]);
        assert_eq!(paths("4:memory:/x"), [None, Some("/x")]);
        assert_eq!(paths("1:cpu:/x"), [None, None]);
        assert_eq!(folders("/usr/b").collect::<Vec<_>>(), ["/usr/b", "/usr", ""]);
        assert_eq!(folders("").collect::<Vec<_>>(), [""]);
    }

    #[cfg(not(miri))]
    #[test]
    fn this_machine_says_something() {
        assert!(available_bytes().is_none_or(|bytes| bytes > 0));
    }
}
