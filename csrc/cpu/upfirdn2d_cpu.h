// SPDX-License-Identifier: BSD-3-Clause
//
// The CPU kernels. They know pointers, sizes and strides (../upfirdn2d.h) and
// nothing of tensors or of torch: threads come from the caller. Scratch is up to 128 KB of
// stack per thread; what wants more takes heap: pixels of many channels, up to a few MB, and
// kernels of hundreds of taps.
#pragma once

#include <cstdint>

#include "../upfirdn2d.h"

namespace resample_layers {

// Runs body(begin, end, context) over [0, count) in chunks of at least `grain`
// on the caller's thread pool, and returns when all chunks are done.
using ParallelFor = void (*)(int64_t count, int64_t grain,
                             void (*body)(int64_t begin, int64_t end, void* context),
                             void* context);

// Forward and backward: the backward is the same op with up and down swapped
// and `flip` inverted. Results do not depend on the number of threads. The epilogue
// is in host memory with all that it points to; null: the op alone.
void upfirdn2d_cpu(const UpFirDn2dParams& params, const EpilogueParams* epilogue,
                   ParallelFor parallel_for, int num_threads);

// The kernel's gradient, written (not added) to kernel_grad. The order of all
// sums follows from the shapes alone: results do not depend on the threads.
void upfirdn2d_kernel_grad_cpu(const KernelGradParams& params, ParallelFor parallel_for,
                               int num_threads);

// The activation's gradient and the sums of it that are asked for, of at least one element.
// The order of all sums follows from the shapes alone. All pointers are to host memory.
void bias_act_grad_cpu(const BiasActGradParams& params, ParallelFor parallel_for,
                       int num_threads);

// The vector units in use: "avx512", "avx2", "baseline" (SSE2 on x86-64, what
// the compiler assumes elsewhere). RESAMPLE_LAYERS_CPU forces one of the three;
// it is read once, at the first call. Where it names none of them, or one that
// this processor lacks, the text returned begins with "error: " and says so,
// and the kernels run as if the variable were not set.
const char* cpu_capability();

}  // namespace resample_layers

// For tests and benchmarks, which call it through ctypes: the name of the walk that serves
// a call of upfirdn2d_cpu. The call comes as its integers: sizes and strides of in and of
// out (8 each, as in Plane4d), Geometry (8), flip, dtype.
extern "C" __attribute__((visibility("default"))) const char* resample_layers_cpu_walk(
    const int64_t* call, const void* kernel, const void* taps_x, const void* taps_y,
    const resample_layers::EpilogueParams* epilogue);

// The names of all walks, one a line.
extern "C" __attribute__((visibility("default"))) const char* resample_layers_cpu_walks();
