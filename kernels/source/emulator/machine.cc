// The emulator's machine: blocks, warps, barriers, shuffles, shared memory.
//
// Knows: CUDA's rules for a block of threads, the strict reading: a barrier is for all threads of the block and a shuffle for
// all of the warp, at the same place in the program; a thread that has ended will never arrive. Does not know: what a
// kernel computes. Invariant: a run either ends with every thread ended, or with a message.
#include "machine.h"

#include "emulate.h"

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

#if defined(EMULATOR_THREADS)
#include <condition_variable>
#include <thread>
#else
#include "fiber.h"
#endif

namespace emulator {
namespace {

constexpr unsigned char POISON = 0xff; // every float of these bytes is NaN
constexpr std::size_t CANARY_BYTES = 64;
constexpr unsigned WARP_MAX = 64;
constexpr unsigned THREADS_MAX = 1024;

const Twin* twins = nullptr;

// xorshift64*; seeded, so that an order can be had again.
struct Random {
  std::uint64_t state;

  std::uint64_t next() {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1dULL;
  }
};

enum class Order { Forward, Reverse, Random };

struct Ordering {
  Order order = Order::Forward;
  std::uint64_t seed = 1;

  std::vector<unsigned> arrange(unsigned count, std::uint64_t turn) const {
    std::vector<unsigned> all(count);
    std::iota(all.begin(), all.end(), 0u);
    if (order == Order::Reverse) std::reverse(all.begin(), all.end());
    if (order == Order::Random) {
      Random random{(seed + 1) * 0x9e3779b97f4a7c15ULL ^ (turn + 1) * 0xd1342543de82ef95ULL};
      for (unsigned left = count; left > 1; --left) std::swap(all[left - 1], all[random.next() % left]);
    }
    return all;
  }
};

Ordering ordering;

std::string format(const char* text, ...) {
  char line[400];
  va_list arguments;
  va_start(arguments, text);
  std::vsnprintf(line, sizeof line, text, arguments);
  va_end(arguments);
  return line;
}

// Shared memory of one block: an allocation for each place, with canaries behind.
class Shared {
 public:
  void* at(const void* place, std::size_t bytes) {
    for (auto& part : parts_)
      if (part.place == place) return part.memory.get();
    auto* memory = static_cast<unsigned char*>(std::aligned_alloc(64, (bytes + CANARY_BYTES + 63) / 64 * 64));
    if (memory == nullptr) std::abort();
    std::memset(memory, POISON, bytes);
    std::memset(memory + bytes, CANARY, CANARY_BYTES);
    parts_.push_back({place, bytes, {memory, &std::free}});
    return memory;
  }

  bool whole() const {
    for (const auto& part : parts_)
      for (std::size_t byte = 0; byte < CANARY_BYTES; ++byte)
        if (part.memory.get()[part.bytes + byte] != CANARY) return false;
    return true;
  }

 private:
  static constexpr unsigned char CANARY = 0xa5;

  struct Part {
    const void* place;
    std::size_t bytes;
    std::unique_ptr<unsigned char, void (*)(void*)> memory;
  };

  std::vector<Part> parts_;
};

// What a thread does at the moment; `line` says where it waits.
enum class State { Ready, Barrier, Shuffle, Ended };

struct Job {
  const Twin* twin;
  const void* params;
  unsigned threads;
  unsigned warp_threads;
};

} // namespace

Twin::Twin(const char* name, const char* params, unsigned threads, std::size_t params_bytes, Body body)
    : name(name), params(params), threads(threads), params_bytes(params_bytes), body(body), next(twins) {
  twins = this;
}

#if !defined(EMULATOR_THREADS)

namespace {

struct Thread {
  Fiber fiber;
  State state;
  int line;
  unsigned value; // given to a shuffle, then taken from it
  unsigned mask;
};

class Block {
 public:
  // Runs a whole block; an empty text when every thread has ended.
  std::string run(const Job& job, unsigned index);

  const Job* job = nullptr;
  unsigned index = 0;
  unsigned current = 0;
  Shared* shared = nullptr;
  Thread threads[THREADS_MAX];
  void* home = nullptr;

  void wait(State state, int line) {
    Thread& self = threads[current];
    self.state = state;
    self.line = line;
    self.fiber.hand_back(home);
  }

 private:
  std::string release();
  std::string exchange(unsigned first, unsigned end);
};

Block block;

void begin_thread() {
  block.job->twin->body(block.job->params);
  block.wait(State::Ended, 0);
  std::abort(); // an ended fiber is not resumed
}

std::string Block::run(const Job& wanted, unsigned wanted_index) {
  Shared memory;
  job = &wanted;
  index = wanted_index;
  shared = &memory;
  for (unsigned thread = 0; thread < job->threads; ++thread) {
    threads[thread].state = State::Ready;
    threads[thread].fiber.begin(&begin_thread);
  }
  for (std::uint64_t turn = 0;; ++turn) {
    bool ran = false;
    for (const unsigned thread : ordering.arrange(job->threads, turn << 32 | index)) {
      if (threads[thread].state != State::Ready) continue;
      current = thread;
      threads[thread].fiber.resume(&home);
      ran = true;
    }
    if (!ran) break;
    const std::string trouble = release();
    if (!trouble.empty()) return trouble;
  }
  if (!memory.whole()) return format("block %u wrote beyond the end of its shared memory", index);
  return {};
}

// Lets go on whoever has been waited for; nobody is ready when this is called.
std::string Block::release() {
  const Thread* waiting = nullptr;
  unsigned barriers = 0, shuffles = 0;
  for (unsigned thread = 0; thread < job->threads; ++thread) {
    barriers += threads[thread].state == State::Barrier;
    shuffles += threads[thread].state == State::Shuffle;
    if (threads[thread].state == State::Barrier) waiting = &threads[thread];
  }
  if (shuffles > 0) {
    for (unsigned first = 0; first < job->threads; first += job->warp_threads) {
      const std::string trouble = exchange(first, std::min(job->threads, first + job->warp_threads));
      if (!trouble.empty()) return trouble;
    }
    return {};
  }
  if (barriers == 0) return {};
  if (barriers != job->threads)
    return format("divergent barrier: in block %u %u of %u threads wait at line %d, and the others have ended", index,
                  barriers, job->threads, waiting->line);
  for (unsigned thread = 0; thread < job->threads; ++thread) {
    if (threads[thread].line != waiting->line)
      return format("divergent barrier: in block %u threads wait at lines %d and %d", index, threads[thread].line,
                    waiting->line);
    threads[thread].state = State::Ready;
  }
  return {};
}

// One warp's shuffle, if any of it waits for one.
std::string Block::exchange(unsigned first, unsigned end) {
  unsigned arrived = 0;
  for (unsigned thread = first; thread < end; ++thread) arrived += threads[thread].state == State::Shuffle;
  if (arrived == 0) return {};
  unsigned values[WARP_MAX];
  for (unsigned thread = first; thread < end; ++thread) {
    const Thread& one = threads[thread];
    if (one.state != State::Shuffle || one.line != threads[first].line || one.mask != threads[first].mask)
      return format("divergent shuffle: in block %u thread %u is not where %u threads of its warp are, at line %d",
                    index, thread, arrived, threads[first].line);
    values[thread - first] = one.value;
  }
  for (unsigned thread = first; thread < end; ++thread) {
    const unsigned other = (thread - first) ^ threads[thread].mask;
    if (other >= end - first) return format("a shuffle of block %u names a thread beyond the warp", index);
    threads[thread].value = values[other];
    threads[thread].state = State::Ready;
  }
  return {};
}

std::string run_blocks(const Job& job, unsigned blocks) {
  for (const unsigned index : ordering.arrange(blocks, ~0ULL)) {
    const std::string trouble = block.run(job, index);
    if (!trouble.empty()) return trouble;
  }
  return {};
}

} // namespace

unsigned thread_index() { return block.current; }
unsigned block_index() { return block.index; }
void block_barrier(int line) { block.wait(State::Barrier, line); }

unsigned shuffle_xor(unsigned value, unsigned mask, int line) {
  Thread& self = block.threads[block.current];
  self.value = value;
  self.mask = mask;
  block.wait(State::Shuffle, line);
  return self.value;
}

void* shared_memory(const void* place, std::size_t bytes) { return block.shared->at(place, bytes); }

#else // one OS thread for each device thread, so that ThreadSanitizer sees what barriers do not order

namespace {

// Where `count` threads meet again and again. A thread that ends, or that comes from elsewhere in the program, breaks it.
class Meeting {
 public:
  explicit Meeting(unsigned count) : count_(count) {}

  void meet(int line, const char* what) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (arrived_ == 0) line_ = line;
    if (line != line_ || ended_ > 0) fail(what);
    if (++arrived_ == count_) {
      arrived_ = 0;
      ++turn_;
      all_.notify_all();
      return;
    }
    const auto turn = turn_;
    all_.wait(lock, [&] { return turn_ != turn; });
  }

  void end(const char* what) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++ended_;
    if (arrived_ > 0) fail(what);
  }

 private:
  [[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "divergent %s at line %d\n", what, line_);
    std::_Exit(3);
  }

  std::mutex mutex_;
  std::condition_variable all_;
  unsigned count_;
  unsigned arrived_ = 0;
  unsigned ended_ = 0;
  std::uint64_t turn_ = 0;
  int line_ = 0;
};

struct Warp {
  explicit Warp(unsigned count) : meeting(count) {}
  Meeting meeting;
  unsigned values[WARP_MAX];
};

struct Block {
  Block(const Job& job, unsigned index) : job(job), index(index), meeting(job.threads) {
    for (unsigned first = 0; first < job.threads; first += job.warp_threads)
      warps.push_back(std::make_unique<Warp>(std::min(job.warp_threads, job.threads - first)));
  }

  const Job& job;
  unsigned index;
  Meeting meeting;
  std::vector<std::unique_ptr<Warp>> warps;
  std::mutex mutex;
  Shared shared;
};

thread_local Block* block = nullptr;
thread_local unsigned current = 0;

void run_thread(Block* of, unsigned thread) {
  block = of;
  current = thread;
  of->job.twin->body(of->job.params);
  of->warps[thread / of->job.warp_threads]->meeting.end("shuffle");
  of->meeting.end("barrier");
}

// Two blocks at a time, so that what they do to each other's memory is seen as well.
std::string run_blocks(const Job& job, unsigned blocks) {
  for (unsigned first = 0; first < blocks; first += 2) {
    std::vector<std::unique_ptr<Block>> together;
    std::vector<std::thread> threads;
    for (unsigned index = first; index < std::min(blocks, first + 2); ++index)
      together.push_back(std::make_unique<Block>(job, index));
    for (auto& one : together)
      for (unsigned thread = 0; thread < job.threads; ++thread) threads.emplace_back(run_thread, one.get(), thread);
    for (auto& thread : threads) thread.join();
    for (auto& one : together)
      if (!one->shared.whole()) return format("block %u wrote beyond the end of its shared memory", one->index);
  }
  return {};
}

} // namespace

unsigned thread_index() { return current; }
unsigned block_index() { return block->index; }
void block_barrier(int line) { block->meeting.meet(line, "barrier"); }

unsigned shuffle_xor(unsigned value, unsigned mask, int line) {
  Warp& warp = *block->warps[current / block->job.warp_threads];
  const unsigned lane = current % block->job.warp_threads;
  warp.values[lane] = value;
  warp.meeting.meet(line, "shuffle");
  const unsigned taken = warp.values[(lane ^ mask) % WARP_MAX];
  warp.meeting.meet(line, "shuffle");
  return taken;
}

void* shared_memory(const void* place, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(block->mutex);
  return block->shared.at(place, bytes);
}

#endif

} // namespace emulator

extern "C" int plesio_emulate(const char* kernel, unsigned blocks, unsigned threads, const void* params,
                              unsigned params_bytes, unsigned warp_threads, char* message, unsigned message_bytes) {
  using namespace emulator;
  const auto refuse = [&](const std::string& text) {
    if (message_bytes > 0) std::snprintf(message, message_bytes, "%s", text.c_str());
    return 1;
  };
  const Twin* twin = twins;
  while (twin != nullptr && std::strcmp(twin->name, kernel) != 0) twin = twin->next;
  if (twin == nullptr) return refuse(format("there is no kernel %s", kernel));
  if (threads != twin->threads || threads > THREADS_MAX)
    return refuse(format("%s has blocks of %u threads, not %u", kernel, twin->threads, threads));
  if (params_bytes != twin->params_bytes)
    return refuse(format("%s takes %zu bytes of parameters, not %u", kernel, twin->params_bytes, params_bytes));
  if ((warp_threads != 32 && warp_threads != 64) || threads % warp_threads != 0)
    return refuse(format("%s in warps of %u", kernel, warp_threads));
  // A copy: parameters are by value.
  std::vector<std::max_align_t> copy(params_bytes / sizeof(std::max_align_t) + 1);
  std::memcpy(copy.data(), params, params_bytes);
  // One run at a time: a machine has one block.
  static std::mutex running;
  const std::lock_guard<std::mutex> lock(running);
  const Job job{twin, copy.data(), threads, warp_threads};
  const std::string trouble = run_blocks(job, blocks);
  return trouble.empty() ? 0 : refuse(std::string(kernel) + ": " + trouble);
}

extern "C" bool plesio_emulated_order(const char* order) {
  using namespace emulator;
  if (std::strcmp(order, "forward") == 0) {
    ordering = {Order::Forward, 1};
  } else if (std::strcmp(order, "reverse") == 0) {
    ordering = {Order::Reverse, 1};
  } else if (std::strncmp(order, "random:", 7) == 0 && order[7] != 0) {
    char* end = nullptr;
    const std::uint64_t seed = std::strtoull(order + 7, &end, 10);
    if (*end != 0) return false;
    ordering = {Order::Random, seed};
  } else {
    return false;
  }
  return true;
}

namespace {

const emulator::Twin* twin_at(unsigned index) {
  const emulator::Twin* twin = emulator::twins;
  while (twin != nullptr && index > 0) {
    twin = twin->next;
    --index;
  }
  return twin;
}

} // namespace

extern "C" const char* plesio_emulated_kernel(unsigned index) {
  const emulator::Twin* twin = twin_at(index);
  return twin == nullptr ? nullptr : twin->name;
}

extern "C" const char* plesio_emulated_params(unsigned index) {
  const emulator::Twin* twin = twin_at(index);
  return twin == nullptr ? nullptr : twin->params;
}
