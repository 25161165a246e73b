//! A node whose machine was started at another time: its monotonic clock is months ahead of the others'.
//!
//! A time namespace gives one process such a clock; where the kernel or the user's rights do not, the test skips aloud. What
//! can be tested so is the offset alone (F11): every process of a machine has the same rate.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a busy machine may take for what takes seconds.
const PATIENCE: Duration = Duration::from_secs(90);
/// What the odd clock is ahead.
const AHEAD_S: i64 = 10_000_000;

/// A node in a process, and the lines of its stream.
struct Node {
    child: Child,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Node {
    fn start(folder: &Path, wrapper: &[&str], line: &[&str]) -> Self {
        let program = env!("CARGO_BIN_EXE_plesio");
        let all: Vec<&str> = wrapper.iter().chain(&[program]).chain(line).copied().collect();
        let mut command = Command::new(all[0]);
        command.args(&all[1..]).current_dir(folder).stdin(Stdio::null()).stderr(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PLESIO_")) {
            command.env_remove(name);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
        let events = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&events);
        std::thread::spawn(move || {
            for event in lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()) {
                log.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            }
        });
        Self { child, events }
    }

    /// What `wanted` finds of every event of a kind.
    fn all<T>(&self, kind: &str, wanted: impl Fn(&Value) -> Option<T>) -> Vec<T> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events
            .iter()
            .filter(|event| event["event"] == kind)
            .filter_map(|event| wanted(&event["data"]))
            .collect()
    }

    /// Versions and digests, in order.
    fn digests(&self) -> Vec<(u64, String)> {
        self.all("version", |data| Some((data["version"].as_u64()?, data["digest"].as_str()?.to_owned())))
    }

    fn members(&self) -> usize {
        self.all("view", |data| Some(data["members"].as_array()?.len())).last().copied().unwrap_or(0)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A wrapper's child dies with it (`--kill-child`).
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn folder() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clock");
    let _absent = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("the target folder is writable");
    path
}

#[test]
fn a_node_whose_clock_is_months_ahead_is_one_of_them() {
    let ahead = AHEAD_S.to_string();
    let wrapper = ["unshare", "--time", "--monotonic", &ahead, "--boottime", &ahead, "--kill-child"];
    let uptime = Command::new(wrapper[0]).args(&wrapper[1..]).args(["cat", "/proc/uptime"]).output();
    let has_it = uptime.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split('.').next().and_then(|seconds| seconds.parse::<i64>().ok()).is_some_and(|up| up > AHEAD_S)
    });
    if !has_it {
        // To stderr itself: what a passing test prints is kept from the reader.
        let _closed = writeln!(std::io::stderr(), "skipped: no time namespace here (unshare --time)");
        return;
    }
    let folder = folder();
    let common = ["up", "--plaintext", "--json-stream", "--duty", "0.2"];
    let first = Node::start(&folder, &[], &[&common[..], &["--found", "--out", "a"]].concat());
    wait("the first node", || {
        !first.all("start", |data| data["join"].as_str().map(str::to_owned)).is_empty()
    });
    let reach = first.all("start", |data| data["join"].as_str().map(str::to_owned)).remove(0);
    wait("versions of one", || first.digests().len() >= 4);
    let odd = Node::start(&folder, &wrapper, &[&common[..], &["--join", &reach, "--out", "b"]].concat());
    wait("a mesh of two", || first.members() == 2 && odd.members() == 2);
    let before = first.digests().last().map_or(0, |(version, _)| *version);
    wait("versions of both", || {
        [&first, &odd]
            .iter()
            .all(|node| node.digests().last().is_some_and(|(version, _)| *version >= before + 12))
    });
    let (ours, theirs) = (first.digests(), odd.digests());
    let common = ours.iter().filter(|(version, _)| theirs.iter().any(|(other, _)| other == version));
    let mut count = 0;
    for (version, digest) in common {
        let other = theirs.iter().find(|(other, _)| other == version).map(|(_, digest)| digest);
        assert_eq!(other, Some(digest), "version {version}");
        count += 1;
    }
    assert!(count >= 12, "{count} versions in common");
    let gone = first.all("view", |data| data["removed"].as_array().map(Vec::len));
    assert!(gone.iter().all(|removed| *removed == 0), "nobody was put out");
}
