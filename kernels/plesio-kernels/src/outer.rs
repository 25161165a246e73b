//! The outer step: what a version's weighted sum does to the master state.
//!
//! With `Sum` it is added. With `Nesterov` it goes through a momentum V beside the master G, in fixed point with 16 bits for
//! the two factors, shifts rounding down, 128 bits between: only integers meet, so all members hold the same V and G.
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

/// To 64 bits, and whether that lost something.
#[inline(always)]
fn narrow(wide: i128) -> (i64, bool) {
    let held = wide.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    (held as i64, held != wide)
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
    check_len("momentum", master.len(), momentum.len())?;
    check_len("sum", master.len(), sum.len())?;
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
    first.map_or(Ok(()), |element| Err(KernelError::Overflow { element }))
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
