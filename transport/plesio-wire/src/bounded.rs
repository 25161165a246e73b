//! A short list with its capacity in the type, so that decoding a count never allocates.

use crate::codec::{DecodeError, Reader, Wire, Writer};
use core::fmt;
use core::ops::{Deref, DerefMut};

/// At most `CAP` items, stored in place. On the wire: u16 count, then the items.
#[derive(Clone, Copy)]
pub struct Bounded<T, const CAP: usize> {
    items: [T; CAP],
    len: usize,
}

impl<T: Copy + Default, const CAP: usize> Bounded<T, CAP> {
    /// Appends `item`.
    ///
    /// # Errors
    /// The item itself when the list is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.len == CAP {
            return Err(item);
        }
        self.items[self.len] = item;
        self.len += 1;
        Ok(())
    }

    /// The first items of `items`, at most `CAP`.
    #[must_use]
    pub fn from_slice(items: &[T]) -> Self {
        let mut list = Self::default();
        for item in items.iter().take(CAP) {
            let _ = list.push(*item);
        }
        list
    }

    /// Reads exactly `count` items that follow without a count of their own.
    ///
    /// # Errors
    /// [`DecodeError::Field`] when `count` exceeds the capacity.
    pub(crate) fn decode_counted(reader: &mut Reader<'_>, count: usize) -> Result<Self, DecodeError>
    where
        T: Wire,
    {
        if count > CAP {
            return Err(DecodeError::Field("count"));
        }
        let mut list = Self::default();
        for slot in &mut list.items[..count] {
            *slot = reader.read()?;
        }
        list.len = count;
        Ok(list)
    }
}

impl<T: Copy + Default, const CAP: usize> Default for Bounded<T, CAP> {
    fn default() -> Self {
        Self { items: [T::default(); CAP], len: 0 }
    }
}

impl<T, const CAP: usize> Deref for Bounded<T, CAP> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.items[..self.len]
    }
}

impl<T, const CAP: usize> DerefMut for Bounded<T, CAP> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.items[..self.len]
    }
}

impl<T: PartialEq, const CAP: usize> PartialEq for Bounded<T, CAP> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq, const CAP: usize> Eq for Bounded<T, CAP> {}

impl<T: fmt::Debug, const CAP: usize> fmt::Debug for Bounded<T, CAP> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: Copy + Default + Wire, const CAP: usize> Wire for Bounded<T, CAP> {
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.write(&(self.len as u16));
        for item in self.iter() {
            writer.write(item);
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count: u16 = reader.read()?;
        Self::decode_counted(reader, usize::from(count))
    }
}
