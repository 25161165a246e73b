// Fibers: stacks of their own that one OS thread switches between, on x86-64 and aarch64.
//
// Saved are the registers that a call must preserve (System V ABI x86-64, AAPCS64). A fiber runs its body once and then
// hands back; it is never unwound.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#if defined(__x86_64__)
extern "C" void emulator_switch(void** from, void* to);
__asm__(R"(
  .text
  .globl emulator_switch
  .hidden emulator_switch
  .type emulator_switch, @function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size emulator_switch, .-emulator_switch
)");
#elif defined(__aarch64__)
extern "C" void emulator_switch(void** from, void* to);
__asm__(R"(
  .text
  .globl emulator_switch
  .hidden emulator_switch
  .type emulator_switch, %function
emulator_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
  .size emulator_switch, .-emulator_switch
)");
#else
#error "the emulator's fibers are written for x86-64 and aarch64"
#endif

namespace emulator {

class Fiber {
 public:
  using Entry = void (*)();

  // Begins at `entry`, which must never return.
  void begin(Entry entry) {
    if (stack_ == nullptr) {
      stack_ = static_cast<char*>(std::aligned_alloc(64, STACK_BYTES));
      if (stack_ == nullptr) std::abort();
    }
    auto top = reinterpret_cast<std::uintptr_t>(stack_ + STACK_BYTES);
#if defined(__x86_64__)
    // `ret` takes the entry; a function begins with the stack eight bytes off a multiple of sixteen.
    auto* words = reinterpret_cast<void**>(top - 64);
    for (int word = 0; word < 6; ++word) words[word] = nullptr;
    words[6] = reinterpret_cast<void*>(entry);
    words[7] = nullptr;
    place_ = words;
#else
    auto* words = reinterpret_cast<void**>(top - 160);
    for (int word = 0; word < 20; ++word) words[word] = nullptr;
    words[11] = reinterpret_cast<void*>(entry); // x30, the link register
    place_ = words;
#endif
  }

  // Goes on where it left off, until it hands back.
  void resume(void** home) { emulator_switch(home, place_); }
  // Called by the fiber: back to whoever resumed it.
  void hand_back(void* home) { emulator_switch(&place_, home); }

 private:
  static constexpr std::size_t STACK_BYTES = 64 << 10;

  char* stack_ = nullptr; // kept for the next block
  void* place_ = nullptr;
};

} // namespace emulator
