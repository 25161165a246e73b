//! What machines say, in few words, for a story.

use plesio_consensus::Event;
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
                "enters view {} of {} at index {}, added [{}], removed [{}]",
                view.number,
                view.members.len(),
                index.0,
                keys(added),
                keys(removed)
            )
        }
        other => format!("{other:?}"),
    }
}

fn entries(manifest: &Manifest) -> String {
    let list: Vec<String> =
        manifest.entries.iter().map(|entry| format!("{}:{}", entry.member, entry.slot_seq)).collect();
    format!("frame {}, slots {}", manifest.origin.0, list.join(" "))
}
