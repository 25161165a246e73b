// One row of x at a time: decoding a token. Rows that are used once go past a row that is used again and again.
//
// A group of threads has the 64 lanes of one dot product (lanes.h). Its row comes straight from memory, and many
// loads of it are always on their way, because a multiprocessor has few threads then and nothing else to do
// meanwhile; x waits in shared memory as it is stored, a chunk at a time.
#pragma once

#include "lanes.h"

// Elements of x that wait in shared memory, and the pieces of 16 bytes that they are.
constexpr u32 VECTOR_CHUNK = 4096;
constexpr u32 VECTOR_SHARED = VECTOR_CHUNK / PIECE<u16>;
constexpr u32 VECTOR_STEPS = VECTOR_CHUNK / LANES;
// Loads of a thread that are on their way. One of a row that begins anywhere is as many as it has elements.
template <bool ALIGNED> constexpr u32 ON_THEIR_WAY = ALIGNED ? 16 : 1;

// Brings x from `first` on, which is a multiple of the chunk, to shared memory; a barrier has to follow.
template <bool ALIGNED> DEVICE void stage_vector(const u16* x, u64 first, u64 width, Words4* shared) {
  const u32 len = static_cast<u32>(smaller(width - first, u64{VECTOR_CHUNK})), thread = thread_index();
  if constexpr (ALIGNED) {
    constexpr u32 MOVED = VECTOR_SHARED / THREADS;
    Words4 pieces[MOVED];
    UNROLL(2)
    for (u32 move = 0; move < MOVED; ++move) {
      // A piece beyond the last is the last.
      const u32 piece = smaller(move * THREADS + thread, len / PIECE<u16> - 1);
      pieces[move] = global(reinterpret_cast<const Words4*>(x + first))[piece];
    }
    UNROLL(2)
    for (u32 move = 0; move < MOVED; ++move) shared[move * THREADS + thread] = pieces[move];
  } else {
    for (u32 element = thread; element < len; element += THREADS)
      reinterpret_cast<u16*>(shared)[element] = x[first + element];
  }
}

// A row of a factor, for a thread with L lanes from `lane` on. What `Row` is below has these three functions.
template <u32 L, bool ALIGNED> struct FactorRow {
  static constexpr u32 COUNT = L, SOON = ON_THEIR_WAY<ALIGNED>;
  struct Kept {
    u32 words[WORDS<u16, L>];
  };

  const u16* row;
  u32 lane;
};

// The thread's elements of a step as they are stored.
template <u32 L, bool ALIGNED>
DEVICE typename FactorRow<L, ALIGNED>::Kept load_step(const FactorRow<L, ALIGNED>& row, u64 step) {
  typename FactorRow<L, ALIGNED>::Kept kept;
  load_stored<u16, L, ALIGNED>(row.row + step * LANES + row.lane, kept.words);
  return kept;
}
// One of them.
template <u32 L, bool ALIGNED>
DEVICE float value_in(const FactorRow<L, ALIGNED>&, const typename FactorRow<L, ALIGNED>::Kept& kept, u32 at) {
  return value_of<u16>(kept.words, at);
}
// Any element of the row.
template <u32 L, bool ALIGNED> DEVICE float single(const FactorRow<L, ALIGNED>& row, u64 element) {
  return widen(row.row[element]);
}

// Adds a step's elements, step `at` of the chunk of x.
template <class Row>
DEVICE void add_step(const Row& row, const typename Row::Kept& kept, u32 at, const Words4* x,
                     float (&lanes)[Row::COUNT]) {
  u32 words[WORDS<u16, Row::COUNT>];
  load_words(reinterpret_cast<const Words1*>(x) + at * (LANES / 2) + row.lane / 2, words);
  UNROLL(8)
  for (u32 lane = 0; lane < Row::COUNT; ++lane)
    lanes[lane] = fused(value_of<u16>(words, lane), value_in(row, kept, lane), lanes[lane]);
}

// Adds whole steps of 64 elements, the first of which is `first` in the row and the first of the chunk of x. Some of
// them are on their way.
template <class Row>
DEVICE void add_steps(const Row& row, u64 first, u32 steps, typename Row::Kept (&soon)[Row::SOON], const Words4* x,
                      float (&lanes)[Row::COUNT]) {
  constexpr u32 SOON = Row::SOON;
  u32 turn = 0;
  // Nothing to ask while there is a whole turn ahead.
  for (; turn + 2 * SOON <= steps; turn += SOON) {
    UNROLL(16)
    for (u32 at = 0; at < SOON; ++at) {
      add_step(row, soon[at], turn + at, x, lanes);
      soon[at] = load_step(row, first + turn + at + SOON);
    }
  }
  for (; turn < steps; turn += SOON) {
    UNROLL(16)
    for (u32 at = 0; at < SOON; ++at) {
      if (turn + at < steps) add_step(row, soon[at], turn + at, x, lanes);
      if (turn + at + SOON < steps) soon[at] = load_step(row, first + turn + at + SOON);
    }
  }
}

// Adds the elements after the last whole step.
template <class Row> DEVICE void add_rest(const Row& row, const u16* x, u64 width, float (&lanes)[Row::COUNT]) {
  const u32 rest = width % LANES;
  if (!is_filled(row.lane, rest)) return;
  UNROLL(8)
  for (u32 lane = 0; lane < Row::COUNT; ++lane) {
    const u64 element = width - rest + row.lane + lane;
    const bool inside = element < width;
    lanes[lane] = fused(inside ? widen(x[element]) : 0.0f, inside ? single(row, element) : 0.0f, lanes[lane]);
  }
}

// No chunk of x.
constexpr u64 UNSTAGED = ~0ull;

// The dot product of x with each group's row; all threads of the block walk through it together. `staged` says which
// chunk of x is in shared memory already.
template <bool ALIGNED, class Row>
DEVICE float dot_vector(const Row& row, const u16* x, u64 width, Words4* shared, u64& staged) {
  float lanes[Row::COUNT];
  for (u32 lane = 0; lane < Row::COUNT; ++lane) lanes[lane] = 0.0f;
  for (u64 first = 0; first < width; first += VECTOR_CHUNK) {
    const u32 steps = static_cast<u32>(smaller(width - first, u64{VECTOR_CHUNK}) / LANES);
    // The row is asked for before x is waited for.
    typename Row::Kept soon[Row::SOON] = {};
    if (steps > 0) {
      UNROLL(16)
      for (u32 at = 0; at < Row::SOON; ++at) soon[at] = load_step(row, first / LANES + smaller(at, steps - 1));
    }
    if (staged != first) {
      block_barrier(); // the chunk before it is used no more
      stage_vector<ALIGNED>(x, first, width, shared);
      staged = first;
      block_barrier();
    }
    add_steps(row, first / LANES, steps, soon, shared, lanes);
  }
  add_rest(row, x, width, lanes);
  return fold(lanes);
}

// Of one row of x: threads of a group, and groups of a block.
constexpr u32 VECTOR_LANES = 4;
constexpr u32 VECTOR_GROUP = LANES / VECTOR_LANES;
constexpr u32 VECTOR_GROUPS = THREADS / VECTOR_GROUP;

// `h[k] = scale * dot(x, a[k])` for all ranks, into shared memory; a barrier has to follow.
template <bool ALIGNED>
DEVICE void shrink_vector(const u16* x, const u16* a, u32 rank, u64 width, float scale, Words4* shared, u64& staged,
                          float* h) {
  const u32 group = thread_index() / VECTOR_GROUP, lane = thread_index() % VECTOR_GROUP * VECTOR_LANES;
  for (u32 first = 0; first < rank; first += VECTOR_GROUPS) {
    const u32 k = smaller(first + group, rank - 1);
    const FactorRow<VECTOR_LANES, ALIGNED> row{a + k * width, lane};
    const float dot = dot_vector<ALIGNED>(row, x, width, shared, staged);
    if (lane == 0 && first + group < rank) h[k] = scale * dot;
  }
}
