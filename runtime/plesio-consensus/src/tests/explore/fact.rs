//! What has been said: facts that any member may hear at any later moment, once, twice or never. They only grow in
//! number, so loss, duplication, reordering and pauses of any length are all in the order in which they are heard.

use super::local::listed;
use crate::ledger::Admission;
use crate::{OwnSlot, SnapshotCut};
use plesio_wire::sideband::{Join, Message};
use plesio_wire::value::{Value, View};
use plesio_wire::{Digest, Incarnation, LogIndex, MemberIndex, NodeKey, SlotSeq, Version};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::format;
use std::string::String;
use std::vec::Vec;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fact {
    Message {
        from: NodeKey,
        to: NodeKey,
        view: u32,
        message: Box<Message>,
    },
    /// Somebody has learnt that entry.
    Decided {
        index: LogIndex,
        value: Box<Value>,
    },
    /// A result shard left its owner.
    Shard {
        context: LogIndex,
        owner: MemberIndex,
        content: Digest,
    },
    /// A slot is on its way to all owners of the view at that index.
    Offer {
        view: LogIndex,
        admission: Admission,
        slot: OwnSlot,
    },
    /// A beat.
    Hold {
        of: NodeKey,
        version: Version,
        index: LogIndex,
    },
    Join {
        join: Join,
    },
    Snapshot {
        cut: Box<SnapshotCut>,
        books: Box<Books>,
        state: Digest,
    },
}

/// A slot in a manifest.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Listed {
    pub(super) admission: Admission,
    pub(super) seq: SlotSeq,
    /// The units in it, a bit each.
    pub(super) units: u32,
}

/// What follows from the entries learnt, derived a second time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Books {
    /// Digest of every entry known.
    pub(super) entries: BTreeMap<LogIndex, Digest>,
    view: View,
    /// Entries of the open version that stand.
    pub(super) open: Vec<Listed>,
    is_open: bool,
    sealed: Vec<Listed>,
    versions: u64,
    /// What every final version is the sum of.
    pub(super) chain: BTreeMap<Version, Digest>,
}

impl Books {
    /// The next entry to learn.
    pub(super) fn next(&self) -> LogIndex {
        self.entries.last_key_value().map_or(LogIndex(0), |(index, _)| LogIndex(index.0 + 1))
    }

    /// Stamp of the shards of the open version, for one who has learnt everything below `index`.
    pub(super) fn context(&self, index: LogIndex) -> LogIndex {
        LogIndex(index.0.saturating_sub(1))
    }

    pub(super) fn learn(&mut self, index: LogIndex, value: &Value) -> Result<(), String> {
        self.entries.insert(index, value.digest());
        match value {
            Value::Manifest(manifest) => {
                self.open = listed(&self.view, manifest);
                self.is_open = true;
                for slot in &self.open {
                    let twice = self.sealed.iter().chain(self.open.iter().filter(|other| *other != slot));
                    let same = |other: &&Listed| {
                        (other.admission.key, other.admission.incarnation)
                            == (slot.admission.key, slot.admission.incarnation)
                            && other.units & slot.units != 0
                    };
                    if let Some(other) = twice.into_iter().find(same) {
                        return Err(format!(
                            "A2: a unit of {:?} is in slots {} and {}, both listed",
                            slot.admission.key, other.seq.0, slot.seq.0
                        ));
                    }
                }
            }
            Value::Seal(_) => {
                if !self.is_open {
                    return Err(format!("R14: SEAL at index {} and no version is open", index.0));
                }
                self.versions += 1;
                let version = Version(self.versions);
                let before = self.chain.get(&Version(self.versions - 1)).copied().unwrap_or_default();
                let content = Digest::of(format!("{:?}", self.open).as_bytes());
                self.chain.insert(version, Digest::of(format!("{before}{content}").as_bytes()));
                self.sealed.append(&mut self.open);
                self.is_open = false;
            }
            Value::View(view) => {
                self.open
                    .retain(|slot| view.members.iter().any(|seat| Admission::of(seat) == slot.admission));
                self.view = *view;
            }
        }
        Ok(())
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether a final version lists the slot.
    pub(super) fn is_final(&self, admission: Admission, seq: SlotSeq) -> bool {
        self.sealed.iter().any(|slot| (slot.admission, slot.seq) == (admission, seq))
    }

    /// Units of one process in undropped slots.
    pub(super) fn units_of(&self, key: NodeKey, life: Incarnation) -> u32 {
        let own = |slot: &&Listed| (slot.admission.key, slot.admission.incarnation) == (key, life);
        self.sealed.iter().chain(&self.open).filter(own).fold(0, |units, slot| units | slot.units)
    }
}
