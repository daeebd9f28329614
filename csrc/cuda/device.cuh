// SPDX-License-Identifier: BSD-3-Clause
//
// What the kernels need from the machine: storage types, wide loads and stores,
// shared memory, barriers. Everything here has a twin for the host, so that the
// kernels run unchanged in tests/cuda_host without a GPU. No inline PTX outside
// this file; none is needed so far.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
// Numbered, so that a test can remove one barrier at a time.
#define BARRIER(number) __syncthreads()
// The same; and it tells every thread of the block whether `flag` is true in any of them.
#define BARRIER_ANY(number, flag) __syncthreads_or(flag)
#define SHARED_MEMORY(type, name)                                  \
  extern __shared__ __align__(16) unsigned char shared_bytes[];    \
  type* const name = reinterpret_cast<type*>(shared_bytes)
#else
#include "cuda_host.h"
#endif

#define DEVICE __device__ __forceinline__

namespace resample_layers {

// Storage types: bits only, so that this header needs no vendor type on the host.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// The accumulate type: what sums and taps are held in.
template <class T>
struct AccumulateType {
  using type = float;
};
template <>
struct AccumulateType<double> {
  using type = double;
};
template <class T>
using Accumulate = typename AccumulateType<T>::type;

// ---------------------------------------------------------------- conversions

#if defined(__CUDACC__)
DEVICE float bits_to_float(uint32_t bits) { return __uint_as_float(bits); }
DEVICE uint32_t float_to_bits(float value) { return __float_as_uint(value); }
DEVICE float half_to_float(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
DEVICE uint16_t float_to_half(float value) { return __half_as_ushort(__float2half_rn(value)); }
DEVICE uint16_t float_to_bfloat16(float value) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(value));
}
// Two at a time: one instruction packs a pair, and the upper half of a word is
// read in place.
DEVICE float low_half_to_float(uint32_t word) {
  return __low2float(*reinterpret_cast<const __half2*>(&word));
}
DEVICE float high_half_to_float(uint32_t word) {
  return __high2float(*reinterpret_cast<const __half2*>(&word));
}
DEVICE uint32_t floats_to_half2(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
DEVICE uint32_t floats_to_bfloat162(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
DEVICE double words_to_double(uint32_t low, uint32_t high) {
  return __hiloint2double(static_cast<int>(high), static_cast<int>(low));
}
DEVICE uint32_t low_word(double value) { return static_cast<uint32_t>(__double2loint(value)); }
DEVICE uint32_t high_word(double value) { return static_cast<uint32_t>(__double2hiint(value)); }
#endif

DEVICE float to_accumulate(Half value) { return half_to_float(value.bits); }
DEVICE float to_accumulate(BFloat16 value) {
  return bits_to_float(static_cast<uint32_t>(value.bits) << 16);
}
DEVICE float to_accumulate(float value) { return value; }
DEVICE double to_accumulate(double value) { return value; }

template <class T>
DEVICE T from_accumulate(Accumulate<T> value) {
  return value;
}
template <>
DEVICE Half from_accumulate<Half>(float value) {
  return Half{float_to_half(value)};
}
template <>
DEVICE BFloat16 from_accumulate<BFloat16>(float value) {
  return BFloat16{float_to_bfloat16(value)};
}

// ------------------------------------------------------------ wide accesses

#if defined(__CUDACC__)
DEVICE uint4 load_16_bytes(const void* p) { return __ldg(static_cast<const uint4*>(p)); }
DEVICE uint2 load_8_bytes(const void* p) { return __ldg(static_cast<const uint2*>(p)); }
DEVICE uint32_t load_4_bytes(const void* p) { return __ldg(static_cast<const uint32_t*>(p)); }
DEVICE uint16_t load_2_bytes(const void* p) { return __ldg(static_cast<const uint16_t*>(p)); }
// Streaming: the output is not read again by this kernel, so it leaves the cache first.
DEVICE void store_16_bytes(void* p, uint4 v) { __stcs(static_cast<uint4*>(p), v); }
DEVICE void store_8_bytes(void* p, uint2 v) { __stcs(static_cast<uint2*>(p), v); }
DEVICE void store_4_bytes(void* p, uint32_t v) { __stcs(static_cast<uint32_t*>(p), v); }
DEVICE void store_2_bytes(void* p, uint16_t v) { __stcs(static_cast<uint16_t*>(p), v); }
// Shared memory, two and four floats at a time.
DEVICE void store_shared(float* p, float2 v) { *reinterpret_cast<float2*>(p) = v; }
DEVICE void store_shared(float* p, float4 v) { *reinterpret_cast<float4*>(p) = v; }
DEVICE float2 load_shared_2(const float* p) { return *reinterpret_cast<const float2*>(p); }
DEVICE float4 load_shared_4(const float* p) { return *reinterpret_cast<const float4*>(p); }
#endif

// V elements of T as they lie in memory, in registers. Kept packed until used:
// a prefetched row of float16 costs half the registers of its float values.
template <class T, int V>
struct Packed {
  static constexpr int kBytes = V * static_cast<int>(sizeof(T));
  static constexpr int kWords = (kBytes + 3) / 4;
  static_assert(kBytes == 2 || kBytes == 4 || kBytes == 8 || kBytes % 16 == 0, "whole accesses");
  uint32_t word[kWords];

  DEVICE void clear() {
#pragma unroll
    for (int i = 0; i < kWords; ++i) word[i] = 0;
  }

  DEVICE void load(const T* p) {
    if constexpr (kBytes % 16 == 0) {
#pragma unroll
      for (int i = 0; i < kWords; i += 4) {
        const uint4 q = load_16_bytes(p + i * 4 / static_cast<int>(sizeof(T)));
        word[i] = q.x, word[i + 1] = q.y, word[i + 2] = q.z, word[i + 3] = q.w;
      }
    } else if constexpr (kBytes == 8) {
      const uint2 q = load_8_bytes(p);
      word[0] = q.x, word[1] = q.y;
    } else if constexpr (kBytes == 4) {
      word[0] = load_4_bytes(p);
    } else {
      word[0] = load_2_bytes(p);
    }
  }

  DEVICE void store(T* p) const {
    if constexpr (kBytes % 16 == 0) {
#pragma unroll
      for (int i = 0; i < kWords; i += 4) {
        store_16_bytes(p + i * 4 / static_cast<int>(sizeof(T)),
                       uint4{word[i], word[i + 1], word[i + 2], word[i + 3]});
      }
    } else if constexpr (kBytes == 8) {
      store_8_bytes(p, uint2{word[0], word[1]});
    } else if constexpr (kBytes == 4) {
      store_4_bytes(p, word[0]);
    } else {
      store_2_bytes(p, static_cast<uint16_t>(word[0]));
    }
  }

  DEVICE Accumulate<T> get(int e) const;
  DEVICE void set(const Accumulate<T> (&value)[V]);
};

template <class T>
struct WordCodec;
template <>
struct WordCodec<Half> {
  DEVICE static float low(uint32_t word) { return low_half_to_float(word); }
  DEVICE static float high(uint32_t word) { return high_half_to_float(word); }
  DEVICE static uint32_t pack(float a, float b) { return floats_to_half2(a, b); }
};
template <>
struct WordCodec<BFloat16> {
  DEVICE static float low(uint32_t word) { return bits_to_float(word << 16); }
  DEVICE static float high(uint32_t word) { return bits_to_float(word & 0xffff0000u); }
  DEVICE static uint32_t pack(float a, float b) { return floats_to_bfloat162(a, b); }
};

template <class T, int V>
DEVICE Accumulate<T> Packed<T, V>::get(int e) const {
  if constexpr (sizeof(T) == 8) {
    return words_to_double(word[2 * e], word[2 * e + 1]);
  } else if constexpr (sizeof(T) == 4) {
    return bits_to_float(word[e]);
  } else {
    return e % 2 == 0 ? WordCodec<T>::low(word[e / 2]) : WordCodec<T>::high(word[e / 2]);
  }
}

template <class T, int V>
DEVICE void Packed<T, V>::set(const Accumulate<T> (&value)[V]) {
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    if constexpr (sizeof(T) == 8) {
      word[i] = i % 2 == 0 ? low_word(value[i / 2]) : high_word(value[i / 2]);
    } else if constexpr (sizeof(T) == 4) {
      word[i] = float_to_bits(value[i]);
    } else {
      constexpr int kLast = V - 1;  // V = 1: the upper half is not stored
      word[i] = WordCodec<T>::pack(value[2 * i], value[2 * i < kLast ? 2 * i + 1 : kLast]);
    }
  }
}

// ---------------------------------------------------------------- arithmetic

#if defined(__CUDACC__)
DEVICE void sine_and_cosine(float a, float* sine, float* cosine) { sincosf(a, sine, cosine); }
DEVICE void sine_and_cosine(double a, double* sine, double* cosine) { sincos(a, sine, cosine); }
#endif

DEVICE bool is_finite(float value) { return (float_to_bits(value) & 0x7f800000u) != 0x7f800000u; }

// Quotient and remainder; in 32 bits where that is enough, as 64-bit division is slow.
DEVICE int64_t divide(int64_t value, int divisor, int* remainder) {
  if (value <= 0xffffffffLL) {
    const uint32_t v = static_cast<uint32_t>(value), d = static_cast<uint32_t>(divisor);
    *remainder = static_cast<int>(v % d);
    return v / d;
  }
  *remainder = static_cast<int>(value % divisor);
  return value / divisor;
}

}  // namespace resample_layers
