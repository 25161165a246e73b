//! Q0.24 weights of a manifest: a function of the view and of the entries alone (A8).

use crate::config::ConfigError;
use alloc::vec::Vec;
use plesio_wire::MemberIndex;
use plesio_wire::value::WEIGHT_ONE;

/// How much a contribution weighs in the sum; a mesh has one mode, which stands in its views.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum WeightMode {
    /// 1/N for each member, whether it contributes or not: members hold different data.
    #[default]
    Mass,
    /// By steps over the manifest: members draw from one pool of data.
    Work,
    /// Equal parts over the manifest: for comparison.
    Equal,
}

impl WeightMode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Mass, Self::Work, Self::Equal];

    /// As a view states it.
    #[must_use]
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// The mode that a view states.
    ///
    /// # Errors
    /// The number is not 0, 1 or 2.
    pub fn from_id(id: u8) -> Result<Self, ConfigError> {
        let name = "weight_mode";
        let found = Self::ALL.into_iter().find(|mode| mode.id() == id);
        found.ok_or(ConfigError::Range { name, value: u64::from(id), min: 0, max: 2 })
    }
}

const MODE_MASS: u8 = WeightMode::Mass.id();
const MODE_WORK: u8 = WeightMode::Work.id();

/// Weights of the listed contributions, in their order; empty when `listed` is.
///
/// Largest remainder, ties to the lower member index. In mode `mass` the shares of all `members` sum to 2^24; in
/// `work` and `equal` those of the listed ones do.
#[must_use]
pub fn weights(mode: u8, members: usize, listed: &[(MemberIndex, u32)]) -> Vec<u32> {
    match mode {
        MODE_MASS => listed.iter().map(|(member, _)| mass(members, *member)).collect(),
        MODE_WORK => largest_remainder(listed.iter().map(|(_, steps)| u64::from(*steps)).collect()),
        _ => largest_remainder(listed.iter().map(|_| 1).collect()),
    }
}

fn mass(members: usize, member: MemberIndex) -> u32 {
    let members = members.max(1) as u32;
    // All remainders are equal, so the units left over go to the lowest indices.
    WEIGHT_ONE / members + u32::from(u32::from(member) < WEIGHT_ONE % members)
}

fn largest_remainder(parts: Vec<u64>) -> Vec<u32> {
    let total: u64 = parts.iter().sum();
    if total == 0 {
        return parts.iter().map(|_| 0).collect();
    }
    let one = u64::from(WEIGHT_ONE);
    let mut shares: Vec<u32> = parts.iter().map(|part| (part * one / total) as u32).collect();
    let left = WEIGHT_ONE - shares.iter().sum::<u32>();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|at| (core::cmp::Reverse(parts[*at] * one % total), *at));
    for at in order.into_iter().take(left as usize) {
        shares[at] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a8_weights_sum_to_one_in_every_mode() {
        for members in 1..=32usize {
            let listed: Vec<(u16, u32)> =
                (0..members as u16).map(|m| (m, 1 + 7919 * u32::from(m) % 61)).collect();
            for mode in 0..3 {
                let sum: u32 = weights(mode, members, &listed).iter().sum();
                assert_eq!(sum, WEIGHT_ONE, "mode {mode}, {members} members");
            }
        }
    }

    #[test]
    fn a_mode_that_is_none_is_refused_with_name_value_and_range() {
        for mode in WeightMode::ALL {
            assert_eq!(WeightMode::from_id(mode.id()), Ok(mode));
        }
        let error = WeightMode::from_id(3).unwrap_err();
        let words = std::string::ToString::to_string(&error);
        assert!(words.contains("weight_mode = 3 is outside 0..=2"), "{words}");
    }

    #[test]
    fn mass_is_a_share_of_the_view_and_work_of_the_manifest() {
        assert_eq!(weights(0, 3, &[(0, 9), (2, 9)]), [5_592_406, 5_592_405]);
        assert_eq!(weights(1, 3, &[(0, 1), (2, 3)]), [1 << 22, 3 << 22]);
        assert_eq!(weights(2, 9, &[(0, 1), (2, 3), (8, 1)]), [5_592_406, 5_592_405, 5_592_405]);
        assert_eq!(weights(1, 32, &[(4, 1 << 20); 32]).iter().sum::<u32>(), WEIGHT_ONE);
        assert!(weights(1, 3, &[]).is_empty());
    }
}
