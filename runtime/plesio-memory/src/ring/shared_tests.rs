//! A shared ring inside one process: the worker's maps, and a holder's maps of the same files. The same with real
//! processes that are killed is a test of its own.

use super::*;
use crate::{Access, ArenaPlan, Foreign, SegmentPlan};

const LEN_ELEMS: usize = 1_000;

struct Shared {
    arena: Arena,
    plan: RingPlan,
    words: Segment,
    producer: Producer,
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Another map of the same words.
fn again(words: &Segment) -> Segment {
    let file = words.file().unwrap().try_clone_to_owned().unwrap();
    Segment::attach(file, words.len_bytes(), Access::Shared, uid()).unwrap()
}

impl Shared {
    fn new(depth: usize) -> Self {
        let mut plan = ArenaPlan::new("shared-ring", 1 << 20);
        let shape = plan.push_ring(depth, LEN_ELEMS);
        let (arena, _) = Arena::map(&plan).unwrap();
        let words = SegmentPlan {
            name: "shared-ring".into(),
            len_bytes: depth * 64,
            access: Access::Shared,
            budget_bytes: 4_096,
        };
        let (words, _) = Segment::create(&words).unwrap();
        let producer = shared_ring(&arena, &shape, SlotSeq(1), again(&words)).unwrap();
        Self { arena, plan: shape, words, producer }
    }

    fn holder(&self, id: u8) -> Holder {
        let file = self.arena.file().unwrap().try_clone_to_owned().unwrap();
        let elements = Foreign::attach(file, self.arena.memory().1, uid()).unwrap();
        Holder::new(again(&self.words), elements, &self.plan, id).unwrap()
    }

    fn cut(&mut self, value: i32) -> SlotInfo {
        match cut(&mut self.producer, value) {
            CutOutcome::Cut(info) => info,
            other => panic!("{other:?}"),
        }
    }

    fn reclaim(&mut self) -> Vec<(Fate, i32)> {
        let mut back = Vec::new();
        while let Some((info, _)) = self.producer.poll_returned() {
            self.producer.reclaim(info.index, |_, fate, elements| back.push((fate, elements[0]))).unwrap();
        }
        back
    }
}

fn cut(producer: &mut Producer, value: i32) -> CutOutcome<'_> {
    let meta = CutMeta { base_version: Version(3), target_frame: Frame(9), n_steps: 2 };
    producer.cut(meta, |slot| {
        slot.fill(value);
        true
    })
}

fn elements(holder: &Holder, held: &Held) -> Result<Vec<i32>, RingError> {
    let mut bytes = vec![0; LEN_ELEMS * 4];
    holder.read(held, &mut bytes)?;
    Ok(bytes.chunks_exact(4).map(|bytes| i32::from_ne_bytes(bytes.try_into().unwrap())).collect())
}

#[test]
fn a_slot_goes_round_between_maps() {
    let mut ring = Shared::new(4);
    let mut holder = ring.holder(1);
    assert_eq!(holder.poll_cut(), None);
    let (first, second) = (ring.cut(5), ring.cut(6));
    assert_eq!(holder.poll_cut(), Some(first), "the oldest");
    assert_eq!((holder.level(), holder.occupancy().held_bytes()), (Level::Medium, 8_000));
    let held = holder.announce(first.index).unwrap();
    assert_eq!(held.info, first);
    assert_eq!(elements(&holder, &held).unwrap(), [5; LEN_ELEMS]);
    let held = holder.offer(held).unwrap();
    assert!(holder.holds(&held));
    assert_eq!(elements(&holder, &held).unwrap(), [5; LEN_ELEMS]);
    holder.commit(held).unwrap();
    let held = holder.announce(second.index).unwrap();
    assert_eq!(holder.announce(second.index), Err(RingError::State(SlotState::Sending)));
    holder.fold(held).unwrap();
    assert_eq!(ring.reclaim(), [(Fate::Committed, 5), (Fate::Folded, 6)]);
    assert_eq!(holder.announce(4), Err(RingError::NoSlot));
    assert_eq!(ring.producer.occupancy().free, 3);
}

#[test]
fn what_a_dead_holder_had_comes_back_and_its_word_counts_no_more() {
    for offered in [false, true] {
        let mut ring = Shared::new(4);
        let (mut dead, mut living) = (ring.holder(1), ring.holder(2));
        let (first, second) = (ring.cut(5), ring.cut(6));
        let mut held = dead.announce(first.index).unwrap();
        let other = living.announce(second.index).unwrap();
        if offered {
            held = dead.offer(held).unwrap();
        }
        assert_eq!(ring.producer.recover(|_| true), 0, "all live");
        assert_eq!(ring.producer.recover(|id| id == 2), 1);
        assert_eq!(elements(&dead, &held), Err(RingError::Revoked));
        assert_eq!(ring.reclaim(), [(Fate::Folded, 5)]);
        // It was not dead at all, and the slot is somebody else's by now.
        ring.cut(7);
        ring.cut(8);
        let taken = living.announce(living.poll_cut().unwrap().index).unwrap();
        assert_eq!(dead.commit(held), Err(RingError::Revoked));
        assert!(living.holds(&taken) && living.holds(&other));
        living.commit(taken).unwrap();
        living.commit(other).unwrap();
        assert_eq!(ring.reclaim().iter().map(|(_, value)| value).sum::<i32>(), 6 + 7);
    }
}

#[test]
fn of_a_dead_workers_ring_whole_slots_are_read_and_torn_ones_are_not_offered() {
    let mut ring = Shared::new(4);
    let mut holder = ring.holder(1);
    let (first, second) = (ring.cut(5), ring.cut(6));
    // As a kill inside a merge leaves it.
    word::enter(ring.words.word(usize::from(second.index) * 64 + 28).unwrap(), SlotState::Merging);
    drop(ring);
    assert_eq!(holder.poll_cut(), Some(first));
    let held = holder.announce(first.index).unwrap();
    assert_eq!(elements(&holder, &held).unwrap(), [5; LEN_ELEMS]);
    assert_eq!(holder.poll_cut(), None);
    assert_eq!(holder.announce(second.index), Err(RingError::State(SlotState::Merging)));
}

/// Others write the words as they like: the worker goes on, and gets every slot back when it takes stock.
#[test]
fn words_that_others_write_stop_nobody() {
    let mut ring = Shared::new(4);
    let mut holder = ring.holder(1);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..20_000 {
        let bits = next();
        let at = (bits % 64) as usize * 4;
        // Often a state that exists, else nobody would act on it.
        let value = if bits & 1 << 40 == 0 { (bits >> 32) as u32 } else { (bits >> 32) as u32 & 0xffff_0107 };
        ring.words.word(at).unwrap().store(value, Ordering::Relaxed);
        let _ = cut(&mut ring.producer, 1);
        if let Some(info) = holder.poll_cut()
            && let Ok(held) = holder.announce(info.index)
        {
            let _ = elements(&holder, &held);
            let _ = holder.commit(held);
        }
        if let Some((info, _)) = ring.producer.poll_returned() {
            let _ = ring.producer.reclaim(info.index, |_, _, elements| assert_eq!(elements.len(), LEN_ELEMS));
        }
        if round % 16 == 0 {
            ring.producer.recover(|id| id == 1);
            let _ = (holder.occupancy(), ring.producer.occupancy().level());
        }
    }
    ring.producer.recover(|_| false);
    while let Some(info) = holder.poll_cut() {
        let held = holder.announce(info.index).unwrap();
        holder.fold(held).unwrap();
    }
    ring.reclaim();
    assert_eq!(ring.producer.occupancy().free, 3);
    ring.cut(9);
}

#[test]
fn what_does_not_fit_is_refused() {
    let ring = Shared::new(4);
    let elements = || {
        let file = ring.arena.file().unwrap().try_clone_to_owned().unwrap();
        Foreign::attach(file, ring.arena.memory().1, uid()).unwrap()
    };
    let with = |plan: RingPlan, id| Holder::new(again(&ring.words), elements(), &plan, id).map(|_| ());
    assert_eq!(with(ring.plan, 0), Err(RingError::Shape));
    assert_eq!(with(RingPlan { depth: 8, ..ring.plan }, 1), Err(RingError::Shape));
    assert_eq!(with(RingPlan { depth: 3, ..ring.plan }, 1), Err(RingError::Shape));
    assert_eq!(with(RingPlan { len_elems: LEN_ELEMS + 1, ..ring.plan }, 1), Err(RingError::Shape));
    assert_eq!(with(RingPlan { len_elems: usize::MAX, ..ring.plan }, 1), Err(RingError::Shape));
    assert_eq!(with(RingPlan { first_region: u16::MAX, ..ring.plan }, 1), Err(RingError::Shape));
    let short = SegmentPlan {
        name: "short".into(),
        len_bytes: 4 * 64 - 1,
        access: Access::Shared,
        budget_bytes: 4_096,
    };
    let short = Segment::create(&short).unwrap().0;
    assert_eq!(Holder::new(again(&short), elements(), &ring.plan, 1).map(|_| ()), Err(RingError::Shape));
}
