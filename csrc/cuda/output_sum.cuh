// SPDX-License-Identifier: BSD-3-Clause
//
// One output as the definition says it: a sum over the samples that exist. Neither
// padding nor an inserted zero is multiplied, so that a tap of NaN or infinity gives
// NaN only where it meets a sample.
#pragma once

#include "device.cuh"

namespace resample_layers {

// Index is int32_t where every offset and coordinate fits, else int64_t.
template <class Index>
struct Filter {
  const void* kernel;                        // [kh, kw]; null: separable
  const void* taps_x;                        // [kw]
  const void* taps_y;                        // [kh]
  Index kh, kw, up_x, up_y, down_x, down_y, pad_x0, pad_y0;
  Index in_h, in_w, in_stride_h, in_stride_w;
  bool flip;
};

// The taps of one axis that meet a sample, for one output: from `tap`, which meets `sample`,
// every up-th one, which meet the samples after it.
template <class Index>
struct AxisTaps {
  Index tap, sample;

  DEVICE AxisTaps(Index out, Index down, Index pad, Index up) {
    const Index start = out * down - pad;
    const Index remainder = start % up;
    tap = remainder == 0 ? 0 : (remainder < 0 ? -remainder : up - remainder);
    sample = (start + tap) / up;
    if (sample < 0) {  // the first ones lie before the image
      tap -= sample * up;
      sample = 0;
    }
  }
};

// plane: the samples of one channel.
template <class T, class Index>
DEVICE Accumulate<T> output_sum(const Filter<Index>& f, const T* plane, Index y, Index x) {
  using acc_t = Accumulate<T>;
  const acc_t* const kernel = static_cast<const acc_t*>(f.kernel);
  const acc_t* const taps_x = static_cast<const acc_t*>(f.taps_x);
  const acc_t* const taps_y = static_cast<const acc_t*>(f.taps_y);
  AxisTaps<Index> row(y, f.down_y, f.pad_y0, f.up_y);
  const AxisTaps<Index> first_column(x, f.down_x, f.pad_x0, f.up_x);
  acc_t sum = 0;
  // Without a column that exists, a row has no sum that its tap could multiply.
  if (first_column.tap >= f.kw || first_column.sample >= f.in_w) return sum;
#pragma unroll 1
  for (; row.tap < f.kh && row.sample < f.in_h; row.tap += f.up_y, ++row.sample) {
    const Index i_tap = f.flip ? row.tap : f.kh - 1 - row.tap;
    const acc_t* const taps = kernel ? kernel + i_tap * f.kw : taps_x;
    const T* const samples = plane + row.sample * f.in_stride_h;
    acc_t row_sum = 0;
    AxisTaps<Index> column = first_column;
    for (; column.tap < f.kw && column.sample < f.in_w; column.tap += f.up_x, ++column.sample) {
      const Index j_tap = f.flip ? column.tap : f.kw - 1 - column.tap;
      row_sum += taps[j_tap] * to_accumulate(samples[column.sample * f.in_stride_w]);
    }
    sum += kernel ? row_sum : row_sum * taps_y[i_tap];
  }
  return sum;
}

}  // namespace resample_layers
