// SPDX-License-Identifier: BSD-3-Clause
//
// The CUDA kernels without torch: are they right on this GPU, and how near to the
// device's copy bandwidth do they come? See run.sh for the one command.
//
//   bench_kernels check               every variant against a plain double reference
//   bench_kernels variants            every variant over few small shapes, each buffer exactly as
//                                     large as its data, values unseen: for compute-sanitizer
//   bench_kernels races               the same over one shape each, for racecheck, which is slow
//   bench_kernels bench [FILTER]      the table of shapes; FILTER: a part of a line's name
//   bench_kernels tune [FILTER]       every row that serves, over walks and block sizes
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../../csrc/cuda/launch_tile.h"
#include "../../csrc/cuda/plan.cuh"
#include "../../csrc/cuda/upfirdn2d_cuda.h"

namespace resample_layers {
extern template cudaError_t launch_tile<Half>(const TilePlan&, const EpilogueParams*,
                                              cudaStream_t);
extern template cudaError_t launch_tile<BFloat16>(const TilePlan&, const EpilogueParams*,
                                                  cudaStream_t);
extern template cudaError_t launch_tile<float>(const TilePlan&, const EpilogueParams*,
                                               cudaStream_t);
}  // namespace resample_layers

using namespace resample_layers;

namespace {

void require(cudaError_t error, const char* what, int line) {
  if (error == cudaSuccess) return;
  std::printf("FAILED %s at line %d: %s\n", what, line, cudaGetErrorString(error));
  std::exit(1);
}
#define REQUIRE(call) require((call), #call, __LINE__)

// ------------------------------------------------------------------ device helpers

__device__ uint32_t mix(uint64_t x) {
  x = (x ^ (x >> 31)) * 0x7fb5d329728ea185ull;
  x = (x ^ (x >> 27)) * 0x81dadef4bc2dd44dull;
  return static_cast<uint32_t>(x >> 32);
}

template <class T>
__global__ void fill_random(T* data, int64_t count, uint64_t seed) {
  const int64_t step = gridDim.x * int64_t{256};
  for (int64_t i = blockIdx.x * int64_t{256} + threadIdx.x; i < count; i += step) {
    const float u = mix(static_cast<uint64_t>(i) + seed * 0x9e3779b97f4a7c15ull) * 0x1p-31f - 1.0f;
    data[i] = from_accumulate<T>(static_cast<Accumulate<T>>(u));
  }
}

// The definition, one output a thread, in double; compares in place. worst: the
// largest error over its tolerance, as the bits of a float.
template <class T>
__global__ void compare(UpFirDn2dParams p, EpilogueParams e, bool fused, double epsilon,
                        double tiny, unsigned* worst) {
  using acc_t = Accumulate<T>;
  const T* in = static_cast<const T*>(p.input);
  const T* out = static_cast<const T*>(p.output);
  const acc_t* kernel = static_cast<const acc_t*>(p.kernel);
  const acc_t* tx = static_cast<const acc_t*>(p.taps_x);
  const acc_t* ty = static_cast<const acc_t*>(p.taps_y);
  const int64_t total = p.out.n * p.out.c * p.out.h * p.out.w;
  const int64_t step = gridDim.x * int64_t{256};
  for (int64_t i = blockIdx.x * int64_t{256} + threadIdx.x; i < total; i += step) {
    const int64_t x = i % p.out.w, y = i / p.out.w % p.out.h;
    const int64_t c = i / p.out.w / p.out.h % p.out.c, n = i / p.out.w / p.out.h / p.out.c;
    double sum = 0, size = 0;
    for (int64_t a = 0; a < p.kh; ++a) {
      const int64_t v = y * p.down_y + (p.kh - 1 - a) - p.pad_y0;
      if (v < 0 || v % p.up_y || v / p.up_y >= p.in.h) continue;
      for (int64_t b = 0; b < p.kw; ++b) {
        const int64_t h = x * p.down_x + (p.kw - 1 - b) - p.pad_x0;
        if (h < 0 || h % p.up_x || h / p.up_x >= p.in.w) continue;
        const int64_t ka = p.flip ? p.kh - 1 - a : a, kb = p.flip ? p.kw - 1 - b : b;
        const double tap = kernel ? static_cast<double>(kernel[ka * p.kw + kb])
                                  : static_cast<double>(ty[ka]) * static_cast<double>(tx[kb]);
        const double term =
            tap * static_cast<double>(to_accumulate(
                      in[n * p.in.stride_n + c * p.in.stride_c + v / p.up_y * p.in.stride_h +
                         h / p.up_x * p.in.stride_w]));
        sum += term, size += fabs(term);
      }
    }
    if (fused) {
      const double noise =
          static_cast<const acc_t*>(e.noise)[n * e.noise_stride_n + y * p.out.w + x];
      const double strength = static_cast<const acc_t*>(e.noise_strength)[0];
      const double bias = static_cast<const acc_t*>(e.bias)[c];
      sum += strength * noise + bias, size += fabs(strength * noise) + fabs(bias);
      sum = e.gain * (sum < 0 ? e.slope * sum : sum), size *= e.gain;
      sum = fmin(fmax(sum, -e.clamp), e.clamp);
    }
    const double got = static_cast<double>(to_accumulate(
        out[n * p.out.stride_n + c * p.out.stride_c + y * p.out.stride_h + x * p.out.stride_w]));
    const double tolerance = (p.kh + p.kw + 4) * (sizeof(T) == 8 ? 0x1p-53 : 0x1p-24) * size +
                             epsilon * fabs(sum) * 1.01 + tiny + 1e-30;
    const double error = fabs(got - sum) / tolerance;
    const float bits = error == error ? static_cast<float>(error) : 1e30f;
    atomicMax(worst, __float_as_uint(bits));
  }
}

__global__ void copy_kernel(const uint4* from, uint4* to, int64_t count) {
  const int64_t base = blockIdx.x * int64_t{1024} + threadIdx.x;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (base + i * 256 < count) __stcs(to + base + i * 256, __ldg(from + base + i * 256));
  }
}

// ------------------------------------------------------------------------ calls

struct Case {
  std::string name;
  Dtype dtype;
  bool last, planar, flip;
  int64_t n, c, in_h, in_w, out_h, out_w;
  int up, down, taps, pad;
  Axes axes = Axes::both;  // that have taps, factors and pads
};

int size_of(Dtype dtype) {
  return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2;
}

const char* name_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::float16: return "f16";
    case Dtype::bfloat16: return "bf16";
    case Dtype::float32: return "f32";
    case Dtype::float64: return "f64";
  }
  return "";
}

Plane4d dense_plane(int64_t n, int64_t c, int64_t h, int64_t w, bool last) {
  return last ? Plane4d{n, c, h, w, c * h * w, 1, c * w, c}
              : Plane4d{n, c, h, w, c * h * w, h * w, w, 1};
}

struct Pool {
  char *in = nullptr, *out = nullptr;
  size_t in_bytes = 0, out_bytes = 0;
  float* taps = nullptr;  // 32 x 32 random taps
  double* taps64 = nullptr;
  void* workspace = nullptr;
  unsigned* worst = nullptr;
};
Pool pool;

UpFirDn2dParams params_of(const Case& k, const void* in, void* out) {
  UpFirDn2dParams p{};
  p.input = in, p.output = out;
  p.in = dense_plane(k.n, k.c, k.in_h, k.in_w, k.last);
  p.out = dense_plane(k.n, k.c, k.out_h, k.out_w, k.last);
  const void* taps =
      k.dtype == Dtype::float64 ? static_cast<void*>(pool.taps64) : static_cast<void*>(pool.taps);
  if (k.planar) {
    p.kernel = taps;
  } else {
    const int skip = k.dtype == Dtype::float64 ? 320 : 160;  // bytes: other taps than x has
    p.taps_x = taps, p.taps_y = static_cast<const char*>(taps) + skip;
  }
  const bool x = k.axes != Axes::y, y = k.axes != Axes::x;
  p.kw = x ? k.taps : 1, p.kh = y ? k.taps : 1;
  p.up_x = x ? k.up : 1, p.up_y = y ? k.up : 1;
  p.down_x = x ? k.down : 1, p.down_y = y ? k.down : 1;
  p.pad_x0 = x ? k.pad : 0, p.pad_y0 = y ? k.pad : 0;
  p.flip = k.flip, p.dtype = k.dtype;
  return p;
}

template <class F>
void with_type(Dtype dtype, const F& f) {
  switch (dtype) {
    case Dtype::float16: f(Half{}); break;
    case Dtype::bfloat16: f(BFloat16{}); break;
    case Dtype::float32: f(float{}); break;
    case Dtype::float64: f(double{}); break;
  }
}

void fill(void* data, size_t bytes, Dtype dtype, uint64_t seed) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    fill_random<<<2048, 256>>>(static_cast<T*>(data), static_cast<int64_t>(bytes / sizeof(T)),
                               seed);
  });
  REQUIRE(cudaGetLastError());
}

// ------------------------------------------------------------------------ check

int wrong_calls = 0, checked_calls = 0;
double worst_error = 0;

// The buffers of one call. Allocations of their own, so that an access beyond the data is one
// beyond the allocation, or parts of the pool, which cost no time.
struct Buffers {
  bool own;
  char *in, *out, *extra;

  Buffers(bool exact, size_t in_bytes, size_t out_bytes, size_t extra_bytes) : own(exact) {
    in = pool.in, out = pool.out, extra = pool.out + pool.out_bytes / 2;
    if (!own) return;
    REQUIRE(cudaMalloc(&in, in_bytes));
    REQUIRE(cudaMalloc(&out, out_bytes));
    REQUIRE(cudaMalloc(&extra, std::max<size_t>(extra_bytes, 1)));
  }
  Buffers(const Buffers&) = delete;
  ~Buffers() {
    if (own) REQUIRE(cudaFree(in)), REQUIRE(cudaFree(out)), REQUIRE(cudaFree(extra));
  }
};

// row: -1: as the library chooses.
void check_call(const Case& k, bool fused, int row, bool exact) {
  const size_t in_bytes = static_cast<size_t>(k.n * k.c * k.in_h * k.in_w) * size_of(k.dtype);
  const size_t out_bytes = static_cast<size_t>(k.n * k.c * k.out_h * k.out_w) * size_of(k.dtype);
  const bool wide = k.dtype == Dtype::float64;
  const Dtype accumulate = wide ? Dtype::float64 : Dtype::float32;
  const size_t noise_bytes =
      fused ? static_cast<size_t>(k.n * k.out_h * k.out_w) * size_of(accumulate) : 0;
  if (row >= 0) {
    const Variant& v = kVariants[row];
    if ((fused && !v.fused) || !serves(v, params_of(k, pool.in, pool.out))) return;
  }
  const Buffers buffers(exact, in_bytes, out_bytes, noise_bytes);
  const UpFirDn2dParams p = params_of(k, buffers.in, buffers.out);
  EpilogueParams e{};
  e.bias = wide ? static_cast<void*>(pool.taps64) : static_cast<void*>(pool.taps);
  e.noise_strength = wide ? static_cast<void*>(pool.taps64 + 7) : static_cast<void*>(pool.taps + 7);
  e.noise = buffers.extra;
  e.noise_stride_n = k.out_h * k.out_w;
  e.slope = 0.2, e.gain = 1.5, e.clamp = 4;
  fill(buffers.in, in_bytes, k.dtype, static_cast<uint64_t>(checked_calls + 1));
  if (fused) fill(buffers.extra, noise_bytes, accumulate, 5);
  REQUIRE(cudaMemset(buffers.out, 0xff, out_bytes));
  if (row < 0) {
    REQUIRE(fused ? upfirdn2d_bias_act_cuda(p, e, nullptr) : upfirdn2d_cuda(p, nullptr));
  } else {
    const Variant& v = kVariants[row];
    TilePlan plan{};
    if (!plan_tile(v, p, Limits{}, &plan)) return;
    plan.variant = row;
    const EpilogueParams* const epilogue = fused ? &e : nullptr;
    if (k.dtype == Dtype::float16) REQUIRE(launch_tile<Half>(plan, epilogue, nullptr));
    if (k.dtype == Dtype::bfloat16) REQUIRE(launch_tile<BFloat16>(plan, epilogue, nullptr));
    if (k.dtype == Dtype::float32) REQUIRE(launch_tile<float>(plan, epilogue, nullptr));
  }
  ++checked_calls;
  if (exact) {  // the reference would take a sanitizer hours
    REQUIRE(cudaDeviceSynchronize());
    return;
  }
  REQUIRE(cudaMemset(pool.worst, 0, 4));
  const double epsilon = k.dtype == Dtype::float16    ? 0x1p-11
                         : k.dtype == Dtype::bfloat16 ? 0x1p-8
                         : k.dtype == Dtype::float32  ? 0x1p-24
                                                      : 0x1p-53;
  with_type(k.dtype, [&](auto zero) {
    compare<decltype(zero)><<<2048, 256>>>(p, e, fused, epsilon,
                                           k.dtype == Dtype::float16 ? 0x1p-24 : 0.0, pool.worst);
  });
  REQUIRE(cudaGetLastError());
  float error = 0;
  REQUIRE(cudaMemcpy(&error, pool.worst, 4, cudaMemcpyDeviceToHost));
  worst_error = std::max(worst_error, static_cast<double>(error));
  if (!(error <= 1) && ++wrong_calls <= 20) {
    char text[160];
    std::printf("WRONG %g %s row %d%s: %s\n", error, k.name.c_str(), row, fused ? " fused" : "",
                upfirdn2d_cuda_variant(p, fused, text, sizeof text));
  }
}

void check_kernel_grad(Dtype dtype, bool last, bool exact) {
  // Against the op itself: <g, F(x, k)> is linear in k, and w its gradient, so that the
  // sum of k * w equals the sum of g * F(x, k). In float64 on the host.
  const Case k{"kernel grad", dtype, last, true, false, 2, 3, 37, 29, 40, 33, 1, 1, 5, 4};
  const int64_t in = 2 * 3 * 37 * 29, out = 2 * 3 * 40 * 33;
  const size_t in_bytes = static_cast<size_t>(in) * size_of(dtype);
  const size_t out_bytes = static_cast<size_t>(out) * size_of(dtype);
  const Buffers buffers(exact, in_bytes, out_bytes, out_bytes);
  const UpFirDn2dParams p = params_of(k, buffers.in, buffers.out);
  char* const grad = buffers.extra;
  fill(buffers.in, in_bytes, dtype, 11);
  fill(grad, out_bytes, dtype, 12);
  REQUIRE(upfirdn2d_cuda(p, nullptr));
  KernelGradParams g{};
  g.input = buffers.in, g.grad = grad, g.kernel_grad = pool.worst + 64;
  g.in = p.in, g.out = p.out, g.kh = g.kw = 5, g.up_x = g.up_y = g.down_x = g.down_y = 1;
  g.pad_x0 = g.pad_y0 = 4, g.dtype = dtype;
  REQUIRE(upfirdn2d_kernel_grad_cuda(g, pool.workspace, nullptr));
  REQUIRE(cudaDeviceSynchronize());
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    using acc_t = Accumulate<T>;
    std::vector<T> a(static_cast<size_t>(out)), b(static_cast<size_t>(out));
    std::vector<acc_t> w(25), taps(25);
    REQUIRE(cudaMemcpy(a.data(), buffers.out, a.size() * sizeof(T), cudaMemcpyDeviceToHost));
    REQUIRE(cudaMemcpy(b.data(), grad, b.size() * sizeof(T), cudaMemcpyDeviceToHost));
    REQUIRE(cudaMemcpy(w.data(), g.kernel_grad, 25 * sizeof(acc_t), cudaMemcpyDeviceToHost));
    REQUIRE(cudaMemcpy(taps.data(), p.kernel, 25 * sizeof(acc_t), cudaMemcpyDeviceToHost));
    double left = 0, right = 0, size = 0;
    auto value = [](T t) {
      if constexpr (sizeof(T) == 2) {
        // Halves on the host: through CUDA's own conversions
        if constexpr (std::is_same<T, Half>::value) {
          __half_raw raw;
          raw.x = t.bits;
          return static_cast<double>(__half2float(__half(raw)));
        } else {
          __nv_bfloat16_raw raw;
          raw.x = t.bits;
          return static_cast<double>(__bfloat162float(__nv_bfloat16(raw)));
        }
      } else {
        return static_cast<double>(t);
      }
    };
    for (size_t i = 0; i < a.size(); ++i) {
      left += value(a[i]) * value(b[i]), size += std::abs(value(a[i]) * value(b[i]));
    }
    for (size_t i = 0; i < 25; ++i) {
      right += static_cast<double>(w[i]) * static_cast<double>(taps[i]);
    }
    const double epsilon = sizeof(T) == 2 ? 1e-3 : sizeof(T) == 4 ? 1e-6 : 1e-13;
    ++checked_calls;
    if (!(std::abs(left - right) <= epsilon * size)) {
      ++wrong_calls;
      std::printf("WRONG kernel grad %s: %g and %g\n", name_of(dtype), left, right);
    }
  });
}

using Sizes = std::vector<std::array<int64_t, 2>>;

// What is checked. exact: in buffers as large as their data, for a sanitizer.
struct Extent {
  bool exact;
  bool chosen;  // also what the library chooses: kernels without shared memory among it
  Sizes sizes;
  std::vector<int> lengths;
};
const Extent kAll{false,
                  true,
                  {{5, 4}, {33, 64}, {70, 131}, {129, 300}, {17, 1024}},
                  {1, 3, 4, 7, 8, 12, 15, 24, 31, 32}};
const Extent kFew{true, true, {{5, 4}, {33, 72}, {70, 131}}, {1, 4, 7, 12, 24, 31}};
// One shape of whole vectors, several steps of a walk; every row serves one of the lengths
const Extent kOne{true, false, {{40, 72}}, {4, 7, 12, 15, 24, 31}};

int check(const Extent& extent) {
  const Sizes& sizes = extent.sizes;
  const std::vector<int>& lengths = extent.lengths;
  const bool small = extent.exact;
  const Dtype types[] = {Dtype::float32, Dtype::float16, Dtype::bfloat16, Dtype::float64};
  for (Dtype dtype : types) {
    for (bool last : {false, true}) {
      // Every row, and the choice: sizes about tile edges, aligned and odd ones
      for (int row = extent.chosen ? -1 : 0; row < kVariantCount; ++row) {
        const int ups[] = {1, 2, 1, 4, 1, 3}, downs[] = {1, 1, 2, 1, 4, 2};
        const bool chosen = row < 0;
        for (int f = 0; f < 6; ++f) {
          if (!chosen && (kVariants[row].up != ups[f] || kVariants[row].down != downs[f])) continue;
          for (Axes axes : {Axes::both, Axes::x, Axes::y}) {
            if (!chosen && kVariants[row].axes != axes) continue;
            for (int taps : lengths) {
              for (bool planar : {false, true}) {
                if (planar && taps > 8 && axes == Axes::both) continue;
                int turn = 0;
                for (const auto& s : sizes) {
                  const int64_t longer = 1 + turn % 2, wider = turn % 2;
                  const int64_t out_h = axes == Axes::x ? s[0] : s[0] * ups[f] / downs[f] + longer;
                  const int64_t out_w = axes == Axes::y ? s[1] : s[1] * ups[f] / downs[f] + wider;
                  const Case k{"check", dtype, last, planar, turn % 2 == 1, 3, last ? 24 : 5, s[0],
                               s[1], out_h, std::max<int64_t>(out_w, 1), ups[f], downs[f], taps,
                               taps / 2 + turn % 3, axes};
                  ++turn;
                  check_call(k, false, row, small);
                  if (taps == 4) check_call(k, true, row, small);
                }
              }
            }
          }
        }
      }
      // One tap, through the choice: lines of whole vectors and others
      for (const auto& s : extent.chosen ? sizes : Sizes{}) {
        for (int64_t c : {5, 24}) {
          const Case k{"check", dtype, last, c == 5, false, 3, c, s[0], s[1], s[0], s[1],
                       1, 1, 1, 0};
          check_call(k, false, -1, small);
          check_call(k, true, -1, small);
        }
      }
      check_kernel_grad(dtype, last, small);
    }
  }
  std::printf("check: %d calls, %d wrong, worst error %.3f of its tolerance\n", checked_calls,
              wrong_calls, worst_error);
  return wrong_calls > 0;
}

// ------------------------------------------------------------------------ timing

cudaEvent_t event_start, event_stop;

// Median seconds of one launch. launch(i): the i-th buffers of the rotation.
template <class F>
double time_launches(int rotation, const F& launch) {
  const int batch = std::max(4, rotation);
  for (int i = 0; i < batch; ++i) launch(i % rotation);
  std::vector<float> times;
  for (int round = 0; round < 9; ++round) {
    REQUIRE(cudaEventRecord(event_start));
    for (int i = 0; i < batch; ++i) launch(i % rotation);
    REQUIRE(cudaEventRecord(event_stop));
    REQUIRE(cudaEventSynchronize(event_stop));
    float ms = 0;
    REQUIRE(cudaEventElapsedTime(&ms, event_start, event_stop));
    times.push_back(ms / static_cast<float>(batch));
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2] * 1e-3;
}

double copy_bandwidth() {
  const size_t bytes = size_t{1} << 30;
  const double memcpy_time = time_launches(2, [&](int i) {
    REQUIRE(cudaMemcpyAsync(pool.out + i * bytes, pool.in + i * bytes, bytes,
                            cudaMemcpyDeviceToDevice));
  });
  const double kernel_time = time_launches(2, [&](int i) {
    copy_kernel<<<static_cast<unsigned>(bytes / 16 / 1024), 256>>>(
        reinterpret_cast<const uint4*>(pool.in + i * bytes),
        reinterpret_cast<uint4*>(pool.out + i * bytes), static_cast<int64_t>(bytes / 16));
    REQUIRE(cudaGetLastError());
  });
  const double by_memcpy = 2.0 * bytes / memcpy_time, by_kernel = 2.0 * bytes / kernel_time;
  std::printf("copy bandwidth: cudaMemcpy %.0f GB/s, copy kernel %.0f GB/s (read + written)\n",
              by_memcpy * 1e-9, by_kernel * 1e-9);
  return std::max(by_memcpy, by_kernel);
}

// Filters of one axis: signals of 8 x 128 channels, and lines across 64 slices of 64 x 64.
void add_lines(Dtype dtype, bool last, std::vector<Case>* cases) {
  for (int taps : {4, 12}) {
    for (Axes axes : {Axes::x, Axes::y}) {
      const bool x = axes == Axes::x;
      const int64_t c = x ? 128 : 64, beside = x ? 1 : 4096, size = x ? 65536 : 64;
      auto add = [&](const char* op, int64_t in, int64_t out, int up, int down) {
        char name[96];
        std::snprintf(name, sizeof name, "%-4s %-4s %-6s t%-2d c%-3d %5d ->%5d", name_of(dtype),
                      last ? "nhwc" : "nchw", op, taps, static_cast<int>(c), static_cast<int>(in),
                      static_cast<int>(out));
        cases->push_back(Case{name, dtype, last, false, false, 8, c, x ? beside : in,
                              x ? in : beside, x ? beside : out, x ? out : beside, up, down, taps,
                              taps / 2, axes});
      };
      add(x ? "line-s" : "deep-s", size, size, 1, 1);
      add(x ? "line-u" : "deep-u", size / 2, size, 2, 1);
      add(x ? "line-d" : "deep-d", size, size / 2, 1, 2);
    }
  }
}

// The activation of a layer without a filter; plain: a scaled copy.
Case one_tap(Dtype dtype, bool last, int64_t c, int64_t s) {
  char name[96];
  std::snprintf(name, sizeof name, "%-4s %-4s %-6s t%-2d c%-3d %5d ->%5d", name_of(dtype),
                last ? "nhwc" : "nchw", "one", 1, static_cast<int>(c), static_cast<int>(s),
                static_cast<int>(s));
  return Case{name, dtype, last, false, false, 8, c, s, s, s, s, 1, 1, 1, 0};
}

std::vector<Case> layers(bool quick) {
  std::vector<Case> cases;
  const Dtype types[] = {Dtype::float32, Dtype::float16, Dtype::bfloat16};
  for (Dtype dtype : types) {
    if (quick && dtype == Dtype::bfloat16) continue;
    for (bool last : {false, true}) {
      add_lines(dtype, last, &cases);
      for (int taps : {4, 12, 24}) {
        const int64_t layers[][2] = {{512, 64}, {256, 128}, {128, 256}, {64, 512}, {32, 1024}};
        for (const auto& l : layers) {
          if (quick && l[1] != 64 && l[1] != 256 && l[1] != 1024) continue;
          const int64_t c = l[0], s = l[1];
          auto add = [&](const char* op, int64_t in, int64_t out, int up, int down, int pad,
                         bool planar) {
            char name[96];
            std::snprintf(name, sizeof name, "%-4s %-4s %-6s t%-2d c%-3d %5d ->%5d", name_of(dtype),
                          last ? "nhwc" : "nchw", op, taps, static_cast<int>(c),
                          static_cast<int>(in), static_cast<int>(out));
            cases.push_back(Case{name, dtype, last, planar, false, 8, c, in, in, out, out, up,
                                 down, taps, pad});
          };
          add("smooth", s, s, 1, 1, taps / 2, false);
          add("odd-in", s + 1, s, 1, 1, taps / 2 - 1, false);
          add("oddout", s, s + 1, 1, 1, taps / 2, false);
          add("up2", s / 2, s, 2, 1, taps / 2, false);
          add("down2", s, s / 2, 1, 2, taps / 2 - 1, false);
          if (taps == 4) {
            cases.push_back(one_tap(dtype, last, c, s));
            add("planar", s, s, 1, 1, 2, true);
            add("plan-o", s + 1, s, 1, 1, 1, true);
            add("plan-u", s / 2, s, 2, 1, 2, true);
            add("plan-d", s, s / 2, 1, 2, 1, true);
          }
        }
      }
    }
  }
  return cases;
}

cudaError_t launch_plan(Dtype dtype, const TilePlan& plan, const EpilogueParams* epilogue) {
  if (dtype == Dtype::float16) return launch_tile<Half>(plan, epilogue, nullptr);
  if (dtype == Dtype::bfloat16) return launch_tile<BFloat16>(plan, epilogue, nullptr);
  return launch_tile<float>(plan, epilogue, nullptr);
}

struct Footprint {
  size_t in_bytes, out_bytes;
  int rotation;
};

Footprint footprint(const Case& k) {
  Footprint f;
  f.in_bytes = static_cast<size_t>(k.n * k.c * k.in_h * k.in_w) * size_of(k.dtype);
  f.out_bytes = static_cast<size_t>(k.n * k.c * k.out_h * k.out_w) * size_of(k.dtype);
  // Buffers beyond the L2 cache before one comes back, starting at 256 bytes
  const size_t in_step = round_up(static_cast<int64_t>(f.in_bytes), 256);
  const size_t out_step = round_up(static_cast<int64_t>(f.out_bytes), 256);
  const size_t fit = std::min(pool.in_bytes / in_step, pool.out_bytes / out_step);
  f.rotation = static_cast<int>(std::max<size_t>(1, std::min<size_t>(fit, 8)));
  return f;
}

void bench(const char* filter, bool quick) {
  const double copy = copy_bandwidth();
  std::printf("%-38s %9s %8s %6s %6s  %s\n", "call", "us", "GB/s", "copy", "fused", "variant");
  Dtype filled = Dtype::float64;
  for (const Case& k : layers(quick)) {
    if (filter && k.name.find(filter) == std::string::npos) continue;
    if (k.dtype != filled) fill(pool.in, pool.in_bytes, k.dtype, 3);
    filled = k.dtype;
    const Footprint f = footprint(k);
    auto params = [&](int i) {
      return params_of(k, pool.in + i * round_up(static_cast<int64_t>(f.in_bytes), 256),
                       pool.out + i * round_up(static_cast<int64_t>(f.out_bytes), 256));
    };
    const double seconds =
        time_launches(f.rotation, [&](int i) { REQUIRE(upfirdn2d_cuda(params(i), nullptr)); });
    const double rate = static_cast<double>(f.in_bytes + f.out_bytes) / seconds;
    char fused[16] = "";
    if (k.taps <= 4 && !k.planar && k.axes == Axes::both) {
      EpilogueParams e{};
      e.bias = pool.taps, e.noise_strength = pool.taps, e.noise = pool.in;
      e.slope = 0.2, e.gain = 1.4, e.clamp = -1;
      const double t = time_launches(f.rotation, [&](int i) {
        REQUIRE(upfirdn2d_bias_act_cuda(params(i), e, nullptr));
      });
      std::snprintf(fused, sizeof fused, "%.2f",
                    static_cast<double>(f.in_bytes + f.out_bytes) / t / copy);
    }
    char text[160];
    std::printf("%-38s %9.1f %8.0f %6.2f %6s  %s\n", k.name.c_str(), seconds * 1e6, rate * 1e-9,
                rate / copy, fused, upfirdn2d_cuda_variant(params(0), false, text, sizeof text));
  }
}

void tune(const char* filter) {
  const double copy = copy_bandwidth();
  Dtype filled = Dtype::float64;
  for (const Case& k : layers(true)) {
    if (filter && k.name.find(filter) == std::string::npos) continue;
    if (k.dtype != filled) fill(pool.in, pool.in_bytes, k.dtype, 3);
    filled = k.dtype;
    const Footprint f = footprint(k);
    struct Result {
      double fraction;
      std::string text;
    };
    std::vector<Result> results;
    for (int row = 0; row < kVariantCount; ++row) {
      const UpFirDn2dParams p = in_table_form(params_of(k, pool.in, pool.out), false);
      if (!serves(kVariants[row], p)) continue;
      for (int walk : {16, 32, 64, 128, 256}) {
        for (int part = 1; part <= 4; part *= 2) {
          Variant v = kVariants[row];
          v.walk = walk, v.threads = v.threads / part / 32 * 32, v.narrow = 0;
          TilePlan plan{};
          if (v.threads < 32 || !plan_tile(v, p, Limits{}, &plan)) continue;
          plan.variant = row;
          const double seconds = time_launches(f.rotation, [&](int i) {
            plan.args.input = pool.in + i * round_up(static_cast<int64_t>(f.in_bytes), 256);
            plan.args.output = pool.out + i * round_up(static_cast<int64_t>(f.out_bytes), 256);
            REQUIRE(launch_plan(k.dtype, plan, nullptr));
          });
          char text[160];
          std::snprintf(text, sizeof text,
                        "row %2d bytes %2d rows %d/%d run %d blocks %d walk %3d threads %3d: tile "
                        "%dx%d slots %d block %u shared %zu",
                        row, v.bytes, v.rows32, v.rows16, v.run, v.blocks, walk, v.threads,
                        plan.args.tile_h, plan.args.tile_w, plan.args.slots, plan.block,
                        plan.shared);
          results.push_back(
              {static_cast<double>(f.in_bytes + f.out_bytes) / seconds / copy, text});
        }
      }
    }
    std::sort(results.begin(), results.end(),
              [](const Result& a, const Result& b) { return a.fraction > b.fraction; });
    std::printf("%s\n", k.name.c_str());
    for (size_t i = 0; i < results.size() && i < 4; ++i) {
      std::printf("    %.3f %s\n", results[i].fraction, results[i].text.c_str());
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "check";
  const char* const filter = argc > 2 ? argv[2] : nullptr;
  cudaDeviceProp properties;
  REQUIRE(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s, %d multiprocessors, %zu KiB shared each\n", properties.name,
              properties.multiProcessorCount, properties.sharedMemPerMultiprocessor / 1024);

  // Room for the largest layer in float32 twice
  const bool exact = command == "variants" || command == "races";
  pool.in_bytes = pool.out_bytes = size_t{exact ? 1u : 2400u} << 20;
  REQUIRE(cudaMalloc(&pool.in, pool.in_bytes));
  REQUIRE(cudaMalloc(&pool.out, pool.out_bytes));
  REQUIRE(cudaMalloc(&pool.taps, 4096));
  REQUIRE(cudaMalloc(&pool.taps64, 8192));
  REQUIRE(cudaMalloc(&pool.worst, 4096));
  REQUIRE(cudaMalloc(&pool.workspace, 1 << 20));
  fill(pool.taps, 4096, Dtype::float32, 1);
  fill(pool.taps64, 8192, Dtype::float64, 2);
  REQUIRE(cudaEventCreate(&event_start));
  REQUIRE(cudaEventCreate(&event_stop));

  int status = 0;
  if (command == "check") status = check(kAll);
  if (command == "variants") status = check(kFew);
  if (command == "races") status = check(kOne);
  if (command == "bench") bench(filter, false);
  if (command == "quick") bench(filter, true);
  if (command == "tune") tune(filter);
  REQUIRE(cudaDeviceSynchronize());
  return status;
}
