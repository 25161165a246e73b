//! How a mesh begins: the view that an operator's roster makes, and names for nodes.

use plesio_wire::sideband::RosterEntry;
use plesio_wire::value::View;
use plesio_wire::{Incarnation, LogIndex, NodeId};

/// The view that an operator's roster makes: log index 0.
///
/// # Errors
/// The reason, when ids repeat or there are none or too many.
pub fn genesis(
    entries: &[(RosterEntry, Incarnation)],
    period_ns: u64,
    scale_exponent: i8,
    elements: u64,
) -> Result<(Vec<RosterEntry>, View), &'static str> {
    let mut sorted = entries.to_vec();
    sorted.sort_by_key(|(entry, _)| entry.id.key());
    if sorted.is_empty() || sorted.len() > plesio_wire::MEMBERS_MAX {
        return Err("a roster names 1 to 32 nodes");
    }
    if sorted.windows(2).any(|pair| pair[0].0.id.key() == pair[1].0.id.key()) {
        return Err("two nodes of the roster have the same first eight bytes of id; draw one anew");
    }
    let roster: Vec<RosterEntry> = sorted.iter().map(|(entry, _)| *entry).collect();
    let mut view = View {
        period_us: u32::try_from(period_ns / 1_000)
            .map_err(|_| "the frame period is longer than 71 minutes")?,
        scale_exponent,
        elements,
        roster: plesio_consensus::roster_digest(&roster),
        ..View::default()
    };
    for (entry, incarnation) in &sorted {
        let seat = plesio_wire::value::Seat {
            key: entry.id.key(),
            incarnation: *incarnation,
            admitted: LogIndex(0),
        };
        view.members.push(seat).map_err(|_| "a roster names 1 to 32 nodes")?;
    }
    Ok((roster, view))
}

/// A node id from its seed material, for tests and the demo.
#[must_use]
pub fn node_id(material: &[u8]) -> NodeId {
    let (mut low, mut high) =
        (plesio_wire::digest::Hasher::default(), plesio_wire::digest::Hasher::default());
    low.update(material);
    high.update(material);
    high.update(b"high");
    let mut id = [0; 32];
    id[..16].copy_from_slice(&low.finish().0);
    id[16..].copy_from_slice(&high.finish().0);
    NodeId(id)
}
