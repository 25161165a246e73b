// Codecs: what a range of a tensor, or of a slot, looks like on the wire, and what the sender keeps of it.
//
// The definition is `plesio_kernels::codec`; any bytes decode, and to the same values everywhere. Codes begin at
// multiples of four bytes, and then every block of them does. `aligned` speaks of the values, and of the codes of
// `Full` and `Bf16` as well. The threads that have a block find its largest magnitude by shuffles, so nobody leaves
// before.
#pragma once

#include "blocks.h"
#include "elements.h"
#include "params.h"

namespace codec {

// Codecs without blocks: as it is, and the upper half of an f32.

struct Full {
  using Code = u32;
  // Magnitudes from here on do not stay finite.
  static constexpr u32 ENDLESS = INFINITE;

  DEVICE u32 narrow(float value) { return float_bits(value); }
  DEVICE float widen(u32 code) { return bits_float(code); }
  DEVICE u32 narrow_integer(i32 value) { return static_cast<u32>(value); }
  DEVICE i32 widen_integer(u32 code) { return static_cast<i32>(code); }
};

struct Bf16 {
  using Code = u16;
  static constexpr u32 ENDLESS = 0x7f7f8000u;
  // The largest integer that an encoder writes: 2^30.
  static constexpr float WHOLE_MAX = 1073741824.0f;

  DEVICE u16 narrow(float value) {
    const u32 bits = float_bits(value);
    const u32 rounded = bits + 0x7fff + (bits >> 16 & 1);
    const bool is_nan = (bits & 0x7fffffffu) > INFINITE;
    return static_cast<u16>((is_nan ? bits | 0x400000u : rounded) >> 16);
  }
  DEVICE float widen(u16 code) { return bits_float(static_cast<u32>(code) << 16); }
  DEVICE u16 narrow_integer(i32 value) { return narrow(static_cast<float>(value)); }
  DEVICE i32 widen_integer(u16 code) {
    const float value = widen(code);
    const float held = larger(smaller(value, WHOLE_MAX), -WHOLE_MAX);
    return value == value ? nearest(held) : 0;
  }
};

template <class Code> DEVICE const Code* codes_of(const u32* words) { return reinterpret_cast<const Code*>(words); }
template <class Code> DEVICE Code* codes_of(u32* words) { return reinterpret_cast<Code*>(words); }

template <class Codec, bool KEEP> DEVICE void encode_elements(const Encode& p) {
  each_pack(p.len, p.aligned, [&](u64 first, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    float values[PACK];
    [[maybe_unused]] float rest[PACK];
    load_part<WHOLE>(p.input, first, p.len, values);
    if constexpr (KEEP) {
      load_part<WHOLE>(p.residue, first, p.len, rest);
      for (u32 e = 0; e < PACK; ++e) values[e] += rest[e];
    }
    typename Codec::Code codes[PACK];
    bool endless[PACK];
    for (u32 e = 0; e < PACK; ++e) {
      codes[e] = Codec::narrow(values[e]);
      endless[e] = (float_bits(values[e]) & 0x7fffffffu) >= Codec::ENDLESS;
    }
    report_first(p.not_finite, first, endless);
    store_part<WHOLE>(codes_of<typename Codec::Code>(p.codes), first, p.len, codes);
    if constexpr (KEEP) {
      for (u32 e = 0; e < PACK; ++e) rest[e] = endless[e] ? rest[e] : values[e] - Codec::widen(codes[e]);
      store_part<WHOLE>(p.residue, first, p.len, rest);
    }
  });
}

template <class Codec, bool ADD> DEVICE void decode_elements(const Decode& p) {
  each_pack(p.len, p.aligned, [&](u64 first, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    typename Codec::Code codes[PACK];
    float out[PACK] = {};
    load_part<WHOLE>(codes_of<typename Codec::Code>(p.codes), first, p.len, codes);
    if constexpr (ADD) load_part<WHOLE>(p.out, first, p.len, out);
    for (u32 e = 0; e < PACK; ++e) out[e] = ADD ? out[e] + Codec::widen(codes[e]) : Codec::widen(codes[e]);
    store_part<WHOLE>(p.out, first, p.len, out);
  });
}

template <class Codec> DEVICE void encode_slot_elements(const EncodeSlot& p) {
  each_pack(p.len, p.aligned, [&](u64 first, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    i32 slot[PACK];
    typename Codec::Code codes[PACK];
    load_part<WHOLE>(p.slot, first, p.len, slot);
    for (u32 e = 0; e < PACK; ++e) codes[e] = Codec::narrow_integer(slot[e]);
    store_part<WHOLE>(codes_of<typename Codec::Code>(p.codes), first, p.len, codes);
  });
}

template <class Codec> DEVICE void decode_slot_elements(const DecodeSlot& p) {
  each_pack(p.len, p.aligned, [&](u64 first, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    typename Codec::Code codes[PACK];
    i32 slot[PACK];
    load_part<WHOLE>(codes_of<typename Codec::Code>(p.codes), first, p.len, codes);
    for (u32 e = 0; e < PACK; ++e) slot[e] = Codec::widen_integer(codes[e]);
    store_part<WHOLE>(p.slot, first, p.len, slot);
  });
}

template <class Codec> DEVICE void coded_sum_elements(const CodedSum& p) {
  each_pack(p.len, p.aligned, [&](u64 first, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    i64 sums[PACK] = {};
    UNROLL(WHOLE ? 4 : 1)
    for (u32 slot = 0; slot < p.count; ++slot) {
      typename Codec::Code codes[PACK];
      load_part<WHOLE>(codes_of<typename Codec::Code>(p.slots[slot]), first, p.len, codes);
      const i64 weight = static_cast<i32>(p.weights[slot]);
      for (u32 e = 0; e < PACK; ++e) sums[e] += weight * Codec::widen_integer(codes[e]);
    }
    store_part<WHOLE>(p.sum, first, p.len, sums);
  });
}

// Codecs with blocks.

// Where a thread's share lies.
struct Place {
  u64 block;
  u64 first;   // the block's first element
  u32 lane;    // of the block's threads
  u32 present; // elements that the block has: none behind the end
};

template <class Codec> DEVICE Place place_in(u64 len) {
  constexpr u32 LANES = Codec::BLOCK / SHARE;
  const u64 block = static_cast<u64>(block_index()) * (THREADS / LANES) + thread_index() / LANES;
  const u64 first = block * Codec::BLOCK;
  const u64 left = first < len ? len - first : 0;
  return {block, first, thread_index() % LANES, static_cast<u32>(smaller<u64>(left, Codec::BLOCK))};
}

// A thread's share of values; what the block does not have is zero. WHOLE: it has all, and they are aligned.
template <class Codec, bool WHOLE, class T>
DEVICE void load_share(const typename Same<T>::type* from, const Place& at, T (&into)[2][PACK]) {
  for (u32 half = 0; half < 2; ++half)
    load_part<WHOLE>(from + at.first, at.lane * PACK + half * Codec::BLOCK / 2, at.present, into[half]);
}

template <class Codec, bool WHOLE, class T>
DEVICE void store_share(typename Same<T>::type* to, const Place& at, const T (&from)[2][PACK]) {
  for (u32 half = 0; half < 2; ++half)
    store_part<WHOLE>(to + at.first, at.lane * PACK + half * Codec::BLOCK / 2, at.present, from[half]);
}

// Ends a branch that others join. A compiler would move what both branches end with behind them, one access after the
// other, and so take apart what moves a pack as one.
DEVICE void end_branch() { asm volatile(""); }

// The largest of a block's threads.
template <class Codec> DEVICE u32 largest_in_block(u32 value) {
  for (u32 mask = Codec::BLOCK / SHARE / 2; mask > 0; mask /= 2) {
    const u32 other = shuffle_xor_bits(value, mask);
    value = larger(value, other);
  }
  return value;
}

// The words of a block: its header and its codes.
template <class Codec> constexpr u32 BLOCK_WORDS = 1 + Codec::BLOCK / SHARE * Codec::WORDS;

// Which word of a block is one of a thread.
template <class Codec> DEVICE u32 word_index(const Place& at, u32 word) {
  return 1 + at.lane + word * (Codec::BLOCK / SHARE);
}

// A thread's words of codes, of which those that are not there are zero; the block's header. WHOLE: all are there.
template <class Codec, bool WHOLE>
DEVICE u32 load_codes(const u32* codes, const Place& at, u32 (&words)[Codec::WORDS]) {
  const u32* block = codes + at.block * BLOCK_WORDS<Codec>;
  for (u32 word = 0; word < Codec::WORDS; ++word) {
    const u32 index = word_index<Codec>(at, word);
    if constexpr (WHOLE) {
      words[word] = block[index];
    } else {
      // A block has as many bytes of codes as elements, up to all of them.
      const u32 before = 4 * (index - 1);
      const u8* bytes = reinterpret_cast<const u8*>(block + index);
      u32 code = 0;
      UNROLL(1)
      for (u32 byte = 0; byte < 4 && before + byte < at.present; ++byte)
        code |= static_cast<u32>(bytes[byte]) << 8 * byte;
      words[word] = code;
    }
  }
  return block[0];
}

template <class Codec>
DEVICE void store_codes(u32* codes, const Place& at, u32 header, const u32 (&words)[Codec::WORDS]) {
  u32* block = codes + at.block * BLOCK_WORDS<Codec>;
  if (at.lane == 0 && at.present > 0) block[0] = header;
  for (u32 word = 0; word < Codec::WORDS; ++word) {
    const u32 index = word_index<Codec>(at, word);
    if (at.present == Codec::BLOCK) {
      block[index] = words[word];
    } else {
      const u32 before = 4 * (index - 1);
      u8* bytes = reinterpret_cast<u8*>(block + index);
      UNROLL(1)
      for (u32 byte = 0; byte < 4 && before + byte < at.present; ++byte) {
        // Nibbles of elements that are not there are zero.
        const bool full = Codec::WORDS > 1 || before + byte + Codec::BLOCK / 2 < at.present;
        bytes[byte] = words[word] >> 8 * byte & (full ? 0xff : 0xf);
      }
    }
  }
}

template <class Codec, bool KEEP> DEVICE void encode_blocks(const Encode& p) {
  const Place at = place_in<Codec>(p.len);
  const bool whole = p.aligned && at.present == Codec::BLOCK;
  float values[2][PACK], rest[2][PACK];
  if (whole) {
    load_share<Codec, true>(p.input, at, values);
    if constexpr (KEEP) load_share<Codec, true>(p.residue, at, rest);
    end_branch();
  } else {
    load_share<Codec, false>(p.input, at, values);
    if constexpr (KEEP) load_share<Codec, false>(p.residue, at, rest);
  }
  u32 top = 0;
  for (u32 half = 0; half < 2; ++half)
    for (u32 e = 0; e < PACK; ++e) {
      if constexpr (KEEP) values[half][e] += rest[half][e];
      // Among magnitudes bits rise with the value, and NaN stands above the infinities.
      top = larger(top, float_bits(values[half][e]) & 0x7fffffffu);
    }
  top = largest_in_block<Codec>(top);
  const u32 seed = Codec::seed_of(p.seed, p.first_block + at.block);
  u32 header, words[Codec::WORDS] = {};
  if (top >= INFINITE) {
    header = Codec::header_of(NOT_A_NUMBER, seed);
    if (at.lane == 0) atomic_min(p.not_finite, at.first);
  } else if (top < TOP_MIN) {
    header = Codec::header_of(0, seed);
    for (u32 half = 0; half < 2; ++half)
      for (u32 e = 0; e < PACK; ++e) rest[half][e] = values[half][e];
  } else {
    header = Codec::header_of(Codec::step_of(top), seed);
    Codec::encode(values, header, at.lane, rest, words);
  }
  store_codes<Codec>(p.codes, at, header, words);
  if constexpr (KEEP) {
    if (whole) {
      store_share<Codec, true>(p.residue, at, rest);
      end_branch();
    } else {
      store_share<Codec, false>(p.residue, at, rest);
    }
  }
}

template <class Codec> DEVICE void encode_slot_blocks(const EncodeSlot& p) {
  const Place at = place_in<Codec>(p.len);
  i32 values[2][PACK];
  if (p.aligned && at.present == Codec::BLOCK) {
    load_share<Codec, true>(p.slot, at, values);
    end_branch();
  } else {
    load_share<Codec, false>(p.slot, at, values);
  }
  u32 top = 0;
  for (u32 half = 0; half < 2; ++half)
    for (u32 e = 0; e < PACK; ++e) {
      const u32 value = static_cast<u32>(values[half][e]);
      top = larger(top, values[half][e] < 0 ? 0 - value : value);
    }
  top = largest_in_block<Codec>(top);
  const u32 header = Codec::whole_header_of(top, Codec::seed_of(p.seed, p.first_block + at.block));
  u32 words[Codec::WORDS];
  Codec::encode_integers(values, header, at.lane, words);
  store_codes<Codec>(p.codes, at, header, words);
}

template <class Codec, bool ADD> DEVICE void decode_blocks(const Decode& p) {
  const Place at = place_in<Codec>(p.len);
  if (at.present == 0) return;
  const bool whole = p.aligned && at.present == Codec::BLOCK;
  u32 header, words[Codec::WORDS];
  float values[2][PACK];
  [[maybe_unused]] float sums[2][PACK];
  if (whole) {
    header = load_codes<Codec, true>(p.codes, at, words);
    if constexpr (ADD) load_share<Codec, true>(p.out, at, sums);
    end_branch();
  } else {
    header = load_codes<Codec, false>(p.codes, at, words);
    if constexpr (ADD) load_share<Codec, false>(p.out, at, sums);
  }
  Codec::decode(header, words, at.lane, values);
  if constexpr (ADD)
    for (u32 half = 0; half < 2; ++half)
      for (u32 e = 0; e < PACK; ++e) values[half][e] = sums[half][e] + values[half][e];
  if (whole) {
    store_share<Codec, true>(p.out, at, values);
    end_branch();
  } else {
    store_share<Codec, false>(p.out, at, values);
  }
}

template <class Codec> DEVICE void decode_slot_blocks(const DecodeSlot& p) {
  const Place at = place_in<Codec>(p.len);
  if (at.present == 0) return;
  const bool whole = p.aligned && at.present == Codec::BLOCK;
  u32 header, words[Codec::WORDS];
  i32 values[2][PACK];
  if (whole) {
    header = load_codes<Codec, true>(p.codes, at, words);
    end_branch();
  } else {
    header = load_codes<Codec, false>(p.codes, at, words);
  }
  Codec::decode_integers(header, words, at.lane, values);
  if (whole) {
    store_share<Codec, true>(p.slot, at, values);
    end_branch();
  } else {
    store_share<Codec, false>(p.slot, at, values);
  }
}

template <class Codec, bool WHOLE> DEVICE void coded_sum_block(const CodedSum& p, const Place& at) {
  i64 sums[2][PACK] = {};
  UNROLL(WHOLE ? 4 : 1)
  for (u32 slot = 0; slot < p.count; ++slot) {
    u32 words[Codec::WORDS];
    i32 values[2][PACK];
    const u32 header = load_codes<Codec, WHOLE>(p.slots[slot], at, words);
    Codec::decode_integers(header, words, at.lane, values);
    const i64 weight = static_cast<i32>(p.weights[slot]);
    for (u32 half = 0; half < 2; ++half)
      for (u32 e = 0; e < PACK; ++e) sums[half][e] += weight * values[half][e];
  }
  store_share<Codec, WHOLE>(p.sum, at, sums);
}

template <class Codec> DEVICE void coded_sum_blocks(const CodedSum& p) {
  const Place at = place_in<Codec>(p.len);
  if (p.aligned && at.present == Codec::BLOCK) {
    coded_sum_block<Codec, true>(p, at);
  } else if (at.present > 0) {
    coded_sum_block<Codec, false>(p, at);
  }
}

// The kernels of one codec.
#define CODEC_KERNELS(name, Codec, by)                                                      \
  KERNEL(encode_##name, Encode, THREADS) { encode_##by<Codec, false>(p); }                  \
  KERNEL(encode_kept_##name, Encode, THREADS) { encode_##by<Codec, true>(p); }              \
  KERNEL(decode_##name, Decode, THREADS) { decode_##by<Codec, false>(p); }                  \
  KERNEL(decode_add_##name, Decode, THREADS) { decode_##by<Codec, true>(p); }               \
  KERNEL(encode_slot_##name, EncodeSlot, THREADS) { encode_slot_##by<Codec>(p); }           \
  KERNEL(decode_slot_##name, DecodeSlot, THREADS) { decode_slot_##by<Codec>(p); }           \
  KERNEL(coded_sum_##name, CodedSum, THREADS) { coded_sum_##by<Codec>(p); }

CODEC_KERNELS(full, Full, elements)
CODEC_KERNELS(bf16, Bf16, elements)
CODEC_KERNELS(int8, Int8, blocks)
CODEC_KERNELS(int4_64, Int4<64>, blocks)
CODEC_KERNELS(int4_128, Int4<128>, blocks)

} // namespace codec
