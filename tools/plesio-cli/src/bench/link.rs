//! What the driver and its two ends say to each other: one JSON line per order and per answer.
//!
//! Lines may come from another machine. [`Run::check`] holds every field to the bounds that flags have; nothing else
//! of a line reaches a socket or an allocation.

use super::figures::Stretches;
use super::relay::RelayFigures;
use crate::args::{BENCH_BYTES_MAX, BackendArg, PlacementArg, SuiteArg};
use crate::failure::{Exit, Failure};
use clap::ValueEnum;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use plesio_udp::WaitMode;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// Who carries the bytes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Link {
    Plesio,
    Tcp,
    UdpRaw,
    Quinn,
}

/// Who is compared with us.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Rival {
    /// TCP, congestion control pinned to cubic
    Tcp,
    /// UDP with segmentation offload both ways and nothing else: no acknowledgement, no order, no check
    UdpRaw,
    /// QUIC by quinn, encrypted; only in a build with `--features rivals`; it always blocks
    Quinn,
}

impl Link {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plesio => "plesio",
            Self::Tcp => "tcp",
            Self::UdpRaw => "udp-raw",
            Self::Quinn => "quinn",
        }
    }
}

impl Rival {
    pub(crate) const fn link(self) -> Link {
        match self {
            Self::Tcp => Link::Tcp,
            Self::UdpRaw => Link::UdpRaw,
            Self::Quinn => Link::Quinn,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        self.link().name()
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wait {
    /// Sleep in the kernel until something comes
    Block,
    /// Ask again and again; wants a core for each end
    Spin,
    /// Ask for a time that follows the gaps seen, then sleep
    Adaptive,
}

impl Wait {
    pub(crate) const fn mode(self) -> WaitMode {
        match self {
            Self::Block => WaitMode::Block,
            Self::Spin => WaitMode::Spin,
            Self::Adaptive => WaitMode::Adaptive,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Spin => "spin",
            Self::Adaptive => "adaptive",
        }
    }
}

/// How our datagrams are protected.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    Sealed,
    Plaintext,
}

impl Mode {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Plaintext => "plaintext",
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    /// Messages one way, or both ways.
    Stream,
    /// One message there and back, then the next.
    Pingpong,
}

/// One run.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Run {
    pub(crate) what: What,
    pub(crate) link: Link,
    pub(crate) backend: BackendArg,
    pub(crate) wait: Wait,
    pub(crate) protection: Mode,
    pub(crate) bytes: u32,
    /// Largest payload of a datagram.
    pub(crate) chunk_bytes: u32,
    /// What the path carries is found out, up to that.
    pub(crate) search: bool,
    pub(crate) placement: PlacementArg,
    /// Of a sealed run of ours.
    pub(crate) suite: SuiteArg,
    pub(crate) working_set_bytes: u32,
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) flows: u16,
    pub(crate) both: bool,
    /// All flows end at one port and one thread of the end that answers, which gives credit out of one budget.
    pub(crate) incast: bool,
    /// A bad path lies between the ends.
    pub(crate) relayed: bool,
    /// How long a round trip on it takes at most, queues aside; 0 where nothing is known.
    pub(crate) round_trip_ns: u64,
    /// Our own address; the one end that begins has another when it is on another machine.
    pub(crate) bind: IpAddr,
}

impl Run {
    /// Whether every field is in its bounds: it may come from another machine.
    pub(crate) fn check(&self) -> Result<(), Unfit> {
        let bytes = 1..=BENCH_BYTES_MAX as u32;
        if !bytes.contains(&self.bytes) || !bytes.contains(&self.working_set_bytes) {
            return Err(Unfit(
                "a message or a working set is out of bounds",
                "say --size and --working-set up to 1G",
            ));
        }
        if !(64..=65_408).contains(&self.chunk_bytes) || !self.chunk_bytes.is_multiple_of(64) {
            return Err(Unfit(
                "the chunk size is out of bounds",
                "say --chunk as a multiple of 64 up to 65408",
            ));
        }
        if !(0.05..=600.0).contains(&self.seconds) || !(1..=FLOWS_MAX).contains(&self.flows) {
            return Err(Unfit(
                "the length of the run or its flows are out of bounds",
                "say --seconds from 0.05 to 600 and --flows up to 32",
            ));
        }
        if self.round_trip_ns > ROUND_TRIP_NS_MAX {
            return Err(Unfit("the round trip of the path is out of bounds", "say less --delay"));
        }
        if self.incast && (self.both || self.what == What::Pingpong) {
            return Err(Unfit("many into one goes one way", "leave out --incast or --both"));
        }
        if self.incast && self.flows < 2 {
            return Err(Unfit(
                "one flow is not many into one",
                "say --flows 2 or more, or leave --incast out",
            ));
        }
        let each_flow = u64::from(self.bytes) * u64::from(self.flows) * 2;
        if each_flow > 2 * BENCH_BYTES_MAX {
            return Err(Unfit(
                "its flows together want too much memory",
                "say a smaller --size or fewer --flows",
            ));
        }
        Ok(())
    }

    /// A run that goes on for longer is none.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_secs_f64(self.seconds) + 2 * self.silence_limit() + self.drain_limit()
    }

    /// Silence for so long ends a run.
    pub(crate) fn silence_limit(&self) -> Duration {
        STALL_LIMIT + 2 * self.round_trip()
    }

    /// What is on its way when the time of a run is over is waited for so long.
    pub(crate) fn drain_limit(&self) -> Duration {
        DRAIN_LIMIT + 2 * self.round_trip()
    }

    pub(crate) const fn round_trip(&self) -> Duration {
        Duration::from_nanos(self.round_trip_ns)
    }

    /// How many flows one thread of this end serves.
    pub(crate) fn flows_per_thread(&self, role: Role) -> usize {
        let together = self.incast && self.link == Link::Plesio && role == Role::Answer;
        if together { self.flows.into() } else { 1 }
    }

    /// Whether this end sends payload.
    pub(crate) fn sends(&self, role: Role) -> bool {
        self.what == What::Pingpong || self.both || role == Role::Begin
    }

    /// Whether this end receives payload.
    pub(crate) fn takes(&self, role: Role) -> bool {
        self.what == What::Pingpong || self.both || role == Role::Answer
    }
}

/// Why a run cannot be, and what makes it one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Unfit(pub(crate) &'static str, pub(crate) &'static str);

impl From<Unfit> for Failure {
    fn from(Unfit(cause, fix): Unfit) -> Self {
        Self::usage("bench", "cannot run this", cause).fix(fix)
    }
}

/// Which of the two ends one is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Sends one way, asks in a pingpong, connects.
    Begin,
    /// Receives one way, answers in a pingpong, is connected to.
    Answer,
    /// No end: the bad path between the two.
    Between,
}

/// What one end has to know of the other before they meet.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    /// One per flow; zero where the kernel chooses when it connects.
    pub(crate) ports: Vec<u16>,
    /// What this kind of link says beside, one per flow: a certificate, keys.
    pub(crate) words: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// Get ready for this run and say where you are. The text is the pool key of sealed runs: it goes over pipes only,
    /// and never between machines.
    Open(Run, Role, String),
    /// There is the other end: go.
    Meet(Address),
    /// Send no more; what is on its way may arrive.
    Over,
    /// End the run and tell what you have seen.
    Stop,
    /// Stand between these two ends, the one that begins and the one that answers, at this address.
    Between(IpAddr, Address, Address),
    /// Stand there no more, and tell what became of what went through.
    Apart,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Said {
    Open(Address),
    /// Met, and taking what comes.
    Ready,
    /// All was sent that is sent, and acknowledged where that exists.
    Sent,
    Done(Box<Half>),
    /// Where the two ends are for each other.
    Between(Address, Address),
    Apart(RelayFigures),
    Failed(Trouble),
}

/// A failure on its way between processes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Trouble {
    pub(crate) what: String,
    pub(crate) cause: String,
    pub(crate) fix: String,
    pub(crate) exit: u8,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self { what: failure.what, cause: failure.cause, fix: failure.fix, exit: failure.exit as u8 }
    }
}

impl Trouble {
    pub(crate) fn failure(self, code: &'static str) -> Failure {
        let exit = match self.exit {
            4 => Exit::Unreachable,
            5 => Exit::Missing,
            2 => Exit::Usage,
            _ => Exit::Failed,
        };
        let shown = |text: String| text.chars().filter(|letter| !letter.is_control()).take(400).collect();
        Failure { code, exit, what: shown(self.what), cause: shown(self.cause), fix: shown(self.fix) }
    }
}

/// What one end saw of one flow.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct FlowHalf {
    pub(crate) received_bytes: u64,
    pub(crate) messages: u64,
    /// Payload that was placed, of whole messages and of others.
    pub(crate) placed_bytes: u64,
    /// Messages that this end sent and that were not whole at the other when it gave up waiting.
    pub(crate) open: u64,
}

/// What one end saw of a run.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Half {
    pub(crate) sent_bytes: u64,
    pub(crate) retransmitted_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) messages: u64,
    /// From the first arrival to the last.
    pub(crate) elapsed_ns: u64,
    /// From the first arrival to the end.
    pub(crate) stopped_ns: u64,
    pub(crate) stretches: Vec<u64>,
    pub(crate) wrong_bytes: u64,
    pub(crate) cpu_ns: u64,
    /// Payload per datagram in the end; of a rival that does not say, zero.
    pub(crate) chunk_bytes: u32,
    /// Which backend; of a rival, what it is.
    pub(crate) tier: String,
    /// What our datagrams were sealed with; empty where nothing was.
    pub(crate) suite: String,
    pub(crate) notes: Vec<String>,
    /// In the order of their numbers.
    pub(crate) flows: Vec<FlowHalf>,
    /// Round trips, as a serialised histogram in hexadecimal digits.
    pub(crate) round_trips: String,
}

impl Half {
    pub(crate) fn close(&mut self, stretches: Stretches) {
        self.elapsed_ns = stretches.elapsed_ns();
        self.stopped_ns = stretches.stopped_ns();
        self.stretches = stretches.into_bytes();
    }

    /// Where the sender gave up waiting for its last messages, of `bytes` each: what came of them counts, over the time
    /// until then.
    pub(crate) fn settle(&mut self, sender: &Self, bytes: u32) {
        let mut cut = false;
        for (flow, sent) in self.flows.iter_mut().zip(&sender.flows).filter(|(_, sent)| sent.open > 0) {
            cut = true;
            // What began anew in smaller chunks was placed more than once.
            let most = flow.received_bytes.saturating_add(sent.open.saturating_mul(bytes.into()));
            let placed = flow.placed_bytes.clamp(flow.received_bytes, most);
            self.received_bytes = self.received_bytes.saturating_add(placed - flow.received_bytes);
            flow.received_bytes = placed;
        }
        if cut {
            self.elapsed_ns = self.stopped_ns;
            self.notes.push(
                "a run ended before its last messages were whole: what came of them counts, over the time until its end, and \
                 was not compared with what was sent"
                    .into(),
            );
        }
    }
}

/// CPU time of this process so far, user and kernel.
pub(crate) fn cpu_ns() -> Result<u64, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)
        .map_err(|cause| Failure::run("bench", "cannot read this process's CPU time", cause))?;
    Ok((usage.user_time() + usage.system_time()).num_nanoseconds().max(0) as u64)
}

/// An end that owes something and is silent for so long is given up.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(5);
/// Longer than a path that is worth waiting for needs for what 16 messages hold.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// More than the flags of a bad path can say.
const ROUND_TRIP_NS_MAX: u64 = 60_000_000_000;
/// Connections side by side at most.
pub(crate) const FLOWS_MAX: u16 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run {
            what: What::Stream,
            link: Link::Plesio,
            backend: BackendArg::Auto,
            wait: Wait::Block,
            protection: Mode::Plaintext,
            bytes: 1000,
            chunk_bytes: 1408,
            search: false,
            placement: PlacementArg::Auto,
            suite: SuiteArg::Auto,
            working_set_bytes: 1 << 20,
            seed: 1,
            seconds: 1.0,
            flows: 1,
            both: false,
            incast: false,
            relayed: false,
            round_trip_ns: 0,
            bind: IpAddr::from([127, 0, 0, 1]),
        }
    }

    #[test]
    fn what_came_of_a_message_counts_where_its_end_was_not_waited_for() {
        let flow =
            |received_bytes, placed_bytes| FlowHalf { received_bytes, placed_bytes, ..FlowHalf::default() };
        let open = |open| FlowHalf { open, ..FlowHalf::default() };
        let half = |flows: Vec<FlowHalf>| Half {
            received_bytes: flows.iter().map(|flow| flow.received_bytes).sum(),
            elapsed_ns: 10,
            stopped_ns: 30,
            flows,
            ..Half::default()
        };
        // All came: what was placed twice on the way does not count.
        let mut whole = half(vec![flow(200, 250)]);
        whole.settle(&half(vec![open(0)]), 100);
        assert_eq!((whole.received_bytes, whole.elapsed_ns, whole.notes.len()), (200, 10, 0));
        let mut cut = half(vec![flow(200, 250), flow(0, 900), flow(300, 0)]);
        cut.settle(&half(vec![open(1), open(2), open(1)]), 100);
        assert_eq!((cut.received_bytes, cut.elapsed_ns, cut.notes.len()), (250 + 200 + 300, 30, 1));
        assert_eq!(cut.flows[1].received_bytes, 200, "no more than was sent");
    }

    #[test]
    fn an_order_out_of_bounds_is_refused_field_by_field() {
        assert_eq!(run().check(), Ok(()));
        for wrong in [
            Run { bytes: 0, ..run() },
            Run { bytes: u32::MAX, ..run() },
            Run { working_set_bytes: u32::MAX, ..run() },
            Run { chunk_bytes: 1400, ..run() },
            Run { chunk_bytes: 65_472, ..run() },
            Run { seconds: f64::NAN, ..run() },
            Run { seconds: 1e9, ..run() },
            Run { flows: 0, ..run() },
            Run { incast: true, both: true, flows: 2, ..run() },
            Run { incast: true, ..run() },
            Run { flows: 33, ..run() },
            Run { round_trip_ns: u64::MAX, ..run() },
            Run { bytes: 1 << 30, flows: 2, ..run() },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
