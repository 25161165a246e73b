//! A state is taken from one member and believed on the word of another (T18).
//!
//! ```text
//!   joiner                            server           another member
//!     SNAPSHOT request  ------------->  cut, state
//!     the cut is here: ASK version -------------------------->
//!                       <-------------------------------- TELL digest, or that it does not know
//!     one says the same, none another -> applied
//!     as many say another as say the same, the server among these -> thrown away; the server is asked for none for a minute
//!     it is version 0 -> its digest is known without asking anybody
//!     nobody knows, for two seconds, or all say so for one -> applied: a mesh that begins again has one who holds its state
//! ```

use super::{Engine, Out};
use crate::store::{SNAPSHOT_HEAD_BYTES, snapshot_bytes};
use plesio_wire::codec::Pad;
use plesio_wire::digest::Hasher;
use plesio_wire::sideband::{Message, Snapshot};
use plesio_wire::{Digest, Instant, NodeKey, Version};
use std::collections::BTreeMap;

/// What others say of the state that is on its way.
#[derive(Debug)]
pub(super) struct Witnesses {
    version: Version,
    digest: Digest,
    since: Instant,
    /// By the other members; none: it does not know.
    told: BTreeMap<NodeKey, Option<Digest>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Wait,
    Believe,
    Doubt,
}

impl Witnesses {
    pub(super) const fn new(now: Instant, version: Version, digest: Digest) -> Self {
        Self { version, digest, since: now, told: BTreeMap::new() }
    }

    /// What to make of it, `others` being members beside the server and this node.
    pub(super) fn verdict(&self, now: Instant, others: usize) -> Verdict {
        let same = self.told.values().filter(|told| **told == Some(self.digest)).count();
        let other = self.told.values().flatten().count() - same;
        let over = now >= self.deadline(others);
        let silent = self.told.len() < others && !over;
        // Who does not know may come to know: a moment later somebody else holds that version.
        let alone = others == 0 || over;
        match (same, other) {
            (_, other) if other > same => Verdict::Doubt,
            (same, other) if same > other => Verdict::Believe,
            (_, 1..) if !silent => Verdict::Doubt,
            (0, 0) if alone => Verdict::Believe,
            _ => Verdict::Wait,
        }
    }

    /// Of which version.
    pub(super) const fn version(&self) -> Version {
        self.version
    }

    /// When who has said nothing is not waited for any more; when all others have, who does not know.
    pub(super) fn deadline(&self, others: usize) -> Instant {
        self.since.after(if self.told.len() < others { WITNESS_NS } else { WITNESS_NS / 2 })
    }
}

impl Engine {
    /// Members who may know the state that is on its way: not the one that sends it.
    pub(super) fn witnesses(&self, server: NodeKey) -> Vec<NodeKey> {
        let members = self.consensus.view().members;
        members.iter().map(|seat| seat.key).filter(|key| ![self.key, server].contains(key)).collect()
    }

    /// How many of them are heard.
    pub(super) fn heard_witnesses(&self, server: NodeKey) -> usize {
        let is_silent = |key: &NodeKey| self.suspects.contains(key) || self.dead.contains(key);
        self.witnesses(server).iter().filter(|key| !is_silent(key)).count()
    }

    pub(super) fn ask_witnesses(&mut self, server: NodeKey, version: Version) {
        for key in self.witnesses(server) {
            self.say_digest(key, ASK, version, Digest::default());
        }
    }

    /// ASK or TELL; false for any other message.
    pub(super) fn handle_witness(&mut self, now: Instant, from: NodeKey, body: &Snapshot) -> bool {
        match body.op {
            ASK => {
                let digest = self.consensus.digest_of(body.version).unwrap_or_default();
                self.say_digest(from, TELL, body.version, digest);
            }
            TELL => {
                if self.note_witness(from, body) {
                    self.judge_fetch(now);
                }
            }
            _ => return false,
        }
        true
    }

    fn note_witness(&mut self, from: NodeKey, body: &Snapshot) -> bool {
        let Some((server, witnesses)) = self.fetched() else { return false };
        let counts = witnesses.version == body.version && server != from;
        if !counts || self.consensus.view().index_of(from).is_none() {
            return false;
        }
        let told = (body.digest != Digest::default()).then_some(body.digest);
        let Some((_, witnesses)) = self.fetched_mut() else { return false };
        // A node that does not know may come to know.
        witnesses.told.entry(from).and_modify(|known| *known = known.or(told)).or_insert(told);
        true
    }

    /// What to make of version 0, of which nobody needs to be told.
    pub(super) fn judge_start(&self, witnesses: &Witnesses) -> Verdict {
        if self.start_digest() == witnesses.digest { Verdict::Believe } else { Verdict::Doubt }
    }

    /// Digest of version 0, the state that all begin with: all zeros.
    pub(super) fn start_digest(&self) -> Digest {
        let mut left = snapshot_bytes(self.config.regions.elements, self.config.rules.outer)
            - SNAPSHOT_HEAD_BYTES as u64;
        let (mut hasher, zeros) = (Hasher::default(), [0; 4_096]);
        while left > 0 {
            let part = left.min(zeros.len() as u64);
            hasher.update(&zeros[..part as usize]);
            left -= part;
        }
        hasher.finish()
    }

    /// Whom to ask instead of one whose last state was not what others hold.
    pub(super) fn honest(&mut self, now: Instant, wanted: NodeKey) -> NodeKey {
        self.banned.retain(|_, until| now < *until);
        if !self.banned.contains_key(&wanted) {
            return wanted;
        }
        let others = self.witnesses(wanted);
        others.into_iter().find(|key| !self.banned.contains_key(key)).unwrap_or(wanted)
    }

    pub(super) fn ban(&mut self, now: Instant, server: NodeKey) {
        self.fakes += 1;
        self.banned.insert(server, now.after(BANNED_NS));
    }

    /// States that were thrown away because others said other bits of them.
    #[must_use]
    pub const fn fakes(&self) -> u64 {
        self.fakes
    }

    fn say_digest(&mut self, to: NodeKey, op: u8, version: Version, digest: Digest) {
        let view = self.consensus.view().number;
        let word = Snapshot { op, pad: Pad, view, version, digest, ..Snapshot::default() };
        self.out.push_back(Out::Send(self.reach(to), Message::Snapshot(word)));
    }
}

/// After request, offer and withdrawal.
const ASK: u8 = 3;
const TELL: u8 = 4;
/// How long the others may take to say what they hold.
const WITNESS_NS: u64 = 2_000_000_000;
const BANNED_NS: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t18_one_word_is_believed_and_the_greater_number_decides() {
        let (ours, theirs) = (Digest([1; 16]), Digest([2; 16]));
        let verdict = |told: &[Option<Digest>], others: usize, at_ms: u64| {
            let mut witnesses = Witnesses::new(Instant(0), Version(9), ours);
            for (key, told) in told.iter().enumerate() {
                witnesses.told.insert(NodeKey(key as u64), *told);
            }
            witnesses.verdict(Instant(at_ms * 1_000_000), others)
        };
        let (same, other, unknown) = (Some(ours), Some(theirs), None);
        assert_eq!(verdict(&[], 0, 0), Verdict::Believe, "there is nobody else to ask");
        assert_eq!(verdict(&[], 2, 0), Verdict::Wait);
        assert_eq!(verdict(&[same], 2, 0), Verdict::Believe);
        assert_eq!(verdict(&[other], 2, 0), Verdict::Doubt);
        assert_eq!(verdict(&[same, other], 3, 0), Verdict::Wait, "the third decides");
        assert_eq!(verdict(&[same, other, same], 3, 0), Verdict::Believe);
        assert_eq!(verdict(&[same, other, other], 3, 0), Verdict::Doubt);
        assert_eq!(verdict(&[same, other], 2, 0), Verdict::Doubt, "fetch it from another");
        assert_eq!(verdict(&[unknown], 2, 1_999), Verdict::Wait);
        assert_eq!(verdict(&[unknown], 2, 2_000), Verdict::Believe);
        assert_eq!(verdict(&[unknown, unknown], 2, 999), Verdict::Wait, "who does not know may come to know");
        assert_eq!(verdict(&[unknown, unknown], 2, 1_000), Verdict::Believe);
        assert_eq!(verdict(&[other], 2, 2_000), Verdict::Doubt);
    }
}
