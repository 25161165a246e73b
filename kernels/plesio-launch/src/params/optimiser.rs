//! Parameters of `optimiser.h`.

use super::params;
use crate::DeviceAddress;

params! {
    /// One step of AdamW.
    pub struct AdamW {
        /// f32, `len`.
        pub gradient: DeviceAddress,
        /// f32, `len`.
        pub mean: DeviceAddress,
        /// f32, `len`.
        pub variance: DeviceAddress,
        /// f32, `len`.
        pub params: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// Of the gradient.
        pub gradient_scale: f32,
        /// Decay of the first moment.
        pub beta1: f32,
        /// 1 - beta1.
        pub gain1: f32,
        /// Decay of the second moment.
        pub beta2: f32,
        /// 1 - beta2.
        pub gain2: f32,
        /// The second moment's correction, as a factor.
        pub inv_correction2: f32,
        /// Floor under the root of the second moment.
        pub epsilon: f32,
        /// The learning rate, corrected.
        pub rate: f32,
        /// What is added of a parameter to itself.
        pub decay: f32,
        /// Whether every buffer begins at a multiple of 16 bytes.
        pub aligned: u32,
    }
}
