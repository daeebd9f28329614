// SPDX-License-Identifier: BSD-3-Clause
//
// What both ways through filtered_act (filtered_act_cpu.cpp, filtered_act_signals.cpp) share:
// which samples of one array along an axis follow from which of another, how an axis is cut
// into parts, and the sums of channels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "../filtered_act.h"
#include "ranges.h"
#include "upfirdn2d_cpu.h"

namespace resample_layers {
namespace cpu {

inline int64_t round_up(int64_t a, int64_t unit) { return ceil_div(a, unit) * unit; }
inline int64_t clamped(int64_t a, int64_t low, int64_t high) {
  return std::min(std::max(a, low), high);
}

inline int64_t common_divisor(int64_t a, int64_t b) {
  return b == 0 ? a : common_divisor(b, a % b);
}

inline int64_t element_size(Dtype dtype) {
  return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2;
}

// ---------------------------------------------------------------- ranges

inline Range hull(Range a, Range b) { return {std::min(a.begin, b.begin), std::max(a.end, b.end)}; }

// The samples that the indices of a range mean where the ends of the array are continued;
// where zeros are, the samples among them, and one that is not used where there are none.
inline Range existing(Range a, int64_t size) {
  const int64_t begin = clamped(a.begin, 0, size - 1);
  return {begin, std::max(begin + 1, std::min(a.end, size))};
}

// One axis of a call.
struct Axis {
  int64_t in, mid, out;  // sizes of input, m and output
  int64_t up, down, up_taps, down_taps, up_pad, down_pad;
  bool replicate;

  // What is read for a range of the other array; at least one index.
  Range mid_for_out(Range o) const {
    return {o.begin * down - down_pad, (o.end - 1) * down - down_pad + down_taps};
  }
  Range in_for_mid(Range m) const {
    const int64_t begin = ceil_div(m.begin - up_pad, up);
    return {begin, std::max(begin, floor_div(m.end - 1 - up_pad + up_taps - 1, up)) + 1};
  }
  // What reads a range of the other array.
  Range mid_of_in(Range i) const {
    return {i.begin * up + up_pad - up_taps + 1, (i.end - 1) * up + up_pad + 1};
  }
  Range out_of_mid(Range m) const {
    const int64_t begin = ceil_div(m.begin + down_pad - down_taps + 1, down);
    return {begin, std::max(begin, floor_div(m.end - 1 + down_pad, down)) + 1};
  }
};

// Part of an axis of the input that a block holds: what exists, and that with the ends
// continued.
struct Source {
  Range have, span;
};

inline Source source_for_mid(const Axis& axis, Range mid) {
  const Range need = axis.in_for_mid(mid), have = existing(need, axis.in);
  return {have, axis.replicate ? hull(need, have) : have};
}

// One band or tile of the gradient.
struct GradBand {
  Range in;     // samples of the input
  Range whole;  // with those beyond the ends, whose gradients belong to the end samples
  Range mid;    // of g_m, that the input's gradient needs
  Range fresh;  // the last part of it, which the band before did not have
  Range span;   // of g_a for fresh, with what belongs to the ends of a
  Range out;    // of grad for span
  Source source;  // of the input for fresh
};

// What of m belongs to the samples from `begin` on, where m is cut among bands.
inline int64_t first_owned(const Axis& axis, int64_t begin) {
  if (begin <= 0) return 0;
  if (begin >= axis.in) return axis.mid;
  return clamped(axis.mid_of_in({begin, begin + 1}).begin, 0, axis.mid);
}

inline Range whole_of(const Axis& axis, Range in) {
  Range whole = in;
  if (axis.replicate) {
    const Range read = axis.in_for_mid({0, axis.mid});
    if (in.begin == 0) whole.begin = std::min<int64_t>(0, read.begin);
    if (in.end == axis.in) whole.end = std::max(axis.in, read.end);
  }
  return whole;
}

// The samples of m that bands of this part of the input sum up: each of m belongs to one part.
inline Range owned_by(const Axis& axis, Range in) {
  return {first_owned(axis, in.begin), first_owned(axis, in.end)};
}

inline Range grad_mid_of(const Axis& axis, Range in) {
  const Range owned = owned_by(axis, in);
  const Range mid = existing(axis.mid_of_in(whole_of(axis, in)), axis.mid);
  return owned.size() > 0 ? hull(mid, owned) : mid;
}

inline GradBand make_grad_band(const Axis& axis, Range in, const Range* in_before) {
  GradBand band;
  band.in = in;
  band.whole = whole_of(axis, in);
  band.mid = grad_mid_of(axis, in);
  band.fresh = band.mid;
  if (in_before != nullptr) {
    band.fresh.begin =
        clamped(grad_mid_of(axis, *in_before).end, band.mid.begin, band.mid.end);
  }
  band.span = band.fresh;
  if (axis.replicate && band.fresh.size() > 0) {
    const Range read = axis.mid_for_out({0, axis.out});
    if (band.fresh.begin == 0) band.span.begin = std::min<int64_t>(0, read.begin);
    if (band.fresh.end == axis.mid) band.span.end = std::max(axis.mid, read.end);
  }
  if (band.fresh.size() > 0) {
    band.out = existing(axis.out_of_mid(band.span), axis.out);
    band.source = source_for_mid(axis, band.fresh);
  } else {
    band.out = {0, 0};
    band.source = {{0, 0}, {0, 0}};
  }
  return band;
}

// ---------------------------------------------------------------- parts

// Elements of m that are worth a unit of work, and how many units are wanted at least.
constexpr int64_t kLeastElements = 16384;
constexpr int64_t kLeastUnits = 32;

// How an axis is cut: into `count` parts of `length`.
struct Parts {
  int64_t size, length, count;

  Range part(int64_t i) const { return {i * length, std::min(size, (i + 1) * length)}; }
};

inline Parts cut(int64_t size, int64_t most, int64_t multiple) {
  const int64_t count = ceil_div(size, std::max<int64_t>(1, most));
  const int64_t length = std::min(size, round_up(ceil_div(size, count), multiple));
  return {size, length, ceil_div(size, length)};
}

// ---------------------------------------------------------------- a call

// A kernel of one row or one column as the taps that it is: with taps, walks read rows in place.
template <class A>
inline Filter as_taps(Filter f) {
  static const A one = 1;
  if (f.kernel != nullptr && (f.kh == 1 || f.kw == 1)) {
    f.taps_x = f.kh == 1 ? f.kernel : &one;
    f.taps_y = f.kh == 1 ? &one : f.kernel;
    f.kernel = nullptr;
  }
  return f;
}

// Channels that are to be taken together, since a cache line of memory holds them.
inline int64_t side_by_side(const Plane4d& a, Dtype dtype) {
  return a.stride_w == 1 || a.w == 1 ? 1 : 64 / element_size(dtype);
}

// The clamp as the largest magnitude.
inline double limit_of(const FilteredActParams& p) {
  const double largest = p.dtype == Dtype::float64 ? std::numeric_limits<double>::max()
                                                   : std::numeric_limits<float>::max();
  return p.clamp >= 0 ? std::min(p.clamp, largest) : HUGE_VAL;
}

// Gives the units of a call to the threads.
inline void run_in_threads(int64_t units, const FilteredActParams& p, ParallelFor parallel_for,
                           int num_threads, void (*work)(int64_t, int64_t, void*), void* context) {
  const int64_t elements = p.in.n * p.in.c * p.mid_h * p.mid_w;
  const int64_t each = std::max<int64_t>(1, elements / units);
  const int64_t grain = std::max<int64_t>(1, kLeastElements / each);
  if (num_threads <= 1 || units <= grain) work(0, units, context);
  else parallel_for(units, grain, work, context);
}

// ---------------------------------------------------------------- sums of channels

inline bool wants_parameters(const FilteredActGradParams& p) {
  return p.grad_alpha != nullptr || p.grad_beta != nullptr;
}
inline bool wants_sums(const FilteredActGradParams& p) {
  return p.grad_bias != nullptr || wants_parameters(p);
}

// Sums of each unit's channels in double: of bias, alpha and beta. They are added up in the
// order of the units, so that results do not depend on the threads.
class ChannelSums {
 public:
  void prepare(const FilteredActGradParams& params, int64_t units, int64_t unit_channels) {
    unit_channels_ = unit_channels;
    const bool parameters = wants_parameters(params);
    const bool wanted[3] = {params.grad_bias != nullptr, parameters, parameters};
    for (int k = 0; k < 3; ++k) sums_[k].assign(wanted[k] ? size_t(units * unit_channels) : 0, 0.0);
  }

  // Where a unit adds up; null where that sum is not wanted.
  double* of(int k, int64_t unit) {
    return sums_[k].empty() ? nullptr : sums_[k].data() + unit * unit_channels_;
  }

  // Writes the gradients; first_channel(unit) is the first channel of a unit.
  template <class A, class First>
  void finish(const FilteredActGradParams& params, int64_t units, const First& first_channel) {
    void* const results[3] = {params.grad_bias, params.grad_alpha, params.grad_beta};
    std::vector<double> totals(static_cast<size_t>(params.in.c));
    for (int k = 0; k < 3; ++k) {
      if (results[k] == nullptr) continue;
      std::fill(totals.begin(), totals.end(), 0.0);
      for (int64_t unit = 0; unit < units; ++unit) {
        const int64_t channel = first_channel(unit);
        const int64_t count = std::min(unit_channels_, params.in.c - channel);
        for (int64_t c = 0; c < count; ++c) totals[channel + c] += of(k, unit)[c];
      }
      std::transform(totals.begin(), totals.end(), static_cast<A*>(results[k]),
                     [](double total) { return A(total); });
    }
  }

 private:
  std::vector<double> sums_[3];
  int64_t unit_channels_ = 0;
};

}  // namespace cpu
}  // namespace resample_layers
