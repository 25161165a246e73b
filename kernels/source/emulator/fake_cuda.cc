// libcuda.so.1, pretended: the driver's functions that plesio-cuda opens, under their names in the library. See
// fake.h.
#include "fake.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

using namespace fake;

const Vendor fake::vendor = {"CUDA", "sm_90", 13000};

namespace {

enum Attribute {
  WarpSize = 10,
  MultiprocessorCount = 16,
  Integrated = 18,
  CapabilityMajor = 75,
  CapabilityMinor = 76,
};

enum JitOption { ErrorLogBuffer = 5, ErrorLogBufferBytes = 6 };

std::atomic<bool> initialised{false};

} // namespace

FAKE int cuInit(unsigned flags) {
  if (flags != 0) return InvalidValue;
  const Code code = initialise();
  if (code == Success) initialised = true;
  return code;
}

FAKE int cuDriverGetVersion(int* version) {
  *version = settings().version;
  return Success;
}

FAKE int cuDeviceGetCount(int* count) {
  if (!initialised) return NotInitialised;
  *count = settings().devices;
  return Success;
}

FAKE int cuDeviceGet(int* found, int ordinal) {
  if (!initialised) return NotInitialised;
  if (device(ordinal) == nullptr) return InvalidDevice;
  *found = ordinal;
  return Success;
}

FAKE int cuDeviceGetName(char* name, int bytes, int ordinal) {
  if (device(ordinal) == nullptr) return InvalidDevice;
  std::snprintf(name, static_cast<std::size_t>(bytes), "Emulated %s", settings().architecture.c_str());
  return Success;
}

FAKE int cuDeviceTotalMem_v2(std::size_t* bytes, int ordinal) {
  if (device(ordinal) == nullptr) return InvalidDevice;
  *bytes = settings().memory_bytes;
  return Success;
}

FAKE int cuDeviceGetAttribute(int* value, int attribute, int ordinal) {
  if (device(ordinal) == nullptr) return InvalidDevice;
  switch (attribute) {
    case WarpSize:
      *value = static_cast<int>(warp_threads());
      return Success;
    case MultiprocessorCount:
      *value = 1;
      return Success;
    case Integrated:
      *value = settings().integrated;
      return Success;
    case CapabilityMajor:
      *value = static_cast<int>(capability() / 10);
      return Success;
    case CapabilityMinor:
      *value = static_cast<int>(capability() % 10);
      return Success;
    default:
      return InvalidValue;
  }
}

FAKE int cuDevicePrimaryCtxRetain(void** context, int ordinal) {
  Device* const found = device(ordinal);
  if (found == nullptr) return InvalidDevice;
  ++found->retained;
  *context = found;
  return Success;
}

FAKE int cuDevicePrimaryCtxRelease_v2(int ordinal) {
  Device* const found = device(ordinal);
  if (found == nullptr) return InvalidDevice;
  if (found->retained == 0) return InvalidContext;
  --found->retained;
  return Success;
}

FAKE int cuCtxSetCurrent(void* context) {
  auto* const found = static_cast<Device*>(context);
  if (found != nullptr && found->retained == 0) return InvalidContext;
  make_current(found);
  return found != nullptr ? found->lost.load() : Success;
}

FAKE int cuModuleLoadDataEx(void** module, const void* image, unsigned count, int* options, void** values) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  if (image == nullptr) return InvalidValue;
  std::vector<std::string> kernels;
  std::string log;
  const Code code = read_cuda_image(image, kernels, log);
  if (code == Success) return load(std::move(kernels), module);
  char* buffer = nullptr;
  std::size_t bytes = 0;
  for (unsigned index = 0; index < count; ++index) {
    if (options[index] == ErrorLogBuffer) buffer = static_cast<char*>(values[index]);
    if (options[index] == ErrorLogBufferBytes) bytes = reinterpret_cast<std::uintptr_t>(values[index]);
  }
  if (buffer != nullptr && bytes > 0) std::snprintf(buffer, bytes, "%s", log.c_str());
  return code;
}

FAKE int cuModuleUnload(void* module) { return unload(module, "cuModuleUnload"); }

FAKE int cuModuleGetFunction(void** function, void* module, const char* name) {
  return find_function(module, name, function);
}

FAKE int cuLaunchKernel(void* function, unsigned blocks_x, unsigned blocks_y, unsigned blocks_z, unsigned threads_x,
                        unsigned threads_y, unsigned threads_z, unsigned shared_bytes, void* stream, void** params,
                        void** extra) {
  const unsigned blocks[3] = {blocks_x, blocks_y, blocks_z};
  const unsigned threads[3] = {threads_x, threads_y, threads_z};
  return launch(function, blocks, threads, shared_bytes, stream, params, extra, nullptr);
}

FAKE int cuStreamCreate(void** stream, unsigned flags) {
  if (flags > 1) return InvalidValue;
  return create_stream(stream);
}

FAKE int cuStreamDestroy_v2(void* stream) { return destroy_stream(stream, nullptr); }

FAKE int cuStreamBeginCapture_v2(void* stream, int mode) {
  if (mode < 0 || mode > 2) return InvalidValue;
  return begin_capture(stream);
}

FAKE int cuStreamEndCapture(void* stream, void** graph) { return end_capture(stream, graph); }

FAKE int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags) {
  if (flags != 0) return InvalidValue;
  return instantiate(graph, executable);
}

FAKE int cuGraphDestroy(void* graph) { return destroy<Graph>(graph); }

FAKE int cuGraphExecDestroy(void* executable) { return destroy<Executable>(executable); }

FAKE int cuGraphLaunch(void* executable, void* stream) { return launch_graph(executable, stream); }

FAKE int cuEventCreate(void** event, unsigned flags) {
  if (flags > 1) return InvalidValue;
  return create_event(event);
}

FAKE int cuEventDestroy_v2(void* event) { return destroy<Event>(event); }

FAKE int cuEventRecord(void* event, void* stream) { return record(event, stream); }

FAKE int cuEventQuery(void* event) { return query(event); }

FAKE int cuEventElapsedTime(float* milliseconds, void* begin, void* end) { return elapsed(milliseconds, begin, end); }

FAKE int cuMemAlloc_v2(std::uintptr_t* address, std::size_t bytes) {
  void* base = nullptr;
  const Code code = allocate(bytes, Kind::Device, &base);
  *address = reinterpret_cast<std::uintptr_t>(base);
  return code;
}

FAKE int cuMemFree_v2(std::uintptr_t address) {
  return release(reinterpret_cast<void*>(address), Kind::Device, "cuMemFree");
}

FAKE int cuMemHostAlloc(void** base, std::size_t bytes, unsigned flags) {
  if (flags > 7) return InvalidValue;
  return allocate(bytes, Kind::Host, base);
}

FAKE int cuMemFreeHost(void* base) { return release(base, Kind::Host, "cuMemFreeHost"); }

FAKE int cuMemHostRegister_v2(void* base, std::size_t bytes, unsigned flags) {
  if (flags > 15) return InvalidValue;
  return register_host(base, bytes);
}

FAKE int cuMemHostUnregister(void* base) { return release(base, Kind::Registered, "cuMemHostUnregister"); }

FAKE int cuMemHostGetDevicePointer_v2(std::uintptr_t* address, void* base, unsigned flags) {
  if (flags != 0) return InvalidValue;
  void* mapped = nullptr;
  const Code code = device_address(base, &mapped);
  *address = reinterpret_cast<std::uintptr_t>(mapped);
  return code;
}

FAKE int cuMemcpyHtoDAsync_v2(std::uintptr_t to, const void* from, std::size_t bytes, void* stream) {
  return copy(reinterpret_cast<void*>(to), from, bytes, true, stream);
}

FAKE int cuMemcpyDtoHAsync_v2(void* to, std::uintptr_t from, std::size_t bytes, void* stream) {
  return copy(to, reinterpret_cast<const void*>(from), bytes, false, stream);
}

FAKE int cuMemsetD8Async(std::uintptr_t at, unsigned char value, std::size_t bytes, void* stream) {
  return fill(reinterpret_cast<void*>(at), value, bytes, stream);
}
