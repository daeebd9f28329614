// SPDX-License-Identifier: BSD-3-Clause
//
// What happens to a value between its sum and its store. A kernel asks once for the
// scale and bias of its channels and for the noise's strength, and for the noise of each
// output.
#pragma once

#include <algorithm>
#include <limits>

#include "../upfirdn2d.h"
#include "device.cuh"

namespace resample_layers {

// Nothing: the plain op.
template <class T>
struct Identity {
  using acc_t = Accumulate<T>;
  static constexpr bool kActive = false;

  DEVICE acc_t scale(int64_t, int) const { return acc_t(1); }
  DEVICE acc_t bias(int) const { return acc_t(0); }
  DEVICE acc_t noise(int64_t, int64_t) const { return acc_t(0); }
  DEVICE const acc_t* noise_image(int64_t) const { return nullptr; }
  DEVICE acc_t strength() const { return acc_t(0); }
  DEVICE acc_t operator()(acc_t value, acc_t, acc_t, acc_t) const { return value; }
};

// clamp(gain * leaky_relu(scale * value + noise_strength * noise + bias, slope))
template <class T>
struct BiasAct {
  using acc_t = Accumulate<T>;
  static constexpr bool kActive = true;

  const acc_t* bias_;
  const acc_t* noise_;
  const acc_t* noise_strength_;
  int64_t noise_stride_n;
  acc_t slope, gain, clamp;
  const acc_t* scale_;
  int64_t scale_stride_n;

  DEVICE acc_t scale(int64_t n, int channel) const {
    return scale_ ? scale_[n * scale_stride_n + channel] : acc_t(1);
  }

  DEVICE acc_t bias(int channel) const { return bias_ ? bias_[channel] : acc_t(0); }

  // position: y * out_w + x
  DEVICE acc_t noise(int64_t n, int64_t position) const {
    return noise_ ? strength() * bare_noise(n, position) : acc_t(0);
  }

  // Still without its strength, so that nothing waits for it.
  DEVICE acc_t bare_noise(int64_t n, int64_t position) const {
    return noise_ ? noise_[n * noise_stride_n + position] : acc_t(0);
  }

  // The noise of one sample, still without its strength; null: there is none.
  DEVICE const acc_t* noise_image(int64_t n) const {
    return noise_ ? noise_ + n * noise_stride_n : nullptr;
  }

  // V of either at once, at a multiple of V; the arrays begin at a multiple of 16 bytes.
  template <int V>
  DEVICE void bias(int channel, acc_t (&value)[V]) const {
    load<V>(bias_ ? bias_ + channel : nullptr, value);
  }

  template <int V>
  DEVICE void bare_noise(int64_t n, int64_t position, acc_t (&value)[V]) const {
    load<V>(noise_ ? noise_ + n * noise_stride_n + position : nullptr, value);
  }

  DEVICE acc_t strength() const {
    if (!noise_) return acc_t(0);
    return noise_strength_ ? *noise_strength_ : acc_t(1);
  }

  DEVICE acc_t operator()(acc_t value, acc_t scale, acc_t noise, acc_t bias) const {
    value = scale * value + (noise + bias);
    value = gain * (value < acc_t(0) ? slope * value : value);
    // Written so that NaN passes through, as torch.clamp lets it.
    if (clamp >= acc_t(0)) {
      value = value > clamp ? clamp : value;
      value = value < -clamp ? -clamp : value;
    }
    return value;
  }

 private:
  template <int V>
  DEVICE static void load(const acc_t* from, acc_t (&value)[V]) {
    constexpr int kMost = 16 / static_cast<int>(sizeof(acc_t));
    constexpr int kPart = V < kMost ? V : kMost;
#pragma unroll
    for (int i = 0; i < V; i += kPart) {
      Packed<acc_t, kPart> part;
      part.clear();
      if (from) part.load(from + i);
#pragma unroll
      for (int e = 0; e < kPart; ++e) value[i + e] = part.get(e);
    }
  }
};

// gain * (out > 0 ? grad : slope * grad), 0 where out was clamped
template <class T>
struct BiasActGrad {
  using acc_t = Accumulate<T>;
  acc_t slope, gain, clamp;

  // The clamp as the output was rounded; NaN, which nothing reaches, where there is none.
  DEVICE acc_t limit() const { return to_accumulate(from_accumulate<T>(clamp)); }

  DEVICE acc_t operator()(acc_t grad, acc_t out, acc_t limit) const {
    const acc_t value = out > acc_t(0) ? grad : slope * grad;
    return out >= limit || out <= -limit ? acc_t(0) : value;
  }
};

template <class T>
inline BiasActGrad<T> make_bias_act_grad(const BiasActGradParams& p) {
  using acc_t = Accumulate<T>;
  // Finite, so that a gradient of zero stays zero
  auto finite = [](double value) {
    return static_cast<acc_t>(
        std::min(value, static_cast<double>(std::numeric_limits<acc_t>::max())));
  };
  const bool clamped = p.clamp >= 0;
  return BiasActGrad<T>{finite(p.slope), finite(p.gain),
                        clamped ? finite(p.clamp) : std::numeric_limits<acc_t>::quiet_NaN()};
}

// A clamp is rounded to the accumulate type, and is at most its largest finite value.
template <class T>
inline BiasAct<T> make_bias_act(const EpilogueParams& p) {
  using acc_t = Accumulate<T>;
  const double largest = static_cast<double>(std::numeric_limits<acc_t>::max());
  return BiasAct<T>{static_cast<const acc_t*>(p.bias),
                    static_cast<const acc_t*>(p.noise),
                    static_cast<const acc_t*>(p.noise_strength),
                    p.noise_stride_n,
                    static_cast<acc_t>(p.slope),
                    static_cast<acc_t>(p.gain),
                    static_cast<acc_t>(std::min(p.clamp, largest)),
                    static_cast<const acc_t*>(p.scale),
                    p.scale_stride_n};
}

}  // namespace resample_layers
