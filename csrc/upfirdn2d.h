// SPDX-License-Identifier: BSD-3-Clause
//
// The bridge between the operators, which know tensors, and the kernels, which
// know pointers. One struct is the whole contract of one call; it is checked
// where it is filled (upfirdn2d_ops.cpp) and trusted from here on.
//
// The mathematics, the same for every backend (see resample_layers/geometry.py):
//
//   u[a, b]   = input[a / up_y, b / up_x]   where both divide and lie inside, else 0
//   out[y, x] = sum over i, j of k[i, j] * u[y * down_y + (kh - 1 - i) - pad_y0,
//                                            x * down_x + (kw - 1 - j) - pad_x0]
//
// and for the kernel's gradient, with g of the shape of out:
//
//   w[i, j]   = sum over n, c, y, x of g[y, x] * u[y * down_y + (kh - 1 - i) - pad_y0,
//                                                  x * down_x + (kw - 1 - j) - pad_x0]
//
// Pads after the samples are implied by out_h and out_w. A pad may be negative
// (crop). Any index outside the input reads zero.
#pragma once

#include <cstdint>

namespace resample_layers {

// Storage type of input and output. Sums and taps are float for float16,
// bfloat16 and float32, and double for float64 ("the accumulate type").
enum class Dtype : int32_t { float16, bfloat16, float32, float64 };

// A [N, C, H, W] array somewhere in memory.
struct Plane4d {
  int64_t n, c, h, w;                          // sizes          [elements]
  int64_t stride_n, stride_c, stride_h, stride_w;  // strides    [elements]
};

// What every kernel of the op needs to know beside the arrays.
struct Geometry {
  int64_t kh, kw;          // kernel size                        [taps], >= 1
  int64_t up_x, up_y;      // zero insertion                     [factor], >= 1
  int64_t down_x, down_y;  // decimation                         [factor], >= 1
  int64_t pad_x0, pad_y0;  // before the first sample            [upsampled samples]
};

struct UpFirDn2dParams : Geometry {
  const void* input;       // data of in                         [dtype]
  void* output;            // data of out                        [dtype]
  Plane4d in;              //
  Plane4d out;             // dense: contiguous or channels_last
  const void* kernel;      // [kh, kw] row-major; null: separable [accumulate type]
  const void* taps_x;      // [kw]; null: not separable          [accumulate type]
  const void* taps_y;      // [kh]; null: not separable          [accumulate type]
  bool flip;               // true: taps are read backwards, k[kh-1-i, kw-1-j]
  Dtype dtype;             // of input and output
};

// What may follow in the same pass, on the sum and before it is rounded:
//   z   = scale[n, c] * sum + noise_strength * noise[n, y, x] + bias[c]
//   out = clamp(gain * leaky_relu(z, slope))
struct EpilogueParams {
  const void* bias;            // [C]; null: none                    [accumulate type]
  const void* noise;           // [N or 1, out_h, out_w]; null: none [accumulate type]
  const void* noise_strength;  // one number, on the device; null: 1 [accumulate type]
  int64_t noise_stride_n;      // 0: one noise for all samples       [elements]
  double slope;                // of the negative side; 1: linear
  double gain;                 // after the activation
  double clamp;                // largest magnitude; negative: none
  const void* scale;           // [N, C]; null: 1                    [accumulate type]
  int64_t scale_stride_n;      // C                                  [elements]
};

struct KernelGradParams : Geometry {
  const void* input;       // data of in                         [dtype]
  const void* grad;        // data of out's gradient             [dtype]
  void* kernel_grad;       // [kh, kw] row-major                 [accumulate type]
  Plane4d in;              //
  Plane4d out;             // any strides
  Dtype dtype;             // of input and grad
};

// The gradient of what may follow the op, found from the output: of z, the sum with noise and
// bias, before the activation:
//   u      = output > 0 ? grad : slope * grad, 0 where |output| reached the clamp
//   z_grad = gain * u
//   result = tap * scale[n, c] * z_grad where there is a tap or a scale, else u: it is rounded,
//            and must not overflow for a gain that the caller gives to the taps of what comes next
//   scale_grad[n, c]    = tap * sum over pixels of scaled * z_grad
//   bias_grad[c]        = sum over n, pixels of z_grad
//   noise_grad[n or 0]  = noise_strength * sum over c (and n) of z_grad
//   strength_grad       = sum over n, c, pixels of noise * z_grad
// grad, output, scaled and result are dense in one order: [n, c, pixels], or [n, pixels, c].
struct BiasActGradParams {
  const void* grad;            // of output                          [dtype]
  const void* output;          //                                    [dtype]
  const void* scaled;          // what the scale multiplies, but for the tap; null: scale_grad is
                               // not wanted                         [scaled_dtype]
  void* result;                //                                    [dtype]
  const void* tap_x;           // their product is the tap, where    [accumulate type]
  const void* tap_y;           // one is null, the other one         [accumulate type]
  const void* scale;           // [N, C], of the result; null: 1     [accumulate type]
  const void* noise;           // [N or 1, pixels]; null: strength_grad is not wanted
  const void* noise_strength;  // one number, on the device; null: 1 [accumulate type]
  void* bias_grad;             // [C]; null: not wanted              [accumulate type]
  void* noise_grad;            // [noise_samples, pixels]; null: not wanted
  void* strength_grad;         // one number; null: not wanted       [accumulate type]
  void* scale_grad;            // [N, C]; null: not wanted           [accumulate type]
  int64_t n, c, pixels;        //                                    [elements]
  int64_t noise_stride_n;      // 0: one noise for all samples       [elements]
  int64_t noise_samples;       // of noise_grad: n or 1
  bool channels_last;          // [n, pixels, c]
  double slope, gain;          //
  double clamp;                // largest magnitude; negative: none
  Dtype dtype;                 // of grad, output and result
  Dtype scaled_dtype;          // dtype; or float32 beside float16, whose range the sums over taps
                               // may leave
};

}  // namespace resample_layers
