//! Parameters of `q8.h`.

use super::params;
use crate::DeviceAddress;

params! {
    /// Codes and scales of `input + residue`; the residue becomes what they do not say.
    pub struct QuantiseQ8 {
        /// f32, `len`.
        pub input: DeviceAddress,
        /// f32, `len`.
        pub residue: DeviceAddress,
        /// i8, `len`.
        pub codes: DeviceAddress,
        /// binary16, one for each 32 elements.
        pub scales: DeviceAddress,
        /// A report: the first element of a block that is not finite.
        pub wrong: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// Whether input, residue and codes begin at multiples of 16 bytes.
        pub aligned: u32,
        /// Nothing.
        pub pad: u32,
    }

    /// What codes and scales say.
    pub struct DequantiseQ8 {
        /// i8, `len`.
        pub codes: DeviceAddress,
        /// binary16, one for each 32 elements.
        pub scales: DeviceAddress,
        /// f32, `len`.
        pub out: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// Whether codes and out begin at multiples of 16 bytes.
        pub aligned: u32,
        /// Nothing.
        pub pad: u32,
    }
}
