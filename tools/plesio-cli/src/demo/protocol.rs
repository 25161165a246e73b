//! What launcher and node say to each other: JSON lines on the node's stdin and stdout.
//!
//! A line is at most [`LINE_BYTES_MAX`] long. One message, [`Said::Final`], is followed by raw bytes: the
//! node's state, whose length the launcher knows beforehand. A node never sees a path of the launcher's and
//! leaves no file behind. Whoever reads bounds what it reads: the other end may have been killed in the
//! middle of a line.

use super::keys;
use crate::args::{BackendArg, CodecArg, DataPathArg, DeviceArg, RulesArgs, SharesArg};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use zeroize::Zeroize;

/// A longer line is not one of ours.
pub(crate) const LINE_BYTES_MAX: usize = 1 << 20;

/// What the launcher tells a node.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub(crate) enum Told {
    /// The first line: who the node is and what it trains.
    Setup(Box<Setup>),
    /// Everybody's hello: begin as a founding member.
    Start { roster: Vec<Hello> },
    /// Join the mesh of these members.
    Join { seeds: Vec<Hello> },
    /// No further step; bring in what is trained and say [`Said::Settled`]. Membership goes on.
    Settle,
    /// Say [`Said::Final`] and end.
    Stop,
}

/// All a node process is told before it opens anything.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Setup {
    /// Process that must be this node's parent; it ends when that one does.
    pub(crate) launcher_pid: u32,
    pub(crate) name: String,
    /// 32 bytes in hexadecimal.
    pub(crate) id: String,
    pub(crate) mesh: u64,
    /// None: the links are plaintext.
    pub(crate) keys: Option<keys::Told>,
    pub(crate) backend: BackendArg,
    pub(crate) device: DeviceArg,
    pub(crate) kernels_dir: Option<PathBuf>,
    pub(crate) path: DataPathArg,
    pub(crate) codec: CodecArg,
    pub(crate) shares: SharesArg,
    pub(crate) rules: RulesArgs,
    /// Where the others are told that it is, if not where it listens.
    pub(crate) advertise: Option<Addresses>,
    pub(crate) clock: Clock,
    pub(crate) period_ns: u64,
    pub(crate) members_max: u8,
    /// Seed of the adapter's start, the same for every member.
    pub(crate) adapter_seed: u64,
    pub(crate) work: Work,
    /// Share of one core that the training thread takes: what makes the nodes unequal.
    pub(crate) duty: f64,
    /// Say what goes into a trace as well.
    pub(crate) trace: bool,
}

/// What one member trains; equal for the node in the mesh and for the same member trained alone.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Work {
    pub(crate) shard: u8,
    /// Which part of the shard, of how many equal ones.
    pub(crate) part: u8,
    pub(crate) parts: u8,
    /// Order of the data.
    pub(crate) sampler_seed: u64,
}

/// How far off a node's clock is, through the clock seam; the system's clock is left alone.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Clock {
    pub(crate) offset_ns: i64,
    pub(crate) rate_ppm: f64,
}

/// Both planes of one node.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Addresses {
    pub(crate) data: SocketAddr,
    pub(crate) sideband: SocketAddr,
}

/// A node that is open for business.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Hello {
    pub(crate) id: String,
    pub(crate) incarnation: u64,
    pub(crate) data: SocketAddr,
    pub(crate) sideband: SocketAddr,
}

/// What a node tells the launcher. `raw_ns` is `CLOCK_MONOTONIC_RAW`, which all processes of a machine share.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Said {
    Hello {
        hello: Hello,
        /// Where it listens, whatever its hello says.
        listens: Addresses,
        pid: u32,
        found: Found,
    },
    /// A line of the trace, as it stands there.
    Trace {
        line: serde_json::Value,
    },
    /// The first state is there: training begins.
    Attached {
        version: u64,
    },
    /// One local step is done; `steps` counts from one. A step that ends in a cut has a phase error.
    Step {
        steps: u64,
        loss: f32,
        version: u64,
        phase_error_ns: Option<i64>,
    },
    View {
        raw_ns: i64,
        number: u32,
        members: Vec<u64>,
        added: Vec<u64>,
        removed: Vec<u64>,
        /// What each member owns; none: equal parts.
        shares: Vec<f64>,
        /// Whether this life of the node is one of the members.
        seated: bool,
    },
    /// What a version is being made of; it is not final yet.
    Manifest {
        raw_ns: i64,
        version: u64,
        frame: u64,
        entries: Vec<Entry>,
    },
    /// A version is final, and its state is held.
    Version {
        raw_ns: i64,
        version: u64,
        digest: String,
    },
    Suspect {
        node: u64,
    },
    Recover {
        node: u64,
    },
    /// Silent for so long that a quorum calls it dead.
    Dead {
        node: u64,
    },
    Leaving {
        node: u64,
    },
    NoQuorum {
        live: usize,
        members: usize,
    },
    Quorum,
    Excluded,
    Left,
    Diverged {
        version: u64,
        peer: u64,
    },
    /// A member's state was taken over whole.
    Installed {
        version: u64,
    },
    Note {
        text: String,
    },
    Progress(Progress),
    /// It trains no more; `whole` when everything it trained is in a final version. Of its ring so many slots have not come
    /// back.
    Settled {
        whole: bool,
        discarded: u32,
        version: u64,
        slots_out: u8,
    },
    /// The last word; `state_bytes` raw bytes follow the line.
    Final(Final),
    /// The node cannot go on.
    Failed {
        error: String,
    },
}

/// What a node found when it opened.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Found {
    pub(crate) backend: String,
    pub(crate) backend_reason: String,
    /// How nodes of this host are reached, and why.
    pub(crate) path: String,
    /// What computes, and why.
    pub(crate) device: String,
    pub(crate) device_reason: String,
    /// Instruction set of the kernels on the CPU.
    pub(crate) kernels: String,
    pub(crate) arena_bytes: u64,
    pub(crate) locked_bytes: u64,
    pub(crate) notes: Vec<String>,
}

/// One member's contribution to a version.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Entry {
    pub(crate) node: u64,
    pub(crate) steps: u32,
    pub(crate) staleness: u32,
    /// How long before the close the slot was complete, in frames; what the phase corrector sees.
    pub(crate) margin_frames: f32,
}

/// A node's state, every quarter of a second.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Progress {
    pub(crate) raw_ns: i64,
    pub(crate) mesh_ns: i64,
    pub(crate) eps_ns: u64,
    /// Phase corrector's state, 0 ACQUIRE to 6 DETACHED.
    pub(crate) state: u8,
    pub(crate) lead_ns: u64,
    pub(crate) version: u64,
    pub(crate) bytes: Bytes,
}

/// Traffic since the start.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Bytes {
    /// Payload handed to the data socket, and accepted from it.
    pub(crate) data_sent: u64,
    pub(crate) data_received: u64,
    /// Part of `data_sent` that was sent again.
    pub(crate) data_resent: u64,
    /// IP and UDP headers included.
    pub(crate) sideband_sent: u64,
    /// Read where it lies in other nodes' memory, and copied from there.
    pub(crate) memory_read: u64,
    pub(crate) memory_taken: u64,
    /// Notices of such bytes that were of no use.
    pub(crate) notices_refused: u64,
    /// Datagrams of both sockets that were dropped, whatever the cause.
    pub(crate) dropped: u64,
}

/// A node's last word.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Final {
    pub(crate) version: u64,
    pub(crate) digest: String,
    pub(crate) steps: u64,
    pub(crate) steps_committed: u64,
    pub(crate) bytes: Bytes,
    pub(crate) copies: Copies,
    /// Length of the adapter's state that follows, f32 little endian.
    pub(crate) state_bytes: u64,
}

/// Payload bytes first accepted, from the socket or out of other nodes' memory, and how many bytes user space wrote for
/// them between slot and socket, or from one memory to the other.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Copies {
    pub(crate) sent_payload: u64,
    pub(crate) sent_copied: u64,
    pub(crate) received_payload: u64,
    pub(crate) received_copied: u64,
}

/// Writes one message and, where there are any, its raw bytes.
pub(crate) fn write_message<T: Serialize>(to: &mut impl Write, message: &T, raw: &[u8]) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let written = to.write_all(&line);
    // A setup holds keys.
    line.zeroize();
    written?;
    to.write_all(raw)?;
    to.flush()
}

/// Reads one message; none at the end of the stream.
pub(crate) fn read_message<T: for<'a> Deserialize<'a>>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        let what =
            if line.len() == LINE_BYTES_MAX { "a line without end" } else { "the stream ends in a line" };
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    serde_json::from_slice(&line).map(Some).map_err(io::Error::from)
}

/// Reads the raw bytes behind a message. Refuses any other length than `expected`, before it allocates.
pub(crate) fn read_raw(from: &mut impl Read, announced: u64, expected: usize) -> io::Result<Vec<u8>> {
    if announced != expected as u64 {
        let what = format!("{announced} bytes of state announced, {expected} expected");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let mut raw = vec![0; expected];
    from.read_exact(&mut raw)?;
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn said() -> Vec<Said> {
        let entry = Entry { node: u64::MAX, steps: 3, staleness: 1, margin_frames: -0.25 };
        vec![
            Said::Hello {
                hello: Hello {
                    id: "ab".repeat(32),
                    incarnation: u64::MAX,
                    data: "127.0.0.1:9".parse().expect("an address"),
                    sideband: "[::1]:10".parse().expect("an address"),
                },
                listens: Addresses {
                    data: "127.0.0.1:11".parse().expect("an address"),
                    sideband: "[::1]:12".parse().expect("an address"),
                },
                pid: 7,
                found: Found { notes: vec!["line\nbreak".into()], ..Found::default() },
            },
            Said::Manifest { raw_ns: 3, version: 1, frame: 2, entries: vec![entry] },
            Said::NoQuorum { live: 1, members: 4 },
            Said::Progress(Progress { raw_ns: i64::MAX, mesh_ns: -5, ..Progress::default() }),
            Said::Final(Final { state_bytes: 4, ..Final::default() }),
        ]
    }

    #[test]
    fn messages_come_through_with_their_raw_bytes() {
        let mut stream = Vec::new();
        for message in said() {
            let raw: &[u8] = if matches!(message, Said::Final(_)) { b"\n{}\n" } else { b"" };
            write_message(&mut stream, &message, raw).expect("a Vec takes everything");
        }
        let mut from = BufReader::new(&stream[..]);
        for message in said() {
            assert_eq!(read_message::<Said>(&mut from).expect("whole"), Some(message.clone()));
            if let Said::Final(last) = message {
                assert_eq!(read_raw(&mut from, last.state_bytes, 4).expect("whole"), b"\n{}\n");
            }
        }
        assert_eq!(read_message::<Said>(&mut from).expect("the end"), None);
    }

    #[test]
    fn a_broken_stream_is_an_error_and_no_panic() {
        for bytes in [&b"{\"event\":\"no_qu"[..], b"\n", b"{}\n", b"\xff\xfe\n", b"{\"event\":\"step\"}\n"] {
            assert!(read_message::<Said>(&mut &bytes[..]).is_err(), "{bytes:?}");
        }
        let endless = vec![b'x'; LINE_BYTES_MAX + 9];
        assert!(read_message::<Said>(&mut &endless[..]).is_err());
        assert!(read_raw(&mut &b"abcd"[..], u64::MAX, 4).is_err());
        assert!(read_raw(&mut &b"abc"[..], 4, 4).is_err());
    }
}
