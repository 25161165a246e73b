//! The thread: gives the machine its socket and its clock, seals what it sends and opens what it hears, and carries
//! messages to and from the node.
//!
//! Kernel stamps are on `CLOCK_REALTIME`; they become local time through a bracketed reading of both clocks at
//! every turn. When that map moves by more than slewing explains, the waiting exchanges are discarded.

use crate::guard::{Guard, Kept};
use crate::keeper::Keeper;
use crate::machine::datagram_bytes;
use crate::realtime::RealtimeMap;
use crate::{
    Carried, Event, HaltState, KeyChange, LocalClock, Machine, MachineConfig, Record, SidebandCounters,
    Status, To,
};
use plesio_membership::{Halt, Operators};
use plesio_session::{Secret, verify_signature};
use plesio_udp::{OpenError, Report, SendError, StampKind, TimestampedSocket, Waker};
use plesio_wire::data::TAG_BYTES;
use plesio_wire::sideband::{DATAGRAM_BYTES_MAX, Message};
use plesio_wire::value::View;
use plesio_wire::{Incarnation, Instant, NodeId, NodeKey};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a sideband needs to know.
#[derive(Clone, Copy, Debug)]
pub struct SidebandConfig {
    /// Which mesh and node.
    pub machine: MachineConfig,
    /// The node's clock; the same one in all its threads.
    pub clock: LocalClock,
    /// Whether every datagram is sealed, and what is not is dropped.
    pub sealed: bool,
}

/// Whose orders a node follows.
#[derive(Debug)]
pub struct Obedience {
    /// The node, as its acknowledgements name it.
    pub id: NodeId,
    /// Who orders.
    pub operators: Operators,
    /// Where the order in force is kept.
    pub record: Record,
    /// 32 bytes of the system's randomness.
    pub seed: Secret<32>,
}

/// The sideband cannot be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The port cannot be opened.
    Open(OpenError),
    /// The system refuses another thread.
    Thread(std::io::Error),
}

impl core::fmt::Display for StartError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Open(error) => write!(f, "sideband socket: {error}"),
            Self::Thread(error) => {
                write!(f, "sideband thread cannot start: {error}; raise the limit of threads (ulimit -u)")
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(error) => Some(error),
            Self::Thread(error) => Some(error),
        }
    }
}

/// An open port whose thread has not started: its address can be told to others first.
pub struct Bound {
    socket: TimestampedSocket,
    notes: Vec<String>,
    obedience: Option<Obedience>,
}

impl Bound {
    /// Opens the port; 0 lets the kernel choose.
    ///
    /// # Errors
    /// [`StartError::Open`].
    pub fn bind(address: SocketAddr) -> Result<Self, StartError> {
        let (socket, notes) = TimestampedSocket::bind(address).map_err(StartError::Open)?;
        Ok(Self { socket, notes, obedience: None })
    }

    /// Our address.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.socket.local_address()
    }

    /// What is to be said once about this port.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whose stamps the datagrams get.
    #[must_use]
    pub fn stamps(&self) -> StampKind {
        self.socket.stamps()
    }

    /// Does without the kernel's stamps: to measure what they are worth.
    pub fn forgo_stamps(&mut self) {
        self.socket.forgo_stamps();
    }

    /// There are operators: their orders are followed, and the one in force at the last end is in force again.
    pub fn obey(&mut self, obedience: Obedience) {
        self.obedience = Some(obedience);
    }

    /// Starts the thread. `notify` is called from it whenever there are new events.
    ///
    /// # Errors
    /// [`StartError::Thread`].
    pub fn start(
        self,
        config: SidebandConfig,
        notify: impl Fn() + Send + 'static,
    ) -> Result<Sideband, StartError> {
        let (commands, commands_in) = sync_channel(COMMANDS_MAX);
        let (events_out, events) = sync_channel(EVENTS_MAX);
        let waker = self.socket.waker();
        let now = config.clock.now();
        let tag_bytes = if config.sealed { TAG_BYTES as u64 } else { 0 };
        let mut machine = Machine::new(now, MachineConfig { tag_bytes, ..config.machine });
        let mut keeper = None;
        if let Some(Obedience { id, operators, record, seed }) = self.obedience {
            let halt = Halt::new(id, config.machine.mesh, operators, verify_signature, record.stored());
            machine.handle_operators(now, halt, seed);
            let (commands, waker) = (commands.clone(), waker.clone());
            let kept = move |sequence, is_stored| {
                // A thread that has ended needs to know nothing.
                let _ended = commands.send(Command::Stored(sequence, is_stored));
                waker.wake();
            };
            keeper = Some(Keeper::start(record, kept).map_err(StartError::Thread)?);
        }
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            halt: Mutex::new(machine.halt_state()),
            commands_lost: AtomicU64::new(0),
            counters: Mutex::new(Published {
                counters: SidebandCounters::of(&machine, self.socket.stamps()),
                failure: None,
            }),
        });
        let mut turn = Turn {
            halt: machine.halt_state(),
            machine,
            keeper,
            socket: self.socket,
            clock: config.clock,
            commands: commands_in,
            events: events_out,
            shared: Arc::clone(&shared),
            map: RealtimeMap::default(),
            sent: [None; SENT_MAX],
            handed: false,
            guard: config.sealed.then(|| Guard::new(config.clock.now())),
            events_lost: 0,
            sends_refused: 0,
            sends_unsealed: 0,
            tag_bytes: 0,
            unsent_bytes: 0,
            published_at: Instant(0),
        };
        let run = move || {
            let _refused = plesio_udp::shorten_slice(); // Then it waits its turn.
            if let Err(failure) = turn.run(&notify) {
                turn.publish(Some(failure));
                notify();
            }
        };
        let thread =
            std::thread::Builder::new().name("sideband".into()).spawn(run).map_err(StartError::Thread)?;
        Ok(Sideband { commands, events, shared, waker, thread: Some(thread) })
    }
}

/// A running sideband, as the node holds it. Dropping it ends the thread.
pub struct Sideband {
    commands: SyncSender<Command>,
    events: Receiver<Event>,
    shared: Arc<Shared>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Sideband {
    /// Sends a message. False: too many wait; it is lost and counted, as the network might have lost it.
    pub fn send(&self, to: To, message: Message) -> bool {
        self.command(Command::Send(to, message))
    }

    /// What the next beats say.
    pub fn status(&self, status: Status) {
        self.command(Command::Status(status));
    }

    /// Another view is in force.
    pub fn view(&self, view: View, addresses: Vec<(NodeKey, SocketAddr)>) {
        self.deliver(Command::View(Box::new(view), addresses));
    }

    /// Registers this life of an observer and where it is, or forgets it.
    pub fn observer(&self, key: NodeKey, life: Option<(Incarnation, SocketAddr)>) {
        self.deliver(Command::Observer(key, life));
    }

    /// Where a node is that no view names yet: what is for there is sealed for it.
    pub fn address(&self, key: NodeKey, address: SocketAddr) {
        self.deliver(Command::Address(key, address));
    }

    /// Keys of a session with a node, or their end.
    pub fn keys(&self, key: NodeKey, change: KeyChange) {
        self.deliver(Command::Keys(key, change));
    }

    /// One step of the mesh clock is allowed.
    pub fn reentry(&self) {
        self.command(Command::Reentry);
    }

    /// What happened, oldest first; never waits.
    pub fn poll_event(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// What was counted, at most 100 ms ago.
    #[must_use]
    pub fn counters(&self) -> SidebandCounters {
        let mut counters = self.shared.published().counters;
        counters.drops.queue_full += self.shared.commands_lost.load(Ordering::Relaxed);
        counters
    }

    /// What the operators ordered, as soon as it is in force.
    #[must_use]
    pub fn halt_state(&self) -> HaltState {
        *self.shared.halt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the thread has ended, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.shared.published().failure.clone()
    }

    /// What would be lost for ever, as views, observers and keys, waits; the thread always drains.
    fn deliver(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }

    fn command(&self, command: Command) -> bool {
        match self.commands.try_send(command) {
            Ok(()) => {
                self.waker.wake();
                true
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.commands_lost.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }
}

impl Drop for Sideband {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported there.
            let _ended = thread.join();
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "the channel holds them in place")]
enum Command {
    View(Box<View>, Vec<(NodeKey, SocketAddr)>),
    Observer(NodeKey, Option<(Incarnation, SocketAddr)>),
    Status(Status),
    Send(To, Message),
    Address(NodeKey, SocketAddr),
    Keys(NodeKey, KeyChange),
    Reentry,
    /// The keeper's answer.
    Stored(u64, bool),
}

struct Published {
    counters: SidebandCounters,
    failure: Option<String>,
}

struct Shared {
    stop: AtomicBool,
    commands_lost: AtomicU64,
    halt: Mutex<HaltState>,
    counters: Mutex<Published>,
}

impl Shared {
    fn published(&self) -> std::sync::MutexGuard<'_, Published> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's own things.
struct Turn {
    machine: Machine,
    /// As last told to the node.
    halt: HaltState,
    socket: TimestampedSocket,
    clock: LocalClock,
    commands: Receiver<Command>,
    events: SyncSender<Event>,
    shared: Arc<Shared>,
    map: RealtimeMap,
    /// The machine's number of the socket's last datagrams.
    sent: [Option<(u32, u32)>; SENT_MAX],
    /// Whether there are events that the node was not told of yet.
    handed: bool,
    /// None in plaintext mode.
    guard: Option<Guard>,
    events_lost: u64,
    sends_refused: u64,
    sends_unsealed: u64,
    /// What sealing added to the machine's count of bytes, and what of it was never sent.
    tag_bytes: u64,
    unsent_bytes: u64,
    published_at: Instant,
    /// Writes orders down; none without operators. Goes last: its answer may still wait for room among the commands.
    keeper: Option<Keeper>,
}

impl Turn {
    fn run(&mut self, notify: &impl Fn()) -> Result<(), String> {
        while !self.shared.stop.load(Ordering::Acquire) {
            self.take_commands();
            let now = self.clock.now();
            if now >= self.machine.poll_timeout() {
                self.machine.handle_timeout(now);
            }
            self.keep_orders();
            self.transmit();
            if self.hand_up() {
                notify();
            }
            self.take_reports();
            let now = self.clock.now();
            if now.since(self.published_at) >= PUBLISH_NS {
                self.published_at = now;
                self.publish(None);
            }
            let wait_ns = self.machine.poll_timeout().since(self.clock.now()).min(WAIT_NS_MAX);
            let ready =
                self.socket.wait(Some(Duration::from_nanos(wait_ns))).map_err(|error| error.to_string())?;
            if ready.readable {
                self.receive()?;
            }
        }
        Ok(())
    }

    fn take_commands(&mut self) {
        for _ in 0..COMMANDS_MAX {
            let Ok(command) = self.commands.try_recv() else { return };
            let now = self.clock.now();
            match command {
                Command::View(view, addresses) => {
                    addresses.iter().for_each(|(key, address)| self.learn(*key, *address));
                    self.machine.handle_view(now, &view, &addresses);
                }
                Command::Observer(key, life) => {
                    life.iter().for_each(|(_, address)| self.learn(key, *address));
                    self.machine.handle_observer(now, key, life);
                }
                Command::Status(status) => self.machine.handle_status(now, status),
                Command::Send(to, message) => {
                    // What still is refused after a drain is counted there.
                    if self.machine.handle_send(now, to, message) == Err(crate::SendError::QueueFull) {
                        self.transmit();
                        let _counted = self.machine.handle_send(now, to, message);
                    }
                }
                Command::Address(key, address) => self.learn(key, address),
                Command::Keys(key, change) => {
                    if let Some(guard) = &mut self.guard {
                        guard.handle_keys(key, change);
                    }
                }
                Command::Reentry => self.machine.handle_reentry(now),
                Command::Stored(sequence, is_stored) => self.machine.handle_stored(now, sequence, is_stored),
            }
        }
    }

    /// Gives orders to the disk, and tells the node what is in force: this is never lost in a queue.
    fn keep_orders(&mut self) {
        while let Some(given) = self.machine.poll_store() {
            if let Some(keeper) = &self.keeper {
                keeper.store(given);
            }
        }
        let halt = self.machine.halt_state();
        if self.halt != halt {
            // A flood that only counts wakes nobody.
            let news = |state: &HaltState| (state.halted, state.sequence, state.stored);
            self.handed |= news(&self.halt) != news(&halt);
            self.halt = halt;
            *self.shared.halt.lock().unwrap_or_else(PoisonError::into_inner) = halt;
        }
    }

    fn learn(&mut self, key: NodeKey, address: SocketAddr) {
        if let Some(guard) = &mut self.guard {
            guard.handle_address(key, address);
        }
    }

    fn receive(&mut self) -> Result<(), String> {
        let (mut buffer, mut plain) = ([0; DATAGRAM_BYTES_MAX + 1], [0; DATAGRAM_BYTES_MAX]);
        for _ in 0..BATCH_MAX {
            let received = self.socket.recv_from(&mut buffer).map_err(|error| error.to_string())?;
            let Some(received) = received else { break };
            // The latest it can have come, and never after now: the clock's proofs stay proofs.
            let stamp = received.stamp_realtime_ns.and_then(|stamp_ns| self.local_stamp(stamp_ns));
            let now = self.clock.now();
            let stamp = stamp.map(|(_, latest)| latest.min(now));
            let (from, datagram) = (received.from, &buffer[..received.len]);
            match self.guard.as_mut().map(|guard| guard.open(now, from, datagram, &mut plain)) {
                None => self.machine.handle_datagram(now, from, datagram, stamp),
                Some(Ok(opened)) => {
                    if let Some(local) = opened.confirms {
                        self.hand(Event::Confirm { local });
                    }
                    let plain = &plain[..opened.len_bytes];
                    self.machine.handle_opened(now, from, opened.by, plain, stamp);
                }
                Some(Err(Kept::Plaintext)) => self.machine.handle_unsealed(now, from, datagram),
                Some(Err(kept)) => self.machine.handle_kept(kept),
            }
            self.open_carried(&mut plain);
            self.keep_orders();
            self.transmit();
        }
        Ok(())
    }

    /// What others brought: their bytes stand for whoever sealed them, wherever they came from.
    fn open_carried(&mut self, plain: &mut [u8; DATAGRAM_BYTES_MAX]) {
        while let Some(Carried { by, datagram }) = self.machine.poll_carried() {
            let now = self.clock.now();
            match self.guard.as_mut().map(|guard| guard.open_of(by, &datagram, plain)) {
                None => self.machine.handle_carried(now, by, &datagram, false),
                Some(Ok(opened)) => {
                    if let Some(local) = opened.confirms {
                        self.hand(Event::Confirm { local });
                    }
                    self.machine.handle_carried(now, by, &plain[..opened.len_bytes], true);
                }
                Some(Err(kept)) => self.machine.handle_kept(kept),
            }
        }
    }

    fn transmit(&mut self) {
        let (mut sealed, mut carried) = ([0; DATAGRAM_BYTES_MAX], [0; DATAGRAM_BYTES_MAX]);
        while let Some(mut transmit) = self.machine.poll_transmit(self.clock.now()) {
            if let Some(through) = transmit.through {
                let (to, plain) = (transmit.to, transmit.bytes);
                let len_bytes = match &mut self.guard {
                    None => {
                        carried[..plain.len()].copy_from_slice(plain);
                        plain.len()
                    }
                    Some(guard) => match guard.seal(through.receiver, plain, &mut carried) {
                        Ok(len_bytes) => len_bytes,
                        Err(_) => continue, // as lost on the way
                    },
                };
                transmit = self.machine.enclose(to, through, &carried[..len_bytes]);
            }
            let id = transmit.id;
            let bytes = match &mut self.guard {
                None => transmit.bytes,
                Some(guard) => match guard.seal(transmit.to, transmit.bytes, &mut sealed) {
                    Ok(len_bytes) => {
                        self.tag_bytes += TAG_BYTES as u64;
                        &sealed[..len_bytes]
                    }
                    Err(_) if transmit.alone => transmit.bytes,
                    // As lost on the way: there is a session soon, or nobody is there.
                    Err(_) => {
                        self.sends_unsealed += 1;
                        self.unsent_bytes += datagram_bytes(&transmit);
                        continue;
                    }
                },
            };
            match self.socket.send_to(bytes, transmit.to) {
                Ok(number) => {
                    if let Some(id) = id {
                        self.sent[number as usize % SENT_MAX] = Some((number, id));
                    }
                }
                // Lost, as on the way: everything here is repeated or obsolete soon. A dead peer's port is closed.
                Err(SendError::Unreachable) => {}
                Err(_) => self.sends_refused += 1,
            }
        }
    }

    fn take_reports(&mut self) {
        while let Some(report) = self.socket.poll_report() {
            match report {
                Report::Left { id: number, stamp_realtime_ns } => {
                    let slot = &mut self.sent[number as usize % SENT_MAX];
                    let sent = slot.take_if(|(sent, _)| *sent == number);
                    if let Some((_, id)) = sent
                        && let Some((earliest, _)) = self.local_stamp(stamp_realtime_ns)
                    {
                        self.machine.handle_tx_stamp(self.clock.now(), id, earliest);
                    }
                }
                Report::Refused { to } => self.machine.handle_refusal(self.clock.now(), to),
                _ => {}
            }
        }
    }

    /// The earliest and the latest local time that a kernel stamp can mean.
    fn local_stamp(&mut self, stamp_ns: i64) -> Option<(Instant, Instant)> {
        if self.map.refresh(plesio_udp::clock::bracket()) {
            self.machine.handle_clock_step(self.clock.now());
            return None;
        }
        let (raw_ns, doubt_ns) = self.map.raw_ns(stamp_ns)?;
        Some((self.clock.at_raw(raw_ns - doubt_ns), self.clock.at_raw(raw_ns + doubt_ns)))
    }

    /// Hands events to the node; false when there was none.
    fn hand_up(&mut self) -> bool {
        while let Some(event) = self.machine.poll_event() {
            self.hand(event);
        }
        std::mem::take(&mut self.handed)
    }

    fn hand(&mut self, event: Event) {
        self.handed = true;
        if self.events.try_send(event).is_err() {
            self.events_lost += 1;
        }
    }

    fn publish(&mut self, failure: Option<String>) {
        let mut drops = *self.machine.drops();
        drops.queue_full += self.events_lost;
        let counters = SidebandCounters {
            drops,
            bytes_sent: self.machine.bytes_sent() + self.tag_bytes - self.unsent_bytes,
            sends_refused: self.sends_refused,
            sends_unsealed: self.sends_unsealed,
            clock_steps: self.map.steps(),
            ..SidebandCounters::of(&self.machine, self.socket.stamps())
        };
        *self.shared.published() = Published { counters, failure };
    }
}

const COMMANDS_MAX: usize = 512;
const EVENTS_MAX: usize = 2_048;
const SENT_MAX: usize = 256;
const BATCH_MAX: usize = 64;
const WAIT_NS_MAX: u64 = 1_000_000_000;
const PUBLISH_NS: u64 = 100_000_000;
