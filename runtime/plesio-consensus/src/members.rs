//! Who is suspected, gone, leaving or asking to come, how far each has caught up, and the view that follows.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use plesio_collective::Work;
use plesio_wire::codec::{Wire, Writer};
use plesio_wire::digest::Hasher;
use plesio_wire::sideband::{Join, RosterEntry};
use plesio_wire::value::{Seat, View};
use plesio_wire::{Digest, Frame, Incarnation, Instant, MEMBERS_MAX, MemberSet, NodeKey, Version};

use crate::log::LogState;
use crate::quorum::is_quorum;
use crate::sharing::Sharing;

/// A joiner that repeats its JOIN every 100 ms and was not heard for this long has gone.
const JOINER_SILENCE_NS_MAX: u64 = 1_000_000_000;
/// One that was not heard for this long is not let in: it may be dead, and a seat of the dead costs others the quorum.
const SEATABLE_SILENCE_NS_MAX: u64 = 300_000_000;
/// A new life of a member counts only when it has asked this often and this long: one late datagram of a life
/// that is over must not remove the one that lives.
const REPLACED_JOINS_MIN: u32 = 3;
const REPLACED_NS_MIN: u64 = 200_000_000;
/// A member put out for holding a version up comes back after this long at first, doubling to the other.
const BARRED_NS_MIN: u64 = 10_000_000_000;
const BARRED_NS_MAX: u64 = 300_000_000_000;
/// A later life waits a tenth of that: whoever died while a version was open held it up as well.
const BARRED_ANEW_PARTS: u64 = 10;
/// At first, where it said itself that it hears nobody: a cut line that is whole again.
const BARRED_DEAF_NS_MIN: u64 = 1_000_000_000;
/// A joiner that has asked this often is no stray datagram: it keeps its place while it makes progress.
const STEADY_JOINS_MIN: u32 = 3;
/// What a joiner has to get that far, and to get further.
const STEADY_NS_MAX: u64 = 250_000_000;
const PROGRESS_NS_MAX: u64 = 10_000_000_000;
const ROSTER_MAX: usize = 2 * MEMBERS_MAX;

#[derive(Clone, Copy, Debug)]
struct Joiner {
    join: Join,
    first: Instant,
    heard: Instant,
    count: u32,
    /// When it came, or when its HOLD last rose.
    progress: Instant,
}

impl Joiner {
    /// Whether it has asked for its place often enough to keep it.
    const fn is_steady(&self) -> bool {
        self.count >= STEADY_JOINS_MIN
    }

    /// Whether it had the time to show that it goes on asking, and did not.
    const fn is_stray(&self, now: Instant) -> bool {
        !self.is_steady() && now.since(self.first) >= STEADY_NS_MAX
    }

    const fn entry(&self) -> RosterEntry {
        let Join { id, sideband, data, .. } = self.join;
        RosterEntry { id, sideband, data, weight: 1_000 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Leaver {
    incarnation: Incarnation,
    /// Newest frame closed when its LEAVE was first heard.
    frame: Frame,
}

#[derive(Clone, Copy, Debug)]
struct Bar {
    /// The life that gave cause; none where later ones are no better.
    life: Option<Incarnation>,
    until: Instant,
    /// Until then for later lives.
    anew: Instant,
    times: u32,
}

impl Bar {
    fn ends(&self, life: Incarnation) -> Instant {
        if self.life.is_some_and(|barred| barred != life) { self.anew } else { self.until }
    }
}

#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub(crate) struct Members {
    suspects: Vec<NodeKey>,
    dead: Vec<NodeKey>,
    /// Members without a mesh clock, and those that hear no quorum, by their own word.
    untimed: Vec<NodeKey>,
    detached: Vec<NodeKey>,
    /// Members whose data kept a version open too long (R14).
    stalled: Vec<NodeKey>,
    /// Members that told two stories in one ballot.
    condemned: BTreeSet<NodeKey>,
    /// Seats whose process was replaced by a new one that asks to join (R19).
    replaced: BTreeMap<NodeKey, Incarnation>,
    /// Members just admitted: until then, silence proves nothing against them.
    graced: BTreeMap<NodeKey, Instant>,
    holds: BTreeMap<NodeKey, Version>,
    joiners: BTreeMap<NodeKey, Joiner>,
    barred: BTreeMap<NodeKey, Bar>,
    leavers: BTreeMap<NodeKey, Leaver>,
    roster: BTreeMap<NodeKey, RosterEntry>,
    pub(crate) sharing: Sharing,
}

fn set_of(view: &View, keys: impl IntoIterator<Item = NodeKey>) -> MemberSet {
    let mut set = MemberSet::EMPTY;
    for index in keys.into_iter().filter_map(|key| view.index_of(key)) {
        set.insert(index);
    }
    set
}

fn bounded(keys: &[NodeKey]) -> Vec<NodeKey> {
    keys.iter().copied().take(ROSTER_MAX).collect()
}

impl Members {
    pub(crate) fn new(sharing: Option<Work>) -> Self {
        Self { sharing: Sharing::new(sharing), ..Self::default() }
    }

    /// Takes the present verdict of the failure detector.
    pub(crate) fn set_verdict(&mut self, suspects: &[NodeKey], dead: &[NodeKey]) {
        (self.suspects, self.dead) = (bounded(suspects), bounded(dead));
    }

    /// Takes who has no mesh clock at present, and who hears no quorum.
    pub(crate) fn set_states(&mut self, untimed: &[NodeKey], detached: &[NodeKey]) {
        (self.untimed, self.detached) = (bounded(untimed), bounded(detached));
    }

    /// The context that they held up is over.
    pub(crate) fn clear_stalled(&mut self) {
        self.stalled.clear();
    }

    /// `key` held a version up and is out: it stays an observer for a while, longer each time.
    pub(crate) fn bar(&mut self, now: Instant, key: NodeKey, life: Option<Incarnation>) {
        self.barred.retain(|_, bar| now.since(bar.until) < BARRED_NS_MAX);
        if self.barred.len() < ROSTER_MAX || self.barred.contains_key(&key) {
            let least_ns = if self.detached.contains(&key) { BARRED_DEAF_NS_MIN } else { BARRED_NS_MIN };
            let bar = self.barred.entry(key).or_insert(Bar { life, until: now, anew: now, times: 0 });
            let length_ns = BARRED_NS_MAX.min(least_ns << bar.times.min(9));
            let (until, anew) = (now.after(length_ns), now.after(length_ns / BARRED_ANEW_PARTS));
            *bar = Bar { life, until, anew, times: bar.times.saturating_add(1) };
        }
    }

    /// `key` told two stories in one ballot: the next view is without it.
    pub(crate) fn condemn(&mut self, key: NodeKey) {
        self.condemned.insert(key);
    }

    /// `view` comes: whoever is put out for its stories stays out for a while.
    pub(crate) fn bar_condemned(&mut self, now: Instant, view: &View) {
        let out: Vec<NodeKey> =
            self.condemned.iter().copied().filter(|key| view.index_of(*key).is_none()).collect();
        for key in out {
            self.bar(now, key, None);
        }
    }

    pub(crate) fn set_stalled(&mut self, view: &View, stalled: MemberSet) {
        self.stalled =
            stalled.iter().filter_map(|at| view.members.get(usize::from(at))).map(|seat| seat.key).collect();
    }

    /// Members for which no proposer waits.
    pub(crate) fn unheard(&self, view: &View, me: NodeKey) -> MemberSet {
        let keys = self.suspects.iter().chain(&self.dead).chain(self.replaced.keys()).copied();
        set_of(view, keys.filter(|key| *key != me))
    }

    /// Members that nothing reaches.
    pub(crate) fn detached(&self, view: &View, me: NodeKey) -> MemberSet {
        set_of(view, self.detached.iter().copied().filter(|key| *key != me))
    }

    /// Members that do not know when a frame closes.
    pub(crate) fn untimed(&self, view: &View, me: NodeKey) -> MemberSet {
        set_of(view, self.untimed.iter().copied().filter(|key| *key != me))
    }

    /// Members that are to be excluded at once.
    pub(crate) fn gone(&self, now: Instant, view: &View, me: NodeKey) -> MemberSet {
        let dead = self.dead.iter().filter(|key| self.graced.get(key).is_none_or(|until| now >= *until));
        let keys = dead.chain(&self.stalled).chain(&self.condemned).chain(self.replaced.keys()).copied();
        set_of(view, keys.filter(|key| *key != me))
    }

    /// Every JOIN heard. Returns whether the sender is registered as an observer.
    ///
    /// JOINs are not authenticated, so none changes what is known of a seated life, one address is one joiner, and
    /// when there is no place left those who only claim to be there make room.
    pub(crate) fn insert_joiner(
        &mut self,
        now: Instant,
        view: &View,
        join: &Join,
        observers_max: u8,
    ) -> bool {
        let key = join.id.key();
        self.forget_silent(now);
        let seat = view.index_of(key).map(|at| view.members[usize::from(at)]);
        if seat.is_some_and(|seat| seat.incarnation == join.incarnation) {
            return false; // Admitted already; it has not learnt that yet.
        }
        let same = |known: &Joiner| {
            (known.join.incarnation, known.join.sideband) == (join.incarnation, join.sideband)
        };
        let known = self.joiners.get(&key).copied();
        // Whoever takes the name of one that is asking already waits until that one is silent.
        if known.as_ref().is_some_and(|known| !same(known) && known.is_steady()) {
            return false;
        }
        if known.is_none() && !self.make_room(now, join, observers_max) {
            return false;
        }
        let known = known.filter(same);
        let (first, count, progress) =
            known.map_or((now, 0, now), |known| (known.first, known.count, known.progress));
        let has_more = known.is_some_and(|known| join.hold > known.join.hold);
        let progress = if has_more { now } else { progress };
        let count = count.saturating_add(1);
        self.joiners.insert(key, Joiner { join: *join, first, heard: now, count, progress });
        // Two processes cannot have one address, so the seat's is gone. From elsewhere this may be anybody: then the
        // seat is lost by silence alone.
        let at_home = self.roster.get(&key).is_none_or(|entry| entry.sideband == join.sideband);
        if let Some(seat) = seat
            && at_home
            && count >= REPLACED_JOINS_MIN
            && now.since(first) >= REPLACED_NS_MIN
        {
            self.replaced.insert(key, seat.incarnation);
        }
        true
    }

    /// Whether there is a place for a new joiner. One address has one place; else of those who have not shown that
    /// they are there, or get no further, the oldest makes room, first where most come from one host.
    fn make_room(&mut self, now: Instant, join: &Join, observers_max: u8) -> bool {
        let twin = self.joiners.iter().find(|(_, joiner)| joiner.join.sideband == join.sideband);
        if let Some((key, joiner)) = twin {
            let (key, free) = (*key, joiner.is_stray(now));
            if free {
                self.joiners.remove(&key);
            }
            return free;
        }
        if self.joiners.len() < usize::from(observers_max) {
            return true;
        }
        let host = |join: &Join| join.sideband.0.ip();
        let crowd = |ip| self.joiners.values().filter(|other| host(&other.join) == ip).count();
        let mine = crowd(host(join));
        let may_go = |joiner: &Joiner| {
            let is_idle = now.since(joiner.progress) >= PROGRESS_NS_MAX;
            let is_crowd = joiner.join.hold == 0 && crowd(host(&joiner.join)) > mine + 1;
            is_idle || joiner.is_stray(now) || is_crowd
        };
        let oldest = self.joiners.iter().filter(|(_, joiner)| may_go(joiner));
        let oldest =
            oldest.max_by_key(|(_, joiner)| (crowd(host(&joiner.join)), core::cmp::Reverse(joiner.progress)));
        let Some(key) = oldest.map(|(key, _)| *key) else { return false };
        self.joiners.remove(&key);
        true
    }

    /// Where a node is, by the word of somebody who may know; of seated lives by that of a roster alone.
    pub(crate) fn insert_roster(&mut self, view: &View, entry: &RosterEntry) {
        let key = entry.id.key();
        if self.roster.len() >= ROSTER_MAX && !self.roster.contains_key(&key) {
            self.roster.retain(|key, _| view.index_of(*key).is_some());
        }
        if self.roster.len() < ROSTER_MAX || self.roster.contains_key(&key) {
            self.roster.insert(key, *entry);
        }
    }

    fn forget_silent(&mut self, now: Instant) {
        self.joiners.retain(|_, joiner| now.since(joiner.heard) <= JOINER_SILENCE_NS_MAX);
    }

    pub(crate) fn observers(&self) -> impl Iterator<Item = NodeKey> + '_ {
        self.joiners.keys().copied()
    }

    pub(crate) fn is_observer(&self, key: NodeKey) -> bool {
        self.joiners.contains_key(&key)
    }

    /// HOLD of a member: both fields only rise.
    pub(crate) fn insert_hold(&mut self, view: &View, key: NodeKey, version: Version) {
        if view.index_of(key).is_some() {
            let hold = self.holds.entry(key).or_default();
            *hold = version.max(*hold);
        }
    }

    /// Newest version that a member says it holds.
    pub(crate) fn hold(&self, key: NodeKey) -> Version {
        self.holds.get(&key).copied().unwrap_or_default()
    }

    pub(crate) fn insert_leaver(
        &mut self,
        view: &View,
        key: NodeKey,
        incarnation: Incarnation,
        frame: Frame,
    ) {
        let seat = view.index_of(key).map(|at| view.members[usize::from(at)]);
        if seat.is_some_and(|seat| seat.incarnation == incarnation) {
            self.leavers.entry(key).or_insert(Leaver { incarnation, frame });
        }
    }

    /// Members that said goodbye, with the frame then newest.
    pub(crate) fn leavers<'a>(&'a self, view: &'a View) -> impl Iterator<Item = (u16, Frame)> + 'a {
        self.leavers.iter().filter_map(|(key, leaver)| {
            let at = view.index_of(*key)?;
            (view.members[usize::from(at)].incarnation == leaver.incarnation).then_some((at, leaver.frame))
        })
    }

    /// A view is in force: what was said about others than its members is void. Those `added` were silent before
    /// by right; they have until `grace` to be heard.
    pub(crate) fn enter(&mut self, view: &View, added: &[NodeKey], grace: Instant) {
        self.graced.retain(|key, _| view.index_of(*key).is_some());
        self.graced.extend(added.iter().map(|key| (*key, grace)));
        let seated = |key: &NodeKey, incarnation: Incarnation| {
            view.index_of(*key).is_some_and(|at| view.members[usize::from(at)].incarnation == incarnation)
        };
        self.stalled.clear();
        self.suspects.retain(|key| view.index_of(*key).is_some());
        self.dead.retain(|key| view.index_of(*key).is_some());
        self.untimed.retain(|key| view.index_of(*key).is_some());
        self.detached.retain(|key| view.index_of(*key).is_some());
        self.condemned.retain(|key| view.index_of(*key).is_some());
        self.holds.retain(|key, _| view.index_of(*key).is_some());
        self.sharing.retain(|key| view.index_of(key).is_some());
        self.replaced.retain(|key, incarnation| seated(key, *incarnation));
        self.leavers.retain(|key, leaver| seated(key, leaver.incarnation));
        for (key, joiner) in &self.joiners {
            if seated(key, joiner.join.incarnation) {
                let hold = self.holds.entry(*key).or_default();
                *hold = Version(joiner.join.hold.saturating_sub(1)).max(*hold);
                self.roster.insert(*key, joiner.entry());
            }
        }
        self.joiners.retain(|key, joiner| !seated(key, joiner.join.incarnation));
        if self.roster.len() > MEMBERS_MAX {
            self.roster.retain(|key, _| view.index_of(*key).is_some());
        }
    }

    /// Joiners that hold the last final version and can be seated.
    pub(crate) fn ready_joiners(&mut self, now: Instant, log: &LogState) -> Vec<Seat> {
        self.forget_silent(now);
        let room = MEMBERS_MAX - log.members();
        let caught_up = |join: &Join| join.hold == log.version_final.0.saturating_add(1);
        let is_there = |joiner: &Joiner| now.since(joiner.heard) <= SEATABLE_SILENCE_NS_MAX;
        self.joiners
            .iter()
            .filter(|(key, joiner)| log.view.index_of(**key).is_none() && caught_up(&joiner.join))
            .filter(|(_, joiner)| is_there(joiner))
            .filter(|(key, joiner)| {
                self.barred.get(key).is_none_or(|bar| now >= bar.ends(joiner.join.incarnation))
            })
            .map(|(key, joiner)| Seat {
                key: *key,
                incarnation: joiner.join.incarnation,
                admitted: log.index,
            })
            .take(room)
            .collect()
    }

    /// The view after this one without `removed` and with `added`, and the shares that suit it.
    pub(crate) fn next_view(
        &self,
        log: &LogState,
        origin: Frame,
        removed: MemberSet,
        added: &[Seat],
    ) -> View {
        let mut seats: Vec<Seat> = log
            .view
            .members
            .iter()
            .enumerate()
            .filter(|(at, _)| !removed.contains(*at as u16))
            .map(|(_, seat)| *seat)
            .chain(added.iter().copied())
            .collect();
        seats.sort_unstable_by_key(|seat| seat.key);
        // A joiner needs a few frames to lay its windows; a removal is due at once.
        let lead = if added.is_empty() { 1 } else { 4 };
        View {
            origin,
            number: log.view.number.saturating_add(1),
            effective: Frame(origin.0.saturating_add(lead)),
            previous: log.view_digest,
            roster: self.roster_of(&seats),
            members: plesio_wire::Bounded::from_slice(&seats),
            shares: self.sharing.solve(&log.view, &seats),
            ..log.view
        }
    }

    /// The time that new members have to be heard is over.
    #[cfg(test)]
    pub(crate) fn end_grace(&mut self) {
        self.graced.clear();
    }

    /// All that the rules ask about, for the explorer: neither times nor what the failure detector says. R15 asks who
    /// holds the last final version, or will hold a later one; what is older than that is nothing.
    #[cfg(test)]
    pub(crate) fn essence(&self, last_final: Version) -> std::string::String {
        let Self { stalled, condemned, replaced, holds, joiners, leavers, .. } = self;
        let holds: Vec<_> = holds.iter().filter(|(_, version)| **version >= last_final).collect();
        let joiners: Vec<_> = joiners.values().map(|joiner| joiner.join).collect();
        std::format!("{stalled:?} {condemned:?} {replaced:?} {holds:?} {joiners:?} {leavers:?}")
    }

    fn roster_of(&self, seats: &[Seat]) -> Digest {
        let entry_of = |seat: &Seat| {
            let joiner = self.joiners.get(&seat.key);
            let joiner = joiner.filter(|joiner| joiner.join.incarnation == seat.incarnation);
            joiner.map(Joiner::entry).or_else(|| self.roster.get(&seat.key).copied())
        };
        let entries: Option<Vec<RosterEntry>> = seats.iter().map(entry_of).collect();
        // Zeros where this node never heard an address: the digest guides joiners, it decides nothing.
        entries.map_or(Digest::default(), |entries| roster_digest(&entries))
    }

    /// R15: a quorum of `view` holds the last final version, as far as this node knows.
    pub(crate) fn holds_quorum(&self, log: &LogState, view: &View, me: NodeKey, held: Version) -> bool {
        let mut holders = MemberSet::EMPTY;
        for (at, seat) in view.members.iter().enumerate() {
            let version = if seat.key == me {
                held
            } else if log.view.index_of(seat.key).is_some() {
                self.hold(seat.key)
            } else {
                let joiner = self.joiners.get(&seat.key);
                match joiner.and_then(|joiner| joiner.join.hold.checked_sub(1)) {
                    Some(version) => Version(version),
                    None => continue,
                }
            };
            if version >= log.version_final {
                holders.insert(at as u16);
            }
        }
        is_quorum(view.members.len(), holders)
    }
}

/// Digest of a roster, its entries in member order.
#[must_use]
pub fn roster_digest(entries: &[RosterEntry]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(&(entries.len() as u64).to_le_bytes());
    for entry in entries {
        let mut bytes = [0; 72];
        let mut writer = Writer::new(&mut bytes);
        entry.encode(&mut writer);
        hasher.update(&bytes);
    }
    hasher.finish()
}
