// SPDX-License-Identifier: BSD-3-Clause
//
// What one call of the activation's gradient comes to: the cut into units of work and the
// partial sums of each. Made by bias_act_grad.cpp, read by the kernels of every instruction
// set; plain data for the reason that plan.h gives.
//
// A sample is `lines` lines of `line` elements: planes of pixels, or, channels_last, pixels of
// channels. A unit is a group of lines times a stretch of each. One of the two sums, over
// pixels and over channels, runs along a line and the other one across the lines.
#pragma once

#include <cstdint>

#include "../upfirdn2d.h"

namespace resample_layers {
namespace cpu {

constexpr int64_t kUnitLines = 256;      // most lines of a unit
constexpr int64_t kUnitElements = 512;   // most elements of a line in a unit
constexpr int64_t kTermLines = 32;       // lines that are added up in the accumulate type

struct BiasActGradPlan {
  const BiasActGradParams* call;
  int64_t lines, line;          // of a sample
  int64_t unit_lines, groups;   // lines of a unit; units of a sample across the lines
  int64_t unit_line, stretches; // elements of a line in a unit; units along a line
  // Where the sums go, and what they are multiplied with for the strength's gradient; null:
  // nobody asks for them.                                        [accumulate type]
  void* line_sums;              // [n, stretches, lines]
  void* element_sums;           // [n, groups, line]
  // The sums of products for the scale's gradient: the first one where lines are channels, the
  // other one where elements are.
  void* line_products;          // [n, stretches, lines]
  void* element_products;       // [n, groups, line]
  const void* line_noise;       // [n or 1, lines]
  const void* element_noise;    // [n or 1, line]
  double* noise_products;       // [units]: sums times noise
};

}  // namespace cpu
}  // namespace resample_layers
