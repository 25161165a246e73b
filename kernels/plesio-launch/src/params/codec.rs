//! Parameters of `codec.h`. Codes begin at multiples of four bytes.

use super::params;
use crate::DeviceAddress;
use crate::kernel::CONTRIBUTIONS_MAX;

params! {
    /// `codes = input + residue`; the residue keeps what the receiver will not see.
    pub struct Encode {
        /// f32, `len`.
        pub input: DeviceAddress,
        /// f32, `len`; none where what is left is dropped.
        pub residue: DeviceAddress,
        /// Bytes of `len` elements.
        pub codes: DeviceAddress,
        /// A report: an element of a block that will not decode to finite values.
        pub not_finite: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// Of the operation.
        pub seed: u64,
        /// The range's first block in its tensor.
        pub first_block: u64,
        /// Whether the values begin at multiples of 16 bytes; where a codec has no blocks, the codes as well.
        pub aligned: u32,
        /// Nothing.
        pub pad: u32,
    }

    /// `out =` what codes say, or `+=` that.
    pub struct Decode {
        /// Bytes of `len` elements.
        pub codes: DeviceAddress,
        /// f32, `len`.
        pub out: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// As for [`Encode`].
        pub aligned: u32,
        /// Nothing.
        pub pad: u32,
    }

    /// `codes = slot`.
    pub struct EncodeSlot {
        /// i32, `len`.
        pub slot: DeviceAddress,
        /// Bytes of `len` elements.
        pub codes: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// Of the operation.
        pub seed: u64,
        /// The range's first block in its tensor.
        pub first_block: u64,
        /// As for [`Encode`].
        pub aligned: u32,
        /// Nothing.
        pub pad: u32,
    }

    /// `slot =` what codes say.
    pub struct DecodeSlot {
        /// Bytes of `len` elements.
        pub codes: DeviceAddress,
        /// i32, `len`.
        pub slot: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// As for [`Encode`].
        pub aligned: u32,
        /// Nothing.
        pub pad: u32,
    }

    /// `sum[e] = w_0 q_0[e] + w_1 q_1[e] + ...` of encoded slots.
    pub struct CodedSum {
        /// Bytes of `len` elements each.
        pub slots: [DeviceAddress; CONTRIBUTIONS_MAX],
        /// 24 fraction bits.
        pub weights: [u32; CONTRIBUTIONS_MAX],
        /// i64, `len`.
        pub sum: DeviceAddress,
        /// Elements.
        pub len: u64,
        /// Contributions.
        pub count: u32,
        /// As for [`Encode`].
        pub aligned: u32,
    }
}
