//! The flags of `plesio bench churn`.

use super::{BackendArg, DataPathArg, OutputArgs, parse_switch};
use crate::bench::Requirement;
use clap::Args;
use serde::Serialize;

pub(super) const ABOUT: &str = "A mesh whose processes are killed and started anew without a pause.

Node processes on this machine train one small model, a frame every 250 ms. Every 0.5 to 2 s one of them is killed with SIGKILL, and \
every 0.5 to 2 s one that is dead is started anew: the same key, another life, its state from the mesh. Nobody is killed whose death \
would leave no quorum, and one node, drawn from the seed, never: it is there to show what piles up. With --pause processes are \
also stopped for 0.2, 0.7 or 3 s. Frames stay at 250 ms: the nodes train on the same few cores, and would lengthen them to their \
steps (`plesio up` does, see --period-max-ms).

All times are from the nodes' own reports, in the machine's clock. gap: between two versions at the same node, of nodes that were \
neither killed nor stopped meanwhile. recovery: from a kill to the first version decided after it that all survivors hold; a second kill meanwhile lengthens it. detection: \
from a kill to the last survivor that learns the view without the dead. join to first: from the moment a process asks to be let in to \
the first version with a contribution of its new life. leaks: what the nodes hold in the end, when all are there again and nothing is \
on its way, above what they held before the first kill: open files, mapped files, slots. Exits 1 when any two nodes ever held \
different bits for the same version, anything leaks, a process ends by itself, or the mesh does not find together again.";

#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct ChurnArgs {
    /// Nodes, 3 to 16
    #[arg(long, env = "PLESIO_NODES", default_value_t = 8, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u8).range(3..=16))]
    pub(crate) nodes: u8,

    /// How long nodes are killed and started anew, 2 to 86400; forming the mesh and looking at what is left come on top
    #[arg(long, env = "PLESIO_SECONDS", default_value_t = 40, value_name = "S")]
    #[arg(value_parser = clap::value_parser!(u32).range(2..=86_400))]
    pub(crate) seconds: u32,

    /// Draws whom it hits and when; keys are new in every run
    #[arg(long, env = "PLESIO_SEED", default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,

    /// Stop nodes too (SIGSTOP), every 2 to 5 s one, for 0.2, 0.7 or 3 s
    #[arg(long, env = "PLESIO_PAUSE", value_parser = parse_switch)]
    pub(crate) pause: bool,

    /// Kill nobody: only stop nodes
    #[arg(long, env = "PLESIO_NO_KILL", value_parser = parse_switch, requires = "pause")]
    pub(crate) no_kill: bool,

    /// Socket backend of the data plane
    #[arg(long, env = "PLESIO_BACKEND", default_value = "auto", value_enum)]
    pub(crate) backend: BackendArg,

    /// How the nodes move contributions and sums
    #[arg(long, env = "PLESIO_PATH", default_value = "auto", value_enum)]
    pub(crate) path: DataPathArg,

    /// Do not seal what the nodes send each other: checksums alone, on this machine
    #[arg(long, env = "PLESIO_PLAINTEXT", value_parser = parse_switch)]
    pub(crate) plaintext: bool,

    /// A bound on the document, NAME>=X or NAME<=X; a miss exits 3
    #[arg(long, value_name = "BOUND")]
    pub(crate) require: Vec<Requirement>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
