//! Every level against a plain sum in the same order, at odd lengths and odd values.

use super::*;
use plesio_memory::{Access, SegmentPlan};

const BYTES: usize = 1 << 16;

fn segment() -> Segment {
    let plan =
        SegmentPlan { name: "sums".into(), len_bytes: BYTES, access: Access::Shared, budget_bytes: BYTES };
    Segment::heap(&plan).expect("64 KiB")
}

fn fill(segment: &Segment, offset_bytes: usize, words: impl Iterator<Item = u32>) {
    let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    segment.copy_in(offset_bytes, &bytes).expect("it fits");
}

fn words(segment: &Segment, offset_bytes: usize, count: usize) -> Vec<u32> {
    let mut bytes = vec![0; count * 4];
    segment.copy_out(offset_bytes, &mut bytes).expect("it fits");
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("4 bytes"))).collect()
}

/// Bits that are numbers of every kind: large, small, subnormal, infinite, not a number.
fn bits(rank: u32, at: u32) -> u32 {
    match (at * 7 + rank) % 13 {
        0 => 0x7F80_0000,
        1 => 0xFF80_0000,
        2 => 0x7FC0_0001,
        3 => 0x0000_0001 + at,
        4 => 0x8000_0000,
        _ => (at + 1).wrapping_mul(2_654_435_761).rotate_left(rank * 5) & 0xBFFF_FFFF,
    }
}

fn same(one: f32, other: f32) -> bool {
    one.to_bits() == other.to_bits() || (one.is_nan() && other.is_nan())
}

#[test]
fn every_level_sums_in_order_at_every_length() {
    for level in Level::ALL {
        let Some(sums) = SharedSums::with_level(level) else { continue };
        for len in [0usize, 1, 3, 15, 16, 17, 100, 1023, 1024, 1025, 2500] {
            for ranks in [1u32, 2, 3, 8] {
                let segments: Vec<Segment> = (0..ranks).map(|_| segment()).collect();
                let tensor = |rank: usize| Tensor { segment: &segments[rank], offset_bytes: 8192 };
                for (rank, segment) in (0..).zip(&segments) {
                    fill(segment, 8192, (0..len as u32 + 20).map(|at| bits(rank, at)));
                }
                let scratch = Tensor { segment: &segments[0], offset_bytes: 0 };
                let part = 5..5 + len;
                let all = || (0..ranks as usize).map(tensor);
                let mut marks = Vec::new();
                sums.reduce(Lane::F32, all(), all(), &part, 1024, scratch, &mut |staged| marks.push(staged))
                    .expect("inside");
                assert_eq!(marks, [true, false].repeat(len.div_ceil(1024)));
                for segment in &segments {
                    let found = words(segment, 8192, len + 20);
                    for (at, found) in (0u32..).zip(found) {
                        let rank = segments.iter().position(|other| core::ptr::eq(other, segment));
                        let own = bits(rank.expect("one of them") as u32, at);
                        let inside = part.contains(&(at as usize));
                        let sum = (1..ranks).fold(f32::from_bits(bits(0, at)), |sum, rank| {
                            sum + f32::from_bits(bits(rank, at))
                        });
                        let wanted = if inside { sum } else { f32::from_bits(own) };
                        assert!(same(f32::from_bits(found), wanted), "{level} {len} {ranks} {at}");
                    }
                }
            }
        }
    }
}

#[test]
fn integers_wrap_and_bfloat16_is_rounded_once() {
    for level in Level::ALL {
        let Some(sums) = SharedSums::with_level(level) else { continue };
        let segment = segment();
        let place = |offset_bytes| Tensor { segment: &segment, offset_bytes };
        fill(&segment, 4096, (0..33).map(|at| i32::MAX as u32 - at));
        fill(&segment, 8192, (0..33).map(|at| 2 * at));
        let reduce = |lane, inputs: &[usize], elements: usize| {
            let inputs = inputs.iter().map(|offset_bytes| place(*offset_bytes));
            let outputs = [place(16_384)].into_iter();
            sums.reduce(lane, inputs, outputs, &(0..elements), 16, place(0), &mut |_| {}).expect("inside");
        };
        reduce(Lane::I32, &[4096, 8192], 33);
        let wanted: Vec<u32> = (0..33).map(|at| (i32::MAX as u32).wrapping_add(at)).collect();
        assert_eq!(words(&segment, 16_384, 33), wanted, "{level}");

        // 256 + 1 + 1: 257 is no bfloat16, 258 is.
        let line = |value: f32| vec![u32::from(bf16::narrow(value)) * 0x1_0001; 9];
        for (offset_bytes, value) in [(4096, 256.0), (8192, 1.0), (12_288, 1.0), (16_384, 4.0)] {
            fill(&segment, offset_bytes, line(value).into_iter());
        }
        reduce(Lane::Bf16, &[4096, 8192, 12_288], 17);
        let found = words(&segment, 16_384, 9);
        assert_eq!(found[..8], line(258.0)[..8], "{level}");
        assert_eq!(found[8], u32::from(bf16::narrow(4.0)) << 16 | u32::from(bf16::narrow(258.0)), "{level}");
    }
}

#[test]
fn what_leaves_a_segment_or_is_not_aligned_is_refused() {
    let sums = SharedSums::detect();
    let segment = segment();
    let place = |offset_bytes| Tensor { segment: &segment, offset_bytes };
    let stage = |offset_bytes, elements: Range<usize>, scratch| {
        let inputs = [place(offset_bytes)].into_iter();
        sums.reduce(Lane::F32, inputs.clone(), inputs, &elements, 1024, place(scratch), &mut |_| {
            panic!("nothing to do")
        })
    };
    assert_eq!(stage(0, 0..BYTES / 4 + 1, 0), Err(AccessError::Range));
    assert_eq!(stage(8, BYTES / 4 - 2..BYTES / 4, 0), Err(AccessError::Range));
    assert_eq!(stage(0, usize::MAX - 1..usize::MAX, 0), Err(AccessError::Range));
    assert_eq!(stage(2, 0..4, 0), Err(AccessError::Alignment));
    assert_eq!(stage(0, 0..4, BYTES - 8), Err(AccessError::Range));
    let outputs = [place(BYTES - 4)].into_iter();
    assert_eq!(sums.spread(Lane::F32, place(0), outputs, &(0..2)), Err(AccessError::Range));
    let outputs = [place(BYTES)].into_iter();
    assert_eq!(sums.copy(Lane::F32, place(0), outputs, &(0..0)), Ok(()));
}
