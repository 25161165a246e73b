//! Messages, values and views as they are drawn for tests: mostly near something real, sometimes absurd, always of a form
//! that passes every decoder. The hostile tests of the machines, the simulator's and the fuzzer's inputs come from here,
//! so a message that one of them can think of, all of them can.

use crate::sideband::{
    Accept, Commit, Epoch, Have, HaveEntry, Last, Leave, Message, Nack, Propose, Query, Ready, Shard,
    Snapshot,
};
use crate::value::{Entry, Manifest, Seat, Value, View};
use crate::{
    Ballot, Bounded, Digest, Frame, Incarnation, LogIndex, MEMBERS_MAX, MemberSet, NodeKey, Version,
};

/// Where a mesh is: what is drawn lies near it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    /// The view in force.
    pub view: View,
    /// The first index that is not learnt.
    pub index: LogIndex,
    /// The frame that closes next.
    pub frame: Frame,
    /// The last final version.
    pub version: Version,
}

/// Draws from any source of 64 random bits.
pub struct Draw<'a> {
    source: &'a mut dyn FnMut() -> u64,
}

impl core::fmt::Debug for Draw<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Draw")
    }
}

impl<'a> Draw<'a> {
    /// All chance comes from `source`: a seed's stream, or what a property test makes up and shrinks.
    pub fn new(source: &'a mut dyn FnMut() -> u64) -> Self {
        Self { source }
    }

    fn next(&mut self) -> u64 {
        (self.source)()
    }

    /// A number below `bound`; 0 where nothing is below it.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound.max(1)
    }

    /// True so many times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Mostly near something real, sometimes absurd.
    pub fn number(&mut self, near: u64) -> u64 {
        match self.below(8) {
            0 => self.next(),
            1 => u64::MAX - self.below(3),
            2 => 0,
            3 => 1 << self.below(64),
            _ => near.wrapping_add(self.below(5)).wrapping_sub(2),
        }
    }

    /// A ballot about `frame`.
    pub fn ballot(&mut self, frame: Frame) -> Ballot {
        Ballot { frame: Frame(self.number(frame.0)), term: self.number(1) as u32 }
    }

    /// A manifest of up to five entries.
    pub fn manifest(&mut self, near: &Near) -> Manifest {
        let mut entries = Bounded::default();
        for member in 0..self.below(6) {
            let entry = Entry {
                member: self.number(member) as u16,
                staleness: self.number(0) as u16,
                slot_seq: self.number(1) as u32,
                n_steps: self.number(1) as u32,
                weight: if self.chance(60) { 1 << 22 } else { self.next() as u32 },
                margin: self.next() as i16,
                eflags: self.number(0) as u16,
            };
            let _ = entries.push(entry); // Five fit.
        }
        let period_next_us = if self.chance(70) { near.view.period_us } else { self.next() as u32 };
        let view = if self.chance(70) { near.view.digest() } else { Digest([7; 16]) };
        let origin = Frame(self.number(near.frame.0));
        Manifest { origin, close: self.next() as i64, period_next_us, view, entries }
    }

    /// A view that follows the one in force, or pretends to.
    pub fn view(&mut self, near: &Near) -> View {
        let mut view = near.view;
        view.previous = if self.chance(70) { view.digest() } else { Digest([9; 16]) };
        view.number = self.number(u64::from(view.number) + 1) as u32;
        view.origin = Frame(self.number(near.frame.0));
        view.effective = Frame(self.number(view.origin.0));
        if self.chance(20) {
            view.period_us = self.next() as u32;
            view.anchor = Frame(self.number(near.frame.0));
            view.anchor_close = self.next() as i64;
        }
        let gone = self.chance(50).then(|| self.below(near.view.members.len() as u64) as usize);
        let mut members: Bounded<Seat, MEMBERS_MAX> = Bounded::default();
        for (at, seat) in near.view.members.iter().enumerate() {
            if gone != Some(at) {
                let _ = members.push(*seat); // As many as before.
            }
        }
        if self.chance(50) {
            let admitted = LogIndex(self.number(near.index.0));
            let (key, incarnation) = (NodeKey(self.number(14)), Incarnation(self.next()));
            let _ = members.push(Seat { key, incarnation, admitted }); // A full view stays as it is.
        }
        view.members = members;
        view
    }

    /// Any value.
    pub fn value(&mut self, near: &Near) -> Value {
        match self.below(3) {
            0 => Value::Manifest(self.manifest(near)),
            1 => Value::Seal(Frame(self.number(near.frame.0))),
            _ => Value::View(self.view(near)),
        }
    }

    /// What one member may say to another of the agreement, but DECIDED.
    pub fn message(&mut self, near: &Near) -> Message {
        let index = LogIndex(self.number(near.index.0));
        let at = self.ballot(near.frame);
        let digest = Digest([self.next() as u8; 16]);
        let accept = Accept { frame: at.frame, index, term: at.term, digest, ..Accept::default() };
        let version = Version(self.number(near.version.0));
        match self.below(13) {
            0 => Message::Query(Query { index, frame: at.frame, term: at.term, ..Query::default() }),
            1 => Message::Last(Last {
                index,
                ballot: at,
                accepted: self.ballot(near.frame),
                version,
                context: LogIndex(self.number(near.index.0)),
                shards: MemberSet(self.next() as u32),
                value: if self.chance(50) { Some(self.value(near)) } else { None },
            }),
            2 => Message::Propose(Propose { index, ballot: at, manifest: self.manifest(near) }),
            3 => Message::Epoch(Epoch { index, ballot: at, view: self.view(near) }),
            4 => Message::Accept(accept),
            5 => Message::Seal(accept),
            6 => {
                Message::Commit(Commit { frame: at.frame, index, term: at.term, digest, ..Commit::default() })
            }
            7 => Message::Ready(Ready {
                slot_seq: self.number(1),
                target: Frame(self.number(near.frame.0)),
                base_version: version,
                n_steps: self.number(1) as u32,
                ..Ready::default()
            }),
            8 => {
                let entry = HaveEntry {
                    member: self.number(1) as u16,
                    slot_seq: self.number(1) as u32,
                    sumsq: self.next(),
                    ..HaveEntry::default()
                };
                Message::Have(Have { frame: at.frame, entries: Bounded::from_slice(&[entry; 64]) })
            }
            9 => Message::Leave(Leave { incarnation: Incarnation(self.next()) }),
            10 => Message::Shard(Shard { index, version, digest }),
            11 => Message::Nack(Nack { code: self.number(3) as u16, arg: self.number(1), ..Nack::default() }),
            _ => Message::Snapshot(Snapshot { op: self.below(4) as u8, index, ..Snapshot::default() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sideband::{DATAGRAM_BYTES_MAX, Header, decode, encode};

    #[test]
    fn what_is_drawn_repeats_with_its_source_and_is_mostly_sound() {
        let mut view = View { period_us: 250_000, ..View::default() };
        for key in 10..14 {
            view.members.push(Seat { key: NodeKey(key), ..Seat::default() }).expect("room");
        }
        let near = Near { view, index: LogIndex(6), frame: Frame(41), version: Version(3) };
        let draw = |seed: u64| {
            let mut word = seed;
            let mut source = || {
                word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
                (word ^ word >> 31).wrapping_mul(0xBF58_476D_1CE4_E5B9)
            };
            let mut draw = Draw::new(&mut source);
            (0..2_000).map(|_| draw.message(&near)).collect::<std::vec::Vec<_>>()
        };
        let first = draw(1);
        assert_eq!(first, draw(1));
        assert_ne!(first, draw(2));
        let mut room = [0; DATAGRAM_BYTES_MAX];
        let sound = first.iter().filter(|message| {
            let header = Header::default();
            decode(encode(&header, message, &mut room)) == Ok((header, **message))
        });
        let sound = sound.count();
        // The rest has a number that no decoder takes, and is refused by it.
        assert!(sound > 800, "{sound}");
    }
}
