// SPDX-License-Identifier: BSD-3-Clause
//
// 32-byte vectors: AVX2, FMA, F16C. Included inside the namespace of one
// instruction set, after <immintrin.h>, under the matching target options.

alignas(32) static const int32_t kLaneMasks[16] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                   0,  0,  0,  0,  0,  0,  0,  0};

template <class A>
struct Vec;

template <>
struct Vec<float> {
  typedef __m256 R;
  static constexpr int64_t N = 8;
  static R set1(float a) { return _mm256_set1_ps(a); }
  static R mul(R a, R b) { return _mm256_mul_ps(a, b); }
  static R fma(R a, R b, R c) { return _mm256_fmadd_ps(a, b, c); }
  static R add(R a, R b) { return _mm256_add_ps(a, b); }
  // All three give back a NaN that comes as `a`; the others have no say in it.
  static R scale_negative(R a, R factor) {
    return _mm256_blendv_ps(a, mul(a, factor), _mm256_cmp_ps(a, set1(0), _CMP_LT_OQ));
  }
  static R at_most(R a, R bound) { return _mm256_min_ps(bound, a); }
  static R at_least(R a, R bound) { return _mm256_max_ps(bound, a); }
  static R above(R a, R bound, R yes, R no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, bound, _CMP_GT_OQ));
  }
  static bool any_above(R a, R bound) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a, bound, _CMP_GT_OQ)) != 0;
  }
  static __m256i mask(int64_t n) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kLaneMasks + 8 - n));
  }

  static R load(const float* p) { return _mm256_loadu_ps(p); }
  static R load(const Half* p) { return _mm256_cvtph_ps(load_words(p)); }
  static R load(const BFloat16* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_words(p)), 16));
  }
  static void store(float* p, R r) { _mm256_storeu_ps(p, r); }
  static void store(Half* p, R r) {
    store_words(p, _mm256_cvtps_ph(r, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static void store(BFloat16* p, R r) {
    // packus works within 16-byte halves: bring the two used quarters together.
    const __m256i words = _mm256_srli_epi32(rounded(r), 16);
    const __m256i packed = _mm256_packus_epi32(words, words);
    store_words(p, _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
  }
  // Round to nearest, ties to even, in the upper 16 bits; a NaN stays one.
  static __m256i rounded(R r) {
    const __m256i bits = _mm256_castps_si256(r);
    const __m256i tie = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i sum =
        _mm256_add_epi32(bits, _mm256_add_epi32(tie, _mm256_set1_epi32(0x7fff)));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(r, r, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(sum, _mm256_set1_epi32(0x7fc00000), nan);
  }

  static R load_n(const float* p, int64_t n) { return _mm256_maskload_ps(p, mask(n)); }
  static void store_n(float* p, R r, int64_t n) { _mm256_maskstore_ps(p, mask(n), r); }
  template <class T>
  static R load_n(const T* p, int64_t n) {
    T lanes[8] = {};
    for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
  }
  template <class T>
  static void store_n(T* p, R r, int64_t n) {
    T lanes[8];
    store(lanes, r);
    for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
  }

  static void even_odd(R a, R b, R& even, R& odd) {
    even = across(_mm256_shuffle_ps(a, b, 0x88));
    odd = across(_mm256_shuffle_ps(a, b, 0xdd));
  }
  static void zip(R even, R odd, R& a, R& b) {
    const R low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
    a = _mm256_permute2f128_ps(low, high, 0x20);
    b = _mm256_permute2f128_ps(low, high, 0x31);
  }
  static double sum(R r) {
    float lanes[8];
    store(lanes, r);
    double total = 0;
    for (int i = 0; i < 8; ++i) total += lanes[i];
    return total;
  }

 private:
  static __m128i load_words(const void* p) {
    return _mm_loadu_si128(static_cast<const __m128i*>(p));
  }
  static void store_words(void* p, __m128i words) {
    _mm_storeu_si128(static_cast<__m128i*>(p), words);
  }
  static R across(R r) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(r), 0xd8));
  }
};

template <>
struct Vec<double> {
  typedef __m256d R;
  static constexpr int64_t N = 4;
  static R set1(double a) { return _mm256_set1_pd(a); }
  static R mul(R a, R b) { return _mm256_mul_pd(a, b); }
  static R fma(R a, R b, R c) { return _mm256_fmadd_pd(a, b, c); }
  static R add(R a, R b) { return _mm256_add_pd(a, b); }
  static R scale_negative(R a, R factor) {
    return _mm256_blendv_pd(a, mul(a, factor), _mm256_cmp_pd(a, set1(0), _CMP_LT_OQ));
  }
  static R at_most(R a, R bound) { return _mm256_min_pd(bound, a); }
  static R at_least(R a, R bound) { return _mm256_max_pd(bound, a); }
  static R above(R a, R bound, R yes, R no) {
    return _mm256_blendv_pd(no, yes, _mm256_cmp_pd(a, bound, _CMP_GT_OQ));
  }
  static bool any_above(R a, R bound) {
    return _mm256_movemask_pd(_mm256_cmp_pd(a, bound, _CMP_GT_OQ)) != 0;
  }
  static __m256i mask(int64_t n) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kLaneMasks + 8 - 2 * n));
  }
  static R load(const double* p) { return _mm256_loadu_pd(p); }
  static void store(double* p, R r) { _mm256_storeu_pd(p, r); }
  static R load_n(const double* p, int64_t n) { return _mm256_maskload_pd(p, mask(n)); }
  static void store_n(double* p, R r, int64_t n) { _mm256_maskstore_pd(p, mask(n), r); }
  static void even_odd(R a, R b, R& even, R& odd) {
    even = _mm256_permute4x64_pd(_mm256_unpacklo_pd(a, b), 0xd8);
    odd = _mm256_permute4x64_pd(_mm256_unpackhi_pd(a, b), 0xd8);
  }
  static void zip(R even, R odd, R& a, R& b) {
    const R low = _mm256_unpacklo_pd(even, odd), high = _mm256_unpackhi_pd(even, odd);
    a = _mm256_permute2f128_pd(low, high, 0x20);
    b = _mm256_permute2f128_pd(low, high, 0x31);
  }
  static double sum(R r) {
    double lanes[4];
    store(lanes, r);
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
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
inline void load_split<float, BFloat16>(const BFloat16* p, __m256& even, __m256& odd) {
  const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  even = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
  odd = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(int(0xffff0000))));
}
template <>
inline void store_joined<float, BFloat16>(BFloat16* p, __m256 even, __m256 odd) {
  const __m256i low = _mm256_srli_epi32(Vec<float>::rounded(even), 16);
  const __m256i pairs = _mm256_blend_epi16(low, Vec<float>::rounded(odd), 0xaa);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), pairs);
}
