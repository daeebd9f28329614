// SPDX-License-Identifier: BSD-3-Clause
//
// The functions f(m; alpha, beta) of filtered_act and their derivatives, once for all
// backends. A further one is a struct here, a value of Nonlinearity, a line in
// with_nonlinearity, and a row of the table in resample_layers/ops/nonlinearity.py.
//
// There are templates only, so that nothing of theirs is shared by the instruction sets of the
// CPU. The arithmetic comes as V, with numbers V::R: one number, or a vector of numbers.
//
//   set1(a)                   the number a
//   add, mul (a, b)           a + b, a * b
//   fma(a, b, c)              a * b + c
//   above(a, bound, yes, no)  yes where a > bound, else (also for a NaN) no
//   inverse(a)                1 / a
//   sine_squared(a)           sin(a)^2
//   sine_squared(a, twice)    sin(a)^2, and twice = sin(2 a)
//   logistic(a)               1 / (1 + exp(-a))
//   normal(a, density)        the normal distribution up to a, and its density at a
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define RESAMPLE_LAYERS_BOTH __host__ __device__ inline
#else
#define RESAMPLE_LAYERS_BOTH inline
#endif

namespace resample_layers {

// As the operators count them: resample_layers/ops/nonlinearity.py has the same numbers.
enum class Nonlinearity : int32_t { leaky_relu, snake, silu, gelu };
constexpr int32_t kNonlinearities = 4;

// f and its derivatives by m, alpha and beta.
template <class V>
struct Derivatives {
  typename V::R value, by_m, by_alpha, by_beta;
};

// m > 0 ? m : slope * m
template <class V>
struct LeakyRelu {
  typedef typename V::R R;
  static constexpr bool kParameters = false;  // alpha and beta
  R slope;

  RESAMPLE_LAYERS_BOTH LeakyRelu(R slope_, R, R) : slope(slope_) {}
  RESAMPLE_LAYERS_BOTH R value(R m) const { return V::above(m, V::set1(0), m, V::mul(slope, m)); }
  RESAMPLE_LAYERS_BOTH Derivatives<V> derivatives(R m) const {
    const R zero = V::set1(0);
    return {value(m), V::above(m, zero, V::set1(1), slope), zero, zero};
  }
};

// m + sin(alpha m)^2 / (beta + 1e-9); Liu Ziyin, Tilman Hartwig and Masahito Ueda, "Neural
// Networks Fail to Learn Periodic Functions and How to Fix It", 2020, has beta = alpha.
template <class V>
struct Snake {
  typedef typename V::R R;
  static constexpr bool kParameters = true;
  R alpha, scale;

  RESAMPLE_LAYERS_BOTH Snake(R, R alpha_, R beta) :
      alpha(alpha_), scale(V::inverse(V::add(beta, V::set1(1e-9)))) {}
  RESAMPLE_LAYERS_BOTH R value(R m) const {
    return V::fma(V::sine_squared(V::mul(alpha, m)), scale, m);
  }
  RESAMPLE_LAYERS_BOTH Derivatives<V> derivatives(R m) const {
    R twice;
    const R part = V::mul(V::sine_squared(V::mul(alpha, m), twice), scale);
    const R slope = V::mul(twice, scale);
    return {V::add(m, part), V::fma(alpha, slope, V::set1(1)), V::mul(m, slope),
            V::mul(V::mul(part, scale), V::set1(-1))};
  }
};

// m / (1 + exp(-m))
template <class V>
struct Silu {
  typedef typename V::R R;
  static constexpr bool kParameters = false;

  RESAMPLE_LAYERS_BOTH Silu(R, R, R) {}
  RESAMPLE_LAYERS_BOTH R value(R m) const { return V::mul(m, V::logistic(m)); }
  RESAMPLE_LAYERS_BOTH Derivatives<V> derivatives(R m) const {
    const R zero = V::set1(0), p = V::logistic(m), value = V::mul(m, p);
    // p (1 + m (1 - p)) = p + value - p value
    return {value, V::add(p, V::fma(V::mul(p, V::set1(-1)), value, value)), zero, zero};
  }
};

// m times the normal distribution up to m: the GELU of the error function
template <class V>
struct Gelu {
  typedef typename V::R R;
  static constexpr bool kParameters = false;

  RESAMPLE_LAYERS_BOTH Gelu(R, R, R) {}
  RESAMPLE_LAYERS_BOTH R value(R m) const {
    R density;
    return V::mul(m, V::normal(m, density));
  }
  RESAMPLE_LAYERS_BOTH Derivatives<V> derivatives(R m) const {
    R density;
    const R zero = V::set1(0), p = V::normal(m, density);
    return {V::mul(m, p), V::fma(m, density, p), zero, zero};
  }
};

// Calls use.template run<F>() with the struct F<V> of this nonlinearity.
template <class V, class Use>
RESAMPLE_LAYERS_BOTH void with_nonlinearity(Nonlinearity f, const Use& use) {
  switch (f) {
    case Nonlinearity::leaky_relu: use.template run<LeakyRelu<V>>(); break;
    case Nonlinearity::snake: use.template run<Snake<V>>(); break;
    case Nonlinearity::silu: use.template run<Silu<V>>(); break;
    case Nonlinearity::gelu: use.template run<Gelu<V>>(); break;
  }
}

}  // namespace resample_layers
