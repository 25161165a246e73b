// The emulator as a program: a device whose memory is this process, driven by calls on stdin that are answered on stdout.
// With --list it names each kernel and the struct that it takes, and ends.
//
//   call       then                                         answer
//   'o' order  text                                         -
//   'a' alloc  bytes u64, align u64                         address u64
//   'f' free   address u64                                  -
//   'w' write  address u64, contents                        -
//   'r' read   address u64, bytes u64                       contents
//   'l' launch text, blocks u32, threads u32, warp u32, parameters   -
//
// Every answer begins with a status u32 and a text: 0 and nothing, or what is wrong. Texts and contents begin with their
// length, u64; all is little-endian. An allocation ends where memory ends, up to its alignment, and is full of NaN: a
// kernel that goes beyond it is caught at that instruction or, where it wrote into the rest, afterwards.
#include "emulate.h"

#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <sys/mman.h>

namespace {

constexpr std::size_t PAGE_BYTES = 64 << 10; // a multiple of every page size
constexpr unsigned char CANARY = 0x5a;
constexpr unsigned char POISON = 0xff;
constexpr std::uint64_t BYTES_MAX = 1ULL << 32;

[[noreturn]] void quit(const char* why) {
  std::fprintf(stderr, "emulator: %s\n", why);
  std::_Exit(2);
}

bool take(void* into, std::size_t bytes) { return std::fread(into, 1, bytes, stdin) == bytes; }

template <class Word> Word take_word() {
  Word word = 0;
  if (!take(&word, sizeof word)) quit("a call ends within a number");
  return word;
}

template <class Bytes> Bytes take_bytes() {
  const auto count = take_word<std::uint64_t>();
  if (count > BYTES_MAX) quit("a call has a length that is none");
  Bytes bytes(count, {});
  if (count > 0 && !take(&bytes[0], count)) quit("a call ends within its contents");
  return bytes;
}

void give(const void* from, std::size_t bytes) {
  if (bytes > 0 && std::fwrite(from, 1, bytes, stdout) != bytes) quit("nobody takes the answer");
}

void give_bytes(const void* from, std::uint64_t bytes) {
  give(&bytes, sizeof bytes);
  give(from, bytes);
}

void give_status(const std::string& trouble) {
  const std::uint32_t status = trouble.empty() ? 0 : 1;
  give(&status, sizeof status);
  give_bytes(trouble.data(), trouble.size());
}

// Memory that ends where memory ends.
class Guarded {
 public:
  Guarded(std::size_t bytes, std::size_t align) : bytes_(bytes) {
    inner_ = (bytes + align + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    void* all = mmap(nullptr, inner_ + 2 * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) quit("no memory for an allocation");
    map_ = static_cast<unsigned char*>(all);
    if (mprotect(map_ + PAGE_BYTES, inner_, PROT_READ | PROT_WRITE) != 0) quit("no memory for an allocation");
    std::memset(map_ + PAGE_BYTES, CANARY, inner_);
    data_ = map_ + PAGE_BYTES + (inner_ - bytes) / align * align;
    std::memset(data_, POISON, bytes);
  }
  Guarded(const Guarded&) = delete;
  ~Guarded() { munmap(map_, inner_ + 2 * PAGE_BYTES); }

  unsigned char* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

  bool whole() const {
    for (const unsigned char* byte = map_ + PAGE_BYTES; byte < data_; ++byte)
      if (*byte != CANARY) return false;
    for (const unsigned char* byte = data_ + bytes_; byte < map_ + PAGE_BYTES + inner_; ++byte)
      if (*byte != CANARY) return false;
    return true;
  }

  bool around(const void* address) const {
    const auto* byte = static_cast<const unsigned char*>(address);
    return byte >= map_ && byte < map_ + inner_ + 2 * PAGE_BYTES;
  }

  std::string beyond(const void* address) const {
    return "touched byte " + std::to_string(static_cast<const unsigned char*>(address) - data_) +
           " of an allocation of " + std::to_string(bytes_);
  }

 private:
  unsigned char* map_;
  unsigned char* data_;
  std::size_t bytes_;
  std::size_t inner_;
};

std::map<std::uint64_t, std::unique_ptr<Guarded>> allocations; // by address

// The bytes of a range, all of which lie in one allocation; null else.
unsigned char* find(std::uint64_t address, std::uint64_t bytes) {
  auto after = allocations.upper_bound(address);
  if (after == allocations.begin()) return nullptr;
  const Guarded& one = *std::prev(after)->second;
  const std::uint64_t offset = address - std::prev(after)->first;
  return offset <= one.bytes() && bytes <= one.bytes() - offset ? one.data() + offset : nullptr;
}

#if !defined(EMULATOR_THREADS)
sigjmp_buf outside;
const void* volatile touched = nullptr;

void handle_fault(int, siginfo_t* info, void*) {
  touched = info->si_addr;
  siglongjmp(outside, 1);
}

void catch_faults() {
  static char stack[64 << 10];
  stack_t other{};
  other.ss_sp = stack;
  other.ss_size = sizeof stack;
  struct sigaction action {};
  action.sa_sigaction = handle_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  if (sigaltstack(&other, nullptr) != 0 || sigaction(SIGSEGV, &action, nullptr) != 0 ||
      sigaction(SIGBUS, &action, nullptr) != 0)
    quit("faults cannot be caught");
}
#endif

void launch() {
  const auto kernel = take_bytes<std::string>();
  const auto blocks = take_word<std::uint32_t>(), threads = take_word<std::uint32_t>(),
             warp = take_word<std::uint32_t>();
  const auto params = take_bytes<std::vector<unsigned char>>();
#if !defined(EMULATOR_THREADS)
  if (sigsetjmp(outside, 1) != 0) {
    std::string trouble = "touched memory that was never allocated";
    const void* address = touched;
    for (const auto& [base, one] : allocations)
      if (one->around(address)) trouble = one->beyond(address);
    give_status(kernel + ": " + trouble);
    std::fflush(stdout);
    std::_Exit(4); // what the kernel held is held for good: this device is lost
  }
#endif
  char message[600] = "";
  plesio_emulate(kernel.c_str(), blocks, threads, params.data(), static_cast<unsigned>(params.size()), warp, message,
                 sizeof message);
  std::string trouble = message;
  for (const auto& [base, one] : allocations)
    if (trouble.empty() && !one->whole())
      trouble = kernel + ": wrote beyond an allocation of " + std::to_string(one->bytes()) + " bytes";
  give_status(trouble);
}

void serve(char call) {
  switch (call) {
    case 'o':
      give_status(plesio_emulated_order(take_bytes<std::string>().c_str()) ? "" : "there is no such order");
      return;
    case 'a': {
      const auto bytes = take_word<std::uint64_t>(), align = take_word<std::uint64_t>();
      if (bytes > BYTES_MAX || align == 0 || align > 4096) return give_status("no such allocation");
      auto one = std::make_unique<Guarded>(bytes, align);
      const std::uint64_t address = reinterpret_cast<std::uintptr_t>(one->data());
      allocations[address] = std::move(one);
      give_status("");
      return give(&address, sizeof address);
    }
    case 'f':
      return give_status(allocations.erase(take_word<std::uint64_t>()) == 1 ? "" : "nothing was allocated there");
    case 'w': {
      const auto address = take_word<std::uint64_t>();
      const auto contents = take_bytes<std::vector<unsigned char>>();
      unsigned char* at = find(address, contents.size());
      if (at == nullptr) return give_status("a write beyond an allocation");
      std::memcpy(at, contents.data(), contents.size());
      return give_status("");
    }
    case 'r': {
      const auto address = take_word<std::uint64_t>(), bytes = take_word<std::uint64_t>();
      const unsigned char* at = find(address, bytes);
      if (at == nullptr) return give_status("a read beyond an allocation");
      give_status("");
      return give_bytes(at, bytes);
    }
    case 'l':
      return launch();
    default:
      quit("there is no such call");
  }
}

} // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
    for (unsigned index = 0; const char* name = plesio_emulated_kernel(index); ++index)
      std::printf("%s %s\n", name, plesio_emulated_params(index));
    return 0;
  }
#if !defined(EMULATOR_THREADS)
  catch_faults();
#endif
  char call = 0;
  while (take(&call, 1)) {
    serve(call);
    std::fflush(stdout);
  }
  return 0;
}
