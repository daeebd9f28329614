// SPDX-License-Identifier: BSD-3-Clause
//
// Emulating one call for one storage type; included by check_<type>.cpp.
#pragma once

#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>

#include "bias_act_grad.cuh"
#include "check.h"
#include "plan.cuh"
#include "tile.cuh"

namespace check {

using namespace resample_layers;

template <class T>
struct Traits;
template <>
struct Traits<Half> {
  static constexpr Dtype dtype = Dtype::float16;
  static constexpr double epsilon = 0x1p-11, tiny = 0x1p-24;
};
template <>
struct Traits<BFloat16> {
  static constexpr Dtype dtype = Dtype::bfloat16;
  static constexpr double epsilon = 0x1p-8, tiny = 0;
};
template <>
struct Traits<float> {
  static constexpr Dtype dtype = Dtype::float32;
  static constexpr double epsilon = 0x1p-24, tiny = 0;
};
template <>
struct Traits<double> {
  static constexpr Dtype dtype = Dtype::float64;
  static constexpr double epsilon = 0x1p-53, tiny = 0;
};

// An array of exactly this many bytes, all NaN, so that an unwritten or foreign
// element shows; `offset` elements lie before the first one.
template <class T>
struct Array {
  std::unique_ptr<void, void (*)(void*)> memory;
  T* data;

  Array(int64_t count, int64_t offset)
      : memory(std::malloc(static_cast<size_t>(count + offset) * sizeof(T)), std::free),
        data(static_cast<T*>(memory.get()) + offset) {
    std::memset(memory.get(), 0xff, static_cast<size_t>(count + offset) * sizeof(T));
  }
};

inline Plane4d strides_of(int64_t n, int64_t c, int64_t h, int64_t w, bool channels_last,
                          int64_t gap) {
  Plane4d p{n, c, h, w, 0, 0, 0, 0};
  if (channels_last) {
    p.stride_c = 1, p.stride_w = c, p.stride_h = c * w + gap, p.stride_n = p.stride_h * h;
  } else {
    p.stride_w = 1, p.stride_h = w + gap, p.stride_c = p.stride_h * h, p.stride_n = p.stride_c * c;
  }
  return p;
}

template <class F>
void for_each(const Plane4d& p, const F& f) {
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

// Random samples, rounded to T, as double and in place.
template <class T>
std::vector<double> fill(const Plane4d& p, T* data, std::mt19937_64& random,
                         bool positive = false) {
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<size_t>(elements(p)));
  for_each(p, [&](size_t i, int64_t at) {
    const double value = normal(random);
    data[at] = from_accumulate<T>(static_cast<Accumulate<T>>(positive ? std::abs(value) : value));
    values[i] = static_cast<double>(to_accumulate(data[at]));
  });
  return values;
}

template <class A>
std::vector<double> fill_taps(int64_t count, A* data, std::mt19937_64& random,
                              BadTap bad = BadTap::none) {
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<double> values;
  for (int64_t i = 0; i < count; ++i) {
    data[i] = static_cast<A>(uniform(random));
    if (bad == BadTap::infinite) data[i] = std::abs(data[i]);
  }
  if (bad != BadTap::none) {
    using limits = std::numeric_limits<A>;
    data[std::uniform_int_distribution<int64_t>(0, count - 1)(random)] =
        bad == BadTap::nan ? limits::quiet_NaN() : limits::infinity();
  }
  for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<double>(data[i]));
  return values;
}

// ------------------------------------------------------------------ the launches

template <class T, class Epilogue>
void emulate_tile(const TilePlan& plan, const Epilogue& epilogue) {
  if (plan.block > static_cast<unsigned>(round_up(kVariants[plan.variant].threads, 32))) {
    cuda_host::fail("more threads than the kernel's bound");
  }
  const auto kernel = find_tile_kernel<T, Epilogue>(plan.variant);
  if (kernel == nullptr) cuda_host::fail("a row without a kernel for this type and epilogue");
  cuda_host::launch(plan.grid, plan.block, plan.shared, [&] { kernel(plan.args, epilogue); });
}

template <class T, class Epilogue>
bool emulate(const Call& call, const UpFirDn2dParams& p, const EpilogueParams* params,
             const Epilogue& epilogue) {
  if (call.row == kPointwise) {
    Layout layout;
    if (!serves_pointwise(p, &layout)) return false;
    const PointwisePlan plan = plan_pointwise(p, params);
    const auto kernel = pointwise_kernel_of<T, Epilogue>(plan);
    cuda_host::launch(plan.blocks, kPointwiseThreads, 0,
                      [&] { kernel(plan.args, epilogue); });
    return true;
  }
  if (call.row == kGeneric || call.row == kGeneric64) {
    if (call.row == kGeneric && !fits_32_bits(p)) return false;
    const unsigned grid = std::min(generic_blocks(p), 3u);
    cuda_host::launch(grid, 64, 0, [&] {
      if (call.row == kGeneric) {
        generic_kernel<T, int32_t, Epilogue>(make_generic_args<int32_t>(p), epilogue);
      } else {
        generic_kernel<T, int64_t, Epilogue>(make_generic_args<int64_t>(p), epilogue);
      }
    });
    return true;
  }
  if constexpr (sizeof(T) < 8) {
    TilePlan plan{};
    if (call.row == kChosen) {
      plan = choose(p, Limits{}, Epilogue::kActive);
      if (plan.variant < 0) return false;
    } else {
      Variant v = kVariants[call.row];
      if (Epilogue::kActive && !v.fused) return false;
      if (!serves(v, p)) return false;
      if (call.threads > 0) v.threads = call.threads, v.narrow = 0;
      if (call.walk > 0) v.walk = call.walk;
      if (!plan_tile(v, p, Limits{}, &plan)) return false;
      plan.variant = call.row;
    }
    emulate_tile<T>(plan, epilogue);
    return true;
  }
  return false;
}

inline double worst(double so_far, double got, double expected, double tolerance) {
  if (std::isnan(expected)) return std::isnan(got) ? so_far : HUGE_VAL;
  const double error = std::abs(got - expected) / tolerance;
  return error <= so_far ? so_far : (std::isnan(error) ? HUGE_VAL : error);
}

template <class T>
double run(const Call& call) {
  using acc_t = Accumulate<T>;
  std::mt19937_64 random(call.seed);
  const Plane4d in = strides_of(call.n, call.c, call.in_h, call.in_w, call.channels_last,
                                call.row_gap);
  const Plane4d out = strides_of(call.n, call.c, call.out_h, call.out_w, call.channels_last, 0);

  // Arrays
  Array<T> input(extent(in), call.in_offset), output(extent(out), call.out_offset);
  const bool positive = call.bad_tap == BadTap::infinite;
  std::vector<double> in_values = fill(in, input.data, random, positive);
  if (call.nan) {
    for_each(in, [&](size_t i, int64_t at) {
      if (i % 5 != 2) return;
      in_values[i] = std::numeric_limits<double>::quiet_NaN();
      input.data[at] = from_accumulate<T>(std::numeric_limits<acc_t>::quiet_NaN());
    });
  }
  Array<acc_t> taps_x(call.kw, 0), taps_y(call.kh, 0), kernel(call.kh * call.kw, 0);
  std::vector<double> kernel_values;
  if (call.separable) {
    const auto x = fill_taps(call.kw, taps_x.data, random, call.bad_tap);
    const auto y = fill_taps(call.kh, taps_y.data, random, call.bad_tap);
    for (double b : y) {
      for (double a : x) kernel_values.push_back(a * b);
    }
  } else {
    kernel_values = fill_taps(call.kh * call.kw, kernel.data, random, call.bad_tap);
  }

  UpFirDn2dParams p{};
  p.input = input.data, p.output = output.data, p.in = in, p.out = out;
  p.kernel = call.separable ? nullptr : kernel.data;
  p.taps_x = call.separable ? taps_x.data : nullptr;
  p.taps_y = call.separable ? taps_y.data : nullptr;
  p.kh = call.kh, p.kw = call.kw;
  p.up_x = call.up_x, p.up_y = call.up_y, p.down_x = call.down_x, p.down_y = call.down_y;
  p.pad_x0 = call.pad_x, p.pad_y0 = call.pad_y;
  p.flip = call.flip, p.dtype = Traits<T>::dtype;

  // Expected, and how far the sums may be off: by rounding of each term, once per pass
  std::vector<double> expected, magnitude;
  oracle(call, in_values, kernel_values, &expected);
  std::vector<double> in_sizes = in_values, kernel_sizes = kernel_values;
  for (double& v : in_sizes) v = std::abs(v);
  for (double& v : kernel_sizes) v = std::abs(v);
  oracle(call, in_sizes, kernel_sizes, &magnitude);
  const double sum_epsilon = sizeof(T) == 8 ? 0x1p-53 : 0x1p-24;
  const double terms = static_cast<double>(call.kh + call.kw + 4);

  double slope = 1, gain = 1;
  bool served;
  if (call.fused) {
    const int64_t samples = call.noise_per_sample ? call.n : 1;
    const int64_t pixels = call.out_h * call.out_w;
    Array<acc_t> bias(call.c, call.operand_offset), strength(1, 0);
    Array<acc_t> scale(call.n * call.c, call.operand_offset);
    Array<acc_t> noise(samples * pixels, call.operand_offset);
    const auto bias_values = fill_taps(call.c, bias.data, random);
    const auto strength_values = fill_taps(1, strength.data, random);
    const auto noise_values =
        fill(strides_of(samples, 1, call.out_h, call.out_w, false, 0), noise.data, random);
    const auto scale_values = fill_taps(call.n * call.c, scale.data, random);
    EpilogueParams e{};
    e.scale = call.scale ? scale.data : nullptr, e.scale_stride_n = call.c;
    e.bias = call.bias ? bias.data : nullptr;
    e.noise = call.noise ? noise.data : nullptr;
    e.noise_strength = call.strength ? strength.data : nullptr;
    e.noise_stride_n = call.noise_per_sample ? pixels : 0;
    slope = 0.2, gain = 1.4142135623730951;
    e.slope = slope, e.gain = gain, e.clamp = call.clamp ? call.clamp_at : -1;
    served = emulate<T>(call, p, &e, make_bias_act<T>(e));
    for (size_t i = 0; i < expected.size(); ++i) {
      const int64_t position = static_cast<int64_t>(i) % pixels;
      const int64_t plane = static_cast<int64_t>(i) / pixels;
      const double from_noise =
          call.noise ? (call.strength ? strength_values[0] : 1) *
                           noise_values[static_cast<size_t>(plane / call.c * e.noise_stride_n +
                                                            position)]
                     : 0;
      const double from_bias = call.bias ? bias_values[static_cast<size_t>(plane % call.c)] : 0;
      const double factor = call.scale ? scale_values[static_cast<size_t>(plane)] : 1;
      const double v = factor * expected[i] + from_noise + from_bias;
      expected[i] = gain * (v < 0 ? slope * v : v);
      // NaN stays: as the first argument it is what these return
      const double largest = static_cast<double>(std::numeric_limits<acc_t>::max());
      const double limit = std::min(e.clamp, largest);
      if (call.clamp) expected[i] = std::min(std::max(expected[i], -limit), limit);
      magnitude[i] = gain * (std::abs(factor) * magnitude[i] + std::abs(from_noise) +
                             std::abs(from_bias));
    }
  } else {
    served = emulate<T>(call, p, nullptr, Identity<T>{});
  }
  if (!served) return -1;

  double error = 0;
  for_each(out, [&](size_t i, int64_t at) {
    const double got = static_cast<double>(to_accumulate(output.data[at]));
    if (std::isinf(magnitude[i])) {  // an infinite tap met a sample: infinity, or the clamp
      const T rounded = from_accumulate<T>(static_cast<acc_t>(expected[i]));
      if (got != static_cast<double>(to_accumulate(rounded))) error = HUGE_VAL;
      return;
    }
    const double tolerance = terms * sum_epsilon * magnitude[i] +
                             Traits<T>::epsilon * std::abs(expected[i]) * 1.01 + Traits<T>::tiny +
                             1e-300;
    error = worst(error, got, expected[i], tolerance);
  });
  return error;
}

template <class T, class Index>
void emulate_kernel_grad(const KernelGradParams& p, void* workspace,
                         const std::vector<unsigned>& only) {
  const KernelGradArgs<Index> a = make_kernel_grad_args<Index>(p, workspace);
  cuda_host::launch(grad_blocks(p), kGradThreads,
                    sizeof(Accumulate<T>) * kGradTaps * kGradThreads,
                    [&] { kernel_grad_partial<T, Index>(a); }, only);
  cuda_host::launch(static_cast<unsigned>(ceil_div(p.kh * p.kw, kGradThreads)), kGradThreads, 0,
                    [&] { kernel_grad_final<T, Index>(a); });
}

template <class T>
double run_kernel_grad(const Call& call) {
  using acc_t = Accumulate<T>;
  std::mt19937_64 random(call.seed);
  KernelGradParams p{};
  p.in = strides_of(call.n, call.c, call.in_h, call.in_w, call.channels_last, call.row_gap);
  p.out = strides_of(call.n, call.c, call.out_h, call.out_w, call.channels_last, 0);
  Array<T> input(extent(p.in), call.in_offset), grad(extent(p.out), call.out_offset);
  Array<acc_t> kernel_grad(call.kh * call.kw, 0);
  const std::vector<double> in_values = fill(p.in, input.data, random);
  const std::vector<double> grad_values = fill(p.out, grad.data, random);
  p.input = input.data, p.grad = grad.data, p.kernel_grad = kernel_grad.data;
  p.kh = call.kh, p.kw = call.kw;
  p.up_x = call.up_x, p.up_y = call.up_y, p.down_x = call.down_x, p.down_y = call.down_y;
  p.pad_x0 = call.pad_x, p.pad_y0 = call.pad_y, p.dtype = Traits<T>::dtype;

  const int64_t taps = call.kh * call.kw;
  Array<acc_t> workspace(grad_chunks(p) * taps, 0);
  if (call.row == kGeneric && fits_32_bits(p)) {
    emulate_kernel_grad<T, int32_t>(p, workspace.data, call.blocks);
  } else {
    emulate_kernel_grad<T, int64_t>(p, workspace.data, call.blocks);
  }

  std::vector<double> expected, magnitude;
  oracle_kernel_grad(call, in_values, grad_values, &expected);
  std::vector<double> in_sizes = in_values, grad_sizes = grad_values;
  for (double& v : in_sizes) v = std::abs(v);
  for (double& v : grad_sizes) v = std::abs(v);
  oracle_kernel_grad(call, in_sizes, grad_sizes, &magnitude);
  double error = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const auto has = [&](size_t block) {  // with one chunk, a block is a group of taps
      return std::find(call.blocks.begin(), call.blocks.end(), block) != call.blocks.end();
    };
    if (!call.blocks.empty() && !has(i / kGradTaps)) continue;
    const double epsilon = sizeof(T) == 8 ? 0x1p-53 : 0x1p-24;
    error = worst(error, static_cast<double>(kernel_grad.data[i]), expected[i],
                  32 * epsilon * magnitude[i] + 1e-300);
  }
  return error;
}

template <class T>
double run_bias_act_grad(const ActGradCall& call) {
  using acc_t = Accumulate<T>;
  std::mt19937_64 random(call.seed);
  const int64_t total = call.n * call.c * call.pixels;
  const int64_t samples = call.noise_per_sample ? call.n : 1;
  const Plane4d all{1, 1, 1, total, 0, 0, 0, 1}, image{1, 1, 1, samples * call.pixels, 0, 0, 0, 1};
  Array<T> grad(total, call.offset), output(total, 0), result(total, 0);
  Array<acc_t> taps(2, 0), noise(samples * call.pixels, 1), strength(1, 0);
  const auto grads = fill(all, grad.data, random), outputs = fill(all, output.data, random);
  const auto tap = fill_taps(2, taps.data, random), scale = fill_taps(1, strength.data, random);
  using Wide = typename WideScaled<T>::type;
  Array<T> scaled(call.wide ? 0 : total, 0);
  Array<Wide> wide(call.wide ? total : 0, 0);
  Array<acc_t> scales(call.n * call.c, 1), scale_grad(call.n * call.c, 0);
  auto scaled_values = call.wide ? fill(all, wide.data, random) : fill(all, scaled.data, random);
  for (int64_t i = 0; i < total && call.wide; ++i) {  // more than float16 holds
    wide.data[i] = from_accumulate<Wide>(to_accumulate(wide.data[i]) * acc_t(0x1p20));
    scaled_values[static_cast<size_t>(i)] *= 0x1p20;
  }
  const auto scale_values = fill_taps(call.n * call.c, scales.data, random);
  const auto noises = fill(image, noise.data, random);
  const int64_t noise_total = call.noise_samples * call.pixels;
  Array<acc_t> bias_grad(call.bias ? call.c : 0, 0), noise_grad(noise_total, 0);
  Array<acc_t> strength_grad(call.strength ? 1 : 0, 0);

  BiasActGradParams p{};
  p.grad = grad.data, p.output = output.data, p.result = result.data;
  if (call.tap) p.tap_x = taps.data, p.tap_y = taps.data + 1;
  if (call.strength) p.noise = noise.data, p.strength_grad = strength_grad.data;
  if (call.noise_strength) p.noise_strength = strength.data;
  if (call.scale) p.scale = scales.data;
  p.scaled_dtype = call.scaled && call.wide ? Traits<Wide>::dtype : Traits<T>::dtype;
  if (call.scaled) {
    p.scaled = call.wide ? static_cast<const void*>(wide.data) : scaled.data;
    p.scale_grad = scale_grad.data;
  }
  if (call.bias) p.bias_grad = bias_grad.data;
  if (call.noise_samples > 0) p.noise_grad = noise_grad.data;
  p.n = call.n, p.c = call.c, p.pixels = call.pixels;
  p.noise_stride_n = call.noise_per_sample ? call.pixels : 0;
  p.noise_samples = call.noise_samples, p.channels_last = call.channels_last;
  // One output, and perhaps more, is exactly the limit
  const double clamp = std::abs(outputs[0]);
  p.slope = 0.3, p.gain = 1.5, p.clamp = call.clamp ? clamp : -1, p.dtype = Traits<T>::dtype;

  Array<char> workspace(plan_bias_act_grad(p, nullptr, {call.few, call.many}).workspace,
                        0);
  const BiasActGradPlan plan = plan_bias_act_grad(p, workspace.data, {call.few, call.many});
  const auto kernel = bias_act_grad_kernel_of<T>(plan);
  cuda_host::launch(static_cast<unsigned>(plan.blocks), kActGradThreads, plan.shared,
                    [&] { kernel(plan.args, make_bias_act_grad<T>(p)); });
  if (plan.sum_blocks > 0) {
    cuda_host::launch(static_cast<unsigned>(plan.sum_blocks), kActSumThreads, plan.sum_shared,
                      [&] { bias_act_sum_kernel<acc_t>(plan.sums); });
  }

  const double epsilon = sizeof(T) == 8 ? 0x1p-53 : 0x1p-24;
  double error = 0;
  const auto size = [](int64_t count) { return static_cast<size_t>(count); };
  std::vector<double> bias(size(call.c)), bias_size(bias), pixels(size(noise_total)),
      pixels_size(pixels);
  double product = 0, product_size = 0;
  std::vector<double> products(size(call.n * call.c)), products_size(products);
  const double factor = call.tap ? tap[0] * tap[1] : 1;
  for (int64_t i = 0; i < total; ++i) {
    const int64_t sample = i / (call.c * call.pixels), rest = i % (call.c * call.pixels);
    const int64_t c = call.channels_last ? rest % call.c : rest / call.pixels;
    const int64_t pixel = call.channels_last ? rest / call.c : rest % call.pixels;
    const double g = grads[size(i)], out = outputs[size(i)];
    const bool clamped = call.clamp && std::abs(out) >= clamp;
    const double z = clamped ? 0 : 1.5 * (out > 0 ? g : 0.3 * g);
    const size_t plane = size(sample * call.c + c);
    const double own = call.scale ? scale_values[plane] : 1;
    const double expected = call.tap || call.scale ? z * factor * own : z / 1.5;
    const double term = factor * z * scaled_values[size(i)];
    products[plane] += term, products_size[plane] += std::abs(term);
    error = worst(error, static_cast<double>(to_accumulate(result.data[i])), expected,
                  (8 * epsilon + 1.01 * Traits<T>::epsilon) * std::abs(expected) +
                      Traits<T>::tiny + 1e-300);
    bias[size(c)] += z, bias_size[size(c)] += std::abs(z);
    if (call.noise_samples > 0) {
      const int64_t at = (call.noise_samples == 1 ? 0 : sample) * call.pixels + pixel;
      const double v = z * (call.noise_strength ? scale[0] : 1);
      pixels[size(at)] += v, pixels_size[size(at)] += std::abs(v);
    }
    const double v = z * noises[size((call.noise_per_sample ? sample : 0) * call.pixels + pixel)];
    product += v, product_size += std::abs(v);
  }
  const auto compare = [&](acc_t got, double expected, double magnitude) {
    error = worst(error, static_cast<double>(got), expected, 64 * epsilon * magnitude + 1e-300);
  };
  for (int64_t c = 0; c < call.c && call.bias; ++c) {
    compare(bias_grad.data[c], bias[size(c)], bias_size[size(c)]);
  }
  for (size_t i = 0; i < products.size() && call.scaled; ++i) {
    compare(scale_grad.data[i], products[i], products_size[i]);
  }
  for (int64_t i = 0; i < noise_total; ++i) {
    compare(noise_grad.data[i], pixels[size(i)], pixels_size[size(i)]);
  }
  if (call.strength) compare(strength_grad.data[0], product, product_size);
  return error;
}

}  // namespace check
