//! Q0.24 weights of a manifest: a function of the view and of the entries alone (A8).

use crate::config::ConfigError;
use alloc::vec::Vec;
use plesio_wire::MemberIndex;
use plesio_wire::value::{Manifest, View, WEIGHT_ONE};

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

/// What each version between a contribution's base and its close leaves of its weight, Q0.24; [`Lambda::ONE`] leaves all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lambda(u32);

impl Lambda {
    /// Stale contributions weigh what fresh ones do.
    pub const ONE: Self = Self(WEIGHT_ONE);
    /// The least: a quarter for each version.
    pub const MIN: Self = Self(WEIGHT_ONE / 4);

    /// A discount in units of 2^-24.
    ///
    /// # Errors
    /// It is not 0.25 to 1.
    pub fn new(q24: u32) -> Result<Self, ConfigError> {
        let (min, max) = (u64::from(Self::MIN.0), u64::from(Self::ONE.0));
        if (min..=max).contains(&u64::from(q24)) {
            Ok(Self(q24))
        } else {
            Err(ConfigError::Range { name: "lambda_q24", value: q24.into(), min, max })
        }
    }

    /// In units of 2^-24.
    #[must_use]
    pub const fn q24(self) -> u32 {
        self.0
    }

    /// floor(weight x lambda^staleness), the power rounded down to 2^-24 at every step: integers, so that everybody gets
    /// the same.
    #[must_use]
    pub fn discount(self, weight: u32, staleness: u16) -> u32 {
        let mut power = u64::from(WEIGHT_ONE);
        for _ in 0..staleness {
            power = (power * u64::from(self.0)) >> 24;
        }
        ((u64::from(weight) * power) >> 24) as u32
    }
}

/// How much of a listed slot its version took: the weight that its entry carries, of the weight that its mode gives it.
///
/// The derivation. A worker holds x = G + u, and a slot q of it is counted in u until it is final. Its version adds
/// `weight x q` to G, in units of 2^-24 of a slot's, where the mode alone would have added `whole x q`, and with the
/// mode's weight the whole of q leaves u: weights say how updates of members are averaged, not how much of an update is
/// done with. So what was done with is c with `whole x c = weight x q`, rounded to whole units, ties to even; u loses c,
/// and q - c stays in it and goes with a later slot. Then produced = committed + held + residue + lost holds in integers
/// (I2), committed being the sum of c. G gets `weight x q` exactly, which is `whole x c` within half a unit of the
/// slot times `whole`. In every mode: `whole` is a function of view and manifest, `weight` of `whole` and staleness (A8).
/// A slot to which the mode gives no weight at all is done with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Part {
    weight: u32,
    whole: u32,
}

impl Part {
    /// All of it.
    pub const WHOLE: Self = Self { weight: 1, whole: 1 };

    /// `weight` of `whole`.
    #[must_use]
    pub const fn new(weight: u32, whole: u32) -> Self {
        Self { weight, whole }
    }

    /// Of the entry of `member` in a manifest of `view`.
    pub(crate) fn of_entry(view: &View, manifest: &Manifest, member: MemberIndex) -> Self {
        let listed: Vec<_> = manifest.entries.iter().map(|entry| (entry.member, entry.n_steps)).collect();
        let whole = weights(view.weight_mode, view.members.len(), &listed);
        let mut parts = manifest.entries.iter().zip(whole);
        parts
            .find(|(entry, _)| entry.member == member)
            .map_or(Self::WHOLE, |(entry, whole)| Self::new(entry.weight, whole))
    }

    /// Whether nothing goes back.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.weight >= self.whole
    }

    /// What was taken of an element.
    #[must_use]
    pub fn of(self, q: i32) -> i32 {
        if self.is_whole() {
            return q;
        }
        let (share, whole) = (i64::from(q) * i64::from(self.weight), i64::from(self.whole));
        let (floor, rest) = (share.div_euclid(whole), share.rem_euclid(whole));
        let up = 2 * rest > whole || (2 * rest == whole && floor & 1 == 1);
        // Between 0 and q.
        (floor + i64::from(up)) as i32
    }

    /// How many of a slot's steps go back with the rest: rounded down, so that what comes back again and again ends.
    #[must_use]
    pub fn steps_back(self, n_steps: u32) -> u32 {
        if self.is_whole() {
            return 0;
        }
        (u64::from(n_steps) * u64::from(self.whole - self.weight) / u64::from(self.whole)) as u32
    }
}

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
    fn a_discount_is_floored_at_every_step() {
        let half = Lambda::new(WEIGHT_ONE / 2).unwrap();
        assert_eq!(
            [0, 1, 2, 24, 25].map(|stale| half.discount(WEIGHT_ONE, stale)),
            [1 << 24, 1 << 23, 1 << 22, 1, 0]
        );
        assert_eq!(half.discount(5_592_405, 1), 2_796_202);
        let most = Lambda::new(WEIGHT_ONE - 1).unwrap();
        // (1 - e)^2 = 1 - 2e + e^2, of which the last is cut off.
        assert_eq!(most.discount(WEIGHT_ONE, 2), WEIGHT_ONE - 2);
        assert_eq!(Lambda::ONE.discount(12_345, 64), 12_345);
        for (q24, taken) in
            [(0, false), (WEIGHT_ONE / 4 - 1, false), (WEIGHT_ONE / 4, true), (WEIGHT_ONE + 1, false)]
        {
            assert_eq!(Lambda::new(q24).is_ok(), taken, "{q24}");
        }
        let words = std::string::ToString::to_string(&Lambda::new(7).unwrap_err());
        assert!(words.contains("lambda_q24 = 7 is outside 4194304..=16777216"), "{words}");
    }

    #[test]
    fn what_a_version_took_and_what_goes_back_are_the_slot() {
        let (third, most) = (Part::new(1, 3), Part::new(5_592_404, 5_592_405));
        assert_eq!([3, 4, 5, -3, -4, -5].map(|q| third.of(q)), [1, 1, 2, -1, -1, -2]);
        assert_eq!([1, 2, 3, -1, -3].map(|q| Part::new(1, 2).of(q)), [0, 1, 2, 0, -2], "ties to even");
        for part in [third, most, Part::new(0, 9), Part::WHOLE, Part::new(0, 0), Part::new(7, 7)] {
            for q in [i32::MIN, -(1 << 30), -1, 0, 1, (1 << 30) - 1, i32::MAX] {
                let taken = i64::from(part.of(q));
                assert!(
                    taken.abs() <= i64::from(q).abs() && taken * i64::from(q) >= 0,
                    "{part:?} of {q}: {taken}"
                );
            }
        }
        assert_eq!((Part::new(0, 9).of(77), Part::new(0, 0).of(77)), (0, 77));
        assert_eq!([1, 2, 3, 10].map(|steps| third.steps_back(steps)), [0, 1, 2, 6]);
        assert_eq!((Part::WHOLE.steps_back(9), most.steps_back(1 << 20)), (0, 0));
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
