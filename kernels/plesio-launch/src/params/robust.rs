//! Parameters of `robust.h`.

use super::params;
use crate::DeviceAddress;
use crate::kernel::CONTRIBUTIONS_MAX;

params! {
    /// `out[e]` is the mean of what is left of element e of the inputs without the extremes: `factor` times the sum, from
    /// `start` on, of `share` times each.
    pub struct Robust {
        /// f32, `len` each.
        pub inputs: [DeviceAddress; CONTRIBUTIONS_MAX],
        /// f32, `len`.
        pub out: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// 0, or -0 where what is left may be a single -0.
        pub start: f32,
        /// Of each that is left.
        pub share: f32,
        /// Of their sum.
        pub factor: f32,
        /// How many go on each side.
        pub trim: u32,
        /// Inputs, at most the lanes of the kernel.
        pub count: u32,
        /// Whether every buffer begins at a multiple of 16 bytes.
        pub aligned: u32,
    }
}
