// Outer: sums of outer products over the batch, `out[k] += sum over t of (scale * c[t][k]) * x[t]`, t rising.
//
// That order makes every element of `out` one chain over all rows, and rank x width chains are all that can be done
// at once: 65536 at rank 16 and width 4096, four for each lane of a large device. So a thread has four ranks of one
// column and no more, a block 16 ranks of 32 columns, and there are blocks for every multiprocessor to have one.
// Rows come through shared memory in chunks; the next chunk's are on their way to registers (16 KiB a block) while
// this one is added. Shared memory bounds it, with two reads for four multiply-adds, and that there are but four
// warps.
//
// The definition is `plesio_kernels::lora::outer`.
#pragma once

#include "values.h"

template <class E> struct Outer {
  Global<const float> coefficients; // rows of `rank`, `coefficients_stride` apart
  Global<const E> x;                // rows of `width`, `x_stride` apart
  Global<float> out;                // rank x width
  u64 rows;
  u64 width;
  u64 coefficients_stride;
  u64 x_stride;
  u32 rank;
  float scale;
  u32 aligned;
  u32 pad;
};

constexpr u32 OUTER_THREADS = 128;
// Of a thread.
constexpr u32 OUTER_RANKS = 4;
// Of a block.
constexpr u32 OUTER_COLUMNS = 32;
constexpr u32 OUTER_BLOCK_RANKS = OUTER_THREADS / OUTER_COLUMNS * OUTER_RANKS;
// Rows of a chunk.
constexpr u32 OUTER_ROWS = 128;

// What a thread brings for the next chunk: pieces of rows, and single coefficients.
template <class E> constexpr u32 OUTER_PIECES = OUTER_ROWS * OUTER_COLUMNS / PIECE<E> / OUTER_THREADS;
constexpr u32 OUTER_COEFFICIENTS = OUTER_ROWS * OUTER_BLOCK_RANKS / OUTER_THREADS;

template <class E> struct OuterPlace {
  u64 row; // the chunk's first
  u64 column; // the block's first
  u32 rank; // the same
};

// The coefficients of a chunk, neighbours by rank; those of no row or rank do not matter. They are not touched here:
// that would wait for them.
template <class E>
DEVICE void outer_coefficients(const Outer<E>& p, const OuterPlace<E>& at, float (&values)[OUTER_COEFFICIENTS]) {
  UNROLL(16)
  for (u32 one = 0; one < OUTER_COEFFICIENTS; ++one) {
    const u32 index = one * OUTER_THREADS + thread_index();
    const u64 row = smaller(at.row + index / OUTER_BLOCK_RANKS, p.rows - 1);
    const u32 rank = smaller(at.rank + index % OUTER_BLOCK_RANKS, p.rank - 1);
    values[one] = p.coefficients[row * p.coefficients_stride + rank];
  }
}

// The pieces of a chunk's rows; those beyond the last row or column repeat it.
template <class E>
DEVICE void outer_pieces(const Outer<E>& p, const OuterPlace<E>& at, u32 (&pieces)[OUTER_PIECES<E>][4]) {
  constexpr u32 SHARING = OUTER_COLUMNS / PIECE<E>; // threads of a row
  const u64 column = smaller(at.column + thread_index() % SHARING * PIECE<E>, p.width - PIECE<E>);
  UNROLL(8)
  for (u32 piece = 0; piece < OUTER_PIECES<E>; ++piece) {
    const u64 row = at.row + piece * (OUTER_THREADS / SHARING) + thread_index() / SHARING;
    load_words(p.x + smaller(row, p.rows - 1) * p.x_stride + column, pieces[piece]);
  }
}

template <class E> DEVICE void outer_keep(const u32 (&pieces)[OUTER_PIECES<E>][4], Words4* rows) {
  UNROLL(8)
  for (u32 piece = 0; piece < OUTER_PIECES<E>; ++piece) {
    UNROLL(2)
    for (u32 four = 0; four < PIECE<E>; four += 4) {
      u32 words[4];
      for (u32 at = 0; at < 4; ++at) words[at] = float_bits(value_of<E>(pieces[piece], four + at));
      // Neighbouring threads have neighbouring pieces, all of the chunk one after the other.
      rows[(piece * OUTER_THREADS + thread_index()) * (PIECE<E> / 4) + four / 4] =
          words_of(words[0], words[1], words[2], words[3]);
    }
  }
}

// The rows of a chunk that begin anywhere, straight to shared memory.
template <class E> DEVICE void outer_copy(const Outer<E>& p, const OuterPlace<E>& at, float* rows) {
  for (u32 index = thread_index(); index < OUTER_ROWS * OUTER_COLUMNS; index += OUTER_THREADS) {
    const u64 row = at.row + index / OUTER_COLUMNS, column = at.column + index % OUTER_COLUMNS;
    if (row < p.rows && column < p.width) rows[index] = widen(p.x[row * p.x_stride + column]);
  }
}

template <class E> DEVICE void outer(const Outer<E>& p, Words4* rows, Words4* coefficients) {
  const u32 rank_blocks = (p.rank - 1) / OUTER_BLOCK_RANKS + 1;
  const u64 first_column = u64{block_index() / rank_blocks} * OUTER_COLUMNS;
  OuterPlace<E> at{0, first_column, block_index() % rank_blocks * OUTER_BLOCK_RANKS};
  const u32 thread = thread_index(), four = thread / OUTER_COLUMNS;
  const u64 column = at.column + thread % OUTER_COLUMNS;
  const u32 rank = at.rank + four * OUTER_RANKS;
  float sums[OUTER_RANKS];
  for (u32 k = 0; k < OUTER_RANKS; ++k)
    sums[k] = column < p.width && rank + k < p.rank ? p.out[u64{rank + k} * p.width + column] : 0.0f;

  float* row_values = reinterpret_cast<float*>(rows);
  float* coefficient_values = reinterpret_cast<float*>(coefficients);
  u32 pieces[OUTER_PIECES<E>][4];
  float singles[OUTER_COEFFICIENTS];
  if (p.aligned) outer_pieces(p, at, pieces);
  outer_coefficients(p, at, singles);
  while (at.row < p.rows) {
    if (p.aligned) {
      outer_keep<E>(pieces, rows);
    } else {
      outer_copy(p, at, row_values);
    }
    UNROLL(16)
    for (u32 one = 0; one < OUTER_COEFFICIENTS; ++one)
      coefficient_values[one * OUTER_THREADS + thread] = p.scale * singles[one];
    block_barrier();
    const u32 count = static_cast<u32>(smaller(p.rows - at.row, u64{OUTER_ROWS}));
    at.row += OUTER_ROWS;
    if (at.row < p.rows) {
      if (p.aligned) outer_pieces(p, at, pieces);
      outer_coefficients(p, at, singles);
    }
    UNROLL(16)
    for (u32 row = 0; row < count; ++row) {
      const float value = row_values[row * OUTER_COLUMNS + thread % OUTER_COLUMNS];
      const Words4 words = coefficients[row * (OUTER_BLOCK_RANKS / 4) + four];
      for (u32 k = 0; k < OUTER_RANKS; ++k) sums[k] = fused(bits_float(word_of(words, k)), value, sums[k]);
    }
    block_barrier();
  }
  for (u32 k = 0; k < OUTER_RANKS; ++k)
    if (column < p.width && rank + k < p.rank) p.out[u64{rank + k} * p.width + column] = sums[k];
}

constexpr u32 OUTER_SHARED_ROWS = OUTER_ROWS * OUTER_COLUMNS / 4;
constexpr u32 OUTER_SHARED_COEFFICIENTS = OUTER_ROWS * OUTER_BLOCK_RANKS / 4;

KERNEL(lora_outer, Outer<float>, OUTER_THREADS) {
  SHARED(Words4, rows, OUTER_SHARED_ROWS);
  SHARED(Words4, coefficients, OUTER_SHARED_COEFFICIENTS);
  outer(p, rows, coefficients);
}

KERNEL(lora_outer_bf16, Outer<u16>, OUTER_THREADS) {
  SHARED(Words4, rows, OUTER_SHARED_ROWS);
  SHARED(Words4, coefficients, OUTER_SHARED_COEFFICIENTS);
  outer(p, rows, coefficients);
}
