// SPDX-License-Identifier: BSD-3-Clause
//
// 64-byte vectors: AVX-512 F, BW, DQ, VL. Included inside the namespace of one
// instruction set, after <immintrin.h>, under the matching target options.

template <class A>
struct Vec;

template <>
struct Vec<float> {
  typedef __m512 R;
  static constexpr int64_t N = 16;
  static R set1(float a) { return _mm512_set1_ps(a); }
  static R mul(R a, R b) { return _mm512_mul_ps(a, b); }
  static R fma(R a, R b, R c) { return _mm512_fmadd_ps(a, b, c); }
  static R add(R a, R b) { return _mm512_add_ps(a, b); }
  // All three give back a NaN that comes as `a`; the others have no say in it.
  static R scale_negative(R a, R factor) {
    return _mm512_mask_mul_ps(a, _mm512_cmp_ps_mask(a, set1(0), _CMP_LT_OQ), a, factor);
  }
  static R at_most(R a, R bound) { return _mm512_min_ps(bound, a); }
  static R at_least(R a, R bound) { return _mm512_max_ps(bound, a); }
  static R above(R a, R bound, R yes, R no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, bound, _CMP_GT_OQ), no, yes);
  }
  static bool any_above(R a, R bound) { return _mm512_cmp_ps_mask(a, bound, _CMP_GT_OQ) != 0; }
  static __mmask16 mask(int64_t n) { return __mmask16((1u << n) - 1u); }

  static R load(const float* p) { return _mm512_loadu_ps(p); }
  static R load(const Half* p) { return _mm512_cvtph_ps(load_words(p)); }
  static R load(const BFloat16* p) { return widen(load_words(p)); }
  static void store(float* p, R r) { _mm512_storeu_ps(p, r); }
  static void store(Half* p, R r) { store_words(p, half_words(r)); }
  static void store(BFloat16* p, R r) { store_words(p, bfloat_words(r)); }

  static R load_n(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(mask(n), p); }
  static R load_n(const Half* p, int64_t n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(n), p));
  }
  static R load_n(const BFloat16* p, int64_t n) {
    return widen(_mm256_maskz_loadu_epi16(mask(n), p));
  }
  static void store_n(float* p, R r, int64_t n) { _mm512_mask_storeu_ps(p, mask(n), r); }
  static void store_n(Half* p, R r, int64_t n) {
    _mm256_mask_storeu_epi16(p, mask(n), half_words(r));
  }
  static void store_n(BFloat16* p, R r, int64_t n) {
    _mm256_mask_storeu_epi16(p, mask(n), bfloat_words(r));
  }

  // Round to nearest, ties to even, in the upper 16 bits; a NaN stays one. (The
  // vcvtneps2bf16 of AVX512_BF16 would flush subnormal numbers.)
  static __m512i rounded(R r) {
    const __m512i bits = _mm512_castps_si512(r);
    const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
    const __m512i half = _mm512_mask_blend_epi32(odd, _mm512_set1_epi32(0x7fff),
                                                 _mm512_set1_epi32(0x8000));
    const __m512 sum = _mm512_castsi512_ps(_mm512_add_epi32(bits, half));
    // Where r is a NaN, quiet or not, take r made quiet; else the sum.
    return _mm512_castps_si512(_mm512_fixupimm_ps(sum, r, _mm512_set1_epi32(0x22), 0));
  }

  static void even_odd(R a, R b, R& even, R& odd) {
    const __m512i step = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4,
                                          2, 0);
    even = _mm512_permutex2var_ps(a, step, b);
    odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(step, _mm512_set1_epi32(1)), b);
  }
  static void zip(R even, R odd, R& a, R& b) {
    const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    a = _mm512_permutex2var_ps(even, low, odd);
    b = _mm512_permutex2var_ps(even, _mm512_add_epi32(low, _mm512_set1_epi32(8)), odd);
  }
  // Elements of a and b by their numbers, which go on from a to b.
  typedef __m512i Numbers;
  static Numbers numbers(const int32_t* p) { return _mm512_loadu_si512(p); }
  static R pick(R a, R b, Numbers n) { return _mm512_permutex2var_ps(a, n, b); }
  static double sum(R r) {
    float lanes[16];
    store(lanes, r);
    double total = 0;
    for (int i = 0; i < 16; ++i) total += lanes[i];
    return total;
  }

 private:
  static __m256i load_words(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static void store_words(void* p, __m256i words) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), words);
  }
  static R widen(__m256i words) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
  }
  static __m256i half_words(R r) {
    return _mm512_cvtps_ph(r, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static __m256i bfloat_words(R r) {
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded(r), 16));
  }
};

template <>
struct Vec<double> {
  typedef __m512d R;
  static constexpr int64_t N = 8;
  static R set1(double a) { return _mm512_set1_pd(a); }
  static R mul(R a, R b) { return _mm512_mul_pd(a, b); }
  static R fma(R a, R b, R c) { return _mm512_fmadd_pd(a, b, c); }
  static R add(R a, R b) { return _mm512_add_pd(a, b); }
  static R scale_negative(R a, R factor) {
    return _mm512_mask_mul_pd(a, _mm512_cmp_pd_mask(a, set1(0), _CMP_LT_OQ), a, factor);
  }
  static R at_most(R a, R bound) { return _mm512_min_pd(bound, a); }
  static R at_least(R a, R bound) { return _mm512_max_pd(bound, a); }
  static R above(R a, R bound, R yes, R no) {
    return _mm512_mask_blend_pd(_mm512_cmp_pd_mask(a, bound, _CMP_GT_OQ), no, yes);
  }
  static bool any_above(R a, R bound) { return _mm512_cmp_pd_mask(a, bound, _CMP_GT_OQ) != 0; }
  static __mmask8 mask(int64_t n) { return __mmask8((1u << n) - 1u); }
  static R load(const double* p) { return _mm512_loadu_pd(p); }
  static void store(double* p, R r) { _mm512_storeu_pd(p, r); }
  static R load_n(const double* p, int64_t n) { return _mm512_maskz_loadu_pd(mask(n), p); }
  static void store_n(double* p, R r, int64_t n) { _mm512_mask_storeu_pd(p, mask(n), r); }
  static void even_odd(R a, R b, R& even, R& odd) {
    const __m512i step = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
    even = _mm512_permutex2var_pd(a, step, b);
    odd = _mm512_permutex2var_pd(a, _mm512_add_epi64(step, _mm512_set1_epi64(1)), b);
  }
  static void zip(R even, R odd, R& a, R& b) {
    const __m512i low = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
    a = _mm512_permutex2var_pd(even, low, odd);
    b = _mm512_permutex2var_pd(even, _mm512_add_epi64(low, _mm512_set1_epi64(4)), odd);
  }
  typedef __m512i Numbers;
  static Numbers numbers(const int32_t* p) {
    return _mm512_cvtepi32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static R pick(R a, R b, Numbers n) { return _mm512_permutex2var_pd(a, n, b); }
  static double sum(R r) {
    double lanes[8];
    store(lanes, r);
    double total = 0;
    for (int i = 0; i < 8; ++i) total += lanes[i];
    return total;
  }
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

// Two bfloat16 are one 32-bit lane: splitting and joining are shifts and masks.
template <>
inline void load_split<float, BFloat16>(const BFloat16* p, __m512& even, __m512& odd) {
  const __m512i pairs = _mm512_loadu_si512(p);
  even = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
  odd = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(int(0xffff0000))));
}
inline __m512i joined_words(__m512 even, __m512 odd) {
  const __m512i low = _mm512_srli_epi32(Vec<float>::rounded(even), 16);
  return _mm512_mask_mov_epi16(Vec<float>::rounded(odd), 0x55555555u, low);
}
template <>
inline void store_joined<float, BFloat16>(BFloat16* p, __m512 even, __m512 odd) {
  _mm512_storeu_si512(p, joined_words(even, odd));
}
// Joined words, brought into order, cost less than a narrowing of each vector.
template <>
inline void store_two<float, BFloat16>(BFloat16* p, __m512 a, __m512 b) {
  const __m512i order = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3,
                                         1, 30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4,
                                         2, 0);
  _mm512_storeu_si512(p, _mm512_permutexvar_epi16(order, joined_words(a, b)));
}
