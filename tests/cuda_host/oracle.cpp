// SPDX-License-Identifier: BSD-3-Clause
//
// The definition of csrc/upfirdn2d.h as loops, sharing nothing with the kernels.
#include <sstream>

#include "check.h"

namespace check {

std::string Call::text() const {
  std::ostringstream s;
  s << "row " << row << " threads " << threads << " walk " << walk << " in " << n << "x" << c
    << "x" << in_h << "x" << in_w << " out " << out_h << "x" << out_w << " kernel " << kh << "x"
    << kw << " up " << up_x << "," << up_y << " down " << down_x << "," << down_y << " pad "
    << pad_x << "," << pad_y << (separable ? " separable" : " planar") << (flip ? " flip" : "")
    << (channels_last ? " channels_last" : "") << (nan ? " nan" : "")
    << (bad_tap == BadTap::nan ? " NaN tap" : bad_tap == BadTap::infinite ? " infinite tap" : "")
    << (fused ? " fused" : "");
  if (fused) {
    s << (bias ? " bias" : "") << (noise ? " noise" : "") << (noise_per_sample ? "s" : "")
      << (strength ? " strength" : "") << (scale ? " scale" : "") << (clamp ? " clamp" : "");
  }
  s << " gap " << row_gap << " offsets " << in_offset << "," << out_offset << ","
    << operand_offset << " seed " << seed;
  return s.str();
}

std::string ActGradCall::text() const {
  std::ostringstream s;
  s << "activation " << n << "x" << c << "x" << pixels << (channels_last ? " channels_last" : "")
    << (bias ? " bias" : "") << (strength ? " strength" : "")
    << (noise_strength ? " noise strength" : "") << (scale ? " scale" : "")
    << (scaled ? " scaled" : "") << (wide ? " wide" : "") << " noise samples " << noise_samples << (noise_per_sample ? " per sample" : "")
    << (tap ? " tap" : "") << (clamp ? " clamp" : "") << " offset " << offset << " blocks " << few
    << "," << many << " seed " << seed;
  return s.str();
}

namespace {

// The sample at u[a, b] of the zero-inserted input; null where there is none, and the sum has
// no term.
const double* sample_at(const Call& p, const double* plane, int64_t a, int64_t b) {
  if (a < 0 || b < 0 || a % p.up_y != 0 || b % p.up_x != 0) return nullptr;
  const int64_t y = a / p.up_y, x = b / p.up_x;
  return y < p.in_h && x < p.in_w ? plane + y * p.in_w + x : nullptr;
}

}  // namespace

void oracle(const Call& p, const std::vector<double>& in, const std::vector<double>& kernel,
            std::vector<double>* out) {
  out->assign(static_cast<size_t>(p.n * p.c * p.out_h * p.out_w), 0);
  double* to = out->data();
  for (int64_t plane = 0; plane < p.n * p.c; ++plane) {
    const double* const from = in.data() + plane * p.in_h * p.in_w;
    for (int64_t y = 0; y < p.out_h; ++y) {
      for (int64_t x = 0; x < p.out_w; ++x, ++to) {
        for (int64_t i = 0; i < p.kh; ++i) {
          const int64_t a = y * p.down_y + (p.kh - 1 - i) - p.pad_y;
          if (a < 0 || a % p.up_y != 0) continue;
          for (int64_t j = 0; j < p.kw; ++j) {
            const int64_t k = p.flip ? (p.kh - 1 - i) * p.kw + (p.kw - 1 - j) : i * p.kw + j;
            const double* const sample =
                sample_at(p, from, a, x * p.down_x + (p.kw - 1 - j) - p.pad_x);
            if (sample) *to += kernel[static_cast<size_t>(k)] * *sample;
          }
        }
      }
    }
  }
}

void oracle_kernel_grad(const Call& p, const std::vector<double>& in,
                        const std::vector<double>& grad, std::vector<double>* kernel_grad) {
  kernel_grad->assign(static_cast<size_t>(p.kh * p.kw), 0);
  for (int64_t i = 0; i < p.kh; ++i) {
    for (int64_t j = 0; j < p.kw; ++j) {
      double sum = 0;
      const double* g = grad.data();
      for (int64_t plane = 0; plane < p.n * p.c; ++plane) {
        const double* const from = in.data() + plane * p.in_h * p.in_w;
        for (int64_t y = 0; y < p.out_h; ++y) {
          for (int64_t x = 0; x < p.out_w; ++x, ++g) {
            const double* const sample =
                sample_at(p, from, y * p.down_y + (p.kh - 1 - i) - p.pad_y,
                          x * p.down_x + (p.kw - 1 - j) - p.pad_x);
            if (sample) sum += *g * *sample;
          }
        }
      }
      (*kernel_grad)[static_cast<size_t>(i * p.kw + j)] = sum;
    }
  }
}

}  // namespace check
