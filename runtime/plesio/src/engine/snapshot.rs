//! State transfer: view, master state and ledger of one index, as one message (R24).

use super::{Engine, Out, Work};
use plesio_collective::HANDLE_SNAPSHOT;
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
    received: bool,
}

/// Those who asked for this node's state, one at a time.
#[derive(Debug, Default)]
pub(super) struct Serving {
    queue: VecDeque<NodeKey>,
    current: Option<Current>,
    sequence: u16,
}

#[derive(Debug)]
struct Current {
    to: NodeKey,
    cut: SnapshotCut,
    give_up: Instant,
    message: Option<MessageId>,
}

impl Engine {
    /// Asks `from` for its state.
    pub(super) fn fetch(&mut self, now: Instant, from: NodeKey) {
        if self.fetching.as_ref().is_some_and(|fetching| fetching.received) {
            return; // what was received is being read
        }
        if let Some(old) = self.fetching.take()
            && old.from != from
        {
            if let Some(link) = self.links.standing_mut(old.from) {
                link.handle_withdraw(HANDLE_SNAPSHOT);
            }
            self.say_snapshot(old.from, CANCEL);
        }
        let whole = self.snapshot_region();
        let Some(link) = self.links.standing_mut(from) else { return };
        let _ = link.handle_post(HANDLE_SNAPSHOT, None, whole);
        self.fetching = Some(Fetching { from, resend: now.after(REQUEST_INTERVAL_NS), received: false });
        self.say_snapshot(from, REQUEST);
        self.corrector.handle_resync(now, false);
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
        if snapshot.op == CANCEL {
            self.stop_serving(now, from);
        } else if snapshot.op != REQUEST {
            self.consensus.handle_message(now, from, view, &Message::Snapshot(*snapshot));
        } else if self.serving.queue.len() < QUEUE_MAX
            && !self.serving.queue.contains(&from)
            && self.serving.current.as_ref().is_none_or(|current| current.to != from)
        {
            self.serving.queue.push_back(from);
            self.serve_next(now);
        }
    }

    /// Nobody waits for that snapshot any more, or its session is gone: the next one in line has its turn.
    pub(super) fn stop_serving(&mut self, now: Instant, to: NodeKey) {
        self.serving.queue.retain(|waits| *waits != to);
        if let Some(current) = self.serving.current.take_if(|current| current.to == to) {
            if let (Some(message), Some(link)) = (current.message, self.links.standing_mut(to)) {
                link.handle_abort(message);
            }
            self.serve_next(now);
        }
    }

    pub(super) fn send_snapshot(&mut self, now: Instant, len_bytes: u32) {
        let region = self.config.regions.snapshot_out;
        let Some(current) = &mut self.serving.current else { return };
        self.serving.sequence = self.serving.sequence.wrapping_add(1);
        let message = MessageId { handle: HANDLE_SNAPSHOT, sequence: self.serving.sequence };
        let span = Span { region, offset_bytes: 0, len_bytes };
        let sent = self
            .links
            .standing_mut(current.to)
            .is_some_and(|link| link.handle_send(now, message, span).is_ok());
        if sent {
            current.message = Some(message);
            let offer = Snapshot {
                op: OFFER,
                pad: Pad,
                view: current.cut.view.number,
                index: current.cut.index,
                version: current.cut.version,
                len_bytes: u64::from(len_bytes),
                digest: current.cut.digest,
                message: u32::from(message.handle) << 16 | u32::from(message.sequence),
            };
            self.out.push_back(Out::Send(To::Node(current.to), Message::Snapshot(offer)));
        } else {
            self.serving.current = None;
        }
    }

    pub(super) fn handle_snapshot_delivered(&mut self, now: Instant, to: NodeKey) {
        if self.serving.current.as_ref().is_some_and(|current| current.to == to) {
            self.serving.current = None;
            self.serve_next(now);
        }
    }

    pub(super) fn handle_snapshot_received(&mut self, from: NodeKey, span: Span) {
        if let Some(fetching) = &mut self.fetching
            && fetching.from == from
            && !fetching.received
        {
            fetching.received = true;
            self.work.push_back(Work::Inspect { span });
        }
    }

    pub(super) fn install_snapshot(&mut self, now: Instant, cut: Option<&SnapshotCut>) {
        let Some(fetching) = self.fetching.take() else { return };
        let fits = cut.filter(|cut| cut.view.elements == self.config.regions.elements);
        match fits.map(|cut| (cut, self.consensus.handle_snapshot(now, cut))) {
            Some((cut, Ok(Installed::Cut | Installed::State))) => {
                self.work.push_back(Work::Install { version: cut.version });
                self.corrector.handle_master(now, true);
                self.corrector.handle_resync(now, true);
                self.find_way(now);
            }
            // Nothing usable came: the agreement asks again, elsewhere; a joiner by its own timer.
            _ => {
                if let Some(link) = self.links.standing_mut(fetching.from) {
                    link.handle_withdraw(HANDLE_SNAPSHOT);
                }
            }
        }
    }

    pub(super) fn handle_snapshot_timeout(&mut self, now: Instant) {
        if let Some(fetching) = &mut self.fetching
            && now >= fetching.resend
            && !fetching.received
        {
            fetching.resend = now.after(REQUEST_INTERVAL_NS);
            let from = fetching.from;
            self.say_snapshot(from, REQUEST);
        }
        if let Some(current) = &self.serving.current
            && now >= current.give_up
        {
            if let (Some(message), to) = (current.message, current.to)
                && let Some(link) = self.links.standing_mut(to)
            {
                link.handle_abort(message);
            }
            self.serving.current = None;
        }
        self.serve_next(now);
    }

    pub(super) fn snapshot_timeout(&self) -> Option<Instant> {
        let resend =
            self.fetching.as_ref().filter(|fetching| !fetching.received).map(|fetching| fetching.resend);
        let give_up = self.serving.current.as_ref().map(|current| current.give_up);
        resend.into_iter().chain(give_up).min()
    }

    /// Takes the next one in line, when there is a state to give.
    fn serve_next(&mut self, now: Instant) {
        if self.serving.current.is_some() || self.serving.queue.is_empty() {
            return;
        }
        let Some(cut) = self.consensus.snapshot() else { return };
        // Who has no session any more has gone or come back as another life, and will ask again.
        let to = loop {
            let Some(to) = self.serving.queue.pop_front() else { return };
            if self.links.standing_mut(to).is_some() {
                break to;
            }
        };
        self.work.push_back(Work::Capture { cut: cut.encode() });
        let give_up = now.after(SERVE_NS_MAX);
        self.serving.current = Some(Current { to, cut, give_up, message: None });
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
            message: 0,
        };
        self.out.push_back(Out::Send(To::Node(to), Message::Snapshot(request)));
    }

    fn snapshot_region(&self) -> Span {
        let len_bytes = crate::store::snapshot_bytes(self.config.regions.elements);
        Span { region: self.config.regions.snapshot_in, offset_bytes: 0, len_bytes: len_bytes as u32 }
    }
}

const REQUEST: u8 = 0;
const OFFER: u8 = 1;
const CANCEL: u8 = 2;
const QUEUE_MAX: usize = 8;
const REQUEST_INTERVAL_NS: u64 = 300_000_000;
const SERVE_NS_MAX: u64 = 5_000_000_000;
