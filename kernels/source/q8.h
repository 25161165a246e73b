// Codes of eight bits with a binary16 scale for each block of 32.
//
// The definition is `plesio_kernels::q8`. Memory bounds both kernels: a thread that encodes has 32 bytes in flight,
// which makes 64 KB a multiprocessor; one that decodes mostly writes.
#pragma once

#include "elements.h"

// Codes and scales of `input + residue`; the residue becomes what they do not say.
struct QuantiseQ8 {
  Global<const float> input;
  Global<float> residue;
  Global<i8> codes;
  Global<u16> scales;
  Global<Report> wrong;
  u64 len;
  u32 aligned;
  u32 pad;
};

// What codes and scales say.
struct DequantiseQ8 {
  Global<const i8> codes;
  Global<const u16> scales;
  Global<float> out;
  u64 len;
  u32 aligned;
  u32 pad;
};

namespace q8 {

// Elements that share a scale.
constexpr u32 BLOCK = 32;
// Codes reach from -127 to 127.
constexpr float LEVELS = 127.0f;

// Binary16: infinity, the NaN that encoders write, and the least normal number.
constexpr u32 HALF_INFINITY = 0x7c00;
constexpr u32 HALF_NAN = 0x7e00;
constexpr u32 HALF_MIN = 0x0400;

// The value of a binary16, exactly. Its exponent is 112 too small for binary32, of subnormals as well.
DEVICE float widen_half(u32 bits) {
  const u32 magnitude = bits & 0x7fff;
  const float value = bits_float(magnitude << 13) * 0x1p112f;
  const u32 wide = magnitude < HALF_INFINITY ? float_bits(value) : magnitude << 13 | 0x7f800000u;
  return bits_float(wide | (bits & 0x8000) << 16);
}

// The smallest binary16 that is not less than a float that is not below zero; all that would be subnormal is zero, and
// all that is too large is HALF_INFINITY at least.
DEVICE u32 narrow_half_up(float value) {
  const u32 bits = float_bits(value);
  // Up to the largest subnormal, 2^-14 - 2^-24.
  if (bits <= 0x387fc000u) return 0;
  return larger(((bits + 0x1fff) >> 13) - (112u << 10), HALF_MIN);
}

// The largest of eight neighbouring threads' numbers, for each of them; all threads of the warp.
DEVICE u32 largest_of_eight(u32 number) {
  UNROLL(3)
  for (u32 other = 1; other < 8; other *= 2) number = larger(number, shuffle_xor_bits(number, other));
  return number;
}

// Reads 8 bytes an element, writes 5 and the scales. Eight threads have a block, and each of them finds its scale.
KERNEL(quantise_q8, QuantiseQ8, THREADS) {
  const u64 first = static_cast<u64>(block_index()) * TILE + thread_index() * PACK;
  const bool whole = p.aligned && first + PACK <= p.len;
  float values[PACK], rest[PACK];
  if (whole) {
    load_part<true>(p.input, first, p.len, values);
    load_part<true>(p.residue, first, p.len, rest);
  } else {
    load_part<false>(p.input, first, p.len, values);
    load_part<false>(p.residue, first, p.len, rest);
  }
  u32 top = 0;
  for (u32 e = 0; e < PACK; ++e) {
    values[e] += rest[e];
    // Among magnitudes bits rise with the value, and NaN stands above the infinities.
    top = larger(top, float_bits(values[e]) & 0x7fffffffu);
  }
  top = largest_of_eight(top);
  const u32 wanted = narrow_half_up(bits_float(top) / LEVELS);
  const bool large = top >= 0x7f800000u || wanted >= HALF_INFINITY;
  const float step = widen_half(wanted), inverse = wanted == 0 || large ? 0.0f : 1.0f / step;
  i8 codes[PACK];
  for (u32 e = 0; e < PACK; ++e) {
    const float held = larger(smaller(values[e] * inverse, LEVELS), -LEVELS);
    const i32 code = large ? 0 : nearest(held);
    codes[e] = static_cast<i8>(code);
    rest[e] = large ? rest[e] : values[e] - static_cast<float>(code) * step;
  }
  if (whole) {
    store_part<true>(p.codes, first, p.len, codes);
    store_part<true>(p.residue, first, p.len, rest);
  } else {
    store_part<false>(p.codes, first, p.len, codes);
    store_part<false>(p.residue, first, p.len, rest);
  }
  if (first % BLOCK == 0 && first < p.len) {
    p.scales[first / BLOCK] = static_cast<u16>(large ? HALF_NAN : wanted);
    if (large) atomic_min(p.wrong, first);
  }
}

// Packs of a thread that decodes.
constexpr u32 PACKS = 4;

template <bool WHOLE> DEVICE void dequantise(const DequantiseQ8& p, u64 begin) {
  i8 codes[PACKS][PACK];
  u16 scales[PACKS];
  UNROLL(4)
  for (u32 j = 0; j < PACKS; ++j) {
    const u64 first = begin + (j * THREADS + thread_index()) * PACK;
    load_part<WHOLE>(p.codes, first, p.len, codes[j]);
    scales[j] = WHOLE || first < p.len ? p.scales[first / BLOCK] : 0;
  }
  UNROLL(4)
  for (u32 j = 0; j < PACKS; ++j) {
    const float step = widen_half(scales[j]);
    float out[PACK];
    for (u32 e = 0; e < PACK; ++e) out[e] = static_cast<float>(codes[j][e]) * step;
    store_part<WHOLE>(p.out, begin + (j * THREADS + thread_index()) * PACK, p.len, out);
  }
}

// Reads 1.06 bytes an element, writes 4.
KERNEL(dequantise_q8, DequantiseQ8, THREADS) {
  const u64 begin = static_cast<u64>(block_index()) * (PACKS * TILE);
  if (p.aligned && begin + PACKS * TILE <= p.len) {
    dequantise<true>(p, begin);
  } else {
    dequantise<false>(p, begin);
  }
}

} // namespace q8
