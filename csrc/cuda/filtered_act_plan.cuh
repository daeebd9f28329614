// SPDX-License-Identifier: BSD-3-Clause
//
// From params to the arguments of the kernels of filtered activations: which row of the table
// serves the call or none, which tile, and how much shared memory. Host code without a CUDA call.
#pragma once

#include <limits>

#include "filtered_table.cuh"

namespace resample_layers {

// What computes a call: a row of the table, or the kernels of filtered_act.cuh.
enum class FilteredWay { planes_2, planes_4, radial_2, radial_4, lines, tile, direct };

// What a launch may use. The defaults are an H100's; tests ask for less.
struct FilteredLimits {
  int64_t shared = 48 * 1024;         // bytes of one block where that is enough: every GPU has it
  int64_t shared_block = 227 * 1024;  // bytes of one block at most
  int most_tile = 1024;               // elements of a tile of one channel
  int threads = kFilteredThreads;     // of a block: a power of two, at least 32
  int64_t grid = 0x7fffffff;          // most blocks of a launch
  bool table = true;                  // whether its rows may serve
  int table_tile = 1 << 30;           // elements of an axis of a tile of a row
};

struct FilteredPlan {
  FilteredWay way;
  unsigned block;
  int64_t shared;   // bytes of a tile
};

inline int64_t filtered_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The most elements of an axis that a tile of `tile` outputs, or of samples where gradients are
// computed, may hold.
struct FilteredCapacity {
  int64_t tile, in, mid, out;

  FilteredCapacity(const FilteredAxis& a, int64_t size, bool grad) : tile(size) {
    if (grad) {
      mid = (size - 1) * a.up + a.up_taps;
      if (a.replicate) {  // what lies beyond the reach of the end samples
        mid += std::max<int64_t>(0, a.up_pad - (a.up_taps - 1));
        mid += std::max<int64_t>(0, a.mid - 1 - (a.in - 1) * a.up - a.up_pad);
      }
    } else {
      mid = (size - 1) * a.down + a.down_taps;
    }
    mid = std::min(mid, std::max<int64_t>(a.mid, 0));
    in = std::min(a.in, (mid - 1 + a.up_taps - 1) / a.up + 1);
    out = (mid - 1 + a.down_taps - 1) / a.down + 1;
    if (a.replicate) {  // what does not reach the end positions
      out += filtered_ceil_div(std::max<int64_t>(0, a.down_pad - (a.down_taps - 1)), a.down);
      out += filtered_ceil_div(
          std::max<int64_t>(0, (a.out - 1) * a.down - a.down_pad - (a.mid - 1)), a.down);
    }
    out = std::min(out, a.out);
    in = std::max<int64_t>(in, 0), out = std::max<int64_t>(out, 0);
  }
};

// Elements of shared memory that a tile takes; writes down where its arrays lie.
template <class A>
int64_t filtered_elements(FilteredArgs<A>* a, bool grad, int threads) {
  const FilteredCapacity x(a->x, a->tile_w, grad), y(a->y, a->tile_h, grad);
  const int64_t depth = a->channels;
  const int64_t input = y.in * x.in * depth, output_grad = grad ? y.out * x.out * depth : 0;
  const int64_t columns = a->up_kernel ? 0 : y.mid * x.in * depth;
  const int64_t grad_columns = grad && !a->down_kernel ? y.mid * x.out * depth : 0;
  const int64_t mid = y.mid * x.mid * depth;
  const bool has_rows = grad ? !a->up_kernel : !a->down_kernel;
  const int64_t rows = has_rows ? y.mid * x.tile * depth : 0;

  // The first arrays are read until the columns are there, or until mid is there.
  const bool reused = !a->up_kernel && (!grad || !a->down_kernel);
  int64_t next = 0;
  int64_t begin[7];
  begin[0] = 0;
  begin[1] = input;
  next = reused ? std::max(input + output_grad, mid) : input + output_grad;
  begin[2] = next;
  begin[3] = next + columns;
  begin[5] = next;
  next += std::max(columns + grad_columns, rows);
  begin[4] = reused ? 0 : next;
  next += reused ? 0 : mid;
  begin[6] = next;
  next += grad ? threads : 0;
  if (next > std::numeric_limits<int32_t>::max() / 2) return next;
  auto at = [&](int i) { return static_cast<int>(begin[i]); };
  a->at = FilteredOffsets{at(0), at(1), at(2), at(3), at(4), at(5), at(6)};
  return next;
}

// ------------------------------------------------------------------ the table

// The shapes of its rows; gradients have tiles of their own.
template <FilteredWay kWay, bool kGrad>
struct FilteredRow;
template <bool kGrad>
struct FilteredRow<FilteredWay::planes_2, kGrad> {
  using Shape = FilteredShape<2, 2, 48, 32>;
};
template <>
struct FilteredRow<FilteredWay::planes_4, false> {
  using Shape = FilteredShape<4, 2, 48, 32>;
};
template <>
struct FilteredRow<FilteredWay::planes_4, true> {
  using Shape = FilteredShape<4, 2, 24, 16>;
};
template <>
struct FilteredRow<FilteredWay::radial_2, false> {
  using Shape = FilteredShape<2, 2, 64, 32, true>;
};
template <>
struct FilteredRow<FilteredWay::radial_2, true> {
  using Shape = FilteredShape<2, 2, 48, 32, true>;
};
template <>
struct FilteredRow<FilteredWay::radial_4, false> {
  using Shape = FilteredShape<4, 2, 64, 32, true>;
};
template <>
struct FilteredRow<FilteredWay::radial_4, true> {
  using Shape = FilteredShape<4, 2, 24, 16, true>;
};
template <bool kGrad>
struct FilteredRow<FilteredWay::lines, kGrad> {
  using Shape = FilteredShape<2, 2, 1016, 1>;
};

template <FilteredWay kWay, bool kGrad>
constexpr int64_t filtered_row_floats() {
  using S = typename FilteredRow<kWay, kGrad>::Shape;
  if constexpr (kWay == FilteredWay::lines) {
    return kGrad ? LineLayout<S>::kGradFloats : LineLayout<S>::kFloats;
  } else {
    return kGrad ? PlaneGradLayout<S>::kFloats : PlaneLayout<S>::kFloats;
  }
}

// The width of a tile of `size` elements, at most `most`: as even as leaves no more tiles, and a
// multiple of `step`.
inline int64_t filtered_even_tile(int64_t size, int64_t most, int64_t step) {
  most = std::max(most / step, int64_t{1}) * step;
  const int64_t tiles = filtered_ceil_div(size, most);
  return filtered_ceil_div(filtered_ceil_div(size, tiles), step) * step;
}

// Whether a row serves the call; if so, its tile.
template <FilteredWay kWay, bool kGrad>
bool plan_filtered_row(FilteredArgs<float>* a, const FilteredLimits& limits, FilteredPlan* plan) {
  using S = typename FilteredRow<kWay, kGrad>::Shape;
  constexpr bool kLines = kWay == FilteredWay::lines;
  const int64_t bytes = filtered_row_floats<kWay, kGrad>() * static_cast<int64_t>(sizeof(float));
  const int64_t width = kGrad ? a->x.in : a->x.out, height = kGrad ? a->y.in : a->y.out;

  // Filters of this shape; rows whose elements are neighbours
  const auto axis = [](const FilteredAxis& b, int64_t up, int64_t down, int64_t up_taps,
                       int64_t down_taps) {
    return b.up == up && b.down == down && b.up_taps == up_taps && b.down_taps == down_taps;
  };
  const auto dense = [](const FilteredStrides& s, int64_t size) { return size == 1 || s.w == 1; };
  if (a->up_kernel || bytes > limits.shared_block) return false;
  if (S::kRadial != (a->down_kernel != nullptr)) return false;
  if (!axis(a->x, S::kUp, S::kDown, S::kUpTaps, S::kDownTaps)) return false;
  if (!dense(a->in, a->x.in) || !dense(a->out, width)) return false;
  if (kGrad && !dense(a->grad_strides, a->x.out)) return false;

  int64_t tile_w, tile_h = 1, tiles_w = width;
  if constexpr (kLines) {
    // A signal. No pad is longer than the taps beside the one that meets an end.
    const FilteredAxis& x = a->x;
    const int64_t last_up_pad = x.mid - x.in * x.up - x.up_pad + x.up_taps - 1;
    const int64_t last_down_pad = (x.out - 1) * x.down + x.down_taps - x.down_pad - x.mid;
    const auto short_pad = [](int64_t pad, int64_t taps) { return pad >= 0 && pad < taps; };
    if (a->activation != Nonlinearity::snake || !axis(a->y, 1, 1, 1, 1)) return false;
    if (a->y.in != 1 || a->y.mid != 1 || a->y.out != 1) return false;
    if (!short_pad(x.up_pad, x.up_taps) || !short_pad(last_up_pad, x.up_taps)) return false;
    if (!short_pad(x.down_pad, x.down_taps) || last_down_pad >= x.down_taps) return false;
    int64_t most = std::min(S::kTileW, limits.table_tile);
    if (kGrad && x.replicate) tiles_w += 2 * kLineBeyond;
    tile_w = filtered_even_tile(tiles_w, most, 8);
    // The last tile has what lies beyond the end, and every sample near to it.
    const auto whole_end = [&] {
      const int64_t before = (filtered_ceil_div(tiles_w, tile_w) - 1) * tile_w;
      return before == 0 || before + 2 * kLineBeyond <= tiles_w;
    };
    while (kGrad && x.replicate && tile_w >= 2 * kLineBeyond && !whole_end()) tile_w -= 8;
    if (kGrad && x.replicate && tile_w < 2 * kLineBeyond) return false;
  } else {
    // Nothing beyond the ends of the activated signal is read, and the ends are not continued.
    const auto inside = [](const FilteredAxis& b) {
      return b.down_pad == 0 && (b.out - 1) * b.down + b.down_taps <= b.mid;
    };
    if (a->activation != Nonlinearity::leaky_relu || a->x.replicate) return false;
    if (!axis(a->y, S::kUp, S::kDown, S::kUpTaps, S::kDownTaps)) return false;
    if (!inside(a->x) || !inside(a->y)) return false;
    tile_w = filtered_even_tile(width, std::min(S::kTileW, limits.table_tile), kFilteredRun);
    tile_h = filtered_even_tile(height, std::min(S::kTileH, limits.table_tile), kFilteredRows);
  }
  const int64_t tiles_x = filtered_ceil_div(tiles_w, tile_w);
  const int64_t tiles_y = filtered_ceil_div(height, tile_h);
  const int64_t tiles = a->n * a->c * tiles_x * tiles_y;
  if (tiles > limits.grid) return false;
  a->tile_w = static_cast<int>(tile_w), a->tile_h = static_cast<int>(tile_h);
  a->tiles_x = tiles_x, a->tiles_y = tiles_y, a->tiles = tiles;
  a->channels = 1, a->groups = a->c;
  plan->way = kWay, plan->shared = bytes;
  return true;
}

template <bool kGrad>
bool plan_filtered_table(FilteredArgs<float>* a, const FilteredLimits& limits,
                         FilteredPlan* plan) {
  return plan_filtered_row<FilteredWay::planes_2, kGrad>(a, limits, plan) ||
         plan_filtered_row<FilteredWay::planes_4, kGrad>(a, limits, plan) ||
         plan_filtered_row<FilteredWay::radial_2, kGrad>(a, limits, plan) ||
         plan_filtered_row<FilteredWay::radial_4, kGrad>(a, limits, plan) ||
         plan_filtered_row<FilteredWay::lines, kGrad>(a, limits, plan);
}

template <bool kGrad>
bool plan_filtered_table(FilteredArgs<double>*, const FilteredLimits&, FilteredPlan*) {
  return false;
}

// ------------------------------------------------------------------ any call

// How to compute the call; fills in its tile.
template <class A>
FilteredPlan plan_filtered(FilteredArgs<A>* a, bool grad, const FilteredLimits& limits) {
  const int64_t width = grad ? a->x.in : a->x.out, height = grad ? a->y.in : a->y.out;
  // A tile counts in 32 bits: also the distance from its elements to what they read, which is
  // larger where the ends are continued far beyond them.
  const int64_t near = int64_t{1} << 28;
  auto far = [&](const FilteredAxis& axis) {
    return std::abs(axis.up_pad) > near || std::abs(axis.down_pad) > near ||
           axis.up > near >> 12 || axis.down > near >> 12 || axis.up_taps > near ||
           axis.down_taps > near || axis.mid - axis.in * axis.up > near ||
           axis.out * axis.down - axis.mid > near;
  };
  FilteredPlan plan{FilteredWay::direct, static_cast<unsigned>(limits.threads), 0};
  if (far(a->x) || far(a->y)) return plan;
  if (limits.table && (grad ? plan_filtered_table<true>(a, limits, &plan)
                            : plan_filtered_table<false>(a, limits, &plan))) {
    return plan;
  }

  // Where channels are innermost, a block takes 32 bytes of them: a sector of memory.
  const int64_t wanted = a->in.c == 1 && a->c > 1 && (width > 1 || height > 1) ? 8 : 1;
  a->channels = 1;
  while (a->channels < wanted && a->channels < a->c) a->channels *= 2;

  // A tile of some size where a small share of shared memory holds one; else as large as fits
  int64_t bytes = 0;
  for (int64_t most : {limits.shared, limits.shared_block}) {
    int64_t w = std::min<int64_t>(width, height == 1 ? limits.most_tile : 32);
    int64_t h = std::min<int64_t>(height, 32);
    while (w > 1 && w * h > limits.most_tile) w = (w + 1) / 2;
    while (true) {
      a->tile_w = static_cast<int>(w), a->tile_h = static_cast<int>(h);
      bytes = filtered_elements(a, grad, limits.threads) * static_cast<int64_t>(sizeof(A));
      if (bytes <= most || w * h == 1) break;
      (w > h ? w : h) = ((w > h ? w : h) + 1) / 2;
    }
    if (bytes <= most && (w * h >= 64 || w * h == width * height || most == limits.shared_block)) {
      plan.way = FilteredWay::tile;
      break;
    }
  }
  if (plan.way == FilteredWay::direct && a->channels > 1) {
    a->channels = 1, a->tile_w = a->tile_h = 1;
    bytes = filtered_elements(a, grad, limits.threads) * static_cast<int64_t>(sizeof(A));
    if (bytes <= limits.shared_block) plan.way = FilteredWay::tile;
  }
  plan.shared = bytes;
  a->tiles_x = filtered_ceil_div(width, a->tile_w);
  a->tiles_y = filtered_ceil_div(height, a->tile_h);
  a->groups = filtered_ceil_div(a->c, a->channels);
  a->tiles = a->n * a->groups * a->tiles_x * a->tiles_y;
  return plan;
}

template <class A>
FilteredArgs<A> make_filtered_args(const FilteredActParams& p, const FilteredActGradParams* grad) {
  auto numbers = [](const void* data) { return static_cast<const A*>(data); };
  // Of an axis of one element the stride is never used.
  auto strides = [](const Plane4d& t) {
    return FilteredStrides{t.n == 1 ? 0 : t.stride_n, t.c == 1 ? 0 : t.stride_c,
                           t.h == 1 ? 0 : t.stride_h, t.w == 1 ? 0 : t.stride_w};
  };
  const Plane4d& result = grad ? grad->grad_plane : p.out;
  FilteredArgs<A> a{};
  a.input = p.input, a.output = p.output, a.grad = grad ? grad->grad : nullptr;
  a.bias = numbers(p.bias), a.alpha = numbers(p.alpha), a.beta = numbers(p.beta);
  a.up_kernel = numbers(p.up_filter.kernel), a.down_kernel = numbers(p.down_filter.kernel);
  a.up_taps_x = numbers(p.up_filter.taps_x), a.up_taps_y = numbers(p.up_filter.taps_y);
  a.down_taps_x = numbers(p.down_filter.taps_x), a.down_taps_y = numbers(p.down_filter.taps_y);
  auto axis = [&](int64_t in, int64_t mid, int64_t out, int64_t up, int64_t down, int64_t up_taps,
                  int64_t down_taps, int64_t up_pad, int64_t down_pad) {
    return FilteredAxis{in, mid, out, up, down, up_taps, down_taps, up_pad, down_pad, p.replicate};
  };
  a.x = axis(p.in.w, p.mid_w, result.w, p.up_x, p.down_x, p.up_filter.kw, p.down_filter.kw,
             p.up_pad_x0, p.down_pad_x0);
  a.y = axis(p.in.h, p.mid_h, result.h, p.up_y, p.down_y, p.up_filter.kh, p.down_filter.kh,
             p.up_pad_y0, p.down_pad_y0);
  a.in = strides(p.in), a.out = strides(p.out);
  if (grad) a.grad_strides = strides(grad->grad_plane);
  a.n = p.in.n, a.c = p.in.c;
  a.activation = static_cast<Nonlinearity>(p.activation);
  a.slope = static_cast<A>(p.slope), a.gain = static_cast<A>(p.gain);
  // A clamp is rounded to the accumulate type, and is at most its largest finite value.
  const double largest = static_cast<double>(std::numeric_limits<A>::max());
  a.clamp = p.clamp < 0 ? std::numeric_limits<A>::infinity()
                        : static_cast<A>(std::min(p.clamp, largest));
  return a;
}

// Blocks of a plane, and of a launch, of the `direct` kernels.
inline int64_t filtered_direct_blocks(int64_t height, int64_t width) {
  return filtered_ceil_div(height * width, kDirectElements);
}

// How many sums of each kind the blocks of a gradient write, for each plane.
template <class A>
struct FilteredSums {
  int64_t bias, parameters;

  FilteredSums(const FilteredArgs<A>& a, const FilteredPlan& plan)
      : bias(a.tiles_x * a.tiles_y), parameters(bias) {
    if (plan.way != FilteredWay::direct) return;
    bias = filtered_direct_blocks(a.y.in, a.x.in);
    parameters = filtered_direct_blocks(a.y.mid, a.x.mid);
  }
};

// Gives each wanted kind of sums its part of the workspace; returns the bytes of all of them.
template <class A>
int64_t place_sums(const FilteredActGradParams& p, const FilteredSums<A>& sums, void* workspace,
                   FilteredArgs<A>* a) {
  const int64_t planes = a->n * a->c;
  A* const begin = static_cast<A*>(workspace);
  int64_t next = 0;
  auto take = [&](bool wanted, int64_t count) -> A* {
    if (!wanted) return nullptr;
    next += planes * count;
    return begin ? begin + next - planes * count : nullptr;
  };
  a->bias_sums = take(p.grad_bias != nullptr, sums.bias);
  a->alpha_sums = take(p.grad_alpha != nullptr, sums.parameters);
  a->beta_sums = take(p.grad_beta != nullptr, sums.parameters);
  return next * static_cast<int64_t>(sizeof(A));
}

template <class A>
int64_t sums_bytes(const FilteredActGradParams& p, const FilteredLimits& limits) {
  auto a = make_filtered_args<A>(p, &p);
  const FilteredPlan plan = plan_filtered(&a, true, limits);
  return place_sums(p, FilteredSums<A>(a, plan), nullptr, &a);
}

// The kernel of a tile; null where the way has none.
template <class A>
using FilteredKernel = void (*)(FilteredArgs<A>);

template <class T, bool kGrad>
FilteredKernel<Accumulate<T>> filtered_tile_kernel(FilteredWay way) {
  if constexpr (sizeof(T) < 8) {
    using Planes2 = typename FilteredRow<FilteredWay::planes_2, kGrad>::Shape;
    using Planes4 = typename FilteredRow<FilteredWay::planes_4, kGrad>::Shape;
    using Radial2 = typename FilteredRow<FilteredWay::radial_2, kGrad>::Shape;
    using Radial4 = typename FilteredRow<FilteredWay::radial_4, kGrad>::Shape;
    using Lines = typename FilteredRow<FilteredWay::lines, kGrad>::Shape;
    using Function = Snake<Scalar<float>>;
    if constexpr (kGrad) {
      if (way == FilteredWay::planes_2) return filtered_planes_grad_kernel<T, Planes2>;
      if (way == FilteredWay::planes_4) return filtered_planes_grad_kernel<T, Planes4>;
      if (way == FilteredWay::radial_2) return filtered_planes_grad_kernel<T, Radial2>;
      if (way == FilteredWay::radial_4) return filtered_planes_grad_kernel<T, Radial4>;
      if (way == FilteredWay::lines) return filtered_lines_grad_kernel<T, Lines, Function>;
    } else {
      if (way == FilteredWay::planes_2) return filtered_planes_kernel<T, Planes2>;
      if (way == FilteredWay::planes_4) return filtered_planes_kernel<T, Planes4>;
      if (way == FilteredWay::radial_2) return filtered_planes_kernel<T, Radial2>;
      if (way == FilteredWay::radial_4) return filtered_planes_kernel<T, Radial4>;
      if (way == FilteredWay::lines) return filtered_lines_kernel<T, Lines, Function>;
    }
  }
  if (way != FilteredWay::tile) return nullptr;
  if constexpr (kGrad) {
    return filtered_act_grad_kernel<T>;
  } else {
    return filtered_act_kernel<T>;
  }
}

}  // namespace resample_layers
