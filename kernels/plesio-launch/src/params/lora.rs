//! Parameters of `lora_shrink.h`, `lora_expand.h` and `lora_outer.h`, the same for binary32 and bfloat16, and of
//! `lora_grouped.h`.

use super::params;
use crate::DeviceAddress;

params! {
    /// `out[t][k] = scale * dot(x[t], factors[k])`
    pub struct Shrink for "Shrink<float>", "Shrink<u16>" {
        /// Rows of `width`, `x_stride` apart.
        pub x: DeviceAddress,
        /// Rank x width.
        pub factors: DeviceAddress,
        /// f32, rows of `rank`, `out_stride` apart.
        pub out: DeviceAddress,
        /// Elements.
        pub width: u64,
        /// Elements.
        pub x_stride: u64,
        /// Elements.
        pub out_stride: u64,
        /// Rows of x.
        pub rows: u32,
        /// Rows of the factors.
        pub rank: u32,
        /// Of every result.
        pub scale: f32,
        /// Whether every row of x and of the factors begins at a multiple of 16 bytes.
        pub aligned: u32,
    }

    /// `to[t] = from[t] + sum over k of (scale * coefficients[t][k]) * factors[k]`
    pub struct Expand for "Expand<float>", "Expand<u16>" {
        /// f32, of row t and rank k at `t * row_stride + k * rank_stride`.
        pub coefficients: DeviceAddress,
        /// Rank x width.
        pub factors: DeviceAddress,
        /// Rows x width.
        pub from: DeviceAddress,
        /// Rows x width; may be `from`.
        pub to: DeviceAddress,
        /// Elements.
        pub width: u64,
        /// Elements.
        pub row_stride: u64,
        /// Elements.
        pub rank_stride: u64,
        /// Rows of `to`.
        pub rows: u32,
        /// Rows of the factors, at most 64.
        pub rank: u32,
        /// Of every coefficient.
        pub scale: f32,
        /// Whether every row of the factors, of `from` and of `to` begins at a multiple of 16 bytes.
        pub aligned: u32,
    }

    /// `out[k] += sum over t of (scale * coefficients[t][k]) * x[t]`
    pub struct Outer for "Outer<float>", "Outer<u16>" {
        /// f32, rows of `rank`, `coefficients_stride` apart.
        pub coefficients: DeviceAddress,
        /// Rows of `width`, `x_stride` apart.
        pub x: DeviceAddress,
        /// f32, rank x width.
        pub out: DeviceAddress,
        /// Rows of x, at least one.
        pub rows: u64,
        /// Elements.
        pub width: u64,
        /// Elements.
        pub coefficients_stride: u64,
        /// Elements.
        pub x_stride: u64,
        /// Rows of `out`.
        pub rank: u32,
        /// Of every coefficient.
        pub scale: f32,
        /// Whether every row of x begins and ends at a multiple of 16 bytes.
        pub aligned: u32,
        /// Nothing.
        pub pad: u32,
    }

    /// A row of [`Grouped`] and its adapter.
    pub struct GroupedRow {
        /// bfloat16, rank x d_in.
        pub a: DeviceAddress,
        /// bfloat16, rank x d_out.
        pub b: DeviceAddress,
        /// Which row of x and y.
        pub row: u64,
        /// At most 64.
        pub rank: u32,
        /// The adapter's.
        pub scale: f32,
    }

    /// `y[t] += s B (A x[t])` with the row's own adapter.
    pub struct Grouped {
        /// A [`GroupedRow`] for each row that has an adapter.
        pub rows: DeviceAddress,
        /// bfloat16, rows of d_in.
        pub x: DeviceAddress,
        /// bfloat16, rows of d_out.
        pub y: DeviceAddress,
        /// Elements.
        pub d_in: u64,
        /// Elements.
        pub d_out: u64,
        /// Blocks of a row: one for each 1024 columns.
        pub slices: u32,
        /// Whether every row of x, of y and of the factors begins at a multiple of 16 bytes.
        pub aligned: u32,
    }
}
