// Fixed-point slots and the 64-bit master state: the integers that the mesh agrees on.
//
// The definition is `plesio_kernels::slot`, and `plesio_kernels::outer` of the momentum. Only integers meet in the
// master, so neither the order of the sum nor the machine shows. Memory bounds all of it: doubles, which small GPUs
// have few units for, are left to elements out of the ordinary.
#pragma once

#include "elements.h"
#include "params.h"

// Slots hold -2^30 to 2^30 - 1.
constexpr i32 SLOT_MIN = -(1 << 30);
constexpr i32 SLOT_MAX = (1 << 30) - 1;

// 2^n for -126..=127.
DEVICE float power_of_two(i32 n) { return bits_float(static_cast<u32>(n + 127) << 23); }

// The weighted sum of all contributions over a pack.
template <bool WHOLE, class Params> DEVICE void sum_slots(const Params& p, u64 first, i64 (&sums)[PACK]) {
  for (u32 e = 0; e < PACK; ++e) sums[e] = 0;
  UNROLL(WHOLE ? 4 : 1)
  for (u32 slot = 0; slot < p.count; ++slot) {
    // Weights are below 2^31 and slots are 32 bits: one widening multiply each.
    const i64 weight = static_cast<i32>(p.weights[slot]);
    i32 q[PACK];
    load_part<WHOLE>(p.slots[slot], first, p.len, q);
    for (u32 e = 0; e < PACK; ++e) sums[e] += weight * q[e];
  }
}

// The sum, held at the limit that it would pass; whether it was.
DEVICE i64 add_saturating(i64 one, i64 other, bool& lost) {
  const i64 wrapped = static_cast<i64>(static_cast<u64>(one) + static_cast<u64>(other));
  // Negative where both terms have the sign that the result lacks.
  if (((one ^ wrapped) & (other ^ wrapped)) >= 0) return wrapped;
  lost = true;
  return (one >> 63) ^ 0x7fffffffffffffffll;
}

// A pack of sums into the master; the first that is held is reported.
DEVICE void add_sums(i64 (&master)[PACK], const i64 (&sums)[PACK], u64 first, Report* overflow) {
  bool lost[PACK] = {};
  for (u32 e = 0; e < PACK; ++e) master[e] = add_saturating(master[e], sums[e], lost[e]);
  report_first(overflow, first, lost);
}

KERNEL(slot_sum, SlotSum, THREADS) {
  each_pack(p.len, p.aligned, [&](u64 first, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    i64 sums[PACK];
    sum_slots<WHOLE>(p, first, sums);
    store_part<WHOLE>(p.sum, first, p.len, sums);
  });
}

KERNEL(commit, Commit, THREADS) {
  each_pack(p.len, p.aligned, [&](u64 first, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    i64 sums[PACK], master[PACK];
    load_part<WHOLE>(p.master, first, p.len, master);
    sum_slots<WHOLE>(p, first, sums);
    add_sums(master, sums, first, p.overflow);
    store_part<WHOLE>(p.master, first, p.len, master);
  });
}

KERNEL(apply, Apply, THREADS) {
  each_pack(p.len, p.aligned, [&](u64 first, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    i64 sums[PACK], master[PACK];
    load_part<WHOLE>(p.master, first, p.len, master);
    load_part<WHOLE>(p.sum, first, p.len, sums);
    add_sums(master, sums, first, p.overflow);
    store_part<WHOLE>(p.master, first, p.len, master);
  });
}

// `value factor >> 16` for a factor of at most 2^16: floor, exactly, and never outside 64 bits.
DEVICE i64 scaled(i64 value, u32 factor) {
  // Both parts of the value round down together.
  return (value >> 16) * factor + ((value & 0xffff) * factor >> 16);
}

// `master + (((sum + carried) step_factor) >> 16)`, held at the limit that it would pass.
//
// The step has up to 65 bits and the result 66, so numbers go by 2^16 high + low with low below 2^16; nothing leaves
// 64 bits, as the high parts of 64-bit numbers have 48.
DEVICE i64 add_step(i64 master, i64 sum, i64 carried, u32 step_factor, bool& lost) {
  const i64 low = (sum & 0xffff) + (carried & 0xffff);
  const i64 high = (sum >> 16) + (carried >> 16) + (low >> 16);
  // high factor + (low factor >> 16), of which the first product is split once more.
  const i64 below = (master & 0xffff) + (high & 0xffff) * step_factor + ((low & 0xffff) * step_factor >> 16);
  const i64 above = (master >> 16) + (high >> 16) * step_factor + (below >> 16);
  const i64 wrapped = static_cast<i64>(static_cast<u64>(above) << 16 | static_cast<u64>(below & 0xffff));
  if (wrapped >> 16 == above) return wrapped;
  lost = true;
  return (above >> 63) ^ 0x7fffffffffffffffll;
}

KERNEL(apply_nesterov, ApplyNesterov, THREADS) {
  each_pack(p.len, p.aligned, [&](u64 first, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    i64 master[PACK], momentum[PACK], sum[PACK];
    load_part<WHOLE>(p.master, first, p.len, master);
    load_part<WHOLE>(p.momentum, first, p.len, momentum);
    load_part<WHOLE>(p.sum, first, p.len, sum);
    bool lost[PACK] = {};
    UNROLL(4)
    for (u32 e = 0; e < PACK; ++e) {
      momentum[e] = add_saturating(scaled(momentum[e], p.momentum_factor), sum[e], lost[e]);
      // (S 65536 + V mu) >> 16 is S + (V mu >> 16).
      const i64 carried = scaled(momentum[e], p.momentum_factor);
      master[e] = add_step(master[e], sum[e], carried, p.step_factor, lost[e]);
    }
    report_first(p.overflow, first, lost);
    store_part<WHOLE>(p.momentum, first, p.len, momentum);
    store_part<WHOLE>(p.master, first, p.len, master);
  });
}

// Quantises a real value that the slot can hold, and leaves the rest; else false.
DEVICE bool quantise_value(float& value, i32 exponent, i32& q) {
  // A float times a power of two is exact, or so small that it rounds to nothing, or infinite.
  const float wanted = value * power_of_two(exponent);
  constexpr float END = -static_cast<float>(SLOT_MIN);
  const bool fits = wanted >= -END && wanted < END;
  q = nearest(fits ? wanted : 0.0f);
  // The rest is a float: a multiple of the value's last bit, and not larger than the value.
  value = fused(-static_cast<float>(q), power_of_two(-exponent), value);
  return fits;
}

// One that the slot cannot hold.
DEVICE i32 clamp_value(float& value, i32 exponent) {
  const i32 q = value < 0.0f ? SLOT_MIN : SLOT_MAX;
  // Rounded twice, as the definition does.
  const double held = static_cast<double>(q) * static_cast<double>(power_of_two(-exponent));
  value = static_cast<float>(static_cast<double>(value) - held);
  return q;
}

template <bool UPDATE> DEVICE void quantise_all(const Quantise& p) {
  each_pack(p.len, p.aligned, [&](u64 first, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    float values[PACK];
    load_part<WHOLE>(p.residue, first, p.len, values);
    if constexpr (UPDATE) {
      float update[PACK];
      load_part<WHOLE>(p.update, first, p.len, update);
      for (u32 e = 0; e < PACK; ++e) values[e] += update[e];
    }
    bool not_finite[PACK];
    for (u32 e = 0; e < PACK; ++e) not_finite[e] = !is_finite(values[e]);
    report_first(p.not_finite, first, not_finite);
    bool clamped[PACK];
    u32 count = 0;
    i32 slot[PACK];
    for (u32 e = 0; e < PACK; ++e) {
      clamped[e] = !quantise_value(values[e], p.exponent, slot[e]);
      count += clamped[e];
    }
    if (count > 0) {
      for (u32 e = 0; e < PACK; ++e)
        if (clamped[e]) slot[e] = clamp_value(values[e], p.exponent);
      atomic_add(p.clamped, static_cast<u64>(count));
    }
    store_part<WHOLE>(p.slot, first, p.len, slot);
    store_part<WHOLE>(p.residue, first, p.len, values);
  });
}

KERNEL(quantise, Quantise, THREADS) { quantise_all<true>(p); }

KERNEL(quantise_residue, Quantise, THREADS) { quantise_all<false>(p); }

KERNEL(dequantise, Dequantise, THREADS) {
  each_pack(p.len, p.aligned, [&](u64 first, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    i32 slot[PACK];
    float out[PACK];
    load_part<WHOLE>(p.slot, first, p.len, slot);
    // Rounded once, by the conversion.
    for (u32 e = 0; e < PACK; ++e) out[e] = static_cast<float>(slot[e]) * power_of_two(-p.exponent);
    store_part<WHOLE>(p.out, first, p.len, out);
  });
}

KERNEL(to_float, ToFloat, THREADS) {
  each_pack(p.len, p.aligned, [&](u64 first, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    constexpr i64 EXACT = 1ll << 53; // integers up to here are doubles
    i64 master[PACK];
    float out[PACK];
    load_part<WHOLE>(p.master, first, p.len, master);
    bool exact = true;
    for (u32 e = 0; e < PACK; ++e) exact &= master[e] >= -EXACT && master[e] <= EXACT;
    // The definition rounds to a double and then to a float; to this, where the first changes nothing.
    for (u32 e = 0; e < PACK; ++e) out[e] = static_cast<float>(master[e]);
    if (!exact)
      for (u32 e = 0; e < PACK; ++e) out[e] = static_cast<float>(static_cast<double>(master[e]));
    for (u32 e = 0; e < PACK; ++e) out[e] *= power_of_two(-p.exponent);
    store_part<WHOLE>(p.out, first, p.len, out);
  });
}

KERNEL(merge, Merge, THREADS) {
  each_pack(p.len, p.aligned, [&](u64 first, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    i32 into[PACK], from[PACK];
    float residue[PACK];
    load_part<WHOLE>(p.into, first, p.len, into);
    load_part<WHOLE>(p.from, first, p.len, from);
    load_part<WHOLE>(p.residue, first, p.len, residue);
    u32 count = 0;
    for (u32 e = 0; e < PACK; ++e) {
      const i64 sum = static_cast<i64>(into[e]) + from[e];
      const i64 held = larger<i64>(smaller<i64>(sum, SLOT_MAX), SLOT_MIN);
      into[e] = static_cast<i32>(held);
      if (sum != held) {
        residue[e] += static_cast<float>(sum - held) * power_of_two(-p.exponent);
        ++count;
      }
    }
    if (count > 0) atomic_add(p.excess, static_cast<u64>(count));
    store_part<WHOLE>(p.into, first, p.len, into);
    store_part<WHOLE>(p.residue, first, p.len, residue);
  });
}
