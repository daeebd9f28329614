// SPDX-License-Identifier: BSD-3-Clause
//
// Running: the vector units of this processor, a plan for the call (choose.h), and its
// units of work handed to the caller's threads.
#include "upfirdn2d_cpu.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "choose.h"

namespace resample_layers {
namespace cpu {
namespace {

// ---------------------------------------------------------------- vector units

struct Capability {
  const Kernels* kernels = &baseline_kernels;
  std::string text = "baseline";
};

const Capability& capability() {
  static const Capability chosen = [] {
    Capability best;
    std::vector<Capability> offered{best};
#ifdef RESAMPLE_LAYERS_CPU_LEVELS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c")) {
      offered.push_back({&avx2_kernels, "avx2"});
      if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        offered.push_back({&avx512_kernels, "avx512"});
      }
    }
#endif
    best = offered.back();
    const char* wanted = std::getenv("RESAMPLE_LAYERS_CPU");
    if (wanted == nullptr || *wanted == '\0') return best;
    std::string names;
    for (const Capability& one : offered) {
      if (one.text == wanted) return one;
      names += (names.empty() ? "" : ", ") + one.text;
    }
    best.text = "error: RESAMPLE_LAYERS_CPU=" + std::string(wanted) +
                " is not one of the vector units of this processor: " + names;
    return best;
  }();
  return chosen;
}

// ---------------------------------------------------------------- units of work

// A thread's scratch up to this size is on its stack, above on the heap.
constexpr int64_t kStackBytes = 128 * 1024;
// Partial sums of all chunks of a kernel's gradient, 8 MB: 64 chunks up to 16,384 taps.
constexpr int64_t kChunkSums = 1 << 20;

struct Call {
  const Plan* plan;
  const Kernels* kernels;
  int dtype;
  int64_t element;
  // The kernel's gradient: chunks of units with a row of partial sums each.
  int64_t units, chunks, kh, kw;
  double* sums;
};

template <class Run>
void with_heap(const Call& call, const Run& run) {
  const Plan& plan = *call.plan;
  const int64_t bytes = plan.scratch_elements * call.element;
  std::vector<const void*> pointers(plan.pointer_count);
  std::unique_ptr<char[]> memory(new char[bytes + 64]);
  char* aligned = memory.get() + (64 - reinterpret_cast<uintptr_t>(memory.get()) % 64);
  run(aligned, pointers.data());
}

template <class Run>
void with_stack(const Run& run) {
  alignas(64) char memory[kStackBytes];
  const void* pointers[256];
  run(memory, pointers);
}

template <class Run>
void with_scratch(const Call& call, const Run& run) {
  const Plan& plan = *call.plan;
  if (plan.scratch_elements * call.element <= kStackBytes && plan.pointer_count <= 256) {
    with_stack(run);
  } else {
    with_heap(call, run);
  }
}

void run_upfirdn2d(int64_t begin, int64_t end, void* context) {
  const Call& call = *static_cast<const Call*>(context);
  with_scratch(call, [&](void* scratch, const void** pointers) {
    call.kernels->upfirdn2d[call.dtype](*call.plan, begin, end, scratch, pointers);
  });
}

void run_kernel_grad(int64_t begin, int64_t end, void* context) {
  const Call& call = *static_cast<const Call*>(context);
  with_scratch(call, [&](void* scratch, const void** pointers) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      call.kernels->kernel_grad[call.dtype](
          *call.plan, call.units * chunk / call.chunks, call.units * (chunk + 1) / call.chunks,
          scratch, pointers, call.sums + chunk * call.kh * call.kw, call.kw);
    }
  });
}

int64_t units_of(const Plan& plan) {
  return plan.in.n * plan.channel_tiles * plan.x_tiles * plan.y_units;
}

template <class A>
void upfirdn2d(const UpFirDn2dParams& params, const EpilogueParams* epilogue,
               ParallelFor parallel_for, int num_threads) {
  const Kernels* kernels = capability().kernels;
  PlannedCall<A> planned;
  plan_upfirdn2d(params, epilogue, kernels->vector_bytes, num_threads, planned);
  const int64_t units = units_of(planned.plan);
  const int64_t elements = params.out.n * params.out.c *
                           (params.out.h * params.out.w + params.in.h * params.in.w);
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, elements / units));
  Call call{&planned.plan, kernels, int(params.dtype), sizeof(A), 0, 0, 0, 0, nullptr};
  if (num_threads <= 1 || units <= grain) run_upfirdn2d(0, units, &call);
  else parallel_for(units, grain, run_upfirdn2d, &call);
}

template <class A>
void kernel_grad(const KernelGradParams& params, ParallelFor parallel_for, int num_threads) {
  PlannedCall<A> planned;
  plan_kernel_grad(params, planned);
  // Chunks of units have partial sums each: fewer chunks where a kernel has very many taps.
  const int64_t size = params.kh * params.kw;
  const int64_t units = units_of(planned.plan);
  const int64_t chunks = std::min({units, int64_t(64), std::max<int64_t>(4, kChunkSums / size)});
  std::vector<double> sums(chunks * size, 0.0);
  Call call{&planned.plan, capability().kernels, int(params.dtype), sizeof(A),   units,
            chunks,        params.kh,            params.kw,         sums.data()};
  const int64_t work = params.out.n * params.out.c * params.out.h * params.out.w;
  if (num_threads <= 1 || work < 16384) run_kernel_grad(0, chunks, &call);
  else parallel_for(chunks, 1, run_kernel_grad, &call);

  // Taps were numbered in reading order: backwards in the kernel.
  A* to = static_cast<A*>(params.kernel_grad);
  for (int64_t s = 0; s < size; ++s) {
    double total = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) total += sums[chunk * size + s];
    to[size - 1 - s] = A(total);
  }
}

template <class A>
const char* walk(const UpFirDn2dParams& params, const EpilogueParams* epilogue) {
  PlannedCall<A> planned;
  plan_upfirdn2d(params, epilogue, capability().kernels->vector_bytes, 1, planned);
  return name_of(planned.plan.walk);
}

}  // namespace

const Kernels& kernels_in_use() { return *capability().kernels; }

}  // namespace cpu

void upfirdn2d_cpu(const UpFirDn2dParams& params, const EpilogueParams* epilogue,
                   ParallelFor parallel_for, int num_threads) {
  if (params.out.n * params.out.c * params.out.h * params.out.w == 0) return;
  const bool wide = params.dtype == Dtype::float64;
  (wide ? cpu::upfirdn2d<double> : cpu::upfirdn2d<float>)(params, epilogue, parallel_for,
                                                          num_threads);
}

void upfirdn2d_kernel_grad_cpu(const KernelGradParams& params, ParallelFor parallel_for,
                               int num_threads) {
  const bool wide = params.dtype == Dtype::float64;
  if (params.out.n * params.out.c * params.out.h * params.out.w == 0) {
    std::memset(params.kernel_grad, 0, size_t(params.kh * params.kw) * (wide ? 8 : 4));
  } else if (wide) {
    cpu::kernel_grad<double>(params, parallel_for, num_threads);
  } else {
    cpu::kernel_grad<float>(params, parallel_for, num_threads);
  }
}

const char* cpu_capability() { return cpu::capability().text.c_str(); }

}  // namespace resample_layers

const char* resample_layers_cpu_walk(const int64_t* call, const void* kernel, const void* taps_x,
                                     const void* taps_y,
                                     const resample_layers::EpilogueParams* epilogue) {
  using namespace resample_layers;
  UpFirDn2dParams params{};
  static_cast<Geometry&>(params) = {call[16], call[17], call[18], call[19],
                                    call[20], call[21], call[22], call[23]};
  params.in = {call[0], call[1], call[2], call[3], call[4], call[5], call[6], call[7]};
  params.out = {call[8], call[9], call[10], call[11], call[12], call[13], call[14], call[15]};
  params.kernel = kernel;
  params.taps_x = taps_x;
  params.taps_y = taps_y;
  params.flip = call[24] != 0;
  params.dtype = Dtype(call[25]);
  const bool wide = params.dtype == Dtype::float64;
  return (wide ? cpu::walk<double> : cpu::walk<float>)(params, epilogue);
}

const char* resample_layers_cpu_walks() {
  static const std::string text = [] {
    std::string names;
    for (const char* name : resample_layers::cpu::walk_names()) names += std::string(name) + "\n";
    return names;
  }();
  return text.c_str();
}
