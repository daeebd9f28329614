// SPDX-License-Identifier: BSD-3-Clause
//
// Ranges of indices along an axis, and the divisions that lead from one axis to another. Plain
// data, as plan.h; the functions are compiled for every processor, since kernels_*.cpp include
// this file before they choose an instruction set.
#pragma once

#include <cstdint>

namespace resample_layers {
namespace cpu {

// The quotient that is rounded down, and the one that is rounded up; b > 0.
inline int64_t floor_div(int64_t a, int64_t b) {
  if ((b & (b - 1)) == 0) return a >> __builtin_ctzll(uint64_t(b));  // most are powers of two
  return a >= 0 ? a / b : -((b - 1 - a) / b);
}
inline int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

// Indices along one axis; they may lie beyond the ends of the array.
struct Range {
  int64_t begin, end;

  int64_t size() const { return end - begin; }
  bool operator==(const Range& other) const { return begin == other.begin && end == other.end; }
};

}  // namespace cpu
}  // namespace resample_layers
