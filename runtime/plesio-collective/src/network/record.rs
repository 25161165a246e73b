//! What ranks tell each other beside tensors, byte by byte.
//!
//! ```text
//! hello, 64 bytes, then the tensor where it is mail        record, 32 bytes: eight words
//!  0 magic u32   4 flags u32   8 number of the call u64     0 kind u8, slot u8, sequence u16
//! 16 call 2 x u64             32 setup u64                  1 number of the call, low half
//! 40 sequences 4 x u16        48 zero                       2 piece or ranks   3 ranks   4.. as the kind says
//! ```
//!
//! Little-endian. Whatever else arrives is no hello or no record: it never panics and never allocates.

use super::DEPTH_MAX;
use crate::call::{Call, Ranks};

/// Bytes of a hello before the mail.
pub(crate) const HELLO_BYTES: u32 = 64;
/// Bytes of a record.
pub(crate) const RECORD_BYTES: usize = 32;

const MAGIC: u32 = 0x316c_6c63;
const FLAG_UNFIT: u32 = 1;

/// A rank's first word in a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Hello {
    pub(crate) number: u64,
    /// What it called for; `None` when that is no call.
    pub(crate) call: Option<Call>,
    /// Its tensor lies where none can.
    pub(crate) unfit: bool,
    /// Digest of the shares and windows that it works with.
    pub(crate) setup: u64,
    /// Windows that are open for contributions to its first pieces: their sequences.
    pub(crate) sequences: [u16; DEPTH_MAX],
}

impl Hello {
    pub(crate) fn to_bytes(self) -> [u8; HELLO_BYTES as usize] {
        let mut bytes = [0; HELLO_BYTES as usize];
        let [word, count] = self.call.map_or([0, 0], |call| call.to_words());
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&(if self.unfit { FLAG_UNFIT } else { 0 }).to_le_bytes());
        for (at, value) in [self.number, word, count, self.setup].into_iter().enumerate() {
            bytes[8 + 8 * at..16 + 8 * at].copy_from_slice(&value.to_le_bytes());
        }
        for (at, sequence) in self.sequences.into_iter().enumerate() {
            bytes[40 + 2 * at..42 + 2 * at].copy_from_slice(&sequence.to_le_bytes());
        }
        bytes
    }

    /// `None` for bytes that are no hello of the call of that number.
    pub(crate) fn parse(bytes: &[u8], number: u64) -> Option<Self> {
        let bytes: &[u8; HELLO_BYTES as usize] = bytes.get(..HELLO_BYTES as usize)?.try_into().ok()?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let ours = word(0) == MAGIC && word(4) & !FLAG_UNFIT == 0 && long(8) == number;
        ours.then(|| Self {
            number,
            call: Call::from_words([long(16), long(24)]),
            unfit: word(4) == FLAG_UNFIT,
            setup: long(32),
            sequences: core::array::from_fn(|at| {
                u16::from_le_bytes([bytes[40 + 2 * at], bytes[41 + 2 * at]])
            }),
        })
    }
}

/// A window of somebody's that is open for one piece.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Opening {
    pub(crate) piece: u32,
    pub(crate) slot: u8,
    pub(crate) sequence: u16,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Record {
    /// These are dead, nothing of theirs is taken any more, and of the calls `number` - 1, `number`, `number` + 1 the sender
    /// holds the hellos of these ranks.
    Flush { number: u32, dead: Ranks, held: [Ranks; 3] },
    /// Send me the hello of a rank that is dead; a window is open.
    Fetch { number: u32, rank: u8 },
    /// Send me your contribution.
    Want { number: u32, opening: Opening },
    /// Send me the result.
    Ask { number: u32, opening: Opening },
    /// You own this piece now: I have its result, or I have not.
    State { number: u32, piece: u32, has: bool },
    /// The result that you get is made of these, and comes by the call's codec or as it is; of none: there is no result.
    Verdict { number: u32, piece: u32, of: Ranks, coded: bool },
    /// I have everything.
    Complete { number: u32 },
}

impl Record {
    pub(crate) fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut words = [0u32; 8];
        let opens = |kind: u32, opening: &Opening| {
            kind | u32::from(opening.slot) << 8 | u32::from(opening.sequence) << 16
        };
        match &self {
            Self::Flush { number, dead, held } => {
                words[..3].copy_from_slice(&[1, *number, dead.0]);
                words[3..6].copy_from_slice(&held.map(|ranks| ranks.0));
            }
            Self::Fetch { number, rank } => words[..3].copy_from_slice(&[2, *number, u32::from(*rank)]),
            Self::Want { number, opening } => {
                words[..3].copy_from_slice(&[opens(3, opening), *number, opening.piece]);
            }
            Self::Ask { number, opening } => {
                words[..3].copy_from_slice(&[opens(4, opening), *number, opening.piece]);
            }
            Self::State { number, piece, has } => {
                words[..4].copy_from_slice(&[5, *number, *piece, u32::from(*has)]);
            }
            Self::Verdict { number, piece, of, coded } => {
                words[..5].copy_from_slice(&[6, *number, *piece, of.0, u32::from(*coded)]);
            }
            Self::Complete { number } => words[..2].copy_from_slice(&[7, *number]),
        }
        let mut bytes = [0; RECORD_BYTES];
        for (at, word) in words.into_iter().enumerate() {
            bytes[4 * at..4 * at + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; RECORD_BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| {
            let at = 4 * at;
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let number = word(1);
        let opening =
            Opening { piece: word(2), slot: (word(0) >> 8) as u8, sequence: (word(0) >> 16) as u16 };
        let record = match word(0) & 0xFF {
            1 => Self::Flush {
                number,
                dead: Ranks(word(2)),
                held: [Ranks(word(3)), Ranks(word(4)), Ranks(word(5))],
            },
            2 => Self::Fetch { number, rank: u8::try_from(word(2)).ok()? },
            3 => Self::Want { number, opening },
            4 => Self::Ask { number, opening },
            5 => Self::State { number, piece: word(2), has: word(3) == 1 },
            6 => Self::Verdict { number, piece: word(2), of: Ranks(word(3)), coded: word(4) == 1 },
            7 => Self::Complete { number },
            _ => return None,
        };
        (record.to_bytes() == *bytes).then_some(record)
    }

    /// Whether it makes sense only to one who has begun this call.
    pub(crate) const fn is_of_call(&self) -> bool {
        !matches!(self, Self::Flush { .. } | Self::Fetch { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Element, Operation};
    use proptest::prelude::*;

    #[test]
    fn records_and_hellos_survive_their_bytes() {
        let opening = Opening { piece: 70_000, slot: 3, sequence: 65_535 };
        for record in [
            Record::Flush { number: 7, dead: Ranks(1), held: [Ranks(2), Ranks(4), Ranks(u32::MAX)] },
            Record::Fetch { number: u32::MAX, rank: 31 },
            Record::Want { number: 1, opening },
            Record::Ask { number: 1, opening },
            Record::State { number: 1, piece: 9, has: true },
            Record::Verdict { number: 1, piece: 9, of: Ranks(5), coded: true },
            Record::Complete { number: 1 },
        ] {
            assert_eq!(Record::parse(&record.to_bytes()), Some(record));
        }
        let call =
            Call { operation: Operation::Broadcast { root: 3 }, element: Element::Bf16, count: 1 << 33 };
        let hello = Hello {
            number: 1 << 40,
            call: Some(call),
            unfit: true,
            setup: u64::MAX,
            sequences: [1, 2, 3, 65_535],
        };
        assert_eq!(Hello::parse(&hello.to_bytes(), 1 << 40), Some(hello));
        assert_eq!(Hello::parse(&hello.to_bytes(), 1), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_with_those_bytes_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..80), kind in 0u8..9) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() { *first = kind; }
            if let Some(record) = Record::parse(&bytes) {
                prop_assert_eq!(&record.to_bytes()[..], &bytes[..]);
            }
            let _ = Hello::parse(&bytes, 1);
        }
    }
}
