// Bits of elements, a word for 32 neighbours; and sums over the threads before one.
//
// A block has 8192 elements. They are loaded by packs, pack j * THREADS + t by thread t, and each thread has the word of
// 32 elements in the end: loads and stores are of neighbours.
#pragma once

#include "elements.h"

// Elements of a word.
constexpr u32 WORD = 32;
// Elements of a block whose threads have a word each.
constexpr u32 WORD_TILE = THREADS * WORD;
// Packs of a word, and of a thread.
constexpr u32 PACKS = WORD / PACK;

// The first element of a thread's pack `j`.
DEVICE u64 pack_first(u32 j) {
  return static_cast<u64>(block_index()) * WORD_TILE + (j * THREADS + thread_index()) * PACK;
}

// The words of this block where those of every block lie one after the other.
template <class T> DEVICE T* block_words(T* words) { return words + static_cast<u64>(block_index()) * THREADS; }

// The packs of each thread, all in flight together. WHOLE: the block has all its elements, and they are aligned.
template <bool WHOLE> DEVICE void load_packs(const float* from, u64 len, float (&x)[PACKS][PACK]) {
  UNROLL(8)
  for (u32 j = 0; j < PACKS; ++j) load_part<WHOLE>(from, pack_first(j), len, x[j]);
}

DEVICE void load_packs(const float* from, u64 len, bool aligned, float (&x)[PACKS][PACK]) {
  if (aligned && (block_index() + 1ull) * WORD_TILE <= len) {
    load_packs<true>(from, len, x);
  } else {
    load_packs<false>(from, len, x);
  }
}

// From a byte for each of a thread's packs, in the low bits of `bytes`, to the eight bytes of the packs of its word; all
// threads of the block, once a kernel.
DEVICE Words2 exchange_bytes(const u32 (&bytes)[PACKS]) {
  SHARED(Words2, staged, THREADS);
  u8* to = reinterpret_cast<u8*>(staged);
  UNROLL(8)
  for (u32 j = 0; j < PACKS; ++j) to[j * THREADS + thread_index()] = static_cast<u8>(bytes[j]);
  block_barrier();
  return staged[thread_index()];
}

// The low nibbles of eight bytes as one word.
DEVICE u32 low_nibbles(Words2 bytes) {
  u32 halves[2];
  UNROLL(2)
  for (u32 half = 0; half < 2; ++half) {
    u32 word = word_of(bytes, half) & 0x0f0f0f0fu;
    word = (word | word >> 4) & 0x00ff00ffu;
    halves[half] = (word | word >> 8) & 0xffffu;
  }
  return halves[0] | halves[1] << 16;
}

// The sum of the values of all threads before this one, and of all of them; all threads of the block.
//
// `totals` is shared memory, for no more than one sum between two barriers.
DEVICE u32 sum_before(u32 value, u32 (&totals)[THREADS / 32], u32& total) {
  const u32 thread = thread_index();
  // Within 32 threads: pairs of pairs of pairs; a thread adds what lies in the other half if that is the lower one.
  u32 before = 0, group = value;
  for (u32 other = 1; other < 32; other *= 2) {
    const u32 theirs = shuffle_xor_bits(group, other);
    if ((thread & other) != 0) before += theirs;
    group += theirs;
  }
  if (thread % 32 == 0) totals[thread / 32] = group;
  block_barrier();
  total = 0;
  UNROLL(8)
  for (u32 at = 0; at < THREADS / 32; ++at) {
    if (at == thread / 32) before += total;
    total += totals[at];
  }
  return before;
}
