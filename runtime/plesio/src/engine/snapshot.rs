//! State transfer: view, master state and ledger of one index (R24).
//!
//! The cut goes first, in a message of its own: with it the receiver follows the log while the state is on its way,
//! and gathers the results of the versions that are sealed meanwhile. So it is up to date when the state is here,
//! however long that took.

use super::witness::{Verdict, Witnesses};
use super::{Engine, Out, Work};
use plesio_collective::{HANDLE_CUT, HANDLE_SNAPSHOT};
use plesio_consensus::{Installed, SnapshotCut};
use plesio_sideband::To;
use plesio_wire::codec::Pad;
use plesio_wire::data::MessageId;
use plesio_wire::sideband::{Message, Snapshot};
use plesio_wire::{Digest, Instant, LogIndex, NodeKey, Span, Version};
use std::collections::VecDeque;

/// The member that was asked for its state.
#[derive(Debug)]
pub(super) struct Fetching {
    from: NodeKey,
    resend: Instant,
    /// The cut is here, and the agreement works with it.
    is_followed: bool,
    /// Of which transfer the cut is that is here, and of which one the state. Only together are they one: what was under way
    /// when this node asked anew may still come.
    cut: Option<u16>,
    state: Option<u16>,
    /// Both are being read.
    received: bool,
    /// Payload seen when something was last found to have come.
    bytes: u64,
    /// What others say of it, once the cut is here.
    witnesses: Option<Witnesses>,
}

impl Fetching {
    pub(super) const fn from(&self) -> NodeKey {
        self.from
    }
}

/// Those who asked for this node's state, one at a time.
#[derive(Debug, Default)]
pub(super) struct Serving {
    queue: VecDeque<Waiting>,
    current: Option<Current>,
    sequence: u16,
    /// Requests made by this node: a repetition has the number of the first.
    requests: u32,
    /// Captures asked for and not answered yet. Whoever asks anew before the first is there has several; all but the
    /// newest are of a cut that nobody waits for.
    captures: u32,
}

impl Serving {
    /// Nobody is served any more; the requests of this node go on being numbered, and captures under way are answered.
    pub(super) fn next_life(&self) -> Self {
        Self { requests: self.requests, captures: self.captures, ..Self::default() }
    }
}

/// Who waits, the number of its request, and when it asked last: who still wants the state says so again and again.
#[derive(Debug)]
struct Waiting {
    from: NodeKey,
    request: u32,
    asked: Instant,
}

#[derive(Debug)]
struct Current {
    to: NodeKey,
    request: u32,
    asked: Instant,
    cut: SnapshotCut,
    /// When to see whether it moves.
    look: Instant,
    sequence: Option<u16>,
    /// Which of the two is there already. Only with both is the place free that they are sent from.
    delivered: Option<u16>,
    /// Payload taken when that was last looked at, and how often in a row there was no more.
    bytes: u64,
    idle: u32,
}

impl Current {
    /// The messages it is sent as, the cut first.
    fn messages(&self) -> impl Iterator<Item = MessageId> {
        let sequence = self.sequence;
        [HANDLE_CUT, HANDLE_SNAPSHOT]
            .into_iter()
            .filter_map(move |handle| sequence.map(|sequence| MessageId { handle, sequence }))
    }
}

impl Engine {
    /// Asks `from` for its state.
    pub(super) fn fetch(&mut self, now: Instant, from: NodeKey) {
        if self.fetching.as_ref().is_some_and(|fetching| fetching.received) {
            return; // what was received is being read
        }
        if self.fetching.is_some() {
            self.fail_resync(now);
        }
        let from = self.honest(now, from);
        self.cancel_fetch();
        self.serving.requests = self.serving.requests.wrapping_add(1);
        let (head, state) = self.snapshot_parts();
        if self.links.bulk_mut(from).is_none() {
            return;
        }
        self.post(from, HANDLE_CUT, None, head);
        self.post(from, HANDLE_SNAPSHOT, None, state);
        self.fetching = Some(Fetching {
            from,
            resend: now.after(REQUEST_INTERVAL_NS),
            is_followed: false,
            cut: None,
            state: None,
            received: false,
            bytes: self.links.bulk_bytes(from),
            witnesses: None,
        });
        self.say_snapshot(from, REQUEST);
    }

    /// What is being fetched is not wanted any more.
    fn cancel_fetch(&mut self) {
        let Some(old) = self.fetching.take() else { return };
        self.withdraw(old.from, HANDLE_CUT);
        self.withdraw(old.from, HANDLE_SNAPSHOT);
        self.say_snapshot(old.from, CANCEL);
    }

    /// SNAPSHOT: a request to serve, or word that a member is too far behind.
    pub(super) fn handle_snapshot_message(
        &mut self,
        now: Instant,
        from: Option<NodeKey>,
        view: u32,
        snapshot: &Snapshot,
    ) {
        let Some(from) = from else { return };
        if self.handle_witness(now, from, snapshot) {
        } else if snapshot.op == CANCEL {
            self.stop_serving(now, from);
        } else if snapshot.op != REQUEST {
            self.consensus.handle_message(now, from, view, &Message::Snapshot(*snapshot));
        } else {
            self.handle_request(now, from, snapshot.message);
        }
    }

    /// A request, or the same one again. A new one says that what was asked for before is of no use.
    fn handle_request(&mut self, now: Instant, from: NodeKey, request: u32) {
        let asked = now;
        let mut current = self.serving.current.as_mut().filter(|current| current.to == from);
        // The same, or one that was overtaken: its number is not ahead, around the corner included.
        let is_same = |current: &&mut Current| request.wrapping_sub(current.request) as i32 <= 0;
        if let Some(current) = current.as_mut().filter(|current| is_same(current)) {
            current.asked = asked;
            return;
        }
        if current.is_some() {
            self.stop_serving(now, from);
        }
        if let Some(waiting) = self.serving.queue.iter_mut().find(|waiting| waiting.from == from) {
            (waiting.request, waiting.asked) = (request, asked);
        } else if self.serving.queue.len() < QUEUE_MAX {
            // A member that lacks the state keeps others waiting who have it; one that asks to be let in does not.
            let is_member = |key: NodeKey| self.consensus.view().index_of(key).is_some();
            let queue = &self.serving.queue;
            let members = queue.iter().take_while(|waiting| is_member(waiting.from)).count();
            let place = if is_member(from) { members } else { queue.len() };
            self.serving.queue.insert(place, Waiting { from, request, asked });
        }
        self.serve_next(now);
    }

    /// Nobody waits for that snapshot any more, or its session is gone: the next one in line has its turn.
    pub(super) fn stop_serving(&mut self, now: Instant, to: NodeKey) {
        self.serving.queue.retain(|waiting| waiting.from != to);
        if let Some(current) = self.serving.current.take_if(|current| current.to == to) {
            self.abort_serving(&current);
            self.serve_next(now);
        }
    }

    /// A capture is answered: cut and state go on their way, if they are those that were asked for last. `None`: what went
    /// before is still read; whoever waits asks again.
    pub(super) fn send_snapshot(&mut self, now: Instant, len_bytes: Option<u32>) {
        let region = self.config.regions.snapshot_out;
        self.serving.captures = self.serving.captures.saturating_sub(1);
        if self.serving.captures > 0 {
            return;
        }
        let Some(len_bytes) = len_bytes else {
            self.serving.current.take_if(|current| current.sequence.is_none());
            return;
        };
        let current = self.serving.current.as_mut().filter(|current| current.sequence.is_none());
        let Some(current) = current else { return };
        self.serving.sequence = self.serving.sequence.wrapping_add(1);
        let sequence = self.serving.sequence;
        let (head, state) = (crate::store::SNAPSHOT_HEAD_BYTES as u32, len_bytes);
        let cut_bytes = (crate::store::CUT_HEAD_BYTES + current.cut.encode().len()) as u32;
        let parts = [
            (HANDLE_CUT, Span { region, offset_bytes: 0, len_bytes: cut_bytes }),
            (HANDLE_SNAPSHOT, Span { region, offset_bytes: head, len_bytes: state.saturating_sub(head) }),
        ];
        current.sequence = Some(sequence);
        let to = current.to;
        let sent =
            parts.into_iter().all(|(handle, span)| self.send(now, to, MessageId { handle, sequence }, span));
        let Some(current) = &self.serving.current else { return };
        if sent {
            let offer = Snapshot {
                op: OFFER,
                pad: Pad,
                view: current.cut.view.number,
                index: current.cut.index,
                version: current.cut.version,
                len_bytes: u64::from(len_bytes),
                digest: current.cut.digest,
                message: u32::from(HANDLE_SNAPSHOT) << 16 | u32::from(sequence),
            };
            self.out.push_back(Out::Send(To::Node(current.to), Message::Snapshot(offer)));
        } else if let Some(current) = self.serving.current.take() {
            self.abort_serving(&current);
        }
    }

    fn abort_serving(&mut self, current: &Current) {
        current.messages().for_each(|message| self.abort(current.to, message));
    }

    /// The cut or the state is there. What is left of an earlier transfer to the same node says nothing of this one.
    pub(super) fn handle_snapshot_delivered(&mut self, now: Instant, to: NodeKey, message: MessageId) {
        let current = self.serving.current.as_mut();
        let is_this = |current: &&mut Current| current.to == to && current.sequence == Some(message.sequence);
        let Some(current) = current.filter(is_this) else { return };
        let first = *current.delivered.get_or_insert(message.handle);
        if first != message.handle {
            self.serving.current = None;
            self.serve_next(now);
        }
    }

    pub(super) fn handle_cut_received(&mut self, from: NodeKey, sequence: u16, span: Span) {
        let fetching =
            self.fetching.as_mut().filter(|fetching| fetching.from == from && fetching.cut.is_none());
        let Some(fetching) = fetching else { return };
        fetching.cut = Some(sequence);
        let is_apart = fetching.state.is_some_and(|state| sequence.wrapping_sub(state) as i16 > 0);
        self.work.push_back(Work::InspectCut { span });
        if is_apart {
            self.await_state(from, sequence);
        }
    }

    /// The state that came is of another transfer than the cut: that of the cut is waited for.
    fn await_state(&mut self, from: NodeKey, sequence: u16) {
        let (_, state) = self.snapshot_parts();
        self.fetching.iter_mut().for_each(|fetching| fetching.state = None);
        self.post(from, HANDLE_SNAPSHOT, Some(sequence), state);
    }

    /// The cut is read: the agreement follows the log from there, or cannot use what follows.
    pub(super) fn take_cut(&mut self, now: Instant, cut: Option<&SnapshotCut>) {
        if self.fetching.as_ref().is_none_or(|fetching| fetching.is_followed) {
            return;
        }
        let fits = cut.filter(|cut| self.fits(cut) && cut.index > self.floor());
        match fits.map(|cut| self.consensus.handle_cut_ahead(now, cut)) {
            // The version that was open here, if any, was sealed long ago.
            Some(Ok(Installed::Cut)) => self.exchange.handle_sealed(),
            Some(Ok(Installed::Log)) => {
                self.exchange.handle_sealed();
                self.find_way(now);
                return self.cancel_fetch();
            }
            Some(Ok(_)) => {}
            _ => {
                self.fail_resync(now);
                self.cancel_fetch();
                return self.consensus.handle_unfetched(now);
            }
        }
        self.find_way(now);
        if let (Some(fetching), Some(cut)) = (&mut self.fetching, fits) {
            fetching.is_followed = true;
            fetching.witnesses = Some(Witnesses::new(now, cut.version, cut.digest));
            let from = fetching.from;
            self.ask_witnesses(from, cut.version);
        }
        self.judge_fetch(now);
    }

    pub(super) fn handle_snapshot_received(&mut self, now: Instant, from: NodeKey, sequence: u16) {
        let Some(fetching) = self.fetching.as_mut().filter(|fetching| fetching.from == from) else { return };
        fetching.state = Some(sequence);
        match fetching.cut.filter(|cut| *cut != sequence) {
            Some(cut) if cut.wrapping_sub(sequence) as i16 > 0 => self.await_state(from, cut),
            // The cut was of a transfer that was given up: that of this one is still to come.
            Some(_) => {
                (fetching.cut, fetching.is_followed, fetching.witnesses) = (None, false, None);
                let (cut, _) = self.snapshot_parts();
                self.post(from, HANDLE_CUT, Some(sequence), cut);
            }
            None => self.judge_fetch(now),
        }
    }

    /// A member is silent: who waits for its state asks another one.
    pub(super) fn handle_silent_server(&mut self, now: Instant) {
        let is_silent = |from: &NodeKey| self.suspects.contains(from) || self.dead.contains(from);
        if self.fetching.as_ref().is_some_and(|fetching| !fetching.received && is_silent(&fetching.from)) {
            self.consensus.handle_unfetched(now);
        }
    }

    pub(super) fn fetched(&self) -> Option<(NodeKey, &Witnesses)> {
        let fetching = self.fetching.as_ref()?;
        Some((fetching.from, fetching.witnesses.as_ref()?))
    }

    pub(super) fn fetched_mut(&mut self) -> Option<(NodeKey, &mut Witnesses)> {
        let fetching = self.fetching.as_mut()?;
        Some((fetching.from, fetching.witnesses.as_mut()?))
    }

    /// Reads the state when it is here and believed, and throws it away when it is not to be believed.
    pub(super) fn judge_fetch(&mut self, now: Instant) {
        let Some((server, witnesses)) = self.fetched() else { return };
        let verdict = match witnesses.version() {
            Version(0) => self.judge_start(witnesses),
            _ => witnesses.verdict(now, self.heard_witnesses(server)),
        };
        match verdict {
            Verdict::Wait => {}
            Verdict::Believe => self.inspect_if_whole(),
            Verdict::Doubt => {
                if self.fetching.as_ref().is_some_and(|fetching| !fetching.received) {
                    self.ban(now, server);
                    self.cancel_fetch();
                    let another = self.honest(now, server);
                    self.fetch(now, another);
                }
            }
        }
    }

    fn inspect_if_whole(&mut self) {
        let (head, state) = self.snapshot_parts();
        if let Some(fetching) = &mut self.fetching
            && fetching.is_followed
            && fetching.state.is_some()
            && !fetching.received
        {
            fetching.received = true;
            let span = Span { len_bytes: head.len_bytes + state.len_bytes, ..head };
            self.work.push_back(Work::Inspect { span });
        }
    }

    /// Whether a view's ranges are those that this node's memory was laid out for.
    fn fits(&self, cut: &SnapshotCut) -> bool {
        let regions = &self.config.regions;
        (cut.view.elements, cut.view.share_factor) == (regions.elements, regions.factor)
    }

    pub(super) fn install_snapshot(&mut self, now: Instant, cut: Option<&SnapshotCut>) {
        if self.fetching.take().is_none() {
            return;
        }
        let fits = cut.filter(|cut| self.fits(cut) && cut.index > self.floor());
        // If nothing usable came, the agreement asks again, elsewhere; a joiner by its own timer.
        if let Some((cut, Ok(installed))) = fits.map(|cut| (cut, self.consensus.handle_snapshot(now, cut))) {
            self.work.push_back(Work::Install { version: cut.version });
            if let Installed::Gathered(version) = installed {
                self.work.push_back(Work::Merge { version });
            }
            self.corrector.handle_master(now, true);
            self.corrector.handle_resync(now, true);
            self.find_way(now);
        } else {
            self.fail_resync(now);
            self.consensus.handle_unfetched(now);
        }
    }

    pub(super) fn handle_snapshot_timeout(&mut self, now: Instant) {
        if let Some(fetching) = &mut self.fetching
            && now >= fetching.resend
            && !fetching.received
        {
            fetching.resend = now.after(REQUEST_INTERVAL_NS);
            let from = fetching.from;
            let bytes = self.links.bulk_bytes(from);
            let moves = std::mem::replace(&mut fetching.bytes, bytes) != bytes;
            let follows = fetching.is_followed;
            self.say_snapshot(from, REQUEST);
            if moves && follows {
                self.consensus.handle_transfer(now);
            }
            if moves {
                self.extend_resync(now);
            }
            let asked = self.fetched().map(|(_, witnesses)| witnesses.version());
            asked.into_iter().for_each(|version| self.ask_witnesses(from, version));
        }
        let is_over = |(server, witnesses): (NodeKey, &Witnesses)| {
            now >= witnesses.deadline(self.heard_witnesses(server))
        };
        if self.fetched().is_some_and(is_over) {
            self.judge_fetch(now);
        }
        if let Some(current) = self.serving.current.as_mut().filter(|current| now >= current.look) {
            let bytes = self.links.bulk_bytes(current.to);
            let moves = std::mem::replace(&mut current.bytes, bytes) != bytes;
            current.look = now.after(LOOK_NS);
            let asks = now.since(current.asked) < LOOK_NS;
            current.idle = if moves && asks { 0 } else { current.idle + 1 };
            // One that died, or has the state from elsewhere, must not keep the others waiting; one that wants it asks again
            // and gets in line.
            let looks = if self.serving.queue.is_empty() { LOOKS_ALONE } else { 1 };
            if current.idle >= looks
                && let Some(current) = self.serving.current.take()
            {
                self.abort_serving(&current);
            }
        }
        self.serve_next(now);
    }

    pub(super) fn snapshot_timeout(&self) -> Option<Instant> {
        let resend =
            self.fetching.as_ref().filter(|fetching| !fetching.received).map(|fetching| fetching.resend);
        let look = self.serving.current.as_ref().map(|current| current.look);
        resend.into_iter().chain(look).min()
    }

    /// Takes the next one in line, when there is a state to give.
    fn serve_next(&mut self, now: Instant) {
        if self.serving.current.is_some() || self.serving.queue.is_empty() {
            return;
        }
        let Some(mut cut) = self.consensus.snapshot() else { return };
        if cut.version == Version(0) {
            cut.digest = self.start_digest(); // nobody has ever applied it
        }
        // Who has no session any more has gone or come back as another life, and will ask again; who does not ask again has
        // the state from elsewhere.
        let Waiting { from: to, request, asked } = loop {
            let Some(waiting) = self.serving.queue.pop_front() else { return };
            if now.since(waiting.asked) < LOOK_NS && self.links.bulk_mut(waiting.from).is_some() {
                break waiting;
            }
        };
        self.work.push_back(Work::Capture { cut: cut.encode() });
        self.serving.captures += 1;
        let look = now.after(LOOK_NS);
        let bytes = self.links.bulk_bytes(to);
        self.serving.current =
            Some(Current { to, request, asked, cut, look, sequence: None, delivered: None, bytes, idle: 0 });
    }

    /// Asks a member for its state, or says that it is not wanted any more.
    fn say_snapshot(&mut self, to: NodeKey, op: u8) {
        let request = Snapshot {
            op,
            pad: Pad,
            view: self.consensus.view().number,
            index: LogIndex(0),
            version: Version(0),
            len_bytes: 0,
            digest: Digest::default(),
            message: self.serving.requests,
        };
        let to = self.reach(to);
        self.out.push_back(Out::Send(to, Message::Snapshot(request)));
    }

    /// How a member is reached. Who has lost its way is still in the view that it knows, and its sideband knows nobody else by
    /// name: of the lives of today it has the addresses.
    pub(super) fn reach(&self, key: NodeKey) -> To {
        let is_lost = self.joining.as_ref().is_some_and(|joining| joining.lost);
        let address = self.address_of(key).map(|entry| entry.sideband.0);
        match address.filter(|_| is_lost && self.consensus.view().index_of(key).is_none()) {
            Some(address) => To::Address(address),
            None => To::Node(key),
        }
    }

    /// Where a snapshot is received: its cut, then its state.
    fn snapshot_parts(&self) -> (Span, Span) {
        let whole =
            crate::store::snapshot_bytes(self.config.regions.elements, self.config.rules.outer) as u32;
        let (region, head) = (self.config.regions.snapshot_in, crate::store::SNAPSHOT_HEAD_BYTES as u32);
        let cut = Span { region, offset_bytes: 0, len_bytes: head };
        (cut, Span { region, offset_bytes: head, len_bytes: whole - head })
    }
}

const REQUEST: u8 = 0;
const OFFER: u8 = 1;
const CANCEL: u8 = 2;
const QUEUE_MAX: usize = 8;
const REQUEST_INTERVAL_NS: u64 = 300_000_000;
/// How often a transfer is looked at, and how long who wants it may be silent.
const LOOK_NS: u64 = 1_000_000_000;
/// How often it may stand still while nobody else waits: then its receiver has gone.
const LOOKS_ALONE: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::roster::tests::{engine, ids};

    /// A joiner that slept asked three times at once. All three captures were sent, and two of them never taken back: their
    /// bytes were another cut's by the time they arrived.
    #[test]
    fn of_captures_for_one_who_asks_again_only_the_last_is_sent() {
        let (mut engine, ids) = (engine(), ids());
        let to = ids[1].key();
        engine.handle_applied(Instant(0), Version(0), Digest::of(b"state"));
        let len_bytes = Some(crate::store::snapshot_bytes(64, engine.config.rules.outer) as u32);
        for request in 1..=3 {
            engine.handle_request(Instant(1), to, request);
        }
        let sequence = |engine: &Engine| engine.serving.current.as_ref().and_then(|current| current.sequence);
        for _ in 0..2 {
            engine.send_snapshot(Instant(2), len_bytes);
            assert_eq!(sequence(&engine), None);
        }
        engine.send_snapshot(Instant(2), len_bytes);
        assert_eq!(sequence(&engine), Some(1));
        engine.send_snapshot(Instant(2), len_bytes);
        assert_eq!(sequence(&engine), Some(1), "an answer to nothing");
        engine.handle_request(Instant(3), to, 4);
        engine.send_snapshot(Instant(4), None);
        assert!(engine.serving.current.is_none(), "no room: it asks again");
    }

    /// A member gave the next one its state as soon as the first had the elements, though half of the cut was still on its
    /// way: what went again was another cut's, and the receiver had the fields of one index and the ledger of a later one.
    #[test]
    fn the_next_one_is_served_when_cut_and_state_are_both_there() {
        let (mut engine, ids) = (engine(), ids());
        let (to, waits) = (ids[1].key(), ids[2].key());
        let digest = Digest::of(b"state");
        engine.handle_applied(Instant(0), Version(0), digest);
        while engine.poll_work().is_some() {}
        engine.handle_request(Instant(1), to, 1);
        engine.handle_request(Instant(1), waits, 1);
        assert!(matches!(engine.poll_work(), Some(Work::Capture { .. })));
        let len_bytes = crate::store::snapshot_bytes(64, engine.config.rules.outer) as u32;
        engine.send_snapshot(Instant(2), Some(len_bytes));
        let sequence =
            engine.serving.current.as_ref().and_then(|current| current.sequence).expect("it is sent");
        let part = |handle, sequence| MessageId { handle, sequence };
        let before = sequence.wrapping_sub(1);
        for message in [
            part(HANDLE_SNAPSHOT, sequence),
            part(HANDLE_CUT, before), // an earlier transfer's
            part(HANDLE_SNAPSHOT, sequence),
        ] {
            engine.handle_snapshot_delivered(Instant(3), to, message);
            assert_eq!(engine.poll_work(), None, "{message:?} does not end it");
        }
        engine.handle_snapshot_delivered(Instant(3), waits, part(HANDLE_CUT, sequence));
        assert_eq!(engine.poll_work(), None, "nor does what another one has");
        engine.handle_snapshot_delivered(Instant(4), to, part(HANDLE_CUT, sequence));
        assert!(matches!(engine.poll_work(), Some(Work::Capture { .. })));
        assert_eq!(engine.serving.current.as_ref().map(|current| current.to), Some(waits));
    }

    /// A member had the state from elsewhere long ago, and the word that it wants it no more was lost.
    #[test]
    fn who_waits_in_line_and_does_not_ask_again_is_passed_over() {
        let (mut engine, ids) = (engine(), ids());
        let (to, waits) = (ids[1].key(), ids[2].key());
        engine.handle_applied(Instant(0), Version(0), Digest::of(b"state"));
        let served = |engine: &Engine| engine.serving.current.as_ref().map(|current| current.to);
        engine.handle_request(Instant(0), to, 1);
        engine.handle_request(Instant(0), waits, 1);
        engine.stop_serving(Instant(LOOK_NS), to);
        assert_eq!((served(&engine), engine.serving.queue.len()), (None, 0));
        engine.handle_request(Instant(LOOK_NS), to, 2);
        engine.handle_request(Instant(LOOK_NS), waits, 2);
        engine.handle_request(Instant(2 * LOOK_NS - 1), waits, 2);
        engine.stop_serving(Instant(2 * LOOK_NS), to);
        assert_eq!(served(&engine), Some(waits));
    }
}
