// SPDX-License-Identifier: BSD-3-Clause
//
// The kernel that is right for every configuration: any rates, any number of
// taps, any strides, crops, two-dimensional or separable. One thread per output
// and no shared memory; no inserted zero is multiplied, as each axis steps
// through its taps by `up`.
#pragma once

#include "../upfirdn2d.h"
#include "device.cuh"
#include "epilogue.cuh"
#include "output_sum.cuh"

namespace resample_layers {

// Index is int32_t where every offset and coordinate fits, else int64_t.
template <class Index>
struct GenericArgs {
  const void* input;
  void* output;
  Filter<Index> filter;
  Index total;                                          // outputs
  Index c, out_h, out_w;                                //
  Index in_stride_n, in_stride_c;
  Index out_stride_n, out_stride_c, out_stride_h, out_stride_w;
  bool channels_innermost;                              // the order threads take outputs in
};

template <class T, class Index, class Epilogue>
__global__ void __launch_bounds__(256)
    generic_kernel(const GenericArgs<Index> a, const Epilogue epilogue) {
  const T* const input = static_cast<const T*>(a.input);
  T* const output = static_cast<T*>(a.output);

  // A step may pass the end of Index only in the last round: count in 64 bits.
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < a.total;
       i += step) {
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

    const T* const plane = input + n * a.in_stride_n + c * a.in_stride_c;
    Accumulate<T> sum = output_sum<T, Index>(a.filter, plane, y, x);
    if constexpr (Epilogue::kActive) {
      const int64_t position = static_cast<int64_t>(y) * a.out_w + x;
      const int channel = static_cast<int>(c);
      sum = epilogue(sum, epilogue.scale(n, channel), epilogue.noise(n, position),
                     epilogue.bias(channel));
    }
    output[n * a.out_stride_n + c * a.out_stride_c + y * a.out_stride_h + x * a.out_stride_w] =
        from_accumulate<T>(sum);
  }
}

}  // namespace resample_layers
