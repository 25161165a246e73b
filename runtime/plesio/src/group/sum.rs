//! Sums of spans of one arena, in the order given. Spans lie in two regions at most, and both are held while it runs.

use plesio_collective::Element;
use plesio_kernels::bf16;
use plesio_memory::{AccessError, Arena, Filling, Lease};
use plesio_wire::Span;

/// What is summed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elements {
    pub(super) element: Element,
    pub(super) count: usize,
}

/// Regions that spans lie in, each held once.
struct Held {
    leases: Vec<Lease<Filling>>,
}

impl Held {
    fn take(arena: &Arena, spans: impl Iterator<Item = Span>) -> Result<Self, AccessError> {
        let mut regions: Vec<u16> = spans.map(|span| span.region).collect();
        regions.sort_unstable();
        regions.dedup();
        Ok(Self { leases: regions.into_iter().map(|region| arena.lease(region)).collect::<Result<_, _>>()? })
    }

    fn bytes(&self, span: Span, at: usize, len: usize) -> Result<&[u8], AccessError> {
        let lease =
            self.leases.iter().find(|lease| lease.span().region == span.region).ok_or(AccessError::Range)?;
        let start = span.offset_bytes as usize + at;
        lease.as_bytes().get(start..start + len).ok_or(AccessError::Range)
    }

    fn bytes_mut(&mut self, span: Span, at: usize, len: usize) -> Result<&mut [u8], AccessError> {
        let mut leases = self.leases.iter_mut();
        let lease = leases.find(|lease| lease.span().region == span.region).ok_or(AccessError::Range)?;
        let start = span.offset_bytes as usize + at;
        lease.as_bytes_mut().get_mut(start..start + len).ok_or(AccessError::Range)
    }
}

/// Elements that are summed at once: they stay in the fastest cache.
const BLOCK: usize = 1024;

/// `output = sum of inputs`, bfloat16 summed as binary32 and rounded once. The output may be one of the inputs.
pub(super) fn sum(
    arena: &Arena,
    elements: Elements,
    inputs: &[Span],
    output: Span,
) -> Result<(), AccessError> {
    let mut held = Held::take(arena, inputs.iter().copied().chain([output]))?;
    let bytes = elements.element.bytes() as usize;
    let mut done = 0;
    while done < elements.count {
        let len = BLOCK.min(elements.count - done);
        let mut floats = [0.0f32; BLOCK];
        let mut whole = [0i32; BLOCK];
        for (index, input) in inputs.iter().enumerate() {
            let from = held.bytes(*input, done * bytes, len * bytes)?;
            let first = index == 0;
            match elements.element {
                Element::I32 => {
                    for (sum, four) in whole.iter_mut().zip(from.as_chunks().0) {
                        let value = i32::from_le_bytes(*four);
                        *sum = if first { value } else { sum.wrapping_add(value) };
                    }
                }
                Element::Bf16 => {
                    for (sum, two) in floats.iter_mut().zip(from.as_chunks().0) {
                        let value = bf16::widen(u16::from_le_bytes(*two));
                        *sum = if first { value } else { *sum + value };
                    }
                }
                _ => {
                    for (sum, four) in floats.iter_mut().zip(from.as_chunks().0) {
                        let value = f32::from_le_bytes(*four);
                        *sum = if first { value } else { *sum + value };
                    }
                }
            }
        }
        let to = held.bytes_mut(output, done * bytes, len * bytes)?;
        match elements.element {
            Element::I32 => {
                for (four, sum) in to.as_chunks_mut().0.iter_mut().zip(&whole) {
                    *four = sum.to_le_bytes();
                }
            }
            Element::Bf16 => {
                for (two, sum) in to.as_chunks_mut().0.iter_mut().zip(&floats) {
                    *two = bf16::narrow(*sum).to_le_bytes();
                }
            }
            _ => {
                for (four, sum) in to.as_chunks_mut().0.iter_mut().zip(&floats) {
                    *four = sum.to_le_bytes();
                }
            }
        }
        done += len;
    }
    Ok(())
}

/// Bytes from one place to another that does not overlap it.
pub(super) fn copy(arena: &Arena, from: Span, to: Span) -> Result<(), AccessError> {
    if from.len_bytes != to.len_bytes {
        return Err(AccessError::Length);
    }
    let mut held = Held::take(arena, [from, to].into_iter())?;
    let mut done = 0;
    let mut block = [0; 4096];
    while done < from.len_bytes as usize {
        let len = block.len().min(from.len_bytes as usize - done);
        block[..len].copy_from_slice(held.bytes(from, done, len)?);
        held.bytes_mut(to, done, len)?.copy_from_slice(&block[..len]);
        done += len;
    }
    Ok(())
}
