//! A process of the python3 on the PATH: told by lines, heard within a time limit.
//!
//! Does not know what it is told. It may be anything that goes by that name: whatever it says or does, nobody waits for
//! it longer than was said, and it is ended with all that it has started.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Dropping it ends the process: with its group if it leads one.
pub(super) struct Python {
    child: Child,
    leads: bool,
    orders: ChildStdin,
    answers: ChildStdout,
    heard: Vec<u8>,
}

/// Why there is no answer; what is said of it has the process for its subject.
#[derive(Debug)]
pub(super) enum Silence {
    /// How it ended.
    Ended(String),
    /// It had so long.
    Late(Duration),
    /// It says no end of a line.
    Endless,
    /// Nobody wants to know any more.
    Interrupted,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(how) => write!(f, "ended without an answer ({how})"),
            Self::Late(limit) => write!(f, "did not answer within {} s", limit.as_secs_f64()),
            Self::Endless => {
                write!(f, "answered with more than {LINE_BYTES_MAX} bytes without an end of line")
            }
            Self::Interrupted => write!(f, "was interrupted"),
        }
    }
}

impl Python {
    /// Runs `command` in a process group of its own if it is to lead one, else in ours.
    pub(super) fn start(command: &mut Command, leads: bool) -> io::Result<Self> {
        if leads {
            command.process_group(0);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(orders), Some(answers)) => Ok(Self { child, leads, orders, answers, heard: Vec::new() }),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Tells it a line that is short beside a pipe.
    pub(super) fn tell(&mut self, line: &str) -> Result<(), Silence> {
        writeln!(self.orders, "{line}").map_err(|_| self.ended())
    }

    /// Its next line, unless that takes longer or somebody interrupts it.
    pub(super) fn line(&mut self, limit: Duration, interrupted: &AtomicBool) -> Result<String, Silence> {
        let begin = Instant::now();
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim().to_owned());
            }
            if self.heard.len() > LINE_BYTES_MAX {
                return Err(Silence::Endless);
            }
            self.hear(begin, limit, interrupted)?;
        }
    }

    /// So many bytes that follow.
    pub(super) fn bytes(
        &mut self,
        count: usize,
        limit: Duration,
        interrupted: &AtomicBool,
    ) -> Result<Vec<u8>, Silence> {
        let begin = Instant::now();
        while self.heard.len() < count {
            self.hear(begin, limit, interrupted)?;
        }
        let rest = self.heard.split_off(count);
        Ok(std::mem::replace(&mut self.heard, rest))
    }

    fn hear(&mut self, begin: Instant, limit: Duration, interrupted: &AtomicBool) -> Result<(), Silence> {
        loop {
            if interrupted.load(Ordering::SeqCst) {
                return Err(Silence::Interrupted);
            }
            let left = limit.checked_sub(begin.elapsed()).ok_or(Silence::Late(limit))?;
            let wait = PollTimeout::try_from(left.min(LOOK_PERIOD)).unwrap_or(PollTimeout::ZERO);
            match poll(&mut [PollFd::new(self.answers.as_fd(), PollFlags::POLLIN)], wait) {
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(_) => return Err(self.ended()),
            }
            let mut part = [0; PART_BYTES];
            let count = self.answers.read(&mut part).unwrap_or(0);
            self.heard.extend_from_slice(&part[..count]);
            return if count == 0 { Err(self.ended()) } else { Ok(()) };
        }
    }

    /// Its pipe is closed: it ended, or ends now.
    fn ended(&mut self) -> Silence {
        let begin = Instant::now();
        while begin.elapsed() < END_LIMIT {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Ok(Some(status)) => return Silence::Ended(status.to_string()),
                Err(cause) => return Silence::Ended(cause.to_string()),
            }
        }
        Silence::Ended("it closed its pipe".into())
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // Both fail only for a process that has already ended.
        if self.leads {
            let _ended = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        }
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

const LINE_BYTES_MAX: usize = 64 << 10;
const PART_BYTES: usize = 64 << 10;
/// So often somebody looks whether it was interrupted.
const LOOK_PERIOD: Duration = Duration::from_millis(50);
/// Between the end of its pipe and its own.
const END_LIMIT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    static NEVER: AtomicBool = AtomicBool::new(false);
    const SOON: Duration = Duration::from_millis(300);
    const LATE: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Python {
        Python::start(Command::new("sh").args(["-c", script]).stderr(Stdio::null()), true).expect("a shell")
    }

    #[test]
    fn lines_and_bytes_come_as_they_were_said() {
        let mut echo = shell("read a; echo \"$a\"; printf '123456\\nlast\\n'");
        echo.tell("hello").expect("it listens");
        assert_eq!(echo.line(LATE, &NEVER).expect("a line"), "hello");
        assert_eq!(echo.bytes(4, LATE, &NEVER).expect("four"), b"1234");
        assert_eq!(echo.line(LATE, &NEVER).expect("the rest"), "56");
        assert_eq!(echo.line(LATE, &NEVER).expect("a line"), "last");
        let end = echo.line(LATE, &NEVER).expect_err("that was all");
        assert_eq!(end.to_string(), "ended without an answer (exit status: 0)");
    }

    #[test]
    fn whoever_says_nothing_is_not_waited_for() {
        let begin = Instant::now();
        let late = shell("sleep 600").line(SOON, &NEVER).expect_err("it sleeps");
        assert_eq!(late.to_string(), "did not answer within 0.3 s");
        let left = shell("sleep 600").line(LATE, &AtomicBool::new(true)).expect_err("nobody waits");
        assert!(matches!(left, Silence::Interrupted), "{left}");
        assert!(begin.elapsed() < LATE / 2);
        let endless = shell("while :; do printf '%1000s' x; done").line(LATE, &NEVER).expect_err("no line");
        assert!(matches!(endless, Silence::Endless), "{endless}");
        let killed = shell("kill -9 $$").line(LATE, &NEVER).expect_err("it is gone");
        assert_eq!(killed.to_string(), "ended without an answer (signal: 9 (SIGKILL))");
    }

    #[test]
    fn who_leads_a_group_is_ended_with_all_that_it_started() {
        let mut family = shell("sleep 600 & echo $!; wait");
        let child = family.line(LATE, &NEVER).expect("its child's number");
        drop(family);
        let begin = Instant::now();
        // An orphan that was killed stays until whoever adopted it looks.
        let gone = || {
            let stat =
                std::fs::read_to_string(Path::new("/proc").join(&child).join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.starts_with(" Z"))
        };
        while !gone() {
            assert!(begin.elapsed() < LATE, "process {child} lives");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
