// libamdhip64.so.6, pretended: the runtime's functions that plesio-hip opens. See fake.h.
//
// As in the real one a thread that chose no device is on the first, and nothing needs a call of hipInit before it.
// Destroying a stream may wait for it, says the documentation, so here it does.
#include "fake.h"

#include <cstdio>

using namespace fake;

const Vendor fake::vendor = {"HIP", "gfx942", 60200000};

namespace {

enum Attribute { Integrated = 16, MultiprocessorCount = 63, WarpSize = 87 };
enum Direction { HostToDevice = 1, DeviceToHost = 2 };

// Makes the first device that of a thread that chose none.
Code settle() {
  if (const Code code = initialise()) return code;
  Device* chosen = nullptr;
  if (current(chosen) == InvalidContext) make_current(device(0));
  return Success;
}

// What a call answers once the thread has a device.
template <class Call> int settled(Call call) {
  const Code code = settle();
  return code != Success ? code : call();
}

} // namespace

FAKE int hipInit(unsigned flags) { return flags != 0 ? InvalidValue : initialise(); }

FAKE int hipRuntimeGetVersion(int* version) {
  *version = settings().version;
  return Success;
}

FAKE int hipGetDeviceCount(int* count) {
  *count = 0;
  if (const Code code = initialise()) return code;
  *count = settings().devices;
  return Success;
}

FAKE int hipDeviceGetName(char* name, int bytes, int ordinal) {
  if (device(ordinal) == nullptr) return InvalidDevice;
  std::snprintf(name, static_cast<std::size_t>(bytes), "Emulated %s", settings().architecture.c_str());
  return Success;
}

FAKE int hipDeviceTotalMem(std::size_t* bytes, int ordinal) {
  if (device(ordinal) == nullptr) return InvalidDevice;
  *bytes = settings().memory_bytes;
  return Success;
}

FAKE int hipDeviceGetAttribute(int* value, int attribute, int ordinal) {
  if (device(ordinal) == nullptr) return InvalidDevice;
  switch (attribute) {
    case Integrated:
      *value = settings().integrated;
      return Success;
    case MultiprocessorCount:
      *value = 1;
      return Success;
    case WarpSize:
      *value = static_cast<int>(warp_threads());
      return Success;
    default:
      return InvalidValue;
  }
}

FAKE int hipDeviceGetPCIBusId(char* location, int bytes, int ordinal) {
  if (device(ordinal) == nullptr) return InvalidDevice;
  if (location == nullptr || bytes <= 12) return InvalidValue;
  const unsigned bus = static_cast<unsigned>(ordinal + 1) & 0xff;
  std::snprintf(location, static_cast<std::size_t>(bytes), "ffff:%02x:00.0", bus);
  return Success;
}

FAKE int hipSetDevice(int ordinal) {
  if (const Code code = initialise()) return code;
  Device* const found = device(ordinal);
  if (found == nullptr) return InvalidDevice;
  make_current(found);
  return found->lost.load();
}

FAKE int hipModuleLoadData(void** module, const void* image) {
  return settled([&]() -> int {
    Device* device = nullptr;
    if (const Code code = current(device)) return code;
    if (image == nullptr) return InvalidValue;
    std::vector<std::string> kernels;
    if (const Code code = read_hip_image(image, kernels)) return code;
    return load(std::move(kernels), module);
  });
}

FAKE int hipModuleUnload(void* module) {
  return settled([&] { return unload(module, "hipModuleUnload"); });
}

FAKE int hipModuleGetFunction(void** function, void* module, const char* name) {
  return settled([&] { return find_function(module, name, function); });
}

FAKE int hipModuleLaunchKernel(void* function, unsigned blocks_x, unsigned blocks_y, unsigned blocks_z,
                               unsigned threads_x, unsigned threads_y, unsigned threads_z, unsigned shared_bytes,
                               void* stream, void** params, void** extra) {
  const unsigned blocks[3] = {blocks_x, blocks_y, blocks_z};
  const unsigned threads[3] = {threads_x, threads_y, threads_z};
  const void* const end = reinterpret_cast<const void*>(3);
  return settled([&] { return launch(function, blocks, threads, shared_bytes, stream, params, extra, end); });
}

FAKE int hipStreamCreateWithFlags(void** stream, unsigned flags) {
  if (flags > 1) return InvalidValue;
  return settled([&] { return create_stream(stream); });
}

FAKE int hipStreamDestroy(void* stream) {
  return settled([&] { return destroy_stream(stream, "hipStreamDestroy"); });
}

FAKE int hipStreamBeginCapture(void* stream, unsigned mode) {
  if (mode > 2) return InvalidValue;
  return settled([&] { return begin_capture(stream); });
}

FAKE int hipStreamEndCapture(void* stream, void** graph) {
  return settled([&] { return end_capture(stream, graph); });
}

FAKE int hipGraphInstantiate(void** executable, void* graph, void**, char*, std::size_t) {
  return settled([&] { return instantiate(graph, executable); });
}

FAKE int hipGraphDestroy(void* graph) {
  return settled([&] { return destroy<Graph>(graph); });
}

FAKE int hipGraphExecDestroy(void* executable) {
  return settled([&] { return destroy<Executable>(executable); });
}

FAKE int hipGraphLaunch(void* executable, void* stream) {
  return settled([&] { return launch_graph(executable, stream); });
}

FAKE int hipEventCreateWithFlags(void** event, unsigned flags) {
  if (flags > 1) return InvalidValue;
  return settled([&] { return create_event(event); });
}

FAKE int hipEventDestroy(void* event) {
  return settled([&] { return destroy<Event>(event); });
}

FAKE int hipEventRecord(void* event, void* stream) {
  return settled([&] { return record(event, stream); });
}

FAKE int hipEventQuery(void* event) {
  return settled([&] { return query(event); });
}

FAKE int hipEventElapsedTime(float* milliseconds, void* begin, void* end) {
  return settled([&] { return elapsed(milliseconds, begin, end); });
}

FAKE int hipMalloc(void** address, std::size_t bytes) {
  *address = nullptr;
  if (bytes == 0) return Success;
  return settled([&] { return allocate(bytes, Kind::Device, address); });
}

FAKE int hipFree(void* address) {
  if (address == nullptr) return Success;
  return settled([&] { return release(address, Kind::Device, "hipFree"); });
}

FAKE int hipHostMalloc(void** base, std::size_t bytes, unsigned) {
  *base = nullptr;
  if (bytes == 0) return Success;
  return settled([&] { return allocate(bytes, Kind::Host, base); });
}

FAKE int hipHostFree(void* base) {
  if (base == nullptr) return Success;
  return settled([&] { return release(base, Kind::Host, "hipHostFree"); });
}

FAKE int hipHostRegister(void* base, std::size_t bytes, unsigned flags) {
  if (flags > 15) return InvalidValue;
  return settled([&] { return register_host(base, bytes); });
}

FAKE int hipHostUnregister(void* base) {
  return settled([&] { return release(base, Kind::Registered, "hipHostUnregister"); });
}

FAKE int hipHostGetDevicePointer(void** address, void* base, unsigned flags) {
  if (flags != 0) return InvalidValue;
  return settled([&] { return device_address(base, address); });
}

FAKE int hipMemcpyAsync(void* to, const void* from, std::size_t bytes, int direction, void* stream) {
  if (direction != HostToDevice && direction != DeviceToHost) return InvalidValue;
  return settled([&] { return copy(to, from, bytes, direction == HostToDevice, stream); });
}

FAKE int hipMemsetAsync(void* at, int value, std::size_t bytes, void* stream) {
  return settled([&] { return fill(at, static_cast<unsigned char>(value), bytes, stream); });
}
