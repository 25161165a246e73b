//! A set of chunk indices that keeps its memory from one message to the next.

use alloc::vec::Vec;

/// One bit per chunk.
#[derive(Debug, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Empties the set and makes room for `count` chunks; allocates only beyond the largest count so far.
    pub(crate) fn reset(&mut self, count: u32) {
        self.words.clear();
        self.words.resize(count.div_ceil(64) as usize, 0);
    }

    /// Makes room ahead for `count` chunks.
    pub(crate) fn reserve(&mut self, count: u32) {
        let words = count.div_ceil(64) as usize;
        self.words.reserve(words.saturating_sub(self.words.len()));
    }

    pub(crate) fn has(&self, index: u32) -> bool {
        self.words[(index / 64) as usize] & mask(index) != 0
    }

    /// Adds `index`; whether it was absent.
    pub(crate) fn insert(&mut self, index: u32) -> bool {
        let word = &mut self.words[(index / 64) as usize];
        let absent = *word & mask(index) == 0;
        *word |= mask(index);
        absent
    }

    /// Removes `index`; whether it was present.
    pub(crate) fn remove(&mut self, index: u32) -> bool {
        let word = &mut self.words[(index / 64) as usize];
        let present = *word & mask(index) != 0;
        *word &= !mask(index);
        present
    }

    /// The first index in `from..end` that is in neither set; `end` when there is none. Looks at 64 at a
    /// time.
    pub(crate) fn first_in_neither(&self, other: &Self, from: u32, end: u32) -> u32 {
        let mut index = from;
        while index < end {
            let at = (index / 64) as usize;
            let free = !(self.words[at] | other.words[at]) & (u64::MAX << (index % 64));
            if free != 0 {
                return (at as u32 * 64 + free.trailing_zeros()).min(end);
            }
            index = (at as u32 + 1).saturating_mul(64);
        }
        end
    }
}

const fn mask(index: u32) -> u64 {
    1 << (index % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_chunk_is_found_across_words() {
        let (mut acked, mut flying) = (Bits::default(), Bits::default());
        acked.reset(200);
        flying.reset(200);
        for index in 0..130 {
            assert!(acked.insert(index));
        }
        assert!(!acked.insert(5));
        flying.insert(130);
        assert_eq!(acked.first_in_neither(&flying, 0, 200), 131);
        assert_eq!(acked.first_in_neither(&flying, 150, 200), 150);
        assert!(acked.remove(64) && !acked.has(64));
        assert_eq!(acked.first_in_neither(&flying, 3, 200), 64);
        assert_eq!(acked.first_in_neither(&flying, 3, 64), 64);
        assert_eq!(acked.first_in_neither(&flying, 65, 131), 131);
    }
}
