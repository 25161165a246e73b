//! Between the facade's words and the launcher's: identities as text, events as lines.

use super::{data, say};
use crate::args::BackendArg;
use crate::demo::protocol::{self, Bytes, Copies, Entry, Final, Found, Hello, Progress, Said, Setup};
use crate::failure::Failure;
use crate::hex::hex;
use crate::random;
use plesio::{Contribution, NodeConfig, NodeEvent, What};
use plesio_sideband::ClockSeam;
use plesio_udp::Requested;
use plesio_wire::{Incarnation, NodeId, NodeKey};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

/// The node's configuration from its setup.
pub(super) fn config(setup: &Setup, elements: usize) -> Result<NodeConfig, Failure> {
    let incarnation = Incarnation(random::number()?);
    let mut config = match &setup.keys {
        Some(keys) => NodeConfig::new(keys.identity()?, incarnation, elements),
        None => NodeConfig::plaintext(id(&setup.id)?, incarnation, setup.mesh, elements),
    };
    config.backend = requested(setup.backend);
    config.path = setup.path.path();
    config.codec = setup.codec.codec();
    config.sharing = setup.shares.sharing();
    config.rules = setup.rules.rules()?;
    config.clock = ClockSeam { offset_ns: setup.clock.offset_ns, rate_ppm: setup.clock.rate_ppm };
    // Nodes that share a few cores take long steps; frames as long as those would show the machine, not the mesh.
    (config.period_ns, config.period_max_ns) = (setup.period_ns, setup.period_ns);
    config.model = data::base_digest();
    config.advertise_data = setup.advertise.map(|addresses| addresses.data);
    config.advertise_sideband = setup.advertise.map(|addresses| addresses.sideband);
    Ok(config)
}

/// The backend in the words of the data plane.
pub(crate) fn requested(backend: BackendArg) -> Requested {
    match backend {
        BackendArg::Auto => Requested::Auto,
        BackendArg::Uring => Requested::Uring,
        BackendArg::UringLegacy => Requested::UringLegacy,
        BackendArg::Mio => Requested::Mio,
    }
}

pub(super) fn found(found: &plesio::Found) -> Found {
    Found {
        backend: found.backend.clone(),
        backend_reason: found.backend_reason.clone(),
        path: found.path.clone(),
        device: found.device.clone(),
        device_reason: found.device_reason.clone(),
        kernels: found.kernels.clone(),
        arena_bytes: found.arena_bytes,
        locked_bytes: found.locked_bytes,
        notes: found.notes.clone(),
    }
}

pub(super) fn hello_out(hello: &plesio::Hello) -> Hello {
    Hello {
        id: hex(&hello.id.0),
        incarnation: hello.incarnation.0,
        data: hello.data,
        sideband: hello.sideband,
    }
}

pub(super) fn hello_in(hello: &Hello) -> Result<plesio::Hello, Failure> {
    Ok(plesio::Hello {
        id: id(&hello.id)?,
        incarnation: Incarnation(hello.incarnation),
        data: hello.data,
        sideband: hello.sideband,
    })
}

/// What the node is called in a trace.
pub(super) fn name(setup: &Setup) -> Result<String, Failure> {
    Ok(crate::hex::name(id(&setup.id)?.key()))
}

/// Passes on every event until the node has ended, and all of them as lines of a trace where `traced` names the node;
/// whether it ended in good order.
pub(super) fn tell(events: &Receiver<NodeEvent>, steps: &AtomicU64, traced: Option<&str>) -> bool {
    let mut healthy = true;
    while let Ok(event) = events.recv() {
        if let Some(node) = traced {
            say(&Said::Trace { line: crate::trace::said(node, &event) });
        }
        healthy &= !matches!(event.what, What::Failed(_) | What::Stopped { .. });
        if let What::Final(last) = event.what {
            let steps = steps.load(Ordering::Relaxed);
            let raw: Vec<u8> = last.state.iter().flat_map(|value| value.to_le_bytes()).collect();
            let said = Said::Final(last_word(&last, steps, raw.len() as u64));
            let _gone = protocol::write_message(&mut io::stdout().lock(), &said, &raw);
        } else if let Some(said) = line(event) {
            say(&said);
        }
    }
    healthy
}

fn last_word(last: &plesio::Final, steps: u64, state_bytes: u64) -> Final {
    let counters = &last.progress.counters;
    let taken = counters.memory_taken_bytes;
    Final {
        version: last.version.0,
        digest: last.digest.to_string(),
        steps,
        steps_committed: last.progress.steps_committed,
        bytes: bytes(counters),
        copies: Copies {
            sent_payload: counters.data_sent_bytes.saturating_sub(counters.retransmitted_bytes),
            sent_copied: counters.copied_sent_bytes,
            received_payload: counters.data_received_bytes + counters.memory_read_bytes + taken,
            received_copied: counters.copied_received_bytes + taken,
        },
        state_bytes,
    }
}

fn bytes(counters: &plesio::Counters) -> Bytes {
    Bytes {
        data_sent: counters.data_sent_bytes,
        data_received: counters.data_received_bytes,
        data_resent: counters.retransmitted_bytes,
        sideband_sent: counters.sideband_sent_bytes,
        memory_read: counters.memory_read_bytes,
        memory_taken: counters.memory_taken_bytes,
        notices_refused: counters.notices_refused,
        dropped: counters.data_dropped.saturating_add(counters.sideband_dropped),
    }
}

/// What an event is for the launcher; the last word is not among them.
fn line(event: NodeEvent) -> Option<Said> {
    let keys = |keys: Vec<NodeKey>| keys.into_iter().map(|key| key.0).collect();
    let raw_ns = event.raw_ns;
    Some(match event.what {
        What::View { number, members, added, removed, shares, seated, .. } => {
            let (members, added, removed) = (keys(members), keys(added), keys(removed));
            Said::View { raw_ns, number, members, added, removed, shares, seated }
        }
        What::Version { version, digest } => {
            Said::Version { raw_ns, version: version.0, digest: digest.to_string() }
        }
        What::Manifest { version, frame, entries, .. } => {
            let entry = |entry: Contribution| Entry {
                node: entry.node.0,
                steps: entry.steps,
                staleness: entry.staleness.into(),
                margin_frames: finite(entry.margin_frames),
            };
            let entries = entries.into_iter().map(entry).collect();
            Said::Manifest { raw_ns, version: version.0, frame, entries }
        }
        What::Suspect(node) => Said::Suspect { node: node.0 },
        What::Recover(node) => Said::Recover { node: node.0 },
        What::Dead(node) => Said::Dead { node: node.0 },
        What::Leaving(node) => Said::Leaving { node: node.0 },
        What::NoQuorum { live, members } => Said::NoQuorum { live, members },
        What::Quorum => Said::Quorum,
        What::Excluded => Said::Excluded,
        What::Left => Said::Left,
        What::Diverged { version, peer } => Said::Diverged { version: version.0, peer: peer.0 },
        What::Installed(version) => Said::Installed { version: version.0 },
        What::Note(text) => Said::Note { text },
        What::Resync(version) => Said::Note {
            text: format!("a quorum holds other bits of version {}, which it takes over", version.0),
        },
        What::Stopped { version, .. } => {
            Said::Failed { error: format!("it commits nothing after version {}", version.0) }
        }
        What::Failed(error) => Said::Failed { error },
        What::Progress(progress) => Said::Progress(Progress {
            raw_ns,
            mesh_ns: progress.mesh_ns,
            eps_ns: progress.eps_ns.into(),
            state: progress.state,
            lead_ns: progress.lead_ns,
            version: progress.version,
            bytes: bytes(&progress.counters),
        }),
        // The rest is no part of the story: the corrector's state is in every progress, the way to a peer in `plesio
        // status`, and who asks to be let in is told by the view that does it.
        _ => return None,
    })
}

/// JSON has no other numbers.
fn finite(value: f32) -> f32 {
    if value.is_finite() { value } else { 0.0 }
}

fn id(text: &str) -> Result<NodeId, Failure> {
    let wrong =
        || Failure::run("node", "cannot read an id", format!("{text:?} is not 64 hexadecimal digits"));
    let mut id = [0; 32];
    if text.len() != 2 * id.len() || !text.is_ascii() {
        return Err(wrong());
    }
    for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
    }
    Ok(NodeId(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plesio_wire::{Digest, Version};

    #[test]
    fn an_id_survives_its_text() {
        let node = NodeId(std::array::from_fn(|index| index as u8 * 7));
        assert_eq!(id(&hex(&node.0)).expect("whole"), node);
        for wrong in ["", "00", &"0g".repeat(32), &"é".repeat(32)] {
            assert!(id(wrong).is_err(), "{wrong}");
        }
    }

    /// They stood in the story, and in the report, as the program writes them for itself.
    #[test]
    fn what_has_no_sentence_is_not_in_the_story() {
        let way = plesio::Way { peer: NodeKey(7), chunk_bytes: 1_408, congestion: "credit", path: "udp" };
        for what in [What::Ways(vec![way]), What::Entering(plesio::Entering::default())] {
            assert_eq!(line(NodeEvent { raw_ns: 1, mesh_ns: None, what }), None);
        }
    }

    #[test]
    fn events_become_lines_that_can_be_read() {
        let version = Version(3);
        let events = [
            What::Version { version, digest: Digest::of(b"state") },
            What::Manifest {
                index: 5,
                version,
                digest: Digest::of(b"manifest"),
                frame: 9,
                entries: vec![Contribution {
                    node: NodeKey(7),
                    slot: 2,
                    steps: 4,
                    weight: 1 << 22,
                    staleness: 1,
                    margin_frames: f32::NAN,
                }],
            },
            What::Dead(NodeKey(u64::MAX)),
            What::NoQuorum { live: 2, members: 4 },
        ];
        for what in events {
            let said = line(NodeEvent { raw_ns: 1, mesh_ns: None, what }).expect("worth a line");
            let mut stream = Vec::new();
            protocol::write_message(&mut stream, &said, b"").expect("a Vec takes everything");
            assert_eq!(protocol::read_message::<Said>(&mut &stream[..]).expect("whole"), Some(said));
        }
    }
}
