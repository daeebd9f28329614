// SPDX-License-Identifier: BSD-3-Clause
//
// Emulating one call of a filtered activation for one storage type, and comparing it with the
// oracle; included by filtered_act_<type>.cpp.
#pragma once

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>

#include "cuda_host.h"
#include "filtered_act_check.h"
#include "filtered_act_plan.cuh"

namespace filtered {

using namespace resample_layers;

// An array of exactly this many elements, all of them NaN, so that one that is not written, or
// is foreign, shows.
template <class T>
struct Memory {
  std::unique_ptr<void, void (*)(void*)> memory;
  T* data;

  explicit Memory(int64_t count)
      : memory(std::malloc(std::max<size_t>(1, static_cast<size_t>(count) * sizeof(T))), std::free),
        data(static_cast<T*>(memory.get())) {
    std::memset(memory.get(), 0xff, static_cast<size_t>(count) * sizeof(T));
  }
};

inline Plane4d plane(int64_t n, int64_t c, int64_t h, int64_t w, bool channels_last, int64_t gap) {
  Plane4d p{n, c, h, w, 0, 0, 0, 0};
  if (channels_last) {
    p.stride_c = 1, p.stride_w = c, p.stride_h = c * w + gap, p.stride_n = p.stride_h * h;
  } else {
    p.stride_w = 1, p.stride_h = w + gap, p.stride_c = p.stride_h * h, p.stride_n = p.stride_c * c;
  }
  return p;
}

inline int64_t last_offset(const Plane4d& p) {
  return (p.n - 1) * p.stride_n + (p.c - 1) * p.stride_c + (p.h - 1) * p.stride_h +
         (p.w - 1) * p.stride_w;
}

template <class F>
void for_all(const Plane4d& p, const F& f) {
  size_t i = 0;
  for (int64_t n = 0; n < p.n; ++n) {
    for (int64_t c = 0; c < p.c; ++c) {
      for (int64_t y = 0; y < p.h; ++y) {
        for (int64_t x = 0; x < p.w; ++x) {
          f(i++, n * p.stride_n + c * p.stride_c + y * p.stride_h + x * p.stride_w);
        }
      }
    }
  }
}

template <class T>
std::vector<double> draw(const Plane4d& p, T* data, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<size_t>(p.n * p.c * p.h * p.w));
  for_all(p, [&](size_t i, int64_t at) {
    data[at] = from_accumulate<T>(static_cast<Accumulate<T>>(normal(random)));
    values[i] = static_cast<double>(to_accumulate(data[at]));
  });
  return values;
}

template <class A>
std::vector<double> draw(int64_t count, A* data, std::mt19937_64& random, double low) {
  std::uniform_real_distribution<double> uniform(low, 1);
  std::vector<double> values;
  for (int64_t i = 0; i < count; ++i) {
    data[i] = static_cast<A>(uniform(random));
    values.push_back(static_cast<double>(data[i]));
  }
  return values;
}

// A filter in the kernels' and in the oracle's form.
template <class A>
struct Taps {
  Memory<A> values, taps_x, taps_y;
  Kernel kernel;
  resample_layers::Filter filter;

  Taps(int64_t kh, int64_t kw, bool two, std::mt19937_64& random)
      : values(two ? kh * kw : 0),
        taps_x(two ? 0 : kw),
        taps_y(two ? 0 : kh),
        kernel{kh, kw, {}, {}, {}} {
    if (two) kernel.values = draw(kh * kw, values.data, random, -1);
    if (!two) kernel.taps_x = draw(kw, taps_x.data, random, -1);
    if (!two) kernel.taps_y = draw(kh, taps_y.data, random, -1);
    filter = {two ? values.data : nullptr, two ? nullptr : taps_x.data,
              two ? nullptr : taps_y.data, kh, kw};
  }
};

// What a result may be off by, and by how much it is off at most, relative to that.
struct Worst {
  double of = 0;

  void add(double got, double expected, double tolerance) {
    if (std::isnan(got) && std::isnan(expected)) return;
    const double error = std::abs(got - expected) / tolerance;
    if (!(error <= of)) of = std::isnan(error) ? HUGE_VAL : error;
  }
};

template <class T>
struct Emulation {
  using A = Accumulate<T>;
  static constexpr double kSum = sizeof(A) == 8 ? 0x1p-53 : 0x1p-24;
  static constexpr double kStore = sizeof(T) == 8   ? 0x1p-53
                                   : sizeof(T) == 4 ? 0x1p-24
                                   : std::is_same_v<T, Half> ? 0x1p-11
                                                             : 0x1p-8;

  static constexpr double kTerms = 8;  // roundings that add up, beside their random signs

  static FilteredLimits limits(const Call& c) {
    FilteredLimits l;
    l.shared = l.shared_block = c.way == Way::direct ? 0 : c.shared;
    l.most_tile = c.tile, l.threads = c.threads;
    l.table = c.way == Way::table, l.table_tile = c.tile;
    l.grid = l.table ? l.grid : c.grid;
    return l;
  }

  static bool goes(const Call& c, const FilteredPlan& plan) {
    return c.way == Way::direct ? plan.way == FilteredWay::direct
           : c.way == Way::tile ? plan.way == FilteredWay::tile
                                : plan.way < FilteredWay::tile;
  }

  template <class Kernel>
  static void start(Kernel kernel, const FilteredLimits& l, int64_t blocks,
                    const FilteredPlan& plan, int64_t shared, const FilteredArgs<A>& a) {
    cuda_host::launch(static_cast<unsigned>(std::min(blocks, l.grid)), plan.block,
                      static_cast<size_t>(shared), [&] { kernel(a); });
  }

  // bfloat16 by its generic kernels alone: it differs from float16 in a conversion, and compiling
  // takes long.
  template <bool kGrad>
  static FilteredKernel<A> kernel_of(FilteredWay way) {
    if constexpr (!std::is_same_v<T, BFloat16>) return filtered_tile_kernel<T, kGrad>(way);
    if (way != FilteredWay::tile) cuda_host::fail("a row for bfloat16");
    if constexpr (kGrad) return filtered_act_grad_kernel<T>;
    if constexpr (!kGrad) return filtered_act_kernel<T>;
  }

  // False where the call does not go the way that it asks for.
  static bool forward(const Call& c, const FilteredActParams& p) {
    const FilteredLimits l = limits(c);
    auto a = make_filtered_args<A>(p, nullptr);
    const FilteredPlan plan = plan_filtered(&a, false, l);
    if (!goes(c, plan)) return false;
    if (plan.way != FilteredWay::direct) {
      start(kernel_of<false>(plan.way), l, a.tiles, plan, plan.shared, a);
    } else {
      a.blocks = filtered_direct_blocks(a.y.out, a.x.out);
      start(filtered_act_direct_kernel<T>, l, a.n * a.c * a.blocks, plan, 0, a);
    }
    return true;
  }

  static bool backward(const Call& c, const FilteredActGradParams& p) {
    const FilteredLimits l = limits(c);
    auto a = make_filtered_args<A>(p, &p);
    const FilteredPlan plan = plan_filtered(&a, true, l);
    if (!goes(c, plan)) return false;
    const FilteredSums<A> sums(a, plan);
    const int64_t bytes = sums_bytes<A>(p, l);
    Memory<char> workspace(bytes);
    if (place_sums(p, sums, workspace.data, &a) != bytes) cuda_host::fail("size of workspace");
    const int64_t reduced = l.threads * static_cast<int64_t>(sizeof(A));
    if (plan.way != FilteredWay::direct) {
      start(kernel_of<true>(plan.way), l, a.tiles, plan, plan.shared, a);
    } else {
      a.blocks = sums.bias;
      start(filtered_act_grad_direct_kernel<T>, l, a.n * a.c * a.blocks, plan, reduced, a);
      if (a.alpha_sums || a.beta_sums) {
        a.blocks = sums.parameters;
        start(filtered_act_parameter_grad_direct_kernel<T>, l, a.n * a.c * a.blocks, plan, reduced,
              a);
      }
    }
    const auto add = [&](const A* from, int64_t blocks, void* to) {
      if (!from) return;
      cuda_host::launch(static_cast<unsigned>(std::min(a.c, l.grid)), plan.block,
                        plan.block * sizeof(double), [&] {
                          filtered_act_sums_kernel<A>(from, a.n, a.c, blocks, static_cast<A*>(to));
                        });
    };
    add(a.bias_sums, sums.bias, p.grad_bias);
    add(a.alpha_sums, sums.parameters, p.grad_alpha);
    add(a.beta_sums, sums.parameters, p.grad_beta);
    return true;
  }

  static double run(const Call& c) {
    std::mt19937_64 random(c.seed);
    const Plane4d in = plane(c.n, c.c, c.in_h, c.in_w, c.channels_last, c.row_gap);
    const Plane4d out = plane(c.n, c.c, c.out_h(), c.out_w(), c.channels_last, 0);
    const Plane4d grads = plane(c.n, c.c, c.out_h(), c.out_w(), c.channels_last, c.row_gap);
    const Plane4d grad_in = plane(c.n, c.c, c.in_h, c.in_w, c.channels_last, 0);
    Memory<T> input(last_offset(in) + 1), output(last_offset(out) + 1);
    Memory<T> grad(last_offset(grads) + 1), grad_input(last_offset(grad_in) + 1);
    Memory<A> bias(c.c), alpha(c.c), beta(c.c), grad_bias(c.c), grad_alpha(c.c), grad_beta(c.c);
    Taps<A> up(c.up_kh, c.up_kw, c.up_2d, random), down(c.down_kh, c.down_kw, c.down_2d, random);
    Arrays arrays;
    arrays.input = draw(in, input.data, random), arrays.grad = draw(grads, grad.data, random);
    arrays.bias = draw(c.c, bias.data, random, -1);
    if (!c.bias) arrays.bias.assign(static_cast<size_t>(c.c), 0);
    arrays.alpha = draw(c.c, alpha.data, random, 0.3);
    arrays.beta = draw(c.c, beta.data, random, 0.3);
    if (c.nan_tap) {
      up.taps_y.data[0] = std::numeric_limits<A>::quiet_NaN();
      up.kernel.taps_y[0] = std::numeric_limits<double>::quiet_NaN();
    }
    arrays.up = up.kernel, arrays.down = down.kernel;
    const Results expected = oracle(c, arrays);
    if (expected.closest < kSum) {  // either side of a jump would be right: another draw
      Call again = c;
      again.seed += 1000003;
      return run(again);
    }

    FilteredActGradParams p{};
    p.input = input.data, p.output = output.data, p.in = in, p.out = out;
    p.bias = c.bias ? bias.data : nullptr;
    const bool parameters = c.activation == 1;
    p.alpha = parameters ? alpha.data : nullptr, p.beta = parameters ? beta.data : nullptr;
    p.up_filter = up.filter, p.down_filter = down.filter;
    p.up_x = c.up_x, p.up_y = c.up_y, p.down_x = c.down_x, p.down_y = c.down_y;
    p.up_pad_x0 = c.up_pad_x, p.up_pad_y0 = c.up_pad_y;
    p.down_pad_x0 = c.down_pad_x, p.down_pad_y0 = c.down_pad_y;
    p.mid_h = c.mid_h(), p.mid_w = c.mid_w(), p.replicate = c.replicate;
    p.activation = c.activation, p.slope = c.slope, p.gain = c.gain, p.clamp = c.clamp;
    p.dtype = sizeof(T) == 8 ? Dtype::float64
              : sizeof(T) == 4 ? Dtype::float32
              : std::is_same_v<T, Half> ? Dtype::float16 : Dtype::bfloat16;
    if (!forward(c, p)) return -1;
    p.output = grad_input.data, p.out = grad_in;
    p.grad = grad.data, p.grad_plane = grads;
    p.grad_bias = c.wants_bias ? grad_bias.data : nullptr;
    p.grad_alpha = parameters && c.wants_parameters ? grad_alpha.data : nullptr;
    p.grad_beta = parameters && c.wants_parameters ? grad_beta.data : nullptr;
    if (!backward(c, p)) return -1;

    Worst worst;
    const double tiny = std::is_same_v<T, Half> ? 0x1p-24 : 0;  // its smallest step
    const auto image = [&](const Plane4d& where, const T* got, const std::vector<double>& values,
                           double size) {
      for_all(where, [&](size_t i, int64_t at) {
        worst.add(static_cast<double>(to_accumulate(got[at])), values[i],
                  kTerms * kSum * size + 1.01 * kStore * std::abs(values[i]) + tiny);
      });
    };
    image(out, output.data, expected.output, expected.output_size);
    image(grad_in, grad_input.data, expected.grad_input, expected.input_size);
    const auto sums = [&](const void* wanted, const A* got, const std::vector<double>& values,
                          const std::vector<double>& sizes) {
      for (size_t i = 0; i < values.size(); ++i) {
        if (!wanted) continue;
        worst.add(static_cast<double>(got[i]), values[i], kTerms * kSum * sizes[i] + 1e-30);
      }
    };
    sums(p.grad_bias, grad_bias.data, expected.grad_bias, expected.bias_size);
    sums(p.grad_alpha, grad_alpha.data, expected.grad_alpha, expected.alpha_size);
    sums(p.grad_beta, grad_beta.data, expected.grad_beta, expected.beta_size);
    return worst.of;
  }
};

template <class T>
double run(const Call& call) {
  return Emulation<T>::run(call);
}

}  // namespace filtered
