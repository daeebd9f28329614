// SPDX-License-Identifier: BSD-3-Clause
//
// Everything that happens once per call: choose the vector units, reduce both
// axes to polyphase form, cut the work into tiles that fit the L1 cache, and
// hand units of work to the caller's threads.
#include "upfirdn2d_cpu.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "plan.h"

namespace resample_layers {
namespace cpu {
namespace {

// ---------------------------------------------------------------- vector units

struct Capability {
  const Kernels* kernels = &baseline_kernels;
  std::string text = "baseline";
};

const Capability& capability() {
  static const Capability chosen = [] {
    Capability best;
    std::vector<Capability> offered{best};
#ifdef RESAMPLE_LAYERS_CPU_LEVELS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c")) {
      offered.push_back({&avx2_kernels, "avx2"});
      if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        offered.push_back({&avx512_kernels, "avx512"});
      }
    }
#endif
    best = offered.back();
    const char* wanted = std::getenv("RESAMPLE_LAYERS_CPU");
    if (wanted == nullptr || *wanted == '\0') return best;
    std::string names;
    for (const Capability& one : offered) {
      if (one.text == wanted) return one;
      names += (names.empty() ? "" : ", ") + one.text;
    }
    best.text = "error: RESAMPLE_LAYERS_CPU=" + std::string(wanted) +
                " is not one of the vector units of this processor: " + names;
    return best;
  }();
  return chosen;
}

// ---------------------------------------------------------------- polyphase form

int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }
int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t unit) { return ceil_div(a, unit) * unit; }

// Euclid's; gcc 12.2 at -O3 was seen to compile std::gcd of signed numbers wrong.
int64_t common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

struct AxisTables {
  std::vector<int64_t> shift, taps, weight, offset, tap_phase, tap_pixel;
};

AxisPlan make_axis(int64_t up, int64_t down, int64_t taps, int64_t pad, int64_t out_size,
                   AxisTables& tables) {
  const int64_t common = common_divisor(up, down);
  AxisPlan axis{};
  axis.classes = up / common;
  axis.step = down / common;
  axis.groups = ceil_div(out_size, axis.classes);
  axis.up = up;

  // Output q reads the upsampled signal from q * down - pad on; its first tap is
  // the first place there that holds a sample.
  std::vector<int64_t> base(axis.classes);
  int64_t low = INT64_MAX, high = INT64_MIN, used = 0;
  for (int64_t q = 0; q < axis.classes; ++q) {
    const int64_t start = q * down - pad;
    base[q] = floor_div(start + up - 1, up);
    const int64_t offset = base[q] * up - start;
    const int64_t count = offset < taps ? (taps - 1 - offset) / up + 1 : 0;
    tables.offset.push_back(offset);
    tables.taps.push_back(count);
    tables.weight.push_back(used);
    used += count;
    if (count > 0) {
      low = std::min(low, base[q]);
      high = std::max(high, base[q] + count);
    }
  }
  axis.first = used > 0 ? low : 0;
  axis.span = used > 0 ? high - low : 1;
  for (int64_t q = 0; q < axis.classes; ++q) {
    tables.shift.push_back(tables.taps[q] > 0 ? base[q] - axis.first : 0);
  }
  axis.shift = tables.shift.data();
  axis.taps = tables.taps.data();
  axis.weight = tables.weight.data();
  axis.offset = tables.offset.data();
  return axis;
}

// Taps in reading order are the kernel backwards (a true convolution), and the
// kernel as it stands where it is flipped.
template <class A>
A tap_of(const A* kernel, int64_t taps, int64_t s, bool flip) {
  return kernel[flip ? s : taps - 1 - s];
}

template <class A>
std::vector<A> weights_of(const AxisPlan& axis, const void* taps, int64_t count, bool flip) {
  std::vector<A> weights;
  for (int64_t q = 0; q < axis.classes; ++q) {
    for (int64_t t = 0; t < axis.taps[q]; ++t) {
      const int64_t s = axis.offset[q] + t * axis.up;
      weights.push_back(tap_of(static_cast<const A*>(taps), count, s, flip));
    }
  }
  return weights;
}

template <class A>
std::vector<A> weights_of(const AxisPlan& y, const AxisPlan& x, const UpFirDn2dParams& params) {
  std::vector<A> weights;
  const A* kernel = static_cast<const A*>(params.kernel);
  for (int64_t qy = 0; qy < y.classes; ++qy) {
    for (int64_t qx = 0; qx < x.classes; ++qx) {
      for (int64_t i = 0; i < y.taps[qy]; ++i) {
        for (int64_t j = 0; j < x.taps[qx]; ++j) {
          const int64_t row = (y.offset[qy] + i * y.up), column = (x.offset[qx] + j * x.up);
          weights.push_back(kernel[(params.flip ? row : params.kh - 1 - row) * params.kw +
                                   (params.flip ? column : params.kw - 1 - column)]);
        }
      }
    }
  }
  return weights;
}

// Where the taps in x find their samples in a fetched row, split into phases or not.
void place_taps(Plan& plan, AxisTables& tables) {
  const AxisPlan& x = plan.x;
  const int64_t phases = plan.pixelwise ? 1 : x.step;
  for (int64_t q = 0; q < x.classes; ++q) {
    for (int64_t t = 0; t < x.taps[q]; ++t) {
      tables.tap_phase.push_back((x.shift[q] + t) % phases);
      tables.tap_pixel.push_back((x.shift[q] + t) / phases);
    }
  }
  if (plan.paired) {
    tables.tap_phase.resize(2 * x.taps[0]);
    tables.tap_pixel.resize(2 * x.taps[0]);
  }
  plan.tap_count = int64_t(tables.tap_phase.size());
  plan.tap_phase = tables.tap_phase.data();
  plan.tap_pixel = tables.tap_pixel.data();
}

// ---------------------------------------------------------------- tiles

// Budgets, measured on a core with 48 KB of L1 and 2 MB of L2 cache. Fetched rows
// that stay for many output rows; fetched rows beside the row buffer; and rows that
// are read where they lie: wider tiles, since each part of a row that is cut costs
// the processor's prefetching a new start.
constexpr int64_t kTileBytes = 24 * 1024;
constexpr int64_t kSeparableBytes = 48 * 1024;
constexpr int64_t kDirectBytes = 96 * 1024;
// Elements of a block of rows: between the cost of a call and lost overlap.
constexpr int64_t kBlockElements = 1024;
// The same for streams, which also keep open rows: a row, and a block.
constexpr int64_t kStreamRow = 1024;
constexpr int64_t kStreamElements = 2048;
// What copying pixels in 16-byte pieces may write too many, in elements.
constexpr int64_t kPieceSlack = 4;
// Pixels of this size and more fill vectors of their own.
constexpr int64_t kPixelwiseBytes = 64;
// Inputs and outputs of this size and more come from memory: there prefetching gains
// 10 to 20 %; it costs 5 % where a cache holds them.
constexpr int64_t kFarBytes = 32 << 20;
// A thread's scratch up to this size is on its stack, above on the heap.
constexpr int64_t kStackBytes = 128 * 1024;

// Pixels in scratch: long ones read and write memory in long runs, which pays where
// few of them are kept; else they are cut, so that scratch stays in the L2 cache.
constexpr int64_t kPixelBytes = 4096;
constexpr int64_t kKeptPixelBytes = 1024;
constexpr int64_t kFewPixels = 64;  // that an output reaches over

// Channels of one tile where channels lie next to each other: all of them up to
// `bytes`, then equal parts of at least half of that.
int64_t tile_channels(int64_t channels, int64_t element, int64_t bytes) {
  const int64_t most = bytes / element;
  if (channels <= most) return channels;
  return round_up(ceil_div(channels, ceil_div(channels, most)), 64 / element);
}

bool channels_last(const Plane4d& a) { return a.stride_c == 1 && a.c > 1 && a.stride_w >= a.c; }

bool is_half(Dtype dtype) { return dtype == Dtype::float16 || dtype == Dtype::bfloat16; }

// How a separable kernel reads and writes its rows; see Plan.
void choose_passes(Plan& plan, Dtype dtype) {
  if (!plan.separable) return;
  const AxisPlan& x = plan.x;
  const bool wide = !is_half(dtype);
  const bool adjacent = plan.channels > 1 ? plan.in.stride_c == 1 : plan.in.stride_w == 1;
  const bool dense = adjacent && (plan.channels == 1 || plan.in.stride_w == plan.channels);
  const bool whole_pixels = plan.channels == 1 || plan.out.stride_w == plan.channels;
  plan.direct = wide && adjacent;
  plan.paired = dtype == Dtype::bfloat16 && dense && whole_pixels && x.classes == 1 &&
                x.step == 1 && x.taps[0] >= 1 && x.taps[0] <= 8;
  plan.joined = plan.paired || (plan.channels == 1 && x.classes == 2 && x.taps[0] >= 1 &&
                                x.taps[0] == x.taps[1] && x.taps[0] <= 8);

  // Streaming wants the same rate, 1:1, 2:1 or 1:2, and the same taps on both axes and
  // in each class; and outputs that lie side by side.
  const AxisPlan& y = plan.y;
  const int64_t taps = x.taps[0];
  plan.streamed = !wide && plan.epilogue == nullptr && x.classes == y.classes &&
                  x.step == y.step && x.classes <= 2 && x.step <= 2 && x.classes * x.step <= 2 &&
                  taps > x.step && taps * x.classes <= 8 &&
                  (plan.channels == 1 || (x.classes * x.step == 1 && whole_pixels));
  for (int64_t q = 0; q < x.classes; ++q) {
    plan.streamed = plan.streamed && x.taps[q] == taps && y.taps[q] == taps;
  }
  const bool split_late = x.step > 1 && plan.channels > 1 && !plan.pixelwise;
  plan.margins_fetched = !plan.direct && !split_late;
}

// Pixels of two vectors and more, read where they lie: the same rates and taps on both
// axes, and only the usual numbers of taps. The sums want 32 registers; with 16 it pays
// for 16-bit types alone, and not for rate 2:1.
bool slides(const Plan& plan, const UpFirDn2dParams& params, int64_t vector_bytes,
            int64_t element) {
  const AxisPlan &x = plan.x, &y = plan.y;
  const bool fits =
      vector_bytes == 64 || (vector_bytes == 32 && is_half(params.dtype) && x.classes == 1);
  bool usual = fits && plan.separable && channels_last(params.out) && params.in.stride_c == 1 &&
               2 * vector_bytes <= params.out.c * element && x.classes == y.classes &&
               x.step == y.step && x.classes * x.step <= 2;
  for (int64_t q = 0; usual && q < x.classes; ++q) {
    for (const int64_t taps : {x.taps[q], y.taps[q]}) {
      usual = usual && taps == x.taps[0] && (x.classes == 2 ? taps == 2 : taps == 3 || taps == 4);
    }
  }
  return usual;
}

// Whole rows of whole pixels, and no scratch for them.
void place_sliding(Plan& plan, int64_t stored) {
  plan.channels = plan.in.c;
  plan.channel_tiles = plan.x_tiles = 1;
  plan.tile_groups = plan.x.groups;
  plan.most_lead = 1;
  plan.far = plan.in.n * plan.in.c * stored *
                 (plan.in.h * plan.in.w + plan.out.h * plan.out.w) >= kFarBytes;
  plan.scratch_elements = 2 * plan.tap_count;
}

// The widest tile within the budget of its kind.
void cut_columns(Plan& plan, int64_t element, bool gradient) {
  const AxisPlan &x = plan.x, &y = plan.y;
  const bool kept = !plan.separable || gradient;
  const int64_t rows = kept ? y.span + std::max(2 * y.step, y.span) : y.span + 2;
  const int64_t bytes = kept ? kTileBytes : plan.direct ? kDirectBytes : kSeparableBytes;
  int64_t row_elements = bytes / element / rows;
  if (plan.streamed) row_elements = plan.channels > 1 ? kStreamRow / 2 : kStreamRow;
  const int64_t per_pixel = plan.channels * std::max(x.step, x.classes);
  const int64_t least = plan.channels > 1 ? ceil_div(4 * x.span, x.step) : 64;
  int64_t groups = std::max(least, row_elements / per_pixel);
  groups = std::min(groups, x.groups);
  plan.x_tiles = ceil_div(x.groups, groups);
  plan.tile_groups = ceil_div(x.groups, plan.x_tiles);
  if (plan.channels == 1 && plan.x_tiles > 1) plan.tile_groups = round_up(plan.tile_groups, 16);
  plan.x_tiles = ceil_div(x.groups, plan.tile_groups);

  // Pitches: rows long enough to afford it begin on a cache line.
  const int64_t pixels = x.step * (plan.tile_groups - 1) + x.span;
  const int64_t phases = plan.paired ? 2 : plan.pixelwise ? 1 : x.step;
  plan.phase_pitch = plan.paired ? ceil_div(pixels * plan.channels, 2)
                                 : ceil_div(pixels, phases) * plan.channels;
  if (plan.channels > 1) plan.phase_pitch += kPieceSlack;
  plan.most_lead = plan.phase_pitch >= 64 ? 16 : 1;
  plan.phase_pitch = round_up(plan.phase_pitch + plan.most_lead - 1, plan.most_lead);
  plan.slot_pitch = phases * plan.phase_pitch;
  plan.line_pitch = round_up(pixels * plan.channels, 16);
}

// Units of work: every tile, cut further along y until there are a few for each
// thread, but not so short that the rows shared by neighbours cost much.
void cut_rows(Plan& plan, int64_t wanted_units) {
  const int64_t tiles = plan.in.n * plan.channel_tiles * plan.x_tiles;
  const int64_t least = std::max<int64_t>(4, ceil_div(4 * plan.y.span, plan.y.step));
  const int64_t units = std::min(ceil_div(wanted_units, tiles), ceil_div(plan.y.groups, least));
  plan.unit_groups = ceil_div(plan.y.groups, std::max<int64_t>(1, units));
  plan.y_units = ceil_div(plan.y.groups, plan.unit_groups);
}

void lay_out_scratch(Plan& plan, int64_t element, bool gradient) {
  const AxisPlan &x = plan.x, &y = plan.y;
  const bool kept = !plan.separable || gradient;
  if (gradient) {
    plan.row_slots = y.span;
  } else if (kept) {
    const int64_t fitting = kTileBytes / element / plan.slot_pitch;
    plan.row_slots = std::max(y.span + std::max(2 * y.step, y.span), fitting);
    plan.row_slots = std::min(plan.row_slots, y.step * (y.groups - 1) + y.span);
    plan.block_groups = (plan.row_slots - y.span) / y.step + 1;
  } else {
    const int64_t least = plan.streamed ? 4 / y.step : 1;
    const int64_t fitting = plan.streamed ? kStreamElements / (plan.slot_pitch * y.step)
                                          : kBlockElements / plan.slot_pitch;
    plan.block_groups = std::min(std::max(least, fitting), y.groups);
    plan.row_slots = (plan.streamed ? y.step : y.span) + y.step * (plan.block_groups - 1);
  }
  // Sums wait in L1 for the epilogue: short blocks of them.
  const bool finished = plan.epilogue != nullptr;
  plan.done_pitch = round_up(x.classes * plan.tile_groups * plan.channels, 16);
  if (finished) {
    const int64_t fitting = std::max<int64_t>(1, kBlockElements / plan.done_pitch);
    plan.block_groups = std::min(plan.block_groups, fitting);
  }
  int64_t power = 1;
  while (power < plan.row_slots) power *= 2;
  plan.row_slots = power;

  int64_t at = 0;
  const auto take = [&at](int64_t elements) {
    const int64_t here = at;
    at += round_up(elements, 16);
    return here;
  };
  const int64_t rows = kept ? 1 : plan.block_groups;
  const int64_t pixels = std::max(plan.line_pitch, x.classes * plan.tile_groups * plan.channels);
  const bool by_phases = plan.streamed || (!plan.pixelwise && !plan.joined && x.classes > 1);
  plan.slots_at = take(plan.direct ? 0 : plan.row_slots * plan.slot_pitch + kSlack);
  plan.buffer_at = take(kept ? 0 : rows * plan.slot_pitch + kSlack);
  plan.phase_stride = plan.tile_groups * plan.channels;
  if (!plan.streamed) plan.phase_stride = std::max(plan.phase_stride, rows * plan.slot_pitch);
  plan.phase_stride = round_up(plan.phase_stride + kSlack, 16);
  // Phases of the output; or the rows that a stream has open, at most 7 or 2 * 3 * 2.
  const int64_t phase_rows = plan.streamed ? 14 : x.classes;
  plan.phases_at = take(by_phases && !gradient ? phase_rows * plan.phase_stride : 0);
  plan.line_at = take(std::max(pixels, rows * plan.line_pitch) + kSlack);
  plan.zeros_at = take(kept ? 0 : std::max(plan.slot_pitch, plan.line_pitch) + kSlack);
  plan.places_at = take(2 * plan.tap_count);
  plan.done_at = take(finished ? plan.block_groups * plan.done_pitch + kSlack : 0);
  plan.addends_at = take(finished ? plan.done_pitch + kSlack : 0);
  plan.biases_at = take(finished ? plan.channels + kSlack : 0);
  plan.grad_at = take(gradient ? x.classes * plan.phase_stride : 0);
  int64_t taps = 0, most_y = 0, most_x = 0;
  for (int64_t qy = 0; qy < y.classes; ++qy) {
    most_y = std::max(most_y, y.taps[qy]);
    for (int64_t qx = 0; qx < x.classes; ++qx) taps += y.taps[qy] * x.taps[qx];
  }
  for (int64_t qx = 0; qx < x.classes; ++qx) most_x = std::max(most_x, x.taps[qx]);
  plan.sums_at = take(gradient ? taps * 16 : 0);
  plan.scratch_elements = at;
  plan.pointer_count = kept ? most_x * most_y : std::max(2 * most_x, most_y);
}

// ---------------------------------------------------------------- running units

struct Call {
  const Plan* plan;
  const Kernels* kernels;
  int dtype;
  int64_t element;
  // The kernel's gradient: chunks of units with a row of partial sums each.
  int64_t units, chunks, kh, kw;
  double* sums;
};

template <class Run>
void with_heap(const Call& call, const Run& run) {
  const Plan& plan = *call.plan;
  const int64_t bytes = plan.scratch_elements * call.element;
  std::vector<const void*> pointers(plan.pointer_count);
  std::unique_ptr<char[]> memory(new char[bytes + 64]);
  char* aligned = memory.get() + (64 - reinterpret_cast<uintptr_t>(memory.get()) % 64);
  run(aligned, pointers.data());
}

template <class Run>
void with_stack(const Run& run) {
  alignas(64) char memory[kStackBytes];
  const void* pointers[64];
  run(memory, pointers);
}

template <class Run>
void with_scratch(const Call& call, const Run& run) {
  const Plan& plan = *call.plan;
  if (plan.scratch_elements * call.element <= kStackBytes && plan.pointer_count <= 64) {
    with_stack(run);
  } else {
    with_heap(call, run);
  }
}

void run_upfirdn2d(int64_t begin, int64_t end, void* context) {
  const Call& call = *static_cast<const Call*>(context);
  with_scratch(call, [&](void* scratch, const void** pointers) {
    call.kernels->upfirdn2d[call.dtype](*call.plan, begin, end, scratch, pointers);
  });
}

void run_kernel_grad(int64_t begin, int64_t end, void* context) {
  const Call& call = *static_cast<const Call*>(context);
  with_scratch(call, [&](void* scratch, const void** pointers) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      call.kernels->kernel_grad[call.dtype](
          *call.plan, call.units * chunk / call.chunks, call.units * (chunk + 1) / call.chunks,
          scratch, pointers, call.sums + chunk * call.kh * call.kw, call.kw);
    }
  });
}

template <class A>
void upfirdn2d(const UpFirDn2dParams& params, const EpilogueParams* epilogue,
               ParallelFor parallel_for, int num_threads) {
  // Both axes, and the weights in the order in which they are met.
  Plan plan{};
  AxisTables tables_x, tables_y;
  plan.input = params.input;
  plan.output = params.output;
  plan.epilogue = epilogue;
  plan.in = params.in;
  plan.out = params.out;
  plan.x = make_axis(params.up_x, params.down_x, params.kw, params.pad_x0, params.out.w,
                     tables_x);
  plan.y = make_axis(params.up_y, params.down_y, params.kh, params.pad_y0, params.out.h,
                     tables_y);
  plan.separable = params.kernel == nullptr;
  std::vector<A> weights_x, weights_y;
  if (plan.separable) {
    weights_x = weights_of<A>(plan.x, params.taps_x, params.kw, params.flip);
    weights_y = weights_of<A>(plan.y, params.taps_y, params.kh, params.flip);
    plan.weights_y = weights_y.data();
  } else {
    weights_y = weights_of<A>(plan.y, plan.x, params);
    plan.weights_xy = weights_y.data();
  }

  // Tiles follow the output's memory: whole rows of a channel, or of all channels.
  const bool last = channels_last(params.out);
  const bool in_place = plan.separable && !is_half(params.dtype) && params.in.stride_c == 1;
  const bool few = in_place || plan.x.span * plan.y.span <= kFewPixels;
  plan.channels =
      last ? tile_channels(params.out.c, sizeof(A), few ? kPixelBytes : kKeptPixelBytes) : 1;
  plan.channel_tiles = ceil_div(params.out.c, plan.channels);
  plan.pixelwise = plan.channels * int64_t(sizeof(A)) >= kPixelwiseBytes &&
                   (plan.x.classes > 1 || plan.x.step > 1);
  choose_passes(plan, params.dtype);
  if (plan.paired) weights_x.insert(weights_x.end(), weights_x.begin(), weights_x.end());
  plan.weights_x = weights_x.data();
  place_taps(plan, tables_x);
  plan.sliding = slides(plan, params, capability().kernels->vector_bytes, sizeof(A));
  if (plan.sliding) place_sliding(plan, is_half(params.dtype) ? 2 : sizeof(A));
  else cut_columns(plan, sizeof(A), false);
  cut_rows(plan, num_threads > 1 ? 8 * int64_t(num_threads) : 1);
  if (!plan.sliding) lay_out_scratch(plan, sizeof(A), false);

  const int64_t units = plan.in.n * plan.channel_tiles * plan.x_tiles * plan.y_units;
  const int64_t elements = params.out.n * params.out.c *
                           (params.out.h * params.out.w + params.in.h * params.in.w);
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, elements / units));
  Call call{&plan, capability().kernels, int(params.dtype), sizeof(A), 0, 0, 0, 0, nullptr};
  if (num_threads <= 1 || units <= grain) run_upfirdn2d(0, units, &call);
  else parallel_for(units, grain, run_upfirdn2d, &call);
}

template <class A>
void kernel_grad(const KernelGradParams& params, ParallelFor parallel_for, int num_threads) {
  Plan plan{};
  AxisTables tables_x, tables_y;
  plan.input = params.input;
  plan.grad = params.grad;
  plan.in = params.in;
  plan.out = params.out;
  plan.x = make_axis(params.up_x, params.down_x, params.kw, params.pad_x0, params.out.w,
                     tables_x);
  plan.y = make_axis(params.up_y, params.down_y, params.kh, params.pad_y0, params.out.h,
                     tables_y);
  plan.channels =
      channels_last(params.in) ? tile_channels(params.in.c, sizeof(A), kKeptPixelBytes) : 1;
  plan.channel_tiles = ceil_div(params.in.c, plan.channels);
  place_taps(plan, tables_x);
  cut_columns(plan, sizeof(A), true);
  // At most 64 rows go into one sum in float; the number of units and of chunks
  // follows from the shapes alone.
  plan.unit_groups = std::min<int64_t>(plan.y.groups, 64);
  plan.y_units = ceil_div(plan.y.groups, plan.unit_groups);
  lay_out_scratch(plan, sizeof(A), true);

  Call call{&plan, capability().kernels, int(params.dtype), sizeof(A), 0, 0, 0, 0, nullptr};
  call.kh = params.kh;
  call.kw = params.kw;
  call.units = plan.in.n * plan.channel_tiles * plan.x_tiles * plan.y_units;
  call.chunks = std::min<int64_t>(call.units, 64);
  const int64_t size = params.kh * params.kw;
  std::vector<double> sums(call.chunks * size, 0.0);
  call.sums = sums.data();
  const int64_t work = params.out.n * params.out.c * params.out.h * params.out.w;
  if (num_threads <= 1 || work < 16384) run_kernel_grad(0, call.chunks, &call);
  else parallel_for(call.chunks, 1, run_kernel_grad, &call);

  // Taps were numbered in reading order: backwards in the kernel.
  A* to = static_cast<A*>(params.kernel_grad);
  for (int64_t s = 0; s < size; ++s) {
    double total = 0;
    for (int64_t chunk = 0; chunk < call.chunks; ++chunk) total += sums[chunk * size + s];
    to[size - 1 - s] = A(total);
  }
}

}  // namespace
}  // namespace cpu

void upfirdn2d_cpu(const UpFirDn2dParams& params, const EpilogueParams* epilogue,
                   ParallelFor parallel_for, int num_threads) {
  if (params.out.n * params.out.c * params.out.h * params.out.w == 0) return;
  const bool wide = params.dtype == Dtype::float64;
  (wide ? cpu::upfirdn2d<double> : cpu::upfirdn2d<float>)(params, epilogue, parallel_for,
                                                          num_threads);
}

void upfirdn2d_kernel_grad_cpu(const KernelGradParams& params, ParallelFor parallel_for,
                               int num_threads) {
  const bool wide = params.dtype == Dtype::float64;
  if (params.out.n * params.out.c * params.out.h * params.out.w == 0) {
    std::memset(params.kernel_grad, 0, size_t(params.kh * params.kw) * (wide ? 8 : 4));
  } else if (wide) {
    cpu::kernel_grad<double>(params, parallel_for, num_threads);
  } else {
    cpu::kernel_grad<float>(params, parallel_for, num_threads);
  }
}

const char* cpu_capability() { return cpu::capability().text.c_str(); }

}  // namespace resample_layers
