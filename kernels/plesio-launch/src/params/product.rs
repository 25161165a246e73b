//! Parameters of `product.h`.

use super::params;
use crate::DeviceAddress;

params! {
    /// `y = weights x + scale B (A x)` of one x.
    pub struct ProductQ8 {
        /// i8, d_out x d_in.
        pub codes: DeviceAddress,
        /// binary16, one for each 32 codes.
        pub scales: DeviceAddress,
        /// bfloat16, d_in.
        pub x: DeviceAddress,
        /// bfloat16, rank x d_in.
        pub a: DeviceAddress,
        /// bfloat16, rank x d_out.
        pub b: DeviceAddress,
        /// f32, d_out.
        pub y: DeviceAddress,
        /// Elements, a multiple of 32.
        pub d_in: u64,
        /// Elements.
        pub d_out: u64,
        /// 0 without an adapter, at most 64.
        pub rank: u32,
        /// The adapter's.
        pub scale: f32,
        /// Whether codes, x and A begin at multiples of 16 bytes.
        pub aligned: u32,
        /// Nothing.
        pub pad: u32,
    }
}
