//! The mesh clock as a line over the local clock: what every thread of a node holds a copy of.

use plesio_wire::{Instant, MeshTime};

/// How well the mesh clock is known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ClockState {
    /// Never locked since the last entry.
    #[default]
    Acquire,
    /// Enough sources agree.
    Locked,
    /// Runs on its last rate.
    Holdover,
}

/// M(C) = `base_mesh` + (C - `base_local`) (1 + `rate_ppb` / 10^9).
///
/// A newer line meets the older one where it starts, so M never steps back for one who takes lines in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MeshClock {
    /// Where the line starts, local clock.
    pub base_local: Instant,
    /// Where the line starts, mesh clock.
    pub base_mesh: MeshTime,
    /// dM/dC - 1, the slew in progress included.
    pub rate_ppb: i32,
    /// Bound on the error until `sure_until`; never 0; `u32::MAX` without a clock.
    pub eps_ns: u32,
    /// From then on, local clock, the bound grows by `growth_ppb`: the next line should have come by then.
    pub sure_until: Instant,
    /// How much faster than told M and the truth may part.
    pub growth_ppb: u32,
    /// Whether it was locked once since entry; stays true in holdover.
    pub usable: bool,
    /// How well it is known now.
    pub state: ClockState,
}

impl Default for MeshClock {
    fn default() -> Self {
        Self {
            base_local: Instant::default(),
            base_mesh: MeshTime::default(),
            rate_ppb: 0,
            eps_ns: u32::MAX,
            sure_until: Instant::default(),
            growth_ppb: 0,
            usable: false,
            state: ClockState::Acquire,
        }
    }
}

impl MeshClock {
    /// Mesh time at a local moment.
    #[must_use]
    pub fn at(&self, local: Instant) -> MeshTime {
        let elapsed = i128::from(local.0) - i128::from(self.base_local.0);
        let drift = (elapsed * i128::from(self.rate_ppb)).div_euclid(BILLION);
        MeshTime(saturate(i128::from(self.base_mesh.0) + elapsed + drift))
    }

    /// Bound on the error at a local moment, also where a busy machine brings no newer line (as the root dispersion of
    /// RFC 5905, 11.1, grows with the age of what it rests on).
    #[must_use]
    pub fn bound_at(&self, local: Instant) -> u32 {
        let late_ns = u128::from(local.since(self.sure_until));
        let growth_ns = late_ns * u128::from(self.growth_ppb) / BILLION.unsigned_abs();
        self.eps_ns.saturating_add(u32::try_from(growth_ns).unwrap_or(u32::MAX))
    }

    /// First local moment at which the mesh clock shows `mesh` or more; the earliest one when that lies before it.
    #[must_use]
    pub fn local_of(&self, mesh: MeshTime) -> Instant {
        let ahead = i128::from(mesh.0) - i128::from(self.base_mesh.0);
        let slope = BILLION + i128::from(self.rate_ppb.max(-999_999_999));
        let elapsed = -(-ahead * BILLION).div_euclid(slope);
        let local = (i128::from(self.base_local.0) + elapsed).clamp(0, i128::from(u64::MAX));
        Instant(u64::try_from(local).unwrap_or(u64::MAX))
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

const BILLION: i128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_line_can_be_read_both_ways(
            base_local in 0..1u64 << 62, base_mesh in -(1i64 << 60)..1 << 60, rate_ppb in -2_500_000..2_500_000i32,
            ahead in -(1i64 << 50)..1 << 50,
        ) {
            let clock = MeshClock {
                base_local: Instant(base_local), base_mesh: MeshTime(base_mesh), rate_ppb, ..MeshClock::default()
            };
            let mesh = MeshTime(base_mesh + ahead);
            let local = clock.local_of(mesh);
            prop_assume!(local.0 > 1);
            prop_assert!(clock.at(local) >= mesh);
            prop_assert!(clock.at(Instant(local.0 - 2)) < mesh);
        }

        #[test]
        fn no_line_panics(a: u64, b: i64, rate_ppb: i32, local: u64, mesh: i64) {
            let clock = MeshClock { base_local: Instant(a), base_mesh: MeshTime(b), rate_ppb, ..MeshClock::default() };
            let _ = (clock.at(Instant(local)), clock.local_of(MeshTime(mesh)));
        }
    }
}
