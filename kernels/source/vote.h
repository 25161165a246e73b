// Votes of signs: one bit an element, and the majority of each.
//
// The definition is `plesio_kernels::vote`. Memory bounds both: packing has eight loads of 16 bytes in flight for each
// thread; voting has as many and takes two logical instructions a word and vote.
#pragma once

#include "words.h"

// The sign bits of all elements.
struct SignPack {
  Global<const float> x;
  Global<u32> words;
  u64 len; // elements
  u32 aligned;
  u32 pad;
};

// The majority of each bit.
struct SignVote {
  Global<const u32> votes[CONTRIBUTIONS_MAX];
  Global<u32> out;
  u64 len; // words
  u32 count;
  u32 aligned;
};

namespace vote {

// Reads 4 bytes an element, writes an eighth.
KERNEL(sign_pack, SignPack, THREADS) {
  float x[PACKS][PACK];
  load_packs(p.x, p.len, p.aligned, x);
  u32 signs[PACKS];
  UNROLL(8)
  for (u32 j = 0; j < PACKS; ++j) {
    signs[j] = 0;
    for (u32 e = 0; e < PACK; ++e) signs[j] |= float_bits(x[j][e]) >> 31 << e;
  }
  const u32 word = low_nibbles(exchange_bytes(signs));
  const u64 at = static_cast<u64>(block_index()) * THREADS + thread_index();
  if (at * WORD < p.len) p.words[at] = word;
}

// Votes that are counted together.
constexpr u32 BALLOT = 8;
// Binary digits of a count of votes.
constexpr u32 DIGITS = 6;

// Three bits of the same worth: their sum stays, and the carry has twice its worth.
DEVICE u32 add_carry(u32& sum, u32 a, u32 b) {
  const u32 odd = sum ^ a;
  const u32 carry = (sum & a) | (odd & b);
  sum = odd ^ b;
  return carry;
}

// Adds eight votes to the 32 counts of a word, whose digits stand upright: word d of `counts` has digit d of all.
DEVICE void count_votes(u32 (&counts)[DIGITS], const u32 (&votes)[BALLOT]) {
  const u32 a = add_carry(counts[0], votes[0], votes[1]), b = add_carry(counts[0], votes[2], votes[3]);
  const u32 c = add_carry(counts[0], votes[4], votes[5]), d = add_carry(counts[0], votes[6], votes[7]);
  const u32 e = add_carry(counts[1], a, b), f = add_carry(counts[1], c, d);
  u32 carry = add_carry(counts[2], e, f);
  UNROLL(3)
  for (u32 digit = 3; digit < DIGITS; ++digit) {
    const u32 next = counts[digit] & carry;
    counts[digit] ^= carry;
    carry = next;
  }
}

// The bits whose count is more than `half`: from the lowest digit up, the highest one that differs decides.
DEVICE u32 above(const u32 (&counts)[DIGITS], u32 half) {
  u32 greater = 0;
  UNROLL(6)
  for (u32 digit = 0; digit < DIGITS; ++digit) {
    const u32 of_half = 0u - (half >> digit & 1);
    greater = (counts[digit] & ~of_half) | (~(counts[digit] ^ of_half) & greater);
  }
  return greater;
}

template <bool WHOLE> DEVICE void judge(const SignVote& p, u64 first) {
  u32 counts[PACK][DIGITS] = {};
  for (u32 begin = 0; begin < p.count; begin += BALLOT) {
    u32 votes[PACK][BALLOT];
    UNROLL(8)
    for (u32 vote = 0; vote < BALLOT; ++vote) {
      u32 words[PACK] = {};
      if (begin + vote < p.count) load_part<WHOLE>(p.votes[begin + vote], first, p.len, words);
      for (u32 word = 0; word < PACK; ++word) votes[word][vote] = words[word];
    }
    UNROLL(4)
    for (u32 word = 0; word < PACK; ++word) count_votes(counts[word], votes[word]);
  }
  u32 out[PACK];
  UNROLL(4)
  for (u32 word = 0; word < PACK; ++word) out[word] = above(counts[word], p.count / 2);
  store_part<WHOLE>(p.out, first, p.len, out);
}

// Reads 4 bytes a word and vote, writes 4 a word.
KERNEL(sign_vote, SignVote, THREADS) {
  const u64 first = static_cast<u64>(block_index()) * TILE + thread_index() * PACK;
  if (p.aligned && first + PACK <= p.len) {
    judge<true>(p, first);
  } else if (first < p.len) {
    judge<false>(p, first);
  }
}

} // namespace vote
