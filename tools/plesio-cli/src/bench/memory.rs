//! The bytes that travel: one region in an arena, a pattern that every byte of it is known by, and the check.
//!
//! Knows nothing of links. Both ends draw the same pattern from the seed, so that the receiver needs no copy.

use crate::failure::Failure;
use plesio_memory::{Arena, ArenaPlan};
use plesio_wire::Span;

/// A working set: `slots` places of `bytes` each, used one after the other.
pub(crate) struct Memory {
    pub(crate) arena: Arena,
    region: u16,
    pub(crate) region_bytes: usize,
    bytes: u32,
    stride: usize,
    pub(crate) slots: u64,
    seed: u64,
}

impl Memory {
    /// `count` zeroed working sets of one arena, for messages of `bytes`; at least one fits in each.
    pub(crate) fn sets(
        count: usize,
        bytes: u32,
        working_set_bytes: u32,
        seed: u64,
    ) -> Result<Vec<Self>, Failure> {
        let stride = (bytes as usize).next_multiple_of(LINE_BYTES);
        let slots = (working_set_bytes as usize / stride).max(1);
        // A whole number of rounds over the handles, so that no two of them meet in a slot.
        let slots = if slots > HANDLES_MAX { slots / HANDLES_MAX * HANDLES_MAX } else { slots };
        let region_bytes = slots * stride;
        let mut plan = ArenaPlan::new("bench", count * region_bytes + (1 << 20));
        let regions: Vec<u16> = (0..count).map(|_| plan.push(region_bytes)).collect();
        let (arena, _) = Arena::map(&plan).map_err(|error| {
            Failure::run("bench", "cannot map the working set", error).fix("give a smaller --working-set")
        })?;
        let set = |region| Self {
            arena: arena.clone(),
            region,
            region_bytes,
            bytes,
            stride,
            slots: slots as u64,
            seed,
        };
        Ok(regions.into_iter().map(set).collect())
    }

    /// How many messages go side by side; no two of them share a slot.
    pub(crate) fn handles(&self) -> u64 {
        self.slots.min(HANDLES_MAX as u64)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Where message `index` begins.
    pub(crate) fn offset(&self, index: u64) -> usize {
        (index % self.slots) as usize * self.stride
    }

    /// Where message `index` lies.
    pub(crate) fn span(&self, index: u64) -> Span {
        let offset_bytes = (index % self.slots) as u32 * self.stride as u32;
        Span { region: self.region, offset_bytes, len_bytes: self.bytes }
    }

    /// The whole region.
    pub(crate) fn whole(&self) -> Span {
        Span { region: self.region, offset_bytes: 0, len_bytes: self.region_bytes as u32 }
    }

    /// Writes the pattern, or zeros.
    pub(crate) fn fill(&self, pattern: bool) -> Result<(), Failure> {
        let mut lease = self.arena.lease(self.region).map_err(|error| held(&error))?;
        for (index, word) in lease.as_bytes_mut().chunks_exact_mut(8).enumerate() {
            let value = if pattern { word_at(self.seed, index as u64) } else { 0 };
            word.copy_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }

    /// The whole region as bytes that may be written.
    pub(crate) fn lease(&self) -> Result<plesio_memory::Lease<plesio_memory::Filling>, Failure> {
        self.arena.lease(self.region).map_err(|error| held(&error))
    }

    /// Wrong bytes in a span.
    pub(crate) fn wrong(&self, span: Span) -> Result<u64, Failure> {
        let shared = self.arena.share(span).map_err(|error| held(&error))?;
        let start = u64::from(span.offset_bytes);
        let words = shared.as_bytes().chunks(8).enumerate();
        let wrong = words.map(|(index, found)| {
            let word = word_at(self.seed, start / 8 + index as u64).to_le_bytes();
            found.iter().zip(word).filter(|(found, word)| *found != word).count() as u64
        });
        Ok(wrong.sum())
    }

    /// Wrong bytes at both ends of a message: cheap enough to be looked at while it runs.
    pub(crate) fn wrong_at_ends(&self, span: Span) -> Result<u64, Failure> {
        let len_bytes = span.len_bytes.min(LINE_BYTES as u32);
        // Whole words, from a word's start.
        let last = span.len_bytes.saturating_sub(len_bytes) / 8 * 8;
        let tail = Span { offset_bytes: span.offset_bytes + last, len_bytes: span.len_bytes - last, ..span };
        Ok(self.wrong(Span { len_bytes, ..span })? + self.wrong(tail)?)
    }
}

fn held(error: &plesio_memory::AccessError) -> Failure {
    Failure::run("bench", "the working set is held", error)
}

/// The pattern: a word that depends on the seed and its place alone.
fn word_at(seed: u64, index: u64) -> u64 {
    let mut word = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Messages side by side at most.
const HANDLES_MAX: usize = 16;
const LINE_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_is_seen_wherever_it_lies() {
        let memory = Memory::sets(2, 100, 1_000, 7).expect("small").remove(1);
        assert_eq!(memory.slots, 7);
        memory.fill(true).expect("free");
        assert_eq!(memory.wrong(memory.whole()).expect("free"), 0);
        assert_eq!(memory.wrong_at_ends(memory.span(9)).expect("free"), 0);
        for place in [0, 5, 99] {
            memory.fill(true).expect("free");
            let span = memory.span(1);
            let at = (span.offset_bytes + place) as usize;
            memory.lease().expect("free").as_bytes_mut()[at] ^= 1;
            assert_eq!(memory.wrong(span).expect("free"), 1, "{place}");
            assert!(memory.wrong_at_ends(span).expect("free") > 0, "{place}");
            assert_eq!(memory.wrong(memory.span(2)).expect("free"), 0);
        }
        memory.fill(false).expect("free");
        assert!(memory.wrong(memory.whole()).expect("free") > 800, "zeros are not the pattern");
    }
}
