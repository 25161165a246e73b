//! Memory alone: so many streams read, rewritten and written, with next to nothing computed. The floor under a kernel
//! that moves the same.
//!
//! One stream after another, from end to end: what memory does fastest. A kernel that needs an element of every
//! stream at once walks them side by side, and what that costs is its own.

/// The exclusive or of `salt` and all that was read. `updates` get `salt` in the same way, which leaves them as they
/// are where it is zero, as no compiler knows; `writes` are filled with the result.
#[inline(always)]
pub fn stream(salt: u32, reads: &[&[u32]], updates: &mut [&mut [u32]], writes: &mut [&mut [u32]]) -> u32 {
    let mut seen = salt;
    for read in reads {
        for element in *read {
            seen ^= element;
        }
    }
    for update in updates {
        for element in &mut **update {
            *element ^= salt;
        }
    }
    for write in writes {
        for element in &mut **write {
            *element = seen;
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_read_rewritten_and_written() {
        let (one, two) = ([1, 2, 4], [8; 1]);
        let (mut update, mut write) = ([5, 6], [0; 3]);
        assert_eq!(stream(16, &[&one, &two], &mut [&mut update], &mut [&mut write]), 1 ^ 2 ^ 4 ^ 8 ^ 16);
        assert_eq!((update, write), ([5 ^ 16, 6 ^ 16], [31; 3]));
        assert_eq!(stream(0, &[], &mut [&mut update], &mut []), 0);
        assert_eq!(update, [5 ^ 16, 6 ^ 16], "nothing of nothing");
    }
}
