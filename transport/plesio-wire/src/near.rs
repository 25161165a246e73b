//! What nodes of one host say to each other about memory instead of sending its bytes: messages of 32 bytes, little
//! endian, in place of a payload or beside it.
//!
//! ```text
//! notice:  0 magic "PLNT" | 4 generation u32 | 8 arena u64 | 16 region u16 | 18 zero u16 | 20 offset u32 | 24 len u32 | 28 zero u32
//! word:    0 magic "PLNW" | 4 says u16 | 6 zero u16 | 8 arena u64 | 16 zero, 16 bytes
//! ```
//!
//! `arena` is a number drawn for one life of one arena: nothing said of another is ever taken for it.

use crate::Span;
use crate::codec::{DecodeError, Pad, Reader, Wire, Writer};

/// Bytes of either.
pub const NEAR_BYTES: usize = 32;

const NOTICE_MAGIC: u32 = u32::from_le_bytes(*b"PLNT");
const WORD_MAGIC: u32 = u32::from_le_bytes(*b"PLNW");

/// A payload lies in the sender's memory: read it there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Notice {
    /// What the region holds: even, and another when it was written since.
    pub generation: u32,
    /// Which memory.
    pub arena: u64,
    /// Where, by the sender's regions.
    pub span: Span,
}

/// Whether memory is read in place.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NearWord {
    /// What is said.
    pub says: NearSays,
    /// Of which memory.
    pub arena: u64,
}

/// What a [`NearWord`] says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum NearSays {
    /// The sender's memory can be asked for.
    #[default]
    Open,
    /// The receiver's memory is mapped by the sender: notices suffice.
    Mapped,
    /// It is not, or not any more: payload has to come.
    Unmapped,
}

impl NearSays {
    const fn code(self) -> u16 {
        match self {
            Self::Open => 1,
            Self::Mapped => 2,
            Self::Unmapped => 3,
        }
    }
}

impl Wire for Notice {
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.write(&NOTICE_MAGIC);
        writer.write(&self.generation);
        writer.write(&self.arena);
        writer.write(&self.span.region);
        writer.write(&Pad::<2>);
        writer.write(&self.span.offset_bytes);
        writer.write(&self.span.len_bytes);
        writer.write(&Pad::<4>);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.read::<u32>()? != NOTICE_MAGIC {
            return Err(DecodeError::Field("magic"));
        }
        let generation: u32 = reader.read()?;
        // Where somebody may be writing there is nothing to be read.
        if !generation.is_multiple_of(2) {
            return Err(DecodeError::Field("generation"));
        }
        let arena = reader.read()?;
        let region = reader.read()?;
        reader.read::<Pad<2>>()?;
        let (offset_bytes, len_bytes): (u32, u32) = (reader.read()?, reader.read()?);
        reader.read::<Pad<4>>()?;
        if len_bytes == 0 || offset_bytes.checked_add(len_bytes).is_none() {
            return Err(DecodeError::Field("span"));
        }
        Ok(Self { generation, arena, span: Span { region, offset_bytes, len_bytes } })
    }
}

impl Wire for NearWord {
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.write(&WORD_MAGIC);
        writer.write(&self.says.code());
        writer.write(&Pad::<2>);
        writer.write(&self.arena);
        writer.write(&Pad::<16>);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.read::<u32>()? != WORD_MAGIC {
            return Err(DecodeError::Field("magic"));
        }
        let says = match reader.read::<u16>()? {
            1 => NearSays::Open,
            2 => NearSays::Mapped,
            3 => NearSays::Unmapped,
            _ => return Err(DecodeError::Field("says")),
        };
        reader.read::<Pad<2>>()?;
        let arena = reader.read()?;
        reader.read::<Pad<16>>()?;
        Ok(Self { says, arena })
    }
}

/// The bytes of a notice or a word.
#[must_use]
pub fn near_bytes<T: Wire>(said: &T) -> [u8; NEAR_BYTES] {
    let mut bytes = [0; NEAR_BYTES];
    Writer::new(&mut bytes).write(said);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
        Reader::new(bytes).read()
    }

    #[test]
    fn both_survive_the_wire_and_are_never_taken_for_each_other() {
        let span = Span { region: 3, offset_bytes: 64, len_bytes: u32::MAX - 64 };
        let notice = Notice { generation: 8, arena: u64::MAX - 5, span };
        let bytes = near_bytes(&notice);
        assert_eq!(decoded(&bytes), Ok(notice));
        assert_eq!(decoded::<NearWord>(&bytes), Err(DecodeError::Field("magic")));
        for says in [NearSays::Open, NearSays::Mapped, NearSays::Unmapped] {
            let word = NearWord { says, arena: 9 };
            assert_eq!(decoded(&near_bytes(&word)), Ok(word));
            assert_eq!(decoded::<Notice>(&near_bytes(&word)), Err(DecodeError::Field("magic")));
        }
    }

    #[test]
    fn what_is_no_notice_is_refused() {
        let span = Span { region: 3, offset_bytes: 64, len_bytes: 8 };
        let good = Notice { generation: 8, arena: 5, span };
        let odd = Notice { generation: 9, ..good };
        assert_eq!(decoded::<Notice>(&near_bytes(&odd)), Err(DecodeError::Field("generation")));
        for span in [Span { len_bytes: 0, ..span }, Span { offset_bytes: u32::MAX, ..span }] {
            let bytes = near_bytes(&Notice { span, ..good });
            assert_eq!(decoded::<Notice>(&bytes), Err(DecodeError::Field("span")));
        }
        let bytes = near_bytes(&good);
        assert!((0..NEAR_BYTES).all(|len| decoded::<Notice>(&bytes[..len]).is_err()));
        let mut dirty = bytes;
        dirty[NEAR_BYTES - 1] = 1;
        assert_eq!(decoded::<Notice>(&dirty), Err(DecodeError::Field("pad")));
        let mut word = near_bytes(&NearWord::default());
        word[4] = 4;
        assert_eq!(decoded::<NearWord>(&word), Err(DecodeError::Field("says")));
    }
}
