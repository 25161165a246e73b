//! The equal shard table: element range [E*j/N, E*(j+1)/N) belongs to member j.

use core::ops::Range;

/// Elements that member `index` of `members` owns, of `elements` in all.
///
/// The ranges of all members follow one another, cover everything and differ by at most one element.
#[must_use]
pub fn range(elements: u64, members: usize, index: usize) -> Range<u64> {
    let cut = |at: usize| (u128::from(elements) * at as u128 / members.max(1) as u128) as u64;
    cut(index.min(members))..cut((index + 1).min(members))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_tile_the_elements(elements in 0u64..1 << 40, members in 1usize..=32) {
            let mut next = 0;
            for index in 0..members {
                let part = range(elements, members, index);
                prop_assert_eq!(part.start, next);
                let len = part.end - part.start;
                prop_assert!(len == elements / members as u64 || len == elements / members as u64 + 1);
                next = part.end;
            }
            prop_assert_eq!(next, elements);
        }
    }

    #[test]
    fn nobody_beyond_the_members_owns_anything() {
        assert!(range(10, 0, 0).is_empty() || range(10, 0, 0) == (0..10));
        assert!(range(10, 3, 3).is_empty());
    }
}
