// Kernels with one fault each: the emulator has to find all of them. They are in no artefact.
#pragma once

#include "../device.h"

struct Planted {
  const float* in;
  float* out;
  u64 len;
};

// Reverses each block of 256; the barrier between writing and reading is not there.
KERNEL(planted_missing_barrier, Planted, THREADS) {
  SHARED(float, all, THREADS);
  const u32 thread = thread_index();
  all[thread] = p.in[block_index() * THREADS + thread];
  p.out[block_index() * THREADS + thread] = all[THREADS - 1 - thread];
}

// Shifts by one, and writes beyond the end.
KERNEL(planted_off_by_one, Planted, THREADS) {
  const u64 e = static_cast<u64>(block_index()) * THREADS + thread_index();
  if (e < p.len) p.out[e + 1] = p.in[e];
}

// Adds up shared memory of which the last element was never written.
KERNEL(planted_uninitialised_read, Planted, THREADS) {
  SHARED(float, all, THREADS);
  const u32 thread = thread_index();
  if (thread + 1 < THREADS) all[thread] = p.in[thread];
  block_barrier();
  if (thread == 0) {
    float sum = 0.0f;
    for (u32 e = 0; e < THREADS; ++e) sum += all[e];
    p.out[block_index()] = sum;
  }
}

// Half of the block waits for the other half, which has ended.
KERNEL(planted_divergent_barrier, Planted, THREADS) {
  if (thread_index() < THREADS / 2) block_barrier();
  p.out[block_index() * THREADS + thread_index()] = 0.0f;
}

// One lane does not take part in its warp's shuffle.
KERNEL(planted_divergent_shuffle, Planted, THREADS) {
  float value = static_cast<float>(thread_index());
  if (thread_index() != 5) value = shuffle_xor(value, 1);
  p.out[block_index() * THREADS + thread_index()] = value;
}

// Writes beyond the end of its shared memory.
KERNEL(planted_shared_overrun, Planted, THREADS) {
  SHARED(float, all, THREADS);
  all[thread_index() + 1] = 1.0f;
  block_barrier();
  p.out[thread_index()] = all[thread_index()];
}
