// SPDX-License-Identifier: BSD-3-Clause
//
// What happens to a sample between the two filters: the nonlinearity (nonlinearity.h), gain and
// clamp, and the way back through them.
#pragma once

#include <cmath>

#include "../nonlinearity.h"
#include "device.cuh"

namespace resample_layers {

// One number as nonlinearity.h wants it. The functions of the CUDA library are the accurate ones:
// a sine is right for large arguments too.
template <class A>
struct Scalar {
  typedef A R;
  DEVICE static A set1(double a) { return static_cast<A>(a); }
  DEVICE static A add(A a, A b) { return a + b; }
  DEVICE static A mul(A a, A b) { return a * b; }
  DEVICE static A fma(A a, A b, A c) { return a * b + c; }
  DEVICE static A above(A a, A bound, A yes, A no) { return a > bound ? yes : no; }
  DEVICE static A inverse(A a) { return A(1) / a; }
  DEVICE static A sine_squared(A a) {
    const A s = ::sin(a);
    return s * s;
  }
  DEVICE static A sine_squared(A a, A& twice) {
    A s, c;
    sine_and_cosine(a, &s, &c);
    twice = A(2) * s * c;
    return s * s;
  }
  DEVICE static A logistic(A a) { return A(1) / (A(1) + ::exp(-a)); }
  DEVICE static A normal(A a, A& density) {
    density = A(0.39894228040143268) * ::exp(A(-0.5) * a * a);
    return A(0.5) * ::erfc(A(-0.70710678118654752) * a);
  }
};

// The numbers of an activation for one channel.
template <class A>
struct Activation {
  Nonlinearity nonlinearity;
  A slope, gain, clamp;  // clamp: infinity for none
  A alpha, beta;         // 0 where the nonlinearity has none

  // A NaN passes, as torch.clamp lets it.
  DEVICE A scaled(A value) const {
    const A v = gain * value;
    return v > clamp ? clamp : v < -clamp ? -clamp : v;
  }

  DEVICE A value(A m) const {
    A result = 0;
    with_nonlinearity<Scalar<A>>(nonlinearity, Value{*this, m, result});
    return result;
  }

  // g: the gradient of what value() gives. Returns that of m; adds to those of alpha and beta.
  DEVICE A grad(A m, A g, A* alpha_sum, A* beta_sum) const {
    Derivatives<Scalar<A>> d{};
    with_nonlinearity<Scalar<A>>(nonlinearity, Derive{*this, m, d});
    return grad_of(d, g, alpha_sum, beta_sum);
  }

  // The same where the derivatives are known.
  DEVICE A grad_of(const Derivatives<Scalar<A>>& d, A g, A* alpha_sum, A* beta_sum) const {
    const A v = gain * d.value;
    if (v > clamp || v < -clamp) return A(0);
    *alpha_sum += g * gain * d.by_alpha;
    *beta_sum += g * gain * d.by_beta;
    return g * gain * d.by_m;
  }

 private:
  struct Value {
    const Activation& a;
    A m;
    A& result;
    template <class F>
    DEVICE void run() const {
      result = a.scaled(F(a.slope, a.alpha, a.beta).value(m));
    }
  };
  struct Derive {
    const Activation& a;
    A m;
    Derivatives<Scalar<A>>& result;
    template <class F>
    DEVICE void run() const {
      result = F(a.slope, a.alpha, a.beta).derivatives(m);
    }
  };
};

}  // namespace resample_layers
