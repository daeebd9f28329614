// SPDX-License-Identifier: BSD-3-Clause
//
// Filtered activations with factors, taps and tile known to the compiler: the rows of a small
// table (filtered_act_plan.cuh chooses). Sums over taps are unrolled, and no inserted zero is
// written down. What no row serves is computed by the kernels of filtered_act.cuh.
//
//   planes   separable filters of both axes, leaky ReLU, no second pad (StyleGAN3-T): a thread
//            takes a piece of one row of the signal between the filters, and keeps it in registers
//   radial   the same with a 2-D second filter (StyleGAN3-R): that signal, or its gradient, lies in
//            shared memory
//   lines    signals, Snake, both kinds of ends (BigVGAN)
//
// Taps that are not finite would turn the zeros of padding into NaN: where a block learns of one
// at its first barrier, it computes its results as the `direct` kernels do.
#pragma once

#include <cmath>

#include "filtered_act.cuh"

namespace resample_layers {

// Factors, and six taps for each, as both models design their filters.
template <int Up, int Down, int TileW, int TileH, bool Radial = false>
struct FilteredShape {
  static constexpr int kUp = Up, kDown = Down, kUpTaps = 6 * Up, kDownTaps = 6 * Down;
  static constexpr bool kRadial = Radial;  // the second filter is 2-D
  static constexpr int kTileW = TileW, kTileH = TileH;  // most outputs, or samples, of a tile
};

constexpr int kFilteredRun = 8;      // outputs, or samples, along x that a thread computes
constexpr int kFilteredColumn = 8;   // positions along y that a thread computes
constexpr int kFilteredRows = 4;     // outputs, or samples, along y that a thread computes

constexpr int filtered_odd(int n) { return n | 1; }  // a pitch without conflicts between rows
constexpr int filtered_round_up(int a, int b) { return (a + b - 1) / b * b; }
constexpr int filtered_max(int a, int b) { return a > b ? a : b; }

// ------------------------------------------------------------------ sums in registers
//
// A window is what a run of neighbours reads. Every index is known to the compiler.

// Positions i = 0 ... kCount - 1 from samples; the first one meets the first sample with tap
// kPhase, counted from the left.
template <int kUp, int kTaps, int kCount, int kPhase>
struct SampleWindow {
  static constexpr int kSamples = (kTaps - 1 + kCount - 1 - kPhase) / kUp + 1;
  float sample[kSamples];

  template <class Get>
  DEVICE explicit SampleWindow(const Get& get) {
#pragma unroll
    for (int j = 0; j < kSamples; ++j) sample[j] = get(j);
  }

  DEVICE float position(const float (&taps)[kTaps], int i) const {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < kSamples; ++j) {
      const int t = j * kUp - i + kPhase;
      if (t >= 0 && t < kTaps) sum += taps[kTaps - 1 - t] * sample[j];
    }
    return sum;
  }
};

// The gradients of positions i = 0 ... kCount - 1 from outputs. Output kBefore of the window is
// the one that meets the first position with tap kPhase, counted from the left.
template <int kDown, int kTaps, int kCount, int kPhase>
struct OutputWindow {
  static constexpr int kBefore = kTaps / kDown - 1;
  static constexpr int kOutputs = kBefore + (kPhase + kCount - 1) / kDown + 1;
  float output[kOutputs];

  template <class Get>
  DEVICE explicit OutputWindow(const Get& get) {
#pragma unroll
    for (int j = 0; j < kOutputs; ++j) output[j] = get(j);
  }

  DEVICE float position_grad(const float (&taps)[kTaps], int i) const {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < kOutputs; ++j) {
      const int t = kPhase + i - (j - kBefore) * kDown;
      if (t >= 0 && t < kTaps) sum += taps[kTaps - 1 - t] * output[j];
    }
    return sum;
  }
};

// Outputs r = 0 ... kCount - 1 from positions, which come one after the other. kGrad: samples'
// gradients, with kStep = up, from those of positions.
template <int kStep, int kTaps, int kCount, bool kGrad>
struct RunningSums {
  static constexpr int kPositions = (kCount - 1) * kStep + kTaps;
  float sum[kCount] = {};

  DEVICE void add(const float (&taps)[kTaps], int i, float value) {
#pragma unroll
    for (int r = 0; r < kCount; ++r) {
      const int t = i - r * kStep;
      if (t >= 0 && t < kTaps) sum[r] += taps[kGrad ? t : kTaps - 1 - t] * value;
    }
  }
};

// f(FilteredPhase<phase>{})
template <int kPhase>
struct FilteredPhase {
  static constexpr int value = kPhase;
};
template <int kFactor, class F>
DEVICE void with_filtered_phase(int phase, const F& f) {
  static_assert(kFactor == 2 || kFactor == 4, "factors of the table");
  if constexpr (kFactor == 2) {
    if (phase == 0) {
      f(FilteredPhase<0>{});
    } else {
      f(FilteredPhase<1>{});
    }
  } else {
    switch (phase) {
      case 0: f(FilteredPhase<0>{}); break;
      case 1: f(FilteredPhase<1>{}); break;
      case 2: f(FilteredPhase<2>{}); break;
      default: f(FilteredPhase<3>{}); break;
    }
  }
}

// ------------------------------------------------------------------ taps and tiles

// Both filters' taps at the beginning of shared memory.
template <class S>
struct SharedTaps {
  static constexpr int kUpX = 0, kUpY = S::kUpTaps;
  static constexpr int kDownX = 2 * S::kUpTaps, kDownY = kDownX + S::kDownTaps;
  static constexpr int kKernel = kDownX;  // where the second filter is 2-D
  static constexpr int kFloats =
      kDownX + (S::kRadial ? S::kDownTaps * S::kDownTaps : 2 * S::kDownTaps);

  // Returns whether all taps that this thread has loaded are finite. A filter along y of one tap
  // is spread: only the first one is read.
  DEVICE static bool load(const FilteredArgs<float>& a, float* shared) {
    bool finite = true;
    for (int i = static_cast<int>(threadIdx.x); i < kFloats; i += blockDim.x) {
      const bool down = i >= kDownX;
      if (S::kRadial && down) {
        shared[i] = a.down_kernel[i - kDownX];
        finite = finite && is_finite(shared[i]);
        continue;
      }
      const int taps = down ? S::kDownTaps : S::kUpTaps, place = down ? i - kDownX : i;
      const bool along_y = place >= taps;
      const int t = along_y ? place - taps : place;
      const float* const from = down ? (along_y ? a.down_taps_y : a.down_taps_x)
                                     : (along_y ? a.up_taps_y : a.up_taps_x);
      const int64_t count = !along_y ? taps : down ? a.y.down_taps : a.y.up_taps;
      const float tap = from[t < count ? t : 0];
      shared[i] = tap;
      finite = finite && is_finite(tap);
    }
    return finite;
  }
};

template <int kTaps>
DEVICE void read_taps(const float* shared, float (&taps)[kTaps]) {
  static_assert(kTaps % 4 == 0, "four at a time");
#pragma unroll
  for (int t = 0; t < kTaps; t += 4) {
    const float4 four = load_shared_4(shared + t);
    taps[t] = four.x, taps[t + 1] = four.y, taps[t + 2] = four.z, taps[t + 3] = four.w;
  }
}

// The results of a tile, one by one over the terms that exist. Not inlined: the registers that it
// takes would be missing where they are needed.
template <class T>
__device__ __noinline__ void direct_tile(const FilteredArgs<float>& a) {
  const FilteredTile<float> tile(a, blockIdx.x, a.x.out, a.y.out);
  const DirectPlane<T> direct(a, tile.n, tile.channel);
  T* const to = static_cast<T*>(a.output) + tile.n * a.out.n + tile.channel * a.out.c;
#pragma unroll 1
  for (int64_t i = threadIdx.x; i < tile.y.count * tile.x.count; i += blockDim.x) {
    const int64_t row = i / tile.x.count;
    const int64_t y = tile.y.first + row, x = tile.x.first + i - row * tile.x.count;
    to[y * a.out.h + x * a.out.w] = from_accumulate<T>(direct.output(y, x));
  }
}

// Where the ends of a line are continued, the first and the last tile take this many samples more,
// beyond the ends: what was read there.
constexpr int kLineBeyond = 8;

DEVICE int samples_beyond(const FilteredArgs<float>& a) { return a.x.replicate ? kLineBeyond : 0; }

// The tile of a gradient: the samples that exist.
DEVICE FilteredTile<float> tile_of_samples(const FilteredArgs<float>& a) {
  const int beyond = samples_beyond(a);
  FilteredTile<float> tile(a, blockIdx.x, a.x.in + 2 * beyond, a.y.in);
  const int64_t first = tile.x.first - beyond;
  tile.x = span_of(first, first + tile.x.count - 1, a.x.in, false);
  return tile;
}

// The sums that the threads of a tile have: bias, alpha, beta.
struct FilteredGradSums {
  float bias = 0, alpha = 0, beta = 0;

  // shared: as many floats as there are threads, which no thread writes any more.
  DEVICE void store(const FilteredArgs<float>& a, const FilteredTile<float>& tile,
                    float* shared) const {
    const int64_t at = tile.plane * tile.tiles + tile.tile;
    if (a.bias_sums) add_block_sums(bias, shared, 1, 1, a.bias_sums + at, 1);
    if (a.alpha_sums) add_block_sums(alpha, shared, 1, 1, a.alpha_sums + at, 1);
    if (a.beta_sums) add_block_sums(beta, shared, 1, 1, a.beta_sums + at, 1);
  }
};

template <class T>
__device__ __noinline__ void direct_tile_grads(const FilteredArgs<float>& a, float* shared) {
  const FilteredTile<float> tile = tile_of_samples(a);
  const DirectPlane<T> direct(a, tile.n, tile.channel);
  T* const to = static_cast<T*>(a.output) + tile.n * a.out.n + tile.channel * a.out.c;
  FilteredGradSums sums;
#pragma unroll 1
  for (int64_t i = threadIdx.x; i < tile.y.count * tile.x.count; i += blockDim.x) {
    const int64_t row = i / tile.x.count;
    const int64_t y = tile.y.first + row, x = tile.x.first + i - row * tile.x.count;
    const float grad = direct.input_grad(y, x);
    sums.bias += grad;
    to[y * a.out.h + x * a.out.w] = from_accumulate<T>(grad);
  }
  if (a.alpha_sums || a.beta_sums) {
    const Span y = own_positions(a.y, tile.y), x = own_positions(a.x, tile.x);
#pragma unroll 1
    for (int64_t i = threadIdx.x; i < y.count * x.count; i += blockDim.x) {
      const int64_t row = y.first + i / x.count, column = x.first + i % x.count;
      direct.activation.grad(direct.mid(row, column), direct.activated_grad(row, column),
                             &sums.alpha, &sums.beta);
    }
  }
  sums.store(a, tile, shared);
}

// A rectangle of a plane to shared memory, as float; zero beyond the ends of the plane. A warp
// takes a row.
template <class T, int kPitch>
DEVICE void load_rectangle(const void* image, const FilteredStrides& s, int64_t n, int64_t channel,
                           int64_t y0, int64_t x0, int height, int width, int64_t image_h,
                           int64_t image_w, float bias, float* to) {
  const T* const from = static_cast<const T*>(image) + n * s.n + channel * s.c;
  const int lane = static_cast<int>(threadIdx.x) & 31;
  // Rows and columns of the rectangle that exist
  const int64_t far = int64_t{1} << 30;
  const int top = static_cast<int>(clamp_to(-y0, 0, far));
  const int bottom = static_cast<int>(clamp_to(image_h - y0, 0, far));
  const int left = static_cast<int>(clamp_to(-x0, 0, far));
  const int right = static_cast<int>(clamp_to(image_w - x0, 0, far));
#pragma unroll 1
  for (int row = static_cast<int>(threadIdx.x) >> 5; row < height; row += blockDim.x >> 5) {
    const bool inside = row >= top && row < bottom;
    const T* const line = from + (y0 + row) * s.h + x0;
#pragma unroll 4
    for (int column = lane; column < width; column += 32) {
      float value = 0;
      if (inside && column >= left && column < right) value = to_accumulate(line[column]) + bias;
      to[row * kPitch + column] = value;
    }
  }
}

// ------------------------------------------------------------------ planes

// Shared memory of the forward kernel, in floats.
template <class S>
struct PlaneLayout {
  static constexpr int kMidW = (S::kTileW - 1) * S::kDown + S::kDownTaps;
  // Along y the positions of a tile begin up to kUp - 1 earlier, where a sample is met by the
  // first tap.
  static constexpr int kMidH = filtered_round_up(
      (S::kTileH - 1) * S::kDown + S::kDownTaps + S::kUp - 1, kFilteredColumn);
  static constexpr int kInW = (kMidW - 1 + S::kUpTaps - 1) / S::kUp + 1;
  static constexpr int kInH = (kMidH - 1 + S::kUpTaps - 1) / S::kUp + 1;
  static constexpr int kInPitch = filtered_odd(kInW), kRowPitch = filtered_odd(S::kTileW);
  static constexpr int kFirst = SharedTaps<S>::kFloats;
  // radial: positions lie in kGroups groups of rows; row y in group y % kGroups. A thread takes
  // two rows of outputs, and so threads read neighbouring rows of a group.
  static constexpr int kGroups = 2 * S::kDown, kGroupRows = (kMidH + kGroups - 1) / kGroups;
  static constexpr int kMidPitch = filtered_odd(filtered_round_up(kMidW, kFilteredRun));
  static constexpr int kSecond =
      S::kRadial ? kGroups * kGroupRows * kMidPitch : kMidH * kRowPitch;
  static constexpr int kColumns = kFirst + filtered_max(kInH * kInPitch, kSecond);
  static constexpr int kFloats = kColumns + kMidH * kInPitch + (S::kRadial ? kFilteredRun : 0);
};

// Two rows of kRadialOutputs outputs of the second filter, as a 2-D kernel; taps: its rows in
// shared memory. read(i, j): a position, from the first one on that the outputs read.
constexpr int kRadialOutputs = 4;
template <class S, class Read>
DEVICE void sum_radial(const float* kernel, const Read& read, float (&sum)[2][kRadialOutputs]) {
  constexpr int kWindow = (kRadialOutputs - 1) * S::kDown + S::kDownTaps;
#pragma unroll
  for (int r = 0; r < 2 * kRadialOutputs; ++r) sum[r / kRadialOutputs][r % kRadialOutputs] = 0;
#pragma unroll 1
  for (int i = 0; i < S::kDownTaps + S::kDown; ++i) {
    float position[kWindow];
#pragma unroll
    for (int j = 0; j < kWindow; ++j) position[j] = read(i, j);
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int t = i - k * S::kDown;
      if (t < 0 || t >= S::kDownTaps) continue;
      float taps[S::kDownTaps];
      read_taps(kernel + (S::kDownTaps - 1 - t) * S::kDownTaps, taps);
#pragma unroll
      for (int r = 0; r < kRadialOutputs; ++r) {
#pragma unroll
        for (int u = 0; u < S::kDownTaps; ++u) {
          sum[k][r] += taps[S::kDownTaps - 1 - u] * position[r * S::kDown + u];
        }
      }
    }
  }
}

template <class T, class S>
__global__ void __launch_bounds__(kFilteredThreads, 3)
    filtered_planes_kernel(const __grid_constant__ FilteredArgs<float> a) {
  using L = PlaneLayout<S>;
  SHARED_MEMORY(float, shared);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const FilteredTile<float> tile(a, blockIdx.x, a.x.out, a.y.out);
  const int tile_w = static_cast<int>(tile.x.count), tile_h = static_cast<int>(tile.y.count);
  const int64_t top = tile.y.first * S::kDown - a.y.up_pad;
  const int64_t left = tile.x.first * S::kDown - a.x.up_pad;
  const int64_t in_top = floor_div(top, S::kUp), in_left = ceil_quotient(left, S::kUp);
  const int skip = static_cast<int>(top - in_top * S::kUp);
  const int phase = static_cast<int>(in_left * S::kUp - left);
  const int mid_h = skip + (tile_h - 1) * S::kDown + S::kDownTaps;
  const int in_w = ((tile_w - 1) * S::kDown + S::kDownTaps - 1 + S::kUpTaps - 1) / S::kUp + 1;

  float* const input = shared + L::kFirst;
  float* const rows = input;  // when the input has been read
  float* const columns = shared + L::kColumns;
  const bool finite = SharedTaps<S>::load(a, shared);
  load_rectangle<T, L::kInPitch>(a.input, a.in, tile.n, tile.channel, in_top, in_left,
                                 (mid_h - 1 + S::kUpTaps - 1) / S::kUp + 1, in_w, a.y.in, a.x.in,
                                 a.bias ? a.bias[tile.channel] : 0.0f, input);
  if (BARRIER_ANY(52, !finite)) {
    direct_tile<T>(a);
    return;
  }

  // Along y: a thread takes some positions of one column
  float up_taps[S::kUpTaps], down_taps[S::kDownTaps];
  read_taps(shared + SharedTaps<S>::kUpY, up_taps);
  const int groups = (mid_h + kFilteredColumn - 1) / kFilteredColumn;
#pragma unroll 1
  for (int i = thread; i < groups * in_w; i += threads) {
    const int group = i / in_w, column = i - group * in_w;
    const float* const from = input + group * (kFilteredColumn / S::kUp) * L::kInPitch + column;
    float* const to = columns + group * kFilteredColumn * L::kInPitch + column;
    const SampleWindow<S::kUp, S::kUpTaps, kFilteredColumn, 0> window(
        [&](int j) { return from[j * L::kInPitch]; });
#pragma unroll
    for (int j = 0; j < kFilteredColumn; ++j) {
      to[j * L::kInPitch] = window.position(up_taps, j);
    }
  }
  BARRIER(53);

  T* const output = static_cast<T*>(a.output) + tile.n * a.out.n + tile.channel * a.out.c +
                    tile.y.first * a.out.h + tile.x.first;
  if constexpr (S::kRadial) {
    // Along x and the activation: a thread takes a run of positions of one row
    read_taps(shared + SharedTaps<S>::kUpX, up_taps);
    const float negative_gain = a.gain * a.slope;
    const int height = mid_h - skip, mid_w = (tile_w - 1) * S::kDown + S::kDownTaps;
    const int runs = (mid_w + kFilteredRun - 1) / kFilteredRun;
    with_filtered_phase<S::kUp>(phase, [&](auto constant) {
#pragma unroll 1
      for (int i = thread; i < height * runs; i += threads) {
        const int run = i / height, row = i - run * height;
        const float* const from =
            columns + (row + skip) * L::kInPitch + run * (kFilteredRun / S::kUp);
        const SampleWindow<S::kUp, S::kUpTaps, kFilteredRun, decltype(constant)::value> window(
            [&](int j) { return from[j]; });
        float* const to = rows +
                          (row % L::kGroups * L::kGroupRows + row / L::kGroups) * L::kMidPitch +
                          run * kFilteredRun;
#pragma unroll
        for (int j = 0; j < kFilteredRun; ++j) {
          const float m = window.position(up_taps, j);
          const float f = m * (m > 0.0f ? a.gain : negative_gain);
          to[j] = fabsf(f) > a.clamp ? copysignf(a.clamp, f) : f;
        }
      }
    });
    BARRIER(68);

    // All taps at once: a thread takes a run of outputs of two rows
    const int pairs = (tile_h + 1) / 2;
#pragma unroll 1
    for (int i = thread; i < pairs * ((tile_w + kRadialOutputs - 1) / kRadialOutputs);
         i += threads) {
      const int run = i / pairs, pair = i - run * pairs, x = run * kRadialOutputs;
      const float* const from = rows + pair * L::kMidPitch + x * S::kDown;
      float sum[2][kRadialOutputs];
      sum_radial<S>(
          shared + SharedTaps<S>::kKernel,
          [&](int y, int j) {
            return from[(y % L::kGroups * L::kGroupRows + y / L::kGroups) * L::kMidPitch + j];
          },
          sum);
#pragma unroll
      for (int k = 0; k < 2; ++k) {
#pragma unroll
        for (int r = 0; r < kRadialOutputs; ++r) {
          const int y = 2 * pair + k;
          if (y < tile_h && x + r < tile_w) {
            output[y * a.out.h + x + r] = from_accumulate<T>(sum[k][r]);
          }
        }
      }
    }
    return;
  }

  // Along x, the activation, along x again: a thread takes a run of outputs of one row
  read_taps(shared + SharedTaps<S>::kUpX, up_taps);
  read_taps(shared + SharedTaps<S>::kDownX, down_taps);
  const float negative_gain = a.gain * a.slope;
  const int height = mid_h - skip, runs = (tile_w + kFilteredRun - 1) / kFilteredRun;
  with_filtered_phase<S::kUp>(phase, [&](auto constant) {
    using Sums = RunningSums<S::kDown, S::kDownTaps, kFilteredRun, false>;
#pragma unroll 1
    for (int i = thread; i < height * runs; i += threads) {
      const int run = i / height, row = i - run * height;
      const float* const from = columns + (row + skip) * L::kInPitch +
                                run * (kFilteredRun * S::kDown / S::kUp);
      const SampleWindow<S::kUp, S::kUpTaps, Sums::kPositions, decltype(constant)::value> window(
          [&](int j) { return from[j]; });
      Sums sums;
#pragma unroll
      for (int j = 0; j < Sums::kPositions; ++j) {
        const float m = window.position(up_taps, j);
        const float f = m * (m > 0.0f ? a.gain : negative_gain);
        sums.add(down_taps, j, fabsf(f) > a.clamp ? copysignf(a.clamp, f) : f);
      }
      float* const to = rows + row * L::kRowPitch + run * kFilteredRun;
#pragma unroll
      for (int r = 0; r < kFilteredRun; ++r) {
        if (run * kFilteredRun + r < tile_w) to[r] = sums.sum[r];
      }
    }
  });
  BARRIER(54);

  // Along y again: a thread takes some outputs of one column
  read_taps(shared + SharedTaps<S>::kDownY, down_taps);
#pragma unroll 1
  for (int i = thread; i < (tile_h + kFilteredRows - 1) / kFilteredRows * tile_w; i += threads) {
    const int group = i / tile_w, column = i - group * tile_w;
    const float* const from = rows + group * kFilteredRows * S::kDown * L::kRowPitch + column;
    RunningSums<S::kDown, S::kDownTaps, kFilteredRows, false> sums;
#pragma unroll
    for (int j = 0; j < sums.kPositions; ++j) sums.add(down_taps, j, from[j * L::kRowPitch]);
#pragma unroll
    for (int r = 0; r < kFilteredRows; ++r) {
      const int y = group * kFilteredRows + r;
      if (y < tile_h) output[y * a.out.h + column] = from_accumulate<T>(sums.sum[r]);
    }
  }
}

// Shared memory of the gradient, in floats. The positions of a tile begin where the last tap of
// the first sample is.
template <class S>
struct PlaneGradLayout {
  static constexpr int kMidW = (S::kTileW - 1) * S::kUp + S::kUpTaps;
  // Gradients along y begin up to kDown - 1 positions earlier, where an output is met by the
  // first tap.
  static constexpr int kMidH = filtered_round_up(
      (S::kTileH - 1) * S::kUp + S::kUpTaps + S::kDown - 1, kFilteredColumn);
  static constexpr int kInW = (kMidW - 1 + S::kUpTaps - S::kUp) / S::kUp + 1;
  static constexpr int kInH = (kMidH - 1 + S::kUpTaps - S::kUp) / S::kUp + 1;
  static constexpr int kBefore = S::kDownTaps / S::kDown - 1;
  static constexpr int kOutW = kBefore + (S::kDown - 1 + kMidW - 1) / S::kDown + 1;
  static constexpr int kOutH = kBefore + (kMidH - 1) / S::kDown + 1;
  static constexpr int kInPitch = filtered_odd(kInW);
  // radial: a run of positions may read so many outputs more
  static constexpr int kOutPitch = filtered_odd(kOutW + (S::kRadial ? kFilteredRun / S::kDown : 0));
  static constexpr int kRowPitch = filtered_odd(S::kTileW);
  static constexpr int kFirst = SharedTaps<S>::kFloats;
  static constexpr int kGrad = kFirst + kInH * kInPitch;
  static constexpr int kColumns =
      kFirst + filtered_max(kInH * kInPitch + kOutH * kOutPitch, kMidH * kRowPitch);
  static constexpr int kGradColumns = kColumns + kMidH * kInPitch;
  // radial: the gradients of all positions instead
  static constexpr int kGradPitch =
      S::kRadial ? filtered_odd(filtered_round_up(kMidW, kFilteredRun)) : kOutPitch;
  static constexpr int kFloats = kGradColumns + kMidH * kGradPitch;
};

// The gradients of two rows of kFilteredRun positions by a 2-D kernel, whose rows lie in shared
// memory; the first of them is met by the first row of taps. read(i, j): an output, from the first
// one on that meets the positions.
template <class S, int kPhase, class Read>
DEVICE void sum_radial_grads(const float* kernel, const Read& read,
                             float (&sum)[S::kDown][kFilteredRun]) {
  static_assert(S::kDown == 2, "two rows");
#pragma unroll
  for (int r = 0; r < 2 * kFilteredRun; ++r) sum[r / kFilteredRun][r % kFilteredRun] = 0;
  constexpr int kOutputs = S::kDownTaps / S::kDown;  // that meet a position, along an axis
#pragma unroll 1
  for (int i = 0; i < kOutputs; ++i) {
    const OutputWindow<S::kDown, S::kDownTaps, kFilteredRun, kPhase> window(
        [&](int j) { return read(i, j); });
#pragma unroll
    for (int k = 0; k < S::kDown; ++k) {
      const int t = k + (kOutputs - 1 - i) * S::kDown;
      float taps[S::kDownTaps];
      read_taps(kernel + (S::kDownTaps - 1 - t) * S::kDownTaps, taps);
#pragma unroll
      for (int r = 0; r < kFilteredRun; ++r) sum[k][r] += window.position_grad(taps, r);
    }
  }
}

// The gradients of a run of positions of one row: from outputs filtered along y, or as they lie in
// shared memory.
template <class S, int kCount, int kPhase, bool kRadial = S::kRadial>
struct PositionGrads : OutputWindow<S::kDown, S::kDownTaps, kCount, kPhase> {
  using Window = OutputWindow<S::kDown, S::kDownTaps, kCount, kPhase>;
  DEVICE explicit PositionGrads(const float* from) : Window([&](int j) { return from[j]; }) {}
  DEVICE float at(const float (&taps)[S::kDownTaps], int i) const {
    return Window::position_grad(taps, i);
  }
};
template <class S, int kCount, int kPhase>
struct PositionGrads<S, kCount, kPhase, true> {
  const float* const from;
  DEVICE explicit PositionGrads(const float* grads) : from(grads) {}
  DEVICE float at(const float (&)[S::kDownTaps], int i) const { return from[i]; }
};

template <class T, class S>
__global__ void __launch_bounds__(kFilteredThreads, 2)
    filtered_planes_grad_kernel(const __grid_constant__ FilteredArgs<float> a) {
  using L = PlaneGradLayout<S>;
  SHARED_MEMORY(float, shared);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const FilteredTile<float> tile(a, blockIdx.x, a.x.in, a.y.in);
  const int tile_w = static_cast<int>(tile.x.count), tile_h = static_cast<int>(tile.y.count);
  const int mid_w = (tile_w - 1) * S::kUp + S::kUpTaps;
  const int mid_h = (tile_h - 1) * S::kUp + S::kUpTaps;
  const int in_w = (mid_w - 1 + S::kUpTaps - S::kUp) / S::kUp + 1;
  const int in_h = (mid_h - 1 + S::kUpTaps - S::kUp) / S::kUp + 1;
  // The first position, and the output that meets it with the first or a later tap
  const int64_t top = tile.y.first * S::kUp + a.y.up_pad - (S::kUpTaps - 1) + a.y.down_pad;
  const int64_t left = tile.x.first * S::kUp + a.x.up_pad - (S::kUpTaps - 1) + a.x.down_pad;
  const int64_t out_top = floor_div(top, S::kDown), out_left = floor_div(left, S::kDown);
  const int skip = static_cast<int>(top - out_top * S::kDown);
  const int phase = static_cast<int>(left - out_left * S::kDown);
  const int out_w = L::kBefore + (S::kDown - 1 + mid_w - 1) / S::kDown + 1;
  const int out_h = L::kBefore + (skip + mid_h - 1) / S::kDown + 1;

  float* const input = shared + L::kFirst;
  float* const grad = shared + L::kGrad;
  float* const rows = input;  // when both have been read
  float* const columns = shared + L::kColumns;
  float* const grad_columns = shared + L::kGradColumns;
  const bool finite = SharedTaps<S>::load(a, shared);
  load_rectangle<T, L::kInPitch>(
      a.input, a.in, tile.n, tile.channel, tile.y.first - (S::kUpTaps / S::kUp - 1),
      tile.x.first - (S::kUpTaps / S::kUp - 1), in_h, in_w, a.y.in, a.x.in,
      a.bias ? a.bias[tile.channel] : 0.0f, input);
  load_rectangle<T, L::kOutPitch>(a.grad, a.grad_strides, tile.n, tile.channel,
                                  out_top - L::kBefore, out_left - L::kBefore, out_h, out_w,
                                  a.y.out, a.x.out, 0.0f, grad);
  if (BARRIER_ANY(55, !finite)) {
    direct_tile_grads<T>(a, columns);
    return;
  }

  // Along y: a thread takes some positions of one column, of the signal or of its gradient
  float up_taps[S::kUpTaps], down_taps[S::kDownTaps];
  read_taps(shared + SharedTaps<S>::kUpY, up_taps);
  if constexpr (!S::kRadial) read_taps(shared + SharedTaps<S>::kDownY, down_taps);
  const int groups = (mid_h + kFilteredColumn - 1) / kFilteredColumn;
#pragma unroll 1
  for (int i = thread; i < groups * in_w; i += threads) {
    const int group = i / in_w, column = i - group * in_w;
    const float* const from = input + group * (kFilteredColumn / S::kUp) * L::kInPitch + column;
    float* const to = columns + group * kFilteredColumn * L::kInPitch + column;
    const SampleWindow<S::kUp, S::kUpTaps, kFilteredColumn, S::kUp - 1> window(
        [&](int j) { return from[j * L::kInPitch]; });
#pragma unroll
    for (int j = 0; j < kFilteredColumn; ++j) {
      to[j * L::kInPitch] = window.position(up_taps, j);
    }
  }
  if constexpr (S::kRadial) {  // or of all of them: a run of two rows
    const int pairs = (skip + mid_h + 1) / 2;
    with_filtered_phase<S::kDown>(phase, [&](auto constant) {
#pragma unroll 1
      for (int i = thread; i < pairs * ((mid_w + kFilteredRun - 1) / kFilteredRun); i += threads) {
        const int run = i / pairs, pair = i - run * pairs;
        const float* const from = grad + pair * L::kOutPitch + run * (kFilteredRun / S::kDown);
        float sum[S::kDown][kFilteredRun];
        sum_radial_grads<S, decltype(constant)::value>(
            shared + SharedTaps<S>::kKernel,
            [&](int y, int j) { return from[y * L::kOutPitch + j]; }, sum);
        float* const to = grad_columns + pair * S::kDown * L::kGradPitch + run * kFilteredRun;
#pragma unroll
        for (int r = 0; r < S::kDown * kFilteredRun; ++r) {
          to[r / kFilteredRun * L::kGradPitch + r % kFilteredRun] =
              sum[r / kFilteredRun][r % kFilteredRun];
        }
      }
    });
  } else {
    const int grad_groups = (skip + mid_h + kFilteredColumn - 1) / kFilteredColumn;
#pragma unroll 1
    for (int i = thread; i < grad_groups * out_w; i += threads) {
      const int group = i / out_w, column = i - group * out_w;
      const float* const from = grad + group * (kFilteredColumn / S::kDown) * L::kOutPitch + column;
      float* const to = grad_columns + group * kFilteredColumn * L::kOutPitch + column;
      const OutputWindow<S::kDown, S::kDownTaps, kFilteredColumn, 0> window(
          [&](int j) { return from[j * L::kOutPitch]; });
#pragma unroll
      for (int j = 0; j < kFilteredColumn; ++j) {
        to[j * L::kOutPitch] = window.position_grad(down_taps, j);
      }
    }
  }
  BARRIER(56);

  // Along x, back through the activation, along x again: a thread takes a run of samples of one
  // row. Positions that do not exist have no gradient.
  read_taps(shared + SharedTaps<S>::kUpX, up_taps);
  if constexpr (!S::kRadial) read_taps(shared + SharedTaps<S>::kDownX, down_taps);
  const float negative_gain = a.gain * a.slope;
  const int runs = (tile_w + kFilteredRun - 1) / kFilteredRun;
  with_filtered_phase<S::kDown>(S::kRadial ? 0 : phase, [&](auto constant) {
    using Sums = RunningSums<S::kUp, S::kUpTaps, kFilteredRun, true>;
#pragma unroll 1
    for (int i = thread; i < mid_h * runs; i += threads) {
      const int run = i / mid_h, row = i - run * mid_h;
      const float* const from = columns + row * L::kInPitch + run * kFilteredRun;
      const float* const from_grad =
          grad_columns + (row + skip) * L::kGradPitch +
          run * (kFilteredRun * S::kUp / (S::kRadial ? 1 : S::kDown));
      const SampleWindow<S::kUp, S::kUpTaps, Sums::kPositions, S::kUp - 1> samples(
          [&](int j) { return from[j]; });
      const PositionGrads<S, Sums::kPositions, decltype(constant)::value> grads(from_grad);
      Sums sums;
#pragma unroll
      for (int j = 0; j < Sums::kPositions; ++j) {
        const float m = samples.position(up_taps, j);
        const float scale = m > 0.0f ? a.gain : negative_gain, f = m * scale;
        const float g = scale * grads.at(down_taps, j);
        sums.add(up_taps, j, fabsf(f) > a.clamp ? 0.0f : g);
      }
      float* const to = rows + row * L::kRowPitch + run * kFilteredRun;
#pragma unroll
      for (int r = 0; r < kFilteredRun; ++r) {
        if (run * kFilteredRun + r < tile_w) to[r] = sums.sum[r];
      }
    }
  });
  BARRIER(57);

  // Along y again: a thread takes some samples of one column
  read_taps(shared + SharedTaps<S>::kUpY, up_taps);
  FilteredGradSums total;
  T* const output = static_cast<T*>(a.output) + tile.n * a.out.n + tile.channel * a.out.c +
                    tile.y.first * a.out.h + tile.x.first;
#pragma unroll 1
  for (int i = thread; i < (tile_h + kFilteredRows - 1) / kFilteredRows * tile_w; i += threads) {
    const int group = i / tile_w, column = i - group * tile_w;
    const float* const from = rows + group * kFilteredRows * S::kUp * L::kRowPitch + column;
    RunningSums<S::kUp, S::kUpTaps, kFilteredRows, true> sums;
#pragma unroll
    for (int j = 0; j < sums.kPositions; ++j) sums.add(up_taps, j, from[j * L::kRowPitch]);
#pragma unroll
    for (int r = 0; r < kFilteredRows; ++r) {
      const int y = group * kFilteredRows + r;
      if (y >= tile_h) continue;
      total.bias += sums.sum[r];
      output[y * a.out.h + column] = from_accumulate<T>(sums.sum[r]);
    }
  }
  total.store(a, tile, rows);
}

// ------------------------------------------------------------------ lines

// A line in shared memory: neighbouring threads read windows kPeriod elements apart, and one
// float of padding after each period keeps them in different banks.
template <int kPeriod>
struct PaddedLine {
  float* const data;

  static constexpr int floats(int count) { return count + count / kPeriod + 1; }
  // An element, counted from a multiple of the period.
  DEVICE float& at(int first, int i) const {
    return data[first + first / kPeriod + i + i / kPeriod];
  }
  DEVICE float& operator[](int i) const { return data[i + i / kPeriod]; }
};

// `count` samples from x0 on to shared memory: beyond the ends zero or the end samples.
template <class T, int kPeriod>
DEVICE void load_line(const void* signal, const FilteredStrides& s, int64_t n, int64_t channel,
                      int64_t x0, int count, int64_t size, bool replicate, float bias,
                      const PaddedLine<kPeriod>& to) {
  const T* const from = static_cast<const T*>(signal) + n * s.n + channel * s.c;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < count; i += blockDim.x) {
    const int64_t x = replicate ? clamp_to(x0 + i, 0, size - 1) : x0 + i;
    to[i] = x >= 0 && x < size ? to_accumulate(from[x]) + bias : 0.0f;
  }
}

// The elements of an axis among `count` neighbours from `first` on: low ... high - 1 of them.
struct ExistingPart {
  int low, high;
  bool all;

  DEVICE ExistingPart(int64_t first, int count, int64_t size)
      : low(static_cast<int>(clamp_to(-first, 0, count))),
        high(static_cast<int>(clamp_to(size - first, low, count))),
        all(low == 0 && high == count) {}
};

// What lies beyond the ends: zero, or the end elements. Some threads write what all will read.
template <int kPeriod>
DEVICE void continue_line(const PaddedLine<kPeriod>& line, const ExistingPart& part, int count,
                          bool replicate) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  for (int i = thread; i < part.low; i += threads) line[i] = replicate ? line[part.low] : 0.0f;
  for (int i = part.high + thread; i < count; i += threads) {
    line[i] = replicate ? line[part.high - 1] : 0.0f;
  }
}

// Its adjoint: what lies beyond the ends is added to the end elements, or is dropped. One thread
// does it, so that the order of the sum is fixed.
template <int kPeriod>
DEVICE void fold_line(const PaddedLine<kPeriod>& line, const ExistingPart& part, int count,
                      bool replicate) {
  if (threadIdx.x != 0) return;
  for (int i = 0; i < part.low; ++i) {
    if (replicate) line[part.low] += line[i];
    line[i] = 0;
  }
  for (int i = part.high; i < count; ++i) {
    if (replicate) line[part.high - 1] += line[i];
    line[i] = 0;
  }
}

constexpr int kLinePositions = 8;  // positions that a thread computes
constexpr int kLineOutputs = 4;    // outputs, or samples, that a thread computes

// Shared memory of both kernels, in floats. S::kTileW is a multiple of kLineOutputs.
template <class S>
struct LineLayout {
  static constexpr int kFactor = filtered_max(S::kUp, S::kDown);
  static constexpr int kMost = filtered_round_up(
      (S::kTileW - 1) * kFactor + filtered_max(S::kUpTaps, S::kDownTaps), kLinePositions);
  using Samples = PaddedLine<kLinePositions / S::kUp>;
  using Outputs = PaddedLine<kLinePositions / S::kDown>;
  using Positions = PaddedLine<kLinePositions>;
  using Results = PaddedLine<kLineOutputs>;
  static constexpr int kIn = (kMost - 1 + S::kUpTaps - 1) / S::kUp + 1;
  static constexpr int kOut = S::kDownTaps / S::kDown + (kMost + S::kDown) / S::kDown;
  static constexpr int kFirst = SharedTaps<S>::kFloats;
  static constexpr int kSamples =
      filtered_max(Samples::floats(kIn), Results::floats(S::kTileW));
  static constexpr int kPositions = kFirst + kSamples;
  static constexpr int kFloats = kPositions + Positions::floats(kMost);  // forward
  static constexpr int kSignal = kFloats;
  static constexpr int kOutputs = kSignal + Positions::floats(kMost);
  static constexpr int kGradFloats = kOutputs + Outputs::floats(kOut);   // gradient
};

template <class T, class S, class F>
__global__ void __launch_bounds__(kFilteredThreads, 4)
    filtered_lines_kernel(const __grid_constant__ FilteredArgs<float> a) {
  using L = LineLayout<S>;
  SHARED_MEMORY(float, shared);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const FilteredTile<float> tile(a, blockIdx.x, a.x.out, a.y.out);
  const int tile_w = static_cast<int>(tile.x.count);
  const int mid_w = (tile_w - 1) * S::kDown + S::kDownTaps;
  const int64_t first = tile.x.first * S::kDown - a.x.down_pad;  // position
  const int64_t left = first - a.x.up_pad, in_left = ceil_quotient(left, S::kUp);
  const int phase = static_cast<int>(in_left * S::kUp - left);

  const typename L::Samples samples{shared + L::kFirst};
  const typename L::Results results{shared + L::kFirst};  // when the samples have been read
  const typename L::Positions positions{shared + L::kPositions};
  const bool finite = SharedTaps<S>::load(a, shared);
  load_line<T>(a.input, a.in, tile.n, tile.channel, in_left,
               (mid_w - 1 + S::kUpTaps - 1) / S::kUp + 1, a.x.in, a.x.replicate,
               a.bias ? a.bias[tile.channel] : 0.0f, samples);
  if (BARRIER_ANY(58, !finite)) {
    direct_tile<T>(a);
    return;
  }

  // The first filter and the activation: a thread takes a run of positions
  float up_taps[S::kUpTaps], down_taps[S::kDownTaps];
  read_taps(shared + SharedTaps<S>::kUpX, up_taps);
  const float up_y = shared[SharedTaps<S>::kUpY];
  const Activation<float> activation = activation_of(a, tile.channel);
  const F function(activation.slope, activation.alpha, activation.beta);
  with_filtered_phase<S::kUp>(phase, [&](auto constant) {
#pragma unroll 1
    for (int i = thread * kLinePositions; i < mid_w; i += threads * kLinePositions) {
      const SampleWindow<S::kUp, S::kUpTaps, kLinePositions, decltype(constant)::value> window(
          [&](int j) { return samples.at(i / S::kUp, j); });
#pragma unroll
      for (int j = 0; j < kLinePositions; ++j) {
        positions.at(i, j) = up_y * window.position(up_taps, j);
      }
      // A loop: a sine takes many instructions
#pragma unroll 2
      for (int j = 0; j < kLinePositions; ++j) {
        positions.at(i, j) = activation.scaled(function.value(positions.at(i, j)));
      }
    }
  });
  BARRIER(59);
  const ExistingPart existing(first, mid_w, a.x.mid);
  if (!existing.all) {  // all threads or none
    continue_line(positions, existing, mid_w, a.x.replicate);
    BARRIER(60);
  }

  // The second filter: a thread takes a run of outputs, and stores others
  read_taps(shared + SharedTaps<S>::kDownX, down_taps);
  const float down_y = shared[SharedTaps<S>::kDownY];
#pragma unroll 1
  for (int i = thread * kLineOutputs; i < tile_w; i += threads * kLineOutputs) {
    RunningSums<S::kDown, S::kDownTaps, kLineOutputs, false> sums;
#pragma unroll
    for (int j = 0; j < sums.kPositions; ++j) {
      sums.add(down_taps, j, positions.at(i * S::kDown, j));
    }
#pragma unroll
    for (int r = 0; r < kLineOutputs; ++r) results.at(i, r) = down_y * sums.sum[r];
  }
  BARRIER(61);
  T* const to = static_cast<T*>(a.output) + tile.n * a.out.n + tile.channel * a.out.c;
  for (int i = thread; i < tile_w; i += threads) {
    to[tile.x.first + i] = from_accumulate<T>(results[i]);
  }
}

template <class T, class S, class F>
__global__ void __launch_bounds__(kFilteredThreads, 3)
    filtered_lines_grad_kernel(const __grid_constant__ FilteredArgs<float> a) {
  using L = LineLayout<S>;
  SHARED_MEMORY(float, shared);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const FilteredTile<float> tile = tile_of_samples(a);
  const int64_t first_sample = a.tile_w * (tile.tile % a.tiles_x) - samples_beyond(a);
  const int tile_w = static_cast<int>(
      min(static_cast<int64_t>(a.tile_w), a.x.in + samples_beyond(a) - first_sample));
  const ExistingPart own(first_sample, tile_w, a.x.in);
  const int mid_w = (tile_w - 1) * S::kUp + S::kUpTaps;
  const int64_t first = first_sample * S::kUp + a.x.up_pad - (S::kUpTaps - 1);  // position
  const int64_t out_left = floor_div(first + a.x.down_pad, S::kDown);
  const int phase = static_cast<int>(first + a.x.down_pad - out_left * S::kDown);
  constexpr int kBefore = S::kDownTaps / S::kDown - 1;

  const typename L::Samples samples{shared + L::kFirst};
  const typename L::Results results{shared + L::kFirst};  // when the samples have been read
  const typename L::Positions positions{shared + L::kPositions};
  const typename L::Positions signal{shared + L::kSignal};
  const typename L::Outputs outputs{shared + L::kOutputs};
  const bool finite = SharedTaps<S>::load(a, shared);
  load_line<T>(a.input, a.in, tile.n, tile.channel, first_sample - (S::kUpTaps / S::kUp - 1),
               (mid_w - 1 + S::kUpTaps - S::kUp) / S::kUp + 1, a.x.in, a.x.replicate,
               a.bias ? a.bias[tile.channel] : 0.0f, samples);
  load_line<T>(a.grad, a.grad_strides, tile.n, tile.channel, out_left - kBefore,
               kBefore + (S::kDown - 1 + mid_w - 1) / S::kDown + 1, a.x.out, false, 0.0f, outputs);
  if (BARRIER_ANY(62, !finite)) {
    direct_tile_grads<T>(a, shared + L::kPositions);
    return;
  }

  // The gradients of positions: a thread takes a run of them
  float up_taps[S::kUpTaps], down_taps[S::kDownTaps];
  read_taps(shared + SharedTaps<S>::kDownX, down_taps);
  const float down_y = shared[SharedTaps<S>::kDownY];
  with_filtered_phase<S::kDown>(phase, [&](auto constant) {
#pragma unroll 1
    for (int i = thread * kLinePositions; i < mid_w; i += threads * kLinePositions) {
      const OutputWindow<S::kDown, S::kDownTaps, kLinePositions, decltype(constant)::value> window(
          [&](int j) { return outputs.at(i / S::kDown, j); });
#pragma unroll
      for (int j = 0; j < kLinePositions; ++j) {
        positions.at(i, j) = down_y * window.position_grad(down_taps, j);
      }
    }
  });
  BARRIER(63);
  const ExistingPart existing(first, mid_w, a.x.mid);
  if (!existing.all) {
    fold_line(positions, existing, mid_w, a.x.replicate);
    BARRIER(64);
  }

  // Back through the activation, in place
  read_taps(shared + SharedTaps<S>::kUpX, up_taps);
  const float up_y = shared[SharedTaps<S>::kUpY];
  const Activation<float> activation = activation_of(a, tile.channel);
  const F function(activation.slope, activation.alpha, activation.beta);
  const Span counted = own_positions(a.x, tile.x);
  FilteredGradSums total;
#pragma unroll 1
  for (int i = thread * kLinePositions; i < mid_w; i += threads * kLinePositions) {
    const SampleWindow<S::kUp, S::kUpTaps, kLinePositions, S::kUp - 1> window(
        [&](int j) { return samples.at(i / S::kUp, j); });
#pragma unroll
    for (int j = 0; j < kLinePositions; ++j) {
      signal.at(i, j) = up_y * window.position(up_taps, j);
    }
#pragma unroll 2
    for (int j = 0; j < kLinePositions; ++j) {
      float by_alpha = 0, by_beta = 0;
      positions.at(i, j) = activation.grad_of(function.derivatives(signal.at(i, j)),
                                              positions.at(i, j), &by_alpha, &by_beta);
      const int64_t place = first + i + j - counted.first;
      if (i + j < mid_w && place >= 0 && place < counted.count) {
        total.alpha += by_alpha, total.beta += by_beta;
      }
    }
  }
  BARRIER(65);

  // Back through the first filter: a thread takes a run of samples, and stores others
#pragma unroll 1
  for (int i = thread * kLineOutputs; i < tile_w; i += threads * kLineOutputs) {
    RunningSums<S::kUp, S::kUpTaps, kLineOutputs, true> sums;
#pragma unroll
    for (int j = 0; j < sums.kPositions; ++j) {
      sums.add(up_taps, j, positions.at(i * S::kUp, j));
    }
#pragma unroll
    for (int r = 0; r < kLineOutputs; ++r) results.at(i, r) = up_y * sums.sum[r];
  }
  BARRIER(66);
  if (!own.all && a.x.replicate) {
    fold_line(results, own, tile_w, true);
    BARRIER(67);
  }
  T* const to = static_cast<T*>(a.output) + tile.n * a.out.n + tile.channel * a.out.c;
  for (int i = own.low + thread; i < own.high; i += threads) {
    total.bias += results[i];
    to[first_sample + i] = from_accumulate<T>(results[i]);
  }
  total.store(a, tile, results.data);
}

}  // namespace resample_layers
