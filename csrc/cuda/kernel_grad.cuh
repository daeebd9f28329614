// SPDX-License-Identifier: BSD-3-Clause
//
// The gradient of the kernel: w[i, j] = sum of g[y, x] * u[...] over the whole
// batch. Two stages in a fixed order and no atomics, so that the result is the
// same from run to run and from device to device: blocks write one partial sum
// per tap to a workspace, and the second stage adds those in double.
#pragma once

#include "../upfirdn2d.h"
#include "device.cuh"

namespace resample_layers {

constexpr int kGradThreads = 256;
constexpr int kGradTaps = 8;          // taps of one block: sums held in registers
constexpr int kGradMaxChunks = 1024;  // shares of the batch, a block each for every group of taps
constexpr int64_t kGradWorkspace = int64_t{1} << 21;  // partial sums, if the taps are fewer
constexpr int kGradTerms = 1024;      // terms that a thread adds in the accumulate type

// Index is int32_t where every offset and position fits, else int64_t.
template <class Index>
struct KernelGradArgs {
  const void* input;
  const void* grad;
  void* kernel_grad;
  void* workspace;                                      // [chunks, kh * kw] accumulate type
  int64_t total;                                        // elements of grad
  Index c, in_h, in_w, out_h, out_w;                    //
  Index in_stride_n, in_stride_c, in_stride_h, in_stride_w;
  Index out_stride_n, out_stride_c, out_stride_h, out_stride_w;
  Index kh, kw, up_x, up_y, down_x, down_y, pad_x0, pad_y0;
  Index groups;                                         // of kGradTaps taps
  int chunks;
  bool channels_innermost;
};

// The sample under a position of the zero-inserted input, or -1.
template <class Index>
DEVICE Index sample_at(Index position, Index up, Index size) {
  if (position < 0) return -1;
  const Index sample = position / up;
  return sample < size && sample * up == position ? sample : -1;
}

// A block serves one chunk of the batch and one group of taps. The groups of one chunk are
// neighbours, since they read the same outputs.
template <class T, class Index>
__global__ void __launch_bounds__(kGradThreads)
    kernel_grad_partial(const KernelGradArgs<Index> a) {
  using acc_t = Accumulate<T>;
  SHARED_MEMORY(acc_t, shared);
  const T* const input = static_cast<const T*>(a.input);
  const T* const grad = static_cast<const T*>(a.grad);
  const Index taps = a.kh * a.kw;
  const Index chunk = static_cast<Index>(blockIdx.x) / a.groups;
  const Index first_tap = (static_cast<Index>(blockIdx.x) - chunk * a.groups) * kGradTaps;

  // Short sums in the accumulate type, which are added in double: so the error does not grow
  // with the number of terms of one thread.
  double sum[kGradTaps] = {};
  const int64_t step = static_cast<int64_t>(a.chunks) * kGradThreads;
  int64_t i = static_cast<int64_t>(chunk) * kGradThreads + threadIdx.x;
  while (i < a.total) {
    acc_t part[kGradTaps] = {};
    for (int term = 0; term < kGradTerms && i < a.total; ++term, i += step) {
      // Which output
      Index rest = static_cast<Index>(i), n, c, y, x;
      if (a.channels_innermost) {
        c = rest % a.c, rest /= a.c;
        x = rest % a.out_w, rest /= a.out_w;
        y = rest % a.out_h, n = rest / a.out_h;
      } else {
        x = rest % a.out_w, rest /= a.out_w;
        y = rest % a.out_h, rest /= a.out_h;
        c = rest % a.c, n = rest / a.c;
      }
      const acc_t g = to_accumulate(grad[n * a.out_stride_n + c * a.out_stride_c +
                                         y * a.out_stride_h + x * a.out_stride_w]);
      const T* const plane = input + n * a.in_stride_n + c * a.in_stride_c;

      // What it gives to each tap
#pragma unroll
      for (int k = 0; k < kGradTaps; ++k) {
        const Index tap = first_tap + k;
        if (tap >= taps) break;
        const Index tap_y = tap / a.kw, tap_x = tap % a.kw;
        const Index row = sample_at(y * a.down_y + (a.kh - 1 - tap_y) - a.pad_y0, a.up_y, a.in_h);
        const Index column =
            sample_at(x * a.down_x + (a.kw - 1 - tap_x) - a.pad_x0, a.up_x, a.in_w);
        if (row < 0 || column < 0) continue;
        part[k] += g * to_accumulate(plane[row * a.in_stride_h + column * a.in_stride_w]);
      }
    }
#pragma unroll
    for (int k = 0; k < kGradTaps; ++k) sum[k] += part[k];
  }

  // A tree over the threads, the same every time
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int k = 0; k < kGradTaps; ++k) {
    shared[k * kGradThreads + thread] = static_cast<acc_t>(sum[k]);
  }
  for (int half = kGradThreads / 2; half > 0; half /= 2) {
    BARRIER(30);
    if (thread < half) {
#pragma unroll
      for (int k = 0; k < kGradTaps; ++k) {
        shared[k * kGradThreads + thread] += shared[k * kGradThreads + thread + half];
      }
    }
  }
  BARRIER(31);
  if (thread < kGradTaps && first_tap + thread < taps) {
    const int64_t to = static_cast<int64_t>(chunk) * taps + first_tap + thread;
    static_cast<acc_t*>(a.workspace)[to] = shared[thread * kGradThreads];
  }
}

template <class T, class Index>
__global__ void __launch_bounds__(kGradThreads) kernel_grad_final(const KernelGradArgs<Index> a) {
  using acc_t = Accumulate<T>;
  const acc_t* const partial = static_cast<const acc_t*>(a.workspace);
  const int64_t taps = static_cast<int64_t>(a.kh) * a.kw;
  const int64_t tap = static_cast<int64_t>(blockIdx.x) * kGradThreads + threadIdx.x;
  if (tap >= taps) return;
  double sum = 0;
  for (int chunk = 0; chunk < a.chunks; ++chunk) sum += partial[chunk * taps + tap];
  static_cast<acc_t*>(a.kernel_grad)[tap] = static_cast<acc_t>(sum);
}

}  // namespace resample_layers
