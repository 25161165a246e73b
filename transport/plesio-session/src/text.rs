//! The text form of keys and tickets: a first line that says what it is, then `name hex` lines in a fixed order.
//!
//! Reading is strict: another name, order, length or a line too many is an error that names the line.

use alloc::string::String;
use core::fmt::{self, Write};

/// Longest text that is looked at.
const TEXT_BYTES_MAX: usize = 1_024;

/// Why a key file or ticket cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TextError {
    /// The first line does not name this kind of file.
    Kind {
        /// What was expected.
        expected: &'static str,
    },
    /// A line is missing, or not `name hex` of the right length.
    Line {
        /// The line's name.
        name: &'static str,
    },
    /// Lines behind the last one, or far too long a text.
    Trailing,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind { expected } => {
                write!(f, "not a {expected} file: its first line says something else; give the right file")
            }
            Self::Line { name } => {
                write!(f, "line {name} is missing or damaged; make the file again from its source")
            }
            Self::Trailing => f.write_str("lines behind the last one; take them out"),
        }
    }
}

impl core::error::Error for TextError {}

/// Writes a text: the kind, then the fields. Its capacity never grows, so no copy is left behind.
pub(crate) fn write(kind: &str, fields: &[(&str, &[u8])]) -> String {
    let mut text = String::with_capacity(TEXT_BYTES_MAX);
    text.push_str(kind);
    text.push('\n');
    for (name, bytes) in fields {
        text.push_str(name);
        text.push(' ');
        for byte in *bytes {
            write!(text, "{byte:02x}").expect("a string takes what is written");
        }
        text.push('\n');
    }
    assert!(text.len() <= TEXT_BYTES_MAX, "the fields of a key file are few");
    text
}

/// Reads the lines of a text in order.
pub(crate) struct Lines<'a>(core::str::Lines<'a>);

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str, kind: &'static str) -> Result<Self, TextError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TextError::Trailing);
        }
        let mut lines = text.lines();
        if lines.next() == Some(kind) { Ok(Self(lines)) } else { Err(TextError::Kind { expected: kind }) }
    }

    pub(crate) fn read<const N: usize>(&mut self, name: &'static str) -> Result<[u8; N], TextError> {
        let error = TextError::Line { name };
        let line = self.0.next().ok_or(error)?;
        let digits = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')).ok_or(error)?.as_bytes();
        if digits.len() != 2 * N {
            return Err(error);
        }
        let mut bytes = [0; N];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0]).ok_or(error)? << 4 | nibble(pair[1]).ok_or(error)?;
        }
        Ok(bytes)
    }

    pub(crate) fn finish(mut self) -> Result<(), TextError> {
        if self.0.next().is_none() { Ok(()) } else { Err(TextError::Trailing) }
    }
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}
