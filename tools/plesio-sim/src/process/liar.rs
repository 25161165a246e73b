//! A member that lies: what its machines say is bent between them and the network, so a lie is always made of the real
//! thing and passes every check of form.
//!
//! Links are plain here: sessions, and the replay of their first messages (T5), are not simulated; `plesio-session` has
//! tests of its own for that.

use plesio_wire::data::Header;
use plesio_wire::sideband::{DATAGRAM_BYTES_MAX, Message, decode, encode};
use plesio_wire::{MemberSet, Took};

/// What a host's process says that is not so.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Lies {
    /// Its beats accuse everybody else.
    pub(crate) accuse: bool,
    /// It sends no data.
    pub(crate) stall: bool,
    /// Owners with odd numbers get another contribution than it announced.
    pub(crate) forge: bool,
    /// Hosts with odd numbers get other proposals and other sums.
    pub(crate) equivocate: bool,
    /// It forwards no order of the operators, follows none, and its beats know of none.
    pub(crate) suppress: bool,
    /// Its beats say that its slots and steps take an hour.
    pub(crate) drag: bool,
}

/// A lie about payload, as far as somebody has to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lie {
    /// A contribution is not what was announced.
    Contribution,
    /// A sum is not the same for all.
    Sum,
}

impl Lies {
    /// What goes to host `to` in place of `bytes`, and the index at which another proposal than the real one is told.
    pub(super) fn sideband(self, to: u8, members: usize, bytes: &[u8]) -> Option<(Vec<u8>, Option<u64>)> {
        if !self.accuse && !self.equivocate && !self.suppress && !self.drag {
            return None;
        }
        let (header, mut message) = decode(bytes).ok()?;
        let mut index = None;
        match &mut message {
            Message::ShortBeat(beat) if self.accuse || self.suppress => {
                bend(self, members, &mut beat.suspect, &mut beat.halt_sequence);
            }
            Message::Beat(beat) if self.accuse || self.suppress || self.drag => {
                bend(self, members, &mut beat.suspect, &mut beat.halt_sequence);
                if self.drag {
                    (beat.transfer, beat.step_us) = (Took(u8::MAX), u32::MAX);
                }
            }
            Message::Propose(body) if self.equivocate && is_odd(to) => {
                // One entry less is a manifest as good as the other.
                let entries = &mut body.manifest.entries;
                let (_, less) = entries.split_last()?;
                *entries = plesio_wire::Bounded::from_slice(Some(less).filter(|less| !less.is_empty())?);
                index = Some(body.index.0);
            }
            _ => return None,
        }
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        Some((encode(&header, &message, &mut buffer).to_vec(), index))
    }

    /// Whether it keeps this to itself, on its way out as on its way in.
    pub(super) fn keeps(self, bytes: &[u8]) -> bool {
        self.suppress
            && matches!(
                decode(bytes),
                Ok((_, Message::Halt(_) | Message::Resume(_) | Message::OrderAck(_) | Message::Relay(_)))
            )
    }

    /// Bends a chunk for host `to`.
    pub(super) fn payload(self, to: u8, header: &Header, payload: &mut [u8]) -> Option<Lie> {
        let lie = match header.message.handle {
            ..0x100 if self.forge => Lie::Contribution,
            0x100..0x200 if self.equivocate => Lie::Sum,
            _ => return None,
        };
        let first = payload.first_mut().filter(|_| is_odd(to))?;
        *first ^= 1;
        Some(lie)
    }
}

/// What a beat says of the others, and of orders.
fn bend(lies: Lies, members: usize, suspect: &mut MemberSet, halt_sequence: &mut u32) {
    if lies.accuse {
        *suspect = MemberSet::first(members);
    }
    if lies.suppress {
        *halt_sequence = 0;
    }
}

fn is_odd(host: u8) -> bool {
    host % 2 == 1
}

#[cfg(test)]
impl super::Process {
    /// The cut of a state that is another one than it should be: the digest fits that one.
    pub(super) fn fake(&mut self, cut: Vec<u8>) -> Result<Vec<u8>, plesio_consensus::SnapshotError> {
        if !self.fakes {
            return Ok(cut);
        }
        let mut cut = plesio_consensus::SnapshotCut::decode(&cut)?;
        let mut state = Vec::new();
        self.store.copy_state(&mut state);
        state[0] ^= 1;
        cut.digest = plesio_wire::Digest::of(&state);
        Ok(cut.encode())
    }

    /// The staged state becomes the one that the faked cut speaks of.
    pub(super) fn bend_snapshot(&mut self) -> Result<(), plesio::store::StoreError> {
        if self.fakes {
            let region = self.regions.snapshot_out;
            let at = plesio::store::snapshot_bytes(self.regions.elements, plesio::Outer::Sum)
                - 8 * self.regions.elements;
            let mut out = self.store.arena().lease(region)?;
            out.as_bytes_mut()[at as usize] ^= 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plesio_wire::draw::{Draw, Near};
    use plesio_wire::sideband::{Propose, ShortBeat};
    use plesio_wire::value::Entry;

    fn told(lies: Lies, to: u8, message: &Message) -> Option<(Message, Option<u64>)> {
        let header = plesio_wire::sideband::Header { mesh: 1, view: 2, src: 3, dst: 4, sequence: 5 };
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let bytes = encode(&header, message, &mut buffer).to_vec();
        let (bent, index) = lies.sideband(to, 4, &bytes)?;
        let (read, message) = decode(&bent).expect("a lie has the form of the truth");
        assert_eq!(read, header);
        Some((message, index))
    }

    proptest::proptest! {
        /// Whatever it is that a liar has to say: what it says instead has that form, and names the index it lies about.
        #[test]
        fn every_lie_has_the_form_of_the_truth(seed: u64, to in 0u8..8) {
            let mut random = crate::random::Random::new(seed, "draw");
            let mut source = || random.next();
            let near = Near {
                view: plesio_wire::value::View::default(),
                index: plesio_wire::LogIndex(9),
                frame: plesio_wire::Frame(4),
                version: plesio_wire::Version(2),
            };
            let message = Draw::new(&mut source).message(&near);
            let header = plesio_wire::sideband::Header::default();
            let mut buffer = [0; DATAGRAM_BYTES_MAX];
            let is_sound = decode(encode(&header, &message, &mut buffer)).is_ok();
            let lies = Lies { accuse: true, equivocate: true, ..Lies::default() };
            let bent = if is_sound { told(lies, to, &message) } else { None };
            match (&message, bent) {
                (Message::Propose(truth), Some((Message::Propose(lie), index))) => {
                    assert_eq!(index, Some(truth.index.0));
                    assert_eq!(lie.manifest.entries.len() + 1, truth.manifest.entries.len());
                }
                (_, bent) => assert_eq!(bent, None, "a liar of this kind bends proposals alone"),
            }
        }
    }

    #[test]
    fn beats_accuse_and_every_other_host_hears_another_proposal() {
        let accuses = Lies { accuse: true, ..Lies::default() };
        let beat = Message::ShortBeat(ShortBeat::default());
        let bent = Message::ShortBeat(ShortBeat { suspect: MemberSet::first(4), ..ShortBeat::default() });
        assert_eq!(told(accuses, 1, &beat), Some((bent, None)));
        let suppresses = Lies { suppress: true, ..Lies::default() };
        let knows = Message::ShortBeat(ShortBeat { halt_sequence: 3, ..ShortBeat::default() });
        assert_eq!(told(suppresses, 1, &knows), Some((beat, None)));
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let order = encode(&Default::default(), &Message::Halt(Default::default()), &mut buffer);
        assert!(suppresses.keeps(order) && !accuses.keeps(order));
        let equivocates = Lies { equivocate: true, ..Lies::default() };
        assert_eq!(told(equivocates, 1, &beat), None);
        let mut body = Propose { index: plesio_wire::LogIndex(9), ..Propose::default() };
        for member in 0..2 {
            body.manifest.entries.push(Entry { member, ..Entry::default() }).unwrap();
        }
        assert_eq!(told(equivocates, 2, &Message::Propose(body)), None);
        let Some((Message::Propose(bent), Some(9))) = told(equivocates, 3, &Message::Propose(body)) else {
            panic!("another proposal");
        };
        assert_eq!(bent.manifest.entries[..], body.manifest.entries[..1]);
        body.manifest.entries = plesio_wire::Bounded::from_slice(&body.manifest.entries[..1]);
        assert_eq!(told(equivocates, 3, &Message::Propose(body)), None);
    }
}
