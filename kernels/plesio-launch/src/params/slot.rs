//! Parameters of `slot.h`.

use super::params;
use crate::DeviceAddress;
use crate::kernel::CONTRIBUTIONS_MAX;

params! {
    /// `sum[e] = w_0 q_0[e] + w_1 q_1[e] + ...`
    pub struct SlotSum {
        /// i32, `len` each.
        pub slots: [DeviceAddress; CONTRIBUTIONS_MAX],
        /// 24 fraction bits.
        pub weights: [u32; CONTRIBUTIONS_MAX],
        /// i64, `len`.
        pub sum: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// Contributions.
        pub count: u32,
        /// Whether every buffer begins at a multiple of 16 bytes.
        pub aligned: u32,
    }

    /// `master[e] += w_0 q_0[e] + w_1 q_1[e] + ...`, saturating.
    pub struct Commit {
        /// i32, `len` each.
        pub slots: [DeviceAddress; CONTRIBUTIONS_MAX],
        /// 24 fraction bits.
        pub weights: [u32; CONTRIBUTIONS_MAX],
        /// i64, `len`.
        pub master: DeviceAddress,
        /// A report: the first element that saturates.
        pub overflow: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// Contributions.
        pub count: u32,
        /// Whether every buffer begins at a multiple of 16 bytes.
        pub aligned: u32,
    }

    /// `master[e] += sum[e]`, saturating.
    pub struct Apply {
        /// i64, `len`.
        pub master: DeviceAddress,
        /// i64, `len`.
        pub sum: DeviceAddress,
        /// A report: the first element that saturates.
        pub overflow: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// Whether every buffer begins at a multiple of 16 bytes.
        pub aligned: u32,
        /// Nothing.
        pub pad: u32,
    }

    /// One version's sum through the momentum into the master, both saturating.
    pub struct ApplyNesterov {
        /// i64, `len`.
        pub master: DeviceAddress,
        /// i64, `len`.
        pub momentum: DeviceAddress,
        /// i64, `len`.
        pub sum: DeviceAddress,
        /// A report: the first element that saturates.
        pub overflow: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// In units of 2^-16, below one.
        pub momentum_factor: u32,
        /// In units of 2^-16, at most one.
        pub step_factor: u32,
        /// Whether every buffer begins at a multiple of 16 bytes.
        pub aligned: u32,
        /// Nothing.
        pub pad: u32,
    }

    /// `slot[e] = (update[e] + residue[e]) 2^exponent`, held in the slot's range; the residue keeps the rest.
    pub struct Quantise {
        /// f32, `len`; none for `quantise_residue`.
        pub update: DeviceAddress,
        /// f32, `len`.
        pub residue: DeviceAddress,
        /// i32, `len`.
        pub slot: DeviceAddress,
        /// A report: the first element that is NaN or infinite.
        pub not_finite: DeviceAddress,
        /// A count: elements that left the range.
        pub clamped: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// Fraction bits of the slot.
        pub exponent: i32,
        /// Whether every buffer begins at a multiple of 16 bytes.
        pub aligned: u32,
    }

    /// `out[e] = slot[e] 2^-exponent`.
    pub struct Dequantise {
        /// i32, `len`.
        pub slot: DeviceAddress,
        /// f32, `len`.
        pub out: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// Fraction bits of the slot.
        pub exponent: i32,
        /// Whether every buffer begins at a multiple of 16 bytes.
        pub aligned: u32,
    }

    /// `out[e] = master[e] 2^-exponent`.
    pub struct ToFloat {
        /// i64, `len`.
        pub master: DeviceAddress,
        /// f32, `len`.
        pub out: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// Fraction bits of the master.
        pub exponent: i32,
        /// Whether every buffer begins at a multiple of 16 bytes.
        pub aligned: u32,
    }

    /// `into[e] += from[e]`; what leaves the slot's range is added to the residue, times `2^-exponent`.
    pub struct Merge {
        /// i32, `len`.
        pub into: DeviceAddress,
        /// i32, `len`.
        pub from: DeviceAddress,
        /// f32, `len`.
        pub residue: DeviceAddress,
        /// A count: elements of which something left.
        pub excess: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// Fraction bits of the slot.
        pub exponent: i32,
        /// Whether every buffer begins at a multiple of 16 bytes.
        pub aligned: u32,
    }
}
