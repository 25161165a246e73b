//! `plesio status`: asks a running node for its view of the mesh, over a socket of this machine.
//!
//! The node says one JSON document to whoever may connect and hears nothing. What comes back is bounded in length and
//! time and is shown only after it was understood.

use crate::args::StatusArgs;
use crate::failure::{Exit, Failure};
use crate::stdout;
use crate::trace::Traced;
use crate::up::place;
use plesio::RelayCounters;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) const SCHEMA: &str = "plesio.status/1";
/// Longest answer that is read: many times what 32 members take.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// How long a node may take to answer; it does so at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a node knows, in plain numbers. Nodes are called by the first 16 digits of their keys.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Status {
    pub(crate) schema: String,
    /// Its whole key.
    pub(crate) node: String,
    pub(crate) pid: u32,
    pub(crate) uptime_s: f64,
    pub(crate) mesh: String,
    pub(crate) sideband: Option<SocketAddr>,
    pub(crate) data: Option<SocketAddr>,
    pub(crate) backend: String,
    pub(crate) protection: String,
    /// The view names this node.
    #[serde(default)]
    pub(crate) member: bool,
    /// None before the first view, and after one that went on without this node.
    pub(crate) view: Option<u32>,
    pub(crate) members: Vec<String>,
    /// What each of them owns of every sum; none: equal parts.
    #[serde(default)]
    pub(crate) shares: Vec<f64>,
    /// Why it commits nothing any more: `overflow` or `divergence`.
    #[serde(default)]
    pub(crate) stopped: Option<String>,
    /// Members that it has not heard for the suspicion time.
    pub(crate) suspects: Vec<String>,
    /// How datagrams go to the others.
    #[serde(default)]
    pub(crate) ways: Vec<Way>,
    pub(crate) version: u64,
    /// Of the master state of that version.
    pub(crate) digest: Option<String>,
    /// Of the phase corrector.
    pub(crate) state: String,
    /// Bound of the mesh clock's error; none without a clock.
    pub(crate) clock_error_ns: Option<u64>,
    pub(crate) period_ns: u64,
    pub(crate) lead_ns: u64,
    /// How fast it goes, and how well it keeps in time.
    #[serde(default)]
    pub(crate) tempo: Tempo,
    pub(crate) steps: u64,
    pub(crate) steps_committed: u64,
    /// Training loss, nats per byte, smoothed.
    pub(crate) loss: Option<f64>,
    pub(crate) data_sent_bytes: u64,
    pub(crate) data_received_bytes: u64,
    pub(crate) data_resent_bytes: u64,
    pub(crate) sideband_sent_bytes: u64,
    /// Bytes a second that the sideband may send, and does.
    #[serde(default)]
    pub(crate) sideband_budget: u64,
    #[serde(default)]
    pub(crate) sideband_rate: u64,
    /// Between beats: 100 ms, more where the budget has no room for as many.
    #[serde(default)]
    pub(crate) beat_ns: u64,
    /// Half seconds in which that was so.
    #[serde(default)]
    pub(crate) beats_lengthened: u64,
    #[serde(default)]
    pub(crate) relays: Relays,
    /// Read where it lies in the memory of nodes on this host, and copied from there.
    #[serde(default)]
    pub(crate) memory_read_bytes: u64,
    #[serde(default)]
    pub(crate) memory_taken_bytes: u64,
    /// Word of such bytes that was of no use.
    #[serde(default)]
    pub(crate) notices_refused: u64,
    pub(crate) data_dropped: u64,
    pub(crate) sideband_dropped: u64,
    /// Neighbours whose clocks contradicted the majority's and were left out for a minute.
    #[serde(default)]
    pub(crate) falseticker_total: u64,
    /// Times that this machine's wall clock was set under the kernel's stamps.
    #[serde(default)]
    pub(crate) clock_steps: u64,
    /// HALT of the operators is in force.
    #[serde(default)]
    pub(crate) halted: bool,
    /// Of the order in force; 0 before the first.
    #[serde(default)]
    pub(crate) halt_sequence: u64,
    /// It is on this node's disk.
    #[serde(default)]
    pub(crate) halt_stored: bool,
    #[serde(default)]
    pub(crate) orders: Orders,
    /// What is on this node's disk; none: nothing outlives it.
    #[serde(default)]
    pub(crate) disk: Option<Disk>,
    /// Versions that were lost when this node began the mesh again; none: it did not.
    #[serde(default)]
    pub(crate) state_lost_versions: Option<u64>,
    /// How often this node was itself not running, and for how long in all.
    #[serde(default)]
    pub(crate) late_total: u64,
    #[serde(default)]
    pub(crate) late_ns: u64,
    #[serde(default)]
    pub(crate) mass: Mass,
    /// What becomes of the lines of `--trace`, where it is given.
    #[serde(default)]
    pub(crate) trace: Option<Traced>,
}

/// What outlives a node.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Disk {
    /// Version of the newest state on it.
    pub(crate) checkpoint: Option<u64>,
    /// The newest write failed.
    pub(crate) degraded: bool,
    /// Writes that failed.
    pub(crate) failures: u64,
}

impl Disk {
    pub(crate) const fn of(disk: &plesio::DiskState) -> Self {
        Self { checkpoint: disk.checkpoint, degraded: disk.degraded, failures: disk.failures }
    }
}

/// Local steps that are in no version, and what became of them.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Mass {
    /// All that this node threw away, and its contributions of which nobody can tell any more whether they were counted.
    pub(crate) mass_lost: u64,
    /// Of others' contributions that went with them.
    pub(crate) mass_dropped: u64,
    /// Not finite, and thrown away; part of `mass_lost`.
    pub(crate) bad_local_total: u64,
    /// Too many after a return, and thrown away; part of `mass_lost`.
    pub(crate) mass_trimmed: u64,
    /// Contributions that came back and went with later ones.
    pub(crate) fold_total: u64,
}

impl Mass {
    pub(crate) const fn of(steps: &plesio::StepCounters) -> Self {
        Self {
            mass_lost: steps.lost + steps.trimmed + steps.bad_local,
            mass_dropped: steps.dropped,
            bad_local_total: steps.bad_local,
            mass_trimmed: steps.trimmed,
            fold_total: steps.folds,
        }
    }
}

/// Control that went through a third member, because one direction between two was dead: datagrams.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Relays {
    /// Ours, handed to somebody who hears whom they are for.
    pub(crate) handed: u64,
    /// Others', passed on.
    pub(crate) carried: u64,
    /// Others' for us.
    pub(crate) received: u64,
}

impl Relays {
    pub(crate) const fn of(counters: &RelayCounters) -> Self {
        let RelayCounters { handed, carried, received } = *counters;
        Self { handed, carried, received }
    }
}

/// How fast a node goes against its mesh, and how well it keeps in time; counts are since its start.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Tempo {
    /// How late it is against the mesh, lead included.
    pub(crate) phase_error_frames: f64,
    /// How much faster than the frames its slots are cut.
    pub(crate) frequency_ppb: i32,
    /// Smoothed.
    pub(crate) step_ns: u64,
    pub(crate) steps_per_slot: f64,
    /// Frames from one slot to the next.
    pub(crate) stride: u8,
    /// Own slots whose margin is known, and those among them that were late.
    pub(crate) slots: u64,
    pub(crate) late_slots: u64,
    /// Folded, merged, or put off by a full ring.
    pub(crate) folded_slots: u64,
    /// How often the phase corrector moved.
    pub(crate) corrections: u64,
    /// Training stands still: the node is not with its mesh.
    pub(crate) paused: bool,
}

impl Tempo {
    pub(crate) fn of(report: &plesio::TempoReport) -> Self {
        Self {
            phase_error_frames: report.phase_error_frames.into(),
            frequency_ppb: report.y_ppb,
            step_ns: report.step_ns,
            steps_per_slot: report.steps_per_slot.into(),
            stride: report.stride,
            slots: report.slots,
            late_slots: report.late_slots,
            folded_slots: report.folded_slots,
            corrections: report.corrections,
            paused: report.paused,
        }
    }
}

/// What came of orders of the operators.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Orders {
    /// Came into force.
    pub(crate) taken: u64,
    /// The one in force, once more.
    pub(crate) repeated: u64,
    /// Of a sequence that is over.
    pub(crate) replayed: u64,
    /// Too few signers, one twice, or one that is not listed.
    pub(crate) signers: u64,
    /// A signature does not fit.
    pub(crate) forged: u64,
    /// A scope, an action or a sequence that is not known.
    pub(crate) unsupported: u64,
    /// More than are looked at.
    pub(crate) unverified: u64,
    /// The disk did not take them.
    pub(crate) unstored: u64,
    /// All that were not followed.
    pub(crate) refused: u64,
}

impl Orders {
    pub(crate) fn of(counters: &plesio::OrderCounters) -> Self {
        Self {
            taken: counters.taken,
            repeated: counters.repeated,
            replayed: counters.replayed,
            signers: counters.signers,
            forged: counters.forged,
            unsupported: counters.unsupported,
            unverified: counters.unverified,
            unstored: counters.unstored,
            refused: counters.refused(),
        }
    }
}

/// How datagrams go to one peer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Way {
    pub(crate) node: String,
    /// Payload of a datagram, as far as the path is known by now.
    pub(crate) chunk_bytes: u32,
    /// `credit` on this host, `rate-delay` elsewhere.
    pub(crate) congestion: String,
    /// `memory` when each reads in the other's memory and datagrams only say where, `udp` otherwise.
    #[serde(default)]
    pub(crate) path: String,
}

pub(crate) fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    let path = match &args.socket {
        Some(path) => path.clone(),
        None => the_only_node()?,
    };
    let status = ask(&path)?;
    let Value::Object(fields) = json!(status) else { unreachable!("a struct is an object") };
    if args.json {
        let mut document = Value::Object(fields);
        document["config"] = json!(args);
        document["socket"] = json!(path.display().to_string());
        stdout::document(&document);
    } else if args.dump {
        let line = |(name, value): (&String, &Value)| format!("{name}\t{}\n", plain(value));
        stdout::text(&fields.iter().map(line).collect::<String>());
    } else {
        stdout::text(&table(&status));
    }
    Ok(Exit::Ok)
}

fn unreachable(what: impl Into<String>, cause: impl std::fmt::Display) -> Failure {
    let failure = Failure::run("no-node", what, cause)
        .fix("start one with `plesio up`, or name the socket that it said at its start with --socket");
    Failure { exit: Exit::Unreachable, ..failure }
}

/// The socket of the one node that runs here.
fn the_only_node() -> Result<PathBuf, Failure> {
    let folder = place::folder();
    let what = || format!("cannot ask a node in {}", folder.display());
    let entries = std::fs::read_dir(&folder).map_err(|cause| unreachable(what(), cause))?;
    let sockets = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| place::is_socket(path));
    let mut alive: Vec<PathBuf> = sockets.filter(|path| UnixStream::connect(path).is_ok()).take(16).collect();
    alive.sort();
    match alive.len() {
        0 => Err(unreachable(what(), "no node answers there")),
        1 => Ok(alive.remove(0)),
        _ => {
            let paths: Vec<String> = alive.iter().map(|path| path.display().to_string()).collect();
            Err(Failure::usage("several-nodes", what(), format!("several run: {}", paths.join(", ")))
                .fix(format!("choose one: plesio status --socket {}", paths[0])))
        }
    }
}

fn ask(path: &Path) -> Result<Status, Failure> {
    let what = || format!("cannot ask the node at {}", path.display());
    let bytes = UnixStream::connect(path).and_then(|stream| hear(stream, PATIENCE)).map_err(|cause| {
        let silent = cause.kind() == io::ErrorKind::TimedOut;
        let failure = unreachable(what(), cause);
        match silent {
            true => failure
                .fix("see whether its process is stopped (state T in `ps`), and let it go on: kill -CONT"),
            false => failure,
        }
    })?;
    understand(&bytes).map_err(|cause| unreachable(what(), cause))
}

/// Reads to the end, but not more than any node says, and not for longer.
fn hear(mut stream: UnixStream, patience: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let (mut bytes, mut room) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not finish its answer in time"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut room) {
            Ok(0) => return Ok(bytes),
            Ok(count) if bytes.len() + count > ANSWER_BYTES_MAX => {
                return Err(io::Error::other(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes")));
            }
            Ok(count) => bytes.extend_from_slice(&room[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn understand(bytes: &[u8]) -> Result<Status, String> {
    let status: Status =
        serde_json::from_slice(bytes).map_err(|error| format!("its answer is no status: {error}"))?;
    if status.schema == SCHEMA {
        Ok(status)
    } else {
        Err(format!("it speaks {:?} and not {SCHEMA:?}; take the same version of plesio", status.schema))
    }
}

/// A value in one line without tabs: whatever a text holds, the terminal sees letters.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => shown(text),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn shown(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

fn table(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12} {value}");
    };
    let list = |names: &[String]| names.iter().map(|name| shown(name)).collect::<Vec<_>>().join(" ");
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    line("node", shown(&status.node));
    line(
        "mesh",
        format!("{}, {} for {:.0} s", shown(&status.mesh), shown(&status.protection), status.uptime_s),
    );
    let address = |address: Option<SocketAddr>| or_dash(address.map(|address| address.to_string()));
    line("addresses", format!("sideband {}, data {}", address(status.sideband), address(status.data)));
    line("backend", shown(&status.backend));
    line(
        "view",
        or_dash(
            status.view.map(|view| format!("{view} of {}: {}", status.members.len(), list(&status.members))),
        ),
    );
    if status.view.is_some() {
        line("shares", crate::shares::text(&status.shares));
    }
    if let Some(cause) = &status.stopped {
        line("stopped", format!("commits nothing any more: {}", shown(cause)));
    }
    if !status.suspects.is_empty() {
        line("suspected", list(&status.suspects));
    }
    for way in &status.ways {
        let Way { node, chunk_bytes, congestion, path } = way;
        let how = format!("to {}: {}, chunks of {chunk_bytes} bytes, ", shown(node), shown(path));
        line("way", how + &shown(congestion));
    }
    let Status { halted, halt_sequence, halt_stored, orders, .. } = status;
    if *halt_sequence > 0 || orders.refused > 0 {
        let state = if *halted { "halted by order" } else { "not halted; order in force" };
        let kept = if *halt_stored || *halt_sequence == 0 { "" } else { ", not on disk" };
        line("halt", format!("{state} {halt_sequence}{kept}; {} orders refused", orders.refused));
    }
    if let Some(disk) = &status.disk {
        let newest = disk.checkpoint.map_or("no state".into(), |version| format!("version {version}"));
        let degraded = if disk.degraded { "; DEGRADED, the newest write failed" } else { "" };
        line("disk", format!("{newest} on it, {} writes failed{degraded}", disk.failures));
    }
    line("version", format!("{}, {}", status.version, or_dash(status.digest.as_deref().map(shown))));
    let error = or_dash(status.clock_error_ns.map(|error| format!("{:.1} us", error as f64 / 1e3)));
    line(
        "phase",
        format!(
            "{}, clock within {error}, lead {:.1} ms of a frame of {:.1}",
            shown(&status.state),
            status.lead_ns as f64 / 1e6,
            status.period_ns as f64 / 1e6
        ),
    );
    let tempo = &status.tempo;
    line(
        "tempo",
        format!(
            "{:.1} steps of {:.1} ms a slot, every {} frames; {} of {} slots late, {} folded, {} corrections",
            tempo.steps_per_slot,
            tempo.step_ns as f64 / 1e6,
            tempo.stride,
            tempo.late_slots,
            tempo.slots,
            tempo.folded_slots,
            tempo.corrections
        ),
    );
    let loss = or_dash(status.loss.map(|loss| format!("{loss:.3}")));
    let stands = if tempo.paused { "; it stands still until the mesh is back" } else { "" };
    line(
        "training",
        format!(
            "loss {loss}, {} steps, {} of them in versions{stands}",
            status.steps, status.steps_committed
        ),
    );
    line(
        "bytes",
        format!(
            "data {} sent, {} received, {} sent again; sideband {} sent",
            status.data_sent_bytes,
            status.data_received_bytes,
            status.data_resent_bytes,
            status.sideband_sent_bytes
        ),
    );
    line(
        "sideband",
        format!(
            "{} of {} B/s, a beat every {} ms; through others {} sent, {} carried, {} received",
            status.sideband_rate,
            status.sideband_budget,
            status.beat_ns / 1_000_000,
            status.relays.handed,
            status.relays.carried,
            status.relays.received
        ),
    );
    let Status { memory_read_bytes, memory_taken_bytes, notices_refused, .. } = status;
    line(
        "memory",
        format!(
            "of nodes on this host: {memory_read_bytes} read in place, {memory_taken_bytes} copied; \
             {notices_refused} notices refused"
        ),
    );
    if let Some(Traced { file, lines, dropped, degraded }) = &status.trace {
        let how = degraded.as_deref().map_or(String::new(), |cause| format!(", Degraded: {}", shown(cause)));
        line("trace", format!("{}, {lines} lines, {dropped} dropped{how}", shown(file)));
    }
    line("dropped", format!("data {}, sideband {}", status.data_dropped, status.sideband_dropped));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// What a client makes of `said`, from a node that then waits.
    fn heard(said: Vec<u8>, patience: Duration) -> io::Result<Vec<u8>> {
        let (near, mut far) = UnixStream::pair().expect("sockets");
        let writer = std::thread::spawn(move || {
            // The reader may have gone.
            let _gone = far.write_all(&said);
            far
        });
        let heard = hear(near, patience);
        drop(writer.join());
        heard
    }

    #[test]
    fn an_answer_is_bounded_in_length_and_time() {
        let error = heard(vec![b'['; ANSWER_BYTES_MAX + 1], Duration::from_secs(60)).expect_err("too long");
        assert!(error.to_string().contains("longer"), "{error}");
        let error = heard(b"{".to_vec(), Duration::from_millis(20)).expect_err("it never ends");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn what_is_no_status_is_said_and_control_characters_are_not_shown() {
        assert!(understand(b"").is_err() && understand(&[0xFF; 9]).is_err());
        assert!(understand(&vec![b'['; 100_000]).is_err(), "depth is bounded");
        let other = Status { schema: "plesio.status/2".into(), ..Status::default() };
        assert!(
            understand(json!(other).to_string().as_bytes()).is_err_and(|cause| cause.contains("version"))
        );
        let evil = "\u{1b}[2J\nname\tx".to_owned();
        let status = Status {
            schema: SCHEMA.into(),
            members: vec![evil.clone()],
            view: Some(1),
            state: evil,
            ..Status::default()
        };
        let back = understand(json!(status).to_string().as_bytes()).expect("it is one");
        assert_eq!(back, status);
        let text = table(&back);
        assert!(!text.contains('\u{1b}') && !text.contains('\t'), "{text:?}");
        assert_eq!(plain(&json!(back.members)), "?[2J?name?x");
    }
}
