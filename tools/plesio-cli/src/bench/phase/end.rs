//! One process of `plesio bench phase`: a sideband on a wrong clock that says, every 10 ms, what mesh time is.
//!
//! ```text
//!   driver -> {"setup"}    end -> {"open": address}
//!   driver -> {"start"}    end -> {"batch"} ... until its stdin ends
//! ```
//!
//! A moment is a multiple of 10 ms of CLOCK_MONOTONIC_RAW, the same in every process of the machine; mesh time is read from
//! the line that was in force then.

use crate::args::StampsArg;
use crate::failure::{Exit, Failure};
use crate::stdout;
use plesio_sideband::{
    Bound, ClockSeam, Event, LocalClock, MachineConfig, MeshClock, Sideband, SidebandConfig, Status,
};
use plesio_udp::StampKind;
use plesio_udp::clock::monotonic_raw_ns;
use plesio_wire::sideband::state;
use plesio_wire::value::{Seat, View};
use plesio_wire::{Incarnation, Instant, LogIndex, NodeKey};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::BufRead;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

/// What a process is to be.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Setup {
    pub(super) key: u64,
    pub(super) at: IpAddr,
    pub(super) rate_ppm: f64,
    pub(super) offset_ns: i64,
    pub(super) stamps: StampsArg,
    pub(super) seed: u64,
}

/// Where it listens.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Open {
    pub(super) address: SocketAddr,
    /// Whether it has the kernel's stamps.
    pub(super) kernel: bool,
}

/// Who is in the mesh, in the order of their keys.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Start {
    pub(super) members: Vec<(u64, SocketAddr)>,
    pub(super) period_us: u32,
}

/// What mesh time was at a moment.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Sample {
    /// The moment, CLOCK_MONOTONIC_RAW.
    pub(super) raw_ns: i64,
    pub(super) mesh_ns: i64,
    /// The published bound.
    pub(super) eps_ns: u32,
}

/// What a process says four times a second.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Batch {
    pub(super) samples: Vec<Sample>,
    /// Estimated rate of mesh time against its clock, without slew.
    pub(super) rate_ppb: i64,
    pub(super) bytes_sent: u64,
    pub(super) datagrams_sent: u64,
    pub(super) exchanges: u64,
    pub(super) clock_steps: u64,
    pub(super) false_tickers: u64,
}

/// A line of the driver.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    Setup(Setup),
    Start(Start),
}

/// Moments lie so far apart.
pub(super) const MOMENT_NS: i64 = 10_000_000;
const BATCH: usize = 25;
const MESH: u64 = 0x7068_6173_6562_656e;

/// The process itself: follows the driver's orders on stdin, and ends with it.
pub(crate) fn run() -> Result<Exit, Failure> {
    let (send, orders) = channel();
    // Ends with the process: a read of stdin cannot be called off.
    let read = move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str::<Order>(&line) else { return };
            if send.send(order).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("orders".into());
    thread.spawn(read).map_err(|cause| Failure::thread("bench-clock", cause))?;
    let Ok(Order::Setup(setup)) = orders.recv() else { return Ok(Exit::Ok) };
    let refused = |cause| Failure::run("bench-clock", format!("no sideband at {}", setup.at), cause);
    let mut bound = Bound::bind((setup.at, 0).into()).map_err(refused)?;
    if setup.stamps == StampsArg::User {
        bound.forgo_stamps();
    }
    let open = Open { address: bound.local_address(), kernel: bound.stamps() == StampKind::Kernel };
    stdout::emit("open", &json!(open));
    let Ok(Order::Start(start)) = orders.recv() else { return Ok(Exit::Ok) };
    let mut members = Vec::new();
    let mut view = View { period_us: start.period_us, ..View::default() };
    for (key, address) in start.members {
        let seat = Seat { key: NodeKey(key), incarnation: Incarnation(1), admitted: LogIndex(0) };
        if view.members.push(seat).is_err() {
            return Err(Failure::usage("bench-clock", "cannot form a mesh", "too many members"));
        }
        members.push((NodeKey(key), address));
    }
    let seam = ClockSeam { offset_ns: setup.offset_ns, rate_ppm: setup.rate_ppm };
    let clock = LocalClock::new(seam);
    let machine = MachineConfig::new(MESH, NodeKey(setup.key), setup.seed);
    let config = SidebandConfig { machine, clock, sealed: false };
    let sideband = bound.start(config, || {}).map_err(refused)?;
    sideband.view(view, members);
    Reader { sideband, clock, lines: [MeshClock::default(); 2] }.run(&orders)
}

/// Reads mesh time off the newest lines.
struct Reader {
    sideband: Sideband,
    clock: LocalClock,
    /// The one in force, and the one before it.
    lines: [MeshClock; 2],
}

impl Reader {
    fn run(mut self, orders: &Receiver<Order>) -> Result<Exit, Failure> {
        let mut samples = Vec::with_capacity(BATCH);
        let mut moment_ns = monotonic_raw_ns() / MOMENT_NS * MOMENT_NS;
        let mut turns = 0_usize;
        loop {
            if orders.try_recv().err() == Some(TryRecvError::Disconnected) {
                return Ok(Exit::Ok);
            }
            self.take_events();
            // The last moment; those that were slept through are left out, at all who slept.
            let now_ns = monotonic_raw_ns();
            if now_ns >= moment_ns {
                moment_ns = now_ns / MOMENT_NS * MOMENT_NS;
                samples.extend(self.read(moment_ns));
                moment_ns += MOMENT_NS;
                turns += 1;
            }
            if turns >= BATCH {
                turns = 0;
                self.tell(std::mem::take(&mut samples));
            }
            if let Some(cause) = self.sideband.failure() {
                return Err(Failure::run("bench-clock", "the sideband ended", cause));
            }
            let left_ns = (moment_ns - monotonic_raw_ns()).max(0);
            std::thread::sleep(Duration::from_nanos(left_ns as u64));
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.sideband.poll_event() {
            let Event::Clock(line) = event else { continue };
            if line.usable && !self.lines[0].usable {
                // As a node's engine says it: who is locked may be relied upon.
                self.sideband.status(Status { state: state::LOCKED, ..Status::default() });
            }
            if line.base_local != self.lines[0].base_local {
                self.lines[1] = self.lines[0];
            }
            self.lines[0] = line;
        }
    }

    /// Mesh time at a moment, once there is one.
    fn read(&self, raw_ns: i64) -> Option<Sample> {
        let local: Instant = self.clock.at_raw(raw_ns);
        let line = self.lines.iter().find(|line| line.base_local <= local && line.usable)?;
        Some(Sample { raw_ns, mesh_ns: line.at(local).0, eps_ns: line.bound_at(local) })
    }

    fn tell(&self, samples: Vec<Sample>) {
        let counters = self.sideband.counters();
        let batch = Batch {
            samples,
            rate_ppb: counters.rate_ppb,
            bytes_sent: counters.bytes_sent,
            datagrams_sent: counters.datagrams_sent,
            exchanges: counters.clock.exchanges,
            clock_steps: counters.clock_steps,
            false_tickers: counters.clock.false_tickers,
        };
        stdout::emit("batch", &json!(batch));
    }
}
