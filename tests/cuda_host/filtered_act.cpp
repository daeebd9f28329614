// SPDX-License-Identifier: BSD-3-Clause
//
// The emulated kernels of filtered activations against the oracle.
//
//   filtered_act generic COUNT ORDER  random calls by tiles and without them, beside fixed ones
//   filtered_act table COUNT ORDER    the rows of the table, by small tiles
//   filtered_act barrier NUMBER       0: without it every row that meets it goes wrong
//
// Exit status 0: all right; 1: a wrong result; 3: a broken rule of the machine.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "cuda_host.h"
#include "device.cuh"
#include "filtered_act_check.h"

namespace filtered {

using resample_layers::BFloat16;
using resample_layers::Half;

extern template double run<Half>(const Call&);
extern template double run<BFloat16>(const Call&);
extern template double run<float>(const Call&);
extern template double run<double>(const Call&);

std::string Call::text() const {
  char text[600];
  std::snprintf(
      text, sizeof(text),
      "way %d n %d c %d in %dx%d up %d,%d down %d,%d taps %dx%d %dx%d pads %d %d %d %d / %d %d %d "
      "%d 2d %d%d replicate %d last %d nan %d activation %d clamp %g tile %d threads %d seed %d",
      int(way), int(n), int(c), int(in_h), int(in_w), int(up_x), int(up_y), int(down_x),
      int(down_y), int(up_kh), int(up_kw), int(down_kh), int(down_kw), int(up_pad_x),
      int(up_pad_x1), int(up_pad_y), int(up_pad_y1), int(down_pad_x), int(down_pad_x1),
      int(down_pad_y), int(down_pad_y1), up_2d, down_2d, replicate, channels_last, nan_tap,
      activation, clamp, tile, threads, int(seed));
  return text;
}

namespace {

constexpr int kRows = 5;  // of the table

struct Random {
  std::mt19937_64 engine;
  int64_t operator()(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine);
  }
  bool coin() { return (*this)(0, 1) == 1; }
};

Call random_call(Random& random) {
  Call c;
  c.way = random(0, 4) == 0 ? Way::direct : Way::tile;
  c.n = random(1, 2), c.c = random(1, 3);
  const bool row = random(0, 3) == 0;  // a signal
  c.in_h = row ? 1 : random(1, 9), c.in_w = row ? random(1, 40) : random(1, 9);
  c.up_x = random(1, 4), c.up_y = row ? 1 : random(1, 4);
  c.down_x = random(1, 4), c.down_y = row ? 1 : random(1, 4);
  c.up_kw = random(1, 9), c.up_kh = row ? 1 : random(1, 9);
  c.down_kw = random(1, 9), c.down_kh = row ? 1 : random(1, 9);
  auto pads = [&](int64_t taps, int64_t* first, int64_t* last) {
    *first = random(-2, taps + 3), *last = random(-2, taps + 3);
  };
  pads(c.up_kw, &c.up_pad_x, &c.up_pad_x1), pads(c.down_kw, &c.down_pad_x, &c.down_pad_x1);
  if (!row) {
    pads(c.up_kh, &c.up_pad_y, &c.up_pad_y1), pads(c.down_kh, &c.down_pad_y, &c.down_pad_y1);
  }
  c.up_2d = random(0, 3) == 0, c.down_2d = random(0, 2) == 0;
  c.replicate = random.coin(), c.channels_last = random(0, 2) == 0;
  c.bias = random(0, 3) != 0, c.wants_bias = random(0, 3) != 0;
  c.wants_parameters = random(0, 3) != 0;
  if (c.channels_last) c.c = random(1, 11);
  c.activation = static_cast<int>(random(0, 5));
  if (c.activation > 3) c.activation = 1;
  c.clamp = random.coin() ? 1.5 : -1;
  c.row_gap = random(0, 2);
  c.tile = static_cast<int>(random(1, 6) * random(1, 12));
  c.threads = random.coin() ? 32 : 64;
  c.grid = random(1, 3);
  c.seed = static_cast<uint64_t>(random(1, 1 << 30));
  return c;
}

// A call that a row of the table serves.
Call table_call(Random& random, int row) {
  Call c;
  c.way = Way::table;
  c.n = random(1, 2), c.c = random(1, 2);
  const bool line = row == 4;
  c.up_x = row % 2 == 1 ? 4 : 2, c.down_x = 2;
  c.down_2d = row == 2 || row == 3;
  c.up_kw = 6 * c.up_x, c.down_kw = 12;
  c.bias = random(0, 3) != 0, c.wants_bias = random(0, 3) != 0;
  c.wants_parameters = random(0, 3) != 0;
  c.clamp = random.coin() ? 1.5 : -1;
  c.activation = line ? 1 : 0;
  c.seed = static_cast<uint64_t>(random(1, 1 << 30));
  if (line) {
    c.in_w = random(0, 3) == 0 ? random(1, 12) : random(1, 90);
    c.replicate = random(0, 2) != 0;
    c.up_pad_x = random(0, 11), c.up_pad_x1 = random(0, 11);
    c.down_pad_x = random(0, 11), c.down_pad_x1 = random(0, 11);
    if (random.coin()) {  // BigVGAN's
      c.up_pad_x = 6, c.up_pad_x1 = 5, c.down_pad_x = 5, c.down_pad_x1 = 6;
    }
    c.tile = static_cast<int>(random(2, 6) * 8);
  } else {
    c.up_y = c.up_x, c.down_y = c.down_x, c.up_kh = c.up_kw, c.down_kh = c.down_kw;
    c.in_h = random(1, 24), c.in_w = random(1, 30);
    auto pad = [&] { return random(-3, 2 * c.up_kw); };
    c.up_pad_x = pad(), c.up_pad_x1 = pad(), c.up_pad_y = pad(), c.up_pad_y1 = pad();
    c.row_gap = random(0, 2);
    c.tile = static_cast<int>(random(1, 3) * 8);
  }
  c.threads = random.coin() ? 32 : 64;
  // Far from some outputs; a signal has one tap along y, and then no result is finite. Nothing is
  // cropped: where no position reads a column, 0 times NaN would count or not by the order of axes.
  // Without a barrier, the threads of a block would not agree about the tap.
  c.nan_tap = random(0, 5) == 0 && !line && cuda_host::options.removed_barrier < 0;
  if (c.nan_tap) {
    c.n = c.c = 1, c.in_h = random(1, 5), c.in_w = random(1, 5);  // few: each result is a loop
    c.up_pad_y = c.up_kh + 20, c.up_pad_y1 = std::abs(c.up_pad_y1);
    c.up_pad_x = std::abs(c.up_pad_x), c.up_pad_x1 = std::abs(c.up_pad_x1);
  }
  return c;
}

struct Tally {
  int64_t served = 0, wrong = 0;
  double worst = 0;
  bool print = true;

  template <class T>
  void add(const Call& c) {
    if (c.mid_h() < 1 || c.mid_w() < 1 || c.out_h() < 1 || c.out_w() < 1) return;
    const double error = run<T>(c);
    if (error < 0) return;
    ++served;
    worst = std::max(worst, error);
    if (error <= 1) return;
    if (++wrong <= 5 && print) std::printf("WRONG %g %s\n", error, c.text().c_str());
  }
};

Tally sweep_generic(int count, bool print) {
  Tally tally;
  tally.print = print;
  Random random{std::mt19937_64(14)};
  for (int i = 0; i < count; ++i) {
    if (!print && tally.wrong > 0) break;  // one is enough
    const Call c = random_call(random);
    switch (i % 6) {
      case 0: tally.add<Half>(c); break;
      case 1: tally.add<BFloat16>(c); break;
      case 2: tally.add<double>(c); break;
      default: tally.add<float>(c); break;
    }
  }
  return tally;
}

Tally sweep_table(int row, int count, bool print) {
  Tally tally;
  tally.print = print;
  Random random{std::mt19937_64(static_cast<uint64_t>(row))};
  for (int i = 0; i < count; ++i) {
    if (!print && tally.wrong > 0) break;  // one is enough
    const Call c = table_call(random, row);
    if (i % 3 == 2) {
      tally.add<Half>(c);
    } else {
      tally.add<float>(c);
    }
  }
  return tally;
}

int report(const char* what, const Tally& tally) {
  std::printf("%s: %lld calls, %lld wrong, worst error %.3f of its tolerance\n", what,
              static_cast<long long>(tally.served), static_cast<long long>(tally.wrong),
              tally.worst);
  if (tally.served == 0) std::printf("WRONG nothing was run\n");
  return tally.wrong > 0 || tally.served == 0 ? 1 : 0;
}

void set_order(const std::string& name) {
  cuda_host::options.order = name == "descending" ? cuda_host::Order::descending
                             : name == "random"   ? cuda_host::Order::random
                                                  : cuda_host::Order::ascending;
}

int check_barrier(int number) {
  cuda_host::options.removed_barrier = number;
  int red = 0, green = 0;
  for (int row = 0; row <= kRows; ++row) {  // the last one stands for the generic kernels
    bool met = false, wrong = false;
    for (const char* order : {"ascending", "descending", "random"}) {
      if (wrong) break;
      set_order(order);
      cuda_host::barriers_met.assign(cuda_host::barriers_met.size(), 0);
      const Tally tally = row < kRows ? sweep_table(row, 12, false) : sweep_generic(60, false);
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

}  // namespace
}  // namespace filtered

int main(int argc, char** argv) {
  using namespace filtered;
  const std::string command = argc > 1 ? argv[1] : "";
  if (command == "generic" && argc == 4) {
    set_order(argv[3]);
    return report("generic", sweep_generic(std::atoi(argv[2]), true));
  }
  if (command == "table" && argc == 4) {
    set_order(argv[3]);
    int status = 0;
    for (int row = 0; row < kRows; ++row) {
      const std::string name = "row " + std::to_string(row);
      status |= report(name.c_str(), sweep_table(row, std::atoi(argv[2]), true));
    }
    return status;
  }
  if (command == "barrier" && argc == 3) return check_barrier(std::atoi(argv[2]));
  std::fprintf(stderr, "see the head of filtered_act.cpp for the commands\n");
  return 2;
}
