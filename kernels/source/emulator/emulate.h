// Running kernels without a GPU: the interface of the emulator.
#pragma once

extern "C" {

// Runs a kernel: `blocks` times `threads` threads in warps of `warp_threads`, one struct of parameters. 0 when it ran; else
// `message` says what is wrong: an unknown kernel, another size of block or struct, a barrier or shuffle that not all threads reach, shared
// memory written beyond its end.
int plesio_emulate(const char* kernel, unsigned blocks, unsigned threads, const void* params, unsigned params_bytes,
                   unsigned warp_threads, char* message, unsigned message_bytes);

// The order of threads and blocks from here on: "forward", "reverse" or "random:SEED". False for anything else.
bool plesio_emulated_order(const char* order);

// The names of all kernels, one after the other; null behind the last.
const char* plesio_emulated_kernel(unsigned index);
// The name of the struct that such a kernel takes.
const char* plesio_emulated_params(unsigned index);
}
