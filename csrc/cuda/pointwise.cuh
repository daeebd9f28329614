// SPDX-License-Identifier: BSD-3-Clause
//
// One tap and no resampling: out = epilogue(tap * in), element by element. What an
// activation without a filter becomes, over the largest tensors of a network; without
// the epilogue, a scaled copy.
//
// Input and output are dense in the same order, and so one long row of elements that is
// cut into vectors wherever they fall. For the epilogue this row is lines, one after
// another: planes (contiguous, the bias is constant along a line and the noise varies)
// or pixels (channels_last, the noise is constant and the bias varies). A vector may
// cross from one line to the next; then its elements are taken one by one.
//
// A block finds its first element in 64 bits, once; from there its threads count in 32.
#pragma once

#include "../upfirdn2d.h"
#include "device.cuh"
#include "epilogue.cuh"

namespace resample_layers {

constexpr int kPointwiseThreads = 256;
constexpr int kPointwiseVectors = 4;  // of one thread, all asked for before one is waited for

struct PointwiseArgs {
  const void* input;
  void* output;
  const void* kernel;  // one tap; null: separable
  const void* taps_x;
  const void* taps_y;
  int64_t total;       // elements
  int line, lines;     // elements of a line, lines of a sample
  bool whole_lines;    // no vector crosses the end of a line
  bool wide_operand;   // nor that of the operand along it, which is aligned to vectors
};

// Which sample, which of its lines, which element of the line.
struct LineIndex {
  int n, line, offset;

  DEVICE LineIndex() {}

  DEVICE LineIndex(const PointwiseArgs& a, int64_t element) {
    const int64_t lines = divide(element, a.line, &offset);
    n = static_cast<int>(divide(lines, a.lines, &line));
  }

  // `ahead` elements further: fewer than a block has, so that nothing overflows.
  DEVICE LineIndex after(const PointwiseArgs& a, int ahead) const {
    const uint32_t length = static_cast<uint32_t>(a.line), count = static_cast<uint32_t>(a.lines);
    const uint32_t element = static_cast<uint32_t>(offset + ahead);
    const uint32_t further = element / length;
    const uint32_t in_sample = static_cast<uint32_t>(line) + further;
    const uint32_t samples = in_sample / count;
    LineIndex further_on;
    further_on.n = n + static_cast<int>(samples);
    further_on.line = static_cast<int>(in_sample - samples * count);
    further_on.offset = static_cast<int>(element - further * length);
    return further_on;
  }
};

// V: elements of one access. kLast: channels_last.
template <class T, int V, bool kLast, class Epilogue>
__global__ void __launch_bounds__(kPointwiseThreads, 3)
    pointwise_kernel(const PointwiseArgs a, const Epilogue epilogue) {
  using acc_t = Accumulate<T>;
  constexpr int kBlock = kPointwiseThreads * kPointwiseVectors * V;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kBlock;
  const int left = static_cast<int>(min(a.total - first, static_cast<int64_t>(kBlock)));
  const T* const input = static_cast<const T*>(a.input) + first;
  T* const output = static_cast<T*>(a.output) + first;
  const int thread = static_cast<int>(threadIdx.x);

  // The vectors of this thread: ahead(j) elements after the block's first one
  auto ahead = [&](int j) { return (j * kPointwiseThreads + thread) * V; };
  auto whole = [&](int j) { return ahead(j) + V <= left; };
  Packed<T, V> data[kPointwiseVectors];
#pragma unroll
  for (int j = 0; j < kPointwiseVectors; ++j) {
    data[j].clear();
    if (whole(j)) data[j].load(input + ahead(j));
  }
  const acc_t tap = a.kernel ? *static_cast<const acc_t*>(a.kernel)
                             : *static_cast<const acc_t*>(a.taps_x) *
                                   *static_cast<const acc_t*>(a.taps_y);

  if constexpr (Epilogue::kActive) {
    // The operand that a whole vector inside a line has in common, on its way too: the bias
    // of its plane; channels_last: the noise of its pixel. The other one, of V numbers, would
    // take too many registers so early, and comes from a cache but for its first reader.
    const LineIndex start(a, first);
    LineIndex index[kPointwiseVectors];
    acc_t common[kPointwiseVectors], scale[kPointwiseVectors];
#pragma unroll
    for (int j = 0; j < kPointwiseVectors; ++j) {
      const LineIndex at = start.after(a, ahead(j));
      common[j] = acc_t(0);
      scale[j] = acc_t(1);
      if (whole(j)) {
        common[j] = kLast ? epilogue.bare_noise(at.n, at.line) : epilogue.bias(at.line);
        if (!kLast) scale[j] = epilogue.scale(at.n, at.line);
      }
      index[j] = at;
    }
    const acc_t strength = epilogue.strength();
#pragma unroll
    for (int j = 0; j < kPointwiseVectors; ++j) {
      const LineIndex& at = index[j];
      if (whole(j) && (a.whole_lines || at.offset + V <= a.line)) {
        acc_t value[V], along[V];
        if constexpr (kLast) {
          if (a.wide_operand) {
            epilogue.template bias<V>(at.offset, along);
          } else {
#pragma unroll
            for (int e = 0; e < V; ++e) along[e] = epilogue.bias(at.offset + e);
          }
        } else {
          if (a.wide_operand) {
            epilogue.template bare_noise<V>(at.n, at.offset, along);
          } else {
#pragma unroll
            for (int e = 0; e < V; ++e) along[e] = epilogue.bare_noise(at.n, at.offset + e);
          }
        }
#pragma unroll
        for (int e = 0; e < V; ++e) {
          value[e] = epilogue(tap * data[j].get(e),
                              kLast ? epilogue.scale(at.n, at.offset + e) : scale[j],
                              strength * (kLast ? common[j] : along[e]),
                              kLast ? along[e] : common[j]);
        }
        data[j].set(value);
        data[j].store(output + ahead(j));
      }
    }

    // The others: across lines, or the last elements of all, of which there are none where
    // lines are whole. Rare, and so one short loop.
    if (a.whole_lines) return;
#pragma unroll 1
    for (int j = 0; j < kPointwiseVectors; ++j) {
      if (whole(j) && start.after(a, ahead(j)).offset + V <= a.line) continue;
      const int end = min(ahead(j) + V, left);
#pragma unroll 1
      for (int i = ahead(j); i < end; ++i) {
        const LineIndex at = start.after(a, i);
        const int position = kLast ? at.line : at.offset;
        const int channel = kLast ? at.offset : at.line;
        output[i] = from_accumulate<T>(epilogue(tap * to_accumulate(input[i]),
                                                epilogue.scale(at.n, channel),
                                                epilogue.noise(at.n, position),
                                                epilogue.bias(channel)));
      }
    }
  } else {
#pragma unroll
    for (int j = 0; j < kPointwiseVectors; ++j) {
      if (whole(j)) {
        acc_t value[V];
#pragma unroll
        for (int e = 0; e < V; ++e) value[e] = tap * data[j].get(e);
        data[j].set(value);
        data[j].store(output + ahead(j));
      } else {
        const int end = min(ahead(j) + V, left);
#pragma unroll 1
        for (int i = ahead(j); i < end; ++i) {
          output[i] = from_accumulate<T>(tap * to_accumulate(input[i]));
        }
      }
    }
  }
}

}  // namespace resample_layers
