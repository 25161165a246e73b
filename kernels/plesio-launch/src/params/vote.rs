//! Parameters of `vote.h`.

use super::params;
use crate::DeviceAddress;
use crate::kernel::CONTRIBUTIONS_MAX;

params! {
    /// The sign bits of all elements.
    pub struct SignPack {
        /// f32, `len`.
        pub x: DeviceAddress,
        /// u32, one for each 32 elements.
        pub words: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// Whether `x` begins at a multiple of 16 bytes.
        pub aligned: u32,
        /// Nothing.
        pub pad: u32,
    }

    /// The majority of each bit.
    pub struct SignVote {
        /// u32, `len` each.
        pub votes: [DeviceAddress; CONTRIBUTIONS_MAX],
        /// u32, `len`.
        pub out: DeviceAddress,
        /// Words.
        pub len: u64,
        /// Votes.
        pub count: u32,
        /// Whether every buffer begins at a multiple of 16 bytes.
        pub aligned: u32,
    }
}
