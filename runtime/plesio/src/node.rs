//! Binding and starting a node: sockets, arena, threads.

mod check;
mod doors;
mod protection;
mod run;
mod sink;
mod state;

use crate::device::{AnyDevice, OpenedDevice};
use crate::engine::{Common, Entrance, Period, Rules, Steering, genesis};
use crate::event::NodeEvent;
use crate::mailbox::Mailbox;
use crate::store::{Store, StoreError, StorePlan};
use crate::worker::{Sent, Worker};
use check::check;
pub(crate) use doors::draw;
pub use protection::{Identity, Protection, Seed, Trust};
use state::Folder;
pub use state::{DiskState, StateConfig, StateError};

use plesio_cpu::Cpu;
use plesio_kernels::{Codec, KernelError, Scale};
use plesio_memory::{ArenaError, RingError, ring};
use plesio_session::Secret;
use plesio_sideband::{Bound, ClockSeam, LocalClock, Obedience, Operators, Record, RecordError, StartError};
use plesio_udp::{OpenError, Requested, WaitMode, Waker};
use plesio_wire::sideband::{Address, RosterEntry};
use plesio_wire::{Digest, Incarnation, NodeId, SlotSeq};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// What a node is told; [`NodeConfig::new`] and [`NodeConfig::plaintext`] fill the defaults.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Who it is; sealed, the id that its keys make.
    pub id: NodeId,
    /// 64 random bits, drawn by the process at its start.
    pub incarnation: Incarnation,
    /// Which mesh; sealed, the one of its pool key.
    pub mesh: u64,
    /// What protects its links.
    pub protection: Protection,
    /// Who can reach the network it is on.
    pub trust: Trust,
    /// Data address; port 0 takes a free one.
    pub data: SocketAddr,
    /// Sideband address; port 0 takes a free one.
    pub sideband: SocketAddr,
    /// Where others reach the data plane, if not where it listens: behind a relay or a translation of addresses.
    pub advertise_data: Option<SocketAddr>,
    /// The same for the sideband.
    pub advertise_sideband: Option<SocketAddr>,
    /// Data backend.
    pub backend: Requested,
    /// How the data plane's thread waits.
    pub wait: WaitMode,
    /// How peers on this host are reached.
    pub path: DataPath,
    /// The folder of the doors through which memory is shared, this user's alone (mode 0700); all nodes that are to share
    /// theirs have the same. `None`: `plesio-doors` in `$XDG_RUNTIME_DIR`, else in `/run/user/UID` where that is there, else
    /// `plesio-doors-UID` in the folder for temporary files.
    pub doors: Option<PathBuf>,
    /// What computes: sums, codecs, and the state. Whoever trains takes the same; the CPU by default.
    pub device: OpenedDevice,
    /// Seam through which the node sees time; honest by default.
    pub clock: ClockSeam,
    /// Elements of the trained state.
    pub elements: usize,
    /// How slots are encoded on the wire, the same on all nodes of a mesh.
    pub codec: Codec,
    /// How much of every sum a member may own, the same on all nodes of a mesh.
    pub sharing: Sharing,
    /// Fixed-point exponent of slots.
    pub scale: Scale,
    /// Frame period at genesis, nanoseconds; 50 ms to 60 s. It follows links and steps by factors of two, within the range
    /// that the node says which begins the mesh.
    pub period_ns: u64,
    /// It is never shorter than this, nanoseconds; `None`: than at genesis.
    pub period_min_ns: Option<u64>,
    /// Nor longer than this, nanoseconds; 60 s.
    pub period_max_ns: u64,
    /// Slots of the elastic ring: 2, 4, 8 or 16.
    pub ring_depth: u8,
    /// Digest of model and adapter configuration.
    pub model: Digest,
    /// Payload bytes per datagram to peers on this host, and at most to others: there it is what the path carries. The
    /// same on all nodes of a mesh.
    pub chunk_bytes: u32,
    /// What versions are decided by, the same on all nodes of a mesh.
    pub rules: Rules,
    /// How this node keeps its contributions in time.
    pub steering: Steering,
    /// Whose HALT and RESUME it follows; `None`: nobody's.
    pub halt: Option<HaltConfig>,
    /// Where it keeps what outlives it; `None`: nothing does.
    pub state: Option<StateConfig>,
}

/// Who may stop a mesh and let it go on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HaltConfig {
    /// The operators, the same on all nodes of a mesh.
    pub operators: Operators,
    /// The file in which this node keeps the order in force, its own alone; made if it is not there.
    pub record: PathBuf,
}

/// Who sums how much of every version.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sharing {
    /// Every member an equal part.
    Equal,
    /// As much as suits what each was measured to send, receive and sum, up to four equal parts: all of it among four
    /// members or fewer. Windows for contributions take four slots' bytes for each slot of the ring instead of one.
    #[default]
    Rate,
}

impl Sharing {
    /// Equal parts that a member may own at most.
    #[must_use]
    pub const fn factor(self) -> u8 {
        match self {
            Self::Equal => 1,
            Self::Rate => 4,
        }
    }
}

/// How contributions, sums and states come from peers on this host.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum DataPath {
    /// Through memory that each maps of the other, where they find each other; else by UDP.
    #[default]
    Auto,
    /// By UDP alone, like from any other peer.
    Udp,
}

impl NodeConfig {
    /// A node with free loopback ports, whose links are sealed.
    #[must_use]
    pub fn new(identity: Identity, incarnation: Incarnation, elements: usize) -> Self {
        let (id, mesh) = (identity.node.public().id(), identity.pool.mesh);
        let protection = Protection::Sealed(Box::new(identity));
        Self { protection, ..Self::plaintext(id, incarnation, mesh, elements) }
    }

    /// A node of `mesh` with free loopback ports and nothing that protects its links.
    #[must_use]
    pub fn plaintext(id: NodeId, incarnation: Incarnation, mesh: u64, elements: usize) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            id,
            incarnation,
            mesh,
            protection: Protection::Plaintext,
            trust: Trust::Open,
            data: loopback,
            sideband: loopback,
            advertise_data: None,
            advertise_sideband: None,
            backend: Requested::Auto,
            wait: WaitMode::Block,
            path: DataPath::Auto,
            doors: None,
            device: OpenedDevice::default(),
            clock: ClockSeam::default(),
            elements,
            codec: Codec::Full,
            sharing: Sharing::default(),
            scale: Scale::DEFAULT,
            period_ns: 250_000_000,
            period_min_ns: None,
            period_max_ns: Period::LONGEST_NS,
            ring_depth: 4,
            model: Digest::default(),
            chunk_bytes: plesio_wire::data::CHUNK_BYTES_LOOPBACK,
            rules: Rules::default(),
            steering: Steering::default(),
            halt: None,
            state: None,
        }
    }
}

impl NodeConfig {
    fn period(&self) -> Period {
        let (first_ns, max_ns) = (self.period_ns, self.period_max_ns);
        Period { first_ns, min_ns: self.period_min_ns.unwrap_or(first_ns), max_ns }
    }

    /// Whether an address may be used: plaintext stays on this host unless the network is captive.
    fn admit(&self, address: SocketAddr) -> Result<(), OpenError> {
        match (&self.protection, self.trust) {
            (Protection::Plaintext, Trust::Open) => plesio_udp::refuse_off_host(address),
            _ => Ok(()),
        }
    }

    /// What must be the same on all nodes of a mesh.
    #[must_use]
    pub fn common(&self) -> Common {
        Common {
            model: self.model,
            elements: self.elements as u64,
            codec: self.codec,
            share_factor: self.sharing.factor(),
            scale_exponent: self.scale.exponent(),
            ring_depth: self.ring_depth,
            chunk_bytes: self.chunk_bytes,
            rules: self.rules,
            operators: self.halt.as_ref().map(|halt| halt.operators.digest()).unwrap_or_default(),
        }
    }
}

/// What others must know to reach a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hello {
    /// Who.
    pub id: NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Where others reach its sideband.
    pub sideband: SocketAddr,
    /// Where others reach its data plane.
    pub data: SocketAddr,
}

/// Where a node listens; others may have to be told another address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listens {
    /// Its data plane.
    pub data: SocketAddr,
    /// Its sideband.
    pub sideband: SocketAddr,
}

impl Hello {
    /// How a node that joins finds it.
    #[must_use]
    pub fn seed(&self) -> Seed {
        Seed { id: self.id, sideband: self.sideband, data: self.data }
    }

    fn entry(&self) -> RosterEntry {
        RosterEntry { id: self.id, sideband: Address(self.sideband), data: Address(self.data), weight: 1_000 }
    }
}

/// What the node found on this machine and settled for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// Data backend: `uring` or `mio`.
    pub backend: String,
    /// Why that one.
    pub backend_reason: String,
    /// How peers on this host are reached, and why.
    pub path: String,
    /// What computes: `cpu avx512`, `cuda:0 NVIDIA Orin (sm_87, 16 units)`.
    pub device: String,
    /// Why that one.
    pub device_reason: String,
    /// Instruction set of the kernels on the CPU, which does what the device does not.
    pub kernels: String,
    /// Bytes of pinned tensor memory.
    pub arena_bytes: u64,
    /// How many of them are locked.
    pub locked_bytes: u64,
    /// Fallbacks, each said once.
    pub notes: Vec<String>,
}

/// Why a node does not start, or stopped.
#[derive(Debug)]
#[non_exhaustive]
pub enum NodeError {
    /// A parameter is out of its range.
    Config(String),
    /// A socket cannot be had.
    Open(OpenError),
    /// The sideband cannot start.
    Sideband(StartError),
    /// Tensor memory cannot be had.
    Arena(ArenaError),
    /// The ring cannot be laid out.
    Ring(RingError),
    /// Tensor memory refuses an access, or the state overflowed.
    Store(StoreError),
    /// The order in force cannot be kept.
    Record(RecordError),
    /// The folder for what outlives the node cannot be used.
    State(StateError),
    /// A socket failed while running.
    Io(String),
    /// The node's thread ended before it was asked to.
    Gone,
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "node configuration: {error}"),
            Self::Open(error) => write!(f, "data socket: {error}"),
            Self::Sideband(error) => write!(f, "sideband: {error}"),
            Self::Arena(error) => write!(f, "tensor memory: {error}"),
            Self::Ring(error) => write!(f, "elastic ring: {error}"),
            Self::Store(error) => write!(f, "{error}"),
            Self::Record(error) => write!(f, "record of halts {error}"),
            Self::State(error) => write!(f, "state folder {error}"),
            Self::Io(error) => write!(f, "data socket: {error}"),
            Self::Gone => f.write_str("the node's thread has ended; its last event says why"),
        }
    }
}

impl std::error::Error for NodeError {}

macro_rules! from {
    ($($error:ty => $variant:ident),*) => { $(
        impl From<$error> for NodeError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )* };
}
from!(
    OpenError => Open, StartError => Sideband, ArenaError => Arena, RingError => Ring, StoreError => Store,
    RecordError => Record, StateError => State
);

impl From<KernelError> for NodeError {
    fn from(error: KernelError) -> Self {
        Self::Config(error.to_string())
    }
}

/// A node with sockets and memory, not in any mesh yet.
pub struct Node {
    config: NodeConfig,
    found: Found,
    hello: Hello,
    listens: Listens,
    /// What the folder for its state knows of others, if a mesh was in it.
    known: Option<Vec<Seed>>,
    worker: Worker<AnyDevice>,
    control: Control,
    orders: Sender<Order>,
    events: Receiver<NodeEvent>,
    thread: JoinHandle<()>,
}

/// A node at work.
pub struct Running {
    /// For the training thread.
    pub worker: Worker<AnyDevice>,
    /// What happens; the channel closes after the last event.
    pub events: Receiver<NodeEvent>,
    /// For whoever ends it.
    pub control: Control,
    /// For whoever waits for its end.
    pub thread: NodeThread,
}

/// The node's own thread.
pub struct NodeThread(JoinHandle<()>);

impl NodeThread {
    /// Waits until the node has ended and its sockets and memory are free, after [`Control::finish`] or
    /// [`Control::stop`].
    pub fn join(self) {
        // A panic of the node's thread was reported by its own hook; there is nothing left to end.
        let _ = self.0.join();
    }
}

/// Ends a node, from any thread.
#[derive(Clone)]
pub struct Control {
    orders: Sender<Order>,
    waker: Waker,
    mailbox: Arc<Mailbox>,
}

impl Control {
    /// Leaves the mesh in good order; [`crate::What::Left`] says when the others can do without this node.
    pub fn leave(&self) {
        self.order(Order::Leave);
    }

    /// Reports the final state and ends.
    pub fn finish(&self) {
        self.order(Order::Finish);
    }

    /// Ends at once.
    pub fn stop(&self) {
        self.mailbox.stop();
        self.order(Order::Stop);
    }

    fn order(&self, order: Order) {
        // A thread that has ended needs no order.
        let _ = self.orders.send(order);
        self.waker.wake();
    }
}

#[derive(Debug)]
enum Order {
    /// How, and the members to ask for a session first.
    Enter(Entrance, Vec<Seed>),
    Leave,
    Finish,
    Stop,
}

impl Node {
    /// Takes sockets and memory, probes the backend, and starts the node's threads, which wait for a mesh.
    ///
    /// # Errors
    /// What cannot be had, where, and what would help.
    pub fn bind(config: NodeConfig) -> Result<Self, NodeError> {
        check(&config)?;
        // First of all: who cannot keep a halt does not begin.
        let obedience = config.halt.as_ref().map(|halt| obedience(&config, halt)).transpose()?;
        let state = config.state.as_ref().map(|state| Folder::open(state, &config)).transpose()?;
        let known = state.as_ref().and_then(|folder| folder.known(config.id));
        let factor = config.sharing.factor();
        let (elements, outer) = (config.elements as u64, config.rules.outer);
        let plan = StorePlan::with(elements, config.ring_depth, config.codec, factor, outer);
        let device = config.device.device;
        let (arena, report) = device.arena(&plan.arena)?;
        let (producer, consumer) = ring(&arena, &plan.ring, SlotSeq(1))?;
        let seen = Sent::new(&arena, plan.regions);
        let store = Store::new(arena, &plan, device, config.scale, config.id.key())?;
        let mut bound = Bound::bind(config.sideband)?;
        if let Some(obedience) = obedience {
            bound.obey(obedience);
        }
        let clock = LocalClock::new(config.clock);
        let mailbox = Arc::new(Mailbox::new(config.elements));

        let mut found = Found {
            device: config.device.found.clone(),
            device_reason: config.device.reason.clone(),
            kernels: Cpu::detect().level().to_string(),
            arena_bytes: report.mapped_bytes,
            locked_bytes: report.locked_bytes,
            ..Found::default()
        };
        found.notes.extend(report.lines);
        found.notes.extend(bound.notes().iter().cloned());
        found.notes.extend(state.iter().flat_map(|folder| folder.notes().iter().cloned()));

        let (orders, inbox) = channel();
        let (event_sender, events) = channel();
        let (ready, opened) = channel();
        let seat = run::Seat {
            config: config.clone(),
            plan,
            store,
            consumer,
            clock,
            bound,
            state,
            mailbox: Arc::clone(&mailbox),
            inbox,
            events: event_sender,
        };
        let thread = std::thread::Builder::new()
            .name("plesio-node".into())
            .spawn(move || run::run(seat, &ready))
            .map_err(|error| NodeError::Io(format!("the node's thread cannot start: {error}")))?;
        let opened: run::Opened = opened.recv().map_err(|_| NodeError::Gone)??;
        found.backend = opened.backend;
        found.backend_reason = opened.reason;
        found.path = opened.path;
        found.notes.extend(opened.notes);
        let hello = Hello {
            id: config.id,
            incarnation: config.incarnation,
            sideband: config.advertise_sideband.unwrap_or(opened.sideband),
            data: config.advertise_data.unwrap_or(opened.data),
        };
        let listens = Listens { data: opened.data, sideband: opened.sideband };
        let worker = Worker::new(
            device,
            config.scale,
            seen,
            producer,
            Arc::clone(&mailbox),
            clock,
            opened.waker.clone(),
            config.elements,
            config.rules.tau,
        );
        let control = Control { orders: orders.clone(), waker: opened.waker, mailbox };
        Ok(Self { config, found, hello, listens, known, worker, control, orders, events, thread })
    }

    /// How others reach it.
    #[must_use]
    pub fn hello(&self) -> Hello {
        self.hello
    }

    /// Where it listens, whatever it advertises.
    #[must_use]
    pub fn listens(&self) -> Listens {
        self.listens
    }

    /// What it found here.
    #[must_use]
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Whether its folder holds what is left of a mesh: then it comes back to that by [`Self::join`], and begins no other.
    #[must_use]
    pub fn returns(&self) -> bool {
        self.known.is_some()
    }

    /// Begins a mesh: every node of `roster`, this one included, was given the same.
    ///
    /// # Errors
    /// A roster that is empty, too long, repeats an id, or lacks this node.
    pub fn start(self, roster: &[Hello]) -> Result<Running, NodeError> {
        if !roster.contains(&self.hello) {
            return Err(NodeError::Config("the roster does not name this node as it said hello".into()));
        }
        if self.returns() {
            return Err(NodeError::Config(
                "its state folder holds what is left of a mesh; join, or give it an empty folder".into(),
            ));
        }
        for hello in roster {
            self.config.admit(hello.data)?;
            self.config.admit(hello.sideband)?;
        }
        let entries: Vec<_> = roster.iter().map(|hello| (hello.entry(), hello.incarnation)).collect();
        let (entries, view) = genesis(&entries, &self.config.period(), &self.config.common())
            .map_err(|rule| NodeError::Config(rule.into()))?;
        self.enter(Entrance::Genesis(entries, Box::new(view)), Vec::new())
    }

    /// Joins a running mesh through some of its members. A node whose folder holds what is left of a mesh asks the members
    /// that it knew as well, and begins again with those who came back as it did when nobody else can go on.
    ///
    /// # Errors
    /// No member, or in plaintext one that is not on this host.
    pub fn join(self, seeds: &[Seed]) -> Result<Running, NodeError> {
        if seeds.is_empty() && !self.returns() {
            return Err(NodeError::Config("no member's address is known; give at least one".into()));
        }
        for seed in seeds {
            self.config.admit(seed.data)?;
            self.config.admit(seed.sideband)?;
        }
        let named = |known: &&Seed| !seeds.iter().any(|seed| seed.sideband == known.sideband);
        let known = self.known.iter().flatten().filter(named).filter(|seed| {
            // What is on the disk is kept to the same rule, without a word.
            self.config.admit(seed.data).is_ok() && self.config.admit(seed.sideband).is_ok()
        });
        let all: Vec<Seed> = seeds.iter().chain(known).copied().collect();
        let sidebands = seeds.iter().map(|seed| seed.sideband).collect();
        self.enter(Entrance::Join(sidebands), all)
    }

    fn enter(self, entrance: Entrance, seeds: Vec<Seed>) -> Result<Running, NodeError> {
        self.orders.send(Order::Enter(entrance, seeds)).map_err(|_| NodeError::Gone)?;
        self.control.waker.wake();
        let thread = NodeThread(self.thread);
        Ok(Running { worker: self.worker, events: self.events, control: self.control, thread })
    }
}

fn obedience(config: &NodeConfig, halt: &HaltConfig) -> Result<Obedience, RecordError> {
    let record = Record::open(&halt.record, config.mesh)?;
    let mut seed = [0; 32];
    seed.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&draw().to_le_bytes()));
    Ok(Obedience { id: config.id, operators: halt.operators.clone(), record, seed: Secret::new(seed) })
}

/// What the node's threads need of the configuration to make the engine.
fn engine_entry(config: &NodeConfig, sideband: SocketAddr, data: SocketAddr) -> RosterEntry {
    Hello { id: config.id, incarnation: config.incarnation, sideband, data }.entry()
}
