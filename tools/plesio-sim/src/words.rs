//! What machines say, in few words, for a story.

use plesio_consensus::Event;
use plesio_wire::sideband::Message;
use plesio_wire::value::Manifest;

/// One line for an event.
pub(crate) fn event(event: &Event) -> String {
    match event {
        Event::Open { context, version, manifest } => {
            format!("opens version {} at index {}, {}", version.0, context.0, entries(manifest))
        }
        Event::Reopen { context, version, manifest, .. } => {
            format!("reopens version {} at index {}, {}", version.0, context.0, entries(manifest))
        }
        Event::Sealed { index, version, complete } => {
            let how = if *complete { "complete" } else { "incomplete" };
            format!("learns SEAL of version {} at index {}, {how}", version.0, index.0)
        }
        Event::View { index, view, added, removed } => {
            let keys = |keys: &[plesio_wire::NodeKey]| {
                keys.iter().map(|key| format!("{:04x}", key.0 >> 48)).collect::<Vec<_>>().join(" ")
            };
            format!(
                "enters view {} of {} at index {}, added [{}], removed [{}], shares {:?}",
                view.number,
                view.members.len(),
                index.0,
                keys(added),
                keys(removed),
                view.shares
            )
        }
        other => format!("{other:?}"),
    }
}

/// A few words for a message.
pub(crate) fn message(message: &Message) -> String {
    match message {
        Message::Propose(body) => format!("PROPOSE {} in {:?}", body.index.0, body.ballot),
        Message::Epoch(body) => {
            format!("EPOCH {} in {:?}, view {}", body.index.0, body.ballot, body.view.number)
        }
        Message::Decided { index, .. } => format!("DECIDED {}", index.0),
        Message::Last(body) => {
            format!("LAST {} in {:?}, shards {:?}", body.index.0, body.ballot, body.shards)
        }
        Message::Join(body) => format!("JOIN hold {} index {}", body.hold, body.index.0),
        Message::Roster(body) => format!("ROSTER of view {}, {} entries", body.view, body.entries.len()),
        other => format!("{other:?}"),
    }
}

fn entries(manifest: &Manifest) -> String {
    let list: Vec<String> =
        manifest.entries.iter().map(|entry| format!("{}:{}", entry.member, entry.slot_seq)).collect();
    format!("frame {}, slots {}", manifest.origin.0, list.join(" "))
}
