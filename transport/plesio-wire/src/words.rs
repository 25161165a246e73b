//! The words every crate shares: identities, times, positions in the log, and where a payload lies.

use crate::codec::newtype;

/// Most members a view can have.
pub const MEMBERS_MAX: usize = 32;

/// A moment on the local clock, in nanoseconds; only ever compared with moments of the same node.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Instant(pub u64);

impl Instant {
    /// The moment `delay_ns` later.
    #[must_use]
    pub const fn after(self, delay_ns: u64) -> Self {
        Self(self.0.saturating_add(delay_ns))
    }

    /// Nanoseconds since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

newtype! {
    /// Mesh time in nanoseconds: the common timebase that the sideband estimates.
    MeshTime(i64)
}
newtype! {
    /// Number of an update interval of the mesh.
    Frame(u64)
}
newtype! {
    /// Count of committed manifests.
    Version(u64)
}
newtype! {
    /// Position in the agreed log.
    LogIndex(u64)
}
newtype! {
    /// Number of a contribution within one admission; rises by one, never reused.
    SlotSeq(u32)
}
newtype! {
    /// 64 random bits drawn at process start: tells a restarted process from the one before.
    Incarnation(u64)
}
newtype! {
    /// First eight bytes of a node id, little endian: how the log and the sideband name a node.
    NodeKey(u64)
}

macro_rules! successor {
    ($($name:ident),*) => { $(
        impl $name {
            /// The one after.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
    )* };
}
successor!(Frame, Version, LogIndex, SlotSeq);

/// Position of a member in the view that is sorted by node key, 0..N.
pub type MemberIndex = u16;

/// A node's whole identity, 32 bytes.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeId(pub [u8; 32]);

impl NodeId {
    /// The eight bytes that the log uses.
    #[must_use]
    pub fn key(&self) -> NodeKey {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[..8]);
        NodeKey(u64::from_le_bytes(bytes))
    }
}

/// Who may propose when: lexicographic; belongs to member (frame + term) mod N of the view in force (R2).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ballot {
    /// Frame in which it is opened.
    pub frame: Frame,
    /// Take-over count within the frame.
    pub term: u32,
}

impl Ballot {
    /// Index of the member that owns this ballot in a view of `members` members.
    #[must_use]
    pub fn owner(self, members: usize) -> MemberIndex {
        let members = members.max(1) as u64;
        ((self.frame.0 % members + u64::from(self.term) % members) % members) as MemberIndex
    }
}

/// A set of member indices of one view, as the bitmap that travels.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct MemberSet(pub u32);

impl MemberSet {
    /// No member.
    pub const EMPTY: Self = Self(0);

    /// The members 0..n.
    #[must_use]
    pub const fn first(n: usize) -> Self {
        if n >= 32 { Self(u32::MAX) } else { Self((1 << n) - 1) }
    }

    /// Whether the set holds `index`; out of range is simply absent.
    #[must_use]
    pub const fn contains(self, index: MemberIndex) -> bool {
        index < 32 && self.0 & (1 << index) != 0
    }

    /// Adds `index`; out of range is ignored.
    pub const fn insert(&mut self, index: MemberIndex) {
        if index < 32 {
            self.0 |= 1 << index;
        }
    }

    /// Removes `index`.
    pub const fn remove(&mut self, index: MemberIndex) {
        if index < 32 {
            self.0 &= !(1 << index);
        }
    }

    /// How many.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Members of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Members of either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Members of this set that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The indices, ascending.
    pub fn iter(self) -> impl Iterator<Item = MemberIndex> {
        (0..32).filter(move |index| self.contains(*index))
    }
}

/// Where some payload lies: which region of the arena, where it starts, how long it is.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Span {
    /// Region of the arena.
    pub region: u16,
    /// Start within the region.
    pub offset_bytes: u32,
    /// Length.
    pub len_bytes: u32,
}

impl Span {
    /// Cuts off the first `len_bytes_max` bytes: one segment's worth.
    pub fn split_segment(&mut self, len_bytes_max: u32) -> Option<Self> {
        let len_bytes = self.len_bytes.min(len_bytes_max);
        let head = Self { len_bytes, ..*self };
        self.offset_bytes += len_bytes;
        self.len_bytes -= len_bytes;
        (len_bytes > 0).then_some(head)
    }

    /// The part of `len_bytes` bytes from `offset_bytes` on, if it lies inside.
    #[must_use]
    pub fn part(self, offset_bytes: u32, len_bytes: u32) -> Option<Self> {
        let end = offset_bytes.checked_add(len_bytes)?;
        (end <= self.len_bytes).then_some(())?;
        Some(Self { offset_bytes: self.offset_bytes.checked_add(offset_bytes)?, len_bytes, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_span_is_cut_into_segments() {
        let mut gradient = Span { region: 0, offset_bytes: 64, len_bytes: 2500 };
        let parts: Vec<Span> = std::iter::from_fn(|| gradient.split_segment(1200)).collect();
        let lengths: Vec<u32> = parts.iter().map(|part| part.len_bytes).collect();
        assert_eq!(lengths, [1200, 1200, 100]);
        assert_eq!(parts[2].offset_bytes, 64 + 2400);
        let whole = Span { region: 1, offset_bytes: 10, len_bytes: 20 };
        assert_eq!(whole.part(4, 16), Some(Span { region: 1, offset_bytes: 14, len_bytes: 16 }));
        assert_eq!(whole.part(4, 17), None);
        assert_eq!(whole.part(u32::MAX, 2), None);
    }

    #[test]
    fn a_ballot_walks_round_the_members() {
        let owners: Vec<u16> = (0..5).map(|term| Ballot { frame: Frame(6), term }.owner(4)).collect();
        assert_eq!(owners, [2, 3, 0, 1, 2]);
        assert_eq!(Ballot { frame: Frame(u64::MAX), term: u32::MAX }.owner(32), 30);
        assert!(Ballot { frame: Frame(2), term: 0 } > Ballot { frame: Frame(1), term: 9 });
    }

    #[test]
    fn a_member_set_knows_its_members() {
        let mut set = MemberSet::first(3);
        set.insert(31);
        set.insert(32);
        set.remove(1);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 2, 31]);
        assert_eq!(set.len(), 3);
        assert!(!set.contains(32) && MemberSet::first(32).len() == 32);
    }
}
