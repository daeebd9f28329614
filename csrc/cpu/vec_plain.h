// SPDX-License-Identifier: BSD-3-Clause
//
// 16-byte vectors in the compiler's own notation: SSE2 on x86-64, NEON on ARM,
// plain code elsewhere. Included inside the namespace of one instruction set.

// Chooses elements of two vectors by their numbers, which go on from the first vector to
// the second. Clang has only one of the two builtins, g++ before 12 only the other.
#ifdef __clang__
#define RESAMPLE_LAYERS_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define RESAMPLE_LAYERS_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Numbers{__VA_ARGS__})
#endif

template <class A>
struct Vec;

template <>
struct Vec<float> {
  typedef float R __attribute__((vector_size(16)));
  typedef int32_t Numbers __attribute__((vector_size(16)));
  static constexpr int64_t N = 4;
  static R set1(float a) { return R{a, a, a, a}; }
  static R mul(R a, R b) { return a * b; }
  static R fma(R a, R b, R c) { return a * b + c; }
  static R add(R a, R b) { return a + b; }
  // All three give back a NaN that comes as `a`; the others have no say in it.
  static R scale_negative(R a, R factor) { return a < R{} ? a * factor : a; }
  static R at_most(R a, R bound) { return bound < a ? bound : a; }
  static R at_least(R a, R bound) { return bound > a ? bound : a; }
  static R above(R a, R bound, R yes, R no) { return a > bound ? yes : no; }
  static bool any_above(R a, R bound) {
    const Numbers is = a > bound;
    bool any = false;
    for (int64_t i = 0; i < N; ++i) any = any || is[i] != 0;
    return any;
  }
  static R load(const float* p) {
    R r;
    __builtin_memcpy(&r, p, sizeof r);
    return r;
  }
  static void store(float* p, R r) { __builtin_memcpy(p, &r, sizeof r); }
  template <class T>
  static R load(const T* p) {
    return R{widen(p[0]), widen(p[1]), widen(p[2]), widen(p[3])};
  }
  template <class T>
  static void store(T* p, R r) {
    for (int i = 0; i < 4; ++i) narrow(p + i, r[i]);
  }
  static R load_n(const float* p, int64_t n) {
    R r{};
    for (int64_t i = 0; i < n; ++i) r[i] = p[i];
    return r;
  }
  template <class T>
  static R load_n(const T* p, int64_t n) {
    R r{};
    for (int64_t i = 0; i < n; ++i) r[i] = widen(p[i]);
    return r;
  }
  static void store_n(float* p, R r, int64_t n) {
    for (int64_t i = 0; i < n; ++i) p[i] = r[i];
  }
  template <class T>
  static void store_n(T* p, R r, int64_t n) {
    for (int64_t i = 0; i < n; ++i) narrow(p + i, r[i]);
  }
  static void even_odd(R a, R b, R& even, R& odd) {
    even = RESAMPLE_LAYERS_SHUFFLE(a, b, 0, 2, 4, 6);
    odd = RESAMPLE_LAYERS_SHUFFLE(a, b, 1, 3, 5, 7);
  }
  static void zip(R even, R odd, R& a, R& b) {
    a = RESAMPLE_LAYERS_SHUFFLE(even, odd, 0, 4, 1, 5);
    b = RESAMPLE_LAYERS_SHUFFLE(even, odd, 2, 6, 3, 7);
  }
  static double sum(R r) { return (double(r[0]) + r[1]) + (double(r[2]) + r[3]); }
};

template <>
struct Vec<double> {
  typedef double R __attribute__((vector_size(16)));
  typedef int64_t Numbers __attribute__((vector_size(16)));
  static constexpr int64_t N = 2;
  static R set1(double a) { return R{a, a}; }
  static R mul(R a, R b) { return a * b; }
  static R fma(R a, R b, R c) { return a * b + c; }
  static R add(R a, R b) { return a + b; }
  static R scale_negative(R a, R factor) { return a < R{} ? a * factor : a; }
  static R at_most(R a, R bound) { return bound < a ? bound : a; }
  static R at_least(R a, R bound) { return bound > a ? bound : a; }
  static R above(R a, R bound, R yes, R no) { return a > bound ? yes : no; }
  static bool any_above(R a, R bound) {
    const Numbers is = a > bound;
    bool any = false;
    for (int64_t i = 0; i < N; ++i) any = any || is[i] != 0;
    return any;
  }
  static R load(const double* p) {
    R r;
    __builtin_memcpy(&r, p, sizeof r);
    return r;
  }
  static void store(double* p, R r) { __builtin_memcpy(p, &r, sizeof r); }
  static R load_n(const double* p, int64_t n) { return n > 1 ? load(p) : R{p[0], 0}; }
  static void store_n(double* p, R r, int64_t n) {
    for (int64_t i = 0; i < n; ++i) p[i] = r[i];
  }
  static void even_odd(R a, R b, R& even, R& odd) {
    even = RESAMPLE_LAYERS_SHUFFLE(a, b, 0, 2);
    odd = RESAMPLE_LAYERS_SHUFFLE(a, b, 1, 3);
  }
  static void zip(R even, R odd, R& a, R& b) { even_odd(even, odd, a, b); }
  static double sum(R r) { return r[0] + r[1]; }
};

// Stores two vectors side by side.
template <class A, class T>
inline void store_two(T* p, typename Vec<A>::R a, typename Vec<A>::R b) {
  Vec<A>::store(p, a);
  Vec<A>::store(p + Vec<A>::N, b);
}

// Splits 2 N stored elements into the even and the odd ones; joins them again.
template <class A, class T>
inline void load_split(const T* p, typename Vec<A>::R& even, typename Vec<A>::R& odd) {
  Vec<A>::even_odd(Vec<A>::load(p), Vec<A>::load(p + Vec<A>::N), even, odd);
}
template <class A, class T>
inline void store_joined(T* p, typename Vec<A>::R even, typename Vec<A>::R odd) {
  typename Vec<A>::R a, b;
  Vec<A>::zip(even, odd, a, b);
  store_two<A>(p, a, b);
}
