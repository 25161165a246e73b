//! One process of a simulated node: the real engine, the real sideband machine, the real store and ring, driven as
//! the node's threads drive them, on a clock that it is told.

mod disk;
mod hear;
mod liar;
mod orders;
mod sockets;
mod work;

pub(crate) use disk::SimDisk;
pub(crate) use liar::{Lie, Lies};

use crate::books::Books;
use crate::checker::Checker;
use crate::learning::{Learner, Learning};
use crate::net::{Net, Packet, Plane};
use crate::phase::Phases;
use crate::queue::{Due, Queue};
use crate::random::Random;
use crate::report::Timing;
use crate::study::Survey;
use crate::trace::Trace;
use crate::watch::Watch;
use crate::worker::Worker;
use plesio::engine::{Engine, EngineConfig, Entrance, Out, SlotFate};
use plesio::store::{Store, StorePlan};
use plesio_collective::Regions;
use plesio_kernels::{Reference, Scale};
use plesio_membership::{Given, Operators};
use plesio_memory::{Arena, Consumer, ring};
use plesio_phase::{CorrectorConfig, MeshClock};
use plesio_proto::Train;
use plesio_sideband::{Carried, Drops, Machine, MachineConfig, RelayCounters};
use plesio_wire::data::TAG_BYTES;
use plesio_wire::sideband::{Beat, Message, Speeds};
use plesio_wire::{Incarnation, Instant, NodeKey, SlotSeq, Speed, Took, Version};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// What a process can touch while it runs.
pub(crate) struct Scene<'a> {
    pub(crate) now_ns: u64,
    pub(crate) local: Instant,
    pub(crate) host: u8,
    pub(crate) queue: &'a mut Queue,
    pub(crate) net: &'a mut Net,
    pub(crate) checker: &'a mut Checker,
    pub(crate) trace: &'a mut Trace,
    pub(crate) phases: &'a mut Phases,
    pub(crate) watch: &'a mut Watch,
    /// Datagrams that the data socket keeps, and sends at once, when the host is short of buffers.
    pub(crate) buffers: Option<u32>,
    pub(crate) lies: Lies,
    /// The order of the operators that the host's disk holds.
    pub(crate) order: &'a mut Option<Given>,
    /// It must send no data.
    pub(crate) hushed: bool,
    /// What the run is measured by, if it is.
    pub(crate) survey: Option<&'a mut Survey>,
}

/// How a process is made.
#[derive(Clone, Debug)]
pub(crate) struct Birth {
    pub(crate) engine: EngineConfig,
    pub(crate) entrance: Entrance,
    /// Number of the process in the whole run.
    pub(crate) process: u32,
    pub(crate) scale_exponent: i8,
    /// The kernel stamps datagrams.
    pub(crate) stamps: bool,
    /// Longest time until the node's thread runs, nanoseconds.
    pub(crate) nap_ns: u64,
    /// It says of its speeds whatever comes to its mind.
    pub(crate) claims: bool,
    /// Whose orders it follows, and what its disk holds of them.
    pub(crate) operators: (Operators, Option<Given>),
    /// What its host's disk holds; none: there is no disk.
    pub(crate) disk: Option<SimDisk>,
    /// What its mesh clock is off, unknown to it.
    pub(crate) clock_error_ns: i64,
    /// Its corrector has its two thresholds.
    pub(crate) hysteresis: bool,
    /// What its worker learns, if it does.
    pub(crate) learns: Option<(Arc<Learning>, Learner)>,
}

/// See the module.
pub(crate) struct Process {
    pub(crate) engine: Engine,
    machine: Machine,
    store: Store<Reference>,
    consumer: Consumer,
    pub(crate) worker: Worker,
    pub(crate) disk: Option<SimDisk>,
    number: u32,
    born: Instant,
    /// Slots between two moves of the corrector.
    dwell: u64,
    key: NodeKey,
    stamps: bool,
    /// Who is reached at a host's data port.
    peers: BTreeMap<u8, NodeKey>,
    announced: BTreeMap<SlotSeq, Incarnation>,
    /// Own slots that are final but not in the state held here yet.
    unpublished: Vec<(u8, SlotFate)>,
    /// A state is there to work from, and which version it is.
    pub(crate) started: bool,
    pub(crate) applied: Version,
    pub(crate) left: bool,
    status_due: Instant,
    buffer: Vec<u8>,
    /// The train that is being sent.
    train: Option<Box<Train>>,
    /// Longest time until the node's thread runs when there is something to do; 0: it always runs at once.
    nap_ns: u64,
    random: Random,
    /// What the beats claim instead of what was measured, and until when.
    pub(crate) claims: Option<(Speeds, Instant)>,
    regions: Regions,
    /// A turn of the node's thread is arranged.
    turns: bool,
    /// The worker has cut since the last turn.
    looks: bool,
    /// What the data socket keeps until the next turn.
    data: Vec<Packet>,
    /// Datagrams of payload sent in this turn.
    sent: u32,
    /// Own slots announced so far, each of which the corrector may act on once.
    cut: u64,
    /// Steps that the worker did not take because this node was not with the mesh.
    rests: u64,
    /// The newest line of the mesh clock; its steps so far, and how many of them have not been seen in a line.
    clock: MeshClock,
    steps: (u64, u64),
    /// An order on its way to the disk.
    storing: Option<Given>,
    /// When it had been there for a while, and what its sideband had sent by then.
    warm: Option<(u64, u64)>,
    /// When HALT came into force last.
    pub(crate) halted_ns: Option<u64>,
    /// What the node takes mesh time to be ahead of what the sideband found.
    clock_error_ns: i64,
    /// Planted bugs: a bent sum, a slot listed twice, datagrams received while work waits.
    #[cfg(test)]
    pub(crate) bends: bool,
    /// Versions whose sum it still gets wrong, as the checker is told.
    #[cfg(test)]
    pub(crate) errs: u32,
    #[cfg(test)]
    pub(crate) repeats: bool,
    #[cfg(test)]
    pub(crate) hurries: bool,
    /// It works on after HALT.
    #[cfg(test)]
    pub(crate) ignores: bool,
    /// It serves states that nobody agreed on, with digests that fit them (T18).
    #[cfg(test)]
    pub(crate) fakes: bool,
}

impl Process {
    pub(crate) fn new(birth: Birth, plan: &StorePlan, now: Instant) -> Result<Self, String> {
        let say = |error: &dyn std::fmt::Display| format!("process cannot start: {error}");
        let (key, seed) = (birth.engine.entry.id.key(), birth.engine.seed);
        let regions = birth.engine.regions;
        let arena = Arena::heap(&plan.arena).map_err(|error| say(&error))?;
        let (producer, consumer) = ring(&arena, &plan.ring, SlotSeq(1)).map_err(|error| say(&error))?;
        let scale = Scale::new(birth.scale_exponent).map_err(|error| say(&error))?;
        let store = Store::new(arena, plan, Reference, scale, key).map_err(|error| say(&error))?;
        let books =
            Books::new(birth.engine.incarnation.0, regions.elements as usize, usize::from(regions.depth));
        let (dead_ns, tau) = (birth.engine.rules.t_dead_ns, birth.engine.rules.tau);
        let config = MachineConfig {
            dead_ns,
            tag_bytes: TAG_BYTES as u64,
            ..MachineConfig::new(birth.engine.mesh, key, seed)
        };
        let started = matches!(birth.entrance, Entrance::Genesis(..));
        let (mesh, id) = (birth.engine.mesh, birth.engine.entry.id);
        let mut engine = Engine::new(birth.engine, birth.entrance, now).map_err(|error| say(&error))?;
        let mut machine = Machine::new(now, config);
        orders::follow(now, (&mut machine, &mut engine), (mesh, id), birth.operators);
        if let Some(disk) = &birth.disk {
            engine.handle_disk(now, disk.told());
        }
        if !birth.hysteresis {
            engine.ablate_hysteresis(now);
        }
        Ok(Self {
            engine,
            disk: birth.disk,
            born: now,
            dwell: if birth.hysteresis { u64::from(CorrectorConfig::default().dwell) } else { 1 },
            machine,
            store,
            consumer,
            worker: Worker::new(producer, books, tau, birth.learns),
            number: birth.process,
            key,
            stamps: birth.stamps,
            peers: BTreeMap::new(),
            announced: BTreeMap::new(),
            unpublished: Vec::new(),
            started,
            applied: Version(0),
            left: false,
            status_due: now,
            buffer: Vec::new(),
            train: Some(Box::default()),
            nap_ns: birth.nap_ns,
            random: Random::new(seed, "naps"),
            claims: birth.claims.then(|| (Speeds::default(), now)),
            regions,
            turns: false,
            looks: false,
            data: Vec::new(),
            sent: 0,
            cut: 0,
            rests: 0,
            clock: MeshClock::default(),
            steps: (0, 0),
            storing: None,
            warm: None,
            halted_ns: None,
            clock_error_ns: birth.clock_error_ns,
            #[cfg(test)]
            bends: false,
            #[cfg(test)]
            errs: 0,
            #[cfg(test)]
            repeats: false,
            #[cfg(test)]
            hurries: false,
            #[cfg(test)]
            ignores: false,
            #[cfg(test)]
            fakes: false,
        })
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// How well it has kept in time until `now`.
    pub(crate) fn timing(&self, now: Instant, period_ns: u64) -> Timing {
        let kept = self.engine.punctuality();
        let lock_ns = kept.locked.map(|locked| locked.since(self.born));
        Timing {
            nodes: 1,
            node_ns: now.since(self.born),
            slots: kept.slots,
            late: kept.late,
            folds: kept.folds,
            corrections: kept.corrections,
            rests: self.rests,
            never_locked: u64::from(lock_ns.is_none()),
            lock_ns_max: lock_ns.unwrap_or(0),
            lock_frames_max: lock_ns.unwrap_or(0).div_ceil(period_ns.max(1)),
        }
    }

    /// What its mesh clock shows, nanoseconds, and the bound of its error; none as long as it is not to be used.
    pub(crate) fn mesh_time(&self, local: Instant) -> Option<(i64, u32)> {
        let clock = &self.clock;
        clock.usable.then(|| (clock.at(local).0, clock.bound_at(local)))
    }

    /// Steps made, those of them that are in no version, and steps that were not taken.
    pub(crate) fn steps(&self) -> (u64, u64, u64) {
        let (made, waiting) = self.worker.books.steps();
        (made, waiting, self.rests)
    }

    /// What the sideband took no notice of.
    pub(crate) fn drops(&self) -> Drops {
        *self.machine.drops()
    }

    /// What went through third members.
    pub(crate) fn relays(&self) -> RelayCounters {
        self.machine.relay_counters()
    }

    /// Bytes a second that its sideband has sent since it was warm, as if sealed, and the longest time between its beats.
    pub(crate) fn sideband_rate(&self, now_ns: u64) -> Option<(u64, u64)> {
        let (then_ns, before) = self.warm?;
        let took_ns = now_ns.checked_sub(then_ns).filter(|took_ns| *took_ns > 0)?;
        let sent = u128::from(self.sideband_bytes() - before) * 1_000_000_000 / u128::from(took_ns);
        Some((sent as u64, self.machine.pace().beat_ns))
    }

    /// Headers and tags included.
    fn sideband_bytes(&self) -> u64 {
        self.machine.bytes_sent() + self.machine.datagrams_sent() * TAG_BYTES as u64
    }

    /// When this process wants to be called, on its own clock.
    pub(crate) fn poll_timeout(&self) -> Instant {
        let machine = self.machine.poll_timeout();
        // A node thread that is about to turn looks at its own timers then.
        let engine = if self.turns { None } else { self.engine.poll_timeout() };
        engine.map_or(machine, |engine| engine.min(machine)).min(self.status_due)
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, scene: &mut Scene<'_>) {
        let now = scene.local;
        if self.machine.poll_timeout() <= now {
            self.machine.handle_timeout(now);
        }
        if self.warm.is_none() && scene.now_ns >= WARM_NS {
            self.warm = Some((scene.now_ns, self.sideband_bytes()));
        }
        if self.status_due <= now {
            self.status_due = now.after(STATUS_NS);
            self.engine.handle_pulse(self.worker.pulse());
            self.engine.handle_ring(now, self.consumer.counters().fold_total());
            let mut status = self.engine.status(now);
            if let Some(claimed) = self.claim(now) {
                // From a millisecond to half a minute: periods change as well.
                let transfer = Took(80 + claimed.up.0);
                (status.speeds, status.transfer) = (claimed, transfer);
                self.engine.handle_beat(self.key, &Beat { speeds: claimed, transfer, ..Beat::default() });
            }
            self.machine.handle_status(now, status);
        }
        self.transmit_sideband(scene);
        self.wake(scene);
    }

    /// What the beats say of this node's speeds, if not what was measured.
    fn claim(&mut self, now: Instant) -> Option<Speeds> {
        let (speeds, until) = self.claims.as_mut()?;
        if *until <= now {
            let mut draw = || Speed(self.random.below(120) as u8);
            *speeds = Speeds { up: draw(), down: draw(), sum: draw() };
            *until = now.after(self.random.between(1_000_000_000, 6_000_000_000));
        }
        Some(*speeds)
    }

    /// A datagram; `stamp` is when the kernel saw it. The sideband's thread takes its own at once, the node's thread
    /// when it turns.
    pub(crate) fn handle_packet(&mut self, scene: &mut Scene<'_>, packet: Packet, stamp: Instant) {
        match packet.plane {
            Plane::Sideband => {
                if packet.damaged && plesio_wire::sideband::decode(&packet.bytes).is_ok() {
                    scene.checker.fail(format!("P4: n{} takes a damaged sideband datagram", scene.host));
                }
                let from = sideband_address(packet.from);
                let stamp = self.stamps.then_some(stamp);
                if !scene.lies.keeps(&packet.bytes) {
                    self.machine.handle_datagram(scene.local, from, &packet.bytes, stamp);
                }
                while let Some(Carried { by, datagram }) = self.machine.poll_carried() {
                    self.machine.handle_carried(scene.local, by, &datagram, false);
                }
                scene.net.reuse(packet.bytes);
                self.transmit_sideband(scene);
            }
            Plane::Refusal => {
                // A damaged one fails its checksum.
                if !packet.damaged {
                    self.machine.handle_refusal(scene.local, sideband_address(packet.from));
                    self.transmit_sideband(scene);
                }
                scene.net.reuse(packet.bytes);
            }
            Plane::Data if scene.buffers.is_some_and(|most| self.data.len() >= most as usize) => {
                scene.net.reuse(packet.bytes);
            }
            Plane::Data => self.data.push(packet),
        }
        self.wake(scene);
    }

    /// The worker's step is over; true when the node should look at the ring.
    pub(crate) fn handle_step(&mut self, scene: &mut Scene<'_>, took_ns: u64) -> bool {
        if self.engine.is_halted() {
            return false; // the worker waits for RESUME
        }
        let aim = self.engine.aim();
        if self.engine.is_paused() && !self.worker.is_stopped() {
            self.rests += 1;
            if let Err(what) = self.worker.handle_rest(self.applied) {
                scene.checker.fail(format!("n{}: {what}", scene.host));
            }
            return false;
        }
        let state = (self.applied, self.store.master());
        self.worker.handle_step(scene.local, took_ns, &aim, state).unwrap_or_else(|what| {
            scene.checker.fail(format!("n{}: {what}", scene.host));
            false
        })
    }

    /// The worker has cut: the node looks at the ring.
    pub(crate) fn handle_look(&mut self, scene: &mut Scene<'_>) {
        self.looks = true;
        self.wake(scene);
    }

    /// The operator wants this node to go: the worker cuts what it has and stops.
    pub(crate) fn handle_stop(&mut self, scene: &mut Scene<'_>) {
        if let Err(what) = self.worker.stop() {
            scene.checker.fail(format!("n{}: {what}", scene.host));
        }
        self.handle_look(scene);
    }

    /// Nothing of the worker's is on its way any more, or that takes too long: the node goes.
    pub(crate) fn handle_leave(&mut self, scene: &mut Scene<'_>) {
        self.engine.handle_leave(scene.local);
        self.wake(scene);
    }

    /// There is something to do: at once, or when the scheduler lets the node's thread run.
    fn wake(&mut self, scene: &mut Scene<'_>) {
        // A thread that runs at once never lets a queue fill.
        let nap_ns = self.nap_ns.max(if scene.buffers.is_some() { SHORT_NAP_NS } else { 0 });
        if nap_ns == 0 {
            self.handle_turn(scene);
        } else if !self.turns {
            self.turns = true;
            let at_ns = scene.now_ns + self.random.below(nap_ns);
            scene.queue.push(at_ns, Due::Turn { host: scene.host, process: self.number });
        }
    }

    /// One round of the node's thread, in its order: whatever has come since the last one is there together.
    pub(crate) fn handle_turn(&mut self, scene: &mut Scene<'_>) {
        self.turns = false;
        for round in 0.. {
            self.take_halt(scene);
            let mut heard = round == 0;
            while let Some(event) = self.machine.poll_event() {
                heard = true;
                self.take_sideband(scene, event);
            }
            if !heard {
                break;
            }
            if std::mem::take(&mut self.looks)
                && let Err(what) = self.announce(scene)
            {
                scene.checker.fail(format!("n{}: {what}", scene.host));
            }
            self.drain_before_receiving(scene);
            self.sent = 0;
            let mut data = std::mem::take(&mut self.data);
            for packet in data.drain(..) {
                self.handle_data(scene, &packet);
                scene.net.reuse(packet.bytes);
            }
            self.data = data;
            self.engine.handle_received(scene.local);
            if self.engine.poll_timeout().is_some_and(|due| due <= scene.local) {
                self.engine.handle_timeout(scene.local);
            }
            self.drain(scene);
            if round > TURNS_MAX {
                scene.checker.fail(format!("n{}: the machines talk to each other without end", scene.host));
                break;
            }
        }
        scene.checker.handle_turned(self.number);
    }

    /// Work may read windows that the machines have already opened for what comes next.
    fn drain_before_receiving(&mut self, scene: &mut Scene<'_>) {
        #[cfg(test)]
        if self.hurries {
            return;
        }
        if !self.data.is_empty() {
            self.drain(scene);
        }
    }

    /// Carries everything the machines have to say. Only work leads to more, and what it leads to is carried as well.
    fn drain(&mut self, scene: &mut Scene<'_>) {
        self.take_events(scene);
        for turn in 0.. {
            let Some(work) = self.engine.poll_work() else { break };
            if let Err(what) = self.work(scene, work) {
                scene.checker.fail(format!("n{}: {what}", scene.host));
            }
            // What this led to is known before the next thing is done.
            self.take_events(scene);
            if turn > TURNS_MAX {
                scene.checker.fail(format!("n{}: the machines talk to each other without end", scene.host));
                break;
            }
        }
        while let Some(out) = self.engine.poll_out() {
            self.hand_out(scene, out);
        }
        self.transmit_sideband(scene);
        self.transmit_data(scene);
        self.publish(scene);
    }

    fn hand_out(&mut self, scene: &mut Scene<'_>, out: Out) {
        let now = scene.local;
        match out {
            // What cannot be queued is lost, as on the way: the machines repeat what matters.
            Out::Send(to, message) => {
                if let Message::Seal(accept) = &message {
                    scene.phases.handle_seal(accept.index.0);
                }
                if let Err(error) = self.machine.handle_send(now, to, message) {
                    let what =
                        || format!("cannot say to {to:?}: {error:?}: {}", crate::words::message(&message));
                    scene.trace.tell(scene.now_ns, scene.host, what);
                }
            }
            Out::View(view, addresses) => self.machine.handle_view(now, &view, &addresses),
            Out::Observer(key, life) => self.machine.handle_observer(now, key, life),
            Out::Reentry => self.machine.handle_reentry(now),
            other => scene.checker.fail(format!("n{}: nobody knows what {other:?} is", scene.host)),
        }
    }
}

/// Where a host's sideband socket is.
pub(crate) fn sideband_address(host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), 47_701)
}

/// Where a host's data socket is.
pub(crate) fn data_address(host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), 47_700)
}

fn host_of(address: SocketAddr) -> Option<u8> {
    match address.ip() {
        IpAddr::V4(ip) => Some(ip.octets()[3]),
        IpAddr::V6(_) => None,
    }
}

/// Clocks are asked oftener before.
const WARM_NS: u64 = 10_000_000_000;
const STATUS_NS: u64 = 50_000_000;
/// Until the node's thread runs on a host that is short of buffers.
const SHORT_NAP_NS: u64 = 4_000_000;
/// More than this many rounds between the machines of one node at one moment is a loop.
const TURNS_MAX: u32 = 10_000;
