// A device that is not there, for two libraries that pretend to be a vendor's: fake_cuda.cc becomes libcuda.so.1 and
// fake_hip.cc libamdhip64.so.6. A program that opens them runs its kernels on the emulator.
//
// What is as with a real device: calls are checked and refused with the vendor's codes, objects are known or not,
// streams work in order on threads of their own, an event is done when its stream came to it, an image must be for
// this chip and have the kernel that is asked for, giving back memory or code waits for the device, fresh memory
// holds anything but zeros.
//
// What is not: the device's memory is the host's, at the same addresses, with a page behind each allocation that
// nobody may touch; a kernel that goes astray elsewhere is not stopped. There is no default stream, no launch with
// shared memory that the launch sizes, no grid of more than one dimension, and parameters are given in one buffer of
// known length. Launches of all streams run one after the other. Fat binaries, bundles and what a compiler makes of
// PTX are not looked into: of PTX the version, the target and the entries are read, of ELF the machine, the chip and
// the kernels' names.
//
// The environment says what device it is and what goes wrong with it. Each name stands behind PLESIO_FAKE_CUDA_ or
// PLESIO_FAKE_HIP_, or behind PLESIO_FAKE_ for both:
//
//   DEVICES              how many; 1
//   ARCHITECTURE         sm_90; gfx942. HIP tells no architecture: HSA_OVERRIDE_GFX_VERSION=9.4.2 must say the same
//   INTEGRATED           1: the device shares the host's memory; 0
//   VERSION              of CUDA, 13000; of HIP, 60200000
//   MEMORY_BYTES         of each device; 1 GiB
//   INIT_CODE            the first call answers with this code
//   FAIL_ALLOCATION      the n-th allocation of the process, on device or host, finds no memory
//   HANG_LAUNCH          the n-th launch of the process begins and never ends
//   LOSE_LAUNCH          at the n-th launch its device is lost: every later call for it answers with
//   LOST_CODE            this code; 719
//   REFUSE_REGISTRATION  1: no memory of the host is registered
//   KERNELS_FILE         a file to which a line is added for each kernel at its first launch: the vendor and its name
//
// At its end the process says on stderr what was left behind, unless something hangs or was lost: then nobody can
// give it back.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#define FAKE extern "C" __attribute__((visibility("default")))

namespace fake {

// The vendors' codes, which are the same numbers.
enum Code : int {
  Success = 0,
  InvalidValue = 1,
  OutOfMemory = 2,
  NotInitialised = 3,
  NoDevice = 100,
  InvalidDevice = 101,
  InvalidImage = 200,
  InvalidContext = 201,
  NoBinary = 209,
  InvalidPtx = 218,
  UnsupportedPtx = 222,
  InvalidHandle = 400,
  IllegalState = 401,
  NotFound = 500,
  NotReady = 600,
  AlreadyRegistered = 712,
  NotRegistered = 713,
  LaunchFailed = 719,
  NotSupported = 801,
  CapturedEvent = 907,
};

// Which vendor's this library is.
struct Vendor {
  const char* name;
  const char* architecture;
  int version;
};
extern const Vendor vendor;

struct Settings {
  int devices;
  std::string architecture;
  bool integrated;
  int version;
  std::uint64_t memory_bytes;
  int init_code;
  unsigned long fail_allocation;
  unsigned long hang_launch;
  unsigned long lose_launch;
  int lost_code;
  bool refuse_registration;
  std::string kernels_file;
};
const Settings& settings();

// The number of the architecture: sm_87 is 87.
unsigned capability();
unsigned warp_threads();

// The names of an image's kernels; `log` is what a compiler would say.
Code read_cuda_image(const void* image, std::vector<std::string>& kernels, std::string& log);
Code read_hip_image(const void* image, std::vector<std::string>& kernels);

struct Device {
  int ordinal = 0;
  std::atomic<unsigned> retained{0};
  std::uint64_t used_bytes = 0;
  std::atomic<int> lost{0};
};

Code initialise();
Device* device(int ordinal); // null when there is none
// The thread's device.
void make_current(Device* device);
// Success, and the thread's device; else why nothing can be done on it.
Code current(Device*& device);

// Anything that a program has by a handle.
struct Object {
  Object(Device* device, const char* what) : device(device), what(what) {}
  virtual ~Object() = default;

  Device* const device;
  const char* const what;
};

struct Function : Object {
  Function(Device* device, std::string name) : Object(device, "kernel"), name(std::move(name)) {}

  const std::string name;
};

struct Module : Object {
  Module(Device* device, std::vector<std::string> kernels) : Object(device, "module"), kernels(std::move(kernels)) {}

  const std::vector<std::string> kernels;
  std::vector<void*> functions;
};

struct Event : Object {
  explicit Event(Device* device) : Object(device, "event") {}

  std::mutex mutex;
  std::uint64_t recorded = 0;
  std::uint64_t reached = 0;
  std::int64_t at_ns = 0;
  bool captured = false;
};

// One thing that a stream does.
struct Work {
  enum Kind { Launch, Copy, Fill, Record };

  explicit Work(Kind kind) : kind(kind) {}

  Kind kind;
  std::shared_ptr<Function> function;
  unsigned blocks = 0;
  unsigned threads = 0;
  std::vector<unsigned char> params;
  void* to = nullptr;
  const void* from = nullptr;
  std::size_t bytes = 0;
  unsigned char value = 0;
  std::shared_ptr<Event> event;
  std::uint64_t turn = 0;
};

// What a stream recorded.
struct Graph : Object {
  Graph(Device* device, std::vector<Work> works) : Object(device, "graph"), works(std::move(works)) {}

  const std::vector<Work> works;
};

// The same, made ready to run.
struct Executable : Object {
  Executable(Device* device, std::vector<Work> works) : Object(device, "executable graph"), works(std::move(works)) {}

  const std::vector<Work> works;
};

struct Stream : Object, std::enable_shared_from_this<Stream> {
  explicit Stream(Device* device) : Object(device, "stream") {}

  void start();
  void submit(Work work);
  void close();
  // Returns when nothing is left to do; ends the process where that would be never.
  void wait_idle(const char* call);

  std::mutex mutex;
  std::condition_variable changed;
  bool capturing = false;
  std::vector<Work> recorded;

 private:
  void work();
  void perform(const Work& work);
  void launch(const Work& work);

  std::deque<Work> queue_;
  bool busy_ = false;
  bool hangs_ = false;
  bool closed_ = false;
};

// Objects by their handles; those of the thread's device are found.
void* keep(std::shared_ptr<Object> object);
std::shared_ptr<Object> find(void* handle);
void forget(void* handle);
std::vector<std::shared_ptr<Stream>> streams_of(Device* device);

template <class T> std::shared_ptr<T> find(void* handle) { return std::dynamic_pointer_cast<T>(find(handle)); }

// What the calls of both vendors come to, on the thread's device.
Code load(std::vector<std::string> kernels, void** module);
Code unload(void* module, const char* call);
Code find_function(void* module, const char* name, void** function);
Code launch(void* function, const unsigned blocks[3], const unsigned threads[3], unsigned shared_bytes, void* stream,
            void** params, void** extra, const void* extra_end);
Code create_stream(void** stream);
// With the name of a call, it waits for what was submitted.
Code destroy_stream(void* stream, const char* waiting_call);
Code create_event(void** event);
Code record(void* event, void* stream);
Code query(void* event);
Code elapsed(float* milliseconds, void* begin, void* end);
Code begin_capture(void* stream);
Code end_capture(void* stream, void** graph);
Code instantiate(void* graph, void** executable);
Code launch_graph(void* executable, void* stream);
// Events, graphs and executables.
template <class T> Code destroy(void* handle) {
  Device* device = nullptr;
  const Code code = current(device);
  if (find<T>(handle) == nullptr) return InvalidHandle;
  forget(handle);
  return code;
}

enum class Kind { Device, Host, Registered };
Code allocate(std::size_t bytes, Kind kind, void** base);
Code release(void* base, Kind kind, const char* call);
Code register_host(void* base, std::size_t bytes);
Code device_address(void* base, void** address);
// `to` or `from` is the device's.
Code copy(void* to, const void* from, std::size_t bytes, bool to_device, void* stream);
Code fill(void* at, unsigned char value, std::size_t bytes, void* stream);

// Used by the parts of this library.
void wait_idle(Device* device, const char* call);
void lose(Device* device, int code);
bool nothing_hangs();
std::string left_in_memory();

} // namespace fake
