//! `plesio up` and `plesio status` as processes: two nodes adapt one model, one leaves, and what they refuse.

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
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder of this test's own, empty, and nobody else's.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _absent = fs::remove_dir_all(&path);
    DirBuilder::new().recursive(true).mode(0o700).create(&path).expect("the target folder is writable");
    path
}

fn plesio(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plesio"));
    command.args(arguments).stdin(Stdio::null()).current_dir(folder);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PLESIO_")) {
        command.env_remove(name);
    }
    command
}

fn output(folder: &Path, arguments: &[&str]) -> Output {
    plesio(folder, arguments).output().expect("the program runs")
}

/// What a refusal says.
fn refused(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = output(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains("cause: ") && said.contains("fix:   "), "{arguments:?}: {said}");
    said
}

/// A node that runs, and everything of its stream.
struct Node {
    child: Child,
    events: Arc<Mutex<Vec<Value>>>,
    reader: Option<JoinHandle<()>>,
}

impl Node {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut child = plesio(folder, arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
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
    fn newest<T>(&self, wanted: impl Fn(&str, &Value) -> Option<T>) -> Option<T> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().rev().find_map(|event| wanted(event["event"].as_str()?, &event["data"]))
    }

    fn wait<T>(&mut self, what: &str, wanted: impl Fn(&str, &Value) -> Option<T>) -> T {
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

    fn complaint(&mut self) -> String {
        let _ended = self.child.kill();
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _all = stderr.read_to_string(&mut said);
        }
        said
    }

    fn started(&mut self, field: &'static str) -> String {
        let start =
            |event: &str, data: &Value| (event == "start").then(|| data[field].as_str()?.to_owned().into());
        self.wait("start", |event, data| start(event, data).flatten())
    }

    fn version(&self) -> u64 {
        self.newest(|event, data| (event == "version").then(|| data["version"].as_u64()).flatten())
            .unwrap_or(0)
    }

    fn members(&self) -> usize {
        let members =
            |event: &str, data: &Value| (event == "view").then(|| data["members"].as_array().map(Vec::len));
        self.newest(|event, data| members(event, data).flatten()).unwrap_or(0)
    }

    fn digests(&self) -> BTreeMap<u64, String> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = |event: &Value| {
            let data = (event["event"] == "version").then(|| &event["data"])?;
            Some((data["version"].as_u64()?, data["digest"].as_str()?.to_owned()))
        };
        events.iter().filter_map(digest).collect()
    }

    /// Ctrl-C, and what it ends with.
    fn interrupt(mut self) -> (Option<i32>, Value) {
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

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_nodes_adapt_one_model_and_one_leaves() {
    let at = folder("up-two");
    for name in ["a", "b"] {
        assert!(output(&at, &["key", "gen", "-o", &format!("{name}.key")]).status.success());
    }
    let common = ["up", "--plaintext", "--json-stream", "--duty", "0.3"];
    let mut founder = Node::start(
        &at,
        &[&common[..], &["--found", "--key", "a.key", "--socket", "a.sock", "--out", "a"]].concat(),
    );
    let join = founder.started("join");
    let key = join.split_once('@').expect("KEY@ADDR").0.to_owned();
    let public = output(&at, &["key", "pub", "a.key"]).stdout;
    assert!(String::from_utf8_lossy(&public).contains(&key), "the key in the file is the node's");
    fs::write(
        at.join("b.toml"),
        format!("join = [\"{join}\"]\nkey = \"b.key\"\nsocket = \"b.sock\"\nout = \"b\"\n"),
    )
    .expect("our own folder");
    let mut joiner = Node::start(&at, &[&common[..], &["-c", "b.toml"]].concat());
    joiner.started("join");
    wait("a view of both", || founder.members() == 2 && joiner.members() == 2);
    let before = joiner.version();
    wait("versions of both", || founder.version() > before + 8 && joiner.version() > before + 8);
    let (ours, theirs) = (founder.digests(), joiner.digests());
    let both: Vec<u64> = ours.keys().filter(|version| theirs.contains_key(version)).copied().collect();
    assert!(both.len() >= 8, "{both:?}");
    both.iter().for_each(|version| assert_eq!(ours[version], theirs[version], "version {version}"));

    // A member's own view of it, in its three forms.
    let asked = output(&at, &["status", "--socket", "a.sock", "--json"]);
    let status: Value = serde_json::from_slice(&asked.stdout).expect("one document");
    assert_eq!((&status["schema"], &status["node"]), (&"plesio.status/1".into(), &key.as_str().into()));
    assert_eq!(status["members"].as_array().map(Vec::len), Some(2));
    assert!(status["version"].as_u64() > Some(before) && status["steps_committed"].as_u64() > Some(0));
    assert!(status["data_sent_bytes"].as_u64() > Some(0) && status["loss"].as_f64() > Some(0.0));
    let dump =
        String::from_utf8(output(&at, &["status", "--socket", "b.sock", "--dump"]).stdout).expect("text");
    assert!(dump.lines().all(|line| line.split('\t').count() == 2), "{dump}");
    assert!(dump.contains("\npid\t") && dump.contains("\nview\t"), "{dump}");
    let text = String::from_utf8(output(&at, &["status", "--socket", "b.sock"]).stdout).expect("text");
    assert!(text.contains(&key[..16]) && text.contains("loss"), "{text}");

    let (code, end) = joiner.interrupt();
    assert_eq!(code, Some(130), "{end}");
    assert_eq!(end["interrupted"], true);
    assert!(at.join("b/adapter/adapter_model.safetensors").is_file() && !at.join("b.sock").exists());
    wait("a view without it", || founder.members() == 1);
    let before = founder.version();
    wait("versions without it", || founder.version() > before + 2);
    let (code, end) = founder.interrupt();
    assert_eq!((code, &end["schema"]), (Some(130), &"plesio.up/1".into()));
    assert!(end["version"].as_u64() > Some(before) && end["digest"].is_string(), "{end}");
    assert!(at.join("a/adapter/adapter_config.json").is_file() && !at.join("a.sock").exists());
    assert!(refused(&at, &["status", "--socket", "a.sock"], 4).contains("no-node"));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let at = folder("up-refused");
    let write = |name: &str, text: &str| fs::write(at.join(name), text).expect("our own folder");
    assert!(refused(&at, &["up", "--plaintext"], 2).contains("--found"));
    write("wrong.toml", "found = true\nlisen = \"127.0.0.1:0\"\n");
    assert!(refused(&at, &["up", "-c", "wrong.toml"], 2).contains("did you mean \"listen\""));
    write("broken.toml", "found = \n");
    assert!(refused(&at, &["up", "-c", "broken.toml"], 2).contains("line 1"));
    assert!(refused(&at, &["up", "-c", "absent.toml"], 2).contains("absent.toml"));
    let away = ["up", "--found", "--plaintext", "--listen", "192.0.2.1:7000"];
    assert!(refused(&at, &away, 2).contains("captive"));
    write("public.key", "plesio-node-key 1\n");
    assert!(refused(&at, &["up", "--found", "--plaintext", "--key", "public.key"], 2).contains("key-mode"));
    write("short.txt", "short");
    assert!(refused(&at, &["up", "--found", "--plaintext", "--data", "short.txt"], 2).contains("short.txt"));
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("it is bound").to_string();
    assert!(refused(&at, &["up", "--found", "--plaintext", "--listen", &address], 1).contains(&address));
    fs::create_dir(at.join("open")).expect("our own folder");
    let open = ["up", "--found", "--plaintext", "--socket", "open/node.sock"];
    fs::set_permissions(at.join("open"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    assert!(refused(&at, &open, 2).contains("0755"));
    assert!(refused(&at, &["status", "--socket", "absent.sock"], 4).contains("absent.sock"));
    // A socket that says nonsense is no node.
    let listener = std::os::unix::net::UnixListener::bind(at.join("liar.sock")).expect("our own folder");
    let liar = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("it asks");
        std::io::Write::write_all(&mut client, b"\x1b[2J{\"schema\":").expect("it reads");
    });
    let said = refused(&at, &["status", "--socket", "liar.sock"], 4);
    assert!(said.contains("no status") && !said.contains('\u{1b}'), "{said}");
    liar.join().expect("it spoke once");
}
