// What each kernel is given: one plain struct, the same bytes for cuLaunchKernel, hipModuleLaunchKernel and the
// emulator.
//
// `plesio-launch` has the Rust twin of each; a test compares sizes and offsets. Lengths are in elements. Fields are
// ordered so that no compiler puts anything between them, and sizes are multiples of eight. `aligned` is 1 where
// every buffer begins at a multiple of 16 bytes.
#pragma once

#include "device.h"

// Most contributions that one kernel takes together.
constexpr u32 CONTRIBUTIONS_MAX = 32;

// A word that kernels report to: the first element that something is wrong with, or NOTHING. Set to NOTHING before.
using Report = u64;
constexpr Report NOTHING = ~0ull;

// sum[e] = w_0 q_0[e] + w_1 q_1[e] + ...
struct SlotSum {
  Global<const i32> slots[CONTRIBUTIONS_MAX];
  u32 weights[CONTRIBUTIONS_MAX];
  Global<i64> sum;
  u64 len;
  u32 count;
  u32 aligned;
};

// master[e] += w_0 q_0[e] + w_1 q_1[e] + ..., saturating; the first element that does is reported.
struct Commit {
  Global<const i32> slots[CONTRIBUTIONS_MAX];
  u32 weights[CONTRIBUTIONS_MAX];
  Global<i64> master;
  Global<Report> overflow;
  u64 len;
  u32 count;
  u32 aligned;
};

// master[e] += sum[e], saturating; the first element that does is reported.
struct Apply {
  Global<i64> master;
  Global<const i64> sum;
  Global<Report> overflow;
  u64 len;
  u32 aligned;
  u32 pad;
};

// One version's sum through the momentum into the master, both saturating; the first element that does is reported.
// The factors are in units of 2^-16, `momentum_factor` below one and `step_factor` at most one.
struct ApplyNesterov {
  Global<i64> master;
  Global<i64> momentum;
  Global<const i64> sum;
  Global<Report> overflow;
  u64 len;
  u32 momentum_factor;
  u32 step_factor;
  u32 aligned;
  u32 pad;
};

// slot[e] = (update[e] + residue[e]) 2^exponent, rounded half to even and held in the slot's range; the residue keeps
// the rest. The first element that is not finite is reported, and then nothing that was written counts.
struct Quantise {
  Global<const float> update; // none for `quantise_residue`
  Global<float> residue;
  Global<i32> slot;
  Global<Report> not_finite;
  Global<u64> clamped; // elements that left the range are added
  u64 len;
  i32 exponent;
  u32 aligned;
};

// out[e] = slot[e] 2^-exponent.
struct Dequantise {
  Global<const i32> slot;
  Global<float> out;
  u64 len;
  i32 exponent;
  u32 aligned;
};

// out[e] = master[e] 2^-exponent.
struct ToFloat {
  Global<const i64> master;
  Global<float> out;
  u64 len;
  i32 exponent;
  u32 aligned;
};

// into[e] += from[e]; what leaves the slot's range is added to the residue, times 2^-exponent.
struct Merge {
  Global<i32> into;
  Global<const i32> from;
  Global<float> residue;
  Global<u64> excess; // elements of which something left are added
  u64 len;
  i32 exponent;
  u32 aligned;
};

// codes = what `input + residue` is in a codec; the residue keeps what the receiver will not see. An element of a
// block that will not decode to finite values is reported.
struct Encode {
  Global<const float> input;
  Global<float> residue; // none where what is left is dropped
  Global<u32> codes;
  Global<Report> not_finite;
  u64 len;
  u64 seed;
  u64 first_block; // the range's first block in its tensor
  u32 aligned;
  u32 pad;
};

// out = what codes say, or += that.
struct Decode {
  Global<const u32> codes;
  Global<float> out;
  u64 len;
  u32 aligned;
  u32 pad;
};

// codes = what a slot is in a codec.
struct EncodeSlot {
  Global<const i32> slot;
  Global<u32> codes;
  u64 len;
  u64 seed;
  u64 first_block;
  u32 aligned;
  u32 pad;
};

// slot = what codes say.
struct DecodeSlot {
  Global<const u32> codes;
  Global<i32> slot;
  u64 len;
  u32 aligned;
  u32 pad;
};

// sum[e] = w_0 q_0[e] + w_1 q_1[e] + ... of encoded slots.
struct CodedSum {
  Global<const u32> slots[CONTRIBUTIONS_MAX];
  u32 weights[CONTRIBUTIONS_MAX];
  Global<i64> sum;
  u64 len;
  u32 count;
  u32 aligned;
};
