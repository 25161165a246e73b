//! Little-endian reading and writing with every range checked; no allocation, no panic.

use core::fmt;

/// Why bytes are not a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes than the layout needs.
    Short,
    /// Bytes left over behind the last field.
    Trailing,
    /// A field holds a value outside its range; the name says which.
    Field(&'static str),
    /// A checksum does not match its bytes.
    Checksum,
    /// Not ours: the magic differs.
    Magic,
    /// A layout version that we do not speak.
    Version(u8),
    /// A message type that we do not know.
    Kind(u8),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("datagram too short"),
            Self::Trailing => f.write_str("bytes behind the last field"),
            Self::Field(name) => write!(f, "field {name} out of range"),
            Self::Checksum => f.write_str("checksum mismatch"),
            Self::Magic => f.write_str("wrong magic"),
            Self::Version(version) => write!(f, "unknown version {version}"),
            Self::Kind(kind) => write!(f, "unknown type {kind}"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Takes fields off the front of received bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`] when there are fewer.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.bytes.split_at_checked(count).ok_or(DecodeError::Short)?;
        self.bytes = rest;
        Ok(head)
    }

    /// The next value.
    ///
    /// # Errors
    /// As the type's decoder.
    pub fn read<T: Wire>(&mut self) -> Result<T, DecodeError> {
        T::decode(self)
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// Accepts only the end.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] when bytes are left.
    pub const fn finish(&self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

/// Appends fields to a caller's buffer; the buffer's length is the bound.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    len_bytes: usize,
}

impl<'a> Writer<'a> {
    /// Writes from the start of `bytes`.
    pub const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, len_bytes: 0 }
    }

    /// Appends raw bytes.
    ///
    /// # Panics
    /// When the buffer is full: every layout is bounded, so the caller sized it wrong.
    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.len_bytes + bytes.len();
        self.bytes[self.len_bytes..end].copy_from_slice(bytes);
        self.len_bytes = end;
    }

    /// Appends a value.
    pub fn write<T: Wire>(&mut self, value: &T) {
        value.encode(self);
    }

    /// Bytes written so far.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

/// A value with one layout on the wire.
pub trait Wire: Sized {
    /// Appends the layout.
    fn encode(&self, writer: &mut Writer<'_>);
    /// Takes the layout off the front.
    ///
    /// # Errors
    /// When the bytes are short or a field is out of range.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

macro_rules! integer {
    ($($name:ty),*) => { $(
        impl Wire for $name {
            fn encode(&self, writer: &mut Writer<'_>) {
                writer.put(&self.to_le_bytes());
            }
            fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let mut bytes = [0; size_of::<$name>()];
                bytes.copy_from_slice(reader.take(size_of::<$name>())?);
                Ok(Self::from_le_bytes(bytes))
            }
        }
    )* };
}
integer!(u8, u16, u32, u64, i8, i16, i32, i64);

impl<const N: usize> Wire for [u8; N] {
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.put(self);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(reader.take(N)?);
        Ok(bytes)
    }
}

/// Bytes that must be zero; room for later fields.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pad<const N: usize>;

impl<const N: usize> Wire for Pad<N> {
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.put(&[0; N]);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.take(N)?.iter().all(|byte| *byte == 0) { Ok(Self) } else { Err(DecodeError::Field("pad")) }
    }
}

/// A word around one integer.
macro_rules! newtype {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub $inner);

        impl $crate::codec::Wire for $name {
            fn encode(&self, writer: &mut $crate::codec::Writer<'_>) {
                self.0.encode(writer);
            }
            fn decode(reader: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                reader.read().map(Self)
            }
        }
    };
}
pub(crate) use newtype;

/// A body whose layout is its field list, in order.
macro_rules! layout {
    ($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $type,)* }

        impl $crate::codec::Wire for $name {
            fn encode(&self, writer: &mut $crate::codec::Writer<'_>) {
                $(self.$field.encode(writer);)*
            }
            fn decode(reader: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                Ok(Self { $($field: reader.read()?,)* })
            }
        }
    };
}
pub(crate) use layout;
