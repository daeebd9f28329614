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

namespace resample_layers {

// Index is int32_t where every offset and coordinate fits, else int64_t.
template <class Index>
struct GenericArgs {
  const void* input;
  void* output;
  const void* kernel;
  const void* taps_x;
  const void* taps_y;
  Index total;                                          // outputs
  Index c, in_h, in_w, out_h, out_w;                    //
  Index in_stride_n, in_stride_c, in_stride_h, in_stride_w;
  Index out_stride_n, out_stride_c, out_stride_h, out_stride_w;
  Index kh, kw, up_x, up_y, down_x, down_y, pad_x0, pad_y0;
  bool flip;
  bool channels_innermost;                              // the order threads take outputs in
};

// The taps of one axis that meet a sample and not an inserted zero, for one output: from `tap`,
// which meets `sample`, every up-th one, which meet the samples after it.
template <class Index>
struct AxisTaps {
  Index tap, sample;

  DEVICE AxisTaps(Index out, Index down, Index pad, Index up) {
    const Index start = out * down - pad;
    const Index remainder = start % up;
    tap = remainder == 0 ? 0 : (remainder < 0 ? -remainder : up - remainder);
    sample = (start + tap) / up;
  }

  // Move past the samples before the first one.
  DEVICE void skip_outside(Index up) {
    if (sample < 0) {
      tap -= sample * up;
      sample = 0;
    }
  }
};

template <class T, class Index, class Epilogue>
__global__ void __launch_bounds__(256)
    generic_kernel(const GenericArgs<Index> a, const Epilogue epilogue) {
  using acc_t = Accumulate<T>;
  const T* const input = static_cast<const T*>(a.input);
  T* const output = static_cast<T*>(a.output);
  const acc_t* const kernel = static_cast<const acc_t*>(a.kernel);
  const acc_t* const taps_x = static_cast<const acc_t*>(a.taps_x);
  const acc_t* const taps_y = static_cast<const acc_t*>(a.taps_y);

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

    // Its sum: rows from the first tap that meets a sample, columns likewise
    const T* const plane = input + n * a.in_stride_n + c * a.in_stride_c;
    AxisTaps<Index> row(y, a.down_y, a.pad_y0, a.up_y);
    AxisTaps<Index> first_column(x, a.down_x, a.pad_x0, a.up_x);
    row.skip_outside(a.up_y);
    first_column.skip_outside(a.up_x);
    acc_t sum = 0;
    for (; row.tap < a.kh && row.sample < a.in_h; row.tap += a.up_y, ++row.sample) {
      const Index i_tap = a.flip ? row.tap : a.kh - 1 - row.tap;
      const acc_t* const taps = kernel ? kernel + i_tap * a.kw : taps_x;
      const T* const samples = plane + row.sample * a.in_stride_h;
      acc_t row_sum = 0;
      AxisTaps<Index> column = first_column;
      for (; column.tap < a.kw && column.sample < a.in_w; column.tap += a.up_x, ++column.sample) {
        const Index j_tap = a.flip ? column.tap : a.kw - 1 - column.tap;
        row_sum += taps[j_tap] * to_accumulate(samples[column.sample * a.in_stride_w]);
      }
      sum += kernel ? row_sum : row_sum * taps_y[i_tap];
    }

    if constexpr (Epilogue::kActive) {
      const int64_t position = static_cast<int64_t>(y) * a.out_w + x;
      sum = epilogue(sum, epilogue.noise(n, position), epilogue.bias(static_cast<int>(c)));
    }
    output[n * a.out_stride_n + c * a.out_stride_c + y * a.out_stride_h + x * a.out_stride_w] =
        from_accumulate<T>(sum);
  }
}

}  // namespace resample_layers
