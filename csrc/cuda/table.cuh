// SPDX-License-Identifier: BSD-3-Clause
//
// The specialised variants, one a row, and the choice among them. Host code, no
// CUDA call: tests/cuda_host reads the same table.
//
// A tile is walked down the image in steps of `rows` output rows. In one step
// each thread filters its own columns vertically in registers, hands the sums to
// its neighbours through shared memory, and filters `run` outputs horizontally.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "../upfirdn2d.h"

#if defined(__CUDACC__)
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif

namespace resample_layers {

enum class Method { separable, planar };  // planar: a small kernel that is not separable
enum class Layout { contiguous, channels_last };

struct Variant {
  Method method;
  Layout layout;
  int up, down;  // of both axes
  int taps;      // most taps of an axis
  bool exact;    // true: exactly that many
  int bytes;     // one thread's access; 0: one element
  int rows32;    // output rows of one step for float32; of one thread where planar
  int rows16;    // the same for float16 and bfloat16
  int run;       // outputs along x of one thread; contiguous: at least 16 bytes
  int threads;   // most threads of one block
  int blocks;    // blocks a multiprocessor shall hold: bounds the registers
  int walk;      // output rows of one block; planar: rows of a tile
  bool fused;    // also instantiated with the epilogue
};

constexpr Method sep = Method::separable;
constexpr Method pln = Method::planar;
constexpr Layout nchw = Layout::contiguous;
constexpr Layout nhwc = Layout::channels_last;

// The first row that serves a call is taken.
inline constexpr Variant kVariants[] = {
    // method layout up down taps exact  bytes rows32 rows16 run threads blocks walk  fused
    {  sep,   nchw,  1, 1,    4, true,   16,    8,     4,    4,   160,    4,    64,  true },
    {  sep,   nchw,  1, 1,    4, true,    0,    8,     8,    4,   256,    4,    64,  true },
    {  sep,   nchw,  1, 1,    8, false,   0,    8,     8,    8,   256,    2,    96,  false},
    {  sep,   nchw,  1, 1,   12, true,    0,    8,     8,    8,   256,    2,   128,  false},
    {  sep,   nchw,  1, 1,   16, false,   0,    8,     8,    8,   256,    2,   128,  false},
    {  sep,   nchw,  1, 1,   24, true,    0,    8,     8,    8,   256,    2,   192,  false},
    {  sep,   nchw,  1, 1,   32, false,   0,    8,     8,    8,   256,    2,   192,  false},
    {  sep,   nchw,  2, 1,    4, true,   16,    8,     4,    4,   160,    4,    64,  true },
    {  sep,   nchw,  2, 1,    4, true,    0,    8,     8,    4,   256,    4,    64,  true },
    {  sep,   nchw,  2, 1,    8, false,   0,    8,     8,    8,   256,    2,    96,  false},
    {  sep,   nchw,  2, 1,   12, true,    0,    8,     8,    8,   256,    2,   128,  false},
    {  sep,   nchw,  2, 1,   16, false,   0,    8,     8,    8,   256,    2,   128,  false},
    {  sep,   nchw,  2, 1,   24, true,    0,    8,     8,    8,   256,    2,   192,  false},
    {  sep,   nchw,  2, 1,   32, false,   0,    8,     8,    8,   256,    2,   192,  false},
    {  sep,   nchw,  1, 2,    4, true,   16,    4,     2,    4,   160,    4,    32,  true },
    {  sep,   nchw,  1, 2,    4, true,    0,    4,     4,    4,   256,    4,    32,  true },
    {  sep,   nchw,  1, 2,    8, false,   0,    4,     4,    8,   256,    2,    48,  false},
    {  sep,   nchw,  1, 2,   12, true,    0,    4,     4,    8,   256,    2,    64,  false},
    {  sep,   nchw,  1, 2,   16, false,   0,    4,     4,    8,   256,    2,    64,  false},
    {  sep,   nchw,  1, 2,   24, true,    0,    4,     4,    8,   256,    2,    96,  false},
    {  sep,   nchw,  1, 2,   32, false,   0,    4,     4,    8,   256,    2,    96,  false},
    {  sep,   nchw,  4, 1,   16, false,   0,    8,     8,    4,   256,    2,   128,  false},
    {  sep,   nchw,  4, 1,   32, false,   0,    8,     8,    4,   256,    2,   128,  false},
    {  sep,   nchw,  1, 4,   16, false,   0,    2,     2,    4,   256,    2,    32,  false},
    {  sep,   nchw,  1, 4,   32, false,   0,    2,     2,    4,   256,    2,    48,  false},
    {  sep,   nhwc,  1, 1,    4, true,   16,    4,     4,    4,   256,    2,    64,  true },
    {  sep,   nhwc,  1, 1,    4, true,    0,    8,     8,    4,   320,    2,    64,  true },
    {  sep,   nhwc,  1, 1,    8, false,   4,    8,     8,    4,   320,    2,    96,  false},
    {  sep,   nhwc,  1, 1,   12, true,    4,    8,     8,    8,   512,    1,   128,  false},
    {  sep,   nhwc,  1, 1,   16, false,   4,    8,     8,    8,   512,    1,   128,  false},
    {  sep,   nhwc,  1, 1,   24, true,    4,    8,     8,    8,   512,    1,   192,  false},
    {  sep,   nhwc,  1, 1,   32, false,   4,    8,     4,    8,   384,    1,   192,  false},
    {  sep,   nhwc,  2, 1,    4, true,   16,    4,     4,    4,   256,    2,    64,  true },
    {  sep,   nhwc,  2, 1,    4, true,    0,    8,     8,    4,   320,    2,    64,  true },
    {  sep,   nhwc,  2, 1,    8, false,   4,    8,     8,    4,   320,    2,    96,  false},
    {  sep,   nhwc,  2, 1,   12, true,    4,    8,     8,    8,   512,    1,   128,  false},
    {  sep,   nhwc,  2, 1,   16, false,   4,    8,     8,    8,   512,    1,   128,  false},
    {  sep,   nhwc,  2, 1,   24, true,    4,    8,     8,    8,   512,    1,   192,  false},
    {  sep,   nhwc,  2, 1,   32, false,   4,    8,     8,    8,   512,    1,   192,  false},
    {  sep,   nhwc,  1, 2,    4, true,   16,    2,     2,    4,   256,    2,    32,  true },
    {  sep,   nhwc,  1, 2,    4, true,    0,    4,     4,    4,   320,    2,    32,  true },
    {  sep,   nhwc,  1, 2,    8, false,   4,    4,     4,    4,   320,    2,    48,  false},
    {  sep,   nhwc,  1, 2,   12, true,    4,    4,     4,    4,   512,    1,    64,  false},
    {  sep,   nhwc,  1, 2,   16, false,   4,    4,     4,    4,   512,    1,    64,  false},
    {  sep,   nhwc,  1, 2,   24, true,    4,    4,     4,    4,   512,    1,    96,  false},
    {  sep,   nhwc,  1, 2,   32, false,   4,    4,     2,    4,   384,    1,    96,  false},
    {  sep,   nhwc,  4, 1,   16, false,   4,    8,     8,    4,   320,    1,   128,  false},
    {  sep,   nhwc,  4, 1,   32, false,   4,    8,     8,    4,   320,    1,   128,  false},
    {  sep,   nhwc,  1, 4,   16, false,   4,    2,     2,    4,   512,    1,    32,  false},
    {  sep,   nhwc,  1, 4,   32, false,   4,    2,     1,    4,   512,    1,    48,  false},
    {  pln,   nchw,  1, 1,    4, false,  16,    4,     4,    4,   192,    2,    16,  false},
    {  pln,   nchw,  1, 1,    4, false,   0,    4,     4,    4,   256,    3,    16,  false},
    {  pln,   nchw,  2, 1,    4, false,  16,    4,     4,    4,   192,    2,    16,  false},
    {  pln,   nchw,  2, 1,    4, false,   0,    4,     4,    4,   256,    3,    16,  false},
    {  pln,   nchw,  1, 2,    4, false,  16,    4,     2,    4,   192,    2,     8,  false},
    {  pln,   nchw,  1, 2,    4, false,   0,    4,     2,    4,   256,    3,    16,  false},
    {  pln,   nhwc,  1, 1,    4, false,  16,    4,     2,    2,   256,    2,     8,  false},
    {  pln,   nhwc,  2, 1,    4, false,  16,    4,     2,    2,   256,    2,     8,  false},
    {  pln,   nhwc,  1, 2,    4, false,  16,    2,     2,    2,   256,    2,     4,  false},
#if defined(UPFIRDN2D_TUNING_ROWS)
// Candidates for benchmarks/cuda: after the table, so that the choice does not see them
// where a row above serves.
#include UPFIRDN2D_TUNING_ROWS
#endif
};
constexpr int kVariantCount = static_cast<int>(sizeof(kVariants) / sizeof(kVariants[0]));

// ------------------------------------------------------------------- geometry

HOST_DEVICE constexpr int log2_of(int power_of_two) {
  return power_of_two <= 1 ? 0 : 1 + log2_of(power_of_two / 2);
}

// Inputs that `outputs` neighbouring outputs of one axis read, where the first
// output lies `phase` upsampled samples after its first input.
HOST_DEVICE constexpr int window_of(int outputs, int phase, int up, int down, int taps) {
  return (phase + (outputs - 1) * down + taps - 1) / up + 1;
}

// A row of a tile in shared memory (contiguous). Neighbouring threads read windows
// `period` floats apart: one float of padding after each period makes the distance
// odd, and so keeps them in different banks.
HOST_DEVICE constexpr int padded_index(int index, int period) {
  return period > 1 ? index + (index >> log2_of(period)) : index;
}

// The compile-time numbers of one row of the table for one storage type.
template <class T, int Row>
struct Shape {
  static constexpr Variant v = kVariants[Row];
  static constexpr int kSize = static_cast<int>(sizeof(T));
  static constexpr int kVector = 16 / kSize;                          // elements of 16 bytes
  static constexpr int kLoad = v.bytes == 0 ? 1 : v.bytes / kSize;    // columns or channels
  static constexpr int kRows = kSize == 4 ? v.rows32 : v.rows16;
  static constexpr int kRun =
      v.layout == Layout::contiguous && v.run < kVector ? kVector : v.run;
  static constexpr int kUp = v.up, kDown = v.down, kTaps = v.taps;
  static constexpr bool kExact = v.exact;
  static constexpr int kThreads = v.threads;
  static constexpr int kBlocks = v.blocks;

  // Vertical window of one step: `carry` rows stay from the last step.
  static constexpr int kWindow = window_of(kRows, 0, kUp, kDown, kTaps);
  static constexpr int kNew = kRows * kDown / kUp;
  static constexpr int kCarry = kWindow - kNew;
  // Inputs between the windows of neighbouring runs.
  static constexpr int kPeriod = kRun * kDown / kUp;

  static_assert(kRows % kUp == 0 && kRun % kUp == 0, "a step begins at phase 0");
  static_assert(kCarry >= 0, "a step reads every row once");
};

// The same numbers at run time.
struct Numbers {
  int vector, load, rows, run, period, element;
};

inline Numbers numbers_of(const Variant& v, int element) {
  Numbers s;
  s.element = element;
  s.vector = 16 / element;
  s.load = v.bytes == 0 ? 1 : v.bytes / element;
  s.rows = element == 4 ? v.rows32 : v.rows16;
  s.run = v.layout == Layout::contiguous ? std::max(v.run, s.vector) : v.run;
  s.period = std::max(1, s.run * v.down / v.up);
  return s;
}

// One launch. A slot is the share of a block that holds one plane (contiguous) or
// one group of channels of one sample (channels_last, one slot a block).
struct TileArgs {
  const void* input;
  void* output;
  const void* kernel;          // planar
  const void* taps_x;          // separable
  const void* taps_y;
  int64_t planes;              // n * c; channels_last: n * channel groups
  int64_t in_stride_n, in_stride_c;
  int in_stride_h, in_stride_w;
  int c, in_h, in_w, out_h, out_w;
  int kh, kw, pad_x, pad_y;
  bool flip;

  int tiles_x, tiles_y;
  int tile_w, tile_h;          // outputs of one tile
  int slots, slot_threads;     //
  int columns;                 // threads of a slot along x
  int channels;                // channels_last: channels of one block
  int groups;                  // runs along x of one tile
  uint32_t groups_reciprocal;  // 2^32 / groups, rounded up
  int split;                   // threads that share the rows of one run of columns
  int slack;                   // contiguous: how far an unaligned row may begin early [outputs]
  int shift_y;                 // rows before the first, so that steps begin at phase 0
  int margin;                  // contiguous: floats before the first window in shared memory
  int pitch;                   // floats of one row of one slot in shared memory
  int slot_floats;             // floats of one buffer of one slot
};

// Kernels that are no row of the table.
constexpr int kGeneric = -1;
constexpr int kPointwise = -2;

struct TilePlan {
  int variant;  // row of the table, or one of the above
  unsigned grid, block;
  size_t shared;  // bytes
  TileArgs args;
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

// The tile of one row for one call. False where no tile fits (shared memory, grid).
inline bool plan_tile(const Variant& v, const UpFirDn2dParams& p, const Limits& limits,
                      TilePlan* plan) {
  const Numbers s = numbers_of(v, p.dtype == Dtype::float32 ? 4 : 2);
  const bool last = v.layout == Layout::channels_last;
  const bool planar = v.method == Method::planar;
  const int64_t taps_x = p.kw, up = v.up, down = v.down;
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

  // Columns of a tile: what its outputs read. Rows whose first output is not aligned
  // to 16 bytes begin up to vector - 1 outputs earlier, and the first wide load begins
  // up to load - 1 inputs earlier.
  const bool aligned_rows = multiple(p.output, 16) && p.out.w % s.vector == 0;
  const int64_t slack = last || planar || aligned_rows ? 0 : s.vector - 1;
  a.slack = static_cast<int>(slack);
  auto columns_of = [&](int64_t tile_w) {
    return (up - 1 + (tile_w - 1 + slack) * down + taps_x - 1) / up + 1 + (last ? 0 : s.load - 1);
  };

  const int64_t buffers = planar ? 1 : 2;
  // The driver keeps 1 KiB of each block's share.
  const int64_t shared = std::min(static_cast<int64_t>(limits.shared) / v.blocks - 1024,
                                  static_cast<int64_t>(limits.shared_block));
  const int64_t tap_floats =
      planar ? round_up(v.taps * v.taps, 4) : 2 * round_up(v.taps, 4);
  // More tiles than needed where that leaves fewer threads idle: a plane is often a few
  // columns wider than a power of two.
  double best = 0;
  int64_t tiles_tried = 0;
  for (int64_t tiles_x = 1; tiles_x <= p.out.w + slack && tiles_tried < 6; ++tiles_x) {
    // Threads
    a.tiles_x = static_cast<int>(tiles_x);
    a.tile_w = static_cast<int>(round_up(ceil_div(p.out.w + slack, tiles_x), s.run));
    const int64_t columns = columns_of(a.tile_w);
    if (last) {
      if (columns > v.threads) continue;
      // 32 (wide loads: 64) bytes of neighbouring channels or more, as far as threads reach
      const int64_t vectors = p.in.c / s.load;
      const int64_t wanted =
          std::min<int64_t>(vectors, ceil_div(v.bytes == 16 ? 64 : 32, s.load * s.element));
      if (columns * wanted > v.threads && a.tile_w > s.run) continue;
      const int64_t most = std::max<int64_t>(1, v.threads / columns);
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
      if (a.columns > v.threads) continue;
      a.channels = 1;
      a.slot_threads = a.columns;
      a.planes = p.in.n * p.in.c;
      a.slots = static_cast<int>(
          std::max<int64_t>(1, std::min<int64_t>(v.threads / a.columns, a.planes)));
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

    // Shared memory
    if (last) {
      a.margin = 0;
      a.pitch = a.columns * a.channels;
    } else {
      const int64_t before = ceil_div(slack * down, up) + s.load;
      a.margin = static_cast<int>(round_up(before, s.period));
      const int64_t longest = std::max<int64_t>(
          static_cast<int64_t>(a.columns) * s.load,
          static_cast<int64_t>(a.groups) * s.period + window_of(s.run, up - 1, up, down, v.taps));
      a.pitch = padded_index(static_cast<int>(a.margin + longest), s.period) + 1;
    }
    const int64_t kept = planar ? window_of(a.tile_h, 0, v.up, v.down, v.taps) : s.rows;
    a.slot_floats = static_cast<int>(round_up(kept * a.pitch, 4));
    auto bytes = [&] { return 4 * (tap_floats + buffers * a.slots * a.slot_floats); };
    while (a.slots > 1 && bytes() > shared) --a.slots;
    if (bytes() > shared) {
      continue;
    }

    ++tiles_tried;
    const int64_t blocks = ceil_div(a.planes, a.slots) * tiles_x * a.tiles_y;
    if (blocks > 0x7fffffff) continue;
    const int64_t block = round_up(a.slots * a.slot_threads, 32);
    const double lanes = static_cast<double>(a.slots) * (last ? a.channels / s.load : 1);
    const double efficiency = lanes * static_cast<double>(p.out.w) /
                              static_cast<double>(tiles_x * block);
    if (best > 0 && efficiency < best * 1.04) continue;
    best = efficiency;
    plan->grid = static_cast<unsigned>(blocks);
    plan->block = static_cast<unsigned>(block);
    plan->shared = static_cast<size_t>(bytes());
    plan->args = a;
  }
  return best > 0;
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
