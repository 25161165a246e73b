// Elements in packs: four neighbours a thread, moved as one where their place allows it.
//
// Whether all buffers of a call begin at multiples of 16 bytes is told by who launches (`aligned`); the results are
// the same.
#pragma once

#include "device.h"
#include "params.h"

// Elements that a thread takes together.
constexpr u32 PACK = 4;
// Elements of a block, where kernels go by packs.
constexpr u32 TILE = THREADS * PACK;

// Elements that are moved together, at once where they are 16 bytes or fewer.
template <class T, u32 N> struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Neighbours {
  T elements[N];
};

// N neighbours of 4 bytes in all, of 8, or of a multiple of 16, as whole words.
//
// Where two ways end in the same place, clang takes structs apart that are moved at the end of both, and does not put
// all of them together again; of words that are made into elements of 64 bits it loads some twice. So smaller elements
// are moved as words, those as structs.
template <class T, u32 N> DEVICE void load_words(const void* from, T (&into)[N]) {
  constexpr u32 BYTES = N * sizeof(T), WORDS = BYTES / 4;
  u32 words[WORDS];
  if constexpr (BYTES == 4) {
    words[0] = *static_cast<const Words1*>(from);
  } else if constexpr (BYTES == 8) {
    const Words2 two = *static_cast<const Words2*>(from);
    for (u32 at = 0; at < 2; ++at) words[at] = word_of(two, at);
  } else {
    static_assert(BYTES % 16 == 0, "whole lines");
    for (u32 line = 0; line < WORDS / 4; ++line) {
      const Words4 four = static_cast<const Words4*>(from)[line];
      for (u32 at = 0; at < 4; ++at) words[4 * line + at] = word_of(four, at);
    }
  }
  __builtin_memcpy(into, words, BYTES);
}

template <class T, u32 N> DEVICE void store_words(void* to, const T (&from)[N]) {
  constexpr u32 BYTES = N * sizeof(T), WORDS = BYTES / 4;
  u32 words[WORDS];
  __builtin_memcpy(words, from, BYTES);
  if constexpr (BYTES == 4) {
    store_together(static_cast<Words1*>(to), Words1{words[0]});
  } else if constexpr (BYTES == 8) {
    store_together(static_cast<Words2*>(to), words_of(words[0], words[1]));
  } else {
    static_assert(BYTES % 16 == 0, "whole lines");
    for (u32 line = 0; line < WORDS; line += 4)
      store_together(static_cast<Words4*>(to) + line / 4,
                     words_of(words[line], words[line + 1], words[line + 2], words[line + 3]));
  }
}

// N neighbours; where they are not `aligned`, one by one.
template <class T, u32 N> DEVICE void load_pack(const T* from, bool aligned, T (&into)[N]) {
  if (!aligned) {
    for (u32 e = 0; e < N; ++e) into[e] = from[e];
  } else if constexpr (sizeof(T) < 8) {
    load_words(from, into);
  } else {
    const Neighbours<T, N> together = *reinterpret_cast<const Neighbours<T, N>*>(from);
    for (u32 e = 0; e < N; ++e) into[e] = together.elements[e];
  }
}

template <class T, u32 N> DEVICE void store_pack(T* to, bool aligned, const T (&from)[N]) {
  if (!aligned) {
    for (u32 e = 0; e < N; ++e) to[e] = from[e];
  } else if constexpr (sizeof(T) < 8) {
    store_words(to, from);
  } else {
    Neighbours<T, N> together;
    for (u32 e = 0; e < N; ++e) together.elements[e] = from[e];
    store_together(reinterpret_cast<Neighbours<T, N>*>(to), together);
  }
}

// A type that no argument decides.
template <class T> struct Same {
  using type = T;
};

// N neighbours from element `first` of `len` on; what lies beyond is zero. WHOLE: there are so many, and they are
// aligned.
//
// Kernels ask once and have one body for each answer: a branch around every load would keep loads from being in
// flight together.
template <bool WHOLE, class T, u32 N>
DEVICE void load_part(const typename Same<T>::type* from, u64 first, u64 len, T (&into)[N]) {
  if constexpr (WHOLE) {
    load_pack(from + first, true, into);
  } else {
    for (u32 e = 0; e < N; ++e) into[e] = first + e < len ? from[first + e] : T{};
  }
}

// The same the other way; what lies beyond is dropped.
template <bool WHOLE, class T, u32 N>
DEVICE void store_part(typename Same<T>::type* to, u64 first, u64 len, const T (&from)[N]) {
  if constexpr (WHOLE) {
    store_pack(to + first, true, from);
  } else {
    for (u32 e = 0; e < N; ++e)
      if (first + e < len) to[first + e] = from[e];
  }
}

// Whether a body's elements are whole and aligned, as a type.
template <bool IS> struct Whole {
  static constexpr bool value = IS;
};

// Reports the first of a pack's elements that something is wrong with.
template <u32 N> DEVICE void report_first(Report* report, u64 first, const bool (&wrong)[N]) {
  u32 at = N;
  for (u32 e = N; e > 0; --e) at = wrong[e - 1] ? e - 1 : at;
  if (at < N) atomic_min(report, first + at);
}

// This thread's pack of `len` elements: `body` of its first one and of whether it is Whole; none beyond the end.
template <class Body> DEVICE void each_pack(u64 len, bool aligned, Body&& body) {
  const u64 first = static_cast<u64>(block_index()) * TILE + thread_index() * PACK;
  if (aligned && first + PACK <= len) {
    body(first, Whole<true>{});
  } else if (first < len) {
    body(first, Whole<false>{});
  }
}
