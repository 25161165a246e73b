//! How many cores a machine has, whatever this thread is bound to.

use std::thread;

/// Cores that are online, all of them: who is pinned to one shares the machine with what runs on the others, and counts of
/// runnable threads are the machine's too. Where `/sys` does not say (sysfs-devices-system-cpu), those that this thread may
/// run on.
pub(crate) fn online_cores() -> usize {
    let told = std::fs::read_to_string("/sys/devices/system/cpu/online").ok();
    let online = told.as_deref().and_then(count);
    online.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
}

/// The cores of a list like `0-3,8`.
fn count(list: &str) -> Option<usize> {
    let mut cores = 0usize;
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        cores += usize::from(last.checked_sub(first)?) + 1;
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_is_counted() {
        assert_eq!(count("0\n"), Some(1));
        assert_eq!(count("0-3,8,10-11\n"), Some(7));
        for wrong in ["", "-", "1-", "3-1", "0,,2", "0-70000", "a"] {
            assert_eq!(count(wrong), None, "{wrong}");
        }
        assert!(online_cores() >= 1);
    }
}
