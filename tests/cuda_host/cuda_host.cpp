// SPDX-License-Identifier: BSD-3-Clause
//
// Threads as fibres. On x86-64 a switch is a dozen instructions; elsewhere
// ucontext, slower and portable. The address sanitizer is told of each switch.
#include "cuda_host.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define FIBRE_ASAN 1
#else
#define FIBRE_ASAN 0
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_host {

Options options;
std::vector<int64_t> barriers_met(96, 0);

void fail(const char* message) {
  std::fprintf(stderr, "cuda_host: %s (block %u, thread %u)\n", message, blockIdx.x, threadIdx.x);
  std::fflush(stderr);
  std::_Exit(3);
}

namespace {

constexpr size_t kStack = 96 * 1024;

struct Fibre {
  std::unique_ptr<char[]> stack;
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t context;
#endif
  void* fake_stack = nullptr;
  bool done = false;
  int barrier = -1;  // where it waits
  unsigned index = 0;
};

struct Scheduler {
  std::vector<std::unique_ptr<Fibre>> fibres;
  Fibre main;
  Fibre* current = nullptr;
  const void* main_stack = nullptr;
  size_t main_stack_size = 0;
  const std::function<void()>* body = nullptr;
  void* shared = nullptr;
  bool flagged = false;  // at the barrier where threads wait, so far
  bool any = false;      // at the last barrier that all have passed
};
Scheduler scheduler;

#if defined(__x86_64__)
// Save the callee's registers and the stack pointer, load the other's.
extern "C" void cuda_host_switch(void** save, void* load);
asm(R"(
.text
.globl cuda_host_switch
.type cuda_host_switch, @function
cuda_host_switch:
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
.size cuda_host_switch, .-cuda_host_switch
)");
#endif

void switch_to(Fibre& from, Fibre& to) {
#if FIBRE_ASAN
  const bool to_main = &to == &scheduler.main;
  const void* bottom = to_main ? scheduler.main_stack : to.stack.get();
  const size_t size = to_main ? scheduler.main_stack_size : kStack;
  // A finished fibre never comes back: its fake stack may go.
  __sanitizer_start_switch_fiber(from.done ? nullptr : &from.fake_stack, bottom, size);
#endif
#if defined(__x86_64__)
  cuda_host_switch(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.context, &to.context);
#endif
#if FIBRE_ASAN
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void fibre_main() {
#if FIBRE_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &scheduler.main_stack, &scheduler.main_stack_size);
#endif
  (*scheduler.body)();
  Fibre& self = *scheduler.current;
  self.done = true;
  switch_to(self, scheduler.main);
  std::abort();
}

void prepare(Fibre& fibre) {
  if (!fibre.stack) fibre.stack.reset(new char[kStack]);
  fibre.done = false;
  fibre.barrier = -1;
  fibre.fake_stack = nullptr;
#if defined(__x86_64__)
  uintptr_t top = reinterpret_cast<uintptr_t>(fibre.stack.get() + kStack) & ~uintptr_t{15};
  void** slot = reinterpret_cast<void**>(top);
  *--slot = nullptr;  // the return address of fibre_main, which never returns
  *--slot = reinterpret_cast<void*>(&fibre_main);
  for (int i = 0; i < 6; ++i) *--slot = nullptr;
  fibre.stack_pointer = slot;
#else
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack.get();
  fibre.context.uc_stack.ss_size = kStack;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, fibre_main, 0);
#endif
}

}  // namespace

void barrier(int number) {
  if (number < 0 || number >= static_cast<int>(barriers_met.size())) fail("barrier number");
  ++barriers_met[number];
  if (number == options.removed_barrier) return;
  Fibre& self = *scheduler.current;
  self.barrier = number;
  switch_to(self, scheduler.main);
  threadIdx.x = self.index;
}

bool barrier_any(int number, bool flag) {
  if (number == options.removed_barrier) {
    barrier(number);  // which counts it
    return flag;
  }
  scheduler.flagged |= flag;
  barrier(number);
  return scheduler.any;
}

void* shared_memory() { return scheduler.shared; }

void launch(unsigned grid, unsigned block, size_t shared, const std::function<void()>& body,
            const std::vector<unsigned>& only) {
  if (block == 0 || block > 1024) fail("block size");
  if (grid == 0 || grid > 0x7fffffffu) fail("grid size");
  scheduler.body = &body;
  blockDim = Dim3{block, 1, 1};
  gridDim = Dim3{grid, 1, 1};
  while (scheduler.fibres.size() < block) {
    scheduler.fibres.push_back(std::make_unique<Fibre>());
    scheduler.fibres.back()->index = static_cast<unsigned>(scheduler.fibres.size() - 1);
  }
  std::mt19937 random(options.seed);
  std::vector<unsigned> order(block);
  std::iota(order.begin(), order.end(), 0u);
  if (options.order == Order::descending) std::reverse(order.begin(), order.end());

  const unsigned count = only.empty() ? grid : static_cast<unsigned>(only.size());
  for (unsigned i = 0; i < count; ++i) {
    blockIdx = Dim3{only.empty() ? i : only[i], 0, 0};
    // aligned_alloc would round the size up: malloc is aligned to 16 bytes and exact.
    void* memory = std::malloc(shared > 0 ? shared : 1);
    std::memset(memory, 0xff, shared);
    scheduler.shared = memory;
    for (unsigned t = 0; t < block; ++t) prepare(*scheduler.fibres[t]);

    // From barrier to barrier, until all are done
    unsigned running = block;
    while (running > 0) {
      if (options.order == Order::random) std::shuffle(order.begin(), order.end(), random);
      int waiting_at = -1;
      unsigned waiting = 0;
      for (unsigned t : order) {
        Fibre& fibre = *scheduler.fibres[t];
        if (fibre.done) continue;
        scheduler.current = &fibre;
        threadIdx = Dim3{t, 0, 0};
        switch_to(scheduler.main, fibre);
        if (fibre.done) {
          --running;
          continue;
        }
        if (waiting > 0 && waiting_at != fibre.barrier) fail("threads wait at two barriers");
        waiting_at = fibre.barrier;
        ++waiting;
      }
      scheduler.any = scheduler.flagged;
      scheduler.flagged = false;
      // On a GPU a barrier that some threads never reach is undefined.
      if (waiting > 0 && waiting != block) fail("a thread left before a barrier");
    }
    std::free(memory);
  }
}

}  // namespace cuda_host
