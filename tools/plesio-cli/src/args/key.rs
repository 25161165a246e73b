//! The command line of `plesio key`. Secrets are named by file, never given on the line.

use super::parse_switch;
use clap::{Args, Subcommand, ValueEnum};
use plesio_wire::handshake::Role;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: a mesh of two nodes, run by an operator\n  \
        plesio key gen operator -o operator.key      once; kept away from the nodes\n  \
        plesio key gen pool -o pool.key              once; every node gets this file\n  \
        plesio key gen node -o a.key                 on each node; the file stays there\n  \
        plesio key pub a.key -o a.pub                on each node; goes to the operator\n  \
        plesio key ticket --operator operator.key --pool pool.key --node a.pub \
        --not-after-view 1000 -o a.ticket\n  \
        plesio key pub operator.key -o operator.pub  every node gets this file and its own ticket")]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a new secret key, in a new file that only its owner may read
    Gen(GenArgs),
    /// Print what others may know of a secret key
    Pub(PubArgs),
    /// Sign a ticket: the operator's word that a node may join
    Ticket(TicketArgs),
}

#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct GenArgs {
    /// Whose: a node's two keys, the key that all nodes of a mesh share, or an operator's signing key
    #[arg(value_enum, default_value = "node", value_name = "KIND")]
    pub(crate) kind: KeyKind,

    /// New file for the key, made with mode 0600; - prints the secret on stdout
    #[arg(long, short, env = "PLESIO_KEY_OUT", value_name = "FILE")]
    pub(crate) out: PathBuf,

    /// Id of the mesh that a pool key is for, 1 to 16 hexadecimal digits; drawn if not given
    #[arg(long, env = "PLESIO_MESH", value_name = "HEX", value_parser = parse_mesh)]
    pub(crate) mesh: Option<u64>,

    #[command(flatten)]
    pub(crate) json: JsonArg,
}

#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct PubArgs {
    /// The secret key file
    #[arg(value_name = "FILE")]
    pub(crate) key: PathBuf,

    /// New file for the public part; - is stdout
    #[arg(long, short, env = "PLESIO_KEY_OUT", value_name = "FILE", default_value = "-")]
    pub(crate) out: PathBuf,

    #[command(flatten)]
    pub(crate) json: JsonArg,
}

#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct TicketArgs {
    /// The operator's secret key file
    #[arg(long, env = "PLESIO_OPERATOR_KEY", value_name = "FILE")]
    pub(crate) operator: PathBuf,

    /// Public key file of the node that is admitted, as `plesio key pub` writes it
    #[arg(long, env = "PLESIO_NODE", value_name = "FILE")]
    pub(crate) node: PathBuf,

    /// Pool key file of the mesh, for the mesh's id
    #[arg(long, env = "PLESIO_POOL", value_name = "FILE", required_unless_present = "mesh")]
    pub(crate) pool: Option<PathBuf>,

    /// Id of the mesh, where the pool key is not at hand; it wins over --pool
    #[arg(long, env = "PLESIO_MESH", value_name = "HEX", value_parser = parse_mesh)]
    pub(crate) mesh: Option<u64>,

    /// What it is admitted as
    #[arg(long, env = "PLESIO_ROLE", value_enum, default_value = "member")]
    pub(crate) role: RoleArg,

    /// Last view in which the ticket counts; every join, exclusion and departure makes a new view
    #[arg(long, env = "PLESIO_NOT_AFTER_VIEW", value_name = "N")]
    pub(crate) not_after_view: u32,

    /// New file for the ticket; - is stdout
    #[arg(long, short, env = "PLESIO_KEY_OUT", value_name = "FILE", default_value = "-")]
    pub(crate) out: PathBuf,

    #[command(flatten)]
    pub(crate) json: JsonArg,
}

/// A command that has done its work at once needs no more than this of the usual ways to speak.
#[derive(Args, Clone, Copy, Debug, Serialize)]
pub(crate) struct JsonArg {
    /// One JSON document on stdout; it holds no secret
    #[arg(long, env = "PLESIO_JSON", value_parser = parse_switch)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KeyKind {
    Node,
    Pool,
    Operator,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RoleArg {
    /// Contributes and votes
    Member,
    /// Follows and contributes nothing
    Observer,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Member => Self::Member,
            RoleArg::Observer => Self::Observer,
        }
    }
}

/// A mesh's id as key files write it.
pub(crate) fn parse_mesh(text: &str) -> Result<u64, String> {
    let digits = (1..=16).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let mesh = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
    mesh.ok_or_else(|| "a mesh's id is 1 to 16 hexadecimal digits, for example 2f".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_is_hexadecimal_digits_and_nothing_else() {
        assert_eq!(parse_mesh("2f"), Ok(0x2F));
        assert_eq!(parse_mesh("ffffffffffffffff"), Ok(u64::MAX));
        for wrong in ["", "+1", "-1", "0x1", "g", "1 ", "10000000000000000"] {
            assert!(parse_mesh(wrong).is_err(), "{wrong:?}");
        }
    }
}
