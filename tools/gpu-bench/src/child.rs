//! Programs that are run with a limit: their lines as they come, and what they complained of last.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::deadline::Deadline;
use crate::threads;

/// How much of the last complaints is kept, lines.
const LAST_LINES: usize = 12;
/// A line is cut here, bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// How often it is asked whether all has to be over.
const LOOK: Duration = Duration::from_millis(20);

/// How a program ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// By itself.
    Done { status: ExitStatus, complaints: String },
    /// It was ended, because its time was over.
    Late { complaints: String },
}

/// Runs a program in a process group of its own, and shows each of its lines. When its time is over, the group is
/// ended. `fix` is for one that is not there.
///
/// # Errors
/// It cannot be started, or nothing that reads what it says; then it is ended.
pub(crate) fn run(
    command: &mut Command,
    fix: &str,
    deadline: Deadline,
    mut see: impl FnMut(&str),
) -> Result<Ending, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| {
        let fix = if error.kind() == io::ErrorKind::WouldBlock { threads::FIX } else { fix };
        format!("{program} cannot be started: {error}; {fix}")
    })?;
    let (send, receive) = mpsc::channel();
    let stdout = child.stdout.take().expect("it is piped");
    // It ends when the program and all that it started have closed their ends; nobody waits for that.
    let readers = threads::start("stdout", move || lines(stdout, |line| send.send(line).is_ok()));
    let stderr = child.stderr.take().expect("it is piped");
    let (tell, told) = mpsc::channel();
    let hear = move || lines(stderr, |line| tell.send(line).is_ok());
    if let Err(why) = readers.and_then(|()| threads::start("stderr", hear)) {
        end(&mut child);
        return Err(format!("{program} was ended: {why}"));
    }
    while !deadline.is_over() {
        match receive.recv_timeout(deadline.left().min(LOOK)) {
            Ok(line) => see(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
    let mut ended = None;
    while ended.is_none() && !deadline.is_over() {
        ended = child.try_wait().map_err(|error| format!("{program}: {error}"))?;
        thread::sleep(Duration::from_millis(5));
    }
    if ended.is_none() {
        end(&mut child);
    }
    let mut complaints: Vec<String> = Vec::new();
    while let Ok(line) = told.recv_timeout(Duration::from_millis(200)) {
        complaints.push(line);
        complaints.drain(..complaints.len().saturating_sub(LAST_LINES));
    }
    let complaints = complaints.join("\n");
    Ok(match ended {
        Some(status) => Ending::Done { status, complaints },
        None => Ending::Late { complaints },
    })
}

/// Ends a program and what it started; by now it may have ended by itself.
fn end(child: &mut Child) {
    // It is not waited for yet, so no other group can have its number.
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    let _gone = group.map(|group| killpg(group, Signal::SIGKILL));
    let _status = child.wait();
}

/// Hands on each line until nobody wants them.
fn lines(from: impl Read, mut hand_on: impl FnMut(String) -> bool) {
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        let count = from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let text = String::from_utf8_lossy(&line).trim_end().to_string();
        if !matches!(count, Ok(1..)) || !hand_on(text) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use super::*;

    fn shell(text: &str, limit_ms: u64) -> (Vec<String>, Ending) {
        let mut seen = Vec::new();
        let deadline = Deadline::new(Duration::from_millis(limit_ms));
        let ending = run(Command::new("sh").args(["-c", text]), "", deadline, |line| seen.push(line.into()));
        (seen, ending.expect("there is a shell"))
    }

    #[test]
    fn lines_come_in_order_and_the_end_has_its_status_and_complaints() {
        let (seen, ending) = shell("echo one; echo two; echo why >&2; exit 3", 20_000);
        assert_eq!(seen, ["one", "two"]);
        let Ending::Done { status, complaints } = ending else { panic!("{ending:?}") };
        assert_eq!((status.code(), complaints.as_str()), (Some(3), "why"));
    }

    #[test]
    fn who_takes_too_long_is_ended() {
        let begin = Instant::now();
        let (seen, ending) = shell("echo begun; exec sleep 60", 300);
        assert_eq!(seen, ["begun"]);
        assert!(matches!(ending, Ending::Late { .. }), "{ending:?}");
        assert!(begin.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn who_is_told_to_stop_is_ended_with_all_that_it_started() {
        let deadline = Deadline::new(Duration::from_secs(60));
        let mut started = None;
        let ending = run(Command::new("sh").args(["-c", "sleep 60 & echo $!; wait"]), "", deadline, |line| {
            started = line.parse::<u32>().ok();
            deadline.stop();
        });
        assert!(matches!(ending, Ok(Ending::Late { .. })) && !deadline.left().is_zero(), "{ending:?}");
        let status = format!("/proc/{}/status", started.expect("it said a number"));
        let begin = Instant::now();
        // An orphan that has ended may wait for whoever inherits it.
        while fs::read_to_string(&status).is_ok_and(|status| !status.contains("State:\tZ")) {
            assert!(begin.elapsed() < Duration::from_secs(20), "it still runs");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let deadline = Deadline::new(Duration::from_secs(1));
        let error = run(&mut Command::new("./no-such-program"), "name one", deadline, |_| ())
            .expect_err("it is not there");
        assert!(error.starts_with("./no-such-program cannot be started: "), "{error}");
        assert!(error.ends_with("; name one"), "{error}");
    }
}
