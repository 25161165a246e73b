// The elements of largest magnitude, by rising index.
//
// The definition is `plesio_kernels::sparse`: magnitudes are compared as 31 bits, and of equals the lower index goes
// first.
//
//   top_sample   one block   a floor that the wanted elements are very likely above, from 8192 elements
//   top_mark     reads all   a bit for each element above the floor, and how many of them have which highest 11 bits
//   top_narrow   marked ones the highest bits of the last wanted element, level by level: 11, 11 and 9 of them
//   top_count    marked ones bits for those above it and those equal to it, how many of both each block has, and the
//                            sums over the blocks before
//   top_emit     wanted ones their places follow from those sums and from the bits before theirs
//
// The input is read once, and of what follows only the sectors of memory in which something is marked: one or two in a
// hundred elements where one is wanted. Where the floor was too high, the first level is done over all elements; where
// it is no floor at all (all alike, or nearly all wanted), everything is marked: slower, with the same result. Memory
// bounds marking: each thread has eight loads of 16 bytes in flight, and counts in shared memory only what is marked.
//
// No block waits for another. The last one to end a kernel finds what the next one needs, so nothing goes to the host
// and back.
#pragma once

#include "words.h"

// Bins of a count of elements by their next bits.
constexpr u32 TOP_BINS = 2048;

// What kernels leave for those after them.
struct TopWork {
  u32 bins[TOP_BINS]; // how many elements have which next bits
  u32 floor;          // the highest 11 bits of what is marked at least
  u32 prefix;         // the highest bits of the last wanted element, as far as they are known
  u32 wanted;         // which one it is among those that begin so
  u32 all;            // 1 where the floor was too high: every element is to be taken for marked
  u32 arrivals;       // blocks that have ended
  u32 pad;
};

// The `count` elements of largest magnitude.
struct TopK {
  Global<const float> x;
  Global<u32> indices;
  Global<float> values;
  Global<TopWork> work;
  Global<u32> marks;  // a word for 32 elements, whole blocks of them: above the floor, then above the last wanted
  Global<u32> ties;   // equal to the last wanted
  Global<u32> counts; // of each block: those above, and from bit 16 on the ties
  Global<u32> before; // of each block: those above in all blocks before, and the ties
  u64 len;            // elements, less than 2^32
  u32 count;          // wanted elements
  u32 known;          // bits that are known when a level begins
  u32 aligned;
  u32 pad;
};

namespace sparse {

constexpr u32 MAGNITUDE_BITS = 31;
constexpr u32 BIN_BITS = 11;
constexpr u32 SAMPLE_PACKS = THREADS * PACKS;

DEVICE u32 magnitude_of(float x) { return float_bits(x) & 0x7fffffffu; }

// Whether this block is the last of all to come here; to its threads all that the others wrote before is visible.
DEVICE bool is_last(u32* arrivals, u64 len) {
  SHARED(u32, last, 1);
  device_fence();
  block_barrier();
  if (thread_index() == 0) {
    const u32 blocks = static_cast<u32>((len + WORD_TILE - 1) / WORD_TILE);
    last[0] = atomic_add(arrivals, 1) + 1 == blocks;
    // For the next kernel: nobody else comes.
    if (last[0]) *arrivals = 0;
  }
  block_barrier();
  device_fence();
  return last[0] != 0;
}

DEVICE void clear_bins(u32* bins) {
  UNROLL(8)
  for (u32 bin = thread_index(); bin < TOP_BINS; bin += THREADS) bins[bin] = 0;
}

// Where the `wanted`-th element from the top is.
struct Cut {
  u32 total; // of all bins
  u32 bin;
  u32 rest; // which one it is in its bin
};

// Finds it; nothing but the total where there are not so many. Clears the bins. All threads of the block.
DEVICE Cut cut_bins(u32* bins, u32 wanted) {
  constexpr u32 SHARE = TOP_BINS / THREADS;
  SHARED(u32, totals, THREADS / 32);
  SHARED(u32, found, 2);
  // Each thread has eight bins, the first thread the highest.
  u32* mine = bins + (THREADS - 1 - thread_index()) * SHARE;
  u32 counts[SHARE], sum = 0;
  UNROLL(8)
  for (u32 bin = 0; bin < SHARE; ++bin) {
    counts[bin] = mine[bin];
    sum += counts[bin];
    mine[bin] = 0;
  }
  Cut cut;
  u32 above = sum_before(sum, totals, cut.total);
  UNROLL(8)
  for (u32 bin = SHARE; bin-- > 0;) {
    if (above < wanted && wanted <= above + counts[bin]) {
      found[0] = static_cast<u32>(mine - bins) + bin;
      found[1] = wanted - above;
    }
    above += counts[bin];
  }
  block_barrier();
  cut.bin = wanted <= cut.total ? found[0] : 0;
  cut.rest = wanted <= cut.total ? found[1] : 0;
  return cut;
}

// Adds a block's own bins to those of all.
DEVICE void add_bins(const u32* own, u32* all) {
  block_barrier();
  UNROLL(8)
  for (u32 bin = thread_index(); bin < TOP_BINS; bin += THREADS)
    if (own[bin] != 0) atomic_add(all + bin, own[bin]);
}

// The elements of this thread's word that are there, a bit each.
//
// Those that are not are loaded as zeros, of which there may be too many in the lowest bin; nobody is the wiser, because
// as many elements as are wanted lie in it and above it without them. They must not be marked.
DEVICE u32 present(u64 len) {
  const u64 first = (static_cast<u64>(block_index()) * THREADS + thread_index()) * WORD;
  if (first >= len) return 0;
  return len - first >= WORD ? ~0u : (1u << (len - first)) - 1;
}

KERNEL(top_sample, TopK, THREADS) {
  SHARED(u32, bins, TOP_BINS);
  TopWork* work = p.work;
  clear_bins(bins);
  clear_bins(work->bins);
  block_barrier();
  // Packs at even distances. The last one of all may be short, and is passed over.
  const u64 packs = p.len / PACK;
  const u64 taken = smaller<u64>(packs, SAMPLE_PACKS);
  float x[PACKS][PACK];
  UNROLL(8)
  for (u32 j = 0; j < PACKS; ++j) {
    const u64 sample = j * THREADS + thread_index();
    const u64 pack = packs <= SAMPLE_PACKS ? sample : sample * packs / SAMPLE_PACKS;
    const u64 first = sample < taken ? pack * PACK : p.len;
    if (p.aligned && sample < taken) {
      load_part<true>(p.x, first, p.len, x[j]);
    } else {
      load_part<false>(p.x, first, p.len, x[j]);
    }
  }
  UNROLL(8)
  for (u32 j = 0; j < PACKS; ++j) {
    if (j * THREADS + thread_index() >= taken) continue;
    for (u32 e = 0; e < PACK; ++e) atomic_add(bins + (magnitude_of(x[j][e]) >> (MAGNITUDE_BITS - BIN_BITS)), 1);
  }
  block_barrier();
  // As many as are wanted of the sample, an eighth more, and 64 for the luck of the draw: six deviations at any share.
  const u64 elements = taken * PACK;
  const u64 share = (p.count * elements + p.len - 1) / p.len;
  const Cut cut = cut_bins(bins, static_cast<u32>(share + share / 8 + 64));
  if (thread_index() == 0) {
    work->floor = cut.bin; // none where so many were not drawn
    work->prefix = 0;
    work->wanted = p.count;
    work->all = 0;
    work->arrivals = 0;
  }
}

// Reads 4 bytes an element, writes an eighth.
KERNEL(top_mark, TopK, THREADS) {
  SHARED(u32, bins, TOP_BINS);
  TopWork* work = p.work;
  clear_bins(bins);
  const u32 floor = work->floor << (MAGNITUDE_BITS - BIN_BITS);
  float x[PACKS][PACK];
  load_packs(p.x, p.len, p.aligned, x);
  u32 marks[PACKS];
  block_barrier();
  UNROLL(8)
  for (u32 j = 0; j < PACKS; ++j) {
    marks[j] = 0;
    for (u32 e = 0; e < PACK; ++e) {
      const u32 magnitude = magnitude_of(x[j][e]);
      if (magnitude < floor) continue;
      marks[j] |= 1u << e;
      atomic_add(bins + (magnitude >> (MAGNITUDE_BITS - BIN_BITS)), 1);
    }
  }
  block_words<u32>(p.marks)[thread_index()] = low_nibbles(exchange_bytes(marks)) & present(p.len);
  add_bins(bins, work->bins);
  if (!is_last(&work->arrivals, p.len)) return;
  const Cut cut = cut_bins(work->bins, p.count);
  if (thread_index() != 0) return;
  if (cut.total < p.count) {
    work->all = 1;
  } else {
    work->prefix = cut.bin;
    work->wanted = cut.rest;
  }
}

// The packs of this thread in which a bit of `bits` is set, all loads in flight together; zeros for the others.
DEVICE void load_some(const TopK& p, const u32 (&bits)[PACKS], float (&x)[PACKS][PACK]) {
  UNROLL(8)
  for (u32 j = 0; j < PACKS; ++j) {
    for (u32 e = 0; e < PACK; ++e) x[j][e] = 0.0f;
    if (bits[j] == 0) continue;
    if (p.aligned && pack_first(j) + PACK <= p.len) {
      load_part<true>(p.x, pack_first(j), p.len, x[j]);
    } else {
      load_part<false>(p.x, pack_first(j), p.len, x[j]);
    }
  }
}

// The marked elements of this thread's packs, a bit each, and their magnitudes.
DEVICE void load_marked(const TopK& p, u32 (&marks)[PACKS], u32 (&magnitudes)[PACKS][PACK]) {
  const u32 thread = thread_index();
  const TopWork* work = p.work;
  const bool all = work->all != 0;
  UNROLL(8)
  for (u32 j = 0; j < PACKS; ++j) {
    const u32 word = all ? ~0u : block_words<u32>(p.marks)[(j * THREADS + thread) / PACKS];
    marks[j] = word >> thread % PACKS * PACK & ((1u << PACK) - 1);
  }
  float x[PACKS][PACK];
  load_some(p, marks, x);
  UNROLL(8)
  for (u32 j = 0; j < PACKS; ++j)
    for (u32 e = 0; e < PACK; ++e) magnitudes[j][e] = magnitude_of(x[j][e]);
}

// One level: the next bits of those that begin with the bits known. The first one was done when elements were marked,
// unless the floor was too high.
KERNEL(top_narrow, TopK, THREADS) {
  SHARED(u32, bins, TOP_BINS);
  TopWork* work = p.work;
  if (p.known == 0 && work->all == 0) return;
  clear_bins(bins);
  const u32 prefix = work->prefix, wanted = work->wanted;
  const u32 known_shift = MAGNITUDE_BITS - p.known;
  const u32 next_bits = smaller(BIN_BITS, known_shift), next_shift = known_shift - next_bits;
  u32 marks[PACKS], magnitudes[PACKS][PACK];
  load_marked(p, marks, magnitudes);
  block_barrier();
  UNROLL(8)
  for (u32 j = 0; j < PACKS; ++j) {
    for (u32 e = 0; e < PACK; ++e) {
      const u32 magnitude = magnitudes[j][e];
      if ((marks[j] >> e & 1) == 0 || magnitude >> known_shift != prefix) continue;
      atomic_add(bins + (magnitude >> next_shift & ((1u << next_bits) - 1)), 1);
    }
  }
  add_bins(bins, work->bins);
  if (!is_last(&work->arrivals, p.len)) return;
  const Cut cut = cut_bins(work->bins, wanted);
  if (thread_index() != 0) return;
  work->prefix = prefix << next_bits | cut.bin;
  work->wanted = cut.rest;
}

// The sums of all counts before each block's; all threads of one block.
DEVICE void sum_blocks(const TopK& p) {
  SHARED(u32, above_totals, THREADS / 32);
  SHARED(u32, tie_totals, THREADS / 32);
  const u32 blocks = static_cast<u32>((p.len + WORD_TILE - 1) / WORD_TILE);
  const u32 share = (blocks + THREADS - 1) / THREADS;
  const u32 begin = smaller(thread_index() * share, blocks), end = smaller(begin + share, blocks);
  u32 above = 0, ties = 0, total;
  UNROLL(8)
  for (u32 block = begin; block < end; ++block) {
    const u32 both = p.counts[block];
    above += both & 0xffffu;
    ties += both >> 16;
  }
  above = sum_before(above, above_totals, total);
  ties = sum_before(ties, tie_totals, total);
  UNROLL(8)
  for (u32 block = begin; block < end; ++block) {
    const u32 both = p.counts[block];
    p.before[2 * block] = above;
    p.before[2 * block + 1] = ties;
    above += both & 0xffffu;
    ties += both >> 16;
  }
}

KERNEL(top_count, TopK, THREADS) {
  SHARED(u32, totals, THREADS / 32);
  TopWork* work = p.work;
  const u32 last = work->prefix;
  u32 marks[PACKS], magnitudes[PACKS][PACK], bytes[PACKS];
  load_marked(p, marks, magnitudes);
  UNROLL(8)
  for (u32 j = 0; j < PACKS; ++j) {
    u32 above = 0, ties = 0;
    for (u32 e = 0; e < PACK; ++e) {
      above |= static_cast<u32>(magnitudes[j][e] > last) << e;
      ties |= static_cast<u32>(magnitudes[j][e] == last) << e;
    }
    bytes[j] = (above & marks[j]) | (ties & marks[j]) << PACK;
  }
  // Behind its barrier this block's marks have been read, and may be written.
  const Words2 eight = exchange_bytes(bytes);
  const u32 there = present(p.len);
  const u32 above = low_nibbles(eight) & there;
  const u32 ties = low_nibbles(words_of(word_of(eight, 0) >> PACK, word_of(eight, 1) >> PACK)) & there;
  block_words<u32>(p.marks)[thread_index()] = above;
  block_words<u32>(p.ties)[thread_index()] = ties;
  u32 total;
  sum_before(bit_count(above) | bit_count(ties) << 16, totals, total);
  if (thread_index() == 0) p.counts[block_index()] = total;
  if (is_last(&work->arrivals, p.len)) sum_blocks(p);
}

// Reads the wanted elements and writes 8 bytes for each.
KERNEL(top_emit, TopK, THREADS) {
  SHARED(u32, above_words, THREADS);
  SHARED(u32, tie_words, THREADS);
  SHARED(u32, word_before, THREADS);
  SHARED(u32, totals, THREADS / 32);
  const u32 thread = thread_index();
  const u32 own_above = block_words<u32>(p.marks)[thread], own_ties = block_words<u32>(p.ties)[thread];
  above_words[thread] = own_above;
  tie_words[thread] = own_ties;
  u32 total;
  word_before[thread] = sum_before(bit_count(own_above) | bit_count(own_ties) << 16, totals, total);
  block_barrier();
  if (total == 0) return;
  const TopWork* work = p.work;
  const u32 ties_wanted = work->wanted;
  const u32 above_before = p.before[2 * block_index()], ties_before = p.before[2 * block_index() + 1];
  const u32 shift = thread % PACKS * PACK;
  u32 bits[PACKS];
  UNROLL(8)
  for (u32 j = 0; j < PACKS; ++j) {
    const u32 at = (j * THREADS + thread) / PACKS;
    bits[j] = (above_words[at] | tie_words[at]) >> shift & ((1u << PACK) - 1);
  }
  float x[PACKS][PACK];
  load_some(p, bits, x);
  UNROLL(8)
  for (u32 j = 0; j < PACKS; ++j) {
    if (bits[j] == 0) continue;
    const u32 at = (j * THREADS + thread) / PACKS;
    const u32 above = above_words[at], ties = tie_words[at], below = (1u << shift) - 1;
    u32 above_rank = above_before + (word_before[at] & 0xffffu) + bit_count(above & below);
    u32 tie_rank = ties_before + (word_before[at] >> 16) + bit_count(ties & below);
    for (u32 e = 0; e < PACK; ++e) {
      const bool is_above = (above >> (shift + e) & 1) != 0, is_tie = (ties >> (shift + e) & 1) != 0;
      if (is_above || (is_tie && tie_rank < ties_wanted)) {
        const u32 place = above_rank + smaller(tie_rank, ties_wanted);
        p.indices[place] = static_cast<u32>(pack_first(j)) + e;
        p.values[place] = x[j][e];
      }
      above_rank += is_above;
      tie_rank += is_tie;
    }
  }
}

} // namespace sparse
