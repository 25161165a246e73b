//! The emulator's process and what is said to it; `kernels/source/emulator/main.cc` describes the calls.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What a call came to.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The emulator refuses, or found a fault in the kernel.
    Refused(String),
    /// It is gone.
    Gone(io::Error),
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

/// A running emulator. It ends when its stdin does.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    calls: Option<ChildStdin>,
    answers: ChildStdout,
}

impl Process {
    pub(crate) fn start(program: &Path) -> io::Result<Self> {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A finding of ThreadSanitizer ends the process, and its report comes first.
            .env("TSAN_OPTIONS", "halt_on_error=1 exitcode=66")
            .spawn()?;
        let calls = child.stdin.take();
        let answers = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, calls, answers })
    }

    /// Says a call and reads whether it was done.
    pub(crate) fn call(&mut self, parts: &[&[u8]]) -> Result<(), CallError> {
        let calls = self.calls.as_mut().ok_or(io::Error::from(io::ErrorKind::BrokenPipe))?;
        for part in parts {
            calls.write_all(part)?;
        }
        calls.flush()?;
        let mut status = [0; 4];
        self.answers.read_exact(&mut status)?;
        let trouble = self.contents()?;
        if status == [0; 4] {
            Ok(())
        } else {
            Err(CallError::Refused(String::from_utf8_lossy(&trouble).into()))
        }
    }

    pub(crate) fn word(&mut self) -> Result<u64, CallError> {
        let mut word = [0; 8];
        self.answers.read_exact(&mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    pub(crate) fn contents(&mut self) -> Result<Vec<u8>, CallError> {
        let bytes = self.word()?;
        let mut contents = Vec::new();
        (&mut self.answers).take(bytes).read_to_end(&mut contents)?;
        Ok(contents)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.calls = None; // ends it
        let _ = self.child.wait();
    }
}
