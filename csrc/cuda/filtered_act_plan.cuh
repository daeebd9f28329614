// SPDX-License-Identifier: BSD-3-Clause
//
// From params to the arguments of the kernels of filtered activations: which tile, and how much
// shared memory. Host code without a CUDA call.
#pragma once

#include <limits>

#include "filtered_act.cuh"

namespace resample_layers {

// What a launch may use. The defaults are an H100's; tests ask for less.
struct FilteredLimits {
  int64_t shared = 48 * 1024;         // bytes of one block where that is enough: every GPU has it
  int64_t shared_block = 227 * 1024;  // bytes of one block at most
  int most_tile = 1024;               // elements of a tile of one channel
  int threads = kFilteredThreads;     // of a block: a power of two, at least 32
  int64_t grid = 0x7fffffff;          // most blocks of a launch
};

struct FilteredPlan {
  bool tiled;       // else the `direct` kernels
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

// A tile for the call, or none.
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
  FilteredPlan plan{false, static_cast<unsigned>(limits.threads), 0};
  if (far(a->x) || far(a->y)) return plan;

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
      plan.tiled = true;
      break;
    }
  }
  if (!plan.tiled && a->channels > 1) {
    a->channels = 1, a->tile_w = a->tile_h = 1;
    bytes = filtered_elements(a, grad, limits.threads) * static_cast<int64_t>(sizeof(A));
    plan.tiled = bytes <= limits.shared_block;
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
    if (plan.tiled) return;
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

}  // namespace resample_layers
