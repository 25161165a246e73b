//! The mesh clock: whom to probe, whom to believe, and how M is steered there without ever stepping back.
//!
//! The reference is the lowest index among the live members that hold a clock; its own M defines mesh time. All
//! others intersect their neighbours' intervals and slew. Replies carry the replier's mesh time, so a member
//! without a mesh clock stays silent, and lock spreads outward from the reference.

mod founding;
mod majority;
mod neighbours;
mod peer;
#[cfg(test)]
mod tests;

use founding::{Founding, holds_clock};
use majority::is_near;
pub use peer::BadExchange;
use peer::{Peer, local};

use crate::fusion::{Interval, intersect};
use crate::{ClockState, MeshClock, RATE_PPB_MAX, SLEW_PPB_MAX};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use plesio_wire::sideband::{Message, Probe, ProbeReply, state};
use plesio_wire::{Incarnation, Instant, MEMBERS_MAX, MemberIndex, MemberSet, MeshTime, NodeKey};

/// Names a transmission whose kernel stamp is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StampKey {
    to: NodeKey,
    pair: u32,
    pos: u8,
    reply: bool,
}

/// A datagram to send at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClockTransmit {
    /// To whom.
    pub to: NodeKey,
    /// PROBE or PROBE_REPLY, stamped with the time given to `poll_transmit`.
    pub message: Message,
    /// Give this back with the kernel's stamp, if there is one.
    pub stamp: StampKey,
}

/// What became of the clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ClockEvent {
    /// A new line: use it from now on.
    Clock(MeshClock),
    /// Another reference, or none.
    Reference(Option<NodeKey>),
    /// A source outside the majority; not asked for 60 s.
    FalseTicker(NodeKey),
}

/// What the clock counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ClockCounters {
    /// Exchanges that taught something.
    pub exchanges: u64,
    /// Sources found outside the majority.
    pub false_tickers: u64,
    /// Updates without a majority.
    pub no_majority: u64,
    /// Exchanges dropped because the kernel's clock was moved under them.
    pub discarded: u64,
    /// Steps of M; one per entry at most.
    pub steps: u64,
    /// Probes not answered for want of a mesh clock or of room.
    pub unanswered: u64,
}

/// Estimates the mesh clock. Drive it with `now` of the local clock, drain it, call it back at `poll_timeout`.
#[derive(Debug)]
pub struct Clock {
    key: NodeKey,
    jitter: u64,
    started: Instant,
    period_ns: u64,
    genesis: bool,
    me: Option<MemberIndex>,
    peers: Vec<Peer>, // by key, without me
    own_state: u8,
    line: MeshClock,
    published: MeshClock,
    /// Published bounds of the last updates.
    bounds: [u32; BOUNDS],
    has_line: bool,
    rate_ppb: i64,
    residual_ppb: i64,
    entry: bool,
    good_in_row: u8,
    fused_at: Instant,
    /// When the line was last valid: fused, and close enough.
    good_at: Instant,
    fused_eps_ns: i64,
    newest: i64,
    next_update: Instant,
    reference: Option<NodeKey>,
    founding: Founding,
    replies: VecDeque<(NodeKey, ProbeReply)>,
    events: VecDeque<ClockEvent>,
    counters: ClockCounters,
}

impl Clock {
    /// A clock of node `key` that knows nothing. `seed` jitters the probes.
    #[must_use]
    pub fn new(now: Instant, key: NodeKey, seed: u64) -> Self {
        Self {
            key,
            jitter: (seed ^ key.0.rotate_left(32)) | 1,
            started: now,
            period_ns: 1_000_000_000,
            genesis: false,
            me: None,
            peers: Vec::with_capacity(MEMBERS_MAX),
            own_state: state::ACQUIRE,
            line: MeshClock::default(),
            published: MeshClock::default(),
            bounds: [0; BOUNDS],
            has_line: false,
            rate_ppb: 0,
            residual_ppb: 0,
            entry: true,
            good_in_row: 0,
            fused_at: now,
            good_at: now,
            fused_eps_ns: 0,
            newest: i64::MIN,
            next_update: now,
            reference: None,
            founding: Founding::new(now),
            replies: VecDeque::with_capacity(REPLIES_MAX),
            events: VecDeque::with_capacity(EVENTS_MAX),
            counters: ClockCounters::default(),
        }
    }

    /// The members are these, sorted by key. In view number 0 index 0 starts the mesh clock if it has none; later
    /// the lowest member that is there founds it anew when nobody holds one.
    pub fn handle_view(
        &mut self,
        now: Instant,
        number: u32,
        members: &[(NodeKey, Incarnation)],
        period_ns: u64,
    ) {
        let members = &members[..members.len().min(MEMBERS_MAX)];
        if self.peers.is_empty() {
            self.started = now; // nobody to ask before
        }
        let me = members.iter().position(|member| member.0 == self.key).map(|index| index as MemberIndex);
        if self.me.is_none() && me.is_some() {
            self.entry = true;
            self.founding.restart();
        }
        self.me = me;
        self.genesis = number == 0;
        self.period_ns = period_ns.max(1);
        let mut kept = core::mem::replace(&mut self.peers, Vec::with_capacity(MEMBERS_MAX));
        for &(key, incarnation) in members.iter().filter(|member| member.0 != self.key) {
            let known = kept.iter().position(|peer| (peer.key, peer.incarnation) == (key, incarnation));
            let peer = known.map(|at| kept.swap_remove(at));
            if peer.is_none() {
                self.founding.restart();
            }
            self.peers.push(peer.unwrap_or_else(|| Peer::new(now, key, incarnation)));
        }
        self.elect(now);
        self.choose_neighbours(now);
        if self.genesis && self.me == Some(0) && !self.has_line {
            self.found(now);
        }
    }

    /// Who is silent now; bits are indices of the view. They are neither believed nor the reference.
    pub fn handle_suspects(&mut self, now: Instant, suspects: MemberSet) {
        for at in 0..self.peers.len() {
            self.peers[at].suspected = suspects.contains(self.index_of(at));
        }
        self.elect(now);
    }

    /// A beat of `from` said this about its clock; `eps_ns` only in full beats.
    pub fn handle_state(&mut self, now: Instant, from: NodeKey, state: u8, eps_ns: Option<u32>) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.key == from) else { return };
        if let Some(eps_ns) = eps_ns {
            peer.handle_eps(eps_ns);
        }
        if peer.state != state {
            peer.state = state;
            self.elect(now);
        }
    }

    /// Our own corrector's state, as our beats carry it.
    pub fn handle_own_state(&mut self, now: Instant, state: u8) {
        if self.own_state != state {
            self.own_state = state;
            self.elect(now);
        }
    }

    /// The node enters again: one step of M is allowed once its sources agree.
    pub fn handle_reentry(&mut self, _now: Instant) {
        self.entry = true;
    }

    /// The kernel's clock was moved: stamps before and after cannot be compared.
    pub fn handle_clock_step(&mut self) {
        for peer in &mut self.peers {
            self.counters.discarded += peer.discard_outstanding();
        }
    }

    /// A probe of a node that the gate knows. Answered at the next `poll_transmit`, if we hold a mesh clock.
    pub fn handle_probe(&mut self, now: Instant, from: NodeKey, probe: &Probe, rx: Option<Instant>) {
        if !self.has_line || self.replies.len() == REPLIES_MAX || probe.pos > 1 {
            self.counters.unanswered += 1;
            return;
        }
        let reply = ProbeReply {
            pair: probe.pair,
            pos: probe.pos,
            t1_echo: probe.t1,
            t2: self.line.at(rx.unwrap_or(now)).0,
            stamp_kind: u8::from(rx.is_some()),
            ..ProbeReply::default()
        };
        self.replies.push_back((from, reply));
    }

    /// A reply of `from`.
    ///
    /// # Errors
    /// Why it taught nothing; three in a row and its sender is not asked for 60 s.
    pub fn handle_reply(
        &mut self,
        now: Instant,
        from: NodeKey,
        reply: &ProbeReply,
        rx: Option<Instant>,
    ) -> Result<(), BadExchange> {
        let peer = self.peers.iter_mut().find(|peer| peer.key == from).ok_or(BadExchange::Unasked)?;
        // Who enters may come from another mesh time, and who has none expects nothing.
        let expected = (self.line.usable && !self.entry).then(|| self.line.at(now));
        peer.handle_reply(now, reply, rx, expected)?;
        self.counters.exchanges += 1;
        Ok(())
    }

    /// The kernel says when the transmission `key` left.
    pub fn handle_tx_stamp(&mut self, key: StampKey, stamp: Instant) {
        let mesh = self.line.at(stamp).0;
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.key == key.to) else { return };
        if key.reply {
            peer.handle_reply_stamp(key.pair, key.pos, mesh);
        } else {
            peer.handle_probe_stamp(key.pair, key.pos, local(stamp));
        }
    }

    /// Updates the line when that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.next_update {
            return;
        }
        self.next_update = now.after(UPDATE_NS);
        self.choose_neighbours(now);
        if self.enter_anew(now) {
            return;
        }
        let reference = self.reference == Some(self.key);
        if self.has_line && (reference || self.peers.is_empty()) {
            self.lead(now);
        } else if self.must_found(now) {
            self.found(now);
        } else {
            self.follow(now);
        }
    }

    /// The next datagram; its stamps are `now`, so send it at once.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<ClockTransmit> {
        if let Some((to, mut reply)) = self.replies.pop_front() {
            reply.t3 = self.line.at(now).0;
            if let Some(peer) = self.peers.iter_mut().find(|peer| peer.key == to) {
                (reply.prev_t3, reply.prev_pair) = peer.sign_reply(reply.pair, reply.pos);
            }
            let stamp = StampKey { to, pair: reply.pair, pos: reply.pos, reply: true };
            return Some(ClockTransmit { to, message: Message::ProbeReply(reply), stamp });
        }
        let jitter = &mut self.jitter;
        for peer in &mut self.peers {
            let spread = |interval_ns: u64| {
                *jitter ^= *jitter << 13;
                *jitter ^= *jitter >> 7;
                *jitter ^= *jitter << 17;
                interval_ns - interval_ns / 5 + *jitter % (interval_ns / 5 * 2).max(1)
            };
            if let Some(probe) = peer.poll_probe(now, spread) {
                let stamp = StampKey { to: peer.key, pair: probe.pair, pos: probe.pos, reply: false };
                return Some(ClockTransmit { to: peer.key, message: Message::Probe(probe), stamp });
            }
        }
        None
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<ClockEvent> {
        self.events.pop_front()
    }

    /// When to call back: `handle_timeout`, then `poll_transmit`.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.peers.iter().filter_map(Peer::probe_is_due).fold(self.next_update, Instant::min)
    }

    /// The line in force.
    #[must_use]
    pub const fn estimate(&self) -> MeshClock {
        self.line
    }

    /// What mesh time was off by at most during the last second, as our beats say it: who compared clocks with us meanwhile
    /// holds replies of every moment of it. `u32::MAX` without a clock.
    #[must_use]
    pub fn bound_ns(&self, now: Instant) -> u32 {
        if !self.has_line {
            return u32::MAX;
        }
        self.bounds.into_iter().fold(self.line.bound_at(now), u32::max)
    }

    /// Estimated rate of the mesh clock against ours, without the slew.
    #[must_use]
    pub const fn rate_ppb(&self) -> i64 {
        self.rate_ppb
    }

    /// The frame period of the view.
    #[must_use]
    pub const fn period_ns(&self) -> u64 {
        self.period_ns
    }

    /// Whose M defines mesh time, as far as we know.
    #[must_use]
    pub const fn reference(&self) -> Option<NodeKey> {
        self.reference
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> ClockCounters {
        self.counters
    }

    /// Index in the view of `peers[at]`: I sit among them.
    fn index_of(&self, at: usize) -> MemberIndex {
        let at = at as MemberIndex;
        if self.me.is_some_and(|me| me <= at) { at + 1 } else { at }
    }

    fn event(&mut self, event: ClockEvent) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn elect(&mut self, now: Instant) {
        let other = (0..self.peers.len())
            .find(|at| !self.peers[*at].suspected && holds_clock(self.peers[*at].state))
            .map(|at| (self.index_of(at), self.peers[at].key));
        if other.is_some() {
            self.founding.restart();
        }
        let own = self.me.filter(|_| self.line.usable);
        let reference = match (other, own) {
            (Some((index, _)), Some(me)) if me < index && holds_clock(self.own_state) => Some(self.key),
            (Some((_, key)), _) => Some(key),
            (None, Some(_)) => Some(self.key),
            (None, None) => None,
        };
        if reference != self.reference {
            self.reference = reference;
            // Nobody relies on a line that was never locked: it may step onto what another reference founded.
            self.entry |= !self.line.usable;
            self.event(ClockEvent::Reference(reference));
            if reference == Some(self.key) {
                self.lead(now);
            }
            self.choose_neighbours(now);
        }
    }

    /// As the reference: our own M goes on at the rate it had.
    fn lead(&mut self, now: Instant) {
        (self.fused_at, self.good_at) = (now, now);
        self.fused_eps_ns = i64::from(REFERENCE_EPS_NS);
        self.residual_ppb = 0;
        self.line.usable = true;
        let sure = Sure { eps_ns: REFERENCE_EPS_NS, until: Instant::default(), growth_ppb: 0 };
        self.publish(now, 0, sure, ClockState::Locked);
    }

    /// As a follower: fuse what the sources say, and slew there.
    fn follow(&mut self, now: Instant) {
        let Some(fused) = self.fuse(now) else {
            self.hold_over(now);
            return;
        };
        let target = local(now).saturating_add(fused.theta.middle());
        let width_ns = fused.theta.half_width();
        self.rate_ppb = ((fused.rate * 1e9) as i64).clamp(-RATE_PPB_MAX, RATE_PPB_MAX);
        self.residual_ppb = (fused.residual * 1e9) as i64;
        let pending = target.saturating_sub(self.line.at(now).0);
        let near_enough = pending.saturating_abs() < (self.period_ns / 100) as i64;
        // Slewing would take hours to make up for a sleep in which our clock stood still: waking is an entry.
        self.entry |= pending >= STILL_NS && self.good_in_row >= GOOD_BINS;
        if !self.has_line || (self.entry && !near_enough) {
            self.line = MeshClock { base_local: now, base_mesh: MeshTime(target), ..self.line };
            self.has_line = true;
            self.counters.steps += 1;
            self.good_in_row = 0;
        }
        let pending = target.saturating_sub(self.line.at(now).0);
        // A first-order approach: what is missing, within a second, never faster than the slew limit.
        let slew_ppb = pending.clamp(-SLEW_PPB_MAX, SLEW_PPB_MAX);
        // The bound holds until the next update, and until the one after it where a busy machine comes late.
        let growth_ns = (fused.residual * 1.25 * (2 * UPDATE_NS) as f64) as i64;
        let eps_ns = width_ns.saturating_add(pending.saturating_abs()).saturating_add(growth_ns);
        self.entry = false;
        self.fused_at = now;
        self.fused_eps_ns = eps_ns;
        let fresh = fused.newest > self.newest;
        self.newest = fused.newest;
        let good = width_ns < (self.period_ns / 10) as i64;
        if good {
            self.good_at = now;
            self.good_in_row = self.good_in_row.saturating_add(u8::from(fresh));
        } else {
            self.good_in_row = 0;
        }
        let state = match self.line.state {
            _ if self.good_in_row >= GOOD_BINS => ClockState::Locked,
            ClockState::Locked if now.since(self.good_at) >= HOLDOVER_NS => ClockState::Holdover,
            before => before,
        };
        self.line.usable |= state == ClockState::Locked;
        let sure = Sure {
            eps_ns: u32::try_from(eps_ns).unwrap_or(u32::MAX),
            until: now.after(2 * UPDATE_NS),
            growth_ppb: (fused.residual * 1.25e9) as u32,
        };
        self.publish(now, slew_ppb, sure, state);
        self.elect(now);
    }

    /// No majority, or nobody there: the last rate goes on and the bound grows.
    fn hold_over(&mut self, now: Instant) {
        if !self.has_line {
            return;
        }
        let age_ns = now.since(self.fused_at).saturating_add(UPDATE_NS);
        let growth_ppb = self.residual_ppb.max(500) * 5 / 4;
        let eps_ns =
            i128::from(self.fused_eps_ns) + i128::from(age_ns) * i128::from(growth_ppb) / 1_000_000_000;
        let silent_ns = now.since(self.good_at).saturating_add(UPDATE_NS);
        let state = if silent_ns >= HOLDOVER_NS && self.line.usable {
            self.good_in_row = 0;
            ClockState::Holdover
        } else {
            self.line.state
        };
        let sure = Sure {
            eps_ns: u32::try_from(eps_ns).unwrap_or(u32::MAX),
            until: now.after(UPDATE_NS),
            growth_ppb: u32::try_from(growth_ppb).unwrap_or(u32::MAX),
        };
        self.publish(now, 0, sure, state);
    }

    fn publish(&mut self, now: Instant, slew_ppb: i64, sure: Sure, state: ClockState) {
        let rate_ppb = i32::try_from(self.rate_ppb + slew_ppb).unwrap_or(0);
        let base_mesh = self.line.at(now);
        let bent = rate_ppb != self.line.rate_ppb;
        let base = if bent { (now, base_mesh) } else { (self.line.base_local, self.line.base_mesh) };
        let usable = self.line.usable;
        let (base_local, base_mesh) = base;
        let Sure { eps_ns, until: sure_until, growth_ppb } = sure;
        let eps_ns = eps_ns.max(1);
        self.line =
            MeshClock { base_local, base_mesh, rate_ppb, eps_ns, sure_until, growth_ppb, usable, state };
        self.bounds.rotate_right(1);
        self.bounds[0] = self.line.eps_ns;
        if self.line != self.published {
            self.published = self.line;
            self.event(ClockEvent::Clock(self.line));
        }
    }

    fn fuse(&mut self, now: Instant) -> Option<Fused> {
        let mut sources: [(usize, Interval, f64, f64); SOURCES_MAX] =
            [(0, Interval::default(), 0.0, 0.0); SOURCES_MAX];
        let mut count = 0;
        let mut newest = i64::MIN;
        let majority = self.majority_ns(now);
        for (at, peer) in self.peers.iter_mut().enumerate() {
            let excluded = peer.suspected || peer.is_excluded(now) || peer.eps_ns == u32::MAX;
            if peer.interval_ns.is_none() || excluded || count == SOURCES_MAX {
                continue;
            }
            let Some(fit) = peer.window.fit(local(now)) else { continue };
            if local(now).saturating_sub(fit.newest) > SILENCE_NS_MAX {
                continue;
            }
            if majority.is_some_and(|majority_ns| !is_near(fit.theta.middle(), majority_ns)) {
                continue;
            }
            newest = newest.max(fit.newest);
            sources[count] = (at, fit.theta, fit.rate, fit.residual);
            count += 1;
        }
        let sources = &sources[..count];
        if sources.is_empty() {
            return None;
        }
        let mut intervals = [Interval::default(); SOURCES_MAX + 1];
        for (interval, source) in intervals.iter_mut().zip(sources) {
            *interval = source.1;
        }
        let needed = (count + 1).div_ceil(2);
        let (mut theta, mut votes) = intersect(&intervals[..count])?;
        if votes < needed && self.line.usable {
            // A tie: what we held until now is one more witness.
            intervals[count] = self.own_interval(now);
            (theta, votes) = intersect(&intervals[..=count])?;
        }
        if votes < needed {
            self.counters.no_majority += 1;
            return None;
        }
        let winners = || sources.iter().filter(|source| source.1.overlaps(theta));
        let reference = winners().find(|source| Some(self.peers[source.0].key) == self.reference);
        // The reference's rate, else the best known one.
        let best = reference.or_else(|| winners().min_by(|a, b| a.3.total_cmp(&b.3)))?;
        let fused = Fused { theta, rate: best.2, residual: best.3, newest };
        for source in sources.iter().filter(|source| !source.1.overlaps(theta)) {
            let peer = &mut self.peers[source.0];
            peer.exclude(now);
            let key = peer.key;
            self.counters.false_tickers += 1;
            self.event(ClockEvent::FalseTicker(key));
        }
        Some(fused)
    }

    /// M - C as the line says, with its bound.
    fn own_interval(&self, now: Instant) -> Interval {
        let theta = self.line.at(now).0.saturating_sub(local(now));
        let eps_ns = i64::from(self.line.eps_ns);
        Interval { lo: theta.saturating_sub(eps_ns), hi: theta.saturating_add(eps_ns) }
    }
}

/// How far a line may be trusted, as [`MeshClock`] has it.
struct Sure {
    eps_ns: u32,
    until: Instant,
    growth_ppb: u32,
}

struct Fused {
    theta: Interval,
    rate: f64,
    residual: f64,
    newest: i64,
}

const REPLIES_MAX: usize = 64;
const EVENTS_MAX: usize = 64;
const SOURCES_MAX: usize = 6;
const UPDATE_NS: u64 = 250_000_000;
/// A second of updates: two full beats.
const BOUNDS: usize = 4;
const HOLDOVER_NS: u64 = 2_000_000_000;
/// A source that has not answered for a window's length is none.
const SILENCE_NS_MAX: i64 = 16_000_000_000;
const REFERENCE_EPS_NS: u32 = 1_000;
/// Good bins in a row before the clock counts as locked.
const GOOD_BINS: u8 = 3;
/// Whoever lags so far behind what its sources say was asleep: nobody's rate is that far off.
const STILL_NS: i64 = 1_000_000_000;
