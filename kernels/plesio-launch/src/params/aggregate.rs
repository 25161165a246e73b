//! Parameters of `aggregate.h`.

use super::params;
use crate::DeviceAddress;
use crate::kernel::CONTRIBUTIONS_MAX;

params! {
    /// `sum[e] = w_0 x_0[e] + w_1 x_1[e] + ...`; one partial sum of squares a chunk.
    pub struct WeightedSum {
        /// f32 or bf16, `len` each.
        pub inputs: [DeviceAddress; CONTRIBUTIONS_MAX],
        /// One for each input.
        pub weights: [f32; CONTRIBUTIONS_MAX],
        /// f32, `len`.
        pub sum: DeviceAddress,
        /// f32, one a chunk.
        pub partials: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// Contributions.
        pub count: u32,
        /// Whether every buffer begins at a multiple of 16 bytes.
        pub aligned: u32,
    }

    /// The same of codes of eight bits with a scale for each block of 32.
    pub struct WeightedSumQ8 {
        /// i8, `len` each.
        pub codes: [DeviceAddress; CONTRIBUTIONS_MAX],
        /// binary16, one a block each.
        pub scales: [DeviceAddress; CONTRIBUTIONS_MAX],
        /// One for each input.
        pub weights: [f32; CONTRIBUTIONS_MAX],
        /// f32, `len`.
        pub sum: DeviceAddress,
        /// f32, one a chunk.
        pub partials: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// Contributions.
        pub count: u32,
        /// Whether codes and sum begin at multiples of 16 bytes.
        pub aligned: u32,
    }

    /// The partial sums of squares of some vectors of one length, those of one vector after those of another.
    pub struct SquareNorms {
        /// f32, `len` each.
        pub inputs: [DeviceAddress; CONTRIBUTIONS_MAX],
        /// f32, `chunks` for each vector.
        pub partials: DeviceAddress,
        /// Elements of one vector.
        pub len: u64,
        /// Chunks of one vector.
        pub chunks: u32,
        /// Blocks of one vector.
        pub blocks: u32,
        /// Whether every vector begins at a multiple of 16 bytes.
        pub aligned: u32,
        /// Nothing.
        pub pad: u32,
    }

    /// The square norms of which these are the partial sums.
    pub struct FoldNorms {
        /// f32, `chunks` for each vector.
        pub partials: DeviceAddress,
        /// f64, one for each vector.
        pub norms: DeviceAddress,
        /// Chunks of one vector.
        pub chunks: u64,
    }
}
