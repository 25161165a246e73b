// Blocks of the codecs with a step: what eight elements of one are to a thread.
//
// The definition is `plesio_kernels::codec`; the layouts stand there. A thread has four neighbours in each half of a
// block, so that it moves 16 bytes of values at once and whole words of codes: of `Int8` one for each half, of `Int4`
// one whose low nibbles are of the first half and whose high ones are of the second.
#pragma once

#include "elements.h"

namespace codec {

// Eight elements: [half][neighbour].
constexpr u32 SHARE = 2 * PACK;

// Bits of infinity: magnitudes from here on are not finite.
constexpr u32 INFINITE = 0x7f800000u;
constexpr u32 NOT_A_NUMBER = 0x7fc00000u;
// Blocks whose largest element is smaller are sent as zero: the reciprocal of a step for less would overflow. 2^-100.
constexpr u32 TOP_MIN = (127 - 100) << 23;
// Adding this to a float of magnitude below 2^22 rounds it half to even; the integer is in the low bits.
constexpr float ROUNDER = 12582912.0f; // 1.5 * 2^23

// A byte an element, and a step for 256.
struct Int8 {
  static constexpr u32 BLOCK = 256;
  // Words of codes that a thread has.
  static constexpr u32 WORDS = 2;
  // The step that a slot of the largest magnitude has: ceil(2^30 / 127).
  static constexpr u32 STEP_MAX = 8454661;
  static constexpr float LEVELS = 127.0f;

  // The step's bits of a block with this largest magnitude: 17 significant ones, cut, as 7 more for the code fill a
  // float.
  DEVICE u32 step_of(u32 top) { return float_bits(bits_float(top) / LEVELS) & ~0x7fu; }

  DEVICE u32 header_of(u32 step, u32) { return step; }

  DEVICE u32 seed_of(u64, u64) { return 0; }

  // The code of a value with ROUNDER added.
  DEVICE float shifted(float value, float inverse) {
    return larger(smaller(value * inverse, LEVELS), -LEVELS) + ROUNDER;
  }

  DEVICE void encode(const float (&values)[2][PACK], u32 header, u32, float (&rest)[2][PACK],
                     u32 (&words)[WORDS]) {
    const float step = bits_float(header), inverse = 1.0f / step;
    for (u32 half = 0; half < 2; ++half) {
      words[half] = 0;
      for (u32 e = 0; e < PACK; ++e) {
        const float code = shifted(values[half][e], inverse);
        words[half] |= (float_bits(code) & 0xff) << 8 * e;
        rest[half][e] = values[half][e] - (code - ROUNDER) * step;
      }
    }
  }

  DEVICE i32 code_of(const u32 (&words)[WORDS], u32 half, u32 e) { return static_cast<i8>(words[half] >> 8 * e); }

  DEVICE void decode(u32 header, const u32 (&words)[WORDS], u32, float (&out)[2][PACK]) {
    const float step = bits_float(header >= INFINITE ? NOT_A_NUMBER : header);
    for (u32 half = 0; half < 2; ++half)
      for (u32 e = 0; e < PACK; ++e) out[half][e] = static_cast<float>(code_of(words, half, e)) * step;
  }

  // What a block of integers of this largest magnitude begins with: its step.
  DEVICE u32 whole_header_of(u32 top, u32) { return smaller((top + 126) / 127, STEP_MAX); }

  DEVICE void encode_integers(const i32 (&values)[2][PACK], u32 header, u32, u32 (&words)[WORDS]) {
    const float inverse = header == 0 ? 0.0f : 1.0f / static_cast<float>(header);
    for (u32 half = 0; half < 2; ++half) {
      words[half] = 0;
      for (u32 e = 0; e < PACK; ++e)
        words[half] |= (float_bits(shifted(static_cast<float>(values[half][e]), inverse)) & 0xff) << 8 * e;
    }
  }

  DEVICE void decode_integers(u32 header, const u32 (&words)[WORDS], u32, i32 (&out)[2][PACK]) {
    const i32 step = static_cast<i32>(smaller(header, STEP_MAX));
    for (u32 half = 0; half < 2; ++half)
      for (u32 e = 0; e < PACK; ++e) out[half][e] = code_of(words, half, e) * step;
  }
};

// A nibble an element, with a dither that the receiver takes off again; a step and a seed for a block.
template <u32 ELEMENTS> struct Int4 {
  static constexpr u32 BLOCK = ELEMENTS;
  static constexpr u32 WORDS = 1;
  // A step that no magnitude overflows with: 2^124.
  static constexpr u32 STEP_MAX = (127 + 124) << 23;

  // 8 significant bits, rounded up.
  DEVICE u32 step_of(u32 top) {
    return smaller((float_bits(bits_float(top) / 7.5f) + 0xffff) & 0xffff0000u, STEP_MAX);
  }

  DEVICE u32 header_of(u32 step, u32 seed) { return step >> 16 | seed << 16; }

  // A hash of the call's seed and the block's number (the finaliser of SplitMix64).
  DEVICE u32 seed_of(u64 seed, u64 block) {
    u64 z = seed + (block + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return static_cast<u32>((z ^ z >> 31) >> 48);
  }

  // A hash of a block's seed and a byte's place in it (the finaliser of MurmurHash3).
  DEVICE u32 dither(u32 header, u32 place) {
    u32 x = (header & 0xffff0000u) | place;
    x = (x ^ x >> 16) * 0x85ebca6bu;
    x = (x ^ x >> 13) * 0xc2b2ae35u;
    return x ^ x >> 16;
  }

  // 512 D: of the low nibble from the top byte of the hash, of the high one from the next.
  DEVICE i32 offset(u32 hash, u32 half) {
    return static_cast<i32>(2 * (half == 0 ? hash >> 24 : hash >> 16 & 0xff) + 3585);
  }

  // The nibble of a value.
  DEVICE i32 nibble(float value, float inverse, i32 offset) {
    const float wanted = value * inverse + static_cast<float>(offset) * (1.0f / 512.0f);
    return static_cast<i32>(float_bits(larger(smaller(wanted, 15.0f), 0.0f) + ROUNDER) & 0xf);
  }

  DEVICE void encode(const float (&values)[2][PACK], u32 header, u32 lane, float (&rest)[2][PACK],
                     u32 (&words)[WORDS]) {
    const float step = bits_float(header << 16), inverse = 1.0f / step, fraction = step * (1.0f / 512.0f);
    words[0] = 0;
    for (u32 e = 0; e < PACK; ++e) {
      const u32 hash = dither(header, PACK * lane + e);
      for (u32 half = 0; half < 2; ++half) {
        const i32 away = offset(hash, half), code = nibble(values[half][e], inverse, away);
        words[0] |= static_cast<u32>(code) << (8 * e + 4 * half);
        rest[half][e] = values[half][e] - static_cast<float>(512 * code - away) * fraction;
      }
    }
  }

  // 512 times how many steps an element is.
  DEVICE i32 steps_of(const u32 (&words)[WORDS], u32 hash, u32 half, u32 e) {
    return static_cast<i32>(512 * (words[0] >> (8 * e + 4 * half) & 0xf)) - offset(hash, half);
  }

  DEVICE void decode(u32 header, const u32 (&words)[WORDS], u32 lane, float (&out)[2][PACK]) {
    const u32 bits = header << 16;
    const float fraction = bits_float(bits >= INFINITE ? NOT_A_NUMBER : bits) * (1.0f / 512.0f);
    for (u32 e = 0; e < PACK; ++e) {
      const u32 hash = dither(header, PACK * lane + e);
      for (u32 half = 0; half < 2; ++half) // no negative zeros
        out[half][e] = bits == 0 ? 0.0f : static_cast<float>(steps_of(words, hash, half, e)) * fraction;
    }
  }

  // The smallest step m 2^(k-11) that is at least `top / 7.5`, and the seed; `top` counts as at most 2^30.
  DEVICE u32 whole_header_of(u32 top, u32 seed) {
    // In units of 2^-11.
    const u64 wanted = ((static_cast<u64>(smaller(top, 1u << 30)) << 12) + 14) / 15;
    const u32 exponent = 32 - leading_zeros(static_cast<u32>(wanted >> 8));
    const u32 mantissa = static_cast<u32>((wanted + (1ull << exponent) - 1) >> exponent);
    // A mantissa of nine bits is 256.
    return (mantissa > 255 ? 128 | (exponent + 1) << 8 : mantissa | exponent << 8) | seed << 16;
  }

  DEVICE void encode_integers(const i32 (&values)[2][PACK], u32 header, u32 lane, u32 (&words)[WORDS]) {
    const u32 mantissa = header & 0xff, exponent = header >> 8 & 0xff;
    const float step = static_cast<float>(mantissa) * bits_float((exponent + 127 - 11) << 23);
    const float inverse = mantissa == 0 ? 0.0f : 1.0f / step;
    words[0] = 0;
    for (u32 e = 0; e < PACK; ++e) {
      const u32 hash = dither(header, PACK * lane + e);
      for (u32 half = 0; half < 2; ++half) {
        const i32 code = nibble(static_cast<float>(values[half][e]), inverse, offset(hash, half));
        words[0] |= static_cast<u32>(code) << (8 * e + 4 * half);
      }
    }
  }

  DEVICE void decode_integers(u32 header, const u32 (&words)[WORDS], u32 lane, i32 (&out)[2][PACK]) {
    const u32 exponent = smaller(header >> 8 & 0xff, 31u);
    const u32 left = exponent > 20 ? exponent - 20 : 0, right = exponent < 20 ? 20 - exponent : 0;
    // Steps are below 2^12 and this below 2^19; halves round up.
    const i32 factor = static_cast<i32>((header & 0xff) << left), half_step = (1 << right) >> 1;
    for (u32 e = 0; e < PACK; ++e) {
      const u32 hash = dither(header, PACK * lane + e);
      for (u32 half = 0; half < 2; ++half)
        out[half][e] = (steps_of(words, hash, half, e) * factor + half_step) >> right;
    }
  }
};

} // namespace codec
