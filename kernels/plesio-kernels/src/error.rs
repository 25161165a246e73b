//! What a kernel can refuse. A refused call has written nothing, except where a variant says otherwise.

use core::fmt;

/// Why a kernel refused its input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum KernelError {
    /// Two buffers of one call disagree in length; nothing was written.
    Length {
        /// Which buffer.
        what: &'static str,
        /// The length the others ask for, in elements.
        expected: usize,
        /// The length it has, in elements.
        found: usize,
    },
    /// A NaN or an infinity; nothing was written. Discard the slot and rebuild the working copy.
    NonFinite {
        /// Which buffer.
        what: &'static str,
        /// The first such element.
        element: usize,
    },
    /// The 64-bit master state would overflow; the elements are saturated and the mesh must halt.
    Overflow {
        /// The first such element.
        element: usize,
    },
    /// The weights sum to more than the integer sum can hold for any slot; nothing was written.
    Weights {
        /// Their sum; at most `i32::MAX` is allowed.
        sum: u64,
    },
    /// A rank of zero or above the smaller side of the layer; nothing was written.
    Rank {
        /// The rank asked for.
        rank: usize,
        /// The largest rank that fits.
        rank_max: usize,
    },
    /// A factor of the outer step outside its range, in units of 2^-16.
    Factor {
        /// Which.
        name: &'static str,
        /// What it is.
        value: u32,
        /// Smallest allowed.
        min: u32,
        /// Largest allowed.
        max: u32,
    },
    /// A scale exponent outside -64..=64.
    Scale {
        /// The exponent asked for.
        exponent: i8,
    },
    /// Too few of something or too many; nothing was written.
    Count {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// Fewest allowed.
        min: usize,
        /// Most allowed.
        max: usize,
    },
    /// A trimmed mean that would leave nothing; nothing was written.
    Trim {
        /// How many go on each side.
        trim: usize,
        /// How many contributions there are.
        count: usize,
    },
    /// A largest norm that is no number or below zero; nothing was written.
    Limit {
        /// Its bits, as an f32.
        bits: u32,
    },
    /// A row asks for an adapter that is not there; nothing was written.
    Adapter {
        /// Which row.
        row: usize,
        /// The adapter that it asks for.
        index: u32,
        /// How many there are.
        count: usize,
    },
    /// Rows that do not consist of whole blocks; nothing was written.
    Blocks {
        /// Which buffer.
        what: &'static str,
        /// Elements of a row.
        elements: usize,
        /// Elements of a block.
        block: usize,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { what, expected, found } => {
                write!(
                    f,
                    "kernel: {what} has {found} elements where {expected} are needed; pass equal ranges"
                )
            }
            Self::NonFinite { what, element } => write!(
                f,
                "kernel: {what}[{element}] is NaN or infinite; discard the slot and rebuild from the master state"
            ),
            Self::Overflow { element } => {
                write!(f, "kernel: master element {element} left the 64-bit range; halt the mesh")
            }
            Self::Weights { sum } => {
                write!(f, "kernel: the weights sum to {sum}, above {}; renormalise them to 2^24", i32::MAX)
            }
            Self::Rank { rank, rank_max } => {
                write!(f, "kernel: rank {rank} is not between 1 and {rank_max}; choose one that is")
            }
            Self::Factor { name, value, min, max } => {
                write!(
                    f,
                    "kernel: {name} = {value} / 65536 is outside {min} to {max} of these; choose one inside"
                )
            }
            Self::Scale { exponent } => {
                write!(f, "kernel: scale exponent {exponent} is not between -64 and 64; the default is 24")
            }
            Self::Count { what, found, min, max } => {
                write!(f, "kernel: {found} {what} where {min} to {max} are allowed; pass as many")
            }
            Self::Trim { trim, count } => {
                let most = count.saturating_sub(1) / 2;
                write!(f, "kernel: trimming {trim} on each side leaves none of {count}; trim {most} at most")
            }
            Self::Limit { bits } => {
                let limit = f32::from_bits(*bits);
                write!(f, "kernel: a norm cannot be limited to {limit}; choose zero or more")
            }
            Self::Adapter { row, index, count } => {
                write!(
                    f,
                    "kernel: row {row} asks for adapter {index} of {count}; pass NO_ADAPTER for a row without"
                )
            }
            Self::Blocks { what, elements, block } => {
                write!(
                    f,
                    "kernel: {what} has rows of {elements} elements, no multiple of {block}; fill them up with zeros"
                )
            }
        }
    }
}

impl core::error::Error for KernelError {}

/// Refuses a buffer whose length is not the one the call needs.
#[inline]
pub(crate) fn check_len(what: &'static str, expected: usize, found: usize) -> Result<(), KernelError> {
    if expected == found { Ok(()) } else { Err(KernelError::Length { what, expected, found }) }
}

/// Refuses a count outside its range.
#[inline]
pub(crate) fn check_count(
    what: &'static str,
    found: usize,
    min: usize,
    max: usize,
) -> Result<(), KernelError> {
    if (min..=max).contains(&found) { Ok(()) } else { Err(KernelError::Count { what, found, min, max }) }
}
