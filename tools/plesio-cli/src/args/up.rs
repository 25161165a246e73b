//! The command lines of `plesio up` and `plesio status`. What a file may say too has no default here: the flag comes
//! before the file, and the default last.

use super::DeviceArg;
use super::{BackendArg, CodecArg, DataPathArg, OutputArgs, RulesArgs, SharesArg, parse_switch};
use crate::bench::Wait;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Args, Clone, Debug, Default, Serialize)]
#[command(after_help = "Example: two machines, with keys and tickets of `plesio key` (see its --help)\n  \
        plesio up --found --listen 10.0.0.1:7000 --key a.key --ticket a.ticket --pool pool.key --operator operator.pub\n  \
        plesio up --join KEY@10.0.0.1:7000 --listen 10.0.0.2:7000 --key b.key --ticket b.ticket --pool pool.key \
        --operator operator.pub\n\
        On one machine, to try it: plesio up --found --plaintext, then the line that it prints for another node\n\
        Ctrl-C leaves the mesh in good order; a second one ends at once.\n\
        The file holds the same names with _ for -, but for --config and how the command speaks (--json, --json-stream, \
        --quiet, --color). A switch is true or false, a list stands in brackets:\n  \
        join = [\"KEY@10.0.0.1:7000\"]\n  listen_data = \"[::1]:7001\"\n  plaintext = true")]
pub(crate) struct UpArgs {
    /// File with settings; a flag or a variable beats it
    #[arg(long, short, env = "PLESIO_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Begin a new mesh, which others then join
    #[arg(long, env = "PLESIO_FOUND", value_parser = parse_switch, conflicts_with = "join")]
    pub(crate) found: bool,

    /// Join the mesh of a member: KEY@IP:PORT, as that member says at its start, /PORT behind it where its data
    /// port is not the next one; may be given again
    #[arg(long, env = "PLESIO_JOIN", value_name = "KEY@ADDR", value_delimiter = ',', value_parser = parse_seed)]
    pub(crate) join: Vec<Seed>,

    /// This node's secret key file (plesio key gen); without one and in plaintext, a key for this run
    #[arg(long, env = "PLESIO_KEY", value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,

    /// The ticket that admits this node to the mesh (plesio key ticket)
    #[arg(long, env = "PLESIO_TICKET", value_name = "FILE")]
    pub(crate) ticket: Option<PathBuf>,

    /// Key file that all nodes of the mesh share
    #[arg(long, env = "PLESIO_POOL", value_name = "FILE")]
    pub(crate) pool: Option<PathBuf>,

    /// Public key file of an operator, whose tickets admit others and whose signature counts under HALT and RESUME;
    /// may be given again, and the same at all nodes
    #[arg(long, env = "PLESIO_OPERATOR", value_name = "FILE", value_delimiter = ',')]
    pub(crate) operator: Vec<PathBuf>,

    /// How many operators have to sign HALT or RESUME, the same at all nodes [default: more than half of them]
    #[arg(long, env = "PLESIO_THRESHOLD", value_name = "M", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) threshold: Option<u8>,

    /// File of this node's own that keeps the order in force through a restart; made if it is not there
    /// [default: the name of --key and .halt]
    #[arg(long, env = "PLESIO_HALT_RECORD", value_name = "FILE")]
    pub(crate) halt_record: Option<PathBuf>,

    /// Folder of this node's own for what outlives it: which views there were, and the newest states. When all nodes of a mesh
    /// have died and a majority is started again as before, they go on from the newest state on their disks
    #[arg(long, env = "PLESIO_STATE", value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// Seconds between two states written to --state, 1 to 86400 [default: 10]
    #[arg(long, env = "PLESIO_CHECKPOINT_S", value_name = "S", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) checkpoint_s: Option<u32>,

    /// Address that others reach: of the sideband, which others join by. Port 0 takes a free one.
    /// [default: 127.0.0.1:0]
    #[arg(long, env = "PLESIO_LISTEN", value_name = "IP:PORT")]
    pub(crate) listen: Option<SocketAddr>,

    /// The same for tensor data [default: the port above --listen]
    #[arg(long, env = "PLESIO_LISTEN_DATA", value_name = "IP:PORT")]
    pub(crate) listen_data: Option<SocketAddr>,

    /// Socket backend of the data plane [default: auto]
    #[arg(long, env = "PLESIO_BACKEND", value_enum)]
    pub(crate) backend: Option<BackendArg>,

    /// What computes: `auto` takes the device that sums a version fastest, by trial; `cpu`, `cuda:N` and `hip:N` take that one,
    /// or say why it cannot be had [default: auto]
    #[arg(long, env = "PLESIO_DEVICE", value_name = "DEVICE")]
    pub(crate) device: Option<DeviceArg>,

    /// Folder of prebuilt kernels (cargo xtask kernels --out DIR), in the place of those in this program
    #[arg(long, env = "PLESIO_KERNELS_DIR", value_name = "DIR")]
    pub(crate) kernels_dir: Option<PathBuf>,

    /// How the data plane's thread waits [default: block]
    #[arg(long, env = "PLESIO_WAIT", value_enum)]
    pub(crate) wait: Option<Wait>,

    /// How contributions, sums and states come from nodes of this host: in their memory where they are this user's and
    /// find each other, or by UDP alone [default: auto]
    #[arg(long, env = "PLESIO_PATH", value_enum)]
    pub(crate) path: Option<DataPathArg>,

    /// How contributions travel, the same at all nodes; what is left out stays with its node and goes with a later one
    /// [default: i32]
    #[arg(long, env = "PLESIO_CODEC", value_enum)]
    pub(crate) codec: Option<CodecArg>,

    /// Who sums how much of every version, the same at all nodes: `rate` takes four times the memory for what comes in
    /// [default: rate]
    #[arg(long, env = "PLESIO_SHARES", value_enum)]
    pub(crate) shares: Option<SharesArg>,

    #[command(flatten)]
    pub(crate) rules: RulesArgs,

    /// Slots of the ring between training and mesh: 2, 4, 8 or 16, the same at all nodes [default: 4]
    #[arg(long, env = "PLESIO_RING_DEPTH", value_name = "SLOTS")]
    pub(crate) ring_depth: Option<u8>,

    /// Smallest margin before a close that is left alone, in frames, 0 to 0.9 [default: 0.05]
    #[arg(long, env = "PLESIO_LO", value_name = "FRAMES")]
    pub(crate) lo: Option<f64>,

    /// Largest such margin, at least 0.1 above the smallest, at most 1 [default: 0.3]
    #[arg(long, env = "PLESIO_HI", value_name = "FRAMES")]
    pub(crate) hi: Option<f64>,

    /// Contributions in a row outside them before this node cuts earlier or later, 1 to 64 [default: 2]
    #[arg(long, env = "PLESIO_DWELL", value_name = "N")]
    pub(crate) dwell: Option<u32>,

    /// Send everything readable, with a checksum only; between machines this needs --trust captive too
    #[arg(long, env = "PLESIO_PLAINTEXT", value_parser = parse_switch)]
    pub(crate) plaintext: bool,

    /// Whom the network between the nodes belongs to [default: none]
    #[arg(long, env = "PLESIO_TRUST", value_enum)]
    pub(crate) trust: Option<TrustArg>,

    /// Text to train on [default: one of those inside the program, chosen by the node's key]
    #[arg(long, env = "PLESIO_DATA", value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,

    /// Share of one core that training takes, 0.01 to 1 [default: 1]
    #[arg(long, env = "PLESIO_DUTY", value_name = "SHARE", value_parser = parse_duty)]
    pub(crate) duty: Option<f64>,

    /// Frame period in milliseconds at first, 50 to 60000; all nodes of a mesh follow the founder's. It is doubled where
    /// uplinks or steps take too long for it, and halved where they could do with less [default: 250]
    #[arg(long, env = "PLESIO_PERIOD_MS", value_name = "MS", value_parser = clap::value_parser!(u32).range(50..=60_000))]
    pub(crate) period_ms: Option<u32>,

    /// It is never shorter than this; the founder's counts [default: as at first]
    #[arg(long, env = "PLESIO_PERIOD_MIN_MS", value_name = "MS", value_parser = clap::value_parser!(u32).range(50..=60_000))]
    pub(crate) period_min_ms: Option<u32>,

    /// Nor longer than this; as at first: it stays [default: 60000]
    #[arg(long, env = "PLESIO_PERIOD_MAX_MS", value_name = "MS", value_parser = clap::value_parser!(u32).range(50..=60_000))]
    pub(crate) period_max_ms: Option<u32>,

    /// End by itself after so long
    #[arg(long, env = "PLESIO_SECONDS", value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: Option<u32>,

    /// Draws the order of the data [default: drawn from the node's key]
    #[arg(long, env = "PLESIO_SEED", value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// Folder for the adapter, in PEFT's layout, at the end [default: plesio-up]
    #[arg(long, env = "PLESIO_OUT", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// Where `plesio status` finds this node: a path in a folder that is this user's alone (mode 0700) [default: a file in
    /// $XDG_RUNTIME_DIR/plesio, where that is not set in /run/user/UID/plesio or in plesio-UID among the temporary files]
    #[arg(long, env = "PLESIO_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,

    /// File for what happens to this node, one JSON object a line, added to what is there: some kilobytes for every second.
    /// `plesio sim --replay` reads it
    #[arg(long, env = "PLESIO_TRACE", value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct StatusArgs {
    /// The node's socket, as it said at its start [default: the only one in the folder that --socket of `plesio up` names]
    #[arg(long, env = "PLESIO_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,

    /// One JSON document on stdout
    #[arg(long, env = "PLESIO_JSON", value_parser = parse_switch, conflicts_with = "dump")]
    pub(crate) json: bool,

    /// Names and values with tabs between them, one a line
    #[arg(long, env = "PLESIO_DUMP", value_parser = parse_switch)]
    pub(crate) dump: bool,
}

/// A network that is all the operator's own, where nobody else can listen or send.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TrustArg {
    /// Anybody may be on it
    None,
    /// Nobody but this mesh's own machines is on it
    Captive,
}

/// A member to join by: its key, which plaintext does without, and where its sockets listen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Seed {
    pub(crate) key: Option<[u8; 32]>,
    pub(crate) sideband: SocketAddr,
    pub(crate) data: SocketAddr,
}

impl std::fmt::Display for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(key) = &self.key {
            write!(f, "{}@", crate::hex::hex(key))?;
        }
        write!(f, "{}", self.sideband)?;
        match self.data {
            data if data == data_beside(self.sideband) => Ok(()),
            data if data.ip() == self.sideband.ip() => write!(f, "/{}", data.port()),
            data => write!(f, "/{data}"),
        }
    }
}

impl Serialize for Seed {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Where the data socket listens unless something else is said: one port above the sideband; both on free ports if
/// either is.
pub(crate) fn data_beside(sideband: SocketAddr) -> SocketAddr {
    let port = if sideband.port() == 0 { 0 } else { sideband.port().checked_add(1).unwrap_or(0) };
    SocketAddr::new(sideband.ip(), port)
}

/// `[KEY@]IP:PORT[/PORT | /IP:PORT]`: sideband, then data where it is not one port above.
pub(crate) fn parse_seed(text: &str) -> Result<Seed, String> {
    let (key, addresses) = match text.rsplit_once('@') {
        Some((key, addresses)) => (Some(key), addresses),
        None => (None, text),
    };
    let key = key.map(|key| {
        crate::hex::parse(key).ok_or_else(|| "a node's key is 64 hexadecimal digits before the @".to_owned())
    });
    let read = |address: &str| {
        let read: Option<SocketAddr> = address.parse().ok().filter(|read: &SocketAddr| read.port() != 0);
        read.ok_or_else(|| format!("{address:?} is not IP:PORT, for example 10.0.0.1:7000 or [fd00::1]:7000"))
    };
    let (sideband, data) = match addresses.split_once('/') {
        None => {
            let sideband = read(addresses)?;
            (sideband, data_beside(sideband))
        }
        Some((sideband, data)) => {
            let sideband = read(sideband)?;
            let port = data.parse().ok().filter(|port| *port != 0);
            (sideband, port.map_or_else(|| read(data), |port| Ok(SocketAddr::new(sideband.ip(), port)))?)
        }
    };
    Ok(Seed { key: key.transpose()?, sideband, data })
}

/// A share of one core.
fn parse_duty(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.01..=1.0).contains(share));
    share.ok_or_else(|| "a share of one core is 0.01 to 1".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_key_and_an_address() {
        let key = "0f".repeat(32);
        let seed = parse_seed(&format!("{key}@10.0.0.1:7000")).expect("whole");
        assert_eq!((seed.key, seed.sideband.port(), seed.data.port()), (Some([0x0F; 32]), 7000, 7001));
        for text in
            ["10.0.0.1:7000", "[fd00::1]:7000", "10.0.0.1:7000/9", "10.0.0.1:7/10.0.0.2:8", "[::1]:7/[::2]:8"]
        {
            let text = format!("{key}@{text}");
            assert_eq!(parse_seed(&text).expect("whole").to_string(), text);
        }
        assert!(parse_seed("[fd00::1]:7000").expect("addresses alone").key.is_none());
        for wrong in [
            "",
            "10.0.0.1",
            "host:7000",
            "0f@10.0.0.1:7000",
            "@10.0.0.1:7000",
            "10.0.0.1:70000",
            "10.0.0.1:0",
            "10.0.0.1:7/",
            "10.0.0.1:7/0",
            "10.0.0.1:7/x",
            "10.0.0.1:7/8/9",
        ] {
            let error = parse_seed(wrong).expect_err(wrong);
            assert!(error.contains("64 hexadecimal") || error.starts_with('"'), "{wrong:?}: {error}");
        }
    }
}
