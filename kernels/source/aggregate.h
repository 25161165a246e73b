// Weighted sums of contributions with the square norm of what comes out, and square norms of contributions.
//
// The definition is `plesio_kernels::aggregate`: an element takes its contributions in rising order; a square norm is
// the sum of partial ones over CHUNK elements each, in f32 and 64 lanes, which a second kernel folds in f64 and 64
// lanes.
//
// Memory bounds all of it: a thread has four packs of floats or eight of smaller elements in flight, so that a
// multiprocessor of 1,300 to 2,000 threads waits for 41 KB (codes) to 130 KB (floats) at a time; 25 KB keep the fastest
// memory busy.
#pragma once

#include "elements.h"
#include "q8.h"

// sum[e] = w_0 x_0[e] + w_1 x_1[e] + ...; one partial sum of squares a chunk.
struct WeightedSum {
  Global<const void> inputs[CONTRIBUTIONS_MAX]; // f32 or bf16
  float weights[CONTRIBUTIONS_MAX];
  Global<float> sum;
  Global<float> partials;
  u64 len;
  u32 count;
  u32 aligned;
};

// The same of codes of eight bits with a scale for each block of 32.
struct WeightedSumQ8 {
  Global<const i8> codes[CONTRIBUTIONS_MAX];
  Global<const u16> scales[CONTRIBUTIONS_MAX];
  float weights[CONTRIBUTIONS_MAX];
  Global<float> sum;
  Global<float> partials;
  u64 len;
  u32 count;
  u32 aligned;
};

// The partial sums of squares of some vectors of one length, those of one vector after those of another.
struct SquareNorms {
  Global<const float> inputs[CONTRIBUTIONS_MAX];
  Global<float> partials;
  u64 len;
  u32 chunks; // of one vector
  u32 blocks; // of one vector
  u32 aligned;
  u32 pad;
};

// The square norms of which these are the partial sums.
struct FoldNorms {
  Global<const float> partials;
  Global<double> norms;
  u64 chunks; // of one vector
};

namespace aggregate {

// Elements of a partial sum of a square norm: those of a block that goes by packs.
constexpr u32 CHUNK = TILE;
// Lanes of every float sum: element e is added in lane e mod 64.
constexpr u32 LANES = 64;

// The sum of the lanes of 64 / L threads, each of which has L neighbouring ones: lane l takes l + 32, then l + 16, ...
// Either of two threads may keep a sum, because addition commutes. All threads of the warp.
template <u32 L> DEVICE float fold(float (&lanes)[L]) {
  UNROLL(5)
  for (u32 other = LANES / L / 2; other > 0; other /= 2)
    for (u32 lane = 0; lane < L; ++lane) lanes[lane] += shuffle_xor(lanes[lane], other);
  UNROLL(2)
  for (u32 half = L / 2; half > 0; half /= 2)
    for (u32 lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

// Forms of contributions.
struct Floats {};
struct Bf16 {};
struct Q8 {};

// A pack of a contribution.
template <bool WHOLE>
DEVICE void load_input(Floats, const WeightedSum& p, u32 input, u64 first, float (&x)[PACK]) {
  const void* from = p.inputs[input];
  load_part<WHOLE>(static_cast<const float*>(from), first, p.len, x);
}

template <bool WHOLE>
DEVICE void load_input(Bf16, const WeightedSum& p, u32 input, u64 first, float (&x)[PACK]) {
  const void* from = p.inputs[input];
  u16 halves[PACK];
  load_part<WHOLE>(static_cast<const u16*>(from), first, p.len, halves);
  for (u32 e = 0; e < PACK; ++e) x[e] = bits_float(static_cast<u32>(halves[e]) << 16);
}

template <bool WHOLE>
DEVICE void load_input(Q8, const WeightedSumQ8& p, u32 input, u64 first, float (&x)[PACK]) {
  i8 codes[PACK];
  load_part<WHOLE>(p.codes[input], first, p.len, codes);
  // A pack lies in one block. Threads beyond the end take the last scale: they need one, and use it for nothing.
  const float scale = q8::widen_half(p.scales[input][smaller(first, p.len - 1) / q8::BLOCK]);
  for (u32 e = 0; e < PACK; ++e) x[e] = static_cast<float>(codes[e]) * scale;
}

// Adds N contributions, all of whose loads are in flight together.
template <u32 N, bool WHOLE, class Form, class Params>
DEVICE void add_group(Form form, const Params& p, u32 input, u64 first, float (&sums)[PACK]) {
  float x[N][PACK];
  UNROLL(8)
  for (u32 at = 0; at < N; ++at) load_input<WHOLE>(form, p, input + at, first, x[at]);
  UNROLL(8)
  for (u32 at = 0; at < N; ++at)
    for (u32 e = 0; e < PACK; ++e) sums[e] = fused(p.weights[input + at], x[at][e], sums[e]);
}

// Adds those from `input` on, which are fewer than 2 N.
template <u32 N, class Form, class Params>
DEVICE void add_last(Form form, const Params& p, u32 input, u64 first, float (&sums)[PACK]) {
  if constexpr (N > 0) {
    const bool more = (p.count & N) != 0;
    if (more) add_group<N, true>(form, p, input, first, sums);
    add_last<N / 2>(form, p, input + (more ? N : 0), first, sums);
  }
}

// The weighted sum over a pack, GROUP contributions at a time.
template <u32 GROUP, bool WHOLE, class Form, class Params>
DEVICE void add_inputs(Form form, const Params& p, u64 first, float (&sums)[PACK]) {
  u32 input = 0;
  if constexpr (WHOLE) {
    for (; input + GROUP <= p.count; input += GROUP) add_group<GROUP, true>(form, p, input, first, sums);
    add_last<GROUP / 2>(form, p, input, first, sums);
  } else {
    for (; input < p.count; ++input) add_group<1, false>(form, p, input, first, sums);
  }
}

// Stores the sum of the squares of a chunk, of which each thread has a pack; all threads of the block.
//
// A lane's elements are in sixteen threads, and only one may add them up: they meet in shared memory, and 32 threads
// take two lanes each; another 32 do the same, for the sake of warps of 64.
DEVICE void store_square_norm(const float (&x)[PACK], float* partial) {
  // Element e of each pack together, and eight banks between, so that neither side meets itself.
  constexpr u32 ROW = THREADS + 8;
  SHARED(float, staged, PACK * ROW);
  const u32 thread = thread_index();
  for (u32 e = 0; e < PACK; ++e) staged[e * ROW + thread] = x[e];
  block_barrier();
  if (thread >= LANES) return;
  const u32 lane = thread % 32 * 2;
  const float* from = staged + lane % PACK * ROW + lane / PACK;
  float lanes[2] = {};
  UNROLL(16)
  for (u32 row = 0; row < CHUNK; row += LANES) {
    for (u32 at = 0; at < 2; ++at) {
      const float value = from[at * ROW + row / PACK];
      lanes[at] = fused(value, value, lanes[at]);
    }
  }
  const float sum = fold(lanes);
  if (thread == 0) *partial = sum;
}

// Reads 4, 2 or 1.06 bytes an element and contribution, writes 4 an element.
template <u32 GROUP, class Form, class Params> DEVICE void weigh(Form form, const Params& p) {
  const u64 first = static_cast<u64>(block_index()) * TILE + thread_index() * PACK;
  float sums[PACK] = {};
  if (p.aligned && first + PACK <= p.len) {
    add_inputs<GROUP, true>(form, p, first, sums);
    store_part<true>(p.sum, first, p.len, sums);
  } else {
    add_inputs<GROUP, false>(form, p, first, sums);
    // Nothing times an infinite weight is a NaN: what is beyond the end must not reach the norm.
    for (u32 e = 0; e < PACK; ++e) sums[e] = first + e < p.len ? sums[e] : 0.0f;
    store_part<false>(p.sum, first, p.len, sums);
  }
  store_square_norm(sums, p.partials + block_index());
}

KERNEL(weighted_sum, WeightedSum, THREADS) { weigh<4>(Floats{}, p); }
KERNEL(weighted_sum_bf16, WeightedSum, THREADS) { weigh<8>(Bf16{}, p); }
KERNEL(weighted_sum_q8, WeightedSumQ8, THREADS) { weigh<8>(Q8{}, p); }

// Threads that have a chunk together: four lanes each.
constexpr u32 CHUNK_THREADS = LANES / PACK;
constexpr u32 NORM_THREADS = 128;

// The squares of every row of a chunk into this thread's four lanes.
template <bool WHOLE> DEVICE void add_squares(const float* from, u64 first, u64 len, float (&lanes)[PACK]) {
  UNROLL(8)
  for (u32 row = 0; row < CHUNK; row += LANES) {
    float x[PACK];
    load_part<WHOLE>(from, first + row, len, x);
    for (u32 e = 0; e < PACK; ++e) lanes[e] = fused(x[e], x[e], lanes[e]);
  }
}

// Reads 4 bytes an element. Nothing is shared: a lane stays with one thread, and no thread waits for another before the
// end.
KERNEL(square_norms, SquareNorms, NORM_THREADS) {
  const u32 vector = block_index() / p.blocks;
  const u32 group = thread_index() / CHUNK_THREADS, place = thread_index() % CHUNK_THREADS;
  const u32 wanted = block_index() % p.blocks * (NORM_THREADS / CHUNK_THREADS) + group;
  const u32 chunk = smaller(wanted, p.chunks - 1);
  const u64 begin = static_cast<u64>(chunk) * CHUNK, first = begin + place * PACK;
  float lanes[PACK] = {};
  if (p.aligned && begin + CHUNK <= p.len) {
    add_squares<true>(p.inputs[vector], first, p.len, lanes);
  } else {
    add_squares<false>(p.inputs[vector], first, p.len, lanes);
  }
  const float sum = fold(lanes);
  if (place == 0 && chunk == wanted) p.partials[static_cast<u64>(vector) * p.chunks + chunk] = sum;
}

// Partial sums that a block has in shared memory at a time.
constexpr u32 FOLD_TILE = 4096;
constexpr u32 FOLD_SHARE = FOLD_TILE / THREADS; // of a thread

// A thread's share of the partial sums from `first` on.
DEVICE void load_share(const float* from, u64 first, u64 len, float (&share)[FOLD_SHARE]) {
  UNROLL(16)
  for (u32 row = 0; row < FOLD_SHARE; ++row) {
    const u64 at = first + row * THREADS + thread_index();
    share[row] = at < len ? from[at] : 0.0f;
  }
}

// One block a vector. Bound by the additions: each lane is a chain of f64, one for each 64 partial sums, that is for
// each 256 KB of the vector. The next tile is on its way meanwhile.
KERNEL(fold_norms, FoldNorms, THREADS) {
  SHARED(float, tile, FOLD_TILE);
  SHARED(double, lanes, LANES);
  const u32 thread = thread_index();
  const float* from = p.partials + block_index() * p.chunks;
  float share[FOLD_SHARE];
  load_share(from, 0, p.chunks, share);
  double sum = 0.0;
  for (u64 first = 0; first < p.chunks; first += FOLD_TILE) {
    UNROLL(16)
    for (u32 row = 0; row < FOLD_SHARE; ++row) tile[row * THREADS + thread] = share[row];
    block_barrier();
    load_share(from, first + FOLD_TILE, p.chunks, share);
    if (thread < LANES) {
      UNROLL(8)
      for (u32 row = 0; row < FOLD_TILE; row += LANES) sum += static_cast<double>(tile[row + thread]);
    }
    block_barrier();
  }
  if (thread < LANES) lanes[thread] = sum;
  block_barrier();
  if (thread >= LANES) return;
  sum = lanes[thread % 32] + lanes[thread % 32 + 32];
  UNROLL(5)
  for (u32 other = 16; other > 0; other /= 2) sum += shuffle_xor(sum, other);
  if (thread == 0) p.norms[block_index()] = sum;
}

} // namespace aggregate
