// Expand: rows of the factors added to every row, k rising,
// `to[t] = from[t] + sum over k of (scale * c[t][k]) * factors[k]`.
//
// A thread has 16 bytes of eight rows: a factor's piece that was read is used eight times. The four groups of rows
// of a block read the same pieces at about the same time, so three of them find it in the first-level cache. The
// coefficients of the block's 32 rows wait in shared memory. Memory bounds it: every row is read and written once,
// and 128 bytes a thread are asked for at once. Instructions come next, 75 for 64 multiply-adds of bfloat16.
//
// The definition is `plesio_kernels::lora`'s expand. `to` may be `from`.
#pragma once

#include "values.h"

template <class E> struct Expand {
  Global<const float> coefficients; // of row t and rank k at t * row_stride + k * rank_stride
  Global<const E> factors;          // rank x width
  Global<const E> from;             // rows x width
  Global<E> to;                     // the same
  u64 width;
  u64 row_stride;
  u64 rank_stride;
  u32 rows;
  u32 rank; // at most EXPAND_RANKS
  float scale;
  u32 aligned;
};

constexpr u32 EXPAND_RANKS = 64;
// Rows of a thread, and of a block.
constexpr u32 EXPAND_ROWS = 8;
constexpr u32 EXPAND_BLOCK_ROWS = 32;
// Threads that share a row.
constexpr u32 EXPAND_SHARING = THREADS / (EXPAND_BLOCK_ROWS / EXPAND_ROWS);

// Scaled coefficients of the block's rows, by rank.
template <class E> DEVICE void expand_stage(const Expand<E>& p, u32 first_row, Words4* shared) {
  float* coefficients = reinterpret_cast<float*>(shared);
  for (u32 at = thread_index(); at < p.rank * EXPAND_BLOCK_ROWS; at += THREADS) {
    const u64 row = smaller(first_row + at % EXPAND_BLOCK_ROWS, p.rows - 1), rank = at / EXPAND_BLOCK_ROWS;
    coefficients[at] = p.scale * p.coefficients[row * p.row_stride + rank * p.rank_stride];
  }
}

// N columns from `column` on of eight rows from `row` on, the `group`th eight of the block.
template <u32 N, class E>
DEVICE void expand_columns(const Expand<E>& p, u32 row, u32 group, u64 column, const Words4* shared) {
  float sums[EXPAND_ROWS][N];
  UNROLL(8)
  for (u32 t = 0; t < EXPAND_ROWS; ++t) {
    const E* from = p.from + u64{smaller(row + t, p.rows - 1)} * p.width + column;
    if constexpr (N == 1) {
      sums[t][0] = widen(*from);
    } else {
      u32 words[4];
      load_words(from, words);
      for (u32 at = 0; at < N; ++at) sums[t][at] = value_of<E>(words, at);
    }
  }
  const E* factor = p.factors + column;
  UNROLL(4)
  for (u32 rank = 0; rank < p.rank; ++rank) {
    float values[N], coefficients[EXPAND_ROWS];
    if constexpr (N == 1) {
      values[0] = widen(*factor);
    } else {
      u32 words[4];
      load_words(factor, words);
      for (u32 at = 0; at < N; ++at) values[at] = value_of<E>(words, at);
    }
    for (u32 four = 0; four < 2; ++four) {
      const Words4 words = shared[rank * (EXPAND_BLOCK_ROWS / 4) + group * 2 + four];
      for (u32 at = 0; at < 4; ++at) coefficients[four * 4 + at] = bits_float(word_of(words, at));
    }
    UNROLL(8)
    for (u32 t = 0; t < EXPAND_ROWS; ++t)
      UNROLL(8)
      for (u32 at = 0; at < N; ++at) sums[t][at] = fused(coefficients[t], values[at], sums[t][at]);
    factor += p.width;
  }
  UNROLL(8)
  for (u32 t = 0; t < EXPAND_ROWS; ++t) {
    if (row + t >= p.rows) continue;
    E* to = p.to + u64{row + t} * p.width + column;
    if constexpr (N == 1) {
      store(to, sums[t][0]);
    } else {
      store_values<E, N, true>(to, sums[t]);
    }
  }
}

template <class E> DEVICE void expand(const Expand<E>& p, Words4* shared) {
  constexpr u32 COLUMNS = EXPAND_SHARING * PIECE<E>; // of a block
  const u32 slabs = static_cast<u32>((p.width + COLUMNS - 1) / COLUMNS);
  const u32 first_row = block_index() / slabs * EXPAND_BLOCK_ROWS;
  const u64 first_column = u64{block_index() % slabs} * COLUMNS;
  expand_stage(p, first_row, shared);
  block_barrier();
  const u32 group = thread_index() / EXPAND_SHARING, thread = thread_index() % EXPAND_SHARING;
  const u32 row = first_row + group * EXPAND_ROWS;
  if (row >= p.rows) return;
  const u64 column = first_column + thread * PIECE<E>;
  if (p.aligned && column + PIECE<E> <= p.width) {
    expand_columns<PIECE<E>>(p, row, group, column, shared);
  } else if (!p.aligned) {
    for (u32 at = 0; at < PIECE<E>; ++at) {
      const u64 single = first_column + at * EXPAND_SHARING + thread;
      if (single < p.width) expand_columns<1>(p, row, group, single, shared);
    }
  }
}

KERNEL(lora_expand, Expand<float>, THREADS) {
  SHARED(Words4, shared, EXPAND_RANKS * EXPAND_BLOCK_ROWS / 4);
  expand(p, shared);
}

KERNEL(lora_expand_bf16, Expand<u16>, THREADS) {
  SHARED(Words4, shared, EXPAND_RANKS * EXPAND_BLOCK_ROWS / 4);
  expand(p, shared);
}
