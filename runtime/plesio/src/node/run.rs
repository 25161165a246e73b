//! The node's thread: sockets in, machines turned, work done, sockets out, one wait.
//!
//! Decides nothing. What cannot be done at once (a full socket) is dropped; the machines recover it as loss.

mod halt;
mod keep;
mod near;
mod tell;
mod transmit;
mod work;

use super::doors::Doors;
use super::sink::{Peers, Sink};
use super::state::Folder;
use super::{NodeConfig, NodeError, Order, Protection, Seed, engine_entry};
use crate::device::AnyDevice;
use crate::engine::{Engine, EngineConfig, Entrance, Namesake, Out, SlotFate};
use crate::event::{
    Counters, Entering, Final, Lateness, NodeEvent, Progress, StepCounters, TempoReport, Way, What,
};
use crate::mailbox::Mailbox;
use crate::sealing::Sealing;
use crate::store::{Store, StorePlan};
use plesio_collective::ArenaId;
use plesio_consensus::{OwnSlot, Part};
use plesio_memory::{Consumer, Foreign, RingError};
use plesio_proto::Train;
use plesio_session::Suites;
use plesio_sideband::{
    Bound, Event as SidebandEvent, HaltState, LocalClock, MachineConfig, Sideband, SidebandConfig, Status,
};
use plesio_udp::{DatagramIo, Placement, SocketConfig, Waiter, Waker, clock::monotonic_raw_ns};
use plesio_wire::value::{Manifest, View};
use plesio_wire::{Digest, Instant, NodeKey, Version};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::Duration;
use transmit::TRAINS_PER_TURN;

/// What the thread takes over.
pub(super) struct Seat {
    pub(super) config: NodeConfig,
    pub(super) plan: StorePlan,
    pub(super) store: Store<AnyDevice>,
    pub(super) consumer: Consumer,
    pub(super) clock: LocalClock,
    pub(super) bound: Bound,
    pub(super) state: Option<Folder>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) inbox: Receiver<Order>,
    pub(super) events: Sender<NodeEvent>,
}

/// What the thread reports once its socket is open.
pub(super) struct Opened {
    pub(super) backend: String,
    pub(super) reason: String,
    pub(super) notes: Vec<String>,
    pub(super) path: String,
    pub(super) sideband: SocketAddr,
    pub(super) data: SocketAddr,
    pub(super) waker: Waker,
}

/// The thread's body.
pub(super) fn run(seat: Seat, ready: &Sender<Result<Opened, NodeError>>) {
    let (mailbox, events) = (Arc::clone(&seat.mailbox), seat.events.clone());
    let result = open(seat, ready).and_then(|waiting| waiting.map_or(Ok(()), Runner::run));
    if let Err(error) = result {
        // Nobody listens any more only when the program is already ending.
        let _ = events.send(NodeEvent {
            raw_ns: monotonic_raw_ns(),
            mesh_ns: None,
            what: What::Failed(error.to_string()),
        });
    }
    mailbox.stop();
}

/// Opens the data socket, then waits for the order to enter a mesh.
fn open(seat: Seat, ready: &Sender<Result<Opened, NodeError>>) -> Result<Option<Runner>, NodeError> {
    let config = &seat.config;
    let protection = config.protection.of_socket(config.trust);
    let opens_apart = !protection.is_plaintext() && Suites::available().opens_apart();
    let placement = Placement::for_chunk(config.chunk_bytes, opens_apart);
    let socket = SocketConfig { protection, placement, ..SocketConfig::new(config.data) };
    let opened = match plesio_udp::open(config.backend, &socket, seat.store.arena().clone()) {
        Ok(opened) => opened,
        Err(error) => {
            let _ = ready.send(Err(error.into()));
            return Ok(None);
        }
    };
    let (data, sideband) = (opened.io.local_address(), seat.bound.local_address());
    let waker = opened.io.waker();
    let (doors, path) = near::open_doors(&seat, &waker);
    let report = Opened {
        backend: opened.probe.tier.to_string(),
        reason: opened.probe.reason.clone(),
        notes: opened.notes,
        path,
        sideband,
        data,
        waker: waker.clone(),
    };
    if ready.send(Ok(report)).is_err() {
        return Ok(None);
    }
    let (entrance, seeds) = match seat.inbox.recv() {
        Ok(Order::Enter(entrance, seeds)) => (entrance, seeds),
        Ok(Order::Leave | Order::Finish | Order::Stop) | Err(_) => return Ok(None),
    };
    let reached = (config.advertise_sideband.unwrap_or(sideband), config.advertise_data.unwrap_or(data));
    Runner::new(seat, opened.io, (waker, doors), (entrance, &seeds), reached).map(Some)
}

struct Runner {
    engine: Engine,
    store: Store<AnyDevice>,
    consumer: Consumer,
    io: Box<dyn DatagramIo>,
    waiter: Waiter,
    /// The train that is being sent.
    train: Box<Train>,
    sideband: Sideband,
    clock: LocalClock,
    peers: Peers,
    /// None in plaintext mode.
    sealing: Option<Sealing>,
    mailbox: Arc<Mailbox>,
    inbox: Receiver<Order>,
    events: Sender<NodeEvent>,
    scratch: Vec<f32>,
    /// Own slots that are final but not in the state held here yet.
    unpublished: Vec<(u8, SlotFate, Part)>,
    commits: u64,
    steps_committed: u64,
    serial: u64,
    changed: bool,
    started: bool,
    /// Version and digest of the state in the store. A node that is excluded keeps its state, and the agreement of its
    /// next life knows nothing of it.
    held: Version,
    digest: Digest,
    status_due: Instant,
    report_due: Instant,
    status: Status,
    /// As last told to engine and worker.
    halt: HaltState,
    finishing: bool,
    unreachable: u8,
    /// None where peers on this host are reached like any other.
    doors: Option<Doors>,
    /// Arenas of peers on this host.
    mapped: BTreeMap<ArenaId, Foreign>,
    /// Peers whose memory could not be mapped, as far as that was said.
    unmapped: u8,
    /// As last said.
    ways: Vec<Way>,
    entering: Entering,
    /// How many of the engine's namesakes are told.
    namesakes: usize,
    /// Cuts that found the ring full, as last said: merged, put off.
    crowded: (u64, u64),
    /// Control datagrams that a connection refused.
    refused: u64,
    /// None where nothing outlives the node.
    kept: Option<keep::Kept>,
    lateness: Lateness,
    steps: StepCounters,
    /// The open version's manifest, as listed.
    listed: Manifest,
}

impl Runner {
    fn new(
        seat: Seat,
        io: Box<dyn DatagramIo>,
        (waker, doors): (Waker, Option<Doors>),
        (entrance, seeds): (Entrance, &[Seed]),
        (sideband, data): (SocketAddr, SocketAddr),
    ) -> Result<Self, NodeError> {
        let config = seat.config;
        let machine = MachineConfig {
            dead_ns: config.rules.t_dead_ns,
            ..MachineConfig::new(config.mesh, config.id.key(), config.incarnation.0)
        };
        let (notify, written) = (waker.clone(), waker);
        let sealed = matches!(config.protection, Protection::Sealed(_));
        let sideband_config = SidebandConfig { machine, clock: seat.clock, sealed };
        let bound = seat.bound.start(sideband_config, move || notify.wake())?;
        let now = seat.clock.now();
        let mut sealing = match &config.protection {
            Protection::Sealed(identity) => {
                Some(Sealing::new(now, identity, config.incarnation, Some(config.id.key())))
            }
            Protection::Plaintext => None,
        };
        if let Some(sealing) = &mut sealing {
            if let Entrance::Genesis(_, view) = &entrance {
                sealing.handle_view(view.number);
            }
            for seed in seeds {
                bound.address(seed.id.key(), seed.sideband);
                sealing.seek(now, seed.id, seed.data);
            }
        }
        let started = matches!(entrance, Entrance::Genesis(..));
        let first = match &entrance {
            Entrance::Genesis(_, view) => Some(**view),
            Entrance::Join(_) => None,
        };
        let engine_config = EngineConfig {
            entry: engine_entry(&config, sideband, data),
            incarnation: config.incarnation,
            mesh: config.mesh,
            model: config.model,
            scale_exponent: config.scale.exponent(),
            period_ns: config.period_ns,
            regions: seat.plan.regions,
            chunk_bytes: config.chunk_bytes,
            rules: config.rules,
            steering: config.steering,
            operators: config.common().operators,
            sealed,
            receive_buffer_bytes: io.receive_buffer_bytes() as u64,
            arena: doors.as_ref().map(|doors| doors.arena),
            seed: config.incarnation.0,
        };
        let mut engine = Engine::new(engine_config, entrance, now)
            .map_err(|error| NodeError::Config(error.to_string()))?;
        let kept = match (seat.state, &config.state) {
            (Some(folder), Some(state)) => {
                engine.handle_disk(now, folder.disk());
                Some(keep::Kept::new(folder, written, state.checkpoint_ns, now)?)
            }
            _ => None,
        };
        let runner = Self {
            engine,
            held: Version(0),
            digest: seat.store.digest(),
            store: seat.store,
            consumer: seat.consumer,
            io,
            waiter: Waiter::new(config.wait),
            train: Box::default(),
            sideband: bound,
            clock: seat.clock,
            peers: Peers::default(),
            sealing,
            mailbox: seat.mailbox,
            inbox: seat.inbox,
            events: seat.events,
            scratch: vec![0.0; config.elements],
            unpublished: Vec::new(),
            commits: 0,
            steps_committed: 0,
            serial: 0,
            changed: started,
            started,
            status_due: now,
            report_due: now,
            status: Status::default(),
            halt: HaltState::default(),
            finishing: false,
            unreachable: 0,
            doors,
            mapped: BTreeMap::new(),
            unmapped: 0,
            ways: Vec::new(),
            entering: Entering::default(),
            namesakes: 0,
            crowded: (0, 0),
            refused: 0,
            kept,
            lateness: Lateness::default(),
            steps: StepCounters::default(),
            listed: Manifest::default(),
        };
        if let Some(view) = first {
            // Nobody decided it, so the agreement does not tell of it.
            runner.say_view(&view, 0, Vec::new(), Vec::new());
        }
        Ok(runner)
    }

    fn run(mut self) -> Result<(), NodeError> {
        loop {
            self.take_halt();
            if self.take_orders() {
                return Ok(());
            }
            self.take_sideband();
            self.take_mapped();
            self.take_cuts()?;
            // Before anything more is received: work that reads a window may be waiting, and the machines have already
            // opened that window for what comes next.
            self.drain()?;
            let mut more = self.receive()?;
            let now = self.clock.now();
            if self.engine.poll_timeout().is_some_and(|due| due <= now) {
                self.engine.handle_timeout(now);
            }
            self.seal(now);
            more |= self.drain()?;
            let now = self.clock.now();
            self.keep(now);
            self.report(now);
            if self.finishing {
                self.keep_last();
                self.say_final()?;
                return Ok(());
            }
            if !more {
                let now = self.clock.now();
                let handshake = self.sealing.as_ref().and_then(|sealing| sealing.poll_timeout(now));
                let due = [self.engine.poll_timeout(), handshake, Some(self.status_due)];
                let due = due.into_iter().flatten().min();
                let wait_ns = due.map_or(WAIT_NS_MAX, |due| due.since(now).min(WAIT_NS_MAX));
                let io = &mut self.io;
                let look = |limit| io.wait(Some(limit)).map(|ready| (!ready.timed_out).then_some(ready));
                self.waiter
                    .wait(Duration::from_nanos(wait_ns), look)
                    .map_err(|error| NodeError::Io(error.to_string()))?;
            }
        }
    }

    /// True when the node is to end at once.
    fn take_orders(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Order::Leave) => self.engine.handle_leave(self.clock.now()),
                Ok(Order::Finish) => self.finishing = true,
                Ok(Order::Enter(..)) => {}
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return true,
                Err(TryRecvError::Empty) => return false,
            }
        }
    }

    fn take_sideband(&mut self) {
        while let Some(event) = self.sideband.poll_event() {
            let now = self.clock.now();
            match event {
                SidebandEvent::Message { from, from_addr, view, message, .. } => {
                    self.engine.handle_message(now, from, from_addr, view, &message);
                }
                SidebandEvent::Hold { from, version, index, .. } => {
                    self.engine.handle_hold(now, from, version, index);
                }
                SidebandEvent::Liveness { view, suspects, dead, .. } => {
                    self.engine.handle_liveness(now, view, suspects, dead);
                }
                SidebandEvent::States { view, untimed, detached } => {
                    self.engine.handle_states(now, view, untimed, detached);
                }
                SidebandEvent::Confirm { local } => {
                    if let Some(sealing) = &mut self.sealing {
                        sealing.handle_confirmed(now, local);
                    }
                }
                SidebandEvent::Beat { from, beat } => self.engine.handle_beat(from, &beat),
                SidebandEvent::Clock(clock) => {
                    let before = self.engine.aim().clock;
                    self.engine.handle_clock(now, clock);
                    What::clock(&before, &clock).into_iter().flatten().for_each(|what| self.say(what));
                }
                SidebandEvent::Late { late_ns } => self.note_late(late_ns),
                other => self.tell_sensed(&other),
            }
        }
    }

    /// Announces what the worker has cut.
    fn take_cuts(&mut self) -> Result<(), NodeError> {
        if self.halt.halted {
            return Ok(());
        }
        while let Some(info) = self.consumer.poll_cut() {
            let announced = match self.consumer.announce(info.index) {
                Ok(announced) => announced,
                Err(RingError::Merging) => break,
                Err(error) => return Err(error.into()),
            };
            let digest = self.store.encode(announced.info.index, announced.span, announced.info.seq)?;
            self.consumer.record_digest(info.index, digest.0)?;
            let info = announced.info;
            let slot = OwnSlot {
                seq: info.seq,
                base: info.base_version,
                target: info.target_frame,
                n_steps: info.n_steps,
                digest,
            };
            let OwnSlot { seq: slot_seq, base, target, n_steps: steps, .. } = slot;
            self.say(What::Cut { slot: slot_seq, base, target, steps, digest });
            self.engine.handle_cut(self.clock.now(), info.index, slot);
        }
        self.engine.handle_ring(self.clock.now(), self.consumer.counters().fold_total());
        Ok(())
    }

    fn receive(&mut self) -> Result<bool, NodeError> {
        let now = self.clock.now();
        let mut sink = Sink {
            engine: &mut self.engine,
            peers: &self.peers,
            sealing: self.sealing.as_mut(),
            refused: &mut self.refused,
            now,
        };
        let more =
            self.io.receive(&mut sink, TRAINS_PER_TURN).map_err(|error| NodeError::Io(error.to_string()))?;
        self.engine.handle_received(self.clock.now());
        Ok(more)
    }

    /// Moves the sessions: what is due, what is to be sent, and the keys that have changed.
    fn seal(&mut self, now: Instant) {
        if let Some(sealing) = &mut self.sealing {
            sealing.handle_life(self.engine.incarnation());
            sealing.handle_timeout(now);
            let sideband = &self.sideband;
            let mut news = Vec::new();
            sealing.turn(now, self.io.as_mut(), |key, change| {
                news.push(What::keys(key, &change));
                sideband.keys(key, change);
            });
            news.into_iter().for_each(|what| self.say(what));
        }
    }

    /// Does what the engine asks until it asks for nothing more; whether there is more to send all the same.
    fn drain(&mut self) -> Result<bool, NodeError> {
        let mut more;
        loop {
            let mut quiet = true;
            while let Some(work) = self.engine.poll_work() {
                quiet = false;
                self.work(work)?;
            }
            while let Some(event) = self.engine.poll_event() {
                quiet = false;
                self.tell(event);
            }
            while let Some(change) = self.engine.poll_transition() {
                self.say(What::phase(change));
            }
            while let Some(out) = self.engine.poll_out() {
                quiet = false;
                match out {
                    // A full queue counts itself; the machines repeat what matters.
                    Out::Send(to, message) => {
                        self.sideband.send(to, message);
                    }
                    Out::View(view, addresses) => self.sideband.view(view, addresses),
                    Out::Observer(key, life) => self.sideband.observer(key, life),
                    Out::Reentry => self.sideband.reentry(),
                }
            }
            more = self.transmit();
            if quiet {
                break;
            }
        }
        self.publish()?;
        Ok(more)
    }

    fn report(&mut self, now: Instant) {
        if now >= self.status_due {
            self.status_due = now.after(STATUS_NS);
            self.engine.handle_pulse(self.mailbox.pulse());
            let status = self.engine.status(now);
            if status != self.status {
                self.status = status;
                self.sideband.status(status);
            }
        }
        if now >= self.report_due {
            self.report_due = now.after(REPORT_NS);
            self.note_refusals();
            self.note_device();
            self.note_ways();
            self.note_entering();
            self.note_crowding();
            // Read side by side: onlookers compare mesh times of several nodes at equal raw times.
            let (raw_ns, now) = (monotonic_raw_ns(), self.clock.now());
            let progress = self.progress(now);
            self.say_at(raw_ns, What::Progress(progress));
        }
    }

    fn note_entering(&mut self) {
        let news: Vec<Namesake> = self.engine.namesakes().skip(self.namesakes).collect();
        self.namesakes += news.len();
        for Namesake { key, seated, asks } in news {
            self.say(What::Namesake { key, seated, asks });
        }
        let Some(mut entering) = self.engine.entering() else { return };
        entering.session = self.sealing.as_ref().is_some_and(Sealing::is_answered);
        if self.entering != entering {
            self.entering = entering;
            self.say(What::Entering(entering));
        }
    }

    fn progress(&self, now: Instant) -> Progress {
        let (data, sideband) = (self.io.counters(), self.sideband.counters());
        let aim = self.engine.aim();
        let (memory_read_bytes, memory_taken_bytes) = self.engine.near_bytes();
        let (tempo, punctuality) = (self.engine.tempo(), self.engine.punctuality());
        let tempo = TempoReport {
            phase_error_frames: self.engine.phase_error_frames(now) as f32,
            y_ppb: tempo.y_ppb(aim.period_ns()),
            step_ns: tempo.pulse().step_ns,
            steps_per_slot: tempo.pulse().per_slot_q8 as f32 / 256.0,
            stride: aim.stride,
            slots: punctuality.slots,
            late_slots: punctuality.late,
            folded_slots: punctuality.folds,
            corrections: punctuality.corrections,
            paused: self.engine.is_paused(),
        };
        Progress {
            mesh_ns: aim.clock.at(now).0,
            eps_ns: aim.clock.bound_at(now),
            state: self.engine.corrector().state().code(),
            margin_frames: self.engine.margin(),
            lead_ns: aim.lead_ns,
            period_ns: aim.period_ns(),
            version: self.held.0,
            steps_committed: self.steps_committed,
            halt: self.halt,
            disk: self.kept.as_ref().map(keep::Kept::state),
            lateness: self.lateness,
            steps: self.step_counters(),
            tempo,
            counters: Counters {
                data_sent_bytes: data.payload_bytes_sent,
                data_received_bytes: data.payload_bytes_received,
                copied_sent_bytes: data.copied_bytes_sent,
                copied_received_bytes: data.copied_bytes_received,
                retransmitted_bytes: self.engine.retransmitted_bytes(),
                data_dropped: data.dropped() + self.refused,
                handshakes_refused: self.sealing.as_ref().map_or(0, Sealing::refused),
                sideband_sent_bytes: sideband.bytes_sent,
                sideband_pace: sideband.pace,
                relays: sideband.relays,
                sideband_dropped: sideband.drops.total(),
                falsetickers: sideband.clock.false_tickers,
                clock_steps: sideband.clock_steps,
                memory_read_bytes,
                memory_taken_bytes,
                notices_refused: self.engine.near().refused(),
            },
        }
    }

    fn say_final(&mut self) -> Result<(), NodeError> {
        let mut state = std::mem::take(&mut self.scratch);
        self.store.state(&mut state)?;
        let version = self.held;
        let progress = self.progress(self.clock.now());
        self.say(What::Final(Box::new(Final { version, digest: self.digest, state, progress })));
        Ok(())
    }

    fn say_view(&self, view: &View, index: u64, added: Vec<NodeKey>, removed: Vec<NodeKey>) {
        self.say(What::view(view, index, (added, removed), self.engine.is_seated(view)));
    }

    fn say(&self, what: What) {
        self.say_at(monotonic_raw_ns(), what);
    }

    fn say_at(&self, raw_ns: i64, what: What) {
        let mesh = self.engine.aim().clock;
        let mesh_ns = mesh.usable.then(|| mesh.at(self.clock.now()).0);
        // A program that no longer listens is one that is ending.
        let _ = self.events.send(NodeEvent { raw_ns, mesh_ns, what });
    }
}

const WAIT_NS_MAX: u64 = 100_000_000;
const STATUS_NS: u64 = 50_000_000;
const REPORT_NS: u64 = 250_000_000;
