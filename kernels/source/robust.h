// The median and the trimmed mean of each coordinate, by one kernel: the mean of the elements in the middle.
//
// The definition is `plesio_kernels::robust`: floats are sorted as integers that rise in IEEE 754's totalOrder, so a NaN
// is an extreme like any other. An instance for each number of lanes, by the literal lists of networks.h: all of them
// stay in registers, which a loop over comparators would not let them. Up to eight contributions have as many lanes;
// more have the next instance, and lanes without one hold what is sorted last.
//
// Memory bounds up to about 24 contributions, then the integer units do, at 20 instructions an element and lane. All
// loads of a thread are in flight together: 64 KB a multiprocessor with two contributions, and more with more.
#pragma once

#include "elements.h"
#include "networks.h"

// out[e] is the mean of what is left of element e of the inputs without the extremes: `factor` times the sum, from
// `start` on, of `share` times each.
//
// The mean of some has a share of 1 and a factor of one over how many are kept. A median has a factor of 1 and a share
// of 1 or, of two, of 1/2, because their sum could overflow; and it starts at -0, to which the first is added unchanged.
struct Robust {
  Global<const float> inputs[CONTRIBUTIONS_MAX];
  Global<float> out;
  u64 len;
  float start;
  float share;
  float factor;
  u32 trim; // how many go on each side
  u32 count;
  u32 aligned;
};

namespace robust {

constexpr u32 BLOCK_THREADS = 128;
// Up to so many lanes there is an input for each.
constexpr u32 EXACT = 8;

// Elements of a thread with K contributions: neighbours of few, and one of many, which has loads enough.
template <u32 K> constexpr u32 ELEMENTS = K <= EXACT ? PACK : 1;

// Integers that rise in totalOrder; its own inverse.
DEVICE i32 order_key(i32 bits) { return bits ^ ((bits >> 31) & 0x7fffffff); }
// The key that is sorted last.
constexpr i32 LAST = 0x7fffffff;
DEVICE float key_value(i32 key) { return bits_float(static_cast<u32>(order_key(key))); }

// Whether there is an input for a lane.
template <u32 K> DEVICE bool is_there(const Robust& p, u32 k) { return K <= EXACT || k < p.count; }

// The mean in the middle of sorted keys.
template <u32 N, u32 K> DEVICE void combine(const Robust& p, const i32 (&keys)[N][K], float (&out)[N]) {
  const u32 count = K <= EXACT ? K : p.count;
  for (u32 e = 0; e < N; ++e) out[e] = p.start;
  UNROLL(32)
  for (u32 k = 0; k < K; ++k) {
    const bool kept = k >= p.trim && k + p.trim < count;
    for (u32 e = 0; e < N; ++e) out[e] = kept ? out[e] + key_value(keys[e][k]) * p.share : out[e];
  }
  for (u32 e = 0; e < N; ++e) out[e] *= p.factor;
}

// What the rule makes of floats that are given by their bits.
template <u32 N, u32 K> DEVICE void apply(const Robust& p, i32 (&keys)[N][K], float (&out)[N]) {
  UNROLL(4)
  for (u32 e = 0; e < N; ++e) {
    UNROLL(32)
    for (u32 k = 0; k < K; ++k) keys[e][k] = is_there<K>(p, k) ? order_key(keys[e][k]) : LAST;
    sort_lanes(keys[e], [](i32& a, i32& b) {
      const i32 low = smaller(a, b), high = larger(a, b);
      a = low;
      b = high;
    });
  }
  combine(p, keys, out);
  // One NaN for all machines.
  for (u32 e = 0; e < N; ++e) out[e] = out[e] == out[e] ? out[e] : bits_float(0x7fc00000u);
}

// The elements of this thread.
template <u32 K> DEVICE void run(const Robust& p) {
  constexpr u32 N = ELEMENTS<K>;
  // The block's place apart from the thread's: one addition for all threads, and a small index for each.
  const u64 begin = static_cast<u64>(block_index()) * (BLOCK_THREADS * N);
  const u64 left = p.len - begin;
  const u32 first = thread_index() * N;
  if constexpr (N > 1) {
    if (p.aligned && first + N <= left) {
      i32 keys[N][K];
      UNROLL(8)
      for (u32 k = 0; k < K; ++k) {
        float x[N];
        load_pack(p.inputs[k] + begin + first, true, x);
        for (u32 e = 0; e < N; ++e) keys[e][k] = static_cast<i32>(float_bits(x[e]));
      }
      float out[N];
      apply(p, keys, out);
      store_pack(p.out + begin + first, true, out);
      return;
    }
  }
  UNROLL(1)
  for (u32 e = first; e < first + N && e < left; ++e) {
    i32 keys[1][K] = {};
    float out[1];
    UNROLL(32)
    for (u32 k = 0; k < K; ++k)
      if (is_there<K>(p, k)) keys[0][k] = static_cast<i32>(float_bits((p.inputs[k] + begin)[e]));
    apply(p, keys, out);
    (p.out + begin)[e] = out[0];
  }
}

} // namespace robust

#define ROBUST(K) \
  KERNEL(robust_##K, Robust, robust::BLOCK_THREADS) { robust::run<K>(p); }
ROBUST(2)
ROBUST(3)
ROBUST(4)
ROBUST(5)
ROBUST(6)
ROBUST(7)
ROBUST(8)
ROBUST(10)
ROBUST(12)
ROBUST(16)
ROBUST(20)
ROBUST(24)
ROBUST(28)
ROBUST(32)
#undef ROBUST
