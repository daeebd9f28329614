// SPDX-License-Identifier: BSD-3-Clause
//
// The activation's gradient: cut into units (bias_act_grad.h), each of which leaves its
// partial sums; these are added in double, in an order that follows from the shapes alone.
#include "bias_act_grad.h"

#include <algorithm>
#include <vector>

#include "plan.h"
#include "ranges.h"
#include "upfirdn2d_cpu.h"

namespace resample_layers {
namespace cpu {
namespace {

constexpr int64_t kUnitSize = 65536;      // elements, where lines are long
constexpr int64_t kGrain = 32768;         // elements of a thread, at least
constexpr int64_t kPixelBlock = 1024;     // of the noise's gradient

struct Call {
  const BiasActGradPlan* plan;
  const Kernels* kernels;
};

void run_units(int64_t begin, int64_t end, void* context) {
  const Call& call = *static_cast<const Call*>(context);
  call.kernels->bias_act_grad[int(call.plan->call->dtype)](*call.plan, begin, end);
}

// Partial sums [n, rows, C or pixels].
template <class A>
struct Partial {
  const A* sums;
  int64_t rows;
};

template <class A>
void add_bias(const BiasActGradParams& call, const Partial<A>& partial) {
  std::vector<double> totals(call.c, 0.0);
  for (int64_t row = 0; row < call.n * partial.rows; ++row) {
    for (int64_t c = 0; c < call.c; ++c) totals[c] += partial.sums[row * call.c + c];
  }
  std::transform(totals.begin(), totals.end(), static_cast<A*>(call.bias_grad),
                 [](double total) { return A(total); });
}

// Of each sample alone, times the tap.
template <class A>
void add_scale(const BiasActGradParams& call, const Partial<A>& partial) {
  double tap = 1;
  for (const void* factor : {call.tap_x, call.tap_y}) {
    if (factor != nullptr) tap *= double(*static_cast<const A*>(factor));
  }
  A* to = static_cast<A*>(call.scale_grad);
  const A* from = partial.sums;
  std::vector<double> totals(call.c);
  for (int64_t n = 0; n < call.n; ++n, to += call.c) {
    std::fill(totals.begin(), totals.end(), 0.0);
    for (int64_t row = 0; row < partial.rows; ++row, from += call.c) {
      for (int64_t c = 0; c < call.c; ++c) totals[c] += from[c];
    }
    std::transform(totals.begin(), totals.end(), to,
                   [tap](double total) { return A(total * tap); });
  }
}

template <class A>
struct NoiseCall {
  const BiasActGradParams* call;
  Partial<A> partial;
};

// Pixels [begin, end) of all samples of the noise's gradient, kPixelBlock at a time.
template <class A>
void add_noise(int64_t begin, int64_t end, void* context) {
  const NoiseCall<A>& noise = *static_cast<const NoiseCall<A>*>(context);
  const BiasActGradParams& call = *noise.call;
  const A* scale = static_cast<const A*>(call.noise_strength);
  const int64_t rows = call.n / call.noise_samples * noise.partial.rows;
  double totals[kPixelBlock];
  while (begin < end) {
    const int64_t sample = begin / call.pixels, first = begin % call.pixels;
    const int64_t count = std::min({end - begin, call.pixels - first, kPixelBlock});
    std::fill_n(totals, count, 0.0);
    for (int64_t row = 0; row < rows; ++row) {
      const A* from = noise.partial.sums + (sample * rows + row) * call.pixels + first;
      for (int64_t i = 0; i < count; ++i) totals[i] += from[i];
    }
    A* to = static_cast<A*>(call.noise_grad) + begin;
    const double factor = scale == nullptr ? 1.0 : double(*scale);
    for (int64_t i = 0; i < count; ++i) to[i] = A(totals[i] * factor);
    begin += count;
  }
}

template <class A>
void bias_act_grad(const BiasActGradParams& call, ParallelFor parallel_for, int num_threads) {
  BiasActGradPlan plan{};
  plan.call = &call;
  plan.lines = call.channels_last ? call.pixels : call.c;
  plan.line = call.channels_last ? call.c : call.pixels;
  plan.unit_line = std::min(plan.line, kUnitElements);
  plan.unit_lines = std::clamp<int64_t>(kUnitSize / plan.unit_line, 1, kUnitLines);
  plan.groups = ceil_div(plan.lines, plan.unit_lines);
  plan.stretches = ceil_div(plan.line, plan.unit_line);
  const int64_t units = call.n * plan.groups * plan.stretches;

  // One of the sums is over a line, the other one over the elements at one place of the lines
  const bool last = call.channels_last;
  std::vector<A> line_sums, element_sums, products;
  if ((last ? call.noise_grad : call.bias_grad) != nullptr) {
    line_sums.resize(call.n * plan.stretches * plan.lines);
    plan.line_sums = line_sums.data();
  }
  if ((last ? call.bias_grad : call.noise_grad) != nullptr) {
    element_sums.resize(call.n * plan.groups * plan.line);
    plan.element_sums = element_sums.data();
  }
  if (call.scale_grad != nullptr) {
    products.resize(last ? call.n * plan.groups * plan.line
                         : call.n * plan.stretches * plan.lines);
    (last ? plan.element_products : plan.line_products) = products.data();
  }
  std::vector<double> noise_products;
  if (call.strength_grad != nullptr) {
    (last ? plan.line_noise : plan.element_noise) = call.noise;
    noise_products.resize(units);
    plan.noise_products = noise_products.data();
  }

  Call of_units{&plan, &kernels_in_use()};
  const int64_t elements = call.n * call.c * call.pixels;
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, elements / units));
  if (num_threads <= 1 || units <= grain) run_units(0, units, &of_units);
  else parallel_for(units, grain, run_units, &of_units);

  const Partial<A> of_lines{line_sums.data(), plan.stretches};
  const Partial<A> of_elements{element_sums.data(), plan.groups};
  if (call.bias_grad != nullptr) add_bias(call, last ? of_elements : of_lines);
  if (call.scale_grad != nullptr) {
    add_scale(call, Partial<A>{products.data(), last ? plan.groups : plan.stretches});
  }
  if (call.noise_grad != nullptr) {
    NoiseCall<A> noise{&call, last ? of_lines : of_elements};
    const int64_t pixels = call.noise_samples * call.pixels;
    if (num_threads <= 1 || pixels <= kGrain) add_noise<A>(0, pixels, &noise);
    else parallel_for(pixels, kGrain, add_noise<A>, &noise);
  }
  if (call.strength_grad != nullptr) {
    double total = 0;
    for (const double product : noise_products) total += product;
    *static_cast<A*>(call.strength_grad) = A(total);
  }
}

}  // namespace
}  // namespace cpu

void bias_act_grad_cpu(const BiasActGradParams& params, ParallelFor parallel_for,
                       int num_threads) {
  const bool wide = params.dtype == Dtype::float64;
  (wide ? cpu::bias_act_grad<double> : cpu::bias_act_grad<float>)(params, parallel_for,
                                                                  num_threads);
}

}  // namespace resample_layers
