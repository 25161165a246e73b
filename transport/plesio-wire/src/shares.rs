//! Which part of all elements each member of a view owns, as the view says it.
//!
//! Weights are fifteen-bit fractions in member order; none at all says that all parts are equal, and is what equal
//! parts are written as. Invariant: what [`check_shares`] lets through covers everything once, and nobody owns more than
//! its windows hold.

use crate::{Bounded, MEMBERS_MAX};
use core::fmt;

/// All elements: the weights of a view sum to exactly this.
pub const SHARE_ONE: u16 = 1 << 15;

/// The weights of a view by member, or none where all own equal parts.
pub type Shares = Bounded<u16, MEMBERS_MAX>;

/// Why weights are refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SharesError {
    /// Neither none nor one for each member.
    Count {
        /// Weights.
        weights: usize,
        /// Members.
        members: usize,
    },
    /// The mesh was started with equal parts.
    Equal,
    /// They leave elements to nobody, or give them twice.
    Sum {
        /// What they sum to.
        sum: u32,
    },
    /// One member would own more than it has memory for.
    Most {
        /// Which member.
        member: usize,
        /// Its weight.
        weight: u16,
        /// The largest allowed.
        most: u16,
    },
}

impl fmt::Display for SharesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { weights, members } => {
                write!(
                    f,
                    "shares of a view: {weights} weights for {members} members; state one for each, or none"
                )
            }
            Self::Equal => f.write_str("shares of a view: this mesh has equal parts only; state no weights"),
            Self::Sum { sum } => {
                write!(f, "shares of a view: the weights sum to {sum}; they must sum to {SHARE_ONE}")
            }
            Self::Most { member, weight, most } => write!(
                f,
                "shares of a view: member {member} would own {weight} of {SHARE_ONE}; {most} is the most that its \
                 memory is laid out for"
            ),
        }
    }
}

impl core::error::Error for SharesError {}

/// The largest weight in a view of `members` members, where one may own `factor` times an equal part.
#[must_use]
pub const fn share_most(members: usize, factor: u8) -> u16 {
    let members = if members == 0 { 1 } else { members };
    let most = (factor as usize * SHARE_ONE as usize).div_ceil(members);
    if most < SHARE_ONE as usize { most as u16 } else { SHARE_ONE }
}

/// Whether `weights` share out everything among `members` members.
///
/// # Errors
/// The first rule that they break. With a `factor` of 1 or less every member owns an equal part, and only no weights
/// say so.
pub fn check_shares(weights: &[u16], members: usize, factor: u8) -> Result<(), SharesError> {
    if weights.is_empty() {
        return Ok(());
    }
    if factor <= 1 {
        return Err(SharesError::Equal);
    }
    if weights.len() != members {
        return Err(SharesError::Count { weights: weights.len(), members });
    }
    let sum: u32 = weights.iter().map(|weight| u32::from(*weight)).sum();
    if sum != u32::from(SHARE_ONE) {
        return Err(SharesError::Sum { sum });
    }
    let most = share_most(members, factor);
    match weights.iter().enumerate().find(|(_, weight)| **weight > most) {
        Some((member, weight)) => Err(SharesError::Most { member, weight: *weight, most }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_cover_everything_once_and_nobody_owns_too_much() {
        assert_eq!(check_shares(&[], 3, 4), Ok(()));
        assert_eq!(check_shares(&[], 3, 1), Ok(()));
        assert_eq!(check_shares(&[SHARE_ONE, 0, 0], 3, 4), Ok(()));
        assert_eq!(check_shares(&[SHARE_ONE], 1, 2), Ok(()));
        let count = check_shares(&[SHARE_ONE, 0], 3, 4);
        assert_eq!(count, Err(SharesError::Count { weights: 2, members: 3 }));
        let equal = check_shares(&[SHARE_ONE / 2; 2], 2, 1);
        assert_eq!(equal, Err(SharesError::Equal));
        let sum = check_shares(&[SHARE_ONE, 1, 0], 3, 4);
        assert_eq!(sum, Err(SharesError::Sum { sum: 32_769 }));
        assert_eq!(check_shares(&[0; 3], 3, 4), Err(SharesError::Sum { sum: 0 }));
        let mut eight = [0; 8];
        (eight[1], eight[7]) = (20_000, 12_768);
        let most = check_shares(&eight, 8, 4);
        assert_eq!(most, Err(SharesError::Most { member: 1, weight: 20_000, most: 16_384 }));
        (eight[1], eight[7]) = (16_384, 16_384);
        assert_eq!(check_shares(&eight, 8, 4), Ok(()));
        for text in [count, equal, sum, most].map(|refused| refused.unwrap_err().to_string()) {
            assert!(text.starts_with("shares of a view: "), "{text}");
        }
    }

    #[test]
    fn the_largest_weight_always_lets_everything_be_owned() {
        for members in 1..=MEMBERS_MAX {
            for factor in 1..=u8::MAX {
                assert!(members * usize::from(share_most(members, factor)) >= usize::from(SHARE_ONE));
            }
        }
    }
}
