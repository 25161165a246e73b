//! What stands in a line: the kinds of a trace and their fields.
//!
//! ```text
//! start        program, config, ...: a node, a demo or a simulation begins        end         it ended, not by a crash
//! view         number, index, members, added, removed, shares, seated             entering    session, view, members, state, differs, namesake
//! manifest     index, version, digest, frame, entries [{node, slot, steps, weight (2^-24), staleness, margin_frames}]
//! reopened     index, version, entries, dropped                                   sealed      index, version, complete
//! version      version, digest: the state held                                    gathered    version
//! fetching     from, version                                                      installed   version
//! cut          slot, base, target, steps, digest                                  listed      slot, version, margin_frames, staleness
//! released     slot, whole                                                        folded      slot, reason
//! lost         slot: its mass is lost                                             crowded     merged, put_off: cuts that found the ring full
//! void         frame                                                              queried     index, frame, term
//! proposed     index, frame, term, what                                           decided     index, frame, term (null: not counted here), what
//! suspect, recover, dead, leaving, namesake, reference, false_ticker   peer       sick        sick
//! late         late_ns: this node stood still                                     clock       from, to, eps_ns, rate_ppb
//! clock_step   by_ns                                                              phase       from, to: the corrector
//! keys         peer, change                                                       ways        ways [{peer, chunk_bytes, congestion, path}]
//! no_quorum    live, members                                                      quorum, excluded, left
//! halted       sequence, stored                                                   resumed     sequence
//! diverged     version, peer                                                      resync      version
//! stopped      version, cause                                                     note        text
//! progress     eps_ns, state, margin_frames, lead_ns, period_ns, version, steps_committed, and bytes
//! failed       error                                                              final       version, digest, steps_committed
//! dropped      lines: so many were lost before this one                           fault       fault, begins (simulation)
//! started      seed (simulation), name (demo): a process began                    killed      by: a process was killed
//! ```

use super::SCHEMA;
use crate::hex::name;
use plesio::{Cause, Contribution, FoldReason, Kind, NodeEvent, Progress, What};
use plesio_sim::{Happened, Happening};
use plesio_wire::{Ballot, NodeKey};
use serde_json::{Map, Value, json};

/// Kind and fields of a line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    kind: &'static str,
    fields: Value,
}

impl Line {
    /// `fields` is an object.
    pub(crate) fn new(kind: &'static str, fields: Value) -> Self {
        Self { kind, fields }
    }

    /// The whole line.
    pub(crate) fn of(self, node: Option<&str>, mono_ns: i64, mesh_ns: Option<i64>) -> Value {
        let mut line = Map::new();
        line.insert("schema".into(), json!(SCHEMA));
        line.insert("node".into(), json!(node));
        line.insert("mono_ns".into(), json!(mono_ns));
        line.insert("mesh_ns".into(), json!(mesh_ns));
        line.insert("kind".into(), json!(self.kind));
        if let Value::Object(fields) = self.fields {
            line.extend(fields);
        }
        Value::Object(line)
    }
}

/// What a node said.
pub(crate) fn said(node: &str, event: &NodeEvent) -> Value {
    let (kind, fields) = fields(&event.what);
    Line::new(kind, fields).of(Some(node), event.raw_ns, event.mesh_ns)
}

/// What happened in a simulation.
pub(crate) fn happened(seed: u64, happening: &Happening) -> Value {
    let at_ns = i64::try_from(happening.at_ns).unwrap_or(i64::MAX);
    let (node, mesh_ns, (kind, fields)) = match &happening.what {
        Happened::Said { node, mesh_ns, what } => (Some(name(*node)), *mesh_ns, fields(what)),
        Happened::Started { node } => (Some(name(*node)), None, ("started", json!({}))),
        Happened::Begun(fault) => (None, None, ("fault", json!({ "fault": fault.name(), "begins": true }))),
        Happened::Ended(fault) => (None, None, ("fault", json!({ "fault": fault.name(), "begins": false }))),
        _ => (None, None, ("unknown", json!({}))),
    };
    let mut line = Line::new(kind, fields).of(node.as_deref(), at_ns, mesh_ns);
    line["seed"] = json!(seed);
    line["host"] = json!(happening.host);
    line
}

fn fields(what: &What) -> (&'static str, Value) {
    let peer = |key: &NodeKey| json!({ "peer": name(*key) });
    match what {
        What::View { number, index, members, added, removed, shares, seated } => (
            "view",
            json!({ "number": number, "index": index, "members": names(members), "added": names(added),
                "removed": names(removed), "shares": shares, "seated": seated }),
        ),
        What::Entering(entering) => (
            "entering",
            json!({ "session": entering.session, "view": entering.view.map(|(number, _)| number),
                "members": entering.view.map(|(_, members)| members), "state": entering.state,
                "differs": entering.differs, "namesake": entering.namesake }),
        ),
        What::Namesake { key, seated, asks } => {
            ("namesake", json!({ "peer": name(*key), "seated": seated, "asks": asks }))
        }
        What::Version { version, digest } => {
            ("version", json!({ "version": version.0, "digest": digest.to_string() }))
        }
        What::Manifest { index, version, digest, frame, entries } => (
            "manifest",
            json!({ "index": index, "version": version.0, "digest": digest.to_string(), "frame": frame,
                "entries": list(entries) }),
        ),
        What::Reopened { index, version, entries, dropped } => (
            "reopened",
            json!({ "index": index, "version": version.0, "entries": list(entries), "dropped": dropped }),
        ),
        What::Sealed { index, version, complete } => {
            ("sealed", json!({ "index": index, "version": version.0, "complete": complete }))
        }
        What::Gathered(version) => ("gathered", json!({ "version": version.0 })),
        What::Fetching { from, version } => {
            ("fetching", json!({ "from": name(*from), "version": version.0 }))
        }
        What::Cut { slot, base, target, steps, digest } => (
            "cut",
            json!({ "slot": slot.0, "base": base.0, "target": target.0, "steps": steps,
                "digest": digest.to_string() }),
        ),
        What::Listed { slot, version, margin_frames, staleness } => (
            "listed",
            json!({ "slot": slot.0, "version": version.0, "margin_frames": margin_frames,
                "staleness": staleness }),
        ),
        What::Released { slot, whole } => ("released", json!({ "slot": slot.0, "whole": whole })),
        What::Folded { slot, reason } => ("folded", json!({ "slot": slot.0, "reason": why_folded(*reason) })),
        What::Lost(slot) => ("lost", json!({ "slot": slot.0 })),
        What::Crowded { merged, put_off } => ("crowded", json!({ "merged": merged, "put_off": put_off })),
        What::Void(frame) => ("void", json!({ "frame": frame.0 })),
        What::Period { frame, before_ns, period_ns } => {
            ("period", json!({ "frame": frame.0, "before_ns": before_ns, "period_ns": period_ns }))
        }
        What::Queried { index, ballot } => ("queried", attempt(*index, Some(*ballot), None)),
        What::Proposed { index, ballot, kind } => ("proposed", attempt(*index, Some(*ballot), Some(*kind))),
        What::Decided { index, ballot, kind } => ("decided", attempt(*index, *ballot, Some(*kind))),
        What::Suspect(key) => ("suspect", peer(key)),
        What::Recover(key) => ("recover", peer(key)),
        What::Dead(key) => ("dead", peer(key)),
        What::Leaving(key) => ("leaving", peer(key)),
        What::Sick(sick) => ("sick", json!({ "sick": sick })),
        What::Late(late_ns) => ("late", json!({ "late_ns": late_ns })),
        What::Clock { from, to, eps_ns, rate_ppb } => {
            ("clock", json!({ "from": from, "to": to, "eps_ns": bound(*eps_ns), "rate_ppb": rate_ppb }))
        }
        What::ClockStep(by_ns) => ("clock_step", json!({ "by_ns": by_ns })),
        What::Reference(key) => ("reference", json!({ "peer": key.map(name) })),
        What::FalseTicker(key) => ("false_ticker", peer(key)),
        What::Keys { peer, change } => ("keys", json!({ "peer": name(*peer), "change": change })),
        What::NoQuorum { live, members } => ("no_quorum", json!({ "live": live, "members": members })),
        What::Quorum => ("quorum", json!({})),
        What::Excluded => ("excluded", json!({})),
        What::Left => ("left", json!({})),
        What::Halted { sequence, stored } => ("halted", json!({ "sequence": sequence, "stored": stored })),
        What::Resumed { sequence } => ("resumed", json!({ "sequence": sequence })),
        What::Diverged { version, peer } => {
            ("diverged", json!({ "version": version.0, "peer": name(*peer) }))
        }
        What::Resync(version) => ("resync", json!({ "version": version.0 })),
        What::Stopped { version, cause } => {
            ("stopped", json!({ "version": version.0, "cause": why_stopped(*cause) }))
        }
        What::Phase { from, to } => ("phase", json!({ "from": from, "to": to })),
        What::Installed(version) => ("installed", json!({ "version": version.0 })),
        What::Revived(revival) => (
            "revived",
            json!({ "version": revival.version.0, "lost_versions": revival.lost_versions,
                "members": revival.members }),
        ),
        What::Ways(ways) => {
            let way = |way: &plesio::Way| {
                json!({ "peer": name(way.peer), "chunk_bytes": way.chunk_bytes,
                    "congestion": way.congestion, "path": way.path })
            };
            ("ways", json!({ "ways": ways.iter().map(way).collect::<Vec<_>>() }))
        }
        What::Note(text) => ("note", json!({ "text": text })),
        What::Progress(progress) => ("progress", figures(progress)),
        What::Final(last) => (
            "final",
            json!({ "version": last.version.0, "digest": last.digest.to_string(),
                "steps_committed": last.progress.steps_committed }),
        ),
        What::Failed(error) => ("failed", json!({ "error": error })),
        _ => ("unknown", json!({})),
    }
}

fn figures(progress: &Progress) -> Value {
    let counters = &progress.counters;
    json!({
        "eps_ns": bound(progress.eps_ns), "state": progress.state, "margin_frames": progress.margin_frames,
        "lead_ns": progress.lead_ns, "period_ns": progress.period_ns, "version": progress.version,
        "steps_committed": progress.steps_committed, "data_sent_bytes": counters.data_sent_bytes,
        "data_received_bytes": counters.data_received_bytes,
        "data_resent_bytes": counters.retransmitted_bytes,
        "sideband_sent_bytes": counters.sideband_sent_bytes, "data_dropped": counters.data_dropped,
        "sideband_dropped": counters.sideband_dropped,
    })
}

fn names(keys: &[NodeKey]) -> Vec<String> {
    keys.iter().map(|key| name(*key)).collect()
}

fn list(entries: &[Contribution]) -> Vec<Value> {
    let entry = |entry: &Contribution| {
        json!({ "node": name(entry.node), "slot": entry.slot, "steps": entry.steps, "weight": entry.weight,
            "staleness": entry.staleness, "margin_frames": entry.margin_frames })
    };
    entries.iter().map(entry).collect()
}

fn attempt(index: u64, ballot: Option<Ballot>, kind: Option<Kind>) -> Value {
    let mut fields = json!({ "index": index, "frame": ballot.map(|ballot| ballot.frame.0),
        "term": ballot.map(|ballot| ballot.term) });
    if let Some(kind) = kind {
        fields["what"] = json!(match kind {
            Kind::Manifest => "manifest",
            Kind::Seal => "seal",
            Kind::View => "view",
        });
    }
    fields
}

/// The largest number stands for no bound.
fn bound(eps_ns: u32) -> Option<u32> {
    (eps_ns != u32::MAX).then_some(eps_ns)
}

const fn why_folded(reason: FoldReason) -> &'static str {
    match reason {
        FoldReason::Dropped => "dropped",
        FoldReason::Stale => "stale",
        FoldReason::AdmissionEnded => "admission_ended",
        FoldReason::NotAnnounced => "not_announced",
        _ => "other",
    }
}

/// As in a status.
pub(crate) const fn why_stopped(cause: Cause) -> &'static str {
    match cause {
        Cause::Overflow => "overflow",
        _ => "divergence",
    }
}
