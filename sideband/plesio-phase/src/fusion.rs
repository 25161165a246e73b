//! Marzullo's interval intersection (K. Marzullo, 1984): where most sources agree the time lies.

/// What a source says: the value lies in `lo`..=`hi`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Interval {
    pub(crate) lo: i64,
    pub(crate) hi: i64,
}

impl Interval {
    pub(crate) fn middle(self) -> i64 {
        self.lo + (self.hi - self.lo) / 2
    }

    pub(crate) fn half_width(self) -> i64 {
        (self.hi - self.lo) / 2 + 1
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.lo <= other.hi && other.lo <= self.hi
    }
}

/// The overlap of the most intervals, the narrowest of equals, and how many they are.
pub(crate) fn intersect(sources: &[Interval]) -> Option<(Interval, usize)> {
    let mut best: Option<(Interval, usize)> = None;
    // Every maximal overlap starts at some source's lower end.
    for start in sources {
        let holders = || sources.iter().filter(|source| source.lo <= start.lo && start.lo <= source.hi);
        let overlap = Interval { lo: start.lo, hi: holders().map(|source| source.hi).min()? };
        let count = holders().count();
        let better = best.is_none_or(|(old, old_count)| {
            count > old_count || count == old_count && overlap.half_width() < old.half_width()
        });
        if better {
            best = Some((overlap, count));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn of(lo: i64, hi: i64) -> Interval {
        Interval { lo, hi }
    }

    #[test]
    fn the_majority_outvotes_a_false_ticker() {
        // Marzullo's own example: 8..12, 11..13, 14..15 agree on 11..12.
        assert_eq!(intersect(&[of(8, 12), of(11, 13), of(14, 15)]), Some((of(11, 12), 2)));
        assert_eq!(intersect(&[of(0, 9), of(3, 4), of(900, 901)]), Some((of(3, 4), 2)));
        assert_eq!(intersect(&[]), None);
    }

    proptest! {
        #[test]
        fn sources_that_hold_the_truth_are_never_fewer_than_the_winners(
            truth in -1000i64..1000, widths in prop::collection::vec((0i64..500, 0i64..500), 1..7),
        ) {
            let sources: std::vec::Vec<Interval> =
                widths.iter().map(|(below, above)| of(truth - below, truth + above)).collect();
            let (overlap, count) = intersect(&sources).unwrap();
            prop_assert_eq!(count, sources.len());
            prop_assert!(overlap.lo <= truth && truth <= overlap.hi);
        }
    }
}
