//! Which slots of which admission stand in the log, and what became of them: a function of the learnt prefix, so
//! every member that learnt the same prefix holds the same bytes.
//!
//! Per admission: the highest listed number and 64 bits, bit i for number `highest - i`; each listed number is
//! open, final or dropped. Current admissions and the last [`ENDED_MAX`] ended ones are kept.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use plesio_wire::codec::{DecodeError, Reader, Writer};
use plesio_wire::value::Seat;
use plesio_wire::{Incarnation, LogIndex, MEMBERS_MAX, NodeKey, SlotSeq};

/// Ended admissions kept.
pub(crate) const ENDED_MAX: usize = 256;
const RECORDS_MAX: usize = ENDED_MAX + MEMBERS_MAX;
const RECORD_BYTES: usize = 3 * 8 + 1 + 4 + 8 + 8 + 4 + 8;
/// Most bytes of an encoded ledger.
pub(crate) const LEDGER_BYTES_MAX: usize = 2 + RECORDS_MAX * RECORD_BYTES;
const WINDOW: u32 = 64;

/// One stay of one process in the mesh.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Admission {
    pub(crate) key: NodeKey,
    pub(crate) incarnation: Incarnation,
    pub(crate) admitted: LogIndex,
}

impl Admission {
    pub(crate) const fn of(seat: &Seat) -> Self {
        Self { key: seat.key, incarnation: seat.incarnation, admitted: seat.admitted }
    }
}

/// What the log says of a slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// Listed nowhere.
    Unlisted,
    /// Listed in the open version.
    Open,
    /// Listed in a final version.
    Final,
    /// Listed, and dropped with its contributor.
    Dropped,
    /// Below the window: the ledger cannot say.
    Forgotten,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Record {
    highest: Option<u32>,
    listed: u64,
    dropped: u64,
    open: Option<u32>,
    ended: Option<LogIndex>,
}

impl Record {
    fn bit(&self, seq: SlotSeq) -> Option<u64> {
        let back = self.highest?.checked_sub(seq.0)?;
        (back < WINDOW).then(|| 1 << back)
    }

    fn fate(&self, seq: SlotSeq) -> Fate {
        if self.highest.is_none_or(|highest| seq.0 > highest) {
            return Fate::Unlisted;
        }
        let Some(bit) = self.bit(seq) else { return Fate::Forgotten };
        match () {
            () if self.listed & bit == 0 => Fate::Unlisted,
            () if self.dropped & bit != 0 => Fate::Dropped,
            () if self.open == Some(seq.0) => Fate::Open,
            () => Fate::Final,
        }
    }

    fn list(&mut self, seq: SlotSeq) {
        let highest = self.highest.unwrap_or(seq.0);
        if seq.0 >= highest {
            let by = seq.0 - highest;
            self.listed = self.listed.checked_shl(by).unwrap_or(0);
            self.dropped = self.dropped.checked_shl(by).unwrap_or(0);
            self.highest = Some(seq.0);
        }
        if let Some(bit) = self.bit(seq) {
            self.listed |= bit;
            self.open = Some(seq.0);
        }
    }
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Ledger {
    records: BTreeMap<Admission, Record>,
}

impl Ledger {
    /// A VIEW admits.
    pub(crate) fn admit(&mut self, admission: Admission) {
        self.records.entry(admission).or_default();
    }

    /// The VIEW at `index` ends an admission; its open entry is dropped (R16).
    pub(crate) fn end(&mut self, admission: Admission, index: LogIndex) {
        if let Some(record) = self.records.get_mut(&admission) {
            record.ended = Some(index);
            if let Some(open) = record.open.take() {
                record.dropped |= record.bit(SlotSeq(open)).unwrap_or(0);
            }
        }
        let ended =
            || self.records.iter().filter_map(|(admission, record)| Some((record.ended?, *admission)));
        if ended().count() > ENDED_MAX
            && let Some((_, oldest)) = ended().min()
        {
            self.records.remove(&oldest);
        }
    }

    /// Whether a MANIFEST may list the slot: not in the ledger and above highest - 64 (R9).
    pub(crate) fn may_list(&self, admission: Admission, seq: SlotSeq) -> bool {
        self.records
            .get(&admission)
            .is_some_and(|record| record.ended.is_none() && record.fate(seq) == Fate::Unlisted)
    }

    /// A MANIFEST lists the slot.
    pub(crate) fn list(&mut self, admission: Admission, seq: SlotSeq) {
        if let Some(record) = self.records.get_mut(&admission) {
            record.list(seq);
        }
    }

    /// A SEAL makes every open entry final.
    pub(crate) fn seal(&mut self) {
        for record in self.records.values_mut() {
            record.open = None;
        }
    }

    /// What became of a slot; none when its admission is not kept any more.
    pub(crate) fn fate(&self, admission: Admission, seq: SlotSeq) -> Option<Fate> {
        self.records.get(&admission).map(|record| record.fate(seq))
    }

    /// Whether the admission is known to have ended.
    pub(crate) fn has_ended(&self, admission: Admission) -> bool {
        self.records.get(&admission).is_none_or(|record| record.ended.is_some())
    }

    /// Whether the node is, or not long ago was, a member.
    pub(crate) fn knows(&self, key: NodeKey) -> bool {
        let lowest = Admission { key, incarnation: Incarnation(0), admitted: LogIndex(0) };
        self.records.range(lowest..).next().is_some_and(|(admission, _)| admission.key == key)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = alloc::vec![0; 2 + self.records.len() * RECORD_BYTES];
        let mut writer = Writer::new(&mut bytes);
        writer.write(&(self.records.len() as u16));
        for (admission, record) in &self.records {
            writer.write(&admission.key);
            writer.write(&admission.incarnation);
            writer.write(&admission.admitted);
            let flags = u8::from(record.highest.is_some())
                | u8::from(record.open.is_some()) << 1
                | u8::from(record.ended.is_some()) << 2;
            writer.write(&flags);
            writer.write(&record.highest.unwrap_or(0));
            writer.write(&record.listed);
            writer.write(&record.dropped);
            writer.write(&record.open.unwrap_or(0));
            writer.write(&record.ended.unwrap_or_default());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let count = usize::from(reader.read::<u16>()?);
        if count > RECORDS_MAX {
            return Err(DecodeError::Field("ledger count"));
        }
        let mut ledger = Self::default();
        for _ in 0..count {
            let admission =
                Admission { key: reader.read()?, incarnation: reader.read()?, admitted: reader.read()? };
            let flags: u8 = reader.read()?;
            let highest: u32 = reader.read()?;
            let (listed, dropped): (u64, u64) = (reader.read()?, reader.read()?);
            let open: u32 = reader.read()?;
            let ended: LogIndex = reader.read()?;
            let has = |bit: u8| flags & bit != 0;
            let record = Record {
                highest: has(1).then_some(highest),
                listed,
                dropped,
                open: has(2).then_some(open),
                ended: has(4).then_some(ended),
            };
            // Only what `encode` writes is legal: the top number is listed, the dropped are, the open one is.
            let empty = record.highest.is_none() && (highest, listed, dropped) == (0, 0, 0);
            let shaped = record.highest.is_some() && listed & 1 == 1 && dropped & !listed == 0;
            let opened = record.open.is_none_or(|open| record.fate(SlotSeq(open)) == Fate::Open);
            let zeros = (has(2) || open == 0) && (has(4) || ended.0 == 0) && flags < 8;
            let sorted = ledger.records.last_key_value().is_none_or(|(last, _)| *last < admission);
            if !((empty || shaped) && opened && zeros && sorted) {
                return Err(DecodeError::Field("ledger record"));
            }
            ledger.records.insert(admission, record);
        }
        reader.finish()?;
        Ok(ledger)
    }

    /// Whether an entry is open; never so in a snapshot.
    pub(crate) fn has_open(&self) -> bool {
        self.records.values().any(|record| record.open.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(key: u64, admitted: u64) -> Admission {
        Admission { key: NodeKey(key), incarnation: Incarnation(7), admitted: LogIndex(admitted) }
    }

    #[test]
    fn r9_a_slot_is_listed_once_and_inside_the_window() {
        let mut ledger = Ledger::default();
        let me = admission(1, 0);
        assert!(!ledger.may_list(me, SlotSeq(5)), "no admission, no listing");
        ledger.admit(me);
        ledger.list(me, SlotSeq(100));
        assert!(!ledger.may_list(me, SlotSeq(100)));
        assert!(ledger.may_list(me, SlotSeq(37)) && !ledger.may_list(me, SlotSeq(36)));
        assert_eq!(ledger.fate(me, SlotSeq(36)), Some(Fate::Forgotten));
        assert_eq!(ledger.fate(me, SlotSeq(100)), Some(Fate::Open));
        ledger.seal();
        assert_eq!(ledger.fate(me, SlotSeq(100)), Some(Fate::Final));
        ledger.list(me, SlotSeq(99));
        assert_eq!(ledger.fate(me, SlotSeq(99)), Some(Fate::Open));
        assert_eq!(ledger.fate(me, SlotSeq(100)), Some(Fate::Final));
        ledger.end(me, LogIndex(9));
        assert_eq!(ledger.fate(me, SlotSeq(99)), Some(Fate::Dropped));
        assert!(!ledger.may_list(me, SlotSeq(101)) && ledger.has_ended(me));
        // A jump beyond the window leaves no stale bit behind.
        let other = admission(2, 0);
        ledger.admit(other);
        ledger.list(other, SlotSeq(1));
        ledger.list(other, SlotSeq(u32::MAX));
        assert_eq!(ledger.fate(other, SlotSeq(u32::MAX - 1)), Some(Fate::Unlisted));
    }

    #[test]
    fn r24_a_ledger_survives_its_bytes_and_nothing_else_does() {
        let mut ledger = Ledger::default();
        for key in 0..40 {
            ledger.admit(admission(key, key % 3));
            ledger.list(admission(key, key % 3), SlotSeq(key as u32 * 9));
            ledger.list(admission(key, key % 3), SlotSeq(key as u32 * 9 + 5));
        }
        ledger.end(admission(3, 0), LogIndex(4));
        let bytes = ledger.encode();
        assert_eq!(Ledger::decode(&bytes), Ok(ledger.clone()));
        for cut in 0..bytes.len() {
            assert!(Ledger::decode(&bytes[..cut]).is_err());
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(read) = Ledger::decode(&bad) {
                assert_eq!(read.encode(), bad);
            }
        }
    }

    #[test]
    fn the_ledger_keeps_the_last_256_ended_admissions() {
        let mut ledger = Ledger::default();
        for at in 0..300 {
            ledger.admit(admission(at % 5, at));
            ledger.end(admission(at % 5, at), LogIndex(at + 1));
        }
        assert_eq!(ledger.records.len(), ENDED_MAX);
        assert_eq!(ledger.fate(admission(43 % 5, 43), SlotSeq(0)), None);
        assert_eq!(ledger.fate(admission(44 % 5, 44), SlotSeq(0)), Some(Fate::Unlisted));
        assert!(ledger.encode().len() <= LEDGER_BYTES_MAX);
    }
}
