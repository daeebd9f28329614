// SPDX-License-Identifier: BSD-3-Clause
//
// From params to the arguments of the pointwise and the generic kernel and of the
// kernel's gradient.
// Host code without a CUDA call, as table.cuh.
#pragma once

#include <limits>

#include "generic.cuh"
#include "kernel_grad.cuh"
#include "pointwise.cuh"
#include "choose.cuh"

namespace resample_layers {

inline int64_t elements(const Plane4d& p) { return p.n * p.c * p.h * p.w; }

// Offset of the last element, plus one.
inline int64_t extent(const Plane4d& p) {
  return (p.n - 1) * p.stride_n + (p.c - 1) * p.stride_c + (p.h - 1) * p.stride_h +
         (p.w - 1) * p.stride_w + 1;
}

inline bool channels_innermost(const Plane4d& out) {
  return out.c > 1 && out.stride_c == 1 && (out.w > 1 || out.h > 1);
}

// Do all offsets and upsampled positions fit in 32 bits? Of the op, or of its kernel's gradient.
template <class Params>
bool fits_32_bits(const Params& p) {
  const int64_t limit = std::numeric_limits<int32_t>::max() / 2;
  auto axis = [&](int64_t in, int64_t out, int64_t up, int64_t down, int64_t pad, int64_t k) {
    return up < limit && down < limit && k < limit && std::abs(pad) < limit / 4 &&
           in < limit / up && out < limit / 4 / down;
  };
  return extent(p.in) < limit && extent(p.out) < limit && p.kh * p.kw < limit &&
         axis(p.in.w, p.out.w, p.up_x, p.down_x, p.pad_x0, p.kw) &&
         axis(p.in.h, p.out.h, p.up_y, p.down_y, p.pad_y0, p.kh);
}

template <class Index>
GenericArgs<Index> make_generic_args(const UpFirDn2dParams& p) {
  auto index = [](int64_t value) { return static_cast<Index>(value); };
  // Of an axis of one element the stride is never used, and may not fit.
  auto stride = [&](int64_t size, int64_t value) { return index(size == 1 ? 0 : value); };
  GenericArgs<Index> a{};
  a.input = p.input, a.output = p.output;
  a.total = index(elements(p.out));
  a.c = index(p.out.c), a.out_h = index(p.out.h), a.out_w = index(p.out.w);
  a.in_stride_n = stride(p.in.n, p.in.stride_n), a.in_stride_c = stride(p.in.c, p.in.stride_c);
  a.out_stride_n = stride(p.out.n, p.out.stride_n);
  a.out_stride_c = stride(p.out.c, p.out.stride_c);
  a.out_stride_h = stride(p.out.h, p.out.stride_h);
  a.out_stride_w = stride(p.out.w, p.out.stride_w);
  Filter<Index>& f = a.filter;
  f.kernel = p.kernel, f.taps_x = p.taps_x, f.taps_y = p.taps_y;
  f.kh = index(p.kh), f.kw = index(p.kw);
  f.up_x = index(p.up_x), f.up_y = index(p.up_y);
  f.down_x = index(p.down_x), f.down_y = index(p.down_y);
  f.pad_x0 = index(p.pad_x0), f.pad_y0 = index(p.pad_y0);
  f.in_h = index(p.in.h), f.in_w = index(p.in.w);
  f.in_stride_h = stride(p.in.h, p.in.stride_h), f.in_stride_w = stride(p.in.w, p.in.stride_w);
  f.flip = p.flip;
  a.channels_innermost = channels_innermost(p.out);
  return a;
}

inline unsigned generic_blocks(const UpFirDn2dParams& p) {
  return static_cast<unsigned>(std::min<int64_t>(ceil_div(elements(p.out), 256), 0x7fffffff));
}

// One launch of the pointwise kernel.
struct PointwisePlan {
  bool vectors;        // 16 bytes an access; false: one element
  bool channels_last;  //
  unsigned blocks;
  PointwiseArgs args;
};

// For a call that it serves. epilogue: null for the plain op.
inline PointwisePlan plan_pointwise(const UpFirDn2dParams& p, const EpilogueParams* epilogue) {
  PointwisePlan plan{};
  Layout layout = Layout::contiguous;
  serves_pointwise(p, &layout);
  const bool last = layout == Layout::channels_last;
  const int64_t size = p.dtype == Dtype::float64 ? 8 : p.dtype == Dtype::float32 ? 4 : 2;
  plan.channels_last = last;
  // Where lines are short and no vector fits them (three channels, channels_last), most
  // vectors would cross from line to line.
  const int64_t pixels = p.out.h * p.out.w, line = last ? p.out.c : pixels;
  const int64_t widest = 16 / size;
  const bool fit = epilogue == nullptr || line % widest == 0 || line >= 8 * widest;
  plan.vectors = fit && multiple(p.input, 16) && multiple(p.output, 16);
  const int64_t vector = plan.vectors ? widest : 1;

  PointwiseArgs& a = plan.args;
  a.input = p.input, a.output = p.output;
  a.kernel = p.kernel, a.taps_x = p.taps_x, a.taps_y = p.taps_y;
  a.total = elements(p.out);
  a.line = static_cast<int>(line);
  a.lines = static_cast<int>(last ? pixels : p.out.c);
  // The operand that varies along a line: a null one is aligned to anything
  const void* const along =
      epilogue == nullptr ? nullptr : last ? epilogue->bias : epilogue->noise;
  a.whole_lines = a.line % vector == 0;
  a.wide_operand = a.whole_lines && multiple(along, 16);
  // At most 2^31 blocks of 1024 elements or more: beyond any memory
  plan.blocks = static_cast<unsigned>(
      ceil_div(a.total, int64_t{kPointwiseThreads} * kPointwiseVectors * vector));
  return plan;
}

template <class T, class Epilogue>
using PointwiseKernel = void (*)(PointwiseArgs, Epilogue);

// Without an epilogue nothing depends on the layout.
template <class T, class Epilogue>
PointwiseKernel<T, Epilogue> pointwise_kernel_of(const PointwisePlan& plan) {
  constexpr int kVector = 16 / static_cast<int>(sizeof(T));
  if constexpr (Epilogue::kActive) {
    if (plan.channels_last) {
      return plan.vectors ? pointwise_kernel<T, kVector, true, Epilogue>
                          : pointwise_kernel<T, 1, true, Epilogue>;
    }
  }
  return plan.vectors ? pointwise_kernel<T, kVector, false, Epilogue>
                      : pointwise_kernel<T, 1, false, Epilogue>;
}

// As many chunks as the size asks for, whatever the device: the order of the sum must
// not depend on it. With many taps there are blocks enough without many chunks, each of
// which takes a partial sum for every tap.
inline int grad_chunks(const KernelGradParams& p) {
  const int64_t wanted = ceil_div(elements(p.out), kGradThreads * 8);
  const int64_t most = std::min<int64_t>(kGradMaxChunks, kGradWorkspace / (p.kh * p.kw));
  return static_cast<int>(std::max<int64_t>(1, std::min(wanted, most)));
}

// Groups of taps: the grid has a block for each group and chunk. At most 2^31 blocks, with
// 2^34 taps in one chunk: beyond any memory.
inline int64_t grad_tap_groups(const KernelGradParams& p) {
  return ceil_div(p.kh * p.kw, kGradTaps);
}

inline unsigned grad_blocks(const KernelGradParams& p) {
  return static_cast<unsigned>(grad_chunks(p) * grad_tap_groups(p));
}

template <class Index>
KernelGradArgs<Index> make_kernel_grad_args(const KernelGradParams& p, void* workspace) {
  auto index = [](int64_t value) { return static_cast<Index>(value); };
  // Of an axis of one element the stride is never used, and may not fit.
  auto stride = [&](int64_t size, int64_t value) { return index(size == 1 ? 0 : value); };
  KernelGradArgs<Index> a{};
  a.input = p.input, a.grad = p.grad, a.kernel_grad = p.kernel_grad, a.workspace = workspace;
  a.total = elements(p.out);
  a.c = index(p.out.c);
  a.in_h = index(p.in.h), a.in_w = index(p.in.w);
  a.out_h = index(p.out.h), a.out_w = index(p.out.w);
  a.in_stride_n = stride(p.in.n, p.in.stride_n), a.in_stride_c = stride(p.in.c, p.in.stride_c);
  a.in_stride_h = stride(p.in.h, p.in.stride_h), a.in_stride_w = stride(p.in.w, p.in.stride_w);
  a.out_stride_n = stride(p.out.n, p.out.stride_n);
  a.out_stride_c = stride(p.out.c, p.out.stride_c);
  a.out_stride_h = stride(p.out.h, p.out.stride_h);
  a.out_stride_w = stride(p.out.w, p.out.stride_w);
  a.kh = index(p.kh), a.kw = index(p.kw);
  a.up_x = index(p.up_x), a.up_y = index(p.up_y);
  a.down_x = index(p.down_x), a.down_y = index(p.down_y);
  a.pad_x0 = index(p.pad_x0), a.pad_y0 = index(p.pad_y0);
  a.groups = index(grad_tap_groups(p));
  a.chunks = grad_chunks(p);
  a.channels_innermost = channels_innermost(p.out);
  return a;
}

}  // namespace resample_layers
