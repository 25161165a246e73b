//! Contributions and sums that lie in the arenas of peers on this host.
//!
//! A peer goes on writing its arena. So no reference to its bytes exists: a block at a time, small enough for the fastest
//! cache, comes out of it by atomics, and the kernels run over that. What a region held is looked at before the first
//! block and after the last; where that differs nothing counts.

use super::{Store, StoreError};
use plesio_collective::{Alias, Sum};
use plesio_kernels::{Codec, Device};
use plesio_memory::{AccessError, Foreign, Generation, Shared};
use plesio_wire::Span;

/// A place in a peer's memory, and that memory.
#[derive(Clone, Copy, Debug)]
pub struct Near<'a> {
    /// The peer's arena.
    pub foreign: &'a Foreign,
    /// Where, and what its region held when it was told of.
    pub alias: Alias,
}

impl Near<'_> {
    /// What is to be there still after it was read.
    fn begin(&self) -> Result<Generation, StoreError> {
        let told = Generation::told(self.alias.generation).ok_or(StoreError::Torn)?;
        self.foreign.pointer(self.alias.span).map_err(|_| StoreError::Torn)?;
        let now = self.foreign.generation(self.alias.span.region);
        if now == Ok(told) { Ok(told) } else { Err(StoreError::Torn) }
    }

    fn held(&self, told: Generation) -> bool {
        self.foreign.held(self.alias.span.region, told)
    }

    /// Copies a part out, which may be torn.
    fn copy(&self, start_bytes: usize, into: &mut [u8]) -> Result<(), StoreError> {
        let part = u32::try_from(start_bytes).ok().zip(u32::try_from(into.len()).ok());
        let part = part.and_then(|(start, len)| self.alias.span.part(start, len)).ok_or(StoreError::Torn)?;
        self.foreign.copy(part, into).map_err(|_| StoreError::Torn)
    }
}

/// An input of a sum.
enum Input<'a> {
    Own(Shared),
    Near(Near<'a>, Generation),
}

impl<D: Device> Store<D> {
    /// As [`Store::square`], of a contribution in a peer's memory.
    ///
    /// # Errors
    /// [`StoreError::Torn`]: it is not what was told of.
    pub fn square_near(&self, near: Near<'_>, elements: u32) -> Result<u64, StoreError> {
        let (codec, told) = (self.regions.codec, near.begin()?);
        let elements = elements as usize;
        let (mut codes, mut part) = ([0; BLOCK_BYTES], [0; BLOCK_ELEMENTS]);
        let mut sum = 0u128;
        for start in (0..elements).step_by(BLOCK_ELEMENTS) {
            let len = (elements - start).min(BLOCK_ELEMENTS);
            let codes = &mut codes[..codec.encoded_bytes(len)];
            near.copy(codec.encoded_bytes(start), codes)?;
            self.device.decode_slot(codec, codes, &mut part[..len])?;
            sum += part[..len].iter().map(|q| u128::from(q.unsigned_abs()).pow(2)).sum::<u128>();
        }
        if near.held(told) { Ok(u64::try_from(sum).unwrap_or(u64::MAX)) } else { Err(StoreError::Torn) }
    }

    /// As [`Store::sum`], where `near` says of each input in whose memory it lies, if not in this node's own. The arenas
    /// in which something was not what was told of: if there is any, there is no sum.
    ///
    /// # Errors
    /// As for [`Store::sum`].
    pub fn sum_near(&self, sum: &Sum, near: &[Option<Near<'_>>]) -> Result<Vec<Alias>, StoreError> {
        let mut torn = Vec::new();
        let mut inputs = Vec::with_capacity(sum.inputs.len());
        for (span, near) in sum.inputs.iter().zip(near) {
            match near {
                None => inputs.push(Input::Own(self.arena.share(*span)?)),
                Some(near) => match near.begin() {
                    Ok(told) if near.alias.span.len_bytes == span.len_bytes => {
                        inputs.push(Input::Near(*near, told));
                    }
                    _ => torn.push(near.alias),
                },
            }
        }
        if !torn.is_empty() {
            return Ok(torn);
        }
        let mut out = self.arena.lease(sum.out.region)?;
        let elements = sum.out.len_bytes as usize / 8;
        let target = out.as_i64_mut().get_mut(..elements).ok_or(AccessError::Range)?;
        let mut staged = vec![0; inputs.len() * BLOCK_BYTES];
        for (index, target) in target.chunks_mut(BLOCK_ELEMENTS).enumerate() {
            match self.sum_block(&inputs, index, &sum.weights, &mut staged, target) {
                Err(StoreError::Torn) => return Ok(near.iter().flatten().map(|near| near.alias).collect()),
                block => block?,
            }
        }
        let lost = inputs.iter().filter_map(|input| match input {
            Input::Near(near, told) if !near.held(*told) => Some(near.alias),
            _ => None,
        });
        Ok(lost.collect())
    }

    fn sum_block(
        &self,
        inputs: &[Input<'_>],
        index: usize,
        weights: &[u32],
        staged: &mut [u8],
        target: &mut [i64],
    ) -> Result<(), StoreError> {
        let codec = self.regions.codec;
        let (start, len) = (codec.encoded_bytes(index * BLOCK_ELEMENTS), codec.encoded_bytes(target.len()));
        let mut blocks: Vec<&[u8]> = Vec::with_capacity(inputs.len());
        for (input, stage) in inputs.iter().zip(staged.chunks_mut(BLOCK_BYTES)) {
            blocks.push(match input {
                Input::Own(shared) => shared.as_bytes().get(start..start + len).ok_or(AccessError::Range)?,
                Input::Near(near, _) => {
                    near.copy(start, &mut stage[..len])?;
                    &stage[..len]
                }
            });
        }
        Ok(self.device.coded_sum(codec, weights, &blocks, target)?)
    }

    /// Copies a sum or a state out of a peer's memory to its place here.
    ///
    /// # Errors
    /// [`StoreError::Torn`]: it is not what was told of; or the place is wrong or in use.
    pub fn take(&self, near: Near<'_>, into: Span) -> Result<(), StoreError> {
        let told = near.begin()?;
        let mut lease = self.arena.lease(into.region)?;
        let start = into.offset_bytes as usize;
        let place =
            lease.as_bytes_mut().get_mut(start..).and_then(|rest| rest.get_mut(..into.len_bytes as usize));
        let place = place.ok_or(AccessError::Range)?;
        near.foreign.read_told(near.alias.span, told, place).map_err(|_| StoreError::Torn)
    }

    /// Writes a note of a peer's interest into its cell.
    ///
    /// # Errors
    /// The place is wrong or in use.
    pub fn note(&self, cell: Span, bytes: &[u8]) -> Result<(), StoreError> {
        Ok(self.arena.write(cell, bytes)?)
    }
}

/// Elements that come out together: whole blocks of every codec, at most 8 KiB of each input.
const BLOCK_ELEMENTS: usize = 8 * Codec::GRAIN_ELEMENTS;
/// No codec has more bytes than plain elements.
const BLOCK_BYTES: usize = BLOCK_ELEMENTS * size_of::<i32>();

#[cfg(test)]
mod tests;
