// SPDX-License-Identifier: BSD-3-Clause
//
// Which row of the table serves a call, and with which tile. Host code without a CUDA
// call, as table.cuh.
#pragma once

#include <utility>

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

// The call as the table knows it: a kernel of one row or column is taps of that axis, and, where
// nothing depends on what is a channel (no epilogue), a filter of one axis takes what lies beside
// the samples of a line for channels, or for rows.
inline UpFirDn2dParams in_table_form(const UpFirDn2dParams& call, bool fused) {
  UpFirDn2dParams p = call;
  if (p.kernel != nullptr && (p.kh == 1 || p.kw == 1)) {
    (p.kh == 1 ? p.taps_x : p.taps_y) = p.kernel;
    p.kernel = nullptr;
  }
  const bool x_alone = p.kh == 1 && p.up_y == 1 && p.down_y == 1 && p.pad_y0 == 0 &&
                       p.in.h == p.out.h;
  const bool y_alone = p.kw == 1 && p.up_x == 1 && p.down_x == 1 && p.pad_x0 == 0 &&
                       p.in.w == p.out.w;
  if (fused || p.kernel != nullptr || x_alone == y_alone) return p;

  // Is the outer one of two axes as a continuation of the inner one?
  auto joins = [](int64_t outer, int64_t outer_stride, int64_t inner, int64_t inner_stride) {
    return outer == 1 || inner == 1 || outer_stride == inner * inner_stride;
  };
  auto joined = [](int64_t outer_stride, int64_t inner, int64_t inner_stride) {
    return inner == 1 ? outer_stride : inner_stride;
  };
  const Plane4d in = p.in, out = p.out;
  if (dense(out, Layout::contiguous) && (in.w == 1 || in.stride_w == 1)) {
    if (y_alone && in.w > 1 && joins(in.n, in.stride_n, in.c, in.stride_c)) {
      // Lines down an image: its columns are channels of one column
      const int64_t stride_n = joined(in.stride_n, in.c, in.stride_c);
      p.in = {in.n * in.c, in.w, in.h, 1, stride_n, 1, in.stride_h, 1};
      p.out = {out.n * out.c, out.w, out.h, 1, out.h * out.w, 1, out.w, 1};
    } else if (x_alone && in.h == 1) {
      // Signals: channels are rows
      p.in = {in.n, 1, in.c, in.w, in.stride_n, 0, in.stride_c, in.stride_w};
      p.out = {out.n, 1, out.c, out.w, out.c * out.w, 0, out.w, 1};
    }
  } else if (dense(out, Layout::channels_last) && x_alone &&
             joins(in.n, in.stride_n, in.h, in.stride_h)) {
    // Lines of pixels: they lead down an image of one column
    p.in = {in.n * in.h, in.c, in.w, 1, joined(in.stride_n, in.h, in.stride_h), in.stride_c,
            in.stride_w, 1};
    p.out = {out.n * out.h, out.c, out.w, 1, out.w * out.c, 1, out.c, 1};
    std::swap(p.taps_x, p.taps_y), std::swap(p.kw, p.kh);
    std::swap(p.up_x, p.up_y), std::swap(p.down_x, p.down_y), std::swap(p.pad_x0, p.pad_y0);
  }
  return p;
}

// Can this row serve this call, in the table's form?
inline bool serves(const Variant& v, const UpFirDn2dParams& p) {
  if (p.dtype == Dtype::float64) return false;
  const int element = p.dtype == Dtype::float32 ? 4 : 2;
  const Numbers s = numbers_of(v, element);

  if (s.rows == 0 || (v.widest > 0 && p.out.w > v.widest)) return false;

  // Filter
  if ((v.method == Method::planar) != (p.kernel != nullptr)) return false;
  if (p.up_x != v.up_x() || p.up_y != v.up_y()) return false;
  if (p.down_x != v.down_x() || p.down_y != v.down_y()) return false;
  if (p.kh > v.taps_y() || p.kw > v.taps_x()) return false;
  if (v.exact && (p.kh != v.taps_y() || p.kw != v.taps_x())) return false;

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
      : up(v.up_x()), down(v.down_x()), taps(p.kw), slack(0), wide(0) {
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

// What the call says.
inline TileArgs args_of(const UpFirDn2dParams& p) {
  TileArgs a{};
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
  return a;
}

// Rows of one block: at most `walk`, and fewer where the grid would leave multiprocessors idle.
// blocks: of the grid, if each walked down the whole image.
inline int64_t rows_of_block(const Variant& v, int64_t walk, int64_t rows, int64_t step,
                             int64_t blocks, const Limits& limits) {
  const int64_t wanted = ceil_div(static_cast<int64_t>(limits.multiprocessors) * 8, blocks);
  const int64_t spread = round_up(ceil_div(rows, wanted), step);
  const int64_t shortest = round_up(std::max<int64_t>(v.taps_y() / v.up_y(), step), step);
  return std::min(round_up(std::min(walk, rows), step), std::max(spread, shortest));
}

// The tile of one row for one call, of `tiles_x` tiles along x. False where it does not fit
// (threads, shared memory, grid).
inline bool fit_tile(const Variant& v, const UpFirDn2dParams& p, const Limits& limits,
                     int64_t tiles_x, TilePlan* plan) {
  const Numbers s = numbers_of(v, p.dtype == Dtype::float32 ? 4 : 2);
  const bool last = v.layout == Layout::channels_last;
  const bool planar = v.method == Method::planar;
  const int64_t up = v.up_x(), down = v.down_x(), threads = most_threads(v, p);
  TileArgs a = args_of(p);

  // Rows. Steps begin where y * down - pad_y is a multiple of up.
  a.shift_y = static_cast<int>(floor_mod(-p.pad_y0, v.up_y()));
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

  const int64_t others = ceil_div(a.planes, a.slots) * tiles_x;
  const int64_t tile_h = planar ? round_up(std::min<int64_t>(walk, rows), s.rows)
                                : rows_of_block(v, walk, rows, s.rows, others, limits);
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
        static_cast<int64_t>(a.groups) * s.period + window_of(s.run, up - 1, up, down, v.taps_x()));
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

// The tile of a row whose method is `columns`.
inline bool plan_columns(const Variant& v, const UpFirDn2dParams& p, const Limits& limits,
                         TilePlan* plan) {
  const Numbers s = numbers_of(v, p.dtype == Dtype::float32 ? 4 : 2);
  const int64_t threads = most_threads(v, p);
  TileArgs a = args_of(p);

  // Steps and runs begin where y * down - pad_y is one below a multiple of up.
  a.shift_y = static_cast<int>(floor_mod(1 - v.up_y() - p.pad_y0, v.up_y()));
  a.shift_x = static_cast<int>(floor_mod(1 - v.up_x() - p.pad_x0, v.up_x()));
  const int64_t rows = p.out.h + a.shift_y, runs = ceil_div(p.out.w + a.shift_x, s.run);

  // Along the channels of a pixel so many threads as take 128 bytes, a line of the cache, and more
  // where the image is too narrow for the others.
  const int64_t vectors = p.in.c / s.load;
  const int64_t line = std::max<int64_t>(1, 128 / (s.load * s.element));
  const int64_t reach = round_up(std::max<int64_t>(1, threads / runs), line);
  const int64_t parts = ceil_div(vectors, std::min({vectors, reach, threads}));
  const int64_t share = std::min(parts == 1 ? vectors : round_up(ceil_div(vectors, parts), line),
                                 threads);
  a.tiles_x = static_cast<int>(ceil_div(runs, std::min(runs, threads / share)));
  a.columns = static_cast<int>(ceil_div(runs, a.tiles_x));
  a.tile_w = a.columns * s.run;
  a.channels = static_cast<int>(share * s.load);
  a.slot_threads = static_cast<int>(a.columns * share);
  a.planes = p.in.n * ceil_div(vectors, share);
  a.slots = static_cast<int>(
      std::max<int64_t>(1, std::min<int64_t>(threads / a.slot_threads, a.planes)));

  const int64_t others = ceil_div(a.planes, a.slots) * a.tiles_x;
  a.tile_h = static_cast<int>(rows_of_block(v, v.walk, rows, s.rows, others, limits));
  a.tiles_y = static_cast<int>(ceil_div(rows, a.tile_h));

  const int64_t blocks = others * a.tiles_y;
  if (blocks > 0x7fffffff) return false;
  plan->grid = static_cast<unsigned>(blocks);
  plan->block = static_cast<unsigned>(round_up(a.slots * a.slot_threads, 32));
  plan->shared = 0;
  plan->args = a;
  plan->efficiency = 1;
  plan->looked_at = 1;
  return true;
}

// The tile of one row for one call. False where none fits.
inline bool plan_tile(const Variant& v, const UpFirDn2dParams& p, const Limits& limits,
                      TilePlan* plan) {
  if (v.method == Method::columns) return plan_columns(v, p, limits, plan);

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
  const UpFirDn2dParams call = in_table_form(p, fused);
  for (int row = 0; row < kVariantCount; ++row) {
    const Variant& v = kVariants[row];
    if ((fused && !v.fused) || !serves(v, call)) continue;
    if (!plan_tile(v, call, limits, &plan)) continue;
    plan.variant = row;
    return plan;
  }
  plan.variant = kGeneric;
  return plan;
}

}  // namespace resample_layers
