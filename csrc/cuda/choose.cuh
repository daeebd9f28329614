// SPDX-License-Identifier: BSD-3-Clause
//
// Which row of the table serves a call, and with which tile. Host code without a CUDA
// call, as table.cuh.
#pragma once

#include "table.cuh"

namespace resample_layers {

// Kernels that are no row of the table.
constexpr int kGeneric = -1;
constexpr int kPointwise = -2;

struct TilePlan {
  int variant;  // row of the table, or one of the above
  unsigned grid, block;
  size_t shared;  // bytes
  TileArgs args;
  double efficiency;  // share of the threads that have outputs to compute
  int looked_at;      // numbers of tiles along x: the time that the plan took
};

// What a launch may use. The defaults are an H100's; tests ask for small tiles.
struct Limits {
  int multiprocessors = 132;
  size_t shared = 228 * 1024;        // bytes of one multiprocessor, shared by its blocks
  size_t shared_block = 227 * 1024;  // bytes of one block at most
};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
constexpr int64_t floor_mod(int64_t a, int64_t b) { return ((a % b) + b) % b; }

inline bool dense(const Plane4d& p, Layout layout) {
  int64_t expected = 1;
  bool same = true;
  auto axis = [&](int64_t size, int64_t stride) {
    same = same && (size == 1 || stride == expected);
    expected *= size;
  };
  if (layout == Layout::channels_last) axis(p.c, p.stride_c);
  axis(p.w, p.stride_w);
  axis(p.h, p.stride_h);
  if (layout == Layout::contiguous) axis(p.c, p.stride_c);
  axis(p.n, p.stride_n);
  return same;
}

inline bool multiple(const void* pointer, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
}

// Can this row serve this call?
inline bool serves(const Variant& v, const UpFirDn2dParams& p) {
  if (p.dtype == Dtype::float64) return false;
  const int element = p.dtype == Dtype::float32 ? 4 : 2;
  const Numbers s = numbers_of(v, element);

  if (s.rows == 0 || (v.widest > 0 && p.out.w > v.widest)) return false;

  // Filter
  if ((v.method == Method::separable) != (p.kernel == nullptr)) return false;
  if (p.up_x != v.up || p.up_y != v.up || p.down_x != v.down || p.down_y != v.down) return false;
  if (p.kh > v.taps || p.kw > v.taps) return false;
  if (v.exact && (p.kh != v.taps || p.kw != v.taps)) return false;

  // Layout, and every coordinate and offset inside one plane (one sample) in 32 bits
  if (!dense(p.out, v.layout)) return false;
  const bool last = v.layout == Layout::channels_last;
  const int64_t limit = int64_t{1} << 30;
  const int64_t in_extent = p.in.h * std::max<int64_t>(p.in.stride_h, 1) +
                            p.in.w * std::max<int64_t>(p.in.stride_w, 1) + (last ? p.in.c : 0);
  const int64_t out_extent = p.out.h * p.out.w * (last ? p.out.c : 1);
  if (in_extent >= limit || out_extent >= limit || p.in.c >= limit) return false;
  if (std::abs(p.pad_x0) >= limit / 8 || std::abs(p.pad_y0) >= limit / 8) return false;
  if (p.in.w * v.up >= limit / 2 || p.out.w * v.down >= limit / 2) return false;
  if (p.in.h * v.up >= limit / 2 || p.out.h * v.down >= limit / 2) return false;

  // Inner stride and alignment of wide accesses
  auto even = [&](int64_t size, int64_t stride) { return size == 1 || stride % s.load == 0; };
  if (!multiple(p.output, element)) return false;
  if (last) {
    return (p.in.c == 1 || p.in.stride_c == 1) && p.in.c % s.load == 0 &&
           even(p.in.w, p.in.stride_w) && even(p.in.h, p.in.stride_h) &&
           even(p.in.n, p.in.stride_n) && multiple(p.input, s.load * element) &&
           multiple(p.output, s.load * element);
  }
  // A vector lies inside a row or outside, never across its end.
  return (p.in.w == 1 || p.in.stride_w == 1) && p.in.w % s.load == 0 &&
         even(p.in.h, p.in.stride_h) && even(p.in.c, p.in.stride_c) &&
         even(p.in.n, p.in.stride_n) && multiple(p.input, s.load * element);
}

// Columns that the outputs of a tile read. Rows whose first output is not aligned to 16 bytes
// begin up to vector - 1 outputs earlier (slack), and the first wide load begins up to load - 1
// inputs earlier.
struct TileColumns {
  int64_t up, down, taps, slack, wide;

  TileColumns(const Variant& v, const UpFirDn2dParams& p, const Numbers& s)
      : up(v.up), down(v.down), taps(p.kw), slack(0), wide(0) {
    if (v.layout == Layout::channels_last) return;
    const bool aligned_rows = multiple(p.output, 16) && p.out.w % s.vector == 0;
    if (v.method == Method::separable && !aligned_rows) slack = s.vector - 1;
    wide = s.load - 1;
  }

  int64_t of(int64_t tile_w) const {
    return (up - 1 + (tile_w - 1 + slack) * down + taps - 1) / up + 1 + wide;
  }

  // The widest tile whose columns are at most so many.
  int64_t widest(int64_t columns) const {
    return ((columns - 1 - wide) * up - taps + 1) / down + 1 - slack;
  }
};

// Most threads of a block, for this call.
inline int most_threads(const Variant& v, const UpFirDn2dParams& p) {
  return v.narrow > 0 && p.out.w <= kNarrow ? v.narrow : v.threads;
}

// Threads along the channels of one pixel (channels_last): 32 (wide loads: 64) bytes or more.
inline int64_t channel_threads(const Variant& v, const UpFirDn2dParams& p, const Numbers& s) {
  return std::min<int64_t>(p.in.c / s.load,
                           ceil_div(v.bytes == 16 ? 64 : 32, s.load * s.element));
}

// The tile of one row for one call, of `tiles_x` tiles along x. False where it does not fit
// (threads, shared memory, grid).
inline bool fit_tile(const Variant& v, const UpFirDn2dParams& p, const Limits& limits,
                     int64_t tiles_x, TilePlan* plan) {
  const Numbers s = numbers_of(v, p.dtype == Dtype::float32 ? 4 : 2);
  const bool last = v.layout == Layout::channels_last;
  const bool planar = v.method == Method::planar;
  const int64_t up = v.up, down = v.down, threads = most_threads(v, p);
  TileArgs a{};

  // What the call says
  a.input = p.input, a.output = p.output;
  a.kernel = p.kernel, a.taps_x = p.taps_x, a.taps_y = p.taps_y;
  a.in_stride_n = p.in.stride_n, a.in_stride_c = p.in.stride_c;
  a.in_stride_h = static_cast<int>(p.in.h == 1 ? 0 : p.in.stride_h);
  a.in_stride_w = static_cast<int>(p.in.w == 1 ? 0 : p.in.stride_w);
  a.c = static_cast<int>(p.in.c);
  a.in_h = static_cast<int>(p.in.h), a.in_w = static_cast<int>(p.in.w);
  a.out_h = static_cast<int>(p.out.h), a.out_w = static_cast<int>(p.out.w);
  a.kh = static_cast<int>(p.kh), a.kw = static_cast<int>(p.kw);
  a.pad_x = static_cast<int>(p.pad_x0), a.pad_y = static_cast<int>(p.pad_y0);
  a.flip = p.flip;

  // Rows. Steps begin where y * down - pad_y is a multiple of up.
  a.shift_y = static_cast<int>(floor_mod(-p.pad_y0, up));
  const int64_t rows = p.out.h + a.shift_y;
  const int64_t walk = planar ? std::max(v.walk, s.rows) : v.walk;

  // Columns and threads
  const TileColumns tile_columns(v, p, s);
  a.slack = static_cast<int>(tile_columns.slack);
  a.tiles_x = static_cast<int>(tiles_x);
  a.tile_w = static_cast<int>(round_up(ceil_div(p.out.w + a.slack, tiles_x), s.run));
  const int64_t columns = tile_columns.of(a.tile_w);
  if (last) {
    if (columns > threads) return false;
    const int64_t vectors = p.in.c / s.load;
    if (columns * channel_threads(v, p, s) > threads && a.tile_w > s.run) return false;
    const int64_t most = std::max<int64_t>(1, threads / columns);
    const int64_t parts = ceil_div(vectors, std::min(vectors, most));
    // Whole sectors of 32 bytes, so that no two blocks read the same one
    const int64_t sector = std::max(1, 32 / (s.load * s.element));
    int64_t share = ceil_div(vectors, parts);
    if (parts > 1 && share > sector) {
      share = round_up(share, sector) <= most ? round_up(share, sector) : share / sector * sector;
    }
    a.columns = static_cast<int>(columns);
    a.channels = static_cast<int>(share * s.load);
    a.slots = 1;
    a.slot_threads = a.columns * (a.channels / s.load);
    a.planes = p.in.n * ceil_div(p.in.c, a.channels);
  } else {
    a.columns = static_cast<int>(ceil_div(columns, s.load));
    if (a.columns > threads) return false;
    a.channels = 1;
    a.slot_threads = a.columns;
    a.planes = p.in.n * p.in.c;
    a.slots = static_cast<int>(
        std::max<int64_t>(1, std::min<int64_t>(threads / a.columns, a.planes)));
  }
  a.groups = static_cast<int>(std::max<int64_t>(2, a.tile_w / s.run));
  a.groups_reciprocal =
      static_cast<uint32_t>((uint64_t{0xffffffffu} + a.groups) / static_cast<uint64_t>(a.groups));

  a.split = 1;
  while (s.rows % (2 * a.split) == 0 && 2 * a.split * a.groups <= a.columns) a.split *= 2;

  // Rows of one block: fewer where the grid would leave multiprocessors idle
  const int64_t step = s.rows;
  const int64_t others = ceil_div(a.planes, a.slots) * tiles_x;
  const int64_t wanted = ceil_div(static_cast<int64_t>(limits.multiprocessors) * 8, others);
  int64_t tile_h = round_up(std::min<int64_t>(walk, rows), step);
  if (!planar) {
    const int64_t spread = round_up(ceil_div(rows, wanted), step);
    const int64_t shortest = round_up(std::max<int64_t>(v.taps / up, step), step);
    tile_h = std::min(tile_h, std::max(spread, shortest));
  }
  a.tile_h = static_cast<int>(tile_h);
  a.tiles_y = static_cast<int>(ceil_div(rows, tile_h));

  // Shared memory; the driver keeps 1 KiB of each block's share
  if (last) {
    a.margin = 0;
    a.pitch = a.columns * a.channels;
  } else {
    const int64_t before = ceil_div(a.slack * down, up) + s.load;
    a.margin = static_cast<int>(round_up(before, s.period));
    const int64_t longest = std::max<int64_t>(
        static_cast<int64_t>(a.columns) * s.load,
        static_cast<int64_t>(a.groups) * s.period + window_of(s.run, up - 1, up, down, v.taps));
    a.pitch = padded_index(static_cast<int>(a.margin + longest), s.period) + 1;
  }
  const int64_t buffers = planar ? 1 : 2;
  const int64_t tap_floats = planar ? round_up(v.taps * v.taps, 4) : 2 * round_up(v.taps, 4);
  const int64_t kept = planar ? window_of(a.tile_h, 0, v.up, v.down, v.taps) : s.rows;
  const int64_t share = std::min(static_cast<int64_t>(limits.shared) / v.blocks - 1024,
                                 static_cast<int64_t>(limits.shared_block));
  a.slot_floats = static_cast<int>(round_up(kept * a.pitch, 4));
  auto bytes = [&] { return 4 * (tap_floats + buffers * a.slots * a.slot_floats); };
  while (a.slots > 1 && bytes() > share) --a.slots;
  if (bytes() > share) return false;

  // Launch
  const int64_t blocks = ceil_div(a.planes, a.slots) * tiles_x * a.tiles_y;
  if (blocks > 0x7fffffff) return false;
  const int64_t block = round_up(a.slots * a.slot_threads, 32);
  const double lanes = static_cast<double>(a.slots) * (last ? a.channels / s.load : 1);
  plan->grid = static_cast<unsigned>(blocks);
  plan->block = static_cast<unsigned>(block);
  plan->shared = static_cast<size_t>(bytes());
  plan->args = a;
  plan->efficiency =
      lanes * static_cast<double>(p.out.w) / static_cast<double>(tiles_x * block);
  return true;
}

// The tile of one row for one call. False where none fits.
inline bool plan_tile(const Variant& v, const UpFirDn2dParams& p, const Limits& limits,
                      TilePlan* plan) {
  // The fewest tiles: as wide as the threads of a block reach
  const Numbers s = numbers_of(v, p.dtype == Dtype::float32 ? 4 : 2);
  const TileColumns tile_columns(v, p, s);
  const int64_t threads = most_threads(v, p);
  const int64_t reach = v.layout == Layout::channels_last
                            ? threads / channel_threads(v, p, s)
                            : threads * s.load;
  const int64_t most = p.out.w + tile_columns.slack;
  const int64_t widest = std::max<int64_t>(tile_columns.widest(reach) / s.run * s.run, s.run);
  int64_t first = ceil_div(most, widest);
  TilePlan candidate{};
  auto fits = [&](int64_t tiles_x) {
    ++candidate.looked_at;
    return fit_tile(v, p, limits, tiles_x, &candidate);
  };
  if (!fits(first)) {  // as wide as shared memory holds
    int64_t too_few = first, enough = most;
    if (too_few >= enough || !fits(enough)) return false;
    while (enough - too_few > 1) {
      const int64_t middle = too_few + (enough - too_few) / 2;
      (fits(middle) ? enough : too_few) = middle;
    }
    first = enough;
  }

  // More tiles than needed where that leaves fewer threads idle: a plane is often a few
  // columns wider than a power of two.
  plan->efficiency = 0;
  for (int64_t tiles_x = first; tiles_x <= most && tiles_x < first + 6; ++tiles_x) {
    if (!fits(tiles_x) || candidate.efficiency < plan->efficiency * 1.04) continue;
    *plan = candidate;
  }
  plan->looked_at = candidate.looked_at;
  return plan->efficiency > 0;
}

// One tap and no resampling, on arrays that are dense in one order: `layout`, where both
// are possible that of the longer lines (pointwise.cuh).
inline bool serves_pointwise(const UpFirDn2dParams& p, Layout* layout) {
  if (p.kh != 1 || p.kw != 1 || p.up_x != 1 || p.up_y != 1 || p.down_x != 1 || p.down_y != 1 ||
      p.pad_x0 != 0 || p.pad_y0 != 0 || p.in.h != p.out.h || p.in.w != p.out.w) {
    return false;
  }
  // What a thread counts in 32 bits: samples, lines of a sample, elements of a line
  const int64_t limit = int64_t{1} << 30;
  const int64_t pixels = p.out.h * p.out.w;
  if (p.out.n >= limit || p.out.c >= limit || pixels >= limit) return false;
  auto both = [&](Layout l) { return dense(p.in, l) && dense(p.out, l); };
  const bool planes = both(Layout::contiguous), last = both(Layout::channels_last);
  *layout = last && (!planes || p.out.c > pixels) ? Layout::channels_last : Layout::contiguous;
  return planes || last;
}

// The first row that serves, unless there is nothing to filter.
inline TilePlan choose(const UpFirDn2dParams& p, const Limits& limits, bool fused) {
  TilePlan plan{};
  Layout layout;
  if (serves_pointwise(p, &layout)) {
    plan.variant = kPointwise;
    return plan;
  }
  for (int row = 0; row < kVariantCount; ++row) {
    const Variant& v = kVariants[row];
    if ((fused && !v.fused) || !serves(v, p)) continue;
    if (!plan_tile(v, p, limits, &plan)) continue;
    plan.variant = row;
    return plan;
  }
  plan.variant = kGeneric;
  return plan;
}

}  // namespace resample_layers
