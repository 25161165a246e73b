//! The parameters of each kernel: the Rust twins of the structs in `kernels/source`, the same bytes.
//!
//! A family stands in a file of its own, as one list in `params!`, and has its line in [`LAYOUTS`]; a test has a C++
//! compiler compare all of these with the structs of the same names, and finds the kernel whose struct is missing
//! here.

mod aggregate;
mod codec;
mod lora;
mod optimiser;
mod product;
mod q8;
mod robust;
mod slot;
mod sparse;
mod vote;

pub use aggregate::{FoldNorms, SquareNorms, WeightedSum, WeightedSumQ8};
pub use codec::{CodedSum, Decode, DecodeSlot, Encode, EncodeSlot};
pub use lora::{Expand, Grouped, GroupedRow, Outer, Shrink};
pub use optimiser::AdamW;
pub use product::ProductQ8;
pub use q8::{DequantiseQ8, QuantiseQ8};
pub use robust::Robust;
pub use slot::{Apply, ApplyNesterov, Commit, Dequantise, Merge, Quantise, SlotSum, ToFloat};
pub use sparse::{TopK, TopWork};
pub use vote::{SignPack, SignVote};

/// Every struct, by family.
pub const LAYOUTS: &[&[Layout]] = &[
    aggregate::LAYOUTS,
    codec::LAYOUTS,
    lora::LAYOUTS,
    optimiser::LAYOUTS,
    product::LAYOUTS,
    q8::LAYOUTS,
    robust::LAYOUTS,
    slot::LAYOUTS,
    sparse::LAYOUTS,
    vote::LAYOUTS,
];

/// Where the fields of a struct lie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout {
    /// Its names in C++: its own, or those of a template for each type that it is made for.
    pub names: &'static [&'static str],
    /// Its length.
    pub len_bytes: usize,
    /// All of its fields.
    pub fields: &'static [Field],
}

/// Where a field lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Field {
    /// Its name, here and in C++.
    pub name: &'static str,
    /// From the beginning of the struct.
    pub offset_bytes: usize,
    /// Its length.
    pub len_bytes: usize,
}

/// Defines structs as C++ lays them out, and `LAYOUTS` of them. `for` names what a C++ template is made for.
macro_rules! params {
    (@names $name:ident) => { &[stringify!($name)] };
    (@names $name:ident $($made:literal),+) => { &[$($made),+] };
    ($(
        $(#[$doc:meta])*
        pub struct $name:ident $(for $($made:literal),+)? {
            $($(#[$field_doc:meta])* pub $field:ident: $type:ty,)*
        }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
            #[repr(C)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $type,)*
            }
        )*

        pub(super) const LAYOUTS: &[super::Layout] = &[$(super::Layout {
            names: params!(@names $name $($($made),+)?),
            len_bytes: size_of::<$name>(),
            fields: &[$(super::Field {
                name: stringify!($field),
                offset_bytes: std::mem::offset_of!($name, $field),
                len_bytes: size_of::<$type>(),
            }),*],
        }),*];
    };
}
use params;
