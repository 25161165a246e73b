//! What a call does to tensors and messages: copies, sums, encodes, decodes. Spans lie in the two regions of a group's
//! arena, and both are held while it runs.
//!
//! Everything goes by blocks that stay in the fastest cache, through the CPU's best kernels; the bits are those of the
//! reference. Bfloat16 is summed as binary32 and rounded once.

use super::network::{TENSORS, WORK};
use plesio_collective::Element;
use plesio_cpu::Cpu;
use plesio_kernels::{Codec, Coding, Device, KernelError};
use plesio_memory::{AccessError, Arena, Filling, Lease};
use plesio_wire::Span;

/// Both regions.
struct Held {
    tensors: Lease<Filling>,
    work: Lease<Filling>,
}

impl Held {
    fn take(arena: &Arena) -> Result<Self, AccessError> {
        Ok(Self { tensors: arena.lease(TENSORS)?, work: arena.lease(WORK)? })
    }

    fn bytes(&self, span: Span, at: usize, len: usize) -> Result<&[u8], AccessError> {
        let lease = if span.region == WORK { &self.work } else { &self.tensors };
        let start = span.offset_bytes as usize + at;
        lease.as_bytes().get(start..start + len).ok_or(AccessError::Range)
    }

    fn bytes_mut(&mut self, span: Span, at: usize, len: usize) -> Result<&mut [u8], AccessError> {
        let lease = if span.region == WORK { &mut self.work } else { &mut self.tensors };
        let start = span.offset_bytes as usize + at;
        lease.as_bytes_mut().get_mut(start..start + len).ok_or(AccessError::Range)
    }

    /// Elements of the tensors from that byte of the region on.
    fn floats_mut(&mut self, start_bytes: usize, len: usize) -> Result<&mut [f32], AccessError> {
        let start = start_bytes / size_of::<f32>();
        self.tensors.as_f32_mut().get_mut(start..start + len).ok_or(AccessError::Range)
    }
}

/// A sum to be made.
pub(super) struct Sum<'a> {
    pub(super) element: Element,
    pub(super) count: usize,
    /// In the order of their sum, and how they are encoded.
    pub(super) inputs: &'a [(Span, Codec)],
    /// It may be one of the inputs.
    pub(super) output: Span,
    /// Where the sum is encoded, and how: then the output is what the codes say.
    pub(super) codes: Option<(Span, Coding)>,
}

/// Where what codecs leave out is kept.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Residue {
    /// Bytes from an element of the input and of the output to its residue, where there is one.
    pub(super) from_input: Option<i64>,
    pub(super) from_output: Option<i64>,
}

/// The kernels, and room for one block.
#[derive(Debug)]
pub(super) struct Compute {
    cpu: Cpu,
    floats: Vec<f32>,
    whole: Vec<i32>,
}

impl Compute {
    pub(super) fn new() -> Self {
        Self { cpu: Cpu::detect(), floats: vec![0.0; BLOCK], whole: vec![0; BLOCK] }
    }

    pub(super) fn sum(&mut self, arena: &Arena, sum: &Sum<'_>, residue: Residue) -> Result<(), AccessError> {
        let mut held = Held::take(arena)?;
        let mut done = 0;
        while done < sum.count {
            let len = BLOCK.min(sum.count - done);
            match sum.element {
                Element::I32 => self.sum_whole(&mut held, sum, done, len)?,
                _ => self.sum_floats(&mut held, sum, residue, done, len)?,
            }
            done += len;
        }
        Ok(())
    }

    fn sum_whole(
        &mut self,
        held: &mut Held,
        sum: &Sum<'_>,
        done: usize,
        len: usize,
    ) -> Result<(), AccessError> {
        let whole = &mut self.whole[..len];
        whole.fill(0);
        for (input, _) in sum.inputs {
            let from = held.bytes(*input, done * 4, len * 4)?;
            for (sum, four) in whole.iter_mut().zip(from.as_chunks().0) {
                *sum = sum.wrapping_add(i32::from_le_bytes(*four));
            }
        }
        let to = held.bytes_mut(sum.output, done * 4, len * 4)?;
        for (four, sum) in to.as_chunks_mut().0.iter_mut().zip(whole.iter()) {
            *four = sum.to_le_bytes();
        }
        Ok(())
    }

    fn sum_floats(
        &mut self,
        held: &mut Held,
        sum: &Sum<'_>,
        residue: Residue,
        done: usize,
        len: usize,
    ) -> Result<(), AccessError> {
        let floats = &mut self.floats[..len];
        let plain = if sum.element == Element::Bf16 { Codec::Bf16 } else { Codec::Full };
        for (index, (input, codec)) in sum.inputs.iter().enumerate() {
            let codec = if *codec == Codec::Full { plain } else { *codec };
            let codes = held.bytes(*input, codec.encoded_bytes(done), codec.encoded_bytes(len))?;
            fits(match index {
                0 => self.cpu.decode(codec, codes, floats),
                _ => self.cpu.decode_add(codec, codes, floats),
            })?;
        }
        let width = plain.encoded_bytes(1);
        match sum.codes {
            None if plain == Codec::Full => {
                let to = held.bytes_mut(sum.output, done * width, len * width)?;
                for (four, sum) in to.as_chunks_mut().0.iter_mut().zip(floats.iter()) {
                    *four = sum.to_le_bytes();
                }
            }
            None => {
                let to = held.bytes_mut(sum.output, done * width, len * width)?;
                for (two, sum) in to.as_chunks_mut().0.iter_mut().zip(floats.iter()) {
                    *two = plesio_kernels::bf16::narrow(*sum).to_le_bytes();
                }
            }
            Some((span, coding)) => {
                let output_bytes = sum.output.offset_bytes as usize + done * width;
                let Held { tensors, work } = held;
                let kept = kept(tensors, output_bytes, residue.from_output, len)?;
                let start = span.offset_bytes as usize + coding.codec.encoded_bytes(done);
                let codes = work.as_bytes_mut().get_mut(start..start + coding.codec.encoded_bytes(len));
                let codes = codes.ok_or(AccessError::Range)?;
                let coding = coding.at(coding.first_element + done as u64);
                fits(self.cpu.encode(coding, floats, kept, codes))?;
                fits(self.cpu.decode(coding.codec, codes, floats))?;
                held.floats_mut(output_bytes, len)?.copy_from_slice(floats);
            }
        }
        Ok(())
    }

    /// Elements of the tensors into codes of the work region.
    pub(super) fn encode(
        &mut self,
        arena: &Arena,
        from: Span,
        to: Span,
        coding: Coding,
        residue: Residue,
    ) -> Result<(), AccessError> {
        let mut held = Held::take(arena)?;
        let count = from.len_bytes as usize / 4;
        let mut done = 0;
        while done < count {
            let len = BLOCK.min(count - done);
            let floats = &mut self.floats[..len];
            let input_bytes = from.offset_bytes as usize + done * 4;
            let Held { tensors, work } = &mut held;
            let start = input_bytes / size_of::<f32>();
            let input = tensors.as_f32().get(start..start + len).ok_or(AccessError::Range)?;
            let (input, kept) = if residue.from_input.is_some() {
                floats.copy_from_slice(input);
                (&*floats, kept(tensors, input_bytes, residue.from_input, len)?)
            } else {
                (input, None)
            };
            let start = to.offset_bytes as usize + coding.codec.encoded_bytes(done);
            let codes = work.as_bytes_mut().get_mut(start..start + coding.codec.encoded_bytes(len));
            let coding = coding.at(coding.first_element + done as u64);
            fits(self.cpu.encode(coding, input, kept, codes.ok_or(AccessError::Range)?))?;
            done += len;
        }
        Ok(())
    }

    /// Codes of the work region into elements of the tensors.
    pub(super) fn decode(
        &mut self,
        arena: &Arena,
        from: Span,
        to: Span,
        codec: Codec,
    ) -> Result<(), AccessError> {
        let mut held = Held::take(arena)?;
        let count = to.len_bytes as usize / 4;
        let Held { tensors, work } = &mut held;
        let start = from.offset_bytes as usize;
        let codes =
            work.as_bytes().get(start..start + codec.encoded_bytes(count)).ok_or(AccessError::Range)?;
        let start = to.offset_bytes as usize / 4;
        let floats = tensors.as_f32_mut().get_mut(start..start + count).ok_or(AccessError::Range)?;
        fits(self.cpu.decode(codec, codes, floats))
    }
}

/// The residue of `len` elements of which the first lies at that byte of the tensors.
fn kept(
    tensors: &mut Lease<Filling>,
    at_bytes: usize,
    distance_bytes: Option<i64>,
    len: usize,
) -> Result<Option<&mut [f32]>, AccessError> {
    let Some(distance_bytes) = distance_bytes else { return Ok(None) };
    let start = (at_bytes as u64).checked_add_signed(distance_bytes).ok_or(AccessError::Range)? as usize / 4;
    tensors.as_f32_mut().get_mut(start..start + len).map(Some).ok_or(AccessError::Range)
}

/// A kernel refuses lengths that do not fit, and nothing else here.
fn fits<T>(done: Result<T, KernelError>) -> Result<(), AccessError> {
    done.map(drop).map_err(|_| AccessError::Length)
}

/// Bytes from one place to another that does not overlap it.
pub(super) fn copy(arena: &Arena, from: Span, to: Span) -> Result<(), AccessError> {
    if from.len_bytes != to.len_bytes {
        return Err(AccessError::Length);
    }
    let mut held = Held::take(arena)?;
    let len = from.len_bytes as usize;
    if from.region == to.region {
        let (start, place) = (from.offset_bytes as usize, to.offset_bytes as usize);
        let lease = if from.region == WORK { &mut held.work } else { &mut held.tensors };
        let bytes = lease.as_bytes_mut();
        if start.max(place).checked_add(len).is_none_or(|end| end > bytes.len()) {
            return Err(AccessError::Range);
        }
        bytes.copy_within(start..start + len, place);
        return Ok(());
    }
    let Held { tensors, work } = &mut held;
    let (source, target) = if from.region == WORK { (work, tensors) } else { (tensors, work) };
    let (start, place) = (from.offset_bytes as usize, to.offset_bytes as usize);
    let source = source.as_bytes().get(start..start + len).ok_or(AccessError::Range)?;
    let target = target.as_bytes_mut().get_mut(place..place + len).ok_or(AccessError::Range)?;
    target.copy_from_slice(source);
    Ok(())
}

/// Elements that are worked on at once: they stay in the fastest cache. A multiple of every codec's block.
const BLOCK: usize = 1024;
