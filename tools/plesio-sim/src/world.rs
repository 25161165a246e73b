//! One seed: a mesh, its network, its faults and the checker, on virtual time.

mod birth;
mod estates;
mod faults;
mod judge;
mod orders;
mod survey;

use crate::checker::Checker;
use crate::config::SimConfig;
use crate::fault::{Fault, FaultSet};
use crate::host::{Host, INBOX_MAX};
use crate::impair::Impairment;
use crate::learning::{ELEMENTS, Learning};
use crate::mass::{End, Estates};
use crate::net::{Net, Plane};
use crate::phase::{Coverage, PhaseSet, Phases};
use crate::plan::Plan;
use crate::process::{Process, Scene};
use crate::profile::Profile;
use crate::queue::{Due, Queue};
use crate::random::Random;
use crate::report::{SeedReport, Timing, Violation};
use crate::study::Survey;
use crate::trace::Trace;
use crate::watch::Watch;
use birth::life;
use plesio::Codec;
use plesio::engine::{Common, Entrance, genesis};
use plesio::store::StorePlan;
use plesio_wire::data::CHUNK_BYTES_JUMBO;
use plesio_wire::sideband::RosterEntry;
use plesio_wire::{Digest, Incarnation};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
pub(crate) struct World {
    seed: u64,
    now_ns: u64,
    queue: Queue,
    pub(crate) net: Net,
    checker: Checker,
    trace: Trace,
    pub(crate) hosts: Vec<Host>,
    plan: Plan,
    active: Vec<bool>,
    injected: BTreeMap<Fault, u64>,
    /// Faults that wait to strike.
    armed: Vec<u16>,
    phases: Phases,
    /// What the mesh did when armed faults were looked at last.
    looked: Option<PhaseSet>,
    coverage: Coverage,
    /// What the newest view was when the dead were counted last.
    views_seen: u64,
    random: Random,
    mesh: Mesh,
    processes: u32,
    /// A quorum was there when the faults were over: versions must follow.
    hopeful: bool,
    /// How long a version may take to reach a member that lives.
    patience_ns: u64,
    /// How long after the faults a version must have come, and a slot be settled.
    calm_ns: u64,
    /// What is wrong with every link until the faults are over.
    links: Impairment,
    claims: bool,
    desk: orders::Desk,
    disks: bool,
    /// What the mesh clocks of some hosts are off, in thousandths of a frame.
    clock_error_millis: u32,
    profile: Option<Profile>,
    hysteresis: bool,
    estates: Estates,
    watch: Watch,
    learning: Option<Arc<Learning>>,
    survey: Option<Survey>,
}

/// What all nodes of a mesh have in common.
struct Mesh {
    store: StorePlan,
    period_ns: u64,
    common: Common,
}

impl World {
    pub(crate) fn new(config: &SimConfig, seed: u64) -> Self {
        Self::with_state(config, seed, None)
    }

    /// A mesh whose state has so many elements.
    pub(crate) fn with_state(config: &SimConfig, seed: u64, elements: Option<u64>) -> Self {
        let simulated_ns = u64::from(config.simulated_s) * SECOND_NS;
        let plan = Plan::of(config, seed, simulated_ns);
        let mut random = Random::new(seed, "world");
        let drawn = random.between(64, 96);
        let elements =
            elements.or(config.elements).unwrap_or_else(|| drawn_elements(seed, config.codec, drawn));
        let elements = if config.learning.is_some() { ELEMENTS as u64 } else { elements };
        // Narrow paths are felt by datagrams that are long.
        let narrow = plan.kinds.contains(Fault::Mtu);
        let given = config.elements.is_some() || config.learning.is_some();
        let elements = if narrow && !given { 16 * elements } else { elements };
        let drawn = random.pick(&PLACES);
        let (path_ns, period_ns) =
            config.profile.map_or(drawn, |profile| (profile.path_ns(), profile.period_ns()));
        let ring_depth = random.pick(&[2, 4, 4, 4, 8]);
        let (period_ns, ring_depth) =
            (config.period_ns.unwrap_or(period_ns), config.ring_depth.unwrap_or(ring_depth));
        let common = Common {
            model: Digest::of(b"simulated"),
            elements,
            codec: config.codec,
            share_factor: config.sharing.factor(),
            scale_exponent: 24,
            ring_depth,
            chunk_bytes: random.pick(&[64, 256, 1_408, CHUNK_BYTES_JUMBO]).max(if narrow {
                1_408
            } else {
                0
            }),
            rules: config.rules,
            operators: Digest::default(),
        };
        let mesh = Mesh {
            store: StorePlan::with(
                elements,
                ring_depth,
                common.codec,
                common.share_factor,
                common.rules.outer,
            ),
            period_ns,
            common,
        };
        let mut hosts: Vec<Host> =
            (0..plan.hosts).map(|number| Host::new(seed, number, &mut random).given(config)).collect();
        let first: Vec<(RosterEntry, Incarnation)> =
            hosts[..usize::from(config.nodes)].iter().map(|host| (host.entry, life(seed, host, 0))).collect();
        let (roster, view) = genesis(&first, &config.period(period_ns), &mesh.common)
            .expect("ids are digests of different bytes, and there are 1 to 24 nodes");
        let mut world = Self {
            seed,
            now_ns: 0,
            queue: Queue::default(),
            net: Net::new(seed, hosts.len(), path_ns),
            checker: Checker::new(view, elements as usize, config.rules),
            trace: Trace::new(config.story, config.trace),
            active: vec![false; plan.faults.len()],
            injected: BTreeMap::new(),
            armed: Vec::new(),
            phases: Phases::default(),
            looked: None,
            coverage: Coverage::default(),
            views_seen: 0,
            hosts: std::mem::take(&mut hosts),
            plan,
            random,
            mesh,
            processes: 0,
            hopeful: false,
            patience_ns: if config.lines.is_empty() { SECOND_NS } else { FETCH_NS },
            calm_ns: calm_ns(config, period_ns),
            links: config.profile.map_or(config.links, |profile| profile.over(config.links)),
            profile: config.profile,
            hysteresis: config.hysteresis,
            claims: config.claims,
            desk: orders::Desk::new(seed),
            disks: config.disks,
            clock_error_millis: config.clock_error_millis,
            estates: Estates::default(),
            watch: Watch::default(),
            learning: config.learning.clone(),
            survey: config.learning.as_ref().map(|learning| Survey::new(Arc::clone(learning), elements)),
        };
        world.net.limit(&config.lines);
        world.impair();
        for (at, fault) in world.plan.faults.iter().enumerate() {
            world.queue.push(fault.begin_ns, Due::Begin { fault: at as u16 });
        }
        world.queue.push(world.plan.quiet_ns, Due::Quiet);
        world.queue.push(world.plan.quiet_ns + world.calm_ns, Due::Recovered);
        for host in 0..config.nodes {
            world.spawn(host, Entrance::Genesis(roster.clone(), Box::new(view)));
        }
        world
    }

    /// That fault strikes a host then, and ends then.
    #[cfg(test)]
    pub(crate) fn strike_at(&mut self, kind: Fault, host: u8, when_ns: (u64, u64)) {
        self.add(kind, host, crate::plan::Scope::Into(host), when_ns);
    }

    /// Nothing gets from one host to another one from then to then.
    #[cfg(test)]
    pub(crate) fn cut_at(&mut self, (from, to): (u8, u8), when_ns: (u64, u64)) {
        self.add(Fault::OneWay, from, crate::plan::Scope::Way(from, to), when_ns);
    }

    #[cfg(test)]
    fn add(&mut self, kind: Fault, host: u8, scope: crate::plan::Scope, (begin_ns, end_ns): (u64, u64)) {
        let fault = self.plan.faults.len() as u16;
        self.plan.kinds.insert(kind);
        let (lasts_ns, level) = (end_ns - begin_ns, 100);
        let (aim, patience_ns) = (None, 0);
        let planned = crate::plan::Planned { kind, begin_ns, lasts_ns, aim, patience_ns, host, scope, level };
        self.plan.faults.push(planned);
        self.active.push(false);
        self.queue.push(begin_ns, Due::Begin { fault });
    }

    /// That host's process dies then, whatever that does to the mesh, and comes back then.
    #[cfg(test)]
    pub(crate) fn power_cut(&mut self, host: u8, span_ns: (u64, u64)) {
        self.plan.brutal = true;
        self.strike_at(Fault::Crash, host, span_ns);
    }

    #[cfg(test)]
    pub(crate) fn pace(&self) -> (u64, u32) {
        (self.mesh.period_ns, self.mesh.common.chunk_bytes)
    }

    /// Runs to the end, or to the first broken promise. `clock` shows how far it got.
    pub(crate) fn run(mut self, config: &SimConfig, clock: &AtomicU64) -> SeedReport {
        while let Some((at_ns, due)) = self.queue.pop() {
            if at_ns > self.plan.end_ns || self.checker.violation().is_some() {
                break;
            }
            self.now_ns = at_ns;
            clock.store(at_ns, Ordering::Relaxed);
            self.checker.handle_time(at_ns);
            self.trace.count();
            self.handle(due);
            self.note_excluded();
            self.strike_armed();
            self.survey_clocks();
        }
        if self.checker.violation().is_none() {
            self.now_ns = self.plan.end_ns;
            self.checker.handle_time(self.now_ns);
            self.check_end();
        }
        let mass = self.weigh();
        self.survey_end();
        self.tell_states();
        let violation = self.checker.violation().map(|(at_ns, what)| Violation {
            seed: self.seed,
            nodes: config.nodes,
            faults: config.faults,
            at_ns: *at_ns,
            what: what.clone(),
        });
        let (events, frames) = (self.trace.events(), self.checker.newest_final().0);
        let (views, datagrams) = (self.checker.views(), self.net.tally().taken);
        let shares = self.checker.newest_view().shares.to_vec();
        let periods_ns = self.checker.periods_ns();
        let (unlike_views, commit_ns) = (self.checker.unlike_views(), self.checker.commit_ns());
        let rates = self.hosts.iter().filter_map(|host| host.process.as_ref()?.sideband_rate(self.now_ns));
        let sideband = rates.fold((0, 0), |most, (rate, beat_ns)| (most.0.max(rate), most.1.max(beat_ns)));
        let (gap_ns, lies) = (self.checker.gap_ns(), self.checker.lies());
        let (trace_hash, story, happened) = self.trace.finish();
        let mut timing = Timing::default();
        for host in &self.hosts {
            if let Some(process) = &host.process {
                timing.add(&process.timing(host.clock.at(self.now_ns), self.mesh.period_ns));
            }
        }
        SeedReport {
            seed: self.seed,
            events,
            frames,
            views,
            shares,
            periods_ns,
            unlike_views,
            commit_ns,
            datagrams,
            faults: self.injected,
            coverage: self.coverage,
            gap_ns,
            halt_ns: self.desk.slowest_ns(),
            mass,
            seen_ns: self.watch.seen_ns().to_vec(),
            lies,
            sideband_bytes_per_s: sideband.0,
            beat_ns: sideband.1,
            timing,
            study: self.survey.map(|survey| survey.finish(self.net.sent_bytes())),
            trace_hash,
            violation,
            story,
            happened,
        }
    }

    /// A host's process is gone.
    fn note_ended(&mut self, number: u8) {
        self.phases.handle_state(number);
        self.count_dead();
    }

    /// Whether a member of the newest view has no process.
    fn count_dead(&mut self) {
        let view = self.checker.newest_view();
        let dead = |host: &Host| view.index_of(host.key()).is_some() && !host.lives_in(view);
        self.phases.bereaved = self.hosts.iter().any(dead);
    }

    /// What the mesh is doing.
    fn phases(&self) -> PhaseSet {
        self.phases.now(self.now_ns, self.checker.log_len(), self.checker.is_open())
    }

    fn note_excluded(&mut self) {
        if self.checker.views() != self.views_seen {
            self.views_seen = self.checker.views();
            self.count_dead();
        }
        // Whatever is more than a loss that everybody bears.
        let links = Impairment { loss_ppm: self.links.loss_ppm.saturating_sub(GENTLE_PPM), ..self.links };
        let gentle = self.plan.kinds.is_within(FaultSet::GENTLE) && links == Impairment::default();
        for (key, life) in self.checker.take_removed() {
            let lives =
                |host: &Host| host.key() == key && host.incarnation() == Some(life) && host.leaving.is_none();
            if gentle && let Some(number) = self.hosts.iter().position(lives) {
                let what =
                    format!("F7, T14: n{number} is left out of a view, and nothing kept it from being heard");
                self.checker.fail(what);
            }
            for host in self.hosts.iter_mut().filter(|host| host.key() == key) {
                host.excluded |= host.incarnation() == Some(life) || host.born == Some(life);
            }
        }
    }

    /// Where every process stands at the end, for a story.
    fn tell_states(&mut self) {
        for (number, host) in self.hosts.iter().enumerate() {
            let Some(process) = &host.process else { continue };
            let consensus = process.engine.consensus();
            self.trace.tell(self.now_ns, number as u8, || {
                let (held, last) = (consensus.version_held().0, consensus.version_final().0);
                let open = consensus.open().map(|open| (open.version.0, open.context.0, open.shards));
                let (index, view) = (consensus.index().0, consensus.view());
                let seat = view.index_of(host.key());
                format!(
                    "ENDS as member {seat:?} of view {} with {}, index {index}, version {held} held of {last}, open \
                     {open:?}, key {:016x}",
                    view.number,
                    view.members.len(),
                    host.key().0
                )
            });
        }
        for (number, host) in self.hosts.iter().enumerate() {
            if let Some(process) = &host.process {
                let told = || format!("{:?}, {:?}, {:?}", process.drops(), process.relays(), process.engine);
                self.trace.tell(self.now_ns, number as u8, told);
            }
        }
    }

    fn handle(&mut self, due: Due) {
        match due {
            Due::Timer { host } => self.handle_timer(host),
            Due::Deliver { packet } => self.handle_arrival(packet),
            Due::Step { host, life } => self.handle_step(host, life),
            Due::Look { host, life } => {
                self.trace.record(self.now_ns, host, 23, &[]);
                if self.hosts[usize::from(host)].life == life && !self.hosts[usize::from(host)].is_stopped() {
                    self.with(host, Process::handle_look);
                }
            }
            Due::Turn { host, process } => {
                self.trace.record(self.now_ns, host, 24, &[]);
                let turns = &self.hosts[usize::from(host)];
                if !turns.is_stopped() && turns.process.as_ref().is_some_and(|now| now.number() == process) {
                    self.with(host, Process::handle_turn);
                }
            }
            Due::Stored { host, process } => self.handle_stored(host, process),
            Due::Obeyed { sequence } => self.check_obeyed(sequence),
            Due::Settled { sequence } => self.check_settled(sequence),
            Due::Remind => self.remind(),
            Due::Begin { fault } => self.begin(fault),
            Due::Strike { fault } => self.strike_late(fault),
            Due::Slice { fault, runs } => self.slice(fault, runs),
            Due::End { fault } => self.end(fault),
            Due::Quiet => {
                self.armed.clear();
                (0..self.plan.faults.len()).for_each(|fault| self.end(fault as u16));
                self.links = self.profile.map(Profile::impairment).unwrap_or_default();
                self.impair();
                self.hopeful = self.has_quorum(None);
                let (now_ns, hopeful) = (self.now_ns, self.hopeful);
                self.trace.tell(now_ns, ALL, || format!("the faults are over; a quorum lives: {hopeful}"));
            }
            Due::Recovered => self.check_recovery(),
        }
    }

    /// Lets a host's process act, then arranges its next timer.
    fn with<T>(&mut self, number: u8, act: impl FnOnce(&mut Process, &mut Scene<'_>) -> T) -> Option<T> {
        let host = &mut self.hosts[usize::from(number)];
        let process = host.process.as_mut()?;
        let mut scene = Scene {
            now_ns: self.now_ns,
            local: host.clock.at(self.now_ns),
            host: number,
            queue: &mut self.queue,
            net: &mut self.net,
            checker: &mut self.checker,
            trace: &mut self.trace,
            phases: &mut self.phases,
            watch: &mut self.watch,
            buffers: host.buffers,
            lies: host.lies,
            order: &mut host.order,
            hushed: host.hushed,
            survey: self.survey.as_mut(),
        };
        let result = act(process, &mut scene);
        if process.left {
            self.trace.tell(self.now_ns, number, || "ends its process".into());
            self.bury(number, End::Left);
            self.note_ended(number);
        } else {
            let at_ns = host.clock.when(process.poll_timeout()).max(self.now_ns);
            if host.timer_ns.is_none_or(|timer_ns| at_ns < timer_ns) {
                host.timer_ns = Some(at_ns);
                self.queue.push(at_ns, Due::Timer { host: number });
            }
        }
        Some(result)
    }

    fn handle_timer(&mut self, number: u8) {
        let host = &mut self.hosts[usize::from(number)];
        if host.timer_ns != Some(self.now_ns) {
            return; // another timer has taken its place
        }
        host.timer_ns = None;
        if host.is_stopped() {
            return;
        }
        self.trace.record(self.now_ns, number, 20, &[]);
        self.with(number, Process::handle_timeout);
        let host = &mut self.hosts[usize::from(number)];
        host.spins = if host.timer_ns == Some(self.now_ns) { host.spins + 1 } else { 0 };
        if host.spins > SPINS_MAX {
            self.checker.fail(format!("n{number} asks for a timer that is always due"));
        }
    }

    fn handle_arrival(&mut self, id: u32) {
        let packet = self.net.get(id);
        let to = packet.to;
        let length = (packet.bytes.len() as u16).to_le_bytes();
        let sum = packet.bytes.get(28..32).unwrap_or_default();
        self.trace.record(self.now_ns, to, 21, &length);
        self.trace.record(self.now_ns, packet.from, packet.plane as u8, sum);
        let host = &mut self.hosts[usize::from(to)];
        let stamp = host.clock.at(self.now_ns);
        if host.asleep > 0 {
            self.net.reuse(packet.bytes); // the network's card sleeps as well
        } else if host.process.is_none() && host.refuses && packet.plane == Plane::Sideband {
            self.net.send(&mut self.queue, self.now_ns, (to, packet.from, Plane::Refusal), [&REFUSAL, &[]]);
            self.net.reuse(packet.bytes);
        } else if !host.is_stopped() {
            self.with(to, |process, scene| process.handle_packet(scene, packet, stamp));
        } else if host.inbox.len() < INBOX_MAX {
            host.inbox.push((packet, stamp));
        }
    }

    fn handle_step(&mut self, number: u8, life: u32) {
        let host = &mut self.hosts[usize::from(number)];
        if host.life != life {
            return;
        }
        if host.is_stopped() {
            host.step_waits = true;
            return;
        }
        self.trace.record(self.now_ns, number, 22, &[]);
        let now = host.clock.at(self.now_ns);
        let took_ns = now.since(std::mem::replace(&mut host.step_began, now));
        let Some(process) = &host.process else { return };
        let mut next_ns = IDLE_NS;
        if process.started {
            next_ns = host.step_ns * self.slowness(number) / 100 * self.random.between(90, 110) / 100;
            if self.with(number, |process, scene| process.handle_step(scene, took_ns)) == Some(true) {
                // A busy node thread lets the worker add to a slot that nobody has heard of.
                let busy_ns = if self.slowness(number) > 100 { 300_000_000 } else { 1_000_000 };
                let look_ns = self.now_ns + self.random.below(busy_ns);
                self.queue.push(look_ns, Due::Look { host: number, life });
            }
        }
        self.queue.push(self.now_ns + next_ns, Due::Step { host: number, life });
        self.go_on_leaving(number);
    }

    /// A node that wants to leave does so once all its mass is committed, or after a while.
    fn go_on_leaving(&mut self, number: u8) {
        let host = &mut self.hosts[usize::from(number)];
        let Some((since, false)) = host.leaving else { return };
        let settled = host.process.as_ref().is_some_and(|process| process.worker.is_settled());
        if settled || self.now_ns - since > LEAVE_NS {
            host.leaving = Some((since, true));
            self.with(number, Process::handle_leave);
        }
    }
}

/// A few elements; encoded, in one block or in several: with one, all but one member own nothing.
fn drawn_elements(seed: u64, codec: Codec, drawn: u64) -> u64 {
    if codec == Codec::Full || seed.is_multiple_of(2) { drawn } else { 16 * drawn }
}

/// Three seconds, or what five frames, and a slot of the slowest worker, take longer.
fn calm_ns(config: &SimConfig, period_ns: u64) -> u64 {
    let step_ns = config.steps_ns.iter().max().copied().unwrap_or(0);
    CALM_NS.max(5 * period_ns + 2 * step_ns)
}

const SECOND_NS: u64 = 1_000_000_000;
const CALM_NS: u64 = 3 * SECOND_NS;
/// Who lags over a line that is full fetches a whole state over such a line.
const FETCH_NS: u64 = 8 * SECOND_NS;
/// How often a worker without a state looks for one.
const IDLE_NS: u64 = 20_000_000;
/// How long a leaving node waits for its last contributions.
const LEAVE_NS: u64 = 2 * SECOND_NS;
const SPINS_MAX: u32 = 1_000;
/// What a host's refusal is as long as: the headers of what it refuses.
const REFUSAL: [u8; 36] = [0; 36];
/// F7: so much loss keeps nobody from being heard.
const GENTLE_PPM: u32 = 200_000;
/// Ways between hosts and frame periods that suit them: a clock over a long way is too coarse for short frames.
/// Loopback, a room, a building, two cities.
const PLACES: [((u64, u64), u64); 6] = [
    ((20_000, 60_000), 200_000_000),
    ((20_000, 60_000), 250_000_000),
    ((100_000, 400_000), 250_000_000),
    ((100_000, 400_000), 500_000_000),
    ((1_000_000, 4_000_000), 250_000_000),
    ((4_000_000, 20_000_000), 500_000_000),
];
/// Stands for no host in particular.
const ALL: u8 = u8::MAX;
