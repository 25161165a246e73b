//! Votes of signs: one bit an element, and the majority of each (Bernstein et al., "signSGD with majority vote",
//! 2019).
//!
//! Knows: words of 32 signs, the first element in the lowest bit. Does not know: whose votes they are. Invariant:
//! bits of the last word that have no element are zero in what is packed here.

use crate::aggregate::CONTRIBUTIONS_MAX;
use crate::arithmetic::one_by_one;
use crate::error::{KernelError, check_count, check_len};

/// Signs in a word.
pub const WORD: usize = 32;

/// Bit e mod 32 of word e / 32 is the sign bit of element e, of a NaN and of zero, too.
///
/// # Errors
/// Another number of words than the elements take; nothing was written.
#[inline(always)]
pub fn sign_pack(x: &[f32], words: &mut [u32]) -> Result<(), KernelError> {
    check_pack(x, words)?;
    let (blocks, tail) = x.as_chunks::<WORD>();
    for (word, block) in words.iter_mut().zip(blocks) {
        *word = pack(block);
    }
    if let Some(word) = words.get_mut(blocks.len()) {
        let mut block = [0.0; WORD];
        block[..tail.len()].copy_from_slice(tail);
        *word = pack(&block);
    }
    Ok(())
}

#[expect(
    clippy::needless_range_loop,
    reason = "adaptors are not inlined into code for a wider instruction set"
)]
#[inline(always)]
fn pack(block: &[f32; WORD]) -> u32 {
    let mut signs = [0u8; WORD];
    for e in 0..WORD {
        signs[e] = (block[e].to_bits() >> 31) as u8;
    }
    let mut word = 0;
    let signs = one_by_one(signs);
    let bytes = signs.as_chunks::<8>().0;
    for byte in 0..WORD / 8 {
        // Byte i, moved up by 56 - 7 i, has its bit at 56 + i; nothing else reaches the top byte.
        let gathered = u64::from_le_bytes(bytes[byte]).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        word |= (gathered as u32) << (8 * byte);
    }
    word
}

/// A bit of `out` is one where more than half of the votes have it; half of them is not enough.
///
/// # Errors
/// No vote or more than [`CONTRIBUTIONS_MAX`], or votes of another length than `out`. Nothing was written.
#[inline(always)]
pub fn sign_vote(votes: &[&[u32]], out: &mut [u32]) -> Result<(), KernelError> {
    check_vote(votes, out.len())?;
    let (blocks, tail) = out.as_chunks_mut::<BLOCK>();
    let tail_start = blocks.len() * BLOCK;
    for (index, out) in blocks.iter_mut().enumerate() {
        *out = majority(votes, index * BLOCK);
    }
    for (index, out) in tail.iter_mut().enumerate() {
        [*out] = majority(votes, tail_start + index);
    }
    Ok(())
}

/// Checks the shapes of [`sign_pack`].
///
/// # Errors
/// As [`sign_pack`].
#[inline(always)]
pub fn check_pack(x: &[f32], words: &[u32]) -> Result<(), KernelError> {
    check_len("words", x.len().div_ceil(WORD), words.len())
}

/// Checks the shapes of [`sign_vote`] over `len` words.
///
/// # Errors
/// As [`sign_vote`].
#[inline(always)]
pub fn check_vote(votes: &[&[u32]], len: usize) -> Result<(), KernelError> {
    check_count("votes", votes.len(), 1, CONTRIBUTIONS_MAX)?;
    votes.iter().try_for_each(|vote| check_len("vote", len, vote.len()))
}

/// Words that are counted together.
const BLOCK: usize = 16;
/// Binary digits of a count of votes.
const DIGITS: usize = CONTRIBUTIONS_MAX.ilog2() as usize + 1;

/// The majority of W words. The 32 counts of a word are kept as binary numbers that stand upright: word d of `counts`
/// has digit d of all of them, and a vote is added to all by one ripple of carries.
#[inline(always)]
fn majority<const W: usize>(votes: &[&[u32]], start: usize) -> [u32; W] {
    let mut counts = [[0u32; W]; DIGITS];
    for vote in votes {
        let mut carry: [u32; W] = *vote[start..].first_chunk().expect("the lengths were checked");
        for digits in &mut counts {
            for (digit, carry) in digits.iter_mut().zip(&mut carry) {
                (*digit, *carry) = (*digit ^ *carry, *digit & *carry);
            }
        }
    }
    // Greater than half, rounded down: from the lowest digit up, the highest one that differs decides.
    let half = votes.len() / 2;
    let mut greater = [0u32; W];
    for (digit, digits) in counts.iter().enumerate() {
        let of_half = 0u32.wrapping_sub((half >> digit & 1) as u32);
        for word in 0..W {
            let of_count = digits[word];
            greater[word] = of_count & !of_half | !(of_count ^ of_half) & greater[word];
        }
    }
    greater
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_packed_from_the_lowest_bit_up() {
        let mut x = [1.0f32; 35];
        for e in [0, 3, 31, 34] {
            x[e] = -x[e];
        }
        let mut words = [u32::MAX; 2];
        sign_pack(&x, &mut words).expect("two words hold 35");
        assert_eq!(words, [0x8000_0009, 4], "the other 29 bits are zero");
        sign_pack(&[-0.0, 0.0, -f32::NAN, f32::NEG_INFINITY], &mut words[..1]).expect("one word holds 4");
        assert_eq!(words[0], 0b1101);
        sign_pack(&[], &mut []).expect("nothing fits nowhere");
    }

    #[test]
    fn every_count_of_every_number_of_votes_is_judged() {
        for k in 1..=CONTRIBUTIONS_MAX {
            for ones in 0..=k {
                // Bit b of word w: contribution c votes yes when c + b + w, around, is below `ones`.
                let votes: Vec<Vec<u32>> = (0..k)
                    .map(|c| {
                        let yes = |w: usize, b: usize| u32::from((c + b + w) % k < ones) << b;
                        (0..37).map(|w| (0..32).map(|b| yes(w, b)).sum()).collect()
                    })
                    .collect();
                let views: Vec<&[u32]> = votes.iter().map(Vec::as_slice).collect();
                let mut out = [5; 37];
                sign_vote(&views, &mut out).expect("equal lengths");
                let wanted = if 2 * ones > k { u32::MAX } else { 0 };
                assert_eq!(out, [wanted; 37], "{ones} of {k}");
            }
        }
    }

    #[test]
    fn bad_votes_are_refused_and_nothing_is_written() {
        let mut out = [9; 2];
        assert!(matches!(sign_vote(&[], &mut out), Err(KernelError::Count { found: 0, .. })));
        let vote: &[u32] = &[1, 2];
        assert!(matches!(sign_vote(&[vote; 33], &mut out), Err(KernelError::Count { found: 33, .. })));
        assert!(matches!(sign_vote(&[vote, &[1]], &mut out), Err(KernelError::Length { what: "vote", .. })));
        assert!(matches!(sign_pack(&[0.0; 33], &mut out[..1]), Err(KernelError::Length { .. })));
        assert_eq!(out, [9; 2]);
    }
}
