//! `plesio.demo/1`: the whole run as one JSON document. Other programs read it; names here are an interface.

use super::checks::Check;
use super::data;
use super::evaluate::Losses;
use super::launcher::Ended;
use super::measure;
use super::plan::{PERIOD_NS, Plan};
use super::record::Record;
use crate::args::DemoArgs;
use crate::bench;
use crate::host::Host;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::Path;

/// All a document is made of.
pub(crate) struct Parts<'a> {
    pub(crate) args: &'a DemoArgs,
    pub(crate) host: &'a Host,
    pub(crate) plan: &'a Plan,
    pub(crate) record: &'a Record,
    pub(crate) losses: &'a Losses,
    pub(crate) checks: &'a [Check],
    pub(crate) ended: &'a Ended,
    pub(crate) wall_s: f64,
    pub(crate) report: Option<&'a Path>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    config: &'a DemoArgs,
    host: &'a Host,
    /// How the run ended: "whole", "interrupted" or "broken", and why.
    ended: &'static str,
    ended_cause: Option<&'a str>,
    nodes: usize,
    processes: usize,
    backend: Option<&'a str>,
    protection: &'static str,
    period_ns: u64,
    versions_committed: u64,
    digests_equal: bool,
    loss_base: Option<f64>,
    loss_alone: Value,
    loss_mesh: Option<f64>,
    useful_ratio: Option<f64>,
    steps_computed: u64,
    steps_committed: u64,
    events: Value,
    notes: Value,
    /// Payload sent by all nodes, and accepted; the sideband's with headers.
    bytes_data: u64,
    bytes_data_received: u64,
    bytes_data_resent: u64,
    bytes_sideband: u64,
    /// Of contributions read in other nodes' memory, of sums and states copied from there.
    bytes_memory_read: u64,
    bytes_memory_taken: u64,
    notices_refused: u64,
    datagrams_dropped: u64,
    copies_per_byte: Value,
    /// What the bad path between the nodes was and did; null when there was none.
    path: Value,
    phase_error_p99_s: Option<f64>,
    clock_error_p99_ns: Option<f64>,
    recovery_s: Option<f64>,
    /// What each member of the newest view owns of every sum; none: equal parts.
    shares: &'a [f64],
    trained_s: f64,
    wall_s: f64,
    members: Vec<Value>,
    checks: &'a [Check],
    report: Option<&'a Path>,
}

/// Writes the run down.
pub(crate) fn document(parts: &Parts<'_>) -> Value {
    let Parts { plan, record, losses, .. } = parts;
    let bytes = measure::bytes_total(record);
    let copies = measure::copies_per_byte(record);
    let alone = losses.alone.iter().map(|alone| (alone.name.clone(), json!(alone.loss)));
    let (ended, ended_cause) = match parts.ended {
        Ended::Whole => ("whole", None),
        Ended::Interrupted => ("interrupted", None),
        Ended::Broken(cause) => ("broken", Some(cause.as_str())),
    };
    let notes: Vec<Value> =
        record.notes.iter().map(|(t_s, text)| json!({ "t_s": t_s, "text": text })).collect();
    let document = Document {
        schema: "plesio.demo/1",
        config: parts.args,
        host: parts.host,
        ended,
        ended_cause,
        nodes: plan.founders(),
        processes: record.processes(),
        backend: record.nodes.iter().find(|node| node.pid.is_some()).map(|node| node.found.backend.as_str()),
        protection: if plan.sealed { "sealed" } else { "plaintext" },
        period_ns: PERIOD_NS,
        versions_committed: record.versions_committed(),
        digests_equal: record.digests_equal(),
        loss_base: losses.base,
        loss_alone: Value::Object(alone.collect::<Map<_, _>>()),
        loss_mesh: losses.mesh,
        useful_ratio: record.useful_ratio(),
        steps_computed: record.steps_computed(),
        steps_committed: record.nodes.iter().map(|node| record.steps_committed(node.key)).sum(),
        events: json!(record.events),
        notes: Value::Array(notes),
        bytes_data: bytes.data_sent,
        bytes_data_received: bytes.data_received,
        bytes_data_resent: bytes.data_resent,
        bytes_sideband: bytes.sideband_sent,
        bytes_memory_read: bytes.memory_read,
        bytes_memory_taken: bytes.memory_taken,
        notices_refused: bytes.notices_refused,
        datagrams_dropped: bytes.dropped,
        copies_per_byte: json!({
            "sent": copies.map(|(sent, _)| sent),
            "received": copies.map(|(_, received)| received),
        }),
        path: json!(record.path.as_ref().map(|report| {
            json!({ "flags": parts.args.impair.to_string(), "datagrams": bench::relay_figures(report) })
        })),
        phase_error_p99_s: measure::quantile(&mut measure::phase_errors_s(&record.nodes), 0.99),
        clock_error_p99_ns: measure::quantile(&mut measure::clock_errors_ns(record), 0.99),
        recovery_s: record.recovery_s(),
        shares: &record.shares,
        trained_s: record.trained_s,
        wall_s: parts.wall_s,
        members: (0..plan.members.len()).map(|index| member(plan, record, index)).collect(),
        checks: parts.checks,
        report: parts.report,
    };
    // The only failure of a serialisation into memory is a map with keys that are no strings.
    serde_json::to_value(document).expect("every key of the document is a string")
}

fn member(plan: &Plan, record: &Record, index: usize) -> Value {
    let (member, node) = (&plan.members[index], &record.nodes[index]);
    let bytes = measure::bytes(node);
    let mut phases = measure::phase_errors_s(std::slice::from_ref(node));
    json!({
        "name": member.name,
        "id": crate::hex::hex(&member.id.0),
        "pid": node.pid,
        "founder": index < plan.founders(),
        "fate": node.fate,
        "udp_data": node.hello.as_ref().map(|hello| hello.data),
        "udp_sideband": node.hello.as_ref().map(|hello| hello.sideband),
        "backend": node.found.backend,
        "backend_reason": node.found.backend_reason,
        "data_path": node.found.path,
        "device": node.found.device,
        "device_reason": node.found.device_reason,
        "kernels": node.found.kernels,
        "arena_bytes": node.found.arena_bytes,
        "locked_bytes": node.found.locked_bytes,
        "found": node.found.notes,
        "shard": data::shard_name(member.work.shard),
        "shard_part": format!("{}/{}", member.work.part + 1, member.work.parts),
        "relative_speed": member.speed,
        "core_share": member.duty,
        "clock_offset_ns": member.clock.offset_ns,
        "clock_rate_ppm": member.clock.rate_ppm,
        "attached_s": node.attached.map(|(t_s, _)| t_s),
        "attached_version": node.attached.map(|(_, version)| version),
        "steps_computed": node.steps,
        "steps_committed": record.steps_committed(node.key),
        "states_taken_over": node.installs,
        "version": node.last.as_ref().map(|last| last.version),
        "digest": node.last.as_ref().map(|last| last.digest.as_str()),
        "bytes_data_sent": bytes.data_sent,
        "bytes_data_received": bytes.data_received,
        "bytes_data_resent": bytes.data_resent,
        "bytes_memory_read": bytes.memory_read,
        "bytes_memory_taken": bytes.memory_taken,
        "bytes_sideband_sent": bytes.sideband_sent,
        "datagrams_dropped": bytes.dropped,
        "phase_error_p99_s": measure::quantile(&mut phases, 0.99),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::example::{self, Example};

    /// What the interface promises for `plesio.demo/1`.
    const FIELDS: [&str; 20] = [
        "schema",
        "config",
        "host",
        "nodes",
        "processes",
        "backend",
        "protection",
        "versions_committed",
        "digests_equal",
        "loss_base",
        "loss_alone",
        "loss_mesh",
        "useful_ratio",
        "events",
        "bytes_data",
        "bytes_sideband",
        "copies_per_byte",
        "phase_error_p99_s",
        "clock_error_p99_ns",
        "checks",
    ];

    #[test]
    fn the_document_has_every_field_it_promises() {
        let run = Example::new();
        let plan = &run.plan;
        let parts = Parts { report: Some(Path::new("plesio-demo/report.html")), ..run.parts() };
        let document = document(&parts);
        for field in FIELDS {
            assert!(!document[field].is_null(), "{field} is missing");
        }
        assert_eq!(document["config"]["seed"], 9);
        assert_eq!(document["nodes"], plan.founders());
        assert_eq!(document["processes"], plan.members.len());
        assert_eq!(document["loss_alone"].as_object().map(Map::len), Some(plan.members.len() - 1));
        assert_eq!(document["events"][0]["kind"], "crash");
        assert_eq!(document["copies_per_byte"]["sent"], 0.0);
        assert_eq!(document["members"][0]["steps_computed"], run.record.nodes[0].steps);
    }

    #[test]
    fn what_is_not_known_is_null_and_not_a_guess() {
        let plan = Plan::draw(1, 2, 10, 2);
        let record = Record::default_for(&plan);
        let (host, args) = (Host::look("mio".into(), "a test".into()), example::args());
        let parts = Parts {
            args: &args,
            host: &host,
            plan: &plan,
            record: &record,
            losses: &Losses::default(),
            checks: &[],
            ended: &Ended::Broken("no quorum".into()),
            wall_s: 1.0,
            report: None,
        };
        let document = document(&parts);
        for field in ["loss_base", "loss_mesh", "useful_ratio", "clock_error_p99_ns", "backend", "report"] {
            assert!(document[field].is_null(), "{field}");
        }
        assert_eq!(document["digests_equal"], false);
        assert_eq!(document["ended_cause"], "no quorum");
    }
}
