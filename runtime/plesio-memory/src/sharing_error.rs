//! What can go wrong between two processes that share a segment: at the door, in front of it, and with what came through.

use core::fmt;
use std::io;
use std::path::PathBuf;

/// A file that was handed over is not mapped.
#[derive(Debug)]
#[non_exhaustive]
pub enum AttachError {
    /// It is no memfd.
    Kind,
    /// It could still change.
    Seals {
        /// Which seals it lacks.
        missing: String,
    },
    /// It is sealed against the writing that was asked for.
    NotShared,
    /// It belongs to another user.
    Owner {
        /// Whose it should be.
        expected: u32,
        /// Whose it is.
        found: u32,
    },
    /// It is longer or shorter, or was said to be.
    Length {
        /// Bytes.
        expected: u64,
        /// Bytes.
        found: u64,
    },
    /// Not all of it was allocated.
    Hole {
        /// Where, about.
        offset_bytes: u64,
    },
    /// It is a segment of another kind.
    Other {
        /// The kind asked for.
        expected: u16,
        /// The kind offered.
        found: u16,
    },
    /// It belongs to another life.
    Stale {
        /// The generation asked for.
        expected: u64,
        /// The generation offered.
        found: u64,
    },
    /// It holds no arena of this version.
    Layout {
        /// What is wrong with its beginning.
        what: &'static str,
    },
    /// The kernel refused a step.
    System {
        /// The system call.
        step: &'static str,
        /// Its answer.
        cause: io::Error,
    },
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("segment: not mapped: ")?;
        match self {
            Self::Kind => f.write_str("the file is no memfd; only those are safe to share"),
            Self::Seals { missing } => {
                write!(
                    f,
                    "the file lacks the seals {missing} and could change; seal it before handing it over"
                )
            }
            Self::NotShared => f.write_str("the file is sealed against writing; attach it read-only"),
            Self::Owner { expected, found } => {
                write!(f, "the file belongs to user {found}, not {expected}; share within one user")
            }
            Self::Length { expected, found } => {
                write!(f, "{found} bytes instead of {expected}; start both sides with the same parameters")
            }
            Self::Hole { offset_bytes } => {
                write!(
                    f,
                    "nothing is allocated near byte {offset_bytes}; allocate all before handing it over"
                )
            }
            Self::Other { expected, found } => {
                write!(f, "kind {found} is behind this door, not {expected}; knock at another")
            }
            Self::Stale { expected, found } => {
                write!(f, "generation {found} instead of {expected}; knock again, or restart the older side")
            }
            Self::Layout { what } => {
                write!(f, "it holds no arena ({what}); run the same version on both sides")
            }
            Self::System { step, cause } => write!(f, "{step} failed: {cause}; free memory or descriptors"),
        }
    }
}

impl std::error::Error for AttachError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

/// A door cannot be opened, or a visitor gets nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum DoorError {
    /// The folder belongs to another user.
    Owner {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Others can reach the folder or the socket.
    Mode {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// What has the folder's name is no folder.
    NoFolder {
        /// The name.
        path: PathBuf,
    },
    /// A living process listens under this name.
    Taken {
        /// The name.
        path: PathBuf,
    },
    /// A visitor of another user was turned away.
    Stranger {
        /// Who it was.
        uid: u32,
    },
    /// The kernel refused a step.
    System {
        /// The door.
        path: PathBuf,
        /// The system call.
        step: &'static str,
        /// Its answer.
        cause: io::Error,
    },
}

impl fmt::Display for DoorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner { path, uid } => {
                write!(f, "door: {} belongs to user {uid}; choose a folder of your own", path.display())
            }
            Self::Mode { path, mode } => write!(
                f,
                "door: {} has mode {mode:o}, so others could come near it; chmod 700 the folder",
                path.display()
            ),
            Self::NoFolder { path } => {
                write!(f, "door: {} is no folder; remove what has its name", path.display())
            }
            Self::Taken { path } => {
                write!(
                    f,
                    "door: a process already answers at {}; end it or choose another name",
                    path.display()
                )
            }
            Self::Stranger { uid } => {
                write!(f, "door: user {uid} knocked and got nothing; run both sides as one user")
            }
            Self::System { path, step, cause } => write!(
                f,
                "door: {}: {step} failed: {cause}; choose a short path in a folder of your own",
                path.display()
            ),
        }
    }
}

impl std::error::Error for DoorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

/// Nothing came through a door.
#[derive(Debug)]
#[non_exhaustive]
pub enum KnockError {
    /// No process listens there; knock again when it should be up.
    Nobody {
        /// Where.
        path: PathBuf,
    },
    /// The door is another user's.
    Stranger {
        /// Whose.
        uid: u32,
    },
    /// The deadline passed.
    Late,
    /// The other side hung up without a word.
    Closed,
    /// The answer is no offer of this version.
    Garbage {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Not exactly one descriptor came with the answer; all were closed.
    Descriptors {
        /// How many; `None` when more than could be counted.
        found: Option<usize>,
    },
    /// The kernel refused a step.
    System {
        /// The door.
        path: PathBuf,
        /// The system call.
        step: &'static str,
        /// Its answer.
        cause: io::Error,
    },
}

impl fmt::Display for KnockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody { path } => {
                write!(f, "knock: nobody answers at {}; start the other side first", path.display())
            }
            Self::Stranger { uid } => {
                write!(f, "knock: the door is user {uid}'s; run both sides as one user")
            }
            Self::Late => f.write_str("knock: no answer before the deadline; see whether the other side runs"),
            Self::Closed => {
                f.write_str("knock: the other side hung up; look there for the reason, and knock again")
            }
            Self::Garbage { what } => {
                write!(f, "knock: the answer is no offer ({what}); run the same version on both sides")
            }
            Self::Descriptors { found: Some(found) } => {
                write!(f, "knock: {found} descriptors came instead of one; run the same version on both sides")
            }
            Self::Descriptors { found: None } => f.write_str(
                "knock: the control message was cut short; raise the limit of open files or run the same version \
                 on both sides",
            ),
            Self::System { path, step, cause } => write!(
                f,
                "knock: {}: {step} failed: {cause}; check the path and the limit of open files",
                path.display()
            ),
        }
    }
}

impl std::error::Error for KnockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { cause, .. } => Some(cause),
            _ => None,
        }
    }
}
