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
    /// It was cut, or the one before it was there: from then on its own way is what it takes.
    began: Instant,
    index: u8,
    undelivered: u32,
    /// When every owner had it first, as far as was heard.
    delivered: Option<Instant>,
    /// The corrector has heard of it.
    is_judged: bool,
    aim: Aimed,
    /// It was cut while one before it was on its way.
    is_behind: bool,
    /// Its owners changed while it was on its way, or it stood still.
    straddles: bool,
}

/// What a slot was cut for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Aimed {
    pub(super) target: Frame,
    pub(super) base: Version,
}

/// A slot whose punctuality is known now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Judged {
    pub(super) aim: Aimed,
    /// It waited for one before it: late or not, no other lead would have changed that.
    pub(super) is_behind: bool,
    /// When every owner had it at the latest; none while one lacks it.
    pub(super) delivered: Option<Instant>,
}

impl Transfer {
    /// Some owner lacks it and never had it.
    fn is_on_its_way(&self) -> bool {
        self.undelivered > 0 && self.delivered.is_none()
    }

    /// It is on its way, and nothing but the way there is the reason.
    fn is_under_way(&self) -> bool {
        self.is_on_its_way() && !self.straddles
    }

    fn judged(&mut self) -> Judged {
        self.is_judged = true;
        Judged { aim: self.aim, is_behind: self.is_behind, delivered: self.delivered }
    }
}

impl Transfers {
    pub(super) fn handle_cut(&mut self, now: Instant, seq: SlotSeq, index: u8, aim: Aimed) {
        let transfer = Transfer {
            began: now,
            index,
            undelivered: 0,
            delivered: None,
            is_judged: false,
            aim,
            is_behind: self.slots.values().any(Transfer::is_on_its_way),
            straddles: false,
        };
        self.slots.insert(seq, transfer);
    }

    /// A slot is listed now: what to judge it by, if that is news; it is told once.
    pub(super) fn judge(&mut self, seq: SlotSeq) -> Option<Judged> {
        let transfer = self.slots.get_mut(&seq)?;
        (!transfer.straddles && !transfer.is_judged).then(|| transfer.judged())
    }

    /// Slots that were due a whole frame before the close of `closed` and that some owner still lacks; each is told once.
    pub(super) fn overdue(&mut self, closed: Frame) -> Vec<Judged> {
        let is_due = |transfer: &Transfer| {
            let is_late = transfer.aim.target < closed && transfer.is_on_its_way();
            is_late && !transfer.straddles && !transfer.is_judged
        };
        self.slots.values_mut().filter(|transfer| is_due(transfer)).map(Transfer::judged).collect()
    }

    /// A part of a slot is where it belongs. How long the slot took on its own way, when that was the last part; those cut
    /// meanwhile begin theirs.
    fn handle_delivered(&mut self, now: Instant, message: MessageId) -> Option<u64> {
        let (seq, transfer) = self.by_message(message)?;
        transfer.undelivered = transfer.undelivered.saturating_sub(1);
        if transfer.undelivered > 0 {
            return None;
        }
        transfer.delivered.get_or_insert(now);
        let (took_ns, straddles) = (now.since(transfer.began), transfer.straddles);
        if !straddles {
            self.note_took(took_ns);
        }
        let later = (std::ops::Bound::Excluded(seq), std::ops::Bound::Unbounded);
        for (_, next) in self.slots.range_mut(later).filter(|(_, next)| next.is_on_its_way()) {
            next.began = now;
        }
        Some(took_ns)
    }

    /// `T_xfer` as the frame period follows it: the shorter one of the newest two, or what the oldest that is still under way
    /// has taken so far if that is longer. On a link that is slow enough nothing is finished for many frames. None before
    /// there were two.
    pub(super) fn took_ns(&self, now: Instant, is_heard: bool) -> Option<u64> {
        let finished_ns = *self.took.iter().min().filter(|_| self.took.len() == TOOK)?;
        // What a silent owner does not acknowledge says nothing of the link.
        let under_way = self.slots.values().filter(|transfer| is_heard && transfer.is_under_way());
        let oldest_ns = under_way.map(|transfer| now.since(transfer.began)).max();
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
        if let Some(took_ns) = slow.map(|transfer| now.since(transfer.began)) {
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
        if let Some((_, transfer)) = self.by_message(message) {
            transfer.undelivered += 1;
        }
    }

    fn by_message(&mut self, message: MessageId) -> Option<(SlotSeq, &mut Transfer)> {
        self.slots
            .iter_mut()
            .find(|(seq, transfer)| {
                u16::from(transfer.index) == message.handle && seq.0 as u16 == message.sequence
            })
            .map(|(seq, transfer)| (*seq, transfer))
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
                if let Some(took_ns) = self.transfers.handle_delivered(now, message) {
                    self.corrector.handle_transfer(took_ns);
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

    const AIM: Aimed = Aimed { target: Frame(5), base: Version(1) };

    fn message(seq: u32, index: u8) -> MessageId {
        MessageId { handle: index.into(), sequence: seq as u16 }
    }

    /// Cuts it, and sends it to so many owners.
    fn cut(transfers: &mut Transfers, now: u64, (seq, index): (u32, u8), owners: u32) {
        transfers.handle_cut(Instant(now), SlotSeq(seq), index, AIM);
        (0..owners).for_each(|_| transfers.handle_sent(message(seq, index)));
    }

    fn judged(is_behind: bool) -> Judged {
        Judged { aim: AIM, is_behind, delivered: None }
    }

    #[test]
    fn what_was_under_way_when_a_view_came_tells_nothing_of_the_lead() {
        let mut transfers = Transfers::default();
        cut(&mut transfers, 1, (7, 0), 0);
        transfers.handle_view();
        cut(&mut transfers, 2, (8, 1), 0);
        let told = (transfers.judge(SlotSeq(7)), transfers.judge(SlotSeq(8)));
        assert_eq!(told, (None, Some(judged(false))));
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
        cut(&mut transfers, 1, (7, 0), 1);
        cut(&mut transfers, 1, (8, 1), 1);
        assert_eq!(transfers.handle_delivered(Instant(2), message(8, 1)), Some(1));
        assert_eq!(transfers.overdue(Frame(5)), [], "it may come within the frame");
        let overdue = transfers.overdue(Frame(6));
        assert_eq!(overdue, [judged(false)], "the other one is there and waits for its turn");
        assert_eq!((transfers.overdue(Frame(7)), transfers.judge(SlotSeq(7))), (Vec::new(), None));
    }

    #[test]
    fn a_slot_cut_while_another_is_on_its_way_is_behind_and_its_own_way_begins_when_that_one_is_there() {
        let mut transfers = Transfers::default();
        cut(&mut transfers, 100, (7, 0), 2);
        assert_eq!(transfers.handle_delivered(Instant(130), message(7, 0)), None, "one owner lacks it");
        cut(&mut transfers, 200, (8, 1), 2);
        cut(&mut transfers, 300, (9, 2), 2);
        assert_eq!(transfers.handle_delivered(Instant(350), message(7, 0)), Some(250));
        for (seq, index, at, took_ns) in [(8, 1, 390, 40), (9, 2, 450, 60)] {
            assert_eq!(transfers.handle_delivered(Instant(at - 5), message(seq, index)), None);
            assert_eq!(transfers.handle_delivered(Instant(at), message(seq, index)), Some(took_ns));
        }
        // All there: the next one waits for nobody, whether those are settled or not.
        cut(&mut transfers, 500, (10, 3), 2);
        let behind: Vec<bool> =
            (8..=10).filter_map(|seq| transfers.judge(SlotSeq(seq))).map(|one| one.is_behind).collect();
        assert_eq!(behind, [true, true, false]);
        assert_eq!(
            transfers.judge(SlotSeq(7)),
            Some(Judged { delivered: Some(Instant(350)), ..judged(false) })
        );
    }

    #[test]
    fn a_slot_that_is_sent_again_after_a_view_holds_up_those_cut_meanwhile() {
        let mut transfers = Transfers::default();
        cut(&mut transfers, 1, (7, 0), 2);
        transfers.handle_view();
        transfers.handle_sent(message(7, 0));
        cut(&mut transfers, 2, (8, 1), 2);
        assert_eq!(transfers.judge(SlotSeq(8)), Some(judged(true)));
        assert_eq!(transfers.handle_delivered(Instant(9), message(1, 3)), None, "nobody's");
    }
}
