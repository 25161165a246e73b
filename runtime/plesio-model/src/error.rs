//! What the model can refuse. A refused call has changed nothing.

use alloc::string::String;
use core::fmt;
use plesio_kernels::KernelError;

/// Why the model refused its input.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ModelError {
    /// A model shape that cannot be, or is larger than this crate accepts.
    Config {
        /// Which field.
        what: &'static str,
        /// Its value.
        found: usize,
    },
    /// A configuration or weights file that cannot be read.
    File {
        /// Which file.
        what: &'static str,
        /// The reader's words.
        cause: String,
    },
    /// A tensor that is missing from the weights file or has another type or shape.
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// A batch, vector or text of the wrong length.
    Length {
        /// Which one.
        what: &'static str,
        /// The length needed.
        expected: usize,
        /// The length it has.
        found: usize,
    },
    /// A NaN or infinity where training cannot go on: parameters are unchanged.
    NonFinite {
        /// Where it appeared.
        what: &'static str,
    },
    /// A kernel refused.
    Kernel(KernelError),
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { what, found } => {
                write!(f, "model: {what} = {found} is not possible; correct the configuration")
            }
            Self::File { what, cause } => {
                write!(f, "model: cannot read {what}: {cause}; rebuild it with `cargo xtask base-model`")
            }
            Self::Tensor { name, cause } => {
                write!(f, "model: tensor {name}: {cause}; the weights do not belong to this configuration")
            }
            Self::Length { what, expected, found } => {
                write!(f, "model: {what} has length {found} where {expected} is needed")
            }
            Self::NonFinite { what } => {
                write!(
                    f,
                    "model: {what} is NaN or infinite; lower the learning rate or rebuild the parameters"
                )
            }
            Self::Kernel(error) => write!(f, "model: {error}"),
        }
    }
}

impl core::error::Error for ModelError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        if let Self::Kernel(error) = self { Some(error) } else { None }
    }
}

impl From<KernelError> for ModelError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}
