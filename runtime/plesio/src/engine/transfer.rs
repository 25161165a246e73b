//! What the exchange wants and what the connections report; how long own slots take to leave.

use super::{Engine, Work};
use plesio_collective::{Action, HANDLE_CUT, HANDLE_NEAR, HANDLE_NOTICE, HANDLE_SNAPSHOT};
use plesio_proto::{Event, Refused};
use plesio_wire::data::{Header, MessageId};
use plesio_wire::{Frame, Instant, NodeKey, SlotSeq, Version};
use std::collections::{BTreeMap, VecDeque};

/// Own slots that are announced: when they were cut and how many owners still lack their part.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    slots: BTreeMap<SlotSeq, Transfer>,
    /// How long the newest slots took to the last owner, or had taken when they were given up.
    took: VecDeque<u64>,
}

#[derive(Debug)]
struct Transfer {
    cut: Instant,
    index: u8,
    undelivered: u32,
    /// Every owner had it once.
    is_delivered: bool,
    /// The corrector has heard of it.
    is_judged: bool,
    aim: Aimed,
    /// Its owners changed while it was on its way, or it stood still.
    straddles: bool,
}

impl Transfer {
    /// Whether some owner lacks a part of it, and nothing but the way there is the reason.
    fn is_under_way(&self) -> bool {
        self.undelivered > 0 && !self.is_delivered && !self.straddles
    }
}

/// What a slot was cut for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Aimed {
    pub(super) target: Frame,
    pub(super) base: Version,
}

impl Transfers {
    pub(super) fn handle_cut(&mut self, now: Instant, seq: SlotSeq, index: u8, aim: Aimed) {
        let transfer = Transfer {
            cut: now,
            index,
            undelivered: 0,
            is_delivered: false,
            is_judged: false,
            aim,
            straddles: false,
        };
        self.slots.insert(seq, transfer);
    }

    /// What a slot that is listed now was aimed at, if that is news: it is told once.
    pub(super) fn judge(&mut self, seq: SlotSeq) -> Option<Aimed> {
        let transfer = self.slots.get_mut(&seq)?;
        let is_news = !transfer.straddles && !std::mem::replace(&mut transfer.is_judged, true);
        is_news.then_some(transfer.aim)
    }

    /// Slots that were due a whole frame before the close of `closed` and that some owner still lacks; each is told once.
    pub(super) fn overdue(&mut self, closed: Frame) -> Vec<Aimed> {
        let is_due = |transfer: &Transfer| {
            let is_late = transfer.aim.target < closed && transfer.undelivered > 0 && !transfer.is_delivered;
            is_late && !transfer.straddles && !transfer.is_judged
        };
        let overdue = self.slots.values_mut().filter(|transfer| is_due(transfer));
        overdue
            .map(|transfer| {
                transfer.is_judged = true;
                transfer.aim
            })
            .collect()
    }

    /// `T_xfer` as the frame period follows it: the shorter one of the newest two, or what the oldest that is still under way
    /// has taken so far if that is longer. On a link that is slow enough nothing is finished for many frames. None before
    /// there were two.
    pub(super) fn took_ns(&self, now: Instant, is_heard: bool) -> Option<u64> {
        let finished_ns = *self.took.iter().min().filter(|_| self.took.len() == TOOK)?;
        // What a silent owner does not acknowledge says nothing of the link.
        let under_way = self.slots.values().filter(|transfer| is_heard && transfer.is_under_way());
        let oldest_ns = under_way.map(|transfer| now.since(transfer.cut)).max();
        Some(finished_ns.max(oldest_ns.unwrap_or_default()))
    }

    fn note_took(&mut self, took_ns: u64) {
        if self.took.len() == TOOK {
            self.took.pop_front();
        }
        self.took.push_back(took_ns);
    }

    /// A slot is not waited for any more. Where owners still lack parts of it, it takes longer than it had: else a link on
    /// which no slot ever comes in time would have no `T_xfer` at all.
    pub(super) fn handle_given_up(&mut self, now: Instant, seq: SlotSeq) {
        let slow = self.slots.get(&seq).filter(|transfer| transfer.is_under_way());
        if let Some(took_ns) = slow.map(|transfer| now.since(transfer.cut)) {
            self.note_took(took_ns);
        }
    }

    /// Forgets a slot and says where in the ring it was.
    pub(super) fn handle_done(&mut self, seq: SlotSeq) -> Option<u8> {
        self.slots.remove(&seq).map(|transfer| transfer.index)
    }

    /// Everything is sent anew, and not all that was under way will be heard of.
    pub(super) fn handle_view(&mut self) {
        for transfer in self.slots.values_mut() {
            transfer.undelivered = 0;
            transfer.straddles = true;
        }
    }

    /// What was under way stood still.
    pub(super) fn handle_halt(&mut self) {
        self.slots.values_mut().for_each(|transfer| transfer.straddles = true);
    }

    pub(super) fn unsettled(&self) -> Vec<SlotSeq> {
        self.slots.keys().copied().collect()
    }

    /// Slots announced and not settled.
    pub(super) fn fill(&self) -> u8 {
        self.slots.len() as u8
    }

    /// A part of a slot, or notice of it, is on its way.
    pub(super) fn handle_sent(&mut self, message: MessageId) {
        if let Some(transfer) = self.by_message(message) {
            transfer.undelivered += 1;
        }
    }

    fn by_message(&mut self, message: MessageId) -> Option<&mut Transfer> {
        self.slots
            .iter_mut()
            .find(|(seq, transfer)| {
                u16::from(transfer.index) == message.handle && seq.0 as u16 == message.sequence
            })
            .map(|(_, transfer)| transfer)
    }
}

impl Engine {
    /// Checked DATA that had no place.
    pub fn handle_unplaced(&mut self, now: Instant, peer: NodeKey, header: &Header) {
        if let Some(link) = self.links.addressed_mut(peer, header.packet)
            && link.handle_unplaced(now, header) == Refused::Unposted
        {
            self.exchange.handle_offered(peer, header.message);
        }
    }

    pub(super) fn handle_action(&mut self, now: Instant, action: Action) {
        match action {
            Action::Send { to, message, span } => {
                self.send(now, to, message, span);
            }
            Action::Abort { to, message } => self.abort(to, message),
            Action::Post { from, handle, sequence, span } => self.post(from, handle, sequence, span),
            Action::Withdraw { from, handle } => self.withdraw(from, handle),
            // There is nothing to be squared.
            Action::Held { contributor, seq, elements: 0, .. } => {
                self.consensus.handle_held(now, contributor, seq, 0);
            }
            Action::Held { contributor, seq, span, elements } => {
                self.work.push_back(match self.near.alias(span) {
                    None => Work::Square { contributor, seq, span, elements },
                    Some(alias) => Work::SquareNear { contributor, seq, alias, elements },
                })
            }
            Action::Unfit { contributor, seq } => self.consensus.handle_unfit(now, contributor, seq),
            Action::Sum(sum) => {
                self.meter.handle_sum(u64::from(sum.out.len_bytes / 8) * sum.inputs.len() as u64);
                let aliases = self.aliases(&sum.inputs);
                self.work.push_back(match aliases.iter().any(Option::is_some) {
                    false => Work::Sum(sum),
                    true => Work::SumNear { sum, aliases },
                });
            }
            Action::Shard { context, owner } => self.consensus.handle_shard(now, context, owner),
            _ => {}
        }
    }

    pub(super) fn handle_link(&mut self, now: Instant, peer: NodeKey, event: Event) {
        match event {
            Event::Received { message, span } if is_near(message) => {
                self.handle_near_received(peer, message, span);
            }
            Event::Received { message, span } => {
                self.near.handle_payload(peer, message.handle, span);
                self.deliver(now, peer, message, span);
            }
            Event::Delivered { message } if message.handle == HANDLE_NEAR => {}
            Event::Delivered { message } if is_near(message) => {
                let handle = message.handle & !HANDLE_NOTICE;
                self.handle_delivered(now, peer, MessageId { handle, ..message });
            }
            Event::Delivered { message } => self.handle_delivered(now, peer, message),
            // A peer that says BYE is judged by the sideband, like one that falls silent.
            _ => {}
        }
    }

    /// A peer has all of a message, or knows where it lies.
    fn handle_delivered(&mut self, now: Instant, peer: NodeKey, message: MessageId) {
        match message.handle {
            HANDLE_CUT | HANDLE_SNAPSHOT => self.handle_snapshot_delivered(now, peer, message),
            _ => {
                if let Some(transfer) = self.transfers.by_message(message) {
                    transfer.undelivered = transfer.undelivered.saturating_sub(1);
                    if transfer.undelivered == 0 {
                        transfer.is_delivered = true;
                        let (transfer_ns, straddles) = (now.since(transfer.cut), transfer.straddles);
                        self.corrector.handle_transfer(transfer_ns);
                        if !straddles {
                            self.transfers.note_took(transfer_ns);
                        }
                    }
                }
            }
        }
    }
}

/// Slots whose times are remembered.
const TOOK: usize = 2;

fn is_near(message: MessageId) -> bool {
    message.handle == HANDLE_NEAR || message.handle & HANDLE_NOTICE != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_under_way_when_a_view_came_tells_nothing_of_the_lead() {
        let aim = Aimed { target: Frame(5), base: Version(1) };
        let mut transfers = Transfers::default();
        transfers.handle_cut(Instant(1), SlotSeq(7), 0, aim);
        transfers.handle_view();
        transfers.handle_cut(Instant(2), SlotSeq(8), 1, aim);
        assert_eq!((transfers.judge(SlotSeq(7)), transfers.judge(SlotSeq(8))), (None, Some(aim)));
        assert_eq!(transfers.judge(SlotSeq(8)), None, "once");
        assert_eq!(transfers.handle_done(SlotSeq(7)), Some(0));
    }

    #[test]
    fn the_shorter_of_two_counts_and_what_is_under_way_for_longer() {
        let aim = Aimed { target: Frame(5), base: Version(1) };
        let mut transfers = Transfers::default();
        let begin = |seq: u32, transfers: &mut Transfers| {
            transfers.handle_cut(Instant(100), SlotSeq(seq), seq as u8, aim);
            transfers.handle_sent(MessageId { handle: seq as u16, sequence: seq as u16 });
        };
        begin(1, &mut transfers);
        transfers.handle_given_up(Instant(1_000), SlotSeq(1));
        assert_eq!(transfers.took_ns(Instant(1_000), true), None, "one of two");
        transfers.handle_done(SlotSeq(1));
        transfers.handle_cut(Instant(100), SlotSeq(4), 0, aim);
        transfers.handle_given_up(Instant(101), SlotSeq(4));
        assert_eq!(transfers.took_ns(Instant(101), true), None, "nothing of it was under way");
        transfers.note_took(950);
        assert_eq!(transfers.took_ns(Instant(1_000), true), Some(900));
        begin(2, &mut transfers);
        assert_eq!(transfers.took_ns(Instant(1_000), true), Some(900));
        assert_eq!(
            transfers.took_ns(Instant(1_100), true),
            Some(1_000),
            "longer than both, and not there yet"
        );
        assert_eq!(transfers.took_ns(Instant(1_100), false), Some(900), "an owner is silent");
        transfers.handle_view();
        assert_eq!(transfers.took_ns(Instant(1_100), true), Some(900), "a view came in between");
        transfers.handle_given_up(Instant(102), SlotSeq(2));
        assert_eq!(transfers.took_ns(Instant(1_100), true), Some(900));
    }

    #[test]
    fn a_slot_that_nobody_lists_is_late_a_frame_after_its_close_once() {
        let mut transfers = Transfers::default();
        let aim = Aimed { target: Frame(5), base: Version(1) };
        for (seq, index) in [(SlotSeq(7), 0), (SlotSeq(8), 1)] {
            transfers.handle_cut(Instant(1), seq, index, aim);
            transfers.handle_sent(MessageId { handle: u16::from(index), sequence: seq.0 as u16 });
        }
        let delivered = transfers.slots.get_mut(&SlotSeq(8)).unwrap();
        (delivered.undelivered, delivered.is_delivered) = (0, true);
        assert_eq!(transfers.overdue(Frame(5)), [], "it may come within the frame");
        assert_eq!(transfers.overdue(Frame(6)), [aim], "the other one is there and waits for its turn");
        assert_eq!((transfers.overdue(Frame(7)), transfers.judge(SlotSeq(7))), (Vec::new(), None));
    }
}
