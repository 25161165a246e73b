// Numbers as they are stored, binary32 or bfloat16, and as kernels compute: in binary32 whatever they read and write.
//
// A thread moves neighbours as the words that they fill and takes a value out where it is used: a word of two
// bfloat16 is one register. ALIGNED promises that buffers begin at multiples of 16 bytes and that rows are whole
// ones of these.
#pragma once

#include "elements.h"

// Words that N neighbours fill.
template <class E, u32 N> constexpr u32 WORDS = N * sizeof(E) / 4;
// Elements of 16 bytes.
template <class E> constexpr u32 PIECE = 16 / sizeof(E);

DEVICE float widen(float value) { return value; }
DEVICE float widen(u16 bits) { return bits_float(static_cast<u32>(bits) << 16); }

// To nearest, ties to even; a NaN stays one. `plesio_kernels::bf16` is the definition.
DEVICE u32 narrow_bits(float value) {
  const u32 bits = float_bits(value);
  const u32 rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return value != value ? bits >> 16 | 0x40 : rounded;
}
DEVICE u32 narrow_pair(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return narrow_bits(low) | narrow_bits(high) << 16;
#endif
}
DEVICE void store(float* to, float value) { *to = value; }
DEVICE void store(u16* to, float value) { *to = static_cast<u16>(narrow_bits(value)); }

// One value out of the words that it is stored in.
template <class E, u32 COUNT> DEVICE float value_of(const u32 (&words)[COUNT], u32 at) {
  if constexpr (sizeof(E) == 4) {
    return bits_float(words[at]);
  } else {
    return bits_float(at % 2 == 0 ? words[at / 2] << 16 : words[at / 2] & 0xffff0000u);
  }
}

// N neighbours as they are stored.
template <class E, u32 N, bool ALIGNED> DEVICE void load_stored(const E* from, u32 (&words)[WORDS<E, N>]) {
  if constexpr (ALIGNED) {
    load_words(from, words);
  } else if constexpr (sizeof(E) == 4) {
    for (u32 at = 0; at < N; ++at) words[at] = float_bits(from[at]);
  } else {
    for (u32 at = 0; at < N / 2; ++at) words[at] = from[2 * at] | static_cast<u32>(from[2 * at + 1]) << 16;
  }
}

// N neighbours, each rounded to how it is stored.
template <class E, u32 N, bool ALIGNED> DEVICE void store_values(E* to, const float (&values)[N]) {
  if constexpr (ALIGNED) {
    u32 words[WORDS<E, N>];
    for (u32 at = 0; at < WORDS<E, N>; ++at) {
      if constexpr (sizeof(E) == 4) {
        words[at] = float_bits(values[at]);
      } else {
        words[at] = narrow_pair(values[2 * at], values[2 * at + 1]);
      }
    }
    store_words(to, words);
  } else {
    for (u32 at = 0; at < N; ++at) store(to + at, values[at]);
  }
}
