//! The memory that a node of the built-in model gets here, found by starting one that enters no mesh.

use super::{Finding, Status};
use crate::demo::{data, train};
use plesio::{Node, NodeConfig};
use plesio_wire::Incarnation;

/// Rung by rung: what pages it lies in, what is locked, whether io_uring has it registered.
pub(super) fn rungs() -> Vec<Finding> {
    match notes() {
        Ok(notes) => findings(&notes),
        Err(cause) => vec![Finding::new(NAME, Status::Limited, format!("no node starts here: {cause}"))],
    }
}

fn notes() -> Result<Vec<String>, String> {
    let say = |error: &dyn std::fmt::Display| error.to_string();
    let base = data::base().map_err(|error| say(&error))?;
    let elements = train::elements(&base, 0).map_err(|error| say(&error))?;
    let id = plesio::engine::node_id(b"doctor");
    let node =
        Node::bind(NodeConfig::plaintext(id, Incarnation(1), 0, elements)).map_err(|error| say(&error))?;
    let mut notes = node.found().notes.clone();
    if !notes.iter().any(|note| note.contains("io_uring")) {
        let bytes = node.found().arena_bytes;
        notes.push(format!("arena: {bytes} bytes not registered: the data plane has no ring here"));
    }
    Ok(notes)
}

fn findings(notes: &[String]) -> Vec<Finding> {
    let lines = notes.iter().filter_map(|note| note.strip_prefix("arena: "));
    let refused = |line: &str| {
        ["failed", "paged out", "not registered", "locked at best"].iter().any(|word| line.contains(word))
    };
    lines
        .map(|line| Finding::new(NAME, if refused(line) { Status::Limited } else { Status::Good }, line))
        .collect()
}

const NAME: &str = "arena";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_rung_is_a_limit_and_others_are_none_of_the_arenas() {
        let notes = [
            "arena: locking all 9 bytes failed: why (limit 0 bytes); raise it with `ulimit -l 1`",
            "arena: 0 of 9 bytes locked (0 of 2 regions); the rest is ordinary memory and may be paged out",
            "arena: 9 bytes registered with io_uring",
            "sideband: no stamps",
        ];
        let found = findings(&notes.map(String::from));
        let statuses: Vec<Status> = found.iter().map(|finding| finding.status).collect();
        assert_eq!(statuses, [Status::Limited, Status::Limited, Status::Good]);
        assert!(found[0].found.starts_with("locking all 9 bytes"), "{found:?}");
    }

    #[test]
    fn every_rung_says_its_bytes() {
        let found = rungs();
        for rung in ["locked", "io_uring", "registered"] {
            let said = found
                .iter()
                .any(|finding| finding.found.contains(rung) || finding.found.contains("ring here"));
            assert!(said, "{rung}: {found:?}");
        }
        assert!(
            found.iter().all(|finding| finding.found.chars().any(|letter| letter.is_ascii_digit())),
            "{found:?}"
        );
    }
}
