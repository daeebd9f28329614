// SPDX-License-Identifier: BSD-3-Clause
//
// A call of a filtered activation as plain numbers, its arrays in double, and the oracle.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace filtered {

// What computes a call.
enum class Way { tile, direct, table };

struct Call {
  Way way = Way::tile;
  int64_t n = 1, c = 1, in_h = 1, in_w = 1;
  int64_t up_x = 1, up_y = 1, down_x = 1, down_y = 1;
  int64_t up_kh = 1, up_kw = 1, down_kh = 1, down_kw = 1;
  int64_t up_pad_x = 0, up_pad_x1 = 0, up_pad_y = 0, up_pad_y1 = 0;
  int64_t down_pad_x = 0, down_pad_x1 = 0, down_pad_y = 0, down_pad_y1 = 0;
  bool up_2d = false, down_2d = false;  // a 2-D kernel; else taps of both axes
  bool replicate = false, channels_last = false;
  bool nan_tap = false;                 // of the first filter along y
  bool bias = true, wants_bias = true, wants_parameters = true;
  int activation = 0;
  double slope = 0.2, gain = 1.5, clamp = -1;
  int64_t row_gap = 0;                  // elements between the rows of input and grad
  int tile = 64;                        // most elements of a tile
  int64_t shared = 1 << 20;             // bytes of a block
  int threads = 32;
  int64_t grid = 2;                     // most blocks of a launch
  uint64_t seed = 1;

  int64_t mid_h() const;
  int64_t mid_w() const;
  int64_t out_h() const;
  int64_t out_w() const;
  std::string text() const;
};

// values: 2-D, or empty; taps_x and taps_y else.
struct Kernel {
  int64_t kh, kw;
  std::vector<double> values, taps_x, taps_y;
};

// Dense [n, c, h, w].
struct Arrays {
  std::vector<double> input, grad, bias, alpha, beta;
  Kernel up, down;
};

struct Results {
  std::vector<double> output, grad_input, grad_bias, grad_alpha, grad_beta;
  double output_size = 0, input_size = 0;                // the largest sum of magnitudes of terms
  std::vector<double> bias_size, alpha_size, beta_size;  // the same for each channel
  // How close the signal between the filters comes to where a derivative jumps, relative to its
  // largest value: below rounding, either side is right.
  double closest = 1;
};

Results oracle(const Call& call, const Arrays& arrays);

// Emulate one call, forward and backward, for one storage type and compare. Returns the largest
// error over its tolerance; above 1 is wrong. Negative: the call does not go the way it asks for.
template <class T>
double run(const Call& call);

}  // namespace filtered
