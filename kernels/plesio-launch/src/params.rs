//! The parameters of each kernel: the Rust twins of the structs in `kernels/source`, the same bytes.
//!
//! A family stands in a file of its own, as one list in `params!`, and has its line in [`LAYOUTS`]; a test has a C++
//! compiler compare all of these with the structs of the same names, and finds the kernel whose struct is missing
//! here.

mod codec;
mod slot;

pub use codec::{CodedSum, Decode, DecodeSlot, Encode, EncodeSlot};
pub use slot::{Apply, ApplyNesterov, Commit, Dequantise, Merge, Quantise, SlotSum, ToFloat};

/// Every struct, by family.
pub const LAYOUTS: &[&[Layout]] = &[codec::LAYOUTS, slot::LAYOUTS];

/// Where the fields of a struct lie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout {
    /// Its name, here and in C++.
    pub name: &'static str,
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

/// Defines structs as C++ lays them out, and `LAYOUTS` of them.
macro_rules! params {
    ($(
        $(#[$doc:meta])*
        pub struct $name:ident {
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
            name: stringify!($name),
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
