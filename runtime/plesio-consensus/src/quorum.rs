//! Who together may decide: members weigh 1, the lowest id of the view 1.5, strictly more than half of the view.
//! Any two quorums meet, an even split has one winning side, and of two nodes the lower goes on alone.

use plesio_wire::MemberSet;

/// Whether `set` is a quorum of a view of `members` members; indices beyond the view do not count.
#[must_use]
pub fn is_quorum(members: usize, set: MemberSet) -> bool {
    let set = set.and(MemberSet::first(members));
    // In halves: 2 for each, 3 for the lowest; index 0 is the lowest because views are sorted.
    let weight = 2 * set.len() + usize::from(set.contains(0));
    members > 0 && 2 * weight > 2 * members + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_two_quorums_meet_and_an_even_split_has_one_winner() {
        for members in 1..=10usize {
            let all = 1u32 << members;
            for set in 0..all {
                let mine = is_quorum(members, MemberSet(set));
                let rest = is_quorum(members, MemberSet(all - 1 - set));
                assert!(!(mine && rest), "{members} members: {set:b} and its complement");
                // The lowest id breaks ties, so one of the two sides always wins.
                assert!(mine || rest);
            }
        }
        assert!(is_quorum(2, MemberSet(0b01)) && !is_quorum(2, MemberSet(0b10)));
        assert!(is_quorum(4, MemberSet(0b0011)) && !is_quorum(4, MemberSet(0b0110)));
        assert!(is_quorum(4, MemberSet(0b1110)));
        assert!(!is_quorum(0, MemberSet(0)) && !is_quorum(2, MemberSet(0b1110)));
        assert!(is_quorum(32, MemberSet::first(17)) && !is_quorum(32, MemberSet(0xFFFF << 16)));
    }
}
