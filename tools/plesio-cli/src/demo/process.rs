//! The node processes: started, heard, killed and reaped.
//!
//! The invariant: no process outlives the launcher, however that ends. A node dies with the thread that
//! started it (`PR_SET_PDEATHSIG`, set by the node itself before it opens anything), ends when its stdin
//! does, and is killed and reaped when the [`Fleet`] goes. Nodes stand in process groups of their own, so
//! that Ctrl-C at a terminal reaches the launcher alone and the end stays orderly.

use super::output;
use super::protocol::{self, Said, Told};
use crate::failure::Failure;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// How much of a log is quoted in an error.
const QUOTED_BYTES_MAX: u64 = 600;
/// How long a process may take to be reaped once its pipe has closed.
const REAP_LIMIT: Duration = Duration::from_secs(2);

/// What the launcher hears.
#[derive(Debug)]
pub(crate) enum Heard {
    Said(usize, Box<Said>),
    /// A node's last word and its state.
    State(usize, Vec<f32>),
    /// A node's pipe has closed.
    Gone(usize),
    /// Ctrl-C, or a signal that means the same.
    Signal,
}

/// All processes of one mesh.
pub(crate) struct Fleet {
    nodes: Vec<Option<Node>>,
    logs: PathBuf,
    heard: Sender<Heard>,
    state_bytes: usize,
}

struct Node {
    child: Child,
    told: Option<ChildStdin>,
    status: Option<ExitStatus>,
}

impl Fleet {
    /// Room for `count` nodes whose states are `elements` floats long; logs go to the folder `logs`.
    pub(crate) fn new(count: usize, logs: PathBuf, elements: usize, heard: Sender<Heard>) -> Self {
        let nodes = std::iter::repeat_with(|| None).take(count).collect();
        Self { nodes, logs, heard, state_bytes: elements * size_of::<f32>() }
    }

    /// Room for one more node: its index.
    pub(crate) fn add(&mut self) -> usize {
        self.nodes.push(None);
        self.nodes.len() - 1
    }

    /// Starts node `index`. Call from a thread that lives as long as the demo: nodes die with it.
    pub(crate) fn start(&mut self, index: usize, setup: protocol::Setup) -> Result<(), Failure> {
        let name = setup.name.clone();
        let failure = |cause: std::io::Error| {
            Failure::run("node-start", format!("cannot start node {name}"), cause)
                .fix("see whether the limit of processes or memory is reached (ulimit -a)")
        };
        let log = output::create_new(&self.log_path(&name)).map_err(failure)?;
        // The running image, even when the file has been replaced by a newer build.
        let mut child = Command::new("/proc/self/exe")
            .arg0("plesio")
            .arg("demo-node")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(failure)?;
        let (told, said) = (child.stdin.take(), child.stdout.take());
        self.nodes[index] = Some(Node { child, told, status: None });
        let (heard, state_bytes) = (self.heard.clone(), self.state_bytes);
        let reader = std::thread::Builder::new().name(format!("hear-{name}"));
        let said = said.ok_or_else(|| failure(std::io::ErrorKind::BrokenPipe.into()))?;
        reader.spawn(move || hear(index, said, state_bytes, &heard)).map_err(failure)?;
        self.tell(index, &Told::Setup(Box::new(setup)));
        Ok(())
    }

    /// Tells a node something; one that is gone will be heard of by its closed pipe.
    pub(crate) fn tell(&mut self, index: usize, told: &Told) {
        if let Some(Node { told: Some(pipe), .. }) = &mut self.nodes[index] {
            // A broken pipe needs no answer: `Gone` is on its way.
            let _gone = protocol::write_message(pipe, told, b"");
        }
    }

    /// SIGSTOP, or SIGCONT; whether there was a process to hear it.
    pub(crate) fn signal(&mut self, index: usize, signal: Signal) -> bool {
        let Some(node) = self.nodes[index].as_ref().filter(|node| node.status.is_none()) else {
            return false;
        };
        // Not reaped yet, so the number is nobody else's.
        nix::sys::signal::kill(Pid::from_raw(node.child.id() as i32), signal).is_ok()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(node) = &mut self.nodes[index] {
            // Fails only for a process that has already ended.
            let _ended = node.child.kill();
        }
    }

    /// Closes a node's stdin and collects its exit status; kills it when it lingers.
    pub(crate) fn reap(&mut self, index: usize) -> Option<ExitStatus> {
        let node = self.nodes[index].as_mut()?;
        node.told = None;
        let deadline = Instant::now() + REAP_LIMIT;
        while node.status.is_none() {
            match node.child.try_wait() {
                Ok(Some(status)) => node.status = Some(status),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                Ok(None) | Err(_) => {
                    let _ended = node.child.kill();
                    node.status = node.child.wait().ok();
                    break;
                }
            }
        }
        node.status
    }

    /// Lets go of a node that is gone, and of its log.
    pub(crate) fn forget(&mut self, index: usize, name: &str) {
        self.nodes[index] = None;
        // A log that cannot be taken away stays.
        let _stays = std::fs::remove_file(self.log_path(name));
    }

    /// The last lines a node wrote to its log.
    pub(crate) fn log_tail(&self, name: &str) -> String {
        let read = || -> std::io::Result<String> {
            let mut log = File::open(self.log_path(name))?;
            let len_bytes = log.metadata()?.len();
            log.seek(SeekFrom::Start(len_bytes.saturating_sub(QUOTED_BYTES_MAX)))?;
            let mut bytes = Vec::new();
            log.take(QUOTED_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        read().unwrap_or_default()
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut().flatten().filter(|node| node.status.is_none()) {
            let _ended = node.child.kill();
        }
        for node in self.nodes.iter_mut().flatten().filter(|node| node.status.is_none()) {
            let _reaped = node.child.wait();
        }
    }
}

/// Whether SIGKILL ended a process.
pub(crate) fn was_killed(status: Option<ExitStatus>) -> bool {
    status.and_then(|status| status.signal()) == Some(nix::libc::SIGKILL)
}

/// In words, how a process ended.
pub(crate) fn ending(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!("exit status {code}"),
        Some((None, Some(signal))) => format!("ended by signal {signal}"),
        _ => "ended".into(),
    }
}

/// The next thing that a node says or does, waiting `limit` at most.
pub(crate) fn next_heard(heard: &Receiver<Heard>, limit: Duration) -> Option<Heard> {
    match heard.recv_timeout(limit) {
        Ok(heard) => Some(heard),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => {
            // The caller's own fleet holds a sender: this cannot be, and must not spin.
            std::thread::sleep(limit);
            None
        }
    }
}

/// Passes on what a node says until its pipe closes; a broken message is the end of the node's words.
fn hear(index: usize, said: impl Read, state_bytes: usize, heard: &Sender<Heard>) {
    let mut said = BufReader::new(said);
    while let Ok(Some(message)) = protocol::read_message::<Said>(&mut said) {
        if let Said::Final(last) = &message
            && last.state_bytes > 0
        {
            let Ok(raw) = protocol::read_raw(&mut said, last.state_bytes, state_bytes) else { break };
            let floats = raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            let _ended = heard.send(Heard::State(index, floats.collect()));
        }
        if heard.send(Heard::Said(index, Box::new(message))).is_err() {
            return;
        }
    }
    let _ended = heard.send(Heard::Gone(index));
}
