// A layer of one token whose base weights are int8, with its adapter, in one launch:
// `y_i = dot(weights_i, x) + sum over k of (scale * h_k) * b_ki`, k rising, where h = A x.
//
// Eight threads have a row of the weights, and 12 loads of eight codes each are on their way (24 KiB a block). Every
// block computes all of A x itself, from the second-level cache: as many bytes again as it has weights at rank 16
// and 4096 columns. Blocks of odd numbers do that first and the others last, so that memory and cache are busy at
// the same time. What the multiprocessors read together from the second-level cache bounds it, weights and A, then
// memory.
//
// The definition is `plesio_kernels::product`.
#pragma once

#include "lora_vector.h"

struct ProductQ8 {
  Global<const i8> codes;   // d_out x d_in
  Global<const u16> scales; // binary16, one for each 32 codes
  Global<const u16> x;
  Global<const u16> a;      // rank x d_in
  Global<const u16> b;      // rank x d_out
  Global<float> y;
  u64 d_in; // a multiple of 32
  u64 d_out;
  u32 rank; // 0 without an adapter
  float scale;
  u32 aligned;
  u32 pad;
};

constexpr u32 CODED_BLOCK = 32; // codes that share a scale
constexpr u32 CODED_LANES = 8;  // of a thread: all of one block
constexpr u32 CODED_ROWS = THREADS / (LANES / CODED_LANES);

// The value of a binary16, exactly.
DEVICE float widen_half(u32 bits) {
  const u32 magnitude = bits & 0x7fff;
  // Its exponent is 112 too small for binary32, of subnormals as well.
  const float value = bits_float(magnitude << 13) * 0x1p112f;
  const u32 wide = magnitude < 0x7c00 ? float_bits(value) : magnitude << 13 | 0x7f800000u;
  return bits_float(wide | (bits & 0x8000) << 16);
}

// A row of the weights, for a thread with eight lanes.
template <bool ALIGNED> struct CodedRow {
  static constexpr u32 COUNT = CODED_LANES, SOON = ALIGNED ? 12 : 1;
  struct Kept {
    u32 words[2];
    u32 scale;
  };

  const i8* codes;
  const u16* scales;
  u32 lane;
};

template <bool ALIGNED>
DEVICE typename CodedRow<ALIGNED>::Kept load_step(const CodedRow<ALIGNED>& row, u64 step) {
  typename CodedRow<ALIGNED>::Kept kept;
  const i8* from = row.codes + step * LANES + row.lane;
  if constexpr (ALIGNED) {
    load_words(from, kept.words);
  } else {
    kept.words[0] = kept.words[1] = 0;
    for (u32 at = 0; at < CODED_LANES; ++at)
      kept.words[at / 4] |= static_cast<u32>(static_cast<u8>(from[at])) << at % 4 * 8;
  }
  kept.scale = row.scales[step * (LANES / CODED_BLOCK) + row.lane / CODED_BLOCK];
  return kept;
}
template <bool ALIGNED>
DEVICE float value_in(const CodedRow<ALIGNED>&, const typename CodedRow<ALIGNED>::Kept& kept, u32 at) {
  const i8 code = static_cast<i8>(kept.words[at / 4] >> at % 4 * 8);
  return static_cast<float>(code) * widen_half(kept.scale);
}
template <bool ALIGNED> DEVICE float single(const CodedRow<ALIGNED>& row, u64 element) {
  return static_cast<float>(row.codes[element]) * widen_half(row.scales[element / CODED_BLOCK]);
}

template <bool ALIGNED> DEVICE void product_q8(const ProductQ8& p, Words4* shared, float* h, float* sums) {
  const u32 thread = thread_index(), lane = thread * CODED_LANES % LANES, local = thread * CODED_LANES / LANES;
  const u64 first = u64{block_index()} * CODED_ROWS, row = smaller(first + local, p.d_out - 1);
  if (thread < p.rank) prefetch(p.b + thread * p.d_out + first);
  u64 staged = UNSTAGED;
  for (u32 turn = 0; turn < 2; ++turn) {
    if ((turn + block_index()) % 2 == 0) {
      const CodedRow<ALIGNED> weights{p.codes + row * p.d_in, p.scales + row * (p.d_in / CODED_BLOCK), lane};
      const float dot = dot_vector<ALIGNED>(weights, p.x, p.d_in, shared, staged);
      if (lane == 0) sums[local] = dot;
    } else {
      shrink_vector<ALIGNED>(p.x, p.a, p.rank, p.d_in, p.scale, shared, staged, h);
    }
  }
  block_barrier();
  if (thread < CODED_ROWS && first + thread < p.d_out) {
    float sum = sums[thread];
    UNROLL(16)
    for (u32 k = 0; k < p.rank; ++k) sum = fused(h[k], widen(p.b[k * p.d_out + first + thread]), sum);
    p.y[first + thread] = sum;
  }
}

constexpr u32 PRODUCT_RANKS = 64;

KERNEL(product_q8, ProductQ8, THREADS) {
  SHARED(Words4, shared, VECTOR_SHARED);
  SHARED(float, h, PRODUCT_RANKS);
  SHARED(float, sums, CODED_ROWS);
  if (p.aligned) {
    product_q8<true>(p, shared, h, sums);
  } else {
    product_q8<false>(p, shared, h, sums);
  }
}
