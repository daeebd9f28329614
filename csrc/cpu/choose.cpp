// SPDX-License-Identifier: BSD-3-Clause
//
// Everything that is decided once per call: both axes in polyphase form, the walk
// that serves the call, and the cut into tiles that fit the caches.
#include "choose.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ranges.h"

namespace resample_layers {
namespace cpu {
namespace {

// ---------------------------------------------------------------- polyphase form

int64_t round_up(int64_t a, int64_t unit) { return ceil_div(a, unit) * unit; }

template <class A>
bool all_finite(const void* values, int64_t count) {
  const A* from = static_cast<const A*>(values);
  return values == nullptr ||
         std::all_of(from, from + count, [](A value) { return std::isfinite(value); });
}

// Euclid's; gcc 12.2 at -O3 was seen to compile std::gcd of signed numbers wrong.
int64_t common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

AxisPlan make_axis(int64_t up, int64_t down, int64_t taps, int64_t pad, int64_t out_size,
                   AxisTables& tables) {
  const int64_t common = common_divisor(up, down);
  AxisPlan axis{};
  axis.phases = up / common;
  axis.stride = down / common;
  axis.steps = ceil_div(out_size, axis.phases);
  axis.up = up;

  // Phase q reads the upsampled signal from q * down - pad on; its first tap is the
  // first one that falls on a sample.
  std::vector<int64_t> base(axis.phases);
  int64_t low = INT64_MAX, high = INT64_MIN, used = 0;
  for (int64_t q = 0; q < axis.phases; ++q) {
    const int64_t start = q * down - pad;
    base[q] = floor_div(start + up - 1, up);
    const int64_t first_tap = base[q] * up - start;
    const int64_t count = first_tap < taps ? (taps - 1 - first_tap) / up + 1 : 0;
    tables.first_tap.push_back(first_tap);
    tables.taps.push_back(count);
    tables.weight_at.push_back(used);
    used += count;
    if (count > 0) {
      low = std::min(low, base[q]);
      high = std::max(high, base[q] + count);
    }
  }
  axis.first = used > 0 ? low : 0;
  axis.span = used > 0 ? high - low : 1;
  for (int64_t q = 0; q < axis.phases; ++q) {
    tables.offset.push_back(tables.taps[q] > 0 ? base[q] - axis.first : 0);
  }
  axis.offset = tables.offset.data();
  axis.taps = tables.taps.data();
  axis.weight_at = tables.weight_at.data();
  axis.first_tap = tables.first_tap.data();
  return axis;
}

// An axis of Walk::single, which has no use for phases and their tables.
AxisPlan make_single_axis(int64_t out_size) {
  AxisPlan axis{};
  axis.phases = axis.stride = axis.span = axis.up = 1;
  axis.steps = out_size;
  return axis;
}

template <class A, class Params>
void make_axes(const Params& params, PlannedCall<A>& planned) {
  Plan& plan = planned.plan;
  plan.x = make_axis(params.up_x, params.down_x, params.kw, params.pad_x0, params.out.w,
                     planned.x);
  plan.y = make_axis(params.up_y, params.down_y, params.kh, params.pad_y0, params.out.h,
                     planned.y);
}

// Taps in reading order are the kernel backwards (a true convolution), and the
// kernel as it stands where it is flipped.
template <class A>
std::vector<A> weights_of(const AxisPlan& axis, const void* taps, int64_t count, bool flip) {
  std::vector<A> weights;
  for (int64_t q = 0; q < axis.phases; ++q) {
    for (int64_t t = 0; t < axis.taps[q]; ++t) {
      const int64_t s = axis.first_tap[q] + t * axis.up;
      weights.push_back(static_cast<const A*>(taps)[flip ? s : count - 1 - s]);
    }
  }
  return weights;
}

template <class A>
std::vector<A> weights_of(const AxisPlan& y, const AxisPlan& x, const UpFirDn2dParams& params) {
  std::vector<A> weights;
  const A* kernel = static_cast<const A*>(params.kernel);
  for (int64_t qy = 0; qy < y.phases; ++qy) {
    for (int64_t qx = 0; qx < x.phases; ++qx) {
      for (int64_t i = 0; i < y.taps[qy]; ++i) {
        for (int64_t j = 0; j < x.taps[qx]; ++j) {
          const int64_t row = y.first_tap[qy] + i * y.up, column = x.first_tap[qx] + j * x.up;
          weights.push_back(kernel[(params.flip ? row : params.kh - 1 - row) * params.kw +
                                   (params.flip ? column : params.kw - 1 - column)]);
        }
      }
    }
  }
  return weights;
}

// A kernel counts as an outer product where no tap differs from it by more than this many
// times the spacing of numbers near 1, relative to the tap: about what rounding the
// products, their sum and a gain to A leaves. So a sum moves by at most that much of
// sum |tap * sample|.
constexpr double kProductTolerance = 4;

double residual(double tap, float a, float b) { return tap - double(a) * double(b); }
double residual(double tap, double a, double b) { return std::fma(-a, b, tap); }

// Factors of a kernel [kh, kw] that is an outer product; false: it is none, or as it
// stands it needs no more multiplications.
template <class A>
bool factorise(const A* kernel, int64_t kh, int64_t kw, std::vector<A>& factor_x,
               std::vector<A>& factor_y) {
  if (kh * kw <= kh + kw) return false;
  const auto smaller = [](A a, A b) { return std::abs(a) < std::abs(b); };
  const int64_t pivot = std::max_element(kernel, kernel + kh * kw, smaller) - kernel;
  const int64_t row = pivot / kw, column = pivot % kw;
  // Sums over y then lie in the range of the samples: a power of two costs no rounding.
  double total = 0;
  for (int64_t i = 0; i < kh; ++i) total += std::abs(double(kernel[i * kw + column]));
  if (!(total > 0)) return false;
  const int exponent = std::ilogb(total) + 1;
  for (int64_t i = 0; i < kh; ++i) {
    factor_y.push_back(std::scalbn(kernel[i * kw + column], -exponent));
  }
  for (int64_t j = 0; j < kw; ++j) {
    const double ratio = double(kernel[row * kw + j]) / double(kernel[pivot]);
    factor_x.push_back(A(std::scalbn(ratio, exponent)));
  }
  const double most = kProductTolerance * double(std::numeric_limits<A>::epsilon());
  for (int64_t i = 0; i < kh; ++i) {
    for (int64_t j = 0; j < kw; ++j) {
      const double tap = kernel[i * kw + j];
      if (!(std::abs(residual(tap, factor_y[i], factor_x[j])) <= most * std::abs(tap))) {
        return false;
      }
    }
  }
  return true;
}

// Where the taps in x find their samples in a fetched row, split into components or not.
template <class A>
void locate_taps(PlannedCall<A>& planned) {
  Plan& plan = planned.plan;
  const AxisPlan& x = plan.x;
  const int64_t components = plan.columns == Columns::pixelwise ? 1 : x.stride;
  for (int64_t q = 0; q < x.phases; ++q) {
    for (int64_t t = 0; t < x.taps[q]; ++t) {
      planned.tap_component.push_back((x.offset[q] + t) % components);
      planned.tap_pixel.push_back((x.offset[q] + t) / components);
    }
  }
  plan.tap_count = int64_t(planned.tap_component.size());
  plan.tap_component = planned.tap_component.data();
  plan.tap_pixel = planned.tap_pixel.data();
}

// ---------------------------------------------------------------- tiles

// Budgets, measured on a core with 48 KB of L1 and 2 MB of L2 cache. Fetched rows
// that stay for many output rows; fetched rows beside the row buffer; and rows that
// are read where they lie: wider tiles, since each cut of a row makes the processor's
// prefetching start anew.
constexpr int64_t kTileBytes = 24 * 1024;
constexpr int64_t kSeparableBytes = 48 * 1024;
constexpr int64_t kDirectBytes = 96 * 1024;
// Elements of a block of rows. Fewer: the cost of calls shows; more: reading, arithmetic
// and writing no longer overlap.
constexpr int64_t kBlockElements = 1024;
// Output rows are summed together, from the input rows that they share, where they have more
// taps in y than this times the stride. With fewer, that was measured to gain nothing where the
// rows of one output fit the L1 cache (kNearBytes), and the longer blocks cost up to 20 %.
// Where they do not fit, each reading of them counts, and more taps than this are enough, if an
// input row serves two outputs and more. That gains 10 to 20 % where rows are read where they lie,
// or are channels_last, and the input rows of a block stay in the L2 cache (kHeldBytes). It was
// measured to gain nothing for contiguous rows that are fetched.
constexpr int64_t kSharingTaps = 8;
constexpr int64_t kNearBytes = 32 * 1024;
constexpr int64_t kHeldBytes = 1200 * 1024;
// The same for streams, which also keep open rows: a row, and a block.
constexpr int64_t kStreamRow = 1024;
constexpr int64_t kStreamElements = 2048;
// Elements that a copy of a pixel in 16-byte pieces may write too many.
constexpr int64_t kPieceSlack = 4;
// Pixels of this size and more fill vectors of their own.
constexpr int64_t kPixelwiseBytes = 64;
// Inputs and outputs of this size and more come from memory: there prefetching gains
// 10 to 20 %; it costs 5 % where a cache holds them.
constexpr int64_t kFarBytes = 32 << 20;
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

// Columns of a tile: as many as fill rows of `row_elements` elements.
void cut_columns(Plan& plan, int64_t row_elements) {
  const AxisPlan& x = plan.x;
  const int64_t per_step = plan.channels * std::max(x.stride, x.phases);
  const int64_t least = plan.channels > 1 ? ceil_div(4 * x.span, x.stride) : 64;
  const int64_t steps = std::min(std::max(least, row_elements / per_step), x.steps);
  plan.x_tiles = ceil_div(x.steps, steps);
  plan.tile_steps = ceil_div(x.steps, plan.x_tiles);
  if (plan.channels == 1 && plan.x_tiles > 1) plan.tile_steps = round_up(plan.tile_steps, 16);
  plan.x_tiles = ceil_div(x.steps, plan.tile_steps);

  // Pitches: rows long enough to afford it begin on a cache line.
  const int64_t pixels = x.stride * (plan.tile_steps - 1) + x.span;
  const int64_t components = plan.columns == Columns::pixelwise ? 1 : x.stride;
  plan.component_pitch = ceil_div(pixels, components) * plan.channels;
  if (plan.channels > 1) plan.component_pitch += kPieceSlack;
  plan.most_lead = plan.component_pitch >= 64 ? 16 : 1;
  plan.component_pitch = round_up(plan.component_pitch + plan.most_lead - 1, plan.most_lead);
  plan.slot_pitch = components * plan.component_pitch;
  plan.line_pitch = round_up(pixels * plan.channels, 16);
}

// Elements of a row where the rows of a whole step and those of the next stay fetched.
int64_t kept_row_elements(const Plan& plan, int64_t element) {
  const AxisPlan& y = plan.y;
  return kTileBytes / element / (y.span + std::max(2 * y.stride, y.span));
}

// Units of work: every tile, cut further along y until there are a few for each
// thread, but not so short that the rows shared by neighbours cost much.
void cut_units(Plan& plan, int64_t wanted_units) {
  const int64_t tiles = plan.in.n * plan.channel_tiles * plan.x_tiles;
  const int64_t least = std::max<int64_t>(4, ceil_div(4 * plan.y.span, plan.y.stride));
  const int64_t units = std::min(ceil_div(wanted_units, tiles), ceil_div(plan.y.steps, least));
  plan.unit_steps = ceil_div(plan.y.steps, std::max<int64_t>(1, units));
  plan.y_units = ceil_div(plan.y.steps, plan.unit_steps);
}

// Hands out parts of a thread's scratch, each at a multiple of 16 elements.
class Scratch {
 public:
  int64_t take(int64_t elements) {
    const int64_t here = size_;
    size_ += round_up(elements, 16);
    return here;
  }
  int64_t size() const { return size_; }

 private:
  int64_t size_ = 0;
};

// Slots of the ring that holds so many fetched rows; a power of two, so that a row finds its
// slot by a mask.
int64_t slots_for(int64_t rows) {
  int64_t slots = 1;
  while (slots < rows) slots *= 2;
  return slots;
}

int64_t outputs_of_row(const Plan& plan) {
  return plan.x.phases * plan.tile_steps * plan.channels;
}

// A block of rows of sums, which the epilogue finishes.
void lay_out_sums(Plan& plan, Scratch& scratch) {
  plan.done_pitch = round_up(outputs_of_row(plan), 16);
  plan.done_at = scratch.take(plan.block_steps * plan.done_pitch + kSlack);
  plan.addends_at = scratch.take(plan.done_pitch + kSlack);
  plan.biases_at = scratch.take(plan.channels + kSlack);
}

// What the walks by rows hold in scratch: fetched rows, a line of `lines` rows, the
// table of taps; and `phase_rows` rows of outputs of one phase, where that is not 0.
void lay_out(Plan& plan, Scratch& scratch, int64_t lines, int64_t phase_rows,
             int64_t phase_elements) {
  const int64_t outputs = outputs_of_row(plan);
  if (plan.walk != Walk::rows_direct) {
    plan.slots_at = scratch.take(plan.row_slots * plan.slot_pitch + kSlack);
  }
  plan.phase_pitch = round_up(std::max(plan.tile_steps * plan.channels, phase_elements) + kSlack,
                              16);
  plan.phase_rows_at = scratch.take(phase_rows * plan.phase_pitch);
  plan.line_at =
      scratch.take(std::max({plan.line_pitch, outputs, lines * plan.line_pitch}) + kSlack);
  plan.tap_table_at = scratch.take(2 * plan.tap_count);  // of int64_t
  if (plan.epilogue != nullptr) lay_out_sums(plan, scratch);
}

// With an epilogue, sums wait for it in the L1 cache: short blocks of them.
int64_t at_most_unfinished(const Plan& plan, int64_t block_steps) {
  if (plan.epilogue == nullptr) return block_steps;
  const int64_t fitting = kBlockElements / round_up(outputs_of_row(plan), 16);
  return std::min(block_steps, std::max<int64_t>(1, fitting));
}

// ---------------------------------------------------------------- the walks

// What a row of the table decides by, beside the plan so far: axes, channels, columns.
struct Request {
  const UpFirDn2dParams& params;
  int64_t element;       // of the accumulate type     [bytes]
  int64_t vector_bytes;
  bool single;           // the taps, or the phases, are such that only Walk::single serves

  bool separable() const { return params.kernel == nullptr; }
  bool half() const { return is_half(params.dtype); }
};

// Whether channels of a pixel, or columns where there is one channel, lie side by side.
bool has_adjacent_input(const Plan& plan) {
  return plan.channels > 1 ? plan.in.stride_c == 1 : plan.in.stride_w == 1;
}

// Whether a tile's outputs of one row lie side by side.
bool has_dense_output(const Plan& plan) {
  return plan.channels == 1 || plan.out.stride_w == plan.channels;
}

bool serves_single(const Plan&, const Request& request) { return request.single; }

bool serves_planar(const Plan&, const Request& request) { return !request.separable(); }

// Pixels of two vectors and more, read where they lie: the same factors and taps on both
// axes, and only the usual numbers of taps. The sums want 32 registers; with 16 it pays
// for 16-bit types alone, and not where there are two phases.
bool serves_sliding(const Plan& plan, const Request& request) {
  const AxisPlan &x = plan.x, &y = plan.y;
  const bool fits = request.vector_bytes == 64 ||
                    (request.vector_bytes == 32 && request.half() && x.phases == 1);
  bool usual = fits && channels_last(plan.out) && plan.in.stride_c == 1 &&
               2 * request.vector_bytes <= plan.out.c * request.element &&
               x.phases == y.phases && x.stride == y.stride && x.phases * x.stride <= 2;
  for (int64_t q = 0; usual && q < x.phases; ++q) {
    for (const int64_t taps : {x.taps[q], y.taps[q]}) {
      usual = usual && taps == x.taps[0] && (x.phases == 2 ? taps == 2 : taps == 3 || taps == 4);
    }
  }
  return usual;
}

// The same factors, 1, up 2 or down 2, and the same taps on both axes and in each phase;
// and outputs that lie side by side.
bool serves_stream(const Plan& plan, const Request& request) {
  const AxisPlan &x = plan.x, &y = plan.y;
  const int64_t taps = x.taps[0];
  bool usual = request.half() && plan.epilogue == nullptr && x.phases == y.phases &&
               x.stride == y.stride && x.phases * x.stride <= 2 && taps > x.stride &&
               taps * x.phases <= 8 &&
               (plan.channels == 1 || (x.phases * x.stride == 1 && has_dense_output(plan)));
  for (int64_t q = 0; usual && q < x.phases; ++q) {
    usual = x.taps[q] == taps && y.taps[q] == taps;
  }
  return usual;
}

bool serves_rows_direct(const Plan& plan, const Request& request) {
  return !request.half() && has_adjacent_input(plan);
}

bool serves_rows(const Plan&, const Request&) { return true; }

void cut_single(Plan& plan, const Request&) {
  plan.tile_steps =
      std::min(plan.x.steps, std::max<int64_t>(1, kBlockElements / plan.channels));
  plan.x_tiles = ceil_div(plan.x.steps, plan.tile_steps);
  plan.most_lead = plan.block_steps = 1;
  Scratch scratch;
  lay_out_sums(plan, scratch);
  plan.scratch_elements = scratch.size();
}

void cut_planar(Plan& plan, const Request& request) {
  const AxisPlan &x = plan.x, &y = plan.y;
  cut_columns(plan, kept_row_elements(plan, request.element));
  const int64_t fitting = kTileBytes / request.element / plan.slot_pitch;
  const int64_t rows = std::min(std::max(y.span + std::max(2 * y.stride, y.span), fitting),
                                y.stride * (y.steps - 1) + y.span);
  plan.row_slots = slots_for(rows);
  plan.block_steps = at_most_unfinished(plan, (rows - y.span) / y.stride + 1);
  Scratch scratch;
  lay_out(plan, scratch, 1, plan.columns == Columns::interleaved ? x.phases : 0, 0);
  plan.scratch_elements = scratch.size();
  plan.pointer_count = *std::max_element(x.taps, x.taps + x.phases) *
                       *std::max_element(y.taps, y.taps + y.phases);
}

// Whole rows of whole pixels, and no scratch for them.
void cut_sliding(Plan& plan, const Request& request) {
  const int64_t stored = request.half() ? 2 : request.element;
  plan.channels = plan.in.c;
  plan.channel_tiles = plan.x_tiles = 1;
  plan.tile_steps = plan.x.steps;
  plan.most_lead = 1;
  plan.far = plan.in.n * plan.in.c * stored *
                 (plan.in.h * plan.in.w + plan.out.h * plan.out.w) >= kFarBytes;
  plan.scratch_elements = 2 * plan.tap_count;
}

void cut_stream(Plan& plan, const Request&) {
  const AxisPlan& y = plan.y;
  cut_columns(plan, plan.channels > 1 ? kStreamRow / 2 : kStreamRow);
  const int64_t fitting = kStreamElements / (plan.slot_pitch * y.stride);
  plan.block_steps = std::min(std::max(4 / y.stride, fitting), y.steps);
  plan.row_slots = slots_for(y.stride * plan.block_steps);
  Scratch scratch;
  lay_out(plan, scratch, 1, 14, 0);  // open rows: at most 7, or 2 * 3 * 2
  plan.scratch_elements = scratch.size();
}

// Whether output rows of so many taps in y are summed together.
bool shares_rows(const Plan& plan, int64_t element, int64_t taps) {
  const AxisPlan& y = plan.y;
  if (taps > kSharingTaps * y.stride) return true;
  const bool direct = plan.walk == Walk::rows_direct;
  const int64_t rows = y.span + y.stride * (kSharedRows - 1), row_bytes = plan.slot_pitch * element;
  return taps > std::max(kSharingTaps, 2 * y.stride) && (direct || plan.channels > 1) &&
         y.span * row_bytes > kNearBytes &&
         (direct ? rows : slots_for(rows)) * row_bytes <= kHeldBytes;
}

void cut_rows(Plan& plan, const Request& request) {
  const AxisPlan &x = plan.x, &y = plan.y;
  const int64_t bytes = plan.walk == Walk::rows_direct ? kDirectBytes : kSeparableBytes;
  cut_columns(plan, bytes / request.element / (y.span + 2));
  const int64_t taps = *std::max_element(y.taps, y.taps + y.phases);
  plan.shared_rows = shares_rows(plan, request.element, taps) ? kSharedRows : 1;
  const int64_t fitting = kBlockElements / plan.slot_pitch;
  const int64_t steps = std::min(std::max(plan.shared_rows, fitting), y.steps);
  plan.row_slots = slots_for(y.span + y.stride * (steps - 1));
  plan.block_steps = at_most_unfinished(plan, steps);
  const int64_t buffer = plan.block_steps * plan.slot_pitch;
  Scratch scratch;
  lay_out(plan, scratch, plan.block_steps, plan.columns == Columns::interleaved ? x.phases : 0,
          buffer);
  plan.buffer_at = scratch.take(buffer + kSlack);
  plan.zeros_at = scratch.take(std::max(plan.slot_pitch, plan.line_pitch) + kSlack);
  plan.scratch_elements = scratch.size();
  plan.pointer_count = std::max(2 * *std::max_element(x.taps, x.taps + x.phases),
                                taps + std::min(taps, y.stride) * (plan.block_steps - 1));
}

// The table: the first row that serves a call runs it.
struct WalkRow {
  Walk walk;
  const char* name;
  bool (*serves)(const Plan& plan, const Request& request);
  void (*cut)(Plan& plan, const Request& request);
};

constexpr WalkRow kWalks[] = {
    {Walk::single, "single", serves_single, cut_single},
    {Walk::planar, "planar", serves_planar, cut_planar},
    {Walk::sliding, "sliding", serves_sliding, cut_sliding},
    {Walk::stream, "stream", serves_stream, cut_stream},
    {Walk::rows_direct, "rows-direct", serves_rows_direct, cut_rows},
    {Walk::rows, "rows", serves_rows, cut_rows},
};

// Axes of more phases than this have no tables: most of their outputs have no tap.
constexpr int64_t kMostPhases = 1024;

template <class A>
bool wants_single(const UpFirDn2dParams& p) {
  const auto phases = [](int64_t up, int64_t down) { return up / common_divisor(up, down); };
  return phases(p.up_x, p.down_x) > kMostPhases || phases(p.up_y, p.down_y) > kMostPhases ||
         !all_finite<A>(p.kernel, p.kh * p.kw) || !all_finite<A>(p.taps_x, p.kw) ||
         !all_finite<A>(p.taps_y, p.kh);
}

Columns choose_columns(const Plan& plan, int64_t element) {
  const AxisPlan& x = plan.x;
  if (plan.channels * element >= kPixelwiseBytes && (x.phases > 1 || x.stride > 1)) {
    return Columns::pixelwise;
  }
  return x.phases > 1 ? Columns::interleaved : Columns::plain;
}

// Two phases that alternate by elements, of equal taps: those of an up 2.
bool joins(const Plan& plan) {
  const AxisPlan& x = plan.x;
  return plan.walk != Walk::planar && plan.channels == 1 && x.phases == 2 && x.taps[0] >= 1 &&
         x.taps[0] == x.taps[1] && x.taps[0] <= 8;
}

}  // namespace

template <class A>
void plan_upfirdn2d(const UpFirDn2dParams& call, const EpilogueParams* epilogue,
                    int64_t vector_bytes, int num_threads, PlannedCall<A>& planned) {
  const bool single = wants_single<A>(call);
  UpFirDn2dParams params = call;
  if (!single && call.kernel != nullptr &&
      factorise(static_cast<const A*>(call.kernel), call.kh, call.kw, planned.factor_x,
                planned.factor_y)) {
    params.kernel = nullptr;
    params.taps_x = planned.factor_x.data();
    params.taps_y = planned.factor_y.data();
  }
  const Request request{params, sizeof(A), vector_bytes, single};
  Plan& plan = planned.plan;
  plan.input = params.input;
  plan.output = params.output;
  plan.in = params.in;
  plan.out = params.out;
  plan.epilogue = epilogue;
  plan.call = &call;
  if (request.single) {
    plan.x = make_single_axis(params.out.w);
    plan.y = make_single_axis(params.out.h);
  } else {
    make_axes(params, planned);
  }

  // Tiles follow the output's memory: whole rows of a channel, or of all channels.
  const bool in_place = request.separable() && !request.half() && params.in.stride_c == 1;
  const bool few = in_place || plan.x.span * plan.y.span <= kFewPixels;
  plan.channels = channels_last(params.out)
                      ? tile_channels(params.out.c, sizeof(A), few ? kPixelBytes : kKeptPixelBytes)
                      : 1;
  plan.channel_tiles = ceil_div(params.out.c, plan.channels);
  plan.columns = choose_columns(plan, sizeof(A));

  const WalkRow* row = kWalks;
  while (!row->serves(plan, request)) ++row;
  plan.walk = row->walk;
  if (joins(plan)) plan.columns = Columns::joined;

  // The weights in the order in which the walk uses them.
  if (request.single) {
    // It reads the taps as they came
  } else if (request.separable()) {
    planned.weights_x = weights_of<A>(plan.x, params.taps_x, params.kw, params.flip);
    planned.weights_y = weights_of<A>(plan.y, params.taps_y, params.kh, params.flip);
  } else {
    planned.weights_y = weights_of<A>(plan.y, plan.x, params);
    plan.weights_xy = planned.weights_y.data();
  }
  if (!request.single) locate_taps(planned);
  plan.weights_x = planned.weights_x.data();
  plan.weights_y = planned.weights_y.data();
  row->cut(plan, request);
  cut_units(plan, num_threads > 1 ? 8 * int64_t(num_threads) : 1);
}

template <class A>
void plan_kernel_grad(const KernelGradParams& params, PlannedCall<A>& planned) {
  Plan& plan = planned.plan;
  plan.input = params.input;
  plan.grad = params.grad;
  plan.in = params.in;
  plan.out = params.out;
  make_axes(params, planned);
  const AxisPlan &x = plan.x, &y = plan.y;
  plan.walk = Walk::planar;
  plan.channels =
      channels_last(params.in) ? tile_channels(params.in.c, sizeof(A), kKeptPixelBytes) : 1;
  plan.channel_tiles = ceil_div(params.in.c, plan.channels);
  locate_taps(planned);
  cut_columns(plan, kept_row_elements(plan, sizeof(A)));
  // At most 64 rows go into one sum in float; the number of units and of chunks
  // follows from the shapes alone.
  plan.unit_steps = std::min<int64_t>(y.steps, 64);
  plan.y_units = ceil_div(y.steps, plan.unit_steps);
  plan.row_slots = slots_for(y.span);
  Scratch scratch;
  lay_out(plan, scratch, 1, 0, plan.slot_pitch);
  plan.grad_at = scratch.take(x.phases * plan.phase_pitch);
  int64_t taps = 0;
  for (int64_t qy = 0; qy < y.phases; ++qy) {
    for (int64_t qx = 0; qx < x.phases; ++qx) taps += y.taps[qy] * x.taps[qx];
  }
  plan.sums_at = scratch.take(taps * 16);
  plan.scratch_elements = scratch.size();
  plan.pointer_count = *std::max_element(x.taps, x.taps + x.phases) *
                       *std::max_element(y.taps, y.taps + y.phases);
}

const char* name_of(Walk walk) {
  for (const WalkRow& row : kWalks) {
    if (row.walk == walk) return row.name;
  }
  return "";
}

std::vector<const char*> walk_names() {
  std::vector<const char*> names;
  for (const WalkRow& row : kWalks) names.push_back(row.name);
  return names;
}

template void plan_upfirdn2d(const UpFirDn2dParams&, const EpilogueParams*, int64_t, int,
                             PlannedCall<float>&);
template void plan_upfirdn2d(const UpFirDn2dParams&, const EpilogueParams*, int64_t, int,
                             PlannedCall<double>&);
template void plan_kernel_grad(const KernelGradParams&, PlannedCall<float>&);
template void plan_kernel_grad(const KernelGradParams&, PlannedCall<double>&);

}  // namespace cpu
}  // namespace resample_layers
