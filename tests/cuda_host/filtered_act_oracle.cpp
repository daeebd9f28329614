// SPDX-License-Identifier: BSD-3-Clause
//
// The definition of filtered activations in double, on whole images: zeros are inserted, ends are
// continued and images are written out, and gradients are scattered where the kernels gather. It
// shares no code with them.
#include <algorithm>
#include <cmath>

#include "filtered_act_check.h"

namespace filtered {
namespace {

// One filter on one plane, and its adjoint, by a list of what each result reads.
struct Read {
  int64_t result, source;
  double tap;
};

// Of one axis: m[p] = sum of k[taps - 1 - t] * u[p + t - pad], u with zeros inserted.
std::vector<Read> reads(int64_t size, int64_t results, int64_t up, int64_t down, int64_t pad,
                        const std::vector<double>& taps, bool replicate) {
  std::vector<Read> list;
  const int64_t count = static_cast<int64_t>(taps.size());
  for (int64_t r = 0; r < results; ++r) {
    for (int64_t t = 0; t < count; ++t) {
      const int64_t place = r * down + t - pad;
      if (((place % up) + up) % up != 0) continue;  // an inserted zero
      int64_t source = place / up;
      if (source < 0 || source >= size) {
        if (!replicate) continue;
        source = source < 0 ? 0 : size - 1;
      }
      list.push_back({r, source, taps[static_cast<size_t>(count - 1 - t)]});
    }
  }
  return list;
}

struct Image {
  int64_t h, w;
  std::vector<double> v;
  Image(int64_t h_, int64_t w_) : h(h_), w(w_), v(static_cast<size_t>(h_ * w_), 0.0) {}
  double& at(int64_t y, int64_t x) { return v[static_cast<size_t>(y * w + x)]; }
};

// A 2-D kernel is a sum of its rows, each of which is separable: reads along y carry the row.
struct Filter {
  std::vector<std::vector<Read>> y, x;  // pairs: of each row of the kernel

  Filter(const Call& c, const Kernel& k, bool first) {
    const int64_t up_x = first ? c.up_x : 1, up_y = first ? c.up_y : 1;
    const int64_t down_x = first ? 1 : c.down_x, down_y = first ? 1 : c.down_y;
    const int64_t pad_x = first ? c.up_pad_x : c.down_pad_x;
    const int64_t pad_y = first ? c.up_pad_y : c.down_pad_y;
    const int64_t in_h = first ? c.in_h : c.mid_h(), in_w = first ? c.in_w : c.mid_w();
    const int64_t out_h = first ? c.mid_h() : c.out_h(), out_w = first ? c.mid_w() : c.out_w();
    const auto add = [&](const std::vector<double>& along_y, const std::vector<double>& along_x) {
      y.push_back(reads(in_h, out_h, up_y, down_y, pad_y, along_y, c.replicate));
      x.push_back(reads(in_w, out_w, up_x, down_x, pad_x, along_x, c.replicate));
    };
    if (k.values.empty()) {
      add(k.taps_y, k.taps_x);
      return;
    }
    const size_t kh = static_cast<size_t>(k.kh), kw = static_cast<size_t>(k.kw);
    for (size_t i = 0; i < kh; ++i) {
      std::vector<double> row(kh, 0.0);
      row[i] = 1;
      add(row, std::vector<double>(k.values.begin() + static_cast<int64_t>(i * kw),
                                   k.values.begin() + static_cast<int64_t>((i + 1) * kw)));
    }
  }

  void apply(Image& from, Image* to) const {
    for (size_t i = 0; i < y.size(); ++i) {
      Image rows(to->h, from.w);
      for (const Read& r : y[i]) {
        if (r.tap == 0) continue;
        for (int64_t c = 0; c < from.w; ++c) rows.at(r.result, c) += r.tap * from.at(r.source, c);
      }
      for (const Read& r : x[i]) {
        for (int64_t c = 0; c < to->h; ++c) to->at(c, r.result) += r.tap * rows.at(c, r.source);
      }
    }
  }

  void adjoint(Image& from, Image* to) const {
    for (size_t i = 0; i < y.size(); ++i) {
      Image rows(from.h, to->w);
      for (const Read& r : x[i]) {
        for (int64_t c = 0; c < from.h; ++c) rows.at(c, r.source) += r.tap * from.at(c, r.result);
      }
      for (const Read& r : y[i]) {
        if (r.tap == 0) continue;
        for (int64_t c = 0; c < to->w; ++c) to->at(r.source, c) += r.tap * rows.at(r.result, c);
      }
    }
  }
};

// f(m), and its derivatives by m, alpha and beta
struct Point {
  double f, by_m, by_alpha, by_beta;
};

Point point(int code, double m, double slope, double alpha, double beta) {
  const double pi = std::acos(-1.0);
  switch (code) {
    case 0: return m > 0 ? Point{m, 1, 0, 0} : Point{slope * m, slope, 0, 0};
    case 1: {
      const double b = beta + 1e-9, s = std::sin(alpha * m), d = std::sin(2 * alpha * m);
      return {m + s * s / b, 1 + alpha * d / b, m * d / b, -s * s / (b * b)};
    }
    case 2: {
      const double p = 1 / (1 + std::exp(-m));
      return {m * p, p + m * p * (1 - p), 0, 0};
    }
    default: {
      const double p = 0.5 * (1 + std::erf(m / std::sqrt(2.0)));
      return {m * p, p + m * std::exp(-m * m / 2) / std::sqrt(2 * pi), 0, 0};
    }
  }
}

// The sum of the magnitudes of all taps.
double size_of(const Kernel& k) {
  const auto sum = [](const std::vector<double>& taps) {
    double total = 0;
    for (double tap : taps) total += std::isnan(tap) ? 0 : std::abs(tap);
    return total;
  };
  return k.values.empty() ? sum(k.taps_x) * sum(k.taps_y) : sum(k.values);
}

double largest_of(const Image& image) {
  double largest = 1e-30;
  for (double v : image.v) largest = std::max(largest, std::abs(v));
  return largest;
}

}  // namespace

int64_t Call::mid_h() const { return in_h * up_y + up_pad_y + up_pad_y1 - up_kh + 1; }
int64_t Call::mid_w() const { return in_w * up_x + up_pad_x + up_pad_x1 - up_kw + 1; }
int64_t Call::out_h() const {
  const int64_t room = mid_h() + down_pad_y + down_pad_y1 - down_kh;
  return room < 0 ? 0 : room / down_y + 1;
}
int64_t Call::out_w() const {
  const int64_t room = mid_w() + down_pad_x + down_pad_x1 - down_kw;
  return room < 0 ? 0 : room / down_x + 1;
}

Results oracle(const Call& c, const Arrays& a) {
  const Filter first(c, a.up, true), second(c, a.down, false);
  Results r;
  const size_t channels = static_cast<size_t>(c.c);
  for (std::vector<double>* v : {&r.grad_bias, &r.grad_alpha, &r.grad_beta, &r.bias_size,
                                 &r.alpha_size, &r.beta_size}) {
    v->assign(channels, 0);
  }
  const double first_size = size_of(a.up), second_size = size_of(a.down);
  size_t from = 0, from_grad = 0;
  for (int64_t plane = 0; plane < c.n * c.c; ++plane) {
    const size_t channel = static_cast<size_t>(plane % c.c);
    Image x(c.in_h, c.in_w), m(c.mid_h(), c.mid_w()), out(c.out_h(), c.out_w());
    for (double& v : x.v) v = a.input[from++] + a.bias[channel];
    first.apply(x, &m);
    Image activated = m;
    std::vector<Point> points;
    for (double& v : activated.v) {
      const Point p = point(c.activation, v, c.slope, a.alpha[channel], a.beta[channel]);
      points.push_back(p);
      v = c.gain * p.f;
      if (c.clamp >= 0) v = std::min(std::max(v, -c.clamp), c.clamp);
    }
    second.apply(activated, &out);
    r.output.insert(r.output.end(), out.v.begin(), out.v.end());
    const double largest = std::max(largest_of(m), first_size * largest_of(x));
    r.output_size = std::max(
        r.output_size, second_size * std::max(largest_of(activated), c.gain * largest));

    Image grad = out, g(c.mid_h(), c.mid_w()), grad_x(c.in_h, c.in_w);
    for (double& v : grad.v) v = a.grad[from_grad++];
    second.adjoint(grad, &g);
    const double g_size = c.gain * second_size * largest_of(grad);
    for (size_t i = 0; i < points.size(); ++i) {
      const Point& p = points[i];
      const bool clamped = c.clamp >= 0 && std::abs(c.gain * p.f) > c.clamp;
      const double scaled = clamped ? 0 : g.v[i] * c.gain;
      r.grad_alpha[channel] += scaled * p.by_alpha;
      r.grad_beta[channel] += scaled * p.by_beta;
      // The argument of a sine is rounded, and grows with m
      const double slope = 1 + std::abs(p.by_m) + (c.activation == 1 ? largest : 0);
      r.input_size = std::max(r.input_size, first_size * g_size * slope);
      r.bias_size[channel] += first_size * g_size * slope;
      r.alpha_size[channel] += g_size * (std::abs(p.by_alpha) + largest * largest);
      r.beta_size[channel] += g_size * (std::abs(p.by_beta) + largest);
      if (m.v[i] != 0) r.closest = std::min(r.closest, std::abs(m.v[i]) / largest);
      if (c.clamp >= 0) {
        r.closest = std::min(r.closest, std::abs(std::abs(c.gain * p.f) - c.clamp) / largest);
      }
      g.v[i] = scaled * p.by_m;
    }
    first.adjoint(g, &grad_x);
    for (double v : grad_x.v) r.grad_bias[channel] += v;
    r.grad_input.insert(r.grad_input.end(), grad_x.v.begin(), grad_x.v.end());
  }
  return r;
}

}  // namespace filtered
