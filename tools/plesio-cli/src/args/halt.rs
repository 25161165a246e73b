//! The command lines of `plesio halt` and `plesio resume`, which differ in nothing but the order. Secrets are named by
//! file.

use super::key::parse_mesh;
use super::parse_switch;
use super::up::{Seed, parse_seed};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Args, Clone, Debug, Default, Serialize)]
#[command(after_help = "Example: two of three operators, at one machine\n  \
        plesio halt -c plesio.toml --operator-key one.key --operator-key two.key\n\
        Each at their own; the second one sends:\n  \
        plesio halt --sign one.halt --operator-key one.key --mesh 2f --sequence 5\n  \
        plesio halt --signed one.halt --operator-key two.key --operator one.pub --operator two.pub --operator three.pub \
        --to 10.0.0.1:7000\n\
        One node that hears it is enough: each tells all others. An acknowledgement says that the order is on that node's \
        disk; whoever reads and alters what is sent could forge one, so see plesio status at a node where that matters.\n\
        Ends with 0 when every address acknowledged, 4 when one did not.")]
pub(crate) struct HaltArgs {
    /// A node's plesio.toml: its pool, operator and threshold, and the addresses in listen and join
    #[arg(long, short, env = "PLESIO_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Sideband address of a node, with or without KEY@ before it; may be given again
    #[arg(long, env = "PLESIO_TO", value_name = "ADDR", value_delimiter = ',', value_parser = parse_seed)]
    pub(crate) to: Vec<Seed>,

    /// Secret key file of an operator who signs; may be given again
    #[arg(long, env = "PLESIO_OPERATOR_KEY", value_name = "FILE", value_delimiter = ',')]
    pub(crate) operator_key: Vec<PathBuf>,

    /// What an operator signed elsewhere, with --sign; may be given again
    #[arg(long, env = "PLESIO_SIGNED", value_name = "FILE", value_delimiter = ',')]
    pub(crate) signed: Vec<PathBuf>,

    /// Only sign, into this new file, and send nothing; - is stdout
    #[arg(long, env = "PLESIO_SIGN", value_name = "FILE", requires = "sequence", conflicts_with_all = ["to", "signed"])]
    pub(crate) sign: Option<PathBuf>,

    /// Public key file of an operator, all that the nodes list; may be given again
    #[arg(long, env = "PLESIO_OPERATOR", value_name = "FILE", value_delimiter = ',')]
    pub(crate) operator: Vec<PathBuf>,

    /// How many of them have to sign [default: more than half]
    #[arg(long, env = "PLESIO_THRESHOLD", value_name = "M", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) threshold: Option<u8>,

    /// Pool key file of the mesh, for the mesh's id
    #[arg(long, env = "PLESIO_POOL", value_name = "FILE")]
    pub(crate) pool: Option<PathBuf>,

    /// Id of the mesh, where the pool key is not at hand; it wins over --pool
    #[arg(long, env = "PLESIO_MESH", value_name = "HEX", value_parser = parse_mesh)]
    pub(crate) mesh: Option<u64>,

    /// Sequence of the order, above that of every one before [default: one above the highest that the nodes prove to
    /// have]
    #[arg(long, env = "PLESIO_SEQUENCE", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sequence: Option<u32>,

    /// How long acknowledgements are waited for
    #[arg(long, env = "PLESIO_SECONDS", value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,

    /// One JSON document on stdout
    #[arg(long, env = "PLESIO_JSON", value_parser = parse_switch)]
    pub(crate) json: bool,
}
