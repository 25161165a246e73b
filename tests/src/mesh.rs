//! Whole nodes with real sockets and threads in this process, each with a trainer that moves its parameters a little.
//!
//! Knows nothing of what is done to them; a scenario looks at what they said.

use plesio::engine::node_id;
use plesio::{Control, Final, Hello, Identity, Node, NodeConfig, NodeEvent, NodeThread, Running, Seed, What};
use plesio_relay::Relay;
use plesio_session::{Entropy, NodeSecret, OperatorSecret, PoolKey, Secret, Ticket};
use plesio_udp::Requested;
use plesio_wire::handshake::Role;
use plesio_wire::{Digest, Incarnation, NodeKey};
use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Elements of the state that is trained.
pub const ELEMENTS: usize = 1_000;
/// The mesh that they are in.
pub const MESH: u64 = 7;
/// How long a busy machine may take for what takes tenths of a second.
pub const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(5);
/// No version has this number.
const UNSETTLED: u64 = u64::MAX;

/// A node at work and its trainer.
pub struct Member {
    /// Ends it.
    pub control: Control,
    /// Where it is.
    pub hello: Hello,
    seen: Arc<Mutex<Vec<NodeEvent>>>,
    settle: Arc<AtomicBool>,
    settled: Arc<AtomicU64>,
    trainer: JoinHandle<Vec<f32>>,
    listener: JoinHandle<()>,
    thread: NodeThread,
}

/// What the node `index` shows to be let in; the same each time but for its seed.
#[must_use]
pub fn identity(index: u64) -> Identity {
    let node = NodeSecret::generate(&mut entropy(&format!("member {index}")));
    let mut seed = [0; 32];
    let mut random = std::fs::File::open("/dev/urandom").expect("the system's randomness");
    random.read_exact(&mut seed).expect("it never ends");
    Identity {
        ticket: ticket(&node, u32::MAX),
        node,
        pool: PoolKey::generate(MESH, &mut entropy("pool")),
        operators: vec![operator().public()],
        seed: Secret::new(seed),
    }
}

/// What the tests' operator signs for a node.
#[must_use]
pub fn ticket(node: &NodeSecret, not_after_view: u32) -> Ticket {
    Ticket::sign(&operator(), MESH, node.public(), Role::Member, not_after_view)
}

fn operator() -> OperatorSecret {
    OperatorSecret::generate(&mut entropy("operator"))
}

fn entropy(what: &str) -> Entropy {
    let digest = node_id(format!("{what} of the tests").as_bytes());
    Entropy::new(&Secret::new(digest.0))
}

/// Who the node `index` is, and what it is told.
#[must_use]
pub fn config(index: u64, backend: Requested) -> NodeConfig {
    told(NodeConfig::new(identity(index), Incarnation(1_000 + index), ELEMENTS), backend)
}

/// The same without protection.
#[must_use]
pub fn plaintext(index: u64, backend: Requested) -> NodeConfig {
    let id = node_id(format!("member {index}").as_bytes());
    told(NodeConfig::plaintext(id, Incarnation(1_000 + index), MESH, ELEMENTS), backend)
}

fn told(mut config: NodeConfig, backend: Requested) -> NodeConfig {
    config.period_ns = 100_000_000;
    config.backend = backend;
    config
}

/// A mesh of `n` nodes, all of them begun together.
#[must_use]
pub fn begin(n: u64, backend: Requested) -> Vec<Member> {
    begin_as(n, |index| config(index, backend))
}

/// The same, each told what `config` says of its index.
#[must_use]
pub fn begin_as(n: u64, config: impl Fn(u64) -> NodeConfig) -> Vec<Member> {
    let bind = |index| Node::bind(config(index)).expect("loopback sockets and a few megabytes");
    enter((0..n).map(bind).collect())
}

fn enter(nodes: Vec<Node>) -> Vec<Member> {
    let roster: Vec<Hello> = nodes.iter().map(Node::hello).collect();
    let enter = |(index, node): (usize, Node)| {
        let hello = node.hello();
        employ(node.start(&roster).expect("the roster is whole"), hello, 1e-4 * (index + 1) as f32)
    };
    nodes.into_iter().enumerate().map(enter).collect()
}

/// A mesh of `n` nodes that only see each other through `relay`, on both planes.
#[must_use]
pub fn begin_through(relay: &Relay, n: u64, backend: Requested) -> Vec<Member> {
    let open = || relay.open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a loopback port");
    let bind = |index| {
        let (data, sideband) = (open(), open());
        let mut config = config(index, backend);
        (config.advertise_data, config.advertise_sideband) = (Some(data.1), Some(sideband.1));
        let node = Node::bind(config).expect("loopback sockets and a few megabytes");
        relay.stands_for(data.0, node.listens().data);
        relay.stands_for(sideband.0, node.listens().sideband);
        node
    };
    enter((0..n).map(bind).collect())
}

/// One more node, which asks a member to be let in.
#[must_use]
pub fn join(index: u64, backend: Requested, seed: Seed) -> Member {
    join_as(config(index, backend), seed)
}

/// The same, told what `config` says.
#[must_use]
pub fn join_as(config: NodeConfig, seed: Seed) -> Member {
    let node = Node::bind(config).expect("loopback sockets and a few megabytes");
    let hello = node.hello();
    employ(node.join(&[seed]).expect("a loopback seed"), hello, 5e-4)
}

/// A trainer that moves every parameter by `amount` per step.
#[must_use]
pub fn employ(running: Running, hello: Hello, amount: f32) -> Member {
    employ_on(ELEMENTS, running, hello, amount)
}

/// The same for a state of so many elements.
#[must_use]
pub fn employ_on(elements: usize, running: Running, hello: Hello, amount: f32) -> Member {
    let Running { mut worker, events, control, thread } = running;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (settle, settled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(UNSETTLED)));
    let log = Arc::clone(&seen);
    let listener = std::thread::spawn(move || events.into_iter().for_each(|event| lock(&log).push(event)));
    let (settle_asked, settled_told) = (Arc::clone(&settle), Arc::clone(&settled));
    let trainer = std::thread::spawn(move || {
        let mut params = vec![0.0; elements];
        if worker.attach(&mut params).is_err() {
            return params;
        }
        loop {
            std::thread::sleep(STEP);
            if settle_asked.load(Ordering::Relaxed) {
                match worker.handle_idle(&mut params) {
                    Ok(true) => settled_told.store(worker.version().0, Ordering::Relaxed),
                    Ok(false) => settled_told.store(UNSETTLED, Ordering::Relaxed),
                    Err(_) => return params,
                }
                continue;
            }
            params.iter_mut().enumerate().for_each(|(index, x)| *x += amount * (1 + index % 3) as f32);
            if worker.handle_step(&mut params).is_err() {
                return params;
            }
        }
    });
    Member { control, hello, seen, settle, settled, trainer, listener, thread }
}

impl Member {
    /// Everything it said so far.
    #[must_use]
    pub fn events(&self) -> Vec<NodeEvent> {
        lock(&self.seen).clone()
    }

    /// Whether it ever said that.
    pub fn has(&self, wanted: impl Fn(&What) -> bool) -> bool {
        lock(&self.seen).iter().any(|event| wanted(&event.what))
    }

    /// The newest that `wanted` finds.
    pub fn newest<T>(&self, wanted: impl Fn(&What) -> Option<T>) -> Option<T> {
        lock(&self.seen).iter().rev().find_map(|event| wanted(&event.what))
    }

    /// The newest version it holds.
    #[must_use]
    pub fn version(&self) -> u64 {
        let version = |what: &What| match what {
            What::Version { version, .. } => Some(version.0),
            _ => None,
        };
        self.newest(version).unwrap_or(0)
    }

    /// Who is in the mesh, as it was last told.
    #[must_use]
    pub fn view(&self) -> Vec<NodeKey> {
        let members = |what: &What| match what {
            What::View { members, .. } => Some(members.clone()),
            _ => None,
        };
        self.newest(members).unwrap_or_default()
    }

    fn digests(&self) -> BTreeMap<u64, Digest> {
        let digest = |event: &NodeEvent| match event.what {
            What::Version { version, digest } => Some((version.0, digest)),
            _ => None,
        };
        lock(&self.seen).iter().filter_map(digest).collect()
    }

    fn is_over(&self) -> bool {
        self.has(|what| matches!(what, What::Final(_) | What::Failed(_)))
    }

    /// Its final report and its parameters, once its threads have ended.
    fn finish(self) -> (Final, Vec<f32>) {
        self.control.finish();
        wait("the final report", || self.is_over());
        let params = self.trainer.join().expect("the trainer does not panic");
        self.listener.join().expect("the listener does not panic");
        self.thread.join();
        let report = lock(&self.seen).iter().rev().find_map(|event| match &event.what {
            What::Final(report) => Some((**report).clone()),
            _ => None,
        });
        let report = report.unwrap_or_else(|| panic!("no final report; last: {:?}", lock(&self.seen).last()));
        (report, params)
    }
}

/// Waits until `done`.
///
/// # Panics
/// When that takes longer than [`PATIENCE`].
pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Everybody stops training, everything is committed, everybody holds the same bits and ends; nobody leaves a thread.
///
/// # Panics
/// When any two disagree on any version, or anything of it does not come about.
pub fn settle_and_end(members: Vec<Member>) -> Vec<Final> {
    // The rounding residue of a few slots.
    settle_and_end_within(members, 1e-3)
}

/// The same, where a trainer may be left with so much of each parameter that is not cut yet.
///
/// # Panics
/// As above.
pub fn settle_and_end_within(members: Vec<Member>, residue: f32) -> Vec<Final> {
    members.iter().for_each(|member| member.settle.store(true, Ordering::Relaxed));
    wait("all contributions to be committed", || {
        // What a node holds its trainer takes a little later: parameters are compared, so the trainer must have it.
        let newest = members.iter().map(Member::version).max();
        members.iter().all(|member| {
            Some(member.version()) == newest && member.settled.load(Ordering::Relaxed) == member.version()
        })
    });
    let all: Vec<BTreeMap<u64, Digest>> = members.iter().map(Member::digests).collect();
    for (version, digest) in all.iter().flatten() {
        for other in &all {
            assert_eq!(other.get(version).unwrap_or(digest), digest, "version {version}");
        }
    }
    let (ends, params): (Vec<Final>, Vec<Vec<f32>>) = members.into_iter().map(Member::finish).unzip();
    for (end, params) in ends.iter().zip(&params) {
        // I1 with nothing uncommitted: x is float(G), and the residue.
        let most = params.iter().zip(&end.state).fold(0f32, |most, (x, g)| most.max((x - g).abs()));
        assert!(most < residue, "{most} is not in the state, of at most {residue}");
        assert_eq!((end.digest, &end.state), (ends[0].digest, &ends[0].state));
        assert!(end.state.iter().all(|value| value.is_finite()));
        assert!(end.progress.steps_committed > 0);
    }
    wait("the nodes' threads to end", || node_threads().is_empty());
    ends
}

/// Names of the threads of this process that belong to a node.
#[must_use]
pub fn node_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc is mounted");
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread may end between being listed and being read.
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks.filter_map(name).filter(|name| name.starts_with("plesio")).collect()
}

fn lock(seen: &Mutex<Vec<NodeEvent>>) -> MutexGuard<'_, Vec<NodeEvent>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
