// Adapters by the token: each row of x has its own, of any rank, and all of it is one launch.
//
// A block has one row and a slice of its columns. It computes all of A x itself, though the row's other slices do
// the same: A comes from the second-level cache then, and no second launch has to wait for the first. The first
// ranks of B are asked for at the beginning and added at the end. Latency bounds it: the row's adapter has to be
// known before A is asked for, and 64 steps of A pass with 16 on their way. Then what a multiprocessor can read from
// the second-level cache: 128 KiB of A at rank 16 and 4096 columns, of which 32 KiB are on their way.
//
// The definition is `plesio_kernels::lora::grouped`.
#pragma once

#include "lora_vector.h"

// A row with an adapter; rows without one are not listed and stay what they are.
struct GroupedRow {
  const u16* a; // rank x d_in
  const u16* b; // rank x d_out
  u64 row;
  u32 rank;
  float scale;
};

struct Grouped {
  Global<const GroupedRow> rows;
  Global<const u16> x; // rows of d_in
  Global<u16> y;       // rows of d_out
  u64 d_in;
  u64 d_out;
  u32 slices;          // blocks of a row
  u32 aligned;
};

constexpr u32 GROUPED_RANKS = 64;
// Columns of a thread and of a slice.
constexpr u32 GROUPED_COLUMNS = 4;
constexpr u32 GROUPED_SLICE = THREADS * GROUPED_COLUMNS;
// Ranks of B that are asked for before A. Sixteen do not fit into the registers of every chip.
constexpr u32 GROUPED_SOON = 14;

template <bool ALIGNED> DEVICE void grouped(const Grouped& p, Words4* shared, float* h) {
  constexpr u32 COUNT = WORDS<u16, GROUPED_COLUMNS>;
  const GroupedRow row = p.rows[block_index() / p.slices];
  const u64 column = u64{block_index() % p.slices} * GROUPED_SLICE + thread_index() * GROUPED_COLUMNS;
  const u32 columns = column < p.d_out ? static_cast<u32>(smaller(p.d_out - column, u64{GROUPED_COLUMNS})) : 0;
  const bool whole = ALIGNED && columns == GROUPED_COLUMNS;
  const u16* b = global(row.b) + column;
  u16* y = p.y + row.row * p.d_out + column;

  u32 y_words[COUNT] = {}, soon[GROUPED_SOON][COUNT] = {};
  if (whole) {
    load_stored<u16, GROUPED_COLUMNS, true>(y, y_words);
    UNROLL(16)
    for (u32 k = 0; k < GROUPED_SOON; ++k)
      if (k < row.rank) load_stored<u16, GROUPED_COLUMNS, true>(b + k * p.d_out, soon[k]);
  }
  u64 staged = UNSTAGED;
  shrink_vector<ALIGNED>(p.x + row.row * p.d_in, global(row.a), row.rank, p.d_in, row.scale, shared, staged, h);
  block_barrier();
  if (whole) {
    float sums[GROUPED_COLUMNS];
    for (u32 at = 0; at < GROUPED_COLUMNS; ++at) sums[at] = value_of<u16>(y_words, at);
    UNROLL(16)
    for (u32 k = 0; k < GROUPED_SOON; ++k)
      if (k < row.rank)
        for (u32 at = 0; at < GROUPED_COLUMNS; ++at) sums[at] = fused(h[k], value_of<u16>(soon[k], at), sums[at]);
    UNROLL(8)
    for (u32 k = GROUPED_SOON; k < row.rank; ++k) {
      u32 words[COUNT];
      load_stored<u16, GROUPED_COLUMNS, true>(b + k * p.d_out, words);
      for (u32 at = 0; at < GROUPED_COLUMNS; ++at) sums[at] = fused(h[k], value_of<u16>(words, at), sums[at]);
    }
    store_values<u16, GROUPED_COLUMNS, true>(y, sums);
  } else {
    for (u32 at = 0; at < columns; ++at) {
      float sum = widen(y[at]);
      for (u32 k = 0; k < row.rank; ++k) sum = fused(h[k], widen(b[k * p.d_out + at]), sum);
      store(y + at, sum);
    }
  }
}

KERNEL(lora_grouped, Grouped, THREADS) {
  SHARED(Words4, shared, VECTOR_SHARED);
  SHARED(float, h, GROUPED_RANKS);
  if (p.aligned) {
    grouped<true>(p, shared, h);
  } else {
    grouped<false>(p, shared, h);
  }
}
