// The 64-lane order of `plesio_kernels::vector` on a device: it fixes the order of every float sum.
//
// A group of 64 / L neighbouring threads holds the lanes of a dot product: its thread o has the lanes from L o to L
// o + L - 1 and reads L neighbours of every 64 elements. Lane l takes l + 32, then l + 16, ... l + 1: first that
// lane is in another thread, then in the same. Either of two threads may keep the sum, because addition commutes. A
// group lies within 32 threads, so warps may be of 32 or of 64.
#pragma once

#include "values.h"

// Lanes of every float sum.
constexpr u32 LANES = 64;

// Whether a lane takes part in the last elements, which are fewer than lanes: they are filled up to a multiple of 16
// with zeros, and a lane beyond them stays what it is, even a negative zero.
DEVICE bool is_filled(u32 lane, u32 tail) { return lane / 16 * 16 < tail; }

// The sum of a group's lanes, for each of its threads.
template <u32 L> DEVICE float fold(float (&lanes)[L]) {
  UNROLL(6)
  for (u32 mask = LANES / L / 2; mask > 0; mask /= 2)
    UNROLL(8)
    for (u32 lane = 0; lane < L; ++lane) lanes[lane] += shuffle_xor(lanes[lane], mask);
  UNROLL(3)
  for (u32 half = L / 2; half > 0; half /= 2)
    UNROLL(4)
    for (u32 lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

// The sums of 32 dot products of one group of 32 threads: thread o has that of product o in the end. Each step sends
// the half of the products that the other thread keeps, which takes 62 shuffles where 32 folds take 320.
template <u32 HALF = 16> DEVICE float fold_apart(float (&lanes)[32][2]) {
  if constexpr (HALF == 0) {
    return lanes[0][0] + lanes[0][1];
  } else {
    const bool upper = (thread_index() & HALF) != 0;
    UNROLL(16)
    for (u32 product = 0; product < HALF; ++product) {
      UNROLL(2)
      for (u32 lane = 0; lane < 2; ++lane) {
        const float low = lanes[product][lane], high = lanes[product + HALF][lane];
        lanes[product][lane] = (upper ? high : low) + shuffle_xor(upper ? low : high, HALF);
      }
    }
    return fold_apart<HALF / 2>(lanes);
  }
}
