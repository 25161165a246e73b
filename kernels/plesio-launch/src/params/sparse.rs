//! Parameters of `sparse.h`.

use super::params;
use crate::DeviceAddress;

/// Bins of a count of elements by their next bits.
const BINS: usize = 2048;

params! {
    /// What the kernels of a selection leave for those after them; the host has to know how much it is.
    pub struct TopWork {
        /// How many elements have which next bits.
        pub bins: [u32; BINS],
        /// The highest bits of what is marked at least.
        pub floor: u32,
        /// The highest bits of the last wanted element, as far as they are known.
        pub prefix: u32,
        /// Which one it is among those that begin so.
        pub wanted: u32,
        /// Whether the floor was too high.
        pub all: u32,
        /// Blocks that have ended.
        pub arrivals: u32,
        /// Nothing.
        pub pad: u32,
    }

    /// The `count` elements of largest magnitude.
    pub struct TopK {
        /// f32, `len`.
        pub x: DeviceAddress,
        /// u32, `count`.
        pub indices: DeviceAddress,
        /// f32, `count`.
        pub values: DeviceAddress,
        /// A [`TopWork`].
        pub work: DeviceAddress,
        /// u32, 256 a block.
        pub marks: DeviceAddress,
        /// u32, 256 a block.
        pub ties: DeviceAddress,
        /// u32, one a block.
        pub counts: DeviceAddress,
        /// u32, two a block.
        pub before: DeviceAddress,
        /// Elements, less than 2^32.
        pub len: u64,
        /// Wanted elements.
        pub count: u32,
        /// Bits that are known when a level begins.
        pub known: u32,
        /// Whether `x` begins at a multiple of 16 bytes.
        pub aligned: u32,
        /// Nothing.
        pub pad: u32,
    }
}
