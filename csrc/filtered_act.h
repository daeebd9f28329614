// SPDX-License-Identifier: BSD-3-Clause
//
// The contract of one call of filtered_act and of filtered_act_grad, as upfirdn2d.h is the
// contract of upfirdn2d: checked where it is filled (upfirdn2d_ops.cpp), trusted from here on.
//
// The mathematics, with upfirdn2d as in upfirdn2d.h (no kernel is read backwards by the op):
//
//   m    = upfirdn2d(input + bias[c], up_filter, up, up_pad)           [mid_h, mid_w]
//   a    = clamp(gain * f(m; alpha[c], beta[c]), -clamp, clamp)        f: nonlinearity.h
//   out  = upfirdn2d(a, down_filter, down, down_pad)                   [out.h, out.w]
//
// What lies outside the input, and outside a, is zero; with `replicate` it is the nearest
// sample: input + bias is continued before zeros are inserted, and a by its own ends.
// Pads are counted on the upsampled grid, which is the grid of m; they may be negative (crop).
// Pads after the samples are implied by the sizes of m and of the output.
//
// The gradient computes m anew from the input. With g_a the adjoint of the second upfirdn2d of
// grad (what was read beyond the ends counts for the end samples):
//
//   g_m        = g_a * gain * f'(m) where |gain * f(m)| <= clamp, else 0
//   grad_input = the adjoint of the first upfirdn2d of g_m
//   grad_bias  = sum of grad_input over n, y and x
//   grad_alpha = sum of g_a * gain * df/dalpha over n and all of m, where not clamped; so beta
#pragma once

#include <cstdint>

#include "upfirdn2d.h"

namespace resample_layers {

// A 2-D kernel or the taps of both axes, in the accumulate type.
struct Filter {
  const void* kernel;      // [kh, kw] row-major; null: separable
  const void* taps_x;      // [kw]; null: not separable
  const void* taps_y;      // [kh]; null: not separable
  int64_t kh, kw;          //                                    [taps], >= 1
};

struct FilteredActParams {
  const void* input;       // data of in                         [dtype]
  void* output;            // forward: data of out; gradient: that of grad_input [dtype]
  Plane4d in;              // any strides
  Plane4d out;             // forward: out, dense; gradient: grad_input, dense, sizes of in
  const void* bias;        // [C]; null: none                    [accumulate type]
  const void* alpha;       // [C]; null: none                    [accumulate type]
  const void* beta;        // [C]; null: none                    [accumulate type]
  Filter up_filter;
  Filter down_filter;
  int64_t up_x, up_y;      // zero insertion                     [factor], >= 1
  int64_t down_x, down_y;  // decimation                         [factor], >= 1
  int64_t up_pad_x0, up_pad_y0;      // before the first sample of the input [upsampled samples]
  int64_t down_pad_x0, down_pad_y0;  // before the first sample of a         [upsampled samples]
  int64_t mid_h, mid_w;    // size of m                          [upsampled samples], >= 1
  bool replicate;          // false: zeros beyond the ends
  int32_t activation;      // a Nonlinearity (nonlinearity.h)
  double slope;            // of the negative side; leaky_relu only
  double gain;             // after the activation, > 0
  double clamp;            // largest magnitude, > 0; negative: none
  Dtype dtype;             // of input, output and grad
};

struct FilteredActGradParams : FilteredActParams {
  const void* grad;        // gradient of the forward output     [dtype]
  Plane4d grad_plane;      // its sizes and strides, any strides
  void* grad_bias;         // [C], written; null: not wanted     [accumulate type]
  void* grad_alpha;        // [C], written; null: not wanted     [accumulate type]
  void* grad_beta;         // [C], written; null: not wanted     [accumulate type]
};

}  // namespace resample_layers
