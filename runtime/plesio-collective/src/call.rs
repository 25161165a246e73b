//! What a group of ranks is asked to do together, as every rank says it, and whether they all say the same.

use core::fmt;

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Element {
    /// IEEE 754 binary32.
    F32,
    /// The upper half of a binary32; summed in binary32 and rounded once, to nearest even.
    Bf16,
    /// Two's complement; sums wrap.
    I32,
}

impl Element {
    /// Bytes of one element.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::I32 => "i32",
        }
    }
}

/// What is done with the tensors. Sums run in rank order, so every rank holds the same bits afterwards.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// Everybody gets the sum of all tensors.
    AllReduce,
    /// Rank r gets the range [`crate::range`] (count, ranks, r) of the sum.
    ReduceScatter,
    /// Everybody gets all tensors; rank r brings the range [`crate::range`] (count, ranks, r).
    AllGather,
    /// Everybody gets the tensor of one rank.
    Broadcast {
        /// Whose.
        root: u8,
    },
}

impl Operation {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllReduce => "all_reduce",
            Self::ReduceScatter => "reduce_scatter",
            Self::AllGather => "all_gather",
            Self::Broadcast { .. } => "broadcast",
        }
    }
}

/// One collective operation. All ranks must make the same calls in the same order.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Call {
    /// What is done.
    pub operation: Operation,
    /// With what.
    pub element: Element,
    /// Elements of the whole tensor, on every rank.
    pub count: u64,
}

impl Call {
    /// Two words, for a board or a datagram.
    #[must_use]
    pub fn to_words(&self) -> [u64; 2] {
        let (operation, root) = match self.operation {
            Operation::AllReduce => (1, 0),
            Operation::ReduceScatter => (2, 0),
            Operation::AllGather => (3, 0),
            Operation::Broadcast { root } => (4, root),
        };
        let element = match self.element {
            Element::F32 => 1,
            Element::Bf16 => 2,
            Element::I32 => 3,
        };
        [operation | element << 8 | u64::from(root) << 16, self.count]
    }

    /// From two words; `None` for words that no call has.
    #[must_use]
    pub fn from_words([word, count]: [u64; 2]) -> Option<Self> {
        let root = (word >> 16) as u8;
        let operation = match word & 0xFF {
            1 => Operation::AllReduce,
            2 => Operation::ReduceScatter,
            3 => Operation::AllGather,
            4 => Operation::Broadcast { root },
            _ => return None,
        };
        let element = match word >> 8 & 0xFF {
            1 => Element::F32,
            2 => Element::Bf16,
            3 => Element::I32,
            _ => return None,
        };
        let call = Self { operation, element, count };
        (call.to_words() == [word, count]).then_some(call)
    }

    /// Bytes of the whole tensor; `None` when they do not fit 64 bits.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.count.checked_mul(self.element.bytes())
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} {}", self.operation.name(), self.count, self.element.name())?;
        match self.operation {
            Operation::Broadcast { root } => write!(f, " from rank {root}"),
            _ => Ok(()),
        }
    }
}

/// A set of ranks, 0 to 31.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Ranks(pub u32);

impl Ranks {
    /// The most ranks of a group.
    pub const MAX: usize = 32;

    /// Ranks 0 to `count` - 1.
    #[must_use]
    pub const fn first(count: usize) -> Self {
        Self(if count >= Self::MAX { u32::MAX } else { (1 << count) - 1 })
    }

    /// Whether `rank` is one of them.
    #[must_use]
    pub const fn contains(self, rank: usize) -> bool {
        rank < Self::MAX && self.0 >> rank & 1 == 1
    }

    /// These and `rank`.
    #[must_use]
    pub const fn with(self, rank: usize) -> Self {
        Self(self.0 | if rank < Self::MAX { 1 << rank } else { 0 })
    }

    /// These without those.
    #[must_use]
    pub const fn without(self, those: Self) -> Self {
        Self(self.0 & !those.0)
    }

    /// How many there are.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// In rank order.
    pub fn iter(self) -> impl Iterator<Item = usize> + Clone {
        (0..Self::MAX).filter(move |rank| self.contains(*rank))
    }
}

/// Why an operation has no result. Every rank gets the same verdict.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CallError {
    /// Two ranks called for different things; nothing was touched.
    Mismatch {
        /// The lowest rank and what it called for.
        first: (u8, Call),
        /// The lowest rank that called for something else.
        other: (u8, Call),
    },
    /// What a rank wrote is no call: it is broken or hostile.
    Unreadable {
        /// Which one.
        rank: u8,
    },
    /// The rank whose tensor was to be sent is gone, or there is none of that number.
    RootGone {
        /// Which one.
        root: u8,
    },
    /// A rank's tensor does not lie inside its segment, is not aligned, or overlaps its result in part.
    Place {
        /// Whose.
        rank: u8,
    },
    /// Two ranks share the tensor out differently; nothing was touched.
    Shares {
        /// The lowest rank.
        first: u8,
        /// The lowest rank that has other shares.
        other: u8,
    },
    /// The deadline passed before these ranks had done their part, and nobody has said that they are dead. Others may have
    /// the result; this rank makes no more calls.
    Late {
        /// Which.
        ranks: Ranks,
    },
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch { first: (one, call), other: (two, other) } => write!(
                f,
                "collective: rank {one} called {call}, rank {two} called {other}; make the same calls in the same order \
                 on every rank"
            ),
            Self::Unreadable { rank } => {
                write!(f, "collective: what rank {rank} wrote is no call; run the same version on every rank")
            }
            Self::RootGone { root } => {
                write!(
                    f,
                    "collective: rank {root}, whose tensor was to be sent, is gone; choose another root"
                )
            }
            Self::Place { rank } => write!(
                f,
                "collective: the tensor of rank {rank} leaves its segment, is not aligned or overlaps its own result; \
                 choose other places or form the group with more tensor bytes"
            ),
            Self::Shares { first, other } => write!(
                f,
                "collective: ranks {first} and {other} share the tensor out differently; give the shares of one view to \
                 every rank"
            ),
            Self::Late { ranks } => {
                f.write_str("collective: the deadline passed while waiting for rank")?;
                for (at, rank) in ranks.iter().enumerate() {
                    write!(f, "{}{rank}", if at == 0 { " " } else { ", " })?;
                }
                f.write_str("; see whether it lives, and form a new group")
            }
        }
    }
}

impl core::error::Error for CallError {}

/// Whether all of `ranks` called for the same.
///
/// # Errors
/// Names the first that cannot be read, or the first two that differ.
pub fn agree(ranks: Ranks, call_of: impl Fn(usize) -> Option<Call>) -> Result<Call, CallError> {
    let mut first: Option<(u8, Call)> = None;
    for rank in ranks.iter() {
        let call = call_of(rank).ok_or(CallError::Unreadable { rank: rank as u8 })?;
        match first {
            None => first = Some((rank as u8, call)),
            Some(known) if known.1 == call => {}
            Some(known) => return Err(CallError::Mismatch { first: known, other: (rank as u8, call) }),
        }
    }
    first.map(|(_, call)| call).ok_or(CallError::Unreadable { rank: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_survives_its_words_and_other_words_are_none() {
        for operation in [
            Operation::AllReduce,
            Operation::ReduceScatter,
            Operation::AllGather,
            Operation::Broadcast { root: 31 },
        ] {
            for element in [Element::F32, Element::Bf16, Element::I32] {
                let call = Call { operation, element, count: 1 << 40 };
                assert_eq!(Call::from_words(call.to_words()), Some(call));
            }
        }
        for word in [0, 5, 1, 1 | 4 << 8, 1 | 1 << 8 | 1 << 16, 1 | 1 << 8 | 1 << 40] {
            assert_eq!(Call::from_words([word, 3]), None, "{word:#x}");
        }
    }

    #[test]
    fn a_disagreement_names_both() {
        let same = Call { operation: Operation::AllReduce, element: Element::F32, count: 7 };
        let other = Call { count: 8, ..same };
        let verdict = agree(Ranks::first(3), |rank| Some(if rank == 2 { other } else { same }));
        assert_eq!(verdict, Err(CallError::Mismatch { first: (0, same), other: (2, other) }));
        let text = format!("{}", verdict.expect_err("they differ"));
        assert!(text.contains("rank 0 called all_reduce of 7 f32") && text.contains("rank 2"), "{text}");
        assert_eq!(agree(Ranks::first(3), |_| Some(same)), Ok(same));
    }
}
