//! What a demo promises, and whether this one kept it.
//!
//! Each check names what is expected in words, what was measured as a value, and a verdict. A figure that
//! could not be had fails its check: silence is not success.

use super::evaluate::Losses;
use super::measure;
use super::plan::{PERIOD_NS, Plan};
use super::record::{Kind, Record};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// How far under the base the mesh must come, in nats per byte.
const GAIN_NATS_MIN: f64 = 0.15;
const USEFUL_RATIO_MIN: f64 = 0.90;
/// Copies on the way out and in: in plaintext the chunks that a train brought to the wrong place, and once what is taken out
/// of other nodes' memory.
const PLAINTEXT_COPIES_MAX: (f64, f64) = (0.0, 0.02);
/// Sealed, the cipher's pass into the packet, and a move before it for ciphers that cannot do both; on the way in the
/// cipher's pass alone. A little more for what was sent again.
const SEALED_COPIES_MAX: (f64, f64) = (2.1, 1.1);
/// A member whose clock is off by less than this part of a frame works at full efficiency.
const CLOCK_ERROR_FRAMES_MAX: f64 = 0.1;
/// From the kill to the first version that all survivors have.
const RECOVERY_S_MAX: f64 = 2.0;

/// One promise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) expected: String,
    pub(crate) measured: Value,
    pub(crate) pass: bool,
}

/// Judges a finished demo.
pub(crate) fn judge(plan: &Plan, record: &Record, losses: &Losses) -> Vec<Check> {
    let mut checks = vec![
        same_everywhere(record),
        learns(losses),
        beats_each_alone(losses),
        told(record, "crash_seen", Kind::Crash),
        told(record, "join_seen", Kind::Join),
        at_least("useful_ratio", record.useful_ratio(), USEFUL_RATIO_MIN),
        processes(plan, record),
        ports(record),
    ];
    let copies = measure::copies_per_byte(record);
    let (sent_max, received_max) = if plan.sealed { SEALED_COPIES_MAX } else { PLAINTEXT_COPIES_MAX };
    checks.push(at_most("copies_per_byte_sent", copies.map(|(sent, _)| sent), sent_max));
    let received_max = if plan.sealed { received_max } else { received_max + measure::taken_ratio(record) };
    checks.push(at_most("copies_per_byte_received", copies.map(|(_, received)| received), received_max));
    let clock_ns = measure::quantile(&mut measure::clock_errors_ns(record), 0.99);
    checks.push(at_most("clock_error_p99_ns", clock_ns, CLOCK_ERROR_FRAMES_MAX * PERIOD_NS as f64));
    checks.extend(record.path.as_ref().map(through_path));
    if record.killed_s.is_some() {
        checks.push(at_most("recovery_s", record.recovery_s(), RECOVERY_S_MAX));
    }
    checks.push(ended_well(record));
    checks
}

fn same_everywhere(record: &Record) -> Check {
    let ends: BTreeSet<String> = record
        .survivors()
        .map(|node| {
            node.last.as_ref().map_or("none".into(), |last| format!("v{} {}", last.version, last.digest))
        })
        .collect();
    Check {
        name: "digests_equal",
        expected: "one version and one digest on all members".into(),
        measured: json!(ends),
        pass: record.digests_equal(),
    }
}

fn learns(losses: &Losses) -> Check {
    let bound = losses.base.map(|base| base - GAIN_NATS_MIN);
    Check {
        name: "loss_mesh_under_base",
        expected: match bound {
            Some(bound) => format!("<= {bound:.4} (base - {GAIN_NATS_MIN})"),
            None => format!("<= base - {GAIN_NATS_MIN}"),
        },
        measured: json!(losses.mesh),
        pass: losses.mesh.zip(bound).is_some_and(|(mesh, bound)| mesh <= bound),
    }
}

fn beats_each_alone(losses: &Losses) -> Check {
    let alone: Option<Vec<f64>> = losses.alone.iter().map(|alone| alone.loss).collect();
    let best = alone.and_then(|losses| losses.into_iter().min_by(f64::total_cmp));
    Check {
        name: "loss_mesh_under_alone",
        expected: match best {
            Some(best) => format!("< {best:.4} (the best of the members alone)"),
            None => "< every member alone".into(),
        },
        measured: json!(losses.mesh),
        pass: losses.mesh.zip(best).is_some_and(|(mesh, best)| mesh < best),
    }
}

fn told(record: &Record, name: &'static str, kind: Kind) -> Check {
    let causes: Vec<&str> =
        record.events.iter().filter(|event| event.kind == kind).map(|event| event.cause.as_str()).collect();
    Check {
        name,
        expected: "at least one, each with its cause".into(),
        pass: !causes.is_empty() && causes.iter().all(|cause| !cause.is_empty()),
        measured: json!(causes),
    }
}

fn processes(plan: &Plan, record: &Record) -> Check {
    let pids: BTreeSet<u32> = record.nodes.iter().filter_map(|node| node.pid).collect();
    Check {
        name: "processes",
        expected: format!("{} (the nodes and the joiner)", plan.members.len()),
        measured: json!(pids.len()),
        pass: pids.len() == plan.members.len(),
    }
}

/// Two UDP ports per process. A port of one that is gone may serve again, so they differ among the founders
/// and within each node.
fn ports(record: &Record) -> Check {
    let hellos: Vec<_> = record.nodes.iter().filter_map(|node| node.hello.as_ref()).collect();
    let differ = hellos.iter().all(|hello| hello.data != hello.sideband);
    let founders = hellos.len().saturating_sub(1);
    let distinct: BTreeSet<_> =
        hellos[..founders].iter().flat_map(|hello| [hello.data, hello.sideband]).collect();
    Check {
        name: "udp_ports",
        expected: "two per process: data and sideband".into(),
        measured: json!(hellos.len() * if differ { 2 } else { 1 }),
        pass: !hellos.is_empty() && differ && distinct.len() == 2 * founders,
    }
}

/// The bad path was there: datagrams went through it, and none came from a socket that it does not know.
fn through_path(report: &plesio_relay::Report) -> Check {
    Check {
        name: "through_the_path",
        expected: "every datagram from a known node".into(),
        measured: json!(report.to_string()),
        pass: report.tally.sent > 0 && report.strangers == 0,
    }
}

fn ended_well(record: &Record) -> Check {
    use super::record::Fate;
    let odd: Vec<String> = record
        .nodes
        .iter()
        .filter(|node| matches!(node.fate, Fate::Crashed | Fate::Alive | Fate::Absent))
        .map(|node| format!("{}: {:?}", node.name, node.fate).to_lowercase())
        .collect();
    Check {
        name: "orderly_end",
        expected: "every member stopped when told to, or was killed with SIGKILL".into(),
        pass: odd.is_empty(),
        measured: json!(odd),
    }
}

fn at_least(name: &'static str, measured: Option<f64>, bound: f64) -> Check {
    let pass = measured.is_some_and(|measured| measured >= bound);
    Check { name, expected: format!(">= {bound}"), measured: json!(measured), pass }
}

fn at_most(name: &'static str, measured: Option<f64>, bound: f64) -> Check {
    let pass = measured.is_some_and(|measured| measured <= bound);
    Check { name, expected: format!("<= {bound}"), measured: json!(measured), pass }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::example;

    fn failed(plan: &Plan, record: &Record, losses: &Losses) -> Vec<&'static str> {
        judge(plan, record, losses).into_iter().filter(|check| !check.pass).map(|check| check.name).collect()
    }

    #[test]
    fn a_good_run_passes_every_check() {
        let (plan, record, losses) = example::run();
        assert_eq!(failed(&plan, &record, &losses), [] as [&str; 0]);
    }

    #[test]
    fn each_promise_has_a_check_that_can_fail() {
        let (plan, good, losses) = example::run();
        assert_eq!(
            failed(&plan, &Record::default(), &Losses::default()),
            [
                "digests_equal",
                "loss_mesh_under_base",
                "loss_mesh_under_alone",
                "crash_seen",
                "join_seen",
                "useful_ratio",
                "processes",
                "udp_ports",
                "copies_per_byte_sent",
                "copies_per_byte_received",
                "clock_error_p99_ns",
            ]
        );
        let mut weak = losses.clone();
        weak.mesh = Some(losses.base.expect("judged") - 0.1);
        assert_eq!(failed(&plan, &good, &weak), ["loss_mesh_under_base", "loss_mesh_under_alone"]);
        let mut strong_alone = losses.clone();
        strong_alone.alone[1].loss = losses.mesh;
        assert_eq!(failed(&plan, &good, &strong_alone), ["loss_mesh_under_alone"]);
        let mut unknown_alone = losses.clone();
        unknown_alone.alone[0].loss = None;
        assert_eq!(failed(&plan, &good, &unknown_alone), ["loss_mesh_under_alone"]);
        let mut wasteful = good.clone();
        wasteful.nodes[0].steps *= 2;
        assert_eq!(failed(&plan, &wasteful, &losses), ["useful_ratio"]);
        let mut copying = good.clone();
        copying.nodes[0].last.as_mut().expect("a last word").copies.sent_copied = 1;
        assert_eq!(failed(&plan, &copying, &losses), ["copies_per_byte_sent"]);
        let mut sealed = (plan.clone(), good.clone());
        sealed.0.sealed = true;
        let copies = |record: &mut Record, times: u64| {
            for last in record.nodes.iter_mut().filter_map(|node| node.last.as_mut()) {
                last.copies.sent_copied = times * last.copies.sent_payload;
                last.copies.received_copied = last.copies.received_payload;
            }
        };
        copies(&mut sealed.1, 2);
        assert!(failed(&sealed.0, &sealed.1, &losses).is_empty());
        copies(&mut sealed.1, 3);
        assert_eq!(failed(&sealed.0, &sealed.1, &losses), ["copies_per_byte_sent"]);
        let mut slow = good.clone();
        let killed_s = slow.killed_s.expect("the example kills");
        let late = slow.nodes.iter_mut().find(|node| node.last.is_some()).expect("a survivor");
        late.versions.retain(|_, (t_s, _)| !(killed_s..killed_s + 2.5).contains(t_s));
        assert_eq!(failed(&plan, &slow, &losses), ["recovery_s"]);
        let mut around = good.clone();
        around.path = Some(plesio_relay::Report { strangers: 1, ..plesio_relay::Report::default() });
        assert_eq!(failed(&plan, &around, &losses), ["through_the_path"]);
        let mut one_port = good;
        let hello = one_port.nodes[1].hello.as_mut().expect("a hello");
        hello.sideband = hello.data;
        assert_eq!(failed(&plan, &one_port, &losses), ["udp_ports"]);
    }
}
