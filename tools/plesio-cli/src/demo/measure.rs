//! Clocks and phases, measured from outside.
//!
//! All processes of one machine read the same `CLOCK_MONOTONIC_RAW`, so the launcher can do what no node
//! can: lay two nodes' mesh times side by side at the same moment. Nothing is taken from the nodes' own
//! error bounds.

use super::protocol::{Bytes, Copies, Progress};
use super::record::{Record, Seen};

/// Between samples further apart than this, nothing is interpolated.
const GAP_NS_MAX: i64 = 1_500_000_000;

/// Phase corrector's state 0: no clock or no state yet.
const ACQUIRE: u8 = 0;
/// Error bound of a node without a clock.
const NO_CLOCK_EPS_NS: u64 = u32::MAX as u64;
/// States in which a node's clock may be the reference.
const REFERENCE: [u8; 4] = [1, 2, 3, 4];

/// The value below which `share` of all values lie (nearest rank); none of none.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.max(1) - 1).copied()
}

/// How far the members' mesh clocks lay from the reference's, in nanoseconds, once they had acquired it.
pub(crate) fn clock_errors_ns(record: &Record) -> Vec<f64> {
    let mut by_key: Vec<&Seen> = record.nodes.iter().collect();
    by_key.sort_by_key(|node| node.key);
    let mut errors = Vec::new();
    for (index, node) in by_key.iter().enumerate() {
        for (_, sample) in
            node.progress.iter().filter(|(_, sample)| sample.state != ACQUIRE && has_clock(sample))
        {
            // The reference is the lowest member with a good clock; it is exact by definition.
            let reference = by_key[..index].iter().find_map(|lower| mesh_time_at(lower, sample.raw_ns));
            errors.extend(reference.map(|mesh_ns| (sample.mesh_ns as f64 - mesh_ns).abs()));
        }
    }
    errors
}

/// Absolute phase errors in seconds, one of every cut.
pub(crate) fn phase_errors_s(nodes: &[Seen]) -> Vec<f64> {
    let cuts = nodes.iter().flat_map(|node| &node.phases);
    cuts.map(|(_, error_ns)| error_ns.unsigned_abs() as f64 / 1e9).collect()
}

/// A node's mesh time at a moment between two of its samples.
fn mesh_time_at(node: &Seen, raw_ns: i64) -> Option<f64> {
    let after = node.progress.partition_point(|(_, sample)| sample.raw_ns < raw_ns);
    let right = &node.progress.get(after)?.1;
    if right.raw_ns == raw_ns {
        return good(right).then_some(right.mesh_ns as f64);
    }
    let left = &node.progress.get(after.checked_sub(1)?)?.1;
    let gap_ns = right.raw_ns.checked_sub(left.raw_ns)?;
    if !good(left) || !good(right) || gap_ns <= 0 || gap_ns > GAP_NS_MAX {
        return None;
    }
    let part = (raw_ns - left.raw_ns) as f64 / gap_ns as f64;
    Some(left.mesh_ns as f64 + part * right.mesh_ns.checked_sub(left.mesh_ns)? as f64)
}

fn good(sample: &Progress) -> bool {
    REFERENCE.contains(&sample.state) && has_clock(sample)
}

/// A node that begins its next life may have no clock in any state; it says so, and what it then calls mesh time is none.
fn has_clock(sample: &Progress) -> bool {
    sample.eps_ns < NO_CLOCK_EPS_NS
}

/// What a node has moved: its last word, or the last progress of one that is gone.
pub(crate) fn bytes(node: &Seen) -> Bytes {
    let last = node.last.as_ref().map(|last| last.bytes);
    last.or_else(|| node.progress.last().map(|(_, progress)| progress.bytes)).unwrap_or_default()
}

/// What all nodes have moved.
pub(crate) fn bytes_total(record: &Record) -> Bytes {
    record.nodes.iter().map(bytes).fold(Bytes::default(), |sum, node| Bytes {
        data_sent: sum.data_sent.saturating_add(node.data_sent),
        data_received: sum.data_received.saturating_add(node.data_received),
        data_resent: sum.data_resent.saturating_add(node.data_resent),
        sideband_sent: sum.sideband_sent.saturating_add(node.sideband_sent),
        memory_read: sum.memory_read.saturating_add(node.memory_read),
        memory_taken: sum.memory_taken.saturating_add(node.memory_taken),
        notices_refused: sum.notices_refused.saturating_add(node.notices_refused),
        dropped: sum.dropped.saturating_add(node.dropped),
    })
}

/// The part of all payload received that came out of other nodes' memory by a copy: sums and states.
pub(crate) fn taken_ratio(record: &Record) -> f64 {
    let finals = || record.nodes.iter().filter_map(|node| node.last.as_ref());
    let taken: u64 = finals().map(|last| last.bytes.memory_taken).fold(0, u64::saturating_add);
    let payload: u64 = finals().map(|last| last.copies.received_payload).fold(0, u64::saturating_add);
    if payload == 0 { 0.0 } else { taken as f64 / payload as f64 }
}

/// Payload bytes that user space wrote per payload byte first accepted: (sent, received) over all survivors.
pub(crate) fn copies_per_byte(record: &Record) -> Option<(f64, f64)> {
    let finals = record.nodes.iter().filter_map(|node| node.last.as_ref());
    let sum = finals.map(|last| last.copies).fold(Copies::default(), |sum, node| Copies {
        sent_payload: sum.sent_payload.saturating_add(node.sent_payload),
        sent_copied: sum.sent_copied.saturating_add(node.sent_copied),
        received_payload: sum.received_payload.saturating_add(node.received_payload),
        received_copied: sum.received_copied.saturating_add(node.received_copied),
    });
    let ratio = |copied: u64, payload: u64| (payload > 0).then(|| copied as f64 / payload as f64);
    Some((ratio(sum.sent_copied, sum.sent_payload)?, ratio(sum.received_copied, sum.received_payload)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::protocol::{Final, Said};

    /// A node that sees the raw clock `offset_ns` ahead and says so every quarter of a second.
    fn sample(raw_ns: i64, offset_ns: i64, state: u8) -> Said {
        Said::Progress(Progress { raw_ns, mesh_ns: raw_ns + offset_ns, state, ..Progress::default() })
    }

    #[test]
    fn two_clocks_are_laid_side_by_side() {
        // The lowest key is the second node: it is the reference and the first is judged.
        let mut record = Record::new([("n0".into(), 9), ("n1".into(), 3)]);
        for tick in 0..40_i64 {
            let t_s = tick as f64 * 0.25;
            let state = if tick < 4 { 0 } else { 1 };
            record.handle_said(t_s, 1, sample(tick * 250_000_000, 1_000_000, 1));
            record.handle_said(t_s, 0, sample(tick * 250_000_000 + 90_000_000, 1_000_000 + tick, state));
        }
        let mut errors = clock_errors_ns(&record);
        // Not before it has acquired the clock, and not after the reference's last sample.
        assert_eq!(errors.len(), 35);
        assert!((quantile(&mut errors, 0.99).expect("samples") - 38.0).abs() < 1.0, "{errors:?}");
    }

    #[test]
    fn what_a_node_without_a_clock_calls_mesh_time_is_none() {
        let detached = |raw_ns, eps_ns| {
            Said::Progress(Progress { raw_ns, mesh_ns: 1 << 60, eps_ns, state: 6, ..Progress::default() })
        };
        let mut record = Record::new([("n0".into(), 1), ("n1".into(), 2)]);
        record.handle_said(0.0, 0, sample(0, 0, 1));
        record.handle_said(0.2, 0, sample(200_000_000, 0, 1));
        record.handle_said(0.1, 1, detached(100_000_000, NO_CLOCK_EPS_NS));
        assert!(clock_errors_ns(&record).is_empty());
        record.handle_said(0.1, 1, detached(150_000_000, 1_000));
        assert_eq!(clock_errors_ns(&record).len(), 1);
    }

    #[test]
    fn nothing_is_interpolated_over_a_gap() {
        let mut record = Record::new([("n0".into(), 1), ("n1".into(), 2)]);
        record.handle_said(0.0, 0, sample(0, 0, 1));
        record.handle_said(9.0, 0, sample(9_000_000_000, 0, 1));
        record.handle_said(4.0, 1, sample(4_000_000_000, 500, 1));
        assert!(clock_errors_ns(&record).is_empty());
    }

    #[test]
    fn quantiles_are_of_the_values_themselves() {
        assert_eq!(quantile(&mut [], 0.99), None);
        assert_eq!(quantile(&mut [4.0], 0.01), Some(4.0));
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut values, 0.99), Some(99.0));
        assert_eq!(quantile(&mut values, 1.0), Some(100.0));
    }

    #[test]
    fn copies_count_per_byte_and_not_per_node() {
        let mut record = Record::new([("n0".into(), 1), ("n1".into(), 2)]);
        assert_eq!(copies_per_byte(&record), None);
        for (index, received_copied) in [(0, 0), (1, 30)] {
            let copies =
                Copies { sent_payload: 1000, sent_copied: 0, received_payload: 1000, received_copied };
            record.handle_said(1.0, index, Said::Final(Final { copies, ..Final::default() }));
        }
        assert_eq!(copies_per_byte(&record), Some((0.0, 0.015)));
    }
}
