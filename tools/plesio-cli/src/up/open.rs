//! Why a node cannot be opened, and what mends it: a file that is damaged asks for something else than one that cannot be
//! written.

use crate::failure::Failure;
use plesio::{NodeError, StateError};
use plesio_sideband::RecordError;
use std::io;
use std::path::Path;

pub(super) fn cannot_open(error: NodeError) -> Failure {
    match error {
        NodeError::State(error) => no_state(&error),
        NodeError::Record(error) => no_record(&error),
        error => Failure::run("node", "cannot open the node", error)
            .fix("see whether the address is one of this machine's and its port is free (ss -lun)"),
    }
}

fn no_state(error: &StateError) -> Failure {
    // With --found it would begin a second mesh.
    let anew = "move the folder away, and let this node come in anew: --join KEY@ADDR of another member";
    let (cause, fix) = match error {
        StateError::Io { path, cause } if is_damage(cause) => (at(path, cause), anew),
        StateError::Io { path, cause } => {
            (at(path, cause), "give --state a folder of this node's own that this user may write in")
        }
        StateError::Damaged(_) => (error.to_string(), anew),
        StateError::Foreign { .. } => {
            (error.to_string(), "start this node as that mesh was, or give --state an empty folder")
        }
        _ => (error.to_string(), "give --state a folder of this node's own"),
    };
    Failure::usage("state", "cannot keep what is to outlive this node", cause).fix(fix)
}

fn no_record(error: &RecordError) -> Failure {
    let ask = "ask another node whether the mesh is halted (plesio status); if it is not, move the file away";
    let (cause, fix) = match error {
        RecordError::Io { path, cause } if is_damage(cause) => (at(path, cause), ask),
        RecordError::Io { path, cause } => {
            (at(path, cause), "give --halt-record a file in a folder that this user may write in")
        }
        RecordError::Damaged(_) => (error.to_string(), ask),
        _ => (error.to_string(), "give --halt-record a file of this node and this mesh alone"),
    };
    Failure::usage("halt-record", "cannot keep a HALT of the operators through a restart", cause).fix(fix)
}

/// Whether a file was read and is not what was written; the kernel never says this of a path.
fn is_damage(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::InvalidData
}

fn at(path: &Path, cause: &io::Error) -> String {
    format!("{}: {cause}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A damaged file was to be mended by a folder that its user may write in.
    #[test]
    fn damage_is_not_mended_by_permissions() {
        let path = || PathBuf::from("there");
        let cut = || io::Error::new(io::ErrorKind::InvalidData, "it was cut");
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        for error in [StateError::Damaged(path()), StateError::Io { path: path(), cause: cut() }] {
            let failure = cannot_open(error.into());
            assert!(failure.fix.contains("move the folder away"), "{failure}");
            assert!(
                failure.cause.contains("there") && !failure.to_string().contains("may write"),
                "{failure}"
            );
        }
        for error in [RecordError::Damaged(path()), RecordError::Io { path: path(), cause: cut() }] {
            let failure = cannot_open(error.into());
            assert!(failure.fix.contains("whether the mesh is halted"), "{failure}");
            assert!(
                failure.cause.contains("there") && !failure.to_string().contains("may write"),
                "{failure}"
            );
        }
        let failure = cannot_open(StateError::Io { path: path(), cause: denied() }.into());
        assert!(failure.fix.contains("--state") && failure.fix.contains("may write"), "{failure}");
        let failure = cannot_open(RecordError::Io { path: path(), cause: denied() }.into());
        assert!(failure.fix.contains("--halt-record") && failure.fix.contains("may write"), "{failure}");
        let failure = cannot_open(RecordError::Busy(path()).into());
        assert!(failure.cause.contains("another process") && failure.fix.contains("this node"), "{failure}");
    }
}
