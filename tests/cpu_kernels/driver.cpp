// SPDX-License-Identifier: BSD-3-Clause
//
// The CPU kernels as a library of a few C functions, for ctypes: no torch. The
// thread pool is a few std::threads per call, or, where its address is given,
// torch's own (torch_parallel_for of libtorch_cpu), so that timings compare.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "../../csrc/cpu/upfirdn2d_cpu.h"

namespace {

using Body = void (*)(int64_t, int64_t, void*);
using TorchParallelFor = int32_t (*)(int64_t, int64_t, int64_t, Body, void*);

TorchParallelFor torch_pool = nullptr;
int threads = 1;

void parallel_for(int64_t count, int64_t grain, Body body, void* context) {
  if (torch_pool != nullptr) {
    torch_pool(0, count, grain, body, context);
    return;
  }
  const int64_t workers = std::min<int64_t>(threads, (count + grain - 1) / grain);
  std::vector<std::thread> pool;
  for (int64_t i = 0; i < workers; ++i) {
    pool.emplace_back(body, count * i / workers, count * (i + 1) / workers, context);
  }
  for (std::thread& worker : pool) worker.join();
}

resample_layers::Plane4d plane(const int64_t* v) {
  return {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]};
}

// v: in (8), out (8), kh, kw, up_x, up_y, down_x, down_y, pad_x0, pad_y0, flip, dtype
resample_layers::Geometry geometry(const int64_t* v) {
  return {v[16], v[17], v[18], v[19], v[20], v[21], v[22], v[23]};
}

}  // namespace

extern "C" {

void use_torch_pool(void* address) { torch_pool = reinterpret_cast<TorchParallelFor>(address); }

const char* capability() { return resample_layers::cpu_capability(); }

void forward(const void* input, void* output, const void* kernel, const void* taps_x,
             const void* taps_y, const int64_t* v, int num_threads,
             const resample_layers::EpilogueParams* epilogue) {
  threads = num_threads;
  const resample_layers::UpFirDn2dParams params = {
      geometry(v), input,  output, plane(v), plane(v + 8),
      kernel,      taps_x, taps_y, v[24] != 0, resample_layers::Dtype(v[25])};
  resample_layers::upfirdn2d_cpu(params, epilogue, parallel_for, num_threads);
}

void kernel_grad(const void* input, const void* grad, void* result, const int64_t* v,
                 int num_threads) {
  threads = num_threads;
  const resample_layers::KernelGradParams params = {
      geometry(v), input, grad, result, plane(v), plane(v + 8), resample_layers::Dtype(v[25])};
  resample_layers::upfirdn2d_kernel_grad_cpu(params, parallel_for, num_threads);
}

void bias_act_grad(const resample_layers::BiasActGradParams* params, int num_threads) {
  threads = num_threads;
  resample_layers::bias_act_grad_cpu(*params, parallel_for, num_threads);
}

}  // extern "C"
