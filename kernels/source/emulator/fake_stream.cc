// The fake device's streams: threads that do what was submitted to them in order, events on their way, graphs of what
// was recorded. See fake.h.
//
// A stream's lock is never held while its work is done, and no other lock is taken under it.
#include "fake.h"

#include "emulate.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <thread>

namespace fake {
namespace {

std::atomic<unsigned long> launches{0};
std::atomic<bool> hangs{false};

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Never destroyed: streams outlive `main`.
std::mutex& emulator() {
  static std::mutex* const mutex = new std::mutex;
  return *mutex;
}

// Under the emulator's lock.
void tell_first(const std::string& kernel) {
  static std::set<std::string>* const told = new std::set<std::string>;
  if (settings().kernels_file.empty() || !told->insert(kernel).second) return;
  std::FILE* file = std::fopen(settings().kernels_file.c_str(), "a");
  if (file == nullptr) return;
  std::fprintf(file, "%s %s\n", vendor.name, kernel.c_str());
  std::fclose(file);
}

} // namespace

bool nothing_hangs() { return !hangs; }

void wait_idle(Device* device, const char* call) {
  for (const auto& stream : streams_of(device)) stream->wait_idle(call);
}

void Stream::start() {
  std::thread([self = shared_from_this()] { self->work(); }).detach();
}

void Stream::submit(Work work) {
  std::lock_guard<std::mutex> lock(mutex);
  if (capturing) {
    if (work.kind != Work::Record) recorded.push_back(std::move(work));
    return;
  }
  queue_.push_back(std::move(work));
  changed.notify_all();
}

void Stream::close() {
  std::lock_guard<std::mutex> lock(mutex);
  closed_ = true;
  changed.notify_all();
}

void Stream::wait_idle(const char* call) {
  std::unique_lock<std::mutex> lock(mutex);
  changed.wait(lock, [this] { return hangs_ || (queue_.empty() && !busy_); });
  if (hangs_) {
    std::fprintf(stderr, "fake %s: %s waits for a launch that never ends, as a device's would\n", vendor.name, call);
    std::abort();
  }
}

// What was submitted before the stream was destroyed is still done.
void Stream::work() {
  std::unique_lock<std::mutex> lock(mutex);
  for (;;) {
    changed.wait(lock, [this] { return closed_ || !queue_.empty(); });
    if (queue_.empty()) return;
    const Work work = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    perform(work);
    lock.lock();
    if (hangs_) {
      changed.wait(lock, [this] { return closed_; });
      return;
    }
    busy_ = false;
    changed.notify_all();
  }
}

void Stream::perform(const Work& work) {
  if (device->lost != 0) return;
  switch (work.kind) {
    case Work::Launch:
      launch(work);
      break;
    case Work::Copy:
      std::memmove(work.to, work.from, work.bytes);
      break;
    case Work::Fill:
      std::memset(work.to, work.value, work.bytes);
      break;
    case Work::Record: {
      std::lock_guard<std::mutex> lock(work.event->mutex);
      work.event->reached = work.turn;
      work.event->at_ns = now_ns();
      break;
    }
  }
}

void Stream::launch(const Work& work) {
  const unsigned long turn = ++launches;
  if (turn == settings().hang_launch) {
    hangs = true;
    std::lock_guard<std::mutex> lock(mutex);
    hangs_ = true;
    changed.notify_all();
    return;
  }
  if (turn == settings().lose_launch) {
    lose(device, settings().lost_code);
    return;
  }
  char message[400] = "";
  std::lock_guard<std::mutex> lock(emulator());
  tell_first(work.function->name);
  const auto params_bytes = static_cast<unsigned>(work.params.size());
  const int wrong = plesio_emulate(work.function->name.c_str(), work.blocks, work.threads, work.params.data(),
                                   params_bytes, warp_threads(), message, sizeof message);
  if (wrong != 0) {
    std::fprintf(stderr, "fake %s: %s\n", vendor.name, message);
    lose(device, LaunchFailed);
  }
}

Code launch(void* function, const unsigned blocks[3], const unsigned threads[3], unsigned shared_bytes, void* stream,
            void** params, void** extra, const void* extra_end) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  const auto kernel = find<Function>(function);
  const auto queue = find<Stream>(stream);
  if (!kernel || !queue) return InvalidHandle;
  const bool flat = blocks[1] == 1 && blocks[2] == 1 && threads[1] == 1 && threads[2] == 1;
  if (!flat || blocks[0] == 0 || threads[0] == 0 || threads[0] > 1024) return InvalidValue;
  if (shared_bytes != 0 || params != nullptr || extra == nullptr) return InvalidValue;
  const unsigned char* bytes = nullptr;
  const std::size_t* length = nullptr;
  for (; *extra != extra_end; extra += 2) {
    if (reinterpret_cast<std::uintptr_t>(*extra) == 1) {
      bytes = static_cast<const unsigned char*>(extra[1]);
    } else if (reinterpret_cast<std::uintptr_t>(*extra) == 2) {
      length = static_cast<const std::size_t*>(extra[1]);
    } else {
      return InvalidValue;
    }
  }
  if (bytes == nullptr || length == nullptr || *length > 4096) return InvalidValue;
  Work work(Work::Launch);
  work.function = kernel;
  work.blocks = blocks[0];
  work.threads = threads[0];
  work.params.assign(bytes, bytes + *length);
  queue->submit(std::move(work));
  return Success;
}

Code create_stream(void** stream) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  const auto made = std::make_shared<Stream>(device);
  made->start();
  *stream = keep(made);
  return Success;
}

Code destroy_stream(void* stream, const char* waiting_call) {
  const auto found = find<Stream>(stream);
  if (found && waiting_call != nullptr) found->wait_idle(waiting_call);
  if (found) found->close();
  return destroy<Stream>(stream);
}

Code create_event(void** event) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  *event = keep(std::make_shared<Event>(device));
  return Success;
}

Code record(void* event, void* stream) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  const auto found = find<Event>(event);
  const auto queue = find<Stream>(stream);
  if (!found || !queue) return InvalidHandle;
  bool capturing = false;
  {
    std::lock_guard<std::mutex> lock(queue->mutex);
    capturing = queue->capturing;
  }
  Work work(Work::Record);
  work.event = found;
  {
    std::lock_guard<std::mutex> lock(found->mutex);
    found->captured = capturing;
    work.turn = capturing ? found->recorded : ++found->recorded;
  }
  queue->submit(std::move(work));
  return Success;
}

Code query(void* event) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  const auto found = find<Event>(event);
  if (!found) return InvalidHandle;
  std::lock_guard<std::mutex> lock(found->mutex);
  if (found->captured) return CapturedEvent;
  return found->reached == found->recorded ? Success : NotReady;
}

Code elapsed(float* milliseconds, void* begin, void* end) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  std::int64_t at_ns[2];
  void* const events[2] = {begin, end};
  for (int index = 0; index < 2; ++index) {
    const auto found = find<Event>(events[index]);
    if (!found) return InvalidHandle;
    std::lock_guard<std::mutex> lock(found->mutex);
    if (found->captured || found->recorded == 0) return InvalidHandle;
    if (found->reached != found->recorded) return NotReady;
    at_ns[index] = found->at_ns;
  }
  *milliseconds = static_cast<float>(static_cast<double>(at_ns[1] - at_ns[0]) * 1e-6);
  return Success;
}

Code begin_capture(void* stream) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  const auto found = find<Stream>(stream);
  if (!found) return InvalidHandle;
  std::lock_guard<std::mutex> lock(found->mutex);
  if (found->capturing) return IllegalState;
  found->capturing = true;
  return Success;
}

Code end_capture(void* stream, void** graph) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  const auto found = find<Stream>(stream);
  if (!found) return InvalidHandle;
  std::vector<Work> works;
  {
    std::lock_guard<std::mutex> lock(found->mutex);
    if (!found->capturing) return IllegalState;
    found->capturing = false;
    works.swap(found->recorded);
  }
  *graph = keep(std::make_shared<Graph>(device, std::move(works)));
  return Success;
}

Code instantiate(void* graph, void** executable) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  const auto found = find<Graph>(graph);
  if (!found) return InvalidHandle;
  *executable = keep(std::make_shared<Executable>(device, found->works));
  return Success;
}

Code launch_graph(void* executable, void* stream) {
  Device* device = nullptr;
  if (const Code code = current(device)) return code;
  const auto found = find<Executable>(executable);
  const auto queue = find<Stream>(stream);
  if (!found || !queue) return InvalidHandle;
  for (const Work& work : found->works) queue->submit(work);
  return Success;
}

} // namespace fake
