//! `plesio up`: a node of a mesh that trains a text, until Ctrl-C, and leaves with the mesh's adapter.
//!
//! ```text
//!  signals    Ctrl-C, to the ender           events     what the node reports: lines, stream, status
//!  ender      settle, leave, finish           status     answers `plesio status`
//!  this       trains, below the node's own threads in priority
//! ```

mod file;
pub(crate) mod place;
mod seen;
mod settings;
mod socket;

use crate::args::{Seed, UpArgs};
use crate::demo::data;
use crate::demo::output::Folder;
use crate::demo::train::{self, Student};
use crate::failure::{Exit, Failure};
use crate::hex::hex;
use crate::status::{SCHEMA as STATUS_SCHEMA, Status};
use crate::{random, signals, stdout, work};
use place::Place;
use plesio::{Control, Final, Identity, Node, NodeConfig, NodeEvent, Protection, Running, What};
use plesio_wire::data::{CHUNK_BYTES_JUMBO, CHUNK_BYTES_LOOPBACK};
use plesio_wire::{Incarnation, NodeId};
use seen::{Seen, Voice};
use serde_json::json;
use settings::Settings;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

const SCHEMA: &str = "plesio.up/1";
/// Start of the adapter, the same for every member of every mesh.
const ADAPTER_SEED: u64 = 1;
/// Longest text that is read.
const TEXT_BYTES_MAX: u64 = 1 << 30;
/// How long the others may take to do without this node.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// How long a mesh may take to let this node in, or to say why not.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// How long what is still this node's may take to be brought in; the training thread ends its wait before.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// What the ender hears.
enum Heard {
    /// Ctrl-C.
    Signal,
    Settled,
    Left,
    /// The node has ended by itself.
    Ended,
}

pub(crate) fn run(args: &UpArgs) -> Result<Exit, Failure> {
    let settings = Settings::gather(args)?;
    let text = Text::read(&settings)?;
    let (heard_sender, heard) = mpsc::channel();
    let interrupts = heard_sender.clone();
    // Before the first thread: they inherit the mask.
    signals::watch(move || drop(interrupts.send(Heard::Signal)))?;
    let folder = Folder::take(&settings.out)?;
    let voice = Arc::new(Voice::new(&args.output));

    let model = |error| Failure::run("model", "cannot load the model", error);
    let base = data::base().map_err(model)?;
    let elements = train::elements(&base, ADAPTER_SEED).map_err(model)?;
    let mut student = Student::new(&base, ADAPTER_SEED, text.bytes, settings.seed).map_err(model)?;
    student.warm_up().map_err(|cause| {
        Failure::usage("data", format!("cannot train on {}", text.name), cause)
            .fix("give --data a text of some thousand bytes at least")
    })?;

    let node = Node::bind(config(&settings, elements)?).map_err(cannot_open)?;
    let public = settings.public;
    let key = hex(&public.x25519);
    let sealed = matches!(settings.protection, Protection::Sealed(_));
    let protection = if sealed { "sealed" } else { "plaintext" };
    let found = node.found().clone();
    let hello = node.hello();
    let seen = Arc::new(Seen::new(Status {
        schema: STATUS_SCHEMA.into(),
        node: key.clone(),
        pid: std::process::id(),
        mesh: format!("{:016x}", settings.mesh()),
        sideband: Some(hello.sideband),
        data: Some(hello.data),
        backend: found.backend.clone(),
        protection: protection.into(),
        state: "acquire".into(),
        ..Status::default()
    }));
    let place = answer_status(&settings, &seen, &voice, &key)?;
    let socket = place.as_ref().map(|place| place.path.display().to_string());
    let reach = Seed { key: Some(public.x25519), sideband: hello.sideband, data: hello.data }.to_string();
    let start = json!({
        "schema": SCHEMA,
        "config": args,
        "host": crate::host::Host::look(found.backend.clone(), found.backend_reason.clone()),
        "node": key,
        "join": reach,
        "sideband": hello.sideband,
        "data": hello.data,
        "protection": protection,
        "text": text.name,
        "elements": elements,
        "arena_bytes": found.arena_bytes,
        "locked_bytes": found.locked_bytes,
        "notes": found.notes,
        "socket": socket,
    });
    voice.emit("start", &start);
    let line = |name: &str, value: &str| voice.line(&format!("{name:<12} {value}"));
    line("node", &key);
    line("addresses", &format!("sideband {}, data {}", hello.sideband, hello.data));
    line("data plane", &format!("{}: {}", found.backend, found.backend_reason));
    line(
        "protection",
        match (sealed, settings.on_host()) {
            (true, _) => "sealed: only who holds the pool key and a ticket is heard",
            (false, true) => "none: plaintext, on this host alone",
            (false, false) => "none: plaintext, on a captive network",
        },
    );
    line("memory", &format!("{} bytes of tensors, {} locked", found.arena_bytes, found.locked_bytes));
    line("training", &format!("{elements} elements, on {}", text.name));
    line(
        "status",
        &socket.map_or("not to be asked for".into(), |path| format!("plesio status --socket {path}")),
    );
    found.notes.iter().for_each(|note| line("note", note));
    let with = if sealed { "--key, --ticket, --pool and --operator FILES" } else { "--plaintext" };
    line("another node", &format!("plesio up --join {reach} with {with}"));

    let running = if settings.join.is_empty() {
        node.start(&[hello])
    } else {
        let seed = |seed: &Seed| plesio::Seed {
            id: NodeId(seed.key.unwrap_or_default()), // Plaintext does without.
            sideband: seed.sideband,
            data: seed.data,
        };
        node.join(&settings.join.iter().map(seed).collect::<Vec<_>>())
    };
    let ended = train_until_told(
        running.map_err(cannot_open)?,
        &mut student,
        &settings,
        (heard_sender, heard),
        &seen,
        &voice,
    );
    drop(place);
    let Ended { last, healthy, why, failed } = ended?;
    if why == Why::NobodyThere {
        let seeds: Vec<String> = settings.join.iter().map(ToString::to_string).collect();
        let failure = Failure::run(
            "join",
            format!("cannot join the mesh at {}", seeds.join(", ")),
            format!("no member let this node in within {JOIN_LIMIT:?}"),
        )
        .fix("see whether a node runs there and the network lets UDP through, both ways");
        return Err(Failure { exit: Exit::Unreachable, ..failure });
    }
    let interrupted = why == Why::Signal;
    if let Some(last) = &last {
        let files = train::moved(&base, ADAPTER_SEED, &last.state)
            .and_then(|trainer| trainer.export(data::BASE_NAME))
            .map_err(|error| Failure::run("export", "cannot export the adapter", error))?;
        folder.write_adapter(&files)?;
        voice.say(&format!("version {}: its adapter is in {}", last.version.0, folder.adapter().display()));
    }
    let mut document = start;
    document["version"] = json!(last.as_ref().map(|last| last.version.0));
    document["digest"] = json!(last.as_ref().map(|last| last.digest.to_string()));
    document["interrupted"] = json!(interrupted);
    document["status"] = json!(seen.status());
    voice.emit("end", &document);
    if args.output.json {
        stdout::document(&document);
    }
    match failed {
        Some(cause) => Err(Failure::run("node", "the node stopped", cause)),
        None if !healthy => Ok(Exit::Failed),
        None if interrupted => Ok(Exit::Interrupted),
        None => Ok(Exit::Ok),
    }
}

fn cannot_open(cause: plesio::NodeError) -> Failure {
    Failure::run("node", "cannot open the node", cause)
        .fix("see whether the address is one of this machine's and its port is free (ss -lun)")
}

fn config(settings: &Settings, elements: usize) -> Result<NodeConfig, Failure> {
    let incarnation = Incarnation(random::number()?);
    let mut config = match &settings.protection {
        Protection::Sealed(identity) => NodeConfig::new(Identity::clone(identity), incarnation, elements),
        Protection::Plaintext => {
            NodeConfig::plaintext(settings.public.id(), incarnation, settings.mesh(), elements)
        }
    };
    config.trust = settings.trust;
    // At most: on the way to another host it is what the path carries.
    config.chunk_bytes = if settings.on_host() { CHUNK_BYTES_LOOPBACK } else { CHUNK_BYTES_JUMBO };
    config.sideband = settings.listen;
    config.data = settings.listen_data;
    config.backend = settings.backend;
    config.wait = settings.wait;
    config.period_ns = settings.period_ns;
    config.model = data::base_digest();
    Ok(config)
}

/// Opens the socket for `plesio status`. Where it was not asked for, a node goes without.
fn answer_status(
    settings: &Settings,
    seen: &Arc<Seen>,
    voice: &Voice,
    key: &str,
) -> Result<Option<Place>, Failure> {
    let (place, listener) = match Place::take(settings.socket.as_deref(), &key[..16]) {
        Ok(taken) => taken,
        Err(failure) if settings.socket.is_some() => return Err(failure),
        Err(failure) => {
            voice.line(&format!("note         no status: {}: {}", failure.what, failure.cause));
            return Ok(None);
        }
    };
    let seen = Arc::clone(seen);
    spawn("status", move || socket::serve(&listener, &seen))?;
    Ok(Some(place))
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, Failure> {
    let thread = std::thread::Builder::new().name(name.into());
    thread.spawn(work).map_err(|cause| Failure::run("node", "cannot start a thread", cause))
}

/// How it ended.
struct Ended {
    last: Option<Box<Final>>,
    /// Nothing contradicted what this node holds.
    healthy: bool,
    why: Why,
    failed: Option<String>,
}

/// Why a node ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Why {
    Signal,
    Time,
    /// Nobody let it in.
    NobodyThere,
    /// By itself; its last event says why.
    Itself,
}

/// Trains and contributes until it is told to stop or the node ends, and leaves the mesh.
fn train_until_told(
    running: Running,
    student: &mut Student,
    settings: &Settings,
    (sender, heard): (Sender<Heard>, Receiver<Heard>),
    seen: &Arc<Seen>,
    voice: &Arc<Voice>,
) -> Result<Ended, Failure> {
    let Running { mut worker, events, control, thread: node } = running;
    let settle = Arc::new(AtomicBool::new(false));
    let (listener_seen, listener_voice, listener_sender) =
        (Arc::clone(seen), Arc::clone(voice), sender.clone());
    let listener =
        spawn("events", move || listen(&events, &listener_seen, &listener_voice, &listener_sender))?;
    let ender = Ender {
        heard,
        control: control.clone(),
        settle: Arc::clone(&settle),
        seen: Arc::clone(seen),
        voice: Arc::clone(voice),
        limit: settings.seconds.map(|seconds| Duration::from_secs(seconds.into())),
        joins: !settings.join.is_empty(),
    };
    let ender = spawn("ender", move || ender.run())?;
    let tell = |told| match told {
        work::Told::Attached { version } => voice.say(&format!("training begins at version {version}")),
        work::Told::Step { steps, loss, .. } => seen.handle_step(steps, loss),
        work::Told::Settled { .. } => drop(sender.send(Heard::Settled)),
    };
    let trained = work::work(student, &mut worker, settings.duty, &settle, tell);
    if trained.is_err() {
        control.stop();
    }
    let (last, healthy, failed) = listener.join().unwrap_or((None, false, None));
    node.join();
    let _told = sender.send(Heard::Ended);
    let why = ender.join().unwrap_or(Why::Itself);
    trained?;
    Ok(Ended { last, healthy, why, failed })
}

/// Hears the node until it has ended: its last word, whether it is sound, and why it failed.
fn listen(
    events: &Receiver<NodeEvent>,
    seen: &Seen,
    voice: &Voice,
    sender: &Sender<Heard>,
) -> (Option<Box<Final>>, bool, Option<String>) {
    let (mut last, mut healthy, mut failed) = (None, true, None);
    while let Ok(event) = events.recv() {
        seen.handle_event(&event.what);
        voice.handle_event(&event, seen);
        match event.what {
            What::Left => drop(sender.send(Heard::Left)),
            What::Diverged { .. } => healthy = false,
            What::Failed(cause) => failed = Some(cause),
            What::Final(word) => last = Some(word),
            _ => {}
        }
    }
    let _told = sender.send(Heard::Ended);
    (last, healthy, failed)
}

/// Brings a node to its end in good order.
struct Ender {
    heard: Receiver<Heard>,
    control: Control,
    settle: Arc<AtomicBool>,
    seen: Arc<Seen>,
    voice: Arc<Voice>,
    limit: Option<Duration>,
    joins: bool,
}

impl Ender {
    /// Waits for a reason to end, then ends.
    fn run(self) -> Why {
        let why = self.reason();
        if matches!(why, Why::Itself | Why::NobodyThere) {
            self.control.stop();
            return why;
        }
        self.voice.say("bringing in what is trained; Ctrl-C again ends at once");
        self.settle.store(true, Ordering::Relaxed);
        if self.seen.status().view.is_some() {
            self.wait(Some(SETTLE_LIMIT), |heard| matches!(heard, Heard::Settled));
            if self.seen.status().members.len() > 1 {
                self.control.leave();
                self.wait(Some(LEAVE_LIMIT), |heard| matches!(heard, Heard::Left));
            }
        }
        self.control.finish();
        why
    }

    fn reason(&self) -> Why {
        let signal = |heard: &Heard| matches!(heard, Heard::Signal);
        let (mut first, mut rest) = (self.limit, None);
        if self.joins && self.limit.is_none_or(|limit| limit > JOIN_LIMIT) {
            (first, rest) = (Some(JOIN_LIMIT), Some(self.limit.map(|limit| limit - JOIN_LIMIT)));
        }
        let mut heard = self.wait(first, signal);
        if let (None, Some(rest)) = (&heard, rest) {
            if !self.seen.is_in() {
                return Why::NobodyThere;
            }
            heard = self.wait(rest, signal);
        }
        match heard {
            Some(Heard::Signal) => Why::Signal,
            Some(_) => Why::Itself,
            None => Why::Time,
        }
    }

    /// Waits for what is wanted, or the end of the node; `None` when the limit has passed.
    fn wait(&self, limit: Option<Duration>, wanted: impl Fn(&Heard) -> bool) -> Option<Heard> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        loop {
            let heard = match deadline {
                None => self.heard.recv().ok(),
                Some(deadline) => {
                    self.heard.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
                }
            }?;
            if wanted(&heard) || matches!(heard, Heard::Ended) {
                return Some(heard);
            }
        }
    }
}

/// What is trained on.
struct Text {
    name: String,
    bytes: Vec<u8>,
}

impl Text {
    fn read(settings: &Settings) -> Result<Self, Failure> {
        let Some(path) = &settings.data else {
            let [low, ..] = settings.public.x25519;
            let whole = data::whole(low);
            return Ok(Self {
                name: format!("{} (a text inside the program)", data::shard_name(low)),
                bytes: whole,
            });
        };
        Ok(Self { name: path.display().to_string(), bytes: read_text(path)? })
    }
}

fn read_text(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |cause: String| {
        Failure::usage("data", format!("cannot read --data {}", path.display()), cause)
            .fix("give the path of a text that you may read")
    };
    let file = File::open(path).map_err(|cause| failed(cause.to_string()))?;
    let mut bytes = Vec::new();
    file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|cause| failed(cause.to_string()))?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(failed(format!("it is longer than {TEXT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}
