//! What ends a command early: what could not be done, where, why, and one thing that mends it.
//!
//! Knows the exit codes other programs rely on. A failure is for a person: its code is a short word that
//! stays the same while the sentence around it may improve.

use std::fmt;

/// What mends a thread that the system does not give.
pub(crate) const MORE_THREADS: &str = "allow this user more processes (ulimit -u, pids.max)";

/// How the process ends. The numbers are part of the interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// All went as it should.
    Ok = 0,
    /// A check or an acceptance bound failed.
    Failed = 1,
    /// The command line is not one.
    Usage = 2,
    /// A ratio that was required was missed.
    Regression = 3,
    /// The other end is gone or cannot be reached.
    Unreachable = 4,
    /// This machine lacks what was asked for.
    Missing = 5,
    /// Interrupted by Ctrl-C or SIGTERM; what there was has been printed.
    Interrupted = 130,
}

/// A command that could not do its work.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Failure {
    /// A short word that names this kind of failure for good.
    pub(crate) code: &'static str,
    pub(crate) exit: Exit,
    /// What could not be done, and where.
    pub(crate) what: String,
    pub(crate) cause: String,
    /// One thing to do about it.
    pub(crate) fix: String,
}

impl Failure {
    /// The system gives no thread.
    pub(crate) fn thread(code: &'static str, cause: std::io::Error) -> Self {
        Self::run(code, "cannot start a thread", cause).fix(MORE_THREADS)
    }

    /// A failure of the run itself.
    pub(crate) fn run(code: &'static str, what: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self {
            code,
            exit: Exit::Failed,
            what: what.into(),
            cause: cause.to_string(),
            fix: "run `plesio doctor` to see what this machine offers".into(),
        }
    }

    /// The same, caused by what the caller asked for.
    pub(crate) fn usage(code: &'static str, what: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, ..Self::run(code, what, cause) }
    }

    /// Says what mends it.
    #[must_use]
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}\n  cause: {}\n  fix:   {}", self.code, self.what, self.cause, self.fix)
    }
}

impl std::error::Error for Failure {}
