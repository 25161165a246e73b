//! What both vendors' libraries have in common when they are opened at run time: a table of functions, and the
//! reasons why there is none.
//!
//! A function that is missing is found when the table is made, so no call can meet one later.

use std::fmt;

use crate::{Fault, RuntimeError};

/// Why a vendor's library is not used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Absence {
    /// It cannot be opened; what the loader says.
    Missing(String),
    /// It has no such function.
    Incomplete(&'static str),
    /// It offers less than what is needed, both as versions are told to people.
    Old {
        /// What it offers.
        found: String,
        /// The least that would do.
        least: &'static str,
    },
    /// It is there and does not begin.
    Refusing(RuntimeError),
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(why) => f.write_str(why),
            Self::Incomplete(function) => write!(f, "the library has no {function}"),
            Self::Old { found, least } => write!(f, "{found} is too old, {least} is needed"),
            Self::Refusing(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Absence {}

impl From<&Absence> for RuntimeError {
    fn from(absence: &Absence) -> Self {
        match absence {
            Absence::Refusing(error) => error.clone(),
            other => Self {
                call: "dlopen",
                code: 0,
                name: other.to_string(),
                log: String::new(),
                fault: Fault::Other,
            },
        }
    }
}

/// Defines a struct `Table` with one function pointer for each declaration, in the C convention and with a status for
/// a result.
///
/// ```text
/// table! { fn cuInit(flags: c_uint); fn cuDeviceGetCount(count: *mut c_int); }
/// ```
///
/// The crate that uses it depends on `libloading` and has a type `Status`.
#[macro_export]
macro_rules! table {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?);)*) => {
        /// The functions of the library, all of them there.
        #[derive(Clone, Copy)]
        #[expect(non_snake_case, reason = "the vendor's names")]
        pub(crate) struct Table {
            $(pub(crate) $name: unsafe extern "C" fn($($argument: $type),*) -> Status,)*
        }

        impl ::std::fmt::Debug for Table {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str("Table")
            }
        }

        impl Table {
            /// Finds every function, or names the first that is missing.
            ///
            /// # Safety
            /// What the library calls by these names takes these arguments, and the library stays open.
            pub(crate) unsafe fn of(library: &libloading::Library) -> Result<Self, $crate::Absence> {
                Ok(Self {
                    $($name: {
                        let name = stringify!($name);
                        // SAFETY: the caller vouches for the type.
                        *unsafe { library.get::<unsafe extern "C" fn($($type),*) -> Status>(name) }
                            .map_err(|_| $crate::Absence::Incomplete(name))?
                    },)*
                })
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absence_says_why_and_an_error_made_of_it_says_the_same() {
        let old = Absence::Old { found: "CUDA 10.2".into(), least: "CUDA 11.4" };
        assert_eq!(old.to_string(), "CUDA 10.2 is too old, CUDA 11.4 is needed");
        assert_eq!(Absence::Incomplete("cuInit").to_string(), "the library has no cuInit");
        let missing = Absence::Missing("libcuda.so.1: not found".into());
        assert_eq!(RuntimeError::from(&missing).to_string(), format!("dlopen: {missing}"));
        let refused = RuntimeError::of("cuInit", 100, &[]);
        let refusing = Absence::Refusing(refused.clone());
        assert_eq!(refusing.to_string(), refused.to_string());
        assert_eq!(RuntimeError::from(&refusing), refused);
    }
}
