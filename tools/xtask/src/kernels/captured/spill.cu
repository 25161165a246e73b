// What the captured reports beside this file are of: one kernel within every gate, and two that break them.
#if defined(__AMDGCN__)
#define KERNEL extern "C" __attribute__((global, amdgpu_flat_work_group_size(1024, 1024))) void
#define THREAD __builtin_amdgcn_workitem_id_x()
#define BARRIER __builtin_amdgcn_s_barrier()
#elif defined(__clang__)
#define KERNEL extern "C" __attribute__((global, launch_bounds(1024))) void
#define THREAD __nvvm_read_ptx_sreg_tid_x()
#define BARRIER __syncthreads()
#else
#define KERNEL extern "C" __global__ void __launch_bounds__(1024)
#define THREAD threadIdx.x
#define BARRIER __syncthreads()
#endif

KERNEL clean(const unsigned* x, unsigned* out, unsigned) { out[THREAD] = x[THREAD] * 3u; }

// More values alive at once than 1024 threads have registers for: all are loaded before one is stored.
KERNEL spills(const unsigned* x, unsigned* out, unsigned) {
  unsigned value[160];
#pragma unroll
  for (unsigned i = 0; i < 160; i += 1) value[i] = x[i * 1024 + THREAD];
  BARRIER;
#pragma unroll
  for (unsigned i = 0; i < 160; i += 1) out[(i * 7 % 160) * 1024 + THREAD] = value[i] * value[(i + 80) % 160];
}

// Indexed by what is known only at run time: no register can be.
KERNEL stacked(const unsigned* x, unsigned* out, unsigned which) {
  unsigned value[64];
  for (unsigned i = 0; i < 64; i += 1) value[i] = x[i * 1024 + THREAD];
  for (unsigned i = 0; i < 64; i += 1) value[(value[i] + which) % 64] += i;
  out[THREAD] = value[which % 64];
}
