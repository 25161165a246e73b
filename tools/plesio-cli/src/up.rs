//! `plesio up`: a node of a mesh that trains a text, until Ctrl-C, and leaves with the mesh's adapter.
//!
//! ```text
//!  signals    Ctrl-C, to the ender           events     what the node reports: lines, stream, status
//!  ender      settle, leave, finish           status     answers `plesio status`
//!  this       trains, below the node's own threads in priority
//! ```

mod ender;
mod entry;
pub(crate) mod file;
pub(crate) mod input;
mod open;
pub(crate) mod place;
mod seen;
pub(crate) mod settings;
mod socket;

use crate::args::{Seed, UpArgs};
use crate::demo::data;
use crate::demo::output::Folder;
use crate::demo::train::{self, Student};
use crate::failure::{Exit, Failure};
use crate::hex::hex;
use crate::status::{SCHEMA as STATUS_SCHEMA, Status};
use crate::trace::{self, Before, Trace};
use crate::{random, signals, stdout, work};
use ender::{Ender, Heard, Why};
use open::cannot_open;
use place::Place;
use plesio::{Final, HaltConfig, Identity, Node, NodeConfig, NodeEvent, Protection, Running, What};
use plesio_model::Base;
use plesio_udp::clock::monotonic_raw_ns;
use plesio_wire::data::{CHUNK_BYTES_JUMBO, CHUNK_BYTES_LOOPBACK};
use plesio_wire::{Incarnation, NodeId};
use seen::{Seen, Voice};
use serde_json::{Value, json};
use settings::Settings;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

const SCHEMA: &str = "plesio.up/1";
/// Start of the adapter, the same for every member of every mesh.
const ADAPTER_SEED: u64 = 1;
/// Longest text that is read.
const TEXT_BYTES_MAX: usize = 1 << 30;

pub(crate) fn run(args: &UpArgs) -> Result<Exit, Failure> {
    let settings = Settings::gather(args)?;
    let text = Text::read(&settings)?;
    let (heard_sender, heard) = mpsc::channel();
    let interrupts = heard_sender.clone();
    // Before the first thread: they inherit the mask. A node goes on when nobody reads what it streams: others count on it.
    signals::watch(false, move || drop(interrupts.send(Heard::Signal)))?;
    let folder = Folder::take(&settings.out)?;
    let traced = settings.trace.as_deref().map(|path| Trace::open(path, Before::Stays)).transpose()?;
    let (trace, writer) = traced.unzip();
    let voice = Arc::new(Voice::new(&args.output));

    let model = |error| Failure::run("model", "cannot load the model", error);
    let base = data::base().map_err(model)?;
    let elements = train::elements(&base, ADAPTER_SEED).map_err(model)?;
    let device = crate::device::open(settings.device, settings.kernels.as_deref())?;
    let student = Student::new(device.device, &base, ADAPTER_SEED, text.bytes, settings.seed);
    let mut student = student.map_err(model)?;
    student.warm_up().map_err(|cause| {
        Failure::usage("data", format!("cannot train on {}", text.name), cause)
            .fix("give --data a text of some thousand bytes at least")
    })?;

    let node = Node::bind(NodeConfig { device, ..config(&settings, elements)? }).map_err(cannot_open)?;
    let public = settings.public;
    let key = hex(&public.x25519);
    let sealed = matches!(settings.protection, Protection::Sealed(_));
    let protection = if sealed { "sealed" } else { "plaintext" };
    let found = node.found().clone();
    let hello = node.hello();
    let seen = Arc::new(Seen::new(
        Status {
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
        },
        trace,
    ));
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
        "path": found.path,
        "device": found.device,
        "device_reason": found.device_reason,
        "protection": protection,
        "text": text.name,
        "elements": elements,
        "arena_bytes": found.arena_bytes,
        "locked_bytes": found.locked_bytes,
        "notes": found.notes,
        "halt": settings.halt.as_ref().map(|halt| json!({
            "operators": halt.operators.len(),
            "threshold": halt.operators.threshold(),
            "record": halt.record.display().to_string(),
        })),
        "returns": node.returns(),
        "socket": socket,
    });
    voice.emit("start", &start);
    seen.trace(|| traced_start(&settings, &start, &key[..16]));
    let line = |name: &str, value: &str| voice.line(&format!("{name:<12} {value}"));
    line("node", &key);
    line("addresses", &format!("sideband {}, data {}", hello.sideband, hello.data));
    line("data plane", &format!("{}: {}", found.backend, found.backend_reason));
    line("this host", &format!("by {}", found.path));
    line("device", &format!("{}: {}", found.device, found.device_reason));
    line(
        "protection",
        match (sealed, settings.on_host()) {
            (true, _) => "sealed: only who holds the pool key and a ticket is heard",
            (false, true) => "none: plaintext, on this host alone",
            (false, false) => "none: plaintext, on a captive network",
        },
    );
    if let Some(HaltConfig { operators, record }) = &settings.halt {
        let (threshold, all) = (operators.threshold(), operators.len());
        line("halt", &format!("by {threshold} of {all} operators; kept in {}", record.display()));
    }
    line("memory", &format!("{} bytes of tensors, {} locked", found.arena_bytes, found.locked_bytes));
    line("training", &format!("{elements} elements, on {}", text.name));
    line(
        "status",
        &socket.map_or("not to be asked for".into(), |path| format!("plesio status --socket {path}")),
    );
    found.notes.iter().for_each(|note| line("note", note));
    line("another node", &settings.invitation(&reach));

    let returns = node.returns();
    if returns {
        line("state", "comes back to the mesh that its folder holds");
    }
    let running = if settings.join.is_empty() && !returns {
        // Who begins a mesh begins one and no second.
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
        (&settings, returns),
        (heard_sender, heard),
        &seen,
        &voice,
    );
    drop(place);
    let Ended { last, healthy, why, failed } = match ended {
        Ok(ended) => ended,
        Err(failure) => {
            writer.into_iter().for_each(trace::Writer::close);
            return Err(failure);
        }
    };
    let interrupted = why == Why::Signal;
    let mut document = start;
    let outside = !seen.was_member() && failed.is_none();
    let refused = outside.then(|| {
        let waited = Duration::from_secs_f64(seen.uptime_s());
        entry::failure(&settings, &seen.entering(), why, waited)
    });
    // The state that all begin with is nobody's adapter.
    let last = last.filter(|last| seen.was_member() && last.version.0 > 0 && !seen.is_overflowed());
    document["adapter"] = json!(null);
    let mut unwritten = None;
    match &last {
        Some(last) => match write_adapter(&base, &folder, &last.state) {
            Ok(()) => {
                let path = folder.adapter().display().to_string();
                let outside =
                    if seen.is_lost() { " (in the end the mesh went on without this node)" } else { "" };
                voice.say(&format!("version {}{outside}: its adapter is in {path}", last.version.0));
                document["adapter"] = json!(path);
            }
            // Whoever reads the stream, the document or the trace is told how it ended first.
            Err(failure) => {
                voice.say(&format!("version {}: its adapter is lost: {}", last.version.0, failure.what));
                unwritten = Some(failure);
            }
        },
        None if seen.is_overflowed() => voice.say("the state left 64 bits: no adapter is written"),
        None if outside => {}
        None => voice.say("no version was committed while this node was a member: no adapter is written"),
    }
    let cause = match (&failed, &refused, &unwritten) {
        (Some(cause), _, _) => Some(cause.clone()),
        (_, Some(refused), _) => Some(refused.cause.clone()),
        (_, _, Some(unwritten)) => Some(format!("{}: {}", unwritten.what, unwritten.cause)),
        _ => None,
    };
    document["version"] = json!(last.as_ref().map(|last| last.version.0));
    document["digest"] = json!(last.as_ref().map(|last| last.digest.to_string()));
    document["interrupted"] = json!(interrupted);
    document["cause"] = json!(cause);
    document["status"] = json!(seen.status());
    voice.emit("end", &document);
    seen.trace(|| {
        trace::Line::new("end", json!({ "cause": document["cause"] })).of(
            Some(&key[..16]),
            monotonic_raw_ns(),
            None,
        )
    });
    writer.into_iter().for_each(trace::Writer::close);
    if args.output.json {
        stdout::document(&document);
    }
    match (failed, refused.or(unwritten)) {
        (Some(cause), _) => Err(Failure::run("node", "the node stopped", cause)),
        (None, Some(failure)) => Err(failure),
        (None, None) if !healthy => Ok(Exit::Failed),
        (None, None) if interrupted => Ok(Exit::Interrupted),
        (None, None) => Ok(Exit::Ok),
    }
}

/// Writes the adapter of a state. Where its tensors find no place, what stands beside them is no adapter and goes too.
fn write_adapter(base: &Arc<Base>, folder: &Folder, state: &[f32]) -> Result<(), Failure> {
    let files = train::moved(base, ADAPTER_SEED, state)
        .and_then(|trainer| trainer.export(data::BASE_NAME))
        .map_err(|error| Failure::run("export", "cannot export the adapter", error))?;
    folder.write_adapter(&files).inspect_err(|_| {
        let place = folder.adapter();
        if !place.join("adapter_model.safetensors").is_file() {
            let _absent = fs::remove_file(place.join("adapter_config.json"));
        }
    })
}

/// The first line of this life in a trace: what the node is, and what all nodes of its mesh are told.
fn traced_start(settings: &Settings, start: &Value, node: &str) -> Value {
    let fields = json!({
        "program": env!("CARGO_PKG_VERSION"),
        "mesh": format!("{:016x}", settings.mesh()),
        "setup": {
            "period_ns": settings.period.first_ns,
            "period_min_ns": settings.period.min_ns,
            "period_max_ns": settings.period.max_ns,
            "codec": settings.codec,
            "shares": settings.shares,
            "rules": settings.said_rules,
            "ring_depth": settings.ring_depth,
        },
        "backend": start["host"],
        "elements": start["elements"],
        "pid": std::process::id(),
    });
    trace::Line::new("start", fields).of(Some(node), monotonic_raw_ns(), None)
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
    config.path = settings.path.path();
    config.codec = settings.codec.codec();
    config.sharing = settings.shares.sharing();
    config.rules = settings.rules;
    config.ring_depth = settings.ring_depth;
    config.steering = settings.steering;
    config.period_ns = settings.period.first_ns;
    config.period_min_ns = Some(settings.period.min_ns);
    config.period_max_ns = settings.period.max_ns;
    config.model = data::base_digest();
    config.halt.clone_from(&settings.halt);
    config.state.clone_from(&settings.state);
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
    thread.spawn(work).map_err(|cause| Failure::thread("node", cause))
}

/// How it ended.
struct Ended {
    last: Option<Box<Final>>,
    /// Nothing contradicted what this node holds.
    healthy: bool,
    why: Why,
    failed: Option<String>,
}

/// Trains and contributes until it is told to stop or the node ends, and leaves the mesh.
fn train_until_told(
    running: Running,
    student: &mut Student,
    (settings, returns): (&Settings, bool),
    (sender, heard): (Sender<Heard>, Receiver<Heard>),
    seen: &Arc<Seen>,
    voice: &Arc<Voice>,
) -> Result<Ended, Failure> {
    let Running { mut worker, events, control, thread: node } = running;
    let settle = Arc::new(AtomicBool::new(false));
    let (listener_seen, listener_voice, listener_sender) =
        (Arc::clone(seen), Arc::clone(voice), sender.clone());
    let name = hex(&settings.public.x25519)[..16].to_owned();
    let listener =
        spawn("events", move || listen(&name, &events, &listener_seen, &listener_voice, &listener_sender))?;
    let ender = Ender {
        heard,
        control: control.clone(),
        settle: Arc::clone(&settle),
        seen: Arc::clone(seen),
        voice: Arc::clone(voice),
        returns,
        limit: settings.seconds.map(|seconds| Duration::from_secs(seconds.into())),
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
    node: &str,
    events: &Receiver<NodeEvent>,
    seen: &Seen,
    voice: &Voice,
    sender: &Sender<Heard>,
) -> (Option<Box<Final>>, bool, Option<String>) {
    let (mut last, mut healthy, mut failed) = (None, true, None);
    while let Ok(event) = events.recv() {
        seen.trace(|| trace::said(node, &event));
        if let Some(news) = seen.trace_news() {
            voice.say(&news);
        }
        seen.handle_event(&event.what);
        voice.handle_event(&event, seen);
        match event.what {
            What::Left => drop(sender.send(Heard::Left)),
            What::Entering(entering) if entering.differs.is_some() => drop(sender.send(Heard::Refused)),
            What::Stopped { .. } => healthy = false,
            What::Failed(cause) => failed = Some(cause),
            What::Final(word) => last = Some(word),
            _ => {}
        }
    }
    let _told = sender.send(Heard::Ended);
    (last, healthy, failed)
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
            let whole = data::whole(low).to_vec();
            return Ok(Self {
                name: format!("{} (a text inside the program)", data::shard_name(low)),
                bytes: whole,
            });
        };
        Ok(Self { name: path.display().to_string(), bytes: read_text(path)? })
    }
}

fn read_text(path: &Path) -> Result<Vec<u8>, Failure> {
    input::read(path, TEXT_BYTES_MAX).map_err(|cause| {
        Failure::usage("data", format!("cannot read --data {}", path.display()), cause)
            .fix("give the path of a text that you may read")
    })
}
