//! What the two processes say to each other: one JSON line per order and per answer.

use super::figures::Worst;
use crate::args::BackendArg;
use crate::failure::Failure;
use clap::ValueEnum;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

/// Who carries the bytes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Link {
    Plesio,
    Tcp,
    UdpRaw,
}

/// Who is compared with us.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Rival {
    /// TCP over loopback, congestion control pinned to cubic
    Tcp,
    /// UDP with segmentation offload both ways and nothing else: no acknowledgement, no order, no check
    UdpRaw,
}

impl Rival {
    pub(crate) const fn link(self) -> Link {
        match self {
            Self::Tcp => Link::Tcp,
            Self::UdpRaw => Link::UdpRaw,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::UdpRaw => "udp-raw",
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wait {
    /// Sleep in the kernel until something comes
    Block,
    /// Ask again and again; wants a core for each end
    Spin,
}

/// One run.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Run {
    pub(crate) link: Link,
    pub(crate) backend: BackendArg,
    pub(crate) wait: Wait,
    pub(crate) bytes: u32,
    pub(crate) chunk_bytes: u32,
    pub(crate) working_set_bytes: u32,
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// Open a port for this run and say which.
    Open(Run),
    /// The other end's port: begin.
    Begin(u16),
    /// All that was sent was sent.
    Stop,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Said {
    Port(u16),
    Done(Received),
    Failed(String),
}

/// What the receiver saw.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Received {
    pub(crate) bytes: u64,
    pub(crate) messages: u64,
    pub(crate) elapsed_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) wrong_bytes: u64,
    pub(crate) worst_bps: Option<f64>,
}

impl Received {
    pub(crate) fn close(mut self, worst: &Worst, cpu_ns: u64) -> Self {
        self.elapsed_ns = worst.elapsed_ns();
        self.worst_bps = worst.bps();
        self.cpu_ns = cpu_ns;
        self
    }
}

/// CPU time of this process so far, user and kernel.
pub(crate) fn cpu_ns() -> Result<u64, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)
        .map_err(|cause| Failure::run("bench", "cannot read this process's CPU time", cause))?;
    Ok((usage.user_time() + usage.system_time()).num_nanoseconds().max(0) as u64)
}
