// The fake device itself: what it is by its settings, the objects that a program has of it, and its code. See fake.h.
//
// One lock is around the objects. What is global is never destroyed, because threads of streams outlive `main`.
#include "fake.h"

#include "emulate.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

namespace fake {
namespace {

const char* setting(const char* name) {
  const std::string own = std::string("PLESIO_FAKE_") + vendor.name + "_" + name;
  if (const char* value = std::getenv(own.c_str())) return value;
  return std::getenv((std::string("PLESIO_FAKE_") + name).c_str());
}

unsigned long number(const char* name, unsigned long otherwise) {
  const char* value = setting(name);
  if (value == nullptr) return otherwise;
  char* end = nullptr;
  errno = 0;
  const unsigned long number = std::strtoul(value, &end, 10);
  if (errno != 0 || *value < '0' || *value > '9' || *end != '\0') {
    std::fprintf(stderr, "fake %s: %s is no number: %s\n", vendor.name, name, value);
    std::abort();
  }
  return number;
}

Settings read_settings() {
  const char* architecture = setting("ARCHITECTURE");
  const char* kernels_file = setting("KERNELS_FILE");
  return {static_cast<int>(number("DEVICES", 1)),
          architecture != nullptr ? architecture : vendor.architecture,
          number("INTEGRATED", 0) != 0,
          static_cast<int>(number("VERSION", static_cast<unsigned long>(vendor.version))),
          number("MEMORY_BYTES", 1ul << 30),
          static_cast<int>(number("INIT_CODE", 0)),
          number("FAIL_ALLOCATION", 0),
          number("HANG_LAUNCH", 0),
          number("LOSE_LAUNCH", 0),
          static_cast<int>(number("LOST_CODE", LaunchFailed)),
          number("REFUSE_REGISTRATION", 0) != 0,
          kernels_file != nullptr ? kernels_file : ""};
}

// What there is in the process.
struct World {
  std::mutex mutex;
  bool initialised = false;
  std::deque<Device> devices;
  std::map<void*, std::shared_ptr<Object>> objects;
};

World& world() {
  static World* const world = new World;
  return *world;
}

thread_local Device* current_device = nullptr;

void tell_what_is_left() {
  std::lock_guard<std::mutex> lock(world().mutex);
  for (const Device& device : world().devices)
    if (device.lost != 0) return;
  if (!nothing_hangs()) return;
  std::map<std::string, unsigned> left;
  for (const auto& object : world().objects)
    if (dynamic_cast<Function*>(object.second.get()) == nullptr) ++left[object.second->what];
  for (const Device& device : world().devices)
    if (device.retained > 0) ++left["context"];
  std::string text = left_in_memory();
  for (const auto& kind : left) text += " " + std::to_string(kind.second) + " " + kind.first;
  if (!text.empty()) std::fprintf(stderr, "fake %s: left behind:%s\n", vendor.name, text.c_str());
}

} // namespace

const Settings& settings() {
  static const Settings* const settings = new Settings(read_settings());
  return *settings;
}

unsigned capability() {
  const std::string& name = settings().architecture;
  if (name.rfind("sm_", 0) != 0) return 0;
  return static_cast<unsigned>(std::strtoul(name.c_str() + 3, nullptr, 10));
}

unsigned warp_threads() { return settings().architecture.rfind("gfx9", 0) == 0 ? 64 : 32; }

Code initialise() {
  std::lock_guard<std::mutex> lock(world().mutex);
  if (settings().init_code != 0) return static_cast<Code>(settings().init_code);
  if (settings().devices == 0) return NoDevice;
  if (!world().initialised) {
    world().initialised = true;
    for (int ordinal = 0; ordinal < settings().devices; ++ordinal) world().devices.emplace_back().ordinal = ordinal;
    std::atexit(tell_what_is_left);
  }
  return Success;
}

Device* device(int ordinal) {
  std::lock_guard<std::mutex> lock(world().mutex);
  const bool known = ordinal >= 0 && static_cast<std::size_t>(ordinal) < world().devices.size();
  return known ? &world().devices[static_cast<std::size_t>(ordinal)] : nullptr;
}

void make_current(Device* device) { current_device = device; }

Code current(Device*& device) {
  device = current_device;
  if (device == nullptr) return InvalidContext;
  return static_cast<Code>(device->lost.load());
}

void lose(Device* device, int code) {
  int none = 0;
  device->lost.compare_exchange_strong(none, code);
}

void* keep(std::shared_ptr<Object> object) {
  std::lock_guard<std::mutex> lock(world().mutex);
  void* const handle = object.get();
  world().objects.emplace(handle, std::move(object));
  return handle;
}

std::shared_ptr<Object> find(void* handle) {
  std::lock_guard<std::mutex> lock(world().mutex);
  const auto found = world().objects.find(handle);
  if (found == world().objects.end() || found->second->device != current_device) return nullptr;
  return found->second;
}

void forget(void* handle) {
  std::lock_guard<std::mutex> lock(world().mutex);
  world().objects.erase(handle);
}

std::vector<std::shared_ptr<Stream>> streams_of(Device* device) {
  std::lock_guard<std::mutex> lock(world().mutex);
  std::vector<std::shared_ptr<Stream>> streams;
  for (const auto& object : world().objects)
    if (auto stream = std::dynamic_pointer_cast<Stream>(object.second))
      if (stream->device == device) streams.push_back(std::move(stream));
  return streams;
}

Code load(std::vector<std::string> kernels, void** module) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  *module = keep(std::make_shared<Module>(device, std::move(kernels)));
  return Success;
}

Code unload(void* module, const char* call) {
  Device* device = nullptr;
  const Code code = current(device);
  const auto found = find<Module>(module);
  if (!found) return InvalidHandle;
  if (code == Success) wait_idle(device, call);
  for (void* function : found->functions) forget(function);
  forget(module);
  return code;
}

Code find_function(void* module, const char* name, void** function) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  const auto found = find<Module>(module);
  if (!found) return InvalidHandle;
  for (const std::string& kernel : found->kernels) {
    if (kernel != name) continue;
    for (unsigned index = 0; plesio_emulated_kernel(index) != nullptr; ++index) {
      if (kernel != plesio_emulated_kernel(index)) continue;
      *function = keep(std::make_shared<Function>(device, kernel));
      found->functions.push_back(*function);
      return Success;
    }
    std::fprintf(stderr, "fake %s: the image has %s, the emulator has not\n", vendor.name, name);
  }
  return NotFound;
}

} // namespace fake
