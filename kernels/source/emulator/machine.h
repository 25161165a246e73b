// What a kernel sees of the emulator: it takes the place of a GPU's index registers, barriers, shuffles and shared memory.
//
// Each device thread is a fiber, or in the build for ThreadSanitizer an OS thread (-DEMULATOR_THREADS). Barrier and shuffle
// are true ones: nobody passes before all have arrived, and where not all can arrive at the same one the run ends with a
// message. Shared memory is full of NaN when a block begins.
#pragma once

#include <cstddef>

namespace emulator {

unsigned thread_index();
unsigned block_index();
void block_barrier(int line);
unsigned shuffle_xor(unsigned value, unsigned mask, int line);
// Memory of the block, the same for all its threads that name the same place.
void* shared_memory(const void* place, std::size_t bytes);

// A kernel, known by its name from the program's start on.
struct Twin {
  using Body = void (*)(const void* params);

  Twin(const char* name, const char* params, unsigned threads, std::size_t params_bytes, Body body);

  const char* name;
  const char* params; // the struct's name
  unsigned threads;
  std::size_t params_bytes;
  Body body;
  const Twin* next;
};

} // namespace emulator
