//! Every machine of a node except the sideband's, joined: agreement, exchange, one connection per peer, corrector.
//!
//! Knows which machine must hear of what the others say. Does not know sockets, threads or payload bytes: those are
//! [`Work`] for the shell, done in the order given. The node and the simulator drive exactly this.
//!
//! ```text
//!   sideband messages --> Consensus --events--> Exchange --actions--> Connection (one per peer) --> trains
//!         ^                   ^   |                 ^  |                    |
//!         |                   |   v                 |  v                    v received
//!         +--- poll_out       |  Corrector        Work: sum, apply, square, capture, inspect, install
//! ```

mod agreement;
mod bearings;
mod founding;
mod halting;
mod join;
mod keeping;
mod links;
mod meter;
mod near;
mod places;
mod roster;
mod rules;
mod snapshot;
mod tempo;
mod transfer;
mod witness;
mod words;

pub use founding::{Common, Period, genesis, node_id};
pub use join::Namesake;
pub use keeping::{Disk, Revival};
pub use near::Note;
pub use rules::{Rules, Steering};
pub use tempo::Punctuality;
pub use words::{EngineConfig, Entrance, Out, SlotFate, Work};

use crate::engine::join::{Gaps, Joining};
use crate::engine::links::Links;
use crate::engine::meter::Meter;
use crate::engine::places::Places;
use crate::engine::snapshot::{Fetching, Serving};
use plesio_collective::{Exchange, Neighbours};
use plesio_consensus::{
    Config as ConsensusConfig, ConfigError, Consensus, Event, Report, SnapshotCut, Start,
};
use plesio_phase::{Aim, Corrector, CorrectorConfig, MeshClock, State};
use plesio_proto::{Congestion, Next, Refused, Train};
use plesio_sideband::{Status, To};
use plesio_wire::data::{Header, Kind};
use plesio_wire::sideband::{Beat, Message, RosterEntry};
use plesio_wire::value::View;
use plesio_wire::{
    Digest, Frame, Incarnation, Instant, LogIndex, MemberSet, NodeKey, Schedule, SlotSeq, Span, Took, Version,
};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// The engine; see the module.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    key: NodeKey,
    consensus: Consensus,
    exchange: Exchange,
    links: Links,
    near: Neighbours,
    /// Words about memory said so far.
    near_words: u16,
    read_in_place_bytes: u64,
    taken_bytes: u64,
    corrector: Corrector,
    clock: MeshClock,
    /// Where the lives are that the view in force names, and those of earlier views.
    roster: BTreeMap<NodeKey, RosterEntry>,
    /// The newest view whose lives `roster` tells of.
    placed: View,
    /// Observers that the sideband knows.
    registered: Vec<NodeKey>,
    /// Where lives say they are that ask to be let in: kept aside until a view names them.
    asking: BTreeMap<NodeKey, (Incarnation, RosterEntry)>,
    joining: Option<Joining>,
    /// Where nodes were, for one who lost its way.
    places: Places,
    bearings: bearings::Bearings,
    /// Lives that asked from elsewhere while another life of theirs has a seat; each is told once.
    namesakes: Vec<(Incarnation, Namesake)>,
    gaps: Gaps,
    fetching: Option<Fetching>,
    serving: Serving,
    transfers: transfer::Transfers,
    meter: Meter,
    suspects: Vec<NodeKey>,
    dead: Vec<NodeKey>,
    frame: Frame,
    margin: f32,
    timing: tempo::Timing,
    /// A view excludes this life of the node: the next one begins when this turn is over.
    excluded: bool,
    is_halted: bool,
    /// None where there is no disk.
    keeping: Option<keeping::Keeping>,
    /// Who sent a state that others said to be another, and until when it is asked for none.
    banned: BTreeMap<NodeKey, Instant>,
    fakes: u64,
    work: VecDeque<Work>,
    out: VecDeque<Out>,
    events: VecDeque<Event>,
}

impl Engine {
    /// An engine that has not spoken yet.
    ///
    /// # Errors
    /// A parameter out of its range.
    pub fn new(config: EngineConfig, entrance: Entrance, now: Instant) -> Result<Self, ConfigError> {
        let key = config.entry.id.key();
        let (start, joining, places) = match &entrance {
            Entrance::Genesis(_, view) => (Start::Genesis(**view), None, Places::default()),
            Entrance::Join(seeds) => {
                (Start::Observer, Some(Joining::new(seeds.clone(), now)), Places::new(seeds))
            }
        };
        let corrector_config = corrector_config(&config);
        let consensus = Consensus::new(consensus_config(&config), start, now)?;
        let corrector = Corrector::new(now, corrector_config).expect(
            "the agreement checks its own numbers, and whoever configures a node those of its steering",
        );
        let mut engine = Self {
            key,
            exchange: Exchange::new(key, config.regions),
            links: Links::new(
                config.mesh,
                (key, config.incarnation),
                config.chunk_bytes,
                config.receive_buffer_bytes,
                config.sealed,
            ),
            near: Neighbours::new(config.regions, config.arena),
            near_words: 0,
            read_in_place_bytes: 0,
            taken_bytes: 0,
            consensus,
            corrector,
            clock: MeshClock::default(),
            roster: BTreeMap::new(),
            placed: View::default(),
            registered: Vec::new(),
            asking: BTreeMap::new(),
            joining,
            places,
            bearings: bearings::Bearings::new(now),
            namesakes: Vec::new(),
            gaps: Gaps::default(),
            fetching: None,
            serving: Serving::default(),
            transfers: transfer::Transfers::default(),
            meter: Meter::default(),
            suspects: Vec::new(),
            dead: Vec::new(),
            frame: Frame(0),
            margin: 0.0,
            timing: tempo::Timing::default(),
            excluded: false,
            is_halted: false,
            keeping: None,
            banned: BTreeMap::new(),
            fakes: 0,
            work: VecDeque::new(),
            out: VecDeque::new(),
            events: VecDeque::new(),
            config,
        };
        engine.roster.insert(key, engine.config.entry);
        if let Entrance::Genesis(entries, view) = entrance {
            engine.learn_roster(&entries);
            engine.corrector.handle_master(now, true);
            engine.enter_view(now, &view);
        }
        Ok(engine)
    }

    /// The sideband's newest clock line.
    pub fn handle_clock(&mut self, now: Instant, clock: MeshClock) {
        self.clock = clock;
        self.consensus.handle_clock(now, clock.at(now), clock.rate_ppb, clock.usable);
        self.corrector.handle_clock(now, &clock);
        self.turn(now);
    }

    /// A sideband message; `from` is `None` for an address that belongs to nobody known.
    pub fn handle_message(
        &mut self,
        now: Instant,
        from: Option<NodeKey>,
        address: SocketAddr,
        view: u32,
        message: &Message,
    ) {
        if self.is_halted {
            return;
        }
        self.note_heard(now, from, Some(view));
        match message {
            Message::Join(join) => self.handle_join(now, address, join),
            Message::Roster(roster) => {
                if self.is_asked(from, address) && self.is_current(roster.view) {
                    self.note_namesake(&roster.entries);
                    self.learn_roster(&roster.entries);
                    self.fill_gaps(now);
                }
            }
            Message::Nack(nack) => {
                self.handle_nack(from, address, nack);
                if let Some(from) = from {
                    self.consensus.handle_message(now, from, view, message);
                }
            }
            Message::Decided { index, value } if self.asks_for_view() => {
                if self.is_asked(from, address) {
                    self.handle_sponsor(now, *index, value);
                }
                if let Some(from) = from {
                    self.consensus.handle_message(now, from, view, message);
                }
            }
            Message::Snapshot(snapshot) => self.handle_snapshot_message(now, from, view, snapshot),
            Message::Revive(body) => self.handle_revive(now, address, body),
            Message::Ready(ready) => {
                if let (Some(from), Some(seq)) = (from, ready.seq()) {
                    self.exchange.handle_ready(from, seq);
                    self.consensus.handle_message(now, from, view, message);
                }
            }
            _ => {
                if let Message::Epoch(epoch) = message {
                    self.keep_proposed(epoch.index, &epoch.view);
                }
                if let Some(from) = from {
                    self.consensus.handle_message(now, from, view, message);
                }
            }
        }
        self.turn(now);
    }

    /// HOLD of a member's beat.
    pub fn handle_hold(&mut self, now: Instant, from: NodeKey, version: Version, index: Option<LogIndex>) {
        self.note_heard(now, Some(from), None);
        self.consensus.handle_hold(now, from, version, index);
        self.turn(now);
    }

    /// A member's full beat: what it says it can do.
    pub fn handle_beat(&mut self, from: NodeKey, beat: &Beat) {
        self.consensus.handle_speeds(from, beat.speeds);
        let step_ns = (beat.step_us > 0).then(|| u64::from(beat.step_us) * 1_000);
        self.consensus.handle_report(from, Report { transfer_ns: beat.transfer.ns(), step_ns });
    }

    /// The sideband's whole verdict, as indices of the view `view`.
    pub fn handle_liveness(&mut self, now: Instant, view: u32, suspects: MemberSet, dead: MemberSet) {
        if view != self.consensus.view().number {
            return;
        }
        (self.suspects, self.dead) = (self.named(suspects).collect(), self.named(dead).collect());
        self.consensus.handle_suspects(now, &self.suspects, &self.dead);
        self.suspects.iter().chain(&self.dead).for_each(|silent| self.exchange.handle_silent(*silent));
        self.handle_silent_server(now);
        self.turn(now);
    }

    /// An own slot is cut and frozen.
    pub fn handle_cut(&mut self, now: Instant, index: u8, slot: plesio_consensus::OwnSlot) {
        let aimed = transfer::Aimed { target: slot.target, base: slot.base };
        self.transfers.handle_cut(now, slot.seq, index, aimed);
        self.timing.tempo.handle_cut(self.clock.at(now), slot.target);
        self.consensus.handle_cut(now, slot);
        self.turn(now);
        // A node without a seat was told to fold it; everybody else sends it to the owners.
        if self.consensus.own_slots().any(|(own, _)| own.seq == slot.seq) {
            self.exchange.handle_cut(index, slot.seq);
            self.turn(now);
        }
    }

    /// Answer to [`Work::Square`].
    pub fn handle_squared(&mut self, now: Instant, contributor: NodeKey, seq: SlotSeq, sumsq: u64) {
        self.near.handle_whole(contributor);
        self.consensus.handle_held(now, contributor, seq, sumsq);
        self.turn(now);
    }

    /// Answer to [`Work::Sum`], which took so long.
    pub fn handle_summed(&mut self, now: Instant, context: LogIndex, took_ns: u64) {
        self.meter.handle_summed(took_ns);
        self.exchange.handle_summed(context);
        self.turn(now);
    }

    /// Answer to [`Work::Apply`]: the digest of the master state.
    pub fn handle_applied(&mut self, now: Instant, version: Version, digest: Digest) {
        self.consensus.handle_applied(now, version, digest);
        self.turn(now);
    }

    /// An element of the state left the range of 64 bits in that version: this node commits nothing any more.
    pub fn handle_overflow(&mut self, now: Instant, version: Version) {
        self.consensus.handle_overflow(now, version);
        self.turn(now);
    }

    /// The results of that version, which were to be applied or gathered, are not to be had after all: the state is fetched.
    pub fn handle_unapplied(&mut self, now: Instant, version: Version) {
        self.consensus.handle_unapplied(now, version);
        self.turn(now);
    }

    /// Answer to [`Work::Capture`]: how long it is, or that there was no room for it yet.
    pub fn handle_captured(&mut self, now: Instant, len_bytes: Option<u32>) {
        self.send_snapshot(now, len_bytes);
        self.turn(now);
    }

    /// Answer to [`Work::InspectCut`]: the cut, if the bytes are one.
    pub fn handle_cut_inspected(&mut self, now: Instant, cut: Option<&SnapshotCut>) {
        self.take_cut(now, cut);
        self.turn(now);
    }

    /// Answer to [`Work::Inspect`]: the cut, if the bytes are a snapshot whose state has the digest it names.
    pub fn handle_inspected(&mut self, now: Instant, cut: Option<&SnapshotCut>) {
        self.install_snapshot(now, cut);
        self.turn(now);
    }

    /// Where the payload of a DATA datagram belongs.
    #[must_use]
    pub fn place(&self, peer: NodeKey, header: &Header) -> Option<Span> {
        self.links.addressed(peer, header.packet)?.place(header)
    }

    /// A checked datagram: DATA whose payload lies at its place, or control with its body. Events of the
    /// connection are drained by [`Self::handle_received`], after the sockets are.
    ///
    /// # Errors
    /// Why the connection refuses it.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        peer: NodeKey,
        header: &Header,
        body: &[u8],
    ) -> Result<(), Refused> {
        let link = self.links.addressed_mut(peer, header.packet);
        let taken = link.map_or(Ok(()), |link| link.handle_datagram(now, header, body));
        if header.kind == Kind::Ping && taken == Err(Refused::Unposted) {
            self.exchange.handle_offered(peer, header.message);
            return Ok(());
        }
        taken
    }

    /// The sockets are drained: act on what is complete, and let peers send more.
    pub fn handle_received(&mut self, now: Instant) {
        if self.meter.is_due(now) {
            let flow = self.links.flow();
            self.meter.handle_bytes(now, flow.sent_bytes, flow.delivered_bytes, flow.received_bytes);
        }
        self.turn(now);
        self.links.grant(now);
    }

    /// The kernel takes no datagram with so much payload on the way to a peer: smaller ones go from now on.
    pub fn handle_path_limit(&mut self, now: Instant, peer: NodeKey, payload_bytes: u32) {
        self.links.handle_path_limit(now, peer, payload_bytes);
    }

    /// This node wants to go; [`Event::Left`] says when it may.
    pub fn handle_leave(&mut self, now: Instant) {
        self.consensus.handle_leave(now);
        self.turn(now);
    }

    /// Moves time: everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_halted {
            return self.handle_halted_timeout(now);
        }
        self.consensus.handle_timeout(now);
        self.corrector.handle_timeout(now);
        self.links.handle_timeout(now);
        self.handle_join_timeout(now);
        self.handle_snapshot_timeout(now);
        self.handle_keeping_timeout(now);
        self.handle_resync_timeout(now);
        if let Some(frame) = self.consensus.frame_at(now)
            && frame != self.frame
        {
            self.frame = frame;
            self.meter.handle_frame();
            self.consensus.handle_speeds(self.key, self.meter.speeds());
            self.consensus.handle_report(self.key, self.report(now));
            self.note_close(now, Frame(frame.0.saturating_sub(1)));
            self.corrector.handle_quorum(now, self.consensus.has_quorum());
            if !self.registered.is_empty() {
                // Who asks no more makes room, though no view comes.
                self.follow_observers();
            }
        }
        self.turn(now);
    }

    /// Next thing for the shell to do.
    pub fn poll_work(&mut self) -> Option<Work> {
        self.work.pop_front()
    }

    /// Next thing for the sideband.
    pub fn poll_out(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    /// Next train, in `train`, or control datagram, fairly over the peers.
    pub fn poll_transmit_into(&mut self, now: Instant, train: &mut Train) -> Option<(NodeKey, Next)> {
        if self.is_halted { None } else { self.links.poll_transmit_into(now, train) }
    }

    /// What happened, for the trace.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_halted {
            return self.halted_timeout();
        }
        let frame = self.consensus.close_local(self.frame);
        [
            self.consensus.poll_timeout(),
            self.corrector.poll_timeout(),
            self.links.poll_timeout(),
            self.join_timeout(),
            self.snapshot_timeout(),
            self.keeping_timeout(),
            self.resync_timeout(),
            frame,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When the worker should cut.
    #[must_use]
    pub fn aim(&self) -> Aim {
        let schedule = self.consensus.view().schedule();
        let before = Schedule::every(self.config.period_ns);
        Aim {
            clock: self.clock,
            schedule: if schedule.period_ns == 0 { before } else { schedule },
            lead_ns: self.corrector.lead_ns(),
            stride: self.corrector.stride(),
            passes: self.corrector.passes(),
            resyncs: self.corrector.resyncs(),
            holds: self.corrector.state() == State::Resync,
        }
    }

    /// What the full beat says of this node.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let aim = self.aim();
        let (tempo, kept) = (&self.timing.tempo, &self.timing.punctuality);
        let pulse = tempo.pulse();
        let narrow = |wide: u64| u32::try_from(wide).unwrap_or(u32::MAX);
        Status {
            // Whoever has not cut yet is where the mesh is.
            phase: tempo.phase(aim.stride).unwrap_or_else(|| aim.mesh_phase(now)),
            y_ppb: tempo.y_ppb(aim.period_ns()),
            margin: (self.margin * 65_536.0) as i32,
            version: self.consensus.version_held().0,
            index: self.consensus.index().0,
            lead_us: narrow(aim.lead_ns / 1_000),
            step_us: narrow(pulse.step_ns.div_ceil(1_000)),
            steps_per_slot: (pulse.per_slot_q8.saturating_add(128)) >> 8,
            slips: narrow(kept.late),
            folds: narrow(kept.folds),
            state: self.corrector.state().code(),
            stride: aim.stride,
            fill: self.fill(),
            depth: self.config.regions.depth,
            speeds: self.meter.speeds(),
            transfer: Took::of(self.report(now).transfer_ns.unwrap_or_default()),
            ..Status::default()
        }
    }

    /// The agreement, for questions.
    #[must_use]
    pub fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    /// The corrector, for questions.
    #[must_use]
    pub fn corrector(&self) -> &Corrector {
        &self.corrector
    }

    /// Newest margin of an own slot, in frames.
    #[must_use]
    pub fn margin(&self) -> f32 {
        self.margin
    }

    /// Payload bytes sent more than once, over all peers.
    #[must_use]
    pub fn retransmitted_bytes(&self) -> u64 {
        self.links.retransmitted_bytes()
    }

    /// Per peer: chunk size in use, and what keeps the path from being overloaded.
    pub fn ways(&self) -> impl Iterator<Item = (NodeKey, u32, Congestion)> {
        self.links.ways()
    }

    /// Runs the machines into one another until none has more to say.
    fn turn(&mut self, now: Instant) {
        loop {
            let mut quiet = true;
            while let Some(event) = self.consensus.poll_event() {
                quiet = false;
                self.handle_agreed(now, &event);
                self.events.push_back(event);
            }
            while let Some((to, message)) = self.consensus.poll_transmit() {
                let to = match to {
                    plesio_consensus::To::All => To::All,
                    plesio_consensus::To::AllAndObservers => To::Everyone,
                    plesio_consensus::To::One(key) => To::Node(key),
                };
                self.say(now, to, message);
            }
            if self.consensus.open().is_none() {
                self.exchange.handle_expect(self.consensus.index());
            }
            while let Some(action) = self.exchange.poll_action() {
                quiet = false;
                self.handle_action(now, action);
            }
            while let Some((peer, event)) = self.links.poll_event() {
                quiet = false;
                self.handle_link(now, peer, event);
            }
            quiet &= !self.turn_states(now);
            if quiet && std::mem::take(&mut self.excluded) {
                self.begin_next_life(now);
            } else if quiet {
                break;
            }
        }
        if self.events.len() > EVENTS_MAX {
            // Trace events are for onlookers: a shell that does not read them loses the oldest.
            self.events.drain(..self.events.len() - EVENTS_MAX);
        }
    }
}

fn corrector_config(config: &EngineConfig) -> CorrectorConfig {
    config.steering.corrector(CorrectorConfig {
        period_ns: config.period_ns,
        ring_depth: config.regions.depth,
        staleness_max: config.rules.tau,
        dead_ns: config.rules.t_dead_ns,
        ..CorrectorConfig::default()
    })
}

fn consensus_config(config: &EngineConfig) -> ConsensusConfig {
    let base = ConsensusConfig::new(config.entry.id.key(), config.incarnation);
    let sharing = (config.regions.factor > 1).then(|| config.regions.work());
    let base = config.rules.apply(base);
    ConsensusConfig { ring_depth: config.regions.depth, seed: config.seed, sharing, ..base }
}

const EVENTS_MAX: usize = 4_096;
