// SPDX-License-Identifier: BSD-3-Clause
//
// The gradient of what follows the op, found from gradient and output in one pass, with
// the sums for bias, noise and noise strength. Two stages in a fixed order and no atomics,
// so that the result is the same from run to run and from device to device, for tensors of the
// same shape and alignment: blocks write
// partial sums to a workspace, and the second stage adds those in double.
//
// A sample is `lines` lines of `line` elements: planes of pixels (contiguous) or pixels of
// channels (channels_last). One of the two sums, over pixels and over channels, runs along
// a line and the other one across the lines. A block takes a stretch of `lanes` vectors of
// each of its lines; a thread owns one vector of a stretch, in every slots-th line. So the
// sums across lie in its registers until the end. The sums along go through shared memory,
// once for every `round` of thread_lines * slots lines.
//
// Where nobody asks for a sum, all elements are one line.
#pragma once

#include "../upfirdn2d.h"
#include "device.cuh"
#include "epilogue.cuh"

namespace resample_layers {

constexpr int kActGradThreads = 256;
constexpr int kActGradLines = 16;   // most lines of a thread in a round
constexpr int kActGradAtOnce = 4;   // of which so many are asked for before one is waited for
constexpr int kActGradRounds = 4;   // at most, where there are blocks enough
constexpr int kActSumThreads = 512;  // of the second stage
constexpr int kActSumColumns = 8;    // sums of one of its blocks

struct BiasActGradArgs {
  const void* grad;
  const void* output;
  void* result;
  const void* tap_x;           // null: 1
  const void* tap_y;
  int64_t lines, line;         // of a sample
  int lanes, slots;            // threads along a line; lines at once
  int thread_lines, rounds;    // lines of a thread in a round, a multiple of kActGradAtOnce
  int stretches, groups;       // blocks of a sample: along a line, across the lines
  // Partial sums, and what they are multiplied with for the strength's gradient; null: not
  // wanted                                                          [accumulate type]
  void* line_sums;             // [n, stretches, lines]
  void* element_sums;          // [n, groups, line]
  void* products;              // [blocks]
  const void* line_noise;      // [n or 1, lines]
  const void* element_noise;   // [n or 1, line]
  int64_t noise_stride_n;      // 0: one for all samples
};

// kAlong, kAcross: the sums that are wanted. V: elements of one access.
template <class T, int V, bool kAlong, bool kAcross>
__global__ void __launch_bounds__(kActGradThreads, 3)
    bias_act_grad_kernel(const BiasActGradArgs a, const BiasActGrad<T> activation) {
  using acc_t = Accumulate<T>;
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
  T* const result = static_cast<T*>(a.result) + begin;
  const acc_t limit = activation.limit();
  const acc_t gain = activation.gain;
  const acc_t factor = !a.tap_x && !a.tap_y
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
  acc_t across[V] = {};
  acc_t product = 0;
#pragma unroll 1
  for (int round = 0; round < a.rounds; ++round) {
#pragma unroll 1
    for (int k = 0; k < a.thread_lines; k += kActGradAtOnce) {
      Packed<T, V> g[kActGradAtOnce], out[kActGradAtOnce];
      const int next = round * round_lines + k * a.slots + slot;
      auto has = [&](int j) { return size == V && next + j * a.slots < lines; };
      auto at = [&](int j) { return static_cast<int64_t>(next + j * a.slots) * a.line; };
#pragma unroll
      for (int j = 0; j < kActGradAtOnce; ++j) {
        g[j].clear(), out[j].clear();
        if (has(j)) g[j].load(grad + at(j)), out[j].load(output + at(j));
      }
#pragma unroll
      for (int j = 0; j < kActGradAtOnce; ++j) {
        acc_t value[V], along = 0;
#pragma unroll
        for (int e = 0; e < V; ++e) {
          value[e] = activation(g[j].get(e), out[j].get(e), limit);
          if constexpr (kAlong) along += gain * value[e];
          if constexpr (kAcross) across[e] += gain * value[e];
          value[e] *= factor;
        }
        g[j].set(value);
        if (has(j)) g[j].store(result + at(j));
        if constexpr (kAlong) {
          if (slot < a.slots) shared[lane * pitch + (k + j) * a.slots + slot] = along;
        }
      }
    }

    if constexpr (kAlong) {
      // The sums of the round's lines, each by as many threads as there are for it
      auto finish = [&](int line, acc_t total) {
        const int index = round * round_lines + line;
        if (index >= lines) return;
        if (line_sums) line_sums[index] = total;
        if (line_noise) product += total * line_noise[index];
      };
      BARRIER(70);
      const int parts = max(1, kActGradThreads / round_lines);
#pragma unroll 1
      for (int i = thread; i < parts * round_lines; i += kActGradThreads) {
        const int part = i / round_lines, line = i - part * round_lines;
        acc_t total = 0;
        for (int j = part; j < a.lanes; j += parts) total += shared[j * pitch + line];
        if (parts > 1) {
          shared[a.lanes * pitch + i] = total;
        } else {
          finish(line, total);
        }
      }
      if (parts > 1) {
        BARRIER(71);
        if (thread < round_lines) {
          acc_t total = 0;
          for (int part = 0; part < parts; ++part) {
            total += shared[a.lanes * pitch + part * round_lines + thread];
          }
          finish(thread, total);
        }
      }
      BARRIER(72);
    }
  }

  if constexpr (kAcross) {
    // A tree over the slots. Every thread may write its place: nobody reads shared memory now
    acc_t* const own = shared + thread * V;
    const int row = a.lanes * V;
#pragma unroll
    for (int e = 0; e < V; ++e) own[e] = across[e];
#pragma unroll 1
    for (int rows = a.slots; rows > 1;) {
      const int half = (rows + 1) / 2;
      BARRIER(73);
      if (slot + half < rows) {
#pragma unroll
        for (int e = 0; e < V; ++e) own[e] += own[half * row + e];
      }
      rows = half;
    }
    if (slot == 0 && size == V) {
      const int64_t element = first + lane * V;
      if (a.element_sums) {
        acc_t* const to =
            static_cast<acc_t*>(a.element_sums) + (n * a.groups + group) * a.line + element;
#pragma unroll
        for (int e = 0; e < V; ++e) to[e] = own[e];
      }
      if (a.element_noise) {
        const acc_t* const noise =
            static_cast<const acc_t*>(a.element_noise) + n * a.noise_stride_n + element;
#pragma unroll
        for (int e = 0; e < V; ++e) product += own[e] * noise[e];
      }
    }
  }

  if constexpr (kAlong || kAcross) {
    if (a.products == nullptr) return;
    BARRIER(74);
    shared[thread] = product;
#pragma unroll 1
    for (int half = kActGradThreads / 2; half > 0; half /= 2) {
      BARRIER(75);
      if (thread < half) shared[thread] += shared[thread + half];
    }
    if (thread == 0) static_cast<acc_t*>(a.products)[blockIdx.x] = shared[0];
  }
}

// The second stage. Its first blocks add up the bias, the next ones the noise, the last one
// the products of the strength's gradient.
struct BiasActSumArgs {
  const void* bias_sums;       // [bias_rows, c]                       [accumulate type]
  const void* noise_sums;      // [noise_samples, noise_rows, pixels]
  const void* products;        // [product_rows]
  void* bias_grad;             // [c]
  void* noise_grad;            // [noise_samples, pixels]
  void* strength_grad;         // one number
  const void* noise_strength;  // null: 1
  int64_t bias_rows, c, noise_rows, pixels, noise_total, product_rows;
  unsigned bias_blocks, noise_blocks;
};

template <class acc_t>
__global__ void __launch_bounds__(kActSumThreads) bias_act_sum_kernel(const BiasActSumArgs a) {
  SHARED_MEMORY(double, shared);
  const int thread = static_cast<int>(threadIdx.x);
  if (blockIdx.x >= a.bias_blocks && blockIdx.x - a.bias_blocks < a.noise_blocks) {
    const int64_t i =
        static_cast<int64_t>(blockIdx.x - a.bias_blocks) * kActSumThreads + thread;
    if (i >= a.noise_total) return;
    const int64_t sample = i / a.pixels;
    const acc_t* const from = static_cast<const acc_t*>(a.noise_sums) +
                              (sample * a.noise_rows) * a.pixels + (i - sample * a.pixels);
    double total = 0;
#pragma unroll 4
    for (int64_t row = 0; row < a.noise_rows; ++row) total += from[row * a.pixels];
    const double scale =
        a.noise_strength ? static_cast<double>(*static_cast<const acc_t*>(a.noise_strength)) : 1;
    static_cast<acc_t*>(a.noise_grad)[i] = static_cast<acc_t>(total * scale);
    return;
  }

  // Columns of a table: those of a few channels, or the only one of the products
  const bool bias = blockIdx.x < a.bias_blocks;
  const int columns = bias ? kActSumColumns : 1;
  const int64_t table_rows = bias ? a.bias_rows : a.product_rows, pitch = bias ? a.c : 1;
  const acc_t* const table = static_cast<const acc_t*>(bias ? a.bias_sums : a.products);
  const int64_t column =
      (bias ? static_cast<int64_t>(blockIdx.x) * columns : 0) + thread % columns;
  const bool has = column < pitch;
  double total = 0;
  if (has) {
#pragma unroll 4
    for (int64_t row = thread / columns; row < table_rows; row += kActSumThreads / columns) {
      total += table[row * pitch + column];
    }
  }
  shared[thread] = total;
#pragma unroll 1
  for (int half = kActSumThreads / 2; half >= columns; half /= 2) {
    BARRIER(76);
    if (thread < half) shared[thread] += shared[thread + half];
  }
  if (thread < columns && has) {
    static_cast<acc_t*>(bias ? a.bias_grad : a.strength_grad)[column] =
        static_cast<acc_t>(shared[thread]);
  }
}

// ---------------------------------------------------------------- the plan, on the host

struct BiasActGradPlan {
  bool vectors;          // 16 bytes an access; false: one element
  bool along, across;    // the sums that are wanted
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
  plan.along = last ? pixels : channels;
  plan.across = last ? channels : pixels;
  const bool any = plan.along || plan.across;
  int64_t n = p.n;
  a.lines = last ? p.pixels : p.c, a.line = last ? p.c : p.pixels;
  if (!any) a.line *= a.lines * n, a.lines = n = 1;

  // Vectors and the threads of a block
  auto aligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
  const int64_t widest = 16 / size;
  plan.vectors = (!any || a.line % widest == 0) && aligned(p.grad) && aligned(p.output) &&
                 aligned(p.result);
  const int64_t vector = plan.vectors ? widest : 1;
  const int64_t vectors = (a.line + vector - 1) / vector;  // of a line
  a.lanes = static_cast<int>(std::min<int64_t>(kActGradThreads, vectors));
  a.slots = static_cast<int>(std::min<int64_t>(kActGradThreads / a.lanes, a.lines));
  a.stretches = static_cast<int>((vectors + a.lanes - 1) / a.lanes);

  // Lines of a block: fewer where there would be few blocks, more where there are very many
  auto groups = [&](int64_t lines) { return (a.lines + lines - 1) / lines; };
  a.thread_lines = kActGradLines;
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
    shared = std::max(shared, a.lanes * (round + 1) + (round < kActGradThreads ? kActGradThreads : 0));
  }
  if (plan.across) shared = std::max(shared, kActGradThreads * vector);
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
  if (p.strength_grad != nullptr) a.products = take(plan.blocks);

  a.grad = p.grad, a.output = p.output, a.result = p.result;
  a.tap_x = p.tap_x, a.tap_y = p.tap_y;
  if (p.strength_grad != nullptr) (last ? a.line_noise : a.element_noise) = p.noise;
  a.noise_stride_n = p.noise_stride_n;

  s.bias_sums = last ? a.element_sums : a.line_sums;
  s.noise_sums = last ? a.line_sums : a.element_sums;
  s.products = a.products;
  s.bias_grad = p.bias_grad, s.noise_grad = p.noise_grad, s.strength_grad = p.strength_grad;
  s.noise_strength = p.noise_strength;
  s.bias_rows = n * (last ? a.groups : a.stretches), s.c = p.c;
  s.pixels = p.pixels, s.product_rows = plan.blocks;
  if (channels) {
    s.bias_blocks = static_cast<unsigned>((p.c + kActSumColumns - 1) / kActSumColumns);
  }
  if (p.noise_grad != nullptr) {
    s.noise_total = p.noise_samples * p.pixels;
    s.noise_rows = n / p.noise_samples * (last ? a.stretches : a.groups);
    s.noise_blocks = static_cast<unsigned>((s.noise_total + kActSumThreads - 1) / kActSumThreads);
  }
  plan.sum_blocks = s.bias_blocks + s.noise_blocks + (p.strength_grad != nullptr ? 1 : 0);
  plan.sum_shared = kActSumThreads * sizeof(double);
  return plan;
}

template <class T>
using BiasActGradKernel = void (*)(BiasActGradArgs, BiasActGrad<T>);

template <class T, int V>
BiasActGradKernel<T> bias_act_grad_kernel_of(bool along, bool across) {
  if (along) {
    return across ? bias_act_grad_kernel<T, V, true, true>
                  : bias_act_grad_kernel<T, V, true, false>;
  }
  return across ? bias_act_grad_kernel<T, V, false, true>
                : bias_act_grad_kernel<T, V, false, false>;
}

template <class T>
BiasActGradKernel<T> bias_act_grad_kernel_of(const BiasActGradPlan& plan) {
  constexpr int kVector = 16 / static_cast<int>(sizeof(T));
  return plan.vectors ? bias_act_grad_kernel_of<T, kVector>(plan.along, plan.across)
                      : bias_act_grad_kernel_of<T, 1>(plan.along, plan.across);
}

}  // namespace resample_layers
