// SPDX-License-Identifier: BSD-3-Clause
//
// The specialised variants, one a row, and what a tile kernel is told. Host code, no
// CUDA call: tests/cuda_host reads the same table.
//
// A tile is walked down the image in steps of `rows` output rows. In one step
// each thread filters its own columns vertically in registers, hands the sums to
// its neighbours through shared memory, and filters `run` outputs horizontally
// (separable.cuh), or reads its neighbours' columns itself (columns.cuh).
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

// planar: a small 2-D kernel. columns: separable taps, without shared memory.
enum class Method { separable, planar, columns };
enum class Layout { contiguous, channels_last };
enum class Axes { both, x, y };  // that have taps and factors: of the other one there is one tap

struct Variant {
  Method method;
  Layout layout;
  int up, down;  // of the axes
  int taps;      // most taps of an axis
  bool exact;    // true: exactly that many
  int bytes;     // one thread's access; 0: one element
  int rows32;    // output rows of one step for float32; of one thread where planar; 0: the row
                 // does not serve float32; columns: input rows that a thread asks for ahead
  int rows16;    // the same for float16 and bfloat16
  int run;       // outputs along x of one thread; contiguous: at least 16 bytes; columns: times up
  int threads;   // most threads of one block
  int narrow;    // the same where the output is at most kNarrow wide; 0: threads
  int blocks;    // blocks a multiprocessor shall hold: bounds the registers
  int walk;      // output rows of one block; planar: rows of a tile
  int widest;    // most outputs along x; 0: any number
  bool fused;    // also instantiated with the epilogue
  Axes axes = Axes::both;

  constexpr int up_x() const { return axes == Axes::y ? 1 : up; }
  constexpr int up_y() const { return axes == Axes::x ? 1 : up; }
  constexpr int down_x() const { return axes == Axes::y ? 1 : down; }
  constexpr int down_y() const { return axes == Axes::x ? 1 : down; }
  constexpr int taps_x() const { return axes == Axes::y ? 1 : taps; }
  constexpr int taps_y() const { return axes == Axes::x ? 1 : taps; }
};

constexpr int kNarrow = 128;  // outputs: small planes are better served by small blocks

constexpr Method sep = Method::separable;
constexpr Method pln = Method::planar;
constexpr Method col = Method::columns;
constexpr Axes only_x = Axes::x, only_y = Axes::y;
constexpr Layout nchw = Layout::contiguous;
constexpr Layout nhwc = Layout::channels_last;

// The first row that serves a call is taken. Rows of float32 alone are as measured on an H100
// (benchmarks/NOTES.md, "The table by measurement"); those of 16-bit types, of the columns and of
// one axis are predicted there and not measured yet.
inline constexpr Variant kVariants[] = {
    // method, layout, up, down, taps, exact, bytes, rows32, rows16, run, threads, narrow, blocks,
    // walk, widest, fused, axes
    {sep, nchw, 1, 1,  32, false,   0,     8,     8,    8,   256,     0,    3,    32,     0, false, only_x},
    {sep, nchw, 2, 1,   4, true,    0,     8,     8,    4,   256,     0,    4,    32,     0, false, only_x},
    {sep, nchw, 2, 1,  12, true,    0,     8,     8,    8,   256,     0,    3,    32,     0, false, only_x},
    {sep, nchw, 2, 1,  32, false,   0,     8,     8,    8,   256,     0,    3,    32,     0, false, only_x},
    {sep, nchw, 1, 2,   4, true,    0,     8,     8,    4,   256,     0,    4,    32,     0, false, only_x},
    {sep, nchw, 1, 2,  12, true,    0,     8,     8,    8,   256,     0,    3,    32,     0, false, only_x},
    {sep, nchw, 1, 2,  32, false,   0,     8,     8,    8,   256,     0,    3,    32,     0, false, only_x},
    {col, nhwc, 1, 1,   4, true,   16,     2,     2,    1,   256,     0,    3,    64,     0, false, only_y},
    {col, nhwc, 1, 1,  16, false,   8,     2,     0,    1,   256,     0,    2,    64,     0, false, only_y},
    {col, nhwc, 1, 1,  16, false,   4,     0,     2,    1,   256,     0,    2,    64,     0, false, only_y},
    {col, nhwc, 1, 1,  32, false,   0,     4,     4,    1,   256,     0,    2,   128,     0, false, only_y},
    {col, nhwc, 2, 1,   4, true,   16,     2,     2,    1,   256,     0,    4,    64,     0, false, only_y},
    {col, nhwc, 2, 1,  16, false,   8,     2,     0,    1,   256,     0,    2,    64,     0, false, only_y},
    {col, nhwc, 2, 1,  16, false,   4,     0,     2,    1,   256,     0,    2,    64,     0, false, only_y},
    {col, nhwc, 2, 1,  32, false,   0,     4,     4,    1,   256,     0,    2,   128,     0, false, only_y},
    {col, nhwc, 1, 2,   4, true,   16,     2,     2,    1,   256,     0,    4,    32,     0, false, only_y},
    {col, nhwc, 1, 2,  16, false,   8,     2,     0,    1,   256,     0,    2,    32,     0, false, only_y},
    {col, nhwc, 1, 2,  16, false,   4,     0,     2,    1,   256,     0,    2,    32,     0, false, only_y},
    {col, nhwc, 1, 2,  32, false,   0,     4,     4,    1,   256,     0,    2,    64,     0, false, only_y},
    {sep, nchw, 1, 1,   4, true,    8,     8,     0,    4,   160,     0,    6,    16,   512, true },
    {sep, nchw, 1, 1,   4, true,    8,     8,     0,    4,   256,     0,    3,    16,     0, true },
    {sep, nchw, 1, 1,   4, true,   16,     0,     4,    4,   160,     0,    4,    64,     0, true },
    {sep, nchw, 1, 1,   4, true,    0,     8,     0,    4,   256,     0,    4,    16,     0, true },
    {sep, nchw, 1, 1,   4, true,    0,     0,     8,    4,   256,     0,    4,    64,     0, true },
    {sep, nchw, 1, 1,   8, false,   0,     8,     8,    8,   256,     0,    2,    96,     0, false},
    {sep, nchw, 1, 1,  12, true,    8,     8,     0,    8,   128,     0,    4,    32,     0, false},
    {sep, nchw, 1, 1,  12, true,    0,     8,     0,    8,   256,   128,    2,   128,     0, false},
    {sep, nchw, 1, 1,  12, true,    0,     0,     8,    8,   256,     0,    2,   128,     0, false},
    {sep, nchw, 1, 1,  16, false,   0,     8,     8,    8,   256,     0,    2,   128,     0, false},
    {sep, nchw, 1, 1,  24, true,    0,    16,     0,    8,   256,   128,    2,   256,     0, false},
    {sep, nchw, 1, 1,  24, true,    0,     0,     8,    8,   256,     0,    2,   192,     0, false},
    {sep, nchw, 1, 1,  32, false,   0,     8,     8,    8,   256,     0,    2,   192,     0, false},
    {sep, nchw, 2, 1,   4, true,   16,     0,     4,    4,   160,     0,    4,    64,     0, true },
    {sep, nchw, 2, 1,   4, true,    0,     8,     0,    4,   256,     0,    4,    16,     0, true },
    {sep, nchw, 2, 1,   4, true,    0,     0,     8,    4,   256,     0,    4,    64,     0, true },
    {sep, nchw, 2, 1,   8, false,   0,     8,     8,    8,   256,     0,    2,    96,     0, false},
    {sep, nchw, 2, 1,  12, true,    0,     8,     0,    8,   128,     0,    4,    32,     0, false},
    {sep, nchw, 2, 1,  12, true,    0,     0,     8,    8,   256,     0,    2,   128,     0, false},
    {sep, nchw, 2, 1,  16, false,   0,     8,     8,    8,   256,     0,    2,   128,     0, false},
    {sep, nchw, 2, 1,  24, true,    0,     8,     0,    8,   256,   128,    2,    64,     0, false},
    {sep, nchw, 2, 1,  24, true,    0,     0,     8,    8,   256,     0,    2,   192,     0, false},
    {sep, nchw, 2, 1,  32, false,   0,     8,     8,    8,   256,     0,    2,   192,     0, false},
    {sep, nchw, 1, 2,   4, true,   16,     4,     0,    4,   160,     0,    4,    16,     0, true },
    {sep, nchw, 1, 2,   4, true,   16,     0,     2,    4,   160,     0,    4,    32,     0, true },
    {sep, nchw, 1, 2,   4, true,    0,     4,     4,    4,   256,     0,    4,    32,     0, true },
    {sep, nchw, 1, 2,   8, false,   0,     4,     4,    8,   256,     0,    2,    48,     0, false},
    {sep, nchw, 1, 2,  12, true,    0,     4,     4,    8,   256,     0,    2,    64,     0, false},
    {sep, nchw, 1, 2,  16, false,   0,     4,     4,    8,   256,     0,    2,    64,     0, false},
    {sep, nchw, 1, 2,  24, true,    0,     8,     0,    8,   256,   128,    2,   128,     0, false},
    {sep, nchw, 1, 2,  24, true,    0,     0,     4,    8,   256,     0,    2,    96,     0, false},
    {sep, nchw, 1, 2,  32, false,   0,     4,     4,    8,   256,     0,    2,    96,     0, false},
    {sep, nchw, 4, 1,  16, false,   0,     8,     8,    4,   256,     0,    2,   128,     0, false},
    {sep, nchw, 4, 1,  32, false,   0,     8,     8,    4,   256,     0,    2,   128,     0, false},
    {sep, nchw, 1, 4,  16, false,   0,     2,     2,    4,   256,     0,    2,    32,     0, false},
    {sep, nchw, 1, 4,  32, false,   0,     2,     2,    4,   256,     0,    2,    48,     0, false},
    {col, nhwc, 1, 1,   4, true,   16,     1,     0,    2,   256,     0,    2,    32,     0, true },
    {col, nhwc, 1, 1,   4, true,   16,     0,     2,    1,   256,     0,    2,    32,     0, true },
    {sep, nhwc, 1, 1,   4, true,    0,     8,     8,    4,   320,     0,    2,    64,     0, true },
    {sep, nhwc, 1, 1,   8, false,   4,     8,     8,    4,   320,     0,    2,    96,     0, false},
    {sep, nhwc, 1, 1,  12, true,    4,     8,     8,    8,   512,     0,    1,   128,     0, false},
    {sep, nhwc, 1, 1,  16, false,   4,     8,     8,    8,   512,     0,    1,   128,     0, false},
    {sep, nhwc, 1, 1,  24, true,    4,     8,     8,    8,   512,     0,    1,   192,     0, false},
    {sep, nhwc, 1, 1,  32, false,   4,     8,     4,    8,   384,     0,    1,   192,     0, false},
    {col, nhwc, 2, 1,   4, true,   16,     2,     2,    1,   256,     0,    3,    32,     0, true },
    {sep, nhwc, 2, 1,   4, true,    0,     8,     8,    4,   320,     0,    2,    64,     0, true },
    {sep, nhwc, 2, 1,   8, false,   4,     8,     8,    4,   320,     0,    2,    96,     0, false},
    {sep, nhwc, 2, 1,  12, true,    4,     8,     8,    8,   512,     0,    1,   128,     0, false},
    {sep, nhwc, 2, 1,  16, false,   4,     8,     8,    8,   512,     0,    1,   128,     0, false},
    {sep, nhwc, 2, 1,  24, true,    4,     8,     8,    8,   512,     0,    1,   192,     0, false},
    {sep, nhwc, 2, 1,  32, false,   4,     8,     8,    8,   512,     0,    1,   192,     0, false},
    {col, nhwc, 1, 2,   4, true,   16,     2,     2,    1,   256,     0,    2,    16,     0, true },
    {sep, nhwc, 1, 2,   4, true,    0,     4,     4,    4,   320,     0,    2,    32,     0, true },
    {sep, nhwc, 1, 2,   8, false,   4,     4,     4,    4,   320,     0,    2,    48,     0, false},
    {sep, nhwc, 1, 2,  12, true,    4,     4,     4,    4,   512,     0,    1,    64,     0, false},
    {sep, nhwc, 1, 2,  16, false,   4,     4,     4,    4,   512,     0,    1,    64,     0, false},
    {sep, nhwc, 1, 2,  24, true,    4,     4,     4,    4,   512,     0,    1,    96,     0, false},
    {sep, nhwc, 1, 2,  32, false,   4,     4,     2,    4,   384,     0,    1,    96,     0, false},
    {sep, nhwc, 4, 1,  16, false,   4,     8,     8,    4,   320,     0,    1,   128,     0, false},
    {sep, nhwc, 4, 1,  32, false,   4,     8,     8,    4,   320,     0,    1,   128,     0, false},
    {sep, nhwc, 1, 4,  16, false,   4,     2,     2,    4,   512,     0,    1,    32,     0, false},
    {sep, nhwc, 1, 4,  32, false,   4,     2,     1,    4,   512,     0,    1,    48,     0, false},
    {pln, nchw, 1, 1,   4, false,  16,     4,     4,    4,   192,     0,    2,    16,     0, false},
    {pln, nchw, 1, 1,   4, false,   0,     4,     0,    4,   128,     0,    3,    32,     0, false},
    {pln, nchw, 1, 1,   4, false,   0,     0,     4,    4,   256,     0,    3,    16,     0, false},
    {pln, nchw, 2, 1,   4, false,  16,     0,     4,    4,   192,     0,    2,    16,     0, false},
    {pln, nchw, 2, 1,   4, false,   0,     4,     0,    4,   128,     0,    3,    16,     0, false},
    {pln, nchw, 2, 1,   4, false,   0,     0,     4,    4,   256,     0,    3,    16,     0, false},
    {pln, nchw, 1, 2,   4, false,  16,     4,     2,    4,   192,     0,    2,     8,     0, false},
    {pln, nchw, 1, 2,   4, false,   0,     4,     2,    4,   256,     0,    3,    16,     0, false},
    {pln, nhwc, 1, 1,   4, false,  16,     4,     0,    2,   256,   128,    2,    16,     0, false},
    {pln, nhwc, 1, 1,   4, false,  16,     0,     2,    2,   256,     0,    2,     8,     0, false},
    {pln, nhwc, 2, 1,   4, false,  16,     4,     0,    2,   256,     0,    2,    16,     0, false},
    {pln, nhwc, 2, 1,   4, false,  16,     0,     2,    2,   256,     0,    2,     8,     0, false},
    {pln, nhwc, 1, 2,   4, false,  16,     2,     2,    2,   256,     0,    2,     4,     0, false},
#if defined(UPFIRDN2D_TUNING_ROWS)
// Candidates for benchmarks/cuda: after the table, so that the choice does not see them
// where a row above serves.
#include UPFIRDN2D_TUNING_ROWS
#endif
};
constexpr int kVariantCount = static_cast<int>(sizeof(kVariants) / sizeof(kVariants[0]));

// Output rows of one step, of a row of the table for elements of so many bytes.
constexpr int rows_of(const Variant& v, int element) {
  return element == 4 ? v.rows32 : v.rows16;
}

// Is there a kernel of this row for a storage type?
template <class T>
constexpr bool has_kernel(const Variant& v, bool fused) {
  return rows_of(v, static_cast<int>(sizeof(T))) > 0 && (v.fused || !fused);
}

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
  static constexpr int kRows = rows_of(v, kSize);
  static constexpr int kRun =
      v.layout == Layout::contiguous && v.run < kVector ? kVector : v.run;
  static constexpr int kUp = v.up, kDown = v.down, kTaps = v.taps;
  static constexpr int kUpX = v.up_x(), kDownX = v.down_x(), kTapsX = v.taps_x();
  static constexpr int kUpY = v.up_y(), kDownY = v.down_y(), kTapsY = v.taps_y();
  static constexpr bool kExact = v.exact;

  // Vertical window of one step: `carry` rows stay from the last step.
  static constexpr int kWindow = window_of(kRows, 0, kUpY, kDownY, kTapsY);
  static constexpr int kNew = kRows * kDownY / kUpY;
  static constexpr int kCarry = kWindow - kNew;
  // Inputs between the windows of neighbouring runs.
  static constexpr int kPeriod = kRun * kDownX / kUpX;

  static_assert(kRows % kUpY == 0 && kRun % kUpX == 0, "a step begins at phase 0");
  static_assert(kCarry >= 0, "a step reads every row once");
};

// One axis of a row of the table whose method is `columns`. Runs and steps begin at the last
// phase: then all outputs of a run of `up` read the same samples, and the tap that meets sample m
// of a window for output j is up - 1 + m * up - j * down.
struct ColumnAxis {
  int up, down, taps;

  HOST_DEVICE constexpr int tap(int sample, int output) const {
    return up - 1 + sample * up - output * down;
  }
  HOST_DEVICE constexpr int sample(int tap, int output) const {
    return (tap + 1 - up + output * down) / up;
  }
  // The outputs, at most `up`, whose last sample is this one: is there a j-th, and which is it?
  HOST_DEVICE constexpr bool ready(int sample, int j) const {
    return (sample * up - taps + up + j) % down == 0;
  }
  HOST_DEVICE constexpr int output(int sample, int j) const {
    return (sample * up - taps + up + j) / down;
  }
  // The last sample that this output reads, and what a run reads in all.
  HOST_DEVICE constexpr int last(int output) const { return (taps - up + output * down) / up; }
  HOST_DEVICE constexpr int window(int outputs) const { return last(outputs - 1) + 1; }
  // Of the samples of a step so many stay for the next one.
  HOST_DEVICE constexpr int carry() const { return window(up) - down; }
  // New samples of a step: more than stay, so that in the unrolled step each new row takes the
  // registers of one that no output reads any more, and nothing is moved; `ahead` divides it.
  HOST_DEVICE constexpr int step(int ahead) const {
    return (carry() / (down * ahead) + 1) * down * ahead;
  }
};

constexpr ColumnAxis axis_x(const Variant& v) { return {v.up_x(), v.down_x(), v.taps_x()}; }
constexpr ColumnAxis axis_y(const Variant& v) { return {v.up_y(), v.down_y(), v.taps_y()}; }

// The compile-time numbers of a row whose method is `columns`.
template <class T, int Row>
struct ColumnShape {
  static constexpr Variant v = kVariants[Row];
  static constexpr int kLoad = v.bytes == 0 ? 1 : v.bytes / static_cast<int>(sizeof(T));
  static constexpr int kUpX = v.up_x(), kDownX = v.down_x(), kTapsX = v.taps_x();
  static constexpr int kUpY = v.up_y(), kDownY = v.down_y(), kTapsY = v.taps_y();
  static constexpr bool kExact = v.exact;
  HOST_DEVICE static constexpr ColumnAxis x() { return {kUpX, kDownX, kTapsX}; }
  HOST_DEVICE static constexpr ColumnAxis y() { return {kUpY, kDownY, kTapsY}; }

  static constexpr int kRun = v.run * kUpX;
  static constexpr int kAhead = rows_of(v, static_cast<int>(sizeof(T)));
  static constexpr int kColumns = axis_x(v).window(kRun);  // that a thread reads,
  static constexpr int kOwn = kRun * kDownX / kUpX;        // and that no other thread begins with
  static constexpr int kCarry = axis_y(v).carry();
  static constexpr int kNew = axis_y(v).step(kAhead);
  static constexpr int kRows = kNew * kUpY / kDownY;  // outputs of a step

  static_assert(kTapsX >= kUpX && kCarry >= 0 && axis_y(v).last(0) >= kCarry,
                "each output of a step waits for a new row");
  static_assert(kUpX == 1 || kDownX == 1, "a run begins at the last phase");
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
  s.rows = rows_of(v, element);
  if (v.method == Method::columns) {
    s.rows = s.rows == 0 ? 0 : axis_y(v).step(s.rows) * v.up_y() / v.down_y();
    s.run = v.run * v.up_x();
  } else {
    s.run = v.layout == Layout::contiguous ? std::max(v.run, s.vector) : v.run;
  }
  s.period = std::max(1, s.run * v.down_x() / v.up_x());
  return s;
}

// One launch. A slot is the share of a block that holds one plane (contiguous) or
// one group of channels of one sample (channels_last, one slot a block).
struct TileArgs {
  const void* input;
  void* output;
  const void* kernel;          // 2-D
  const void* taps_x;          // separable; of one axis null: one tap of 1
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
  int shift_y;                 // rows before the first, so that steps begin at their phase
  int shift_x;                 // columns likewise
  int margin;                  // contiguous: floats before the first window in shared memory
  int pitch;                   // floats of one row of one slot in shared memory
  int slot_floats;             // floats of one buffer of one slot
};

}  // namespace resample_layers
