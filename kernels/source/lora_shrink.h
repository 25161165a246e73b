// Shrink: every row of x with every row of the factors, `out[t][k] = scale * dot(x[t], factors[k])`.
//
// 32 threads have two lanes each of 4 x 8 dot products, so that an element that was read is used eight times or
// four. The factors come through shared memory, in chunks that all token groups of the block use; the rows of x come
// straight from memory, the next turn's while this one's are used, 64 bytes a thread. Instructions bound it where
// there are eight ranks or more: 64 multiply-adds of about 110 in bfloat16, of about 90 in binary32. With fewer
// ranks, memory.
//
// The definition is `plesio_kernels::lora::shrink`.
#pragma once

#include "lanes.h"

template <class E> struct Shrink {
  Global<const E> x;       // rows of `width`, `x_stride` apart
  Global<const E> factors; // rank x width
  Global<float> out;       // rows of `rank`, `out_stride` apart
  u64 width;
  u64 x_stride;
  u64 out_stride;
  u32 rows;
  u32 rank;
  float scale;
  u32 aligned;
};

// Of one warp.
constexpr u32 SHRINK_TOKENS = 4;
constexpr u32 SHRINK_RANKS = 8;
// Of a block, at most.
constexpr u32 SHRINK_BLOCK_RANKS = 2 * SHRINK_RANKS;
// Bytes of each factor that are worked on between two barriers.
constexpr u32 SHRINK_CHUNK_BYTES = 256;
// The same in pieces of 16 bytes: one for each thread.
constexpr u32 SHRINK_PIECES = SHRINK_CHUNK_BYTES / 16;
static_assert(SHRINK_BLOCK_RANKS * SHRINK_PIECES == THREADS, "each thread moves a piece");

// What a thread's warp computes.
struct ShrinkTile {
  u32 token;
  u32 block_rank; // the block's first
  u32 rank; // after that
};

template <class E> DEVICE ShrinkTile shrink_tile(const Shrink<E>& p) {
  const u32 warp = thread_index() / 32, warps = THREADS / 32;
  const u32 parts = p.rank > SHRINK_RANKS ? 2 : 1;
  const u32 ranks = parts * SHRINK_RANKS, rank_blocks = (p.rank - 1) / ranks + 1;
  const u32 block = block_index();
  return {(block / rank_blocks * (warps / parts) + warp / parts) * SHRINK_TOKENS, block % rank_blocks * ranks,
          warp % parts * SHRINK_RANKS};
}

// One step's elements of this thread.
template <class E>
DEVICE void shrink_rows(const E* const (&x)[SHRINK_TOKENS], u32 step, u32 (&words)[SHRINK_TOKENS][WORDS<E, 2>]) {
  UNROLL(4)
  for (u32 token = 0; token < SHRINK_TOKENS; ++token)
    load_words(global(x[token] + step * LANES), words[token]);
}

// All whole steps of 64 elements.
template <class E>
DEVICE void shrink_steps(const Shrink<E>& p, const ShrinkTile& tile, u32 steps, Words4* shared,
                         float (&sums)[SHRINK_TOKENS * SHRINK_RANKS][2]) {
  constexpr u32 STEPS = SHRINK_CHUNK_BYTES / sizeof(E) / LANES;
  constexpr u32 PAIR = WORDS<E, 2>;
  const u32 thread = thread_index(), pair = thread % 32;
  // This thread's lanes of four rows; a row beyond the last is computed like it and kept to oneself.
  const E* x[SHRINK_TOKENS];
  for (u32 token = 0; token < SHRINK_TOKENS; ++token)
    x[token] = p.x + u64{smaller(tile.token + token, p.rows - 1)} * p.x_stride + pair * 2;
  // The piece of each chunk of the factors that this thread moves to shared memory.
  const u32 mover = thread % SHRINK_PIECES * PIECE<E>;
  const E* from = p.factors + u64{smaller(tile.block_rank + thread / SHRINK_PIECES, p.rank - 1)} * p.width + mover;
  u32 piece[4] = {}, x_words[2 * STEPS][SHRINK_TOKENS][PAIR] = {};
  if (mover / LANES < steps) load_words(from, piece);
  UNROLL(4)
  for (u32 step = 0; step < 2 * STEPS; ++step)
    if (step < steps) shrink_rows(x, step, x_words[step]);
  // Two chunks a turn, each in its own half of shared memory: one is filled while the other is used.
  for (u32 turn = 0; turn < steps; turn += 2 * STEPS) {
    UNROLL(2)
    for (u32 half = 0; half < 2; ++half) {
      Words4* chunk = shared + half * THREADS;
      chunk[thread] = words_of(piece[0], piece[1], piece[2], piece[3]);
      block_barrier();
      from += STEPS * LANES;
      if (turn + (half + 1) * STEPS + mover / LANES < steps) load_words(from, piece);
      UNROLL(2)
      for (u32 step = half * STEPS; step < (half + 1) * STEPS; ++step) {
        if (turn + step < steps) {
          UNROLL(8)
          for (u32 rank = 0; rank < SHRINK_RANKS; ++rank) {
            const Words1* factor = reinterpret_cast<const Words1*>(chunk + (tile.rank + rank) * SHRINK_PIECES);
            u32 words[PAIR];
            load_words(factor + (step % STEPS * 32 + pair) * PAIR, words);
            UNROLL(4)
            for (u32 token = 0; token < SHRINK_TOKENS; ++token)
              for (u32 lane = 0; lane < 2; ++lane) {
                float& sum = sums[token * SHRINK_RANKS + rank][lane];
                sum = fused(value_of<E>(x_words[step][token], lane), value_of<E>(words, lane), sum);
              }
          }
        }
        if (turn + 2 * STEPS + step < steps) shrink_rows(x, 2 * STEPS + step, x_words[step]);
      }
    }
    for (u32 token = 0; token < SHRINK_TOKENS; ++token) x[token] += 2 * STEPS * LANES;
  }
}

// The elements from `begin` on, of rows that begin anywhere.
template <class E>
DEVICE void shrink_rest(const Shrink<E>& p, const ShrinkTile& tile, u64 begin,
                        float (&sums)[SHRINK_TOKENS * SHRINK_RANKS][2]) {
  const u32 lane = thread_index() % 32 * 2;
  for (; begin < p.width; begin += LANES) {
    const u32 len = static_cast<u32>(smaller(p.width - begin, u64{LANES}));
    if (!is_filled(lane, len)) break;
    UNROLL(2)
    for (u32 at = 0; at < 2; ++at) {
      const bool inside = lane + at < len;
      const u64 element = begin + lane + at;
      float values[SHRINK_TOKENS];
      for (u32 token = 0; token < SHRINK_TOKENS; ++token) {
        const u64 row = smaller(tile.token + token, p.rows - 1);
        values[token] = inside ? widen(p.x[row * p.x_stride + element]) : 0.0f;
      }
      UNROLL(8)
      for (u32 rank = 0; rank < SHRINK_RANKS; ++rank) {
        const u64 row = smaller(tile.block_rank + tile.rank + rank, p.rank - 1);
        const float factor = inside ? widen(p.factors[row * p.width + element]) : 0.0f;
        UNROLL(4)
        for (u32 token = 0; token < SHRINK_TOKENS; ++token) {
          float& sum = sums[token * SHRINK_RANKS + rank][at];
          sum = fused(values[token], factor, sum);
        }
      }
    }
  }
}

template <class E> DEVICE void shrink(const Shrink<E>& p, Words4* shared) {
  const ShrinkTile tile = shrink_tile(p);
  float sums[SHRINK_TOKENS * SHRINK_RANKS][2];
  for (u32 product = 0; product < SHRINK_TOKENS * SHRINK_RANKS; ++product) sums[product][0] = sums[product][1] = 0.0f;
  const u32 steps = p.aligned ? static_cast<u32>(p.width / LANES) : 0;
  if (steps > 0) shrink_steps(p, tile, steps, shared, sums);
  shrink_rest(p, tile, u64{steps} * LANES, sums);
  const float dot = fold_apart(sums);
  const u32 product = thread_index() % 32;
  const u32 token = tile.token + product / SHRINK_RANKS;
  const u32 rank = tile.block_rank + tile.rank + product % SHRINK_RANKS;
  if (token < p.rows && rank < p.rank) p.out[u64{token} * p.out_stride + rank] = p.scale * dot;
}

KERNEL(lora_shrink, Shrink<float>, THREADS) {
  SHARED(Words4, shared, 2 * THREADS);
  shrink(p, shared);
}

KERNEL(lora_shrink_bf16, Shrink<u16>, THREADS) {
  SHARED(Words4, shared, 2 * THREADS);
  shrink(p, shared);
}
