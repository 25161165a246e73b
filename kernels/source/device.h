// The dialect: what a kernel may ask of the machine that runs it, on four compilers.
//
//   clang for NVPTX, nvcc      one thread of a CUDA block
//   clang for AMDGCN           one work-item of a HIP block
//   any C++17 compiler         one fiber of the emulator (emulator/machine.h)
//
// A kernel is KERNEL(name, Params, threads) { ... } and sees one plain struct `p`. Blocks are one-dimensional and of
// a size that the kernel fixes. Everything float here is rounded once, keeps subnormals and is never contracted: the
// build says -ffp-contract=off, and a fused multiply-add is written as such. `nearest` is the nearest integer, of two
// the even one, of a float of magnitude below 2^31. `global` says that a place that a kernel finds in memory is not in
// shared memory, which compilers cannot know. `prefetch` asks for a line of memory that is needed later, where a device
// can be asked. What one block writes before a `device_fence` and an atomic word, another reads behind the same word and
// a `device_fence`.
#pragma once

using u8 = unsigned char;
using i8 = signed char;
using u16 = unsigned short;
using i32 = int;
using u32 = unsigned;
using i64 = long long;
using u64 = unsigned long long;

static_assert(sizeof(u16) == 2 && sizeof(u32) == 4 && sizeof(u64) == 8, "the structs of params.h rest on these");

// Blocks of a size that a multiprocessor holds of any kernel, at least: registers are shared out for 512 threads.
constexpr u32 resident_blocks(u32 threads) { return threads < 512 ? 512 / threads : 1; }

#if defined(__CUDACC__) && !defined(__clang__) // nvcc

#define DEVICE static __device__ __forceinline__
#define KERNEL(name, Params, threads) \
  extern "C" __global__ void __launch_bounds__(threads, resident_blocks(threads)) plesio_##name(const Params p)
#define SHARED(type, name, count) __shared__ type name[count]
#define UNROLL(times) _Pragma(UNROLL_TEXT(unroll times))
#define UNROLL_TEXT(text) #text

using Words1 = u32;
using Words2 = uint2;
using Words4 = uint4;
DEVICE u32 word_of(const Words2& words, u32 at) { return at == 0 ? words.x : words.y; }
DEVICE u32 word_of(const Words4& words, u32 at) {
  return at == 0 ? words.x : at == 1 ? words.y : at == 2 ? words.z : words.w;
}
DEVICE Words2 words_of(u32 a, u32 b) { return make_uint2(a, b); }
DEVICE Words4 words_of(u32 a, u32 b, u32 c, u32 d) { return make_uint4(a, b, c, d); }
DEVICE u32 thread_index() { return threadIdx.x; }
DEVICE u32 block_index() { return blockIdx.x; }
DEVICE void block_barrier() { __syncthreads(); }
DEVICE u32 shuffle_xor_bits(u32 value, u32 mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE float root(float x) { return __fsqrt_rn(x); }
DEVICE i32 nearest(float x) { return __float2int_rn(x); }
DEVICE u32 float_bits(float x) { return __float_as_uint(x); }
DEVICE float bits_float(u32 x) { return __uint_as_float(x); }
DEVICE u64 double_bits(double x) { return static_cast<u64>(__double_as_longlong(x)); }
DEVICE double bits_double(u64 x) { return __longlong_as_double(static_cast<i64>(x)); }
DEVICE u32 atomic_add(u32* at, u32 value) { return atomicAdd(at, value); }
DEVICE u64 atomic_add(u64* at, u64 value) { return atomicAdd(at, value); }
DEVICE u64 atomic_min(u64* at, u64 value) { return atomicMin(at, value); }
DEVICE u32 bit_count(u32 x) { return static_cast<u32>(__popc(x)); }
DEVICE u32 leading_zeros(u32 x) { return static_cast<u32>(__clz(static_cast<i32>(x))); }
template <class T> DEVICE T* global(T* place) {
  __builtin_assume(__isGlobal(place));
  return place;
}
DEVICE void prefetch(const void* place) { asm volatile("prefetch.L2 [%0];" : : "l"(place)); }
DEVICE void device_fence() { __threadfence(); }

#elif defined(__NVPTX__) || defined(__AMDGCN__) // clang, no SDK

#define DEVICE static __attribute__((device, always_inline)) inline
#if defined(__AMDGCN__)
// Without a word on the size of blocks registers would be shared out for 1,024 threads.
#define BLOCK_OF(threads) __attribute__((amdgpu_flat_work_group_size(threads, threads)))
#else
#define BLOCK_OF(threads) __attribute__((launch_bounds(threads, resident_blocks(threads))))
#endif
#define KERNEL(name, Params, threads) \
  extern "C" __attribute__((global)) BLOCK_OF(threads) void plesio_##name(const Params p)
#define SHARED(type, name, count) static __attribute__((shared)) type name[count]
#define UNROLL(times) _Pragma(UNROLL_TEXT(unroll times))
#define UNROLL_TEXT(text) #text

#if defined(__NVPTX__)
DEVICE u32 thread_index() { return static_cast<u32>(__nvvm_read_ptx_sreg_tid_x()); }
DEVICE u32 block_index() { return static_cast<u32>(__nvvm_read_ptx_sreg_ctaid_x()); }
DEVICE void block_barrier() { __syncthreads(); }
DEVICE u32 shuffle_xor_bits(u32 value, u32 mask) {
  return static_cast<u32>(__nvvm_shfl_sync_bfly_i32(0xffffffffu, static_cast<i32>(value), static_cast<i32>(mask), 0x1f));
}
DEVICE float root(float x) { return __nvvm_sqrt_rn_f(x); }
DEVICE i32 nearest(float x) { return __nvvm_f2i_rn(x); }
DEVICE void prefetch(const void* place) { asm volatile("prefetch.L2 [%0];" : : "l"(place)); }
DEVICE void device_fence() { __nvvm_membar_gl(); }
#else
DEVICE u32 thread_index() { return __builtin_amdgcn_workitem_id_x(); }
DEVICE u32 block_index() { return __builtin_amdgcn_workgroup_id_x(); }
DEVICE void block_barrier() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
DEVICE u32 shuffle_xor_bits(u32 value, u32 mask) {
  // The lane's number by counting those before it: valid for waves of 32 and of 64.
  const u32 lane = __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0u));
  return static_cast<u32>(__builtin_amdgcn_ds_bpermute(static_cast<i32>((lane ^ mask) << 2), static_cast<i32>(value)));
}
DEVICE float root(float x) { return __builtin_sqrtf(x); }
DEVICE i32 nearest(float x) { return static_cast<i32>(__builtin_rintf(x)); }
DEVICE void prefetch(const void*) {}
DEVICE void device_fence() { __builtin_amdgcn_fence(__ATOMIC_ACQ_REL, "agent"); }
#endif

DEVICE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE u32 float_bits(float x) { return __builtin_bit_cast(u32, x); }
DEVICE float bits_float(u32 x) { return __builtin_bit_cast(float, x); }
DEVICE u64 double_bits(double x) { return __builtin_bit_cast(u64, x); }
DEVICE double bits_double(u64 x) { return __builtin_bit_cast(double, x); }
DEVICE u32 atomic_add(u32* at, u32 value) {
  return __scoped_atomic_fetch_add(at, value, __ATOMIC_RELAXED, __MEMORY_SCOPE_DEVICE);
}
DEVICE u64 atomic_add(u64* at, u64 value) {
  return __scoped_atomic_fetch_add(at, value, __ATOMIC_RELAXED, __MEMORY_SCOPE_DEVICE);
}
DEVICE u64 atomic_min(u64* at, u64 value) {
  return __scoped_atomic_fetch_min(at, value, __ATOMIC_RELAXED, __MEMORY_SCOPE_DEVICE);
}
DEVICE u32 bit_count(u32 x) { return static_cast<u32>(__builtin_popcount(x)); }
DEVICE u32 leading_zeros(u32 x) { return x == 0 ? 32 : static_cast<u32>(__builtin_clz(x)); }
template <class T> DEVICE T* global(T* place) {
  // By way of a number: casts between address spaces there and back are taken away as a pair.
  return (T*)(__attribute__((address_space(1))) T*)reinterpret_cast<u64>(place);
}

#else // the emulator

#include "emulator/machine.h"

#define DEVICE static inline
#define KERNEL(name, Params, threads)                                                           \
  static void plesio_##name(const Params& p);                                                   \
  static const emulator::Twin plesio_##name##_twin(                                             \
      "plesio_" #name, #Params, threads, sizeof(Params),                                        \
      [](const void* params) { plesio_##name(*static_cast<const Params*>(params)); });          \
  static void plesio_##name(const Params& p)
#define SHARED(type, name, count)                                                                             \
  static const char name##_place = 0;                                                                         \
  type(&name)[count] = *static_cast<type(*)[count]>(emulator::shared_memory(&name##_place, sizeof(type[count])))
#define UNROLL(times)

#define block_barrier() emulator::block_barrier(__LINE__)
#define shuffle_xor_bits(value, mask) emulator::shuffle_xor(value, mask, __LINE__)
DEVICE u32 thread_index() { return emulator::thread_index(); }
DEVICE u32 block_index() { return emulator::block_index(); }
template <class T> DEVICE T* global(T* place) { return place; }
DEVICE void prefetch(const void*) {}
// ThreadSanitizer knows of no fences, but sees what goes through a word.
DEVICE void device_fence() {
  static u32 passed = 0;
  __atomic_fetch_add(&passed, 1, __ATOMIC_ACQ_REL);
}
DEVICE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE float root(float x) { return __builtin_sqrtf(x); }
DEVICE i32 nearest(float x) { return static_cast<i32>(__builtin_rintf(x)); }
template <class To, class From> DEVICE To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}
DEVICE u32 float_bits(float x) { return bits_of<u32>(x); }
DEVICE float bits_float(u32 x) { return bits_of<float>(x); }
DEVICE u64 double_bits(double x) { return bits_of<u64>(x); }
DEVICE double bits_double(u64 x) { return bits_of<double>(x); }
DEVICE u32 atomic_add(u32* at, u32 value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }
DEVICE u64 atomic_add(u64* at, u64 value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }
DEVICE u64 atomic_min(u64* at, u64 value) {
  u64 seen = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (value < seen && !__atomic_compare_exchange_n(at, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return seen;
}
DEVICE u32 bit_count(u32 x) { return static_cast<u32>(__builtin_popcount(x)); }
DEVICE u32 leading_zeros(u32 x) { return x == 0 ? 32 : static_cast<u32>(__builtin_clz(x)); }

#endif

// The value of the thread whose number in the warp differs in the bits of `mask`, which is below 32: a warp is 32 or
// 64 threads, and all of them must arrive.
DEVICE float shuffle_xor(float value, u32 mask) { return bits_float(shuffle_xor_bits(float_bits(value), mask)); }
DEVICE double shuffle_xor(double value, u32 mask) {
  const u64 bits = double_bits(value);
  const u64 low = shuffle_xor_bits(static_cast<u32>(bits), mask);
  const u64 high = shuffle_xor_bits(static_cast<u32>(bits >> 32), mask);
  return bits_double(high << 32 | low);
}

#if !defined(__CUDACC__) || defined(__clang__)
// Words that are moved together.
using Words1 = u32 __attribute__((may_alias));
using Words2 = u32 __attribute__((vector_size(8), may_alias));
using Words4 = u32 __attribute__((vector_size(16), may_alias));
template <class Words> DEVICE u32 word_of(const Words& words, u32 at) { return words[at]; }
DEVICE Words2 words_of(u32 a, u32 b) { return Words2{a, b}; }
DEVICE Words4 words_of(u32 a, u32 b, u32 c, u32 d) { return Words4{a, b, c, d}; }
#endif

// Stores what is aligned to its size, up to 16 bytes, by accesses of that size. nvcc takes them apart where it is not
// told by types of its own.
#if defined(__CUDACC__) && !defined(__clang__)
template <u32 BYTES> struct Line;
template <> struct Line<2> { using type = u16; };
template <> struct Line<4> { using type = u32; };
template <> struct Line<8> { using type = uint2; };
template <> struct Line<16> { using type = uint4; };
template <class T> DEVICE void store_together(T* to, const T& from) {
  using By = typename Line<(sizeof(T) < 16 ? sizeof(T) : 16)>::type;
  for (u32 line = 0; line < sizeof(T) / sizeof(By); ++line)
    __stwb(reinterpret_cast<By*>(to) + line, reinterpret_cast<const By*>(&from)[line]);
}
#else
template <class T> DEVICE void store_together(T* to, const T& from) { *to = from; }
#endif

// A pointer among parameters, which leads to the device's own memory: the compiler for AMD has to be told, or each
// access asks which memory it is.
#if defined(__AMDGCN__)
template <class T> struct Global {
  __attribute__((address_space(1))) T* place;
  __attribute__((device, always_inline)) operator T*() const { return (T*)place; }
};
#else
template <class T> using Global = T*;
#endif

DEVICE bool is_finite(float x) { return (float_bits(x) & 0x7fffffffu) < 0x7f800000u; }
template <class T> DEVICE T smaller(T a, T b) { return b < a ? b : a; }
template <class T> DEVICE T larger(T a, T b) { return b > a ? b : a; }

// Threads of a block, where a kernel has no reason for another size.
constexpr u32 THREADS = 256;
