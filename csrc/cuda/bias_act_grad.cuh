// SPDX-License-Identifier: BSD-3-Clause
//
// The gradient of what follows the op, found from gradient and output in one pass, with
// the sums for bias, noise, noise strength and scale. Two stages in a fixed order and no atomics,
// so that the result is the same from run to run and from device to device, for tensors of the
// same shape and alignment: blocks write
// partial sums to a workspace, and the second stage adds those in double.
//
// A sample is `lines` lines of `line` elements: planes of pixels (contiguous) or pixels of
// channels (channels_last). One of the two sums, over pixels and over channels, runs along
// a line and the other one across the lines. A block takes a stretch of `lanes` vectors of
// each of its lines; a thread owns one vector of a stretch, in every slots-th line. So the
// sums across lie in its registers until the end. The sums along go through shared memory,
// once for every `round` of thread_lines * slots lines. The scale's gradient is a sum of products
// over the pixels of a sample, and goes beside the bias's: along where lines are channels, across
// where their elements are.
//
// Where nobody asks for a sum, and there is no scale, all elements are one line.
#pragma once

#include "../upfirdn2d.h"
#include "device.cuh"
#include "epilogue.cuh"

namespace resample_layers {

constexpr int kActGradThreads = 256;
constexpr int kActGradLines = 16;   // most lines of a thread in a round
constexpr int kActGradAtOnce = 4;   // of which so many are asked for before one is waited for
constexpr int kActGradRounds = 4;   // at most, where there are blocks enough
constexpr int kActGradScaledLines = 8;  // of a thread in a round, with two sums along
constexpr int kActSumThreads = 512;  // of the second stage
constexpr int kActSumColumns = 8;    // sums of one of its blocks

// What the scale belongs to, and the products for its gradient: nothing, where there is neither;
// a line; or an element of it.
enum class ScaleOf { none, line, element };

struct BiasActGradArgs {
  const void* grad;
  const void* output;
  const void* scaled;          // null: no products
  void* result;
  const void* tap_x;           // null: 1
  const void* tap_y;
  const void* scale;           // [n, channels]; null: 1           [accumulate type]
  int64_t lines, line;         // of a sample
  int lanes, slots;            // threads along a line; lines at once
  int thread_lines, rounds;    // lines of a thread in a round, a multiple of kActGradAtOnce
  int stretches, groups;       // blocks of a sample: along a line, across the lines
  // Partial sums, and what they are multiplied with for the strength's gradient; null: not
  // wanted                                                          [accumulate type]
  void* line_sums;             // [n, stretches, lines]
  void* element_sums;          // [n, groups, line]
  void* line_products;         // [n, stretches, lines]: those with `scaled`
  void* element_products;      // [n, groups, line]
  void* noise_products;        // [blocks]: sums times noise
  const void* line_noise;      // [n or 1, lines]
  const void* element_noise;   // [n or 1, line]
  int64_t noise_stride_n;      // 0: one for all samples
};

// kAlong, kAcross: the sums that are wanted; with a scale, those over the pixels at least.
// V: elements of one access to the tensors of T. S: what `scaled` is stored as. With a scale, a
// thread asks for three tensors and not for two, and two blocks have as much on its way as three.
template <class T, class S, int V, bool kAlong, bool kAcross, ScaleOf kScale>
__global__ void __launch_bounds__(kActGradThreads, kScale == ScaleOf::none ? 3 : 2)
    bias_act_grad_kernel(const BiasActGradArgs a, const BiasActGrad<T> activation) {
  using acc_t = Accumulate<T>;
  constexpr bool kOfLine = kScale == ScaleOf::line, kOfElement = kScale == ScaleOf::element;
  static_assert((!kOfLine || kAlong) && (!kOfElement || kAcross));
  SHARED_MEMORY(acc_t, shared);
  const int thread = static_cast<int>(threadIdx.x);
  const int slot = thread / a.lanes, lane = thread - slot * a.lanes;
  int stretch, group;
  const int64_t n =
      divide(divide(static_cast<int64_t>(blockIdx.x), a.stretches, &stretch), a.groups, &group);
  const int round_lines = a.thread_lines * a.slots, pitch = round_lines + 1;
  const int64_t first_line = static_cast<int64_t>(group) * a.rounds * round_lines;
  const int64_t first = static_cast<int64_t>(stretch) * a.lanes * V;
  const int lines = static_cast<int>(
      min(a.lines - first_line, static_cast<int64_t>(a.rounds) * round_lines));
  // Elements of this thread's vector; less than V only where all is one line
  const int64_t left = a.line - first - lane * V;
  const int size = slot < a.slots ? static_cast<int>(max(min(left, int64_t{V}), int64_t{0})) : 0;
  const int64_t begin = (n * a.lines + first_line) * a.line + first + lane * V;
  const T* const grad = static_cast<const T*>(a.grad) + begin;
  const T* const output = static_cast<const T*>(a.output) + begin;
  const S* const scaled = a.scaled ? static_cast<const S*>(a.scaled) + begin : nullptr;
  T* const result = static_cast<T*>(a.result) + begin;
  const acc_t limit = activation.limit();
  const acc_t gain = activation.gain;
  const acc_t factor = !a.tap_x && !a.tap_y && !a.scale
                           ? acc_t(1)
                           : gain * (a.tap_x ? *static_cast<const acc_t*>(a.tap_x) : acc_t(1)) *
                                 (a.tap_y ? *static_cast<const acc_t*>(a.tap_y) : acc_t(1));

  if constexpr (!kAlong && !kAcross) {
    if (size < V) {
      for (int e = 0; e < size; ++e) {
        const acc_t value = activation(to_accumulate(grad[e]), to_accumulate(output[e]), limit);
        result[e] = from_accumulate<T>(factor * value);
      }
      return;
    }
  }

  const acc_t* const line_noise =
      a.line_noise ? static_cast<const acc_t*>(a.line_noise) + n * a.noise_stride_n + first_line
                   : nullptr;
  acc_t* const line_sums =
      a.line_sums ? static_cast<acc_t*>(a.line_sums) + (n * a.stretches + stretch) * a.lines +
                        first_line
                  : nullptr;
  acc_t* const line_products =
      a.line_products ? static_cast<acc_t*>(a.line_products) +
                            (n * a.stretches + stretch) * a.lines + first_line
                      : nullptr;
  // The scales of the block's lines, or of the thread's elements
  const acc_t* scales = static_cast<const acc_t*>(a.scale);
  if (scales) scales += kOfElement ? n * a.line + first + lane * V : n * a.lines + first_line;
  acc_t factors[kOfElement ? V : 1], across_products[kOfElement ? V : 1] = {};
  if constexpr (kOfElement) {
#pragma unroll
    for (int e = 0; e < V; ++e) factors[e] = scales && size == V ? factor * scales[e] : factor;
  }
  acc_t across[V] = {};
  acc_t noise_product = 0;
#pragma unroll 1
  for (int round = 0; round < a.rounds; ++round) {
#pragma unroll 1
    for (int k = 0; k < a.thread_lines; k += kActGradAtOnce) {
      Packed<T, V> g[kActGradAtOnce], out[kActGradAtOnce];
      Packed<S, V> s[kScale == ScaleOf::none ? 1 : kActGradAtOnce];
      acc_t line_factors[kOfLine ? kActGradAtOnce : 1];
      const int next = round * round_lines + k * a.slots + slot;
      auto has = [&](int j) { return size == V && next + j * a.slots < lines; };
      auto at = [&](int j) { return static_cast<int64_t>(next + j * a.slots) * a.line; };
#pragma unroll
      for (int j = 0; j < kActGradAtOnce; ++j) {
        g[j].clear(), out[j].clear();
        if (has(j)) g[j].load(grad + at(j)), out[j].load(output + at(j));
        if constexpr (kScale != ScaleOf::none) {
          s[j].clear();
          if (scaled && has(j)) s[j].load(scaled + at(j));
        }
        if constexpr (kOfLine) {
          line_factors[j] =
              scales && has(j) ? factor * scales[next + j * a.slots] : factor;
        }
      }
#pragma unroll
      for (int j = 0; j < kActGradAtOnce; ++j) {
        acc_t value[V], along = 0, along_products = 0;
#pragma unroll
        for (int e = 0; e < V; ++e) {
          value[e] = activation(g[j].get(e), out[j].get(e), limit);
          const acc_t term = gain * value[e];
          if constexpr (kAlong) along += term;
          if constexpr (kAcross) across[e] += term;
          if constexpr (kOfLine) along_products += term * s[j].get(e);
          if constexpr (kOfElement) across_products[e] += term * s[j].get(e);
          value[e] *= kOfElement ? factors[kOfElement ? e : 0]
                      : kOfLine  ? line_factors[kOfLine ? j : 0]
                                 : factor;
        }
        g[j].set(value);
        if (has(j)) g[j].store(result + at(j));
        if constexpr (kAlong) {
          acc_t* const own = shared + lane * pitch + (k + j) * a.slots + slot;
          if (slot < a.slots) own[0] = along;
          if constexpr (kOfLine) {
            if (slot < a.slots) own[a.lanes * pitch] = along_products;
          }
        }
      }
    }

    if constexpr (kAlong) {
      // The sums of the round's lines, then their products; each by as many threads as there are
      constexpr int kTables = kOfLine ? 2 : 1;
      const int sums = kTables * round_lines;
      acc_t* const of_parts = shared + kTables * a.lanes * pitch;
      auto finish = [&](int sum, acc_t total) {
        const bool of_products = kOfLine && sum >= round_lines;
        const int index = round * round_lines + sum - (of_products ? round_lines : 0);
        if (index >= lines) return;
        if (of_products) {
          if (line_products) line_products[index] = total;
          return;
        }
        if (line_sums) line_sums[index] = total;
        if (line_noise) noise_product += total * line_noise[index];
      };
      BARRIER(70);
      const int parts = max(1, kActGradThreads / round_lines);
#pragma unroll 1
      for (int i = thread; i < parts * sums; i += kActGradThreads) {
        const int part = i / sums, sum = i - part * sums;
        const bool of_products = kOfLine && sum >= round_lines;
        const acc_t* const table =
            shared + sum + (of_products ? a.lanes * pitch - round_lines : 0);
        acc_t total = 0;
        for (int j = part; j < a.lanes; j += parts) total += table[j * pitch];
        if (parts > 1) {
          of_parts[i] = total;
        } else {
          finish(sum, total);
        }
      }
      if (parts > 1) {
        BARRIER(71);
        if (thread < sums) {
          acc_t total = 0;
          for (int part = 0; part < parts; ++part) total += of_parts[part * sums + thread];
          finish(thread, total);
        }
      }
      BARRIER(72);
    }
  }

  if constexpr (kAcross) {
    // A tree over the slots. Every thread may write its place: nobody reads shared memory now
    acc_t* const own = shared + thread * V;
    acc_t* const own_products = own + kActGradThreads * V;
    const int row = a.lanes * V;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      own[e] = across[e];
      if constexpr (kOfElement) own_products[e] = across_products[e];
    }
#pragma unroll 1
    for (int rows = a.slots; rows > 1;) {
      const int half = (rows + 1) / 2;
      BARRIER(73);
      if (slot + half < rows) {
#pragma unroll
        for (int e = 0; e < V; ++e) {
          own[e] += own[half * row + e];
          if constexpr (kOfElement) own_products[e] += own_products[half * row + e];
        }
      }
      rows = half;
    }
    if (slot == 0 && size == V) {
      const int64_t element = first + lane * V;
      const int64_t place = (n * a.groups + group) * a.line + element;
      if (a.element_sums) {
        acc_t* const to = static_cast<acc_t*>(a.element_sums) + place;
#pragma unroll
        for (int e = 0; e < V; ++e) to[e] = own[e];
      }
      if (kOfElement && a.element_products) {
        acc_t* const to = static_cast<acc_t*>(a.element_products) + place;
#pragma unroll
        for (int e = 0; e < V; ++e) to[e] = own_products[e];
      }
      if (a.element_noise) {
        const acc_t* const noise =
            static_cast<const acc_t*>(a.element_noise) + n * a.noise_stride_n + element;
#pragma unroll
        for (int e = 0; e < V; ++e) noise_product += own[e] * noise[e];
      }
    }
  }

  if constexpr (kAlong || kAcross) {
    if (a.noise_products == nullptr) return;
    BARRIER(74);
    shared[thread] = noise_product;
#pragma unroll 1
    for (int half = kActGradThreads / 2; half > 0; half /= 2) {
      BARRIER(75);
      if (thread < half) shared[thread] += shared[thread + half];
    }
    if (thread == 0) static_cast<acc_t*>(a.noise_products)[blockIdx.x] = shared[0];
  }
}

// Partial sums in tables of rows, whose columns are added up.
struct ActSumTables {
  const void* partials;        // [tables, rows, columns]          [accumulate type]
  void* sums;                  // [tables, columns]
  int64_t rows, columns;
  int width;                   // columns of a block
  int table_blocks;            // blocks of a table
  unsigned blocks;             // of all tables; 0: these sums are not wanted
};

// The second stage. Its first blocks add up the noise, the next ones the bias, then those of the
// scale, and the last one the products of the strength's gradient.
struct BiasActSumArgs {
  const void* noise_sums;      // [noise_samples, noise_rows, pixels]  [accumulate type]
  void* noise_grad;            // [noise_samples, pixels]
  const void* noise_strength;  // null: 1
  int64_t noise_rows, pixels, noise_total;
  unsigned noise_blocks;
  ActSumTables bias;           // one table, of all samples
  ActSumTables scale;          // one of each sample
  const void* tap_x;           // what the scale's sums are multiplied with; null: 1
  const void* tap_y;
  ActSumTables strength;       // one table of one column
};

template <class acc_t>
__global__ void __launch_bounds__(kActSumThreads) bias_act_sum_kernel(const BiasActSumArgs a) {
  SHARED_MEMORY(double, shared);
  const int thread = static_cast<int>(threadIdx.x);
  auto number = [](const void* p) {
    return p ? static_cast<double>(*static_cast<const acc_t*>(p)) : 1.0;
  };
  if (blockIdx.x < a.noise_blocks) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * kActSumThreads + thread;
    if (i >= a.noise_total) return;
    const int64_t sample = i / a.pixels;
    const acc_t* const from = static_cast<const acc_t*>(a.noise_sums) +
                              (sample * a.noise_rows) * a.pixels + (i - sample * a.pixels);
    double total = 0;
#pragma unroll 4
    for (int64_t row = 0; row < a.noise_rows; ++row) total += from[row * a.pixels];
    static_cast<acc_t*>(a.noise_grad)[i] =
        static_cast<acc_t>(total * number(a.noise_strength));
    return;
  }

  unsigned block = blockIdx.x - a.noise_blocks;
  const bool bias = block < a.bias.blocks;
  if (!bias) block -= a.bias.blocks;
  const bool scale = !bias && block < a.scale.blocks;
  if (!bias && !scale) block -= a.scale.blocks;
  const ActSumTables t = bias ? a.bias : scale ? a.scale : a.strength;

  int in_table;
  const int64_t table = divide(static_cast<int64_t>(block), t.table_blocks, &in_table);
  const acc_t* const partials = static_cast<const acc_t*>(t.partials) + table * t.rows * t.columns;
  const int64_t column = static_cast<int64_t>(in_table) * t.width + thread % t.width;
  const bool has = column < t.columns;
  double total = 0;
  if (has) {
#pragma unroll 4
    for (int64_t row = thread / t.width; row < t.rows; row += kActSumThreads / t.width) {
      total += partials[row * t.columns + column];
    }
  }
  shared[thread] = total;
#pragma unroll 1
  for (int half = kActSumThreads / 2; half >= t.width; half /= 2) {
    BARRIER(76);
    if (thread < half) shared[thread] += shared[thread + half];
  }
  if (thread < t.width && has) {
    const double tap = scale ? number(a.tap_x) * number(a.tap_y) : 1.0;
    static_cast<acc_t*>(t.sums)[table * t.columns + column] =
        static_cast<acc_t>(shared[thread] * tap);
  }
}

// ---------------------------------------------------------------- the plan, on the host

struct BiasActGradPlan {
  bool vectors;          // 16 bytes an access; false: one element
  bool wide;             // `scaled` is of WideScaled
  bool along, across;    // the sums that are wanted
  ScaleOf scale;
  int64_t blocks, sum_blocks;   // of the two stages; sum_blocks 0: there are no sums
  size_t shared, sum_shared;    // [bytes] of a block
  int64_t workspace;            // [bytes]
  BiasActGradArgs args;
  BiasActSumArgs sums;
};

// A block takes fewer lines where there are fewer blocks than `few`, and more than a round of
// them where there are more than `many`.
struct BlockCounts {
  int64_t few = 512, many = 4096;
};

// What follows from shapes and alignment alone, whatever the device: the order of the sums must
// not depend on it. The pointers into the workspace are offsets from null until it is known.
inline BiasActGradPlan plan_bias_act_grad(const BiasActGradParams& p, void* workspace,
                                          BlockCounts counts = {}) {
  BiasActGradPlan plan{};
  BiasActGradArgs& a = plan.args;
  const int64_t size = p.dtype == Dtype::float64 ? 8 : p.dtype == Dtype::float32 ? 4 : 2;
  const int64_t accumulate = p.dtype == Dtype::float64 ? 8 : 4;
  const bool last = p.channels_last;
  const bool channels = p.bias_grad != nullptr;
  const bool pixels = p.noise_grad != nullptr || p.strength_grad != nullptr;
  const bool scaled = p.scale != nullptr || p.scaled != nullptr;
  plan.wide = scaled && p.scaled_dtype != p.dtype;
  plan.scale = !scaled ? ScaleOf::none : last ? ScaleOf::element : ScaleOf::line;
  plan.along = (last ? pixels : channels) || plan.scale == ScaleOf::line;
  plan.across = (last ? channels : pixels) || plan.scale == ScaleOf::element;
  const bool any = plan.along || plan.across;
  int64_t n = p.n;
  a.lines = last ? p.pixels : p.c, a.line = last ? p.c : p.pixels;
  if (!any) a.line *= a.lines * n, a.lines = n = 1;

  // Vectors and the threads of a block
  auto aligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
  const int64_t widest = 16 / size;
  plan.vectors = (!any || a.line % widest == 0) && aligned(p.grad) && aligned(p.output) &&
                 aligned(p.scaled) && aligned(p.result);
  const int64_t vector = plan.vectors ? widest : 1;
  const int64_t vectors = (a.line + vector - 1) / vector;  // of a line
  a.lanes = static_cast<int>(std::min<int64_t>(kActGradThreads, vectors));
  a.slots = static_cast<int>(std::min<int64_t>(kActGradThreads / a.lanes, a.lines));
  a.stretches = static_cast<int>((vectors + a.lanes - 1) / a.lanes);

  // Lines of a block: fewer where there would be few blocks, more where there are very many
  auto groups = [&](int64_t lines) { return (a.lines + lines - 1) / lines; };
  a.thread_lines = plan.scale == ScaleOf::line ? kActGradScaledLines : kActGradLines;
  while (a.thread_lines > kActGradAtOnce &&
         n * a.stretches * groups(int64_t{a.thread_lines} * a.slots) < counts.few) {
    a.thread_lines /= 2;
  }
  const int64_t round = int64_t{a.thread_lines} * a.slots;
  a.rounds = static_cast<int>(
      std::clamp<int64_t>(n * a.stretches * groups(round) / counts.many, 1, kActGradRounds));
  a.groups = static_cast<int>(groups(a.rounds * round));
  plan.blocks = n * a.stretches * a.groups;

  // Shared memory: the sums of a round, and of their parts; the tree over the slots
  int64_t shared = any ? kActGradThreads : 0;
  if (plan.along) {
    const int64_t parts = round < kActGradThreads ? kActGradThreads : 0;
    const int64_t tables = plan.scale == ScaleOf::line ? 2 : 1;
    shared = std::max(shared, tables * (a.lanes * (round + 1) + parts));
  }
  if (plan.across) {
    const int64_t tables = plan.scale == ScaleOf::element ? 2 : 1;
    shared = std::max(shared, tables * kActGradThreads * vector);
  }
  plan.shared = static_cast<size_t>(shared * accumulate);

  // The workspace
  auto take = [&](int64_t count) {
    void* const at = workspace == nullptr ? nullptr : static_cast<char*>(workspace) + plan.workspace;
    plan.workspace += (count * accumulate + 15) / 16 * 16;
    return at;
  };
  BiasActSumArgs& s = plan.sums;
  const bool along_partial = last ? p.noise_grad != nullptr : channels;
  const bool across_partial = last ? channels : p.noise_grad != nullptr;
  if (along_partial) a.line_sums = take(n * a.stretches * a.lines);
  if (across_partial) a.element_sums = take(n * a.groups * a.line);
  void*& products = last ? a.element_products : a.line_products;
  if (p.scale_grad != nullptr) products = take(n * p.c * (last ? a.groups : a.stretches));
  if (p.strength_grad != nullptr) a.noise_products = take(plan.blocks);

  a.grad = p.grad, a.output = p.output, a.scaled = p.scaled, a.result = p.result;
  a.tap_x = p.tap_x, a.tap_y = p.tap_y, a.scale = p.scale;
  if (p.strength_grad != nullptr) (last ? a.line_noise : a.element_noise) = p.noise;
  a.noise_stride_n = p.noise_stride_n;

  if (p.noise_grad != nullptr) {
    s.noise_sums = last ? a.line_sums : a.element_sums, s.noise_grad = p.noise_grad;
    s.noise_strength = p.noise_strength, s.pixels = p.pixels;
    s.noise_total = p.noise_samples * p.pixels;
    s.noise_rows = n / p.noise_samples * (last ? a.stretches : a.groups);
    plan.sum_blocks = (s.noise_total + kActSumThreads - 1) / kActSumThreads;
    s.noise_blocks = static_cast<unsigned>(plan.sum_blocks);
  }
  auto add_up = [&](const void* partials, void* sums, int64_t tables, int64_t rows,
                    int64_t columns, int width) {
    if (sums == nullptr) return ActSumTables{};
    const int64_t table_blocks = (columns + width - 1) / width;
    plan.sum_blocks += tables * table_blocks;
    return ActSumTables{partials, sums, rows, columns, width, static_cast<int>(table_blocks),
                        static_cast<unsigned>(tables * table_blocks)};
  };
  const int64_t parts = last ? a.groups : a.stretches;  // of a channel and sample
  s.bias = add_up(last ? a.element_sums : a.line_sums, p.bias_grad, 1, n * parts, p.c,
                  kActSumColumns);
  s.scale = add_up(products, p.scale_grad, n, parts, p.c, kActSumColumns);
  s.tap_x = p.tap_x, s.tap_y = p.tap_y;
  s.strength = add_up(a.noise_products, p.strength_grad, 1, plan.blocks, 1, 1);
  plan.sum_shared = kActSumThreads * sizeof(double);
  return plan;
}

template <class T>
using BiasActGradKernel = void (*)(BiasActGradArgs, BiasActGrad<T>);

template <class T, class S, int V>
BiasActGradKernel<T> bias_act_grad_kernel_with_scale(const BiasActGradPlan& plan) {
  if (plan.scale == ScaleOf::line) {
    return plan.across ? bias_act_grad_kernel<T, S, V, true, true, ScaleOf::line>
                       : bias_act_grad_kernel<T, S, V, true, false, ScaleOf::line>;
  }
  return plan.along ? bias_act_grad_kernel<T, S, V, true, true, ScaleOf::element>
                    : bias_act_grad_kernel<T, S, V, false, true, ScaleOf::element>;
}

// What `scaled` is stored as beside T, if not as T.
template <class T>
struct WideScaled {
  using type = T;
};
template <>
struct WideScaled<Half> {
  using type = float;
};

template <class T, int V>
BiasActGradKernel<T> bias_act_grad_kernel_of_vectors(const BiasActGradPlan& plan) {
  if (plan.wide) return bias_act_grad_kernel_with_scale<T, typename WideScaled<T>::type, V>(plan);
  if (plan.scale != ScaleOf::none) return bias_act_grad_kernel_with_scale<T, T, V>(plan);
  if (plan.along) {
    return plan.across ? bias_act_grad_kernel<T, T, V, true, true, ScaleOf::none>
                       : bias_act_grad_kernel<T, T, V, true, false, ScaleOf::none>;
  }
  return plan.across ? bias_act_grad_kernel<T, T, V, false, true, ScaleOf::none>
                     : bias_act_grad_kernel<T, T, V, false, false, ScaleOf::none>;
}

template <class T>
BiasActGradKernel<T> bias_act_grad_kernel_of(const BiasActGradPlan& plan) {
  constexpr int kVector = 16 / static_cast<int>(sizeof(T));
  return plan.vectors ? bias_act_grad_kernel_of_vectors<T, kVector>(plan)
                      : bias_act_grad_kernel_of_vectors<T, 1>(plan);
}

}  // namespace resample_layers
