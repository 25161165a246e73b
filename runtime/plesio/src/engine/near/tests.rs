//! A member whose neighbour says what it should, and what it should not.

use super::*;
use crate::engine::roster::tests::{config, entry, ids};
use crate::engine::{EngineConfig, Entrance, Period, genesis};
use plesio_consensus::OwnSlot;
use plesio_wire::near::{NEAR_BYTES, near_bytes};
use plesio_wire::{Digest, Frame, Incarnation, SlotSeq, Version};

const OURS: u64 = 100;
const THEIRS: u64 = 200;
const NOW: Instant = Instant(1);

struct Member {
    engine: Engine,
    peer: NodeKey,
}

fn member() -> Member {
    let ids = ids();
    let config = EngineConfig { arena: Some(OURS), ..config(&ids) };
    let lives = ids.iter().zip([100, 200, 300]);
    let entries: Vec<_> = lives.map(|(id, port)| (entry(*id, port), Incarnation(u64::from(port)))).collect();
    let (roster, view) =
        genesis(&entries, &Period::of(config.period_ns), &config.common()).expect("three nodes");
    let entrance = Entrance::Genesis(roster, Box::new(view));
    let engine = Engine::new(config, entrance, Instant(0)).expect("a fitting configuration");
    Member { engine, peer: ids[1].key() }
}

impl Member {
    fn work(&mut self) -> Vec<Work> {
        std::iter::from_fn(|| self.engine.poll_work()).collect()
    }

    /// What the member says of memory.
    fn said(&mut self) -> Vec<(NodeKey, NearSays, u64)> {
        let work = self.work().into_iter();
        work.filter_map(|work| match work {
            Work::Tell { to, note: Note::Word(word), .. } => Some((to, word.says, word.arena)),
            _ => None,
        })
        .collect()
    }

    fn hear(&mut self, says: NearSays, arena: u64) {
        let message = MessageId { handle: HANDLE_NEAR, sequence: 1 };
        self.engine.handle_read(NOW, self.peer, message, &near_bytes(&NearWord { says, arena }));
    }

    /// A notice of slot 0 of the peer's arrives.
    fn notice(&mut self, sequence: u16, bytes: &[u8]) {
        let message = MessageId { handle: HANDLE_NOTICE, sequence };
        let cell =
            Span { region: self.engine.config.regions.cells, offset_bytes: 0, len_bytes: NEAR_BYTES as u32 };
        self.engine.handle_near_received(self.peer, message, cell);
        let read = Work::Read { peer: self.peer, message, cell };
        if self.work().contains(&read) {
            self.engine.handle_read(NOW, self.peer, message, bytes);
        }
    }

    /// Its part of slot 0, as the peer would tell of it.
    fn told(&self) -> Notice {
        let regions = self.engine.config.regions;
        let me = usize::from(self.engine.consensus().view().index_of(self.engine.key).expect("a member"));
        Notice { generation: 2, arena: THEIRS, span: regions.slot_part(0, &regions.parts(3, &[]), me) }
    }

    /// The peer's arena is mapped.
    fn map(&mut self) {
        self.work();
        self.hear(NearSays::Open, THEIRS);
        assert!(self.work().contains(&Work::Map((self.peer, THEIRS))));
        self.engine.handle_mapped(NOW, (self.peer, THEIRS));
        assert_eq!(self.said(), [(self.peer, NearSays::Mapped, THEIRS)]);
    }
}

#[test]
fn a_slot_is_squared_where_it_lies_until_it_is_torn() {
    let mut member = member();
    let said = member.said();
    assert_eq!(said.len(), 2, "both peers are told that there is a door");
    assert!(said.iter().all(|(_, says, arena)| (*says, *arena) == (NearSays::Open, OURS)));
    member.map();
    let peer = member.peer;
    member.engine.exchange.handle_ready(peer, SlotSeq(1));
    let told = member.told();
    member.notice(1, &near_bytes(&told));
    let squares = member.work().into_iter().filter_map(|work| match work {
        Work::SquareNear { contributor, seq, alias, .. } => Some((contributor, seq, alias.span)),
        _ => None,
    });
    assert_eq!(squares.collect::<Vec<_>>(), [(peer, SlotSeq(1), told.span)]);
    assert_eq!(member.engine.near_bytes(), (u64::from(told.span.len_bytes), 0));
    // Its owner takes one back before that is read: nobody asks for it, and the next one is read in place again.
    let alias = Alias { arena: (peer, THEIRS), span: told.span, generation: told.generation };
    member.engine.handle_gone(NOW, alias);
    assert_eq!(member.said(), []);
    member.notice(5, &near_bytes(&told));
    assert!(member.work().iter().any(|work| matches!(work, Work::SquareNear { seq: SlotSeq(5), .. })));
    member.engine.handle_torn(NOW, &[(peer, THEIRS)]);
    assert_eq!(member.said(), [(peer, NearSays::Unmapped, THEIRS)]);
    // Once; what still comes is refused, and its window takes payload.
    member.engine.handle_torn(NOW, &[(peer, THEIRS)]);
    member.notice(6, &near_bytes(&told));
    assert_eq!(member.said(), []);
    assert_eq!(member.engine.near().refused(), 3);
}

#[test]
fn what_was_taken_before_a_refused_notice_stays_held_until_it_comes_as_payload() {
    let mut member = member();
    member.map();
    let peer = member.peer;
    member.engine.exchange.handle_ready(peer, SlotSeq(1));
    let told = member.told();
    let posted = |member: &mut Member| {
        let regions = member.engine.config.regions;
        let parts = regions.parts(3, &[]);
        let view = *member.engine.consensus().view();
        let index = |key| usize::from(view.index_of(key).expect("a member"));
        regions.window(0, false, &parts, index(member.engine.key), index(peer))
    };
    let window = posted(&mut member);
    member.notice(1, &near_bytes(&told));
    member.work();
    assert!(member.engine.near().alias(window).is_some(), "it lies over there");
    member.notice(2, &[0xFF; NEAR_BYTES]);
    let work = member.work();
    let says = |work: &Work| {
        matches!(work, Work::Tell { note: Note::Word(NearWord { says: NearSays::Unmapped, .. }), .. })
    };
    assert!(work.iter().any(says), "payload is asked for");
    assert!(!work.contains(&Work::Unmap((peer, THEIRS))), "the memory is still needed");
    assert!(member.engine.near().alias(window).is_some(), "and read for sums as before");
    member.engine.near.handle_payload(peer, 0, window);
    assert_eq!(member.engine.near().alias(window), None, "it lies here now");
    member.engine.forget_told();
    assert!(member.work().contains(&Work::Unmap((peer, THEIRS))));
}

#[test]
fn no_notice_is_taken_that_does_not_fit() {
    let good = member().told();
    let span = good.span;
    let liars = [
        near_bytes(&Notice { arena: THEIRS + 1, ..good }).to_vec(),
        near_bytes(&Notice { span: Span { region: span.region + 1, ..span }, ..good }).to_vec(),
        near_bytes(&Notice { span: Span { region: u16::MAX, ..span }, ..good }).to_vec(),
        near_bytes(&Notice { span: Span { len_bytes: span.len_bytes - 4, ..span }, ..good }).to_vec(),
        near_bytes(&Notice { generation: 3, ..good }).to_vec(),
        near_bytes(&NearWord { says: NearSays::Mapped, arena: THEIRS }).to_vec(),
        near_bytes(&good)[..31].to_vec(),
        vec![0xFF; NEAR_BYTES],
        Vec::new(),
    ];
    for bytes in liars {
        let mut member = member();
        member.map();
        let peer = member.peer;
        member.engine.exchange.handle_ready(peer, SlotSeq(1));
        member.notice(1, &bytes);
        assert_eq!(member.engine.near().refused(), 1, "{bytes:?}");
        assert_eq!(member.said(), [(peer, NearSays::Unmapped, THEIRS)], "{bytes:?}");
        assert_eq!(member.engine.near_bytes(), (0, 0));
    }
}

#[test]
fn who_maps_the_arena_is_sent_notices_until_it_cannot_use_them() {
    let mut member = member();
    member.work();
    member.hear(NearSays::Mapped, OURS + 1);
    member.hear(NearSays::Mapped, OURS);
    let slot = OwnSlot {
        seq: SlotSeq(1),
        base: Version(0),
        target: Frame(1),
        n_steps: 1,
        digest: Digest::default(),
    };
    member.engine.handle_cut(NOW, 0, slot);
    let told = member.work().into_iter().find_map(|work| match work {
        Work::Tell { to, message, cell, note: Note::Notice(span) } => Some((to, message, cell, span)),
        _ => None,
    });
    let (to, message, cell, span) = told.expect("a notice suffices");
    assert_eq!(to, member.peer);
    let others = || member.engine.transfers.fill();
    assert_eq!(others(), 1);
    member.engine.handle_written(NOW, to, message, cell, Note::Notice(span), true);
    let messages = |member: &mut Member| {
        let stats = member.engine.links.exchange_mut(to).expect("a session").stats();
        stats.messages
    };
    assert_eq!(messages(&mut member), 1);
    // It asks for payload: the notice is taken back, the slot itself goes.
    member.hear(NearSays::Unmapped, OURS);
    assert_eq!(messages(&mut member), 1);
    assert!(!member.work().iter().any(|work| matches!(work, Work::Tell { note: Note::Notice(_), .. })));
    let mut train = plesio_proto::Train::default();
    let mut spans = Vec::new();
    while let Some((to, next)) = member.engine.poll_transmit_into(NOW, &mut train) {
        if to == member.peer && matches!(next, plesio_proto::Next::Train) {
            spans.extend(train.iter().map(|(header, span)| (header.message.handle, *span)));
        }
    }
    assert_eq!(spans, [(0, span)]);
}
