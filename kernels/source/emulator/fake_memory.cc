// The fake device's memory: which addresses are whose, and what is copied between them. See fake.h.
//
// Each allocation is a mapping of its own that ends at a page nobody may touch, so a kernel that runs past its end
// ends the process; up to 255 bytes of slack remain, since a device's addresses are multiples of 256.
#include "fake.h"

#include <cstring>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace fake {
namespace {

constexpr std::size_t ALIGN_BYTES = 256;
constexpr unsigned char POISON = 0xff; // every float of these bytes is NaN

struct Range {
  std::size_t bytes;
  Kind kind;
  Device* device;
  void* mapping;
  std::size_t mapping_bytes;
};

struct Memory {
  std::mutex mutex;
  std::map<std::uintptr_t, Range> ranges;
  unsigned long allocations = 0;
};

Memory& memory() {
  static Memory* const memory = new Memory;
  return *memory;
}

std::uintptr_t number(const void* address) { return reinterpret_cast<std::uintptr_t>(address); }

std::size_t page_bytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

std::size_t up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

// The range that all of these bytes are in; the lock is held.
const Range* covering(const void* address, std::size_t bytes) {
  auto& ranges = memory().ranges;
  auto after = ranges.upper_bound(number(address));
  if (after == ranges.begin()) return nullptr;
  const auto& found = *--after;
  const std::size_t offset = number(address) - found.first;
  const bool inside = offset <= found.second.bytes && bytes <= found.second.bytes - offset;
  return inside ? &found.second : nullptr;
}

bool overlaps(std::uintptr_t base, std::size_t bytes) {
  const auto& ranges = memory().ranges;
  const auto after = ranges.lower_bound(base);
  if (after != ranges.end() && after->first - base < bytes) return true;
  if (after == ranges.begin()) return false;
  const auto before = std::prev(after);
  return base - before->first < before->second.bytes;
}

bool is_mapped(void* base, std::size_t bytes) {
  const std::size_t page = page_bytes();
  const std::uintptr_t begin = number(base) / page * page;
  const std::size_t length = number(base) - begin + bytes;
  std::vector<unsigned char> pages(up(length, page) / page);
  return mincore(reinterpret_cast<void*>(begin), length, pages.data()) == 0;
}

} // namespace

Code allocate(std::size_t bytes, Kind kind, void** base) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  if (bytes == 0) return InvalidValue;
  std::lock_guard<std::mutex> lock(memory().mutex);
  if (++memory().allocations == settings().fail_allocation) return OutOfMemory;
  if (bytes > settings().memory_bytes - device->used_bytes) return OutOfMemory;
  const std::size_t page = page_bytes();
  const std::size_t room = up(up(bytes, ALIGN_BYTES), page);
  void* const mapping = mmap(nullptr, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return OutOfMemory;
  auto* const start = static_cast<unsigned char*>(mapping);
  if (mprotect(start + room, page, PROT_NONE) != 0) {
    munmap(mapping, room + page);
    return OutOfMemory;
  }
  unsigned char* const at = start + room - up(bytes, ALIGN_BYTES);
  std::memset(at, POISON, bytes);
  device->used_bytes += bytes;
  memory().ranges[number(at)] = {bytes, kind, device, mapping, room + page};
  *base = at;
  return Success;
}

Code release(void* base, Kind kind, const char* call) {
  Device* device = nullptr;
  const Code code = current(device);
  if (code == Success) wait_idle(device, call);
  std::lock_guard<std::mutex> lock(memory().mutex);
  const auto found = memory().ranges.find(number(base));
  const bool known = found != memory().ranges.end() && found->second.kind == kind;
  if (!known) return kind == Kind::Registered ? NotRegistered : InvalidValue;
  if (kind != Kind::Registered) {
    found->second.device->used_bytes -= found->second.bytes;
    munmap(found->second.mapping, found->second.mapping_bytes);
  }
  memory().ranges.erase(found);
  return code;
}

Code register_host(void* base, std::size_t bytes) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  if (settings().refuse_registration) return NotSupported;
  if (base == nullptr || bytes == 0 || !is_mapped(base, bytes)) return InvalidValue;
  std::lock_guard<std::mutex> lock(memory().mutex);
  if (overlaps(number(base), bytes)) return AlreadyRegistered;
  memory().ranges[number(base)] = {bytes, Kind::Registered, device, nullptr, 0};
  return Success;
}

Code device_address(void* base, void** address) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  std::lock_guard<std::mutex> lock(memory().mutex);
  const Range* const range = covering(base, 1);
  if (range == nullptr || range->kind == Kind::Device) return InvalidValue;
  *address = base;
  return Success;
}

Code copy(void* to, const void* from, std::size_t bytes, bool to_device, void* stream) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  const auto queue = find<Stream>(stream);
  if (!queue) return InvalidHandle;
  {
    std::lock_guard<std::mutex> lock(memory().mutex);
    const void* const ours = to_device ? to : from;
    if (bytes > 0 && covering(ours, bytes) == nullptr) return InvalidValue;
  }
  Work work(Work::Copy);
  work.to = to;
  work.from = from;
  work.bytes = bytes;
  queue->submit(std::move(work));
  return Success;
}

Code fill(void* at, unsigned char value, std::size_t bytes, void* stream) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  const auto queue = find<Stream>(stream);
  if (!queue) return InvalidHandle;
  {
    std::lock_guard<std::mutex> lock(memory().mutex);
    if (bytes > 0 && covering(at, bytes) == nullptr) return InvalidValue;
  }
  Work work(Work::Fill);
  work.to = at;
  work.value = value;
  work.bytes = bytes;
  queue->submit(std::move(work));
  return Success;
}

std::string left_in_memory() {
  std::lock_guard<std::mutex> lock(memory().mutex);
  unsigned counts[3] = {};
  for (const auto& range : memory().ranges) ++counts[static_cast<int>(range.second.kind)];
  const char* const names[3] = {"allocation of the device", "allocation of the host", "registration"};
  std::string text;
  for (int kind = 0; kind < 3; ++kind)
    if (counts[kind] > 0) text += " " + std::to_string(counts[kind]) + " " + names[kind];
  return text;
}

} // namespace fake
