//! What tests of running nodes share: folders, keys, and nodes whose stream is read.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a busy machine may take for what takes seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A folder of this test's own, empty, and nobody else's.
pub(crate) fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _absent = fs::remove_dir_all(&path);
    DirBuilder::new().recursive(true).mode(0o700).create(&path).expect("the target folder is writable");
    path
}

pub(crate) fn plesio(folder: &Path, arguments: &[&str]) -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_plesio")), folder, arguments)
}

pub(crate) fn clean(mut command: Command, folder: &Path, arguments: &[&str]) -> Command {
    command.args(arguments).stdin(Stdio::null()).current_dir(folder);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PLESIO_")) {
        command.env_remove(name);
    }
    command
}

pub(crate) fn output(folder: &Path, arguments: &[&str]) -> Output {
    plesio(folder, arguments).output().expect("the program runs")
}

/// What a refusal says.
pub(crate) fn refused(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = output(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains("cause: ") && said.contains("fix:   "), "{arguments:?}: {said}");
    said
}

/// A node that runs, and everything of its stream.
pub(crate) struct Node {
    pub(crate) child: Child,
    events: Arc<Mutex<Vec<Value>>>,
    reader: Option<JoinHandle<()>>,
}

impl Node {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
        let events = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&events);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).expect("every line is JSON");
                log.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            }
        });
        Self { child, events, reader: Some(reader) }
    }

    /// The newest that `wanted` finds.
    pub(crate) fn newest<T>(&self, wanted: impl Fn(&str, &Value) -> Option<T>) -> Option<T> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().rev().find_map(|event| wanted(event["event"].as_str()?, &event["data"]))
    }

    pub(crate) fn wait<T>(&mut self, what: &str, wanted: impl Fn(&str, &Value) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = self.newest(&wanted) {
                return found;
            }
            let gone = self.child.try_wait().expect("it is our child");
            if gone.is_some() || begun.elapsed() > PATIENCE {
                panic!("no {what}; {gone:?}: {}", self.complaint());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn complaint(&mut self) -> String {
        let _ended = self.child.kill();
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _all = stderr.read_to_string(&mut said);
        }
        said
    }

    pub(crate) fn started(&mut self, field: &'static str) -> String {
        let start =
            |event: &str, data: &Value| (event == "start").then(|| data[field].as_str()?.to_owned().into());
        self.wait("start", |event, data| start(event, data).flatten())
    }

    pub(crate) fn version(&self) -> u64 {
        self.newest(|event, data| (event == "version").then(|| data["version"].as_u64()).flatten())
            .unwrap_or(0)
    }

    pub(crate) fn members(&self) -> usize {
        let members =
            |event: &str, data: &Value| (event == "view").then(|| data["members"].as_array().map(Vec::len));
        self.newest(|event, data| members(event, data).flatten()).unwrap_or(0)
    }

    pub(crate) fn digests(&self) -> BTreeMap<u64, String> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = |event: &Value| {
            let data = (event["event"] == "version").then(|| &event["data"])?;
            Some((data["version"].as_u64()?, data["digest"].as_str()?.to_owned()))
        };
        events.iter().filter_map(digest).collect()
    }

    /// Ctrl-C, and what it ends with.
    pub(crate) fn interrupt(mut self) -> (Option<i32>, Value) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).expect("it runs");
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                panic!("it does not end: {}", self.complaint());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        self.reader.take().expect("not joined yet").join().expect("the reader ends with the stream");
        let end = self.newest(|event, data| (event == "end").then(|| data.clone()));
        (status.code(), end.unwrap_or_else(|| panic!("no end: {}", self.complaint())))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

pub(crate) fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs `plesio key` with every word an argument.
pub(crate) fn key(folder: &Path, line: &str) {
    let arguments: Vec<&str> = std::iter::once("key").chain(line.split_whitespace()).collect();
    let output = output(folder, &arguments);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Keys of one mesh: an operator's, the pool's, and those of the nodes a and b with their tickets.
pub(crate) fn keys(folder: &Path) {
    key(folder, "gen operator -o operator.key");
    key(folder, "pub operator.key -o operator.pub");
    key(folder, "gen pool -o pool.key");
    for name in ["a", "b"] {
        key(folder, &format!("gen -o {name}.key"));
        key(folder, &format!("pub {name}.key -o {name}.pub"));
        let ticket = "ticket --operator operator.key --pool pool.key --not-after-view 100";
        key(folder, &format!("{ticket} --node {name}.pub -o {name}.ticket"));
    }
}
