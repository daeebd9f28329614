// SPDX-License-Identifier: BSD-3-Clause
//
// How filtered_act cuts signals into tiles (csrc/cpu/filtered_act_signals.cpp): what the kernels
// read and write of a tile must lie in its rows of scratch, and scratch must stay small however
// far a signal is padded or cropped. Nothing is computed: an access beyond a row may go unseen
// there, since what it spoils can be written again before it is read.
#include <cstdio>
#include <random>

#include "../../csrc/cpu/filtered_act_signals.cpp"

using namespace resample_layers;
using namespace resample_layers::cpu;

namespace {

struct Case {
  int64_t width, up, down, up_taps, down_taps, up_pad0, up_pad1, down_pad0, down_pad1;
  bool replicate;

  int64_t mid() const { return width * up + up_pad0 + up_pad1 - up_taps + 1; }
  int64_t padded() const { return mid() + down_pad0 + down_pad1 - down_taps; }
};

int failures = 0;
int64_t tiles = 0;

void check(bool holds, const char* what, const Case& c, bool gradient, int64_t tile) {
  if (holds || ++failures > 20) return;
  std::printf("%s: tile %lld of the %s; width %lld, up %lld, down %lld, taps %lld and %lld, "
              "pad (%lld, %lld), down_pad (%lld, %lld), replicate %d\n",
              what, (long long)tile, gradient ? "gradient" : "op", (long long)c.width,
              (long long)c.up, (long long)c.down, (long long)c.up_taps, (long long)c.down_taps,
              (long long)c.up_pad0, (long long)c.up_pad1, (long long)c.down_pad0,
              (long long)c.down_pad1, c.replicate);
}

// Elements of each component of a row. Also an empty range lies there: kernels point to its begin.
bool has(const SignalRow& row, const Range& elements) {
  return row.begin <= elements.begin && elements.begin <= elements.end && elements.end <= row.end;
}

// Samples of a row. Nothing is done for none.
bool has_samples(const SignalRow& row, const Range& samples) {
  return samples.begin == samples.end ||
         (row.begin * row.components <= samples.begin && samples.begin < samples.end &&
          samples.end <= row.end * row.components);
}

// What the sums read that make these elements.
bool has_sources(const SignalRow& row, const SignalSum* sums, int64_t count,
                 const Range& elements) {
  if (elements.begin == elements.end) return true;
  for (int64_t c = 0; c < count; ++c) {
    for (int64_t t = 0; t < sums[c].taps; ++t) {
      const int64_t component = sums[c].component[t], offset = sums[c].offset[t];
      if (component < 0 || component >= row.components || elements.begin + offset < row.begin ||
          elements.end + offset > row.end) {
        return false;
      }
    }
  }
  return true;
}

// The bytes of scratch of a thread.
int64_t check_tiles(const Case& c, bool gradient) {
  const std::vector<float> taps(size_t(std::max(c.up_taps, c.down_taps)), 1.0f);
  const float one = 1;
  FilteredActGradParams p{};
  p.in = {1, 3, 1, c.width, 3 * c.width, c.width, c.width, 1};
  p.mid_h = 1;
  p.mid_w = c.mid();
  const int64_t out = c.padded() / c.down + 1;
  p.grad_plane = {1, 3, 1, out, 3 * out, out, out, 1};
  p.out = gradient ? p.in : p.grad_plane;
  p.up_filter = {nullptr, taps.data(), &one, 1, c.up_taps};
  p.down_filter = {nullptr, taps.data(), &one, 1, c.down_taps};
  p.up_x = c.up;
  p.down_x = c.down;
  p.up_y = p.down_y = 1;
  p.up_pad_x0 = c.up_pad0;
  p.down_pad_x0 = c.down_pad0;
  p.replicate = c.replicate;
  p.dtype = Dtype::float32;
  p.gain = 1;
  p.clamp = -1;
  if (!is_signal(p, p.grad_plane)) return 0;
  const int64_t period = period_of(p);
  const SignalCall<float> call = describe<float>(p, gradient ? &p : nullptr);
  for (int64_t i = 0; i < call.x.count; ++i, ++tiles) {
    SignalTile t = call.model;
    make_tile(call, i, t);
    const auto require = [&](bool holds, const char* what) { check(holds, what, c, gradient, i); };
    require(has_samples(t.in, t.in_have), "in_have lies in the row of the input");
    require(has_samples(t.mid, t.mid_have), "mid_have lies in the row of m");
    require(has(t.mid, t.mid_elements), "mid_elements lie in the row of m");
    require(has_sources(t.in, call.up.data(), period, t.mid_elements), "the input has what m reads");
    require(has_samples(t.out, t.write), "what is written lies in its row");
    require(has(t.out, t.out_elements), "out_elements lie in the row of the output");
    require(!c.replicate || t.mid_have.begin == t.mid_have.end || t.in_have.begin < t.in_have.end,
            "a continued input has a sample");
    if (gradient) {
      require(has(t.g, t.span_elements), "span_elements lie in the row of g");
      require(has_samples(t.g, t.span), "span lies in the row of g");
      require(has(t.g, t.mid_elements), "mid_elements lie in the row of g");
      require(has_samples(t.grads, t.grad_have), "grad_have lies in its row");
      require(has_sources(t.grads, call.down_adjoint.data(), period, t.span_elements),
              "grad has what g reads");
      require(has_sources(t.g, call.up_adjoint.data(), period / c.up, t.out_elements),
              "g has what the gradient of the input reads");
      require(has_samples(t.out, t.whole), "what belongs to the input lies in its row");
    } else {
      require(has_sources(t.mid, call.down.data(), period / c.down, t.out_elements),
              "m has what the output reads");
      require(!c.replicate || t.mid_have.begin < t.mid_have.end, "a continued m has a sample");
    }
    for_rows(t, gradient, [&](const SignalRow& row, int64_t lead) {
      require(lead >= 0 && lead + row.end - row.begin <= row.pitch, "a row fits its pitch");
    });
  }
  return call.row_elements * int64_t(sizeof(float));
}

void check_random(int count) {
  std::mt19937 random(0);
  const auto between = [&](int64_t low, int64_t high) {
    return low + int64_t(random() % uint64_t(high - low + 1));
  };
  const auto pad = [&] { return between(0, 7) ? between(-20, 40) : between(-3000, 9000); };
  for (int i = 0; i < count; ++i) {
    const int64_t width = between(0, 3) ? between(1, 200) : between(1, 9000);
    const Case c = {width, between(1, 6), between(1, 6), between(1, 13), between(1, 13),
                    pad(), pad(),         pad(),         pad(),          between(0, 1) == 1};
    if (c.mid() < 1 || c.padded() < 0) continue;
    for (bool gradient : {false, true}) check_tiles(c, gradient);
  }
}

// Scratch of few rows, each of about kRowBytes.
void check_scratch(const Case& c, bool gradient) {
  const int64_t bytes = check_tiles(c, gradient);
  check(bytes > 0 && bytes <= 8 * kRowBytes, "scratch is small", c, gradient, -1);
}

}  // namespace

int main() {
  constexpr int64_t far = 1000000;
  for (bool replicate : {false, true}) {
    for (int64_t odd : {0, 1}) {
      // Padded behind and before m, and behind and before the input.
      check_scratch({50 + odd, 2, 2, 12, 12, odd, 0, 0, far, replicate}, false);
      check_scratch({50 + odd, 2, 2, 12, 12, odd, 0, far, 0, replicate}, false);
      check_scratch({50 + odd, 3, 2, 12, 12, odd, far, 0, 0, replicate}, false);
      check_scratch({50 + odd, 3, 2, 12, 12, far, odd, 0, 0, replicate}, false);
      // Cropped before and behind.
      for (bool gradient : {false, true}) {
        check_scratch({far + odd, 2, 2, 12, 12, 200 - 2 * far, 9, 0, 0, replicate}, gradient);
        check_scratch({far + odd, 2, 2, 12, 12, 9, 200 - 2 * far, 0, 0, replicate}, gradient);
        check_scratch({far + odd, 2, 2, 12, 12, 0, 0, 200 - 2 * far, 9, replicate}, gradient);
        check_scratch({far + odd, 2, 2, 12, 12, 0, 0, 9, 200 - 2 * far, replicate}, gradient);
      }
    }
  }
  check_random(3000);
  std::printf("%lld tiles, %d failures\n", (long long)tiles, failures);
  return failures == 0 && tiles > 10000 ? 0 : 1;
}
