//! One rank of a collective bench, in a process of its own: `plesio bench-rank`. Orders come on stdin, one JSON line each;
//! answers go to stdout.

use super::values::{PATTERN, VALUE_MAX, bits, encode, matches, value};
use crate::args::{BackendArg, ElementArg, NarrowArg, OperationArg, PathArg};
use crate::bench::{Wait, group, worker};
use crate::demo::keys::Told;
use crate::demo::requested;
use crate::failure::{Exit, Failure};
use nix::sys::prctl;
use nix::sys::signal::{self, Signal};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use plesio::{
    Codec, Excluder, GroupError, Narrowing, NetworkGroup, NetworkPlan, Protection, SharedGroup, SharedPlan,
    Trust,
};
use plesio_collective::{Call, Element, Operation, Places, Ranks, Rates};
use plesio_wire::NodeId;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What a rank is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    Form(Forming),
    /// Where all ranks are.
    Meet(Vec<SocketAddr>),
    Run(Run),
    /// That rank's process has ended.
    Dead(u8),
}

/// The group to be part of.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Forming {
    pub(super) folder: PathBuf,
    pub(super) generation: u64,
    pub(super) rank: u8,
    pub(super) ranks: u8,
    pub(super) tensor_bytes: usize,
    pub(super) path: PathArg,
    pub(super) wait: Wait,
    pub(super) backend: BackendArg,
    /// Whether tensors are ever narrowed: then what is left out of them is kept beside them.
    pub(super) narrows: bool,
    /// Where datagrams are sealed, what this rank shows.
    pub(super) keys: Option<Told>,
    /// And who the ranks are.
    pub(super) ids: Vec<[u8; 32]>,
    /// Where its socket is.
    pub(super) namespace: Option<String>,
    /// What everybody's link carries, bytes per second; empty: nobody knows.
    pub(super) links: Vec<u64>,
}

/// So many times the same operation.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Run {
    pub(super) operation: OperationArg,
    pub(super) element: ElementArg,
    pub(super) codec: NarrowArg,
    pub(super) count: u64,
    pub(super) iterations: u32,
    pub(super) seed: u64,
    /// One pass over the memory, without agreement.
    pub(super) bare: bool,
    /// To end as by SIGKILL so long after the last operation began, and to say when that is over if it comes to that. Its own
    /// timer is less late than another process, on a machine with more ranks than cores.
    pub(super) dies_after_ns: Option<u64>,
}

/// What a rank says.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Said {
    /// It is there, and has to be told where the others are.
    Opened(SocketAddr),
    /// It has met the others; remarks about this machine.
    Formed(Vec<String>),
    /// The last operation of a run is over, for one that is to die in it.
    Ends,
    Done(Part),
    Failed(String),
}

/// What one rank saw of a run.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Part {
    /// When each operation began and ended, on the clock that all processes of this machine share.
    pub(super) spans_ns: Vec<(u64, u64)>,
    pub(super) wrong: u64,
    /// Of the last result's bytes.
    pub(super) digest: u64,
    /// Elements of the last operation that this rank summed in place of a dead one; nobody counts them in shared memory.
    pub(super) redone: u64,
    /// Memory of this process, its share of what it maps with others, without its tensors.
    pub(super) above_bytes: u64,
    /// What its datagrams were sealed with; empty where nothing was.
    pub(super) suite: String,
}

impl OperationArg {
    pub(super) fn operation(self) -> Operation {
        match self {
            Self::AllReduce => Operation::AllReduce,
            Self::ReduceScatter => Operation::ReduceScatter,
            Self::AllGather => Operation::AllGather,
            Self::Broadcast => Operation::Broadcast { root: 0 },
        }
    }
}

impl NarrowArg {
    pub(super) const fn codec(self) -> Codec {
        match self {
            Self::None => Codec::Full,
            Self::Bf16 => Codec::Bf16,
            Self::Int8 => Codec::Int8,
            Self::Int4 => Codec::Int4By64,
        }
    }

    /// How far from the exact sum of so many ranks' values an element may be, with what was left out before.
    fn error_max(self, ranks: u32) -> f64 {
        // A contribution and the sum are each off by a step at most, twice that where rounding is stochastic.
        let steps = f64::from(VALUE_MAX) * 1.25 * f64::from(2 * ranks - 1);
        match self {
            // Whole numbers up to 256 are bfloat16 numbers.
            Self::None | Self::Bf16 => 0.0,
            Self::Int8 => steps / 127.0,
            Self::Int4 => 2.0 * steps / 7.0,
        }
    }
}

impl ElementArg {
    pub(super) fn element(self) -> Element {
        match self {
            Self::F32 => Element::F32,
            Self::Bf16 => Element::Bf16,
            Self::I32 => Element::I32,
        }
    }
}

/// Serves runs until stdin closes, on one core if that is said. It dies with who started it.
pub(crate) fn run_rank(pin: Option<u16>) -> Result<Exit, Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|cause| Failure::run("bench", "cannot tie this process to the bench", cause))?;
    let notes = group::enter(pin);
    let mut rank: Option<Rank> = None;
    let excluder = Arc::default();
    let heard = hear(Arc::clone(&excluder))?;
    loop {
        let order = match &mut rank {
            // The others may wait for the last words of a call that is over here.
            Some(Rank { group: Group::Network(group), .. }) => match heard.try_recv() {
                Ok(order) => order,
                Err(TryRecvError::Empty) => {
                    group
                        .turn(BETWEEN)
                        .map_err(|cause| Failure::run("bench", "a rank cannot go on", cause))?;
                    continue;
                }
                Err(TryRecvError::Disconnected) => break,
            },
            _ => match heard.recv() {
                Ok(order) => order,
                Err(_) => break,
            },
        };
        let said = obey(order, &mut rank, &notes).unwrap_or_else(|cause| Said::Failed(cause.to_string()));
        if let Some(Rank { group: Group::Network(group), .. }) = &rank {
            *excluder.lock().unwrap_or_else(PoisonError::into_inner) = Some(group.excluder());
        }
        if !say(&said) {
            break;
        }
    }
    Ok(Exit::Ok)
}

/// Whether anybody listens.
fn say(said: &Said) -> bool {
    let line = serde_json::to_string(said).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

/// Orders from stdin, until it closes or says something else. Word of a death goes to the group at once: it may be in a
/// call that waits for the dead one.
fn hear(excluder: Arc<Mutex<Option<Excluder>>>) -> Result<Receiver<Order>, Failure> {
    let (tell, heard) = mpsc::channel();
    let read = move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(Order::Dead(rank)) => {
                    if let Some(excluder) = &*excluder.lock().unwrap_or_else(PoisonError::into_inner) {
                        excluder.exclude(rank);
                    }
                }
                Ok(order) => {
                    if tell.send(order).is_err() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
    };
    let thread = std::thread::Builder::new().name("orders".into());
    thread.spawn(read).map_err(|cause| Failure::thread("bench", cause))?;
    Ok(heard)
}

fn obey(order: Order, rank: &mut Option<Rank>, notes: &[String]) -> Result<Said, Cause> {
    let formed = || Said::Formed(notes.to_vec());
    match (order, rank.as_mut()) {
        (Order::Form(forming), _) => {
            let found = Rank::form(&forming)?;
            let said = match &found.group {
                Group::Network(group) => Said::Opened(group.local_address()),
                Group::Shared(_) => formed(),
            };
            *rank = Some(found);
            Ok(said)
        }
        (Order::Meet(addresses), Some(Rank { group: Group::Network(group), .. })) => {
            group.meet(&addresses)?;
            Ok(formed())
        }
        (Order::Run(run), Some(rank)) => rank.run(&run).map(Said::Done),
        _ => Ok(Said::Failed("an order out of turn".into())),
    }
}

/// Why a rank cannot go on: its group, or what it stands on.
type Cause = Box<dyn std::error::Error>;

/// How the ranks reach each other.
enum Group {
    Shared(SharedGroup),
    Network(Box<NetworkGroup>),
}

impl Group {
    fn rank(&self) -> usize {
        match self {
            Self::Shared(group) => group.rank(),
            Self::Network(group) => group.rank(),
        }
    }

    fn ranks(&self) -> usize {
        match self {
            Self::Shared(group) => group.ranks(),
            Self::Network(group) => group.ranks(),
        }
    }

    fn write(&self, offset_bytes: usize, from: &[u8]) -> Result<(), GroupError> {
        match self {
            Self::Shared(group) => group.write(offset_bytes, from),
            Self::Network(group) => {
                group.write(u32::try_from(offset_bytes).map_err(|_| GroupError::Range)?, from)
            }
        }
    }

    fn read(&self, offset_bytes: usize, into: &mut [u8]) -> Result<(), GroupError> {
        match self {
            Self::Shared(group) => group.read(offset_bytes, into),
            Self::Network(group) => {
                group.read(u32::try_from(offset_bytes).map_err(|_| GroupError::Range)?, into)
            }
        }
    }

    fn call(
        &mut self,
        call: Call,
        places: Places,
        narrowing: Option<Narrowing>,
    ) -> Result<Ranks, GroupError> {
        match (self, narrowing) {
            (Self::Shared(group), _) => group.call(call, places),
            (Self::Network(group), None) => group.call(call, places),
            (Self::Network(group), Some(narrowing)) => {
                group.all_reduce_narrowed(call.count, places, narrowing)
            }
        }
    }

    /// Which elements of the last result are made of whose contributions.
    fn made_of(&self, count: u64, present: Ranks) -> Vec<(Range<u64>, Ranks)> {
        let whole = || vec![(0..count, present)];
        match self {
            Self::Shared(_) => whole(),
            Self::Network(group) => {
                let pieces: Vec<_> = group.made_of().collect();
                if pieces.is_empty() { whole() } else { pieces }
            }
        }
    }

    fn one_pass(&self, element: Element, count: u64) -> Result<(), GroupError> {
        match self {
            Self::Shared(group) => group.one_pass(element, count, 0),
            Self::Network(_) => Ok(()),
        }
    }
}

struct Rank {
    group: Group,
    tensor_bytes: usize,
    /// What is brought and what comes out; in place where memory is shared.
    places: Places,
    /// An element to meet by.
    meet: Places,
    /// Where what codecs leave out is kept.
    residue: Option<u64>,
}

impl Rank {
    fn form(forming: &Forming) -> Result<Self, Cause> {
        let tensor_bytes = forming.tensor_bytes;
        let stride = tensor_bytes.next_multiple_of(MEET_BYTES);
        let tensors = if forming.path == PathArg::Shm { 1 } else { 2 };
        let kept = usize::from(forming.narrows);
        let all_bytes = (tensors + kept) * stride + 2 * MEET_BYTES;
        let at = |tensor: usize| (tensor * stride) as u64;
        let places = Places { input: 0, output: at(tensors - 1) };
        let residue = forming.narrows.then(|| at(tensors));
        let tensors = tensors + kept;
        let apart = if forming.path == PathArg::Shm { 0 } else { MEET_BYTES as u64 };
        let meet = Places { input: at(tensors), output: at(tensors) + apart };
        let group = match forming.path {
            PathArg::Shm => {
                let plan = SharedPlan {
                    folder: forming.folder.clone(),
                    name: "bench".into(),
                    generation: forming.generation,
                    rank: forming.rank,
                    ranks: forming.ranks,
                    tensor_bytes: all_bytes,
                    deadline: CALL_LIMIT,
                };
                let group = SharedGroup::form(&plan, Instant::now() + FORM_LIMIT)?;
                // Doors are closed by then; from here on the last one out leaves nothing, also when the driver is killed.
                let _not_the_last = std::fs::remove_dir(&forming.folder);
                Group::Shared(group)
            }
            PathArg::Udp => {
                let ip = place(forming.namespace.as_deref())?;
                let protection = forming.keys.as_ref().map_or(Ok(Protection::Plaintext), sealed)?;
                let plan = NetworkPlan {
                    session: forming.generation,
                    rank: forming.rank,
                    ranks: forming.ranks,
                    tensor_bytes: u32::try_from(all_bytes).map_err(|_| GroupError::Range)?,
                    bind: (ip, 0).into(),
                    chunk_bytes: 65_408,
                    backend: requested(forming.backend),
                    wait: forming.wait.mode(),
                    protection,
                    trust: match forming.namespace {
                        // Whoever names namespaces says that nobody else reaches their links.
                        Some(_) => Trust::Captive,
                        None => Trust::Open,
                    },
                    ids: forming.ids.iter().copied().map(NodeId).collect(),
                    deadline: CALL_LIMIT,
                };
                let mut group = NetworkGroup::open(&plan)?;
                if !forming.links.is_empty() {
                    let rates: Vec<Rates> = forming.links.iter().map(|link| rates(*link)).collect();
                    group.set_rates(&rates)?;
                }
                Group::Network(Box::new(group))
            }
        };
        Ok(Self { group, tensor_bytes: tensors * stride, places, meet, residue })
    }

    fn run(&mut self, run: &Run) -> Result<Part, Cause> {
        let element = run.element.element();
        let call = Call { operation: run.operation.operation(), element, count: run.count };
        let meet = Call { operation: Operation::AllReduce, element: Element::I32, count: 1 };
        let codec = run.codec.codec();
        let narrowing = (codec != Codec::Full).then_some(Narrowing { codec, residue: self.residue });
        let mut part = Part::default();
        // Two that are not counted warm caches and predictors.
        let iterations = run.iterations + WARM;
        for iteration in 0..iterations {
            let turn = run.seed.wrapping_add(iteration.into());
            self.fill(element, run.count, turn)?;
            let last = iteration + 1 == iterations;
            let fuse = run.dies_after_ns.filter(|_| last).map(fuse).transpose()?;
            self.group.call(meet, self.meet, None)?;
            if let Some(fuse) = fuse {
                // The thread listens for as long as this process lives.
                let _lit = fuse.send(Instant::now());
            }
            let began = clock_ns();
            let mut present = Ranks::first(self.group.ranks());
            if run.bare {
                self.group.one_pass(element, run.count)?;
            } else {
                present = self.group.call(call, self.places, narrowing)?;
            }
            let ended = clock_ns();
            if run.dies_after_ns.is_some() && last {
                // If nobody listens, the answer to the run finds that out.
                let _gone = say(&Said::Ends);
            }
            if iteration >= WARM {
                part.spans_ns.push((began, ended));
            }
            // Who is ahead must not take the core from one who is not done, nor write what another still reads.
            let made_of = self.group.made_of(run.count, present);
            if let Group::Network(group) = &self.group {
                part.redone = group.redone_elements();
            }
            self.group.call(meet, self.meet, None)?;
            let checked = iteration == WARM || last;
            if checked && !run.bare {
                let (wrong, digest) = self.check(&call, turn, &made_of, run.codec)?;
                part.wrong += wrong;
                part.digest = digest;
            }
        }
        if let Group::Network(group) = &self.group {
            part.suite = group.suite().map_or_else(String::new, |suite| suite.to_string());
        }
        part.above_bytes = worker::proportional_bytes().saturating_sub(self.tensor_bytes as u64);
        Ok(part)
    }

    /// Writes this rank's tensor.
    fn fill(&self, element: Element, count: u64, turn: u64) -> Result<(), GroupError> {
        let bytes = element.bytes() as usize;
        let total = count as usize * bytes;
        let mut pattern = vec![0; (PATTERN * bytes).min(total)];
        for (at, place) in (0..).zip(pattern.chunks_exact_mut(bytes)) {
            place.copy_from_slice(&encode(element, value(self.group.rank() as u64, at, turn))[..bytes]);
        }
        let mut done = 0;
        while done < total {
            let len = pattern.len().min(total - done);
            self.group.write(done, &pattern[..len])?;
            done += len;
        }
        Ok(())
    }

    /// Elements that are not what they have to be after the call, and a digest of all.
    fn check(
        &self,
        call: &Call,
        turn: u64,
        made_of: &[(Range<u64>, Ranks)],
        codec: NarrowArg,
    ) -> Result<(u64, u64), GroupError> {
        let bytes = call.element.bytes() as usize;
        let (me, ranks) = (self.group.rank(), self.group.ranks());
        let own = plesio_collective::range(call.count, ranks, me);
        let value = |rank: usize, at| value(rank as u64, at, turn);
        let error_max = codec.error_max(ranks as u32);
        let (mut wrong, mut digest) = (0, 0u64);
        let mut found = vec![0; PATTERN * bytes];
        for (range, of) in made_of {
            let sum = |place| of.iter().map(|rank| value(rank, place)).sum();
            let mut at = range.start;
            while at < range.end {
                let len = (PATTERN as u64).min(range.end - at);
                let found = &mut found[..len as usize * bytes];
                self.group.read(self.places.output as usize + at as usize * bytes, found)?;
                for (place, found) in (at..at + len).zip(found.chunks_exact(bytes)) {
                    let wanted = match call.operation {
                        Operation::AllReduce => sum(place),
                        Operation::ReduceScatter if own.contains(&place) => sum(place),
                        // Out of place nothing is written there.
                        Operation::ReduceScatter if self.places.input != self.places.output => continue,
                        Operation::ReduceScatter => value(me, place),
                        Operation::AllGather => value(owner(call.count, ranks, place), place),
                        Operation::Broadcast { root } => value(root.into(), place),
                        _ => value(me, place),
                    };
                    digest = digest.rotate_left(5) ^ bits(found).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    wrong += u64::from(!matches(call.element, wanted, found, error_max));
                }
                at += len;
            }
        }
        Ok((wrong, digest))
    }
}

/// Ends this process at once so long after it is told to, as only SIGKILL does: nothing is given back, no goodbye is said.
fn fuse(after_ns: u64) -> Result<Sender<Instant>, Cause> {
    let (light, lit) = mpsc::channel::<Instant>();
    let burn = move || {
        if let Ok(began) = lit.recv() {
            thread::sleep(Duration::from_nanos(after_ns).saturating_sub(began.elapsed()));
            // Cannot fail for the process itself.
            let _ended = signal::raise(Signal::SIGKILL);
        }
    };
    let thread = thread::Builder::new().name("fuse".into()).spawn(burn);
    thread.map(|_| light).map_err(|cause| format!("cannot start a thread: {cause}").into())
}

/// By what this rank was told.
fn sealed(keys: &Told) -> Result<Protection, Cause> {
    let broken = |failure: Failure| format!("{}: {}", failure.what, failure.cause);
    Ok(Protection::Sealed(Box::new(keys.identity().map_err(broken)?)))
}

/// Where a rank's socket is: in a namespace, which this thread enters, at the first address that others reach; else on the
/// loopback interface.
fn place(namespace: Option<&str>) -> Result<IpAddr, Cause> {
    let Some(name) = namespace else { return Ok(Ipv4Addr::LOCALHOST.into()) };
    let refused = |what: &str, cause: String| format!("namespace {name}: {what}: {cause}");
    let path = Path::new(super::NAMESPACES).join(name);
    let file = std::fs::File::open(&path).map_err(|cause| {
        refused("cannot be opened", format!("{cause}; `ip netns list` names those that are"))
    })?;
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)
        .map_err(|cause| refused("cannot be entered", cause.to_string()))?;
    let addresses =
        nix::ifaddrs::getifaddrs().map_err(|cause| refused("has no addresses", cause.to_string()))?;
    let ip = |place: nix::ifaddrs::InterfaceAddress| {
        let address = place.address?;
        let version_4 = address.as_sockaddr_in().map(|four| four.ip().into());
        version_4.or_else(|| address.as_sockaddr_in6().map(|six| six.ip().into()))
    };
    let reached = |ip: &IpAddr| match ip {
        IpAddr::V4(four) => !four.is_loopback(),
        // One of a link alone needs the interface beside it.
        IpAddr::V6(six) => !six.is_loopback() && !six.is_unicast_link_local(),
    };
    let found = addresses.filter_map(ip).filter(reached).min_by_key(IpAddr::is_ipv6);
    let none = || refused("has no address", "only the loopback interface is configured".into());
    Ok(found.ok_or_else(none)?)
}

/// Of a rank whose link carries so many bytes a second; sums are not what is slow.
pub(super) const fn rates(link_bytes_per_s: u64) -> Rates {
    Rates {
        up_bytes_per_s: link_bytes_per_s,
        down_bytes_per_s: link_bytes_per_s,
        sum_elements_per_s: 1_000_000_000,
    }
}

fn clock_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| now.num_nanoseconds());
    u64::try_from(now).unwrap_or(0)
}

/// Whose range an element lies in.
fn owner(count: u64, ranks: usize, place: u64) -> usize {
    let guess = (u128::from(place) * ranks as u128 / u128::from(count.max(1))) as usize;
    let near = guess.saturating_sub(1)..ranks;
    near.into_iter().find(|rank| plesio_collective::range(count, ranks, *rank).contains(&place)).unwrap_or(0)
}

/// What the ranks meet by before each operation.
const MEET_BYTES: usize = 64;
const WARM: u32 = 2;
/// How long a rank waits in a call for another that lives.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(60);
const FORM_LIMIT: Duration = Duration::from_secs(20);
/// How long a rank listens to its port before it looks for an order.
const BETWEEN: Duration = Duration::from_millis(2);
