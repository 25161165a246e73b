//! The equal shard table: element range [E*j/N, E*(j+1)/N) belongs to member j, or the same in whole blocks.

use core::ops::Range;

/// Elements that member `index` of `members` owns, of `elements` in all.
///
/// The ranges of all members follow one another, cover everything and differ by at most one element.
#[must_use]
pub fn range(elements: u64, members: usize, index: usize) -> Range<u64> {
    let cut = |at: usize| (u128::from(elements) * at as u128 / members.max(1) as u128) as u64;
    cut(index.min(members))..cut((index + 1).min(members))
}

/// The same in whole grains of elements, but for the last.
#[must_use]
pub fn range_in_grains(elements: u64, grain_elements: u64, members: usize, index: usize) -> Range<u64> {
    let grain = grain_elements.max(1);
    let grains = range(elements.div_ceil(grain), members, index);
    (grains.start * grain).min(elements)..(grains.end * grain).min(elements)
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

    proptest! {
        #[test]
        fn ranges_in_grains_tile_the_elements(
            elements in 0u64..1 << 40, grain in 0u64..1000, members in 1usize..=32,
        ) {
            let mut next = 0;
            for index in 0..members {
                let part = range_in_grains(elements, grain, members, index);
                prop_assert_eq!(part.start, next);
                prop_assert!(part.end >= part.start);
                prop_assert!(part.start.is_multiple_of(grain.max(1)) || part.start == elements);
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
