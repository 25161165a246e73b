//! The shard table: element range [E*j/N, E*(j+1)/N) belongs to member j, or the same in whole blocks, or by weights.

use alloc::vec::Vec;
use core::ops::Range;
use plesio_wire::shares::SHARE_ONE;

/// Which elements each member of a view owns: ranges in member order that follow one another and cover everything. A
/// member may own nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Parts {
    /// Where each range ends.
    ends: Vec<u64>,
}

impl Parts {
    /// The ranges of `members` members by the `weights` of their view, none for equal parts; whole grains but for the
    /// last one.
    ///
    /// Weights are a checked view's: one for each member, and [`SHARE_ONE`] in sum.
    #[must_use]
    pub fn new(elements: u64, grain_elements: u64, members: usize, weights: &[u16]) -> Self {
        let grain = grain_elements.max(1);
        if weights.is_empty() {
            let end = |index| range_in_grains(elements, grain, members, index).end;
            return Self { ends: (0..members).map(end).collect() };
        }
        let grains = u128::from(elements.div_ceil(grain));
        let mut sum = 0;
        let cut = |index: usize| {
            sum += u128::from(weights.get(index).copied().unwrap_or_default());
            // However the sum came about, everything belongs to somebody.
            let is_last = index + 1 == members || sum > u128::from(SHARE_ONE);
            let cut = if is_last { grains } else { grains * sum / u128::from(SHARE_ONE) };
            (cut as u64).saturating_mul(grain).min(elements)
        };
        Self { ends: (0..members).map(cut).collect() }
    }

    /// How many members there are.
    #[must_use]
    pub fn members(&self) -> usize {
        self.ends.len()
    }

    /// What `owner` owns; nothing beyond the members.
    #[must_use]
    pub fn range(&self, owner: usize) -> Range<u64> {
        let start =
            owner.checked_sub(1).map_or(0, |before| self.ends.get(before).copied().unwrap_or_default());
        start..self.ends.get(owner).copied().unwrap_or(start)
    }

    /// How many elements `owner` owns.
    #[must_use]
    pub fn elements(&self, owner: usize) -> u64 {
        let range = self.range(owner);
        range.end - range.start
    }
}

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

    /// Weights of 1 to 32 members that sum to one: what is left of the last one's draws goes to the first.
    fn weights() -> impl Strategy<Value = Vec<u16>> {
        proptest::collection::vec(0u16..=SHARE_ONE, 1..=32).prop_map(|mut weights| {
            let mut rest = SHARE_ONE;
            for weight in &mut weights {
                *weight = (*weight).min(rest);
                rest -= *weight;
            }
            weights[0] += rest;
            weights
        })
    }

    proptest! {
        #[test]
        fn weighted_ranges_tile_the_elements_in_proportion(
            elements in 0u64..1 << 40, grain in 1u64..1000, weights in weights(),
        ) {
            let parts = Parts::new(elements, grain, weights.len(), &weights);
            let grains = elements.div_ceil(grain);
            let mut next = 0;
            for (index, weight) in weights.iter().enumerate() {
                let range = parts.range(index);
                prop_assert_eq!(range.start, next);
                prop_assert!(range.end >= range.start);
                prop_assert!(range.start.is_multiple_of(grain) || range.start == elements);
                prop_assert!(*weight > 0 || range.is_empty());
                let exact = u128::from(grains) * u128::from(*weight) / u128::from(SHARE_ONE);
                prop_assert!(parts.elements(index).div_ceil(grain).abs_diff(exact as u64) <= 1);
                next = range.end;
            }
            prop_assert_eq!(next, elements);
            prop_assert!(parts.range(weights.len()).is_empty());
        }

        #[test]
        fn without_weights_the_ranges_are_the_equal_ones(elements in 0u64..1 << 40, members in 1usize..=32) {
            for grain in [1, 256] {
                let parts = Parts::new(elements, grain, members, &[]);
                for index in 0..members {
                    prop_assert_eq!(parts.range(index), range_in_grains(elements, grain, members, index));
                    if grain == 1 {
                        prop_assert_eq!(parts.range(index), range(elements, members, index));
                    }
                }
            }
        }
    }

    #[test]
    fn nobody_beyond_the_members_owns_anything() {
        assert!(range(10, 0, 0).is_empty() || range(10, 0, 0) == (0..10));
        assert!(range(10, 3, 3).is_empty());
    }
}
