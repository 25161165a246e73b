//! What weighs a quorum: every member 1, the lowest of the view 1.5, strictly more than half (in halves: 2 and 3).

use plesio_wire::MemberSet;

/// Weight of `set` in a view of `members` members, in halves. Bits beyond the view weigh nothing.
#[must_use]
pub const fn weight(members: usize, set: MemberSet) -> u32 {
    let set = set.and(MemberSet::first(members));
    2 * set.len() as u32 + if set.contains(0) { 1 } else { 0 }
}

/// Whether `set` is a quorum of a view of `members` members. Any two quorums share a member.
#[must_use]
pub const fn is_quorum(members: usize, set: MemberSet) -> bool {
    2 * weight(members, set) > weight(members, MemberSet::first(members))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_even_split_has_one_winning_side() {
        assert!(is_quorum(2, MemberSet(0b01)) && !is_quorum(2, MemberSet(0b10)));
        assert!(is_quorum(4, MemberSet(0b0011)) && !is_quorum(4, MemberSet(0b1100)));
        assert!(is_quorum(1, MemberSet(1)) && !is_quorum(1, MemberSet(0)) && !is_quorum(0, MemberSet(0)));
        assert!(!is_quorum(3, MemberSet(0b001)) && is_quorum(3, MemberSet(0b110)));
        assert!(!is_quorum(3, MemberSet(0xFFFF_FFF8)), "strangers do not vote");
    }

    proptest! {
        #[test]
        fn of_two_sides_exactly_one_wins(members in 1usize..33, side: u32) {
            let side = MemberSet(side);
            let other = MemberSet::first(members).without(side);
            prop_assert!(is_quorum(members, side) != is_quorum(members, other));
        }
    }
}
