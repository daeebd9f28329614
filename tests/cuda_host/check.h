// SPDX-License-Identifier: BSD-3-Clause
//
// What the checks of all storage types share: a call as plain numbers, the oracle,
// and the entry that emulates one call.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../../csrc/upfirdn2d.h"
#include "choose.cuh"

namespace check {

using resample_layers::kGeneric;
using resample_layers::kPointwise;
constexpr int kGeneric64 = -3;         // the generic kernel as it is for the largest arrays
constexpr int kChosen = -4;            // the row of the table that the library chooses

// A tap that is not finite. Infinite: with samples and taps that are positive, so that no sum
// depends on its order.
enum class BadTap { none, nan, infinite };

// One call. Arrays live in the checker; strides follow from layout, gap and offset.
struct Call {
  int row = kGeneric;                  // of the table, or one of the numbers above
  int threads = 0, walk = 0;           // smaller tiles than the table's; 0: the table's
  int64_t n = 1, c = 1, in_h = 1, in_w = 1, out_h = 1, out_w = 1;
  int64_t kh = 1, kw = 1, up_x = 1, up_y = 1, down_x = 1, down_y = 1, pad_x = 0, pad_y = 0;
  bool separable = true, flip = false, channels_last = false, fused = false;
  bool noise_per_sample = false;
  bool bias = true, noise = true, strength = true, clamp = true;  // fused: false: without it
  bool scale = false;                  // fused: with one for each sample and channel
  double clamp_at = 2.5;
  bool nan = false;                    // some samples of the input are NaN
  BadTap bad_tap = BadTap::none;
  int64_t row_gap = 0;                 // elements between the rows of the input
  int64_t in_offset = 0, out_offset = 0;  // elements before the first one
  int64_t operand_offset = 0;             // before the first one of bias and noise
  uint64_t seed = 1;
  std::vector<unsigned> blocks;           // of the kernel's gradient: these alone; empty: all

  std::string text() const;
};

// The definition, in double, one output at a time. in and out: dense [n, c, h, w].
void oracle(const Call& call, const std::vector<double>& in, const std::vector<double>& kernel,
            std::vector<double>* out);
void oracle_kernel_grad(const Call& call, const std::vector<double>& in,
                        const std::vector<double>& grad, std::vector<double>* kernel_grad);

// Emulate one call and compare. Returns the largest error over its tolerance; above 1
// is wrong (NaN gives infinity). Negative: the row does not serve the call.
template <class T>
double run(const Call& call);
template <class T>
double run_kernel_grad(const Call& call);

// One call of the activation's gradient.
struct ActGradCall {
  int64_t n = 1, c = 1, pixels = 1;
  bool channels_last = false;
  bool bias = true, strength = true, noise_strength = true;  // the latter: the noise has one
  bool scale = true, scaled = true;                 // of the result; its gradient is asked for
  bool wide = false;                                // what is scaled is of WideScaled, and large
  int64_t noise_samples = 1;                        // of the noise's gradient; 0: none
  bool noise_per_sample = false;                    // the noise that the strength's is made of
  bool tap = false, clamp = false;
  int64_t offset = 0;                               // elements before the first one of grad
  int64_t few = 512, many = 4096;                   // as in BlockCounts
  uint64_t seed = 1;

  std::string text() const;
};

template <class T>
double run_bias_act_grad(const ActGradCall& call);

}  // namespace check
