//! The failure detector of one node: it knows when it heard whom, and whom the others do not hear.

mod carriers;

use crate::is_quorum;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use plesio_wire::{Incarnation, Instant, MEMBERS_MAX, MemberIndex, MemberSet, NodeKey};

/// Which beat is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BeatKind {
    /// Every 100 ms.
    Short,
    /// Every fifth, in its place.
    Full,
}

/// A verdict.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Silent for 500 ms, or for 400 where its host refuses what is sent there: do not wait for it.
    Suspect(NodeKey),
    /// It is heard again.
    Recover(NodeKey),
    /// Silent for 1,000 ms, or for 400 where its host refuses what is sent there, and a quorum suspects it: propose a view without it.
    Dead(NodeKey),
    /// I suspect more than half of the view, so I am the sick one; or no longer.
    Sick(bool),
    /// I was stopped for so long that my frame is lost.
    Late {
        /// How late I was called.
        late_ns: u64,
    },
}

#[derive(Clone, Copy, Debug)]
struct Member {
    key: NodeKey,
    incarnation: Incarnation,
    heard: Instant,
    /// When it sent anything else last.
    word: Instant,
    /// When a third member brought a beat of it last.
    relayed: Option<Instant>,
    /// Nothing heard yet: it may still be starting.
    fresh: bool,
    /// Of the first view, whose members may open their ports in any order; who is let in later asked from an open one.
    founder: bool,
    /// How often its host said, since it was last heard, that nobody listens there.
    refusals: u8,
    /// Not heard from itself.
    silent: bool,
    /// Nor through anybody else.
    mute: bool,
    /// As told by events; lags `mute` while a flapping member is damped.
    suspect: bool,
    dead: bool,
    accuses: MemberSet,
    damping_ns: u64,
    /// When a member that is heard again counts as recovered; `None`: it was never silent.
    steady_at: Option<Instant>,
}

impl Member {
    fn new(now: Instant, key: NodeKey, incarnation: Incarnation, founder: bool) -> Self {
        Self {
            key,
            incarnation,
            heard: now,
            word: now,
            relayed: None,
            fresh: true,
            founder,
            refusals: 0,
            silent: false,
            mute: false,
            suspect: false,
            dead: false,
            accuses: MemberSet::EMPTY,
            damping_ns: 0,
            steady_at: None,
        }
    }

    /// Its process is gone, not slow: what holds the port would take what is sent there, stopped or not.
    fn is_gone(&self) -> bool {
        !(self.fresh && self.founder) && self.refusals >= REFUSALS_MIN
    }

    fn suspect_at(&self) -> Instant {
        let beatless_ns = match self {
            _ if self.is_gone() => GONE_NS,
            Self { fresh: true, founder: true, .. } => START_GRACE_NS,
            Self { fresh: true, .. } => ADMITTED_GRACE_NS,
            _ => SUSPECT_NS,
        };
        // Where beats are lost or the budget makes them rare, the rest says that it lives. One that died did not say its
        // last word long after its last beat.
        let wordless_ns = beatless_ns.min(SUSPECT_NS) - BEAT_NS;
        self.heard.after(beatless_ns).max(self.word.after(wordless_ns))
    }

    /// When it is mute if nobody brings a beat of it until then.
    fn mute_at(&self) -> Instant {
        let relayed = self.relayed.map(|relayed| relayed.after(SUSPECT_NS));
        relayed.map_or(self.suspect_at(), |relayed| relayed.max(self.suspect_at()))
    }

    fn dead_at(&self, dead_ns: u64) -> Instant {
        let more_ns = if self.is_gone() { 0 } else { dead_ns.saturating_sub(SUSPECT_NS) };
        self.suspect_at().after(more_ns)
    }
}

/// Tells live members from silent ones, and when all agree that one is gone.
#[derive(Debug)]
pub struct Membership {
    key: NodeKey,
    view: u32,
    me: Option<MemberIndex>,
    members: Vec<Member>, // sorted by key, me included
    sick: bool,
    next_beat: Instant,
    beat_ns: u64,
    beats: u32,
    excused: Instant,
    dead_ns: u64,
    events: VecDeque<Event>,
}

impl Membership {
    /// The detector of node `key`, which belongs to no view yet.
    #[must_use]
    pub fn new(now: Instant, key: NodeKey) -> Self {
        Self {
            key,
            view: 0,
            me: None,
            members: Vec::with_capacity(MEMBERS_MAX),
            sick: false,
            next_beat: now,
            beat_ns: BEAT_NS,
            beats: 0,
            excused: now,
            dead_ns: DEAD_NS,
            events: VecDeque::with_capacity(EVENTS_MAX),
        }
    }

    /// Silence after which a member is dead, if a quorum agrees; a second unless told. Never before it is suspected.
    pub fn handle_dead_ns(&mut self, dead_ns: u64) {
        self.dead_ns = dead_ns.max(SUSPECT_NS);
    }

    /// How often beats come from the next one on, nanoseconds; never oftener than every 100 ms, nor rarer than every 200.
    pub fn handle_beat_ns(&mut self, beat_ns: u64) {
        self.beat_ns = beat_ns.clamp(BEAT_NS, 2 * BEAT_NS);
    }

    /// View `number` is in force; its members, sorted by key. Who stays keeps its record.
    pub fn handle_view(&mut self, now: Instant, number: u32, members: &[(NodeKey, Incarnation)]) {
        self.excuse(now);
        let old = core::mem::replace(&mut self.members, Vec::with_capacity(MEMBERS_MAX));
        for &(key, incarnation) in members.iter().take(MEMBERS_MAX) {
            let known = old.iter().find(|member| (member.key, member.incarnation) == (key, incarnation));
            let mut member =
                known.copied().unwrap_or_else(|| Member::new(now, key, incarnation, number == 0));
            // Accusations are bits of the old view's indices.
            member.accuses = MemberSet::EMPTY;
            self.members.push(member);
        }
        self.view = number;
        self.me = self.members.iter().position(|member| member.key == self.key).map(|at| at as MemberIndex);
        // The first beat of a view is a full one, at once.
        self.next_beat = now;
        self.beats = 0;
        self.judge(now);
    }

    /// A beat of member `from`, sent in view `view`, which suspects `accuses`.
    pub fn handle_beat(&mut self, now: Instant, from: NodeKey, view: u32, accuses: MemberSet) {
        let same_view = view == self.view;
        self.note(now, from, |member| {
            member.heard = now;
            member.fresh = false;
            member.refusals = 0;
            member.accuses = if same_view { accuses } else { MemberSet::EMPTY };
        });
    }

    /// Anything else that member `from` sent itself, from its seat: it lives, whatever became of its beats.
    pub fn handle_word(&mut self, now: Instant, from: NodeKey) {
        self.note(now, from, |member| {
            member.word = now;
            member.refusals = 0;
        });
    }

    /// The host of member `of` says that nobody listens at its port (port unreachable, RFC 792, RFC 4443).
    ///
    /// Whoever may put datagrams on the way can forge that, so it counts only beside a silence of four beats and, as
    /// every accusation, when a quorum makes it.
    pub fn handle_refusal(&mut self, now: Instant, of: NodeKey) {
        self.note(now, of, |member| member.refusals = member.refusals.saturating_add(1));
    }

    /// A beat brought by a third member: its sender lives, and still is not heard from itself.
    pub fn handle_relayed_beat(&mut self, now: Instant, from: NodeKey, view: u32, accuses: MemberSet) {
        let same_view = view == self.view;
        self.note(now, from, |member| {
            member.relayed = Some(now);
            member.refusals = 0;
            member.accuses = if same_view { accuses } else { MemberSet::EMPTY };
        });
    }

    /// News of a member, judged at once.
    fn note(&mut self, now: Instant, of: NodeKey, news: impl FnOnce(&mut Member)) {
        self.excuse(now);
        if let Some(member) = self.members.iter_mut().find(|member| member.key == of) {
            news(member);
        }
        self.judge(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.excuse(now);
        self.judge(now);
    }

    /// The beat that is due; one per period, however late the caller is. Members only.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<BeatKind> {
        if self.me.is_none() || now < self.next_beat {
            return None;
        }
        // The next beat's time tells how late we are no longer.
        if self.late_ns(now) > LATE_NS_MIN {
            self.excuse(now);
        }
        let next = self.next_beat.after(self.beat_ns);
        self.next_beat = if next > now { next } else { now.after(self.beat_ns) };
        self.beats = (self.beats + 1) % BEATS_PER_FULL;
        Some(if self.beats == 1 { BeatKind::Full } else { BeatKind::Short })
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call back.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let beat = if self.me.is_some() { self.next_beat } else { Instant(u64::MAX) };
        self.others().fold(beat, |next, (_, member)| {
            let dead_at = member.dead_at(self.dead_ns);
            let may_die = member.silent && !member.dead && !self.sick && dead_at > self.excused;
            let verdicts = [
                (!member.mute && member.suspect).then(|| member.steady_at.unwrap_or(self.excused)),
                (!member.silent && !member.suspect).then(|| member.suspect_at()),
                (member.silent && !member.mute).then(|| member.mute_at()),
                may_die.then_some(dead_at),
            ];
            // None of them: only a beat can change it.
            verdicts.into_iter().flatten().fold(next, Instant::min)
        })
    }

    /// Members not to wait for.
    #[must_use]
    pub fn suspects(&self) -> MemberSet {
        self.set(|member| member.suspect)
    }

    /// What our beats say: the silent ones, or nobody while we are the sick one.
    #[must_use]
    pub fn accused(&self) -> MemberSet {
        if self.sick { MemberSet::EMPTY } else { self.set(|member| member.silent) }
    }

    /// Members to be removed.
    #[must_use]
    pub fn dead(&self) -> MemberSet {
        self.set(|member| member.dead)
    }

    /// Whether we suspect more than half of the view.
    #[must_use]
    pub const fn is_sick(&self) -> bool {
        self.sick
    }

    /// Whether we and those we hear weigh a quorum of the view.
    #[must_use]
    pub fn has_quorum(&self) -> bool {
        let mute = self.set(|member| member.mute);
        self.me.is_some() && is_quorum(self.members.len(), MemberSet::first(self.members.len()).without(mute))
    }

    fn others(&self) -> impl Iterator<Item = (MemberIndex, &Member)> {
        let indexed = self.members.iter().enumerate().map(|(at, member)| (at as MemberIndex, member));
        indexed.filter(|(_, member)| member.key != self.key)
    }

    fn set(&self, holds: impl Fn(&Member) -> bool) -> MemberSet {
        let mut set = MemberSet::EMPTY;
        for (index, _) in self.others().filter(|(_, member)| holds(member)) {
            set.insert(index);
        }
        set
    }

    fn late_ns(&self, now: Instant) -> u64 {
        now.since(self.poll_timeout().max(self.excused))
    }

    /// Own lateness: what we did not hear while we were stopped is not held against anybody.
    fn excuse(&mut self, now: Instant) {
        let late_ns = self.late_ns(now);
        self.excused = self.excused.max(now);
        if late_ns <= LATE_NS_MIN {
            return;
        }
        for member in &mut self.members {
            member.heard = member.heard.after(late_ns).min(now);
            member.word = member.word.after(late_ns).min(now);
            member.relayed = member.relayed.map(|relayed| relayed.after(late_ns).min(now));
        }
        if late_ns >= SUSPECT_NS {
            self.event(Event::Late { late_ns });
        }
    }

    fn judge(&mut self, now: Instant) {
        for at in 0..self.members.len() {
            let member = self.members[at];
            if member.key != self.key {
                self.members[at].silent = now >= member.suspect_at();
                self.judge_silence(now, at, now >= member.mute_at());
            }
        }
        let (silent, mute) = (self.set(|member| member.silent), self.set(|member| member.mute));
        self.forgive(now, mute);
        let sick = 2 * silent.len() > self.members.len();
        if sick != self.sick {
            self.sick = sick;
            self.event(Event::Sick(sick));
        }
        if sick {
            return;
        }
        for at in 0..self.members.len() {
            let member = self.members[at];
            let due = member.silent && !member.dead && now >= member.dead_at(self.dead_ns);
            if due && self.corroborated(at as MemberIndex, mute) {
                self.members[at].dead = true;
                self.event(Event::Dead(member.key));
            }
        }
    }

    fn judge_silence(&mut self, now: Instant, at: usize, mute: bool) {
        let member = &mut self.members[at];
        let key = member.key;
        if mute && !member.mute {
            member.mute = true;
            // The first silence is forgiven at once; each further one within a minute doubles the wait.
            let calm = member.steady_at.is_none_or(|steady_at| now.since(steady_at) > CALM_NS);
            member.damping_ns = match member.damping_ns {
                _ if calm => 0,
                0 => DAMPING_NS_MIN,
                damping_ns => (damping_ns * 2).min(DAMPING_NS_MAX),
            };
            if !member.suspect {
                member.suspect = true;
                self.event(Event::Suspect(key));
            }
        } else if !mute && member.mute {
            member.mute = false;
            member.steady_at = Some(now.after(member.damping_ns));
        }
        let member = &mut self.members[at];
        let steady = member.steady_at.is_none_or(|steady_at| now >= steady_at);
        let recovers = !member.mute && member.suspect && steady;
        member.suspect &= !recovers;
        // Who is only heard through others is not heard by whom a quorum accuses it.
        let revives = member.dead && !member.silent && !member.suspect;
        member.dead &= !revives;
        if recovers || revives {
            self.event(Event::Recover(key));
        }
    }

    /// Damping spares the others a member that comes and goes. Where the quorum hangs on it there is nothing to spare: who is
    /// heard is back at once.
    fn forgive(&mut self, now: Instant, mute: MemberSet) {
        let (count, suspects) = (self.members.len(), self.set(|member| member.suspect));
        let quorum_without = |set| is_quorum(count, MemberSet::first(count).without(set));
        if self.me.is_none() || quorum_without(suspects) || !quorum_without(mute) {
            return;
        }
        for at in 0..count {
            let member = &mut self.members[at];
            if member.suspect && !member.mute {
                member.steady_at = Some(now);
                self.judge_silence(now, at, false);
            }
        }
    }

    /// Whether a quorum of the view suspects member `at`: me, and those I hear whose newest beat says so.
    fn corroborated(&self, at: MemberIndex, mute: MemberSet) -> bool {
        let Some(me) = self.me else { return false };
        let mut carriers = MemberSet::EMPTY;
        carriers.insert(me);
        for (index, member) in self.others() {
            if member.accuses.contains(at) && !mute.contains(index) && index != at {
                carriers.insert(index);
            }
        }
        is_quorum(self.members.len(), carriers)
    }

    fn event(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

/// Between beats, as long as there is room for them.
pub const BEAT_NS: u64 = 100_000_000;
const BEATS_PER_FULL: u32 = 5;
const SUSPECT_NS: u64 = 500_000_000;
const DEAD_NS: u64 = 1_000_000_000;
/// Silence after which a member is dead whose host says that nobody listens there: four beats.
const GONE_NS: u64 = 400_000_000;
/// One such word may have been under way when the member came back.
const REFUSALS_MIN: u8 = 2;
/// A member that was never heard may still be starting.
const START_GRACE_NS: u64 = 2_000_000_000;
/// One that was let in asked from an open port: it has to learn that it is in, and no more.
const ADMITTED_GRACE_NS: u64 = 700_000_000;
/// Being called later than this is our fault, not the network's.
const LATE_NS_MIN: u64 = 50_000_000;
const CALM_NS: u64 = 60_000_000_000;
const DAMPING_NS_MIN: u64 = 1_000_000_000;
const DAMPING_NS_MAX: u64 = 30_000_000_000;
const EVENTS_MAX: usize = 256;

#[cfg(test)]
mod tests;
