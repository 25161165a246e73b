//! The outer step: what a version's weighted sum does to the master state.
//!
//! With `Sum` it is added. With `Nesterov` it goes through a momentum V beside the master G, in fixed point with 16 bits for
//! the two factors, shifts rounding down, 128 bits between, which are needed only where something leaves 64: only integers meet, so all members hold the same V and G.
//!
//! ```text
//!   V = (V mu >> 16) + S        G += ((S 65536 + V mu) >> 16) eta >> 16
//! ```

use crate::error::{KernelError, check_len};

/// One of mu and eta.
const ONE16: u32 = 1 << 16;

/// What a version's sum does to the master state; a mesh has one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Outer {
    /// It is added.
    #[default]
    Sum,
    /// It goes through a momentum.
    Nesterov(Nesterov),
}

/// The factors of a momentum, Q16.16.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Nesterov {
    mu16: u32,
    eta16: u32,
}

impl Nesterov {
    /// What is recommended: mu 0.9, eta 0.2.
    pub const TUNED: Self = Self { mu16: 58_982, eta16: 13_107 };

    /// A momentum of `mu16` and a step of `eta16`, in units of 2^-16.
    pub const fn new(mu16: u32, eta16: u32) -> Result<Self, KernelError> {
        if mu16 >= ONE16 {
            return Err(KernelError::Factor { name: "outer_mu", value: mu16, min: 0, max: ONE16 - 1 });
        }
        if eta16 == 0 || eta16 > ONE16 {
            return Err(KernelError::Factor { name: "outer_eta", value: eta16, min: 1, max: ONE16 });
        }
        Ok(Self { mu16, eta16 })
    }

    /// How much of V stays from version to version.
    pub const fn mu16(self) -> u32 {
        self.mu16
    }

    /// How much of what comes out is done.
    pub const fn eta16(self) -> u32 {
        self.eta16
    }
}

/// Elements handled together.
const BLOCK: usize = 64;

/// Checks the shapes of [`apply_nesterov`].
#[inline(always)]
pub fn check_apply_nesterov(master: &[i64], momentum: &[i64], sum: &[i64]) -> Result<(), KernelError> {
    check_len("momentum", master.len(), momentum.len())?;
    check_len("sum", master.len(), sum.len())
}

/// One version's sum through the momentum into the master. On overflow the element stays at its limit and the whole range
/// is still done, as in [`crate::slot::apply`].
#[inline(always)]
pub fn apply_nesterov(
    factors: Nesterov,
    master: &mut [i64],
    momentum: &mut [i64],
    sum: &[i64],
) -> Result<(), KernelError> {
    check_apply_nesterov(master, momentum, sum)?;
    let mut first = None;
    let blocks = master.chunks_mut(BLOCK).zip(momentum.chunks_mut(BLOCK)).zip(sum.chunks(BLOCK));
    for (index, ((master, momentum), sum)) in blocks.enumerate() {
        if !narrow_block(factors, master, momentum, sum)
            && let Some(element) = wide_block(factors, master, momentum, sum)
        {
            first = first.or(Some(index * BLOCK + element));
        }
    }
    first.map_or(Ok(()), |element| Err(KernelError::Overflow { element }))
}

/// `value factor >> 16` for a factor of at most one: floor, exactly, and never outside 64 bits.
#[inline(always)]
const fn scaled(value: i64, factor: i64) -> i64 {
    // value = high 2^16 + low with low in 0..2^16: |high factor| <= 2^63 - 2^16, and both parts round down together.
    (value >> 16).wrapping_mul(factor).wrapping_add(((value & 0xFFFF) * factor) >> 16)
}

/// A block in 64 bits; false, and nothing written, where something does not fit.
#[inline(always)]
fn narrow_block(factors: Nesterov, master: &mut [i64], momentum: &mut [i64], sum: &[i64]) -> bool {
    let (mu, eta) = (i64::from(factors.mu16), i64::from(factors.eta16));
    let (mut states, mut velocities) = ([0i64; BLOCK], [0i64; BLOCK]);
    let mut excess = 0i64;
    let operands = master.iter().zip(momentum.iter()).zip(sum);
    let results = states.iter_mut().zip(&mut velocities);
    for (((&master, &momentum), &sum), (state, velocity)) in operands.zip(results) {
        // Negative where both terms have the sign that their sum lacks.
        let mut add = |one: i64, other: i64| {
            let wrapped = one.wrapping_add(other);
            excess |= (one ^ wrapped) & (other ^ wrapped);
            wrapped
        };
        *velocity = add(scaled(momentum, mu), sum);
        // (S 65536 + V mu) >> 16 is S + (V mu >> 16).
        let step = add(sum, scaled(*velocity, mu));
        *state = add(master, scaled(step, eta));
    }
    if excess < 0 {
        return false;
    }
    master.copy_from_slice(&states[..sum.len()]);
    momentum.copy_from_slice(&velocities[..sum.len()]);
    true
}

/// The definition, in 128 bits; the first element that stays at a limit.
#[inline(never)]
fn wide_block(factors: Nesterov, master: &mut [i64], momentum: &mut [i64], sum: &[i64]) -> Option<usize> {
    let (mu, eta) = (i128::from(factors.mu16), i128::from(factors.eta16));
    let mut first = None;
    for (element, ((master, momentum), &sum)) in master.iter_mut().zip(momentum).zip(sum).enumerate() {
        let sum = i128::from(sum);
        let (velocity, lost_velocity) = narrow(((i128::from(*momentum) * mu) >> 16) + sum);
        let step = ((((sum << 16) + i128::from(velocity) * mu) >> 16) * eta) >> 16;
        let (state, lost_state) = narrow(i128::from(*master) + step);
        (*momentum, *master) = (velocity, state);
        if lost_velocity || lost_state {
            first = first.or(Some(element));
        }
    }
    first
}

/// To 64 bits, and whether that lost something.
fn narrow(wide: i128) -> (i64, bool) {
    let held = wide.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    (held as i64, held != wide)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_constant_sum_comes_to_a_step_of_one_over_one_less_mu() {
        let (mut master, mut momentum) = ([0i64], [0i64]);
        let (sum, mut last) = (1i64 << 40, 0);
        for _ in 0..400 {
            last = master[0];
            apply_nesterov(Nesterov::TUNED, &mut master, &mut momentum, &[sum]).unwrap();
        }
        // eta (1 + mu / (1 - mu)) = 0.2 / 0.1.
        let step = (master[0] - last) as f64 / sum as f64;
        assert!((step - 2.0).abs() < 1e-3, "{step}");
    }

    #[test]
    fn shifts_round_down_on_both_sides_of_zero() {
        let half = Nesterov::new(32_768, 32_768).unwrap();
        for (v, s, velocity, step) in
            [(0, 1, 1, 0), (0, -1, -1, -1), (1, 0, 0, 0), (-1, 0, -1, -1), (-3, 5, 3, 3)]
        {
            let (mut master, mut momentum) = ([0i64], [v]);
            apply_nesterov(half, &mut master, &mut momentum, &[s]).unwrap();
            assert_eq!((momentum[0], master[0]), (velocity, step), "V {v}, S {s}");
        }
        // Without momentum and with a whole step it is the sum.
        let (mut master, mut momentum) = ([7i64, -7], [123, 456]);
        apply_nesterov(Nesterov::new(0, ONE16).unwrap(), &mut master, &mut momentum, &[i64::MAX - 7, -9])
            .unwrap();
        assert_eq!(master, [i64::MAX, -16]);
    }

    #[test]
    fn what_leaves_64_bits_stays_at_the_limit_and_is_told() {
        let (mut master, mut momentum) = ([0i64, i64::MAX, 5], [0i64, i64::MAX, 5]);
        let error =
            apply_nesterov(Nesterov::TUNED, &mut master, &mut momentum, &[1, i64::MAX, 1]).unwrap_err();
        assert_eq!(error, KernelError::Overflow { element: 1 });
        assert_eq!((master[1], momentum[1]), (i64::MAX, i64::MAX));
        assert!(momentum[2] == 5, "the rest is done: {momentum:?}");
        let short = apply_nesterov(Nesterov::TUNED, &mut [0; 2], &mut [0; 1], &[0; 2]);
        assert!(matches!(short, Err(KernelError::Length { what: "momentum", .. })));
    }

    #[test]
    fn factors_out_of_range_are_refused_by_name() {
        for (mu, eta, name) in [(ONE16, 1, "outer_mu"), (0, 0, "outer_eta"), (0, ONE16 + 1, "outer_eta")] {
            let error = Nesterov::new(mu, eta).unwrap_err();
            assert!(alloc::string::ToString::to_string(&error).contains(name), "{error}");
        }
        assert_eq!(Nesterov::new(58_982, 13_107), Ok(Nesterov::TUNED));
    }

    #[test]
    fn a_block_in_64_bits_is_the_block_in_128() {
        let extremes =
            [i64::MIN, i64::MIN + 1, -65_537, -65_536, -65_535, -1, 0, 1, 65_535, 65_536, 1 << 62, i64::MAX];
        let mut narrow_blocks = 0;
        for (mu, eta) in [(58_982, 13_107), (65_535, ONE16), (0, ONE16), (1, 1), (32_768, 3)] {
            let factors = Nesterov::new(mu, eta).unwrap();
            for g in extremes {
                for v in extremes {
                    for s in extremes {
                        let (mut wide, mut wide_v) = ([g], [v]);
                        let lost = wide_block(factors, &mut wide, &mut wide_v, &[s]);
                        let (mut found, mut found_v) = ([g], [v]);
                        if narrow_block(factors, &mut found, &mut found_v, &[s]) {
                            narrow_blocks += 1;
                            assert_eq!(
                                (found, found_v, lost),
                                (wide, wide_v, None),
                                "{factors:?}: {g} {v} {s}"
                            );
                        } else {
                            assert_eq!((found, found_v), ([g], [v]), "nothing is written");
                        }
                    }
                }
            }
        }
        assert!(narrow_blocks > 5 * 12 * 12 * 6, "{narrow_blocks}");
    }

    proptest! {
        /// The words of the specification, with wide numbers and no shifts.
        #[test]
        fn the_formula_is_the_specifications(g in -(1i64 << 60)..1 << 60, v in -(1i64 << 58)..1 << 58,
            s in -(1i64 << 54)..1 << 54, mu in 0u32..ONE16, eta in 1u32..=ONE16) {
            let (mut master, mut momentum) = ([g], [v]);
            apply_nesterov(Nesterov::new(mu, eta).unwrap(), &mut master, &mut momentum, &[s]).unwrap();
            let wide = |n: i64| i128::from(n);
            let velocity = (wide(v) * i128::from(mu)).div_euclid(65_536) + wide(s);
            let inner = (wide(s) * 65_536 + velocity * i128::from(mu)).div_euclid(65_536);
            let step = (inner * i128::from(eta)).div_euclid(65_536);
            prop_assert_eq!((wide(momentum[0]), wide(master[0])), (velocity, wide(g) + step));
        }
    }
}
