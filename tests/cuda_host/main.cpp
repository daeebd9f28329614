// SPDX-License-Identifier: BSD-3-Clause
//
// Emulated kernels against the oracle.
//
//   cuda_host list                          rows of the table
//   cuda_host plans                         what the choice must be
//   cuda_host conversions                   every float16, and rounding
//   cuda_host sweep FIRST LAST EXTRA ORDER  rows; random calls beside the edges; thread order
//   cuda_host generic COUNT ORDER           random rates, strides, crops; the kernel's gradient
//   cuda_host axes COUNT ORDER              filters of one axis, as the library chooses
//   cuda_host taps ORDER                    taps of NaN and infinity, and clamps without an end
//   cuda_host large                         kernel gradients of far positions and of many taps
//   cuda_host pointwise COUNT ORDER         one tap: edges of vectors, lines, blocks; random calls
//   cuda_host activation COUNT ORDER        the activation's gradient: the same, and all its sums
//   cuda_host barrier NUMBER                0: without it every row that meets it goes wrong
//
// Exit status 0: all right; 1: a wrong result; 3: a broken rule of the machine.
#include <sys/mman.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "check.h"
#include "cuda_host.h"
#include "plan.cuh"

namespace check {

using namespace resample_layers;

extern template double run<Half>(const Call&);
extern template double run<BFloat16>(const Call&);
extern template double run<float>(const Call&);
extern template double run<double>(const Call&);
extern template double run_kernel_grad<Half>(const Call&);
extern template double run_bias_act_grad<Half>(const ActGradCall&);
extern template double run_kernel_grad<BFloat16>(const Call&);
extern template double run_bias_act_grad<BFloat16>(const ActGradCall&);
extern template double run_kernel_grad<float>(const Call&);
extern template double run_bias_act_grad<float>(const ActGradCall&);
extern template double run_kernel_grad<double>(const Call&);
extern template double run_bias_act_grad<double>(const ActGradCall&);

namespace {

const Dtype kTypes[] = {Dtype::float32, Dtype::float16, Dtype::bfloat16, Dtype::float64};
const char* const kTypeNames[] = {"float32", "float16", "bfloat16", "float64"};

double run_any(int type, const Call& call) {
  switch (kTypes[type]) {
    case Dtype::float16: return run<Half>(call);
    case Dtype::bfloat16: return run<BFloat16>(call);
    case Dtype::float32: return run<float>(call);
    case Dtype::float64: return run<double>(call);
  }
  return HUGE_VAL;
}

double run_kernel_grad_any(int type, const Call& call) {
  switch (kTypes[type]) {
    case Dtype::float16: return run_kernel_grad<Half>(call);
    case Dtype::bfloat16: return run_kernel_grad<BFloat16>(call);
    case Dtype::float32: return run_kernel_grad<float>(call);
    case Dtype::float64: return run_kernel_grad<double>(call);
  }
  return HUGE_VAL;
}

double run_bias_act_grad_any(int type, const ActGradCall& call) {
  switch (kTypes[type]) {
    case Dtype::float16: return run_bias_act_grad<Half>(call);
    case Dtype::bfloat16: return run_bias_act_grad<BFloat16>(call);
    case Dtype::float32: return run_bias_act_grad<float>(call);
    case Dtype::float64: return run_bias_act_grad<double>(call);
  }
  return HUGE_VAL;
}

struct Tally {
  int64_t served = 0, wrong = 0;
  double worst = 0;
  bool print = true;
  int removed_barrier = -1;

  // Without a barrier, one wrong call tells all, and so does one that never meets the barrier.
  bool enough() const {
    return removed_barrier >= 0 && served > 0 &&
           (wrong > 0 || cuda_host::barriers_met[static_cast<size_t>(removed_barrier)] == 0);
  }

  template <class AnyCall>
  void add(double error, const char* type, const AnyCall& call) {
    if (error < 0) return;
    ++served;
    if (error > worst) worst = error;
    if (error <= 1) return;
    if (++wrong <= 5 && print) std::printf("WRONG %g %s %s\n", error, type, call.text().c_str());
  }
};

struct Random {
  std::mt19937_64 engine;
  int64_t operator()(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine);
  }
  bool coin() { return (*this)(0, 1) == 1; }
};

// A call that a row serves, its input about as large as its output asks for.
Call call_of(int row, int element, Random& random, int64_t out_h, int64_t out_w) {
  const Variant& v = kVariants[row];
  const Numbers s = numbers_of(v, element);
  Call p;
  p.row = row;
  p.separable = v.method != Method::planar;
  p.channels_last = v.layout == Layout::channels_last;
  p.up_x = v.up_x(), p.up_y = v.up_y(), p.down_x = v.down_x(), p.down_y = v.down_y();
  p.kh = v.exact ? v.taps_y() : random(1, v.taps_y());
  p.kw = v.exact ? v.taps_x() : random(1, v.taps_x());
  p.out_h = out_h, p.out_w = out_w;
  p.pad_x = random(-3, v.taps + 2), p.pad_y = random(-3, v.taps + 2);
  p.flip = random.coin();
  p.seed = static_cast<uint64_t>(random(1, 1 << 30));
  auto size = [&](int64_t out, int64_t down, int64_t k, int64_t pad, int64_t up) {
    return std::max<int64_t>(1, (out * down + k - pad) / up + random(-4, 4));
  };
  p.in_h = size(out_h, p.down_y, p.kh, p.pad_y, p.up_y);
  p.in_w = size(out_w, p.down_x, p.kw, p.pad_x, p.up_x);
  p.n = random(1, 2), p.c = random(1, 3);
  if (p.channels_last) {
    p.c = s.load * random(1, 3);
    p.row_gap = s.load * random(0, 1);
  } else {
    p.in_w = round_up(p.in_w, s.load);
    if (s.load > 1) p.row_gap = s.load * random(0, 1);
    if (s.load == 1) p.row_gap = random(0, 2), p.in_offset = random(0, 3);
    p.out_offset = random(0, 3) == 0 ? random(1, s.vector) : 0;
  }
  return p;
}

// The least threads with which a tile of a few runs fits.
int few_threads(int row, int element) {
  const Variant& v = kVariants[row];
  const Numbers s = numbers_of(v, element);
  if (v.layout == Layout::channels_last) {
    return std::min(v.threads, 2 * ((2 * s.run * v.down_x() + v.taps_x()) / v.up_x() + 3));
  }
  const int columns =
      ((2 * s.run + s.vector) * v.down_x() + v.taps_x()) / v.up_x() + 2 * s.load + 2;
  return std::min(v.threads, (columns + s.load - 1) / s.load);
}

Tally sweep_row(int row, int extra, int removed_barrier = -1) {
  Tally tally;
  tally.print = removed_barrier < 0;
  tally.removed_barrier = removed_barrier;
  const Variant& v = kVariants[row];
  for (int type = 0; type < 3; ++type) {
    const int element = type == 0 ? 4 : 2;
    if (rows_of(v, element) == 0) continue;
    const Numbers s = numbers_of(v, element);
    Random random{std::mt19937_64(static_cast<uint64_t>(row * 3 + type))};
    const int64_t run = s.run, step = s.rows;

    // Small tiles: widths and heights about the edges of runs, tiles, steps and blocks
    const int64_t widths[] = {1,           run - 1,     run,         run + 1,     2 * run - 1,
                              2 * run,     2 * run + 1, 3 * run + 1, 4 * run - 1, 4 * run,
                              4 * run + 1, 6 * run + 3, 8 * run + 1};
    const int64_t heights[] = {1,            step,         step + 1, 2 * step,
                               2 * step + 1, 3 * step + 1, 2};
    int h = 0;
    for (int64_t w : widths) {
      const int64_t height = heights[h++ % 7];
      Call call = call_of(row, element, random, std::max<int64_t>(1, height),
                          std::max<int64_t>(1, w));
      call.threads = few_threads(row, element);
      call.walk = static_cast<int>(h % 2 == 0 ? step : 2 * step);
      call.fused = v.fused && h % 4 == 0;
      call.noise_per_sample = h % 8 == 0;
      call.scale = h % 8 == 4;
      tally.add(run_any(type, call), kTypeNames[type], call);
      if (tally.enough()) return tally;
    }

    // The table's own tile, several small planes in one block, a tall image
    for (int i = 0; i < 3; ++i) {
      Call call = call_of(row, element, random, i == 2 ? v.walk + step + 1 : random(3, 9),
                          i == 2 ? 5 : random(3, 20));
      if (i == 0) call.n = 3, call.c = call.channels_last ? call.c : 7;
      call.fused = v.fused && i == 1, call.scale = true;
      tally.add(run_any(type, call), kTypeNames[type], call);
      if (tally.enough()) return tally;
    }

    // Random calls
    for (int i = 0; i < extra; ++i) {
      Call call = call_of(row, element, random, random(1, 5 * step), random(1, 10 * run));
      call.threads = static_cast<int>(random(few_threads(row, element), v.threads));
      call.walk = static_cast<int>(step * random(1, 4));
      call.fused = v.fused && random.coin();
      call.noise_per_sample = random.coin(), call.scale = random.coin();
      if (random(0, 3) == 0) call.pad_x = -random(1, 20), call.pad_y = random(-9, 40);
      tally.add(run_any(type, call), kTypeNames[type], call);
      if (tally.enough()) return tally;
    }
  }
  return tally;
}

// Filters of one axis: kernels of one row or column and taps, in both layouts. Every one of them
// has a row of the table.
Tally sweep_one_axis(int count) {
  Tally tally;
  Random random{std::mt19937_64(17)};
  for (int type = 0; type < 3; ++type) {
    for (int i = 0; i < count; ++i) {
      const bool along_x = random.coin();
      const int64_t up = random(1, 2), down = up == 2 ? 1 : random(1, 2);
      const int64_t lengths[] = {4, 12, random(2, 32)};
      Call p;
      p.row = kChosen;
      p.n = random(1, 3), p.c = random.coin() ? random(1, 5) : 8 * random(1, 3);
      p.separable = random.coin(), p.flip = random.coin(), p.channels_last = random.coin();
      p.nan = random(0, 3) == 0;
      if (!p.nan && random(0, 3) == 0) p.bad_tap = random.coin() ? BadTap::nan : BadTap::infinite;
      // The other axis: of signals one sample; vectors of columns and others
      const int64_t wide = random.coin() ? random(2, 9) : 8 * random(1, 9);
      const int64_t beside = along_x ? random(1, 3) : wide;
      const int64_t size = random(1, 150), pad = random(-3, 9), k = lengths[random(0, 2)];
      (along_x ? p.kw : p.kh) = k, (along_x ? p.pad_x : p.pad_y) = pad;
      (along_x ? p.up_x : p.up_y) = up, (along_x ? p.down_x : p.down_y) = down;
      (along_x ? p.in_h : p.in_w) = (along_x ? p.out_h : p.out_w) = beside;
      (along_x ? p.out_w : p.out_h) = size;
      (along_x ? p.in_w : p.in_h) =
          std::max<int64_t>(1, (size * down + k - pad) / up - random(0, 4));
      p.row_gap = random(0, 2) == 0 ? random(1, 8) : 0;
      p.seed = static_cast<uint64_t>(random(1, 1 << 30));
      const double error = run_any(type, p);
      tally.add(error < 0 ? HUGE_VAL : error, kTypeNames[type], p);
    }
  }
  return tally;
}

Call generic_call(Random& random) {
  Call p;
  p.row = random.coin() ? kGeneric : kGeneric64;
  p.n = random(1, 2), p.c = random(1, 3);
  p.up_x = random(1, 6), p.up_y = random(1, 6);
  p.down_x = random(1, 6), p.down_y = random(1, 6);
  p.kh = random(1, 9), p.kw = random(1, 9);
  p.in_h = random(1, 9), p.in_w = random(1, 9);
  p.out_h = random(1, 12), p.out_w = random(1, 12);
  p.pad_x = random(-9, 12), p.pad_y = random(-9, 12);
  p.separable = random.coin(), p.flip = random.coin();
  p.channels_last = random.coin(), p.fused = random(0, 3) == 0;
  p.bias = random(0, 3) != 0, p.noise = random(0, 3) != 0, p.strength = random(0, 3) != 0;
  p.clamp = random.coin(), p.scale = random.coin();
  p.row_gap = random(0, 2), p.in_offset = random(0, 2), p.out_offset = random(0, 2);
  p.seed = static_cast<uint64_t>(random(1, 1 << 30));
  return p;
}

Tally sweep_generic(int count, bool print = true) {
  Tally tally;
  tally.print = print;
  Random random{std::mt19937_64(7)};
  for (int i = 0; i < count; ++i) {
    for (int type = 0; type < 4; ++type) {
      Call call = generic_call(random);
      tally.add(run_any(type, call), kTypeNames[type], call);
      if (i % 4 == type) {
        // Now and then more outputs than one chunk takes
        if (i % 16 == type) call.out_h = 40, call.out_w = 60, call.in_h = 30, call.in_w = 45;
        call.flip = false;
        tally.add(run_kernel_grad_any(type, call), kTypeNames[type], call);
      }
    }
  }
  return tally;
}

// Taps of NaN and infinity over an image and its padding, and clamps beyond the largest number.
Tally sweep_taps_not_finite() {
  Tally tally;
  Random random{std::mt19937_64(13)};
  for (int type = 0; type < 4; ++type) {
    auto add = [&](Call& call) {
      for (BadTap bad : {BadTap::nan, BadTap::infinite}) {
        call.bad_tap = bad;
        call.seed = static_cast<uint64_t>(random(1, 1 << 30));
        tally.add(run_any(type, call), kTypeNames[type], call);
      }
    };
    for (int row = 0; row < kVariantCount && type < 3; ++row) {
      const Variant& v = kVariants[row];
      const Numbers s = numbers_of(v, type == 0 ? 4 : 2);
      if (s.rows == 0) continue;
      for (bool fused : {false, true}) {
        if (fused && !v.fused) continue;
        Call call = call_of(row, type == 0 ? 4 : 2, random, 2 * s.rows + 1, 4 * s.run + 1);
        call.pad_x = random(-3, 2 * v.taps), call.pad_y = random(-3, 2 * v.taps);
        call.threads = few_threads(row, type == 0 ? 4 : 2);
        call.walk = s.rows;
        call.fused = fused, call.clamp_at = 1e300;
        add(call);
      }
    }
    for (int i = 0; i < 40; ++i) {
      Call call = generic_call(random);
      call.clamp_at = 1e300;
      add(call);
    }
    for (bool last : {false, true}) {
      Call call;
      call.row = kPointwise, call.c = 8, call.in_h = call.out_h = 3, call.in_w = call.out_w = 5;
      call.channels_last = last, call.fused = true, call.clamp_at = 1e300;
      add(call);
    }
  }
  return tally;
}

// The kernel's gradient where 32 bits end: upsampled positions beyond 2^31, of which a crop
// leaves few outputs, and more groups of taps than a grid's second axis takes.
Tally sweep_large_kernel_grads() {
  Tally tally;
  for (int type : {0, 1, 3}) {
    for (int64_t up : {4096, 8192}) {
      for (bool along_x : {true, false}) {
        for (int64_t before_end : {int64_t{1}, int64_t{100}}) {
          Call call;
          const int64_t size = int64_t{1} << 20;
          const int64_t first = (size - before_end) * up - 5;  // upsampled position of output 0
          (along_x ? call.in_w : call.in_h) = size, (along_x ? call.in_h : call.in_w) = 2;
          (along_x ? call.up_x : call.up_y) = up;
          (along_x ? call.pad_x : call.pad_y) = -first;
          (along_x ? call.out_w : call.out_h) = 9, (along_x ? call.out_h : call.out_w) = 2;
          call.kh = call.kw = 3, call.channels_last = !along_x;
          tally.add(run_kernel_grad_any(type, call), kTypeNames[type], call);
        }
      }
    }
    Call many;
    many.kh = many.kw = 725, many.in_h = 725, many.in_w = 730, many.out_h = 1, many.out_w = 6;
    const unsigned last = static_cast<unsigned>((many.kh * many.kw - 1) / 8);
    many.blocks = {0, 65534, 65535, 65536, last};
    tally.add(run_kernel_grad_any(type, many), kTypeNames[type], many);
  }
  return tally;
}

// The operands and pointers of a pointwise call, at random.
Call pointwise_call(Random& random, int64_t n, int64_t c, int64_t h, int64_t w, bool last) {
  Call p;
  p.row = kPointwise;
  p.n = n, p.c = c, p.in_h = p.out_h = h, p.in_w = p.out_w = w;
  p.channels_last = last;
  p.separable = random.coin(), p.flip = random.coin(), p.fused = random(0, 3) != 0;
  p.noise_per_sample = random.coin(), p.nan = random(0, 3) == 0;
  p.bias = random(0, 3) != 0, p.noise = random(0, 3) != 0, p.strength = random(0, 3) != 0;
  p.clamp = random.coin(), p.scale = random.coin();
  // Mostly aligned: otherwise every call would go one element at a time
  if (random(0, 4) == 0) p.in_offset = random(1, 7);
  if (random(0, 4) == 0) p.out_offset = random(1, 7);
  if (random(0, 3) == 0) p.operand_offset = random(1, 7);
  p.seed = static_cast<uint64_t>(random(1, 1 << 30));
  return p;
}

Tally sweep_pointwise(int count) {
  Tally tally;
  Random random{std::mt19937_64(11)};
  for (int type = 0; type < 4; ++type) {
    const int64_t vector = type == 0 ? 4 : type == 3 ? 2 : 8;
    auto add = [&](const Call& call) { tally.add(run_any(type, call), kTypeNames[type], call); };

    // Lines about the edges of vectors: a few to a block, and every kind of operand
    for (bool last : {false, true}) {
      for (int64_t line : {int64_t{1}, vector - 1, vector, vector + 1, 2 * vector, 3 * vector + 1,
                           5 * vector, 8 * vector - 1, 8 * vector + 1, 9 * vector + 3}) {
        for (int64_t lines : {1, 3, 8}) {
          for (int64_t n : {1, 3}) {
            add(pointwise_call(random, n, last ? line : lines, 1, last ? lines : line, last));
            add(pointwise_call(random, n, last ? line : lines, last ? lines : line, 1, last));
          }
        }
      }
    }

    // Lines, samples and all elements about the edge of a block, by one and by a vector
    const int64_t block = 256 * 4 * vector;
    for (bool last : {false, true}) {
      for (int64_t line : {block - vector, block - 1, block, block + 1, block + vector}) {
        Call call = pointwise_call(random, 2, last ? line : 3, 1, last ? 3 : line, last);
        call.in_offset = call.out_offset = 0;
        add(call);
        call = pointwise_call(random, 1, last ? vector : line / vector, 1,
                              last ? line / vector : vector, last);
        add(call);
      }
      // Several samples and lines in a block, several blocks in a sample
      add(pointwise_call(random, 40, 5, 7, 9, last));
      add(pointwise_call(random, 2, 16, 32, 64, last));
    }

    for (int i = 0; i < count; ++i) {
      const int64_t c = random.coin() ? random(1, 40) : vector * random(1, 4);
      const int64_t h = random(1, 20), w = random.coin() ? random(1, 30) : vector * random(1, 4);
      add(pointwise_call(random, random(1, 3), c, h, w, random.coin()));
    }
  }
  return tally;
}

// The wanted sums and the pointers of a call of the activation's gradient, at random.
ActGradCall activation_call(Random& random, int64_t n, int64_t c, int64_t pixels, bool last) {
  ActGradCall p;
  p.n = n, p.c = c, p.pixels = pixels, p.channels_last = last;
  p.bias = random(0, 3) != 0, p.strength = random(0, 2) != 0;
  p.noise_strength = random.coin();
  p.scale = random(0, 2) == 0, p.scaled = random(0, 2) == 0, p.wide = random.coin();
  const int64_t samples[] = {0, 1, n};
  p.noise_samples = samples[random(0, 2)];
  p.noise_per_sample = random.coin(), p.tap = random(0, 3) == 0, p.clamp = random.coin();
  p.offset = random(0, 4) == 0 ? random(1, 7) : 0;
  // Of a few blocks, rounds as of very many
  if (random.coin()) p.few = random(1, 4), p.many = random(1, 4);
  p.seed = static_cast<uint64_t>(random(1, 1 << 30));
  return p;
}

// A few calls that meet every barrier: all sums, several rounds of a block, slots, threads of a
// line.
Tally barriers_of_activation() {
  Tally tally;
  tally.print = false;
  for (bool last : {false, true}) {
    for (int64_t line : {12, 512}) {
      ActGradCall call;
      call.n = 2, call.channels_last = last, call.few = call.many = 1;
      call.c = last ? line : 200, call.pixels = last ? 200 : line;
      tally.add(run_bias_act_grad<float>(call), "float32", call);
    }
  }
  return tally;
}

Tally sweep_activation(int count) {
  Tally tally;
  Random random{std::mt19937_64(17)};
  for (int type = 0; type < 4; ++type) {
    const int64_t vector = type == 0 ? 4 : type == 3 ? 2 : 8;
    auto add = [&](int64_t n, int64_t line, int64_t lines, bool last) {
      const ActGradCall call =
          activation_call(random, n, last ? line : lines, last ? lines : line, last);
      tally.add(run_bias_act_grad_any(type, call), kTypeNames[type], call);
    };
    for (bool last : {false, true}) {
      // Lines about the edges of vectors and of a block's stretch; lines about those of a round
      for (int64_t line : {int64_t{1}, vector - 1, vector, vector + 1, 3 * vector, 5 * vector + 1,
                           9 * vector, 40 * vector}) {
        for (int64_t lines : {1, 3, 17, 70}) add(random(1, 3), line, lines, last);
        const int64_t lanes = line % vector == 0 ? line / vector : line;
        add(2, line, 12 * (256 / std::min<int64_t>(lanes, 256)) + 1, last);  // several rounds
      }
      for (int64_t line : {255, 256, 257}) {
        add(1, line, 5, last);
        add(2, line * vector, 18, last);
      }
      add(2, 2 * vector, 128 * 16 + 1, last);  // more lines in a round than threads
    }
    for (int i = 0; i < count; ++i) {
      const int64_t line = random.coin() ? random(1, 300) : vector * random(1, 40);
      add(random(1, 4), line, random(1, 100), random.coin());
    }
  }
  return tally;
}

int expect(bool holds, const char* what) {
  if (!holds) std::printf("WRONG plan: %s\n", what);
  return holds ? 0 : 1;
}

// Address space for more than any memory holds; what is touched of it is zero.
struct Sparse {
  void* data;
  size_t bytes;

  explicit Sparse(size_t size)
      : data(mmap(nullptr, size, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)),
        bytes(size) {
    if (data == MAP_FAILED) cuda_host::fail("no address space");
  }
  Sparse(const Sparse&) = delete;
  ~Sparse() { munmap(data, bytes); }
  Half* halves() const { return static_cast<Half*>(data); }
  float* floats() const { return static_cast<float*>(data); }
};

// Blocks of a call with more than 2^32 elements, about the ends of 31 and 32 bits. All
// numbers are short, so that every result is exact.
int check_far_blocks(bool last, int64_t w) {
  const int64_t n = 67, c = 64, h = 1021, pixels = h * w, total = n * c * pixels;
  auto number = [](int64_t i) { return static_cast<float>(i * 7919 % 61 - 30) / 16; };
  const Sparse input(static_cast<size_t>(2 * total)), output(static_cast<size_t>(2 * total));
  const Sparse noise(static_cast<size_t>(4 * n * pixels));
  float bias[64], scale[67 * 64], strength = 1, tap = 0.5f;
  for (int i = 0; i < 64; ++i) bias[i] = static_cast<float>(i - 32) / 8;
  for (int i = 0; i < 67 * 64; ++i) scale[i] = static_cast<float>(i % 5 - 2) / 2;

  UpFirDn2dParams p{};
  p.input = input.data, p.output = output.data, p.kernel = &tap, p.dtype = Dtype::float16;
  p.in = p.out = last ? Plane4d{n, c, h, w, c * pixels, 1, c * w, c}
                      : Plane4d{n, c, h, w, c * pixels, pixels, w, 1};
  p.kh = p.kw = p.up_x = p.up_y = p.down_x = p.down_y = 1;
  EpilogueParams e{};
  e.bias = bias, e.noise = noise.data, e.noise_strength = &strength, e.noise_stride_n = pixels;
  e.scale = scale, e.scale_stride_n = c;
  e.slope = 0.5, e.gain = 1, e.clamp = -1;
  if (choose(p, Limits{}, true).variant != kPointwise) return expect(false, "far: pointwise");
  const PointwisePlan plan = plan_pointwise(p, &e);
  const auto kernel = pointwise_kernel_of<Half, BiasAct<Half>>(plan);

  int wrong = 0;
  const int64_t block = int64_t{kPointwiseThreads} * kPointwiseVectors * 8;
  for (int64_t b : {int64_t{0}, (int64_t{1} << 31) / block, (int64_t{1} << 32) / block + 1,
                    static_cast<int64_t>(plan.blocks) - 1}) {
    const int64_t first = b * block, end = std::min(total, first + block);
    struct Where {
      int64_t sample, channel, noise;
    };
    auto where = [&](int64_t i) {
      const int64_t sample = i / (c * pixels), rest = i % (c * pixels);
      return last ? Where{sample, rest % c, sample * pixels + rest / c}
                  : Where{sample, rest / pixels, sample * pixels + rest % pixels};
    };
    for (int64_t i = first; i < end; ++i) {
      input.halves()[i] = from_accumulate<Half>(number(i));
      const int64_t at = where(i).noise;
      noise.floats()[at] = number(at + 5);
    }
    // No barrier: the threads need no fibres
    blockIdx = Dim3{static_cast<unsigned>(b), 0, 0};
    for (unsigned t = 0; t < kPointwiseThreads; ++t) {
      threadIdx = Dim3{t, 0, 0};
      kernel(plan.args, make_bias_act<Half>(e));
    }
    for (int64_t i = first; i < end; ++i) {
      const Where at = where(i);
      const float v = scale[at.sample * c + at.channel] * tap * number(i) + number(at.noise + 5) +
                      bias[at.channel];
      wrong += to_accumulate(output.halves()[i]) != (v < 0 ? v / 2 : v);
    }
  }
  if (wrong > 0) std::printf("WRONG far blocks: %d\n", wrong);
  return wrong;
}

// ---------------------------------------------------------------- the choice

UpFirDn2dParams params_of(int64_t n, int64_t c, int64_t h, int64_t w, int64_t out_h,
                          int64_t out_w, int up, int down, int taps, Dtype dtype, bool last) {
  static const float some_taps[64] = {};
  UpFirDn2dParams p{};
  // Never read: only the alignment counts.
  p.input = reinterpret_cast<const void*>(uintptr_t{1} << 40);
  p.output = reinterpret_cast<void*>(uintptr_t{1} << 41);
  auto plane = [&](int64_t ph, int64_t pw) {
    return last ? Plane4d{n, c, ph, pw, c * ph * pw, 1, pw * c, c}
                : Plane4d{n, c, ph, pw, c * ph * pw, ph * pw, pw, 1};
  };
  p.in = plane(h, w), p.out = plane(out_h, out_w);
  p.taps_x = p.taps_y = some_taps;
  p.kh = p.kw = taps;
  p.up_x = p.up_y = up, p.down_x = p.down_y = down;
  p.pad_x0 = p.pad_y0 = taps / 2;
  p.dtype = dtype;
  return p;
}

int check_plans() {
  int wrong = 0;
  for (Dtype dtype : {Dtype::float32, Dtype::float16, Dtype::bfloat16}) {
    for (bool last : {false, true}) {
      for (int taps : {1, 3, 4, 7, 8, 12, 16, 24, 32}) {
        for (int size : {4, 8, 16, 32, 64, 128, 256, 512, 1024}) {
          // Smoothing, also at the odd sizes beside convolutions with a stride; up 2; down 2
          const int cases[][4] = {{size, size, 1, 1},         {2 * size + 1, 2 * size, 1, 1},
                                  {size, size + 1, 1, 1},     {size, 2 * size, 2, 1},
                                  {2 * size, size, 1, 2}};
          for (const auto& k : cases) {
            const UpFirDn2dParams p =
                params_of(8, 64, k[0], k[0], k[1], k[1], k[2], k[3], taps, dtype, last);
            const TilePlan plan = choose(p, Limits{}, false);
            const bool nothing_to_filter = taps == 1 && k[0] == k[1] && k[2] == 1 && k[3] == 1;
            wrong += expect((plan.variant == kPointwise) == nothing_to_filter,
                            "one tap at one size is pointwise, and nothing else");
            if (nothing_to_filter) continue;
            const Variant* const v = plan.variant < 0 ? nullptr : &kVariants[plan.variant];
            wrong += expect(v != nullptr, "a StyleGAN2 layer runs on a tile kernel");
            if (v == nullptr) continue;
            wrong += expect(plan.block <= static_cast<unsigned>(round_up(v->threads, 32)) &&
                                plan.shared <= Limits{}.shared / v->blocks,
                            "block within its bounds");
            // Aligned images; float32 as measured (table.cuh)
            const bool measured = dtype == Dtype::float32 && !last;
            const int bytes = !measured || k[3] == 2 ? 16 : k[2] == 2 ? 0 : 8;
            wrong += expect(taps != 4 || k[0] % 8 != 0 || v->bytes == bytes,
                            "aligned images are read so many bytes at a time");
            // The padding of the launch: idle threads
            const TileArgs& a = plan.args;
            wrong += expect(a.slots * a.slot_threads * 2 > static_cast<int>(plan.block),
                            "at least half of the threads work");
          }
        }
      }
    }
  }

  // The same with a kernel that is not separable: four taps, at any width
  for (Dtype dtype : {Dtype::float32, Dtype::float16, Dtype::bfloat16}) {
    for (int size : {4, 16, 64, 256, 1024}) {
      const int cases[][4] = {{size, size, 1, 1},         {2 * size + 1, 2 * size, 1, 1},
                              {size, size + 1, 1, 1},     {size, 2 * size, 2, 1},
                              {size + 1, 2 * size, 2, 1}, {2 * size, size, 1, 2},
                              {2 * size + 1, size, 1, 2}};
      for (const auto& k : cases) {
        UpFirDn2dParams p = params_of(8, 64, k[0], k[0], k[1], k[1], k[2], k[3], 4, dtype, false);
        p.kernel = p.taps_x;
        p.taps_x = p.taps_y = nullptr;
        const TilePlan plan = choose(p, Limits{}, false);
        wrong += expect(plan.variant >= 0, "a 4x4 kernel runs on a tile kernel at any width");
        if (plan.variant < 0) continue;
        const Variant& v = kVariants[plan.variant];
        const int bytes = dtype == Dtype::float32 && k[2] == 2 ? 0 : 16;
        wrong += expect(v.method == Method::planar && (k[0] % 8 != 0 || v.bytes == bytes),
                        "and aligned images are read so many bytes at a time");
        wrong += expect(plan.shared <= Limits{}.shared / v.blocks, "planar: within its share");
        wrong += expect(plan.args.slots * plan.args.slot_threads * 2 > static_cast<int>(plan.block),
                        "planar: at least half of the threads work");
      }
    }
  }

  // A row that one type, or narrow images, have for themselves
  for (Dtype dtype : {Dtype::float32, Dtype::float16}) {
    for (int size : {128, 136, 512, 520}) {
      const UpFirDn2dParams p = params_of(8, 64, size, size, size, size, 1, 1, 4, dtype, false);
      const TilePlan plan = choose(p, Limits{}, false);
      const Variant& v = kVariants[plan.variant];
      wrong += expect(rows_of(v, dtype == Dtype::float32 ? 4 : 2) > 0 &&
                          (v.widest == 0 || size <= v.widest),
                      "a row serves its types and widths alone");
    }
  }

  // Four taps, channels_last: without shared memory, whatever the size
  for (Dtype dtype : {Dtype::float32, Dtype::float16, Dtype::bfloat16}) {
    for (int size : {4, 33, 64, 1024}) {
      const int cases[][4] = {
          {size, size + 1, 1, 1}, {size, 2 * size, 2, 1}, {2 * size, size, 1, 2}};
      for (const auto& k : cases) {
        for (bool fused : {false, true}) {
          const UpFirDn2dParams p =
              params_of(8, 64, k[0], k[0], k[1], k[1], k[2], k[3], 4, dtype, true);
          const TilePlan plan = choose(p, Limits{}, fused);
          wrong += expect(plan.variant >= 0 && plan.shared == 0 &&
                              kVariants[plan.variant].method == Method::columns,
                          "channels_last and four taps: columns");
        }
      }
    }
  }

  // A filter of one axis, given as a kernel of one row or column
  for (Dtype dtype : {Dtype::float32, Dtype::float16}) {
    for (bool last : {false, true}) {
      for (int taps : {4, 12, 32}) {
        UpFirDn2dParams p = params_of(4, 16, 1, 96, 1, 192, 1, 1, taps, dtype, last);
        p.kernel = p.taps_x, p.taps_x = p.taps_y = nullptr;
        p.kh = 1, p.pad_y0 = 0, p.up_x = 2;
        const TilePlan signal = choose(p, Limits{}, false);
        wrong += expect(signal.variant >= 0 && kVariants[signal.variant].axes ==
                                                   (last ? Axes::y : Axes::x),
                        "a signal has rows of one axis");
        p = params_of(4, 16, 96, 80, 48, 80, 1, 1, taps, dtype, last);
        p.kernel = p.taps_x, p.taps_x = p.taps_y = nullptr;
        p.kw = 1, p.pad_x0 = 0, p.down_y = 2;
        const TilePlan across = choose(p, Limits{}, false);
        wrong += expect(across.variant >= 0 && kVariants[across.variant].axes == Axes::y,
                        "lines across images have rows of one axis");
        wrong += expect(choose(p, Limits{}, true).variant == kGeneric, "but not with an epilogue");
      }
    }
  }

  // Sizes
  auto variant = [](const UpFirDn2dParams& p) { return choose(p, Limits{}, false); };
  const Dtype f32 = Dtype::float32;
  wrong += expect(variant(params_of(1, 200000, 8, 8, 8, 8, 1, 1, 4, f32, false)).variant >= 0,
                  "n * c above 65535");
  const TilePlan large = variant(params_of(40, 64, 1024, 1024, 1024, 1024, 1, 1, 4, f32, false));
  wrong += expect(large.variant >= 0 && large.args.planes == 40 * 64, "above 2^31 elements");
  wrong += expect(
      variant(params_of(1, 1, 40000, 40000, 40000, 40000, 1, 1, 4, f32, false)).variant == kGeneric,
      "one plane above 2^30 elements is generic");
  wrong += expect(variant(params_of(2, 4, 8, 8, 24, 24, 3, 1, 4, f32, false)).variant == kGeneric,
                  "factor 3 is generic");
  wrong += expect(variant(params_of(2, 4, 8, 8, 8, 8, 1, 1, 33, f32, false)).variant == kGeneric,
                  "33 taps are generic");
  wrong += expect(
      variant(params_of(2, 4, 8, 8, 8, 8, 1, 1, 4, Dtype::float64, false)).variant == kGeneric,
      "float64 is generic");

  // The time that a plan takes does not grow with the width
  for (bool last : {false, true}) {
    for (int64_t w : {int64_t{1} << 20, (int64_t{1} << 29) - 8}) {
      const TilePlan wide = variant(params_of(1, last ? 1 : 2, 1, w, 1, w, 1, 1, 4, f32, last));
      wrong += expect(wide.variant >= 0 && wide.looked_at <= 48, "a wide row is planned at once");
    }
  }
  TilePlan none{};
  const UpFirDn2dParams wide = params_of(1, 1, 1, 1 << 28, 1, 1 << 28, 1, 1, 4, f32, false);
  wrong += expect(!plan_tile(kVariants[0], wide, Limits{132, 4096, 4096}, &none),
                  "where no tile fits, there is no plan");

  // One tap
  auto one_tap = [&](int64_t n, int64_t c, int64_t h, int64_t w, Dtype dtype, bool last) {
    return params_of(n, c, h, w, h, w, 1, 1, 1, dtype, last);
  };
  for (Dtype dtype : {f32, Dtype::float16, Dtype::bfloat16, Dtype::float64}) {
    for (bool last : {false, true}) {
      for (int64_t w : {1, 5, 64}) {
        UpFirDn2dParams p = one_tap(4, 24, 6, w, dtype, last);
        const PointwisePlan plan = plan_pointwise(p, nullptr);
        wrong += expect(variant(p).variant == kPointwise, "one tap is pointwise, in every type");
        wrong += expect(plan.vectors, "aligned arrays are read 16 bytes at a time, odd or not");
        wrong += expect(plan.channels_last == last && plan.args.line == (last ? 24 : 6 * w) &&
                            plan.args.lines == (last ? 6 * w : 24),
                        "lines are planes, or pixels");
        p.pad_x0 = 1;
        wrong += expect(variant(p).variant != kPointwise, "a pad is not pointwise");
        p = one_tap(4, 24, 6, w, dtype, last);
        p.in.stride_n += 8;
        wrong += expect(variant(p).variant != kPointwise, "a gap between samples is not pointwise");
        p = one_tap(4, 24, 6, 5, dtype, last);
        p.in = one_tap(4, 24, 6, 5, dtype, !last).in;
        wrong += expect(variant(p).variant != kPointwise, "a change of layout is not pointwise");
      }
    }
  }
  const EpilogueParams some{};
  wrong += expect(!plan_pointwise(one_tap(8, 3, 64, 64, f32, true), &some).vectors &&
                      plan_pointwise(one_tap(8, 3, 65, 65, f32, false), &some).vectors,
                  "short lines that fit no vector are taken one element at a time");
  wrong += expect(plan_pointwise(one_tap(8, 512, 1, 1, f32, false), nullptr).channels_last,
                  "one pixel: a line of channels");
  wrong += expect(!plan_pointwise(one_tap(8, 1, 64, 64, f32, true), nullptr).channels_last,
                  "one channel: a line of pixels");
  // The kernel's gradient of many taps: no more memory than its partial sums need
  KernelGradParams many{};
  many.in = many.out = Plane4d{64, 512, 724, 724, 512 * 724 * 724, 724 * 724, 724, 1};
  many.kh = many.kw = 724, many.dtype = f32;
  wrong += expect(grad_chunks(many) * many.kh * many.kw <= kGradWorkspace,
                  "the workspace of 724 x 724 taps is at most 8 MiB");
  many.kh = many.kw = 4;
  wrong += expect(grad_chunks(many) == kGradMaxChunks, "few taps: as many chunks as before");
  many.kh = many.kw = 5000;
  wrong += expect(grad_chunks(many) == 1 && grad_blocks(many) == 5000 * 5000 / 8,
                  "more taps than partial sums: one chunk");

  const UpFirDn2dParams huge = one_tap(40, 64, 1024, 1024, f32, false);
  wrong += expect(variant(huge).variant == kPointwise &&
                      plan_pointwise(huge, nullptr).blocks == 40 * 64 * 1024 / 4,
                  "above 2^31 elements is pointwise too");
  wrong += expect(variant(one_tap(1, 1, 40000, 40000, f32, false)).variant == kGeneric,
                  "a line above 2^30 elements is generic");
  return wrong;
}

// ---------------------------------------------------------------- conversions

int check_conversions() {
  int wrong = 0;
  // Every float16 and bfloat16 comes back from float as it was
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    const float value = half_to_float(half);
    if (!std::isnan(value) && float_to_half(value) != half) ++wrong;
    const float brain = to_accumulate(BFloat16{half});
    if (!std::isnan(brain) && float_to_bfloat16(brain) != half) ++wrong;
  }
#if defined(__FLT16_MANT_DIG__)
  // Rounding, against the compiler's own float16
  Random random{std::mt19937_64(3)};
  for (int i = 0; i < 200000; ++i) {
    const float value = bits_to_float(static_cast<uint32_t>(random(0, 0xffffffffLL)));
    if (std::isnan(value)) continue;
    for (float v : {value, value * 0x1p-60f, std::ldexp(value, -std::ilogb(value) - 8 + i % 24)}) {
      if (std::isnan(v)) continue;
      const _Float16 expected = static_cast<_Float16>(v);
      uint16_t bits;
      std::memcpy(&bits, &expected, 2);
      if (bits != float_to_half(v)) ++wrong;
    }
  }
#endif
  if (wrong > 0) std::printf("WRONG conversions: %d\n", wrong);
  return wrong;
}

int report(const char* what, const Tally& tally) {
  std::printf("%s: %lld calls, %lld wrong, worst error %.3f of its tolerance\n", what,
              static_cast<long long>(tally.served), static_cast<long long>(tally.wrong),
              tally.worst);
  if (tally.served == 0) std::printf("WRONG nothing was run\n");
  return tally.wrong > 0 || tally.served == 0 ? 1 : 0;
}

// Without one barrier, every row that meets it must go wrong in at least one order.
int check_barrier(int number) {
  using cuda_host::Order;
  cuda_host::options.removed_barrier = number;
  int red = 0, green = 0;
  // Two more rows stand for the generic kernels, with the kernel's gradient, and for the
  // activation's gradient.
  auto sweep = [number](int row) {
    if (row < kVariantCount) return sweep_row(row, 0, number);
    return row == kVariantCount ? sweep_generic(8, false) : barriers_of_activation();
  };
  for (int row = 0; row < kVariantCount + 2; ++row) {
    bool met = false, wrong = false;
    for (Order order : {Order::ascending, Order::descending, Order::random}) {
      if (wrong) break;
      cuda_host::options.order = order;
      cuda_host::barriers_met.assign(96, 0);
      const Tally tally = sweep(row);
      if (cuda_host::barriers_met[static_cast<size_t>(number)] == 0) break;
      met = true;
      wrong = tally.wrong > 0;
    }
    if (!met) continue;
    wrong ? ++red : ++green;
    if (!wrong) std::printf("GREEN without barrier %d: row %d\n", number, row);
  }
  std::printf("without barrier %d: %d wrong, %d unharmed\n", number, red, green);
  return red > 0 && green == 0 ? 0 : 1;
}

void set_order(const char* name) {
  cuda_host::options.order = std::strcmp(name, "descending") == 0 ? cuda_host::Order::descending
                             : std::strcmp(name, "random") == 0   ? cuda_host::Order::random
                                                                  : cuda_host::Order::ascending;
}

}  // namespace
}  // namespace check

int main(int argc, char** argv) {
  using namespace check;
  const std::string command = argc > 1 ? argv[1] : "";
  if (command == "list") {
    for (int row = 0; row < kVariantCount; ++row) {
      const Variant& v = kVariants[row];
      std::printf("%d %s %s%s up %d down %d taps %d\n", row,
                  v.method == Method::separable ? "separable"
                  : v.method == Method::columns ? "columns"
                                                : "planar",
                  v.layout == Layout::contiguous ? "contiguous" : "channels_last",
                  v.axes == Axes::both ? "" : v.axes == Axes::x ? " x" : " y", v.up, v.down,
                  v.taps);
    }
    return 0;
  }
  if (command == "plans") return check_plans() > 0;
  if (command == "conversions") return check_conversions() > 0;
  if (command == "sweep" && argc == 6) {
    set_order(argv[5]);
    int status = 0;
    const int last = std::min(std::atoi(argv[3]), kVariantCount - 1);
    for (int row = std::atoi(argv[2]); row <= last; ++row) {
      const std::string name = "row " + std::to_string(row);
      status |= report(name.c_str(), sweep_row(row, std::atoi(argv[4])));
    }
    return status;
  }
  if (command == "generic" && argc == 4) {
    set_order(argv[3]);
    return report("generic", sweep_generic(std::atoi(argv[2])));
  }
  if (command == "axes" && argc == 4) {
    set_order(argv[3]);
    return report("one axis", sweep_one_axis(std::atoi(argv[2])));
  }
  if (command == "taps" && argc == 3) {
    set_order(argv[2]);
    return report("taps", sweep_taps_not_finite());
  }
  if (command == "large") return report("large", sweep_large_kernel_grads());
  if (command == "pointwise" && argc == 4) {
    set_order(argv[3]);
    int wrong = 0;
    for (bool last : {false, true}) {
      for (int64_t w : {1023, 1024}) wrong += check_far_blocks(last, w);
    }
    return report("pointwise", sweep_pointwise(std::atoi(argv[2]))) | (wrong > 0);
  }
  if (command == "activation" && argc == 4) {
    set_order(argv[3]);
    return report("activation", sweep_activation(std::atoi(argv[2])));
  }
  if (command == "barrier" && argc == 3) {
    return check_barrier(std::atoi(argv[2]));
  }
  std::fprintf(stderr, "see the head of main.cpp for the commands\n");
  return 2;
}
